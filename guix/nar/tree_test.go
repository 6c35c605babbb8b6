package nar

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// randomTree makes a tree with everything a dump has to cope with, larger than what it
// reads ahead.
func randomTree(t testing.TB, dir string, files int) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	dirs := []string{dir}
	for i := range files {
		in := dirs[rnd.IntN(len(dirs))]
		p := filepath.Join(in, fmt.Sprintf("%c%d", "abcXYZ._~"[rnd.IntN(9)], i))
		switch rnd.IntN(10) {
		case 0:
			check(os.Mkdir(p, 0o755))
			dirs = append(dirs, p)
		case 1:
			check(os.Symlink(fmt.Sprintf("../target %d", i), p))
		default:
			size := rnd.IntN(3000)
			if i%50 == 0 {
				size = dumpBuffer + rnd.IntN(4*dumpBuffer)
			}
			mode := []fs.FileMode{0o644, 0o755, 0o444, 0o555, 0o674, 0o700}[rnd.IntN(6)]
			check(os.WriteFile(p, bytes.Repeat([]byte{byte(i)}, size), 0o600))
			check(os.Chmod(p, mode))
		}
	}
}

func TestDumpTree(t *testing.T) {
	dir := t.TempDir()
	randomTree(t, dir, 1000)
	root := openRoot(t, dir)
	var want bytes.Buffer
	if err := naiveWalk(&want, dir); err != nil {
		t.Fatal(err)
	}
	if err := readAll(bytes.NewReader(want.Bytes())); err != nil {
		t.Fatal(err)
	}
	for name, fsys := range map[string]fs.FS{"root": root.FS(), "dir": os.DirFS(dir)} {
		var got bytes.Buffer
		if err := Dump(&got, fsys, "."); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%s: dumped otherwise", name)
		}
	}

	// And back.
	to := openRoot(t, t.TempDir())
	if err := Restore(to, "copy", bytes.NewReader(want.Bytes())); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := Dump(&got, to.FS(), "copy"); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("restored otherwise")
	}
}

