package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
)

// Bounds on what a source may send.
const (
	maxRoots         = 10_000
	maxRootNote      = trust.MaxRootSize + 128<<10
	maxAllowlistNote = trust.MaxListSize + 128<<10
	maxOrdersNote    = trust.MaxOrdersSize + 128<<10
	fetchers         = 8 // requests at a time
)

// A Source is a place that has the enclave's documents: a copy of its public directory, or a depot. Nothing that it says is believed; what is signed is
// verified, what has a digest is compared with it.
type Source interface {
	// Newest names the newest documents that the source has.
	Newest(ctx context.Context) (Newest, error)
	Root(ctx context.Context, version int64) ([]byte, error)
	Allowlist(ctx context.Context, track string, version int64) ([]byte, error)
	Orders(ctx context.Context, version int64) ([]byte, error)
	// Opened tells the source which root is in force. It answers with the documents that it knows to be in force, from better evidence than their numbers.
	Opened(ctx context.Context, root *trust.Root) (*Known, error)
	// Evidence returns what builders said of a derivation.
	Evidence(ctx context.Context, derivation string) ([][]byte, error)
	// Derivation returns the file of an allowed derivation; [fs.ErrNotExist] where the source has no such things.
	Derivation(ctx context.Context, it trust.Item) ([]byte, error)
	// Makers names derivations of which builders said that they make an item.
	Makers(item string) []string
}

// Newest are the versions of a source's newest documents; 0 means none.
type Newest struct {
	Enclave string // "" if it is not said
	Root    int64
	Orders  int64
	Tracks  map[string]int64
}

// Known is what a ledger has of documents: the digests of those that came into force last. A document that it has nothing of is zero.
type Known struct {
	Root, Orders trust.Digest
	Lists        map[string]trust.Digest
}

// tombstones say what was recalled, by content or by name.
type tombstones interface {
	Recalled(sha256 trust.Digest, name string) (reason string, ok bool)
	any() bool // whether anything was
}

// A Document names one signed document.
type Document struct {
	Version int64        `json:"version"`
	SHA256  trust.Digest `json:"sha256,omitzero"`
}

// An Enclave is what the enclave says, opened and verified from the first root on.
type Enclave struct {
	Root  *trust.Root
	Views []*admit.View // of the host's tracks, sorted

	inForce    *trust.Orders // nil: none yet
	now        time.Time     // by which what is allowed for a while ends
	tombstones tombstones
	sources    []Source
	of         []Source // of each view
	state      *State
	host       *tree // whose derivations need not be fetched; nil at first
	byName     []map[string][]string
	mu         sync.Mutex
}

