package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/nar"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/enclavetest"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func newGate(t *testing.T, e *enclavetest.Enclave, importer string) *Gate {
	t.Helper()
	return &Gate{Zone: e.Zone, Root: e.Root, Reader: suite.Reader(t), Importer: enclavetest.Key(t, importer), Clock: e.Clock}
}

func (g *Gate) take(t *testing.T, v *enclavetest.Volume) (*Quarantined, error) {
	t.Helper()
	return g.Import(t.Context(), v.Root(t), v.Slip)
}

// refuse demands that the volume is refused with these codes, that the ledger has the refusal, and that nothing else is there.
func refuse(t *testing.T, e *enclavetest.Enclave, v *enclavetest.Volume, codes ...string) {
	t.Helper()
	refuseBy(t, e, newGate(t, e, "dave/statement"), v, codes...)
}

func refuseBy(t *testing.T, e *enclavetest.Enclave, g *Gate, v *enclavetest.Volume, codes ...string) {
	t.Helper()
	before, kinds := e.State(), e.Kinds()
	_, err := g.take(t, v)
	suite.Want(t, err, codes...)
	if after := e.State(); after != before {
		t.Errorf("something changed:\n%v\n%v", before, after)
	}
	kinds[statement.KindRefused]++
	if after := e.Kinds(); fmt.Sprint(after) != fmt.Sprint(kinds) {
		t.Errorf("entries %v, want %v", after, kinds)
	}
}

// goods are a tool, its source and a derivation.
func goods(e *enclavetest.Enclave) []enclavetest.Content {
	a, b := e.Source("a", "#!/bin/tool a\n"), e.Source("b", "b\n")
	return []enclavetest.Content{a, b, e.Derivation("hello-1.0", a, b)}
}

