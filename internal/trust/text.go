package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds on texts and values.
const (
	MaxSize      = 1 << 62   // of an item, in bytes
	MaxRootSize  = 1 << 20   // of a root's text
	MaxRootLines = 10_000    // of a root's body
	MaxListSize  = 256 << 20 // of a manifest's or an allowlist's text
	MaxItems     = 1_000_000 // of a manifest or an allowlist
	MaxReason    = 500       // characters of a reason
	maxName      = 32        // of a person, an enclave, a track, a policy
)

// dateForm is the one spelling of a date.
const dateForm = "2006-01-02T15:04:05Z"

// A Digest is a SHA-256. The zero Digest stands for "none".
type Digest [sha256.Size]byte

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// ParseDigest parses 64 lower-case hexadecimal digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return Digest{}, fmt.Errorf("digest %.80q: want 64 hexadecimal digits", s)
	}
	var bad byte
	for i := range d {
		hi, lo := unhex[s[2*i]], unhex[s[2*i+1]]
		bad |= hi | lo
		d[i] = hi<<4 | lo
	}
	if bad > 15 {
		return Digest{}, fmt.Errorf("digest %q: want lower-case hexadecimal digits", s)
	}
	return d, nil
}

// unhex has the value of each hexadecimal digit, 0xff for all other bytes.
var unhex = func() (t [256]byte) {
	for i := range t {
		t[i] = 0xff
	}
	for i, c := range "0123456789abcdef" {
		t[c] = byte(i)
	}
	return t
}()

// String returns the 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// IsZero reports whether d is the zero Digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText is String, for JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDigest, for JSON.
func (d *Digest) UnmarshalText(b []byte) error {
	v, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// ParseDate parses a date in its one spelling, YYYY-MM-DDTHH:MM:SSZ.
func ParseDate(s string) (time.Time, error) {
	t, err := time.Parse(dateForm, s)
	if err != nil || t.Format(dateForm) != s {
		return time.Time{}, fmt.Errorf("date %.80q: want YYYY-MM-DDTHH:MM:SSZ", s)
	}
	return t, nil
}

// FormatDate prints t in UTC with whole seconds.
func FormatDate(t time.Time) string { return t.UTC().Format(dateForm) }

func appendDate(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, dateForm) }

// ParseNumber parses a decimal number from 0 to limit, without sign or leading zeros.
func ParseNumber(s string, limit int64) (int64, error) {
	if s == "" || len(s) > 19 || len(s) > 1 && s[0] == '0' {
		return 0, fmt.Errorf("number %.40q: want decimal digits without leading zeros", s)
	}
	var n uint64
	for i := 0; i < len(s); i++ {
		c := s[i] - '0'
		if c > 9 {
			return 0, fmt.Errorf("number %.40q: want decimal digits", s)
		}
		n = n*10 + uint64(c) // 19 digits stay below 2^64
	}
	if n > uint64(limit) {
		return 0, fmt.Errorf("number %s: above %d", s, limit)
	}
	return int64(n), nil
}

// CheckWord checks the name of a person, an enclave, a track or a policy:
// [a-z0-9][a-z0-9-]{0,31}.
func CheckWord(s string) error {
	if s == "" || len(s) > maxName || s[0] == '-' {
		return fmt.Errorf("name %.60q: want [a-z0-9][a-z0-9-]{0,31}", s)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-') {
			return fmt.Errorf("name %.60q: want [a-z0-9][a-z0-9-]{0,31}", s)
		}
	}
	return nil
}

// CheckReason checks the reason that a person gives: 1 to [MaxReason] printable ASCII characters, no space at either end.
func CheckReason(s string) error {
	bad := s == "" || len(s) > MaxReason || s[0] == ' ' || s[len(s)-1] == ' '
	for i := 0; i < len(s) && !bad; i++ {
		bad = s[i]-0x20 > 0x5e
	}
	if bad {
		return fmt.Errorf("reason %.80q: want 1 to %d printable ASCII characters, no space at either end", s, MaxReason)
	}
	return nil
}

// CheckKeyID checks NAME+HASH8 of a key of the context.
func CheckKeyID(s string, want Context) error {
	name, hash, _ := strings.Cut(s, "+")
	_, context, err := parseKeyName(name)
	if err == nil && context != want {
		err = fmt.Errorf("key %q is not of the context %s", name, want)
	}
	if err == nil && (len(hash) != 8 || strings.Trim(hash, "0123456789abcdef") != "") {
		err = fmt.Errorf("keyid %.80q: want NAME+HASH8", s)
	}
	return err
}

