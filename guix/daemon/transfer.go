package daemon

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/blake2s"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
)

// newHash returns the hash functions that the daemon knows.
func newHash(algo string) (hash.Hash, error) {
	switch algo {
	case "md5":
		return md5.New(), nil
	case "sha1":
		return sha1.New(), nil
	case "sha256":
		return sha256.New(), nil
	case "sha512":
		return sha512.New(), nil
	case "sha3-256":
		return sha3.New256(), nil
	case "sha3-512":
		return sha3.New512(), nil
	case "blake2s-256":
		return blake2s.New256(nil)
	}
	return nil, fmt.Errorf("guix-daemon: the daemon knows no hash algorithm %.32q", algo)
}

// AddNar adds the tree of the archive that r begins with, as an item whose path follows from the hash of the archive
// by algo, usually "sha256". It reads exactly the archive.
func (c *Client) AddNar(ctx context.Context, name, algo string, r io.Reader) (storepath.Path, error) {
	return c.add(ctx, name, algo, true, func(out io.Writer, sum hash.Hash) error {
		z := nar.NewReader(io.TeeReader(r, io.MultiWriter(out, sum)))
		for {
			if _, err := z.Next(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}

// AddFile adds a file of size bytes, as an item whose path follows from the hash of the contents by algo.
func (c *Client) AddFile(ctx context.Context, name, algo string, size int64, contents io.Reader) (storepath.Path, error) {
	return c.add(ctx, name, algo, false, func(out io.Writer, sum hash.Hash) error {
		return nar.WriteFile(out, size, false, io.TeeReader(contents, sum))
	})
}

func (c *Client) add(ctx context.Context, name, algo string, recursive bool, send func(io.Writer, hash.Hash) error) (p storepath.Path, err error) {
	sum, err := newHash(algo)
	if err != nil {
		return p, err
	}
	if err := storepath.CheckName(name); err != nil {
		return p, err
	}
	err = c.do(ctx, OpAdd, func(t talk) error {
		w := t.w
		w.putNumber(uint64(OpAdd))
		w.putString(name)
		w.putNumber(1) // obsolete
		w.putBool(recursive)
		w.putString(algo)
		if w.err == nil {
			if err := send(putter{w}, sum); err != nil && w.err == nil {
				// The daemon waits for the rest of an archive that will not come.
				w.err = err
				return err
			}
		}
		w.flush()
		if w.err != nil {
			return t.hear()
		}
		if err := t.last(); err != nil {
			return err
		}
		want, err := storepath.FixedOutput(name, algo, recursive, sum.Sum(nil))
		if err != nil {
			return err
		}
		p = expect(w, want)
		return w.err
	})
	if err != nil {
		return storepath.Path{}, err
	}
	return p, nil
}

// putter is the wire as a writer.
type putter struct{ w *wire }

func (p putter) Write(b []byte) (int, error) {
	p.w.put(b)
	if p.w.err != nil {
		return 0, p.w.err
	}
	return len(b), nil
}

// expect reads a path that is known.
func expect(w *wire, want storepath.Path) storepath.Path {
	at := w.off
	p := w.path()
	if w.err == nil && p != want {
		w.fail(at, CodeMismatch, nil, "%s was added as %s", want, p)
	}
	return p
}

// AddText adds a file that refers to refs, a derivation for example.
func (c *Client) AddText(ctx context.Context, name string, text []byte, refs []storepath.Path) (p storepath.Path, err error) {
	if err := check(refs...); err != nil {
		return p, err
	}
	want, err := storepath.Text(name, sha256.Sum256(text), refs)
	if err != nil {
		return p, err
	}
	err = c.call(ctx, OpAddText, func(w *wire) {
		w.putString(name)
		w.putString(string(text))
		w.putPaths(refs)
	}, func(w *wire) { p = expect(w, want) })
	if err != nil {
		return storepath.Path{}, err
	}
	return p, nil
}

// Export writes the items, in the order given, as a stream that [archive.Reader] and guix archive --import read. The
// daemon signs each with its own key, for which it has to have one; the closure is
// the caller's business. The items that are returned are what the stream says, not
// verified. After an error, what was written is worthless.
func (c *Client) Export(ctx context.Context, out io.Writer, paths ...storepath.Path) ([]*archive.Item, error) {
	if err := check(paths...); err != nil {
		return nil, err
	}
	var items []*archive.Item
	err := c.do(ctx, OpExport, func(t talk) error {
		for _, p := range paths {
			if _, err := out.Write(number(1)); err != nil {
				return err
			}
			item, err := export(t, out, p)
			if err != nil {
				return absent(t, p, err)
			}
			items = append(items, item)
		}
		_, err := out.Write(number(0))
		return err
	})
	if err != nil {
		return nil, err
	}
	return items, nil
}

func number(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func export(t talk, out io.Writer, p storepath.Path) (*archive.Item, error) {
	w := t.w
	w.putNumber(uint64(OpExport))
	w.putPath(p)
	w.putNumber(1) // sign it
	w.flush()
	if w.err != nil {
		return nil, t.hear()
	}
	at := w.off
	x := &exported{t: t, out: out}
	// The stream of this item alone.
	z := archive.NewReader(io.MultiReader(bytes.NewReader(number(1)), x, bytes.NewReader(number(0))))
	item, err := func() (*archive.Item, error) {
		if _, err := z.Next(); err != nil {
			return nil, err
		}
		item, err := z.Item()
		if err != nil {
			return nil, err
		}
		if _, err := z.Next(); err != io.EOF {
			return nil, err
		}
		return item, nil
	}()
	var malformed *archive.Error
	switch {
	case x.err != nil && x.err != io.EOF:
		// The daemon's, or the wire's, or the caller's writer's, after which the rest of the item is still to come.
		if said := (*Error)(nil); w.err == nil && !errors.As(x.err, &said) {
			w.err = x.err
		}
		return nil, x.err
	case errors.As(err, &malformed):
		w.fail(at, CodeStream, malformed, "what was exported as %s: %v", p, err)
	case err != nil:
		w.err = err
	case item.Path != p:
		w.fail(at, CodeStream, nil, "%s was exported as %s", item.Path, p)
	}
	if w.err != nil {
		return nil, w.err
	}
	w.one()
	return item, w.err
}

// exported reads the data that the daemon writes, and copies it to out.
type exported struct {
	t    talk
	out  io.Writer
	size uint64 // of the message
	left uint64 // of it
	err  error
}

func (x *exported) Read(p []byte) (int, error) {
	w := x.t.w
	for x.err == nil && x.left == 0 {
		if x.size > 0 {
			w.padding(x.size)
			x.size = 0
		}
		kind, err := x.t.message()
		switch {
		case err != nil:
			x.err = err
		case kind == messageLast:
			x.err = io.EOF
		case kind == messageWrite:
			x.size = w.number()
			x.left = x.size
			x.err = w.err
		default:
			x.err = x.t.stray(kind)
		}
	}
	if x.err != nil || len(p) == 0 {
		return 0, x.err
	}
	p = p[:min(uint64(len(p)), x.left)]
	n, err := w.in.Read(p)
	w.off += int64(n)
	x.left -= uint64(n)
	if n > 0 {
		if _, err := x.out.Write(p[:n]); err != nil {
			x.err = err
			return 0, err
		}
	}
	switch {
	case err == io.EOF:
		w.fail(w.off, CodeTruncated, io.ErrUnexpectedEOF, "the connection ended")
		x.err = w.err
	case err != nil:
		w.err, x.err = err, err
	}
	return n, x.err
}

// Import has the daemon take in the items of a stream, as guix archive --export or [Client.Export] write it, up to its end. It returns
// their paths. The daemon wants each to be signed by a key that it is told to trust.
//
// Each item is read by package archive on the way, and handed to check, if that is not nil, with
// everything that the stream says of it. The daemon gets the end of an item, without which it takes in nothing,
// only after check has returned nil. Items before one that is refused stay in the store.
func (c *Client) Import(ctx context.Context, r io.Reader, check func(*archive.Item) error) ([]storepath.Path, error) {
	g := newGate(r, check)
	err := c.do(ctx, OpImport, func(t talk) error {
		w := t.w
		w.putNumber(uint64(OpImport))
		w.flush()
		if w.err != nil {
			return t.hear()
		}
		b := make([]byte, 32<<10)
		for {
			kind, err := t.message()
			switch {
			case err != nil:
				return err
			case kind == messageLast && !g.ended():
				return t.stray(kind)
			case kind == messageLast:
				at := w.off
				n := w.count()
				if w.err == nil && n != uint64(len(g.paths)) {
					w.fail(at, CodeAnswer, nil, "%d items were imported, the daemon says %d", len(g.paths), n)
				}
				for i := range n {
					at := w.off
					if p := w.path(); w.err == nil && p != g.paths[i] {
						w.fail(at, CodeAnswer, nil, "%s was imported, the daemon says %s", g.paths[i], p)
					}
				}
				return w.err
			case kind != messageRead || g.ended():
				return t.stray(kind)
			}
			most := w.number()
			if w.err == nil && most == 0 {
				w.fail(w.off-8, CodeNumber, nil, "no bytes are asked for")
			}
			if w.err != nil {
				return w.err
			}
			n, err := g.Read(b[:min(most, uint64(len(b)))])
			w.putString(string(b[:n]))
			w.flush()
			if w.err != nil {
				return t.hear()
			}
			if n == 0 {
				// An empty string is the end for the daemon, and an error.
				if _, said := t.message(); !errors.As(said, new(*Error)) && w.err == nil {
					w.err = ErrClosed // it should have complained; who knows what it waits for
				}
				return err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return g.paths, nil
}

// A gate reads a stream and lets through what has been judged.
type gate struct {
	tap     tap
	z       *archive.Reader
	check   func(*archive.Item) error
	nar     *nar.Reader // of the current item
	buf     []byte
	start   int64 // of the current item's archive
	judged  int64 // up to where bytes may pass
	passed  int64
	paths   []storepath.Path
	current int // 0 before an item, 1 in its archive, 2 after the stream
	err     error
}

// A tap keeps what was read through it.
type tap struct {
	r    io.Reader
	kept bytes.Buffer
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.kept.Write(p[:max(n, 0)])
	return n, err
}

func newGate(r io.Reader, check func(*archive.Item) error) *gate {
	g := &gate{tap: tap{r: r}, check: check, buf: make([]byte, 16<<10)}
	g.z = archive.NewReader(&g.tap)
	return g
}

// ended tells whether all of the stream has passed.
func (g *gate) ended() bool { return g.current == 2 && g.passed == g.judged }

// Read returns at least one byte, or an error. There is no io.EOF: ended comes before.
func (g *gate) Read(p []byte) (int, error) {
	for g.passed == g.judged {
		if g.err == nil {
			g.err = g.step()
		}
		if g.err != nil {
			return 0, g.err
		}
	}
	n, _ := g.tap.kept.Read(p[:min(int64(len(p)), g.judged-g.passed)])
	g.passed += int64(n)
	return n, nil
}

// step judges a little more.
func (g *gate) step() error {
	switch g.current {
	case 2:
		return io.ErrUnexpectedEOF
	case 0:
		z, err := g.z.Next()
		if err == io.EOF {
			g.judged += 8
			g.current = 2
			return nil
		}
		if err != nil {
			return err
		}
		g.nar, g.current = z, 1
		g.start = g.judged + 8
		g.judged = g.start
		return nil
	}
	n, err := g.nar.Read(g.buf)
	if n == 0 && err == io.EOF {
		_, err = g.nar.Next()
	}
	g.judged = g.start + g.nar.Offset()
	if err == nil {
		return nil
	}
	item, err := g.z.Item() // which repeats an error of the archive, with its place in the stream
	if err != nil {
		return err
	}
	if g.check != nil {
		if err := g.check(item); err != nil {
			return err
		}
	}
	g.paths = append(g.paths, item.Path)
	g.judged = g.start + item.NarSize + 8 + sizeOf(item.Path.String()) + 8 + sizeOf(item.Deriver.String()) + 8 + sizeOf(string(item.Signature))
	for _, ref := range item.References {
		g.judged += sizeOf(ref.String())
	}
	g.current = 0
	return nil
}

// sizeOf is the size of a string on the wire.
func sizeOf(s string) int64 { return int64(8 + (len(s)+7)&^7) }
