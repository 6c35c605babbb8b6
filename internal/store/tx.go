package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// Bounds of a group commit.
const (
	maxGroup      = 4096                   // callers in one transaction
	maxGroupBytes = 32 << 20               // of leaves in one transaction
	maxGroupTime  = 200 * time.Millisecond // after which nobody more is taken in: other processes wait, too
	maxPending    = 64                     // groups that wait to be published
)

// An UnpublishedError says that a deed is done, durably, but not yet published:
// it must not be announced. The next commit or the next Open publishes it.
type UnpublishedError struct {
	Size int64 // of the ledger with the deed
	Err  error
}

func (e *UnpublishedError) Error() string {
	return fmt.Sprintf("committed (ledger size %d) but not yet published: %v", e.Size, e.Err)
}

func (e *UnpublishedError) Unwrap() error { return e.Err }

// errAborted stands for a function that panicked or ended its goroutine.
var errAborted = errors.New("the transaction's function did not return")

// A Tx is one caller's part of a transaction. It is used only by the function
// that it was given to, while that runs, and by one goroutine.
//
// The first statement that fails spoils the Tx, since SQLite may have rolled
// back more than that statement: all further calls fail, and so does Commit even
// if the function returns nil. Where a conflict is expected, say so in SQL (ON CONFLICT).
type Tx struct {
	z       *Zone
	batch   *ledger.Batch
	mark    int64 // size of the ledger before this caller
	now     time.Time
	publish []publication
	saved   bool // whether the savepoint has been set
	err     error
	over    bool
}

type publication struct {
	path string
	data []byte
	blob string
}

func (tx *Tx) ready(ctx context.Context) error {
	if tx.over {
		return errors.New("transaction used after its function returned")
	}
	if tx.err != nil {
		return tx.err
	}
	return ctx.Err()
}

func (tx *Tx) fail(err error) error {
	if err != nil && tx.err == nil {
		tx.err = err
	}
	return err
}

// Exec runs a statement.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) error {
	_, err := tx.ExecCount(ctx, query, args...)
	return err
}

// ExecCount runs a statement and returns the number of rows that it changed.
func (tx *Tx) ExecCount(ctx context.Context, query string, args ...any) (int64, error) {
	if err := tx.ready(ctx); err != nil {
		return 0, err
	}
	// Without the caller's cancellation: an interrupted statement rolls back the transaction of everybody.
	ctx = context.WithoutCancel(ctx)
	// Not before the first write: a savepoint makes SQLite copy every page that is touched after it.
	if !tx.saved {
		if _, err := tx.z.statements.savepoint.ExecContext(ctx); err != nil {
			return 0, tx.fail(fmt.Errorf("catalog: %w", err))
		}
		tx.saved = true
	}
	stmt, err := tx.z.statements.get(ctx, tx.z.catalog.writer, query)
	if err != nil {
		return 0, tx.fail(fmt.Errorf("catalog: %w", err))
	}
	r, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, tx.fail(fmt.Errorf("catalog: %w", err))
	}
	n, err := r.RowsAffected()
	return n, tx.fail(err)
}

// Query reads inside the transaction. The rows must be closed before the function returns.
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := tx.ready(ctx); err != nil {
		return nil, err
	}
	rows, err := tx.z.catalog.writer.QueryContext(context.WithoutCancel(ctx), query, args...)
	if err != nil {
		return nil, tx.fail(fmt.Errorf("catalog: %w", err))
	}
	return rows, nil
}

// A Row is the answer to [Tx.QueryRow].
type Row struct {
	tx  *Tx
	row *sql.Row
	err error
}

// Scan is [sql.Row.Scan]; no row is [sql.ErrNoRows] and spoils nothing.
func (r *Row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	err := r.row.Scan(dest...)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return r.tx.fail(fmt.Errorf("catalog: %w", err))
	}
	return err
}

// QueryRow reads one row inside the transaction.
func (tx *Tx) QueryRow(ctx context.Context, query string, args ...any) *Row {
	if err := tx.ready(ctx); err != nil {
		return &Row{err: err}
	}
	return &Row{tx: tx, row: tx.z.catalog.writer.QueryRowContext(context.WithoutCancel(ctx), query, args...)}
}

// AppendEnvelope is Append of an envelope that was taken apart, and as a rule
// verified, before the transaction: others need not wait for that.
func (tx *Tx) AppendEnvelope(e *trust.Envelope) (int64, error) {
	if err := tx.ready(context.Background()); err != nil {
		return 0, err
	}
	return tx.append(e.Bytes())
}

