// Package derivation reads, checks and makes Guix derivations: the .drv files
// that say how each store item is built.
//
// # Grammar
//
//	FILE   = "Derive([" OUT,* "],[" IN,* "],[" STR,* "]," SYSTEM "," BUILDER ",[" STR,* "],[" ENV,* "])"
//	OUT    = "(" ID "," PATH "," ALGO "," HASH ")"
//	IN     = "(" DRVPATH ",[" ID,+ "])"
//	ENV    = "(" NAME "," VALUE ")"
//	STR    = '"' (byte | '\"' | '\\' | '\n' | '\r' | '\t')* '"'
//
// Everything in capitals is a STR; x,* is a list with commas between. There
// is no white space and no final newline. Outputs ascend by ID, inputs by
// path, the IDs of an input, the sources and the variables by name, all by
// unsigned bytes and each once; only arguments keep an order of their own.
//
// Guix has two readers, and both take more than this: one sorts, one keeps
// the order, one stops at the closing parenthesis, one at a zero byte. A file
// that they may read differently is refused here. So besides the grammar:
//
//   - PATH and sources are store paths, DRVPATH one that ends in .drv;
//   - a string holds no zero byte, and each byte has one spelling: the five
//     escapes where there is an escape, raw elsewhere (UTF-8 is not demanded);
//   - there is at least one output, IDs are names as in package storepath;
//   - an input names at least one output (the daemon takes none to mean all);
//   - ALGO and HASH are both empty, or the only output is "out", ALGO is an
//     algorithm of [storepath.DigestSize] with or without "r:" before it, and
//     HASH its digest in lower-case hexadecimal.
//
// What [Parse] accepts, [Derivation.Bytes] prints back to the same bytes.
//
// # Vocabulary
//
// A derivation is fixed if its output's hash is stated ([Derivation.IsFixed]):
// only such a build may use the network, since the result is known before.
//
// Its own path is that of a text item NAME.drv whose references are its
// sources and the derivations of its inputs ([Derivation.Path]).
//
// The modulo hash M ([Hasher.Modulo]) names a derivation by what it makes and
// not by where fixed inputs are fetched from:
//
//	fixed:   M = SHA-256("fixed:out:" ALGO ":" HASH ":" PATH)
//	others:  M = SHA-256(FILE, with each DRVPATH replaced by hex(M) of that
//	                     derivation, and the inputs sorted anew)
//
// Two inputs of equal M leave one: the one whose path sorts last.
//
// The masked derivation has its own output paths, and the variables named
// like its outputs, set to "". Its M gives the output paths
// ([Hasher.OutputPaths]); a fixed output's path follows from ALGO and HASH.
// Inputs are never masked.
//
// # Checking
//
// [Hasher.Verify] recomputes everything about one file: its path, each output
// path, each variable that repeats one. [LoadClosure] does so for a
// derivation and all that it stands on, in parallel:
//
//	root, err := storepath.Parse("/gnu/store/2nfg943asrl9dv64zrr1a4kpb25mfafd-hello-2.12.2.drv")
//	...
//	g, err := derivation.LoadClosure(os.DirFS("/gnu/store"), root)
//	...
//	for n := range g.Nodes() { // what is needed before what needs it
//		fmt.Println(n.Path, n.Derivation.IsFixed())
//	}
//
// # Making
//
// [Hasher.Fill] turns a Derivation without output paths into what Guile's
// `derivation` procedure would make of it: lists sorted, inputs that make the
// same outputs merged (two downloads of one file from different places), the
// variables of the outputs added, all paths set.
//
// # Bounds
//
// A file has at most [MaxSize] bytes and its lists at most [MaxOutputs],
// [MaxInputs], [MaxSources], [MaxArgs] and [MaxEnv] elements; the grammar
// nests three deep and the reader does not recurse. A closure has at most
// [MaxClosure] derivations; it is walked with a stack on the heap, and a cycle
// is an error. A parsed derivation shares one copy of the file's text among its
// strings, so memory stays within a small multiple of what was read.
//
// # Errors
//
// What is wrong with the input is an [*Error] with a stable code and, from
// the parser, the byte offset. Verify and LoadClosure report everything they
// find, joined with [errors.Join].
//
// # Source
//
// nix/libstore/derivations.cc and the `derivation` procedure of
// guix/derivations.scm of GNU Guix are the only specification. Verified
// against Guix 1.5.0 with vectors/drv-hello.
package derivation

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"sallyport/guix/storepath"
)

// Bounds of one file and of a closure. Real ones are far below: a large
// derivation has some hundred kilobytes, the closure of a system some
// thousand derivations, and all of Guix does not reach MaxClosure.
const (
	MaxSize    = 16 << 20
	MaxOutputs = 1 << 8
	MaxInputs  = 1 << 16
	MaxSources = 1 << 16
	MaxArgs    = 1 << 16
	MaxEnv     = 1 << 16
	MaxClosure = 1 << 19
)

