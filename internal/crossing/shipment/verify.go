package shipment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"

	"sallyport/internal/trust"
)

// Bounds on what is looked at of a volume before it is called a hostile one.
const (
	MaxFiles    = trust.MaxItems + 16
	MaxSums     = MaxFiles * 256 // bytes of a sums file
	maxSigBytes = 4 << 10
	maxReadme   = 64 << 10
	maxListed   = 1000 // refusals listed; the rest are counted
)

// A Sink takes the items of a volume as they are read. Begin is called once an item, in the manifest's order.
type Sink interface {
	Begin(trust.Item) (ItemSink, error)
}

// An ItemSink takes one item's bytes. After the last byte exactly one of Commit and Abort is called: Commit only when size and digest
// were the manifest's. A refusal (package trust) returned by any of them is listed; any other error ends the verification.
type ItemSink interface {
	io.Writer
	Commit() error
	Abort() error
}

// Options say what a volume is judged by.
type Options struct {
	Root     *trust.Root
	Slip     *Slip // nil: none demanded (only the outside, looking at its own volume, does that)
	Sink     Sink  // nil: items are only hashed
	Progress func(bytes int64)
	// Admit is asked once the manifest is authentic, before any item is read: it judges number and chain.
	Admit func(m *Manifest, file []byte) error
}

// A Verified is a volume that was read whole and is what its manifest says. Only Verify makes one.
type Verified struct {
	Manifest *Manifest
	File     []byte // the manifest file, exactly
	Digest   trust.Digest
	Signers  []string
	Bytes    int64
}

// Verify judges a volume. What is wrong comes back as [trust.Refusals], all of it at once, except that a manifest which is not the slip's or has no
// collector's signature ends the matter: nothing it says is believed. Any other error is a failure to read.
func Verify(ctx context.Context, vol *os.Root, o Options) (*Verified, error) {
	file, err := readFile(vol, fileManifest, MaxManifest)
	if err != nil {
		return nil, err
	}
	v := &Verified{File: file, Digest: trust.Sum(file)}
	if o.Slip != nil && o.Slip.Manifest != v.Digest {
		return nil, trust.Refuse("slip-mismatch", "manifest", "its sha256 is %s, the slip says %s", v.Digest, o.Slip.Manifest).
			WithHint("the disc is not the one the slip speaks of: compare shipment numbers, then ask the outside which disc was sent")
	}
	v.Manifest, v.Signers, err = OpenManifest(file, o.Root)
	if err != nil {
		return nil, err
	}
	m := v.Manifest
	if o.Slip != nil {
		if rs := o.Slip.Matches(m); len(rs) > 0 {
			return nil, rs
		}
	}
	if o.Admit != nil {
		if err := o.Admit(m, file); err != nil {
			return nil, err
		}
	}
	j := &judge{vol: vol, o: o, m: m}
	if err := j.run(ctx, file, v.Signers); err != nil {
		return nil, err
	}
	if len(j.faults) > 0 {
		return nil, j.faults
	}
	v.Bytes = j.bytes
	return v, nil
}

type judge struct {
	vol    *os.Root
	o      Options
	m      *Manifest
	files  []summed
	faults trust.Refusals
	hidden int
	bytes  int64
}

func (j *judge) refuse(code, subject, format string, args ...any) {
	j.add(trust.Refuse(code, subject, format, args...))
}

func (j *judge) add(rs ...*trust.Refusal) {
	for _, r := range rs {
		if len(j.faults) >= maxListed {
			j.hidden++
			continue
		}
		r.Subject = trust.Printable(r.Subject, 300)
		j.faults = append(j.faults, r)
	}
}

