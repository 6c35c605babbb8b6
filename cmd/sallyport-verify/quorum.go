package main

import (
	"cmp"
	"slices"
	"strings"
)

// What is made of what came in: builds, agreements, narinfos.

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
	drv, digests := e.keep("derivation"), sum256([]byte(e.subjectText))
	outputs := sum256(append(digests, get(e.predicate, "outputs")...))
	a.built[drv] = append(a.built[drv], word{e.key, e.keep("time"), e.keep("derivation-sha256"), [32]byte(outputs), [32]byte(digests)})
}

// words are those that count about a derivation: of builders by the root in force, and not set aside by the orders.
func (a *audit) words(drv string) (said []word) {
	for _, w := range a.built[storeDir+drv] {
		k := a.now().byID[w.key.id]
		if k != nil && k.raw == w.key.raw && k.counts(w.time) && a.now().has("builder", k.owner) && !a.standing().about["settled "+drv+" "+k.id] {
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
		a.follow(strings.Clone(name), r)
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
	for _, o := range a.standing().of["break-glass"] {
		if o.name == drv && o.kind == "derivation" && time < o.until {
			digests = append(digests, o.sha256)
		}
	}
	return digests
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
