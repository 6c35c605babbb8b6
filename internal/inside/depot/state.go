package depot

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/serve"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

const (
	// maxKept bounds, in bytes, the narinfos that a state keeps after it has verified them.
	maxKept = 128 << 20
	// keptSize is what a kept narinfo takes beside its text.
	keptSize = 1 << 10
	// retryAfter is how long a depot that could not make a view of its track waits before it tries again, unless something was published since.
	retryAfter = 5 * time.Second
)

// A state is what the depot holds to be true, for one size of the ledger. It does not change, but for what it keeps.
type state struct {
	stamp store.Stamp
	view  *admit.View
	acl   signature.ACL
	key   signature.PublicKey
	votes map[string][][]byte // builders' statements, by the derivations that the allowlist names
	names map[string]string   // base names by the hash part
	until time.Time           // when something that was let in for a while is over; zero: never

	mu    sync.RWMutex
	kept  map[string]*served // by the hash part
	bytes int
}

// over reports whether something that the state has was let in for a while that has ended.
func (s *state) over(now time.Time) bool { return !s.until.IsZero() && !now.Before(s.until) }

// A served is a narinfo that was found good.
type served struct {
	body []byte
	item admit.Item
}

// A failure is why the depot serves nothing.
type failure struct {
	stamp store.Stamp
	err   error
	until time.Time
}

// now returns the state for the ledger as it is published, made anew if that has changed. If it cannot be made, nothing is served: what was believed before
// is not an answer to what is published now.
func (d *Depot) now(ctx context.Context) (*state, error) {
	at, err := d.Zone.Stamp()
	if err != nil {
		return nil, err
	}
	if s := d.state.Load(); s != nil && s.stamp == at && !s.over(d.Zone.Now()) {
		return s, nil
	}
	d.renewing.Lock()
	defer d.renewing.Unlock()
	if s := d.state.Load(); s != nil && s.stamp == at && !s.over(d.Zone.Now()) {
		return s, nil
	}
	if f := d.failed; f != nil && f.stamp == at && time.Now().Before(f.until) {
		return nil, f.err
	}
	// For everybody, not for the one who happens to ask: his hanging up is no failure.
	s, err := d.renew(context.WithoutCancel(ctx), at)
	if err != nil {
		if d.failed == nil || d.failed.err.Error() != err.Error() {
			d.Log.Error("the depot serves nothing until this is mended", "track", d.Track, "error", err)
		}
		d.failed = &failure{at, err, time.Now().Add(retryAfter)}
		d.state.Store(nil)
		return nil, err
	}
	if d.failed != nil {
		d.Log.Warn("the depot serves again", "track", d.Track)
	}
	d.failed = nil
	d.state.Store(s)
	return s, nil
}

// renew reads on in the ledger and makes the state that follows from it.
func (d *Depot) renew(ctx context.Context, at store.Stamp) (*state, error) {
	root, err := d.Zone.Root()
	if err != nil {
		return nil, err
	}
	changes, err := d.record.Read(ctx, d.Zone, root)
	if err != nil {
		return nil, err
	}
	// What could not be made into a state once is not lost for the next time.
	d.documents = d.documents || changes.Documents
	d.spoken = append(d.spoken, changes.Derivations...)
	old := d.last
	if old == nil || d.documents || old.over(d.Zone.Now()) {
		s, err := d.build(ctx, root)
		if err != nil {
			return nil, err
		}
		s.stamp = at
		d.documents, d.spoken, d.last = false, nil, s
		return s, nil
	}
	s := &state{stamp: at, view: old.view, acl: old.acl, key: old.key, names: old.names, votes: old.votes, until: old.until}
	if len(d.spoken) > 0 {
		s.view = old.view.Clone()
		for _, name := range d.spoken {
			if err := s.view.Weigh(name, d.record.Votes(name)); err != nil {
				return nil, err
			}
		}
		s.index(&d.record)
	}
	s.keep(old, d.spoken)
	d.spoken, d.last = nil, s
	return s, nil
}

