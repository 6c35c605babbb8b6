package statement

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

// testStatement is a statement of the station with every type of value in it.
func testStatement() Statement {
	return Statement{
		Kind:     KindInspected,
		Subjects: []Subject{{"list", trust.Sum([]byte("list"))}, {"a second, with \"quotes\" and \\ and ü", trust.Sum(nil)}},
		Predicate: map[string]any{
			"time": trust.FormatDate(trusttest.Epoch), "zone": trusttest.Zone, "files": 12, "bytes": int64(1 << 53),
			"findings":    map[string]any{"high": 1, "low": 0},
			"confinement": map[string]any{"landlock": 7, "seccomp": true, "missing": []any{}, "more": map[string]any{}, "net": false},
			"extra":       []any{"x", int64(-1), []any{"y"}},
		},
	}
}

// envelopeOf signs any payload.
func envelopeOf(k *trust.Key, payload []byte) []byte {
	sig, err := k.Sign(trust.ContextStatement, dsse.PAE(payloadType, payload))
	if err != nil {
		panic(err)
	}
	return printEnvelope(payload, k.ID(), sig)
}

func TestStatementRoundTrip(t *testing.T) {
	e := trusttest.New(t)
	root := e.Open(e.Root())
	b, err := Sign(e.Key("station/statement"), testStatement())
	if err != nil {
		t.Fatal(err)
	}
	env, err := ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(env.Bytes(), b) || env.Kind() != KindInspected || env.KeyID() != e.Key("station/statement").ID() {
		t.Error("the envelope is not what was signed")
	}
	s, person, err := env.Verify(root, trusttest.Zone)
	if err != nil || person != trust.Station {
		t.Fatalf("%q, %v", person, err)
	}
	if s.Subjects[0].Name != "a second, with \"quotes\" and \\ and ü" || s.Predicate["files"] != int64(12) {
		t.Errorf("%+v", s)
	}
	if s, k, err := env.VerifyKeys(root.StationKeys(trusttest.Epoch)...); err != nil || k.Person != trust.Station || s.Kind != KindInspected {
		t.Error(err)
	}
	if env.Unverified().Kind != KindInspected {
		t.Error("unverified statement is another")
	}
	// Other readers of JSON see the same.
	var other struct {
		PayloadType, Payload string
		Signatures           []struct{ KeyID, Sig string }
	}
	if err := json.Unmarshal(b, &other); err != nil || other.PayloadType != payloadType || len(other.Signatures) != 1 {
		t.Fatalf("%+v, %v", other, err)
	}
	payload, _ := base64.StdEncoding.DecodeString(other.Payload)
	var compact bytes.Buffer
	if err := json.Compact(&compact, payload); err != nil || !bytes.Equal(compact.Bytes(), payload) {
		t.Errorf("not compact JSON: %s", payload)
	}
}

