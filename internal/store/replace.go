package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/internal/store/cas"
	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Replacement is a new catalog in the making. It holds the ledger as it is
// published, and nothing else yet.
type Replacement struct {
	Config Config
	CAS    *cas.Store
	Public fs.FS                                        // the public directory
	At     ledger.Checkpoint                            // the tree that the catalog holds
	Open   func(note []byte) (ledger.Checkpoint, error) // verifies a checkpoint of the ledger

	conn     *sql.Conn
	progress func(done, total int64)
}

// Exec runs a statement on the new catalog.
func (r *Replacement) Exec(ctx context.Context, query string, args ...any) error {
	if _, err := r.conn.ExecContext(ctx, query, args...); err != nil {
		return fmt.Errorf("new catalog: %w", err)
	}
	return nil
}

// Read reads the new catalog.
func (r *Replacement) Read() Querier { return r.conn }

// Entries visits every entry in its order.
func (r *Replacement) Entries(ctx context.Context, visit func(index int64, leaf []byte) error) error {
	// In portions, so that visit can write between them.
	for next := int64(0); next < r.At.Size; {
		leaves, err := readLeaves(ctx, r.conn, next, int(min(ledger.TileWidth, r.At.Size-next)))
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := visit(next, leaf); err != nil {
				return err
			}
			next++
		}
		r.progress(r.At.Size+next, 2*r.At.Size)
	}
	return nil
}

// ReplaceOptions are what replacing a catalog needs.
type ReplaceOptions struct {
	Options
	Progress func(done, total int64) // may be nil; in entries, each counted twice
}

// A Replaced says what became of a catalog.
type Replaced struct {
	From  ledger.Checkpoint // the published ledger that the new one was made of
	Aside string            // where the former catalog is kept; empty if there was none
	Fault error             // why the former catalog could not be used; nil if it could
}

// Replace puts a new catalog in the place of a zone's: the published ledger, verified
// as a whole, and the rows that fill makes of it. That is an entry of the ledger
// ("rebuilt"). Nobody may have the zone open: else it is a [*LockedError].
//
// What had been committed and not published is published first, if the former
// catalog still works. Where it does not, such deeds are lost: they have had no effect.
//
// The new catalog is made in tmp and takes its place by one rename. Whoever is
// killed before leaves the former one, whoever is killed afterwards the new; both ways
// the same call can be made again. The former one is kept aside under another name.
func Replace(ctx context.Context, dir string, opts ReplaceOptions, fill func(ctx context.Context, r *Replacement) error) (*Replaced, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	use, err := lockCatalog(dir)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	out := &Replaced{}
	z, err := open(ctx, dir, opts.Options, openHow{locked: true})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		out.Fault = err
	}
	// A zone without its catalog: what is needed of one, and no more.
	if z, err = newZone(dir, opts.Options); err != nil {
		return nil, err
	}
	defer z.release()
	if _, err := os.Lstat(filepath.Join(dir, restoredFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(err, errors.New("the zone was put back from a backup and waits for officers' orders; only then its catalog can be made again"))
	}
	public, err := z.readPublished()
	if err != nil {
		return nil, err
	}
	out.From = public.at
	tmp, remove, err := z.Scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	path := filepath.Join(tmp, catalogFile)
	if err := z.makeCatalog(ctx, path, public, opts.Progress, fill); err != nil {
		return nil, err
	}
	if out.Aside, err = swapCatalog(dir, path); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	// From here on the new one counts. It is opened once, which publishes the entry.
	if z, err = open(ctx, dir, opts.Options, openHow{locked: true}); err != nil {
		return nil, err
	}
	return out, z.Close()
}

// lockCatalog is useCatalog for whoever wants the catalog alone, with words for a zone that is not there.
func lockCatalog(dir string) (*os.File, error) {
	if _, err := os.Stat(filepath.Join(dir, configFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoZone)
	}
	return useCatalog(dir, syscall.LOCK_EX)
}

