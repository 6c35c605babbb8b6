package main

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// What is made of what came in: builds, agreements, narinfos; and what officers recalled.

const maxWords = 1000 // of builders about one derivation

// word is what one builder said of a derivation.
type word struct {
	key        *key
	time       string
	derivation string   // SHA-256 of its file
	outputs    [32]byte // digest of all that the statement says of them
	digests    [32]byte // of its subjects
}

func (a *audit) say(e *entry) {
	drv, digests := e.text("derivation"), sum256([]byte(e.subjectText))
	outputs := sum256(append(digests, get(e.predicate, "outputs")...))
	a.built[strings.Clone(drv)] = append(a.built[drv], word{e.key, strings.Clone(e.text("time")), strings.Clone(e.text("derivation-sha256")), [32]byte(outputs), [32]byte(digests)})
}

// words are those that count about a derivation: of builders by the root in force, and not set aside by the orders.
func (a *audit) words(drv string) (said []word) {
	settled := map[string]bool{}
	for _, o := range a.standing().of("settled") {
		settled[o.settled] = true
	}
	for _, w := range a.built[storeDir+drv] {
		k := a.now().byID[w.key.id]
		if k != nil && k.raw == w.key.raw && k.counts(w.time) && a.now().has("builder", k.owner) && !settled[drv+" "+k.id] {
			said = append(said, w)
		}
	}
	return said
}

// decide tells why what builders said of a derivation makes no quorum; digests are those with which it is allowed.
func (a *audit) decide(subject, drv string, digests []string) (said []word, wrong faults) {
	said = a.words(drv)
	if len(digests) == 0 {
		wrong.add("not-allowed", subject, "no track allows %.300q", drv)
		return said, wrong
	}
	if len(said) > maxWords {
		wrong.add("quorum-size", subject, "more than %d statements about %.300q", maxWords, drv)
	}
	type view struct {
		id, derivation string
		outputs        [32]byte
	}
	views, dissent := map[view]bool{}, false
	var builders []*key
	for _, w := range said {
		views[view{w.key.id, w.derivation, w.outputs}] = true
		dissent = dissent || !slices.Contains(digests, w.derivation) || w.derivation != said[0].derivation || w.outputs != said[0].outputs
		builders = append(builders, w.key)
	}
	for v := range views {
		if dissent {
			wrong.add("quorum-dissent", subject, "%s says something else of %.300q than others, or than is allowed", v.id, drv)
		}
	}
	if have := a.seats(builders); len(wrong) == 0 && have < a.now().policies["quorum"] {
		wrong.add("quorum-waiting", subject, "%d of %d builders", have, a.now().policies["quorum"])
	}
	return said, wrong.sorted()
}

func (a *audit) seats(builders []*key) int64 { return int64(len(a.now().seats("builder", builders))) }

// agreed tells whether a quorum follows from the built entries so far.
func (a *audit) agreed(e *entry) error {
	drv := strings.TrimPrefix(e.text("derivation"), storeDir)
	digests := a.mayBuild(drv, e.text("time"))
	said, wrong := a.decide(e.String(), drv, digests)
	spoke := map[string]*key{}
	for _, w := range said {
		spoke[w.key.id] = w.key
	}
	var builders []*key
	for _, b := range parts(get(e.predicate, "builders")) {
		if k := spoke[unquote(b.json)]; k != nil {
			builders = append(builders, k)
		} else {
			wrong.add("quorum-builders", e.String(), "no built entry that counts by %.100s, as a builder of root %d", b.json, a.now().version)
		}
	}
	if need := a.now().policies["quorum"]; len(wrong) == 0 && a.seats(builders) < need {
		wrong.add("quorum-waiting", e.String(), "%d of %d builders", a.seats(builders), need)
	}
	if len(wrong) == 0 && said[0].digests != [32]byte(sum256([]byte(e.subjectText))) {
		wrong.add("quorum-dissent", e.String(), "its outputs are not those that the builders named")
	}
	out := a.recalled(append(digests, drv)...)
	for _, s := range e.subjects {
		name := strings.TrimPrefix(s.name, storeDir)
		r := cmp.Or(out, a.recalled(name, s.digest))
		a.follow(name, r)
		if r.before(a.ordered) {
			wrong.add("recalled", e.String(), "orders %d recalled %s, which is %.300q or what it came from: %s", r.version, r.name, name, r.reason)
		}
	}
	return wrong.err()
}

