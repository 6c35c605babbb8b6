// Package admit is the one judgement behind everything that serves, signs or builds: may this store item be used on this track?
//
// # What it goes by
//
// Signed documents alone: the root, opened from the digest that was handed over; the officers' orders; the track's allowlist, with its threshold of reviewers;
// and builders' statements. A [View] is made of these, and of nothing that lies in a catalog. An item is admitted if
//
//   - the allowlist names it: its content must then have the digest that stands there; or
//   - officers let it in without the reviewers, and the time that they gave it is not over; or
//   - it is an output of a derivation which the allowlist names, under the path that this derivation gives it, and a quorum of builders agrees on it, and
//     nobody disagrees.
//
// The allowlist comes first: no agreement of builders replaces an item that reviewers named. Before all of it come recalls: what the orders recall, by content or by
// name, and the outputs of a recalled derivation, are out (`recalled`).
//
// # What the ledger says
//
// A [Record] reads the ledger of a zone, every entry, and hashes what it reads: it must be the tree under the signed checkpoint. From there it has
// the builders' statements, so that no deleted row hides one that disagrees; and the entry by which an allowlist came into force, so that a list that
// was slipped past the ledger is not acted on. Reading on after the ledger has grown costs what has been added.
//
// # Floors
//
// Each verifier keeps the highest versions it has accepted in a file of its own ([Raise]), written durably before it acts on a newer one. A verifier
// never goes back, whatever the disk says now.
package admit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/storepath"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
	"sallyport/internal/trust/quorum"
)

// MaxDerivation bounds a derivation file that is read to learn its outputs and references.
const MaxDerivation = 64 << 20

// An Opener gives out content by its digest. It is asked for derivations only.
type Opener func(trust.Digest) (io.ReadCloser, error)

// A View is what one verifier holds to be allowed on one track. One that is shared is not changed: see [View.Clone].
type View struct {
	Root   *trust.Root
	Orders *trust.Orders // nil: none yet
	List   *trust.Allowlist

	clock   func() time.Time
	open    Opener
	outputs map[string][]Item   // agreed outputs, by base name: one of each derivation that has it
	made    map[string][]string // base names of a derivation's agreed outputs
}

// An Item is an admitted store item. Only a View makes one.
type Item struct {
	Path       storepath.Path
	Kind       string       // of the allowlist's item; "output" for what builders agreed on
	Content    trust.Digest // of the item's content as it is kept: the nar, or the file of a derivation
	Size       int64        // of that content
	NarHash    trust.Digest
	NarSize    int64
	References []storepath.Path // sorted
	Deriver    storepath.Path   // of an agreed output
}

// Flat reports whether the content is kept as a plain file, and served as the nar of one.
func (it Item) Flat() bool { return it.Kind == trust.KindDerivation }

// Same reports whether both are the same item with the same content. Two derivations may have one output: the deriver does not count.
func (it Item) Same(other Item) bool {
	return it.Path == other.Path && it.NarHash == other.NarHash && it.NarSize == other.NarSize && slices.Equal(it.References, other.References)
}

// Described demands that a narinfo says of the item what is admitted: path, nar, references.
func (it Item) Described(n *narinfo.NarInfo) error {
	refs := slices.SortedFunc(slices.Values(n.References), storepath.Path.Compare)
	if !it.Same(Item{Path: n.StorePath, NarHash: n.NarHash, NarSize: n.NarSize, References: refs}) {
		return trust.Refuse("narinfo-content", it.Path.Base(), "the narinfo is about %s: nar %s, %d bytes, %d references; admitted is nar %s, %d bytes, %d references",
			n.StorePath, trust.Digest(n.NarHash), n.NarSize, len(refs), it.NarHash, it.NarSize, len(it.References))
	}
	return nil
}

// New makes a view of an opened root, opened orders (nil: none yet) and an opened allowlist. The clock is asked whether what officers let in for a while is still in; a
// document that is dated later than the clock says is believed more.
func New(root *trust.Root, orders *trust.Orders, list *trust.Allowlist, clock func() time.Time, open Opener) *View {
	return &View{Root: root, Orders: orders, List: list, clock: clock, open: open, outputs: map[string][]Item{}, made: map[string][]string{}}
}

// Load makes the view of a zone's track from the allowlist and the orders in force, without any evidence of builders. Rows say where they lie, and nothing else.
func Load(ctx context.Context, z *store.Zone, root *trust.Root, track string) (*View, error) {
	note, err := z.Allowlist(ctx, track)
	if err != nil {
		return nil, err
	}
	orders, err := z.Orders(ctx, root)
	if err != nil {
		return nil, err
	}
	open := func(d trust.Digest) (io.ReadCloser, error) { return z.CAS.Open(d) }
	if note == nil {
		return nil, trust.Refuse("no-allowlist", "track "+track, "nothing was approved for it yet").WithHint("'review approve' makes the first allowlist")
	}
	list, _, err := trust.OpenAllowlist(note, root, orders)
	if err != nil {
		return nil, err
	}
	if list.Track != track {
		return nil, trust.Refuse("allowlist-track", "track "+track, "the allowlist that lies there is of track %q", list.Track)
	}
	return New(root, orders, list, z.Now, open), nil
}

