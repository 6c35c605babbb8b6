package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// A group is what one transaction committed. The publisher need not read it from the catalog again.
type group struct {
	start   int64
	to      ledger.Checkpoint
	note    []byte
	leaves  [][]byte // nil: they are to be read from the catalog
	hashes  []tlog.Hash
	public  []publication
	weight  int        // bytes of leaves that are held
	members []*request // who wait for the publication
}

// statements are prepared on the writing connection.
type statements struct {
	all                []*sql.Stmt
	begin, commit      *sql.Stmt
	rollback           *sql.Stmt
	savepoint, release *sql.Stmt
	rollbackTo         *sql.Stmt
	newest             *sql.Stmt
	entries            [len(rowsAtOnce)]*sql.Stmt
	checkpoint         *sql.Stmt
	public             *sql.Stmt

	cache map[string]*sql.Stmt // of callers' statements, by their text
}

// rowsAtOnce are the numbers of entries that one statement writes.
var rowsAtOnce = [...]int{64, 16, 4, 1}

// maxCached is how many different statements of callers are kept prepared; a program has fewer.
const maxCached = 256

// get prepares a caller's statement, once.
func (s *statements) get(ctx context.Context, conn *sql.Conn, query string) (*sql.Stmt, error) {
	if stmt, ok := s.cache[query]; ok {
		return stmt, nil
	}
	stmt, err := conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if len(s.cache) >= maxCached {
		for q, old := range s.cache {
			old.Close()
			delete(s.cache, q)
			break
		}
	}
	if s.cache == nil {
		s.cache = map[string]*sql.Stmt{}
	}
	s.cache[query] = stmt
	return stmt, nil
}

// A prepared is a statement to prepare and where to keep it.
type prepared struct {
	to    **sql.Stmt
	query string
}

func (s *statements) prepare(ctx context.Context, conn *sql.Conn) error {
	list := []prepared{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.commit, "COMMIT"},
		{&s.rollback, "ROLLBACK"},
		{&s.savepoint, "SAVEPOINT caller"},
		{&s.release, "RELEASE caller"},
		{&s.rollbackTo, "ROLLBACK TO caller"},
		{&s.newest, "SELECT size, time, (SELECT value FROM setting WHERE name = 'key/checkpoint'), (SELECT value FROM setting WHERE name = 'key/statement') FROM checkpoint ORDER BY size DESC LIMIT 1"},
		{&s.checkpoint, "INSERT INTO checkpoint (size, note, time) VALUES (?,?,?)"},
		{&s.public, "INSERT INTO public (path, size, data, blob) VALUES (?,?,?,?) ON CONFLICT (path) DO UPDATE SET size = excluded.size, data = excluded.data, blob = excluded.blob"},
	}
	for i, rows := range rowsAtOnce {
		list = append(list, prepared{&s.entries[i], "INSERT INTO entry (idx, hashes, leaf) VALUES (?,?,?)" + strings.Repeat(",(?,?,?)", rows-1)})
	}
	for _, p := range list {
		stmt, err := conn.PrepareContext(ctx, p.query)
		if err != nil {
			return fmt.Errorf("%s: %w", p.query, err)
		}
		*p.to = stmt
		s.all = append(s.all, stmt)
	}
	return nil
}

func (s *statements) close() {
	for _, stmt := range s.all {
		stmt.Close()
	}
	for _, stmt := range s.cache {
		stmt.Close()
	}
}

// write is the goroutine that owns the writing connection.
func (z *Zone) write() {
	defer close(z.committed)
	defer close(z.writerDone)
	for {
		select {
		case <-z.closing:
			for {
				select {
				case r := <-z.queue:
					r.done <- ErrClosed
				default:
					return
				}
			}
		case r := <-z.queue:
			z.group(r)
		}
	}
}

// group commits first and everybody who waits behind it.
func (z *Zone) group(first *request) {
	ctx := context.Background()
	if z.behind.Load() {
		// What was committed before is not published yet; before more is added, that must work.
		if err := z.publish(ctx, nil); err != nil {
			first.done <- fmt.Errorf("nothing was done: what was committed before cannot be published: %w", err)
			return
		}
	}
	if _, err := z.statements.begin.ExecContext(ctx); err != nil {
		if isBusy(err) {
			err = fmt.Errorf("another process has been writing for %d s: %w", busyTimeout/1000, err)
		}
		first.done <- fmt.Errorf("catalog: %w", err)
		return
	}
	var members []*request
	abort := func(err error) {
		z.statements.rollback.ExecContext(ctx) // an error here means there is no transaction any more
		for _, r := range members {
			r.done <- err
		}
	}
	g, err := z.newGrowth(ctx)
	if err != nil {
		members = append(members, first)
		abort(fmt.Errorf("catalog: %w", err))
		return
	}
	start := time.Now()
	weight := 0 // bytes of leaves
	for r := first; r != nil; r = z.waiting(g, len(members), weight, start) {
		before := len(g.batch.Leaves())
		undone, err := z.turn(ctx, r, g)
		if err != nil {
			members = append(members, r)
			abort(fmt.Errorf("catalog: the transaction was rolled back: %w", err))
			return
		}
		if undone != nil {
			r.done <- undone
			continue
		}
		members = append(members, r)
		for _, leaf := range g.batch.Leaves()[before:] {
			weight += len(leaf)
		}
	}
	if len(members) == 0 {
		abort(nil)
		return
	}
	to, note, err := z.flush(ctx, g)
	if err != nil {
		abort(err)
		return
	}
	if err := z.sqlCommit(ctx); err != nil {
		if !z.isCommitted(ctx, to.Size, note) {
			// Failed. Should it be done after all and come to light after a crash, it is a whole
			// transaction with its own checkpoint, and the next opening publishes it.
			abort(fmt.Errorf("catalog: commit: %w", err))
			return
		}
		z.log.Warn("a commit reported an error but was done", "size", to.Size, "error", err)
		z.statements.rollback.ExecContext(ctx) // of whatever the connection still believes to be open
	}
	if note == nil {
		for _, r := range members {
			r.done <- nil
		}
		return
	}
	if g.keys != z.ring() {
		z.keys.Store(g.keys)
		z.unsettled.Store(true)
	}
	z.grown(g, to, note, weight, members)
}

