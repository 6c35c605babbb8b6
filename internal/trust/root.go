package trust

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Policy names and bounds.
const (
	PolicyQuorum = "quorum" // how many builders must agree on an output
	MaxQuorum    = 16
	maxPolicy    = 256 // characters of a policy's value
)

// Threshold names.
const (
	thresholdRoot      = "root"
	thresholdAllowlist = "allowlist/"
)

// A RootKey is a `key` line of a root.
type RootKey struct {
	Context Context
	Owner   string // a person, Station, or for narinfo the track
	Key     string // a vkey, a minisign public key for sums, 64 hexadecimal digits for narinfo
}

// A RoleLine is a `role` line of a root.
type RoleLine struct {
	Role   Role
	Person string
}

// A Root says who holds which role and which keys in an enclave. To make one,
// fill the fields, take [Root.Text], check it with [ParseRoot] and have it signed.
// One that was opened is not to be changed.
type Root struct {
	Enclave    string
	Version    int64
	Date       time.Time
	Previous   Digest
	Keys       []RootKey
	Roles      []RoleLine
	Thresholds map[string]int    // by `root` or `allowlist/TRACK`
	Policies   map[string]string // by name

	opened bool // by its digest, or by the thresholds of another opened root
}

// ErrNotOpened says that a root, or a list, was parsed and never verified.
var ErrNotOpened = errors.New("trust: the root was parsed but not opened; only OpenRoot, OpenChain and Root.Next give one that verifies")

// Text prints the root.
func (r *Root) Text() []byte {
	var lines []string
	for _, k := range r.Keys {
		lines = append(lines, fmt.Sprintf("key %s %s %s", k.Context, k.Owner, k.Key))
	}
	for _, l := range r.Roles {
		lines = append(lines, fmt.Sprintf("role %s %s", l.Role, l.Person))
	}
	for name, n := range r.Thresholds {
		lines = append(lines, fmt.Sprintf("threshold %s %d", name, n))
	}
	for name, value := range r.Policies {
		lines = append(lines, fmt.Sprintf("policy %s %s", name, value))
	}
	slices.Sort(lines)
	b := fmt.Appendf(nil, "%s\nenclave %s\nversion %d\ndate %s\nprevious %s\n",
		rootTitle, r.Enclave, r.Version, FormatDate(r.Date), FormatPrevious(r.Previous))
	for _, line := range lines {
		b = append(append(b, line...), '\n')
	}
	return b
}

// Opened reports whether the root was verified: only then does it verify anything.
func (r *Root) Opened() bool { return r.opened }

// Digest returns the digest of the text.
func (r *Root) Digest() Digest { return Sum(r.Text()) }

// Threshold returns how many reviewers must sign an allowlist of the track, 0 if
// the root does not say.
func (r *Root) Threshold(track string) int { return r.Thresholds[thresholdAllowlist+track] }

// RootThreshold returns how many officers must sign a root.
func (r *Root) RootThreshold() int { return r.Thresholds[thresholdRoot] }

// SetThreshold sets how many reviewers must sign an allowlist of the track.
func (r *Root) SetThreshold(track string, n int) {
	if r.Thresholds == nil {
		r.Thresholds = make(map[string]int)
	}
	r.Thresholds[thresholdAllowlist+track] = n
}

// Policy returns the value of a policy.
func (r *Root) Policy(name string) (value string, ok bool) {
	value, ok = r.Policies[name]
	return value, ok
}

// Quorum returns how many builders must agree, 0 if the root does not say.
func (r *Root) Quorum() int {
	n, err := ParseNumber(r.Policies[PolicyQuorum], MaxQuorum)
	if err != nil {
		return 0
	}
	return int(n)
}

// HasRole reports whether the person has the role.
func (r *Root) HasRole(person string, role Role) bool {
	return slices.Contains(r.Roles, RoleLine{role, person})
}

