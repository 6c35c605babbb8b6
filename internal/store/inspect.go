package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// InspectCatalog looks into a catalog's file that no zone has open, and that nobody changes: a copy. It must hold
// exactly the entries of a published ledger up to its checkpoint, and they must not give up the key that has signed it. visit may read the rest. Nothing is written.
func InspectCatalog(ctx context.Context, path string, log *ledger.Log, key trust.VKey, visit func(q Querier) error) error {
	q := url.Values{"mode": {"ro"}, "immutable": {"1"}, "_pragma": {"query_only(ON)", "trusted_schema(OFF)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(2) // one reads entries while the other looks at something else
	bad := func(format string, args ...any) error {
		return trust.Refuse("catalog-copy", "catalog.sqlite", format, args...)
	}
	var check string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check").Scan(&check); err != nil || check != "ok" {
		return bad("it is no sound database: %s%v", check, err)
	}
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if version != schemaVersion {
		return &SchemaError{version, schemaVersion}
	}
	var note []byte
	if err := db.QueryRowContext(ctx, "SELECT note FROM checkpoint ORDER BY size DESC LIMIT 1").Scan(&note); err != nil {
		return bad("it has no checkpoint: %v", err)
	}
	at := log.Checkpoint()
	c, err := ledger.OpenCheckpoint(note, at.Origin, key)
	if err != nil {
		return err
	}
	if c != at {
		return bad("its ledger ends with size %d, the published one with %d", c.Size, at.Size)
	}
	rows, err := db.QueryContext(ctx, "SELECT leaf FROM entry ORDER BY idx")
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	behind := NotBehindChange(at, note)
	err = log.Verify(func(i int64, leaf []byte) error {
		var have sql.RawBytes
		if !rows.Next() {
			return errors.Join(rows.Err(), bad("entry %d is missing", i))
		}
		if err := rows.Scan(&have); err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		if !bytes.Equal(have, leaf) {
			return bad("entry %d is not the published one", i)
		}
		if err := behind(i, leaf); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	if rows.Next() {
		return bad("it has entries beyond the published ledger")
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	if visit == nil {
		return nil
	}
	return visit(db)
}
