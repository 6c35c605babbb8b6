package channelhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// prepareAll makes what is to be served, whenever that has changed.
func (h *Host) prepareAll() {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-h.kick:
		case <-again.C:
		}
		s := h.state.Load()
		if s == nil || s.held != nil {
			continue
		}
		p := h.prepare(h.ctx, s)
		if h.ctx.Err() != nil {
			return
		}
		old := h.prepared.Swap(p)
		switch {
		case !p.whole:
			again.Reset(retryAfter)
		case len(p.missing) > 0:
			again.Reset(lookAgain) // an item that was lost may have been brought again
		}
		h.tell(p)
		h.clean(old, p)
		if now := h.state.Load(); now != nil && now.view != s.view {
			h.wake()
		}
	}
}

// tell says, once, what cannot be served.
func (h *Host) tell(p *prepared) {
	var said []string
	for _, name := range slices.Sorted(maps.Keys(p.missing)) {
		said = append(said, fmt.Sprintf("%s: %v", name, p.missing[name]))
	}
	for i, t := range p.releases {
		if t.err != nil {
			said = append(said, fmt.Sprintf("release %d: %v", i+1, t.err))
		}
	}
	if all := strings.Join(said, "\n"); all != h.said {
		for _, s := range said {
			if !strings.Contains(h.said, s) {
				h.Log.Warn("not served", "track", h.Track, "what", s)
			}
		}
		h.said = all
	}
}

// clean deletes repositories that are served no more.
func (h *Host) clean(old, now *prepared) {
	used := map[string]bool{}
	for _, g := range now.served {
		used[g.name] = true
	}
	if old != nil {
		for _, g := range old.served {
			if !used[g.name] {
				g.retire()
			}
		}
	}
	maps.DeleteFunc(h.gens, func(_ string, g *generation) bool { return g.isDeleted() })
	if !now.whole {
		return // what lies there may be wanted yet
	}
	names, err := os.ReadDir(h.Dir)
	if err != nil {
		h.Log.Warn("old repositories are not deleted", "error", err)
		return
	}
	for _, n := range names {
		if strings.HasSuffix(n.Name(), ".git") && !used[n.Name()] && h.gens[n.Name()] == nil {
			if err := durable.RemoveAll(filepath.Join(h.Dir, n.Name())); err != nil {
				h.Log.Warn("an old repository is not deleted", "error", err)
			}
		}
	}
}

// prepare makes repositories and texts for a state. What cannot be made is told in what it returns.
func (h *Host) prepare(ctx context.Context, s *state) *prepared {
	p := &prepared{state: s, served: map[string]*generation{}, missing: map[string]error{}, byURL: map[string]string{}, whole: true}
	old := h.prepared.Load()

	byChannel := map[string][]candidate{}
	for _, c := range s.allowed() {
		byChannel[channelOf(c.item)] = append(byChannel[channelOf(c.item)], c)
	}
	for _, name := range slices.Sorted(maps.Keys(byChannel)) {
		var before *generation
		if old != nil {
			before = old.served[name]
		}
		g, err := h.channel(ctx, s, byChannel[name], before)
		if g != nil {
			p.served[name] = g
			if u, err := url.Parse(g.pin.URL); err == nil && u.Host != "" {
				p.byURL[strings.ToLower(u.Hostname())+u.EscapedPath()] = name
			}
		}
		if err != nil {
			p.whole = p.whole && isRefusal(err)
			p.missing[name] = err
		}
	}
	for i := range s.releases {
		p.releases = append(p.releases, h.release(ctx, s, p, int64(i+1)))
	}
	p.newest = h.newest(s, p)
	return p
}

func isRefusal(err error) bool {
	_, refused := trust.AsRefusals(err)
	return refused
}

// pinOf reads the pin of an item.
func (h *Host) pinOf(it trust.Item) (*pin.Pin, error) {
	if known := h.pins[it.SHA256]; known != nil && known.item == it {
		return known.pin, known.err
	}
	p, err := h.openItem(it, io.Discard)
	if err == nil && len(h.pins) < maxPinned {
		h.pins[it.SHA256] = &pinned{item: it, pin: p}
	}
	return p, err
}

// A choice is a pin that can be served, with what has to be unpacked for it.
type choice struct {
	candidate
	pin   *pin.Pin
	chain []trust.Item
}

