package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// selfExecutable is the running program even when its file was replaced or removed, and in any PID namespace below ours.
const selfExecutable = "/proc/self/exe"

// Run runs the program of spec in a sandbox and returns when nothing of it runs any more. Its error is about the sandbox, the log or
// ctx, never about what the program did: that is in Exit. With an error whose sandbox had begun, Exit still carries Shm.
func Run(ctx context.Context, spec *Spec, opts Options) (*Exit, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	description, err := specFile(spec)
	if err != nil {
		return nil, err
	}
	defer description.Close()
	control, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer control.Close()
	logR, logW, err := os.Pipe()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	defer logR.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		theirs.Close()
		logW.Close()
		return nil, err
	}

	executable := opts.Executable
	if executable == "" {
		executable = selfExecutable
	}
	cmd := &exec.Cmd{
		Path:       executable,
		Args:       []string{"sallyport-sandbox", argSupervisor},
		Env:        []string{},
		Dir:        "/",
		Stdin:      null,
		Stdout:     logW,
		Stderr:     logW,
		ExtraFiles: []*os.File{description, theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Pdeathsig:  syscall.SIGKILL,
			Cloneflags: syscall.CLONE_NEWPID,
		},
	}
	step := "making a PID namespace"
	hint := "namespaces need the privilege of root, or user namespaces"
	if os.Geteuid() != 0 {
		step = "making a user namespace"
		hint = "let ordinary users make user namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns), or build as root; they cannot be made inside a chroot"
		a := cmd.SysProcAttr
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: spec.UID, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: spec.GID, HostID: os.Getegid(), Size: 1}}
		a.AmbientCaps = setupCaps
	}

	// The parent-death signal comes when the thread ends that made the child, so that thread is kept until the child has ended.
	started := make(chan error, 1)
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		theirs.Close()
		logW.Close()
		null.Close()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, &SetupError{Step: step, Err: err, Hint: hint}
	}

	log := &logReader{r: logR, w: opts.Log, limit: opts.Limits.Log, heard: make(chan struct{}, 1), over: make(chan struct{}), failed: make(chan struct{})}
	logDone := make(chan struct{})
	go func() { defer close(logDone); log.run() }()

	var reports reports
	reported := make(chan struct{})
	go func() { defer close(reported); reports.collect(int(control.Fd())) }()

	exit := &Exit{Cause: Exited}
	var stopped error // why we killed it, where that is no Cause
	timeout, stopTimeout := timer(opts.Limits.Time)
	defer stopTimeout()
	var silence *time.Timer
	var silent <-chan time.Time
	if opts.Limits.Silence > 0 {
		silence = time.NewTimer(opts.Limits.Silence)
		defer silence.Stop()
		silent = silence.C
	}
	done, over, failed := ctx.Done(), log.over, log.failed
	var waitErr error
	killed := false
	end := func(c Cause, err error) { // the first reason counts
		if !killed {
			killed, exit.Cause, stopped = true, c, err
			cmd.Process.Kill()
		}
	}
	for running := true; running; {
		select {
		case waitErr = <-ended:
			running = false
		case <-log.heard:
			if silence != nil {
				silence.Reset(opts.Limits.Silence)
			}
			continue
		case <-done:
			done = nil
			end(Exited, ctx.Err())
		case <-timeout:
			end(TimedOut, nil)
		case <-silent:
			end(Silent, nil)
		case <-over:
			over = nil
			end(LogTooLong, nil)
		case <-failed:
			failed = nil
			end(Exited, log.err)
		}
	}
	// The supervisor was process 1: it is reaped only when all others are gone. So both of these end.
	<-logDone
	<-reported
	exit.LogBytes, exit.Shm = log.n, reports.shm

	switch {
	case stopped != nil:
		return exit, stopped
	case log.err != nil:
		return exit, log.err
	case exit.Cause != Exited:
		return exit, nil
	case log.exceeded:
		exit.Cause = LogTooLong // it had ended before we came to kill it
		return exit, nil
	case reports.err != nil:
		return exit, reports.err
	case reports.fail != nil:
		m := reports.fail
		if m.Type == msgExec {
			exit.Cause, exit.Detail = NotExecuted, m.Error
			return exit, nil
		}
		var cause error = errors.New(m.Error)
		if m.Errno != 0 {
			cause = fmt.Errorf("%w (%s)", m.Errno, m.Error)
		}
		return exit, &SetupError{Step: m.Step, Err: cause}
	case !reports.exited:
		return exit, fmt.Errorf("sandbox: the supervisor ended without a report (%v)", waitErr)
	}
	exit.Status = reports.status
	return exit, nil
}

func timer(d time.Duration) (<-chan time.Time, func()) {
	if d <= 0 {
		return nil, func() {}
	}
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

// specFile puts spec into a file that exists nowhere, which the child's two processes read one after the other.
func specFile(spec *Spec) (*os.File, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	if len(b) > maxSpec {
		return nil, fmt.Errorf("sandbox: a description of %d bytes; at most %d", len(b), maxSpec)
	}
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "sandbox")
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func controlPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// reports is what arrived on the control socket.
type reports struct {
	shm    *os.File
	fail   *message // the first
	exited bool
	status syscall.WaitStatus
	err    error
}

func (r *reports) collect(fd int) {
	for {
		m, file, ok, err := receive(fd)
		if file != nil {
			if r.shm == nil && m.Type == msgShm {
				r.shm = file
			} else {
				file.Close()
			}
		}
		if err != nil && r.err == nil {
			r.err = fmt.Errorf("sandbox: control socket: %w", err)
		}
		if !ok {
			return
		}
		switch m.Type {
		case msgShm:
		case msgFail, msgExec:
			if r.fail == nil {
				r.fail = &m
			}
		case msgExit:
			r.exited, r.status = true, syscall.WaitStatus(m.Status)
		default:
			if r.err == nil {
				r.err = fmt.Errorf("sandbox: control socket: a message of type %q", m.Type)
			}
		}
	}
}

// logReader passes the log on, up to its limit, and reads on to the end whatever happens so that the pipe is empty when the builder is gone.
type logReader struct {
	r     io.Reader
	w     io.Writer // may be nil
	limit int64

	heard  chan struct{} // something was said
	over   chan struct{} // closed at the limit
	failed chan struct{} // closed when w fails

	n        int64
	exceeded bool
	err      error
}

func (l *logReader) run() {
	buf := make([]byte, 32<<10)
	for {
		n, err := l.r.Read(buf)
		if n > 0 {
			select {
			case l.heard <- struct{}{}:
			default:
			}
			l.pass(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (l *logReader) pass(b []byte) {
	if l.exceeded || l.err != nil {
		return
	}
	cut := l.limit > 0 && l.n+int64(len(b)) > l.limit
	if cut {
		b = b[:l.limit-l.n]
	}
	if l.w != nil {
		if _, err := l.w.Write(b); err != nil {
			l.err = fmt.Errorf("writing the log: %w", err)
			close(l.failed)
			return
		}
	}
	l.n += int64(len(b))
	if cut {
		l.exceeded = true
		close(l.over)
	}
}
