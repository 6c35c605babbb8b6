package authenticate_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/nar"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

// narOf returns the sum of the nar that the repository makes.
func narOf(t testing.TB, dir string, commit git.ID) (sum [sha256.Size]byte, size int64, err error) {
	t.Helper()
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h := sha256.New()
	n := &count{w: h}
	err = r.Nar(t.Context(), commit, n)
	h.Sum(sum[:0])
	return sum, n.n, err
}

type count struct {
	w io.Writer
	n int64
}

func (c *count) Write(p []byte) (int, error) { c.n += int64(len(p)); return c.w.Write(p) }

// checkout has git itself make a checkout, in the two ways it knows, and returns the sums of their nars.
func checkout(t testing.TB, dir string, commit git.ID) (archive, tree [sha256.Size]byte) {
	t.Helper()
	top := t.TempDir()
	for _, d := range []string{"a", "c"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	tar := gitRun(t, "-C", dir, "archive", "--format=tar", commit.String())
	cmd := exec.Command("tar", "x", "-C", filepath.Join(top, "a"))
	cmd.Stdin = strings.NewReader(tar)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v %s", err, out)
	}
	gitRun(t, "clone", "-q", "--no-checkout", dir, filepath.Join(top, "clone"))
	gitRun(t, "-C", filepath.Join(top, "clone"), "-c", "advice.detachedHead=false", "--work-tree="+filepath.Join(top, "c"), "checkout", "-q", "-f", commit.String())
	sums := make([][sha256.Size]byte, 2)
	for i, d := range []string{"a", "c"} {
		root, err := os.OpenRoot(filepath.Join(top, d))
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if sums[i], _, err = nar.Sum(root.FS(), "."); err != nil {
			t.Fatal(err)
		}
	}
	return sums[0], sums[1]
}

// commitOf writes a repository whose branch end is a commit of a tree.
func commitOf(t testing.TB, r *channeltest.Repo, tree git.ID) (dir string, c git.ID) {
	t.Helper()
	c = r.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nmessage\n", tree))
	r.Refs["refs/heads/end"] = c
	dir = filepath.Join(t.TempDir(), "r.git")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir, c
}

// TestNar: the nar is that of git's own checkout.
func TestNar(t *testing.T) {
	if _, err := exec.LookPath("tar"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: tar is missing (apt-get install tar)")
	}
	r := channeltest.NewRepo()
	blob := func(s string) git.ID { return r.Put(git.KindBlob, []byte(s)) }
	file := func(name, s string) channeltest.Entry {
		return channeltest.Entry{Mode: git.ModeFile, Name: name, ID: blob(s)}
	}
	link := func(name, to string) channeltest.Entry {
		return channeltest.Entry{Mode: git.ModeSymlink, Name: name, ID: blob(to)}
	}
	dir := func(name string, e ...channeltest.Entry) channeltest.Entry {
		return channeltest.Entry{Mode: git.ModeTree, Name: name, ID: r.Tree(e...)}
	}
	top, c := commitOf(t, r, r.Tree(
		// Git sorts foo.c, foo/, foo0; a nar foo, foo.c, foo0.
		file("foo.c", "c\n"), dir("foo", file("a", ""), file("b", strings.Repeat("x", 100_000))), file("foo0", "0\r\n"),
		channeltest.Entry{Mode: git.ModeExecutable, Name: "run", ID: blob("#!/bin/sh\n")},
		link("link", "foo/a"), link("abroad", "/etc/passwd"), link("up", "../../x"), link("dangling", "nowhere"), link("self", "self"),
		channeltest.Entry{Mode: git.ModeSubmodule, Name: "module", ID: git.ID{1}}, file(".gitmodules", "[submodule \"module\"]\n\tpath = module\n\turl = https://example.org/m.git\n"),
		dir("deep", dir("er", dir("still", channeltest.Entry{Mode: git.ModeSubmodule, Name: "m", ID: git.ID{2}}))),
		dir("sub", file(".gitattributes", "*.txt text=auto eol=lf\n*.bin binary -text -ident !filter\n# ident\n"), file("x.txt", "unix\n"), file("dos.txt", "dos\r\n"), file("y.bin", "\x00\r\n$Id$")),
		file(".gitattributes", "*.scm diff=scheme\n*.scm text\n* whitespace=trailing-space\n[attr]code diff=scheme\n"), file("z.scm", "()\r\n$Id$\n"),
		file("naïve name", "utf-8\n"), file("\xff\xfe", "not utf-8\n"), file("-rf", "-rf\n"),
	))
	archive, tree := checkout(t, top, c)
	got, size, err := narOf(t, top, c)
	if err != nil {
		t.Fatal(err)
	}
	if got != tree || got != archive || size < 100_000 {
		t.Errorf("%x, git's checkout %x, its archive %x; %d bytes", got, tree, archive, size)
	}
	empty, c := commitOf(t, channeltest.NewRepo(), git.Hash(git.KindTree, nil))
	if _, _, err := narOf(t, empty, c); err == nil {
		t.Error("a tree that is not there")
	}
	ne := channeltest.NewRepo()
	empty, c = commitOf(t, ne, ne.Tree())
	if _, size, err := narOf(t, empty, c); err != nil || size != 96 {
		t.Errorf("the empty tree: %v, %d bytes", err, size)
	}
}

