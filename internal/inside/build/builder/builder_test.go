package builder

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/inside/build"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) {
	build.MaybeChild()
	code := suite.Run(m)
	os.RemoveAll(tool.dir)
	os.Exit(code)
}

var tool struct {
	once sync.Once
	dir  string
	nar  []byte
	err  error
}

// toolNar is the archive of the program that builds run, for this machine.
func toolNar(t *testing.T) []byte {
	t.Helper()
	tool.once.Do(func() {
		if tool.dir, tool.err = os.MkdirTemp("", "tool-"); tool.err != nil {
			return
		}
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", filepath.Join(tool.dir, "tool"), "./testdata/tool")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			tool.err = fmt.Errorf("go build: %w: %s", err, out)
			return
		}
		data, err := os.ReadFile(filepath.Join(tool.dir, "tool"))
		if tool.err = err; err == nil {
			var b bytes.Buffer
			tool.err = nar.WriteFile(&b, int64(len(data)), true, bytes.NewReader(data))
			tool.nar = b.Bytes()
		}
	})
	if tool.err != nil {
		t.Fatal(tool.err)
	}
	return tool.nar
}

// A depot is what a builder asks: an honest one that a test may bend.
type depot struct {
	*enclavetest.Enclave
	url   string
	track string
	mu    sync.Mutex
	nars  map[string][]byte   // by base name
	blobs map[string][]byte   // by base name
	votes map[string][][]byte // by base name
	bend  map[string]http.HandlerFunc
	asked []string
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{Enclave: enclavetest.New(t), track: "dev", nars: map[string][]byte{}, blobs: map[string][]byte{}, votes: map[string][][]byte{}, bend: map[string]http.HandlerFunc{}}
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	d.url = srv.URL
	return d
}

func (d *depot) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	d.mu.Lock()
	d.asked = append(d.asked, p)
	h := d.bend[p]
	d.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	_, base, _ := strings.Cut(strings.TrimPrefix(p, "/sallyport"), "/")
	kind, name, _ := strings.Cut(base, "/")
	var body []byte
	var err error
	switch kind {
	case "head":
		var version int64
		err = d.Zone.Read(r.Context()).QueryRowContext(r.Context(), `SELECT max(version) FROM allowlist WHERE track = ?`, d.track).Scan(&version)
		var orders int64
		err = errors.Join(err, d.Zone.Read(r.Context()).QueryRowContext(r.Context(), `SELECT coalesce(max(version), 0) FROM orders`).Scan(&orders))
		body, _ = json.Marshal(head{enclavetest.Name, d.track, d.Root.Version, orders, version})
	case "orders":
		if body, err = d.Zone.ReadPublic("orders/" + name); errors.Is(err, fs.ErrNotExist) {
			body, err = d.Zone.ReadPublic("orders/1")
		}
	case "root":
		body, err = d.Zone.ReadPublic("root/" + name)
	case "allowlist":
		body, err = d.Zone.ReadPublic("allowlist/" + d.track + "/" + name)
	case "nar":
		body = d.nars[name]
	case "blob":
		body = d.blobs[name]
	case "evidence":
		list := []string{}
		for _, v := range d.votes[name] {
			list = append(list, base64.StdEncoding.EncodeToString(v))
		}
		body, err = json.Marshal(map[string]any{"derivation": name, "statements": list})
	}
	if err != nil || body == nil {
		w.Header().Set("Sallyport-Reason", "not-signed")
		http.Error(w, "nothing here", http.StatusNotFound)
		return
	}
	w.Write(body)
}

// bendTo has one path answered by h, and all others honestly.
func (d *depot) bendTo(path string, h http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bend = map[string]http.HandlerFunc{path: h}
}

// allow puts items on the list and into the depot.
func (d *depot) allow(contents ...enclavetest.Content) {
	d.Allow(d.track, contents...)
	for _, c := range contents {
		if c.Kind == trust.KindDerivation {
			d.blobs[c.Name], d.nars[c.Name] = c.Data, enclavetest.Nar(string(c.Data))
		} else {
			d.nars[c.Name] = c.Data
		}
	}
}

