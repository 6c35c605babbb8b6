package main

import (
	"fmt"
	"slices"
	"strings"
)

const (
	maxItems     = 1_000_000
	maxClasses   = 1000
	maxRule      = 200
	maxRuleValue = 64
	maxListText  = 256 << 20
	maxRecent    = 16
	maxShipment  = 1 << 53
)

// items is those of a manifest or an allowlist, sorted by their lines.
type items struct {
	list  []item
	bytes int64 // sum of the sizes, of a manifest
}

type item struct {
	line, sha256, kind, name string
	size                     int64
}

func isItemName(s, kind string) bool {
	return isStoreName(s) && (kind == "derivation") == strings.HasSuffix(s, ".drv")
}

// parseItem reads an item line, but for what is wrong with its kind and its name.
func parseItem(line string) (item, bool) {
	f := match(line, "item, sha256, count, word, text")
	if f == nil {
		return item{}, false
	}
	return item{line, f[1], f[3], f[4], number(f[2])}, true
}

func (x *items) has(it item) bool {
	_, ok := slices.BinarySearchFunc(x.list, it, func(a, b item) int { return strings.Compare(a.line, b.line) })
	return ok
}

// reader returns what takes item lines.
func (x *items) reader(l *lines) func(line string) bool {
	names := map[string]bool{}
	var before item
	return func(line string) bool {
		it, ok := parseItem(line)
		switch {
		case !ok:
			l.bad("syntax", "%.300q is no item line", line)
		case !is("item kind", it.kind):
			l.bad("kind", "kind %.100q is unknown", it.kind)
		case !isItemName(it.name, it.kind):
			l.bad("name", "%.300q is no name for a %.100q", it.name, it.kind)
		case names[it.name]:
			l.bad("duplicate-name", "two items are named %.300q", it.name)
		case it.sha256 == before.sha256 && it.size != before.size:
			l.bad("item-size", "%s has two sizes", it.sha256)
		case len(x.list) >= maxItems || l.area == "manifest" && x.bytes+it.size > maxNumber:
			l.refuse(true, "size", "more than %d items, or %d bytes in all", maxItems, int64(maxNumber))
		default:
			before, names[it.name] = it, true
			x.list, x.bytes = append(x.list, it), x.bytes+it.size
		}
		return strings.HasPrefix(line, "item ")
	}
}

// allowlist is one version of what a track allows.
type allowlist struct {
	header
	note    *note
	classes []class
	items
	kinds map[string]bool   // of its items
	drvs  map[string]string // derivations: their SHA-256 by their name
	// approved is the entry of the last approval by which the list came into force.
	approved int64
}

// class says how many items of a shipment reviewers approved by a rule, and which: the digest of their lines.
type class struct {
	shipment, items int64
	rule, digest    string
}

func openAllowlist(data []byte, subject string) (*allowlist, error) {
	n, err := parseNote(data, "allowlist", subject)
	if err != nil {
		return nil, err
	}
	a, err := parseAllowlist(n.text, subject)
	a.note = n
	return a, err
}

func parseAllowlist(text, subject string) (*allowlist, error) {
	l := read("allowlist", subject, text, maxListText)
	a := &allowlist{header: l.header("sallyport allowlist v1", "enclave", "track", "version", "date", "root", "orders", "previous"), kinds: map[string]bool{}, drvs: map[string]string{}}
	rules := map[string]bool{}
	takeItem := a.items.reader(l)
	l.body(maxItems+maxClasses, func(line string) bool {
		if !strings.HasPrefix(line, "class ") || len(a.list) > 0 {
			return takeItem(line)
		}
		c, ok := parseClass(line)
		if rule := fmt.Sprint(c.shipment, c.rule); !ok || rules[rule] {
			l.bad("class", "%.300q is no class, or stands twice", line)
		} else {
			a.classes, rules[rule] = append(a.classes, c), true
		}
		l.refuse(len(a.classes) > maxClasses, "size", "more than %d classes", maxClasses)
		return true
	})
	for _, c := range a.classes {
		if c.items > int64(len(a.list)) && len(l.faults) == 0 {
			l.bad("class", "rule %s approves %d items, the list has %d", c.rule, c.items, len(a.list))
		}
	}
	for _, it := range a.list {
		if a.kinds[it.kind] = true; it.kind == "derivation" {
			a.drvs[it.name] = it.sha256
		}
	}
	return a, l.end()
}

func parseClass(line string) (class, bool) {
	f := match(line, "class, number, word, number, sha256")
	if f == nil || !isRule(f[2]) {
		return class{}, false
	}
	return class{number(f[1]), number(f[3]), f[2], f[4]}, true
}

// under tells what a list lacks to come into force under a root and orders, and whose signatures count.
func (a *allowlist) under(r *root, o *orders) (by []signature, wrong faults) {
	by, wrong = r.open(a.note, "allowlist", a.date, r.need(a))
	wrong = append(wrong, a.header.under(r)...)
	wrong.unless(r.thresholds["allowlist/"+a.track] > 0, &a.header, "track", "root %d has no track %s", r.version, a.track)
	wrong.unless(a.orders <= o.version, &a.header, "orders", "names orders %d; orders %d are in force", a.orders, o.version)
	wrong.unless(a.orders != o.version || a.date >= o.date, &a.header, "date", "its date is before that of orders %d", o.version)
	return by, wrong
}

// isRule tells whether s is terms FIELD OP VALUE, sorted and each once, with commas between.
func isRule(s string) bool {
	before := ""
	for term := range strings.SplitSeq(s, ",") {
		field := strings.TrimLeft(term, "abcdefghijklmnopqrstuvwxyz0123456789-")
		at := len(term) - len(field)
		value, ok := "", false
		for _, op := range []string{"=", "!=", "<=", ">="} {
			if v, found := strings.CutPrefix(field, op); found {
				value, ok = v, true
			}
		}
		if !ok || term <= before || at == 0 || at > maxName || term[0] < 'a' || value == "" || len(value) > maxRuleValue || !isMadeOf(printable, value) || strings.ContainsAny(value, " <>=!") {
			return false
		}
		before = term
	}
	return len(s) <= maxRule
}

// manifest is what a shipment offers.
type manifest struct {
	header // its number is the version
	items
}

func parseManifest(text, subject string) (*manifest, error) {
	l := read("manifest", subject, text, maxListText)
	m := &manifest{header: l.header("sallyport manifest v1", "enclave", "shipment", "date", "previous")}
	l.refuse(m.version > maxShipment, "number", "%d is above %d", m.version, int64(maxShipment))
	for n, below := 0, m.version; l.more() && strings.HasPrefix(l.text[l.pos:], "recent "); n++ {
		f := match(l.next(), "recent, number, date")
		if f == nil {
			l.fail("no number and date of a recent shipment")
			break
		}
		former := number(f[1])
		if former >= below || n >= maxRecent {
			l.bad("recent", "shipment %d is not below %d, or one of more than %d", former, below, maxRecent)
		}
		below = former
	}
	if l.body(maxItems, m.items.reader(l)); len(m.list) == 0 && len(l.faults) == 0 {
		l.bad("empty", "no items")
	}
	return m, l.end()
}
