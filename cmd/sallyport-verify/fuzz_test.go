package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sumdb "golang.org/x/mod/sumdb/note"
)

// What parses prints back to the same bytes. The printers are here, and for JSON the standard library's: the verifier has no use for them.

func printJSON(t *testing.T, text string) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func str(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }

func printPayload(t *testing.T, st *statement) string {
	var subjects, members []string
	for _, s := range st.subjects {
		subjects = append(subjects, `{"name":`+str(s.name)+`,"digest":{"sha256":`+str(s.digest)+`}}`)
	}
	for _, m := range st.predicate {
		members = append(members, str(m.name)+`:`+m.json)
	}
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[` + strings.Join(subjects, ",") + `],"predicateType":` +
		str("urn:sallyport:statement:"+st.kind+":1") + `,"predicate":` + printJSON(t, `{`+strings.Join(members, ",")+`}`) + `}`
}

func FuzzEnvelope(f *testing.F) {
	for _, s := range newWorld().statements {
		f.Add(string(seal(s.key, payload(*s))))
	}
	f.Fuzz(func(t *testing.T, data string) {
		st := &statement{}
		if _, err := st.parse([]byte(data)); err != nil {
			return
		}
		again := fmt.Sprintf(`{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":%s,"sig":"%s"}]}`,
			b64([]byte(printPayload(t, st))), str(st.keyid), b64(st.sig))
		if again != data {
			t.Errorf("%q prints as %q", data, again)
		}
		new(entry).read(&ledger{}, []byte(data))
	})
}

