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
	maxQuorum    = 16
)

// station owns the statement and checkpoint keys of the zone itself. It is no person.
const station = "station"

// roleFor tells which role a person needs to sign in a context. Statements ask by their kind, the rest are not persons'.
var roleFor = map[string]string{
	"root": "officer", "manifest": "collector", "sums": "collector", "allowlist": "reviewer", "witness": "witness",
	"statement": "", "checkpoint": "", "narinfo": "",
}

var isRole = map[string]bool{
	"builder": true, "collector": true, "importer": true, "officer": true, "reviewer": true, "station": true, "witness": true,
}

// key is one key line of a root.
type key struct {
	context, owner string
	public         [32]byte
	vkey           *vkey   // except for sums and narinfo
	minisign       [8]byte // sums: minisign's key number
}

// root is one version of the root document.
type root struct {
	enclave, date, previous, digest string
	version                         int64
	keys                            []*key
	byPublic                        map[[32]byte]*key
	roles                           map[string]map[string]bool // role, person
	thresholds                      map[string]int64
	quorum                          int64
}

func parseRoot(text string) (*root, error) {
	if len(text) > maxRootText {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), maxRootText)
	}
	r := &root{digest: digestOf(text), byPublic: map[[32]byte]*key{}, roles: map[string]map[string]bool{}, thresholds: map[string]int64{}}
	l := &lines{text: text}
	l.literal("sallyport root v1")
	r.enclave = l.field("enclave", isName)
	r.version = l.numberField("version", 1, maxSize)
	r.date = l.field("date", isDate)
	r.previous = l.field("previous", isDigestOrDash)
	policies, before := map[string]string{}, ""
	for n := 0; l.more(); n++ {
		line := l.next()
		if line <= before {
			l.fail("not sorted, or twice")
		}
		if n >= maxRootLines {
			l.fail("more than %d lines", maxRootLines)
		}
		before = line
		f := strings.Split(line, " ")
		switch {
		case f[0] == "key" && len(f) == 4:
			k, err := parseKey(f[1], f[2], f[3])
			if err != nil {
				l.fail("%v", err)
			} else if r.byPublic[k.public] != nil {
				l.fail("a public key stands in two lines")
			} else {
				r.byPublic[k.public], r.keys = k, append(r.keys, k)
			}
		case f[0] == "policy" && len(f) == 3 && isName(f[1]) && f[2] != "":
			if policies[f[1]] != "" {
				l.fail("policy %s twice", f[1])
			}
			policies[f[1]] = f[2]
		case f[0] == "role" && len(f) == 3 && isRole[f[1]] && isName(f[2]):
			if r.roles[f[1]] == nil {
				r.roles[f[1]] = map[string]bool{}
			}
			r.roles[f[1]][f[2]] = true
		case f[0] == "threshold" && len(f) == 3:
			track, ok := strings.CutPrefix(f[1], "allowlist/")
			n, number := parseNumber(f[2], maxRootLines)
			if f[1] != "root" && !(ok && isName(track)) || !number || n < 1 || r.thresholds[f[1]] != 0 {
				l.fail("%.200q is no threshold, or its second", line)
			}
			r.thresholds[f[1]] = n
		default:
			l.fail("%.200q is no line of a root", line)
		}
	}
	if err := l.end(); err != nil {
		return nil, err
	}
	if (r.version == 1) != (r.previous == "-") {
		return nil, fmt.Errorf("previous is %s in version %d", r.previous, r.version)
	}
	var ok bool
	if r.quorum, ok = parseNumber(policies["quorum"], maxQuorum); !ok || r.quorum < 1 {
		return nil, fmt.Errorf("policy quorum is %q, not 1 to %d", policies["quorum"], maxQuorum)
	}
	need := map[string]bool{"root": true}
	for name := range r.thresholds {
		need[name] = true
	}
	for _, k := range r.keys {
		if k.context == "narinfo" {
			need["allowlist/"+k.owner] = true
		}
	}
	for name := range need {
		context, _, _ := strings.Cut(name, "/")
		could := int64(len(persons(r, r.signers(context))))
		if n := r.thresholds[name]; n < 1 || n > could {
			return nil, fmt.Errorf("threshold %s is %d, and %d persons could sign", name, n, could)
		}
	}
	return r, nil
}

func parseKey(context, owner, s string) (*key, error) {
	k := &key{context: context, owner: owner}
	bad := func(why string) (*key, error) {
		return nil, fmt.Errorf("%.20q key of %.40q %s: %.200q", context, owner, why, s)
	}
	if _, known := roleFor[context]; !known || !isName(owner) {
		return bad("has no known context or owner")
	}
	switch context {
	case "narinfo":
		raw, err := hex.DecodeString(s)
		if err != nil || !isDigest(s) {
			return bad("is not 64 hexadecimal digits")
		}
		k.public = [32]byte(raw)
	case "sums":
		raw, ok := decode64(s)
		if !ok || len(raw) != 42 || string(raw[:2]) != "Ed" {
			return bad("is no minisign public key")
		}
		k.minisign, k.public = [8]byte(raw[2:10]), [32]byte(raw[10:])
	default:
		alg := byte(algEd25519)
		if context == "witness" {
			alg = algCosignature
		}
		var ok bool
		if k.vkey, ok = parseVKey(s, alg); !ok {
			return bad("is no vkey of its kind")
		}
		k.public = k.vkey.public
		if context == "checkpoint" {
			if _, err := parseOrigin(k.vkey.name); err != nil || owner != station {
				return bad("is not the station's, or named for no ledger")
			}
		} else if k.vkey.name != owner+"/"+context {
			return bad("has another name")
		}
	}
	return k, nil
}

