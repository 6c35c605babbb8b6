package admit_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/narinfo"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/quorum"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

// view reads the ledger and makes the view of dev.
func view(t *testing.T, e *enclavetest.Enclave) (*admit.View, error) {
	t.Helper()
	var r admit.Record
	if _, err := r.Read(t.Context(), e.Zone, e.Root); err != nil {
		return nil, err
	}
	return r.View(t.Context(), e.Zone, e.Root, "dev")
}

func mustView(t *testing.T, e *enclavetest.Enclave) *admit.View {
	t.Helper()
	v, err := view(t, e)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// built is an enclave in which one derivation is allowed.
func built(t *testing.T) (e *enclavetest.Enclave, drv enclavetest.Content, out enclavetest.Out) {
	t.Helper()
	e = enclavetest.New(t)
	src := e.Source("src", "source\n")
	drv = e.Derivation("hello-1.0", src)
	e.Allow("dev", src, drv)
	return e, drv, enclavetest.Out{Path: drv.Output("out"), Nar: enclavetest.Nar("hello"), References: []string{drv.Output("out"), src.Path()}}
}

func TestItems(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	base := strings.TrimPrefix(out.Path, storepath.Dir+"/")
	v := mustView(t, e)
	src, err := v.Item(v.List.Items[slices.IndexFunc(v.List.Items, func(it trust.Item) bool { return it.Kind == trust.KindSource })].Name)
	if err != nil || src.Flat() || src.NarHash != src.Content {
		t.Errorf("%+v, %v", src, err)
	}
	d, err := v.Item(drv.Name)
	want := enclavetest.Nar(string(drv.Data))
	if err != nil || !d.Flat() || d.Content != drv.SHA256 || d.NarHash != trust.Sum(want) || d.NarSize != int64(len(want)) || len(d.References) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	_, err = v.Item(base)
	suite.Want(t, err, "not-allowed")
	e.Vote("erin", drv, out)
	v = mustView(t, e)
	_, err = v.Item(base)
	suite.Want(t, err, "not-allowed")
	_, err = v.Evidence(drv.Name, [][]byte{e.Built("erin", drv, out)})
	suite.Want(t, err, "quorum-waiting")
	e.Vote("frank", drv, out)
	v = mustView(t, e)
	it, err := v.Item(base)
	if err != nil || it.NarHash != trust.Sum(out.Nar) || it.Deriver.Base() != drv.Name || len(it.References) != 2 {
		t.Errorf("%+v, %v", it, err)
	}
	if n := v.Names(); len(n) != 3 || !slices.IsSorted(n) || !slices.Equal(v.Made(drv.Name), []string{base}) {
		t.Errorf("%v", n)
	}
	n := &narinfo.NarInfo{StorePath: it.Path, NarHash: it.NarHash, NarSize: it.NarSize, References: it.References}
	if err := it.Described(n); err != nil {
		t.Error(err)
	}
	n.References = n.References[:1]
	suite.Want(t, it.Described(n), "narinfo-content")
	// One who disagrees takes it back; what was shared before does not change.
	old := v
	v = v.Clone()
	other := out
	other.Nar = enclavetest.Nar("evil")
	if err := v.Weigh(drv.Name, [][]byte{e.Built("erin", drv, out), e.Built("frank", drv, out), e.Built("greg", drv, other)}); err != nil {
		t.Fatal(err)
	}
	_, err = v.Item(base)
	suite.Want(t, err, "not-allowed")
	if _, err := old.Item(base); err != nil {
		t.Error(err)
	}
	_, err = v.Evidence("nowhere", nil)
	suite.Want(t, err, "not-allowed")
	_, err = v.Derivation(src.Path.Base())
	suite.Want(t, err, "not-allowed")
}

func TestContentOfDerivations(t *testing.T) {
	t.Parallel()
	e, drv, _ := built(t)
	list := mustView(t, e).List
	big := enclavetest.Content{Item: drv.Item, Data: drv.Data}
	big.Size = admit.MaxDerivation + 1
	output := e.Source("output", "output")
	output.Kind = trust.KindOutput
	nonsense := drv
	nonsense.Data = []byte("Derive(")
	nonsense.SHA256, nonsense.Size = trust.Sum(nonsense.Data), int64(len(nonsense.Data))
	opened := func(items ...trust.Item) *trust.Allowlist {
		t.Helper()
		a := e.List("dev")
		a.Items = items
		note, err := trust.SignNote(a.Text(), enclavetest.Key(t, "alice/allowlist"), enclavetest.Key(t, "bob/allowlist"))
		if err != nil {
			t.Fatal(err)
		}
		opened, _, err := trust.OpenAllowlist(note, e.Root, nil)
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	broken := errors.New("the network is down")
	tests := []struct {
		code string
		list *trust.Allowlist
		name string
		open admit.Opener
	}{
		{"item-digest", list, drv.Name, func(trust.Digest) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("other")), nil }},
		{"item-lost", list, drv.Name, func(trust.Digest) (io.ReadCloser, error) {
			r, err := e.Zone.CAS.Open(trust.Sum([]byte("nowhere")))
			return r, err
		}},
		{"derivation-size", opened(enclavetest.Items(big)...), drv.Name, nil},
		{"derivation-invalid", opened(enclavetest.Items(nonsense)...), drv.Name, func(trust.Digest) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(nonsense.Data)), nil }},
		{"item-kind", opened(enclavetest.Items(output)...), output.Name, nil},
		{"", list, drv.Name, func(trust.Digest) (io.ReadCloser, error) { return nil, broken }},
	}
	for _, tt := range tests {
		_, err := admit.New(e.Root, nil, tt.list, e.Clock, tt.open).Item(tt.name)
		if tt.code == "" {
			if _, refused := trust.AsRefusals(err); !errors.Is(err, broken) || refused {
				t.Error(err)
			}
			continue
		}
		suite.Want(t, err, tt.code)
	}
}

