package quorum

import (
	"bytes"
	"slices"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
	"sallyport/internal/trust/trusttest"
)

var (
	testDrv    = trusttest.Base("drv", "hello-2.12.drv")
	testDrvSum = trust.Sum([]byte("derivation"))
	testOut    = storepath.Dir + "/" + trusttest.Base("out", "hello-2.12")
	testDebug  = storepath.Dir + "/" + trusttest.Base("debug", "hello-2.12-debug")
)

// builtBy says what a builder made; change may alter it.
func builtBy(person, content string, change func(s *statement.Statement)) statement.Statement {
	s := statement.Statement{
		Kind:     statement.KindBuilt,
		Subjects: []statement.Subject{{Name: testOut, SHA256: trust.Sum([]byte(content))}, {Name: testDebug, SHA256: trust.Sum([]byte("debug"))}},
		Predicate: map[string]any{
			"time": trusttest.Epoch, "zone": trusttest.Zone, "person": person, "system": "x86_64-linux",
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

// importedBy is a statement that a person signs.
func importedBy(person string) statement.Statement {
	return statement.Statement{Kind: statement.KindImported, Subjects: []statement.Subject{{Name: "manifest", SHA256: trust.Sum([]byte("m"))}}, Predicate: map[string]any{
		"time": trusttest.Epoch, "zone": trusttest.Zone, "shipment": 1, "items": 3, "bytes": 9, "person": person,
	}}
}

func TestDecide(t *testing.T) {
	e := trusttest.New(t)
	r := e.Root()
	second := trusttest.Key(t, "bela/statement", "second")
	r.Keys = append(r.Keys, second.RootKey())
	root := e.Open(r)
	list := trusttest.Allowlist(4)
	list.Items = append(list.Items, trust.Item{SHA256: testDrvSum, Size: 10, Kind: trust.KindDerivation, Name: testDrv})
	allow, _, err := trust.OpenAllowlist(e.Sign(list.Text(), "rada/allowlist", "remy/allowlist"), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	signWith := func(k *trust.Key, s statement.Statement) []byte {
		t.Helper()
		b, err := statement.Sign(k, s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	vote := func(person, content string, change func(s *statement.Statement)) []byte {
		return signWith(e.Key(person+"/statement"), builtBy(person, content, change))
	}
	output := func(name string, value any) func(s *statement.Statement) {
		return func(s *statement.Statement) {
			s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)[name] = value
		}
	}
	bela, boas, bria := vote("bela", "same", nil), vote("boas", "same", nil), vote("bria", "same", nil)
	broken := bytes.Clone(boas)
	broken[len(broken)-10] ^= 1
	otherDrv := func(s *statement.Statement) { s.Predicate["derivation-sha256"] = trust.Sum(nil) }
	elsewhere := func(s *statement.Statement) {
		s.Predicate["derivation"] = storepath.Dir + "/" + trusttest.Base("x", "hello-2.12.drv")
	}

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
		{"one, said at two times", [][]byte{bela, vote("bela", "same", func(s *statement.Statement) { s.Predicate["time"] = "2026-03-02T00:00:00Z" })}, []string{"quorum-waiting"}, nil},
		{"two keys of one person", [][]byte{bela, signWith(second, builtBy("bela", "same", nil))}, []string{"quorum-waiting"}, nil},
		{"a stranger", [][]byte{bela, vote("zora", "same", nil)}, []string{"quorum-waiting"}, nil},
		{"an importer", [][]byte{bela, vote("ines", "same", nil)}, []string{"quorum-waiting"}, nil},
		{"in another's name", [][]byte{bela, signWith(e.Key("boas/statement"), builtBy("bria", "same", nil))}, []string{"quorum-waiting"}, nil},
		{"a broken signature", [][]byte{bela, broken}, []string{"quorum-waiting"}, nil},
		{"another derivation", [][]byte{bela, vote("boas", "same", elsewhere)}, []string{"quorum-waiting"}, nil},
		{"no statement at all", [][]byte{bela, []byte("{}")}, []string{"quorum-waiting"}, nil},
		{"another kind", [][]byte{bela, signWith(e.Key("ines/statement"), importedBy("ines"))}, []string{"quorum-waiting"}, nil},
		{"strangers cannot dissent", [][]byte{bela, boas, vote("zora", "other", nil)}, nil, []string{"bela", "boas"}},
		{"nor can other derivations", [][]byte{bela, boas, vote("bria", "other", elsewhere)}, nil, []string{"bela", "boas"}},
		{"dissent", [][]byte{bela, vote("boas", "other", nil)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"dissent against a quorum", [][]byte{bela, boas, vote("bria", "other", nil)}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
		{"dissent with oneself", [][]byte{bela, vote("bela", "other", nil)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"dissent of a second key", [][]byte{bela, boas, signWith(second, builtBy("bela", "other", nil))}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
		{"another size", [][]byte{bela, vote("boas", "same", output("size", 101))}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"other references", [][]byte{bela, vote("boas", "same", output("references", []string{}))}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"another path", [][]byte{bela, vote("boas", "same", func(s *statement.Statement) {
			s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)["path"] = storepath.Dir + "/" + trusttest.Base("x", "hello-2.12")
			s.Subjects[0].Name = storepath.Dir + "/" + trusttest.Base("x", "hello-2.12")
		})}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"an output less", [][]byte{bela, vote("boas", "same", func(s *statement.Statement) {
			delete(s.Predicate["outputs"].(map[string]any), "debug")
			s.Subjects = s.Subjects[:1]
		})}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"all of another derivation of the same path", [][]byte{vote("bela", "same", otherDrv), vote("boas", "same", otherDrv)}, []string{"quorum-dissent", "quorum-dissent"}, nil},
		{"another derivation of the same path", [][]byte{bela, boas, vote("bria", "same", otherDrv)}, []string{"quorum-dissent", "quorum-dissent", "quorum-dissent"}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Decide(trust.Allowed{Root: root, List: allow}, testDrv, testDrvSum, tt.envelopes)
			trusttest.WantCodes(t, err, tt.code...)
			if err != nil {
				return
			}
			if !slices.Equal(a.Persons, tt.persons) || len(a.Builders) != len(tt.persons) {
				t.Errorf("persons %v, builders %v", a.Persons, a.Builders)
			}
			out := a.Outputs[testOut]
			if len(a.Outputs) != 2 || out.ID != "out" || out.SHA256 != trust.Sum([]byte("same")) || out.Size != 100 || len(out.References) != 1 {
				t.Errorf("%+v", a.Outputs)
			}
		})
	}

	_, err = Decide(trust.Allowed{Root: root, List: allow}, trusttest.Base("drv", "other-1.drv"), testDrvSum, [][]byte{bela, boas})
	trusttest.WantCodes(t, err, "not-allowed")
	_, err = Decide(trust.Allowed{Root: root, List: allow}, testDrv, trust.Sum(nil), [][]byte{bela, boas})
	trusttest.WantCodes(t, err, "not-allowed")
	source := allow.Items[slices.IndexFunc(allow.Items, func(it trust.Item) bool { return it.Kind == trust.KindSource })]
	_, err = Decide(trust.Allowed{Root: root, List: allow}, source.Name, source.SHA256, nil)
	trusttest.WantCodes(t, err, "not-allowed")
	parsed, err := trust.ParseAllowlist(list.Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decide(trust.Allowed{Root: root, List: parsed}, testDrv, testDrvSum, [][]byte{bela, boas}); err == nil {
		t.Error("an allowlist that was not opened allowed something")
	}
	_, err = Decide(trust.Allowed{Root: root, List: allow}, testDrv, testDrvSum, make([][]byte, MaxVotes+1))
	trusttest.WantCodes(t, err, "quorum-size")
	// Each that does not count is told why.
	for code, envelope := range map[string][]byte{
		"quorum-kind":       signWith(e.Key("ines/statement"), importedBy("ines")),
		"quorum-derivation": vote("boas", "same", elsewhere),
	} {
		votes, ignored, err := Ballot(root, nil, testDrv, [][]byte{bela, envelope})
		if err != nil || len(votes) != 1 {
			t.Errorf("%s: %d votes, %v", code, len(votes), err)
		}
		trusttest.WantCodes(t, ignored.Err(), code)
	}
	closed, err := trust.ParseRoot(root.Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Ballot(closed, nil, testDrv, nil); err != trust.ErrNotOpened {
		t.Errorf("by a root that was not opened: %v", err)
	}
}
