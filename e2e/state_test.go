package e2e_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the catalog is read, and forged, with the same tool

	"sallyport/internal/trust"
)

// goods are the one item of a crafted volume.
func goods(it trust.Item, content func() io.Reader) map[trust.Item]func() io.Reader {
	return map[trust.Item]func() io.Reader{it: content}
}

// itemFile is where an item lies on volume-N.
func (w *world) itemFile(n int, suffix string) string {
	w.t.Helper()
	it := w.named(n, suffix)
	return w.path(fmt.Sprintf("volume-%d", n), "items", it.SHA256[:2], it.SHA256)
}

// state is what a stage that fails must not change: blobs, what is published, ledger, shipments.
func (w *world) state() string {
	w.t.Helper()
	var b strings.Builder
	for _, d := range []string{"cas", "public", "tmp"} {
		for _, f := range files(w.t, w.path("inside", d)) {
			fmt.Fprintf(&b, "%s/%s\n", d, f)
		}
	}
	for _, s := range w.shipments() {
		fmt.Fprintf(&b, "%+v\n", s)
	}
	fmt.Fprintf(&b, "%v\n", w.kinds("inside"))
	return b.String()
}

// files lists the files below a directory; one that is not there has none.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		list = append(list, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// catalog opens a zone's catalog, as root on the machine can.
func catalog(t testing.TB, zone string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(zone, "catalog.sqlite")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// query runs a query of one column of text.
func query(t testing.TB, db *sql.DB, q string, args ...any) []string {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), q, args...)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return list
}

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// known are the digests that the inside has a reason to keep: those in any table, and what builders signed.
func (w *world) known() map[string]bool {
	w.t.Helper()
	db := catalog(w.t, w.path("inside"))
	known := map[string]bool{}
	for _, table := range query(w.t, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`) {
		for _, column := range query(w.t, db, `SELECT name FROM pragma_table_info(?)`, table) {
			for _, s := range query(w.t, db, fmt.Sprintf(`SELECT "%s" FROM "%s" WHERE typeof("%[1]s") = 'text' AND length("%[1]s") = 64`, column, table)) {
				known[s] = digest.MatchString(s)
			}
		}
	}
	for _, e := range w.entries("inside") {
		if e.Kind == "built" {
			for _, s := range e.Subjects {
				known[s.SHA256] = true
			}
		}
	}
	return known
}

// tidy demands that the inside holds no temporary file and no blob that nothing names, and that every blob is what its name says.
func (w *world) tidy() {
	w.t.Helper()
	known := w.known()
	for _, f := range files(w.t, w.path("inside", "cas")) {
		name := filepath.Base(f)
		switch {
		case strings.HasPrefix(f, "tmp/"):
			w.t.Errorf("the temporary file cas/%s stays", f)
		case !known[name]:
			w.t.Errorf("the blob %s stays, and nothing names it: %.200q", name, read(w.t, w.path("inside", "cas", f)))
		case trust.Sum(read(w.t, w.path("inside", "cas", f))).String() != name:
			w.t.Errorf("the blob %s has other content", name)
		}
	}
	for _, f := range files(w.t, w.path("inside", "tmp")) {
		w.t.Errorf("the temporary file tmp/%s stays", f)
	}
	// And nothing that is named has gone.
	db := catalog(w.t, w.path("inside"))
	for _, s := range query(w.t, db, `SELECT sha256 FROM item UNION SELECT manifest FROM shipment UNION SELECT note FROM allowlist UNION SELECT text FROM proposal`) {
		if _, err := os.Stat(w.path("inside", "cas", s[:2], s)); err != nil {
			w.t.Errorf("a blob that the catalog names is gone: %v", err)
		}
	}
}

// outcome is what two zones that did the same have in common, whenever they did it.
func (w *world) outcome() string {
	w.t.Helper()
	var b strings.Builder
	for _, s := range w.shipments() {
		fmt.Fprintf(&b, "%+v\n", s)
	}
	for _, f := range files(w.t, w.path("inside", "public", "allowlist", track)) {
		fmt.Fprintf(&b, "allowlist %s\n", f)
		var n int
		fmt.Sscan(f, &n)
		for _, it := range w.allowed(n) {
			fmt.Fprintln(&b, it)
		}
	}
	db := catalog(w.t, w.path("inside"))
	for _, q := range []string{
		`SELECT sha256 || ' ' || size || ' ' || kind || ' ' || name FROM item ORDER BY 1`,
		`SELECT number || ' ' || sha256 FROM shipment_item ORDER BY 1`,
		`SELECT number || ' ' || item || ' ' || severity || ' ' || rule || ' ' || place || ' ' || count FROM finding ORDER BY 1`,
		`SELECT track || ' ' || hash || ' ' || nar FROM narinfo ORDER BY 1`,
		`SELECT track || ' ' || version || ' ' || shipment FROM proposal ORDER BY 1`,
		`SELECT track || ' ' || person FROM proposal_signature ORDER BY 1`,
		`SELECT derivation || ' ' || keyid FROM built ORDER BY 1`,
	} {
		for _, l := range query(w.t, db, q) {
			fmt.Fprintln(&b, l)
		}
	}
	for _, e := range w.entries("inside") {
		if e.Kind == "refused" {
			continue
		}
		fmt.Fprintf(&b, "%s %v %v\n", e.Kind, e.Predicate["person"], e.Predicate["version"])
	}
	return b.String()
}

// orphans finds the running processes of a program, by its file, whose parent is neither this test nor one of the programs.
func orphans(t testing.TB, program string) []string {
	t.Helper()
	want, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, d := range dirs {
		st, err := os.Stat(d + "/exe")
		if err != nil || !os.SameFile(st, want) {
			continue
		}
		status, err := os.ReadFile(d + "/status")
		if err != nil || strings.Contains(string(status), "State:\tZ") {
			continue
		}
		_, parent, _ := strings.Cut(string(status), "PPid:\t")
		parent, _, _ = strings.Cut(parent, "\n")
		if exe, err := os.Readlink("/proc/" + parent + "/exe"); parent == fmt.Sprint(os.Getpid()) || err == nil && filepath.Dir(exe) == binDir {
			continue
		}
		cmdline, _ := os.ReadFile(d + "/cmdline")
		list = append(list, fmt.Sprintf("%s %q", filepath.Base(d), cmdline))
	}
	return list
}

// gone waits until no process of a program outlives the one who started it.
func gone(t testing.TB, program string) {
	t.Helper()
	var list []string
	for range 6000 { // what lives on does so for ever
		if list = orphans(t, program); len(list) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s outlives the one who started it: %q", filepath.Base(program), list)
}

// editPayloads replaces text in the base64 payloads of entries by text of the same length, so that every length still fits.
func editPayloads(data []byte, from, to string) (out []byte, n int) {
	out = []byte(regexp.MustCompile(`"payload":"([^"]*)"`).ReplaceAllStringFunc(string(data), func(m string) string {
		b64 := m[len(`"payload":"`) : len(m)-1]
		text, err := base64.StdEncoding.DecodeString(b64)
		if err != nil || !strings.Contains(string(text), from) {
			return m
		}
		n++
		return `"payload":"` + base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(string(text), from, to))) + `"`
	}))
	return out, n
}

// space is what is free on the file system of a directory.
func space(t testing.TB, dir string) int64 {
	t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// edit runs a statement in a catalog.
func edit(t testing.TB, db *sql.DB, q string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(context.Background(), q, args...); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}
