package gitrun_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate/gitrun"
)

// as is the variable that makes the test's program a helper of its tests.
const as = "SALLYPORT_GITRUN_HELPER"

func TestMain(m *testing.M) {
	switch what := os.Getenv(as); what {
	case "":
		os.Exit(m.Run())
	case "wait": // for git, which waits for input that does not come
		g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
		if err == nil {
			var v *gitrun.View
			if v, err = g.View(os.Args[1], gitrun.Repository{}); err == nil {
				err = g.Run(context.Background(), v, gitrun.Command{Args: []string{"cat-file", "--batch"}, Stdin: os.Stdin, Stdout: os.Stdout})
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case "without-landlock", "without-namespaces":
		var err error
		if what == "without-landlock" {
			err = withoutLandlock()
		} else {
			// The limit is that of the user namespace in which this runs.
			err = os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
		}
		if err != nil {
			fmt.Println("helper:", err)
			os.Exit(2)
		}
		_, err = gitrun.Find(context.Background(), os.Getenv("PATH"))
		fmt.Println(err)
		os.Exit(0)
	}
}

// withoutLandlock makes the calls of Landlock unknown to this process, as an older kernel does.
func withoutLandlock() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_LANDLOCK_CREATE_RULESET},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	// For all threads. The first needs no_new_privs too, or it stays outside; so root is asked for.
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); e != 0 {
		return e
	}
	return nil
}

// helper prepares the test's program as a helper.
func helper(what string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), as+"="+what)
	return cmd
}

// TestMissingFeature: without a layer nothing is run, and the error names what is missing.
func TestMissingFeature(t *testing.T) {
	find(t)
	for _, c := range []struct {
		what, named string
		attr        *syscall.SysProcAttr
	}{
		{"without-landlock", "landlock", nil},
		{"without-namespaces", "user namespaces", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}},
	} {
		cmd := helper(c.what)
		cmd.SysProcAttr = c.attr
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "git cannot be confined: "+c.named) {
			t.Errorf("%s: %v: %s", c.what, err, out)
		}
	}
}

// TestDiesWithParent: a parent that is killed leaves no git behind.
func TestDiesWithParent(t *testing.T) {
	find(t)
	cmd := helper("wait", filepath.Join(t.TempDir(), "view"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// git answers once it runs.
	fmt.Fprintln(stdin, "nothing")
	answer := make([]byte, len("nothing missing\n"))
	if _, err := io.ReadFull(stdout, answer); err != nil || string(answer) != "nothing missing\n" {
		t.Fatalf("%q %v", answer, err)
	}
	children := descendants(t, cmd.Process.Pid)
	if len(children) == 0 {
		t.Fatal("git is no child")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// Its output stays open as long as anything of it lives. (Its input does, too: nobody has closed it.)
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, stdout)
		done <- err
	}()
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		t.Error("git goes on")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the parent was not killed")
	}
	for _, pid := range children {
		for i := 0; alive(pid); i++ {
			if i == 5000 {
				t.Errorf("process %d goes on", pid)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// descendants lists the children of a process and theirs.
func descendants(t *testing.T, pid int) (all []int) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue // a thread that ended
		}
		for _, word := range strings.Fields(string(data)) {
			n, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			all = append(append(all, n), descendants(t, n)...)
		}
	}
	return all
}

// alive tells whether a process runs: one that nobody has waited for does not.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(data, ')')
	return i < 0 || !bytes.HasPrefix(data[i:], []byte(") Z"))
}

