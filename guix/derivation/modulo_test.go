package derivation_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

// made makes derivations and keeps them for lookup.
type made struct {
	tb  testing.TB
	all map[string]*derivation.Derivation
	h   *derivation.Hasher
}

func newMade(tb testing.TB) *made {
	m := &made{tb: tb, all: make(map[string]*derivation.Derivation)}
	m.h = derivation.NewHasher(from(m.all))
	return m
}

func (m *made) add(name string, d *derivation.Derivation) string {
	m.tb.Helper()
	if err := m.h.Fill(name, d); err != nil {
		m.tb.Fatal(err)
	}
	p, err := d.Path(name)
	if err != nil {
		m.tb.Fatal(err)
	}
	m.all[p.String()] = d
	return p.String()
}

// download is a fixed derivation: equal hash and name, another URL.
func download(algo, hash, url string) *derivation.Derivation {
	return &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out", HashAlgo: algo, Hash: hash}},
		System:  "x86_64-linux",
		Builder: "builtin:download",
		Env:     []derivation.Variable{{Name: "url", Value: url}},
	}
}

func build(inputs ...derivation.Input) *derivation.Derivation {
	return &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out"}, {ID: "doc"}},
		Inputs:  inputs,
		System:  "x86_64-linux",
		Builder: "/bin/sh",
	}
}

func out(path string) derivation.Input {
	return derivation.Input{Path: path, Outputs: []string{"out"}}
}

// TestEqualInputs is the trap of two derivations with one output: Fill merges
// them, and the daemon's rule for those that somebody failed to merge gives
// the same output path.
func TestEqualInputs(t *testing.T) {
	m := newMade(t)
	one := m.add("x.tar", download("sha256", sha, "https://one.example/x"))
	two := m.add("x.tar", download("sha256", sha, "https://two.example/x"))
	if one == two || m.all[one].Outputs[0].Path != m.all[two].Outputs[0].Path {
		t.Fatalf("%s and %s should differ and make the same", one, two)
	}
	var want string
	for _, order := range [][]derivation.Input{{out(one), out(two)}, {out(two), out(one)}, {out(one)}, {out(two), out(one), out(two)}} {
		d := build(order...)
		m.add("x", d)
		if len(d.Inputs) != 1 || d.Inputs[0].Path != order[0].Path || !slices.Equal(d.Inputs[0].Outputs, []string{"out"}) {
			t.Errorf("%v: merged to %v", order, d.Inputs)
		}
		o, _ := d.Output("out")
		if want == "" {
			want = o.Path
		}
		if o.Path != want {
			t.Errorf("%v: output is %s, want %s", order, o.Path, want)
		}
	}
	both := build(out(one), out(two))
	slices.SortFunc(both.Inputs, func(a, b derivation.Input) int { return strings.Compare(a.Path, b.Path) })
	slices.SortFunc(both.Outputs, func(a, b derivation.Output) int { return strings.Compare(a.ID, b.ID) })
	paths, err := m.h.OutputPaths("x", both)
	if err != nil || paths["out"].String() != want {
		t.Errorf("unmerged: %v, %v; want %s", paths, err, want)
	}
	if len(both.Inputs) != 2 {
		t.Error("OutputPaths changed its derivation")
	}
}

// TestMergeUnitesOutputs: wanted outputs of merged inputs are all kept.
func TestMergeUnitesOutputs(t *testing.T) {
	m := newMade(t)
	one := m.add("x.tar", download("sha256", sha, "https://one.example/x"))
	two := m.add("x.tar", download("sha256", sha, "https://two.example/x"))
	a, b := m.add("y", build(out(one))), m.add("y", build(out(two)))
	if a == b {
		t.Fatal("the derivations should differ")
	}
	d := build(derivation.Input{Path: b, Outputs: []string{"out"}}, derivation.Input{Path: a, Outputs: []string{"doc", "out"}})
	m.add("z", d)
	if len(d.Inputs) != 1 || d.Inputs[0].Path != b || !slices.Equal(d.Inputs[0].Outputs, []string{"doc", "out"}) {
		t.Errorf("inputs %v", d.Inputs)
	}
}

