package daemon

import (
	"errors"
	"fmt"
	"strconv"
)

// Reason codes of a [ProtocolError].
const (
	CodeMagic     = "daemon-magic"     // the other end is no guix-daemon
	CodeVersion   = "daemon-version"   // it speaks another language
	CodeMessage   = "daemon-message"   // a message that does not exist, or not in this operation
	CodeBool      = "daemon-bool"      // a truth value other than 0 and 1
	CodeNumber    = "daemon-number"    // a number that its place does not allow
	CodeString    = "daemon-string"    // a string too long, or padded with other than zeros
	CodePath      = "daemon-path"      // not a store path, or no derivation where one should be
	CodeHash      = "daemon-hash"      // not a SHA-256 in lower-case hexadecimal
	CodeOrder     = "daemon-order"     // a set that does not ascend, or has something twice
	CodeTooMany   = "daemon-too-many"  // a list longer than any
	CodeAnswer    = "daemon-answer"    // an answer to something that was not asked
	CodeMismatch  = "daemon-mismatch"  // a path other than the one that follows from the contents
	CodeStream    = "daemon-stream"    // an exported item that is malformed, or another; wraps an *archive.Error
	CodeTruncated = "daemon-truncated" // the connection ended within an answer; wraps io.ErrUnexpectedEOF
)

// A ProtocolError says where and why what the daemon sent is not the protocol.
type ProtocolError struct {
	Op     Op
	Offset int64 // in what the daemon has sent since the beginning
	Code   string
	Detail string
	err    error
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("guix-daemon: %s: byte %d of its answers: %s: %s", e.Op, e.Offset, e.Code, e.Detail)
}

// Unwrap returns what is behind the error, or nil.
func (e *ProtocolError) Unwrap() error { return e.err }

// An Error is what the daemon says instead of an answer.
type Error struct {
	Op      Op
	Message string // as it came, up to [MaxMessage] bytes
	Status  uint64
}

// Statuses of an [Error]. There may be others.
const (
	StatusGeneral     = 1   // anything, failed builds of fixed outputs among it
	StatusBuildFailed = 100 // the builder failed, and would again
	StatusTimeout     = 101 // the builder took, or was silent, too long
)

func (e *Error) Error() string {
	message := e.Message
	if len(message) > maxQuoted {
		message = message[:maxQuoted] + "..."
	}
	return fmt.Sprintf("guix-daemon: %s: %q (status %d)", e.Op, message, e.Status)
}

// maxQuoted bounds what the text of an error repeats.
const maxQuoted = 1 << 10

var (
	// ErrNotValid says that the store does not have an item.
	ErrNotValid = errors.New("the item is not valid")
	// ErrClosed says that the connection is closed.
	ErrClosed = errors.New("guix-daemon: the connection is closed")
)

// An Op is the number of an operation.
type Op uint64

// The operations that this package uses. Zero stands for the handshake.
const (
	OpConnect         Op = 0
	OpIsValid         Op = 1
	OpReferences      Op = 5
	OpReferrers       Op = 6
	OpAdd             Op = 7
	OpAddText         Op = 8
	OpBuild           Op = 9
	OpEnsure          Op = 10
	OpAddTempRoot     Op = 11
	OpAddIndirectRoot Op = 12
	OpFindRoots       Op = 14
	OpExport          Op = 16
	OpDeriver         Op = 18
	OpSetOptions      Op = 19
	OpCollectGarbage  Op = 20
	OpOutputs         Op = 22
	OpAllValid        Op = 23
	OpInfo            Op = 26
	OpImport          Op = 27
	OpFromHash        Op = 29
	OpSubstitutable   Op = 30
	OpValid           Op = 31
	OpDerivers        Op = 33
	OpVerifyStore     Op = 35
)

// String returns the operation's name in Guix.
func (op Op) String() string {
	switch op {
	case OpConnect:
		return "handshake"
	case OpIsValid:
		return "valid-path?"
	case OpReferences:
		return "query-references"
	case OpReferrers:
		return "query-referrers"
	case OpAdd:
		return "add-to-store"
	case OpAddText:
		return "add-text-to-store"
	case OpBuild:
		return "build-things"
	case OpEnsure:
		return "ensure-path"
	case OpAddTempRoot:
		return "add-temp-root"
	case OpAddIndirectRoot:
		return "add-indirect-root"
	case OpFindRoots:
		return "find-roots"
	case OpExport:
		return "export-path"
	case OpDeriver:
		return "query-deriver"
	case OpSetOptions:
		return "set-options"
	case OpCollectGarbage:
		return "collect-garbage"
	case OpOutputs:
		return "query-derivation-outputs"
	case OpAllValid:
		return "query-all-valid-paths"
	case OpInfo:
		return "query-path-info"
	case OpImport:
		return "import-paths"
	case OpFromHash:
		return "query-path-from-hash-part"
	case OpSubstitutable:
		return "query-substitutable-path-infos"
	case OpValid:
		return "query-valid-paths"
	case OpDerivers:
		return "query-valid-derivers"
	case OpVerifyStore:
		return "verify-store"
	}
	return "operation " + strconv.FormatUint(uint64(op), 10)
}
