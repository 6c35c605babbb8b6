// Package channels keeps, outside, the account of where the enclave's channels stand.
//
//	p := &channels.Pinner{Zone: z, Root: root, Clock: time.Now, Rand: rand.Reader}
//	out, err := p.Pin(ctx, channels.Request{Channel: "guix", Repository: "/srv/mirror/guix.git"})
//
// A pin (package crossing/pin) is made of a commit that was authenticated from the channel's introduction on. The first pin of a name fixes the URL, the
// branch and the introduction; what a later request says otherwise is refused. It also is the day from which on what Guix passes over refuses.
//
// # What refuses
//
//	pin-first            the first pin of a name lacks the URL, the introduction or the fingerprint
//	pin-url pin-branch pin-introduction
//	                     not what the first pin says: the channel was moved
//	pin-not-forward      the commit does not descend from the one that is pinned, and no orders in force have `downgrade`
//	pin-orders           there are orders, but no root by which to check them
//	excuse-code excuse-channel excuse-until excuse-person
//	                     an excuse that is none
//
// beside the codes of guix/channel, of the policy on findings (package authenticate) and of trees of which there is no checkout.
//
// # Excuses
//
// An excuse lets a finding pass for the outside's own pins, until a day at most 366 days away; it has a name, a reason and one who answers for it, is an entry of the ledger
// and is told in every report in which it is used. The inside does not know it: there the officers' orders excuse. That a channel's end is before its
// introduction, of which nothing is proven, is never excused.
//
// # When it becomes true
//
// The pin's text is a blob that is noted (package pending) before it has a name. One transaction then writes the row and the entry "pinned", to which the
// blob is attached. A run that is cut before has no effect.
package channels

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/account"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// sayFirst is what to do about a first pin that lacks something.
const sayFirst = "give --channels FILE, a channels.scm that has it, or --url, --branch, --introduction and --fingerprint; they come from paper or another way that is trusted by itself"

// stage names the lock, the note of pending blobs, and who refuses.
const stage = "pin"

// A Pinner works for one outside zone.
type Pinner struct {
	Zone     *store.Zone
	Root     *trust.Root // the enclave's, if the outside knows it
	Clock    func() time.Time
	Rand     io.Reader
	Progress func(commits int64) // judged since the last call
}

// A Request asks for a pin.
type Request struct {
	Channel    string
	Repository string
	Alternates []string // directories of objects
	Keyring    string   // the branch with the keys; "" for the usual one
	Commit     string   // an id or a reference; "" for the tip of the channel's branch

	// Of the first pin. Later they may be left out.
	URL          string
	Branch       string
	Introduction git.ID
	Signer       openpgp.Fingerprint

	Orders []byte // orders in force, which may have a downgrade; nil for none
}

// An Outcome is a pin that was made, or found to stand already.
type Outcome struct {
	*account.Entry
	From   git.ID // the commit that was pinned before; zero for none
	Again  bool   // it was pinned like that before; nothing was written
	Back   bool   // orders allowed that it does not descend from the pin before
	Report *authenticate.Report
	Ruling *authenticate.Ruling
}

// Pin authenticates a channel's repository and pins a commit of it.
func (p *Pinner) Pin(ctx context.Context, req Request) (*Outcome, error) {
	if err := trust.CheckChannel(req.Channel); err != nil {
		return nil, err
	}
	unlock, err := p.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	out, err := p.judge(ctx, req)
	if err != nil {
		return nil, p.Zone.Refused(ctx, stage, statement.Subject{Name: req.Channel, SHA256: trust.Sum([]byte(req.Channel))}, err)
	}
	if out.Again {
		return out, nil
	}
	return out, p.record(ctx, out, req)
}

