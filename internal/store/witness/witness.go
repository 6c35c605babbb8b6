// Package witness is the memory of a witness who has not the ledger's files: a
// directory, on the witness's own machine, that says for each ledger with which
// key it is signed and what this witness cosigned last.
//
//	DIR/ENCLAVE/KIND/log          the checkpoint keys of the ledger, a vkey a line; the first came from paper
//	DIR/ENCLAVE/KIND/checkpoint   the note that was cosigned last
//	DIR/ENCLAVE/KIND/lock, tmp/
//
// What is asked of the witness comes as a [ledger.Growth]: checkpoint and proof
// in one file. What goes back is the cosigned note. The new state is durable
// before the note is handed out, so no crash makes a witness forget what it has
// vouched for; and a witness that lost its state refuses to go on, because a
// proof from the size that the ledger knows begins at none that it knows.
//
// A ledger gets a new key by the roots that name it ([Keys]), which then is the only one; or by hand, by another line in the file `log`.
package witness

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// maxKeys bounds the file `log`.
const maxKeys = 64 << 10

// Keys are those of a ledger as they stand on paper, or follow from it.
type Keys struct {
	Now []trust.VKey
	// Former are those that the ledger had, by roots before the newest. A ledger that this witness knows by one of them it knows by those of Now from here on.
	Former []trust.VKey
}

// FromRoots are the keys that a chain of roots, verified from the fingerprint on paper, gives the ledger of an origin.
func FromRoots(chain []*trust.Root, origin string) Keys {
	var k Keys
	for i, r := range chain {
		for _, v := range r.CheckpointKeys(origin) {
			switch {
			case i == len(chain)-1:
				k.Now = append(k.Now, v)
			case !contains(k.Former, v) && !contains(chain[len(chain)-1].CheckpointKeys(origin), v):
				k.Former = append(k.Former, v)
			}
		}
	}
	return k
}

// Origin is whose ledger a request is about, by its own word.
func Origin(g *ledger.Growth) (string, error) {
	text, _, err := trust.SplitNote("checkpoint", g.Checkpoint, ledger.MaxCheckpoint)
	if err != nil {
		return "", err
	}
	c, err := ledger.ParseCheckpoint(text)
	return c.Origin, err
}

// Cosign checks that a ledger has only grown since this witness cosigned it
// last, and cosigns it. paper is the ledger's keys; it may be empty if
// the ledger is known already. Codes beside those of [ledger.CosignGrowth]:
// witness-log (another key than the known one), witness-unknown-log.
func Cosign(dir string, g *ledger.Growth, paper Keys, key trust.Signer, at time.Time) (ledger.Checkpoint, []byte, error) {
	text, _, err := trust.SplitNote("checkpoint", g.Checkpoint, ledger.MaxCheckpoint)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	claimed, err := ledger.ParseCheckpoint(text)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	// The origin was parsed: its words make a path below dir, and none above it.
	enclave, kind, err := trust.ParseOrigin(claimed.Origin)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	s := state{filepath.Join(dir, enclave, kind)}
	known, err := s.keys()
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	now, err := paper.after(known, claimed.Origin)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	// Of a ledger that is not known nothing is kept, not even a directory, unless it shows that it is the one on paper.
	if len(known) == 0 {
		if _, err := opens(g.Checkpoint, claimed.Origin, now); err != nil {
			return ledger.Checkpoint{}, nil, err
		}
	}
	if err := durable.MkdirAll(durable.OS{}, s.path("tmp"), 0o700); err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("witness: %w", err)
	}
	// One run at a time: two could cosign two continuations of the same state.
	lock, err := os.OpenFile(s.path("lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("witness: %w", err)
	}
	defer lock.Close()
	if err := durable.Lock(lock, syscall.LOCK_EX); err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("witness: %w", err)
	}
	if err := durable.SweepTemp(durable.OS{}, s.path("tmp")); err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("witness: %w", err)
	}
	// Another run may have learned of another key meanwhile.
	if known, err = s.keys(); err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	if now, err = paper.after(known, claimed.Origin); err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	// What the roots say is learned whatever is wrong with what was brought: else the thief of a former key would have to bring only that, to be believed by the next run.
	if len(known) > 0 && len(paper.Former) > 0 {
		if err := s.write("log", lines(now)); err != nil {
			return ledger.Checkpoint{}, nil, err
		}
	}
	log, err := opens(g.Checkpoint, claimed.Origin, now)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	seen, err := s.seen(claimed.Origin, slices.Concat(known, now, paper.Former), key.VKey())
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	c, note, err := ledger.CosignGrowth(seen, g, log, key, at)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	// The key before the checkpoint: a state without key would take any.
	if err := s.write("log", lines(now)); err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	if err := s.write("checkpoint", note); err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	return c, note, nil
}

