package trust

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

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
	p := rootParser{Scanner: s, r: r, public: make(map[RawKey]bool), ids: make(map[string]bool)}
	p.sorted(MaxRootLines, p.read)
	// Lines that could not be read would be missed here a second time.
	if !s.bad.Has("root-syntax") && !s.bad.Has("root-size") {
		p.whole()
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	return r, nil
}

type rootParser struct {
	*Scanner
	r      *Root
	public map[RawKey]bool
	ids    map[string]bool // NAME+HASH8

	// Where the lines stand that can be judged only when all have been read.
	deputies, exclusive []int64
}

func (p *rootParser) read(off int64, line string) {
	f := strings.Split(line, " ")
	switch {
	case f[0] == "key" && (len(f) == 4 || len(f) == 6):
		p.key(off, f[1:])
	case f[0] == "policy" && len(f) == 3:
		p.policy(off, f[1], f[2])
	case f[0] == "role" && len(f) == 3:
		p.role(off, f[1], f[2])
	case f[0] == "deputy" && len(f) == 4:
		p.deputy(off, f[1], f[2], f[3])
	case f[0] == "exclusive" && len(f) == 3:
		p.exclude(off, f[1], f[2])
	case f[0] == "threshold" && len(f) == 3:
		p.threshold(off, f[1], f[2])
	default:
		p.Refuse("syntax", off, "line %.160q: want `deputy ROLE DEPUTY PRINCIPAL`, `exclusive ROLE ROLE`, `key CONTEXT OWNER KEY [FROM UNTIL]`, `policy NAME VALUE`, `role ROLE PERSON` or `threshold NAME N`", line)
	}
}

// key reads CONTEXT OWNER KEY, and FROM UNTIL if they are there.
func (p *rootParser) key(off int64, f []string) {
	context, err := ParseContext(f[0])
	line := RootKey{Context: context, Owner: f[1], Key: f[2]}
	if err == nil {
		err = CheckWord(line.Owner)
	}
	if len(f) == 5 && err == nil {
		line.From, line.Until, err = parseBounds(f[3], f[4])
	}
	if err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	if len(f) == 5 && !p.bounds(off, line) {
		return
	}
	var raw RawKey
	switch context {
	case ContextNarinfo, ContextSums:
		if context == ContextSums && line.Owner == Station {
			p.Refuse("owner", off, "the station has no key in the context %s", context)
			return
		}
		if raw, err = line.Raw(); err != nil {
			p.Refuse("key", off, "%v", err)
			return
		}
		if _, ok := p.r.TrackKey(line.Owner); ok && context == ContextNarinfo {
			p.Refuse("track-key", off, "track %s has two narinfo keys", line.Owner)
			return
		}
	default:
		k, err := ParseVKey(line.Key)
		if err != nil {
			p.Refuse("key", off, "%v", err)
			return
		}
		if !p.owner(off, context, line.Owner, k) {
			return
		}
		if id := k.ID(); p.ids[id] {
			p.Refuse("duplicate-key", off, "two keys are %s", id)
		} else {
			p.ids[id] = true
		}
		raw = k.Raw()
	}
	if p.public[raw] {
		p.Refuse("duplicate-key", off, "the public key of this %s key of %s stands on another line too", context, line.Owner)
		return
	}
	p.public[raw] = true
	p.r.Keys = append(p.r.Keys, line)
}

// parseBounds parses two dates, of which one may be `-`.
func parseBounds(from, until string) (f, u time.Time, err error) {
	if from == "-" && until == "-" {
		return f, u, errors.New("`- -`: a key without bounds has no dates on its line")
	}
	if from != "-" {
		if f, err = ParseDate(from); err != nil {
			return f, u, err
		}
	}
	if until != "-" {
		u, err = ParseDate(until)
	}
	return f, u, err
}

