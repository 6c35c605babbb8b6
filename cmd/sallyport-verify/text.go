package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxNumber     = 1 << 62 // the largest size or number in a document
	maxSignatures = 100     // of a note
	maxSigLines   = 1 << 20 // bytes of them
	maxName       = 32      // of a person, an enclave, a track
)

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

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
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

// quote shows what came from outside.
func quote(s string) string { return fmt.Sprintf("%.200q", s) }

// lines reads the text of a document line by line and gathers what is wrong with it. After a line that is not where it must be,
// nothing more is read.
type lines struct {
	area, subject, text string
	pos, number         int // of the next line, of the line last read
	dead                bool
	faults              faults
}

func read(area, subject, text string) *lines {
	l := &lines{area: area, subject: subject, text: text}
	if err := checkText(area, subject, text); err != nil {
		l.faults, l.dead = err.(faults), true
	}
	return l
}

// checkText refuses what is no text.
func checkText(area, subject, text string) error {
	if !strings.HasSuffix(text, "\n") || strings.HasPrefix(text, "\n") || strings.Contains(text, "\n\n") {
		return refuse(area+"-syntax", subject, "an empty line, or no line feed at the end")
	}
	for i := range len(text) {
		if c := text[i]; c != '\n' && (c < 0x20 || c > 0x7e) {
			return refuse(area+"-syntax", subject, "byte %d is 0x%02x, not printable ASCII", i, c)
		}
	}
	return nil
}

func (l *lines) more() bool { return !l.dead && l.pos < len(l.text) }

// bad refuses the line last read.
func (l *lines) bad(code, format string, args ...any) {
	l.faults = append(l.faults, fault{l.area + "-" + code, l.subject, fmt.Sprintf("line %d: ", l.number) + fmt.Sprintf(format, args...)})
	l.dead = l.dead || len(l.faults) >= maxFindings
}

func (l *lines) fail(format string, args ...any) {
	if !l.dead {
		l.bad("syntax", format, args...)
		l.dead = true
	}
}

func (l *lines) next() string {
	if l.number++; l.dead {
		return ""
	}
	line, _, ok := strings.Cut(l.text[l.pos:], "\n")
	if !ok {
		l.fail("fewer lines than the document has")
		return ""
	}
	l.pos += len(line) + 1
	return line
}

// head reads the first line.
func (l *lines) head(want string) {
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

func (l *lines) numberField(name string, least int64) (n int64) {
	l.field(name, func(s string) (ok bool) {
		n, ok = parseNumber(s, maxNumber)
		return ok && n >= least
	})
	return n
}

// ascending refuses a line that stands behind a greater one, or twice; then it is not looked at again.
func (l *lines) ascending(before, line string) bool {
	if line < before {
		l.bad("unsorted", "%.200q stands behind a greater line", line)
	} else if line == before {
		l.bad("duplicate", "%.200q stands twice", line)
	}
	return line != before
}

// end returns all that is wrong, a rest that nobody read included.
func (l *lines) end() error {
	if l.more() {
		l.number++
		l.fail("more lines than the document has")
	}
	if len(l.faults) > 0 {
		return l.faults
	}
	return nil
}

// note is a signed note taken apart. It says nothing yet about who signed.
type note struct {
	text string
	sigs []signature
}

type signature struct {
	name, line string
	hash       uint32
	sig        []byte
	key        *key // of the signer, once it is verified
}

func parseNote(data []byte, area, subject string) (*note, error) {
	bad := func(format string, args ...any) (*note, error) {
		return nil, refuse(area+"-note", subject, format, args...)
	}
	split := bytes.LastIndex(data, []byte("\n\n"))
	if split < 0 || len(data)-split-2 > maxSigLines {
		return bad("has no empty line, or more than %d bytes behind it", maxSigLines)
	}
	n, rest := &note{text: string(data[:split+1])}, string(data[split+2:])
	if err := checkText(area, subject, n.text); err != nil {
		return nil, err
	}
	for rest != "" {
		line, after, ended := strings.Cut(rest, "\n")
		rest = after
		signed, dash := strings.CutPrefix(line, "— ")
		name, b64, _ := strings.Cut(signed, " ")
		raw, ok := decode64(b64)
		if !ended || !dash || !ok || len(raw) < 5 || name == "" || !utf8.ValidString(name) || strings.Contains(name, "+") ||
			strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || unicode.IsSpace(r) }) {
			return bad("malformed signature line %.200q", line)
		}
		n.sigs = append(n.sigs, signature{name, line, binary.BigEndian.Uint32(raw), raw[4:], nil})
	}
	if len(n.sigs) < 1 || len(n.sigs) > maxSignatures {
		return bad("%d signatures, not 1 to %d", len(n.sigs), maxSignatures)
	}
	return n, nil
}

// signers returns the signatures by the keys; there must be one. Those by other keys are ignored; one that names one of the keys and
// does not verify is a refusal of the whole note.
func (n *note) signers(keys []*key, area, subject string) (by []signature, err error) {
	text := []byte(n.text)
	seen := map[*key]bool{}
	for _, s := range n.sigs {
		for _, k := range keys {
			if k.name != s.name || k.hash != s.hash {
				continue
			}
			if seen[k] {
				return nil, refuse(area+"-note", subject, "two signatures by %s", k.id())
			}
			if !k.verify(text, s.sig) {
				return nil, refuse(area+"-signature", subject, "the signature by %s does not verify", k.id())
			}
			s.key, seen[k] = k, true
			by = append(by, s)
		}
	}
	if len(by) == 0 {
		return nil, refuse(area+"-unsigned", subject, "is signed by none of the %d keys that may", len(keys))
	}
	return by, nil
}
