package pin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"sallyport/guix/channel/git"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// CodePack is the code of a pack that is not whole, not well formed, or refers to what is not there.
const CodePack = "channel-pack"

// scratch is the directory in a repository in which a pack becomes one of its own.
const scratch = "unpack"

const packHead = 12 // bytes before the first object of a pack

// Unpack puts the objects of a pack into the bare repository dir, which is made if it is not there. base is a bare repository whose objects the pack may refer to, ""
// for none; those of dir itself it may refer to as well. What is wrong with the pack is a trust.Refusal; then, as after any error, dir has no object more than before.
//
// When it returns, the pack is durable. One run may work on a directory at a time; what a run that was killed has left is removed by the next.
func Unpack(ctx context.Context, g *gitrun.Git, dir string, base string, pack io.Reader) (err error) {
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := durable.MkdirAll(durable.OS{}, filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	// Somebody may be reading, and may have another head there.
	head := filepath.Join(dir, "HEAD")
	if st, err := os.Lstat(head); errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
		if err := os.WriteFile(head, []byte("ref: refs/heads/none\n"), 0o644); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	// How many objects come stands in front; the index of them is held in memory by all who read the repository.
	in := &counter{r: pack}
	var start [packHead]byte
	n, err := io.ReadFull(in, start[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if objects := binary.BigEndian.Uint32(start[8:]); objects > MaxObjects {
		return trust.Refuse(CodePack, "bundle", "its pack has %d objects, more than %d", objects, MaxObjects)
	}
	work := filepath.Join(dir, scratch)
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	view, err := g.View(work, gitrun.Repository{})
	if err != nil {
		return err
	}
	others, err := refersTo(view, dir, base)
	if err != nil {
		return err
	}
	// What is out of proportion is seen as it passes, and git is not waited for.
	heavy := make(chan error, 1)
	pr, pw := io.Pipe()
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		err := weigh(pr, in.n.Load)
		if err != nil {
			stop()
		}
		pr.CloseWithError(err)
		heavy <- err
	}()
	err = g.Run(running, view, gitrun.Command{
		Args: []string{"index-pack", "--stdin", "--fix-thin", "--strict"}, Stdin: io.TeeReader(io.MultiReader(bytes.NewReader(start[:n]), in), pw), Read: others, Time: gitTime,
	})
	pw.Close()
	var exit *gitrun.ExitError
	switch refused := <-heavy; {
	case refused != nil:
		return refused
	case in.err() != nil:
		return in.err()
	case errors.As(err, &exit) && exit.Status > 0 && !ownFault(exit.Stderr):
		return trust.Refuse(CodePack, "bundle", "git cannot take its pack: %.500q", exit.Stderr)
	case err != nil:
		return err
	}
	made := filepath.Join(view.Dir, "objects", "pack")
	name, err := onePack(made)
	if err != nil {
		return err
	}
	if err := checkEnd(filepath.Join(made, name), in); err != nil {
		return err
	}
	return install(made, filepath.Join(dir, "objects", "pack"), name)
}

// refersTo tells git of everything that may be referred to, by a file whose lines are paths, and returns these.
func refersTo(view *gitrun.View, dir, base string) (others []string, err error) {
	for _, d := range []string{dir, base} {
		if d == "" {
			continue
		}
		if d, err = filepath.EvalSymlinks(filepath.Join(d, "objects")); err != nil {
			return nil, err
		}
		if d, err = filepath.Abs(d); err != nil {
			return nil, err
		}
		if strings.ContainsAny(d, "\n\"#") {
			return nil, fmt.Errorf("%q: git cannot be told of a directory of such a name", d)
		}
		if !slices.Contains(others, d) {
			others = append(others, d)
		}
	}
	return others, os.WriteFile(filepath.Join(view.Dir, "objects", "info", "alternates"), []byte(strings.Join(others, "\n")+"\n"), 0o600)
}

// install moves a pack that git has made to where it is seen, and makes it durable. An index without its pack is passed over, a pack without its index is not seen: the index
// is what makes the objects appear.
func install(made, packs, name string) error {
	for _, suffix := range []string{".pack", ".idx"} {
		if err := syncFile(filepath.Join(made, name+suffix)); err != nil {
			return err
		}
	}
	for _, suffix := range []string{".pack", ".idx"} {
		if err := durable.Rename(durable.OS{}, filepath.Join(made, name+suffix), filepath.Join(packs, name+suffix)); err != nil {
			return err
		}
	}
	return nil
}

// wellFormed opens a pack that git has written.
func wellFormed(name string) error {
	index, err := os.ReadFile(name + ".idx")
	if err != nil {
		return err
	}
	f, err := os.Open(name + ".pack")
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := git.OpenPack(index, f, st.Size()); err != nil {
		return fmt.Errorf("git wrote what is no pack: %w", err)
	}
	return nil
}

// ownFault tells, by what git says, a fault of this machine from one of the pack.
func ownFault(said string) bool {
	for _, s := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.ENOMEM, syscall.EFBIG, syscall.EROFS} {
		if strings.Contains(strings.ToLower(said), ": "+s.Error()) {
			return true
		}
	}
	// After a write that was cut short, git says this.
	return strings.Contains(said, "out of memory") || strings.Contains(said, "Out of diskspace")
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

var packForm = regexp.MustCompile(`^pack-[0-9a-f]{40}\.(idx|pack|rev)$`)

// onePack finds what git has written.
func onePack(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	base := ""
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), filepath.Ext(e.Name()))
		if !packForm.MatchString(e.Name()) || !e.Type().IsRegular() || base != "" && base != name {
			return "", fmt.Errorf("git wrote %q among its packs", e.Name())
		}
		base = name
	}
	if base == "" {
		return "", errors.New("git wrote no pack")
	}
	return base, nil
}

