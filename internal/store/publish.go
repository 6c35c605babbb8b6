package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// publishAll is the goroutine that publishes what has been committed and
// answers those who wait for it. While it writes files the next group is
// already being committed.
func (z *Zone) publishAll() {
	defer close(z.publDone)
	for g := range z.committed {
		groups := []group{g}
	more:
		for {
			select {
			case g, ok := <-z.committed:
				if !ok {
					break more
				}
				groups = append(groups, g)
			default:
				break more
			}
		}
		err := z.publish(context.Background())
		if err != nil {
			z.log.Error("the ledger cannot be published", "size", groups[len(groups)-1].size, "error", err)
		}
		for _, g := range groups {
			answer := err
			if err != nil {
				answer = &UnpublishedError{g.size, err}
			}
			for _, r := range g.members {
				r.done <- answer
			}
		}
	}
}

// recover checks that catalog and published ledger are one log, and publishes what is missing.
func (z *Zone) recover(ctx context.Context, republish bool) error {
	unlock, err := z.lockPublish()
	if err != nil {
		return err
	}
	defer unlock()
	// Published before catalog, here and in publish: whatever is published has been committed
	// before, so a catalog read later that is behind has been put back.
	public, err := z.readPublished()
	if errors.Is(err, fs.ErrNotExist) {
		if !republish {
			return trust.Refuse("ledger-missing", z.checkpointPath(), "nothing is published although the ledger was").
				WithHint("put the public directory back; if it is lost, compare the catalog with a witness's checkpoint before publishing it anew")
		}
		public = ledger.Checkpoint{Origin: z.Origin(), Root: ledger.EmptyRoot()}
	} else if err != nil {
		return err
	}
	c, note, err := z.committedCheckpoint(ctx, z.catalog.readers)
	if err != nil {
		return err
	}
	if err := z.checkTree(ctx, c); err != nil {
		return err
	}
	if err := z.checkGrowth(ctx, public, c); err != nil {
		return err
	}
	return z.publishFrom(ctx, public, c, note)
}

// publish makes what is published equal to what has been committed.
func (z *Zone) publish(ctx context.Context) error {
	err := z.publishOnce(ctx)
	z.behind.Store(err != nil)
	return err
}

func (z *Zone) publishOnce(ctx context.Context) error {
	unlock, err := z.lockPublish()
	if err != nil {
		return err
	}
	defer unlock()
	public, err := z.readPublished()
	if err != nil {
		return err
	}
	c, note, err := z.committedCheckpoint(ctx, z.catalog.readers)
	if err != nil {
		return err
	}
	if err := z.checkGrowth(ctx, public, c); err != nil {
		return err
	}
	return z.publishFrom(ctx, public, c, note)
}

// lockPublish excludes all other publishers, in this process and in others.
func (z *Zone) lockPublish() (unlock func(), err error) {
	z.publishMu.Lock()
	if err := durable.Lock(z.publishFile, syscall.LOCK_EX); err != nil {
		z.publishMu.Unlock()
		return nil, fmt.Errorf("lock %s: %w", publishLock, err)
	}
	return func() {
		durable.Lock(z.publishFile, syscall.LOCK_UN)
		z.publishMu.Unlock()
	}, nil
}

func (z *Zone) checkpointPath() string {
	return filepath.Join(z.Dir, publicDir, ledgerDir, "checkpoint")
}

// readPublished reads the published checkpoint.
func (z *Zone) readPublished() (ledger.Checkpoint, error) {
	b, err := ledger.ReadCheckpoint(z.LedgerFS())
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("published checkpoint: %w", err)
	}
	c, err := ledger.OpenCheckpoint(b, z.Origin(), z.key.VKey())
	if err != nil {
		return ledger.Checkpoint{}, fmt.Errorf("published checkpoint: %w", err)
	}
	z.published = b
	return c, nil
}

