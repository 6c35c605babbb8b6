package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxNumber    = 1 << 62 // the largest size or number in a document
	maxName      = 32      // of a person, an enclave, a track, a policy
	maxChannel   = 64
	maxBranch    = 200
	maxURL       = 1024
	maxReason    = 500
	maxStoreName = 217 // file names end at 255: 32 of hash, a dash, and Guix's ".lock" beside it
	storeHash    = 32
)

// is tells whether s is a value of this sort. All documents and statements share these sorts, and each value has one spelling.
func is(sort, s string) (ok bool) {
	switch sort {
	case "text":
		return true
	case "field", "word":
		return (s != "" || sort == "field") && !strings.Contains(s, " ")
	case "name": // of a person, an enclave, a track or a policy
		return s != "" && len(s) <= maxName && s[0] != '-' && isMadeOf(nameBytes, s)
	case "channel":
		return s != "" && len(s) <= maxChannel && strings.IndexByte("._+-", s[0]) < 0 && isMadeOf(channelBytes, s)
	case "role":
		return strings.Contains(roles, " "+s+" ") && is("word", s)
	case "context":
		return contexts[s].kinds != ""
	case "threshold":
		track, isList := strings.CutPrefix(s, "allowlist/")
		track, kind, hasKind := strings.Cut(track, "/")
		return s == "root" || s == "order" || isList && is("name", track) && (!hasKind || is("item kind", kind))
	case "number", "count":
		n, err := strconv.ParseInt(s, 10, 64)
		return err == nil && n <= maxNumber && (n > 0 || n == 0 && sort == "count") && strconv.FormatInt(n, 10) == s
	case "date":
		return isDate(s)
	case "bound":
		return s == "-" || is("date", s)
	case "sha256":
		return isHex(s, 2*sha256.Size)
	case "previous":
		return s == "-" || is("sha256", s) && strings.Trim(s, "0") != ""
	case "commit":
		return isHex(s, 40) && strings.Trim(s, "0") != ""
	case "commit or -":
		return s == "-" || is("commit", s)
	case "openpgp":
		return len(s) == 40 && strings.Trim(s, "0123456789ABCDEF") == "" && strings.Trim(s, "0") != ""
	case "openpgp or -":
		return s == "-" || is("openpgp", s)
	case "url": // of a channel
		ok = len(s) <= maxURL && !strings.Contains(s, " ") && isMadeOf(printable, s)
		return ok && slices.ContainsFunc([]string{"https://", "http://", "ssh://", "file:///"}, func(way string) bool { return len(s) > len(way) && s[:len(way)] == way })
	case "branch":
		for part := range strings.SplitSeq(s, "/") {
			if !isMadeOf(channelBytes, part) || part == "" || part[0] == '.' || part[0] == '-' || strings.HasSuffix(part, ".") || strings.HasSuffix(part, ".lock") {
				return false
			}
		}
		return len(s) <= maxBranch && s != "HEAD" && s != "keyring" && !strings.Contains(s, "..")
	case "tree":
		raw, ok := decode64(s)
		return ok && len(raw) == sha256.Size
	case "reason":
		return s != "" && len(s) <= maxReason && isMadeOf(printable, s) && strings.TrimSpace(s) == s
	case "item kind":
		return s == "source" || s == "derivation" || s == "output" || s == "channel"
	case "item name":
		return isStoreName(s)
	case "derivation":
		return isStoreName(s) && strings.HasSuffix(s, ".drv")
	case "path":
		base, ok := strings.CutPrefix(s, storeDir)
		return ok && isStoreName(base)
	case "keyid": // of a statement key
		name, hash, _ := strings.Cut(s, "+")
		owner, ok := strings.CutSuffix(name, "/statement")
		return ok && is("name", owner) && isHex(hash, 8)
	case "origin":
		return originEnclave(s) != ""
	case "line":
		_, ok := parseSignature(s)
		return ok
	case "document":
		return s == "root" || s == "orders"
	case "zone context":
		return s == "checkpoint" || s == "statement"
	case "zone key":
		k, ok := parseVKey(s)
		return ok && k.kind == edwards && (is("origin", k.name) || k.name == station+"/statement")
	}
	return false
}

// instant is the time of a date.
func instant(date string) time.Time {
	t, _ := time.Parse(time.RFC3339, date)
	return t
}

// number is the value of a number or a count.
func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// Alphabets: a bit of each byte's place in a table.
const (
	hexDigits    = 1 << iota
	nameBytes    // of a person, an enclave, a track, a policy
	channelBytes // of a channel or a part of a branch's name
	storeHashes  // Guix's base32 has no e, o, t, u
	storeNames
	printable
	plain // printable, and stands for itself in JSON
)

var alphabets = func() (table [256]byte) {
	const digits, lower, upper = "0123456789", "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	for bit, bytes := range []string{digits + "abcdef", digits + lower + "-", digits + lower + upper + "._+-", digits + "abcdfghijklmnpqrsvwxyz", digits + lower + upper + "+-._?="} {
		for _, c := range bytes {
			table[c] |= 1 << bit
		}
	}
	for c := ' '; c <= '~'; c++ {
		if table[c] |= printable; c != '"' && c != '\\' {
			table[c] |= plain
		}
	}
	return table
}()

// isMadeOf tells whether all bytes of s are of an alphabet.
func isMadeOf(alphabet byte, s string) bool {
	for i := range len(s) {
		alphabet &= alphabets[s[i]]
	}
	return alphabet != 0
}

