package nar

import (
	"fmt"
	"io"
	"strings"
)

// writeBuffer is how much a Writer gathers before it writes.
const writeBuffer = 16 << 10

// A Writer writes one archive, of a tree that need not exist anywhere. It takes
// headers in the order in which Reader returns them and refuses any other, as it
// refuses whatever Reader would. It must not be used by several goroutines at once.
type Writer struct {
	w   io.Writer
	buf []byte
	off int64 // in the archive, of the end of buf
	err error

	state  state
	closed bool
	stack  []frame
	path   string // of the node written last
	nodes  int
	size   int64
	left   int64 // contents still to be written
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w}
}

// WriteHeader begins the next node. If it is a regular file, exactly h.Size
// bytes of contents have to be written before the next call. Fields that do not belong to
// h.Type are ignored.
func (z *Writer) WriteHeader(h *Header) error {
	if err := z.endContents(); err != nil {
		return err
	}
	if code, detail := z.place(h); code != "" {
		return z.refuse(code, detail)
	}
	z.path = h.Path
	z.nodes++
	depth := len(z.stack)
	switch h.Type {
	case Regular:
		b := appendRegular(appendEntry(z.buf, h.Name()), h.Executable, h.Size)
		length := z.off + int64(len(b)-len(z.buf)) - 8
		if h.Size < 0 || !contentsFit(length, uint64(h.Size), depth) {
			return z.refuse(CodeSize, fmt.Sprintf("%q cannot have %d bytes", h.Path, h.Size))
		}
		z.put(b)
		z.size, z.left = h.Size, h.Size
		z.state = inContents
	case Symlink:
		if code, detail := checkTarget([]byte(h.Target)); code != "" {
			return z.refuse(code, detail)
		}
		z.put(appendLink(z.buf, h.Name(), h.Target))
		z.state = inDirectory
	case Directory:
		z.put(append(appendEntry(z.buf, h.Name()), tokOpen+tokType+tokDirectory...))
		z.stack = append(z.stack, frame{path: len(h.Path)})
		z.state = inDirectory
	default:
		return z.refuse(CodeType, fmt.Sprintf("%q has no type", h.Path))
	}
	return z.flush(writeBuffer)
}

// place checks that h may come next and closes the directories before it.
func (z *Writer) place(h *Header) (code, detail string) {
	if z.state == atStart {
		if h.Path != "" {
			return CodePath, fmt.Sprintf("the first header is for %q, not for the top", h.Path)
		}
		z.buf = append(z.buf, tokMagic...)
		z.off = int64(len(tokMagic))
		return "", ""
	}
	parent, name := "", h.Path
	if i := strings.LastIndexByte(h.Path, '/'); i >= 0 {
		parent, name = h.Path[:i], h.Path[i+1:]
		if parent == "" {
			return CodePath, fmt.Sprintf("the path %q is not relative to the top", h.Path)
		}
	}
	depth := len(z.stack)
	for depth > 0 && parent != z.path[:z.stack[depth-1].path] {
		depth--
	}
	if depth == 0 {
		return CodePath, fmt.Sprintf("%q is not in an open directory", h.Path)
	}
	if code, detail := checkName([]byte(name)); code != "" {
		return code, detail
	}
	dir := &z.stack[depth-1]
	if code, detail := checkOrder(dir.last, []byte(name)); code != "" {
		return code, detail
	}
	if code, detail := checkPlace(depth, len(h.Path), z.nodes+1); code != "" {
		return code, detail
	}
	z.closeTo(depth)
	dir.last = append(dir.last[:0], name...)
	return "", ""
}

// closeTo ends directories until only depth are open.
func (z *Writer) closeTo(depth int) {
	for len(z.stack) > depth {
		z.stack = z.stack[:len(z.stack)-1]
		if len(z.stack) > 0 {
			z.put(append(z.buf, tokClose+tokClose...))
		} else {
			z.put(append(z.buf, tokClose...))
		}
	}
}

// put replaces the buffer by a longer one.
func (z *Writer) put(b []byte) {
	z.off += int64(len(b) - len(z.buf))
	z.buf = b
}

// Write writes contents of the current regular file.
func (z *Writer) Write(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	if z.closed || z.state != inContents || int64(len(p)) > z.left {
		return 0, z.refuse(CodeSize, fmt.Sprintf("more contents for %q than announced", z.path))
	}
	z.left -= int64(len(p))
	if len(z.buf)+len(p) <= writeBuffer {
		z.put(append(z.buf, p...))
		return len(p), nil
	}
	if err := z.flush(0); err != nil {
		return 0, err
	}
	n, err := z.w.Write(p)
	z.off += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	z.err = err
	return n, err
}

// endContents ends the current node if it is a regular file.
func (z *Writer) endContents() error {
	switch {
	case z.err != nil:
		return z.err
	case z.closed:
		return z.refuse(CodePath, "the archive has been closed")
	case z.state != inContents:
		return nil
	case z.left > 0:
		return z.refuse(CodeSize, fmt.Sprintf("the contents of %q lack %d bytes", z.path, z.left))
	}
	b := append(z.buf, zeros[:pad(z.size)]...)
	b = append(b, tokClose...)
	if len(z.stack) > 0 {
		b = append(b, tokClose...)
	}
	z.put(b)
	z.state = inDirectory
	return nil
}

// Close completes the archive. It does not close the underlying writer.
func (z *Writer) Close() error {
	if z.closed {
		return z.err
	}
	if err := z.endContents(); err != nil {
		return err
	}
	if z.state == atStart {
		return z.refuse(CodePath, "an archive holds at least one node")
	}
	z.closeTo(0)
	z.closed = true
	return z.flush(0)
}

// flush writes the buffer out if it holds more than keep bytes.
func (z *Writer) flush(keep int) error {
	if len(z.buf) <= keep {
		return nil
	}
	n, err := z.w.Write(z.buf)
	if err == nil && n < len(z.buf) {
		err = io.ErrShortWrite
	}
	z.buf = z.buf[:0]
	z.err = err
	return err
}

func (z *Writer) refuse(code, detail string) error {
	z.err = &Error{z.off, code, detail}
	return z.err
}

// appendLink appends a whole entry that is a link.
func appendLink(b []byte, name, target string) []byte {
	b = append(appendEntry(b, name), tokOpen+tokType+tokSymlink+tokTarget...)
	return appendEnd(appendString(b, target), name)
}

// FileSize returns the size of the nar of a single regular file of the given size
// that is not executable. An executable one's is 32 bytes more.
func FileSize(size int64) int64 {
	const around = len(tokMagic + tokOpen + tokType + tokRegular + tokContents + tokEmpty + tokClose)
	return int64(around) + size + pad(size)
}

// WriteFile writes the nar of a single regular file whose contents are the next size
// bytes of r. It fails if r has fewer and leaves what comes after them unread.
func WriteFile(w io.Writer, size int64, executable bool, r io.Reader) error {
	z := NewWriter(w)
	if err := z.WriteHeader(&Header{Type: Regular, Size: size, Executable: executable}); err != nil {
		return err
	}
	switch n, err := io.CopyN(z, r, size); {
	case err == io.EOF:
		return z.refuse(CodeSize, fmt.Sprintf("the contents end after %d of %d bytes", n, size))
	case err != nil:
		return err
	}
	return z.Close()
}
