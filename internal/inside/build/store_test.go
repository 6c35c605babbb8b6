package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build/sandbox"
)

// A store is a directory with items and what they refer to.
type store struct {
	dir        string
	work       string
	references map[storepath.Path][]storepath.Path
	drvs       map[storepath.Path]*derivation.Derivation
}

func newStore(t testing.TB) *store {
	t.Helper()
	base := t.TempDir()
	s := &store{
		dir:        filepath.Join(base, "store"),
		work:       filepath.Join(base, "work"),
		references: make(map[storepath.Path][]storepath.Path),
		drvs:       make(map[storepath.Path]*derivation.Derivation),
	}
	for _, d := range []string{s.dir, s.work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		assertNothingLeft(t, s.work)
		if err := errors.Join(removeTree(s.dir), removeTree(s.work)); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *store) path(p storepath.Path) string { return filepath.Join(s.dir, p.Base()) }

// addNar restores a nar as the item p.
func (s *store) addNar(t testing.TB, p storepath.Path, r io.Reader, refs ...storepath.Path) {
	t.Helper()
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := nar.Restore(root, p.Base(), r); err != nil {
		t.Fatal(err)
	}
	s.references[p] = refs
}

// addSource makes a source item of the tree that fill writes, and returns its path.
func (s *store) addSource(t testing.TB, name string, fill func(w *nar.Writer) error) storepath.Path {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	if err := errors.Join(fill(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	p, err := storepath.Source(name, sha256Of(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	s.addNar(t, p, &b)
	return p
}

// addText makes a text item.
func (s *store) addText(t testing.TB, name, text string, refs ...storepath.Path) storepath.Path {
	t.Helper()
	p, err := storepath.Text(name, sha256Of([]byte(text)), refs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path(p), []byte(text), 0o444); err != nil {
		t.Fatal(err)
	}
	s.references[p] = refs
	return p
}

// addResult moves the outputs of a build into the store.
func (s *store) addResult(t testing.TB, r *Result) {
	t.Helper()
	for i := range r.Outputs {
		o := &r.Outputs[i]
		if err := o.Move(s.dir); err != nil {
			t.Fatal(err)
		}
		if o.HostPath != s.path(o.Path) || s.dumpHash(t, o.Path) != o.NarHash {
			t.Errorf("%s is not the output after the move", o.HostPath)
		}
		s.references[o.Path] = o.References
	}
}

// closure is of items in the store.
func (s *store) closure(t testing.TB, start ...storepath.Path) []storepath.Path {
	t.Helper()
	seen := make(map[storepath.Path]bool)
	for len(start) > 0 {
		p := start[0]
		start = start[1:]
		if seen[p] {
			continue
		}
		refs, ok := s.references[p]
		if !ok {
			t.Fatalf("%s is not in the store", p)
		}
		seen[p] = true
		start = append(start, refs...)
	}
	var paths []storepath.Path
	for p := range seen {
		paths = append(paths, p)
	}
	slices.SortFunc(paths, storepath.Path.Compare)
	return paths
}

// job is the job to build the derivation at p, whose inputs are in the store.
func (s *store) job(t testing.TB, p storepath.Path, d *derivation.Derivation) Job {
	t.Helper()
	var start []storepath.Path
	for _, text := range d.Sources {
		start = append(start, mustPath(t, text))
	}
	for _, in := range d.Inputs {
		input := s.drvs[mustPath(t, in.Path)]
		if input == nil {
			t.Fatalf("%s is not known", in.Path)
		}
		for _, id := range in.Outputs {
			o, ok := input.Output(id)
			if !ok {
				t.Fatalf("%s has no output %q", in.Path, id)
			}
			start = append(start, mustPath(t, o.Path))
		}
	}
	s.drvs[p] = d
	return Job{
		Derivation: d,
		Path:       p,
		StoreDir:   s.dir,
		Inputs:     s.closure(t, start...),
		WorkDir:    s.work,
		References: func(p storepath.Path) ([]storepath.Path, error) {
			refs, ok := s.references[p]
			if !ok {
				return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
			}
			return refs, nil
		},
	}
}

// run builds job. What it leaves in the work directory is checked when the test ends.
func run(t testing.TB, job Job) (*Result, string, error) {
	t.Helper()
	var log bytes.Buffer
	if job.Log == nil {
		job.Log = &log
	}
	r, err := Run(context.Background(), job)
	var setup *sandbox.SetupError
	if errors.As(err, &setup) && setup.Hint != "" {
		t.Skipf("SKIPPED, nothing was built: %v. Remedy: %s", err, setup.Hint)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, log.String(), err
}

func assertNothingLeft(t testing.TB, work string) {
	t.Helper()
	entries, err := os.ReadDir(work)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), lockSuffix) {
			t.Errorf("%s was left in the work directory", e.Name())
		}
	}
}

func mustPath(t testing.TB, text string) storepath.Path {
	t.Helper()
	p, err := storepath.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkCanonical walks a tree and demands the form of the store.
func checkCanonical(t testing.TB, top string) {
	t.Helper()
	err := filepath.WalkDir(top, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
		case unix.S_IFDIR:
			if st.Mode&0o7777 != 0o555 {
				t.Errorf("%s has mode %o", path, st.Mode)
			}
		default:
			if m := st.Mode & 0o7777; m != 0o444 && m != 0o555 {
				t.Errorf("%s has mode %o", path, st.Mode)
			}
		}
		if st.Mtim.Sec != 1 || st.Mtim.Nsec != 0 {
			t.Errorf("%s has mtime %d.%09d", path, st.Mtim.Sec, st.Mtim.Nsec)
		}
		if int(st.Uid) != os.Geteuid() {
			t.Errorf("%s belongs to %d", path, st.Uid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// readExport takes apart what "guix archive --export" wrote. It judges nothing: these are test inputs.
func readExport(t testing.TB, r io.Reader, s *store) {
	t.Helper()
	number := func() uint64 {
		var b [8]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint64(b[:])
	}
	text := func() string {
		n := number()
		if n > 1<<20 {
			t.Fatalf("a string of %d bytes", n)
		}
		b := make([]byte, (n+7)/8*8)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	for number() == 1 {
		var archive bytes.Buffer
		for z := nar.NewReader(io.TeeReader(r, &archive)); ; {
			if _, err := z.Next(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		number() // "NIXE"
		p := mustPath(t, text())
		var refs []storepath.Path
		for n := number(); n > 0; n-- {
			refs = append(refs, mustPath(t, text()))
		}
		text() // deriver
		if number() == 1 {
			text() // signature
		}
		s.addNar(t, p, &archive, refs...)
	}
}

func sha256Of(b []byte) [32]byte { return sha256.Sum256(b) }

// dumpHash hashes an item of the store anew.
func (s *store) dumpHash(t testing.TB, p storepath.Path) [32]byte {
	t.Helper()
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	sum, _, err := nar.Sum(root.FS(), p.Base())
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
