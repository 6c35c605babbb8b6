package store

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// copyTree copies a closed zone, or a part of one, over what is there.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	os.RemoveAll(to)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// edit changes a closed zone's catalog as an administrator could.
func edit(t *testing.T, dir, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, catalogFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if r, err := db.Exec(query, args...); err != nil {
		t.Fatal(err)
	} else if n, _ := r.RowsAffected(); n == 0 {
		t.Fatalf("%s: nothing was changed", query)
	}
}

func openCode(t *testing.T, dir, code string, opts Options) {
	t.Helper()
	opts.Clock = testClock
	z, err := Open(context.Background(), dir, opts)
	if err == nil {
		z.Close()
	}
	if !hasCode(err, code) {
		t.Errorf("Open: %v, want %s", err, code)
	}
}

// filled makes a closed zone with some entries.
func filled(t *testing.T, entries int64) string {
	t.Helper()
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	if err := z.Commit(context.Background(), func(tx *Tx) error {
		for n := range entries {
			if err := collected(tx, n); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	z.Close()
	return dir
}

func TestRollback(t *testing.T) {
	dir := filled(t, 5)
	old, err := os.ReadFile(filepath.Join(dir, catalogFile))
	if err != nil {
		t.Fatal(err)
	}
	z := testOpen(t, dir, Options{})
	commit(t, z, 100)
	z.Close()
	put := func() {
		for _, suffix := range []string{"-wal", "-shm"} {
			os.Remove(filepath.Join(dir, catalogFile) + suffix)
		}
		if err := os.WriteFile(filepath.Join(dir, catalogFile), old, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put()
	openCode(t, dir, "ledger-rollback", Options{})
	openCode(t, dir, "ledger-rollback", Options{Republish: [][]byte{}})
	if b, _ := os.ReadFile(filepath.Join(dir, catalogFile)); string(b) != string(old) {
		t.Error("a refused catalog was changed")
	}
}

func TestMissingPublication(t *testing.T) {
	dir := filled(t, 300)
	if err := os.RemoveAll(filepath.Join(dir, "public/ledger")); err != nil {
		t.Fatal(err)
	}
	openCode(t, dir, "ledger-missing", Options{})
	old, newest := publishedAt(t, dir, 1), publishedAt(t, dir, 301)
	longer := filepath.Join(t.TempDir(), "zone")
	copyTree(t, dir, longer)
	os.Chmod(filepath.Join(longer, keysDir, logKey.secret()), 0o600)
	z := testOpen(t, longer, Options{Republish: [][]byte{old}})
	commit(t, z, 1000)
	ahead, _, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	// What others have seen decides: more than the catalog has, or another ledger.
	openCode(t, dir, "ledger-rollback", Options{Republish: [][]byte{old, ahead}})
	stranger, err := os.ReadFile(filepath.Join(filled(t, 1), "public/ledger/checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	openCode(t, dir, "checkpoint-unsigned", Options{Republish: [][]byte{stranger}})
	openCode(t, dir, "ledger-missing", Options{}) // and nothing was published meanwhile
	// Nobody has seen anything: officers decide.
	waiting := filepath.Join(t.TempDir(), "zone")
	copyTree(t, dir, waiting)
	z = testOpen(t, waiting, Options{Republish: [][]byte{}})
	if c, waits := z.Restored(); !waits || c.Size != 301 {
		t.Error(c, waits)
	}
	if err := z.Commit(context.Background(), func(tx *Tx) error { return collected(tx, 2000) }); !hasCode(err, "zone-restored") {
		t.Error(err)
	}
	z = testOpen(t, dir, Options{Republish: [][]byte{old, newest}})
	sound(t, z, 301)
	commit(t, z, 2000)
	z.Close()
	if err := os.WriteFile(filepath.Join(dir, "public/ledger/checkpoint"), []byte("nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	openCode(t, dir, "checkpoint-note", Options{})
}

// Two continuations of one zone: the published files of one, the catalog of the other.
func TestFork(t *testing.T) {
	dir := filled(t, 5)
	other := filepath.Join(t.TempDir(), "zone")
	copyTree(t, dir, other)
	for path, numbers := range map[string][]int64{dir: {100}, other: {200, 201}} {
		os.Chmod(filepath.Join(path, keysDir, logKey.secret()), 0o600)
		z := testOpen(t, path, Options{})
		for _, n := range numbers {
			commit(t, z, n)
		}
		z.Close()
	}
	larger := filepath.Join(t.TempDir(), "zone")
	copyTree(t, other, larger)
	copyTree(t, filepath.Join(dir, "public"), filepath.Join(larger, "public"))
	openCode(t, larger, "ledger-fork", Options{}) // a larger tree that does not contain the published one

	z := testOpen(t, dir, Options{})
	commit(t, z, 101)
	z.Close()
	copyTree(t, filepath.Join(dir, "public"), filepath.Join(other, "public"))
	openCode(t, other, "ledger-fork", Options{}) // the same size, another root

	// A checkpoint that is not behind, but tiles of the other beyond it.
	third := filepath.Join(t.TempDir(), "zone")
	copyTree(t, dir, third)
	checkpoint := publishedAt(t, third, 1)
	if err := os.WriteFile(filepath.Join(third, "public/ledger/checkpoint"), checkpoint, 0o644); err != nil {
		t.Fatal(err)
	}
	tile := filepath.Join(third, "public/ledger/tile/0/000.p/8")
	b, err := os.ReadFile(tile)
	if err != nil {
		t.Fatal(err)
	}
	b[40] ^= 1
	os.WriteFile(tile, b, 0o644)
	openCode(t, third, "ledger-fork", Options{})
}

// publishedAt is the signed checkpoint of an earlier size, from the catalog.
func publishedAt(t *testing.T, dir string, size int64) []byte {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, catalogFile))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var note []byte
	if err := db.QueryRow("SELECT note FROM checkpoint WHERE size = ?", size).Scan(&note); err != nil {
		t.Fatal(err)
	}
	return note
}

// Committed, but published only in part: Open does the rest from wherever it was left.
func TestOpenPublishes(t *testing.T) {
	whole := filled(t, 600)
	for _, public := range []string{"", "public/ledger/tile/0/001", "public/ledger/tile/entries", "public/ledger/tile"} {
		dir := filepath.Join(t.TempDir(), "zone")
		copyTree(t, whole, dir)
		if err := os.WriteFile(filepath.Join(dir, "public/ledger/checkpoint"), publishedAt(t, dir, 1), 0o644); err != nil {
			t.Fatal(err)
		}
		if public != "" {
			if err := os.RemoveAll(filepath.Join(dir, public)); err != nil {
				t.Fatal(err)
			}
		}
		z := testOpen(t, dir, Options{})
		sound(t, z, 601)
		z.Close()
	}
}

// An edited entry, hash or published file is found by Verify; what breaks the catalog's own tree already by Open.
func TestVerifyFinds(t *testing.T) {
	whole := filled(t, 600)
	ctx := context.Background()
	leafOf := func(dir string, i int64) []byte {
		db, _ := sql.Open("sqlite", filepath.Join(dir, catalogFile))
		defer db.Close()
		var leaf []byte
		if err := db.QueryRow("SELECT leaf FROM entry WHERE idx = ?", i).Scan(&leaf); err != nil {
			t.Fatal(err)
		}
		return leaf
	}
	file := func(rel string) func(dir string) {
		return func(dir string) {
			path := filepath.Join(dir, "public/ledger", rel)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, v := range []struct {
		what, code, subject string
		spoil               func(dir string)
	}{
		{"entry", "ledger-entry", "catalog: entry 77", func(dir string) {
			leaf := leafOf(dir, 77)
			leaf[len(leaf)-20] ^= 1
			edit(t, dir, "UPDATE entry SET leaf = ? WHERE idx = 77", leaf)
		}},
		{"entries exchanged", "ledger-entry", "catalog: entry 77", func(dir string) {
			a, b := leafOf(dir, 77), leafOf(dir, 78)
			edit(t, dir, "UPDATE entry SET leaf = ? WHERE idx = 77", b)
			edit(t, dir, "UPDATE entry SET leaf = ? WHERE idx = 78", a)
		}},
		{"hash of a leaf", "ledger-entry", "catalog: entry 2", func(dir string) { edit(t, dir, "UPDATE entry SET hashes = zeroblob(32) WHERE idx = 2") }},
		{"inner hash", "ledger-hash", "catalog: hashes of entry 1", func(dir string) {
			edit(t, dir, "UPDATE entry SET hashes = CAST(substr(hashes, 1, 32) || zeroblob(32) AS BLOB) WHERE idx = 1")
		}},
		{"hashes cut", "ledger-corrupt", "catalog", func(dir string) { edit(t, dir, "UPDATE entry SET hashes = zeroblob(31) WHERE idx = 2") }},
		{"entry is gone", "ledger-corrupt", "catalog", func(dir string) { edit(t, dir, "DELETE FROM entry WHERE idx = 5") }},
		{"entry bundle", "ledger-entry", "entry 12", file("tile/entries/000")},
		{"tile", "ledger-entry", "entry 12", file("tile/0/000")},
		{"upper tile", "ledger-tile", "tile/1/000.p/2", file("tile/1/000.p/2")},
		{"right edge", "ledger-entry", "entry 556", file("tile/0/002.p/89")},
		{"file is gone", "ledger-tile", "tile/0/001", func(dir string) { os.Remove(filepath.Join(dir, "public/ledger/tile/0/001")) }},
	} {
		dir := filepath.Join(t.TempDir(), "zone")
		copyTree(t, whole, dir)
		v.spoil(dir)
		z, err := Open(ctx, dir, Options{Clock: testClock})
		if err != nil {
			t.Errorf("%s: Open: %v", v.what, err)
			continue
		}
		err = z.Verify(ctx, nil)
		z.Close()
		rs, _ := trust.AsRefusals(err)
		found := false
		for _, r := range rs {
			found = found || r.Code == v.code && (r.Subject == v.subject || v.code == "ledger-entry" && strings.HasPrefix(r.Subject, strings.TrimRight(v.subject, "0123456789")))
		}
		if !found {
			t.Errorf("%s: %v\nwant %s of %s", v.what, err, v.code, v.subject)
		}
	}
	for what, spoil := range map[string]func(dir string){
		"last hash": func(dir string) {
			edit(t, dir, "UPDATE entry SET hashes = zeroblob(length(hashes)) WHERE idx = 600")
		},
		"last entry":   func(dir string) { edit(t, dir, "DELETE FROM entry WHERE idx = 600") },
		"entry beyond": func(dir string) { edit(t, dir, "INSERT INTO entry VALUES (601, zeroblob(64), x'00')") },
		"hash length":  func(dir string) { edit(t, dir, "UPDATE entry SET hashes = x'00' WHERE idx = 600") },
		"no checkpoint": func(dir string) {
			edit(t, dir, "DELETE FROM checkpoint")
		},
	} {
		dir := filepath.Join(t.TempDir(), "zone")
		copyTree(t, whole, dir)
		spoil(dir)
		z, err := Open(ctx, dir, Options{Clock: testClock})
		if err == nil {
			z.Close()
		}
		if !hasCode(err, "ledger-corrupt") && !hasCode(err, "ledger-fork") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Another program's catalog, or one of another version, is not touched.
func TestSchemaVersion(t *testing.T) {
	dir := filled(t, 1)
	db, err := sql.Open("sqlite", filepath.Join(dir, catalogFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 99"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := Open(context.Background(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "schema version 99") {
		t.Error(err)
	}
	os.Remove(filepath.Join(dir, catalogFile))
	if _, err := Open(context.Background(), dir, Options{}); err == nil {
		t.Error("a missing catalog was made anew")
	}
	if _, err := os.Stat(filepath.Join(dir, catalogFile)); err == nil {
		t.Error("a missing catalog was made anew")
	}
}

// A checkpoint signed with another key is not ours.
func TestForeignCheckpoint(t *testing.T) {
	dir := filled(t, 3)
	foreign := filled(t, 3)
	b, err := os.ReadFile(filepath.Join(foreign, "public/ledger/checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "public/ledger/checkpoint"), b, 0o644)
	openCode(t, dir, "checkpoint-unsigned", Options{})
}

// A visitor's error ends Verify.
func TestVerifyVisit(t *testing.T) {
	z := testOpen(t, filled(t, 3), Options{})
	if err := z.Verify(context.Background(), func(i int64, leaf []byte) error { return io.ErrClosedPipe }); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	log, err := z.Log()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := log.ProveInclusion(2)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := z.Entry(context.Background(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := ledger.CheckInclusion(log.Checkpoint(), 2, leaf, proof); err != nil {
		t.Error(err)
	}
}
