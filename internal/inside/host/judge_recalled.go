package host

import (
	"context"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// recalled finds what tombstones are of: by content, by name, or by the derivation that makes it.
func (j *judge) recalled(context.Context) error {
	for i := range j.rows.all {
		r := &j.rows.all[i]
		v := &j.verdicts[i]
		reason, ok := j.e.tombstones.Recalled(r.hash, r.name)
		if !ok && r.path.IsDerivation() {
			sum := j.flat[int32(i)]
			for _, view := range j.e.Views {
				if it, _, listed := j.e.listed(view, r.name); listed {
					sum = it.SHA256
				}
			}
			reason, ok = j.e.tombstones.Recalled(sum, r.name)
		}
		if ok {
			j.set(int32(i), Recalled, v.maker, "%s", reason)
			continue
		}
		by := v.maker
		if by == "" {
			by = r.deriver // a claim, and enough to be careful
		}
		if by == "" {
			continue
		}
		if reason, ok := j.tombstone(by); ok {
			j.set(int32(i), Recalled, v.maker, "%s makes it: %s", by, reason)
		}
	}
	return nil
}

// tombstone says whether a derivation was recalled.
func (j *judge) tombstone(drv string) (string, bool) {
	var sum trust.Digest
	if m := j.makers[drv]; m != nil {
		sum = m.sha
	}
	return j.e.tombstones.Recalled(sum, drv)
}

// derived finds what was made from something that was recalled.
func (j *judge) derived(ctx context.Context) error {
	if !j.e.tombstones.any() {
		return nil
	}
	// All that the makers stand on.
	level := map[string]bool{}
	for i := range j.verdicts {
		if m := j.verdicts[i].maker; m != "" {
			level[m] = true
		}
	}
	seen := map[string]bool{}
	above := map[string][]string{} // who stands on it
	for len(level) > 0 {
		if err := j.loadAny(ctx, sortedKeys(level)); err != nil {
			return err
		}
		next := map[string]bool{}
		for n := range level {
			seen[n] = true
			m := j.makers[n]
			if m == nil {
				continue
			}
			for _, in := range m.inputs {
				above[in] = append(above[in], n)
				if !seen[in] && !level[in] {
					next[in] = true
				}
			}
		}
		level = next
	}
	// From what was recalled upwards, nearest first: so the chains are the shortest.
	why, down := map[string]string{}, map[string]string{}
	var queue []string
	for _, n := range sortedKeys(seen) {
		if w := j.recalledIn(n); w != "" {
			why[n], down[n] = w, n
			queue = append(queue, n)
		}
	}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		for _, up := range above[n] {
			if down[up] == "" {
				down[up] = n
				queue = append(queue, up)
			}
		}
	}
	for i := range j.verdicts {
		v := &j.verdicts[i]
		if v.maker == "" || down[v.maker] == "" || (Rules{}).refuse(v.status) {
			continue
		}
		n := v.maker
		chain := []string{n}
		for down[n] != n {
			n = down[n]
			chain = append(chain, n)
		}
		j.set(int32(i), Derived, v.maker, "made by %s, %s", strings.Join(chain, ", from "), why[n])
	}
	return nil
}

// recalledIn says what of a derivation, or of what it names itself, was recalled; "" if nothing.
func (j *judge) recalledIn(n string) string {
	if reason, ok := j.tombstone(n); ok {
		return "which was recalled: " + reason
	}
	m := j.makers[n]
	if m == nil {
		return ""
	}
	for _, s := range m.sources {
		var sum trust.Digest
		for _, v := range j.e.Views {
			if it, _, ok := j.e.listed(v, s); ok {
				sum = it.SHA256
			}
		}
		if i, ok := j.rows.find(s); ok && sum.IsZero() {
			sum = j.rows.all[i].hash
		}
		if reason, ok := j.e.tombstones.Recalled(sum, s); ok {
			return "from " + s + ", which was recalled: " + reason
		}
	}
	for _, o := range m.outputs {
		base := strings.TrimPrefix(o.Path, storepath.Dir+"/")
		var sum trust.Digest
		if i, ok := j.rows.find(base); ok {
			sum = j.rows.all[i].hash
		}
		if reason, ok := j.e.tombstones.Recalled(sum, base); ok {
			return "whose output " + base + " was recalled: " + reason
		}
	}
	return ""
}

// loadAny reads derivations, the allowed and the host's own.
func (j *judge) loadAny(ctx context.Context, names []string) error {
	for _, v := range j.e.Views {
		var here []string
		for _, n := range names {
			if it, _, ok := j.e.listed(v, n); ok && it.Kind == trust.KindDerivation {
				here = append(here, n)
			}
		}
		if err := j.load(ctx, v, here); err != nil {
			return err
		}
	}
	for _, n := range names {
		if j.makers[n] != nil {
			continue
		}
		p, err := storepath.ParseBase(n)
		if err != nil {
			continue
		}
		if got := j.local(p); got.err == nil {
			j.makers[n] = newMaker(got.d, trust.Sum(got.data))
			delete(j.unseen, n)
		} else {
			j.unseen[n] = true
		}
	}
	return nil
}