// agree has two builders agree on an output.
func (d *depot) agree(drv enclavetest.Content, content string, refs ...string) {
	o := enclavetest.Out{Path: drv.Output("out"), Nar: enclavetest.Nar(content), References: refs}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.votes[drv.Name] = [][]byte{d.Built("frank", drv, o), d.Built("greg", drv, o)}
	d.nars[strings.TrimPrefix(o.Path, storepath.Dir+"/")] = o.Nar
}

func (d *depot) newBuilder(t *testing.T) *Builder {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "builder")
	if err := Init(dir, Config{Enclave: enclavetest.Name, Depot: d.url, Track: d.track, Root: d.Pin().String(), Key: "erin.key", Timeout: "1m"}); err != nil {
		t.Fatal(err)
	}
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	// As root a build runs as another user, who has to reach it.
	for p := dir; strings.HasPrefix(p, filepath.Clean(os.TempDir())+"/"); p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b.Key, b.Clock = enclavetest.Key(t, "erin/statement"), d.Clock
	return b
}

func (d *depot) derive(t *testing.T, name string, args []string, inputs ...enclavetest.Content) (enclavetest.Content, enclavetest.Content) {
	t.Helper()
	program := d.SourceOf("tool", toolNar(t))
	drv := &derivation.Derivation{System: "x86_64-linux", Builder: "{tool}", Args: args, Outputs: []derivation.Output{{ID: "out"}}, Env: []derivation.Variable{{Name: "name", Value: name}, {Name: "out"}}}
	return d.Derive(name, drv, append(inputs, program)...), program
}

// run builds, and skips where this machine has no sandbox for it.
func run(t *testing.T, b *Builder, name string) (*Result, error) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "result")
	r, err := b.Build(t.Context(), name, out)
	_, statErr := os.Lstat(out)
	if (err == nil) != (statErr == nil) {
		t.Errorf("%v, but the result: %v", err, statErr)
	}
	left, globErr := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
	if globErr != nil || len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	return r, err
}

func TestBuild(t *testing.T) {
	d := newDepot(t)
	below := d.Derivation("below-1.0")
	deep := d.Derivation("deep-1.0", below)
	src := d.Source("src+?=x", "from the source\n")
	drv, program := d.derive(t, "hello-1.0", []string{"{src+?=x}", "{deep-1.0}", "and this"}, src, deep)
	d.allow(below, deep, src, drv, program)
	d.agree(below, "below")
	// What an input refers to comes, too, though no derivation names it as an input of this one.
	d.agree(deep, "from deep\n", below.Output("out"), deep.Output("out"))
	b := d.newBuilder(t)
	r, err := run(t, b, drv.Path())
	if err != nil {
		t.Fatal(err)
	}
	want := enclavetest.Nar("from the source\n\nfrom deep\n\nand this\n")
	if len(r.Outputs) != 1 || r.Outputs[0].NarHash != trust.Sum(want) || r.Inputs != 4 || len(r.Strays) != 0 {
		t.Errorf("%+v", r)
	}
	data, err := os.ReadFile(filepath.Join(r.Dir, strings.TrimPrefix(r.Outputs[0].Path, storepath.Dir+"/")+narSuffix))
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("another nar: %v", err)
	}
	envelope, err := os.ReadFile(filepath.Join(r.Dir, StatementFile))
	if err != nil {
		t.Fatal(err)
	}
	env, err := statement.ParseEnvelope(envelope)
	if err != nil {
		t.Fatal(err)
	}
	s, person, err := env.Verify(d.Root, d.Zone.Origin())
	if err != nil || person != "erin" || s.Predicate["derivation"] != drv.Path() || s.Predicate["derivation-sha256"] != drv.SHA256.String() || s.Subjects[0].SHA256 != trust.Sum(want) {
		t.Errorf("%+v, %s, %v", s, person, err)
	}
	// A result is never overwritten, and a second build fetches nothing again.
	if _, err := b.Build(t.Context(), drv.Name, r.Dir); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Error(err)
	}
	d.mu.Lock()
	d.asked = nil
	d.mu.Unlock()
	if _, err := run(t, b, drv.Name); err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(d.asked, func(p string) bool { return strings.HasPrefix(p, "/nar/") }) {
		t.Errorf("asked again: %v", d.asked)
	}
	// An input that was agreed on anew under the same name is fetched anew.
	d.agree(deep, "from another deep\n", below.Output("out"))
	r, err = run(t, b, drv.Name)
	if want := enclavetest.Nar("from the source\n\nfrom another deep\n\nand this\n"); err != nil || r.Outputs[0].NarHash != trust.Sum(want) {
		t.Errorf("%+v, %v", r, err)
	}
	// A run that was cut between an input and the word for it leaves no doubt.
	mark := filepath.Join(b.dir, wholeDir, src.Name)
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(b.dir, "store", src.Name)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.dir, "store", src.Name), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err = run(t, b, drv.Name); err != nil || r.Outputs[0].NarHash == trust.Sum(want) {
		t.Errorf("%+v, %v", r, err)
	}
	if data, err := os.ReadFile(filepath.Join(b.dir, "store", src.Name)); err != nil || string(data) != "from the source\n" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestStrays(t *testing.T) {
	d := newDepot(t)
	drv, program := d.derive(t, "stray-1.0", []string{"stray"})
	d.allow(drv, program)
	r, err := run(t, d.newBuilder(t), drv.Name)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && len(r.Strays) == 0 {
		t.Log("the build could write nowhere else")
	}
}

