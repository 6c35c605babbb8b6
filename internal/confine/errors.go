package confine

import "fmt"

// FeatureError says which part of the confinement this kernel or host does not give. Nothing was read.
type FeatureError struct {
	Feature string // "user namespaces", "landlock", "seccomp", "resource limits", "privileges", "proc", "reader"
	Detail  string
	Remedy  string
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("confinement not possible: %s: %s (%s)", e.Feature, e.Detail, e.Remedy)
}

// Codes of a DeathError.
const (
	DeathForbidden = "reader-forbidden-call" // the child made a system call that is not on the list
	DeathMemory    = "reader-memory"         // it ran out of its address space
	DeathKilled    = "reader-killed"         // a signal from outside: most often the kernel's out-of-memory killer
	DeathTimeout   = "reader-timeout"        // it did not answer in time and was killed
	DeathCrashed   = "reader-crashed"        // anything else: a bug, or an exploit that failed
)

// DeathError says how the child ended. The item was not judged, which is never a pass.
type DeathError struct {
	Code   string
	Detail string // how the process ended
	Stderr string // what it said on standard error, from the beginning, escaped; a claim
}

func (e *DeathError) Error() string {
	s := e.Code + ": " + e.Detail
	if e.Stderr != "" {
		s += ": " + e.Stderr
	}
	return s
}

// AnswerError says that the child's answer is not one that an honest child gives.
type AnswerError struct {
	Detail string
}

func (e *AnswerError) Error() string { return "reader-answer: " + e.Detail }

func badAnswer(format string, args ...any) error {
	return &AnswerError{fmt.Sprintf(format, args...)}
}