// mayBuild lists the SHA-256 digests under which tracks allow a derivation: by their lists, or by broken glass at that time.
func (a *audit) mayBuild(drv, time string) (digests []string) {
	for _, list := range a.allowed {
		if sha256 := list.drvs[drv]; sha256 != "" {
			digests = append(digests, sha256)
		}
	}
	for _, o := range a.standing().of("break-glass") {
		if o.name == drv && o.kind == "derivation" && time < o.until {
			digests = append(digests, o.sha256)
		}
	}
	return digests
}

// recall is a line of orders that puts something out, and the first version that has it.
type recall struct {
	order
	version int64
}

// before tells whether the recall was in force when so many orders had been.
func (r *recall) before(ordered int) bool { return r != nil && r.version <= int64(ordered) }

type recalledItem struct {
	version      int64
	name, digest string
}

// recall gathers what a chain of orders recalls, and since when.
func (a *audit) recall(chain []*orders) {
	for i, o := range chain {
		for _, line := range o.of("recall") {
			if i == 0 || !chain[i-1].has[line.line] {
				a.follow(line.name, &recall{line, o.version})
				a.follow(line.sha256, &recall{line, o.version})
			}
		}
	}
}

// recalled returns what recalls something of one of these names or digests, in force or not.
func (a *audit) recalled(of ...string) *recall {
	for _, s := range of {
		if r := a.recalls[s]; r != nil {
			return r
		}
	}
	return nil
}

// follow remembers that what has this name, or digest, is recalled.
func (a *audit) follow(of string, r *recall) {
	if r != nil && a.recalls[of] == nil {
		a.recalls[of] = r
	}
}

// signed is a track's key at work. It must not sign what was recalled, nor by a list whose approvals too few witnesses have seen.
func (a *audit) signed(e *entry) error {
	track := e.text("track")
	var wrong faults
	for _, s := range e.subjects {
		switch r := a.recalls[s.name]; {
		case r == nil:
		case r.before(a.ordered):
			wrong.add("recalled", e.String(), "signs %.300q after orders %d recalled it: %s", s.name, r.version, r.reason)
		default:
			a.rep.notice("recalled", e.String(), "signed %.300q for %s before orders %d recalled it: %s", s.name, track, r.version, r.reason)
		}
	}
	if list, need := a.allowed[track], a.now().policies["cosigned-"+track]; list != nil && need > 0 {
		seats := map[string]bool{}
		for _, c := range a.cosigned {
			if c.size > list.approved {
				seats[a.now().seat("witness", c.witness)] = true
			}
		}
		if int64(len(seats)) < need {
			wrong.add("witness-missing", e.String(), "signs by an approval in entry %d, which %d of %d witnesses had cosigned", list.approved, len(seats), need)
		}
	}
	return wrong.err()
}

// witnessed takes what a witness cosigned. Whether it is a tree of this ledger is seen when all is read.
func (a *audit) witnessed(e *entry) error {
	raw, _ := hex.DecodeString(e.subjects[0].digest)
	t := tree{e.number("size"), hash(raw)}
	text := fmt.Sprintf("%s\n%d\n%s\n", a.head.origin, t.size, t.root)
	n, err := parseNote([]byte(text+"\n"+e.text("signature")+"\n"), "checkpoint", e.String())
	if err != nil {
		return err
	}
	by, _, wrong := n.by(a.now().signers("witness", ""))
	if len(wrong) == 0 && (len(by) == 0 || by[0].key.owner != e.text("person")) {
		wrong.add("checkpoint-unsigned", e.String(), "is not cosigned by %s, as a witness of root %d", e.text("person"), a.now().version)
	}
	if len(wrong) == 0 {
		a.cosigned = append(a.cosigned, cosigned{t, by[0].key.owner})
	}
	return wrong.err()
}
