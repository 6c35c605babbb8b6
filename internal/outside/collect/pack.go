package collect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Shipped is a shipment that was made.
type Shipped struct {
	Number int64          `json:"shipment"`
	Volume string         `json:"volume"`
	Slip   *shipment.Slip `json:"-"`
	Items  int            `json:"items"`
	Bytes  int64          `json:"bytes"`
}

// Pack makes a volume at dir of the items that were collected and not shipped yet. The number and the signed manifest are in the ledger before the
// volume has its name: a number is never used for two manifests. If a run is cut in between, the next one finishes that very shipment, at whatever
// directory it is given, and makes no other.
func (c *Collector) Pack(ctx context.Context, dir string, manifestKeys []trust.Signer, sumsKey trust.Signer) (*Shipped, error) {
	unlock, err := c.Zone.LockContext(ctx, "collect")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s is there already; a volume is never overwritten", dir)
	}
	// What was numbered and signed but has no volume yet comes first.
	m, file, err := c.unfinished(ctx)
	if err != nil {
		return nil, err
	}
	if m == nil {
		if m, file, err = c.number(ctx, manifestKeys); err != nil {
			return nil, err
		}
	}
	open := func(it trust.Item) (io.ReadCloser, error) { return c.Zone.CAS.Open(it.SHA256) }
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	err = shipment.Write(ctx, abs, m, file, open, sumsKey, func(n int64) {
		if c.Progress != nil {
			c.Progress(n, fmt.Sprintf("shipment %d", m.Number))
		}
	})
	if err != nil {
		return nil, err
	}
	if err := c.Zone.Commit(ctx, func(tx *store.Tx) error {
		err := tx.Exec(ctx, `UPDATE shipment SET state = 'written' WHERE number = ?`, m.Number)
		return err
	}); err != nil {
		return nil, err
	}
	return &Shipped{m.Number, abs, shipment.NewSlip(m, file), len(m.Items), m.Bytes()}, nil
}

// unfinished returns the shipment that was numbered and has no volume.
func (c *Collector) unfinished(ctx context.Context) (*shipment.Manifest, []byte, error) {
	var digest string
	err := c.Zone.Read(ctx).QueryRowContext(ctx, `SELECT manifest FROM shipment WHERE state = 'numbered'`).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	file, err := c.manifest(digest)
	if err != nil {
		return nil, nil, err
	}
	text, _, err := trust.SplitNote("manifest", file, shipment.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	m, err := shipment.ParseManifest(text)
	return m, file, err
}

func (c *Collector) manifest(digest string) ([]byte, error) {
	d, err := trust.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	return c.Zone.CAS.ReadAll(d, shipment.MaxManifest)
}

// number gives what was collected the next number, and signs and records the manifest.
func (c *Collector) number(ctx context.Context, keys []trust.Signer) (*shipment.Manifest, []byte, error) {
	m := &shipment.Manifest{Enclave: c.Zone.Config.Enclave, Number: 1, Date: c.Clock()}
	q := c.Zone.Read(ctx)
	rows, err := q.QueryContext(ctx, `SELECT sha256, size, kind, name FROM collected WHERE (sha256, name) NOT IN (SELECT sha256, name FROM shipment_item)`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var digest, kind string
		var it trust.Item
		if err := rows.Scan(&digest, &it.Size, &kind, &it.Name); err != nil {
			return nil, nil, err
		}
		if it.SHA256, err = trust.ParseDigest(digest); err != nil {
			return nil, nil, err
		}
		it.Kind = kind
		m.Items = append(m.Items, it)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	if len(m.Items) == 0 {
		return nil, nil, errors.New("nothing was collected that has not been shipped")
	}
	former, err := q.QueryContext(ctx, `SELECT number, manifest, date FROM shipment ORDER BY number DESC LIMIT ?`, shipment.MaxRecent)
	if err != nil {
		return nil, nil, err
	}
	defer former.Close()
	for former.Next() {
		var r shipment.Recent
		var digest, date string
		if err := former.Scan(&r.Number, &digest, &date); err != nil {
			return nil, nil, err
		}
		if r.Date, err = trust.ParseDate(date); err != nil {
			return nil, nil, err
		}
		if len(m.Recent) == 0 {
			m.Number = r.Number + 1
			if m.Previous, err = trust.ParseDigest(digest); err != nil {
				return nil, nil, err
			}
		}
		m.Recent = append(m.Recent, r)
	}
	if err := former.Err(); err != nil {
		return nil, nil, err
	}
	file, err := m.Sign(keys...)
	if err != nil {
		return nil, nil, err
	}
	if c.Root != nil {
		if _, _, err := shipment.OpenManifest(file, c.Root); err != nil {
			return nil, nil, fmt.Errorf("the enclave would refuse the shipment, by its root version %d: %w", c.Root.Version, err)
		}
	}
	digest := trust.Sum(file)
	in, err := pending.Begin(ctx, c.Zone, stage, []trust.Digest{digest})
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Zone.CAS.PutBytes(file); err != nil {
		return nil, nil, errors.Join(err, in.End(ctx, err))
	}
	err = c.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement(statement.KindShipped, []statement.Subject{{Name: fmt.Sprintf("shipment %d", m.Number), SHA256: digest}}, map[string]any{
			"shipment": m.Number, "items": int64(len(m.Items)), "bytes": m.Bytes()}); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'numbered', '', ?, ?, ?)`,
			m.Number, digest.String(), trust.FormatDate(m.Date), len(m.Items), m.Bytes()); err != nil {
			return err
		}
		for _, it := range m.Items {
			if err := tx.Exec(ctx, `INSERT INTO shipment_item (number, sha256, name) VALUES (?, ?, ?)`, m.Number, it.SHA256.String(), it.Name); err != nil {
				return err
			}
		}
		return nil
	})
	return m, file, errors.Join(err, in.End(ctx, err))
}
