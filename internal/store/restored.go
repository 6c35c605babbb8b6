package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// restoredFile marks a zone that was put back from a backup and may have lost entries. It is a checkpoint's text.
const restoredFile = "restored"

// MarkRestored marks the zone in dir as put back from a backup that ends with c: until officers' orders say so
// (`restored SIZE ROOT`) it takes in roots and orders, and nothing else. Nobody may have the zone open.
func MarkRestored(dir string, c ledger.Checkpoint) error {
	use, err := lockCatalog(dir)
	if err != nil {
		return err
	}
	defer use.Close()
	return durable.WriteAll(durable.OS{}, filepath.Join(dir, tmpDir), durable.File{Path: filepath.Join(dir, restoredFile), Data: c.Text(), Perm: 0o644})
}

// Restored returns where the backup ended from which the zone was put back, while officers have not ordered that the ledger goes on from there.
func (z *Zone) Restored() (c ledger.Checkpoint, waits bool) {
	if p := z.limbo.Load(); p != nil {
		return *p, true
	}
	return ledger.Checkpoint{}, false
}

// readRestored reads the mark when the zone is opened. One whose entry has been made is of no more use.
func (z *Zone) readRestored(ctx context.Context) error {
	text, err := readBounded(filepath.Join(z.Dir, restoredFile), ledger.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("zone: %w", err)
	}
	c, err := ledger.ParseCheckpoint(text)
	if err != nil {
		return fmt.Errorf("zone: %s: %w", restoredFile, err)
	}
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT leaf FROM entry WHERE idx >= ? ORDER BY idx", c.Size)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil || e.Kind() != statement.KindRestored {
			continue
		}
		if s := e.Unverified(); s.Predicate["size"] == c.Size && s.Subjects[0].SHA256 == trust.Digest(c.Root) {
			return z.unmark() // killed between the entry and this
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	z.limbo.Store(&c)
	return nil
}

func (z *Zone) unmark() error {
	if err := os.Remove(filepath.Join(z.Dir, restoredFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("zone: %w", err)
	}
	z.limbo.Store(nil)
	return durable.SyncDir(z.calls, z.Dir)
}

// mayGrow refuses an entry while the zone waits for officers' orders.
func (tx *Tx) mayGrow() error {
	c, waits := tx.z.Restored()
	if !waits || tx.ceremony {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(tx.z.Dir, restoredFile)); errors.Is(err, fs.ErrNotExist) {
		tx.z.limbo.Store(nil) // another process has put the orders in force
		return nil
	}
	return trust.Refuse("zone-restored", tx.z.Origin(), "it was put back from a backup that ends with entry %d; what was entered behind that may be lost", c.Size-1).
		WithHint(fmt.Sprintf("officers decide: 'order restored %d %s' drafts the order, 'order accept' lets the ledger go on", c.Size, c.RootText()))
}

// endRestore enters, with orders that come into force, that the ledger goes on from a backup, if that is what they say. after is called when the deed stands.
func (tx *Tx) endRestore(o *trust.Orders) (after func() error, err error) {
	c, waits := tx.z.Restored()
	if !waits {
		return func() error { return nil }, nil
	}
	for _, r := range o.Restored {
		if r.Size == c.Size && r.Tree == [32]byte(c.Root) {
			return tx.z.unmark, tx.Statement(statement.KindRestored, []statement.Subject{{Name: tx.z.Origin(), SHA256: trust.Digest(c.Root)}},
				map[string]any{"size": c.Size, "version": o.Version})
		}
	}
	return func() error { return nil }, nil
}
