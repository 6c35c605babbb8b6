package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is built for the machine's own system calls and those of its 32-bit form; a builder may run either.

type abi int

const (
	abiAMD64 abi = iota
	abi386
	abiARM64
	abiARM
	abis
)

var auditArch = [abis]uint32{unix.AUDIT_ARCH_X86_64, unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_AARCH64, unix.AUDIT_ARCH_ARM}

// machineABIs are the forms of system calls that a machine takes.
func machineABIs(goarch string) []abi {
	switch goarch {
	case "amd64":
		return []abi{abiAMD64, abi386}
	case "arm64":
		return []abi{abiARM64, abiARM}
	}
	return nil
}

func supported() error {
	if machineABIs(runtime.GOARCH) == nil {
		return fmt.Errorf("%w: no table of the system calls of %s", ErrUnsupported, runtime.GOARCH)
	}
	return nil
}

const none = -1 // the architecture has no such call

// A call is denied with an error whatever its arguments.
type call struct {
	name   string
	errno  unix.Errno
	number [abis]int // amd64, 386, arm64, arm
}

var denied = []call{
	{"add_key", unix.ENOSYS, [abis]int{248, 286, 217, 309}},
	{"request_key", unix.ENOSYS, [abis]int{249, 287, 218, 310}},
	{"keyctl", unix.ENOSYS, [abis]int{250, 288, 219, 311}},

	{"bpf", unix.EPERM, [abis]int{321, 357, 280, 386}},
	{"perf_event_open", unix.EPERM, [abis]int{298, 336, 241, 364}},
	{"userfaultfd", unix.EPERM, [abis]int{323, 374, 282, 388}},
	{"io_uring_setup", unix.EPERM, [abis]int{425, 425, 425, 425}},
	{"io_uring_enter", unix.EPERM, [abis]int{426, 426, 426, 426}},
	{"io_uring_register", unix.EPERM, [abis]int{427, 427, 427, 427}},

	{"kexec_load", unix.EPERM, [abis]int{246, 283, 104, 347}},
	{"kexec_file_load", unix.EPERM, [abis]int{320, none, 294, 401}},
	{"init_module", unix.EPERM, [abis]int{175, 128, 105, 128}},
	{"finit_module", unix.EPERM, [abis]int{313, 350, 273, 379}},
	{"delete_module", unix.EPERM, [abis]int{176, 129, 106, 129}},

	{"swapon", unix.EPERM, [abis]int{167, 87, 224, 87}},
	{"swapoff", unix.EPERM, [abis]int{168, 115, 225, 115}},
	{"reboot", unix.EPERM, [abis]int{169, 88, 142, 88}},
	{"acct", unix.EPERM, [abis]int{163, 51, 89, 51}},
	{"quotactl", unix.EPERM, [abis]int{179, 131, 60, 131}},
	{"quotactl_fd", unix.EPERM, [abis]int{443, 443, 443, 443}},
	{"syslog", unix.EPERM, [abis]int{103, 103, 116, 103}},
	{"settimeofday", unix.EPERM, [abis]int{164, 79, 170, 79}},
	{"stime", unix.EPERM, [abis]int{none, 25, none, none}},
	{"clock_settime", unix.EPERM, [abis]int{227, 264, 112, 262}},
	{"clock_settime64", unix.EPERM, [abis]int{none, 404, none, 404}},
	{"iopl", unix.EPERM, [abis]int{172, 110, none, none}},
	{"ioperm", unix.EPERM, [abis]int{173, 101, none, none}},
	{"vhangup", unix.EPERM, [abis]int{153, 111, 58, 111}},
	{"open_by_handle_at", unix.EPERM, [abis]int{304, 342, 265, 371}},
}

// deniedNamespaces are denied too unless user namespaces are allowed: only in one of its own could a builder use them.
var deniedNamespaces = []call{
	{"mount", unix.EPERM, [abis]int{165, 21, 40, 21}},
	{"umount", unix.EPERM, [abis]int{none, 22, none, none}},
	{"umount2", unix.EPERM, [abis]int{166, 52, 39, 52}},
	{"pivot_root", unix.EPERM, [abis]int{155, 217, 41, 218}},
	{"move_mount", unix.EPERM, [abis]int{429, 429, 429, 429}},
	{"fsopen", unix.EPERM, [abis]int{430, 430, 430, 430}},
	{"fsconfig", unix.EPERM, [abis]int{431, 431, 431, 431}},
	{"fsmount", unix.EPERM, [abis]int{432, 432, 432, 432}},
	{"fspick", unix.EPERM, [abis]int{433, 433, 433, 433}},
	{"mount_setattr", unix.EPERM, [abis]int{442, 442, 442, 442}},
	{"open_tree_attr", unix.EPERM, [abis]int{467, 467, 467, 467}},
	{"setns", unix.EPERM, [abis]int{308, 346, 268, 375}},
}

