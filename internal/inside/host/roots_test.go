package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/storepath"
)

const (
	itemA = "0123456789abcdfghijklmnpqrsvwxyz-a"
	itemB = "1123456789abcdfghijklmnpqrsvwxyz-b"
)

func storePath(item string) string { return storepath.Dir + "/" + item }

// found runs findRoots and prints what it found, a line each.
func (m *machine) found() (roots, broken []string, err error) {
	m.t.Helper()
	list, bad, err := findRoots(newTree(m.root()))
	for _, r := range list {
		line := r.Kind + " " + r.Path + " " + r.Item
		if r.Kind == KindGeneration {
			line += fmt.Sprintf(" %s %d %v", r.Profile, r.Generation, r.Current)
		}
		roots = append(roots, line)
	}
	for _, b := range bad {
		broken = append(broken, b.Path)
	}
	slices.Sort(roots)
	slices.Sort(broken)
	return roots, broken, err
}

func TestRoots(t *testing.T) {
	t.Parallel()
	home := profilesDir + "/per-user/root"
	tests := []struct {
		name   string
		make   func(m *machine)
		roots  []string
		broken []string
	}{
		{"nothing", func(*machine) {}, nil, nil},
		{"a profile with two generations", func(m *machine) {
			m.generation(home+"/guix-profile", 1, itemA, false)
			m.generation(home+"/guix-profile", 2, itemB, true)
		}, []string{"generation " + home + "/guix-profile-1-link " + itemA + " " + home + "/guix-profile 1 false",
			"generation " + home + "/guix-profile-2-link " + itemB + " " + home + "/guix-profile 2 true"}, nil},
		{"the system", func(m *machine) {
			m.link(gcrootsDir+"/profiles", profilesDir)
			m.link(gcrootsDir+"/current-system", "/run/current-system")
			m.generation(profilesDir+"/system", 3, itemA, true)
			m.link("/run/current-system", storePath(itemA))
			m.link("/run/booted-system", storePath(itemB))
		}, []string{"generation " + profilesDir + "/system-3-link " + itemA + " " + profilesDir + "/system 3 true", "root " + gcrootsDir + "/current-system " + itemA,
			"system /run/booted-system " + itemB, "system /run/current-system " + itemA}, nil},
		{"an absolute link to a generation", func(m *machine) {
			m.generation(home+"/p", 7, itemA, false)
			m.link(home+"/p", home+"/p-7-link")
		}, []string{"generation " + home + "/p-7-link " + itemA + " " + home + "/p 7 true"}, nil},
		{"a profile that is at a generation which is gone", func(m *machine) {
			m.generation(home+"/p", 1, itemA, false)
			m.link(home+"/p", "p-2-link")
		}, []string{"generation " + home + "/p-1-link " + itemA + " " + home + "/p 1 false"}, []string{home + "/p-2-link"}},
		{"a link that looks like a generation of another name", func(m *machine) {
			m.link(home+"/q", "p-1-link")
			m.link(home+"/p-1-link", storePath(itemA))
		}, []string{"generation " + home + "/p-1-link " + itemA + " " + home + "/p 1 false", "root " + home + "/q " + itemA}, nil},
		{"numbers that are none", func(m *machine) {
			m.link(home+"/p-01-link", storePath(itemA))
			m.link(home+"/p-99999999999-link", storePath(itemA))
			m.link(home+"/-1-link", storePath(itemA))
		}, []string{"root " + home + "/-1-link " + itemA, "root " + home + "/p-01-link " + itemA, "root " + home + "/p-99999999999-link " + itemA}, nil},
		{"somebody's link, noted in auto", func(m *machine) {
			m.link(autoDir+"/x", "/home/u/result")
			m.link("/home/u/result", storePath(itemA))
		}, []string{"root /home/u/result " + itemA}, nil},
		{"somebody's profile, noted in auto", func(m *machine) {
			m.link(autoDir+"/x", "/home/u/p-4-link")
			m.generation("/home/u/p", 4, itemA, true)
		}, []string{"generation /home/u/p-4-link " + itemA + " /home/u/p 4 true"}, nil},
		{"a note of what is gone", func(m *machine) { m.link(autoDir+"/x", "/home/u/gone") }, nil, nil},
		{"a note of what is a file now", func(m *machine) {
			m.link(autoDir+"/x", "/home/u/file")
			m.write("/home/u/file", "x")
		}, nil, nil},
		{"a note that is a root itself", func(m *machine) { m.link(autoDir+"/x", storePath(itemA)) }, []string{"root " + autoDir + "/x " + itemA}, nil},
		{"into an item", func(m *machine) { m.link(gcrootsDir+"/sh", storePath(itemA)+"/bin/sh") }, []string{"root " + gcrootsDir + "/sh " + itemA}, nil},
		{"by way of links to directories", func(m *machine) {
			m.link("/store", "gnu/store")
			m.link("/home/u/here", "../..")
			m.link(gcrootsDir+"/r", "/home/u/here/store/"+itemA)
		}, []string{"root " + gcrootsDir + "/r " + itemA}, nil},
		{"relative", func(m *machine) { m.link(gcrootsDir+"/r", "../../../gnu/store/"+itemA) }, []string{"root " + gcrootsDir + "/r " + itemA}, nil},
		{"above the root", func(m *machine) { m.link(gcrootsDir+"/r", strings.Repeat("../", 40)+"gnu/store/"+itemA) }, []string{"root " + gcrootsDir + "/r " + itemA}, nil},
		{"a file that is named as an item", func(m *machine) {
			m.write(gcrootsDir+"/"+itemA, "")
			m.write(gcrootsDir+"/other", "")
		}, []string{"root " + gcrootsDir + "/" + itemA + " " + itemA}, nil},
		{"a loop", func(m *machine) {
			m.link(gcrootsDir+"/a", gcrootsDir+"/b")
			m.link(gcrootsDir+"/b", gcrootsDir+"/a")
			m.link(gcrootsDir+"/c", "c")
			m.link(gcrootsDir+"/d-1-link", "d")
			m.link(gcrootsDir+"/d", "d-1-link")
		}, nil, []string{gcrootsDir + "/a", gcrootsDir + "/b", gcrootsDir + "/c", gcrootsDir + "/d-1-link", gcrootsDir + "/d-1-link"}},
		{"a chain that is too long", func(m *machine) {
			for i := range maxLinks + 1 {
				m.link(fmt.Sprintf("/home/u/l%d", i), fmt.Sprintf("l%d", i+1))
			}
			m.link(fmt.Sprintf("/home/u/l%d", maxLinks+1), storePath(itemA))
			m.link(gcrootsDir+"/long", "/home/u/l0")
			m.link(gcrootsDir+"/short", "/home/u/l4")
		}, []string{"root " + gcrootsDir + "/short " + itemA}, []string{gcrootsDir + "/long"}},
		{"one that grows", func(m *machine) {
			m.link("/home/u/x", "x/x/x/x/x/x/x/x")
			m.link(gcrootsDir+"/x", "/home/u/x")
		}, nil, []string{gcrootsDir + "/x"}},
		{"a link to a directory is not entered", func(m *machine) {
			m.link("/home/u/dir/r", storePath(itemA))
			m.link(gcrootsDir+"/d", "/home/u/dir")
			m.link(gcrootsDir+"/up", "..")
		}, nil, nil},
		{"through a file", func(m *machine) {
			m.write("/home/u/file", "")
			m.link(gcrootsDir+"/d", "/home/u/file/x")
		}, nil, []string{gcrootsDir + "/d"}},
		{"the store itself", func(m *machine) { m.link(gcrootsDir+"/d", storepath.Dir) }, nil, nil},
		{"names of the store that are no items", func(m *machine) {
			m.link(gcrootsDir+"/d", storepath.Dir+"/.links/x")
			m.link(gcrootsDir+"/e", storepath.Dir+"/../store//./"+itemA)
		}, []string{"root " + gcrootsDir + "/d .links", "root " + gcrootsDir + "/e " + itemA}, nil},
		{"odd names", func(m *machine) {
			m.link(gcrootsDir+"/\xff\n", storePath(itemA))
			m.link(gcrootsDir+"/"+strings.Repeat("n", 255), storePath(itemA))
		}, []string{"root " + gcrootsDir + "/" + strings.Repeat("n", 255) + " " + itemA, "root " + gcrootsDir + "/\xff\n " + itemA}, nil},
		{"a pipe", func(m *machine) { mkfifo(m.t, m.path(gcrootsDir+"/"+itemA)) }, nil, nil},
		{"a host without profiles", func(m *machine) {
			if err := os.RemoveAll(m.path(profilesDir)); err != nil {
				m.t.Fatal(err)
			}
		}, nil, nil},
		{"gcroots in the store", func(m *machine) {
			if err := os.RemoveAll(m.path(profilesDir)); err != nil {
				m.t.Fatal(err)
			}
			m.link(profilesDir, storePath(itemA))
		}, nil, []string{profilesDir}},
		{"state elsewhere", func(m *machine) {
			if err := os.Rename(m.path(profilesDir), m.path("/home/u/profiles")); err != nil {
				m.t.Fatal(err)
			}
			m.generation("/home/u/profiles/p", 1, itemA, true)
			m.link(profilesDir, "/home/u/profiles")
		}, []string{"generation " + profilesDir + "/p-1-link " + itemA + " " + profilesDir + "/p 1 true"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newDisk(t)
			// Whatever leads out of the host's root would lead here.
			tt.make(m)
			roots, broken, err := m.found()
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(roots, tt.roots) {
				t.Errorf("roots\n%q, want\n%q", roots, tt.roots)
			}
			if !slices.Equal(broken, tt.broken) {
				t.Errorf("broken\n%q, want\n%q", broken, tt.broken)
			}
		})
	}
}

