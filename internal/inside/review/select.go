package review

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"sallyport/internal/store/attach"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Selection says which of a shipment's items are to go in. The zero Selection is all of them, or what an open proposal for the shipment has selected.
//
// A rule is a row of terms with commas between them, sorted, each FIELD OP VALUE (docs/spec/trust.md section 6); an item goes in by the first rule whose terms all hold
// for it. Fields:
//
//	kind            = !=            source, derivation, channel or output
//	severity        = != <= >=      none, info, review, high or block: the worst that the gate's inspection found in it
//	size            = <= >=         bytes
//	known           =               yes if the allowlist in force of another track names it
//	corroborations  = >=            independent trust anchors for its content
//	bound           =               yes if it is a derivation that the released channel makes
//
// What the inspection found is taken from the report that the ledger's entry names, not from rows.
type Selection struct {
	Rules []string
	Items []string // base names
}

func (s Selection) zero() bool { return len(s.Rules) == 0 && len(s.Items) == 0 }

// kinds of items.
var kinds = []string{trust.KindChannel, trust.KindDerivation, trust.KindOutput, trust.KindSource}

// severities, the mildest first.
var severities = []string{"none", "info", "review", "high", "block"}

// A fact is what rules may ask of an item.
type fact struct {
	item     trust.Item
	severity int
	known    bool
}

// A rule is one that can be decided here.
type rule struct {
	text  string
	terms []func(fact) bool
}

// parseRule reads a rule.
func parseRule(text string) (rule, error) {
	terms, err := trust.ParseRule(text)
	if err != nil {
		return rule{}, trust.Refuse("class-rule", trust.Printable(text, trust.MaxRule), "%v", err)
	}
	r := rule{text: text}
	for _, t := range terms {
		f, err := decide(t)
		if err != nil {
			return rule{}, trust.Refuse("class-rule", text, "%s: %v", t.Field, err)
		}
		r.terms = append(r.terms, f)
	}
	return r, nil
}

// decide makes a term something that can be asked of an item.
func decide(t trust.Term) (func(fact) bool, error) {
	compare := func(value func(fact) int64, want int64) (func(fact) bool, error) {
		switch t.Op {
		case "=":
			return func(f fact) bool { return value(f) == want }, nil
		case "!=":
			return func(f fact) bool { return value(f) != want }, nil
		case "<=":
			return func(f fact) bool { return value(f) <= want }, nil
		case ">=":
			return func(f fact) bool { return value(f) >= want }, nil
		}
		return nil, fmt.Errorf("%q is no comparison", t.Op)
	}
	yes := func(value func(fact) bool) (func(fact) bool, error) {
		if t.Op != "=" || t.Value != "yes" && t.Value != "no" {
			return nil, fmt.Errorf("want =yes or =no")
		}
		want := t.Value == "yes"
		return func(f fact) bool { return value(f) == want }, nil
	}
	switch t.Field {
	case "kind":
		if t.Op != "=" && t.Op != "!=" || !slices.Contains(kinds, t.Value) {
			return nil, fmt.Errorf("want = or != and one of %v", kinds)
		}
		return func(f fact) bool { return (f.item.Kind == t.Value) == (t.Op == "=") }, nil
	case "severity":
		want := slices.Index(severities, t.Value)
		if want < 0 {
			return nil, fmt.Errorf("%q is none of %v", t.Value, severities)
		}
		return compare(func(f fact) int64 { return int64(f.severity) }, int64(want))
	case "size":
		want, err := trust.ParseNumber(t.Value, trust.MaxSize)
		if err != nil {
			return nil, err
		}
		return compare(func(f fact) int64 { return f.item.Size }, want)
	case "known":
		return yes(func(f fact) bool { return f.known })
	case "bound":
		return yes(func(fact) bool { return false }) // nothing is bound yet
	case "corroborations":
		want, err := strconv.ParseInt(t.Value, 10, 16)
		if err != nil || want < 0 || t.Op != "=" && t.Op != ">=" {
			return nil, fmt.Errorf("want = or >= and a number")
		}
		return compare(func(fact) int64 { return 0 }, want) // nothing is corroborated yet
	}
	return nil, fmt.Errorf("not known; fields are kind, severity, size, known, corroborations, bound")
}

