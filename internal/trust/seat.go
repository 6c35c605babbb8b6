package trust

import (
	"maps"
	"slices"
	"time"
)

// rolesFor returns the roles of which one is needed to sign in a context.
func rolesFor(context Context) []Role {
	switch context {
	case ContextRoot, ContextOrder:
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

// A ring is a root's keys and roles in the order in which they are asked for.
type ring struct {
	roles map[Role]map[string]bool
	seats map[Role]map[string]string // of deputies: their principals
	keys  map[Context][]ringKey      // vkeys whose owners have a role that allows the context
	ids   map[string]ringKey         // the same, by NAME+HASH8
}

type ringKey struct {
	VKey
	line RootKey
}

func (k ringKey) valid(date time.Time) bool { return k.line.ValidAt(date) }

// ring returns the root's ring.
func (r *Root) ring() *ring {
	if r.Opened() {
		return r.made
	}
	m := &ring{make(map[Role]map[string]bool), make(map[Role]map[string]string), make(map[Context][]ringKey), make(map[string]ringKey)}
	for _, l := range r.Roles {
		if m.roles[l.Role] == nil {
			m.roles[l.Role] = make(map[string]bool)
		}
		m.roles[l.Role][l.Person] = true
	}
	for _, d := range r.Deputies {
		if m.seats[d.Role] == nil {
			m.seats[d.Role] = make(map[string]string)
		}
		m.seats[d.Role][d.Deputy] = d.Principal
	}
	for _, k := range r.Keys {
		may := slices.ContainsFunc(rolesFor(k.Context), func(role Role) bool { return m.roles[role][k.Owner] })
		if !may || k.Context == ContextSums {
			continue
		}
		// The key's own checks were done when the root was parsed.
		if v, err := parseVKey(k.Key); err == nil {
			m.keys[k.Context] = append(m.keys[k.Context], ringKey{v, k})
			m.ids[v.ID()] = ringKey{v, k}
		}
	}
	return m
}

// Seat returns whose place a person takes in a role: the principal's of a deputy, else the person's own. Whoever has one seat
// counts as one person.
func (r *Root) Seat(role Role, person string) string {
	if principal, ok := r.ring().seats[role][person]; ok {
		return principal
	}
	return person
}

// A tally counts who stands for something, with a role: distinct persons, a deputy and the principal being one, and distinct public keys.
type tally struct {
	root    *Root
	role    Role
	persons map[string]bool
	seats   map[string]bool
	keys    map[RawKey]bool
}

// newTally returns an empty count of persons with a role.
func (r *Root) newTally(role Role) *tally {
	return &tally{r, role, make(map[string]bool), make(map[string]bool), make(map[RawKey]bool)}
}

func (t *tally) add(k VKey) {
	if !k.Counts() {
		return
	}
	t.persons[k.Person] = true
	t.seats[t.root.Seat(t.role, k.Person)] = true
	t.keys[k.Raw()] = true
}

func (t *tally) count() int { return min(len(t.seats), len(t.keys)) }

func (t *tally) names() []string { return slices.Sorted(maps.Keys(t.persons)) }

// Count counts the persons among keys who count towards a threshold of the role: distinct ones, a deputy and the principal being one, with
// distinct public keys.
func (r *Root) Count(role Role, keys []VKey) int {
	t := r.newTally(role)
	for _, k := range keys {
		t.add(k)
	}
	return t.count()
}

// countExtra counts the collectors among the keys that stand beside others, as Count counts those that count.
func (r *Root) countExtra(keys []VKey) int {
	seats, raw := make(map[string]bool), make(map[RawKey]bool)
	for _, k := range keys {
		if !k.Counts() {
			seats[r.Seat(RoleCollector, k.Person)] = true
			raw[k.Raw()] = true
		}
	}
	return min(len(seats), len(raw))
}

// able counts who could sign in a context at a date.
func (r *Root) able(context Context, date time.Time) int {
	return r.Count(rolesFor(context)[0], r.Signers(context, date))
}

// Collectors checks who of the collectors stands under the note of a manifest of a date: at least one, and as many with ML-DSA-87 keys as the policy asks for
// (manifest-mldsa). It returns the persons who count, sorted.
func (r *Root) Collectors(n *Note, date time.Time) (persons []string, err error) {
	t := r.newTally(RoleCollector)
	var known []VKey
	for _, s := range n.Signers {
		if k, ok := r.Signer(s.ID(), date); ok && k.Equal(s) {
			t.add(k)
			known = append(known, k)
		}
	}
	if t.count() < 1 {
		return nil, Refuse("manifest-unsigned", "manifest", "no collector has signed it%s", n.ignored())
	}
	if have, want := r.countExtra(known), r.MLDSA(); have < want {
		return nil, Refuse("manifest-mldsa", "manifest", "signed by %d of %d collectors with ML-DSA-87 keys", have, want).
			WithHint("the root demands such signatures beside the others: the collectors sign the manifest again with both keys")
	}
	return t.names(), nil
}

// met checks that enough of the root's signers stand under a note of a date. It returns the persons, sorted.
func (r *Root) met(n *Note, doc string, context Context, date time.Time, want int) (persons []string, ref *Refusal) {
	t := r.newTally(rolesFor(context)[0])
	for _, s := range n.Signers {
		if k, ok := r.Signer(s.ID(), date); ok && k.Equal(s) {
			t.add(k)
		}
	}
	persons = t.names()
	// A threshold below 1 would be no threshold; no root that was parsed has one.
	if have := t.count(); want < 1 || have < want {
		return nil, Refuse(doc+"-threshold", doc, "signed by %d of %d %s%s%s", have, want, roleWord(context), list(": ", persons), n.ignored())
	}
	return persons, nil
}
