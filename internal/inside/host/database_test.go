package host

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/storepath"
)

// read reads the machine's database.
func (m *machine) read() (*rows, error) {
	m.t.Helper()
	temp, err := os.MkdirTemp(m.t.TempDir(), "copy-")
	if err != nil {
		m.t.Fatal(err)
	}
	return readDatabase(context.Background(), newTree(m.root()), temp)
}

// quit ends the daemon: its log is moved into the database and deleted. Then the file looks old enough for a copy at once.
func (m *machine) quit() {
	m.t.Helper()
	if err := m.db.Close(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) file() string { return m.path(databaseDir + "/" + databaseFile) }

const goodHash = "sha256:00000000000000000000000000000000000000000000000000000000000000ff"

func TestReadDatabase(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`INSERT INTO ValidPaths VALUES (5, ?, ?, 1, NULL, 10), (9, ?, ?, 1, ?, NULL)`, storePath(itemA), goodHash, storePath(itemB), goodHash, storePath(itemA)+".drv")
	m.exec(`INSERT INTO Refs VALUES (9, 5), (9, 9)`)
	before, err := os.ReadDir(m.path(databaseDir))
	if err != nil {
		t.Fatal(err)
	}
	for _, live := range []bool{true, false} {
		if !live {
			m.quit()
		}
		r, err := m.read()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.all) != 2 || len(r.faults) > 0 {
			t.Fatalf("%+v", r)
		}
		a, b := r.all[0], r.all[1]
		if a.name != itemA || a.size != 10 || a.deriver != "" || a.odd != "" || len(a.refs) > 0 || a.hash[31] != 0xff {
			t.Errorf("%+v", a)
		}
		if b.name != itemB || b.size != -1 || b.deriver != itemA+".drv" || b.odd != "" || !slices.Equal(b.refs, []int32{0}) {
			t.Errorf("%+v", b)
		}
		after, err := os.ReadDir(m.path(databaseDir))
		if err != nil {
			t.Fatal(err)
		}
		if live && len(after) != len(before) || !live && len(after) != 2 {
			t.Errorf("files beside the database: %v, before %v", after, before)
		}
	}
}

