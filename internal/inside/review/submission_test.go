package review

import (
	"strings"
	"testing"

	"sallyport/guix/channel/git"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// TestSubmission: what was submitted is decided on like a shipment, by two who are not the submitter.
func TestSubmission(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 12)
	e.Ordered(c)
	item := c.At(c.Ends[3], git.ID{})
	own := e.Submit("dave", item, c.Ends[3].String(), "-")
	d := desk(e)
	do, err := d.Show(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	if do.Name() != "own-1" || do.Number != 0 || do.Submission != 1 || do.Importer != "dave" || len(do.New) != 1 || do.New[0] != item.Item || len(do.Channels) != 1 || do.Channels[0].Authentic == 0 {
		t.Errorf("%+v", do)
	}
	// Two doors: neither the submitter nor who else has a hand in it.
	refuse(t, e, own, "dev", "dave/allowlist", "separation-of-duties")
	refuse(t, e, own, "dev", "mallory/allowlist", "not-reviewer")
	unchanged(t, e, func() error { return d.Reject(t.Context(), own, enclavetest.Key(t, "dave/allowlist"), "x") }, "separation-of-duties")
	unchanged(t, e, func() error {
		_, err := d.Approve(t.Context(), own, "dev", enclavetest.Key(t, "alice/allowlist"), Selection{Rules: []string{"kind=channel"}})
		return err
	}, "class-submission")
	out := mustApprove(t, e, own, "dev", "alice", "bob")
	if !out.InForce || out.Submission != 1 || out.Shipment != 0 || out.Added != 1 {
		t.Errorf("%+v", out)
	}
	if s := e.Row(`SELECT state FROM shipment WHERE number = -1`); s != "admitted" {
		t.Error(s)
	}
	for _, s := range e.Entries() {
		if _, ok := s.Predicate["shipment"]; ok {
			t.Errorf("an entry %q names a shipment", s.Kind)
		}
		if n, _ := s.Predicate["submission"].(int64); n != 1 && (s.Kind == statement.KindApproved || s.Kind == statement.KindAllowed) {
			t.Errorf("an entry %q is about submission %d", s.Kind, n)
		}
	}
	// A shipment that brings the item again does not free the submitter; nor does a promotion.
	number := e.Quarantine("eve", item)
	refuse(t, e, number, "prod", "dave/allowlist", "separation-of-duties")
	unchanged(t, e, func() error {
		_, err := d.Promote(t.Context(), "dev", "prod", nil, enclavetest.Key(t, "dave/allowlist"))
		return err
	}, "separation-of-duties")
	// And the list names both series, each by its own.
	list, err := d.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Number != number || list[0].Name() != "shipment 1" || list[1].Submission != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestDecline: a reviewer's rejection of a submission is one of that submission, and the next of the same item is judged for itself.
func TestDecline(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 12)
	e.Ordered(c)
	item := c.At(c.Ends[3], git.ID{})
	one := e.Submit("dave", item, c.Ends[3].String(), "-")
	mustApprove(t, e, one, "dev", "alice")
	d := desk(e)
	if err := d.Reject(t.Context(), one, enclavetest.Key(t, "bob/allowlist"), "not yet"); err != nil {
		t.Fatal(err)
	}
	refuse(t, e, one, "dev", "alice/allowlist", "shipment-rejected")
	if n := e.Row(`SELECT count(*) FROM proposal`); n != "0" {
		t.Errorf("%s proposals", n)
	}
	entries := e.Entries()
	last := entries[len(entries)-2] // behind it is the refusal
	if last.Kind != statement.KindDeclined || last.Predicate["submission"] != int64(1) || last.Subjects[0].SHA256 != item.SHA256 {
		t.Errorf("%+v", last)
	}
	// Eve submits the very item again: it is hers now, and dave may approve.
	two := e.Submit("eve", item, c.Ends[3].String(), "-")
	do, err := d.Show(t.Context(), two)
	if err != nil || do.Importer != "eve" || do.Submission != 2 {
		t.Fatalf("%+v, %v", do, err)
	}
	mustApprove(t, e, two, "dev", "dave", "alice")
}

// TestForgedSubmission: rows say where to look, and nothing else.
func TestForgedSubmission(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 12)
	e.Ordered(c)
	e.Submit("dave", c.At(c.Ends[3], git.ID{}), c.Ends[3].String(), "-")
	e.Exec(`INSERT INTO shipment SELECT -2, manifest, state, 'eve', date, items, bytes FROM shipment WHERE number = -1`)
	refuse(t, e, -2, "dev", "dave/allowlist", "not-submitted")
	e.Exec(`UPDATE shipment SET importer = 'eve' WHERE number = -1`)
	refuse(t, e, -1, "dev", "dave/allowlist", "separation-of-duties")
	e.Exec(`UPDATE shipment SET manifest = ? WHERE number = -1`, trust.Sum(nil).String())
	refuse(t, e, -1, "dev", "alice/allowlist", "not-submitted")
	if _, err := desk(e).Show(t.Context(), -9); err == nil || !strings.Contains(err.Error(), "no submission own-9") {
		t.Error(err)
	}
}
