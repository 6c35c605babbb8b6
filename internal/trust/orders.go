package trust

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"time"
)

// Bounds on orders.
const (
	MaxOrders     = 100_000  // lines of a body
	MaxOrdersSize = 64 << 20 // bytes of a text
	treeHashLen   = 32       // bytes of a ledger's root hash
	orderLine     = 120      // bytes that a line rarely has fewer than
)

// Orders are what the officers of an enclave have ordered: a numbered state, like an allowlist, and stronger than every allowlist. To make
// them, fill the fields and take [Orders.Text]. Orders that were parsed are not to be changed. No orders yet are a nil *Orders.
type Orders struct {
	Enclave    string
	Version    int64
	Date       time.Time
	Root       int64 // the root's version in force when they were signed
	Previous   Digest
	BreakGlass []BreakGlass
	Lost       []Lost
	Recalls    []Recall
	Restored   []Restored
	Settled    []Settled
	Downgrades []Downgrade
	Channels   []Channel
	Excuses    []Excuse

	digest  Digest         // of the text they were parsed from
	content map[Digest]int // places in Recalls, made when parsed
	names   map[string]int
	lost    map[int64]int
	self    *Orders // themselves once they were opened
}

// BreakGlass lets a track have an item without its reviewers, for a while.
type BreakGlass struct {
	Track  string
	Until  time.Time
	Item   Item
	Date   time.Time
	Reason string
}

// Lost is a shipment that will never come. One of this number is refused from then on.
type Lost struct {
	Shipment int64
	Date     time.Time
	Reason   string
}

// A Recall takes an item, or an output, out of every list: by its content, which of an output is its nar's, and by its name.
type Recall struct {
	SHA256 Digest
	Name   string // base name of a store path
	Date   time.Time
	Reason string
}

// Restored says that the ledger was put back from a backup that ended there.
type Restored struct {
	Size   int64
	Tree   [treeHashLen]byte // the root hash of the tree of that size
	Date   time.Time
	Reason string
}

// Settled sets aside what a builder's key says of a derivation: it neither counts nor dissents.
type Settled struct {
	Derivation string // base name
	KeyID      string
	Date       time.Time
	Reason     string
}

// A Downgrade lets the pin of a channel move back to a commit.
type Downgrade struct {
	Channel string
	Commit  string // 40 hexadecimal digits
	Date    time.Time
	Reason  string
}

// The words of the lines.
const (
	orderBreakGlass = "break-glass"
	orderChannel    = "channel"
	orderDowngrade  = "downgrade"
	orderExcuse     = "excuse"
	orderLost       = "lost"
	orderRecall     = "recall"
	orderRestored   = "restored"
	orderSettled    = "settled"
)

// appendReason appends the end of a line: a space, the date, the reason.
func appendReason(b []byte, date time.Time, reason string) []byte {
	b = append(b, ' ')
	b = appendDate(b, date)
	b = append(b, ' ')
	return append(b, reason...)
}

func (g BreakGlass) append(b []byte) []byte {
	b = append(append(b, orderBreakGlass+" "...), g.Track...)
	b = append(appendDate(append(b, ' '), g.Until), ' ')
	return appendReason(g.Item.append(b), g.Date, g.Reason)
}

func (l Lost) append(b []byte) []byte {
	return appendReason(appendNumber(append(b, orderLost+" "...), l.Shipment), l.Date, l.Reason)
}

func (r Recall) append(b []byte) []byte {
	b = hex.AppendEncode(append(b, orderRecall+" "...), r.SHA256[:])
	b = append(append(b, ' '), r.Name...)
	return appendReason(b, r.Date, r.Reason)
}

func (r Restored) append(b []byte) []byte {
	b = append(appendNumber(append(b, orderRestored+" "...), r.Size), ' ')
	return appendReason(base64.StdEncoding.AppendEncode(b, r.Tree[:]), r.Date, r.Reason)
}

func (s Settled) append(b []byte) []byte {
	b = append(append(append(b, orderSettled+" "...), s.Derivation...), ' ')
	return appendReason(append(b, s.KeyID...), s.Date, s.Reason)
}

func (d Downgrade) append(b []byte) []byte {
	b = append(append(append(b, orderDowngrade+" "...), d.Channel...), ' ')
	return appendReason(append(b, d.Commit...), d.Date, d.Reason)
}

// An order is a line of orders.
type order interface{ append(b []byte) []byte }

// printOrders appends the lines of orders.
func printOrders[T order](lines []string, orders []T) []string {
	var b []byte
	for _, o := range orders {
		b = o.append(b[:0])
		lines = append(lines, string(b))
	}
	return lines
}

// lines prints the body, sorted.
func (o *Orders) lines() []string {
	lines := o.kept()
	lines = printOrders(lines, o.BreakGlass)
	lines = printOrders(lines, o.Settled)
	lines = printOrders(lines, o.Downgrades)
	lines = printOrders(lines, o.Channels)
	lines = printOrders(lines, o.Excuses)
	slices.Sort(lines)
	return lines
}

