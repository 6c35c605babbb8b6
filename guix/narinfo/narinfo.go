// Package narinfo reads, verifies and makes the signed descriptions of store
// items that substitute servers of GNU Guix hand out as /HASH.narinfo.
//
// # Form
//
// What guix publish writes, and Sign with it:
//
//	StorePath: /gnu/store/HASH-NAME
//	NarHash: sha256:BASE32              52 characters; of the uncompressed archive
//	NarSize: DECIMAL
//	References: BASE BASE ...           sorted; one space follows the colon even if there are none
//	Deriver: BASE.drv                   no such line for sources and derivations
//	Signature: 1;HOST;BASE64
//	URL: nar/gzip/HASH-NAME             one group for each file
//	Compression: gzip
//	FileSize: DECIMAL                   where it is known
//
// Each line ends with a line feed. BASE64 is the text of a signature (package
// signature) over the SHA-256 of everything before the first occurrence of
// "Signature:" in the file, that line feed included. HOST is whatever the
// server calls itself, and may be empty. What follows the signature is
// unsigned: a server that somebody else runs may offer the same archive in
// other files. The archive is checked against NarHash.
//
// # Reading
//
// Parse takes the lines above in any order, with these rules:
//
//   - StorePath, NarHash, NarSize, References and Signature have to be there;
//     Deriver and System (which older servers write) may be; at least one
//     file has to be. Nothing else may, and nothing but files twice.
//   - All but files stand before Signature.
//   - Compression follows URL at once and is none, gzip, lzip, zstd, xz or
//     bzip2; FileSize, if any, follows Compression.
//   - A reference stands once. Numbers are above zero and without leading
//     zeros. BASE64 is padded and on one line.
//   - A URL is relative to the server, or absolute with http or https. Its
//     segments are neither empty nor "." nor "..", also when they are decoded,
//     and it has neither query nor fragment.
//
// The bytes that were signed are kept as they were, see NarInfo.Unsigned.
//
// # Where Guix is looser
//
// Guix accepts, and Parse refuses:
//
//   - NarSize and Deriver after the signature. Guix does not check the size
//     of an archive against NarSize, so that an unsigned one is a lie for free.
//   - A field that is given twice: of all but files, the first counts.
//   - Lines that end with carriage return and line feed. The former then is
//     part of values.
//   - A NarHash that is not called sha256; any Compression, as long as
//     nothing is fetched; ".." and other schemes, file among them, in a URL.
//   - Fields that nobody knows.
//
// # Strict mode
//
// Verify takes the signed lines in any order, and references unsorted: older
// servers, and others than Guix's, write so. VerifyStrict takes the form
// above and no other, and a signature as Guix prints it: one narinfo for what
// it says. That is for whoever compares or counts narinfos by their bytes.
//
// # What was asked for
//
// Guix, and Parse, do not know what was asked for: a server can answer with
// the narinfo of another item, properly signed. NarInfo.Answers compares.
//
// # A worked example
//
// What a client does with an answer of a server, before it fetches anything:
//
//	n, err := narinfo.Verify(body, acl)
//	...
//	if err := n.Answers(hash); err != nil { // what was asked for, 32 characters
//		return err
//	}
//	for _, f := range n.Files {
//		fmt.Println(f.Compression, f.Resolve("https://depot.example"))
//	}
//	// The file that is fetched has to unpack to n.NarSize bytes that hash to n.NarHash.
//
// # Vocabulary
//
// An item is what lies at a store path. Its archive is its nar, uncompressed;
// a file is one of the forms in which a server offers the archive. A
// reference is an item that the archive mentions. The deriver is the
// derivation that made the item: hearsay, since Guix does not check it.
//
// # Bounds
//
// [MaxSize], [MaxReferences], [MaxFiles], [MaxHost], [MaxURL] and [MaxSystem].
// Memory stays within a small multiple of what was read.
//
// # Sources
//
// Guix's code is the specification: guix/narinfo.scm for the reader and
// guix/scripts/publish.scm for the writer. What the client of Guix 1.5.0 says
// of the narinfos in vectors/narinfo has been recorded beside them, and
// TestNarinfos of package peer asks it again.
package narinfo

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// Bounds of Parse. Beyond them is an error.
const (
	MaxSize       = 1 << 20 // octets of a narinfo
	MaxReferences = 8192
	MaxFiles      = 16
	MaxHost       = 255
	MaxURL        = 4096
	MaxSystem     = 64
)