func TestImport(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	all := goods(e)
	v := e.Volume(all...)
	q, err := newGate(t, e, "dave/statement").take(t, v)
	if err != nil {
		t.Fatal(err)
	}
	if q.Number != 1 || q.Items != 3 || q.Bytes != v.Manifest.Bytes() || q.Files < 2 || len(q.Missing) != 0 || q.Confined["seccomp"] == "" {
		t.Errorf("%+v", q)
	}
	for _, c := range all {
		if size, ok := e.Zone.CAS.Has(c.SHA256); !ok || size != c.Size {
			t.Errorf("%s is not in the store", c.Name)
		}
		if err := e.Zone.CAS.Check(c.SHA256); err != nil {
			t.Error(err)
		}
	}
	if n := len(e.Blobs()); n != 5 {
		t.Errorf("%d blobs, want the items, the manifest and the findings", n)
	}
	if s := e.Row(`SELECT state || importer FROM shipment WHERE number = 1`); s != "quarantineddave" {
		t.Error(s)
	}
	if k := e.Kinds(); k["inspected"] != 1 || k["imported"] != 1 {
		t.Error(k)
	}
	if n := e.Notes(); n != nil {
		t.Errorf("notes stay: %v", n)
	}
	// The hint leads to the importer's own statement.
	var index int64
	fmt.Sscan(e.Row(`SELECT value FROM setting WHERE name = 'imported/1'`), &index)
	leaf, err := e.Zone.Entry(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	env, err := statement.ParseEnvelope(leaf)
	if err != nil || env.Kind() != statement.KindImported {
		t.Fatalf("%v, %v", env, err)
	}
	if _, person, err := env.Verify(e.Root, e.Zone.Origin()); err != nil || person != "dave" {
		t.Errorf("%s, %v", person, err)
	}
	// Again it is a replay, and changes nothing.
	refuse(t, e, v, "shipment-replayed")
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		codes []string
		make  func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume
	}{
		{"slip of another volume", []string{"slip-mismatch"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			v := e.Volume(goods(e)...)
			v.Slip.Manifest[0] ^= 1
			return v
		}},
		{"slip of another enclave", []string{"slip-mismatch"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			v := e.Volume(goods(e)...)
			v.Slip.Enclave = "other"
			return v
		}},
		{"nobody's collector", []string{"manifest-unsigned"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			return e.Ship(e.Manifest(goods(e)...), "mallory", goods(e)...)
		}},
		{"a flipped byte in each of two items", []string{"item-digest", "item-digest"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			all := goods(e)
			v := e.Volume(all...)
			flip(t, v, all[0], -20)
			flip(t, v, all[2], 10)
			return v
		}},
		{"an output", []string{"item-kind"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			c := e.Source("a", "a")
			c.Kind = trust.KindOutput
			return e.Volume(c)
		}},
		{"a source under a name that is not its own", []string{"item-path"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			c, other := e.Source("a", "a"), e.Source("b", "b")
			c.Name = other.Name
			return e.Volume(c)
		}},
		{"a derivation under a name that is not its own", []string{"item-path"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			c := e.Derivation("a")
			c.Name = e.Derivation("b").Name
			return e.Volume(c)
		}},
		{"no derivation and no nar", []string{"drv-syntax", "nar-magic"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			a, b := e.Source("a", "a"), e.Derivation("b")
			a.Data, b.Data = []byte("neither the one"), []byte("nor the other")
			for _, c := range []*enclavetest.Content{&a, &b} {
				c.SHA256, c.Size = trust.Sum(c.Data), int64(len(c.Data))
			}
			return e.Volume(a, b)
		}},
		{"a missing source and a missing derivation", []string{"input-missing", "input-missing"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			return e.Volume(e.Derivation("top-1.0", e.Source("a", "a"), e.Derivation("below-1.0")))
		}},
		{"an input that is only quarantined", []string{"input-missing"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			a := e.Source("a", "a")
			e.Quarantine("eve", a)
			return e.Volume(e.Derivation("top-1.0", a))
		}},
		{"an output path that is not the derivation's", []string{"derivation-outputs"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			d := e.Derivation("a-1.0").Drv
			other := e.Derivation("b-1.0")
			d.Outputs[0].Path = other.Output("out")
			for i := range d.Env {
				if d.Env[i].Name == "out" {
					d.Env[i].Value = other.Output("out")
				}
			}
			return e.Volume(e.DerivationOf("a-1.0", d))
		}},
		{"another shipment of the same number", []string{"shipment-equivocation"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			e.Quarantine("eve", e.Source("a", "a"))
			m := e.Manifest(e.Source("b", "b"))
			m.Number, m.Previous = 1, trust.Digest{}
			return e.Ship(m, "carol", e.Source("b", "b"))
		}},
		{"behind another shipment than the one that is here", []string{"manifest-chain"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			e.Quarantine("eve", e.Source("a", "a"))
			m := e.Manifest(e.Source("b", "b"))
			m.Previous[3] ^= 1
			return e.Ship(m, "carol", e.Source("b", "b"))
		}},
		{"before a shipment that follows another", []string{"manifest-chain"}, func(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
			honest := e.Manifest(e.Source("a", "a"))
			e.Ship(honest, "carol", e.Source("a", "a"))
			e.Quarantine("eve", e.Source("b", "b"))
			forged := *honest
			forged.Items = enclavetest.Items(e.Source("c", "c"))
			return e.Ship(&forged, "carol", e.Source("c", "c"))
		}},
		{"a control byte in a name", []string{"inspection-block"}, blocked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := enclavetest.New(t)
			refuse(t, e, tt.make(t, e), tt.codes...)
		})
	}
}