// committedCheckpoint reads the newest checkpoint of the catalog.
func (z *Zone) committedCheckpoint(ctx context.Context, q Querier) (ledger.Checkpoint, []byte, error) {
	var note []byte
	if err := q.QueryRowContext(ctx, "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").Scan(&note); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return ledger.Checkpoint{}, nil, trust.Refuse("ledger-corrupt", "catalog", "it has no checkpoint")
		}
		return ledger.Checkpoint{}, nil, fmt.Errorf("catalog: %w", err)
	}
	c, err := ledger.OpenCheckpoint(note, z.Origin(), z.key.VKey())
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("catalog: %w", err)
	}
	return c, note, nil
}

// checkTree checks that the catalog's hashes make up its own checkpoint and
// that entries and hashes are as many as it says.
func (z *Zone) checkTree(ctx context.Context, c ledger.Checkpoint) error {
	// One statement, so that all is seen at one moment; another process may be committing.
	var entries, hashes, size sql.NullInt64
	err := z.catalog.readers.QueryRowContext(ctx, `SELECT (SELECT max(idx) FROM entry), (SELECT max(idx) FROM hash), (SELECT max(size) FROM checkpoint)`).Scan(&entries, &hashes, &size)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if !entries.Valid {
		entries.Int64 = -1
	}
	if !hashes.Valid {
		hashes.Int64 = -1
	}
	if entries.Int64+1 != size.Int64 || hashes.Int64+1 != tlog.StoredHashCount(size.Int64) {
		return trust.Refuse("ledger-corrupt", "catalog", "its checkpoint has size %d, but it holds %d entries and %d hashes", size.Int64, entries.Int64+1, hashes.Int64+1)
	}
	at, err := ledger.At(z.Origin(), c.Size, hashReader{ctx, z.catalog.readers})
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if at.Root != c.Root {
		return trust.Refuse("ledger-corrupt", "catalog", "its hashes do not make up its checkpoint of size %d", c.Size)
	}
	return nil
}

// checkGrowth checks that the catalog's tree contains the published one.
func (z *Zone) checkGrowth(ctx context.Context, public, c ledger.Checkpoint) error {
	if public.Size > c.Size {
		return trust.Refuse("ledger-rollback", z.Origin(), "size %d is published, the catalog has only %d: it was put back from an old copy", public.Size, c.Size).
			WithHint("do not delete what is published; restore the newest catalog, or rebuild it from the published ledger")
	}
	at, err := ledger.At(z.Origin(), public.Size, hashReader{ctx, z.catalog.readers})
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if at.Root != public.Root {
		return trust.Refuse("ledger-fork", z.Origin(), "the catalog does not contain the tree of size %d that is published: the log was forked", public.Size).
			WithHint("keep both as evidence and tell the security officer")
	}
	return nil
}

