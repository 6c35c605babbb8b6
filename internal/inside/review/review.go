// Package review is where persons decide. Two reviewers, neither of them the importer, read what a shipment brings and sign the allowlist that admits it.
//
// # What is signed
//
// Not the shipment, and not a row of a table, but the text of the track's next allowlist: the one in force, and the shipment's items. The first reviewer's approval
// proposes that text, with its date; every further one computes the same text again from the documents, never from the catalog, and signs it too. When the
// root's threshold of distinct persons and keys stands under it, it is in force.
//
// # What the catalog is trusted with
//
// Nothing. The manifest is opened from the blob store with its collector's signature, the importer is taken from the signed statement in the ledger, the
// allowlist in force is opened with its reviewers' signatures. Rows only say where to look.
//
// # When it becomes true
//
// A signature, its entry "approved" and, with the last of them, the entry "allowed", the new list's row and its publication are one
// transaction. Signing happens before it: no person is waited for inside. The same approval made again changes nothing.
package review

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// A Desk is where the reviewers of one enclave sit.
type Desk struct {
	Zone  *store.Zone
	Root  *trust.Root
	Clock func() time.Time
}

// A Summary is one shipment in a list.
type Summary struct {
	Number   int64  `json:"shipment"`
	State    string `json:"state"`
	Importer string `json:"importer"`
	Date     string `json:"date"`
	Items    int64  `json:"items"`
	Bytes    int64  `json:"bytes"`
}

// Missing is the state of a number that no shipment came with although a later one did.
const Missing = "missing"

// maxMissing bounds how many missing numbers a list names: one forged number must not fill a screen.
const maxMissing = 1000

