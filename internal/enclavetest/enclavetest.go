// Package enclavetest makes small, real enclaves for the tests of the rooms inside: a zone in a directory of the test, keys of everybody, a root, volumes. Stages do
// not import each other, in tests neither; so what a stage finds when it begins, left there by the stages before it, is made here with the same
// rows, statements and blobs.
//
// Persons: olga is officer, carol collector, dave and eve are importers, alice, bob, rita and dave reviewers, erin, frank and greg builders. dave has both
// roles, as in a small enclave. mallory has keys of every kind, and none is in the root. The tracks are dev and prod, with a threshold of two.
package enclavetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Name is every enclave's.
const Name = "keep"

// Epoch is when every enclave begins.
var Epoch = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// stream is a source of bytes that are the same in every run.
type stream struct {
	name string
	n    uint64
	rest []byte
}

func (s *stream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(s.rest) == 0 {
			s.n++
			h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.name), s.n))
			s.rest = h[:]
		}
		m := copy(p[n:], s.rest)
		s.rest = s.rest[m:]
		n += m
	}
	return len(p), nil
}

// Key makes the key of a name, such as alice/allowlist; the same in every run. NAME#2 is another key of the same name.
func Key(t testing.TB, name string) *trust.Key {
	t.Helper()
	plain, _, _ := strings.Cut(name, "#")
	k, err := trust.GenerateKey(&stream{name: "TEST-ONLY enclave " + name}, plain)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TrackKey makes the Guix key of a track.
func TrackKey(t testing.TB, track string) signature.SecretKey {
	t.Helper()
	k, err := signature.GenerateKey(&stream{name: "TEST-ONLY track " + track})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// An Enclave is an inside zone with its root in force.
type Enclave struct {
	T    testing.TB
	Zone *store.Zone
	Root *trust.Root
	Log  *Log

	mu        sync.Mutex
	now       time.Time
	shipment  int64
	submitted int64 // how many
	previous  trust.Digest
}

// New makes an enclave.
func New(t testing.TB) *Enclave {
	t.Helper()
	e := &Enclave{T: t, now: Epoch, Log: &Log{}}
	dir := filepath.Join(t.TempDir(), "inside")
	cfg, err := store.NewConfig(store.Inside, Name)
	e.must(err)
	cfg.Space.Reserve = 0
	e.must(store.Init(dir, cfg, e.Clock, &stream{name: "zone"}))
	e.Open(dir)
	root := &trust.Root{Enclave: Name, Version: 1, Date: Epoch, Thresholds: map[string]int{"root": 1, "order": 1}, Policies: map[string]string{trust.PolicyQuorum: "2"}}
	for _, track := range []string{"dev", "prod"} {
		root.SetThreshold(track, 2)
		q := TrackKey(t, track).Public().Q()
		root.Keys = append(root.Keys, trust.RootKey{Context: trust.ContextNarinfo, Owner: track, Key: hex.EncodeToString(q[:])})
	}
	for _, name := range []string{
		"olga/root", "olga/order", "carol/manifest", "carol/sums", "dave/statement", "eve/statement", "dave/allowlist", "alice/allowlist", "bob/allowlist", "rita/allowlist",
		"erin/statement", "frank/statement", "greg/statement",
	} {
		root.Keys = append(root.Keys, Key(t, name).RootKey())
	}
	for role, persons := range map[trust.Role]string{
		trust.RoleOfficer: "olga", trust.RoleCollector: "carol", trust.RoleImporter: "dave eve", trust.RoleReviewer: "dave alice bob rita", trust.RoleBuilder: "erin frank greg",
		trust.RoleStation: trust.Station,
	} {
		for p := range strings.FieldsSeq(persons) {
			root.Roles = append(root.Roles, trust.RoleLine{Role: role, Person: p})
		}
	}
	root.Keys = append(root.Keys,
		trust.RootKey{Context: trust.ContextStatement, Owner: trust.Station, Key: e.Zone.StationVKey().String()},
		trust.RootKey{Context: trust.ContextCheckpoint, Owner: trust.Station, Key: e.Zone.LedgerVKey().String()})
	e.setRoot(root, trust.Sum(root.Text()))
	return e
}

// Outside makes and opens the zone of an outside.
func Outside(t testing.TB, clock func() time.Time) *store.Zone {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "outside")
	cfg, err := store.NewConfig(store.Outside, Name)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Space.Reserve = 0
	if err := store.Init(dir, cfg, clock, &stream{name: "outside"}); err != nil {
		t.Fatal(err)
	}
	z, err := store.Open(context.Background(), dir, store.Options{Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { z.Close() })
	return z
}

// Open opens the zone, again if it is open.
func (e *Enclave) Open(dir string) {
	e.T.Helper()
	z, err := store.Open(context.Background(), dir, store.Options{Clock: e.Clock, Log: e.Log.Logger()})
	e.must(err)
	e.Zone = z
	e.T.Cleanup(func() { z.Close() })
}

func (e *Enclave) must(err error) {
	e.T.Helper()
	if err != nil {
		e.T.Fatal(err)
	}
}

// Clock is the enclave's: a second later each time somebody looks.
func (e *Enclave) Clock() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = e.now.Add(time.Second)
	return e.now
}

// Sleep sets the clock forward, or back.
func (e *Enclave) Sleep(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.now = e.now.Add(d)
}

// Pin is the digest of the first root.
func (e *Enclave) Pin() trust.Digest {
	e.T.Helper()
	note, err := e.Zone.ReadPublic("root/1")
	e.must(err)
	text, _, err := trust.SplitNote("root", note, trust.MaxRootSize)
	e.must(err)
	return trust.Sum(text)
}

func (e *Enclave) setRoot(r *trust.Root, pin trust.Pinned) {
	e.T.Helper()
	note, err := trust.SignNote(r.Text(), Key(e.T, "olga/root"))
	e.must(err)
	e.Root, err = e.Zone.SetRoot(context.Background(), note, pin)
	e.must(err)
}

// NextRoot puts the next version of the root in force.
func (e *Enclave) NextRoot(change func(r *trust.Root)) {
	e.T.Helper()
	next, err := trust.ParseRoot(e.Root.Text())
	e.must(err)
	next.Version, next.Previous = e.Root.Version+1, e.Root.Digest()
	if change != nil {
		change(next)
	}
	e.setRoot(next, nil)
}

// Renew gives the zone another key, of its ledger (context checkpoint) or its station (statement), by the next root.
func (e *Enclave) Renew(of trust.Context) {
	e.T.Helper()
	now, next, _, err := e.Zone.RenewKey(context.Background(), of, rand.Reader)
	e.must(err)
	e.NextRoot(func(r *trust.Root) {
		r.Keys = append(slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Line() == now.Line() }), next)
	})
}

