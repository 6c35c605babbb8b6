package channelhost

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/serve"
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
		h.unstage()
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
				p.byURL[strings.ToLower(u.Hostname())+strings.TrimSuffix(u.Path, "/")] = name
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
		return known.pin, nil
	}
	p, _, err := history.Read(h.Zone.CAS, it, io.Discard)
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
func (h *Host) choices(ctx context.Context, all []candidate) (good []choice, errs []error) {
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Or(cmp.Compare(b.added, a.added), a.item.Compare(b.item)) })
	var rest []choice
	for _, c := range all {
		p, err := h.pinOf(c.item)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		rest = append(rest, choice{c, p, nil})
	}
	// Rounds: what stands on nothing, what stands on that, and so on. Of several ways the shortest; most often the basis is a pin itself.
	add := func(above func(c choice) ([]trust.Item, error)) (found bool) {
		n := len(good)
		rest = slices.DeleteFunc(rest, func(c choice) bool {
			below, err := above(c)
			if err != nil {
				errs = append(errs, err)
				return true
			}
			if below == nil && !c.pin.Basis.IsZero() {
				return false
			}
			c.chain = append(slices.Clone(below), c.item)
			good = append(good, c)
			return true
		})
		return len(good) > n
	}
	exactly := func(c choice) ([]trust.Item, error) {
		for _, g := range good {
			if g.pin.Commit == c.pin.Basis {
				return g.chain, nil
			}
		}
		return nil, nil
	}
	for {
		for add(exactly) {
		}
		// Else it is somewhere in the history of one.
		known := slices.Clone(good)
		if len(rest) == 0 || !add(func(c choice) ([]trust.Item, error) {
			for _, g := range known {
				yes, err := h.descends(ctx, g, c.pin.Basis)
				if err != nil {
					return nil, err
				}
				if yes {
					return g.chain, nil
				}
			}
			return nil, nil
		}) {
			break
		}
	}
	for _, c := range rest {
		errs = append(errs, trust.Refuse("channel-basis", c.item.Name, "it needs the history up to %s, and the track allows no item that brings it", c.pin.Basis).
			WithHint("approve that item for the track too, or ship the channel with complete = true"))
	}
	slices.SortFunc(good, func(a, b choice) int { return cmp.Or(cmp.Compare(b.added, a.added), a.item.Compare(b.item)) })
	return good, errs
}

// A descent is a question about two commits, whose answer never changes.
type descent struct{ commit, from git.ID }

// descends tells whether the commit of a choice is another, or descends from it.
func (h *Host) descends(ctx context.Context, c choice, from git.ID) (bool, error) {
	q := descent{c.pin.Commit, from}
	if q.commit == q.from {
		return true, nil
	}
	if yes, ok := h.descents[q]; ok {
		return yes, nil
	}
	var r gitrun.Repository
	for _, g := range h.gens {
		if !g.isDeleted() && g.pin.Channel == c.pin.Channel && g.leads(q.commit) {
			if !g.leads(q.from) {
				h.descents[q] = false
				return false, nil
			}
			r = g.repository()
		}
	}
	if r.Objects == "" {
		dir, err := h.stage(ctx, c)
		if err != nil {
			return false, err
		}
		r.Objects = filepath.Join(dir, "objects")
		objects, err := objectsOf(r.Objects)
		if err != nil {
			return false, err
		}
		if !objects[q.from] {
			h.descents[q] = false
			return false, nil
		}
	}
	yes, err := h.isAncestor(ctx, r, q.from, q.commit)
	if err == nil {
		h.descents[q] = yes
	}
	return yes, err
}

// stage unpacks a choice, to look at its history. It is there until the preparation ends.
func (h *Host) stage(ctx context.Context, c choice) (string, error) {
	name := filepath.Join(h.tmp(), "stage-"+generationName(c.pin, c.chain))
	if _, err := os.Lstat(name); err == nil {
		return name, nil
	}
	work, err := os.MkdirTemp(h.tmp(), "make-")
	if err != nil {
		return "", err
	}
	defer durable.RemoveAll(work)
	dir := filepath.Join(work, "repository")
	if err := h.unpackAll(ctx, dir, c.chain, nil); err != nil {
		return "", err
	}
	return name, os.Rename(dir, name)
}

