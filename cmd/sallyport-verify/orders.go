package main

import (
	"os"
	"strings"
	"time"
)

const (
	maxOrders     = 1_000_000 // versions
	maxOrderLines = 100_000
	maxOrderText  = 64 << 20
	maxExcuse     = 366 * 24 * time.Hour
)

// orders is one version of what officers order.
type orders struct {
	header
	note  *note
	lines []order
	of    map[string][]order // by their word
	has   map[string]bool    // whole lines
	about map[string]bool    // what they are about
}

// order is one line. Which fields it has depends on its word.
type order struct {
	line, word, date, reason string
	about                    string // what no two orders have in common
	track, until, kind       string // of broken glass
	sha256, name             string // of that, or of what is recalled
	tree                     tree   // that was put back
}

func parseOrder(line string) (o order, ok bool) {
	// What is wrong with the kind and name of an item has codes of its own.
	f := match(line, "break-glass, name, date, sha256, count, word, word, date, reason", "channel, channel, url, branch, commit, openpgp, date, reason",
		"excuse, name, name, channel, commit or -, openpgp or -, date, date, reason", "downgrade, channel, commit, date, reason", "lost, number, date, reason",
		"recall, sha256, item name, date, reason", "restored, number, tree, date, reason", "settled, derivation, keyid, date, reason")
	if f == nil {
		return o, false
	}
	n := len(f) - 2
	o = order{line: line, word: f[0], date: f[n], reason: f[n+1], about: strings.Join(f[:n], " ")}
	switch o.word {
	case "break-glass":
		o.track, o.until, o.sha256, o.kind, o.name = f[1], f[2], f[3], f[5], f[6]
		o.about = strings.Join([]string{o.word, o.track, o.sha256, o.name}, " ")
	case "channel", "excuse":
		o.about = f[0] + " " + f[1]
		o.until = f[n-1] // of an excuse
	case "recall":
		o.sha256, o.name = f[1], f[2]
	case "restored":
		raw, _ := decode64(f[2])
		o.tree = tree{number(f[1]), hash(raw)}
		o.about += " " + o.date
	}
	return o, true
}

func parseOrders(text, subject string) (*orders, error) {
	l := read("orders", subject, text, maxOrderText)
	o := &orders{header: l.header("sallyport orders v1", "enclave", "version", "date", "root", "previous"), of: map[string][]order{}, has: map[string]bool{}, about: map[string]bool{}}
	l.body(maxOrderLines, func(line string) bool {
		order, ok := parseOrder(line)
		glass := order.word == "break-glass"
		switch {
		case !ok:
			l.bad("syntax", "%.300q is no order", line)
		case o.about[order.about]:
			l.bad("duplicate", "two orders are about the same as %.300q", line)
		case glass && !is("item kind", order.kind):
			l.bad("kind", "kind %.100q is unknown", order.kind)
		case glass && !isItemName(order.name, order.kind):
			l.bad("name", "%.300q is no name for a %s", order.name, order.kind)
		case order.date > o.date:
			l.bad("date", "%.300q is dated after the orders", line)
		case order.word == "excuse" && (order.date >= order.until || instant(order.until).Sub(instant(order.date)) > maxExcuse):
			l.bad("excuse", "%.300q lasts no time, or too long", line)
		case glass && order.date >= order.until:
			l.bad("break-glass", "%.300q ends before it begins", line)
		default:
			o.lines, o.of[order.word], o.has[line] = append(o.lines, order), append(o.of[order.word], order), true
		}
		o.about[order.about] = true
		return true
	})
	return o, l.end()
}

// after tells what orders lack to follow those before them.
func (o *orders) after(before *orders) faults {
	wrong := o.header.after(&before.header)
	for _, order := range before.lines {
		kept := order.word != "lost" && order.word != "recall" && order.word != "restored" || o.has[order.line]
		wrong.unless(kept, &o.header, "dropped", "%.300q of version %d is gone, and is never taken back", order.line, before.version)
	}
	return wrong
}

// under tells what orders lack to come into force under a root.
func (o *orders) under(r *root) faults {
	_, wrong := r.open(o.note, "order", o.date, r.thresholds["order"])
	wrong = append(wrong, o.header.under(r)...)
	hours, allowed := r.policies["break-glass"]
	for _, glass := range o.of["break-glass"] {
		lasts := instant(glass.until).Sub(instant(glass.date))
		wrong.unless(allowed && lasts <= time.Duration(hours)*time.Hour, &o.header, "break-glass", "%.300q: root %d allows %d hours", glass.line, r.version, hours)
		wrong.unless(r.thresholds["allowlist/"+glass.track] > 0, &o.header, "track", "root %d has no track %s", r.version, glass.track)
	}
	return wrong
}

// openOrders reads orders 1, 2, 3 ..., each of which follows the one before. Whether they came into force, the ledger says. It ends before
// the first that is refused.
func openOrders(dir *os.Root, rep *report) (chain []*orders, err error) {
	err = documents(dir, "orders", "orders", 0, maxOrders, maxOrderText, func(data []byte, subject string) error {
		o, err := openOrder(data, subject)
		if err != nil {
			return err
		}
		var wrong faults
		if n := len(chain); n > 0 {
			wrong = o.after(chain[n-1])
		} else {
			wrong.unless(o.version == 1, &o.header, "version", "says that it is version %d", o.version)
		}
		if len(wrong) == 0 {
			chain = append(chain, o)
		}
		return wrong.err()
	})
	return chain, rep.judge(err)
}

func openOrder(data []byte, subject string) (*orders, error) {
	n, err := parseNote(data, "orders", subject)
	if err != nil {
		return nil, err
	}
	o, err := parseOrders(n.text, subject)
	o.note = n
	return o, err
}

// recall is a line of orders that puts something out, and the first version that has it.
type recall struct {
	order
	version int64
}

// before tells whether the recall was in force when so many orders had been.
func (r *recall) before(ordered int) bool { return r != nil && r.version <= int64(ordered) }

type recalledItem struct {
	version      int64
	name, digest string
}

// recall gathers what a chain of orders recalls, and since when.
func (a *audit) recall(chain []*orders) {
	for i, o := range chain {
		for _, line := range o.of["recall"] {
			if i == 0 || !chain[i-1].has[line.line] {
				a.follow(line.name, &recall{line, o.version})
				a.follow(line.sha256, &recall{line, o.version})
			}
		}
	}
}

// recalled returns what recalls something of one of these names or digests, in force or not.
func (a *audit) recalled(of ...string) *recall {
	for _, s := range of {
		if r := a.recalls[s]; r != nil {
			return r
		}
	}
	return nil
}

// follow remembers that what has this name, or digest, is recalled.
func (a *audit) follow(of string, r *recall) {
	if r != nil && a.recalls[of] == nil {
		a.recalls[of] = r
	}
}
