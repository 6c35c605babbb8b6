package host

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"os"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
)

// BenchmarkCheck is of a host with 20,000 items and 400,000 references: no derivation makes any of them, so each path is computed again.
func BenchmarkCheck(b *testing.B) {
	const items, refs = 20_000, 20
	w := newEstate(b).world(b)
	tx, err := w.db.Begin()
	if err != nil {
		b.Fatal(err)
	}
	exec := func(tx *sql.Tx, query string, args ...any) {
		if _, err := tx.Exec(query, args...); err != nil {
			b.Fatal(err)
		}
	}
	for i := range items {
		data := enclavetest.Nar(fmt.Sprint("item ", i))
		p, err := storepath.Source("thing", sha256.Sum256(data))
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(w.path(p.String()), fmt.Append(nil, "item ", i), 0o444); err != nil {
			b.Fatal(err)
		}
		exec(tx, `INSERT INTO ValidPaths VALUES (?, ?, ?, 1, NULL, ?)`, 1000+i, p.String(), fmt.Sprintf("sha256:%x", sha256.Sum256(data)), len(data))
	}
	// One in twenty refers to others; such a one is explained by nothing.
	for i := 0; i < items; i += refs {
		for k := range refs * refs {
			exec(tx, `INSERT OR IGNORE INTO Refs VALUES (?, ?)`, 1000+i, 1000+(i+k*7919)%items)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if res := w.mustCheck(); res.Items < items {
			b.Fatal(res.Items)
		}
	}
	b.ReportMetric(items, "items")
}
