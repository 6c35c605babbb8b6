package host

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sallyport/guix/storepath"
)

// Where roots lie.
const (
	gcrootsDir  = stateDir + "/gcroots"
	autoDir     = gcrootsDir + "/auto"
	profilesDir = stateDir + "/profiles"
)

// running are the links to the system that runs.
var running = []string{"/run/current-system", "/run/booted-system"}

// Kinds of roots.
const (
	KindRoot       = "root"       // a link, or a file named as an item, in gcroots
	KindGeneration = "generation" // NAME-N-link, of a profile or of the system
	KindSystem     = "system"     // what runs, or was booted
	KindProcess    = "process"    // what a running process has open
)

// A Root is a thing that keeps an item, and all that it refers to, in use.
type Root struct {
	Kind       string
	Path       string // on the host
	Profile    string // of a generation: the profile's path
	Generation int64
	Current    bool      // of a generation: the profile is at it
	Time       time.Time // when the link was made
	Item       string    // base name
}

// A Broken root leads nowhere, or nowhere that could be told.
type Broken struct {
	Path   string
	Reason string
}

// generationName splits the name of a generation's link.
var generationName = regexp.MustCompile(`^(.+)-(0|[1-9][0-9]{0,9})-link$`)

// A rootFinder looks for roots.
type rootFinder struct {
	t      *tree
	roots  []Root
	broken []Broken
	seen   map[string]bool   // paths of roots
	at     map[string]string // of a profile: the generation that it is at, by the link's path
}

// findRoots finds the roots of a host, as its garbage collector would and more generously: a chain of links may be as long as links may be. Nothing that lies in
// the store is opened, nothing outside of the tree is reached.
func findRoots(t *tree) ([]Root, []Broken, error) {
	f := &rootFinder{t: t, seen: map[string]bool{}, at: map[string]string{}}
	for _, dir := range []string{gcrootsDir, profilesDir} {
		p, err := t.resolve(dir, true)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && p.item == "" && !p.info.IsDir() {
			err = &fs.PathError{Op: "roots", Path: dir, Err: errors.New("not a directory")}
		}
		if err != nil {
			return nil, nil, err
		}
		if p.item != "" {
			f.fail(dir, errors.New("it leads into the store"))
			continue
		}
		if err := f.walk(dir, p.path, 0); err != nil {
			return nil, nil, err
		}
	}
	for _, p := range running {
		if _, err := t.resolve(p, false); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		f.link(KindSystem, p)
	}
	for i := range f.roots {
		r := &f.roots[i]
		r.Current = r.Kind == KindGeneration && f.current(r.Profile) == r.Path
	}
	return f.roots, f.broken, nil
}

func (f *rootFinder) fail(p string, err error) { f.broken = append(f.broken, Broken{p, err.Error()}) }

// walk looks through a directory, which is called shown and really lies at dir. A directory that is linked to is not entered: those that matter are looked
// through by their own names.
func (f *rootFinder) walk(shown, dir string, depth int) error {
	if depth > maxDepth {
		return &fs.PathError{Op: "roots", Path: dir, Err: errTooDeep}
	}
	list, err := f.t.list(dir)
	if errors.Is(err, fs.ErrPermission) {
		// What cannot be looked at must not pass for what is not there.
		return fmt.Errorf("%w: who checks a host has to be able to see its roots", err)
	}
	if err != nil {
		return err
	}
	for _, e := range list {
		name, p := path.Join(shown, e.Name()), path.Join(dir, e.Name())
		fi, err := f.t.lstat(p)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone since
		}
		if err != nil {
			return err
		}
		switch {
		case fi.IsDir():
			if err := f.walk(name, p, depth+1); err != nil {
				return err
			}
		case fi.Mode().Type() == fs.ModeSymlink:
			f.link(KindRoot, name)
		case fi.Mode().IsRegular():
			if _, err := storepath.ParseBase(e.Name()); err == nil {
				f.add(Root{Kind: KindRoot, Path: name, Time: fi.ModTime(), Item: e.Name()})
			}
		}
	}
	return nil
}

// link follows a link that may be a root.
func (f *rootFinder) link(kind, p string) {
	target, err := f.readlink(p)
	if err != nil {
		f.fail(p, err)
		return
	}
	if path.Dir(p) == autoDir {
		// What stands there is the garbage collector's note of a link of somebody's, as a rule.
		if at, err := f.t.resolve(against(p, target), false); err != nil || at.item == "" {
			p = against(p, target)
			if target, err = f.readlink(p); err != nil {
				if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoLink) {
					f.fail(p, err)
				}
				return // gone, or made into something else: no root, and the next collection forgets it
			}
		}
	}
	if own := against(p, target); path.Dir(own) == path.Dir(p) {
		if m := generationName.FindStringSubmatch(path.Base(own)); m != nil && m[1] == path.Base(p) {
			f.at[p] = own // a profile: its generations are found by themselves
			p = own
			if _, err := f.readlink(p); err != nil {
				f.fail(p, err)
				return
			}
		}
	}
	to, err := f.t.resolve(p, true)
	if err != nil {
		f.fail(p, err)
		return
	}
	if to.item == "" {
		return // to a directory, or to a file of somebody's
	}
	r := Root{Kind: kind, Path: p, Item: to.item}
	if fi, err := f.lstat(p); err == nil {
		r.Time = fi.ModTime()
	}
	if m := generationName.FindStringSubmatch(path.Base(p)); m != nil && kind == KindRoot {
		r.Kind, r.Profile = KindGeneration, path.Join(path.Dir(p), m[1])
		r.Generation, _ = strconv.ParseInt(m[2], 10, 64) // ten digits
	}
	f.add(r)
}

func (f *rootFinder) add(r Root) {
	if !f.seen[r.Path] {
		f.seen[r.Path] = true
		f.roots = append(f.roots, r)
	}
}

var errNoLink = errors.New("not a link")

// lstat looks at p, whose directory may lie behind links.
func (f *rootFinder) lstat(p string) (fs.FileInfo, error) {
	at, err := f.t.resolve(p, false)
	if err != nil {
		return nil, err
	}
	if at.item != "" {
		return f.t.lstat(at.path)
	}
	return at.info, nil
}

func (f *rootFinder) readlink(p string) (string, error) {
	at, err := f.t.resolve(p, false)
	if err != nil {
		return "", err
	}
	if at.item != "" || at.info.Mode().Type() != fs.ModeSymlink {
		return "", &fs.PathError{Op: "readlink", Path: p, Err: errNoLink}
	}
	target, err := f.t.readlink(at.path)
	if err == nil && target == "" {
		err = &fs.PathError{Op: "readlink", Path: p, Err: errNoLink}
	}
	return target, err
}

// current returns the path of the generation that a profile is at.
func (f *rootFinder) current(profile string) string {
	if own, ok := f.at[profile]; ok {
		return own
	}
	target, err := f.readlink(profile)
	if err != nil {
		return ""
	}
	own := against(profile, target)
	f.at[profile] = own
	return own
}

// itemsIn returns the items whose paths occur in a text, such as a process's environment.
func itemsIn(text []byte, add func(item string)) {
	s := string(text)
	for {
		i := strings.Index(s, storepath.Dir+"/")
		if i < 0 {
			return
		}
		s = s[i+len(storepath.Dir)+1:]
		n := 0
		for n < len(s) && n < storepath.HashLen+1+storepath.MaxNameLen && nameByte(s[n]) {
			n++
		}
		if p, err := storepath.ParseBase(s[:n]); err == nil {
			add(p.Base())
		}
	}
}

func nameByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("+-._?=", c) >= 0
}
