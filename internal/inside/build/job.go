package build

import (
	"fmt"
	"io"
	"path/filepath"
	"syscall"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build/sandbox"
)

// What holds where a Job says nothing. The times are guix-daemon's.
const (
	DefaultTimeout   = 24 * time.Hour
	DefaultMaxSilent = time.Hour
	DefaultMaxLog    = 256 << 20

	DefaultUID = 30001
	DefaultGID = 30000
)

const (
	MaxStrays = 1000 // listed; all are counted
	MaxSlots  = 4096 // builds at once in one WorkDir
)

// A Job is one derivation to build.
type Job struct {
	Derivation *derivation.Derivation
	Path       storepath.Path   // of the .drv
	StoreDir   string           // directory with the inputs under their base names, "/gnu/store" or a copy
	Inputs     []storepath.Path // closure of the sources and of the outputs named in the derivation's inputs
	WorkDir    string           // exists; all of it belongs to this package. Output trees are made here, so best on the file system they go to

	// References gives the references of an item of Inputs. Only derivations with exportReferencesGraph, allowedRequisites or
	// disallowedRequisites need it.
	References func(storepath.Path) ([]storepath.Path, error)

	Cores     int           // NIX_BUILD_CORES; 0 means all
	Timeout   time.Duration // 0: DefaultTimeout; negative: none
	MaxSilent time.Duration // 0: DefaultMaxSilent; negative: none
	MaxLog    int64         // bytes; 0: DefaultMaxLog; negative: no limit
	Log       io.Writer     // standard output and error of the builder; nil: nowhere

	Getenv         func(string) string // for impureEnvVars of fixed outputs; nil: all empty
	UID, GID       int                 // of the builder, when run by root; 0: DefaultUID, DefaultGID
	UserNamespaces bool                // the builder may make user namespaces
	Executable     string              // a program that calls MaybeChild; "": the running one
}

// A Result is what a build made. It exists, with Strays, also when the build failed after the builder had begun.
type Result struct {
	Outputs    []Output // by ID; nil unless all were accepted
	Strays     []string // absolute, as the builder saw them, sorted; at most MaxStrays
	StrayCount int
	LogBytes   int64

	slot *slot
}

// An Output is an accepted output, canonical on disk.
type Output struct {
	ID         string
	Path       storepath.Path
	NarHash    [32]byte
	NarSize    int64
	References []storepath.Path // sorted; may include Path
	HostPath   string           // the tree; to be moved or copied away before Result.Close
}

// Move moves the tree to dir, on the same file system, under the base name of its path, and sets HostPath.
func (o *Output) Move(dir string) error {
	from, err := openDirectory(filepath.Dir(o.HostPath))
	if err != nil {
		return err
	}
	defer from.close()
	to, err := openDirectory(dir)
	if err != nil {
		return err
	}
	defer to.close()
	if err := moveTree(from, to, o.Path.Base()); err != nil {
		return err
	}
	o.HostPath = filepath.Join(dir, o.Path.Base())
	return nil
}

// Close deletes everything the build left on disk, the outputs that are still at their HostPath included.
func (r *Result) Close() error {
	if r == nil || r.slot == nil {
		return nil
	}
	s := r.slot
	r.slot = nil
	return s.release()
}

// Codes of a Failure.
const (
	CodeExit        = "builder-exit"         // a status other than 0
	CodeSignal      = "builder-signal"       // killed by a signal
	CodeTimeout     = "builder-timeout"      // ran longer than Job.Timeout
	CodeSilent      = "builder-silent"       // said nothing for Job.MaxSilent
	CodeLog         = "builder-log"          // wrote more than Job.MaxLog
	CodeNotExecuted = "builder-not-executed" // not there, outside the store, or not executable here
	CodeBuiltin     = "builder-builtin"      // one that only the daemon has
	CodeSystem      = "builder-system"       // for another kind of machine
	CodeAttribute   = "derivation-attribute" // an attribute that cannot be honoured: exportReferencesGraph, a list of references
)

// A Failure says why a builder did not succeed. It is the derivation's fault or fate, not this machine's.
type Failure struct {
	Code       string
	Derivation storepath.Path
	Status     int            // exit status, if Code is CodeExit
	Signal     syscall.Signal // if Code is CodeSignal
	Detail     string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s: %s: %s", f.Derivation, f.Code, f.Detail)
}

// MaybeChild turns the process into a part of a sandbox if it was started to be one, and else returns at once. A main function calls it
// first, before it looks at anything.
func MaybeChild() { sandbox.MaybeChild() }
