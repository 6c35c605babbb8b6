package build

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

const vectorsDir = "../../../vectors/builds"

var update = flag.Bool("update", false, "record what the vectors' builds gave in "+vectorsDir+"/recorded.json")

type vectorNode struct {
	Path       string `json:"path"`
	Type       string `json:"type"`
	Executable bool   `json:"executable"`
	Text       string `json:"text"`
	Target     string `json:"target"`
}

type vector struct {
	Name    string            `json:"name"`
	About   string            `json:"about"`
	Args    []string          `json:"args"`
	Outputs []string          `json:"outputs"` // IDs; none means "out"
	Fixed   *vectorFixed      `json:"fixed"`
	Sources map[string]string `json:"sources"` // variable: text
	Inputs  map[string]string `json:"inputs"`  // variable: case, whose output "out" is meant
	Env     map[string]string `json:"env"`

	Expect struct {
		Outputs map[string]struct {
			Tree       []vectorNode `json:"tree"`
			References []string     `json:"references"`
		} `json:"outputs"`
		Refused []string `json:"refused"` // the codes, in order
		Failed  string   `json:"failed"`
		Status  int      `json:"status"`
		Log     *string  `json:"log"`
		Strays  []string `json:"strays"`
	} `json:"expect"`
}

type vectorFixed struct {
	Algo string `json:"algo"`
	Hash string `json:"hash"`
}

type vectorFile struct {
	Texts map[string]string `json:"texts"`
	Cases []vector          `json:"cases"`
}

// recorded is what the builds gave with one build of the builder. Paths depend on it, so with another the trees are compared alone.
type recorded struct {
	Go      string                    `json:"go"`
	System  string                    `json:"system"`
	Builder string                    `json:"builder"`
	Cases   map[string]recordedResult `json:"cases"`
}

type recordedResult struct {
	Derivation string                    `json:"derivation"`
	Outputs    map[string]recordedOutput `json:"outputs,omitempty"`
	Refused    []string                  `json:"refused,omitempty"`
	Failed     string                    `json:"failed,omitempty"`
}

type recordedOutput struct {
	Path       string   `json:"path"`
	NarSHA256  string   `json:"nar_sha256"`
	NarSize    int64    `json:"nar_size"`
	References []string `json:"references"`
}

func readJSON(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// builderVariable names a program to be used as the vectors' builder instead of building it, where there is no Go.
const builderVariable = "SALLYPORT_VECTOR_BUILDER"

var builderOnce = sync.OnceValues(func() ([]byte, error) {
	if name := os.Getenv(builderVariable); name != "" {
		return os.ReadFile(name)
	}
	source, err := os.ReadFile(filepath.Join(vectorsDir, "builder", "main.go"))
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "builder")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// A module of its own: what is built must not depend on ours.
	for name, data := range map[string][]byte{"main.go": source, "go.mod": []byte("module builder\n\ngo 1.26\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return nil, err
		}
	}
	out := filepath.Join(dir, "builder")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on", "GOTOOLCHAIN=local", "GOAMD64=v1", "GOEXPERIMENT=")
	if text, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, text)
	}
	return os.ReadFile(out)
})

