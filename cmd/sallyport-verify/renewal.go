package main

import "slices"

// replaced is a key that the zone has given up. As a statement key it signs nothing behind this entry; as a checkpoint key, alone, no tree that is larger than
// the one that ends with it.
type replaced struct{ entry int64 }

// renewal is a change of the zone's keys, as an entry tells of it.
type renewal struct {
	subject string
	tree    tree // the last one before it
}

// keyChanged judges an entry by which the zone goes on with another key.
func (a *audit) keyChanged(e *entry) error {
	var wrong faults
	context := e.text("context")
	named := func(r *root, vkey string) *key {
		said, ok := parseVKey(vkey)
		k := r.byID[said.id]
		if !ok || k == nil || k.raw != said.raw || k.context != context || k.owner != station || context != "statement" && k.name != a.head.origin {
			return nil
		}
		return k
	}
	to := named(a.now(), e.text("to"))
	if e.number("version") != a.now().version || to == nil || !to.counts(e.text("time")) {
		wrong.add("key-unnamed", e.String(), "root %d, which is in force, does not name %.100q as the zone's %s key, or the entry tells of root %d", a.now().version, e.text("to"), context, e.number("version"))
	}
	if named(a.now(), e.text("from")) != nil {
		wrong.add("key-replaced", e.String(), "root %d names %.100q still: who has stolen it would be believed", a.now().version, e.text("from"))
	}
	var from *key
	for _, r := range a.chain[:max(a.roots, 1)-1] {
		if k := named(r, e.text("from")); k != nil {
			from = k
		}
	}
	if from == nil {
		wrong.add("key-unnamed", e.String(), "no root before named %.100q as the zone's %s key", e.text("from"), context)
	}
	for _, k := range []*key{from, to} {
		if k == nil {
			continue
		}
		if r, gone := a.gone[k.raw]; gone {
			wrong.add("key-replaced", e.String(), "%s was given up by entry %d", k.id, r.entry)
		}
	}
	if context == "statement" && to != nil && e.key != nil && e.key.raw != to.raw {
		wrong.add("key-signature", e.String(), "is signed by %s, not by the key that comes", e.keyid)
	}
	t := e.tree()
	// The ledger's key of that time says where the old key ends.
	var logs []*key
	for _, r := range a.chain[:max(a.roots, 1)] {
		for _, k := range r.signers("checkpoint", "") {
			if _, gone := a.gone[k.raw]; k.name == a.head.origin && !gone && (context != "checkpoint" || from != nil && k.raw == from.raw) {
				logs = append(logs, k)
			}
		}
	}
	by, bad := e.signature("checkpoint", t.text(a.head.origin), logs)
	if wrong = append(wrong, bad...); len(by) == 0 && len(bad) == 0 || t.size > e.index || e.subjects[0].name != a.head.origin {
		wrong.add("key-signature", e.String(), "the tree of %d entries before it is not signed by the ledger's key of then", t.size)
	}
	if len(wrong) > 0 {
		return wrong.err()
	}
	a.gone[from.raw] = replaced{e.index}
	a.come[to.raw] = true
	a.renewals = append(a.renewals, renewal{e.String(), t})
	a.rep.notice("key-changed", e.String(), "by root %d the zone's %s key is %s, instead of %s", a.now().version, context, to.id, from.id)
	return nil
}

// old refuses an entry of the station that is signed by a key which the zone has given up.
func (a *audit) old(e *entry) (wrong faults) {
	if e.key == nil || e.of.signer != station {
		return nil
	}
	if r, gone := a.gone[e.key.raw]; gone {
		wrong.add("key-replaced", "", "signed by %s, which was given up by entry %d", e.key.id, r.entry)
	}
	return wrong
}

// renewed looks, once all is read, at who signed the checkpoints: none may be signed by a key that had been given up before, and the present one not by a key of which no entry
// tells that it came.
func (a *audit) renewed(found []checkpoint) error {
	for _, r := range a.renewals {
		if in, err := a.contains(r.tree); err != nil {
			return a.rep.judge(err)
		} else if !in {
			a.rep.refuse("key-signature", r.subject, "the tree of %d entries of which it tells is not in the present one", r.tree.size)
		}
	}
	for _, f := range found {
		var wrong faults
		for _, s := range f.by {
			if s.name != a.head.origin {
				continue
			}
			r, gone := a.gone[s.key.raw]
			if !gone || f.size <= r.entry+1 {
				wrong = nil
				break
			}
			wrong.add("key-replaced", f.name, "%d entries, signed by %s, which was given up by entry %d", f.size, s.key.id, r.entry)
		}
		_ = a.rep.judge(wrong.err())
	}
	first := slices.IndexFunc(a.chain, func(r *root) bool {
		return slices.ContainsFunc(r.keys, func(k *key) bool { return k.name == a.head.origin })
	})
	known := func(s signature) bool {
		return s.name == a.head.origin && (a.come[s.key.raw] || slices.ContainsFunc(a.chain[first].keys, func(k *key) bool { return k.raw == s.key.raw }))
	}
	if first >= 0 && !slices.ContainsFunc(a.head.by, known) {
		a.rep.refuse("key-unrecorded", "ledger/checkpoint", "is signed by a key of which no entry tells that it took the place of the ledger's first one")
	}
	return nil
}
