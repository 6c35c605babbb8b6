package review

import (
	"context"
	"fmt"
	"strings"

	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Reject ends a quarantined shipment or submission with a reviewer's signed rejection: its proposals are dropped, its number is spent. One reviewer who is not the importer is
// enough to say no. It asks for less than an approval does: a shipment whose collector or importer has left since can still be rejected.
func (d *Desk) Reject(ctx context.Context, number int64, key trust.Signer, reason string) error {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := d.row(ctx, number)
	if err != nil {
		return err
	}
	if err := d.mayReject(ctx, c, key); err != nil {
		return d.refused(ctx, c, number, err)
	}
	if c.summary.State != "quarantined" {
		return fmt.Errorf("%s is %s; only a quarantined one can be rejected", statement.Arrived(number), c.summary.State)
	}
	r := statement.Rejection{Enclave: d.Root.Enclave, Arrival: number, Digest: c.digest, Date: d.Clock(), Reason: trust.Printable(strings.TrimSpace(reason), trust.MaxReason)}
	kind, predicate, err := r.Predicate(key)
	if err != nil {
		return err
	}
	subjects := []statement.Subject{{Name: statement.Arrived(number), SHA256: c.digest}}
	return d.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement(kind, subjects, predicate); err != nil {
			return err
		}
		for _, q := range []string{
			`UPDATE shipment SET state = 'rejected' WHERE number = ?`,
			`DELETE FROM proposal_signature WHERE track IN (SELECT track FROM proposal WHERE shipment = ?)`,
			`DELETE FROM proposal WHERE shipment = ?`,
		} {
			if err := tx.Exec(ctx, q, number); err != nil {
				return err
			}
		}
		return nil
	})
}

func (d *Desk) mayReject(ctx context.Context, c *dossier, key trust.Signer) error {
	if err := d.reviewer(key); err != nil {
		return err
	}
	e, err := d.imported(ctx, c.number, c.digest)
	if err != nil {
		if _, refused := trust.AsRefusals(err); refused {
			return nil // nobody imported it
		}
		return err
	}
	if person, _ := e.Unverified().Predicate["person"].(string); person == key.Person() {
		return trust.Refuse("separation-of-duties", key.Name(), "%s %s %s; another reviewer rejects it", person, broughtIn(c.number), statement.Arrived(c.number))
	}
	return nil
}
