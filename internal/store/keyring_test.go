package store

import (
	"context"
	"crypto/rand"
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

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// next signs the version that follows a root, changed.
func (e *enclave) next(t *testing.T, r *trust.Root, change func(r *trust.Root)) []byte {
	t.Helper()
	n, err := trust.ParseRoot(r.Text())
	if err != nil {
		t.Fatal(err)
	}
	n.Version, n.Previous = r.Version+1, r.Digest()
	change(n)
	if _, err := trust.ParseRoot(n.Text()); err != nil {
		t.Fatal(err)
	}
	msg, err := trust.SignNote(n.Text(), e.keys["olga/root"], e.keys["otto/root"])
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// rooted is a zone whose root names its two keys.
func rooted(t *testing.T) (dir string, e *enclave) {
	t.Helper()
	dir, e = testInit(t, Inside), newEnclave(t)
	z := testOpen(t, dir, Options{})
	msg, pin := e.root(t, "citadel", 1, trust.Digest{}, "olga/root", "otto/root")
	root, err := z.SetRoot(context.Background(), msg, pin)
	if err != nil {
		t.Fatal(err)
	}
	msg = e.next(t, root, func(r *trust.Root) {
		r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleStation, Person: trust.Station})
		for _, v := range []trust.VKey{z.LedgerVKey(), z.StationVKey()} {
			r.Keys = append(r.Keys, trust.RootKey{Context: v.Context, Owner: trust.Station, Key: v.String()})
		}
	})
	if _, err := z.SetRoot(context.Background(), msg, nil); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, e
}

func renew(t *testing.T, z *Zone, of trust.Context) (now, next trust.RootKey) {
	t.Helper()
	now, next, _, err := z.RenewKey(context.Background(), of, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return now, next
}

// replaced is an edit that puts one key in another's place.
func replacing(now, next trust.RootKey) func(r *trust.Root) {
	return func(r *trust.Root) {
		r.Keys = append(slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Line() == now.Line() }), next)
	}
}

