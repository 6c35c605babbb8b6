package gate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// A pinned is a channel's item of this volume.
type pinned struct {
	history.Entry
	pin    *pin.Pin
	header *pin.Header
}

// channels judges the channels' items among these, whose contents are in the store. What they bring lies in scratch repositories until the shipment is quarantined.
func (j *intake) channels(ctx context.Context, items []trust.Item, lists tracks) error {
	var rs trust.Refusals
	byName := map[string][]pinned{}
	var names []string
	for _, it := range items {
		if it.Kind != trust.KindChannel {
			continue
		}
		p, h, err := history.Read(j.g.Zone.CAS, it, io.Discard)
		if err != nil {
			if err := rs.Merge(err); err != nil {
				return err
			}
			continue
		}
		if byName[p.Channel] == nil {
			names = append(names, p.Channel)
		}
		e := history.Entry{Channel: p.Channel, Commit: p.Commit, Item: it}
		byName[p.Channel] = append(byName[p.Channel], pinned{e, p, h})
	}
	if len(names) == 0 {
		return rs.Err()
	}
	g, err := j.repositories().Git(ctx)
	if err != nil {
		return err
	}
	dir, remove, err := j.g.Zone.Scratch()
	if err != nil {
		return err
	}
	j.remove = remove
	slices.Sort(names)
	for _, name := range names {
		c := &channelIntake{intake: j, git: g, name: name, dir: filepath.Join(dir, name+".git"), items: byName[name]}
		if err := rs.Merge(c.judge(ctx, lists)); err != nil {
			return err
		}
		j.came = append(j.came, c)
	}
	return rs.Err()
}

func (j *intake) repositories() *history.Repositories {
	return &history.Repositories{Zone: j.g.Zone, Git: j.g.git()}
}

func (g *Gate) git() func(context.Context) (*gitrun.Git, error) {
	if g.Git != nil {
		return g.Git
	}
	return history.FindGit
}

// adopt moves what the channels have brought to where it is looked for. It is a copy of what the store has: that it could not be moved is no fault of the import.
func (j *intake) adopt(ctx context.Context) {
	for _, c := range j.came {
		var items []trust.Item
		for _, p := range c.items {
			items = append(items, p.Item)
		}
		if err := j.repositories().Adopt(ctx, c.name, c.dir, items...); err != nil {
			return // it is unpacked again when it is needed
		}
	}
}

// A channelIntake is the work on one channel.
type channelIntake struct {
	*intake
	git   *gitrun.Git
	name  string
	dir   string // scratch
	base  string // the repository that is here; "" for none
	items []pinned
}

func (c *channelIntake) judge(ctx context.Context, lists tracks) error {
	var rs trust.Refusals
	if _, ok := c.orders.Channel(c.name); !ok {
		// There is nothing to hold it against, so nothing of it is unpacked.
		return history.Fits(c.items[0].pin, c.orders).Err()
	}
	tips, err := c.here(ctx)
	if err != nil {
		return err
	}
	h, err := c.histories(ctx, lists)
	if err != nil {
		return err
	}
	// Each behind what it stands on, so that a shipment may bring several.
	rest := slices.Clone(c.items)
	for len(rest) > 0 {
		at := slices.IndexFunc(rest, func(p pinned) bool {
			return !slices.ContainsFunc(rest, func(o pinned) bool { return o.Commit == p.pin.Basis })
		})
		if at < 0 {
			rs.Add(trust.Refuse("channel-basis", c.name, "its items stand on one another in a circle"))
			break
		}
		p := rest[at]
		rest = slices.Delete(rest, at, at+1)
		rs.Add(history.Fits(p.pin, c.orders)...)
		good, err := c.item(ctx, p, tips, h)
		if err := rs.Merge(err); err != nil {
			return err
		}
		if good {
			tips = append(tips, p.Commit)
		}
	}
	return rs.Err()
}

