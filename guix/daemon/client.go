package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Version is the protocol's that this package speaks: of Guix 1.5.0.
const Version = 0x164

const (
	majorMask = 0xff00
	minorMask = 0x00ff
	minMinor  = 0x63
)

// A Client speaks with one daemon over one connection. Its methods may be called by
// several goroutines; they wait for each other.
type Client struct {
	// Log, if not nil, is called with what the daemon tells during an operation. It is set
	// before the Client is used, and must not use the Client.
	Log func(Event)

	conn    net.Conn
	busy    chan struct{} // holds a token while nobody uses the rest
	w       wire
	version int
	framed  bool // options were set: the output of builders is framed
	closed  bool
}

// Connect greets the daemon at the other end of conn. From then on conn is the Client's, which
// closes it; Connect does so if it fails.
func Connect(ctx context.Context, conn net.Conn) (*Client, error) {
	c := &Client{conn: conn, busy: make(chan struct{}, 1), w: newWire(conn)}
	c.busy <- struct{}{}
	err := c.do(ctx, OpConnect, func(t talk) error {
		w := t.w
		w.putNumber(clientMagic)
		w.flush()
		if n := w.number(); w.err == nil && n != serverMagic {
			w.fail(w.off-8, CodeMagic, nil, "%#x is not how a guix-daemon answers", n)
		}
		version := w.number()
		if w.err == nil && (version&^minorMask != Version&majorMask || version&minorMask < minMinor) {
			w.fail(w.off-8, CodeVersion, nil, "version %#x of the protocol, not %#x or like it; Nix has the lower ones", version, Version)
		}
		if w.err != nil {
			return w.err
		}
		c.version = int(version)
		w.putNumber(Version)
		w.putNumber(0)
		w.putNumber(0)
		w.flush()
		return t.last()
	})
	if err != nil {
		return nil, errors.Join(err, c.shut())
	}
	return c, nil
}

// Version returns the daemon's version of the protocol.
func (c *Client) Version() int { return c.version }

// Close closes the connection, after the operation that may be going on.
func (c *Client) Close() error {
	<-c.busy
	defer func() { c.busy <- struct{}{} }()
	if c.closed {
		return nil
	}
	return c.shut()
}

// shut closes the connection if that was not done.
func (c *Client) shut() error {
	if c.closed {
		return nil
	}
	c.closed = true
	return c.conn.Close()
}

// do runs one operation, alone. If the wire has failed at the end of it, or the context has
// ended, that was the last one. An *Error, and errors of the caller's
// that f returns with the wire in order, leave the connection open.
func (c *Client) do(ctx context.Context, op Op, f func(t talk) error) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("guix-daemon: %s: %w", op, context.Cause(ctx))
	case <-c.busy:
	}
	defer func() { c.busy <- struct{}{} }()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("guix-daemon: %s: %w", op, err)
	}
	if c.closed {
		return ErrClosed
	}
	c.w.op = op
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		// Long ago, so that whatever waits on the connection returns, and nothing after it waits. Then
		// the daemon has to see that nobody is there any more.
		if c.conn.SetDeadline(time.Unix(1, 0)) != nil {
			c.conn.Close()
		}
	})
	err := f(talk{&c.w, &splitter{emit: c.Log, framed: c.framed}})
	if !stop() {
		<-aborted
		c.shut() // its error says nothing that the context's does not
		if err != nil {
			return fmt.Errorf("guix-daemon: %s: %w", op, context.Cause(ctx))
		}
		return nil
	}
	if c.w.err != nil {
		c.shut()
		var protocol *ProtocolError
		if err == c.w.err && !errors.As(err, &protocol) {
			err = fmt.Errorf("guix-daemon: %s: %w", op, err)
		}
	}
	return err
}

// call runs an operation of the plain form: arguments, log, results.
func (c *Client) call(ctx context.Context, op Op, arguments, results func(w *wire)) error {
	return c.do(ctx, op, func(t talk) error { return plain(t, op, arguments, results) })
}

func plain(t talk, op Op, arguments, results func(w *wire)) error {
	w := t.w
	w.putNumber(uint64(op))
	arguments(w)
	w.flush()
	if w.err != nil {
		return t.hear()
	}
	if err := t.last(); err != nil {
		return err
	}
	results(w)
	return w.err
}

func none(*wire) {}
