package confine

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxLandlock is the newest version of Landlock whose rights are in landlockRights. A newer kernel is asked for this one.
// The interface: https://docs.kernel.org/userspace-api/landlock.html
const maxLandlock = 7

// landlockAttr is struct landlock_ruleset_attr as of version 6.
type landlockAttr struct {
	FS     uint64
	Net    uint64
	Scoped uint64
}

// landlockRights gives all rights that version abi can handle, and the size of the structure that the kernel knows then.
func landlockRights(abi int) (attr landlockAttr, size uintptr) {
	size = 8
	attr.FS = 1<<13 - 1 // execute .. make_sym
	if abi >= 2 {
		attr.FS |= 1 << 13 // refer
	}
	if abi >= 3 {
		attr.FS |= 1 << 14 // truncate
	}
	if abi >= 4 {
		attr.Net = 1<<2 - 1 // bind and connect of TCP
		size = 16
	}
	if abi >= 5 {
		attr.FS |= 1 << 15 // ioctl of devices
	}
	if abi >= 6 {
		attr.Scoped = 1<<2 - 1 // abstract sockets, signals
		size = 24
	}
	return attr, size
}

// landlockVersion asks the kernel; 0 means that it has none.
func landlockVersion() (int, error) {
	v, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return 0, e
	}
	return int(v), nil
}

// restrictLandlock takes every right that Landlock handles from every thread of the process. no_new_privs must be set.
func restrictLandlock() (inForce, kernel int64, err error) {
	version, err := landlockVersion()
	if err != nil || version < 1 {
		detail := fmt.Sprintf("the kernel has version %d, 1 is needed", version)
		if err != nil {
			detail = err.Error()
		}
		return 0, 0, &FeatureError{"landlock", detail, "run Linux 5.13 or later with landlock in the lsm= boot parameter, and let the container's seccomp profile pass the landlock calls"}
	}
	abi := min(version, maxLandlock)
	attr, size := landlockRights(abi)
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return 0, 0, &FeatureError{"landlock", fmt.Sprintf("creating a ruleset of version %d: %v", abi, e), "report this with the kernel's version"}
	}
	defer unix.Close(int(fd))
	// landlock_restrict_self works on the calling thread alone (a flag for all threads came in version 8).
	if err := allThreads(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0, 0); err != nil {
		return 0, 0, &FeatureError{"landlock", "restricting all threads: " + err.Error(), "build the reader with CGO_ENABLED=0"}
	}
	return int64(abi), int64(version), nil
}

// allThreads makes a system call on every thread of the runtime. It is not possible in a program linked with cgo.
func allThreads(trap, a1, a2, a3, a4 uintptr) error {
	_, _, e := syscall.AllThreadsSyscall6(trap, a1, a2, a3, a4, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
