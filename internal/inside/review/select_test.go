package review

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func key(t *testing.T, name string) *trust.Key { return enclavetest.Key(t, name+"/allowlist") }

func TestClasses(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	clean, odd, bad := e.Source("clean", "c"), e.Source("odd", "o"), e.Source("bad", "b")
	drv := e.Derivation("hello-1.0", clean)
	n := e.QuarantineWith("dave", []attach.Finding{
		{Item: odd.SHA256.String(), Severity: "review", Rule: "r", Count: 1}, {Item: odd.SHA256.String(), Severity: "info", Rule: "i", Count: 3},
		{Item: bad.SHA256.String(), Severity: "high", Rule: "h", Count: 1},
	}, clean, odd, bad, drv)
	d := desk(e)
	list, left, err := d.Classes(t.Context(), n, "dev", nil)
	if err != nil || len(list) != 4 || len(left) != 0 {
		t.Fatalf("%+v, %v, %v", list, left, err)
	}
	rules := []string{"kind=source,severity<=review", "kind=derivation"}
	list, left, err = d.Classes(t.Context(), n, "dev", rules)
	if err != nil || len(list) != 2 || list[0].Items != 2 || list[0].Worst != "review" || len(left) != 1 || left[0].Name != bad.Name {
		t.Fatalf("%+v, %v, %v", list, left, err)
	}
	one, err := d.Approve(t.Context(), n, "dev", key(t, "alice"), Selection{Rules: rules})
	if err != nil || one.Added != 3 || one.Left != 1 || len(one.Classes) != 2 || one.InForce {
		t.Fatalf("%+v, %v", one, err)
	}
	// The second reviewer signs what the first selected, computed anew, or says the same; another selection is another text.
	unchanged(t, e, func() error {
		_, err := d.Approve(t.Context(), n, "dev", key(t, "bob"), Selection{Rules: rules[:1]})
		return err
	}, "proposal-changed")
	two, err := d.Approve(t.Context(), n, "dev", key(t, "bob"), Selection{})
	if err != nil || !two.InForce || two.Digest != one.Digest || two.Left != 1 {
		t.Fatalf("%+v, %v", two, err)
	}
	a, _ := inForce(t, e, "dev")
	var sources []trust.Item
	for _, it := range a.Items {
		if it.Kind == trust.KindSource {
			sources = append(sources, it)
		}
	}
	if len(a.Items) != 3 || !slices.Contains(a.Classes, trust.NewClass(n, rules[0], sources)) {
		t.Errorf("%+v", a.Classes)
	}
	if e.Row(`SELECT state FROM shipment`) != "quarantined" {
		t.Error("a shipment of which something is left is admitted")
	}
	// What is left goes in by name.
	for _, person := range []string{"alice", "bob"} {
		if two, err = d.Approve(t.Context(), n, "dev", key(t, person), Selection{Items: []string{bad.Name}}); err != nil {
			t.Fatal(err)
		}
	}
	if !two.InForce || two.Left != 0 || e.Row(`SELECT state FROM shipment`) != "admitted" {
		t.Errorf("%+v", two)
	}
	// Known elsewhere.
	for _, person := range []string{"alice", "bob"} {
		if _, err = d.Approve(t.Context(), n, "prod", key(t, person), Selection{Rules: []string{"known=yes,size<=100000"}}); err != nil {
			t.Fatal(err)
		}
	}
	if a, _ := inForce(t, e, "prod"); len(a.Items) != 4 {
		t.Errorf("%+v", a.Items)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	src := e.Source("a", "a")
	n := e.Quarantine("dave", src)
	d := desk(e)
	for _, tt := range []struct {
		sel  Selection
		code string
	}{
		{Selection{Rules: []string{"kind=source,kind=source"}}, "class-rule"},
		{Selection{Rules: []string{"severity<=nice"}}, "class-rule"},
		{Selection{Rules: []string{"colour=red"}}, "class-rule"},
		{Selection{Rules: []string{"kind<=source"}}, "class-rule"},
		{Selection{Rules: []string{"known=maybe"}}, "class-rule"},
		{Selection{Rules: []string{"size=many"}}, "class-rule"},
		{Selection{Rules: []string{"corroborations<=1"}}, "class-rule"},
		{Selection{Rules: []string{"kind=derivation"}}, "class-empty"},
		{Selection{Rules: []string{"corroborations>=1"}}, "class-empty"},
		{Selection{Rules: []string{"bound=yes"}}, "class-empty"},
		{Selection{Items: []string{"nothing"}}, "item-unknown"},
	} {
		unchanged(t, e, func() error {
			_, err := d.Approve(t.Context(), n, "dev", key(t, "alice"), tt.sel)
			return err
		}, tt.code)
	}
	// Rows do not say what was found: the entry does, and without it no rule is applied.
	e.Exec(`DELETE FROM finding`)
	if _, err := d.Approve(t.Context(), n, "dev", key(t, "alice"), Selection{Rules: []string{"severity=none"}}); err != nil {
		t.Error(err)
	}
	never := e.Source("never", "inspected")
	m := e.Manifest(never)
	_, err := d.facts(t.Context(), &dossier{digest: trust.Sum(m.Text())}, "dev", nil, nil)
	suite.Want(t, err, "not-inspected")
	e.Commit(func(tx *store.Tx) error {
		return tx.Statement(statement.KindInspected, []statement.Subject{{Name: "shipment 9", SHA256: trust.Sum(m.Text())}},
			map[string]any{"files": 1, "bytes": 1, "findings": map[string]any{}, "confinement": map[string]any{}})
	})
	_, err = d.facts(t.Context(), &dossier{digest: trust.Sum(m.Text())}, "dev", nil, nil)
	suite.Want(t, err, "not-inspected")
}

// Thousands of items at once, by one rule, stay quick; and so does every verifier.
func TestManyItems(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("NOT TESTED in a short run: a shipment of 1,000 items")
	}
	e := enclavetest.New(t)
	var contents []enclavetest.Content
	for i := range 1000 {
		contents = append(contents, e.Source(fmt.Sprintf("src-%d", i), fmt.Sprint("content ", i)))
	}
	n := e.Quarantine("dave", contents...)
	d := desk(e)
	for _, person := range []string{"alice", "bob"} {
		if _, err := d.Approve(t.Context(), n, "dev", key(t, person), Selection{Rules: []string{"kind=source,severity=none"}}); err != nil {
			t.Fatal(err)
		}
	}
	if a, _ := inForce(t, e, "dev"); len(a.Items) != 1000 || len(a.Classes) != 1 || a.Classes[0].Items != 1000 {
		t.Error(len(a.Items))
	}
}