// Persons returns the persons of a role, sorted.
func (r *Root) Persons(role Role) []string {
	var persons []string
	for _, l := range r.Roles {
		if l.Role == role {
			persons = append(persons, l.Person)
		}
	}
	slices.Sort(persons)
	return persons
}

// Reviewers returns the persons who may sign allowlists, of any track.
func (r *Root) Reviewers() []string { return r.Persons(RoleReviewer) }

// Tracks returns the tracks that have a narinfo key, sorted.
func (r *Root) Tracks() []string {
	var tracks []string
	for _, k := range r.Keys {
		if k.Context == ContextNarinfo {
			tracks = append(tracks, k.Owner)
		}
	}
	slices.Sort(tracks)
	return tracks
}

// TrackKey returns `q` of the Guix key that signs the narinfos of a track, as 64
// hexadecimal digits.
func (r *Root) TrackKey(track string) (q string, ok bool) {
	for _, k := range r.Keys {
		if k.Context == ContextNarinfo && k.Owner == track {
			return k.Key, true
		}
	}
	return "", false
}

// rolesFor returns the roles of which one is needed to sign in a context.
func rolesFor(context Context) []Role {
	switch context {
	case ContextRoot:
		return []Role{RoleOfficer}
	case ContextManifest, ContextSums:
		return []Role{RoleCollector}
	case ContextAllowlist:
		return []Role{RoleReviewer}
	case ContextStatement:
		return []Role{RoleImporter, RoleBuilder, RoleStation}
	case ContextCheckpoint:
		return []Role{RoleStation}
	case ContextWitness:
		return []Role{RoleWitness}
	}
	return nil
}

// mayUse reports for each owner whether a role allows the context.
func (r *Root) mayUse(context Context) map[string]bool {
	roles := rolesFor(context)
	owners := make(map[string]bool)
	for _, l := range r.Roles {
		if slices.Contains(roles, l.Role) {
			owners[l.Person] = true
		}
	}
	return owners
}

// Signers returns the vkeys of a context whose owners have a role that allows it:
// the keys that count. Sums and narinfo keys are no vkeys; see
// [Root.SumsKeys] and [Root.TrackKey].
func (r *Root) Signers(context Context) []VKey {
	owners := r.mayUse(context)
	var keys []VKey
	for _, k := range r.Keys {
		if k.Context != context || !owners[k.Owner] {
			continue
		}
		// The name's own checks were done when the root was parsed.
		if v, err := parseVKey(k.Key); err == nil {
			keys = append(keys, v)
		}
	}
	return keys
}

// CollectorVerifiers returns the keys that sign manifests.
func (r *Root) CollectorVerifiers() []VKey { return r.Signers(ContextManifest) }

// WitnessKeys returns the keys of witnesses.
func (r *Root) WitnessKeys() []VKey { return r.Signers(ContextWitness) }

// CheckpointKeys returns the checkpoint keys of the ledger of an origin: one,
// unless it is being replaced.
func (r *Root) CheckpointKeys(origin string) []VKey {
	return slices.DeleteFunc(r.Signers(ContextCheckpoint), func(k VKey) bool { return k.Name != origin })
}

// StationKeys returns the keys with which stations sign statements.
func (r *Root) StationKeys() []VKey {
	return slices.DeleteFunc(r.Signers(ContextStatement), func(k VKey) bool { return k.Person != Station })
}

