// Package cas keeps blobs by the SHA-256 of their bytes.
//
//	DIR/HH/SHA256      a blob, mode 0444; HH are the first two digits
//	DIR/tmp/N          a blob on its way in, held by a lock of its writer
//
// The digest is checked on the way in and again on the way out, here and
// nowhere else, so that no caller can forget it. A blob has its name only after
// its bytes are durable: whatever has a name is whole. On the way out, the end
// of the file is reported only after size and digest agree; until then nothing
// that was read may be believed.
//
//	w, err := store.Create()
//	io.Copy(w, r)
//	digest, size, err := w.Commit(want)     // zero want: whatever it is
//
// Killed at any moment, a writer leaves at most a file in tmp whose lock the
// kernel has released; [Store.SweepTemp] removes those and spares the living.
package cas

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

const (
	tmpDir   = "tmp"
	blobPerm = 0o444
	// copyBuffer is the unit in which blobs are copied.
	copyBuffer = 256 << 10
)

// ErrNotFound is returned, wrapped, for a blob that is not there.
var ErrNotFound = errors.New("no such blob")

// A MismatchError says that what came in is not what was announced. Nothing has been kept.
type MismatchError struct {
	Want, Got         trust.Digest
	WantSize, GotSize int64 // -1 where unknown
}

func (e *MismatchError) Error() string {
	if e.WantSize >= 0 && e.WantSize != e.GotSize {
		if e.GotSize > e.WantSize {
			return fmt.Sprintf("blob %s: more than the %d bytes announced", e.Want, e.WantSize)
		}
		return fmt.Sprintf("blob %s: %d bytes, announced were %d", e.Want, e.GotSize, e.WantSize)
	}
	return fmt.Sprintf("blob has sha256 %s, announced was %s", e.Got, e.Want)
}

// A CorruptError says that a stored blob is no longer what its name says.
type CorruptError struct {
	Digest trust.Digest
	Detail string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("stored blob %s is corrupt: %s", e.Digest, e.Detail)
}

// A Store is a directory of blobs. Several processes may use it at once.
type Store struct {
	dir   string
	calls durable.Calls
}

// Create makes the directory of a new store. It must not exist.
func Create(dir string) error {
	var c durable.OS
	if err := c.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := c.Mkdir(filepath.Join(dir, tmpDir), 0o755); err != nil {
		return err
	}
	if err := durable.SyncDir(c, dir); err != nil {
		return err
	}
	return durable.SyncDir(c, filepath.Dir(dir))
}

// Open opens a store that [Create] made. A missing one is an error.
func Open(dir string) (*Store, error) { return OpenCalls(dir, durable.OS{}) }

// OpenCalls is Open with the system calls given.
func OpenCalls(dir string, calls durable.Calls) (*Store, error) {
	fi, err := os.Stat(filepath.Join(dir, tmpDir))
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("blob store: %s is not a directory", filepath.Join(dir, tmpDir))
	}
	return &Store{dir: dir, calls: calls}, nil
}

// Dir is where the store lies.
func (s *Store) Dir() string { return s.dir }

func (s *Store) path(d trust.Digest) string {
	h := d.String()
	return filepath.Join(s.dir, h[:2], h)
}

// A Writer takes one blob in.
type Writer struct {
	s    *Store
	f    *os.File
	tmp  string
	hash hash.Hash
	size int64
	err  error // the first error; it sticks
	done bool
}

// Create begins a blob. The writer must be ended by Commit or Abort.
func (s *Store) Create() (*Writer, error) {
	f, tmp, err := durable.CreateTemp(s.calls, filepath.Join(s.dir, tmpDir), blobPerm)
	if err != nil {
		return nil, fmt.Errorf("blob store: %w", err)
	}
	return &Writer{s: s, f: f, tmp: tmp, hash: sha256.New()}, nil
}

// Write adds bytes. After an error nothing more is taken.
func (w *Writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, fs.ErrClosed
	}
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.s.calls.Write(w.f, p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		w.err = fmt.Errorf("blob store: %w", err)
	}
	return n, w.err
}

// Size is the number of bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Abort drops what was written. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	w.s.calls.Remove(w.tmp)
	w.f.Close()
}

// Commit makes the blob durable and then gives it its name. A want that is not
// zero must be its digest. If Commit fails nothing of the blob is kept, except
// when only the last sync failed: then a whole blob may be there.
func (w *Writer) Commit(want trust.Digest) (trust.Digest, int64, error) {
	if w.done {
		return trust.Digest{}, 0, fs.ErrClosed
	}
	defer w.Abort()
	if w.err != nil {
		return trust.Digest{}, 0, w.err
	}
	var got trust.Digest
	w.hash.Sum(got[:0])
	if want != (trust.Digest{}) && got != want {
		return trust.Digest{}, 0, &MismatchError{Want: want, Got: got, WantSize: -1, GotSize: w.size}
	}
	fail := func(err error) (trust.Digest, int64, error) {
		return trust.Digest{}, 0, fmt.Errorf("blob store: %s: %w", got, err)
	}
	if err := w.s.calls.Sync(w.f); err != nil {
		return fail(err)
	}
	path := w.s.path(got)
	if err := durable.MkdirAll(w.s.calls, filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	// Over a blob that is already there, too: this one has just been checked, that one perhaps rotted.
	if err := w.s.calls.Rename(w.tmp, path); err != nil {
		return fail(err)
	}
	w.done = true
	err := durable.SyncDir(w.s.calls, filepath.Dir(path))
	if err := errors.Join(err, w.f.Close()); err != nil {
		return fail(err)
	}
	return got, w.size, nil
}

// Put takes in a blob whose digest and size are known before. No more than one byte beyond size is read.
func (s *Store) Put(r io.Reader, want trust.Digest, size int64) error {
	w, err := s.Create()
	if err != nil {
		return err
	}
	defer w.Abort()
	buf := make([]byte, min(copyBuffer, size+1))
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{io.LimitReader(r, size+1)}, buf)
	if err != nil {
		return err
	}
	if n != size {
		return &MismatchError{Want: want, WantSize: size, GotSize: n}
	}
	_, _, err = w.Commit(want)
	return err
}

