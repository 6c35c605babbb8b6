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

	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// An Outcome says what an approval came to.
type Outcome struct {
	Shipment   int64    `json:"shipment,omitempty"`
	Submission int64    `json:"submission,omitempty"`
	From       string   `json:"from,omitempty"` // the track that items are promoted from
	Track      string   `json:"track"`
	Version    int64    `json:"version"`
	Digest     string   `json:"allowlist"` // digest of the text
	Persons    []string `json:"persons"`
	Threshold  int      `json:"threshold"` // persons; a deputy and the principal are one
	InForce    bool     `json:"in_force"`
	Added      int      `json:"added"`
	Classes    []string `json:"classes,omitempty"`  // rules by which items go in
	Left       int      `json:"left"`               // items of the shipment that stay in quarantine
	Recalled   []string `json:"recalled,omitempty"` // items that are left out since they are recalled
	Void       []string `json:"void,omitempty"`     // who signed a proposal that another root or other orders made void, and has to sign again
	Cosign     int      `json:"cosign,omitempty"`   // how many witnesses must cosign it before the signer signs
}

// maxAhead is how far ahead of this machine's clock the date of a proposal may be. A list's date is never before that of the list it follows, so a date in the far
// future would be the last one.
const maxAhead = time.Hour

// A motion is what a reviewer wants a track's next list to be. Each reviewer's is computed from signed documents, by themselves.
type motion struct {
	track    string
	arrival  int64  // of a shipment, or below zero of a submission; 0: none
	from     string // a track; "": none
	subject  statement.Subject
	current  *trust.Allowlist // nil: none yet
	added    []trust.Item
	classes  []trust.Class
	left     int
	recalled []string // of the list or the shipment, and left out
}

// Approve signs, with a reviewer's key, the allowlist of the track that admits the shipment, or what the selection says of it. A refusal is a ledger entry.
func (d *Desk) Approve(ctx context.Context, number int64, track string, key trust.Signer, sel Selection) (*Outcome, error) {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := d.open(ctx, number)
	var out *Outcome
	if err == nil {
		out, err = d.approve(ctx, c, track, key, sel)
	}
	if err != nil {
		return nil, d.refused(ctx, c, number, err)
	}
	return out, nil
}

func (d *Desk) approve(ctx context.Context, c *dossier, track string, key trust.Signer, sel Selection) (*Outcome, error) {
	if err := d.mayReview(c, track, key); err != nil {
		return nil, err
	}
	orders, err := d.Zone.Orders(ctx, d.Root)
	if err != nil {
		return nil, err
	}
	current, inForce, err := d.current(ctx, track, orders)
	if err != nil {
		return nil, err
	}
	m := &motion{track: track, arrival: c.number, subject: statement.Subject{Name: statement.Arrived(c.number), SHA256: c.digest}, current: current}
	var wanted []trust.Item
	for _, it := range added(current, c.items) {
		if _, gone := orders.Recalled(it.SHA256, it.Name); gone {
			m.recalled = append(m.recalled, it.Name)
		} else {
			wanted = append(wanted, it)
		}
	}
	if len(wanted) == 0 && inForce {
		return &Outcome{Shipment: max(0, c.number), Submission: max(0, -c.number), Track: track, Version: current.Version, Digest: current.Digest().String(), InForce: true, Persons: []string{},
			Threshold: d.Root.ListThreshold(track, current.Items), Recalled: m.recalled}, nil
	}
	if err := d.choose(ctx, c, m, wanted, sel, orders); err != nil {
		return nil, err
	}
	if err := d.twoDoors(ctx, c.number, m.added, key); err != nil {
		return nil, err
	}
	if err := d.present(m.added); err != nil {
		return nil, err
	}
	if err := d.channels(ctx, m, orders); err != nil {
		return nil, err
	}
	return d.sign(ctx, m, orders, key)
}

// present demands that the store has the content of items.
func (d *Desk) present(items []trust.Item) error {
	var lost trust.Refusals
	for _, it := range items {
		if size, ok := d.Zone.CAS.Has(it.SHA256); !ok || size != it.Size {
			lost.Add(trust.Refuse("item-lost", it.Name, "its content is not in the store any more").WithHint("restore the blob from a backup, or reject the shipment and have its items sent again"))
		}
	}
	return lost.Err()
}

