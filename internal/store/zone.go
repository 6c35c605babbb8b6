package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/internal/store/cas"
	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Files and directories of a zone.
const (
	configFile  = "zone.toml"
	casDir      = "cas"
	keysDir     = "keys"
	lockDir     = "lock"
	tmpDir      = "tmp"
	publicDir   = "public"
	ledgerDir   = "ledger" // below public
	publishLock = "publish"
	catalogLock = "catalog" // shared by whoever has the zone open
)

// ErrClosed is returned by a zone that has been closed.
var ErrClosed = errors.New("the zone is closed")

// ErrNoZone is returned, wrapped, by Open where there is no zone.
var ErrNoZone = errors.New("there is no zone here; `sallyport init --kind KIND DIR` makes one")

// Options are what a zone needs from outside.
type Options struct {
	Clock func() time.Time // nil: time.Now
	Rand  io.Reader        // kept for those who make keys; may be nil
	Log   *slog.Logger     // nil: nothing is logged
	Calls durable.Calls    // nil: the operating system's
	// Republish publishes anew a ledger of which nothing is published any more. It has the checkpoints that others have seen, all of which the
	// catalog must contain; if it is empty and not nil, nothing is known of others, and the zone waits for officers' orders.
	// Without it that is refused: whoever lost the published copy may also have
	// put back an old catalog, and only the copy could tell.
	Republish [][]byte
}

// A Zone is an open zone. Its methods may be used by several goroutines.
type Zone struct {
	Dir    string
	Config Config
	CAS    *cas.Store

	clock   func() time.Time
	log     *slog.Logger
	calls   durable.Calls
	catalog *catalog
	keys    atomic.Pointer[keyring]

	// The writer takes requests from queue, commits them in groups and passes
	// the groups to the publisher.
	queue      chan *request
	committed  chan group
	waits      chan wait
	closing    chan struct{}
	closeOnce  sync.Once
	closeErr   error
	writerDone chan struct{}
	publDone   chan struct{}
	sqlCommit  func(ctx context.Context) error // COMMIT; the tests put a failing one here
	statements statements
	batch      *ledger.Batch // of the writer: empty, on top of the last group; nil if that is not known
	recorded   atomic.Int64  // size of the ledger with what this process committed last
	public     atomic.Int64  // size of the ledger that this process saw published
	pending    atomic.Int64  // bytes of leaves that wait in memory to be published
	behind     atomic.Bool   // publishing has failed
	unsettled  atomic.Bool   // a key has changed whose files still have the names of one that is to come

	limbo atomic.Pointer[ledger.Checkpoint] // not nil: put back from a backup that ended there, waiting for officers' orders

	useFile     *os.File // lock/catalog
	publishMu   sync.Mutex
	publishFile *os.File      // lock/publish
	seen        published     // the checkpoint that was seen published last
	front       *ledger.Front // the edge of the published tree; nil if it is not known

	rootMu sync.Mutex
	root   *trust.Root // the newest that was read and verified
}

// Init makes a zone. dir must not exist; it appears with everything in it or
// not at all: it is made beside its place and renamed.
func Init(dir string, cfg Config, clock func() time.Time, rand io.Reader) error {
	text := cfg.Text()
	cfg, err := ParseConfig(text)
	if err != nil {
		return err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("init: %s: %w", dir, fs.ErrExist)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("init: %w", err)
	}
	tmp, done, err := durable.TempBeside(dir, "init")
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	defer done() // nothing is left there once it is renamed
	if err := initIn(tmp, cfg, text, clock, rand); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	// Not over an empty directory that appeared meanwhile: rename(2) would take it away in silence, os.Rename does not.
	if err := durable.Rename(durable.OS{}, tmp, dir); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	return nil
}

