package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// downgrade makes the catalog of a closed zone one of version 1.
func downgrade(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("testdata/schema-1.sql")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, catalogFile)
	if err := os.Rename(path, path+".new"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path + ".new")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec(string(text))
	exec("PRAGMA user_version = 1")
	exec("PRAGMA journal_mode = WAL")
	exec("ATTACH ? AS new", path+".new")
	exec("INSERT INTO entry SELECT idx, leaf FROM new.entry")
	exec("INSERT INTO checkpoint SELECT size, note FROM new.checkpoint")
	for _, name := range []string{"public", "setting", "root", "allowlist", "shipment", "finding", "witness", "narinfo", "built", "agreed", "proposal", "proposal_signature"} {
		exec(fmt.Sprintf("INSERT INTO %s SELECT * FROM new.%[1]s", name))
	}
	exec("INSERT INTO item SELECT sha256, size, kind, name, added FROM new.item")
	exec("INSERT INTO shipment_item SELECT number, sha256 FROM new.shipment_item")
	exec("INSERT INTO shipped VALUES (1, 'x', 'y')")
	rows, err := db.Query("SELECT leaf FROM entry ORDER BY idx")
	if err != nil {
		t.Fatal(err)
	}
	var leaves [][]byte
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	rows.Close()
	var stored []tlog.Hash
	for i, leaf := range leaves {
		h, err := tlog.StoredHashes(int64(i), leaf, tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(at))
			for k, x := range at {
				out[k] = stored[x]
			}
			return out, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, h...)
	}
	for i, h := range stored {
		exec("INSERT INTO hash VALUES (?, ?)", i, h[:])
	}
}

// A catalog of version 1 is refused with the remedy, and brought up to date by it: the rows stay, and so does the former file.
func TestUpgrade(t *testing.T) {
	ctx := context.Background()
	dir := filled(t, 300)
	z := testOpen(t, dir, Options{})
	e := newEnclave(t)
	msg, pin := e.root(t, "citadel", 1, trust.Digest{}, "olga/root", "otto/root")
	if _, err := z.SetRoot(ctx, msg, pin); err != nil {
		t.Fatal(err)
	}
	d := trust.Sum([]byte("x")).String()
	if err := z.Commit(ctx, func(tx *Tx) error {
		return errors.Join(
			tx.Exec(ctx, "INSERT INTO item VALUES (?, 1, 'source', 'x', '2026-03-01T09:00:00Z')", d),
			tx.Exec(ctx, "INSERT INTO shipment VALUES (1, ?, 'quarantined', 'ines', '2026-03-01T09:00:00Z', 1, 1)", d),
			tx.Exec(ctx, "INSERT INTO shipment_item VALUES (1, ?, 'x')", d),
			tx.Exec(ctx, "INSERT INTO finding VALUES (1, 'x', 'info', 'r', 'p', 1, 'd')"))
	}); err != nil {
		t.Fatal(err)
	}
	_, c, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	z.Close()
	if u, err := Upgrade(ctx, dir, Options{Clock: testClock}); err != nil || u.From != schemaVersion || u.Aside != "" {
		t.Errorf("%+v, %v", u, err)
	}
	downgrade(t, dir)
	var version *SchemaError
	if _, err := Open(ctx, dir, Options{}); !errors.As(err, &version) || version.Have != 1 {
		t.Fatal(err)
	}
	u, err := Upgrade(ctx, dir, Options{Clock: testClock})
	if err != nil || u.From != 1 || u.To != schemaVersion || u.Aside == "" {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := os.Stat(u.Aside); err != nil {
		t.Error(err)
	}
	z = testOpen(t, dir, Options{})
	if _, now, err := z.Checkpoint(); err != nil || now != c {
		t.Error(now, err)
	}
	if err := z.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	if r, err := z.Root(); err != nil || r.Version != 1 {
		t.Error(err)
	}
	var row string
	if err := z.Read(ctx).QueryRowContext(ctx, `SELECT i.name || s.name || f.detail || h.state FROM item i, shipment_item s, finding f, shipment h WHERE i.sha256 = s.sha256`).Scan(&row); err != nil || row != "xxdquarantined" {
		t.Error(row, err)
	}
	commit(t, z, 1000)
	if err := z.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	// What an upgraded catalog looks like is what a new one looks like.
	layout := func(dir string) (text string) {
		db, err := sql.Open("sqlite", filepath.Join(dir, catalogFile))
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRow("SELECT group_concat(name || ' ' || coalesce(sql, ''), char(10)) FROM (SELECT * FROM sqlite_master ORDER BY name)").Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	if have, want := layout(dir), layout(testInit(t, Inside)); have != want {
		t.Errorf("%s\nwant\n%s", have, want)
	}
	edited := filled(t, 1)
	edit(t, edited, "UPDATE setting SET value = value WHERE 0; PRAGMA user_version = 77; INSERT INTO setting VALUES ('a', 'b')")
	if _, err := Upgrade(ctx, edited, Options{}); !errors.As(err, &version) || version.Have != 77 {
		t.Error(err)
	}
}
