package collect

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/account"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// A Channel asks for the commit to which a channel is pinned in the zone.
type Channel struct {
	// Name is the channel's, as 'channel pin' has it.
	Name string `toml:"name"`
	// Repository is a git repository that has the commit, bare or with a working tree, relative to the request file. Nothing is written into it.
	Repository string `toml:"repository"`
	// Complete asks for the whole history, not only for what is new since the pin that was sent last: where the enclave has lost that, or never took it.
	Complete bool `toml:"complete"`
}

// A ChannelItem tells of a channel in a collection.
type ChannelItem struct {
	Channel string   `json:"channel"`
	Commit  string   `json:"commit"`
	Basis   string   `json:"basis"` // "-" for a complete history
	Item    string   `json:"item"`
	Sent    int64    `json:"shipment,omitempty"` // that has it already
	Commits int      `json:"commits"`            // since the introduction
	Excused []string `json:"excused,omitempty"`  // NAME: CODE, by PERSON until DATE: REASON
}

// findGit finds the program.
func (w *work) findGit(ctx context.Context) (*gitrun.Git, error) {
	if w.git != nil {
		return w.git, nil
	}
	g, err := gitrun.Find(ctx, os.Getenv("PATH"))
	w.git = g
	return g, err
}

// channel makes the item of a channel's pin, or finds the one that was made.
func (w *work) channel(ctx context.Context, c *Channel, base string) error {
	z := w.c.Zone
	pins, err := account.Pins(ctx, z, c.Name)
	if err != nil {
		return err
	}
	if len(pins) == 0 {
		w.refusals.Add(trust.Refuse("channel-unpinned", c.Name, "this zone has not pinned it").WithHint("'channel pin' authenticates and pins it"))
		return nil
	}
	stands := pins[len(pins)-1]
	made, err := account.Items(ctx, z, c.Name)
	if err != nil {
		return err
	}
	sent := account.Sent(made, pins)
	next := *stands.Pin
	if sent != nil && !c.Complete {
		next.Basis = sent.Pin.Commit
	}
	// One that was made is taken again: git need not make the same pack twice.
	found := slices.IndexFunc(made, func(m account.Made) bool {
		return account.Same(m.Pin, stands.Pin) && (m.Pin.Basis == next.Basis || !c.Complete && m.Shipment > 0)
	})
	item := new(account.Made)
	if found >= 0 {
		item = &made[found]
	} else {
		item.Pin = &next
		var basisKeyring git.ID
		if !next.Basis.IsZero() {
			basisKeyring = sent.Pin.Keyring
		}
		dir := c.Repository
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(base, dir)
		}
		if item.Item, err = w.makeChannel(ctx, dir, &next, basisKeyring); err != nil {
			return err
		}
	}
	told, err := w.judgeChannel(ctx, item, made, pins)
	if err := w.refusals.Merge(err); err != nil {
		return err
	}
	if told != nil {
		w.out.Channels = append(w.out.Channels, *told)
	}
	return nil
}

// makeChannel makes an item in the store.
func (w *work) makeChannel(ctx context.Context, dir string, p *pin.Pin, basisKeyring git.ID) (it trust.Item, err error) {
	z := w.c.Zone
	g, err := w.findGit(ctx)
	if err != nil {
		return it, err
	}
	repository, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		return it, err
	}
	defer repository.Close()
	if err := history.Lacks(repository, p); err != nil {
		return it, err
	}
	if p.Basis.IsZero() {
		// The pack, the item, and what is unpacked of it to look into it.
		if err := z.Space(3 * history.PackBytes(dir)); err != nil {
			return it, err
		}
	}
	tmp, remove, err := z.Scratch()
	if err != nil {
		return it, err
	}
	defer remove()
	blob, err := z.CAS.Create()
	if err != nil {
		return it, err
	}
	defer blob.Abort()
	progress := counter(func(n int64) {
		if w.c.Progress != nil {
			w.c.Progress(n, "channel "+p.Channel)
		}
	})
	if it, err = history.MakeItem(ctx, g, repository, tmp, p, basisKeyring, io.MultiWriter(blob, progress, until{ctx})); err != nil {
		return it, err
	}
	if err := w.note(ctx, it.SHA256); err != nil {
		return it, err
	}
	_, _, err = blob.Commit(it.SHA256)
	return it, err
}