// PutBytes takes in a blob from memory and returns its digest.
func (s *Store) PutBytes(b []byte) (trust.Digest, error) {
	d := trust.Sum(b)
	w, err := s.Create()
	if err != nil {
		return d, err
	}
	defer w.Abort()
	if _, err := w.Write(b); err != nil {
		return d, err
	}
	_, _, err = w.Commit(d)
	return d, err
}

// A Reader gives a blob out. Read reports io.EOF only after size and digest
// have agreed; otherwise it ends in a [*CorruptError].
type Reader struct {
	f    *os.File
	want trust.Digest
	hash hash.Hash
	size int64
	read int64
	err  error
}

// Open opens a blob; a missing one is ErrNotFound.
func (s *Store) Open(d trust.Digest) (*Reader, error) {
	f, err := os.Open(s.path(d))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("blob store: %s: %w", d, ErrNotFound)
		}
		return nil, fmt.Errorf("blob store: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("blob store: %w", err)
	}
	if !fi.Mode().IsRegular() {
		f.Close()
		return nil, &CorruptError{d, "not a regular file"}
	}
	return &Reader{f: f, want: d, hash: sha256.New(), size: fi.Size()}, nil
}

// Size is the blob's size.
func (r *Reader) Size() int64 { return r.size }

// Read reads and hashes.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.f.Read(p)
	r.hash.Write(p[:n])
	r.read += int64(n)
	switch {
	case r.read > r.size:
		r.err = &CorruptError{r.want, "it grew while it was read"}
	case err == io.EOF:
		r.err = r.check()
	case err != nil:
		r.err = fmt.Errorf("blob store: %w", err)
	}
	return n, r.err
}

func (r *Reader) check() error {
	if r.read != r.size {
		return &CorruptError{r.want, fmt.Sprintf("ended after %d of %d bytes", r.read, r.size)}
	}
	var got trust.Digest
	r.hash.Sum(got[:0])
	if got != r.want {
		return &CorruptError{r.want, fmt.Sprintf("its sha256 is now %s", got)}
	}
	return io.EOF
}

// Close ends reading.
func (r *Reader) Close() error { return r.f.Close() }

// ReadAll returns a whole, checked blob of at most limit bytes.
func (s *Store) ReadAll(d trust.Digest, limit int64) ([]byte, error) {
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.size > limit {
		return nil, fmt.Errorf("blob store: %s has %d bytes, the limit is %d", d, r.size, limit)
	}
	b := make([]byte, 0, r.size+1)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, err
		}
		if len(b) == cap(b) {
			return nil, &CorruptError{d, "it grew while it was read"}
		}
	}
}

// Check reads a blob through and compares.
func (s *Store) Check(d trust.Digest) error {
	r, err := s.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, copyBuffer))
	return err
}

// Has says whether a blob is there, and its size.
func (s *Store) Has(d trust.Digest) (int64, bool) {
	fi, err := os.Stat(s.path(d))
	if err != nil || !fi.Mode().IsRegular() {
		return 0, false
	}
	return fi.Size(), true
}

// Remove removes a blob; a missing one is no error.
func (s *Store) Remove(d trust.Digest) error {
	if err := s.calls.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob store: %w", err)
	}
	return nil
}

// Walk calls fn for each blob, in the order of their digests. A file that has
// no business in the store is an error.
func (s *Store) Walk(fn func(d trust.Digest, size int64) error) error {
	prefixes, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("blob store: %w", err)
	}
	for _, p := range prefixes {
		if p.Name() == tmpDir {
			continue
		}
		if _, err := strconv.ParseUint(p.Name(), 16, 8); err != nil || len(p.Name()) != 2 {
			return fmt.Errorf("blob store: %q does not belong here", filepath.Join(s.dir, p.Name()))
		}
		blobs, err := os.ReadDir(filepath.Join(s.dir, p.Name()))
		if err != nil {
			return fmt.Errorf("blob store: %w", err)
		}
		for _, b := range blobs {
			d, err := trust.ParseDigest(b.Name())
			if err != nil || b.Name()[:2] != p.Name() || !b.Type().IsRegular() {
				return fmt.Errorf("blob store: %q does not belong here", filepath.Join(s.dir, p.Name(), b.Name()))
			}
			fi, err := b.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed since
			}
			if err != nil {
				return fmt.Errorf("blob store: %w", err)
			}
			if err := fn(d, fi.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// Sweep removes the temporary files of dead writers and every blob that keep
// does not want. The caller must exclude whoever puts blobs in before the
// catalog mentions them: to keep, such a blob is not wanted.
func (s *Store) Sweep(keep func(d trust.Digest) bool) (removed int, bytes int64, err error) {
	if err := s.SweepTemp(); err != nil {
		return 0, 0, err
	}
	err = s.Walk(func(d trust.Digest, size int64) error {
		if keep(d) {
			return nil
		}
		if err := s.Remove(d); err != nil {
			return err
		}
		removed++
		bytes += size
		return nil
	})
	return removed, bytes, err
}

// SweepTemp removes the temporary files of writers that no longer live. It may run at any time.
func (s *Store) SweepTemp() error {
	if err := durable.SweepTemp(s.calls, filepath.Join(s.dir, tmpDir)); err != nil {
		return fmt.Errorf("blob store: %w", err)
	}
	return nil
}