// TestOddRows: a row with values that the daemon never writes is kept for what it is, and judged as unknown.
func TestOddRows(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		values  []any // path, hash, deriver, narSize
		says    string
		notPath bool
	}{
		{"a path outside of the store", []any{"/etc/passwd", goodHash, nil, 1}, "its path", true},
		{"the directory above the store", []any{storepath.Dir + "/..", goodHash, nil, 1}, "its path", true},
		{"a path with a slash", []any{storePath(itemA) + "/x", goodHash, nil, 1}, "its path", true},
		{"a path without a hash", []any{storepath.Dir + "/foo", goodHash, nil, 1}, "its path", true},
		{"another alphabet", []any{storepath.Dir + "/" + strings.Repeat("e", 32) + "-x", goodHash, nil, 1}, "its path", true},
		{"a space", []any{storePath(itemA) + " b", goodHash, nil, 1}, "its path", true},
		{"a line feed", []any{storePath(itemA) + "\n", goodHash, nil, 1}, "its path", true},
		{"a NUL", []any{storePath(itemA) + "\x00", goodHash, nil, 1}, "its path", true},
		{"a path that is a blob", []any{[]byte(storePath(itemA)), goodHash, nil, 1}, "its path is a blob", true},
		{"an empty path", []any{"", goodHash, nil, 1}, "its path", true},
		{"a long name", []any{storePath(itemA) + strings.Repeat("x", 60000), goodHash, nil, 1}, "its path", true},
		{"a hash in base32", []any{storePath(itemA), "sha256:" + strings.Repeat("0", 52), nil, 1}, "its hash", false},
		{"upper case", []any{storePath(itemA), strings.ToUpper(goodHash), nil, 1}, "its hash", false},
		{"another algorithm", []any{storePath(itemA), "sha512:" + goodHash[7:], nil, 1}, "its hash", false},
		{"a hash that is a number", []any{storePath(itemA), 7, nil, 1}, "its hash", false},
		{"a hash that is a blob", []any{storePath(itemA), []byte(goodHash), nil, 1}, "its hash is a blob", false},
		{"a deriver that is none", []any{storePath(itemA), goodHash, storePath(itemB), 1}, "its deriver", false},
		{"an empty deriver", []any{storePath(itemA), goodHash, "", 1}, "its deriver", false},
		{"a deriver that is a number", []any{storePath(itemA), goodHash, 3.5, 1}, "its deriver", false},
		{"a deriver that is a blob", []any{storePath(itemA), goodHash, []byte{1}, 1}, "its deriver is a blob", false},
		{"a negative size", []any{storePath(itemA), goodHash, nil, -2}, "its size", false},
		{"a size that is a fraction", []any{storePath(itemA), goodHash, nil, 1.5}, "its size", false},
		{"a size that is a text", []any{storePath(itemA), goodHash, nil, "many"}, "its size", false},
	}
	m := newMachine(t)
	for i, tt := range tests {
		if tt.values[0] == storePath(itemA) { // a path stands there once
			tt.values[0] = fmt.Sprint(storePath(itemA), i)
		}
		m.exec(`INSERT INTO ValidPaths (id, path, hash, registrationTime, deriver, narSize) VALUES (?, ?, ?, 1, ?, ?)`, append([]any{i + 1}, tt.values...)...)
	}
	r, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.all) != len(tests) || len(r.faults) > 0 {
		t.Fatalf("%d rows, %v", len(r.all), r.faults)
	}
	for i, tt := range tests {
		if one := r.all[i]; !strings.HasPrefix(one.odd, tt.says) || one.path.IsZero() != tt.notPath {
			t.Errorf("%s: %+v", tt.name, one)
		}
	}
}

func TestOddReferences(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`INSERT INTO ValidPaths VALUES (1, ?, ?, 1, NULL, 10), (2, ?, ?, 1, NULL, 10)`, storePath(itemA), goodHash, storePath(itemB), goodHash)
	m.exec(`INSERT INTO Refs VALUES (1, 7)`)
	m.exec(`INSERT INTO Refs VALUES (7, 1)`)
	m.exec(`INSERT INTO Refs VALUES ('x', 1)`)
	m.exec(`INSERT INTO Refs VALUES (2, x'01')`)
	r, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.all[0].odd, "row 7") && !strings.Contains(r.all[0].odd, "7") || r.all[1].odd == "" {
		t.Errorf("%+v", r.all)
	}
	suite.Want(t, r.faults.Err(), "host-database-row", "host-database-row")
}

// TestTwoRowsOfAPath: an index that does not do its duty lets a path stand there twice.
func TestTwoRowsOfAPath(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`PRAGMA writable_schema = 1`)
	m.exec(`INSERT INTO ValidPaths VALUES (1, ?, ?, 1, NULL, 10), (2, ?, ?, 1, NULL, 10)`, storePath(itemA), goodHash, storePath(itemB), goodHash)
	m.quit()
	// The same bytes, so that only the index tells.
	data, err := os.ReadFile(m.file())
	if err != nil {
		t.Fatal(err)
	}
	i := bytes.LastIndex(data, []byte(storePath(itemB)+"sha256"))
	if i < 0 {
		t.Fatal("no row")
	}
	copy(data[i:], storePath(itemA))
	if err := os.WriteFile(m.file(), data, 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	if len(r.all) != 2 || r.all[0].odd == "" && r.all[1].odd == "" {
		t.Errorf("%+v", r.all)
	}
	suite.Want(t, r.faults.Err(), "host-database-row")
}

