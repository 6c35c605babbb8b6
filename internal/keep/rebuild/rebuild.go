// Package rebuild makes the rows of a zone's catalog again: from the published
// ledger, the documents beside it, and the blobs.
//
// The catalog decides nothing, and what it says follows from what others can
// see. That is what this package shows; and whoever has lost the catalog, or has reason
// not to trust it, gets it back. How the new one takes its place is [store.Replace].
//
//	table                from
//	entry, checkpoint    the published tiles; of the checkpoints, the published one
//	root, orders         the entries "root", "ordered", and public/root/N, public/orders/N
//	allowlist            the entries "allowed", and public/allowlist/TRACK/N
//	public               the same
//	setting              the digest of root 1; "key-changed"; where the entries "imported" and "submitted" stand
//	shipment             "imported" and "shipped", the manifest's blob; "submitted"; "allowed", "rejected" and "declined"
//	item, shipment_item  the manifests; "submitted"
//	finding              the blob that "inspected" names
//	collected            the blob that "collected" names
//	pin, excuse          the blob that "pinned" names; "excused"
//	attachment           "inspected", "collected", "pinned", "signed", "checked"
//	proposal             "approved", until "allowed", "rejected", "declined" or a "refused" that says withdrawn
//	proposal_signature   the same
//	narinfo              the blob that "signed" names
//	built, agreed        "built", "agreed", "disagreed"
//	witness              public/witness/NAME
//
// # What does not come back
//
// Former checkpoints, but for the published one: each was signed once, the
// witnesses and auditors have theirs, and nothing reads them. In which
// of the outside's shipments the volume was written: a number is never used for two
// manifests, so the newest counts as numbered, and the next `shipment create` writes the
// same volume once more.
//
// # What is believed
//
// The ledger is verified as a whole before. A document must have the digest that
// its entry has, and roots must follow one another; a blob is what its digest says.
// Who signed an entry is not asked: the catalog gives nobody authority.
//
// All that is missing or wrong is listed at once: rebuild-missing, rebuild-digest,
// rebuild-entry.
package rebuild

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"sallyport/guix/narinfo"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/store/cas"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Run replaces the catalog of the zone in dir.
func Run(ctx context.Context, dir string, opts store.ReplaceOptions) (*store.Replaced, error) {
	return store.Replace(ctx, dir, opts, Fill)
}

// Fill makes the rows of a new catalog.
func Fill(ctx context.Context, r *store.Replacement) error {
	p := &replay{r: r, reports: map[trust.Digest]trust.Digest{}}
	err := r.Entries(ctx, func(index int64, leaf []byte) error {
		e, err := statement.ParseEnvelope(leaf)
		if err != nil {
			p.refuse("rebuild-entry", index, "it is no statement: %v", err)
			return nil
		}
		s := e.Unverified()
		err = p.entry(ctx, index, leaf, e.KeyID(), &s)
		if rs, ok := trust.AsRefusals(err); ok && !p.bad.Full() {
			return p.bad.Merge(rs)
		}
		return err
	})
	if err == nil {
		err = p.end(ctx)
	}
	if err := p.bad.Merge(err); err != nil {
		return err
	}
	return p.bad.Err()
}

// A replay goes through the ledger.
type replay struct {
	r       *store.Replacement
	bad     trust.Refusals
	reports map[trust.Digest]trust.Digest // findings, by the manifest
	deed    string                        // the published file of the deed whose entries are being read
	version int64                         // of that document
	roots   [][]byte
	gap     bool  // a root is missing
	shipped int64 // the newest number, outside
}

func (p *replay) refuse(code string, index int64, format string, args ...any) {
	p.bad.Add(trust.Refuse(code, fmt.Sprintf("entry %d", index), format, args...))
}

// number and text read members whose form was checked when the statement was taken apart.
func number(s *statement.Statement, name string) int64 {
	n, _ := s.Predicate[name].(int64)
	return n
}

func text(s *statement.Statement, name string) string {
	t, _ := s.Predicate[name].(string)
	return t
}

