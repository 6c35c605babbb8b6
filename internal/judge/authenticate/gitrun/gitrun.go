package gitrun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/guix/channel/git"
)

// Bounds of a run.
const (
	DefaultTime     = 10 * time.Minute
	MaxAddressSpace = 8 << 30
	MaxFile         = 64 << 30 // bytes in a file that git writes
	MaxDescriptors  = 512
	MaxOutput       = 1 << 30  // bytes on standard output, unless the command says otherwise
	maxStderr       = 64 << 10 // bytes kept of what git says
	minMajor        = 2
	minMinor        = 30
)

// A Git is the program.
type Git struct {
	Path     string // absolute, without links
	Version  string
	execPath string
}

// Find looks for git in the directories of path and asks for its version.
func Find(ctx context.Context, path string) (*Git, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		name := filepath.Join(dir, "git")
		st, err := os.Stat(name)
		if err != nil || !st.Mode().IsRegular() || st.Mode().Perm()&0o111 == 0 {
			continue
		}
		g := &Git{Path: name}
		ask := func(arg string) (string, error) {
			var out bytes.Buffer
			err := g.start(ctx, []string{arg}, []string{"PATH=" + dir, "LC_ALL=C"}, "/", rules{}, Command{Stdout: &out, Time: time.Minute})
			return strings.TrimSpace(out.String()), err
		}
		version, err := ask("--version")
		if err != nil {
			return nil, err
		}
		if g.execPath, err = ask("--exec-path"); err != nil {
			return nil, err
		}
		word := strings.Fields(version)
		if len(word) < 3 || !filepath.IsAbs(g.execPath) {
			return nil, fmt.Errorf("%s says that its version is %q", name, version)
		}
		g.Version = word[2]
		numbers := strings.Split(g.Version, ".")
		major, err1 := strconv.Atoi(numbers[0])
		minor, err2 := strconv.Atoi(numbers[min(1, len(numbers)-1)])
		if err := errors.Join(err1, err2); err != nil || major < minMajor || major == minMajor && minor < minMinor {
			return nil, fmt.Errorf("%s has version %s, at least %d.%d is needed", name, g.Version, minMajor, minMinor)
		}
		return g, nil
	}
	return nil, errors.New("git is missing (install git)")
}

// A Repository is what git is to see of one.
type Repository struct {
	Objects string // its directory of objects; "" for new ones in the view
	Refs    map[string]git.ID
	Head    string // a reference; "" means refs/heads/none
}

// A View is a git directory of ours.
type View struct {
	Dir     string
	objects string
}

// configuration is all that git is told. Hooks and helpers are nowhere, and every protocol but file is refused.
const configuration = `[core]
	repositoryformatversion = 0
	bare = true
	hooksPath = /dev/null
	attributesFile = /dev/null
	excludesFile = /dev/null
	fsmonitor = false
	commitGraph = false
	pager = cat
	askPass = /bin/false
	protectHFS = true
	protectNTFS = true
[protocol]
	allow = never
	version = 2
[protocol "file"]
	allow = always
[transfer]
	fsckObjects = true
[fetch]
	fsckObjects = true
	writeCommitGraph = false
	recurseSubmodules = false
[receive]
	fsckObjects = true
[gc]
	auto = 0
	autoDetach = false
[maintenance]
	auto = false
[credential]
	helper =
[uploadpack]
	allowFilter = false
[pack]
	threads = 1
	writeBitmaps = false
[advice]
	defaultBranchName = false
	graftFileDeprecated = false
`

