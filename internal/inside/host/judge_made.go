package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/trust"
)

// made judges the outputs of allowed derivations.
func (j *judge) made(ctx context.Context) error {
	for k, v := range j.e.Views {
		candidates := map[int32][]string{}
		load := map[string]bool{}
		for i := range j.rows.all {
			r := &j.rows.all[i]
			if s := j.verdicts[i].status; r.odd != "" || s != "" && s != Built && s != Unknown || r.path.IsDerivation() {
				continue // what one track cannot explain the next may
			}
			list := j.e.candidates(k, r.path, r.deriver)
			candidates[int32(i)] = list
			for _, n := range list {
				load[n] = true
			}
		}
		if err := j.load(ctx, v, sortedKeys(load)); err != nil {
			return err
		}
		of := map[int32]string{} // the derivation that makes the row
		ask := map[string]bool{}
		for i, list := range candidates {
			for _, n := range list {
				m := j.makers[n]
				if m == nil {
					ask[n] = true // builders may say what it makes
					continue
				}
				if _, ok := m.makes(j.rows.all[i].path); ok {
					of[i] = n
					ask[n] = true
					break
				}
			}
		}
		said, err := j.e.evidence(ctx, k, sortedKeys(ask))
		if err != nil {
			return err
		}
		why := map[string]*trust.Refusal{}
		for _, n := range sortedKeys(said) {
			if j.makers[n] == nil {
				continue
			}
			if _, err := v.Evidence(n, said[n]); err != nil {
				rs, ok := trust.AsRefusals(err)
				if !ok {
					return err
				}
				why[n] = rs[0]
			}
		}
		for i, list := range candidates {
			if n, ok := of[i]; ok {
				if err := j.output(i, v, n, why[n]); err != nil {
					return err
				}
				continue
			}
			for _, n := range list {
				if j.makers[n] != nil {
					continue
				}
				if done, err := j.word(i, v, n, said[n]); err != nil {
					return err
				} else if done {
					break
				}
			}
		}
	}
	return nil
}

// output judges the output of an allowed derivation.
func (j *judge) output(i int32, v *admit.View, drv string, why *trust.Refusal) error {
	r := &j.rows.all[i]
	it, err := v.Item(r.name)
	if err == nil {
		j.compare(i, it, Agreed, v.List.Track)
		return nil
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	if why == nil {
		why = rs[0]
	}
	m := j.makers[drv]
	o, _ := m.makes(r.path)
	switch {
	case rs.Has(codeRecalled) || why.Code == codeRecalled:
		j.set(i, Recalled, drv, "%s", why.Detail)
	case rs.Has("output-conflict") || why.Code == "quorum-dissent":
		j.set(i, Disputed, drv, "%s", why.Detail)
	case m.fixed:
		j.fixed(i, drv, o, Fixed, "track "+v.List.Track+"; "+drv+" says its hash")
	case why.Code == "quorum-waiting":
		j.set(i, Built, drv, "%s makes it; %s", drv, why.Detail)
	default:
		j.set(i, Unknown, drv, "%s", why.Error())
	}
	return nil
}

// fixed judges an output whose hash its derivation says. The path follows from that hash; where the hash is one of the nar, the database's must be the same.
func (j *judge) fixed(i int32, drv string, o derivation.Output, status, why string) {
	r := &j.rows.all[i]
	if o.HashAlgo == "r:sha256" && o.Hash != r.hash.String() {
		j.set(i, Differs, drv, "its nar is %s; %s says %s", r.hash, drv, o.Hash)
		return
	}
	j.set(i, status, drv, "%s", why)
}

// word judges an output of an allowed derivation whose file is not to be had: by what builders say that it makes.
func (j *judge) word(i int32, v *admit.View, drv string, envelopes [][]byte) (bool, error) {
	r := &j.rows.all[i]
	listed, _, ok := j.e.listed(v, drv)
	if !ok || len(envelopes) == 0 {
		return false, nil
	}
	a, err := j.e.decide(v, listed, envelopes)
	if err != nil {
		if rs, refused := trust.AsRefusals(err); refused {
			if rs.Has("quorum-dissent") && r.deriver == drv {
				j.set(i, Disputed, drv, "%s", rs[0].Detail)
				return true, nil
			}
			return false, nil
		}
		return false, err
	}
	o, ok := a.Outputs[r.path.String()]
	if !ok {
		return false, nil
	}
	it := admit.Item{Path: r.path, NarHash: o.SHA256, NarSize: o.Size}
	if it.Deriver, err = storepath.ParseBase(drv); err != nil {
		return false, err
	}
	for _, ref := range o.References {
		p, err := storepath.Parse(ref)
		if err != nil {
			return false, err
		}
		it.References = append(it.References, p)
	}
	j.compare(i, it, Agreed, v.List.Track)
	return true, nil
}

// load reads allowed derivations, several at a time, that were not read yet.
func (j *judge) load(ctx context.Context, v *admit.View, names []string) error {
	names = slices.DeleteFunc(names, func(n string) bool { _, ok := j.makers[n]; return ok })
	return each(ctx, names, func(ctx context.Context, name string) error {
		it, _, ok := j.e.listed(v, name)
		if !ok || ctx.Err() != nil {
			return nil
		}
		m, err := j.e.maker(ctx, it)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("derivation %s: %w", name, err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.makers[name] = m
		if m == nil {
			j.unseen[name] = true
		}
		j.say(1, "derivations")
		return nil
	})
}
