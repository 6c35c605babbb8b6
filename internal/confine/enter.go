package confine

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Confinement is what Enter has put in force.
type Confinement struct{ c confinement }

// layers lets a test of this package see what each layer holds back alone.
type layers uint

const (
	layerLimits layers = 1 << iota
	layerLandlock
	layerSeccomp
	allLayers = layerLimits | layerLandlock | layerSeccomp
)

// Enter confines the running process for good. It must be the first thing that a program started by Start does, and
// needs nothing but the three standard descriptors afterwards. An error means that the process is not confined and must end.
func Enter() (*Confinement, error) { return enter(allLayers) }

func enter(which layers) (*Confinement, error) {
	if os.Getpid() != 1 {
		return nil, &FeatureError{"reader", "not the first process of a PID namespace", "the reader is started by sallyport, never by hand"}
	}
	c := &Confinement{confinement{
		Namespaces: []string{"ipc", "mount", "network", "pid", "user", "uts"},
		User:       "caller",
	}}
	if err := closeInherited(); err != nil {
		return nil, &FeatureError{"proc", err.Error(), "mount /proc where the reader is started"}
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err == nil {
		c.c.Kernel = Escape(unix.ByteSliceToString(uts.Release[:]), 128)
	}
	debug.SetMemoryLimit(MaxHeap)
	debug.SetMaxThreads(MaxThreads)
	if which&layerLimits != 0 {
		if err := limit(&c.c); err != nil {
			return nil, err
		}
	}
	if os.Getuid() == 0 {
		// Started by root with the unprivileged user mapped beside it. Changing to it also drops all capabilities of the namespace.
		err := syscall.Setgroups(nil)
		if err == nil {
			err = syscall.Setresgid(nobody, nobody, nobody)
		}
		if err == nil {
			err = syscall.Setresuid(nobody, nobody, nobody)
		}
		if err != nil {
			return nil, &FeatureError{"privileges", "changing to the unprivileged user: " + err.Error(), "report this with the kernel's version"}
		}
		c.c.User = "nobody"
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0); err != nil {
		return nil, &FeatureError{"privileges", "forbidding new privileges: " + err.Error(), "build the reader with CGO_ENABLED=0"}
	}
	c.c.NoNewPrivileges = true
	var err error
	if which&layerLandlock != 0 {
		if c.c.Landlock, c.c.LandlockKernel, err = restrictLandlock(); err != nil {
			return nil, err
		}
	}
	if which&layerSeccomp != 0 {
		if c.c.SeccompCalls, err = restrictSeccomp(); err != nil {
			return nil, err
		}
		c.c.Seccomp = "allowlist"
	}
	return c, nil
}

// limit sets the resource limits, soft and hard alike.
func limit(c *confinement) error {
	for _, l := range []struct {
		name     string
		resource int
		max      uint64
	}{
		{"address space", unix.RLIMIT_AS, MaxAddressSpace},
		{"descriptors", unix.RLIMIT_NOFILE, MaxDescriptors},
		{"file size", unix.RLIMIT_FSIZE, 0},
		{"core size", unix.RLIMIT_CORE, 0},
		{"locked memory", unix.RLIMIT_MEMLOCK, 0},
		{"message queues", unix.RLIMIT_MSGQUEUE, 0},
	} {
		// A host may have set a lower hard limit already, which only a privileged process could raise.
		var now unix.Rlimit
		if err := unix.Getrlimit(l.resource, &now); err != nil {
			return &FeatureError{"resource limits", l.name + ": " + err.Error(), "report this with the kernel's version"}
		}
		max := min(l.max, now.Max)
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: max, Max: max}); err != nil {
			return &FeatureError{"resource limits", l.name + ": " + err.Error(), "report this with the kernel's version"}
		}
		switch l.resource {
		case unix.RLIMIT_AS:
			c.AddressSpace = int64(max)
		case unix.RLIMIT_NOFILE:
			c.Descriptors = int64(max)
		}
	}
	return nil
}

// closeInherited closes what the parent's own parents left open without close-on-exec. The runtime's poller stays.
func closeInherited() error {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		var fd int
		if _, err := fmt.Sscanf(n, "%d", &fd); err != nil || fd <= 2 || fd == int(dir.Fd()) {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + n); err == nil && strings.HasPrefix(target, "anon_inode:[event") {
			continue
		}
		unix.Close(fd)
	}
	return nil
}