// The payload of one fault each; all are signed by the right key.
func TestStatementNotCanonical(t *testing.T) {
	k := trusttest.Key(t, "station/statement", "")
	s := testStatement()
	payload, err := s.Payload()
	if err != nil {
		t.Fatal(err)
	}
	good := string(payload)
	sub := func(old, new string) string { return trusttest.Replace(t, good, old, new) }
	predicate := func(value string) string { return sub(`"extra":["x",-1,["y"]]`, `"extra":`+value) }
	// "deep" of the predicate is at depth 2 already.
	deep := func(n int) string { return predicate(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	zero := strings.Repeat("0", 64)
	tests := []struct{ name, payload, code string }{
		{"good", good, ""},
		{"depth 16", deep(MaxDepth - 1), ""},
		{"depth 16 around a value", predicate(strings.Repeat("[", MaxDepth-1) + "1" + strings.Repeat("]", MaxDepth-1)), ""},
		{"2^53 below zero", predicate("-9007199254740992"), ""},
		{"depth 17", deep(MaxDepth), "statement-not-canonical"},
		{"depth of thousands", deep(10_000), "statement-not-canonical"},
		{"empty", "", "statement-not-canonical"},
		{"null", "null", "statement-not-canonical"},
		{"space after a colon", sub(`"files":12`, `"files": 12`), "statement-not-canonical"},
		{"line feed behind", good + "\n", "statement-not-canonical"},
		{"bytes behind", good + "{}", "statement-not-canonical"},
		{"byte order mark", "\ufeff" + good, "statement-not-canonical"},
		{"members out of order", sub(`"bytes":9007199254740992,"confinement"`, `"confinement":{},"bytes":1,"confinement"`), "statement-not-canonical"},
		{"member twice", sub(`"files":12`, `"files":12,"files":12`), "statement-not-canonical"},
		{"member twice, deep", sub(`"high":1`, `"high":0,"high":1`), "statement-not-canonical"},
		{"predicate twice", strings.TrimSuffix(good, "}") + `,"predicate":{}}`, "statement-not-canonical"},
		{"top members out of order", `{"subject":[],"_type":"` + statementType + `"}`, "statement-not-canonical"},
		{"unknown top member", strings.TrimSuffix(good, "}") + `,"x":1}`, "statement-not-canonical"},
		{"other type", sub("Statement/v1", "Statement/v0.1"), "statement-not-canonical"},
		{"other predicate type", sub("urn:sallyport:statement:inspected:1", "urn:sallyport:statement:inspected:2"), "statement-not-canonical"},
		{"kind in upper case", sub("statement:inspected:", "statement:Inspected:"), "statement-not-canonical"},
		{"no subject", `{"_type":"` + statementType + `","subject":[],"predicateType":"urn:sallyport:statement:signed:1","predicate":{}}`, "statement-not-canonical"},
		{"subjects out of order", sub(`{"name":"list"`, `{"name":"A","digest":{"sha256":"`+zero+`"}},{"name":"list"`), "statement-not-canonical"},
		{"subject twice", sub(`{"name":"list"`, `{"name":"list","digest":{"sha256":"`+zero+`"}},{"name":"list"`), "statement-not-canonical"},
		{"digest in upper case", sub(trust.Sum(nil).String(), strings.ToUpper(trust.Sum(nil).String())), "statement-not-canonical"},
		{"second digest", sub(`"sha256":"`+trust.Sum(nil).String()+`"`, `"sha256":"`+trust.Sum(nil).String()+`","sha512":""`), "statement-not-canonical"},
		{"null value", predicate("null"), "statement-not-canonical"},
		{"fraction", predicate("1.0"), "statement-not-canonical"},
		{"exponent", predicate("1e3"), "statement-not-canonical"},
		{"leading zero", predicate("01"), "statement-not-canonical"},
		{"plus", predicate("+1"), "statement-not-canonical"},
		{"minus zero", predicate("-0"), "statement-not-canonical"},
		{"minus alone", predicate("-"), "statement-not-canonical"},
		{"above 2^53", predicate("9007199254740993"), "statement-not-canonical"},
		{"above 2^64", predicate("18446744073709551617"), "statement-not-canonical"},
		{"True", predicate("True"), "statement-not-canonical"},
		{"comma too many", predicate("[1,]"), "statement-not-canonical"},
		{"comma missing", predicate("[1 2]"), "statement-not-canonical"},
		{"array without end", predicate("[1"), "statement-not-canonical"},
		{"string without end", good[:len(good)-20], "statement-not-canonical"},
		{"letter as an escape", predicate(`"\u0041"`), "statement-not-canonical"},
		{"escaped slash", predicate(`"\/"`), "statement-not-canonical"},
		{"escaped line feed", predicate(`"\n"`), "statement-not-canonical"},
		{"line feed", predicate("\"\n\""), "statement-not-canonical"},
		{"NUL", predicate("\"\x00\""), "statement-not-canonical"},
		{"DEL", predicate("\"\x7f\""), "statement-not-canonical"},
		{"C1", predicate("\"\u009b\""), "statement-not-canonical"},
		{"U+2028", predicate("\"\u2028\""), "statement-not-canonical"},
		{"U+2029", predicate("\"\u2029\""), "statement-not-canonical"},
		{"not UTF-8", predicate("\"\xff\""), "statement-not-canonical"},
		{"overlong UTF-8", predicate("\"\xc0\xaf\""), "statement-not-canonical"},
		{"surrogate", predicate("\"\xed\xa0\x80\""), "statement-not-canonical"},
		{"backslash at the end", predicate(`"\`), "statement-not-canonical"},
		{"unknown kind", sub("statement:inspected:", "statement:invented:"), "statement-kind"},
		{"no time", sub(`"time":"2026-03-01T09:00:00Z",`, ""), "statement-predicate"},
		{"time that is none", sub(`"2026-03-01T09:00:00Z"`, `"yesterday"`), "statement-predicate"},
		{"no zone", sub(`,"zone":"`+trusttest.Zone+`"`, ""), "statement-predicate"},
		{"zone that is none", sub(trusttest.Zone, "inside"), "statement-predicate"},
		{"member missing", sub(`"files":12,`, ""), "statement-predicate"},
		{"member of another type", sub(`"files":12`, `"files":"12"`), "statement-predicate"},
		{"negative count", sub(`"files":12`, `"files":-12`), "statement-predicate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseEnvelope(envelopeOf(k, []byte(tt.payload)))
			if tt.code == "" {
				trusttest.WantCodes(t, err)
				return
			}
			trusttest.WantCodes(t, err, tt.code)
		})
	}
}

func TestEnvelopeNotCanonical(t *testing.T) {
	k := trusttest.Key(t, "station/statement", "")
	b, err := Sign(k, testStatement())
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	sub := func(old, new string) string { return trusttest.Replace(t, good, old, new) }
	payload64 := good[len(envelope1):strings.Index(good, `","payloadType"`)]
	sig64 := good[strings.Index(good, `"sig":"`)+7 : len(good)-len(envelope4)]
	if !strings.HasSuffix(sig64, "==") {
		t.Fatal("64 bytes end in two equals signs")
	}
	spare := func(s string) string { // the last letter before the padding has spare bits
		i := strings.IndexByte(s, '=') - 1
		return s[:i] + string(s[i]+1) + s[i+1:]
	}
	sigObject := good[strings.Index(good, `{"keyid"`) : len(good)-2]
	tests := []struct{ name, text string }{
		{"empty", ""},
		{"cut", good[:len(good)-1]},
		{"line feed behind", good + "\n"},
		{"space", sub(`,"payloadType"`, `, "payloadType"`)},
		{"members in another order", `{"payloadType":"` + payloadType + `","payload":"` + payload64 + `","signatures":[` + sigObject + `]}`},
		{"member too many", strings.TrimSuffix(good, "}") + `,"x":1}`},
		{"payload twice", sub(`","payloadType"`, `","payload":"","payloadType"`)},
		{"other payload type", sub("in-toto+json", "in-toto+xml")},
		{"no signature", sub(sigObject, "")},
		{"two signatures", sub(sigObject, sigObject+","+sigObject)},
		{"line feed in the payload", sub(payload64, payload64[:8]+"\n"+payload64[8:])},
		{"escaped line feed in the payload", sub(payload64, payload64[:8]+`\n`+payload64[8:])},
		{"CR in the signature", sub(sig64, sig64[:8]+"\r"+sig64[8:])},
		{"no padding", sub(sig64, strings.TrimRight(sig64, "="))},
		{"spare bits set", sub(sig64, spare(sig64))},
		{"URL alphabet", sub(sig64, strings.Repeat("-_", 43)+"==")},
		{"empty signature", sub(sig64, "")},
		{"long signature", sub(sig64, base64.StdEncoding.EncodeToString(make([]byte, trust.MaxSignature+1)))},
		{"keyid without a hash", sub(k.ID(), k.Name())},
		{"keyid with its hash in upper case", sub(k.ID(), k.Name()+"+ABCDEF01")},
		{"keyid of another context", sub(k.ID(), "rada/allowlist+01234567")},
		{"keyid with a quote", sub(k.ID(), `station/st\"atement+01234567`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseEnvelope([]byte(tt.text))
			trusttest.WantCodes(t, err, "statement-not-canonical")
		})
	}
	_, err = ParseEnvelope(append(b, make([]byte, MaxEnvelopeSize)...))
	trusttest.WantCodes(t, err, "statement-size")
}

func TestEnvelopeSizeBound(t *testing.T) {
	k := trusttest.Key(t, "station/statement", "")
	s := testStatement()
	size := func(n int) ([]byte, error) {
		s.Predicate["extra"] = strings.Repeat("x", n)
		return Sign(k, s)
	}
	// Grow to the largest that is signed; its envelope parses, one step more is an error.
	lo, hi := 0, MaxEnvelopeSize
	for lo+1 < hi {
		if mid := (lo + hi) / 2; func() bool { _, err := size(mid); return err == nil }() {
			lo = mid
		} else {
			hi = mid
		}
	}
	b, err := size(lo)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxEnvelopeSize || len(b) < MaxEnvelopeSize-8 {
		t.Errorf("the largest envelope has %d bytes", len(b))
	}
	if _, err := ParseEnvelope(b); err != nil {
		t.Error(err)
	}
}

func TestSignRefuses(t *testing.T) {
	e := trusttest.New(t)
	with := func(change func(s *Statement)) Statement {
		s := testStatement()
		change(&s)
		return s
	}
	tests := []struct {
		name, key string
		s         Statement
	}{
		{"key of another context", "rada/allowlist", testStatement()},
		{"no subject", "station/statement", with(func(s *Statement) { s.Subjects = nil })},
		{"subject twice", "station/statement", with(func(s *Statement) { s.Subjects = append(s.Subjects, s.Subjects[0]) })},
		{"no predicate", "station/statement", with(func(s *Statement) { s.Predicate = nil })},
		{"unknown kind", "station/statement", with(func(s *Statement) { s.Kind = "invented" })},
		{"kind with a quote", "station/statement", with(func(s *Statement) { s.Kind = `a"b` })},
		{"float", "station/statement", with(func(s *Statement) { s.Predicate["x"] = 1.5 })},
		{"nil", "station/statement", with(func(s *Statement) { s.Predicate["x"] = nil })},
		{"above 2^53", "station/statement", with(func(s *Statement) { s.Predicate["x"] = int64(1<<53 + 1) })},
		{"line feed", "station/statement", with(func(s *Statement) { s.Predicate["x"] = "a\nb" })},
		{"not UTF-8", "station/statement", with(func(s *Statement) { s.Predicate["\xff"] = "a" })},
		{"member missing", "station/statement", with(func(s *Statement) { delete(s.Predicate, "files") })},
	}
	for _, tt := range tests {
		if _, err := Sign(e.Key(tt.key), tt.s); err == nil {
			t.Errorf("%s: signed", tt.name)
		}
	}
	// The convenient types print as the plain ones do.
	a := testStatement()
	a.Predicate["x"] = map[string]any{"d": trust.Sum(nil).String(), "l": []any{"a", "b"}, "m": map[string]any{"k": "v"}, "n": map[string]any{"k": 1}, "o": []any{map[string]any{"k": true}}, "t": trust.FormatDate(trusttest.Epoch)}
	b := testStatement()
	b.Predicate["x"] = map[string]any{"d": trust.Sum(nil), "l": []string{"a", "b"}, "m": map[string]string{"k": "v"}, "n": map[string]int64{"k": 1}, "o": []map[string]any{{"k": true}}, "t": trusttest.Epoch}
	one, err1 := a.Payload()
	two, err2 := b.Payload()
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("%s, %v\n%s, %v", one, err1, two, err2)
	}
}

// importedBy is a statement that a person signs.
func importedBy(person string) Statement {
	return Statement{KindImported, []Subject{{"manifest", trust.Sum([]byte("m"))}}, map[string]any{
		"time": trusttest.Epoch, "zone": trusttest.Zone, "shipment": 1, "items": 3, "bytes": 9, "person": person,
	}}
}

func TestVerifyStatement(t *testing.T) {
	e := trusttest.New(t)
	r := e.Root()
	r.Keys = append(r.Keys, e.Key("rada/statement").RootKey()) // a key, no role to use it in
	root := e.Open(r)
	sign := func(key string, s Statement) []byte {
		t.Helper()
		b, err := Sign(e.Key(key), s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	with := func(s Statement, name string, value any) Statement {
		s.Predicate = maps.Clone(s.Predicate)
		s.Predicate[name] = value
		return s
	}
	good := sign("ines/statement", importedBy("ines"))
	forged := bytes.Replace(good, []byte(e.Key("ines/statement").ID()), []byte(e.Key("bela/statement").ID()), 1)
	imposter := trusttest.Key(t, "ines/statement", "imposter")
	byImposter, err := Sign(imposter, importedBy("ines"))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		b    []byte
		code []string
	}{
		{"good", good, nil},
		{"unknown keyid", sign("zora/statement", importedBy("zora")), []string{"statement-key"}},
		{"a key without the role", sign("rada/statement", importedBy("rada")), []string{"statement-key"}},
		{"another's keyid", forged, []string{"statement-signature"}},
		{"another key of the same name", byImposter, []string{"statement-key"}},
		{"the hash of the known key on another's signature", bytes.Replace(byImposter, []byte(imposter.ID()), []byte(e.Key("ines/statement").ID()), 1), []string{"statement-signature"}},
		{"a role of another kind", sign("bela/statement", importedBy("bela")), []string{"statement-role"}},
		{"the station for a person", sign("station/statement", importedBy("station")), []string{"statement-role"}},
		{"a person for the station", sign("ines/statement", testStatement()), []string{"statement-role"}},
		{"another person named", sign("ines/statement", importedBy("rada")), []string{"statement-person"}},
		{"a ledger of another enclave", sign("ines/statement", with(importedBy("ines"), "zone", "sallyport/keep/inside")), []string{"statement-zone"}},
		{"an enclave of a longer name", sign("ines/statement", with(importedBy("ines"), "zone", "sallyport/citadel-2/inside")), []string{"statement-zone"}},
		{"all at once", sign("bela/statement", with(importedBy("rada"), "zone", "sallyport/keep/inside")), []string{"statement-role", "statement-person", "statement-zone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env, err := ParseEnvelope(tt.b)
			if err != nil {
				t.Fatal(err)
			}
			s, person, err := env.Verify(root, trusttest.Zone)
			trusttest.WantCodes(t, err, tt.code...)
			if err == nil && person != "ines" {
				t.Errorf("by %s", person)
			}
			if err != nil && s.Kind != "" {
				t.Error("a statement came with the refusal")
			}
		})
	}
	env, err := ParseEnvelope(good)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := trust.ParseRoot(r.Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := env.Verify(parsed, trusttest.Zone); err != trust.ErrNotOpened {
		t.Errorf("by a root that was not opened: %v", err)
	}
}

// An auditor checks an envelope with base64 and openssl.
func TestEnvelopeWithOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("SKIPPED: no openssl program found; install openssl to run this test")
	}
	k := trusttest.Key(t, "station/statement", "")
	b, err := Sign(k, testStatement())
	if err != nil {
		t.Fatal(err)
	}
	var env struct {
		PayloadType string
		Payload     []byte
		Signatures  []struct{ Sig []byte }
	}
	if err := json.Unmarshal(b, &env); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ed25519.PublicKey(k.VKey().Public))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pae := "DSSEv1 28 application/vnd.in-toto+json " + strconv.Itoa(len(env.Payload)) + " " + string(env.Payload)
	out, err := exec.Command(program, "pkeyutl", "-verify", "-pubin",
		"-inkey", write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"-rawin", "-in", write("pae", []byte(pae)), "-sigfile", write("sig", env.Signatures[0].Sig)).CombinedOutput()
	if err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func FuzzParseEnvelope(f *testing.F) {
	k := trusttest.Key(f, "station/statement", "")
	b, err := Sign(k, testStatement())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(envelope1 + envelope2 + envelope3 + envelope4))
	f.Fuzz(func(t *testing.T, b []byte) {
		env, err := ParseEnvelope(b)
		if err == nil && !bytes.Equal(env.Bytes(), b) {
			t.Fatalf("printed again\n%q\nwas\n%q", env.Bytes(), b)
		}
	})
}

// The payload alone, since base64 hides it from the fuzzer.
func FuzzParsePayload(f *testing.F) {
	for _, s := range []Statement{testStatement(), importedBy("ines")} {
		b, err := s.Payload()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parsePayload(b)
		if err != nil {
			return
		}
		if again, err := s.Payload(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("printed again\n%q\nwas\n%q", again, b)
		}
		if !json.Valid(b) {
			t.Fatalf("no JSON: %q", b)
		}
	})
}
