package ceremony

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// A Change is one thing that a root does, in words for the person who signs it.
type Change struct {
	Danger bool   `json:"danger,omitempty"` // it takes a guard away, or gives somebody power
	Text   string `json:"text"`
}

// String prints the change on one line; what is dangerous says so.
func (c Change) String() string {
	if c.Danger {
		return "DANGER  " + c.Text
	}
	return "        " + c.Text
}

// Changes says what a root changes against the one before; old is nil for version 1, whose every line is new.
func Changes(old, next *trust.Root) []Change {
	if old == nil {
		old = &trust.Root{}
	}
	w := &words{}
	w.roles(old, next)
	w.keys(old, next)
	w.deputies(old, next)
	w.exclusive(old, next)
	w.thresholds(old, next)
	w.policies(old, next)
	return sorted(w.list)
}

// sorted puts what is dangerous first.
func sorted(list []Change) []Change {
	slices.SortStableFunc(list, func(a, b Change) int {
		switch {
		case a.Danger == b.Danger:
			return 0
		case a.Danger:
			return -1
		}
		return 1
	})
	return list
}

type words struct{ list []Change }

func (w *words) say(danger bool, format string, args ...any) {
	w.list = append(w.list, Change{danger, fmt.Sprintf(format, args...)})
}

// diff returns what is in one list only: taken away from old, added by next.
func diff[T comparable](old, next []T) (gone, come []T) {
	for _, x := range old {
		if !slices.Contains(next, x) {
			gone = append(gone, x)
		}
	}
	for _, x := range next {
		if !slices.Contains(old, x) {
			come = append(come, x)
		}
	}
	return gone, come
}

func (w *words) roles(old, next *trust.Root) {
	gone, come := diff(old.Roles, next.Roles)
	for _, l := range come {
		// An officer can, with others, change everything.
		w.say(l.Role == trust.RoleOfficer && old.Version > 0, "%s becomes %s", l.Person, l.Role)
	}
	for _, l := range gone {
		w.say(false, "%s is no longer %s", l.Person, l.Role)
	}
}

func (w *words) keys(old, next *trust.Root) {
	gone, come := diff(old.Keys, next.Keys)
	for _, k := range come {
		if i := slices.IndexFunc(gone, func(g trust.RootKey) bool { return g.Line() == k.Line() }); i >= 0 {
			g := gone[i]
			longer := !g.Until.IsZero() && (k.Until.IsZero() || k.Until.After(g.Until)) || k.From.Before(g.From)
			w.say(longer, "%s counts %s, instead of %s", keyWord(k), bounds(k), bounds(g))
			gone = slices.Delete(gone, i, i+1)
			continue
		}
		w.say((k.Context == trust.ContextRoot || k.Context == trust.ContextOrder) && old.Version > 0, "%s is enrolled, %s", keyWord(k), bounds(k))
	}
	for _, k := range gone {
		w.say(false, "%s counts no longer", keyWord(k))
	}
}

// keyWord names a key: whose it is, for what, and its id or fingerprint.
func keyWord(k trust.RootKey) string {
	id := k.Key
	if v, err := k.VKey(); err == nil && k.Context != trust.ContextSums {
		id = string(v.Kind()) + " " + v.ID()
	}
	if k.Context == trust.ContextNarinfo {
		return fmt.Sprintf("track %s's Guix key %s", k.Owner, trust.Clip(id))
	}
	return fmt.Sprintf("%s's %s key %s", k.Owner, k.Context, trust.Clip(id))
}

// bounds says when a key counts.
func bounds(k trust.RootKey) string {
	switch {
	case k.From.IsZero() && k.Until.IsZero():
		return "without end"
	case k.From.IsZero():
		return "until " + trust.FormatDate(k.Until)
	case k.Until.IsZero():
		return "from " + trust.FormatDate(k.From)
	}
	return "from " + trust.FormatDate(k.From) + " until " + trust.FormatDate(k.Until)
}

func (w *words) deputies(old, next *trust.Root) {
	gone, come := diff(old.Deputies, next.Deputies)
	for _, d := range come {
		w.say(false, "%s may stand for %s as %s: the two count as one person", d.Deputy, d.Principal, d.Role)
	}
	for _, d := range gone {
		stays := next.HasRole(d.Deputy, d.Role)
		w.say(stays, "%s is no longer %s's deputy as %s%s", d.Deputy, d.Principal, d.Role, map[bool]string{true: ": from now on they count as two persons"}[stays])
	}
}

func (w *words) exclusive(old, next *trust.Root) {
	gone, come := diff(old.Exclusive, next.Exclusive)
	for _, x := range come {
		w.say(false, "nobody may be both %s and %s", x.A, x.B)
	}
	for _, x := range gone {
		w.say(true, "one person may be both %s and %s", x.A, x.B)
	}
}

func (w *words) thresholds(old, next *trust.Root) {
	for _, name := range bothKeys(old.Thresholds, next.Thresholds) {
		o, had := old.Thresholds[name]
		n, has := next.Thresholds[name]
		switch {
		case had && has && o != n:
			w.say(n < o, "threshold %s is %d, instead of %d", name, n, o)
		case has && !had:
			w.say(n < 2, "threshold %s is %d%s", name, n, map[bool]string{true: ": one person, or one stolen key, is enough"}[n < 2])
		case had && !has:
			w.say(true, "threshold %s, %d, is gone", name, o)
		}
	}
}

