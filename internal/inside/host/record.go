package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

const (
	// stage names the lock and the note of pending blobs.
	stage = "host"
	// maxAhead is how far a host's clock may be ahead of the station's.
	maxAhead = 24 * time.Hour
)

// A Checked is one entry of the ledger: a host has reported.
type Checked struct {
	Type     string       `json:"type"` // host
	Host     string       `json:"host"`
	Date     string       `json:"date"` // of the check
	Taken    string       `json:"taken"`
	Orders   int64        `json:"orders"` // the version that the host checked against
	Items    int64        `json:"items"`
	Recalled int64        `json:"recalled"` // items on the host that were recalled, or refer to such
	Derived  int64        `json:"derived"`  // that were made from such
	Unknown  int64        `json:"unknown"`  // and others that it may not use
	Kept     int64        `json:"kept"`     // of what it may not use: what a root keeps
	Report   trust.Digest `json:"report"`   // in the cas
	Entry    int64        `json:"entry"`    // of the ledger
}

// recalled counts what was recalled, and what refers to such.
func (r *Report) recalled() int64 { return int64(r.Counts[Recalled].Items + r.Counts[Affected].Items) }

// others counts what else the host may not use, but for what was made from something recalled.
func (r *Report) others() (n int64) {
	for s, c := range r.Counts {
		if s != Recalled && s != Affected && s != Derived && r.Rules.refuse(s) {
			n += int64(c.Items)
		}
	}
	return n
}

