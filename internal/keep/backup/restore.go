package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/keep/rebuild"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// RestoreOptions are what putting a backup back needs.
type RestoreOptions struct {
	store.Options
	Ledger   trust.VKey   // the ledger's key, from paper; zero: the one in the backup
	Root     trust.Pinned // the first root's fingerprint, from officers; nil: the backup's own first root is taken at its word
	Keys     string       // a directory with ledger.key and station.key; empty: those in the backup
	Public   string       // the published directory that survived; empty: that of the backup
	Blobs    string       // a directory of blobs (a zone's cas) that survived: those that the backup has not are taken from there; empty: none
	Newest   []string     // what is at hand of the log's newest state: zones, published directories, checkpoints' files
	Roots    [][]byte     // newer roots, in their order
	Orders   [][]byte     // newer orders, in their order
	Progress func(bytes int64, file string)
}

// A Restored says what became of a restore.
type Restored struct {
	*Checked
	Evidence int64 // the largest size of the ledger that is known of; 0: nothing was at hand
	Blobs    int64 // that were taken from what survived
	Rebuilt  bool  // the catalog was made again from the published directory that survived
	Former   bool  // what was put back is signed by a key of the ledger that the newest root at hand does not name: who stole that could have made its end
	Waits    bool  // for officers' orders that name End
	End      ledger.Checkpoint
}

