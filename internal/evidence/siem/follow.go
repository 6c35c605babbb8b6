package siem

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// maxBackoff is how long a follower waits at most for a receiver that is away.
const maxBackoff = 30 * time.Second

// A Follower tells a ledger once, or for as long as it grows.
type Follower struct {
	Exporter
	// Log opens the published ledger as it is at this moment.
	Log func() (*ledger.Log, error)
	// Connect opens the sink. last is where a file stood when it was told last.
	Connect func(ctx context.Context, last *FileMark) (Sink, error)
	// Alarm makes the message of a ledger that cannot be believed any more.
	Alarm func(*trust.Refusal) ([]byte, error)
	// At is how far the ledger was told already; without an origin, not at all.
	At Position
	// Next is the index of the first entry, To that of the last; -1: the newest.
	Next, To int64
	// Follow goes on as the ledger grows, and looks for that each Interval.
	Follow   bool
	Interval time.Duration
	// Retry: a receiver that is away is waited for.
	Retry bool
	// Say tells the operator, once for each change, that the receiver is away or back.
	Say func(format string, args ...any)

	sink Sink
}

// ErrBeyond says that an entry is asked for which the ledger does not have.
var ErrBeyond = errors.New("the ledger has no such entry")

// Run tells what there is, and with Follow what there will be, until ctx ends. A
// ledger that does not go on from what was told ends it with the refusal, and an
// alarm to the receiver.
func (f *Follower) Run(ctx context.Context) (err error) {
	told := f.Told
	f.Told = func(at Position) error {
		if f.At = at; at.Told.Size > f.Next {
			f.Next = at.Told.Size
		}
		if told == nil {
			return nil
		}
		return told(at)
	}
	defer func() { err = errors.Join(err, f.disconnect()) }()
	pause, away := f.Interval, ""
	for {
		err := f.once(ctx)
		var sink *SinkError
		switch {
		case ctx.Err() != nil:
			// Whatever else failed then is not lost.
			if err == nil || errors.Is(err, ctx.Err()) && sinkless(err) {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case err == nil:
			if away != "" {
				f.Say("the receiver is back; entries up to %d were told", f.Next)
			}
			pause, away = f.Interval, ""
			if !f.Follow {
				return nil
			}
		case errors.As(err, &sink):
			// Nobody knows what arrived since the last time; a new connection begins there.
			if derr := f.disconnect(); derr != nil && !f.Retry {
				err = errors.Join(err, derr)
			}
			if !f.Follow || !f.Retry {
				return err
			}
			if err.Error() != away {
				f.Say("the receiver is away, trying again: %v", err)
			}
			pause, away = min(2*pause, maxBackoff), err.Error()
		default:
			return f.alarm(ctx, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sinkless says that nothing in an error is a receiver's failure.
func sinkless(err error) bool {
	var sink *SinkError
	return !errors.As(err, &sink)
}

// once tells what there is now.
func (f *Follower) once(ctx context.Context) error {
	log, err := f.Log()
	if err != nil {
		return err
	}
	size := log.Checkpoint().Size
	if f.At.Told.Origin != "" {
		if err := f.At.Check(log); err != nil {
			return err
		}
	}
	to := size
	if f.To >= 0 {
		to = f.To + 1
	}
	if f.Next > size || !f.Follow && to > size {
		return fmt.Errorf("%w: it has %d, from 0 up", ErrBeyond, size)
	}
	fresh := f.sink == nil
	if err := f.connect(ctx); err != nil {
		return err
	}
	if mark := f.sink.Mark(); fresh && mark != nil {
		// Before a line is written: what a run that dies leaves behind this mark is cut off by the next.
		at, err := ledger.At(log.Checkpoint().Origin, f.Next, log.Hashes())
		if err != nil {
			return err
		}
		if err := f.Told(Position{at, mark}); err != nil {
			return err
		}
	}
	if f.Next >= to {
		return nil // nothing new, or not there yet
	}
	return f.Exporter.Run(ctx, log, f.Next, to, f.sink)
}

func (f *Follower) connect(ctx context.Context) error {
	if f.sink != nil {
		return nil
	}
	sink, err := f.Connect(ctx, f.At.File)
	if err != nil {
		return &SinkError{err}
	}
	f.sink = sink
	return nil
}

func (f *Follower) disconnect() error {
	if f.sink == nil {
		return nil
	}
	sink := f.sink
	f.sink = nil
	return sink.Close()
}

// alarm tells the receiver, too, that the ledger cannot be believed any more. What could not be read is no alarm.
func (f *Follower) alarm(ctx context.Context, err error) error {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	var messages [][]byte
	for _, r := range rs {
		if r.Code == "cursor-origin" {
			continue // the operator's mistake
		}
		m, merr := f.Alarm(r)
		if merr != nil {
			return errors.Join(err, merr)
		}
		messages = append(messages, m)
	}
	if len(messages) == 0 {
		return err
	}
	serr := f.connect(ctx)
	if serr == nil {
		serr = f.sink.Send(ctx, messages)
	}
	if serr == nil {
		serr = f.sink.Flush(ctx)
	}
	return errors.Join(err, serr)
}
