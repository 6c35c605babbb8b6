package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
)

const (
	maxRoots     = 10_000 // versions of the root
	maxRootLines = 10_000
	maxRootText  = 1 << 20
	maxQuorum    = 16
	maxPolicy    = 256
)

// station owns the statement and checkpoint keys of the zone itself. It is no person.
const station = "station"

// roleFor tells which role a person needs to sign in a context. Statements ask by their kind, the rest are not persons'.
var roleFor = map[string]string{
	"root": "officer", "manifest": "collector", "sums": "collector", "allowlist": "reviewer", "witness": "witness",
	"statement": "", "checkpoint": "", "narinfo": "",
}

const roles = " builder collector importer officer reviewer station witness "

// root is one version of the root document.
type root struct {
	enclave, date, previous, digest string
	version                         int64
	keys                            []*key
	byPublic                        map[[32]byte]*key
	byID                            map[string]*key // vkeys
	tracks                          map[string]bool // with a narinfo key
	roles                           map[string]bool // ROLE PERSON
	thresholds                      map[string]int64
	quorum                          int64
}

func parseRoot(text, subject string) (*root, error) {
	if len(text) > maxRootText {
		return nil, refuse("root-size", subject, "%d bytes, more than %d", len(text), maxRootText)
	}
	r := &root{digest: digestOf(text), byPublic: map[[32]byte]*key{}, byID: map[string]*key{}, tracks: map[string]bool{}, roles: map[string]bool{}, thresholds: map[string]int64{}}
	l := read("root", subject, text)
	l.head("sallyport root v1")
	r.enclave = l.field("enclave", isName)
	r.version = l.numberField("version", 1)
	r.date = l.field("date", isDate)
	r.previous = l.field("previous", isDigestOrDash)
	if !l.dead && (r.version == 1) != (r.previous == "-") {
		l.bad("previous", "is %s in version %d", r.previous, r.version)
	}
	policies, before := map[string]string{}, ""
	for n := 0; l.more(); n++ {
		line := l.next()
		if n >= maxRootLines {
			l.bad("size", "more than %d lines", maxRootLines)
			break
		}
		next := l.ascending(before, line)
		before = line
		f := strings.Split(line, " ")
		switch {
		case !next:
		case f[0] == "key" && len(f) == 4:
			r.addKey(l, f[1], f[2], f[3])
		case f[0] == "policy" && len(f) == 3 && isName(f[1]) && f[2] != "" && len(f[2]) <= maxPolicy:
			if policies[f[1]] != "" {
				l.bad("duplicate", "policy %s stands twice", f[1])
			} else {
				policies[f[1]] = f[2]
			}
		case f[0] == "role" && len(f) == 3 && strings.Contains(roles, " "+f[1]+" ") && isName(f[2]):
			if (f[1] == station) != (f[2] == station) {
				l.bad("role", "%s has role %s", f[2], f[1])
			}
			r.roles[f[1]+" "+f[2]] = true
		case f[0] == "threshold" && len(f) == 3:
			track, ok := strings.CutPrefix(f[1], "allowlist/")
			n, number := parseNumber(f[2], maxNumber)
			if f[1] != "root" && !(ok && isName(track)) || !number {
				l.bad("syntax", "%.200q is no threshold", line)
			} else if _, twice := r.thresholds[f[1]]; twice {
				l.bad("duplicate", "threshold %s stands twice", f[1])
			} else {
				r.thresholds[f[1]] = n
			}
		default:
			l.bad("syntax", "%.200q is no line of a root", line)
		}
	}
	if l.dead || slices.ContainsFunc(l.faults, func(f fault) bool { return f.Code == "root-syntax" }) {
		return nil, l.end() // what is missing may have been said in a line that nobody understands
	}
	var ok bool
	if r.quorum, ok = parseNumber(policies["quorum"], maxQuorum); !ok || r.quorum < 1 {
		l.bad("quorum", "policy quorum is %q, not 1 to %d", policies["quorum"], maxQuorum)
	}
	if _, ok := r.thresholds["root"]; !ok {
		l.bad("threshold-missing", "no threshold root")
	}
	for track := range r.tracks {
		if _, ok := r.thresholds["allowlist/"+track]; !ok {
			l.bad("threshold-missing", "no threshold allowlist/%s", track)
		}
	}
	for name, n := range r.thresholds {
		context, _, _ := strings.Cut(name, "/")
		if could := int64(len(r.persons(r.signers(context)))); n < 1 || n > could {
			l.bad("threshold-range", "threshold %s is %d, and %d persons could sign", name, n, could)
		}
	}
	return r, l.end()
}