// Restore puts a backup back into a new directory. Package backup says when the zone goes on and when it waits.
func Restore(ctx context.Context, from, to string, opts RestoreOptions) (*Restored, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return nil, err
	}
	if to, err = filepath.Abs(to); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(to); err == nil {
		return nil, fmt.Errorf("%s: %w: a zone is restored into a new directory", to, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tmp, done, err := durable.TempBeside(to, "restore")
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	defer done()
	zone := filepath.Join(tmp, "zone")
	if err := os.Mkdir(zone, 0o755); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	out, err := restoreIn(ctx, from, zone, opts)
	if err != nil {
		return nil, err
	}
	if err := syncAll(zone); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := durable.Rename(durable.OS{}, zone, to); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	return out, nil
}

func restoreIn(ctx context.Context, from, zone string, opts RestoreOptions) (*Restored, error) {
	if err := spaceFor(from, zone); err != nil {
		return nil, err
	}
	m, err := extract(ctx, from, zone, func(string) bool { return true }, opts.Progress)
	if err != nil {
		return nil, err
	}
	for dir, perm := range map[string]fs.FileMode{"keys": 0o700, "lock": 0o755, "tmp": 0o700, "cas": 0o755, "cas/tmp": 0o755, "public": 0o755} {
		path := filepath.Join(zone, filepath.FromSlash(dir))
		if err := errors.Join(os.MkdirAll(path, perm), os.Chmod(path, perm)); err != nil {
			return nil, err
		}
	}
	out := &Restored{}
	if opts.Blobs != "" {
		if out.Blobs, err = blobs(ctx, zone, opts); err != nil {
			return nil, err
		}
	}
	if out.Checked, err = check(ctx, zone, m, opts.Ledger); err != nil {
		return nil, err
	}
	if store, err := cas.Open(filepath.Join(zone, "cas")); err != nil {
		return nil, err
	} else if out.Blobs > 0 {
		out.Lost = slices.DeleteFunc(out.Lost, func(d trust.Digest) bool { _, ok := store.Has(d); return ok })
	}
	hand, err := keysAtHand(zone, opts)
	if err != nil {
		return nil, err
	}
	if err := keys(zone, hand, opts.Keys, opts.Public != ""); err != nil {
		return nil, err
	}
	if opts.Public != "" {
		if err := survived(ctx, zone, m, hand, opts); err != nil {
			return nil, err
		}
	}
	var lost bool
	if out.Evidence, lost, err = newest(zone, hand, opts); err != nil {
		return nil, err
	}
	if opts.Public != "" {
		if _, err := rebuild.Run(ctx, zone, store.ReplaceOptions{Options: opts.Options}); err != nil {
			return nil, err
		}
		out.Rebuilt = true
	} else if out.Evidence == 0 {
		// Nothing at hand says nothing; and who lost a disk does not know what stood on it.
		lost = true
	}
	if out.Former, err = formerKey(zone, hand); err != nil {
		return nil, err
	}
	return out, goOn(ctx, zone, lost || out.Former, hand, opts, out)
}

// spaceFor asks, before anything is copied, whether the backup fits.
func spaceFor(from, zone string) error {
	var need int64
	err := filepath.WalkDir(from, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err == nil {
			need += fi.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(zone, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; need > free {
		return &store.SpaceError{Dir: filepath.Dir(zone), Need: need, Free: free}
	}
	return nil
}

// blobs takes what the backup has not from a directory of blobs that survived. Each is read and hashed; one that rotted is left out.
func blobs(ctx context.Context, zone string, opts RestoreOptions) (taken int64, err error) {
	// A directory that is only looked at: it may lie on a medium that cannot be written.
	to, err := cas.Open(filepath.Join(zone, "cas"))
	if err != nil {
		return 0, err
	}
	err = filepath.WalkDir(opts.Blobs, func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		want, notBlob := trust.ParseDigest(e.Name())
		if notBlob != nil || !e.Type().IsRegular() {
			return nil
		}
		if _, ok := to.Has(want); ok {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		err = to.Put(f, want, fi.Size())
		var rotten *cas.MismatchError
		switch {
		case errors.As(err, &rotten):
			return nil // whoever needs it says that it is missing
		case err == nil:
			taken++
			if opts.Progress != nil {
				opts.Progress(fi.Size(), e.Name())
			}
		}
		return err
	})
	return taken, err
}

// survived puts a published directory in the place of the backup's. The catalog has to be made again from it.
func survived(ctx context.Context, zone string, m *Manifest, hand *atHand, opts RestoreOptions) error {
	files := os.DirFS(opts.Public)
	tiles, err := fs.Sub(files, "ledger")
	if err != nil {
		return err
	}
	log, err := hand.log(tiles)
	if err != nil {
		return err
	}
	if err := log.Contains(m.Checkpoint); err != nil {
		return err
	}
	note, err := ledger.ReadCheckpoint(tiles)
	if err != nil {
		return err
	}
	behind := store.NotBehindChange(log.Checkpoint(), note)
	if err := log.Range(ctx, 0, log.Checkpoint().Size, func(i int64, leaf []byte, _ tlog.Hash) error { return behind(i, leaf) }); err != nil {
		return err
	}
	public := filepath.Join(zone, "public")
	if err := os.RemoveAll(public); err != nil {
		return err
	}
	return os.CopyFS(public, files)
}

// newest looks at all that is at hand of the log. It refuses what is another log, and returns the largest size and whether the zone has less.
func newest(zone string, hand *atHand, opts RestoreOptions) (largest int64, lost bool, err error) {
	log, err := hand.log(os.DirFS(filepath.Join(zone, "public", "ledger")))
	if err != nil {
		return 0, false, err
	}
	here := log.Checkpoint()
	var bad trust.Refusals
	for _, path := range opts.Newest {
		other, files, err := evidence(path, hand)
		if err != nil {
			return 0, false, fmt.Errorf("%s: %w", path, err)
		}
		switch {
		case other.Size <= here.Size:
			err = log.Contains(other)
		case files != nil:
			err = ledger.NewLog(files, other).Contains(here)
		}
		if err := bad.Merge(err); err != nil {
			return 0, false, fmt.Errorf("%s: %w", path, err)
		}
		largest = max(largest, other.Size)
	}
	return largest, largest > here.Size, bad.Err()
}

// evidence reads a checkpoint of the log: a file of one, or a directory that has one, and then the tiles, too.
func evidence(path string, hand *atHand) (ledger.Checkpoint, fs.FS, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return ledger.Checkpoint{}, nil, err
	}
	if !fi.IsDir() {
		note, err := readSmall(path)
		if err != nil {
			return ledger.Checkpoint{}, nil, err
		}
		c, err := hand.open(note)
		return c, nil, err
	}
	// A published ledger, what holds one, or a witness's memory, which has no tiles.
	for _, sub := range []string{".", "ledger", "public/ledger", strings.TrimPrefix(hand.key.Name, "sallyport/")} {
		files := os.DirFS(filepath.Join(path, filepath.FromSlash(sub)))
		if _, err := fs.Stat(files, "checkpoint"); err != nil {
			continue
		}
		log, err := hand.log(files)
		if err != nil {
			return ledger.Checkpoint{}, nil, err
		}
		if _, err := fs.Stat(files, "tile"); err != nil {
			files = nil
		}
		return log.Checkpoint(), files, nil
	}
	return ledger.Checkpoint{}, nil, errors.New("there is no published ledger in it, and no witness's memory of this one")
}

// goOn opens the zone, which waits if entries may be lost, and takes in what officers have signed since.
func goOn(ctx context.Context, zone string, lost bool, hand *atHand, opts RestoreOptions, out *Restored) (err error) {
	if lost {
		log, err := hand.log(os.DirFS(filepath.Join(zone, "public", "ledger")))
		if err != nil {
			return err
		}
		if err := store.MarkRestored(zone, log.Checkpoint()); err != nil {
			return err
		}
	}
	z, err := store.Open(ctx, zone, opts.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	for _, note := range opts.Roots {
		if _, err := z.SetRoot(ctx, note, nil); err != nil {
			return err
		}
	}
	for _, note := range opts.Orders {
		if _, err := z.SetOrders(ctx, note); err != nil {
			return err
		}
	}
	out.End, out.Waits = z.Restored()
	return nil
}