func initIn(dir string, cfg Config, text []byte, clock func() time.Time, rand io.Reader) error {
	ctx := context.Background()
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for _, d := range []string{keysDir, lockDir, tmpDir, publicDir} {
		perm := fs.FileMode(0o755)
		if d == keysDir || d == tmpDir {
			perm = 0o700
		}
		if err := os.Mkdir(filepath.Join(dir, d), perm); err != nil {
			return err
		}
	}
	if err := cas.Create(filepath.Join(dir, casDir)); err != nil {
		return err
	}
	files := []durable.File{{Path: filepath.Join(dir, configFile), Data: text, Perm: 0o644}}
	var log *trust.Key
	for k, name := range map[zoneKey]string{logKey: cfg.Origin(), talkKey: trust.Station + "/" + string(trust.ContextStatement)} {
		key, err := trust.GenerateKey(rand, name)
		if err != nil {
			return err
		}
		secret, err := key.Marshal(rand, nil)
		if err != nil {
			return err
		}
		files = append(files,
			durable.File{Path: filepath.Join(dir, keysDir, k.secret()), Data: secret, Perm: 0o600},
			durable.File{Path: filepath.Join(dir, keysDir, k.public()), Data: []byte(key.VKey().String() + "\n"), Perm: 0o644})
		if k == logKey {
			log = key
		}
	}
	if err := createCatalog(ctx, dir); err != nil {
		return err
	}
	empty, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: cfg.Origin(), Root: ledger.EmptyRoot()}, log)
	if err != nil {
		return err
	}
	files = append(files, durable.File{Path: filepath.Join(dir, publicDir, ledgerDir, "checkpoint"), Data: empty, Perm: 0o644})
	if err := durable.WriteAll(durable.OS{}, filepath.Join(dir, tmpDir), files...); err != nil {
		return err
	}
	if err := durable.SyncDir(durable.OS{}, dir); err != nil {
		return err
	}
	z, err := open(ctx, dir, Options{Clock: clock, Rand: rand}, openHow{first: empty})
	if err != nil {
		return err
	}
	err = z.Commit(ctx, func(tx *Tx) error {
		return tx.Statement(statement.KindCreated,
			[]statement.Subject{{Name: cfg.Origin(), SHA256: trust.Sum(text)}},
			map[string]any{"enclave": cfg.Enclave, "kind": cfg.Kind})
	})
	return errors.Join(err, z.Close())
}

// Open opens a zone, publishes what was committed before a crash, and removes
// the temporary files of dead processes.
func Open(ctx context.Context, dir string, opts Options) (*Zone, error) {
	return open(ctx, dir, opts, openHow{})
}

// openHow tells apart the ways to open a zone.
type openHow struct {
	first  []byte // the checkpoint of the empty tree, while the zone is being made
	locked bool   // the caller has the catalog's lock alone
}

// newZone reads what a zone has beside its catalog. It takes no lock.
func newZone(dir string, opts Options) (*Zone, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := readBounded(filepath.Join(dir, configFile), MaxConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoZone)
	}
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	z := &Zone{
		Dir: dir, clock: opts.Clock, log: opts.Log, calls: opts.Calls,
		queue: make(chan *request, maxGroup), committed: make(chan group, maxPending), waits: make(chan wait),
		closing: make(chan struct{}), writerDone: make(chan struct{}), publDone: make(chan struct{}),
	}
	if z.clock == nil {
		z.clock = time.Now
	}
	if z.log == nil {
		z.log = slog.New(slog.DiscardHandler)
	}
	if z.calls == nil {
		z.calls = durable.OS{}
	}
	if z.Config, err = ParseConfig(text); err != nil {
		return nil, err
	}
	ring, err := z.loadKeys(context.Background(), nil)
	if err != nil {
		return nil, err
	}
	z.keys.Store(ring)
	// The origin is in every entry: kind and enclave do not change.
	if ring.log.Name() != z.Config.Origin() {
		return nil, fmt.Errorf("zone: zone.toml says %s, but the ledger is %s: kind and enclave are fixed when a zone is made", z.Config.Origin(), ring.log.Name())
	}
	z.CAS, err = cas.OpenCalls(filepath.Join(dir, casDir), z.calls)
	return z, err
}