func flip(t *testing.T, v *enclavetest.Volume, c enclavetest.Content, at int) {
	t.Helper()
	h := c.SHA256.String()
	file := filepath.Join(v.Dir, "items", h[:2], h)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[(at+len(data))%len(data)] ^= 1
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestImporters(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	v := e.Volume(goods(e)...)
	for key, code := range map[string]string{
		"alice/allowlist": "key-context", "erin/statement": "not-importer", "mallory/statement": "not-importer", "dave/statement#2": "not-importer", "station/statement": "not-importer",
	} {
		refuseBy(t, e, newGate(t, e, key), v, code)
	}
}

// One content under two names is two items and one blob.
func TestTwoNames(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a, b := e.Source("a", "same"), e.Source("b", "same")
	if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(a, b, e.Derivation("top-1.0", a, b))); err != nil {
		t.Fatal(err)
	}
	// Both names are there for what comes later, once they are allowed.
	e.Allow("prod", a, b)
	if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(e.Derivation("next-1.0", b))); err != nil {
		t.Error(err)
	}
}

// An allowed derivation is an input of later ones, and its outputs are recomputed through it.
func TestAllowedInput(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	below := e.Derivation("below-1.0")
	e.Allow("dev", below)
	v := e.Volume(e.Derivation("top-1.0", below))
	// A disk that has lost it is no fault of the volume.
	if err := e.Zone.CAS.Remove(below.SHA256); err != nil {
		t.Fatal(err)
	}
	refuse(t, e, v, "derivation-outputs")
	e.Put(below.Data)
	if _, err := newGate(t, e, "dave/statement").take(t, v); err != nil {
		t.Error(err)
	}
}

// A row that names an input as allowed, made by root on the station, is not believed.
func TestForgedRows(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a := e.Source("a", "a")
	e.Quarantine("eve", a)
	e.Exec(`UPDATE shipment SET state = 'admitted'`)
	list := e.List("dev", a)
	e.Enter(list, true, "alice")
	_, err := newGate(t, e, "dave/statement").take(t, e.Volume(e.Derivation("top-1.0", a)))
	suite.Want(t, err, "allowlist-threshold")
}

func TestMissing(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	for range 3 {
		e.Manifest()
	}
	m := e.Manifest(e.Source("a", "a"))
	m.Previous = trust.Sum(nil)
	m.Recent = []shipment.Recent{{Number: 3, Date: enclavetest.Epoch}, {Number: 1, Date: enclavetest.Epoch}}
	q, err := newGate(t, e, "dave/statement").take(t, e.Ship(m, "carol", e.Source("a", "a")))
	if err != nil || !slices.Equal(q.Missing, []int64{1, 3}) {
		t.Errorf("%+v, %v", q, err)
	}
}

// A run that is stopped leaves nothing, and no entry.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	all := append(goods(e), e.Source("large", strings.Repeat("x", 4<<20)))
	v := e.Volume(all...)
	for _, after := range []int{1, 2, 3, 4} {
		before, kinds := e.State(), fmt.Sprint(e.Kinds())
		ctx, cancel := context.WithCancel(t.Context())
		g := newGate(t, e, "dave/statement")
		items := map[string]bool{}
		g.Progress = func(_ int64, item string) {
			if items[item] = true; len(items) == after {
				cancel()
			}
		}
		_, err := g.Import(ctx, v.Root(t), v.Slip)
		cancel()
		if _, refused := trust.AsRefusals(err); !errors.Is(err, context.Canceled) || refused {
			t.Errorf("after %d items: %v", after, err)
		}
		if e.State() != before || fmt.Sprint(e.Kinds()) != kinds {
			t.Errorf("after %d items: something changed", after)
		}
	}
	if _, err := newGate(t, e, "dave/statement").take(t, v); err != nil {
		t.Error(err)
	}
}