// Open opens the enclave's documents for the tracks of one host: from the root that the paper names, and not below what the state's floor has. clock is the
// present time, as far as the machine knows.
func Open(ctx context.Context, state *State, pin trust.Pinned, clock time.Time, tracks []string, sources ...Source) (*Enclave, error) {
	e := &Enclave{sources: sources, state: state, tombstones: recalls{}}
	tracks = slices.Compact(slices.Sorted(slices.Values(tracks)))
	if len(tracks) == 0 || len(sources) == 0 {
		return nil, errors.New("no track, or no source of the enclave's documents")
	}
	var first Newest
	var rootFrom, ordersFrom Source
	lists := map[string]Source{}
	versions := map[string]int64{}
	var newest Newest
	for i, s := range sources {
		n, err := s.Newest(ctx)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = n
		}
		if n.Enclave != first.Enclave {
			return nil, trust.Refuse("host-source", n.Enclave, "another source is of enclave %q", first.Enclave)
		}
		if n.Root > newest.Root {
			newest.Root, rootFrom = n.Root, s
		}
		if n.Orders > newest.Orders {
			newest.Orders, ordersFrom = n.Orders, s
		}
		for track, v := range n.Tracks {
			if v > versions[track] {
				versions[track], lists[track] = v, s
			}
		}
	}
	if newest.Root < 1 || newest.Root > maxRoots {
		return nil, trust.Refuse("host-source", "root", "the sources have %d roots", newest.Root)
	}
	var chain [][]byte
	for n := int64(1); n <= newest.Root; n++ {
		note, err := rootFrom.Root(ctx, n)
		if err != nil {
			return nil, err
		}
		chain = append(chain, note)
	}
	var err error
	if e.Root, err = trust.OpenChain(chain, pin); err != nil {
		return nil, err
	}
	if first.Enclave != "" && first.Enclave != e.Root.Enclave {
		return nil, trust.Refuse("host-source", first.Enclave, "the root is of enclave %q", e.Root.Enclave)
	}
	if newest.Orders > 0 {
		note, err := ordersFrom.Orders(ctx, newest.Orders)
		if err != nil {
			return nil, err
		}
		if err := e.openOrders(note, newest.Orders); err != nil {
			return nil, err
		}
	}
	for _, track := range tracks {
		s := lists[track]
		if s == nil {
			return nil, trust.Refuse("host-track", track, "no source has this track; they have %v", sortedKeys(lists)).
				WithHint("a depot serves one track: name the depot of each track that the host uses")
		}
		note, err := s.Allowlist(ctx, track, versions[track])
		if err != nil {
			return nil, err
		}
		list, _, err := trust.OpenAllowlist(note, e.Root, e.inForce)
		if err != nil {
			return nil, err
		}
		if list.Track != track || list.Version != versions[track] {
			return nil, trust.Refuse("allowlist-version", track, "a source gave version %d of track %s for version %d", list.Version, list.Track, versions[track])
		}
		e.Views = append(e.Views, admit.New(e.Root, e.inForce, list, func() time.Time { return clock }, e.opener(list)))
		e.of = append(e.of, s)
	}
	for _, s := range sources {
		if err := e.compare(ctx, s); err != nil {
			return nil, err
		}
	}
	if err := e.raise(clock); err != nil {
		return nil, err
	}
	for _, v := range e.Views {
		items := v.List.Items
		for _, b := range e.inForce.ForTrack(v.List.Track, e.now) {
			items = append(slices.Clip(items), b.Item)
		}
		e.byName = append(e.byName, namesOf(items))
	}
	return e, nil
}

// compare demands that the documents are those of which a source's ledger says that they came into force last.
func (e *Enclave) compare(ctx context.Context, s Source) error {
	known, err := s.Opened(ctx, e.Root)
	if err != nil || known == nil {
		return err
	}
	var rs trust.Refusals
	demand := func(what string, have, want trust.Digest) {
		if !want.IsZero() && have != want {
			rs.Add(trust.Refuse("host-document-old", what, "the ledger says that %s came into force since; this is %s", want, have).
				WithHint("copy the whole public directory again, at a time when nobody writes to it"))
		}
	}
	demand("root", e.Root.Digest(), known.Root)
	demand("orders", e.Orders().SHA256, known.Orders)
	for _, v := range e.Views {
		demand("allowlist "+v.List.Track, v.List.Digest(), known.Lists[v.List.Track])
	}
	return rs.Err()
}

// Orders names the orders in force; version 0 if there are none.
func (e *Enclave) Orders() Document {
	if e.inForce == nil {
		return Document{}
	}
	return Document{e.inForce.Version, e.inForce.Digest()}
}

// namesOf lists the derivations among items by the names that they have without hash and ".drv".
func namesOf(items []trust.Item) map[string][]string {
	names := map[string][]string{}
	for _, it := range items {
		if it.Kind == trust.KindDerivation {
			n := it.Name[storepath.HashLen+1 : len(it.Name)-len(".drv")]
			names[n] = append(names[n], it.Name)
		}
	}
	return names
}

