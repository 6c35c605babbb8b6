package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// maxFloor bounds the JSON of a floor.
const maxFloor = 1 << 20

// A Floor is the newest a verifier has accepted. It lives outside the documents it
// guards, so that no rotation of keys can bring an old version back. A
// Floor is a value: accepting returns a new one, which the caller makes durable
// before it acts on what was accepted.
type Floor struct {
	Root       Mark            `json:"root"`
	Orders     Mark            `json:"orders"`
	Allowlists map[string]Mark `json:"allowlists"` // by track
}

// A Mark is the newest version of a document that was accepted; version 0 is none yet.
type Mark struct {
	Version int64     `json:"version"`
	Digest  Digest    `json:"digest"`
	Date    time.Time `json:"date"`
}

// checkFloor refuses what is older than the floor, or other with the same number.
func checkFloor(doc, subject string, version, floor int64, digest, known Digest) *Refusal {
	switch {
	case version < floor:
		return Refuse(doc+"-rollback", subject, "version %d has been accepted already", floor)
	case version == floor && digest != known:
		return Refuse(doc+"-equivocation", subject, "two of this version are signed: %s and %s", known, digest).
			WithHint("this is an alarm: the same number was signed with two different contents")
	}
	return nil
}

// accept returns the mark of what follows m, or of m itself.
func (m Mark) accept(doc, subject string, version int64, digest Digest, date time.Time) (Mark, error) {
	if err := checkFloor(doc, subject, version, m.Version, digest, m.Digest); err != nil {
		return m, err
	}
	if m.Version > 0 && date.Before(m.Date) {
		return m, Refuse(doc+"-date", subject, "its date %s is before that of version %d, %s, which has been accepted already", FormatDate(date), m.Version, FormatDate(m.Date))
	}
	return Mark{version, digest, date}, nil
}

// ReferenceTime is the newest date of what was accepted: no clock that says an earlier time is right. It is the zero time if nothing was.
func (f Floor) ReferenceTime() time.Time {
	t := f.Root.Date
	if f.Orders.Date.After(t) {
		t = f.Orders.Date
	}
	for _, m := range f.Allowlists {
		if m.Date.After(t) {
			t = m.Date
		}
	}
	return t
}

// clone returns a floor that shares nothing with f.
func (f Floor) clone() Floor {
	if f.Allowlists = maps.Clone(f.Allowlists); f.Allowlists == nil {
		f.Allowlists = make(map[string]Mark)
	}
	return f
}

// AcceptRoot returns the floor with r accepted. The root must have been opened.
func (f Floor) AcceptRoot(r *Root) (Floor, error) {
	if !r.Opened() {
		return f, ErrNotOpened
	}
	m, err := f.Root.accept("root", fmt.Sprintf("root version %d", r.Version), r.Version, r.Digest(), r.Date)
	if err != nil {
		return f, err
	}
	f = f.clone()
	f.Root = m
	return f, nil
}

// AcceptOrders returns the floor with o accepted. The orders must have been opened. A gap is allowed: a verifier need not have seen
// every version.
func (f Floor) AcceptOrders(o *Orders) (Floor, error) {
	if !o.Opened() {
		return f, fmt.Errorf("trust: the orders were parsed but not opened; only OpenOrders gives some that count")
	}
	m, err := f.Orders.accept("orders", o.Subject(), o.Version, o.Digest(), o.Date)
	if err != nil {
		return f, err
	}
	f = f.clone()
	f.Orders = m
	return f, nil
}

// AcceptAllowlist returns the floor with a accepted. The allowlist must have been
// opened. A gap is allowed: a verifier need not have seen every version.
func (f Floor) AcceptAllowlist(a *Allowlist) (Floor, error) {
	if !a.Opened() {
		return f, fmt.Errorf("trust: the allowlist was parsed but not opened; only OpenAllowlist gives one that counts")
	}
	m, err := f.Allowlists[a.Track].accept("allowlist", a.Subject(), a.Version, a.Digest(), a.Date)
	if err != nil {
		return f, err
	}
	f = f.clone()
	f.Allowlists[a.Track] = m
	return f, nil
}

// CheckOrders refuses orders that are older than those accepted, and that there are none where some were accepted: a verifier that had
// orders never goes on without. o may be nil.
func (f Floor) CheckOrders(o *Orders) error {
	if o == nil && f.Orders.Version > 0 {
		return Refuse("orders-rollback", "orders", "there are none, but version %d has been accepted already", f.Orders.Version)
	}
	if o == nil {
		return nil
	}
	_, err := f.AcceptOrders(o)
	return err
}

// Marshal prints the floor as JSON, in one spelling.
func (f Floor) Marshal() ([]byte, error) {
	b, err := json.Marshal(f.clone())
	return append(b, '\n'), err
}

// ParseFloor parses what [Floor.Marshal] prints, and nothing else: a floor that was
// damaged must not read as a lower one.
func ParseFloor(b []byte) (Floor, error) {
	if len(b) > maxFloor {
		return Floor{}, fmt.Errorf("floor of %d bytes, more than %d", len(b), maxFloor)
	}
	var f Floor
	if err := json.Unmarshal(b, &f); err != nil {
		return Floor{}, fmt.Errorf("floor: %w", err)
	}
	if again, err := f.Marshal(); err != nil || !bytes.Equal(again, b) {
		return Floor{}, fmt.Errorf("floor: not in its one spelling")
	}
	if err := f.Root.check("root", true); err != nil {
		return Floor{}, err
	}
	if err := f.Orders.check("orders", true); err != nil {
		return Floor{}, err
	}
	for track, m := range f.Allowlists {
		if err := CheckWord(track); err != nil {
			return Floor{}, fmt.Errorf("floor: %w", err)
		}
		if err := m.check("track "+track, false); err != nil {
			return Floor{}, err
		}
	}
	return f, nil
}

// check checks a mark that was parsed; none says whether version 0 may stand there.
func (m Mark) check(what string, none bool) error {
	if m.Version == 0 && none && m == (Mark{}) {
		return nil
	}
	if m.Version < 1 || m.Digest.IsZero() || m.Date.IsZero() || m.Date.Nanosecond() != 0 || m.Date.Location() != time.UTC {
		return fmt.Errorf("floor: %s: version %d with digest %s and date %s", what, m.Version, m.Digest, m.Date)
	}
	return nil
}