func (r rule) takes(f fact) bool {
	for _, t := range r.terms {
		if !t(f) {
			return false
		}
	}
	return true
}

// choose splits what the shipment would add into what goes in and what is left.
func (d *Desk) choose(ctx context.Context, c *dossier, m *motion, wanted []trust.Item, sel Selection, orders *trust.Orders) error {
	if sel.zero() {
		var err error
		if sel, err = d.selected(ctx, m, wanted, orders); err != nil {
			return err
		}
	}
	if sel.zero() {
		m.added = wanted
		return nil
	}
	if m.arrival < 0 {
		return trust.Refuse("class-submission", statement.Arrived(m.arrival), "it is one item: there is nothing to select")
	}
	var rs trust.Refusals
	var rules []rule
	for _, text := range sel.Rules {
		r, err := parseRule(text)
		if err := rs.Merge(err); err != nil {
			return err
		}
		rules = append(rules, r)
	}
	for _, name := range sel.Items {
		if !slices.ContainsFunc(wanted, func(it trust.Item) bool { return it.Name == name }) {
			rs.Add(trust.Refuse("item-unknown", name, "shipment %d adds no such item to track %s", m.arrival, m.track))
		}
	}
	if err := rs.Err(); err != nil {
		return err
	}
	facts, err := d.facts(ctx, c, m.track, wanted, orders)
	if err != nil {
		return err
	}
	by := make([][]trust.Item, len(rules))
	for _, f := range facts {
		i := slices.IndexFunc(rules, func(r rule) bool { return r.takes(f) })
		if i >= 0 {
			by[i] = append(by[i], f.item)
		}
		if i >= 0 || slices.Contains(sel.Items, f.item.Name) {
			m.added = append(m.added, f.item)
		} else {
			m.left++
		}
	}
	for i, r := range rules {
		if len(by[i]) == 0 {
			rs.Add(trust.Refuse("class-empty", r.text, "no item of shipment %d goes in by this rule", m.arrival).WithHint("'review classes' shows what each rule would take"))
			continue
		}
		slices.SortFunc(by[i], trust.Item.Compare)
		m.classes = append(m.classes, trust.NewClass(m.arrival, r.text, by[i]))
	}
	return rs.Err()
}

// selected is what an open proposal for the shipment, made under the documents in force, has selected. Its rules are applied anew: their result is compared with
// the proposed text as a whole.
func (d *Desk) selected(ctx context.Context, m *motion, wanted []trust.Item, orders *trust.Orders) (sel Selection, err error) {
	var digest string
	err = d.Zone.Read(ctx).QueryRowContext(ctx, `SELECT text FROM proposal WHERE track = ? AND shipment = ?`, m.track, m.arrival).Scan(&digest)
	if errors.Is(err, sql.ErrNoRows) {
		return sel, nil
	}
	if err != nil {
		return sel, err
	}
	sum, err := trust.ParseDigest(digest)
	if err != nil {
		return sel, err
	}
	text, err := d.Zone.CAS.ReadAll(sum, trust.MaxListSize)
	if err != nil {
		return sel, err
	}
	a, err := trust.ParseAllowlist(text)
	if err != nil {
		return sel, err
	}
	if a.Root < d.Root.Version || a.Orders < orders.Number() {
		return sel, nil // void
	}
	taken := 0
	for _, it := range wanted {
		if have, ok := a.ByName(it.Name); ok && have == it {
			taken++
		}
	}
	if taken == len(wanted) && len(a.Classes) == 0 {
		return sel, nil
	}
	classed := 0
	for _, c := range a.Classes {
		sel.Rules = append(sel.Rules, c.Rule)
		classed += c.Items
	}
	if taken > classed {
		for _, it := range wanted {
			if have, ok := a.ByName(it.Name); ok && have == it {
				sel.Items = append(sel.Items, it.Name)
			}
		}
	}
	return sel, nil
}