// choices finds, of one channel's candidates, those whose bases are there. errs has why others cannot be served, the newest first.
func (h *Host) choices(all []candidate) (good []choice, errs []error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.added, a.added), a.item.Compare(b.item)) })
	pins := map[trust.Digest]*pin.Pin{}
	at := map[git.ID][]candidate{}
	for _, c := range all {
		p, err := h.pinOf(c.item)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pins[c.item.SHA256] = p
		at[p.Commit] = append(at[p.Commit], c)
	}
	// The chain to an item, the shortest there is; busy keeps from going in a circle.
	chains := map[trust.Digest][]trust.Item{}
	busy := map[trust.Digest]bool{}
	var chain func(c candidate) []trust.Item
	chain = func(c candidate) []trust.Item {
		d := c.item.SHA256
		if known, ok := chains[d]; ok || busy[d] {
			return known
		}
		busy[d] = true
		defer delete(busy, d)
		var best []trust.Item
		if basis := pins[d].Basis; basis.IsZero() {
			best = []trust.Item{c.item}
		} else {
			for _, b := range at[basis] {
				if below := chain(b); below != nil && (best == nil || len(below)+1 < len(best)) {
					best = append(slices.Clone(below), c.item)
				}
			}
		}
		chains[d] = best
		return best
	}
	for _, c := range all {
		p := pins[c.item.SHA256]
		if p == nil {
			continue
		}
		if whole := chain(c); whole != nil {
			good = append(good, choice{c, p, whole})
		} else {
			errs = append(errs, trust.Refuse("channel-basis", c.item.Name, "it needs the history up to %s, and the track allows no item that brings it", p.Basis).
				WithHint("approve that item for the track too, or ship the channel with complete = true"))
		}
	}
	return good, errs
}

// errAmbiguous says that two pins came at once and neither descends from the other.
func errAmbiguous(a, b choice) error {
	return trust.Refuse("channel-ambiguous", a.item.Name, "it came onto the list together with %s, and neither commit descends from the other", b.item.Name)
}

// latest finds the choice that came last. Of those that came together it is the one that descends from the others; compare is asked, if their chains do not tell.
func latest(good []choice, compare func(tied []choice) (choice, error)) (choice, error) {
	tied := slices.DeleteFunc(slices.Clone(good), func(c choice) bool { return c.added < good[0].added })
	all := slices.Clone(tied)
	tied = slices.DeleteFunc(tied, func(c choice) bool {
		return slices.ContainsFunc(all, func(other choice) bool {
			return other.item != c.item && slices.Contains(other.chain, c.item)
		})
	})
	// Two items of one commit are one pin.
	slices.SortFunc(tied, func(a, b choice) int { return cmp.Or(len(a.chain)-len(b.chain), a.item.Compare(b.item)) })
	var one []choice
	for _, c := range tied {
		if !slices.ContainsFunc(one, func(o choice) bool { return o.pin.Commit == c.pin.Commit }) {
			one = append(one, c)
		}
	}
	if len(one) == 1 {
		return one[0], nil
	}
	return compare(one)
}

// tiedName names a set of choices.
func tiedName(tied []choice) string {
	var b strings.Builder
	for _, c := range tied {
		fmt.Fprintf(&b, "%s\n", c.item)
	}
	return b.String()
}

// compareIn finds, in a repository that has all of them, the choice that descends from all others.
func (h *Host) compareIn(ctx context.Context, r gitrun.Repository, tied []choice) (choice, error) {
	name := tiedName(tied)
	if winner, ok := h.winners[name]; ok {
		return tied[slices.IndexFunc(tied, func(c choice) bool { return c.item.String() == winner })], nil
	}
	best := tied[0]
	for _, c := range tied[1:] {
		yes, err := h.descends(ctx, r, c.pin.Commit, best.pin.Commit)
		if err != nil {
			return choice{}, err
		}
		if yes {
			best = c
		}
	}
	for _, c := range tied {
		yes, err := h.descends(ctx, r, best.pin.Commit, c.pin.Commit)
		if err != nil {
			return choice{}, err
		}
		if !yes {
			return choice{}, errAmbiguous(best, c)
		}
	}
	h.winners[name] = best.item.String()
	return best, nil
}

// channel makes the repository of a channel. It may return both one that can be served and why a newer one cannot.
func (h *Host) channel(ctx context.Context, s *state, all []candidate, before *generation) (*generation, error) {
	good, errs := h.choices(all)
	if len(good) == 0 {
		return nil, errors.Join(errs...)
	}
	last, err := latest(good, func(tied []choice) (choice, error) {
		work, err := os.MkdirTemp(h.tmp(), "compare-")
		if err != nil {
			return choice{}, err
		}
		defer durable.RemoveAll(work)
		var items []trust.Item
		for _, c := range tied {
			for _, it := range c.chain {
				if !slices.Contains(items, it) {
					items = append(items, it)
				}
			}
		}
		dir := filepath.Join(work, "repository")
		if err := h.unpackAll(ctx, dir, items, nil); err != nil {
			return choice{}, err
		}
		return h.compareIn(ctx, gitrun.Repository{Objects: filepath.Join(dir, "objects")}, tied)
	})
	if err != nil {
		// What was served before is as good as it was.
		if before != nil && slices.IndexFunc(before.chain, func(it trust.Item) bool { return s.judge(it) != nil }) < 0 {
			return before, err
		}
		return nil, err
	}
	g, err := h.generation(ctx, last, before)
	if err != nil {
		if before != nil && slices.IndexFunc(before.chain, func(it trust.Item) bool { return s.judge(it) != nil }) < 0 {
			return before, err
		}
		return nil, err
	}
	return g, errors.Join(errs...)
}

