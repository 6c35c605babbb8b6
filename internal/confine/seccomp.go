package confine

import (
	"fmt"
	"runtime"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// allowedCalls are what the Go runtime needs, and reading and writing descriptors that are open already.
// Names that an architecture does not have are left out there.
var allowedCalls = [...]string{
	"read", "pread64", "write", "close", "fstat", "lseek",
	"futex", "munmap", "madvise", "mincore", "brk",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	"sched_yield", "sched_getaffinity", "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday",
	"getpid", "gettid", "tgkill", "exit", "exit_group", "restart_syscall",
	"epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2",
	"getrandom", "set_robust_list", "rseq", "membarrier",
}

// refusedCalls are answered EPERM instead of ending the process: a runtime or a library may try them in good faith and live without.
var refusedCalls = [...]string{
	"open", "openat", "readlinkat", "newfstatat", "faccessat", "faccessat2", "statx",
	"prlimit64", "getrlimit", "uname", "sched_setaffinity", "setitimer", "timer_create", "timer_settime", "timer_delete",
	"getuid", "geteuid", "getgid", "getegid", "clone3", "pidfd_open", "ioctl",
}

// The flags that conditional calls are judged by.
const (
	cloneThread = unix.CLONE_THREAD
	protExec    = unix.PROT_EXEC
	nameMemory  = unix.PR_SET_VMA // the runtime names its mappings
)

// restrictSeccomp installs the filter on every thread. no_new_privs must be set.
func restrictSeccomp() (calls int64, err error) {
	policy, calls, err := seccompPolicy(runtime.GOARCH)
	if err != nil {
		return 0, &FeatureError{"seccomp", err.Error(), "run it on amd64 or arm64"}
	}
	if !seccomp.Supported() {
		return 0, &FeatureError{"seccomp", "the kernel or the container does not offer filters", "run a kernel with CONFIG_SECCOMP_FILTER, and let the container's own profile pass the seccomp call"}
	}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: policy}); err != nil {
		return 0, &FeatureError{"seccomp", err.Error(), "let the container's own profile pass the seccomp call"}
	}
	return calls, nil
}

func seccompPolicy(goarch string) (seccomp.Policy, int64, error) {
	info, err := arch.GetInfo(goarch)
	if err != nil {
		return seccomp.Policy{}, 0, err
	}
	known := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(n string) bool { _, ok := info.SyscallNames[n]; return !ok })
	}
	allow := known(allowedCalls[:])
	conditional := []seccomp.NameWithConditions{
		// Threads, not processes.
		{Name: "clone", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.BitsSet, Value: cloneThread}}},
		// Memory, not code.
		{Name: "mmap", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsNotSet, Value: protExec}}},
		{Name: "mprotect", Conditions: seccomp.ArgumentConditions{{Argument: 2, Operation: seccomp.BitsNotSet, Value: protExec}}},
		{Name: "prctl", Conditions: seccomp.ArgumentConditions{{Argument: 0, Operation: seccomp.Equal, Value: nameMemory}}},
		{Name: "fcntl", Conditions: seccomp.ArgumentConditions{{Argument: 1, Operation: seccomp.Equal, Value: unix.F_GETFL}}},
		{Name: "fcntl", Conditions: seccomp.ArgumentConditions{{Argument: 1, Operation: seccomp.Equal, Value: unix.F_GETFD}}},
	}
	for _, c := range conditional {
		if _, ok := info.SyscallNames[c.Name]; !ok {
			return seccomp.Policy{}, 0, fmt.Errorf("%s has no call %s", goarch, c.Name)
		}
	}
	return seccomp.Policy{
		DefaultAction: seccomp.ActionKillProcess,
		Syscalls: []seccomp.SyscallGroup{
			{Names: allow, NamesWithCondtions: conditional, Action: seccomp.ActionAllow},
			{Names: known(refusedCalls[:]), Action: seccomp.ActionErrno},
		},
	}, int64(len(allow) + len(conditional) - 1), nil
}
