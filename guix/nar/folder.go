package nar

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"reflect"
	"sync/atomic"
)

// topFolder returns the folder that Dump begins in.
func topFolder(fsys fs.FS) folder {
	if root := rootOf(fsys); root != nil {
		return &rootFolder{root: root}
	}
	return &plainFolder{fsys, "."}
}

// rootOf returns the root whose FS method returned fsys, or nil.
//
// An fs.FS is addressed by whole paths, each of which an os.Root looks up name by name, and
// takes no name that is not UTF-8. The root itself can be entered directory by directory. The
// type of fsys is not exported, but is declared to be an os.Root, so
// that a conversion leads back; should it ever not be, fsys is an ordinary fs.FS.
func rootOf(fsys fs.FS) *os.Root {
	if v := reflect.ValueOf(fsys); v.IsValid() && v.Type() == rootFSType && v.CanConvert(rootType) {
		return v.Convert(rootType).Interface().(*os.Root)
	}
	return nil
}

var (
	rootType   = reflect.TypeFor[*os.Root]()
	rootFSType = reflect.TypeOf(new(os.Root).FS())
)

// A plainFolder is a directory of any file system.
type plainFolder struct {
	fsys fs.FS
	at   string
}

func (p *plainFolder) retain()                 {}
func (p *plainFolder) release()                {}
func (p *plainFolder) path(name string) string { return path.Join(p.at, name) }

func (p *plainFolder) lstat(name string) (fs.FileMode, error) {
	fi, err := fs.Lstat(p.fsys, p.path(name))
	if err != nil {
		return 0, err
	}
	return fi.Mode().Type(), nil
}

func (p *plainFolder) list() ([]dirent, error) {
	entries, err := fs.ReadDir(p.fsys, p.at)
	if err != nil {
		return nil, err
	}
	list := make([]dirent, len(entries))
	for i, e := range entries {
		list[i] = dirent{e.Name(), e.Type()}
	}
	return list, nil
}

func (p *plainFolder) folder(name string) (folder, error) {
	return &plainFolder{p.fsys, p.path(name)}, nil
}

func (p *plainFolder) open(name string) (file, error) {
	f, err := p.fsys.Open(p.path(name))
	if err != nil {
		return nil, err
	}
	return plainFile{f}, nil
}

func (p *plainFolder) readlink(name string) (string, error) {
	return fs.ReadLink(p.fsys, p.path(name))
}

type plainFile struct{ fs.File }

func (f plainFile) stat() (int64, bool, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	if !fi.Mode().IsRegular() {
		return 0, false, errChanged
	}
	return fi.Size(), fi.Mode()&0o100 != 0, nil
}

var errChanged = errors.New("not a regular file any more")

// A rootFolder is a directory below an os.Root, entered with a root of its own. Its names are
// bytes. Whoever closes it last closes what it holds.
type rootFolder struct {
	root *os.Root
	dir  *os.File // the same directory for reading; nil for the folder that Dump begins in
	at   string
	refs atomic.Int32 // besides the first
}

func (r *rootFolder) path(name string) string {
	switch {
	case r.at == "":
		return name
	case name == ".":
		return r.at
	}
	return r.at + "/" + name
}

func (r *rootFolder) retain() { r.refs.Add(1) }

func (r *rootFolder) release() {
	if r.refs.Add(-1) < 0 && r.dir != nil {
		r.dir.Close()
		r.root.Close()
	}
}

func (r *rootFolder) lstat(name string) (fs.FileMode, error) {
	fi, err := r.root.Lstat(name)
	if err != nil {
		return 0, r.fail(name, err)
	}
	return fi.Mode().Type(), nil
}

func (r *rootFolder) folder(name string) (folder, error) {
	sub, err := r.root.OpenRoot(name)
	if err != nil {
		return nil, r.fail(name, err)
	}
	dir, err := sub.Open(".")
	if err != nil {
		sub.Close()
		return nil, r.fail(name, err)
	}
	at := r.path(name)
	if at == "." {
		at = ""
	}
	return &rootFolder{root: sub, dir: dir, at: at}, nil
}

func (r *rootFolder) list() ([]dirent, error) {
	list, err := readDir(r.dir)
	if err != nil {
		return nil, r.fail(".", err)
	}
	return list, nil
}

func (r *rootFolder) open(name string) (file, error) {
	if r.dir == nil {
		f, err := r.root.Open(name)
		if err != nil {
			return nil, r.fail(name, err)
		}
		return plainFile{f}, nil
	}
	f, err := openIn(r.dir, r.root, name)
	if err != nil {
		return nil, r.fail(name, err)
	}
	return f, nil
}

func (r *rootFolder) readlink(name string) (string, error) {
	target, err := r.root.Readlink(name)
	if err != nil {
		return "", r.fail(name, err)
	}
	return target, nil
}

// fail names the file by its whole path, which the handle of a directory does not know.
func (r *rootFolder) fail(name string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		err = pe.Err
	}
	return &fs.PathError{Op: "dump", Path: r.path(name), Err: err}
}
