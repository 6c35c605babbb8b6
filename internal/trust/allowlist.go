package trust

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"time"
)

// An Allowlist is what a track of an enclave allows. To make one, fill the
// exported fields and take [Allowlist.Text]. One that was parsed is not to be changed.
type Allowlist struct {
	Enclave  string
	Track    string
	Version  int64
	Date     time.Time
	Root     int64 // the root's version in force when it was signed
	Orders   int64 // the orders' version in force when it was signed, 0 if there were none
	Previous Digest
	Classes  []Class // rules by which items of this version were approved
	Items    []Item  // sorted

	digest Digest         // of the text it was parsed from
	byName map[string]int // made when parsed
	self   *Allowlist     // itself once it was opened, by the threshold of an opened root
}

// Text prints the allowlist; the items need not be sorted.
func (a *Allowlist) Text() []byte {
	items := a.Items
	if !slices.IsSortedFunc(items, Item.Compare) {
		items = slices.Clone(items)
		SortItems(items)
	}
	b := make([]byte, 0, 512+160*len(items))
	b = fmt.Appendf(b, "%s\nenclave %s\ntrack %s\nversion %d\ndate %s\nroot %d\norders %d\nprevious %s\n",
		allowlistTitle, a.Enclave, a.Track, a.Version, FormatDate(a.Date), a.Root, a.Orders, FormatPrevious(a.Previous))
	for _, line := range classLines(a.Classes) {
		b = append(append(b, line...), '\n')
	}
	return AppendItems(b, items)
}

// Opened reports whether the list was verified by an opened root.
func (a *Allowlist) Opened() bool { return a != nil && a.self == a }

// Digest returns the digest of the text.
func (a *Allowlist) Digest() Digest {
	if a.digest.IsZero() {
		return Sum(a.Text())
	}
	return a.digest
}

// ByName returns the item of a name.
func (a *Allowlist) ByName(name string) (Item, bool) {
	if a.byName != nil {
		i, ok := a.byName[name]
		if !ok {
			return Item{}, false
		}
		return a.Items[i], true
	}
	i := slices.IndexFunc(a.Items, func(it Item) bool { return it.Name == name })
	if i < 0 {
		return Item{}, false
	}
	return a.Items[i], true
}

// BySHA256 returns the first item of a content.
func (a *Allowlist) BySHA256(d Digest) (Item, bool) {
	i, ok := slices.BinarySearchFunc(a.Items, d, func(it Item, d Digest) int { return bytes.Compare(it.SHA256[:], d[:]) })
	if !ok {
		return Item{}, false
	}
	return a.Items[i], true
}

// ParseAllowlist checks the form of an allowlist's text, and nothing of who signed it.
func ParseAllowlist(text []byte) (*Allowlist, error) {
	s, err := NewScanner("allowlist", text, MaxListSize)
	if err != nil {
		return nil, err
	}
	a, err := parseHead(s)
	if err != nil {
		return nil, err
	}
	if err := a.parseBody(s, text); err != nil {
		return nil, err
	}
	return a, nil
}

// parseHead reads an allowlist up to its first class or item.
func parseHead(s *Scanner) (*Allowlist, error) {
	a := new(Allowlist)
	if !s.Title(allowlistTitle) {
		return nil, s.Err()
	}
	a.Enclave = s.Word("enclave")
	a.Track = s.Word("track")
	a.Version = s.Number("version")
	a.Date = s.Date("date")
	a.Root = s.Number("root")
	a.Orders = s.Count("orders")
	a.Previous = s.Previous("previous", a.Version == 1)
	return a, s.Err()
}

// parseBody reads what stands behind the head.
func (a *Allowlist) parseBody(s *Scanner, text []byte) error {
	// Hashing the text takes as long as reading it.
	var wg sync.WaitGroup
	wg.Go(func() { a.digest = Sum(text) })
	at := s.Offset()
	a.Classes = s.classes()
	a.Items, a.byName = s.items(false)
	wg.Wait()
	for _, c := range a.Classes {
		if c.Items > len(a.Items) && len(s.bad) == 0 {
			s.Refuse("class", at, "the class %d %s has %d items, the list %d", c.Shipment, c.Rule, c.Items, len(a.Items))
		}
	}
	return s.Err()
}