// Record takes a report into the inside zone: the report as a blob, and an entry "checked" in the ledger. The documents that it names must be those of the
// zone. A report that was recorded before is not recorded again.
func Record(ctx context.Context, z *store.Zone, text []byte) (*Checked, error) {
	unlock, err := z.Lock(stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c, err := record(ctx, z, text)
	if err != nil {
		return nil, z.Refused(ctx, stage, statement.Subject{Name: "host report", SHA256: trust.Sum(text)}, err)
	}
	return c, nil
}

func record(ctx context.Context, z *store.Zone, text []byte) (*Checked, error) {
	r, err := ParseReport(text)
	if err != nil {
		return nil, err
	}
	subject, err := r.belongs(z)
	if err != nil {
		return nil, err
	}
	before, err := Reports(ctx, z)
	if err != nil {
		return nil, err
	}
	digest := trust.Sum(text)
	if had, ok := before[r.Host]; ok {
		if had.Report == digest {
			return &had, nil
		}
		if r.Date.Before(mustDate(had.Date)) {
			return nil, trust.Refuse("report-old", r.Host, "it is of %s; one of %s was recorded already", trust.FormatDate(r.Date), had.Date)
		}
	}
	if err := z.Space(int64(len(text))); err != nil {
		return nil, err
	}
	in, err := pending.Begin(ctx, z, stage, []trust.Digest{digest})
	if err != nil {
		return nil, err
	}
	c := &Checked{Type: "host", Host: r.Host, Date: trust.FormatDate(r.Date), Orders: r.Orders.Version, Items: r.Items, Recalled: r.recalled(), Derived: int64(r.Counts[Derived].Items), Unknown: r.others(), Kept: r.Kept(), Report: digest}
	_, err = z.CAS.PutBytes(text)
	if err == nil {
		err = z.Commit(ctx, func(tx *store.Tx) error {
			c.Taken = trust.FormatDate(tx.Now())
			var err error
			if c.Entry, err = tx.StatementIndex(statement.KindChecked, []statement.Subject{subject}, map[string]any{"host": c.Host, "date": c.Date, "orders": c.Orders,
				"items": c.Items, "recalled": c.Recalled, "derived": c.Derived, "unknown": c.Unknown, "kept": c.Kept, "report": digest.String()}); err != nil {
				return err
			}
			return tx.Attach(ctx, digest)
		})
	}
	left := in.End(ctx, err)
	return c, errors.Join(err, left)
}

// belongs demands that the documents of a report are the zone's, and returns what the entry is about: the orders that the host checked against, or the root
// if there were none.
func (r *Report) belongs(z *store.Zone) (statement.Subject, error) {
	var rs trust.Refusals
	if r.Enclave != z.Config.Enclave {
		rs.Add(trust.Refuse("report-enclave", r.Host, "it is of enclave %s, the zone of %s", r.Enclave, z.Config.Enclave))
		return statement.Subject{}, rs
	}
	if now := z.Now(); r.Date.After(now.Add(maxAhead)) {
		rs.Add(trust.Refuse("report-date", r.Host, "it is of %s; here it is %s", trust.FormatDate(r.Date), trust.FormatDate(now)).WithHint("set the host's clock and check again"))
	}
	demand := func(d Document, doc string, limit int, parts ...string) error {
		name := strings.Join(append(parts, fmt.Sprint(d.Version)), "/")
		note, err := z.ReadPublic(name)
		if errors.Is(err, fs.ErrNotExist) {
			rs.Add(trust.Refuse("report-document", name, "the host checked against it; the zone does not have it"))
			return nil
		}
		if err != nil {
			return err
		}
		text, _, err := trust.SplitNote(doc, note, limit)
		if err != nil {
			return err
		}
		if have := trust.Sum(text); have != d.SHA256 {
			rs.Add(trust.Refuse("report-document", name, "the host checked against %s; the zone has %s", d.SHA256, have).
				WithHint("this is an alarm: two documents of one number"))
		}
		return nil
	}
	err := demand(r.Root, "root", trust.MaxRootSize, publicRoot)
	subject := statement.Subject{Name: fmt.Sprintf("root %d", r.Root.Version), SHA256: r.Root.SHA256}
	if r.Orders.Version > 0 {
		err = errors.Join(err, demand(r.Orders, "orders", trust.MaxOrdersSize, publicOrders))
		subject = statement.Subject{Name: fmt.Sprintf("orders %d", r.Orders.Version), SHA256: r.Orders.SHA256}
	}
	for _, track := range sortedKeys(r.Lists) {
		err = errors.Join(err, demand(r.Lists[track], "allowlist", trust.MaxListSize, publicAllowlist, track))
	}
	if err != nil {
		return subject, err
	}
	return subject, rs.Err()
}

// Reports reads the newest report of each host from the ledger, every entry of it. The reports themselves lie in the cas.
func Reports(ctx context.Context, z *store.Zone) (map[string]Checked, error) {
	_, at, err := z.Checkpoint()
	if err != nil {
		return nil, err
	}
	newest := map[string]Checked{}
	for i := range at.Size {
		leaf, err := z.Entry(ctx, i)
		if err != nil {
			return nil, err
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil || e.Kind() != statement.KindChecked {
			continue
		}
		s := e.Unverified() // in the zone's own ledger
		c := Checked{Type: "host", Entry: i}
		c.Host, _ = s.Predicate["host"].(string)
		c.Date, _ = s.Predicate["date"].(string)
		c.Taken, _ = s.Predicate["time"].(string)
		for name, to := range map[string]*int64{"orders": &c.Orders, "items": &c.Items, "recalled": &c.Recalled, "derived": &c.Derived, "unknown": &c.Unknown, "kept": &c.Kept} {
			*to, _ = s.Predicate[name].(int64)
		}
		sum, _ := s.Predicate["report"].(string)
		if c.Report, err = trust.ParseDigest(sum); err == nil {
			newest[c.Host] = c
		}
	}
	return newest, nil
}

// Sorted lists reports by host.
func Sorted(m map[string]Checked) []Checked {
	var list []Checked
	for _, c := range m {
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Checked) int { return strings.Compare(a.Host, b.Host) })
	return list
}

// Tracks lists the tracks of documents.
func Tracks(lists map[string]Document) []string { return sortedKeys(lists) }

// Holders lists the hosts whose newest report has an item of this content or name, whether kept or not: what a recall has to wait for.
func Holders(z *store.Zone, newest map[string]Checked, sha256 trust.Digest, name string) ([]string, error) {
	var hosts []string
	for _, c := range Sorted(newest) {
		text, err := z.CAS.ReadAll(c.Report, MaxReportSize)
		if err != nil {
			return nil, fmt.Errorf("report of %s: %w", c.Host, err)
		}
		r, err := ParseReport(text)
		if err != nil {
			return nil, fmt.Errorf("report of %s: %w", c.Host, err)
		}
		if slices.ContainsFunc(r.Found, func(f Found) bool { return f.SHA256 == sha256 || f.Name == name }) {
			hosts = append(hosts, c.Host)
		}
	}
	return hosts, nil
}

// mustDate parses a date that a statement was checked for.
func mustDate(s string) time.Time {
	t, _ := trust.ParseDate(s)
	return t
}
