package derivation

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
)

// A Hasher computes modulo hashes and what follows from them. It remembers
// the hash of every derivation that it has met, by path, so a closure costs
// one hash for each. It believes what lookup returns: whoever does not trust
// the answers verifies them first, as LoadClosure does.
//
// A Hasher is not safe for concurrent use. What it was given by lookup, or
// with a path, must not be changed while it is in use.
type Hasher struct {
	lookup func(path string) (*Derivation, error)
	memo   map[string]*entry
	stack  []frame
	sheet  sheet
}

type entry struct {
	d    *Derivation
	hash [32]byte
	done bool // false while its inputs are being hashed: meeting it then is a cycle
}

// A frame is a derivation on the walk's stack.
type frame struct {
	path string // "" for one without a path, which is not remembered
	e    *entry
	next int // input to visit
}

// A sheet is paper to write on, reused from one derivation to the next.
type sheet struct {
	file   []byte
	text   []byte
	hashes []*[32]byte // of each input
	order  []ranked    // the inputs that count, by hash
}

// ranked is an input with the beginning of its hash, which nearly always
// tells where it belongs. It holds no pointer, so that sorting is cheap.
type ranked struct {
	first uint64
	input int32
}

// compare orders inputs by hash, and those of one hash by path.
func (s *sheet) compare(a, b ranked) int {
	if c := cmp.Compare(a.first, b.first); c != 0 {
		return c
	}
	if c := bytes.Compare(s.hashes[a.input][:], s.hashes[b.input][:]); c != 0 {
		return c
	}
	return cmp.Compare(a.input, b.input)
}

// NewHasher returns a Hasher that gets inputs from lookup, which is called
// once for each path. An answer of nil, nil means that there is none.
func NewHasher(lookup func(path string) (*Derivation, error)) *Hasher {
	return &Hasher{lookup: lookup, memo: make(map[string]*entry)}
}

// Modulo returns the modulo hash of d, whose path is path. The hash is
// remembered under path; "" is a derivation that has no path yet.
func (h *Hasher) Modulo(path string, d *Derivation) ([32]byte, error) {
	if e := h.memo[path]; e != nil && path != "" {
		return e.hash, nil
	}
	e := &entry{d: d}
	if err := h.walk(path, e); err != nil {
		return [32]byte{}, err
	}
	return e.hash, nil
}

// walk hashes e and everything below it that is not hashed yet, inputs
// first. The stack is a slice: no closure is too deep for it.
func (h *Hasher) walk(path string, e *entry) (err error) {
	h.stack = h.stack[:0]
	defer func() {
		if err != nil {
			// What was begun and not finished would look like a cycle later.
			for _, f := range h.stack {
				delete(h.memo, f.path)
			}
		}
		clear(h.stack)
	}()
	if err := h.push(path, e); err != nil {
		return err
	}
	for len(h.stack) > 0 {
		f := &h.stack[len(h.stack)-1]
		if !f.e.d.IsFixed() && f.next < len(f.e.d.Inputs) {
			in := f.e.d.Inputs[f.next].Path
			f.next++
			below := h.memo[in]
			switch {
			case below == nil:
				d, err := h.get(in, f.path)
				if err != nil {
					return err
				}
				if err := h.push(in, &entry{d: d}); err != nil {
					return err
				}
			case !below.done:
				return h.cycle(in)
			}
			continue
		}
		sum, err := h.sum(&h.sheet, f.path, f.e.d, false)
		if err != nil {
			return err
		}
		f.e.hash, f.e.done = sum, true
		h.stack = h.stack[:len(h.stack)-1]
	}
	return nil
}

func (h *Hasher) push(path string, e *entry) error {
	if len(h.memo) >= MaxClosure || len(h.stack) > MaxClosure {
		return claim(path, CodeLimit, "the closure has more than "+strconv.Itoa(MaxClosure)+" derivations")
	}
	if path != "" {
		h.memo[path] = e
	}
	h.stack = append(h.stack, frame{path: path, e: e})
	return nil
}