func TestHostileDatabases(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		make  func(m *machine)
		codes []string // none: a failure
	}{
		{"another version", func(m *machine) { m.write(databaseDir+"/"+schemaFile, "8") }, []string{"host-database-schema"}},
		{"no version", func(m *machine) {
			if err := os.Remove(m.path(databaseDir + "/" + schemaFile)); err != nil {
				m.t.Fatal(err)
			}
		}, nil},
		{"a long version", func(m *machine) { m.write(databaseDir+"/"+schemaFile, strings.Repeat("7", 100)) }, nil},
		{"a view in the place of a table", func(m *machine) {
			m.exec(`DROP TABLE FailedPaths`)
			m.exec(`ALTER TABLE ValidPaths RENAME TO Hidden`)
			m.exec(`CREATE VIEW ValidPaths AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 'x' || i AS path, '' AS hash, 1 AS registrationTime, NULL AS deriver, 1 AS narSize FROM n`)
		}, []string{"host-database-schema", "host-database-schema", "host-database-schema", "host-database-schema"}},
		{"a computed column", func(m *machine) {
			m.exec(`DROP TABLE ValidPaths`)
			m.exec(`CREATE TABLE ValidPaths (id integer primary key autoincrement not null, path text unique not null, hash text not null, registrationTime integer not null, deriver text AS (path || '.drv'), narSize integer)`)
		}, []string{"host-database-schema"}},
		{"a table less", func(m *machine) { m.exec(`DROP TABLE Refs`) }, []string{"host-database-schema"}},
		{"a table more", func(m *machine) { m.exec(`CREATE TABLE More (x)`) }, []string{"host-database-schema"}},
		{"a virtual table", func(m *machine) { m.exec(`CREATE VIRTUAL TABLE f USING fts5(x)`) }, slices.Repeat([]string{"host-database-schema"}, 6)},
		{"a virtual table under a known name", func(m *machine) {
			m.exec(`DROP TABLE FailedPaths`)
			m.exec(`CREATE VIRTUAL TABLE FailedPaths USING fts5(x)`)
		}, slices.Repeat([]string{"host-database-schema"}, 6)},
		{"very many tables", func(m *machine) {
			m.exec(`BEGIN`)
			for i := range 200 {
				m.exec(fmt.Sprintf(`CREATE INDEX i%d ON ValidPaths(narSize)`, i))
			}
			m.exec(`COMMIT`)
		}, []string{"host-database-schema"}},
		{"an index and statistics are nothing", func(m *machine) {
			m.exec(`CREATE INDEX more ON ValidPaths(narSize) WHERE narSize > 7`)
			m.exec(`ANALYZE`)
		}, []string{"fine"}},
		{"a row that is too long", func(m *machine) {
			m.exec(`INSERT INTO ValidPaths VALUES (1, ?, ?, 1, NULL, 10)`, storePath(itemA)+strings.Repeat("x", maxRow), goodHash)
		}, []string{"host-database-corrupt"}},
		{"no database", func(m *machine) {
			m.quit()
			m.write(databaseDir+"/"+databaseFile, strings.Repeat("no database ", 1000))
		}, []string{"host-database-corrupt"}},
		{"an empty file", func(m *machine) {
			m.quit()
			m.write(databaseDir+"/"+databaseFile, "")
		}, []string{"host-database-schema", "host-database-schema"}},
		{"cut in the middle", func(m *machine) {
			m.quit()
			if err := os.Truncate(m.file(), 8192); err != nil {
				m.t.Fatal(err)
			}
		}, []string{"host-database-corrupt"}},
		{"no file", func(m *machine) {
			m.quit()
			if err := os.Remove(m.file()); err != nil {
				m.t.Fatal(err)
			}
		}, nil},
		{"a link", func(m *machine) {
			m.quit()
			if err := os.Rename(m.file(), m.file()+"2"); err != nil {
				m.t.Fatal(err)
			}
			m.link(databaseDir+"/"+databaseFile, databaseFile+"2")
		}, nil},
		{"a pipe", func(m *machine) {
			m.quit()
			if err := os.Remove(m.file()); err != nil {
				m.t.Fatal(err)
			}
			mkfifo(m.t, m.file())
		}, nil},
		{"too large", func(m *machine) {
			m.quit()
			f, err := os.OpenFile(m.file()+"-wal", os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				m.t.Fatal(err)
			}
			if err := errors.Join(f.Truncate(maxDatabase+1), f.Close()); err != nil {
				m.t.Fatal(err)
			}
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			tt.make(m)
			start := time.Now()
			_, err := m.read()
			if d := time.Since(start); d > readTime/10 {
				t.Errorf("it took %v", d)
			}
			switch {
			case len(tt.codes) == 0:
				if err == nil {
					t.Error("taken")
				}
				suite.Want(t, errorOf(err))
			case tt.codes[0] == "fine":
				suite.Want(t, err)
			default:
				suite.Want(t, err, tt.codes...)
			}
		})
	}
}

