package shipment

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// Names of a volume's own files.
const (
	fileManifest  = "manifest"
	fileReadme    = "README.txt"
	fileSums256   = "SHA256SUMS"
	fileSums512   = "SHA512SUMS"
	signatureTail = ".minisig"
)

// Write makes a volume at dir, which must not be there yet, from a signed manifest file, of which m is the text. open returns an item's content.
// progress, if not nil, is told of bytes written.
//
// The volume grows in .NAME.partial beside dir: each file is synced as it is written, then the directories that name them, and the name comes
// last. A crash before that leaves the partial directory, which the next run empties; a crash after it leaves a whole volume. A run that
// is alive holds a lock on its partial directory, so that two of them never mix.
func Write(ctx context.Context, dir string, m *Manifest, file []byte, open func(trust.Item) (io.ReadCloser, error), sumsKey trust.Signer, progress func(int64)) (err error) {
	if err := writable(m, file, sumsKey); err != nil {
		return err
	}
	dir = filepath.Clean(dir)
	if _, err := os.Lstat(dir); err == nil {
		return taken(dir)
	}
	parent := filepath.Dir(dir)
	if err := durable.MkdirAll(durable.OS{}, parent, 0o755); err != nil {
		return err
	}
	temp := filepath.Join(parent, "."+filepath.Base(dir)+".partial")
	lock, err := claim(temp)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp)) // still under the lock
		}
	}()
	root, err := os.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := empty(root); err != nil {
		return err
	}
	w := &writer{ctx: ctx, root: root, hash: newHasher(), progress: progress, dirs: []string{"."}}
	if err := w.volume(m, file, open, sumsKey); err != nil {
		return err
	}
	for _, d := range w.dirs {
		if err := syncDir(root, d); err != nil {
			return err
		}
	}
	if err := rename(temp, dir); err != nil {
		return err
	}
	return durable.SyncDir(durable.OS{}, parent)
}

// writable refuses, before hours are spent, to write what [Verify] would refuse.
func writable(m *Manifest, file []byte, sumsKey trust.Signer) error {
	if sumsKey.Context() != trust.ContextSums {
		return fmt.Errorf("key %s is no key for sums", sumsKey.Name())
	}
	text, lines, err := trust.SplitNote("manifest", file, MaxManifest)
	if err != nil {
		return err
	}
	if !bytes.Equal(text, m.Text()) {
		return errors.New("the manifest file has another text than the manifest")
	}
	want := sumsKey.Person() + "/" + string(trust.ContextManifest)
	if !slices.ContainsFunc(lines, func(l string) bool {
		name, additional, err := trust.LineOf(l)
		return err == nil && name == want && !additional
	}) {
		return fmt.Errorf("key %s: %s has not signed the manifest, and only who did may sign its sums", sumsKey.Name(), sumsKey.Person())
	}
	return nil
}

func taken(dir string) error {
	return fmt.Errorf("%s is there already; a volume is never overwritten", dir)
}

// maxClaims bounds the tries to get hold of a directory that others make and remove.
const maxClaims = 10

// claim makes the directory, or takes over one that a dead run has left, and locks it.
func claim(dir string) (*os.File, error) {
	for range maxClaims {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s is in the way: %w", dir, err)
		}
		if err := durable.Lock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				err = errors.New("another run is writing this volume")
			}
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		// Between opening and locking it may have become a volume or been removed. The lock counts only if the name still means it.
		mine, err := f.Stat()
		if err == nil {
			var now fs.FileInfo
			if now, err = os.Lstat(dir); err == nil && os.SameFile(mine, now) {
				return f, nil
			}
		}
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: others make and remove it all the time", dir)
}

// empty removes what an interrupted run has left.
func empty(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	return nil
}

// rename gives the volume its name, unless the name was taken in the meantime. os.Rename would replace an empty directory.
func rename(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case errors.Is(err, fs.ErrExist):
		return taken(to)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP):
		// A file system that knows no such rename, as some network ones do.
		if _, err := os.Lstat(to); err == nil {
			return taken(to)
		}
		return os.Rename(from, to)
	case err != nil:
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// A writer fills the partial directory of one volume.
type writer struct {
	ctx      context.Context
	root     *os.Root
	hash     *hasher
	progress func(int64)
	dirs     []string // made so far
	sums256  []byte
	sums512  []byte
}

