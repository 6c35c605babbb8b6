package derivation_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

func drvFS() fs.FS { return os.DirFS(filepath.Join(vectorDir, "drv")) }

func TestLoadClosure(t *testing.T) {
	files := corpus(t)
	root := mustPath(t, helloDrv)
	g, err := derivation.LoadClosure(drvFS(), root, root)
	if err != nil {
		t.Fatal(err)
	}
	if g.Len() != len(files) || !slices.Equal(g.Roots(), []storepath.Path{root}) {
		t.Errorf("%d derivations from %v, want %d", g.Len(), g.Roots(), len(files))
	}
	byPath := make(map[string]record)
	sources := make(map[string]bool)
	fixed := 0
	for _, r := range records(t) {
		byPath[r.Drv] = r
		for _, s := range r.InputSrcs {
			sources[s] = true
		}
		if r.Fixed {
			fixed++
		}
	}
	seen := make(map[string]bool)
	var last *derivation.Node
	for n := range g.Nodes() {
		r, ok := byPath[n.Path.String()]
		if !ok || seen[n.Path.String()] {
			t.Errorf("%s is not of the closure, or came twice", n.Path)
		}
		for _, in := range n.Derivation.Inputs {
			if !seen[in.Path] {
				t.Errorf("%s comes before its input %s", n.Path, in.Path)
			}
		}
		seen[n.Path.String()] = true
		if string(n.Derivation.Bytes()) != string(files[n.Path.String()]) || n.Size != int64(r.Size) {
			t.Errorf("%s: not the file", n.Path)
		}
		if got, ok := g.Node(n.Path); !ok || got != n {
			t.Errorf("Node(%s) = %v, %v", n.Path, got, ok)
		}
		last = n
	}
	if last.Path != root {
		t.Errorf("the last is %s", last.Path)
	}
	var want []string
	for s := range sources {
		want = append(want, s)
	}
	slices.Sort(want)
	if got := g.Sources(); !slices.EqualFunc(got, want, func(p storepath.Path, s string) bool { return p.String() == s }) {
		t.Errorf("sources %v, want %v", got, want)
	}
	for n := range g.Fixed() {
		if !n.Derivation.IsFixed() {
			t.Errorf("%s is not fixed", n.Path)
		}
		fixed--
	}
	if fixed != 0 {
		t.Errorf("%d fixed derivations too few", fixed)
	}
	for range g.Fixed() {
		break // must not be called again
	}
	if _, ok := g.Node(mustPath(t, pathA)); ok {
		t.Error("found what is not there")
	}

	// The order does not depend on that of the roots or of reading.
	again, err := derivation.LoadClosure(drvFS(), last.Path, mustPath(t, records(t)[0].Drv))
	if err != nil {
		t.Fatal(err)
	}
	order := func(g *derivation.Graph) (paths []string) {
		for n := range g.Nodes() {
			paths = append(paths, n.Path.String())
		}
		return paths
	}
	if !slices.Equal(order(g), order(again)) {
		t.Error("another order of nodes")
	}
}

func TestLoadClosureOfNothing(t *testing.T) {
	g, err := derivation.LoadClosure(fstest.MapFS{})
	if err != nil || g.Len() != 0 || g.Sources() != nil {
		t.Errorf("%v, %v", g, err)
	}
}

// memory returns the vectors as a file system that a test may damage.
func memory(t *testing.T) fstest.MapFS {
	m := make(fstest.MapFS)
	for path, data := range corpus(t) {
		m[filepath.Base(path)] = &fstest.MapFile{Data: data, Mode: 0o444}
	}
	return m
}

func base(s string) string { return strings.TrimPrefix(s, storepath.Dir+"/") }

// TestLoadClosureRefuses: everything that is wrong is told at once, and
// nothing else is blamed.
func TestLoadClosureRefuses(t *testing.T) {
	root := mustPath(t, helloDrv)
	rs := records(t)
	var fixed, deep, other string // three different files
	for _, r := range rs {
		switch {
		case r.Drv == helloDrv:
		case r.Fixed && fixed == "":
			fixed = r.Drv
		case !r.Fixed && deep == "":
			deep = r.Drv
		case !r.Fixed && other == "":
			other = r.Drv
		}
	}
	replace := func(m fstest.MapFS, path, old, new string) {
		data := string(m[base(path)].Data)
		if !strings.Contains(data, old) {
			t.Fatalf("%s has no %q", path, old)
		}
		m[base(path)] = &fstest.MapFile{Data: []byte(strings.Replace(data, old, new, 1))}
	}
	for name, c := range map[string]struct {
		damage func(m fstest.MapFS)
		want   map[string]string // path to code
	}{
		"nothing":      {func(fstest.MapFS) {}, nil},
		"missing":      {func(m fstest.MapFS) { delete(m, base(fixed)) }, map[string]string{fixed: derivation.CodeMissing}},
		"root missing": {func(m fstest.MapFS) { delete(m, base(helloDrv)) }, map[string]string{helloDrv: derivation.CodeMissing}},
		"three faults": {func(m fstest.MapFS) {
			delete(m, base(fixed))
			replace(m, deep, "Derive", "derive")
			replace(m, other, "x86_64-linux", "x86_65-linux")
		}, map[string]string{fixed: derivation.CodeMissing, deep: derivation.CodeSyntax, other: derivation.CodeMismatch}},
		"empty":     {func(m fstest.MapFS) { m[base(deep)] = &fstest.MapFile{} }, map[string]string{deep: derivation.CodeTruncated}},
		"directory": {func(m fstest.MapFS) { m[base(deep)] = &fstest.MapFile{Mode: fs.ModeDir | 0o555} }, map[string]string{deep: derivation.CodeSyntax}},
		"huge": {func(m fstest.MapFS) { m[base(deep)] = &fstest.MapFile{Data: make([]byte, derivation.MaxSize+1)} },
			map[string]string{deep: derivation.CodeLimit}},
		"exchanged": {func(m fstest.MapFS) { m[base(fixed)], m[base(deep)] = m[base(deep)], m[base(fixed)] },
			map[string]string{fixed: derivation.CodeMismatch, deep: derivation.CodeMismatch}},
	} {
		m := memory(t)
		c.damage(m)
		g, err := derivation.LoadClosure(m, root)
		got := make(map[string]string)
		for _, e := range flat(err) {
			// A file with other bytes also has other outputs than it says;
			// the first thing told is what counts here.
			if _, ok := got[e.Path]; !ok {
				got[e.Path] = e.Code
			}
		}
		if (g == nil) != (c.want != nil) {
			t.Errorf("%s: a graph, or none: %v", name, err)
		}
		for path, code := range c.want {
			if got[path] != code {
				t.Errorf("%s: %s is %q, want %q", name, path, got[path], code)
			}
		}
		if name != "exchanged" && name != "three faults" && len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if _, err := derivation.LoadClosure(memory(t), mustPath(t, pathA)); code(err) != derivation.CodeName {
		t.Errorf("a root without .drv: %v", err)
	}
	if _, err := derivation.LoadClosure(memory(t), storepath.Path{}); code(err) != derivation.CodeName {
		t.Errorf("a root that is no path: %v", err)
	}
}

func flat(err error) []*derivation.Error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*derivation.Error
		for _, err := range j.Unwrap() {
			all = append(all, flat(err)...)
		}
		return all
	}
	var e *derivation.Error
	if errors.As(err, &e) {
		return []*derivation.Error{e}
	}
	return nil
}

