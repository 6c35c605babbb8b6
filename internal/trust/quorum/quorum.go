// Package quorum says whether enough builders agree on the outputs of a derivation: docs/spec/trust.md section 8.
//
// A [Vote] is a `built` statement that verifies; a [Ballot] has the votes about one derivation; [Decide] gives the [Agreement], or says who is
// missing (quorum-waiting) or who says otherwise (quorum-dissent). Nobody's word counts twice, and a word that does not verify neither counts nor dissents.
package quorum

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A BuiltOutput is one output as a builder names it.
type BuiltOutput = statement.BuiltOutput

// ledger is the kind of the ledger that builders speak to.
const ledger = "inside"

// MaxVotes is how many envelopes about one derivation are looked at.
const MaxVotes = 1000

// A Vote is a verified `built` statement of a builder.
type Vote struct {
	KeyID      string
	Person     string
	Derivation string       // store path
	SHA256     trust.Digest // of the derivation
	System     string
	Outputs    map[string]BuiltOutput // by store path

	key trust.VKey
}

// Ballot returns the votes about one derivation among envelopes: those that verify
// by the root as `built` statements about its base name, and that the orders, which may be nil, have not set aside. ignored says of each of
// the others why it does not count. A repeated vote of one key counts once.
func Ballot(root *trust.Root, orders *trust.Orders, derivation string, envelopes [][]byte) (votes []Vote, ignored trust.Refusals, err error) {
	if !root.Opened() || orders != nil && !orders.Opened() {
		return nil, nil, trust.ErrNotOpened
	}
	if len(envelopes) > MaxVotes {
		return nil, nil, trust.Refuse("quorum-size", derivation, "%d statements, more than %d", len(envelopes), MaxVotes)
	}
	seen := make(map[trust.Digest]bool)
	for i, b := range envelopes {
		if seen[trust.Sum(b)] {
			continue
		}
		seen[trust.Sum(b)] = true
		v, err := openVote(root, orders, derivation, b)
		if err != nil {
			rs, ok := trust.AsRefusals(err)
			if !ok {
				return nil, nil, err
			}
			for _, r := range rs {
				r.Subject = fmt.Sprintf("%s, statement %d", r.Subject, i)
				ignored.Add(r)
			}
			continue
		}
		votes = append(votes, v)
	}
	return votes, ignored, nil
}

func openVote(root *trust.Root, orders *trust.Orders, derivation string, b []byte) (Vote, error) {
	e, err := statement.ParseEnvelope(b)
	if err != nil {
		return Vote{}, err
	}
	if e.Kind() != statement.KindBuilt {
		return Vote{}, trust.Refuse("quorum-kind", "statement "+e.Kind(), "only %q counts", statement.KindBuilt)
	}
	s, person, err := e.Verify(root, trust.Origin(root.Enclave, ledger))
	if err != nil {
		return Vote{}, err
	}
	v := Vote{KeyID: e.KeyID(), Person: person}
	v.Derivation, _ = s.Predicate["derivation"].(string)
	if v.Derivation != storepath.Dir+"/"+derivation {
		return Vote{}, trust.Refuse("quorum-derivation", "statement "+e.Kind(), "it is about %s", v.Derivation)
	}
	if settled, ok := orders.IsSettled(derivation, v.KeyID); ok {
		return Vote{}, trust.Refuse("quorum-settled", e.KeyID(), "set aside on %s: %s", trust.FormatDate(settled.Date), settled.Reason)
	}
	date, err := s.Time()
	if err != nil {
		return Vote{}, err
	}
	v.key, _ = root.Signer(v.KeyID, date)
	sum, _ := s.Predicate["derivation-sha256"].(string)
	if v.SHA256, err = trust.ParseDigest(sum); err != nil {
		return Vote{}, err
	}
	v.System, _ = s.Predicate["system"].(string)
	v.Outputs, err = s.Outputs()
	return v, err
}

