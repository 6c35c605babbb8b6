// Package gate is the inner door: it takes a volume from the outside and lets nothing through but a quarantined shipment.
//
// # What is judged, in this order
//
//	media        what lies on the volume is what the format allows, no more and no less
//	slip         the manifest's bytes have the digest that came on paper; nothing else is read before
//	signature    a collector of the enclave's root signed the manifest and the sums
//	number       neither replayed nor equivocated, chained to the shipment before where that is known
//	content      every item has the size and digest that the manifest says
//	name         every item's store path is recomputed from its content: of sources, of derivations and of all their outputs
//	inputs       what a derivation needs is offered here, or named by an allowlist in force
//	channel      a channel is one that officers ordered, under its URL, branch and introduction; every commit is authenticated from there again; what the
//	             policy finds refuses, unless orders excuse it; the checkout has the hash that the pin says; the tracks' pins are its ancestors
//	inspection   the reader child parsed every archive and looked into every file, of a channel those of the checkout; a finding of severity "block" refuses the item
//
// Everything that is wrong is listed at once. A refusal is a ledger entry and leaves nothing else behind; what was read is removed. A shipment
// without fault is quarantined: its items are in the store, and no depot, signer or builder will touch them until reviewers have signed
// an allowlist that names them.
//
// # Submissions
//
// What must never leave the enclave comes by no shipment. [Gate.Submit] makes the item of a channel from a repository that a person of the enclave has, and judges it as
// one of a shipment from "content" on. It has no manifest, slip, or number among the shipments': its statement says what a manifest would, signed by who submits it, and it is
// named own-1, own-2 and so on. The repository is believed nothing; what is judged is the item that was made of it.
//
// # When it becomes true
//
// Before the first item is stored the digests of all are noted (package pending). Items are stored as they are read, each durable before it has its name, and mean
// nothing: nobody looks for a blob that no shipment names. The one transaction that writes the importer's statement, the inspection's, and the shipment's
// rows makes it so. A crash before leaves blobs that the next import removes, since they are noted and no row refers to them; a crash after leaves a quarantined
// shipment.
package gate

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/admit"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/judge/examine"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Gate is the inner door of one enclave.
type Gate struct {
	Zone     *store.Zone
	Root     *trust.Root
	Reader   confine.Options
	Importer trust.Signer // signs the statement "imported"
	Clock    func() time.Time
	Progress func(bytes int64, item string)

	MaxFindings int // of a shipment; 0: MaxFindings

	Git func(context.Context) (*gitrun.Git, error) // unpacks what channels bring; nil: the one on the path, where it is needed
}

// A Quarantined shipment passed every check of the gate and waits for reviewers. Only [Gate.Import] makes one.
type Quarantined struct {
	Number   int64            `json:"shipment"`
	Manifest trust.Digest     `json:"manifest"`
	Items    int              `json:"items"`
	Bytes    int64            `json:"bytes"`
	Files    int64            `json:"files"`
	Findings map[string]int64 `json:"findings"` // by severity
	Missing  []int64          `json:"missing_shipments,omitempty"`
	Confined map[string]any   `json:"confinement"`
	Details  []Finding        `json:"-"`
	verified *shipment.Verified
}

// A Finding is one line of the inspection, grouped by rule and folder.
type Finding struct {
	Item     string
	Severity string
	Rule     string
	Place    string
	Count    int64
	Detail   string
}

// Import judges the volume against the slip. A fault comes back as [trust.Refusals], after it has become a ledger entry. An error of any other kind means that the
// volume was not judged: nothing is recorded, nothing is kept, and the same call can be made again.
func (g *Gate) Import(ctx context.Context, vol *os.Root, slip *shipment.Slip) (*Quarantined, error) {
	unlock, err := g.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	// What an import that was killed has left goes first: its space may be needed.
	if err := pending.Settle(ctx, g.Zone, stage); err != nil {
		return nil, err
	}
	j := &intake{g: g, drvs: map[string]*drv{}, findings: map[string]int64{}}
	q, err := j.run(ctx, vol, slip)
	if j.reader != nil {
		j.reader.Close()
	}
	if j.remove != nil {
		j.remove()
	}
	// Nothing of a volume that was not let in stays.
	left := j.pending.End(ctx, err)
	if err == nil {
		return q, left
	}
	subject := statement.Subject{Name: fmt.Sprintf("shipment %d", slip.Number), SHA256: slip.Manifest}
	return nil, errors.Join(g.Zone.Refused(ctx, "gate", subject, err), left)
}

// stage names the lock and the note of pending blobs.
const stage = "import"

// MaxFindings bounds the findings of a shipment. No person reads so many; and each is kept in memory until the end.
const MaxFindings = 1 << 17

func (g *Gate) maxFindings() int { return cmp.Or(g.MaxFindings, MaxFindings) }

// An intake is the work on one volume.
type intake struct {
	g        *Gate
	reader   *examine.Reader
	pending  *pending.Intake // nil until the manifest was found authentic
	noted    []trust.Digest
	orders   *trust.Orders
	drvs     map[string]*drv // derivations by store path, of this volume
	files    int64
	findings map[string]int64
	details  []Finding
	missing  []int64
	came     []*channelIntake
	remove   func() // the scratch repositories
}

