package statement

import (
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

func TestRejection(t *testing.T) {
	e := trusttest.New(t)
	e.Key("mira/allowlist")
	root := e.Open(e.Root())
	manifest := trust.Sum([]byte("manifest 7"))
	predicate := func(t *testing.T, key string) map[string]any {
		t.Helper()
		r := Rejection{Enclave: "citadel", Arrival: 7, Digest: manifest, Date: trusttest.Epoch, Reason: `a "blob" in src\`}
		_, p, err := r.Predicate(e.Key(key))
		if err != nil {
			t.Fatal(err)
		}
		p["time"], p["zone"] = trust.FormatDate(trusttest.Epoch.Add(time.Minute)), trusttest.Zone
		return p
	}
	verify := func(p map[string]any, subjects ...Subject) error {
		b, err := Sign(e.Key("station/statement"), Statement{Kind: KindRejected, Subjects: subjects, Predicate: p})
		if err != nil {
			return err
		}
		env, err := ParseEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = env.Verify(root, trusttest.Zone)
		return err
	}
	subject := Subject{"shipment 7", manifest}
	if err := verify(predicate(t, "rada/allowlist"), subject); err != nil {
		t.Fatal(err)
	}
	set := func(name string, v any) func(map[string]any) {
		return func(p map[string]any) { p[name] = v }
	}
	tests := []struct {
		name, code string
		key        string
		subjects   []Subject
		change     func(p map[string]any)
	}{
		{"another shipment", "rejection-signature", "rada/allowlist", nil, set("shipment", 8)},
		{"another reason", "rejection-signature", "rada/allowlist", nil, set("reason", "none")},
		{"another date", "rejection-signature", "rada/allowlist", nil, set("date", trust.FormatDate(trusttest.Epoch.Add(time.Hour)))},
		{"another manifest", "rejection-signature", "rada/allowlist", []Subject{{"shipment 7", trust.Sum(nil)}}, nil},
		{"another person", "rejection-person", "rada/allowlist", nil, set("person", "remy")},
		{"nobody's key", "rejection-unsigned", "mira/allowlist", nil, nil},
		{"two subjects", "statement-predicate", "rada/allowlist", []Subject{subject, {"shipment 8", manifest}}, nil},
		{"no signature line", "statement-predicate", "rada/allowlist", nil, set("signature", "rada+0123")},
		{"no date", "statement-predicate", "rada/allowlist", nil, func(p map[string]any) { delete(p, "date") }},
		{"reason that is not ASCII", "statement-predicate", "rada/allowlist", nil, set("reason", "ü")},
		{"empty reason", "statement-predicate", "rada/allowlist", nil, set("reason", "")},
		{"long reason", "statement-predicate", "rada/allowlist", nil, set("reason", strings.Repeat("x", trust.MaxReason+1))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := predicate(t, tt.key)
			if tt.change != nil {
				tt.change(p)
			}
			subjects := tt.subjects
			if subjects == nil {
				subjects = []Subject{subject}
			}
			err := verify(p, subjects...)
			if rs, _ := trust.AsRefusals(err); !rs.Has(tt.code) {
				t.Errorf("have %v, want %s", err, tt.code)
			}
		})
	}
	// An allowlist key that signs a rejection has not signed an allowlist, and no other key signs one.
	r := Rejection{Enclave: "citadel", Arrival: 7, Digest: manifest, Date: trusttest.Epoch, Reason: "x"}
	line, err := trust.SignText(r.Text(), e.Key("rada/allowlist"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.OpenAllowlist(trust.JoinNote(r.Text(), line), root, nil); err == nil {
		t.Error("a rejection was opened as an allowlist")
	}
	for _, name := range []string{"olga/root", "cleo/manifest", "station/statement"} {
		if _, _, err := r.Predicate(e.Key(name)); err == nil {
			t.Errorf("%s signed a rejection", name)
		}
	}
}