func TestFixedOutputs(t *testing.T) {
	m := newMade(t)
	for _, algo := range []string{"md5", "sha1", "sha256", "sha512", "sha3-256", "sha3-512", "blake2s-256"} {
		size, ok := storepath.DigestSize(algo)
		if !ok {
			t.Fatalf("%s is unknown", algo)
		}
		digest := make([]byte, size)
		for i := range digest {
			digest[i] = byte(i)
		}
		for _, r := range []string{"", "r:"} {
			d := download(r+algo, fmt.Sprintf("%x", digest), "https://one.example/x")
			path := m.add("x", d)
			want, err := storepath.FixedOutput("x", algo, r != "", digest)
			if err != nil || d.Outputs[0].Path != want.String() || !d.IsFixed() {
				t.Errorf("%s%s: %s, want %s, %v", r, algo, d.Outputs[0].Path, want, err)
			}
			if v, _ := d.Lookup("out"); v != want.String() {
				t.Errorf("%s%s: variable out is %q", r, algo, v)
			}
			gotAlgo, rec, got, ok := d.Outputs[0].Content()
			if !ok || gotAlgo != algo || rec != (r != "") || !slices.Equal(got, digest) {
				t.Errorf("%s%s: content is %s, %v, %x, %v", r, algo, gotAlgo, rec, got, ok)
			}
			if _, err := m.h.Verify(mustPath(t, path), d.Bytes()); err != nil {
				t.Error(err)
			}
		}
	}
	if _, _, _, ok := (derivation.Output{ID: "out"}).Content(); ok {
		t.Error("an output without a hash has a content")
	}
}

func TestFillRefuses(t *testing.T) {
	m := newMade(t)
	tar := m.add("x.tar", download("sha256", sha, "https://one.example/x"))
	nope := errors.New("nope")
	for name, c := range map[string]struct {
		drvName string
		d       *derivation.Derivation
		code    string
	}{
		"name":          {"a/b", build(), derivation.CodeName},
		"name too long": {strings.Repeat("n", 214), build(), derivation.CodeName},
		"missing input": {"x", build(out(pathB + ".drv")), derivation.CodeMissing},
		"missing of fixed": {"x", &derivation.Derivation{
			Outputs: []derivation.Output{{ID: "out", HashAlgo: "sha256", Hash: sha}}, Inputs: []derivation.Input{out(pathB + ".drv")},
		}, derivation.CodeMissing},
		"output of input": {"x", build(derivation.Input{Path: tar, Outputs: []string{"lib"}}), derivation.CodeInputOutput},
		"no outputs":      {"x", &derivation.Derivation{}, derivation.CodeOutput},
		"output ID":       {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "a/b"}}}, derivation.CodeName},
		"output twice":    {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "out"}, {ID: "out"}}}, derivation.CodeDuplicate},
		"variable twice":  {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "out"}}, Env: []derivation.Variable{{Name: "a"}, {Name: "a"}}}, derivation.CodeDuplicate},
		"zero byte":       {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "out"}}, Args: []string{"\x00"}}, derivation.CodeString},
		"source":          {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "out"}}, Sources: []string{"/etc/passwd"}}, derivation.CodePath},
		"no wanted":       {"x", build(derivation.Input{Path: tar}), derivation.CodeOutput},
		"hash":            {"x", download("sha256", sha[1:], ""), derivation.CodeFixed},
		"algorithm":       {"x", download("", sha, ""), derivation.CodeFixed},
		"algorithm alone": {"x", download("sha256", "", ""), derivation.CodeFixed},
		"fixed, several":  {"x", &derivation.Derivation{Outputs: []derivation.Output{{ID: "out", HashAlgo: "sha256", Hash: sha}, {ID: "doc"}}}, derivation.CodeFixed},
	} {
		before := fmt.Sprintf("%#v", c.d)
		if err := m.h.Fill(c.drvName, c.d); code(err) != c.code {
			t.Errorf("%s: %v; want %s", name, err, c.code)
		}
		if after := fmt.Sprintf("%#v", c.d); after != before {
			t.Errorf("%s: changed from %s to %s", name, before, after)
		}
	}
	h := derivation.NewHasher(func(string) (*derivation.Derivation, error) { return nil, nope })
	if err := h.Fill("x", build(out(tar))); !errors.Is(err, nope) {
		t.Errorf("lookup's error is lost: %v", err)
	}
	if err := derivation.NewHasher(nil).Fill("x", build(out(tar))); code(err) != derivation.CodeMissing {
		t.Errorf("without lookup: %v", err)
	}
}

