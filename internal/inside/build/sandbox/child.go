package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The hidden first arguments.
const (
	argSupervisor = "--sandbox-supervisor"
	argBuilder    = "--sandbox-builder"
)

// setupCaps are what an ordinary user's set-up needs within the user namespace: to mount and to make namespaces, to bring lo up, and to
// empty the bounding set.
var setupCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN, unix.CAP_SETPCAP}

const childFailed = 125 // exit code of a process of ours whose set-up failed

// MaybeChild turns the process into what Run started it to be, and returns at once in every other process. A main function calls it first.
func MaybeChild() {
	if len(os.Args) != 2 {
		return
	}
	switch os.Args[1] {
	case argSupervisor:
		supervise()
	case argBuilder:
		enter()
	}
}

// supervise starts the builder and waits for it. It must not end while anything of the build runs, and everything ends when it does.
func supervise() {
	// Started in any other way than by Run, there is no socket; do nothing.
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this process is started by a build, not by hand")
		os.Exit(childFailed)
	}
	runtime.LockOSThread()
	unix.CloseOnExec(fdSpec)
	unix.CloseOnExec(fdControl)
	go func() {
		// Nothing is ever sent to us: this returns when the caller is gone.
		b := make([]byte, 1)
		for {
			n, err := unix.Read(fdControl, b)
			if n <= 0 && err != unix.EINTR {
				os.Exit(childFailed)
			}
		}
	}()

	// Both must stay open (and unclosed by the collector) until the end.
	spec, control := os.NewFile(fdSpec, "spec"), os.NewFile(fdControl, "control")
	attr := &os.ProcAttr{
		Dir:   "/",
		Env:   []string{},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, spec, control},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		},
	}
	if os.Geteuid() != 0 {
		attr.Sys.AmbientCaps = setupCaps
	}
	process, err := os.StartProcess(selfExecutable, []string{"sallyport-sandbox", argBuilder}, attr)
	if err != nil {
		fail("making the namespaces", err)
	}
	state, err := process.Wait()
	if err != nil {
		fail("waiting for the builder", err)
	}
	err = send(message{Type: msgExit, Status: uint32(state.Sys().(syscall.WaitStatus))})
	runtime.KeepAlive(spec)
	runtime.KeepAlive(control)
	if err != nil {
		os.Exit(childFailed)
	}
	os.Exit(0)
}

// fail reports a step that failed and ends the process.
func fail(step string, err error) {
	m := message{Type: msgFail, Step: step, Error: err.Error()}
	errors.As(err, &m.Errno)
	send(m)
	os.Exit(childFailed)
}

// enter makes the sandbox around this process and executes the builder. Everything that needs a privilege comes first; the last privilege goes
// before the builder's file is opened for execution.
func enter() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "this process is started by a build, not by hand")
		os.Exit(childFailed)
	}
	// Credentials, personality and seccomp belong to the thread that will execute.
	runtime.LockOSThread()
	unix.CloseOnExec(fdSpec)
	unix.CloseOnExec(fdControl)
	spec, err := readSpec()
	if err != nil {
		fail("reading the description", err)
	}
	must := func(step string, err error) {
		if err != nil {
			fail(step, err)
		}
	}
	must("setting the host name", unix.Sethostname([]byte("localhost")))
	must("setting the domain name", unix.Setdomainname([]byte("(none)")))
	if spec.Loopback {
		must("bringing lo up", loopback())
	}
	mountAll(spec, must)
	must("entering the build directory", unix.Chdir(spec.Dir))
	unix.Umask(0o022)
	program, err := resolve(spec.Program, spec.Store)
	if err != nil {
		send(message{Type: msgExec, Error: err.Error()})
		os.Exit(childFailed)
	}
	must("setting oom_score_adj", os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0))
	must("limiting core dumps", limitCore())
	must("setting the personality", personality(spec.Personality))
	must("closing descriptors", unix.CloseRange(3, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC))
	must("dropping privileges", dropPrivileges(spec))
	must("resetting signals", resetSignals())
	must("installing the system call filter", installFilter(leave{userNamespaces: spec.UserNamespaces, socketcall: spec.Personality&perLinux32 != 0}))
	err = syscall.Exec(program, spec.Args, spec.Env)
	send(message{Type: msgExec, Error: fmt.Sprintf("executing %s: %v", spec.Program, err)})
	os.Exit(childFailed)
}

// limitCore sets the limit of core dumps to one byte (see the package comment); to 0 where the limit is lower already and may not be raised.
func limitCore() error {
	err := unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1}, nil)
	if err == unix.EPERM {
		err = unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil)
	}
	return err
}

