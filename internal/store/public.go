package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// MaxPublic bounds a file of the public directory beside the ledger: a note with the longest list.
const MaxPublic = trust.MaxListSize + 2<<20

// publicPath checks and resolves a slash-separated path below public. The ledger's own files are not reached by it.
func (z *Zone) publicPath(rel string) (string, error) {
	if !fs.ValidPath(rel) || rel == "." || rel == ledgerDir || strings.HasPrefix(rel, ledgerDir+"/") || strings.ContainsAny(rel, "\\\x00") {
		return "", fmt.Errorf("public path %q: want a clean relative path outside of %s/", rel, ledgerDir)
	}
	return filepath.Join(z.Dir, publicDir, filepath.FromSlash(rel)), nil
}

// WritePublic writes a file below public, durably, over a former one. What
// belongs to a deed is better given to [Tx.Publish], which cannot be forgotten by a crash.
func (z *Zone) WritePublic(rel string, data []byte) error {
	path, err := z.publicPath(rel)
	if err != nil {
		return err
	}
	if len(data) > MaxPublic {
		return fmt.Errorf("public/%s: %d bytes, more than %d", rel, len(data), MaxPublic)
	}
	return z.writeFiles(durable.File{Path: path, Data: data, Perm: 0o644})
}

// ReadPublic reads a file below public; a missing one is fs.ErrNotExist.
func (z *Zone) ReadPublic(rel string) ([]byte, error) {
	path, err := z.publicPath(rel)
	if err != nil {
		return nil, err
	}
	return readBounded(path, MaxPublic)
}

// PublicFS is the public directory.
func (z *Zone) PublicFS() fs.FS { return os.DirFS(filepath.Join(z.Dir, publicDir)) }

// LedgerFS is the published ledger.
func (z *Zone) LedgerFS() fs.FS { return os.DirFS(filepath.Join(z.Dir, publicDir, ledgerDir)) }

func (z *Zone) writeFiles(files ...durable.File) error {
	return durable.WriteAll(z.calls, filepath.Join(z.Dir, tmpDir), files...)
}

// sameFile says whether a file is there and has these bytes.
func sameBytes(path string, data []byte) (there, same bool, err error) {
	old, err := readBounded(path, int64(len(data)))
	switch {
	case err == nil:
		return true, string(old) == string(data), nil
	case errors.Is(err, fs.ErrNotExist):
		return false, false, nil
	}
	if fi, serr := os.Stat(path); serr == nil && fi.Size() != int64(len(data)) {
		return true, false, nil
	}
	return false, false, err
}
