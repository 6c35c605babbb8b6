package channel

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// A Keyring is what a channel's branch of keys holds. It is not authenticated and need not be: of a signer nothing counts but the fingerprint, so a
// keyring from anywhere will do. One that lacks a key can make a channel be refused, never accepted.
type Keyring struct {
	*openpgp.Keyring
	Commit git.ID
	Files  int
	Digest [sha256.Size]byte // over names and contents of the files
}

// ReadKeyring reads the keys at a commit: every file whose name ends in .key, in the tree and, as Guix does, in the trees below it. An error is
// a *KeyringError where the keyring is at fault, in a way that lets Guix use no key of it at all.
func ReadKeyring(r *git.Reader, commit git.ID) (*Keyring, error) {
	k := &Keyring{Keyring: openpgp.NewKeyring(), Commit: commit}
	raw, err := r.Read(commit, git.KindCommit)
	if err != nil {
		return nil, keyringError("", err)
	}
	c, err := git.ParseCommit(raw)
	if err != nil {
		return nil, keyringError("", err)
	}
	w := keyWalk{r: r, ring: k}
	if err := w.tree(c.Tree, "", 0); err != nil {
		return nil, err
	}
	h := sha256.New()
	for _, part := range w.digests {
		h.Write(part)
	}
	h.Sum(k.Digest[:0])
	return k, nil
}

// A KeyringError says which file of a keyring cannot be read.
type KeyringError struct {
	File string // or ""
	Err  error
}

func (e *KeyringError) Error() string {
	if e.File == "" {
		return fmt.Sprintf("the keyring: %v", e.Err)
	}
	return fmt.Sprintf("the keyring's file %q: %v", e.File, e.Err)
}

func (e *KeyringError) Unwrap() error { return e.Err }

// keyringError wraps what is the fault of the bytes; what reading them said stays as it is.
func keyringError(file string, err error) error {
	var ge *git.Error
	var pe *openpgp.Error
	if errors.As(err, &ge) || errors.As(err, &pe) {
		return &KeyringError{file, err}
	}
	return err
}

type keyWalk struct {
	r       *git.Reader
	ring    *Keyring
	entries int
	bytes   int
	digests [][]byte
}

func (w *keyWalk) tree(id git.ID, dir string, depth int) error {
	if depth > MaxKeyringDepth {
		return &KeyringError{dir, errors.New("trees nested too deep")}
	}
	raw, err := w.r.Read(id, git.KindTree)
	if err != nil {
		return keyringError(dir, err)
	}
	raw = append([]byte(nil), raw...) // it must outlast what is read below
	for e, err := range git.Entries(raw) {
		if err != nil {
			return keyringError(dir, err)
		}
		name := dir + string(e.Name)
		if w.entries++; w.entries > MaxKeyFiles {
			return &KeyringError{name, fmt.Errorf("more than %d entries", MaxKeyFiles)}
		}
		key := strings.HasSuffix(name, ".key")
		switch {
		case key && (e.IsTree() || e.Mode == git.ModeSubmodule):
			return &KeyringError{name, errors.New("it is no file")}
		case key:
			data, err := w.r.Read(e.ID, git.KindBlob)
			if err != nil {
				return keyringError(name, err)
			}
			if w.bytes += len(data); w.bytes > MaxKeyringBytes {
				return &KeyringError{name, fmt.Errorf("more than %d bytes of keys", MaxKeyringBytes)}
			}
			data = append([]byte(nil), data...) // keys refer to it
			if err := w.ring.Add(name, data); err != nil {
				return keyringError(name, err)
			}
			w.ring.Files++
			sum := sha256.Sum256(data)
			part := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
			w.digests = append(w.digests, append(append(part, name...), sum[:]...))
		case e.IsTree():
			if err := w.tree(e.ID, name+"/", depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
