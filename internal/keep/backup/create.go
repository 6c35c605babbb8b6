package backup

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// Options are what creating a backup needs.
type Options struct {
	WithKeys bool                           // also the secret keys of ledger and station: who has them can sign for the zone
	Progress func(bytes int64, file string) // may be nil
}

// ErrExists says that there is something in the backup's place: a backup is never written over.
var ErrExists = errors.New("it is there already; a backup is never written over")

// IsArchive says whether a backup of this name is a tar archive.
func IsArchive(name string) bool { return strings.HasSuffix(name, ".tar") }

// Create makes a backup of a zone that is open, and may be in use by others: a
// directory or, if the name ends in .tar, an archive. It appears whole or not at all.
func Create(ctx context.Context, z *store.Zone, to string, opts Options) (*Manifest, error) {
	to, err := filepath.Abs(to)
	if err != nil {
		return nil, err
	}
	if inside(z.Dir, to) {
		return nil, fmt.Errorf("%s: a backup does not lie in the zone itself", to)
	}
	if _, err := os.Lstat(to); err == nil {
		return nil, fmt.Errorf("%s: %w", to, ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tmp, done, err := durable.TempBeside(to, "backup")
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	defer done()
	c := &creation{ctx: ctx, z: z, dir: tmp, opts: opts, m: &Manifest{Date: z.Now(), Keys: opts.WithKeys}}
	if c.opts.Progress == nil {
		c.opts.Progress = func(int64, string) {}
	}
	made, err := c.make(IsArchive(to))
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	// Not over what appeared meanwhile.
	if _, err := os.Lstat(to); err == nil {
		return nil, fmt.Errorf("%s: %w", to, ErrExists)
	}
	if err := durable.Rename(durable.OS{}, made, to); err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return c.m, nil
}

// inside says whether path lies in dir.
func inside(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// A creation is one run of Create.
type creation struct {
	ctx  context.Context
	z    *store.Zone
	dir  string // where it is made
	opts Options
	m    *Manifest
	out  writer
}

// A writer takes in the files of a backup.
type writer interface {
	// put stores size bytes of r. link, if not empty, is a file with the same bytes.
	put(name string, size int64, perm fs.FileMode, r io.Reader, link string) error
	close() error
}

func (c *creation) make(archive bool) (made string, err error) {
	// The catalog first: whatever it names was stored before, and is copied afterwards.
	snapshot := filepath.Join(c.dir, "snapshot")
	if err := os.Mkdir(snapshot, 0o700); err != nil {
		return "", err
	}
	if err := c.room(archive); err != nil {
		return "", err
	}
	if c.m.Checkpoint, err = c.z.Snapshot(c.ctx, snapshot); err != nil {
		return "", err
	}
	if archive {
		made = filepath.Join(c.dir, "backup.tar")
		c.out, err = newTarWriter(made, c.m.Date)
	} else {
		made = filepath.Join(c.dir, "backup")
		c.out, err = newDirWriter(made)
	}
	if err != nil {
		return "", err
	}
	err = c.files(snapshot)
	return made, errors.Join(err, c.out.close())
}

// room checks that there is space for what is copied.
func (c *creation) room(archive bool) error {
	need, err := c.z.SnapshotSize()
	if err != nil {
		return err
	}
	var here, there syscall.Stat_t
	if err := errors.Join(syscall.Stat(c.z.CAS.Dir(), &here), syscall.Stat(c.dir, &there)); err != nil {
		return err
	}
	if archive || here.Dev != there.Dev {
		if archive {
			need *= 2
		}
		if err := c.z.CAS.Walk(func(_ trust.Digest, size int64) error { need += size; return nil }); err != nil {
			return err
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(c.dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; need > free {
		return &store.SpaceError{Dir: filepath.Dir(c.dir), Need: need, Free: free}
	}
	return nil
}

// skipped are the names at the top of a zone that a backup does not have, or has in its own way. Repositories are made again from the cas.
var skipped = []string{"lock", "tmp", "cas", "catalog.sqlite", "restored", "served", "channels"}

func (c *creation) files(snapshot string) error {
	if err := c.tree(snapshot, ".", true, nil); err != nil {
		return err
	}
	err := c.tree(c.z.Dir, ".", false, func(name string) bool {
		top, _, _ := strings.Cut(name, "/")
		return slices.Contains(skipped, top) || strings.HasPrefix(top, "catalog.sqlite") || name == "public/ledger" ||
			path.Dir(name) == "keys" && !c.opts.WithKeys && !strings.HasSuffix(name, ".vkey")
	})
	if err != nil {
		return err
	}
	err = c.z.CAS.Walk(func(d trust.Digest, size int64) error {
		name := path.Join("cas", d.String()[:2], d.String())
		r, err := c.z.CAS.Open(d)
		if errors.Is(err, cas.ErrNotFound) {
			return nil // removed since: nothing named it
		}
		if err != nil {
			return err
		}
		defer r.Close()
		return c.file(name, size, 0o444, r, filepath.Join(c.z.CAS.Dir(), d.String()[:2], d.String()), d)
	})
	if err != nil {
		return err
	}
	slices.SortFunc(c.m.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	text := c.m.Text()
	if _, err := ParseManifest(text); err != nil {
		return fmt.Errorf("a manifest that would be refused: %w", err)
	}
	return c.out.put(manifestFile, int64(len(text)), 0o644, strings.NewReader(string(text)), "")
}

// tree copies the regular files below dir/name, by links if they are this run's own. What is neither file nor directory has no business in a zone.
func (c *creation) tree(dir, name string, own bool, skip func(name string) bool) error {
	list, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) && name != "." {
		return nil // partial tiles, notes: gone since
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		sub := path.Join(name, e.Name())
		if skip != nil && skip(sub) {
			continue
		}
		switch {
		case e.IsDir():
			err = c.tree(dir, sub, own, skip)
		case e.Type().IsRegular():
			err = c.plain(filepath.Join(dir, filepath.FromSlash(sub)), sub, own)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", filepath.Join(dir, sub))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *creation) plain(from, name string, own bool) error {
	f, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	link := ""
	if own {
		link = from
	}
	return c.file(name, fi.Size(), fi.Mode().Perm(), f, link, trust.Digest{})
}

// file copies a file, or links it, and notes it. A blob that is linked is not read: its name is its digest, and Verify reads it.
func (c *creation) file(name string, size int64, perm fs.FileMode, r io.Reader, link string, known trust.Digest) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if err := checkPath(name); err != nil {
		return err
	}
	hash := sha256.New()
	seen := &counted{r: io.TeeReader(r, hash)}
	if err := c.out.put(name, size, perm, seen, link); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f := File{SHA256: known, Size: size, Path: name}
	if known == (trust.Digest{}) && seen.n == 0 {
		if _, err := io.Copy(io.Discard, seen); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if seen.n > 0 || size == 0 {
		hash.Sum(f.SHA256[:0])
		if seen.n != size || known != (trust.Digest{}) && f.SHA256 != known {
			return fmt.Errorf("%s: it changed while it was read", name)
		}
	}
	c.m.Files = append(c.m.Files, f)
	c.opts.Progress(size, name)
	return nil
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// --- into a directory

type dirWriter struct {
	dir  string
	made map[string]bool
}

func newDirWriter(dir string) (*dirWriter, error) {
	return &dirWriter{dir, map[string]bool{}}, os.Mkdir(dir, 0o700)
}

func (w *dirWriter) put(name string, size int64, perm fs.FileMode, r io.Reader, link string) (err error) {
	to := filepath.Join(w.dir, filepath.FromSlash(name))
	if dir := filepath.Dir(to); !w.made[dir] {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		w.made[dir] = true
	}
	if link != "" {
		err := os.Link(link, to)
		if err == nil || !linkless(err) {
			return err
		}
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, io.LimitReader(r, size))
	if err == nil {
		err = drained(r)
	}
	return errors.Join(err, f.Close())
}

// linkless says whether a link could not be made because of where the two places lie.
func linkless(err error) bool {
	return errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EOPNOTSUPP) ||
		errors.Is(err, syscall.ENOENT) // removed since; it is still open
}

// drained reads the end, at which a reader of blobs says whether it was whole.
func drained(r io.Reader) error {
	n, err := r.Read(make([]byte, 1))
	if n > 0 {
		return errors.New("it grew while it was read")
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// close makes all of it durable with one call; it is renamed only then.
func (w *dirWriter) close() error { return syncAll(w.dir) }

func syncAll(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// --- into an archive

type tarWriter struct {
	f    *os.File
	w    *tar.Writer
	date time.Time
}

func newTarWriter(path string, date time.Time) (*tarWriter, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &tarWriter{f, tar.NewWriter(f), date}, nil
}

func (w *tarWriter) put(name string, size int64, perm fs.FileMode, r io.Reader, _ string) error {
	if err := w.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(perm.Perm()), ModTime: w.date, Format: tar.FormatPAX}); err != nil {
		return err
	}
	if _, err := io.Copy(w.w, io.LimitReader(r, size)); err != nil {
		return err
	}
	return drained(r)
}

func (w *tarWriter) close() error {
	return errors.Join(w.w.Close(), w.f.Sync(), w.f.Close())
}
