package shipment

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// chunk is how much of a file is in memory at a time.
const chunk = 1 << 20

// summed is a file of a volume with both digests, as they stand in the sums.
type summed struct {
	path   string
	sha256 [32]byte
	sha512 [64]byte
}

// sums prints both sums files, sorted by path, as coreutils' sha256sum and sha512sum would.
func sums(files []summed) (sums256, sums512 []byte) {
	slices.SortFunc(files, func(a, b summed) int { return strings.Compare(a.path, b.path) })
	for _, f := range files {
		sums256 = fmt.Appendf(sums256, "%s  %s\n", hex.EncodeToString(f.sha256[:]), f.path)
		sums512 = fmt.Appendf(sums512, "%s  %s\n", hex.EncodeToString(f.sha512[:]), f.path)
	}
	return sums256, sums512
}

// copyHashed copies r to w in chunks, hashing with SHA-256 and SHA-512 on the side, and returns the digests and the size.
// At most limit+1 bytes are read.
func copyHashed(ctx context.Context, w io.Writer, r io.Reader, limit int64) (summed, int64, error) {
	var s summed
	h256, h512 := sha256.New(), sha512.New()
	// Two buffers: while one is hashed and written, the next is read.
	read := make(chan []byte)
	free := make(chan []byte, 2)
	free <- make([]byte, chunk)
	free <- make([]byte, chunk)
	var readErr error
	stop := make(chan struct{})
	go func() {
		defer close(read)
		left := limit + 1
		for left > 0 {
			var buf []byte
			select {
			case buf = <-free:
			case <-stop:
				return
			}
			n, err := io.ReadFull(r, buf[:min(int64(len(buf)), left)])
			left -= int64(n)
			if n > 0 {
				select {
				case read <- buf[:n]:
				case <-stop:
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					readErr = err
				}
				return
			}
		}
	}()
	var n int64
	for buf := range read {
		if err := ctx.Err(); err != nil {
			close(stop)
			return s, n, err
		}
		done := make(chan struct{}, 2)
		for _, h := range []hash.Hash{h256, h512} {
			go func() { h.Write(buf); done <- struct{}{} }()
		}
		_, err := w.Write(buf)
		<-done
		<-done
		if err != nil {
			close(stop)
			return s, n, err
		}
		n += int64(len(buf))
		free <- buf[:cap(buf)]
	}
	h256.Sum(s.sha256[:0])
	h512.Sum(s.sha512[:0])
	return s, n, readErr
}

// Write makes a volume at dir, which must not be there yet, from a signed manifest file. open returns an item's content. The volume
// grows under a temporary name beside dir, is made durable, and gets its name last: a volume that has its name is whole. What an
// interrupted run left is removed by the next one. progress, if not nil, is told of bytes written.
func Write(ctx context.Context, dir string, m *Manifest, file []byte, open func(trust.Item) (io.ReadCloser, error), sumsKey *trust.Key, progress func(int64)) (err error) {
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s is there already; a volume is never overwritten", dir)
	}
	dir = filepath.Clean(dir)
	temp := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".partial")
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	if err := os.MkdirAll(temp, 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(temp))
		}
	}()
	root, err := os.OpenRoot(temp)
	if err != nil {
		return err
	}
	defer root.Close()
	var files []summed
	put := func(path string, r io.Reader, size int64) error {
		if d := filepath.Dir(path); d != "." {
			if err := root.MkdirAll(d, 0o755); err != nil {
				return err
			}
		}
		f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		var w io.Writer = f
		if progress != nil {
			w = io.MultiWriter(f, counter(progress))
		}
		s, n, err := copyHashed(ctx, w, r, size)
		if err == nil && n != size {
			err = fmt.Errorf("%s: %d bytes expected, %d came", path, size, n)
		}
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		s.path = path
		files = append(files, s)
		return nil
	}
	for _, it := range m.Items {
		r, err := open(it)
		if err != nil {
			return err
		}
		err = put(itemPath(it), r, it.Size)
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("item %s: %w", it.Name, err)
		}
		if trust.Digest(files[len(files)-1].sha256) != it.SHA256 {
			return fmt.Errorf("item %s: its content has changed in the store", it.Name)
		}
	}
	if err := put(fileManifest, strings.NewReader(string(file)), int64(len(file))); err != nil {
		return err
	}
	readme := readmeText(m, sumsKey)
	if err := put(fileReadme, strings.NewReader(readme), int64(len(readme))); err != nil {
		return err
	}
	sums256, sums512 := sums(files)
	comment := trust.SumsComment(m.Enclave, m.Number)
	for _, s := range []struct {
		name string
		data []byte
	}{{fileSums256, sums256}, {fileSums512, sums512}} {
		sig, err := trust.SignSums(sumsKey, s.data, comment)
		if err != nil {
			return err
		}
		if err := put(s.name, strings.NewReader(string(s.data)), int64(len(s.data))); err != nil {
			return err
		}
		if err := put(s.name+signatureTail, strings.NewReader(string(sig)), int64(len(sig))); err != nil {
			return err
		}
	}
	if err := syncTree(root); err != nil {
		return err
	}
	if err := os.Rename(temp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

type counter func(int64)

func (c counter) Write(p []byte) (int, error) { c(int64(len(p))); return len(p), nil }

// syncTree makes every directory of a new volume durable; its files already are.
func syncTree(root *os.Root) error {
	dirs := []string{"."}
	for i := 0; i < len(dirs); i++ {
		d, err := root.Open(dirs[i])
		if err != nil {
			return err
		}
		entries, err := d.ReadDir(-1)
		if err == nil {
			err = d.Sync()
		}
		if err = errors.Join(err, d.Close()); err != nil {
			return err
		}
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dirs[i], e.Name()))
			}
		}
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readmeText is the page on the disc that says how to check it without Sallyport.
func readmeText(m *Manifest, sumsKey *trust.Key) string {
	return fmt.Sprintf(`This is shipment %d for the enclave "%s": %d items, %d bytes.

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

4. The file "manifest" lists what is offered: a line an item, with its sha256, its size, what it is and its name. Each
   item lies under items/, named by its sha256.

The format is described in Sallyport's docs/spec/shipment.md.
`, m.Number, m.Enclave, len(m.Items), m.Bytes(), m.Number, sumsKey.Public(), trust.SumsComment(m.Enclave, m.Number))
}
