package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

// schema is the daemon's.
const schema = `
create table if not exists ValidPaths (
    id               integer primary key autoincrement not null,
    path             text unique not null,
    hash             text not null,
    registrationTime integer not null,
    deriver          text,
    narSize          integer
);
create table if not exists Refs (
    referrer  integer not null,
    reference integer not null,
    primary key (referrer, reference),
    foreign key (referrer) references ValidPaths(id) on delete cascade,
    foreign key (reference) references ValidPaths(id) on delete restrict
);
create index if not exists IndexReferrer on Refs(referrer);
create index if not exists IndexReference on Refs(reference);
create trigger if not exists DeleteSelfRefs before delete on ValidPaths
  begin
    delete from Refs where referrer = old.id and reference = old.id;
  end;
create table if not exists DerivationOutputs (
    drv  integer not null,
    id   text not null, -- symbolic output id, usually "out"
    path text not null,
    primary key (drv, id),
    foreign key (drv) references ValidPaths(id) on delete cascade
);
create index if not exists IndexDerivationOutputs on DerivationOutputs(path);
create table if not exists FailedPaths (
    path text primary key not null,
    time integer not null
);`

// A machine is a Guix host in a directory.
type machine struct {
	t   testing.TB
	dir string
	db  *sql.DB
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := newDisk(t)
	m.openDatabase()
	m.exec(schema)
	return m
}

