package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

const (
	maxTracks    = 1000
	maxVersions  = 1_000_000 // of an allowlist
	maxManifests = 10_000
)

// audit is the history as far as it has been read.
type audit struct {
	*ledger
	pub     *os.Root
	chain   []*root   // all that are published, in order
	orders  []*orders // likewise
	roots   int       // how many of the chain have come into force
	ordered int       // of the orders
	latest  string    // time of the station's entries
	failed  error     // of a disk

	manifests  map[string]*manifest   // by digest
	imports    map[int64]*imported    // by number
	brought    map[string][]*imported // by item line, as far as there are manifests
	own        []*imported            // submissions: the first is own-1
	approvals  map[approval]approved  //
	allowed    map[string]*allowlist  // in force, by track
	versions   map[string]int64       // of each track, those included that could not be read
	built      map[string][]word      // by derivation
	signatures map[undersigned]bool   // of officers, as far as entries tell of them
	recalls    map[string]*recall     // all that orders name, by content and by name; and what follows from these, by name
	recorded   map[recalledItem]int   // entries that tell of a recall
	restored   map[tree]bool          // by entries
	cosigned   []cosigned             // by entries
	gone       map[string]replaced    // keys of the zone, by their raw keys
	come       map[string]bool        // those that took their places
	renewals   []renewal
}

// now is the root in force. Before the ledger records a root, it is the first.
func (a *audit) now() *root { return a.chain[max(a.roots, 1)-1] }

// standing is the orders in force; before there are any, it has no lines.
func (a *audit) standing() *orders {
	if a.ordered == 0 {
		return &orders{}
	}
	return a.orders[a.ordered-1]
}

func (r *root) has(role, person string) bool { return r.roles[role][person] }

// entry judges the next entry against those before it.
func (a *audit) entry(e *entry) {
	var wrong faults
	if e.err == nil {
		wrong = e.signedBy(a.now().byID[e.keyid], a.head.origin, a.now().has)
		if len(wrong) > 0 && e.kind == "root" && a.roots < len(a.chain) { // it may be signed by a key of the root that it brings
			next := a.chain[a.roots]
			if also := e.signedBy(next.byID[e.keyid], a.head.origin, next.has); len(also) == 0 {
				wrong = nil
			}
		}
		wrong = append(wrong, a.old(e)...)
	}
	if !a.believe(e, wrong) {
		return
	}
	a.clock(e)
	var err error
	switch e.kind {
	case "created":
		if e.index != 0 || e.subjects[0].name != a.head.origin {
			err = refuse("ledger-created", e.String(), "is not entry 0, or creates %.100q", e.subjects[0].name)
		}
	case "root":
		err = comes(e, "root", a.chain, &a.roots)
	case "ordered":
		if err = comes(e, "orders", a.orders, &a.ordered); err == nil {
			err = a.standing().under(a.now()).err()
		}
	case "undersigned":
		a.signatures[undersigned{e.keep("document"), e.number("version"), strings.Clone(e.subjects[0].digest), e.keep("person"), e.keep("signature")}] = true
	case "recalled":
		for _, s := range e.subjects {
			a.recorded[recalledItem{e.number("version"), strings.Clone(s.name), strings.Clone(s.digest)}]++
		}
	case "restored":
		err = a.restore(e)
	case "key-changed":
		err = a.keyChanged(e)
	case "imported":
		err = a.imported(e)
	case "submitted":
		err = a.submitted(e)
	case "rejected", "declined":
		err = a.rejected(e)
	case "approved":
		a.approvals[approval{e.keep("track"), e.number("version"), strings.Clone(e.subjects[0].digest), e.keep("person")}] = approved{e.keep("signature"), e.index}
	case "allowed":
		err = a.allow(e)
	case "signed":
		err = a.signed(e)
	case "witnessed":
		err = a.witnessed(e)
	case "built":
		a.say(e)
	case "agreed":
		err = a.agreed(e)
	}
	a.failed = cmp.Or(a.failed, a.rep.judge(err))
}