func (h *Hasher) get(path, user string) (*Derivation, error) {
	if h.lookup != nil {
		d, err := h.lookup(path)
		if err != nil {
			return nil, fmt.Errorf("derivation %s: %w", path, err)
		}
		if d != nil {
			return d, nil
		}
	}
	detail := "not there"
	if user != "" {
		detail += ", but an input of " + quote(user)
	}
	return nil, claim(path, CodeMissing, detail)
}

// maxCycleShown bounds how many members of a cycle an error names.
const maxCycleShown = 8

// cycle describes the way from the unfinished path back to itself.
func (h *Hasher) cycle(path string) error {
	start := len(h.stack) - 1
	for start > 0 && h.stack[start].path != path {
		start--
	}
	return cycleError(len(h.stack)-start, func(i int) string { return h.stack[start+i].path })
}

func cycleError(n int, member func(i int) string) *Error {
	var b strings.Builder
	b.WriteString("stands on itself")
	for i := 1; i < n; i++ {
		if i > maxCycleShown {
			fmt.Fprintf(&b, ", and %d more", n-i)
			break
		}
		if i == 1 {
			b.WriteString(" by way of ")
		} else {
			b.WriteString(", ")
		}
		b.WriteString(quote(member(i)))
	}
	return claim(member(0), CodeCycle, b.String())
}

// sum returns the hash of d, masked or not, whose inputs are all remembered.
// It reads h and writes only s, so that several may run at once, each with
// its own sheet.
func (h *Hasher) sum(s *sheet, path string, d *Derivation, mask bool) ([32]byte, error) {
	if !mask && d.IsFixed() {
		o := &d.Outputs[0]
		s.text = append(s.text[:0], "fixed:out:"...)
		s.text = append(s.text, o.HashAlgo...)
		s.text = append(s.text, ':')
		s.text = append(s.text, o.Hash...)
		s.text = append(s.text, ':')
		s.text = append(s.text, o.Path...)
		return sha256.Sum256(s.text), nil
	}
	s.hashes, s.order = s.hashes[:0], s.order[:0]
	for i := range d.Inputs {
		in := &d.Inputs[i]
		e := h.memo[in.Path]
		if err := checkWanted(path, in, e.d); err != nil {
			return [32]byte{}, err
		}
		s.hashes = append(s.hashes, &e.hash)
		s.order = append(s.order, ranked{binary.BigEndian.Uint64(e.hash[:]), int32(i)})
	}
	slices.SortFunc(s.order, s.compare)
	// The daemon keeps a map from hash to IDs and fills it in the order of
	// paths: of two inputs with one hash, the later counts.
	kept := s.order[:0]
	for i, r := range s.order {
		if i+1 < len(s.order) && *s.hashes[s.order[i+1].input] == *s.hashes[r.input] {
			continue
		}
		kept = append(kept, r)
	}
	s.order = kept
	s.text = d.appendATerm(s.text[:0], s, mask)
	return sha256.Sum256(s.text), nil
}

// checkWanted compares the outputs that an input wants of d with those it has.
func checkWanted(path string, in *Input, d *Derivation) error {
	for _, id := range in.Outputs {
		if d.output(id) < 0 {
			return claim(path, CodeInputOutput, "wants output "+quote(id)+" of "+quote(in.Path)+", which has no such output")
		}
	}
	return nil
}

// OutputPaths returns the path of each output of d as it follows from the
// rest, whatever d says of them. name is the derivation's, without ".drv".
func (h *Hasher) OutputPaths(name string, d *Derivation) (map[string]storepath.Path, error) {
	if err := h.resolve("", d); err != nil {
		return nil, err
	}
	paths, err := h.outputPaths(&h.sheet, "", name, d)
	if err != nil {
		return nil, err
	}
	m := make(map[string]storepath.Path, len(paths))
	for i, p := range paths {
		m[d.Outputs[i].ID] = p
	}
	return m, nil
}

