package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
)

// An Entry is a pin that a track's list has or had.
type Entry struct {
	Channel  string
	Commit   git.ID
	Item     trust.Item
	Version  int64     // of the list that brought it
	Date     time.Time // of that list
	Recalled bool
}

// A History is what a track's list has had of channels.
type History struct {
	Track   string
	entries map[string][]Entry // by channel, in the order in which they came
}

// Channels are the names, sorted.
func (h *History) Channels() []string {
	var names []string
	for name := range h.entries {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Entries are all pins of a channel, the recalled ones included, in the order in which they came.
func (h *History) Entries(channel string) []Entry { return h.entries[channel] }

// First is the first pin of a channel, recalled or not.
func (h *History) First(channel string) (Entry, bool) {
	if all := h.entries[channel]; len(all) > 0 {
		return all[0], true
	}
	return Entry{}, false
}

// Newest is the pin at which the track stands.
func (h *History) Newest(channel string) (Entry, bool) {
	for _, e := range slices.Backward(h.entries[channel]) {
		if !e.Recalled {
			return e, true
		}
	}
	return Entry{}, false
}

// A Descender tells whether a commit is another, or descends from it.
type Descender interface {
	Descends(ctx context.Context, channel string, commit, from git.ID) (bool, error)
}

// Of follows a track's list, which the caller has verified, back to its first version. A nil list has no history.
func Of(ctx context.Context, z *store.Zone, list *trust.Allowlist, orders *trust.Orders, d Descender) (*History, error) {
	h := &History{entries: map[string][]Entry{}}
	if list == nil {
		return h, nil
	}
	h.Track = list.Track
	var versions [][]Entry // newest first
	for list != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		before, err := previous(z, list)
		if err != nil {
			return nil, err
		}
		var came []Entry
		some := false
		for _, it := range list.Items {
			if it.Kind != trust.KindChannel {
				continue
			}
			some = true
			if before != nil {
				if had, ok := before.ByName(it.Name); ok && had == it {
					continue
				}
			}
			e, err := Named(it)
			if err != nil {
				return nil, err
			}
			_, e.Recalled = orders.Recalled(it.SHA256, it.Name)
			e.Version, e.Date = list.Version, list.Date
			came = append(came, e)
		}
		versions = append(versions, came)
		if !some && (orders == nil || len(orders.Recalls) == 0) {
			break // a list loses only what is recalled: no list before it has any, either
		}
		list = before
	}
	for _, came := range slices.Backward(versions) {
		by := map[string][]Entry{}
		for _, e := range came {
			by[e.Channel] = append(by[e.Channel], e)
		}
		for channel, list := range by {
			sorted, err := Sort(ctx, list, orders, d)
			if err != nil {
				return nil, err
			}
			h.entries[channel] = append(h.entries[channel], sorted...)
		}
	}
	return h, nil
}

// previous reads the version before, as it was published. It is the one whose digest the list names.
func previous(z *store.Zone, list *trust.Allowlist) (*trust.Allowlist, error) {
	if list.Version == 1 {
		return nil, nil
	}
	name := fmt.Sprintf("allowlist/%s/%d", list.Track, list.Version-1)
	note, err := z.ReadPublic(name)
	if err != nil {
		return nil, err
	}
	text, _, err := trust.SplitNote("allowlist", note, trust.MaxListSize)
	if err != nil {
		return nil, err
	}
	before, err := trust.ParseAllowlist(text)
	if err != nil {
		return nil, err
	}
	if before.Digest() != list.Previous || before.Track != list.Track || before.Version != list.Version-1 {
		return nil, trust.Refuse("allowlist-previous", name, "it is not the text that version %d follows", list.Version)
	}
	return before, nil
}

// Sort puts pins of one channel that came together in order: those from which others descend first. Where none descends from another, one for which a downgrade was
// ordered comes last.
func Sort(ctx context.Context, list []Entry, orders *trust.Orders, d Descender) ([]Entry, error) {
	if len(list) < 2 {
		return list, nil
	}
	rest := slices.Clone(list)
	slices.SortFunc(rest, func(a, b Entry) int {
		_, backA := orders.MayDowngrade(a.Channel, a.Commit.String())
		_, backB := orders.MayDowngrade(b.Channel, b.Commit.String())
		switch {
		case backA != backB && backA:
			return 1
		case backA != backB:
			return -1
		}
		return a.Item.Compare(b.Item)
	})
	var sorted []Entry
	for len(rest) > 0 {
		// The first that descends from none of the others.
		at := -1
	search:
		for i, e := range rest {
			for j, other := range rest {
				if i == j || e.Commit == other.Commit {
					continue
				}
				above, err := d.Descends(ctx, e.Channel, e.Commit, other.Commit)
				if err != nil {
					return nil, err
				}
				if above {
					continue search
				}
			}
			at = i
			break
		}
		if at < 0 {
			return nil, errors.New("commits that descend from one another in a circle")
		}
		sorted, rest = append(sorted, rest[at]), slices.Delete(rest, at, at+1)
	}
	return sorted, nil
}

// middle stands in an item's name between those of channel and commit.
const middle = "-channel-"

// Named reads the name of an item: HASH-CHANNEL-channel-COMMIT. That it is the pin's, [Read] finds out.
func Named(it trust.Item) (Entry, error) {
	bad := func(err error) (Entry, error) {
		return Entry{}, trust.Refuse("item-path", it.Name, "this is not how a channel's item is named: %v", err)
	}
	p, err := storepath.ParseBase(it.Name)
	if err != nil {
		return bad(err)
	}
	i := strings.LastIndex(p.Name(), middle)
	if i < 0 {
		return bad(fmt.Errorf("want CHANNEL%sCOMMIT", middle))
	}
	e := Entry{Channel: p.Name()[:i], Item: it}
	if err := trust.CheckChannel(e.Channel); err != nil {
		return bad(err)
	}
	if e.Commit, err = git.ParseID(p.Name()[i+len(middle):]); err != nil {
		return bad(err)
	}
	return e, nil
}

// Read reads an item from the cas, which hashes it, and demands that the item's name is that of its pin. Its pack goes to w as it passes. What is wrong with the item is
// a refusal.
func Read(c *cas.Store, it trust.Item, w io.Writer) (p *pin.Pin, h *pin.Header, err error) {
	r, err := c.Open(it.SHA256)
	var corrupt *cas.CorruptError
	if errors.Is(err, cas.ErrNotFound) || errors.As(err, &corrupt) {
		return nil, nil, lost(it, err)
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	p, h, err = pin.Open(r, w)
	if errors.As(err, &corrupt) {
		return nil, nil, lost(it, err)
	}
	if err != nil {
		return nil, nil, err
	}
	want, err := p.ItemName(it.SHA256)
	if err != nil {
		return nil, nil, trust.Refuse("item-path", it.Name, "its pin gives no name: %v", err)
	}
	if want != it.Name {
		return nil, nil, trust.Refuse("item-path", it.Name, "by its pin its name is %s", want)
	}
	return p, h, nil
}

func lost(it trust.Item, err error) error {
	return trust.Refuse("item-lost", it.Name, "%v", err).WithHint("restore the blob from a backup, or have the channel sent again as a whole")
}

// NotForward is the refusal of a pin that does not descend from the one at which a track stands.
func NotForward(channel string, commit git.ID, track string, newest git.ID) *trust.Refusal {
	return trust.Refuse("channel-not-forward", channel, "commit %s does not descend from %s, at which track %s stands", commit, newest, track).
		WithHint("ALARM if nobody wants to go back: an old state with holes that are mended since may be what somebody wants here. If it is wanted, officers order it: 'order downgrade'; or they recall the pin that should not be")
}

// Fits holds a pin against the orders in force: officers take the channel, under this URL, from this introduction.
func Fits(p *pin.Pin, orders *trust.Orders) trust.Refusals {
	c, ok := orders.Channel(p.Channel)
	if !ok {
		return trust.Refusals{trust.Refuse("channel-unknown", p.Channel, "no order in force takes this channel").
			WithHint("officers order it with its introduction, as it was handed over on paper: 'order channel'")}
	}
	var rs trust.Refusals
	const hint = "one URL, one branch, one introduction for all: see 'order show'; if the channel has moved, officers order it anew"
	if p.URL != c.URL {
		rs.Add(trust.Refuse("channel-url", p.Channel, "the pin has %q, the order %q", p.URL, c.URL).WithHint(hint))
	}
	if p.Branch != c.Branch {
		rs.Add(trust.Refuse("channel-branch", p.Channel, "the pin has %q, the order %q", p.Branch, c.Branch).WithHint(hint))
	}
	if signer := fmt.Sprintf("%X", p.Signer[:]); p.Introduction.String() != c.Commit || signer != c.Signer {
		rs.Add(trust.Refuse("channel-introduction", p.Channel, "the pin begins at %s, signed by %s; the order at %s, signed by %s", p.Introduction, signer, c.Commit, c.Signer).
			WithHint("ALARM if nobody knows of a new introduction: somebody may want another history to be taken for this channel's. " + hint))
	}
	return rs
}
