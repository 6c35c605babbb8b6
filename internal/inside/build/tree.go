package build

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// The functions of this file handle trees that a builder made, on behalf of a process that may be root. Every name is taken
// relative to an open directory and no symbolic link is followed. No process of the builder runs any more.

// A dir is an open directory. The name is for messages.
type dir struct {
	fd   int
	name string
}

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

func openDirectory(path string) (*dir, error) {
	fd, err := unix.Open(path, openDir, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &dir{fd: fd, name: path}, nil
}

func (d *dir) open(name string) (*dir, error) {
	fd, err := unix.Openat(d.fd, name, openDir, 0)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &dir{fd: fd, name: filepath.Join(d.name, name)}, nil
}

func (d *dir) close() { unix.Close(d.fd) }

func (d *dir) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(d.name, name), Err: err}
}

func (d *dir) lstat(name string) (st unix.Stat_t, err error) {
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return st, d.fail("lstat", name, err)
	}
	return st, nil
}

// chmod changes the mode of name, which lstat has shown to be no symbolic link.
func (d *dir) chmod(name string, mode uint32) error {
	if err := unix.Fchmodat(d.fd, name, mode, 0); err != nil {
		return d.fail("chmod", name, err)
	}
	return nil
}

// names lists the directory, sorted.
func (d *dir) names() ([]string, error) {
	fd, err := unix.Openat(d.fd, ".", openDir, 0)
	if err != nil {
		return nil, d.fail("open", ".", err)
	}
	f := os.NewFile(uintptr(fd), d.name)
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// removeTree deletes the file or directory at path if it is there, whatever its modes and however deep it is. A builder can nest
// directories deeper than any number of open descriptors, so a directory found in another is first moved to the top.
func removeTree(path string) error {
	parent, err := openDirectory(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer parent.close()
	name := filepath.Base(path)
	st, err := parent.lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if err := unix.Unlinkat(parent.fd, name, 0); err != nil {
			return parent.fail("unlink", name, err)
		}
		return nil
	}
	if err := parent.chmod(name, 0o700); err != nil {
		return err
	}
	top, err := parent.open(name)
	if err != nil {
		return err
	}
	defer top.close()
	// First round: the entries of top itself; names that the later rounds use are among them, maybe.
	if err := removeLevels(top); err != nil {
		return err
	}
	if err := unix.Unlinkat(parent.fd, name, unix.AT_REMOVEDIR); err != nil && err != unix.ENOENT {
		return parent.fail("rmdir", name, err)
	}
	return nil
}

// removeLevels empties top. Directories wait in a queue of names in top; each is emptied, its directories moved up, and removed.
func removeLevels(top *dir) error {
	names, err := top.names()
	if err != nil {
		return err
	}
	taken := make(map[string]bool, len(names))
	for _, n := range names {
		taken[n] = true
	}
	next := 0
	fresh := func() string {
		for ; ; next++ {
			if n := ".gone-" + strconv.Itoa(next); !taken[n] {
				next++
				return n
			}
		}
	}
	queue := names
	for len(queue) > 0 {
		name := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		st, err := top.lstat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := unix.Unlinkat(top.fd, name, 0); err != nil {
				return top.fail("unlink", name, err)
			}
			continue
		}
		if err := top.chmod(name, 0o700); err != nil {
			return err
		}
		d, err := top.open(name)
		if err != nil {
			return err
		}
		inner, err := d.names()
		for _, n := range inner {
			if err != nil {
				break
			}
			e := unix.Unlinkat(d.fd, n, 0)
			switch e {
			case nil, unix.ENOENT:
			case unix.EISDIR, unix.EPERM:
				var st unix.Stat_t
				if st, err = d.lstat(n); err != nil {
					break
				}
				if st.Mode&unix.S_IFMT != unix.S_IFDIR {
					err = d.fail("unlink", n, e)
					break
				}
				// Moving a directory changes its "..", for which its owner needs to be let in.
				if err = d.chmod(n, 0o700); err != nil {
					break
				}
				up := fresh()
				if e := unix.Renameat(d.fd, n, top.fd, up); e != nil {
					err = d.fail("rename", n, e)
					break
				}
				queue = append(queue, up)
			default:
				err = d.fail("unlink", n, e)
			}
		}
		d.close()
		if err != nil {
			return err
		}
		if err := unix.Unlinkat(top.fd, name, unix.AT_REMOVEDIR); err != nil {
			return top.fail("rmdir", name, err)
		}
	}
	return nil
}

// expected is what a sandbox's root holds without any deed of the builder: each directory with what is in it. What is nil is not looked into.
type expected map[string]expected

// add makes path, slash-separated without a leading slash, expected, and returns what is in it.
func (e expected) add(path string, inside bool) {
	for {
		first, rest, more := cutSlash(path)
		if !more {
			if _, ok := e[first]; !ok {
				if inside {
					e[first] = expected{}
				} else {
					e[first] = nil
				}
			}
			return
		}
		if e[first] == nil {
			e[first] = expected{}
		}
		e, path = e[first], rest
	}
}

func cutSlash(path string) (first, rest string, more bool) {
	for i := range len(path) {
		if path[i] == '/' {
			return path[:i], path[i+1:], true
		}
	}
	return path, "", false
}

// strays collects what is in d and not expected; of a directory only its top.
func (r *Result) strays(d *dir, shown string, want expected) error {
	names, err := d.names()
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	for _, n := range names {
		inside, ok := want[n]
		path := shown + "/" + n
		if !ok {
			r.stray(path)
			continue
		}
		if inside == nil {
			continue
		}
		st, err := d.lstat(n)
		if err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			r.stray(path) // put in the place of a directory of ours
			continue
		}
		if st.Mode&0o500 != 0o500 {
			if err := d.chmod(n, 0o700); err != nil {
				return err
			}
		}
		sub, err := d.open(n)
		if err != nil {
			return err
		}
		err = r.strays(sub, path, inside)
		sub.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Result) stray(path string) {
	r.StrayCount++
	if len(r.Strays) < MaxStrays {
		r.Strays = append(r.Strays, path)
	}
}
