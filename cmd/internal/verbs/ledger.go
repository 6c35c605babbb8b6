package verbs

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/evidence/siem"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

func ledgerNoun(env *frame.Env) *cobra.Command {
	return noun("ledger", "the sealed log of a zone", ledgerVerify(env), ledgerShow(env), ledgerProve(env), ledgerExport(env), ledgerWitness(env), ledgerCosign(env))
}

// A published is a ledger as it is published: that of a zone, or a copy with what somebody has on paper.
type published struct {
	dir   string       // the directory with `checkpoint` in it
	log   []trust.VKey // by which it is signed now
	old   []trust.VKey // by which it was signed before: the present checkpoint is not
	chain [][]byte     // the root notes; empty: there is no root, or none was opened
	keys  siem.Keys
	root  *trust.Root // the newest; nil as above

	// The directory with the notes of roots, or the file of the only one, and what the first must be; for reading them again.
	roots string
	pin   func(trust.Digest) error
	zone  *store.Zone // nil after close, and for a copy

	copied *frame.Env // for a copy: who is told what takes long; nil for a zone, which knows its key
	readTo int64      // as far its entries were read, for one that gives up the key readBy
	readBy trust.VKey
}

// paper are the flags by which a copy is read without a zone.
type paper struct{ public, root, log string }

func (p *paper) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.public, "public", "", "read a copy of a zone's public directory, not a zone; with --root or --log")
	c.Flags().StringVar(&p.root, "root", "", "fingerprint of the enclave's first root, from paper")
	c.Flags().StringVar(&p.log, "log", "", "the ledger's checkpoint key (vkey), from paper")
}

// open opens the zone, or the copy that the flags name.
func (p *paper) open(ctx context.Context, env *frame.Env) (*published, error) {
	if p.public == "" {
		if p.root != "" || p.log != "" {
			return nil, frame.Usage("--root and --log go with --public")
		}
		z, err := env.Zone(ctx)
		if err != nil {
			return nil, err
		}
		public := filepath.Join(z.Dir, "public")
		l := &published{dir: filepath.Join(public, "ledger"), log: []trust.VKey{z.LedgerVKey()}, roots: filepath.Join(public, "root"), zone: z}
		l.pin = func(d trust.Digest) error { return z.CheckPin(context.WithoutCancel(ctx), d) }
		if err := l.read(); err != nil {
			return nil, errors.Join(err, z.Close())
		}
		if l.root == nil {
			l.keys = siem.Keys{z.StationVKey()}
		}
		return l, nil
	}
	l := &published{dir: p.public, roots: filepath.Join(p.public, "root"), copied: env}
	if _, err := os.Stat(filepath.Join(l.dir, "checkpoint")); err != nil {
		l.dir = filepath.Join(p.public, "ledger")
	} else {
		l.roots = filepath.Join(filepath.Dir(filepath.Clean(p.public)), "root")
	}
	return l, l.believe(p.root, p.log)
}

// believe takes what stands on paper: a root's fingerprint, or a ledger's key.
func (l *published) believe(root, log string) error {
	if (root == "") == (log == "") {
		return frame.Usage("what do you have on paper? Give --root FINGERPRINT or --log VKEY")
	}
	if log != "" {
		k, err := trust.ParseVKey(log)
		if err != nil {
			return frame.Usage("--log: %v", err)
		}
		if k.Context != trust.ContextCheckpoint {
			return frame.Usage("--log: %s is not the key of a ledger", k.Name)
		}
		l.log = []trust.VKey{k}
		return nil
	}
	pin, err := trust.ParsePin(root)
	if err != nil {
		return frame.Usage("--root: %v", err)
	}
	l.pin = sameRoot(pin)
	if err := l.read(); err != nil {
		return err
	}
	if l.root == nil {
		return fmt.Errorf("%s: there is no root here", l.roots)
	}
	return nil
}

func sameRoot(want trust.Pinned) func(trust.Digest) error {
	return func(d trust.Digest) error {
		if !want.Matches(d) {
			return trust.Refuse("root-pin", "root 1", "its fingerprint is %s, not %s", trust.Fingerprint(d), want)
		}
		return nil
	}
}