func FuzzPayload(f *testing.F) {
	for _, s := range newWorld().statements {
		f.Add(payload(*s))
	}
	for text := range values {
		f.Add(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"n","digest":{"sha256":"` + hexSum(nil) + `"}}],"predicateType":"urn:sallyport:statement:created:1","predicate":{"a":` + text + `}}`)
	}
	f.Fuzz(func(t *testing.T, data string) {
		st := &statement{payload: data}
		if _, err := st.parsePayload(); err == nil && printPayload(t, st) != data {
			t.Errorf("%q prints as %q", data, printPayload(t, st))
		}
	})
}

// values are pieces of JSON, and whether they are canonical.
var values = map[string]bool{
	`[]`: true, `{}`: true, `[1,-1,true,false,{}]`: true, `{"a":{"b":[["c"]]}}`: true, `"\\\""`: true, `9007199254740992`: true, `-9007199254740992`: true, `"é"`: true, `0`: true, "\"\u00a0\"": true,
	`-0`: false, `01`: false, `9007199254740993`: false, `-9007199254740993`: false, `{"a":1,"a":1}`: false, `{"b":1,"a":1}`: false, `"\n"`: false, `"\/"`: false, "\"\x01\"": false, "\"\x7f\"": false, "\"\u0085\"": false,
	"\"\u009f\"": false, "\"\u2029\"": false, `null`: false, "\"\xff\"": false, `[1,]`: false, `[,1]`: false, `{"a":1,}`: false, ` 1`: false, `1 `: false, `+1`: false, `1.0`: false, `1e3`: false, `"`: false,
	`"\`: false, ``: false, `{"a"}`: false, `-`: false, `[1 ,2]`: false, `[1}`: false, `tru`: false,
	strings.Repeat("[", maxDepth) + "1" + strings.Repeat("]", maxDepth):         true,
	strings.Repeat("[", maxDepth+1) + "1" + strings.Repeat("]", maxDepth+1):     false,
	strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1): false,
}

func TestValues(t *testing.T) {
	for text, good := range values {
		s := &scanner{s: text}
		json, _ := s.value(1, "")
		if err := s.end("value"); (err == nil) != good || good && (json != text || printJSON(t, json) != text) {
			t.Errorf("%q: %v, printed %q", text, err, json)
		}
	}
}

func FuzzNote(f *testing.F) {
	k := newKey("olga/root")
	f.Add([]byte(noteOf("text\n", k, newKey("otto/root"))))
	known, _ := parseVKey(k.vkey())
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := parseNote(data, "x", "x")
		if err != nil || len(read("x", "x", n.text, 1<<20).faults) > 0 {
			return
		}
		again := n.text + "\n"
		for _, s := range n.sigs {
			again += "— " + s.name + " " + b64(append(binary.BigEndian.AppendUint32(nil, s.hash), s.sig...)) + "\n"
		}
		if again != string(data) {
			t.Errorf("%q prints as %q", data, again)
		}
		// The signed notes of golang.org/x/mod are another implementation: what one of us verifies, so must the other.
		by, _, wrong := n.by([]*key{known})
		verifier, verr := sumdb.NewVerifier(k.vkey())
		must(t, verr)
		theirs, terr := sumdb.Open(data, sumdb.VerifierList(verifier))
		if good := len(by) == 1 && len(wrong) == 0; good != (terr == nil) && !coded(wrong.err(), "-note") || good && theirs.Text != n.text {
			t.Errorf("%q: %v, %v", data, wrong, terr)
		}
	})
}

func FuzzVKey(f *testing.F) {
	f.Add(newKey("olga/root").vkey())
	f.Add(newKey("wendy/witness").vkey())
	f.Fuzz(func(t *testing.T, s string) {
		if k, ok := parseVKey(s); ok && (k.kind == edwards || k.kind == cosignature) && k.id+"+"+b64([]byte(vkeyTypes[k.kind]+k.raw)) != s {
			t.Errorf("%q prints as another", s)
		}
	})
}

func FuzzRoot(f *testing.F) {
	f.Add(rootText(1, "-", rootBody()))
	f.Add(rootText(2, hexSum(nil), rootBody()))
	f.Add(rootText(1, "-", append(rootBody(), "key root olga x", "key sums carl x", "key narinfo x x", "key frob x y")))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRoot(text, "x")
		if err != nil {
			return
		}
		head := fmt.Sprintf("sallyport root v1\nenclave %s\nversion %d\ndate %s\nprevious %s\n", r.enclave, r.version, r.date, r.previous)
		body, ok := strings.CutPrefix(text, head)
		want := len(r.keys) + len(r.thresholds) + len(r.policies) + strings.Count("\n"+body, "\nexclusive ")
		for _, role := range r.roles {
			want += len(role)
		}
		for _, role := range r.deputies {
			want += len(role)
		}
		if n := strings.Count(body, "\n"); !ok || n != want {
			t.Errorf("%q: head %q, %d lines for %d values", text, head, n, want)
		}
	})
}

func FuzzOrders(f *testing.F) {
	for _, name := range []string{"orders/good", "orders/1", "orders/2"} {
		data, err := os.ReadFile(filepath.Join(vectors, name))
		must(f, err)
		text, _, _ := strings.Cut(string(data), "\n\n")
		f.Add(text + "\n")
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseOrders(text, "x")
		if err != nil {
			return
		}
		again := fmt.Sprintf("sallyport orders v1\nenclave %s\nversion %d\ndate %s\nroot %d\nprevious %s\n", o.enclave, o.version, o.date, o.root, o.previous)
		for _, l := range o.lines {
			again += l.line + "\n"
			if !strings.HasSuffix(l.line, " "+l.date+" "+l.reason) || !strings.HasPrefix(l.line, l.word+" ") {
				t.Errorf("%q: %+v", l.line, l)
			}
		}
		if again != text {
			t.Errorf("%q prints as %q", text, again)
		}
	})
}

func FuzzPin(f *testing.F) {
	for _, s := range []string{"jdtp-lzno-fleu-q2nc-ecpl-jjwz-66go-ac5o", hexSum(nil)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, ok := parsePin(s); ok && len(p) != 32 && len(p) != 64 {
			t.Errorf("%q is %q", s, p)
		}
	})
}

func printItems(x *items) (text string) {
	for _, it := range x.list {
		text += fmt.Sprintf("item %s %d %s %s\n", it.sha256, it.size, it.kind, it.name)
	}
	return text
}

func FuzzAllowlist(f *testing.F) {
	f.Add(allowText(1, 1, "-", itemLines(contents())))
	f.Add(allowText(2, 1, hexSum(nil), ""))
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAllowlist(text, "x"); err == nil {
			again := fmt.Sprintf("sallyport allowlist v1\nenclave %s\ntrack %s\nversion %d\ndate %s\nroot %d\norders %d\nprevious %s\n", a.enclave, a.track, a.version, a.date, a.root, a.orders, a.previous)
			if again += printItems(&a.items); again != text {
				t.Errorf("%q prints as %q", text, again)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(manifestText(itemLines(contents())))
	f.Add(strings.Replace(manifestText("recent 2 2026-01-01T00:00:00Z\nrecent 1 2026-01-01T00:00:00Z\n"+itemLines(contents())), "shipment 1\n", "shipment 3\n", 1))
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseManifest(text, "x"); err == nil {
			head := fmt.Sprintf("sallyport manifest v1\nenclave %s\nshipment %d\ndate %s\nprevious %s\n", m.enclave, m.version, m.date, m.previous)
			recent, ok := strings.CutSuffix(text, printItems(&m.items))
			if recent, ok2 := strings.CutPrefix(recent, head); !ok || !ok2 || strings.Count(recent, "\n") != strings.Count("\n"+recent, "\nrecent ") {
				t.Errorf("%q: what is left is %q", text, recent)
			}
		}
	})
}

func FuzzSlip(f *testing.F) {
	f.Add(slipFor(hexSum(nil)))
	f.Fuzz(func(t *testing.T, text string) {
		if s, err := parseSlip(text); err == nil {
			again := fmt.Sprintf("sallyport slip v1\nenclave %s\nshipment %d\nmanifest %s\nitems %d\nbytes %d\n", s.enclave, s.number, s.manifest, s.items, s.bytes)
			if again != text {
				t.Errorf("%q prints as %q", text, again)
			}
		}
	})
}

func FuzzMinisig(f *testing.F) {
	f.Add(newKey("carl/sums").minisig([]byte("x"), "sallyport keep shipment 1"))
	f.Fuzz(func(t *testing.T, data string) {
		if m, err := parseMinisig(data); err == nil {
			first, _, _ := strings.Cut(data, "\n")
			again := first + "\n" + b64([]byte("ED"+string(m.number[:])+string(m.sig))) + "\ntrusted comment: " + m.comment + "\n" + b64(m.global) + "\n"
			if again != data {
				t.Errorf("%q prints as %q", data, again)
			}
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add("\x00\x01a\x00\x02bc", 2)
	f.Fuzz(func(t *testing.T, data string, width int) {
		width = min(max(width, 0), tileWidth)
		leaves, ok := split(nil, []byte(data), width)
		again := ""
		for _, e := range leaves {
			again += string(binary.BigEndian.AppendUint16(nil, uint16(len(e)-1))) + string(e[1:])
		}
		if ok && (again != data || len(leaves) != width) {
			t.Errorf("%q prints as %q", data, again)
		}
	})
}

// What the package decodes in its strict mode, line ends apart, and nothing else.
func FuzzBase64(f *testing.F) {
	for n := range 20 {
		f.Add(b64(bytes.Repeat([]byte{0xfb}, n)), 0, byte('='))
		f.Add(b64(bytes.Repeat([]byte{0xff, 0}, n)), n, byte('\n'))
	}
	f.Fuzz(func(t *testing.T, s string, at int, c byte) {
		for _, s := range []string{s, b64([]byte(s)), b64([]byte(s))[:max(0, min(at, len(s)))] + string(c) + b64([]byte(s))[max(0, min(at, len(s))):]} {
			want, err := base64.StdEncoding.Strict().DecodeString(s)
			good := err == nil && !strings.ContainsAny(s, "\r\n")
			got, ok := append64([]byte("before"), []byte(s))
			if ok != good || ok && string(got) != "before"+string(want) {
				t.Errorf("%q: %q, %t; want %q, %v", s, got, ok, want, err)
			}
		}
	})
}

func TestDate(t *testing.T) {
	for s, good := range map[string]bool{
		"2026-01-02T03:04:05Z": true, "2024-02-29T23:59:59Z": true, "0000-01-01T00:00:00Z": true, "2023-02-29T00:00:00Z": false, "2026-01-02T24:00:00Z": false, "2026-01-02T23:59:60Z": false,
		"2026-00-02T03:04:05Z": false, "2026-01-32T03:04:05Z": false, "2026-01-02T3:04:05.0Z": false, "2026-01-02T03:04:05z": false, "2026-01-02t03:04:05Z": false, "2026-01-02T03:04:05": false, "2026-01-02T03:04:05ZZ": false,
		"2026-01-02 03:04:05Z": false, "": false, "20260-1-02T03:04:05Z": false, "2026-01-02T03:04:05+": false, "2026-01-02T03:04:5+1Z": false,
	} {
		if is("date", s) != good {
			t.Errorf("%q: not %t", s, good)
		}
	}
}