// TestNarPartial: what a partial clone lacks is told with the remedy.
func TestNarPartial(t *testing.T) {
	r := channeltest.NewRepo()
	r.Files["objects/pack/pack-x.promisor"] = nil
	dir, c := commitOf(t, r, r.Tree(channeltest.Entry{Mode: git.ModeFile, Name: "large", ID: git.ID{1}}))
	_, _, err := narOf(t, dir, c)
	if rs, _ := trust.AsRefusals(err); len(rs) != 1 || !strings.Contains(rs[0].Hint, "--filter") {
		t.Errorf("%+v", err)
	}
}

// TestNarRefuses: what would make a checkout differ from the tree, and trees of which there is none. All is told at once.
func TestNarRefuses(t *testing.T) {
	for _, line := range []string{
		"* eol=crlf", "*.scm text eol=crlf", "*\teol=crlf\r", "a eol=CRLF", "* ident", "* filter=lfs diff=lfs merge=lfs -text", "* working-tree-encoding=UTF-16", "[attr]x eol=crlf", "\"a b\" ident",
		"\"a\\\" b ident", " # ident", "\ufeff* ident", "* \vident", "x\rident", "* text\x00 ident", strings.Repeat("x", 3000) + " ident", "* ident" + strings.Repeat(" ", 3000), "a\\ b ident",
	} {
		r := channeltest.NewRepo()
		e := channeltest.Entry{Mode: git.ModeFile, Name: ".gitattributes", ID: r.Put(git.KindBlob, []byte("# harmless\n\n"+line+"\n"))}
		dir, c := commitOf(t, r, r.Tree(channeltest.Entry{Mode: git.ModeTree, Name: "sub", ID: r.Tree(e)}))
		_, _, err := narOf(t, dir, c)
		if rs, _ := trust.AsRefusals(err); !slices.Equal(rs.Codes(), []string{authenticate.CodeAttributes}) || rs[0].Subject != "sub/.gitattributes" || !strings.Contains(rs[0].Detail, "line 3") {
			t.Errorf("%q: %v", line, err)
		}
	}
	r := channeltest.NewRepo()
	file := r.Put(git.KindBlob, []byte("x"))
	wrong := r.Put(git.KindBlob, []byte("* ident\n* filter=x\n"))
	empty := r.Tree()
	dir, c := commitOf(t, r, r.Tree(
		channeltest.Entry{Mode: git.ModeTree, Name: "empty", ID: empty},
		channeltest.Entry{Mode: git.ModeFile, Name: "gone", ID: git.ID{1}},
		channeltest.Entry{Mode: git.ModeTree, Name: "gone-tree", ID: git.ID{2}},
		channeltest.Entry{Mode: git.ModeFile, Name: strings.Repeat("n", 300), ID: file},
		channeltest.Entry{Mode: git.ModeTree, Name: "a", ID: r.Tree(channeltest.Entry{Mode: git.ModeSymlink, Name: ".gitattributes", ID: file})},
		channeltest.Entry{Mode: git.ModeTree, Name: "b", ID: r.Tree(channeltest.Entry{Mode: git.ModeFile, Name: ".gitattributes", ID: wrong})},
		channeltest.Entry{Mode: git.ModeTree, Name: "c", ID: r.RawTree(channeltest.Entry{Mode: git.ModeFile, Name: "x", ID: file}, channeltest.Entry{Mode: git.ModeFile, Name: "x.x", ID: file}, channeltest.Entry{Mode: git.ModeTree, Name: "x", ID: empty})},
		channeltest.Entry{Mode: git.ModeTree, Name: "d", ID: r.RawTree(channeltest.Entry{Mode: git.ModeFile, Name: "..", ID: file})},
		channeltest.Entry{Mode: git.ModeSymlink, Name: "nul", ID: r.Put(git.KindBlob, []byte("a\x00b"))},
		channeltest.Entry{Mode: git.ModeSymlink, Name: "void", ID: r.Put(git.KindBlob, nil)},
	))
	_, _, err := narOf(t, dir, c)
	rs, _ := trust.AsRefusals(err)
	codes := rs.Codes()
	slices.Sort(codes)
	// What has no place in a nar is told once; then nothing is written any more.
	want := []string{"channel-attributes", "channel-attributes", "channel-attributes", "channel-checkout", "repository-malformed", "repository-malformed", "repository-malformed", "repository-malformed"}
	if !slices.Equal(codes, want) {
		t.Errorf("%q\n%v", codes, err)
	}
	full := errors.New("the disk is full")
	repo, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	for name, n := range map[string]string{"nul": "a\x00b", "void": "", "long": strings.Repeat("x", 5000)} {
		r := channeltest.NewRepo()
		dir, c := commitOf(t, r, r.Tree(channeltest.Entry{Mode: git.ModeSymlink, Name: name, ID: r.Put(git.KindBlob, []byte(n))}))
		_, _, err := narOf(t, dir, c)
		if rs, _ := trust.AsRefusals(err); !slices.Equal(rs.Codes(), []string{authenticate.CodeCheckout}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := channeltest.NewRepo()
	dir, c = commitOf(t, good, good.Tree(channeltest.Entry{Mode: git.ModeFile, Name: "x", ID: good.Put(git.KindBlob, bytes.Repeat([]byte("x"), 1<<20))}))
	if repo, err = authenticate.Open(dir, authenticate.Options{}); err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if err := repo.Nar(t.Context(), c, writer(func([]byte) (int, error) { return 0, full })); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := repo.Nar(ctx, c, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
