package trust

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
)

// Kinds of items.
const (
	KindChannel    = "channel"    // a nar with a pin and a git bundle; NAME is bound to it as a source's is
	KindSource     = "source"     // a nar; NAME is bound to it by a store path of type source
	KindDerivation = "derivation" // a .drv file; NAME is bound to it by its text store path
	KindOutput     = "output"     // a nar; NAME is bound to it only by a quorum or a fixed output
)

// itemKinds returns all kinds of items, sorted.
func itemKinds() []string { return []string{KindChannel, KindDerivation, KindOutput, KindSource} }

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
		return Item{}, "syntax", fmt.Errorf("want SHA256 SIZE KIND NAME, have %.80q", line)
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
	case KindChannel:
		it.Kind = KindChannel
	default:
		return Item{}, "kind", fmt.Errorf("kind %.80q is not known", kind)
	}
	if !isBase(name) {
		_, err := storepath.ParseBase(name)
		return Item{}, "name", fmt.Errorf("name %.80q: %w", name, err)
	}
	if drv := strings.HasSuffix(name, ".drv"); drv != (kind == KindDerivation) {
		return Item{}, "name", fmt.Errorf("name %q of kind %s: a name ends in .drv if and only if it is a derivation's", name, kind)
	}
	it.Name = name
	return it, "", nil
}

// Check reports what would keep the item's line from being parsed again.
func (it Item) Check() error {
	_, err := ParseItem(it.String())
	return err
}

// isBase reports what [storepath.ParseBase] does, without making the path: a list
// has a million of them.
func isBase(s string) bool {
	if len(s) <= storepath.HashLen || s[storepath.HashLen] != '-' {
		return false
	}
	for i := range storepath.HashLen {
		if !isBase32[s[i]] {
			return false
		}
	}
	return storepath.CheckName(s[storepath.HashLen+1:]) == nil
}

var isBase32 = func() (t [256]bool) {
	for _, c := range "0123456789abcdfghijklmnpqrsvwxyz" {
		t[c] = true
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
		if !s.inOrder(&last, line, off) {
			continue
		}
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
