package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
)

// readBuffer is the size of a Reader's buffer. It holds the longest
// string of the grammar, contents apart, many times.
const readBuffer = 64 << 10

// A Reader reads one archive. It must not be used by several goroutines at
// once.
//
// Reader reads ahead, but only as far as the archive has to go on: at any point the
// grammar tells how many bytes must at least follow. So when Next has returned
// [io.EOF], exactly the archive has been consumed, and no other buffer needs
// to be put between; a few large reads make up most archives.
type Reader struct {
	src  io.Reader
	buf  []byte
	r, w int   // buf[r:w] has been read but not parsed
	off  int64 // of buf[r] in the archive
	err  error // the first error, or io.EOF after the end

	state state
	stack []frame // the open directories
	path  []byte  // of the node that Next returned last
	nodes int
	size  int64 // of the contents that are being read
	left  int64 // how much of them has not been returned
}

type state byte

const (
	atStart    state = iota
	inContents       // in a regular file, its node not yet closed
	inDirectory
)

// A frame is an open directory.
type frame struct {
	path int    // length of its path
	last []byte // name of its latest entry
}

// NewReader returns a Reader of the archive that begins at the next byte of r.
func NewReader(r io.Reader) *Reader {
	z := new(Reader)
	z.Reset(r)
	return z
}

// Reset makes z read a new archive from r. It keeps the buffer.
func (z *Reader) Reset(r io.Reader) {
	if z.buf == nil {
		z.buf = make([]byte, readBuffer)
	}
	*z = Reader{src: r, buf: z.buf, stack: z.stack[:0], path: z.path[:0]}
}

// Offset returns how many bytes of the archive have been parsed. After Next
// has returned a regular file it is the offset of the contents, after Next has
// returned io.EOF the size of the archive.
func (z *Reader) Offset() int64 { return z.off }

// Next returns the next node. Contents not read yet are skipped, and checked
// like all else. After the last node, when the archive has turned out complete,
// Next returns io.EOF; nothing after the archive has been read by then.
func (z *Reader) Next() (*Header, error) {
	if z.err != nil {
		return nil, z.err
	}
	switch z.state {
	case atStart:
		if err := z.expect(tokMagic+tokOpen+tokType, int64(len(tokMagic+tokOpen+tokType+tokDirectory))+closing(0)); err != nil {
			return nil, err
		}
		z.nodes = 1
		return z.node()
	case inContents:
		if err := z.skip(); err != nil {
			return nil, err
		}
	}
	for z.err == nil {
		if err := z.fill(16, closing(len(z.stack)-1)); err != nil {
			return nil, z.fault(CodeToken, err, tokEntry, tokClose)
		}
		switch string(z.buf[z.r : z.r+16]) {
		case tokEntry:
			return z.entry()
		case tokClose:
			z.advance(16)
			z.stack = z.stack[:len(z.stack)-1]
			if n := len(z.stack); n == 0 {
				z.err = io.EOF
			} else if err := z.expect(tokClose, closing(n)-16); err != nil {
				return nil, err
			}
		default:
			return nil, z.fault(CodeToken, nil, tokEntry, tokClose)
		}
	}
	return nil, z.err
}

// entry parses an entry up to the body of its node.
func (z *Reader) entry() (*Header, error) {
	at, depth := z.off, len(z.stack)
	dir := &z.stack[depth-1]
	rest := int64(len(tokNode+tokOpen+tokType+tokDirectory)) + closing(depth)
	if err := z.expect(tokEntry+tokOpen+tokName, int64(len(tokEntry+tokOpen+tokName))+16+rest); err != nil {
		return nil, err
	}
	nameAt := z.off
	name, err := z.string(MaxName, "a name", rest)
	if err != nil {
		return nil, err
	}
	if code, detail := checkName(name); code != "" {
		return nil, z.refuse(nameAt, code, detail)
	}
	if code, detail := checkOrder(dir.last, name); code != "" {
		return nil, z.refuse(nameAt, code, detail)
	}
	dir.last = append(dir.last[:0], name...)
	z.path = z.path[:dir.path]
	if dir.path > 0 {
		z.path = append(z.path, '/')
	}
	z.path = append(z.path, name...)
	z.nodes++
	if code, detail := checkPlace(depth, len(z.path), z.nodes); code != "" {
		return nil, z.refuse(at, code, detail)
	}
	if err := z.expect(tokNode+tokOpen+tokType, rest); err != nil {
		return nil, err
	}
	return z.node()
}