func isHex(s string, length int) bool { return len(s) == length && isMadeOf(hexDigits, s) }

func isDate(s string) bool {
	const form = "0000-00-00T00:00:00Z"
	for i := range min(len(form), len(s)) {
		if c := s[i]; c != form[i] && (form[i] != '0' || c < '0' || c > '9') {
			return false
		}
	}
	_, err := time.Parse(time.RFC3339, s)
	return err == nil && len(s) == len(form)
}

const storeDir = "/gnu/store/"

// isStoreName tells whether s is the base name of a store path: HASH-NAME.
func isStoreName(s string) bool {
	return len(s) >= storeHash+2 && len(s) <= storeHash+1+maxStoreName && s[storeHash] == '-' && s[storeHash+1] != '.' &&
		isMadeOf(storeHashes, s[:storeHash]) && isMadeOf(storeNames, s[storeHash+1:])
}

// originEnclave returns the enclave of a ledger's origin sallyport/ENCLAVE/KIND, nothing if it is none.
func originEnclave(s string) string {
	rest, ok := strings.CutPrefix(s, "sallyport/")
	enclave, zone, _ := strings.Cut(rest, "/")
	if ok && is("name", enclave) && (zone == "outside" || zone == "staging" || zone == "inside") {
		return enclave
	}
	return ""
}

func digestOf[T []byte | string](b T) string {
	h := sha256.Sum256([]byte(b))
	return hex.EncodeToString(h[:])
}

// decode64 decodes standard padded base64 in its one spelling.
func decode64(s string) ([]byte, bool) { return append64(nil, []byte(s)) }

// append64 does most of that by four tables, twice as fast as the package, which does the end. The package skips line feeds and carriage
// returns; the length shows them.
func append64(to, s []byte) ([]byte, bool) {
	whole := max(len(s)-1, 0) / 8 * 8
	n, bad := len(to), uint32(0)
	to = slices.Grow(to, len(s)/4*3+2)
	to = to[:cap(to)]
	for i := 0; i < whole; i += 8 {
		c := [8]byte(s[i:])
		left := sextets[0][c[0]] | sextets[1][c[1]] | sextets[2][c[2]] | sextets[3][c[3]]
		right := sextets[0][c[4]] | sextets[1][c[5]] | sextets[2][c[6]] | sextets[3][c[7]]
		binary.BigEndian.PutUint64(to[n:], uint64(left)<<40|uint64(right)<<16)
		n, bad = n+6, bad|left|right
	}
	to, err := strict64.AppendDecode(to[:n], s[whole:])
	return to, err == nil && bad < 1<<24 && strict64.EncodedLen(len(to)-n) == len(s)-whole
}

var strict64 = base64.StdEncoding.Strict()

// sextets has the value of each digit of base64 in each of four places, and more than any value for all other bytes.
var sextets = func() (tables [4][256]uint32) {
	for place := range tables {
		for c := range tables[place] {
			tables[place][c] = 1 << 24
		}
		for value, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/" {
			tables[place][c] = uint32(value) << (18 - 6*place)
		}
	}
	return tables
}()

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

// match takes a line apart that is of one of these forms: a word, and the sorts of the fields behind it. Only the last may have spaces.
func match(line string, forms ...string) []string {
	for _, form := range forms {
		sorts := strings.Split(form, ", ")
		f := strings.SplitN(line, " ", len(sorts))
		good := len(f) == len(sorts) && f[0] == sorts[0]
		for i := 1; good && i < len(f); i++ {
			good = is(sorts[i], f[i])
		}
		if good {
			return f
		}
	}
	return nil
}

// field reads the next line, which must be of this form, and returns what stands behind its first word.
func (l *lines) field(form string) string {
	line := l.next()
	f := match(line, form)
	if f == nil {
		l.fail("%.200q is not of the form %q", line, form)
		return ""
	}
	return f[1]
}

// header is what root, orders, allowlist and manifest begin with, each with some of these fields.
type header struct {
	area, subject                  string // of refusals
	digest                         string // of the text
	enclave, track, date, previous string
	version, root, orders          int64 // the version of a manifest is the shipment's number
}

var headerForms = map[string]string{"enclave": "enclave, name", "track": "track, name", "version": "version, number", "shipment": "shipment, number",
	"date": "date, date", "root": "root, number", "orders": "orders, count", "previous": "previous, previous"}

func (l *lines) header(first string, fields ...string) header {
	line := l.next()
	l.refuse(l.area == "manifest" && line != first && strings.HasPrefix(line, "sallyport manifest v"), "format", "%.200q is of another format", line)
	l.refuse(line != first, "syntax", "%.200q instead of %q", line, first)
	v := map[string]string{}
	for _, name := range fields {
		v[name] = l.field(headerForms[name])
	}
	h := header{l.area, l.subject, digestOf(l.text), v["enclave"], v["track"], v["date"], v["previous"], number(v["version"] + v["shipment"]), number(v["root"]), number(v["orders"])}
	l.refuse((h.version == 1) != (h.previous == "-"), "previous", "is %s in number %d", h.previous, h.version)
	return h
}

func (h *header) head() *header { return h }

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

// sort puts what was found in the random order of maps, since this many faults, into order.
func (l *lines) sort(since int) { l.faults[since:].sorted() }

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