// Order puts the next orders in force.
func (e *Enclave) Order(change func(o *trust.Orders)) *trust.Orders {
	e.T.Helper()
	last, err := e.Zone.LastOrders(context.Background())
	e.must(err)
	o := &trust.Orders{Enclave: Name, Version: 1, Date: e.Clock(), Root: e.Root.Version}
	if last != nil {
		*o = trust.Orders{Enclave: Name, Version: last.Version + 1, Date: e.Clock(), Root: e.Root.Version, Previous: last.Digest(), BreakGlass: last.BreakGlass,
			Lost: last.Lost, Recalls: last.Recalls, Restored: last.Restored, Settled: last.Settled, Downgrades: last.Downgrades,
			Channels: last.Channels, Excuses: last.Excuses}
	}
	change(o)
	note, err := trust.SignNote(o.Text(), Key(e.T, "olga/order"))
	e.must(err)
	o, err = e.Zone.SetOrders(context.Background(), note)
	e.must(err)
	return o
}

// Without takes a person's key in a context out of a root.
func Without(person string, context trust.Context) func(r *trust.Root) {
	return func(r *trust.Root) {
		r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Owner == person && k.Context == context })
	}
}

// A Content is an item with its bytes.
type Content struct {
	trust.Item
	Data []byte
	Drv  *derivation.Derivation // of a derivation

	below map[string]*derivation.Derivation // what it stands on
}

// Path is its store path.
func (c Content) Path() string { return storepath.Dir + "/" + c.Name }

// Output is the store path of a derivation's output.
func (c Content) Output(id string) string {
	i := slices.IndexFunc(c.Drv.Outputs, func(o derivation.Output) bool { return o.ID == id })
	return c.Drv.Outputs[i].Path
}

// Nar is the archive of one file.
func Nar(content string) []byte {
	var b bytes.Buffer
	nar.WriteFile(&b, int64(len(content)), false, strings.NewReader(content))
	return b.Bytes()
}