// judgeChannel looks at an item as the other side will: it opens and unpacks it, authenticates what it has, and has every file of the checkout looked into.
func (w *work) judgeChannel(ctx context.Context, m *account.Made, made []account.Made, pins []*account.Entry) (*ChannelItem, error) {
	z, p := w.c.Zone, m.Pin
	g, err := w.findGit(ctx)
	if err != nil {
		return nil, err
	}
	repositories := &history.Repositories{Zone: z, Git: func(context.Context) (*gitrun.Git, error) { return g, nil }}
	standsOn := ""
	if !p.Basis.IsZero() {
		if err := w.receiver(ctx, repositories, p.Channel, p.Basis, made, 0); err != nil {
			return nil, err
		}
		standsOn = repositories.Dir(p.Channel)
	}
	scratch, remove, err := z.Scratch()
	if err != nil {
		return nil, err
	}
	w.ends = append(w.ends, remove)
	w.progress("channel " + p.Channel + ": unpacking")
	if err := repositories.Unpack(ctx, g, scratch, standsOn, m.Item); err != nil {
		return nil, err
	}
	refs := fmt.Sprintf("# pack-refs with: sorted \n%s refs/heads/%s\n", p.Keyring, pin.KeyringBranch)
	if err := os.WriteFile(filepath.Join(scratch, "packed-refs"), []byte(refs), 0o600); err != nil {
		return nil, err
	}
	var o authenticate.Options
	if standsOn != "" {
		o.Alternates = []string{filepath.Join(standsOn, "objects")}
	}
	repository, err := authenticate.Open(scratch, o)
	if err != nil {
		return nil, err
	}
	defer repository.Close()
	repository.Dir = "channel " + p.Channel
	cache, err := account.Cache(z, w.c.Rand)
	if err != nil {
		return nil, err
	}
	report, err := repository.Authenticate(ctx, authenticate.Request{Introduction: p.Introduction, Signer: p.Signer, Keyring: pin.KeyringBranch, End: p.Commit.String(), Cache: cache,
		Progress: func(judged, found int) {
			w.progress(fmt.Sprintf("channel %s: %d of %d commits judged", p.Channel, judged, found))
		}})
	if err != nil {
		return nil, err
	}
	if !report.OK() {
		return nil, repository.Refused(report.Verdict, nil)
	}
	if err := w.checkout(ctx, repository, m); err != nil {
		return nil, err
	}
	told := &ChannelItem{Channel: p.Channel, Commit: p.Commit.String(), Basis: "-", Item: m.Item.Name, Sent: m.Shipment, Commits: report.Commits}
	if !p.Basis.IsZero() {
		told.Basis = p.Basis.String()
	}
	if told.Excused, err = w.excused(ctx, report, pins); err != nil {
		return nil, err
	}
	if !slices.Contains(w.out.Items, m.Item) {
		w.out.Items = append(w.out.Items, m.Item)
		w.out.Bytes += m.Item.Size
	}
	w.adopt = append(w.adopt, func() error { return repositories.Adopt(ctx, p.Channel, scratch, m.Item) })
	return told, nil
}

