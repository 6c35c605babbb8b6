package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// keysLock is held by whoever makes, moves or removes a key of the zone.
const keysLock = "keys"

// maxKeyFile bounds a file of a key.
const maxKeyFile = 1 << 16

// A keyring is the keys that a zone has at one moment. It is never changed, only replaced.
type keyring struct {
	log, station *trust.Key
	former       []formerKey // of the ledger, the newest first
	next         []trust.VKey
	came         map[zoneKey]int64 // of how many entries the tree is with which the key came that is in use; none for the first one
}

// A formerKey is one that the ledger had. Of what it alone has signed, no more than a tree of so many entries counts: the one that ends with the entry
// "key-changed", which is signed by the key that came, too.
type formerKey struct {
	key   trust.VKey
	until int64
}

// A zoneKey is one of the two keys of a zone.
type zoneKey struct {
	context trust.Context
	file    string // below keys, without its ending
}

var (
	logKey  = zoneKey{trust.ContextCheckpoint, "ledger"}
	talkKey = zoneKey{trust.ContextStatement, "station"}
)

func zoneKeys() []zoneKey { return []zoneKey{talkKey, logKey} }

// The files of a key, and of the one that is to come.
func (k zoneKey) secret() string     { return k.file + ".key" }
func (k zoneKey) public() string     { return k.file + ".vkey" }
func (k zoneKey) nextSecret() string { return k.file + ".next.key" }
func (k zoneKey) nextPublic() string { return k.file + ".next.vkey" }

// The settings of a key: the one that is in use since the last change, and those that were, a line each.
func (k zoneKey) setting() string { return "key/" + string(k.context) }
func (k zoneKey) former() string  { return k.setting() + "/former" }

func (k zoneKey) of(r *keyring) *trust.Key {
	if k == logKey {
		return r.log
	}
	return r.station
}

// counts reports whether a root lets the key sign for the zone at a time.
func (k zoneKey) counts(root *trust.Root, key trust.VKey, at time.Time) bool {
	return slices.ContainsFunc(root.Signers(k.context, at), func(v trust.VKey) bool { return v.String() == key.String() })
}

// named reports whether a root names the key for a zone, at whatever time it may count.
func (k zoneKey) named(root *trust.Root, key trust.VKey) bool {
	return root != nil && slices.ContainsFunc(root.Keys, func(r trust.RootKey) bool {
		return r.Context == k.context && r.Owner == trust.Station && r.Key == key.String()
	})
}

func keysPath(dir, file string) string { return filepath.Join(dir, keysDir, file) }