// parseOrigin returns the enclave of a ledger's origin sallyport/ENCLAVE/KIND.
func parseOrigin(s string) (enclave string, err error) {
	f := strings.Split(s, "/")
	if len(f) != 3 || f[0] != "sallyport" || !isName(f[1]) || f[2] != "outside" && f[2] != "staging" && f[2] != "inside" {
		return "", fmt.Errorf("%.200q is no origin", s)
	}
	return f[1], nil
}

// signers lists the keys that count in a context: those of persons with its role.
func (r *root) signers(context string) (keys []*vkey) {
	for _, k := range r.keys {
		if k.context == context && k.vkey != nil && (roleFor[context] == "" || r.roles[roleFor[context]][k.owner]) {
			keys = append(keys, k.vkey)
		}
	}
	return keys
}

// persons names the owners of the keys. No public key stands in two lines of a root, so distinct persons have distinct keys.
func persons(r *root, keys []*vkey) map[string]bool {
	owners := map[string]bool{}
	for _, k := range keys {
		owners[r.byPublic[k.public].owner] = true
	}
	return owners
}

// open opens a note by the keys of a context and returns who signed it; below the threshold of that name it is refused.
func (r *root) open(data []byte, context, threshold, area, subject string) (string, []signer, error) {
	text, signers, err := openNote(data, r.signers(context))
	if err != nil {
		return text, nil, refuse(area+"-signature", subject, "%v", err)
	}
	owners := persons(r, keysOf(signers))
	if need := r.thresholds[threshold]; int64(len(owners)) < need || need < 1 {
		return text, nil, refuse(area+"-threshold", subject, "signed by %d of the %d persons that root %d asks for", len(owners), need, r.version)
	}
	return text, signers, nil
}

func keysOf(signers []signer) (keys []*vkey) {
	for _, s := range signers {
		keys = append(keys, s.key)
	}
	return keys
}

// openChain opens root documents 1, 2, 3 ... The first is believed by its digest, each further one by the signatures of two
// thresholds: its forerunner's and its own. The chain ends before the first document that is refused.
func openChain(dir *os.Root, under, pin string, rep *report) ([]*root, error) {
	files, err := listDir(dir, under, maxRoots, "root")
	if err != nil {
		return nil, rep.judge(err)
	}
	for _, f := range files {
		if n, ok := parseNumber(f.Name(), maxRoots); !ok || n < 1 || n > int64(len(files)) {
			rep.refuse("root-extra", fmt.Sprintf("%q", f.Name()), "is not one of root documents 1 to %d", len(files))
		}
	}
	var chain []*root
	for n := 1; n <= max(1, len(files)); n++ {
		r, err := openRoot(dir, fmt.Sprintf("%s/%d", under, n), pin, chain)
		if err != nil {
			return chain, rep.judge(err)
		}
		chain = append(chain, r)
		rep.Enclave, rep.RootVersion, rep.RootDigest = r.enclave, r.version, r.digest
	}
	return chain, nil
}

func openRoot(dir *os.Root, name, pin string, chain []*root) (*root, error) {
	subject := fmt.Sprintf("root %d", len(chain)+1)
	data, err := readFile(dir, name, maxRootText+maxSigLines, "root")
	if err != nil {
		return nil, err
	}
	text, err := splitNote(data)
	if err != nil {
		return nil, refuse("root-form", subject, "%v", err)
	}
	if len(chain) == 0 && digestOf(text) != pin {
		return nil, refuse("root-pin", subject, "its digest is %s, not the one handed over", digestOf(text))
	}
	r, err := parseRoot(text)
	if err != nil {
		return nil, refuse("root-form", subject, "%v", err)
	}
	if r.version != int64(len(chain)+1) {
		return nil, refuse("root-chain", subject, "says that it is version %d", r.version)
	}
	if len(chain) > 0 {
		before := chain[len(chain)-1]
		switch {
		case r.previous != before.digest:
			return nil, refuse("root-chain", subject, "previous is not the digest of root %d", before.version)
		case r.enclave != before.enclave:
			return nil, refuse("root-chain", subject, "enclave is %s, was %s", r.enclave, before.enclave)
		case r.date < before.date: // one spelling, so the order of bytes is that of time
			return nil, refuse("root-chain", subject, "its date is before that of root %d", before.version)
		}
		if _, _, err := before.open(data, "root", "root", "root", subject); err != nil {
			return nil, err
		}
	}
	_, _, err = r.open(data, "root", "root", "root", subject)
	return r, err
}