func readFile(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// TestKeysChange: both keys of a zone are replaced by a root that names what was made to follow them; another process that has the zone open goes on with them.
func TestKeysChange(t *testing.T) {
	ctx := t.Context()
	dir, e := rooted(t)
	z, other := testOpen(t, dir, Options{}), testOpen(t, dir, Options{})
	wanda := e.keys["wanda/witness"]
	state := filepath.Join(t.TempDir(), "state")
	oldLog, oldStation := z.LedgerVKey(), z.StationVKey()
	before, err := Witness(state, z.LedgerFS(), oldLog, wanda, testClock())
	if err != nil {
		t.Fatal(err)
	}
	stolen := map[string]*trust.Key{}
	for _, name := range []string{"ledger", "station"} {
		if stolen[name], err = readKey(filepath.Join(dir, "keys", name+".key")); err != nil {
			t.Fatal(err)
		}
	}
	nowLog, nextLog := renew(t, z, trust.ContextCheckpoint)
	nowStation, nextStation := renew(t, z, trust.ContextStatement)
	if _, again := renew(t, other, trust.ContextCheckpoint); again != nextLog {
		t.Errorf("asked again it made %s, before that %s", again.Key, nextLog.Key)
	}
	if nowLog.Key != oldLog.String() || nowStation.Key != oldStation.String() || nextLog.Key == nowLog.Key {
		t.Error(nowLog, nowStation, nextLog)
	}
	commit(t, z, 1) // nothing changes by that
	if z.LedgerVKey().String() != oldLog.String() {
		t.Error("the key changed without a root")
	}
	root, err := z.Root()
	if err != nil {
		t.Fatal(err)
	}
	// A root that takes the key away and names none that the zone has.
	stranger, err := trust.GenerateKey(rand.Reader, z.Origin())
	if err != nil {
		t.Fatal(err)
	}
	_, size, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []trust.RootKey{{Context: trust.ContextCheckpoint, Owner: trust.Station, Key: stranger.VKey().String()}, nextStation} {
		msg := e.next(t, root, func(r *trust.Root) {
			replacing(nowLog, to)(r)
		})
		if _, err := z.SetRoot(ctx, msg, nil); !hasCode(err, "key-unnamed") {
			t.Errorf("a root that names a stranger's key: %v", err)
		}
	}
	// And one that names both.
	if _, err := z.SetRoot(ctx, e.next(t, root, func(r *trust.Root) { r.Keys = append(r.Keys, nextLog) }), nil); !hasCode(err, "key-replaced") {
		t.Errorf("a root that names the old key and the new one: %v", err)
	}
	msg := e.next(t, root, func(r *trust.Root) {
		replacing(nowLog, nextLog)(r)
		replacing(nowStation, nextStation)(r)
	})
	if _, err := z.SetRoot(ctx, msg, nil); err != nil {
		t.Fatal(err)
	}
	newLog, newStation := z.LedgerVKey(), z.StationVKey()
	if newLog.String() != nextLog.Key || newStation.String() != nextStation.Key {
		t.Fatal("the zone does not go on with the new keys")
	}
	// two signatures, root, a change each; the last of them ends with a checkpoint that both sign.
	note, c, err := z.Checkpoint()
	if err != nil || c.Size != size.Size+5 {
		t.Fatal(c, err)
	}
	for _, k := range []trust.VKey{oldLog, newLog} {
		if _, err := ledger.OpenCheckpoint(note, z.Origin(), k); err != nil {
			t.Errorf("the checkpoint of the change, by %s: %v", k.ID(), err)
		}
	}
	for i, want := range map[int64]string{-3: "root", -2: "key-changed", -1: "key-changed"} {
		if s := entryStatement(t, z, c.Size+i); s.Kind != want {
			t.Errorf("entry %d is %s", c.Size+i, s.Kind)
		}
	}
	leaf, err := z.Entry(ctx, c.Size-2)
	if err != nil {
		t.Fatal(err)
	}
	env, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := env.VerifyKeys(newStation); err != nil {
		t.Errorf("the station's change is signed by another than the one that comes: %v", err)
	}
	change := entryStatement(t, z, c.Size-1)
	if change.Predicate["from"] != oldLog.String() || change.Predicate["to"] != newLog.String() || change.Predicate["size"] != size.Size || change.Subjects[0].SHA256 != trust.Digest(size.Root) {
		t.Errorf("%+v", change)
	}
	if _, err := trust.VerifyLine("checkpoint", size.Text(), change.Predicate["signature"].(string), []trust.VKey{oldLog}); err != nil {
		t.Error(err)
	}
	// The files.
	for _, name := range []string{"ledger", "station"} {
		for _, gone := range []string{name + ".next.key", name + ".next.vkey"} {
			if _, err := os.Lstat(filepath.Join(dir, "keys", gone)); err == nil {
				t.Errorf("%s is still there", gone)
			}
		}
	}
	if readFile(t, dir, "keys", "ledger.vkey") != nextLog.Key+"\n" || readFile(t, dir, "keys", "station.vkey") != nextStation.Key+"\n" {
		t.Error("the public halves are not those of the new keys")
	}
	// Whoever else has the zone open goes on, too.
	commit(t, other, 2)
	commit(t, z, 3)
	if note, c, err = other.Checkpoint(); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenCheckpoint(note, z.Origin(), newLog); err != nil || other.StationVKey().String() != nextStation.Key {
		t.Errorf("another process: %v", err)
	}
	if _, err := ledger.OpenCheckpoint(note, z.Origin(), oldLog); err == nil {
		t.Error("the old key signs still")
	}
	if err := z.Verify(ctx, nil); err != nil {
		t.Error(err)
	}
	// What a witness cosigned before comes now; and the same witness goes on with the new key, and with no other.
	if _, _, err := z.AddCosigned(ctx, before); err != nil {
		t.Errorf("a cosignature from before the change: %v", err)
	}
	if _, _, err := z.Cosigned(wanda.VKey()); err != nil {
		t.Error(err)
	}
	if _, err := Witness(state, z.LedgerFS(), oldLog, wanda, testClock()); !hasCode(err, "checkpoint-unsigned") {
		t.Error(err)
	}
	after, err := Witness(state, z.LedgerFS(), newLog, wanda, testClock())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := z.AddCosigned(ctx, after); err != nil {
		t.Error(err)
	}
	// The thief of the old key: his tree is no larger than where the key ends, or it is refused by the key alone, whatever it holds.
	forged, err := ledger.SignCheckpoint(c, stolen["ledger"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.OpenCheckpoint(forged); !hasCode(err, "key-replaced") {
		t.Errorf("by the stolen key: %v", err)
	}
	// Opened again, and the catalog made again from what is published.
	for _, z := range []*Zone{z, other} {
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = Replace(ctx, dir, ReplaceOptions{Options: Options{Clock: testClock}}, func(ctx context.Context, r *Replacement) error {
		err := r.Entries(ctx, func(i int64, leaf []byte) error {
			e, err := statement.ParseEnvelope(leaf)
			if s := e.Unverified(); err == nil && s.Kind == statement.KindKeyChanged {
				err = KeepKeyChange(ctx, r, &s, i)
			}
			return err
		})
		for _, note := range [][]byte{before, after} {
			if _, oerr := r.Open(note); oerr != nil {
				t.Errorf("while the catalog is made: %v", oerr)
			}
		}
		if _, oerr := r.Open(forged); !hasCode(oerr, "key-replaced") {
			t.Errorf("while the catalog is made: %v", oerr)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	z = testOpen(t, dir, Options{})
	if z.LedgerVKey().String() != nextLog.Key || z.StationVKey().String() != nextStation.Key {
		t.Error("the catalog that was made again has other keys")
	}
	if _, err := z.OpenCheckpoint(before); err != nil {
		t.Errorf("opened again: %v", err)
	}
	if _, err := z.OpenCheckpoint(forged); !hasCode(err, "key-replaced") {
		t.Errorf("opened again: %v", err)
	}
	// The old key in its old place is not taken back.
	z.Close()
	secret, err := stolen["ledger"].Marshal(rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(dir, "keys", "ledger.key"), secret, 0o600)
	if _, err := Open(ctx, dir, Options{Clock: testClock}); err == nil || !strings.Contains(err.Error(), "goes on with") {
		t.Errorf("with the old key in the new one's place: %v", err)
	}
}

// TestKeysChangeHalfway: whatever of the files' renaming is done when the process dies, the next opening ends it.
func TestKeysChangeHalfway(t *testing.T) {
	for steps := range 7 {
		dir, e := rooted(t)
		z := testOpen(t, dir, Options{})
		now, next := renew(t, z, trust.ContextCheckpoint)
		nowS, nextS := renew(t, z, trust.ContextStatement)
		root, err := z.Root()
		if err != nil {
			t.Fatal(err)
		}
		// As after a kill between the commit and the first, second ... step: the calls fail.
		z.calls = &failingRename{after: steps, in: filepath.Join(dir, "keys")}
		msg := e.next(t, root, func(r *trust.Root) { replacing(now, next)(r); replacing(nowS, nextS)(r) })
		if _, err := z.SetRoot(t.Context(), msg, nil); err != nil {
			t.Fatalf("%d: %v", steps, err)
		}
		z.Close()
		again := testOpen(t, dir, Options{})
		commit(t, again, 1)
		if again.LedgerVKey().String() != next.Key || again.StationVKey().String() != nextS.Key || readFile(t, dir, "keys", "ledger.vkey") != next.Key+"\n" {
			t.Errorf("%d: not the new keys", steps)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, "keys", "*.next.*")); len(names) > 0 {
			t.Errorf("%d: %v left", steps, names)
		}
		if err := again.Verify(t.Context(), nil); err != nil {
			t.Errorf("%d: %v", steps, err)
		}
		// And once more, from there.
		now, next = renew(t, again, trust.ContextCheckpoint)
		if root, err = again.Root(); err != nil {
			t.Fatal(err)
		}
		if _, err := again.SetRoot(t.Context(), e.next(t, root, replacing(now, next)), nil); err != nil {
			t.Errorf("%d: a second change: %v", steps, err)
		}
		if len(again.ring().former) != 2 {
			t.Errorf("%d: %d former keys", steps, len(again.ring().former))
		}
		again.Close()
	}
}

// remade makes the catalog of a zone again from what is published: its roots, and the changes of its keys.
func remade(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, catalogFile+name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	_, err := Replace(t.Context(), dir, ReplaceOptions{Options: Options{Clock: testClock}}, func(ctx context.Context, r *Replacement) error {
		return r.Entries(ctx, func(i int64, leaf []byte) error {
			e, err := statement.ParseEnvelope(leaf)
			if err != nil {
				return err
			}
			s := e.Unverified()
			switch s.Kind {
			case statement.KindKeyChanged:
				return KeepKeyChange(ctx, r, &s, i)
			case statement.KindRoot:
				version, _ := s.Predicate["version"].(int64)
				note, err := fs.ReadFile(r.Public, fmt.Sprintf("root/%d", version))
				if err != nil {
					return err
				}
				if version == 1 {
					if err := r.Exec(ctx, "INSERT INTO setting (name, value) VALUES (?, ?)", SettingPin, s.Subjects[0].SHA256.String()); err != nil {
						return err
					}
				}
				return r.Exec(ctx, "INSERT INTO root (version, digest, note) VALUES (?, ?, ?)", version, s.Subjects[0].SHA256.String(), note)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestKeysChangeUnpublished: the former secrets stay until all can see that others came. Wherever the process dies, the zone comes to the same end, with its
// catalog and, should that be lost in the same moment, without it.
func TestKeysChangeUnpublished(t *testing.T) {
	early := 0
	for _, lost := range []bool{false, true} {
		for steps, through := 0, false; !through; steps++ {
			dir, e := rooted(t)
			z := testOpen(t, dir, Options{})
			now, next := renew(t, z, trust.ContextCheckpoint)
			nowS, nextS := renew(t, z, trust.ContextStatement)
			root, err := z.Root()
			if err != nil {
				t.Fatal(err)
			}
			_, before, err := z.Checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			fault := &failingRename{after: steps, in: dir}
			z.calls = fault
			msg := e.next(t, root, func(r *trust.Root) { replacing(now, next)(r); replacing(nowS, nextS)(r) })
			_, err = z.SetRoot(t.Context(), msg, nil)
			fault.mu.Lock()
			through = err == nil && !fault.failed
			fault.mu.Unlock()
			_, public, perr := z.Checkpoint()
			if perr != nil {
				t.Fatal(perr)
			}
			former, kerr := readKey(filepath.Join(dir, "keys", "ledger.key"))
			if kerr != nil {
				t.Fatal(kerr)
			}
			if public.Size == before.Size {
				early++
				if err == nil {
					t.Errorf("%d: it was announced before it was published", steps)
				}
				if former.VKey().String() != now.Key {
					t.Errorf("%d: the former secret went before the change was published", steps)
				}
				// Nor does anybody else put the new one in its place, while it still cannot be published.
				fault.mu.Lock()
				fault.after, fault.in = 0, filepath.Join(dir, "public")
				fault.mu.Unlock()
				if _, _, _, err := z.RenewKey(t.Context(), trust.ContextCheckpoint, rand.Reader); err == nil {
					t.Errorf("%d: a second key was made while the first had not its place", steps)
				}
				if former, err := readKey(filepath.Join(dir, "keys", "ledger.key")); err != nil || former.VKey().String() != now.Key {
					t.Errorf("%d: the former secret went when another key was asked for: %v", steps, err)
				}
			}
			z.Close()
			if lost {
				remade(t, dir)
			}
			again := testOpen(t, dir, Options{})
			if _, err := again.SetRoot(t.Context(), msg, nil); err != nil {
				t.Fatalf("lost %v, %d: again: %v", lost, steps, err)
			}
			commit(t, again, 1)
			if again.LedgerVKey().String() != next.Key || again.StationVKey().String() != nextS.Key {
				t.Errorf("lost %v, %d: not the new keys", lost, steps)
			}
			for _, name := range []string{"ledger", "station"} {
				want := map[string]string{"ledger": next.Key, "station": nextS.Key}[name]
				if k, err := readKey(filepath.Join(dir, "keys", name+".key")); err != nil || k.VKey().String() != want || readFile(t, dir, "keys", name+".vkey") != want+"\n" {
					t.Errorf("lost %v, %d: %s.key: %v", lost, steps, name, err)
				}
			}
			if names, _ := filepath.Glob(filepath.Join(dir, "keys", "*.next.*")); len(names) > 0 {
				t.Errorf("lost %v, %d: %v left", lost, steps, names)
			}
			if err := again.Verify(t.Context(), nil); err != nil {
				t.Errorf("lost %v, %d: %v", lost, steps, err)
			}
			again.Close()
		}
	}
	if early < 4 {
		t.Errorf("only %d times the process died before it had published", early)
	}
}

// TestWitnessFormerKey: a key that the ledger's own entries say was given up is obeyed on no paper; and the change is followed by what was published alone.
func TestWitnessFormerKey(t *testing.T) {
	dir, e := rooted(t)
	z := testOpen(t, dir, Options{})
	old, wanda, states := z.LedgerVKey(), e.keys["wanda/witness"], t.TempDir()
	stolen, err := readKey(filepath.Join(dir, "keys", "ledger.key"))
	if err != nil {
		t.Fatal(err)
	}
	witness := func(state string, public fs.FS, log trust.VKey, former ...trust.VKey) error {
		_, err := WitnessWith(t.Context(), filepath.Join(states, state), public, log, wanda, testClock(), WitnessOptions{Former: former})
		return err
	}
	copied := func(sign *trust.Key) fs.FS {
		to := filepath.Join(t.TempDir(), "ledger")
		if err := os.CopyFS(to, z.LedgerFS()); err != nil {
			t.Fatal(err)
		}
		if sign != nil {
			_, c, err := z.Checkpoint()
			if err != nil {
				t.Fatal(err)
			}
			note, err := ledger.SignCheckpoint(c, sign)
			if err == nil {
				err = os.WriteFile(filepath.Join(to, "checkpoint"), note, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return os.DirFS(to)
	}
	for _, state := range []string{"before", "stranger"} {
		if err := witness(state, z.LedgerFS(), old); err != nil {
			t.Fatal(err)
		}
	}
	// Another key on paper, to which nothing leads: a false one, or one whose change is kept back.
	stranger, err := trust.GenerateKey(rand.Reader, z.Origin())
	if err != nil {
		t.Fatal(err)
	}
	if err := witness("stranger", copied(stranger), stranger.VKey()); !hasCode(err, "witness-log") {
		t.Errorf("a key to which no entry leads: %v", err)
	}
	if err := witness("stranger", copied(stranger), stranger.VKey(), old); err != nil {
		t.Errorf("a key that follows by the roots: %v", err)
	}
	_, size, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	now, next := renew(t, z, trust.ContextCheckpoint)
	root, err := z.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.SetRoot(t.Context(), e.next(t, root, replacing(now, next)), nil); err != nil {
		t.Fatal(err)
	}
	// Both have signed: the old paper opens it, and is not obeyed.
	for _, state := range []string{"fresh", "before"} {
		if err := witness(state, z.LedgerFS(), old); !hasCode(err, "key-replaced") {
			t.Errorf("%s, with the old paper, where both have signed: %v", state, err)
		}
	}
	note, c, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	growth, err := ledger.NewLog(z.LedgerFS(), c).ProveGrowth(size.Size, note)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := ledger.CosignGrowth(size, growth, old, wanda, testClock()); !hasCode(err, "key-replaced") {
		t.Errorf("by file, with the old key, where both have signed: %v", err)
	}
	if _, _, err := ledger.CosignGrowth(size, growth, z.LedgerVKey(), wanda, testClock()); err != nil {
		t.Errorf("by file, with the new key: %v", err)
	}
	commit(t, z, 1)
	// The thief goes on behind the change, which he cannot take out of a tree that others have seen.
	for _, state := range []string{"fresh", "before"} {
		if err := witness(state, copied(stolen), old); !hasCode(err, "key-replaced") {
			t.Errorf("%s, the thief's tree: %v", state, err)
		}
	}
	if err := witness("before", z.LedgerFS(), z.LedgerVKey()); err != nil {
		t.Errorf("who has never seen the change, with the new key: %v", err)
	}
	if err := witness("before", copied(stolen), old); !hasCode(err, "witness-log") {
		t.Errorf("back to the old key: %v", err)
	}
}

// failingRename lets so many renames below a directory pass, and no more. Several files are named at once.
type failingRename struct {
	durable.OS
	mu     sync.Mutex
	after  int
	in     string
	failed bool
}

func (f *failingRename) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if strings.HasPrefix(to, f.in) {
		if f.after == 0 {
			f.failed = true
			return errors.New("the process died")
		}
		f.after--
	}
	return f.OS.Rename(from, to)
}

// TestNoRenewal: without a root that names the zone's key there is nothing to follow; a key that waits can be dropped for another.
func TestNoRenewal(t *testing.T) {
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	if _, _, _, err := z.RenewKey(t.Context(), trust.ContextCheckpoint, rand.Reader); !errors.Is(err, ErrNoRoot) {
		t.Error(err)
	}
	e := newEnclave(t)
	msg, pin := e.root(t, "citadel", 1, trust.Digest{}, "olga/root", "otto/root")
	if _, err := z.SetRoot(t.Context(), msg, pin); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := z.RenewKey(t.Context(), trust.ContextCheckpoint, rand.Reader); !hasCode(err, "key-unnamed") {
		t.Error(err)
	}
	if _, _, _, err := z.RenewKey(t.Context(), trust.ContextNarinfo, rand.Reader); err == nil {
		t.Error("a zone has no key of a track")
	}
	dir, e = rooted(t)
	z = testOpen(t, dir, Options{})
	now, one := renew(t, z, trust.ContextStatement)
	// Killed between the two files.
	os.Remove(filepath.Join(dir, "keys", "station.next.vkey"))
	if _, same := renew(t, z, trust.ContextStatement); same != one || readFile(t, dir, "keys", "station.next.vkey") != one.Key+"\n" {
		t.Error("another key, or its public half is not there")
	}
	if err := z.DropNextKey(t.Context(), trust.ContextStatement); err != nil {
		t.Fatal(err)
	}
	_, two := renew(t, z, trust.ContextStatement)
	if two == one {
		t.Error("the same key again")
	}
	root, err := z.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.SetRoot(t.Context(), e.next(t, root, replacing(now, one)), nil); !hasCode(err, "key-unnamed") {
		t.Errorf("a root that names the key that was dropped: %v", err)
	}
	if _, err := z.SetRoot(t.Context(), e.next(t, root, replacing(now, two)), nil); err != nil {
		t.Error(err)
	}
}

// TestDropWaits: a key is not dropped while somebody writes, who may be about to commit a root that names it: it would be gone when the catalog names it.
func TestDropWaits(t *testing.T) {
	dir, _ := rooted(t)
	z, other := testOpen(t, dir, Options{}), testOpen(t, dir, Options{})
	_, next := renew(t, z, trust.ContextCheckpoint)
	dropped := make(chan error, 1)
	err := other.Commit(t.Context(), func(*Tx) error {
		go func() { dropped <- z.DropNextKey(t.Context(), trust.ContextCheckpoint) }()
		time.Sleep(300 * time.Millisecond)
		if len(dropped) > 0 {
			t.Error("it was dropped")
		}
		if k, err := logKey.readNext(dir); err != nil || k == nil || k.VKey().String() != next.Key {
			t.Errorf("the key is gone: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-dropped; err != nil {
		t.Fatal(err)
	}
	if k, err := logKey.readNext(dir); err != nil || k != nil {
		t.Errorf("the key is still there: %v", err)
	}
}
