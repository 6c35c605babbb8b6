package collect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/enclavetest"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

type outside struct {
	*Collector
	t   testing.TB
	dir string // of what requests name
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	clock := func() time.Time { return enclavetest.Epoch }
	return &outside{&Collector{Zone: enclavetest.Outside(t, clock), Reader: suite.Reader(t), Clock: clock}, t, t.TempDir()}
}

func (o *outside) write(path, content string) {
	o.t.Helper()
	file := filepath.Join(o.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(content), 0o644)); err != nil {
		o.t.Fatal(err)
	}
}

func (o *outside) collect(text string) (*Collection, error) {
	o.t.Helper()
	r, err := ParseRequest([]byte("enclave = \"keep\"\n" + text))
	if err != nil {
		o.t.Fatal(err)
	}
	return o.Collect(o.t.Context(), r, o.dir)
}

func (o *outside) must(text string) *Collection {
	o.t.Helper()
	c, err := o.collect(text)
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

func (o *outside) row(query string) (v string) {
	o.t.Helper()
	if err := o.Zone.Read(o.t.Context()).QueryRowContext(o.t.Context(), query).Scan(&v); err != nil {
		o.t.Fatalf("%s: %v", query, err)
	}
	return v
}

func (o *outside) kinds() map[string]int {
	o.t.Helper()
	return enclavetest.Kinds(o.t, o.Zone)
}

func (o *outside) blobs() (n int) {
	o.t.Helper()
	if err := o.Zone.CAS.Walk(func(trust.Digest, int64) error { n++; return nil }); err != nil {
		o.t.Fatal(err)
	}
	return n
}

func source(label, name, path string) string {
	return fmt.Sprintf("[[source]]\nlabel = %q\nname = %q\nfrom = \"path\"\npath = %q\n", label, name, path)
}

const recipe = "[[derivation]]\nname = \"hello-1.0\"\nsystem = \"x86_64-linux\"\nbuilder = \"{a}/tool\"\nargs = [\"{b}\", \"{builddir}/x\", \"{system}\"]\nenv = { SRC = \"{b}\" }\n"

func TestCollectAndPack(t *testing.T) {
	o := newOutside(t)
	o.write("a/tool", "#!/bin/tool\n")
	o.write("b", "b\n")
	text := source("a", "tool", "a") + source("b", "b", "b") + recipe
	c := o.must(text)
	if len(c.Items) != 3 || len(c.Outputs) != 1 || c.Files < 2 || c.Confined["seccomp"] == nil || o.blobs() != 4 {
		t.Errorf("%+v", c)
	}
	i := slices.IndexFunc(c.Items, func(it trust.Item) bool { return it.Kind == trust.KindDerivation })
	data, err := o.Zone.CAS.ReadAll(c.Items[i].SHA256, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p, err := storepath.ParseBase(c.Items[i].Name)
	if err != nil {
		t.Fatal(err)
	}
	d, err := derivation.NewHasher(nil).Verify(p, data)
	if err != nil || len(d.Sources) != 2 || d.Outputs[0].Path != c.Outputs[0].Path || d.Args[1] != "/tmp/guix-build-hello-1.0.drv-0/x" || d.Args[2] != "x86_64-linux" {
		t.Errorf("%+v, %v", d, err)
	}
	// Again it is the same.
	again := o.must(text)
	if fmt.Sprint(again.Items) != fmt.Sprint(c.Items) || o.row(`SELECT count(*) FROM collected`) != "3" || o.blobs() != 4 {
		t.Errorf("%+v", again)
	}
	mk, sk := []trust.Signer{enclavetest.Key(t, "carol/manifest")}, enclavetest.Key(t, "carol/sums")
	vol := filepath.Join(t.TempDir(), "volume")
	s, err := o.Pack(t.Context(), vol, mk, sk)
	if err != nil || s.Number != 1 || s.Items != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	e := enclavetest.New(t)
	verify := func(dir string, slip *shipment.Slip) *shipment.Manifest {
		t.Helper()
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		v, err := shipment.Verify(t.Context(), root, shipment.Options{Root: e.Root, Slip: slip})
		if err != nil {
			t.Fatal(err)
		}
		return v.Manifest
	}
	first := verify(vol, s.Slip)
	if _, err := o.Pack(t.Context(), vol, mk, sk); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Error(err)
	}
	if _, err := o.Pack(t.Context(), vol+"-2", mk, sk); err == nil || !strings.Contains(err.Error(), "nothing was collected") {
		t.Error(err)
	}
	o.write("c", "c\n")
	o.must(source("c", "c", "c"))
	// The volume cannot be written, by someone who did not sign the manifest: the number is spent, and finished by the next run.
	if _, err := o.Pack(t.Context(), vol+"-2", mk, enclavetest.Key(t, "mallory/sums")); err == nil {
		t.Fatal("packed with another's sums")
	}
	if o.row(`SELECT state FROM shipment WHERE number = 2`) != "numbered" {
		t.Error("state")
	}
	o.write("d", "d\n")
	o.must(source("d", "d", "d"))
	s, err = o.Pack(t.Context(), vol+"-2", mk, sk)
	if err != nil || s.Number != 2 || s.Items != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if m := verify(vol+"-2", s.Slip); m.Previous != trust.Sum(mustRead(t, filepath.Join(vol, "manifest"))) || len(m.Recent) != 1 || m.Recent[0].Number != first.Number {
		t.Errorf("%+v", m)
	}
	if s, err = o.Pack(t.Context(), vol+"-3", mk, sk); err != nil || s.Number != 3 || s.Items != 1 {
		t.Errorf("%+v, %v", s, err)
	}
	if k := o.kinds(); k["shipped"] != 3 || k["collected"] != 4 || k["inspected"] != 4 {
		t.Error(k)
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRefusals(t *testing.T) {
	o := newOutside(t)
	o.write("a", "same\n")
	o.write("b", "same\n")
	o.write("bad/a\x01b", "x")
	o.write("worse/c\x02d", "x")
	r, err := ParseRequest([]byte("enclave = \"other\"\n" + source("a", "a", "a")))
	if err != nil {
		t.Fatal(err)
	}
	_, err = o.Collect(t.Context(), r, o.dir)
	suite.Want(t, err, "request-enclave")
	refuse := func(text string, codes ...string) {
		t.Helper()
		kinds, blobs := o.kinds(), o.blobs()
		_, err := o.collect(text)
		suite.Want(t, err, codes...)
		kinds[statement.KindRefused]++
		if k := o.kinds(); fmt.Sprint(k) != fmt.Sprint(kinds) || o.blobs() != blobs {
			t.Errorf("entries %v, want %v; %d blobs, were %d", k, kinds, o.blobs(), blobs)
		}
	}
	refuse(source("x", "x", "bad")+source("y", "y", "worse"), "inspection-block", "inspection-block")
	// The same twice is one item.
	if c := o.must(source("a", "a", "a") + source("again", "a", "a")); len(c.Items) != 1 {
		t.Errorf("%+v", c.Items)
	}
}

// One content under two names is two items, together or one after the other; each is shipped once.
func TestSameContent(t *testing.T) {
	o := newOutside(t)
	for _, f := range []string{"a", "b", "c"} {
		o.write(f, "same\n")
	}
	if c := o.must(source("a", "a", "a") + source("b", "b", "b")); len(c.Items) != 2 || c.Items[0].SHA256 != c.Items[1].SHA256 {
		t.Errorf("%+v", c.Items)
	}
	mk, sk := []trust.Signer{enclavetest.Key(t, "carol/manifest")}, enclavetest.Key(t, "carol/sums")
	if s, err := o.Pack(t.Context(), filepath.Join(t.TempDir(), "one"), mk, sk); err != nil || s.Items != 2 {
		t.Fatal(s, err)
	}
	o.must(source("a", "a", "a") + source("c", "c", "c"))
	if s, err := o.Pack(t.Context(), filepath.Join(t.TempDir(), "two"), mk, sk); err != nil || s.Items != 1 {
		t.Fatal(s, err)
	}
	if n := o.row(`SELECT count(DISTINCT sha256) || ' ' || count(*) FROM collected`); n != "1 3" {
		t.Error(n)
	}
}

// A run that is stopped or fails leaves nothing; one that was killed leaves what the next removes.
func TestLeftovers(t *testing.T) {
	o := newOutside(t)
	o.write("a", "a\n")
	if _, err := o.collect(source("a", "a", "a") + source("b", "b", "nowhere")); err == nil {
		t.Error("collected what is not there")
	} else if _, refused := trust.AsRefusals(err); refused {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(int64, string) { cancel() }
	r, err := ParseRequest([]byte("enclave = \"keep\"\n" + source("a", "a", "a")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Collect(ctx, r, o.dir); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	o.Progress = nil
	if o.blobs() != 0 {
		t.Errorf("%d blobs", o.blobs())
	}
	d := trust.Sum([]byte("orphan"))
	if _, err := pending.Begin(t.Context(), o.Zone, stage, []trust.Digest{d}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Zone.CAS.PutBytes([]byte("orphan")); err != nil {
		t.Fatal(err)
	}
	o.must(source("a", "a", "a"))
	if _, ok := o.Zone.CAS.Has(d); ok || o.blobs() != 2 {
		t.Errorf("%d blobs", o.blobs())
	}
}

func TestModule(t *testing.T) {
	for _, p := range []string{"go", "git"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT TESTED: the program %s is missing: install it", p)
		}
	}
	o := newOutside(t)
	o.write("m/go.mod", "module example.org/m\n\ngo 1.26\n")
	o.write("m/main.go", "package main\n\nfunc main() {}\n")
	o.write("m/.hidden", "x")
	o.write("m/untracked.txt", "x")
	module := "[[source]]\nlabel = \"m\"\nname = \"m\"\nfrom = \"go-module\"\npath = \"m\"\n"
	stage := t.TempDir()
	if err := stageModule(t.Context(), filepath.Join(o.dir, "m"), stage); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{"go.mod": true, "main.go": true, "untracked.txt": true, ".hidden": false} {
		if _, err := os.Lstat(filepath.Join(stage, file)); (err == nil) != want {
			t.Errorf("without git: %s: %v", file, err)
		}
	}
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = filepath.Join(o.dir, "m")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	git("init", "-q")
	git("add", "go.mod", "main.go", ".hidden")
	stage = t.TempDir()
	if err := stageModule(t.Context(), filepath.Join(o.dir, "m"), stage); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{"go.mod": true, "main.go": true, "untracked.txt": false, ".hidden": true, ".git": false} {
		if _, err := os.Lstat(filepath.Join(stage, file)); (err == nil) != want {
			t.Errorf("with git: %s: %v", file, err)
		}
	}
	if c := o.must(module); len(c.Items) != 1 {
		t.Errorf("%+v", c)
	}
	if err := os.Remove(filepath.Join(o.dir, "m", "main.go")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(o.dir, "m", "main.go"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := o.collect(module); err == nil || !strings.Contains(err.Error(), "neither a file nor a link") {
		t.Error(err)
	}
}

func TestParseRequest(t *testing.T) {
	good := "enclave = \"keep\"\n" + source("a", "a", "a")
	for name, tt := range map[string]struct{ text, want string }{
		"empty":            {"", "enclave"},
		"nothing wanted":   {"enclave = \"keep\"\n", "0 sources"},
		"no TOML":          {"enclave = ", "line 1"},
		"unknown key":      {good + "shell = \"rm\"\n", "unknown keys"},
		"label":            {strings.Replace(good, `label = "a"`, `label = "A"`, 1), "label"},
		"label twice":      {good + source("a", "b", "b"), "is taken"},
		"reserved label":   {strings.Replace(good, `label = "a"`, `label = "system"`, 1), "is taken"},
		"name":             {strings.Replace(good, `name = "a"`, `name = "../a"`, 1), "name"},
		"from":             {strings.Replace(good, `from = "path"`, `from = "http"`, 1), "want path"},
		"no path":          {strings.Replace(good, `path = "a"`, `path = ""`, 1), "no path"},
		"path of a tool":   {"enclave = \"keep\"\n[[source]]\nlabel = \"go\"\nfrom = \"go-toolchain\"\npath = \"x\"\n", "path is not wanted"},
		"unknown label":    {good + recipe, "{b} is no label"},
		"absolute builder": {good + "[[derivation]]\nname = \"x\"\nbuilder = \"/bin/sh\"\n", "want a path below"},
		"too long":         {strings.Repeat("#", MaxRequest+1), "more than"},
	} {
		if _, err := ParseRequest([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	r, err := ParseRequest([]byte(good + "[[derivation]]\nname = \"x\"\nbuilder = \"{a}/x\"\nenv = { out = \"y\" }\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Derivation[0].derive(map[string]storepath.Path{}, "x86_64-linux"); err == nil || !strings.Contains(err.Error(), "an output's name") {
		t.Error(err)
	}
}