// vectorBuilder puts the vectors' builder into the store.
func vectorBuilder(t testing.TB, s *store) storepath.Path {
	t.Helper()
	program, err := builderOnce()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skipf("SKIPPED: %v; install Go, or name a built vectors/builds/builder in %s", err, builderVariable)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s.addSource(t, "vector-builder", func(w *nar.Writer) error {
		for _, h := range []*nar.Header{
			{Type: nar.Directory},
			{Path: "bin", Type: nar.Directory},
			{Path: "bin/builder", Type: nar.Regular, Executable: true, Size: int64(len(program))},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		_, err := w.Write(program)
		return err
	})
}

func hostSystem() string {
	if runtime.GOARCH == "arm64" {
		return "aarch64-linux"
	}
	return "x86_64-linux"
}

// TestVectors builds the project's own cases.
func TestVectors(t *testing.T) {
	var file vectorFile
	readJSON(t, filepath.Join(vectorsDir, "cases.json"), &file)
	if len(file.Cases) < 50 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	var want recorded
	if !*update {
		readJSON(t, filepath.Join(vectorsDir, "recorded.json"), &want)
	}
	s := newStore(t)
	builder := vectorBuilder(t, s)
	got := recorded{Go: runtime.Version(), System: hostSystem(), Builder: builder.String(), Cases: make(map[string]recordedResult)}
	same := want.Builder == builder.String()
	if !same && !*update {
		t.Logf("NOTE: the recorded paths and hashes belong to a builder made by %s for %s; this one is another, so only trees, references and refusals are compared", want.Go, want.System)
	}
	names := map[string]storepath.Path{"builder": builder}
	for name, text := range file.Texts {
		names[name] = s.addText(t, name, text)
	}
	hasher := derivation.NewHasher(func(path string) (*derivation.Derivation, error) {
		return s.drvs[mustPath(t, path)], nil
	})
	drvPaths := make(map[string]storepath.Path)
	sums := make(map[storepath.Path][32]byte)

	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			v := &vectorRun{vector: c, s: s, expand: make(map[string]string)}
			p, d := v.derive(t, builder, names, drvPaths, hasher)
			drvPaths[c.Name] = p
			job := s.job(t, p, d)
			job.Getenv = func(name string) string { return map[string]string{"LANG": "C.UTF-8"}[name] }
			r, log, err := run(t, job)
			result := v.check(t, job, r, log, err)
			for _, p := range job.Inputs {
				sum := s.dumpHash(t, p)
				if first, ok := sums[p]; ok && first != sum {
					t.Errorf("the input %s was changed", p)
				}
				sums[p] = sum
			}
			result.Derivation = p.String()
			got.Cases[c.Name] = result
			if same {
				a, _ := json.Marshal(result)
				b, _ := json.Marshal(want.Cases[c.Name])
				if !bytes.Equal(a, b) {
					t.Errorf("gave %s\nrecorded is %s", a, b)
				}
			}
			if err == nil {
				s.addResult(t, r)
				if o, ok := d.Output("out"); ok {
					names["case:"+c.Name] = mustPath(t, o.Path)
				}
			}
		})
	}
	if *update && !t.Failed() {
		data, err := json.MarshalIndent(got, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(vectorsDir, "recorded.json"), append(data, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

type vectorRun struct {
	vector
	s      *store
	expand map[string]string
	paths  map[string]storepath.Path
}

func (v *vectorRun) text(s string) string {
	return os.Expand(s, func(name string) string {
		text, ok := v.expand[name]
		if !ok {
			return "?" + name + "?"
		}
		return text
	})
}

func (v *vectorRun) name(name string, p storepath.Path) {
	if v.paths == nil {
		v.paths = make(map[string]storepath.Path)
	}
	v.paths[name] = p
	v.expand[name] = p.String()
	v.expand[name+"Base"] = p.Base()
	v.expand[name+"Cut"] = p.Base()[1:]
}

// derive makes the case's derivation.
func (v *vectorRun) derive(t *testing.T, builder storepath.Path, names, drvPaths map[string]storepath.Path, hasher *derivation.Hasher) (storepath.Path, *derivation.Derivation) {
	for name, p := range names {
		if !strings.HasPrefix(name, "case:") {
			v.name(name, p)
		}
	}
	d := &derivation.Derivation{System: hostSystem(), Builder: builder.String() + "/bin/builder", Args: v.Args, Sources: []string{builder.String()}}
	env := make(map[string]string)
	for variable, text := range v.Sources {
		v.name(variable, names[text])
		env[variable] = names[text].String()
		d.Sources = append(d.Sources, names[text].String())
	}
	for variable, other := range v.Inputs {
		p, ok := names["case:"+other]
		if !ok {
			t.Fatalf("case %s is not built", other)
		}
		v.name(variable, p)
		env[variable] = p.String()
		d.Inputs = append(d.Inputs, derivation.Input{Path: drvPaths[other].String(), Outputs: []string{"out"}})
	}
	for variable, value := range v.Env {
		env[variable] = v.text(value)
	}
	for variable, value := range env {
		d.Env = append(d.Env, derivation.Variable{Name: variable, Value: value})
	}
	ids := v.vector.Outputs
	if len(ids) == 0 {
		ids = []string{"out"}
	}
	for _, id := range ids {
		o := derivation.Output{ID: id}
		if v.Fixed != nil {
			o.HashAlgo, o.Hash = v.Fixed.Algo, v.Fixed.Hash
		}
		d.Outputs = append(d.Outputs, o)
	}
	if err := hasher.Fill(v.Name, d); err != nil {
		t.Fatal(err)
	}
	for _, o := range d.Outputs {
		v.name(o.ID, mustPath(t, o.Path))
	}
	p, err := d.Path(v.Name)
	if err != nil {
		t.Fatal(err)
	}
	return p, d
}

func (v *vectorRun) check(t *testing.T, job Job, r *Result, log string, err error) recordedResult {
	var stored strings.Builder
	for _, p := range job.Inputs {
		fmt.Fprintf(&stored, "%s\n", p.Base())
	}
	v.expand["stored"] = stored.String()
	var graphed []storepath.Path
	if p, ok := v.paths["dep"]; ok && len(v.Inputs) > 0 {
		var graph strings.Builder
		graphed = v.s.closure(t, p)
		for _, p := range graphed {
			refs := slices.SortedFunc(slices.Values(v.s.references[p]), storepath.Path.Compare)
			fmt.Fprintf(&graph, "%s\n\n%d\n", p, len(refs))
			for _, ref := range refs {
				fmt.Fprintf(&graph, "%s\n", ref)
			}
		}
		v.expand["graph"] = graph.String()
	}

	var result recordedResult
	if v.Expect.Log != nil && log != v.text(*v.Expect.Log) {
		t.Errorf("log %q\nwant %q", log, v.text(*v.Expect.Log))
	}
	if r != nil && (!slices.Equal(r.Strays, v.Expect.Strays) || r.StrayCount != len(v.Expect.Strays)) {
		t.Errorf("strays %q (%d), want %q", r.Strays, r.StrayCount, v.Expect.Strays)
	}
	var f *Failure
	refusals, refused := trust.AsRefusals(err)
	switch {
	case errors.As(err, &f):
		result.Failed = f.Code
		if f.Code != v.Expect.Failed || f.Status != v.Expect.Status {
			t.Errorf("failed: %v, want code %q and status %d", err, v.Expect.Failed, v.Expect.Status)
		}
	case refused:
		result.Refused = refusals.Codes()
		if !slices.Equal(result.Refused, v.Expect.Refused) {
			t.Errorf("refused: %v\nwant codes %q", err, v.Expect.Refused)
		}
	case err != nil:
		t.Fatal(err)
	case v.Expect.Failed != "" || len(v.Expect.Refused) > 0:
		t.Errorf("was accepted, want %q", append(v.Expect.Refused, v.Expect.Failed))
	}
	if err != nil {
		if r != nil && r.Outputs != nil {
			t.Error("there are outputs beside an error")
		}
		if t.Failed() {
			t.Logf("log:\n%s", log)
		}
		return result
	}
	if len(r.Outputs) != len(v.Expect.Outputs) {
		t.Errorf("%d outputs, want %d", len(r.Outputs), len(v.Expect.Outputs))
	}
	result.Outputs = make(map[string]recordedOutput)
	for _, o := range r.Outputs {
		want := v.Expect.Outputs[o.ID]
		var archive bytes.Buffer
		w := nar.NewWriter(&archive)
		for _, n := range want.Tree {
			h := &nar.Header{Path: v.text(n.Path), Executable: n.Executable, Target: v.text(n.Target)}
			text := v.text(n.Text)
			switch n.Type {
			case "directory":
				h.Type = nar.Directory
			case "symlink":
				h.Type = nar.Symlink
			case "regular":
				h.Type, h.Size = nar.Regular, int64(len(text))
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if h.Type == nar.Regular {
				if _, err := io.WriteString(w, text); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if o.NarHash != sha256Of(archive.Bytes()) || o.NarSize != int64(archive.Len()) {
			t.Errorf("%s: nar hash %x, size %d; want %x, %d", o.ID, o.NarHash, o.NarSize, sha256Of(archive.Bytes()), archive.Len())
			var got bytes.Buffer
			root, err := os.OpenRoot(filepath.Dir(o.HostPath))
			if err != nil {
				t.Fatal(err)
			}
			nar.Dump(&got, root.FS(), filepath.Base(o.HostPath))
			root.Close()
			t.Logf("nar:\n%q\nwant:\n%q", got.String(), archive.String())
		}
		var refs []storepath.Path
		for _, name := range want.References {
			switch name {
			case "STORED":
				refs = append(refs, job.Inputs...)
			case "GRAPH":
				refs = append(refs, graphed...)
			default:
				refs = append(refs, v.paths[name])
			}
		}
		slices.SortFunc(refs, storepath.Path.Compare)
		if !slices.Equal(o.References, refs) {
			t.Errorf("%s: references %q, want %q", o.ID, o.References, refs)
		}
		checkCanonical(t, o.HostPath)
		rec := recordedOutput{Path: o.Path.String(), NarSHA256: hex.EncodeToString(o.NarHash[:]), NarSize: o.NarSize, References: []string{}}
		for _, p := range o.References {
			rec.References = append(rec.References, p.String())
		}
		result.Outputs[o.ID] = rec
	}
	if t.Failed() {
		t.Logf("log:\n%s", log)
	}
	return result
}
