package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// Names in a state directory.
const (
	floorFile      = "floor.json"
	lockFile       = "lock"
	tempDir        = "tmp"
	derivationsDir = "derivations"
)

// A State is the directory that a host's check keeps of its own:
//
//	floor.json           the highest versions of the enclave's documents that it has accepted
//	derivations/SHA256   files of derivations that were fetched once; compared with their digest whenever they are read
//	tmp/                 the copy of the store database; cleared by the next run
//
// One check at a time uses it.
type State struct {
	dir  string
	lock *os.File
}

// OpenState opens a state directory, and makes one if there is none: it begins with no floor.
func OpenState(dir string) (*State, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(durable.OS{}, filepath.Join(dir, derivationsDir), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := durable.Lock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("another check is going on with the state in %s", dir)
		}
		return nil, errors.Join(err, lock.Close())
	}
	s := &State{dir, lock}
	temp := filepath.Join(dir, tempDir)
	// What a run that was cut has left there.
	if err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o700)); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// Close lets the next check begin.
func (s *State) Close() error {
	return errors.Join(os.RemoveAll(s.temp()), s.lock.Close())
}

func (s *State) temp() string  { return filepath.Join(s.dir, tempDir) }
func (s *State) floor() string { return filepath.Join(s.dir, floorFile) }

func (s *State) derivationFile(d trust.Digest) string {
	return filepath.Join(s.dir, derivationsDir, d.String())
}

// derivation returns what was kept, if it is whole.
func (s *State) derivation(d trust.Digest, size int64) ([]byte, bool) {
	f, err := os.Open(s.derivationFile(d))
	if err != nil {
		return nil, false
	}
	defer f.Close()
	data := make([]byte, 0, min(size, 1<<20)+1)
	data, err = readAll(f, data, size)
	return data, err == nil && trust.Sum(data) == d
}

// keep keeps a derivation. It is no evidence, and need not be durable: a torn one has another digest.
func (s *State) keep(d trust.Digest, data []byte) error {
	f, err := os.CreateTemp(s.temp(), "drv-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), s.derivationFile(d))
	}
	return err
}

// prune drops the derivations that no list names any more.
func (s *State) prune(wanted func(trust.Digest) bool) error {
	list, err := os.ReadDir(filepath.Join(s.dir, derivationsDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range list {
		if d, err := trust.ParseDigest(e.Name()); err != nil || wanted(d) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, derivationsDir, e.Name())); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// readAll reads exactly what a file of this size has; more is an error.
func readAll(f io.Reader, buf []byte, size int64) ([]byte, error) {
	b := bytes.NewBuffer(buf)
	if n, err := io.Copy(b, io.LimitReader(f, size+1)); err != nil || n != size {
		return nil, errors.Join(err, fmt.Errorf("%d bytes, want %d", n, size))
	}
	return b.Bytes(), nil
}
