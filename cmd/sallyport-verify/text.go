package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxNumber     = 1 << 62 // the largest size or number in a document
	maxSignatures = 100     // of a note
	maxSigLines   = 1 << 20 // bytes of them
	maxName       = 32      // of a person, an enclave, a track, a policy
	maxReason     = 500
)

// One spelling for each value.

// dateForm is read fast by its package; of what that takes, only whole seconds of UTC have 20 bytes and print again.
const dateForm = time.RFC3339

func isDate(s string) bool {
	t, err := time.Parse(dateForm, s)
	return err == nil && len(s) == len("2006-01-02T15:04:05Z") && string(t.AppendFormat(make([]byte, 0, 32), dateForm)) == s
}

// instant is the time of a date that isDate took.
func instant(date string) time.Time {
	t, _ := time.Parse(dateForm, date)
	return t
}

func isLowerHex(s string, length int) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) == length
}

func isDigest(s string) bool { return isLowerHex(s, 2*sha256.Size) }

// isDigestOrDash tells whether s may be what was before: a digest, but not of zeros, which stand for none elsewhere.
func isDigestOrDash(s string) bool { return s == "-" || isDigest(s) && strings.Trim(s, "0") != "" }

func digestOf[T []byte | string](b T) string {
	h := sha256.Sum256([]byte(b))
	return hex.EncodeToString(h[:])
}

// isName tells whether s may name a person, an enclave, a track or a policy.
func isName(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c != '-' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// isReason tells whether s says why.
func isReason(s string) bool {
	return s != "" && len(s) <= maxReason && isPrintable(s) && strings.TrimSpace(s) == s
}

// isKeyID tells whether s is the name and hash of a statement key.
func isKeyID(s string) bool {
	name, hash, _ := strings.Cut(s, "+")
	owner, ok := strings.CutSuffix(name, "/statement")
	return ok && isName(owner) && isLowerHex(hash, 8)
}

func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func parseNumber(s string, least, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= least && n <= most && strconv.FormatInt(n, 10) == s
}

// decode64 decodes standard padded base64. The package skips line feeds and carriage returns; the length shows them.
func decode64(s string) ([]byte, bool) { return append64(nil, []byte(s)) }

func append64(to, s []byte) ([]byte, bool) {
	raw, err := strict64.AppendDecode(to, s)
	return raw, err == nil && strict64.EncodedLen(len(raw)-len(to)) == len(s)
}

var strict64 = base64.StdEncoding.Strict()

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

func read(area, subject, text string, most int) *lines {
	l := &lines{area: area, subject: subject, text: text}
	l.refuse(len(text) > most, "size", "%d bytes, more than %d", len(text), most)
	l.refuse(!strings.HasSuffix(text, "\n") || strings.HasPrefix(text, "\n") || strings.Contains(text, "\n\n"), "syntax", "an empty line, or no line feed at the end")
	at := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && (r < 0x20 || r > 0x7e) })
	l.refuse(at >= 0, "syntax", "byte %d is not printable ASCII", at)
	return l
}

// refuse ends the reading if something is so.
func (l *lines) refuse(so bool, code, format string, args ...any) {
	if so && !l.dead {
		l.bad(code, format, args...)
		l.dead = true
	}
}

func (l *lines) has(code string) bool {
	return slices.ContainsFunc(l.faults, func(f fault) bool { return f.Code == code })
}

func (l *lines) more() bool { return !l.dead && l.pos < len(l.text) }

// bad refuses the line last read.
func (l *lines) bad(code, format string, args ...any) {
	l.faults = append(l.faults, fault{l.area + "-" + code, l.subject, fmt.Sprintf("line %d: ", l.number) + fmt.Sprintf(format, args...)})
	l.dead = l.dead || len(l.faults) >= maxFindings
}

func (l *lines) fail(format string, args ...any) { l.refuse(true, "syntax", format, args...) }

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

func (l *lines) numberField(name string, least, most int64) (n int64) {
	l.field(name, func(s string) (ok bool) {
		n, ok = parseNumber(s, least, most)
		return ok
	})
	return n
}

// header is what root, orders, allowlist and manifest begin with, each with some of these fields.
type header struct {
	area, subject                  string // of refusals
	digest                         string // of the text
	enclave, track, date, previous string
	version, root, orders          int64
}

func (l *lines) header(first string, fields ...string) header {
	h := header{area: l.area, subject: l.subject, digest: digestOf(l.text)}
	if line := l.next(); line != first {
		l.fail("%.200q instead of %q", line, first)
	}
	for _, name := range fields {
		switch name {
		case "enclave":
			h.enclave = l.field(name, isName)
		case "track":
			h.track = l.field(name, isName)
		case "date":
			h.date = l.field(name, isDate)
		case "previous":
			h.previous = l.field(name, isDigestOrDash)
		case "root":
			h.root = l.numberField(name, 1, maxNumber)
		case "orders":
			h.orders = l.numberField(name, 0, maxNumber)
		default: // version, shipment
			h.version = l.numberField(name, 1, maxNumber)
		}
	}
	if !l.dead && (h.version == 1) != (h.previous == "-") {
		l.bad("previous", "is %s in number %d", h.previous, h.version)
	}
	return h
}

// after tells what a document lacks to follow another of its kind.
func (h *header) after(before *header) (wrong faults) {
	next := h.version == before.version+1
	wrong.unless(next, h, "version", "says that it is version %d, after version %d", h.version, before.version)
	wrong.unless(!next || h.previous == before.digest, h, "previous", "previous is not the digest of number %d", before.version)
	wrong.unless(h.date >= before.date, h, "date", "its date is before that of number %d", before.version) // one spelling, so the order of bytes is that of time
	wrong.unless(h.enclave == before.enclave, h, "enclave", "is of %s, number %d of %s", h.enclave, before.version, before.enclave)
	wrong.unless(h.root >= before.root, h, "root", "names root %d, number %d names root %d", h.root, before.version, before.root)
	wrong.unless(h.orders >= before.orders, h, "orders", "names orders %d, number %d names orders %d", h.orders, before.version, before.orders)
	return wrong
}

// under tells what a document lacks to come into force under a root.
func (h *header) under(r *root) (wrong faults) {
	wrong.unless(h.enclave == r.enclave, h, "enclave", "is of %s", h.enclave)
	wrong.unless(h.root <= r.version, h, "root", "names root %d, which is not yet in force", h.root)
	wrong.unless(h.root != r.version || h.date >= r.date, h, "date", "its date is before that of root %d", r.version)
	return wrong
}

// body reads the lines that follow, sorted and each once, as far as take says that they are any.
func (l *lines) body(most int, take func(line string) bool) {
	before := ""
	for n := 1; l.more(); n++ {
		line := l.next()
		switch l.refuse(n > most, "size", "more than %d lines", most); {
		case l.dead:
		case line == before:
			l.bad("duplicate", "%.200q stands twice", line)
		case take(line):
			if line < before {
				l.bad("unsorted", "%.200q stands behind a greater line", line)
			}
			before = line
		}
	}
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