// resolve makes sure that the inputs of d are remembered, if its output
// paths depend on them.
func (h *Hasher) resolve(path string, d *Derivation) error {
	if d.IsFixed() {
		return nil
	}
	return h.resolveAll(path, d)
}

func (h *Hasher) resolveAll(path string, d *Derivation) error {
	for i := range d.Inputs {
		in := d.Inputs[i].Path
		if h.memo[in] != nil {
			continue
		}
		below, err := h.get(in, path)
		if err != nil {
			return err
		}
		if err := h.walk(in, &entry{d: below}); err != nil {
			return err
		}
	}
	return nil
}

// outputPaths returns the paths of d.Outputs, in their order. Like sum, it
// only writes s.
func (h *Hasher) outputPaths(s *sheet, path, name string, d *Derivation) ([]storepath.Path, error) {
	if d.IsFixed() {
		algo, rec, digest, ok := d.Outputs[0].Content()
		if !ok {
			return nil, claim(path, CodeFixed, "not a hash of a known algorithm: "+quote(d.Outputs[0].HashAlgo)+", "+quote(d.Outputs[0].Hash))
		}
		p, err := storepath.FixedOutput(name, algo, rec, digest)
		if err != nil {
			return nil, claim(path, CodeName, err.Error())
		}
		return []storepath.Path{p}, nil
	}
	sum, err := h.sum(s, path, withOutputVariables(d), true)
	if err != nil {
		return nil, err
	}
	paths := make([]storepath.Path, len(d.Outputs))
	for i := range d.Outputs {
		if paths[i], err = storepath.Output(d.Outputs[i].ID, sum, name); err != nil {
			return nil, claim(path, CodeName, err.Error())
		}
	}
	return paths, nil
}

// withOutputVariables returns d, or a copy that has a variable for each
// output: masking sets them all, and so adds those that were not there.
func withOutputVariables(d *Derivation) *Derivation {
	have := 0
	for i := range d.Env {
		if d.output(d.Env[i].Name) >= 0 {
			have++
		}
	}
	if have == len(d.Outputs) {
		return d
	}
	c := *d
	c.Env = slices.Clone(d.Env)
	for i := range d.Outputs {
		if _, ok := c.Lookup(d.Outputs[i].ID); !ok {
			c.Env = append(c.Env, Variable{Name: d.Outputs[i].ID})
		}
	}
	sortEnv(c.Env)
	return &c
}

func sortEnv(env []Variable) {
	slices.SortStableFunc(env, func(a, b Variable) int { return strings.Compare(a.Name, b.Name) })
}

// Fill completes d as Guix's `derivation` procedure does: it sorts the lists
// and drops repeated sources, merges inputs of one path or of the same output
// paths (the first one given stays, with the outputs wanted of all), adds a
// variable for each output, and sets output paths and these variables. What
// d held of them before does not matter. A fixed output has its HashAlgo and
// Hash set beforehand.
//
// Fill leaves nothing that Parse would refuse: then, and on any other error,
// d is unchanged.
func (h *Hasher) Fill(name string, d *Derivation) error {
	if err := storepath.CheckName(name + drvSuffix); err != nil {
		return claim("", CodeName, err.Error())
	}
	if err := h.resolveAll("", d); err != nil {
		return err
	}
	c := d.clone()
	slices.SortStableFunc(c.Outputs, func(a, b Output) int { return strings.Compare(a.ID, b.ID) })
	c.Inputs = h.mergeInputs(c.Inputs)
	slices.Sort(c.Sources)
	c.Sources = slices.Compact(c.Sources)
	sortEnv(c.Env)
	c = withOutputVariables(c)
	paths, err := h.outputPaths(&h.sheet, "", name, c)
	if err != nil {
		return err
	}
	for i := range c.Outputs {
		o := &c.Outputs[i]
		o.Path = paths[i].String()
		for j := range c.Env {
			if c.Env[j].Name == o.ID {
				c.Env[j].Value = o.Path
			}
		}
	}
	if _, err := Parse(c.Bytes()); err != nil {
		return err
	}
	*d = *c
	return nil
}