func TestRootsFail(t *testing.T) {
	t.Parallel()
	t.Run("too deep", func(t *testing.T) {
		m := newDisk(t)
		if err := os.MkdirAll(m.path(gcrootsDir+strings.Repeat("/d", maxDepth+2)), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.found(); !errors.Is(err, errTooDeep) {
			t.Error(err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		m := newDisk(t)
		tree := newTree(m.root())
		tree.entries = maxEntries
		m.write(gcrootsDir+"/x", "")
		if _, _, err := findRoots(tree); !errors.Is(err, errTooMany) {
			t.Error(err)
		}
	})
	t.Run("a file where a directory must be", func(t *testing.T) {
		m := newDisk(t)
		if err := os.RemoveAll(m.path(profilesDir)); err != nil {
			t.Fatal(err)
		}
		m.write(profilesDir, "")
		if _, _, err := m.found(); err == nil {
			t.Error("taken")
		}
	})
	t.Run("what may not be looked at", func(t *testing.T) {
		if os.Getuid() == 0 {
			t.Skip("NOT TESTED as root, who may look at everything: run it as another user")
		}
		m := newDisk(t)
		if err := os.Mkdir(m.path(profilesDir+"/secret"), 0); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.found(); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
	})
}

// TestOutsideIsNotReached: a link that leads out of the host's root, for whoever does not lay it there anew, leads nowhere or inside.
func TestOutsideIsNotReached(t *testing.T) {
	t.Parallel()
	m := newDisk(t)
	outside := t.TempDir()
	secret := filepath.Join(outside, "gnu", "store", itemA)
	if err := os.MkdirAll(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	m.link(gcrootsDir+"/abs", secret)
	m.link(gcrootsDir+"/rel", strings.Repeat("../", 20)+secret[1:])
	m.link(gcrootsDir+"/db", outside)
	roots, broken, err := m.found()
	if err != nil || len(roots) > 0 {
		t.Errorf("%q %v", roots, err)
	}
	if !slices.Equal(broken, []string{gcrootsDir + "/abs", gcrootsDir + "/db", gcrootsDir + "/rel"}) {
		t.Errorf("%q", broken)
	}
	// The database, too.
	if err := os.WriteFile(filepath.Join(outside, databaseFile), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(m.path(databaseDir), m.path("/home/u/db")); err != nil {
		t.Fatal(err)
	}
	m.link(databaseDir, outside)
	if _, err := readDatabase(t.Context(), newTree(m.root()), t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestStoreElsewhere: a store that is not where it seems to be is found by its own place as well.
func TestStoreElsewhere(t *testing.T) {
	t.Parallel()
	m := newDisk(t)
	if err := os.Rename(m.path("/gnu"), m.path("/data")); err != nil {
		t.Fatal(err)
	}
	m.link("/gnu", "/data")
	m.link(gcrootsDir+"/a", storePath(itemA))
	m.link(gcrootsDir+"/b", "/data/store/"+itemB+"/x")
	roots, broken, err := m.found()
	if err != nil || len(broken) > 0 || !slices.Equal(roots, []string{"root " + gcrootsDir + "/a " + itemA, "root " + gcrootsDir + "/b " + itemB}) {
		t.Errorf("%q %q %v", roots, broken, err)
	}
}

// TestNoStore: of a host whose state was copied without its store roots can still be told.
func TestNoStore(t *testing.T) {
	t.Parallel()
	m := newDisk(t)
	if err := os.RemoveAll(m.path("/gnu")); err != nil {
		t.Fatal(err)
	}
	m.link(gcrootsDir+"/a", storePath(itemA))
	m.link(gcrootsDir+"/b", storepath.Dir+"/")
	roots, broken, err := m.found()
	if err != nil || len(broken) != 1 || !slices.Equal(roots, []string{"root " + gcrootsDir + "/a " + itemA}) {
		t.Errorf("%q %q %v", roots, broken, err)
	}
}

func FuzzResolve(f *testing.F) {
	for _, s := range []string{"/var/guix", "/gnu/store/x/..", "//a/./b/../c", "/home/u/loop/x", "/home/u/up/gnu/store/" + itemA + "/y", strings.Repeat("/a", 3000), "/home/u/grow"} {
		f.Add(s)
	}
	m := newDisk(f)
	m.link("/home/u/loop", "loop")
	m.link("/home/u/up", "../../..")
	m.link("/home/u/grow", "grow/grow/grow/grow")
	m.write("/home/u/file", "")
	tree := newTree(m.root())
	f.Fuzz(func(t *testing.T, p string) {
		if !strings.HasPrefix(p, "/") {
			return
		}
		at, err := tree.resolve(p, true)
		if err != nil {
			return
		}
		if !strings.HasPrefix(at.path, "/") || at.path != filepath.Clean(at.path) || (at.item == "") == (at.info == nil) {
			t.Fatalf("%q leads to %+v", p, at)
		}
		if at.item != "" {
			if at.path != storePath(at.item) {
				t.Fatalf("%q leads to %+v", p, at)
			}
			return
		}
		// What was resolved has no link in it: it resolves to itself.
		if again, err := tree.resolve(at.path, false); err != nil || again.path != at.path {
			t.Fatalf("%q leads to %q, and that to %+v, %v", p, at.path, again, err)
		}
	})
}

func TestProcesses(t *testing.T) {
	t.Parallel()
	m := newDisk(t)
	proc := t.TempDir()
	process := func(pid, root string, files, links map[string]string) {
		t.Helper()
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(filepath.Join(dir, "fd"), 0o755); err != nil {
			t.Fatal(err)
		}
		if root != "" {
			links["root"] = root
		}
		for name, target := range links {
			if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	process("10", m.dir, map[string]string{"comm": "sshd\n", "environ": "PATH=/bin:" + storePath(itemB) + "/bin\x00X=/gnu/store/short", "maps": "7f00 r-xp 00:00 1 " + storePath(itemA) + "/lib/x.so (deleted)\n"},
		map[string]string{"exe": storePath(itemA) + "/bin/sshd", "cwd": "/", "fd/1": "/dev/null"})
	process("11", m.dir, map[string]string{"comm": "bash\n"}, map[string]string{"exe": "/bin/bash", "fd/255": storePath(itemA) + "/x"})
	process("12", t.TempDir(), map[string]string{"comm": "other\n"}, map[string]string{"exe": storePath("2123456789abcdfghijklmnpqrsvwxyz-c")})
	process("13", "", nil, map[string]string{}) // gone
	for _, odd := range []string{"self", "010", "-1", "1x"} {
		process(odd, m.dir, nil, map[string]string{"exe": storePath("2123456789abcdfghijklmnpqrsvwxyz-c")})
	}
	roots, unread, err := findProcesses(newTree(m.root()), proc)
	if err != nil || unread != 0 {
		t.Fatalf("%d unread, %v", unread, err)
	}
	want := []Root{{Kind: KindProcess, Path: "process 10 (sshd) and 1 more", Item: itemA}, {Kind: KindProcess, Path: "process 10 (sshd)", Item: itemB}}
	if !slices.Equal(roots, want) {
		t.Errorf("%+v", roots)
	}
}

// TestOwnProcesses: the kernel's own files are read, and this process is among the others.
func TestOwnProcesses(t *testing.T) {
	t.Parallel()
	root, err := os.OpenRoot("/")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	items, err := usedBy("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := findProcesses(newTree(root), "/proc"); err != nil {
		t.Fatal(err)
	}
	t.Logf("this process uses %d items", len(items))
}