// View makes a git directory in dir, which must not be there.
func (g *Git) View(dir string, r Repository) (*View, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	v := &View{Dir: dir, objects: r.Objects}
	if v.objects != "" {
		// Landlock rules are for what the path leads to; git must be told the same.
		if v.objects, err = filepath.EvalSymlinks(r.Objects); err != nil {
			return nil, err
		}
		if v.objects, err = filepath.Abs(v.objects); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for _, d := range []string{"refs/heads", "refs/tags", "objects/pack", "objects/info"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	var packed strings.Builder
	packed.WriteString("# pack-refs with: sorted \n")
	for _, name := range slices.Sorted(maps.Keys(r.Refs)) {
		if strings.ContainsAny(name, "\n \x00") || !strings.HasPrefix(name, "refs/") || strings.Contains(name, "..") {
			return nil, fmt.Errorf("%q is not the name of a reference", name)
		}
		fmt.Fprintf(&packed, "%s %s\n", r.Refs[name], name)
	}
	head := r.Head
	if head == "" {
		head = "refs/heads/none"
	}
	for name, text := range map[string]string{"config": configuration, "packed-refs": packed.String(), "HEAD": "ref: " + head + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// A Command is one run of git.
type Command struct {
	Args   []string
	Stdin  io.Reader // nil for nothing
	Stdout io.Writer // nil for nowhere
	Read   []string  // files and directories that it may read beside the objects
	Write  []string  // those that it may read and write beside the view
	Output int64     // bytes; 0 means MaxOutput
	Time   time.Duration

	Protocol int // version of git's protocol that a client asked for, where git serves one
}

// An ExitError says that git ended with a status other than 0.
type ExitError struct {
	Args   []string
	Status int    // -1 if it was killed
	Why    string // how it ended, if not by itself
	Stderr string // what it said: a claim
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("git %s: exit status %d", strings.Join(e.Args[:min(len(e.Args), 3)], " "), e.Status)
	if e.Why != "" {
		s = fmt.Sprintf("git %s: %s", strings.Join(e.Args[:min(len(e.Args), 3)], " "), e.Why)
	}
	if e.Stderr != "" {
		s += fmt.Sprintf(": %.500q", e.Stderr)
	}
	return s
}

// Run runs git on a view.
func (g *Git) Run(ctx context.Context, v *View, c Command) error {
	env := []string{
		"PATH=" + g.execPath, // git's own programs, and no others
		"HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent", "LC_ALL=C", "TZ=UTC", "TMPDIR=" + v.Dir,
		"GIT_DIR=" + v.Dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_ATTR_NOSYSTEM=1",
		"GIT_NO_REPLACE_OBJECTS=1", "GIT_GRAFT_FILE=/dev/null", "GIT_NO_LAZY_FETCH=1", "GIT_ALLOW_PROTOCOL=file", "GIT_PROTOCOL_FROM_USER=0",
		"GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=/bin/false", "SSH_ASKPASS=/bin/false", "GIT_SSH_COMMAND=/bin/false", "GIT_OPTIONAL_LOCKS=0", "GIT_PAGER=cat",
		"GIT_EDITOR=/bin/false", "GIT_ADVICE=0",
	}
	if c.Protocol > 0 {
		env = append(env, "GIT_PROTOCOL=version="+strconv.Itoa(c.Protocol))
	}
	allowed := rules{write: append([]string{v.Dir}, c.Write...), read: c.Read}
	if v.objects != "" {
		env = append(env, "GIT_OBJECT_DIRECTORY="+v.objects)
		allowed.read = append(slices.Clone(allowed.read), v.objects)
	}
	return g.start(ctx, c.Args, env, v.Dir, allowed, c)
}

// start runs git, confined.
func (g *Git) start(ctx context.Context, args, env []string, dir string, allowed rules, c Command) error {
	limit := c.Time
	if limit <= 0 {
		limit = DefaultTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	// The program, its own programs, libraries. No shell: whatever a repository might have run, nothing is there to run it.
	allowed.programs = []string{g.Path, "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/gnu/store", "/nix/store"}
	if g.execPath != "" {
		allowed.programs = append(allowed.programs, g.execPath)
	}
	allowed.read = append(slices.Clone(allowed.read), "/etc/ld.so.cache", "/dev/urandom", "/dev/zero")
	allowed.write = append(slices.Clone(allowed.write), "/dev/null")

	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	files := []*os.File{null, null, nil}
	var closeAfterStart []*os.File
	var inW, outR *os.File
	if c.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		files[0], inW = r, w
		closeAfterStart = append(closeAfterStart, r)
	}
	if c.Stdout != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return errors.Join(err, closeAll(append(closeAfterStart, inW)))
		}
		files[1], outR = w, r
		closeAfterStart = append(closeAfterStart, w)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return errors.Join(err, closeAll(append(closeAfterStart, inW, outR)))
	}
	files[2] = errW
	closeAfterStart = append(closeAfterStart, errW)

	p, ended, err := launch(g.Path, append([]string{"git"}, args...), &os.ProcAttr{Dir: dir, Env: env, Files: files}, allowed)
	closeAll(closeAfterStart)
	if err != nil {
		closeAll([]*os.File{inW, outR, errR})
		return err
	}
	fed, told, said := make(chan error, 1), make(chan error, 1), make(chan string, 1)
	go func() {
		var err error
		if inW != nil {
			_, err = io.Copy(inW, c.Stdin)
			inW.Close()
			if errors.Is(err, syscall.EPIPE) {
				err = nil // it had read enough
			}
		}
		fed <- err
	}()
	go func() {
		var err error
		if outR != nil {
			most := c.Output
			if most <= 0 {
				most = MaxOutput
			}
			var n int64
			n, err = io.Copy(c.Stdout, io.LimitReader(outR, most+1))
			if n > most {
				err = fmt.Errorf("git %s: more than %d bytes of output", strings.Join(args[:min(len(args), 3)], " "), most)
			}
			outR.Close() // what still writes gets a signal
		}
		told <- err
	}()
	go func() {
		text, _ := io.ReadAll(io.LimitReader(errR, maxStderr)) // what was read is all that can be told
		io.Copy(io.Discard, errR)
		errR.Close()
		said <- string(bytes.TrimSpace(text))
	}()
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	state := <-ended
	stop()
	outErr := <-told
	stderr := <-said
	if inW != nil {
		inW.Close() // if the source goes on, it is not waited for longer than its next piece
	}
	var inErr error
	if c.Stdin == nil || state.err == nil && state.ps.Success() {
		inErr = <-fed
	}
	switch {
	case ctx.Err() == context.DeadlineExceeded:
		return &ExitError{args, -1, fmt.Sprintf("not done after %v", limit), stderr}
	case ctx.Err() != nil:
		return ctx.Err()
	case state.err != nil:
		return state.err
	case outErr != nil:
		return outErr
	case inErr != nil && !errors.Is(inErr, os.ErrClosed):
		return inErr
	case !state.ps.Success():
		e := &ExitError{Args: args, Status: state.ps.ExitCode(), Stderr: stderr}
		if e.Status < 0 {
			e.Why = state.ps.String()
		}
		return e
	}
	return nil
}

func closeAll(files []*os.File) error {
	var errs []error
	for _, f := range files {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

type outcome struct {
	ps  *os.ProcessState
	err error
}

// launch starts a program that has only what is allowed.
//
// Landlock and no_new_privs hold for a thread and what it starts. So a thread is set apart for each program: it gives up its rights, starts the program,
// waits for it (the kernel would kill the program with the thread: Pdeathsig), and ends with it, since a goroutine that ends while it is locked
// to its thread takes the thread along.
func launch(path string, args []string, attr *os.ProcAttr, allowed rules) (*os.Process, <-chan outcome, error) {
	type started struct {
		p   *os.Process
		err error
	}
	begun, ended := make(chan started, 1), make(chan outcome, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		if err := allowed.enforce(); err != nil {
			begun <- started{nil, err}
			return
		}
		attr.Sys = &syscall.SysProcAttr{
			// Nobody is mapped into the user namespace: the program keeps the files of its user, and is nobody to itself. (A mapping would have to be
			// written below /proc, which this thread can no longer open.)
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWNS,
			Pdeathsig:  syscall.SIGKILL,
		}
		p, err := os.StartProcess(path, args, attr)
		if err == nil {
			err = limit(p)
		}
		begun <- started{p, err}
		if p == nil {
			return
		}
		ps, err := p.Wait()
		ended <- outcome{ps, err}
	}()
	s := <-begun
	switch {
	case s.err == nil:
		return s.p, ended, nil
	case s.p != nil:
		s.p.Kill()
		<-ended
		return nil, nil, s.err
	case errors.Is(s.err, syscall.EPERM) || errors.Is(s.err, syscall.EINVAL) || errors.Is(s.err, syscall.ENOSPC):
		return nil, nil, fmt.Errorf("git cannot be confined: user namespaces: %w (allow them: user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)", s.err)
	}
	return nil, nil, s.err
}

// limit sets the resource limits of a program that has just started. What it did before is what its loader does.
func limit(p *os.Process) error {
	for _, l := range []struct {
		resource int
		max      uint64
	}{{unix.RLIMIT_AS, MaxAddressSpace}, {unix.RLIMIT_FSIZE, MaxFile}, {unix.RLIMIT_NOFILE, MaxDescriptors}, {unix.RLIMIT_CORE, 0}} {
		if err := unix.Prlimit(p.Pid, l.resource, &unix.Rlimit{Cur: l.max, Max: l.max}, nil); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("git cannot be confined: resource limits: %w", err)
		}
	}
	return nil
}