// CheckLine checks the form of a signature line, and nothing of whose it is.
func CheckLine(line string) error {
	_, _, err := parseSigLine(line)
	return err
}

// parsePrevious parses a digest or, for none, `-`.
func parsePrevious(s string) (Digest, error) {
	if s == "-" {
		return Digest{}, nil
	}
	d, err := ParseDigest(s)
	if err == nil && d.IsZero() {
		err = errors.New("digest of zeros")
	}
	return d, err
}

// FormatPrevious prints the digest of the document before, `-` for none.
func FormatPrevious(d Digest) string {
	if d.IsZero() {
		return "-"
	}
	return d.String()
}

// A Scanner reads the lines of a text in order and collects what is wrong with
// it. Codes are the document's word, a hyphen and the fault: for "manifest"
// manifest-syntax, manifest-size, and so on.
type Scanner struct {
	doc  string
	rest string
	off  int64 // of rest
	lost bool  // a line was missing: the fields behind it would all be misread
	bad  Refusals
}

// NewScanner starts reading a text of at most limit bytes. The text as a whole is
// checked first: printable ASCII, each line ended, none empty.
func NewScanner(doc string, text []byte, limit int) (*Scanner, error) {
	if len(text) > limit {
		return nil, Refuse(doc+"-size", doc, "%d bytes, more than %d", len(text), limit)
	}
	if off, fault := checkText(text); fault != "" {
		return nil, Refuse(doc+"-syntax", doc, "%s", fault).At(off)
	}
	return scanChecked(doc, text), nil
}

// scanChecked is NewScanner for a text that [SplitNote] has checked.
func scanChecked(doc string, text []byte) *Scanner { return &Scanner{doc: doc, rest: string(text)} }

// checkText checks that a text is printable ASCII in lines that are ended and not
// empty. It returns "" or what is wrong, and where.
func checkText(text []byte) (off int64, fault string) {
	if len(text) == 0 {
		return 0, "empty"
	}
	if text[len(text)-1] != '\n' {
		return int64(len(text)), "the last line does not end in LF"
	}
	last := byte('\n')
	for i := 0; i < len(text); i++ {
		// Eight bytes at once where all are printable: a list has millions.
		for last != '\n' && i+8 <= len(text) && printable(binary.LittleEndian.Uint64(text[i:])) {
			i += 8
			last = text[i-1]
		}
		if i == len(text) {
			break
		}
		c := text[i]
		if c-0x20 > 0x5e && c != '\n' {
			return int64(i), fmt.Sprintf("byte 0x%02x is not printable ASCII", c)
		}
		if c == '\n' && last == '\n' {
			return int64(i), "empty line"
		}
		last = c
	}
	return 0, ""
}

// printable reports whether each of eight bytes is from 0x20 to 0x7e.
func printable(x uint64) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	below := x - 0x20*ones // borrows into the high bit of a byte below 0x20
	above := x + ones      // carries into the high bit of 0x7f
	return (x|below|above)&high == 0
}

func (s *Scanner) refuse(fault string, off int64, format string, args ...any) *Refusal {
	return Refuse(s.doc+"-"+fault, s.doc, format, args...).At(off)
}

// Refuse records a fault at the given offset.
func (s *Scanner) Refuse(fault string, off int64, format string, args ...any) {
	if !s.bad.Full() {
		s.bad.Add(s.refuse(fault, off, format, args...))
	}
}

// Err returns what was recorded, nil if nothing.
func (s *Scanner) Err() error { return s.bad.Err() }

// Offset is where the next line begins.
func (s *Scanner) Offset() int64 { return s.off }

// Next returns the next line without its LF, and its offset.
func (s *Scanner) Next() (line string, off int64, ok bool) {
	if s.rest == "" {
		return "", s.off, false
	}
	off = s.off
	i := strings.IndexByte(s.rest, '\n')
	line, s.rest = s.rest[:i], s.rest[i+1:]
	s.off += int64(i) + 1
	return line, off, true
}

// inOrder judges where a line stands: lines are sorted by their bytes, and none stands twice. It reports whether the line is to be read: one that stands
// there already is not.
func (s *Scanner) inOrder(last *string, line string, off int64) bool {
	order := strings.Compare(*last, line)
	if order == 0 {
		s.Refuse("duplicate", off, "line %.160q stands twice", line)
		return false
	}
	if order > 0 {
		s.Refuse("unsorted", off, "line %.160q stands behind a greater one", line)
	}
	*last = line
	return true
}

