package statement

import (
	"os"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

var (
	testDrv    = trusttest.Base("drv", "hello-2.12.drv")
	testDrvSum = trust.Sum([]byte("derivation"))
	testOut    = storepath.Dir + "/" + trusttest.Base("out", "hello-2.12")
	testDebug  = storepath.Dir + "/" + trusttest.Base("debug", "hello-2.12-debug")
)

// builtBy says what a builder made; change may alter it.
func builtBy(person, content string, change func(s *Statement)) Statement {
	s := Statement{
		Kind:     KindBuilt,
		Subjects: []Subject{{Name: testOut, SHA256: trust.Sum([]byte(content))}, {Name: testDebug, SHA256: trust.Sum([]byte("debug"))}},
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

// What a `built` statement must say of its outputs.
func TestBuiltStatement(t *testing.T) {
	k := trusttest.Key(t, "bela/statement", "")
	out := func(s *Statement) map[string]any {
		return s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)
	}
	tests := []struct {
		name   string
		change func(s *Statement)
	}{
		{"subject that is no output", func(s *Statement) {
			s.Subjects = append(s.Subjects, Subject{testOut + "-x", trust.Sum(nil)})
		}},
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
			trusttest.WantCodes(t, err, "statement-predicate")
		})
	}
}

func TestKinds(t *testing.T) {
	if len(Kinds()) != len(statementKinds) || !slices.IsSorted(Kinds()) {
		t.Error(Kinds())
	}
	for name, kind := range statementKinds {
		if kind.role != trust.RoleStation && kind.role != trust.RoleImporter && kind.role != trust.RoleBuilder {
			t.Errorf("%s is signed by role %s", name, kind.role)
		}
		if _, ok := kind.members["person"]; kind.role != trust.RoleStation && !ok {
			t.Errorf("%s, which a person signs, does not name the person", name)
		}
	}
}

// The page has a row for each kind, which names its signer and all members.
func TestKindsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/spec/trust.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n| KIND | signed by |")
	for _, name := range Kinds() {
		_, row, ok := strings.Cut(table, "\n| `"+name+"` | ")
		row, _, _ = strings.Cut(row, "\n")
		if !ok || !strings.HasPrefix(row, string(statementKinds[name].role)+" | ") {
			t.Errorf("the page has no row for %s, or another signer", name)
			continue
		}
		for member := range statementKinds[name].members {
			if !strings.Contains(row, "`"+member+"`") {
				t.Errorf("the row of %s does not name %s", name, member)
			}
		}
	}
}
