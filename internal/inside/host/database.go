package host

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// Where a host keeps its state.
const (
	stateDir     = "/var/guix"
	databaseDir  = stateDir + "/db"
	databaseFile = "db.sqlite"
	schemaFile   = "schema"
	schemaWant   = "7"
)

// Bounds of a host's database.
const (
	maxDatabase = 8 << 30    // bytes of the file and its log
	maxItems    = 2_000_000  // valid paths
	maxRefs     = 64_000_000 // references
	maxRow      = 64 << 10   // bytes of one row
	readTime    = 30 * time.Minute
)

// How a copy of the database is made.
const (
	copyTries = 20
	copyWait  = 100 * time.Millisecond // between tries; and how old a change has to be, so that a file's times tell the next from it
	walHeader = 32                     // bytes at the beginning of the log: they change whenever it begins anew
	copySpare = 64 << 20               // of disk space, beside the copy
)

// A row is what the database says of one item.
type row struct {
	name    string         // base name; where the path is not one, the path as it stands there
	path    storepath.Path // zero where it is not well-formed
	hash    trust.Digest   // of the nar
	size    int64          // of the nar; -1: not said
	deriver string         // base name; "" for none
	refs    []int32        // indices of rows, itself not among them
	odd     string         // what is wrong with the row
}

// rows are the items of a store, as its database has them.
type rows struct {
	all    []row
	byName map[string]int32
	faults trust.Refusals // of the database as a whole
}

func (r *rows) find(name string) (int32, bool) {
	i, ok := r.byName[name]
	return i, ok
}

// readDatabase reads the host's database as it is at one moment. The daemon may be writing to it: nothing is locked, nothing is written there; what is read is a
// copy in temp, a directory of our own.
func readDatabase(ctx context.Context, t *tree, temp string) (*rows, error) {
	at, err := t.resolve(databaseDir, true)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no store database: %w; is this the root directory of a Guix host?", err)
	}
	if err != nil {
		return nil, fmt.Errorf("store database: %w", err)
	}
	if schema, err := t.read(path.Join(at.path, schemaFile), 64); err != nil {
		return nil, fmt.Errorf("store database: %w", err)
	} else if s := strings.TrimSpace(string(schema)); s != schemaWant {
		return nil, trust.Refuse("host-database-schema", databaseDir+"/"+schemaFile, "version %.20q, this program knows %s", s, schemaWant)
	}
	file, err := copyDatabase(ctx, t, path.Join(at.path, databaseFile), temp)
	if err != nil {
		return nil, err
	}
	// SQLite can be interrupted while it goes through rows, not wherever else a crafted file may send it.
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	type answer struct {
		r   *rows
		err error
	}
	done := make(chan answer, 1)
	go func() {
		r, err := readRows(ctx, file)
		done <- answer{r, err}
	}()
	select {
	case a := <-done:
		return a.r, a.err
	case <-ctx.Done():
		return nil, fmt.Errorf("store database: not read to its end: %w", ctx.Err())
	}
}

