package confine

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is the name of the reader's file.
const Program = "sallyport-reader"

// Options say how to start a child.
type Options struct {
	Path string // of sallyport-reader, absolute

	// Deadline gives the time for an item of size bytes; nil means BaseTime and what the size takes at MinSpeed.
	Deadline func(size int64) time.Duration

	args []string // instead of none, in tests
	wire bool     // speak the protocol without looking at the confinement, to a fake child in tests
}

// Beside gives the path of the reader that is installed next to the running program.
func Beside() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(self), Program)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("the confined reader is missing: %w (install %s next to %s)", err, Program, self)
	}
	return path, nil
}

// A Child is a running, confined reader. Its methods may be called from several goroutines; items are judged one at a time.
type Child struct {
	deadline func(int64) time.Duration

	mu   sync.Mutex // one item at a time
	dead error      // why nothing more is answered
	in   *os.File
	out  *os.File
	r    *bufio.Reader
	conf confinement

	process *os.Process
	ended   chan struct{} // closed when the process was waited for; state and stderr are set then
	state   *os.ProcessState
	stderr  beginning
}

// Start starts the reader and returns when it is confined. The error is a *FeatureError where that is not possible. ctx covers the start only.
func Start(ctx context.Context, o Options) (*Child, error) {
	if !filepath.IsAbs(o.Path) {
		return nil, fmt.Errorf("the reader's path %q is not absolute", o.Path)
	}
	if _, err := os.Stat(o.Path); err != nil {
		return nil, fmt.Errorf("the confined reader: %w (install %s)", err, Program)
	}
	c := &Child{deadline: o.Deadline, ended: make(chan struct{})}
	if c.deadline == nil {
		c.deadline = func(size int64) time.Duration {
			return BaseTime + time.Duration(size/MinSpeed)*time.Second
		}
	}
	if err := c.start(o); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.process.Kill() })
	defer stop()
	err := c.handshake(o.wire)
	if err != nil {
		c.kill()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return c, nil
}

// mappings are the ways to give the child a user, best first.
func mappings() []syscall.SysProcAttr {
	uid, gid := os.Geteuid(), os.Getegid()
	self := syscall.SysProcAttr{
		UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: gid, Size: 1}},
	}
	if uid != 0 {
		return []syscall.SysProcAttr{self}
	}
	// The reader may stand where only root can reach it, so root starts it and Enter changes the user.
	both := syscall.SysProcAttr{
		UidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}, {ContainerID: nobody, HostID: nobody, Size: 1}},
		GidMappings:                []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}, {ContainerID: nobody, HostID: nobody, Size: 1}},
		GidMappingsEnableSetgroups: true,
	}
	// Inside a container whose root has no other user to give, there is only the caller itself.
	return []syscall.SysProcAttr{both, self}
}

func (c *Child) start(o Options) error {
	inR, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	defer inR.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		inW.Close()
		return err
	}
	defer outW.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		inW.Close()
		outR.Close()
		return err
	}
	defer errW.Close()
	// A larger pipe means fewer switches; a host may forbid it, which costs only time.
	if raw, err := inW.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
	}

	started := make(chan error)
	go func() {
		// The kernel sends Pdeathsig when the thread that started the child ends, so that thread must last as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		for _, sys := range mappings() {
			sys.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
			sys.Pdeathsig = syscall.SIGKILL
			c.process, err = os.StartProcess(o.Path, append([]string{Program}, o.args...), &os.ProcAttr{
				Dir: "/",
				// The runtime must not look for limits in the file system later, and two cores are enough for one parser.
				Env:   []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOMAXPROCS=2", "GOTRACEBACK=single"},
				Files: []*os.File{inR, outW, errW},
				Sys:   &sys,
			})
			if err == nil {
				break
			}
		}
		started <- err
		if err != nil {
			return
		}
		copied := make(chan struct{})
		go func() {
			io.Copy(&c.stderr, errR)
			close(copied)
		}()
		c.state, _ = c.process.Wait() // without a state, died says that it ended
		<-copied                      // nobody else can hold the other end: the whole PID namespace is gone
		errR.Close()
		close(c.ended)
	}()
	if err := <-started; err != nil {
		inW.Close()
		outR.Close()
		errR.Close()
		return startError(err)
	}
	c.in, c.out = inW, outR
	c.r = bufio.NewReaderSize(outR, MaxLine)
	return nil
}