// clock tells of clocks that went back. Persons write their statements elsewhere, and earlier than they are recorded.
func (a *audit) clock(e *entry) {
	if e.of.signer != station {
		return
	}
	if time := e.text("time"); time < a.latest {
		a.rep.notice("clock", e.String(), "its time is %s, that of an entry before it %s", time, a.latest)
	} else {
		a.latest = time
	}
	if clock := e.text("clock"); clock != "" {
		a.rep.notice("clock", e.String(), "the station's clock showed %.30q when it was %s already", clock, a.latest)
	}
}

// comes brings the next root or orders into force, of which so many are in force already, or tells why an entry does not.
func comes[D interface{ head() *header }](e *entry, area string, published []D, inForce *int) error {
	var h *header
	if *inForce < len(published) {
		h = published[*inForce].head()
	}
	switch version := e.number("version"); {
	case version != int64(*inForce+1):
		return refuse(area+"-version", e.String(), "records number %d after number %d", version, *inForce)
	case h == nil:
		return refuse(area+"-missing", e.String(), "number %d is not published, or was refused", version)
	case e.subjects[0].digest != h.digest:
		return refuse(area+"-equivocation", e.String(), "another text is published as number %d", version)
	}
	*inForce++
	return nil
}

// undersigned is an officer's signature under a document, as an entry tells of it.
type undersigned struct {
	document     string
	version      int64
	digest       string
	person, line string
}

// officers compares the signatures under the documents in force with the entries that tell of them.
func (a *audit) officers() {
	digests := map[string]string{} // in force
	compare := func(h *header, n *note, keys []*key) {
		digests[h.subject] = h.digest
		for _, s := range n.sigs {
			at := slices.IndexFunc(keys, func(k *key) bool { return k.name == s.name && k.hash == s.hash })
			if at < 0 {
				continue
			}
			u := undersigned{h.area, h.version, h.digest, keys[at].owner, s.line}
			if !a.signatures[u] {
				a.rep.refuse("undersigned-missing", h.subject, "no undersigned entry tells of the signature by %s", u.person)
			}
			delete(a.signatures, u)
		}
	}
	for i, r := range a.chain[:a.roots] {
		keys := r.signers("root", r.date)
		if i > 0 {
			keys = append(keys, a.chain[i-1].signers("root", r.date)...)
		}
		compare(&r.header, r.note, keys)
	}
	for _, o := range a.orders[:a.ordered] {
		var keys []*key
		for _, r := range a.chain {
			keys = append(keys, r.signers("order", o.date)...)
		}
		compare(&o.header, o.note, keys)
	}
	var wrong faults
	for u := range a.signatures {
		subject := fmt.Sprintf("%s %d", u.document, u.version)
		if digests[subject] == u.digest {
			wrong.add("undersigned-signature", subject, "an undersigned entry has a signature by %s that does not count, or does not stand under it: %.200q", u.person, u.line)
		} else {
			a.rep.notice("undersigned", subject, "%s signed a text of this number that did not come into force, its digest is %s", u.person, u.digest)
		}
	}
	_ = a.rep.judge(wrong.sorted())
}

// restore takes an entry by which the ledger was put back from a backup.
func (a *audit) restore(e *entry) error {
	for _, o := range a.standing().of["restored"] {
		if o.tree == e.tree() {
			a.restored[o.tree] = true
			return nil
		}
	}
	return refuse("restored-unordered", e.String(), "no orders in force tell of a tree of %d entries that was put back", e.number("size"))
}

// witnessed takes what a witness cosigned. Whether it is a tree of this ledger is seen when all is read.
func (a *audit) witnessed(e *entry) error {
	t := e.tree()
	by, wrong := e.signature("checkpoint", t.text(a.head.origin), a.now().signers("witness", ""))
	if len(wrong) == 0 && (len(by) == 0 || by[0].key.owner != e.text("person")) {
		wrong.add("checkpoint-unsigned", e.String(), "is not cosigned by %s, as a witness of root %d", e.text("person"), a.now().version)
	}
	if len(wrong) == 0 {
		a.cosigned = append(a.cosigned, cosigned{t, by[0].key.owner})
	}
	return wrong.err()
}

