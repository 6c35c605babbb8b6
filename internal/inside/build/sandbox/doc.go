// Package sandbox runs one program in Linux namespaces of its own and lets nothing of it survive.
//
// It knows no derivations. Its caller ([sallyport/internal/inside/build]) has laid out a root directory and says what is mounted where;
// this package makes the namespaces, enters them, gives up every privilege, runs the program as process 1, reads its log, watches
// its time, and reports how it ended.
//
// # Processes
//
//	caller ── supervisor ── builder
//
// All three begin as the same executable: the caller starts itself again with a hidden first argument, which [MaybeChild]
// recognises and a main function must call before anything else.
//
// The supervisor is process 1 of an outer PID namespace and (for an ordinary user) the maker of the user namespace. It does nothing but
// start the builder, wait, and report. It runs none of the builder's code and the builder cannot see it. It dies with its
// parent: by the parent-death signal and because the other end of its socket closes. When it dies, by whatever cause, the kernel kills everything in its
// PID namespace and so in the builder's, which lies within. A builder can clear its own parent-death signal; it cannot leave the namespace.
//
// The builder's process makes the mounts, moves the root, drops privileges and becomes the builder by execve. It is process 1 of an
// inner PID namespace; when it ends, whatever it left running is killed before its exit is reported.
//
// # Two modes
//
// Started by root: no user namespace; the builder is changed to Spec.UID and Spec.GID without supplementary groups.
//
// Started by anybody else: a user namespace in which that person's ids appear as Spec.UID and Spec.GID and nobody else's exist.
// The capabilities needed for the set-up are ambient ones and end before the builder. Supplementary groups cannot be given up
// without privilege; they show as the overflow group and still open what the person's groups open, of what is mounted at all.
//
// In both modes the builder has empty capability sets, an empty bounding set, and no_new_privs.
//
// # What the builder sees
//
// As under guix-daemon 1.5: process 1, session leader, umask 022, standard input /dev/null, output and error one pipe, all other
// descriptors closed, default signal dispositions, an empty signal mask, personality with ADDR_NO_RANDOMIZE, oom_score_adj
// 1000, hostname localhost, domainname (none), its own /proc, /dev/shm and /dev/pts, and a network namespace in which at most lo is up.
// The old root is unmounted, not merely left.
//
// # What is denied beyond that
//
// None of these changes what a build can produce in good faith; each is a behaviour that Linux hosts show anyway when they are built or
// configured more strictly. They apply to 64-bit and 32-bit system calls alike.
//
//	denied                                     answer          as on a host with
//	add_key, request_key, keyctl               ENOSYS          no CONFIG_KEYS (keyrings are not in a namespace)
//	bpf, perf_event_open, userfaultfd          EPERM           the kernel.* and vm.* settings for unprivileged use
//	io_uring_*                                 EPERM           kernel.io_uring_disabled=2
//	mount, umount, pivot_root, fsopen, ...     EPERM           the answer without CAP_SYS_ADMIN
//	kexec, modules, swap, reboot, acct, ...    EPERM           the answer without capabilities
//	syslog                                     EPERM           kernel.dmesg_restrict=1 (the log of the host)
//	setns; unshare and clone of a user         EPERM           user namespaces off for ordinary users
//	namespace
//	clone3                                     ENOSYS          Linux before 5.3 (its flags cannot be filtered; libraries fall back to clone)
//	socket of a family but unix, inet,         EAFNOSUPPORT    those families not built. AF_VSOCK reaches the hypervisor from every network
//	inet6, netlink, packet                                     namespace, AF_ALG the kernel's cryptography
//	setrlimit of the core size                 0, no effect    (see below)
//	x32 calls                                  ENOSYS          no CONFIG_X86_X32
//	socketcall (32-bit), unless the            ENOSYS          (see below)
//	personality is PER_LINUX32
//
// ptrace is not denied: test suites and the leak sanitizer use it, and the PID namespace confines it to the build.
//
// The C library of i686-linux reaches sockets through socketcall, whose arguments a filter cannot see. Builds for i686 keep it, and so the
// choice of socket family; in builds for x86-64, where a 32-bit program with sockets is a curiosity, it does not exist.
// On a builder inside a virtual machine, keep vsock out of the machine.
//
// The core size limit is 1 byte, not 0. A kernel whose core_pattern is a pipe ignores 0 and would hand the memory of a crashed builder to a
// program outside; 1 is the one value that stops that too (core(5)). Shells print either as 0.
//
// # Bounds
//
// The log ends the build when it passes Limits.Log; Limits.Time and Limits.Silence end it too. The tree of processes is killed as a whole.
package sandbox
