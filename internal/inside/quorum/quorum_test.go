package quorum

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/enclavetest"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func desk(t *testing.T, e *enclavetest.Enclave) *Desk {
	t.Helper()
	return &Desk{Zone: e.Zone, Root: e.Root, Reader: suite.Reader(t)}
}

// a bench is an enclave in which one derivation is allowed on dev, and what it makes.
type bench struct {
	*enclavetest.Enclave
	drv enclavetest.Content
	out enclavetest.Out
}

func newBench(t *testing.T) *bench {
	t.Helper()
	e := enclavetest.New(t)
	src := e.Source("src", "source\n")
	b := &bench{Enclave: e, drv: e.Derivation("hello-1.0", src)}
	e.Quarantine("dave", src, b.drv)
	e.Allow("dev", src, b.drv)
	b.out = enclavetest.Out{Path: b.drv.Output("out"), Nar: enclavetest.Nar("hello"), References: []string{src.Path()}}
	return b
}

func (b *bench) other(content string) enclavetest.Out {
	o := b.out
	o.Nar = enclavetest.Nar(content)
	return o
}

// result writes a result directory.
func result(t *testing.T, files map[string][]byte) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func narFile(o enclavetest.Out) string {
	return strings.TrimPrefix(o.Path, storepath.Dir+"/") + NarSuffix
}

func (b *bench) result(t *testing.T, builder string, o enclavetest.Out) *os.Root {
	t.Helper()
	return result(t, map[string][]byte{StatementFile: b.Built(builder, b.drv, o), narFile(o): o.Nar})
}

func (b *bench) submit(t *testing.T, builder string, o enclavetest.Out) (*Status, error) {
	t.Helper()
	return desk(t, b.Enclave).Submit(t.Context(), "dev", b.result(t, builder, o))
}

func (b *bench) must(t *testing.T, builder string, o enclavetest.Out) *Status {
	t.Helper()
	s, err := b.submit(t, builder, o)
	if err != nil {
		t.Fatalf("%s: %v", builder, err)
	}
	return s
}

// refuse demands that a result is refused, becomes an entry, and leaves nothing.
func (b *bench) refuse(t *testing.T, track string, r *os.Root, codes ...string) {
	t.Helper()
	before, kinds := b.State(), b.Kinds()
	_, err := desk(t, b.Enclave).Submit(t.Context(), track, r)
	suite.Want(t, err, codes...)
	if b.State() != before {
		t.Error("something changed")
	}
	kinds[statement.KindRefused]++
	if after := b.Kinds(); fmt.Sprint(after) != fmt.Sprint(kinds) {
		t.Errorf("entries %v, want %v", after, kinds)
	}
}

func TestAgreement(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := b.must(t, "erin", b.out)
	suite.Want(t, s.Err(), "quorum-waiting")
	if s.Agreed || len(s.Votes) != 1 || s.Want != 2 || b.Notes() != nil {
		t.Errorf("%+v", s)
	}
	if err := b.Zone.CAS.Check(trust.Sum(b.out.Nar)); err != nil {
		t.Error(err)
	}
	// Again it changes nothing, before and after others have spoken.
	again := func() {
		t.Helper()
		before, kinds := b.State(), fmt.Sprint(b.Kinds())
		b.must(t, "erin", b.out)
		if b.State() != before || fmt.Sprint(b.Kinds()) != kinds {
			t.Error("something changed")
		}
	}
	again()
	s = b.must(t, "frank", b.out)
	if !s.Agreed || s.Err() != nil || s.Outputs[b.out.Path] != trust.Sum(b.out.Nar).String() || b.Row(`SELECT count(*) FROM agreed`) != "1" {
		t.Errorf("%+v", s)
	}
	again()
	s = b.must(t, "greg", b.out)
	if !s.Agreed || len(s.Votes) != 3 {
		t.Errorf("%+v", s)
	}
	if k := b.Kinds(); k["built"] != 3 || k["agreed"] != 2 {
		t.Error(k)
	}
	got, err := desk(t, b.Enclave).Status(t.Context(), "dev", b.drv.Name)
	if err != nil || !got.Agreed || len(got.Votes) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	got, err = desk(t, b.Enclave).Status(t.Context(), "dev", b.Source("src", "source\n").Name)
	if err != nil {
		t.Fatal(err)
	}
	suite.Want(t, got.Err(), "not-allowed")
	_, err = desk(t, b.Enclave).Status(t.Context(), "prod", b.drv.Name)
	suite.Want(t, err, "no-allowlist")
}