// kept prints the lines that no later version may drop.
func (o *Orders) kept() []string {
	lines := make([]string, 0, len(o.Lost)+len(o.Recalls)+len(o.Restored)+len(o.BreakGlass)+len(o.Settled)+len(o.Downgrades)+len(o.Channels)+len(o.Excuses))
	lines = printOrders(lines, o.Lost)
	lines = printOrders(lines, o.Recalls)
	return printOrders(lines, o.Restored)
}

// Text prints the orders; they need not be sorted.
func (o *Orders) Text() []byte {
	b := fmt.Appendf(nil, "%s\nenclave %s\nversion %d\ndate %s\nroot %d\nprevious %s\n",
		ordersTitle, o.Enclave, o.Version, FormatDate(o.Date), o.Root, FormatPrevious(o.Previous))
	for _, line := range o.lines() {
		b = append(append(b, line...), '\n')
	}
	return b
}

// Digest returns the digest of the text.
func (o *Orders) Digest() Digest {
	if o.digest.IsZero() {
		return Sum(o.Text())
	}
	return o.digest
}

// Opened reports whether the orders were verified by an opened root.
func (o *Orders) Opened() bool { return o != nil && o.self == o }

// Number is the version, 0 if there are no orders yet.
func (o *Orders) Number() int64 {
	if o == nil {
		return 0
	}
	return o.Version
}

// Subject is how refusals name the orders.
func (o *Orders) Subject() string { return fmt.Sprintf("orders version %d", o.Version) }

// Recalled returns the recall of a content or of a name, if there is one. It may be asked of no orders at all.
func (o *Orders) Recalled(sha256 Digest, name string) (Recall, bool) {
	if o == nil {
		return Recall{}, false
	}
	if o.content != nil {
		if i, ok := o.content[sha256]; ok {
			return o.Recalls[i], true
		}
	} else if i := slices.IndexFunc(o.Recalls, func(r Recall) bool { return r.SHA256 == sha256 }); i >= 0 {
		return o.Recalls[i], true
	}
	return o.recalledName(name)
}

func (o *Orders) recalledName(name string) (Recall, bool) {
	switch {
	case o == nil:
	case o.names != nil:
		if i, ok := o.names[name]; ok {
			return o.Recalls[i], true
		}
	default:
		if i := slices.IndexFunc(o.Recalls, func(r Recall) bool { return r.Name == name }); i >= 0 {
			return o.Recalls[i], true
		}
	}
	return Recall{}, false
}

// IsLost returns the order by which a shipment will never come, if there is one. It may be asked of no orders at all.
func (o *Orders) IsLost(shipment int64) (Lost, bool) {
	if o == nil {
		return Lost{}, false
	}
	if o.lost != nil {
		i, ok := o.lost[shipment]
		if !ok {
			return Lost{}, false
		}
		return o.Lost[i], true
	}
	i := slices.IndexFunc(o.Lost, func(l Lost) bool { return l.Shipment == shipment })
	if i < 0 {
		return Lost{}, false
	}
	return o.Lost[i], true
}

// IsSettled returns the order that sets aside what a builder's key says of a derivation, if there is one. It may be asked of no orders at all.
func (o *Orders) IsSettled(derivation, keyID string) (Settled, bool) {
	if o == nil {
		return Settled{}, false
	}
	i := slices.IndexFunc(o.Settled, func(s Settled) bool { return s.Derivation == derivation && s.KeyID == keyID })
	if i < 0 {
		return Settled{}, false
	}
	return o.Settled[i], true
}

// ForTrack returns what officers let in for a track without its reviewers, as long as the time is before its end. The time is the later one of the clock's
// and the newest date of a document: a clock that was set back does not lengthen it. It may be asked of no orders at all.
func (o *Orders) ForTrack(track string, now time.Time) []BreakGlass {
	if o == nil {
		return nil
	}
	var list []BreakGlass
	for _, b := range o.BreakGlass {
		if b.Track == track && now.Before(b.Until) {
			list = append(list, b)
		}
	}
	return list
}

// MayDowngrade returns the order by which a channel's pin may move back to a commit, if there is one. It may be asked of no orders at all.
func (o *Orders) MayDowngrade(channel, commit string) (Downgrade, bool) {
	if o == nil {
		return Downgrade{}, false
	}
	i := slices.IndexFunc(o.Downgrades, func(d Downgrade) bool { return d.Channel == channel && d.Commit == commit })
	if i < 0 {
		return Downgrade{}, false
	}
	return o.Downgrades[i], true
}