// addKey takes a key line.
func (r *root) addKey(l *lines, context, owner, s string) {
	role, known := roleFor[context]
	if !known || !isName(owner) {
		l.bad("syntax", "%.200q %.200q: no known context, or no owner", context, owner)
		return
	}
	k, ok := &key{}, false
	switch raw, ok64 := decode64(s); context {
	case "narinfo":
		if ok = isDigest(s); ok {
			hex.Decode(k.public[:], []byte(s))
			if r.tracks[owner] {
				l.bad("track-key", "track %s has two keys", owner)
			}
			r.tracks[owner] = true
		}
	case "sums":
		if ok = ok64 && len(raw) == 42 && string(raw[:2]) == "Ed" && isSound([32]byte(raw[10:])); ok {
			k.number, k.public = [8]byte(raw[2:]), [32]byte(raw[10:])
		}
	default:
		k, ok = parseVKey(s)
	}
	enclave, isOrigin := originEnclave(k.name)
	if !ok || context == "checkpoint" && !isOrigin {
		l.bad("key", "%.200q is malformed, weak, or named for no ledger", s)
		return
	}
	k.context, k.owner = context, owner
	switch {
	case context == "checkpoint" && (enclave != r.enclave || owner != station), owner == station && role != "", k.alg != 0 && context != "checkpoint" && k.name != owner+"/"+context:
		l.bad("owner", "key %s stands on a line of %s/%s in the root of %s", quote(k.name), owner, context, r.enclave)
	case k.alg != 0 && (k.alg == algCosignature) != (context == "witness"):
		l.bad("key", "%s is a key of another type", k.id())
	}
	if r.byPublic[k.public] != nil || k.alg != 0 && r.byID[k.id()] != nil {
		l.bad("duplicate-key", "the key of %s/%s stands on two lines", owner, context)
	}
	r.byPublic[k.public], r.keys = k, append(r.keys, k)
	if k.alg != 0 {
		r.byID[k.id()] = k
	}
}

// originEnclave returns the enclave of a ledger's origin sallyport/ENCLAVE/KIND.
func originEnclave(s string) (string, bool) {
	f := strings.Split(s, "/")
	ok := len(f) == 3 && f[0] == "sallyport" && isName(f[1]) && (f[2] == "outside" || f[2] == "staging" || f[2] == "inside")
	return f[min(1, len(f)-1)], ok
}

// signers lists the keys that count in a context: those of persons with its role.
func (r *root) signers(context string) (keys []*key) {
	for _, k := range r.keys {
		if k.context == context && (roleFor[context] == "" || r.roles[roleFor[context]+" "+k.owner]) {
			keys = append(keys, k)
		}
	}
	return keys
}

// persons names the owners of the keys, by this root. No public key stands in two lines of a root, so distinct persons have
// distinct keys.
func (r *root) persons(keys []*key) map[string]bool {
	owners := map[string]bool{}
	for _, k := range keys {
		owners[r.byPublic[k.public].owner] = true
	}
	return owners
}

// open verifies a note by the keys of a context; below the threshold of that name it is refused.
func (r *root) open(n *note, context, threshold, subject string) ([]signature, error) {
	by, err := n.signers(r.signers(context), context, subject)
	if err != nil {
		return nil, err
	}
	if owners := r.persons(keysOf(by)); int64(len(owners)) < r.thresholds[threshold] {
		return nil, refuse(context+"-threshold", subject, "signed by %d of the %d persons that root %d asks for", len(owners), r.thresholds[threshold], r.version)
	}
	return by, nil
}

func keysOf(by []signature) (keys []*key) {
	for _, s := range by {
		keys = append(keys, s.key)
	}
	return keys
}

// openChain opens root documents 1, 2, 3 ... The first is believed by its digest, each further one by the signatures of two
// thresholds: its forerunner's and its own. The chain ends before the first document that is refused.
func openChain(dir *os.Root, under, pin string, rep *report) (chain []*root, err error) {
	files, err := listDir(dir, under, maxRoots, "root")
	for n := 1; err == nil && n <= max(1, len(files)); n++ {
		var r *root
		if r, err = openRoot(dir, fmt.Sprintf("%s/%d", under, n), pin, chain); err == nil {
			chain = append(chain, r)
		}
	}
	if len(chain) > 0 {
		last := chain[len(chain)-1]
		rep.fact("enclave", last.enclave)
		rep.fact("root", last.version)
		rep.fact("root sha256", last.digest)
	}
	return chain, rep.judge(err)
}

func openRoot(dir *os.Root, name, pin string, chain []*root) (*root, error) {
	subject := fmt.Sprintf("root %d", len(chain)+1)
	data, err := readFile(dir, name, maxRootText+maxSigLines, "root")
	if err != nil {
		return nil, err
	}
	n, err := parseNote(data, "root", subject)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 && digestOf(n.text) != pin {
		return nil, refuse("root-pin", subject, "its digest is %s, not the one handed over", digestOf(n.text))
	}
	r, err := parseRoot(n.text, subject)
	if err != nil {
		return nil, err
	}
	if r.version != int64(len(chain)+1) {
		return nil, refuse("root-version", subject, "says that it is version %d", r.version)
	}
	if len(chain) > 0 {
		before := chain[len(chain)-1]
		switch {
		case r.previous != before.digest:
			return nil, refuse("root-previous", subject, "previous is not the digest of root %d", before.version)
		case r.enclave != before.enclave:
			return nil, refuse("root-enclave", subject, "enclave is %s, was %s", r.enclave, before.enclave)
		case r.date < before.date: // one spelling, so the order of bytes is that of time
			return nil, refuse("root-date", subject, "its date is before that of root %d", before.version)
		}
		if _, err := before.open(n, "root", "root", subject); err != nil {
			return nil, err
		}
	}
	_, err = r.open(n, "root", "root", subject)
	return r, err
}
