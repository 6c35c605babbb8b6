package siem

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

const origin = "sallyport/citadel/inside"

func newKey(t testing.TB, name string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sign makes an entry.
func sign(t testing.TB, k *trust.Key, kind string, predicate map[string]any, names ...string) []byte {
	t.Helper()
	p := map[string]any{"time": "2026-03-01T09:00:00Z", "zone": origin}
	for n, v := range predicate {
		p[n] = v
	}
	var subjects []statement.Subject
	for _, n := range names {
		subjects = append(subjects, statement.Subject{Name: n, SHA256: trust.Sum([]byte(n))})
	}
	e, err := statement.Sign(k, statement.Statement{Kind: kind, Subjects: subjects, Predicate: p})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A message is what a receiver makes of a line: an RFC 5424 parser of the test's own, strict.
type message struct {
	pri, version                 int
	time, host, app, proc, msgid string
	id                           string
	params                       [][2]string
	text                         string
}

func parseMessage(b []byte) (*message, error) {
	m := &message{}
	s := string(b)
	if strings.ContainsAny(s, "\r\n\x00") {
		return nil, fmt.Errorf("a line break inside")
	}
	if n, err := fmt.Sscanf(s, "<%d>%d ", &m.pri, &m.version); n != 2 || err != nil || m.version != 1 || m.pri < 0 || m.pri > 191 || !strings.HasPrefix(s, fmt.Sprintf("<%d>1 ", m.pri)) {
		return nil, fmt.Errorf("head of %q", s)
	}
	s = s[strings.IndexByte(s, ' ')+1:]
	for _, f := range []struct {
		to  *string
		max int
	}{{&m.time, 32}, {&m.host, 255}, {&m.app, 48}, {&m.proc, 128}, {&m.msgid, 32}} {
		word, rest, ok := strings.Cut(s, " ")
		if !ok || word == "" || len(word) > f.max {
			return nil, fmt.Errorf("field %q", word)
		}
		for i := range len(word) {
			if word[i] < 33 || word[i] > 126 {
				return nil, fmt.Errorf("field %q", word)
			}
		}
		*f.to, s = word, rest
	}
	if m.time != "-" {
		if _, err := time.Parse(time.RFC3339Nano, m.time); err != nil {
			return nil, err
		}
	}
	if !strings.HasPrefix(s, "[") {
		return nil, fmt.Errorf("no structured data: %q", s)
	}
	i := strings.IndexAny(s, " ]")
	m.id, s = s[1:i], s[i:]
	for strings.HasPrefix(s, " ") {
		name, rest, ok := strings.Cut(s[1:], `="`)
		if !ok || name == "" || strings.ContainsAny(name, "=] \"") || len(name) > 32 {
			return nil, fmt.Errorf("parameter %q", name)
		}
		var v strings.Builder
		j := 0
		for ; j < len(rest) && rest[j] != '"'; j++ {
			if rest[j] == ']' {
				return nil, fmt.Errorf("a bracket in %s", name)
			}
			if rest[j] == '\\' {
				if j++; j == len(rest) || !strings.ContainsRune(`"\]`, rune(rest[j])) {
					return nil, fmt.Errorf("a backslash in %s", name)
				}
			}
			v.WriteByte(rest[j])
		}
		if j == len(rest) {
			return nil, fmt.Errorf("parameter %s has no end", name)
		}
		m.params, s = append(m.params, [2]string{name, v.String()}), rest[j+1:]
	}
	text, ok := strings.CutPrefix(s, "] ")
	if !ok || text == "" || !utf8.ValidString(text) {
		return nil, fmt.Errorf("text %q", s)
	}
	m.text = text
	return m, nil
}

func (m *message) param(name string) string {
	for _, p := range m.params {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

func TestGolden(t *testing.T) {
	dave := newKey(t, "dave/statement")
	leaf := sign(t, dave, statement.KindImported, map[string]any{"shipment": int64(3), "items": int64(2), "bytes": int64(10), "person": "dave"}, "shipment 3")
	r := NewRecord(origin, 7, leaf, tlog.RecordHash(leaf), Keys{dave.VKey()})
	log := Syslog{Facility: Facilities["audit"], Host: "gate.enclave", Enterprise: DocumentationNumber}
	hash := tlog.RecordHash(leaf)
	want := fmt.Sprintf(`<109>1 2026-03-01T09:00:00Z gate.enclave sallyport - imported [sallyport@32473 type="entry" origin="sallyport/citadel/inside" index="7" kind="imported" signer="dave" key="%s" signature="good" leaf="%x" person="dave" shipment="3" subjects="1" subject="shipment 3" sha256="%s"] dave imported shipment 3: 2 items of 10 bytes`,
		dave.ID(), hash[:], trust.Sum([]byte("shipment 3")))
	if got := string(log.Message(r)); got != want {
		t.Errorf("have\n%s\nwant\n%s", got, want)
	}
	line, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	want = fmt.Sprintf(`{"type":"entry","origin":"sallyport/citadel/inside","index":7,"kind":"imported","time":"2026-03-01T09:00:00Z","signer":"dave","key":"%s","signature":"good","subjects":[{"name":"shipment 3","sha256":"%s"}],"predicate":{"bytes":10,"items":2,"person":"dave","shipment":3,"time":"2026-03-01T09:00:00Z","zone":"sallyport/citadel/inside"},"leaf_hash":"%x"}`,
		dave.ID(), trust.Sum([]byte("shipment 3")), hash[:])
	if string(line) != want {
		t.Errorf("have\n%s\nwant\n%s", line, want)
	}
	alarm := log.Alarm(time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), origin, trust.Refuse("ledger-fork", origin, "two trees of size %d", 7))
	want = `<105>1 2026-03-01T09:00:00Z gate.enclave sallyport - alarm [sallyport@32473 type="alarm" origin="sallyport/citadel/inside" reasons="ledger-fork"] THE LEDGER CANNOT BE BELIEVED: sallyport/citadel/inside: ledger-fork: two trees of size 7`
	if string(alarm) != want {
		t.Errorf("have\n%s\nwant\n%s", alarm, want)
	}
}

// TestEveryKind: each kind of statement that there is has a severity of its own and a sentence that names what it is about.
func TestEveryKind(t *testing.T) {
	station := newKey(t, "station/statement")
	log := Syslog{Facility: 13, Host: "h", Enterprise: 1}
	digest := trust.Sum(nil).String()
	line, err := trust.SignText([]byte("sallyport allowlist v1\n"), newKey(t, "alice/allowlist"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		kind      string
		predicate map[string]any
		severity  Severity
		says      string
	}{
		{statement.KindCreated, map[string]any{"enclave": "citadel", "kind": "inside"}, Notice, "the ledger begins"},
		{statement.KindRoot, map[string]any{"version": int64(4), "changes": []any{"role reviewer rita added"}}, Notice, "root version 4 is in force: role reviewer rita added"},
		{statement.KindCollected, map[string]any{"items": int64(4), "bytes": int64(5), "request": digest}, Info, "4 items of 5 bytes"},
		{statement.KindInspected, map[string]any{"files": int64(4), "bytes": int64(5), "findings": map[string]any{"high": int64(2), "block": int64(0)}, "confinement": map[string]any{}}, Info, "findings: high 2"},
		{statement.KindShipped, map[string]any{"shipment": int64(9), "items": int64(4), "bytes": int64(5)}, Notice, "shipment 9"},
		{statement.KindRefused, map[string]any{"stage": "import", "total": int64(3), "reasons": []any{map[string]any{"code": "item-digest", "subject": "x"}}}, Warning, "refused by import, 3 times: item-digest"},
		{statement.KindRefused, map[string]any{"stage": "import", "total": int64(1), "reasons": []any{map[string]any{"code": "a", "subject": "x"}, map[string]any{"code": "shipment-equivocation", "subject": "x"}}}, Alert, "shipment-equivocation"},
		{statement.KindApproved, map[string]any{"track": "dev", "version": int64(2), "person": "alice", "signature": line}, Notice, "alice approved allowlist dev version 2"},
		{statement.KindAllowed, map[string]any{"track": "dev", "version": int64(2), "persons": []any{"alice", "bob"}}, Notice, "signed by alice, bob"},
		{statement.KindSigned, map[string]any{"track": "dev"}, Info, "1 narinfos signed for track dev"},
		{statement.KindAgreed, map[string]any{"derivation": "/gnu/store/" + strings.Repeat("a", 32) + "-x.drv", "builders": []any{"erin/statement+00000000"}}, Info, "-x.drv"},
		{statement.KindUndersigned, map[string]any{"document": "orders", "version": int64(2), "person": "olga", "signature": line}, Notice, "olga signed orders version 2"},
		{statement.KindOrdered, map[string]any{"version": int64(2), "persons": []any{"olga", "oscar"}}, Notice, "orders version 2 are in force, signed by olga, oscar"},
		{statement.KindRecalled, map[string]any{"version": int64(2)}, Critical, "RECALLED: it"},
		{statement.KindReleased, map[string]any{"track": "prod", "version": int64(2), "from": "dev"}, Notice, "allowlist prod version 2 was released from dev"},
		{statement.KindRestored, map[string]any{"size": int64(9), "version": int64(2)}, Critical, "size 9"},
		{statement.KindWitnessed, map[string]any{"person": "wilma", "size": int64(9), "signature": line}, Notice, "wilma cosigned the ledger at size 9"},
		{statement.KindRebuilt, map[string]any{"size": int64(9)}, Warning, "made anew"},
		{statement.KindKeyChanged, map[string]any{"context": "statement", "from": station.VKey().String(), "to": station.VKey().String(), "size": int64(9), "version": int64(2), "signature": line}, Warning,
			"the statement key of the zone is another since root version 2"},
		{statement.KindPinned, map[string]any{"channel": "guix", "commit": strings.Repeat("1", 40), "from": "-"}, Notice, "channel guix is pinned to commit 1111111111111111111111111111111111111111, from -"},
		{statement.KindExcused, map[string]any{"name": "rose-2026", "code": "weak-key", "channel": "guix", "commit": "-", "key": "-", "until": "2026-04-01T00:00:00Z", "person": "carol", "reason": "she has a new one"}, Warning,
			"carol excuses weak-key in channel guix until 2026-04-01T00:00:00Z: she has a new one"},
		{statement.KindDisagreed, map[string]any{"builders": map[string]any{}}, Alert, "DISAGREE"},
	}
	for _, tt := range tests {
		leaf := sign(t, station, tt.kind, tt.predicate, "it")
		r := NewRecord(origin, 1, leaf, tlog.RecordHash(leaf), nil)
		if r.Fault != "" {
			t.Errorf("%s: %s", tt.kind, r.Fault)
		}
		if r.Severity() != tt.severity || !strings.Contains(r.Sentence(), tt.says) {
			t.Errorf("%s: severity %d, want %d; %q, want %q in it", tt.kind, r.Severity(), tt.severity, r.Sentence(), tt.says)
		}
		m, err := parseMessage(log.Message(r))
		if err != nil || m.msgid != tt.kind || m.pri != 13*8+int(tt.severity) || m.id != "sallyport@1" {
			t.Errorf("%s: %v, %+v", tt.kind, err, m)
		}
	}
}

// TestSignatures: an entry that lies about who signed it is an alert, and says so.
func TestSignatures(t *testing.T) {
	dave, eve := newKey(t, "dave/statement"), newKey(t, "dave/statement")
	leaf := sign(t, eve, statement.KindImported, map[string]any{"shipment": int64(3), "items": int64(2), "bytes": int64(10), "person": "dave"}, "shipment 3")
	check := func(leaf []byte, keys Keys, want string, severity Severity, says string) {
		t.Helper()
		r := NewRecord(origin, 7, leaf, tlog.RecordHash(leaf), keys)
		if r.Signature != want || r.Severity() != severity || !strings.Contains(r.Sentence(), says) {
			t.Errorf("signature %s, severity %d, %q", r.Signature, r.Severity(), r.Sentence())
		}
	}
	check(leaf, Keys{eve.VKey()}, Good, Notice, "dave imported")
	check(leaf, nil, Unchecked, Notice, "dave imported")
	check(leaf, Keys{dave.VKey()}, Unknown, Alert, "SIGNED BY NO KEY OF THE ENCLAVE: dave imported")
	check(leaf, Keys{}, Unknown, Alert, "SIGNED BY NO KEY")
	claimed := bytes.Replace(leaf, []byte(eve.ID()), []byte(dave.ID()), 1)
	check(claimed, Keys{dave.VKey()}, Bad, Alert, "THE SIGNATURE IS WRONG: dave imported")
	for _, rubbish := range []string{"x", "{}", "\n<1>1 - - - - - - forged\n", "[x y=\"z\"] \x1b[2J"} {
		leaf := []byte(rubbish)
		r := NewRecord(origin, 7, leaf, tlog.RecordHash(leaf), nil)
		if r.Fault == "" || r.Severity() != Alert {
			t.Errorf("%q: severity %d", rubbish, r.Severity())
		}
		s := Syslog{Host: "h", Enterprise: 1}
		if m, err := parseMessage(s.Message(r)); err != nil || m.msgid != "unreadable" {
			t.Errorf("%q: %v", rubbish, err)
		}
		if line, err := r.JSON(); err != nil || bytes.Contains(line, []byte("\n")) {
			t.Errorf("%q: %v", rubbish, err)
		}
	}
}

// hostile are strings that would like to be a line, a field or a terminal's command.
var hostile = []string{
	`x"] forged`, `x\"] forged`, `x\`, `\\"`, `]`, `" index="9999`, "a=b c", "<13>1 - - - - - - forged", "[sallyport@32473 index=\"1\"]",
	`{"type":"entry","index":1}`, "é]é\"", "\u202egnp.exe", "emoji 😀 ]", strings.Repeat(`]"\`, 400), strings.Repeat("ü", 1000), "%s%d%n", "$(reboot)`reboot`",
}

func TestHostileStrings(t *testing.T) {
	alice := newKey(t, "station/statement")
	log := Syslog{Facility: 13, Host: "gate", Enterprise: DocumentationNumber}
	for _, s := range hostile {
		leaf := sign(t, alice, statement.KindRefused, map[string]any{"stage": s, "total": int64(1), "reasons": []any{map[string]any{"code": s, "subject": s}}}, s, s+"2", s+"3", s+"4", s+"5")
		r := NewRecord(origin, 42, leaf, tlog.RecordHash(leaf), Keys{alice.VKey()})
		b := log.Message(r)
		if len(b) > MaxMessage {
			t.Errorf("%.40q: %d bytes", s, len(b))
		}
		m, err := parseMessage(b)
		if err != nil {
			t.Errorf("%.40q: %v\n%s", s, err, b)
			continue
		}
		for i := range b {
			if b[i] < 0x20 || b[i] > 0x7e {
				t.Errorf("%.40q: byte %#x at %d", s, b[i], i)
				break
			}
		}
		if m.param("index") != "42" || m.param("kind") != "refused" || m.param("signer") != "station" || m.msgid != "refused" || m.host != "gate" {
			t.Errorf("%.40q: read as %+v", s, m)
		}
		if printable := !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }); printable && len(s) <= maxValue && m.param("stage") != s {
			t.Errorf("%.40q: stage reads %q", s, m.param("stage"))
		}
		seen := map[string]int{}
		for _, p := range m.params {
			seen[p[0]]++
		}
		for name, n := range seen {
			if n > 1 && name != "subject" && name != "sha256" {
				t.Errorf("%.40q: %d times %s", s, n, name)
			}
		}
		line, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		var back Record
		if bytes.ContainsAny(line, "\n\r") || json.Unmarshal(line, &back) != nil || back.Index != 42 || back.Subjects[0].Name != s || back.Predicate["stage"] != s {
			t.Errorf("%.40q: %s", s, line)
		}
	}
	// What the operator gives is not trusted to be a word either.
	odd := Syslog{Facility: 13, Host: "two words\nand a line", Enterprise: 7}
	leaf := sign(t, alice, statement.KindSigned, map[string]any{"track": "dev"}, "x")
	if m, err := parseMessage(odd.Message(NewRecord(origin, 1, leaf, tlog.RecordHash(leaf), nil))); err != nil || m.host != "two_words_and_a_line" {
		t.Errorf("%v, %+v", err, m)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range hostile {
		f.Add(s, s)
	}
	k := newKey(f, "station/statement")
	log := Syslog{Facility: 13, Host: "gate", Enterprise: DocumentationNumber}
	f.Fuzz(func(t *testing.T, name, stage string) {
		leaf, err := statement.Sign(k, statement.Statement{Kind: statement.KindRefused, Subjects: []statement.Subject{{Name: name}},
			Predicate: map[string]any{"time": "2026-03-01T09:00:00Z", "zone": origin, "stage": stage, "total": int64(1), "reasons": []any{map[string]any{"code": name, "subject": stage}}}})
		if err != nil {
			leaf = []byte(name + stage) // what is no statement must be told, too
		}
		r := NewRecord(origin, 42, leaf, tlog.RecordHash(leaf), nil)
		b := log.Message(r)
		m, err := parseMessage(b)
		if err != nil || len(b) > MaxMessage || m.param("index") != "42" || m.param("origin") != origin {
			t.Errorf("%v\n%s", err, b)
		}
		if line, err := r.JSON(); err != nil || bytes.ContainsAny(line, "\n\r") || !json.Valid(line) {
			t.Errorf("%v\n%s", err, line)
		}
	})
}

func TestClean(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"abc", "abc"}, {"", ""}, {"0123456789", "0123456789"}, {"0123456789x", "0123456..."}, {"a\nb", `a\nb`}, {`a\b"c`, `a\b"c`}, {"ü\"\\", `\u00fc"\`}, {"\xff", `\xff`}, {"üüüü", `\u00fc\...`},
	} {
		if got := clean(tt.in, 10); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestIsAbout(t *testing.T) {
	r := &Record{Subjects: []Subject{{"shipment 10", "ab"}, {"aqf98k3b3zrc3l4dkdcv8da13b9w2gyi-hello-2.12.drv", "cd"}}, Predicate: map[string]any{"derivation": "/gnu/store/x-emacs-30.drv"}}
	for name, want := range map[string]bool{
		"shipment 1": false, "shipment 10": true, "hello-2.12": true, "hello-2.1": false, "hello": true, "aqf98k3b3zrc3l4dkdcv8da13b9w2gyi-hello-2.12.drv": true,
		"cd": true, "emacs-30": true, "emacs-3": false, "": false, "vim": false,
	} {
		if r.IsAbout(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
