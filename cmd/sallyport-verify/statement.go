package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxEnvelope = 65_535
	maxInteger  = 1 << 53
	maxDepth    = 16 // of arrays and objects, the predicate being the first
)

// kind is what one kind of statement demands: the role of its signer, and the members of its predicate beside time and zone.
type kind struct {
	signer  string
	members []form
}

// form is a member's name and type: s string, n name of a person, enclave, track or zone's kind, h sha256, d date, z a ledger's origin,
// p store path, i number, o object, r reason; [] and {} are arrays and objects of what stands behind.
type form struct{ name, kind string }

// always is what every predicate has.
var always = []form{{"time", "d"}, {"zone", "z"}}

var kinds = map[string]kind{
	"created":   {station, []form{{"enclave", "n"}, {"kind", "n"}}},
	"root":      {station, []form{{"version", "i"}}},
	"collected": {station, []form{{"bytes", "i"}, {"items", "i"}, {"request", "h"}}},
	"inspected": {station, []form{{"bytes", "i"}, {"confinement", "o"}, {"files", "i"}, {"findings", "{}i"}}},
	"shipped":   {station, []form{{"bytes", "i"}, {"items", "i"}, {"shipment", "i"}}},
	"imported":  {"importer", []form{{"bytes", "i"}, {"items", "i"}, {"person", "n"}, {"shipment", "i"}}},
	"refused":   {station, []form{{"reasons", "[]r"}, {"stage", "s"}, {"total", "i"}}},
	"approved":  {station, []form{{"person", "n"}, {"signature", "s"}, {"track", "n"}, {"version", "i"}}},
	"rejected":  {station, []form{{"date", "d"}, {"person", "n"}, {"reason", "s"}, {"shipment", "i"}, {"signature", "s"}}},
	"allowed":   {station, []form{{"persons", "[]s"}, {"track", "n"}, {"version", "i"}}},
	"signed":    {station, []form{{"track", "n"}}},
	"built":     {"builder", []form{{"derivation", "p"}, {"derivation-sha256", "h"}, {"outputs", "{}o"}, {"person", "n"}, {"system", "s"}}},
	"agreed":    {station, []form{{"builders", "[]s"}, {"derivation", "p"}}},
	"disagreed": {station, []form{{"builders", "{}[]s"}}},
}

// statement is one entry of a ledger, well formed but not yet believed.
type statement struct {
	kind, keyid, payload string
	sig                  []byte
	subjects             []subject
	subjectText          string // their JSON
	predicate            []member
}

type subject struct{ name, digest string }

// member is one of an object, or an element of an array, which has no name. Its value is canonical JSON.
type member struct{ name, json string }

// get returns the JSON of a member, or nothing.
func get(members []member, name string) string {
	for _, m := range members {
		if m.name == name {
			return m.json
		}
	}
	return ""
}

func (st *statement) text(name string) string  { return unquote(get(st.predicate, name)) }
func (st *statement) number(name string) int64 { return number(get(st.predicate, name)) }

// jsonList takes an object or array apart that was read before.
func jsonList(json string) (members []member) {
	(&scanner{s: json}).value(1, &members)
	return members
}