// Builders who agree on a path that is not their derivation's, or on an item that reviewers named, change nothing.
func TestOutputsOfOthers(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	other := e.Derivation("other-1.0")
	e.Allow("dev", other)
	v := mustView(t, e)
	src := v.List.Items[slices.IndexFunc(v.List.Items, func(it trust.Item) bool { return it.Kind == trust.KindSource })]
	for _, path := range []string{other.Output("out"), storepath.Dir + "/" + src.Name} {
		bad := out
		bad.Path = path
		_, err := v.Evidence(drv.Name, [][]byte{e.Built("erin", drv, bad), e.Built("frank", drv, bad)})
		suite.Want(t, err, "output-path")
	}
	if it, err := v.Item(src.Name); err != nil || it.NarHash != src.SHA256 {
		t.Errorf("%+v, %v", it, err)
	}
	two := map[string]quorum.BuiltOutput{out.Path: {ID: "out"}, "/gnu/store/x": {ID: "doc"}}
	suite.Want(t, admit.CheckOutputs(drv.Name, drv.Drv, two), "output-path")
}

// Two fixed-output derivations may have one output. It is served while both say the same of it.
func TestOneOutputOfTwo(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	data := enclavetest.Nar("fixed")
	sum := trust.Sum(data)
	fixed := func(variable string) enclavetest.Content {
		d := &derivation.Derivation{System: "x86_64-linux", Builder: "builtin:download", Env: []derivation.Variable{{Name: "out"}, {Name: "url", Value: variable}},
			Outputs: []derivation.Output{{ID: "out", HashAlgo: "r:sha256", Hash: hex.EncodeToString(sum[:])}}}
		if err := derivation.NewHasher(nil).Fill("fixed", d); err != nil {
			t.Fatal(err)
		}
		return e.DerivationOf("fixed", d)
	}
	a, b := fixed("https://one.example"), fixed("https://two.example")
	e.Allow("dev", a, b)
	out := enclavetest.Out{Path: a.Output("out"), Nar: data}
	if b.Output("out") != out.Path || a.Name == b.Name {
		t.Fatal("they should have one output")
	}
	base := strings.TrimPrefix(out.Path, storepath.Dir+"/")
	for _, drv := range []enclavetest.Content{a, b} {
		e.Vote("erin", drv, out)
		e.Vote("frank", drv, out)
		if _, err := mustView(t, e).Item(base); err != nil {
			t.Error(err)
		}
	}
	v := mustView(t, e)
	other := out
	other.Nar = enclavetest.Nar("other")
	if _, err := v.Evidence(b.Name, [][]byte{e.Built("erin", b, other), e.Built("frank", b, other)}); err != nil {
		t.Fatal(err)
	}
	_, err := v.Item(base)
	suite.Want(t, err, "output-conflict")
	if err := v.Weigh(b.Name, nil); err != nil {
		t.Fatal(err)
	}
	if it, err := v.Item(base); err != nil || it.NarHash != sum {
		t.Errorf("%+v, %v", it, err)
	}
}

