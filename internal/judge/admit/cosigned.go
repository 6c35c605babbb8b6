package admit

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// Cosigned demands, where the root's policy does for the track, that enough witnesses have cosigned a checkpoint that covers the entry by which the view's allowlist
// came into force. Each such checkpoint must be of the tree that was read. Code: not-cosigned.
func (r *Record) Cosigned(ctx context.Context, z *store.Zone, v *View) error {
	want := v.Root.Cosigned(v.List.Track)
	if want == 0 {
		return nil
	}
	subject := v.List.Subject()
	need := r.allowed[v.List.Digest()] // the smallest tree with the entry
	var rs trust.Refusals
	var good []trust.VKey
	covers := map[int64]tlog.Hash{}
	witnesses := map[int64][]trust.VKey{}
	for _, w := range v.Root.WitnessKeys() {
		c, when, err := r.cosignature(z, w)
		if err != nil {
			if err := rs.Merge(err); err != nil {
				return err
			}
			continue
		}
		switch {
		case c.Size < need:
			rs.Add(trust.Refuse("not-cosigned", subject, "%s has cosigned %d entries, on %s; the list came into force with entry %d", w.Person, c.Size, trust.FormatDate(when), need-1))
			continue
		case c.Size > r.at.Size:
			rs.Add(trust.Refuse("ledger-rollback", z.Origin(), "%s has cosigned %d entries, the ledger has %d", w.Person, c.Size, r.at.Size))
			continue
		}
		if had, ok := covers[c.Size]; ok && had != c.Root {
			rs.Add(trust.Refuse("ledger-fork", z.Origin(), "two trees of %d entries were cosigned", c.Size))
			continue
		}
		covers[c.Size] = c.Root
		witnesses[c.Size] = append(witnesses[c.Size], w)
	}
	trees, err := r.trees(ctx, z, covers)
	if err != nil {
		return err
	}
	for size, root := range covers {
		if trees[size] != root {
			rs.Add(trust.Refuse("ledger-fork", z.Origin(), "%s cosigned another tree of %d entries than lies here", witnesses[size][0].Person, size).
				WithHint("ALARM: keep both; 'ledger verify' and the auditor tell where they part"))
			continue
		}
		good = append(good, witnesses[size]...)
	}
	if v.Root.Count(trust.RoleWitness, good) >= want {
		return nil
	}
	var names []string
	for _, w := range v.Root.WitnessKeys() {
		names = append(names, w.Person)
	}
	rs.Add(trust.Refuse("not-cosigned", subject, "%d of %d witnesses have cosigned its approval; witnesses are %s", v.Root.Count(trust.RoleWitness, good), want, strings.Join(names, ", ")).
		WithHint("'ledger witness export' makes what a witness cosigns, 'ledger witness add' takes it back"))
	return rs
}

// cosignature opens what a witness has cosigned of the zone's ledger.
func (r *Record) cosignature(z *store.Zone, w trust.VKey) (c ledger.Checkpoint, when time.Time, err error) {
	note, err := z.ReadPublic("witness/" + w.Person)
	if errors.Is(err, fs.ErrNotExist) {
		return c, when, trust.Refuse("not-cosigned", "witness "+w.Person, "nothing of this witness has come")
	}
	if err != nil {
		return c, when, err
	}
	// By the witness alone: the tree is compared with the one that was read, and the ledger's key may have changed since.
	return ledger.OpenWitnessed(note, z.Origin(), w)
}

// trees computes the roots of the trees of some sizes, from the very entries that make the tree which was read.
func (r *Record) trees(ctx context.Context, z *store.Zone, sizes map[int64]tlog.Hash) (map[int64]tlog.Hash, error) {
	found := map[int64]tlog.Hash{}
	if len(sizes) == 0 {
		return found, nil
	}
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT leaf FROM entry WHERE idx < ? ORDER BY idx`, r.at.Size)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var edge []subtree
	for n := int64(1); rows.Next(); n++ {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			return nil, err
		}
		edge = push(edge, tlog.RecordHash(leaf))
		if _, ok := sizes[n]; ok {
			found[n] = fold(edge)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if fold(edge) != r.at.Root {
		return nil, trust.Refuse("ledger-entry", r.at.Origin, "the catalog's entries are not the tree of size %d that is signed", r.at.Size)
	}
	return found, nil
}
