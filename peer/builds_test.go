//go:build peer

package peer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sallyport/guix/archive"
	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build"
	"sallyport/internal/trust"
)

// said are the daemon's words for our codes.
var said = map[string]string{
	build.CodeExit:       `failed with exit code`,
	build.CodeAttribute:  `invalid reference specifier`,
	build.CodeMissing:    `failed to produce output path`,
	build.CodeSuspicious: `suspicious ownership or permission`,
	build.CodeNotFlat:    `should be a non-executable regular file`,
	build.CodeType:       `has an unsupported type`,
	build.CodeHash:       `hash mismatch for`,
	build.CodeNotAllowed: `not allowed to refer to`,
	build.CodeDisallowed: `not allowed to refer to`,
	build.CodeCycle:      `cycle detected`,
}

// A buildCase is one of vectors/builds/cases.json, as far as it is needed to make the derivation.
type buildCase struct {
	Name    string
	Args    []string
	Outputs []string
	Fixed   *struct{ Algo, Hash string }
	Sources map[string]string
	Inputs  map[string]string
	Env     map[string]string
}

// works is a store of ours, and what has to be known to build in it.
type works struct {
	dir, work  string
	references map[storepath.Path][]storepath.Path
	drvs       map[storepath.Path]*derivation.Derivation
	uid, gid   int
}

func (w *works) restore(t *testing.T, it item) {
	t.Helper()
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := nar.Restore(root, it.path.Base(), bytes.NewReader(it.nar)); err != nil {
		t.Fatal(err)
	}
	w.references[it.path] = it.refs
}

// closure is of items in the store; it reports false if one is missing.
func (w *works) closure(start []storepath.Path) ([]storepath.Path, bool) {
	seen := make(map[storepath.Path]bool)
	for len(start) > 0 {
		p := start[0]
		start = start[1:]
		refs, ok := w.references[p]
		if !ok {
			return nil, false
		}
		if !seen[p] {
			seen[p] = true
			start = append(start, refs...)
		}
	}
	var list []storepath.Path
	for p := range seen {
		list = append(list, p)
	}
	return sorted(list), true
}

