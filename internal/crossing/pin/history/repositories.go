package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// Names in a zone.
const (
	dirName = "channels"
	lock    = "channels"
)

// MaxPacks is how many packs a repository may have before small ones become one. It is far below what [authenticate.Open] reads, so that a few repositories together can be
// read as one.
const MaxPacks = 64

// Repositories are those of a zone's channels.
type Repositories struct {
	Zone  *store.Zone
	Git   func(context.Context) (*gitrun.Git, error) // asked where something is to be unpacked
	Packs int                                        // above which packs become one; 0 means MaxPacks
}

// Consolidate makes one pack of small ones, if the repository dir has more than it may have. Its objects may stand on those of base.
func (r *Repositories) Consolidate(ctx context.Context, dir, base string) error {
	most := cmp.Or(r.Packs, MaxPacks)
	packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.idx"))
	if err != nil || len(packs) <= most {
		return err
	}
	g, err := r.Git(ctx)
	if err != nil {
		return err
	}
	return pin.Consolidate(ctx, g, dir, base, most)
}

// FindGit is a Git for Repositories: the program on the path.
func FindGit(ctx context.Context) (*gitrun.Git, error) {
	return gitrun.Find(ctx, os.Getenv("PATH"))
}

// Dir is where a channel's repository lies, or would.
func (r *Repositories) Dir(channel string) string {
	return filepath.Join(r.Zone.Dir, dirName, channel+".git")
}

// Items are the channel's items of all shipments that were not rejected, in no order that means anything. Rows say where they lie; each is what its digest says.
func (r *Repositories) Items(ctx context.Context, channel string) ([]Entry, error) {
	rows, err := r.Zone.Read(ctx).QueryContext(ctx, `SELECT DISTINCT item.sha256, item.size, item.name FROM item JOIN shipment_item USING (sha256, name) JOIN shipment USING (number)
		WHERE item.kind = ? AND shipment.state != 'rejected' ORDER BY number, item.name`, trust.KindChannel)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Entry
	for rows.Next() {
		it := trust.Item{Kind: trust.KindChannel}
		var digest string
		if err := rows.Scan(&digest, &it.Size, &it.Name); err != nil {
			return nil, err
		}
		if it.SHA256, err = trust.ParseDigest(digest); err != nil {
			return nil, err
		}
		if e, err := Named(it); err == nil && e.Channel == channel { // another name is not that of a channel that the gate let in
			all = append(all, e)
		}
	}
	return all, rows.Err()
}

