//go:build peer

package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/archive"
	"sallyport/guix/daemon"
	"sallyport/guix/derivation"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// connect greets the real daemon.
func (p *peer) connect(t *testing.T) *daemon.Client {
	t.Helper()
	conn, err := net.Dial("unix", filepath.Join(p.root, "var/guix/daemon-socket/socket"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := daemon.Connect(t.Context(), conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// must fails the test upon an error.
func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// recipe makes a derivation of deeds of the builder of the vectors.
func recipe(t *testing.T, name string, builder, input storepath.Path, outputs []string, deeds ...string) *derivation.Derivation {
	t.Helper()
	system := "x86_64-linux"
	if runtime.GOARCH == "arm64" {
		system = "aarch64-linux"
	}
	d := &derivation.Derivation{System: system, Builder: builder.String() + "/bin/builder", Args: deeds,
		Sources: []string{builder.String(), input.String()}, Env: []derivation.Variable{{Name: "input", Value: input.String()}}}
	for _, id := range outputs {
		d.Outputs = append(d.Outputs, derivation.Output{ID: id})
	}
	if err := derivation.NewHasher(nil).Fill(name, d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDaemon drives the real daemon through package daemon.
func TestDaemon(t *testing.T) {
	p := start(t)
	c := p.connect(t)
	ctx := t.Context()
	var events []daemon.Event
	var heard time.Time
	c.Log = func(e daemon.Event) {
		e.Text = bytes.Clone(e.Text)
		if bytes.Contains(e.Text, []byte("first words")) {
			heard = time.Now()
		}
		events = append(events, e)
	}
	if c.Version() != daemon.Version {
		t.Errorf("the daemon speaks %#x, the package %#x", c.Version(), daemon.Version)
	}
	if err := c.SetOptions(ctx, daemon.Options{Cores: 1, Timeout: 10 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	unique := make([]byte, 16)
	if _, err := io.ReadFull(random, unique); err != nil {
		t.Fatal(err)
	}

	// Add. What comes back is compared by the package with what we compute.
	it := buildersBuilder(t)
	builder := must(c.AddNar(ctx, "vector-builder", "sha256", bytes.NewReader(it.nar)))(t)
	if builder != it.path {
		t.Fatalf("added as %s", builder)
	}
	var made []storepath.Path // to be deleted
	for _, algo := range []string{"sha256", "sha1", "md5", "sha512", "sha3-256", "sha3-512", "blake2s-256"} {
		content := hex.EncodeToString(unique) + algo
		made = append(made, must(c.AddFile(ctx, "sallyport-flat", algo, int64(len(content)), strings.NewReader(content)))(t),
			must(c.AddNar(ctx, "sallyport-tree", algo, bytes.NewReader(treeOf(t, content))))(t))
	}
	input := must(c.AddText(ctx, "sallyport-input", unique, nil))(t)
	made = append(made, must(c.AddText(ctx, "sallyport-text", unique, []storepath.Path{input, made[0]}))(t))
	if valid := must(c.Valid(ctx, append(made, input)...))(t); len(valid) != len(made)+1 {
		t.Errorf("%d of %d items are there", len(valid), len(made)+1)
	}

	// Build, with the log as it arises.
	d := recipe(t, "sallyport-built", builder, input, []string{"doc", "out"}, "print first words", "print @ build-succeeded /forged -", "sleep 1500",
		"write $out 644 $input", "write $doc 644 $out", "print last words")
	drv := must(c.AddText(ctx, "sallyport-built.drv", d.Bytes(), must(d.References())(t)))(t)
	if err := c.AddTempRoot(ctx, drv); err != nil {
		t.Error(err)
	}
	out, doc := parse(t, d.Outputs[1].Path), parse(t, d.Outputs[0].Path)
	events = nil
	if err := c.Build(ctx, daemon.Normal, daemon.Target{Path: drv}); err != nil {
		t.Fatal(err)
	}
	if early := time.Since(heard); heard.IsZero() || early < time.Second {
		t.Errorf("the builder slept after its first words, but they came only %s before the end", early)
	}
	var words strings.Builder
	var traces []string
	for _, e := range events {
		switch {
		case e.Trace != "" && e.Item != drv:
			t.Errorf("a trace of something else: %s", e)
		case e.Trace != "":
			traces = append(traces, e.Trace)
		case e.PID != 0:
			words.Write(e.Text)
		}
	}
	if want := "first words\n@ build-succeeded /forged -\nlast words\n"; words.String() != want {
		t.Errorf("the builder's words were %q", words.String())
	}
	if !slices.Equal(traces, []string{"build-started", "build-succeeded"}) {
		t.Errorf("traces %q in %q", traces, events)
	}

	// Ask.
	info := must(c.Info(ctx, doc))(t)
	if archived := text(t, "x", out.String()).nar; info.Deriver != drv || info.NarHash != sha256.Sum256(archived) || info.NarSize != int64(len(archived)) || !slices.Equal(info.References, []storepath.Path{out}) || time.Since(info.Registered) > time.Hour {
		t.Errorf("%+v", info)
	}
	for what, ok := range map[string]bool{
		"references":       slices.Equal(must(c.References(ctx, out))(t), []storepath.Path{input}),
		"references of it": slices.Equal(must(c.References(ctx, drv))(t), sorted([]storepath.Path{builder, input})),
		"referrers":        slices.Contains(must(c.Referrers(ctx, out))(t), doc) && slices.Contains(must(c.Referrers(ctx, input))(t), drv),
		"deriver":          must(c.Deriver(ctx, out))(t) == drv && must(c.Deriver(ctx, input))(t).IsZero(),
		"derivers":         slices.Equal(must(c.Derivers(ctx, out))(t), []storepath.Path{drv}),
		"outputs":          slices.Equal(must(c.Outputs(ctx, drv))(t), sorted([]storepath.Path{out, doc})),
		"hash part":        must(c.FromHash(ctx, out.Hash()))(t) == out,
		"all":              slices.Contains(must(c.AllValid(ctx))(t), out),
		"substitutes":      len(must(c.Substitutable(ctx, out))(t)) == 0,
		"verify":           must(c.VerifyStore(ctx, false, false))(t),
	} {
		if !ok {
			t.Errorf("%s: not what was built", what)
		}
	}
	if err := errors.Join(c.Ensure(ctx, out), c.Build(ctx, daemon.Check, daemon.Target{Path: drv, Outputs: []string{"out"}})); err != nil {
		t.Error(err)
	}

	t.Run("refused", func(t *testing.T) { refused(t, c, builder, input) })
	t.Run("cancelled", func(t *testing.T) { cancelled(t, p, builder, input) })

	// A root.
	f := p.folder(t)
	if err := os.Symlink(out.String(), filepath.Join(f.host, "root")); err != nil {
		t.Fatal(err)
	}
	if err := c.AddIndirectRoot(ctx, f.name+"/root"); err != nil {
		t.Error(err)
	}
	if roots := must(c.Roots(ctx))(t); !slices.ContainsFunc(roots, func(r daemon.Root) bool { return r.Target == out }) {
		t.Errorf("%s is not among the roots %v", out, roots)
	}
	if live := must(c.CollectGarbage(ctx, daemon.Garbage{Action: daemon.ListLive}))(t); !slices.Contains(live.Paths, out) || !slices.Contains(live.Paths, input) {
		t.Errorf("%s is not live", out)
	}

	// Out, away, and in again. The daemon reads the list at each connection.
	p.authorise(t, p.key(t).Public())
	var exported bytes.Buffer
	items := must(c.Export(ctx, &exported, out, doc))(t)
	acl := signature.NewACL(p.key(t).Public())
	for _, item := range items {
		if _, err := item.Verify(acl); err != nil {
			t.Error(err)
		}
	}
	if theirs := p.run(t, "guix", "archive", "--export", out.String(), doc.String()); !bytes.Equal(theirs, exported.Bytes()) {
		t.Errorf("guix archive --export gives %d other bytes, we %d", len(theirs), exported.Len())
	}
	gone := p.connect(t)
	if _, err := gone.CollectGarbage(ctx, daemon.Garbage{Action: daemon.DeleteSpecific, Paths: []storepath.Path{out}}); err == nil {
		t.Error("a live item was deleted")
	}
	if err := os.Remove(filepath.Join(f.host, "root")); err != nil {
		t.Fatal(err)
	}
	c.Close() // with its temporary roots
	forget(t, gone, doc, out)
	if valid := must(gone.Valid(ctx, out, doc, drv))(t); !slices.Equal(valid, []storepath.Path{drv}) {
		t.Errorf("after deletion there are %v", valid)
	}
	stranger := key(t)
	var forged bytes.Buffer
	w := archive.NewWriter(&forged, stranger)
	if err := errors.Join(w.Add(&archive.Item{Path: out, References: []storepath.Path{input}}, bytes.NewReader(text(t, "x", "other").nar)), w.Close()); err != nil {
		t.Fatal(err)
	}
	var no *daemon.Error
	if _, err := gone.Import(ctx, bytes.NewReader(forged.Bytes()), nil); !errors.As(err, &no) || !strings.Contains(no.Message, "unauthorized public key") {
		t.Errorf("import of a stranger's: %v", err)
	}
	verify := func(item *archive.Item) error {
		_, err := item.Verify(acl)
		return err
	}
	var wrong *signature.Error
	if _, err := gone.Import(ctx, bytes.NewReader(forged.Bytes()), verify); !errors.As(err, &wrong) {
		t.Errorf("checked import of a stranger's: %v", err)
	}
	if must(gone.IsValid(ctx, out))(t) {
		t.Fatal("a forged item is valid")
	}
	if back := must(gone.Import(ctx, bytes.NewReader(exported.Bytes()), verify))(t); !slices.Equal(back, []storepath.Path{out, doc}) {
		t.Errorf("imported %v", back)
	}
	if got := must(gone.Info(ctx, doc))(t); got.NarHash != info.NarHash || got.Deriver != drv {
		t.Errorf("%+v came back", got)
	}
	forget(t, gone, doc, out, drv)
	slices.Reverse(made) // what refers to others was added last
	forget(t, gone, append(made, input)...)
}

// authorise makes the daemon believe k, until the test ends.
func (p *peer) authorise(t *testing.T, k signature.PublicKey) {
	t.Helper()
	file := filepath.Join(p.root, "etc/guix/acl")
	before := read(t, file)
	acl, err := signature.ParseACL(before)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, signature.NewACL(append(acl.Keys(), k)...).Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// treeOf is the nar of a directory with one file.
func treeOf(t *testing.T, content string) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return dump(t, dir, ".")
}

// forget deletes items, in the order given.
func forget(t *testing.T, c *daemon.Client, paths ...storepath.Path) {
	t.Helper()
	for _, p := range paths {
		got, err := c.CollectGarbage(t.Context(), daemon.Garbage{Action: daemon.DeleteSpecific, Paths: []storepath.Path{p}})
		if err != nil || !slices.Contains(got.Paths, p) {
			t.Errorf("deleting %s: %+v, %v", p, got, err)
		}
	}
}

// refused are requests that the daemon does not grant. The connection stays open.
func refused(t *testing.T, c *daemon.Client, builder, input storepath.Path) {
	ctx := t.Context()
	d := recipe(t, "sallyport-failing", builder, input, []string{"out"}, "print trouble", "exit 3")
	drv := must(c.AddText(ctx, "sallyport-failing.drv", d.Bytes(), must(d.References())(t)))(t)
	absent := parse(t, d.Outputs[0].Path)
	for what, err := range map[string]error{
		"info":       second(c.Info(ctx, absent)),
		"references": second(c.References(ctx, absent)),
		"deriver":    second(c.Deriver(ctx, absent)),
		"export":     second(c.Export(ctx, io.Discard, absent)),
		"ensure":     c.Ensure(ctx, absent),
		"hash part":  second(c.FromHash(ctx, absent.Hash())),
	} {
		if !errors.Is(err, daemon.ErrNotValid) {
			t.Errorf("%s of what is not there: %v", what, err)
		}
	}
	var said *daemon.Error
	if err := c.Build(ctx, daemon.Normal, daemon.Target{Path: drv}); !errors.As(err, &said) || said.Status != daemon.StatusBuildFailed {
		t.Errorf("a builder that exits with 3: %v", err)
	}
	if err := second(c.AddText(ctx, "sallyport-dangling", nil, []storepath.Path{absent})); !errors.As(err, &said) {
		t.Errorf("a text that refers to nothing: %v", err)
	}
	if !must(c.IsValid(ctx, drv))(t) {
		t.Error("the derivation is gone")
	}
	forget(t, c, drv)
}

// cancelled is a build that the client gives up: the daemon ends it, and the next connection can do it again.
func cancelled(t *testing.T, p *peer, builder, input storepath.Path) {
	c := p.connect(t)
	d := recipe(t, "sallyport-slow", builder, input, []string{"out"}, "print asleep", "sleep 600000", "write $out 644 x")
	drv := must(c.AddText(t.Context(), "sallyport-slow.drv", d.Bytes(), must(d.References())(t)))(t)
	for range 2 {
		again := p.connect(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		asleep := false
		again.Log = func(e daemon.Event) {
			if bytes.Contains(e.Text, []byte("asleep")) {
				asleep = true
				cancel()
			}
		}
		begin := time.Now()
		if err := errors.Join(again.SetOptions(ctx, daemon.Options{}), again.Build(ctx, daemon.Normal, daemon.Target{Path: drv})); !errors.Is(err, context.Canceled) || !asleep {
			t.Errorf("after %s: %v (asleep: %v)", time.Since(begin), err, asleep)
		}
		cancel()
		if _, err := again.AllValid(t.Context()); err != daemon.ErrClosed {
			t.Errorf("then %v", err)
		}
	}
	if must(c.IsValid(t.Context(), parse(t, d.Outputs[0].Path)))(t) {
		t.Error("a build that was given up has an output")
	}
	forget(t, c, drv)
}

func second[T any](_ T, err error) error { return err }
