package siem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Sink takes messages. What Send has taken may be on its way; after Flush the
// other side has it, as far as that can be known. After an error of either
// nobody knows what arrived since the last Flush: it is sent again.
type Sink interface {
	Send(ctx context.Context, messages [][]byte) error
	Flush(ctx context.Context) error
	// Mark is where a file stands; nil for other sinks.
	Mark() *FileMark
	Close() error
}

// A Framing says how messages are told from each other on a stream.
type Framing int

const (
	Lines  Framing = iota // each ends in LF
	Octets                // each has its length and a space before it (RFC 6587, section 3.4.1)
)

func (f Framing) append(b, message []byte) []byte {
	if f == Octets {
		b = append(strconv.AppendInt(b, int64(len(message)), 10), ' ')
		return append(b, message...)
	}
	return append(append(b, message...), '\n')
}

// frame puts messages behind one another.
func (f Framing) frame(messages [][]byte) []byte {
	size := 0
	for _, m := range messages {
		size += len(m) + 8
	}
	b := make([]byte, 0, size)
	for _, m := range messages {
		b = f.append(b, m)
	}
	return b
}

// A writer is a pipe or a terminal: it is flushed when it has been written.
type writer struct{ w io.Writer }

// ToWriter sends lines to w.
func ToWriter(w io.Writer) Sink { return writer{w} }

func (s writer) Send(_ context.Context, messages [][]byte) error {
	_, err := s.w.Write(Lines.frame(messages))
	return err
}
func (s writer) Flush(context.Context) error { return nil }
func (s writer) Mark() *FileMark             { return nil }
func (s writer) Close() error                { return nil }

// A file is one that only grows, until somebody puts it aside.
type file struct {
	f    *os.File
	mark FileMark
}

// ToFile appends lines to a file, which is made if it is not there. If it is the
// one that was told to last, whatever stands behind what was told is cut off:
// it was written by a run that was killed before it could say so. (A file that
// was put aside, and another begun in its place, has another inode.)
func ToFile(path string, last *FileMark) (Sink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	s := &file{f: f}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	st, _ := fi.Sys().(*syscall.Stat_t)
	s.mark = FileMark{st.Ino, uint64(fi.Size())}
	if last != nil && last.Inode == s.mark.Inode && s.mark.Size > last.Size {
		if err := f.Truncate(int64(last.Size)); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		s.mark.Size = last.Size
	}
	return s, nil
}

func (s *file) Send(_ context.Context, messages [][]byte) error {
	n, err := s.f.WriteAt(Lines.frame(messages), int64(s.mark.Size))
	if err != nil {
		// Half a line would stay: a full disk must not leave one.
		return errors.Join(err, s.f.Truncate(int64(s.mark.Size)))
	}
	s.mark.Size += uint64(n)
	return nil
}
func (s *file) Flush(context.Context) error { return s.f.Sync() }
func (s *file) Mark() *FileMark             { m := s.mark; return &m }
func (s *file) Close() error                { return s.f.Close() }

// An Address is where messages are sent: a socket of this machine or a TCP port.
type Address struct{ Network, Name string }

// ParseAddress reads unix:/PATH or tcp:HOST:PORT.
func ParseAddress(s string) (Address, error) {
	network, name, _ := strings.Cut(s, ":")
	switch network {
	case "unix":
		if strings.HasPrefix(name, "/") {
			return Address{network, name}, nil
		}
	case "tcp":
		host, port, err := net.SplitHostPort(name)
		if n, perr := strconv.Atoi(port); err == nil && perr == nil && host != "" && n > 0 && n < 1<<16 {
			return Address{network, name}, nil
		}
	}
	return Address{}, fmt.Errorf("%q: want unix:/PATH or tcp:HOST:PORT", s)
}

func (a Address) String() string { return a.Network + ":" + a.Name }

// Patience is how long a receiver may take for one batch, and for its acknowledgement.
const Patience = 30 * time.Second

// Dial connects. A local socket may be one of datagrams, as /dev/log is: then a
// message is one datagram, and framing is not used.
func Dial(ctx context.Context, a Address, framing Framing) (Sink, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var d net.Dialer
	if a.Network == "unix" {
		c, err := d.DialContext(ctx, "unixgram", a.Name)
		if err == nil {
			return &datagrams{c}, nil
		}
		if !errors.Is(err, syscall.EPROTOTYPE) {
			return nil, err
		}
	}
	c, err := d.DialContext(ctx, a.Network, a.Name)
	if err != nil {
		return nil, err
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &stream{c, raw, a.Network == "tcp", framing}, nil
}

type datagrams struct{ c net.Conn }

func (s *datagrams) Send(ctx context.Context, messages [][]byte) error {
	for _, m := range messages {
		if err := write(ctx, s.c, m); err != nil {
			if errors.Is(err, syscall.EMSGSIZE) {
				err = fmt.Errorf("%w: one message has %d bytes", err, len(m))
			}
			return err
		}
	}
	return nil
}

// Flush has nothing to do: the receiver's queue has what was written.
func (s *datagrams) Flush(context.Context) error { return nil }
func (s *datagrams) Mark() *FileMark             { return nil }
func (s *datagrams) Close() error                { return s.c.Close() }

type stream struct {
	c       net.Conn
	raw     syscall.RawConn
	tcp     bool
	framing Framing
}

func (s *stream) Send(ctx context.Context, messages [][]byte) error {
	if err := s.open(); err != nil {
		return err
	}
	return write(ctx, s.c, s.framing.frame(messages))
}

// Flush waits until nothing that was written waits for an acknowledgement, and the connection still stands.
func (s *stream) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		left, err := s.unacknowledged()
		if err != nil {
			return err
		}
		// In this order: a connection that broke has nothing left to send either.
		if err := s.open(); err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%d bytes are not acknowledged: %w", left, ctx.Err())
		}
	}
}

// unacknowledged is how many bytes the other side has not acknowledged, or of a local socket not read.
func (s *stream) unacknowledged() (n int, err error) {
	cerr := s.raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	if err != nil {
		err = fmt.Errorf("SIOCOUTQ: %w", err)
	}
	return n, errors.Join(cerr, err)
}

var errClosed = errors.New("the receiver has closed the connection")

// open says whether what is written can still arrive.
func (s *stream) open() error {
	var err error
	cerr := s.raw.Control(func(fd uintptr) {
		if s.tcp {
			err = tcpOpen(int(fd))
		} else {
			err = localOpen(int(fd))
		}
	})
	return errors.Join(cerr, err)
}

// tcpOpen: a receiver that has closed its own direction may still read; one that
// is gone answers what it is sent with a reset, which ends the connection.
func tcpOpen(fd int) error {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return fmt.Errorf("TCP_INFO: %w", err)
	}
	if info.State != unix.BPF_TCP_ESTABLISHED && info.State != unix.BPF_TCP_CLOSE_WAIT {
		return errClosed
	}
	return nil
}

// localOpen: whoever has closed a local socket reads no more. What he sent is thrown away.
func localOpen(fd int) error {
	var b [512]byte
	for {
		n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR || n > 0:
			continue
		case err == unix.EAGAIN:
			return nil
		case err != nil:
			return err
		}
		return errClosed
	}
}

func (s *stream) Mark() *FileMark { return nil }
func (s *stream) Close() error    { return s.c.Close() }

// write writes all of b, or fails when the receiver's patience or ctx ends.
func write(ctx context.Context, c net.Conn, b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err := c.Write(b)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