// read reads the chain of roots, from the first, which must be the one from paper.
func (l *published) read() error {
	l.chain, l.root, l.keys = nil, nil, nil
	if st, err := os.Stat(l.roots); err == nil && st.Mode().IsRegular() {
		note, err := frame.ReadBounded(l.roots, maxRootNote)
		if err != nil {
			return err
		}
		l.chain = [][]byte{note}
		return l.openChain()
	}
	first, err := frame.ReadBounded(filepath.Join(l.roots, "1"), maxRootNote)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for n := 2; err == nil; n++ {
		l.chain = append(l.chain, first)
		first, err = frame.ReadBounded(filepath.Join(l.roots, fmt.Sprint(n)), maxRootNote)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.openChain()
}

// openChain verifies the roots, and collects the keys that they name.
func (l *published) openChain() error {
	text, _, err := trust.SplitNote("root", l.chain[0], trust.MaxRootSize)
	if err != nil {
		return err
	}
	first := trust.Sum(text)
	if err := l.pin(first); err != nil {
		return err
	}
	// It was asked once; when the roots are read again the zone may be closed.
	l.pin = sameRoot(first)
	var named []trust.VKey
	for i, note := range l.chain {
		if i == 0 {
			l.root, err = trust.OpenRoot(note, first)
		} else {
			l.root, err = l.root.Next(note)
		}
		if err != nil {
			return fmt.Errorf("root %d: %w", i+1, err)
		}
		// Every version's: an entry is as old as the root that it was signed under. Of the ledger's keys those of the newest count, the others only for what somebody kept.
		for _, k := range l.root.Keys {
			if k.Context != trust.ContextStatement && k.Context != trust.ContextCheckpoint {
				continue
			}
			v, err := trust.ParseVKey(k.Key)
			if err != nil {
				return err
			}
			if k.Context == trust.ContextStatement && !slices.ContainsFunc(l.keys, v.Equal) {
				l.keys = append(l.keys, v)
			}
			if k.Context == trust.ContextCheckpoint && !slices.ContainsFunc(named, v.Equal) {
				named = append(named, v)
			}
		}
	}
	now := l.root.Signers(trust.ContextCheckpoint, l.root.Date)
	for _, v := range append(l.log, named...) {
		switch {
		case slices.ContainsFunc(now, v.Equal):
		case !slices.ContainsFunc(named, v.Equal):
			now = append(now, v) // of a zone that no root has named yet
		case !slices.ContainsFunc(l.old, v.Equal):
			l.old = append(l.old, v)
		}
	}
	l.log = now
	return nil
}

// close closes the zone. What is published can be read on.
func (l *published) close() error {
	if l.zone == nil {
		return nil
	}
	z := l.zone
	l.zone = nil
	return z.Close()
}

// now opens the checkpoint as it is at this moment: the note, and the log in its light. The entries of a copy are read, those that were not before: paper, and roots whose
// last may have been kept back, can be older than the ledger, which tells of it when it gives its key up.
func (l *published) now(ctx context.Context) ([]byte, *ledger.Log, error) {
	note, log, key, err := l.unread()
	if err != nil || l.copied == nil {
		return note, log, err
	}
	c := log.Checkpoint()
	if !l.readBy.Equal(key) {
		l.readTo, l.readBy = 0, key
	}
	if l.readTo >= c.Size {
		return note, log, nil
	}
	given, p := store.NotGivenUp(c.Origin, key), l.copied.Progress("looking for changes of its key", c.Size-l.readTo)
	p.Unit("entries")
	defer p.Done()
	err = log.Range(ctx, l.readTo, c.Size, func(i int64, leaf []byte, _ tlog.Hash) error {
		if i%progressEntries == progressEntries-1 {
			p.Add(progressEntries)
		}
		return given(i, leaf)
	})
	if err != nil {
		return nil, nil, err
	}
	l.readTo = c.Size
	return note, log, nil
}

// progressEntries is after how many entries progress is told.
const progressEntries = 1024

// unread is now for who reads all entries himself, and shows them to [store.NotGivenUp] with the key that it returns.
func (l *published) unread() ([]byte, *ledger.Log, trust.VKey, error) {
	files := os.DirFS(l.dir)
	note, err := ledger.ReadCheckpoint(files)
	if err != nil {
		return nil, nil, trust.VKey{}, err
	}
	c, key, err := l.opensBy(note)
	if err != nil && l.root != nil {
		// A newer root may have given it another key since.
		if again := l.read(); again == nil {
			c, key, err = l.opensBy(note)
		}
	}
	if err != nil {
		return nil, nil, trust.VKey{}, err
	}
	return note, ledger.NewLog(files, c), key, nil
}

// at opens a checkpoint in a file, or the present one if file is empty, with the cosignatures that are published for it.
func (l *published) at(ctx context.Context, file string) ([]byte, *ledger.Log, error) {
	note, log, err := l.now(ctx)
	if err != nil {
		return nil, nil, err
	}
	if file != "" {
		if note, err = frame.ReadBounded(file, ledger.MaxCheckpoint); err != nil {
			return nil, nil, err
		}
		c, err := l.opensKept(note)
		if err != nil {
			return nil, nil, err
		}
		if err := log.Contains(c); err != nil {
			return nil, nil, err
		}
		log = ledger.NewLog(os.DirFS(l.dir), c)
	}
	others, err := l.cosigned()
	return ledger.Join(note, others...), log, err
}

// cosigned reads what witnesses have cosigned, unverified.
func (l *published) cosigned() ([][]byte, error) {
	dir := filepath.Join(filepath.Dir(l.dir), "witness")
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var notes [][]byte
	for _, n := range names {
		note, err := frame.ReadBounded(filepath.Join(dir, n.Name()), ledger.MaxCheckpoint)
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	return notes, nil
}

// opens verifies a checkpoint by a key that the ledger has now. One that it had is a thief's, or the checkpoint is too old to say anything by itself.
func (l *published) opens(note []byte) (ledger.Checkpoint, error) {
	c, _, err := l.opensBy(note)
	return c, err
}

// opensBy is opens, and says with which key.
func (l *published) opensBy(note []byte) (ledger.Checkpoint, trust.VKey, error) {
	c, key, err := openCheckpoint(note, l.log)
	if err == nil {
		return c, key, l.leaving(note, c)
	}
	if len(l.old) == 0 {
		return c, key, err
	}
	if was, _, old := openCheckpoint(note, l.old); old == nil {
		return ledger.Checkpoint{}, key, trust.Refuse("key-replaced", "checkpoint", "its %d entries are signed by a key of %s that the roots have replaced", was.Size, was.Origin).
			WithHint("what was made before the change is made again from the ledger as it is now; if it was made afterwards, somebody uses the old key: keep it as evidence")
	}
	return c, key, err
}

// leaving refuses a checkpoint that was opened, by which the ledger goes on with a key that nobody named to us.
func (l *published) leaving(note []byte, c ledger.Checkpoint) error {
	var goesOn string
	var by trust.VKey
	for _, k := range l.log {
		if _, err := ledger.OpenCheckpoint(note, c.Origin, k); err != nil {
			continue
		}
		next, leaving := ledger.Leaving(note, k)
		if !leaving {
			return nil
		}
		goesOn, by = next, k
	}
	return trust.Refuse("key-replaced", c.Origin, "it goes on with %s; %s signs beside that for the last time", goesOn, by.ID()).
		WithHint("give --root, the fingerprint of the first root, and --roots: the newest of them must name the key that comes; or have the new key read out by two officers")
}

// opensKept verifies a checkpoint that somebody kept, which may be older than the ledger's key. The present one must contain it.
func (l *published) opensKept(note []byte) (ledger.Checkpoint, error) {
	c, _, err := openCheckpoint(note, append(slices.Clone(l.log), l.old...))
	return c, err
}

func openCheckpoint(note []byte, keys []trust.VKey) (ledger.Checkpoint, trust.VKey, error) {
	origin, _, _ := bytes.Cut(note, []byte("\n"))
	var first error
	for _, k := range keys {
		// A root names the ledgers of every zone; this one says itself whose it is, and is held to it.
		if k.Name != string(origin) {
			continue
		}
		c, err := ledger.OpenCheckpoint(note, k.Name, k)
		if err == nil {
			return c, k, nil
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		var names []string
		for _, k := range keys {
			names = append(names, k.Name)
		}
		first = trust.Refuse("checkpoint-origin", "checkpoint", "it is of %.80q, not of %q", origin, names)
	}
	return ledger.Checkpoint{}, trust.VKey{}, first
}

func ledgerVerify(env *frame.Env) *cobra.Command {
	var from paper
	var proof proofFlags
	c := &cobra.Command{
		Use:   "verify [--proof FILE]",
		Short: "recompute the ledger of a zone, or check a proof that somebody brought",
		Long: `Recompute the ledger of a zone from its entries, and compare the published files and the catalog with it; or with --public a copy of the published
files alone. The auditor's own program, sallyport-verify, does the latter, too, and shares no code with this one.

With --proof, check a file that 'ledger prove' made: that one entry is in the ledger, or that the ledger has only grown since --old. That needs
neither zone nor copy, only what stands on paper: the ledger's key (--log), or the root's fingerprint and the roots themselves (--root and --roots).`,
		Example: "  sallyport ledger verify --zone /srv/sallyport/inside\n" +
			"  sallyport ledger verify --public ./public --root FINGERPRINT\n" +
			"  sallyport ledger verify --proof entry-3.tlog-proof --log VKEY\n" +
			"  sallyport ledger verify --proof entry-3.tlog-proof --root FINGERPRINT --roots ./public/root --witnesses 1\n" +
			"  sallyport ledger verify --proof growth --old checkpoint-of-last-year --log VKEY",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if proof.file != "" {
				return proof.verify(cmd.Context(), env, &from)
			}
			if proof.old != "" || proof.roots != "" || proof.witnesses != 0 || proof.entry != "" {
				return frame.Usage("--old, --roots, --entry and --witnesses go with --proof")
			}
			l, err := from.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer l.close()
			_, log, key, err := l.unread()
			if err != nil {
				return err
			}
			c := log.Checkpoint()
			if l.zone != nil {
				err = l.zone.Verify(cmd.Context(), nil)
			} else {
				err = log.Verify(store.NotGivenUp(c.Origin, key))
			}
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"origin": c.Origin, "size": c.Size, "root": hex.EncodeToString(c.Root[:])}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s, root %x: good\n", c.Origin, trust.Count(c.Size, "entry"), c.Root[:])
			})
		},
	}
	from.flags(c)
	proof.flags(c)
	return c
}
