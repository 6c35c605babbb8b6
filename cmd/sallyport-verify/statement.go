package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxEnvelope  = 65_535
	maxSignature = 1024 // bytes of one
	maxInteger   = 1 << 53
	maxDepth     = 16 // of arrays and objects, the predicate being the first
)

// kind is what one kind of statement demands: the role of its signer, its subjects, and the members of its predicate.
type kind struct {
	signer, subjects string
	members          []form
}

// What the subjects of a kind are.
const (
	one     = "one"
	outputs = "outputs" // the paths that its member outputs has
	some    = "some"
)

// form is a member's name and what its value must be: a string, a number or a count of a sort (text.go), an object, or one of records; [] and {} are
// arrays and objects of what stands behind, []< an array that is sorted and has nothing twice.
type form struct{ name, value string }

// records are objects with these members, and others of the form rest.
var records = map[string]struct {
	members []form
	rest    string
}{
	"finding": {[]form{{"code", "text"}, {"subject", "text"}}, ""},
	"output":  {[]form{{"path", "path"}, {"references", "[]<path"}, {"size", "count"}}, "nothing"},
}

func says(signer, subjects, members string) *kind {
	k := &kind{signer: signer, subjects: subjects}
	for m := range strings.SplitSeq(members+", time date, zone origin", ", ") {
		name, value, _ := strings.Cut(m, " ")
		k.members = append(k.members, form{name, value})
	}
	slices.SortFunc(k.members, func(a, b form) int { return strings.Compare(a.name, b.name) })
	return k
}

var kinds = map[string]*kind{
	"created":     says(station, one, "enclave name, kind name"),
	"root":        says(station, one, "version number, changes []text"),
	"undersigned": says(station, one, "document document, version number, person name, signature line"),
	"ordered":     says(station, one, "version number, persons []text"),
	"recalled":    says(station, some, "version number"),
	"collected":   says(station, some, "items count, bytes count, request sha256"),
	"inspected":   says(station, some, "files count, bytes count, findings {}count, confinement object"),
	"shipped":     says(station, some, "shipment number, items count, bytes count"),
	"imported":    says("importer", one, "shipment number, items count, bytes count, person name"),
	"refused":     says(station, some, "stage text, reasons []finding, total count"),
	"approved":    says(station, one, "track name, version number, person name, signature line"),
	"submitted":   says("importer", one, "submission number, size number, channel channel, commit commit, basis commit or -, person name"),
	"declined":    says(station, one, "submission number, person name, date date, reason reason, signature line"),
	"rejected":    says(station, one, "shipment number, person name, date date, reason reason, signature line"),
	"allowed":     says(station, one, "track name, version number, persons []text"),
	"released":    says(station, one, "track name, version number, from name"),
	"signed":      says(station, some, "track name"),
	"built":       says("builder", outputs, "derivation path, derivation-sha256 sha256, outputs {}output, person name, system text"),
	"agreed":      says(station, some, "derivation path, builders []text"),
	"disagreed":   says(station, some, "builders {}[]text"),
	"restored":    says(station, one, "size number, version number"),
	"rebuilt":     says(station, one, "size number"),
	"key-changed": says(station, one, "context zone context, from zone key, to zone key, size number, version number, signature line"),
	"pinned":      says(station, one, "channel channel, commit commit, from commit or -"),
	"excused":     says(station, one, "name name, code name, channel channel, commit commit or -, key openpgp or -, until date, person name, reason reason"),
	"witnessed":   says(station, one, "person name, size number, signature line"),
	"checked":     says(station, one, "host name, date date, orders count, items count, recalled count, derived count, unknown count, kept count, report sha256"),
}