// List returns the shipments, oldest first, and the numbers that are missing between them.
func (d *Desk) List(ctx context.Context) ([]Summary, error) {
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT number, state, importer, date, items, bytes FROM shipment ORDER BY number`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Summary{}
	next, missing := int64(1), 0
	for rows.Next() {
		var s Summary
		if err := rows.Scan(&s.Number, &s.State, &s.Importer, &s.Date, &s.Items, &s.Bytes); err != nil {
			return nil, err
		}
		for ; next < s.Number && missing < maxMissing; next++ {
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
	Manifest   trust.Digest `json:"manifest"`
	Collectors []string     `json:"collectors"`
	New        []trust.Item `json:"items_of_shipment"`
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
	do := &Dossier{Summary: c.summary, Manifest: c.digest, Collectors: c.collectors, New: c.manifest.Items, Findings: []Finding{}, Approvals: []Approval{}}
	q := d.Zone.Read(ctx)
	rows, err := q.QueryContext(ctx, `SELECT coalesce(item.name, finding.item), severity, rule, place, count, detail FROM finding LEFT JOIN item ON item.sha256 = finding.item
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

// a case is one shipment, opened from signed documents.
type dossier struct {
	summary    Summary
	digest     trust.Digest
	manifest   *shipment.Manifest
	collectors []string
	importer   string // as the signed statement in the ledger says
}

// open reads a shipment. The catalog says where to look; what counts is signed.
func (d *Desk) open(ctx context.Context, number int64) (*dossier, error) {
	c := &dossier{}
	var digest string
	q := d.Zone.Read(ctx)
	err := q.QueryRowContext(ctx, `SELECT number, state, importer, date, items, bytes, manifest FROM shipment WHERE number = ?`, number).
		Scan(&c.summary.Number, &c.summary.State, &c.summary.Importer, &c.summary.Date, &c.summary.Items, &c.summary.Bytes, &digest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("no shipment %d was imported", number)
	}
	if err != nil {
		return nil, err
	}
	if c.digest, err = trust.ParseDigest(digest); err != nil {
		return nil, err
	}
	r, err := d.Zone.CAS.Open(c.digest)
	if err != nil {
		return nil, fmt.Errorf("manifest of shipment %d: %w", number, err)
	}
	file, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	if c.manifest, c.collectors, err = shipment.OpenManifest(file, d.Root); err != nil {
		return nil, err
	}
	if c.manifest.Number != number {
		return nil, trust.Refuse("catalog-forged", fmt.Sprintf("shipment %d", number), "the catalog names the manifest of shipment %d", c.manifest.Number)
	}
	if c.importer, err = d.importer(ctx, c.digest); err != nil {
		return nil, err
	}
	return c, nil
}

// importer finds the signed statement by which a manifest came in. Without one the shipment was never imported, whatever rows say.
func (d *Desk) importer(ctx context.Context, manifest trust.Digest) (string, error) {
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT leaf FROM entry ORDER BY idx DESC`)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	for rows.Next() {
		var leaf []byte
		if err := rows.Scan(&leaf); err != nil {
			return "", err
		}
		e, err := trust.ParseEnvelope(leaf)
		if err != nil || e.Kind() != trust.StatementImported {
			continue
		}
		if s := e.Unverified(); !slices.ContainsFunc(s.Subjects, func(s trust.Subject) bool { return s.SHA256 == manifest }) {
			continue
		}
		_, person, err := e.Verify(d.Root)
		return person, err
	}
	if err := rows.Err(); err != nil {
		return "", err
	}
	return "", trust.Refuse("not-imported", "manifest "+manifest.String(), "no statement of an importer in the ledger names it")
}

// An Outcome says what an approval came to.
type Outcome struct {
	Shipment  int64    `json:"shipment"`
	Track     string   `json:"track"`
	Version   int64    `json:"version"`
	Digest    string   `json:"allowlist"` // digest of the text
	Persons   []string `json:"persons"`
	Threshold int      `json:"threshold"`
	InForce   bool     `json:"in_force"`
}

// Approve signs, with a reviewer's key, the allowlist of the track that admits the shipment.
func (d *Desk) Approve(ctx context.Context, number int64, track string, key *trust.Key) (*Outcome, error) {
	unlock, err := d.Zone.Lock("review")
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := d.open(ctx, number)
	if err == nil {
		err = d.mayReview(c, track, key)
	}
	if err != nil {
		return nil, d.refused(ctx, c, number, err)
	}
	current, err := d.Current(ctx, track)
	if err != nil {
		return nil, err
	}
	if current != nil && admitted(current, c.manifest) {
		return &Outcome{number, track, current.Version, current.Digest().String(), nil, d.Root.Threshold(track), true}, nil
	}
	for _, it := range c.manifest.Items {
		if size, ok := d.Zone.CAS.Has(it.SHA256); !ok || size != it.Size {
			return nil, d.refused(ctx, c, number, trust.Refuse("item-lost", it.Name, "its content is not in the store any more; import the shipment's disc again"))
		}
	}
	p, err := d.proposal(ctx, c, track, current)
	if err != nil {
		return nil, d.refused(ctx, c, number, err)
	}
	line, err := trust.SignText(p.text, key)
	if err != nil {
		return nil, err
	}
	lines := map[string]string{key.Person(): line}
	for person, l := range p.lines {
		if person == key.Person() {
			continue
		}
		// What stands in the catalog is a claim.
		if k, err := trust.VerifyLine("allowlist", p.text, l, d.Root.Signers(trust.ContextAllowlist)); err == nil && k.Person == person {
			lines[person] = l
		}
	}
	out := &Outcome{Shipment: number, Track: track, Version: p.version, Digest: trust.Sum(p.text).String(), Threshold: d.Root.Threshold(track)}
	var all []string
	for _, person := range sortedKeys(lines) {
		out.Persons = append(out.Persons, person)
		all = append(all, lines[person])
	}
	var note []byte
	if len(out.Persons) >= out.Threshold {
		note = trust.JoinNote(p.text, all...)
		// The very check that every verifier will make decides, not a count of rows.
		a, persons, err := trust.OpenAllowlist(note, d.Root)
		if err == nil {
			err = a.CheckSuccessor(current)
		}
		if err != nil {
			return nil, d.refused(ctx, c, number, err)
		}
		out.InForce, out.Persons = true, persons
	}
	return out, d.commit(ctx, c, p, key.Person(), line, note, out)
}

// mayReview is the separation of duties.
func (d *Desk) mayReview(c *dossier, track string, key *trust.Key) error {
	var rs trust.Refusals
	subject := key.Name()
	if key.Context() != trust.ContextAllowlist {
		rs.Add(trust.Refuse("key-context", subject, "a key of context %q signs no allowlist", key.Context()))
	} else if !d.Root.Holds(key, trust.RoleReviewer) {
		rs.Add(trust.Refuse("not-reviewer", subject, "the root in force (version %d) does not give this key to a reviewer", d.Root.Version))
	}
	if key.Person() == c.importer {
		rs.Add(trust.Refuse("separation-of-duties", subject, "%s imported shipment %d; whoever imports does not approve", c.importer, c.manifest.Number).
			WithHint("two other reviewers decide"))
	}
	if d.Root.Threshold(track) == 0 {
		rs.Add(trust.Refuse("no-track", track, "the root has no threshold for this track; it has %v", d.Root.Tracks()))
	}
	if c.summary.State == "rejected" {
		rs.Add(trust.Refuse("shipment-rejected", fmt.Sprintf("shipment %d", c.manifest.Number), "it was rejected"))
	}
	return rs.Err()
}

// refused makes a refusal a ledger entry; any other error passes through.
func (d *Desk) refused(ctx context.Context, c *dossier, number int64, err error) error {
	subject := trust.Subject{Name: fmt.Sprintf("shipment %d", number), SHA256: trust.Sum(fmt.Appendf(nil, "shipment %d", number))}
	if c != nil {
		subject.SHA256 = c.digest
	}
	return d.Zone.Refused(ctx, "review", subject, err)
}

// Current opens the track's allowlist in force; nil if there is none yet.
func (d *Desk) Current(ctx context.Context, track string) (*trust.Allowlist, error) {
	note, err := d.Zone.Allowlist(ctx, track)
	if err != nil || note == nil {
		return nil, err
	}
	a, _, err := trust.OpenAllowlist(note, d.Root)
	if err != nil {
		return nil, fmt.Errorf("the allowlist in force does not verify: %w", err)
	}
	return a, nil
}

func admitted(a *trust.Allowlist, m *shipment.Manifest) bool {
	return !slices.ContainsFunc(m.Items, func(it trust.Item) bool {
		have, ok := a.ByName(it.Name)
		return !ok || have != it
	})
}

// a proposal is the text that waits for signatures.
type proposal struct {
	version int64
	text    []byte
	lines   map[string]string // by person, unverified
	isNew   bool
}

// proposal computes the text to be signed. If one is open already, it must be this very text, but for the date its first reviewer gave it.
func (d *Desk) proposal(ctx context.Context, c *dossier, track string, current *trust.Allowlist) (*proposal, error) {
	a := &trust.Allowlist{Enclave: d.Root.Enclave, Track: track, Version: 1, Date: d.Clock(), Root: d.Root.Version}
	if current != nil {
		a.Version, a.Previous = current.Version+1, current.Digest()
		a.Items = slices.Clone(current.Items)
		if a.Date.Before(current.Date) {
			return nil, trust.Refuse("clock", "allowlist", "this machine's clock says %s, before the allowlist in force (%s)", trust.FormatDate(a.Date), trust.FormatDate(current.Date))
		}
	}
	var rs trust.Refusals
	for _, it := range c.manifest.Items {
		if current != nil {
			if have, ok := current.ByName(it.Name); ok {
				if have != it {
					rs.Add(trust.Refuse("item-conflict", it.Name, "the allowlist in force has other content under this name"))
				}
				continue
			}
		}
		a.Items = append(a.Items, it)
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	p := &proposal{version: a.Version, lines: map[string]string{}, isNew: true}
	q := d.Zone.Read(ctx)
	var open int64
	var digest string
	switch err := q.QueryRowContext(ctx, `SELECT shipment, text FROM proposal WHERE track = ?`, track).Scan(&open, &digest); {
	case errors.Is(err, sql.ErrNoRows):
		p.text = a.Text()
		return p, nil
	case err != nil:
		return nil, err
	case open != c.manifest.Number:
		return nil, fmt.Errorf("shipment %d is under review for track %q; approve or reject it first", open, track)
	}
	sum, err := trust.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	r, err := d.Zone.CAS.Open(sum)
	if err != nil {
		return nil, err
	}
	p.text, err = io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	proposed, err := trust.ParseAllowlist(p.text)
	if err != nil {
		return nil, err
	}
	a.Date = proposed.Date
	if !bytes.Equal(a.Text(), p.text) {
		return nil, trust.Refuse("proposal-changed", fmt.Sprintf("allowlist %s version %d", track, a.Version), "the proposed text is not the list in force and this shipment's items; nothing was signed")
	}
	p.isNew = false
	rows, err := q.QueryContext(ctx, `SELECT person, line FROM proposal_signature WHERE track = ?`, track)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var person, line string
		if err := rows.Scan(&person, &line); err != nil {
			return nil, err
		}
		p.lines[person] = line
	}
	return p, rows.Err()
}

// commit is the write that makes an approval true, and with the last one the list.
func (d *Desk) commit(ctx context.Context, c *dossier, p *proposal, person, line string, note []byte, out *Outcome) error {
	text := trust.Sum(p.text)
	if err := d.Zone.CAS.Put(bytes.NewReader(p.text), text, int64(len(p.text))); err != nil {
		return err
	}
	if note != nil {
		if err := d.Zone.CAS.Put(bytes.NewReader(note), trust.Sum(note), int64(len(note))); err != nil {
			return err
		}
	}
	subjects := []trust.Subject{{Name: fmt.Sprintf("allowlist %s %d", out.Track, out.Version), SHA256: text}}
	_, again := p.lines[person]
	return d.Zone.Commit(ctx, func(tx *store.Tx) error {
		if p.isNew {
			if err := tx.Exec(ctx, `INSERT INTO proposal (track, version, shipment, text) VALUES (?, ?, ?, ?)`, out.Track, p.version, c.manifest.Number, text.String()); err != nil {
				return err
			}
		}
		if !again {
			if err := tx.Statement(trust.StatementApproved, subjects, map[string]any{"track": out.Track, "version": out.Version, "person": person, "signature": line}); err != nil {
				return err
			}
		}
		if err := tx.Exec(ctx, `INSERT OR REPLACE INTO proposal_signature (track, person, line) VALUES (?, ?, ?)`, out.Track, person, line); err != nil {
			return err
		}
		if note == nil {
			return nil
		}
		persons := make([]any, len(out.Persons))
		for i, p := range out.Persons {
			persons[i] = p
		}
		if err := tx.Statement(trust.StatementAllowed, subjects, map[string]any{"track": out.Track, "version": out.Version, "persons": persons}); err != nil {
			return err
		}
		for _, q := range []struct {
			sql  string
			args []any
		}{
			{`INSERT INTO allowlist (track, version, digest, note) VALUES (?, ?, ?, ?)`, []any{out.Track, out.Version, text.String(), trust.Sum(note).String()}},
			{`UPDATE shipment SET state = 'admitted' WHERE number = ?`, []any{c.manifest.Number}},
			{`DELETE FROM proposal_signature WHERE track = ?`, []any{out.Track}},
			{`DELETE FROM proposal WHERE track = ?`, []any{out.Track}},
		} {
			if err := tx.Exec(ctx, q.sql, q.args...); err != nil {
				return err
			}
		}
		return tx.PublishBlob(fmt.Sprintf("allowlist/%s/%d", out.Track, out.Version), trust.Sum(note))
	})
}

// Reject ends a quarantined shipment: its proposals are dropped, its number is spent. One reviewer who is not the importer is enough to say no.
func (d *Desk) Reject(ctx context.Context, number int64, key *trust.Key, reason string) error {
	unlock, err := d.Zone.Lock("review")
	if err != nil {
		return err
	}
	defer unlock()
	c, err := d.open(ctx, number)
	if err != nil {
		return err
	}
	if key.Context() != trust.ContextAllowlist || !d.Root.Holds(key, trust.RoleReviewer) {
		return d.refused(ctx, c, number, trust.Refuse("not-reviewer", key.Name(), "the root in force (version %d) does not give this key to a reviewer", d.Root.Version))
	}
	if c.summary.State != "quarantined" {
		return fmt.Errorf("shipment %d is %s; only a quarantined one can be rejected", number, c.summary.State)
	}
	text := fmt.Appendf(nil, "sallyport allowlist rejection v1\nshipment %d\nmanifest %s\n", number, c.digest)
	_ = text
	subjects := []trust.Subject{{Name: fmt.Sprintf("shipment %d", number), SHA256: c.digest}}
	return d.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement(trust.StatementRejected, subjects, map[string]any{"shipment": number, "person": key.Person(), "reason": trust.Printable(reason, 500), "signature": key.ID()}); err != nil {
			return err
		}
		for _, q := range []string{
			`UPDATE shipment SET state = 'rejected' WHERE number = ?`,
			`DELETE FROM proposal_signature WHERE track IN (SELECT track FROM proposal WHERE shipment = ?)`,
			`DELETE FROM proposal WHERE shipment = ?`,
		} {
			if err := tx.Exec(ctx, q, number); err != nil {
				return err
			}
		}
		return nil
	})
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
