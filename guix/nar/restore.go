package nar

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Modes of restored files, those that the Guix daemon gives to the store.
const (
	modeFile       = 0o444
	modeExecutable = 0o555
	modeDirectory  = 0o555
)

// Restore creates the tree of the archive that begins at the next byte of r, as
// name in root. Nothing called name may exist; its parent must.
//
// Every directory is created, entered as a root of its own and left with mode 0555; files are
// created exclusively and get mode 0444 or 0555; links are created and never
// followed. Times and owners are left as they come about.
//
// Restore has read exactly the archive when it returns nil; what follows is the caller's
// business. If it returns an error it has removed what it created. Nothing
// is synced to disk.
func Restore(root *os.Root, name string, r io.Reader) (err error) {
	if !filepath.IsLocal(name) {
		return &fs.PathError{Op: "restore", Path: name, Err: fs.ErrInvalid}
	}
	z := restorer{r: NewReader(r), dirs: []*os.Root{root}, name: name}
	defer func() {
		for _, dir := range z.dirs[1:] {
			dir.Close()
		}
		if err != nil && z.created {
			if e := Remove(root, name); e != nil {
				err = errors.Join(err, e)
			}
		}
	}()
	for {
		h, err := z.r.Next()
		if err == io.EOF {
			return z.leave(0)
		}
		if err != nil {
			return err
		}
		if err := z.create(h); err != nil {
			return err
		}
	}
}

type restorer struct {
	r       *Reader
	dirs    []*os.Root // the caller's, then the open directories from the top down
	names   []string   // of the open directories in their parents
	name    string     // of the top in dirs[0]
	created bool
}

// create creates the node of h. Only its last name is used, in the directory that has
// been entered; the Reader has seen to it that h belongs there.
func (z *restorer) create(h *Header) error {
	name := z.name
	if h.Path != "" {
		name = h.Name()
		if err := z.leave(1 + strings.Count(h.Path, "/")); err != nil {
			return err
		}
	}
	dir := z.dirs[len(z.dirs)-1]
	switch h.Type {
	case Directory:
		if err := dir.Mkdir(name, 0o700); err != nil {
			return restoring(h, err)
		}
		z.created = true
		sub, err := dir.OpenRoot(name)
		if err != nil {
			return restoring(h, err)
		}
		z.dirs = append(z.dirs, sub)
		z.names = append(z.names, name)
		return nil
	case Symlink:
		if err := dir.Symlink(h.Target, name); err != nil {
			return restoring(h, err)
		}
		z.created = true
		return nil
	case Regular:
		f, err := dir.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return restoring(h, err)
		}
		z.created = true
		if _, err := z.r.WriteTo(f); err != nil {
			f.Close()
			return restoring(h, err)
		}
		mode := fs.FileMode(modeFile)
		if h.Executable {
			mode = modeExecutable
		}
		if err := f.Chmod(mode); err != nil {
			f.Close()
			return restoring(h, err)
		}
		if err := f.Close(); err != nil {
			return restoring(h, err)
		}
		return nil
	}
	panic("nar: the reader returned a node without a type")
}

// leave gives directories their final mode until only depth of them are open.
func (z *restorer) leave(depth int) error {
	for n := len(z.names); n > depth; n-- {
		dir := z.dirs[n]
		z.dirs = z.dirs[:n]
		err := chmodDir(dir, modeDirectory)
		if e := dir.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("nar: restoring the directory %q: %w", z.names[n-1], err)
		}
		z.names = z.names[:n-1]
	}
	return nil
}

// chmodDir changes the mode of an entered directory, whatever has become of its name.
func chmodDir(dir *os.Root, mode fs.FileMode) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	err = f.Chmod(mode)
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

func restoring(h *Header, err error) error {
	var refused *Error
	if errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("nar: restoring %q: %w", "/"+h.Path, err)
}

// Remove deletes what is called name in root, as os.RemoveAll does, but also
// from directories that their owner may not write to, as Restore leaves them. That
// name does not exist is no error.
func Remove(root *os.Root, name string) error {
	fi, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.IsDir() {
		if err := unlock(root, name, 0); err != nil {
			return err
		}
	}
	return root.RemoveAll(name)
}

// unlock makes a directory and those in it writable.
func unlock(root *os.Root, name string, depth int) error {
	if depth > MaxDepth+1 {
		return &fs.PathError{Op: "remove", Path: name, Err: fmt.Errorf("more than %d directories deep", MaxDepth)}
	}
	dir, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o700); err != nil {
		return err
	}
	entries, err := readDir(f)
	if err != nil {
		return err
	}
	for _, e := range entries {
		mode := e.mode
		if mode == modeUnknown {
			fi, err := dir.Lstat(e.name)
			if err != nil {
				return err
			}
			mode = fi.Mode().Type()
		}
		if mode.IsDir() {
			if err := unlock(dir, e.name, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}
