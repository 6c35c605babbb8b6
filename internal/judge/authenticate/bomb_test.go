package authenticate

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/nar"
	"sallyport/internal/trust"
)

// bomb makes a repository with two commits: of a tree without anything, and of one in which few objects stand many times, below so many directories with two entries each.
func bomb(t *testing.T, levels int, leaf func(r *channeltest.Repo) channeltest.Entry) (r *Repository, empty, full git.ID) {
	t.Helper()
	repo := channeltest.NewRepo()
	e := leaf(repo)
	for range levels {
		a, b := e, e
		a.Name, b.Name = "a"+strings.TrimLeft(e.Name, "ab"), "b"+strings.TrimLeft(e.Name, "ab")
		e = channeltest.Entry{Mode: git.ModeTree, Name: "d", ID: repo.Tree(a, b)}
	}
	commit := func(tree git.ID) git.ID {
		return repo.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nmessage\n", tree))
	}
	empty, full = commit(repo.Tree()), commit(e.ID)
	dir := filepath.Join(t.TempDir(), "r.git")
	if err := repo.Write(dir); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, empty, full
}

// TestBombs: a tree without end is refused, as what it has been looked at and not when all has. The rooms are small here, so that the test is quick.
func TestBombs(t *testing.T) {
	for name, leaf := range map[string]func(r *channeltest.Repo) channeltest.Entry{
		"files": func(r *channeltest.Repo) channeltest.Entry {
			return channeltest.Entry{Mode: git.ModeFile, Name: ".scm", ID: r.Put(git.KindBlob, []byte("x"))}
		},
		"bytes": func(r *channeltest.Repo) channeltest.Entry {
			return channeltest.Entry{Mode: git.ModeFile, Name: ".scm", ID: r.Put(git.KindBlob, make([]byte, 1<<19))}
		},
		"refused at once": func(r *channeltest.Repo) channeltest.Entry {
			return channeltest.Entry{Mode: git.ModeFile, Name: ".gitattributes", ID: r.Put(git.KindBlob, make([]byte, 2<<20))}
		},
		"links": func(r *channeltest.Repo) channeltest.Entry {
			return channeltest.Entry{Mode: git.ModeSymlink, Name: "x", ID: r.Put(git.KindBlob, make([]byte, 1<<19))}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, empty, full := bomb(t, 100, leaf)
			small := room{20_000, 8 << 20}
			reader := r.db.NewReader()
			of := func(c git.ID) git.ID {
				tree, err := r.treeOf(reader, c)
				if err != nil {
					t.Fatal(err)
				}
				return tree
			}
			refused := func(what string, err error) {
				t.Helper()
				if rs, _ := trust.AsRefusals(err); !rs.Has(CodeCheckout) && !rs.Has(CodeAttributes) {
					t.Errorf("%s: %v", what, err)
				}
			}
			d := &narWriter{ctx: t.Context(), r: reader, z: nar.NewWriter(io.Discard), room: small}
			refused("nar", d.directory(of(full), "", 0))
			if d.room.files < -1 || d.room.bytes < -4<<20 {
				t.Errorf("looked at more than it may: %+v", d.room)
			}
			report := &Report{Verdict: &channel.Verdict{End: full}}
			x := &differ{ctx: t.Context(), r: reader, report: report, out: &Difference{}, room: small}
			if err := x.trees(of(empty), of(full), "", 0); err == nil || x.room.files > 0 && x.room.bytes > 0 {
				t.Errorf("%v %+v", err, x.room)
			}
		})
	}
}

// TestDefinitionsAgain: a module that defines one name a million times takes no longer than another.
func TestDefinitionsAgain(t *testing.T) {
	t.Parallel()
	repo := channeltest.NewRepo()
	id := repo.Put(git.KindBlob, []byte(strings.Repeat("(define-public x\n", maxModule/17)))
	repo.Refs["refs/heads/x"] = repo.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nm\n", repo.Tree(channeltest.Entry{Mode: git.ModeFile, Name: "x", ID: id})))
	dir := filepath.Join(t.TempDir(), "r.git")
	if err := repo.Write(dir); err != nil {
		t.Fatal(err)
	}
	r, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	d := &differ{ctx: t.Context(), r: r.db.NewReader(), out: &Difference{}, room: room{1, 1 << 30}}
	start := time.Now()
	all, err := d.definitions(git.TreeEntry{Mode: git.ModeFile, ID: id})
	if took := time.Since(start); err != nil || len(all) != 1 || took > 5*time.Minute {
		t.Errorf("%v, %d definitions, %v", err, len(all), took)
	}
}
