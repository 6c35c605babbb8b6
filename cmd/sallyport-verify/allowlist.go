package main

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

const (
	maxItems      = 1_000_000
	maxListText   = 256 << 20
	maxRecent     = 16
	maxStoreName  = 217 // file names end at 255: 32 of hash, a dash, and Guix's ".lock" beside it
	storeHash     = 32
	storeAlphabet = "0123456789abcdfghijklmnpqrsvwxyz" // Guix's base32: no e, o, t, u
)

// items is the sorted item lines of a manifest or an allowlist. A million of them are kept as offsets into the text.
type items struct {
	text   string
	starts []uint32 // of the lines, after "item "
	bytes  int64    // sum of the sizes
}

type item struct {
	sha256, kind, name string
	size               int64
}

func (x *items) line(i int) string {
	line, _, _ := strings.Cut(x.text[x.starts[i]:], "\n")
	return line
}

func (x *items) sha256(i int) string { return x.text[x.starts[i]:][:64] }

func (x *items) item(i int) item {
	f := strings.SplitN(x.line(i), " ", 4)
	size, _ := parseNumber(f[1], maxSize)
	return item{f[0], f[2], f[3], size}
}

// find returns the first of the items with this digest, or len(starts).
func (x *items) find(digest string) (int, bool) {
	return sort.Find(len(x.starts), func(i int) int { return strings.Compare(digest, x.sha256(i)) })
}

func (x *items) has(digest string) bool { _, ok := x.find(digest); return ok }

// namedError carries a reason code of its own out of a parser.
type namedError struct {
	code string
	error
}

// readItems reads item lines to the end of l. The sum of the sizes is bounded, too.
func readItems(l *lines) (*items, error) {
	x := &items{text: l.text}
	var names []string
	before, code := "", ""
	for l.more() {
		start := l.pos + len("item ")
		line := l.next()
		f := strings.SplitN(line, " ", 5)
		if l.err != nil || len(f) != 5 || f[0] != "item" {
			l.fail("%.200q is no item line", line)
			break
		}
		size, ok := parseNumber(f[2], maxSize)
		switch {
		case !isDigest(f[1]) || !ok:
			l.fail("sha256 or size of %.200q", line)
		case line <= before:
			l.fail("not sorted, or twice")
		case len(names) >= maxItems || x.bytes+size > maxSize:
			l.fail("more than %d items, or %d bytes in all", maxItems, int64(maxSize))
		case f[3] != "source" && f[3] != "derivation" && f[3] != "output":
			l.fail("kind %.100q is unknown", f[3])
			code = "manifest-kind"
		case !isStoreName(f[4]) || f[3] == "derivation" && !strings.HasSuffix(f[4], ".drv"):
			l.fail("%.300q is no name for a %s", f[4], f[3])
		}
		if l.err != nil {
			break
		}
		before, names = line, append(names, f[4])
		x.starts, x.bytes = append(x.starts, uint32(start)), x.bytes+size
	}
	if l.err == nil {
		slices.Sort(names)
		for i := 1; i < len(names); i++ {
			if names[i] == names[i-1] {
				return x, namedError{"manifest-duplicate-name", fmt.Errorf("two items are named %s", names[i])}
			}
		}
	}
	if code != "" {
		return x, namedError{code, l.err}
	}
	return x, l.err
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

// formFault turns an error of a parser into a fault: with the code it carries, or AREA-form.
func formFault(err error, area, subject string) *fault {
	code := area + "-form"
	var named namedError
	if errors.As(err, &named) {
		code = named.code
	}
	return refuse(code, subject, "%v", err)
}

// allowlist is one version of what a track allows.
type allowlist struct {
	enclave, track, date, previous, digest string
	version, root                          int64
	*items
}

func parseAllowlist(text string) (a *allowlist, err error) {
	if len(text) > maxListText {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), maxListText)
	}
	a = &allowlist{digest: digestOf(text)}
	l := &lines{text: text}
	l.literal("sallyport allowlist v1")
	a.enclave = l.field("enclave", isName)
	a.track = l.field("track", isName)
	a.version = l.numberField("version", 1, maxSize)
	a.date = l.field("date", isDate)
	a.root = l.numberField("root", 1, maxSize)
	a.previous = l.field("previous", isDigestOrDash)
	if (a.version == 1) != (a.previous == "-") {
		l.fail("previous is %s in version %d", a.previous, a.version)
	}
	a.items, err = readItems(l)
	return a, err
}

// manifest is what a shipment offers.
type manifest struct {
	enclave, date, previous string
	number                  int64
	*items
}

func parseManifest(text string) (m *manifest, err error) {
	if len(text) > maxListText {
		return nil, fmt.Errorf("%d bytes, more than %d", len(text), maxListText)
	}
	m = &manifest{}
	l := &lines{text: text}
	l.literal("sallyport manifest v1")
	m.enclave = l.field("enclave", isName)
	m.number = l.numberField("shipment", 1, maxSize)
	m.date = l.field("date", isDate)
	m.previous = l.field("previous", isDigestOrDash)
	if (m.number == 1) != (m.previous == "-") {
		l.fail("previous is %s in shipment %d", m.previous, m.number)
	}
	for n, before := 0, m.number; l.more() && strings.HasPrefix(l.text[l.pos:], "recent "); n++ {
		l.field("recent", func(s string) bool {
			number, date, _ := strings.Cut(s, " ")
			former, ok := parseNumber(number, maxSize)
			ok = ok && former > 0 && former < before && isDate(date) && n < maxRecent
			before = former
			return ok
		})
	}
	m.items, err = readItems(l)
	if err == nil && len(m.starts) == 0 {
		err = errors.New("no items")
	}
	return m, err
}
