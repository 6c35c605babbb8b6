package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/judge/examine"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Submission asks for a commit of a channel to be let in from a repository inside.
type Submission struct {
	Channel    string
	Repository string // bare or with a working tree; nothing is written into it
	Commit     string // what the repository calls the commit; "" for the end of the channel's branch
	Keyring    string // the branch with the keys; "" for the usual one
	Complete   bool   // the whole history, also where a track has some of it
}

// Submitted says what became of it.
type Submitted struct {
	Type       string           `json:"type"`                 // submission
	Submission int64            `json:"submission,omitempty"` // its number
	Shipment   int64            `json:"shipment,omitempty"`   // that has brought the commit before
	State      string           `json:"state"`
	Before     bool             `json:"before"` // it was here; nothing was done
	Channel    string           `json:"channel"`
	Commit     string           `json:"commit"`
	Basis      string           `json:"basis"` // "-" for a complete history
	Item       string           `json:"item"`
	Bytes      int64            `json:"bytes"`
	Files      int64            `json:"files,omitempty"`
	Findings   map[string]int64 `json:"findings,omitempty"` // by severity
	Confined   map[string]any   `json:"confinement,omitempty"`
	Ignored    []string         `json:"ignored,omitempty"` // what of the repository git would heed and nothing here does
}

// Name is what reviewers call it.
func (s *Submitted) Name() string {
	if s.Shipment > 0 {
		return statement.Arrived(s.Shipment)
	}
	return statement.Arrived(-s.Submission)
}

// Submit makes an item of a commit and judges it as one of a shipment. What it refuses, and what its errors mean, is as with [Gate.Import]. A commit that is here, with whatever was
// not rejected, is not taken twice.
func (g *Gate) Submit(ctx context.Context, s Submission) (*Submitted, error) {
	unlock, err := g.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := pending.Settle(ctx, g.Zone, stage); err != nil {
		return nil, err
	}
	w := &submission{intake: &intake{g: g, drvs: map[string]*drv{}, findings: map[string]int64{}}, s: s}
	out, err := w.run(ctx)
	if w.reader != nil {
		w.reader.Close()
	}
	if w.remove != nil {
		w.remove()
	}
	left := w.pending.End(ctx, err)
	if err == nil {
		return out, left
	}
	subject := statement.Subject{Name: "submission of " + trust.Printable(s.Channel, 100), SHA256: w.item.SHA256}
	if w.item.Name == "" {
		subject.SHA256 = trust.Sum([]byte(subject.Name))
	}
	return nil, errors.Join(g.Zone.Refused(ctx, "gate", subject, err), left)
}

// A submission is the work on one.
type submission struct {
	*intake
	s    Submission
	repo *authenticate.Repository
	pin  *pin.Pin
	item trust.Item // when it is made
}

func (w *submission) run(ctx context.Context) (out *Submitted, err error) {
	g := w.g
	if err := g.mayImport(); err != nil {
		return nil, err
	}
	if w.orders, err = g.Zone.Orders(ctx, g.Root); err != nil {
		return nil, err
	}
	if err := w.identity(); err != nil {
		return nil, err
	}
	if w.repo, err = authenticate.Open(w.s.Repository, authenticate.Options{}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.repo.Close()) }()
	w.repo.Dir = "repository" // how refusals name it: they stay in the ledger
	if err := w.commits(); err != nil {
		return nil, err
	}
	lists, err := w.allowed(ctx)
	if err != nil {
		return nil, err
	}
	if before, err := w.before(ctx); before != nil || err != nil {
		return before, err
	}
	basisKeyring, err := w.basis(ctx, lists)
	if err != nil {
		return nil, err
	}
	file, remove, err := w.make(ctx, basisKeyring)
	if remove != nil {
		defer remove()
	}
	if err != nil {
		return nil, err
	}
	if err := g.Zone.Space(w.item.Size); err != nil {
		return nil, err
	}
	if w.reader, err = examine.Start(ctx, g.Reader); err != nil {
		return nil, err
	}
	w.noted = []trust.Digest{w.item.SHA256}
	if w.pending, err = pending.Begin(ctx, g.Zone, stage, w.noted); err != nil {
		return nil, err
	}
	if err := w.take(ctx, file); err != nil {
		return nil, err
	}
	if err := w.channels(ctx, []trust.Item{w.item}, lists); err != nil {
		return nil, err
	}
	if limit := g.maxFindings(); len(w.details) > limit {
		return nil, trust.Refuse("inspection-findings", w.item.Name, "more than %d findings; that is not for a person to read", limit)
	}
	n, err := w.quarantine(ctx)
	if err != nil {
		return nil, err
	}
	w.adopt(ctx)
	out = w.told(w.item, w.pin.Basis)
	out.Submission, out.State, out.Files, out.Findings, out.Confined = n, "quarantined", w.files, w.findings, w.reader.Confinement()
	return out, nil
}

