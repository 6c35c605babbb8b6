package authenticate_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate"
)

// compared authenticates a history and compares its end with an older commit.
func compared(t testing.TB, dir string, h channeltest.History, old git.ID) *authenticate.Difference {
	t.Helper()
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End.String(), Historical: h.Historical})
	if err != nil {
		t.Fatal(err)
	}
	d, err := r.Diff(t.Context(), report, old)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDiffCommits: the commits and files between are those that git tells.
func TestDiffCommits(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 25)
	dir := filepath.Join(t.TempDir(), "r.git")
	if err := h.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]int{{0, 24}, {5, 6}, {13, 20}, {24, 24}, {20, 13}} {
		h.End = ends[c[1]]
		old := ends[c[0]]
		d := compared(t, dir, h, old)
		if d.Forward != (c[0] <= c[1]) {
			t.Errorf("%v: forward: %v", c, d.Forward)
		}
		names := strings.Fields(gitRun(t, "-C", dir, "diff", "--name-only", old.String(), h.End.String()))
		if len(names) != len(d.Files) || d.Changed != len(names) {
			t.Errorf("%v: %v, git says %q", c, d.Files, names)
		}
		if !d.Forward {
			if !strings.Contains(string(d.Text()), "NOT FORWARD") {
				t.Errorf("%s", d.Text())
			}
			continue
		}
		if n := strings.TrimSpace(gitRun(t, "-C", dir, "rev-list", "--count", old.String()+".."+h.End.String())); n != fmt.Sprint(d.Commits) {
			t.Errorf("%v: %d commits, git says %s", c, d.Commits, n)
		}
		sum := 0
		for _, s := range d.Signers {
			sum += s.Commits
			if s.User == "" {
				t.Errorf("%+v has no name", s)
			}
		}
		if sum != d.Commits || d.Keys.Changed || len(d.Listings) > 0 || strings.Contains(string(d.Text()), "AUTHORIZATIONS") {
			t.Errorf("%v: %+v", c, d)
		}
		if c == [2]int{0, 24} && (!slices.ContainsFunc(d.Signers, func(s authenticate.DiffSigner) bool { return s.New }) || d.Signers[0].Commits < d.Signers[1].Commits) {
			t.Errorf("%+v", d.Signers)
		}
	}
}

// TestDiffAuthorizations: whoever changes who may sign is told in capitals.
func TestDiffAuthorizations(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		commits        int // that changed the list
		added, removed int // altogether
		fault          bool
	}{
		"linear": {}, "removes-itself": {1, 0, 3, false}, "list-removed": {1, 0, 4, false}, "removed-but-on-old-branch": {1, 0, 0, false},
		// The list is again what it was, but in between another key could sign.
		"added-then-signs": {2, 0, 0, false}, "empty-list": {2, 0, 0, false}, "list-version-1": {2, 0, 0, true},
	} {
		i := slices.IndexFunc(channeltest.Cases(), func(c channeltest.Case) bool { return c.Name == name })
		if i < 0 {
			t.Fatalf("there is no case %s", name)
		}
		c := channeltest.Cases()[i]
		h := c.Build(w)
		dir := filepath.Join(t.TempDir(), "r.git")
		if err := h.Write(dir); err != nil {
			t.Fatal(err)
		}
		d := compared(t, dir, h, h.Introduction)
		text := string(d.Text())
		fault := slices.ContainsFunc(d.Listings, func(l authenticate.ListChange) bool { return l.Keys.Fault != "" })
		if len(d.Keys.Added) != want.added || len(d.Keys.Removed) != want.removed || d.Keys.Changed != (want.added+want.removed > 0) || len(d.Listings) != want.commits || fault != want.fault {
			t.Errorf("%s: %+v", name, d)
		}
		if strings.Contains(text, "AUTHORIZATIONS CHANGED") != (want.commits > 0) || want.commits > 0 && !strings.Contains(text, d.Listings[0].Commit) {
			t.Errorf("%s: %s", name, text)
		}
	}
}

