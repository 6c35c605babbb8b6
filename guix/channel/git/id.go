package git

import (
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// An ID names an object: the SHA-1 of its kind, its size and its content.
type ID [20]byte

// ParseID reads 40 lower-case hexadecimal digits.
func ParseID[T string | []byte](s T) (id ID, err error) {
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("git: %d characters, the id of an object has 40 hexadecimal digits", len(s))
	}
	for i := range id {
		hi, lo := digit(s[2*i]), digit(s[2*i+1])
		if hi > 15 || lo > 15 {
			return ID{}, errors.New("git: the id of an object has 40 lower-case hexadecimal digits")
		}
		id[i] = hi<<4 | lo
	}
	return id, nil
}

func digit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// String prints id as 40 lower-case digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short prints the first twelve digits, for people.
func (id ID) Short() string { return hex.EncodeToString(id[:6]) }

// IsZero reports whether id is all zeros, which no object has.
func (id ID) IsZero() bool { return id == ID{} }

// A Kind is what an object is. The values are those of packs.
type Kind byte

// Kinds of objects.
const (
	KindCommit Kind = iota + 1
	KindTree
	KindBlob
	KindTag
)

func (k Kind) String() string {
	if k < KindCommit || k > KindTag {
		return "Kind(" + strconv.Itoa(int(k)) + ")"
	}
	return [...]string{"commit", "tree", "blob", "tag"}[k-KindCommit]
}

// kindOf is the opposite of String.
func kindOf(s string) (Kind, bool) {
	for k := KindCommit; k <= KindTag; k++ {
		if s == k.String() {
			return k, true
		}
	}
	return 0, false
}

// Hash returns the id of an object.
func Hash(kind Kind, content []byte) ID {
	h := sha1.New()
	h.Write(appendHeader(nil, kind, len(content)))
	h.Write(content)
	return ID(h.Sum(nil))
}

func appendHeader(b []byte, kind Kind, size int) []byte {
	b = append(b, kind.String()...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(size), 10)
	return append(b, 0)
}

// Codes of an [Error].
const (
	CodeMissing   = "git-missing"   // no object has the id
	CodeKind      = "git-kind"      // the object is of another kind
	CodeID        = "git-id"        // the object's content does not have its id
	CodeCollision = "git-collision" // the content bears the marks of a SHA-1 collision attack
	CodeLimit     = "git-limit"     // larger than a bound of this package
	CodePack      = "git-pack"      // a pack, or an entry of one, that is not well formed
	CodeIndex     = "git-index"     // an index of a pack that is not well formed
	CodeDeflate   = "git-deflate"   // compressed data that is not well formed
	CodeLoose     = "git-loose"     // a loose object that is not well formed
	CodeCommit    = "git-commit"    // a commit that is not well formed
	CodeTree      = "git-tree"      // a tree that is not well formed
	CodeTag       = "git-tag"       // a tag that is not well formed
)

// An Error says why bytes are not what they should be.
type Error struct {
	Code   string
	Offset int64 // in the object, or in the pack or its index
	Detail string
}

func (e *Error) Error() string {
	return fmt.Sprintf("git: %s at offset %d: %s", e.Code, e.Offset, e.Detail)
}

func fail(code string, offset int64, format string, args ...any) error {
	return &Error{code, offset, fmt.Sprintf(format, args...)}
}

// IsMissing reports whether err says that no object has the id that was asked for.
func IsMissing(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeMissing
}