// TestLoadClosureClaims: files at the right paths that lie in what follows.
func TestLoadClosureClaims(t *testing.T) {
	m := newMade(t)
	tar := m.add("x.tar", download("sha256", sha, "https://one.example/x"))
	files := fstest.MapFS{base(tar): {Data: m.all[tar].Bytes()}}
	put := func(name string, d *derivation.Derivation) string {
		p, err := d.Path(name)
		if err != nil {
			t.Fatal(err)
		}
		files[p.Base()] = &fstest.MapFile{Data: d.Bytes()}
		return p.String()
	}
	liar := build(out(tar))
	if err := m.h.Fill("liar", liar); err != nil {
		t.Fatal(err)
	}
	liar.Outputs[0].Path = pathA
	a := put("liar", liar)
	m.all[a] = liar

	wants := download("sha256", sha, "https://two.example/x")
	wants.Inputs = []derivation.Input{out(tar)}
	if err := m.h.Fill("wants", wants); err != nil {
		t.Fatal(err)
	}
	wants.Inputs[0].Outputs = []string{"lib"}
	b := put("wants", wants)

	above := build(out(a))
	c := m.add("above", above)
	files[base(c)] = &fstest.MapFile{Data: above.Bytes()}

	_, err := derivation.LoadClosure(files, mustPath(t, c), mustPath(t, b))
	got := make(map[string]string)
	for _, e := range flat(err) {
		got[e.Path] = e.Code
	}
	if len(got) != 2 || got[a] != derivation.CodeOutputPath || got[b] != derivation.CodeInputOutput {
		t.Errorf("%v\n%v", got, err)
	}
}

// TestLoadClosureCycle: such files have false paths, but that must not keep
// the loader from ending.
func TestLoadClosureCycle(t *testing.T) {
	files := make(fstest.MapFS)
	for i, to := range []int{1, 2, 1} {
		files[base(numbered(i))] = &fstest.MapFile{Data: linked(numbered(to)).Bytes()}
	}
	_, err := derivation.LoadClosure(files, mustPath(t, numbered(0)))
	got := codes(err)
	if len(got) != 4 || got[3] != derivation.CodeCycle || !strings.Contains(err.Error(), numbered(2)) {
		t.Errorf("%v", err)
	}
	self := fstest.MapFS{base(numbered(0)): {Data: linked(numbered(0)).Bytes()}}
	if _, err := derivation.LoadClosure(self, mustPath(t, numbered(0))); !slices.Contains(codes(err), derivation.CodeCycle) {
		t.Errorf("%v", err)
	}
}

// failing cannot open one file, or says that it is longer than it is.
type failing struct {
	fs.FS
	name string
	err  error
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name && f.err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: f.err}
	}
	file, err := f.FS.Open(name)
	if err == nil && name == f.name {
		return longer{file}, nil
	}
	return file, err
}

type longer struct{ fs.File }

func (f longer) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	return longerInfo{info}, err
}

type longerInfo struct{ fs.FileInfo }

func (i longerInfo) Size() int64 { return i.FileInfo.Size() + 5 }

// TestLoadClosureFailure: a disk that fails is not a refusal.
func TestLoadClosureFailure(t *testing.T) {
	fsys := failing{drvFS(), base(records(t)[0].Drv), fs.ErrPermission}
	_, err := derivation.LoadClosure(fsys, mustPath(t, helloDrv))
	if !errors.Is(err, fs.ErrPermission) || len(flat(err)) != 0 {
		t.Errorf("%v", err)
	}
	fsys.err = nil
	if _, err := derivation.LoadClosure(fsys, mustPath(t, helloDrv)); err == nil || len(flat(err)) != 0 {
		t.Errorf("a file that shrank: %v", err)
	}
}
