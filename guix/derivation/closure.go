package derivation

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"sallyport/guix/storepath"
)

// A Node is one derivation of a Graph.
type Node struct {
	Path       storepath.Path
	Derivation *Derivation
	SHA256     [32]byte // of the .drv file
	Size       int64    // of the .drv file
}

// A Graph is a set of derivations that holds, with each, all its inputs. It
// was verified when it was loaded.
type Graph struct {
	nodes []*Node // inputs before users
	index map[storepath.Path]*Node
	roots []storepath.Path
}

// Len returns the number of derivations.
func (g *Graph) Len() int { return len(g.nodes) }

// Roots returns what was asked for, sorted.
func (g *Graph) Roots() []storepath.Path { return slices.Clone(g.roots) }

// Node returns the derivation at path.
func (g *Graph) Node(path storepath.Path) (*Node, bool) {
	n, ok := g.index[path]
	return n, ok
}

// Nodes yields all derivations, inputs before those that use them: first
// those without inputs, then those that stand only on these, and so on, each
// generation by path. They can be built in this order, which is the same
// every time.
func (g *Graph) Nodes() iter.Seq[*Node] { return slices.Values(g.nodes) }

// Sources returns the store items that the derivations name as sources:
// those that no derivation makes and that must be carried as they are.
// They are sorted, each once.
func (g *Graph) Sources() []storepath.Path {
	var all []storepath.Path
	seen := make(map[string]bool)
	for _, n := range g.nodes {
		for _, s := range n.Derivation.Sources {
			if seen[s] {
				continue
			}
			seen[s] = true
			if p, err := storepath.Parse(s); err == nil { // Parse has seen to that
				all = append(all, p)
			}
		}
	}
	slices.SortFunc(all, storepath.Path.Compare)
	return all
}

// Fixed yields the derivations whose output is known by its hash: tarballs,
// patches, checkouts. They are the sources in a packager's sense.
func (g *Graph) Fixed() iter.Seq[*Node] {
	return func(yield func(*Node) bool) {
		for _, n := range g.nodes {
			if n.Derivation.IsFixed() && !yield(n) {
				return
			}
		}
	}
}

