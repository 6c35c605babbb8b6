package main

import (
	"bytes"
	"errors"
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

// kind is what one kind of statement demands: the role of its signer, and the members of its predicate.
type kind struct {
	signer  string
	members []form
}

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

func says(signer, members string) kind {
	k := kind{signer: signer}
	for m := range strings.SplitSeq(members+", time date, zone origin", ", ") {
		name, value, _ := strings.Cut(m, " ")
		k.members = append(k.members, form{name, value})
	}
	slices.SortFunc(k.members, func(a, b form) int { return strings.Compare(a.name, b.name) })
	return k
}

var kinds = map[string]kind{
	"created":     says(station, "enclave name, kind name"),
	"root":        says(station, "version number, changes []text"),
	"undersigned": says(station, "document document, version number, person name, signature line"),
	"ordered":     says(station, "version number, persons []text"),
	"recalled":    says(station, "version number"),
	"collected":   says(station, "items count, bytes count, request sha256"),
	"inspected":   says(station, "files count, bytes count, findings {}count, confinement object"),
	"shipped":     says(station, "shipment number, items count, bytes count"),
	"imported":    says("importer", "shipment number, items count, bytes count, person name"),
	"refused":     says(station, "stage text, reasons []finding, total count"),
	"approved":    says(station, "track name, version number, person name, signature line"),
	"rejected":    says(station, "shipment number, person name, date date, reason reason, signature line"),
	"allowed":     says(station, "track name, version number, persons []text"),
	"released":    says(station, "track name, version number, from name"),
	"signed":      says(station, "track name"),
	"built":       says("builder", "derivation path, derivation-sha256 sha256, outputs {}output, person name, system text"),
	"agreed":      says(station, "derivation path, builders []text"),
	"disagreed":   says(station, "builders {}[]text"),
	"restored":    says(station, "size number, version number"),
	"rebuilt":     says(station, "size number"),
	"witnessed":   says(station, "person name, size number, signature line"),
	"checked":     says(station, "host name, date date, orders count, items count, recalled count, derived count, unknown count, kept count, report sha256"),
}

// statement is one entry of a ledger, well formed but not yet believed.
type statement struct {
	kind, keyid, payload string
	sig, raw             []byte
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

// check judges what can be judged of an entry without those before it: its form, and whether any key of its keyid signed it.
func (e *entry) check(l *ledger, index int64, leaf []byte) {
	*e = entry{statement: statement{subjects: e.subjects[:0], predicate: e.predicate[:0], sig: e.sig[:0], raw: e.raw[:0]}, index: index}
	if e.err = e.open(leaf); e.err != nil {
		return
	}
	known := l.keys[e.keyid] // more than one only if two roots give two keys one number
	if len(known) == 0 {
		return
	}
	e.key = known[0]
	if l.persons && kinds[e.kind].signer == station {
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
	role := kinds[e.kind].signer
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

// open reads an entry and judges its form. It leaves a kind unless that is wrong.
func (st *statement) open(leaf []byte) error {
	if len(leaf) > maxEnvelope {
		return refuse("statement-size", "", "%d bytes, more than %d", len(leaf), maxEnvelope)
	}
	misfits, err := st.parse(leaf)
	if err != nil {
		return refuse("statement-not-canonical", "", "%v", err)
	}
	name := st.kind
	if st.kind = ""; kinds[name].signer == "" {
		return refuse("statement-kind", "", "kind %.100q is unknown", name)
	}
	var wrong faults
	for _, name := range misfits {
		wrong.add("statement-predicate", "", "member %.100q is missing or of another type", name)
	}
	if len(wrong) > 0 {
		return wrong
	}
	switch st.kind = name; name {
	case "created", "root", "undersigned", "ordered", "imported", "approved", "rejected", "allowed", "released", "restored", "rebuilt", "witnessed", "checked":
		if len(st.subjects) != 1 {
			return refuse("statement-predicate", "", "%d subjects, not one", len(st.subjects))
		}
	case "built":
		outputs := get(st.predicate, "outputs") // each has one path, and quotes within strings are escaped
		if strings.Count(outputs, `"path":"`) != len(st.subjects) || slices.ContainsFunc(st.subjects, func(s subject) bool { return !strings.Contains(outputs, `"path":"`+s.name+`"`) }) {
			return refuse("statement-predicate", "", "the subjects are not the outputs")
		}
	}
	return nil
}

// parse reads a DSSE envelope and the statement in it, and names the members that are missing or of another form. Only the canonical
// bytes of each pass: the scanner accepts nothing that would be printed otherwise, so there is nothing to print again.
func (st *statement) parse(leaf []byte) (misfits []string, err error) {
	rest, ok := bytes.CutPrefix(leaf, []byte(`{"payload":"`))
	payload, rest, ok1 := bytes.Cut(rest, []byte(`","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"`))
	keyid, rest, ok2 := bytes.Cut(rest, []byte(`","sig":"`))
	sig, ok3 := bytes.CutSuffix(rest, []byte(`"}]}`))
	var ok4, ok5 bool
	st.raw, ok4 = append64(st.raw, payload)
	st.sig, ok5 = append64(st.sig, sig)
	if !ok || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || len(st.sig) < 1 || len(st.sig) > maxSignature || !is("keyid", string(keyid)) {
		return nil, errors.New("not an envelope in its one spelling")
	}
	st.keyid, st.payload = string(keyid), string(st.raw)
	return st.parsePayload()
}

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
	if s.err == nil && !strings.HasPrefix(s.s[s.i:], "{") {
		s.fail("the predicate is no object")
	}
	misfits = s.members(1, kinds[st.kind].members, "", &st.predicate)
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
	start := s.i
	s.literal(`"`)
	for text, i := s.s, s.i; i < len(text); {
		c := text[i]
		if i++; c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			continue
		}
		switch s.i = i; c {
		case '"':
			return unquote(text[start:i])
		case '\\':
			if i == len(text) || text[i] != '"' && text[i] != '\\' {
				s.fail("an escape that is not needed")
				return ""
			}
			i++
		default:
			r, n := utf8.DecodeRuneInString(text[i-1:])
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
