package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
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

// collected appends a statement that any zone may make, and a row that goes with it.
func collected(tx *Tx, n int64) error {
	d := trust.Sum(fmt.Append(nil, n))
	if err := tx.Exec(context.Background(), "INSERT INTO agreed (derivation, leaf) VALUES (?, ?)", n, tx.Size()); err != nil {
		return err
	}
	return tx.Statement(statement.KindCollected, []statement.Subject{{Name: "items", SHA256: d}},
		map[string]any{"items": n, "bytes": n, "request": d.String()})
}

func commit(t testing.TB, z *Zone, n int64) {
	t.Helper()
	if err := z.Commit(context.Background(), func(tx *Tx) error { return collected(tx, n) }); err != nil {
		t.Fatal(err)
	}
}

// sound checks everything: the ledger, and that rows and entries belong together.
func sound(t testing.TB, z *Zone, size int64) {
	t.Helper()
	ctx := context.Background()
	station := z.StationVKey()
	seen := int64(0)
	err := z.Verify(ctx, func(i int64, leaf []byte) error {
		e, err := statement.ParseEnvelope(leaf)
		if err != nil {
			return err
		}
		if _, _, err := e.VerifyKeys(station); err != nil {
			return err
		}
		if i != seen {
			return fmt.Errorf("entry %d, want %d", i, seen)
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	_, c, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if c.Size != seen || size >= 0 && c.Size != size {
		t.Fatalf("published size %d with %d entries, want %d", c.Size, seen, size)
	}
	var rows, distinct, high int64
	if err := z.Read(ctx).QueryRowContext(ctx, "SELECT count(*), count(DISTINCT leaf), coalesce(max(leaf), 0) FROM agreed").Scan(&rows, &distinct, &high); err != nil {
		t.Fatal(err)
	}
	if rows != distinct || rows > c.Size-1 || high >= c.Size {
		t.Fatalf("%d rows at %d entries, the last %d, in a ledger of %d", rows, distinct, high, c.Size)
	}
}

func TestInit(t *testing.T) {
	dir := testInit(t, Staging)
	for _, name := range []string{"zone.toml", "catalog.sqlite", "cas/tmp", "keys/ledger.key", "keys/station.key", "keys/ledger.vkey", "keys/station.vkey",
		"lock", "tmp", "public/ledger/checkpoint", "public/ledger/tile/0/000.p/1", "public/ledger/tile/entries/000.p/1"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"keys", "keys/ledger.key", "keys/station.key"} {
		if fi, err := os.Stat(filepath.Join(dir, name)); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, others must not read it", name, fi.Mode())
		}
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".*")); len(names) > 0 {
		t.Errorf("%v left", names)
	}
	z := testOpen(t, dir, Options{})
	sound(t, z, 1)
	leaf, err := z.Entry(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	e, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	s := e.Unverified()
	toml, _ := os.ReadFile(filepath.Join(dir, "zone.toml"))
	if s.Kind != statement.KindCreated || s.Subjects[0].Name != "sallyport/citadel/staging" || s.Subjects[0].SHA256 != trust.Sum(toml) ||
		s.Predicate["kind"] != "staging" || s.Predicate["enclave"] != "citadel" || s.Predicate["zone"] != z.Origin() || s.Predicate["time"] != "2026-03-01T09:00:00Z" {
		t.Errorf("%+v", s)
	}

	cfg := z.Config
	if err := Init(dir, cfg, testClock, rand.Reader); !errors.Is(err, fs.ErrExist) {
		t.Error("over another zone:", err)
	}
	if err := Init(filepath.Join(t.TempDir(), "zone"), cfg, testClock, bytes.NewReader(nil)); err == nil {
		t.Error("made without randomness")
	}
	parent := t.TempDir()
	cfg.Kind = "elsewhere"
	if err := Init(filepath.Join(parent, "zone"), cfg, testClock, rand.Reader); err == nil {
		t.Error("made with a kind that there is not")
	}
	if names, _ := os.ReadDir(parent); len(names) > 0 {
		t.Error("something is left of a zone that was not made")
	}
	if _, err := Open(context.Background(), t.TempDir(), Options{}); !errors.Is(err, ErrNoZone) || !strings.Contains(err.Error(), "sallyport init") {
		t.Error(err)
	}
	text := bytes.Replace(toml, []byte("staging"), []byte("inside"), 1)
	os.WriteFile(filepath.Join(dir, "zone.toml"), text, 0o644)
	if _, err := Open(context.Background(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "fixed") {
		t.Error("opened with another kind:", err)
	}
}

func TestCommit(t *testing.T) {
	ctx := context.Background()
	z := testOpen(t, testInit(t, Inside), Options{})
	commit(t, z, 1)
	sound(t, z, 2)

	// An error takes rows and entries back, those of this caller only.
	wrong := errors.New("wrong")
	if err := z.Commit(ctx, func(tx *Tx) error {
		if err := collected(tx, 2); err != nil {
			return err
		}
		return wrong
	}); err != wrong {
		t.Error(err)
	}
	sound(t, z, 2)

	// A statement that fails spoils the transaction although the function says nothing of it.
	if err := z.Commit(ctx, func(tx *Tx) error {
		collected(tx, 3)
		tx.Exec(ctx, "INSERT INTO agreed (derivation, leaf) VALUES (1, 1)")
		if err := tx.Exec(ctx, "DELETE FROM agreed"); err == nil {
			t.Error("went on after a failed statement")
		}
		return nil
	}); err == nil || !strings.Contains(err.Error(), "UNIQUE") {
		t.Error(err)
	}
	sound(t, z, 2)

	// No row is not a failure.
	if err := z.Commit(ctx, func(tx *Tx) error {
		var x int
		if err := tx.QueryRow(ctx, "SELECT leaf FROM agreed WHERE derivation = 99").Scan(&x); !errors.Is(err, sql.ErrNoRows) {
			t.Error(err)
		}
		rows, err := tx.Query(ctx, "SELECT leaf FROM agreed")
		if err != nil {
			return err
		}
		rows.Close()
		return collected(tx, 4)
	}); err != nil {
		t.Error(err)
	}
	sound(t, z, 3)

	// A panic and Goexit reach the caller's goroutine and leave the zone working.
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic was lost")
			}
		}()
		z.Commit(ctx, func(tx *Tx) error { collected(tx, 5); panic("boom") })
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		z.Commit(ctx, func(tx *Tx) error { collected(tx, 6); runtime.Goexit(); return nil })
	}()
	<-done
	var stale *Tx
	if err := z.Commit(ctx, func(tx *Tx) error { stale = tx; return collected(tx, 7) }); err != nil {
		t.Error(err)
	}
	if err := stale.Exec(ctx, "DELETE FROM agreed"); err == nil {
		t.Error("a transaction was used after its end")
	}
	sound(t, z, 4)

	// Rows without entries need no new checkpoint.
	if err := z.Commit(ctx, func(tx *Tx) error {
		return tx.Exec(ctx, "INSERT INTO setting (name, value) VALUES ('a', 'b')")
	}); err != nil {
		t.Error(err)
	}
	if v, err := Setting(ctx, z.Read(ctx), "a"); err != nil || v != "b" {
		t.Error(v, err)
	}
	sound(t, z, 4)

	// A context that has ended.
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := z.Commit(over, func(tx *Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := z.Commit(ctx, func(tx *Tx) error { return tx.Exec(over, "DELETE FROM agreed") }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	// Envelopes from elsewhere.
	e := testEnvelope(t, z, 8)
	if err := z.Commit(ctx, func(tx *Tx) error {
		i, err := tx.Append(e)
		if err == nil && i != 4 {
			t.Errorf("index %d", i)
		}
		if _, err := tx.Append(append([]byte(" "), e...)); err == nil {
			t.Error("an envelope that is not canonical was taken")
		}
		p, err2 := statement.ParseEnvelope(e)
		if err2 != nil {
			return err2
		}
		if i, err := tx.AppendEnvelope(p); err != nil || i != 5 {
			t.Error(i, err)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	sound(t, z, 6)

	// The readers cannot write.
	if _, err := z.catalog.readers.ExecContext(ctx, "DELETE FROM entry"); err == nil {
		t.Error("a reader wrote")
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	if err := z.Commit(ctx, func(tx *Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Many callers, some of whom fail: each gets his own answer.
func TestGroup(t *testing.T) {
	ctx := context.Background()
	z := testOpen(t, testInit(t, Inside), Options{})
	const callers, each = 64, 12
	wrong := errors.New("wrong")
	var wg sync.WaitGroup
	for k := range int64(callers) {
		wg.Go(func() {
			for i := range int64(each) {
				n := k*each + i
				err := z.Commit(ctx, func(tx *Tx) error {
					if err := collected(tx, n); err != nil {
						return err
					}
					if n%3 == 0 {
						return wrong
					}
					return nil
				})
				if n%3 == 0 && err != wrong || n%3 != 0 && err != nil {
					t.Errorf("%d: %v", n, err)
				}
				if n%3 != 0 { // what Commit has answered for is published
					if _, c, err := z.Checkpoint(); err != nil || c.Size < 2 {
						t.Error(c, err)
					}
				}
			}
		})
	}
	wg.Wait()
	sound(t, z, 1+callers*each*2/3)
	var bad int
	if err := z.Read(ctx).QueryRowContext(ctx, "SELECT count(*) FROM agreed WHERE CAST(derivation AS INTEGER) % 3 = 0").Scan(&bad); err != nil || bad != 0 {
		t.Errorf("%d rows of callers that failed, %v", bad, err)
	}
	var checkpoints int64
	z.Read(ctx).QueryRowContext(ctx, "SELECT count(*) FROM checkpoint").Scan(&checkpoints)
	if checkpoints > callers*each/2 {
		t.Errorf("%d checkpoints for %d commits: they were not grouped", checkpoints, callers*each)
	}
}

func TestPublish(t *testing.T) {
	ctx := context.Background()
	z := testOpen(t, testInit(t, Inside), Options{})
	blob := bytes.Repeat([]byte("list\n"), 1000)
	d, err := z.CAS.PutBytes(blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Commit(ctx, func(tx *Tx) error {
		if err := tx.Publish("allowlist/dev/1", []byte("small\n")); err != nil {
			return err
		}
		if err := tx.PublishBlob("allowlist/dev/2", d); err != nil {
			return err
		}
		if err := tx.PublishBlob("allowlist/dev/3", trust.Sum(nil)); err == nil {
			t.Error("a blob that is not there was taken")
		}
		for _, bad := range []string{"", ".", "/etc/x", "../x", "a/../b", "ledger/checkpoint", "ledger", "a//b", "a\x00"} {
			if err := tx.Publish(bad, nil); err == nil {
				t.Errorf("%q was taken", bad)
			}
		}
		return collected(tx, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if b, err := z.ReadPublic("allowlist/dev/1"); err != nil || string(b) != "small\n" {
		t.Error(b, err)
	}
	if b, err := z.ReadPublic("allowlist/dev/2"); err != nil || !bytes.Equal(b, blob) {
		t.Error(len(b), err)
	}
	if err := z.Commit(ctx, func(tx *Tx) error { return tx.Publish("x", nil) }); err == nil {
		t.Error("a file was published without an entry")
	}
	if err := z.WritePublic("note/1", []byte("n")); err != nil {
		t.Error(err)
	}
	if b, err := fs.ReadFile(z.PublicFS(), "note/1"); err != nil || string(b) != "n" {
		t.Error(b, err)
	}
	if _, err := z.ReadPublic("note/2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if err := z.WritePublic("ledger/checkpoint", nil); err == nil {
		t.Error("the checkpoint was written over")
	}
}

// TestStamp: another one with each publication, the same while nothing is published, and none without a checkpoint.
func TestStamp(t *testing.T) {
	z := testOpen(t, testInit(t, Inside), Options{})
	var before Stamp
	for n := range int64(5) {
		s, err := z.Stamp()
		again, err2 := z.Stamp()
		if err != nil || err2 != nil || s != again || s == before {
			t.Fatalf("%d: %v and %v, %v, %v; before: %v", n, s, again, err, err2, before)
		}
		before = s
		commit(t, z, n)
		if err := z.Published(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(z.Dir, "public/ledger/checkpoint")
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	if s, err := z.Stamp(); !errors.Is(err, fs.ErrNotExist) {
		t.Error(s, err)
	}
	if err := os.Rename(name+".away", name); err != nil {
		t.Fatal(err)
	}
}

// Whoever waits for a lock stops when told to.
func TestLockContext(t *testing.T) {
	dir := testInit(t, Inside)
	a, b := testOpen(t, dir, Options{}), testOpen(t, dir, Options{})
	unlock, err := a.Lock("import")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	got := make(chan error)
	go func() {
		_, err := b.LockContext(ctx, "import")
		got <- err
	}()
	cancel()
	var locked *LockedError
	if err := <-got; !errors.Is(err, context.Canceled) || !errors.As(err, &locked) {
		t.Error(err)
	}
	go func() {
		unlock, err := b.LockContext(context.Background(), "import")
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Error(err)
	}
	for _, name := range []string{publishLock, catalogLock} {
		if _, err := a.Lock(name); err == nil {
			t.Errorf("the zone's own lock %s was given", name)
		}
	}
}

// The catalog is exchanged only when nobody has the zone open, and meanwhile nobody opens it.
func TestUseCatalog(t *testing.T) {
	dir := testInit(t, Inside)
	a, b := testOpen(t, dir, Options{}), testOpen(t, dir, Options{})
	var locked *LockedError
	if _, err := useCatalog(dir, syscall.LOCK_EX); !errors.As(err, &locked) || !strings.Contains(locked.Holder, fmt.Sprintf("pid %d", os.Getpid())) {
		t.Error(err)
	}
	a.Close()
	if _, err := useCatalog(dir, syscall.LOCK_EX); !errors.As(err, &locked) {
		t.Error(err)
	}
	b.Close()
	f, err := useCatalog(dir, syscall.LOCK_EX)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), dir, Options{}); !errors.As(err, &locked) {
		t.Error(err)
	}
	f.Close()
	testOpen(t, dir, Options{})
}

// What an Init that was killed has left beside goes with the next one; what a living one makes stays.
func TestInitLeftovers(t *testing.T) {
	dir := testInit(t, Inside)
	parent := filepath.Dir(dir)
	dead := filepath.Join(parent, ".other.init-dead")
	if err := os.CopyFS(dead, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(parent, ".third.init-dead")
	if err := os.Mkdir(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	alive, done, err := durable.TempBeside(filepath.Join(parent, "other"), "init")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	cfg, err := NewConfig(Inside, "citadel")
	if err != nil {
		t.Fatal(err)
	}
	if err := Init(filepath.Join(parent, "other"), cfg, testClock, rand.Reader); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dead: false, foreign: true, alive: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestLock(t *testing.T) {
	dir := testInit(t, Inside)
	a, b := testOpen(t, dir, Options{}), testOpen(t, dir, Options{})
	unlock, err := a.Lock("import")
	if err != nil {
		t.Fatal(err)
	}
	for _, z := range []*Zone{a, b} {
		var locked *LockedError
		if _, err := z.TryLock("import"); !errors.As(err, &locked) || !strings.Contains(locked.Holder, fmt.Sprintf("pid %d since 2026-03-01T09:00:00Z", os.Getpid())) {
			t.Error(err)
		}
	}
	if other, err := b.TryLock("build"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	got := make(chan struct{})
	go func() {
		defer close(got)
		unlock, err := b.Lock("import")
		if err != nil {
			t.Error(err)
			return
		}
		unlock()
	}()
	select {
	case <-got:
		t.Error("a lock was taken twice")
	case <-time.After(20 * time.Millisecond):
	}
	unlock()
	unlock()
	<-got
	for _, bad := range []string{"", "../x", "a/b", "publish"} {
		if _, err := a.Lock(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSpace(t *testing.T) {
	z := testOpen(t, testInit(t, Inside), Options{})
	z.Config.Space.Reserve = 0
	if err := z.Space(1); err != nil {
		t.Error(err)
	}
	var space *SpaceError
	err := z.Space(1 << 60)
	if !errors.As(err, &space) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "missing") {
		t.Error(err)
	}
	z.Config.Space.Reserve = 1 << 60
	if err := z.Space(1); err == nil {
		t.Error("the reserve was not kept")
	}
}

func TestScratch(t *testing.T) {
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	mine, remove, err := z.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, "tmp", "scratch-dead")
	os.MkdirAll(filepath.Join(dead, "output"), 0o755)
	os.WriteFile(filepath.Join(dead, "output", "file"), nil, 0o444)
	os.Chmod(filepath.Join(dead, "output"), 0o555)
	testOpen(t, dir, Options{})
	if _, err := os.Stat(mine); err != nil {
		t.Error("the scratch directory of a living process was swept")
	}
	if _, err := os.Stat(dead); err == nil {
		t.Error("the scratch directory of a dead process was not swept")
	}
	remove()
	remove()
	if _, err := os.Stat(mine); err == nil {
		t.Error("the scratch directory was not removed")
	}
}

// --- the root and witnesses

type enclave struct {
	keys map[string]*trust.Key
}

func newEnclave(t *testing.T) *enclave {
	e := &enclave{map[string]*trust.Key{}}
	for _, name := range []string{"olga/root", "olga/order", "otto/root", "otto/order", "wanda/witness", "walt/witness"} {
		k, err := trust.GenerateKey(rand.Reader, name)
		if err != nil {
			t.Fatal(err)
		}
		e.keys[name] = k
	}
	return e
}

func (e *enclave) root(t *testing.T, enclave string, version int64, previous trust.Digest, signers ...string) ([]byte, trust.Digest) {
	t.Helper()
	r := &trust.Root{Enclave: enclave, Version: version, Date: testClock(), Previous: previous,
		Thresholds: map[string]int{"root": 2, "order": 2}, Policies: map[string]string{"quorum": "1"}}
	for name, k := range e.keys {
		r.Keys = append(r.Keys, k.RootKey())
		role := trust.RoleOfficer
		if strings.HasSuffix(name, "/witness") {
			role = trust.RoleWitness
		}
		if line := (trust.RoleLine{Role: role, Person: k.Person()}); !slices.Contains(r.Roles, line) {
			r.Roles = append(r.Roles, line)
		}
	}
	text := r.Text()
	if _, err := trust.ParseRoot(text); err != nil {
		t.Fatal(err)
	}
	var keys []trust.Signer
	for _, s := range signers {
		keys = append(keys, e.keys[s])
	}
	msg, err := trust.SignNote(text, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return msg, trust.Sum(text)
}

func TestRootAndWitness(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	e := newEnclave(t)
	if _, err := z.Root(); !errors.Is(err, ErrNoRoot) {
		t.Error(err)
	}
	msg1, pin := e.root(t, "citadel", 1, trust.Digest{}, "olga/root", "otto/root")
	stranger, strangerPin := e.root(t, "bastion", 1, trust.Digest{}, "olga/root", "otto/root")
	half, _ := e.root(t, "citadel", 1, trust.Digest{}, "olga/root")
	for what, err := range map[string]error{
		"without a digest": func() error { _, err := z.SetRoot(ctx, msg1, nil); return err }(),
		"another digest":   func() error { _, err := z.SetRoot(ctx, msg1, trust.Sum(nil)); return err }(),
		"another enclave":  func() error { _, err := z.SetRoot(ctx, stranger, strangerPin); return err }(),
		"below threshold":  func() error { _, err := z.SetRoot(ctx, half, pin); return err }(),
	} {
		if _, ok := trust.AsRefusals(err); !ok {
			t.Errorf("%s: %v", what, err)
		}
	}
	sound(t, z, 1)
	root, err := z.SetRoot(ctx, msg1, pin)
	if err != nil || root.Version != 1 {
		t.Fatal(err)
	}
	if _, err := z.SetRoot(ctx, msg1, pin); err != nil { // again: nothing happens
		t.Error(err)
	}
	sound(t, z, 4) // two signatures and the root
	if b, err := z.ReadPublic("root/1"); err != nil || !bytes.Equal(b, msg1) {
		t.Error(err)
	}
	msg2, _ := e.root(t, "citadel", 2, pin, "olga/root", "otto/root")
	msg3, _ := e.root(t, "citadel", 3, pin, "olga/root", "otto/root")
	if _, err := z.SetRoot(ctx, msg3, nil); err == nil {
		t.Error("a version was skipped")
	}
	if root, err = z.SetRoot(ctx, msg2, nil); err != nil || root.Version != 2 {
		t.Fatal(err)
	}
	other := testOpen(t, dir, Options{})
	for _, z := range []*Zone{z, other, z} {
		if r, err := z.Root(); err != nil || r.Version != 2 {
			t.Error(r, err)
		}
	}
	sound(t, z, 7)

	// A witness on another machine: its state, the published directory, its key.
	wanda := e.keys["wanda/witness"]
	state := filepath.Join(t.TempDir(), "state")
	note, err := Witness(state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock())
	if err != nil {
		t.Fatal(err)
	}
	commit(t, z, 1)
	person, c, err := z.AddCosigned(ctx, note)
	if err != nil || person != "wanda" || c.Size != 7 {
		t.Fatal(person, c, err)
	}
	s := entryStatement(t, z, 8)
	if s.Kind != statement.KindWitnessed || s.Predicate["person"] != "wanda" || s.Predicate["size"] != int64(7) || s.Subjects[0] != (statement.Subject{Name: z.Origin(), SHA256: trust.Digest(c.Root)}) ||
		!strings.Contains(string(note), s.Predicate["signature"].(string)+"\n") {
		t.Errorf("%+v", s)
	}
	if c, at, err := z.Cosigned(wanda.VKey()); err != nil || c.Size != 7 || !at.Equal(testClock()) {
		t.Error(c, at, err)
	}
	newer, err := Witness(state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock())
	if err != nil {
		t.Fatal(err)
	}
	if _, c, err := z.AddCosigned(ctx, newer); err != nil || c.Size != 9 {
		t.Error(c, err)
	}
	sound(t, z, 10) // the deed between the cosignatures was worth an entry
	for range 3 {
		if newer, err = Witness(state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock()); err != nil {
			t.Fatal(err)
		}
		if _, c, err := z.AddCosigned(ctx, newer); err != nil || c.Size != 10 {
			t.Error(c, err)
		}
		sound(t, z, 10) // a cosignature of cosignatures alone is not
	}
	// Two witnesses do not keep each other going either.
	states := map[string]string{"wanda/witness": state, "walt/witness": filepath.Join(t.TempDir(), "state")}
	for range 3 {
		for _, name := range []string{"walt/witness", "wanda/witness"} {
			if newer, err = Witness(states[name], z.LedgerFS(), z.LedgerVKey(), e.keys[name], testClock()); err != nil {
				t.Fatal(err)
			}
			if _, _, err := z.AddCosigned(ctx, newer); err != nil {
				t.Error(err)
			}
		}
	}
	sound(t, z, 11)
	if _, _, err := z.AddCosigned(ctx, note); !hasCode(err, "witness-old") {
		t.Error(err)
	}
	nobody, _ := trust.GenerateKey(rand.Reader, "nobody/witness")
	alien, err := Witness(filepath.Join(t.TempDir(), "state"), z.LedgerFS(), z.LedgerVKey(), nobody, testClock())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := z.AddCosigned(ctx, alien); err == nil {
		t.Error("a witness that the root does not name was believed")
	}
	if b, err := z.ReadPublic("witness/wanda"); err != nil || !bytes.Equal(b, newer) {
		t.Error(err)
	}
	// Lost between the catalog and the file: the next opening writes it.
	os.Remove(filepath.Join(dir, "public/witness/wanda"))
	z = testOpen(t, dir, Options{})
	if b, err := z.ReadPublic("witness/wanda"); err != nil || !bytes.Equal(b, newer) {
		t.Error("not written again:", err)
	}
	// A witness that lost its state file's last lines does not begin anew in silence.
	os.WriteFile(state, newer[:len(newer)/2], 0o600)
	if _, err := Witness(state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock()); err == nil {
		t.Error("a damaged state was taken for none")
	}
}

func hasCode(err error, code string) bool {
	rs, ok := trust.AsRefusals(err)
	return ok && rs.Has(code)
}
