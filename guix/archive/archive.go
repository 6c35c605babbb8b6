// Package archive reads and writes the streams of guix archive --export: store
// items on their way from one store to another, each with its signature.
//
// # Form
//
// Numbers are 8 bytes, little endian; a str is its length, its bytes, and zero
// bytes up to a multiple of 8, as in a nar.
//
//	stream    = { 1 item } 0
//	item      = nar 0x4558494e str(PATH) COUNT { str(REFERENCE) } str(DERIVER) 1 str(SIGNATURE)
//	PATH      = a store path
//	REFERENCE = a store path; ascending, each once
//	DERIVER   = store path of a derivation, or empty
//	SIGNATURE = see package signature; over the SHA-256 of the item before the 1
//
// The names of things come after the things: a reader has unpacked an archive
// by the time it learns what it is, and may believe it only after that. So
// Reader hands out archives one by one, and each belongs in quarantine until
// Item has told its path and Item.Verify has found it signed.
//
// # Vocabulary
//
// A stream carries items. The archive of an item is its nar. References are
// the items that its contents mention; the deriver is the derivation that
// made it, where there is one. A key is authorised if it is in the access
// control list of whoever reads.
//
// # Reading, an example
//
//	z := archive.NewReader(stream)
//	for {
//		contents, err := z.Next()
//		if err == io.EOF {
//			break // the stream was complete
//		}
//		...
//		// Here contents may be unpacked into quarantine, or left alone.
//		item, err := z.Item()
//		...
//		key, err := item.Verify(acl)
//		...
//		// Now, and not before, item.Path may be believed: key vouches for it.
//	}
//
// A [Writer] is the reverse: Add an item with its archive, as often as there
// are items, then Close.
//
// # What a signature means
//
// Somebody whose key is in the list vouches for all of the item: contents,
// path, references, deriver. Nothing ties the contents to the path, neither
// here nor in the daemon: whoever holds an authorised key can make any path.
// Callers who know how a path is computed should compute it.
//
// # Where the daemon is looser
//
// The daemon accepts, and Reader refuses: bytes after the end of the stream;
// paths without a hash part, with a wrong one, and with names that no item can
// have, "/gnu/store/.." among them, upon which the daemon deletes what is
// there; archives that package nar refuses, among them unsorted ones, which
// then have one hash here and another in the store; derivers that are no
// derivations; what package signature lists.
//
// The daemon refuses, and Reader accepts, references to items that the store
// does not hold: there is no store here.
//
// # Bounds and errors
//
// An item has at most [MaxReferences] references; archives have the bounds of
// package nar, signatures those of package signature. A Reader holds buffers
// of fixed size and one item. What is wrong with a stream is an [*Error] with
// the offset in the stream and a stable code; it wraps a nar.Error if the
// fault lies in an archive. All else is a failure of the source.
//
// # Source
//
// nix/libstore/local-store.cc (exportPath, importPath) and
// guix/serialization.scm of GNU Guix 1.5.0; what they do with the streams in
// vectors/archives has been recorded beside them.
package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// Bounds. Beyond them is an error.
const (
	MaxReferences = 8192
	maxPath       = len(storepath.Dir) + 1 + 255
)

// Reason codes of an Error.
const (
	CodeMark      = "archive-mark"     // neither item nor end where one should be
	CodeMagic     = "archive-magic"    // no number 0x4558494e after the nar
	CodePath      = "archive-path"     // a path, reference or deriver that cannot be
	CodeOrder     = "archive-order"    // references out of order, or twice
	CodeUnsigned  = "archive-unsigned" // an item without signature
	CodeString    = "archive-string"   // a string too long, or padded with other than zeros
	CodeTooLarge  = "archive-too-large"
	CodeTruncated = "archive-truncated"
	CodeTrailing  = "archive-trailing" // bytes after the end
	CodeNar       = "archive-nar"      // the Error wraps a *nar.Error
)

// An Error says where and why something is not an export stream.
type Error struct {
	Offset int64 // in the stream
	Code   string
	Detail string
	err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("archive: byte %d: %s: %s", e.Offset, e.Code, e.Detail)
}

// Unwrap returns the *nar.Error of an archive, io.ErrUnexpectedEOF of a stream
// that ends early, or nil.
func (e *Error) Unwrap() error { return e.err }

// An Item is what a stream says of an archive, and what was found out by
// reading it.
type Item struct {
	Path       storepath.Path
	References []storepath.Path
	Deriver    storepath.Path // zero if there is none
	Signature  []byte

	NarHash [sha256.Size]byte
	NarSize int64
	Hash    [sha256.Size]byte // of what has to be signed
}

