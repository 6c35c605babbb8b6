package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// MaxLag is how long what was recorded may wait to be published while nobody waits for it. A publication costs
// several syncs of the disk whatever its size; gathering makes them few, and leaves the disk to those who commit.
const MaxLag = 50 * time.Millisecond

// A wait is one caller of Published.
type wait struct {
	size int64
	done chan error // buffered, so that nobody waits for a caller who has left
}

// work is what the publisher has before it.
type work struct {
	groups []group
	waits  []wait
	size   int64 // of the ledger that is to be published
}

func (w *work) add(g group) {
	w.groups = append(w.groups, g)
	w.size = g.to.Size
}

// urgent says whether somebody waits.
func (w *work) urgent() bool {
	if len(w.waits) > 0 || len(w.groups) >= maxPending/2 {
		return true
	}
	held := 0
	for _, g := range w.groups {
		held += g.weight
		if len(g.members) > 0 {
			return true
		}
	}
	return held >= maxPendingBytes/2
}

// publishAll is the goroutine that publishes what has been committed, in its
// order, and answers those who wait for it. While it writes files the next
// groups are already being committed; it takes all of them at once.
func (z *Zone) publishAll() {
	defer close(z.publDone)
	for open := true; open; {
		var w work
		select {
		case g, more := <-z.committed:
			if open = more; more {
				w.add(g)
			}
		case a := <-z.waits:
			w.waits = append(w.waits, a)
		}
		if open {
			open = z.gather(&w)
		}
		if len(w.groups) > 0 || len(w.waits) > 0 || z.recorded.Load() > z.public.Load() {
			z.publishWork(&w)
		}
	}
}

// gather takes whatever is there, and goes on for MaxLag while nobody waits. It returns false when nothing more will come.
func (z *Zone) gather(w *work) bool {
	lag := time.NewTimer(MaxLag)
	defer lag.Stop()
	for {
		select {
		case g, more := <-z.committed:
			if !more {
				return false
			}
			w.add(g)
			continue
		case a := <-z.waits:
			w.waits = append(w.waits, a)
			continue
		default:
		}
		if w.urgent() {
			return true
		}
		select {
		case g, more := <-z.committed:
			if !more {
				return false
			}
			w.add(g)
		case a := <-z.waits:
			w.waits = append(w.waits, a)
		case <-lag.C:
			return true
		case <-z.closing:
			// The writer ends, too, and closes committed behind its last group.
			for g := range z.committed {
				w.add(g)
			}
			return false
		}
	}
}

func (z *Zone) publishWork(w *work) {
	err := z.publish(context.Background(), w.groups)
	if err != nil {
		z.log.Error("the ledger cannot be published", "size", w.size, "error", err)
	} else if z.unsettled.Swap(false) {
		// Before anybody is answered: who hears that the key has changed can take the former one to be gone.
		if err := z.settleKeys(); err != nil {
			z.log.Warn("the zone's new key lies under the name of one that is to come; the next opening mends that", "error", err)
		}
	}
	for _, g := range w.groups {
		z.pending.Add(-int64(g.weight))
		answer := err
		if err != nil {
			answer = &UnpublishedError{g.to.Size, err}
		}
		for _, r := range g.members {
			r.done <- answer
		}
	}
	for _, a := range w.waits {
		if err != nil && z.public.Load() < a.size {
			a.done <- &UnpublishedError{a.size, err}
		} else {
			a.done <- nil
		}
	}
}