// publishFrom publishes the step from one checkpoint to another. The lock is held.
//
// Everything but the checkpoint may be there already, from a run that was
// ended: the same bytes, since they follow from what was committed. Other bytes
// mean that something else was committed once: a fork.
func (z *Zone) publishFrom(ctx context.Context, public, c ledger.Checkpoint, note []byte) error {
	if public.Size == c.Size && len(z.published) > 0 {
		return nil
	}
	base := filepath.Join(z.Dir, publicDir, ledgerDir)
	// What belongs to the deeds of this step, so that it is there when the checkpoint is.
	files, err := z.pendingPublic(ctx, public.Size, c.Size)
	if err != nil {
		return err
	}
	if err := z.writeFiles(files...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	tiles := ledger.NewTiles(public.Size, c.Size)
	// In portions, so that a long way is not held in memory at once.
	for len(tiles) > 0 {
		n := min(len(tiles), publishAtOnce)
		if err := z.publishTiles(ctx, base, tiles[:n]); err != nil {
			return err
		}
		tiles = tiles[n:]
	}
	if err := z.writeFiles(durable.File{Path: z.checkpointPath(), Data: note, Perm: 0o644}); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	z.published = note
	z.dropPartial(base, public.Size, c.Size)
	return nil
}

// publishAtOnce is how many tiles are held in memory.
const publishAtOnce = 64

func (z *Zone) publishTiles(ctx context.Context, base string, tiles []tlog.Tile) error {
	var files []durable.File
	for _, t := range tiles {
		data, err := z.tileData(ctx, t)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		path := filepath.Join(base, filepath.FromSlash(ledger.Path(t)))
		there, same, err := sameBytes(path, data)
		if err != nil {
			return fmt.Errorf("publish: %w", err)
		}
		if there && !same {
			return trust.Refuse("ledger-fork", z.Origin(), "%s is published with other bytes than the catalog has", ledger.Path(t)).
				WithHint("keep both as evidence and tell the security officer")
		}
		// Also if it is there: whoever wrote it may have died before it was durable.
		files = append(files, durable.File{Path: path, Data: data, Perm: 0o644})
	}
	if err := z.writeFiles(files...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// tileData makes a tile or an entry bundle from the catalog.
func (z *Zone) tileData(ctx context.Context, t tlog.Tile) ([]byte, error) {
	if t.L >= 0 {
		return tlog.ReadTileData(t, hashReader{ctx, z.catalog.readers})
	}
	leaves, err := z.leaves(ctx, t.N*ledger.TileWidth, t.W)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, leaf := range leaves {
		size += 2 + len(leaf)
	}
	bundle := make([]byte, 0, size)
	for _, leaf := range leaves {
		bundle = ledger.AppendEntry(bundle, leaf)
	}
	return bundle, nil
}

// leaves reads n entries from the catalog.
func (z *Zone) leaves(ctx context.Context, first int64, n int) ([][]byte, error) {
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT idx, leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", first, first+int64(n))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	leaves := make([][]byte, 0, n)
	for rows.Next() {
		var i int64
		var leaf []byte
		if err := rows.Scan(&i, &leaf); err != nil {
			return nil, err
		}
		if i != first+int64(len(leaves)) || ledger.CheckLeaf(leaf) != nil {
			break
		}
		leaves = append(leaves, leaf)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(leaves) != n {
		return nil, trust.Refuse("ledger-corrupt", "catalog", "entry %d is missing or has no possible length", first+int64(len(leaves)))
	}
	return leaves, nil
}

// pendingPublic collects the files of Tx.Publish that belong to a step.
func (z *Zone) pendingPublic(ctx context.Context, from, to int64) ([]durable.File, error) {
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT path, data, blob FROM public WHERE size > ? AND size <= ? ORDER BY path", from, to)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	var files []durable.File
	for rows.Next() {
		var rel string
		var data []byte
		var blob sql.NullString
		if err := rows.Scan(&rel, &data, &blob); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		path, err := z.publicPath(rel)
		if err != nil {
			return nil, err
		}
		if blob.Valid {
			d, err := trust.ParseDigest(blob.String)
			if err != nil {
				return nil, fmt.Errorf("catalog: public/%s: %w", rel, err)
			}
			if data, err = z.CAS.ReadAll(d, MaxPublic); err != nil {
				return nil, fmt.Errorf("public/%s: %w", rel, err)
			}
		}
		files = append(files, durable.File{Path: path, Data: data, Perm: 0o644})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return files, nil
}

// dropPartial removes the partial tiles whose full ones have just been
// published. They are of no more use, and what stays after a crash does no harm.
func (z *Zone) dropPartial(base string, from, to int64) {
	for _, t := range ledger.NewTiles(from, to) {
		if t.W < ledger.TileWidth {
			continue
		}
		dir := filepath.Join(base, filepath.FromSlash(ledger.Path(t))) + ".p"
		if err := os.RemoveAll(dir); err != nil {
			z.log.Warn("partial tiles stay", "dir", dir, "error", err)
		}
	}
}

// Checkpoint reads the published checkpoint: the signed note, and what it says.
func (z *Zone) Checkpoint() ([]byte, ledger.Checkpoint, error) {
	b, err := ledger.ReadCheckpoint(z.LedgerFS())
	if err != nil {
		return nil, ledger.Checkpoint{}, fmt.Errorf("published checkpoint: %w", err)
	}
	c, err := ledger.OpenCheckpoint(b, z.Origin(), z.key.VKey())
	return b, c, err
}

// Log reads the published ledger at its present checkpoint.
func (z *Zone) Log() (*ledger.Log, error) {
	_, c, err := z.Checkpoint()
	if err != nil {
		return nil, err
	}
	return ledger.NewLog(z.LedgerFS(), c), nil
}

// Entry reads one entry from the catalog.
func (z *Zone) Entry(ctx context.Context, index int64) ([]byte, error) {
	leaves, err := z.leaves(ctx, index, 1)
	if err != nil {
		return nil, err
	}
	return leaves[0], nil
}

// Verify recomputes the whole ledger from the catalog's entries and compares
// every hash in the catalog and every published file with it. All that is wrong
// comes back as [trust.Refusals]: ledger-entry, ledger-hash, ledger-tile. visit,
// if not nil, is given every entry in order.
func (z *Zone) Verify(ctx context.Context, visit func(index int64, leaf []byte) error) error {
	// What is published, not what is committed: another process may be about to publish.
	_, c, err := z.Checkpoint()
	if err != nil {
		return err
	}
	var bad trust.Refusals
	// The published files against themselves and their checkpoint,
	log := ledger.NewLog(z.LedgerFS(), c)
	if err := bad.Merge(log.Verify(nil)); err != nil {
		return err
	}
	// the catalog's entries against its hashes and the published root,
	err = ledger.VerifyTree(c,
		func(n int64, w int) ([][]byte, error) { return z.leaves(ctx, n*ledger.TileWidth, w) },
		func(t tlog.Tile) ([]byte, error) { return tlog.ReadTileData(t, hashReader{ctx, z.catalog.readers}) },
		visit)
	if err := mergeCatalog(&bad, err); err != nil {
		return err
	}
	// and the inner hashes that no tile shows: those between the levels of tiles.
	if err := z.verifyInner(ctx, c, &bad); err != nil {
		return err
	}
	return bad.Err()
}

// mergeCatalog adds refusals of the catalog, with words that tell them from those of published files.
func mergeCatalog(bad *trust.Refusals, err error) error {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	for _, r := range rs {
		c := *r
		if c.Code == "ledger-tile" {
			c.Code = "ledger-hash"
		}
		if c.Subject != "catalog" {
			c.Subject = "catalog: " + c.Subject
		}
		bad.Add(&c)
	}
	return nil
}

// verifyInner checks each stored inner hash against the two below it.
func (z *Zone) verifyInner(ctx context.Context, c ledger.Checkpoint, bad *trust.Refusals) error {
	// In storage order every hash stands behind those below it, so one pass
	// with the last hash of each level is enough.
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT idx, h FROM hash WHERE idx < ? ORDER BY idx", tlog.StoredHashCount(c.Size))
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	var last [64][2]tlog.Hash // for each level the hashes with even and with odd number
	var next int64
	level, n := 0, int64(0) // of the next hash
	var leaf int64
	for rows.Next() && !bad.Full() {
		var x int64
		var h sql.RawBytes
		if err := rows.Scan(&x, &h); err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		if x != next || len(h) != tlog.HashSize {
			bad.Add(trust.Refuse("ledger-hash", fmt.Sprintf("catalog: hash %d", next), "it is missing or malformed"))
			return nil
		}
		got := tlog.Hash(h)
		if level > 0 {
			want := tlog.NodeHash(last[level-1][0], last[level-1][1])
			if got != want {
				bad.Add(trust.Refuse("ledger-hash", fmt.Sprintf("catalog: hash %d", x), "level %d, number %d is not made of the two below it", level, n))
				got = want
			}
		}
		last[level][n&1] = got
		next++
		if n&1 == 1 {
			level, n = level+1, n/2
		} else {
			leaf++
			level, n = 0, leaf
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}