func number(json string) int64 {
	n, err := strconv.ParseInt(json, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

func unquote(json string) string {
	if !strings.HasPrefix(json, `"`) {
		return ""
	}
	if json = json[1 : len(json)-1]; strings.Contains(json, `\`) {
		json = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(json) // there are no others
	}
	return json
}

// fits tells whether a value is of a type.
func fits(json, kind string) bool {
	if json == "" {
		return false
	}
	c := json[0]
	switch kind[0] {
	case 's':
		return c == '"'
	case 'n':
		return isName(unquote(json))
	case 'h':
		return isDigest(unquote(json))
	case 'd':
		return isDate(unquote(json))
	case 'z':
		_, ok := originEnclave(unquote(json))
		return ok
	case 'p':
		base, ok := strings.CutPrefix(unquote(json), "/gnu/store/")
		return ok && isStoreName(base)
	case 'i':
		return c >= '0' && c <= '9'
	case 'r':
		m := jsonList(json)
		return c == '{' && len(m) == 2 && m[0].name == "code" && m[1].name == "subject" && fits(m[0].json, "s") && fits(m[1].json, "s")
	}
	return c == kind[0] && !slices.ContainsFunc(jsonList(json), func(m member) bool { return !fits(m.json, kind[2:]) }) || kind == "o" && c == '{'
}

// checkEntry judges what can be judged of an entry without those before it. It returns the statement unless its form is wrong, and the
// key unless its signature does not count.
func checkEntry(leaf string, keys map[string][]*key, origin string) (*statement, *key, error) {
	st := &statement{subjects: make([]subject, 0, 1), predicate: make([]member, 0, 8)}
	if len(leaf) > maxEnvelope {
		return nil, nil, refuse("statement-size", "", "%d bytes, more than %d", len(leaf), maxEnvelope)
	}
	if err := st.parse(leaf); err != nil {
		return nil, nil, refuse("statement-not-canonical", "", "%v", err)
	}
	k, ok := kinds[st.kind]
	if !ok {
		return nil, nil, refuse("statement-kind", "", "kind %.100q is unknown", st.kind)
	}
	for _, forms := range [][]form{always, k.members} {
		for _, f := range forms {
			if !fits(get(st.predicate, f.name), f.kind) {
				return nil, nil, refuse("statement-predicate", "", "member %q is missing or of another type", f.name)
			}
		}
	}
	if err := st.more(); err != nil {
		return nil, nil, refuse("statement-predicate", "", "%v", err)
	}
	if zone := st.text("zone"); zone != origin {
		return st, nil, refuse("statement-zone", "", "made for %.100q", zone)
	}
	known := keys[st.keyid] // more than one only if two roots give two keys one number
	if len(known) == 0 {
		return st, nil, errUnknownKey
	}
	message := []byte("DSSEv1 28 application/vnd.in-toto+json " + strconv.Itoa(len(st.payload)) + " " + st.payload)
	for _, k := range known {
		if k.verify(message, st.sig) {
			return st, k, nil
		}
	}
	return st, nil, refuse("statement-signature", "", "the signature of %.100q does not verify", st.keyid)
}

var errUnknownKey = errors.New("the key is unknown")

// more checks what single kinds demand beyond the types of their members.
func (st *statement) more() error {
	switch st.kind {
	case "created", "root", "imported", "approved", "rejected", "allowed":
		if len(st.subjects) != 1 {
			return fmt.Errorf("%d subjects, not one", len(st.subjects))
		}
	}
	switch st.kind {
	case "rejected":
		if s := st.text("reason"); s == "" || len(s) > 500 || !isPrintable(s) || strings.TrimSpace(s) != s {
			return fmt.Errorf("%.600q is no reason", s)
		}
	case "built":
		paths := map[string]bool{}
		for _, o := range jsonList(get(st.predicate, "outputs")) {
			f := jsonList(o.json)
			if len(f) != 3 || f[0].name != "path" || f[1].name != "references" || f[2].name != "size" || !fits(f[0].json, "p") || !fits(f[1].json, "[]p") || !fits(f[2].json, "i") {
				return fmt.Errorf("output %.50q is not path, references and size", o.name)
			}
			if refs := jsonList(f[1].json); !slices.IsSortedFunc(refs, func(a, b member) int { return cmp.Or(strings.Compare(a.json, b.json), 1) }) || paths[unquote(f[0].json)] {
				return fmt.Errorf("output %.50q has references not sorted or twice, or the path of another", o.name)
			}
			paths[unquote(f[0].json)] = true
		}
		if len(paths) != len(st.subjects) || slices.ContainsFunc(st.subjects, func(s subject) bool { return !paths[s.name] }) {
			return fmt.Errorf("the subjects are not the outputs")
		}
	}
	return nil
}

// parse reads a DSSE envelope and the statement in it. Only the canonical bytes of each pass: the scanner accepts nothing that would be
// printed otherwise, so there is nothing to print again.
func (st *statement) parse(leaf string) error {
	s := &scanner{s: leaf}
	s.literal(`{"payload":`)
	payload, ok := decode64(s.raw64())
	s.literal(`,"payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":`)
	st.keyid = s.str()
	s.literal(`,"sig":`)
	sig, ok2 := decode64(s.raw64())
	s.literal(`}]}`)
	if !ok || !ok2 {
		s.fail("base64 in another spelling")
	}
	if err := s.end("envelope"); err != nil {
		return err
	}
	st.payload, st.sig = string(payload), sig
	return st.parsePayload()
}

func (st *statement) parsePayload() error {
	s := &scanner{s: st.payload}
	s.literal(`{"_type":"https://in-toto.io/Statement/v1","subject":[`)
	start := s.i
	for more := true; more && s.err == nil; more = s.skip(',') {
		s.literal(`{"name":`)
		sub := subject{name: s.str()}
		s.literal(`,"digest":{"sha256":`)
		sub.digest = s.str()
		s.literal(`}}`)
		if n := len(st.subjects); n > 0 && st.subjects[n-1].name >= sub.name || !isDigest(sub.digest) {
			s.fail("a subject without sha256, not sorted, or twice")
		}
		st.subjects = append(st.subjects, sub)
	}
	if s.err == nil {
		st.subjectText = s.s[start:s.i]
	}
	s.literal(`],"predicateType":`)
	st.kind = s.str()
	s.literal(`,"predicate":`)
	if s.err == nil && !strings.HasPrefix(s.s[s.i:], "{") {
		s.fail("the predicate is no object")
	}
	s.value(1, &st.predicate)
	s.literal(`}`)
	name, ok := strings.CutPrefix(st.kind, "urn:sallyport:statement:")
	if st.kind, _ = strings.CutSuffix(name, ":1"); !ok || st.kind == name {
		s.fail("predicate type %.100q", name)
	}
	return s.end("payload")
}

// scanner reads canonical JSON: no white space, members sorted and each once, one spelling for each string and number.
// The first thing wrong sticks; after it every read is empty.
type scanner struct {
	s   string
	i   int
	err error
}

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("byte %d: %s", s.i, fmt.Sprintf(format, args...))
	}
	s.i = len(s.s)
}

func (s *scanner) end(what string) error {
	if s.err == nil && s.i < len(s.s) {
		s.fail("trailing bytes")
	}
	if s.err != nil {
		return fmt.Errorf("%s: %w", what, s.err)
	}
	return nil
}

func (s *scanner) literal(want string) {
	if !strings.HasPrefix(s.s[s.i:], want) {
		s.fail("not %q", want)
		return
	}
	s.i += len(want)
}

// skip passes over c if it is next.
func (s *scanner) skip(c byte) bool {
	if s.i < len(s.s) && s.s[s.i] == c {
		s.i++
		return true
	}
	return false
}

// raw64 reads a string that is base64, so has no escapes; decode64 checks the rest.
func (s *scanner) raw64() string {
	s.literal(`"`)
	raw, _, ok := strings.Cut(s.s[s.i:], `"`)
	if !ok {
		s.fail("a string without an end")
		return ""
	}
	s.i += len(raw) + 1
	return raw
}

func (s *scanner) str() string {
	start := s.i
	s.literal(`"`)
	for s.i < len(s.s) {
		switch c := s.s[s.i]; {
		case c == '"':
			s.i++
			return unquote(s.s[start:s.i])
		case c == '\\':
			if next := s.s[s.i+1:]; next == "" || next[0] != '"' && next[0] != '\\' {
				s.fail("an escape that is not needed")
				return ""
			}
			s.i += 2
		case c >= 0x20 && c < 0x7f:
			s.i++
		default:
			r, n := utf8.DecodeRuneInString(s.s[s.i:])
			if r == utf8.RuneError && n == 1 || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
				s.fail("a character that strings must not hold")
				return ""
			}
			s.i += n
		}
	}
	s.fail("a string without an end")
	return ""
}

