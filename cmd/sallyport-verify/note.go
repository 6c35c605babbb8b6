package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

const (
	maxSize       = 1 << 62 // the largest size or number in a document
	maxSignatures = 100     // of a note
	maxSigLines   = 64 << 10
	maxName       = 32 // of a person, an enclave, a track
)

// Kinds of keys in a vkey and under a note, by their type byte.
const (
	algEd25519     = 1
	algCosignature = 4 // C2SP tlog-cosignature: the signature has the time before it
)

// vkey is a public key as it is written in a root: NAME+HASH8+BASE64(type || key).
type vkey struct {
	name   string
	hash   uint32
	alg    byte
	public [32]byte
}

func newVKey(name string, alg byte, public [32]byte) *vkey {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write([]byte{alg})
	h.Write(public[:])
	return &vkey{name, binary.BigEndian.Uint32(h.Sum(nil)), alg, public}
}

func parseVKey(s string, alg byte) (*vkey, bool) {
	name, rest, _ := strings.Cut(s, "+")
	_, b64, _ := strings.Cut(rest, "+")
	raw, ok := decode64(b64)
	if !ok || len(raw) != 33 || raw[0] != alg {
		return nil, false
	}
	k := newVKey(name, alg, [32]byte(raw[1:]))
	return k, k.id()+"+"+b64 == s // one spelling, and the hash is that of the key
}

func (k *vkey) id() string                      { return fmt.Sprintf("%s+%08x", k.name, k.hash) }
func (k *vkey) verify(message, sig []byte) bool { return ed25519.Verify(k.public[:], message, sig) }
func (k *vkey) Name() string                    { return k.name }
func (k *vkey) KeyHash() uint32                 { return k.hash }
func (k *vkey) Verify(message, sig []byte) bool { // makes it a note.Verifier
	if k.alg == algEd25519 {
		return k.verify(message, sig)
	}
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(sig)
	head := fmt.Sprintf("cosignature/v1\ntime %d\n", seconds)
	return seconds <= math.MaxInt64 && k.verify(append([]byte(head), message...), sig[8:])
}

// signer is a signature that verified: the key, and the line as it stands under the note.
type signer struct {
	key  *vkey
	line string
}

// cosigned is the time that a witness wrote into its signature.
func (s signer) cosigned() string {
	raw, ok := decode64(s.line[strings.LastIndexByte(s.line, ' ')+1:])
	if !ok || len(raw) < 12 {
		return "?"
	}
	return time.Unix(int64(binary.BigEndian.Uint64(raw[4:])), 0).UTC().Format(dateForm)
}

// splitNote returns the text of a note and checks the form of everything: characters, empty lines, the one spelling of
// each signature line. It says nothing about who signed.
func splitNote(data []byte) (string, error) {
	if !utf8.Valid(data) {
		return "", errors.New("is not UTF-8")
	}
	for i, r := range string(data) {
		if r != '\n' && unicode.IsControl(r) {
			return "", fmt.Errorf("control character %U at byte %d", r, i)
		}
	}
	split := bytes.Index(data, []byte("\n\n"))
	if split < 0 {
		return "", errors.New("is no signed note: no empty line")
	}
	text, lines := string(data[:split+1]), strings.SplitAfter(string(data[split+2:]), "\n")
	if last := len(lines) - 1; last < 1 || last > maxSignatures || lines[last] != "" {
		return "", fmt.Errorf("%d signature lines (1 to %d, each ending in a line feed)", last, maxSignatures)
	}
	for _, line := range lines[:len(lines)-1] {
		rest, dash := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "— ")
		name, b64, _ := strings.Cut(rest, " ")
		if raw, ok := decode64(b64); !dash || name == "" || !ok || len(raw) < 5 {
			return "", fmt.Errorf("malformed signature line %.200q", line)
		}
	}
	return text, nil
}

// openNote returns the text and which of the keys signed it. A signature by another key is ignored; one that names one of
// the keys and does not verify is an error.
func openNote(data []byte, keys []*vkey) (string, []signer, error) {
	text, err := splitNote(data)
	if err != nil {
		return "", nil, err
	}
	verifiers := make([]note.Verifier, len(keys))
	for i, k := range keys {
		verifiers[i] = k
	}
	n, err := note.Open(data, note.VerifierList(verifiers...))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return text, nil, nil
	} else if err != nil {
		return text, nil, err
	}
	var signers []signer
	for _, s := range n.Sigs {
		for _, k := range keys {
			if k.name == s.Name && k.hash == s.Hash {
				signers = append(signers, signer{k, "— " + s.Name + " " + s.Base64})
			}
		}
	}
	return n.Text, signers, nil
}

// lines reads a text line by line. The first thing wrong sticks, and makes all that follows empty.
type lines struct {
	text   string
	pos    int // of the next line
	number int // of the line last read
	err    error
}

func (l *lines) more() bool { return l.err == nil && l.pos < len(l.text) }

func (l *lines) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf("line %d: %s", l.number, fmt.Sprintf(format, args...))
	}
}

func (l *lines) next() string {
	if l.number++; l.err != nil {
		return ""
	}
	line, _, ok := strings.Cut(l.text[l.pos:], "\n")
	if !ok || line == "" {
		l.fail("empty, or without a line feed")
		return ""
	}
	l.pos += len(line) + 1
	return line
}

// literal reads a line that can only be this one.
func (l *lines) literal(want string) {
	if line := l.next(); line != want {
		l.fail("%.200q instead of %q", line, want)
	}
}

// field reads "NAME VALUE" and returns VALUE if ok says it is one.
func (l *lines) field(name string, ok func(string) bool) string {
	line := l.next()
	value, found := strings.CutPrefix(line, name+" ")
	if !found || !ok(value) {
		l.fail("%.200q is no %s line", line, name)
		return ""
	}
	return value
}

func (l *lines) numberField(name string, least, most int64) int64 {
	var n int64
	l.field(name, func(s string) (ok bool) {
		n, ok = parseNumber(s, most)
		return ok && n >= least
	})
	return n
}

func (l *lines) end() error {
	if l.more() {
		l.number++
		l.fail("more lines than the document has")
	}
	return l.err
}

// One spelling for each value.

const dateForm = "2006-01-02T15:04:05Z"

func isDate(s string) bool {
	t, err := time.Parse(dateForm, s)
	return err == nil && string(t.AppendFormat(nil, dateForm)) == s
}

func isLowerHex(s string, length int) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == length
}

func isDigest(s string) bool       { return isLowerHex(s, 2*sha256.Size) }
func isDigestOrDash(s string) bool { return s == "-" || isDigest(s) }
func digestOf[T []byte | string](b T) string {
	h := sha256.Sum256([]byte(b))
	return hex.EncodeToString(h[:])
}

// isName tells whether s may name a person, an enclave or a track.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func parseNumber(s string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= most && strconv.FormatInt(n, 10) == s
}

// decode64 decodes standard padded base64. The package's decoder skips line feeds and carriage returns; the length shows them.
func decode64(s string) ([]byte, bool) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	return raw, err == nil && base64.StdEncoding.EncodedLen(len(raw)) == len(s)
}