// TestFillLeavesInputs: the caller's slices are not sorted under its hands.
func TestFillLeavesInputs(t *testing.T) {
	m := newMade(t)
	a := m.add("a", build())
	ids := []string{"out", "doc"}
	env := []derivation.Variable{{Name: "z"}, {Name: "a"}}
	d := build(derivation.Input{Path: a, Outputs: ids})
	d.Env = env
	m.add("b", d)
	if !slices.Equal(ids, []string{"out", "doc"}) || env[0].Name != "z" {
		t.Errorf("changed: %v, %v", ids, env)
	}
	if d.Env[0].Name != "a" || !slices.Equal(d.Inputs[0].Outputs, []string{"doc", "out"}) {
		t.Errorf("not sorted: %v", d)
	}
}

func TestVerifyRefuses(t *testing.T) {
	m := newMade(t)
	tar := m.add("x.tar", download("sha256", sha, "https://one.example/x"))
	good := m.add("x", build(out(tar)))
	// repath gives a derivation the path of its own bytes, so that only the
	// fault of the case is left.
	repath := func(change func(d *derivation.Derivation), of string) (storepath.Path, []byte) {
		d, err := derivation.Parse(m.all[of].Bytes())
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		name, _ := derivation.Name(mustPath(t, of))
		p, err := d.Path(name)
		if err != nil {
			t.Fatal(err)
		}
		return p, d.Bytes()
	}
	type D = *derivation.Derivation
	for name, c := range map[string]struct {
		of     string
		change func(d D)
		codes  []string
	}{
		"nothing":           {good, func(D) {}, nil},
		"output path":       {good, func(d D) { d.Outputs[0].Path = pathA }, []string{derivation.CodeOutputPath}},
		"swapped":           {good, func(d D) { o := d.Outputs; o[0].Path, o[1].Path = o[1].Path, o[0].Path }, []string{derivation.CodeOutputPath, derivation.CodeOutputPath}},
		"variable":          {good, func(d D) { d.Env[0].Value = pathA }, []string{derivation.CodeEnvironment}},
		"no variable":       {good, func(d D) { d.Env = d.Env[1:] }, []string{derivation.CodeEnvironment}},
		"other builder":     {good, func(d D) { d.Builder = "/bin/false" }, []string{derivation.CodeOutputPath, derivation.CodeEnvironment, derivation.CodeOutputPath, derivation.CodeEnvironment}},
		"output of input":   {good, func(d D) { d.Inputs[0].Outputs = []string{"doc"} }, []string{derivation.CodeInputOutput}},
		"missing input":     {good, func(d D) { d.Inputs[0].Path = pathB + ".drv" }, []string{derivation.CodeMissing}},
		"fixed, nothing":    {tar, func(D) {}, nil},
		"fixed path":        {tar, func(d D) { d.Outputs[0].Path = pathA }, []string{derivation.CodeOutputPath}},
		"fixed hash":        {tar, func(d D) { d.Outputs[0].Hash = sha[2:] + sha[:2] }, []string{derivation.CodeOutputPath, derivation.CodeEnvironment}},
		"fixed variable":    {tar, func(d D) { d.Env[0].Value = "" }, []string{derivation.CodeEnvironment}},
		"fixed no variable": {tar, func(d D) { d.Env = d.Env[1:] }, []string{derivation.CodeEnvironment}},
	} {
		p, data := repath(c.change, c.of)
		d, err := m.h.Verify(p, data)
		if got := codes(err); !slices.Equal(got, c.codes) || (d == nil) != (err != nil) {
			t.Errorf("%s: %v; want %v\n%v", name, got, c.codes, err)
		}
	}

	data := m.all[good].Bytes()
	other := mustPath(t, strings.Replace(good, "-x.drv", "-y.drv", 1))
	if _, err := m.h.Verify(other, data); code(err) != derivation.CodeMismatch {
		t.Errorf("another name: %v", err)
	}
	if _, err := m.h.Verify(mustPath(t, pathA), data); code(err) != derivation.CodeName {
		t.Errorf("a path without .drv: %v", err)
	}
	_, err := m.h.Verify(mustPath(t, good), data[:40])
	var e *derivation.Error
	if !errors.As(err, &e) || e.Code != derivation.CodeTruncated || e.Path != good || e.Offset != 40 {
		t.Errorf("cut: %v", err)
	}
}

// codes returns the codes of all errors that were joined.
func codes(err error) []string {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, err := range j.Unwrap() {
			all = append(all, codes(err)...)
		}
		return all
	}
	return []string{code(err)}
}