// copyDatabase copies the database with its log, consistently, and returns the name of the copy.
//
// While the log begins with the same header, it has every page that was moved from it into the database since: laid over a copy of the database that was made
// during that time, whatever mixture it is, it gives the state of its last whole transaction. So the log is copied after the database, and
// its header must be the same before and after. Without a log nothing is written but by opening one, and that changes the times of the database when the log is
// moved into it.
func copyDatabase(ctx context.Context, t *tree, from, temp string) (string, error) {
	to := filepath.Join(temp, databaseFile)
	for try := range copyTries {
		if try > 0 {
			select {
			case <-time.After(copyWait):
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		before, err := look(t, from)
		if err != nil {
			return "", fmt.Errorf("store database: %w", err)
		}
		if !before.quiet() {
			continue
		}
		if err := space(temp, before.total); err != nil {
			return "", err
		}
		if err := copyFile(ctx, t, from, to); err != nil {
			return "", fmt.Errorf("store database: %w", err)
		}
		if err := os.Remove(to + "-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if before.header != "" {
			if err := copyFile(ctx, t, from+"-wal", to+"-wal"); errors.Is(err, fs.ErrNotExist) {
				continue
			} else if err != nil {
				return "", fmt.Errorf("store database: %w", err)
			}
		}
		after, err := look(t, from)
		if err != nil {
			return "", fmt.Errorf("store database: %w", err)
		}
		if before.still(after) {
			return to, nil
		}
	}
	return "", fmt.Errorf("store database: it was written to each of %d times that a copy was begun", copyTries)
}

// A glance is what tells one state of the database's files from another.
type glance struct {
	dev, ino     uint64
	size         int64
	mtime, ctime time.Time
	header       string // of the log; "" if there is none
	journal      int64  // bytes of a rollback journal: a transaction that is under way, or was cut
	total        int64
	at           time.Time
}

// quiet says whether the copy of what was seen could be told from that of something else.
func (g glance) quiet() bool {
	// A time that is ahead is of another clock: nothing that happens now gets it.
	old := func(t time.Time) bool { return g.at.Sub(t) > copyWait || t.Sub(g.at) > copyWait }
	return g.journal == 0 && (g.header != "" || old(g.mtime) && old(g.ctime))
}

// still says whether what was copied between the two is one state.
func (g glance) still(after glance) bool {
	if after.journal != 0 || g.dev != after.dev || g.ino != after.ino || g.header != after.header {
		return false
	}
	return g.header != "" || g.size == after.size && g.mtime.Equal(after.mtime) && g.ctime.Equal(after.ctime)
}

func look(t *tree, file string) (glance, error) {
	f, err := t.open(file)
	if err != nil {
		return glance{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return glance{}, &fs.PathError{Op: "stat", Path: file, Err: err}
	}
	g := glance{dev: st.Dev, ino: st.Ino, size: st.Size, total: st.Size, at: time.Now(),
		mtime: time.Unix(st.Mtim.Unix()), ctime: time.Unix(st.Ctim.Unix())}
	if g.journal, err = size(t, file+"-journal"); err != nil {
		return glance{}, err
	}
	wal, err := t.open(file + "-wal")
	if errors.Is(err, fs.ErrNotExist) {
		return g, nil
	}
	if err != nil {
		return glance{}, err
	}
	defer wal.Close()
	if fi, err := wal.Stat(); err != nil {
		return glance{}, err
	} else {
		g.total += fi.Size()
	}
	head := make([]byte, walHeader)
	n, err := io.ReadFull(wal, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return glance{}, err
	}
	if n == walHeader {
		g.header = string(head)
	}
	if g.total > maxDatabase {
		return glance{}, fmt.Errorf("%s: %d bytes with its log, more than %d", file, g.total, int64(maxDatabase))
	}
	return g, nil
}

func size(t *tree, p string) (int64, error) {
	fi, err := t.lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func copyFile(ctx context.Context, t *tree, from, to string) error {
	in, err := t.open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	var n int64
	for err == nil {
		// In pieces, so that it can be stopped.
		var m int64
		m, err = io.CopyN(out, in, 64<<20)
		if n += m; n > maxDatabase {
			err = fmt.Errorf("%s: more than %d bytes", from, int64(maxDatabase))
		} else if err == nil {
			err = ctx.Err()
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, out.Close())
}

// space demands room for a copy.
func space(dir string, bytes int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	if free := int64(st.Bavail) * st.Bsize; free < bytes+copySpare {
		return fmt.Errorf("%s: %d bytes free, the copy of the store database takes %d", dir, free, bytes+copySpare)
	}
	return nil
}

// readRows reads a copy.
func readRows(ctx context.Context, file string) (*rows, error) {
	return readBounded(ctx, file, maxItems, maxRefs)
}

func readBounded(ctx context.Context, file string, items, refs int) (*rows, error) {
	q := url.Values{"mode": {"rw"}} // of a copy: with its log
	for _, p := range []string{"query_only(1)", "trusted_schema(0)", "cell_size_check(1)", "mmap_size(0)", "temp_store(2)"} {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("store database: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, corrupt(err)
	}
	defer c.Close()
	const limitLength = 0 // SQLITE_LIMIT_LENGTH
	if _, err := sqlite.Limit(c, limitLength, maxRow); err != nil {
		return nil, fmt.Errorf("store database: %w", err)
	}
	if err := checkSchema(ctx, c); err != nil {
		return nil, err
	}
	r := &rows{byName: map[string]int32{}}
	ids, err := r.readPaths(ctx, c, items)
	if err != nil {
		return nil, err
	}
	return r, r.readRefs(ctx, c, ids, refs)
}

// corrupt tells what SQLite finds wrong with the file from what fails otherwise.
func corrupt(err error) error {
	var e *sqlite.Error
	if errors.As(err, &e) {
		switch e.Code() & 0xff {
		case 1, 11, 18, 26: // SQLITE_ERROR (of a schema that cannot be parsed), SQLITE_CORRUPT, SQLITE_TOOBIG, SQLITE_NOTADB
			return trust.Refuse("host-database-corrupt", databaseDir+"/"+databaseFile, "%s", trust.Printable(err.Error(), 500))
		}
	}
	return fmt.Errorf("store database: %w", err)
}

// tables are those that are read, as the daemon makes them.
var tables = map[string]string{
	"ValidPaths": `create table validpaths ( id integer primary key autoincrement not null, path text unique not null, hash text not null, registrationtime integer not null, deriver text, narsize integer )`,
	"Refs": `create table refs ( referrer integer not null, reference integer not null, primary key (referrer, reference), ` +
		`foreign key (referrer) references validpaths(id) on delete cascade, foreign key (reference) references validpaths(id) on delete restrict )`,
}

// others are tables that the daemon, or SQLite, has beside these.
var others = map[string]bool{"DerivationOutputs": true, "FailedPaths": true, "sqlite_sequence": true, "sqlite_stat1": true, "sqlite_stat4": true}

var (
	sqlComment = regexp.MustCompile(`--[^\n]*`)
	sqlSpace   = regexp.MustCompile(`\s+`)
)

func normal(text string) string {
	text = sqlSpace.ReplaceAllString(sqlComment.ReplaceAllString(text, " "), " ")
	return strings.ToLower(strings.TrimSpace(text))
}

// checkSchema demands that the tables are those of a Guix store: a view, or a column that is computed, could show anything. What is read is read from the
// tables themselves, by no index; so these may be as they like.
func checkSchema(ctx context.Context, c *sql.Conn) error {
	list, err := c.QueryContext(ctx, `SELECT type, name, sql FROM sqlite_schema`)
	if err != nil {
		return corrupt(err)
	}
	defer list.Close()
	var rs trust.Refusals
	seen := map[string]bool{}
	for n := 0; list.Next(); n++ {
		var kind, name, text any
		if err := list.Scan(&kind, &name, &text); err != nil {
			return corrupt(err)
		}
		k, ok1 := kind.(string)
		s, ok2 := name.(string)
		def, _ := text.(string)
		subject := databaseFile + ": " + trust.Printable(s, 100)
		want, ours := tables[s]
		switch {
		case !ok1 || !ok2 || n > 100:
			rs.Add(trust.Refuse("host-database-schema", databaseFile, "its schema is not one of a Guix store"))
			return rs
		case k == "index" || k == "trigger":
		case k == "table" && ours:
			seen[s] = true
			if normal(def) != want {
				rs.Add(trust.Refuse("host-database-schema", subject, "the table is not made as the daemon makes it: %s", trust.Printable(def, 300)))
			}
		case k == "table" && others[s] && strings.HasPrefix(normal(def), "create table "):
		default:
			rs.Add(trust.Refuse("host-database-schema", subject, "a store has no such %s", trust.Printable(k, 40)))
		}
	}
	if err := list.Err(); err != nil {
		return corrupt(err)
	}
	for name := range tables {
		if !seen[name] {
			rs.Add(trust.Refuse("host-database-schema", databaseFile+": "+name, "the table is missing"))
		}
	}
	if len(rs) > 0 {
		return rs
	}
	// Each page once: after this no chain of pages leads round in a circle.
	for _, name := range []string{"ValidPaths", "Refs"} {
		var says string
		if err := c.QueryRowContext(ctx, `PRAGMA quick_check('`+name+`')`).Scan(&says); err != nil {
			return corrupt(err)
		}
		if says != "ok" {
			rs.Add(trust.Refuse("host-database-corrupt", databaseFile+": "+name, "%s", trust.Printable(says, 500)))
		}
	}
	return rs.Err()
}

func (r *rows) readPaths(ctx context.Context, c *sql.Conn, limit int) (map[int64]int32, error) {
	list, err := c.QueryContext(ctx, `SELECT id, path, hash, deriver, narSize FROM ValidPaths NOT INDEXED`)
	if err != nil {
		return nil, corrupt(err)
	}
	defer list.Close()
	ids := map[int64]int32{}
	for list.Next() {
		var id int64
		var path, hash, deriver, size any
		if err := list.Scan(&id, &path, &hash, &deriver, &size); err != nil {
			return nil, corrupt(err)
		}
		if len(r.all) == limit {
			return nil, trust.Refuse("host-database-size", databaseFile, "more than %d valid paths", limit)
		}
		one := parseRow(path, hash, deriver, size)
		if _, twice := r.byName[one.name]; twice {
			r.fault("two rows are of %s", trust.Printable(one.name, 300))
			one.odd, one.path = "another row is of the same path", storepath.Path{}
			one.name = fmt.Sprintf("%s (row %d)", one.name, id)
		}
		ids[id] = int32(len(r.all))
		r.byName[one.name] = ids[id]
		r.all = append(r.all, one)
	}
	if err := list.Err(); err != nil {
		return nil, corrupt(err)
	}
	return ids, nil
}

func (r *rows) fault(format string, args ...any) {
	if !r.faults.Full() {
		r.faults.Add(trust.Refuse("host-database-row", databaseFile, format, args...))
	}
}

// parseRow takes a row for what it is worth. SQLite keeps values of any type in any column.
func parseRow(path, hash, deriver, size any) row {
	one := row{size: -1}
	odd := func(format string, args ...any) {
		if one.odd == "" {
			one.odd = fmt.Sprintf(format, args...)
		}
	}
	text, ok := path.(string)
	if !ok {
		odd("its path is %s", describe(path))
		text = describe(path)
	}
	one.name = strings.TrimPrefix(text, storepath.Dir+"/")
	if p, err := storepath.Parse(text); err != nil {
		odd("its path: %v", err)
		one.name = text
	} else {
		one.path = p
	}
	digits, ok := hash.(string)
	digits, prefix := strings.CutPrefix(digits, "sha256:")
	if d, err := trust.ParseDigest(digits); !ok || !prefix || err != nil {
		odd("its hash is %s", describe(hash))
	} else {
		one.hash = d
	}
	switch d := deriver.(type) {
	case nil:
	case string:
		if p, err := storepath.Parse(d); err == nil && p.IsDerivation() {
			one.deriver = p.Base()
		} else {
			odd("its deriver is %s", describe(deriver))
		}
	default:
		odd("its deriver is %s", describe(deriver))
	}
	switch n := size.(type) {
	case nil:
	case int64:
		if one.size = n; n < 0 {
			odd("its size is %d", n)
		}
	default:
		odd("its size is %s", describe(size))
	}
	return one
}

// describe prints a value of a database.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case string:
		return fmt.Sprintf("%.200q", v)
	case []byte:
		return fmt.Sprintf("a blob of %d bytes", len(v))
	}
	return trust.Printable(fmt.Sprintf("%T %v", v, v), 100)
}

func (r *rows) readRefs(ctx context.Context, c *sql.Conn, ids map[int64]int32, limit int) error {
	list, err := c.QueryContext(ctx, `SELECT referrer, reference FROM Refs NOT INDEXED`)
	if err != nil {
		return corrupt(err)
	}
	defer list.Close()
	for n := 0; list.Next(); n++ {
		if n == limit {
			return trust.Refuse("host-database-size", databaseFile, "more than %d references", limit)
		}
		var a, b any
		if err := list.Scan(&a, &b); err != nil {
			return corrupt(err)
		}
		from, ok1 := a.(int64)
		to, ok2 := b.(int64)
		i, known := ids[from]
		if !ok1 || !known {
			r.fault("a reference from row %s, which is not there", describe(a))
			continue
		}
		j, known := ids[to]
		if !ok2 || !known {
			r.all[i].odd = fmt.Sprintf("it refers to row %s, which is not there", describe(b))
			continue
		}
		if i != j {
			r.all[i].refs = append(r.all[i].refs, j)
		}
	}
	if err := list.Err(); err != nil {
		return corrupt(err)
	}
	return nil
}
