package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// What comes in, and what persons say of it: shipments, submissions, approvals, rejections, allowlists.

type imported struct {
	number           int64
	manifest, person string
	rejected         bool
	own              string // the item line of a submission, which has no manifest
}

func (m *imported) String() string {
	if m.own != "" {
		return fmt.Sprintf("own-%d", m.number)
	}
	return fmt.Sprintf("shipment %d", m.number)
}

// submitted takes a channel's item that came from inside. There is no manifest: the entry says all that one would.
func (a *audit) submitted(e *entry) error {
	n, sub := e.number("submission"), e.subjects[0]
	m := &imported{n, strings.Clone(sub.digest), e.keep("person"), false, fmt.Sprintf("item %s %d channel %s", sub.digest, e.number("size"), sub.name)}
	if want := int64(len(a.own)) + 1; n != want {
		return refuse("submission-number", e.String(), "is own-%d where own-%d is the next", n, want)
	}
	a.own = append(a.own, m)
	a.brought[m.own] = append(a.brought[m.own], m)
	return nil
}

// isSubmission tells whether the one subject is named by its content, its channel and its commit.
func (st *statement) isSubmission() bool {
	sub := st.subjects[0]
	return sub.name == sourceName(sub.digest, st.text("channel")+"-channel-"+st.text("commit"))
}

// sourceName is what the store calls a nar of this digest and name: the hash of both, folded to 20 bytes.
func sourceName(digest, name string) string {
	sum := sum256([]byte("source:sha256:" + digest + ":" + strings.TrimSuffix(storeDir, "/") + ":" + name))
	var folded [20]byte
	for i, b := range sum {
		folded[i%len(folded)] ^= b
	}
	const letters = "0123456789abcdfghijklmnpqrsvwxyz"
	out := make([]byte, 0, 33+len(name))
	for n := 31; n >= 0; n-- { // five bits a letter, the last first
		at, shift := n*5/8, n*5%8
		c := folded[at] >> shift
		if at+1 < len(folded) {
			c |= folded[at+1] << (8 - shift)
		}
		out = append(out, letters[c&31])
	}
	return string(out) + "-" + name
}

// submission is what entries name as one, if it is there and is not rejected.
func (a *audit) submission(n int64) *imported {
	if n < 1 || n > int64(len(a.own)) {
		return nil
	}
	return a.own[n-1]
}

type approval struct {
	track          string
	version        int64
	digest, person string
}

type approved struct {
	line  string // the signature
	index int64
}

func (a *audit) imported(e *entry) error {
	n, digest := e.number("shipment"), strings.Clone(e.subjects[0].digest)
	switch former := a.imports[n]; {
	case former != nil && former.manifest == digest:
		return refuse("shipment-replayed", e.String(), "shipment %d was imported before", n)
	case former != nil:
		return refuse("shipment-equivocation", e.String(), "shipment %d was imported before, with another manifest", n)
	case a.lost(n):
		return refuse("shipment-lost", e.String(), "orders %d say that shipment %d will never come", a.standing().version, n)
	}
	m := &imported{n, digest, e.keep("person"), false, ""}
	a.imports[n] = m
	if manifest := a.manifests[digest]; manifest != nil {
		for _, it := range manifest.list {
			a.brought[it.line] = append(a.brought[it.line], m)
		}
	}
	return nil
}

func (a *audit) lost(shipment int64) bool {
	return a.standing().about[fmt.Sprint("lost ", shipment)]
}

// rejected prints the text again that the reviewer signed.
func (a *audit) rejected(e *entry) error {
	date, person := e.text("date"), e.text("person")
	about, m := fmt.Sprintf("shipment %d\nmanifest", e.number("shipment")), a.imports[e.number("shipment")]
	if e.kind == "declined" {
		about, m = fmt.Sprintf("submission %d\nitem", e.number("submission")), a.submission(e.number("submission"))
	}
	text := fmt.Sprintf("sallyport rejection v1\nenclave %s\n%s %s\ndate %s\nreason %s\n", a.now().enclave, about, e.subjects[0].digest, date, e.text("reason"))
	by, wrong := e.signature("rejection", text, a.now().signers("allowlist", date))
	switch {
	case len(wrong) > 0:
		return wrong
	case len(by) == 0:
		return refuse("rejection-unsigned", e.String(), "is signed by no reviewer of root %d", a.now().version)
	case by[0].key.owner != person:
		return refuse("rejection-person", e.String(), "the signature is not that of %s", person)
	case m != nil && m.manifest == e.subjects[0].digest && m.person == person:
		return refuse("rejection-own-import", e.String(), "%s brought in %s", person, m)
	case m != nil && m.manifest == e.subjects[0].digest:
		m.rejected = true
	}
	return nil
}

// need is how many persons must sign a list by a root.
func (r *root) need(list *allowlist) int64 {
	n := r.thresholds["allowlist/"+list.track]
	for kind := range list.kinds {
		n = max(n, r.thresholds["allowlist/"+list.track+"/"+kind])
	}
	return n
}

