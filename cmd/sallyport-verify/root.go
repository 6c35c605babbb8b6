package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
)

const (
	maxRoots     = 10_000 // versions of the root
	maxRootLines = 10_000
	maxRootText  = 1 << 20
)

// station owns the statement and checkpoint keys of the zone itself. It is no person.
const station = "station"

// purpose is what keys of one context need: a role of their owner, "" being that which a statement's kind asks for, and a kind. The
// station has no key of a kind that is for persons.
type purpose struct {
	role, kinds string
	persons     string // kinds of keys that only persons have
}

var contexts = map[string]purpose{
	"root":       {"officer", edwards, p256 + " " + sshsig},
	"order":      {"officer", edwards, p256 + " " + sshsig},
	"manifest":   {"collector", edwards, p256 + " " + sshsig + " " + mldsa87},
	"sums":       {"collector", minisign, ""},
	"allowlist":  {"reviewer", edwards, p256 + " " + sshsig},
	"statement":  {"", edwards, p256 + " " + sshsig},
	"checkpoint": {station, edwards, ""},
	"witness":    {"witness", cosignature, ""},
	"narinfo":    {"", guix, ""},
}

const roles = " builder collector importer officer reviewer station witness "

// policies has the bounds of each; cosigned-TRACK stands beside.
var policies = map[string][2]int64{"quorum": {1, 16}, "mldsa": {0, 16}, "silence": {1, 3650}, "break-glass": {1, 168}, "manifest": {1, 1}}

const maxCosigned = 100

// root is one version of the root document.
type root struct {
	header
	note       *note
	keys       []*key
	byRaw      map[string]*key
	byID       map[string]*key // vkeys, by name and hash
	tracks     map[string]bool // with a narinfo key
	roles      map[string]map[string]bool
	deputies   map[string]map[string]string // by role: who takes whose place
	thresholds map[string]int64
	policies   map[string]int64
}

func parseRoot(text, subject string) (*root, error) {
	r := &root{byRaw: map[string]*key{}, byID: map[string]*key{}, tracks: map[string]bool{}, roles: map[string]map[string]bool{},
		deputies: map[string]map[string]string{}, thresholds: map[string]int64{}, policies: map[string]int64{}}
	l := read("root", subject, text, maxRootText)
	r.header = l.header("sallyport root v1", "enclave", "version", "date", "previous")
	var exclusive [][2]string
	l.body(maxRootLines, func(line string) bool {
		f := match(line, "deputy, role, name, name", "exclusive, role, role", "key, context, name, field", "key, context, name, field, bound, bound",
			"policy, field, field", "role, role, name", "threshold, threshold, count")
		if f == nil || f[0] == "exclusive" && f[1] >= f[2] || len(f) == 6 && f[4] == "-" && f[5] == "-" {
			l.bad("syntax", "%.200q is no line of a root", line)
			return true
		}
		switch f[0] {
		case "deputy":
			if r.deputies[f[1]][f[2]] != "" {
				l.bad("deputy", "%s is the deputy of two in role %s", f[2], f[1])
			}
			put(r.deputies, f[1], f[2], f[3])
		case "exclusive":
			exclusive = append(exclusive, [2]string(f[1:]))
		case "key":
			f = append(f, "-", "-") // no bounds
			r.addKey(l, f[1], f[2], f[3], strings.TrimPrefix(f[4], "-"), strings.TrimPrefix(f[5], "-"))
		case "policy":
			r.addPolicy(l, f[1], f[2])
		case "role":
			if (f[1] == station) != (f[2] == station) {
				l.bad("role", "%s has role %s", f[2], f[1])
			}
			put(r.roles, f[1], f[2], true)
		case "threshold":
			if _, twice := r.thresholds[f[1]]; twice {
				l.bad("duplicate", "threshold %s stands twice", f[1])
			}
			r.thresholds[f[1]] = number(f[2])
		}
		return true
	})
	if l.dead || l.has("root-syntax") {
		return nil, l.end() // what is missing may have been said in a line that nobody understands
	}
	found := len(l.faults)
	r.judge(l, exclusive)
	l.sort(found)
	return r, l.end()
}

func put[T any](m map[string]map[string]T, a, b string, value T) {
	if m[a] == nil {
		m[a] = map[string]T{}
	}
	m[a][b] = value
}

