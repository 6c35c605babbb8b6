package confine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"

	"sallyport/guix/derivation"
)

// The kinds of request.
const (
	KindNar        = "nar"
	KindDerivation = "derivation"
	KindFlat       = "flat"
)

// The sets of rules a request can ask for.
const (
	RulesSource    = ""          // everything that looks for trouble in source code
	RulesStructure = "structure" // only that the item is well-formed
)

// Severities of a finding, from the mildest.
const (
	Info   = "info"
	Review = "review"
	High   = "high"
	Block  = "block"
)

// A Request asks the child to read one item.
type Request struct {
	Kind  string `json:"kind"`
	Name  string `json:"name"` // for the judgement of names and for messages; nothing is opened by it
	Size  int64  `json:"size"`
	Rules string `json:"rules"`
}

// A Finding is something in an item that a person should know of. Findings of one rule in one folder are one Finding.
// All strings that come from the item are escaped as Escape does.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity string   `json:"severity"`
	Place    string   `json:"place"` // the folder; "" is the top
	Count    int64    `json:"count"`
	Examples []string `json:"examples"` // the first few places, PATH or PATH:LINE
	Detail   string   `json:"detail"`
}

// A Refusal says why an item is not well-formed.
type Refusal struct {
	Code   string `json:"code"`
	Place  string `json:"place"`
	Offset int64  `json:"offset"`
	Detail string `json:"detail"`
}

// A Report is the child's whole answer about one item.
type Report struct {
	Files      int64
	Bytes      int64 // of content inspected
	Findings   []Finding
	Refusals   []Refusal
	Derivation *derivation.Derivation // for kind derivation, unless it was refused: prints to the very bytes of the item
}

// in-force report, sent once.
type confinement struct {
	Landlock        int64    `json:"landlock"`        // version in force
	LandlockKernel  int64    `json:"landlock-kernel"` // version the kernel has
	Namespaces      []string `json:"namespaces"`
	NoNewPrivileges bool     `json:"no-new-privileges"`
	AddressSpace    int64    `json:"address-space"`
	Descriptors     int64    `json:"descriptors"`
	Seccomp         string   `json:"seccomp"`
	SeccompCalls    int64    `json:"seccomp-calls"`
	User            string   `json:"user"` // "nobody" or "caller"
	Kernel          string   `json:"kernel"`
}

func (c *confinement) toMap() map[string]any {
	ns := make([]any, len(c.Namespaces))
	for i, n := range c.Namespaces {
		ns[i] = n
	}
	return map[string]any{
		"landlock":          c.Landlock,
		"landlock-kernel":   c.LandlockKernel,
		"namespaces":        ns,
		"no-new-privileges": c.NoNewPrivileges,
		"address-space":     c.AddressSpace,
		"descriptors":       c.Descriptors,
		"seccomp":           c.Seccomp,
		"seccomp-calls":     c.SeccompCalls,
		"user":              c.User,
		"kernel":            c.Kernel,
	}
}

// The answer lines. The embedded tag gives the type member its place in front.
type (
	tag struct {
		Type string `json:"type"`
	}
	readyLine struct {
		tag
		confinement
	}
	failedLine struct {
		tag
		Feature string `json:"feature"`
		Detail  string `json:"detail"`
		Remedy  string `json:"remedy"`
	}
	findingLine struct {
		tag
		Finding
	}
	refusalLine struct {
		tag
		Refusal
	}
	resultLine struct {
		tag
		Files int64 `json:"files"`
		Bytes int64 `json:"bytes"`
	}
)

// encode prints v as a line.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	if b.Len() > MaxLine {
		return nil, fmt.Errorf("a line of %d bytes, more than %d", b.Len(), MaxLine)
	}
	return b.Bytes(), nil
}

// decode reads a line (with its LF) into v. What it accepts is exactly what encode prints: encoding/json by itself takes
// members twice, in other letter case and with white space between.
func decode(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	again, err := encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, line) {
		return fmt.Errorf("not in the one spelling")
	}
	return nil
}

// Escape makes text from an item safe to carry and to print: printable ASCII stays, everything else, the backslash and the double
// quote become Go escapes. Text that would be longer than max bytes is cut, and ends in "...".
func Escape(s string, max int) string {
	plain := len(s) <= max
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= 0x20 && s[i] < 0x7f && s[i] != '\\' && s[i] != '"'
	}
	if plain {
		return s
	}
	if len(s) > max { // an escape never shortens, so no more than max bytes can be of use
		s = s[:max] + "...."
	}
	q := strconv.QuoteToASCII(s)
	q = q[1 : len(q)-1]
	if len(q) > max {
		q = q[:max-3] + "..."
	}
	return q
}