// mergeInputs returns the inputs sorted, those that make the same things
// merged. The daemon would silently keep the wanted outputs of one of them.
func (h *Hasher) mergeInputs(inputs []Input) []Input {
	at := make(map[string]int, len(inputs))
	merged := inputs[:0]
	for _, in := range inputs {
		var key strings.Builder
		for _, o := range h.memo[in.Path].d.Outputs {
			key.WriteString(o.Path)
			key.WriteByte(' ')
		}
		i, ok := at[key.String()]
		if !ok {
			i = len(merged)
			at[key.String()] = i
			merged = append(merged, in)
			continue
		}
		merged[i].Outputs = append(merged[i].Outputs, in.Outputs...)
	}
	for i := range merged {
		slices.Sort(merged[i].Outputs)
		merged[i].Outputs = slices.Compact(merged[i].Outputs)
	}
	slices.SortFunc(merged, func(a, b Input) int { return strings.Compare(a.Path, b.Path) })
	return merged
}

// Verify parses data and recomputes all that it and its path claim: that it
// prints back to the same bytes, that path is the path of these bytes, that
// each output has the path that follows, and a variable that repeats it. The
// error has everything that is wrong. Inputs come from lookup and are
// believed.
func (h *Hasher) Verify(path storepath.Path, data []byte) (*Derivation, error) {
	d, err := check(&h.sheet, path, data, sha256.Sum256(data))
	if d == nil {
		return nil, err
	}
	errs := []error{err}
	if err := h.resolve(path.String(), d); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, h.checkOutputs(&h.sheet, path, d))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return d, nil
}

// check is the part of Verify that needs no inputs. It returns nil if there
// is no derivation to go on with.
func check(s *sheet, path storepath.Path, data []byte, sum [32]byte) (*Derivation, error) {
	name, ok := Name(path)
	if !ok {
		return nil, claim(path.String(), CodeName, "not the path of a derivation")
	}
	d, err := Parse(data)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			e.Path = path.String()
		}
		return nil, err
	}
	s.text = d.appendATerm(s.text[:0], nil, false)
	if !bytes.Equal(s.text, data) {
		// Parse promises that this cannot be.
		return nil, claim(path.String(), CodeSyntax, "does not print back to the same bytes")
	}
	want, err := d.path(name, sum)
	if err != nil {
		return nil, claim(path.String(), CodeName, err.Error())
	}
	if want != path {
		return d, claim(path.String(), CodeMismatch, "the path of these bytes is "+want.String())
	}
	return d, nil
}

// checkOutputs is the other part. Like sum, it only writes s.
func (h *Hasher) checkOutputs(s *sheet, path storepath.Path, d *Derivation) error {
	name, _ := Name(path)
	paths, err := h.outputPaths(s, path.String(), name, d)
	if err != nil {
		return err
	}
	var errs []error
	for i := range d.Outputs {
		o := &d.Outputs[i]
		want := paths[i].String()
		if o.Path != want {
			errs = append(errs, claim(path.String(), CodeOutputPath, "output "+quote(o.ID)+" is "+o.Path+", but must be "+want))
		}
		if v, ok := d.Lookup(o.ID); !ok {
			errs = append(errs, claim(path.String(), CodeEnvironment, "no variable for output "+quote(o.ID)))
		} else if v != want {
			errs = append(errs, claim(path.String(), CodeEnvironment, "variable "+quote(o.ID)+" is "+quote(v)+", but must be "+want))
		}
	}
	return errors.Join(errs...)
}
