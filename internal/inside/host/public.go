package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"syscall"

	"sallyport/guix/storepath"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Names in a public directory.
const (
	publicRoot      = "root"
	publicAllowlist = "allowlist"
	publicOrders    = "orders"
	publicLedger    = "ledger"
)

// Public is a copy of the public directory of the enclave's zone. Its ledger is read whole: so no builder's word is held back, and no document
// is older than the newest that came into force.
type Public struct {
	dir      *os.Root
	Progress func(entries int64, note string)
	votes    map[string][][]byte // by base name of the derivation
	makers   map[string][]string // derivations by base name of what builders say they make
}

// OpenPublic opens a copy.
func OpenPublic(dir string) (*Public, error) {
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &Public{dir: r}, nil
}

// Close closes the directory.
func (p *Public) Close() error { return p.dir.Close() }

// regular opens regular files below a root, and waits for no pipe.
type regular struct{ root *os.Root }

func (r regular) Open(name string) (fs.File, error) {
	f, err := r.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (p *Public) read(limit int64, parts ...string) ([]byte, error) {
	name := path.Join(parts...)
	f, err := regular{p.dir}.Open(name)
	if err != nil {
		return nil, fmt.Errorf("public directory: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("public directory: %s: more than %d bytes", name, limit)
	}
	return data, err
}

// newest returns the highest number that is a name in a directory; 0 if there is none.
func (p *Public) newest(dir string) (int64, error) {
	list, err := fs.ReadDir(p.dir.FS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("public directory: %w", err)
	}
	var high int64
	for _, e := range list {
		if n, err := trust.ParseNumber(e.Name(), 1<<53); err == nil {
			high = max(high, n)
		}
	}
	return high, nil
}

// Newest is part of [Source].
func (p *Public) Newest(context.Context) (Newest, error) {
	n := Newest{Tracks: map[string]int64{}}
	var err error
	if n.Root, err = p.newest(publicRoot); err != nil {
		return n, err
	}
	if n.Root == 0 {
		return n, errors.New("no root in the public directory; is it the directory `public` of the enclave's zone?")
	}
	if n.Orders, err = p.newest(publicOrders); err != nil {
		return n, err
	}
	tracks, err := fs.ReadDir(p.dir.FS(), publicAllowlist)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("public directory: %w", err)
	}
	for _, t := range tracks {
		if trust.CheckWord(t.Name()) != nil {
			continue
		}
		if n.Tracks[t.Name()], err = p.newest(path.Join(publicAllowlist, t.Name())); err != nil {
			return n, err
		}
	}
	return n, nil
}

// Root is part of [Source].
func (p *Public) Root(_ context.Context, version int64) ([]byte, error) {
	return p.read(maxRootNote, publicRoot, strconv.FormatInt(version, 10))
}

// Allowlist is part of [Source].
func (p *Public) Allowlist(_ context.Context, track string, version int64) ([]byte, error) {
	return p.read(maxAllowlistNote, publicAllowlist, track, strconv.FormatInt(version, 10))
}

// Orders is part of [Source].
func (p *Public) Orders(_ context.Context, version int64) ([]byte, error) {
	return p.read(maxOrdersNote, publicOrders, strconv.FormatInt(version, 10))
}

// Opened reads the ledger, every entry, under a checkpoint that a key of the root signed; no entry may give that key up before the end.
func (p *Public) Opened(ctx context.Context, root *trust.Root) (*Known, error) {
	sub, err := p.dir.OpenRoot(publicLedger)
	if err != nil {
		return nil, fmt.Errorf("public directory: %w: the ledger has the builders' word, and belongs to the copy", err)
	}
	defer sub.Close()
	files := regular{sub}
	msg, err := ledger.ReadCheckpoint(files)
	if err != nil {
		return nil, err
	}
	at, err := openCheckpoint(msg, root)
	if err != nil {
		return nil, err
	}
	known := &Known{Lists: map[string]trust.Digest{}}
	p.votes, p.makers = map[string][][]byte{}, map[string][]string{}
	behind := store.NotBehindChange(at, msg)
	err = ledger.NewLog(files, at).Verify(func(index int64, leaf []byte) error {
		if index%1024 == 0 {
			if p.Progress != nil {
				p.Progress(index, "ledger")
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := behind(index, leaf); err != nil {
			return err
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil {
			return nil // the auditor's business: nothing follows from it
		}
		switch s := e.Unverified(); s.Kind {
		case statement.KindRoot:
			known.Root = last(s)
		case statement.KindAllowed:
			track, _ := s.Predicate["track"].(string)
			known.Lists[track] = last(s)
		case statement.KindOrdered:
			known.Orders = last(s)
		case statement.KindBuilt:
			drv, _ := s.Predicate["derivation"].(string)
			d, err := storepath.Parse(drv)
			if err != nil {
				break
			}
			p.votes[d.Base()] = append(p.votes[d.Base()], append([]byte(nil), leaf...))
			for _, sub := range s.Subjects {
				if o, err := storepath.Parse(sub.Name); err == nil {
					p.makers[o.Base()] = append(p.makers[o.Base()], d.Base())
				}
			}
		}
		return nil
	})
	return known, err
}

// last is the digest of what a statement is about.
func last(s statement.Statement) trust.Digest {
	if len(s.Subjects) == 0 {
		return trust.Digest{}
	}
	return s.Subjects[len(s.Subjects)-1].SHA256
}

// openCheckpoint opens the checkpoint of the inside zone's ledger with one of the keys that the root names for it.
func openCheckpoint(msg []byte, root *trust.Root) (ledger.Checkpoint, error) {
	origin := trust.Origin(root.Enclave, "inside")
	keys := root.CheckpointKeys(origin)
	if len(keys) == 0 {
		return ledger.Checkpoint{}, trust.Refuse("checkpoint-key", origin, "the root names no key for this ledger")
	}
	var errs []error
	for _, k := range keys {
		c, err := ledger.OpenCheckpoint(msg, origin, k)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return ledger.Checkpoint{}, errors.Join(errs...)
}

// Evidence is part of [Source].
func (p *Public) Evidence(_ context.Context, derivation string) ([][]byte, error) {
	return p.votes[derivation], nil
}

// Derivation is part of [Source]. A public directory has none.
func (p *Public) Derivation(context.Context, trust.Item) ([]byte, error) { return nil, fs.ErrNotExist }

// Makers is part of [Source].
func (p *Public) Makers(item string) []string { return p.makers[item] }