// makeCatalog makes a whole catalog at path, durable, with the entry that says so.
func (z *Zone) makeCatalog(ctx context.Context, path string, public published, progress func(done, total int64), fill func(ctx context.Context, r *Replacement) error) (err error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	db, err := openAlone(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("new catalog: %w", err)
	}
	defer conn.Close()
	exec := func(query string, args ...any) error {
		if _, err := conn.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("new catalog: %w", err)
		}
		return nil
	}
	for _, query := range []string{schema, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion), "BEGIN"} {
		if err := exec(query); err != nil {
			return err
		}
	}
	var s statements
	defer s.close()
	if err := s.prepare(ctx, conn); err != nil {
		return err
	}
	batch, newest, err := z.copyLedger(ctx, &s, public.at, progress)
	if err != nil {
		return err
	}
	// By the keys that the ledger, as far as it was replayed, says that it had.
	opens := func(note []byte) (ledger.Checkpoint, error) {
		ring, err := z.loadKeys(ctx, conn)
		if err != nil {
			return ledger.Checkpoint{}, err
		}
		c, _, err := ring.open(note, z.Origin())
		return c, err
	}
	r := &Replacement{Config: z.Config, CAS: z.CAS, Public: z.PublicFS(), At: public.at, Open: opens, conn: conn, progress: progress}
	if err := fill(ctx, r); err != nil {
		return err
	}
	if err := exec("INSERT INTO checkpoint (size, note, time) VALUES (?, ?, ?)", public.at.Size, public.note, formatNewest(newest)); err != nil {
		return err
	}
	// The ledger says which keys the zone has now.
	ring, err := z.loadKeys(ctx, conn)
	if err != nil {
		return err
	}
	// The entry, as tx.Statement would make it.
	g := &growth{batch: batch, newest: newest, keys: ring}
	tx := &Tx{z: z, growth: g}
	tx.setTime(z.clock())
	if err := tx.Statement(statement.KindRebuilt, []statement.Subject{{Name: z.Origin(), SHA256: trust.Digest(public.at.Root)}}, map[string]any{"size": public.at.Size}); err != nil {
		return err
	}
	c, err := batch.Checkpoint(z.Origin())
	if err != nil {
		return err
	}
	_, hashes := batch.Hashes()
	if err := s.insert(ctx, batch.Start(), batch.Leaves(), hashes); err != nil {
		return fmt.Errorf("new catalog: %w", err)
	}
	note, err := ledger.SignCheckpoint(c, ring.log)
	if err != nil {
		return err
	}
	if err := exec("INSERT INTO checkpoint (size, note, time) VALUES (?, ?, ?)", c.Size, note, formatNewest(g.newest)); err != nil {
		return err
	}
	if err := exec("COMMIT"); err != nil {
		return err
	}
	return finish(ctx, conn)
}

// copyLedger writes the published entries, all of them verified, and returns the batch on top of them and the time of the newest that the station made.
func (z *Zone) copyLedger(ctx context.Context, s *statements, at ledger.Checkpoint, progress func(done, total int64)) (*ledger.Batch, time.Time, error) {
	var newest time.Time
	batch := ledger.NewBatch(0, nil)
	flush := func() error {
		_, hashes := batch.Hashes()
		if err := s.insert(ctx, batch.Start(), batch.Leaves(), hashes); err != nil {
			return fmt.Errorf("new catalog: %w", err)
		}
		progress(batch.Size(), 2*at.Size)
		next, err := batch.Next()
		batch = next
		return err
	}
	err := ledger.NewLog(z.LedgerFS(), at).Verify(func(i int64, leaf []byte) error {
		if _, err := batch.Append(leaf); err != nil {
			return err
		}
		if t, ok := stationTime(leaf); ok && t.After(newest) {
			newest = t
		}
		if batch.Size()-batch.Start() < maxGroup {
			return nil
		}
		return errors.Join(ctx.Err(), flush())
	})
	if err == nil {
		err = flush()
	}
	return batch, newest, err
}

// stationTime is the time of an entry that a station made.
func stationTime(leaf []byte) (time.Time, bool) {
	e, err := statement.ParseEnvelope(leaf)
	if err != nil {
		return time.Time{}, false
	}
	if !strings.HasPrefix(e.KeyID(), trust.Station+"/") {
		return time.Time{}, false
	}
	s := e.Unverified()
	text, _ := s.Predicate["time"].(string)
	t, err := trust.ParseDate(text)
	return t, err == nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// swapCatalog gives the file at path the catalog's name, and keeps the former one.
func swapCatalog(dir, path string) (aside string, err error) {
	if err := syncFile(path); err != nil {
		return "", err
	}
	name := filepath.Join(dir, catalogFile)
	for n := 1; ; n++ {
		aside = fmt.Sprintf("%s.%d", name, n)
		err := os.Link(name, aside)
		if errors.Is(err, fs.ErrNotExist) {
			aside = "" // there is none
		} else if errors.Is(err, fs.ErrExist) {
			continue
		} else if err != nil {
			return "", err
		}
		break
	}
	// A write-ahead log is there only if the former catalog did not close well. It must not meet the new one.
	for _, suffix := range []string{"-wal", "-shm"} {
		var err error
		if aside != "" {
			err = os.Rename(name+suffix, aside+suffix)
		} else {
			err = os.Remove(name + suffix)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if err := durable.SyncDir(durable.OS{}, dir); err != nil {
		return "", err
	}
	return aside, durable.Rename(durable.OS{}, path, name)
}
