package authenticate_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

// TestObjects reads every object of a repository that git has packed in several ways, and compares with what git says.
func TestObjects(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "repo")
	gitRun(t, "init", "-q", dir)
	in := func(args ...string) string {
		return gitRun(t, append([]string{"-C", dir, "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "gc.auto=0", "-c", "commit.gpgsign=false"}, args...)...)
	}
	r := rand.New(rand.NewPCG(5, 6))
	var lines []string
	for i := range 300 {
		lines = append(lines, fmt.Sprintf("line %d %d", i, r.Uint64()))
	}
	for i := range 60 {
		lines[r.IntN(len(lines))] = fmt.Sprintf("changed in %d %d", i, r.Uint64())
		if err := os.MkdirAll(filepath.Join(dir, "sub", strconv.Itoa(i%5)), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"file", fmt.Sprintf("sub/%d/f%d", i%5, i)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Join(lines, "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		in("add", "-A")
		in("commit", "-q", "-m", fmt.Sprint("commit ", i))
	}
	in("tag", "-a", "-m", "a tag", "v1")
	head := strings.TrimSpace(in("rev-parse", "HEAD"))
	for _, packed := range [][]string{
		nil, // loose
		{"repack", "-q", "-a", "-d", "--depth=250", "--window=50", "-f"},
		{"-c", "repack.useDeltaBaseOffset=false", "repack", "-q", "-a", "-d", "-f"},
		{"-c", "pack.packSizeLimit=30k", "repack", "-q", "-a", "-d", "-f"},
		{"-c", "core.compression=0", "repack", "-q", "-a", "-d", "-F"},
		{"pack-refs", "--all"},
	} {
		if packed != nil {
			in(packed...)
		}
		repo, err := authenticate.Open(dir, authenticate.Options{})
		if err != nil {
			t.Fatal(err)
		}
		reader := repo.Database().NewReader()
		n := 0
		for line := range strings.Lines(in("cat-file", "--batch-all-objects", "--batch-check", "--unordered")) {
			var hex, kind string
			var size int
			fmt.Sscan(line, &hex, &kind, &size)
			id, err := git.ParseID(hex)
			if err != nil {
				t.Fatal(err)
			}
			got, content, err := reader.ReadAny(id)
			if err != nil || got.String() != kind || len(content) != size {
				t.Fatalf("%v: %s is a %s of %d bytes: %v", packed, hex, got, len(content), err)
			}
			n++
		}
		if n < 240 {
			t.Fatalf("%d objects", n)
		}
		for _, name := range []string{"HEAD", "v1", "refs/tags/v1", "tags/v1", "heads/master", "master", head} {
			if id, err := repo.Commit(name); err != nil || id.String() != head {
				t.Errorf("%v: %s is %s, %v, want %s", packed, name, id, err, head)
			}
		}
		files := make(map[string]string)
		id, _ := git.ParseID(head)
		if err := repo.Check(id, func(name string, e git.TreeEntry, content []byte) error {
			files[name] = string(content)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if files["file"] != strings.Join(lines, "\n") || len(files) != 61 {
			t.Errorf("%d files", len(files))
		}
		if err := repo.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReferences(t *testing.T) {
	r := channeltest.NewRepo()
	blob := r.Put(git.KindBlob, []byte("x"))
	c := r.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\n", r.Tree()))
	tag := r.Put(git.KindTag, fmt.Appendf(nil, "object %s\ntype commit\ntag t\n\n", c))
	tags := tag
	for range 10 {
		tags = r.Put(git.KindTag, fmt.Appendf(nil, "object %s\ntype tag\ntag t\n\n", tags))
	}
	r.Refs["refs/heads/end"] = c
	r.Refs["refs/heads/a/b"] = c
	r.Refs["refs/tags/t"] = tag
	r.Refs["refs/tags/many"] = tags
	r.Refs["refs/remotes/origin/keyring"] = c
	r.Files["refs/heads/symbolic"] = []byte("ref: refs/heads/end\n")
	r.Files["refs/heads/loop"] = []byte("ref: refs/heads/loop\n")
	r.Files["refs/heads/out"] = []byte("ref: ../../outside\n")
	r.Files["refs/heads/absolute"] = []byte("ref: /etc/passwd\n")
	r.Files["refs/heads/bad"] = []byte("no id\n")
	r.Files["refs/heads/long"] = bytes.Repeat([]byte("x"), 10000)
	r.Files["packed-refs"] = fmt.Appendf(nil, "# pack-refs with: peeled fully-peeled sorted \n%s refs/heads/packed\n%s refs/tags/packed\n^%s\n", c, tag, c)
	dir := filepath.Join(t.TempDir(), "r")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	repo, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	for _, good := range []string{"HEAD", "end", "a/b", "t", "symbolic", "packed", "refs/heads/packed", "refs/tags/packed", "origin/keyring", c.String(), tag.String()} {
		if id, err := repo.Commit(good); err != nil || id != c {
			t.Errorf("%s: %s %v", good, id, err)
		}
	}
	for _, bad := range []string{"", "nothing", "loop", "out", "absolute", "bad", "long", "many", "a", "../HEAD", "/etc/passwd", "refs/heads/../../HEAD", "a\x00b", "end.lock", "-", "config", c.String()[:12]} {
		if id, err := repo.Commit(bad); err == nil {
			t.Errorf("%q is %s", bad, id)
		} else if _, ok := trust.AsRefusals(err); !ok {
			t.Errorf("%q: %v is no refusal", bad, err)
		}
	}
	for _, name := range []string{"end", "a/b", "origin/keyring", "keyring"} {
		if id, err := repo.Branch(name); err != nil || id != c {
			t.Errorf("branch %s: %s %v", name, id, err)
		}
	}
	for _, name := range []string{"", "t", "nokeyring", "../HEAD", "refs/heads/end"} {
		if id, err := repo.Branch(name); err == nil {
			t.Errorf("branch %s is %s", name, id)
		}
	}
	if err := repo.Check(blob, nil); err == nil {
		t.Error("a file was checked as a commit")
	}
}

// TestHostileDirectories: what is opened is a regular file below the directory that was named, or nothing.
func TestHostileDirectories(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 3)
	h.End = ends[len(ends)-1]
	h.Refs["refs/heads/end"] = h.End
	good := filepath.Join(t.TempDir(), "good")
	if err := h.Write(good); err != nil {
		t.Fatal(err)
	}
	req := authenticate.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End.String()}
	if got := verdict(t, good, req); len(got) > 0 {
		t.Fatal(got)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		make func(dir string)
		ok   bool
	}{
		{"with a working tree", func(dir string) { must(os.Rename(good, filepath.Join(dir, ".git"))) }, true},
		{".git is a link", func(dir string) { must(os.Symlink(good, filepath.Join(dir, ".git"))) }, false},
		{".git is a file", func(dir string) { must(os.WriteFile(filepath.Join(dir, ".git"), []byte("gitdir: "+good+"\n"), 0o644)) }, false},
		{"empty", func(dir string) {}, false},
		{"objects is a link", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.RemoveAll(filepath.Join(dir, "objects")))
			must(os.Symlink(filepath.Join(good, "objects"), filepath.Join(dir, "objects")))
		}, false},
		{"refs is a link", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.RemoveAll(filepath.Join(dir, "refs")))
			must(os.Symlink(filepath.Join(good, "refs"), filepath.Join(dir, "refs")))
		}, false},
		{"a reference is a link", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.Remove(filepath.Join(dir, "refs/heads/keyring")))
			must(os.Symlink(filepath.Join(good, "refs/heads/keyring"), filepath.Join(dir, "refs/heads/keyring")))
		}, false},
		{"a reference is a pipe", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.Remove(filepath.Join(dir, "refs/heads/keyring")))
			must(syscall.Mkfifo(filepath.Join(dir, "refs/heads/keyring"), 0o644))
		}, false},
		{"packed-refs is a pipe", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(syscall.Mkfifo(filepath.Join(dir, "packed-refs"), 0o644))
		}, false},
		{"packed-refs is not one", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.WriteFile(filepath.Join(dir, "packed-refs"), []byte("garbage\n"), 0o644))
		}, false},
		{"an index is a pipe", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(syscall.Mkfifo(filepath.Join(dir, "objects/pack/x.idx"), 0o644))
		}, false},
		{"an index is none", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.WriteFile(filepath.Join(dir, "objects/pack/x.idx"), []byte("x"), 0o644))
			must(os.WriteFile(filepath.Join(dir, "objects/pack/x.pack"), []byte("x"), 0o644))
		}, false},
		{"an index without a pack", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.WriteFile(filepath.Join(dir, "objects/pack/x.idx"), []byte("x"), 0o644))
		}, true},
		{"reftable", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.Mkdir(filepath.Join(dir, "reftable"), 0o755))
		}, false},
		{"a linked working tree", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.WriteFile(filepath.Join(dir, "commondir"), []byte("../..\n"), 0o644))
		}, false},
		{"a configuration that is a pipe", func(dir string) {
			must(os.CopyFS(dir, os.DirFS(good)))
			must(os.Remove(filepath.Join(dir, "config")))
			must(syscall.Mkfifo(filepath.Join(dir, "config"), 0o644)) // whoever opens it waits for ever
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.make(dir)
			if tt.name == "with a working tree" {
				defer func() { must(os.Rename(filepath.Join(dir, ".git"), good)) }()
			}
			r, err := authenticate.Open(dir, authenticate.Options{})
			if err == nil {
				defer r.Close()
				_, err = r.Authenticate(t.Context(), req)
			}
			if (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
			if _, ok := trust.AsRefusals(err); err != nil && !ok && !strings.Contains(err.Error(), "escapes") {
				t.Errorf("no refusal: %v", err)
			}
		})
	}
}

// TestAlternates: an operator may name where more objects are; the repository may not.
func TestAlternates(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range channeltest.Cases() {
		if c.Name != "alternates" {
			continue
		}
		h := c.Build(w)
		top := t.TempDir()
		if err := h.Write(filepath.Join(top, "repo")); err != nil {
			t.Fatal(err)
		}
		if err := h.Other.Write(filepath.Join(top, "other")); err != nil {
			t.Fatal(err)
		}
		r, err := authenticate.Open(filepath.Join(top, "repo"), authenticate.Options{Alternates: []string{filepath.Join(top, "other", "objects")}})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End.String()})
		if err != nil || !report.OK() {
			t.Errorf("%v %v", report, err)
		}
		return
	}
	t.Fatal("there is no case of alternates")
}