// Source makes a source: a file with this content.
func (e *Enclave) Source(name, content string) Content {
	e.T.Helper()
	return e.SourceOf(name, Nar(content))
}

// SourceOf makes a source of an archive.
func (e *Enclave) SourceOf(name string, data []byte) Content {
	e.T.Helper()
	p, err := storepath.Source(name, sha256.Sum256(data))
	e.must(err)
	return Content{Item: trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Kind: trust.KindSource, Name: p.Base()}, Data: data}
}

// Derivation makes one with the given inputs: sources, and the output "out" of derivations.
func (e *Enclave) Derivation(name string, inputs ...Content) Content {
	e.T.Helper()
	d := &derivation.Derivation{System: "x86_64-linux", Builder: "/bin/sh", Outputs: []derivation.Output{{ID: "out"}}, Env: []derivation.Variable{{Name: "name", Value: name}, {Name: "out"}}}
	return e.Derive(name, d, inputs...)
}

// Derive is Derivation with all but the inputs given. Of an input, {NAME} in builder and arguments is the path: of a source, or of the output "out".
func (e *Enclave) Derive(name string, d *derivation.Derivation, inputs ...Content) Content {
	e.T.Helper()
	drvs := map[string]*derivation.Derivation{}
	for _, in := range inputs {
		p := in.Path()
		if in.Kind == trust.KindDerivation {
			p = in.Output("out")
		}
		_, label, _ := strings.Cut(strings.TrimSuffix(in.Name, ".drv"), "-")
		d.Builder = strings.ReplaceAll(d.Builder, "{"+label+"}", p)
		for i := range d.Args {
			d.Args[i] = strings.ReplaceAll(d.Args[i], "{"+label+"}", p)
		}
		if in.Kind == trust.KindSource {
			d.Sources = append(d.Sources, in.Path())
			continue
		}
		drvs[in.Path()] = in.Drv
		maps.Copy(drvs, in.below)
		d.Inputs = append(d.Inputs, derivation.Input{Path: in.Path(), Outputs: []string{"out"}})
	}
	slices.Sort(d.Sources)
	slices.SortFunc(d.Inputs, func(a, b derivation.Input) int { return strings.Compare(a.Path, b.Path) })
	lookup := func(p string) (*derivation.Derivation, error) { return drvs[p], nil }
	e.must(derivation.NewHasher(lookup).Fill(name, d))
	c := e.DerivationOf(name, d)
	c.below = drvs
	return c
}

// DerivationOf makes the item of a derivation as it is, true or not.
func (e *Enclave) DerivationOf(name string, d *derivation.Derivation) Content {
	e.T.Helper()
	p, err := d.Path(name)
	e.must(err)
	data := d.Bytes()
	return Content{Item: trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Kind: trust.KindDerivation, Name: p.Base()}, Data: data, Drv: d}
}

// Items are the items of contents, sorted.
func Items(contents ...Content) []trust.Item {
	var items []trust.Item
	for _, c := range contents {
		items = append(items, c.Item)
	}
	trust.SortItems(items)
	return items
}

// A Volume is a shipment on its way in.
type Volume struct {
	Dir      string
	Slip     *shipment.Slip
	Manifest *shipment.Manifest
	File     []byte
}

// Root opens the volume.
func (v *Volume) Root(t testing.TB) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(v.Dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Manifest makes the manifest of the next shipment, behind the one before.
func (e *Enclave) Manifest(contents ...Content) *shipment.Manifest {
	e.shipment++
	return &shipment.Manifest{Enclave: Name, Number: e.shipment, Date: Epoch, Previous: e.previous, Items: Items(contents...)}
}

// Ship writes a volume of a manifest, signed by carol or whoever is named.
func (e *Enclave) Ship(m *shipment.Manifest, person string, contents ...Content) *Volume {
	e.T.Helper()
	file, err := m.Sign(Key(e.T, person+"/manifest"))
	e.must(err)
	e.previous = trust.Sum(file)
	v := &Volume{Dir: filepath.Join(e.T.TempDir(), "volume"), Slip: shipment.NewSlip(m, file), Manifest: m, File: file}
	data := map[trust.Digest][]byte{}
	for _, c := range contents {
		data[c.SHA256] = c.Data
	}
	open := func(it trust.Item) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data[it.SHA256])), nil }
	e.must(shipment.Write(e.T.Context(), v.Dir, m, file, open, Key(e.T, person+"/sums"), nil))
	return v
}

