package host

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// Bounds of a report.
const (
	MaxReportSize = 256 << 20
	maxRootLines  = 40_000 // of roots; what does not fit is counted
	maxEscaped    = 3 * maxPath
)

// syntax is the one fault of a report: it is not printed as reports are.
const syntax = "syntax"

const reportTitle = "sallyport host-report v1"

// A Report is what is carried from a host to the enclave's station: docs/spec/host-report.md. It is not signed: whoever carries it stands for it, and the station enters
// whose report it took in.
type Report struct {
	Enclave  string
	Host     string
	Date     time.Time
	Root     Document
	Orders   Document // version 0: there were none
	Contents bool     // what lies in the store was read
	Rules    Rules
	Items    int64
	Lists    map[string]Document // by track
	Counts   map[string]Count    // by status; none of 0
	Found    []Found             // all but what is local, if that is taken
	Roots    []FoundRoot
	Omitted  int64 // roots that did not fit
	Unread   int64 // processes that could not be looked at
	Unseen   int64 // derivations that were not to be had
}

// Found is an item of the host.
type Found struct {
	Status string
	SHA256 trust.Digest // of its nar, as the database has it
	Kept   bool         // a root keeps it
	Name   string
}

// A FoundRoot is a root that keeps an item that the host may not use.
type FoundRoot struct {
	Status string
	Item   string // the worst that it keeps
	Path   string
}

// Report makes the report of a result.
func (r *Result) Report() *Report {
	p := &Report{Enclave: r.Enclave, Host: r.Host, Date: r.Date.UTC().Truncate(time.Second), Root: r.Documents.Root, Orders: r.Documents.Orders, Contents: r.Contents, Rules: r.Rules,
		Items: int64(r.Items), Lists: r.Documents.Lists, Counts: r.Counts, Unread: int64(r.Unread), Unseen: int64(len(r.Unseen)), Found: r.Inventory}
	for _, f := range r.Roots {
		switch {
		case f.Status == "":
		case len(p.Roots) == maxRootLines:
			p.Omitted++
		default:
			p.Roots = append(p.Roots, FoundRoot{f.Status, f.Chain[len(f.Chain)-1], f.Path})
		}
	}
	return p
}

// escape makes one field of anything: every byte that is not printable ASCII, a space or a per cent sign becomes %XX.
func escape(s string) string {
	if len(s) > maxPath {
		s = s[:maxPath]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > 0x20 && c < 0x7f && c != '%' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	if b.Len() == 0 {
		return "%"
	}
	return b.String()
}

// unescape is the way back; the text is printed again and compared as a whole.
func unescape(s string) (string, error) {
	if s == "%" {
		return "", nil
	}
	if len(s) > maxEscaped {
		return "", fmt.Errorf("more than %d characters", maxEscaped)
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%.80q: want %%XX", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%.80q: want %%XX", s)
		}
		b.WriteByte(byte(c))
		i += 2
	}
	return b.String(), nil
}

func (d Document) line() string {
	if d.Version == 0 {
		return "0 -"
	}
	return fmt.Sprintf("%d %s", d.Version, d.SHA256)
}