// Published waits until all that this process has recorded ([Zone.Record]) before the call is published. It is asked before
// anything that was recorded has an effect outside of the zone: before a slip is printed, before a file is handed out.
func (z *Zone) Published(ctx context.Context) error {
	size := z.recorded.Load()
	if size <= z.public.Load() {
		return nil
	}
	a := wait{size, make(chan error, 1)}
	select {
	case z.waits <- a:
	case <-ctx.Done():
		return ctx.Err()
	case <-z.publDone:
		return z.leftBehind()
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// leftBehind says whether the zone was closed with something unpublished.
func (z *Zone) leftBehind() error {
	if size := z.recorded.Load(); size > z.public.Load() {
		return &UnpublishedError{size, ErrClosed}
	}
	return nil
}

// recover checks that catalog and published ledger are one log, and publishes what is missing.
func (z *Zone) recover(ctx context.Context, republish [][]byte) error {
	unlock, err := z.lockPublish()
	if err != nil {
		return err
	}
	defer unlock()
	// Published before catalog, here and in publish: whatever is published has been committed
	// before, so a catalog read later that is behind has been put back.
	public, err := z.readPublished()
	missing := errors.Is(err, fs.ErrNotExist)
	if missing {
		if republish == nil {
			return trust.Refuse("ledger-missing", z.checkpointPath(), "nothing is published although the ledger was").
				WithHint("put the public directory back; if it is lost, 'ledger republish' publishes it anew, with a checkpoint that a witness has seen")
		}
		public = published{at: ledger.Checkpoint{Origin: z.Origin(), Root: ledger.EmptyRoot()}}
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
	if err := z.checkGrowth(ctx, public.at, c); err != nil {
		return err
	}
	if missing {
		if err := z.mayRepublish(ctx, republish, c); err != nil {
			return err
		}
	}
	return z.publishFrom(ctx, public, c, note)
}

// mayRepublish compares the catalog with what others have seen of the ledger.
func (z *Zone) mayRepublish(ctx context.Context, seen [][]byte, c ledger.Checkpoint) error {
	var bad trust.Refusals
	for _, note := range seen {
		at, err := z.OpenCheckpoint(note)
		if err == nil {
			err = z.checkGrowth(ctx, at, c)
		}
		if err := bad.Merge(err); err != nil {
			return err
		}
	}
	if len(seen) > 0 || len(bad) > 0 {
		return bad.Err()
	}
	if err := durable.WriteAll(z.calls, filepath.Join(z.Dir, tmpDir), durable.File{Path: filepath.Join(z.Dir, restoredFile), Data: c.Text(), Perm: 0o644}); err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	z.limbo.Store(&c)
	return nil
}

// publish makes what is published equal to what has been committed. groups is what this process has committed since it published last, if anything.
func (z *Zone) publish(ctx context.Context, groups []group) error {
	err := z.publishOnce(ctx, groups)
	z.behind.Store(err != nil)
	return err
}

func (z *Zone) publishOnce(ctx context.Context, groups []group) error {
	unlock, err := z.lockPublish()
	if err != nil {
		return err
	}
	defer unlock()
	public, err := z.readPublished()
	if err != nil {
		return err
	}
	if ok, err := z.publishGroups(ctx, public, groups); ok || err != nil {
		return err
	}
	c, note, err := z.committedCheckpoint(ctx, z.catalog.readers)
	if err != nil {
		return err
	}
	if err := z.checkGrowth(ctx, public.at, c); err != nil {
		return err
	}
	return z.publishFrom(ctx, public, c, note)
}

// publishGroups publishes what this process has just committed, from memory. It does not if other processes' entries lie in between, or
// if some were not kept: then the catalog is read.
func (z *Zone) publishGroups(ctx context.Context, public published, groups []group) (bool, error) {
	front := z.front
	z.front = nil // only what was published whole is gone on from
	for len(groups) > 0 && groups[0].to.Size <= public.at.Size {
		groups = groups[1:] // another process has published it
	}
	// What is published must be what this process saw and compared with the catalog.
	if len(groups) == 0 || !public.same {
		return false, nil
	}
	at := public.at.Size
	for _, g := range groups {
		if g.start != at || g.leaves == nil {
			return false, nil
		}
		at = g.to.Size
	}
	if front == nil || front.Size() != public.at.Size {
		var err error
		if front, err = ledger.NewFront(public.at.Size, func(t tlog.Tile) ([]byte, error) { return z.tileData(ctx, t) }); err != nil {
			return false, err
		}
	}
	var leaves [][]byte
	var hashes []tlog.Hash
	latest := map[string]publication{}
	for _, g := range groups {
		leaves, hashes = append(leaves, g.leaves...), append(hashes, g.hashes...)
		for _, p := range g.public {
			latest[p.path] = p
		}
	}
	files := make([]durable.File, 0, len(latest))
	for _, p := range latest {
		f, err := z.publicFile(p)
		if err != nil {
			return false, err
		}
		files = append(files, f)
	}
	tiles, err := front.Append(leaves, hashes)
	if err != nil {
		return false, err
	}
	for len(tiles) > publishAtOnce {
		portion, err := z.tileFiles(tiles[:publishAtOnce])
		if err != nil {
			return false, err
		}
		if err := z.writeFiles(portion...); err != nil {
			return false, fmt.Errorf("publish: %w", err)
		}
		tiles = tiles[publishAtOnce:]
	}
	portion, err := z.tileFiles(tiles)
	if err != nil {
		return false, err
	}
	to := groups[len(groups)-1]
	if err := z.writeCheckpoint(to.to, to.note, append(files, portion...)...); err != nil {
		return false, err
	}
	z.front = front
	z.dropPartial(public.at.Size, to.to.Size)
	return true, nil
}

// writeCheckpoint writes the last files of a step, and when they are durable the checkpoint that stands for all of them.
func (z *Zone) writeCheckpoint(c ledger.Checkpoint, note []byte, files ...durable.File) error {
	last := durable.File{Path: z.checkpointPath(), Data: note, Perm: 0o644}
	if err := durable.WriteThen(z.calls, filepath.Join(z.Dir, tmpDir), last, files...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	z.seen = published{c, note, true}
	z.public.Store(c.Size)
	return nil
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

// A Stamp tells one published checkpoint from the next: each is a new file. Stamps are compared, and say nothing else.
type Stamp struct {
	inode uint64
	size  int64
	mtime time.Time
}

// Stamp looks at the checkpoint that is published, without reading it: who serves asks before every answer.
func (z *Zone) Stamp() (Stamp, error) {
	st, err := os.Stat(z.checkpointPath())
	if err != nil {
		return Stamp{}, err
	}
	s := Stamp{size: st.Size(), mtime: st.ModTime()}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s, nil
}

// published is the checkpoint that is published.
type published struct {
	at   ledger.Checkpoint
	note []byte
	same bool // as this process saw it last, and compared with the catalog
}

// readPublished reads the published checkpoint.
func (z *Zone) readPublished() (published, error) {
	b, err := ledger.ReadCheckpoint(z.LedgerFS())
	if err != nil {
		return published{}, fmt.Errorf("published checkpoint: %w", err)
	}
	if z.seen.same && bytes.Equal(b, z.seen.note) {
		return z.seen, nil
	}
	c, err := z.OpenCheckpoint(b)
	if err != nil {
		return published{}, fmt.Errorf("published checkpoint: %w", err)
	}
	return published{c, b, false}, nil
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
	c, err := z.OpenCheckpoint(note)
	if err != nil {
		return ledger.Checkpoint{}, nil, fmt.Errorf("catalog: %w", err)
	}
	return c, note, nil
}

// checkTree checks that the catalog's hashes make up its own checkpoint and
// that entries and hashes are as many as it says.
func (z *Zone) checkTree(ctx context.Context, c ledger.Checkpoint) error {
	// One statement, so that all is seen at one moment; another process may be committing.
	var entries, size sql.NullInt64
	err := z.catalog.readers.QueryRowContext(ctx, `SELECT (SELECT max(idx) FROM entry), (SELECT max(size) FROM checkpoint)`).Scan(&entries, &size)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if !entries.Valid {
		entries.Int64 = -1
	}
	if entries.Int64+1 != size.Int64 {
		return trust.Refuse("ledger-corrupt", "catalog", "its checkpoint has size %d, but it holds %d entries", size.Int64, entries.Int64+1)
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

// publishFrom publishes the step from one checkpoint to another, from the catalog. The lock is held, and what is published was found to be contained in the catalog.
//
// Everything but the checkpoint may be there already, from a run that was
// ended: the same bytes, since they follow from what was committed. Other bytes
// mean that something else was committed once: a fork.
func (z *Zone) publishFrom(ctx context.Context, public published, c ledger.Checkpoint, note []byte) error {
	if public.at.Size == c.Size && public.note != nil {
		public.same = true
		z.seen = public
		z.public.Store(c.Size)
		return nil
	}
	// What belongs to the deeds of this step, so that it is there when the checkpoint is.
	files, err := z.pendingPublic(ctx, public.at.Size, c.Size)
	if err != nil {
		return err
	}
	if err := z.writeFiles(files...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	// In portions, so that a long way is not held in memory at once.
	for tiles := range slices.Chunk(ledger.NewTiles(public.at.Size, c.Size), publishAtOnce) {
		list := make([]ledger.TileFile, len(tiles))
		for i, t := range tiles {
			data, err := z.tileData(ctx, t)
			if err != nil {
				return fmt.Errorf("publish: %w", err)
			}
			list[i] = ledger.TileFile{Tile: t, Data: data}
		}
		portion, err := z.tileFiles(list)
		if err != nil {
			return err
		}
		if err := z.writeFiles(portion...); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	if err := z.writeCheckpoint(c, note); err != nil {
		return err
	}
	z.dropPartial(public.at.Size, c.Size)
	return nil
}

// publishAtOnce is how many tiles are held in memory.
const publishAtOnce = 64

// tileFiles says where tiles are to be written. One that is there with other bytes is a fork.
func (z *Zone) tileFiles(tiles []ledger.TileFile) ([]durable.File, error) {
	base := filepath.Join(z.Dir, publicDir, ledgerDir)
	files := make([]durable.File, len(tiles))
	for i, t := range tiles {
		path := filepath.Join(base, filepath.FromSlash(ledger.Path(t.Tile)))
		there, same, err := sameBytes(path, t.Data)
		if err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
		if there && !same {
			return nil, trust.Refuse("ledger-fork", z.Origin(), "%s is published with other bytes than the catalog has", ledger.Path(t.Tile)).
				WithHint("keep both as evidence and tell the security officer")
		}
		// Also if it is there: whoever wrote it may have died before it was durable.
		files[i] = durable.File{Path: path, Data: t.Data, Perm: 0o644}
	}
	return files, nil
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
	return readLeaves(ctx, z.catalog.readers, first, n)
}

func readLeaves(ctx context.Context, q Querier, first int64, n int) ([][]byte, error) {
	rows, err := q.QueryContext(ctx, "SELECT idx, leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", first, first+int64(n))
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
		f, err := z.publicFile(publication{path: rel, data: data, blob: blob.String})
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return files, nil
}

// publicFile is a file of Tx.Publish, ready to be written.
func (z *Zone) publicFile(p publication) (durable.File, error) {
	path, err := z.publicPath(p.path)
	if err != nil {
		return durable.File{}, err
	}
	if p.blob != "" {
		d, err := trust.ParseDigest(p.blob)
		if err != nil {
			return durable.File{}, fmt.Errorf("catalog: public/%s: %w", p.path, err)
		}
		if p.data, err = z.CAS.ReadAll(d, MaxPublic); err != nil {
			return durable.File{}, fmt.Errorf("public/%s: %w", p.path, err)
		}
	}
	return durable.File{Path: path, Data: p.data, Perm: 0o644}, nil
}

// dropPartial removes the partial tiles whose full ones have just been
// published. They are of no more use, and what stays after a crash does no harm.
func (z *Zone) dropPartial(from, to int64) {
	base := filepath.Join(z.Dir, publicDir, ledgerDir)
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
	c, err := z.OpenCheckpoint(b)
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
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT idx, hashes FROM entry WHERE idx < ? ORDER BY idx", c.Size)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	var last [64][2]tlog.Hash // for each level the hashes with even and with odd number
	for leaf := int64(0); rows.Next() && !bad.Full(); leaf++ {
		var x int64
		var h sql.RawBytes
		if err := rows.Scan(&x, &h); err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		if x != leaf || len(h) != hashesBehind(leaf)*tlog.HashSize {
			bad.Add(trust.Refuse("ledger-hash", fmt.Sprintf("catalog: hashes of entry %d", leaf), "they are missing or malformed"))
			return nil
		}
		for level := 0; len(h) > 0; level++ {
			got, n := tlog.Hash(h[:tlog.HashSize]), leaf>>level
			h = h[tlog.HashSize:]
			if level > 0 {
				want := tlog.NodeHash(last[level-1][0], last[level-1][1])
				if got != want {
					bad.Add(trust.Refuse("ledger-hash", fmt.Sprintf("catalog: hashes of entry %d", leaf), "level %d, number %d is not made of the two below it", level, n))
					got = want
				}
			}
			last[level][n&1] = got
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return nil
}
