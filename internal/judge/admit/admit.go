// Package admit is the one judgement behind everything that serves, signs or builds: may this store item be used on this track?
//
// # What it goes by
//
// Signed documents alone: the root, opened from the digest that was handed over; the track's allowlist, with its threshold of reviewers;
// and builders' statements. A [View] is made of these, and of nothing that lies in a catalog. An item is admitted if
//
//   - the allowlist names it: its content must then have the digest that stands there; or
//   - it is an output of a derivation which the allowlist names, and a quorum of builders agrees on it, and nobody disagrees.
//
// # Floors
//
// Each verifier keeps the highest versions it has accepted in a file of its own ([Floor]), written durably before it acts on a newer one. A verifier
// never goes back, whatever the disk says now.
package admit

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// maxDerivation bounds a derivation file that is read to learn its references.
const maxDerivation = 64 << 20

// A View is what one verifier holds to be allowed on one track.
type View struct {
	Root *trust.Root
	List *trust.Allowlist

	outputs map[string]Item // agreed outputs, by base name
	waiting map[string]error
}

// An Item is an admitted store item. Only a View makes one.
type Item struct {
	Path       storepath.Path
	Kind       string       // of the allowlist's item; "output" for what builders agreed on
	Content    trust.Digest // of the item's content as it is kept: the nar, or the file of a derivation
	Size       int64        // of that content
	NarHash    trust.Digest
	NarSize    int64
	References []storepath.Path
	Deriver    storepath.Path // of an agreed output
}

// Flat reports whether the content is kept as a plain file, and served as the nar of one.
func (it Item) Flat() bool { return it.Kind == trust.KindDerivation }

// New makes a view of an opened root and an opened allowlist.
func New(root *trust.Root, list *trust.Allowlist) *View {
	return &View{Root: root, List: list, outputs: map[string]Item{}, waiting: map[string]error{}}
}

// Evidence adds builders' statements about a derivation, named by its base name. What they come to is known by [View.Item]; evidence that is worth
// nothing is no error, except that the agreement or the reason why there is none is returned.
func (v *View) Evidence(name string, envelopes [][]byte) (*trust.Agreement, error) {
	drv, ok := v.List.ByName(name)
	if !ok {
		return nil, trust.Refuse("not-allowed", name, "the allowlist of track %s, version %d, does not name it", v.List.Track, v.List.Version)
	}
	deriver, err := storepath.ParseBase(name)
	if err != nil {
		return nil, err
	}
	a, err := trust.Quorum(v.Root, v.List, name, drv.SHA256, envelopes)
	if err != nil {
		v.waiting[name] = err
		return nil, err
	}
	for path, o := range a.Outputs {
		p, err := storepath.Parse(path)
		if err != nil {
			return nil, trust.Refuse("output-path", name, "%v", err)
		}
		it := Item{Path: p, Kind: trust.KindOutput, Content: o.SHA256, Size: o.Size, NarHash: o.SHA256, NarSize: o.Size, Deriver: deriver}
		for _, r := range o.References {
			ref, err := storepath.Parse(r)
			if err != nil {
				return nil, trust.Refuse("output-path", name, "%v", err)
			}
			it.References = append(it.References, ref)
		}
		v.outputs[p.Base()] = it
	}
	return a, nil
}

// Outputs returns the agreed outputs by base name.
func (v *View) Outputs() map[string]Item { return v.outputs }

// Item judges one store item by its base name. open returns content by its digest; it is asked only for derivations, whose references stand in the file.
func (v *View) Item(name string, open func(trust.Digest) (io.ReadCloser, error)) (Item, error) {
	if it, ok := v.outputs[name]; ok {
		return it, nil
	}
	have, ok := v.List.ByName(name)
	if !ok {
		return Item{}, trust.Refuse("not-allowed", name, "neither the allowlist of track %s, version %d, nor a quorum of builders names it", v.List.Track, v.List.Version).
			WithHint("'review show' tells whether it waits for reviewers, 'quorum status' whether builders still have to agree")
	}
	p, err := storepath.ParseBase(name)
	if err != nil {
		return Item{}, trust.Refuse("item-name", name, "%v", err)
	}
	it := Item{Path: p, Kind: have.Kind, Content: have.SHA256, Size: have.Size, NarHash: have.SHA256, NarSize: have.Size}
	switch have.Kind {
	case trust.KindSource:
		return it, nil
	case trust.KindDerivation:
		return it, derivationItem(&it, open)
	}
	return Item{}, trust.Refuse("item-kind", name, "items of kind %q are not served", have.Kind)
}

// derivationItem completes the item of a derivation: its content is the file, what clients get is the nar of it.
func derivationItem(it *Item, open func(trust.Digest) (io.ReadCloser, error)) error {
	if it.Size > maxDerivation {
		return trust.Refuse("derivation-size", it.Path.Base(), "%d bytes, more than %d", it.Size, maxDerivation)
	}
	r, err := open(it.Content)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, it.Size+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if trust.Sum(data) != it.Content {
		return trust.Refuse("item-digest", it.Path.Base(), "its content is not the allowlist's")
	}
	d, err := derivation.Parse(data)
	if err != nil {
		return trust.Refuse("derivation-invalid", it.Path.Base(), "%v", err)
	}
	if it.References, err = d.References(); err != nil {
		return trust.Refuse("derivation-invalid", it.Path.Base(), "%v", err)
	}
	h := sha256.New()
	if err := nar.WriteFile(h, int64(len(data)), false, bytes.NewReader(data)); err != nil {
		return err
	}
	h.Sum(it.NarHash[:0])
	it.NarSize = nar.FileSize(int64(len(data)))
	return nil
}

// A Floor is the file in which one verifier keeps the highest versions it has accepted.
type Floor struct {
	path string
	now  trust.Floor
}

// OpenFloor reads a floor; one that is not there yet is the lowest. A damaged floor is an error: it must not read as a lower one.
func OpenFloor(path string) (*Floor, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Floor{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	now, err := trust.ParseFloor(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Floor{path, now}, nil
}

// Accept raises the floor to the view's documents, durably, or refuses them.
func (f *Floor) Accept(v *View) error {
	next, err := f.now.AcceptRoot(v.Root)
	if err == nil {
		next, err = next.AcceptAllowlist(v.List)
	}
	if err != nil {
		return err
	}
	data, err := next.Marshal()
	if err != nil {
		return err
	}
	before, err := f.now.Marshal()
	if err != nil {
		return err
	}
	if !bytes.Equal(before, data) {
		if err := durable.WriteAll(durable.OS{}, filepath.Dir(f.path), durable.File{Path: f.path, Data: data, Perm: 0o644}); err != nil {
			return err
		}
	}
	f.now = next
	return nil
}
