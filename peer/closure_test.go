//go:build peer

package peer

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

// packages are what design.md measures with; with the operating system they stand on more than minDerivations.
var packages = []string{"emacs", "icecat", "gcc-toolchain", "libreoffice", "guix", "linux-libre"}

const minDerivations = 4000

// operatingSystem is a whole one, with a desktop.
const operatingSystem = `(use-modules (gnu))
(use-service-modules desktop ssh xorg)
(operating-system
  (host-name "peer")
  (timezone "Europe/Berlin")
  (bootloader (bootloader-configuration (bootloader grub-bootloader) (targets '("/dev/sda"))))
  (file-systems (cons (file-system (device "/dev/sda1") (mount-point "/") (type "ext4")) %base-file-systems))
  (services (cons* (service gnome-desktop-service-type) (service openssh-service-type) %desktop-services)))
`

// TestClosure computes again what Guix computed: each derivation's bytes, path, and the paths of its outputs.
func TestClosure(t *testing.T) {
	p := start(t)
	in := p.folder(t)
	system := in.write(t, "system.scm", []byte(operatingSystem), 0o644)
	begin := time.Now()
	args := append([]string{"guix", "build", "-d", "--no-grafts", "--no-substitutes"}, packages...)
	printed := string(p.run(t, args...)) + string(p.run(t, "guix", "system", "build", "-d", "--no-grafts", "--no-substitutes", system))
	t.Logf("Guix computes the derivations in %v", time.Since(begin).Round(time.Second))
	var roots []storepath.Path
	for _, s := range strings.Fields(printed) {
		roots = append(roots, parse(t, s))
	}
	if len(roots) != len(packages)+1 {
		t.Fatalf("%d derivations for %d packages and a system", len(roots), len(packages))
	}

	store := os.DirFS(filepath.Join(p.root, "gnu/store"))
	some, best := load(t, store, roots[:len(packages)]...)
	t.Logf("LoadClosure of %s, %d derivations, all verified: %v (best of 5, %d processors)", strings.Join(packages, ", "), some.Len(), best, runtime.NumCPU())
	graph, best := load(t, store, roots...)
	t.Logf("LoadClosure of these and a system, %d derivations, all verified: %v", graph.Len(), best)

	// The daemon's own idea of what these stand on, derivations and sources.
	want := strings.Fields(string(p.run(t, append([]string{"guix", "gc", "--requisites"}, strings.Fields(printed)...)...)))
	var got []string
	for n := range graph.Nodes() {
		got = append(got, n.Path.String())
	}
	derivations := len(got)
	for _, s := range graph.Sources() {
		got = append(got, s.String())
	}
	slices.Sort(want)
	slices.Sort(got)
	// A source may refer to others: the daemon follows it, a closure of derivations does not.
	for _, s := range got {
		if _, ok := slices.BinarySearch(want, s); !ok {
			t.Errorf("%s is in our closure and not in the daemon's", s)
		}
	}
	beyond := 0
	for _, s := range want {
		if _, ok := slices.BinarySearch(got, s); !ok {
			beyond++
			if strings.HasSuffix(s, ".drv") {
				t.Errorf("%s is in the daemon's closure and not in ours", s)
			}
		}
	}

	// LoadClosure has verified all this; here it is done by hand, one at a time.
	var size, outputs, fixed int
	hasher := derivation.NewHasher(func(path string) (*derivation.Derivation, error) {
		n, _ := graph.Node(parse(t, path))
		return n.Derivation, nil
	})
	for n := range graph.Nodes() {
		data := read(t, filepath.Join(p.root, n.Path.String()))
		d, err := derivation.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", n.Path, err)
		}
		if !bytes.Equal(d.Bytes(), data) {
			t.Errorf("%s does not print back to the same bytes", n.Path)
		}
		name, _ := derivation.Name(n.Path)
		if path, err := d.Path(name); err != nil || path != n.Path {
			t.Errorf("%s: we compute %s %v", n.Path, path, err)
		}
		paths, err := hasher.OutputPaths(name, d)
		if err != nil {
			t.Fatalf("%s: %v", n.Path, err)
		}
		for _, o := range d.Outputs {
			if paths[o.ID].String() != o.Path {
				t.Errorf("%s: output %s is %s, we compute %s", n.Path, o.ID, o.Path, paths[o.ID])
			}
			outputs++
		}
		if d.IsFixed() {
			fixed++
		}
		size += len(data)
	}
	t.Logf("%d derivations (%d fixed), %d bytes, %d outputs, %d sources, %d items that only sources refer to", derivations, fixed, size, outputs, len(graph.Sources()), beyond)
	if derivations < minDerivations {
		t.Errorf("only %d derivations, want %d", derivations, minDerivations)
	}

	// The test would notice: one byte of one derivation, somewhere below, and nothing loads.
	var victim storepath.Path
	for n := range graph.Nodes() {
		if !n.Derivation.IsFixed() {
			victim = n.Path
			break
		}
	}
	if _, err := derivation.LoadClosure(flipped{store, victim.Base()}, roots...); err == nil || !strings.Contains(err.Error(), victim.Base()) {
		t.Errorf("with a bit of %s flipped: %v", victim, err)
	}
}

// load loads a closure five times, and says how long the fastest took.
func load(t *testing.T, store fs.FS, roots ...storepath.Path) (*derivation.Graph, time.Duration) {
	t.Helper()
	var graph *derivation.Graph
	best := time.Hour
	for range 5 {
		runtime.GC()
		begin := time.Now()
		g, err := derivation.LoadClosure(store, roots...)
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begin))
		graph = g
	}
	return graph, best.Round(100 * time.Microsecond)
}

// flipped is a store in which one file has one bit wrong.
type flipped struct {
	fs.FS
	name string
}

func (f flipped) Open(name string) (fs.File, error) {
	file, err := f.FS.Open(name)
	if err != nil || name != f.name {
		return file, err
	}
	data, err := io.ReadAll(file)
	if err != nil {
		return nil, err
	}
	// A digit of some hash in the middle.
	i := bytes.Index(data, []byte("/gnu/store/")) + len("/gnu/store/") + 5
	data[i] ^= 1
	return reread{file, bytes.NewReader(data)}, nil
}

type reread struct {
	fs.File
	r io.Reader
}

func (f reread) Read(p []byte) (int, error) { return f.r.Read(p) }