// What root on the station can do to rows, and what comes of it.
func TestForgedCatalog(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, code string
		do         func(e *enclavetest.Enclave, drv enclavetest.Content, out enclavetest.Out)
	}{
		{"a list that never was an entry", "not-in-ledger", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Enter(e.List("dev", e.Source("evil", "evil")), false, "alice", "bob")
		}},
		{"a list with one reviewer", "allowlist-threshold", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Enter(e.List("dev", e.Source("evil", "evil")), true, "alice")
		}},
		{"the list of another track", "allowlist-track", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Allow("prod", e.Source("prod", "prod"))
			e.Exec(`UPDATE allowlist SET note = (SELECT note FROM allowlist WHERE track = 'prod') WHERE track = 'dev'`)
		}},
		{"no list", "no-allowlist", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Exec(`DELETE FROM allowlist`)
		}},
		{"a changed entry", "ledger-entry", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Exec(`UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE idx = 0) WHERE idx = 3`)
		}},
		{"a removed entry", "ledger-entry", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Exec(`DELETE FROM entry WHERE idx = 3`)
		}},
		{"the last entry removed", "ledger-entry", func(e *enclavetest.Enclave, _ enclavetest.Content, _ enclavetest.Out) {
			e.Exec(`DELETE FROM entry WHERE idx = (SELECT max(idx) FROM entry)`)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, drv, out := built(t)
			tt.do(e, drv, out)
			_, err := view(t, e)
			suite.Want(t, err, tt.code)
		})
	}
}

// A deleted row hides nobody's dissent: it is in the ledger.
func TestHiddenDissent(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	other := out
	other.Nar = enclavetest.Nar("evil")
	e.Vote("erin", drv, out)
	e.Vote("frank", drv, out)
	e.Vote("greg", drv, other)
	e.Exec(`DELETE FROM built WHERE keyid LIKE 'greg/%'`)
	_, err := mustView(t, e).Item(strings.TrimPrefix(out.Path, storepath.Dir+"/"))
	suite.Want(t, err, "not-allowed")
}