// What a lying depot can send, and what comes of it.
func TestLyingDepot(t *testing.T) {
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(s)) }
	}
	file := func(rel string) func(d *depot) http.HandlerFunc {
		return func(d *depot) http.HandlerFunc {
			data, err := d.Zone.ReadPublic(rel)
			if err != nil {
				d.T.Fatal(err)
			}
			return text(string(data))
		}
	}
	always := func(h http.HandlerFunc) func(*depot) http.HandlerFunc {
		return func(*depot) http.HandlerFunc { return h }
	}
	headOf := func(h head) func(*depot) http.HandlerFunc {
		data, _ := json.Marshal(h)
		return always(text(string(data)))
	}
	tests := []struct {
		name, code string // "": an accident
		path       func(d *depot, drv, src enclavetest.Content) string
		answer     func(d *depot) http.HandlerFunc
	}{
		{"another enclave", "depot-wrong", nil, headOf(head{"other", "dev", 1, 1, 2})},
		{"another track", "depot-wrong", nil, headOf(head{enclavetest.Name, "prod", 1, 1, 1})},
		{"too many roots", "depot-wrong", nil, headOf(head{enclavetest.Name, "dev", 1 << 40, 1, 2})},
		{"no root", "", nil, headOf(head{enclavetest.Name, "dev", 0, 1, 2})},
		{"an old list under its own number", "allowlist-rollback", nil, headOf(head{enclavetest.Name, "dev", 1, 1, 1})},
		{"a head that is none", "depot-answer", nil, always(text("<html>"))},
		{"a head with more in it", "depot-answer", nil, always(text(`{"enclave":"keep","track":"dev","root":1,"allowlist":2,"trust":"me"}`))},
		{"a head without end", "depot-size", nil, always(text(strings.Repeat(" ", maxHead+1)))},
		{"another root", "root-pin", at("/sallyport/root/1"), func(d *depot) http.HandlerFunc {
			r, err := trust.ParseRoot(d.Root.Text())
			if err != nil {
				d.T.Fatal(err)
			}
			r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleReviewer, Person: "mallory"})
			note, err := trust.SignNote(r.Text(), enclavetest.Key(d.T, "olga/root"))
			if err != nil {
				d.T.Fatal(err)
			}
			return text(string(note))
		}},
		{"the list of another track", "allowlist-track", at("/sallyport/allowlist/2"), file("allowlist/prod/1")},
		{"no orders where there were some", "orders-rollback", nil, headOf(head{enclavetest.Name, "dev", 1, 0, 2})},
		{"orders that are none", "orders-note", at("/sallyport/orders/1"), always(text("sallyport orders v1\n"))},
		{"orders of another number", "orders-version", nil, headOf(head{enclavetest.Name, "dev", 1, 2, 2})},
		{"an old list under a new number", "allowlist-version", at("/sallyport/allowlist/2"), file("allowlist/dev/1")},
		{"another derivation", "item-digest", func(_ *depot, drv, _ enclavetest.Content) string { return "/sallyport/blob/" + drv.Name }, always(text("Derive([])"))},
		{"a derivation and more", "depot-size", func(_ *depot, drv, _ enclavetest.Content) string { return "/sallyport/blob/" + drv.Name }, always(text(strings.Repeat("x", 4000)))},
		{"another nar", "item-digest", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(text(string(enclavetest.Nar("from the sour-e\n"))))},
		{"half a nar", "item-digest", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(text(string(enclavetest.Nar("from the source\n")[:50])))},
		{"a nar and more", "item-digest", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(text(string(enclavetest.Nar("from the source\n")) + "more"))},
		{"nothing, with a reason", "not-signed", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Sallyport-Reason", "not-signed")
			w.WriteHeader(404)
		})},
		{"nothing", "", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(http.NotFound)},
		{"a way elsewhere", "", func(_ *depot, _, src enclavetest.Content) string { return "/nar/" + src.Name }, always(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/evil", http.StatusFound)
		})},
		{"a connection that is cut", "", func(_ *depot, drv, _ enclavetest.Content) string { return "/sallyport/blob/" + drv.Name }, always(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		})},
		{"statements that are none", "depot-answer", evidencePath, always(text(`{"derivation":"x","statements":["="]}`))},
		{"no statements", "quorum-waiting", evidencePath, always(text(`{"derivation":"x","statements":[]}`))},
		{"one builder", "quorum-waiting", evidencePath, func(d *depot) http.HandlerFunc {
			return text(fmt.Sprintf(`{"derivation":"x","statements":[%q]}`, base64.StdEncoding.EncodeToString(d.votes[d.votesOf()][0])))
		}},
	}
	d := newDepot(t)
	src := d.Source("src", "from the source\n")
	deep := d.Derivation("deep-1.0")
	drv, program := d.derive(t, "hello-1.0", []string{"{src}", "{deep-1.0}"}, src, deep)
	d.allow(src, deep, program)
	d.Allow("prod", src)
	d.allow(drv)
	d.agree(deep, "deep")
	d.Order(func(o *trust.Orders) {
		o.Lost = append(o.Lost, trust.Lost{Shipment: 77, Date: o.Date, Reason: "burnt"})
	})
	b := d.newBuilder(t)
	// It has seen version 2, and orders.
	if _, err := b.view(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := "/sallyport/head"
			if tt.path != nil {
				path = tt.path(d, drv, src)
			}
			if path == "evidence" {
				path = "/sallyport/evidence/" + deep.Name
			}
			d.bendTo(path, tt.answer(d))
			_, err := run(t, b, drv.Name)
			if tt.code != "" {
				suite.Want(t, err, tt.code)
			} else if _, refused := trust.AsRefusals(err); err == nil || refused {
				t.Error(err)
			}
		})
	}
	d.bendTo("", nil)
	if _, err := run(t, b, drv.Name); err != nil {
		t.Errorf("an honest depot: %v", err)
	}
	// What it builds with, or from, is recalled.
	d.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: src.SHA256, Name: src.Name, Date: o.Date, Reason: "a back door"})
	})
	_, err := run(t, b, drv.Name)
	suite.Want(t, err, "recalled")
	d.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: drv.SHA256, Name: drv.Name, Date: o.Date, Reason: "a back door"})
	})
	_, err = run(t, b, drv.Name)
	suite.Want(t, err, "recalled")
}