// Known is what this witness remembers of a ledger: the keys that it is known by, and the note that was cosigned last; nil where there is none.
func Known(dir, origin string) ([]trust.VKey, []byte, error) {
	enclave, kind, err := trust.ParseOrigin(origin)
	if err != nil {
		return nil, nil, err
	}
	s := state{filepath.Join(dir, enclave, kind)}
	keys, err := s.keys()
	if err != nil {
		return nil, nil, err
	}
	note, err := s.read("checkpoint", ledger.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return keys, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("witness: %w", err)
	}
	return keys, note, nil
}

// after says which keys of a ledger count: those that are known, or those of the paper.
func (paper Keys) after(known []trust.VKey, origin string) ([]trust.VKey, error) {
	switch {
	case len(paper.Now) == 0 && len(paper.Former) > 0:
		return nil, trust.Refuse("witness-log", origin, "the newest root names no key for it")
	case len(paper.Now) == 0 && len(known) == 0:
		return nil, trust.Refuse("witness-unknown-log", origin, "this witness has never seen it").
			WithHint("give the ledger's key, from paper, with --log, or the roots that name it with --root and --roots; from then on it is known")
	case len(paper.Now) > 0 && paper.Now[0].Name != origin:
		return nil, trust.Refuse("checkpoint-origin", "checkpoint", "it is of %s, not of %s", origin, paper.Now[0].Name)
	case len(paper.Now) > 0 && len(known) > 0 && !slices.ContainsFunc(known, func(k trust.VKey) bool { return contains(paper.Now, k) || contains(paper.Former, k) }):
		return nil, trust.Refuse("witness-log", origin, "this witness knows it by the key %s, not by %s", known[0].ID(), paper.Now[0].ID()).
			WithHint("if officers have said that the ledger has a new key, give the roots with --root and --roots")
	}
	// What officers say now takes the place of what was known: who has a key that they took away is believed no more.
	if len(known) == 0 || len(paper.Former) > 0 {
		return paper.Now, nil
	}
	return known, nil
}

// lines are the file `log`.
func lines(keys []trust.VKey) []byte {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintln(&b, k)
	}
	return []byte(b.String())
}

type state struct{ dir string }

func (s state) path(name string) string { return filepath.Join(s.dir, name) }

func (s state) write(name string, data []byte) error {
	if err := durable.WriteAll(durable.OS{}, s.path("tmp"), durable.File{Path: s.path(name), Data: data, Perm: 0o600}); err != nil {
		return fmt.Errorf("witness: %w", err)
	}
	return nil
}

func (s state) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(s.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", s.path(name), limit)
	}
	return b, err
}

// keys reads the file `log`; none if there is no file.
func (s state) keys() ([]trust.VKey, error) {
	b, err := s.read("log", maxKeys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	var keys []trust.VKey
	for line := range strings.Lines(string(b)) {
		k, err := trust.ParseVKey(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("witness: %s: %w", s.path("log"), err)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("witness: %s: no key in it", s.path("log"))
	}
	return keys, nil
}

// seen reads what was cosigned last; the zero Checkpoint if nothing was.
func (s state) seen(origin string, known []trust.VKey, own trust.VKey) (ledger.Checkpoint, error) {
	b, err := s.read("checkpoint", ledger.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.Checkpoint{}, nil
	}
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("witness: %w", err)
	}
	// By this witness's own signature, too: the ledger's key may have changed before it was killed.
	if c, _, err := ledger.OpenWitnessed(b, origin, own); err == nil {
		return c, nil
	}
	log, err := opens(b, origin, known)
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("witness: %s: %w", s.path("checkpoint"), err)
	}
	return ledger.OpenCheckpoint(b, origin, log)
}

// opens finds the key that has signed a checkpoint.
func opens(note []byte, origin string, known []trust.VKey) (trust.VKey, error) {
	var first error
	for _, k := range known {
		_, err := ledger.OpenCheckpoint(note, origin, k)
		if err == nil {
			return k, nil
		}
		if first == nil {
			first = err
		}
	}
	return trust.VKey{}, first
}

func contains(keys []trust.VKey, k trust.VKey) bool {
	for _, other := range keys {
		if other.Equal(k) {
			return true
		}
	}
	return false
}