// sign signs the text that a motion makes, and puts it in force with the last signature.
func (d *Desk) sign(ctx context.Context, m *motion, orders *trust.Orders, key trust.Signer) (*Outcome, error) {
	p, err := d.proposal(ctx, m, orders)
	if err != nil {
		return nil, err
	}
	list, err := trust.ParseAllowlist(p.text)
	if err != nil {
		return nil, err
	}
	line, err := trust.SignText(p.text, key)
	if err != nil {
		return nil, err
	}
	p.again = p.lines[key.Person()] == line
	p.lines[key.Person()] = line
	out := &Outcome{Shipment: max(0, m.arrival), Submission: max(0, -m.arrival), From: m.from, Track: m.track, Version: p.version, Digest: trust.Sum(p.text).String(), Persons: []string{},
		Threshold: d.Root.ListThreshold(m.track, list.Items), Added: len(m.added), Left: m.left, Recalled: m.recalled, Void: p.void}
	for _, c := range m.classes {
		out.Classes = append(out.Classes, c.Rule)
	}
	var all []string
	var signers []trust.VKey
	known := d.Root.Signers(trust.ContextAllowlist, list.Date)
	for _, person := range slices.Sorted(maps.Keys(p.lines)) {
		k, err := trust.VerifyLine("allowlist", p.text, p.lines[person], known)
		if err != nil {
			return nil, err
		}
		signers = append(signers, k)
		out.Persons = append(out.Persons, person)
		all = append(all, p.lines[person])
	}
	var note []byte
	if d.Root.Count(trust.RoleReviewer, signers) >= out.Threshold {
		note = trust.JoinNote(p.text, all...)
		// The very check that every verifier will make decides, not a count of rows.
		a, persons, err := trust.OpenAllowlist(note, d.Root, orders)
		if err == nil {
			err = a.CheckSuccessor(m.current)
		}
		if err != nil {
			return nil, err
		}
		out.InForce, out.Persons, out.Cosign = true, persons, d.Root.Cosigned(m.track)
	}
	return out, d.commit(ctx, m, p, key.Person(), line, note, out)
}