// TestNothingIsObeyed: each thing in a repository that makes git run a program, shown to do so with git alone, does not here.
func TestNothingIsObeyed(t *testing.T) {
	g := find(t)
	for _, c := range []struct {
		name   string
		config string            // TOUCH leaves the mark, DIR is the repository
		files  map[string]string // more files of it
		args   []string          // WORK is an empty directory
		stdin  string
		unsure bool // git alone may not obey it either
	}{
		{name: "an alias", config: "[alias]\n\tevil = !TOUCH", args: []string{"evil"}},
		{name: "an included file", config: "[include]\n\tpath = DIR/more", files: map[string]string{"more": "[alias]\n\tevil = !TOUCH\n"}, args: []string{"evil"}},
		{name: "an included file, if", config: "[includeIf \"gitdir:**\"]\n\tpath = DIR/more", files: map[string]string{"more": "[alias]\n\tevil = !TOUCH\n"}, args: []string{"evil"}},
		{name: "a hook", files: map[string]string{"hooks/reference-transaction": "#!/bin/sh\nTOUCH\n"}, args: []string{"update-ref", "refs/heads/new", "END"}},
		{name: "hooks elsewhere", config: "[core]\n\thooksPath = DIR/elsewhere", files: map[string]string{"elsewhere/reference-transaction": "#!/bin/sh\nTOUCH\n"}, args: []string{"update-ref", "refs/heads/new", "END"}},
		{name: "a filter", config: "[filter \"evil\"]\n\tsmudge = TOUCH; cat\n\tclean = TOUCH; cat\n\trequired = true", files: map[string]string{"info/attributes": "* filter=evil\n"},
			args: []string{"--work-tree=WORK", "checkout", "-f", "end", "--", "file"}},
		{name: "a filter that is a process", config: "[filter \"evil\"]\n\tprocess = TOUCH", files: map[string]string{"info/attributes": "* filter=evil\n"}, args: []string{"--work-tree=WORK", "checkout", "-f", "end", "--", "file"}},
		{name: "a text conversion", config: "[diff \"evil\"]\n\ttextconv = TOUCH; cat", files: map[string]string{"info/attributes": "* diff=evil\n"}, args: []string{"cat-file", "--textconv", "end:file"}},
		{name: "a diff", config: "[diff]\n\texternal = TOUCH", args: []string{"--work-tree=WORK", "diff", "--ext-diff", "4b825dc642cb6eb9a060e54bf8d69288fbee4904", "end"}},
		{name: "a monitor", config: "[core]\n\tfsmonitor = TOUCH; true", args: []string{"--work-tree=WORK", "status"}, unsure: true},
		{name: "ssh", config: "[core]\n\tsshCommand = TOUCH;", args: []string{"ls-remote", "ssh://example.org/x"}},
		{name: "a proxy", config: "[core]\n\tgitProxy = DIR/proxy", files: map[string]string{"hooks/../proxy": "#!/bin/sh\nTOUCH\n"}, args: []string{"ls-remote", "git://example.org/x"}, unsure: true},
		{name: "a remote that is a program", config: "[protocol \"ext\"]\n\tallow = always\n[remote \"evil\"]\n\turl = ext::TOUCH", args: []string{"ls-remote", "evil"}},
		{name: "a rewritten URL", config: "[protocol]\n\tallow = always\n[url \"ext::sh -c TOUCH; x\"]\n\tinsteadOf = https://example.org/", args: []string{"ls-remote", "https://example.org/"}, unsure: true},
		{name: "a promisor", config: "[protocol \"ext\"]\n\tallow = always\n[extensions]\n\tpartialClone = evil\n[remote \"evil\"]\n\turl = ext::TOUCH\n\tpromisor = true",
			args: []string{"cat-file", "-p", "1111111111111111111111111111111111111111"}},
		{name: "credentials", config: "[credential]\n\thelper = !TOUCH;", args: []string{"credential", "fill"}, stdin: "protocol=https\nhost=example.org\n\n"},
		{name: "a question", config: "[core]\n\taskPass = DIR/ask", files: map[string]string{"hooks/../ask": "#!/bin/sh\nTOUCH\n"}, args: []string{"credential", "fill"}, stdin: "protocol=https\nhost=example.org\n\n", unsure: true},
		{name: "gpg", config: "[gpg]\n\tprogram = DIR/hooks/gpg\n[log]\n\tshowSignature = true", files: map[string]string{"hooks/gpg": "#!/bin/sh\nTOUCH\n"}, args: []string{"log", "end"}},
		{name: "packing", config: "[uploadpack]\n\tpackObjectsHook = TOUCH;", args: []string{"ls-remote", "DIR"}, unsure: true},
		{name: "references of alternates", config: "[core]\n\talternateRefsCommand = TOUCH; echo", files: map[string]string{"objects/info/alternates": "DIR/objects\n"}, args: []string{"receive-pack", "DIR"}, stdin: "0000", unsure: true},
		{name: "an editor", config: "[core]\n\teditor = TOUCH;", args: []string{"tag", "-a", "new", "end"}},
		{name: "a pager", config: "[core]\n\tpager = TOUCH;", args: []string{"-p", "log", "end"}, unsure: true},
		{name: "a submodule", config: "[submodule \"evil\"]\n\tpath = evil\n\turl = DIR\n\tupdate = !TOUCH\n\tactive = true", args: []string{"--work-tree=WORK", "submodule", "update", "--init"}, unsure: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			dir, mark := filepath.Join(top, "repo"), filepath.Join(top, "mark")
			r := channeltest.NewRepo()
			file := r.Put(git.KindBlob, []byte("content\n"))
			end := r.Put(git.KindCommit, fmt.Appendf(nil, "tree %s\nauthor A <a@x> 1 +0000\ncommitter A <a@x> 1 +0000\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----\n\nmessage\n",
				r.Tree(channeltest.Entry{Mode: git.ModeFile, Name: "file", ID: file})))
			r.Refs["refs/heads/end"] = end
			fill := strings.NewReplacer("TOUCH", "touch "+mark, "DIR", dir, "END", end.String(), "WORK", filepath.Join(top, "work"))
			r.Files["config"] = []byte("[core]\n\trepositoryformatversion = 0\n\tbare = false\n" + fill.Replace(c.config) + "\n")
			for name, text := range c.files {
				r.Files[name] = []byte(fill.Replace(text))
			}
			if err := r.Write(dir); err != nil {
				t.Fatal(err)
			}
			for name := range c.files {
				if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			work := filepath.Join(top, "work")
			if err := os.Mkdir(work, 0o755); err != nil {
				t.Fatal(err)
			}
			args := make([]string, len(c.args))
			for i, a := range c.args {
				args[i] = fill.Replace(a)
			}
			marked := func() bool {
				_, err := os.Stat(mark)
				return err == nil
			}

			// Ours first: git alone may change the repository.
			before := listing(t, dir)
			v := view(t, g, dir, map[string]git.ID{"refs/heads/end": end})
			err := g.Run(t.Context(), v, gitrun.Command{Args: args, Stdin: strings.NewReader(c.stdin), Stdout: io.Discard, Read: []string{dir}, Write: []string{work}, Time: 5 * time.Minute})
			if marked() {
				t.Errorf("it was obeyed (%v)", err)
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the repository has changed:\n%s", after)
			}
			os.Remove(mark)

			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			alone := exec.CommandContext(ctx, g.Path, append([]string{"--git-dir=" + dir}, args...)...)
			alone.Dir, alone.Stdin = work, strings.NewReader(c.stdin)
			alone.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + top, "GIT_CONFIG_NOSYSTEM=1", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@x", "GIT_TERMINAL_PROMPT=0"}
			out, err := alone.CombinedOutput()
			if !marked() && !c.unsure {
				t.Errorf("git alone does not obey it either, so nothing is tested: %v\n%s", err, out)
			}
		})
	}
}

