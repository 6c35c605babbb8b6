package shipment

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"sallyport/internal/trust"
)

// Bounds on what is looked at of a volume before it is called a hostile one.
const (
	MaxFiles    = trust.MaxItems + maxOwn // files and directories
	MaxReadme   = 64 << 10                // bytes of README.txt
	maxOwn      = 6 + 1 + 256             // the volume's own files, items, the directories below it
	maxSigBytes = 4 << 10                 // of a signature of sums
	maxSumsMore = 64 << 10                // of a sums file beyond what it should have, so that it can be said what is wrong
	maxListed   = 1000                    // refusals listed; the rest are counted
)

// A Sink takes the items of a volume as they are read. Begin is called once an item, in the manifest's order; the one before has ended by then.
// A refusal (package trust) that Begin returns is listed, and the next item follows; any other error ends the verification.
type Sink interface {
	Begin(trust.Item) (ItemSink, error)
}

// An ItemSink takes one item's bytes. After the last byte exactly one of Commit and Abort is called: Commit only when size and digest
// were the manifest's. A refusal returned by Write or Commit is listed (after Write, Abort follows); any other error ends the verification.
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
	// Admit is asked once the manifest is authentic, before any item is read: it judges number and chain. An error ends the verification.
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
// collector's signature ends the matter, as does Admit: nothing more is believed or read then. Any other error is a failure to read.
func Verify(ctx context.Context, vol *os.Root, o Options) (*Verified, error) {
	file, err := ReadManifest(vol)
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
	j := newJudge(vol, o, m)
	if err := j.run(ctx, file, v.Signers); err != nil {
		return nil, err
	}
	if err := j.faults.Err(); err != nil {
		return nil, err
	}
	v.Bytes = m.Bytes()
	return v, nil
}

type judge struct {
	vol    *os.Root
	o      Options
	m      *Manifest
	hash   *hasher
	max    int             // files and directories
	files  []covered       // those that the sums cover, by path: README.txt, the items', manifest
	own    map[string]bool // the sums and their signatures; true once seen
	dirs   map[string]bool // those that a file of the volume lies in
	faults trust.Refusals
	hidden int
}

// covered is a file of the volume that the sums cover.
type covered struct {
	item  int // the first of the manifest that has this content; -1: none
	state state
	digests
}

// A state says what is known of a file. A path that a fault was found at has been named once and is not held against the volume again.
type state byte

const (
	absent  state = iota
	present       // listed as a regular file
	blamed        // refused already
	hashed        // read, and digests are set
)

func newJudge(vol *os.Root, o Options, m *Manifest) *judge {
	j := &judge{vol: vol, o: o, m: m, hash: newHasher(), max: MaxFiles, own: map[string]bool{}, dirs: map[string]bool{".": true, "items": true}}
	j.files = append(j.files, covered{item: -1})
	for i, it := range m.Items {
		if i == 0 || it.SHA256 != m.Items[i-1].SHA256 {
			j.files = append(j.files, covered{item: i})
			j.dirs[path.Dir(itemPath(it))] = true
		}
	}
	j.files = append(j.files, covered{item: -1})
	for _, name := range []string{fileSums256, fileSums512} {
		j.own[name], j.own[name+signatureTail] = false, false
	}
	return j
}

func (j *judge) readme() *covered   { return &j.files[0] }
func (j *judge) manifest() *covered { return &j.files[len(j.files)-1] }
func (j *judge) items() []covered   { return j.files[1 : len(j.files)-1] }

func (j *judge) path(f *covered) string {
	switch {
	case f.item >= 0:
		return itemPath(j.m.Items[f.item])
	case f == j.readme():
		return fileReadme
	}
	return fileManifest
}

