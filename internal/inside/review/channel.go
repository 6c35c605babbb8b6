package review

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

// A ChannelPin is what a shipment brings of a channel, as a reviewer reads it.
type ChannelPin struct {
	Item         string            `json:"item"`
	Channel      string            `json:"channel"`
	URL          string            `json:"url"`
	Branch       string            `json:"branch"`
	Introduction string            `json:"introduction"`
	Signer       string            `json:"signer"`
	Commit       string            `json:"commit"`
	Basis        string            `json:"basis,omitempty"`
	NarHash      string            `json:"nar_sha256"`
	Authentic    int               `json:"authentic_commits"` // from the introduction on, as judged for this page
	Refused      []string          `json:"refused,omitempty"` // what is wrong with it by the orders and the commits as they are now
	Changes      []ChannelMovement `json:"changes"`           // against where each track stands; or against the introduction, if none has the channel
}

// A ChannelMovement is what a track would get.
type ChannelMovement struct {
	Tracks []string                 `json:"tracks"`
	From   string                   `json:"from"`
	To     string                   `json:"to"`
	Diff   *authenticate.Difference `json:"difference"`
	First  bool                     `json:"first,omitempty"` // no track has the channel: it is compared with the introduction, without its files
}

func (d *Desk) repositories() *history.Repositories {
	r := &history.Repositories{Zone: d.Zone, Git: d.Git}
	if r.Git == nil {
		r.Git = history.FindGit
	}
	return r
}

// channels refuses, of what a motion adds to a track, the pins of channels that do not fit the orders in force, that stand on what the track does not have, or that do
// not descend from where the track stands. Pins are read from the items themselves.
func (d *Desk) channels(ctx context.Context, m *motion, orders *trust.Orders) error {
	var rs trust.Refusals
	pins := map[string]*pin.Pin{} // by the item's name
	added := map[string][]history.Entry{}
	var names []string
	for _, it := range m.added {
		if it.Kind != trust.KindChannel {
			continue
		}
		p, _, err := history.Read(d.Zone.CAS, it, io.Discard)
		if err != nil {
			if err := rs.Merge(err); err != nil {
				return err
			}
			continue
		}
		rs.Add(history.Fits(p, orders)...)
		if added[p.Channel] == nil {
			names = append(names, p.Channel)
		}
		pins[it.Name] = p
		added[p.Channel] = append(added[p.Channel], history.Entry{Channel: p.Channel, Commit: p.Commit, Item: it})
	}
	if len(names) == 0 {
		return rs.Err()
	}
	repositories := d.repositories()
	h, err := history.Of(ctx, d.Zone, m.current, orders, repositories)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := rs.Merge(d.channel(ctx, m.track, name, h, added[name], pins, orders)); err != nil {
			return err
		}
	}
	return rs.Err()
}

func (d *Desk) channel(ctx context.Context, track, name string, h *history.History, added []history.Entry, pins map[string]*pin.Pin, orders *trust.Orders) error {
	repositories := d.repositories()
	repo, err := repositories.Open(ctx, name)
	if err != nil {
		return err
	}
	defer repo.Close()
	if added, err = history.Sort(ctx, added, orders, repositories); err != nil {
		return err
	}
	var rs trust.Refusals
	// What the list has, each with all it stands on, is what hosts get.
	var tips []git.ID
	for _, e := range h.Entries(name) {
		if !e.Recalled {
			tips = append(tips, e.Commit)
		}
	}
	newest, stands := h.Newest(name)
	rest := slices.Clone(added)
	for {
		n := len(rest)
		for i := 0; i < len(rest); {
			basis := pins[rest[i].Item.Name].Basis
			ok := basis.IsZero()
			if !ok {
				if ok, err = history.Descends(ctx, repo, basis, tips...); err != nil {
					return err
				}
			}
			if !ok {
				i++
				continue
			}
			tips = append(tips, rest[i].Commit)
			rest = slices.Delete(rest, i, i+1)
		}
		if len(rest) == n {
			break
		}
	}
	for _, e := range rest {
		rs.Add(trust.Refuse("channel-basis", e.Item.Name, "it stands on commit %s, which is not in the history of anything that track %s has", pins[e.Item.Name].Basis, track).
			WithHint("approve the pin before it too, or have the channel sent again as a whole"))
	}
	for _, e := range added {
		_, back := orders.MayDowngrade(name, e.Commit.String())
		if stands && !back {
			ahead, err := history.Descends(ctx, repo, newest.Commit, e.Commit)
			if err != nil {
				return err
			}
			if !ahead {
				rs.Add(history.NotForward(name, e.Commit, track, newest.Commit))
			}
		}
		newest, stands = e, true
	}
	return rs.Err()
}