// trees compares those that were put back, and those that witnesses cosigned, with the present one, once it was read.
func (a *audit) trees(found []cosigned) error {
	for t := range a.restored {
		if in, err := a.contains(t); err != nil {
			return a.rep.judge(err)
		} else if !in {
			a.rep.refuse("restored-fork", "ledger", "the tree of %d entries that was put back is not in the present one", t.size)
		}
	}
	for _, c := range append(found, a.cosigned...) {
		in, err := a.contains(c.tree)
		if err != nil {
			return a.rep.judge(err)
		}
		gone := slices.ContainsFunc(slices.Collect(maps.Keys(a.restored)), func(t tree) bool { return t.size < c.size })
		switch {
		case in:
		case gone:
			a.rep.notice("restored", c.witness, "cosigned %d entries, of which some were given up when the ledger was put back", c.size)
		case c.size > a.head.size:
			a.rep.refuse("witness-rollback", c.witness, "cosigned %d entries; now there are %d", c.size, a.head.size)
		default:
			a.rep.refuse("witness-fork", c.witness, "cosigned tree %s; the first %d entries now make another", c.root, c.size)
		}
	}
	return nil
}

// recallsRecorded compares the recall lines that each version of the orders added with the entries that tell of them.
func (a *audit) recallsRecorded() {
	for i, o := range a.orders[:a.ordered] {
		for _, r := range o.of["recall"] {
			if i > 0 && a.orders[i-1].has[r.line] {
				continue
			}
			what := recalledItem{o.version, r.name, r.sha256}
			if n := a.recorded[what]; n != 1 {
				a.rep.refuse("recalled-missing", o.subject, "%d recalled entries tell of %s", n, what.name)
			}
			delete(a.recorded, what)
		}
	}
	var wrong faults
	for what := range a.recorded {
		wrong.add("recalled-unordered", fmt.Sprintf("orders %d", what.version), "do not newly recall %.300q, as a recalled entry says", what.name)
	}
	_ = a.rep.judge(wrong.sorted())
}

// tell lists what people should look at in every report: the orders in force, recalls apart, and what of the recalled went out before.
func (a *audit) tell() {
	if a.ordered > 0 {
		a.rep.fact("orders", a.standing().version)
		a.rep.fact("recalls", len(a.standing().of["recall"]))
	}
	for _, o := range a.standing().lines {
		switch o.word {
		case "recall":
		case "break-glass":
			a.rep.notice(o.word, o.track+" "+o.name, "the track has it without its reviewers until %s: %s", o.until, o.reason)
		default:
			a.rep.notice(o.word, strings.TrimPrefix(o.about, o.word+" "), "%s: %s", o.date, o.reason)
		}
	}
	for _, list := range slices.SortedFunc(maps.Values(a.allowed), func(x, y *allowlist) int { return strings.Compare(x.track, y.track) }) {
		a.rep.fact("allowlist "+list.track, fmt.Sprintf("version %d, %d items, %s", list.version, len(list.list), list.digest))
		for _, it := range list.list {
			if r := a.recalled(it.name, it.sha256); r != nil && r.version <= int64(a.ordered) {
				a.rep.notice("recalled", it.name, "by orders %d, and still stands in the list of %s: %s", r.version, list.track, r.reason)
			}
		}
	}
}

// openManifests reads manifest files. Their digests must be those of imported entries to count, so no key is asked for.
func openManifests(place string, rep *report) (map[string]*manifest, error) {
	found := map[string]*manifest{}
	if place == "" {
		return found, nil
	}
	dir, err := os.OpenRoot(place)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	files, err := listDir(dir, ".", maxManifests, "manifest")
	for _, f := range files {
		var n *note
		var m *manifest
		data, err := readFile(dir, f.Name(), maxListText, "manifest")
		if err == nil {
			n, err = parseNote(data, "manifest", quote(f.Name()))
		}
		if err == nil {
			m, err = parseManifest(n.text, quote(f.Name()))
		}
		if err == nil {
			found[digestOf(data)] = m
		} else if err = rep.judge(err); err != nil {
			return nil, err
		}
	}
	return found, rep.judge(err)
}

