package derivation

import (
	"strconv"
	"strings"
)

// Reason codes of an [Error].
const (
	// Of the parser.
	CodeTruncated = "drv-truncated" // the text ends too early
	CodeTrailing  = "drv-trailing"  // bytes after the end
	CodeSyntax    = "drv-syntax"    // another byte than the grammar wants
	CodeString    = "drv-string"    // a zero byte, a raw control character that has an escape, or an unknown escape
	CodePath      = "drv-path"      // not a store path, or an input that is no .drv
	CodeOrder     = "drv-order"     // a list is not sorted
	CodeDuplicate = "drv-duplicate" // something is in a list twice
	CodeOutput    = "drv-output"    // no output, an input without one, or an ID that cannot be a name
	CodeFixed     = "drv-fixed"     // a fixed output's algorithm or hash, or one that is not alone
	CodeLimit     = "drv-limit"     // larger than a bound of this package

	// Of what a derivation claims.
	CodeName        = "drv-name"         // the name or path is not one of a derivation
	CodeMismatch    = "drv-mismatch"     // the path is not that of the bytes
	CodeOutputPath  = "drv-output-path"  // an output path is not the one that follows
	CodeEnvironment = "drv-environment"  // a variable does not repeat its output's path
	CodeMissing     = "drv-missing"      // an input is not there
	CodeInputOutput = "drv-input-output" // an input has no such output
	CodeCycle       = "drv-cycle"        // a derivation stands on itself
)

// NoOffset is the Offset of an error that is not about a place in a file.
const NoOffset = -1

// An Error says what is wrong with a derivation.
type Error struct {
	Path   string // of the derivation, where it is known
	Offset int64  // of the byte, or of the string, that is wrong; or NoOffset
	Code   string // one of the codes above
	Detail string // for people
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("derivation")
	if e.Path != "" {
		b.WriteByte(' ')
		b.WriteString(quote(e.Path))
	}
	b.WriteString(": ")
	b.WriteString(e.Code)
	if e.Offset >= 0 {
		b.WriteString(" at byte ")
		b.WriteString(strconv.FormatInt(e.Offset, 10))
	}
	b.WriteString(": ")
	b.WriteString(e.Detail)
	return b.String()
}

func claim(path, code, detail string) *Error {
	return &Error{Path: path, Offset: NoOffset, Code: code, Detail: detail}
}

func pathError(s string, err error) *Error {
	return claim("", CodePath, quote(s)+": "+err.Error())
}

// maxQuoted bounds what an error repeats of its input. A store path fits.
const maxQuoted = 261

func quote(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