// A counter counts what is read, and keeps the head of a pack.
type counter struct {
	r    io.Reader
	n    atomic.Int64
	mu   sync.Mutex
	head []byte // the first packHead bytes
	fail error
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = append(c.head, p[:min(n, packHead-len(c.head))]...)
	if err != nil && err != io.EOF {
		c.fail = err
	}
	return n, err
}

func (c *counter) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fail
}

// checkEnd sees whether in, from which git has written a pack, ended where the pack did: git stops reading there, whatever follows.
func checkEnd(name string, in *counter) error {
	index, err := os.ReadFile(name + ".idx")
	if err != nil {
		return err
	}
	f, err := os.Open(name + ".pack")
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := git.OpenPack(index, f, st.Size()); err != nil {
		return fmt.Errorf("git wrote what is no pack: %w", err)
	}
	// Git adds the bases that a thin pack lacks behind the objects that it got. OpenPack has checked that the tables have these sizes.
	const tables, idSize = 8 + 256*4, 20
	count := int(binary.BigEndian.Uint32(index[tables-4:]))
	if len(in.head) < packHead {
		return trust.Refuse(CodePack, "bundle", "its pack ends in its head")
	}
	got := int(binary.BigEndian.Uint32(in.head[8:]))
	end := st.Size()
	switch {
	case got > count:
		return fmt.Errorf("git wrote %d objects of %d", count, got)
	case got < count:
		small := index[tables+count*(idSize+4):]
		large := small[count*4:]
		starts := make([]int64, count)
		for i := range starts {
			at := int64(binary.BigEndian.Uint32(small[4*i:]))
			if at >= 1<<31 {
				k := int(at-1<<31) * 8
				if k+8 > len(large)-2*idSize {
					return errors.New("git wrote an index with an offset that it does not have")
				}
				at = int64(binary.BigEndian.Uint64(large[k:]))
			}
			starts[i] = at
		}
		slices.Sort(starts)
		end = starts[got] + idSize // the checksum stands where the first of them was put
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(in, 1)); err != nil {
		return err
	}
	if n := in.n.Load(); n != end {
		return trust.Refuse(CodePack, "bundle", "its pack ends at byte %d, but it goes on", end)
	}
	return nil
}
