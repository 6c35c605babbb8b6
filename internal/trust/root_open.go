package trust

import (
	"errors"
	"fmt"
	"slices"
)

// OpenRoot opens version 1 of a root: its digest must be the one that was handed over,
// and its own threshold of officers must have signed it.
func OpenRoot(msg []byte, pin Pinned) (*Root, error) {
	text, lines, err := SplitNote("root", msg, MaxRootSize)
	if err != nil {
		return nil, err
	}
	if d := Sum(text); !pin.Matches(d) {
		return nil, Refuse("root-pin", "root", "its fingerprint is %s (%s), the one handed over is %s", Fingerprint(d), d, pin).
			WithHint("compare the fingerprint on paper with the one that was entered here")
	}
	r, err := ParseRoot(text)
	if err != nil {
		return nil, err
	}
	if r.Version != 1 {
		return nil, Refuse("root-version", "root", "version %d where 1 must stand", r.Version)
	}
	n, err := verifyNote("root", text, lines, r.Signers(ContextRoot, r.Date))
	if err != nil {
		return nil, err
	}
	if _, ref := r.met(n, "root", ContextRoot, r.Date, r.RootThreshold()); ref != nil {
		return nil, ref
	}
	r.open()
	return r, nil
}

// Next opens the version that follows r: signed by the threshold of r with the keys of
// r, and by its own threshold with its own keys. The keys are those that count on its date.
func (r *Root) Next(msg []byte) (*Root, error) {
	if !r.Opened() {
		return nil, ErrNotOpened
	}
	text, lines, err := SplitNote("root", msg, MaxRootSize)
	if err != nil {
		return nil, err
	}
	next, err := ParseRoot(text)
	if err != nil {
		return nil, err
	}
	subject := fmt.Sprintf("root version %d", next.Version)
	var bad Refusals
	n, err := verifyNote("root", text, lines, union(r.Signers(ContextRoot, next.Date), next.Signers(ContextRoot, next.Date)))
	if rest := bad.Merge(err); rest != nil {
		return nil, rest
	}
	signed := n != nil
	if n != nil {
		for _, by := range []*Root{r, next} {
			if _, ref := by.met(n, "root", ContextRoot, next.Date, by.RootThreshold()); ref != nil {
				ref.Detail += fmt.Sprintf(" (by the keys of version %d)", by.Version)
				bad.Add(ref)
				signed = false
			}
		}
	}
	switch here, digest := r.Digest(), Sum(text); {
	case next.Version == r.Version && digest != here && signed:
		bad.Add(Refuse("root-equivocation", subject, "two roots of this version are signed: %s and %s", here, digest).
			WithHint("this is an alarm: the officers have signed two different roots of one number"))
	case next.Version < r.Version || digest == here:
		bad.Add(Refuse("root-rollback", subject, "version %d is in force", r.Version))
	case next.Version != r.Version+1:
		bad.Add(Refuse("root-version", subject, "version %d must stand here", r.Version+1))
	default:
		if next.Previous != here {
			bad.Add(Refuse("root-previous", subject, "it follows %s, but version %d is %s", next.Previous, r.Version, here))
		}
		if next.Date.Before(r.Date) {
			bad.Add(Refuse("root-date", subject, "its date %s is before that of version %d, %s", FormatDate(next.Date), r.Version, FormatDate(r.Date)))
		}
	}
	if next.Enclave != r.Enclave {
		bad.Add(Refuse("root-enclave", subject, "it is of enclave %s, not %s", next.Enclave, r.Enclave))
	}
	if len(bad) > 0 {
		return nil, bad
	}
	next.open()
	return next, nil
}

// OpenChain opens versions 1, 2, 3 … in order and returns the last.
func OpenChain(msgs [][]byte, pin Pinned) (*Root, error) {
	if len(msgs) == 0 {
		return nil, errors.New("trust: no root")
	}
	r, err := OpenRoot(msgs[0], pin)
	for _, msg := range msgs[1:] {
		if err != nil {
			return nil, err
		}
		r, err = r.Next(msg)
	}
	return r, err
}

// union returns the keys of both lists, each once.
func union(a, b []VKey) []VKey {
	all := slices.Clone(a)
	have := make(map[string]bool, len(a))
	for _, k := range a {
		have[k.String()] = true
	}
	for _, k := range b {
		if !have[k.String()] {
			all = append(all, k)
		}
	}
	return all
}
