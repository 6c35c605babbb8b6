package trust

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Threshold names.
const (
	thresholdRoot      = "root"
	thresholdOrder     = "order"
	thresholdAllowlist = "allowlist/" // and a track, or a track, a slash and a kind of items
)

// A RootKey is a `key` line of a root.
type RootKey struct {
	Context Context
	Owner   string // a person, Station, or for narinfo the track
	Key     string // a vkey, a minisign public key for sums, 64 hexadecimal digits for narinfo

	// From and Until bound what the key counts for: documents and statements whose date is From or later, and before Until. Zero: no bound.
	From, Until time.Time
}

// ValidAt reports whether the key counts for what bears the date.
func (k RootKey) ValidAt(date time.Time) bool {
	return !date.Before(k.From) && (k.Until.IsZero() || date.Before(k.Until))
}

// A RoleLine is a `role` line of a root.
type RoleLine struct {
	Role   Role
	Person string
}

// A Deputy is a `deputy` line of a root: in the role, both count as one person.
type Deputy struct {
	Role              Role
	Deputy, Principal string
}

// An Exclusion is an `exclusive` line of a root: nobody has both roles. A sorts before B.
type Exclusion struct{ A, B Role }

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
	Deputies   []Deputy
	Exclusive  []Exclusion
	Thresholds map[string]int    // by `root`, `order`, `allowlist/TRACK` or `allowlist/TRACK/KIND`
	Policies   map[string]string // by name

	// self is the root itself once it was opened, by its digest or by the thresholds of another opened root. A copy, which
	// somebody may change, is not opened.
	self *Root
	made *ring // of an opened root
}

// ErrNotOpened says that a root, or a list, was parsed and never verified.
var ErrNotOpened = errors.New("trust: the root was parsed but not opened; only OpenRoot, OpenChain and Root.Next give one that verifies")

// Text prints the root.
func (r *Root) Text() []byte {
	b := fmt.Appendf(nil, "%s\nenclave %s\nversion %d\ndate %s\nprevious %s\n",
		rootTitle, r.Enclave, r.Version, FormatDate(r.Date), FormatPrevious(r.Previous))
	for _, line := range r.body() {
		b = append(append(b, line...), '\n')
	}
	return b
}

// body prints the lines of the body, sorted.
func (r *Root) body() []string {
	var lines []string
	for _, k := range r.Keys {
		line := fmt.Sprintf("key %s %s %s", k.Context, k.Owner, k.Key)
		if !k.From.IsZero() || !k.Until.IsZero() {
			line += " " + formatBound(k.From) + " " + formatBound(k.Until)
		}
		lines = append(lines, line)
	}
	for _, l := range r.Roles {
		lines = append(lines, fmt.Sprintf("role %s %s", l.Role, l.Person))
	}
	for _, d := range r.Deputies {
		lines = append(lines, fmt.Sprintf("deputy %s %s %s", d.Role, d.Deputy, d.Principal))
	}
	for _, x := range r.Exclusive {
		lines = append(lines, fmt.Sprintf("exclusive %s %s", x.A, x.B))
	}
	for name, n := range r.Thresholds {
		lines = append(lines, fmt.Sprintf("threshold %s %d", name, n))
	}
	for name, value := range r.Policies {
		lines = append(lines, fmt.Sprintf("policy %s %s", name, value))
	}
	slices.Sort(lines)
	return lines
}

// formatBound prints a date, `-` for none.
func formatBound(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return FormatDate(t)
}

// Opened reports whether the root was verified: only then does it verify anything.
func (r *Root) Opened() bool { return r != nil && r.self == r }

// open marks the root as opened. It does not change any more, so its ring is made once.
func (r *Root) open() {
	r.made = r.ring()
	r.self = r
}

// Digest returns the digest of the text.
func (r *Root) Digest() Digest { return Sum(r.Text()) }

// Threshold returns how many reviewers must sign an allowlist of the track, 0 if
// the root does not say.
func (r *Root) Threshold(track string) int { return r.Thresholds[thresholdAllowlist+track] }

// KindThreshold returns how many reviewers must sign an allowlist of the track that has an item of the kind: never
// fewer than the track's threshold.
func (r *Root) KindThreshold(track, kind string) int {
	return max(r.Threshold(track), r.Thresholds[thresholdAllowlist+track+"/"+kind])
}

