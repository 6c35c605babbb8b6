// Package storepath computes and checks the names of things in Guix's store.
//
// # Grammar
//
//	PATH   = "/gnu/store/" BASE
//	BASE   = HASH "-" NAME                    the form used in narinfos, manifests and file names
//	HASH   = 32 characters of the base32 below (160 bits)
//	NAME   = 0 to 217 of: A-Z a-z 0-9 + - . _ ? =     not beginning with "."
//
// The empty NAME is legal, as are names that begin with "-" or "?": the
// daemon takes them. The bound of 217 is the file system's: the daemon opens
// BASE.lock, and a file name has at most 255 bytes.
//
// The daemon itself checks far less when it imports: it looks at the prefix
// and the absence of another slash, so "/gnu/store/.." passes. A [Path] can
// only be made by functions that check all of the grammar, so whoever holds
// one may join it to a directory.
//
// # Vocabulary
//
// The store is the directory /gnu/store; an item is what lies in it under one
// name, a file or a tree. The hash part of a path, or hash, is what stands
// before the dash: not the hash of the contents, but of a sentence about them
// (below). A fixed output is made by a derivation that states the hash of the
// result beforehand; a source was added from outside; a text is a file that
// was written into the store together with the list of what it refers to.
//
// # Base32
//
// The alphabet is
//
//	0123456789abcdfghijklmnpqrsvwxyz          (no e, o, u, t)
//
// N bytes give ceil(8N/5) characters. Bits are taken from the end: the last
// character holds the five low bits of the first byte, the first character
// the high bits of the last byte. Surplus bits are zero; [DecodeBase32]
// refuses other spellings, wrong lengths and upper case, so that a value has
// exactly one text.
//
// # Where a path comes from
//
// Every path is a digest of a sentence:
//
//	SENTENCE = TYPE ":sha256:" hex(DIGEST) ":/gnu/store:" NAME
//	HASH     = base32(fold(SHA-256(SENTENCE)))
//
// where fold XORs byte i of 32 onto byte i mod 20 of 20. TYPE and DIGEST are:
//
//	kind             TYPE                        DIGEST
//	text, .drv       "text" (":" REF)*           SHA-256 of the content
//	source           "source"                    SHA-256 of the nar
//	fixed output     "output:out"                SHA-256("fixed:out:" ["r:"] ALGO ":" hex(H) ":")
//	built output     "output:" ID                modulo hash of the masked derivation
//
// REFs are full paths, sorted by bytes, each once. A fixed output of ALGO
// sha256 that is recursive ("r:", H being the hash of a nar) is a source. A
// built output whose ID is not "out" has NAME-ID as its name. See [Text],
// [Source], [FixedOutput] and [Output].
//
// ALGO is one of those the daemon knows: md5, sha1, sha256, sha512, sha3-256,
// sha3-512, blake2s-256. [DigestSize] tells their lengths.
//
// # A worked example
//
// A file of the text "hello world\n" that refers to nothing, called
// text-plain. Its sentence is, on one line,
//
//	text:sha256:a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447:/gnu/store:text-plain
//
// the SHA-256 of that, folded to 20 bytes and written in base32, is the hash
// part, and the path is /gnu/store/r1jkipi5avj3wmdancznwcz2kmqqgp1h-text-plain:
//
//	p, err := storepath.Text("text-plain", sha256.Sum256([]byte("hello world\n")), nil)
//	fmt.Println(p.Hash(), p.Name())
//
// To read one that came from elsewhere, from a person or a file:
//
//	p, err := storepath.Parse("/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2")
//
// # Bounds
//
// A name has at most [MaxNameLen] bytes and a path [MaxLen]. Nothing here
// allocates more than a small multiple of what it was given.
//
// # Errors
//
// Every refusal is an [*Error] with a stable code and the offset of the byte
// that is wrong. Nothing here opens a file: a Path says how something would
// be called, not that it is there.
//
// # Source
//
// Guix has no document for this; nix/libstore/store-api.cc (makeStorePath,
// checkStoreName) and nix/libutil/hash.cc (printHash32) of GNU Guix are the
// specification. Verified against Guix 1.5.0 with the cases in
// vectors/store-paths and every path of vectors/drv-hello.
package storepath

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

