package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
)

// Snapshot writes what the zone's catalog holds at this moment into dir, which must be
// empty: catalog.sqlite, and public/ledger as it is published with that. Others may be writing meanwhile.
func (z *Zone) Snapshot(ctx context.Context, dir string) (ledger.Checkpoint, error) {
	path := filepath.Join(dir, catalogFile)
	if _, err := copyCatalog(ctx, z.catalog.path, path); err != nil {
		return ledger.Checkpoint{}, err
	}
	db, err := openAlone(path)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	defer db.Close()
	c, note, err := z.committedCheckpoint(ctx, db)
	if err != nil {
		return ledger.Checkpoint{}, err
	}
	front, err := ledger.NewFront(0, nil)
	if err != nil {
		return c, err
	}
	base := filepath.Join(dir, publicDir, ledgerDir)
	tmp := filepath.Join(dir, tmpDir)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return c, err
	}
	defer os.Remove(tmp)
	for front.Size() < c.Size {
		leaves, hashes, err := readEntries(ctx, db, front.Size(), int(min(maxGroup, c.Size-front.Size())))
		if err != nil {
			return c, err
		}
		last := front.Size()+int64(len(leaves)) == c.Size
		tiles, err := front.Append(leaves, hashes)
		if err != nil {
			return c, err
		}
		var files []durable.File
		for _, t := range tiles {
			// Partial tiles in the middle of the way are not what is published in the end.
			if last || t.Tile.W == ledger.TileWidth {
				files = append(files, durable.File{Path: filepath.Join(base, filepath.FromSlash(ledger.Path(t.Tile))), Data: t.Data, Perm: 0o644})
			}
		}
		if err := durable.WriteAll(z.calls, tmp, files...); err != nil {
			return c, err
		}
	}
	return c, durable.WriteAll(z.calls, tmp, durable.File{Path: filepath.Join(base, "checkpoint"), Data: note, Perm: 0o644})
}

// SnapshotSize is about how many bytes a snapshot takes.
func (z *Zone) SnapshotSize() (int64, error) {
	fi, err := os.Stat(z.catalog.path)
	if err != nil {
		return 0, err
	}
	return 2 * fi.Size(), nil // the ledger is in it twice
}

// readEntries reads leaves and the hashes behind them.
func readEntries(ctx context.Context, q Querier, first int64, n int) (leaves [][]byte, hashes []tlog.Hash, err error) {
	rows, err := q.QueryContext(ctx, "SELECT idx, hashes, leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", first, first+int64(n))
	if err != nil {
		return nil, nil, fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var i int64
		var h sql.RawBytes
		var leaf []byte
		if err := rows.Scan(&i, &h, &leaf); err != nil {
			return nil, nil, fmt.Errorf("catalog: %w", err)
		}
		if i != first+int64(len(leaves)) || len(h) != hashesBehind(i)*tlog.HashSize {
			break
		}
		leaves = append(leaves, leaf)
		for ; len(h) > 0; h = h[tlog.HashSize:] {
			hashes = append(hashes, tlog.Hash(h[:tlog.HashSize]))
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("catalog: %w", err)
	}
	if len(leaves) != n {
		return nil, nil, errors.New("catalog: entries are missing")
	}
	return leaves, hashes, nil
}
