package authenticate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/trust"
)

// DefaultKeyring is the branch with the keys where nothing else is said.
const DefaultKeyring = "keyring"

// A Request says what of a repository is to be authenticated.
type Request struct {
	Introduction git.ID
	Signer       openpgp.Fingerprint
	Keyring      string // a branch; "" means DefaultKeyring
	End          string // a commit's id or a reference; "" means HEAD
	Historical   []openpgp.Fingerprint
	Cache        *Cache // nil for none
	Workers      int
	Progress     func(judged, found int)
}

// A Report is a verdict with its circumstances.
type Report struct {
	*channel.Verdict
	Keyring *channel.Keyring
	Notes   []string // what is worth knowing, for people: a proof that was not used, what was ignored in the repository
}

// Authenticate judges a repository. What makes it impossible to judge commits at all, the keyring or a reference, is an error of type
// trust.Refusal; bad commits are in the report.
func (r *Repository) Authenticate(ctx context.Context, req Request) (*Report, error) {
	if req.Keyring == "" {
		req.Keyring = DefaultKeyring
	}
	if req.End == "" {
		req.End = "HEAD"
	}
	var refused trust.Refusals
	end, err := r.Commit(req.End)
	if err := refused.Merge(err); err != nil {
		return nil, err
	}
	keys, err := r.Branch(req.Keyring)
	if err := refused.Merge(err); err != nil {
		return nil, err
	}
	if err := refused.Err(); err != nil {
		return nil, err
	}
	keyring, err := channel.ReadKeyring(r.db.NewReader(), keys)
	var bad *channel.KeyringError
	if errors.As(err, &bad) {
		refusal := trust.Refuse(channel.CodeKeyring, r.Dir+": "+req.Keyring, "%v: Guix can use no key of such a keyring", bad)
		if git.IsMissing(bad.Err) {
			refusal.Hint = r.Missing()
		}
		return nil, refusal
	}
	if err != nil {
		return nil, err
	}
	report := &Report{Keyring: keyring}
	if ignored := r.Ignored(); len(ignored) > 0 {
		report.Notes = append(report.Notes, "the repository has "+strings.Join(ignored, " and ")+": ignored")
	}
	inner := channel.Request{Introduction: req.Introduction, Signer: req.Signer, End: end, Keyring: keyring, Historical: req.Historical, Workers: req.Workers, Progress: req.Progress}
	if req.Cache != nil {
		if inner.Proven, err = req.Cache.Load(inner.Binding()); err != nil {
			report.Notes = append(report.Notes, fmt.Sprintf("an earlier proof is not used: %v", err))
		}
	}
	if report.Verdict, err = channel.Authenticate(ctx, r.db, inner); err != nil {
		return nil, err
	}
	if p := report.Proven(); p != nil && req.Cache != nil && report.Judged > 0 {
		if err := req.Cache.Save(inner.Binding(), p); err != nil {
			report.Notes = append(report.Notes, fmt.Sprintf("the proof could not be kept: %v", err))
		}
	}
	return report, nil
}

// Refused makes one list of what the verdict refuses and of what the ruling on its findings does; nil if nothing.
func (r *Repository) Refused(v *channel.Verdict, ruling *Ruling) trust.Refusals {
	var all trust.Refusals
	missing := r.Missing()
	for _, b := range v.Refusals {
		detail := b.Detail
		if b.Key != "" && !strings.Contains(detail, b.Key) {
			detail += "; key " + b.Key
		}
		if b.Author != "" {
			detail += "; by " + b.Author
		}
		detail += "; rule: " + b.Rule
		if b.File != "" {
			detail += "; to be allowed by " + b.File
		}
		subject := r.Dir
		if !b.Commit.IsZero() {
			subject = "commit " + b.Commit.String()
		}
		refusal := trust.Refuse(b.Code, subject, "%s", detail)
		if b.Code == channel.CodeObjectMissing || b.Code == channel.CodeIntroductionMissing || b.Code == channel.CodeEndMissing {
			refusal.Hint = missing
		}
		if refusal.Hint == "" && (b.Code == channel.CodeIntroductionMissing || b.Code == channel.CodeIntroductionSigner) {
			refusal.Hint = "compare the commit and the fingerprint with what was handed over; if they are right, this is another repository"
		}
		all.Add(refusal)
	}
	if v.More > 0 {
		all.Add(trust.Refuse("more-refusals", r.Dir, "%d more commits are refused", v.More))
	}
	if ruling == nil {
		return all
	}
	// A key that has expired is found in every commit that it signs from then on: what is the same is told once.
	type same struct{ code, key, detail string }
	told := make(map[same]int) // how often
	for _, f := range ruling.Refused {
		told[same{f.Code, f.Key, f.Detail}]++
	}
	for _, f := range ruling.Refused { // the oldest first
		n := told[same{f.Code, f.Key, f.Detail}]
		if n == 0 {
			continue
		}
		delete(told, same{f.Code, f.Key, f.Detail})
		subject := "commit " + f.Commit.String()
		if n > 1 {
			subject = fmt.Sprintf("%d commits from %s on", n, f.Commit)
		}
		hint := "policy refuses this finding; an excuse has to be named there, with a reason and a date of expiry"
		for _, e := range ruling.Expired {
			if e.covers(f) {
				hint = fmt.Sprintf("the excuse %q, by %s, ended at %s", e.Name, e.By, e.Expires.UTC().Format(time.RFC3339))
			}
		}
		all.Add(trust.Refuse(f.Code, subject, "%s; key %s; by %s", f.Detail, f.Key, f.Author).WithHint(hint))
	}
	return all
}
