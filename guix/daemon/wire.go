package daemon

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"sallyport/guix/storepath"
)

// Bounds of what is read. Beyond them is an error.
const (
	MaxMessage = 1 << 20 // bytes of one message of a log, or of an error
	MaxPaths   = 1 << 22 // elements of one list; a large store has some 10^5 items
	MaxString  = 1 << 12 // bytes of any other string that is not a path
	maxPath    = storepath.MaxLen
	chunk      = 4 << 10 // a string grows by that much at a time
)

// Numbers of the protocol.
const (
	clientMagic = 0x6e697863
	serverMagic = 0x6478696f

	messageNext  = 0x6f6c6d67
	messageRead  = 0x64617461
	messageWrite = 0x64617416
	messageLast  = 0x616c7473
	messageError = 0x63787470
)

// A wire is the connection as numbers and strings. The first error of reading or
// writing sticks; after it all numbers are zero and all strings empty.
type wire struct {
	in  *bufio.Reader
	out *bufio.Writer
	off int64 // bytes read
	op  Op    // the current one
	err error

	part [chunk]byte // of a message of the log
}

func newWire(rw io.ReadWriter) wire {
	return wire{in: bufio.NewReaderSize(rw, 32<<10), out: bufio.NewWriterSize(rw, 32<<10)}
}

func (w *wire) fail(at int64, code string, err error, format string, args ...any) {
	if w.err == nil {
		w.err = &ProtocolError{w.op, at, code, fmt.Sprintf(format, args...), err}
	}
}

func (w *wire) putNumber(n uint64) {
	w.put(binary.LittleEndian.AppendUint64(nil, n))
}

func (w *wire) putBool(b bool) {
	if b {
		w.putNumber(1)
	} else {
		w.putNumber(0)
	}
}

func (w *wire) putString(s string) {
	w.putNumber(uint64(len(s)))
	w.put([]byte(s))
	w.put(make([]byte, -len(s)&7))
}

func (w *wire) putPath(p storepath.Path) { w.putString(p.String()) }

func (w *wire) putPaths(paths []storepath.Path) {
	w.putNumber(uint64(len(paths)))
	for _, p := range paths {
		w.putPath(p)
	}
}

func (w *wire) put(b []byte) {
	if w.err == nil {
		_, w.err = w.out.Write(b)
	}
}

func (w *wire) flush() {
	if w.err == nil {
		w.err = w.out.Flush()
	}
}

// full fills b.
func (w *wire) full(b []byte) {
	if w.err != nil {
		return
	}
	n, err := io.ReadFull(w.in, b)
	w.off += int64(n)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		w.fail(w.off, CodeTruncated, io.ErrUnexpectedEOF, "the connection ended")
	case err != nil:
		w.err = err
	}
}