// bounds checks the dates on a key's line.
func (p *rootParser) bounds(off int64, k RootKey) bool {
	switch {
	case k.Context == ContextNarinfo || k.Context == ContextCheckpoint || k.Context == ContextWitness:
		p.Refuse("validity", off, "a key of the context %s signs what bears no date: it has no dates either", k.Context)
	case !k.From.IsZero() && !k.Until.IsZero() && !k.From.Before(k.Until):
		p.Refuse("validity", off, "from %s until %s: the first must be before the second", FormatDate(k.From), FormatDate(k.Until))
	default:
		return true
	}
	return false
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
	if _, ok := p.r.Policies[name]; ok {
		p.Refuse("duplicate", off, "policy %.60s stands twice", name)
		return
	}
	// The quorum, which must be there, has a code of its own and is judged when all lines have been read.
	if err := checkPolicy(name, value); err != nil && name != PolicyQuorum {
		p.Refuse("policy", off, "%v", err)
		return
	}
	p.r.Policies[name] = value
}

// parseRole parses a role of a line.
func (p *rootParser) parseRole(off int64, word string) (Role, bool) {
	role, err := ParseRole(word)
	if err != nil {
		p.Refuse("syntax", off, "%v", err)
	}
	return role, err == nil
}

func (p *rootParser) role(off int64, word, person string) {
	role, ok := p.parseRole(off, word)
	if !ok {
		return
	}
	if err := CheckWord(person); err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	if (role == RoleStation) != (person == Station) {
		p.Refuse("role", off, "role %s of %s: the station, and only it, has the role station, and no other", role, person)
		return
	}
	p.r.Roles = append(p.r.Roles, RoleLine{role, person})
}

func (p *rootParser) deputy(off int64, word, deputy, principal string) {
	role, ok := p.parseRole(off, word)
	if !ok {
		return
	}
	if err := cmp.Or(CheckWord(deputy), CheckWord(principal)); err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	p.r.Deputies = append(p.r.Deputies, Deputy{role, deputy, principal})
	p.deputies = append(p.deputies, off)
}

func (p *rootParser) exclude(off int64, first, second string) {
	a, ok1 := p.parseRole(off, first)
	b, ok2 := p.parseRole(off, second)
	switch {
	case !ok1 || !ok2:
	case a >= b:
		p.Refuse("syntax", off, "exclusive %s %s: want two roles, sorted", a, b)
	default:
		p.r.Exclusive = append(p.r.Exclusive, Exclusion{a, b})
		p.exclusive = append(p.exclusive, off)
	}
}

// checkThreshold checks the name of a threshold.
func checkThreshold(name string) error {
	if name == thresholdRoot || name == thresholdOrder {
		return nil
	}
	rest, ok := strings.CutPrefix(name, thresholdAllowlist)
	track, kind, two := strings.Cut(rest, "/")
	if !ok || CheckWord(track) != nil || two && !slices.Contains(itemKinds(), kind) {
		return fmt.Errorf("threshold %.60q: want root, order, allowlist/TRACK or allowlist/TRACK/KIND of a kind of items", name)
	}
	return nil
}

func (p *rootParser) threshold(off int64, name, value string) {
	if err := checkThreshold(name); err != nil {
		p.Refuse("syntax", off, "%v", err)
		return
	}
	n, err := ParseNumber(value, MaxSize)
	if err != nil {
		p.Refuse("syntax", off, "threshold %s: %v", name, err)
		return
	}
	if _, ok := p.r.Thresholds[name]; ok {
		p.Refuse("duplicate", off, "threshold %s stands twice", name)
		return
	}
	p.r.Thresholds[name] = int(min(n, MaxRootLines+1)) // which nobody can meet
}

// whole checks what can be checked only when all lines have been read.
func (p *rootParser) whole() {
	p.seats()
	p.separate()
	p.thresholds()
	p.policies()
}