// TestDiffFiles: files and definitions.
func TestDiffFiles(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	_, h := channeltest.Growing(w, 1)
	r := h.Repo
	blob := func(s string) git.ID { return r.Put(git.KindBlob, []byte(s)) }
	file := func(name, s string) channeltest.Entry {
		return channeltest.Entry{Mode: git.ModeFile, Name: name, ID: blob(s)}
	}
	dir := func(name string, e ...channeltest.Entry) channeltest.Entry {
		return channeltest.Entry{Mode: git.ModeTree, Name: name, ID: r.Tree(e...)}
	}
	commit := func(tree git.ID, parents ...git.ID) git.ID {
		text := fmt.Sprintf("tree %s\n", tree)
		for _, p := range parents {
			text += fmt.Sprintf("parent %s\n", p)
		}
		return r.Put(git.KindCommit, []byte(text+"author A\x1b[2J <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nbad\x1b[2J\n"))
	}
	module := "(define-module (x))\n(define-public hello\n  (package (version \"1\")))\n\n(define-public gone 1)\n(define-public same 2)\n(define private 3)\n(define-public (procedure x) x)\n"
	old := commit(r.Tree(file(".guix-channel", "(channel (version 0))"), dir("gnu", dir("packages", file("x.scm", module), file("unchanged.scm", module))), dir("leaving", file("a", ""), file("b", "")), file("type", "x"), file("place", "x"),
		channeltest.Entry{Mode: git.ModeSubmodule, Name: "module", ID: git.ID{1}}))
	h.End = commit(r.Tree(file(".guix-channel", "(channel (version 0) (directory \"gnu\"))"), dir("build-aux", file("build-self.scm", "evil")),
		dir("gnu", dir("packages", file("x.scm", strings.NewReplacer("\"1\"", "\"2\"", "gone", "come", "private 3", "private 4").Replace(module)), file("unchanged.scm", module), file("\x1b[2Jnew.scm", "(define-public n\u202eew 1)"))),
		channeltest.Entry{Mode: git.ModeSymlink, Name: "type", ID: blob("x")}, dir("place", file("y", "")), channeltest.Entry{Mode: git.ModeSubmodule, Name: "module", ID: git.ID{2}}), old)
	h.Introduction = old // nothing here is authentic; what is compared is told all the same
	top := filepath.Join(t.TempDir(), "r.git")
	if err := h.Write(top); err != nil {
		t.Fatal(err)
	}
	d := compared(t, top, h, old)
	got := map[string]string{}
	for _, f := range d.Files {
		got[f.Path] = f.How
	}
	want := map[string]string{".guix-channel": "changed", "build-aux/build-self.scm": "added", "gnu/packages/x.scm": "changed", `gnu/packages/\x1b[2Jnew.scm`: "added", "leaving/a": "removed", "leaving/b": "removed",
		"type": "changed", "place": "removed", "place/y": "added", "module": "changed"}
	if !maps.Equal(got, want) || d.Changed != len(want) {
		t.Errorf("%v", got)
	}
	if !d.Channel || !d.Self || d.Renamed != 4 || len(d.Packages) != 2 {
		t.Errorf("%+v", d)
	}
	m := d.Packages[slices.IndexFunc(d.Packages, func(m authenticate.ModuleChange) bool { return m.Path == "gnu/packages/x.scm" })]
	if !slices.Equal(m.Added, []string{"come"}) || !slices.Equal(m.Removed, []string{"gone"}) || !slices.Equal(m.Changed, []string{"hello"}) {
		t.Errorf("%+v", m)
	}
	text := string(d.Text())
	for _, s := range []string{"CHANNEL FILE CHANGED", "BUILD-SELF CHANGED", "gnu/packages/x.scm: +come -gone hello\n", "  leaving/a: removed\n"} {
		if !strings.Contains(text, s) {
			t.Errorf("%q is missing:\n%s", s, text)
		}
	}
	if strings.ContainsAny(text, "\x1b\u202e") {
		t.Errorf("%q", text)
	}
	if _, err := json.Marshal(d); err != nil {
		t.Error(err)
	}
}
