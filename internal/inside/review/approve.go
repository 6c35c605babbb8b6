package review

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// An Outcome says what an approval came to.
type Outcome struct {
	Shipment  int64    `json:"shipment"`
	Track     string   `json:"track"`
	Version   int64    `json:"version"`
	Digest    string   `json:"allowlist"` // digest of the text
	Persons   []string `json:"persons"`
	Threshold int      `json:"threshold"`
	InForce   bool     `json:"in_force"`
	Void      []string `json:"void,omitempty"` // who signed a proposal that another root made void, and has to sign again
}

// maxAhead is how far ahead of this machine's clock the date of a proposal may be. A list's date is never before that of the list it follows, so a date in the far
// future would be the last one.
const maxAhead = time.Hour

// Approve signs, with a reviewer's key, the allowlist of the track that admits the shipment. A refusal is a ledger entry.
func (d *Desk) Approve(ctx context.Context, number int64, track string, key trust.Signer) (*Outcome, error) {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := d.open(ctx, number)
	var out *Outcome
	if err == nil {
		out, err = d.approve(ctx, c, track, key)
	}
	if err != nil {
		return nil, d.refused(ctx, c, number, err)
	}
	return out, nil
}

func (d *Desk) approve(ctx context.Context, c *dossier, track string, key trust.Signer) (*Outcome, error) {
	if err := d.mayReview(c, track, key); err != nil {
		return nil, err
	}
	current, inForce, err := d.current(ctx, track)
	if err != nil {
		return nil, err
	}
	number := c.manifest.Number
	out := &Outcome{Shipment: number, Track: track, Persons: []string{}, Threshold: d.Root.Threshold(track)}
	added := added(current, c.manifest)
	if len(added) == 0 && inForce {
		out.Version, out.Digest, out.InForce = current.Version, current.Digest().String(), true
		return out, nil
	}
	if err := d.twoDoors(ctx, number, added, key); err != nil {
		return nil, err
	}
	var lost trust.Refusals
	for _, it := range c.manifest.Items {
		if size, ok := d.Zone.CAS.Has(it.SHA256); !ok || size != it.Size {
			lost.Add(trust.Refuse("item-lost", it.Name, "its content is not in the store any more").WithHint("restore the blob from a backup, or reject the shipment and have its items sent again"))
		}
	}
	if err := lost.Err(); err != nil {
		return nil, err
	}
	p, err := d.proposal(ctx, c, track, current, added)
	if err != nil {
		return nil, err
	}
	line, err := trust.SignText(p.text, key)
	if err != nil {
		return nil, err
	}
	p.again = p.lines[key.Person()] == line
	p.lines[key.Person()] = line
	out.Version, out.Digest, out.Void = p.version, trust.Sum(p.text).String(), p.void
	var all []string
	for _, person := range slices.Sorted(maps.Keys(p.lines)) {
		out.Persons = append(out.Persons, person)
		all = append(all, p.lines[person])
	}
	var note []byte
	if len(out.Persons) >= out.Threshold {
		note = trust.JoinNote(p.text, all...)
		// The very check that every verifier will make decides, not a count of rows.
		a, persons, err := trust.OpenAllowlist(note, d.Root, nil)
		if err == nil {
			err = a.CheckSuccessor(current)
		}
		if err != nil {
			return nil, err
		}
		out.InForce, out.Persons = true, persons
	}
	return out, d.commit(ctx, c, p, key.Person(), line, note, out)
}

