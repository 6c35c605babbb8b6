package trust_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
	"sallyport/internal/trust/trusttest"
)

// envelope signs any payload.
func (c *corpus) envelope(key string, payload []byte) []byte {
	return c.envelopeOf(c.e.Key(key), payload)
}

const payloadType = "application/vnd.in-toto+json"

func (c *corpus) envelopeOf(k *trust.Key, payload []byte) []byte {
	sig, err := k.Sign(k.Context(), fmt.Appendf(nil, "DSSEv1 28 %s %d %s", payloadType, len(payload), payload))
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`,
		base64.StdEncoding.EncodeToString(payload), payloadType, k.ID(), base64.StdEncoding.EncodeToString(sig))
}

func (c *corpus) payload(s statement.Statement) []byte {
	b, err := s.Payload()
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// say adds time and zone to a predicate.
func say(predicate map[string]any) map[string]any {
	p := map[string]any{"time": "2026-03-01T12:00:00Z", "zone": trusttest.Zone}
	for name, v := range predicate {
		p[name] = v
	}
	return p
}

func (c *corpus) statementCases() {
	judge := func(rules, name, about string, envelope []byte, codes ...string) *vector {
		c.add(vector{Name: "statement/" + name, Rules: strings.Fields(rules), About: about, Do: "statement", Pin: trust.Fingerprint(c.rootPin), Roots: []string{rootFile}, Origin: trusttest.Zone,
			File: c.file("statement/"+name, envelope), Codes: codes})
		return &c.cases[len(c.cases)-1]
	}
	manifest := statement.Subject{Name: "manifest", SHA256: trust.Sum([]byte("manifest"))}
	text := statement.Subject{Name: "text", SHA256: trust.Sum([]byte("text"))}
	inspected := statement.Statement{
		Kind:     statement.KindInspected,
		Subjects: []statement.Subject{manifest, {Name: "a second, with \"quotes\" and \\ and ü", SHA256: trust.Sum(nil)}},
		Predicate: say(map[string]any{"files": 12, "bytes": int64(1 << 53), "findings": map[string]any{"high": 1, "low": 0},
			"confinement": map[string]any{"landlock": 7, "seccomp": true, "missing": []any{}, "more": map[string]any{}, "net": false}, "extra": []any{"x", int64(-1), []any{"y"}}}),
	}
	station := "station/statement"
	good := string(c.payload(inspected))
	goodEnvelope := c.envelope(station, []byte(good))
	judge("S1 S2 S4 S5", "good", "every type of value", goodEnvelope)

	// The envelope.
	e := string(goodEnvelope)
	sub := func(old, new string) []byte { return []byte(trusttest.Replace(c.t, e, old, new)) }
	payload64 := base64.StdEncoding.EncodeToString([]byte(good))
	sig64 := e[strings.Index(e, `"sig":"`)+7 : len(e)-len(`"}]}`)]
	sigObject := e[strings.Index(e, `{"keyid"`) : len(e)-2]
	id := c.e.Key(station).ID()
	for _, m := range []struct {
		name, about string
		b           []byte
	}{
		{"empty", "nothing", nil},
		{"lf", "an LF behind it", []byte(e + "\n")},
		{"space", "a space", sub(`,"payloadType"`, `, "payloadType"`)},
		{"order", "members in another order", []byte(`{"payloadType":"` + payloadType + `","payload":"` + payload64 + `","signatures":[` + sigObject + `]}`)},
		{"member", "a member too many", []byte(strings.TrimSuffix(e, "}") + `,"x":1}`)},
		{"type", "another payload type", sub("in-toto+json", "in-toto+xml")},
		{"no-signature", "no signature", sub(sigObject, "")},
		{"two-signatures", "two signatures", sub(sigObject, sigObject+","+sigObject)},
		{"payload-lf", "an LF in the payload's base64", sub(payload64, payload64[:8]+"\n"+payload64[8:])},
		{"sig-no-padding", "no padding", sub(sig64, strings.TrimRight(sig64, "="))},
		{"sig-spare-bits", "spare bits", sub(sig64, spare(sig64))},
		{"sig-empty", "a signature of no bytes", sub(sig64, "")},
		{"sig-long", "a signature of 1,025 bytes", sub(sig64, base64.StdEncoding.EncodeToString(make([]byte, 1025)))},
		{"keyid-no-hash", "a KEYID without a hash", sub(id, station)},
		{"keyid-upper-case", "a KEYID with its hash in upper case", sub(id, station+"+ABCDEF01")},
		{"keyid-context", "a KEYID of another context", sub(id, "rada/allowlist+01234567")},
		{"keyid-person", "a KEYID of nobody", sub(id, "Rada/statement+01234567")},
	} {
		judge("S1 S2", "envelope-"+m.name, m.about, m.b, "statement-not-canonical")
	}
	big := inspected
	big.Predicate = say(inspected.Predicate)
	big.Predicate["extra"] = strings.Repeat("x", 49_000)
	judge("S1", "size", "more than 65,535 bytes", c.envelope(station, c.payload(big)), "statement-size")

	// The payload.
	p := func(old, new string) string { return trusttest.Replace(c.t, good, old, new) }
	value := func(v string) string { return p(`"extra":["x",-1,["y"]]`, `"extra":`+v) }
	deep := func(n int) string { return value(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	digest := trust.Sum(nil).String()
	for _, m := range []struct{ name, about, payload, code string }{
		{"deep-16", "arrays 16 deep", deep(15), ""},
		{"deep-16-value", "a value in the innermost", value(strings.Repeat("[", 15) + "1" + strings.Repeat("]", 15)), ""},
		{"deep-17", "arrays 17 deep", deep(16), "statement-not-canonical"},
		{"deep-1000", "arrays 1000 deep", deep(1000), "statement-not-canonical"},
		{"empty", "nothing", "", "statement-not-canonical"},
		{"null", "null", "null", "statement-not-canonical"},
		{"space", "a space behind a colon", p(`"files":12`, `"files": 12`), "statement-not-canonical"},
		{"lf", "an LF behind it", good + "\n", "statement-not-canonical"},
		{"more", "another object behind it", good + "{}", "statement-not-canonical"},
		{"bom", "a byte order mark", "\ufeff" + good, "statement-not-canonical"},
		{"unsorted", "members in another order", p(`"bytes":9007199254740992,"confinement"`, `"confinement":{},"bytes":1,"confinement"`), "statement-not-canonical"},
		{"member-twice", "a member twice", p(`"files":12`, `"files":12,"files":12`), "statement-not-canonical"},
		{"member-twice-deep", "a member of a member twice", p(`"high":1`, `"high":0,"high":1`), "statement-not-canonical"},
		{"predicate-twice", "a second predicate", strings.TrimSuffix(good, "}") + `,"predicate":{}}`, "statement-not-canonical"},
		{"top-member", "a member too many", strings.TrimSuffix(good, "}") + `,"x":1}`, "statement-not-canonical"},
		{"type", "another type of statement", p("Statement/v1", "Statement/v0.1"), "statement-not-canonical"},
		{"no-subject", "no subject", `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"urn:sallyport:statement:signed:1","predicate":{}}`, "statement-not-canonical"},
		{"subjects-unsorted", "subjects in another order", p(`{"name":"manifest"`, `{"name":"A","digest":{"sha256":"`+digest+`"}},{"name":"manifest"`), "statement-not-canonical"},
		{"subject-twice", "two subjects of one name", p(`{"name":"manifest"`, `{"name":"manifest","digest":{"sha256":"`+digest+`"}},{"name":"manifest"`), "statement-not-canonical"},
		{"digest-upper-case", "a digest in upper case", p(digest, strings.ToUpper(digest)), "statement-not-canonical"},
		{"digest-second", "a second digest", p(`"sha256":"`+digest+`"`, `"sha256":"`+digest+`","sha512":""`), "statement-not-canonical"},
		{"value-null", "null as a value", value("null"), "statement-not-canonical"},
		{"fraction", "a fraction", value("1.0"), "statement-not-canonical"},
		{"exponent", "an exponent", value("1e3"), "statement-not-canonical"},
		{"leading-zero", "a leading zero", value("01"), "statement-not-canonical"},
		{"minus-zero", "minus zero", value("-0"), "statement-not-canonical"},
		{"integer-least", "-2^53", value("-9007199254740992"), ""},
		{"integer-above", "2^53 + 1", value("9007199254740993"), "statement-not-canonical"},
		{"escaped-letter", "a letter escaped", value(`"\u0041"`), "statement-not-canonical"},
		{"escaped-slash", "a slash escaped", value(`"\/"`), "statement-not-canonical"},
		{"escaped-lf", "an LF escaped", value(`"\n"`), "statement-not-canonical"},
		{"control", "a control character", value("\"\x01\""), "statement-not-canonical"},
		{"del", "U+007F", value("\"\x7f\""), "statement-not-canonical"},
		{"c1", "U+009B", value("\"\u009b\""), "statement-not-canonical"},
		{"u2028", "U+2028", value("\"\u2028\""), "statement-not-canonical"},
		{"not-utf8", "a byte that is not UTF-8", value("\"\xff\""), "statement-not-canonical"},
		{"overlong", "a slash in two bytes", value("\"\xc0\xaf\""), "statement-not-canonical"},
		{"surrogate", "half a pair", value("\"\xed\xa0\x80\""), "statement-not-canonical"},
	} {
		var codes []string
		if m.code != "" {
			codes = []string{m.code}
		}
		judge("S2", "payload-"+m.name, m.about, c.envelope(station, []byte(m.payload)), codes...)
	}
	judge("S3", "kind-unknown", "a kind that there is not", c.envelope(station, []byte(p("statement:inspected:", "statement:invented:"))), "statement-kind")
	judge("S2 S3", "kind-upper-case", "a kind that cannot be", c.envelope(station, []byte(p("statement:inspected:", "statement:Inspected:"))), "statement-not-canonical")
	judge("S2 S3", "kind-version", "another version", c.envelope(station, []byte(p("statement:inspected:1", "statement:inspected:2"))), "statement-not-canonical")
	judge("S4", "no-time", "no time", c.envelope(station, []byte(p(`"time":"2026-03-01T12:00:00Z",`, ""))), "statement-predicate")
	judge("S4", "time-form", "a time that is no date", c.envelope(station, []byte(p(`2026-03-01T12:00:00Z`, "noon"))), "statement-predicate")
	judge("S4", "no-zone", "no zone", c.envelope(station, []byte(p(`,"zone":"`+trusttest.Zone+`"`, ""))), "statement-predicate")
	judge("S4", "zone-form", "a zone that is no origin", c.envelope(station, []byte(p(trusttest.Zone, "inside"))), "statement-predicate")
	judge("S4", "no-member", "a member of the table is missing", c.envelope(station, []byte(p(`"files":12,`, ""))), "statement-predicate")
	judge("S4", "member-type", "a string for a number", c.envelope(station, []byte(p(`"files":12`, `"files":"12"`))), "statement-predicate")
	judge("S4", "member-negative", "a count below 0", c.envelope(station, []byte(p(`"files":12`, `"files":-12`))), "statement-predicate")
	judge("S4", "members-two", "two are missing", c.envelope(station, []byte(strings.Replace(p(`"files":12,`, ""), `"findings":{"high":1,"low":0},`, "", 1))), "statement-predicate", "statement-predicate")

	// One of each kind.
	line := c.line([]byte("text\n"), c.e.Key("rada/allowlist"))
	out := storepath.Dir + "/" + trusttest.Base("out", "hello-2.12")
	drv := storepath.Dir + "/" + helloDrv
	rejection := statement.Rejection{Enclave: "citadel", Arrival: 7, Digest: manifest.SHA256, Date: trusttest.Epoch, Reason: `a "blob" in src\`}
	_, rejected, err := rejection.Predicate(c.e.Key("rada/allowlist"))
	if err != nil {
		c.t.Fatal(err)
	}
	pack := trust.Sum([]byte("pack"))
	path, err := storepath.Source("ours-channel-"+strings.Repeat("1", 40), pack)
	if err != nil {
		c.t.Fatal(err)
	}
	item := statement.Subject{Name: path.Base(), SHA256: pack}
	declining := statement.Rejection{Enclave: "citadel", Arrival: -7, Digest: pack, Date: trusttest.Epoch, Reason: "not asked for"}
	_, declined, err := declining.Predicate(c.e.Key("rada/allowlist"))
	if err != nil {
		c.t.Fatal(err)
	}
	submitted := map[string]any{"submission": 7, "size": 4, "channel": "ours", "commit": strings.Repeat("1", 40), "basis": "-", "person": "ines"}
	built := map[string]any{"derivation": drv, "derivation-sha256": digest, "person": "bela", "system": "x86_64-linux",
		"outputs": map[string]any{"out": map[string]any{"path": out, "size": 100, "references": []string{out}}}}
	for _, k := range []struct {
		kind, key string
		subject   statement.Subject
		predicate map[string]any
		missing   string // a member without which it is none
	}{
		{statement.KindCreated, station, statement.Subject{Name: trusttest.Zone}, map[string]any{"enclave": "citadel", "kind": "inside"}, "kind"},
		{statement.KindRoot, station, text, map[string]any{"version": 1, "changes": []string{"the first root"}}, "changes"},
		{statement.KindUndersigned, station, text, map[string]any{"document": "orders", "version": 1, "person": "olga", "signature": line}, "document"},
		{statement.KindOrdered, station, text, map[string]any{"version": 1, "persons": []string{"olga", "omar"}}, "persons"},
		{statement.KindRecalled, station, statement.Subject{Name: trusttest.Base("order", "bad-1.0.tar.gz")}, map[string]any{"version": 1}, "version"},
		{statement.KindCollected, station, text, map[string]any{"items": 1, "bytes": 0, "request": digest}, "request"},
		{statement.KindShipped, station, manifest, map[string]any{"shipment": 1, "items": 1, "bytes": 0}, "shipment"},
		{statement.KindImported, "ines/statement", manifest, map[string]any{"shipment": 1, "items": 1, "bytes": 0, "person": "ines"}, "person"},
		{statement.KindRefused, station, text, map[string]any{"stage": "gate", "total": 1, "reasons": []map[string]any{{"code": "x", "subject": "y"}}}, "reasons"},
		{statement.KindApproved, station, text, map[string]any{"track": "dev", "version": 1, "person": "rada", "signature": line}, "signature"},
		{statement.KindRejected, station, manifest, rejected, "reason"},
		{statement.KindSubmitted, "ines/statement", item, submitted, "basis"},
		{statement.KindDeclined, station, item, declined, "submission"},
		{statement.KindAllowed, station, text, map[string]any{"track": "dev", "version": 1, "persons": []string{"rada", "remy"}}, "track"},
		{statement.KindReleased, station, text, map[string]any{"track": "prod", "version": 1, "from": "dev"}, "from"},
		{statement.KindSigned, station, text, map[string]any{"track": "dev"}, "track"},
		{statement.KindBuilt, "bela/statement", statement.Subject{Name: out, SHA256: trust.Sum(nil)}, built, "outputs"},
		{statement.KindAgreed, station, statement.Subject{Name: out}, map[string]any{"derivation": drv, "builders": []string{id}}, "builders"},
		{statement.KindDisagreed, station, text, map[string]any{"builders": map[string]any{id: []string{out + " " + digest}}}, "builders"},
		{statement.KindRebuilt, station, statement.Subject{Name: trusttest.Zone, SHA256: trust.Sum([]byte("tree"))}, map[string]any{"size": 99}, "size"},
		{statement.KindKeyChanged, station, statement.Subject{Name: trusttest.Zone, SHA256: trust.Sum([]byte("tree"))}, map[string]any{"context": "checkpoint", "from": trusttest.Key(c.t, trusttest.Zone, "").VKey().String(),
			"to": trusttest.Key(c.t, trusttest.Zone, "new").VKey().String(), "size": 99, "version": 2, "signature": line}, "to"},
		{statement.KindPinned, station, statement.Subject{Name: "guix", SHA256: trust.Sum([]byte("pin"))}, map[string]any{"channel": "guix", "commit": strings.Repeat("1", 40), "from": "-"}, "from"},
		{statement.KindExcused, station, statement.Subject{Name: "guix", SHA256: trust.Sum([]byte("pin"))}, map[string]any{"name": "rose-2026", "code": "weak-key", "channel": "guix", "commit": "-", "key": strings.Repeat("A", 40),
			"until": "2026-04-01T00:00:00Z", "person": "carol", "reason": "she has a new key"}, "until"},
		{statement.KindWitnessed, station, statement.Subject{Name: trusttest.Zone, SHA256: trust.Sum([]byte("tree"))}, map[string]any{"person": "wim", "size": 99, "signature": line}, "signature"},
		{statement.KindChecked, station, text, map[string]any{"host": "host-1", "date": "2026-03-01T11:00:00Z", "orders": 0, "items": 1, "recalled": 0, "derived": 0, "unknown": 0, "kept": 0, "report": digest}, "report"},
		{statement.KindRestored, station, statement.Subject{Name: trusttest.Zone, SHA256: trust.Sum([]byte("tree"))}, map[string]any{"size": 99, "version": 1}, "size"},
	} {
		s := statement.Statement{Kind: k.kind, Subjects: []statement.Subject{k.subject}, Predicate: say(k.predicate)}
		judge("S3 S4 S5", "kind-"+k.kind, "one of the kind "+k.kind, c.envelope(k.key, c.payload(s)))
		delete(s.Predicate, k.missing)
		judge("S4", "kind-"+k.kind+"-no-"+k.missing, "without "+k.missing, c.envelope(k.key, c.payload(s)), "statement-predicate")
	}
	with := func(kind string, subject statement.Subject, predicate map[string]any, name string, v any) []byte {
		s := statement.Statement{Kind: kind, Subjects: []statement.Subject{subject}, Predicate: say(predicate)}
		s.Predicate[name] = v
		return c.payload(s)
	}
	approved := map[string]any{"track": "dev", "version": 1, "person": "rada", "signature": line}
	judge("S4", "signature-form", "a signature that is no line of a note", c.envelope(station, with(statement.KindApproved, text, approved, "signature", "rada+0123")), "statement-predicate")
	judge("S4", "signature-two", "two lines for a signature", c.envelope(station, with(statement.KindApproved, text, approved, "signature", line+line)), "statement-predicate")
	judge("S4", "document-form", "signed under another document", c.envelope(station, with(statement.KindUndersigned, text, map[string]any{"version": 1, "person": "olga", "signature": line}, "document", "manifest")), "statement-predicate")

	pinned := map[string]any{"channel": "guix", "commit": strings.Repeat("1", 40), "from": strings.Repeat("2", 40)}
	judge("S4", "pinned-forward", "a pin that came from another", c.envelope(station, with(statement.KindPinned, text, pinned, "time", trust.FormatDate(trusttest.Epoch.Add(3*time.Hour)))))
	judge("S4", "pinned-channel", "a channel of no name", c.envelope(station, with(statement.KindPinned, text, pinned, "channel", "gu ix")), "statement-predicate")
	judge("S4", "pinned-commit", "a commit that is none", c.envelope(station, with(statement.KindPinned, text, pinned, "commit", "-")), "statement-predicate")
	judge("S4", "pinned-from", "a commit in capitals", c.envelope(station, with(statement.KindPinned, text, pinned, "from", strings.Repeat("A", 40))), "statement-predicate")

	judge("S4", "submitted-basis", "what stands on another commit", c.envelope("ines/statement", with(statement.KindSubmitted, item, submitted, "basis", strings.Repeat("2", 40))))
	judge("S4", "submitted-zero", "a submission without a number", c.envelope("ines/statement", with(statement.KindSubmitted, item, submitted, "submission", 0)), "statement-predicate")
	judge("S4", "submitted-commit", "an item that is named for another commit", c.envelope("ines/statement", with(statement.KindSubmitted, item, submitted, "commit", strings.Repeat("2", 40))), "statement-predicate")
	judge("S4", "submitted-channel", "an item that is named for another channel", c.envelope("ines/statement", with(statement.KindSubmitted, item, submitted, "channel", "theirs")), "statement-predicate")
	judge("S4", "submitted-content", "an item with the name of other content", c.envelope("ines/statement", with(statement.KindSubmitted, statement.Subject{Name: item.Name, SHA256: trust.Sum(nil)}, submitted, "basis", "-")), "statement-predicate")
	judge("S5", "submitted-person", "one whom the key does not belong to", c.envelope("ines/statement", with(statement.KindSubmitted, item, submitted, "person", "rada")), "statement-person")
	judge("S5", "submitted-role", "submitted by the station", c.envelope(station, with(statement.KindSubmitted, item, submitted, "person", "station")), "statement-role")

	// Who.
	imported := statement.Statement{Kind: statement.KindImported, Subjects: []statement.Subject{manifest}, Predicate: say(map[string]any{"shipment": 1, "items": 1, "bytes": 0, "person": "ines"})}
	ines := c.payload(imported)
	judge("S5", "key-unknown", "a stranger", c.envelope("zora/statement", ines), "statement-key")
	judge("S5", "key-other", "another key of ines", c.envelopeOf(trusttest.Key(c.t, "ines/statement", "second"), ines), "statement-key")
	judge("S5", "signature", "a signature under another payload", bytes.Replace(c.envelope("ines/statement", ines), []byte(base64.StdEncoding.EncodeToString(ines)), []byte(base64.StdEncoding.EncodeToString(bytes.Replace(ines, []byte(`"items":1`), []byte(`"items":2`), 1))), 1), "statement-signature")
	judge("S5", "signature-short", "a signature of 63 bytes", bytes.Replace(c.envelope("ines/statement", ines), []byte(sigOf(c.envelope("ines/statement", ines))), []byte(base64.StdEncoding.EncodeToString(make([]byte, 63))), 1), "statement-signature")
	judge("S5", "keyid-of-another", "another's KEYID", bytes.Replace(c.envelope("ines/statement", ines), []byte(c.e.Key("ines/statement").ID()), []byte(c.e.Key("bela/statement").ID()), 1), "statement-signature")
	judge("S5", "role", "a builder imports", c.envelope("bela/statement", bytes.Replace(ines, []byte(`"ines"`), []byte(`"bela"`), 1)), "statement-role")
	judge("S5", "role-station", "the station imports", c.envelope(station, bytes.Replace(ines, []byte(`"ines"`), []byte(`"station"`), 1)), "statement-role")
	judge("S5", "role-person", "a person speaks for the station", c.envelope("ines/statement", []byte(good)), "statement-role")
	judge("S5", "person", "another person is named", c.envelope("ines/statement", bytes.Replace(ines, []byte(`"ines"`), []byte(`"rada"`), 1)), "statement-person")
	zone := func(to string) []byte {
		return bytes.Replace(ines, []byte(trusttest.Zone), []byte(to), 1)
	}
	judge("S5", "zone-enclave", "the ledger of another enclave", c.envelope("ines/statement", zone("sallyport/keep/inside")), "statement-zone")
	judge("S5", "zone-kind", "another ledger of the enclave", c.envelope("ines/statement", zone("sallyport/citadel/outside")), "statement-zone")
	judge("S5", "who-all", "role, person and zone", c.envelope("bela/statement", zone("sallyport/keep/inside")), "statement-role", "statement-person", "statement-zone")
	limited := c.root(func(r *trust.Root) {
		for i, k := range r.Keys {
			if k.Owner == "ines" {
				r.Keys[i].From, r.Keys[i].Until = trusttest.Epoch.Add(3*time.Hour), trusttest.Epoch.Add(4*time.Hour)
			}
		}
	}).Text()
	file := c.file("root/ines-for-an-hour", c.note(limited, officers...))
	for _, m := range []struct{ name, time, code string }{
		{"before", "2026-03-01T11:59:59Z", "statement-key"}, {"first", "2026-03-01T12:00:00Z", ""}, {"last", "2026-03-01T12:59:59Z", ""}, {"over", "2026-03-01T13:00:00Z", "statement-key"},
	} {
		var codes []string
		if m.code != "" {
			codes = []string{m.code}
		}
		v := judge("S5 R5", "bounds-"+m.name, "at "+m.time+" by a key that counts from 12 to 13", c.envelope("ines/statement", bytes.Replace(ines, []byte("2026-03-01T12:00:00Z"), []byte(m.time), 1)), codes...)
		v.Roots, v.Pin = []string{file}, trust.Sum(limited).String()
	}

	// The form of outputs.
	output := func(name string, v any) []byte {
		o := map[string]any{"path": out, "size": 100, "references": []string{out}}
		o[name] = v
		return with(statement.KindBuilt, statement.Subject{Name: out}, built, "outputs", map[string]any{"out": o})
	}
	debug := storepath.Dir + "/" + trusttest.Base("debug", "hello-2.12-debug")
	refs := []string{max(out, debug), min(out, debug)}
	for _, m := range []struct {
		name, about string
		payload     []byte
	}{
		{"path", "a path that is none of the store", output("path", "/etc/passwd")},
		{"other-path", "an output that is no subject", output("path", debug)},
		{"size", "a size below 0", output("size", -1)},
		{"references-unsorted", "references in another order", output("references", refs)},
		{"reference-twice", "a reference twice", output("references", []string{out, out})},
		{"member", "a member too many", output("hash", "x")},
		{"derivation", "a derivation that is no store path", with(statement.KindBuilt, statement.Subject{Name: out}, built, "derivation", helloDrv)},
	} {
		judge("S4", "built-"+m.name, m.about, c.envelope("bela/statement", m.payload), "statement-predicate")
	}
	// Two outputs, and a subject whose name is what stands from the path of the one to that of the other.
	both := statement.Statement{Kind: statement.KindBuilt, Subjects: []statement.Subject{{Name: debug}, {Name: debug + `","references":[],"size":1},"out":{"path":"` + out}}, Predicate: say(built)}
	both.Predicate["outputs"] = map[string]any{"debug": map[string]any{"path": debug, "size": 1, "references": []string{}}, "out": map[string]any{"path": out, "size": 1, "references": []string{}}}
	judge("S4", "built-subject", "a subject that is no path of an output, but has one in it", c.envelope("bela/statement", c.payload(both)), "statement-predicate")

	// Rejections.
	reject := func(name, about string, change func(p map[string]any), code string) {
		s := statement.Statement{Kind: statement.KindRejected, Subjects: []statement.Subject{manifest}, Predicate: say(rejected)}
		change(s.Predicate)
		judge("S6", "rejected-"+name, about, c.envelope(station, c.payload(s)), code)
	}
	set := func(name string, v any) func(map[string]any) { return func(p map[string]any) { p[name] = v } }
	reject("shipment", "another shipment than was signed", set("shipment", 8), "rejection-signature")
	reject("reason", "another reason", set("reason", "none"), "rejection-signature")
	reject("date", "another date", set("date", "2026-03-01T09:00:01Z"), "rejection-signature")
	reject("person", "another person", set("person", "remy"), "rejection-person")
	reject("reason-form", "a reason that is not ASCII", set("reason", "ü"), "statement-predicate")
	reject("stranger", "a stranger's key", func(p map[string]any) {
		_, by, err := rejection.Predicate(c.e.Key("zora/allowlist"))
		if err != nil {
			c.t.Fatal(err)
		}
		p["signature"], p["person"] = by["signature"], "zora"
	}, "rejection-unsigned")
	judge("S6", "declined-number", "another submission than was signed", c.envelope(station, with(statement.KindDeclined, item, declined, "submission", 8)), "rejection-signature")
	judge("S6", "declined-item", "another item", c.envelope(station, with(statement.KindDeclined, statement.Subject{Name: item.Name, SHA256: trust.Sum(nil)}, declined, "person", "rada")), "rejection-signature")
	judge("S6", "declined-shipment", "the rejection of shipment 7 as that of submission 7", c.envelope(station, with(statement.KindDeclined, manifest, rejected, "submission", 7)), "rejection-signature")
	judge("S6", "rejected-submission", "the rejection of submission 7 as that of shipment 7", c.envelope(station, with(statement.KindRejected, item, declined, "shipment", 7)), "rejection-signature")
	judge("S6", "rejected-manifest", "another manifest", c.envelope(station, with(statement.KindRejected, text, rejected, "person", "rada")), "rejection-signature")
}

func sigOf(envelope []byte) string {
	e := string(envelope)
	return e[strings.Index(e, `"sig":"`)+7 : len(e)-len(`"}]}`)]
}

func (c *corpus) quorumCases() {
	sum := trust.Sum([]byte("derivation"))
	out := storepath.Dir + "/" + trusttest.Base("out", "hello-2.12")
	debug := storepath.Dir + "/" + trusttest.Base("debug", "hello-2.12-debug")
	vote := func(key *trust.Key, person, content string, change func(s *statement.Statement)) []byte {
		s := statement.Statement{
			Kind:     statement.KindBuilt,
			Subjects: []statement.Subject{{Name: out, SHA256: trust.Sum([]byte(content))}, {Name: debug, SHA256: trust.Sum([]byte("debug"))}},
			Predicate: say(map[string]any{"person": person, "system": "x86_64-linux", "derivation": storepath.Dir + "/" + helloDrv, "derivation-sha256": sum,
				"outputs": map[string]any{"out": map[string]any{"path": out, "size": 100, "references": []string{out}}, "debug": map[string]any{"path": debug, "size": 7, "references": []string{}}}}),
		}
		if change != nil {
			change(&s)
		}
		return c.envelopeOf(key, c.payload(s))
	}
	file := func(name string, b []byte) string { return c.file("built/"+name, b) }
	person := func(name, content string, change func(s *statement.Statement)) []byte {
		return vote(c.e.Key(name+"/statement"), name, content, change)
	}
	bela, boas, bria := file("bela", person("bela", "same", nil)), file("boas", person("boas", "same", nil)), file("bria", person("bria", "same", nil))
	output := func(name string, v any) func(s *statement.Statement) {
		return func(s *statement.Statement) {
			s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)[name] = v
		}
	}
	judge := func(rules, name, about string, envelopes []string, codes ...string) *vector {
		c.add(vector{Name: "quorum/" + name, Rules: strings.Fields(rules), About: about, Do: "quorum", Pin: trust.Fingerprint(c.rootPin), Roots: []string{rootFile}, Accepted: []string{listFile},
			Derivation: helloDrv, SHA256: sum.String(), Now: "2026-03-01T13:00:00Z", Envelopes: envelopes, Codes: codes})
		return &c.cases[len(c.cases)-1]
	}
	two := []string{bela, boas}
	judge("Q1 Q4", "two", "two of two", two)
	judge("Q4", "three", "three of two", []string{bela, boas, bria})
	judge("Q4", "none", "nobody", nil, "quorum-waiting")
	judge("Q4", "one", "one", []string{bela}, "quorum-waiting")
	judge("Q4", "one-twice", "one statement twice", []string{bela, bela}, "quorum-waiting")
	judge("Q4", "one-again", "one builder, twice", []string{bela, file("bela-again", person("bela", "same", func(s *statement.Statement) { s.Predicate["time"] = "2026-03-01T12:30:00Z" }))}, "quorum-waiting")
	// A second key, a deputy.
	second := trusttest.Key(c.t, "bela/statement", "second")
	more := c.root(func(r *trust.Root) {
		r.Keys = append(r.Keys, second.RootKey())
		r.Deputies = []trust.Deputy{{Role: trust.RoleBuilder, Deputy: "boas", Principal: "bela"}}
	}).Text()
	moreFile := c.file("root/boas-for-bela", c.note(more, officers...))
	under := func(v *vector) { v.Roots, v.Pin = []string{moreFile}, trust.Sum(more).String() }
	under(judge("Q4 R8", "two-keys", "two keys of one builder", []string{bela, file("bela-second", vote(second, "bela", "same", nil))}, "quorum-waiting"))
	under(judge("Q4 R6", "deputy", "a builder and the deputy are one", two, "quorum-waiting"))
	under(judge("Q4 R6", "deputy-and-another", "the deputy and another", []string{boas, bria}))

	judge("Q2", "stranger", "a stranger agrees", []string{bela, file("zora", person("zora", "same", nil))}, "quorum-waiting")
	judge("Q2", "stranger-dissents", "a stranger says otherwise", []string{bela, boas, file("zora-other", person("zora", "other", nil))})
	judge("Q2", "importer", "an importer agrees", []string{bela, file("ines", person("ines", "same", nil))}, "quorum-waiting")
	broken := person("boas", "same", nil)
	broken[len(broken)-10] ^= 1
	judge("Q2", "broken", "a wrong signature", []string{bela, file("boas-broken", broken)}, "quorum-waiting")
	judge("Q2", "nonsense", "no statement", []string{bela, file("nonsense", []byte("{}"))}, "quorum-waiting")
	elsewhere := func(s *statement.Statement) {
		s.Predicate["derivation"] = storepath.Dir + "/" + trusttest.Base("x", "hello-2.12.drv")
	}
	judge("Q2", "other-derivation", "about another derivation", []string{bela, file("boas-elsewhere", person("boas", "same", elsewhere))}, "quorum-waiting")
	judge("Q2", "other-derivation-dissents", "other things of another derivation", []string{bela, boas, file("bria-elsewhere", person("bria", "other", elsewhere))})
	judge("Q2 S5", "outside", "said to the outside's ledger", []string{bela, file("boas-outside", person("boas", "same", func(s *statement.Statement) { s.Predicate["zone"] = "sallyport/citadel/outside" }))}, "quorum-waiting")
	bad := file("bria-other", person("bria", "other", nil))
	judge("Q3", "dissent", "two against one", []string{bela, boas, bad}, "quorum-dissent", "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-two", "one against one", []string{bela, bad}, "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-oneself", "a builder who says two things", []string{bela, file("bela-other", person("bela", "other", nil))}, "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-size", "another size", []string{bela, file("boas-size", person("boas", "same", output("size", 101)))}, "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-references", "other references", []string{bela, file("boas-references", person("boas", "same", output("references", []string{})))}, "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-fewer", "an output less", []string{bela, file("boas-fewer", person("boas", "same", func(s *statement.Statement) {
		delete(s.Predicate["outputs"].(map[string]any), "debug")
		s.Subjects = s.Subjects[:1]
	}))}, "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-id", "an output under another ID", []string{bela, file("boas-id", person("boas", "same", func(s *statement.Statement) {
		outputs := s.Predicate["outputs"].(map[string]any)
		outputs["doc"] = outputs["debug"]
		delete(outputs, "debug")
	}))}, "quorum-dissent", "quorum-dissent")
	other := func(s *statement.Statement) { s.Predicate["derivation-sha256"] = trust.Sum(nil) }
	belaDrv, boasDrv := file("bela-drv", person("bela", "same", other)), file("boas-drv", person("boas", "same", other))
	judge("Q3", "dissent-derivation", "another derivation-sha256", []string{bela, boas, file("bria-drv", person("bria", "same", other))}, "quorum-dissent", "quorum-dissent", "quorum-dissent")
	judge("Q3", "dissent-derivation-all", "all name the same other derivation-sha256", []string{belaDrv, boasDrv}, "quorum-dissent", "quorum-dissent")
	judge("Q1", "not-allowed", "the derivation is not in the list", two, "not-allowed").Derivation = trusttest.Base("drv", "other-1.drv")
	judge("Q1", "not-allowed-digest", "the list has another of this name", two, "not-allowed").SHA256 = trust.Sum(nil).String()
	source := trusttest.Allowlist(4)
	for _, it := range source.Items {
		if it.Kind == trust.KindSource {
			v := judge("Q1", "not-a-derivation", "the item is a source", nil, "not-allowed")
			v.Derivation, v.SHA256 = it.Name, it.SHA256.String()
			break
		}
	}
	orders := func(name string, change func(o *trust.Orders)) []string {
		o := c.orders(func(o *trust.Orders) {
			*o = trust.Orders{Enclave: o.Enclave, Version: 1, Date: o.Date, Root: 1}
			change(o)
		})
		return []string{c.file("orders/"+name, c.note(o.Text(), orderers...)), listFile}
	}
	settled := func(key *trust.Key) func(o *trust.Orders) {
		return func(o *trust.Orders) {
			o.Settled = []trust.Settled{{Derivation: helloDrv, KeyID: key.ID(), Date: trusttest.Epoch, Reason: "bad memory"}}
		}
	}
	bri := orders("bria-settled", settled(c.e.Key("bria/statement")))
	judge("Q2", "settled", "what bria says is set aside", []string{bela, boas, bad}).Accepted = bri
	judge("Q2", "settled-agrees", "also where it agrees", []string{bela, bria}, "quorum-waiting").Accepted = bri
	judge("Q2", "settled-other", "of another derivation only", []string{bela, boas, bad}, "quorum-dissent", "quorum-dissent", "quorum-dissent").Accepted = []string{ordersFile, listFile}
	recall := func(sha trust.Digest, name string) func(o *trust.Orders) {
		return func(o *trust.Orders) {
			o.Recalls = []trust.Recall{{SHA256: sha, Name: name, Date: trusttest.Epoch, Reason: "a back door"}}
		}
	}
	judge("Q1 V6 O8", "recalled", "the derivation is recalled", two, "recalled").Accepted = orders("recalled", recall(sum, helloDrv))
	judge("Q1 V6 O8", "recalled-content", "another name of its content is recalled", two, "recalled").Accepted = orders("recalled-content", recall(sum, trusttest.Base("x", "other")))
	judge("Q1 V6 O8", "recalled-name", "another content of its name is recalled", two, "recalled").Accepted = orders("recalled-name", recall(trust.Sum(nil), helloDrv))
	judge("V6", "recalled-other", "something else is recalled", two).Accepted = []string{ordersFile, listFile}

	// Glass: the item of c.orders, until the third day at nine.
	fix := c.orders(nil).BreakGlass[0].Item
	about := func(s *statement.Statement) {
		s.Predicate["derivation"], s.Predicate["derivation-sha256"] = storepath.Dir+"/"+fix.Name, fix.SHA256
	}
	glass := func(rules, name, text, now string, accepted []string, codes ...string) {
		v := judge(rules, name, text, []string{file("bela-fix", person("bela", "same", about)), file("boas-fix", person("boas", "same", about))}, codes...)
		v.Accepted, v.Derivation, v.SHA256, v.Now = accepted, fix.Name, fix.SHA256.String(), now
	}
	glass("V5", "break-glass", "an item that the list has not, while the glass is broken", "2026-03-03T08:59:59Z", []string{ordersFile, listFile})
	glass("V4 V5", "break-glass-over", "the time is over", "2026-03-03T09:00:00Z", []string{ordersFile, listFile}, "not-allowed")
	glass("V5", "break-glass-none", "without these orders", "2026-03-01T13:00:00Z", []string{listFile}, "not-allowed")
	both := c.orders(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: fix.SHA256, Name: fix.Name, Date: o.Date, Reason: "it was no fix"})
	}).Text()
	glass("V5 V6", "break-glass-recalled", "recalled all the same", "2026-03-01T13:00:00Z", []string{c.file("orders/glass-recalled", c.note(both, orderers...)), listFile}, "recalled")
}