func TestDissent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must(t, "erin", b.out)
	b.must(t, "frank", b.out)
	s := b.must(t, "greg", b.other("evil"))
	if rs, _ := trust.AsRefusals(s.Err()); s.Agreed || !rs.Has("quorum-dissent") || b.Row(`SELECT count(*) FROM agreed`) != "0" {
		t.Errorf("%+v", s)
	}
	entries := b.Entries()
	last := entries[len(entries)-1]
	if last.Kind != statement.KindDisagreed || len(last.Predicate["builders"].(map[string]any)) != 3 {
		t.Errorf("%+v", last)
	}
	// A builder may contradict itself once.
	b.must(t, "greg", b.other("more evil"))
	b.refuse(t, "dev", b.result(t, "greg", b.other("even more evil")), "quorum-repeated")
	b.must(t, "greg", b.other("evil"))
}

func TestLongDissent(t *testing.T) {
	outputs := map[string]string{}
	for i := range 200 {
		outputs[fmt.Sprintf("%s/%032d-%s", storepath.Dir, i, strings.Repeat("x", 100))] = strings.Repeat("0", 64)
	}
	var list []Vote
	for i := range 10 {
		list = append(list, Vote{KeyID: fmt.Sprint("builder", i), Outputs: outputs})
	}
	got := listed(list)
	if len(got) != 1 || got["builder9"] == nil {
		t.Errorf("%d builders, want the newest", len(got))
	}
	few := map[string]string{"a": "b"}
	list = append(list, Vote{KeyID: "x", Outputs: few}, Vote{KeyID: "y", Outputs: few}, Vote{KeyID: "x", Outputs: outputs})
	if got = listed(list[10:12]); len(got) != 2 {
		t.Errorf("%d builders", len(got))
	}
	if got = listed(list[10:]); len(got) != 1 || len(got["x"].([]any)) != len(outputs) {
		t.Errorf("%v", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	name := func(b *bench) string { return narFile(b.out) }
	tests := []struct {
		name  string
		codes []string
		track string
		files func(b *bench) map[string][]byte
	}{
		{"no statement", []string{"result-incomplete"}, "dev", func(b *bench) map[string][]byte { return map[string][]byte{name(b): b.out.Nar} }},
		{"no output", []string{"result-incomplete"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, b.out)}
		}},
		{"a statement that is too long", []string{"statement-size"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: make([]byte, statement.MaxEnvelopeSize+1)}
		}},
		{"a statement that is none", []string{"statement-not-canonical"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: []byte("{}")}
		}},
		{"a statement of another kind", []string{"statement-kind"}, "dev", func(b *bench) map[string][]byte {
			s, err := statement.Sign(enclavetest.Key(b.T, "dave/statement"), statement.Statement{Kind: statement.KindImported, Subjects: []statement.Subject{{Name: "x"}},
				Predicate: map[string]any{"time": trust.FormatDate(enclavetest.Epoch), "zone": b.Zone.Origin(), "shipment": 1, "items": 1, "bytes": 1, "person": "dave"}})
			if err != nil {
				b.T.Fatal(err)
			}
			return map[string][]byte{StatementFile: s}
		}},
		{"nobody's builder", []string{"statement-key"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("mallory", b.drv, b.out), name(b): b.out.Nar}
		}},
		{"another key of a builder", []string{"statement-key"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("erin#2", b.drv, b.out), name(b): b.out.Nar}
		}},
		{"an importer", []string{"statement-role"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("dave", b.drv, b.out), name(b): b.out.Nar}
		}},
		{"a derivation that is not allowed", []string{"not-allowed"}, "dev", func(b *bench) map[string][]byte {
			other := b.Derivation("other-1.0")
			o := enclavetest.Out{Path: other.Output("out"), Nar: b.out.Nar}
			return map[string][]byte{StatementFile: b.Built("erin", other, o), narFile(o): o.Nar}
		}},
		{"a track without a list", []string{"no-allowlist"}, "prod", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, b.out), name(b): b.out.Nar}
		}},
		{"an output under another's path", []string{"output-path"}, "dev", func(b *bench) map[string][]byte {
			o := b.out
			o.Path = b.Derivation("other-1.0").Output("out")
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, o), narFile(o): o.Nar}
		}},
		{"a nar of another size", []string{"output-size"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, b.out), name(b): b.out.Nar[:len(b.out.Nar)-8]}
		}},
		{"a nar of another content", []string{"output-digest"}, "dev", func(b *bench) map[string][]byte {
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, b.out), name(b): enclavetest.Nar("hallo")}
		}},
		{"what is no nar", []string{"nar-magic"}, "dev", func(b *bench) map[string][]byte {
			o := b.out
			o.Nar = []byte("no archive")
			return map[string][]byte{StatementFile: b.Built("erin", b.drv, o), name(b): o.Nar}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.refuse(t, tt.track, result(t, tt.files(b)), tt.codes...)
		})
	}
	// Where a file belongs is a pipe, a directory, a way out.
	b := newBench(t)
	for _, file := range []string{StatementFile, name(b)} {
		r := b.result(t, "erin", b.out)
		path := filepath.Join(r.Name(), file)
		for what, do := range map[string]func() error{
			"pipe":      func() error { return syscall.Mkfifo(path, 0o644) },
			"directory": func() error { return os.Mkdir(path, 0o755) },
		} {
			if err := errors.Join(os.Remove(path), do()); err != nil {
				t.Fatal(what, err)
			}
			b.refuse(t, "dev", r, "result-type")
		}
	}
	r := b.result(t, "erin", b.out)
	path := filepath.Join(r.Name(), name(b))
	outside := filepath.Join(t.TempDir(), "nar")
	if err := errors.Join(os.WriteFile(outside, b.out.Nar, 0o644), os.Remove(path), os.Symlink(outside, path)); err != nil {
		t.Fatal(err)
	}
	before := b.State()
	if _, err := desk(t, b.Enclave).Submit(t.Context(), "dev", r); err == nil || b.State() != before {
		t.Errorf("a link out of the result was followed: %v", err)
	}
}