func (w *words) policies(old, next *trust.Root) {
	for _, name := range bothKeys(old.Policies, next.Policies) {
		o, had := old.Policies[name]
		n, has := next.Policies[name]
		before, after := number(o), number(n)
		// More days of silence, or more hours without reviewers, guard less; more builders, witnesses or signatures guard more.
		weak := name == trust.PolicySilence || name == trust.PolicyBreakGlass
		switch {
		case had && has && o != n:
			w.say(weak == (after > before), "policy %s is %s, instead of %s", name, n, o)
		case has && !had:
			w.say(name == trust.PolicyBreakGlass && old.Version > 0, "policy %s is %s", name, n)
		case had && !has:
			w.say(name != trust.PolicyBreakGlass, "policy %s, %s, is gone", name, o)
		}
	}
}

func number(s string) int64 {
	n, err := trust.ParseNumber(s, trust.MaxSize)
	if err != nil {
		return 0
	}
	return n
}

func bothKeys[V any](a, b map[string]V) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Successor returns a root to edit: the version that follows r, dated now, or as r if the clock is behind it.
func Successor(r *trust.Root, now time.Time) *trust.Root {
	if now.Before(r.Date) {
		now = r.Date
	}
	return &trust.Root{
		Enclave: r.Enclave, Version: r.Version + 1, Date: now, Previous: r.Digest(),
		Keys: slices.Clone(r.Keys), Roles: slices.Clone(r.Roles), Deputies: slices.Clone(r.Deputies), Exclusive: slices.Clone(r.Exclusive),
		Thresholds: maps.Clone(r.Thresholds), Policies: maps.Clone(r.Policies),
	}
}

// Grant gives a person a role; to have it already is no error.
func Grant(r *trust.Root, person string, role trust.Role) {
	if l := (trust.RoleLine{Role: role, Person: person}); !slices.Contains(r.Roles, l) {
		r.Roles = append(r.Roles, l)
	}
}

// Enroll adds a key, or gives one that is there other bounds.
func Enroll(r *trust.Root, k trust.RootKey) {
	if i := slices.IndexFunc(r.Keys, func(have trust.RootKey) bool { return have.Line() == k.Line() }); i >= 0 {
		r.Keys[i] = k
		return
	}
	r.Keys = append(r.Keys, k)
}

// Dismiss takes a role from a person, and with it the deputies that hang on it; of every role if role is empty, and then the keys too. It reports whether there was
// anything to take.
func Dismiss(r *trust.Root, person string, role trust.Role) bool {
	before := len(r.Roles) + len(r.Keys) + len(r.Deputies)
	of := func(have trust.Role) bool { return role == "" || have == role }
	r.Roles = slices.DeleteFunc(r.Roles, func(l trust.RoleLine) bool { return l.Person == person && of(l.Role) })
	r.Deputies = slices.DeleteFunc(r.Deputies, func(d trust.Deputy) bool { return of(d.Role) && (d.Deputy == person || d.Principal == person) })
	if role == "" {
		r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Owner == person && k.Context != trust.ContextNarinfo })
	}
	return len(r.Roles)+len(r.Keys)+len(r.Deputies) < before
}

// FindKey finds a key by what people have of it: NAME+HASH8 of a vkey, the minisign key or the digits of a Guix key, in full or at least its first 16 characters.
func FindKey(r *trust.Root, id string) (trust.RootKey, error) {
	const enough = 16
	var found []trust.RootKey
	for _, k := range r.Keys {
		if v, err := k.VKey(); err == nil && k.Context != trust.ContextSums && v.ID() == id || k.Key == id || len(id) >= enough && k.Context != trust.ContextSums && strings.HasPrefix(k.Key, id) {
			found = append(found, k)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return trust.RootKey{}, fmt.Errorf("no key %.120q in root version %d; `trust show` lists them", id, r.Version)
	}
	return trust.RootKey{}, fmt.Errorf("%d keys begin with %.120q: give more of it", len(found), id)
}

// DropKey takes a key out.
func DropKey(r *trust.Root, k trust.RootKey) {
	r.Keys = slices.DeleteFunc(r.Keys, func(have trust.RootKey) bool { return have.Line() == k.Line() })
}

// Stands reports whether an allowlist's or orders' note would be in force under a root that is only a draft, and which persons of it count. It answers for people; what
// counts is opened by an opened root.
func Stands(note []byte, r *trust.Root) (ok bool, persons []string, err error) {
	text, lines, err := trust.SplitNote("list", note, trust.MaxListSize)
	if err != nil {
		return false, nil, err
	}
	var context trust.Context
	var role trust.Role
	var date time.Time
	want, word := 0, ""
	if a, err := trust.ParseAllowlist(text); err == nil {
		context, role, date, word = trust.ContextAllowlist, trust.RoleReviewer, a.Date, "allowlist"
		want = r.ListThreshold(a.Track, a.Items)
	} else if o, err := trust.ParseOrders(text); err == nil {
		context, role, date, word, want = trust.ContextOrder, trust.RoleOfficer, o.Date, "orders", r.OrderThreshold()
	} else {
		return false, nil, fmt.Errorf("neither an allowlist nor orders: %w", err)
	}
	known := r.Signers(context, date)
	var keys []trust.VKey
	for _, line := range lines {
		if k, err := trust.VerifyLine(word, text, line, known); err == nil {
			keys = append(keys, k)
			persons = append(persons, k.Person)
		}
	}
	return want > 0 && r.Count(role, keys) >= want, persons, nil
}