// facts gathers what rules may ask of items.
func (d *Desk) facts(ctx context.Context, c *dossier, track string, items []trust.Item, orders *trust.Orders) ([]fact, error) {
	found, err := d.findings(ctx, c)
	if err != nil {
		return nil, err
	}
	worst := map[string]int{}
	for _, f := range found {
		// A severity that is not known is the worst.
		s := slices.Index(severities, f.Severity)
		if s < 0 {
			s = len(severities)
		}
		worst[f.Item] = max(worst[f.Item], s)
	}
	known := map[trust.Item]bool{}
	for _, other := range d.Root.Tracks() {
		if other == track {
			continue
		}
		list, inForce, err := d.current(ctx, other, orders)
		if err != nil {
			return nil, err
		}
		if inForce {
			for _, it := range list.Items {
				known[it] = true
			}
		}
	}
	facts := make([]fact, len(items))
	for i, it := range items {
		facts[i] = fact{it, worst[it.SHA256.String()], known[it]}
	}
	return facts, nil
}

// findings reads the report that the entry about the shipment's inspection names.
func (d *Desk) findings(ctx context.Context, c *dossier) ([]attach.Finding, error) {
	e, err := d.entry(ctx, c.number, c.digest, statement.KindInspected)
	if err != nil {
		return nil, err
	}
	report, _ := e.Unverified().Predicate["report"].(string)
	sum, err := trust.ParseDigest(report)
	if err != nil {
		return nil, trust.Refuse("not-inspected", statement.Arrived(c.number), "the entry about its inspection names no report")
	}
	data, err := d.Zone.CAS.ReadAll(sum, attach.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("report of the inspection: %w", err)
	}
	return attach.ParseFindings(data)
}

// A ClassResult is what a rule would take of a shipment.
type ClassResult struct {
	Rule  string `json:"rule"`
	Items int    `json:"items"`
	Bytes int64  `json:"bytes"`
	Worst string `json:"worst"` // severity
}

// Classes says what each rule would take of what a shipment adds to a track, a rule not taking what one before it took; and what is left. Without rules it
// proposes some: by kind and severity, the mildest first.
func (d *Desk) Classes(ctx context.Context, number int64, track string, rules []string) (list []ClassResult, left []trust.Item, err error) {
	c, err := d.open(ctx, number)
	if err != nil {
		return nil, nil, err
	}
	orders, err := d.Zone.Orders(ctx, d.Root)
	if err != nil {
		return nil, nil, err
	}
	current, _, err := d.current(ctx, track, orders)
	if err != nil {
		return nil, nil, err
	}
	facts, err := d.facts(ctx, c, track, added(current, c.items), orders)
	if err != nil {
		return nil, nil, err
	}
	if len(rules) == 0 {
		for _, kind := range kinds {
			for _, s := range severities[:4] { // nobody should take what is to be blocked by a rule
				rules = append(rules, fmt.Sprintf("kind=%s,severity=%s", kind, s))
			}
		}
	}
	var parsed []rule
	for _, text := range rules {
		r, err := parseRule(text)
		if err != nil {
			return nil, nil, err
		}
		parsed = append(parsed, r)
	}
	list = make([]ClassResult, len(parsed))
	worst := make([]int, len(parsed))
	for _, f := range facts {
		i := slices.IndexFunc(parsed, func(r rule) bool { return r.takes(f) })
		if i < 0 {
			left = append(left, f.item)
			continue
		}
		list[i].Items++
		list[i].Bytes += f.item.Size
		worst[i] = max(worst[i], f.severity)
	}
	for i, r := range parsed {
		list[i].Rule = r.text
		if list[i].Worst = "unknown"; worst[i] < len(severities) {
			list[i].Worst = severities[worst[i]]
		}
	}
	return slices.DeleteFunc(list, func(c ClassResult) bool { return c.Items == 0 }), left, nil
}
