package authenticate

import (
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/trust"
)

// A Policy says which findings refuse.
//
// Guix passes over them, so the history up to the day on which an enclave first took the channel is full of them, and nothing can be done about it.
// What came after that first pin is held to more: there every finding refuses, unless an excuse names it.
type Policy struct {
	// Since is the commit of the enclave's first pin: commits that are not it or its ancestors are new, and every finding about them refuses. Zero means
	// that there is no pin yet, and nothing is new.
	Since git.ID

	// Raise are codes that refuse wherever they are found.
	Raise map[string]bool

	Excuses []Excuse
}

// An Excuse lets a finding pass for a time. It is part of every report in which it is used.
type Excuse struct {
	Name    string              // by which people speak of it
	Code    string              // of the findings it excuses
	Commit  git.ID              // the one commit it excuses; zero for all
	Key     openpgp.Fingerprint // the one key whose commits it excuses; zero for all
	Reason  string
	By      string // who answers for it
	Expires time.Time
}

// MaxExcuse is how long an excuse can last.
const MaxExcuse = 366 * 24 * time.Hour

// A Ruling is what a policy makes of findings.
type Ruling struct {
	Refused []channel.Finding
	Excused []Excused
	Noted   []channel.Finding // told, and no more
	Expired []Excuse          // that would have excused something
}

// Excused is a finding with what lets it pass.
type Excused struct {
	Finding channel.Finding
	Excuse  Excuse
}

// KnownFinding reports whether code is one of a finding.
func KnownFinding(code string) bool {
	for _, c := range channel.FindingCodes() {
		if c[0] == code {
			return true
		}
	}
	return false
}

// Check lists what is wrong with the policy itself.
func (p *Policy) Check(now time.Time) error {
	var all trust.Refusals
	for code := range p.Raise {
		if !KnownFinding(code) {
			all.Add(trust.Refuse("policy-finding", code, "no finding has this code"))
		}
	}
	names := make(map[string]bool)
	for _, e := range p.Excuses {
		bad := func(format string, args ...any) {
			all.Add(trust.Refuse("policy-excuse", e.Name, format, args...))
		}
		switch {
		case e.Name == "" || e.Reason == "" || e.By == "":
			bad("an excuse has a name, a reason, and someone who answers for it")
		case names[e.Name]:
			bad("two excuses have this name")
		case !KnownFinding(e.Code):
			bad("no finding has the code %q", e.Code)
		case e.Expires.IsZero() || e.Expires.After(now.Add(MaxExcuse)):
			bad("an excuse expires, within %d days", int(MaxExcuse/(24*time.Hour)))
		}
		names[e.Name] = true
	}
	return all.Err()
}

// Rule applies the policy to a verdict's findings at a time.
func (p *Policy) Rule(v *channel.Verdict, now time.Time) (*Ruling, error) {
	if err := p.Check(now); err != nil {
		return nil, err
	}
	old := func(git.ID) bool { return true }
	if !p.Since.IsZero() {
		var ok bool
		if old, ok = v.Ancestors(p.Since); !ok {
			return nil, trust.Refuse("policy-pin", "commit "+p.Since.String(), "the first pin is no commit of the history up to %s", v.End).
				WithHint("a channel moves forward only; see who moved it")
		}
	}
	r := new(Ruling)
	expired := make(map[string]bool)
	for _, f := range v.Findings {
		// An end before the introduction is behind every pin, which is what is wrong with it.
		behind := f.Code == channel.FindingNotIntroduced && !p.Since.IsZero()
		if !p.Raise[f.Code] && old(f.Commit) && !behind {
			r.Noted = append(r.Noted, f)
			continue
		}
		excused := false
		for _, e := range p.Excuses {
			if !e.covers(f) {
				continue
			}
			if !now.Before(e.Expires) {
				if !expired[e.Name] {
					expired[e.Name] = true
					r.Expired = append(r.Expired, e)
				}
				continue
			}
			r.Excused = append(r.Excused, Excused{f, e})
			excused = true
			break
		}
		if !excused {
			r.Refused = append(r.Refused, f)
		}
	}
	if v.MoreFindings > 0 { // what is not listed cannot be excused
		return nil, trust.Refuse("policy-findings", "commit "+v.End.String(), "%d findings: more than the %d that are listed and can be ruled on", v.MoreFindings+len(v.Findings), len(v.Findings)).
			WithHint("no honest history has so many; see who made it")
	}
	return r, nil
}

func (e *Excuse) covers(f channel.Finding) bool {
	return e.Code == f.Code && (e.Commit.IsZero() || e.Commit == f.Commit) && (e.Key == openpgp.Fingerprint{} || e.Key.String() == f.Key)
}