// find returns the covered file that belongs at a path, nil if none does.
func (j *judge) find(p string) *covered {
	switch p {
	case fileReadme:
		return j.readme()
	case fileManifest:
		return j.manifest()
	}
	d, err := trust.ParseDigest(path.Base(p))
	if err != nil {
		return nil
	}
	items := j.items()
	i, ok := slices.BinarySearchFunc(items, d, func(f covered, d trust.Digest) int {
		have := j.m.Items[f.item].SHA256
		return slices.Compare(have[:], d[:])
	})
	if !ok || j.path(&items[i]) != p {
		return nil
	}
	return &items[i]
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
	whole, err := j.list(ctx)
	if err != nil {
		return err
	}
	if whole {
		// The manifest was read, whatever stands in the directory by now.
		*j.manifest() = covered{item: -1, state: hashed, digests: digestsOf(file)}
		if err := j.page(); err != nil {
			return err
		}
		for i := range j.items() {
			if err := j.item(ctx, &j.items()[i]); err != nil {
				return err
			}
		}
		if err := j.sums(signers); err != nil {
			return err
		}
	}
	if j.hidden > 0 {
		j.faults = append(j.faults, trust.Refuse("volume-faults", "volume", "%d more faults are not listed", j.hidden))
	}
	return nil
}

var errTooMany = errors.New("too many files")