// node parses a node, from the value of its type on.
func (z *Reader) node() (*Header, error) {
	end := closing(len(z.stack))
	if err := z.fill(16, 24+end); err != nil {
		return nil, z.fault(CodeType, err, tokRegular, tokSymlink, tokDirectory)
	}
	h := &Header{Path: string(z.path)}
	switch string(z.buf[z.r : z.r+16]) {
	case tokRegular:
		h.Type = Regular
		z.advance(16)
		if err := z.fill(16, 16+8+end); err != nil {
			return nil, z.fault(CodeToken, err, tokExecutable, tokContents)
		}
		switch string(z.buf[z.r : z.r+16]) {
		case tokContents:
			z.advance(16)
		case tokExecutable[:16]:
			h.Executable = true
			const mark = tokExecutable + tokEmpty + tokContents
			if err := z.expect(mark, int64(len(mark))+8+end); err != nil {
				return nil, err
			}
		default:
			return nil, z.fault(CodeToken, nil, tokExecutable, tokContents)
		}
		if err := z.fill(8, 8+end); err != nil {
			return nil, z.fail(err)
		}
		size := binary.LittleEndian.Uint64(z.buf[z.r:])
		if !contentsFit(z.off, size, len(z.stack)) {
			return nil, z.refuse(z.off, CodeSize, fmt.Sprintf("contents of %d bytes are too large", size))
		}
		z.advance(8)
		h.Size = int64(size)
		z.size, z.left = h.Size, h.Size
		z.state = inContents
	case tokSymlink:
		h.Type = Symlink
		z.advance(16)
		if err := z.expect(tokTarget, 16+16+end); err != nil {
			return nil, err
		}
		at := z.off
		target, err := z.string(MaxTarget, "a target", end)
		if err != nil {
			return nil, err
		}
		if code, detail := checkTarget(target); code != "" {
			return nil, z.refuse(at, code, detail)
		}
		h.Target = string(target)
		if err := z.endNode(); err != nil {
			return nil, err
		}
	case tokDirectory[:16]:
		h.Type = Directory
		if err := z.expect(tokDirectory, 24+end); err != nil {
			return nil, err
		}
		z.push()
		z.state = inDirectory
	default:
		return nil, z.fault(CodeType, nil, tokRegular, tokSymlink, tokDirectory)
	}
	return h, nil
}

// push opens a directory, with the memory of an earlier one of its depth.
func (z *Reader) push() {
	n := len(z.stack)
	if n < cap(z.stack) {
		z.stack = z.stack[:n+1]
	} else {
		z.stack = append(z.stack, frame{})
	}
	z.stack[n].path = len(z.path)
	z.stack[n].last = z.stack[n].last[:0]
}

// endNode parses the end of a node that is not a directory, and of its entry.
func (z *Reader) endNode() error {
	depth := len(z.stack)
	if depth == 0 {
		if err := z.expect(tokClose, closing(0)); err != nil {
			return err
		}
		z.err = io.EOF
		return nil
	}
	z.state = inDirectory
	return z.expect(tokClose+tokClose, closing(depth))
}

// endContents parses what follows contents.
func (z *Reader) endContents() error {
	n := pad(z.size)
	if err := z.fill(int(n), n+closing(len(z.stack))); err != nil {
		return z.fail(err)
	}
	for i, c := range z.buf[z.r : z.r+int(n)] {
		if c != 0 {
			return z.refuse(z.off+int64(i), CodePadding, "the padding of contents is not zero")
		}
	}
	z.advance(int(n))
	z.state = inDirectory
	return z.endNode()
}