// candidates names the allowed derivations of a view that may make an item: an output is called as its derivation is, with a dash and the output's ID behind
// that unless it is "out".
func (e *Enclave) candidates(view int, p storepath.Path, deriver string) []string {
	var list []string
	if it, _, ok := e.listed(e.Views[view], deriver); ok && it.Kind == trust.KindDerivation {
		list = append(list, deriver)
	}
	for _, m := range e.of[view].Makers(p.Base()) {
		if _, _, ok := e.listed(e.Views[view], m); ok {
			list = append(list, m)
		}
	}
	name := p.Name()
	list = append(list, e.byName[view][name]...)
	for i := range len(name) {
		if name[i] == '-' && i > 0 {
			list = append(list, e.byName[view][name[:i]]...)
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(n string) bool {
		twice := seen[n]
		seen[n] = true
		return twice
	})
}

// opener makes what a view reads derivations with.
func (e *Enclave) opener(list *trust.Allowlist) admit.Opener {
	return func(d trust.Digest) (io.ReadCloser, error) {
		it, ok := list.BySHA256(d)
		for _, b := range e.inForce.ForTrack(list.Track, e.now) {
			if !ok && b.Item.SHA256 == d {
				it, ok = b.Item, true
			}
		}
		if !ok {
			return nil, cas.ErrNotFound
		}
		data, err := e.derivation(context.Background(), it)
		if errors.Is(err, fs.ErrNotExist) {
			err = cas.ErrNotFound
		}
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

// derivation returns the file of an allowed derivation: from the host's store, from what was fetched before, or from a source. Wherever it comes from, its digest
// is the allowlist's.
func (e *Enclave) derivation(ctx context.Context, it trust.Item) ([]byte, error) {
	if it.Size > admit.MaxDerivation {
		return nil, trust.Refuse("derivation-size", it.Name, "%d bytes, more than %d", it.Size, admit.MaxDerivation)
	}
	if e.host != nil {
		if data, err := e.host.read(storepath.Dir+"/"+it.Name, it.Size); err == nil && trust.Sum(data) == it.SHA256 {
			return data, nil
		}
	}
	if data, ok := e.state.derivation(it.SHA256, it.Size); ok {
		return data, nil
	}
	missing := fs.ErrNotExist
	for _, s := range e.sources {
		data, err := s.Derivation(ctx, it)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			// One depot serves one track: the next may have it. What was recalled nobody gives out.
			if withheld(err) {
				continue
			}
			return nil, err
		}
		if have := trust.Sum(data); have != it.SHA256 {
			return nil, trust.Refuse("item-digest", it.Name, "the source gave content %s, the allowlist says %s", have, it.SHA256)
		}
		return data, e.state.keep(it.SHA256, data)
	}
	return nil, missing
}

// withheld says whether a source does not give something out because it is not allowed there, or was recalled, or lost.
func withheld(err error) bool {
	rs, _ := trust.AsRefusals(err)
	return rs.Has("not-allowed") || rs.Has(codeRecalled) || rs.Has("item-lost")
}

// maker reads what an allowed derivation makes, and from what.
func (e *Enclave) maker(ctx context.Context, it trust.Item) (*maker, error) {
	data, err := e.derivation(ctx, it)
	if err != nil {
		return nil, err
	}
	d, err := derivation.Parse(data)
	if err != nil {
		return nil, trust.Refuse("derivation-invalid", it.Name, "%v", err)
	}
	return newMaker(d, it.SHA256), nil
}

// evidence fetches what builders said of derivations, several at a time.
func (e *Enclave) evidence(ctx context.Context, view int, names []string) (map[string][][]byte, error) {
	all := make(map[string][][]byte, len(names))
	err := each(ctx, names, func(ctx context.Context, name string) error {
		list, err := e.of[view].Evidence(ctx, name)
		if err != nil && !withheld(err) { // without evidence nothing is agreed on
			return fmt.Errorf("evidence of %s: %w", name, err)
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		all[name] = list
		return nil
	})
	return all, err
}

// each runs fn for every name, a few at a time, and ends with the first error.
func each(ctx context.Context, names []string, fn func(ctx context.Context, name string) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan string)
	var wg sync.WaitGroup
	for range min(fetchers, len(names)) {
		wg.Go(func() {
			for name := range work {
				if err := fn(ctx, name); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, n := range names {
		select {
		case work <- n:
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