// list walks the volume, refuses what does not belong there, and marks what does. It returns false if there is more than any volume has.
func (j *judge) list(ctx context.Context) (whole bool, err error) {
	seen := 0
	var walk func(dir string) error
	walk = func(dir string) error {
		// A pipe that took the directory's place since is not waited for. A link would be followed, though never out of the volume; what is
		// found there has names that the manifest asks for, and is hashed like all else.
		d, err := j.vol.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
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
				if seen++; seen > j.max {
					return errTooMany
				}
				p := path.Join(dir, e.Name())
				if e.IsDir() && j.dirs[p] {
					if err := walk(p); err != nil {
						return err
					}
				} else {
					j.entry(p, e)
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
	err = walk(".")
	if errors.Is(err, errTooMany) {
		j.refuse("volume-files", "volume", "more than %d files and directories", j.max)
		return false, nil
	}
	return err == nil, err
}

// entry judges one entry that is no directory of the volume.
func (j *judge) entry(p string, e fs.DirEntry) {
	f := j.find(p)
	_, own := j.own[p]
	if e.Type().IsRegular() {
		switch {
		case f != nil:
			f.state = present
		case own:
			j.own[p] = true
		case j.dirs[p]:
			j.refuse("volume-type", p, "a file where a directory belongs")
		default:
			j.refuse("volume-extra", p, "the manifest does not name it")
		}
		return
	}
	switch {
	case f != nil:
		f.state = blamed
	case own:
		delete(j.own, p)
	case e.IsDir():
		j.refuse("volume-extra", p, "a directory in which no file of the manifest lies")
		return
	case j.dirs[p]:
		j.refuse("volume-type", p, "%s where a directory belongs", typeName(e.Type()))
		return
	}
	j.refuse("volume-type", p, "%s: a volume has regular files and directories only, each in its place", typeName(e.Type()))
}

func typeName(t fs.FileMode) string {
	switch {
	case t&fs.ModeDir != 0:
		return "a directory"
	case t&fs.ModeSymlink != 0:
		return "a symbolic link"
	case t&fs.ModeNamedPipe != 0:
		return "a pipe"
	case t&fs.ModeSocket != 0:
		return "a socket"
	case t&fs.ModeDevice != 0:
		return "a device"
	}
	return "no regular file"
}

// page reads README.txt.
func (j *judge) page() error {
	f := j.readme()
	switch f.state {
	case blamed:
		return nil
	case absent:
		j.refuse("volume-missing", fileReadme, "no file %s", fileReadme)
		f.state = blamed
		return nil
	}
	data, err := readFile(j.vol, fileReadme, MaxReadme)
	if err != nil {
		f.state = blamed
		return j.unread(fileReadme, err)
	}
	f.state, f.digests = hashed, digestsOf(data)
	return nil
}

// item reads one item's file once: hashes it, hands it to the sink, and compares with the manifest. Items that are the same content
// under other names follow it.
func (j *judge) item(ctx context.Context, f *covered) error {
	it, p := j.m.Items[f.item], j.path(f)
	switch f.state {
	case blamed:
		return nil
	case absent:
		j.refuse("volume-missing", it.Name, "no file %s", p)
		f.state = blamed
		return nil
	}
	for i := f.item; i < len(j.m.Items) && j.m.Items[i].SHA256 == it.SHA256; i++ {
		if i > f.item && j.o.Sink == nil {
			if j.o.Progress != nil {
				j.o.Progress(it.Size)
			}
			continue
		}
		d, ok, err := j.read(ctx, p, j.m.Items[i])
		if err != nil {
			return err
		}
		if !ok {
			f.state = blamed
			return nil
		}
		f.state, f.digests = hashed, d
	}
	return nil
}

// read reads a file for one item. ok is false if the file is not what the manifest says, which has been refused then.
func (j *judge) read(ctx context.Context, p string, it trust.Item) (d digests, ok bool, err error) {
	file, size, err := openFile(j.vol, p)
	if err != nil {
		return d, false, j.unread(it.Name, err)
	}
	defer file.Close()
	if size != it.Size {
		j.refuse("item-size", it.Name, "%d bytes, the manifest says %d", size, it.Size)
		return d, false, nil
	}
	t := &taker{j: j, name: it.Name}
	if j.o.Sink != nil {
		t.sink, err = j.o.Sink.Begin(it)
		if err != nil {
			t.sink = nil
			if err := j.judged(it.Name, err); err != nil {
				return d, false, err
			}
		}
	}
	var w io.Writer = t
	if j.o.Progress != nil {
		w = io.MultiWriter(t, counter(j.o.Progress))
	}
	d, n, err := j.hash.copy(ctx, w, file, it.Size)
	if err != nil {
		return d, false, errors.Join(fmt.Errorf("%s: %w", p, err), t.abort())
	}
	switch {
	case n != it.Size:
		j.refuse("item-size", it.Name, "the file changed while it was read")
	case trust.Digest(d.sha256) != it.SHA256:
		j.refuse("item-digest", it.Name, "its content has sha256 %s, the manifest says %s", trust.Digest(d.sha256), it.SHA256)
	default:
		return d, true, t.commit()
	}
	return d, false, t.abort()
}

// A taker hands an item's bytes to its sink until that refuses them. Reading goes on then: the operator is told at once what else is wrong.
type taker struct {
	j    *judge
	name string
	sink ItemSink // nil: none, or it has ended
}

func (t *taker) Write(p []byte) (int, error) {
	if t.sink == nil {
		return len(p), nil
	}
	n, err := t.sink.Write(p)
	if err != nil {
		if err = t.j.judged(t.name, err); err == nil {
			n, err = len(p), t.abort()
		}
	}
	return n, err
}

func (t *taker) commit() error {
	sink := t.sink
	t.sink = nil
	if sink == nil {
		return nil
	}
	return t.j.judged(t.name, sink.Commit())
}

func (t *taker) abort() error {
	sink := t.sink
	t.sink = nil
	if sink == nil {
		return nil
	}
	return sink.Abort()
}

// judged lists a refusal and returns any other error.
func (j *judge) judged(subject string, err error) error {
	if err == nil {
		return nil
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return fmt.Errorf("%s: %w", subject, err)
	}
	j.add(rs...)
	return nil
}

// sums compares the sums with what was read, and checks that a collector who signed the manifest signed both.
func (j *judge) sums(signers []string) error {
	var by [2]string
	for i, name := range []string{fileSums256, fileSums512} {
		data, err := j.ownFile(name, j.sumsSize(i)+maxSumsMore)
		if err != nil {
			return err
		}
		sig, err := j.ownFile(name+signatureTail, maxSigBytes)
		if err != nil {
			return err
		}
		if data != nil {
			j.cover(i, name, data)
		}
		if data != nil && sig != nil {
			person, detail := j.signed(data, sig, signers)
			if detail != "" {
				j.refuse("volume-signature", name+signatureTail, "%s", detail)
			}
			by[i] = person
		}
	}
	if by[0] != by[1] && by[0] != "" && by[1] != "" {
		j.refuse("volume-signature", fileSums512+signatureTail, "made by %s, that of %s by %s", by[1], fileSums256, by[0])
	}
	return nil
}

// ownFile reads a sums file or a signature; nil if it was refused.
func (j *judge) ownFile(name string, limit int64) ([]byte, error) {
	seen, want := j.own[name]
	if !want {
		return nil, nil // of another type, and refused for that
	}
	if !seen {
		j.refuse("volume-missing", name, "no file %s", name)
		return nil, nil
	}
	data, err := readFile(j.vol, name, limit)
	if err != nil {
		return nil, j.unread(name, err)
	}
	return data, nil
}

// unread is judged for a file of the volume that could not be opened or read.
func (j *judge) unread(subject string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		j.refuse("volume-missing", subject, "it is gone since the directory was read")
		return nil
	}
	return j.judged(subject, err)
}

// sumsSize is the size that SHA256SUMS (0) or SHA512SUMS (1) must have.
func (j *judge) sumsSize(which int) int64 {
	line := [2]int{len(digests{}.sha256), len(digests{}.sha512)}[which]*2 + len("  \n")
	paths := len(fileReadme) + len(fileManifest) + len(j.items())*len(itemPath(trust.Item{}))
	return int64(len(j.files)*line + paths)
}

// cover holds the lines of a sums file against the files. Both are sorted by path, so one pass pairs them.
func (j *judge) cover(which int, name string, data []byte) {
	next, before := 0, ""
	// skip passes the files before a path that the sums have no line for; all that are left if it is "".
	skip := func(until string) {
		for ; next < len(j.files); next++ {
			p := j.path(&j.files[next])
			if until != "" && p >= until {
				return
			}
			j.refuse("volume-uncovered", p, "no line in %s", name)
		}
	}
	rest := string(data)
	for n := 1; rest != ""; n++ {
		line, after, ended := strings.Cut(rest, "\n")
		rest = after
		digest, p, ok := strings.Cut(line, "  ")
		if !ended || !ok || !isHex(digest) || p == "" {
			j.refuse("volume-sum", name, "line %d is %.200q: want a digest, two spaces, a path", n, line)
			return
		}
		if p <= before {
			j.refuse("volume-sum", name, "line %d: %.200q does not stand behind a lesser path", n, p)
			return
		}
		before = p
		skip(p)
		if next == len(j.files) || j.path(&j.files[next]) != p {
			j.refuse("volume-sum", name, "line %d: %.200q is no file of this volume", n, p)
			continue
		}
		f := &j.files[next]
		next++
		have := f.sha256[:]
		if which == 1 {
			have = f.sha512[:]
		}
		if f.state == hashed && digest != hex.EncodeToString(have) {
			j.refuse("volume-sum", p, "%s says %.128s, its content has %x", name, digest, have)
		}
	}
	skip("")
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// signed returns which of the collectors who signed the manifest signed these sums too, for this shipment, or else why none did.
func (j *judge) signed(sums, sig []byte, signers []string) (person, detail string) {
	var faults []string
	for _, person := range signers {
		for _, key := range j.o.Root.SumsKeys(person, j.m.Date) {
			err := trust.VerifySums(key, sums, sig, trust.SumsComment(j.m.Enclave, j.m.Number))
			if err == nil {
				return person, ""
			}
			fault := err.Error()
			if rs, ok := trust.AsRefusals(err); ok {
				fault = rs[0].Detail
			}
			if !slices.Contains(faults, fault) {
				faults = append(faults, fault)
			}
		}
	}
	if len(faults) == 0 {
		return "", "the root has no sums key of a collector who signed the manifest"
	}
	return "", strings.Join(faults, "; ")
}

// readFile reads a small file of the volume.
func readFile(vol *os.Root, name string, limit int64) ([]byte, error) {
	f, size, err := openFile(vol, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit { // before anything is read: a sparse file costs an attacker nothing
		return nil, trust.Refuse("volume-size", name, "%d bytes, more than %d", size, limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, trust.Refuse("volume-size", name, "more than %d bytes", limit)
	}
	return data, nil
}

// openFile opens a regular file of the volume and says how large it is. Anything else is refused, and not opened: opening a device may
// do something. What took the file's place since is neither followed nor waited for.
func openFile(vol *os.Root, name string) (f *os.File, size int64, err error) {
	st, err := vol.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, trust.Refuse("volume-type", name, "%s where a regular file belongs", typeName(st.Mode().Type()))
	}
	f, err = vol.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	now, err := f.Stat()
	if err == nil && !os.SameFile(st, now) {
		err = trust.Refuse("volume-type", name, "another file took its place while the volume was read")
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, now.Size(), nil
}