func TestPromote(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	src := e.Source("src", "s")
	drv := e.Derivation("hello-1.0", src)
	other := e.Source("other", "o")
	n := e.Quarantine("dave", src, drv, other)
	mustApprove(t, e, n, "dev", "alice", "bob")
	d := desk(e)
	promote := func(person string, names ...string) (*Outcome, error) {
		return d.Promote(t.Context(), "dev", "prod", names, key(t, person))
	}
	refuse := func(names []string, from, to, person string, codes ...string) {
		t.Helper()
		unchanged(t, e, func() error {
			_, err := d.Promote(t.Context(), from, to, names, key(t, person))
			return err
		}, codes...)
	}
	refuse(nil, "dev", "prod", "dave", "separation-of-duties")
	refuse([]string{drv.Name}, "dev", "prod", "alice", "input-missing")
	refuse([]string{"nothing"}, "dev", "prod", "alice", "not-allowed")
	refuse(nil, "prod", "dev", "alice", "no-allowlist")
	refuse(nil, "dev", "dev", "alice", "no-track")
	refuse(nil, "dev", "moon", "alice", "no-track")
	one, err := promote("alice", drv.Name, src.Name)
	if err != nil || one.InForce || one.Added != 2 || one.From != "dev" {
		t.Fatalf("%+v, %v", one, err)
	}
	e.Sleep(time.Minute)
	two, err := promote("bob", src.Name, drv.Name)
	if err != nil || !two.InForce || two.Digest != one.Digest {
		t.Fatalf("%+v, %v", two, err)
	}
	a, persons := inForce(t, e, "prod")
	if len(a.Items) != 2 || !slices.Equal(persons, []string{"alice", "bob"}) || e.Kinds()["released"] != 1 {
		t.Errorf("%+v, %v", a.Items, persons)
	}
	// All of it: what is there already is not added again.
	for _, person := range []string{"alice", "bob"} {
		if two, err = d.Promote(t.Context(), "dev", "prod", nil, key(t, person)); err != nil {
			t.Fatal(err)
		}
	}
	if a, _ := inForce(t, e, "prod"); len(a.Items) != 3 || a.Version != 2 || two.Added != 1 {
		t.Errorf("%+v", a.Items)
	}
	unchanged(t, e, func() error {
		out, err := d.Promote(t.Context(), "dev", "prod", nil, key(t, "rita"))
		if err == nil && (!out.InForce || len(out.Persons) != 0) {
			t.Errorf("%+v", out)
		}
		return err
	})
	// Nothing else is proposed while a promotion waits, unless it is withdrawn.
	m := e.Quarantine("dave", e.Source("late", "l"))
	mustApprove(t, e, m, "dev", "alice", "bob")
	if _, err := d.Promote(t.Context(), "dev", "prod", nil, key(t, "alice")); err != nil {
		t.Fatal(err)
	}
	if _, err := approve(t, e, m, "prod", "bob/allowlist"); err == nil {
		t.Error("two proposals for one track")
	}
	if err := d.Withdraw(t.Context(), "prod", key(t, "bob")); err != nil {
		t.Fatal(err)
	}
	if err := d.Withdraw(t.Context(), "prod", key(t, "bob")); err == nil {
		t.Error("there is nothing to withdraw")
	}
	if _, err := approve(t, e, m, "prod", "bob/allowlist"); err != nil {
		t.Error(err)
	}
}