// judge makes the pin without writing anything but the proof of what it authenticated.
func (p *Pinner) judge(ctx context.Context, req Request) (*Outcome, error) {
	all, err := account.Pins(ctx, p.Zone, req.Channel)
	if err != nil {
		return nil, err
	}
	next, err := p.identity(req, all)
	if err != nil {
		return nil, err
	}
	out := &Outcome{Entry: &account.Entry{Pin: next, Number: int64(len(all)) + 1}}
	repository, err := authenticate.Open(req.Repository, authenticate.Options{Alternates: req.Alternates})
	if err != nil {
		return nil, err
	}
	defer repository.Close()
	cache, err := account.Cache(p.Zone, p.Rand)
	if err != nil {
		return nil, err
	}
	auth := authenticate.Request{Introduction: next.Introduction, Signer: next.Signer, Keyring: req.Keyring, Cache: cache}
	if auth.End, err = end(repository, req.Commit, next.Branch); err != nil {
		return nil, err
	}
	var told atomic.Int64
	auth.Progress = func(judged, _ int) {
		if p.Progress != nil {
			p.Progress(int64(judged) - told.Swap(int64(judged)))
		}
	}
	if out.Report, err = repository.Authenticate(ctx, auth); err != nil {
		return nil, err
	}
	if !out.Report.OK() {
		return nil, repository.Refused(out.Report.Verdict, nil)
	}
	next.Commit, next.Keyring = out.Report.End, out.Report.Keyring.Commit

	var refused trust.Refusals
	policy := authenticate.Policy{Raise: map[string]bool{channel.FindingNotIntroduced: true}}
	if policy.Excuses, err = account.Excuses(ctx, p.Zone, req.Channel); err != nil {
		return nil, err
	}
	if len(all) > 0 {
		last := all[len(all)-1]
		out.From, policy.Since = last.Commit, all[0].Commit
		if _, forward := out.Report.Ancestors(last.Commit); !forward {
			out.Back = true
			if err := refused.Merge(p.mayGoBack(req, next.Commit, last)); err != nil {
				return nil, err
			}
			if old, err := isBefore(ctx, repository, auth, last.Commit, policy.Since, next.Commit); err != nil {
				return nil, err
			} else if old {
				policy.Since = git.ID{} // nothing in it is newer than the first pin
			}
		}
	}
	out.Ruling, err = policy.Rule(out.Report.Verdict, p.Clock())
	if err := refused.Merge(err); err != nil {
		return nil, err
	}
	for _, r := range repository.Refused(out.Report.Verdict, out.Ruling) {
		refused.Add(r.WithHint("look into it, and let it pass for a time: 'channel excuse'"))
	}

	sum := sha256.New()
	size := new(counter)
	if err := refused.Merge(repository.Nar(ctx, next.Commit, io.MultiWriter(sum, size))); err != nil {
		return nil, err
	}
	sum.Sum(next.NarHash[:0])
	next.NarSize = int64(*size)
	if err := refused.Err(); err != nil {
		return nil, err
	}
	if err := next.Check(); err != nil {
		return nil, err
	}
	if len(all) > 0 && *all[len(all)-1].Pin == *next {
		out.Again = true
		out.Entry = all[len(all)-1]
	}
	return out, nil
}

// identity makes a pin with what does not change from one to the next.
func (p *Pinner) identity(req Request, all []*account.Entry) (*pin.Pin, error) {
	next := &pin.Pin{Channel: req.Channel, URL: req.URL, Branch: req.Branch, Introduction: req.Introduction, Signer: req.Signer}
	var bad trust.Refusals
	if len(all) == 0 {
		if next.Branch == "" {
			next.Branch = "master" // as Guix has it
		}
		for _, err := range []error{trust.CheckChannelURL(next.URL), trust.CheckBranch(next.Branch)} {
			if err != nil {
				bad.Add(trust.Refuse("pin-first", req.Channel, "%v", err).WithHint(sayFirst))
			}
		}
		if next.Introduction.IsZero() || next.Signer == (openpgp.Fingerprint{}) {
			bad.Add(trust.Refuse("pin-first", req.Channel, "no introduction: a commit and the fingerprint of the key that signed it").WithHint(sayFirst))
		}
		return next, bad.Err()
	}
	first := all[0]
	const hint = "a channel keeps these for ever; take another one under another name, and have officers order it"
	if next.URL != "" && next.URL != first.URL {
		bad.Add(trust.Refuse("pin-url", req.Channel, "%.200q; it was pinned as %s", next.URL, first.URL).WithHint(hint))
	}
	if next.Branch != "" && next.Branch != first.Branch {
		bad.Add(trust.Refuse("pin-branch", req.Channel, "%.200q; it was pinned as %s", next.Branch, first.Branch).WithHint(hint))
	}
	if !next.Introduction.IsZero() && next.Introduction != first.Introduction {
		bad.Add(trust.Refuse("pin-introduction", req.Channel, "commit %s; it was pinned from commit %s", next.Introduction, first.Introduction).WithHint(hint))
	}
	if next.Signer != (openpgp.Fingerprint{}) && next.Signer != first.Signer {
		bad.Add(trust.Refuse("pin-introduction", req.Channel, "signed by %s; it was pinned as signed by %s", next.Signer, first.Signer).WithHint(hint))
	}
	next.URL, next.Branch, next.Introduction, next.Signer = first.URL, first.Branch, first.Introduction, first.Signer
	return next, bad.Err()
}