// mountAll makes the new root and leaves the old one for good.
func mountAll(spec *Spec, must func(string, error)) {
	must("making mounts private", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	bind := func(source, target string, attr uint64) {
		must("mounting "+source, unix.Mount(source, target, "", unix.MS_BIND, ""))
		// Attributes are added, so those that the host's mount has and that we may not clear stay.
		must("restricting the mount of "+source, unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_SYMLINK_NOFOLLOW, &unix.MountAttr{Attr_set: attr}))
	}
	const plain = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	bind(spec.Root, spec.Root, plain)
	for _, m := range spec.Mounts {
		attr := uint64(plain)
		if m.Device {
			attr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
		}
		if m.ReadOnly {
			attr |= unix.MOUNT_ATTR_RDONLY
		}
		bind(m.Source, filepath.Join(spec.Root, m.Target), attr)
	}
	// In a user namespace, proc can only be mounted while another is in sight.
	must("mounting /proc", unix.Mount("none", filepath.Join(spec.Root, "proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	shm := filepath.Join(spec.Root, "dev/shm")
	must("mounting /dev/shm", unix.Mount("none", shm, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"))
	if spec.Terminals {
		must("mounting /dev/pts", unix.Mount("none", filepath.Join(spec.Root, "dev/pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,mode=0620,ptmxmode=0666"))
	}
	fd, err := unix.Open(shm, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must("opening /dev/shm", err)
	must("handing over /dev/shm", send(message{Type: msgShm}, fd))
	unix.Close(fd)

	must("entering the new root", unix.Chdir(spec.Root))
	// The old root is put on top of the new one and taken off again: no directory is needed to hold it.
	must("moving the root", unix.PivotRoot(".", "."))
	must("leaving the old root", unix.Unmount(".", unix.MNT_DETACH))
	must("entering /", unix.Chdir("/"))
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// resolve gives the file that the builder is, all symbolic links followed, and demands that it lies in the store. Otherwise a builder could name
// /proc/self/exe, which is the program that runs here, on the host.
func resolve(program, store string) (string, error) {
	resolved, err := filepath.EvalSymlinks(program)
	if err != nil {
		return "", fmt.Errorf("the builder: %w", err)
	}
	if !filepath.IsAbs(resolved) || !strings.HasPrefix(resolved, store+"/") {
		return "", fmt.Errorf("the builder %q resolves to %q, outside the store", program, resolved)
	}
	return resolved, nil
}

// perLinux32 is the part of a personality that makes a 64-bit kernel look like a 32-bit one; what is built under it is for 32-bit machines.
const perLinux32 = 0x0008

func personality(p uint32) error {
	_, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(p), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// dropPrivileges leaves the thread with no capability in any set and, as root, with the builder's ids. It asks the kernel for the result.
func dropPrivileges(spec *Spec) error {
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err == unix.EINVAL && c > 0 {
			break // past the last one this kernel has
		} else if err != nil {
			return fmt.Errorf("bounding set: %w", err)
		}
	}
	if os.Geteuid() == 0 {
		if spec.UID <= 0 || spec.GID <= 0 {
			return fmt.Errorf("builder ids %d and %d", spec.UID, spec.GID)
		}
		// The one group that is left gives nothing that the primary one does not; id(1) lists it in every sandbox of Guix.
		if err := unix.Setgroups([]int{spec.GID}); err != nil {
			return fmt.Errorf("setgroups: %w", err)
		}
		if err := unix.Setresgid(spec.GID, spec.GID, spec.GID); err != nil {
			return fmt.Errorf("setresgid: %w", err)
		}
		if err := unix.Setresuid(spec.UID, spec.UID, spec.UID); err != nil {
			return fmt.Errorf("setresuid: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	if data != [2]unix.CapUserData{} {
		return errors.New("capabilities are left")
	}
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	for _, id := range []int{ruid, euid, suid} {
		if id != spec.UID {
			return fmt.Errorf("user ids are %d %d %d", ruid, euid, suid)
		}
	}
	for _, id := range []int{rgid, egid, sgid} {
		if id != spec.GID {
			return fmt.Errorf("group ids are %d %d %d", rgid, egid, sgid)
		}
	}
	return nil
}

// resetSignals gives the signals that somebody before us ignored (nohup does) their default back, and blocks none: both survive execve.
func resetSignals() error {
	// struct sigaction of the kernel: handler, flags, restorer, mask. Handlers of ours are reset by execve itself.
	type sigaction struct{ handler, flags, restorer, mask uint64 }
	const ignore, signals, setSize = 1, 64, 8
	for s := uintptr(1); s <= signals; s++ {
		if s == uintptr(unix.SIGKILL) || s == uintptr(unix.SIGSTOP) {
			continue
		}
		var old, dfl sigaction
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, 0, uintptr(unsafe.Pointer(&old)), setSize, 0, 0); errno != 0 {
			return errno
		}
		if old.handler != ignore {
			continue
		}
		if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, s, uintptr(unsafe.Pointer(&dfl)), 0, setSize, 0, 0); errno != 0 {
			return errno
		}
	}
	var none uint64
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, setSize, 0, 0); errno != 0 {
		return errno
	}
	return nil
}