func (w *wire) number() uint64 {
	var b [8]byte
	w.full(b[:])
	if w.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

// size is a number of bytes or seconds.
func (w *wire) size(what string) int64 {
	n := w.number()
	if n > 1<<63-1 {
		w.fail(w.off-8, CodeNumber, nil, "%s of %d", what, n)
		return 0
	}
	return int64(n)
}

func (w *wire) bool() bool {
	n := w.number()
	if n > 1 {
		w.fail(w.off-8, CodeBool, nil, "the truth value %d", n)
	}
	return n == 1
}

// one is the answer of operations that have none.
func (w *wire) one() {
	if n := w.number(); w.err == nil && n != 1 {
		w.fail(w.off-8, CodeNumber, nil, "the answer %d instead of 1", n)
	}
}

// string reads a string of at most limit bytes. It allocates as they come.
func (w *wire) string(limit int) string {
	at := w.off
	n := w.number()
	if n > uint64(limit) {
		w.fail(at, CodeString, nil, "a string of %d bytes, at most %d are read", n, limit)
	}
	var b []byte
	for w.err == nil && uint64(len(b)) < n {
		more := min(int(n)-len(b), chunk)
		b = slices.Grow(b, more)[:len(b)+more]
		w.full(b[len(b)-more:])
	}
	w.padding(n)
	if w.err != nil {
		return ""
	}
	return string(b)
}

// padding reads what follows a string of n bytes.
func (w *wire) padding(n uint64) {
	var b [8]byte
	pad := b[:-n&7]
	w.full(pad)
	if w.err == nil && len(bytes.Trim(pad, "\x00")) > 0 {
		w.fail(w.off-int64(len(pad)), CodeString, nil, "padding that is not zero")
	}
}

func (w *wire) path() storepath.Path {
	at := w.off
	s := w.string(maxPath)
	if w.err != nil {
		return storepath.Path{}
	}
	p, err := storepath.Parse(s)
	if err != nil {
		w.fail(at, CodePath, err, "%q: %v", s, err)
	}
	return p
}

func (w *wire) drv() storepath.Path {
	at := w.off
	p := w.path()
	if w.err == nil && !p.IsDerivation() {
		w.fail(at, CodePath, nil, "%s is no derivation", p)
	}
	return p
}

// optional reads a string that is empty or what parse makes of it.
func optional(w *wire, parse func() storepath.Path) storepath.Path {
	// What parse will read stands in the buffer or cannot be told from an error.
	if b, err := w.in.Peek(8); w.err == nil && err == nil && binary.LittleEndian.Uint64(b) == 0 {
		w.number()
		return storepath.Path{}
	}
	return parse()
}

// count reads the length of a list.
func (w *wire) count() uint64 {
	n := w.number()
	if n > MaxPaths {
		w.fail(w.off-8, CodeTooMany, nil, "a list of %d, at most %d are read", n, MaxPaths)
		return 0
	}
	return n
}

func (w *wire) list(each func() storepath.Path) []storepath.Path {
	var all []storepath.Path
	for range w.count() {
		p := each()
		if w.err != nil {
			return nil
		}
		all = append(all, p)
	}
	return all
}

// set reads a list that ascends.
func (w *wire) set(each func() storepath.Path) []storepath.Path {
	var last storepath.Path
	return w.list(func() storepath.Path {
		at := w.off
		p := each()
		if w.err == nil && p.Compare(last) <= 0 {
			w.fail(at, CodeOrder, nil, "%s after %s", p, last)
		}
		last = p
		return p
	})
}

// sha256 reads the hash of a nar.
func (w *wire) sha256() (sum [32]byte) {
	at := w.off
	s := w.string(2 * len(sum))
	if w.err != nil {
		return sum
	}
	n, err := hex.Decode(sum[:], []byte(s))
	if err != nil || n != len(sum) || hex.EncodeToString(sum[:]) != s {
		w.fail(at, CodeHash, nil, "%q is no SHA-256 in lower-case hexadecimal", s)
	}
	return sum
}

// A talk is what the two ends say to each other between a request and its results.
type talk struct {
	w   *wire
	log *splitter
}

// message reads messages, of which it deals with those of the log, up to one of another kind. The
// error is an *Error if the daemon sent one, and w.err otherwise.
func (t talk) message() (kind uint64, err error) {
	w := t.w
	for w.err == nil {
		switch kind = w.number(); kind {
		case messageNext:
			t.next()
		case messageError:
			t.log.end()
			e := &Error{Op: w.op, Message: w.string(MaxMessage), Status: w.number()}
			if w.err == nil {
				return kind, e
			}
		case messageLast:
			if w.err == nil {
				t.log.end()
				return kind, nil
			}
		case messageRead, messageWrite:
			return kind, nil
		default:
			w.fail(w.off-8, CodeMessage, nil, "the message %#x", kind)
		}
	}
	return 0, w.err
}

// next passes a message of the log on.
func (t talk) next() {
	w := t.w
	n := w.number()
	if n > MaxMessage {
		w.fail(w.off-8, CodeString, nil, "a message of %d bytes, at most %d are read", n, MaxMessage)
	}
	for left := n; left > 0 && w.err == nil; {
		part := w.part[:min(left, chunk)]
		w.full(part)
		if w.err == nil {
			t.log.write(part)
		}
		left -= uint64(len(part))
	}
	w.padding(n)
}

// last reads messages up to the end of the talk, in which only the log is spoken of.
func (t talk) last() error {
	kind, err := t.message()
	if err != nil {
		return err
	}
	if kind != messageLast {
		return t.stray(kind)
	}
	return nil
}

// stray refuses a message that has no place in the operation.
func (t talk) stray(kind uint64) error {
	t.w.fail(t.w.off-8, CodeMessage, nil, "the message %#x has no place here", kind)
	return t.w.err
}

// hear looks, after a failure to write, for what the daemon may have said before it hung up. It
// returns that, or the failure.
func (t talk) hear() error {
	failure := t.w.err
	t.w.err = nil
	_, err := t.message()
	t.w.err = failure
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return failure
}
