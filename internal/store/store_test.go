package store

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"sallyport/internal/trust"
)

func testClock() time.Time { return time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC) }

func testInit(t testing.TB, kind string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "zone")
	cfg, err := NewConfig(kind, "citadel")
	if err != nil {
		t.Fatal(err)
	}
	if err := Init(dir, cfg, testClock, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testOpen(t testing.TB, dir string, opts Options) *Zone {
	t.Helper()
	if opts.Clock == nil {
		opts.Clock = testClock
	}
	z, err := Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	return z
}

// collected appends a statement that any zone may make.
func collected(tx *Tx, n int64) error {
	d := trust.Sum([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	return tx.Statement(trust.StatementCollected, []trust.Subject{{Name: "items", SHA256: d}},
		map[string]any{"items": n, "bytes": n, "request": d.String()})
}

func TestZone(t *testing.T) {
	ctx := context.Background()
	z := testOpen(t, testInit(t, Inside), Options{})
	for n := range int64(600) {
		if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, n) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Verify(ctx, nil); err != nil {
		t.Fatal(err)
	}
	_, c, err := z.Checkpoint()
	if err != nil || c.Size != 601 {
		t.Fatal(c, err)
	}
}
