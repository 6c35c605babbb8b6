package verbs

import (
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
