package trust

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/storepath"
)

var (
	testDrv    = base("drv", "hello-2.12.drv")
	testDrvSum = Sum([]byte("derivation"))
	testOut    = storepath.Dir + "/" + base("out", "hello-2.12")
	testDebug  = storepath.Dir + "/" + base("debug", "hello-2.12-debug")
)

// builtBy says what a builder made; change may alter it.
func builtBy(person, content string, change func(s *Statement)) Statement {
	s := Statement{
		Kind:     StatementBuilt,
		Subjects: []Subject{{testOut, Sum([]byte(content))}, {testDebug, Sum([]byte("debug"))}},
		Predicate: map[string]any{
			"time": epoch, "zone": testZone, "person": person, "system": "x86_64-linux",
			"derivation": storepath.Dir + "/" + testDrv, "derivation-sha256": testDrvSum,
			"outputs": map[string]any{
				"out":   map[string]any{"path": testOut, "size": 100, "references": []string{testOut}},
				"debug": map[string]any{"path": testDebug, "size": 7, "references": []string{}},
			},
		},
	}
	if change != nil {
		change(&s)
	}
	return s
}

func TestQuorum(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	second := testKey(t, "bela/statement", "second")
	r.Keys = append(r.Keys, second.RootKey())
	root := e.open(r)
	list := testAllowlist(4)
	list.Items = append(list.Items, Item{testDrvSum, 10, KindDerivation, testDrv})
	allow, _, err := OpenAllowlist(e.sign(list.Text(), "rada/allowlist", "remy/allowlist"), root)
	if err != nil {
		t.Fatal(err)
	}
	signWith := func(k *Key, s Statement) []byte {
		t.Helper()
		b, err := SignStatement(k, s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	vote := func(person, content string, change func(s *Statement)) []byte {
		return signWith(e.key(person+"/statement"), builtBy(person, content, change))
	}
	output := func(name string, value any) func(s *Statement) {
		return func(s *Statement) {
			s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)[name] = value
		}
	}
	bela, boas, bria := vote("bela", "same", nil), vote("boas", "same", nil), vote("bria", "same", nil)
	broken := bytes.Clone(boas)
	broken[len(broken)-10] ^= 1
	otherDrv := func(s *Statement) { s.Predicate["derivation-sha256"] = Sum(nil) }
	elsewhere := func(s *Statement) { s.Predicate["derivation"] = storepath.Dir + "/" + base("x", "hello-2.12.drv") }

	tests := []struct {
		name      string
		envelopes [][]byte
		code      []string
		persons   []string
	}{
		{"two", [][]byte{bela, boas}, nil, []string{"bela", "boas"}},
		{"three", [][]byte{bela, bria, boas}, nil, []string{"bela", "boas", "bria"}},
		{"none", nil, []string{"quorum-waiting"}, nil},
		{"one", [][]byte{bela}, []string{"quorum-waiting"}, nil},
		{"one twice", [][]byte{bela, bela}, []string{"quorum-waiting"}, nil},
		{"one, said at two times", [][]byte{bela, vote("bela", "same", func(s *Statement) { s.Predicate["time"] = "2026-03-02T00:00:00Z" })}, []string{"quorum-waiting"}, nil},
		{"two keys of one person", [][]byte{bela, signWith(second, builtBy("bela", "same", nil))}, []string{"quorum-waiting"}, nil},
		{"a stranger", [][]byte{bela, vote("zora", "same", nil)}, []string{"quorum-waiting"}, nil},
		{"an importer", [][]byte{bela, vote("ines", "same", nil)}, []string{"quorum-waiting"}, nil},
		{"in another's name", [][]byte{bela, signWith(e.key("boas/statement"), builtBy("bria", "same", nil))}, []string{"quorum-waiting"}, nil},
		{"a broken signature", [][]byte{bela, broken}, []string{"quorum-waiting"}, nil},
		{"another derivation", [][]byte{bela, vote("boas", "same", elsewhere)}, []string{"quorum-waiting"}, nil},
		{"no statement at all", [][]byte{bela, []byte("{}")}, []string{"quorum-waiting"}, nil},
		{"another kind", [][]byte{bela, signWith(e.key("ines/statement"), importedBy("ines"))}, []string{"quorum-waiting"}, nil},
		{"strangers cannot dissent", [][]byte{bela, boas, vote("zora", "other", nil)}, nil, []string{"bela", "boas"}},
		{"nor can other derivations", [][]byte{bela, boas, vote("bria", "other", elsewhere)}, nil, []string{"bela", "boas"}},
		{"dissent", [][]byte{bela, vote("boas", "other", nil)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"dissent against a quorum", [][]byte{bela, boas, vote("bria", "other", nil)}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
		{"dissent with oneself", [][]byte{bela, vote("bela", "other", nil)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"dissent of a second key", [][]byte{bela, boas, signWith(second, builtBy("bela", "other", nil))}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
		{"another size", [][]byte{bela, vote("boas", "same", output("size", 101))}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"other references", [][]byte{bela, vote("boas", "same", output("references", []string{}))}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"another path", [][]byte{bela, vote("boas", "same", func(s *Statement) {
			s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)["path"] = storepath.Dir + "/" + base("x", "hello-2.12")
			s.Subjects[0].Name = storepath.Dir + "/" + base("x", "hello-2.12")
		})}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"an output less", [][]byte{bela, vote("boas", "same", func(s *Statement) {
			delete(s.Predicate["outputs"].(map[string]any), "debug")
			s.Subjects = s.Subjects[:1]
		})}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"all of another derivation of the same path", [][]byte{vote("bela", "same", otherDrv), vote("boas", "same", otherDrv)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"another derivation of the same path", [][]byte{bela, boas, vote("bria", "same", otherDrv)}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Quorum(root, allow, testDrv, testDrvSum, tt.envelopes)
			wantCodes(t, err, tt.code...)
			if err != nil {
				return
			}
			if !slices.Equal(a.Persons, tt.persons) || len(a.Builders) != len(tt.persons) {
				t.Errorf("persons %v, builders %v", a.Persons, a.Builders)
			}
			out := a.Outputs[testOut]
			if len(a.Outputs) != 2 || out.ID != "out" || out.SHA256 != Sum([]byte("same")) || out.Size != 100 || len(out.References) != 1 {
				t.Errorf("%+v", a.Outputs)
			}
		})
	}

	_, err = Quorum(root, allow, base("drv", "other-1.drv"), testDrvSum, [][]byte{bela, boas})
	wantCodes(t, err, "not-allowed")
	_, err = Quorum(root, allow, testDrv, Sum(nil), [][]byte{bela, boas})
	wantCodes(t, err, "not-allowed")
	source := allow.Items[slices.IndexFunc(allow.Items, func(it Item) bool { return it.Kind == KindSource })]
	_, err = Quorum(root, allow, source.Name, source.SHA256, nil)
	wantCodes(t, err, "not-allowed")
	parsed, err := ParseAllowlist(list.Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Quorum(root, parsed, testDrv, testDrvSum, [][]byte{bela, boas}); err == nil {
		t.Error("an allowlist that was not opened allowed something")
	}
	_, err = Quorum(root, allow, testDrv, testDrvSum, make([][]byte, MaxVotes+1))
	wantCodes(t, err, "quorum-size")
}

// What a `built` statement must say of its outputs.
func TestBuiltStatement(t *testing.T) {
	k := testKey(t, "bela/statement", "")
	out := func(s *Statement) map[string]any {
		return s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)
	}
	tests := []struct {
		name   string
		change func(s *Statement)
	}{
		{"subject that is no output", func(s *Statement) { s.Subjects = append(s.Subjects, Subject{testOut + "-x", Sum(nil)}) }},
		{"output that is no subject", func(s *Statement) { s.Subjects = s.Subjects[:1] }},
		{"two outputs of one path", func(s *Statement) {
			out(s)["path"] = testDebug
			s.Subjects = s.Subjects[1:]
		}},
		{"path that is no store path", func(s *Statement) { out(s)["path"] = "/gnu/store/../etc" }},
		{"derivation that is no store path", func(s *Statement) { s.Predicate["derivation"] = testDrv }},
		{"references unsorted", func(s *Statement) {
			refs := []string{testOut, testDebug}
			slices.SortFunc(refs, func(a, b string) int { return strings.Compare(b, a) })
			out(s)["references"] = refs
		}},
		{"reference twice", func(s *Statement) { out(s)["references"] = []string{testOut, testOut} }},
		{"size below zero", func(s *Statement) { out(s)["size"] = -1 }},
		{"no size", func(s *Statement) { delete(out(s), "size") }},
		{"member too many", func(s *Statement) { out(s)["extra"] = true }},
		{"no person", func(s *Statement) { delete(s.Predicate, "person") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := builtBy("bela", "same", tt.change)
			payload, err := s.Payload()
			if err != nil {
				t.Fatal(err)
			}
			_, err = ParseEnvelope(envelopeOf(k, payload))
			wantCodes(t, err, "statement-predicate")
		})
	}
}

func TestKinds(t *testing.T) {
	if len(Kinds()) != len(statementKinds) || !slices.IsSorted(Kinds()) {
		t.Error(Kinds())
	}
	for name, kind := range statementKinds {
		if kind.role != RoleStation && kind.role != RoleImporter && kind.role != RoleBuilder {
			t.Errorf("%s is signed by role %s", name, kind.role)
		}
		if _, ok := kind.members["person"]; kind.role != RoleStation && !ok {
			t.Errorf("%s, which a person signs, does not name the person", name)
		}
	}
}