// seats checks who is whose deputy.
func (p *rootParser) seats() {
	type seat struct {
		role   Role
		person string
	}
	m := p.r.ring()
	deputies := make(map[seat]bool)
	for _, d := range p.r.Deputies {
		deputies[seat{d.Role, d.Deputy}] = true
	}
	seen := make(map[seat]bool)
	for i, d := range p.r.Deputies {
		s, off := seat{d.Role, d.Deputy}, p.deputies[i]
		if seen[s] {
			p.Refuse("deputy", off, "%s is deputy of two as %s", d.Deputy, d.Role)
		}
		seen[s] = true
		// Who is deputy of oneself is a deputy who is a principal.
		if deputies[seat{d.Role, d.Principal}] {
			p.Refuse("deputy", off, "%s, whose deputy %s is as %s, is a deputy too", d.Principal, d.Deputy, d.Role)
		}
		for _, person := range []string{d.Deputy, d.Principal} {
			if !m.roles[d.Role][person] {
				p.Refuse("deputy", off, "%s is deputy of %s as %s, but %s has not the role", d.Deputy, d.Principal, d.Role, person)
			}
		}
	}
}

// separate checks that nobody has two roles that exclude each other.
func (p *rootParser) separate() {
	m := p.r.ring()
	for i, x := range p.r.Exclusive {
		for _, person := range p.r.Persons(x.A) {
			if m.roles[x.B][person] {
				p.Refuse("exclusive", p.exclusive[i], "%s is %s and %s", person, x.A, x.B)
			}
		}
	}
}

func (p *rootParser) thresholds() {
	end := p.Offset()
	root, order, reviewers := p.r.able(ContextRoot, p.r.Date), p.r.able(ContextOrder, p.r.Date), p.r.able(ContextAllowlist, p.r.Date)
	for _, name := range slices.Sorted(maps.Keys(p.r.Thresholds)) {
		n, low, high := p.r.Thresholds[name], 1, reviewers
		switch name {
		case thresholdRoot:
			high = root
		case thresholdOrder:
			high = order
		default:
			track, _, of := strings.Cut(name[len(thresholdAllowlist):], "/")
			if of {
				var ok bool
				if low, ok = p.r.Thresholds[thresholdAllowlist+track]; !ok {
					p.Refuse("threshold-missing", end, "`threshold %s`, but no `threshold %s%s`", name, thresholdAllowlist, track)
					continue
				}
			}
		}
		if n < low || n > high {
			p.Refuse("threshold-range", end, "threshold %s is %d; want at least %d, and %d persons have the role and a key for it on %s", name, n, low, high, FormatDate(p.r.Date))
		}
	}
	for _, name := range []string{thresholdRoot, thresholdOrder} {
		if _, ok := p.r.Thresholds[name]; !ok {
			p.Refuse("threshold-missing", end, "no `threshold %s`", name)
		}
	}
	for _, track := range p.r.Tracks() {
		if _, ok := p.r.Thresholds[thresholdAllowlist+track]; !ok {
			p.Refuse("threshold-missing", end, "no `threshold %s%s`, but a narinfo key of the track", thresholdAllowlist, track)
		}
	}
}

func (p *rootParser) policies() {
	end := p.Offset()
	if p.r.Quorum() < 1 {
		p.Refuse("quorum", end, "policy quorum is %s; want 1 to %d", cmp.Or(strconv.Quote(Clip(p.r.Policies[PolicyQuorum])), "missing"), MaxQuorum)
	}
	if n, able := p.r.MLDSA(), p.r.countExtra(p.r.Signers(ContextManifest, p.r.Date)); n > able {
		p.Refuse("policy", end, "policy %s is %d; %d collectors have an ML-DSA-87 key on %s", PolicyMLDSA, n, able, FormatDate(p.r.Date))
	}
	witnesses := p.r.able(ContextWitness, p.r.Date)
	for _, name := range slices.Sorted(maps.Keys(p.r.Policies)) {
		track, ok := strings.CutPrefix(name, PolicyCosigned)
		if !ok {
			continue
		}
		if _, ok := p.r.Thresholds[thresholdAllowlist+track]; !ok {
			p.Refuse("policy", end, "policy %s, but no `threshold %s%s`", name, thresholdAllowlist, track)
		}
		if n := p.r.Cosigned(track); n > witnesses {
			p.Refuse("policy", end, "policy %s is %d; %d witnesses have a key on %s", name, n, witnesses, FormatDate(p.r.Date))
		}
	}
}