// arrival is the shipment, or below zero the submission, that an entry is about; 0 for none.
func arrival(s *statement.Statement) int64 { return number(s, "shipment") - number(s, "submission") }

// optional reads a member that the kind need not have, a digest.
func optional(s *statement.Statement, name string) (trust.Digest, bool) {
	d, err := trust.ParseDigest(text(s, name))
	return d, err == nil
}

func (p *replay) entry(ctx context.Context, index int64, leaf []byte, keyID string, s *statement.Statement) error {
	digest := s.Subjects[0].SHA256
	// The files of a deed are published with the last of its entries: what follows from orders, and from a promotion, belongs to them.
	switch {
	case p.deed != "" && number(s, "version") == p.version && slices.Contains([]string{statement.KindRecalled, statement.KindRestored, statement.KindReleased, statement.KindKeyChanged}, s.Kind):
		if err := p.r.Exec(ctx, "UPDATE public SET size = ? WHERE path = ?", index+1, p.deed); err != nil {
			return err
		}
	default:
		p.deed = ""
	}
	switch s.Kind {
	case statement.KindRoot:
		return p.root(ctx, index, digest, number(s, "version"))
	case statement.KindOrdered:
		return p.orders(ctx, index, digest, number(s, "version"))
	case statement.KindApproved:
		return p.approved(ctx, digest, s)
	case statement.KindAllowed:
		return p.allowed(ctx, index, digest, s)
	case statement.KindRefused:
		return p.withdrawn(ctx, digest, s)
	case statement.KindChecked:
		report, err := trust.ParseDigest(text(s, "report"))
		if err != nil {
			return err // its form was checked
		}
		return p.attachment(ctx, report, index)
	case statement.KindRejected:
		return p.rejected(ctx, number(s, "shipment"))
	case statement.KindDeclined:
		return p.rejected(ctx, -number(s, "submission"))
	case statement.KindInspected:
		report, ok := optional(s, "report")
		if !ok {
			return nil
		}
		p.reports[digest] = report
		return p.attachment(ctx, report, index)
	case statement.KindKeyChanged:
		return store.KeepKeyChange(ctx, p.r, s, index)
	case statement.KindImported:
		return p.imported(ctx, index, digest, s)
	case statement.KindSubmitted:
		return p.submitted(ctx, index, s)
	case statement.KindCollected:
		return p.collected(ctx, index, digest, s)
	case statement.KindPinned:
		return p.pinned(ctx, index, digest, s)
	case statement.KindExcused:
		return p.r.Exec(ctx, `INSERT OR REPLACE INTO excuse (name, code, channel, about, key, until, person, reason, added) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			text(s, "name"), text(s, "code"), text(s, "channel"), text(s, "commit"), text(s, "key"), text(s, "until"), text(s, "person"), text(s, "reason"), text(s, "time"))
	case statement.KindShipped:
		return p.shipment(ctx, index, digest, s)
	case statement.KindSigned:
		return p.signed(ctx, index, s)
	case statement.KindBuilt:
		drv, err := storepath.Parse(text(s, "derivation"))
		if err != nil {
			return err
		}
		return p.r.Exec(ctx, "INSERT INTO built (derivation, keyid, sha256, leaf, envelope) VALUES (?, ?, ?, ?, ?)", drv.Base(), keyID, trust.Sum(leaf).String(), index, leaf)
	case statement.KindAgreed:
		drv, err := storepath.Parse(text(s, "derivation"))
		if err != nil {
			return err
		}
		return p.r.Exec(ctx, "INSERT INTO agreed (derivation, leaf) VALUES (?, ?) ON CONFLICT (derivation) DO UPDATE SET leaf = excluded.leaf", drv.Base(), index)
	case statement.KindDisagreed:
		drv, err := storepath.Parse(s.Subjects[0].Name)
		if err != nil {
			p.refuse("rebuild-entry", index, "its subject is no derivation: %v", err)
			return nil
		}
		return p.r.Exec(ctx, "DELETE FROM agreed WHERE derivation = ?", drv.Base())
	}
	// The others say something and change no row.
	return nil
}

func rootPath(version int64) string   { return fmt.Sprintf("root/%d", version) }
func ordersPath(version int64) string { return fmt.Sprintf("orders/%d", version) }

// document reads a published note whose text must have a digest. nil means that it was refused.
func (p *replay) document(index int64, word, file string, digest trust.Digest, limit int) ([]byte, error) {
	note, err := readFile(p.r.Public, file, store.MaxPublic)
	if errors.Is(err, fs.ErrNotExist) {
		p.refuse("rebuild-missing", index, "public/%s is not there", file)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	body, _, err := trust.SplitNote(word, note, limit)
	if err != nil {
		return nil, err
	}
	if got := trust.Sum(body); got != digest {
		p.refuse("rebuild-digest", index, "public/%s has digest %s, the entry says %s", file, got, digest)
		return nil, nil
	}
	return note, nil
}

func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("public/%s: more than %d bytes", name, limit)
	}
	return b, err
}

// blob reads an attached blob. nil means that it was refused.
func (p *replay) blob(index int64, what string, d trust.Digest, limit int64) ([]byte, error) {
	b, err := p.r.CAS.ReadAll(d, limit)
	var rotten *cas.CorruptError
	switch {
	case errors.Is(err, cas.ErrNotFound):
		p.refuse("rebuild-missing", index, "the blob %s is not in the store: %s", d, what)
		return nil, nil
	case errors.As(err, &rotten):
		p.refuse("rebuild-digest", index, "%s: %v", what, err)
		return nil, nil
	}
	return b, err
}

func (p *replay) public(ctx context.Context, index int64, file string, data []byte, blob any) error {
	var inline any
	if blob == nil {
		inline = data
	}
	return p.r.Exec(ctx, "INSERT INTO public (path, size, data, blob) VALUES (?, ?, ?, ?)", file, index+1, inline, blob)
}

func (p *replay) attachment(ctx context.Context, d trust.Digest, index int64) error {
	if _, ok := p.r.CAS.Has(d); !ok {
		p.refuse("rebuild-missing", index, "the blob %s is not in the store", d)
	}
	return p.r.Exec(ctx, "INSERT INTO attachment (sha256, leaf) VALUES (?, ?) ON CONFLICT (sha256) DO NOTHING", d.String(), index)
}

func (p *replay) root(ctx context.Context, index int64, digest trust.Digest, version int64) error {
	note, err := p.document(index, "root", rootPath(version), digest, trust.MaxRootSize)
	if err != nil || note == nil {
		p.gap = true
		return err
	}
	p.roots = append(p.roots, note)
	p.deed, p.version = rootPath(version), version
	if version == 1 {
		if err := p.r.Exec(ctx, "INSERT INTO setting (name, value) VALUES (?, ?)", store.SettingPin, digest.String()); err != nil {
			return err
		}
	}
	return errors.Join(
		p.r.Exec(ctx, "INSERT INTO root (version, digest, note) VALUES (?, ?, ?)", version, digest.String(), note),
		p.public(ctx, index, rootPath(version), note, nil))
}

func (p *replay) orders(ctx context.Context, index int64, digest trust.Digest, version int64) error {
	note, err := p.document(index, "orders", ordersPath(version), digest, trust.MaxOrdersSize)
	if err != nil || note == nil {
		return err
	}
	p.deed, p.version = ordersPath(version), version
	return errors.Join(
		p.r.Exec(ctx, "INSERT INTO orders (version, digest, note) VALUES (?, ?, ?)", version, digest.String(), note),
		p.public(ctx, index, ordersPath(version), note, nil))
}

// approved is a reviewer's signature under a proposal, which may be a new one.
func (p *replay) approved(ctx context.Context, digest trust.Digest, s *statement.Statement) error {
	track := text(s, "track")
	var open string
	err := p.r.Read().QueryRowContext(ctx, "SELECT text FROM proposal WHERE track = ?", track).Scan(&open)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if open != digest.String() {
		n := arrival(s)
		shipment := sql.NullInt64{Int64: n, Valid: n != 0} // a promotion is of none
		if err := p.r.Exec(ctx, "DELETE FROM proposal_signature WHERE track = ?", track); err != nil {
			return err
		}
		if err := p.r.Exec(ctx, "INSERT OR REPLACE INTO proposal (track, version, shipment, text) VALUES (?, ?, ?, ?)", track, number(s, "version"), shipment, digest.String()); err != nil {
			return err
		}
	}
	return p.r.Exec(ctx, "INSERT OR REPLACE INTO proposal_signature (track, person, line) VALUES (?, ?, ?)", track, text(s, "person"), text(s, "signature"))
}

func (p *replay) allowed(ctx context.Context, index int64, digest trust.Digest, s *statement.Statement) error {
	track, version := text(s, "track"), number(s, "version")
	file := fmt.Sprintf("allowlist/%s/%d", track, version)
	note, err := p.document(index, "allowlist", file, digest, trust.MaxListSize)
	if err != nil || note == nil {
		return err
	}
	blob, err := p.r.CAS.PutBytes(note) // as a rule it is there
	if err != nil {
		return err
	}
	p.deed, p.version = file, version
	// Of a shipment that was approved in parts something is left.
	if number(s, "left") == 0 {
		if err := p.r.Exec(ctx, "UPDATE shipment SET state = 'admitted' WHERE number = ?", arrival(s)); err != nil {
			return err
		}
	}
	return errors.Join(
		p.r.Exec(ctx, "INSERT INTO allowlist (track, version, digest, note) VALUES (?, ?, ?, ?)", track, version, digest.String(), blob.String()),
		p.r.Exec(ctx, "DELETE FROM proposal_signature WHERE track = ?", track),
		p.r.Exec(ctx, "DELETE FROM proposal WHERE track = ?", track),
		p.public(ctx, index, file, nil, blob.String()))
}

// withdrawn ends a proposal that a reviewer took back: a refusal with that code, of the text that waited.
func (p *replay) withdrawn(ctx context.Context, digest trust.Digest, s *statement.Statement) error {
	list, _ := s.Predicate["reasons"].([]any)
	for _, v := range list {
		if m, _ := v.(map[string]any); m["code"] == "withdrawn" {
			return errors.Join(
				p.r.Exec(ctx, "DELETE FROM proposal_signature WHERE track IN (SELECT track FROM proposal WHERE text = ?)", digest.String()),
				p.r.Exec(ctx, "DELETE FROM proposal WHERE text = ?", digest.String()))
		}
	}
	return nil
}

func (p *replay) rejected(ctx context.Context, shipment int64) error {
	return errors.Join(
		p.r.Exec(ctx, "UPDATE shipment SET state = 'rejected' WHERE number = ?", shipment),
		p.r.Exec(ctx, "DELETE FROM proposal_signature WHERE track IN (SELECT track FROM proposal WHERE shipment = ?)", shipment),
		p.r.Exec(ctx, "DELETE FROM proposal WHERE shipment = ?", shipment))
}

// manifest reads the manifest of a shipment. nil means that it was refused.
// That it was let in is in the ledger; who signed it is not asked again.
func (p *replay) manifest(index int64, digest trust.Digest) (*shipment.Manifest, error) {
	file, err := p.blob(index, "a manifest", digest, shipment.MaxManifest)
	if err != nil || file == nil {
		return nil, err
	}
	body, _, err := trust.SplitNote("manifest", file, shipment.MaxManifest)
	if err != nil {
		return nil, err
	}
	return shipment.ParseManifest(body)
}

func (p *replay) imported(ctx context.Context, index int64, digest trust.Digest, s *statement.Statement) error {
	n := number(s, "shipment")
	m, err := p.manifest(index, digest)
	if err != nil || m == nil {
		return err
	}
	return p.arrived(ctx, index, n, digest, m.Items, s, number(s, "bytes"))
}

// submitted is an arrival without a manifest: the statement says all that one would.
func (p *replay) submitted(ctx context.Context, index int64, s *statement.Statement) error {
	said, err := s.Submission()
	if err != nil {
		return err // its form was checked
	}
	if _, ok := p.r.CAS.Has(said.Item.SHA256); !ok {
		p.refuse("rebuild-missing", index, "the blob %s is not in the store: what was submitted", said.Item.SHA256)
		return nil
	}
	return p.arrived(ctx, index, -said.Number, said.Item.SHA256, []trust.Item{said.Item}, s, said.Item.Size)
}

// arrived makes the rows of a shipment, or below zero of a submission.
func (p *replay) arrived(ctx context.Context, index, n int64, digest trust.Digest, items []trust.Item, s *statement.Statement, bytes int64) error {
	date := text(s, "time")
	if err := errors.Join(
		p.r.Exec(ctx, "INSERT OR REPLACE INTO setting (name, value) VALUES (?, ?)", admit.ImportedHint(n), strconv.FormatInt(index, 10)),
		p.r.Exec(ctx, "INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'quarantined', ?, ?, ?, ?)",
			n, digest.String(), text(s, "person"), date, len(items), bytes)); err != nil {
		return err
	}
	for _, it := range items {
		if err := p.r.Exec(ctx, "INSERT OR IGNORE INTO item (sha256, size, kind, name, added) VALUES (?, ?, ?, ?, ?)", it.SHA256.String(), it.Size, it.Kind, it.Name, date); err != nil {
			return err
		}
	}
	if err := p.itemsOf(ctx, n, items); err != nil {
		return err
	}
	report, ok := p.reports[digest]
	if !ok {
		return nil
	}
	delete(p.reports, digest)
	data, err := p.blob(index, "what inspection found", report, attach.MaxSize)
	if err != nil || data == nil {
		return err
	}
	list, err := attach.ParseFindings(data)
	if err != nil {
		return err
	}
	for _, f := range list {
		if err := p.r.Exec(ctx, "INSERT INTO finding (number, item, severity, rule, place, count, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
			n, f.Item, f.Severity, f.Rule, f.Place, f.Count, f.Detail); err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) itemsOf(ctx context.Context, n int64, items []trust.Item) error {
	for _, it := range items {
		if err := p.r.Exec(ctx, "INSERT OR IGNORE INTO shipment_item (number, sha256, name) VALUES (?, ?, ?)", n, it.SHA256.String(), it.Name); err != nil {
			return err
		}
	}
	return nil
}

func (p *replay) collected(ctx context.Context, index int64, digest trust.Digest, s *statement.Statement) error {
	if err := p.attachment(ctx, digest, index); err != nil {
		return err
	}
	data, err := p.blob(index, "a list of items", digest, trust.MaxListSize)
	if err != nil || data == nil {
		return err
	}
	request, date := text(s, "request"), text(s, "time")
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "item ")
		it, err := trust.ParseItem(text)
		if !ok || err != nil {
			p.refuse("rebuild-digest", index, "the list of items has the line %.200q", line)
			return nil
		}
		if err := p.r.Exec(ctx, `INSERT INTO collected (sha256, size, kind, name, request, added) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (sha256, name) DO UPDATE SET request = excluded.request, added = excluded.added`,
			it.SHA256.String(), it.Size, it.Kind, it.Name, request, date); err != nil {
			return err
		}
	}
	return nil
}

// pinned is a channel's next pin.
func (p *replay) pinned(ctx context.Context, index int64, digest trust.Digest, s *statement.Statement) error {
	if err := p.attachment(ctx, digest, index); err != nil {
		return err
	}
	data, err := p.blob(index, "a pin", digest, pin.MaxPin)
	if err != nil || data == nil {
		return err
	}
	if _, err := pin.Parse(data); err != nil {
		p.refuse("rebuild-digest", index, "its blob is no pin: %v", err)
		return nil
	}
	return p.r.Exec(ctx, `INSERT INTO pin (channel, number, digest, text, added) SELECT ?1, 1 + coalesce(max(number), 0), ?2, ?3, ?4 FROM pin WHERE channel = ?1`,
		text(s, "channel"), digest.String(), data, text(s, "time"))
}

// shipment is one that this zone, an outside, has numbered.
func (p *replay) shipment(ctx context.Context, index int64, digest trust.Digest, s *statement.Statement) error {
	m, err := p.manifest(index, digest)
	if err != nil || m == nil {
		return err
	}
	n := number(s, "shipment")
	p.shipped = max(p.shipped, n)
	return errors.Join(
		p.r.Exec(ctx, "INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'written', '', ?, ?, ?)",
			n, digest.String(), trust.FormatDate(m.Date), number(s, "items"), number(s, "bytes")),
		p.itemsOf(ctx, n, m.Items))
}

func (p *replay) signed(ctx context.Context, index int64, s *statement.Statement) error {
	bodies, ok := optional(s, "narinfos")
	if !ok {
		p.refuse("rebuild-missing", index, "it does not say where the narinfos are that were signed")
		return nil
	}
	if err := p.attachment(ctx, bodies, index); err != nil {
		return err
	}
	data, err := p.blob(index, "signed narinfos", bodies, attach.MaxSize)
	if err != nil || data == nil {
		return err
	}
	list, err := attach.ParseNarinfos(data)
	if err != nil {
		return err
	}
	named := map[string]trust.Digest{}
	for _, sub := range s.Subjects {
		named[sub.Name] = sub.SHA256
	}
	if len(list) != len(named) {
		p.refuse("rebuild-digest", index, "it names %d narinfos, there are %d", len(named), len(list))
		return nil
	}
	for _, n := range list {
		if named[n.Path.Base()] != trust.Sum(n.Body) {
			p.refuse("rebuild-digest", index, "the narinfo of %s is not the one that the entry names", n.Path.Base())
			continue
		}
		info, err := narinfo.Parse(n.Body)
		if err != nil {
			p.refuse("rebuild-digest", index, "the narinfo of %s: %v", n.Path.Base(), err)
			continue
		}
		if err := p.r.Exec(ctx, "INSERT OR REPLACE INTO narinfo (track, hash, path, body, nar, blob, form) VALUES (?, ?, ?, ?, ?, ?, ?)",
			text(s, "track"), n.Path.Hash(), n.Path.String(), n.Body, trust.Digest(info.NarHash).String(), n.Content.String(), n.Form); err != nil {
			return err
		}
	}
	return nil
}

// end does what is not in the order of the ledger.
func (p *replay) end(ctx context.Context) error {
	// The last one may not have been written: it is, then, once more.
	if err := p.r.Exec(ctx, "UPDATE shipment SET state = 'numbered' WHERE number = ? AND state = 'written'", p.shipped); err != nil {
		return err
	}
	if len(p.roots) > 0 && !p.gap {
		body, _, err := trust.SplitNote("root", p.roots[0], trust.MaxRootSize)
		if err != nil {
			return err
		}
		if _, err := trust.OpenChain(p.roots, trust.Sum(body)); err != nil {
			return err
		}
	}
	return p.witnesses(ctx)
}

// witnesses takes what witnesses have cosigned. The published ledger must contain it: else it is not the one that they saw.
func (p *replay) witnesses(ctx context.Context) error {
	files, err := fs.ReadDir(p.r.Public, "witness")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	tiles, err := fs.Sub(p.r.Public, "ledger")
	if err != nil {
		return err
	}
	log := ledger.NewLog(tiles, p.r.At)
	for _, f := range files {
		file := path.Join("witness", f.Name())
		note, err := readFile(p.r.Public, file, ledger.MaxCheckpoint)
		if err != nil {
			return err
		}
		// By the ledger's own line: the witness's was checked when it came.
		c, err := p.r.Open(note)
		if err == nil {
			err = log.Contains(c)
		}
		if err != nil {
			if rest := p.bad.Merge(err); rest != nil {
				return rest
			}
			continue
		}
		if err := p.r.Exec(ctx, "INSERT INTO witness (name, size, note) VALUES (?, ?, ?)", f.Name(), c.Size, bytes.Clone(note)); err != nil {
			return err
		}
	}
	return nil
}