// unstage deletes what was unpacked to be looked at.
func (h *Host) unstage() {
	names, err := filepath.Glob(filepath.Join(h.tmp(), "stage-*"))
	for _, n := range names {
		err = errors.Join(err, durable.RemoveAll(n))
	}
	if err != nil {
		h.Log.Warn("temporary files are not deleted", "error", err)
	}
}

// errAmbiguous says that two pins came at once and neither descends from the other.
func errAmbiguous(a, b choice) error {
	return trust.Refuse("channel-ambiguous", a.item.Name, "it came onto the list together with %s, and neither commit descends from the other", b.item.Name)
}

// latest finds the choice that came last. Of those that came together it is the one that descends from the others; where none does, the one for which a downgrade was
// ordered.
func (h *Host) latest(ctx context.Context, orders *trust.Orders, good []choice) (choice, error) {
	tied := slices.DeleteFunc(slices.Clone(good), func(c choice) bool { return c.added < good[0].added })
	// What others stand on is before them. Two items of one commit are one pin, and that with less to unpack is taken.
	all := slices.Clone(tied)
	tied = slices.DeleteFunc(tied, func(c choice) bool {
		return slices.ContainsFunc(all, func(o choice) bool {
			before := o.pin.Commit != c.pin.Commit && slices.Contains(o.chain, c.item)
			same := o.pin.Commit == c.pin.Commit && cmp.Or(len(o.chain)-len(c.chain), o.item.Compare(c.item)) < 0
			return before || same
		})
	})
	var last []choice // from which none of the others descends
	for _, c := range tied {
		above := false
		for _, o := range tied {
			if o.item != c.item && !above {
				var err error
				if above, err = h.descends(ctx, o, c.pin.Commit); err != nil {
					return choice{}, err
				}
			}
		}
		if !above {
			last = append(last, c)
		}
	}
	if len(last) > 1 {
		back := slices.DeleteFunc(slices.Clone(last), func(c choice) bool {
			_, ok := orders.MayDowngrade(c.pin.Channel, c.pin.Commit.String())
			return !ok
		})
		if len(back) != 1 {
			return choice{}, errAmbiguous(last[0], last[1])
		}
		last = back
	}
	return last[0], nil
}

// channel makes the repository of a channel. It may return both one that can be served and why a newer one cannot.
func (h *Host) channel(ctx context.Context, s *state, all []candidate, before *generation) (*generation, error) {
	good, errs := h.choices(ctx, all)
	if len(good) == 0 {
		return nil, errors.Join(errs...)
	}
	last, err := h.latest(ctx, s.view.Orders, good)
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
		return &text{err: serve.Errorf(http.StatusNotFound, "release-lost", "the allowlist of release %d is not at hand any more", version)}
	}
	byChannel := map[string][]candidate{}
	for _, c := range s.at(version) {
		byChannel[channelOf(c.item)] = append(byChannel[channelOf(c.item)], c)
	}
	t := &text{}
	var pins []*pin.Pin
	for _, name := range slices.Sorted(maps.Keys(byChannel)) {
		good, errs := h.choices(ctx, byChannel[name])
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
		last, err := h.latest(ctx, s.view.Orders, good)
		if err != nil {
			p.whole = p.whole && isRefusal(err)
			return &text{err: err}
		}
		t.items = append(t.items, last.item)
		pins = append(pins, last.pin)
	}
	if len(pins) == 0 {
		return &text{err: serve.Errorf(http.StatusNotFound, "no-channel", "release %d of track %s has no channel", version, h.Track)}
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
		return &text{err: serve.Errorf(http.StatusNotFound, "no-channel", "track %s has no channel", h.Track)}
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
