package trust

import (
	"fmt"
	"slices"
	"strings"
)

// Bounds on classes.
const (
	MaxClasses   = 1000 // lines of an allowlist
	MaxRule      = 200  // characters of a rule
	maxRuleValue = 64
)

// A Class is a rule by which items of a shipment were approved in one version of an allowlist: what reviewers signed, beside the items themselves.
type Class struct {
	Shipment int64
	Rule     string // as in kind=source,severity<=review
	Items    int
	Digest   Digest // of the lines of the items, as [ItemsDigest] makes it
}

// NewClass returns the class of the items of a shipment that a rule approves. The items must be sorted.
func NewClass(shipment int64, rule string, items []Item) Class {
	return Class{shipment, rule, len(items), ItemsDigest(items)}
}

// ItemsDigest returns the SHA-256 of the `item` lines of items, which must be sorted.
func ItemsDigest(items []Item) Digest { return Sum(AppendItems(nil, items)) }

func (c Class) line() string {
	return fmt.Sprintf("class %d %s %d %s", c.Shipment, c.Rule, c.Items, c.Digest)
}

// ruleOps are the signs between the field of a term and its value.
func ruleOps() []string { return []string{"<=", ">=", "!=", "="} }

// A Term is one condition of a rule.
type Term struct{ Field, Op, Value string }

// ParseRule parses a rule: terms FIELD OP VALUE, sorted, each once, with commas between them. FIELD is [a-z][a-z0-9-]{0,31}, OP one of = != <= >=,
// VALUE 1 to 64 characters of printable ASCII without space, comma, <, >, = or !.
func ParseRule(s string) ([]Term, error) {
	if s == "" || len(s) > MaxRule {
		return nil, fmt.Errorf("rule %.80q: want 1 to %d characters", s, MaxRule)
	}
	var terms []Term
	last := ""
	for _, word := range strings.Split(s, ",") {
		if word <= last {
			return nil, fmt.Errorf("rule %.80q: terms unsorted, twice or empty", s)
		}
		last = word
		i := strings.IndexAny(word, "<>=!")
		if i < 0 {
			return nil, fmt.Errorf("rule %.80q: want FIELD OP VALUE, have %.60q", s, word)
		}
		t := Term{Field: word[:i]}
		for _, op := range ruleOps() {
			if value, ok := strings.CutPrefix(word[i:], op); ok {
				t.Op, t.Value = op, value
				break
			}
		}
		if t.Op == "" || CheckWord(t.Field) != nil || t.Field[0] <= '9' || t.Value == "" || len(t.Value) > maxRuleValue || strings.ContainsAny(t.Value, "<>=! ") {
			return nil, fmt.Errorf("rule %.80q: want FIELD OP VALUE, have %.60q", s, word)
		}
		for j := 0; j < len(t.Value); j++ {
			if t.Value[j] <= 0x20 || t.Value[j] > 0x7e {
				return nil, fmt.Errorf("rule %.80q: the value of %s is not printable ASCII", s, t.Field)
			}
		}
		terms = append(terms, t)
	}
	return terms, nil
}

// classes reads all `class` lines of an allowlist: sorted by their bytes, each rule of a shipment once.
func (s *Scanner) classes() []Class {
	var classes []Class
	last := ""
	seen := make(map[string]bool)
	for s.Peek("class") && !s.bad.Full() {
		line, off, _ := s.Next()
		if !s.inOrder(&last, line, off) {
			continue
		}
		if len(classes) == MaxClasses {
			s.Refuse("size", off, "more than %d classes", MaxClasses)
			return classes
		}
		c, err := parseClass(line)
		if err != nil {
			s.Refuse("class", off, "%v", err)
			continue
		}
		about := fmt.Sprint(c.Shipment, " ", c.Rule)
		if seen[about] {
			s.Refuse("class", off, "shipment %d has the rule %s twice", c.Shipment, c.Rule)
		}
		seen[about] = true
		classes = append(classes, c)
	}
	return classes
}

func parseClass(line string) (c Class, err error) {
	f := strings.Split(line, " ")
	if len(f) != 5 {
		return Class{}, fmt.Errorf("want class SHIPMENT RULE ITEMS DIGEST, have %.160q", line)
	}
	if c.Shipment, err = parsePositive(f[1]); err != nil {
		return Class{}, err
	}
	if _, err = ParseRule(f[2]); err != nil {
		return Class{}, err
	}
	c.Rule = f[2]
	n, err := ParseNumber(f[3], MaxItems)
	if err == nil && n == 0 {
		err = fmt.Errorf("a class of no items")
	}
	if err != nil {
		return Class{}, err
	}
	c.Items = int(n)
	c.Digest, err = ParseDigest(f[4])
	return c, err
}

// sortedClasses returns the lines of classes, sorted.
func classLines(classes []Class) []string {
	lines := make([]string, len(classes))
	for i, c := range classes {
		lines[i] = c.line()
	}
	slices.Sort(lines)
	return lines
}
