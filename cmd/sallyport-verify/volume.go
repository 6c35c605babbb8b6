package main

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	maxVolumeFiles = maxItems + 8
	maxSums        = maxVolumeFiles * (2*sha512.Size + 2 + len("items/00/") + 2*sha256.Size + 1) // lines at their longest
	maxMinisig     = 4096
	maxSlip        = 4096
)

// minisig is a pre-hashed minisign signature: four lines, the second and the last of base64.
type minisig struct {
	keyid   [8]byte
	sig     []byte
	comment string // the trusted one
	global  []byte // over sig and comment
}

func parseMinisig(data []byte) (m minisig, err error) {
	text := string(data)
	l := strings.Split(text, "\n")
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && unicode.IsControl(r) }) || len(l) != 5 || l[4] != "" {
		return m, errors.New("is not four lines of text")
	}
	var ok, ok2, ok3 bool
	raw, ok := decode64(l[1])
	m.comment, ok2 = strings.CutPrefix(l[2], "trusted comment: ")
	m.global, ok3 = decode64(l[3])
	if !strings.HasPrefix(l[0], "untrusted comment: ") || !ok || !ok2 || !ok3 || len(raw) != 2+8+ed25519.SignatureSize || len(m.global) != ed25519.SignatureSize {
		return m, errors.New("is no minisign signature")
	}
	switch m.keyid, m.sig = [8]byte(raw[2:]), raw[10:]; string(raw[:2]) {
	case "ED":
		return m, nil
	case "Ed":
		return m, errors.New("is of minisign's legacy kind, not pre-hashed")
	}
	return m, fmt.Errorf("algorithm %q", raw[:2])
}

func (m *minisig) verify(k *key, data []byte) bool {
	h := newBlake2b()
	h.Write(data)
	digest := h.sum()
	return ed25519.Verify(k.public[:], digest[:], m.sig) && ed25519.Verify(k.public[:], append(slices.Clip(m.sig), m.comment...), m.global)
}

// slip is the paper that came by another way.
type slip struct {
	enclave, manifest    string
	number, items, bytes int64
}

func parseSlip(text string) (s slip, err error) {
	l := &lines{text: text}
	l.literal("sallyport slip v1")
	s.enclave = l.field("enclave", isName)
	s.number = l.numberField("shipment", 1, maxSize)
	s.manifest = l.field("manifest", isDigest)
	s.items = l.numberField("items", 1, maxItems)
	s.bytes = l.numberField("bytes", 0, maxSize)
	return s, l.end()
}

// volumeFile is a file that sums must cover, in the order of the paths.
type volumeFile struct {
	name string
	sums [2]string // its digests by SHA256SUMS and SHA512SUMS; empty if not covered
}

// volume is one volume while it is judged.
type volume struct {
	dir   *os.Root
	rep   *report
	root  *root
	files []volumeFile
}

var sumsFiles = [2]string{"SHA256SUMS", "SHA512SUMS"}

// verifyVolume is the command for a shipment's volume. Of the volume, nothing but the manifest is read before the slip agrees.
func verifyVolume(place string, o options, rep *report) error {
	roots, err := os.OpenRoot(o.roots)
	if err != nil {
		return err
	}
	defer roots.Close()
	chain, err := openChain(roots, ".", o.root, rep)
	if err != nil || len(chain) == 0 {
		return err
	}
	v := &volume{rep: rep, root: chain[len(chain)-1]}
	if v.dir, err = os.OpenRoot(place); err != nil {
		return err
	}
	defer v.dir.Close()
	data, err := readFile(v.dir, "manifest", maxListText+maxSigLines, "volume")
	if err != nil {
		return rep.judge(err)
	}
	rep.Manifest = digestOf(data)
	var paper slip
	if o.slip != "" {
		if paper, err = readSlip(o.slip); err == nil && paper.manifest != rep.Manifest {
			err = refuse("slip-mismatch", "manifest", "its digest is %s; the slip says %s", rep.Manifest, paper.manifest)
		}
		if err != nil {
			return rep.judge(err)
		}
	}
	m, collectors, err := v.manifest(data)
	if err = rep.judge(err); err != nil {
		return err
	}
	if m != nil && o.slip != "" && (paper.enclave != m.enclave || paper.number != m.number || paper.items != int64(len(m.starts)) || paper.bytes != m.bytes) {
		rep.refuse("slip-mismatch", "manifest", "is shipment %d to %s, %d items of %d bytes; the slip says %d, %s, %d, %d",
			m.number, m.enclave, len(m.starts), m.bytes, paper.number, paper.enclave, paper.items, paper.bytes)
	}
	if err := v.walk(); err != nil {
		return err
	}
	if err := v.sums(m, collectors); err != nil {
		return err
	}
	if m != nil {
		v.carried(m)
	}
	return v.hash(m)
}