// verifyEnclave is the command for the whole public directory of a zone.
func verifyEnclave(place string, o options, rep *report) error {
	var require []string
	if o.require != "" {
		require = strings.Split(o.require, ",")
	}
	for _, k := range require {
		if kinds[k] == nil {
			return usageError(fmt.Sprintf("--require %q is no kind of statement", k))
		}
	}
	pub, err := os.OpenRoot(place)
	if err != nil {
		return err
	}
	defer pub.Close()
	chain, err := openChain(pub, "root", o.pin, rep)
	if err != nil || len(chain) == 0 {
		return err
	}
	manifests, err := openManifests(o.manifests, rep)
	if err != nil {
		return err
	}
	ordered, err := openOrders(pub, rep)
	if err != nil {
		return err
	}
	newest := chain[len(chain)-1]
	now, err := openCheckpoint(pub, "ledger/checkpoint", newest.signers("checkpoint", ""), newest.signers("witness", ""))
	if err != nil {
		return rep.judge(err)
	}
	a := &audit{
		ledger: &ledger{dir: pub, under: "ledger", head: now, rep: rep, keys: map[string][]*key{}, persons: o.signatures == "persons"},
		pub:    pub, chain: chain, orders: ordered, manifests: manifests, imports: map[int64]*imported{}, brought: map[string][]*imported{},
		approvals: map[approval]approved{}, allowed: map[string]*allowlist{}, versions: map[string]int64{}, built: map[string][]word{},
		signatures: map[undersigned]bool{}, recalls: map[string]*recall{}, recorded: map[recalledItem]int{}, restored: map[tree]bool{},
		gone: map[string]replaced{}, come: map[string]bool{},
	}
	a.each = a.entry
	var checkpoints []*key // what a witness keeps may be signed by a key of an older root
	for _, r := range chain {
		for _, k := range r.keys {
			same := func(other *key) bool { return other.raw == k.raw }
			if k.context == "checkpoint" && !slices.ContainsFunc(checkpoints, same) {
				checkpoints = append(checkpoints, k)
			} else if k.context == "statement" && !slices.ContainsFunc(a.keys[k.id], same) {
				a.keys[k.id] = append(a.keys[k.id], k)
			}
		}
	}
	witnesses, signed, err := cosignatures(pub, now, checkpoints, newest.signers("witness", ""), o.witnesses, rep)
	if err != nil {
		return err
	}
	a.recall(ordered)
	if err := cmp.Or(a.walk(), a.failed); err != nil {
		return err
	}
	a.facts()
	for _, k := range require {
		if a.count[k] == 0 {
			rep.refuse("statement-missing", k, "no statement of this kind is in the ledger")
		}
	}
	a.tell()
	if !a.whole {
		return nil
	}
	if err := a.trees(witnesses); err != nil {
		return err
	}
	if err := a.renewed(signed); err != nil {
		return err
	}
	a.officers()
	a.recallsRecorded()
	return a.unrecorded()
}

// unrecorded refuses what is published and was not put in force by an entry.
func (a *audit) unrecorded() error {
	for _, r := range a.chain[a.roots:] {
		a.rep.refuse("root-unrecorded", r.subject, "is published, and no entry records it")
	}
	for _, o := range a.orders[a.ordered:] {
		a.rep.refuse("orders-unrecorded", o.subject, "are published, and no entry records them")
	}
	tracks, err := listDir(a.pub, "allowlist", maxTracks, "allowlist")
	for _, t := range tracks {
		files, err := listDir(a.pub, "allowlist/"+t.Name(), maxVersions, "allowlist")
		for _, f := range files {
			if !is("number", f.Name()) || number(f.Name()) > a.versions[t.Name()] {
				err = refuse("allowlist-unrecorded", quote(t.Name()+"/"+f.Name()), "is published, and no entry allows it")
			}
		}
		if err = a.rep.judge(err); err != nil {
			return err
		}
	}
	return a.rep.judge(err)
}
