package nar

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Bounds. An archive over a bound is refused, never cut.
const (
	// MaxName is the longest entry name: NAME_MAX, which no file system of
	// Linux exceeds.
	MaxName = 255

	// MaxTarget is the longest target that symlink(2) takes.
	MaxTarget = 4095

	// MaxPath is the longest path of an entry below the top. Linux takes no
	// longer path in a system call, so the Guix daemon could not restore one. It
	// also keeps the memory for paths in proportion to the archive.
	MaxPath = 4095

	// MaxDepth is the greatest number of names in a path. Restoring holds one
	// descriptor for each, dumping two.
	MaxDepth = 1000

	// MaxEntries is the greatest number of nodes in one archive. The largest
	// items of Guix have some hundreds of thousands.
	MaxEntries = 1 << 22
)

// Type is the type of a node.
type Type byte

const (
	Regular Type = 1 + iota
	Directory
	Symlink
)

// String returns the word for t in an archive.
func (t Type) String() string {
	switch t {
	case Regular:
		return "regular"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("Type(%d)", byte(t))
}

// A Header describes one node of an archive.
type Header struct {
	Path       string // names from the top, separated by slashes; "" for the top
	Type       Type
	Executable bool   // of a regular file
	Size       int64  // of a regular file
	Target     string // of a symbolic link
}

// UTF8 reports whether path and target are valid UTF-8. If not, the Guix daemon
// can handle the item, but Guile, and with it "guix hash" and "guix publish", cannot.
func (h *Header) UTF8() bool {
	return utf8.ValidString(h.Path) && utf8.ValidString(h.Target)
}

// Name returns the last name of h.Path, "" for the top.
func (h *Header) Name() string {
	return h.Path[strings.LastIndexByte(h.Path, '/')+1:]
}

// Codes of an [Error]. They are stable.
const (
	CodeTruncated  = "truncated"  // the archive ends before it is complete
	CodeMagic      = "magic"      // it does not begin as a nar
	CodeToken      = "token"      // a word that the grammar does not have at this place
	CodeType       = "type"       // a node that is neither regular, directory nor symlink
	CodeLength     = "length"     // a string longer than its place allows
	CodePadding    = "padding"    // padding that is not zero
	CodeExecutable = "executable" // the mark of an executable has a value
	CodeSize       = "size"       // contents too large, or not of the size announced
	CodeName       = "name"       // a name that no directory entry can have
	CodeDuplicate  = "duplicate"  // a name twice in a directory
	CodeOrder      = "order"      // a name that should have come earlier
	CodeTarget     = "target"     // a target that no link can have
	CodePath       = "path"       // longer than MaxPath, or not below an open directory
	CodeDepth      = "depth"      // more than MaxDepth names in a path
	CodeEntries    = "entries"    // more than MaxEntries nodes
	CodeDigest     = "digest"     // Verifier: the SHA-256 is not the expected one
)

// An Error says why an archive, or a tree that was to become one, was refused.
type Error struct {
	// Offset is where in the archive the fault lies: the first byte of the
	// string, of the bad padding, or of what is missing. It is -1 if the fault lies
	// in a tree and not in an archive.
	Offset int64
	Code   string // one of the constants
	Detail string // for a person; quotes what was found
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return "nar: " + e.Detail
	}
	return fmt.Sprintf("nar: at byte %d: %s", e.Offset, e.Detail)
}

