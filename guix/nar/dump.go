package nar

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

// A dump is a pipeline. One goroutine walks the tree in order and cuts the
// work into batches; some render batches, each into buffers of its own; the caller's
// writes the buffers in the order of the batches. So files are opened and read
// ahead, in parallel, while the writer, usually a hash, never waits.
//
// Memory is bounded by batches under way times buffers of a batch. There
// is no deadlock: batches are taken up in order, so the one that the writer waits for is
// always being rendered, and none waits for a buffer of another.
const (
	dumpReaders = 4         // batches rendered at a time
	dumpAhead   = 4         // batches more that wait for the writer
	dumpBatch   = 32        // nodes in a batch; each may hold a descriptor
	dumpBuffer  = 128 << 10 // a second-level cache holds two
)

// Dump writes the nar of the tree, file or link called name in fsys; the name "." is
// fsys itself. Symbolic links are not followed. What is neither a regular
// file nor a directory nor a link is refused, as is a file whose size
// changes under way.
//
// Dump reads ahead in several goroutines, so fsys must allow that, as all file systems
// of the standard library do; they have ended when Dump returns. It is fastest, and
// takes names that are not valid UTF-8, if fsys comes from [os.Root.FS].
//
// Errors of the tree are of type [*fs.PathError]; it wraps an [*Error] if the
// tree cannot be archived.
func Dump(w io.Writer, fsys fs.FS, name string) error {
	d := &dump{
		order: make(chan *batch, dumpAhead),
		work:  make(chan *batch, dumpAhead+dumpReaders+1),
		stop:  make(chan struct{}),
		free:  make(chan []byte, 2*dumpReaders+dumpAhead),
	}
	top := topFolder(fsys)
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	defer close(d.stop)
	goroutines.Go(func() { d.walk(top, name) })
	for range dumpReaders {
		goroutines.Go(d.render)
	}
	for b := range d.order {
		for buf := range b.out {
			n, err := w.Write(buf)
			if err == nil && n < len(buf) {
				err = io.ErrShortWrite
			}
			if err != nil {
				return err
			}
			select {
			case d.free <- buf[:0]:
			default:
			}
		}
		if b.err != nil {
			return b.err
		}
	}
	return nil
}

