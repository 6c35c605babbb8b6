package verbs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

// A key of a ledger that officers have taken away signs nothing that is believed, whether or not they gave the ledger another.
func TestKeysTakenAway(t *testing.T) {
	e := trusttest.New(t)
	const origin = "sallyport/citadel/staging"
	log, unnamed := e.Key(origin), trusttest.Key(t, "sallyport/citadel/outside", "")
	first := e.Root()
	first.Keys = append(first.Keys, trust.RootKey{Context: trust.ContextCheckpoint, Owner: trust.Station, Key: log.VKey().String()})
	second := e.Root()
	second.Version, second.Previous = 2, trust.Sum(first.Text())
	l := &published{log: []trust.VKey{unnamed.VKey()}, pin: func(trust.Digest) error { return nil }}
	sign := func(k *trust.Key) []byte {
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: k.Name(), Root: ledger.EmptyRoot()}, k)
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	l.chain = [][]byte{e.Sign(first.Text(), "olga/root", "omar/root")}
	if err := l.openChain(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.opens(sign(log)); err != nil {
		t.Errorf("while the root names it: %v", err)
	}
	l.chain = append(l.chain, e.Sign(second.Text(), "olga/root", "omar/root"))
	for range 2 { // the roots are read again when a checkpoint is by another key
		if err := l.openChain(); err != nil {
			t.Fatal(err)
		}
		_, err := l.opens(sign(log))
		trusttest.WantCodes(t, err, "key-replaced")
		if _, err := l.opensKept(sign(log)); err != nil {
			t.Errorf("of what somebody kept: %v", err)
		}
		// A zone that no root has named yet has its key all the same.
		if _, err := l.opens(sign(unnamed)); err != nil {
			t.Error(err)
		}
	}
}

// A witness who has seen that the ledger's key changed is not led back by roots of which the last is missing: the thief of the former key would bring such.
func TestWitnessOldRoots(t *testing.T) {
	w, e := newKeyWorld(t), trusttest.New(t)
	old, renewed, wim := e.Key(trusttest.Zone), trusttest.Key(t, trusttest.Zone, "renewed"), e.Key("wim/witness")
	first, second := e.Root(), e.Root()
	second.Version, second.Previous = 2, trust.Sum(first.Text())
	for i, k := range second.Keys {
		if k.Key == old.VKey().String() {
			second.Keys[i].Key = renewed.VKey().String()
		}
	}
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret, err := wim.Marshal(bytes.NewReader(make([]byte, 256)), nil)
	if err != nil {
		t.Fatal(err)
	}
	write("wim.key", secret)
	for i, r := range []*trust.Root{first, second} {
		write(fmt.Sprintf("roots/%d", i+1), e.Sign(r.Text(), "olga/root", "omar/root"))
		write(fmt.Sprintf("until-%d/1", i+1), e.Sign(first.Text(), "olga/root", "omar/root"))
	}
	for name, k := range map[string]*trust.Key{"thief": old, "ledger": renewed} {
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: trusttest.Zone, Root: ledger.EmptyRoot()}, k)
		if err != nil {
			t.Fatal(err)
		}
		write(name+"/checkpoint", note)
	}
	witness := func(roots, dir string) (int, string) {
		os.Remove(w.path("out"))
		code, _, stderr := w.run("ledger", "witness", "--key", "@wim.key", "--state", "@state", "--root", trust.Fingerprint(trust.Sum(first.Text())), "--roots", "@"+roots, "--out", "@out", "@"+dir)
		return code, stderr
	}
	// Before the change, by the roots of then; and after it.
	for _, step := range []struct{ roots, dir, want string }{
		{"until-1", "thief", ""}, {"roots", "thief", "checkpoint-unsigned"}, {"roots", "ledger", ""}, {"roots", "ledger", ""}, {"until-1", "thief", "witness-log"}, {"roots", "thief", "checkpoint-unsigned"}, {"roots", "ledger", ""},
	} {
		if code, stderr := witness(step.roots, step.dir); (code == 0) != (step.want == "") || !strings.Contains(stderr, step.want) {
			t.Errorf("%+v: code %d\n%s", step, code, stderr)
		}
	}
}