// sorted reads all lines up to the end of the text, at most so many, each in its order.
func (s *Scanner) sorted(most int, read func(off int64, line string)) {
	last := ""
	for n := 0; !s.bad.Full(); n++ {
		line, off, ok := s.Next()
		if !ok {
			return
		}
		if n == most {
			s.Refuse("size", off, "more than %d lines of body", most)
			return
		}
		if s.inOrder(&last, line, off) {
			read(off, line)
		}
	}
}

// Peek reports whether the next line begins with the word and a space.
func (s *Scanner) Peek(word string) bool {
	return strings.HasPrefix(s.rest, word) && strings.HasPrefix(s.rest[len(word):], " ")
}

// Title reads the first line, which must be as given.
func (s *Scanner) Title(title string) bool {
	line, off, _ := s.Next()
	if line != title {
		s.Refuse("syntax", off, "first line %.60q, want %q", line, title)
		return false
	}
	return true
}

// Field reads a line `WORD VALUE` whose value has no space. It returns "" if the
// next line is another one; then all further fields are "" too, without a word.
func (s *Scanner) Field(word string) string {
	if s.lost {
		return ""
	}
	if !s.Peek(word) {
		s.lost = true
		line, _, _ := strings.Cut(s.rest, "\n")
		s.Refuse("syntax", s.off, "line %.60q where %q must stand", line, word+" …")
		return ""
	}
	line, off, _ := s.Next()
	value := line[len(word)+1:]
	if value == "" || strings.Contains(value, " ") {
		s.Refuse("syntax", off, "%s: want one field, have %.60q", word, value)
		return ""
	}
	return value
}

// Word reads a line whose value is a name as [CheckWord] has it.
func (s *Scanner) Word(word string) string {
	off := s.off
	v := s.Field(word)
	if v != "" {
		if err := CheckWord(v); err != nil {
			s.Refuse("syntax", off, "%s: %v", word, err)
			return ""
		}
	}
	return v
}

// Number reads a line whose value is a number from 1 up.
func (s *Scanner) Number(word string) int64 {
	off, faults := s.off, len(s.bad)
	n := s.Count(word)
	if n == 0 && len(s.bad) == faults && !s.lost {
		s.Refuse("syntax", off, "%s: 0, want 1 or more", word)
	}
	return n
}

// Count reads a line whose value is a number from 0 up.
func (s *Scanner) Count(word string) int64 {
	off := s.off
	v := s.Field(word)
	if v == "" {
		return 0
	}
	n, err := ParseNumber(v, MaxSize)
	if err != nil {
		s.Refuse("syntax", off, "%s: %v", word, err)
		return 0
	}
	return n
}

// Date reads a line whose value is a date.
func (s *Scanner) Date(word string) time.Time {
	off := s.off
	v := s.Field(word)
	if v == "" {
		return time.Time{}
	}
	t, err := ParseDate(v)
	if err != nil {
		s.Refuse("syntax", off, "%s: %v", word, err)
	}
	return t
}

// Previous reads a line whose value is a digest, or `-` for the zero Digest.
// Exactly the first of a row of documents has none: first says whether
// this is it.
func (s *Scanner) Previous(word string, first bool) Digest {
	off := s.off
	v := s.Field(word)
	if v == "" {
		return Digest{}
	}
	d, err := parsePrevious(v)
	switch {
	case err != nil:
		s.Refuse("syntax", off, "%s: %v", word, err)
	case len(s.bad) == 0 && first != d.IsZero(): // else the version may not be known
		s.Refuse("previous", off, "%s is %q; `-` stands in the first version, a digest in all others", word, v)
	}
	return d
}

// Clip cuts what is quoted in a refusal.
func Clip(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}

// Count prints a number of things: 1 key, 2 keys, 3 entries.
func Count[N int | int64](n N, thing string) string {
	if n != 1 {
		switch {
		case strings.HasSuffix(thing, "ry"):
			thing = strings.TrimSuffix(thing, "y") + "ies"
		case strings.HasSuffix(thing, "sh"):
			thing += "es"
		default:
			thing += "s"
		}
	}
	return strconv.FormatInt(int64(n), 10) + " " + thing
}

func appendNumber(b []byte, n int64) []byte { return strconv.AppendInt(b, n, 10) }