// Reason codes of an Error.
const (
	CodeMalformed = "malformed-narinfo"
	CodeTooLarge  = "narinfo-too-large" // a bound was exceeded
	CodeUnknown   = "unknown-field"
	CodeDuplicate = "duplicate-field"
	CodeMissing   = "missing-field"
	CodeNotSigned = "field-not-signed"   // it stands after the signature
	CodeUnsigned  = "narinfo-unsigned"   // there is no signature
	CodeOtherItem = "narinfo-other-item" // it does not describe what was asked for
	CodeSpelling  = "narinfo-spelling"   // VerifyStrict: guix publish writes the same otherwise
)

// An Error says where and why something is not a narinfo. Faults of its
// signature are of type *signature.Error.
type Error struct {
	Offset int64 // of the line at fault; -1 if the fault has no place
	Code   string
	Detail string
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("narinfo: %s: %s", e.Code, e.Detail)
	}
	return fmt.Sprintf("narinfo: byte %d: %s: %s", e.Offset, e.Code, e.Detail)
}

// A NarInfo describes one store item.
type NarInfo struct {
	StorePath  storepath.Path
	NarHash    [sha256.Size]byte // of the uncompressed archive
	NarSize    int64
	References []storepath.Path // as they were written; Sign sorts them
	System     string           // "" if it is not said
	Deriver    storepath.Path   // zero if there is none
	Files      []File           // at least one; not signed, usually
	Signature  Signature

	unsigned string // what Parse found before the signature
}

// A File is one of the forms in which a server offers the archive.
type File struct {
	URL         string // relative to the server, or absolute: see Resolve
	Compression string // one of Compressions
	FileSize    int64  // compressed; 0 if it is not said
}

// A Signature is what follows "Signature: 1;".
type Signature struct {
	Host string // informative, trust nothing to it
	Text []byte // for signature.Parse
}

// Compressions returns the values that Compression may have.
func Compressions() []string { return []string{"none", "gzip", "lzip", "zstd", "xz", "bzip2"} }

// Unsigned returns the bytes that the signature is over. For a NarInfo that
// Parse returned these are the bytes that were read, whatever was done to the
// fields since; for another, those that Sign would sign.
func (n *NarInfo) Unsigned() []byte {
	if n.unsigned != "" {
		return []byte(n.unsigned)
	}
	return n.appendSigned(nil)
}

// Answers checks that n describes the item that was asked for by the hash
// part of its path, 32 characters.
func (n *NarInfo) Answers(hash string) error {
	if n.StorePath.Hash() != hash {
		return &Error{-1, CodeOtherItem, fmt.Sprintf("%s does not answer for %.40q", n.StorePath, hash)}
	}
	return nil
}

// Verify parses a narinfo and checks its signature as Guix does: the key is
// in acl, then the hash is that of the signed bytes, then the signature is
// valid. Errors are of type *Error or *signature.Error.
func Verify(b []byte, acl signature.ACL) (*NarInfo, error) {
	return verify(b, acl, signature.Parse)
}

// VerifyStrict is Verify for a narinfo as guix publish writes it, to the byte.
func VerifyStrict(b []byte, acl signature.ACL) (*NarInfo, error) {
	n, err := verify(b, acl, signature.ParseStrict)
	if err != nil {
		return nil, err
	}
	want := appendRest(n.appendSigned(nil), n.Signature, n.Files)
	if !bytes.Equal(b, want) {
		line := 0 // the first that differs
		for i := 0; i < len(b) && i < len(want) && b[i] == want[i]; i++ {
			if b[i] == '\n' {
				line = i + 1
			}
		}
		return nil, &Error{int64(line), CodeSpelling, "guix publish writes the fields in another order, or the references sorted"}
	}
	return n, nil
}

func verify(b []byte, acl signature.ACL, parse func([]byte) (*signature.Unverified, error)) (*NarInfo, error) {
	n, err := Parse(b)
	if err != nil {
		return nil, err
	}
	sig, err := parse(n.Signature.Text)
	if err != nil {
		return nil, err
	}
	if _, err := sig.Authorised(acl); err != nil {
		return nil, err
	}
	if err := sig.Matches(sha256.Sum256([]byte(n.unsigned))); err != nil {
		return nil, err
	}
	if err := sig.Valid(acl); err != nil {
		return nil, err
	}
	return n, nil
}