func (j *judge) run(ctx context.Context, file []byte, signers []string) error {
	want := map[string]trust.Item{}
	for _, it := range j.m.Items {
		want[itemPath(it)] = it
	}
	present, err := j.list(ctx, want)
	if err != nil {
		return err
	}
	for _, it := range j.m.Items {
		p := itemPath(it)
		if !present[p] {
			j.refuse("volume-missing", it.Name, "no file %s", p)
			continue
		}
		if err := j.item(ctx, p, it); err != nil {
			return err
		}
	}
	for _, name := range []string{fileManifest, fileReadme} {
		if !present[name] {
			j.refuse("volume-missing", name, "no file %s", name)
			continue
		}
		limit := int64(maxReadme)
		if name == fileManifest {
			limit = MaxManifest
		}
		s, err := j.hash(ctx, name, limit)
		if err != nil {
			return err
		}
		if name == fileManifest && trust.Digest(s.sha256) != trust.Sum(file) {
			j.refuse("volume-changed", name, "the file changed while the volume was read")
		}
		j.files = append(j.files, s)
	}
	if err := j.sums(present, signers); err != nil {
		return err
	}
	if j.hidden > 0 {
		j.faults = append(j.faults, trust.Refuse("more", "volume", "%d more faults", j.hidden))
	}
	return nil
}

// list walks the volume, refuses what does not belong there, and returns the regular files that do.
func (j *judge) list(ctx context.Context, want map[string]trust.Item) (map[string]bool, error) {
	own := map[string]bool{fileManifest: true, fileReadme: true, fileSums256: true, fileSums512: true,
		fileSums256 + signatureTail: true, fileSums512 + signatureTail: true}
	dirs := map[string]bool{".": true}
	for p := range want {
		dirs["items"] = true
		dirs[path.Dir(p)] = true
	}
	present := map[string]bool{}
	seen := 0
	var walk func(dir string) error
	walk = func(dir string) error {
		d, err := j.vol.Open(dir)
		if err != nil {
			return err
		}
		defer d.Close()
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			entries, err := d.ReadDir(1024)
			for _, e := range entries {
				if seen++; seen > MaxFiles {
					j.refuse("volume-files", "volume", "more than %d files", MaxFiles)
					return nil
				}
				p := path.Join(dir, e.Name())
				switch {
				case e.IsDir() && dirs[p]:
					if err := walk(p); err != nil {
						return err
					}
				case e.Type().IsRegular() && (own[p] || want[p].Name != ""):
					present[p] = true
				case e.IsDir() && (own[p] || want[p].Name != ""):
					j.refuse("volume-type", p, "a directory where a file belongs")
				case e.Type().IsRegular() && dirs[p]:
					j.refuse("volume-type", p, "a file where a directory belongs")
				case !e.IsDir() && !e.Type().IsRegular():
					j.refuse("volume-type", p, "%s: only regular files and directories are carried", e.Type())
				default:
					j.refuse("volume-extra", p, "the manifest does not name it")
				}
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	if err := walk("."); err != nil {
		return nil, err
	}
	return present, nil
}

// item reads one item once: hashes it, hands it to the sink, and compares with the manifest.
func (j *judge) item(ctx context.Context, p string, it trust.Item) (err error) {
	f, err := openFile(j.vol, p)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		j.refuse("volume-type", p, "it is not a regular file")
		return nil
	}
	if st.Size() != it.Size {
		j.refuse("item-size", it.Name, "%d bytes, the manifest says %d", st.Size(), it.Size)
	}
	sink := ItemSink(discard{})
	if j.o.Sink != nil && st.Size() == it.Size {
		sink, err = j.o.Sink.Begin(it)
		if err != nil {
			return j.judged(it, err)
		}
	}
	var w io.Writer = sink
	if j.o.Progress != nil {
		w = io.MultiWriter(sink, counter(j.o.Progress))
	}
	s, n, err := copyHashed(ctx, w, f, it.Size)
	if err != nil {
		if err := j.judged(it, err); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", p, err), sink.Abort())
		}
		return sink.Abort()
	}
	s.path = p
	j.files = append(j.files, s)
	j.bytes += n
	if n != it.Size || trust.Digest(s.sha256) != it.SHA256 {
		if n != it.Size && st.Size() == it.Size {
			j.refuse("item-size", it.Name, "the file changed while it was read")
		}
		j.refuse("item-digest", it.Name, "its content has sha256 %s, the manifest says %s", trust.Digest(s.sha256), it.SHA256)
		return sink.Abort()
	}
	return j.judged(it, sink.Commit())
}

