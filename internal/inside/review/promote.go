package review

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Promote signs, with a reviewer's key, the list of a track that takes over items which another track's list in force has: the named ones, or all. What a derivation needs
// goes along or is there already. Outputs follow by themselves: what builders agreed on does not depend on the track. A refusal is a ledger entry.
func (d *Desk) Promote(ctx context.Context, from, to string, names []string, key trust.Signer) (*Outcome, error) {
	return d.move(ctx, to, key, func(orders *trust.Orders) (*motion, bool, error) {
		return d.promotion(ctx, from, to, names, orders, key)
	})
}

// Resign signs the track's list as it is, without what is recalled, under the root and the orders in force: for a list that another root has put out of force.
func (d *Desk) Resign(ctx context.Context, track string, key trust.Signer) (*Outcome, error) {
	return d.move(ctx, track, key, func(orders *trust.Orders) (*motion, bool, error) {
		current, inForce, err := d.current(ctx, track, orders)
		if err != nil {
			return nil, false, err
		}
		if current == nil {
			return nil, false, trust.Refuse("no-allowlist", "track "+track, "there is no list to be signed again")
		}
		m := &motion{track: track, current: current}
		fresh := inForce && current.Root == d.Root.Version && current.Orders == orders.Number()
		for _, it := range current.Items {
			if _, gone := orders.Recalled(it.SHA256, it.Name); gone {
				m.recalled = append(m.recalled, it.Name)
				fresh = false
			}
		}
		return m, fresh, nil
	})
}

// move signs a motion that is about no shipment.
func (d *Desk) move(ctx context.Context, track string, key trust.Signer, motion func(*trust.Orders) (*motion, bool, error)) (*Outcome, error) {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out, err := d.moved(ctx, track, key, motion)
	if err != nil {
		subject := statement.Subject{Name: "track " + trust.Printable(track, 40), SHA256: d.Root.Digest()}
		return nil, d.Zone.Refused(ctx, "review", subject, err)
	}
	return out, nil
}

func (d *Desk) moved(ctx context.Context, track string, key trust.Signer, motion func(*trust.Orders) (*motion, bool, error)) (*Outcome, error) {
	var rs trust.Refusals
	if r := d.reviewer(key); r != nil {
		rs.Add(r)
	}
	if d.Root.Threshold(track) == 0 {
		rs.Add(trust.Refuse("no-track", track, "the root has no threshold for this track; it has %v", d.Root.Tracks()))
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	orders, err := d.Zone.Orders(ctx, d.Root)
	if err != nil {
		return nil, err
	}
	m, nothing, err := motion(orders)
	if err != nil {
		return nil, err
	}
	if nothing {
		return &Outcome{From: m.from, Track: track, Version: m.current.Version, Digest: m.current.Digest().String(), InForce: true, Persons: []string{},
			Threshold: d.Root.ListThreshold(track, m.current.Items), Recalled: m.recalled}, nil
	}
	if err := d.present(m.added); err != nil {
		return nil, err
	}
	if err := d.channels(ctx, m, orders); err != nil {
		return nil, err
	}
	return d.sign(ctx, m, orders, key)
}

func (d *Desk) promotion(ctx context.Context, from, to string, names []string, orders *trust.Orders, key trust.Signer) (*motion, bool, error) {
	if from == to {
		return nil, false, trust.Refuse("no-track", to, "items are promoted from another track")
	}
	v, err := admit.Load(ctx, d.Zone, d.Root, from)
	if err != nil {
		return nil, false, err
	}
	current, inForce, err := d.current(ctx, to, orders)
	if err != nil {
		return nil, false, err
	}
	m := &motion{track: to, from: from, current: current}
	var rs trust.Refusals
	has := func(name string) bool {
		if current == nil {
			return false
		}
		_, ok := current.ByName(name)
		return ok
	}
	if names == nil {
		for _, it := range v.List.Items {
			names = append(names, it.Name)
		}
	}
	for _, name := range names {
		it, ok := v.List.ByName(name)
		if !ok {
			rs.Add(trust.Refuse("not-allowed", name, "the %s does not name it", v.List.Subject()).WithHint("only what a list in force names is promoted; what is let in for a while is not"))
			continue
		}
		if _, gone := orders.Recalled(it.SHA256, it.Name); gone {
			m.recalled = append(m.recalled, it.Name)
			continue
		}
		if current != nil {
			if have, ok := current.ByName(name); ok && have == it {
				continue
			}
		}
		m.added = append(m.added, it)
	}
	// A derivation that could not be built on the track is of no use there.
	for _, it := range m.added {
		if it.Kind != trust.KindDerivation {
			continue
		}
		drv, err := v.Derivation(it.Name)
		if err != nil {
			return nil, false, err
		}
		var needs []string
		for _, in := range drv.Inputs {
			needs = append(needs, in.Path)
		}
		for _, path := range append(needs, drv.Sources...) {
			p, err := storepath.Parse(path)
			if err != nil {
				return nil, false, err
			}
			if !has(p.Base()) && !slices.ContainsFunc(m.added, func(it trust.Item) bool { return it.Name == p.Base() }) {
				rs.Add(trust.Refuse("input-missing", it.Name, "it needs %s, which is not on track %s", p.Base(), to).WithHint("promote it too, or promote --all"))
			}
		}
	}
	if err := rs.Err(); err != nil {
		return nil, false, err
	}
	if err := d.twoDoors(ctx, 0, m.added, key); err != nil {
		return nil, false, err
	}
	return m, inForce && len(m.added) == 0, nil
}

// Withdraw ends a track's open proposal: whoever signed signs again. It takes a reviewer's key of whatever person, and is a ledger entry.
func (d *Desk) Withdraw(ctx context.Context, track string, key trust.Signer) error {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return err
	}
	defer unlock()
	if r := d.reviewer(key); r != nil {
		return d.Zone.Refused(ctx, "review", statement.Subject{Name: "track " + trust.Printable(track, 40), SHA256: d.Root.Digest()}, r)
	}
	var text string
	err = d.Zone.Read(ctx).QueryRowContext(ctx, `SELECT text FROM proposal WHERE track = ?`, track).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("no proposal for track %q waits for signatures", track)
	}
	if err != nil {
		return err
	}
	sum, err := trust.ParseDigest(text)
	if err != nil {
		return err
	}
	return d.Zone.Commit(ctx, func(tx *store.Tx) error {
		reasons := []any{map[string]any{"code": "withdrawn", "subject": key.Name()}}
		if err := tx.Statement(statement.KindRefused, []statement.Subject{{Name: "proposal " + track, SHA256: sum}}, map[string]any{"stage": "review", "reasons": reasons, "total": int64(1)}); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `DELETE FROM proposal_signature WHERE track = ?`, track); err != nil {
			return err
		}
		return tx.Exec(ctx, `DELETE FROM proposal WHERE track = ?`, track)
	})
}
