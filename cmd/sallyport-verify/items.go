package main

import (
	"slices"
	"strings"
)

const (
	maxItems      = 1_000_000
	maxListText   = 256 << 20
	maxRecent     = 16
	maxShipment   = 1 << 53
	maxStoreName  = 217 // file names end at 255: 32 of hash, a dash, and Guix's ".lock" beside it
	storeHash     = 32
	storeAlphabet = "0123456789abcdfghijklmnpqrsvwxyz" // Guix's base32: no e, o, t, u
)

// items is the sorted item lines of a manifest or an allowlist.
type items struct {
	lines []string
	bytes int64 // sum of the sizes, of a manifest
}

type item struct {
	sha256, kind, name string
	size               int64
}

func parseItem(line string) (item, bool) {
	f := strings.SplitN(line, " ", 5)
	if len(f) != 5 || f[0] != "item" || !isDigest(f[1]) {
		return item{}, false
	}
	size, ok := parseNumber(f[2], maxNumber)
	return item{f[1], f[3], f[4], size}, ok
}

func (x *items) has(line string) bool { _, ok := slices.BinarySearch(x.lines, line); return ok }

// readItems reads item lines to the end of l.
func readItems(l *lines) (x items) {
	names := map[string]bool{}
	var before item
	last := ""
	for l.more() {
		line := l.next()
		it, ok := parseItem(line)
		if strings.HasPrefix(line, "item ") {
			next := l.ascending(last, line)
			if last = line; !next {
				continue
			}
		}
		switch {
		case !ok:
			l.bad("syntax", "%.300q is no item line", line)
		case it.kind != "source" && it.kind != "derivation" && it.kind != "output":
			l.bad("kind", "kind %.100q is unknown", it.kind)
		case !isStoreName(it.name) || (it.kind == "derivation") != strings.HasSuffix(it.name, ".drv"):
			l.bad("name", "%.300q is no name for a %.100q", it.name, it.kind)
		case names[it.name]:
			l.bad("duplicate-name", "two items are named %.300q", it.name)
		case it.sha256 == before.sha256 && it.size != before.size:
			l.bad("item-size", "%s has two sizes", it.sha256)
		case len(x.lines) >= maxItems || l.area == "manifest" && x.bytes+it.size > maxNumber:
			l.bad("size", "more than %d items, or %d bytes in all", maxItems, int64(maxNumber))
		default:
			before, names[it.name] = it, true
			x.lines, x.bytes = append(x.lines, line), x.bytes+it.size
		}
	}
	return x
}

// isStoreName tells whether s is the base name of a store path: HASH-NAME.
func isStoreName(s string) bool {
	if len(s) < storeHash+2 || len(s) > storeHash+1+maxStoreName || s[storeHash] != '-' || s[storeHash+1] == '.' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if i < storeHash && strings.IndexByte(storeAlphabet, c) < 0 || i > storeHash && !letter && strings.IndexByte("+-._?=", c) < 0 {
			return false
		}
	}
	return true
}

// allowlist is one version of what a track allows.
type allowlist struct {
	enclave, track, date, previous, digest string
	version, root                          int64
	items
}

func parseAllowlist(text, subject string) (*allowlist, error) {
	if len(text) > maxListText {
		return nil, refuse("allowlist-size", subject, "%d bytes, more than %d", len(text), maxListText)
	}
	a := &allowlist{digest: digestOf(text)}
	l := read("allowlist", subject, text)
	l.head("sallyport allowlist v1")
	a.enclave = l.field("enclave", isName)
	a.track = l.field("track", isName)
	a.version = l.numberField("version", 1)
	a.date = l.field("date", isDate)
	a.root = l.numberField("root", 1)
	a.previous = l.field("previous", isDigestOrDash)
	if !l.dead && (a.version == 1) != (a.previous == "-") {
		l.bad("previous", "is %s in version %d", a.previous, a.version)
	}
	a.items = readItems(l)
	return a, l.end()
}

// manifest is what a shipment offers.
type manifest struct {
	enclave, date, previous string
	number                  int64
	items
}

func parseManifest(text, subject string) (*manifest, error) {
	m := &manifest{}
	l := read("manifest", subject, text)
	l.head("sallyport manifest v1")
	m.enclave = l.field("enclave", isName)
	if m.number = l.numberField("shipment", 1); m.number > maxShipment {
		l.bad("number", "%d is above %d", m.number, int64(maxShipment))
	}
	m.date = l.field("date", isDate)
	m.previous = l.field("previous", isDigestOrDash)
	if !l.dead && (m.number == 1) != (m.previous == "-") {
		l.bad("previous", "is %s in shipment %d", m.previous, m.number)
	}
	for n, below := 0, m.number; l.more() && strings.HasPrefix(l.text[l.pos:], "recent "); n++ {
		number, date, _ := strings.Cut(strings.TrimPrefix(l.next(), "recent "), " ")
		former, ok := parseNumber(number, maxNumber)
		if !ok || !isDate(date) {
			l.fail("no number and date of a recent shipment")
		} else if former < 1 || former >= below || n >= maxRecent {
			l.bad("recent", "shipment %d is not below %d, or one of more than %d", former, below, maxRecent)
		}
		below = former
	}
	if m.items = readItems(l); len(m.lines) == 0 && len(l.faults) == 0 {
		l.bad("empty", "no items")
	}
	return m, l.end()
}
