package authenticate

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport/guix/channel"
)

// A Cache keeps proofs of commits from one run to the next, so that the next judges only what is new.
//
// A proof says "these commits need not be looked at again", so whoever can write one can have any commit believed. Guix keeps its own as a plain
// list that anything with the user's rights, or that shares his cache directory, can add to, and which is then trusted even without the
// introduction. Here
//
//   - a proof is sealed (HMAC-SHA-256) with a key that lies apart from it, with the state of the user or of the zone, readable by him alone. A
//     proof that was written, changed or moved by anything that cannot read that key is not used, and that is said;
//   - a proof holds for the introduction, signer, keyring content, historical keys and rules with which it was made and for nothing else;
//   - a proof names commits by ids that cover all their history, so it says the same in every repository;
//   - the introduction is checked always;
//   - nothing is ever looked for in the repository that is judged.
//
// Without the cache the verdict is the same, findings included; a test holds every hostile history to that, with the proofs of all others at hand.
type Cache struct {
	dir string
	key []byte
}

const (
	cacheKeySize = 32
	maxProofs    = 64        // files kept; those used last stay
	maxProofSize = 512 << 20 // bytes in one
	sealName     = "sallyport sealed proof 1\n"
	proofSuffix  = ".proof"
)

// OpenCache opens the cache in dir with the key in keyFile. What is missing is made: directories of mode 0700, a key from random of mode 0600. A key
// that others may read or write is an error.
func OpenCache(dir, keyFile string, random io.Reader) (*Cache, error) {
	for _, d := range []string{dir, filepath.Dir(keyFile)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	key, err := readPrivate(keyFile, cacheKeySize)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(keyFile, random); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		key, err = readPrivate(keyFile, cacheKeySize) // perhaps another process was first
	}
	if err != nil {
		return nil, err
	}
	if len(key) != cacheKeySize {
		return nil, fmt.Errorf("%s: %d bytes are no key: delete it, and a new one is made", keyFile, len(key))
	}
	return &Cache{dir, key}, nil
}

// makeKey makes the file whole or not at all.
func makeKey(name string, random io.Reader) error {
	key := make([]byte, cacheKeySize)
	if _, err := io.ReadFull(random, key); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".key-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), name) // unlike a rename, not over another's
}

// readPrivate reads a regular file of ours that nobody else may read or write.
func readPrivate(name string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("%s is no regular file", name)
	case !ok || int(sys.Uid) != os.Geteuid() || st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%s may be read or written by others (mode %v): chmod 600 it if it was not, else delete it", name, st.Mode().Perm())
	case st.Size() > limit:
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", name, st.Size(), limit)
	}
	data := make([]byte, st.Size())
	_, err = io.ReadFull(f, data)
	return data, err
}

func (c *Cache) file(binding [sha256.Size]byte) string {
	return filepath.Join(c.dir, hex.EncodeToString(binding[:])+proofSuffix)
}

func (c *Cache) seal(binding [sha256.Size]byte, proof []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte(sealName))
	h.Write(binding[:])
	h.Write(proof)
	return h.Sum(nil)
}

// Load returns the proof for the circumstances that binding names, nil if there is none. An error says why one that is there is not used.
func (c *Cache) Load(binding [sha256.Size]byte) (*channel.Proven, error) {
	name := c.file(binding)
	data, err := readPrivate(name, maxProofSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(data) < sha256.Size {
		return nil, fmt.Errorf("%s: too short", name)
	}
	proof, seal := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if subtle.ConstantTimeCompare(seal, c.seal(binding, proof)) != 1 {
		return nil, fmt.Errorf("%s: its seal is not ours", name)
	}
	p := new(channel.Proven)
	if err := p.UnmarshalBinary(proof); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

// Save keeps a proof. A run that is killed on the way leaves the old one, or none. It need not be durable: without it the next run takes longer.
func (c *Cache) Save(binding [sha256.Size]byte, p *channel.Proven) error {
	proof, err := p.MarshalBinary()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, ".proof-") // of mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(proof, c.seal(binding, proof)...))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.file(binding)); err != nil {
		return err
	}
	return c.prune()
}

// prune deletes what has not been written for the longest time, and what a killed run has left.
func (c *Cache) prune() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type aged struct {
		name string
		when time.Time
	}
	var proofs, left []aged
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		switch a := (aged{filepath.Join(c.dir, e.Name()), info.ModTime()}); {
		case strings.HasSuffix(e.Name(), proofSuffix):
			proofs = append(proofs, a)
		case strings.HasPrefix(e.Name(), ".proof-"):
			left = append(left, a)
		}
	}
	newest := func(all []aged) {
		slices.SortFunc(all, func(a, b aged) int { return b.when.Compare(a.when) })
	}
	newest(proofs)
	newest(left)
	// Of temporary files the newest few may be those of runs that go on now.
	for _, old := range slices.Concat(proofs[min(len(proofs), maxProofs):], left[min(len(left), 4):]) {
		if err := os.Remove(old.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