// Read reads contents of the regular file that Next returned last. It returns
// io.EOF once they, their padding and the end of their node have been read and
// checked. A node of another type has none.
func (z *Reader) Read(p []byte) (int, error) {
	if z.err != nil {
		return 0, z.err
	}
	if z.state != inContents {
		return 0, io.EOF
	}
	if z.left == 0 {
		if err := z.endContents(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	// What does not fit the buffer goes past it.
	if z.r == z.w && len(p) >= len(z.buf)/2 && z.left > int64(len(z.buf)) {
		n, err := z.read(p[:min(int64(len(p)), z.left)])
		z.off += int64(n)
		z.left -= int64(n)
		if n > 0 {
			return n, nil
		}
		return 0, z.fail(err)
	}
	b, err := z.contents()
	if err != nil {
		return 0, err
	}
	n := copy(p, b)
	z.advance(n)
	z.left -= int64(n)
	return n, nil
}

// WriteTo writes the contents that have not been read yet to w.
func (z *Reader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	if z.err != nil && z.err != io.EOF {
		return 0, z.err
	}
	if z.err != nil || z.state != inContents {
		return 0, nil
	}
	for z.left > 0 {
		b, err := z.contents()
		if err != nil {
			return total, err
		}
		n, err := w.Write(b)
		if n < 0 || n > len(b) {
			return total, errors.New("nar: a writer returned an impossible count")
		}
		z.advance(n)
		z.left -= int64(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
		if n < len(b) {
			return total, io.ErrShortWrite
		}
	}
	return total, z.endContents()
}

// skip passes over the contents that have not been read.
func (z *Reader) skip() error {
	for z.left > 0 {
		b, err := z.contents()
		if err != nil {
			return err
		}
		z.advance(len(b))
		z.left -= int64(len(b))
	}
	return z.endContents()
}

// contents returns contents that stand in the buffer, at least one byte.
func (z *Reader) contents() ([]byte, error) {
	if err := z.fill(1, z.left+pad(z.size)+closing(len(z.stack))); err != nil {
		return nil, z.fail(err)
	}
	return z.buf[z.r : z.r+int(min(int64(z.w-z.r), z.left))], nil
}

// string parses a string of at most max bytes, after which at least rest more
// have to come. The result is valid until the next fill.
func (z *Reader) string(max int, what string, rest int64) ([]byte, error) {
	if err := z.fill(8, 16+rest); err != nil {
		return nil, z.fail(err)
	}
	n := binary.LittleEndian.Uint64(z.buf[z.r:])
	if n > uint64(max) {
		return nil, z.refuse(z.off, CodeLength, fmt.Sprintf("%s of %d bytes is longer than %d", what, n, max))
	}
	end := 8 + int(n)
	total := end + int(pad(int64(n)))
	if err := z.fill(total, int64(total)+rest); err != nil {
		return nil, z.fail(err)
	}
	b := z.buf[z.r : z.r+total]
	for i, c := range b[end:] {
		if c != 0 {
			return nil, z.refuse(z.off+int64(end+i), CodePadding, fmt.Sprintf("the padding of %s is not zero", what))
		}
	}
	z.advance(total)
	return b[8:end], nil
}

// expect parses the tokens of seq; from its beginning, at least demand bytes
// of the archive have to come.
func (z *Reader) expect(seq string, demand int64) error {
	err := z.fill(len(seq), demand)
	if err == nil && string(z.buf[z.r:z.r+len(seq)]) == seq {
		z.advance(len(seq))
		return nil
	}
	// Find the first token that differs.
	for len(seq) > 0 {
		n := 8 + int(seq[0])
		n += int(pad(int64(n)))
		tok := seq[:n]
		if !bytes.HasPrefix(z.buf[z.r:z.w], []byte(tok)) {
			code := CodeToken
			switch tok {
			case tokMagic:
				code = CodeMagic
			case tokEmpty:
				code = CodeExecutable
			}
			return z.fault(code, err, tok)
		}
		z.advance(n)
		seq = seq[n:]
	}
	return z.fail(err)
}

// fault refuses the string that comes next because it is none of toks. If err is not
// nil, the input has failed or ended, which explains a string that
// is correct so far.
func (z *Reader) fault(code string, err error, toks ...string) error {
	have := z.buf[z.r:z.w]
	var words []string
	for _, tok := range toks {
		n := int(tok[0])
		words = append(words, strconv.Quote(tok[8:8+n]))
		if err != nil && strings.HasPrefix(tok, string(have)) {
			return z.fail(err)
		}
		if len(have) >= 8+n && string(have[:8+n]) == tok[:8+n] {
			for i, c := range have[8+n : min(len(have), len(tok))] {
				if c != 0 {
					return z.refuse(z.off+int64(8+n+i), CodePadding, "the padding of "+words[len(words)-1]+" is not zero")
				}
			}
		}
	}
	want := " where " + strings.Join(words, " or ") + " belongs"
	if len(have) < 8 {
		return z.refuse(z.off, code, fmt.Sprintf("found %q%s", have, want))
	}
	n := binary.LittleEndian.Uint64(have)
	if n>>32 != 0 && code != CodeMagic {
		return z.refuse(z.off, CodeLength, fmt.Sprintf("a string of %d bytes%s", n, want))
	}
	// Eight bytes of the string have come in any case, unless the input has ended.
	found := fmt.Sprintf("%q", have[8:min(uint64(len(have)), 8+min(n, 8))])
	if n > 8 {
		found = fmt.Sprintf("a string of %d bytes that begins with %s", n, found)
	}
	return z.refuse(z.off, code, "found "+found+want)
}

// refuse makes a refusal the error that sticks.
func (z *Reader) refuse(off int64, code, detail string) error {
	return z.fail(&Error{off, code, detail})
}

func (z *Reader) fail(err error) error {
	z.err = err
	return err
}

func (z *Reader) advance(n int) {
	z.r += n
	z.off += int64(n)
}

// fill makes at least n bytes stand in the buffer. It reads at most demand
// bytes beyond those parsed: what the archive must at least still have.
// It does not set z.err, since the bytes that did come may hold a fault of their own.
func (z *Reader) fill(n int, demand int64) error {
	if z.w-z.r >= n {
		return nil
	}
	want := int(min(demand, int64(len(z.buf))))
	if z.r+want > len(z.buf) {
		z.w = copy(z.buf, z.buf[z.r:z.w]) // fewer than n bytes
		z.r = 0
	}
	for z.w-z.r < n {
		m, err := z.read(z.buf[z.w : z.r+want])
		z.w += m
		if err != nil && z.w-z.r < n {
			return err
		}
	}
	return nil
}

// read reads from the source at least one byte, or returns an error.
func (z *Reader) read(p []byte) (int, error) {
	const patience = 100 // reads without a byte, as in bufio
	for range patience {
		n, err := z.src.Read(p)
		switch {
		case n < 0 || n > len(p):
			return 0, errors.New("nar: a reader returned an impossible count")
		case n > 0 && err == io.EOF:
			return n, nil // it will say so again
		case n > 0:
			return n, err
		case err == io.EOF:
			return 0, &Error{z.off + int64(z.w-z.r), CodeTruncated, "the archive ends too early"}
		case err != nil:
			return 0, fmt.Errorf("nar: reading at byte %d: %w", z.off+int64(z.w-z.r), err)
		}
	}
	return 0, fmt.Errorf("nar: reading at byte %d: %w", z.off+int64(z.w-z.r), io.ErrNoProgress)
}

// Entries returns an iterator over the nodes of the archive in r. The last pair may
// carry an error instead of a node; if none does, the archive was complete.
func Entries(r io.Reader) iter.Seq2[*Header, error] {
	return func(yield func(*Header, error) bool) {
		z := NewReader(r)
		for {
			h, err := z.Next()
			if err == io.EOF || !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// An Entry is a node with the place of its contents in the archive.
type Entry struct {
	Header
	Offset int64 // of the contents, if the node is a regular file
}

// List returns all nodes of the archive in r. Its result grows with the
// archive, up to MaxEntries; use [Entries] to hold nothing.
func List(r io.Reader) ([]Entry, error) {
	z := NewReader(r)
	var list []Entry
	for {
		h, err := z.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return nil, err
		}
		e := Entry{Header: *h}
		if h.Type == Regular {
			e.Offset = z.Offset()
		}
		list = append(list, e)
	}
}
