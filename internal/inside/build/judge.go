package build

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/sys/unix"

	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// Codes of refusals.
const (
	CodeMissing      = "output-missing"
	CodeSuspicious   = "output-suspicious"
	CodeNotFlat      = "output-not-flat"
	CodeType         = "output-type"
	CodeOwner        = "output-owner"
	CodeHash         = "output-hash"
	CodeUnarchivable = "output-unarchivable"
	CodeNotAllowed   = "reference-not-allowed"
	CodeDisallowed   = "reference-disallowed"
	CodeCycle        = "reference-cycle"
)

// judge looks at what the builder made, output by output and fault by fault, and moves what passes to out. Its error is trust.Refusals if
// an output is refused.
func (job *Job) judge(l *layout, out string, outputs []output, rules []rule) ([]Output, error) {
	var refusals trust.Refusals
	c := &canonicaliser{foreign: l.root0, uid: uint32(l.uid), seen: make(map[inode]bool), refusals: &refusals}
	candidates := make(map[string][]storepath.Path) // by hash part
	for _, p := range job.Inputs {
		candidates[p.Hash()] = append(candidates[p.Hash()], p)
	}
	for _, o := range outputs {
		candidates[o.path.Hash()] = append(candidates[o.path.Hash()], o.path)
	}
	var made []Output
	for _, o := range outputs {
		m, err := job.judgeOutput(l, c, o, candidates, &refusals)
		if err != nil {
			return nil, err
		}
		if m != nil {
			made = append(made, *m)
		}
	}
	if err := job.judgeReferences(made, rules, &refusals); err != nil {
		return nil, err
	}
	if err := refusals.Err(); err != nil {
		return nil, err
	}
	return made, moveOutputs(l, out, made)
}