// twoDoors refuses who imported an item that is to be added, with whatever shipment that was not rejected.
func (d *Desk) twoDoors(ctx context.Context, number int64, added []trust.Item, key trust.Signer) error {
	adds := map[string]string{}
	for _, it := range added {
		adds[it.SHA256.String()] = it.Name
	}
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT other.number, other.manifest, theirs.sha256 FROM shipment_item AS ours
		JOIN shipment_item AS theirs USING (sha256) JOIN shipment AS other ON other.number = theirs.number
		WHERE ours.number = ? AND theirs.number != ours.number AND other.state != 'rejected' ORDER BY other.number`, number)
	if err != nil {
		return err
	}
	defer rows.Close()
	type arrival struct {
		number   int64
		manifest string
		item     string
	}
	var others []arrival
	for rows.Next() {
		var o arrival
		var digest string
		if err := rows.Scan(&o.number, &o.manifest, &digest); err != nil {
			return err
		}
		if o.item = adds[digest]; o.item != "" && (len(others) == 0 || others[len(others)-1].number != o.number) {
			others = append(others, o)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	var rs trust.Refusals
	for _, o := range others {
		manifest, err := trust.ParseDigest(o.manifest)
		if err != nil {
			return fmt.Errorf("shipment %d: %w", o.number, err)
		}
		person, err := d.importer(ctx, o.number, manifest)
		if err != nil {
			return err
		}
		if person == key.Person() {
			rs.Add(trust.Refuse("separation-of-duties", key.Name(), "%s imported shipment %d, which has %s too; whoever imports an item does not approve it", person, o.number, o.item).
				WithHint("two other reviewers decide; an import that is not wanted can be rejected"))
		}
	}
	return rs.Err()
}

// mayReview is the separation of duties.
func (d *Desk) mayReview(c *dossier, track string, key trust.Signer) error {
	var rs trust.Refusals
	subject := key.Name()
	if r := d.reviewer(key); r != nil {
		rs.Add(r)
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

// reviewer demands a reviewer's key, as the root in force has it.
func (d *Desk) reviewer(key trust.Signer) *trust.Refusal {
	switch {
	case key.Context() != trust.ContextAllowlist:
		return trust.Refuse("key-context", key.Name(), "a key of context %q signs no allowlist", key.Context())
	case !d.Root.Holds(key, trust.RoleReviewer, d.Clock()):
		return trust.Refuse("not-reviewer", key.Name(), "the root in force (version %d) does not give this key to a reviewer", d.Root.Version)
	}
	return nil
}

// refused makes a refusal a ledger entry; any other error passes through.
func (d *Desk) refused(ctx context.Context, c *dossier, number int64, err error) error {
	subject := statement.Subject{Name: fmt.Sprintf("shipment %d", number), SHA256: trust.Sum(fmt.Appendf(nil, "shipment %d", number))}
	if c != nil {
		subject.SHA256 = c.digest
	}
	return d.Zone.Refused(ctx, "review", subject, err)
}

// current opens the track's newest allowlist; nil if there is none yet. A list whose reviewers are no longer enough under the present root is not in force, but
// the next one follows it.
func (d *Desk) current(ctx context.Context, track string) (list *trust.Allowlist, inForce bool, err error) {
	note, err := d.Zone.Allowlist(ctx, track)
	if err != nil || note == nil {
		return nil, false, err
	}
	list, _, err = trust.OpenAllowlist(note, d.Root, nil)
	if err == nil {
		return list, true, nil
	}
	past, pastErr := d.past()
	if pastErr != nil {
		return nil, false, errors.Join(err, pastErr)
	}
	for _, root := range past {
		if list, _, err := trust.OpenAllowlist(note, root, nil); err == nil {
			return list, false, nil
		}
	}
	return nil, false, fmt.Errorf("the allowlist that lies there does not verify: %w", err)
}

// added lists what the shipment adds to a list, which may be nil. An item of the same name and other content counts.
func added(a *trust.Allowlist, m *shipment.Manifest) []trust.Item {
	var list []trust.Item
	for _, it := range m.Items {
		if a != nil {
			if have, ok := a.ByName(it.Name); ok && have == it {
				continue
			}
		}
		list = append(list, it)
	}
	return list
}

// A proposal is the text that waits for signatures.
type proposal struct {
	version int64
	text    []byte
	lines   map[string]string // by person; each verifies
	isNew   bool              // not in the catalog yet, or in the place of a void one
	again   bool              // this reviewer has signed it before
	void    []string          // who signed the void one
}

// proposal computes the text to be signed. If one is open already, it must be this very text, but for the date its first reviewer gave it. One that was
// proposed under an older root is void.
func (d *Desk) proposal(ctx context.Context, c *dossier, track string, current *trust.Allowlist, added []trust.Item) (*proposal, error) {
	now := d.Clock()
	a := &trust.Allowlist{Enclave: d.Root.Enclave, Track: track, Version: 1, Date: now, Root: d.Root.Version, Items: added}
	if current != nil {
		var rs trust.Refusals
		for _, it := range added {
			if _, ok := current.ByName(it.Name); ok {
				rs.Add(trust.Refuse("item-conflict", it.Name, "the allowlist in force has other content under this name"))
			}
		}
		if now.Before(current.Date) {
			rs.Add(trust.Refuse("clock", "allowlist", "this machine's clock says %s, before the allowlist in force (%s)", trust.FormatDate(now), trust.FormatDate(current.Date)))
		}
		if err := rs.Err(); err != nil {
			return nil, err
		}
		a.Version, a.Previous = current.Version+1, current.Digest()
		a.Items = slices.Concat(current.Items, added)
	}
	p := &proposal{version: a.Version, lines: map[string]string{}}
	q := d.Zone.Read(ctx)
	var open int64
	var digest string
	switch err := q.QueryRowContext(ctx, `SELECT shipment, text FROM proposal WHERE track = ?`, track).Scan(&open, &digest); {
	case errors.Is(err, sql.ErrNoRows):
		p.text, p.isNew = a.Text(), true
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
	if p.text, err = d.Zone.CAS.ReadAll(sum, trust.MaxListSize); err != nil {
		return nil, err
	}
	proposed, err := trust.ParseAllowlist(p.text)
	if err != nil {
		return nil, err
	}
	rows, err := q.QueryContext(ctx, `SELECT person, line FROM proposal_signature WHERE track = ? ORDER BY person`, track)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var person, line string
		if err := rows.Scan(&person, &line); err != nil {
			return nil, err
		}
		// What stands in the catalog is a claim.
		if k, err := trust.VerifyLine("allowlist", p.text, line, d.Root.Signers(trust.ContextAllowlist, proposed.Date)); err == nil && k.Person == person {
			p.lines[person] = line
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if proposed.Root < d.Root.Version {
		p.void = slices.Sorted(maps.Keys(p.lines))
		p.text, p.lines, p.isNew = a.Text(), map[string]string{}, true
		return p, nil
	}
	if limit := now.Add(maxAhead); proposed.Date.After(limit) {
		return nil, trust.Refuse("proposal-date", fmt.Sprintf("allowlist %s version %d", track, a.Version), "it is dated %s; this machine's clock says %s", trust.FormatDate(proposed.Date), trust.FormatDate(now)).
			WithHint("one of two clocks is wrong, or the first reviewer wants every later list to be refused; nothing was signed")
	}
	a.Date = proposed.Date
	if !bytes.Equal(a.Text(), p.text) {
		return nil, trust.Refuse("proposal-changed", fmt.Sprintf("allowlist %s version %d", track, a.Version), "the proposed text is not the list in force and this shipment's items; nothing was signed").
			WithHint("the catalog was changed by somebody else: tell the security officer; 'review reject' ends the proposal")
	}
	return p, nil
}

// stage names the lock and the note of pending blobs.
const stage = "review"

// commit is the write that makes an approval true, and with the last one the list.
func (d *Desk) commit(ctx context.Context, c *dossier, p *proposal, person, line string, note []byte, out *Outcome) error {
	text := trust.Sum(p.text)
	digests := []trust.Digest{text}
	if note != nil {
		digests = append(digests, trust.Sum(note))
	}
	in, err := pending.Begin(ctx, d.Zone, stage, digests)
	if err != nil {
		return err
	}
	_, err = d.Zone.CAS.PutBytes(p.text)
	if err == nil && note != nil {
		_, err = d.Zone.CAS.PutBytes(note)
	}
	if err == nil {
		err = d.Zone.Commit(ctx, func(tx *store.Tx) error { return d.write(ctx, tx, c, p, person, line, note, out) })
	}
	return errors.Join(err, in.End(ctx, err))
}

func (d *Desk) write(ctx context.Context, tx *store.Tx, c *dossier, p *proposal, person, line string, note []byte, out *Outcome) error {
	text := trust.Sum(p.text).String()
	if p.isNew {
		if err := tx.Exec(ctx, `DELETE FROM proposal_signature WHERE track = ?`, out.Track); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT OR REPLACE INTO proposal (track, version, shipment, text) VALUES (?, ?, ?, ?)`, out.Track, p.version, c.manifest.Number, text); err != nil {
			return err
		}
	}
	subjects := []statement.Subject{{Name: fmt.Sprintf("allowlist %s %d", out.Track, out.Version), SHA256: trust.Sum(p.text)}}
	if !p.again {
		if err := tx.Statement(statement.KindApproved, subjects, map[string]any{"track": out.Track, "version": out.Version, "shipment": c.manifest.Number, "person": person, "signature": line}); err != nil {
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
	if err := tx.Statement(statement.KindAllowed, subjects, map[string]any{"track": out.Track, "version": out.Version, "shipment": c.manifest.Number, "persons": persons}); err != nil {
		return err
	}
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO allowlist (track, version, digest, note) VALUES (?, ?, ?, ?)`, []any{out.Track, out.Version, text, trust.Sum(note).String()}},
		{`UPDATE shipment SET state = 'admitted' WHERE number = ?`, []any{c.manifest.Number}},
		{`DELETE FROM proposal_signature WHERE track = ?`, []any{out.Track}},
		{`DELETE FROM proposal WHERE track = ?`, []any{out.Track}},
	} {
		if err := tx.Exec(ctx, q.sql, q.args...); err != nil {
			return err
		}
	}
	return tx.PublishBlob(fmt.Sprintf("allowlist/%s/%d", out.Track, out.Version), trust.Sum(note))
}
