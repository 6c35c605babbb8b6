package host

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"sallyport/guix/storepath"
)

// Bounds on what is followed and listed on a host.
const (
	maxLinks   = 40        // links that one path leads through, as the kernel has it
	maxPath    = 4096      // bytes of a path, links replaced
	maxDepth   = 64        // directories below one where roots are looked for
	maxEntries = 4_000_000 // names in all directories that are listed
)

// A tree is the file system of a host, below one directory. Paths are the host's: absolute, with links that mean the host's root when they say "/".
// Nothing outside of the directory is reached, whatever lies in it, also if it changes while it is read.
type tree struct {
	root    *os.Root
	store   string // where the store really lies, if that is not where everybody looks for it
	entries int    // listed so far
}

func newTree(root *os.Root) *tree {
	t := &tree{root: root}
	if p, err := t.resolve(storepath.Dir, true); err == nil && p.info != nil {
		t.store = p.path
	}
	return t
}

// rel is how [os.Root] wants a path.
func rel(p string) string {
	if p == "/" {
		return "."
	}
	return p[1:]
}

func (t *tree) lstat(p string) (fs.FileInfo, error) { return t.root.Lstat(rel(p)) }

// readlink reads a link as it is.
func (t *tree) readlink(p string) (string, error) { return t.root.Readlink(rel(p)) }

// open opens a regular file. It follows no link in its place and waits for no pipe.
func (t *tree) open(p string) (*os.File, error) {
	return t.openAs(p, fs.FileMode.IsRegular, errNotRegular, 0)
}

// openAs opens what is of the wanted type, and is that still when it is open.
func (t *tree) openAs(p string, ok func(fs.FileMode) bool, wrong error, flag int) (*os.File, error) {
	before, err := t.lstat(p)
	if err == nil && !ok(before.Mode()) {
		err = &fs.PathError{Op: "open", Path: p, Err: wrong}
	}
	if err != nil {
		return nil, err
	}
	f, err := t.root.OpenFile(rel(p), os.O_RDONLY|syscall.O_NONBLOCK|flag, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !os.SameFile(before, fi) {
		err = &fs.PathError{Op: "open", Path: p, Err: errChanged}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

var (
	errNotRegular = errors.New("not a regular file")
	errNotDir     = errors.New("not a directory")
	errChanged    = errors.New("it became something else while it was opened")
	errLoop       = fmt.Errorf("more than %d links", maxLinks)
	errTooLong    = fmt.Errorf("a path of more than %d bytes", maxPath)
	errTooMany    = fmt.Errorf("more than %d names in directories", maxEntries)
	errTooDeep    = fmt.Errorf("more than %d directories deep", maxDepth)
)

// read reads a small file whole.
func (t *tree) read(p string, limit int64) ([]byte, error) {
	f, err := t.open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s: more than %d bytes", p, limit)
	}
	return data, err
}

// list returns the names in a directory, which is no link, sorted.
func (t *tree) list(p string) ([]fs.DirEntry, error) {
	d, err := t.openAs(p, fs.FileMode.IsDir, errNotDir, syscall.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	var all []fs.DirEntry
	for {
		some, err := d.ReadDir(4096)
		all = append(all, some...)
		if t.entries += len(some); t.entries > maxEntries {
			return nil, &fs.PathError{Op: "readdir", Path: p, Err: errTooMany}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// A place is where a path leads.
type place struct {
	path string      // without links, but for the last one if that was not to be followed
	item string      // what stands first below the store, if the path enters it; nothing of what lies there was looked at
	info fs.FileInfo // nil if the path enters the store
}

// resolve finds where an absolute path leads: link by link, each below the host's root, as the host's kernel would. It stops where the path enters the
// store. With last, a link that stands last is followed too.
func (t *tree) resolve(p string, last bool) (place, error) {
	todo := parts(p)
	cur := "/"
	var info fs.FileInfo
	for links := 0; len(todo) > 0; {
		c := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch c {
		case "", ".":
			continue
		case "..":
			cur, info = path.Dir(cur), nil
			continue
		}
		next := path.Join(cur, c)
		if len(next) > maxPath {
			return place{}, &fs.PathError{Op: "resolve", Path: p[:min(len(p), 300)], Err: errTooLong}
		}
		if cur == storepath.Dir || cur == t.store {
			return place{path: next, item: c}, nil
		}
		if next == storepath.Dir && slices.ContainsFunc(todo, func(c string) bool { return c != "" }) {
			// Also where a host's root was copied without its store: what is meant is clear.
			cur, info = next, nil
			continue
		}
		fi, err := t.lstat(next)
		if errors.Is(err, fs.ErrNotExist) && next == path.Dir(storepath.Dir) && len(todo) > 0 && todo[len(todo)-1] == path.Base(storepath.Dir) {
			cur, info = next, nil // likewise
			continue
		}
		if err != nil {
			return place{}, err
		}
		if fi.Mode().Type() != fs.ModeSymlink || !last && len(todo) == 0 {
			if len(todo) > 0 && !fi.IsDir() {
				return place{}, &fs.PathError{Op: "resolve", Path: next, Err: syscall.ENOTDIR}
			}
			cur, info = next, fi
			continue
		}
		if links++; links > maxLinks {
			return place{}, &fs.PathError{Op: "resolve", Path: p[:min(len(p), 300)], Err: errLoop}
		}
		target, err := t.readlink(next)
		if err != nil {
			return place{}, err
		}
		if target == "" || len(target) > maxPath {
			return place{}, &fs.PathError{Op: "resolve", Path: next, Err: errTooLong}
		}
		if target[0] == '/' {
			cur, info = "/", nil
		}
		todo = append(todo, parts(target)...)
	}
	if info == nil {
		fi, err := t.lstat(cur)
		if err != nil {
			return place{}, err
		}
		info = fi
	}
	return place{path: cur, info: info}, nil
}

// parts cuts a path, the last component first.
func parts(p string) []string {
	list := strings.Split(p, "/")
	slices.Reverse(list)
	return list
}

// against makes a link's target an absolute path, without looking at what lies there.
func against(link, target string) string {
	if strings.HasPrefix(target, "/") {
		return path.Clean(target)
	}
	return path.Join(path.Dir(link), target)
}