// build makes a state from the documents in force.
func (d *Depot) build(ctx context.Context, root *trust.Root) (*state, error) {
	view, err := d.record.View(ctx, d.Zone, root, d.Track)
	if err != nil {
		return nil, err
	}
	if err := admit.Raise(filepath.Join(d.Zone.Dir, "floor", "depot-"+d.Track+".json"), view); err != nil {
		return nil, err
	}
	q, ok := root.TrackKey(d.Track)
	if !ok {
		return nil, trust.Refuse("no-track", d.Track, "the root names no key for this track")
	}
	key, err := signature.ParsePublicKeyHex(q)
	if err != nil {
		return nil, err
	}
	s := &state{view: view, key: key, acl: signature.NewACL(key), kept: map[string]*served{}, until: view.Expires()}
	for _, b := range view.Glass() {
		d.Log.Warn("break-glass: served without its reviewers", "track", d.Track, "item", b.Item.Name, "until", trust.FormatDate(b.Until), "reason", b.Reason)
	}
	s.index(&d.record)
	return s, nil
}

// index lists what is admitted, and what builders said of it.
func (s *state) index(r *admit.Record) {
	s.names, s.votes = map[string]string{}, map[string][][]byte{}
	// What is recalled has no narinfo; who asks for it is told why.
	for _, it := range s.view.List.Items {
		s.names[it.Name[:storepath.HashLen]] = it.Name
	}
	if s.view.Orders != nil {
		for _, r := range s.view.Orders.Recalls {
			s.names[r.Name[:storepath.HashLen]] = r.Name
		}
	}
	for _, name := range s.view.Names() {
		s.names[name[:storepath.HashLen]] = name
		if v := r.Votes(name); len(v) > 0 {
			s.votes[name] = v
		}
	}
}

// keep takes over what an older state under the same documents has verified, but for the outputs of the derivations that builders spoke of since.
func (s *state) keep(old *state, spoken []string) {
	old.mu.RLock()
	defer old.mu.RUnlock()
	s.kept = make(map[string]*served, len(old.kept))
	for hash, k := range old.kept {
		if !slices.Contains(spoken, k.item.Deriver.Base()) {
			s.kept[hash], s.bytes = k, s.bytes+len(k.body)+keptSize
		}
	}
}

// narinfo returns a narinfo that may be believed. A good one is verified once a state.
func (d *Depot) narinfo(ctx context.Context, s *state, hash string) (*served, error) {
	s.mu.RLock()
	k := s.kept[hash]
	s.mu.RUnlock()
	if k != nil {
		return k, nil
	}
	k, err := d.verify(ctx, s, hash)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[hash] == nil {
		if s.bytes += len(k.body) + keptSize; s.bytes > maxKept {
			// Rare, and cheaper than to know which was asked for last.
			clear(s.kept)
			s.bytes = len(k.body) + keptSize
		}
		s.kept[hash] = k
	}
	return k, nil
}

// verify judges the narinfo that lies in the catalog.
func (d *Depot) verify(ctx context.Context, s *state, hash string) (*served, error) {
	name, ok := s.names[hash]
	if !ok {
		// Rows are not even asked: what they say would change nothing.
		return nil, serve.Errorf(http.StatusNotFound, "not-allowed", "neither the allowlist of track %s nor a quorum of builders names an item with the hash %.40q", d.Track, hash)
	}
	// Judged before a row is asked: the reason of a recall is told whether or not there was a narinfo.
	it, err := s.view.Item(name)
	if err != nil {
		return nil, err
	}
	var body []byte
	err = d.Zone.Read(ctx).QueryRowContext(ctx, `SELECT body FROM narinfo WHERE track = ? AND hash = ?`, d.Track, hash).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, serve.Errorf(http.StatusNotFound, "not-signed", "%s is admitted, and not signed yet", name)
	}
	if err != nil {
		return nil, err
	}
	info, err := narinfo.Verify(body, s.acl)
	if err != nil {
		return nil, trust.Refuse("narinfo-signature", name, "the track's key did not sign what lies here: %v", err)
	}
	if err := it.Described(info); err != nil {
		return nil, err
	}
	return &served{body, it}, nil
}