func (w *submission) told(it trust.Item, basis git.ID) *Submitted {
	out := &Submitted{Type: "submission", Channel: w.pin.Channel, Commit: w.pin.Commit.String(), Basis: "-", Item: it.Name, Bytes: it.Size, Ignored: w.repo.Ignored()}
	if !basis.IsZero() {
		out.Basis = basis.String()
	}
	return out
}

// identity begins the pin with what officers ordered: a submitter has no say in it.
func (w *submission) identity() error {
	c, ok := w.orders.Channel(w.s.Channel)
	if !ok {
		return history.Fits(&pin.Pin{Channel: w.s.Channel}, w.orders).Err()
	}
	w.pin = &pin.Pin{Channel: c.Name, URL: c.URL, Branch: c.Branch}
	var err error
	if w.pin.Introduction, err = git.ParseID(c.Commit); err != nil {
		return fmt.Errorf("order of channel %s: %w", c.Name, err)
	}
	_, err = hex.Decode(w.pin.Signer[:], []byte(c.Signer)) // 40 digits, as was checked when the orders were read
	return err
}

// commits finds what the repository calls the commit and the keyring.
func (w *submission) commits() error {
	var rs trust.Refusals
	var err error
	if w.s.Commit == "" {
		// A branch of one's own, and then that of a clone's origin.
		w.pin.Commit, err = w.repo.Commit("refs/heads/" + w.pin.Branch)
		if refused, _ := trust.AsRefusals(err); refused.Has("end-missing") {
			if w.pin.Commit, err = w.repo.Commit("refs/remotes/origin/" + w.pin.Branch); err != nil {
				err = trust.Refuse("end-missing", "repository", "there is no branch %q, which officers ordered", w.pin.Branch).WithHint("say which commit: --commit")
			}
		}
	} else {
		w.pin.Commit, err = w.repo.Commit(w.s.Commit)
	}
	if err := rs.Merge(err); err != nil {
		return err
	}
	keyring := w.s.Keyring
	if keyring == "" {
		keyring = authenticate.DefaultKeyring
	}
	w.pin.Keyring, err = w.repo.Branch(keyring)
	if err := rs.Merge(err); err != nil {
		return err
	}
	if len(rs) == 0 {
		return history.Lacks(w.repo, w.pin)
	}
	return rs
}

// basis chooses what the item is to stand on: of the pins at which tracks stand, one from which the commit descends, the newest. What only lies in
// quarantine may be rejected yet, and would leave what stands on it without a ground.
func (w *submission) basis(ctx context.Context, lists tracks) (keyring git.ID, err error) {
	if w.s.Complete {
		return keyring, nil
	}
	var best history.Entry
	for _, v := range lists {
		h, err := history.Of(ctx, w.g.Zone, v.List, w.orders, w.repositories())
		if err != nil {
			return keyring, fmt.Errorf("pins of track %s: %w", v.List.Track, err)
		}
		e, ok := h.Newest(w.pin.Channel)
		if !ok || e.Commit == w.pin.Commit || best.Item.Name != "" && !e.Date.After(best.Date) {
			continue
		}
		// A repository that lacks a part of its history cannot tell; what is made of it is refused then.
		if ahead, err := history.Descends(ctx, w.repo, e.Commit, w.pin.Commit); ctx.Err() != nil {
			return keyring, ctx.Err()
		} else if err == nil && ahead {
			best = e
		}
	}
	if best.Item.Name == "" {
		return keyring, nil
	}
	p, _, err := history.Read(w.g.Zone.CAS, best.Item, io.Discard)
	if err != nil {
		return keyring, err
	}
	w.pin.Basis = best.Commit
	return p.Keyring, nil
}

// before tells what has brought the commit already.
func (w *submission) before(ctx context.Context) (*Submitted, error) {
	items, err := w.repositories().Items(ctx, w.pin.Channel)
	if err != nil {
		return nil, err
	}
	for _, e := range items {
		if _, gone := w.orders.Recalled(e.Item.SHA256, e.Item.Name); e.Commit != w.pin.Commit || gone {
			continue
		}
		p, _, err := history.Read(w.g.Zone.CAS, e.Item, io.Discard)
		if _, refused := trust.AsRefusals(err); refused {
			continue // it is lost, or was never one
		}
		if err != nil {
			return nil, err
		}
		if w.s.Complete && !p.Basis.IsZero() || p.Keyring != w.pin.Keyring {
			continue
		}
		if fits := history.Fits(p, w.orders); len(fits) > 0 {
			continue
		}
		out := w.told(e.Item, p.Basis)
		var n int64
		err = w.g.Zone.Read(ctx).QueryRowContext(ctx, `SELECT number, state FROM shipment JOIN shipment_item USING (number)
			WHERE sha256 = ? AND name = ? AND state != 'rejected' ORDER BY number LIMIT 1`, e.Item.SHA256.String(), e.Item.Name).Scan(&n, &out.State)
		if err != nil {
			return nil, err
		}
		if out.Before = true; n < 0 {
			out.Submission = -n
		} else {
			out.Shipment = n
		}
		return out, nil
	}
	return nil, nil
}

