package host

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"sallyport/internal/judge/admit"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
	"sallyport/internal/trust/quorum"
)

// codeRecalled is the code of what officers recalled.
const codeRecalled = "recalled"

// recalls are the tombstones of orders.
type recalls struct{ orders *trust.Orders }

func (r recalls) Recalled(sha trust.Digest, name string) (string, bool) {
	if sha.IsZero() {
		sha = trust.Sum([]byte(name)) // what is not known has no content that could have been recalled
	}
	one, ok := r.orders.Recalled(sha, name)
	return "recalled on " + trust.FormatDate(one.Date) + ": " + one.Reason, ok
}

func (r recalls) any() bool { return r.orders != nil && len(r.orders.Recalls) > 0 }

// openOrders verifies the orders in force.
func (e *Enclave) openOrders(note []byte, version int64) error {
	o, _, err := trust.OpenOrders(note, e.Root)
	if err != nil {
		return err
	}
	if o.Version != version {
		return trust.Refuse("orders-version", "orders", "a source gave version %d for version %d", o.Version, version)
	}
	e.inForce, e.tombstones = o, recalls{o}
	return nil
}

// raise raises the state's floor to the documents, durably, or refuses them. The clock is not believed where a document that was accepted is newer.
func (e *Enclave) raise(clock time.Time) error {
	path := e.state.floor()
	before, err := os.ReadFile(path)
	var floor trust.Floor
	if err == nil {
		floor, err = trust.ParseFloor(before)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var rs trust.Refusals
	accept := func(next trust.Floor, err error) error {
		if err == nil {
			floor = next
		}
		return rs.Merge(err)
	}
	if err := accept(floor.AcceptRoot(e.Root)); err != nil {
		return err
	}
	if e.inForce != nil {
		err = accept(floor.AcceptOrders(e.inForce))
	} else {
		err = rs.Merge(floor.CheckOrders(nil))
	}
	if err != nil {
		return err
	}
	for _, v := range e.Views {
		if err := accept(floor.AcceptAllowlist(v.List)); err != nil {
			return err
		}
	}
	if err := rs.Err(); err != nil {
		return err
	}
	e.now = clock
	if t := floor.ReferenceTime(); t.After(clock) {
		e.now = t
	}
	data, err := floor.Marshal()
	if err != nil || bytes.Equal(before, data) {
		return err
	}
	return durable.WriteAll(durable.OS{}, e.state.temp(), durable.File{Path: path, Data: data, Perm: 0o644})
}

// allowed is what a track may use.
func (e *Enclave) allowed(v *admit.View) trust.Allowed {
	return trust.Allowed{Root: e.Root, Orders: e.inForce, List: v.List, Now: e.now}
}

// listed returns an item that the allowlist names or that officers let in, recalled or not.
func (e *Enclave) listed(v *admit.View, name string) (it trust.Item, glass, ok bool) {
	if it, ok := v.List.ByName(name); ok {
		return it, false, true
	}
	for _, b := range e.inForce.ForTrack(v.List.Track, e.now) {
		if b.Item.Name == name {
			return b.Item, true, true
		}
	}
	return trust.Item{}, false, false
}

// named judges one name as the view does; what is not in the list then was let in by officers.
func (e *Enclave) named(v *admit.View, name string) (it admit.Item, status string, err error) {
	if it, err = v.Item(name); err != nil {
		return it, "", err
	}
	if _, ok := v.List.ByName(name); !ok {
		return it, BreakGlass, nil
	}
	return it, Allowed, nil
}

// decide counts what builders say of a derivation whose file is not needed for it.
func (e *Enclave) decide(v *admit.View, drv trust.Item, envelopes [][]byte) (*quorum.Agreement, error) {
	return quorum.Decide(e.allowed(v), drv.Name, drv.SHA256, envelopes)
}
