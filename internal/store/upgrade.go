package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// A SchemaError says that a catalog has another version than this program's.
type SchemaError struct{ Have, Want int }

func (e *SchemaError) Error() string {
	s := fmt.Sprintf("catalog: schema version %d, this program knows %d", e.Have, e.Want)
	if e.Have < e.Want {
		s += "; `catalog upgrade` brings it up to date"
	}
	return s
}

// An Upgraded says what became of a catalog's schema.
type Upgraded struct {
	From, To int
	Aside    string // where the former catalog is kept; empty if it was up to date
}

// Upgrade brings a catalog to this program's schema. Nobody may have the zone open. The work is done on a copy that
// then takes the catalog's place by one rename; the former one is kept. Whoever is killed leaves the one or the other.
func Upgrade(ctx context.Context, dir string, opts Options) (*Upgraded, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	use, err := lockCatalog(dir)
	if err != nil {
		return nil, err
	}
	defer use.Close()
	z, err := newZone(dir, opts)
	if err != nil {
		return nil, err
	}
	defer z.release()
	tmp, remove, err := z.Scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	copied := filepath.Join(tmp, catalogFile)
	out := &Upgraded{To: schemaVersion}
	if out.From, err = copyCatalog(ctx, filepath.Join(dir, catalogFile), copied); err != nil {
		return nil, err
	}
	switch {
	case out.From == schemaVersion:
		return out, nil
	case out.From > schemaVersion || out.From < 1:
		return nil, &SchemaError{out.From, schemaVersion}
	}
	if err := z.migrate(ctx, copied, out.From); err != nil {
		return nil, err
	}
	if out.Aside, err = swapCatalog(dir, copied); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if z, err = open(ctx, dir, opts, openHow{locked: true}); err != nil {
		return nil, err
	}
	return out, z.Close()
}