// now is the time by which what officers let in ends.
func (v *View) now() time.Time {
	t := v.clock()
	for _, d := range []time.Time{v.Root.Date, v.List.Date} {
		if d.After(t) {
			t = d
		}
	}
	if v.Orders != nil && v.Orders.Date.After(t) {
		t = v.Orders.Date
	}
	return t
}

// allowed is what the documents say by themselves.
func (v *View) allowed() trust.Allowed {
	return trust.Allowed{Root: v.Root, Orders: v.Orders, List: v.List, Now: v.now()}
}

// Glass lists what officers have let in without the reviewers, and only for a while. Whoever serves or builds says so.
func (v *View) Glass() []trust.BreakGlass { return v.Orders.ForTrack(v.List.Track, v.now()) }

// Expires is when the view will be another one without any document having changed; the zero time: never.
func (v *View) Expires() time.Time {
	var first time.Time
	for _, b := range v.Glass() {
		if first.IsZero() || b.Until.Before(first) {
			first = b.Until
		}
	}
	return first
}

// Recalled refuses what is recalled: by name, or by content.
func (v *View) Recalled(sha256 trust.Digest, name string) error {
	if r, gone := v.Orders.Recalled(sha256, name); gone {
		return r.Refusal(name).WithHint("'order show' has the recall; nothing brings it back under this content or this name")
	}
	return nil
}

// Clone returns a view to which evidence can be added while others read this one.
func (v *View) Clone() *View {
	c := *v
	c.outputs, c.made = maps.Clone(v.outputs), maps.Clone(v.made)
	return &c
}

// Evidence is what builders say of one derivation, named by its base name: it takes the place of what they said before. The error tells why there is no
// agreement; that is no fault, and [View.Item] knows of no output then.
func (v *View) Evidence(name string, envelopes [][]byte) (*quorum.Agreement, error) {
	v.forget(name)
	drv, err := v.Listed(name)
	if err != nil {
		return nil, err
	}
	a, err := quorum.Decide(v.allowed(), name, drv.SHA256, envelopes)
	if err != nil {
		return nil, err
	}
	d, _, err := v.derivation(drv)
	if err != nil {
		return nil, err
	}
	if err := CheckOutputs(name, d, a.Outputs); err != nil {
		return nil, err
	}
	deriver, err := storepath.ParseBase(name)
	if err != nil {
		return nil, err
	}
	var items []Item
	for path, o := range a.Outputs {
		it := Item{Kind: trust.KindOutput, Content: o.SHA256, Size: o.Size, NarHash: o.SHA256, NarSize: o.Size, Deriver: deriver}
		if it.Path, err = storepath.Parse(path); err != nil {
			return nil, trust.Refuse("output-path", name, "%v", err)
		}
		for _, r := range o.References {
			ref, err := storepath.Parse(r)
			if err != nil {
				return nil, trust.Refuse("output-path", name, "%v", err)
			}
			it.References = append(it.References, ref)
		}
		slices.SortFunc(it.References, storepath.Path.Compare)
		items = append(items, it)
	}
	for _, it := range items {
		base := it.Path.Base()
		list := append(slices.Clone(v.outputs[base]), it)
		slices.SortFunc(list, func(a, b Item) int { return a.Deriver.Compare(b.Deriver) })
		v.outputs[base] = list
		v.made[name] = append(v.made[name], base)
	}
	return a, nil
}

// forget takes back what was agreed on the outputs of a derivation.
func (v *View) forget(name string) {
	for _, base := range v.made[name] {
		rest := slices.DeleteFunc(slices.Clone(v.outputs[base]), func(it Item) bool { return it.Deriver.Base() == name })
		if len(rest) == 0 {
			delete(v.outputs, base)
		} else {
			v.outputs[base] = rest
		}
	}
	delete(v.made, name)
}

// CheckOutputs demands that outputs, by store path, are those that the derivation has: each under its ID and path, none missing. Builders say what came out;
// under which path it belongs follows from what reviewers allowed.
func CheckOutputs(name string, d *derivation.Derivation, outputs map[string]quorum.BuiltOutput) error {
	var rs trust.Refusals
	for _, o := range d.Outputs {
		if got, ok := outputs[o.Path]; !ok || got.ID != o.ID {
			rs.Add(trust.Refuse("output-path", name, "the derivation's output %q is %s; no such output was built", o.ID, o.Path))
		}
	}
	if len(rs) == 0 && len(outputs) != len(d.Outputs) {
		rs.Add(trust.Refuse("output-path", name, "%d outputs were built, the derivation has %d", len(outputs), len(d.Outputs)))
	}
	return rs.Err()
}