// open is Open in one of its ways.
func open(ctx context.Context, dir string, opts Options, how openHow) (_ *Zone, err error) {
	z, err := newZone(dir, opts)
	if err != nil {
		return nil, err
	}
	dir = z.Dir
	defer func() {
		if err != nil {
			z.release()
		}
	}()
	if !how.locked {
		if z.useFile, err = useCatalog(dir, syscall.LOCK_SH); err != nil {
			return nil, err
		}
	}
	if z.publishFile, err = os.OpenFile(filepath.Join(dir, lockDir, publishLock), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	if z.catalog, err = openCatalog(ctx, dir); err != nil {
		return nil, err
	}
	ring, err := z.loadKeys(ctx, z.catalog.readers)
	if err != nil {
		return nil, err
	}
	z.keys.Store(ring)
	z.sqlCommit = func(ctx context.Context) error {
		_, err := z.statements.commit.ExecContext(ctx)
		return err
	}
	if err := z.statements.prepare(ctx, z.catalog.writer); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if how.first != nil {
		if _, err := z.catalog.writer.ExecContext(ctx, "INSERT INTO checkpoint (size, note, time) VALUES (0, ?, '')", how.first); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
	}
	if err := z.readRestored(ctx); err != nil {
		return nil, err
	}
	if err := z.recover(ctx, opts.Republish); err != nil {
		return nil, err
	}
	if err := z.settleKeys(); err != nil {
		return nil, err
	}
	if err := z.CAS.SweepTemp(); err != nil {
		return nil, err
	}
	if err := durable.SweepTemp(z.calls, filepath.Join(dir, tmpDir)); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	if err := z.publishWitnesses(ctx); err != nil {
		return nil, err
	}
	go z.write()
	go z.publishAll()
	return z, nil
}

func readKey(path string) (*trust.Key, error) {
	data, err := readBounded(path, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	return trust.ParseKey(data, nil)
}

// readBounded reads a file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return b, nil
}

// Close ends the zone's work: what waits for a commit is answered with
// ErrClosed, what has been committed is published; if that fails the error is an
// [*UnpublishedError]. It may be called twice.
func (z *Zone) Close() error {
	z.closeOnce.Do(func() {
		close(z.closing)
		<-z.publDone
		z.closeErr = errors.Join(z.leftBehind(), z.release())
	})
	return z.closeErr
}

// release closes what open opened.
func (z *Zone) release() error {
	var errs []error
	z.statements.close()
	if z.catalog != nil {
		errs = append(errs, z.catalog.close())
	}
	for _, f := range []*os.File{z.publishFile, z.useFile} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Read returns the pool of readers. Each query sees what was committed when it began.
func (z *Zone) Read(context.Context) Querier { return z.catalog.readers }

// Now is the zone's clock.
func (z *Zone) Now() time.Time { return z.clock() }

// Origin is the name of the zone's ledger.
func (z *Zone) Origin() string { return z.Config.Origin() }

// LedgerVKey is the key that checkpoints are verified with, and StationVKey that of the zone's own statements. Both may have had predecessors:
// [Zone.OpenCheckpoint] knows those of the ledger.
func (z *Zone) LedgerVKey() trust.VKey { return z.ring().log.VKey() }

// StationVKey is the key that the zone's own statements are verified with.
func (z *Zone) StationVKey() trust.VKey { return z.ring().station.VKey() }

// Scratch makes a directory for temporary files on the zone's file system.
// Whoever dies with it leaves it to the next Open.
func (z *Zone) Scratch() (dir string, remove func(), err error) {
	for range 100 {
		dir, err = os.MkdirTemp(filepath.Join(z.Dir, tmpDir), "scratch-")
		if err != nil {
			return "", nil, fmt.Errorf("zone: %w", err)
		}
		f, err := os.Open(dir)
		if err != nil {
			continue // swept before it was locked
		}
		if durable.Lock(f, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
			f.Close()
			continue
		}
		if _, err := os.Lstat(dir); err != nil {
			f.Close()
			continue
		}
		return dir, sync.OnceFunc(func() {
			if err := durable.RemoveAll(dir); err != nil {
				z.log.Warn("scratch directory stays", "dir", dir, "error", err)
			}
			f.Close()
		}), nil
	}
	return "", nil, errors.New("zone: no scratch directory to be had; is tmp swept in a loop?")
}