// twoDoors refuses who imported or submitted an item that is to be added, with whatever was not rejected. The arrival under review, 0 if there is none, has been
// looked at.
func (d *Desk) twoDoors(ctx context.Context, number int64, added []trust.Item, key trust.Signer) error {
	adds := map[string]string{}
	for _, it := range added {
		adds[it.SHA256.String()] = it.Name
	}
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT number, manifest, sha256 FROM shipment_item JOIN shipment USING (number)
		WHERE number != ? AND state != 'rejected' ORDER BY number`, number)
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
			return fmt.Errorf("%s: %w", statement.Arrived(o.number), err)
		}
		person, err := d.importer(ctx, o.number, manifest)
		if err != nil {
			return err
		}
		if d.sameSeat(person, key.Person()) {
			rs.Add(trust.Refuse("separation-of-duties", key.Name(), "%s %s %s, which has %s too; whoever brings an item in does not approve it, nor does their deputy", person, broughtIn(o.number), statement.Arrived(o.number), o.item).
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
	if d.sameSeat(key.Person(), c.importer) {
		rs.Add(trust.Refuse("separation-of-duties", subject, "%s %s %s; whoever brings something in does not approve it, nor does their deputy", c.importer, broughtIn(c.number), statement.Arrived(c.number)).
			WithHint("two other reviewers decide"))
	}
	if d.Root.Threshold(track) == 0 {
		rs.Add(trust.Refuse("no-track", track, "the root has no threshold for this track; it has %v", d.Root.Tracks()))
	}
	if c.summary.State == "rejected" {
		rs.Add(trust.Refuse("shipment-rejected", statement.Arrived(c.number), "it was rejected"))
	}
	return rs.Err()
}

// sameSeat reports whether two persons are one where reviewers are counted: the same, or one the other's deputy.
func (d *Desk) sameSeat(a, b string) bool {
	return d.Root.Seat(trust.RoleReviewer, a) == d.Root.Seat(trust.RoleReviewer, b)
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
	subject := statement.Subject{Name: statement.Arrived(number), SHA256: trust.Sum([]byte(statement.Arrived(number)))}
	if c != nil {
		subject.SHA256 = c.digest
	}
	return d.Zone.Refused(ctx, "review", subject, err)
}

// current opens the track's newest allowlist; nil if there is none yet. A list whose reviewers are no longer enough under the present root is not in force, but
// the next one follows it.
func (d *Desk) current(ctx context.Context, track string, orders *trust.Orders) (list *trust.Allowlist, inForce bool, err error) {
	note, err := d.Zone.Allowlist(ctx, track)
	if err != nil || note == nil {
		return nil, false, err
	}
	list, _, err = trust.OpenAllowlist(note, d.Root, orders)
	if err == nil {
		return list, true, nil
	}
	past, pastErr := d.past()
	if pastErr != nil {
		return nil, false, errors.Join(err, pastErr)
	}
	for _, root := range past {
		if list, _, err := trust.OpenAllowlist(note, root, orders); err == nil {
			return list, false, nil
		}
	}
	return nil, false, fmt.Errorf("the allowlist that lies there does not verify: %w", err)
}

// broughtIn says how.
func broughtIn(number int64) string {
	if number < 0 {
		return "submitted"
	}
	return "imported"
}

// added lists what an arrival adds to a list, which may be nil. An item of the same name and other content counts.
func added(a *trust.Allowlist, items []trust.Item) []trust.Item {
	var list []trust.Item
	for _, it := range items {
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
// proposed under an older root, or older orders, is void.
func (d *Desk) proposal(ctx context.Context, m *motion, orders *trust.Orders) (*proposal, error) {
	now := d.Clock()
	a := &trust.Allowlist{Enclave: d.Root.Enclave, Track: m.track, Version: 1, Date: now, Root: d.Root.Version, Orders: orders.Number(), Classes: m.classes, Items: m.added}
	if now.Before(d.Root.Date) {
		return nil, trust.Refuse("clock", "allowlist", "this machine's clock says %s, before the root in force (%s)", trust.FormatDate(now), trust.FormatDate(d.Root.Date))
	}
	if orders != nil && now.Before(orders.Date) {
		return nil, trust.Refuse("clock", "allowlist", "this machine's clock says %s, before the orders in force (%s)", trust.FormatDate(now), trust.FormatDate(orders.Date))
	}
	if current := m.current; current != nil {
		var rs trust.Refusals
		for _, it := range m.added {
			if have, ok := current.ByName(it.Name); ok {
				if _, gone := orders.Recalled(have.SHA256, ""); !gone {
					rs.Add(trust.Refuse("item-conflict", it.Name, "the allowlist in force has other content under this name"))
				}
			}
		}
		if now.Before(current.Date) {
			rs.Add(trust.Refuse("clock", "allowlist", "this machine's clock says %s, before the allowlist in force (%s)", trust.FormatDate(now), trust.FormatDate(current.Date)))
		}
		if err := rs.Err(); err != nil {
			return nil, err
		}
		a.Version, a.Previous = current.Version+1, current.Digest()
		for _, it := range current.Items {
			if _, gone := orders.Recalled(it.SHA256, it.Name); !gone {
				a.Items = append(a.Items, it)
			}
		}
	}
	p := &proposal{version: a.Version, lines: map[string]string{}}
	q := d.Zone.Read(ctx)
	var open sql.NullInt64
	var digest string
	switch err := q.QueryRowContext(ctx, `SELECT shipment, text FROM proposal WHERE track = ?`, m.track).Scan(&open, &digest); {
	case errors.Is(err, sql.ErrNoRows):
		p.text, p.isNew = a.Text(), true
		return p, nil
	case err != nil:
		return nil, err
	case open.Int64 != m.arrival && open.Int64 != 0:
		return nil, fmt.Errorf("%s is under review for track %q; approve or reject it first", statement.Arrived(open.Int64), m.track)
	case open.Int64 != m.arrival:
		return nil, fmt.Errorf("a promotion to track %q, or the renewal of its list, waits for signatures; 'review withdraw' ends it", m.track)
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
	rows, err := q.QueryContext(ctx, `SELECT person, line FROM proposal_signature WHERE track = ? ORDER BY person`, m.track)
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
	if proposed.Root < d.Root.Version || proposed.Orders < orders.Number() {
		p.void = slices.Sorted(maps.Keys(p.lines))
		p.text, p.lines, p.isNew = a.Text(), map[string]string{}, true
		return p, nil
	}
	if limit := now.Add(maxAhead); proposed.Date.After(limit) {
		return nil, trust.Refuse("proposal-date", a.Subject(), "it is dated %s; this machine's clock says %s", trust.FormatDate(proposed.Date), trust.FormatDate(now)).
			WithHint("one of two clocks is wrong, or the first reviewer wants every later list to be refused; nothing was signed")
	}
	a.Date = proposed.Date
	if !bytes.Equal(a.Text(), p.text) {
		return nil, trust.Refuse("proposal-changed", a.Subject(), "the proposed text is not what follows from the documents and what was asked for; nothing was signed").
			WithHint("whoever signed first selected otherwise: see 'review show'; or the catalog was changed by somebody else: tell the security officer. 'review withdraw' ends the proposal")
	}
	return p, nil
}

// stage names the lock and the note of pending blobs.
const stage = "review"

// commit is the write that makes an approval true, and with the last one the list.
func (d *Desk) commit(ctx context.Context, m *motion, p *proposal, person, line string, note []byte, out *Outcome) error {
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
		err = d.Zone.Commit(ctx, func(tx *store.Tx) error { return d.write(ctx, tx, m, p, person, line, note, out) })
	}
	return errors.Join(err, in.End(ctx, err))
}

func (d *Desk) write(ctx context.Context, tx *store.Tx, m *motion, p *proposal, person, line string, note []byte, out *Outcome) error {
	text := trust.Sum(p.text).String()
	if p.isNew {
		if err := tx.Exec(ctx, `DELETE FROM proposal_signature WHERE track = ?`, out.Track); err != nil {
			return err
		}
		shipment := sql.NullInt64{Int64: m.arrival, Valid: m.arrival != 0}
		if err := tx.Exec(ctx, `INSERT OR REPLACE INTO proposal (track, version, shipment, text) VALUES (?, ?, ?, ?)`, out.Track, p.version, shipment, text); err != nil {
			return err
		}
	}
	subjects := []statement.Subject{{Name: fmt.Sprintf("allowlist %s %d", out.Track, out.Version), SHA256: trust.Sum(p.text)}}
	// about is what entries say of the reason for a list.
	about := func(more map[string]any) map[string]any {
		more["track"], more["version"] = out.Track, out.Version
		switch {
		case m.arrival > 0:
			more["shipment"], more["left"] = m.arrival, int64(m.left)
		case m.arrival < 0:
			more["submission"] = -m.arrival
		}
		if m.from != "" {
			more["from"] = m.from
		}
		return more
	}
	if !p.again {
		if err := tx.Statement(statement.KindApproved, subjects, about(map[string]any{"person": person, "signature": line})); err != nil {
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
	if err := tx.Statement(statement.KindAllowed, subjects, about(map[string]any{"persons": persons})); err != nil {
		return err
	}
	if m.from != "" {
		if err := tx.Statement(statement.KindReleased, subjects, map[string]any{"track": out.Track, "version": out.Version, "from": m.from}); err != nil {
			return err
		}
	}
	if m.arrival != 0 && m.left == 0 {
		if err := tx.Exec(ctx, `UPDATE shipment SET state = 'admitted' WHERE number = ?`, m.arrival); err != nil {
			return err
		}
	}
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO allowlist (track, version, digest, note) VALUES (?, ?, ?, ?)`, []any{out.Track, out.Version, text, trust.Sum(note).String()}},
		{`DELETE FROM proposal_signature WHERE track = ?`, []any{out.Track}},
		{`DELETE FROM proposal WHERE track = ?`, []any{out.Track}},
	} {
		if err := tx.Exec(ctx, q.sql, q.args...); err != nil {
			return err
		}
	}
	return tx.PublishBlob(fmt.Sprintf("allowlist/%s/%d", out.Track, out.Version), trust.Sum(note))
}