// Verify checks that the item, all of it, was signed by a key in acl, and
// returns that key.
func (i *Item) Verify(acl signature.ACL) (signature.PublicKey, error) {
	return signature.Verify(i.Signature, i.Hash, acl)
}

// VerifyStrict is Verify in the strict mode of package signature. All else in
// a stream has one spelling in any case.
func (i *Item) VerifyStrict(acl signature.ACL) (signature.PublicKey, error) {
	return signature.VerifyStrict(i.Signature, i.Hash, acl)
}

const (
	magic   = 0x4558494e
	markEnd = 0
	marked  = 1
)

// A Reader reads a stream. Use Next and Item in turn.
type Reader struct {
	in    *bufio.Reader
	hash  hash.Hash
	off   int64
	nar   *nar.Reader
	start int64 // of the archive
	open  bool  // Next was called and Item was not
	err   error // the first, or io.EOF
}

// NewReader returns a Reader of the stream r, which has to end where the
// stream does.
func NewReader(r io.Reader) *Reader {
	z := &Reader{in: bufio.NewReaderSize(r, 64<<10), hash: sha256.New()}
	z.nar = nar.NewReader(source{z})
	return z
}

// source is the stream as the archive's reader sees it.
type source struct{ z *Reader }

func (s source) Read(p []byte) (int, error) {
	n, err := s.z.in.Read(p)
	s.z.hash.Write(p[:n])
	s.z.off += int64(n)
	return n, err
}

// Next returns a reader of the next archive, valid until Item is called, which
// may leave off anywhere. After the last item the error is io.EOF. An item
// that Item was not called for is read to its end, and forgotten.
func (z *Reader) Next() (*nar.Reader, error) {
	if z.open {
		if _, err := z.Item(); err != nil {
			return nil, err
		}
	}
	if z.err != nil {
		return nil, z.err
	}
	switch mark := z.number(); {
	case z.err != nil:
		return nil, z.err
	case mark == markEnd:
		at := z.off
		switch _, err := z.in.ReadByte(); err {
		case nil:
			return nil, z.refuse(at, CodeTrailing, nil, "the stream goes on after its end")
		case io.EOF:
			z.err = io.EOF
		default:
			z.err = err
		}
		return nil, z.err
	case mark != marked:
		return nil, z.refuse(z.off-8, CodeMark, nil, "%d is neither item nor end", mark)
	}
	z.hash.Reset()
	z.start = z.off
	z.nar.Reset(source{z})
	z.open = true
	return z.nar, nil
}

// Item reads what is left of the archive that Next returned, and then what the
// stream says about it. Nothing of it has been verified.
func (z *Reader) Item() (*Item, error) {
	if z.err != nil {
		return nil, z.err
	}
	if !z.open {
		return nil, errors.New("archive: Item without Next")
	}
	z.open = false
	for {
		if _, err := z.nar.Next(); err == io.EOF {
			break
		} else if err != nil {
			var fault *nar.Error
			if errors.As(err, &fault) {
				return nil, z.refuse(z.start+fault.Offset, CodeNar, err, "%v", err)
			}
			z.err = err
			return nil, err
		}
	}
	item := &Item{NarSize: z.off - z.start}
	z.hash.Sum(item.NarHash[:0])

	if n := z.number(); z.err == nil && n != magic {
		return nil, z.refuse(z.off-8, CodeMagic, nil, "%#x after the archive, not %#x", n, magic)
	}
	item.Path = z.path("path", storepath.Parse)
	count := z.number()
	if z.err == nil && count > MaxReferences {
		return nil, z.refuse(z.off-8, CodeTooLarge, nil, "%d references, at most %d are read", count, MaxReferences)
	}
	for range count {
		at := z.off
		ref := z.path("reference", storepath.Parse)
		if z.err != nil {
			break
		}
		if n := len(item.References); n > 0 && item.References[n-1].Compare(ref) >= 0 {
			return nil, z.refuse(at, CodeOrder, nil, "reference %s after %s", ref, item.References[n-1])
		}
		item.References = append(item.References, ref)
	}
	item.Deriver = z.path("deriver", parseDeriver)
	z.hash.Sum(item.Hash[:0])
	if tail := z.number(); z.err == nil && tail != marked {
		return nil, z.refuse(z.off-8, CodeUnsigned, nil, "no signature of %s", item.Path)
	}
	item.Signature = z.string(signature.MaxText)
	if z.err != nil {
		return nil, z.err
	}
	return item, nil
}

