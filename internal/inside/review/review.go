// Package review is where persons decide. Two reviewers, neither of them the importer, read what a shipment brings and sign the allowlist that admits it; or one
// of them signs a rejection.
//
// # What is signed
//
// Not the shipment, and not a row of a table, but the text of the track's next allowlist: the one in force, and the shipment's items. The first reviewer's approval
// proposes that text, with its date; every further one computes the same text again from the documents, never from the catalog, and signs it too. When the
// root's threshold of distinct persons and keys stands under it, it is in force.
//
// The text names the root in force when it was proposed. If another root comes into force before the last signature, the proposal is void: the next reviewer
// proposes the text anew, under the new root, and who signed before signs again. So every list in force was signed whole under one root.
//
// # Two doors
//
// Whoever imported a shipment does not approve it, nor anything in it that another shipment brings again: of each item that the new list adds, nobody who
// imported a shipment with this item signs, unless that shipment was rejected. If so many people have imported an item that too few are left,
// rejecting the superfluous shipment frees its importer.
//
// # Submissions
//
// What a person of the enclave submitted, own-N, is judged and signed like a shipment, by two reviewers who are not the submitter. It has one item, and its statement in the ledger, which the
// submitter signed, stands for a manifest: items and person are taken from there. It is decided on as a whole, without rules.
//
// # Channels
//
// A pin of a channel goes onto a track's list if it fits what officers ordered of the channel, descends from the pin at which the track stands (`channel-not-forward`) or
// has a downgrade in the orders in force, and if the track has what its bundle stands on (`channel-basis`). All of it is read from the items themselves, whose digest
// the list names, and from commits, which are what their ids say. Where a track stands, package pin/history tells.
//
// # What the catalog is trusted with
//
// Nothing that it says. The manifest is opened from the blob store with its collector's signature, the importer is taken from the signed statement in the
// ledger, the allowlist in force is opened with its reviewers' signatures. Rows only say where to look. Rows that are gone can hide an earlier import
// of the same item from this desk, though not from the auditor, who reads every manifest.
//
// # When it becomes true
//
// A signature, its entry "approved" and, with the last of them, the entry "allowed", the new list's row and its publication are one
// transaction. Signing happens before it: no person is waited for inside. The same approval made again changes nothing. The texts are noted as pending
// (package pending) until then, so that a run that is killed leaves none.
package review

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/admit"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Desk is where the reviewers of one enclave sit.
type Desk struct {
	Zone  *store.Zone
	Root  *trust.Root
	Clock func() time.Time

	Git func(context.Context) (*gitrun.Git, error) // unpacks channels that are not unpacked; nil: the one on the path, where it is needed
}

// A Summary is one shipment or submission in a list.
type Summary struct {
	Number     int64  `json:"shipment,omitempty"`
	Submission int64  `json:"submission,omitempty"` // instead of a shipment's number
	State      string `json:"state"`
	Importer   string `json:"importer"`
	Date       string `json:"date"`
	Items      int64  `json:"items"`
	Bytes      int64  `json:"bytes"`
}

// Name is what persons call it.
func (s *Summary) Name() string { return statement.Arrived(s.arrival()) }

func (s *Summary) arrival() int64 {
	if s.Submission > 0 {
		return -s.Submission
	}
	return s.Number
}

// set takes the number that a row has.
func (s *Summary) set(arrival int64) { s.Number, s.Submission = max(0, arrival), max(0, -arrival) }

// States of numbers with which no shipment came although a later one did.
const (
	Missing = "missing"
	Lost    = "lost" // officers declared it
)

// maxMissing bounds how many missing numbers a list names: one forged number must not fill a screen.
const maxMissing = 1000