// copyCatalog writes what a catalog holds at this moment to another file, durably, and returns its schema's version. Others may be writing.
func copyCatalog(ctx context.Context, from, to string) (version int, err error) {
	db, err := sql.Open("sqlite", dsn(from, "rw", false))
	if err != nil {
		return 0, fmt.Errorf("catalog: %w", err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return 0, fmt.Errorf("catalog: %w", err)
	}
	if _, err := db.ExecContext(ctx, "VACUUM INTO ?", to); err != nil {
		return 0, fmt.Errorf("catalog: copy: %w", err)
	}
	return version, syncFile(to)
}

// openAlone opens a catalog in the making, which nobody else knows, without a journal: a crash leaves a file that nobody looks at.
func openAlone(path string) (*sql.DB, error) {
	q := url.Values{"mode": {"rwc"}, "_pragma": {"journal_mode(OFF)", "synchronous(OFF)", "foreign_keys(ON)", "trusted_schema(OFF)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// finish checks a catalog in the making and makes it one that several processes may open.
func finish(ctx context.Context, conn *sql.Conn) error {
	var check, mode string
	if err := conn.QueryRowContext(ctx, "PRAGMA quick_check").Scan(&check); err != nil || check != "ok" {
		return fmt.Errorf("new catalog: check: %s: %w", check, err)
	}
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil || mode != "wal" {
		return fmt.Errorf("new catalog: journal mode %s: %w", mode, err)
	}
	return nil
}

// migrate takes a catalog from one version to this program's.
func (z *Zone) migrate(ctx context.Context, path string, from int) (err error) {
	db, err := openAlone(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("new catalog: %w", err)
	}
	defer conn.Close()
	steps := []func(ctx context.Context, conn *sql.Conn) error{z.migrate1}
	for v := from; v < schemaVersion; v++ {
		if err := steps[v-1](ctx, conn); err != nil {
			return fmt.Errorf("catalog: from version %d to %d: %w", v, v+1, err)
		}
	}
	if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return fmt.Errorf("new catalog: %w", err)
	}
	return finish(ctx, conn)
}

// migrate1 goes from version 1 to 2: hashes stand with their entries, checkpoints know a time, one content may have several names, and
// there are orders and attachments.
func (z *Zone) migrate1(ctx context.Context, conn *sql.Conn) error {
	exec := func(queries ...string) error {
		for _, q := range queries {
			if _, err := conn.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	// The old tables step aside, the new schema is laid out, and the rows move over.
	old := []string{"entry", "checkpoint", "public", "setting", "item", "shipment", "shipment_item", "finding", "collected", "root", "allowlist", "proposal",
		"proposal_signature", "witness", "narinfo", "built", "agreed"}
	indexes := []string{"public_size", "item_name", "shipment_item_sha256", "finding_number", "narinfo_nar"}
	for _, name := range indexes {
		if err := exec("DROP INDEX " + name); err != nil {
			return err
		}
	}
	for _, name := range old {
		if err := exec("ALTER TABLE " + name + " RENAME TO old_" + name); err != nil {
			return err
		}
	}
	if err := exec("DROP TABLE hash", "DROP TABLE shipped", schema,
		"INSERT INTO public SELECT path, size, data, blob FROM old_public",
		"INSERT INTO setting SELECT name, value FROM old_setting",
		"INSERT INTO item SELECT sha256, size, kind, name, added FROM old_item",
		"INSERT INTO shipment SELECT number, manifest, state, importer, date, items, bytes FROM old_shipment",
		"INSERT INTO finding SELECT number, item, severity, rule, place, count, detail FROM old_finding",
		"INSERT INTO collected SELECT sha256, size, kind, name, request, added FROM old_collected",
		"INSERT INTO root SELECT version, digest, note FROM old_root",
		"INSERT INTO allowlist SELECT track, version, digest, note FROM old_allowlist",
		"INSERT INTO proposal SELECT track, version, shipment, text FROM old_proposal",
		"INSERT INTO proposal_signature SELECT track, person, line FROM old_proposal_signature",
		"INSERT INTO witness SELECT name, size, note FROM old_witness",
		"INSERT INTO narinfo SELECT track, hash, path, body, nar, blob, form FROM old_narinfo",
		"INSERT INTO built SELECT derivation, keyid, sha256, leaf, envelope FROM old_built",
		"INSERT INTO agreed SELECT derivation, leaf FROM old_agreed",
		// A content had one name; a shipment with a second one for it said so in its manifest only.
		`INSERT INTO shipment_item SELECT s.number, s.sha256, coalesce((SELECT name FROM old_item i WHERE i.sha256 = s.sha256),
			(SELECT name FROM old_collected c WHERE c.sha256 = s.sha256), '') FROM old_shipment_item s`,
	); err != nil {
		return err
	}
	if err := z.migrateLedger(ctx, conn); err != nil {
		return err
	}
	for _, name := range old {
		if err := exec("DROP TABLE old_" + name); err != nil {
			return err
		}
	}
	return exec("VACUUM")
}

// migrateLedger moves entries and checkpoints, and computes hashes and times anew.
func (z *Zone) migrateLedger(ctx context.Context, conn *sql.Conn) error {
	var s statements
	defer s.close()
	if err := s.prepare(ctx, conn); err != nil {
		return err
	}
	var size int64
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM old_entry").Scan(&size); err != nil {
		return err
	}
	var newest string
	batch := ledger.NewBatch(0, nil)
	for batch.Size() < size {
		rows, err := conn.QueryContext(ctx, "SELECT leaf FROM old_entry WHERE idx >= ? ORDER BY idx LIMIT ?", batch.Size(), maxGroup)
		if err != nil {
			return err
		}
		for rows.Next() {
			var leaf []byte
			if err := errors.Join(rows.Scan(&leaf)); err != nil {
				rows.Close()
				return err
			}
			if _, err := batch.Append(leaf); err != nil {
				rows.Close()
				return err
			}
			if t, ok := stationTime(leaf); ok {
				newest = max(newest, trust.FormatDate(t))
			}
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		if batch.Size() == batch.Start() {
			return trust.Refuse("ledger-corrupt", "catalog", "entry %d is missing", batch.Size())
		}
		_, hashes := batch.Hashes()
		if err := s.insert(ctx, batch.Start(), batch.Leaves(), hashes); err != nil {
			return err
		}
		if batch, err = batch.Next(); err != nil {
			return err
		}
	}
	// The newest checkpoint is checked against the tree when the zone is opened.
	_, err := conn.ExecContext(ctx, "INSERT INTO checkpoint SELECT size, note, CASE WHEN size = 0 THEN '' ELSE ? END FROM old_checkpoint", newest)
	return err
}
