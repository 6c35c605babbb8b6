// Package durabletest has system calls that go wrong, for tests of what claims
// to be durable.
//
// [Faulty] makes one call fail, before it is done or after: both must leave the
// same promises intact. [Crash] remembers what has not been synced and, on
// demand, loses it, as a power failure may.
package durabletest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"sallyport/internal/store/durable"
)

// ErrInjected is the error of a call that was made to fail.
var ErrInjected = errors.New("injected fault")

// Faulty counts calls and makes some fail.
type Faulty struct {
	Inner durable.Calls
	// Fail is asked before each call, with its number from 1 on. done says
	// whether the call is to be done all the same.
	Fail func(n int, op, path string) (fail, done bool)

	mu sync.Mutex
	n  int
}

// Calls is how many calls there were.
func (c *Faulty) Calls() int { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

func (c *Faulty) ask(op, path string) (fail, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.Fail(c.n, op, path)
}

func (c *Faulty) do(op, path string, call func() error) error {
	fail, done := c.ask(op, path)
	if fail && !done {
		return ErrInjected
	}
	if err := call(); err != nil {
		return err
	}
	if fail {
		return ErrInjected
	}
	return nil
}

func (c *Faulty) Create(path string, perm fs.FileMode) (f *os.File, err error) {
	err = c.do("create", path, func() (err error) { f, err = c.Inner.Create(path, perm); return err })
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, err
}

func (c *Faulty) Write(f *os.File, p []byte) (n int, err error) {
	err = c.do("write", f.Name(), func() (err error) { n, err = c.Inner.Write(f, p); return err })
	return n, err
}

func (c *Faulty) Sync(f *os.File) error {
	return c.do("sync", f.Name(), func() error { return c.Inner.Sync(f) })
}

func (c *Faulty) Rename(from, to string) error {
	return c.do("rename", to, func() error { return c.Inner.Rename(from, to) })
}

func (c *Faulty) Mkdir(path string, perm fs.FileMode) error {
	return c.do("mkdir", path, func() error { return c.Inner.Mkdir(path, perm) })
}

func (c *Faulty) Remove(path string) error {
	return c.do("remove", path, func() error { return c.Inner.Remove(path) })
}

// Crash is the operating system, until Lose takes back what was not synced:
// names that were made or moved in a directory, and the bytes of files.
type Crash struct {
	Spare string // an empty directory on the same file system, for what may have to come back

	mu     sync.Mutex
	undo   []step            // in the order of the calls
	dirty  map[uint64]string // files with unsynced bytes: inode to present path
	spares int
}

type step struct {
	dir  string // whose sync makes it durable
	back func()
}

func inode(f *os.File) uint64 {
	var st syscall.Stat_t
	syscall.Fstat(int(f.Fd()), &st)
	return st.Ino
}

func (c *Crash) Create(path string, perm fs.FileMode) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := durable.OS{}.Create(path, perm)
	if err == nil {
		c.undo = append(c.undo, step{filepath.Dir(path), func() { os.Remove(path) }})
	}
	return f, err
}

func (c *Crash) Write(f *os.File, p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty == nil {
		c.dirty = map[uint64]string{}
	}
	if ino := inode(f); c.dirty[ino] == "" {
		c.dirty[ino] = f.Name()
	}
	return f.Write(p)
}

func (c *Crash) Sync(f *os.File) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.dirty, inode(f))
	var rest []step
	for _, s := range c.undo {
		if s.dir != filepath.Clean(f.Name()) {
			rest = append(rest, s)
		}
	}
	c.undo = rest
	return nil // the real sync would only cost time
}

func (c *Crash) Rename(from, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spares++
	spare := filepath.Join(c.Spare, filepath.Base(to)+"-"+string(rune('a'+c.spares%26))+filepath.Base(from))
	had := os.Link(to, spare) == nil
	if err := os.Rename(from, to); err != nil {
		return err
	}
	for ino, path := range c.dirty {
		if path == from {
			c.dirty[ino] = to
		}
	}
	c.undo = append(c.undo, step{filepath.Dir(to), func() {
		os.Remove(to)
		if had {
			os.Rename(spare, to)
		}
	}})
	return nil
}

func (c *Crash) Mkdir(path string, perm fs.FileMode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := os.Mkdir(path, perm)
	if err == nil {
		c.undo = append(c.undo, step{filepath.Dir(path), func() { os.RemoveAll(path) }})
	}
	return err
}

func (c *Crash) Remove(path string) error { return os.Remove(path) }

// Lose is the power failure.
func (c *Crash) Lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, path := range c.dirty {
		os.Chmod(path, 0o600)
		os.Truncate(path, 0)
	}
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i].back()
	}
	c.undo, c.dirty = nil, nil
}