func TestRecalledIsLeftOut(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a, b, c := e.Source("a", "a"), e.Source("b", "b"), e.Source("c", "c")
	mustApprove(t, e, e.Quarantine("dave", a, b), "dev", "alice", "bob")
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: a.SHA256, Name: a.Name, Date: o.Date, Reason: "bad"}, trust.Recall{SHA256: c.SHA256, Name: c.Name, Date: o.Date, Reason: "bad"})
	})
	n := e.Quarantine("dave", c, e.Source("d", "d"))
	out := mustApprove(t, e, n, "dev", "alice", "bob")
	list, _ := inForce(t, e, "dev")
	if len(list.Items) != 2 || list.Orders != 1 || !slices.Equal(out.Recalled, []string{c.Name}) {
		t.Errorf("%+v, %+v", list, out)
	}
	for _, it := range list.Items {
		if it.Name == a.Name || it.Name == c.Name {
			t.Errorf("%s is on the list", it.Name)
		}
	}
}

func TestResign(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a, b := e.Source("a", "a"), e.Source("b", "b")
	mustApprove(t, e, e.Quarantine("dave", a, b), "dev", "alice", "bob")
	resign := func(person string) *Outcome {
		t.Helper()
		out, err := desk(e).Resign(t.Context(), "dev", key(t, person))
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := resign("rita"); !out.InForce || len(out.Persons) != 0 {
		t.Errorf("a list in force was signed again: %+v", out)
	}
	unchanged(t, e, func() error {
		_, err := desk(e).Resign(t.Context(), "prod", key(t, "rita"))
		return err
	}, "no-allowlist")
	e.NextRoot(enclavetest.Without("bob", trust.ContextAllowlist))
	resign("alice")
	if out := resign("rita"); !out.InForce || out.Version != 2 {
		t.Errorf("%+v", out)
	}
	if list, persons := inForce(t, e, "dev"); len(list.Items) != 2 || !slices.Equal(persons, []string{"alice", "rita"}) || list.Root != 2 {
		t.Errorf("%+v %v", list, persons)
	}
}

// A deputy and the principal are one; a kind may ask for more persons than the track.
func TestSeats(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	e.NextRoot(func(r *trust.Root) {
		r.Deputies = append(r.Deputies, trust.Deputy{Role: trust.RoleReviewer, Deputy: "rita", Principal: "alice"})
		r.SetKindThreshold("dev", trust.KindDerivation, 3)
	})
	src := e.Source("src", "s")
	n := e.Quarantine("eve", src)
	if out := mustApprove(t, e, n, "dev", "alice", "rita"); out.InForce || len(out.Persons) != 2 {
		t.Errorf("a deputy counts beside the principal: %+v", out)
	}
	if out := mustApprove(t, e, n, "dev", "bob"); !out.InForce {
		t.Errorf("%+v", out)
	}
	m := e.Quarantine("eve", e.Derivation("hello-1.0", src))
	if out := mustApprove(t, e, m, "dev", "alice", "bob"); out.InForce || out.Threshold != 3 {
		t.Errorf("two are enough for a derivation: %+v", out)
	}
	if out := mustApprove(t, e, m, "dev", "dave"); !out.InForce {
		t.Errorf("%+v", out)
	}
	// The importer's deputy does not approve either, of this shipment or of one that brings the item again.
	e.NextRoot(func(r *trust.Root) {
		r.Deputies = []trust.Deputy{{Role: trust.RoleReviewer, Deputy: "rita", Principal: "dave"}}
	})
	other := e.Source("other", "o")
	refuse(t, e, e.Quarantine("dave", other), "prod", "rita/allowlist", "separation-of-duties")
	refuse(t, e, e.Quarantine("eve", other), "prod", "rita/allowlist", "separation-of-duties")
}

// A clock that is behind the documents dates nothing.
func TestClockBehind(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	n := e.Quarantine("dave", e.Source("a", "a"))
	late := desk(e)
	late.Clock = func() time.Time { return e.Root.Date.Add(-time.Hour) }
	unchanged(t, e, func() error {
		_, err := late.Approve(t.Context(), n, "dev", key(t, "alice"), Selection{})
		return err
	}, "clock")
	e.Order(func(o *trust.Orders) {
		o.Date = o.Date.Add(time.Hour)
		o.Lost = append(o.Lost, trust.Lost{Shipment: 9, Date: o.Date, Reason: "burnt"})
	})
	unchanged(t, e, func() error {
		_, err := approve(t, e, n, "dev", "alice/allowlist")
		return err
	}, "clock")
}
