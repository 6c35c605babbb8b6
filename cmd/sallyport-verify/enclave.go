package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	maxTracks    = 1000
	maxManifests = 10_000
	maxWords     = 1000 // different built statements about one derivation
)

// checkEntry judges what can be judged of an entry without those before it.
func checkEntry(leaf []byte, keys map[string][]*key) (e entry) {
	var err error
	if e.st, err = parseEnvelope(leaf); err != nil {
		e.st = nil
		e.fault = refuse("statement-not-canonical", "", "%v", err)
	} else if err := e.st.fits(); err != nil {
		e.fault = refuse("statement-predicate", "", "%v", err)
	} else if known := keys[e.st.keyid]; len(known) == 0 {
		e.fault = refuse("statement-key", "", "key %.100q is unknown", e.st.keyid)
	} else {
		message := e.st.message()
		for _, k := range known { // more than one only if two keys have one number
			if k.vkey.verify(message, e.st.sig) {
				e.key = k
				return e
			}
		}
		e.fault = refuse("statement-signature", "", "the signature of %.100q does not verify", e.st.keyid)
	}
	return e
}

func entryName(index int64, st *statement) string {
	if st == nil || kinds[st.kind].signer == "" {
		return fmt.Sprintf("entry %d", index)
	}
	return fmt.Sprintf("entry %d (%s)", index, st.kind)
}

// count counts a statement and tells whether it can be believed to say what it says for this ledger.
func (r *report) count(index int64, e entry, origin string) bool {
	name := entryName(index, e.st)
	if e.fault != nil {
		e.fault.Subject = name
		r.add(e.fault)
		return false
	}
	for _, extra := range e.st.extra() {
		about := e.st.kind + " " + strconv.Quote(extra)
		if !slices.ContainsFunc(r.Notes, func(f fault) bool { return f.Subject == about }) {
			r.note("statement-extra", about, "the page lists no such member; first seen in %s", name)
		}
	}
	r.Statements[e.st.kind]++
	if zone := e.st.predicate.get("zone"); zone.form != 's' || zone.str != origin {
		r.refuse("statement-zone", name, "made for %.100q", zone.str)
		return false
	}
	return true
}

// audit is the history as far as it has been read.
type audit struct {
	rep       *report
	pub       *os.Root
	origin    string
	chain     []*root
	recorded  int // root documents that the ledger has so far
	manifests map[string]*manifest
	imports   map[int64]*imported          // by number
	approvals map[string]map[string]string // of TRACK VERSION DIGEST: person, signature line
	allowed   map[string]*allowlist        // the last of each track
	versions  map[string]int64             // also of those that could not be read
	persons   map[string][]string
	built     map[string][]built // by derivation
	err       error              // of a disk
	blind     int64              // versions that may add what their approver imported; nothing shows it
}

type imported struct {
	manifest, person string
	rejected         bool
}

// built is one builder's word. What it says of the outputs is kept as a digest.
type built struct {
	key        *key
	derivation string // sha256 of the .drv file
	outputs    [32]byte
}

// now is the root in force. Before the ledger records a root, it is the first.
func (a *audit) now() *root { return a.chain[max(a.recorded, 1)-1] }

// may tells whether a key may sign for a role by a root.
func (r *root) may(k *key, role string) bool {
	own := r.byPublic[k.public]
	if own == nil || own.context != "statement" || own.owner != k.owner {
		return false
	}
	return r.roles[role][k.owner] || role == station && k.owner == station
}