// Two outputs, one bad: nothing is kept, and the good one of another builder stays.
func TestNothingStays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.must(t, "erin", b.out)
	blobs := b.Blobs()
	evil := b.other("evil")
	r := b.result(t, "frank", evil)
	if err := os.WriteFile(filepath.Join(r.Name(), narFile(evil)), enclavetest.Nar("liar"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.refuse(t, "dev", r, "output-digest")
	if got := b.Blobs(); !slices.Equal(got, blobs) {
		t.Errorf("blobs %v, want %v", got, blobs)
	}
	d := desk(t, b.Enclave)
	d.Zone.Config.Space.Reserve = 1 << 62
	var space *store.SpaceError
	if _, err := d.Submit(t.Context(), "dev", b.result(t, "frank", evil)); !errors.As(err, &space) {
		t.Error(err)
	}
	d.Zone.Config.Space.Reserve = 0
	d.Reader = confine.Options{Path: "/nonexistent"}
	if _, err := d.Submit(t.Context(), "dev", b.result(t, "frank", evil)); err == nil || !strings.Contains(err.Error(), "without confinement") {
		t.Error(err)
	}
	if got := b.Blobs(); !slices.Equal(got, blobs) || b.Notes() != nil {
		t.Errorf("blobs %v, want %v", got, blobs)
	}
}