// Names returns the base names of everything that is admitted, sorted.
func (v *View) Names() []string {
	names := make([]string, 0, len(v.List.Items)+len(v.outputs))
	add := func(it trust.Item) {
		if _, gone := v.Orders.Recalled(it.SHA256, it.Name); !gone {
			names = append(names, it.Name)
		}
	}
	for _, it := range v.List.Items {
		add(it)
	}
	for _, b := range v.Glass() {
		add(b.Item)
	}
	for name := range v.outputs {
		if _, err := v.output(name); !isRecalled(err) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Made returns the base names of a derivation's agreed outputs.
func (v *View) Made(derivation string) []string { return v.made[derivation] }

func (v *View) notAllowed(name string) *trust.Refusal {
	return trust.Refuse("not-allowed", name, "neither the allowlist of track %s, version %d, nor a quorum of builders names it", v.List.Track, v.List.Version).
		WithHint("'review show' tells whether it waits for reviewers, 'quorum status' whether builders still have to agree; no row of a catalog replaces their signatures")
}

// isRecalled reports whether a refusal is a recall.
func isRecalled(err error) bool {
	rs, _ := trust.AsRefusals(err)
	return rs.Has("recalled")
}

// Listed returns the item of a name that the allowlist names, or that officers have let in, unless it is recalled.
func (v *View) Listed(name string) (trust.Item, error) {
	it, _, err := v.allowed().ByName(name)
	if rs, _ := trust.AsRefusals(err); rs.Has("not-allowed") {
		return it, v.notAllowed(name)
	}
	if isRecalled(err) {
		if again := v.Recalled(it.SHA256, name); again != nil {
			err = again // with its hint
		}
	}
	return it, err
}

// Item judges one store item by its base name.
func (v *View) Item(name string) (Item, error) {
	have, err := v.Listed(name)
	if rs, _ := trust.AsRefusals(err); rs.Has("not-allowed") {
		return v.output(name)
	}
	if err != nil {
		return Item{}, err
	}
	p, err := storepath.ParseBase(name)
	if err != nil {
		return Item{}, fmt.Errorf("allowlist: %w", err) // no list that was opened has such a name
	}
	it := Item{Path: p, Kind: have.Kind, Content: have.SHA256, Size: have.Size, NarHash: have.SHA256, NarSize: have.Size}
	switch have.Kind {
	case trust.KindSource, trust.KindChannel: // a channel's item is bound to its name as a source is, and refers to nothing
		return it, nil
	case trust.KindDerivation:
		d, data, err := v.derivation(have)
		if err != nil {
			return Item{}, err
		}
		if it.References, err = d.References(); err != nil {
			return Item{}, trust.Refuse("derivation-invalid", name, "%v", err)
		}
		slices.SortFunc(it.References, storepath.Path.Compare)
		// The content is the file; what clients get is the nar of it.
		h := sha256.New()
		if err := nar.WriteFile(h, int64(len(data)), false, bytes.NewReader(data)); err != nil {
			return Item{}, err
		}
		h.Sum(it.NarHash[:0])
		it.NarSize = nar.FileSize(int64(len(data)))
		return it, nil
	}
	return Item{}, trust.Refuse("item-kind", name, "items of kind %q are not served", have.Kind)
}

// output is Item for what builders agreed on.
func (v *View) output(name string) (Item, error) {
	all := v.outputs[name]
	if len(all) == 0 {
		return Item{}, v.notAllowed(name)
	}
	for _, it := range all {
		if err := v.Recalled(it.NarHash, name); err != nil {
			return Item{}, err
		}
	}
	for _, other := range all[1:] {
		if !other.Same(all[0]) {
			return Item{}, trust.Refuse("output-conflict", name, "it is an output of %s and of %s, and their builders say different things of it", all[0].Deriver.Base(), other.Deriver.Base())
		}
	}
	return all[0], nil
}

// Derivation returns an allowed derivation, checked against the allowlist's digest.
func (v *View) Derivation(name string) (*derivation.Derivation, error) {
	it, err := v.Listed(name)
	if err != nil {
		return nil, err
	}
	if it.Kind != trust.KindDerivation {
		return nil, v.notAllowed(name)
	}
	d, _, err := v.derivation(it)
	return d, err
}

func (v *View) derivation(it trust.Item) (*derivation.Derivation, []byte, error) {
	if it.Size > MaxDerivation {
		return nil, nil, trust.Refuse("derivation-size", it.Name, "%d bytes, more than %d", it.Size, MaxDerivation)
	}
	data, err := v.read(it)
	var corrupt *cas.CorruptError
	if errors.Is(err, cas.ErrNotFound) || errors.As(err, &corrupt) {
		return nil, nil, trust.Refuse("item-lost", it.Name, "%v", err).WithHint("import the shipment that brought it again")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("derivation %s: %w", it.Name, err)
	}
	if trust.Sum(data) != it.SHA256 {
		return nil, nil, trust.Refuse("item-digest", it.Name, "its content is not the allowlist's")
	}
	d, err := derivation.Parse(data)
	if err != nil {
		return nil, nil, trust.Refuse("derivation-invalid", it.Name, "%v", err)
	}
	return d, data, nil
}

func (v *View) read(it trust.Item) ([]byte, error) {
	r, err := v.open(it.SHA256)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, it.Size+1))
	return data, errors.Join(err, r.Close())
}