func at(path string) func(*depot, enclavetest.Content, enclavetest.Content) string {
	return func(*depot, enclavetest.Content, enclavetest.Content) string { return path }
}

func evidencePath(*depot, enclavetest.Content, enclavetest.Content) string { return "evidence" }

func (d *depot) votesOf() string {
	for name := range d.votes {
		return name
	}
	return ""
}

func TestRefusals(t *testing.T) {
	d := newDepot(t)
	src := d.Source("src", "x")
	good := d.Derivation("good-1.0", src)
	fake := d.Derivation("fake-1.0").Drv
	fake.Outputs[0].Path = good.Output("out")
	for i := range fake.Env {
		if fake.Env[i].Name == "out" {
			fake.Env[i].Value = good.Output("out")
		}
	}
	wrong := d.DerivationOf("fake-1.0", fake)
	d.allow(src, good, wrong)
	b := d.newBuilder(t)
	for name, code := range map[string]string{src.Name: "not-allowed", d.Derivation("other-1.0").Name: "not-allowed", wrong.Name: "derivation-outputs"} {
		_, err := run(t, b, name)
		suite.Want(t, err, code)
	}
	if _, err := run(t, b, "nonsense"); err == nil {
		t.Error("built nonsense")
	}
	for key, code := range map[string]string{"alice/allowlist": "key-context", "mallory/statement": "not-builder", "dave/statement": "not-builder"} {
		b.Key = enclavetest.Key(t, key)
		_, err := run(t, b, good.Name)
		suite.Want(t, err, code)
	}
	b.Key = enclavetest.Key(t, "erin/statement")
	// An input's input that nobody allowed.
	missing := d.Source("missing", "missing")
	top := d.Derivation("top-1.0", missing)
	d.allow(top)
	_, err := run(t, b, top.Name)
	suite.Want(t, err, "not-allowed")
	// A builder that cannot start what it should is no refusal.
	if _, err := run(t, b, good.Name); err == nil {
		t.Error("built without a builder")
	} else if _, refused := trust.AsRefusals(err); refused {
		t.Error(err)
	}
	unlock, err := b.lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, b, good.Name); err == nil || !strings.Contains(err.Error(), "another build") {
		t.Error(err)
	}
	unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Build(ctx, good.Name, filepath.Join(t.TempDir(), "x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A depot that stops sending does not hold a builder.
func TestStall(t *testing.T) {
	d := newDepot(t)
	d.allow(d.Source("a", "a"))
	b := d.newBuilder(t)
	b.depot.stall = 50 * time.Millisecond
	release := make(chan struct{})
	defer close(release)
	d.bendTo("/sallyport/root/1", func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("s"))
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	if _, err := b.view(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing came for") {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	good := Config{Enclave: "keep", Depot: "http://127.0.0.1:1", Track: "dev", Root: strings.Repeat("0", 64), Key: "k"}
	dir := t.TempDir()
	for what, change := range map[string]func(c *Config){
		"enclave":    func(c *Config) { c.Enclave = "K" },
		"track":      func(c *Config) { c.Track = "" },
		"root":       func(c *Config) { c.Root = "x" },
		"depot":      func(c *Config) { c.Depot = "ftp://x" },
		"http":       func(c *Config) { c.Depot = "http://user@x" },
		"key":        func(c *Config) { c.Key = "" },
		"timeout":    func(c *Config) { c.Timeout = "soon" },
		"max-silent": func(c *Config) { c.Silent = "-1s" },
		"cores":      func(c *Config) { c.Cores = -1 },
	} {
		c := good
		change(&c)
		if err := Init(filepath.Join(dir, "b"), c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Init(filepath.Join(dir, "b"), good); err != nil {
		t.Fatal(err)
	}
	if err := Init(filepath.Join(dir, "b"), good); err == nil {
		t.Error("made twice")
	}
	if b, err := Open(filepath.Join(dir, "b")); err != nil || b.KeyFile() != "k" {
		t.Error(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "builder init") {
		t.Error(err)
	}
	file := filepath.Join(dir, "b", configFile)
	for _, text := range []string{"enclave = 1\n", "quorum = 1\n", strings.Repeat("#", maxConfig+1), "enclave = \"keep\"\n"} {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(filepath.Join(dir, "b")); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.partial"))
	if err != nil || len(left) != 0 {
		t.Error(left)
	}
}