// here opens what the zone has of the channel, and returns the commits of its items.
func (c *channelIntake) here(ctx context.Context) (tips []git.ID, err error) {
	repositories := c.repositories()
	repo, err := repositories.Open(ctx, c.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	items, err := repositories.Items(ctx, c.name)
	if err != nil {
		return nil, err
	}
	reader := repo.Database().NewReader()
	for _, e := range items {
		if _, err := reader.Read(e.Commit, git.KindCommit); err == nil {
			tips = append(tips, e.Commit)
		}
	}
	c.base = repositories.Dir(c.name)
	return tips, nil
}

// histories are those of the tracks that have the channel.
func (c *channelIntake) histories(ctx context.Context, lists tracks) (all []*history.History, err error) {
	for _, v := range lists {
		h, err := history.Of(ctx, c.g.Zone, v.List, c.orders, c.repositories())
		if err != nil {
			return nil, fmt.Errorf("pins of track %s: %w", v.List.Track, err)
		}
		if len(h.Entries(c.name)) > 0 {
			all = append(all, h)
		}
	}
	return all, nil
}

// item judges one item. good says whether others may stand on it.
func (c *channelIntake) item(ctx context.Context, p pinned, tips []git.ID, h []*history.History) (good bool, err error) {
	if c.g.Progress != nil {
		c.g.Progress(0, "channel "+c.name+": unpacking")
	}
	missing := func(id git.ID) error {
		return trust.Refuse("channel-basis", p.Item.Name, "it stands on commit %s, which is not in the history of anything that is here", id).
			WithHint("a shipment between may be missing or rejected: import it first, or have the channel sent again as a whole")
	}
	if !p.pin.Basis.IsZero() {
		lacks := p.pin.Basis
		if len(tips) > 0 {
			repo, err := c.open()
			if err != nil {
				return false, err
			}
			within, err := history.Descends(ctx, repo, p.pin.Basis, tips...)
			if within {
				lacks = git.ID{}
				if k := p.header.BasisKeyring; !k.IsZero() {
					if _, err := repo.Database().NewReader().Read(k, git.KindCommit); err != nil {
						lacks = k
					}
				}
			}
			if err = errors.Join(err, repo.Close()); err != nil {
				return false, err
			}
		}
		if !lacks.IsZero() {
			return false, missing(lacks)
		}
	}
	// What git writes has about the size of the bundle, and an index beside it.
	if err := c.g.Zone.Space(p.Item.Size + p.Item.Size/2); err != nil {
		return false, err
	}
	if err := c.unpack(ctx, p); err != nil {
		return false, named(err, p)
	}
	repo, err := c.open()
	if err != nil {
		return false, named(err, p)
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	var rs trust.Refusals
	merge := func(err error) error { return rs.Merge(named(err, p)) }
	verdict, err := c.authenticate(ctx, repo, p, h)
	if err := merge(err); err != nil {
		return false, err
	}
	if verdict != nil {
		if err := merge(c.forward(ctx, repo, p, h)); err != nil {
			return false, err
		}
	}
	if err := merge(c.checkout(ctx, repo, p)); err != nil {
		return false, err
	}
	return len(rs) == 0, rs.Err()
}

// unpack unpacks an item into the scratch repository. What says that it is complete gets nothing to stand on: it could not be unpacked where that is not.
func (c *channelIntake) unpack(ctx context.Context, p pinned) error {
	if !p.pin.Basis.IsZero() {
		if err := c.repositories().Unpack(ctx, c.git, c.dir, c.base, p.Item); err != nil {
			return err
		}
		return c.repositories().Consolidate(ctx, c.dir, c.base)
	}
	alone := c.dir + ".alone"
	if err := c.repositories().Unpack(ctx, c.git, alone, "", p.Item); err != nil {
		return err
	}
	if err := history.Make(c.dir); err != nil {
		return err
	}
	if err := history.Move(alone, c.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(alone); err != nil {
		return err
	}
	return c.repositories().Consolidate(ctx, c.dir, c.base)
}

// open opens the scratch repository with what it stands on.
func (c *channelIntake) open() (*authenticate.Repository, error) {
	var o authenticate.Options
	if c.base != "" {
		o.Alternates = []string{filepath.Join(c.base, "objects")}
	}
	dir := c.dir
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) && c.base != "" {
		dir, o = c.base, authenticate.Options{} // nothing was unpacked yet
	}
	repo, err := authenticate.Open(dir, o)
	if err == nil {
		repo.Dir = "channel " + c.name // how refusals name it: where it lies is nobody's business
	}
	return repo, err
}

// named says of which item refusals are.
func named(err error, p pinned) error {
	refused, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	var rs trust.Refusals
	for _, r := range refused {
		named := *r
		if named.Subject == "bundle" || named.Subject == "item" {
			named.Subject = p.Item.Name
		}
		rs.Add(&named)
	}
	return rs
}

// authenticate judges every commit from the introduction on, whatever the outside has found, and holds the findings against the policy. The verdict is nil if commits
// were refused.
func (c *channelIntake) authenticate(ctx context.Context, repo *authenticate.Repository, p pinned, h []*history.History) (*channel.Verdict, error) {
	refs := fmt.Sprintf("# pack-refs with: sorted \n%s refs/heads/%s\n", p.pin.Keyring, pin.KeyringBranch)
	if err := os.WriteFile(filepath.Join(c.dir, "packed-refs"), []byte(refs), 0o600); err != nil {
		return nil, err
	}
	again, err := c.open() // references are read when a repository is opened
	if err != nil {
		return nil, err
	}
	defer again.Close()
	report, err := again.Authenticate(ctx, authenticate.Request{Introduction: p.pin.Introduction, Signer: p.pin.Signer, Keyring: pin.KeyringBranch, End: p.Commit.String(),
		Progress: func(judged, found int) {
			if c.g.Progress != nil {
				c.g.Progress(0, fmt.Sprintf("channel %s: %d of %d commits judged", c.name, judged, found))
			}
		}})
	if err != nil {
		return nil, err
	}
	if !report.OK() {
		return nil, again.Refused(report.Verdict, nil)
	}
	now := later(c.g.Clock(), c.g.Root.Date)
	if c.orders != nil {
		now = later(now, c.orders.Date)
	}
	// Of an end before the introduction nothing is proven, also where there is no first pin yet that it could be behind.
	policy := authenticate.Policy{Raise: map[string]bool{channel.FindingNotIntroduced: true}, Excuses: excuses(c.orders, c.name)}
	if policy.Since, err = c.since(ctx, repo, report.Verdict, p, h); err != nil {
		return nil, err
	}
	ruling, err := policy.Rule(report.Verdict, now)
	if err != nil {
		return nil, err
	}
	if err := c.tell(ctx, again, p, report, ruling, h); err != nil {
		return nil, err
	}
	return report.Verdict, again.Refused(report.Verdict, ruling).Err()
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// excuses are those that officers ordered. One for a finding that this version does not know excuses nothing.
func excuses(o *trust.Orders, name string) []authenticate.Excuse {
	var list []authenticate.Excuse
	for _, e := range o.ExcusesFor(name) {
		if !authenticate.KnownFinding(e.Code) || e.Code == channel.FindingNotIntroduced {
			continue
		}
		x := authenticate.Excuse{Name: e.Name, Code: e.Code, Reason: e.Reason, By: fmt.Sprintf("orders version %d", o.Version), Expires: e.Until}
		if e.Commit != "" {
			x.Commit, _ = git.ParseID(e.Commit) // the form was checked when the orders were read
		}
		if e.Key != "" {
			hex.Decode(x.Key[:], []byte(e.Key))
		}
		list = append(list, x)
	}
	return list
}

// since is the commit of the enclave's first pin: the one that a track's list was the first to have. Findings about newer commits refuse.
func (c *channelIntake) since(ctx context.Context, repo *authenticate.Repository, v *channel.Verdict, p pinned, h []*history.History) (git.ID, error) {
	var first history.Entry
	for _, h := range h {
		if e, ok := h.First(c.name); ok && (first.Item.Name == "" || e.Date.Before(first.Date)) {
			first = e
		}
	}
	if first.Item.Name == "" {
		return git.ID{}, nil
	}
	if _, ok := v.Ancestors(first.Commit); ok {
		return first.Commit, nil
	}
	// Behind the first pin all is older than it. Beside it nothing is known to be; then all from the introduction on counts as new.
	back, err := history.Descends(ctx, repo, p.Commit, first.Commit)
	if err != nil || back {
		return git.ID{}, err
	}
	return p.pin.Introduction, nil
}

// tell makes what was found in the history part of the report that reviewers read.
func (c *channelIntake) tell(ctx context.Context, repo *authenticate.Repository, p pinned, v *authenticate.Report, r *authenticate.Ruling, h []*history.History) error {
	item := p.Item.SHA256.String()
	add := func(severity, rule, place string, count int64, detail string) {
		c.findings[severity] += count
		if len(c.details) <= c.g.maxFindings() {
			c.details = append(c.details, Finding{Item: item, Severity: severity, Rule: rule, Place: trust.Printable(place, 300), Count: count, Detail: trust.Printable(detail, 600)})
		}
	}
	add(confine.Info, "channel-authentic", "", 1, fmt.Sprintf("%d commits are authentic from the introduction %s to %s", v.Commits, p.pin.Introduction, p.Commit))
	noted := map[string]int64{}
	example := map[string]string{}
	for _, f := range r.Noted {
		noted[f.Code]++
		example[f.Code] = "last in commit " + f.Commit.String() + ": " + f.Detail
	}
	for _, code := range channel.FindingCodes() {
		if n := noted[code[0]]; n > 0 {
			add(confine.Info, code[0], "", n, example[code[0]])
		}
	}
	for _, e := range r.Excused {
		add(confine.High, e.Finding.Code, "commit "+e.Finding.Commit.String(), 1, fmt.Sprintf("EXCUSED by %s, %s, until %s: %s; %s", e.Excuse.Name, e.Excuse.By, trust.FormatDate(e.Excuse.Expires), e.Excuse.Reason, e.Finding.Detail))
	}
	for _, e := range r.Expired {
		add(confine.Review, e.Code, "excuse "+e.Name, 1, "this excuse would have covered a finding, but ended "+trust.FormatDate(e.Expires))
	}
	// Against the newest pin of all tracks: what one track has not seen yet, 'review show' tells.
	var newest history.Entry
	for _, h := range h {
		if e, ok := h.Newest(c.name); ok && !e.Date.Before(newest.Date) {
			newest = e
		}
	}
	if newest.Item.Name == "" {
		return nil
	}
	d, err := repo.Diff(ctx, v, newest.Commit)
	if err != nil {
		return err
	}
	from := "since " + newest.Commit.String()
	if d.Keys.Changed || len(d.Listings) > 0 {
		add(confine.High, "channel-authorizations", ".guix-authorizations", int64(max(1, len(d.Listings))), fmt.Sprintf("AUTHORIZATIONS CHANGED %s: %d commits, added %v, removed %v %s", from, len(d.Listings), d.Keys.Added, d.Keys.Removed, d.Keys.Fault))
	}
	for _, s := range d.Signers {
		if s.New {
			add(confine.Review, "channel-new-signer", "key "+s.Key, int64(s.Commits), fmt.Sprintf("%s has signed %d commits %s and none before", s.User, s.Commits, from))
		}
	}
	if d.Channel {
		add(confine.Review, "channel-file", ".guix-channel", 1, "changed "+from+": dependencies, the directory of modules, or the branch of the keyring")
	}
	if d.Self {
		add(confine.Review, "channel-build-self", "build-aux/build-self.scm", 1, "changed "+from+": guix pull runs it")
	}
	return nil
}

// forward demands that the pin descends from those at which the tracks stand.
func (c *channelIntake) forward(ctx context.Context, repo *authenticate.Repository, p pinned, h []*history.History) error {
	if _, ok := c.orders.MayDowngrade(c.name, p.Commit.String()); ok {
		return nil
	}
	var rs trust.Refusals
	for _, h := range h {
		newest, ok := h.Newest(c.name)
		if !ok {
			continue
		}
		ahead, err := history.Descends(ctx, repo, newest.Commit, p.Commit)
		if err != nil {
			return err
		}
		if !ahead {
			rs.Add(history.NotForward(c.name, p.Commit, h.Track, newest.Commit))
		}
	}
	return rs.Err()
}

// checkout has every file of the commit looked at by the reader, and compares the hash of its nar with the pin's.
func (c *channelIntake) checkout(ctx context.Context, repo *authenticate.Repository, p pinned) error {
	if c.g.Progress != nil {
		c.g.Progress(0, "channel "+c.name+": inspecting the checkout")
	}
	size := p.pin.NarSize
	pr, pw := io.Pipe()
	n := &narCheck{hash: sha256.New(), w: pw, size: size, left: size}
	written := make(chan error, 1)
	go func() {
		err := repo.Nar(ctx, p.Commit, n)
		if err == nil && n.n != size {
			err = errNarSize
		}
		pw.CloseWithError(err)
		written <- err
	}()
	report, err := c.reader.Item(ctx, confine.Request{Kind: confine.KindNar, Name: p.Item.Name, Size: size}, pr)
	pr.CloseWithError(errJudged)
	narErr := <-written
	if errors.Is(narErr, errJudged) { // the reader ended before the nar did; its hash is wanted all the same
		n = &narCheck{hash: sha256.New(), size: size}
		narErr = repo.Nar(ctx, p.Commit, n)
	}
	var rs trust.Refusals
	if narErr != nil && !errors.Is(narErr, errNarSize) {
		// The reader was left alone with a part of it: what it says is not about the checkout.
		return narErr
	}
	var digest trust.Digest
	n.hash.Sum(digest[:0])
	switch {
	case n.n > size:
		rs.Add(trust.Refuse("channel-nar", p.Item.Name, "the checkout of %s has more than the %d bytes that the pin says", p.Commit, size))
	case digest != p.pin.NarHash || n.n != size:
		rs.Add(trust.Refuse("channel-nar", p.Item.Name, "the checkout of %s has the hash %s, %d bytes; the pin says %s, %d bytes", p.Commit, digest, n.n, p.pin.NarHash, size))
	}
	if n.n >= size { // else the reader got less than it was promised
		if err := rs.Merge(err); err != nil {
			return err
		}
	}
	if len(rs) == 0 {
		c.inspected(p.Item, report)
	}
	return rs.Err()
}

var errNarSize = errors.New("the nar of the checkout has another size than the pin says")

// A narCheck hashes and counts a nar, and hands on no more of it than the reader waits for. It ends one that is larger than it may be: a few objects can make a
// checkout without end.
type narCheck struct {
	hash hash.Hash
	n    int64
	size int64
	w    io.Writer // nil: nobody waits
	left int64
}

func (n *narCheck) Write(p []byte) (int, error) {
	n.hash.Write(p)
	n.n += int64(len(p))
	part := p[:min(int64(len(p)), n.left)]
	if n.w != nil && len(part) > 0 {
		if _, err := n.w.Write(part); err != nil {
			return 0, err
		}
		n.left -= int64(len(part))
	}
	if n.n > n.size {
		return 0, errNarSize
	}
	return len(p), nil
}