// Sum returns the SHA-256 and the size of the nar that Dump writes: what "guix
// hash -S nar" prints and the database of the store holds.
func Sum(fsys fs.FS, name string) (sum [sha256.Size]byte, size int64, err error) {
	h := sha256.New()
	c := &counter{w: h}
	if err = Dump(c, fsys, name); err == nil {
		h.Sum(sum[:0])
	}
	return sum, c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

type dump struct {
	order chan *batch   // for the writer
	work  chan *batch   // the same batches, for the readers
	stop  chan struct{} // closed when the writer has ended
	free  chan []byte   // buffers to use again

	// of the walking goroutine
	cur   *batch
	path  []byte
	nodes int
}

// A batch is a run of consecutive nodes.
type batch struct {
	ops []op
	out chan []byte // the rendered bytes; closed at the end
	err error       // set before out is closed
}

// An op is a piece of the archive.
type op struct {
	kind opKind
	name string // "" for the top
	in   string // the file's name in dir
	dir  folder // retained for opFile and opLink
}

type opKind byte

const (
	opMagic opKind = iota
	opFile
	opLink
	opOpen  // a directory begins
	opClose // and ends
)

// A folder is an open directory of the tree.
type folder interface {
	// lstat returns the type of an entry.
	lstat(name string) (fs.FileMode, error)
	// list returns the entries in order; their types may be unknown.
	list() ([]dirent, error)
	// folder opens a directory in this one.
	folder(name string) (folder, error)
	// open opens a regular file in this one.
	open(name string) (file, error)
	readlink(name string) (string, error)
	retain()
	release()
	path(name string) string // for errors
}

// A file is an open regular file.
type file interface {
	io.ReadCloser
	// stat returns an error if the file is not a regular one.
	stat() (size int64, executable bool, err error)
}

type dirent struct {
	name string
	mode fs.FileMode // type bits; modeUnknown
}

// modeUnknown is the type of an entry that the directory does not tell.
const modeUnknown = fs.ModeIrregular

// walk goes through the tree and hands out batches.
func (d *dump) walk(top folder, name string) {
	defer close(d.order)
	defer close(d.work)
	d.emit(op{kind: opMagic})
	err := d.node(top, "", name, modeUnknown)
	top.release()
	if err != nil && err != errStopped {
		// What was handed out before comes first, so the error found first in the
		// order of the archive is the one reported.
		d.send()
		d.cur = &batch{err: err, out: make(chan []byte)}
		close(d.cur.out)
		select {
		case d.order <- d.cur:
		case <-d.stop:
		}
		return
	}
	d.send()
}

// node hands out a node: in dir, the file in, an entry called name.
func (d *dump) node(dir folder, name, in string, mode fs.FileMode) error {
	d.nodes++
	if code, detail := checkPlace(0, 0, d.nodes); code != "" {
		return refuse(dir.path(in), code, detail)
	}
	if mode == modeUnknown {
		var err error
		if mode, err = dir.lstat(in); err != nil {
			return err
		}
	}
	switch mode.Type() {
	case 0:
		dir.retain()
		return d.emit(op{opFile, name, in, dir})
	case fs.ModeSymlink:
		dir.retain()
		return d.emit(op{opLink, name, in, dir})
	case fs.ModeDir:
		if err := d.emit(op{kind: opOpen, name: name}); err != nil {
			return err
		}
		sub, err := dir.folder(in)
		if err != nil {
			return err
		}
		defer sub.release()
		if err := d.entries(sub); err != nil {
			return err
		}
		return d.emit(op{kind: opClose, name: name})
	}
	return refuse(dir.path(in), CodeType, kindOf(mode)+" cannot be archived")
}

// kindOf names what has no place in an archive.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return fmt.Sprintf("a file of type %q", mode.Type())
}

// entries hands out the entries of dir.
func (d *dump) entries(dir folder) error {
	list, err := dir.list()
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	end, depth := len(d.path), 1+bytes.Count(d.path, []byte{'/'})
	var last string
	for i, e := range list {
		if code, detail := checkName([]byte(e.name)); code != "" {
			return refuse(dir.path(e.name), code, detail)
		}
		if i > 0 && e.name == last {
			return refuse(dir.path(e.name), CodeDuplicate, fmt.Sprintf("the directory lists %q twice", e.name))
		}
		last = e.name
		d.path = append(append(d.path[:end], '/'), e.name...)
		if code, detail := checkPlace(depth, len(d.path)-1, 0); code != "" {
			return refuse(dir.path(e.name), code, detail)
		}
		if err := d.node(dir, e.name, e.name, e.mode); err != nil {
			return err
		}
	}
	d.path = d.path[:end]
	return nil
}

func refuse(path, code, detail string) error {
	return &fs.PathError{Op: "dump", Path: path, Err: &Error{-1, code, detail}}
}

var errStopped = errors.New("nar: the writer has ended")

// emit adds an op to the current batch.
func (d *dump) emit(o op) error {
	if d.cur == nil {
		d.cur = &batch{ops: make([]op, 0, dumpBatch), out: make(chan []byte, 1)}
	}
	d.cur.ops = append(d.cur.ops, o)
	if len(d.cur.ops) < dumpBatch {
		return nil
	}
	return d.send()
}

// send hands out the current batch: to the writer, which determines how far ahead
// the walk gets, and then to the readers, whose channel has room for all
// that can be under way.
func (d *dump) send() error {
	b := d.cur
	d.cur = nil
	if b == nil {
		return nil
	}
	select {
	case <-d.stop:
		b.drop()
		return errStopped
	case d.order <- b:
		d.work <- b
		return nil
	}
}

// drop releases what the ops of b hold.
func (b *batch) drop() {
	for _, o := range b.ops {
		if o.dir != nil {
			o.dir.release()
		}
	}
}

