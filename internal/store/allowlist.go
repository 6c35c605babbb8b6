package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"sallyport/internal/trust"
)

// Allowlist returns the newest allowlist note that the zone has for a track, unverified; nil if there is none. Whoever acts on it
// opens it with the root, and keeps a floor.
func (z *Zone) Allowlist(ctx context.Context, track string) ([]byte, error) {
	var digest string
	err := z.catalog.readers.QueryRowContext(ctx, "SELECT note FROM allowlist WHERE track = ? ORDER BY version DESC LIMIT 1", track).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	d, err := trust.ParseDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("catalog: allowlist of track %q: %w", track, err)
	}
	note, err := z.CAS.ReadAll(d, MaxPublic)
	if err != nil {
		return nil, fmt.Errorf("allowlist of track %q: %w", track, err)
	}
	return note, nil
}
