package main

import (
	"crypto/ed25519"
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
	maxDepth    = 32 // of arrays and objects in a predicate
)

// kind is what one kind of statement demands: who signs it, and the members of its predicate beside time and zone.
type kind struct {
	signer  string
	members []member
}

// A member's form: s string, n name of a person or track, h sha256, i integer, a array, o object.
type member struct {
	name string
	form byte
}

var kinds = map[string]kind{
	"created":   {station, []member{{"enclave", 'n'}, {"kind", 's'}}},
	"root":      {station, []member{{"version", 'i'}}},
	"collected": {station, []member{{"bytes", 'i'}, {"items", 'i'}, {"request", 'h'}}},
	"inspected": {station, []member{{"bytes", 'i'}, {"confinement", 'o'}, {"files", 'i'}, {"findings", 'o'}}},
	"shipped":   {station, []member{{"bytes", 'i'}, {"items", 'i'}, {"shipment", 'i'}}},
	"imported":  {"importer", []member{{"bytes", 'i'}, {"items", 'i'}, {"person", 'n'}, {"shipment", 'i'}}},
	"refused":   {station, []member{{"reasons", 'a'}, {"stage", 's'}, {"total", 'i'}}},
	"approved":  {station, []member{{"person", 'n'}, {"signature", 's'}, {"track", 'n'}, {"version", 'i'}}},
	"rejected":  {station, []member{{"date", 's'}, {"person", 'n'}, {"reason", 's'}, {"shipment", 'i'}, {"signature", 's'}}},
	"allowed":   {station, []member{{"persons", 'a'}, {"track", 'n'}, {"version", 'i'}}},
	"signed":    {station, []member{{"track", 'n'}}},
	"built":     {"builder", []member{{"derivation", 's'}, {"derivation-sha256", 'h'}, {"outputs", 'o'}, {"person", 'n'}, {"system", 's'}}},
	"agreed":    {station, []member{{"builders", 'a'}, {"derivation", 's'}}},
	"disagreed": {station, []member{{"builders", 'o'}}},
}

// statement is one entry of a ledger, well formed but not yet believed.
type statement struct {
	kind      string
	keyid     string
	subjects  []subject
	predicate value
	payload   string
	sig       []byte
}

type subject struct{ name, digest string }

// value is a JSON value: s string, i integer, b boolean, a array, o object.
type value struct {
	form  byte
	str   string
	num   int64
	names []string // of an object's members
	list  []value  // members or elements
}

func (v *value) get(name string) *value {
	if i, ok := slices.BinarySearch(v.names, name); ok && v.form == 'o' {
		return &v.list[i]
	}
	return &value{}
}

func (v *value) is(form byte) bool {
	switch form {
	case 'n':
		return v.form == 's' && isName(v.str)
	case 'h':
		return v.form == 's' && isDigest(v.str)
	case 'i':
		return v.form == 'i' && v.num >= 0
	}
	return v.form == form
}

// parseEnvelope reads a DSSE envelope and the statement in it. Only the canonical bytes of each pass: the reader below accepts
// nothing that would be printed otherwise, so there is nothing to print again.
func parseEnvelope(leaf []byte) (*statement, error) {
	if len(leaf) > maxEnvelope {
		return nil, fmt.Errorf("%d bytes, more than %d", len(leaf), maxEnvelope)
	}
	s := &scanner{s: string(leaf)}
	s.literal(`{"payload":`)
	payload, ok := decode64(s.raw64())
	s.literal(`,"payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":`)
	st := &statement{keyid: s.str(), payload: string(payload)}
	s.literal(`,"sig":`)
	sig, ok2 := decode64(s.raw64())
	s.literal(`}]}`)
	if err := s.end("envelope"); err != nil {
		return nil, err
	}
	person, hash, _ := strings.Cut(st.keyid, "/statement+")
	if st.sig = sig; !ok || !ok2 || len(sig) != ed25519.SignatureSize || !isName(person) || !isLowerHex(hash, 8) {
		return nil, errors.New("envelope: payload, keyid or signature is not in its one spelling")
	}
	return st, st.parse()
}