// value reads a value and returns its JSON. The members of an object and the elements of an array are appended to into, if there is one.
func (s *scanner) value(depth int, into *[]member) string {
	if s.i >= len(s.s) {
		s.fail("no value")
		return ""
	}
	start := s.i
	switch c := s.s[s.i]; c {
	case '"':
		s.str()
	case '{', '[':
		if depth > maxDepth {
			s.fail("more than %d deep", maxDepth)
		}
		s.i = min(s.i+1, len(s.s))
		closing, before := c+2, "" // ASCII has them so
		for first := true; s.err == nil && (!first || !s.skip(closing)); first = false {
			name := ""
			if c == '{' {
				if name = s.str(); !first && name <= before {
					s.fail("member %.100q is not sorted, or there twice", name)
				}
				s.literal(`:`)
				before = name
			}
			if json := s.value(depth+1, nil); into != nil {
				*into = append(*into, member{name, json})
			}
			if !s.skip(',') {
				s.literal(string(rune(closing)))
				break
			}
		}
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	default:
		end := s.i + 1
		for end < len(s.s) && s.s[end] >= '0' && s.s[end] <= '9' {
			end++
		}
		text := s.s[s.i:end]
		if n, err := strconv.ParseInt(text, 10, 64); err != nil || n > maxInteger || n < -maxInteger || strconv.FormatInt(n, 10) != text {
			s.fail("%.30q is no value", text)
			return ""
		}
		s.i = end
	}
	if s.err != nil {
		return ""
	}
	return s.s[start:s.i]
}
