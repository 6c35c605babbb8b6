package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/trust"
)

// each visits the files of a backup, the manifest among them. What is neither file nor directory, and a name that leads elsewhere, is refused.
func each(ctx context.Context, from string, visit func(name string, size int64, r io.Reader) error) error {
	fi, err := os.Stat(from)
	if err != nil {
		return err
	}
	if fi.IsDir() {
		return eachInDir(ctx, from, visit)
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	return eachInTar(ctx, f, visit)
}

func eachInDir(ctx context.Context, from string, visit func(name string, size int64, r io.Reader) error) error {
	root, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return trust.Refuse("backup-file", name, "it is neither a file nor a directory")
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		return visit(name, st.Size(), f)
	})
}

func eachInTar(ctx context.Context, r io.Reader, visit func(name string, size int64, r io.Reader) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("archive: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			return trust.Refuse("backup-file", trust.Printable(h.Name, 200), "the archive has something else than a file")
		}
		if err := visit(h.Name, h.Size, t); err != nil {
			return err
		}
	}
}

// A tally compares what arrives with what the manifest says.
type tally struct {
	manifest []byte
	seen     map[string]File
	bad      trust.Refusals
	progress func(bytes int64, file string)
}

func newTally(progress func(bytes int64, file string)) *tally {
	if progress == nil {
		progress = func(int64, string) {}
	}
	return &tally{seen: map[string]File{}, progress: progress}
}

// take reads one file to its end, into w, and notes it.
func (t *tally) take(name string, size int64, r io.Reader, w io.Writer) error {
	if name == manifestFile {
		if t.manifest != nil {
			return trust.Refuse("backup-file", name, "it is there twice")
		}
		b, err := io.ReadAll(io.LimitReader(r, MaxManifest+1))
		t.manifest = b
		return err
	}
	if err := checkPath(name); err != nil {
		return trust.Refuse("backup-file", trust.Printable(name, 200), "no zone has a file of this name")
	}
	if _, ok := t.seen[name]; ok {
		return trust.Refuse("backup-file", name, "it is there twice")
	}
	if len(t.seen) >= MaxFiles {
		return trust.Refuse("backup-file", name, "more than %d files", MaxFiles)
	}
	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, hash), r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f := File{Size: n, Path: name}
	hash.Sum(f.SHA256[:0])
	t.seen[name] = f
	t.progress(n, name)
	return nil
}

// compare lists all that is missing, too much or changed.
func (t *tally) compare() (*Manifest, error) {
	if t.manifest == nil {
		return nil, trust.Refuse("backup-manifest", manifestFile, "it is missing: the backup was not finished, or is none")
	}
	m, err := ParseManifest(t.manifest)
	if err != nil {
		return nil, err
	}
	for _, f := range m.Files {
		have, ok := t.seen[f.Path]
		delete(t.seen, f.Path)
		d, blob := blobOf(f.Path)
		switch {
		case !ok:
			t.bad.Add(trust.Refuse("backup-missing", f.Path, "the manifest has it, the backup has not"))
		case have != f:
			t.bad.Add(trust.Refuse("backup-digest", f.Path, "sha256 %s, %d bytes; the manifest says %s, %d", have.SHA256, have.Size, f.SHA256, f.Size))
		case blob && d != f.SHA256:
			t.bad.Add(trust.Refuse("backup-digest", f.Path, "a blob whose sha256 is %s", f.SHA256))
		}
		if t.bad.Full() {
			return nil, t.bad
		}
	}
	for name := range t.seen {
		t.bad.Add(trust.Refuse("backup-extra", name, "the backup has it, the manifest has not"))
		if t.bad.Full() {
			break
		}
	}
	return m, t.bad.Err()
}

// blobOf is the digest that a path says a blob has. A path below cas that is none has the zero digest, which nothing has.
func blobOf(name string) (d trust.Digest, ok bool) {
	rest, ok := strings.CutPrefix(name, "cas/")
	if !ok {
		return d, false
	}
	dir, base, _ := strings.Cut(rest, "/")
	if d, err := trust.ParseDigest(base); err == nil && dir == base[:2] {
		return d, true
	}
	return trust.Digest{}, true
}

// extract writes the files that want wants below dir, and reads all.
func extract(ctx context.Context, from, dir string, want func(name string) bool, progress func(bytes int64, file string)) (*Manifest, error) {
	t := newTally(progress)
	err := each(ctx, from, func(name string, size int64, r io.Reader) error {
		if name == manifestFile || !want(name) || checkPath(name) != nil {
			return t.take(name, size, r, io.Discard)
		}
		to := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		perm := fs.FileMode(0o644)
		switch {
		case strings.HasPrefix(name, "cas/"):
			perm = 0o444
		case strings.HasPrefix(name, "keys/") && !strings.HasSuffix(name, ".vkey"):
			perm = 0o600
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			return trust.Refuse("backup-file", name, "it is there twice")
		}
		if err != nil {
			return err
		}
		return errors.Join(t.take(name, size, r, f), f.Close())
	})
	if err != nil {
		return nil, err
	}
	return t.compare()
}