// What an import that was killed has left is removed by the next one, whatever comes of that; but not what anything else refers to.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	out := enclavetest.Nar("built")
	drv := e.Derivation("a-1.0")
	e.Quarantine("eve", drv)
	e.Allow("dev", drv)
	e.Vote("erin", drv, enclavetest.Out{Path: drv.Output("out"), Nar: out})
	known := e.Source("known", "known")
	e.Quarantine("eve", known)
	all := goods(e)
	digests := []trust.Digest{known.SHA256, drv.SHA256, trust.Sum(out), trust.Sum([]byte("never stored"))}
	for _, c := range all {
		digests = append(digests, c.SHA256)
	}
	if _, err := pending.Begin(t.Context(), e.Zone, stage, digests); err != nil {
		t.Fatal(err)
	}
	clean := e.Blobs()
	for _, c := range all {
		e.Put(c.Data)
	}
	v := e.Volume(all...)
	v.Slip.Enclave = "other"
	if _, err := newGate(t, e, "dave/statement").take(t, v); err == nil {
		t.Fatal("not refused")
	}
	if got := e.Blobs(); !slices.Equal(got, clean) {
		t.Errorf("blobs %v, want %v", got, clean)
	}
	if e.Notes() != nil {
		t.Error("the note stays")
	}
	// An earlier, refused volume must not take along what a later one finds.
	v.Slip.Enclave = enclavetest.Name
	flip(t, v, all[1], -20)
	_, err := newGate(t, e, "dave/statement").take(t, v)
	if rs, _ := trust.AsRefusals(err); !rs.Has("item-digest") {
		t.Error(err)
	}
	if got := e.Blobs(); !slices.Equal(got, clean) {
		t.Errorf("blobs %v, want %v", got, clean)
	}
}

// A full disk is found before anything is read, and is no refusal.
func TestSpace(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	e.Zone.Config.Space.Reserve = 1 << 62
	_, err := newGate(t, e, "dave/statement").take(t, e.Volume(goods(e)...))
	var space *store.SpaceError
	if !errors.As(err, &space) {
		t.Error(err)
	}
	if k := e.Kinds(); k["refused"] != 0 {
		t.Error(k)
	}
}

func TestNoReader(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	g := newGate(t, e, "dave/statement")
	g.Reader = confine.Options{Path: "/nonexistent/reader"}
	if _, err := g.take(t, e.Volume(goods(e)...)); err == nil || !strings.Contains(err.Error(), "without confinement") {
		t.Error(err)
	}
	// A reader that is another program is no pass either.
	g.Reader = confine.Options{Path: "/bin/true"}
	if _, err := g.take(t, e.Volume(goods(e)...)); err == nil {
		t.Error("imported without a reader")
	}
	if n := len(e.Blobs()); n != 0 {
		t.Errorf("%d blobs", n)
	}
}

// Two imports at once: one after the other, and the second one is the replay.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	v := e.Volume(goods(e)...)
	errs := make(chan error, 2)
	for range 2 {
		g := newGate(t, e, "dave/statement")
		vol := v.Root(t)
		go func() {
			_, err := g.Import(context.Background(), vol, v.Slip)
			errs <- err
		}()
	}
	a, b := <-errs, <-errs
	if (a == nil) == (b == nil) {
		t.Fatalf("%v, %v", a, b)
	}
	suite.Want(t, errors.Join(a, b), "shipment-replayed")
	if n := len(e.Blobs()); n != 5 {
		t.Errorf("%d blobs", n)
	}
}

func TestFindings(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	g := newGate(t, e, "dave/statement")
	g.MaxFindings = 1
	key := "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n"
	v := e.Volume(e.Source("key", key), e.Source("another", key+"\n"))
	refuseBy(t, e, g, v, "inspection-findings")
	g.MaxFindings = 0
	q, err := g.take(t, v)
	if err != nil || len(q.Details) != 2 || e.Row(`SELECT count(*) FROM finding`) != "2" {
		t.Errorf("%+v, %v", q, err)
	}
}

func TestInvalidDerivation(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	c := e.Derivation("a-1.0")
	c.Data = bytes.Replace(c.Data, []byte(`,[],[],`), []byte(`,[],["/tmp/x"],`), 1)
	c.SHA256, c.Size = trust.Sum(c.Data), int64(len(c.Data))
	refuse(t, e, e.Volume(c), "drv-path")
}

func blocked(t *testing.T, e *enclavetest.Enclave) *enclavetest.Volume {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, h := range []*nar.Header{{Type: nar.Directory}, {Path: "a\x01b", Type: nar.Regular}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return e.Volume(e.SourceOf("tree", b.Bytes()))
}
