package gate

import (
	"testing"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
)

func TestSeries(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	one := e.Volume(e.Source("one", "1"))
	two := e.Volume(e.Source("two", "2"))
	three := e.Volume(e.Source("three", "3"))
	must := func(v *enclavetest.Volume) *Quarantined {
		t.Helper()
		q, err := newGate(t, e, "dave/statement").take(t, v)
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	series := func(codes ...string) []SeriesLine {
		t.Helper()
		list, alarms, err := Series(t.Context(), e.Zone, e.Root, e.Clock())
		if err != nil {
			t.Fatal(err)
		}
		suite.Want(t, alarms.Err(), codes...)
		return list
	}
	states := func(list []SeriesLine) (s string) {
		for _, l := range list {
			s += l.State + " "
		}
		return s
	}
	series()
	must(one)
	// A later one may come first: no number blocks another.
	must(three)
	if s := states(series("shipment-missing")); s != "quarantined missing quarantined " {
		t.Error(s)
	}
	e.Order(func(o *trust.Orders) {
		o.Lost = append(o.Lost, trust.Lost{Shipment: 2, Date: o.Date, Reason: "fell into the sea"})
	})
	if s := states(series()); s != "quarantined lost quarantined " {
		t.Error(s)
	}
	// It turns up after all.
	refuse(t, e, two, "shipment-lost")
	// Silence.
	e.NextRoot(func(r *trust.Root) { r.Policies[trust.PolicySilence] = "7" })
	series()
	e.Sleep(8 * 24 * time.Hour)
	series("shipment-silence")
}

// A manifest that tells another date of a shipment than it had: somebody made two.
func TestRecent(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	one := e.Volume(e.Source("one", "1"))
	if _, err := newGate(t, e, "dave/statement").take(t, one); err != nil {
		t.Fatal(err)
	}
	src := e.Source("two", "2")
	m := e.Manifest(src)
	m.Recent = []shipment.Recent{{Number: 1, Date: one.Manifest.Date.Add(-time.Hour)}}
	refuse(t, e, e.Ship(m, "carol", src), "manifest-recent")
}

// The one that is told of comes later, and is another.
func TestRecentKnown(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	one := e.Volume(e.Source("one", "1"))
	src := e.Source("two", "2")
	m := e.Manifest(src)
	m.Recent = []shipment.Recent{{Number: 1, Date: one.Manifest.Date.Add(-time.Hour)}}
	for _, v := range []*enclavetest.Volume{e.Ship(m, "carol", src), one} {
		if _, err := newGate(t, e, "dave/statement").take(t, v); err != nil {
			t.Fatal(err)
		}
	}
	_, alarms, err := Series(t.Context(), e.Zone, e.Root, e.Clock())
	if err != nil {
		t.Fatal(err)
	}
	suite.Want(t, alarms.Err(), "manifest-recent")
	// Rows that name another manifest are noticed.
	e.Exec(`UPDATE shipment SET manifest = (SELECT manifest FROM shipment WHERE number = 2) WHERE number = 1`)
	_, _, err = Series(t.Context(), e.Zone, e.Root, e.Clock())
	suite.Want(t, err, "catalog-forged")
}
