//go:build ignore

// The builder of the vectors in this directory: a static program that does what its arguments say, one deed an argument. Words are
// separated by single spaces; $NAME is a variable of the environment. "\n" in a text is a line end.
//
//	mkdir PATH                      write PATH MODE TEXT...        append PATH TEXT...
//	chmod MODE PATH                 symlink TARGET PATH            link OLD PATH
//	mtime SECONDS PATH              fifo PATH                      socket PATH
//	remove PATH                     rename OLD PATH                xattr PATH NAME VALUE
//	copy FROM PATH                  deep PATH COUNT                fill PATH COUNT
//	environment PATH                interfaces PATH                list DIRECTORY PATH
//	print TEXT...                   dump FILE                      exit STATUS
//	dial NETWORK ADDRESS            family NUMBER                  try CALL
//	sleep MILLISECONDS              detach MILLISECONDS PATH       flood BYTES
//	chatter COUNT MILLISECONDS      orphan                         fault
//	descriptors
//
// It prints what dial, family, try and list found; a deed that fails ends it with status 1 unless it is written with "-" before it.
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "--detached" {
		detached(os.Args[2], os.Args[3])
		return
	}
	for _, deed := range os.Args[1:] {
		mayFail := strings.HasPrefix(deed, "-")
		words := strings.Split(strings.TrimPrefix(deed, "-"), " ")
		for i, w := range words {
			words[i] = os.Expand(w, os.Getenv)
		}
		if err := do(words[0], words[1:]); err != nil {
			fmt.Printf("%s: %v\n", words[0], err)
			if !mayFail {
				os.Exit(1)
			}
		}
	}
}

func text(words []string) []byte {
	return []byte(strings.ReplaceAll(strings.Join(words, " "), `\n`, "\n"))
}

func number(word string, base int) int {
	n, err := strconv.ParseInt(word, base, 64)
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	return int(n)
}

func do(verb string, w []string) error {
	switch verb {
	case "mkdir":
		return os.Mkdir(w[0], 0o755)
	case "write":
		if err := os.WriteFile(w[0], text(w[2:]), 0o600); err != nil {
			return err
		}
		return syscall.Chmod(w[0], uint32(number(w[1], 8)))
	case "append":
		f, err := os.OpenFile(w[0], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(text(w[1:]))
		return err
	case "chmod":
		return syscall.Chmod(w[1], uint32(number(w[0], 8)))
	case "symlink":
		return os.Symlink(w[0], w[1])
	case "link":
		return os.Link(w[0], w[1])
	case "mtime":
		at := time.Unix(int64(number(w[0], 10)), 0)
		return os.Chtimes(w[1], at, at)
	case "fifo":
		return syscall.Mkfifo(w[0], 0o644)
	case "socket":
		_, err := net.Listen("unix", w[0])
		return err // left listening, so that the file stays
	case "remove":
		return os.RemoveAll(w[0])
	case "rename":
		return os.Rename(w[0], w[1])
	case "xattr":
		return syscall.Setxattr(w[0], w[1], []byte(w[2]), 0)
	case "copy":
		b, err := os.ReadFile(w[0])
		if err != nil {
			return err
		}
		return os.WriteFile(w[1], b, 0o644)
	case "deep":
		return deep(w[0], number(w[1], 10))
	case "fill":
		for i := range number(w[1], 10) {
			if err := os.WriteFile(w[0]+"/"+strconv.Itoa(i), nil, 0o644); err != nil {
				return err
			}
		}
		return nil
	case "environment":
		// Not sorted: the order is part of what a builder sees.
		return os.WriteFile(w[0], []byte(strings.Join(os.Environ(), "\n")+"\n"), 0o644)
	case "interfaces":
		return interfaces(w[0])
	case "list":
		entries, err := os.ReadDir(w[0])
		if err != nil {
			return err
		}
		var b strings.Builder
		for _, e := range entries {
			fmt.Fprintf(&b, "%s\n", e.Name())
		}
		if len(w) == 1 {
			fmt.Print(b.String())
			return nil
		}
		return os.WriteFile(w[1], []byte(b.String()), 0o644)
	case "print":
		_, err := os.Stdout.Write(append(text(w), '\n'))
		return err
	case "dump":
		b, err := os.ReadFile(w[0])
		os.Stdout.Write(b)
		return err
	case "exit":
		os.Exit(number(w[0], 10))
	case "dial":
		c, err := net.DialTimeout(w[0], w[1], 30*time.Second)
		if err != nil {
			fmt.Printf("dial %s %s: no: %v\n", w[0], w[1], err)
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(30 * time.Second))
		b := make([]byte, 64)
		n, _ := c.Read(b)
		fmt.Printf("dial %s %s: yes: %q\n", w[0], w[1], b[:n])
		return nil
	case "family":
		fd, err := syscall.Socket(number(w[0], 10), syscall.SOCK_STREAM, 0)
		if err != nil {
			fmt.Printf("family %s: %v\n", w[0], err)
			return nil
		}
		syscall.Close(fd)
		fmt.Printf("family %s: yes\n", w[0])
		return nil
	case "try":
		fmt.Printf("try %s: %s\n", w[0], try(w[0]))
		return nil
	case "sleep":
		time.Sleep(time.Duration(number(w[0], 10)) * time.Millisecond)
		return nil
	case "detach":
		// A process in a session of its own, whose parent does not wait for it, that ignores every signal that can be ignored.
		c := exec.Command("/proc/self/exe", "--detached", w[0], w[1])
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		return c.Start()
	case "flood":
		b := []byte(strings.Repeat("x", 1023) + "\n")
		for n := number(w[0], 10); n > 0; n -= len(b) {
			os.Stdout.Write(b[:min(n, len(b))])
		}
		return nil
	case "chatter":
		for range number(w[0], 10) {
			fmt.Println("still here")
			time.Sleep(time.Duration(number(w[1], 10)) * time.Millisecond)
		}
		return nil
	case "orphan":
		// What a builder can do to outlive its parent's parent-death signal.
		const prSetPdeathsig = 1
		syscall.RawSyscall(syscall.SYS_PRCTL, prSetPdeathsig, 0, 0)
		signal.Ignore()
		return nil
	case "fault":
		// Nobody but the kernel can kill process 1 of a namespace from within, and the kernel does it for a fault without a handler.
		var dfl [4]uint64
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGSEGV), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
		*(*int)(nil) = 0
	case "descriptors":
		for i := range 64 {
			if target, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(i)); err == nil {
				kind, _, _ := strings.Cut(target, ":")
				fmt.Println(i, kind)
			}
		}
		return nil
	}
	return fmt.Errorf("no such deed")
}