// OpenAllowlist verifies an allowlist by the root in force: signed by as many reviewers as the track and the kinds of its items ask for, whom it returns. orders
// are those in force, nil if there are none: a list that was signed under newer ones is refused. What they recall is out of every list, which whoever uses
// the list has to ask them. The caller's [Floor] decides whether the list is too old.
func OpenAllowlist(msg []byte, root *Root, orders *Orders) (a *Allowlist, persons []string, err error) {
	if !root.Opened() || orders != nil && (!orders.Opened() || orders.Enclave != root.Enclave) {
		return nil, nil, ErrNotOpened
	}
	text, lines, err := SplitNote("allowlist", msg, MaxListSize)
	if err != nil {
		return nil, nil, err
	}
	s := scanChecked("allowlist", text)
	a, err = parseHead(s)
	if err != nil {
		return nil, nil, err
	}
	// The form is judged before the signatures, but both take long: each signature hashes the whole text.
	var wg sync.WaitGroup
	var n *Note
	var unsigned error
	wg.Go(func() { n, unsigned = verifyNote("allowlist", text, lines, root.Signers(ContextAllowlist, a.Date)) })
	err = a.parseBody(s, text)
	wg.Wait()
	if err != nil {
		return nil, nil, err
	}
	subject := a.Subject()
	var bad Refusals
	if rest := bad.Merge(unsigned); rest != nil {
		return nil, nil, rest
	}
	if a.Enclave != root.Enclave {
		bad.Add(Refuse("allowlist-enclave", subject, "it is of enclave %s, not %s", a.Enclave, root.Enclave))
	}
	bad.Add(root.fits("allowlist", subject, a.Root, a.Date)...)
	switch have := orders.Number(); {
	case a.Orders > have:
		bad.Add(Refuse("allowlist-orders", subject, "it was signed under orders version %d; version %d is the newest known here", a.Orders, have).
			WithHint("bring in the newer orders first"))
	case have > 0 && a.Orders == have && a.Date.Before(orders.Date):
		bad.Add(Refuse("allowlist-date", subject, "its date %s is before that of the orders it was signed under, %s", FormatDate(a.Date), FormatDate(orders.Date)))
	}
	if want := root.ListThreshold(a.Track, a.Items); want < 1 {
		bad.Add(Refuse("allowlist-track", subject, "the root knows no track %s", a.Track))
	} else if n != nil {
		var ref *Refusal
		if persons, ref = root.met(n, "allowlist", ContextAllowlist, a.Date, want); ref != nil {
			ref.Subject = subject
			bad.Add(ref)
		}
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	a.self = a
	return a, persons, nil
}

// Subject is how refusals name the list.
func (a *Allowlist) Subject() string {
	return fmt.Sprintf("allowlist %s version %d", a.Track, a.Version)
}

// CheckSuccessor checks that a follows prev; prev is nil if there is none yet.
func (a *Allowlist) CheckSuccessor(prev *Allowlist) error {
	subject := a.Subject()
	if prev == nil {
		if a.Version != 1 {
			return Refuse("allowlist-version", subject, "version 1 must stand here")
		}
		return nil
	}
	var bad Refusals
	if a.Enclave != prev.Enclave {
		bad.Add(Refuse("allowlist-enclave", subject, "it is of enclave %s, not %s", a.Enclave, prev.Enclave))
	}
	if a.Track != prev.Track {
		bad.Add(Refuse("allowlist-track", subject, "it is of track %s, not %s", a.Track, prev.Track))
	}
	if err := checkFloor("allowlist", subject, a.Version, prev.Version, a.Digest(), prev.Digest()); err != nil {
		bad.Add(err)
		return bad.Err()
	}
	switch {
	case a.Version == prev.Version:
		bad.Add(Refuse("allowlist-version", subject, "it is in force already"))
	case a.Version != prev.Version+1:
		bad.Add(Refuse("allowlist-version", subject, "version %d must stand here", prev.Version+1))
	case a.Previous != prev.Digest():
		bad.Add(Refuse("allowlist-previous", subject, "it follows %s, but version %d is %s", a.Previous, prev.Version, prev.Digest()))
	}
	if a.Date.Before(prev.Date) {
		bad.Add(Refuse("allowlist-date", subject, "its date %s is before that of version %d, %s", FormatDate(a.Date), prev.Version, FormatDate(prev.Date)))
	}
	if a.Root < prev.Root {
		bad.Add(Refuse("allowlist-root", subject, "it was signed under root version %d, the one before under %d", a.Root, prev.Root))
	}
	if a.Orders < prev.Orders {
		bad.Add(Refuse("allowlist-orders", subject, "it was signed under orders version %d, the one before under %d", a.Orders, prev.Orders))
	}
	return bad.Err()
}
