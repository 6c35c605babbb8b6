package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// atHand is what the roots say of a zone's keys, as far as roots are at hand: those of the backup, of what survived, and those that were named. They begin with the backup's own first
// one: what they say helps to tell which log something is of, and gives nobody authority.
type atHand struct {
	key   trust.VKey // of the ledger, when the backup was made
	chain []*trust.Root
}

func keysAtHand(zone string, opts RestoreOptions) (*atHand, error) {
	key, err := ledgerKey(zone, opts.Ledger)
	if err != nil {
		return nil, err
	}
	a := &atHand{key: key}
	dirs := []string{filepath.Join(zone, "public")}
	if opts.Public != "" {
		dirs = append(dirs, opts.Public)
	}
	for _, dir := range dirs {
		for n := len(a.chain) + 1; ; n++ {
			note, err := readRoot(filepath.Join(dir, "root", fmt.Sprint(n)))
			if errors.Is(err, fs.ErrNotExist) {
				break
			}
			if err == nil {
				err = a.follow(note)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: root %d: %w", dir, n, err)
			}
		}
	}
	for _, note := range opts.Roots {
		// One that is here already, or does not follow, is judged when the zone takes it.
		_ = a.follow(note)
	}
	if opts.Root != nil {
		if len(a.chain) == 0 {
			return nil, trust.Refuse("root-missing", "root/1", "no root is at hand to be compared with the fingerprint")
		}
		if !opts.Root.Matches(a.chain[0].Digest()) {
			return nil, trust.Refuse("root-pin", "root/1", "it has the fingerprint %s, officers gave another", trust.Fingerprint(a.chain[0].Digest())).
				WithHint("the backup, or what survived, is of another enclave, or somebody made it: keep it as evidence")
		}
	}
	return a, nil
}

// formerKey reports whether what was put back is signed by none of the keys that the newest root at hand gives the ledger.
func formerKey(zone string, a *atHand) (bool, error) {
	if len(a.chain) == 0 {
		return false, nil
	}
	now := a.chain[len(a.chain)-1].CheckpointKeys(a.key.Name)
	note, err := ledger.ReadCheckpoint(os.DirFS(filepath.Join(zone, "public", "ledger")))
	if err != nil {
		return false, err
	}
	for _, k := range now {
		if _, err := ledger.OpenCheckpoint(note, k.Name, k); err == nil {
			return false, nil
		}
	}
	return len(now) > 0, nil
}

func readRoot(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() > store.MaxPublic {
		return nil, fmt.Errorf("%d bytes, more than %d", fi.Size(), store.MaxPublic)
	}
	return os.ReadFile(path)
}

// follow takes the next root.
func (a *atHand) follow(note []byte) error {
	var r *trust.Root
	var err error
	if len(a.chain) == 0 {
		var text []byte
		if text, _, err = trust.SplitNote("root", note, trust.MaxRootSize); err == nil {
			r, err = trust.OpenRoot(note, trust.Sum(text))
		}
	} else {
		r, err = a.chain[len(a.chain)-1].Next(note)
	}
	if err == nil {
		a.chain = append(a.chain, r)
	}
	return err
}

// open opens a checkpoint of the log by the key that it had when the backup was made, or one that a root gave it before or since.
func (a *atHand) open(note []byte) (ledger.Checkpoint, error) {
	c, err := ledger.OpenCheckpoint(note, a.key.Name, a.key)
	for _, r := range a.chain {
		for _, k := range r.CheckpointKeys(a.key.Name) {
			if err == nil {
				return c, nil
			}
			if got, other := ledger.OpenCheckpoint(note, a.key.Name, k); other == nil {
				c, err = got, nil
			}
		}
	}
	return c, err
}

// log opens a published ledger, whose tiles are not read yet.
func (a *atHand) log(files fs.FS) (*ledger.Log, error) {
	note, err := ledger.ReadCheckpoint(files)
	if err != nil {
		return nil, err
	}
	c, err := a.open(note)
	if err != nil {
		return nil, err
	}
	return ledger.NewLog(files, c), nil
}

// names says whether the newest root at hand gives this key to the station.
func (a *atHand) names(k *trust.Key) bool {
	if len(a.chain) == 0 {
		return false
	}
	for _, have := range a.chain[len(a.chain)-1].Keys {
		if have.Owner == trust.Station && have.Context == k.Context() && have.Key == k.VKey().String() {
			return true
		}
	}
	return false
}

// keys puts the secret keys in their place, and checks that they are those of the public halves. A key that the zone got after the backup was made is put beside the
// former one, which it follows when the root is taken in that names it, or the catalog made again from a ledger that tells so.
func keys(zone string, a *atHand, from string, rebuilt bool) error {
	var bad trust.Refusals
	for _, name := range []string{"ledger", "station"} {
		path := filepath.Join(zone, "keys", name+".key")
		public, err := readSmall(filepath.Join(zone, "keys", name+".vkey"))
		if err != nil {
			return err
		}
		if from != "" {
			secret, err := readSmall(filepath.Join(from, name+".key"))
			if err != nil {
				return err
			}
			key, err := trust.ParseKey(secret, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", filepath.Join(from, name+".key"), err)
			}
			_, missing := os.Lstat(path)
			switch newer := key.VKey().String()+"\n" != string(public) && a.names(key); {
			case newer && missing == nil:
				path = filepath.Join(zone, "keys", name+".next.key")
			case newer && rebuilt:
				// What survived is newer than the backup, and nothing is left to be signed with the key of then.
				public = []byte(key.VKey().String() + "\n")
				if err := os.WriteFile(filepath.Join(zone, "keys", name+".vkey"), public, 0o644); err != nil {
					return err
				}
			case newer:
				bad.Add(trust.Refuse("backup-key", "keys/"+name+".key", "it is %s, which the zone got after the backup was made; then it had %s", key.ID(), strings.TrimSpace(string(public))).
					WithHint("the key of then is needed, too, to go on from there: use a backup that has its keys, or one from after the change"))
				continue
			}
			if err := os.WriteFile(path, secret, 0o600); err != nil {
				return err
			}
			if filepath.Base(path) == name+".next.key" {
				continue
			}
		}
		secret, err := readSmall(path)
		if errors.Is(err, fs.ErrNotExist) {
			bad.Add(trust.Refuse("backup-key", "keys/"+name+".key", "it is not in the backup").
				WithHint("name the directory that keeps the zone's keys; a backup has them only if it was asked to"))
			continue
		}
		if err != nil {
			return err
		}
		key, err := trust.ParseKey(secret, nil)
		if err != nil {
			return fmt.Errorf("%s.key: %w", name, err)
		}
		if have := key.VKey().String() + "\n"; have != string(public) {
			bad.Add(trust.Refuse("backup-key", "keys/"+name+".key", "it is another key than %s", strings.TrimSpace(string(public))))
		}
	}
	return bad.Err()
}
