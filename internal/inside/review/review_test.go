package review

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func desk(e *enclavetest.Enclave) *Desk { return &Desk{Zone: e.Zone, Root: e.Root, Clock: e.Clock} }

func approve(t *testing.T, e *enclavetest.Enclave, number int64, track, key string) (*Outcome, error) {
	t.Helper()
	return desk(e).Approve(t.Context(), number, track, enclavetest.Key(t, key), Selection{})
}

// mustApprove approves, or fails the test.
func mustApprove(t *testing.T, e *enclavetest.Enclave, number int64, track string, persons ...string) *Outcome {
	t.Helper()
	var out *Outcome
	for _, p := range persons {
		var err error
		if out, err = approve(t, e, number, track, p+"/allowlist"); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	return out
}

// refuse demands that an approval is refused with these codes, becomes an entry, and changes nothing else.
func refuse(t *testing.T, e *enclavetest.Enclave, number int64, track, key string, codes ...string) {
	t.Helper()
	unchanged(t, e, func() error {
		_, err := approve(t, e, number, track, key)
		return err
	}, codes...)
}

func unchanged(t *testing.T, e *enclavetest.Enclave, do func() error, codes ...string) {
	t.Helper()
	before, kinds := e.State(), e.Kinds()
	suite.Want(t, do(), codes...)
	if e.State() != before {
		t.Error("something changed")
	}
	if len(codes) > 0 {
		kinds[statement.KindRefused]++
	}
	if after := e.Kinds(); fmt.Sprint(after) != fmt.Sprint(kinds) {
		t.Errorf("entries %v, want %v", after, kinds)
	}
}

// inForce opens the list in force on a track.
func inForce(t *testing.T, e *enclavetest.Enclave, track string) (*trust.Allowlist, []string) {
	t.Helper()
	orders, err := e.Zone.Orders(t.Context(), e.Root)
	if err != nil {
		t.Fatal(err)
	}
	note, err := e.Zone.Allowlist(t.Context(), track)
	if err != nil {
		t.Fatal(err)
	}
	if note == nil {
		return nil, nil
	}
	a, persons, err := trust.OpenAllowlist(note, e.Root, orders)
	if err != nil {
		t.Fatal(err)
	}
	published, err := e.Zone.ReadPublic(fmt.Sprintf("allowlist/%s/%d", track, a.Version))
	if err != nil || string(published) != string(note) {
		t.Errorf("what is published is another list: %v", err)
	}
	return a, persons
}

func TestApprove(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a, b := e.Source("a", "a"), e.Source("b", "b")
	n := e.Quarantine("dave", a, b)
	one := mustApprove(t, e, n, "dev", "alice")
	if one.InForce || one.Version != 1 || !slices.Equal(one.Persons, []string{"alice"}) || one.Threshold != 2 {
		t.Errorf("%+v", one)
	}
	if list, _ := inForce(t, e, "dev"); list != nil {
		t.Error("one reviewer put a list in force")
	}
	// Again it changes nothing.
	unchanged(t, e, func() error {
		_, err := approve(t, e, n, "dev", "alice/allowlist")
		return err
	})
	e.Sleep(time.Hour)
	two := mustApprove(t, e, n, "dev", "bob")
	list, persons := inForce(t, e, "dev")
	if !two.InForce || two.Digest != one.Digest || !slices.Equal(persons, []string{"alice", "bob"}) || !slices.Equal(list.Items, enclavetest.Items(a, b)) {
		t.Errorf("%+v, %v", two, persons)
	}
	if k := e.Kinds(); k["approved"] != 2 || k["allowed"] != 1 {
		t.Error(k)
	}
	if e.Row(`SELECT state FROM shipment`) != "admitted" || e.Row(`SELECT count(*) FROM proposal`) != "0" || e.Notes() != nil {
		t.Error("rows or notes stay")
	}
	for _, s := range e.Entries() {
		if s.Kind == statement.KindApproved {
			line, _ := s.Predicate["signature"].(string)
			k, err := trust.VerifyLine("allowlist", list.Text(), line, e.Root.Signers(trust.ContextAllowlist, list.Date))
			if err != nil || k.Person != s.Predicate["person"] {
				t.Errorf("%v: %v", s.Predicate["person"], err)
			}
		}
	}
	// All of it is allowed: a third approval signs nothing.
	unchanged(t, e, func() error {
		out, err := approve(t, e, n, "dev", "rita/allowlist")
		if err == nil && (!out.InForce || len(out.Persons) != 0) {
			t.Errorf("%+v", out)
		}
		return err
	})
	// The next shipment's list follows; the other track begins at 1.
	m := e.Quarantine("dave", e.Source("c", "c"))
	mustApprove(t, e, m, "dev", "rita", "bob")
	next, _ := inForce(t, e, "dev")
	if next.Version != 2 || next.Previous != list.Digest() || len(next.Items) != 3 {
		t.Errorf("%+v", next)
	}
	mustApprove(t, e, n, "prod", "alice", "rita")
	if p, _ := inForce(t, e, "prod"); p.Version != 1 || len(p.Items) != 2 {
		t.Errorf("%+v", p)
	}
}

func TestWhoMayApprove(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	n := e.Quarantine("dave", e.Source("a", "a"))
	refuse(t, e, n, "dev", "dave/allowlist", "separation-of-duties")
	refuse(t, e, n, "dev", "mallory/allowlist", "not-reviewer")
	refuse(t, e, n, "dev", "alice/allowlist#2", "not-reviewer")
	refuse(t, e, n, "dev", "erin/statement", "key-context")
	refuse(t, e, n, "dev", "dave/statement", "key-context", "separation-of-duties")
	refuse(t, e, n, "test", "alice/allowlist", "no-track")
	if _, err := approve(t, e, 7, "dev", "alice/allowlist"); err == nil || !strings.Contains(err.Error(), "no shipment 7") {
		t.Error(err)
	}
}

// Whoever imported an item with another shipment does not approve it.
func TestTwoDoors(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	x, y := e.Source("x", "x"), e.Source("y", "y")
	first := e.Quarantine("dave", x)
	second := e.Quarantine("eve", x, y)
	refuse(t, e, second, "dev", "dave/allowlist", "separation-of-duties")
	// For the track on which it is allowed already nobody approves it any more.
	mustApprove(t, e, first, "dev", "alice", "bob")
	mustApprove(t, e, second, "dev", "dave", "rita")
	refuse(t, e, second, "prod", "dave/allowlist", "separation-of-duties")
	// A rejected shipment frees who imported it.
	z := e.Source("z", "z")
	third := e.Quarantine("dave", z)
	fourth := e.Quarantine("eve", z)
	refuse(t, e, fourth, "dev", "dave/allowlist", "separation-of-duties")
	if err := desk(e).Reject(t.Context(), third, enclavetest.Key(t, "alice/allowlist"), "twice"); err != nil {
		t.Fatal(err)
	}
	mustApprove(t, e, fourth, "dev", "dave", "rita")
	// A new key for imports makes no new person, and an old entry is still the importer's.
	five := e.Quarantine("dave", e.Source("five", "five"))
	six := e.Quarantine("eve", e.Source("five", "five"))
	e.NextRoot(func(r *trust.Root) {
		enclavetest.Without("dave", trust.ContextStatement)(r)
		r.Keys = append(r.Keys, enclavetest.Key(t, "dave/statement#2").RootKey())
	})
	refuse(t, e, six, "dev", "dave/allowlist", "separation-of-duties")
	refuse(t, e, five, "dev", "dave/allowlist", "separation-of-duties")
	mustApprove(t, e, five, "dev", "alice", "bob")
}

func TestConflicts(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a := e.Source("a", "a")
	n := e.Quarantine("dave", a)
	mustApprove(t, e, n, "dev", "alice", "bob")
	other := e.Source("b", "b")
	other.Name = a.Name
	refuse(t, e, e.Quarantine("dave", other), "dev", "alice/allowlist", "item-conflict")
	e.Sleep(-24 * time.Hour)
	refuse(t, e, e.Quarantine("dave", e.Source("c", "c")), "dev", "alice/allowlist", "clock")
	e.Sleep(24 * time.Hour)
	d, f := e.Source("d", "d"), e.Source("f", "f")
	lost := e.Quarantine("dave", d, f)
	for _, c := range []enclavetest.Content{d, f} {
		if err := e.Zone.CAS.Remove(c.SHA256); err != nil {
			t.Fatal(err)
		}
	}
	refuse(t, e, lost, "dev", "alice/allowlist", "item-lost", "item-lost")
	e.Put(d.Data)
	e.Put(f.Data)
	mustApprove(t, e, lost, "dev", "alice")
	if _, err := approve(t, e, e.Quarantine("dave", e.Source("g", "g")), "dev", "bob/allowlist"); err == nil || !strings.Contains(err.Error(), "under review") {
		t.Error(err)
	}
}

// What root on the station can do to rows while a proposal is open.
func TestForgedRows(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) (*enclavetest.Enclave, int64) {
		e := enclavetest.New(t)
		n := e.Quarantine("dave", e.Source("a", "a"))
		mustApprove(t, e, n, "dev", "alice")
		return e, n
	}
	t.Run("signatures of nobody", func(t *testing.T) {
		e, n := open(t)
		line := e.Row(`SELECT line FROM proposal_signature`)
		for _, q := range []string{`DELETE FROM proposal_signature`, `INSERT INTO proposal_signature VALUES ('dev', 'bob', 'x')`, `INSERT INTO proposal_signature VALUES ('dev', 'rita', '` + line + `')`} {
			e.Exec(q)
		}
		if out := mustApprove(t, e, n, "dev", "bob"); out.InForce || !slices.Equal(out.Persons, []string{"bob"}) {
			t.Errorf("%+v", out)
		}
		if k := e.Kinds(); k["approved"] != 2 {
			t.Errorf("a forged row has hidden an approval: %v", k)
		}
	})
	t.Run("another text", func(t *testing.T) {
		e, n := open(t)
		list := e.List("dev", e.Source("a", "a"), e.Source("evil", "evil"))
		e.Exec(`UPDATE proposal SET text = ?`, e.Put(list.Text()).String())
		refuse(t, e, n, "dev", "bob/allowlist", "proposal-changed")
	})
	t.Run("a date in the future", func(t *testing.T) {
		e, n := open(t)
		list := e.List("dev", e.Source("a", "a"))
		list.Date = list.Date.Add(maxAhead + time.Minute)
		e.Exec(`UPDATE proposal SET text = ?`, e.Put(list.Text()).String())
		refuse(t, e, n, "dev", "bob/allowlist", "proposal-date")
	})
	t.Run("a rejected shipment is quarantined again", func(t *testing.T) {
		e, n := open(t)
		if err := desk(e).Reject(t.Context(), n, enclavetest.Key(t, "bob/allowlist"), "no"); err != nil {
			t.Fatal(err)
		}
		refuse(t, e, n, "dev", "alice/allowlist", "shipment-rejected")
		e.Exec(`UPDATE shipment SET state = 'quarantined'`)
		if out := mustApprove(t, e, n, "dev", "alice"); out.InForce {
			t.Error("one person put a rejected shipment in force")
		}
	})
	t.Run("another manifest", func(t *testing.T) {
		e, n := open(t)
		m := e.Quarantine("dave", e.Source("b", "b"))
		e.Exec(`UPDATE shipment SET manifest = (SELECT manifest FROM shipment WHERE number = ?) WHERE number = ?`, m, n)
		refuse(t, e, n, "dev", "bob/allowlist", "catalog-forged")
	})
	t.Run("a manifest that nobody imported", func(t *testing.T) {
		e, _ := open(t)
		m := e.Manifest(e.Source("a", "a"))
		file, err := m.Sign(enclavetest.Key(t, "carol/manifest"))
		if err != nil {
			t.Fatal(err)
		}
		e.Exec(`INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'quarantined', 'eve', '', 1, 1)`, m.Number, e.Put(file).String())
		refuse(t, e, m.Number, "dev", "bob/allowlist", "not-imported")
	})
	t.Run("hints that lead astray", func(t *testing.T) {
		e, n := open(t)
		for _, hint := range []string{"0", "99999", "-1", "x", ""} {
			e.Exec(`UPDATE setting SET value = ? WHERE name LIKE 'imported/%'`, hint)
			refuse(t, e, n, "dev", "dave/allowlist", "separation-of-duties")
		}
		e.Exec(`UPDATE shipment SET importer = 'eve'`)
		refuse(t, e, n, "dev", "dave/allowlist", "separation-of-duties")
	})
	t.Run("a list without its reviewers", func(t *testing.T) {
		e, n := open(t)
		e.Enter(e.List("dev", e.Source("evil", "evil")), true, "alice")
		if _, err := approve(t, e, n, "dev", "bob/allowlist"); err == nil {
			t.Error("it follows a list that was never in force")
		} else {
			suite.Want(t, err, "allowlist-threshold")
		}
	})
}

