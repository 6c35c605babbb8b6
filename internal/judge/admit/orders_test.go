package admit_test

import (
	"slices"
	"testing"
	"time"

	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/trust"
)

func names(list []admit.Dependent) []string {
	var s []string
	for _, d := range list {
		s = append(s, d.Name)
	}
	return s
}

func TestRecalled(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	src := mustView(t, e).List.Items[slices.IndexFunc(mustView(t, e).List.Items, func(it trust.Item) bool { return it.Kind == trust.KindSource })]
	base := storepathBase(t, out.Path)
	var r admit.Record
	e.Vote("erin", drv, out)
	e.Vote("frank", drv, out)
	view := func() *admit.View {
		t.Helper()
		if _, err := r.Read(t.Context(), e.Zone, e.Root); err != nil {
			t.Fatal(err)
		}
		v, err := r.View(t.Context(), e.Zone, e.Root, "dev")
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := view()
	if !slices.Contains(v.Names(), base) || !slices.Contains(v.Names(), src.Name) {
		t.Fatalf("before: %v", v.Names())
	}
	deps, err := v.Dependents(src.Name)
	if err != nil || len(deps) != 2 || !slices.Contains(names(deps), drv.Name) || !slices.ContainsFunc(deps, func(d admit.Dependent) bool { return d.Name == base && d.SHA256 == trust.Sum(out.Nar) }) {
		t.Errorf("dependents of the source: %+v, %v", deps, err)
	}
	// A source goes alone: what stands on it is recalled by name or not at all.
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: src.SHA256, Name: src.Name, Date: o.Date, Reason: "a back door"})
	})
	v = view()
	if slices.Contains(v.Names(), src.Name) || !slices.Contains(v.Names(), base) {
		t.Errorf("after the source's recall: %v", v.Names())
	}
	_, err = v.Item(src.Name)
	suite.Want(t, err, "recalled")
	if deps, err := v.Dependents(src.Name); err != nil || len(deps) != 2 {
		t.Errorf("what hangs on a recalled source is still told: %v, %v", deps, err)
	}
	// Under another name the same content is as dead.
	suite.Want(t, v.Recalled(src.SHA256, "another-name"), "recalled")
	// A derivation takes its outputs along.
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: drv.SHA256, Name: drv.Name, Date: o.Date, Reason: "wrong flags"})
	})
	v = view()
	for _, name := range []string{drv.Name, base} {
		if slices.Contains(v.Names(), name) {
			t.Errorf("%s is still there", name)
		}
	}
	_, err = v.Derivation(drv.Name)
	suite.Want(t, err, "recalled")
	_, err = v.Item(base)
	suite.Want(t, err, "not-allowed")
	_, err = v.Evidence(drv.Name, nil)
	suite.Want(t, err, "recalled")
}

func TestRecalledOutput(t *testing.T) {
	t.Parallel()
	e, drv, out := built(t)
	base := storepathBase(t, out.Path)
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: trust.Sum(out.Nar), Name: base, Date: o.Date, Reason: "miscompiled"})
	})
	v := mustView(t, e)
	if _, err := v.Evidence(drv.Name, [][]byte{e.Built("erin", drv, out), e.Built("frank", drv, out)}); err != nil {
		t.Fatal(err)
	}
	_, err := v.Item(base)
	suite.Want(t, err, "recalled")
	if slices.Contains(v.Names(), base) {
		t.Error("it is still named")
	}
}

func TestBreakGlass(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	e.NextRoot(func(r *trust.Root) { r.Policies[trust.PolicyBreakGlass] = "24" })
	e.Allow("dev", e.Source("again", "again")) // by the new root
	urgent := e.Source("urgent", "fix")
	e.Order(func(o *trust.Orders) {
		o.BreakGlass = append(o.BreakGlass, trust.BreakGlass{Track: "dev", Until: o.Date.Add(time.Hour), Item: urgent.Item, Date: o.Date, Reason: "exploited"})
	})
	v := mustView(t, e)
	if it, err := v.Item(urgent.Name); err != nil || it.NarHash != urgent.SHA256 || !slices.Contains(v.Names(), urgent.Name) {
		t.Fatalf("%+v, %v", it, err)
	}
	if len(v.Glass()) != 1 || !v.Expires().Equal(v.Glass()[0].Until) {
		t.Errorf("%v, %v", v.Glass(), v.Expires())
	}
	// It ends by itself, with no document and no one having done anything.
	e.Sleep(time.Hour)
	_, err := v.Item(urgent.Name)
	suite.Want(t, err, "not-allowed")
	if slices.Contains(v.Names(), urgent.Name) || len(v.Glass()) != 0 || !v.Expires().IsZero() {
		t.Error("it is still in")
	}
}

// What the ledger says is newest is demanded: rows that are gone change nothing.
func TestOrdersTakenAway(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	e.Order(func(o *trust.Orders) { o.Lost = append(o.Lost, trust.Lost{Shipment: 7, Date: o.Date, Reason: "burnt"}) })
	e.Order(func(o *trust.Orders) { o.Lost = append(o.Lost, trust.Lost{Shipment: 8, Date: o.Date, Reason: "burnt"}) })
	var r admit.Record
	if _, err := r.Read(t.Context(), e.Zone, e.Root); err != nil {
		t.Fatal(err)
	}
	if _, err := r.View(t.Context(), e.Zone, e.Root, "dev"); err != nil {
		t.Fatal(err)
	}
	old := e.Root
	e.NextRoot(nil)
	if _, err := r.Read(t.Context(), e.Zone, e.Root); err != nil {
		t.Fatal(err)
	}
	_, err := r.View(t.Context(), e.Zone, old, "dev")
	suite.Want(t, err, "root-rollback")
	for range 2 {
		e.Exec(`DELETE FROM orders WHERE version = (SELECT max(version) FROM orders)`)
		_, err := r.View(t.Context(), e.Zone, e.Root, "dev")
		suite.Want(t, err, "orders-rollback")
	}
}

// A floor knows the orders, too.
func TestOrdersFloor(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	path := t.TempDir() + "/floor.json"
	before := mustView(t, e)
	e.Order(func(o *trust.Orders) { o.Lost = append(o.Lost, trust.Lost{Shipment: 7, Date: o.Date, Reason: "burnt"}) })
	if err := admit.Raise(path, mustView(t, e)); err != nil {
		t.Fatal(err)
	}
	suite.Want(t, admit.Raise(path, before), "orders-rollback")
}

func storepathBase(t *testing.T, path string) string {
	t.Helper()
	p, err := storepath.Parse(path)
	if err != nil {
		t.Fatal(err)
	}
	return p.Base()
}