// Open opens the repository of a channel with the objects of all its items. What is missing is unpacked from the cas first. An item whose content the cas has lost, or which cannot be unpacked, and what
// stands on it alone, is passed over: its commits are missing, and whoever asks for them is told. If nothing of the channel ever came, it is an error that is
// fs.ErrNotExist.
func (r *Repositories) Open(ctx context.Context, channel string) (*authenticate.Repository, error) {
	if err := trust.CheckChannel(channel); err != nil {
		return nil, err
	}
	items, err := r.Items(ctx, channel)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, fmt.Errorf("channel %s: no item of it has come: %w", channel, fs.ErrNotExist)
	}
	unlock, err := r.Zone.LockContext(ctx, lock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	missing, err := r.missing(channel, items)
	if err != nil {
		return nil, err
	}
	err = r.complete(ctx, channel, missing)
	if _, refused := trust.AsRefusals(err); refused {
		// Each of its packs was taken, and they cannot become one: it is damaged, and only a copy.
		if err = durable.RemoveAll(r.Dir(channel)); err == nil {
			err = r.complete(ctx, channel, items)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("repository of channel %s: %w", channel, err)
	}
	return authenticate.Open(r.Dir(channel), authenticate.Options{})
}

// complete unpacks what is missing, and has no more packs left than there may be. A refusal says that the packs of the repository are damaged.
func (r *Repositories) complete(ctx context.Context, channel string, missing []Entry) error {
	if len(missing) > 0 {
		if err := r.unpack(ctx, channel, missing); err != nil {
			return err
		}
	}
	return r.Consolidate(ctx, r.Dir(channel), "")
}

// missing are the items whose commits the repository does not have.
func (r *Repositories) missing(channel string, items []Entry) ([]Entry, error) {
	repo, err := authenticate.Open(r.Dir(channel), authenticate.Options{})
	if errors.Is(err, fs.ErrNotExist) {
		return items, nil
	}
	if _, refused := trust.AsRefusals(err); refused {
		// It is damaged, and only a copy.
		return items, durable.RemoveAll(r.Dir(channel))
	}
	if err != nil {
		return nil, err
	}
	defer repo.Close()
	reader := repo.Database().NewReader()
	var missing []Entry
	for _, e := range items {
		_, marked := os.Stat(r.mark(channel, e.Item))
		if _, err := reader.Read(e.Commit, git.KindCommit); err != nil || marked != nil {
			missing = append(missing, e)
		}
	}
	return missing, nil
}

// mark is the file that says that an item was unpacked.
func (r *Repositories) mark(channel string, it trust.Item) string {
	return filepath.Join(r.Dir(channel), "items", it.SHA256.String())
}

func (r *Repositories) setMark(channel string, it trust.Item) error {
	mark := r.mark(channel, it)
	if err := durable.MkdirAll(durable.OS{}, filepath.Dir(mark), 0o755); err != nil {
		return err
	}
	return os.WriteFile(mark, nil, 0o644)
}

// unpack unpacks items, each behind what it stands on.
func (r *Repositories) unpack(ctx context.Context, channel string, items []Entry) error {
	g, err := r.Git(ctx)
	if err != nil {
		return err
	}
	type waiting struct {
		Entry
		p *pin.Pin
		h *pin.Header
	}
	var rest []waiting
	for _, e := range items {
		p, h, err := Read(r.Zone.CAS, e.Item, io.Discard)
		if _, refused := trust.AsRefusals(err); refused {
			continue
		}
		if err != nil {
			return err
		}
		rest = append(rest, waiting{e, p, h})
	}
	if err := Make(r.Dir(channel)); err != nil {
		return err
	}
	dir := r.Dir(channel)
	// What an item brings is known without looking; what was there, from one look. All is looked at again only when nothing is left that could be unpacked without.
	brought := map[git.ID]bool{}
	for len(rest) > 0 {
		repo, err := authenticate.Open(dir, authenticate.Options{})
		if err != nil {
			return err
		}
		reader := repo.Database().NewReader()
		lacks := func(id git.ID) bool {
			if brought[id] {
				return false
			}
			_, err := reader.Read(id, git.KindCommit)
			return err != nil
		}
		n := len(rest)
		for again := true; again && err == nil; {
			before := len(rest)
			var left []waiting
			for i, w := range rest {
				if slices.ContainsFunc(w.h.Prerequisites(), lacks) {
					left = append(left, w)
					continue
				}
				done := false
				if done, err = r.take(ctx, g, channel, w.Item); err != nil {
					left = append(left, rest[i:]...)
					break
				}
				if !done {
					left = append(left, w) // perhaps behind another; else its commits are missing, and not those of all others
					continue
				}
				brought[w.p.Commit], brought[w.p.Keyring] = true, true
			}
			rest = left
			again = len(rest) > 0 && len(rest) < before
		}
		if err = errors.Join(err, repo.Close()); err != nil || len(rest) == n {
			return err
		}
	}
	return nil
}

// take unpacks an item into the repository of a channel, unless it cannot be unpacked. The caller has the lock.
func (r *Repositories) take(ctx context.Context, g *gitrun.Git, channel string, it trust.Item) (bool, error) {
	dir := r.Dir(channel)
	err := r.Unpack(ctx, g, dir, "", it)
	if _, refused := trust.AsRefusals(err); refused {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := r.setMark(channel, it); err != nil {
		return false, err
	}
	return true, r.Consolidate(ctx, dir, "")
}

// Unpack puts the objects of an item into the repository dir; the item may stand on those of dir and of base. The item is read twice, and never held.
func (r *Repositories) Unpack(ctx context.Context, g *gitrun.Git, dir, base string, it trust.Item) error {
	pr, pw := io.Pipe()
	read := make(chan error, 1)
	go func() {
		_, _, err := Read(r.Zone.CAS, it, pw)
		pw.CloseWithError(err)
		read <- err
	}()
	err := pin.Unpack(ctx, g, dir, base, pr)
	pr.CloseWithError(errors.New("nobody reads on"))
	if readErr := <-read; err == nil && readErr != nil {
		err = readErr
	}
	return err
}

// Take unpacks an item, which stands on those that are there, into the repository of its channel.
func (r *Repositories) Take(ctx context.Context, channel string, it trust.Item) error {
	unlock, err := r.Zone.LockContext(ctx, lock)
	if err != nil {
		return err
	}
	defer unlock()
	g, err := r.Git(ctx)
	if err != nil {
		return err
	}
	if err := r.Unpack(ctx, g, r.Dir(channel), "", it); err != nil {
		return err
	}
	return r.Consolidate(ctx, r.Dir(channel), "")
}

// Make makes a repository without anything in it, if there is none.
func Make(dir string) error {
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := durable.MkdirAll(durable.OS{}, filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "HEAD"), []byte("ref: refs/heads/none\n"), 0o644)
}

// Adopt moves the packs of a repository, in which items were unpacked, into the one of a channel: what the gate has judged need not be unpacked again.
func (r *Repositories) Adopt(ctx context.Context, channel, from string, items ...trust.Item) error {
	unlock, err := r.Zone.LockContext(ctx, lock)
	if err != nil {
		return err
	}
	defer unlock()
	if err := Make(r.Dir(channel)); err != nil {
		return err
	}
	if err := Move(from, r.Dir(channel)); err != nil {
		return err
	}
	for _, it := range items {
		if err := r.setMark(channel, it); err != nil {
			return err
		}
	}
	return r.Consolidate(ctx, r.Dir(channel), "")
}

// Move moves the packs of one repository into another, which is there.
func Move(from, to string) error {
	packs := filepath.Join(from, "objects", "pack")
	entries, err := os.ReadDir(packs)
	if err != nil {
		return err
	}
	// A pack is seen from when its index is there.
	for _, suffix := range []string{".pack", ".idx"} {
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), suffix) {
				if err := durable.Rename(durable.OS{}, filepath.Join(packs, e.Name()), filepath.Join(to, "objects", "pack", e.Name())); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// At opens the channel's repository as a pin has it: with the references of its bundle. The caller closes it, and then calls remove.
func (r *Repositories) At(ctx context.Context, p *pin.Pin) (repo *authenticate.Repository, remove func(), err error) {
	all, err := r.Open(ctx, p.Channel)
	if err != nil {
		return nil, nil, err
	}
	if err := all.Close(); err != nil {
		return nil, nil, err
	}
	dir, remove, err := r.Zone.Scratch()
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	for _, d := range []string{"objects", "refs"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return nil, nil, err
		}
	}
	refs := fmt.Sprintf("# pack-refs with: sorted \n%s refs/heads/%s\n", p.Keyring, pin.KeyringBranch)
	for name, text := range map[string]string{"HEAD": "ref: refs/heads/none\n", "packed-refs": refs} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, nil, err
		}
	}
	repo, err = authenticate.Open(dir, authenticate.Options{Alternates: []string{filepath.Join(r.Dir(p.Channel), "objects")}})
	if err != nil {
		return nil, nil, err
	}
	repo.Dir = "channel " + p.Channel
	return repo, remove, nil
}

// Descends tells whether a commit of a channel is another, or descends from it.
func (r *Repositories) Descends(ctx context.Context, channel string, commit, from git.ID) (bool, error) {
	if commit == from {
		return true, nil
	}
	repo, err := r.Open(ctx, channel)
	if err != nil {
		return false, err
	}
	defer repo.Close()
	return Descends(ctx, repo, from, commit)
}

// Descends tells whether one of several commits of a repository is another, or descends from it.
func Descends(ctx context.Context, repo *authenticate.Repository, from git.ID, commits ...git.ID) (bool, error) {
	reader := repo.Database().NewReader()
	seen := map[git.ID]bool{}
	for len(commits) > 0 {
		if len(seen)%1024 == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		id := commits[0]
		commits = commits[1:]
		if id == from {
			return true, nil
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		raw, err := reader.Read(id, git.KindCommit)
		if err != nil {
			return false, fmt.Errorf("commit %s: %w", id, err)
		}
		c, err := git.ParseCommit(raw)
		if err != nil {
			return false, fmt.Errorf("commit %s: %w", id, err)
		}
		commits = append(commits, c.Parents...)
	}
	return false, nil
}