func readSlip(name string) (s slip, err error) {
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return s, err
	}
	defer dir.Close()
	data, err := readFile(dir, filepath.Base(name), maxSlip, "slip")
	if err != nil {
		return s, err
	}
	if s, err = parseSlip(string(data)); err != nil {
		err = refuse("slip-form", "slip", "%v", err)
	}
	return s, err
}

// manifest judges the manifest as a document, and returns which collectors signed it.
func (v *volume) manifest(data []byte) (*manifest, map[string]bool, error) {
	text, err := splitNote(data)
	if err != nil {
		return nil, nil, refuse("manifest-form", "manifest", "%v", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, nil, formFault(err, "manifest", "manifest")
	}
	v.rep.Shipment, v.rep.Items, v.rep.Bytes = m.number, int64(len(m.starts)), m.bytes
	if m.enclave != v.root.enclave {
		v.rep.refuse("manifest-enclave", "manifest", "is for %s, the root of %s", m.enclave, v.root.enclave)
	}
	_, signers, err := openNote(data, v.root.signers("manifest"))
	collectors := persons(v.root, keysOf(signers))
	v.rep.Collectors = slices.Sorted(maps.Keys(collectors))
	if err != nil {
		v.rep.refuse("manifest-signature", "manifest", "%v", err)
	} else if len(collectors) == 0 {
		v.rep.refuse("manifest-signature", "manifest", "is not signed by a collector of root %d", v.root.version)
	}
	return m, collectors, nil
}

// walk lists the volume. Whatever is not a file that a volume has is refused here, and not looked at again.
func (v *volume) walk() error {
	have := map[string]bool{}
	list := func(dir string, each func(path, name string, isDir bool) (wanted, enter bool)) (deeper []string, err error) {
		found, err := listDir(v.dir, dir, maxVolumeFiles, "volume")
		if err != nil {
			return nil, v.rep.judge(err)
		}
		if len(found) == 0 {
			v.rep.refuse("volume-extra", strconv.Quote(dir), "an empty directory")
		}
		for _, f := range found {
			path := strings.TrimPrefix(dir+"/"+f.Name(), "./")
			if !f.IsDir() && !f.Type().IsRegular() {
				v.rep.refuse("volume-type", strconv.Quote(path), "is neither file nor directory: %s", f.Type())
				continue
			}
			wanted, enter := each(path, f.Name(), f.IsDir())
			if enter {
				deeper = append(deeper, path)
			} else if !wanted {
				v.rep.refuse("volume-extra", strconv.Quote(path), "does not belong to a volume")
			} else if have[path] = true; !strings.HasPrefix(path, "SHA") {
				v.files = append(v.files, volumeFile{name: path})
			}
			if len(v.files) > maxVolumeFiles {
				return nil, v.rep.judge(refuse("volume-size", ".", "more than %d files", maxVolumeFiles))
			}
		}
		return deeper, nil
	}
	must := []string{"README.txt", "SHA256SUMS", "SHA256SUMS.minisig", "SHA512SUMS", "SHA512SUMS.minisig", "manifest"}
	top, err := list(".", func(path, _ string, isDir bool) (bool, bool) {
		return !isDir && slices.Contains(must, path), isDir && path == "items"
	})
	for _, items := range top {
		var folders []string
		folders, err = list(items, func(_, name string, isDir bool) (bool, bool) { return false, isDir && isLowerHex(name, 2) })
		for _, folder := range folders {
			if err == nil {
				_, err = list(folder, func(_, name string, isDir bool) (bool, bool) {
					return !isDir && isDigest(name) && strings.HasSuffix(folder, "/"+name[:2]), false
				})
			}
		}
	}
	for _, name := range must {
		if !have[name] {
			v.rep.refuse("volume-missing", name, "is not there")
		}
	}
	slices.SortFunc(v.files, func(a, b volumeFile) int { return cmp.Compare(a.name, b.name) })
	return err
}

// sums reads both sums files: who signed them, and that they have a line for each file and for nothing else.
func (v *volume) sums(m *manifest, collectors map[string]bool) error {
	var by [2]*key
	for i, name := range sumsFiles {
		data, err := readFile(v.dir, name, int64(maxSums), "volume")
		if isMissing(err) {
			continue // said already
		} else if err != nil {
			if err = v.rep.judge(err); err != nil {
				return err
			}
			continue
		}
		by[i], err = v.signature(name, data, m, collectors)
		if err = v.rep.judge(err); err != nil {
			return err
		}
		v.cover(i, string(data))
	}
	if by[0] != nil && by[1] != nil && by[0].owner != by[1].owner {
		v.rep.refuse("volume-signature", "SHA512SUMS.minisig", "is by %s, that of SHA256SUMS by %s", by[1].owner, by[0].owner)
	}
	return nil
}

func (v *volume) signature(name string, data []byte, m *manifest, collectors map[string]bool) (*key, error) {
	name += ".minisig"
	raw, err := readFile(v.dir, name, maxMinisig, "volume")
	if isMissing(err) {
		return nil, nil // said already
	} else if err != nil {
		return nil, err
	}
	sig, err := parseMinisig(raw)
	if err != nil {
		return nil, refuse("volume-signature", name, "%v", err)
	}
	for _, k := range v.root.keys {
		if k.context != "sums" || k.minisign != sig.keyid || !v.root.roles["collector"][k.owner] {
			continue
		}
		if !sig.verify(k, data) {
			return nil, refuse("volume-signature", name, "the signature of %s does not verify", k.owner)
		}
		if m != nil && sig.comment != fmt.Sprintf("sallyport %s shipment %d", m.enclave, m.number) {
			return nil, refuse("volume-signature", name, "trusted comment %.200q is of another volume", sig.comment)
		}
		if len(collectors) > 0 && !collectors[k.owner] {
			return nil, refuse("volume-signature", name, "is by %s, who did not sign the manifest", k.owner)
		}
		return k, nil
	}
	return nil, refuse("volume-signature", name, "key %X is no sums key of a collector in root %d", sig.keyid, v.root.version)
}

// cover takes the digests out of a sums file. Both its lines and the files are sorted, so one pass pairs them.
func (v *volume) cover(which int, text string) {
	name, length := sumsFiles[which], [2]int{2 * sha256.Size, 2 * sha512.Size}[which]
	next, before := 0, ""
	uncovered := func(until string) {
		for ; next < len(v.files) && (until == "" || v.files[next].name < until); next++ {
			v.rep.refuse("volume-uncovered", v.files[next].name, "has no line in %s", name)
		}
	}
	for number := 1; text != ""; number++ {
		line, rest, ended := strings.Cut(text, "\n")
		text = rest
		digest, path, ok := strings.Cut(line, "  ")
		if !ended || !ok || !isLowerHex(digest, length) || path <= before {
			v.rep.refuse("volume-sum", name, "line %d is malformed, not sorted or twice: %.300q", number, line)
			return
		}
		before = path
		if uncovered(path); next < len(v.files) && v.files[next].name == path {
			v.files[next].sums[which] = digest
			next++
		} else {
			v.rep.refuse("volume-missing", strconv.Quote(path), "stands in %s and is not there", name)
		}
	}
	uncovered("")
}

// carried holds the files under items against the manifest.
func (v *volume) carried(m *manifest) {
	files := map[string]bool{}
	for _, f := range v.files {
		if digest, ok := strings.CutPrefix(f.name, "items/"); ok {
			files[digest[3:]] = true
			if !m.has(digest[3:]) {
				v.rep.refuse("volume-extra", f.name, "is no item of the manifest")
			}
		}
	}
	for i := range m.starts {
		if digest := m.sha256(i); !files[digest] && (i == 0 || m.sha256(i-1) != digest) {
			v.rep.refuse("volume-missing", "items/"+digest[:2]+"/"+digest, "item %s is not there", m.item(i).name)
		}
	}
}

// hash reads every file once, several at a time, and compares it with its sums, its name and its size.
func (v *volume) hash(m *manifest) error {
	found := make([]*fault, len(v.files))
	failed := make([]error, len(v.files))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			buffer := make([]byte, 1<<20)
			for i := range next {
				if err := v.hashFile(&v.files[i], m, buffer); !errors.As(err, &found[i]) {
					failed[i] = err
				}
			}
		})
	}
	for i := range v.files {
		next <- i
	}
	close(next)
	workers.Wait()
	for _, f := range found {
		if f != nil {
			v.rep.add(f)
		}
	}
	return errors.Join(failed...)
}