// end says what is asked for in terms of the repository.
func end(r *authenticate.Repository, commit, branch string) (string, error) {
	if commit != "" {
		return commit, nil
	}
	// A branch of one's own, and then that of a clone's origin.
	id, err := r.Commit("refs/heads/" + branch)
	if rs, ok := trust.AsRefusals(err); ok && rs.Has("end-missing") {
		if id, err = r.Commit("refs/remotes/origin/" + branch); err != nil {
			return "", trust.Refuse("end-missing", r.Dir, "there is no branch %q", branch).WithHint("say which commit")
		}
	}
	return id.String(), err
}

// mayGoBack looks for the order by which a channel may leave the commit where it stands.
func (p *Pinner) mayGoBack(req Request, commit git.ID, last *account.Entry) error {
	forward := trust.Refuse("pin-not-forward", req.Channel, "commit %s does not descend from %s, which is pinned", commit, last.Commit)
	switch {
	case req.Orders == nil:
		return forward.WithHint("officers may order a downgrade; bring the orders in force with --orders")
	case p.Root == nil:
		return trust.Refusals{forward, trust.Refuse("pin-orders", req.Channel, "this zone does not know the enclave's root, by which orders are checked").WithHint("'trust accept' makes it known")}
	}
	orders, _, err := trust.OpenOrders(req.Orders, p.Root)
	if err != nil {
		return err
	}
	if _, ok := orders.MayDowngrade(req.Channel, commit.String()); !ok {
		return forward.WithHint(fmt.Sprintf("the orders of version %d have no 'downgrade %s %s'", orders.Version, req.Channel, commit))
	}
	return nil
}

// isBefore reports whether a commit is an ancestor of the first pin, in the history of the last one.
func isBefore(ctx context.Context, r *authenticate.Repository, req authenticate.Request, last, first, commit git.ID) (bool, error) {
	req.End, req.Progress = last.String(), nil
	report, err := r.Authenticate(ctx, req)
	if err != nil || !report.OK() {
		return false, err // then it is not known, and the policy refuses
	}
	within, ok := report.Ancestors(first)
	return ok && within(commit), nil
}

type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

// record is the write that makes it true.
func (p *Pinner) record(ctx context.Context, out *Outcome, req Request) (err error) {
	text := out.Text()
	digest := trust.Sum(text)
	in, err := pending.Begin(ctx, p.Zone, stage, []trust.Digest{digest})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.End(ctx, err)) }()
	if _, err := p.Zone.CAS.PutBytes(text); err != nil {
		return err
	}
	from := "-"
	if !out.From.IsZero() {
		from = out.From.String()
	}
	predicate := map[string]any{"channel": out.Channel, "commit": out.Commit.String(), "from": from, "commits": int64(out.Report.Commits)}
	if names := out.Excused(); len(names) > 0 {
		predicate["excused"] = names
	}
	if out.Back {
		predicate["orders"] = trust.Sum(req.Orders).String()
	}
	return p.Zone.Commit(ctx, func(tx *store.Tx) error {
		out.Date = tx.Now().UTC().Truncate(time.Second)
		if err := tx.Statement(statement.KindPinned, []statement.Subject{{Name: out.Channel, SHA256: digest}}, predicate); err != nil {
			return err
		}
		if err := tx.Attach(ctx, digest); err != nil {
			return err
		}
		return tx.Exec(ctx, `INSERT INTO pin (channel, number, digest, text, added) VALUES (?, ?, ?, ?, ?)`, out.Channel, out.Number, digest.String(), text, trust.FormatDate(out.Date))
	})
}