// Volume makes the next shipment and its volume, by carol.
func (e *Enclave) Volume(contents ...Content) *Volume {
	e.T.Helper()
	return e.Ship(e.Manifest(contents...), "carol", contents...)
}

// Quarantine leaves the next shipment behind as the gate does, and returns its number.
func (e *Enclave) Quarantine(importer string, contents ...Content) int64 {
	e.T.Helper()
	return e.QuarantineWith(importer, nil, contents...)
}

// QuarantineWith is Quarantine of what the inspection found something in.
func (e *Enclave) QuarantineWith(importer string, findings []attach.Finding, contents ...Content) int64 {
	e.T.Helper()
	report, err := attach.Findings(findings)
	e.must(err)
	e.Put(report)
	m := e.Manifest(contents...)
	file, err := m.Sign(Key(e.T, "carol/manifest"))
	e.must(err)
	e.previous = trust.Sum(file)
	e.Put(file)
	for _, c := range contents {
		e.Put(c.Data)
	}
	subject := statement.Subject{Name: statement.Arrived(m.Number), SHA256: trust.Sum(file)}
	e.arrive(m.Number, subject, m.Items, trust.Sum(report), importer, statement.Statement{Kind: statement.KindImported, Subjects: []statement.Subject{subject}, Predicate: map[string]any{
		"shipment": m.Number, "items": int64(len(m.Items)), "bytes": m.Bytes(), "person": importer}})
	return m.Number
}

// Submit puts a channel's item in quarantine as a submission, as the gate does. It returns the number that the catalog has: below zero.
func (e *Enclave) Submit(person string, c Content, commit, basis string) int64 {
	e.T.Helper()
	report, err := attach.Findings(nil)
	e.must(err)
	e.Put(report)
	e.Put(c.Data)
	e.submitted++
	said := statement.Submission{Number: e.submitted, Item: c.Item, Commit: commit, Basis: basis, Person: person}
	e.arrive(-e.submitted, statement.Subject{Name: statement.Arrived(-e.submitted), SHA256: c.SHA256}, []trust.Item{c.Item}, trust.Sum(report), person, said.Statement())
	return -e.submitted
}

// arrive writes what the gate does of an arrival.
func (e *Enclave) arrive(number int64, subject statement.Subject, items []trust.Item, report trust.Digest, person string, says statement.Statement) {
	e.T.Helper()
	ctx := context.Background()
	now := trust.FormatDate(e.Clock())
	says.Predicate["time"], says.Predicate["zone"] = now, e.Zone.Origin()
	signed, err := statement.Sign(Key(e.T, person+"/statement"), says)
	e.must(err)
	var bytes int64
	for _, it := range items {
		bytes += it.Size
	}
	e.Commit(func(tx *store.Tx) error {
		if err := tx.Statement(statement.KindInspected, []statement.Subject{subject}, map[string]any{"files": 1, "bytes": bytes, "findings": map[string]any{}, "confinement": map[string]any{},
			"report": report.String()}); err != nil {
			return err
		}
		if err := tx.Attach(ctx, report); err != nil {
			return err
		}
		leaf, err := tx.Append(signed)
		if err != nil {
			return err
		}
		err = errors.Join(
			tx.Exec(ctx, `INSERT INTO setting (name, value) VALUES (?, ?)`, admit.ImportedHint(number), strconv.FormatInt(leaf, 10)),
			tx.Exec(ctx, `INSERT INTO shipment (number, manifest, state, importer, date, items, bytes) VALUES (?, ?, 'quarantined', ?, ?, ?, ?)`,
				number, subject.SHA256.String(), person, now, len(items), bytes))
		for _, it := range items {
			err = errors.Join(err,
				tx.Exec(ctx, `INSERT OR IGNORE INTO item (sha256, size, kind, name, added) VALUES (?, ?, ?, ?, ?)`, it.SHA256.String(), it.Size, it.Kind, it.Name, now),
				tx.Exec(ctx, `INSERT OR IGNORE INTO shipment_item (number, sha256, name) VALUES (?, ?, ?)`, number, it.SHA256.String(), it.Name))
		}
		return err
	})
}

// Commit commits, or fails the test.
func (e *Enclave) Commit(fn func(tx *store.Tx) error) {
	e.T.Helper()
	e.must(e.Zone.Commit(context.Background(), fn))
}