// Bounds and fixed parts of a store path.
const (
	// Dir is the store. It takes part in every hash, so it cannot be changed
	// without changing every path.
	Dir = "/gnu/store"

	// HashLen is the number of characters of the hash part.
	HashLen = 32

	// MaxNameLen is the longest name: 255 (NAME_MAX) less HASH, "-" and ".lock".
	MaxNameLen = 217

	// MaxLen is the longest path.
	MaxLen = prefixLen + HashLen + 1 + MaxNameLen

	prefix    = Dir + "/"
	prefixLen = len(prefix)
	foldLen   = 20 // bytes of hash that a path keeps
	drvSuffix = ".drv"
)

// A Path is the path of a store item. The zero value is no path; every other
// value is well-formed. Paths are comparable with == and can be map keys.
type Path struct{ s string }

// Parse reads a full path, such as
// "/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2".
func Parse(s string) (Path, error) {
	if !strings.HasPrefix(s, prefix) {
		return Path{}, &Error{Code: CodePrefix, Offset: int64(commonLen(s, prefix)), Detail: "want " + prefix}
	}
	if err := checkBase(s[prefixLen:], int64(prefixLen)); err != nil {
		return Path{}, err
	}
	return Path{s}, nil
}

// ParseBase reads a path without its directory, as in a narinfo's References.
func ParseBase(base string) (Path, error) {
	if err := checkBase(base, 0); err != nil {
		return Path{}, err
	}
	return Path{prefix + base}, nil
}

// checkBase returns nil or the first fault of HASH-NAME. Its result is a
// pointer, not an error, so that callers must decide about nil.
func checkBase(base string, at int64) *Error {
	if len(base) < HashLen+1 {
		return &Error{Code: CodeLength, Offset: at + int64(len(base)), Detail: "want 32 characters of hash and a dash"}
	}
	for i := 0; i < HashLen; i++ {
		if digit[base[i]] == notDigit {
			return &Error{Code: CodeHash, Offset: at + int64(i), Detail: quoteByte(base[i]) + " is not of the base32 alphabet"}
		}
	}
	if base[HashLen] != '-' {
		return &Error{Code: CodeHash, Offset: at + HashLen, Detail: "want a dash after the hash, have " + quoteByte(base[HashLen])}
	}
	return checkName(base[HashLen+1:], at+HashLen+1)
}

// String returns the full path, or "" for the zero Path.
func (p Path) String() string { return p.s }

// Base returns HASH-NAME.
func (p Path) Base() string {
	if p.s == "" {
		return ""
	}
	return p.s[prefixLen:]
}

// Hash returns the 32 characters of the hash.
func (p Path) Hash() string {
	if p.s == "" {
		return ""
	}
	return p.s[prefixLen : prefixLen+HashLen]
}

// Name returns what follows the hash and the dash.
func (p Path) Name() string {
	if p.s == "" {
		return ""
	}
	return p.s[prefixLen+HashLen+1:]
}

// IsZero reports whether p is no path.
func (p Path) IsZero() bool { return p.s == "" }

// IsDerivation reports whether the name ends in ".drv". The daemon accepts
// such a name for derivations only.
func (p Path) IsDerivation() bool { return strings.HasSuffix(p.s, drvSuffix) }

// Compare orders paths by their bytes, which is the order in which Guix
// lists and hashes them.
func (p Path) Compare(q Path) int { return strings.Compare(p.s, q.s) }

// MarshalText returns the full path; the zero Path gives no bytes.
func (p Path) MarshalText() ([]byte, error) { return []byte(p.s), nil }

// UnmarshalText is the reverse of MarshalText.
func (p *Path) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*p = Path{}
		return nil
	}
	q, err := Parse(string(b))
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// CheckName returns nil if name can be the NAME of a path.
func CheckName(name string) error {
	if err := checkName(name, 0); err != nil {
		return err
	}
	return nil
}

func checkName(name string, at int64) *Error {
	if len(name) > MaxNameLen {
		return &Error{Code: CodeLength, Offset: at + MaxNameLen, Detail: "name is longer than 217 bytes"}
	}
	if name != "" && name[0] == '.' {
		return &Error{Code: CodeName, Offset: at, Detail: "name begins with a dot"}
	}
	for i := 0; i < len(name); i++ {
		if !nameByte[name[i]] {
			return &Error{Code: CodeName, Offset: at + int64(i), Detail: quoteByte(name[i]) + " cannot be in a name"}
		}
	}
	return nil
}

var nameByte = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-._?=") {
		t[c] = true
	}
	return t
}()