// make writes the item to a file. What keeps one from being made is told together with what is wrong with the commits.
func (w *submission) make(ctx context.Context, basisKeyring git.ID) (f *os.File, remove func(), err error) {
	w.note("making the item")
	hash := sha256.New()
	n := &narCheck{hash: hash, size: pin.MaxNar}
	if err := w.repo.Nar(ctx, w.pin.Commit, n); err != nil {
		return nil, nil, w.unmade(ctx, err)
	}
	hash.Sum(w.pin.NarHash[:0])
	w.pin.NarSize = n.n
	// The pack, the item, and the blob; of what stands on a basis it is less.
	if w.pin.Basis.IsZero() {
		if err := w.g.Zone.Space(3 * history.PackBytes(w.s.Repository)); err != nil {
			return nil, nil, err
		}
	}
	g, err := w.g.git()(ctx)
	if err != nil {
		return nil, nil, err
	}
	dir, empty, err := w.g.Zone.Scratch()
	if err != nil {
		return nil, nil, err
	}
	end := func() {
		if f != nil {
			f.Close() // it was read, or is of no use
		}
		empty()
	}
	if f, err = os.OpenFile(filepath.Join(dir, "item"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, end, err
	}
	// Git is given the path as it was named.
	w.repo.Dir = w.s.Repository
	w.item, err = history.MakeItem(ctx, g, w.repo, dir, w.pin, basisKeyring, f)
	w.repo.Dir = "repository"
	var exit *gitrun.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil && !strings.Contains(strings.ToLower(exit.Error()), syscall.ENOSPC.Error()) && !strings.Contains(exit.Error(), "diskspace") {
		// It is the repository that git minds; a disk that is full is another matter.
		err = w.unmade(ctx, trust.Refuse("channel-repository", w.pin.Channel, "git cannot pack commit %s: %s", w.pin.Commit, trust.Printable(exit.Error(), 300)))
	}
	if err != nil {
		return nil, end, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, end, err
}

// unmade is why no item can be made, and what else is wrong: the commits are judged where they are.
func (w *submission) unmade(ctx context.Context, why error) error {
	var rs trust.Refusals
	if err := rs.Merge(why); err != nil {
		return err
	}
	report, err := w.repo.Authenticate(ctx, authenticate.Request{Introduction: w.pin.Introduction, Signer: w.pin.Signer, Keyring: w.s.Keyring, End: w.pin.Commit.String()})
	if err == nil {
		err = w.repo.Refused(report.Verdict, nil).Err()
	}
	if err := rs.Merge(err); err != nil {
		return err
	}
	return rs.Err()
}

// take stores and inspects the item, as one that comes from a volume.
func (w *submission) take(ctx context.Context, f *os.File) (err error) {
	current := ""
	it, err := sink{ctx, w.intake, &current}.Begin(w.item)
	if err != nil {
		return err
	}
	if _, err := io.Copy(it, io.TeeReader(f, progress(w.g, w.item.Name))); err != nil {
		return errors.Join(err, it.Abort())
	}
	return it.Commit()
}

// progress counts what passes.
func progress(g *Gate, name string) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if g.Progress != nil {
			g.Progress(int64(len(p)), name)
		}
		return len(p), nil
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func (w *submission) note(what string) {
	if w.g.Progress != nil {
		w.g.Progress(0, "channel "+w.pin.Channel+": "+what)
	}
}

// quarantine is the write that makes a submission true. Its number is the next: nobody else gives numbers while this stage's lock is held.
func (w *submission) quarantine(ctx context.Context) (int64, error) {
	g := w.g
	var least int64
	if err := g.Zone.Read(ctx).QueryRowContext(ctx, `SELECT min(0, coalesce(min(number), 0)) FROM shipment`).Scan(&least); err != nil {
		return 0, err
	}
	n := 1 - least
	said := &statement.Submission{Number: n, Item: w.item, Commit: w.pin.Commit.String(), Basis: "-", Person: g.Importer.Person()}
	if !w.pin.Basis.IsZero() {
		said.Basis = w.pin.Basis.String()
	}
	a := &arrival{number: -n, digest: w.item.SHA256, date: trust.FormatDate(g.Clock()), items: []trust.Item{w.item}, bytes: w.item.Size}
	s := said.Statement()
	s.Predicate["time"], s.Predicate["zone"] = a.date, g.Zone.Origin()
	var err error
	if a.entry, err = statement.Sign(g.Importer, s); err != nil {
		return 0, err
	}
	return n, w.enter(ctx, a, func() error { return nil })
}