// startError tells a host that forbids namespaces from a program that cannot be run.
func startError(err error) error {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return err
	}
	switch e {
	case syscall.EPERM, syscall.EINVAL, syscall.ENOSYS, syscall.ENOSPC, syscall.EUSERS:
		return &FeatureError{"user namespaces", err.Error(), "allow them: sysctl user.max_user_namespaces above 0, kernel.unprivileged_userns_clone=1 and " +
			"kernel.apparmor_restrict_unprivileged_userns=0 where the kernel has these; in a container let its seccomp profile pass clone with CLONE_NEWUSER; not inside a chroot"}
	}
	return fmt.Errorf("starting the confined reader: %w", err)
}

// handshake waits for the child's ready line and compares it with what the kernel says.
func (c *Child) handshake(wire bool) error {
	c.out.SetReadDeadline(time.Now().Add(StartTime))
	line, err := readLine(c.r)
	if err != nil {
		return c.died(err)
	}
	var failed failedLine
	if decode(line, &failed) == nil && failed.Type == "failed" && printable(failed.Feature+failed.Detail+failed.Remedy, MaxText) {
		return &FeatureError{failed.Feature, failed.Detail, failed.Remedy}
	}
	var ready readyLine
	if err := decode(line, &ready); err != nil || ready.Type != "ready" {
		return badAnswer("the first line is not a ready line: %v", err)
	}
	c.conf = ready.confinement
	if wire {
		return nil
	}
	if ready.Landlock < 1 || ready.Seccomp != "allowlist" || !printable(ready.User+ready.Kernel, 512) {
		return badAnswer("the reader does not say that it is confined")
	}
	return c.observe()
}

// observe reads what the kernel says about each thread of the child.
func (c *Child) observe() error {
	tasks := fmt.Sprintf("/proc/%d/task", c.process.Pid)
	dir, err := os.ReadDir(tasks)
	if err != nil {
		return &FeatureError{"proc", err.Error(), "mount /proc where the reader is started"}
	}
	for _, t := range dir {
		data, err := os.ReadFile(filepath.Join(tasks, t.Name(), "status"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // a thread that ended meanwhile
		}
		if err != nil {
			return &FeatureError{"proc", err.Error(), "mount /proc where the reader is started"}
		}
		if err := checkStatus(string(data)); err != nil {
			return &FeatureError{"reader", fmt.Sprintf("thread %s of the reader: %v", t.Name(), err), "install the reader that belongs to this program"}
		}
	}
	return nil
}

// checkStatus judges a status file of proc: no capability, no way to gain one, a filter in force, another PID namespace.
func checkStatus(status string) error {
	want := map[string]func(string) bool{
		"CapInh":     zero,
		"CapPrm":     zero,
		"CapEff":     zero,
		"CapAmb":     zero,
		"NoNewPrivs": func(v string) bool { return v == "1" },
		"Seccomp":    func(v string) bool { return v == "2" },
		"NSpid":      func(v string) bool { return len(strings.Fields(v)) >= 2 },
	}
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		if ok := want[name]; ok != nil {
			value = strings.TrimSpace(value)
			if !ok(value) {
				return fmt.Errorf("%s is %q", name, value)
			}
			delete(want, name)
		}
	}
	for name := range want {
		return fmt.Errorf("the kernel does not show %s", name)
	}
	return nil
}

func zero(v string) bool {
	n, err := strconv.ParseUint(v, 16, 64)
	return err == nil && n == 0
}

// Confinement says what is in force, in values that a statement can hold.
func (c *Child) Confinement() map[string]any { return c.conf.toMap() }

// Judge has the child read one item: exactly req.Size bytes of r, which is not used after Judge returned. A report may hold refusals and findings; it is for
// the caller to weigh them. An error means that the item was not judged, and, but for a request that is out of bounds, that the child is gone.
func (c *Child) Judge(ctx context.Context, req Request, r io.Reader) (*Report, error) {
	req.Name = Escape(req.Name, MaxName)
	if err := req.check(); err != nil {
		return nil, err
	}
	head, err := encode(req)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return nil, fmt.Errorf("the reader is gone: %w", c.dead)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	report, err := c.judge(ctx, req, head, r)
	if err != nil {
		c.kill()
		c.dead = err
		return nil, err
	}
	return report, nil
}