// naiveWalk writes a nar by recursion, with str of the tests.
func naiveWalk(w *bytes.Buffer, name string) error {
	w.WriteString(magic)
	var node func(name string) error
	node = func(name string) error {
		fi, err := os.Lstat(name)
		if err != nil {
			return err
		}
		switch fi.Mode().Type() {
		case fs.ModeDir:
			w.WriteString(strs("(", "type", "directory"))
			list, err := os.ReadDir(name) // in order
			if err != nil {
				return err
			}
			for _, e := range list {
				w.WriteString(strs("entry", "(", "name", e.Name(), "node"))
				if err := node(filepath.Join(name, e.Name())); err != nil {
					return err
				}
				w.WriteString(str(")"))
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			w.WriteString(strs("(", "type", "symlink", "target", target))
		default:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			w.WriteString(strs("(", "type", "regular"))
			if fi.Mode()&0o100 != 0 {
				w.WriteString(strs("executable", ""))
			}
			w.WriteString(strs("contents", string(b)))
		}
		w.WriteString(str(")"))
		return nil
	}
	return node(name)
}

func TestRootIsRecognised(t *testing.T) {
	root := openRoot(t, t.TempDir())
	if rootOf(root.FS()) != root {
		t.Error("the file system of an os.Root does not lead back to it; Dump still works, but slowly, and not for names that are not UTF-8")
	}
	type wrapped struct{ fs.FS }
	for _, fsys := range []fs.FS{os.DirFS("."), wrapped{root.FS()}, fstest.MapFS{}, nil} {
		if rootOf(fsys) != nil {
			t.Errorf("%T is taken for the file system of a root", fsys)
		}
	}
}

func TestDumpMapFS(t *testing.T) {
	fsys := fstest.MapFS{
		"bin/hello": {Data: []byte("#!/bin/sh\n"), Mode: 0o755},
		"bin/hi":    {Data: []byte("hello"), Mode: fs.ModeSymlink | 0o777},
		"a":         {Data: []byte("x"), Mode: 0o677},
	}
	want := magic + dir(
		entry("a", fileX),
		entry("bin", dir(
			entry("hello", strs("(", "type", "regular", "executable", "", "contents", "#!/bin/sh\n", ")")),
			entry("hi", link("hello")),
		)))
	var got bytes.Buffer
	if err := Dump(&got, fsys, "."); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got %q\nwant %q", &got, want)
	}
	for name, want := range map[string]string{"a": magic + fileX, "bin/hi": magic + link("hello")} {
		got.Reset()
		if err := Dump(&got, fsys, name); err != nil || got.String() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Dump(io.Discard, fsys, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

// lyingFS alters what a file system says of itself.
type lyingFS struct {
	fs.FS
	list func([]fs.DirEntry) []fs.DirEntry
	grow int64 // added to the size of every file
}

func (l lyingFS) ReadDir(name string) ([]fs.DirEntry, error) {
	list, err := fs.ReadDir(l.FS, name)
	if l.list != nil && err == nil {
		list = l.list(list)
	}
	return list, err
}

func (l lyingFS) Open(name string) (fs.File, error) {
	f, err := l.FS.Open(name)
	if err != nil {
		return nil, err
	}
	return lyingFile{f, l.grow}, nil
}

type lyingFile struct {
	fs.File
	grow int64
}

func (f lyingFile) Stat() (fs.FileInfo, error) {
	fi, err := f.File.Stat()
	return lyingInfo{fi, f.grow}, err
}

type lyingInfo struct {
	fs.FileInfo
	grow int64
}

func (fi lyingInfo) Size() int64 { return fi.FileInfo.Size() + fi.grow }

type named struct {
	fs.DirEntry
	name string
}

func (n named) Name() string { return n.name }

func TestDumpRefusals(t *testing.T) {
	base := fstest.MapFS{"a": {Data: []byte("xyz"), Mode: 0o644}, "b": {Data: bytes.Repeat([]byte("b"), 3*dumpBuffer), Mode: 0o644}}
	rename := func(name string) func([]fs.DirEntry) []fs.DirEntry {
		return func(list []fs.DirEntry) []fs.DirEntry { return append(list, named{list[0], name}) }
	}
	for _, c := range []struct {
		name, code string
		fsys       fs.FS
	}{
		{"file that shrinks", CodeSize, lyingFS{FS: base, grow: 1}},
		{"file that grows", CodeSize, lyingFS{FS: base, grow: -1}},
		{"negative size", CodeSize, lyingFS{FS: base, grow: -100}},
		{"duplicate", CodeDuplicate, lyingFS{FS: base, list: rename("a")}},
		{"dot dot", CodeName, lyingFS{FS: base, list: rename("..")}},
		{"slash", CodeName, lyingFS{FS: base, list: rename("../../etc/passwd")}},
		{"NUL", CodeName, lyingFS{FS: base, list: rename("a\x00")}},
		{"empty", CodeName, lyingFS{FS: base, list: rename("")}},
		{"long", CodeLength, lyingFS{FS: base, list: rename(strings.Repeat("n", 256))}},
		{"device", CodeType, fstest.MapFS{"a": {Mode: fs.ModeDevice}}},
		{"empty target", CodeTarget, fstest.MapFS{"a": {Mode: fs.ModeSymlink}}},
		{"deep", CodeDepth, fstest.MapFS{strings.Repeat("d/", MaxDepth) + "x": {}}},
		{"path", CodePath, fstest.MapFS{strings.Repeat(strings.Repeat("d", 255)+"/", 16) + "x": {}}},
	} {
		err := Dump(io.Discard, c.fsys, ".")
		var e *Error
		var p *fs.PathError
		if !errors.As(err, &e) || !errors.As(err, &p) || e.Code != c.code {
			t.Errorf("%s: got %v, want %s", c.name, err, c.code)
		}
	}
}

// On a real file system.
func TestDumpRootRefusals(t *testing.T) {
	dir := t.TempDir()
	root := openRoot(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "d"), 0o755); err != nil {
		t.Fatal(err)
	}
	randomTree(t, filepath.Join(dir, "d"), 200)
	if err := syscall.Mkfifo(filepath.Join(dir, "d", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := Dump(io.Discard, root.FS(), ".")
	var e *Error
	var p *fs.PathError
	if !errors.As(err, &e) || e.Code != CodeType || !errors.As(err, &p) || p.Path != "d/pipe" {
		t.Errorf("a pipe: %v", err)
	}
	if err := Dump(io.Discard, root.FS(), "d/pipe"); !errors.As(err, &e) || e.Code != CodeType {
		t.Errorf("a pipe alone: %v", err)
	}
	for _, name := range []string{"missing", "d/missing", "../x", "/etc", ""} {
		if err := Dump(io.Discard, root.FS(), name); err == nil {
			t.Errorf("%q is dumped", name)
		}
	}
	// A link is dumped as what it is, wherever it points.
	if err := os.Symlink("/etc", filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Dump(&out, root.FS(), "out"); err != nil || out.String() != magic+link("/etc") {
		t.Errorf("a link: %v, %q", err, &out)
	}
}

// When the writer fails, Dump returns its error, ends its goroutines and closes its files.
func TestDumpStops(t *testing.T) {
	dir := t.TempDir()
	randomTree(t, dir, 1000)
	root := openRoot(t, dir)
	var whole counter
	whole.w = io.Discard
	if err := Dump(&whole, root.FS(), "."); err != nil {
		t.Fatal(err)
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for i := range 20 {
		err := Dump(&failAfter{int(whole.n) * i / 20}, root.FS(), ".")
		if !errors.Is(err, errFull) {
			t.Fatalf("got %v", err)
		}
	}
	for range 60_000 { // an ended goroutine is counted a little longer
		if runtime.NumGoroutine() <= goroutines {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if n := runtime.NumGoroutine(); n > goroutines {
		t.Errorf("%d goroutines are left", n-goroutines)
	}
	if n := openFiles(t); n > files {
		t.Errorf("%d files are left open", n-files)
	}
}

func openFiles(t *testing.T) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Logf("cannot count open files: %v", err)
		return 0
	}
	return len(list)
}

// Errors come in the order of the archive, whichever file is read first.
func TestDumpFirstError(t *testing.T) {
	fsys := fstest.MapFS{}
	for i := range 500 {
		fsys[fmt.Sprintf("f%03d", i)] = &fstest.MapFile{Mode: 0o644}
	}
	fsys["f100"] = &fstest.MapFile{Mode: fs.ModeSymlink} // refused late, by a reader
	fsys["f400"] = &fstest.MapFile{Mode: fs.ModeDevice}  // refused early, by the walk
	for range 20 {
		err := Dump(io.Discard, fsys, ".")
		var p *fs.PathError
		if !errors.As(err, &p) || p.Path != "f100" {
			t.Fatalf("got %v, want f100", err)
		}
	}
}

func TestRestoreModes(t *testing.T) {
	base := t.TempDir()
	root := openRoot(t, base)
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	if err := Restore(root, "x", bytes.NewReader(sample(t))); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{
		"x": fs.ModeDir | 0o555, "x/bin": fs.ModeDir | 0o555, "x/empty": fs.ModeDir | 0o555,
		"x/)": 0o444, "x/nothing": 0o444, "x/bin/hello": 0o555,
	} {
		fi, err := root.Lstat(name)
		if err != nil {
			t.Error(err)
		} else if fi.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", name, fi.Mode(), mode)
		}
	}
	if err := Remove(root, "x"); err != nil {
		t.Error(err)
	}
	if err := Remove(root, "x"); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if list, _ := os.ReadDir(base); len(list) != 0 {
		t.Errorf("left: %v", list)
	}
}

// What exists is neither replaced nor removed nor followed.
func TestRestoreExisting(t *testing.T) {
	base := t.TempDir()
	out := t.TempDir()
	root := openRoot(t, base)
	for name, make := range map[string]func(string) error{
		"file": func(p string) error { return os.WriteFile(p, []byte("old"), 0o600) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
		"link": func(p string) error { return os.Symlink(filepath.Join(out, "new"), p) },
	} {
		p := filepath.Join(base, name)
		if err := make(p); err != nil {
			t.Fatal(err)
		}
		before, err := os.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, archive := range []string{magic + fileX, magic + link("x"), magic + dir(entry("a", fileX))} {
			if err := Restore(root, name, strings.NewReader(archive)); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v", name, err)
			}
		}
		after, err := os.Lstat(p)
		if err != nil || !os.SameFile(before, after) || before.Mode() != after.Mode() {
			t.Errorf("%s has changed: %v", name, err)
		}
	}
	if list, _ := os.ReadDir(out); len(list) != 0 {
		t.Errorf("written outside: %v", list)
	}
}

func TestRestoreEscapes(t *testing.T) {
	base := t.TempDir()
	out := t.TempDir()
	root := openRoot(t, base)
	for _, name := range []string{"../x", "/x", "", "a/../../x"} {
		if err := Restore(root, name, strings.NewReader(magic+fileX)); err == nil {
			t.Errorf("restored as %q", name)
		}
	}
	if err := os.Symlink(out, filepath.Join(base, "out")); err != nil {
		t.Fatal(err)
	}
	if err := Restore(root, "out/x", strings.NewReader(magic+fileX)); err == nil {
		t.Error("restored through a link")
	}
	if list, _ := os.ReadDir(out); len(list) != 0 {
		t.Errorf("written outside: %v", list)
	}
}

// While an archive is restored, someone with access replaces its directories by links. Nothing
// goes where they point.
func TestRestoreRace(t *testing.T) {
	out := t.TempDir()
	base := t.TempDir()
	root := openRoot(t, base)
	head := dirHead + strs("entry", "(", "name", "d", "node", "(", "type", "directory")
	rest := entry("a", fileX) + strs(")", ")", ")")
	swap := readerFunc(nil)
	r := strings.NewReader(head + rest)
	swap = func(p []byte) (int, error) {
		if _, err := os.Lstat(filepath.Join(base, "x", "d")); err == nil {
			os.Rename(filepath.Join(base, "x", "d"), filepath.Join(base, "moved"))
			os.Symlink(out, filepath.Join(base, "x", "d"))
		}
		return r.Read(p[:1])
	}
	if err := Restore(root, "x", swap); err != nil {
		t.Log(err)
	}
	if list, _ := os.ReadDir(out); len(list) != 0 {
		t.Errorf("written outside: %v", list)
	}
	if fi, _ := os.Stat(out); fi.Mode().Perm() == modeDirectory {
		t.Error("the mode of a directory outside has changed")
	}
	if _, err := os.Lstat(filepath.Join(base, "moved", "a")); err != nil {
		t.Errorf("not written where it was begun: %v", err)
	}
}

// A failing source leaves nothing behind, wherever it fails.
func TestRestoreCleansUp(t *testing.T) {
	base := t.TempDir()
	root := openRoot(t, base)
	archive := sample(t)
	for n := 0; n < len(archive); n += 8 {
		if err := Restore(root, "x", bytes.NewReader(archive[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if list, _ := os.ReadDir(base); len(list) != 0 {
			t.Fatalf("cut at %d: left %v", n, list)
		}
	}
}

func TestRestoreLeavesTheRest(t *testing.T) {
	root := openRoot(t, t.TempDir())
	r := strings.NewReader(magic + fileX + magic + link("x") + "end")
	for _, name := range []string{"a", "b"} {
		if err := Restore(root, name, r); err != nil {
			t.Fatal(err)
		}
	}
	if r.Len() != 3 {
		t.Errorf("%d bytes are left", r.Len())
	}
}

// A tree as deep as the bounds allow is restored, dumped and removed.
func TestDeepTree(t *testing.T) {
	deep := fileX
	for range MaxDepth {
		deep = dir(entry("d", deep))
	}
	root := openRoot(t, t.TempDir())
	if err := Restore(root, "x", strings.NewReader(magic+deep)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Dump(&out, root.FS(), "x"); err != nil {
		t.Fatal(err)
	}
	if out.String() != magic+deep {
		t.Error("dumped otherwise")
	}
}

// The Go distribution, as a tree that is large and real.
func TestDumpGoroot(t *testing.T) {
	dir := goroot(t)
	if _, err := os.Stat(dir); err != nil || testing.Short() {
		t.Skipf("the Go distribution at %q is not dumped: %v; run without -short, with go in PATH", dir, err)
	}
	root := openRootOnly(t, dir)
	sums := [2]uint32{}
	for i, dump := range []func(io.Writer) error{
		func(w io.Writer) error { return naiveDump(w, root.FS()) },
		func(w io.Writer) error { return Dump(w, root.FS(), ".") },
	} {
		h := crc32.New(crc32.MakeTable(crc32.Castagnoli)) // what differs by accident, and fast
		if err := dump(h); err != nil {
			t.Fatal(err)
		}
		sums[i] = h.Sum32()
	}
	if sums[0] != sums[1] {
		t.Error("dumped otherwise than file by file")
	}
}

// openRootOnly opens a directory that is not the test's to clean.
func openRootOnly(t testing.TB, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}
