package build

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/inside/build/sandbox"
)

// A layout is the sandbox's root directory on the host, made, and what is to be mounted in it.
type layout struct {
	root   string
	mounts []sandbox.Mount
	want   expected

	buildDir string // on the host
	guestDir string

	// Open before the builder runs: an ordinary user's builder owns the root and could put links where these directories were.
	rootFD, store *dir
	trees         *os.Root // the same as store

	root0    bool // we are root, the builder is not
	uid, gid int
	pts      bool
}

const (
	rootName  = "root"
	buildName = "build"
	outName   = "out"
)

func (l *layout) close() {
	if l.rootFD != nil {
		l.rootFD.close()
	}
	if l.store != nil {
		l.store.close()
	}
	if l.trees != nil {
		l.trees.Close()
	}
}

// newLayout makes the root directory in s for job.
func newLayout(s *slot, job *Job, fixed bool) (_ *layout, err error) {
	l := &layout{
		root:     filepath.Join(s.dir, rootName),
		buildDir: filepath.Join(s.dir, buildName),
		guestDir: "/tmp/guix-build-" + job.Path.Name() + "-0",
		want:     expected{},
		root0:    os.Geteuid() == 0,
		uid:      job.UID,
		gid:      job.GID,
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := os.Mkdir(l.root, 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(s.dir, outName), 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(l.buildDir, 0o700); err != nil {
		return nil, err
	}
	for _, d := range []string{"dev", "dev/shm", "dev/pts", "etc", "gnu", "gnu/store", "proc", "tmp"} {
		if err := l.mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}

	if err := l.file("etc/passwd", fmt.Sprintf("nixbld:x:%d:%d:Nix build user:/:/noshell\nnobody:x:65534:65534:Nobody:/:/noshell\n", l.uid, l.gid)); err != nil {
		return nil, err
	}
	if err := l.file("etc/group", fmt.Sprintf("nixbld:!:%d:\n", l.gid)); err != nil {
		return nil, err
	}
	if err := l.file("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"); err != nil {
		return nil, err
	}
	if fixed {
		for _, name := range []string{"/etc/services", "/etc/nsswitch.conf"} {
			if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() {
				if err := l.mount(sandbox.Mount{Source: name, Target: name, ReadOnly: true}, false); err != nil {
					return nil, err
				}
			}
		}
	}

	for _, link := range [][2]string{{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"}, {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}} {
		if err := l.symlink(link[0], link[1]); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"/dev/full", "/dev/kvm", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"} {
		if name == "/dev/kvm" && !exists(name) {
			continue
		}
		if err := l.mount(sandbox.Mount{Source: name, Target: name, Device: true}, false); err != nil {
			return nil, err
		}
	}
	if l.pts = exists("/dev/pts/ptmx"); l.pts {
		if err := l.symlink("/dev/pts/ptmx", "dev/ptmx"); err != nil {
			return nil, err
		}
	}

	for _, p := range job.Inputs {
		if err := l.input(job.StoreDir, p); err != nil {
			return nil, err
		}
	}
	if err := l.mount(sandbox.Mount{Source: l.buildDir, Target: l.guestDir}, true); err != nil {
		return nil, err
	}

	// Modes last, the root's very last: it is not to be written to, by us either.
	if err := l.mode("gnu/store", 0o775|os.ModeSticky, true); err != nil {
		return nil, err
	}
	if err := l.mode("tmp", 0o777|os.ModeSticky, false); err != nil {
		return nil, err
	}
	if !l.root0 {
		// These belong to the builder then; root's builder cannot write to them either.
		for _, d := range []string{"etc", "dev", "gnu"} {
			if err := l.mode(d, 0o555, false); err != nil {
				return nil, err
			}
		}
	} else if err := os.Chown(l.buildDir, l.uid, l.gid); err != nil {
		return nil, err
	}
	if err := l.mode(".", 0o555, true); err != nil {
		return nil, err
	}
	if l.rootFD, err = openDirectory(l.root); err != nil {
		return nil, err
	}
	if l.store, err = openDirectory(filepath.Join(l.root, "gnu/store")); err != nil {
		return nil, err
	}
	if l.trees, err = os.OpenRoot(filepath.Join(l.root, "gnu/store")); err != nil {
		return nil, err
	}
	return l, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

func (l *layout) path(name string) string { return filepath.Join(l.root, name) }

func (l *layout) mkdir(name string, mode os.FileMode) error {
	// What is mounted over or made in by the builder itself is looked at separately or not at all.
	looked := name != "dev/shm" && name != "dev/pts" && name != "proc"
	l.want.add(name, looked)
	if err := os.Mkdir(l.path(name), mode); err != nil {
		return err
	}
	return os.Chmod(l.path(name), mode) // whatever the umask
}

func (l *layout) file(name, content string) error {
	l.want.add(name, false)
	mode := os.FileMode(0o644)
	if !l.root0 {
		mode = 0o444
	}
	if err := os.WriteFile(l.path(name), []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chmod(l.path(name), mode)
}

func (l *layout) symlink(target, name string) error {
	l.want.add(name, false)
	return os.Symlink(target, l.path(name))
}

// mount notes m and makes what it is mounted on.
func (l *layout) mount(m sandbox.Mount, directory bool) error {
	name := strings.TrimPrefix(m.Target, "/")
	l.want.add(name, false)
	l.mounts = append(l.mounts, m)
	if directory {
		return os.Mkdir(l.path(name), 0o700)
	}
	f, err := os.OpenFile(l.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func (l *layout) input(storeDir string, p storepath.Path) error {
	source := filepath.Join(storeDir, p.Base())
	fi, err := os.Lstat(source)
	if err != nil {
		return fmt.Errorf("input %s: %w", p, err)
	}
	name := strings.TrimPrefix(p.String(), "/")
	switch {
	case fi.Mode()&fs.ModeSymlink != 0:
		// A bind mount would be of what the link points to.
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return l.symlink(target, name)
	case fi.IsDir(), fi.Mode().IsRegular():
		return l.mount(sandbox.Mount{Source: source, Target: p.String(), ReadOnly: true}, fi.IsDir())
	}
	return fmt.Errorf("input %s: %s is %s", p, source, fi.Mode())
}

// mode sets a directory's mode and, if we are root and shared is set, gives it to the builder's group.
func (l *layout) mode(name string, mode os.FileMode, shared bool) error {
	if shared && l.root0 {
		if err := os.Chown(l.path(name), 0, l.gid); err != nil {
			return err
		}
	}
	return os.Chmod(l.path(name), mode)
}

// graphs writes the files that exportReferencesGraph asks for into the build directory.
func (l *layout) graphs(job *Job) error {
	value, _ := job.Derivation.Lookup("exportReferencesGraph")
	list := words(value)
	if len(list)%2 != 0 {
		return job.failure(CodeAttribute, "exportReferencesGraph has an odd number of words: %q", value)
	}
	for i := 0; i < len(list); i += 2 {
		name := list[i]
		if err := storepath.CheckName(name); err != nil || name == "" {
			return job.failure(CodeAttribute, "exportReferencesGraph: the file name %q", name)
		}
		// A path within an item stands for the item.
		text := list[i+1]
		if rest, ok := strings.CutPrefix(text, storepath.Dir+"/"); ok {
			base, _, _ := cutSlash(rest)
			text = storepath.Dir + "/" + base
		}
		item, err := storepath.Parse(text)
		if err != nil {
			return job.failure(CodeAttribute, "exportReferencesGraph: %q is no store path", list[i+1])
		}
		graph, err := job.closure([]storepath.Path{item}, nil)
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, p := range graph.paths {
			if p.IsDerivation() {
				// The daemon adds the closures of all its outputs, which it takes from its database.
				return job.failure(CodeAttribute, "exportReferencesGraph: the closure of %s holds a derivation, which is not supported", item)
			}
			refs := graph.references[p]
			fmt.Fprintf(&b, "%s\n\n%d\n", p, len(refs))
			for _, r := range refs {
				fmt.Fprintf(&b, "%s\n", r)
			}
		}
		file := filepath.Join(l.buildDir, name)
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil {
			return err
		}
	}
	return nil
}