// receiver sees to it that the zone's repository of a channel has what the other side has: the objects of the items up to a commit. It is a copy; what is missing is
// unpacked again.
func (w *work) receiver(ctx context.Context, r *history.Repositories, channel string, commit git.ID, made []account.Made, depth int) error {
	dir := r.Dir(channel)
	if has, err := hasCommit(dir, commit); has || err != nil {
		return err
	}
	i := slices.IndexFunc(made, func(m account.Made) bool { return m.Pin.Commit == commit && m.Shipment > 0 })
	if i < 0 || depth > len(made) {
		return trust.Refuse("channel-basis", channel, "the item that brought commit %s is not in the store any more", commit).WithHint("ask for the whole history: complete = true")
	}
	if m := made[i]; !m.Pin.Basis.IsZero() {
		if err := w.receiver(ctx, r, channel, m.Pin.Basis, made, depth+1); err != nil {
			return err
		}
	}
	w.progress("channel " + channel + ": unpacking what was sent before")
	return r.Take(ctx, channel, made[i].Item)
}

func hasCommit(dir string, commit git.ID) (bool, error) {
	repository, err := authenticate.Open(dir, authenticate.Options{})
	if refused, ok := trust.AsRefusals(err); errors.Is(err, os.ErrNotExist) || ok && refused.Has(authenticate.CodeNoRepository) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w; it is only a copy: remove %s", err, dir)
	}
	defer repository.Close()
	_, err = repository.Database().NewReader().Read(commit, git.KindCommit)
	return err == nil, nil
}

func (w *work) progress(what string) {
	if w.c.Progress != nil {
		w.c.Progress(0, what)
	}
}

// checkout has every file of a commit looked into, and the item itself, and compares the hash of the checkout with the pin's.
func (w *work) checkout(ctx context.Context, repository *authenticate.Repository, m *account.Made) error {
	w.progress("channel " + m.Pin.Channel + ": looking into the checkout")
	blob, err := w.c.Zone.CAS.Open(m.Item.SHA256)
	if err != nil {
		return err
	}
	_, err = w.reader.Item(ctx, confine.Request{Kind: confine.KindNar, Name: m.Item.Name, Size: m.Item.Size}, blob)
	if err := errors.Join(err, blob.Close()); err != nil {
		return err
	}
	hash := sha256.New()
	pr, pw := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := repository.Nar(ctx, m.Pin.Commit, io.MultiWriter(hash, pw))
		pw.CloseWithError(err)
		written <- err
	}()
	report, err := w.reader.Item(ctx, confine.Request{Kind: confine.KindNar, Name: m.Pin.StoreName(), Size: m.Pin.NarSize}, pr)
	pr.CloseWithError(errLooked)
	narErr := <-written
	if narErr != nil && !errors.Is(narErr, errLooked) {
		return narErr
	}
	if err != nil {
		return err
	}
	var digest trust.Digest
	if hash.Sum(digest[:0]); digest != m.Pin.NarHash {
		return trust.Refuse("channel-nar", m.Pin.Channel, "the checkout of %s has the hash %s, the pin says %s", m.Pin.Commit, digest, m.Pin.NarHash)
	}
	for _, f := range report.Findings {
		w.out.Findings[f.Severity] += f.Count
		w.out.Details = append(w.out.Details, Detail{m.Item.Name, f})
	}
	w.out.Files += report.Files
	return nil
}

var errLooked = errors.New("the reader has ended")

// excused names the excuses with which the pin was made.
func (w *work) excused(ctx context.Context, report *authenticate.Report, pins []*account.Entry) ([]string, error) {
	var policy authenticate.Policy
	if _, ok := report.Ancestors(pins[0].Commit); ok {
		policy.Since = pins[0].Commit
	}
	var err error
	if policy.Excuses, err = account.Excuses(ctx, w.c.Zone, pins[0].Channel); err != nil {
		return nil, err
	}
	ruling, err := policy.Rule(report.Verdict, pins[len(pins)-1].Date)
	if _, ok := trust.AsRefusals(err); ok {
		return nil, nil // excuses have changed since; the pin was made with those of its day, which its entry names
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range ruling.Excused {
		s := fmt.Sprintf("%s: %s, by %s until %s: %s", e.Excuse.Name, e.Excuse.Code, e.Excuse.By, trust.FormatDate(e.Excuse.Expires), e.Excuse.Reason)
		if !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, strings.Compare)
	return all, nil
}
