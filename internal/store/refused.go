package store

import (
	"context"
	"fmt"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// maxReasons bounds the reasons in a "refused" entry, which must stay below 64 KiB; all are counted.
const maxReasons = 100

// Refused makes a refusal an entry of the ledger and returns it: every stage ends with it. An error of another kind passes through, unrecorded: it
// was no judgement. If the entry cannot be written, that is said too.
func (z *Zone) Refused(ctx context.Context, stage string, subject statement.Subject, err error) error {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	reasons := []any{}
	for _, r := range rs[:min(len(rs), maxReasons)] {
		reasons = append(reasons, map[string]any{"code": trust.Printable(r.Code, 64), "subject": trust.Printable(r.Subject, 200)})
	}
	// A refusal is recorded even if the one who asked has gone.
	commit := z.Commit(context.WithoutCancel(ctx), func(tx *Tx) error {
		return tx.Statement(statement.KindRefused, []statement.Subject{subject}, map[string]any{"stage": stage, "reasons": reasons, "total": int64(len(rs))})
	})
	if commit != nil {
		return fmt.Errorf("refused (%v), but the refusal could not be written to the ledger: %w", rs.Codes(), commit)
	}
	return rs
}
