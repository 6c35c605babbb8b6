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
	pub       *os.Root
	chain     []*root
	recorded  int                  // root documents that the ledger has so far
	manifests map[string]*manifest // by digest
	imports   map[int64]*imported  // by number
	approvals map[approval]string  // the signature line
	allowed   map[string]*allowlist
	versions  map[string]int64 // of each track, those included that could not be read
	built     map[string]map[word]bool
	failed    error // of a disk
}

type imported struct {
	manifest, person string
	rejected         bool
}

type approval struct {
	track          string
	version        int64
	digest, person string
}

// word is what one builder said of a derivation: the SHA-256 of its file; subjects and outputs as they stand in the statement.
type word struct {
	key                       *key
	derivation, digests, said string
}

// now is the root in force. Before the ledger records a root, it is the first.
func (a *audit) now() *root { return a.chain[max(a.recorded, 1)-1] }

// may tells whether a key may sign for a role by a root.
func (r *root) may(k *key, role string) bool {
	own := r.byPublic[k.public]
	return own != nil && own.context == "statement" && own.owner == k.owner && r.roles[role+" "+k.owner]
}

// entry judges the next entry against those before it.
func (a *audit) entry(e entry) {
	if !a.believed(e) {
		return
	}
	before, role := a.now(), kinds[e.kind].signer
	if e.kind == "root" {
		a.root(e)
	}
	if !before.may(e.key, role) && !a.now().may(e.key, role) { // the entry that brings a root may be signed by a key of either
		a.rep.refuse("statement-role", e.String(), "signed by %s, who does not have role %s with this key in root %d", e.key.owner, role, a.now().version)
		return
	}
	if role != station && e.text("person") != e.key.owner {
		a.rep.refuse("statement-person", e.String(), "says %.100q, signed by %s", e.text("person"), e.key.owner)
		return
	}
	var err error
	switch e.kind {
	case "created":
		if e.index != 0 || e.subjects[0].name != a.ledger.now.origin {
			err = refuse("ledger-created", e.String(), "is not entry 0, or creates %.100q", e.subjects[0].name)
		}
	case "imported":
		err = a.imported(e)
	case "rejected":
		err = a.rejected(e)
	case "approved":
		a.approvals[approval{e.text("track"), e.number("version"), e.subjects[0].digest, e.text("person")}] = e.text("signature")
	case "allowed":
		err = a.allow(e)
	case "built":
		drv, said := e.text("derivation"), word{e.key, e.text("derivation-sha256"), e.subjectText, get(e.predicate, "outputs")}
		if a.built[drv] == nil {
			a.built[drv] = map[word]bool{}
		}
		a.built[drv][said] = true
	case "agreed":
		err = a.agreed(e)
	}
	a.failed = cmp.Or(a.failed, a.rep.judge(err))
}

func (a *audit) root(e entry) {
	switch version := e.number("version"); {
	case version != int64(a.recorded+1):
		a.rep.refuse("root-version", e.String(), "records root %d after root %d", version, a.recorded)
	case a.recorded == len(a.chain):
		a.rep.refuse("root-missing", e.String(), "root %d is not published, or was refused", version)
	case e.subjects[0].digest != a.chain[a.recorded].digest:
		a.rep.refuse("root-equivocation", e.String(), "another root %d is published", version)
	default:
		a.recorded++
	}
}

func (a *audit) imported(e entry) error {
	n, digest := e.number("shipment"), e.subjects[0].digest
	if former := a.imports[n]; former != nil && former.manifest == digest {
		return refuse("shipment-replayed", e.String(), "shipment %d was imported before", n)
	} else if former != nil {
		return refuse("shipment-equivocation", e.String(), "shipment %d was imported before, with another manifest", n)
	}
	a.imports[n] = &imported{digest, e.key.owner, false}
	return nil
}

// rejected prints the text again that the reviewer signed.
func (a *audit) rejected(e entry) error {
	text := fmt.Sprintf("sallyport rejection v1\nenclave %s\nshipment %d\nmanifest %s\ndate %s\nreason %s\n",
		a.now().enclave, e.number("shipment"), e.subjects[0].digest, e.text("date"), e.text("reason"))
	n, err := parseNote([]byte(text+"\n"+e.text("signature")+"\n"), "rejection", e.String())
	if err != nil {
		return err
	}
	by, err := n.signers(a.now().signers("allowlist"), "rejection", e.String())
	if err != nil {
		return err
	}
	person := e.text("person")
	if owners := a.now().persons(keysOf(by)); len(owners) != 1 || !owners[person] {
		return refuse("rejection-person", e.String(), "the signature is not that of %s", person)
	}
	if m := a.imports[e.number("shipment")]; m != nil && m.manifest == e.subjects[0].digest {
		if m.person == person {
			return refuse("rejection-own-import", e.String(), "%s imported the shipment", person)
		}
		m.rejected = true
	}
	return nil
}