// each judges the next entry against those before it.
func (a *audit) each(index int64, e entry) {
	if !a.rep.count(index, e, a.origin) {
		return
	}
	st, name, before := e.st, entryName(index, e.st), a.now()
	if st.kind == "root" {
		a.root(name, st)
	}
	// The entry that brings a root may be signed by a key of either.
	if role := kinds[st.kind].signer; !before.may(e.key, role) && !a.now().may(e.key, role) {
		a.rep.refuse("statement-role", name, "signed by %s, who does not have role %s with this key in root %d", e.key.owner, role, a.now().version)
		return
	}
	if p := st.predicate.get("person"); kinds[st.kind].signer != station && p.str != e.key.owner {
		a.rep.refuse("statement-person", name, "says %s, signed by %s", p.str, e.key.owner)
		return
	}
	switch st.kind {
	case "root", "imported", "approved", "allowed", "rejected":
		if len(st.subjects) != 1 {
			a.rep.refuse("statement-predicate", name, "%d subjects, not one", len(st.subjects))
			return
		}
	}
	switch shipment := st.predicate.get("shipment").num; st.kind {
	case "created":
		made := "sallyport/" + st.predicate.get("enclave").str + "/" + st.predicate.get("kind").str
		if s := st.subjects[0].name; index != 0 || s != a.origin || made != a.origin {
			a.rep.refuse("statement-predicate", name, "creates %.100q, %.100q, which is not entry 0 of %s", s, made, a.origin)
		}
	case "imported":
		a.imported(name, shipment, &imported{st.subjects[0].digest, e.key.owner, false})
	case "rejected":
		if err := a.rejection(st); err != nil {
			a.rep.refuse("rejection-signature", name, "%v", err)
		} else if m := a.imports[shipment]; m != nil && m.manifest == st.subjects[0].digest && m.person == st.predicate.get("person").str {
			a.rep.refuse("rejection-own-import", name, "%s imported the shipment", m.person)
		} else if m != nil && m.manifest == st.subjects[0].digest {
			m.rejected = true
		}
	case "approved":
		about := listKey(st)
		if a.approvals[about] == nil {
			a.approvals[about] = map[string]string{}
		}
		a.approvals[about][st.predicate.get("person").str] = st.predicate.get("signature").str
	case "allowed":
		if err := a.allow(name, st); err != nil {
			a.rep.add(err)
		}
	case "built":
		a.builds(name, st, e.key)
	case "agreed":
		if err := a.agreed(name, st); err != nil {
			a.rep.add(err)
		} else {
			a.rep.Derivations++
		}
	case "disagreed":
		a.disagreed(name, st)
	}
}

func (a *audit) root(name string, st *statement) {
	version := st.predicate.get("version").num
	switch {
	case version > int64(len(a.chain)):
		a.rep.refuse("root-missing", name, "root %d is not published, or was refused", version)
	case version != int64(a.recorded+1):
		a.rep.refuse("root-order", name, "records root %d after root %d", version, a.recorded)
	case st.subjects[0].digest != a.chain[version-1].digest:
		a.rep.refuse("root-equivocation", name, "another root %d is published", version)
	default:
		a.recorded++
	}
}

func (a *audit) imported(name string, shipment int64, m *imported) {
	if former := a.imports[shipment]; former != nil && former.manifest == m.manifest {
		a.rep.refuse("shipment-replayed", name, "shipment %d was imported before", shipment)
		return
	} else if former != nil {
		a.rep.refuse("shipment-equivocation", name, "shipment %d was imported before, with another manifest", shipment)
		return
	}
	if known := a.manifests[m.manifest]; known != nil && known.number != shipment {
		a.rep.refuse("shipment-number", name, "the manifest is that of shipment %d", known.number)
	}
	a.imports[shipment] = m
}

// rejection checks the reviewer's own signature under what a rejected statement says.
func (a *audit) rejection(st *statement) error {
	p := &st.predicate
	text := fmt.Sprintf("sallyport rejection v1\nenclave %s\nshipment %d\nmanifest %s\ndate %s\nreason %s\n",
		a.now().enclave, p.get("shipment").num, st.subjects[0].digest, p.get("date").str, p.get("reason").str)
	_, signers, err := openNote([]byte(text+"\n"+p.get("signature").str+"\n"), a.now().signers("allowlist"))
	if err != nil {
		return err
	}
	if len(signers) != 1 || a.now().byPublic[signers[0].key.public].owner != p.get("person").str {
		return fmt.Errorf("no signature of reviewer %.100q stands under it", p.get("person").str)
	}
	return nil
}

// listKey tells which allowlist an approved or allowed statement is about.
func listKey(st *statement) string {
	return fmt.Sprintf("%s %d %s", st.predicate.get("track").str, st.predicate.get("version").num, st.subjects[0].digest)
}

