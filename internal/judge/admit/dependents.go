package admit

import (
	"cmp"
	"slices"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// A Dependent is an admitted item that needs another, directly or not.
type Dependent struct {
	Name   string       `json:"name"`
	Kind   string       `json:"kind"`
	SHA256 trust.Digest `json:"sha256"` // as a recall names it: of an item the content, of an output the nar
	Via    string       `json:"via"`    // what it needs directly, on the shortest way
	Depth  int          `json:"depth"`  // 1: it needs the item itself
}

// Dependents lists what is admitted and could not be there without one of the named items: derivations with them among their inputs, the outputs of these, and
// whatever refers to such an output; nearest first. Names that the view does not know have dependents too: a shipment may have brought an item's
// users and not the item.
func (v *View) Dependents(names ...string) ([]Dependent, error) {
	users := map[string][]string{} // by what they need
	kinds := map[string]Dependent{}
	need := func(user string, on string) { users[on] = append(users[on], user) }
	for _, it := range v.List.Items {
		kinds[it.Name] = Dependent{Name: it.Name, Kind: it.Kind, SHA256: it.SHA256}
		if it.Kind != trust.KindDerivation {
			continue
		}
		d, _, err := v.derivation(it)
		if err != nil {
			return nil, err
		}
		for _, in := range d.Inputs {
			need(it.Name, base(in.Path))
		}
		for _, src := range d.Sources {
			need(it.Name, base(src))
		}
		// Its outputs, agreed on or not: what uses them names this derivation, or its output.
		for _, o := range d.Outputs {
			need(base(o.Path), it.Name)
		}
	}
	for name, list := range v.outputs {
		kinds[name] = Dependent{Name: name, Kind: trust.KindOutput, SHA256: list[0].NarHash}
		for _, it := range list {
			need(name, it.Deriver.Base())
			for _, r := range it.References {
				if r != it.Path {
					need(name, r.Base())
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, n := range names {
		seen[n] = true
	}
	var found []Dependent
	for level, depth := names, 1; len(level) > 0; depth++ {
		var next []string
		for _, on := range level {
			for _, user := range users[on] {
				if seen[user] {
					continue
				}
				seen[user] = true
				next = append(next, user)
				// An output nobody agreed on yet is no item; what is above it may be.
				if d, ok := kinds[user]; ok {
					d.Via, d.Depth = on, depth
					found = append(found, d)
				}
			}
		}
		level = next
	}
	slices.SortFunc(found, func(a, b Dependent) int { return cmp.Or(cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.Name, b.Name)) })
	return found, nil
}

func base(path string) string {
	p, err := storepath.Parse(path)
	if err != nil {
		return path
	}
	return p.Base()
}
