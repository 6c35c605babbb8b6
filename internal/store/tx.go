package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Bounds of a group commit.
const (
	maxGroup      = 4096                   // callers in one transaction
	maxGroupBytes = 32 << 20               // of leaves in one transaction
	maxGroupTime  = 200 * time.Millisecond // after which nobody more is taken in: other processes wait, too
	maxPending    = 64                     // groups that wait to be published
	// maxPendingBytes is what of them is held in memory; the rest is read from the catalog again.
	maxPendingBytes = 64 << 20
)

// An UnpublishedError says that a deed is done, durably, but not yet published:
// it must have no effect outside of the zone. The next commit or the next Open publishes it.
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
	growth  *growth
	mark    int64 // size of the ledger before this caller
	now     time.Time
	clock   time.Time // what the machine's clock says, if that is behind the newest entry
	publish []publication
	saved   bool // whether the savepoint has been set

	ceremony bool // the deed is a root or orders
	err      error
	over     bool
}

type publication struct {
	path string
	size int64 // of the ledger with the deed
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
func (tx *Tx) AppendEnvelope(e *statement.Envelope) (int64, error) {
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
	if _, err := statement.ParseEnvelope(envelope); err != nil {
		return 0, err
	}
	return tx.append(bytes.Clone(envelope))
}

func (tx *Tx) append(leaf []byte) (int64, error) {
	if err := tx.mayGrow(); err != nil {
		return 0, err
	}
	if err := ledger.CheckLeaf(leaf); err != nil {
		return 0, err
	}
	i, err := tx.growth.batch.Append(leaf)
	return i, tx.fail(err)
}

// Statement makes a statement of the station: it adds `time` and `zone`, signs and appends it.
func (tx *Tx) Statement(kind string, subjects []statement.Subject, predicate map[string]any) error {
	_, err := tx.StatementIndex(kind, subjects, predicate)
	return err
}

// StatementIndex is Statement, and returns the index of the entry.
func (tx *Tx) StatementIndex(kind string, subjects []statement.Subject, predicate map[string]any) (int64, error) {
	if err := tx.ready(context.Background()); err != nil {
		return 0, err
	}
	p := maps.Clone(predicate)
	if p == nil {
		p = map[string]any{}
	}
	p["time"] = trust.FormatDate(tx.now)
	p["zone"] = tx.z.Origin()
	if !tx.clock.IsZero() {
		p["clock"] = trust.FormatDate(tx.clock)
	}
	if err := tx.checkClock(); err != nil {
		return 0, err
	}
	envelope, err := statement.Sign(tx.growth.keys.station, statement.Statement{Kind: kind, Subjects: subjects, Predicate: p})
	if err != nil {
		return 0, err
	}
	i, err := tx.append(envelope)
	if err == nil {
		tx.growth.newest = tx.now
	}
	return i, err
}

// Now is the time that the transaction's statements carry.
func (tx *Tx) Now() time.Time { return tx.now }

// Size is the size of the ledger as the transaction sees it: the index of the next entry.
func (tx *Tx) Size() int64 { return tx.growth.batch.Size() }

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

// Attach says that an entry of this deed names a blob in the cas, on which rows hang: the blob stays. It is called behind the entry.
func (tx *Tx) Attach(ctx context.Context, d trust.Digest) error {
	if _, ok := tx.z.CAS.Has(d); !ok {
		return fmt.Errorf("attachment: blob %s is not in the store", d)
	}
	return tx.Exec(ctx, "INSERT INTO attachment (sha256, leaf) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING", d.String(), tx.Size()-1)
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

// A request is one caller of Commit or Record.
type request struct {
	ctx  context.Context
	how  manner
	turn chan *Tx   // unbuffered: given and taken, or neither
	over chan error // what the function returned
	done chan error // the answer; buffered, so that nobody waits for a caller who has left
}

// A manner is what is particular about a deed.
type manner struct {
	early    bool // answered when it is durable, not when it is published
	ceremony bool // a root or orders
}

// Commit runs fn in a transaction, which it may share with other callers, and
// returns when what it did is durable and published. An error that is not an
// [*UnpublishedError] means that nothing of it was done.
//
// fn runs in the caller's goroutine, exactly once or not at all. If ctx ends
// before it is fn's turn, fn does not run.
func (z *Zone) Commit(ctx context.Context, fn func(tx *Tx) error) error {
	return z.do(ctx, fn, manner{})
}

// Record is Commit that returns when what fn did is durable: it will be
// published, in its order, within [MaxLag], or by the next opening. Whoever has
// an effect outside of the zone afterwards calls [Zone.Published] first.
func (z *Zone) Record(ctx context.Context, fn func(tx *Tx) error) error {
	return z.do(ctx, fn, manner{early: true})
}

// ceremony is Commit of a root or of orders.
func (z *Zone) ceremony(ctx context.Context, fn func(tx *Tx) error) error {
	return z.do(ctx, fn, manner{ceremony: true})
}

func (z *Zone) do(ctx context.Context, fn func(tx *Tx) error, how manner) error {
	r := &request{ctx: ctx, how: how, turn: make(chan *Tx), over: make(chan error, 1), done: make(chan error, 1)}
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
