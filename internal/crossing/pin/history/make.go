package history

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// MakeItem writes the item of a pin to w, from the objects of somebody's repository, and says which item it is. tmp is as for [pin.Create]. The repository is not believed: who
// makes an item judges it as one that came from elsewhere.
func MakeItem(ctx context.Context, g *gitrun.Git, r *authenticate.Repository, tmp string, p *pin.Pin, basisKeyring git.ID, w io.Writer) (it trust.Item, err error) {
	if err := Lacks(r, p); err != nil {
		return it, err
	}
	hash := sha256.New()
	size := &counted{w: io.MultiWriter(hash, w)}
	if err := pin.Create(ctx, g, r, tmp, p, basisKeyring, size); err != nil {
		return it, err
	}
	it.Kind, it.Size = trust.KindChannel, size.n
	hash.Sum(it.SHA256[:0])
	it.Name, err = p.ItemName(it.SHA256)
	return it, err
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Lacks refuses a repository that does not have the commits of a pin.
func Lacks(r *authenticate.Repository, p *pin.Pin) error {
	reader := r.Database().NewReader()
	for _, id := range []git.ID{p.Commit, p.Keyring, p.Basis} {
		if id.IsZero() {
			continue
		}
		_, err := reader.Read(id, git.KindCommit)
		switch {
		case git.IsMissing(err):
			return trust.Refuse("channel-repository", p.Channel, "%s does not have commit %s", r.Dir, id).WithHint("fetch into it what was pinned; " + r.Missing())
		case err != nil:
			return fmt.Errorf("%s: commit %s: %w", r.Dir, id, err)
		}
	}
	return nil
}

// PackBytes is about how much a repository holds.
func PackBytes(dir string) (n int64) {
	for _, d := range []string{dir, filepath.Join(dir, ".git")} {
		packs, err := filepath.Glob(filepath.Join(d, "objects", "pack", "*.pack"))
		if err != nil {
			continue
		}
		for _, p := range packs {
			if st, err := os.Lstat(p); err == nil {
				n += st.Size()
			}
		}
	}
	return n
}
