// Package durable writes files that are still there after the power has gone,
// with the system calls written out.
//
// A file is durable when its bytes and its name are. The first takes an fsync
// of the file, the second an fsync of the directory that holds the name, and
// that directory's own name takes one of the directory above. Writing beside
// and renaming is not enough: a rename can reach the disk before the bytes.
//
//	WriteAll    for each file: create TMP/N, write, fsync, rename to its path; then fsync each directory once
//	WriteThen   the same, then rename one more, written and synced with them, and fsync its directory
//	MkdirAll    mkdir each missing directory, fsync the one above it
//
// Temporary files lie in a directory of their own on the same file system, each
// under a lock of its writer. A crash before the rename leaves one there, whose
// lock the kernel has released: [SweepTemp] removes it and spares the living.
// After the rename there is the whole file or, until its directory is synced,
// the former one.
//
// The calls go through the interface [Calls], which [OS] implements. Tests put
// one in its place that fails before a call, fails after it, or forgets what
// was not synced.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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

// WriteAll writes files durably, each over a former one of its name. Missing
// directories are made. tmp is a directory on the same file system. When it
// fails some of the files may be there, each whole.
func WriteAll(c Calls, tmp string, files ...File) error { return writeAll(c, tmp, files, nil) }

// WriteThen is WriteAll of files and then of last, which appears only when all the
// others are durable. It costs less than two calls: last's bytes are
// synced together with the others'.
func WriteThen(c Calls, tmp string, last File, files ...File) error {
	return writeAll(c, tmp, files, &last)
}

func writeAll(c Calls, tmp string, files []File, last *File) (err error) {
	all := files
	if last != nil {
		all = append(slices.Clip(files), *last)
	}
	dirs := map[string]bool{}
	for _, f := range files {
		dirs[filepath.Dir(f.Path)] = true
	}
	sorted := slices.Sorted(maps.Keys(dirs))
	for _, dir := range sorted {
		if err := MkdirAll(c, dir, 0o755); err != nil {
			return err
		}
	}
	if last != nil {
		if err := MkdirAll(c, filepath.Dir(last.Path), 0o755); err != nil {
			return err
		}
	}
	written := make([]temporary, len(all))
	defer func() {
		for i := range written {
			err = errors.Join(err, written[i].end(c))
		}
	}()
	if err := each(len(all), func(i int) (err error) {
		written[i], err = writeTemporary(c, tmp, all[i])
		if err == nil && i < len(files) {
			err = written[i].name(c, files[i].Path)
		}
		return err
	}); err != nil {
		return err
	}
	if err := each(len(sorted), func(i int) error { return SyncDir(c, sorted[i]) }); err != nil || last == nil {
		return err
	}
	if err := written[len(files)].name(c, last.Path); err != nil {
		return err
	}
	return SyncDir(c, filepath.Dir(last.Path))
}

// A temporary is a file that is written and synced, under its lock, and has not its name yet.
type temporary struct {
	f    *os.File
	path string // empty once it has its name
}

func writeTemporary(c Calls, dir string, file File) (t temporary, err error) {
	if t.f, t.path, err = CreateTemp(c, dir, file.Perm); err != nil {
		return temporary{}, err
	}
	if _, err := c.Write(t.f, file.Data); err != nil {
		return t, err
	}
	return t, c.Sync(t.f)
}

// name gives the file its name.
func (t *temporary) name(c Calls, path string) error {
	if err := c.Rename(t.path, path); err != nil {
		return err
	}
	t.path = ""
	return nil
}

// end removes what has no name, and gives up the lock. That what could not be removed stays is no fault of the writing: a sweep finds it.
func (t *temporary) end(c Calls) error {
	if t.f == nil {
		return nil
	}
	if t.path != "" {
		c.Remove(t.path)
	}
	return t.f.Close()
}

// maxTries bounds the search for a free name.
const maxTries = 10_000

// CreateTemp makes a file in dir under a free name and locks it, so that
// [SweepTemp] spares it as long as it is open.
func CreateTemp(c Calls, dir string, perm fs.FileMode) (*os.File, string, error) {
	for range maxTries {
		path := filepath.Join(dir, fmt.Sprintf("%d-%08x", os.Getpid(), rand.Uint32()))
		f, err := c.Create(path, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		// Between creating and locking a sweeper may have taken the file for an orphan: then
		// the lock is his, or the file has no name any more.
		var st syscall.Stat_t
		if Lock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil && syscall.Fstat(int(f.Fd()), &st) == nil && st.Nlink > 0 {
			return f, path, nil
		}
		f.Close()
	}
	return nil, "", fmt.Errorf("%s: no free name for a temporary file", dir)
}

// Lock is flock(2), begun again after signals. The lock ends when f is closed, by
// the program or by its death.
func Lock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			return err
		}
	}
}

// SweepTemp removes the files and directories in dir on which nobody holds a
// lock. It may run at any time beside writers that use [CreateTemp].
func SweepTemp(c Calls, dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := Sweep(c, filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Sweep removes a file or directory on which nobody holds a lock. One that has gone meanwhile is no error.
func Sweep(c Calls, path string) error {
	if err := sweepOne(c, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func sweepOne(c Calls, path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() && !fi.IsDir() {
		return c.Remove(path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) && fi.IsDir() {
		os.Chmod(path, 0o700)
		f, err = os.Open(path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if Lock(f, syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return nil
	}
	// Under its lock, and only if the name still means this file.
	now, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if was, err := f.Stat(); err != nil || !os.SameFile(was, now) {
		return err
	}
	if fi.IsDir() {
		return RemoveAll(path)
	}
	return c.Remove(path)
}

// TempBeside makes a directory beside path, in which what is to have that name is
// made: a rename puts it in its place. Nobody sweeps it as long as done has not been called, and
// done removes what is left of it. What dead processes have left of the same purpose goes.
func TempBeside(path, purpose string) (tmp string, done func(), err error) {
	parent, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."+purpose+"-"
	names, err := os.ReadDir(parent)
	if err != nil {
		return "", nil, err
	}
	for _, n := range names {
		if n.IsDir() && strings.HasPrefix(n.Name(), prefix) {
			if err := Sweep(OS{}, filepath.Join(parent, n.Name())); err != nil {
				return "", nil, err
			}
		}
	}
	for range maxTries {
		if tmp, err = os.MkdirTemp(parent, prefix); err != nil {
			return "", nil, err
		}
		f, err := os.Open(tmp)
		if err != nil {
			continue // swept before it was locked
		}
		if Lock(f, syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if _, err := os.Lstat(tmp); err == nil {
				return tmp, func() { RemoveAll(tmp); f.Close() }, nil
			}
		}
		f.Close()
	}
	return "", nil, fmt.Errorf("%s: no temporary directory to be had; is it swept in a loop?", parent)
}

// RemoveAll removes a tree, also one whose directories are read-only.
func RemoveAll(path string) error {
	if os.RemoveAll(path) == nil {
		return nil
	}
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
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