// printable reports whether s is what a child may say: printable ASCII, of at most max bytes.
func printable(s string, max int) bool {
	if len(s) > max {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

func validSeverity(s string) bool {
	return s == Info || s == Review || s == High || s == Block
}

// validCode: lower-case words joined by hyphens, as rules and reason codes are.
func validCode(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-'
}

func (f *Finding) check() error {
	switch {
	case !validCode(f.Rule):
		return fmt.Errorf("a finding's rule is %.80q", f.Rule)
	case !validSeverity(f.Severity):
		return fmt.Errorf("a finding's severity is %.80q", f.Severity)
	case f.Count < 1:
		return fmt.Errorf("a finding's count is %d", f.Count)
	case len(f.Examples) > MaxExamples || f.Examples == nil:
		return fmt.Errorf("a finding has %d examples", len(f.Examples))
	case !printable(f.Place, MaxText) || !printable(f.Detail, MaxText):
		return fmt.Errorf("a finding's text is not printable")
	}
	for _, e := range f.Examples {
		if !printable(e, MaxText) {
			return fmt.Errorf("a finding's example is not printable")
		}
	}
	return nil
}

func (r *Refusal) check() error {
	switch {
	case !validCode(r.Code):
		return fmt.Errorf("a refusal's code is %.80q", r.Code)
	case r.Offset < 0:
		return fmt.Errorf("a refusal's offset is %d", r.Offset)
	case !printable(r.Place, MaxText) || !printable(r.Detail, MaxText):
		return fmt.Errorf("a refusal's text is not printable")
	}
	return nil
}

func (r Request) check() error {
	switch {
	case r.Kind != KindNar && r.Kind != KindDerivation && r.Kind != KindFlat:
		return fmt.Errorf("request of kind %.80q", r.Kind)
	case r.Rules != RulesSource && r.Rules != RulesStructure:
		return fmt.Errorf("request for rules %.80q", r.Rules)
	case !printable(r.Name, MaxName):
		return fmt.Errorf("request about the name %.80q: not printable", r.Name)
	case r.Size < 0 || r.Size > MaxSize:
		return fmt.Errorf("request of size %d", r.Size)
	}
	return nil
}

// accumulator builds a Report from lines and keeps the counts within bounds.
type accumulator struct {
	kind   string
	size   int64
	report Report
	lines  int       // of a derivation
	drv    *assembly // once a derivation line was there
}

// line takes one answer line; done is true after the result.
func (a *accumulator) line(line []byte) (done bool, err error) {
	var t tag
	if err := json.Unmarshal(line, &t); err != nil {
		return false, badAnswer("not an answer line: %v", err)
	}
	switch t.Type {
	case "finding":
		var l findingLine
		if err := decode(line, &l); err != nil {
			return false, badAnswer("finding: %v", err)
		}
		if err := l.Finding.check(); err != nil {
			return false, badAnswer("%v", err)
		}
		if len(a.report.Findings) == MaxFindings {
			return false, badAnswer("more than %d findings", MaxFindings)
		}
		a.report.Findings = append(a.report.Findings, l.Finding)
	case "refusal":
		var l refusalLine
		if err := decode(line, &l); err != nil {
			return false, badAnswer("refusal: %v", err)
		}
		if err := l.Refusal.check(); err != nil {
			return false, badAnswer("%v", err)
		}
		if len(a.report.Refusals) == MaxRefusals {
			return false, badAnswer("more than %d refusals", MaxRefusals)
		}
		a.report.Refusals = append(a.report.Refusals, l.Refusal)
	case "derivation", "text":
		if a.kind != KindDerivation {
			return false, badAnswer("an answer of type %q about a %s", t.Type, a.kind)
		}
		if a.lines++; a.lines > 2*MaxStrings {
			return false, badAnswer("more than %d lines of one derivation", 2*MaxStrings)
		}
		switch {
		case t.Type == "text" && a.drv != nil:
			return false, a.drv.text(line)
		case t.Type == "derivation" && a.drv == nil:
			a.drv = new(assembly)
			return false, a.drv.begin(line, a.size)
		}
		return false, badAnswer("an answer of type %q out of its place", t.Type)
	case "result":
		var l resultLine
		if err := decode(line, &l); err != nil {
			return false, badAnswer("result: %v", err)
		}
		if l.Files < 0 || l.Bytes < 0 || l.Files > a.size+1 || l.Bytes > a.size {
			// A file costs an archive more than a byte; a flat item of no bytes is still one file.
			return false, badAnswer("%d files, %d bytes in an item of %d bytes", l.Files, l.Bytes, a.size)
		}
		if a.kind == KindDerivation {
			if (a.drv != nil) != (len(a.report.Refusals) == 0) {
				return false, badAnswer("a derivation that is neither read nor refused, or both")
			}
		}
		a.report.Files, a.report.Bytes = l.Files, l.Bytes
		return true, nil
	default:
		return false, badAnswer("an answer of type %.80q", t.Type)
	}
	return false, nil
}

// readLine reads one line of at most the reader's buffer.
func readLine(r interface{ ReadSlice(byte) ([]byte, error) }) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == io.EOF && len(line) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return line, err
}
