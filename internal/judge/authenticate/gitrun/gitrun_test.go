package gitrun_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate/gitrun"
)

func find(t *testing.T) *gitrun.Git {
	t.Helper()
	g, err := gitrun.Find(t.Context(), os.Getenv("PATH"))
	if err != nil && strings.Contains(err.Error(), "git is missing") {
		t.Skip("SKIPPED, NOT TESTED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// hostile writes a repository with everything in it that git might obey, and returns its directory and a commit.
func hostile(t *testing.T) (dir string, refs map[string]git.ID) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "hostile")
	r := channeltest.NewRepo()
	file := r.Put(git.KindBlob, []byte("content\n"))
	c := r.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\n\nmessage\n", r.Tree(channeltest.Entry{Mode: git.ModeFile, Name: "file", ID: file})))
	other := r.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor E <e@x> 1 +0000\ncommitter E <e@x> 1 +0000\n\nevil\n", r.Tree()))
	r.Refs["refs/heads/end"] = c
	r.Refs["refs/replace/"+c.String()] = other
	touch := "touch " + filepath.Join(dir, "hooked")
	for _, hook := range []string{"pre-push", "post-checkout", "reference-transaction", "post-index-change", "fsmonitor-watchman"} {
		r.Files["hooks/"+hook] = []byte("#!/bin/sh\n" + touch + "\n")
	}
	r.Files["config"] = []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = " + touch + "\n\tpager = " + touch + "\n\tgitProxy = " + touch + "\n\tsshCommand = " + touch +
		"\n\talternateRefsCommand = " + touch + "\n[pager]\n\tlog = " + touch + "\n[log]\n\tshowSignature = true\n[gpg]\n\tprogram = " + touch + "\n[diff]\n\texternal = " + touch +
		"\n[extensions]\n\tpartialClone = evil\n[remote \"evil\"]\n\turl = ext::" + touch + "\n\tpromisor = true\n[include]\n\tpath = /etc/passwd\n")
	r.Files["info/grafts"] = []byte(c.String() + " " + other.String() + "\n")
	r.Files["info/attributes"] = []byte("* diff=evil\n")
	r.Files["objects/info/alternates"] = []byte("/etc\n")
	r.Files["objects/info/commit-graph"] = []byte("CGPH garbage")
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir, map[string]git.ID{"refs/heads/end": c}
}