// Sign returns the narinfo of n, signed by k on behalf of host, as guix
// publish writes it. The fields count, and not what Parse read, or n.Signature.
func Sign(n *NarInfo, host string, k signature.SecretKey) ([]byte, error) {
	out := n.appendSigned(nil)
	text, err := signature.Sign(k, sha256.Sum256(out))
	if err != nil {
		return nil, err
	}
	out = appendRest(out, Signature{host, text}, n.Files)
	// The one grammar there is decides whether the fields made sense. It also
	// keeps a line feed in a field from adding a line.
	again, err := Parse(out)
	if err != nil {
		return nil, err
	}
	if again.StorePath != n.StorePath || again.Deriver != n.Deriver || again.System != n.System || len(again.References) != len(n.References) ||
		!slices.Equal(again.Files, n.Files) || again.Signature.Host != host {
		return nil, &Error{-1, CodeMalformed, "a field does not read as it was written"}
	}
	return out, nil
}

func (n *NarInfo) appendSigned(b []byte) []byte {
	b = fmt.Appendf(b, "StorePath: %s\nNarHash: sha256:%s\nNarSize: %d\nReferences: ",
		n.StorePath, storepath.EncodeBase32(n.NarHash[:]), n.NarSize)
	refs := slices.Clone(n.References)
	slices.SortFunc(refs, storepath.Path.Compare)
	for i, ref := range refs {
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, ref.Base()...)
	}
	b = append(b, '\n')
	if n.System != "" {
		b = fmt.Appendf(b, "System: %s\n", n.System)
	}
	if !n.Deriver.IsZero() {
		b = fmt.Appendf(b, "Deriver: %s\n", n.Deriver.Base())
	}
	return b
}

func appendRest(b []byte, sig Signature, files []File) []byte {
	b = fmt.Appendf(b, "Signature: 1;%s;%s\n", sig.Host, base64.StdEncoding.EncodeToString(sig.Text))
	for _, f := range files {
		b = fmt.Appendf(b, "URL: %s\nCompression: %s\n", f.URL, f.Compression)
		if f.FileSize != 0 {
			b = fmt.Appendf(b, "FileSize: %d\n", f.FileSize)
		}
	}
	return b
}

// Parse reads a narinfo and believes nothing of it: see Verify.
func Parse(b []byte) (*NarInfo, error) {
	if len(b) > MaxSize {
		return nil, &Error{MaxSize, CodeTooLarge, fmt.Sprintf("%d bytes, at most %d are read", len(b), MaxSize)}
	}
	p := parser{n: new(NarInfo), seen: make(map[string]bool)}
	signed := -1 // bytes before the signature
	for rest := string(b); rest != ""; {
		line, after, ok := strings.Cut(rest, "\n")
		if !ok {
			return nil, p.fail(CodeMalformed, "the last line has no end")
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			return nil, p.fail(CodeMalformed, "%.80q is not a field", line)
		}
		if err := p.field(name, value); err != nil {
			return nil, err
		}
		if name == "Signature" {
			signed = p.offset
		}
		p.last = name
		p.offset += len(line) + 1
		rest = after
	}
	if p.last == "URL" {
		return nil, p.fail(CodeMissing, "Compression is missing after URL")
	}
	for _, name := range []string{"StorePath", "NarHash", "NarSize", "References", "URL"} {
		if !p.seen[name] {
			return nil, p.fail(CodeMissing, "there is no field %s", name)
		}
	}
	if signed < 0 {
		return nil, p.fail(CodeUnsigned, "there is no field Signature")
	}
	// Guix cuts at the first occurrence of the word, wherever that is.
	if word := bytes.Index(b, []byte("Signature:")); word != signed {
		return nil, &Error{int64(word), CodeMalformed, "the text \"Signature:\" stands before the field"}
	}
	p.n.unsigned = string(b[:signed])
	return p.n, nil
}

type parser struct {
	n      *NarInfo
	seen   map[string]bool
	last   string // name of the field before
	offset int
}

func (p *parser) fail(code, format string, args ...any) *Error {
	return &Error{int64(p.offset), code, fmt.Sprintf(format, args...)}
}

