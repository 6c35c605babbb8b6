package channelhost

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// A generation is a repository of one channel at one pin.
type generation struct {
	name  string // of its directory
	dir   string
	pin   *pin.Pin
	chain []trust.Item // of what it was made, the complete one first

	commits []git.ID // all that the branch leads to, sorted

	parent context.Context

	mu      sync.Mutex
	ctx     context.Context // of what it answers
	stop    context.CancelFunc
	answers map[[sha256.Size]byte]*answer
	kept    []*answer // of these, those that are whole, the oldest first
	bytes   int64
	running int
	gone    bool // it is to be deleted when nothing runs on it
	deleted bool
}

// generationName names a repository for what it holds.
func generationName(p *pin.Pin, chain []trust.Item) string {
	h := sha256.New()
	fmt.Fprintf(h, "sallyport served channel 1\n%s\n", p.Text())
	for _, it := range chain {
		fmt.Fprintf(h, "%s\n", it)
	}
	return fmt.Sprintf("%s-%s.git", p.Channel, hex.EncodeToString(h.Sum(nil)[:12]))
}

func (g *generation) repository() gitrun.Repository {
	return gitrun.Repository{Objects: filepath.Join(g.dir, "objects"), Refs: refsOf(g.pin), Head: "refs/heads/" + g.pin.Branch}
}

func refsOf(p *pin.Pin) map[string]git.ID {
	return map[string]git.ID{"refs/heads/" + p.Branch: p.Commit, "refs/heads/" + pin.KeyringBranch: p.Keyring}
}

// leads reports whether the branch leads to a commit.
func (g *generation) leads(to git.ID) bool {
	_, ok := slices.BinarySearchFunc(g.commits, to, func(a, b git.ID) int { return slices.Compare(a[:], b[:]) })
	return ok
}

// start lets it answer.
func (g *generation) start(parent context.Context) {
	g.parent = parent
	g.ctx, g.stop = context.WithCancel(parent)
	g.answers = map[[sha256.Size]byte]*answer{}
}

// finish is told that git has ended.
func (g *generation) finish(a *answer, keep bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.gone && g.running == 0 {
		g.delete()
	}
	if !keep || g.answers[a.key] != a {
		g.drop(a)
		return
	}
	g.kept = append(g.kept, a)
	g.bytes += a.length()
	for len(g.kept) > maxKept || g.bytes > maxKeptBytes {
		oldest := g.kept[0]
		g.kept = g.kept[1:]
		g.bytes -= oldest.length()
		g.drop(oldest)
	}
}

// drop forgets an answer; who reads it reads on. The caller has the lock.
func (g *generation) drop(a *answer) {
	if g.answers[a.key] == a {
		delete(g.answers, a.key)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dropped = true
	a.free()
}

func (g *generation) dropAll() {
	for _, a := range slices.Collect(maps.Values(g.answers)) {
		g.drop(a)
	}
	g.kept, g.bytes = nil, 0
}

// cut ends all that it is answering.
func (g *generation) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stop()
	g.dropAll()
	g.ctx, g.stop = context.WithCancel(g.parent)
}

// retire has it deleted once nothing runs on it. Answers that are under way go on.
func (g *generation) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropAll()
	if g.gone = true; g.running == 0 {
		g.delete()
	}
}

// delete removes the directory. If that fails, it is swept later.
func (g *generation) delete() {
	g.deleted = true
	durable.RemoveAll(g.dir)
}

// revive has it serve again, unless it is too late.
func (g *generation) revive() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone = g.deleted
	return !g.deleted
}

func (g *generation) isDeleted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.deleted
}

// make makes a generation's directory from the items of its chain. What is in tmp goes with it.
func (h *Host) make(ctx context.Context, g *generation, from *generation) error {
	work, err := os.MkdirTemp(h.tmp(), "make-")
	if err != nil {
		return err
	}
	defer durable.RemoveAll(work)
	dir := filepath.Join(work, "repository")
	if err := h.unpackAll(ctx, dir, g.chain, from); err != nil {
		return err
	}
	grows, err := h.grows(ctx, dir, g, from)
	if err != nil {
		return err
	}
	if !grows {
		from = nil
	}
	before, err := objectsOf(filepath.Join(dir, "objects"))
	if err != nil {
		return err
	}
	if err := h.pack(ctx, filepath.Join(work, "view"), dir, g.pin, from); err != nil {
		return err
	}
	// Git can leave out, but nothing may be there that was not in the items. What an id stands for every client checks.
	after, err := objectsOf(filepath.Join(dir, "objects"))
	if err != nil {
		return err
	}
	for id := range after {
		if !before[id] {
			return fmt.Errorf("git has packed an object that was not in the items: %s", id)
		}
	}
	for _, id := range refsOf(g.pin) {
		if !after[id] {
			return trust.Refuse("channel-pack", g.pin.StoreName(), "the items do not have the commit %s", id)
		}
	}
	if err := syncTree(dir); err != nil {
		return err
	}
	// Whole and durable; from here on it is there.
	return durable.Rename(durable.OS{}, dir, g.dir)
}