// Text returns the path of a text item, a .drv file among them: a single
// file whose references are declared, not found. References may come in any
// order and more than once.
func Text(name string, contentSHA256 [32]byte, refs []Path) (Path, error) {
	ascending := true
	size := sentenceLen
	for i, r := range refs {
		if r.IsZero() {
			return Path{}, &Error{Code: CodePrefix, Offset: int64(i), Detail: "a reference is no path"}
		}
		if i > 0 && refs[i-1].s >= r.s {
			ascending = false
		}
		size += 1 + len(r.s)
	}
	if !ascending {
		refs = slices.Clone(refs)
		slices.SortFunc(refs, Path.Compare)
		refs = slices.Compact(refs)
	}
	b := append(make([]byte, 0, size), "text"...)
	for _, r := range refs {
		b = append(b, ':')
		b = append(b, r.s...)
	}
	return finish(b, &contentSHA256, name, "")
}

// Source returns the path of a file or tree that was added under the SHA-256
// of its nar, as a local-file is, or a recursive fixed output of sha256.
func Source(name string, narSHA256 [32]byte) (Path, error) {
	var buf [sentenceLen]byte
	return finish(append(buf[:0], "source"...), &narSHA256, name, "")
}

// FixedOutput returns the path of a fixed output, or of anything added to
// the store by another hash than that of [Source]: digest is the hash of the
// file's bytes, or of its nar if recursive.
func FixedOutput(name, algo string, recursive bool, digest []byte) (Path, error) {
	size, ok := DigestSize(algo)
	if !ok {
		return Path{}, &Error{Code: CodeAlgorithm, Detail: "unknown hash algorithm " + quote(algo)}
	}
	if len(digest) != size {
		return Path{}, &Error{Code: CodeDigest, Offset: int64(len(digest)), Detail: "digest has not the length of " + algo}
	}
	if recursive && algo == "sha256" {
		return Source(name, [32]byte(digest))
	}
	var inner [256]byte
	b := append(inner[:0], "fixed:out:"...)
	if recursive {
		b = append(b, "r:"...)
	}
	b = append(b, algo...)
	b = append(b, ':')
	b = hex.AppendEncode(b, digest)
	b = append(b, ':')
	sum := sha256.Sum256(b)
	var buf [sentenceLen]byte
	return finish(append(buf[:0], "output:out"...), &sum, name, "")
}

// Output returns the path of output id of the derivation called name, whose
// masked modulo hash is given (see package derivation).
func Output(id string, modulo [32]byte, name string) (Path, error) {
	if id == "" {
		return Path{}, &Error{Code: CodeName, Detail: "the output has no name"}
	}
	if err := checkName(id, 0); err != nil {
		return Path{}, err
	}
	var buf [sentenceLen]byte
	b := append(buf[:0], "output:"...)
	b = append(b, id...)
	if id == "out" {
		return finish(b, &modulo, name, "")
	}
	return finish(b, &modulo, name, id)
}

// sentenceLen holds any sentence without references.
const sentenceLen = len("output:") + MaxNameLen + len(":sha256:") + 64 + len(":"+Dir+":") + MaxNameLen + 1

// finish completes the sentence that begins with b and returns its path. The
// name is name, or name-id.
func finish(b []byte, digest *[32]byte, name, id string) (Path, error) {
	b = append(b, ":sha256:"...)
	b = hex.AppendEncode(b, digest[:])
	b = append(b, ":"+Dir+":"...)
	if len(name) > MaxNameLen {
		return Path{}, checkName(name, 0)
	}
	start := len(b)
	b = append(b, name...)
	if id != "" {
		b = append(b, '-')
		b = append(b, id...)
	}
	sum := sha256.Sum256(b)
	for i := foldLen; i < len(sum); i++ {
		sum[i-foldLen] ^= sum[i]
	}
	full := b[start:]
	if len(full) > MaxNameLen {
		return Path{}, &Error{Code: CodeLength, Offset: MaxNameLen, Detail: "name is longer than 217 bytes"}
	}
	var buf [MaxLen]byte
	n := copy(buf[:], prefix)
	putBase32(buf[n:n+HashLen], sum[:foldLen])
	n += HashLen
	buf[n] = '-'
	n++
	n += copy(buf[n:], full)
	p := Path{string(buf[:n])}
	if err := checkName(p.Name(), 0); err != nil {
		return Path{}, err
	}
	return p, nil
}

// DigestSize returns the number of bytes of a digest of the named algorithm,
// and whether Guix's daemon knows it.
func DigestSize(algo string) (int, bool) {
	switch algo {
	case "md5":
		return 16, true
	case "sha1":
		return 20, true
	case "sha256", "sha3-256", "blake2s-256":
		return 32, true
	case "sha512", "sha3-512":
		return 64, true
	}
	return 0, false
}

func commonLen(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