func (w *writer) volume(m *Manifest, file []byte, open func(trust.Item) (io.ReadCloser, error), sumsKey trust.Signer) error {
	// In the order of the paths, which is that of the sums.
	readme, err := readmeText(m, file, sumsKey)
	if err != nil {
		return err
	}
	if err := w.covered(fileReadme, []byte(readme)); err != nil {
		return err
	}
	for i, it := range m.Items {
		if i > 0 && it.SHA256 == m.Items[i-1].SHA256 {
			continue
		}
		if err := w.item(it, open); err != nil {
			return fmt.Errorf("item %s: %w", it.Name, err)
		}
	}
	if err := w.covered(fileManifest, file); err != nil {
		return err
	}
	comment := trust.SumsComment(m.Enclave, m.Number)
	for _, s := range []struct {
		name string
		data []byte
	}{{fileSums256, w.sums256}, {fileSums512, w.sums512}} {
		sig, err := trust.SignSums(sumsKey, s.data, comment)
		if err != nil {
			return err
		}
		if _, err := w.put(s.name, bytes.NewReader(s.data), int64(len(s.data))); err != nil {
			return err
		}
		if _, err := w.put(s.name+signatureTail, bytes.NewReader(sig), int64(len(sig))); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) item(it trust.Item, open func(trust.Item) (io.ReadCloser, error)) error {
	r, err := open(it)
	if err != nil {
		return err
	}
	path := itemPath(it)
	d, err := w.put(path, r, it.Size)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if trust.Digest(d.sha256) != it.SHA256 {
		return errors.New("its content has changed in the store")
	}
	w.line(path, d)
	return nil
}

// covered writes a file that the sums cover.
func (w *writer) covered(path string, data []byte) error {
	d, err := w.put(path, bytes.NewReader(data), int64(len(data)))
	if err == nil {
		w.line(path, d)
	}
	return err
}

// line adds a file to both sums, as coreutils' sha256sum and sha512sum would.
func (w *writer) line(path string, d digests) {
	w.sums256 = append(append(append(hex.AppendEncode(w.sums256, d.sha256[:]), "  "...), path...), '\n')
	w.sums512 = append(append(append(hex.AppendEncode(w.sums512, d.sha512[:]), "  "...), path...), '\n')
}

// put writes a file durably, up to its name, which its directory makes durable.
func (w *writer) put(path string, r io.Reader, size int64) (d digests, err error) {
	if err := w.mkdir(filepath.Dir(path)); err != nil {
		return d, err
	}
	f, err := w.root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return d, err
	}
	var to io.Writer = f
	if w.progress != nil {
		to = io.MultiWriter(f, counter(w.progress))
	}
	d, n, err := w.hash.copy(w.ctx, to, r, size)
	switch {
	case err == nil && n > size:
		err = fmt.Errorf("%s: more came than the %d bytes expected", path, size)
	case err == nil && n < size:
		err = fmt.Errorf("%s: %d bytes expected, %d came", path, size, n)
	case err == nil:
		err = f.Sync()
	}
	return d, errors.Join(err, f.Close())
}

// mkdir makes a directory and those above it, unless this run has made it.
func (w *writer) mkdir(dir string) error {
	if slices.Contains(w.dirs, dir) { // at most 258
		return nil
	}
	if err := w.mkdir(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := w.root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	w.dirs = append(w.dirs, dir)
	return nil
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readmeText is the page on the disc that says how to check it without Sallyport.
func readmeText(m *Manifest, file []byte, sumsKey trust.Signer) (string, error) {
	_, lines, err := trust.SplitNote("manifest", file, MaxManifest)
	if err != nil {
		return "", err
	}
	step, more := 4, ""
	for _, line := range lines {
		name, additional, err := trust.LineOf(line)
		if err != nil {
			return "", err
		}
		if additional {
			more += fmt.Sprintf(readmeMLDSA, step, name)
			step++
		}
	}
	return fmt.Sprintf(readme, m.Number, m.Enclave, len(m.Items), m.Bytes(), m.Number, sumsKey.RootKey().Key, trust.SumsComment(m.Enclave, m.Number), more, step), nil
}

const readme = `This is shipment %d for the enclave "%s": %d items, %d bytes.

You can check it with tools that every system has. Stand in this directory.

1. Compare this number with the slip that came by another way:

       sha256sum manifest

   The slip says: shipment %d, and this very digest. If they differ, stop here.

2. Check that nothing changed on the way (no line may say FAILED):

       sha256sum --quiet --check SHA256SUMS
       sha512sum --quiet --check SHA512SUMS

3. Check who made it. The collector's key was handed over on paper; it should be

       %s

       minisign -VHm SHA256SUMS -P KEY-FROM-PAPER
       minisign -VHm SHA512SUMS -P KEY-FROM-PAPER

   The trusted comment must say: %s

%s%d. The file "manifest" lists what is offered: a line an item, with its sha256, its size, what it is and its name. Each
   item lies under items/, named by its sha256.

The format is described in Sallyport's docs/spec/shipment.md.
`

// readmeMLDSA stands on the page for each signature that coreutils and minisign cannot check. The base64 in it is what stands in front of every ML-DSA-87 key
// in DER.
const readmeMLDSA = `%[1]d. The manifest also has an ML-DSA-87 signature by %[2]s, which is to hold against quantum computers. coreutils and minisign cannot
   check it; OpenSSL from 3.5 on can. KEY.pub is the file with that public key, of about 3,600 bytes, which was handed over
   before; its sha256 is on paper. The last line must say: Signature Verified Successfully

       sha256sum KEY.pub
       ( echo MIIKMjALBglghkgBZQMEAxMDggohAA== | base64 -d; cut -d + -f 3- KEY.pub | base64 -d | tail -c 2592 ) > /tmp/key.der
       sed '/^$/,$d' manifest > /tmp/text
       grep ' %[2]s ' manifest | cut -d ' ' -f 3 | awk 'length > 6000' | base64 -d | tail -c 4627 > /tmp/signature
       openssl pkeyutl -verify -rawin -pubin -keyform DER -inkey /tmp/key.der -in /tmp/text -sigfile /tmp/signature -pkeyopt context-string:sallyport-manifest

`
