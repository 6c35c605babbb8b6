package trust

import (
	"errors"
	"time"
)

// Allowed is what a track may use: the allowlist in force, without what the orders recall, and with what officers let in for a while.
type Allowed struct {
	Root   *Root
	Orders *Orders // nil: none yet
	List   *Allowlist
	Now    time.Time // the later one of the clock's time and of [Floor.ReferenceTime]
}

// Check checks that the documents were opened, belong together, and that the orders are not older than those that the list was signed under.
func (a Allowed) Check() error {
	switch {
	case !a.Root.Opened() || a.Orders != nil && !a.Orders.Opened():
		return ErrNotOpened
	case !a.List.Opened() || a.List.Enclave != a.Root.Enclave || a.Orders != nil && a.Orders.Enclave != a.Root.Enclave:
		return errors.New("trust: the allowlist and the orders were not opened by a root of this enclave")
	case a.List.Orders > a.Orders.Number():
		return Refuse("allowlist-orders", a.List.Subject(), "it was signed under orders version %d; version %d is at hand", a.List.Orders, a.Orders.Number())
	}
	return nil
}

// ByName returns the item of a name. glass is the order that lets it in without its reviewers, nil if the list has it. Codes: not-allowed,
// recalled.
func (a Allowed) ByName(name string) (it Item, glass *BreakGlass, err error) {
	if err := a.Check(); err != nil {
		return Item{}, nil, err
	}
	it, ok := a.List.ByName(name)
	if !ok {
		for _, b := range a.Orders.ForTrack(a.List.Track, a.Now) {
			if b.Item.Name == name {
				it, glass, ok = b.Item, &b, true
			}
		}
	}
	r, gone := a.Orders.recalledName(name)
	if ok && !gone {
		r, gone = a.Orders.Recalled(it.SHA256, name)
	}
	if gone {
		return Item{}, nil, r.Refusal(name)
	}
	if !ok {
		return Item{}, nil, Refuse("not-allowed", name, "no item of this name is in the %s", a.List.Subject())
	}
	return it, glass, nil
}

// Refusal says of something that it was recalled, and why.
func (r Recall) Refusal(subject string) *Refusal {
	return Refuse("recalled", subject, "recalled on %s: %s", FormatDate(r.Date), r.Reason)
}