func (c *Child) judge(ctx context.Context, req Request, head []byte, r io.Reader) (*Report, error) {
	limit := time.Now().Add(c.deadline(req.Size))
	c.in.SetWriteDeadline(limit)
	c.out.SetReadDeadline(limit)
	stop := context.AfterFunc(ctx, func() { c.process.Kill() })

	digest := sha256.New()
	if req.Kind == KindDerivation {
		r = io.TeeReader(r, digest)
	}
	sent := make(chan error, 1)
	go func() { sent <- c.send(head, req.Size, r) }()

	a := &accumulator{kind: req.Kind, size: req.Size}
	var answer error
	for done := false; !done && answer == nil; {
		var line []byte
		if line, answer = readLine(c.r); answer == nil {
			done, answer = a.line(line)
		} else {
			answer = c.died(answer)
		}
	}
	if answer == nil && c.r.Buffered() > 0 {
		answer = badAnswer("more lines after the result")
	}
	if answer != nil {
		c.process.Kill() // else the sender may wait for a child that no longer reads
	}
	err := <-sent
	var source *sourceError
	switch {
	case !stop():
		return nil, ctx.Err() // the child was killed, whether or not it had answered
	case errors.As(err, &source):
		return nil, source.err // the child only saw the consequence
	case answer != nil:
		return nil, answer
	case err != nil:
		return nil, badAnswer("a result before the whole item was read")
	}
	if a.drv != nil {
		d, err := a.drv.end([sha256.Size]byte(digest.Sum(nil)))
		if err != nil {
			return nil, err
		}
		a.report.Derivation = d
	}
	return &a.report, nil
}

// sourceError is a failure of what is read, not of the child.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

// send writes the request and exactly size bytes of r.
func (c *Child) send(head []byte, size int64, r io.Reader) error {
	if _, err := c.in.Write(head); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for size > 0 {
		n, err := io.ReadFull(r, buf[:min(size, int64(len(buf)))])
		if err != nil {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				err = fmt.Errorf("the item ends %d bytes before its size: %w", size-int64(n), io.ErrUnexpectedEOF)
			}
			c.process.Kill()
			return &sourceError{err}
		}
		if _, err := c.in.Write(buf[:n]); err != nil {
			return err
		}
		size -= int64(n)
	}
	return nil
}

// died explains a failed read of the child's answers.
func (c *Child) died(read error) error {
	if errors.Is(read, bufio.ErrBufferFull) {
		return badAnswer("a line of more than %d bytes", MaxLine)
	}
	if errors.Is(read, os.ErrDeadlineExceeded) {
		c.kill()
		return &DeathError{Code: DeathTimeout, Detail: "no answer in time, killed", Stderr: c.stderr.text()}
	}
	// The stream ended: the child is gone, or going; one that closed its output and lives on is ended.
	ours := false
	select {
	case <-c.ended:
	case <-time.After(EndTime):
		c.kill()
		ours = true
	}
	e := &DeathError{Code: DeathCrashed, Detail: "it ended", Stderr: c.stderr.text()}
	if c.state == nil {
		return e
	}
	e.Detail = c.state.String()
	// One that ended by itself after all, on a machine that stood still, did so of its own death.
	if ws, ok := c.state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		switch {
		case ours && ws.Signal() == syscall.SIGKILL:
			e.Detail = "it stopped answering"
		case ws.Signal() == syscall.SIGSYS:
			e.Code = DeathForbidden
		case ws.Signal() == syscall.SIGKILL:
			e.Code = DeathKilled
		}
	} else if strings.Contains(e.Stderr, "out of memory") || strings.Contains(e.Stderr, "cannot allocate memory") {
		e.Code = DeathMemory // the runtime's words; at worst a taken-over child chooses under which name it failed
	}
	return e
}

// kill ends the child and waits for it.
func (c *Child) kill() {
	c.process.Kill()
	<-c.ended
	c.in.Close()
	c.out.Close()
}

// Close ends the child. A child that had judged all it was given ends by itself when its input ends.
func (c *Child) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead != nil {
		return nil
	}
	c.dead = os.ErrClosed
	c.in.Close()
	select {
	case <-c.ended:
	case <-time.After(EndTime):
	}
	c.kill()
	return nil
}

// beginning keeps the first MaxStderr bytes, where a Go program that dies says why.
type beginning struct {
	mu sync.Mutex
	b  []byte
}

func (t *beginning) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), MaxStderr-len(t.b))]...)
	return len(p), nil
}

func (t *beginning) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Escape(strings.TrimSpace(string(t.b)), 2*MaxStderr)
}