// allow judges an allowlist as it comes in force: its place in the chain, its bytes, its signatures, its approvals.
func (a *audit) allow(e *entry) error {
	track, version, digest := e.keep("track"), e.number("version"), e.subjects[0].digest
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
	list, err := openAllowlist(data, about)
	if err != nil {
		return err
	}
	a.allowed[track] = list
	for _, it := range list.list {
		a.follow(it.name, a.recalled(it.name, it.sha256))
	}
	if list.digest != digest {
		return refuse("allowlist-equivocation", about, "published with digest %s; %s says %s", list.digest, e, digest)
	}
	now, h := a.now(), &list.header
	by, wrong := list.under(now, a.standing())
	if list.root < now.version {
		_, also := a.chain[list.root-1].open(list.note, "allowlist", list.date, a.chain[list.root-1].need(list))
		wrong = append(wrong, also...)
	}
	wrong.unless(list.track == track, h, "track", "is of track %s", list.track)
	if before != nil && version == last+1 {
		wrong = append(wrong, list.after(&before.header)...)
	} else {
		wrong.unless(list.version == version, h, "version", "says that it is version %d", list.version)
	}
	if len(wrong) > 0 {
		return wrong
	}
	added := list.adds(before)
	wrong = append(a.approvedBy(e, list, by), a.twoDoors(list, added, by)...)
	if n := e.number("submission"); n != 0 {
		m := a.submission(n)
		wrong.unless(m != nil && !m.rejected && list.has(item{line: m.own}), h, "submission", "%s says that it came by own-%d, which was not submitted, was rejected, or is not in it", e, n)
	}
	return append(wrong, a.classes(list, added).sorted()...).err()
}

// approvedBy compares the persons of an allowed entry with the approved entries before it and the signatures under the note.
func (a *audit) approvedBy(e *entry, list *allowlist, by []signature) (wrong faults) {
	seen, seats := map[string]bool{}, map[string]bool{}
	for _, p := range parts(get(e.predicate, "persons")) {
		person := unquote(p.json)
		said, ok := a.approvals[approval{list.track, list.version, list.digest, person}]
		at := slices.IndexFunc(by, func(s signature) bool { return s.line == said.line && s.key.owner == person })
		switch {
		case seen[person]:
			wrong.add("approval-duplicate", e.String(), "%s stands twice", quote(person))
		case !ok:
			wrong.add("approval-missing", e.String(), "no approved entry before it by %s", quote(person))
		case at < 0:
			wrong.add("approval-signature", e.String(), "the signature in the approved entry of %s does not stand under the allowlist", quote(person))
		default:
			list.approved = max(list.approved, said.index)
		}
		seen[person], seats[a.now().seat("reviewer", person)] = true, true
	}
	if need := a.now().need(list); int64(len(seats)) < need {
		wrong.add("approval-missing", e.String(), "%d of %d persons", len(seats), need)
	}
	return wrong
}

// adds lists the items of a version that the one before it does not have.
func (list *allowlist) adds(before *allowlist) []item {
	if before == nil {
		return list.list
	}
	return slices.DeleteFunc(slices.Clone(list.list), before.has)
}

// twoDoors looks for where the items came from that a version adds: with a shipment whose manifest has it, or whose manifest is not
// at hand, or by a submission. Who alone imported these must not be an approver, nor have the seat of one; who submitted one must not in any case.
func (a *audit) twoDoors(list *allowlist, added []item, by []signature) (wrong faults) {
	stands := func(m *imported) bool { return !m.rejected && (m.own != "" || !a.lost(m.number)) }
	dark := map[string]bool{} // importers of shipments whose manifest is not at hand
	for _, m := range a.imports {
		if a.manifests[m.manifest] == nil && stands(m) {
			dark[m.person] = true
		}
	}
	approvers := a.now().seats("reviewer", keysOf(by))
	for _, it := range added {
		importers := maps.Clone(dark)
		for _, m := range a.brought[it.line] {
			if !stands(m) {
				continue
			}
			importers[m.person] = true
			if m.own != "" && approvers[a.now().seat("reviewer", m.person)] {
				wrong.add("approval-own-submission", list.subject, "adds %s, which %s submitted as %s and approved", it.name, m.person, m)
			}
		}
		if len(importers) == 0 {
			wrong.add("approval-unshipped", list.subject, "adds %s, which no shipment brought and nobody submitted", it.name)
		}
		for person := range importers {
			if len(importers) == 1 && approvers[a.now().seat("reviewer", person)] {
				wrong.add("approval-own-import", list.subject, "adds %s, which %s imported and approved", it.name, person)
			}
		}
		if len(wrong) == maxFindings {
			break
		}
	}
	return wrong
}

// classes compares what rules approved with what a version adds from the shipments, as far as their manifests are at hand.
func (a *audit) classes(list *allowlist, added []item) (wrong faults) {
	rules, items := map[int64][]class{}, map[int64]int64{}
	for _, c := range list.classes {
		rules[c.shipment] = append(rules[c.shipment], c)
		items[c.shipment] += c.items
	}
	for shipment, classes := range rules {
		m := a.imports[shipment]
		dark := m != nil && a.manifests[m.manifest] == nil
		c, n, all := classes[0], int64(0), []byte(nil) // items that came with it, and their lines
		for _, it := range added {
			if dark || slices.Contains(a.brought[it.line], m) {
				n, all = n+1, append(append(all, it.line...), '\n')
			}
		}
		switch {
		case items[shipment] > n:
			wrong.add("allowlist-class", list.subject, "rules approve %d items of shipment %d, of which it adds %d", items[shipment], shipment, n)
		case !dark && len(classes) == 1 && c.items == n && c.digest != digestOf(all):
			wrong.add("allowlist-class", list.subject, "rule %s approved other items than it adds from shipment %d", c.rule, shipment)
		}
	}
	return wrong
}