// allow judges an allowlist as it comes in force: its place in the chain, its bytes, its signatures, its approvals.
func (a *audit) allow(e entry) error {
	track, version, digest := e.text("track"), e.number("version"), e.subjects[0].digest
	about, last, before := fmt.Sprintf("allowlist %s/%d", track, version), a.versions[track], a.allowed[track]
	switch {
	case version == last && (before == nil || before.digest != digest):
		return refuse("allowlist-equivocation", e.String(), "%s was allowed before, with another digest", about)
	case version <= last:
		return refuse("allowlist-rollback", e.String(), "%s after version %d", about, last)
	case version != last+1:
		a.rep.refuse("allowlist-version", e.String(), "%s after version %d", about, last)
	}
	a.versions[track] = version
	data, err := readFile(a.pub, fmt.Sprintf("allowlist/%s/%d", track, version), maxListText+maxSigLines, "allowlist")
	if err != nil {
		return err
	}
	n, err := parseNote(data, "allowlist", about)
	if err != nil {
		return err
	}
	list, err := parseAllowlist(n.text, about)
	if err != nil {
		return err
	}
	a.allowed[track] = list
	switch {
	case list.digest != digest:
		return refuse("allowlist-equivocation", about, "published with digest %s; %s says %s", list.digest, e, digest)
	case list.enclave != a.now().enclave:
		return refuse("allowlist-enclave", about, "is of %s", list.enclave)
	case list.track != track || a.now().thresholds["allowlist/"+track] == 0:
		return refuse("allowlist-track", about, "is of track %s, for which root %d must have a threshold", list.track, a.now().version)
	case list.version != version:
		return refuse("allowlist-version", about, "says that it is version %d", list.version)
	case list.root > a.now().version || before != nil && list.root < before.root:
		return refuse("allowlist-root", about, "signed by root %d: not yet in force, or before that of the former version", list.root)
	case before != nil && version == last+1 && list.previous != before.digest:
		return refuse("allowlist-previous", about, "previous is not the digest of version %d", before.version)
	case before != nil && list.date < before.date:
		return refuse("allowlist-date", about, "its date is before that of version %d", before.version)
	}
	if _, err := a.chain[list.root-1].open(n, "allowlist", "allowlist/"+track, about); err != nil {
		return err
	}
	by, err := a.now().open(n, "allowlist", "allowlist/"+track, about)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, p := range jsonList(get(e.predicate, "persons")) {
		person := unquote(p.json)
		line := a.approvals[approval{track, version, digest, person}]
		if seen[person] {
			a.rep.refuse("approval-duplicate", e.String(), "%s stands twice", quote(person))
		} else if line == "" {
			a.rep.refuse("approval-missing", e.String(), "no approved entry before it by %s", quote(person))
		} else if !slices.ContainsFunc(by, func(s signature) bool { return s.line == line && s.key.owner == person }) {
			a.rep.refuse("approval-signature", e.String(), "the signature in the approved entry of %s does not stand under the allowlist", quote(person))
		}
		seen[person] = true
	}
	if need := a.now().thresholds["allowlist/"+track]; int64(len(seen)) < need {
		a.rep.refuse("approval-missing", e.String(), "%d of %d persons", len(seen), need)
	}
	return a.twoDoors(about, before, list, a.now().persons(keysOf(by)))
}

// twoDoors looks for where the items came from that a version adds: with a shipment whose manifest has it, or whose manifest is not
// at hand. Who alone imported these must not be an approver.
func (a *audit) twoDoors(about string, before, list *allowlist, approvers map[string]bool) error {
	dark := map[string]bool{} // importers of shipments whose manifest is not at hand
	var known []*imported
	for _, m := range a.imports {
		if a.manifests[m.manifest] != nil && !m.rejected {
			known = append(known, m)
		} else if !m.rejected {
			dark[m.person] = true
		}
	}
	for _, line := range list.lines {
		if before != nil && before.has(line) {
			continue
		}
		by := maps.Clone(dark)
		for _, m := range known {
			if a.manifests[m.manifest].has(line) {
				by[m.person] = true
			}
		}
		if it, _ := parseItem(line); len(by) == 0 {
			return refuse("approval-unshipped", about, "adds %s, which no shipment brought", it.name)
		} else if person := slices.Collect(maps.Keys(by))[0]; len(by) == 1 && approvers[person] {
			return refuse("approval-own-import", about, "adds %s, which %s imported and approved", it.name, person)
		}
	}
	return nil
}

