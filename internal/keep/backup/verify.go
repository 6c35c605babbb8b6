package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
)

// VerifyOptions are what verifying a backup may be told.
type VerifyOptions struct {
	Ledger   trust.VKey                     // the ledger's key, from paper; zero: the one in the backup
	Progress func(bytes int64, file string) // may be nil
}

// A Checked is a backup without fault.
type Checked struct {
	*Manifest
	Lost []trust.Digest // blobs that the catalog names and the backup has not: the zone had lost them before
}

// Verify reads a whole backup: every digest, the ledger under its signed checkpoint, the catalog against the ledger.
// All that is wrong is listed at once.
func Verify(ctx context.Context, from string, opts VerifyOptions) (*Checked, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return nil, err
	}
	fi, err := os.Stat(from)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	dir, want := from, func(string) bool { return false }
	if !fi.IsDir() {
		// Catalog and ledger are opened by name: all of an archive but blobs and secrets is put somewhere.
		if dir, err = os.MkdirTemp("", "sallyport-verify-"); err != nil {
			return nil, fmt.Errorf("backup: %w", err)
		}
		defer os.RemoveAll(dir)
		want = func(name string) bool {
			return !strings.HasPrefix(name, "cas/") && (!strings.HasPrefix(name, "keys/") || strings.HasSuffix(name, ".vkey"))
		}
	}
	m, err := extract(ctx, from, dir, want, opts.Progress)
	if err != nil {
		return nil, err
	}
	return check(ctx, dir, m, opts.Ledger)
}

// vkeyFile is the public half of the ledger's key.
const vkeyFile = "keys/ledger.vkey"

// ledgerKey reads it, and compares it with the one from paper.
func ledgerKey(dir string, paper trust.VKey) (trust.VKey, error) {
	text, err := readSmall(filepath.Join(dir, filepath.FromSlash(vkeyFile)))
	if err != nil {
		return trust.VKey{}, err
	}
	key, err := trust.ParseVKey(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return trust.VKey{}, trust.Refuse("backup-key", vkeyFile, "%v", err)
	}
	if paper.Name != "" && paper.String() != key.String() {
		return trust.VKey{}, trust.Refuse("backup-key", vkeyFile, "it is %s, on paper stands %s", key, paper)
	}
	return key, nil
}

// maxSmall bounds a key, a configuration, a checkpoint.
const maxSmall = 1 << 20

func readSmall(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmall+1))
	if err == nil && len(b) > maxSmall {
		err = fmt.Errorf("%s: more than %d bytes", path, maxSmall)
	}
	return b, err
}

// check looks at what a zone's files say to one another. Their digests have been compared with the manifest.
func check(ctx context.Context, dir string, m *Manifest, paper trust.VKey) (*Checked, error) {
	for _, name := range []string{"zone.toml", "catalog.sqlite", vkeyFile, "public/ledger/checkpoint"} {
		if _, err := os.Stat(filepath.Join(dir, filepath.FromSlash(name))); errors.Is(err, fs.ErrNotExist) {
			return nil, trust.Refuse("backup-missing", name, "a zone cannot be without it")
		} else if err != nil {
			return nil, err
		}
	}
	text, err := readSmall(filepath.Join(dir, "zone.toml"))
	if err != nil {
		return nil, err
	}
	cfg, err := store.ParseConfig(text)
	if err != nil {
		return nil, err
	}
	if cfg.Origin() != m.Checkpoint.Origin {
		return nil, trust.Refuse("backup-origin", "zone.toml", "it is of %s, the manifest says %s", cfg.Origin(), m.Checkpoint.Origin)
	}
	key, err := ledgerKey(dir, paper)
	if err != nil {
		return nil, err
	}
	if key.Name != cfg.Origin() {
		return nil, trust.Refuse("backup-key", vkeyFile, "it is %s, the zone %s", key.Name, cfg.Origin())
	}
	log, err := openLog(os.DirFS(filepath.Join(dir, "public", "ledger")), key)
	if err != nil {
		return nil, err
	}
	if log.Checkpoint() != m.Checkpoint {
		return nil, trust.Refuse("backup-ledger", "public/ledger/checkpoint", "it ends with size %d, the manifest says %d", log.Checkpoint().Size, m.Checkpoint.Size)
	}
	out := &Checked{Manifest: m}
	have := map[trust.Digest]bool{}
	for _, f := range m.Files {
		if d, blob := blobOf(f.Path); blob {
			have[d] = true
		}
	}
	return out, store.InspectCatalog(ctx, filepath.Join(dir, "catalog.sqlite"), log, key, func(q store.Querier) error {
		return pending.Named(ctx, q, func(d trust.Digest) {
			if !have[d] {
				out.Lost, have[d] = append(out.Lost, d), true
			}
		})
	})
}

// openLog opens a published ledger, whose tiles are not read yet.
func openLog(files fs.FS, key trust.VKey) (*ledger.Log, error) {
	note, err := ledger.ReadCheckpoint(files)
	if err != nil {
		return nil, err
	}
	c, err := ledger.OpenCheckpoint(note, key.Name, key)
	if err != nil {
		return nil, err
	}
	return ledger.NewLog(files, c), nil
}
