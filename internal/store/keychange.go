package store

import (
	"bytes"
	"fmt"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A KeyChange is an entry by which a ledger goes on with another key. It is as the entry says; nobody's signature on the entry was asked for, since what holds it is the
// tree that the ledger's key has signed: whoever says that he gave his key up is not to be believed that he did not.
type KeyChange struct {
	Index    int64
	From, To string // vkeys
	Version  any    // of the root that the entry is about
}

// KeyChanges makes a function to which the entries of a ledger are shown, one after another: it tells of those by which the ledger got another key.
func KeyChanges(visit func(KeyChange) error) func(index int64, leaf []byte) error {
	mark := statement.Mark(statement.KindKeyChanged)
	var payload []byte
	return func(index int64, leaf []byte) error {
		if payload = statement.AppendPayload(payload, leaf); !bytes.Contains(payload, mark) {
			return nil
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil || e.Kind() != statement.KindKeyChanged {
			return nil // the auditor's business: nothing follows from it
		}
		s := e.Unverified()
		if s.Predicate["context"] != string(trust.ContextCheckpoint) {
			return nil
		}
		from, _ := s.Predicate["from"].(string)
		to, _ := s.Predicate["to"].(string)
		return visit(KeyChange{index, from, to, s.Predicate["version"]})
	}
}

// leftBy refuses a change that gives up the key which somebody has on paper.
func (k KeyChange) leftBy(origin string, key trust.VKey) error {
	if k.From != key.String() {
		return nil
	}
	return trust.Refuse("key-replaced", origin, "by entry %d of this very ledger it has given up the key %s", k.Index, key.ID()).
		WithHint(fmt.Sprintf("the new key stands in root %v, which the entry is about: give --root, the fingerprint of the first root, and --roots; or have the new key read out by two officers", k.Version))
}

// NotGivenUp makes a function like that of [KeyChanges]: for who believes a ledger by a key on paper, or by roots that may not be the newest. It refuses the entry that gives the
// key up (key-replaced), even where that key has signed the tree which ends with it.
func NotGivenUp(origin string, key trust.VKey) func(index int64, leaf []byte) error {
	return KeyChanges(func(k KeyChange) error { return k.leftBy(origin, key) })
}

// NotBehindChange makes a function like that of [KeyChanges]: for who has a checkpoint and the note that signs it. It refuses an entry that gives up a key which has
// signed the note, unless the tree ends with that entry: behind it nobody but a thief signs with that key.
func NotBehindChange(c ledger.Checkpoint, note []byte) func(index int64, leaf []byte) error {
	return KeyChanges(func(k KeyChange) error {
		was, err := trust.ParseVKey(k.From)
		if err != nil || was.Name != c.Origin || c.Size <= k.Index+1 {
			return nil
		}
		if _, err := ledger.OpenCheckpoint(note, c.Origin, was); err != nil {
			return nil
		}
		return trust.Refuse("key-replaced", "checkpoint", "its %d entries are signed by %s, which by entry %d gave its place to %s", c.Size, was.ID(), k.Index, trust.Printable(k.To, 200)).
			WithHint("ALARM: somebody uses a key that the ledger has given up: keep this as evidence, and tell the security officer")
	})
}