// grows reports whether all that a repository has is wanted in the next one, too: then what is new can be put beside it. Now and then all is packed together nevertheless.
func (h *Host) grows(ctx context.Context, dir string, g, from *generation) (bool, error) {
	if from == nil || !startsWith(g.chain, from.chain) {
		return false, nil
	}
	packs, err := packsOf(from.dir)
	if err != nil || len(packs) >= maxPacks {
		return false, err
	}
	r := gitrun.Repository{Objects: filepath.Join(dir, "objects")}
	for _, c := range [][2]git.ID{{from.pin.Commit, g.pin.Commit}, {from.pin.Keyring, g.pin.Keyring}} {
		if c[0] != c[1] {
			if yes, err := h.isAncestor(ctx, r, c[0], c[1]); !yes || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

func startsWith(chain, with []trust.Item) bool {
	return len(with) <= len(chain) && slices.Equal(with, chain[:len(with)])
}

func packsOf(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "objects", "pack", "*.pack"))
}

// pack packs what the references lead to, with an index of what each commit leads to, in the place of all that lies there; or, where an earlier generation is given, what that
// one does not have, beside its packs.
//
// Git writes into a directory of its own, and only reads what lies here: packs that are served now have names in both.
func (h *Host) pack(ctx context.Context, work, dir string, p *pin.Pin, from *generation) error {
	objects := filepath.Join(dir, "objects")
	if strings.ContainsAny(objects, "\n\"#") {
		return fmt.Errorf("%q: git cannot be told of a directory of such a name", objects)
	}
	view, err := h.Git.View(work, gitrun.Repository{Refs: refsOf(p), Head: "refs/heads/" + p.Branch})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(view.Dir, "objects", "info", "alternates"), []byte(objects+"\n"), 0o600); err != nil {
		return err
	}
	made := filepath.Join(view.Dir, "made")
	if err := os.Mkdir(made, 0o700); err != nil {
		return err
	}
	args, revs := []string{"--all", "--write-bitmap-index"}, ""
	if from != nil {
		args, revs = []string{"--revs"}, fmt.Sprintf("%s\n%s\n^%s\n^%s\n", p.Commit, p.Keyring, from.pin.Commit, from.pin.Keyring)
	}
	err = h.Git.Run(ctx, view, gitrun.Command{
		Args:  slices.Concat([]string{"-c", "pack.writeReverseIndex=true", "pack-objects", "-q", "--delta-base-offset"}, args, []string{filepath.Join(made, "pack")}),
		Stdin: strings.NewReader(revs), Stdout: io.Discard, Read: []string{objects}, Time: repackTime,
	})
	if err != nil {
		return err
	}
	packs := filepath.Join(objects, "pack")
	names, err := os.ReadDir(packs)
	if err != nil {
		return err
	}
	for _, n := range names {
		if from != nil {
			if _, err := os.Lstat(filepath.Join(from.dir, "objects", "pack", n.Name())); err == nil {
				continue
			}
		}
		if err := os.Remove(filepath.Join(packs, n.Name())); err != nil {
			return err
		}
	}
	if names, err = os.ReadDir(made); err != nil {
		return err
	}
	for _, n := range names {
		if err := os.Rename(filepath.Join(made, n.Name()), filepath.Join(packs, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unpackAll puts the objects of items into a repository. from, which may be nil, has those of the first of them already.
func (h *Host) unpackAll(ctx context.Context, dir string, chain []trust.Item, from *generation) error {
	done := 0
	if from != nil && startsWith(chain, from.chain) {
		if err := link(filepath.Join(from.dir, "objects", "pack"), filepath.Join(dir, "objects", "pack")); err != nil {
			return err
		}
		done = len(from.chain)
	}
	for _, it := range chain[done:] {
		if err := h.unpack(ctx, dir, it); err != nil {
			return err
		}
	}
	return nil
}

// link makes hard links of a repository's packs. A pack is never changed.
func link(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	names, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := os.Link(filepath.Join(from, n.Name()), filepath.Join(to, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unpack puts the objects of one item into a repository. Its content has the digest that the list names, or there is an error.
func (h *Host) unpack(ctx context.Context, dir string, it trust.Item) (err error) {
	f, err := os.CreateTemp(h.tmp(), "pack-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if _, _, err := history.Read(h.Zone.CAS, it, f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return pin.Unpack(ctx, h.Git, dir, "", f)
}

// objectsOf lists the objects of a repository's packs, by their indexes.
func objectsOf(objects string) (map[git.ID]bool, error) {
	names, err := filepath.Glob(filepath.Join(objects, "pack", "*.idx"))
	if err != nil {
		return nil, err
	}
	all := map[git.ID]bool{}
	for _, name := range names {
		index, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		const tables, idSize = 8 + 256*4, len(git.ID{})
		if len(index) < tables {
			return nil, fmt.Errorf("%s is no index", name)
		}
		count := int(uint32(index[tables-4])<<24 | uint32(index[tables-3])<<16 | uint32(index[tables-2])<<8 | uint32(index[tables-1]))
		if len(index) < tables+count*idSize {
			return nil, fmt.Errorf("%s is no index", name)
		}
		for i := range count {
			all[git.ID(index[tables+i*idSize:][:idSize])] = true
		}
	}
	return all, nil
}

// syncTree makes all files below a directory durable.
func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}

// intact checks the sums at the ends of a repository's packs and of their indexes: a file that was damaged since it was made is found.
func intact(dir string) error {
	names, err := os.ReadDir(filepath.Join(dir, "objects", "pack"))
	if err != nil {
		return err
	}
	packs := 0
	for _, n := range names {
		ext := filepath.Ext(n.Name())
		if ext == ".pack" {
			packs++
		}
		if ext != ".pack" && ext != ".idx" && ext != ".bitmap" && ext != ".rev" {
			continue
		}
		if err := sumOf(filepath.Join(dir, "objects", "pack", n.Name())); err != nil {
			return err
		}
	}
	if packs == 0 {
		return fmt.Errorf("%s has no pack", dir)
	}
	return nil
}

func sumOf(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	h := sha1.New()
	if _, err := io.CopyN(h, f, st.Size()-sha1.Size); err != nil {
		return err
	}
	var sum [sha1.Size]byte
	if _, err := io.ReadFull(f, sum[:]); err != nil {
		return err
	}
	if sum != [sha1.Size]byte(h.Sum(nil)) {
		return fmt.Errorf("%s is damaged", name)
	}
	return nil
}

// commits lists the commits that a repository's branch leads to, sorted.
func (h *Host) commits(ctx context.Context, r gitrun.Repository) (all []git.ID, err error) {
	err = h.inView(ctx, r, func(view *gitrun.View) error {
		w := &idWriter{}
		if err := h.Git.Run(ctx, view, gitrun.Command{Args: []string{"rev-list", r.Head}, Stdout: w}); err != nil {
			return err
		}
		all = w.ids
		return w.end()
	})
	slices.SortFunc(all, func(a, b git.ID) int { return slices.Compare(a[:], b[:]) })
	return all, err
}

func (h *Host) inView(ctx context.Context, r gitrun.Repository, do func(view *gitrun.View) error) error {
	dir, err := os.MkdirTemp(h.tmp(), "look-")
	if err != nil {
		return err
	}
	defer durable.RemoveAll(dir)
	view, err := h.Git.View(filepath.Join(dir, "git"), r)
	if err != nil {
		return err
	}
	return do(view)
}

// isAncestor asks git whether a commit is among those that another leads to.
func (h *Host) isAncestor(ctx context.Context, r gitrun.Repository, from, commit git.ID) (yes bool, err error) {
	err = h.inView(ctx, r, func(view *gitrun.View) error {
		err := h.Git.Run(ctx, view, gitrun.Command{Args: []string{"merge-base", "--is-ancestor", from.String(), commit.String()}})
		var exit *gitrun.ExitError
		if errors.As(err, &exit) && exit.Status == 1 {
			return nil
		}
		yes = err == nil
		return err
	})
	return yes, err
}

// An idWriter reads lines of ids.
type idWriter struct {
	ids  []git.ID
	rest string
}

func (w *idWriter) Write(p []byte) (int, error) {
	w.rest += string(p)
	for {
		line, rest, ok := strings.Cut(w.rest, "\n")
		if !ok {
			return len(p), nil
		}
		id, err := git.ParseID(line)
		if err != nil {
			return 0, err
		}
		w.ids, w.rest = append(w.ids, id), rest
	}
}

func (w *idWriter) end() error {
	if w.rest != "" {
		return fmt.Errorf("git ended with %.50q", w.rest)
	}
	return nil
}
