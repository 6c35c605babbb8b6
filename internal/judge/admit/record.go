package admit

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/guix/storepath"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Record is what a zone's ledger has said so far, as far as a verifier needs it. The zero Record has read nothing.
type Record struct {
	at      ledger.Checkpoint
	edge    []subtree
	votes   map[string][][]byte     // builders' statements, by the base name of the derivation
	allowed map[trust.Digest]int64  // texts of allowlists that came into force, and the size of the tree with that entry
	newest  map[string]trust.Digest // of these the newest, by track
	ordered trust.Digest            // text of the newest orders that came into force
	root    trust.Digest            // and of the newest root
}

// A subtree is a perfect one of 2^height leaves; those at a tree's right edge, the largest first, make up its root.
type subtree struct {
	height int
	hash   tlog.Hash
}

// Changes say what a Record learnt by reading on.
type Changes struct {
	Documents   bool     // a root, an allowlist or orders may have come into force
	Derivations []string // builders spoke of these, by base name
}

// Read reads on to the published checkpoint, which a key that the root names for this ledger must have signed. If the entries are not the tree under it,
// that is a refusal, and the Record is as it was.
func (r *Record) Read(ctx context.Context, z *store.Zone, root *trust.Root) (*Changes, error) {
	at, err := checkpoint(z, root)
	if err != nil {
		return nil, err
	}
	c := &Changes{}
	if at == r.at {
		return c, nil
	}
	if at.Size < r.at.Size {
		return nil, trust.Refuse("ledger-rollback", at.Origin, "its checkpoint has size %d, one of %d was seen before", at.Size, r.at.Size)
	}
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT idx, leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx`, r.at.Size, at.Size)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	edge := slices.Clone(r.edge)
	var payload []byte
	votes := map[string][][]byte{}
	lists := map[trust.Digest]int64{}
	ordered, last := r.ordered, r.root
	newest := map[string]trust.Digest{}
	for next := r.at.Size; next < at.Size; next++ {
		var index int64
		var leaf sql.RawBytes
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return nil, err
			}
			return nil, trust.Refuse("ledger-entry", fmt.Sprintf("entry %d", next), "it is missing in the catalog")
		}
		if err := rows.Scan(&index, &leaf); err != nil {
			return nil, err
		}
		if index != next {
			return nil, trust.Refuse("ledger-entry", fmt.Sprintf("entry %d", next), "it is missing in the catalog")
		}
		edge = push(edge, tlog.RecordHash(leaf))
		if payload = statement.AppendPayload(payload, leaf); !slices.ContainsFunc(kinds, func(mark []byte) bool { return bytes.Contains(payload, mark) }) {
			continue
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil {
			continue // the auditor's business: nothing follows from it
		}
		switch s := e.Unverified(); s.Kind {
		case statement.KindRoot:
			c.Documents = true
			last = s.Subjects[0].SHA256
		case statement.KindOrdered:
			c.Documents = true
			ordered = s.Subjects[0].SHA256
		case statement.KindAllowed:
			c.Documents = true
			track, _ := s.Predicate["track"].(string)
			lists[s.Subjects[0].SHA256], newest[track] = next+1, s.Subjects[0].SHA256
		case statement.KindBuilt:
			path, _ := s.Predicate["derivation"].(string)
			if p, err := storepath.Parse(path); err == nil {
				votes[p.Base()] = append(votes[p.Base()], bytes.Clone(leaf))
			}
		}
	}
	if fold(edge) != at.Root {
		return nil, trust.Refuse("ledger-entry", at.Origin, "the catalog's entries are not the tree of size %d that is signed", at.Size).
			WithHint("'ledger verify' names the entry; the published ledger is the one that counts")
	}
	// What was read is believed from here on.
	if r.votes == nil {
		r.votes, r.allowed = map[string][][]byte{}, map[trust.Digest]int64{}
		r.newest = map[string]trust.Digest{}
	}
	for name, list := range votes {
		r.votes[name] = append(r.votes[name], list...)
		c.Derivations = append(c.Derivations, name)
	}
	maps.Copy(r.allowed, lists)
	maps.Copy(r.newest, newest)
	r.at, r.edge, r.ordered, r.root = at, edge, ordered, last
	return c, nil
}

// Votes returns what builders said of a derivation, in the order of the ledger.
func (r *Record) Votes(derivation string) [][]byte { return slices.Clip(r.votes[derivation]) }

// View makes the view of a track with all evidence that the Record has. What it goes by must be what the ledger says is newest: the allowlist must have come
// into force by an entry, and neither the root nor the orders may be older ones than those that the ledger names last.
func (r *Record) View(ctx context.Context, z *store.Zone, root *trust.Root, track string) (*View, error) {
	v, err := Load(ctx, z, root, track)
	if err != nil {
		return nil, err
	}
	// Who signed the entries does not matter: they are in the tree that the ledger's key signed, and the station's key may have changed since.
	var rs trust.Refusals
	if r.root != root.Digest() {
		rs.Add(trust.Refuse("root-rollback", fmt.Sprintf("root version %d", root.Version), "the newest root by the ledger is %s, this is %s", r.root, root.Digest()))
	}
	switch {
	case v.Orders == nil && !r.ordered.IsZero():
		rs.Add(trust.Refuse("orders-rollback", "orders", "the newest orders by the ledger are %s; none lie here", r.ordered).WithHint("orders were taken away from the catalog: 'catalog rebuild' makes it again from what is published"))
	case v.Orders != nil && v.Orders.Digest() != r.ordered:
		rs.Add(trust.Refuse("orders-rollback", v.Orders.Subject(), "the newest orders by the ledger are %s, these are %s", r.ordered, v.Orders.Digest()))
	}
	switch newest := r.newest[track]; {
	case r.allowed[v.List.Digest()] == 0:
		rs.Add(trust.Refuse("not-in-ledger", v.List.Subject(), "the ledger has no entry that it came into force"))
	case newest != v.List.Digest():
		rs.Add(trust.Refuse("allowlist-rollback", v.List.Subject(), "the newest list of the track by the ledger is %s, this is %s", newest, v.List.Digest()))
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	for name := range r.votes {
		if err := v.Weigh(name, r.votes[name]); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// Weigh is Evidence where an agreement that does not come about is no error.
func (v *View) Weigh(name string, envelopes [][]byte) error {
	_, err := v.Evidence(name, envelopes)
	if _, refused := trust.AsRefusals(err); refused {
		return nil
	}
	return err
}

// kinds are the marks of the statements that a Record looks at, so that most of a ledger is not taken apart.
var kinds = [][]byte{statement.Mark(statement.KindRoot), statement.Mark(statement.KindOrdered), statement.Mark(statement.KindAllowed), statement.Mark(statement.KindBuilt)}

// push adds a leaf's hash at the right edge of a tree.
func push(edge []subtree, leaf tlog.Hash) []subtree {
	edge = append(edge, subtree{0, leaf})
	for n := len(edge); n > 1 && edge[n-1].height == edge[n-2].height; n = len(edge) {
		edge = append(edge[:n-2], subtree{edge[n-1].height + 1, tlog.NodeHash(edge[n-2].hash, edge[n-1].hash)})
	}
	return edge
}

// fold is the root of the tree with this right edge.
func fold(edge []subtree) tlog.Hash {
	if len(edge) == 0 {
		return ledger.EmptyRoot()
	}
	h := edge[len(edge)-1].hash
	for i := len(edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(edge[i].hash, h)
	}
	return h
}

// checkpoint opens the published checkpoint with a key that the root names for this ledger.
func checkpoint(z *store.Zone, root *trust.Root) (ledger.Checkpoint, error) {
	msg, err := ledger.ReadCheckpoint(z.LedgerFS())
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	keys := root.CheckpointKeys(z.Origin())
	if len(keys) == 0 {
		return ledger.Checkpoint{}, trust.Refuse("checkpoint-key", z.Origin(), "the root names no key for this ledger")
	}
	var errs []error
	for _, k := range keys {
		c, err := ledger.OpenCheckpoint(msg, z.Origin(), k)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return ledger.Checkpoint{}, errors.Join(errs...)
}

// ImportedHint names the setting in which the gate says at which index the ledger has the entry "imported" of a shipment, or below zero "submitted" of a submission. Whoever follows the hint looks at
// what lies there, and where it leads nowhere through the whole ledger.
func ImportedHint(shipment int64) string { return fmt.Sprintf("imported/%d", shipment) }
