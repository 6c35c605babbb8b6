// Package durable writes files that are still there after the power has gone,
// with the system calls written out.
//
// A file is durable when its bytes and its name are. The first takes an fsync
// of the file, the second an fsync of the directory that holds the name, and
// that directory's own name takes one of the directory above. Writing beside
// and renaming is not enough: a rename can reach the disk before the bytes.
//
//	WriteFile   create PATH.tmp-N, write, fsync it, rename to PATH, fsync the directory
//	MkdirAll    mkdir each missing directory, fsync the one above it
//	WriteAll    the same for many files, each directory synced once at the end
//
// What a crash leaves: before the rename a file named *.tmp-N, which nobody
// reads and [Sweep] removes; after it the whole file, or, until the directory
// is synced, the former one.
//
// The calls go through the interface [Calls], which [OS] implements. Tests put
// one in its place that fails before a call, fails after it, or forgets what
// was not synced.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
)

// Calls are the system calls by which something becomes durable.
type Calls interface {
	// Create makes a new file; it fails if the name is taken.
	Create(path string, perm fs.FileMode) (*os.File, error)
	Write(f *os.File, p []byte) (int, error)
	// Sync is fsync, of a file or of a directory.
	Sync(f *os.File) error
	Rename(from, to string) error
	Mkdir(path string, perm fs.FileMode) error
	Remove(path string) error
}

// OS is the operating system.
type OS struct{}

func (OS) Create(path string, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
}
func (OS) Write(f *os.File, p []byte) (int, error)   { return f.Write(p) }
func (OS) Sync(f *os.File) error                     { return f.Sync() }
func (OS) Rename(from, to string) error              { return os.Rename(from, to) }
func (OS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }
func (OS) Remove(path string) error                  { return os.Remove(path) }

// tmpMark stands in the name of every file that has not been given its own name yet.
const tmpMark = ".tmp-"

// parallelSyncs is how many files WriteAll syncs at once: file systems put
// syncs that arrive together into one write of their journal.
const parallelSyncs = 8

// SyncDir makes the names in a directory durable.
func SyncDir(c Calls, dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = c.Sync(d)
	return errors.Join(err, d.Close())
}

// MkdirAll makes dir and every missing directory above it, each durable before the next.
func MkdirAll(c Calls, dir string, perm fs.FileMode) error {
	fi, err := os.Stat(dir)
	if err == nil {
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := MkdirAll(c, above, perm); err != nil {
			return err
		}
	}
	if err := c.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also when another process made it in the meantime: it may not have synced it yet.
	return SyncDir(c, above)
}

// Rename moves from to to and makes both directories durable.
func Rename(c Calls, from, to string) error {
	if err := c.Rename(from, to); err != nil {
		return err
	}
	if err := SyncDir(c, filepath.Dir(to)); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return SyncDir(c, filepath.Dir(from))
	}
	return nil
}

// A File is one file for WriteAll.
type File struct {
	Path string
	Data []byte
	Perm fs.FileMode
}

// WriteFile writes one file durably, over a former one of that name. The
// directory must exist.
func WriteFile(c Calls, path string, data []byte, perm fs.FileMode) error {
	return WriteAll(c, []File{{path, data, perm}})
}

// WriteAll writes files durably. Missing directories are made. When it fails
// some of the files may be there, each whole.
func WriteAll(c Calls, files []File) error {
	dirs := map[string]bool{}
	for _, f := range files {
		dirs[filepath.Dir(f.Path)] = true
	}
	for dir := range dirs {
		if err := MkdirAll(c, dir, 0o755); err != nil {
			return err
		}
	}
	if err := each(len(files), func(i int) error { return writeOne(c, files[i]) }); err != nil {
		return err
	}
	sorted := make([]string, 0, len(dirs))
	for dir := range dirs {
		sorted = append(sorted, dir)
	}
	sort.Strings(sorted)
	return each(len(sorted), func(i int) error { return SyncDir(c, sorted[i]) })
}

// writeOne does all but the sync of the directory.
func writeOne(c Calls, file File) (err error) {
	var f *os.File
	var tmp string
	for n := 0; ; n++ {
		tmp = fmt.Sprintf("%s%s%d-%d", file.Path, tmpMark, os.Getpid(), n)
		f, err = c.Create(tmp, file.Perm)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) || n == 1000 {
			return err
		}
	}
	defer func() {
		if err != nil {
			f.Close()
			c.Remove(tmp)
		}
	}()
	if _, err := c.Write(f, file.Data); err != nil {
		return err
	}
	if err := c.Sync(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return c.Rename(tmp, file.Path)
}

// each calls do for 0..n-1, several at a time, and returns the first error.
func each(n int, do func(int) error) error {
	if n == 1 {
		return do(0)
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int
		first error
	)
	for range min(n, parallelSyncs) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				stop := first != nil
				mu.Unlock()
				if i >= n || stop {
					return
				}
				if err := do(i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// Sweep removes what crashed writers left below dir. The caller must know that nobody is writing there.
func Sweep(c Calls, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.Type().IsRegular() && strings.Contains(d.Name(), tmpMark) {
			return c.Remove(path)
		}
		return nil
	})
}