func (p *parser) field(name, value string) error {
	switch name {
	case "URL", "Compression", "FileSize":
		// These come in groups, of which there may be several.
	case "StorePath", "NarHash", "NarSize", "References", "System", "Deriver", "Signature":
		if p.seen[name] {
			return p.fail(CodeDuplicate, "a second field %s", name)
		}
		if p.seen["Signature"] {
			return p.fail(CodeNotSigned, "%s stands after the signature", name)
		}
	default:
		return p.fail(CodeUnknown, "unknown field %.80q", name)
	}
	if p.last == "URL" && name != "Compression" {
		return p.fail(CodeMissing, "Compression is missing after URL")
	}
	p.seen[name] = true
	// Whatever is no text is in no value either; the rest is for each field.
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return p.fail(CodeMalformed, "%s holds %q", name, value[i:i+1])
	}
	n := p.n
	var err error
	switch name {
	case "StorePath":
		if n.StorePath, err = storepath.Parse(value); err != nil {
			return p.fail(CodeMalformed, "StorePath: %v", err)
		}
	case "NarHash":
		digits, ok := strings.CutPrefix(value, "sha256:")
		if !ok {
			return p.fail(CodeMalformed, "NarHash %.80q is not of sha256", value)
		}
		hash, err := storepath.DecodeBase32(digits, len(n.NarHash))
		if err != nil {
			return p.fail(CodeMalformed, "NarHash: %v", err)
		}
		copy(n.NarHash[:], hash)
	case "NarSize":
		return p.number(name, value, &n.NarSize)
	case "References":
		return p.references(value)
	case "System":
		if value == "" || len(value) > MaxSystem || strings.ContainsFunc(value, notSystem) {
			return p.fail(CodeMalformed, "System %.80q is not the name of a system", value)
		}
		n.System = value
	case "Deriver":
		n.Deriver, err = storepath.ParseBase(value)
		if err != nil {
			return p.fail(CodeMalformed, "Deriver: %v", err)
		}
		if !n.Deriver.IsDerivation() {
			return p.fail(CodeMalformed, "Deriver %q is not a derivation", value)
		}
	case "Signature":
		return p.signature(value)
	case "URL":
		if len(n.Files) == MaxFiles {
			return p.fail(CodeTooLarge, "more than %d files", MaxFiles)
		}
		if reason := checkURL(value); reason != "" {
			return p.fail(CodeMalformed, "URL %.80q %s", value, reason)
		}
		n.Files = append(n.Files, File{URL: value})
	case "Compression":
		if p.last != "URL" {
			return p.fail(CodeMalformed, "Compression without URL before it")
		}
		if !slices.Contains(Compressions(), value) {
			return p.fail(CodeMalformed, "Compression %.80q is not known", value)
		}
		n.Files[len(n.Files)-1].Compression = value
	case "FileSize":
		if p.last != "Compression" {
			return p.fail(CodeMalformed, "FileSize without Compression before it")
		}
		return p.number(name, value, &n.Files[len(n.Files)-1].FileSize)
	}
	return nil
}

func notSystem(r rune) bool {
	return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789_-", r)
}

// number reads a decimal number above zero, which has one spelling.
func (p *parser) number(name, value string, to *int64) error {
	i, err := strconv.ParseInt(value, 10, 64)
	if err != nil || i <= 0 || strconv.FormatInt(i, 10) != value {
		return p.fail(CodeMalformed, "%s %.80q is not a number above zero", name, value)
	}
	*to = i
	return nil
}

func (p *parser) references(value string) error {
	if value == "" {
		return nil
	}
	count := strings.Count(value, " ") + 1
	if count > MaxReferences {
		return p.fail(CodeTooLarge, "%d references, at most %d are read", count, MaxReferences)
	}
	refs := make([]storepath.Path, 0, count)
	for base := range strings.SplitSeq(value, " ") {
		ref, err := storepath.ParseBase(base)
		if err != nil {
			return p.fail(CodeMalformed, "References: %v", err)
		}
		refs = append(refs, ref)
	}
	sorted := slices.Clone(refs)
	slices.SortFunc(sorted, storepath.Path.Compare)
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return p.fail(CodeMalformed, "References has %s twice", sorted[i].Base())
		}
	}
	p.n.References = refs
	return nil
}

func (p *parser) signature(value string) error {
	parts := strings.Split(value, ";")
	if len(parts) != 3 {
		return p.fail(CodeMalformed, "Signature consists of version, host and signature, not of %d parts", len(parts))
	}
	if parts[0] != "1" {
		return p.fail(CodeMalformed, "version %.20q of signature is not known", parts[0])
	}
	if len(parts[1]) > MaxHost || strings.Contains(parts[1], " ") {
		return p.fail(CodeMalformed, "%.80q is not the name of a host", parts[1])
	}
	if len(parts[2]) > base64.StdEncoding.EncodedLen(signature.MaxText) {
		return p.fail(CodeTooLarge, "a signature of more than %d bytes", signature.MaxText)
	}
	// Strict refuses other spellings of the last bits, and what is not text,
	// line feeds among it, has not come here.
	text, err := base64.StdEncoding.Strict().DecodeString(parts[2])
	if err != nil {
		return p.fail(CodeMalformed, "Signature: %v", err)
	}
	p.n.Signature = Signature{parts[1], text}
	return nil
}
