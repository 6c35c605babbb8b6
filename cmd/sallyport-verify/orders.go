package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	maxOrders     = 1_000_000 // versions
	maxOrderLines = 100_000
	maxOrderText  = 64 << 20
	maxChannel    = 64
)

// orders is one version of what officers order.
type orders struct {
	header
	note  *note
	lines []order
	has   map[string]bool // whole lines
}

// order is one line.
type order struct {
	line, word   string
	f            []string // between the word and the date
	date, reason string
}

// orderForms is what stands between the word of an order and its date.
var orderForms = map[string][]string{
	"break-glass": {"track", "until", "sha256", "size", "kind", "item"},
	"downgrade":   {"channel", "commit"},
	"lost":        {"shipment"},
	"recall":      {"sha256", "name"},
	"restored":    {"entries", "tree"},
	"settled":     {"derivation", "keyid"},
}

// get returns the field of that name.
func (o order) get(name string) string {
	for i, field := range orderForms[o.word] {
		if field == name {
			return o.f[i]
		}
	}
	return ""
}

func isOrderField(name, s string) (ok bool) {
	switch name {
	case "track":
		return isName(s)
	case "until":
		return isDate(s)
	case "sha256":
		return isDigest(s)
	case "size":
		_, ok = parseNumber(s, 0, maxNumber)
	case "entries", "shipment":
		_, ok = parseNumber(s, 1, maxNumber)
	case "tree":
		var raw []byte
		raw, ok = decode64(s)
		ok = ok && len(raw) == sha256.Size
	case "commit":
		return isLowerHex(s, 40)
	case "name":
		return isStoreName(s)
	case "derivation":
		return isStoreName(s) && strings.HasSuffix(s, ".drv")
	case "keyid":
		return isKeyID(s)
	case "channel":
		for i := range len(s) {
			c := s[i]
			letter := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
			if !letter && (i == 0 || strings.IndexByte("._+-", c) < 0) {
				return false
			}
		}
		return s != "" && len(s) <= maxChannel
	case "kind", "item":
		return s != "" // what is wrong with them has codes of its own
	}
	return ok
}

func parseOrder(line string) (o order, ok bool) {
	word, rest, _ := strings.Cut(line, " ")
	form := orderForms[word]
	f := strings.SplitN(rest, " ", len(form)+2)
	if form == nil || len(f) != len(form)+2 {
		return o, false
	}
	o = order{line, word, f[:len(form)], f[len(form)], f[len(form)+1]}
	for i, name := range form {
		if !isOrderField(name, o.f[i]) {
			return o, false
		}
	}
	return o, isDate(o.date) && isReason(o.reason)
}

// about is what no two orders have in common.
func (o order) about() string {
	switch o.word {
	case "break-glass":
		return o.word + o.get("track") + " " + o.get("sha256") + o.get("item")
	case "restored":
		return o.word + strings.Join(o.f, " ") + o.date
	}
	return o.word + strings.Join(o.f, " ")
}

func parseOrders(text, subject string) (*orders, error) {
	l := read("orders", subject, text, maxOrderText)
	o := &orders{header: l.header("sallyport orders v1", "enclave", "version", "date", "root", "previous"), has: map[string]bool{}}
	about := map[string]bool{}
	l.body(maxOrderLines, func(line string) bool {
		order, ok := parseOrder(line)
		glass := order.word == "break-glass"
		switch {
		case !ok:
			l.bad("syntax", "%.300q is no order", line)
		case about[order.about()]:
			l.bad("duplicate", "two orders are about the same as %.300q", line)
		case glass && !isItemKind(order.get("kind")):
			l.bad("kind", "kind %.100q is unknown", order.get("kind"))
		case glass && !isItemName(order.get("item"), order.get("kind")):
			l.bad("name", "%.300q is no name for a %s", order.get("item"), order.get("kind"))
		case order.date > o.date:
			l.bad("date", "%.300q is dated after the orders", line)
		case glass && order.date >= order.get("until"):
			l.bad("break-glass", "%.300q ends before it begins", line)
		default:
			o.lines, o.has[line] = append(o.lines, order), true
		}
		about[order.about()] = true
		return ok
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
	for _, order := range o.lines {
		if order.word == "break-glass" {
			lasts := instant(order.get("until")).Sub(instant(order.date))
			wrong.unless(allowed && lasts <= time.Duration(hours)*time.Hour, &o.header, "break-glass", "%.300q: root %d allows %d hours", order.line, r.version, hours)
			wrong.unless(r.thresholds["allowlist/"+order.get("track")] > 0, &o.header, "track", "root %d has no track %s", r.version, order.get("track"))
		}
	}
	return wrong
}

// of returns the orders of a word.
func (o *orders) of(word string) (found []order) {
	if o != nil {
		for _, order := range o.lines {
			if order.word == word {
				found = append(found, order)
			}
		}
	}
	return found
}

// openOrders reads orders 1, 2, 3 ..., each of which follows the one before. Whether they came into force, the ledger says. It ends before
// the first that is refused.
func openOrders(dir *os.Root, rep *report) (chain []*orders, err error) {
	files, err := listDir(dir, "orders", maxOrders, "orders")
	for n := 1; err == nil && n <= len(files); n++ {
		data, err := readFile(dir, fmt.Sprintf("orders/%d", n), maxOrderText+maxSigLines, "orders")
		if err != nil {
			return chain, rep.judge(err)
		}
		o, err := openOrder(data, fmt.Sprintf("orders %d", n))
		if err != nil {
			return chain, rep.judge(err)
		}
		wrong := faults{}
		if n > 1 {
			wrong = o.after(chain[n-2])
		} else {
			wrong.unless(o.version == 1, &o.header, "version", "says that it is version %d", o.version)
		}
		if len(wrong) > 0 {
			return chain, rep.judge(wrong)
		}
		chain = append(chain, o)
	}
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