// generation finds the repository of a choice, or makes it.
func (h *Host) generation(ctx context.Context, c choice, before *generation) (*generation, error) {
	name := generationName(c.pin, c.chain)
	if g := h.gens[name]; g != nil && g.revive() {
		return g, nil
	}
	g := &generation{name: name, dir: filepath.Join(h.Dir, name), pin: c.pin, chain: c.chain}
	g.start(h.ctx)
	if _, err := os.Lstat(g.dir); err == nil {
		if err := intact(g.dir); err != nil {
			h.Log.Warn("a repository is made again", "track", h.Track, "channel", c.pin.Channel, "error", err)
			if err := durable.RemoveAll(g.dir); err != nil {
				return nil, err
			}
		}
	}
	if _, err := os.Lstat(g.dir); errors.Is(err, os.ErrNotExist) {
		err := h.make(ctx, g, before)
		if err != nil && before != nil && ctx.Err() == nil {
			// What was served has no more than its own references lead to; perhaps that was too little.
			err = h.make(ctx, g, nil)
		}
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	var err error
	if g.commits, err = h.commits(ctx, g.repository()); err != nil {
		return nil, err
	}
	h.gens[name] = g
	return g, nil
}

// release makes the channels.scm of one version of the list.
func (h *Host) release(ctx context.Context, s *state, p *prepared, version int64) *text {
	l := s.releases[version-1]
	if l == nil {
		return &text{err: &httpError{404, "release-lost", fmt.Sprintf("the allowlist of release %d is not at hand any more", version)}}
	}
	byChannel := map[string][]candidate{}
	for _, c := range s.at(version) {
		byChannel[channelOf(c.item)] = append(byChannel[channelOf(c.item)], c)
	}
	t := &text{}
	var pins []*pin.Pin
	for _, name := range slices.Sorted(maps.Keys(byChannel)) {
		good, errs := h.choices(byChannel[name])
		for _, err := range errs {
			if rs, refused := trust.AsRefusals(err); !refused || !rs.Has("channel-basis") {
				p.whole = p.whole && refused
				t.err = err
			}
		}
		if t.err != nil {
			// An item that cannot be read might be the one that the release stands at.
			return t
		}
		if len(good) == 0 {
			continue // it cannot be served from what this release allows, today as then
		}
		g := p.served[name]
		last, err := latest(good, func(tied []choice) (choice, error) {
			for _, c := range tied {
				if g == nil || !g.leads(c.pin.Commit) {
					return choice{}, trust.Refuse("release-behind", c.item.Name, "the track does not serve a history that has this commit any more")
				}
			}
			return h.compareIn(ctx, g.repository(), tied)
		})
		if err != nil {
			p.whole = p.whole && isRefusal(err)
			return &text{err: err}
		}
		t.items = append(t.items, last.item)
		pins = append(pins, last.pin)
	}
	if len(pins) == 0 {
		return &text{err: &httpError{404, "no-channel", fmt.Sprintf("release %d of track %s has no channel", version, h.Track)}}
	}
	for i, pin := range pins {
		if err := s.view.Recalled(t.items[i].SHA256, t.items[i].Name); err != nil {
			t.err = err
			return t
		}
		if g := p.served[pin.Channel]; g == nil || !g.leads(pin.Commit) {
			t.err = trust.Refuse("release-behind", t.items[i].Name, "the track does not serve this commit any more: it went back behind it, or cannot serve the channel")
			return t
		}
	}
	t.body = h.channelsText(fmt.Sprintf("release %d of %s", version, l.date), s, pins)
	return t
}

// newest makes the channels.scm of what is served. Unless officers have let something in, or recalled something, it is that of the newest release.
func (h *Host) newest(s *state, p *prepared) *text {
	if len(p.served) == 0 {
		return &text{err: &httpError{404, "no-channel", fmt.Sprintf("track %s has no channel", h.Track)}}
	}
	t := &text{}
	var pins []*pin.Pin
	for _, name := range slices.Sorted(maps.Keys(p.served)) {
		g := p.served[name]
		t.items = append(t.items, g.chain...)
		pins = append(pins, g.pin)
	}
	if last := p.releases[len(p.releases)-1]; last.err == nil {
		var same []trust.Item
		for _, name := range slices.Sorted(maps.Keys(p.served)) {
			same = append(same, p.served[name].chain[len(p.served[name].chain)-1])
		}
		if slices.Equal(same, last.items) {
			t.body = last.body
			return t
		}
	}
	t.body = h.channelsText("not a release: what is allowed now", s, pins)
	return t
}

func (h *Host) channelsText(what string, s *state, pins []*pin.Pin) []byte {
	var channels []scheme.Channel
	for _, p := range pins {
		channels = append(channels, p.Scheme())
	}
	return append(fmt.Appendf(nil, ";; Channels of enclave %s, track %s, %s\n", s.view.Root.Enclave, h.Track, what), scheme.PrintChannels(channels)...)
}