// Excused names the excuses that were needed, each once.
func (o *Outcome) Excused() []string {
	seen := make(map[string]bool)
	var names []string
	for _, e := range o.Ruling.Excused {
		if !seen[e.Excuse.Name] {
			seen[e.Excuse.Name] = true
			names = append(names, e.Excuse.Name)
		}
	}
	return names
}

// An Excuse is one of the outside's own.
type Excuse struct {
	authenticate.Excuse
	Channel string
}

// Excuse records an excuse. One of the same name takes the place of a former one.
func (p *Pinner) Excuse(ctx context.Context, e Excuse) (err error) {
	unlock, err := p.Zone.LockContext(ctx, stage)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := account.Pins(ctx, p.Zone, e.Channel)
	if err != nil {
		return err
	}
	var bad trust.Refusals
	for _, err := range []error{trust.CheckWord(e.Name), trust.CheckReason(e.Reason)} {
		if err != nil {
			bad.Add(trust.Refuse("excuse-form", e.Name, "%v", err))
		}
	}
	if err := trust.CheckWord(e.By); err != nil {
		bad.Add(trust.Refuse("excuse-person", e.Name, "%v", err))
	} else if p.Root != nil && !p.Root.HasRole(e.By, trust.RoleCollector) {
		bad.Add(trust.Refuse("excuse-person", e.Name, "%s is no collector of the root in force", e.By))
	}
	if e.Channel == "" || len(all) == 0 {
		bad.Add(trust.Refuse("excuse-channel", e.Name, "no channel %q is pinned here; before its first pin nothing refuses that could be excused", e.Channel).WithHint("'channel list' lists those that are pinned"))
	}
	if !authenticate.KnownFinding(e.Code) {
		var codes []string
		for _, c := range channel.FindingCodes() {
			if c[0] != channel.FindingNotIntroduced {
				codes = append(codes, c[0])
			}
		}
		bad.Add(trust.Refuse("excuse-code", e.Name, "no finding has the code %q", e.Code).WithHint("there are " + strings.Join(codes, ", ")))
	} else if e.Code == channel.FindingNotIntroduced {
		bad.Add(trust.Refuse("excuse-code", e.Name, "%s is never excused: nothing is proven about such a commit", e.Code))
	}
	now := p.Clock()
	if !e.Expires.After(now) || e.Expires.After(now.Add(authenticate.MaxExcuse)) {
		bad.Add(trust.Refuse("excuse-until", e.Name, "until %s: want a date that is to come, within %d days", trust.FormatDate(e.Expires), int(authenticate.MaxExcuse/(24*time.Hour))))
	}
	if err := bad.Err(); err != nil {
		return err
	}
	about, key := "-", "-"
	if !e.Commit.IsZero() {
		about = e.Commit.String()
	}
	if e.Key != (openpgp.Fingerprint{}) {
		key = fmt.Sprintf("%X", e.Key[:])
	}
	until := trust.FormatDate(e.Expires)
	return p.Zone.Commit(ctx, func(tx *store.Tx) error {
		subject := statement.Subject{Name: e.Channel, SHA256: trust.Sum(all[len(all)-1].Text())}
		if err := tx.Statement(statement.KindExcused, []statement.Subject{subject}, map[string]any{"name": e.Name, "code": e.Code, "channel": e.Channel, "commit": about, "key": key,
			"until": until, "person": e.By, "reason": e.Reason}); err != nil {
			return err
		}
		return tx.Exec(ctx, `INSERT OR REPLACE INTO excuse (name, code, channel, about, key, until, person, reason, added) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			e.Name, e.Code, e.Channel, about, key, until, e.By, e.Reason, trust.FormatDate(tx.Now()))
	})
}