// statement is one entry of a ledger, well formed but not yet believed. Its strings lie in one that many entries share: clone what is kept.
type statement struct {
	kind, keyid, payload string
	of                   *kind // what its kind demands; nil of an unknown one
	sig                  []byte
	subjects             []subject
	subjectText          string // their JSON
	predicate            []member
	start, middle, end   int // where keyid and payload lie in the shared string
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
func (st *statement) keep(name string) string  { return strings.Clone(st.text(name)) }
func (st *statement) number(name string) int64 { return number(get(st.predicate, name)) }

// tree is one that an entry tells of.
func (st *statement) tree() tree {
	root, _ := hex.DecodeString(st.subjects[0].digest)
	return tree{st.number("size"), hash(root)}
}

// parts takes an object or array apart that was read before.
func parts(json string) (members []member) {
	(&scanner{s: json}).members(1, nil, "", &members)
	return members
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

// check judges what can be judged of an unsealed entry without those before it: its form, and whether any key of its keyid signed it.
func (e *entry) check(l *ledger, text string) {
	if e.err == nil {
		e.err = e.open(text)
	}
	known := l.keys[e.keyid] // more than one only if two roots give two keys one number
	if e.err != nil || len(known) == 0 {
		return
	}
	e.key = known[0]
	if l.persons && e.of.signer == station {
		return
	}
	message := []byte("DSSEv1 28 application/vnd.in-toto+json " + strconv.Itoa(len(e.payload)) + " " + e.payload)
	at := slices.IndexFunc(known, func(k *key) bool { return k.verify(message, e.sig) })
	if e.checked = true; at >= 0 {
		e.key, e.signed = known[at], true
	}
}

// signedBy tells what is wrong with the signature of an entry, k being the key of its keyid that is in force.
func (e *entry) signedBy(k *key, origin string, has func(role, person string) bool) (wrong faults) {
	role := e.of.signer
	switch {
	case k == nil || !k.counts(e.text("time")):
		wrong.add("statement-key", "", "key %.100q is unknown, or does not count at that time", e.keyid)
	case e.checked && !e.signed || e.key.raw != k.raw:
		wrong.add("statement-signature", "", "the signature of %.100q does not verify", e.keyid)
	default:
		if !has(role, k.owner) {
			wrong.add("statement-role", "", "signed by %s, who does not have role %s", k.owner, role)
		}
		if role != station && e.text("person") != k.owner {
			wrong.add("statement-person", "", "says %.100q, signed by %s", e.text("person"), k.owner)
		}
		if zone := e.text("zone"); zone != origin {
			wrong.add("statement-zone", "", "made for %.100q", zone)
		}
	}
	return wrong
}

// signature verifies the line of a note that the entry has, under a text that was printed again from what it says.
func (e *entry) signature(area, text string, keys []*key) (by []signature, wrong faults) {
	s, _ := parseSignature(e.text("signature"))
	by, _, wrong = (&note{area, e.String(), text, []signature{s}}).by(keys)
	return by, wrong
}

// unseal takes a DSSE envelope apart. What its base64 says is appended to the bytes that will be the shared string. Only the one
// spelling of an envelope passes.
func (st *statement) unseal(text, leaf []byte) ([]byte, error) {
	if len(leaf) > maxEnvelope {
		return text, refuse("statement-size", "", "%d bytes, more than %d", len(leaf), maxEnvelope)
	}
	rest, ok := bytes.CutPrefix(leaf, []byte(`{"payload":"`))
	payload, rest, ok1 := bytes.Cut(rest, []byte(`","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"`))
	keyid, rest, ok2 := bytes.Cut(rest, []byte(`","sig":"`))
	sig, ok3 := bytes.CutSuffix(rest, []byte(`"}]}`))
	var ok4, ok5 bool
	st.start, text = len(text), append(text, keyid...)
	st.middle = len(text)
	text, ok4 = append64(text, payload)
	st.end = len(text)
	st.sig, ok5 = append64(st.sig[:0], sig)
	if !ok || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || len(st.sig) < 1 || len(st.sig) > maxSignature {
		return text, refuse("statement-not-canonical", "", "not an envelope in its one spelling")
	}
	return text, nil
}

// open reads an unsealed entry from the shared string, and judges its form. It leaves a kind unless that is wrong.
func (st *statement) open(text string) error {
	st.keyid, st.payload = text[st.start:st.middle], text[st.middle:st.end]
	if !is("keyid", st.keyid) {
		return refuse("statement-not-canonical", "", "%.100q is no keyid", st.keyid)
	}
	misfits, err := st.parsePayload()
	if err != nil {
		return refuse("statement-not-canonical", "", "%v", err)
	}
	name := st.kind
	if st.kind = ""; st.of == nil {
		return refuse("statement-kind", "", "kind %.100q is unknown", name)
	}
	var wrong faults
	for _, name := range misfits {
		wrong.add("statement-predicate", "", "member %.100q is missing or of another type", name)
	}
	if len(wrong) > 0 {
		return wrong
	}
	st.kind = name
	var paths string // each output has one, and quotes within strings are escaped
	if st.of.subjects == outputs {
		paths = get(st.predicate, "outputs")
	}
	switch {
	case st.of.subjects == one && len(st.subjects) != 1:
		return refuse("statement-predicate", "", "%d subjects, not one", len(st.subjects))
	case st.of.subjects == outputs && (strings.Count(paths, `"path":"`) != len(st.subjects) || slices.ContainsFunc(st.subjects, func(s subject) bool { return !is("path", s.name) || !strings.Contains(paths, `"path":"`+s.name+`"`) })):
		return refuse("statement-predicate", "", "the subjects are not the outputs")
	case name == "submitted" && !st.isSubmission():
		return refuse("statement-predicate", "", "the item is not named by its content, its channel and its commit")
	}
	return nil
}

// parsePayload reads the statement in the envelope, and names the members that are missing or of another form. Only canonical bytes pass: the scanner accepts
// nothing that would be printed otherwise, so there is nothing to print again.
func (st *statement) parsePayload() (misfits []string, err error) {
	s := &scanner{s: st.payload}
	s.literal(`{"_type":"https://in-toto.io/Statement/v1","subject":[`)
	start := s.i
	for more := true; more && s.err == nil; more = s.skip(',') {
		s.literal(`{"name":`)
		sub := subject{name: s.str()}
		s.literal(`,"digest":{"sha256":`)
		sub.digest = s.str()
		s.literal(`}}`)
		if n := len(st.subjects); n > 0 && st.subjects[n-1].name >= sub.name || !is("sha256", sub.digest) {
			s.fail("a subject without sha256, not sorted, or twice")
		}
		st.subjects = append(st.subjects, sub)
	}
	if s.err == nil {
		st.subjectText = s.s[start:s.i]
	}
	s.literal(`],"predicateType":`)
	st.kind = s.str()
	name, ok := strings.CutPrefix(st.kind, "urn:sallyport:statement:")
	if st.kind, _ = strings.CutSuffix(name, ":1"); !ok || st.kind == name || !is("name", st.kind) {
		s.fail("predicate type %.100q", name)
	}
	s.literal(`,"predicate":`)
	if s.err == nil && s.peek() != '{' {
		s.fail("the predicate is no object")
	}
	var demanded []form
	if st.of = kinds[st.kind]; st.of != nil {
		demanded = st.of.members
	}
	misfits = s.members(1, demanded, "", &st.predicate)
	s.literal(`}`)
	return misfits, s.end("payload")
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

// peek returns the next byte; none is 0, which nothing begins with.
func (s *scanner) peek() byte {
	if s.i < len(s.s) {
		return s.s[s.i]
	}
	return 0
}

// skip passes over c if it is next.
func (s *scanner) skip(c byte) bool {
	if s.i < len(s.s) && s.s[s.i] == c {
		s.i++
		return true
	}
	return false
}

// str reads a string and returns what it says.
func (s *scanner) str() string {
	if !s.skip('"') {
		s.fail("no string")
	}
	start, escapes := s.i, false
	for text, i := s.s, s.i; i < len(text); i++ {
		c := text[i]
		if alphabets[c]&plain != 0 {
			continue
		}
		switch s.i = i + 1; c {
		case '"':
			if escapes {
				return unquote(text[start-1 : s.i])
			}
			return text[start:i]
		case '\\':
			if escapes = true; s.i == len(text) || text[s.i] != '"' && text[s.i] != '\\' {
				s.fail("an escape that is not needed")
				return ""
			}
			i++
		default:
			r, n := utf8.DecodeRuneInString(text[i:])
			if r == utf8.RuneError && n == 1 || unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
				s.fail("a character that strings must not hold")
				return ""
			}
			i += n - 1
		}
	}
	s.fail("a string without an end")
	return ""
}

// value reads a value, and tells whether it is of a form; any is of none.
func (s *scanner) value(depth int, form string) (json string, ok bool) {
	start := s.i
	switch c := s.peek(); c {
	case '"':
		text := s.str()
		ok = form != "number" && form != "count" && is(form, text)
	case '{', '[':
		record, found := records[form]
		if ok = c == '{' && (found || form == "object"); len(form) > 2 && form[0] == c {
			ok, record.rest = true, form[2:]
		}
		ok = len(s.members(depth, record.members, record.rest, nil)) == 0 && ok
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	default:
		end := min(s.i+1, len(s.s))
		for end < len(s.s) && s.s[end] >= '0' && s.s[end] <= '9' {
			end++
		}
		text := s.s[s.i:end]
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n > maxInteger || n < -maxInteger || strconv.FormatInt(n, 10) != text {
			s.fail("%.30q is no value", text)
		}
		s.i, ok = end, form == "number" && n > 0 || form == "count" && n >= 0
	}
	if s.err != nil {
		return "", false
	}
	return s.s[start:s.i], ok || form == ""
}

// members reads an object or an array into a list, if there is one. It names the members that are not as the forms say, which stand in the
// order of their names, or as rest says of all others.
func (s *scanner) members(depth int, forms []form, rest string, into *[]member) (misfits []string) {
	opening := s.peek()
	s.skip(opening)
	if depth > maxDepth {
		s.fail("more than %d deep", maxDepth)
	}
	rest, ascending := strings.CutPrefix(rest, "<")
	closing, before, last := opening+2, "", "" // ASCII has them so
	for first := true; s.err == nil && (!first || !s.skip(closing)); first = false {
		name, form := "", rest
		if opening == '{' {
			if name = s.str(); !first && name <= before {
				s.fail("member %.100q is not sorted, or there twice", name)
			}
			s.literal(`:`)
			before = name
		}
		for len(forms) > 0 && forms[0].name <= name {
			if form = forms[0].value; forms[0].name < name {
				form, misfits = rest, append(misfits, forms[0].name)
			}
			forms = forms[1:]
		}
		json, ok := s.value(depth+1, form)
		if !ok || ascending && json <= last {
			misfits = append(misfits, name)
		}
		last = json
		if into != nil {
			*into = append(*into, member{name, json})
		}
		if !s.skip(',') {
			if !s.skip(closing) {
				s.fail("not %q", closing)
			}
			break
		}
	}
	for _, f := range forms {
		misfits = append(misfits, f.name)
	}
	return misfits
}