// Put stores a blob.
func (e *Enclave) Put(data []byte) trust.Digest {
	e.T.Helper()
	d, err := e.Zone.CAS.PutBytes(data)
	e.must(err)
	return d
}

// List makes the allowlist that follows the one in force, with these items added.
func (e *Enclave) List(track string, contents ...Content) *trust.Allowlist {
	e.T.Helper()
	a := &trust.Allowlist{Enclave: Name, Track: track, Version: 1, Date: e.Clock(), Root: e.Root.Version, Items: Items(contents...)}
	note, err := e.Zone.Allowlist(context.Background(), track)
	e.must(err)
	if note != nil {
		text, _, err := trust.SplitNote("allowlist", note, trust.MaxListSize)
		e.must(err)
		before, err := trust.ParseAllowlist(text)
		e.must(err)
		a.Version, a.Previous, a.Items = before.Version+1, before.Digest(), append(a.Items, before.Items...)
		trust.SortItems(a.Items)
	}
	return a
}

// Allow puts the next allowlist in force as alice's and bob's reviews do, with the items of contents, whose bytes are stored.
func (e *Enclave) Allow(track string, contents ...Content) {
	e.T.Helper()
	for _, c := range contents {
		e.Put(c.Data)
	}
	e.Enter(e.List(track, contents...), true, "alice", "bob")
}

// Enter puts a list's rows there, with its entry in the ledger or without.
func (e *Enclave) Enter(a *trust.Allowlist, entry bool, persons ...string) {
	e.T.Helper()
	ctx := context.Background()
	var lines []string
	var names []any
	for _, p := range persons {
		line, err := trust.SignText(a.Text(), Key(e.T, p+"/allowlist"))
		e.must(err)
		lines, names = append(lines, line), append(names, p)
	}
	note := e.Put(trust.JoinNote(a.Text(), lines...))
	digest := trust.Sum(a.Text())
	e.Commit(func(tx *store.Tx) error {
		err := tx.Exec(ctx, `INSERT INTO allowlist (track, version, digest, note) VALUES (?, ?, ?, ?)`, a.Track, a.Version, digest.String(), note.String())
		if err != nil || !entry {
			return err
		}
		subjects := []statement.Subject{{Name: fmt.Sprintf("allowlist %s %d", a.Track, a.Version), SHA256: digest}}
		for i, p := range persons {
			err = errors.Join(err, tx.Statement(statement.KindApproved, subjects, map[string]any{"track": a.Track, "version": a.Version, "person": p, "signature": lines[i]}))
		}
		return errors.Join(err, tx.Statement(statement.KindAllowed, subjects, map[string]any{"track": a.Track, "version": a.Version, "persons": names}),
			tx.PublishBlob(fmt.Sprintf("allowlist/%s/%d", a.Track, a.Version), note))
	})
}

// An Out is an output as a builder made it.
type Out struct {
	Path       string
	Nar        []byte
	References []string
}

// Built is a builder's signed statement about a derivation whose output "out" is that. erin#2 is erin with another key.
func (e *Enclave) Built(builder string, drv Content, out Out) []byte {
	e.T.Helper()
	refs := []any{}
	for _, r := range slices.Sorted(slices.Values(out.References)) {
		refs = append(refs, r)
	}
	person, other, _ := strings.Cut(builder, "#")
	key := Key(e.T, person+"/statement")
	if other != "" {
		key = Key(e.T, person+"/statement#"+other)
	}
	envelope, err := statement.Sign(key, statement.Statement{Kind: statement.KindBuilt,
		Subjects: []statement.Subject{{Name: out.Path, SHA256: trust.Sum(out.Nar)}}, Predicate: map[string]any{
			"time": trust.FormatDate(Epoch), "zone": e.Zone.Origin(), "derivation": drv.Path(), "derivation-sha256": drv.SHA256.String(),
			"outputs": map[string]any{"out": map[string]any{"path": out.Path, "size": int64(len(out.Nar)), "references": refs}}, "person": person, "system": "x86_64-linux"}})
	e.must(err)
	return envelope
}

// Vote leaves a builder's statement behind as the quorum does, and the output in the store.
func (e *Enclave) Vote(builder string, drv Content, out Out) {
	e.T.Helper()
	envelope := e.Built(builder, drv, out)
	e.Put(out.Nar)
	e.Commit(func(tx *store.Tx) error {
		leaf, err := tx.Append(envelope)
		return errors.Join(err, tx.Exec(context.Background(), `INSERT INTO built (derivation, keyid, sha256, leaf, envelope) VALUES (?, ?, ?, ?, ?)`,
			drv.Name, Key(e.T, builder+"/statement").ID(), trust.Sum(envelope).String(), leaf, envelope))
	})
}

