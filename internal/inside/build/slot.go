package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A slot is a directory of WorkDir in which one build works. It is ours while we hold its lock file's lock, which the kernel lets go when we
// die; what a dead build left in it is deleted by whoever locks it next.
type slot struct {
	dir  string
	lock *os.File
}

const lockSuffix = ".lock"

// takeSlot locks the first free slot of work and clears it, and every other one that nobody holds.
func takeSlot(work string) (*slot, error) {
	if err := sweep(work); err != nil {
		return nil, err
	}
	for i := range MaxSlots {
		dir := filepath.Join(work, strconv.Itoa(i))
		lock, err := tryLock(dir + lockSuffix)
		if err != nil {
			return nil, err
		}
		if lock == nil {
			continue
		}
		s := &slot{dir: dir, lock: lock}
		if err := clear(dir); err != nil {
			lock.Close()
			return nil, err
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			lock.Close()
			return nil, err
		}
		return s, nil
	}
	return nil, fmt.Errorf("%s: all %d build slots are in use", work, MaxSlots)
}

// sweep deletes what dead builds left.
func sweep(work string) error {
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil || !e.IsDir() || strings.HasSuffix(e.Name(), lockSuffix) {
			continue
		}
		dir := filepath.Join(work, e.Name())
		lock, err := tryLock(dir + lockSuffix)
		if err != nil {
			return err
		}
		if lock == nil {
			continue
		}
		err = clear(dir)
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// tryLock returns nil, nil if another build holds the lock.
func tryLock(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	f.Close()
	if err == unix.EWOULDBLOCK {
		return nil, nil
	}
	return nil, &os.PathError{Op: "lock", Path: name, Err: err}
}

// clear deletes dir. The processes of a build whose parent was killed may need a moment to be gone, and make files until then.
func clear(dir string) error {
	const tries, pause = 1500, 20 * time.Millisecond
	var err error
	for range tries {
		if err = removeTree(dir); err == nil || !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
		time.Sleep(pause)
	}
	return err
}

func (s *slot) release() error {
	return errors.Join(clear(s.dir), s.lock.Close())
}
