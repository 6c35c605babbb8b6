package sandbox

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// syscallData is what a filter sees of a call.
type syscallData struct {
	number uint32
	arch   uint32
	args   [6]uint64
}

func (d *syscallData) word(off uint32) uint32 {
	switch {
	case off == offNumber:
		return d.number
	case off == offArch:
		return d.arch
	case off >= offArgs && off < offArgs+48 && off%8 == 0:
		return uint32(d.args[(off-offArgs)/8])
	case off >= offArgs && off < offArgs+48 && off%8 == 4:
		return uint32(d.args[(off-offArgs)/8] >> 32)
	}
	panic("load of no word")
}

// answer runs a filter as the kernel does.
func answer(t *testing.T, prog []unix.SockFilter, d *syscallData) uint32 {
	t.Helper()
	var acc uint32
	for pc := 0; ; pc++ {
		if pc >= len(prog) {
			t.Fatal("the filter runs off its end")
		}
		i := prog[pc]
		test := func(ok bool) {
			if ok {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = d.word(i.K)
		case unix.BPF_RET | unix.BPF_K:
			return i.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(i.K)
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			test(acc == i.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			test(acc >= i.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			test(acc&i.K != 0)
		default:
			t.Fatalf("instruction %#x", i.Code)
		}
	}
}

func errnoAnswer(e unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(e) }

func TestFilter(t *testing.T) {
	const allowed = unix.SECCOMP_RET_ALLOW
	for _, goarch := range []string{"amd64", "arm64"} {
		machine := machineABIs(goarch)
		strict, lax := filter(machine, leave{}), filter(machine, leave{userNamespaces: true, socketcall: true})
		if len(strict) > 4096 {
			t.Fatalf("%s: %d instructions; the kernel takes 4096", goarch, len(strict))
		}
		for _, a := range machine {
			check := func(name string, prog []unix.SockFilter, want uint32, number int, args ...uint64) {
				t.Helper()
				if number == none {
					return
				}
				d := &syscallData{number: uint32(number), arch: auditArch[a]}
				copy(d.args[:], args)
				if got := answer(t, prog, d); got != want {
					t.Errorf("%s, abi %d: %s %#x: answer %#x, want %#x", goarch, a, name, args, got, want)
				}
			}
			special := make(map[int]bool)
			for _, c := range denied {
				check(c.name, strict, errnoAnswer(c.errno), c.number[a])
				check(c.name, lax, errnoAnswer(c.errno), c.number[a])
				special[c.number[a]] = true
			}
			for _, c := range deniedNamespaces {
				check(c.name, strict, errnoAnswer(c.errno), c.number[a])
				check(c.name, lax, allowed, c.number[a])
				special[c.number[a]] = true
			}
			for _, n := range []int{numClone3[a], numSocket[a], numSockets[a], numSetrlimit[a]} {
				special[n] = true // not allowed with all arguments 0
			}
			for n := range 600 {
				if !special[n] {
					check("any other call", strict, allowed, n)
				}
			}
			for _, n := range []int{numClone[a], numUnshare[a]} {
				check("of a user namespace", strict, errnoAnswer(unix.EPERM), n, unix.CLONE_NEWUSER|unix.CLONE_NEWNS)
				check("of a user namespace", lax, allowed, n, unix.CLONE_NEWUSER)
				check("of a thread", strict, allowed, n, unix.CLONE_VM|unix.CLONE_THREAD)
			}
			check("clone3", strict, errnoAnswer(unix.ENOSYS), numClone3[a])
			check("clone3", lax, allowed, numClone3[a])
			check("open_tree", strict, errnoAnswer(unix.EPERM), numOpenTree[a], 0, 0, unix.OPEN_TREE_CLONE|unix.AT_RECURSIVE)
			check("open_tree", strict, allowed, numOpenTree[a], 0, 0, unix.OPEN_TREE_CLOEXEC)
			allowedFamily := map[uint64]bool{0: true, unix.AF_UNIX: true, unix.AF_INET: true, unix.AF_INET6: true, unix.AF_NETLINK: true, unix.AF_PACKET: true}
			for f := range uint64(64) {
				want := errnoAnswer(unix.EAFNOSUPPORT)
				if allowedFamily[f] {
					want = allowed
				}
				check("socket", strict, want, numSocket[a], f)
			}
			check("socketcall", strict, errnoAnswer(unix.ENOSYS), numSockets[a], 1)
			check("socketcall", lax, allowed, numSockets[a], 1)
			check("setrlimit core", strict, errnoAnswer(0), numSetrlimit[a], unix.RLIMIT_CORE, 1)
			check("setrlimit nofile", strict, allowed, numSetrlimit[a], unix.RLIMIT_NOFILE, 1)
			check("prlimit core, setting", strict, errnoAnswer(0), numPrlimit[a], 0, unix.RLIMIT_CORE, 0x7f0000000010)
			check("prlimit core, setting", strict, errnoAnswer(0), numPrlimit[a], 0, unix.RLIMIT_CORE, 0x100000000)
			check("prlimit core, asking", strict, allowed, numPrlimit[a], 0, unix.RLIMIT_CORE, 0, 0x7f0000000010)
			check("prlimit nofile", strict, allowed, numPrlimit[a], 0, unix.RLIMIT_NOFILE, 0x7f0000000010)
			if a == abiAMD64 {
				check("x32", strict, errnoAnswer(unix.ENOSYS), x32Bit|1)
			}
		}
		foreign := &syscallData{number: 1, arch: unix.AUDIT_ARCH_S390X}
		if got := answer(t, strict, foreign); got != errnoAnswer(unix.ENOSYS) {
			t.Errorf("%s: a foreign call is answered %#x", goarch, got)
		}
	}
	if machineABIs("mips") != nil {
		t.Error("a table for mips")
	}
}

// TestNumbers compares the machine's own column of the table with the numbers it was compiled with.
func TestNumbers(t *testing.T) {
	machine := machineABIs(runtime.GOARCH)
	if machine == nil {
		t.Skipf("SKIPPED: no table for %s", runtime.GOARCH)
	}
	a := machine[0]
	numbers := map[string]int{
		"add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "keyctl": unix.SYS_KEYCTL, "bpf": unix.SYS_BPF,
		"perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD, "io_uring_setup": unix.SYS_IO_URING_SETUP,
		"io_uring_enter": unix.SYS_IO_URING_ENTER, "io_uring_register": unix.SYS_IO_URING_REGISTER, "kexec_load": unix.SYS_KEXEC_LOAD,
		"kexec_file_load": unix.SYS_KEXEC_FILE_LOAD, "init_module": unix.SYS_INIT_MODULE, "finit_module": unix.SYS_FINIT_MODULE,
		"delete_module": unix.SYS_DELETE_MODULE, "mount": unix.SYS_MOUNT, "umount2": unix.SYS_UMOUNT2, "pivot_root": unix.SYS_PIVOT_ROOT,
		"move_mount": unix.SYS_MOVE_MOUNT, "fsopen": unix.SYS_FSOPEN, "fsconfig": unix.SYS_FSCONFIG, "fsmount": unix.SYS_FSMOUNT,
		"fspick": unix.SYS_FSPICK, "mount_setattr": unix.SYS_MOUNT_SETATTR, "open_tree_attr": unix.SYS_OPEN_TREE_ATTR,
		"swapon": unix.SYS_SWAPON, "swapoff": unix.SYS_SWAPOFF, "reboot": unix.SYS_REBOOT, "acct": unix.SYS_ACCT, "quotactl": unix.SYS_QUOTACTL,
		"quotactl_fd": unix.SYS_QUOTACTL_FD, "syslog": unix.SYS_SYSLOG, "settimeofday": unix.SYS_SETTIMEOFDAY,
		"clock_settime": unix.SYS_CLOCK_SETTIME, "vhangup": unix.SYS_VHANGUP, "open_by_handle_at": unix.SYS_OPEN_BY_HANDLE_AT, "setns": unix.SYS_SETNS,
	}
	notEverywhere := map[string]bool{"umount": true, "stime": true, "clock_settime64": true, "iopl": true, "ioperm": true}
	for _, calls := range [][]call{denied, deniedNamespaces} {
		for _, c := range calls {
			want, ok := numbers[c.name]
			if !ok && !notEverywhere[c.name] {
				t.Errorf("%s is not compared", c.name)
			}
			if ok && c.number[a] != want {
				t.Errorf("%s: %d, want %d", c.name, c.number[a], want)
			}
		}
	}
	for got, want := range map[int]int{
		numClone[a]: unix.SYS_CLONE, numClone3[a]: unix.SYS_CLONE3, numUnshare[a]: unix.SYS_UNSHARE, numOpenTree[a]: unix.SYS_OPEN_TREE,
		numSocket[a]: unix.SYS_SOCKET, numSetrlimit[a]: unix.SYS_SETRLIMIT, numPrlimit[a]: unix.SYS_PRLIMIT64,
	} {
		if got != want {
			t.Errorf("call %d, want %d", got, want)
		}
	}
}
