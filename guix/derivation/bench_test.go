package derivation_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

// largeClosure is the number of derivations below emacs, icecat, gcc,
// libreoffice, guix and linux-libre together.
const largeClosure = 4536

// large makes a closure of that many derivations and gives each file to put:
// copies of hello's, each with a variable of its own and so with paths of its
// own, completed by Fill. It returns their roots.
func large(tb testing.TB, put func(base string, data []byte)) []storepath.Path {
	tb.Helper()
	g, err := derivation.LoadClosure(drvFS(), mustPath(tb, helloDrv))
	if err != nil {
		tb.Fatal(err)
	}
	all := make(map[string]*derivation.Derivation)
	h := derivation.NewHasher(from(all))
	roots := make(map[string]bool)
	for n, round := 0, 0; n < largeClosure; round++ {
		moved := make(map[string]string) // old path to new
		for node := range g.Nodes() {
			if n == largeClosure {
				break
			}
			n++
			d, err := derivation.Parse(node.Derivation.Bytes())
			if err != nil {
				tb.Fatal(err)
			}
			for i := range d.Inputs {
				d.Inputs[i].Path = moved[d.Inputs[i].Path]
				delete(roots, d.Inputs[i].Path)
			}
			d.Env = append(d.Env, derivation.Variable{Name: "copy", Value: fmt.Sprint(round)})
			name, _ := derivation.Name(node.Path)
			if err := h.Fill(name, d); err != nil {
				tb.Fatal(err)
			}
			p, err := d.Path(name)
			if err != nil {
				tb.Fatal(err)
			}
			all[p.String()] = d
			moved[node.Path.String()] = p.String()
			roots[p.String()] = true
			put(p.Base(), d.Bytes())
		}
	}
	var list []storepath.Path
	for r := range roots {
		list = append(list, mustPath(tb, r))
	}
	slices.SortFunc(list, storepath.Path.Compare)
	return list
}

// TestLarge: the closure of the benchmark is what it says.
func TestLarge(t *testing.T) {
	files := make(fstest.MapFS)
	roots := large(t, func(base string, data []byte) { files[base] = &fstest.MapFile{Data: data} })
	g, err := derivation.LoadClosure(files, roots...)
	if err != nil || g.Len() != largeClosure {
		t.Fatalf("%v, %v", g, err)
	}
}

func BenchmarkLoadClosureLarge(b *testing.B) {
	dir := b.TempDir()
	roots := large(b, func(base string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, base), data, 0o444); err != nil {
			b.Fatal(err)
		}
	})
	b.ReportAllocs()
	for b.Loop() {
		g, err := derivation.LoadClosure(os.DirFS(dir), roots...)
		if err != nil || g.Len() != largeClosure || len(g.Sources()) == 0 {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoadClosureHello(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := derivation.LoadClosure(drvFS(), mustPath(b, helloDrv)); err != nil {
			b.Fatal(err)
		}
	}
}

func total(files map[string][]byte) (n int64) {
	for _, data := range files {
		n += int64(len(data))
	}
	return n
}

func BenchmarkParse(b *testing.B) {
	files := corpus(b)
	b.SetBytes(total(files))
	b.ReportAllocs()
	for b.Loop() {
		for _, data := range files {
			if _, err := derivation.Parse(data); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkBytes(b *testing.B) {
	files := corpus(b)
	all := parsed(b, files)
	b.SetBytes(total(files))
	b.ReportAllocs()
	for b.Loop() {
		for _, d := range all {
			d.Bytes()
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	files := corpus(b)
	lookup := from(parsed(b, files))
	paths := make(map[string]storepath.Path)
	for p := range files {
		paths[p] = mustPath(b, p)
	}
	b.SetBytes(total(files))
	b.ReportAllocs()
	for b.Loop() {
		h := derivation.NewHasher(lookup)
		for p, data := range files {
			if _, err := h.Verify(paths[p], data); err != nil {
				b.Fatal(err)
			}
		}
	}
}
