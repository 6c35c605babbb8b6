package pin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
)

// Create writes the item of a pin to w, from the objects of the repository. tmp is a directory for what is needed meanwhile, about as much as the
// item has bytes. basisKeyring is the keyring commit that the receiver has, zero for none; it is used if it is the pin's own or one of its ancestors.
//
// The repository is not believed: whoever gets the item, its maker first of all, opens and authenticates it.
func Create(ctx context.Context, g *gitrun.Git, r *authenticate.Repository, tmp string, p *Pin, basisKeyring git.ID, w io.Writer) error {
	if err := p.Check(); err != nil {
		return err
	}
	h := &Header{Basis: p.Basis, Branch: p.Branch, Commit: p.Commit, Keyring: p.Keyring}
	if !p.Basis.IsZero() && !basisKeyring.IsZero() {
		ok, err := isAncestor(r.Database().NewReader(), basisKeyring, p.Keyring)
		if err != nil {
			return err
		}
		if ok {
			h.BasisKeyring = basisKeyring
		}
	}
	dir, err := os.MkdirTemp(tmp, "pack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	objects := filepath.Join(r.Dir, "objects")
	if _, err := os.Lstat(filepath.Join(r.Dir, ".git")); err == nil {
		objects = filepath.Join(r.Dir, ".git", "objects")
	}
	view, err := g.View(filepath.Join(dir, "view"), gitrun.Repository{Objects: objects})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "pack"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	var revs strings.Builder
	fmt.Fprintf(&revs, "%s\n%s\n", h.Commit, h.Keyring)
	args := []string{"pack-objects", "-q", "--revs", "--stdout", "--delta-base-offset", "--no-use-bitmap-index"}
	if !h.Basis.IsZero() {
		args = append(args, "--thin")
	}
	for _, id := range h.Prerequisites() {
		fmt.Fprintf(&revs, "^%s\n", id)
	}
	// Straight from the program to the file.
	if err := g.Run(ctx, view, gitrun.Command{Args: args, Stdin: strings.NewReader(revs.String()), Stdout: f, Output: MaxPack, Time: gitTime}); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return write(w, p, h, f, size)
}

// isAncestor reports whether a is b or one of its ancestors. The history of a keyring is short; all of it is looked at.
func isAncestor(r *git.Reader, a, b git.ID) (bool, error) {
	seen := map[git.ID]bool{b: true}
	for todo := []git.ID{b}; len(todo) > 0; {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if id == a {
			return true, nil
		}
		raw, err := r.Read(id, git.KindCommit)
		if err != nil {
			return false, fmt.Errorf("keyring %s: %w", b.Short(), err)
		}
		c, err := git.ParseCommit(bytes.Clone(raw))
		if err != nil {
			return false, fmt.Errorf("keyring commit %s: %w", id.Short(), err)
		}
		for _, p := range c.Parents {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}
	}
	return false, nil
}