// allow judges an allowlist as it comes in force: its place in the chain, its bytes, its signatures, its approvals.
func (a *audit) allow(name string, st *statement) *fault {
	track, version, digest := st.predicate.get("track").str, st.predicate.get("version").num, st.subjects[0].digest
	about, last, before := fmt.Sprintf("%s %d", track, version), a.versions[track], a.allowed[track]
	switch {
	case a.now().thresholds["allowlist/"+track] == 0:
		return refuse("allowlist-track", name, "root %d has no threshold for track %s", a.now().version, track)
	case version == last && (before == nil || before.digest != digest):
		return refuse("allowlist-equivocation", name, "allowlist %s was allowed before, with another digest", about)
	case version <= last:
		return refuse("allowlist-rollback", name, "allowlist %s after version %d", about, last)
	case version != last+1:
		a.rep.refuse("allowlist-chain", name, "allowlist %s after version %d", about, last)
	}
	a.versions[track], a.persons[track] = version, nil
	data, err := readFile(a.pub, fmt.Sprintf("allowlist/%s/%d", track, version), maxListText+maxSigLines, "allowlist")
	if err != nil {
		var f *fault
		if !errors.As(err, &f) {
			a.err = err
		}
		return f
	}
	text, err := splitNote(data)
	var list *allowlist
	if err == nil {
		list, err = parseAllowlist(text)
	}
	if err != nil {
		return formFault(err, "allowlist", about)
	}
	a.allowed[track] = list
	switch {
	case list.digest != digest:
		return refuse("allowlist-equivocation", about, "published with digest %s; %s says %s", list.digest, name, digest)
	case list.enclave != a.now().enclave || list.track != track || list.version != version:
		return refuse("allowlist-form", about, "is allowlist %s %d of %s", list.track, list.version, list.enclave)
	case list.root > a.now().version:
		return refuse("allowlist-root", about, "signed by root %d, before that was in force", list.root)
	case before != nil && list.previous != before.digest:
		return refuse("allowlist-chain", about, "previous is not the digest of version %d", before.version)
	case before != nil && list.date < before.date:
		return refuse("allowlist-chain", about, "its date is before that of version %d", before.version)
	}
	by := a.chain[list.root-1]
	_, signers, err := by.open(data, "allowlist", "allowlist/"+track, "allowlist", about)
	if err == nil && by != a.now() {
		_, _, err = a.now().open(data, "allowlist", "allowlist/"+track, "allowlist", about)
	}
	if err != nil {
		return err.(*fault)
	}
	approved := a.approvals[listKey(st)]
	delete(a.approvals, listKey(st))
	for _, p := range st.predicate.get("persons").list {
		signed := slices.ContainsFunc(signers, func(s signer) bool { return by.byPublic[s.key.public].owner == p.str && s.line == approved[p.str] })
		switch {
		case !p.is('n') || slices.Contains(a.persons[track], p.str):
			a.rep.refuse("statement-predicate", name, "persons are not names, each once")
		case approved[p.str] == "":
			a.rep.refuse("approval-missing", name, "no approved entry before it by %s", p.str)
		case !signed:
			a.rep.refuse("approval-signature", name, "the signature in the approved entry of %s is none of that person under the allowlist", p.str)
		default:
			a.persons[track] = append(a.persons[track], p.str)
		}
	}
	if need := by.thresholds["allowlist/"+track]; int64(len(a.persons[track])) < need {
		a.rep.refuse("approval-missing", name, "%d of %d approvals by distinct persons", len(a.persons[track]), need)
	}
	a.twoDoors(about, before, list, a.persons[track])
	return nil
}

// twoDoors looks for an approver who imported what the version adds. An added item came with one of the shipments imported so
// far and not rejected: one whose manifest has it, or one whose manifest was not given. If all of these were imported by one
// person, that person must not be an approver. With few importers this shows even without manifests.
func (a *audit) twoDoors(about string, before, list *allowlist, approvers []string) {
	dark := map[string]bool{} // importers of shipments whose manifest was not given
	var known []*imported
	for _, m := range a.imports {
		if a.manifests[m.manifest] != nil && !m.rejected {
			known = append(known, m)
		} else if !m.rejected {
			dark[m.person] = true
		}
	}
	var own, unseen int
	var first string
	for i := range list.starts {
		digest := list.sha256(i)
		if before != nil && before.has(digest) {
			continue
		}
		if len(dark) > 1 {
			unseen++
			continue
		}
		by := maps.Clone(dark)
		for _, m := range known {
			if len(by) < 2 && a.manifests[m.manifest].has(digest) {
				by[m.person] = true
			}
		}
		if len(by) > 1 && len(dark) > 0 {
			unseen++
		}
		for person := range by {
			if len(by) == 1 && slices.Contains(approvers, person) {
				if own++; own == 1 {
					first = fmt.Sprintf("%s, imported by %s", list.item(i).name, person)
				}
			}
		}
	}
	if own > 0 {
		a.rep.refuse("approval-own-import", about, "an approver is the importer of %d of the items it adds; first %s", own, first)
	}
	if unseen > 0 {
		a.blind++
	}
}

