package pin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// An indexed is a pack of a repository.
type indexed struct {
	name string // without its suffix
	n    int    // objects
}

// Consolidate puts the objects of small packs of the bare repository dir into one pack, if it has more than most packs. What they may refer to is as for [Unpack]. A pack
// that has more than twice the objects of all that are smaller stays as it is: the large pack of a whole history is not written again for each few that come behind it. So
// a few more than the logarithm of the number of objects are left.
//
// The new pack is taken as one from elsewhere is, and has the same objects. It is durable before the old ones go, so whoever is killed leaves a repository that is whole.
// What is wrong with the packs that are there is a trust.Refusal; then, as after any error, they stay. Who reads meanwhile has files open, or finds that a pack which was listed is gone, and lists again. One run may work on a directory at a time, [Unpack] included.
func Consolidate(ctx context.Context, g *gitrun.Git, dir, base string, most int) (err error) {
	packs := filepath.Join(dir, "objects", "pack")
	all, lone, err := packsOf(packs)
	if err != nil || len(all) <= most {
		return err
	}
	// What one that was killed has left: its index is gone, so nobody sees it.
	for _, name := range lone {
		if err := os.Remove(filepath.Join(packs, name+".pack")); err != nil {
			return err
		}
	}
	old := small(all)
	if len(old) < 2 {
		return nil
	}
	var ids []git.ID
	for _, p := range old {
		some, err := idsOf(filepath.Join(packs, p.name+".idx"))
		if err != nil {
			return err
		}
		ids = append(ids, some...)
	}
	compare := func(a, b git.ID) int { return bytes.Compare(a[:], b[:]) }
	slices.SortFunc(ids, compare)
	ids = slices.Compact(ids)
	work := filepath.Join(dir, scratch)
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	if err := os.Mkdir(work, 0o700); err != nil {
		return err
	}
	view := func(name string) (*gitrun.View, []string, error) {
		v, err := g.View(filepath.Join(work, name), gitrun.Repository{})
		if err != nil {
			return nil, nil, err
		}
		others, err := refersTo(v, dir, base)
		return v, others, err
	}
	from, others, err := view("from")
	if err != nil {
		return err
	}
	to, _, err := view("to")
	if err != nil {
		return err
	}
	var list bytes.Buffer
	list.Grow(len(ids) * 41)
	for _, id := range ids {
		list.WriteString(id.String())
		list.WriteByte('\n')
	}
	pr, pw := io.Pipe()
	packed := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		// Deltas are kept; none are looked for.
		err := g.Run(running, from, gitrun.Command{
			Args: []string{"pack-objects", "-q", "--stdout", "--delta-base-offset", "--window=0"}, Stdin: &list, Stdout: pw, Read: others, Output: gitrun.MaxFile, Time: gitTime,
		})
		pw.CloseWithError(err)
		packed <- err
	}()
	err = g.Run(running, to, gitrun.Command{Args: []string{"index-pack", "--stdin", "--strict"}, Stdin: pr, Read: others, Time: gitTime})
	pr.CloseWithError(errors.New("git takes no more of the pack"))
	if err != nil {
		stop()
	}
	if packErr := <-packed; packErr != nil && (err == nil || !errors.Is(packErr, context.Canceled)) {
		err = errors.Join(packErr, err)
	}
	var exit *gitrun.ExitError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &exit) && exit.Status > 0 && !ownFault(err.Error()):
		return trust.Refuse(CodePack, "repository", "git cannot put its packs together: %.500q", exit.Stderr)
	case err != nil:
		return fmt.Errorf("packs cannot become one: %w", err)
	}
	made := filepath.Join(to.Dir, "objects", "pack")
	name, err := onePack(made)
	if err != nil {
		return err
	}
	if err := wellFormed(filepath.Join(made, name)); err != nil {
		return err
	}
	got, err := idsOf(filepath.Join(made, name+".idx"))
	if err != nil {
		return err
	}
	if !slices.Equal(got, ids) {
		return fmt.Errorf("git has made one pack of %d objects, not of the %d that were there", len(got), len(ids))
	}
	if err := install(made, packs, name); err != nil {
		return err
	}
	// The index goes first: a pack is listed only while both are there.
	for _, suffix := range []string{".idx", ".pack"} {
		for _, p := range old {
			if p.name == name {
				continue
			}
			if err := os.Remove(filepath.Join(packs, p.name+suffix)); err != nil {
				return err
			}
		}
		if err := durable.SyncDir(durable.OS{}, packs); err != nil {
			return err
		}
	}
	return nil
}

// small are the packs to put together: all that are not more than twice those smaller than they, and what is smaller than one of these. A pack has no more than
// MaxObjects.
func small(all []indexed) []indexed {
	slices.SortFunc(all, func(a, b indexed) int { return cmp.Or(cmp.Compare(a.n, b.n), cmp.Compare(a.name, b.name)) })
	end, sum := 0, 0
	for i, p := range all {
		if sum+p.n > MaxObjects {
			break
		}
		if i > 0 && p.n <= 2*sum {
			end = i + 1
		}
		sum += p.n
	}
	return all[:end]
}

// packsOf lists the packs that have an index, and those that have none.
func packsOf(dir string) (all []indexed, lone []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Name()] = true
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".pack")
		if !ok || !packForm.MatchString(e.Name()) {
			continue
		}
		if !has[name+".idx"] {
			lone = append(lone, name)
			continue
		}
		n, err := countOf(filepath.Join(dir, name+".pack"))
		if err != nil {
			return nil, nil, err
		}
		all = append(all, indexed{name, n})
	}
	return all, lone, nil
}

// countOf is how many objects a pack says that it has.
func countOf(name string) (int, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var head [packHead]byte
	if _, err := f.ReadAt(head[:], 0); err == io.EOF {
		return 0, trust.Refuse(CodePack, filepath.Base(name), "it ends in its head")
	} else if err != nil {
		return 0, err
	}
	return int(binary.BigEndian.Uint32(head[8:])), nil
}

// idsOf are the objects of an index, in order.
func idsOf(name string) ([]git.ID, error) {
	const tables, idSize = 8 + 256*4, len(git.ID{})
	index, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	bad := trust.Refuse(CodePack, filepath.Base(name), "it is no index")
	if len(index) < tables {
		return nil, bad
	}
	n := int(binary.BigEndian.Uint32(index[tables-4:]))
	if n > (len(index)-tables)/idSize {
		return nil, bad
	}
	ids := make([]git.ID, n)
	for i := range ids {
		copy(ids[i][:], index[tables+i*idSize:])
	}
	return ids, nil
}
