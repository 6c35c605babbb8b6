package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// A Mount is a bind mount of a file or directory, made without set-user-ID effect and, but for devices, without device files.
type Mount struct {
	Source   string // absolute, on the host
	Target   string // absolute, in the sandbox; exists
	ReadOnly bool
	Device   bool // Source is a device node
}

// A Spec says what is run and in what surroundings.
type Spec struct {
	Root   string  // the directory that becomes /, absolute
	Mounts []Mount // made in this order, before /proc, /dev/shm and /dev/pts, whose directories exist in Root

	Program string // must resolve to a file below Store in the sandbox
	Store   string
	Args    []string // argv[0] included
	Env     []string
	Dir     string // working directory in the sandbox

	UID, GID       int
	Loopback       bool   // bring lo up
	Terminals      bool   // mount a devpts of its own
	Personality    uint32 // see personality(2)
	UserNamespaces bool   // let the program make user namespaces
}

// Limits end a run. Zero means no limit.
type Limits struct {
	Time    time.Duration
	Silence time.Duration // without a byte of log
	Log     int64         // bytes
}

// Options are what a run needs from its caller's process.
type Options struct {
	Executable string // a program that calls [MaybeChild]; "" is the running one
	Log        io.Writer
	Limits     Limits
}

// A Cause says what ended a run.
type Cause int

const (
	Exited      Cause = iota // by itself: see Status
	TimedOut                 // Limits.Time
	Silent                   // Limits.Silence
	LogTooLong               // Limits.Log
	NotExecuted              // the program could not be executed
)

func (c Cause) String() string {
	switch c {
	case Exited:
		return "exited"
	case TimedOut:
		return "timed out"
	case Silent:
		return "silent for too long"
	case LogTooLong:
		return "log too long"
	case NotExecuted:
		return "not executed"
	}
	return fmt.Sprintf("cause %d", int(c))
}

// An Exit says how a run ended. Nothing of it is running any more.
type Exit struct {
	Cause    Cause
	Status   syscall.WaitStatus // if Cause is Exited
	Detail   string             // if Cause is NotExecuted
	LogBytes int64

	// Shm is the directory that was /dev/shm, to be looked at and closed; nil if the builder was never reached.
	// What is in it is gone once it is closed.
	Shm *os.File
}

// A SetupError says which step towards the sandbox the host did not allow.
type SetupError struct {
	Step string
	Err  error
	Hint string
}

func (e *SetupError) Error() string { return fmt.Sprintf("sandbox: %s: %v", e.Step, e.Err) }
func (e *SetupError) Unwrap() error { return e.Err }

// ErrUnsupported is wrapped by the error of [Run] where the host has no use for sandboxes of ours: another system, or an
// architecture whose system calls we have no table of.
var ErrUnsupported = errors.New("no build sandbox on this system")