// LoadClosure reads the derivations at roots and all that they stand on from
// fsys, which has them as files called HASH-NAME.drv at its top, as
// os.DirFS("/gnu/store") does. Everything is verified as by [Hasher.Verify],
// with nothing believed. fsys must bear concurrent use.
//
// The error has everything that is wrong, in the order of paths: what is
// missing or malformed first, then wrong output paths. A derivation above one
// that could not be read is not blamed for it. No graph is returned then.
func LoadClosure(fsys fs.FS, roots ...storepath.Path) (*Graph, error) {
	l := loader{fsys: fsys, found: make(map[string]*loaded)}
	for _, r := range roots {
		if !r.IsDerivation() {
			return nil, claim(r.String(), CodeName, "not the path of a derivation")
		}
		if _, err := l.want(r.String(), ""); err != nil {
			return nil, err
		}
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	errs := l.errors()
	layers, err := l.sort()
	if err != nil {
		return nil, errors.Join(append(errs, err)...)
	}
	if errs = append(errs, l.verify(layers)...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	g := &Graph{nodes: make([]*Node, 0, len(l.all)), index: make(map[storepath.Path]*Node, len(l.all))}
	for _, layer := range layers {
		for _, n := range layer {
			// A copy, so that what was needed for loading can go.
			node := n.Node
			g.nodes = append(g.nodes, &node)
			g.index[n.Path] = &node
		}
	}
	g.roots = slices.Clone(roots)
	slices.SortFunc(g.roots, storepath.Path.Compare)
	g.roots = slices.Compact(g.roots)
	return g, nil
}

type loader struct {
	fsys  fs.FS
	found map[string]*loaded
	all   []*loaded // in the order of discovery
}

type loaded struct {
	Node
	user  string // one that wants it
	err   error
	below []*loaded // its inputs, in their order
	// whole: this one and everything below it could be hashed. Without that
	// its output paths cannot be computed.
	whole  bool
	hashed entry

	// For sorting.
	users   []*loaded
	waiting int
}

func (l *loader) want(path, user string) (*loaded, error) {
	if n := l.found[path]; n != nil {
		return n, nil
	}
	p, err := storepath.Parse(path)
	if err != nil {
		return nil, err
	}
	n := &loaded{Node: Node{Path: p}, user: user}
	l.found[path] = n
	l.all = append(l.all, n)
	return n, nil
}

// load reads one generation after the other: what is known is read in
// parallel, then its inputs are collected.
func (l *loader) load() error {
	sheets := make([]sheet, workers())
	for from := 0; from < len(l.all); {
		generation := l.all[from:]
		from = len(l.all)
		parallel(len(generation), func(worker, i int) {
			n := generation[i]
			n.err = l.read(&sheets[worker], n)
		})
		for _, n := range generation {
			if n.Derivation == nil {
				continue
			}
			n.below = make([]*loaded, len(n.Derivation.Inputs))
			for i := range n.below {
				below, err := l.want(n.Derivation.Inputs[i].Path, n.Path.String())
				if err != nil {
					return err // Parse has seen to that
				}
				n.below[i] = below
			}
		}
		if len(l.all) > MaxClosure {
			return claim("", CodeLimit, "the closure has more than "+strconv.Itoa(MaxClosure)+" derivations")
		}
	}
	return nil
}

func (l *loader) read(s *sheet, n *loaded) error {
	data, err := readFile(s, l.fsys, n.Path)
	if errors.Is(err, fs.ErrNotExist) {
		detail := "not there"
		if n.user != "" {
			detail += ", but an input of " + quote(n.user)
		}
		return claim(n.Path.String(), CodeMissing, detail)
	}
	if err != nil {
		return err
	}
	n.SHA256, n.Size = sha256.Sum256(data), int64(len(data))
	n.Derivation, err = check(s, n.Path, data, n.SHA256)
	return err
}

// readFile reads a .drv that has at most MaxSize bytes. The result is only
// good until the next call with the same sheet.
func readFile(s *sheet, fsys fs.FS, path storepath.Path) ([]byte, error) {
	f, err := fsys.Open(path.Base())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, claim(path.String(), CodeSyntax, "not a regular file")
	}
	if info.Size() > MaxSize {
		return nil, &Error{Path: path.String(), Offset: MaxSize, Code: CodeLimit, Detail: "the file has more than " + strconv.Itoa(MaxSize) + " bytes"}
	}
	// Reading stops at the size: whether something was appended meanwhile
	// does not matter, since these bytes must have the path.
	s.file = slices.Grow(s.file[:0], int(info.Size()))[:info.Size()]
	if _, err := io.ReadFull(f, s.file); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s.file, nil
}

// errors returns what went wrong so far, by path.
func (l *loader) errors() []error {
	bad := slices.DeleteFunc(slices.Clone(l.all), func(n *loaded) bool { return n.err == nil })
	slices.SortFunc(bad, func(a, b *loaded) int { return a.Path.Compare(b.Path) })
	errs := make([]error, len(bad))
	for i, n := range bad {
		errs[i] = n.err
	}
	return errs
}

// sort returns all nodes in layers: each stands only on former ones, and is
// sorted by path.
func (l *loader) sort() ([][]*loaded, error) {
	var layer []*loaded
	for _, n := range l.all {
		n.waiting = len(n.below)
		if n.waiting == 0 {
			layer = append(layer, n)
		}
		for _, b := range n.below {
			b.users = append(b.users, n)
		}
	}
	var layers [][]*loaded
	sorted := 0
	for len(layer) > 0 {
		slices.SortFunc(layer, func(a, b *loaded) int { return a.Path.Compare(b.Path) })
		layers = append(layers, layer)
		sorted += len(layer)
		var next []*loaded
		for _, n := range layer {
			for _, u := range n.users {
				if u.waiting--; u.waiting == 0 {
					next = append(next, u)
				}
			}
			n.users = nil
		}
		layer = next
	}
	if sorted < len(l.all) {
		return nil, l.cycle()
	}
	return layers, nil
}

// cycle describes a cycle. Every node that still waits has an input that
// does too, so following these must come back.
func (l *loader) cycle() error {
	var n *loaded
	for _, m := range l.all {
		if m.waiting > 0 && (n == nil || m.Path.Compare(n.Path) < 0) {
			n = m
		}
	}
	at := make(map[*loaded]int)
	var way []*loaded
	for {
		if start, ok := at[n]; ok {
			way = way[start:]
			return cycleError(len(way), func(i int) string { return way[i].Path.String() })
		}
		at[n] = len(way)
		way = append(way, n)
		n = n.below[slices.IndexFunc(n.below, func(b *loaded) bool { return b.waiting > 0 })]
	}
}

// verify hashes layer after layer, each in parallel, then compares all
// claims. It may share one Hasher: nobody adds to what that remembers.
func (l *loader) verify(layers [][]*loaded) []error {
	h := NewHasher(nil)
	h.memo = make(map[string]*entry, len(l.all))
	for _, n := range l.all {
		n.err = nil // told already
		n.hashed.d = n.Derivation
		h.memo[n.Path.String()] = &n.hashed
	}
	sheets := make([]sheet, workers())
	for _, layer := range layers {
		parallel(len(layer), func(worker, i int) {
			n := layer[i]
			n.err = n.hash(h, &sheets[worker])
		})
	}
	parallel(len(l.all), func(worker, i int) {
		if n := l.all[i]; n.whole {
			n.err = h.checkOutputs(&sheets[worker], n.Path, n.Derivation)
		}
	})
	return l.errors()
}

// hash computes the modulo hash of n, if those of its inputs are there.
func (n *loaded) hash(h *Hasher, s *sheet) error {
	if n.Derivation == nil {
		return nil
	}
	whole := true
	for i, b := range n.below {
		whole = whole && b.whole
		if b.Derivation == nil {
			continue
		}
		// Asked of fixed ones too, whose hash does not depend on inputs.
		if err := checkWanted(n.Path.String(), &n.Derivation.Inputs[i], b.Derivation); err != nil {
			return err
		}
	}
	if !whole {
		return nil
	}
	sum, err := h.sum(s, n.Path.String(), n.Derivation, false)
	if err != nil {
		return err
	}
	n.hashed.hash, n.hashed.done, n.whole = sum, true, true
	return nil
}

func workers() int { return runtime.GOMAXPROCS(0) }

// minParallel is the number of items below which starting goroutines costs
// more than it saves.
const minParallel = 4

// parallel calls do for each i below n, from as many goroutines as there are
// processors; worker tells them apart.
func parallel(n int, do func(worker, i int)) {
	w := min(workers(), n)
	if n < minParallel {
		w = 1
	}
	if w <= 1 {
		for i := range n {
			do(0, i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for worker := range w {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(worker, i)
			}
		})
	}
	wg.Wait()
}
