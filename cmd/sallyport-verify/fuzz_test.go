package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// What parses prints back to the same bytes. The printers are here: the verifier has no use for them.

func printValue(v value) string {
	var parts []string
	switch v.form {
	case 's':
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v.str) + `"`
	case 'i':
		return strconv.FormatInt(v.num, 10)
	case 'b':
		return strconv.FormatBool(v.num == 1)
	case 'a':
		for _, e := range v.list {
			parts = append(parts, printValue(e))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}
	for i, e := range v.list {
		parts = append(parts, printValue(value{form: 's', str: v.names[i]})+":"+printValue(e))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

func str(s string) string { return printValue(value{form: 's', str: s}) }

func printPayload(st *statement) string {
	var subjects []string
	for _, s := range st.subjects {
		subjects = append(subjects, `{"name":`+str(s.name)+`,"digest":{"sha256":`+str(s.digest)+`}}`)
	}
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[` + strings.Join(subjects, ",") + `],"predicateType":` +
		str("urn:sallyport:statement:"+st.kind+":1") + `,"predicate":` + printValue(st.predicate) + `}`
}

func FuzzEnvelope(f *testing.F) {
	for _, s := range newWorld().statements {
		f.Add(seal(s.key, payload(*s)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := parseEnvelope(data)
		if err != nil {
			return
		}
		again := fmt.Sprintf(`{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":%s,"sig":"%s"}]}`,
			b64([]byte(printPayload(st))), str(st.keyid), b64(st.sig))
		if again != string(data) {
			t.Errorf("%q prints as %q", data, again)
		}
		_, _ = st.fits(), st.extra()
	})
}