// errorOf is nil for a failure; what is a refusal stays.
func errorOf(err error) error {
	if err != nil && !strings.Contains(err.Error(), "host-database") {
		return nil
	}
	return err
}

// TestPagesInACircle: pages that lead to each other would be followed for ever.
func TestPagesInACircle(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`BEGIN`)
	for i := range 2000 {
		m.exec(`INSERT INTO ValidPaths VALUES (?, ?, ?, 1, NULL, 10)`, i+1, fmt.Sprintf("%s/%032d-x", storepath.Dir, i), goodHash)
	}
	m.exec(`COMMIT`)
	var page, size int
	if err := m.db.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'ValidPaths'`).Scan(&page); err != nil {
		t.Fatal(err)
	}
	if err := m.db.QueryRow(`PRAGMA page_size`).Scan(&size); err != nil {
		t.Fatal(err)
	}
	m.quit()
	data, err := os.ReadFile(m.file())
	if err != nil {
		t.Fatal(err)
	}
	top := data[(page-1)*size : page*size]
	if top[0] != 5 {
		t.Fatalf("page %d is of type %d; want an inner one", page, top[0])
	}
	for name, child := range map[string]uint32{"itself": uint32(page), "one leaf for all": binary.BigEndian.Uint32(top[8:])} {
		t.Run(name, func(t *testing.T) {
			bad := slices.Clone(data)
			top := bad[(page-1)*size : page*size]
			binary.BigEndian.PutUint32(top[8:], child)
			for i := range int(binary.BigEndian.Uint16(top[3:])) {
				cell := binary.BigEndian.Uint16(top[12+2*i:])
				binary.BigEndian.PutUint32(top[cell:], child)
			}
			if err := os.WriteFile(m.file(), bad, 0o644); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err := m.read()
			suite.Want(t, err, "host-database-corrupt")
			if d := time.Since(start); d > readTime/10 {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// TestFlippedBytes: whatever a bit does, reading ends, with rows or without.
func TestFlippedBytes(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`INSERT INTO ValidPaths VALUES (1, ?, ?, 1, NULL, 10), (2, ?, ?, 1, NULL, 10)`, storePath(itemA), goodHash, storePath(itemB), goodHash)
	m.exec(`INSERT INTO Refs VALUES (2, 1)`)
	m.quit()
	data, err := os.ReadFile(m.file())
	if err != nil {
		t.Fatal(err)
	}
	refusedAt, temp := 0, t.TempDir()
	ends := time.Now().Add(time.Second)
	n := 0
	for i := 0; i < len(data) && (n == 0 || time.Now().Before(ends)); i += 37 {
		bad := slices.Clone(data)
		bad[i] ^= byte(1 << (i % 8))
		file := filepath.Join(temp, databaseFile)
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		n++
		if _, err := readRows(t.Context(), file); err != nil {
			refusedAt++
		}
	}
	if refusedAt == 0 {
		t.Error("no flipped bit was noticed")
	}
	t.Logf("%d of %d files were not taken", refusedAt, n)
}

// TestLiveDatabase copies while a daemon writes, and moves its log into the database, as fast as it can: each copy is one state.
func TestLiveDatabase(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.quit()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var wrote int
	wg.Go(func() {
		n := 1
		for round := 0; ctx.Err() == nil; round++ {
			// A client comes, does its work and leaves, whereupon the log is deleted.
			db, err := sql.Open("sqlite", "file:"+m.file()+"?_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=wal_autocheckpoint(20)")
			if err != nil {
				t.Error(err)
				return
			}
			db.SetMaxOpenConns(1)
			for range 30 {
				tx, err := db.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				// Two rows that belong together.
				for k := range 2 {
					if _, err := tx.Exec(`INSERT INTO ValidPaths (path, hash, registrationTime, narSize) VALUES (?, ?, ?, ?)`, fmt.Sprintf("%s/%032d-%d", storepath.Dir, n, k), goodHash, n, n); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := tx.Exec(`INSERT INTO Refs SELECT max(id), max(id) - 1 FROM ValidPaths`); err != nil {
					t.Error(err)
					return
				}
				if err := tx.Commit(); err != nil {
					t.Error(err)
					return
				}
				n++
				wrote = n
			}
			if err := db.Close(); err != nil {
				t.Error(err)
				return
			}
			select { // now and then nobody is there, and for longer if this machine needs long for a copy
			case <-time.After(time.Duration(round%5) * time.Duration(1+round/20) * 60 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	copies, tired := 0, 0
	for begun := time.Now(); time.Since(begun) < 2*time.Second || copies == 0 && time.Since(begun) < 5*time.Minute; {
		r, err := m.read()
		if err != nil {
			if !strings.Contains(err.Error(), "written to each of") {
				t.Fatal(err)
			}
			tired++
			continue
		}
		copies++
		if len(r.all)%2 != 0 || len(r.faults) > 0 {
			t.Fatalf("%d rows, %v", len(r.all), r.faults)
		}
		refs := 0
		for i := range r.all {
			if r.all[i].odd != "" {
				t.Fatal(r.all[i].odd)
			}
			refs += len(r.all[i].refs)
		}
		if refs*2 != len(r.all) {
			t.Fatalf("%d references of %d rows", refs, len(r.all))
		}
	}
	stop()
	wg.Wait()
	if copies == 0 {
		t.Error("no copy was made")
	}
	t.Logf("%d copies, %d not to be had, of %d transactions", copies, tired, wrote)
}

// TestJournal: a transaction of a database without a log that was cut leaves a journal; what lies in the file then is no state.
func TestJournal(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`PRAGMA journal_mode = DELETE`)
	m.quit()
	m.write(databaseDir+"/"+databaseFile+"-journal", "x")
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := readDatabase(ctx, newTree(m.root()), t.TempDir()); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := os.Remove(m.file() + "-journal"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err != nil {
		t.Error(err)
	}
}

// TestClockAhead: a disk whose machine had a clock that went ahead is read all the same.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.quit()
	if err := os.Chtimes(m.file(), time.Now().Add(time.Hour), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err != nil {
		t.Error(err)
	}
}

func TestNoHost(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := readDatabase(t.Context(), newTree(root), t.TempDir()); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "Guix host") {
		t.Error(err)
	}
}

func TestDatabaseBounds(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.exec(`INSERT INTO ValidPaths VALUES (1, ?, ?, 1, NULL, 10), (2, ?, ?, 1, NULL, 10)`, storePath(itemA), goodHash, storePath(itemB), goodHash)
	m.exec(`INSERT INTO Refs VALUES (1, 2), (2, 1)`)
	m.quit()
	_, err := readBounded(t.Context(), m.file(), 1, 2)
	suite.Want(t, err, "host-database-size")
	_, err = readBounded(t.Context(), m.file(), 2, 1)
	suite.Want(t, err, "host-database-size")
	_, err = readBounded(t.Context(), m.file(), 2, 2)
	suite.Want(t, err)
}