// judged lists a refusal and returns any other error.
func (j *judge) judged(it trust.Item, err error) error {
	if err == nil {
		return nil
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return fmt.Errorf("item %s: %w", it.Name, err)
	}
	j.add(rs...)
	return nil
}

func (j *judge) hash(ctx context.Context, name string, limit int64) (summed, error) {
	f, err := openFile(j.vol, name)
	if err != nil {
		return summed{}, err
	}
	defer f.Close()
	s, n, err := copyHashed(ctx, io.Discard, f, limit)
	if n > limit {
		j.refuse("volume-size", name, "more than %d bytes", limit)
	}
	s.path = name
	return s, err
}

// sums prints the sums from what was read and compares them with the volume's; then checks that a collector signed those bytes.
func (j *judge) sums(present map[string]bool, signers []string) error {
	sums256, sums512 := sums(j.files)
	for _, s := range []struct {
		name string
		want []byte
	}{{fileSums256, sums256}, {fileSums512, sums512}} {
		if !present[s.name] || !present[s.name+signatureTail] {
			for _, n := range []string{s.name, s.name + signatureTail} {
				if !present[n] {
					j.refuse("volume-missing", n, "no file %s", n)
				}
			}
			continue
		}
		got, err := readFile(j.vol, s.name, MaxSums)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, s.want) {
			j.refuse("volume-sum", s.name, "%s", firstDifference(s.want, got))
		}
		sig, err := readFile(j.vol, s.name+signatureTail, maxSigBytes)
		if err != nil {
			return err
		}
		if r := j.signed(got, sig, signers); r != nil {
			r.Subject = s.name
			j.add(r)
		}
	}
	return nil
}

// signed checks that a collector who signed the manifest signed these sums too, for this shipment.
func (j *judge) signed(sums, sig []byte, signers []string) *trust.Refusal {
	var last *trust.Refusal
	for _, person := range signers {
		for _, key := range j.o.Root.SumsKeys(person) {
			err := trust.VerifySums(key, sums, sig, trust.SumsComment(j.m.Enclave, j.m.Number))
			if err == nil {
				return nil
			}
			rs, _ := trust.AsRefusals(err)
			last = rs[0]
		}
	}
	if last == nil {
		last = trust.Refuse("volume-signature", "", "the root has no sums key of a collector who signed the manifest")
	}
	return last
}

// firstDifference says where a sums file and the volume part.
func firstDifference(want, got []byte) string {
	w, g := strings.Split(string(want), "\n"), strings.Split(string(got), "\n")
	for i := range w {
		if i >= len(g) {
			break
		}
		if w[i] != g[i] {
			return fmt.Sprintf("line %d is %.160q, the volume's files give %.160q", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, the volume's files give %d", len(g)-1, len(w)-1)
}

// readFile reads a small file of the volume; a missing one, a wrong type and one over the bound are refusals.
func readFile(vol *os.Root, name string, limit int64) ([]byte, error) {
	st, err := vol.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trust.Refuse("volume-missing", name, "no file %s", name).
			WithHint("a volume is a directory with a file \"manifest\"; see docs/spec/shipment.md")
	}
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, trust.Refuse("volume-type", name, "%s where a regular file belongs", st.Mode().Type())
	}
	f, err := openFile(vol, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, trust.Refuse("volume-size", name, "more than %d bytes", limit)
	}
	return data, nil
}

// openFile opens what was listed as a regular file: a link or a pipe that took its place since is not followed and does not block.
func openFile(vol *os.Root, name string) (*os.File, error) {
	return vol.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Commit() error               { return nil }
func (discard) Abort() error                { return nil }