// TestMaskedVariables: an output's variable counts as "" even when it is not
// there, and what it says does not matter.
func TestMaskedVariables(t *testing.T) {
	h := derivation.NewHasher(nil)
	d := &derivation.Derivation{Outputs: []derivation.Output{{ID: "doc"}, {ID: "out"}}, Env: []derivation.Variable{{Name: "a", Value: "1"}}}
	without, err := h.OutputPaths("x", d)
	if err != nil {
		t.Fatal(err)
	}
	d.Env = []derivation.Variable{{Name: "a", Value: "1"}, {Name: "doc", Value: "?"}, {Name: "out", Value: pathA}}
	d.Outputs[1].Path = pathB
	with, err := h.OutputPaths("x", d)
	if err != nil || with["out"] != without["out"] || with["doc"] != without["doc"] {
		t.Errorf("%v, %v; want %v", with, err, without)
	}
	d.Env[0].Value = "2"
	if other, _ := h.OutputPaths("x", d); other["out"] == with["out"] {
		t.Error("a variable does not count")
	}
}

func numbered(i int) string {
	digits := strconv.Itoa(i)
	return pathA[:len(pathA)-len("-a")-len(digits)] + digits + "-n.drv"
}

func linked(to ...string) *derivation.Derivation {
	d := &derivation.Derivation{Outputs: []derivation.Output{{ID: "out", Path: pathA}}}
	for _, p := range to {
		d.Inputs = append(d.Inputs, out(p))
	}
	return d
}

func TestCycle(t *testing.T) {
	all := map[string]*derivation.Derivation{
		numbered(0): linked(numbered(1)),
		numbered(1): linked(numbered(9), numbered(2)),
		numbered(2): linked(numbered(3)),
		numbered(3): linked(numbered(1)),
		numbered(4): linked(numbered(4)),
		numbered(9): linked(),
	}
	h := derivation.NewHasher(from(all))
	for range 2 { // the second time must not stumble over what the first left
		_, err := h.Modulo(numbered(0), all[numbered(0)])
		var e *derivation.Error
		if !errors.As(err, &e) || e.Code != derivation.CodeCycle || e.Path != numbered(1) ||
			!strings.Contains(e.Detail, numbered(2)) || !strings.Contains(e.Detail, numbered(3)) || strings.Contains(e.Detail, numbered(0)) {
			t.Errorf("cycle of three: %v", err)
		}
		if _, err := h.Modulo(numbered(4), all[numbered(4)]); code(err) != derivation.CodeCycle {
			t.Errorf("cycle of one: %v", err)
		}
		if err := h.Fill("x", linked(numbered(0))); code(err) != derivation.CodeCycle {
			t.Errorf("Fill above a cycle: %v", err)
		}
		if _, err := h.Modulo(numbered(9), all[numbered(9)]); err != nil {
			t.Errorf("beside the cycle: %v", err)
		}
	}
	all[numbered(3)] = linked()
	if _, err := h.Modulo(numbered(0), all[numbered(0)]); err != nil {
		t.Errorf("after the cycle was broken: %v", err)
	}
}

// TestDeep: a chain that would overflow a stack is only long.
func TestDeep(t *testing.T) {
	const depth = 100_000
	lookups := 0
	h := derivation.NewHasher(func(path string) (*derivation.Derivation, error) {
		lookups++ // called for 1, 2, 3...
		if path != numbered(lookups) {
			t.Fatalf("%s is looked up as number %d", path, lookups)
		}
		if lookups == depth {
			return linked(), nil
		}
		return linked(numbered(lookups + 1)), nil
	})
	if _, err := h.Modulo(numbered(0), linked(numbered(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Modulo(numbered(1), nil); err != nil {
		t.Fatal(err)
	}
	if lookups != depth {
		t.Errorf("%d lookups for %d derivations", lookups, depth)
	}
}

// TestEndless: a closure without end is refused at the bound.
func TestEndless(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: walks MaxClosure derivations; run without -short")
	}
	i := 0
	h := derivation.NewHasher(func(path string) (*derivation.Derivation, error) {
		i++
		return linked(numbered(i + 1)), nil
	})
	if _, err := h.Modulo(numbered(0), linked(numbered(1))); code(err) != derivation.CodeLimit {
		t.Errorf("after %d: %v", i, err)
	}
}