const (
	drvSuffix = ".drv"
	outID     = "out"
	recursive = "r:"
)

// An Output is one thing that a derivation makes.
type Output struct {
	ID       string // "out", "doc", "lib"...
	Path     string // its store path
	HashAlgo string // of a fixed output: "sha256", "r:sha256"...; else ""
	Hash     string // of a fixed output: the digest in hexadecimal; else ""
}

// Content returns what a fixed output must hash to: the digest of the file,
// or of its nar if recursive. It reports false if the output is not fixed or
// its hash is malformed.
func (o Output) Content() (algo string, rec bool, digest []byte, ok bool) {
	if o.Hash == "" {
		return "", false, nil, false
	}
	algo, rec = strings.CutPrefix(o.HashAlgo, recursive)
	size, known := storepath.DigestSize(algo)
	if !known || len(o.Hash) != 2*size {
		return "", false, nil, false
	}
	for i := 0; i < len(o.Hash); i++ {
		if c := o.Hash[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false, nil, false
		}
	}
	digest, err := hex.DecodeString(o.Hash)
	return algo, rec, digest, err == nil
}

// An Input is a derivation of which some outputs are needed.
type Input struct {
	Path    string   // of the .drv
	Outputs []string // IDs
}

// A Variable is one entry of the builder's environment.
type Variable struct{ Name, Value string }

// A Derivation says how something is built. As Parse and Fill leave it, its
// lists are sorted; a Derivation made by hand goes through Fill first.
type Derivation struct {
	Outputs []Output
	Inputs  []Input
	Sources []string // store items that are no outputs of inputs: builders' scripts, patches
	System  string   // "x86_64-linux"
	Builder string   // a program's path, or "builtin:download" and the like
	Args    []string
	Env     []Variable
}

// IsFixed reports whether the hash of the output is stated beforehand.
func (d *Derivation) IsFixed() bool {
	return len(d.Outputs) == 1 && d.Outputs[0].ID == outID && d.Outputs[0].Hash != ""
}

// Output returns the output called id.
func (d *Derivation) Output(id string) (Output, bool) {
	if i := d.output(id); i >= 0 {
		return d.Outputs[i], true
	}
	return Output{}, false
}

func (d *Derivation) output(id string) int {
	for i := range d.Outputs {
		if d.Outputs[i].ID == id {
			return i
		}
	}
	return -1
}

// Lookup returns the value of a variable. Some of them are orders to the
// daemon: allowedReferences, disallowedReferences, impureEnvVars,
// exportReferencesGraph, preferLocalBuild, allowSubstitutes.
func (d *Derivation) Lookup(env string) (string, bool) {
	for i := range d.Env {
		if d.Env[i].Name == env {
			return d.Env[i].Value, true
		}
	}
	return "", false
}

// References returns what the .drv refers to as a store item: its sources
// and the .drv of its inputs, sorted, each once. Outputs are not among them.
func (d *Derivation) References() ([]storepath.Path, error) {
	refs := make([]storepath.Path, 0, len(d.Sources)+len(d.Inputs))
	// Both lists ascend, so merging them is sorting them.
	i, j := 0, 0
	for i < len(d.Sources) || j < len(d.Inputs) {
		var s string
		if j == len(d.Inputs) || i < len(d.Sources) && d.Sources[i] < d.Inputs[j].Path {
			s = d.Sources[i]
			i++
		} else {
			s = d.Inputs[j].Path
			j++
		}
		p, err := storepath.Parse(s)
		if err != nil {
			return nil, pathError(s, err)
		}
		refs = append(refs, p)
	}
	if !slices.IsSortedFunc(refs, storepath.Path.Compare) {
		slices.SortFunc(refs, storepath.Path.Compare)
	}
	return slices.Compact(refs), nil
}

// Path returns the path of the derivation's own file, called name.drv.
func (d *Derivation) Path(name string) (storepath.Path, error) {
	return d.path(name, sha256.Sum256(d.Bytes()))
}

func (d *Derivation) path(name string, sum [32]byte) (storepath.Path, error) {
	refs, err := d.References()
	if err != nil {
		return storepath.Path{}, err
	}
	return storepath.Text(name+drvSuffix, sum, refs)
}

// clone returns a copy whose lists may be changed.
func (d *Derivation) clone() *Derivation {
	c := *d
	c.Outputs = slices.Clone(d.Outputs)
	c.Inputs = slices.Clone(d.Inputs)
	for i := range c.Inputs {
		c.Inputs[i].Outputs = slices.Clone(c.Inputs[i].Outputs)
	}
	c.Sources = slices.Clone(d.Sources)
	c.Env = slices.Clone(d.Env)
	return &c
}

// Name returns the name of the derivation at path: without hash and ".drv".
func Name(path storepath.Path) (string, bool) { return strings.CutSuffix(path.Name(), drvSuffix) }
