package channelhost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// A state is what the host holds to be true, for one size of the ledger. It does not change.
type state struct {
	stamp    store.Stamp
	view     *admit.View
	releases []*list // by version, from 1 on; those before the first that is at hand are nil
	came     [][]candidate
	until    time.Time // when something that was let in for a while is over; zero: never
	held     error     // why the newest list is not acted on yet
	again    time.Time // when that is looked at again
}

// A list is what a host takes from one version of a track's allowlist.
type list struct {
	version  int64
	date     string
	digest   trust.Digest
	previous trust.Digest
	items    []trust.Item // of kind channel
}

// over reports whether the state is another one by now, without any document having changed.
func (s *state) over(now time.Time) bool { return !s.until.IsZero() && !now.Before(s.until) }

// judge refuses an item that is not allowed any more.
func (s *state) judge(it trust.Item) error {
	have, err := s.view.Listed(it.Name)
	if err == nil && have != it {
		err = trust.Refuse("not-allowed", it.Name, "the track allows another content under this name")
	}
	return err
}

// has reports whether the list in force, or an order, names an item of a channel.
func (s *state) has(channel string) bool {
	return slices.ContainsFunc(s.allowed(), func(c candidate) bool { return channelOf(c.item) == channel })
}

// A candidate is an item that may be what its channel stands at.
type candidate struct {
	item  trust.Item
	added int64 // the version of the list with which it came
}

// allowed lists the items of channels that may be used now.
func (s *state) allowed() []candidate {
	var all []candidate
	for _, c := range s.at(s.view.List.Version) {
		if s.judge(c.item) == nil {
			all = append(all, c)
		}
	}
	for _, b := range s.view.Glass() {
		known := slices.ContainsFunc(all, func(c candidate) bool { return c.item.Name == b.Item.Name })
		if b.Item.Kind == trust.KindChannel && !known && s.judge(b.Item) == nil {
			all = append(all, candidate{b.Item, s.view.List.Version + 1})
		}
	}
	return all
}

// at lists the items of channels in a version of the list, with the version since which each has been there.
func (s *state) at(version int64) []candidate { return s.came[version-1] }

// count finds out since when each item has been there.
func (s *state) count() {
	s.came = make([][]candidate, len(s.releases))
	since := map[trust.Item]int64{}
	for i, l := range s.releases {
		now := map[trust.Item]int64{}
		if l != nil {
			for _, it := range l.items {
				now[it] = l.version
				if v, ok := since[it]; ok {
					now[it] = v
				}
				s.came[i] = append(s.came[i], candidate{it, now[it]})
			}
		}
		since = now
	}
}

// channelOf is the channel's name in the name of an item.
func channelOf(it trust.Item) string {
	e, err := history.Named(it)
	if err != nil {
		return "" // no item that the gate let in
	}
	return e.Channel
}

// A failure is why the host serves nothing.
type failure struct {
	stamp store.Stamp
	err   error
	until time.Time
}

// now returns the state for the ledger as it is published, made anew if that has changed. If it cannot be made, nothing is served: what was believed before
// is not an answer to what is published now.
func (h *Host) now(ctx context.Context) (*state, error) {
	at, err := h.Zone.Stamp()
	if err != nil {
		return nil, err
	}
	current := func() *state {
		s := h.state.Load()
		if s == nil || s.stamp != at || s.over(h.Zone.Now()) || s.held != nil && time.Now().After(s.again) {
			return nil
		}
		return s
	}
	if s := current(); s != nil {
		return s, nil
	}
	h.renewing.Lock()
	defer h.renewing.Unlock()
	if s := current(); s != nil {
		return s, nil
	}
	if f := h.failed; f != nil && f.stamp == at && time.Now().Before(f.until) {
		return nil, f.err
	}
	// For everybody, not for the one who happens to ask: his hanging up is no failure.
	s, err := h.renew(context.WithoutCancel(ctx), at)
	if err != nil {
		if h.failed == nil || h.failed.err.Error() != err.Error() {
			h.Log.Error("nothing is served until this is mended", "track", h.Track, "error", err)
		}
		h.failed = &failure{at, err, time.Now().Add(retryAfter)}
		h.state.Store(nil)
		h.cut(nil)
		return nil, err
	}
	if h.failed != nil {
		h.Log.Warn("the host serves again", "track", h.Track)
	}
	h.failed = nil
	h.state.Store(s)
	h.cut(s)
	if p := h.prepared.Load(); s.held == nil && (p == nil || p.state.view != s.view) {
		h.wake()
	}
	return s, nil
}

// wake has what is served prepared anew.
func (h *Host) wake() {
	select {
	case h.kick <- struct{}{}:
	default: // it is on its way
	}
}

// cut ends what is being answered from repositories that hold what is not allowed any more.
func (h *Host) cut(s *state) {
	p := h.prepared.Load()
	if p == nil {
		return
	}
	for _, g := range p.served {
		if s == nil || slices.ContainsFunc(g.chain, func(it trust.Item) bool { return s.judge(it) != nil }) {
			g.cut()
		}
	}
}