// Sign signs a narinfo with a track's key and leaves it where the signer does.
func (e *Enclave) Sign(track string, n *narinfo.NarInfo, key signature.SecretKey) []byte {
	e.T.Helper()
	n.Files = []narinfo.File{{URL: "nar/" + narinfo.EscapeItem(n.StorePath.Base()), Compression: "none", FileSize: n.NarSize}}
	body, err := narinfo.Sign(n, "keep", key)
	e.must(err)
	e.Narinfo(track, n.StorePath, body)
	return body
}

// Narinfo writes a row.
func (e *Enclave) Narinfo(track string, p storepath.Path, body []byte) {
	e.T.Helper()
	e.Commit(func(tx *store.Tx) error {
		return tx.Exec(context.Background(), `INSERT OR REPLACE INTO narinfo (track, hash, path, body, nar, blob, form) VALUES (?, ?, ?, ?, '', '', 'nar')`, track, p.Hash(), p.String(), body)
	})
}

// Row reads one value of the catalog.
func (e *Enclave) Row(query string, args ...any) string {
	e.T.Helper()
	var v string
	if err := e.Zone.Read(context.Background()).QueryRowContext(context.Background(), query, args...).Scan(&v); err != nil {
		e.T.Fatalf("%s: %v", query, err)
	}
	return v
}

// Exec is what root on the station does: any statement on the catalog.
func (e *Enclave) Exec(query string, args ...any) {
	e.T.Helper()
	e.Commit(func(tx *store.Tx) error { return tx.Exec(context.Background(), query, args...) })
}

// Kinds counts the entries of the ledger, and checks the form of each.
func (e *Enclave) Kinds() map[string]int {
	e.T.Helper()
	return Kinds(e.T, e.Zone)
}

// Kinds counts the entries of a zone's ledger, and checks the form of each.
func Kinds(t testing.TB, z *store.Zone) map[string]int {
	t.Helper()
	kinds := map[string]int{}
	for _, s := range entries(t, z) {
		kinds[s.Kind]++
	}
	return kinds
}

// Entries are the statements of the ledger, as they stand there: nobody's signature is looked at.
func (e *Enclave) Entries() []statement.Statement {
	e.T.Helper()
	return entries(e.T, e.Zone)
}

func entries(t testing.TB, z *store.Zone) []statement.Statement {
	t.Helper()
	_, c, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	var list []statement.Statement
	for i := range c.Size {
		leaf, err := z.Entry(context.Background(), i)
		if err != nil {
			t.Fatal(err)
		}
		env, err := statement.ParseEnvelope(leaf)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, env.Unverified())
	}
	return list
}

// Blobs are the digests in the store.
func (e *Enclave) Blobs() []trust.Digest {
	e.T.Helper()
	var list []trust.Digest
	e.must(e.Zone.CAS.Walk(func(d trust.Digest, _ int64) error {
		list = append(list, d)
		return nil
	}))
	return list
}

// Notes are the stages that have blobs noted as pending.
func (e *Enclave) Notes() []string {
	e.T.Helper()
	list, err := os.ReadDir(filepath.Join(e.Zone.Dir, "pending"))
	if err != nil && !os.IsNotExist(err) {
		e.T.Fatal(err)
	}
	var names []string
	for _, n := range list {
		names = append(names, n.Name())
	}
	return names
}

// A State is what must not change where nothing is to happen: blobs, notes, rows but for the ledger.
type State struct {
	blobs, notes, rows string
}

// State describes the enclave.
func (e *Enclave) State() State {
	e.T.Helper()
	var rows strings.Builder
	for _, table := range []string{"item", "shipment", "shipment_item", "finding", "root", "allowlist", "proposal", "proposal_signature", "narinfo", "built", "agreed", "setting"} {
		r, err := e.Zone.Read(context.Background()).QueryContext(context.Background(), "SELECT * FROM "+table+" ORDER BY 1, 2")
		e.must(err)
		cols, err := r.Columns()
		e.must(err)
		for r.Next() {
			vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
			for i := range vals {
				ptrs[i] = &vals[i]
			}
			e.must(r.Scan(ptrs...))
			fmt.Fprintf(&rows, "%s %.70q\n", table, vals)
		}
		e.must(errors.Join(r.Err(), r.Close()))
	}
	return State{fmt.Sprint(e.Blobs()), fmt.Sprint(e.Notes()), rows.String()}
}