// builds takes a builder's word down.
func (a *audit) builds(name string, st *statement, k *key) {
	outputs := st.predicate.get("outputs")
	paths := map[string]bool{}
	for i := range outputs.list {
		o := &outputs.list[i]
		refs := o.get("references")
		if !o.get("path").is('s') || !o.get("size").is('i') || !refs.is('a') || slices.ContainsFunc(refs.list, func(r value) bool { return r.form != 's' }) {
			a.rep.refuse("statement-predicate", name, "output %.50q lacks path, size or references", outputs.names[i])
			return
		}
		paths[o.get("path").str] = true
	}
	if len(paths) != len(st.subjects) || len(paths) != len(outputs.list) || slices.ContainsFunc(st.subjects, func(s subject) bool { return !paths[s.name] }) {
		a.rep.refuse("statement-predicate", name, "its subjects are not its outputs")
		return
	}
	// Copies, because a string out of a statement would keep the whole of it.
	drv := strings.Clone(st.predicate.get("derivation").str)
	word := built{k, strings.Clone(st.predicate.get("derivation-sha256").str), outputsDigest(st.subjects)}
	if words := a.built[drv]; slices.Contains(words, word) {
		return
	} else if len(words) >= maxWords {
		a.rep.refuse("quorum-dissent", name, "more than %d different statements about %.300q", maxWords, drv)
		return
	}
	a.built[drv] = append(a.built[drv], word)
}

func outputsDigest(outputs []subject) [32]byte {
	h := sha256.New()
	for _, o := range outputs {
		fmt.Fprintf(h, "%d %s %s\n", len(o.name), o.name, o.digest)
	}
	return [32]byte(h.Sum(nil))
}

// allows tells whether a track in force has a derivation: these bytes under this store path.
func (a *audit) allows(digest, drv string) bool {
	base, ok := strings.CutPrefix(drv, "/gnu/store/")
	for _, list := range a.allowed {
		for i, found := list.find(digest); ok && found && i < len(list.starts) && list.sha256(i) == digest; i++ {
			if it := list.item(i); it.kind == "derivation" && it.name == base {
				return true
			}
		}
	}
	return false
}

// agreed tells whether a quorum follows from the built entries so far.
func (a *audit) agreed(name string, st *statement) *fault {
	drv, outputs := st.predicate.get("derivation").str, outputsDigest(st.subjects)
	words := map[string]*key{}
	for _, b := range a.built[drv] {
		if !a.allows(b.derivation, drv) {
			continue
		}
		if words[b.key.vkey.id()] = b.key; b.outputs != outputs {
			return refuse("quorum-dissent", name, "%s built %.300q to something else", b.key.owner, drv)
		}
	}
	if len(words) == 0 {
		return refuse("not-allowed", name, "no built entry is about %.300q as a track allows it", drv)
	}
	who := map[string]bool{}
	for _, v := range st.predicate.get("builders").list {
		k := words[v.str]
		if k == nil || !a.now().may(k, "builder") {
			return refuse("quorum-builders", name, "no built entry by %.100q, as a builder of root %d", v.str, a.now().version)
		}
		who[k.owner] = true // distinct persons have distinct keys
	}
	if need := a.now().quorum; int64(len(who)) < need {
		return refuse("quorum-waiting", name, "%d of %d builders", len(who), need)
	}
	return nil
}