func parseDeriver(s string) (storepath.Path, error) {
	if s == "" {
		return storepath.Path{}, nil
	}
	p, err := storepath.Parse(s)
	if err == nil && !p.IsDerivation() {
		err = errors.New("not a derivation")
	}
	return p, err
}

// refuse makes an Error the first and last of z.
func (z *Reader) refuse(at int64, code string, err error, format string, args ...any) error {
	z.err = &Error{at, code, fmt.Sprintf(format, args...), err}
	return z.err
}

// full fills b, unless there was an error before.
func (z *Reader) full(b []byte) {
	if z.err != nil {
		return
	}
	at := z.off
	switch _, err := io.ReadFull(source{z}, b); err {
	case nil:
	case io.EOF, io.ErrUnexpectedEOF:
		z.refuse(at, CodeTruncated, io.ErrUnexpectedEOF, "the stream ends early")
	default:
		z.err = err
	}
}

func (z *Reader) number() uint64 {
	var b [8]byte
	z.full(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (z *Reader) string(limit int) []byte {
	at := z.off
	n := z.number()
	if z.err != nil {
		return nil
	}
	if n > uint64(limit) {
		z.refuse(at, CodeString, nil, "a string of %d bytes, at most %d are read", n, limit)
		return nil
	}
	b := make([]byte, (n+7)&^7)
	z.full(b)
	if z.err == nil && len(bytes.Trim(b[n:], "\x00")) > 0 {
		z.refuse(at, CodeString, nil, "padding that is not zero")
	}
	if z.err != nil {
		return nil
	}
	return b[:n]
}

func (z *Reader) path(what string, parse func(string) (storepath.Path, error)) storepath.Path {
	at := z.off
	s := z.string(maxPath)
	if z.err != nil {
		return storepath.Path{}
	}
	p, err := parse(string(s))
	if err != nil {
		z.refuse(at, CodePath, nil, "%s %q: %v", what, s, err)
	}
	return p
}

// A Writer writes a stream, signing each item.
type Writer struct {
	out io.Writer
	key signature.SecretKey
	err error
}

// NewWriter returns a Writer to w that signs with key.
func NewWriter(w io.Writer, key signature.SecretKey) *Writer {
	return &Writer{out: w, key: key}
}

// Add writes an item: the archive that r begins with, which is checked on the
// way, then Path, References and Deriver of item. It sets the other fields. An
// error leaves the stream unusable.
func (w *Writer) Add(item *Item, r io.Reader) error {
	if w.err == nil {
		w.err = w.add(item, r)
	}
	return w.err
}

func (w *Writer) add(item *Item, r io.Reader) error {
	if item.Path.IsZero() || !item.Deriver.IsZero() && !item.Deriver.IsDerivation() {
		return errors.New("archive: an item has no path, or a deriver that is no derivation")
	}
	refs := slices.Clone(item.References)
	slices.SortFunc(refs, storepath.Path.Compare)
	if refs = slices.Compact(refs); len(refs) > MaxReferences || slices.Contains(refs, storepath.Path{}) {
		return fmt.Errorf("archive: references of %s are not %d paths or fewer", item.Path, MaxReferences)
	}
	if _, err := w.out.Write(appendNumber(nil, marked)); err != nil {
		return err
	}
	sum := sha256.New()
	// The archive's reader takes from r exactly the archive, so that is what
	// gets copied.
	check := nar.NewReader(io.TeeReader(r, io.MultiWriter(w.out, sum)))
	for {
		if _, err := check.Next(); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("archive: %s: %w", item.Path, err)
		}
	}
	item.NarSize = check.Offset()
	sum.Sum(item.NarHash[:0])

	b := appendNumber(nil, magic)
	b = appendString(b, item.Path.String())
	b = appendNumber(b, uint64(len(refs)))
	for _, ref := range refs {
		b = appendString(b, ref.String())
	}
	deriver := ""
	if !item.Deriver.IsZero() {
		deriver = item.Deriver.String()
	}
	b = appendString(b, deriver)
	sum.Write(b)
	sum.Sum(item.Hash[:0])
	sig, err := signature.Sign(w.key, item.Hash)
	if err != nil {
		return err
	}
	item.References, item.Signature = refs, sig
	b = appendString(appendNumber(b, marked), string(sig))
	_, err = w.out.Write(b)
	return err
}

// Close ends the stream. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err == nil {
		_, w.err = w.out.Write(appendNumber(nil, markEnd))
	}
	return w.err
}

func appendNumber(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

func appendString(b []byte, s string) []byte {
	b = append(appendNumber(b, uint64(len(s))), s...)
	return append(b, make([]byte, -len(s)&7)...)
}