// grown hands a group that stands to the publisher, and answers those who do not wait for that.
func (z *Zone) grown(g *growth, to ledger.Checkpoint, note []byte, weight int, members []*request) {
	var err error
	if z.batch, err = g.batch.Next(); err != nil {
		z.batch = nil // it is read from the catalog next time
	}
	z.recorded.Store(to.Size)
	_, hashes := g.batch.Hashes()
	out := group{start: g.batch.Start(), to: to, note: note, public: g.public}
	if z.pending.Add(int64(weight)) <= maxPendingBytes {
		out.leaves, out.hashes, out.weight = g.batch.Leaves(), hashes, weight
	} else {
		z.pending.Add(-int64(weight))
	}
	var early []*request
	for _, r := range members {
		if r.how.early {
			early = append(early, r)
		} else {
			out.members = append(out.members, r)
		}
	}
	// First to the publisher: whoever is answered may ask it at once whether he is published.
	z.committed <- out
	for _, r := range early {
		r.done <- nil
	}
}

// waiting returns the next caller who waits already, if the group may have him: a change of the ledger's key is the last deed of its group.
func (z *Zone) waiting(g *growth, members, weight int, start time.Time) *request {
	if g.leaving != nil || members >= maxGroup || weight >= maxGroupBytes || time.Since(start) > maxGroupTime {
		return nil
	}
	select {
	case r := <-z.queue:
		return r
	default:
		return nil
	}
}

// A growth is what a transaction adds.
type growth struct {
	batch  *ledger.Batch
	public []publication
	newest time.Time // of the station's entries

	keys    *keyring
	leaving *trust.Key // of the ledger: the one that signs the group's checkpoint for the last time
}

// newGrowth begins where the ledger ends.
func (z *Zone) newGrowth(ctx context.Context) (*growth, error) {
	var size int64
	var date string
	var log, station sql.NullString
	if err := z.statements.newest.QueryRowContext(ctx).Scan(&size, &date, &log, &station); err != nil {
		return nil, err
	}
	// Another process may have changed the zone's keys.
	err := z.fresh(ctx, z.catalog.writer, log.String, station.String)
	if err != nil {
		return nil, err
	}
	g := &growth{batch: z.batch, keys: z.ring()}
	if g.newest, err = parseNewest(date); err != nil {
		return nil, err
	}
	// The hashes at the tree's edge are in memory unless another process has added to it.
	if g.batch == nil || g.batch.Size() != size {
		g.batch = ledger.NewBatch(size, hashReader{ctx, z.catalog.writer})
	}
	z.batch = nil // only a group that stands is built upon
	return g, nil
}

// turn lets one caller do his part. undone says why his part does not stand; err that the transaction is gone.
func (z *Zone) turn(ctx context.Context, r *request, g *growth) (undone, err error) {
	tx := &Tx{z: z, growth: g, mark: g.batch.Size(), ceremony: r.how.ceremony}
	tx.setTime(z.clock())
	newest, keys, leaving := g.newest, g.keys, g.leaving
	select {
	case r.turn <- tx:
		undone = <-r.over
		if undone == nil {
			undone = tx.err
		}
		if undone == nil && len(tx.publish) > 0 && g.batch.Size() == tx.mark {
			undone = errors.New("a transaction that publishes files must append an entry")
		}
		tx.over = true
	case <-r.ctx.Done():
		undone = r.ctx.Err()
	}
	if undone != nil {
		g.batch.Cut(tx.mark)
		g.newest, g.keys, g.leaving = newest, keys, leaving
		if tx.saved {
			if _, err := z.statements.rollbackTo.ExecContext(ctx); err != nil {
				return nil, errors.Join(undone, err)
			}
		}
	}
	// This fails, too, if SQLite has rolled back the whole transaction on its own, as it does when the disk is full.
	if tx.saved {
		if _, err := z.statements.release.ExecContext(ctx); err != nil {
			return nil, errors.Join(undone, err)
		}
	}
	if undone == nil {
		for _, p := range tx.publish {
			p.size = g.batch.Size()
			g.public = append(g.public, p)
		}
	}
	return undone, nil
}

