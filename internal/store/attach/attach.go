// Package attach has the forms of the blobs that an entry of the ledger names
// because the catalog could not be made again without them. An entry has less
// than 64 KiB; what does not fit is a blob in the cas, and the entry has its
// digest.
//
//	inspected   report    findings: what a shipment's inspection found
//	collected   subject   the items' lines, as they stand in a manifest
//	pinned      subject   the pin
//	signed      narinfos  the narinfos that were signed
//
// Both forms here are text, one spelling each: what parses prints back to the
// same bytes.
//
//	sallyport findings v1
//	SEVERITY RULE COUNT "ITEM" "PLACE" "DETAIL"     quoted as Go quotes strings in ASCII
//
//	sallyport narinfos v1
//	PATH CONTENT FORM SIZE                          store path, sha256 of the content in the cas, nar or flat
//	(SIZE bytes: the narinfo)
//
// The order of findings is that in which they were found, that of narinfos is by path.
//
// # Bounds
//
// A blob has at most [MaxSize] bytes, a narinfo [MaxNarinfo].
package attach

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// Bounds.
const (
	MaxSize    = 256 << 20
	MaxNarinfo = 4 << 20

	findingsTitle = "sallyport findings v1\n"
	narinfosTitle = "sallyport narinfos v1\n"
)

// A Finding is a row of the catalog's table finding, but for the shipment's number.
type Finding struct {
	Item     string
	Severity string
	Rule     string
	Place    string
	Count    int64
	Detail   string
}

// Findings prints a list.
func Findings(list []Finding) ([]byte, error) {
	b := []byte(findingsTitle)
	for _, f := range list {
		if err := f.check(); err != nil {
			return nil, err
		}
		b = f.append(b)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("findings of %d bytes, more than %d", len(b), MaxSize)
	}
	return b, nil
}

func (f Finding) append(b []byte) []byte {
	b = fmt.Appendf(b, "%s %s %d", f.Severity, f.Rule, f.Count)
	for _, s := range []string{f.Item, f.Place, f.Detail} {
		b = strconv.AppendQuoteToASCII(append(b, ' '), s)
	}
	return append(b, '\n')
}

func (f Finding) check() error {
	for _, w := range []string{f.Severity, f.Rule} {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("finding: %.60q is no word", w)
		}
	}
	if f.Count < 0 {
		return fmt.Errorf("finding: count %d", f.Count)
	}
	return nil
}

func bad(form string, off int, format string, args ...any) *trust.Refusal {
	r := trust.Refuse(form+"-syntax", form, format, args...)
	r.Offset = int64(off)
	return r
}

// ParseFindings reads what Findings prints, and nothing else.
func ParseFindings(data []byte) ([]Finding, error) {
	if len(data) > MaxSize {
		return nil, bad("findings", 0, "%d bytes, more than %d", len(data), MaxSize)
	}
	rest, ok := strings.CutPrefix(string(data), findingsTitle)
	if !ok {
		return nil, bad("findings", 0, "it does not begin with %q", findingsTitle)
	}
	var list []Finding
	for rest != "" {
		off := len(data) - len(rest)
		line, after, ended := strings.Cut(rest, "\n")
		if !ended {
			return nil, bad("findings", off, "the last line does not end")
		}
		f, err := parseFinding(line)
		if err == nil && string(f.append(nil)) != line+"\n" {
			err = fmt.Errorf("not in its one spelling")
		}
		if err != nil {
			return nil, bad("findings", off, "%.200q: %v", line, err)
		}
		list, rest = append(list, f), after
	}
	return list, nil
}