// judgeOutput returns nil without an error for an output that was refused.
func (job *Job) judgeOutput(l *layout, c *canonicaliser, o output, candidates map[string][]storepath.Path, refusals *trust.Refusals) (*Output, error) {
	base, subject := o.path.Base(), o.path.String()
	st, err := l.store.lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		refusals.Add(trust.Refuse(CodeMissing, subject, "the builder of %s succeeded without making it", job.Path))
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	before := len(*refusals)
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFLNK && st.Mode&0o022 != 0 {
		refusals.Add(trust.Refuse(CodeSuspicious, subject, "its mode %#o lets others than its owner write to it", st.Mode&0o7777))
	}
	if l.root0 && st.Uid != uint32(l.uid) {
		refusals.Add(trust.Refuse(CodeSuspicious, subject, "it belongs to user %d, not to the builder (%d)", st.Uid, l.uid))
	}
	algo, recursive := strings.CutPrefix(o.HashAlgo, "r:")
	fixed := o.Hash != ""
	if fixed && !recursive && (kind != unix.S_IFREG || st.Mode&unix.S_IXUSR != 0) {
		refusals.Add(trust.Refuse(CodeNotFlat, subject, "a flat fixed output is a regular file that is not executable; this has mode %#o", st.Mode))
		fixed = false // a hash would tell nothing
	}
	c.subject = subject
	if err := c.node(l.store, base, "", 0); err != nil {
		return nil, err
	}
	if c.refused {
		c.refused = false
		return nil, nil
	}

	m := &Output{ID: o.ID, Path: o.path}
	sum := sha256.New()
	scan, err := nar.NewScanner(slices.Collect(maps.Keys(candidates)))
	if err != nil {
		return nil, err
	}
	count := &counter{}
	writers := []io.Writer{sum, scan, count}
	var stated hash.Hash
	if fixed {
		if stated = newHash(algo); stated == nil {
			return nil, fmt.Errorf("%s: hash algorithm %q", subject, o.HashAlgo)
		}
		if recursive {
			writers = append(writers, stated)
		}
	}
	if err := nar.Dump(io.MultiWriter(writers...), l.trees.FS(), base); err != nil {
		var ne *nar.Error
		if errors.As(err, &ne) {
			refusals.Add(trust.Refuse(CodeUnarchivable, subject, "%v", err))
			return nil, nil
		}
		return nil, err
	}
	if fixed && !recursive {
		f, err := l.trees.Open(base)
		if err != nil {
			return nil, err
		}
		_, err = io.Copy(stated, f)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	if fixed {
		if got := stated.Sum(nil); hex.EncodeToString(got) != o.Hash {
			want := o.Hash
			if b, err := hex.DecodeString(o.Hash); err == nil {
				want = storepath.EncodeBase32(b)
			}
			refusals.Add(trust.Refuse(CodeHash, subject, "its %s is %s, the derivation says %s", o.HashAlgo, storepath.EncodeBase32(got), want))
		}
	}
	if len(*refusals) > before {
		return nil, nil
	}
	sum.Sum(m.NarHash[:0])
	m.NarSize = count.n
	for _, h := range scan.Found() {
		m.References = append(m.References, candidates[h]...)
	}
	slices.SortFunc(m.References, storepath.Path.Compare)
	return m, nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

// newHash knows the algorithms that storepath.DigestSize knows.
func newHash(algo string) hash.Hash {
	switch algo {
	case "md5":
		return md5.New()
	case "sha1":
		return sha1.New()
	case "sha256":
		return sha256.New()
	case "sha512":
		return sha512.New()
	case "sha3-256":
		return sha3.New256()
	case "sha3-512":
		return sha3.New512()
	case "blake2s-256":
		h, _ := blake2s.New256(nil) // fails only for a key that is too long
		return h
	}
	return nil
}

// moveOutputs takes the accepted outputs out of the sandbox's store.
func moveOutputs(l *layout, out string, made []Output) error {
	to, err := openDirectory(out)
	if err != nil {
		return err
	}
	defer to.close()
	for i := range made {
		base := made[i].Path.Base()
		if err := moveTree(l.store, to, base); err != nil {
			return err
		}
		made[i].HostPath = filepath.Join(out, base)
	}
	return nil
}

// moveTree renames a canonical tree from one directory to another.
func moveTree(from, to *dir, base string) error {
	st, err := from.lstat(base)
	if err != nil {
		return err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir { // its "..", in it, is about to change
		if err := from.chmod(base, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Renameat2(from.fd, base, to.fd, base, unix.RENAME_NOREPLACE); err != nil {
		if isDir {
			from.chmod(base, 0o555)
		}
		return from.fail("rename", base, err)
	}
	if isDir {
		return to.chmod(base, 0o555)
	}
	return nil
}

type inode struct{ dev, ino uint64 }

// A canonicaliser gives trees the one form that the store has. It is used for all outputs of a build, since they may share files by hard links.
type canonicaliser struct {
	foreign bool   // check that everything is the builder's, and make it ours
	uid     uint32 // of the builder
	seen    map[inode]bool

	subject  string
	refused  bool
	refusals *trust.Refusals
}

func (c *canonicaliser) refuse(code, place, format string, args ...any) {
	c.refused = true
	if c.refusals.Full() {
		return
	}
	detail := fmt.Sprintf(format, args...)
	if place != "" {
		detail = fmt.Sprintf("%q %s", place, detail)
	}
	c.refusals.Add(trust.Refuse(code, c.subject, "%s", detail))
}

// node handles what is called name in d; place is its path in the output.
func (c *canonicaliser) node(d *dir, name, place string, depth int) error {
	st, err := d.lstat(name)
	if err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK:
	default:
		c.refuse(CodeType, place, "is %s; the store holds regular files, directories and symbolic links", kindName(kind))
		return nil
	}
	id := inode{uint64(st.Dev), st.Ino}
	if c.seen[id] {
		return nil // a hard link to a file that has been through this
	}
	if c.foreign && st.Uid != c.uid {
		c.refuse(CodeOwner, place, "belongs to user %d, not to the builder (%d)", st.Uid, c.uid)
		return nil
	}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		c.seen[id] = true
	}
	if c.foreign {
		// This also ends set-user-ID, before the file is ours.
		if kind == unix.S_IFREG {
			if err := d.chmod(name, 0o444|st.Mode&0o100); err != nil {
				return err
			}
		}
		if err := unix.Fchownat(d.fd, name, 0, 0, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return d.fail("chown", name, err)
		}
	}
	if kind != unix.S_IFLNK {
		if kind == unix.S_IFDIR {
			if err := d.chmod(name, 0o700); err != nil {
				return err
			}
		}
		if err := stripAttributes(d, name); err != nil {
			return err
		}
	}
	switch kind {
	case unix.S_IFREG:
		mode := uint32(0o444)
		if st.Mode&unix.S_IXUSR != 0 {
			mode = 0o555
		}
		if err := d.chmod(name, mode); err != nil {
			return err
		}
	case unix.S_IFDIR:
		if depth >= nar.MaxDepth {
			c.refuse(CodeUnarchivable, "", "its directories are more than %d deep", nar.MaxDepth)
			return nil
		}
		sub, err := d.open(name)
		if err != nil {
			return err
		}
		names, err := sub.names()
		for _, n := range names {
			if err != nil {
				break
			}
			inner := n
			if place != "" {
				inner = place + "/" + n
			}
			err = c.node(sub, n, inner, depth+1)
		}
		sub.close()
		if err != nil {
			return err
		}
		if err := d.chmod(name, 0o555); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: 1}}
	if err := unix.UtimesNanoAt(d.fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return d.fail("utimensat", name, err)
	}
	return nil
}

func kindName(kind uint32) string {
	switch kind {
	case unix.S_IFIFO:
		return "a fifo"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return fmt.Sprintf("of type %#o", kind)
}

// stripAttributes removes the extended attributes that a builder can set, access lists among them. name is no symbolic link.
func stripAttributes(d *dir, name string) error {
	path := fmt.Sprintf("/proc/self/fd/%d/%s", d.fd, name)
	size, err := unix.Llistxattr(path, nil)
	if size == 0 || err == unix.ENOTSUP {
		return nil
	}
	if err != nil {
		return d.fail("listxattr", name, err)
	}
	buf := make([]byte, size)
	if size, err = unix.Llistxattr(path, buf); err != nil {
		return d.fail("listxattr", name, err)
	}
	for _, attr := range strings.Split(strings.TrimRight(string(buf[:size]), "\x00"), "\x00") {
		if !strings.HasPrefix(attr, "user.") && !strings.HasPrefix(attr, "system.posix_acl_") && attr != "security.capability" {
			continue // the host's own, labels for instance
		}
		if err := unix.Lremovexattr(path, attr); err != nil && err != unix.ENODATA {
			return d.fail("removexattr "+attr, name, err)
		}
	}
	return nil
}
