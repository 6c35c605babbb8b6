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
//	inputs       what a derivation needs is offered here or was allowed before
//	inspection   the reader child parsed every archive and looked into every file; a finding of severity "block" refuses the item
//
// Everything that is wrong is listed at once. A refusal is a ledger entry and leaves nothing else behind; what was read is removed. A shipment
// without fault is quarantined: its items are in the store, and no depot, signer or builder will touch them until reviewers have signed
// an allowlist that names them.
//
// # When it becomes true
//
// Items are stored as they are read, each durable before it has its name, and mean nothing: nobody looks for a blob that no shipment names. The one transaction that
// writes the importer's statement, the inspection's, and the shipment's rows makes it so. A crash before leaves blobs that the
// next import finds already there, or that the next sweep removes; a crash after leaves a quarantined shipment.
package gate

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
)

// A Gate is the inner door of one enclave.
type Gate struct {
	Zone     *store.Zone
	Root     *trust.Root
	Reader   confine.Options
	Importer *trust.Key // signs the statement "imported"
	Clock    func() time.Time
	Progress func(bytes int64, item string)
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
// volume was not judged: nothing is recorded but what was found until then, and the same call can be made again.
func (g *Gate) Import(ctx context.Context, vol *os.Root, slip *shipment.Slip) (*Quarantined, error) {
	unlock, err := g.Zone.Lock("import")
	if err != nil {
		return nil, err
	}
	defer unlock()
	j := &intake{g: g, added: map[trust.Digest]bool{}, findings: map[string]int64{}}
	q, err := j.run(ctx, vol, slip)
	if err == nil {
		return q, nil
	}
	var late *store.UnpublishedError
	if errors.As(err, &late) {
		// It is quarantined; only the telling failed, and the next opening makes up for that. What it brought belongs to it.
		return nil, err
	}
	// Nothing of a volume that was not let in stays.
	clean := j.discard()
	subject := trust.Subject{Name: fmt.Sprintf("shipment %d", slip.Number), SHA256: slip.Manifest}
	return nil, errors.Join(g.Zone.Refused(ctx, "gate", subject, err), clean)
}

// an intake is the work on one volume.
type intake struct {
	g        *Gate
	child    *confine.Child
	added    map[trust.Digest]bool // blobs that this volume brought
	drvs     map[string]*drv       // derivations by store path, of this volume
	known    map[string]bool       // names that were allowed before
	files    int64
	findings map[string]int64
	details  []Finding
	missing  []int64
}

type drv struct {
	item trust.Item
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
	// Twice the volume is never needed: items that are here already are not written again.
	if err := g.Zone.Space(slip.Bytes); err != nil {
		return nil, err
	}
	child, err := confine.Start(ctx, g.Reader)
	if err != nil {
		return nil, fmt.Errorf("no inspection without confinement: %w", err)
	}
	j.child = child
	defer child.Close()
	j.drvs = map[string]*drv{}
	var current string
	v, err := shipment.Verify(ctx, vol, shipment.Options{
		Root: g.Root, Slip: slip, Sink: sink{ctx, j, &current},
		Admit: func(m *shipment.Manifest, file []byte) error { return j.number(ctx, m, file) },
		Progress: func(n int64) {
			if g.Progress != nil {
				g.Progress(n, current)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if err := j.derivations(ctx, v.Manifest); err != nil {
		return nil, err
	}
	q := &Quarantined{Number: v.Manifest.Number, Manifest: v.Digest, Items: len(v.Manifest.Items), Bytes: v.Bytes, Files: j.files,
		Findings: j.findings, Missing: j.missing, Confined: child.Confinement(), Details: j.details, verified: v}
	if _, had := g.Zone.CAS.Has(q.Manifest); !had {
		j.added[q.Manifest] = true
	}
	return q, g.quarantine(ctx, q)
}

// mayImport checks the importer's key against the root before anything is read.
func (g *Gate) mayImport() error {
	k := g.Importer
	if k.Context() != trust.ContextStatement {
		return trust.Refuse("key-context", k.Name(), "a key of context %q signs no statement", k.Context())
	}
	if !g.Root.Holds(k, trust.RoleImporter) {
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
	var rs trust.Refusals
	var before string
	switch err := q.QueryRowContext(ctx, `SELECT manifest FROM shipment WHERE number = ?`, m.Number-1).Scan(&before); {
	case err == nil && before != m.Previous.String():
		rs.Add(trust.Refuse("manifest-chain", fmt.Sprintf("shipment %d", m.Number), "it follows manifest %s, the one admitted as %d is %s", m.Previous, m.Number-1, before))
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return err
	}
	// The next one says the same of this one, if it came first.
	if err := rs.Err(); err != nil {
		return err
	}
	have := map[int64]bool{}
	rows, err := q.QueryContext(ctx, `SELECT number FROM shipment WHERE number < ?`, m.Number)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return err
		}
		have[n] = true
	}
	for _, r := range m.Recent {
		if !have[r.Number] {
			j.missing = append(j.missing, r.Number)
		}
	}
	slices.Sort(j.missing)
	return rows.Err()
}

// sink stores and inspects the items of a volume.
type sink struct {
	ctx     context.Context
	j       *intake
	current *string
}

func (s sink) Begin(it trust.Item) (shipment.ItemSink, error) {
	*s.current = it.Name
	switch it.Kind {
	case trust.KindSource, trust.KindDerivation:
	default:
		// An output is evidence for a quorum at best; no verb brings one in yet.
		return nil, trust.Refuse("item-kind", it.Name, "items of kind %q are not let in", it.Kind)
	}
	path, err := storepath.ParseBase(it.Name)
	if err != nil {
		return nil, trust.Refuse("item-name", it.Name, "%v", err)
	}
	w, err := s.j.g.Zone.CAS.Create()
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	t := &taking{sink: s, it: it, path: path, blob: w, pipe: pw, judged: make(chan struct{})}
	kind := "nar"
	if it.Kind == trust.KindDerivation {
		kind = "derivation"
	}
	go func() {
		defer close(t.judged)
		t.report, t.err = s.j.child.Judge(s.ctx, confine.Request{Kind: kind, Name: it.Name, Size: it.Size}, pr)
		// The writer must never wait for a judge who is gone.
		pr.CloseWithError(errJudged)
	}()
	return t, nil
}

var errJudged = errors.New("the reader has judged")

// taking is one item on its way in.
type taking struct {
	sink
	it     trust.Item
	path   storepath.Path
	blob   *cas.Writer
	pipe   *io.PipeWriter
	judged chan struct{}
	report *confine.Report
	err    error
}

func (t *taking) Write(p []byte) (int, error) {
	if _, err := t.pipe.Write(p); err != nil && !errors.Is(err, errJudged) {
		return 0, err
	}
	return t.blob.Write(p)
}

func (t *taking) Abort() error {
	t.blob.Abort()
	t.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-t.judged
	// The child was told a size that did not come: it cannot be used for another item.
	return t.j.restart(t.ctx)
}

// Commit is called when size and digest are the manifest's: now the judgement counts.
func (t *taking) Commit() error {
	t.pipe.Close()
	<-t.judged
	if t.err != nil {
		t.blob.Abort()
		return fmt.Errorf("inspection: %w", t.err)
	}
	var rs trust.Refusals
	for _, r := range t.report.Refusals {
		rs.Add(trust.Refuse(r.Code, t.it.Name, "%s", trust.Printable(r.Detail, 500)).At(r.Offset))
	}
	t.j.files += t.report.Files
	for _, f := range t.report.Findings {
		t.j.findings[f.Severity] += f.Count
		t.j.details = append(t.j.details, Finding{Item: t.it.SHA256.String(), Severity: f.Severity, Rule: f.Rule,
			Place: trust.Printable(f.Place, 300), Count: f.Count, Detail: trust.Printable(strings.Join(f.Examples, ", "), 600)})
		if f.Severity == "block" {
			rs.Add(trust.Refuse("inspection-block", t.it.Name, "%s in %q (%d times): %s", f.Rule, f.Place, f.Count, trust.Printable(strings.Join(f.Examples, ", "), 300)))
		}
	}
	if len(rs) == 0 {
		if err := rs.Merge(t.bind()); err != nil {
			t.blob.Abort()
			return err
		}
	}
	if len(rs) > 0 {
		t.blob.Abort()
		return rs
	}
	_, had := t.j.g.Zone.CAS.Has(t.it.SHA256)
	if !had {
		t.j.added[t.it.SHA256] = true
	}
	_, _, err := t.blob.Commit(t.it.SHA256)
	return err
}

// bind recomputes the item's store path from its content.
func (t *taking) bind() error {
	if t.it.Kind == trust.KindSource {
		want, err := storepath.Source(t.path.Name(), t.it.SHA256)
		if err != nil {
			return trust.Refuse("item-name", t.it.Name, "%v", err)
		}
		if want != t.path {
			return trust.Refuse("item-path", t.it.Name, "this content's store path is %s", want)
		}
		return nil
	}
	d := t.report.Derivation
	if d == nil {
		return errors.New("the reader gave no derivation")
	}
	// The reader's word is not believed: package confine has printed what it reported and found the very bytes of the item.
	name := strings.TrimSuffix(t.path.Name(), ".drv")
	want, err := d.Path(name)
	if err != nil {
		return trust.Refuse("derivation-invalid", t.it.Name, "%v", err)
	}
	if want != t.path {
		return trust.Refuse("item-path", t.it.Name, "this derivation's store path is %s", want)
	}
	t.j.drvs[want.String()] = &drv{t.it, want, d}
	return nil
}

// restart replaces the reader child.
func (j *intake) restart(ctx context.Context) error {
	err := j.child.Close()
	child, startErr := confine.Start(ctx, j.g.Reader)
	if startErr != nil {
		return errors.Join(err, startErr)
	}
	j.child = child
	return nil
}

// derivations recomputes every output path, and demands that what a derivation needs is offered or allowed.
func (j *intake) derivations(ctx context.Context, m *shipment.Manifest) error {
	offered := map[string]bool{}
	for _, it := range m.Items {
		offered[it.Name] = true
	}
	lookup := func(path string) (*derivation.Derivation, error) {
		if d := j.drvs[path]; d != nil {
			return d.d, nil
		}
		return j.g.allowedDerivation(ctx, path)
	}
	h := derivation.NewHasher(lookup)
	var rs trust.Refusals
	for _, it := range m.Items {
		if it.Kind != trust.KindDerivation {
			continue
		}
		d := j.drvs[storepath.Dir+"/"+it.Name]
		if d == nil {
			continue // refused already
		}
		refs, err := d.d.References()
		if err != nil {
			rs.Add(trust.Refuse("derivation-invalid", it.Name, "%v", err))
			continue
		}
		missing := false
		for _, ref := range refs {
			ok, err := offered[ref.Base()], error(nil)
			if !ok {
				ok, err = j.g.admitted(ctx, ref.Base())
			}
			if err != nil {
				return err
			}
			if !ok {
				missing = true
				rs.Add(trust.Refuse("input-missing", it.Name, "it needs %s, which is neither on this volume nor was allowed before", ref.Base()))
			}
		}
		if missing {
			continue
		}
		if _, err := h.Verify(d.path, d.d.Bytes()); err != nil {
			rs.Add(trust.Refuse("derivation-outputs", it.Name, "%v", err))
		}
	}
	return rs.Err()
}

// admitted reports whether an item of this name came with a shipment that was not rejected.
func (g *Gate) admitted(ctx context.Context, name string) (bool, error) {
	var n int
	err := g.Zone.Read(ctx).QueryRowContext(ctx, `SELECT count(*) FROM item JOIN shipment_item USING (sha256) JOIN shipment USING (number)
		WHERE item.name = ? AND shipment.state IN ('quarantined', 'admitted')`, name).Scan(&n)
	return n > 0, err
}

// allowedDerivation reads a derivation that came before. The gate judged it then, so it is parsed here.
func (g *Gate) allowedDerivation(ctx context.Context, path string) (*derivation.Derivation, error) {
	p, err := storepath.Parse(path)
	if err != nil {
		return nil, err
	}
	var digest string
	if err := g.Zone.Read(ctx).QueryRowContext(ctx, `SELECT sha256 FROM item WHERE name = ? AND kind = 'derivation'`, p.Base()).Scan(&digest); err != nil {
		return nil, fmt.Errorf("derivation %s: %w", path, err)
	}
	d, err := trust.ParseDigest(digest)
	if err != nil {
		return nil, err
	}
	r, err := g.Zone.CAS.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		return nil, err
	}
	return derivation.Parse(b.Bytes())
}

// quarantine is the write that makes it true.
func (g *Gate) quarantine(ctx context.Context, q *Quarantined) error {
	m := q.verified.Manifest
	if err := g.Zone.CAS.Put(bytes.NewReader(q.verified.File), q.Manifest, int64(len(q.verified.File))); err != nil {
		return err
	}
	now := trust.FormatDate(g.Clock())
	subjects := []trust.Subject{{Name: fmt.Sprintf("shipment %d", m.Number), SHA256: q.Manifest}}
	imported, err := trust.SignStatement(g.Importer, trust.Statement{Kind: "imported", Subjects: subjects, Predicate: map[string]any{
		"time": now, "zone": g.Zone.Origin(), "shipment": m.Number, "items": int64(q.Items), "bytes": q.Bytes, "person": g.Importer.Person(),
	}})
	if err != nil {
		return err
	}
	findings := map[string]any{}
	for severity, n := range q.Findings {
		findings[severity] = n
	}
	return g.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement("inspected", subjects, map[string]any{"files": q.Files, "bytes": q.Bytes, "findings": findings, "confinement": q.Confined}); err != nil {
			return err
		}
		if _, err := tx.Append(imported); err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'quarantined', ?, ?, ?, ?)`,
			m.Number, q.Manifest.String(), g.Importer.Person(), now, q.Items, q.Bytes); err != nil {
			return err
		}
		for _, it := range m.Items {
			if err := tx.Exec(ctx, `INSERT OR IGNORE INTO item (sha256, size, kind, name, added) VALUES (?, ?, ?, ?, ?)`,
				it.SHA256.String(), it.Size, string(it.Kind), it.Name, now); err != nil {
				return err
			}
			if err := tx.Exec(ctx, `INSERT INTO shipment_item (number, sha256) VALUES (?, ?)`, m.Number, it.SHA256.String()); err != nil {
				return err
			}
		}
		for _, f := range q.Details {
			if err := tx.Exec(ctx, `INSERT INTO finding (number, item, severity, rule, place, count, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				m.Number, f.Item, f.Severity, f.Rule, f.Place, f.Count, f.Detail); err != nil {
				return err
			}
		}
		return nil
	})
}

// discard removes the blobs that a refused volume brought.
func (j *intake) discard() error {
	var errs []error
	for d := range j.added {
		errs = append(errs, j.g.Zone.CAS.Remove(d))
	}
	return errors.Join(errs...)
}