// Unwrap makes an archive that ends early an [io.ErrUnexpectedEOF].
func (e *Error) Unwrap() error {
	if e.Code == CodeTruncated {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// Tokens as they stand in an archive.
const (
	tokMagic      = "\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1\x00\x00\x00"
	tokOpen       = "\x01\x00\x00\x00\x00\x00\x00\x00(\x00\x00\x00\x00\x00\x00\x00"
	tokClose      = "\x01\x00\x00\x00\x00\x00\x00\x00)\x00\x00\x00\x00\x00\x00\x00"
	tokType       = "\x04\x00\x00\x00\x00\x00\x00\x00type\x00\x00\x00\x00"
	tokName       = "\x04\x00\x00\x00\x00\x00\x00\x00name\x00\x00\x00\x00"
	tokNode       = "\x04\x00\x00\x00\x00\x00\x00\x00node\x00\x00\x00\x00"
	tokEntry      = "\x05\x00\x00\x00\x00\x00\x00\x00entry\x00\x00\x00"
	tokTarget     = "\x06\x00\x00\x00\x00\x00\x00\x00target\x00\x00"
	tokRegular    = "\x07\x00\x00\x00\x00\x00\x00\x00regular\x00"
	tokSymlink    = "\x07\x00\x00\x00\x00\x00\x00\x00symlink\x00"
	tokContents   = "\x08\x00\x00\x00\x00\x00\x00\x00contents"
	tokDirectory  = "\x09\x00\x00\x00\x00\x00\x00\x00directory\x00\x00\x00\x00\x00\x00\x00"
	tokExecutable = "\x0a\x00\x00\x00\x00\x00\x00\x00executable\x00\x00\x00\x00\x00\x00"
	tokEmpty      = "\x00\x00\x00\x00\x00\x00\x00\x00"
)

const zeros = "\x00\x00\x00\x00\x00\x00\x00\x00"

// pad returns the length of the padding after n bytes.
func pad(n int64) int64 { return -n & 7 }

// appendString appends str(s).
func appendString(b []byte, s string) []byte {
	b = appendInt(b, int64(len(s)))
	b = append(b, s...)
	return append(b, zeros[:pad(int64(len(s)))]...)
}

func appendInt(b []byte, n int64) []byte {
	return append(b, byte(n), byte(n>>8), byte(n>>16), byte(n>>24),
		byte(n>>32), byte(n>>40), byte(n>>48), byte(n>>56))
}

// appendEntry appends what comes before the node of the entry name. The node of the
// top has nothing before it, hence its own name, "".
func appendEntry(b []byte, name string) []byte {
	if name == "" {
		return b
	}
	b = append(b, tokEntry+tokOpen+tokName...)
	b = appendString(b, name)
	return append(b, tokNode...)
}

// appendRegular appends what comes before the contents of a regular file.
func appendRegular(b []byte, executable bool, size int64) []byte {
	b = append(b, tokOpen+tokType+tokRegular...)
	if executable {
		b = append(b, tokExecutable+tokEmpty...)
	}
	b = append(b, tokContents...)
	return appendInt(b, size)
}

// appendEnd appends what comes after the node of the entry name, the
// closing parenthesis of the node included.
func appendEnd(b []byte, name string) []byte {
	b = append(b, tokClose...)
	if name != "" {
		b = append(b, tokClose...)
	}
	return b
}

// contentsFit reports whether contents of the given size may follow their length, which stands
// at off, depth directories deep: the archive has to end before 2^63.
func contentsFit(off int64, size uint64, depth int) bool {
	return size < 1<<63-8 && int64(size)+pad(int64(size)) <= 1<<63-1-8-closing(depth)-off
}

// closing returns the length of the parentheses that are still to come after
// the body of a node in depth directories: its own, and for each directory
// that of the entry and its own.
func closing(depth int) int64 { return 16 + 32*int64(depth) }

// checkName says what is wrong with the name of an entry, if anything: a code
// and a detail.
func checkName(name []byte) (code, detail string) {
	switch {
	case len(name) == 0:
		return CodeName, "an entry has an empty name"
	case len(name) > MaxName:
		return CodeLength, fmt.Sprintf("a name of %d bytes is longer than %d", len(name), MaxName)
	case string(name) == "." || string(name) == "..":
		return CodeName, fmt.Sprintf("an entry has the name %q", name)
	case bytes.IndexByte(name, 0) >= 0:
		return CodeName, fmt.Sprintf("the name %q contains NUL", name)
	case bytes.IndexByte(name, '/') >= 0:
		return CodeName, fmt.Sprintf("the name %q contains a slash", name)
	}
	return "", ""
}

// checkTarget says what is wrong with the target of a link, if anything.
func checkTarget(target []byte) (code, detail string) {
	switch {
	case len(target) == 0:
		return CodeTarget, "a symbolic link has an empty target"
	case len(target) > MaxTarget:
		return CodeLength, fmt.Sprintf("a target of %d bytes is longer than %d", len(target), MaxTarget)
	case bytes.IndexByte(target, 0) >= 0:
		return CodeTarget, fmt.Sprintf("the target %q contains NUL", target)
	}
	return "", ""
}

// checkOrder says what is wrong with name after last in a directory, if anything.
// An empty last is none.
func checkOrder(last, name []byte) (code, detail string) {
	switch c := bytes.Compare(last, name); {
	case c == 0:
		return CodeDuplicate, fmt.Sprintf("the name %q occurs twice in its directory", name)
	case c > 0:
		return CodeOrder, fmt.Sprintf("the name %q stands after %q", name, last)
	}
	return "", ""
}

// checkPlace says what is wrong with the place of an entry, if anything: its
// depth, the length of its path, and its number among all nodes.
func checkPlace(depth, path, nodes int) (code, detail string) {
	switch {
	case depth > MaxDepth:
		return CodeDepth, fmt.Sprintf("a path has more than %d names", MaxDepth)
	case path > MaxPath:
		return CodePath, fmt.Sprintf("a path of %d bytes is longer than %d", path, MaxPath)
	case nodes > MaxEntries:
		return CodeEntries, fmt.Sprintf("there are more than %d files, directories and links", MaxEntries)
	}
	return "", ""
}