func (v *volume) hashFile(f *volumeFile, m *manifest, buffer []byte) error {
	file, _, err := openFile(v.dir, f.name, "volume")
	if err != nil {
		return err
	}
	defer file.Close()
	short, long := sha256.New(), sha512.New()
	size, err := io.CopyBuffer(io.MultiWriter(short, long), struct{ io.Reader }{file}, buffer)
	if err != nil {
		return err
	}
	var wrong []string
	digests := [2]string{hex.EncodeToString(short.Sum(nil)), hex.EncodeToString(long.Sum(nil))}
	for i, want := range f.sums {
		if want != "" && want != digests[i] {
			wrong = append(wrong, sumsFiles[i])
		}
	}
	if len(wrong) > 0 {
		return refuse("volume-sum", f.name, "differs from %s", strings.Join(wrong, " and "))
	}
	if !strings.HasPrefix(f.name, "items/") {
		return nil
	}
	name := f.name[len("items/00/"):]
	if digests[0] != name {
		return refuse("item-digest", f.name, "its content has SHA-256 %s", digests[0])
	}
	if m != nil {
		for i, _ := m.find(name); i < len(m.starts) && m.sha256(i) == name; i++ {
			if it := m.item(i); it.size != size {
				return refuse("item-size", f.name, "%d bytes, the manifest says %d", size, it.size)
			}
		}
	}
	return nil
}