// flush writes what the group added to the ledger, and its checkpoint. Without a note nothing was added.
func (z *Zone) flush(ctx context.Context, g *growth) (c ledger.Checkpoint, note []byte, err error) {
	if g.batch.Size() == g.batch.Start() {
		return c, nil, nil
	}
	_, hashes := g.batch.Hashes()
	if err := z.statements.insert(ctx, g.batch.Start(), g.batch.Leaves(), hashes); err != nil {
		return c, nil, fmt.Errorf("catalog: %w", err)
	}
	if c, err = g.batch.Checkpoint(z.Origin()); err != nil {
		return c, nil, fmt.Errorf("catalog: %w", err)
	}
	if note, err = ledger.SignCheckpoint(c, g.keys.log, g.leaving); err != nil {
		return c, nil, err
	}
	if _, err := z.statements.checkpoint.ExecContext(ctx, c.Size, note, formatNewest(g.newest)); err != nil {
		return c, nil, fmt.Errorf("catalog: %w", err)
	}
	for _, p := range g.public {
		var data, blob any
		if p.blob != "" {
			blob = p.blob
		} else {
			data = p.data
		}
		if _, err := z.statements.public.ExecContext(ctx, p.path, p.size, data, blob); err != nil {
			return c, nil, fmt.Errorf("catalog: %w", err)
		}
	}
	return c, note, nil
}

// insert writes entries: leaves and, of each, the hashes that storage order puts behind it.
func (s *statements) insert(ctx context.Context, first int64, leaves [][]byte, hashes []tlog.Hash) error {
	args := make([]any, 0, 3*rowsAtOnce[0])
	for k, rows := range rowsAtOnce {
		for len(leaves) >= rows {
			args = args[:0]
			for i := range rows {
				n := hashesBehind(first)
				args = append(args, first, joinHashes(hashes[:n]), leaves[i])
				hashes = hashes[n:]
				first++
			}
			leaves = leaves[rows:]
			if _, err := s.entries[k].ExecContext(ctx, args...); err != nil {
				return err
			}
		}
	}
	return nil
}

// hashesBehind is how many hashes storage order puts behind a leaf: its own, and one for each perfect subtree that it completes.
func hashesBehind(leaf int64) int { return bits.TrailingZeros64(^uint64(leaf)) + 1 }

func joinHashes(hashes []tlog.Hash) []byte {
	b := make([]byte, 0, len(hashes)*tlog.HashSize)
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// isCommitted asks, after COMMIT reported an error, whether it was done all the
// same. A group without entries leaves no mark that would tell; it counts as failed.
func (z *Zone) isCommitted(ctx context.Context, size int64, note []byte) bool {
	if note == nil {
		return false
	}
	// Through another connection: the writer's would see its own unfinished transaction.
	var got []byte
	err := z.catalog.readers.QueryRowContext(ctx, "SELECT note FROM checkpoint WHERE size = ?", size).Scan(&got)
	return err == nil && bytes.Equal(got, note)
}

// hashReader reads stored hashes. The row of leaf i holds those that storage order puts behind it: the hash of level L and number n stands with
// the leaf that completes its subtree, ((n+1)<<L)-1, in the place L.
type hashReader struct {
	ctx context.Context
	q   Querier
}

// maxIn is how many indexes stand in one statement.
const maxIn = 256

func (r hashReader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for from := 0; from < len(indexes); from += maxIn {
		part := indexes[from:min(from+maxIn, len(indexes))]
		if err := r.read(part, out[from:]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r hashReader) read(indexes []int64, out []tlog.Hash) error {
	type place struct{ level, at int }
	places := make(map[int64][]place, len(indexes))
	args := make([]any, 0, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		leaf := (n+1)<<level - 1
		if len(places[leaf]) == 0 {
			args = append(args, leaf)
		}
		places[leaf] = append(places[leaf], place{level, i})
	}
	query := "SELECT idx, hashes FROM entry WHERE idx IN (?" + strings.Repeat(",?", len(args)-1) + ")"
	rows, err := r.q.QueryContext(r.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var leaf int64
		var h sql.RawBytes
		if err := rows.Scan(&leaf, &h); err != nil {
			return err
		}
		if len(h) != hashesBehind(leaf)*tlog.HashSize {
			return trust.Refuse("ledger-corrupt", "catalog", "the hashes of entry %d have %d bytes", leaf, len(h))
		}
		for _, p := range places[leaf] {
			out[p.at] = tlog.Hash(h[p.level*tlog.HashSize:][:tlog.HashSize])
		}
		found++
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if found != len(args) {
		return trust.Refuse("ledger-corrupt", "catalog", "%d of the hashes around %d are missing", len(args)-found, indexes[0])
	}
	return nil
}