// SumsKeys returns the minisign public keys of a collector.
func (r *Root) SumsKeys(person string) []string {
	if !r.mayUse(ContextSums)[person] {
		return nil
	}
	var keys []string
	for _, k := range r.Keys {
		if k.Context == ContextSums && k.Owner == person {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

// ParseRoot checks the form of a root's text. It says nothing of who signed it: what it
// returns verifies nothing.
func ParseRoot(text []byte) (*Root, error) {
	s, err := NewScanner("root", text, MaxRootSize)
	if err != nil {
		return nil, err
	}
	r := &Root{Thresholds: make(map[string]int), Policies: make(map[string]string)}
	if !s.Title(rootTitle) {
		return nil, s.Err()
	}
	r.Enclave = s.Word("enclave")
	r.Version = s.Number("version")
	r.Date = s.Date("date")
	r.Previous = s.Previous("previous", r.Version == 1)
	if s.Err() != nil {
		return nil, s.Err()
	}
	p := rootParser{Scanner: s, r: r, public: make(map[string]bool), ids: make(map[string]bool)}
	p.body()
	// Lines that could not be read would be missed here a second time.
	if !s.bad.Has("root-syntax") && !s.bad.Has("root-size") {
		p.thresholds()
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	return r, nil
}

type rootParser struct {
	*Scanner
	r      *Root
	public map[string]bool // raw public keys
	ids    map[string]bool // NAME+HASH8
}

func (p *rootParser) body() {
	last := ""
	for n := 0; !p.bad.Full(); n++ {
		line, off, ok := p.Next()
		if !ok {
			return
		}
		if n == MaxRootLines {
			p.Refuse("size", off, "more than %d lines of body", MaxRootLines)
			return
		}
		if line == last {
			p.Refuse("duplicate", off, "line %.160q stands twice", line)
			continue
		}
		if line < last {
			p.Refuse("unsorted", off, "line %.160q stands behind a greater one", line)
		}
		last = line
		f := strings.Split(line, " ")
		switch {
		case f[0] == "key" && len(f) == 4:
			p.key(off, f[1], f[2], f[3])
		case f[0] == "policy" && len(f) == 3:
			p.policy(off, f[1], f[2])
		case f[0] == "role" && len(f) == 3:
			p.role(off, f[1], f[2])
		case f[0] == "threshold" && len(f) == 3:
			p.threshold(off, f[1], f[2])
		default:
			p.Refuse("syntax", off, "line %.160q: want `key CONTEXT OWNER KEY`, `policy NAME VALUE`, `role ROLE PERSON` or `threshold NAME N`", line)
		}
	}
}

func (p *rootParser) key(off int64, contextWord, owner, key string) {
	context, err := ParseContext(contextWord)
	if err == nil {
		err = CheckWord(owner)
	}
	if err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	var public string
	switch context {
	case ContextNarinfo:
		d, err := ParseDigest(key) // the same spelling: 64 lower-case digits
		if err != nil {
			p.Refuse("key", off, "narinfo key of track %s: want 64 lower-case hexadecimal digits", owner)
			return
		}
		if _, ok := p.r.TrackKey(owner); ok {
			p.Refuse("track-key", off, "track %s has two narinfo keys", owner)
			return
		}
		public = string(d[:])
	case ContextSums:
		if _, err := parseMinisignKey(key); err != nil {
			p.Refuse("key", off, "%v", err)
			return
		}
		if owner == Station {
			p.Refuse("owner", off, "the station has no key in the context %s", context)
			return
		}
		public = string(minisignPublic(key))
	default:
		k, err := ParseVKey(key)
		if err != nil {
			p.Refuse("key", off, "%v", err)
			return
		}
		if !p.owner(off, context, owner, k) {
			return
		}
		public = string(k.Public)
		if id := k.ID(); p.ids[id] {
			p.Refuse("duplicate-key", off, "two keys are %s", id)
		} else {
			p.ids[id] = true
		}
	}
	if p.public[public] {
		p.Refuse("duplicate-key", off, "the public key of this %s key of %s stands on another line too", context, owner)
		return
	}
	p.public[public] = true
	p.r.Keys = append(p.r.Keys, RootKey{context, owner, key})
}

// owner checks that a vkey's name says what its line says.
func (p *rootParser) owner(off int64, context Context, owner string, k VKey) bool {
	switch {
	case k.Context != context:
		p.Refuse("owner", off, "key %s stands on a line of the context %s", k.Name, context)
	case k.Person != owner:
		p.Refuse("owner", off, "key %s stands on a line of %s", k.Name, owner)
	case owner == Station && context != ContextStatement && context != ContextCheckpoint:
		p.Refuse("owner", off, "the station has no key in the context %s", context)
	case context == ContextCheckpoint && !strings.HasPrefix(k.Name, originPrefix+p.r.Enclave+"/"):
		p.Refuse("owner", off, "ledger %s is of another enclave than %s", k.Name, p.r.Enclave)
	default:
		return true
	}
	return false
}

func (p *rootParser) policy(off int64, name, value string) {
	if err := CheckWord(name); err != nil || value == "" || len(value) > maxPolicy {
		p.Refuse("syntax", off, "policy %.60q: want a name and a value of 1 to %d characters", name, maxPolicy)
		return
	}
	if _, ok := p.r.Policies[name]; ok {
		p.Refuse("duplicate", off, "policy %s stands twice", name)
		return
	}
	p.r.Policies[name] = value
}

func (p *rootParser) role(off int64, word, person string) {
	role, err := ParseRole(word)
	if err == nil {
		err = CheckWord(person)
	}
	if err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	if (role == RoleStation) != (person == Station) {
		p.Refuse("role", off, "role %s of %s: the station, and only it, has the role station, and no other", role, person)
		return
	}
	p.r.Roles = append(p.r.Roles, RoleLine{role, person})
}

func (p *rootParser) threshold(off int64, name, value string) {
	track, ok := strings.CutPrefix(name, thresholdAllowlist)
	if name != thresholdRoot && (!ok || CheckWord(track) != nil) {
		p.Refuse("syntax", off, "threshold %.60q: want root or allowlist/TRACK", name)
		return
	}
	n, err := ParseNumber(value, MaxRootLines)
	if err != nil {
		p.Refuse("syntax", off, "threshold %s: %v", name, err)
		return
	}
	if _, ok := p.r.Thresholds[name]; ok {
		p.Refuse("duplicate", off, "threshold %s stands twice", name)
		return
	}
	p.r.Thresholds[name] = int(n)
}

// thresholds checks what can be checked only when all lines have been read.
func (p *rootParser) thresholds() {
	end := p.Offset()
	able := func(context Context) int {
		owners := p.r.mayUse(context)
		persons := make(map[string]bool)
		for _, k := range p.r.Keys {
			if k.Context == context && owners[k.Owner] {
				persons[k.Owner] = true
			}
		}
		return len(persons)
	}
	officers, reviewers := able(ContextRoot), able(ContextAllowlist)
	names := make([]string, 0, len(p.r.Thresholds)+1)
	for name := range p.r.Thresholds {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		n, max := p.r.Thresholds[name], reviewers
		if name == thresholdRoot {
			max = officers
		}
		if n < 1 || n > max {
			p.Refuse("threshold-range", end, "threshold %s is %d; %d persons have the role and a key for it", name, n, max)
		}
	}
	if _, ok := p.r.Thresholds[thresholdRoot]; !ok {
		p.Refuse("threshold-missing", end, "no `threshold root`")
	}
	for _, track := range p.r.Tracks() {
		if _, ok := p.r.Thresholds[thresholdAllowlist+track]; !ok {
			p.Refuse("threshold-missing", end, "no `threshold %s%s`, but a narinfo key of the track", thresholdAllowlist, track)
		}
	}
	if q := p.r.Quorum(); q < 1 {
		p.Refuse("quorum", end, "policy quorum is %s; want 1 to %d", cmp.Or(strconv.Quote(Clip(p.r.Policies[PolicyQuorum])), "missing"), MaxQuorum)
	}
}

// OpenRoot opens version 1 of a root: its digest must be the one that was handed over,
// and its own threshold of officers must have signed it.
func OpenRoot(msg []byte, pin Digest) (*Root, error) {
	text, _, err := SplitNote("root", msg, MaxRootSize)
	if err != nil {
		return nil, err
	}
	if d := Sum(text); d != pin {
		return nil, Refuse("root-pin", "root", "its digest is %s, the one handed over is %s", d, pin).
			WithHint("compare the digest on paper with the one that was entered here")
	}
	r, err := ParseRoot(text)
	if err != nil {
		return nil, err
	}
	if r.Version != 1 {
		return nil, Refuse("root-version", "root", "version %d where 1 must stand", r.Version)
	}
	keys := r.Signers(ContextRoot)
	n, err := openNote("root", msg, MaxRootSize, keys)
	if err != nil {
		return nil, err
	}
	if _, ref := n.threshold("root", keys, r.RootThreshold(), "officers"); ref != nil {
		return nil, ref
	}
	r.opened = true
	return r, nil
}

// Next opens the version that follows r: signed by the threshold of r with the keys of
// r, and by its own threshold with its own keys.
func (r *Root) Next(msg []byte) (*Root, error) {
	if !r.opened {
		return nil, ErrNotOpened
	}
	text, _, err := SplitNote("root", msg, MaxRootSize)
	if err != nil {
		return nil, err
	}
	next, err := ParseRoot(text)
	if err != nil {
		return nil, err
	}
	subject := fmt.Sprintf("root version %d", next.Version)
	var bad Refusals
	old, own := r.Signers(ContextRoot), next.Signers(ContextRoot)
	n, err := openNote("root", msg, MaxRootSize, union(old, own))
	if rest := bad.Merge(err); rest != nil {
		return nil, rest
	}
	signed := false
	if n != nil {
		_, ref1 := n.threshold("root", old, r.RootThreshold(), fmt.Sprintf("officers of version %d", r.Version))
		_, ref2 := n.threshold("root", own, next.RootThreshold(), fmt.Sprintf("officers of version %d", next.Version))
		for _, ref := range []*Refusal{ref1, ref2} {
			if ref != nil {
				bad.Add(ref)
			}
		}
		signed = ref1 == nil && ref2 == nil
	}
	switch here, digest := r.Digest(), Sum(text); {
	case next.Version == r.Version && digest != here && signed:
		bad.Add(Refuse("root-equivocation", subject, "two roots of this version are signed: %s and %s", here, digest).
			WithHint("this is an alarm: the officers have signed two different roots of one number"))
	case next.Version < r.Version || digest == here:
		bad.Add(Refuse("root-rollback", subject, "version %d is in force", r.Version))
	case next.Version != r.Version+1:
		bad.Add(Refuse("root-version", subject, "version %d must stand here", r.Version+1))
	default:
		if next.Previous != here {
			bad.Add(Refuse("root-previous", subject, "it follows %s, but version %d is %s", next.Previous, r.Version, here))
		}
		if next.Date.Before(r.Date) {
			bad.Add(Refuse("root-date", subject, "its date %s is before that of version %d, %s", FormatDate(next.Date), r.Version, FormatDate(r.Date)))
		}
	}
	if next.Enclave != r.Enclave {
		bad.Add(Refuse("root-enclave", subject, "it is of enclave %s, not %s", next.Enclave, r.Enclave))
	}
	if len(bad) > 0 {
		return nil, bad
	}
	next.opened = true
	return next, nil
}

// OpenChain opens versions 1, 2, 3 … in order and returns the last.
func OpenChain(msgs [][]byte, pin Digest) (*Root, error) {
	if len(msgs) == 0 {
		return nil, errors.New("trust: no root")
	}
	r, err := OpenRoot(msgs[0], pin)
	for _, msg := range msgs[1:] {
		if err != nil {
			return nil, err
		}
		r, err = r.Next(msg)
	}
	return r, err
}

// union returns the keys of both lists, each once.
func union(a, b []VKey) []VKey {
	all := slices.Clone(a)
	have := make(map[string]bool, len(a))
	for _, k := range a {
		have[k.String()] = true
	}
	for _, k := range b {
		if !have[k.String()] {
			all = append(all, k)
		}
	}
	return all
}