// TestAlternatesAreNotFollowed: objects that lie where a repository points are not there, though git alone finds them.
func TestAlternatesAreNotFollowed(t *testing.T) {
	g := find(t)
	top := t.TempDir()
	elsewhere, here := channeltest.NewRepo(), channeltest.NewRepo()
	secret := elsewhere.Put(git.KindBlob, []byte("secret\n"))
	here.Files["objects/info/alternates"] = []byte(filepath.Join(top, "elsewhere/objects") + "\n")
	for name, r := range map[string]*channeltest.Repo{"elsewhere": elsewhere, "here": here} {
		if err := r.Write(filepath.Join(top, name)); err != nil {
			t.Fatal(err)
		}
	}
	v := view(t, g, filepath.Join(top, "here"), nil)
	var out bytes.Buffer
	if err := g.Run(t.Context(), v, gitrun.Command{Args: []string{"cat-file", "-p", secret.String()}, Stdout: &out}); err == nil || out.Len() > 0 {
		t.Errorf("%v %q", err, out.String())
	}
	alone := exec.Command(g.Path, "--git-dir="+filepath.Join(top, "here"), "cat-file", "-p", secret.String())
	alone.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + top, "GIT_CONFIG_NOSYSTEM=1"}
	if out, err := alone.CombinedOutput(); err != nil || string(out) != "secret\n" {
		t.Errorf("git alone does not find it either: %v %s", err, out)
	}
}
