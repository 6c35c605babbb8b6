package siem

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
)

const (
	// Batch is how many entries are handed over at once.
	Batch = 512
	// Between is after how many batches a cursor moves: what may come twice after a crash.
	Between = 32
)

// An Exporter tells entries.
type Exporter struct {
	// Format makes the line or the message of a record.
	Format func(*Record) ([]byte, error)
	// Keys returns the keys by which statements are verified. again is true where an entry was signed by none of those that it returned before.
	Keys func(again bool) (Keys, error)
	// Told is called after what stands before an index has been flushed. It moves the cursor.
	Told func(at Position) error
	// Progress, if not nil, is called with the number of entries of each batch, and their bytes.
	Progress func(n int, bytes int64)

	keys Keys
	held bool
}

type item struct {
	index int64
	leaf  []byte
	hash  tlog.Hash
}

// A SinkError is the receiver's failure, not the ledger's.
type SinkError struct{ Err error }

func (e *SinkError) Error() string { return e.Err.Error() }
func (e *SinkError) Unwrap() error { return e.Err }

// Run tells the entries of a log from one index up to, and without, another, to
// a sink. When ctx ends, what was sent by then is still flushed, and the cursor moved.
func (x *Exporter) Run(ctx context.Context, log *ledger.Log, from, to int64, sink Sink) error {
	if x.Keys != nil && !x.held {
		var err error
		if x.keys, err = x.Keys(false); err != nil {
			return err
		}
		x.held = true
	}
	batches := 0
	sent, told := from, from
	tell := func(ctx context.Context) error {
		if err := sink.Flush(ctx); err != nil {
			return &SinkError{err}
		}
		told = sent
		if x.Told == nil {
			return nil
		}
		at, err := ledger.At(log.Checkpoint().Origin, sent, log.Hashes())
		if err != nil {
			return err
		}
		return x.Told(Position{at, sink.Mark()})
	}
	waiting := make([]item, 0, Batch)
	hand := func() error {
		if len(waiting) == 0 {
			return nil
		}
		messages, err := x.messages(log.Checkpoint().Origin, waiting)
		if err != nil {
			return err
		}
		if err := sink.Send(ctx, messages); err != nil {
			return &SinkError{err}
		}
		if x.Progress != nil {
			bytes := int64(0)
			for _, w := range waiting {
				bytes += int64(len(w.leaf))
			}
			x.Progress(len(waiting), bytes)
		}
		sent += int64(len(waiting))
		waiting = waiting[:0]
		if batches++; batches%Between != 0 {
			return nil
		}
		return tell(ctx)
	}
	err := log.Range(ctx, from, to, func(index int64, leaf []byte, hash tlog.Hash) error {
		if waiting = append(waiting, item{index, leaf, hash}); len(waiting) < Batch {
			return nil
		}
		return hand()
	})
	if err == nil {
		err = hand()
	}
	if err != nil && ctx.Err() == nil {
		return err
	}
	if sent > told {
		err = errors.Join(err, tell(context.WithoutCancel(ctx)))
	}
	return err
}

// messages makes the lines of a batch, on all processors.
func (x *Exporter) messages(origin string, items []item) ([][]byte, error) {
	records := make([]*Record, len(items))
	x.each(len(items), func(i int) error {
		records[i] = NewRecord(origin, items[i].index, items[i].leaf, items[i].hash, x.keys)
		return nil
	})
	if x.Keys != nil {
		again := false
		for i, r := range records {
			if r.Signature != Unknown {
				continue
			}
			// A root that came into force meanwhile has its key, or none has.
			if !again {
				var err error
				if x.keys, err = x.Keys(true); err != nil {
					return nil, err
				}
				again = true
			}
			records[i] = NewRecord(origin, items[i].index, items[i].leaf, items[i].hash, x.keys)
		}
	}
	messages := make([][]byte, len(items))
	return messages, x.each(len(items), func(i int) (err error) {
		messages[i], err = x.Format(records[i])
		return err
	})
}

// each calls do for 0..n-1 on all processors and returns an error of it.
func (x *Exporter) each(n int, do func(int) error) error {
	workers := min(runtime.GOMAXPROCS(0), n)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for k := range workers {
		wg.Go(func() {
			for i := k; i < n && errs[k] == nil; i += workers {
				errs[k] = do(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