// List returns the shipments, oldest first, and the numbers that are missing between them; and behind them the submissions.
func (d *Desk) List(ctx context.Context) ([]Summary, error) {
	orders, err := d.Zone.Orders(ctx, d.Root)
	if err != nil {
		return nil, err
	}
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT number, state, importer, date, items, bytes FROM shipment ORDER BY number < 0, abs(number)`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Summary{}
	next, missing := int64(1), 0
	for rows.Next() {
		var s Summary
		var arrival int64
		if err := rows.Scan(&arrival, &s.State, &s.Importer, &s.Date, &s.Items, &s.Bytes); err != nil {
			return nil, err
		}
		if s.set(arrival); arrival < 0 {
			list = append(list, s)
			continue
		}
		for ; next < s.Number && missing < maxMissing; next++ {
			if _, lost := orders.IsLost(next); lost {
				list = append(list, Summary{Number: next, State: Lost})
				continue
			}
			list = append(list, Summary{Number: next, State: Missing})
			missing++
		}
		next = s.Number + 1
		list = append(list, s)
	}
	return list, rows.Err()
}

// A Dossier is what a reviewer reads before signing.
type Dossier struct {
	Summary
	Manifest   trust.Digest `json:"manifest"` // of a submission, the item
	Collectors []string     `json:"collectors"`
	New        []trust.Item `json:"items_of_shipment"`
	Channels   []ChannelPin `json:"channels"`
	Findings   []Finding    `json:"findings"`
	Approvals  []Approval   `json:"approvals"`
}

// A Finding is what the inspection noted.
type Finding struct {
	Item     string `json:"item"` // name
	Severity string `json:"severity"`
	Rule     string `json:"rule"`
	Place    string `json:"place"`
	Count    int64  `json:"count"`
	Examples string `json:"examples"`
}

// An Approval is one reviewer's signature under an open proposal.
type Approval struct {
	Track  string `json:"track"`
	Person string `json:"person"`
}

// Show returns everything about one shipment that a reviewer needs.
func (d *Desk) Show(ctx context.Context, number int64) (*Dossier, error) {
	c, err := d.open(ctx, number)
	if err != nil {
		return nil, err
	}
	do := &Dossier{Summary: c.summary, Manifest: c.digest, Collectors: c.collectors, New: c.items, Findings: []Finding{}, Approvals: []Approval{}}
	if do.Channels, err = d.channelPins(ctx, c.items); err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, it := range c.items {
		if digest := it.SHA256.String(); names[digest] == "" {
			names[digest] = it.Name
		}
	}
	q := d.Zone.Read(ctx)
	rows, err := q.QueryContext(ctx, `SELECT item, severity, rule, place, count, detail FROM finding
		WHERE number = ? ORDER BY CASE severity WHEN 'block' THEN 0 WHEN 'high' THEN 1 WHEN 'review' THEN 2 ELSE 3 END, rule, place`, number)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var f Finding
		if err := rows.Scan(&f.Item, &f.Severity, &f.Rule, &f.Place, &f.Count, &f.Examples); err != nil {
			return nil, err
		}
		f.Item = cmp.Or(names[f.Item], f.Item)
		do.Findings = append(do.Findings, f)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	signed, err := q.QueryContext(ctx, `SELECT track, person FROM proposal_signature JOIN proposal USING (track) WHERE shipment = ? ORDER BY track, person`, number)
	if err != nil {
		return nil, err
	}
	defer signed.Close()
	for signed.Next() {
		var a Approval
		if err := signed.Scan(&a.Track, &a.Person); err != nil {
			return nil, err
		}
		do.Approvals = append(do.Approvals, a)
	}
	return do, signed.Err()
}

// a dossier is one shipment or submission, opened from signed documents.
type dossier struct {
	summary    Summary
	number     int64        // of a shipment, or below zero of a submission
	digest     trust.Digest // of the manifest; of a submission, of its item
	items      []trust.Item
	collectors []string
	importer   string // as the signed statement in the ledger says
}

// row reads what the catalog says of a shipment.
func (d *Desk) row(ctx context.Context, number int64) (*dossier, error) {
	c := &dossier{number: number}
	c.summary.set(number)
	var digest string
	err := d.Zone.Read(ctx).QueryRowContext(ctx, `SELECT state, importer, date, items, bytes, manifest FROM shipment WHERE number = ?`, number).
		Scan(&c.summary.State, &c.summary.Importer, &c.summary.Date, &c.summary.Items, &c.summary.Bytes, &digest)
	if errors.Is(err, sql.ErrNoRows) {
		if number < 0 {
			return nil, fmt.Errorf("no submission %s was made", statement.Arrived(number))
		}
		return nil, fmt.Errorf("no shipment %d was imported", number)
	}
	if err != nil {
		return nil, err
	}
	c.digest, err = trust.ParseDigest(digest)
	return c, err
}

// open reads a shipment. The catalog says where to look; what counts is signed.
func (d *Desk) open(ctx context.Context, number int64) (*dossier, error) {
	c, err := d.row(ctx, number)
	if err != nil {
		return nil, err
	}
	if number < 0 {
		return c, d.submitted(ctx, c)
	}
	file, err := d.Zone.CAS.ReadAll(c.digest, shipment.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest of shipment %d: %w", number, err)
	}
	m, collectors, err := shipment.OpenManifest(file, d.Root)
	if err != nil {
		return c, err
	}
	if m.Number != number {
		return c, trust.Refuse("catalog-forged", fmt.Sprintf("shipment %d", number), "the catalog names the manifest of shipment %d", m.Number)
	}
	c.items, c.collectors = m.Items, collectors
	c.importer, err = d.importer(ctx, number, c.digest)
	return c, err
}

// submitted opens a submission: the statement in the ledger has all of it.
func (d *Desk) submitted(ctx context.Context, c *dossier) error {
	e, err := d.imported(ctx, c.number, c.digest)
	if err != nil {
		return err
	}
	if c.importer, err = d.verified(e); err != nil {
		return err
	}
	s := e.Unverified()
	said, err := s.Submission()
	if err != nil {
		return err // its form was checked
	}
	c.items = []trust.Item{said.Item}
	return nil
}

// importer finds the signed statement by which a manifest, or the item of a submission, came in. Without one the shipment was never imported, whatever rows say.
func (d *Desk) importer(ctx context.Context, number int64, manifest trust.Digest) (string, error) {
	e, err := d.imported(ctx, number, manifest)
	if err != nil {
		return "", err
	}
	return d.verified(e)
}

// verified says whose statement it is, by the root in force or one before.
func (d *Desk) verified(e *statement.Envelope) (string, error) {
	_, person, err := e.Verify(d.Root, d.Zone.Origin())
	if err == nil {
		return person, nil
	}
	// Whoever has left since, or has another key now, imported it all the same.
	past, pastErr := d.past()
	if pastErr != nil {
		return "", errors.Join(err, pastErr)
	}
	for _, root := range past {
		if _, person, err := e.Verify(root, d.Zone.Origin()); err == nil {
			return person, nil
		}
	}
	return "", err
}

// past opens the roots that were in force before, newest first. They are the root's own forerunners: each names the digest of the one before.
func (d *Desk) past() ([]*trust.Root, error) {
	var notes [][]byte
	for n := int64(1); n <= d.Root.Version; n++ {
		note, err := d.Zone.ReadPublic(fmt.Sprintf("root/%d", n))
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	text, _, err := trust.SplitNote("root", notes[0], trust.MaxRootSize)
	if err != nil {
		return nil, err
	}
	root, err := trust.OpenRoot(notes[0], trust.Sum(text))
	var chain []*trust.Root
	for n := 1; err == nil && n < len(notes); n++ {
		chain = append(chain, root)
		root, err = root.Next(notes[n])
	}
	if err != nil {
		return nil, err
	}
	if root.Digest() != d.Root.Digest() {
		return nil, trust.Refuse("root-equivocation", "public", "the published root %d is not the one in force", root.Version)
	}
	slices.Reverse(chain)
	return chain, nil
}

// imported finds the entry by which a manifest came in.
func (d *Desk) imported(ctx context.Context, number int64, manifest trust.Digest) (*statement.Envelope, error) {
	if number < 0 {
		return d.entry(ctx, number, manifest, statement.KindSubmitted)
	}
	return d.entry(ctx, number, manifest, statement.KindImported)
}

// entry finds the newest entry of a kind about a manifest: where the gate said that it lies, the entry of the inspection being the one before that of the import, or
// else by looking through the ledger, newest first.
func (d *Desk) entry(ctx context.Context, number int64, manifest trust.Digest, kind string) (*statement.Envelope, error) {
	of := func(leaf []byte) *statement.Envelope {
		e, err := statement.ParseEnvelope(leaf)
		if err != nil || e.Kind() != kind {
			return nil
		}
		s := e.Unverified()
		if len(s.Subjects) != 1 || s.Subjects[0].SHA256 != manifest {
			return nil
		}
		// An item can be submitted again when it was rejected, and a shipment can bring it, too.
		switch n, _ := s.Predicate["submission"].(int64); {
		case kind == statement.KindSubmitted && n != -number, kind == statement.KindInspected && s.Subjects[0].Name != statement.Arrived(number):
			return nil
		}
		return e
	}
	hint, err := store.Setting(ctx, d.Zone.Read(ctx), admit.ImportedHint(number))
	if err != nil {
		return nil, err
	}
	if index, err := trust.ParseNumber(hint, math.MaxInt64); err == nil {
		for _, i := range []int64{index, index - 1} {
			if leaf, err := d.Zone.Entry(ctx, i); err == nil {
				if e := of(leaf); e != nil {
					return e, nil
				}
			}
		}
	}
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT leaf FROM entry ORDER BY idx DESC`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			return nil, err
		}
		if e := of(leaf); e != nil {
			return e, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	switch kind {
	case statement.KindSubmitted:
		return nil, trust.Refuse("not-submitted", statement.Arrived(number), "no statement of a submitter in the ledger names its item, %s", manifest)
	case statement.KindImported:
		return nil, trust.Refuse("not-imported", "manifest "+manifest.String(), "no statement of an importer in the ledger names it")
	}
	return nil, trust.Refuse("not-inspected", "manifest "+manifest.String(), "no entry of the ledger says that it was inspected")
}
