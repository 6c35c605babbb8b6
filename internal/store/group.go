package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// A group is what one transaction committed.
type group struct {
	size    int64
	members []*request
}

// statements are prepared on the writing connection.
type statements struct {
	all                     []*sql.Stmt
	begin, rollback         *sql.Stmt
	savepoint, release      *sql.Stmt
	rollbackTo              *sql.Stmt
	size                    *sql.Stmt
	entries, hashes         *sql.Stmt // rowsAtOnce rows
	entry, hash, checkpoint *sql.Stmt
	public                  *sql.Stmt

	cache map[string]*sql.Stmt // of callers' statements, by their text
}

const (
	rowsAtOnce = 64
	// maxCached is how many different statements of callers are kept prepared; a program has fewer.
	maxCached = 256
)

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

func (s *statements) prepare(ctx context.Context, conn *sql.Conn) error {
	many := func(head, row string) string {
		return head + row + string(bytes.Repeat([]byte(","+row), rowsAtOnce-1))
	}
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&s.begin, "BEGIN IMMEDIATE"},
		{&s.rollback, "ROLLBACK"},
		{&s.savepoint, "SAVEPOINT caller"},
		{&s.release, "RELEASE caller"},
		{&s.rollbackTo, "ROLLBACK TO caller"},
		{&s.size, "SELECT size FROM checkpoint ORDER BY size DESC LIMIT 1"},
		{&s.entries, many("INSERT INTO entry (idx, leaf) VALUES ", "(?,?)")},
		{&s.hashes, many("INSERT INTO hash (idx, h) VALUES ", "(?,?)")},
		{&s.entry, "INSERT INTO entry (idx, leaf) VALUES (?,?)"},
		{&s.hash, "INSERT INTO hash (idx, h) VALUES (?,?)"},
		{&s.checkpoint, "INSERT INTO checkpoint (size, note) VALUES (?,?)"},
		{&s.public, "INSERT INTO public (path, size, data, blob) VALUES (?,?,?,?) ON CONFLICT (path) DO UPDATE SET size = excluded.size, data = excluded.data, blob = excluded.blob"},
	} {
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
		if err := z.publish(ctx); err != nil {
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
	var size int64
	if err := z.statements.size.QueryRowContext(ctx).Scan(&size); err != nil {
		members = append(members, first)
		abort(fmt.Errorf("catalog: %w", err))
		return
	}
	batch := ledger.NewBatch(size, hashReader{ctx, z.catalog.writer})
	start := time.Now()
	weight := 0 // bytes of leaves
	var public []publication
	for r := first; r != nil; r = z.waiting(len(members), weight, start) {
		before := len(batch.Leaves())
		ok, err := z.turn(ctx, r, batch, &public)
		if err != nil {
			members = append(members, r)
			abort(fmt.Errorf("catalog: the transaction was rolled back: %w", err))
			return
		}
		if !ok {
			continue
		}
		members = append(members, r)
		for _, leaf := range batch.Leaves()[before:] {
			weight += len(leaf)
		}
	}
	if len(members) == 0 {
		abort(nil)
		return
	}
	note, err := z.flush(ctx, batch, public)
	if err != nil {
		abort(err)
		return
	}
	if err := z.sqlCommit(ctx); err != nil {
		if !z.isCommitted(ctx, batch, note) {
			// Failed. Should it be done after all and come to light after a crash, it is a whole
			// transaction with its own checkpoint, and the next opening publishes it.
			abort(fmt.Errorf("catalog: commit: %w", err))
			return
		}
		z.log.Warn("a commit reported an error but was done", "size", batch.Size(), "error", err)
		z.statements.rollback.ExecContext(ctx) // of whatever the connection still believes to be open
	}
	if batch.Size() == batch.Start() {
		for _, r := range members {
			r.done <- nil
		}
		return
	}
	z.committed <- group{batch.Size(), members}
}

// waiting returns the next caller who waits already, if the group may have him.
func (z *Zone) waiting(members, weight int, start time.Time) *request {
	if members >= maxGroup || weight >= maxGroupBytes || time.Since(start) > maxGroupTime {
		return nil
	}
	select {
	case r := <-z.queue:
		return r
	default:
		return nil
	}
}

// turn lets one caller do his part. ok says whether it stands; an error that the transaction is gone.
func (z *Zone) turn(ctx context.Context, r *request, batch *ledger.Batch, public *[]publication) (ok bool, err error) {
	tx := &Tx{z: z, batch: batch, mark: batch.Size(), now: z.clock()}
	var fnErr error
	select {
	case r.turn <- tx:
		fnErr = <-r.over
		if fnErr == nil {
			fnErr = tx.err
		}
		if fnErr == nil && len(tx.publish) > 0 && batch.Size() == tx.mark {
			fnErr = errors.New("a transaction that publishes files must append an entry")
		}
		tx.over = true
	case <-r.ctx.Done():
		fnErr = r.ctx.Err()
	}
	if fnErr != nil {
		batch.Cut(tx.mark)
		if tx.saved {
			if _, err := z.statements.rollbackTo.ExecContext(ctx); err != nil {
				return false, errors.Join(fnErr, err)
			}
		}
	}
	// This fails, too, if SQLite has rolled back the whole transaction on its own, as it does when the disk is full.
	if tx.saved {
		if _, err := z.statements.release.ExecContext(ctx); err != nil {
			return false, errors.Join(fnErr, err)
		}
	}
	if fnErr != nil {
		r.done <- fnErr
		return false, nil
	}
	*public = append(*public, tx.publish...)
	return true, nil
}

// flush writes what the group added to the ledger, and its checkpoint.
func (z *Zone) flush(ctx context.Context, batch *ledger.Batch, public []publication) (note []byte, err error) {
	if batch.Size() == batch.Start() {
		return nil, nil
	}
	leaves := batch.Leaves()
	if err := insert(ctx, z.statements.entries, z.statements.entry, batch.Start(), len(leaves), func(i int) []byte { return leaves[i] }); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	first, hashes := batch.Hashes()
	if err := insert(ctx, z.statements.hashes, z.statements.hash, first, len(hashes), func(i int) []byte { return hashes[i][:] }); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	c, err := batch.Checkpoint(z.Origin())
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if note, err = ledger.SignCheckpoint(c, z.key); err != nil {
		return nil, err
	}
	if _, err := z.statements.checkpoint.ExecContext(ctx, c.Size, note); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	for _, p := range public {
		var data, blob any
		if p.blob != "" {
			blob = p.blob
		} else {
			data = p.data
		}
		if _, err := z.statements.public.ExecContext(ctx, p.path, c.Size, data, blob); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
	}
	return note, nil
}

func insert(ctx context.Context, many, one *sql.Stmt, first int64, n int, value func(int) []byte) error {
	i := 0
	args := make([]any, 2*rowsAtOnce)
	for ; i+rowsAtOnce <= n; i += rowsAtOnce {
		for k := range rowsAtOnce {
			args[2*k], args[2*k+1] = first+int64(i+k), value(i+k)
		}
		if _, err := many.ExecContext(ctx, args...); err != nil {
			return err
		}
	}
	for ; i < n; i++ {
		if _, err := one.ExecContext(ctx, first+int64(i), value(i)); err != nil {
			return err
		}
	}
	return nil
}

// isCommitted asks, after COMMIT reported an error, whether it was done all the
// same. A group without entries leaves no mark that would tell; it counts as failed.
func (z *Zone) isCommitted(ctx context.Context, batch *ledger.Batch, note []byte) bool {
	if note == nil {
		return false
	}
	// Through another connection: the writer's would see its own unfinished transaction.
	var got []byte
	err := z.catalog.readers.QueryRowContext(ctx, "SELECT note FROM checkpoint WHERE size = ?", batch.Size()).Scan(&got)
	return err == nil && bytes.Equal(got, note)
}

// hashReader reads stored hashes.
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
	at := make(map[int64][]int, len(indexes))
	args := make([]any, 0, len(indexes))
	for i, x := range indexes {
		if len(at[x]) == 0 {
			args = append(args, x)
		}
		at[x] = append(at[x], i)
	}
	query := "SELECT idx, h FROM hash WHERE idx IN (?" + string(bytes.Repeat([]byte(",?"), len(args)-1)) + ")"
	rows, err := r.q.QueryContext(r.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var x int64
		var h sql.RawBytes
		if err := rows.Scan(&x, &h); err != nil {
			return err
		}
		if len(h) != tlog.HashSize {
			return trust.Refuse("ledger-corrupt", "catalog", "hash %d has %d bytes", x, len(h))
		}
		for _, i := range at[x] {
			out[i] = tlog.Hash(h)
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