// Reading on finds what is new, and nothing else; many entries, of every size of a tree.
func TestRecord(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	var r admit.Record
	read := func() *admit.Changes {
		t.Helper()
		c, err := r.Read(t.Context(), e.Zone, e.Root)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if c := read(); !c.Documents || c.Derivations != nil {
		t.Errorf("%+v", c)
	}
	if c := read(); c.Documents || c.Derivations != nil {
		t.Errorf("%+v", c)
	}
	for i := range 70 {
		e.Commit(func(tx *store.Tx) error {
			for range i % 5 {
				if err := tx.Statement(statement.KindSigned, []statement.Subject{{Name: `x","predicateType":"urn:sallyport:statement:allowed:1",`}}, map[string]any{"track": "dev"}); err != nil {
					return err
				}
			}
			return tx.Statement(statement.KindSigned, []statement.Subject{{Name: "x"}}, map[string]any{"track": "dev"})
		})
		if c := read(); c.Documents || c.Derivations != nil {
			t.Fatalf("%d: %+v", i, c)
		}
	}
	e.Vote("erin", drv, out)
	if c := read(); c.Documents || !slices.Equal(c.Derivations, []string{drv.Name}) || len(r.Votes(drv.Name)) != 1 {
		t.Errorf("%+v", c)
	}
	e.Allow("prod", e.Source("p", "p"))
	e.NextRoot(nil)
	if c := read(); !c.Documents {
		t.Errorf("%+v", c)
	}
	// A step that fails can be made again.
	e.Vote("frank", drv, out)
	e.Exec(`UPDATE entry SET leaf = leaf || ' ' WHERE idx = (SELECT max(idx) FROM entry)`)
	_, err := r.Read(t.Context(), e.Zone, e.Root)
	suite.Want(t, err, "ledger-entry")
	e.Exec(`UPDATE entry SET leaf = substr(leaf, 1, length(leaf) - 1) WHERE idx = (SELECT max(idx) FROM entry)`)
	// What was changed back is text to SQLite now, and the same bytes.
	if c := read(); !slices.Equal(c.Derivations, []string{drv.Name}) || len(r.Votes(drv.Name)) != 2 {
		t.Errorf("%+v", c)
	}
	var whole admit.Record
	if _, err := whole.Read(t.Context(), e.Zone, e.Root); err != nil || fmt.Sprint(whole) != fmt.Sprint(r) {
		t.Errorf("read at once it is another: %v", err)
	}
	// An older checkpoint that is signed, too, is not gone back to.
	file := filepath.Join(e.Zone.Dir, "public", "ledger", "checkpoint")
	old := e.Row(`SELECT note FROM checkpoint ORDER BY size LIMIT 1`)
	if err := os.WriteFile(file, []byte(old), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = r.Read(t.Context(), e.Zone, e.Root)
	suite.Want(t, err, "ledger-rollback")
}

// The ledger's key is the one that the newest root names: not the one before it, and none without a root that names it.
func TestLedgerKey(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	file := filepath.Join(e.Zone.Dir, "public", "ledger", "checkpoint")
	old, err := trust.ParseKey([]byte(read(t, filepath.Join(e.Zone.Dir, "keys", "ledger.key"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	e.Renew(trust.ContextCheckpoint)
	if _, err := view(t, e); err != nil {
		t.Errorf("the zone goes on with the new key: %v", err)
	}
	e.Allow("dev", e.Source("more", "more"))
	if _, err := view(t, e); err != nil {
		t.Errorf("and makes further entries: %v", err)
	}
	note := read(t, file)
	// A thief of the old one signs the very tree that is there.
	text, _, err := trust.SplitNote("checkpoint", []byte(note), 1<<16)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := trust.SignNote(text, old)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, forged, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = view(t, e)
	suite.Want(t, err, "checkpoint-unsigned")
	if err := os.WriteFile(file, []byte(note), 0o644); err != nil {
		t.Fatal(err)
	}
	// A root that names none, which the zone itself would not take.
	bare, err := trust.ParseRoot(e.Root.Text())
	if err != nil {
		t.Fatal(err)
	}
	bare.Version, bare.Previous = e.Root.Version+1, e.Root.Digest()
	enclavetest.Without(trust.Station, trust.ContextCheckpoint)(bare)
	signed, err := trust.SignNote(bare.Text(), enclavetest.Key(t, "olga/root"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := e.Root.Next(signed)
	if err != nil {
		t.Fatal(err)
	}
	var r admit.Record
	_, err = r.Read(t.Context(), e.Zone, root)
	suite.Want(t, err, "checkpoint-key")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A new station key does not put out of force what came into force with the old one.
func TestStationKeyChanged(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	e.Renew(trust.ContextStatement)
	if _, err := view(t, e); err != nil {
		t.Error(err)
	}
}

func TestFloor(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	path := filepath.Join(t.TempDir(), "floor", "x.json")
	one := mustView(t, e)
	if err := admit.Raise(path, one); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	e.Allow("dev", e.Source("more", "more"))
	two := mustView(t, e)
	// Several at once: none lowers what another has raised.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			v := two
			if i%2 == 0 {
				v = one
			}
			err := admit.Raise(path, v)
			if rs, refused := trust.AsRefusals(err); err != nil && (!refused || !rs.Has("allowlist-rollback")) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	suite.Want(t, admit.Raise(path, one), "allowlist-rollback")
	if err := admit.Raise(path, two); err != nil {
		t.Error(err)
	}
	// The same number with another content is an alarm.
	a := e.List("dev", e.Source("other", "other"))
	a.Version, a.Previous, a.Items = 2, one.List.Digest(), append(enclavetest.Items(e.Source("other", "other")), one.List.Items...)
	note, err := trust.SignNote(a.Text(), enclavetest.Key(t, "alice/allowlist"), enclavetest.Key(t, "bob/allowlist"))
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := trust.OpenAllowlist(note, e.Root, nil)
	if err != nil {
		t.Fatal(err)
	}
	suite.Want(t, admit.Raise(path, admit.New(e.Root, nil, other, e.Clock, nil)), "allowlist-equivocation")
	for _, damaged := range [][]byte{nil, first[:len(first)-1], []byte("{}")} {
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := admit.Raise(path, two); err == nil {
			t.Errorf("%q is taken for a floor", damaged)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	e := enclavetest.New(b)
	const n = 20_000
	for range n / 500 {
		e.Commit(func(tx *store.Tx) error {
			for i := range 500 {
				err := tx.Statement(statement.KindSigned, []statement.Subject{{Name: fmt.Sprint("x", i)}}, map[string]any{"track": "dev"})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	b.ResetTimer()
	for range b.N {
		var r admit.Record
		if _, err := r.Read(context.Background(), e.Zone, e.Root); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// A channel's item is a source to whoever serves it: a nar, bound to its name, that refers to nothing.
func TestChannel(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	item := e.Source("guix-channel-"+strings.Repeat("0a", 20), "a bundle and a pin")
	item.Kind = trust.KindChannel
	e.Allow("dev", item)
	v := mustView(t, e)
	it, err := v.Item(item.Name)
	if err != nil || it.Kind != trust.KindChannel || it.Flat() || it.Content != item.SHA256 || it.NarHash != item.SHA256 || it.NarSize != item.Size || len(it.References) != 0 {
		t.Errorf("%+v, %v", it, err)
	}
	if !slices.Contains(v.Names(), item.Name) {
		t.Errorf("%q", v.Names())
	}
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: item.SHA256, Name: item.Name, Date: o.Date, Reason: "x"})
	})
	_, err = mustView(t, e).Item(item.Name)
	suite.Want(t, err, "recalled")
}