// TestBuilds has guix-daemon and our sandbox make the same derivations, and compares what they made, or why they refused, and the logs.
func TestBuilds(t *testing.T) {
	p := start(t)
	var file struct {
		Texts map[string]string
		Cases []buildCase
	}
	if err := json.Unmarshal(read(t, filepath.Join(vectorsFolder, "builds/cases.json")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) < 50 {
		t.Fatalf("only %d cases", len(file.Cases))
	}
	w := &works{dir: t.TempDir(), work: t.TempDir(), references: make(map[storepath.Path][]storepath.Path), drvs: make(map[storepath.Path]*derivation.Derivation)}
	w.uid, w.gid = p.buildUser(t)

	// The inputs and the derivations are ours; they reach the daemon as a stream.
	builder := buildersBuilder(t)
	all := []item{builder}
	names := map[string]storepath.Path{"builder": builder.path}
	for name, content := range file.Texts {
		it := text(t, name, content)
		names[name] = it.path
		all = append(all, it)
	}
	for _, it := range all {
		w.restore(t, it)
	}
	hasher := derivation.NewHasher(func(path string) (*derivation.Derivation, error) { return w.drvs[parse(t, path)], nil })
	drvs := make(map[string]storepath.Path)
	for _, c := range file.Cases {
		d := c.derive(t, builder.path, names, drvs, hasher)
		path, err := d.Path(c.Name)
		if err != nil {
			t.Fatal(err)
		}
		refs, err := d.References()
		if err != nil {
			t.Fatal(err)
		}
		w.drvs[path], drvs[c.Name] = d, path
		if o, ok := d.Output("out"); ok {
			names["case:"+c.Name] = parse(t, o.Path)
		}
		all = append(all, text(t, path.Name(), string(d.Bytes()), refs...))
	}

	in := p.folder(t)
	k := key(t)
	in.write(t, "inputs", stream(t, k, all...), 0o644)
	var script strings.Builder
	fmt.Fprintf(&script, "%scd %s\nguix archive --import <inputs\n", install(t, in, k, signature.NewACL(k.Public())), in.name)
	for _, c := range file.Cases {
		fmt.Fprintf(&script, "rc=0; guix build --no-substitutes %s >%[2]s.out 2>%[2]s.err || rc=$?; echo $rc >%[2]s.status\n", drvs[c.Name], c.Name)
		fmt.Fprintf(&script, "if [ $rc = 0 ]; then guix archive --export $(cat %[1]s.out) >%[1]s.export; fi\n", c.Name)
	}
	for _, path := range drvs {
		if err := os.RemoveAll(p.logFile(path)); err != nil { // of an earlier run
			t.Fatal(err)
		}
	}
	p.fresh(t, script.String())

	built, refused, failed := 0, 0, 0
	for _, c := range file.Cases {
		t.Run(c.Name, func(t *testing.T) {
			path := drvs[c.Name]
			d := w.drvs[path]
			status := strings.TrimSpace(string(in.read(t, c.Name+".status")))
			message := in.read(t, c.Name+".err")
			r, log, err := w.build(t, path, d)
			if r != nil {
				defer r.Close()
			}
			theirs := p.log(t, path)
			if err == nil && log != theirs {
				t.Errorf("our log %q\ntheirs  %q", log, theirs)
			}

			var f *build.Failure
			refusals, isRefusal := trust.AsRefusals(err)
			switch {
			case isRefusal || errors.As(err, &f):
				codes := refusals.Codes()
				if f != nil {
					codes = []string{f.Code}
					failed++
				} else {
					refused++
				}
				if status == "0" {
					t.Errorf("we refuse it (%v), the daemon built it", err)
					break
				}
				// The daemon stops at the first fault, we name them all.
				whole := string(message) + theirs
				if !slices.ContainsFunc(codes, func(code string) bool { return regexp.MustCompile(said[code]).MatchString(whole) }) {
					t.Errorf("we say %v, the daemon\n%s", codes, tail(message))
				}
				if f != nil && f.Code == build.CodeExit {
					if log != theirs {
						t.Errorf("our log %q\ntheirs  %q", log, theirs)
					}
					if !strings.Contains(whole, "exit code "+strconv.Itoa(f.Status)) {
						t.Errorf("our exit status is %d, the daemon says\n%s", f.Status, tail(message))
					}
				}
			case err != nil:
				t.Fatal(err)
			case status != "0":
				t.Errorf("we built it, the daemon did not (%s):\n%s", status, tail(message))
			default:
				built++
				w.same(t, path, r, exported(t, in.read(t, c.Name+".export"), signature.NewACL(k.Public())))
			}
			if err == nil {
				for i := range r.Outputs {
					if err := r.Outputs[i].Move(w.dir); err != nil {
						t.Fatal(err)
					}
					w.references[r.Outputs[i].Path] = r.Outputs[i].References
				}
			}
		})
	}
	t.Logf("%d cases: %d built by both, %d refused by both, %d failed in both", len(file.Cases), built, refused, failed)
}

// same demands that the outputs be equal: hash, size, references, deriver.
func (w *works) same(t *testing.T, drv storepath.Path, r *build.Result, theirs []*archive.Item) {
	t.Helper()
	if len(theirs) != len(r.Outputs) {
		t.Fatalf("the daemon exported %d outputs, we made %d", len(theirs), len(r.Outputs))
	}
	for _, o := range r.Outputs {
		i := slices.IndexFunc(theirs, func(it *archive.Item) bool { return it.Path == o.Path })
		if i < 0 {
			t.Errorf("the daemon has no %s", o.Path)
			continue
		}
		it := theirs[i]
		if it.NarHash != o.NarHash || it.NarSize != o.NarSize {
			t.Errorf("%s: ours is %x (%d bytes), the daemon's %x (%d)", o.Path, o.NarHash, o.NarSize, it.NarHash, it.NarSize)
			t.Logf("ours: %.2000q", dump(t, filepath.Dir(o.HostPath), filepath.Base(o.HostPath)))
		}
		if !slices.Equal(it.References, o.References) {
			t.Errorf("%s: references %q, the daemon's %q", o.Path, o.References, it.References)
		}
		if it.Deriver != drv {
			t.Errorf("%s: deriver %s", o.Path, it.Deriver)
		}
	}
}

// build makes a derivation in our sandbox, as the daemon's first build user.
func (w *works) build(t *testing.T, path storepath.Path, d *derivation.Derivation) (*build.Result, string, error) {
	t.Helper()
	var wanted []storepath.Path
	for _, s := range d.Sources {
		wanted = append(wanted, parse(t, s))
	}
	for _, in := range d.Inputs {
		for _, id := range in.Outputs {
			o, _ := w.drvs[parse(t, in.Path)].Output(id)
			wanted = append(wanted, parse(t, o.Path))
		}
	}
	closure, ok := w.closure(wanted)
	if !ok {
		t.Fatal("an input was not built")
	}
	var log bytes.Buffer
	r, err := build.Run(t.Context(), build.Job{
		Derivation: d, Path: path, StoreDir: w.dir, Inputs: closure, WorkDir: w.work, Log: &log, UID: w.uid, GID: w.gid,
		References: func(p storepath.Path) ([]storepath.Path, error) { return w.references[p], nil },
		Getenv: func(name string) string {
			return map[string]string{"LANG": "C.UTF-8"}[name] // as in the environment of the daemon
		},
	})
	return r, log.String(), err
}

// buildUser is the first of the daemon's.
func (p *peer) buildUser(t *testing.T) (uid, gid int) {
	t.Helper()
	if _, err := fmt.Sscan(string(p.run(t, "sh", "-c", "id -u guixbuilder01; id -g guixbuilder01")), &uid, &gid); err != nil {
		t.Fatal(err)
	}
	return uid, gid
}

func (p *peer) logFile(drv storepath.Path) string {
	base := drv.Base()
	return filepath.Join(p.root, "var/log/guix/drvs", base[:2], base[2:]+".gz")
}

// log is what the daemon kept of the last build of a derivation.
func (p *peer) log(t *testing.T, drv storepath.Path) string {
	t.Helper()
	data, err := os.ReadFile(p.logFile(drv))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// buildersBuilder compiles the builder of the cases and makes an item of it.
func buildersBuilder(t *testing.T) item {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), read(t, filepath.Join(vectorsFolder, "builds/builder/main.go")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module builder\n\ngo 1.26\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "item", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", "item/bin/builder", "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "GOAMD64=v1", "GOEXPERIMENT=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return source(t, "vector-builder", dump(t, dir, "item"))
}

// derive makes the derivation, as vectors/builds/README.md describes it.
func (c *buildCase) derive(t *testing.T, builder storepath.Path, names, drvs map[string]storepath.Path, hasher *derivation.Hasher) *derivation.Derivation {
	t.Helper()
	system := "x86_64-linux"
	if runtime.GOARCH == "arm64" {
		system = "aarch64-linux"
	}
	known := make(map[string]string)
	name := func(n string, p storepath.Path) {
		known[n], known[n+"Base"], known[n+"Cut"] = p.String(), p.Base(), p.Base()[1:]
	}
	for n, p := range names {
		if !strings.HasPrefix(n, "case:") {
			name(n, p)
		}
	}
	d := &derivation.Derivation{System: system, Builder: builder.String() + "/bin/builder", Args: c.Args, Sources: []string{builder.String()}}
	set := func(variable, value string) { d.Env = append(d.Env, derivation.Variable{Name: variable, Value: value}) }
	for variable, of := range c.Sources {
		name(variable, names[of])
		set(variable, names[of].String())
		d.Sources = append(d.Sources, names[of].String())
	}
	for variable, of := range c.Inputs {
		out := names["case:"+of]
		name(variable, out)
		set(variable, out.String())
		d.Inputs = append(d.Inputs, derivation.Input{Path: drvs[of].String(), Outputs: []string{"out"}})
	}
	for variable, value := range c.Env {
		set(variable, os.Expand(value, func(n string) string { return known[n] }))
	}
	ids := c.Outputs
	if len(ids) == 0 {
		ids = []string{"out"}
	}
	for _, id := range ids {
		o := derivation.Output{ID: id}
		if c.Fixed != nil {
			o.HashAlgo, o.Hash = c.Fixed.Algo, c.Fixed.Hash
		}
		d.Outputs = append(d.Outputs, o)
	}
	if err := hasher.Fill(c.Name, d); err != nil {
		t.Fatalf("%s: %v", c.Name, err)
	}
	return d
}