// readNext reads the key that is to come; nil if none was made.
func (k zoneKey) readNext(dir string) (*trust.Key, error) {
	key, err := readKey(keysPath(dir, k.nextSecret()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return key, err
}

// readComing is readNext for a key that has not come yet: one that has may still lie under its first name.
func (z *Zone) readComing(k zoneKey, r *keyring) (*trust.Key, error) {
	key, err := k.readNext(z.Dir)
	if key != nil && key.VKey().String() == k.of(r).VKey().String() {
		key = nil
	}
	return key, err
}

// loadKeys reads the keys with which the zone goes on by its catalog; q is nil while there is none.
//
// A change is true when it is committed; only when it is published, too, the file of the new key takes the name of the old one. So the new one may still
// lie under its own name. That one is read first: whoever renames it meanwhile leaves it to be found under the other.
func (z *Zone) loadKeys(ctx context.Context, q Querier) (*keyring, error) {
	r := &keyring{came: map[zoneKey]int64{}}
	for _, k := range zoneKeys() {
		var want, former string
		if q != nil {
			var err error
			if want, err = Setting(ctx, q, k.setting()); err == nil {
				former, err = Setting(ctx, q, k.former())
			}
			if err != nil {
				return nil, fmt.Errorf("catalog: %w", err)
			}
		}
		next, err := k.readNext(z.Dir)
		if err != nil {
			return nil, err
		}
		key := next
		if key == nil || want == "" || key.VKey().String() != want {
			if key, err = readKey(keysPath(z.Dir, k.secret())); err != nil {
				return nil, err
			}
			if next != nil {
				r.next = append(r.next, next.VKey())
			}
		}
		if want != "" && key.VKey().String() != want {
			return nil, fmt.Errorf("zone: keys/%s is %s, but the zone goes on with %s: put that key back, from where the zone's keys are kept", k.secret(), key.ID(), want)
		}
		were, err := parseFormer(former)
		if err != nil {
			return nil, fmt.Errorf("catalog: setting %s: %w", k.former(), err)
		}
		if len(were) > 0 {
			r.came[k] = were[0].until
		}
		if k == talkKey {
			r.station = key
			continue
		}
		r.log, r.former = key, were
	}
	return r, nil
}

func parseFormer(text string) ([]formerKey, error) {
	var list []formerKey
	for line := range strings.Lines(text) {
		size, key, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		until, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return nil, err
		}
		v, err := trust.ParseVKey(key)
		if err != nil {
			return nil, err
		}
		list = append(list, formerKey{v, until})
	}
	return list, nil
}

// An execer writes the catalog: a [Tx] or a [Replacement].
type execer interface {
	Exec(ctx context.Context, query string, args ...any) error
}

// KeepKeyChange writes into a catalog what an entry "key-changed" of an index says.
func KeepKeyChange(ctx context.Context, to execer, s *statement.Statement, index int64) error {
	text := func(name string) string {
		t, _ := s.Predicate[name].(string)
		return t
	}
	for _, k := range zoneKeys() {
		if string(k.context) != text("context") {
			continue
		}
		if err := to.Exec(ctx, "INSERT INTO setting (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", k.setting(), text("to")); err != nil {
			return err
		}
		return to.Exec(ctx, "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2 || value", k.former(), fmt.Sprintf("%d %s\n", index+1, text("from")))
	}
	return fmt.Errorf("a key of the context %q is none of a zone", text("context"))
}

// ring is the keys as this process knows them. Another process may have changed them since.
func (z *Zone) ring() *keyring { return z.keys.Load() }

// fresh reads the keys again if the catalog names others than this process knows.
func (z *Zone) fresh(ctx context.Context, q Querier, log, station string) error {
	r := z.ring()
	if (log == "" || log == r.log.VKey().String()) && (station == "" || station == r.station.VKey().String()) {
		return nil
	}
	r, err := z.loadKeys(ctx, q)
	if err != nil {
		return err
	}
	z.keys.Store(r)
	return nil
}

// OpenCheckpoint verifies a checkpoint of the zone's ledger: by the key that it has, or for a tree that is old enough by one that it had.
func (z *Zone) OpenCheckpoint(note []byte) (ledger.Checkpoint, error) {
	c, _, err := z.openNote(note)
	return c, err
}

// openNote is OpenCheckpoint, and says with which key.
func (z *Zone) openNote(note []byte) (ledger.Checkpoint, trust.VKey, error) {
	c, k, err := z.ring().open(note, z.Origin())
	if err == nil || z.catalog == nil {
		return c, k, err
	}
	// Another process may have changed the key.
	r, loadErr := z.loadKeys(context.Background(), z.catalog.readers)
	if loadErr != nil || r.log.VKey().String() == z.ring().log.VKey().String() {
		return c, k, errors.Join(err, loadErr)
	}
	z.keys.Store(r)
	return r.open(note, z.Origin())
}

func (r *keyring) open(note []byte, origin string) (ledger.Checkpoint, trust.VKey, error) {
	own := r.log.VKey()
	c, err := ledger.OpenCheckpoint(note, origin, own)
	if err == nil {
		return c, own, nil
	}
	for _, f := range r.former {
		c, ferr := ledger.OpenCheckpoint(note, origin, f.key)
		if ferr == nil {
			if c.Size > f.until {
				return ledger.Checkpoint{}, f.key, trust.Refuse("key-replaced", "checkpoint", "it has %d entries, and is signed by %s alone, which signs nothing behind entry %d", c.Size, f.key.ID(), f.until-1).
					WithHint("ALARM: somebody uses a key that the ledger has given up: keep this as evidence, and tell the security officer")
			}
			return c, f.key, nil
		}
		// The error is that of the key by whose name it is signed.
		if rs, ok := trust.AsRefusals(err); ok && rs.Has("checkpoint-unsigned") {
			err = ferr
		}
	}
	// The one that is to come has signed something only if it has come, and this zone's catalog does not know it: because it is put back, or made anew.
	for _, k := range r.next {
		if k.Context == trust.ContextCheckpoint {
			if c, nerr := ledger.OpenCheckpoint(note, origin, k); nerr == nil {
				return c, k, nil
			}
		}
	}
	return ledger.Checkpoint{}, own, err
}

// RenewKey makes the key that is to come after the ledger's (context checkpoint) or the station's (context statement), and returns what officers put into
// the next root. Its private half never leaves the zone. The key is used from the moment on at which a root is accepted that names it; that the keys
// change is an entry of the ledger. If it was made before, it is returned again.
func (z *Zone) RenewKey(ctx context.Context, of trust.Context, rand io.Reader) (now, next trust.RootKey, made bool, err error) {
	i := slices.IndexFunc(zoneKeys(), func(k zoneKey) bool { return k.context == of })
	if i < 0 {
		return now, next, false, fmt.Errorf("a zone has no key of the context %s", of)
	}
	k := zoneKeys()[i]
	unlock, err := z.LockContext(ctx, keysLock)
	if err != nil {
		return now, next, false, err
	}
	defer unlock()
	ring, err := z.loadKeys(ctx, z.catalog.readers)
	if err != nil {
		return now, next, false, err
	}
	if err := z.settle(ring); err != nil {
		return now, next, false, err
	}
	root, err := z.Root()
	if err != nil {
		return now, next, false, err
	}
	old := k.of(ring)
	key, err := z.readComing(k, ring)
	if err != nil {
		return now, next, false, err
	}
	if _, err := os.Lstat(keysPath(z.Dir, k.nextSecret())); key == nil && err == nil {
		return now, next, false, fmt.Errorf("zone: the key %s has come, and that is not published yet: its place is not free for another", old.ID())
	}
	if !k.named(root, old.VKey()) {
		return now, next, false, trust.Refuse("key-unnamed", old.ID(), "the root in force, version %d, does not name the key that this zone has: nobody could follow from it to another", root.Version).
			WithHint(fmt.Sprintf("have officers enroll it first: 'trust enroll --person station --key FILE', FILE being the line '%s station %s'", of, old.VKey()))
	}
	var files []durable.File
	if key == nil {
		if key, err = trust.GenerateKey(rand, old.Name()); err != nil {
			return now, next, false, err
		}
		secret, err := key.Marshal(rand, nil)
		if err != nil {
			return now, next, false, err
		}
		files, made = append(files, durable.File{Path: keysPath(z.Dir, k.nextSecret()), Data: secret, Perm: 0o600}), true
	}
	// The secret half is durable before anybody sees the public one: officers would name a key that nobody has.
	if err := z.writeFiles(files...); err != nil {
		return now, next, false, fmt.Errorf("zone: %w", err)
	}
	if err := z.writeFiles(durable.File{Path: keysPath(z.Dir, k.nextPublic()), Data: []byte(key.VKey().String() + "\n"), Perm: 0o644}); err != nil {
		return now, next, false, fmt.Errorf("zone: %w", err)
	}
	return stationKeyLine(of, old), stationKeyLine(of, key), made, nil
}

// DropNextKey removes a key that was made and that no root names: another one is made in its place.
func (z *Zone) DropNextKey(ctx context.Context, of trust.Context) error {
	// In a transaction: whoever brings in a root that names this key has it in memory until he has committed, and must find it afterwards.
	return z.Commit(ctx, func(*Tx) error {
		unlock, err := z.LockContext(ctx, keysLock)
		if err != nil {
			return err
		}
		defer unlock()
		for _, k := range zoneKeys() {
			if k.context != of {
				continue
			}
			next, err := k.readNext(z.Dir)
			if err != nil {
				return err
			}
			want, err := Setting(ctx, z.catalog.writer, k.setting())
			if err != nil {
				return fmt.Errorf("catalog: %w", err)
			}
			if next != nil && next.VKey().String() == want {
				continue // it has come, and only its name is still that of one that is to come
			}
			for _, f := range []string{k.nextPublic(), k.nextSecret()} {
				if err := os.Remove(keysPath(z.Dir, f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("zone: %w", err)
				}
			}
		}
		return durable.SyncDir(z.calls, filepath.Join(z.Dir, keysDir))
	})
}

func stationKeyLine(of trust.Context, k *trust.Key) trust.RootKey {
	return trust.RootKey{Context: of, Owner: trust.Station, Key: k.VKey().String()}
}

// settleKeys gives the files of keys that are in use their names. What is killed in between is done by the next opening.
func (z *Zone) settleKeys() error {
	moved := false
	for _, k := range zoneKeys() {
		for _, f := range []string{k.nextSecret(), k.nextPublic()} {
			if _, err := os.Lstat(keysPath(z.Dir, f)); err == nil {
				moved = true
			}
		}
	}
	if !moved {
		return nil
	}
	unlock, err := z.Lock(keysLock)
	if err != nil {
		return err
	}
	defer unlock()
	// Under the lock: by now somebody may have settled these, and made others.
	ring, err := z.loadKeys(context.Background(), z.catalog.readers)
	if err != nil {
		return err
	}
	return z.settle(ring)
}

// settle is settleKeys of a ring that was read under the lock.
//
// A former secret stays until all can see that another key came: were the catalog lost before, the zone would have to go on from what is published, where it is
// the former key that counts.
func (z *Zone) settle(ring *keyring) error {
	size := int64(-1)
	for _, k := range zoneKeys() {
		want := k.of(ring).VKey().String()
		next, err := k.readNext(z.Dir)
		if err != nil {
			return err
		}
		if next != nil && next.VKey().String() != want {
			continue // it is still to come
		}
		if next != nil && size < 0 {
			if size, err = z.durablySeen(); err != nil {
				return err
			}
		}
		if next != nil && size < ring.came[k] {
			continue // who publishes it, or the next opening, does this
		}
		// First the public half: while the secret one has its old name, this runs again.
		if have, err := readBounded(keysPath(z.Dir, k.public()), maxKeyFile); err != nil || string(have) != want+"\n" {
			if next == nil && err == nil {
				continue // not ours to mend
			}
			if err := z.writeFiles(durable.File{Path: keysPath(z.Dir, k.public()), Data: []byte(want + "\n"), Perm: 0o644}); err != nil {
				return fmt.Errorf("zone: %w", err)
			}
		}
		if next != nil {
			// The former secret goes with this: it signs nothing any more that is believed.
			if err := durable.Rename(z.calls, keysPath(z.Dir, k.nextSecret()), keysPath(z.Dir, k.secret())); err != nil {
				return fmt.Errorf("zone: %w", err)
			}
		}
		if err := os.Remove(keysPath(z.Dir, k.nextPublic())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("zone: %w", err)
		}
	}
	return nil
}

// durablySeen is the size of the published ledger, of which no crash takes anything back.
func (z *Zone) durablySeen() (int64, error) {
	// Whoever publishes makes it durable before he lets the lock go, unless he is killed between the two.
	unlock, err := z.lockPublish()
	if err != nil {
		return 0, err
	}
	defer unlock()
	_, c, err := z.Checkpoint()
	if err != nil {
		return 0, err
	}
	if err := durable.SyncDir(z.calls, filepath.Dir(z.checkpointPath())); err != nil {
		return 0, fmt.Errorf("zone: %w", err)
	}
	return c.Size, nil
}

// A keyChange is a key of the zone that takes another's place.
type keyChange struct {
	kind zoneKey
	to   *trust.Key
}

// CheckKeys says what is wrong with a draft of the root that is to follow one: that it takes from this zone a key without giving it one that it has.
func (z *Zone) CheckKeys(known, draft *trust.Root) error {
	ring, err := z.loadKeys(context.Background(), z.catalog.readers)
	if err != nil {
		return err
	}
	_, err = z.keyChanges(ring, known, draft, z.clock())
	return err
}

// keyChanges says which keys change with a root. A root that takes a key from the zone without giving it one that it has is refused: the zone could make no entry any more
// that the root's readers believe.
func (z *Zone) keyChanges(ring *keyring, known, root *trust.Root, now time.Time) ([]keyChange, error) {
	var list []keyChange
	var bad trust.Refusals
	for _, k := range zoneKeys() {
		old := k.of(ring)
		if !k.named(known, old.VKey()) {
			continue // it never named this zone's key: it is another zone's root
		}
		next, err := z.readComing(k, ring)
		if err != nil {
			return nil, err
		}
		switch {
		case next != nil && k.counts(root, next.VKey(), now) && k.named(root, old.VKey()):
			bad.Add(trust.Refuse("key-replaced", fmt.Sprintf("root version %d", root.Version), "it names %s, and still %s, which that one is to follow: whoever stole it would be believed", next.VKey().ID(), old.ID()).
				WithHint("'trust rotate' puts the one in the place of the other"))
		case next != nil && k.counts(root, next.VKey(), now):
			list = append(list, keyChange{k, next})
		case !k.named(root, old.VKey()):
			bad.Add(trust.Refuse("key-unnamed", fmt.Sprintf("root version %d", root.Version), "it does not name %s, the %s key of this zone, nor one that was made here to follow it", old.ID(), k.context).
				WithHint("'key renew --zone DIR " + k.file + "' makes the key in the zone; officers sign a root that names what it prints"))
		}
	}
	return list, bad.Err()
}

// changeKey lets the zone go on with another key, and enters that. The entry says where the former key ends: the tree that the ledger's key signed last
// before it, with that signature. The ledger's key is changed by the last entry of a transaction, whose checkpoint both keys sign.
func (tx *Tx) changeKey(ctx context.Context, c keyChange, version int64) error {
	old := c.kind.of(tx.growth.keys)
	var size int64
	var note []byte
	if err := tx.QueryRow(ctx, "SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1").Scan(&size, &note); err != nil {
		return err
	}
	at, by, err := tx.growth.keys.open(note, tx.z.Origin())
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	line, err := ledger.SignatureLine(note, by)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	ring := *tx.growth.keys
	if c.kind == talkKey {
		ring.station = c.to
		tx.growth.keys = &ring // the entry is the first that the new one signs
	}
	s := statement.Statement{Kind: statement.KindKeyChanged, Subjects: []statement.Subject{{Name: tx.z.Origin(), SHA256: trust.Digest(at.Root)}},
		Predicate: map[string]any{"context": string(c.kind.context), "from": old.VKey().String(), "to": c.to.VKey().String(), "size": at.Size, "version": version, "signature": line}}
	index, err := tx.StatementIndex(s.Kind, s.Subjects, s.Predicate)
	if err != nil {
		return err
	}
	ring.came = maps.Clone(ring.came)
	ring.came[c.kind] = index + 1
	if c.kind == logKey {
		ring.log = c.to
		ring.former = append([]formerKey{{old.VKey(), index + 1}}, ring.former...)
		ring.next = nil
		tx.growth.keys, tx.growth.leaving = &ring, old
	}
	return KeepKeyChange(ctx, tx, &s, index)
}