// channelPins tells what a shipment brings of channels.
func (d *Desk) channelPins(ctx context.Context, items []trust.Item) ([]ChannelPin, error) {
	all := []ChannelPin{}
	var orders *trust.Orders
	for _, it := range items {
		if it.Kind != trust.KindChannel {
			continue
		}
		if orders == nil {
			var err error
			if orders, err = d.Zone.Orders(ctx, d.Root); err != nil {
				return nil, err
			}
		}
		c, err := d.channelPin(ctx, it, orders)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", it.Name, err)
		}
		all = append(all, *c)
	}
	return all, nil
}

func (d *Desk) channelPin(ctx context.Context, it trust.Item, orders *trust.Orders) (c *ChannelPin, err error) {
	p, _, err := history.Read(d.Zone.CAS, it, io.Discard)
	if err != nil {
		return nil, err
	}
	c = &ChannelPin{Item: it.Name, Channel: p.Channel, URL: p.URL, Branch: p.Branch, Introduction: p.Introduction.String(), Signer: p.Signer.String(), Commit: p.Commit.String(),
		NarHash: p.NarHash.String(), Changes: []ChannelMovement{}}
	if !p.Basis.IsZero() {
		c.Basis = p.Basis.String()
	}
	refused := history.Fits(p, orders)
	// Of a shipment that was rejected, the commits may not be here any more.
	repositories := d.repositories()
	repo, remove, err := repositories.At(ctx, p)
	if err != nil {
		c.Refused = append(c.Refused, err.Error())
		return c, nil
	}
	defer remove()
	defer func() { err = errors.Join(err, repo.Close()) }()
	report, err := repo.Authenticate(ctx, authenticate.Request{Introduction: p.Introduction, Signer: p.Signer, Keyring: pin.KeyringBranch, End: p.Commit.String()})
	if err == nil && !report.OK() {
		err = repo.Refused(report.Verdict, nil)
	}
	if err := refused.Merge(err); err != nil {
		return nil, err
	}
	for _, r := range refused {
		c.Refused = append(c.Refused, r.Error())
	}
	if report == nil || !report.OK() {
		return c, nil
	}
	c.Authentic = report.Commits
	at := map[git.ID]int{}
	for _, track := range d.Root.Tracks() {
		list, _, err := d.current(ctx, track, orders)
		if err != nil {
			return nil, err
		}
		h, err := history.Of(ctx, d.Zone, list, orders, repositories)
		if err != nil {
			return nil, err
		}
		stands, ok := h.Newest(p.Channel)
		if !ok || stands.Item == it {
			continue
		}
		if i, ok := at[stands.Commit]; ok {
			c.Changes[i].Tracks = append(c.Changes[i].Tracks, track)
			continue
		}
		diff, err := repo.Diff(ctx, report, stands.Commit)
		if err != nil {
			return nil, err
		}
		at[stands.Commit] = len(c.Changes)
		c.Changes = append(c.Changes, ChannelMovement{Tracks: []string{track}, From: stands.Commit.String(), To: c.Commit, Diff: diff})
	}
	if len(c.Changes) == 0 {
		diff, err := repo.Diff(ctx, report, p.Introduction)
		if err != nil {
			return nil, err
		}
		diff.Files, diff.Packages = nil, nil
		c.Changes = append(c.Changes, ChannelMovement{Tracks: []string{}, From: c.Introduction, To: c.Commit, Diff: diff, First: true})
	}
	return c, nil
}