func parseFinding(line string) (f Finding, err error) {
	words := strings.SplitN(line, " ", 4)
	if len(words) != 4 {
		return f, fmt.Errorf("want six fields")
	}
	f.Severity, f.Rule = words[0], words[1]
	if f.Count, err = strconv.ParseInt(words[2], 10, 64); err != nil {
		return f, fmt.Errorf("count %.40q", words[2])
	}
	rest := words[3]
	for i, to := range []*string{&f.Item, &f.Place, &f.Detail} {
		if i > 0 {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, " "); !ok {
				return f, fmt.Errorf("want six fields")
			}
		}
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return f, fmt.Errorf("want six fields, the last three quoted")
		}
		if *to, err = strconv.Unquote(quoted); err != nil {
			return f, err
		}
		rest = rest[len(quoted):]
	}
	if rest != "" {
		return f, fmt.Errorf("something stands behind the sixth field")
	}
	return f, f.check()
}

// A Narinfo is a row of the catalog's table narinfo, but for the track and for what its body says.
type Narinfo struct {
	Path    storepath.Path
	Content trust.Digest // in the cas
	Form    string       // nar or flat
	Body    []byte
}

func (n Narinfo) check() error {
	switch {
	case n.Path.IsZero():
		return fmt.Errorf("narinfo without a path")
	case n.Form != "nar" && n.Form != "flat":
		return fmt.Errorf("%s: form %.20q", n.Path.Base(), n.Form)
	case len(n.Body) == 0 || len(n.Body) > MaxNarinfo:
		return fmt.Errorf("%s: %d bytes, want 1 to %d", n.Path.Base(), len(n.Body), MaxNarinfo)
	}
	return nil
}

// Narinfos prints a list, whose paths must ascend.
func Narinfos(list []Narinfo) ([]byte, error) {
	b := []byte(narinfosTitle)
	for i, n := range list {
		if err := n.check(); err != nil {
			return nil, err
		}
		if i > 0 && list[i-1].Path.Compare(n.Path) >= 0 {
			return nil, fmt.Errorf("%s does not stand in its order", n.Path.Base())
		}
		b = fmt.Appendf(b, "%s %s %s %d\n", n.Path, n.Content, n.Form, len(n.Body))
		b = append(b, n.Body...)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("narinfos of %d bytes, more than %d", len(b), MaxSize)
	}
	return b, nil
}

// ParseNarinfos reads what Narinfos prints, and nothing else. The bodies share its memory.
func ParseNarinfos(data []byte) ([]Narinfo, error) {
	if len(data) > MaxSize {
		return nil, bad("narinfos", 0, "%d bytes, more than %d", len(data), MaxSize)
	}
	rest, ok := bytes.CutPrefix(data, []byte(narinfosTitle))
	if !ok {
		return nil, bad("narinfos", 0, "it does not begin with %q", narinfosTitle)
	}
	var list []Narinfo
	for len(rest) > 0 {
		off := len(data) - len(rest)
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		if !ended {
			return nil, bad("narinfos", off, "a line does not end")
		}
		n, size, err := parseNarinfo(string(line))
		if err == nil && size > int64(len(after)) {
			err = fmt.Errorf("%d bytes are said to follow, there are %d", size, len(after))
		}
		if err == nil {
			n.Body, rest = after[:size:size], after[size:]
			err = n.check()
		}
		if err == nil && len(list) > 0 && list[len(list)-1].Path.Compare(n.Path) >= 0 {
			err = fmt.Errorf("it does not stand in its order")
		}
		if err != nil {
			return nil, bad("narinfos", off, "%.300q: %v", line, err)
		}
		list = append(list, n)
	}
	return list, nil
}

func parseNarinfo(line string) (n Narinfo, size int64, err error) {
	words := strings.Split(line, " ")
	if len(words) != 4 {
		return n, 0, fmt.Errorf("want four fields")
	}
	if n.Path, err = storepath.Parse(words[0]); err != nil {
		return n, 0, err
	}
	if n.Content, err = trust.ParseDigest(words[1]); err != nil {
		return n, 0, err
	}
	n.Form = words[2]
	size, err = trust.ParseNumber(words[3], MaxNarinfo)
	return n, size, err
}