// addKey takes a key line.
func (r *root) addKey(l *lines, name, owner, s, from, until string) {
	c := contexts[name]
	k, ok := &key{}, false
	switch raw, ok64 := decode64(s); c.kinds {
	case guix:
		if ok = is("sha256", s); ok {
			raw, _ = hex.DecodeString(s)
			k.kind, k.raw = guix, string(raw)
			if r.tracks[owner] {
				l.bad("track-key", "track %s has two keys", owner)
			}
			r.tracks[owner] = true
		}
	case minisign:
		if ok = ok64 && len(raw) == 42 && string(raw[:2]) == "Ed"; ok {
			k.kind, k.number = minisign, [8]byte(raw[2:])
			ok = k.setPublic(string(raw[10:]))
		}
	default:
		k, ok = parseVKey(s)
		allowed := c.kinds + " "
		if owner != station {
			allowed += c.persons + " "
		}
		ok = ok && strings.Contains(allowed, k.kind+" ")
	}
	enclave := originEnclave(k.name)
	if !ok || name == "checkpoint" && enclave == "" {
		l.bad("key", "%.200q is malformed, weak, of a kind that must not stand here, or named for no ledger", s)
		return
	}
	k.context, k.owner, k.from, k.until = name, owner, from, until
	named := k.id == "" || k.name == owner+"/"+name || name == "checkpoint" && enclave == r.enclave
	if !named || name == "checkpoint" && owner != station || owner == station && c.role != "" && c.role != station {
		l.bad("owner", "key %s stands on a line of %s/%s in the root of %s", quote(k.name), owner, name, r.enclave)
		return
	}
	if from+until != "" && (name == "checkpoint" || name == "witness" || name == "narinfo") || from != "" && until != "" && from >= until {
		l.bad("validity", "what this key signs bears no date, or %s is not before %s", from, until)
	}
	if r.byRaw[k.raw] != nil || k.id != "" && r.byID[k.id] != nil {
		l.bad("duplicate-key", "the key of %s/%s stands on two lines", owner, name)
	}
	r.byRaw[k.raw], r.keys = k, append(r.keys, k)
	if k.id != "" {
		r.byID[k.id] = k
	}
}

func (r *root) addPolicy(l *lines, name, value string) {
	bounds, known := policies[name]
	if track, ok := strings.CutPrefix(name, "cosigned-"); ok && is("name", track) {
		bounds, known = [2]int64{1, maxCosigned}, true
	}
	n := number(value)
	_, twice := r.policies[name]
	switch {
	case twice:
		l.bad("duplicate", "policy %s stands twice", name)
	case known && is("count", value) && n >= bounds[0] && n <= bounds[1]:
		r.policies[name] = n
	case name == "quorum":
		l.bad("quorum", "policy quorum is %.30q, not %d to %d", value, bounds[0], bounds[1])
	default:
		l.bad("policy", "policy %s is unknown, or %.30q not %d to %d", name, value, bounds[0], bounds[1])
	}
}

// judge looks at the lines together.
func (r *root) judge(l *lines, exclusive [][2]string) {
	for role, deputies := range r.deputies {
		for deputy, principal := range deputies {
			if !r.roles[role][deputy] || !r.roles[role][principal] || deputies[principal] != "" {
				l.bad("deputy", "%s for %s: one of them does not have role %s, or the latter is a deputy, too", deputy, principal, role)
			}
		}
	}
	for _, pair := range exclusive {
		for person := range r.roles[pair[0]] {
			if r.roles[pair[1]][person] {
				l.bad("exclusive", "%s is %s and %s", person, pair[0], pair[1])
			}
		}
	}
	if _, ok := r.policies["quorum"]; !ok && !l.has("root-quorum") {
		l.bad("quorum", "no policy quorum")
	}
	needed := map[string]bool{"root": true, "order": true}
	for track := range r.tracks {
		needed["allowlist/"+track] = true
	}
	for name, n := range r.thresholds {
		context, track, _ := strings.Cut(name, "/")
		track, kind, _ := strings.Cut(track, "/")
		if kind != "" {
			needed["allowlist/"+track] = true
		}
		could := int64(len(r.seats(contexts[context].role, r.signers(context, r.date))))
		if n < 1 || n > could || kind != "" && n < r.thresholds["allowlist/"+track] {
			l.bad("threshold-range", "threshold %s is %d: less than the track's, or more than the %d persons who could sign", name, n, could)
		}
	}
	for name := range needed {
		if _, ok := r.thresholds[name]; !ok {
			l.bad("threshold-missing", "no threshold %s", name)
		}
	}
	var beside []*key
	for _, k := range r.keys {
		if k.kind == mldsa87 && r.roles["collector"][k.owner] {
			beside = append(beside, k)
		}
	}
	for name, n := range r.policies {
		track, cosigned := strings.CutPrefix(name, "cosigned-")
		if name == "mldsa" && n > int64(len(r.seats("collector", beside))) || cosigned && (r.thresholds["allowlist/"+track] == 0 || n > int64(len(r.seats("witness", r.signers("witness", ""))))) {
			l.bad("policy", "%s is %d: more than could sign, or there is no such track", name, n)
		}
	}
}

