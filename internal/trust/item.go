package trust

import (
	"cmp"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
)

// Kinds of items.
const (
	KindSource     = "source"     // a nar; NAME is bound to it by a store path of type source
	KindDerivation = "derivation" // a .drv file; NAME is bound to it by its text store path
	KindOutput     = "output"     // a nar; NAME is bound to it only by a quorum or a fixed output
)

// hashLen is the length of the hash in a store path's base name, maxBase that
// of the whole name: what is left of a file name of 255 bytes when `.lock`
// stands behind it.
const (
	hashLen = 32
	maxBase = 255 - len(".lock")
)

// An Item is one thing that crosses: a line of a manifest or an allowlist.
// Name is the base name of a store path.
type Item struct {
	SHA256 Digest
	Size   int64
	Kind   string
	Name   string
}

// String returns the fields as they stand behind `item `: SHA256 SIZE KIND NAME.
func (it Item) String() string { return string(it.append(nil)) }

func (it Item) append(b []byte) []byte {
	b = hex.AppendEncode(b, it.SHA256[:])
	b = append(b, ' ')
	b = appendNumber(b, it.Size)
	b = append(b, ' ')
	b = append(b, it.Kind...)
	b = append(b, ' ')
	return append(b, it.Name...)
}

// Compare orders items as the bytes of their lines are ordered.
func (it Item) Compare(other Item) int {
	if c := slices.Compare(it.SHA256[:], other.SHA256[:]); c != 0 {
		return c
	}
	if it.Size != other.Size { // as text: 10 stands before 9
		return strings.Compare(strconv.FormatInt(it.Size, 10), strconv.FormatInt(other.Size, 10))
	}
	// A space sorts before every byte of a field, so fields compare one by one.
	return cmp.Or(strings.Compare(it.Kind, other.Kind), strings.Compare(it.Name, other.Name))
}

// SortItems puts items in the order of a document.
func SortItems(items []Item) { slices.SortFunc(items, Item.Compare) }

// ParseItem parses `SHA256 SIZE KIND NAME`. The refusal's code is item-syntax,
// item-kind or item-name.
func ParseItem(line string) (Item, error) {
	it, fault, err := parseItem(line)
	if err != nil {
		return Item{}, Refuse("item-"+fault, "item", "%v", err)
	}
	return it, nil
}

// parseItem does the work of ParseItem; fault is the second half of a code.
func parseItem(line string) (it Item, fault string, err error) {
	digest, rest, ok1 := strings.Cut(line, " ")
	size, rest, ok2 := strings.Cut(rest, " ")
	kind, name, ok3 := strings.Cut(rest, " ")
	if !ok1 || !ok2 || !ok3 {
		return Item{}, "syntax", errText("want SHA256 SIZE KIND NAME, have " + strconv.Quote(clip(line)))
	}
	if it.SHA256, err = ParseDigest(digest); err != nil {
		return Item{}, "syntax", err
	}
	if it.Size, err = ParseNumber(size, MaxSize); err != nil {
		return Item{}, "syntax", err
	}
	switch kind { // the constants, so that a list does not hold its text in memory for them
	case KindSource:
		it.Kind = KindSource
	case KindDerivation:
		it.Kind = KindDerivation
	case KindOutput:
		it.Kind = KindOutput
	default:
		return Item{}, "kind", errText("kind " + strconv.Quote(clip(kind)) + " is not known")
	}
	if err := checkBase(name); err != nil {
		return Item{}, "name", err
	}
	if drv := strings.HasSuffix(name, ".drv"); drv != (kind == KindDerivation) {
		return Item{}, "name", errText("name " + strconv.Quote(name) + " of kind " + kind + ": a name ends in .drv if and only if it is a derivation's")
	}
	it.Name = name
	return it, "", nil
}

// Check reports what would keep the item's line from being parsed again.
func (it Item) Check() error {
	_, err := ParseItem(it.String())
	return err
}

type errText string

func (e errText) Error() string { return string(e) }

func clip(s string) string {
	if len(s) > 80 {
		return s[:80]
	}
	return s
}

// checkBase checks the base name of a store path: 32 characters of Guix base32,
// a hyphen, then at least one character of a name.
func checkBase(s string) error {
	if len(s) < hashLen+2 || len(s) > maxBase || s[hashLen] != '-' {
		return errText("name " + strconv.Quote(clip(s)) + ": want HASH-NAME, the base name of a store path")
	}
	for i := 0; i < hashLen; i++ {
		if nameClass[s[i]]&isBase32 == 0 {
			return errText("name " + strconv.Quote(s) + ": the hash is not base32")
		}
	}
	if s[hashLen+1] == '.' {
		return errText("name " + strconv.Quote(s) + ": begins with a dot")
	}
	for i := hashLen + 1; i < len(s); i++ {
		if nameClass[s[i]]&isName == 0 {
			return errText("name " + strconv.Quote(s) + ": want letters, digits and +-._?=")
		}
	}
	return nil
}

const (
	isBase32 = 1 << iota
	isName
)

var nameClass = func() (t [256]byte) {
	for _, c := range "0123456789abcdfghijklmnpqrsvwxyz" {
		t[c] |= isBase32
	}
	for _, c := range "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?=" {
		t[c] |= isName
	}
	return t
}()

// Items reads all `item` lines up to the end of the text: sorted, none twice, no
// name twice, one size for a content. A list without items is refused if some
// is set.
func (s *Scanner) Items(some bool) []Item {
	items, _ := s.items(some)
	return items
}

// items is Items; the places of names are needed to find doubles, and kept by an allowlist.
func (s *Scanner) items(some bool) (items []Item, names map[string]int) {
	// A line is rarely shorter than this; more is grown into, never promised.
	if n := len(s.rest) / 120; n > 0 {
		items = make([]Item, 0, min(n, MaxItems))
	}
	names = make(map[string]int, cap(items))
	last := ""
	for !s.bad.Full() {
		line, off, ok := s.Next()
		if !ok {
			break
		}
		rest, ok := strings.CutPrefix(line, "item ")
		if !ok {
			s.Refuse("syntax", off, "line %.60q where %q must stand", line, "item …")
			continue
		}
		order := strings.Compare(last, line)
		if order == 0 {
			s.Refuse("duplicate", off, "line %.160q stands twice", line)
			continue
		}
		if order > 0 {
			s.Refuse("unsorted", off, "line %.160q stands behind a greater one", line)
		}
		last = line
		it, fault, err := parseItem(rest)
		if err != nil {
			s.Refuse(fault, off, "%v", err)
			continue
		}
		if _, ok := names[it.Name]; ok {
			s.Refuse("duplicate-name", off, "two items are named %s", it.Name)
			continue
		}
		names[it.Name] = len(items)
		if n := len(items); n > 0 && items[n-1].SHA256 == it.SHA256 && items[n-1].Size != it.Size {
			s.Refuse("item-size", off, "%s has %d bytes on one line and %d on another", it.SHA256, items[n-1].Size, it.Size)
		}
		if len(items) == MaxItems {
			s.Refuse("size", off, "more than %d items", MaxItems)
			return items, names
		}
		items = append(items, it)
	}
	if some && len(items) == 0 && len(s.bad) == 0 {
		s.Refuse("empty", s.off, "no item")
	}
	return items, names
}

// AppendItems appends the lines of items, which must be sorted, to a text.
func AppendItems(text []byte, items []Item) []byte {
	for _, it := range items {
		text = append(text, "item "...)
		text = it.append(text)
		text = append(text, '\n')
	}
	return text
}