// Calls whose arguments decide.
var (
	numClone     = [abis]int{56, 120, 220, 120}
	numClone3    = [abis]int{435, 435, 435, 435}
	numUnshare   = [abis]int{272, 310, 97, 337}
	numOpenTree  = [abis]int{428, 428, 428, 428}
	numSocket    = [abis]int{41, 359, 198, 281}
	numSockets   = [abis]int{none, 102, none, none} // socketcall
	numSetrlimit = [abis]int{160, 75, 164, 75}
	numPrlimit   = [abis]int{302, 340, 261, 369}
)

// socketFamilies are those that a network namespace confines, or that need a capability.
var socketFamilies = []uint32{unix.AF_UNSPEC, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET}

const x32Bit = 0x40000000

// Offsets in struct seccomp_data; the low half of an argument, on machines with the low byte first.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

func argLow(i uint32) uint32  { return offArgs + 8*i }
func argHigh(i uint32) uint32 { return offArgs + 8*i + 4 }

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }
func load(off uint32) unix.SockFilter {
	return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, off)
}
func ret(errno unix.Errno) unix.SockFilter {
	return stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ERRNO|uint32(errno))
}
func allow() unix.SockFilter { return stmt(unix.BPF_RET|unix.BPF_K, unix.SECCOMP_RET_ALLOW) }

// jump goes t or f instructions ahead.
func jump(op uint16, k uint32, t, f uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: t, Jf: f, K: k}
}

// leave is what a filter leaves open.
type leave struct {
	userNamespaces bool
	socketcall     bool // to 32-bit programs, whose libraries may know no other way to a socket
}

// filter is the program for a machine.
func filter(machine []abi, leave leave) []unix.SockFilter {
	prog := []unix.SockFilter{load(offArch)}
	for _, a := range machine {
		body := filterABI(a, leave)
		// Bodies are longer than a conditional jump reaches.
		prog = append(prog,
			jump(unix.BPF_JEQ, auditArch[a], 1, 0),
			stmt(unix.BPF_JMP|unix.BPF_JA, uint32(len(body))))
		prog = append(prog, body...)
	}
	return append(prog, ret(unix.ENOSYS)) // a form of call the machine does not have
}

// filterABI is entered with the architecture in the accumulator and always returns.
func filterABI(a abi, leave leave) []unix.SockFilter {
	prog := []unix.SockFilter{load(offNumber)}
	if a == abiAMD64 {
		prog = append(prog, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(unix.ENOSYS))
	}
	// when adds a part that is run for one call only; it may end in a return or fall through to allow.
	when := func(number [abis]int, body ...unix.SockFilter) {
		if number[a] == none {
			return
		}
		body = append(body, allow())
		prog = append(prog, jump(unix.BPF_JEQ, uint32(number[a]), 0, uint8(len(body))))
		prog = append(prog, body...)
	}
	deny := func(calls []call) {
		for _, c := range calls {
			if c.number[a] != none {
				prog = append(prog, jump(unix.BPF_JEQ, uint32(c.number[a]), 0, 1), ret(c.errno))
			}
		}
	}
	deny(denied)
	if !leave.userNamespaces {
		deny(deniedNamespaces)
		user := []unix.SockFilter{load(argLow(0)), jump(unix.BPF_JSET, unix.CLONE_NEWUSER, 0, 1), ret(unix.EPERM)}
		when(numClone, user...)
		when(numUnshare, user...)
		when(numClone3, ret(unix.ENOSYS))
		when(numOpenTree, load(argLow(2)), jump(unix.BPF_JSET, unix.OPEN_TREE_CLONE, 0, 1), ret(unix.EPERM))
	}
	socket := []unix.SockFilter{load(argLow(0))}
	for i, f := range socketFamilies {
		socket = append(socket, jump(unix.BPF_JEQ, f, uint8(len(socketFamilies)-i), 0))
	}
	when(numSocket, append(socket, ret(unix.EAFNOSUPPORT))...)
	if !leave.socketcall {
		when(numSockets, ret(unix.ENOSYS))
	}
	// Errno 0 is success without the deed.
	when(numSetrlimit, load(argLow(0)), jump(unix.BPF_JEQ, unix.RLIMIT_CORE, 0, 1), ret(0))
	when(numPrlimit,
		load(argLow(1)), jump(unix.BPF_JEQ, unix.RLIMIT_CORE, 0, 5),
		load(argLow(2)), jump(unix.BPF_JEQ, 0, 0, 2), // a null pointer only asks
		load(argHigh(2)), jump(unix.BPF_JEQ, 0, 1, 0), ret(0))
	return append(prog, allow())
}

func installFilter(leave leave) error {
	prog := filter(machineABIs(runtime.GOARCH), leave)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	_, _, errno := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(prog)
	if errno != 0 {
		return errno
	}
	return nil
}