// agreed tells whether a quorum follows from the built entries so far.
func (a *audit) agreed(e entry) error {
	drv := e.text("derivation")
	var first word
	keys := map[string]*key{} // of the builders in force who spoke
	for w := range a.built[drv] {
		if !a.now().may(w.key, "builder") {
			continue
		}
		if len(keys) == 0 {
			first = w
		} else if w.derivation != first.derivation || w.digests != first.digests || w.said != first.said {
			return refuse("quorum-dissent", e.String(), "%s and %s say different things of %.300q", first.key.owner, w.key.owner, drv)
		}
		keys[w.key.id()] = w.key
	}
	if len(keys) == 0 {
		return refuse("quorum-waiting", e.String(), "no builder of root %d has built %.300q", a.now().version, drv)
	}
	base := strings.TrimPrefix(drv, "/gnu/store/")
	ok := slices.ContainsFunc(slices.Collect(maps.Values(a.allowed)), func(list *allowlist) bool {
		at, _ := slices.BinarySearch(list.lines, "item "+first.derivation)
		for ; at < len(list.lines); at++ {
			it, _ := parseItem(list.lines[at])
			if it.sha256 != first.derivation {
				break
			} else if it.name == base && it.kind == "derivation" {
				return true
			}
		}
		return false
	})
	if !ok {
		return refuse("not-allowed", e.String(), "no track allows %.300q with SHA-256 %s", drv, first.derivation)
	}
	who := map[string]bool{}
	for _, b := range jsonList(get(e.predicate, "builders")) {
		k := keys[unquote(b.json)]
		if k == nil {
			return refuse("quorum-builders", e.String(), "no built entry by %.100s, as a builder of root %d", b.json, a.now().version)
		}
		who[k.owner] = true
	}
	if int64(len(who)) < a.now().quorum {
		return refuse("quorum-waiting", e.String(), "%d of %d builders", len(who), a.now().quorum)
	}
	if e.subjectText != first.digests {
		return refuse("quorum-dissent", e.String(), "its outputs are not those that the builders named")
	}
	return nil
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
	now, err := openCheckpoint(pub, "ledger/checkpoint", newest.signers("checkpoint"), newest.signers("witness"))
	if err != nil {
		return rep.judge(err)
	}
	a := &audit{
		pub: pub, chain: chain, manifests: manifests, imports: map[int64]*imported{}, approvals: map[approval]string{}, allowed: map[string]*allowlist{},
		versions: map[string]int64{}, built: map[string]map[word]bool{}, ledger: &ledger{dir: pub, under: "ledger", now: now, rep: rep, keys: map[string][]*key{}},
	}
	a.each = a.entry
	var checkpoints []*key // what a witness keeps may be signed by a key of an older root
	for _, r := range chain {
		for _, k := range r.keys {
			same := func(other *key) bool { return other.public == k.public }
			if k.context == "checkpoint" && !slices.ContainsFunc(checkpoints, same) {
				checkpoints = append(checkpoints, k)
			} else if k.context == "statement" && !slices.ContainsFunc(a.keys[k.id()], same) {
				a.keys[k.id()] = append(a.keys[k.id()], k)
			}
		}
	}
	marks, err := cosignatures(pub, now, checkpoints, newest.signers("witness"), o.witnesses, rep)
	if err != nil {
		return err
	}
	if err := cmp.Or(a.walk(marks), a.failed); err != nil {
		return err
	}
	a.facts()
	for _, k := range require {
		if a.count[k] == 0 {
			rep.refuse("statement-missing", k, "no statement of this kind is in the ledger")
		}
	}
	return a.unrecorded()
}

// unrecorded tells what is published and was not put in force by an entry, if all entries were there to be read.
func (a *audit) unrecorded() error {
	for _, list := range slices.SortedFunc(maps.Values(a.allowed), func(x, y *allowlist) int { return cmp.Compare(x.track, y.track) }) {
		a.rep.fact("allowlist "+list.track, fmt.Sprintf("version %d, %d items, %s", list.version, len(list.lines), list.digest))
	}
	if !a.whole {
		return nil
	}
	for _, r := range a.chain[a.recorded:] {
		a.rep.refuse("root-unrecorded", fmt.Sprintf("root %d", r.version), "is published, and no entry records it")
	}
	tracks, err := listDir(a.pub, "allowlist", maxTracks, "allowlist")
	for _, t := range tracks {
		files, err := listDir(a.pub, "allowlist/"+t.Name(), maxVersions, "allowlist")
		for _, f := range files {
			if n, ok := parseNumber(f.Name(), maxNumber); !ok || n < 1 || n > a.versions[t.Name()] {
				err = refuse("allowlist-unrecorded", quote(t.Name()+"/"+f.Name()), "is published, and no entry allows it")
			}
		}
		if err = a.rep.judge(err); err != nil {
			return err
		}
	}
	return a.rep.judge(err)
}