// render renders batches until there are no more.
func (d *dump) render() {
	for b := range d.work {
		select {
		case <-d.stop:
			b.drop()
		default:
			r := renderer{d: d, b: b}
			b.err = r.batch()
			if r.buf != nil && b.err == nil {
				r.flush()
			}
		}
		close(b.out)
	}
}

// A renderer turns the ops of a batch into bytes.
type renderer struct {
	d   *dump
	b   *batch
	buf []byte
}

// flush hands the buffer to the writer.
func (r *renderer) flush() error {
	select {
	case r.b.out <- r.buf:
		r.buf = nil
		return nil
	case <-r.d.stop:
		return errStopped
	}
}

// room makes the buffer have room for n bytes.
func (r *renderer) room(n int) error {
	if r.buf != nil {
		if cap(r.buf)-len(r.buf) >= n {
			return nil
		}
		if err := r.flush(); err != nil {
			return err
		}
	}
	select {
	case r.buf = <-r.d.free:
	default:
		r.buf = make([]byte, 0, dumpBuffer)
	}
	return nil
}

func (r *renderer) batch() error {
	// The longest tokens around a node are those of a link.
	const most = 32*8 + MaxName + MaxTarget
	defer func() { r.b.ops = nil }()
	for i, o := range r.b.ops {
		err := r.room(most)
		if err == nil {
			switch o.kind {
			case opMagic:
				r.buf = append(r.buf, tokMagic...)
			case opOpen:
				r.buf = append(appendEntry(r.buf, o.name), tokOpen+tokType+tokDirectory...)
			case opClose:
				r.buf = appendEnd(r.buf, o.name)
			case opLink:
				err = r.link(o)
			case opFile:
				err = r.file(o)
			}
		}
		if o.dir != nil {
			o.dir.release()
		}
		if err != nil {
			r.b.ops = r.b.ops[i+1:]
			r.b.drop()
			return err
		}
	}
	return nil
}

func (r *renderer) link(o op) error {
	target, err := o.dir.readlink(o.in)
	if err != nil {
		return err
	}
	if code, detail := checkTarget([]byte(target)); code != "" {
		return refuse(o.dir.path(o.in), code, detail)
	}
	r.buf = appendLink(r.buf, o.name, target)
	return nil
}

func (r *renderer) file(o op) error {
	f, err := o.dir.open(o.in)
	if err != nil {
		return err
	}
	defer f.Close()
	size, executable, err := f.stat()
	if err != nil {
		return &fs.PathError{Op: "dump", Path: o.dir.path(o.in), Err: err}
	}
	if size < 0 || !contentsFit(0, uint64(size), MaxDepth) {
		return refuse(o.dir.path(o.in), CodeSize, fmt.Sprintf("contents of %d bytes are too large", size))
	}
	r.buf = appendRegular(appendEntry(r.buf, o.name), executable, size)
	// One byte more is read than there should be, so that the end of a file that has
	// not grown costs no read of its own.
	left := size + 1
	for left > 0 {
		if err := r.room(1); err != nil {
			return err
		}
		free := r.buf[len(r.buf):cap(r.buf)]
		n, err := f.Read(free[:min(int64(len(free)), left)])
		left -= int64(n)
		if left == 0 {
			return refuse(o.dir.path(o.in), CodeSize, fmt.Sprintf("the file has grown beyond %d bytes", size))
		}
		r.buf = r.buf[:len(r.buf)+n]
		if err == io.EOF || err == nil && n == 0 {
			break
		}
		if err != nil {
			return &fs.PathError{Op: "dump", Path: o.dir.path(o.in), Err: err}
		}
	}
	if left > 1 {
		return refuse(o.dir.path(o.in), CodeSize, fmt.Sprintf("the file has shrunk by %d of %d bytes", left-1, size))
	}
	if err := r.room(7 + len(tokClose+tokClose)); err != nil {
		return err
	}
	r.buf = append(r.buf, zeros[:pad(size)]...)
	r.buf = appendEnd(r.buf, o.name)
	return nil
}