type drv struct {
	path storepath.Path
	d    *derivation.Derivation
}

func (j *intake) run(ctx context.Context, vol *os.Root, slip *shipment.Slip) (*Quarantined, error) {
	g := j.g
	if err := g.mayImport(); err != nil {
		return nil, err
	}
	if slip.Enclave != g.Root.Enclave {
		return nil, trust.Refuse("slip-mismatch", "slip", "made for enclave %q, this is %q", slip.Enclave, g.Root.Enclave)
	}
	var err error
	if j.orders, err = g.Zone.Orders(ctx, g.Root); err != nil {
		return nil, err
	}
	// Twice the volume is never needed: items that are here already are not kept twice.
	if err := g.Zone.Space(slip.Bytes); err != nil {
		return nil, err
	}
	if j.reader, err = examine.Start(ctx, g.Reader); err != nil {
		return nil, err
	}
	var current string
	v, err := shipment.Verify(ctx, vol, shipment.Options{
		Root: g.Root, Slip: slip, Sink: sink{ctx, j, &current},
		Admit: func(m *shipment.Manifest, file []byte) error {
			if err := j.number(ctx, m, file); err != nil {
				return err
			}
			j.noted = []trust.Digest{trust.Sum(file)}
			for _, it := range m.Items {
				j.noted = append(j.noted, it.SHA256)
			}
			j.pending, err = pending.Begin(ctx, g.Zone, stage, j.noted)
			return err
		},
		Progress: func(n int64) {
			if g.Progress != nil {
				g.Progress(n, current)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	lists, err := j.allowed(ctx)
	if err != nil {
		return nil, err
	}
	var rs trust.Refusals
	for _, err := range []error{j.derivations(v.Manifest, lists), j.channels(ctx, v.Manifest.Items, lists)} {
		if err := rs.Merge(err); err != nil {
			return nil, err
		}
	}
	if len(rs) > 0 {
		return nil, rs
	}
	if limit := g.maxFindings(); len(j.details) > limit {
		return nil, trust.Refuse("inspection-findings", fmt.Sprintf("shipment %d", v.Manifest.Number), "more than %d findings; that is not for a person to read", limit).
			WithHint("the outside should send less at once")
	}
	q := &Quarantined{Number: v.Manifest.Number, Manifest: v.Digest, Items: len(v.Manifest.Items), Bytes: v.Bytes, Files: j.files,
		Findings: j.findings, Missing: j.missing, Confined: j.reader.Confinement(), Details: j.details, verified: v}
	if err := j.quarantine(ctx, q); err != nil {
		return nil, err
	}
	j.adopt(ctx)
	return q, nil
}

// mayImport checks the importer's key against the root before anything is read.
func (g *Gate) mayImport() error {
	k := g.Importer
	if k.Context() != trust.ContextStatement {
		return trust.Refuse("key-context", k.Name(), "a key of context %q signs no statement", k.Context())
	}
	if !g.Root.Holds(k, trust.RoleImporter, g.Clock()) {
		return trust.Refuse("not-importer", k.Name(), "the root in force (version %d) does not give this key to an importer", g.Root.Version)
	}
	return nil
}

// number judges the shipment's number and its chain.
func (j *intake) number(ctx context.Context, m *shipment.Manifest, file []byte) error {
	q := j.g.Zone.Read(ctx)
	digest := trust.Sum(file)
	var had, state string
	err := q.QueryRowContext(ctx, `SELECT manifest, state FROM shipment WHERE number = ?`, m.Number).Scan(&had, &state)
	switch {
	case err == nil && had == digest.String():
		return trust.Refuse("shipment-replayed", fmt.Sprintf("shipment %d", m.Number), "this very shipment came before and is %s", state).
			WithHint("nothing is to be done: 'review show' tells what became of it")
	case err == nil:
		return trust.Refuse("shipment-equivocation", fmt.Sprintf("shipment %d", m.Number), "ALARM: another shipment of this number is %s; its manifest is %s, this one's %s", state, had, digest).
			WithHint("two different deliveries carry one number: keep both discs and call the security officer")
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if lost, ok := j.orders.IsLost(m.Number); ok {
		return trust.Refuse("shipment-lost", fmt.Sprintf("shipment %d", m.Number), "officers declared it lost on %s: %s", trust.FormatDate(lost.Date), lost.Reason).
			WithHint("what was lost may have been in other hands: keep the disc, and have the outside send its items again under a new number")
	}
	var rs trust.Refusals
	var before string
	switch err := q.QueryRowContext(ctx, `SELECT manifest FROM shipment WHERE number = ?`, m.Number-1).Scan(&before); {
	case err == nil && before != m.Previous.String():
		rs.Add(trust.Refuse("manifest-chain", fmt.Sprintf("shipment %d", m.Number), "it follows manifest %s, the one admitted as %d is %s", m.Previous, m.Number-1, before))
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	}
	switch err := rs.Merge(j.follower(ctx, m, digest)); {
	case err != nil:
		return err
	case len(rs) > 0:
		return rs
	}
	for _, r := range m.Recent {
		var had string
		err := q.QueryRowContext(ctx, `SELECT manifest FROM shipment WHERE number = ?`, r.Number).Scan(&had)
		switch _, lost := j.orders.IsLost(r.Number); {
		case errors.Is(err, sql.ErrNoRows) && !lost:
			j.missing = append(j.missing, r.Number)
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return err
		default:
			known, err := manifest(j.g.Zone, r.Number, had)
			if err != nil {
				return err
			}
			if !known.Date.Equal(r.Date) {
				rs.Add(recentRefusal(m.Number, r, known.Date))
			}
		}
	}
	slices.Sort(j.missing)
	return rs.Err()
}

// follower compares with the shipment behind this one, if that came first: it says which manifest it follows.
func (j *intake) follower(ctx context.Context, m *shipment.Manifest, digest trust.Digest) error {
	var text string
	err := j.g.Zone.Read(ctx).QueryRowContext(ctx, `SELECT manifest FROM shipment WHERE number = ?`, m.Number+1).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	next, err := manifest(j.g.Zone, m.Number+1, text)
	if err != nil {
		return err
	}
	if next.Previous != digest {
		return trust.Refuse("manifest-chain", fmt.Sprintf("shipment %d", m.Number), "shipment %d, which came before, follows manifest %s; this one is %s", next.Number, next.Previous, digest)
	}
	return nil
}

// quarantine is the write that makes a shipment true.
func (j *intake) quarantine(ctx context.Context, q *Quarantined) error {
	g, m := j.g, q.verified.Manifest
	now := trust.FormatDate(g.Clock())
	a := &arrival{number: m.Number, digest: q.Manifest, date: now, items: m.Items, bytes: q.Bytes}
	keep := func() error {
		return g.Zone.CAS.Put(bytes.NewReader(q.verified.File), q.Manifest, int64(len(q.verified.File)))
	}
	var err error
	a.entry, err = statement.Sign(g.Importer, statement.Statement{Kind: statement.KindImported, Subjects: a.subjects(), Predicate: map[string]any{
		"time": now, "zone": g.Zone.Origin(), "shipment": m.Number, "items": int64(q.Items), "bytes": q.Bytes, "person": g.Importer.Person(),
	}})
	if err != nil {
		return err
	}
	return j.enter(ctx, a, keep)
}

// An arrival is what came in, under one number: a shipment, or below zero a submission.
type arrival struct {
	number int64
	digest trust.Digest // of the manifest; of a submission, of its item
	date   string
	items  []trust.Item
	bytes  int64
	entry  []byte // what the importer, or the submitter, says of it
}

func (a *arrival) subjects() []statement.Subject {
	return []statement.Subject{{Name: statement.Arrived(a.number), SHA256: a.digest}}
}

// enter writes entries and rows of an arrival in one transaction. What they name is stored before: the findings here, the rest by keep.
func (j *intake) enter(ctx context.Context, a *arrival, keep func() error) error {
	g := j.g
	// What was found is too much for an entry: it has the list's digest.
	list := make([]attach.Finding, len(j.details))
	for i, f := range j.details {
		list[i] = attach.Finding(f)
	}
	text, err := attach.Findings(list)
	if err != nil {
		return err
	}
	report := trust.Sum(text)
	if err := j.pending.More(append(j.noted, report)); err != nil {
		return err
	}
	if _, err := g.Zone.CAS.PutBytes(text); err != nil {
		return err
	}
	if err := keep(); err != nil {
		return err
	}
	findings := map[string]any{}
	for severity, n := range j.findings {
		findings[severity] = n
	}
	return g.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement(statement.KindInspected, a.subjects(), map[string]any{"files": j.files, "bytes": a.bytes, "findings": findings, "confinement": j.reader.Confinement(), "report": report.String()}); err != nil {
			return err
		}
		if err := tx.Attach(ctx, report); err != nil {
			return err
		}
		leaf, err := tx.Append(a.entry)
		if err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)`, admit.ImportedHint(a.number), strconv.FormatInt(leaf, 10)); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'quarantined', ?, ?, ?, ?)`,
			a.number, a.digest.String(), g.Importer.Person(), a.date, len(a.items), a.bytes); err != nil {
			return err
		}
		for _, it := range a.items {
			if err := tx.Exec(ctx, `INSERT OR IGNORE INTO item (sha256, size, kind, name, added) VALUES (?, ?, ?, ?, ?)`,
				it.SHA256.String(), it.Size, string(it.Kind), it.Name, a.date); err != nil {
				return err
			}
			if err := tx.Exec(ctx, `INSERT INTO shipment_item (number, sha256, name) VALUES (?, ?, ?)`, a.number, it.SHA256.String(), it.Name); err != nil {
				return err
			}
		}
		for _, f := range j.details {
			if err := tx.Exec(ctx, `INSERT INTO finding (number, item, severity, rule, place, count, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				a.number, f.Item, f.Severity, f.Rule, f.Place, f.Count, f.Detail); err != nil {
				return err
			}
		}
		return nil
	})
}