func detached(ms, path string) {
	signal.Ignore()
	end := time.Now().Add(time.Duration(number(ms, 10)) * time.Millisecond)
	for i := 0; time.Now().Before(end); i++ {
		os.WriteFile(path, []byte(strconv.Itoa(i)), 0o644)
		time.Sleep(5 * time.Millisecond)
	}
}

// deep nests count directories in path, deeper than a path name reaches, and takes all rights off each.
func deep(path string, count int) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	back, err := os.Open(".")
	if err != nil {
		return err
	}
	defer back.Close()
	if err := os.Chdir(path); err != nil {
		return err
	}
	for range count {
		if err := os.Mkdir("d", 0o755); err != nil {
			return err
		}
		if err := syscall.Chdir("d"); err != nil {
			return err
		}
		if err := syscall.Chmod(".", 0o300); err != nil {
			return err
		}
	}
	return back.Chdir()
}

func interfaces(path string) error {
	list, err := net.Interfaces()
	if err != nil {
		return err
	}
	var lines []string
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			return err
		}
		var texts []string
		for _, a := range addrs {
			texts = append(texts, a.String())
		}
		sort.Strings(texts)
		lines = append(lines, fmt.Sprintf("%s %s %s\n", i.Name, i.Flags, strings.Join(texts, " ")))
	}
	sort.Strings(lines)
	return os.WriteFile(path, []byte(strings.Join(lines, "")), 0o644)
}

// try makes a system call that asks for more than a builder gets and says what it answered.
func try(name string) string {
	buf := [256]byte{'/'}
	p := uintptr(unsafe.Pointer(&buf[0]))
	call := func(n int, args ...uintptr) string {
		var a [6]uintptr
		copy(a[:], args)
		r, _, errno := syscall.Syscall6(uintptr(n), a[0], a[1], a[2], a[3], a[4], a[5])
		if errno != 0 {
			return errno.Error()
		}
		return fmt.Sprintf("returned %d", int(r))
	}
	const newUser, newNS, clone3, ioUringSetup = 0x10000000, 0x00020000, 435, 425
	setns, bpf, userfaultfd := 308, 321, 323
	switch runtime.GOARCH {
	case "386":
		setns, bpf, userfaultfd = 346, 357, 374
	case "arm64":
		setns, bpf, userfaultfd = 268, 280, 282
	}
	switch name {
	case "unshare-user":
		return call(syscall.SYS_UNSHARE, newUser)
	case "unshare-mount":
		return call(syscall.SYS_UNSHARE, newNS)
	case "clone3":
		return call(clone3, p, 88)
	case "setns":
		return call(setns, 0, 0)
	case "mount":
		return call(syscall.SYS_MOUNT, p, p, p, 0, 0)
	case "umount":
		return call(syscall.SYS_UMOUNT2, p, 0)
	case "keyctl": // KEYCTL_GET_KEYRING_ID of the session's keyring
		return call(syscall.SYS_KEYCTL, 0, ^uintptr(2), 0)
	case "bpf":
		return call(bpf, 0, p, 64)
	case "perf":
		return call(syscall.SYS_PERF_EVENT_OPEN, p, 0, ^uintptr(0), ^uintptr(0), 0)
	case "userfaultfd":
		return call(userfaultfd, 0)
	case "io_uring":
		return call(ioUringSetup, 1, p)
	case "kexec":
		return call(syscall.SYS_KEXEC_LOAD, 0, 0, p, 0)
	case "syslog": // the size of the kernel's log
		return call(syscall.SYS_SYSLOG, 10, 0, 0)
	case "core": // no limit to core dumps
		limit := syscall.Rlimit{Cur: ^uint64(0), Max: ^uint64(0)}
		var now syscall.Rlimit
		err := syscall.Setrlimit(syscall.RLIMIT_CORE, &limit)
		syscall.Getrlimit(syscall.RLIMIT_CORE, &now)
		return fmt.Sprintf("%v, limit %d %d", err, now.Cur, now.Max)
	case "chroot":
		return call(syscall.SYS_CHROOT, p)
	case "mknod":
		return fmt.Sprint(syscall.Mknod("node", syscall.S_IFCHR|0o666, 1<<8|3))
	case "setuid":
		return call(syscall.SYS_SETUID, 0)
	case "kill-supervisor": // every process that can be signalled, from this one's point of view
		err := syscall.Kill(-1, 0)
		return fmt.Sprint(err)
	case "ptrace": // of a child of its own
		c := exec.Command("/proc/self/exe", "exit 0")
		c.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		if err := c.Start(); err != nil {
			return err.Error()
		}
		c.Process.Kill()
		c.Wait()
		return "traced"
	}
	return "no such call"
}