// renew reads on in the ledger and makes the state that follows from it.
func (h *Host) renew(ctx context.Context, at store.Stamp) (*state, error) {
	root, err := h.Zone.Root()
	if err != nil {
		return nil, err
	}
	changes, err := h.record.Read(ctx, h.Zone, root)
	if err != nil {
		return nil, err
	}
	// What could not be made into a state once is not lost for the next time.
	h.documents = h.documents || changes.Documents
	old := h.last
	if old != nil && !h.documents && old.held == nil && !old.over(h.Zone.Now()) {
		s := *old
		s.stamp = at
		h.last = &s
		return &s, nil
	}
	view, err := h.record.View(ctx, h.Zone, root, h.Track)
	if err != nil {
		return nil, err
	}
	if err := admit.Raise(filepath.Join(h.Zone.Dir, "floor", "channels-"+h.Track+".json"), view); err != nil {
		return nil, err
	}
	s := &state{stamp: at, view: view, until: view.Expires()}
	for _, b := range view.Glass() {
		if b.Item.Kind == trust.KindChannel {
			h.Log.Warn("break-glass: served without its reviewers", "track", h.Track, "item", b.Item.Name, "until", trust.FormatDate(b.Until), "reason", b.Reason)
		}
	}
	if err := h.history(s); err != nil {
		return nil, err
	}
	s.count()
	err = h.record.Cosigned(ctx, h.Zone, view)
	if _, refused := trust.AsRefusals(err); refused {
		if old == nil || old.held == nil {
			h.Log.Warn("the newest list is not acted on yet, but for recalls", "track", h.Track, "version", view.List.Version, "error", err)
		}
		s.held, s.again = err, time.Now().Add(retryAfter)
	} else if err != nil {
		return nil, err
	}
	h.documents, h.last = false, s
	return s, nil
}

// history follows the track's allowlists back from the one in force, each by the digest that the next one gives. They are published files, and nobody's
// signature needs to be asked for: the one in force vouches for all before it.
func (h *Host) history(s *state) error {
	newest := s.view.List
	s.releases = make([]*list, newest.Version)
	at := &list{version: newest.Version, date: trust.FormatDate(newest.Date), digest: newest.Digest(), previous: newest.Previous, items: channelItems(newest.Items)}
	h.lists[at.digest] = at
	for {
		s.releases[at.version-1] = at
		if at.version == 1 {
			return nil
		}
		before := h.lists[at.previous]
		if before == nil {
			var err error
			if before, err = h.readList(at.version-1, at.previous); err != nil {
				if _, refused := trust.AsRefusals(err); refused || errors.Is(err, os.ErrNotExist) {
					// Whoever took it away took away old releases and nothing else.
					h.Log.Warn("older releases are not served", "track", h.Track, "newest", at.version-1, "error", err)
					return nil
				}
				return err
			}
			h.lists[before.digest] = before
		}
		at = before
	}
}

func channelItems(all []trust.Item) []trust.Item {
	var items []trust.Item
	for _, it := range all {
		if it.Kind == trust.KindChannel {
			items = append(items, it)
		}
	}
	return items
}

// readList reads a version of the allowlist whose digest is known. A list may be long, and of an old one only the items of channels are wanted.
func (h *Host) readList(version int64, digest trust.Digest) (*list, error) {
	name := filepath.Join(h.Zone.Dir, "public", "allowlist", h.Track, strconv.FormatInt(version, 10))
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	note, err := io.ReadAll(io.LimitReader(f, store.MaxPublic+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	text, _, err := trust.SplitNote("allowlist", note, trust.MaxListSize)
	if err != nil {
		return nil, err
	}
	if got := trust.Sum(text); got != digest {
		return nil, trust.Refuse("allowlist-previous", fmt.Sprintf("allowlist %s version %d", h.Track, version), "its digest is %s, the next version follows %s", got, digest)
	}
	// The text is the one that was signed: taking lines from it is reading, not judging.
	l := &list{version: version, digest: digest}
	for line := range bytes.Lines(text) {
		s := strings.TrimSuffix(string(line[:min(len(line), 1024)]), "\n")
		if date, ok := strings.CutPrefix(s, "date "); ok && l.date == "" {
			l.date = date
		}
		if previous, ok := strings.CutPrefix(s, "previous "); ok && l.previous.IsZero() && version > 1 {
			if l.previous, err = trust.ParseDigest(previous); err != nil {
				return nil, err
			}
		}
		if fields, ok := strings.CutPrefix(s, "item "); ok && strings.Contains(fields, " "+trust.KindChannel+" ") {
			it, err := trust.ParseItem(fields)
			if err != nil {
				return nil, err
			}
			l.items = append(l.items, it)
		}
	}
	return l, nil
}