// disagreed checks that the builders said what the station says they did.
func (a *audit) disagreed(name string, st *statement) {
	builders := st.predicate.get("builders")
	for i, keyid := range builders.names {
		var outputs []subject
		for _, v := range builders.list[i].list {
			path, digest, _ := strings.Cut(v.str, " ")
			outputs = append(outputs, subject{path, digest})
		}
		slices.SortFunc(outputs, func(x, y subject) int { return cmp.Compare(x.name, y.name) })
		said := outputsDigest(outputs)
		if !slices.ContainsFunc(a.built[st.subjects[0].name], func(b built) bool { return b.outputs == said && b.key.vkey.id() == keyid }) {
			a.rep.refuse("quorum-builders", name, "no built entry by %.100q says this", keyid)
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
		data, err := readFile(dir, f.Name(), maxListText+maxSigLines, "manifest")
		if err == nil {
			var text string
			var m *manifest
			if text, err = splitNote(data); err == nil {
				m, err = parseManifest(text)
			}
			if err != nil {
				err = formFault(err, "manifest", strconv.Quote(f.Name()))
			} else {
				found[digestOf(data)] = m
			}
		}
		if err = rep.judge(err); err != nil {
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
		if kinds[k].signer == "" {
			return usageError(fmt.Sprintf("--require %q is no kind of statement", k))
		}
	}
	pub, err := os.OpenRoot(place)
	if err != nil {
		return err
	}
	defer pub.Close()
	chain, err := openChain(pub, "root", o.root, rep)
	if err != nil || len(chain) == 0 {
		return err
	}
	manifests, err := openManifests(o.manifests, rep)
	if err != nil {
		return err
	}
	newest := chain[len(chain)-1]
	now, on, err := openCheckpoint(pub, "ledger/checkpoint", newest.signers("checkpoint"), newest.signers("witness"), rep)
	if err != nil {
		return rep.judge(err)
	}
	if enclave, _ := parseOrigin(now.origin); enclave != newest.enclave {
		rep.refuse("checkpoint-origin", "ledger/checkpoint", "is of %s, the root of enclave %s", now.origin, newest.enclave)
	}
	// An older checkpoint that a witness keeps may be signed by a key that an older root has.
	var former []*vkey
	statements := map[string][]*key{}
	for _, r := range chain {
		for _, k := range r.keys {
			switch {
			case k.context == "checkpoint" && !slices.ContainsFunc(former, func(v *vkey) bool { return v.id() == k.vkey.id() }):
				former = append(former, k.vkey)
			case k.context == "statement" && !slices.ContainsFunc(statements[k.vkey.id()], func(s *key) bool { return s.public == k.public }):
				statements[k.vkey.id()] = append(statements[k.vkey.id()], k)
			}
		}
	}
	rep.describe(now)
	marks, err := cosignatures(pub, now, on, former, newest.signers("witness"), o.witnesses, rep)
	if err = rep.judge(err); err != nil {
		return err
	}
	if len(rep.Witnesses) < o.witnessed {
		rep.refuse("witness-missing", "ledger", "%d witnesses cosigned, %d are asked for", len(rep.Witnesses), o.witnessed)
	}
	a := &audit{
		rep: rep, pub: pub, origin: now.origin, chain: chain, manifests: manifests, imports: map[int64]*imported{}, approvals: map[string]map[string]string{},
		allowed: map[string]*allowlist{}, versions: map[string]int64{}, persons: map[string][]string{}, built: map[string][]built{},
	}
	l := &ledger{dir: pub, under: "ledger", size: now.size, rep: rep, each: a.each}
	l.check = func(leaf []byte) entry { return checkEntry(leaf, statements) }
	if err := cmp.Or(l.walk(marks), a.err); err != nil {
		return err
	}
	return a.finish(require, !l.holes)
}

// finish tells what is published but not recorded, if all entries were there to be read, and what the auditor asked for.
func (a *audit) finish(require []string, whole bool) error {
	for _, r := range a.chain[a.recorded:] {
		if !whole {
			break
		}
		a.rep.refuse("root-unrecorded", fmt.Sprintf("root %d", r.version), "is published, and no entry records it")
	}
	tracks, err := listDir(a.pub, "allowlist", maxTracks, "allowlist")
	if err = a.rep.judge(err); err != nil {
		return err
	}
	for _, t := range tracks {
		files, err := listDir(a.pub, "allowlist/"+t.Name(), maxRootLines, "allowlist")
		if err = a.rep.judge(err); err != nil {
			return err
		}
		for _, f := range files {
			if n, ok := parseNumber(f.Name(), maxSize); !ok || n < 1 || whole && n > a.versions[t.Name()] {
				a.rep.refuse("allowlist-unrecorded", strconv.Quote(t.Name()+"/"+f.Name()), "is published, and no allowed entry records it")
			}
		}
	}
	for _, list := range slices.SortedFunc(maps.Values(a.allowed), func(x, y *allowlist) int { return cmp.Compare(x.track, y.track) }) {
		a.rep.Allowlists = append(a.rep.Allowlists, allowlistReport{list.track, list.version, list.digest, len(list.starts), a.persons[list.track]})
	}
	for _, k := range require {
		if a.rep.Statements[k] == 0 {
			a.rep.refuse("statement-missing", k, "no statement of this kind is in the ledger")
		}
	}
	if a.blind > 0 {
		a.rep.note("approval-unseen", "allowlists", "of %d versions it does not show whether an approver imported what they add; --manifests would", a.blind)
	}
	return nil
}