func choose(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// Text prints the report in its one spelling.
func (r *Report) Text() []byte {
	b := fmt.Appendf(nil, "%s\nenclave %s\nhost %s\ndate %s\nroot %s\norders %s\ncontents %s\nlocal %s\nmade-from %s\nitems %d\n", reportTitle, r.Enclave, r.Host, trust.FormatDate(r.Date),
		r.Root.line(), r.Orders.line(), choose(r.Contents, "read", "believed"), choose(r.Rules.Local, "refused", "taken"),
		choose(r.Rules.MadeFrom, "refused", "taken"), r.Items)
	var lines []string
	for track, d := range r.Lists {
		lines = append(lines, "allowlist "+track+" "+d.line())
	}
	for status, n := range r.Counts {
		lines = append(lines, fmt.Sprintf("count %s %d %d", status, n.Items, n.Reached))
	}
	for _, f := range r.Found {
		lines = append(lines, fmt.Sprintf("item %s %s %s %s", f.Status, f.SHA256, choose(f.Kept, "kept", "free"), escape(f.Name)))
	}
	for _, f := range r.Roots {
		lines = append(lines, fmt.Sprintf("root %s %s %s", f.Status, escape(f.Item), escape(f.Path)))
	}
	for word, n := range map[string]int64{"omitted": r.Omitted, "unread": r.Unread, "unseen": r.Unseen} {
		if n > 0 {
			lines = append(lines, fmt.Sprintf("%s %d", word, n))
		}
	}
	slices.Sort(lines)
	for _, l := range slices.Compact(lines) {
		b = append(append(b, l...), '\n')
	}
	return b
}

// ParseReport parses what [Report.Text] prints, and nothing else.
func ParseReport(text []byte) (*Report, error) {
	s, err := trust.NewScanner("report", text, MaxReportSize)
	if err != nil {
		return nil, err
	}
	r := &Report{Lists: map[string]Document{}, Counts: map[string]Count{}}
	if !s.Title(reportTitle) {
		return nil, s.Err()
	}
	r.Enclave = s.Word("enclave")
	r.Host = s.Word("host")
	r.Date = s.Date("date")
	p := reportParser{s, r}
	r.Root = p.document("root")
	r.Orders = p.document("orders")
	r.Contents = p.choice("contents", "read", "believed")
	r.Rules.Local = p.choice("local", "refused", "taken")
	r.Rules.MadeFrom = p.choice("made-from", "refused", "taken")
	p.rest("items", func(v string) (err error) { r.Items, err = trust.ParseNumber(v, maxItems); return err })
	if s.Err() != nil {
		return nil, s.Err()
	}
	if r.Root.Version == 0 {
		s.Refuse(syntax, 0, "no root")
	}
	for {
		line, off, ok := s.Next()
		if !ok || s.Err() != nil {
			break
		}
		if err := p.line(line); err != nil {
			s.Refuse(syntax, off, "line %.160q: %v", line, err)
		}
	}
	if s.Err() != nil {
		return nil, s.Err()
	}
	if !bytes.Equal(r.Text(), text) {
		s.Refuse(syntax, 0, "printed again it is other bytes: a line is unsorted, stands twice, or is not in its one spelling")
		return nil, s.Err()
	}
	return r, nil
}

type reportParser struct {
	*trust.Scanner
	r *Report
}

// rest reads a line `WORD VALUE`, whatever VALUE is.
func (p reportParser) rest(word string, read func(v string) error) {
	if p.Err() != nil {
		return
	}
	line, off, _ := p.Next()
	v, ok := strings.CutPrefix(line, word+" ")
	if !ok {
		p.Refuse(syntax, off, "line %.60q where %q must stand", line, word+" …")
		return
	}
	if err := read(v); err != nil {
		p.Refuse(syntax, off, "%s: %v", word, err)
	}
}

func (p reportParser) document(word string) (d Document) {
	p.rest(word, func(v string) (err error) { d, err = parseDocument(v); return err })
	return d
}

func parseDocument(v string) (Document, error) {
	if v == "0 -" {
		return Document{}, nil
	}
	n, sum, _ := strings.Cut(v, " ")
	version, err := trust.ParseNumber(n, 1<<53)
	if err != nil {
		return Document{}, err
	}
	d, err := trust.ParseDigest(sum)
	if err == nil && version == 0 {
		err = fmt.Errorf("version 0 has no digest")
	}
	return Document{version, d}, err
}

func (p reportParser) choice(word, yes, no string) (is bool) {
	p.rest(word, func(v string) error {
		is = v == yes
		if v != yes && v != no {
			return fmt.Errorf("%.40q: want %s or %s", v, yes, no)
		}
		return nil
	})
	return is
}

func (p reportParser) line(line string) error {
	f := strings.Split(line, " ")
	want := map[string]int{"allowlist": 4, "count": 4, "item": 5, "root": 4, "omitted": 2, "unread": 2, "unseen": 2}[f[0]]
	if len(f) != want {
		return fmt.Errorf("want allowlist, count, item, omitted, root, unread or unseen, with its fields")
	}
	status := func(s string) error {
		if !slices.Contains(Statuses(), s) {
			return fmt.Errorf("status %.40q is not known", s)
		}
		return nil
	}
	var err error
	switch f[0] {
	case "allowlist":
		if err := trust.CheckWord(f[1]); err != nil {
			return err
		}
		d, err := parseDocument(f[2] + " " + f[3])
		if err == nil && d.Version == 0 {
			err = fmt.Errorf("no version")
		}
		p.r.Lists[f[1]] = d
		return err
	case "count":
		items, err1 := trust.ParseNumber(f[2], maxItems)
		reached, err2 := trust.ParseNumber(f[3], maxItems)
		for _, err := range []error{status(f[1]), err1, err2} {
			if err != nil {
				return err
			}
		}
		if items == 0 || reached > items {
			return fmt.Errorf("%d of %d items", reached, items)
		}
		p.r.Counts[f[1]] = Count{int(items), int(reached)}
	case "item":
		one := Found{Status: f[1], Kept: f[3] == "kept"}
		if one.SHA256, err = trust.ParseDigest(f[2]); err != nil {
			return err
		}
		if f[3] != "kept" && f[3] != "free" {
			return fmt.Errorf("%.40q: want kept or free", f[3])
		}
		if one.Name, err = unescape(f[4]); err != nil {
			return err
		}
		if len(p.r.Found) == maxItems {
			return fmt.Errorf("more than %d of them", maxItems)
		}
		p.r.Found = append(p.r.Found, one)
		return status(f[1])
	case "root":
		one := FoundRoot{Status: f[1]}
		if one.Item, err = unescape(f[2]); err == nil {
			one.Path, err = unescape(f[3])
		}
		if err != nil {
			return err
		}
		if len(p.r.Roots) == maxRootLines {
			return fmt.Errorf("more than %d of them", maxRootLines)
		}
		p.r.Roots = append(p.r.Roots, one)
		return status(f[1])
	default:
		n, err := trust.ParseNumber(f[1], trust.MaxSize)
		if err == nil && n == 0 {
			err = fmt.Errorf("0 is not printed")
		}
		*map[string]*int64{"omitted": &p.r.Omitted, "unread": &p.r.Unread, "unseen": &p.r.Unseen}[f[0]] = n
		return err
	}
	return nil
}

// Digest is the digest of the report's text.
func (r *Report) Digest() trust.Digest { return trust.Sum(r.Text()) }

// Kept counts the items that the host may not use and that a root of it keeps.
func (r *Report) Kept() int64 {
	n := int64(0)
	for status, c := range r.Counts {
		if r.Rules.refuse(status) {
			n += int64(c.Reached)
		}
	}
	return n
}
