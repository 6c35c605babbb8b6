package admit

import (
	"context"
	"errors"
	"fmt"

	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// Load makes the view of a zone's track from the signed documents that the zone has: root, allowlist, builders' statements. Rows of the catalog say
// where they lie, and nothing else. Statements that come to nothing are no error.
func Load(ctx context.Context, z *store.Zone, root *trust.Root, track string) (*View, error) {
	note, err := z.Allowlist(ctx, track)
	if err != nil {
		return nil, err
	}
	if note == nil {
		return nil, trust.Refuse("no-allowlist", "track "+track, "nothing was approved for it yet").WithHint("'review approve' makes the first allowlist")
	}
	list, _, err := trust.OpenAllowlist(note, root)
	if err != nil {
		return nil, err
	}
	if list.Track != track {
		return nil, trust.Refuse("allowlist-track", "track "+track, "the allowlist that lies there is of track %q", list.Track)
	}
	v := New(root, list)
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT derivation, envelope FROM built ORDER BY derivation, keyid`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	votes := map[string][][]byte{}
	for rows.Next() {
		var name string
		var envelope []byte
		if err := rows.Scan(&name, &envelope); err != nil {
			return nil, err
		}
		votes[name] = append(votes[name], envelope)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for name, envelopes := range votes {
		if _, err := v.Evidence(name, envelopes); err != nil {
			if _, refused := trust.AsRefusals(err); !refused {
				return nil, fmt.Errorf("statements about %s: %w", name, err)
			}
		}
	}
	return v, nil
}

// Waiting returns why the outputs of a derivation are not agreed; nil if nothing is known of it, or they are.
func (v *View) Waiting(name string) error { return v.waiting[name] }

// Entered demands that the list's coming into force is an entry of the zone's ledger: in the tree of a checkpoint that the ledger's key, as the root has
// it, signed. A list that reviewers signed but that was slipped past the ledger is not acted on.
func (v *View) Entered(ctx context.Context, z *store.Zone) error {
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT idx, leaf FROM entry ORDER BY idx DESC`)
	if err != nil {
		return err
	}
	defer rows.Close()
	digest := v.List.Digest()
	for rows.Next() {
		var index int64
		var leaf []byte
		if err := rows.Scan(&index, &leaf); err != nil {
			return err
		}
		e, err := trust.ParseEnvelope(leaf)
		if err != nil || e.Kind() != trust.StatementAllowed || len(e.Unverified().Subjects) != 1 || e.Unverified().Subjects[0].SHA256 != digest {
			continue
		}
		if _, _, err := e.Verify(v.Root); err != nil {
			return err
		}
		if err := rows.Close(); err != nil {
			return err
		}
		c, err := checkpoint(z, v.Root)
		if err != nil {
			return err
		}
		proof, err := ledger.NewLog(z.LedgerFS(), c).ProveInclusion(index)
		if err != nil {
			return err
		}
		return ledger.CheckInclusion(c, index, leaf, proof)
	}
	return errors.Join(rows.Err(), trust.Refuse("not-in-ledger", fmt.Sprintf("allowlist %s version %d", v.List.Track, v.List.Version), "the ledger has no entry that it came into force"))
}

// checkpoint opens the published checkpoint with the key that the root names for this ledger.
func checkpoint(z *store.Zone, root *trust.Root) (ledger.Checkpoint, error) {
	msg, err := ledger.ReadCheckpoint(z.LedgerFS())
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	keys := root.CheckpointKeys(z.Origin())
	if len(keys) == 0 {
		return ledger.Checkpoint{}, trust.Refuse("checkpoint-key", z.Origin(), "the root names no key for this ledger")
	}
	var first error
	for _, k := range keys {
		c, err := ledger.OpenCheckpoint(msg, z.Origin(), k)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = err
		}
	}
	return ledger.Checkpoint{}, first
}
