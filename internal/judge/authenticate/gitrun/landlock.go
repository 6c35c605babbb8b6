package gitrun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rules are what a program may do with files. What is not there is passed over.
type rules struct {
	programs []string // read and run
	read     []string
	write    []string // read, write, make and delete
}

// maxLandlock is the newest version of the interface whose rights are known here (https://docs.kernel.org/userspace-api/landlock.html).
const maxLandlock = 7

// Rights of version 1, and those that later versions have added.
const (
	rightExecute   = 1 << 0
	rightWriteFile = 1 << 1
	rightReadFile  = 1 << 2
	rightReadDir   = 1 << 3
	rightsOne      = 1<<13 - 1
	rightRefer     = 1 << 13
	rightTruncate  = 1 << 14
	rightIoctl     = 1 << 15

	rightsRead = rightReadFile | rightReadDir
	// Of a file that is no directory.
	rightsOfFile = rightExecute | rightWriteFile | rightReadFile | rightTruncate | rightIoctl
	// Devices, sockets and pipes are not made.
	rightsDevices = 1<<6 | 1<<9 | 1<<10 | 1<<11
)

type landlockAttr struct {
	FS, Net, Scoped uint64
}

// enforce takes from the calling thread, for ever, all rights on files but those given, and all network that Landlock handles.
func (r rules) enforce() error {
	cannot := func(err error) error {
		return fmt.Errorf("git cannot be confined: landlock: %w (run Linux 5.13 or later with landlock in the lsm= boot parameter)", err)
	}
	version, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return cannot(e)
	}
	abi := min(int(version), maxLandlock)
	attr, size := landlockAttr{FS: rightsOne}, uintptr(8)
	if abi >= 2 {
		attr.FS |= rightRefer
	}
	if abi >= 3 {
		attr.FS |= rightTruncate
	}
	if abi >= 4 {
		attr.Net, size = 1<<2-1, 16
	}
	if abi >= 5 {
		attr.FS |= rightIoctl
	}
	if abi >= 6 {
		attr.Scoped, size = 1<<2-1, 24
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return cannot(e)
	}
	defer unix.Close(int(fd))
	for _, group := range []struct {
		paths  []string
		rights uint64
	}{
		{r.programs, rightsRead | rightExecute},
		{r.read, rightsRead},
		{r.write, attr.FS &^ (rightExecute | rightIoctl | rightsDevices)},
	} {
		for _, path := range group.paths {
			if err := addRule(int(fd), path, group.rights&attr.FS); err != nil {
				return cannot(err)
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return cannot(err)
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return cannot(e)
	}
	return nil
}

// addRule allows rights on a path and what is below it.
func addRule(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= rightsOfFile
	}
	// struct landlock_path_beneath_attr is packed: eight bytes, then four.
	var attr [12]byte
	binary.NativeEndian.PutUint64(attr[:], rights)
	binary.NativeEndian.PutUint32(attr[8:], uint32(fd))
	_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr[0])), 0, 0, 0)
	runtime.KeepAlive(&attr)
	if e != 0 {
		return &os.PathError{Op: "landlock", Path: path, Err: e}
	}
	return nil
}
