package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
	"sallyport/internal/trust/statement"
)

// ErrNoRoot is returned, wrapped, where a zone has no root yet.
var ErrNoRoot = errors.New("the zone has no root yet; `trust accept --fingerprint FINGERPRINT FILE` takes version 1 with the fingerprint from paper")

// SettingPin names the setting with the digest of the first root.
const SettingPin = "root-pin"

// Root returns the newest root, verified from the pinned digest on through every version.
func (z *Zone) Root() (*trust.Root, error) {
	z.rootMu.Lock()
	defer z.rootMu.Unlock()
	r, err := z.readRoot(context.Background(), z.catalog.readers, z.root)
	if err != nil {
		return nil, err
	}
	z.root = r
	return r, nil
}

// readRoot continues from known, which may be nil.
func (z *Zone) readRoot(ctx context.Context, q Querier, known *trust.Root) (*trust.Root, error) {
	var from int64
	if known != nil {
		from = known.Version
	}
	rows, err := q.QueryContext(ctx, "SELECT version, digest, note FROM root WHERE version >= ? ORDER BY version", from)
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	root := known
	seen := false
	for rows.Next() {
		var version int64
		var digest string
		var note []byte
		if err := rows.Scan(&version, &digest, &note); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		if known != nil && version == known.Version {
			if digest != known.Digest().String() {
				return nil, trust.Refuse("root-equivocation", "catalog", "version %d has another digest than before", version)
			}
			seen = true
			continue
		}
		if root == nil {
			var text string
			if err := q.QueryRowContext(ctx, "SELECT value FROM setting WHERE name = ?", SettingPin).Scan(&text); err != nil {
				return nil, fmt.Errorf("catalog: %s: %w", SettingPin, err)
			}
			pin, err := trust.ParseDigest(text)
			if err != nil {
				return nil, fmt.Errorf("catalog: %s: %w", SettingPin, err)
			}
			root, err = trust.OpenRoot(note, pin)
			if err != nil {
				return nil, err
			}
		} else if root, err = root.Next(note); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	if root == nil {
		return nil, ErrNoRoot
	}
	if known != nil && !seen {
		return nil, trust.Refuse("root-rollback", "catalog", "version %d was there before and is gone", known.Version)
	}
	return root, nil
}

// SetRoot takes a root into force: version 1 with the fingerprint that was handed
// over on paper, a later one with nil and the signatures that it
// needs. Each signature, and what it changes, is entered in the ledger, and it is published as public/root/N. Keys of this zone that were made
// to follow others ([Zone.RenewKey]) take their place if the root names them. The
// version that is already in force is taken again in silence if it is the same.
func (z *Zone) SetRoot(ctx context.Context, msg []byte, pin trust.Pinned) (*trust.Root, error) {
	var root *trust.Root
	same := errors.New("already in force")
	err := z.ceremony(ctx, func(tx *Tx) error {
		known, err := z.readRoot(ctx, z.catalog.writer, nil)
		switch {
		case errors.Is(err, ErrNoRoot):
			if pin == nil {
				return trust.Refuse("root-pin", "root", "the zone has no root yet, and version 1 is taken only with the digest that was handed over")
			}
			if root, err = trust.OpenRoot(msg, pin); err != nil {
				return err
			}
			if err := tx.Exec(ctx, "INSERT INTO setting (name, value) VALUES (?, ?)", SettingPin, root.Digest().String()); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			if text, _, err := trust.SplitNote("root", msg, trust.MaxRootSize); err == nil && bytes.Equal(text, known.Text()) {
				root = known
				return same
			}
			if pin != nil {
				return trust.Refuse("root-pin", "root", "version %d is in force; a digest from paper is only for the first", known.Version)
			}
			if root, err = known.Next(msg); err != nil {
				return err
			}
		}
		if root.Enclave != z.Config.Enclave {
			return trust.Refuse("root-enclave", "root", "it is of %q, the zone of %q", root.Enclave, z.Config.Enclave)
		}
		changes, err := z.keyChanges(tx.growth.keys, known, root, tx.now)
		if err != nil {
			return err
		}
		tx.heard(root.Date)
		if err := tx.Exec(ctx, "INSERT INTO root (version, digest, note) VALUES (?, ?, ?)", root.Version, root.Digest().String(), msg); err != nil {
			return err
		}
		if err := tx.Publish(fmt.Sprintf("root/%d", root.Version), msg); err != nil {
			return err
		}
		subjects := []statement.Subject{{Name: fmt.Sprintf("root/%d", root.Version), SHA256: root.Digest()}}
		signers := root.Signers(trust.ContextRoot, root.Date)
		if known != nil {
			signers = append(signers, known.Signers(trust.ContextRoot, root.Date)...)
		}
		if err := tx.undersigned("root", root.Version, subjects, root.Text(), msg, signers); err != nil {
			return err
		}
		if err := tx.Statement(statement.KindRoot, subjects, map[string]any{"version": root.Version, "changes": rootChanges(known, root)}); err != nil {
			return err
		}
		for _, c := range changes {
			if err := tx.changeKey(ctx, c, root.Version); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, same) {
		return nil, err
	}
	return root, nil
}

// maxChanges bounds, in bytes, what an entry says of the changes of a root. All of them follow from the two texts.
const maxChanges = 16 << 10

// rootChanges says what a root changes against the one before, for an entry.
func rootChanges(old, root *trust.Root) []any {
	list, size := []any{}, 0
	for _, c := range ceremony.Changes(old, root) {
		if size += len(c.Text); size > maxChanges {
			return append(list, "and more")
		}
		list = append(list, c.Text)
	}
	return list
}

// CheckPin demands that the zone's chain of roots begins with the one whose digest came on paper. The zone keeps that digest too, but in the catalog, which
// root on the station can edit together with the whole chain: who signs or serves by the root asks for the paper.
func (z *Zone) CheckPin(ctx context.Context, paper trust.Pinned) error {
	text, err := Setting(ctx, z.catalog.readers, SettingPin)
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	first, err := trust.ParseDigest(text)
	if err != nil {
		return fmt.Errorf("catalog: %s: %w", SettingPin, err)
	}
	if !paper.Matches(first) {
		return trust.Refuse("root-pin", "root", "the zone's first root is %s (%s), on paper stands %s", trust.Fingerprint(first), first, paper).
			WithHint("compare the paper with another copy of it; if it is right, the zone's root was replaced: call the security officer")
	}
	return nil
}

// Setting reads a single value of the zone; a missing one is "".
func Setting(ctx context.Context, q Querier, name string) (string, error) {
	var v string
	err := q.QueryRowContext(ctx, "SELECT value FROM setting WHERE name = ?", name).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return v, err
}