func FuzzPayload(f *testing.F) {
	for _, s := range newWorld().statements {
		f.Add(payload(*s))
	}
	for _, v := range []string{`[]`, `[1,-1,true,false,{}]`, `{"a":{"b":[["c"]]}}`, `"\\\""`, `-0`, `01`, `9007199254740992`, `{"a":1,"a":1}`, `{"b":1,"a":1}`, `"\n"`, `null`, "\"\xff\"", `[1,]`} {
		f.Add(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"n","digest":{"sha256":"` + hexSum(nil) + `"}}],"predicateType":"urn:sallyport:statement:created:1","predicate":` + v + `}`)
	}
	f.Fuzz(func(t *testing.T, data string) {
		st := &statement{payload: data}
		if st.parse() == nil && printPayload(st) != data {
			t.Errorf("%q prints as %q", data, printPayload(st))
		}
	})
}

// The values that FuzzPayload is seeded with, and which of them are canonical.
func TestValues(t *testing.T) {
	for text, good := range map[string]bool{
		`[]`: true, `{}`: true, `[1,-1,true,false,{}]`: true, `{"a":{"b":[["c"]]}}`: true, `"\\\""`: true, `9007199254740992`: true, `-9007199254740992`: true, `"é"`: true, `0`: true,
		`-0`: false, `01`: false, `9007199254740993`: false, `{"a":1,"a":1}`: false, `{"b":1,"a":1}`: false, `"\n"`: false, `"\/"`: false, "\"\x01\"": false, "\"\x7f\"": false, "\"\u0085\"": false,
		`null`: false, "\"\xff\"": false, `[1,]`: false, `[,1]`: false, `{"a":1,}`: false, ` 1`: false, `1 `: false, `+1`: false, `1.0`: false, `1e3`: false, `"`: false, `"\`: false, ``: false, `{"a"}`: false,
		strings.Repeat("[", maxDepth) + "1" + strings.Repeat("]", maxDepth):     true,
		strings.Repeat("[", maxDepth+1) + "1" + strings.Repeat("]", maxDepth+1): false,
	} {
		s := &scanner{s: text}
		v := s.value(0)
		if err := s.end("value"); (err == nil) != good || good && printValue(v) != text {
			t.Errorf("%q: %v, printed %q", text, err, printValue(v))
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	f.Add(originName + "\n12\n" + b64(make([]byte, 32)) + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCheckpoint(text); err == nil {
			if again := fmt.Sprintf("%s\n%d\n%s\n", c.origin, c.size, b64(c.root[:])); again != text {
				t.Errorf("%q prints as %q", text, again)
			}
		}
	})
}

func FuzzNote(f *testing.F) {
	k := newKey("olga/root")
	f.Add([]byte(noteOf("text\n", k, newKey("otto/root"))))
	known, _ := parseVKey(k.vkey(), algEd25519)
	f.Fuzz(func(t *testing.T, data []byte) {
		text, signers, err := openNote(data, []*vkey{known})
		if err == nil && !strings.HasPrefix(string(data), text+"\n— ") {
			t.Errorf("%q has text %q", data, text)
		}
		for _, s := range signers {
			if !strings.Contains(string(data), s.line+"\n") || !strings.HasPrefix(string(data), "text\n\n") {
				t.Errorf("%q is signed by %q", data, s.line)
			}
		}
	})
}

func FuzzVKey(f *testing.F) {
	f.Add(newKey("olga/root").vkey())
	f.Add(newKey("wendy/witness").vkey())
	f.Fuzz(func(t *testing.T, s string) {
		for _, alg := range []byte{algEd25519, algCosignature} {
			if k, ok := parseVKey(s, alg); ok && k.id()+"+"+b64(append([]byte{k.alg}, k.public[:]...)) != s {
				t.Errorf("%q prints as another", s)
			}
		}
	})
}

func FuzzRoot(f *testing.F) {
	f.Add(rootText(1, "-", rootBody()))
	f.Add(rootText(2, hexSum(nil), rootBody()))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRoot(text)
		if err != nil {
			return
		}
		head := fmt.Sprintf("sallyport root v1\nenclave %s\nversion %d\ndate %s\nprevious %s\n", r.enclave, r.version, r.date, r.previous)
		body, ok := strings.CutPrefix(text, head)
		want := len(r.keys) + len(r.thresholds)
		for _, people := range r.roles {
			want += len(people)
		}
		if n := strings.Count(body, "\n"); !ok || n <= want || n-strings.Count("\n"+body, "\npolicy ") != want {
			t.Errorf("%q: head %q, %d lines for %d values", text, head, n, want)
		}
	})
}

func printItems(x *items) (text string) {
	for i := range x.starts {
		it := x.item(i)
		text += fmt.Sprintf("item %s %d %s %s\n", it.sha256, it.size, it.kind, it.name)
	}
	return text
}

func FuzzAllowlist(f *testing.F) {
	f.Add(allowText(1, 1, "-", itemLines(contents())))
	f.Add(allowText(2, 1, hexSum(nil), ""))
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := parseAllowlist(text); err == nil {
			again := fmt.Sprintf("sallyport allowlist v1\nenclave %s\ntrack %s\nversion %d\ndate %s\nroot %d\nprevious %s\n", a.enclave, a.track, a.version, a.date, a.root, a.previous)
			if again += printItems(a.items); again != text {
				t.Errorf("%q prints as %q", text, again)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(manifestText(itemLines(contents())))
	f.Add(strings.Replace(manifestText("recent 2 2026-01-01T00:00:00Z\nrecent 1 2026-01-01T00:00:00Z\n"+itemLines(contents())), "shipment 1\n", "shipment 3\n", 1))
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseManifest(text); err == nil {
			head := fmt.Sprintf("sallyport manifest v1\nenclave %s\nshipment %d\ndate %s\nprevious %s\n", m.enclave, m.number, m.date, m.previous)
			recent, ok := strings.CutSuffix(text, printItems(m.items))
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
	f.Add([]byte(newKey("carl/sums").minisig([]byte("x"), "sallyport keep shipment 1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := parseMinisig(data); err == nil {
			first, _, _ := strings.Cut(string(data), "\n")
			again := first + "\n" + b64([]byte("ED"+string(m.keyid[:])+string(m.sig))) + "\ntrusted comment: " + m.comment + "\n" + b64(m.global) + "\n"
			if again != string(data) {
				t.Errorf("%q prints as %q", data, again)
			}
		}
	})
}

func FuzzBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x02bc"), 2)
	f.Fuzz(func(t *testing.T, data []byte, width int) {
		width = min(max(width, 0), tileWidth)
		entries, length := split(data, width)
		sum := 0
		for _, e := range entries {
			sum += 2 + len(e)
		}
		if len(entries) > width || sum != length || length > len(data) {
			t.Errorf("%d entries, %d bytes of %d, said %d", len(entries), sum, len(data), length)
		}
	})
}