// signers lists the keys that count in a context for what bears a date: those of persons with its role. ML-DSA-87 keys are among them.
func (r *root) signers(name, date string) (keys []*key) {
	for _, k := range r.keys {
		if role := contexts[name].role; k.context == name && k.counts(date) && (role == "" || r.roles[role][k.owner]) {
			keys = append(keys, k)
		}
	}
	return keys
}

// seat is who a person counts as in a role: a deputy as the principal.
func (r *root) seat(role, person string) string {
	if principal := r.deputies[role][person]; principal != "" {
		return principal
	}
	return person
}

// seats names the seats that these keys' owners have in a role. No key stands in two lines of a root, so distinct seats have distinct keys.
func (r *root) seats(role string, keys []*key) map[string]bool {
	seats := map[string]bool{}
	for _, k := range keys {
		seats[r.seat(role, k.owner)] = true
	}
	return seats
}

// open verifies a note by the keys of a context that count on a date; with fewer than need seats it is refused.
func (r *root) open(n *note, name, date string, need int64) (by []signature, wrong faults) {
	by, _, wrong = n.by(r.signers(name, date))
	have := int64(len(r.seats(contexts[name].role, keysOf(by))))
	if have < need && len(wrong) == 0 {
		wrong.add(n.area+"-threshold", n.subject, "signed by %d of the %d persons that root %d asks for", have, need, r.version)
	}
	return by, wrong
}

func keysOf(by []signature) (keys []*key) {
	for _, s := range by {
		keys = append(keys, s.key)
	}
	return keys
}

// openChain opens root documents 1, 2, 3 ... The chain ends before the first one that is refused.
func openChain(dir *os.Root, under string, p pin, rep *report) (chain []*root, err error) {
	err = documents(dir, under, "root", 1, maxRoots, maxRootText, func(data []byte, subject string) error {
		r, err := openRoot(data, subject, p, chain)
		if err == nil {
			chain = append(chain, r)
		}
		return err
	})
	if len(chain) > 0 {
		last := chain[len(chain)-1]
		rep.fact("enclave", last.enclave)
		rep.fact("root", last.version)
		rep.fact("root sha256", last.digest)
	}
	return chain, rep.judge(err)
}

// openRoot opens the next root of a chain. The first is believed by its fingerprint.
func openRoot(data []byte, subject string, p pin, chain []*root) (*root, error) {
	n, err := parseNote(data, "root", subject)
	if err != nil {
		return nil, err
	}
	if digest := digestOf(n.text); len(chain) == 0 && !p.matches(digest) {
		return nil, refuse("root-pin", subject, "its digest is %s, not the one handed over", digest)
	}
	r, err := parseRoot(n.text, subject)
	if err != nil {
		return nil, err
	}
	r.note = n
	return r, r.next(chain).err()
}

// next tells why a well-formed root is not the next of a chain. Each but the first needs the signatures of two thresholds: its
// forerunner's and its own.
func (r *root) next(chain []*root) faults {
	_, wrong := r.open(r.note, "root", r.date, r.thresholds["root"])
	if len(chain) == 0 {
		wrong.unless(r.version == 1, &r.header, "version", "says that it is version %d", r.version)
		return wrong
	}
	before := chain[len(chain)-1]
	_, also := before.open(r.note, "root", r.date, before.thresholds["root"])
	switch wrong = append(wrong, also...); {
	case r.version < before.version || r.digest == before.digest:
		return faults{{"root-rollback", r.subject, fmt.Sprintf("is version %d; version %d is in force", r.version, before.version)}}
	case r.version == before.version && len(wrong) == 0:
		return faults{{"root-equivocation", r.subject, fmt.Sprintf("ALARM: two texts are root %d", r.version)}}
	}
	return append(wrong, r.after(&before.header)...)
}