// Another root between two approvals voids the first.
func TestRootChanged(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	n := e.Quarantine("dave", e.Source("a", "a"))
	mustApprove(t, e, n, "dev", "alice")
	e.NextRoot(nil)
	out := mustApprove(t, e, n, "dev", "bob")
	if out.InForce || !slices.Equal(out.Void, []string{"alice"}) || !slices.Equal(out.Persons, []string{"bob"}) {
		t.Errorf("%+v", out)
	}
	out = mustApprove(t, e, n, "dev", "alice")
	list, persons := inForce(t, e, "dev")
	if !out.InForce || out.Void != nil || list.Root != 2 || !slices.Equal(persons, []string{"alice", "bob"}) {
		t.Errorf("%+v, %v", out, persons)
	}
	if k := e.Kinds(); k["approved"] != 3 || k["allowed"] != 1 {
		t.Error(k)
	}
	// Reviewers who leave take their list out of force; approving again puts the next one there, that follows it.
	e.NextRoot(enclavetest.Without("alice", trust.ContextAllowlist))
	out = mustApprove(t, e, n, "dev", "bob", "rita")
	next, _ := inForce(t, e, "dev")
	if !out.InForce || next.Version != 2 || next.Previous != list.Digest() || next.Root != 3 || !slices.Equal(next.Items, list.Items) {
		t.Errorf("%+v", next)
	}
}