// WantCodes fails unless err is refusals with exactly these codes, in any order, each as often as it comes; without codes, unless err is nil.
func WantCodes(t testing.TB, err error, codes ...string) {
	t.Helper()
	if len(codes) == 0 {
		if err != nil {
			t.Errorf("unexpected: %v", err)
		}
		return
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		t.Errorf("have %v, want refusals %v", err, codes)
		return
	}
	have, want := slices.Sorted(slices.Values(rs.Codes())), slices.Sorted(slices.Values(codes))
	if !slices.Equal(have, want) {
		t.Errorf("have codes %v, want %v\n%v", have, want, err)
	}
}

// A Log keeps what was logged.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Logger writes to the log.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// A Program builds the confined reader once for a test binary. Its zero value is ready; TestMain calls Remove at the end.
type Program struct {
	Skipped bool // this machine cannot run it
	once    sync.Once
	dir     string
	err     error
}

// Reader returns the options of the real reader, and skips the test, saying why, where this machine cannot confine it.
func (p *Program) Reader(t testing.TB) confine.Options {
	t.Helper()
	p.once.Do(func() {
		if p.dir, p.err = os.MkdirTemp("", "sallyport-reader-"); p.err != nil {
			return
		}
		if p.err = os.Chmod(p.dir, 0o755); p.err != nil {
			return
		}
		if p.err = p.build(confine.Program, "sallyport/cmd/sallyport-reader"); p.err != nil {
			return
		}
		c, err := confine.Start(context.Background(), confine.Options{Path: filepath.Join(p.dir, confine.Program)})
		if p.err = err; err == nil {
			p.err = c.Close()
		}
	})
	var feature *confine.FeatureError
	if errors.As(p.err, &feature) {
		p.Skipped = true
		t.Skipf("NOT TESTED: the confined reader cannot run here: %s: %s; remedy: %s", feature.Feature, feature.Detail, feature.Remedy)
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return confine.Options{Path: filepath.Join(p.dir, confine.Program)}
}

func (p *Program) build(name, pkg string) error {
	cmd := exec.Command("go", "build", "-o", filepath.Join(p.dir, name), pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Build builds another program beside the reader, to be started in its place.
func (p *Program) Build(t testing.TB, name, pkg string) confine.Options {
	t.Helper()
	if err := p.build(name, pkg); err != nil {
		t.Fatal(err)
	}
	return confine.Options{Path: filepath.Join(p.dir, name)}
}

// Remove removes what Reader built.
func (p *Program) Remove() {
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
}

// A Suite is what the tests of one package share: the reader, and which refusals they have seen. Its zero value is ready.
type Suite struct {
	Program
	mu   sync.Mutex
	seen map[string]bool
}

// Want is [WantCodes], and notes the codes.
func (s *Suite) Want(t testing.TB, err error, codes ...string) {
	t.Helper()
	WantCodes(t, err, codes...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	if rs, ok := trust.AsRefusals(err); ok {
		for _, code := range rs.Codes() {
			s.seen[code] = true
		}
	}
}

// Seen notes a code that was seen in another way, such as a header.
func (s *Suite) Seen(code string) {
	s.Want(discard{}, trust.Refuse(code, "", ""), code)
}

type discard struct{ testing.TB }

func (discard) Helper() {}

var refusal = regexp.MustCompile(`(?:Refuse\(|serve\.Errorf\([^,]*, )"([a-z][a-z-]+)"`)

// Run is for TestMain: it runs the tests and then, if all of them ran, fails unless each code with which the package refuses was reached by one.
func (s *Suite) Run(m *testing.M) int {
	code := m.Run()
	s.Remove()
	if f := flag.Lookup("test.run"); code != 0 || s.Skipped || f.Value.String() != "" || flag.Lookup("test.list").Value.String() != "" {
		return code
	}
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		fmt.Println("no source found:", err)
		return 1
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			fmt.Println(err)
			return 1
		}
		for _, m := range refusal.FindAllSubmatch(data, -1) {
			if c := string(m[1]); !s.seen[c] {
				fmt.Printf("%s: no test reaches the refusal %s\n", f, c)
				code = 1
			}
		}
	}
	return code
}