// newDisk is a machine without a database.
func newDisk(t testing.TB) *machine {
	t.Helper()
	m := &machine{t: t, dir: t.TempDir()}
	for _, d := range []string{storepath.Dir, databaseDir, autoDir, profilesDir + "/per-user/root", "/run", "/home/u"} {
		if err := os.MkdirAll(m.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write(databaseDir+"/"+schemaFile, "7")
	return m
}

func (m *machine) path(p string) string { return filepath.Join(m.dir, p) }

func (m *machine) openDatabase() {
	m.t.Helper()
	db, err := sql.Open("sqlite", "file:"+m.path(databaseDir+"/"+databaseFile)+"?_pragma=journal_mode(WAL)&_pragma=foreign_keys(OFF)&_pragma=busy_timeout(10000)&_pragma=synchronous(OFF)")
	if err != nil {
		m.t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	m.db = db
	m.t.Cleanup(func() { db.Close() })
}

func (m *machine) exec(query string, args ...any) {
	m.t.Helper()
	if _, err := m.db.Exec(query, args...); err != nil {
		m.t.Fatalf("%s: %v", query, err)
	}
}

func (m *machine) write(p, content string) {
	m.t.Helper()
	if err := os.WriteFile(m.path(p), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) link(p, target string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(p)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Symlink(target, m.path(p)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) root() *os.Root {
	m.t.Helper()
	r, err := os.OpenRoot(m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { r.Close() })
	return r
}

// put unpacks an archive into the store.
func (m *machine) put(base string, archive []byte) {
	m.t.Helper()
	r, err := os.OpenRoot(m.path(storepath.Dir))
	if err != nil {
		m.t.Fatal(err)
	}
	defer r.Close()
	if err := nar.Restore(r, base, bytes.NewReader(archive)); err != nil {
		m.t.Fatal(err)
	}
}

// row enters an item that has this archive.
func (m *machine) row(base string, archive []byte, deriver string, refs ...string) {
	m.t.Helper()
	var d any
	if deriver != "" {
		d = storepath.Dir + "/" + deriver
	}
	m.exec(`INSERT INTO ValidPaths (path, hash, registrationTime, deriver, narSize) VALUES (?, ?, 1, ?, ?)`, storepath.Dir+"/"+base, fmt.Sprintf("sha256:%x", sha256.Sum256(archive)), d, len(archive))
	for _, ref := range refs {
		m.exec(`INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, storepath.Dir+"/"+base, storepath.Dir+"/"+strings.TrimPrefix(ref, storepath.Dir+"/"))
	}
}

// add puts an item there as the daemon does.
func (m *machine) add(base string, archive []byte, deriver string, refs ...string) {
	m.t.Helper()
	m.put(base, archive)
	m.row(base, archive, deriver, refs...)
}

// content adds an item of the enclave's: a source, or a derivation with its references.
func (m *machine) content(c enclavetest.Content) {
	m.t.Helper()
	if c.Kind == trust.KindSource {
		m.add(c.Name, c.Data, "")
		return
	}
	refs, err := c.Drv.References()
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, r := range refs {
		names = append(names, r.Base())
	}
	m.add(c.Name, enclavetest.Nar(string(c.Data)), "", names...)
}

// base is the base name of a store path.
func base(p string) string { return strings.TrimPrefix(p, storepath.Dir+"/") }

// An estate is an enclave with a few things in it.
type estate struct {
	e           *enclavetest.Enclave
	source, lib enclavetest.Content // lib is a derivation; app stands on it
	app         enclavetest.Content
	libOut      string // base names
	appOut      string
	libNar      []byte
	appNar      []byte
	public      string
}

// A world is an estate, and a host that has its things.
type world struct {
	*estate
	*machine
	profile      string // made here, of the app
	profileDrv   enclavetest.Content
	track        []string
	graveyard    graves
	withContents bool
	rules        Rules
}

// graves are tombstones for tests.
type graves map[string]string

func (g graves) Recalled(sha256 trust.Digest, name string) (string, bool) {
	if why, ok := g[name]; ok {
		return why, true
	}
	why, ok := g[sha256.String()]
	return why, ok
}

func (g graves) any() bool { return true }

func newEstate(t testing.TB) *estate {
	t.Helper()
	w := &estate{e: enclavetest.New(t)}
	e := w.e
	w.source = e.Source("lib-1.tar", "the source")
	w.lib = e.Derivation("lib-1", w.source)
	w.app = e.Derivation("app-2", w.lib)
	w.libOut, w.appOut = base(w.lib.Output("out")), base(w.app.Output("out"))
	w.libNar = enclavetest.Nar("a library")
	w.appNar = enclavetest.Nar("links " + storepath.Dir + "/" + w.libOut)
	e.Allow("dev", w.source, w.lib, w.app)
	for _, b := range []string{"erin", "frank"} {
		e.Vote(b, w.lib, enclavetest.Out{Path: w.lib.Output("out"), Nar: w.libNar})
		e.Vote(b, w.app, enclavetest.Out{Path: w.app.Output("out"), Nar: w.appNar, References: []string{w.lib.Output("out")}})
	}
	w.public = filepath.Join(e.Zone.Dir, "public")
	return w
}

// world makes a host that has everything.
func (s *estate) world(t testing.TB) *world {
	t.Helper()
	w := &world{estate: s, machine: newMachine(t), track: []string{"dev"}}
	for _, c := range []enclavetest.Content{w.source, w.lib, w.app} {
		w.content(c)
	}
	w.add(w.libOut, w.libNar, w.lib.Name)
	w.add(w.appOut, w.appNar, w.app.Name, w.libOut)
	w.profileDrv, w.profile, _ = w.local("profile", w.appOut, w.app)
	w.generation(profilesDir+"/per-user/root/guix-profile", 1, w.profile, true)
	return w
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newEstate(t).world(t)
}

// local makes something here: a derivation that is not allowed and its output, which refers to ref.
func (w *world) local(name, ref string, inputs ...enclavetest.Content) (drv enclavetest.Content, out string, archive []byte) {
	w.t.Helper()
	drv = w.e.Derivation(name, inputs...)
	w.content(drv)
	out, archive = base(drv.Output("out")), enclavetest.Nar("a profile of "+storepath.Dir+"/"+ref)
	w.add(out, archive, drv.Name, ref)
	return drv, out, archive
}

// generation makes a profile's generation.
func (m *machine) generation(profile string, n int, item string, current bool) {
	m.t.Helper()
	link := fmt.Sprintf("%s-%d-link", profile, n)
	m.link(link, storepath.Dir+"/"+item)
	if current {
		os.Remove(m.path(profile))
		m.link(profile, filepath.Base(link))
	}
}

// check runs a check against the zone's public directory.
func (w *world) check() (*Result, error) {
	w.t.Helper()
	p, err := OpenPublic(w.public)
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Close()
	return w.checkWith(p)
}

func (w *world) checkWith(sources ...Source) (*Result, error) {
	w.t.Helper()
	now := enclavetest.Epoch.Add(time.Hour)
	dir := filepath.Join(w.dir, "state")
	state, err := OpenState(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() {
		if err := state.Close(); err != nil {
			w.t.Error(err)
		}
	}()
	e, err := Open(context.Background(), state, w.e.Pin(), now, w.track, sources...)
	if err != nil {
		return nil, err
	}
	if w.graveyard != nil {
		e.tombstones = w.graveyard
	}
	c := &Check{Host: "h1", Root: w.root(), Enclave: e, Contents: w.withContents, Rules: w.rules, Clock: func() time.Time { return now }}
	return c.Run(context.Background())
}

// mustCheck fails the test where there is no result.
func (w *world) mustCheck() *Result {
	w.t.Helper()
	res, err := w.check()
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

// status is what a result says of an item: of the good ones only that they are.
func (r *Result) status(name string) string {
	for _, f := range r.Findings {
		if f.Name == name {
			return f.Status
		}
	}
	for _, f := range r.Inventory {
		if f.Name == name {
			return f.Status
		}
	}
	return ""
}

func (r *Result) finding(t testing.TB, name string) Finding {
	t.Helper()
	i := slices.IndexFunc(r.Findings, func(f Finding) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no finding of %s: %+v", name, r.Findings)
	}
	return r.Findings[i]
}

func want(t testing.TB, r *Result, statuses map[string]string) {
	t.Helper()
	for name, s := range statuses {
		if have := r.status(name); have != s {
			t.Errorf("%s is %q, want %q", name, have, s)
		}
	}
}

// drvOf gives a derivation more than enclavetest does.
func fixedDrv(name, algo, hash string) *derivation.Derivation {
	return &derivation.Derivation{System: "x86_64-linux", Builder: "builtin:download", Outputs: []derivation.Output{{ID: "out", HashAlgo: algo, Hash: hash}},
		Env: []derivation.Variable{{Name: "name", Value: name}, {Name: "out"}}}
}