func TestForeignRoots(t *testing.T) {
	t.Parallel()
	e, other := enclavetest.New(t), enclavetest.New(t)
	e.NextRoot(nil)
	other.NextRoot(enclavetest.Without("rita", trust.ContextAllowlist))
	d := desk(e)
	d.Root = other.Root
	_, err := d.past()
	suite.Want(t, err, "root-equivocation")
}

func TestReject(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	n := e.Quarantine("dave", e.Source("a", "a"))
	mustApprove(t, e, n, "dev", "alice")
	reject := func(key, reason string) error {
		return desk(e).Reject(t.Context(), n, enclavetest.Key(t, key), reason)
	}
	unchanged(t, e, func() error { return reject("dave/allowlist", "x") }, "separation-of-duties")
	unchanged(t, e, func() error { return reject("mallory/allowlist", "x") }, "not-reviewer")
	unchanged(t, e, func() error { return reject("erin/statement", "x") }, "key-context")
	if err := reject("bob/allowlist", " \n"); err == nil {
		t.Error("rejected without a reason")
	}
	if err := reject("bob/allowlist", "  ein Blob in »src«\n"); err != nil {
		t.Fatal(err)
	}
	entries := e.Entries()
	s := entries[len(entries)-1]
	if s.Kind != statement.KindRejected || s.Predicate["reason"] != `ein Blob in \u00bbsrc\u00ab` || s.Predicate["person"] != "bob" {
		t.Errorf("%+v", s)
	}
	leaf, err := e.Zone.Entry(t.Context(), int64(len(entries)-1))
	if err != nil {
		t.Fatal(err)
	}
	env, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := env.Verify(e.Root, e.Zone.Origin()); err != nil {
		t.Error(err)
	}
	if e.Row(`SELECT state FROM shipment`) != "rejected" || e.Row(`SELECT count(*) FROM proposal`) != "0" || e.Row(`SELECT count(*) FROM proposal_signature`) != "0" {
		t.Error("rows")
	}
	if err := reject("bob/allowlist", "again"); err == nil || !strings.Contains(err.Error(), "is rejected") {
		t.Error(err)
	}
	// A shipment whose collector and importer have left can still be rejected, and not approved.
	m := e.Quarantine("eve", e.Source("b", "b"))
	e.NextRoot(func(r *trust.Root) {
		enclavetest.Without("carol", trust.ContextManifest)(r)
		enclavetest.Without("eve", trust.ContextStatement)(r)
	})
	refuse(t, e, m, "dev", "alice/allowlist", "manifest-unsigned")
	if err := desk(e).Reject(t.Context(), m, enclavetest.Key(t, "alice/allowlist"), "nobody stands for it"); err != nil {
		t.Error(err)
	}
}

func TestShowAndList(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	a := e.Source("a", "a")
	n := e.Quarantine("dave", a)
	e.Manifest()
	m := e.Quarantine("eve", e.Source("b", "b"))
	e.Exec(`INSERT INTO finding (number, item, severity, rule, place, count, detail) VALUES (?, ?, 'info', 'r1', '', 1, ''), (?, ?, 'high', 'r2', 'src', 2, 'src/x')`, n, a.SHA256.String(), n, a.SHA256.String())
	mustApprove(t, e, n, "dev", "alice")
	d, err := desk(e).Show(t.Context(), n)
	if err != nil || d.Importer != "dave" || len(d.Findings) != 2 || d.Findings[0].Severity != "high" || d.Findings[0].Item != a.Name || len(d.Approvals) != 1 || !slices.Equal(d.Collectors, []string{"carol"}) {
		t.Errorf("%+v, %v", d, err)
	}
	list, err := desk(e).List(t.Context())
	var got []string
	for _, s := range list {
		got = append(got, fmt.Sprint(s.Number, s.State))
	}
	if want := []string{"1quarantined", "2missing", fmt.Sprint(m, "quarantined")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}