// parse reads the payload.
func (st *statement) parse() error {
	s := &scanner{s: st.payload}
	s.literal(`{"_type":"https://in-toto.io/Statement/v1","subject":[`)
	for more := true; more && s.err == nil; more = s.skip(',') {
		s.literal(`{"name":`)
		sub := subject{name: s.str()}
		s.literal(`,"digest":{"sha256":`)
		sub.digest = s.str()
		s.literal(`}}`)
		if n := len(st.subjects); sub.name == "" || n > 0 && st.subjects[n-1].name >= sub.name {
			s.fail("subjects without a name, not sorted, or twice")
		} else if !isDigest(sub.digest) {
			s.fail("a subject's digest is no sha256")
		}
		st.subjects = append(st.subjects, sub)
	}
	s.literal(`],"predicateType":`)
	urn := s.str()
	s.literal(`,"predicate":`)
	st.predicate = s.value(0)
	s.literal(`}`)
	if err := s.end("payload"); err != nil {
		return err
	}
	name, ok := strings.CutPrefix(urn, "urn:sallyport:statement:")
	name, ok2 := strings.CutSuffix(name, ":1")
	if st.kind = name; !ok || !ok2 {
		return fmt.Errorf("payload: predicate type %.100q", urn)
	}
	return nil
}

// message is what the signature is over: DSSE's pre-authentication encoding.
func (st *statement) message() []byte {
	return []byte("DSSEv1 28 application/vnd.in-toto+json " + strconv.Itoa(len(st.payload)) + " " + st.payload)
}

// fits checks the predicate against what the kind asks for.
func (st *statement) fits() error {
	k, ok := kinds[st.kind]
	if !ok {
		return fmt.Errorf("kind %.100q is unknown", st.kind)
	}
	if st.predicate.form != 'o' {
		return errors.New("the predicate is no object")
	}
	for _, m := range k.members {
		if !st.predicate.get(m.name).is(m.form) {
			return fmt.Errorf("member %q is missing or of another form", m.name)
		}
	}
	if t := st.predicate.get("time"); t.form != 's' || !isDate(t.str) {
		return errors.New(`member "time" is no date`)
	}
	return nil
}

// extra names the members of the predicate that the page does not list.
func (st *statement) extra() (names []string) {
	for _, name := range st.predicate.names {
		if name != "time" && name != "zone" && !slices.ContainsFunc(kinds[st.kind].members, func(m member) bool { return m.name == name }) {
			names = append(names, name)
		}
	}
	return names
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
	s.literal(`"`)
	start, escapes := s.i, false
	for s.i < len(s.s) {
		c := s.s[s.i]
		switch {
		case c == '"':
			str := s.s[start:s.i]
			s.i++
			if escapes { // only \" and \\ passed below
				str = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(str)
			}
			return str
		case c == '\\':
			if next := s.s[s.i+1:]; next == "" || next[0] != '"' && next[0] != '\\' {
				s.fail("an escape that is not needed")
				return ""
			}
			escapes = true
			s.i += 2
		case c < 0x20:
			s.fail("control character in a string")
		case c < 0x7f:
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

func (s *scanner) value(depth int) value {
	if depth > maxDepth || s.i >= len(s.s) {
		s.fail("no value, or more than %d deep", maxDepth)
		return value{}
	}
	switch c := s.s[s.i]; {
	case c == '"':
		return value{form: 's', str: s.str()}
	case c == '{':
		v := value{form: 'o', names: make([]string, 0, 4), list: make([]value, 0, 4)}
		s.i++
		for more := !s.skip('}'); more && s.err == nil; {
			name := s.str()
			if n := len(v.names); n > 0 && v.names[n-1] >= name {
				s.fail("member %.100q is not sorted, or there twice", name)
			}
			s.literal(`:`)
			v.names, v.list = append(v.names, name), append(v.list, s.value(depth+1))
			if more = s.skip(','); !more {
				s.literal(`}`)
			}
		}
		return v
	case c == '[':
		v := value{form: 'a'}
		s.i++
		for more := !s.skip(']'); more && s.err == nil; {
			v.list = append(v.list, s.value(depth+1))
			if more = s.skip(','); !more {
				s.literal(`]`)
			}
		}
		return v
	case c == 't':
		s.literal("true")
		return value{form: 'b', num: 1}
	case c == 'f':
		s.literal("false")
		return value{form: 'b'}
	}
	end := s.i + 1
	for end < len(s.s) && s.s[end] >= '0' && s.s[end] <= '9' {
		end++
	}
	text := s.s[s.i:end]
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n > maxInteger || n < -maxInteger || strconv.FormatInt(n, 10) != text {
		s.fail("%.30q is no value", text)
	}
	s.i = min(end, len(s.s))
	return value{form: 'i', num: n}
}