func view(t *testing.T, g *gitrun.Git, dir string, refs map[string]git.ID) *gitrun.View {
	t.Helper()
	r := gitrun.Repository{Refs: refs, Head: "refs/heads/end"}
	if dir != "" {
		r.Objects = filepath.Join(dir, "objects")
	}
	v, err := g.View(filepath.Join(t.TempDir(), "view"), r)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestHostileRepository: git does its work on it, and what it carries does nothing.
func TestHostileRepository(t *testing.T) {
	g := find(t)
	dir, refs := hostile(t)
	v := view(t, g, dir, refs)
	before := listing(t, dir)
	run := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		if err := g.Run(t.Context(), v, gitrun.Command{Args: args, Stdout: &out}); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	if out := run("log", "--format=%s %P", "end"); out != "message \n" {
		t.Errorf("the log is %q: replaced, or grafted", out)
	}
	if out := run("show", "end:file"); out != "content\n" {
		t.Errorf("%q", out)
	}
	run("fsck", "--full", "--strict", "--no-dangling")
	run("diff", "--name-only", refs["refs/heads/end"].String()+"^{tree}", "4b825dc642cb6eb9a060e54bf8d69288fbee4904")
	bundle := filepath.Join(v.Dir, "x.bundle")
	run("bundle", "create", bundle, "refs/heads/end")
	if out := run("bundle", "verify", "-q", bundle); out != "" {
		t.Logf("%s", out)
	}
	if after := listing(t, dir); after != before {
		t.Errorf("the repository has changed:\n%s\nbefore:\n%s", after, before)
	}
}

// TestConfined: nothing else can be read, written, run or reached.
func TestConfined(t *testing.T) {
	g := find(t)
	dir, refs := hostile(t)
	v := view(t, g, dir, refs)
	top := t.TempDir()
	secret := filepath.Join(top, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	fails := func(what string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		if err := g.Run(t.Context(), v, gitrun.Command{Args: args, Stdout: &out}); err == nil {
			t.Errorf("%s: done: %q", what, out.String())
		} else if strings.Contains(out.String()+err.Error(), "6eb09") {
			t.Errorf("%s: %v", what, err)
		}
	}
	fails("read a file", "hash-object", secret)
	fails("read the repository's configuration", "config", "--file", filepath.Join(dir, "config"), "--list")
	fails("read /etc", "hash-object", "/etc/passwd")
	fails("write elsewhere", "bundle", "create", filepath.Join(top, "x.bundle"), "refs/heads/end")
	fails("write into the repository", "hash-object", "-w", filepath.Join(v.Dir, "config"))
	fails("run a shell", "-c", "alias.x=!echo ran", "x")
	fails("run an alias's program", "-c", "core.pager=/bin/cat", "-p", "-c", "alias.y=!/usr/bin/touch "+filepath.Join(top, "ran"), "y")
	fails("another protocol", "ls-remote", "ext::sh -c true")
	if names, err := os.ReadDir(top); err != nil || len(names) != 1 {
		t.Errorf("%v %v", names, err)
	}
	// Named, it can be read.
	if err := g.Run(t.Context(), v, gitrun.Command{Args: []string{"hash-object", secret}, Read: []string{secret}}); err != nil {
		t.Error(err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var reached atomic.Bool
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached.Store(true)
			c.Close()
		}
	}()
	fails("the network", "-c", "protocol.allow=always", "-c", "protocol.git.allow=always", "ls-remote", "git://"+l.Addr().String()+"/x")
	if reached.Load() {
		t.Error("a connection was made")
	}
}

// TestBounds: output, time, and a caller that gives up.
func TestBounds(t *testing.T) {
	g := find(t)
	dir, refs := hostile(t)
	v := view(t, g, dir, refs)
	id := refs["refs/heads/end"].String() + "\n"
	if err := g.Run(t.Context(), v, gitrun.Command{Args: []string{"cat-file", "--batch"}, Stdin: strings.NewReader(strings.Repeat(id, 1000)), Stdout: io.Discard, Output: 1000}); err == nil || !strings.Contains(err.Error(), "output") {
		t.Errorf("too much output: %v", err)
	}
	var out bytes.Buffer
	if err := g.Run(t.Context(), v, gitrun.Command{Args: []string{"cat-file", "--batch-check"}, Stdin: strings.NewReader(strings.Repeat(id, 20000)), Stdout: &out}); err != nil || strings.Count(out.String(), "\n") != 20000 {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
	endless, w := io.Pipe()
	defer w.Close()
	begin := time.Now()
	err := g.Run(t.Context(), v, gitrun.Command{Args: []string{"cat-file", "--batch"}, Stdin: endless, Stdout: io.Discard, Time: 300 * time.Millisecond})
	var exit *gitrun.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.Why, "not done") {
		t.Errorf("no end: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := g.Run(ctx, v, gitrun.Command{Args: []string{"cat-file", "--batch"}, Stdin: endless, Stdout: io.Discard}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if d := time.Since(begin); d > gitrun.DefaultTime/2 { // by which it would have ended anyway
		t.Errorf("it took %v", d)
	}
	err = g.Run(t.Context(), v, gitrun.Command{Args: []string{"rev-parse", "nothing"}, Stdout: io.Discard})
	if !errors.As(err, &exit) || exit.Status != 128 || exit.Stderr == "" {
		t.Errorf("%v", err)
	}
	if _, err := g.View(v.Dir, gitrun.Repository{}); err == nil {
		t.Error("a view was made where one is")
	}
	if _, err := g.View(filepath.Join(t.TempDir(), "v"), gitrun.Repository{Refs: map[string]git.ID{"refs/heads/a\nb": {}}}); err == nil {
		t.Error("a reference with a line feed")
	}
	if _, err := gitrun.Find(t.Context(), t.TempDir()+":relative:"); err == nil {
		t.Error("git was found where none is")
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
