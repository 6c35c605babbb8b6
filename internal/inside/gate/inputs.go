package gate

import (
	"context"
	"fmt"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/admit"
	"sallyport/internal/trust"
)

// derivations recomputes every output path, and demands that what a derivation needs is offered or allowed.
func (j *intake) derivations(m *shipment.Manifest, allowed tracks) error {
	offered := map[string]bool{}
	for _, it := range m.Items {
		offered[it.Name] = true
	}
	var failed error // of a disk; no judgement of a derivation
	h := derivation.NewHasher(func(path string) (*derivation.Derivation, error) {
		if d := j.drvs[path]; d != nil {
			return d.d, nil
		}
		p, err := storepath.Parse(path)
		if err != nil {
			return nil, err
		}
		v := allowed.of(p.Base())
		if v == nil {
			return nil, nil
		}
		d, err := v.Derivation(p.Base())
		if _, refused := trust.AsRefusals(err); err != nil && !refused {
			failed = err
		}
		return d, err
	})
	var rs trust.Refusals
	for _, it := range m.Items {
		if it.Kind != trust.KindDerivation {
			continue
		}
		d := j.drvs[storepath.Dir+"/"+it.Name]
		refs, err := d.d.References()
		if err != nil {
			return err // its own path could not have been computed
		}
		missing := false
		for _, ref := range refs {
			if base := ref.Base(); !offered[base] && allowed.of(base) == nil {
				missing = true
				rs.Add(trust.Refuse("input-missing", it.Name, "it needs %s, which is neither on this volume nor allowed on any track", base).
					WithHint("if it came with a shipment that still waits for review, decide on that one first"))
			}
		}
		if missing {
			continue
		}
		_, err = h.Verify(d.path, d.d.Bytes())
		if failed != nil {
			return failed
		}
		if err != nil {
			rs.Add(trust.Refuse("derivation-outputs", it.Name, "%s", trust.Printable(err.Error(), 1000)))
		}
	}
	return rs.Err()
}

// tracks are the views of all tracks that have an allowlist in force.
type tracks []*admit.View

func (j *intake) allowed(ctx context.Context) (tracks, error) {
	var list tracks
	for _, track := range j.g.Root.Tracks() {
		v, err := admit.Load(ctx, j.g.Zone, j.g.Root, track)
		if rs, _ := trust.AsRefusals(err); rs.Has("no-allowlist") {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("allowlist of track %s: %w", track, err)
		}
		list = append(list, v)
	}
	return list, nil
}

// of returns a view whose allowlist names an item; nil if none does.
func (t tracks) of(name string) *admit.View {
	for _, v := range t {
		if _, ok := v.List.ByName(name); ok {
			return v
		}
	}
	return nil
}