// Append appends an envelope that was signed elsewhere, and returns its index.
// Its form is checked, not who signed it.
func (tx *Tx) Append(envelope []byte) (int64, error) {
	if err := tx.ready(context.Background()); err != nil {
		return 0, err
	}
	if _, err := trust.ParseEnvelope(envelope); err != nil {
		return 0, err
	}
	return tx.append(bytes.Clone(envelope))
}

func (tx *Tx) append(leaf []byte) (int64, error) {
	if err := ledger.CheckLeaf(leaf); err != nil {
		return 0, err
	}
	i, err := tx.batch.Append(leaf)
	return i, tx.fail(err)
}

// Statement makes a statement of the station: it adds `time` and `zone`, signs and appends it.
func (tx *Tx) Statement(kind string, subjects []trust.Subject, predicate map[string]any) error {
	_, err := tx.StatementIndex(kind, subjects, predicate)
	return err
}

// StatementIndex is Statement, and returns the index of the entry.
func (tx *Tx) StatementIndex(kind string, subjects []trust.Subject, predicate map[string]any) (int64, error) {
	if err := tx.ready(context.Background()); err != nil {
		return 0, err
	}
	p := maps.Clone(predicate)
	if p == nil {
		p = map[string]any{}
	}
	p["time"] = trust.FormatDate(tx.now)
	p["zone"] = tx.z.Origin()
	envelope, err := trust.SignStatement(tx.z.station, trust.Statement{Kind: kind, Subjects: subjects, Predicate: p})
	if err != nil {
		return 0, err
	}
	return tx.append(envelope)
}

// Now is the time that the transaction's statements carry.
func (tx *Tx) Now() time.Time { return tx.now }

// Size is the size of the ledger as the transaction sees it: the index of the next entry.
func (tx *Tx) Size() int64 { return tx.batch.Size() }

// Publish has a file below public written together with this deed's
// publication, before Commit returns, and again after a crash. Path as in
// [Zone.WritePublic]. The function must also append an entry.
func (tx *Tx) Publish(rel string, data []byte) error {
	return tx.addPublic(publication{path: rel, data: bytes.Clone(data)})
}

// PublishBlob is Publish of a blob in the cas, for what is too large for the catalog.
func (tx *Tx) PublishBlob(rel string, d trust.Digest) error {
	if _, ok := tx.z.CAS.Has(d); !ok {
		return fmt.Errorf("public/%s: blob %s is not in the store", rel, d)
	}
	return tx.addPublic(publication{path: rel, blob: d.String()})
}

// maxInline is what is better kept as a blob.
const maxInline = 2 << 20

func (tx *Tx) addPublic(p publication) error {
	if err := tx.ready(context.Background()); err != nil {
		return err
	}
	if _, err := tx.z.publicPath(p.path); err != nil {
		return err
	}
	if len(p.data) > maxInline {
		return fmt.Errorf("public/%s: %d bytes, more than %d belong into the cas", p.path, len(p.data), maxInline)
	}
	tx.publish = append(tx.publish, p)
	return nil
}

// A request is one caller of Commit.
type request struct {
	ctx  context.Context
	turn chan *Tx   // unbuffered: given and taken, or neither
	over chan error // what the function returned
	done chan error // the answer; buffered, so that nobody waits for a caller who has left
}

// Commit runs fn in a transaction, which it may share with other callers, and
// returns when what it did is durable and published. An error that is not an
// [*UnpublishedError] means that nothing of it was done.
//
// fn runs in the caller's goroutine, exactly once or not at all. If ctx ends
// before it is fn's turn, fn does not run.
func (z *Zone) Commit(ctx context.Context, fn func(tx *Tx) error) error {
	r := &request{ctx: ctx, turn: make(chan *Tx), over: make(chan error, 1), done: make(chan error, 1)}
	select {
	case <-z.closing:
		return ErrClosed
	default:
	}
	select {
	case z.queue <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-z.closing:
		return ErrClosed
	}
	select {
	case tx := <-r.turn:
		r.run(fn, tx)
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-z.writerDone:
		// The writer may have answered with its last breath.
		select {
		case err := <-r.done:
			return err
		default:
			return ErrClosed
		}
	}
	// From here the answer is worth more than the caller's patience: it says what is true.
	return <-r.done
}

func (r *request) run(fn func(*Tx) error, tx *Tx) {
	returned := false
	defer func() {
		if !returned { // a panic or Goexit goes on in this goroutine; the writer must not wait for it
			r.over <- errAborted
		}
	}()
	err := fn(tx)
	returned = true
	r.over <- err
}

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