// says prints what the vote says of each output, sorted: `PATH sha256`.
func (v Vote) says() []string {
	var lines []string
	for path, o := range v.Outputs {
		lines = append(lines, path+" "+o.SHA256.String())
	}
	slices.Sort(lines)
	return lines
}

// Same reports whether both votes say the same of the same derivation.
func (v Vote) Same(other Vote) bool {
	return v.SHA256 == other.SHA256 && maps.EqualFunc(v.Outputs, other.Outputs, BuiltOutput.Equal)
}

// An Agreement is what a quorum says of one derivation.
type Agreement struct {
	Derivation string // store path
	SHA256     trust.Digest
	Outputs    map[string]BuiltOutput // by store path
	Builders   []string               // KEYIDs, sorted
	Persons    []string               // sorted
	Ignored    trust.Refusals         // statements that did not count, and why
}

// Decide decides whether the outputs of a derivation are agreed: the
// derivation, named by its base name and the digest of its file, is allowed; enough builders, distinct persons (a deputy and the principal being one) and distinct
// public keys, say the same; and no valid statement says anything else. Codes: not-allowed, recalled, quorum-waiting, quorum-dissent.
func Decide(allowed trust.Allowed, derivation string, drv trust.Digest, envelopes [][]byte) (*Agreement, error) {
	it, _, err := allowed.ByName(derivation)
	if err != nil {
		return nil, err
	}
	if it.Kind != trust.KindDerivation {
		return nil, trust.Refuse("not-allowed", derivation, "the %s has it as %s, not as a derivation", allowed.List.Subject(), it.Kind)
	}
	if it.SHA256 != drv {
		return nil, trust.Refuse("not-allowed", derivation, "the %s has it with digest %s, not %s", allowed.List.Subject(), it.SHA256, drv)
	}
	root := allowed.Root
	votes, ignored, err := Ballot(root, allowed.Orders, derivation, envelopes)
	if err != nil {
		return nil, err
	}
	if err := dissent(derivation, drv, votes); err != nil {
		return nil, err
	}
	persons, builders := make(map[string]bool), make(map[string]bool)
	var keys []trust.VKey
	for _, v := range votes {
		persons[v.Person], builders[v.KeyID] = true, true
		keys = append(keys, v.key)
	}
	a := &Agreement{
		Derivation: storepath.Dir + "/" + derivation,
		SHA256:     drv,
		Builders:   slices.Sorted(maps.Keys(builders)),
		Persons:    slices.Sorted(maps.Keys(persons)),
		Ignored:    ignored,
	}
	want := root.Quorum()
	if have := root.Count(trust.RoleBuilder, keys); want < 1 || have < want {
		r := trust.Refuse("quorum-waiting", derivation, "%d of %d builders agree: %s", have, want, cmp.Or(strings.Join(a.Persons, ", "), "nobody"))
		if len(ignored) > 0 {
			r.Detail += fmt.Sprintf("; %d statements do not count, the first: %s", len(ignored), ignored[0].Error())
		}
		return nil, r
	}
	a.Outputs = votes[0].Outputs
	return a, nil
}

// dissent lists what each builder says, one refusal a builder, unless all say the same
// of the derivation whose digest is drv.
func dissent(derivation string, drv trust.Digest, votes []Vote) error {
	same := true
	for _, v := range votes {
		same = same && v.SHA256 == drv && v.Same(votes[0])
	}
	if same {
		return nil
	}
	var bad trust.Refusals
	for _, v := range votes {
		r := trust.Refuse("quorum-dissent", derivation, "%s says %s", v.KeyID, strings.Join(v.says(), ", "))
		if v.SHA256 != drv {
			r.Detail += fmt.Sprintf(" of a derivation with digest %s", v.SHA256)
		}
		bad.Add(r.WithHint("nothing of this derivation is released until officers have settled it"))
	}
	return bad
}