// ListThreshold returns how many reviewers must sign an allowlist of the track with these items, 0 if the root knows
// no such track.
func (r *Root) ListThreshold(track string, items []Item) int {
	n := r.Threshold(track)
	if n < 1 {
		return 0
	}
	for _, kind := range itemKinds() {
		if m := r.KindThreshold(track, kind); m > n && slices.ContainsFunc(items, func(it Item) bool { return it.Kind == kind }) {
			n = m
		}
	}
	return n
}

// RootThreshold returns how many officers must sign a root.
func (r *Root) RootThreshold() int { return r.Thresholds[thresholdRoot] }

// OrderThreshold returns how many officers must sign orders.
func (r *Root) OrderThreshold() int { return r.Thresholds[thresholdOrder] }

func (r *Root) setThreshold(name string, n int) {
	if r.Thresholds == nil {
		r.Thresholds = make(map[string]int)
	}
	r.Thresholds[name] = n
}

// SetThreshold sets how many reviewers must sign an allowlist of the track.
func (r *Root) SetThreshold(track string, n int) { r.setThreshold(thresholdAllowlist+track, n) }

// SetKindThreshold sets how many reviewers must sign an allowlist of the track that has an item of the kind.
func (r *Root) SetKindThreshold(track, kind string, n int) {
	r.setThreshold(thresholdAllowlist+track+"/"+kind, n)
}

// SetOrderThreshold sets how many officers must sign orders.
func (r *Root) SetOrderThreshold(n int) { r.setThreshold(thresholdOrder, n) }

// HasRole reports whether the person has the role.
func (r *Root) HasRole(person string, role Role) bool { return r.ring().roles[role][person] }

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

// Signers returns the vkeys of a context that count for what bears the date: their owners have a role that allows
// the context, and the date is within the key's bounds. Sums and narinfo keys are no vkeys; see [Root.SumsKeys] and [Root.TrackKey].
func (r *Root) Signers(context Context, date time.Time) []VKey {
	var keys []VKey
	for _, k := range r.ring().keys[context] {
		if k.valid(date) {
			keys = append(keys, k.VKey)
		}
	}
	return keys
}

// Signer returns the vkey with an id, NAME+HASH8, if it counts for what bears the date.
func (r *Root) Signer(id string, date time.Time) (VKey, bool) {
	k, ok := r.ring().ids[id]
	return k.VKey, ok && k.valid(date)
}

// CollectorVerifiers returns the keys that sign manifests of a date.
func (r *Root) CollectorVerifiers(date time.Time) []VKey { return r.Signers(ContextManifest, date) }

// WitnessKeys returns the keys of witnesses. They have no dates, since a witness says by itself when it signed.
func (r *Root) WitnessKeys() []VKey { return r.Signers(ContextWitness, r.Date) }

// CheckpointKeys returns the checkpoint keys of the ledger of an origin: one, unless it is being replaced. They have no dates, since
// checkpoints have none.
func (r *Root) CheckpointKeys(origin string) []VKey {
	return slices.DeleteFunc(r.Signers(ContextCheckpoint, r.Date), func(k VKey) bool { return k.Name != origin })
}

// StationKeys returns the keys with which stations sign statements of a date.
func (r *Root) StationKeys(date time.Time) []VKey {
	return slices.DeleteFunc(r.Signers(ContextStatement, date), func(k VKey) bool { return k.Person != Station })
}

// SumsKeys returns the minisign public keys of a collector for a shipment whose manifest bears the date.
func (r *Root) SumsKeys(person string, date time.Time) []string {
	if !r.HasRole(person, RoleCollector) {
		return nil
	}
	var keys []string
	for _, k := range r.Keys {
		if k.Context == ContextSums && k.Owner == person && k.ValidAt(date) {
			keys = append(keys, k.Key)
		}
	}
	return keys
}

// Holds reports whether the root gives this very key to a person with the role, for what is signed at a date.
func (r *Root) Holds(k interface{ RootKey() RootKey }, role Role, date time.Time) bool {
	key := k.RootKey()
	return r.HasRole(key.Owner, role) && slices.ContainsFunc(r.Keys, func(have RootKey) bool {
		return have.Context == key.Context && have.Owner == key.Owner && have.Key == key.Key && have.ValidAt(date)
	})
}

// roleWord says of what role the signers of a context are.
func roleWord(context Context) string {
	if roles := rolesFor(context); len(roles) == 1 {
		return string(roles[0]) + "s"
	}
	return strings.ToLower(string(context)) + " keys"
}