// OpenOrders verifies orders by the root in force: signed by the threshold of officers, whom it returns. The caller's
// [Floor] decides whether they are too old.
func OpenOrders(msg []byte, root *Root) (o *Orders, persons []string, err error) {
	if !root.Opened() {
		return nil, nil, ErrNotOpened
	}
	text, lines, err := SplitNote("orders", msg, MaxOrdersSize)
	if err != nil {
		return nil, nil, err
	}
	if o, err = parseOrders(scanChecked("orders", text), text); err != nil {
		return nil, nil, err
	}
	subject := o.Subject()
	var bad Refusals
	n, err := verifyNote("orders", text, lines, root.Signers(ContextOrder, o.Date))
	if rest := bad.Merge(err); rest != nil {
		return nil, nil, rest
	}
	if n != nil {
		var ref *Refusal
		if persons, ref = root.met(n, "orders", ContextOrder, o.Date, root.OrderThreshold()); ref != nil {
			ref.Subject = subject
			bad.Add(ref)
		}
	}
	if o.Enclave != root.Enclave {
		bad.Add(Refuse("orders-enclave", subject, "they are of enclave %s, not %s", o.Enclave, root.Enclave))
	}
	bad.Add(root.fits("orders", subject, o.Root, o.Date)...)
	hours, allowed := root.BreakGlass()
	for _, b := range o.BreakGlass {
		switch {
		case !allowed:
			bad.Add(Refuse("orders-break-glass", subject, "%s for track %s: the root has no policy break-glass", b.Item.Name, b.Track))
		case b.Until.Sub(b.Date) > time.Duration(hours)*time.Hour:
			bad.Add(Refuse("orders-break-glass", subject, "%s for track %s from %s until %s; the root allows %d hours", b.Item.Name, b.Track, FormatDate(b.Date), FormatDate(b.Until), hours))
		}
		if root.Threshold(b.Track) < 1 {
			bad.Add(Refuse("orders-track", subject, "the root knows no track %s", b.Track))
		}
		if bad.Full() {
			break
		}
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	o.self = o
	return o, persons, nil
}

// fits checks that a document signed under a version of the root, at a date, may be judged by this one.
func (r *Root) fits(doc, subject string, version int64, date time.Time) Refusals {
	var bad Refusals
	if version > r.Version {
		bad.Add(Refuse(doc+"-root", subject, "signed under root version %d; version %d is the newest known here", version, r.Version).
			WithHint("bring in the newer root first"))
	}
	if version == r.Version && date.Before(r.Date) {
		bad.Add(Refuse(doc+"-date", subject, "its date %s is before that of the root it was signed under, %s", FormatDate(date), FormatDate(r.Date)))
	}
	return bad
}

// CheckSuccessor checks that o follows prev; prev is nil if there are none yet.
func (o *Orders) CheckSuccessor(prev *Orders) error {
	subject := o.Subject()
	if prev == nil {
		if o.Version != 1 {
			return Refuse("orders-version", subject, "version 1 must stand here")
		}
		return nil
	}
	var bad Refusals
	if o.Enclave != prev.Enclave {
		bad.Add(Refuse("orders-enclave", subject, "they are of enclave %s, not %s", o.Enclave, prev.Enclave))
	}
	if err := checkFloor("orders", subject, o.Version, prev.Version, o.Digest(), prev.Digest()); err != nil {
		bad.Add(err)
		return bad.Err()
	}
	switch {
	case o.Version == prev.Version:
		bad.Add(Refuse("orders-version", subject, "they are in force already"))
	case o.Version != prev.Version+1:
		bad.Add(Refuse("orders-version", subject, "version %d must stand here", prev.Version+1))
	case o.Previous != prev.Digest():
		bad.Add(Refuse("orders-previous", subject, "they follow %s, but version %d is %s", o.Previous, prev.Version, prev.Digest()))
	}
	if o.Root < prev.Root {
		bad.Add(Refuse("orders-root", subject, "signed under root version %d, those before under %d", o.Root, prev.Root))
	}
	if err := bad.Merge(o.CheckKept(prev)); err != nil {
		return err
	}
	return bad.Err()
}

// CheckKept checks that o, which are of a later version than prev, have all of what is never taken back, and are not dated before
// prev. A verifier need not have seen the versions between.
func (o *Orders) CheckKept(prev *Orders) error {
	if prev == nil {
		return nil
	}
	subject := o.Subject()
	var bad Refusals
	if o.Date.Before(prev.Date) {
		bad.Add(Refuse("orders-date", subject, "their date %s is before that of version %d, %s", FormatDate(o.Date), prev.Version, FormatDate(prev.Date)))
	}
	have, want := o.kept(), prev.kept()
	slices.Sort(have)
	slices.Sort(want)
	for _, line := range want {
		i, ok := slices.BinarySearch(have, line)
		if !ok && !bad.Full() {
			bad.Add(Refuse("orders-dropped", subject, "version %d has the line %.300q, which is never taken back", prev.Version, line))
		}
		have = have[i:]
	}
	return bad.Err()
}
