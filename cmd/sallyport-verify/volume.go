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
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

const (
	maxVolumeFiles = 1_000_263 // and directories
	maxReadme      = 64 << 10
	maxMinisig     = 4096
	maxSlip        = 1024
)

// minisig is a pre-hashed minisign signature: four lines, the second and the last of base64.
type minisig struct {
	number  [8]byte
	sig     []byte
	comment string // the trusted one
	global  []byte // over sig and comment
}

func parseMinisig(text string) (m minisig, err error) {
	l := strings.Split(text, "\n")
	if len(l) != 5 || l[4] != "" || !isMadeOf(printable, strings.Join(l, "")) {
		return m, errors.New("is not four lines of ASCII")
	}
	raw, ok := decode64(l[1])
	comment, ok2 := strings.CutPrefix(l[2], "trusted comment: ")
	global, ok3 := decode64(l[3])
	if !strings.HasPrefix(l[0], "untrusted comment: ") || !ok || !ok2 || !ok3 || len(raw) != 2+8+ed25519.SignatureSize || len(global) != ed25519.SignatureSize || string(raw[:2]) != "ED" {
		return m, errors.New("is no pre-hashed minisign signature")
	}
	return minisig{[8]byte(raw[2:]), raw[10:], comment, global}, nil
}

func (m *minisig) verify(k *key, data []byte) bool {
	h := newBlake2b()
	h.Write(data)
	digest := h.sum()
	return k.verify(digest[:], m.sig) && k.verify(append(slices.Clip(m.sig), m.comment...), m.global)
}

// slip is the paper that came by another way.
type slip struct {
	enclave, manifest    string
	number, items, bytes int64
}

func parseSlip(text string) (s slip, err error) {
	l := read("slip", "slip", text, maxSlip)
	if line := l.next(); line != "sallyport slip v1" {
		l.fail("%.200q is no first line of a slip", line)
	}
	s.enclave, s.number, s.manifest = l.field("enclave, name"), number(l.field("shipment, number")), l.field("manifest, sha256")
	if s.number > maxShipment {
		l.bad("number", "%d is above %d", s.number, int64(maxShipment))
	}
	s.items, s.bytes = number(l.field("items, number")), number(l.field("bytes, count"))
	return s, l.end()
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
	return parseSlip(string(data))
}

// volumeFile is a file that a volume must have and sums must cover.
type volumeFile struct {
	sums   [2]string // its digests by SHA256SUMS and SHA512SUMS; empty if not covered
	sha256 string    // of an item, by the manifest
	size   int64     // of an item
}

// volume is one volume while it is judged.
type volume struct {
	dir       *os.Root
	rep       *report
	root      *root
	manifest  *manifest
	by        map[string]bool        // collectors who signed the manifest
	elsewhere bool                   // ML-DSA-87 signatures are checked
	files     map[string]*volumeFile // by path
	dirs      map[string]bool
	seen      int
}

var sumsFiles = [2]string{"SHA256SUMS", "SHA512SUMS"}

// verifyVolume is the command for a shipment's volume. Of the volume, nothing but the manifest is read before the slip agrees.
func verifyVolume(place string, o options, rep *report) error {
	roots, err := os.OpenRoot(o.roots)
	if err != nil {
		return err
	}
	defer roots.Close()
	chain, err := openChain(roots, ".", o.pin, rep)
	if err != nil || len(chain) == 0 {
		return err
	}
	v := &volume{rep: rep, elsewhere: o.mldsaChecked, root: chain[len(chain)-1], files: map[string]*volumeFile{"README.txt": {}, "manifest": {}}, dirs: map[string]bool{"items": true}}
	if v.dir, err = os.OpenRoot(place); err != nil {
		return err
	}
	defer v.dir.Close()
	if err := v.open(o.slip); err != nil {
		return rep.judge(err)
	}
	for _, it := range v.manifest.list {
		dir := "items/" + it.sha256[:2]
		v.dirs[dir] = true
		v.files[dir+"/"+it.sha256] = &volumeFile{sha256: it.sha256, size: it.size}
	}
	if err := v.walk("."); err != nil {
		return rep.judge(err)
	}
	var by [2]*key
	for i, name := range sumsFiles {
		if by[i], err = v.sums(i, name); err != nil {
			return err
		}
	}
	if by[0] != nil && by[1] != nil && by[0].owner != by[1].owner {
		rep.refuse("volume-signature", "SHA512SUMS.minisig", "is by %s, that of SHA256SUMS by %s", by[1].owner, by[0].owner)
	}
	return v.hash()
}

// open reads slip and manifest. Whatever is wrong here ends the judgement.
func (v *volume) open(slipFile string) error {
	data, err := readFile(v.dir, "manifest", maxListText, "volume")
	if err != nil {
		return err
	}
	digest := digestOf(data)
	var paper slip
	if slipFile != "" {
		if paper, err = readSlip(slipFile); err != nil {
			return err
		} else if paper.manifest != digest {
			return refuse("slip-mismatch", "manifest", "its digest is %s; the slip says %s", digest, paper.manifest)
		}
	}
	n, err := parseNote(data, "manifest", "manifest")
	if err != nil {
		return err
	}
	m, err := parseManifest(n.text, "manifest")
	if err != nil {
		return err
	}
	by, beside, wrong := n.by(v.root.signers("manifest", m.date))
	v.by, v.manifest = map[string]bool{}, m
	for _, s := range by {
		v.by[s.key.owner] = true
		v.rep.fact("collector", s.key.owner)
	}
	if len(by) == 0 && len(wrong) == 0 {
		wrong.add("manifest-unsigned", "manifest", "is signed by no collector of root %d", v.root.version)
	}
	wrong.unless(m.enclave == v.root.enclave, &m.header, "enclave", "is for %s, the root of %s", m.enclave, v.root.enclave)
	v.mldsa(beside, &wrong)
	v.rep.fact("shipment", m.version)
	v.rep.fact("items", len(m.list))
	v.rep.fact("bytes", m.bytes)
	v.rep.fact("manifest sha256", digest)
	if slipFile != "" && paper != (slip{m.enclave, digest, m.version, int64(len(m.list)), m.bytes}) {
		wrong.add("slip-mismatch", "manifest", "is shipment %d to %s, %d items of %d bytes; the slip says another", m.version, m.enclave, len(m.list), m.bytes)
	}
	return wrong.err()
}

// mldsa tells of signatures that this program cannot check, and refuses the manifest where the root demands them, unless the person who
// runs it has said that something else checks them.
func (v *volume) mldsa(beside []signature, wrong *faults) {
	need, have := v.root.policies["mldsa"], v.root.seats("collector", keysOf(beside))
	for _, s := range beside {
		v.rep.notChecked("manifest", "the ML-DSA-87 signature of %s, which `sallyport shipment verify` checks", s.key.owner)
	}
	if int64(len(have)) < need {
		wrong.add("manifest-mldsa", "manifest", "ML-DSA-87 signatures of %d of %d collectors", len(have), need)
	} else if need > 0 && !v.elsewhere {
		wrong.add("manifest-mldsa", "manifest", "the root demands ML-DSA-87 signatures of %d collectors; they are there, and this program cannot check them: --mldsa-checked says that `sallyport shipment verify` has", need)
	}
}

// walk lists a directory of the volume, and those in it that belong there.
func (v *volume) walk(dir string) error {
	found, err := listDir(v.dir, dir, maxVolumeFiles, "volume")
	if err != nil {
		return err
	}
	if v.seen += len(found); v.seen > maxVolumeFiles {
		return refuse("volume-files", ".", "more than %d files and directories", maxVolumeFiles)
	}
	for _, f := range found {
		name := path.Join(dir, f.Name())
		file := v.files[name]
		isSums := slices.Contains(sumsFiles[:], strings.TrimSuffix(name, ".minisig"))
		switch {
		case !f.IsDir() && !f.Type().IsRegular(), f.IsDir() != v.dirs[name] && (v.dirs[name] || isSums || file != nil):
			v.rep.refuse("volume-type", quote(name), "is another type of file: %s", f.Type())
		case v.dirs[name]:
			if err := v.walk(name); err != nil {
				return err
			}
		case file == nil && !isSums:
			v.rep.refuse("volume-extra", quote(name), "does not belong to this volume")
		}
	}
	return nil
}

// sums reads a sums file and its signature, and returns whose it is.
func (v *volume) sums(which int, name string) (*key, error) {
	length := [2]int{sha256.Size, sha512.Size}[which]
	data, err := readFile(v.dir, name, int64(len(v.files)*(2*length+len("  items/00/\n")+2*sha256.Size)+maxReadme), "volume")
	if err != nil {
		return nil, v.rep.judge(err)
	}
	before, readable := "", true
	for line := range strings.Lines(string(data)) {
		digest, path, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if readable = strings.HasSuffix(line, "\n") && path != "" && isHex(digest, 2*length); !readable {
			v.rep.refuse("volume-sum", name, "%.400q is no digest and path; the rest was not read", line)
			break
		}
		file := v.files[path]
		if file == nil || path <= before {
			v.rep.refuse("volume-sum", name, "%.300q is not sorted, or no file of this volume", path)
		}
		if file != nil {
			file.sums[which], before = digest, path
		}
	}
	for _, path := range slices.Sorted(maps.Keys(v.files)) {
		if readable && v.files[path].sums[which] == "" {
			v.rep.refuse("volume-uncovered", path, "has no line in %s", name)
		}
	}
	name += ".minisig"
	raw, err := readFile(v.dir, name, maxMinisig, "volume")
	if err != nil {
		return nil, v.rep.judge(err)
	}
	sig, err := parseMinisig(string(raw))
	if err != nil {
		return nil, v.rep.judge(refuse("volume-signature", name, "%v", err))
	}
	for _, k := range v.root.signers("sums", v.manifest.date) {
		switch {
		case k.number != sig.number:
			continue
		case !sig.verify(k, data):
			err = refuse("volume-signature", name, "the signature of %s does not verify", k.owner)
		case sig.comment != fmt.Sprintf("sallyport %s shipment %d", v.manifest.enclave, v.manifest.version):
			err = refuse("volume-signature", name, "trusted comment %.200q is of another volume", sig.comment)
		case !v.by[k.owner]:
			err = refuse("volume-signature", name, "is by %s, who did not sign the manifest", k.owner)
		default:
			return k, nil
		}
	}
	return nil, v.rep.judge(cmp.Or(err, refuse("volume-signature", name, "key %X is no sums key of a collector in root %d", sig.number, v.root.version)))
}

// hash reads every file once, several at a time, and compares it with its sums, its name and its size.
func (v *volume) hash() error {
	paths := slices.Sorted(maps.Keys(v.files))
	found := make([]error, len(paths))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			buffer := make([]byte, 1<<20)
			for i := range next {
				found[i] = v.hashFile(paths[i], buffer)
			}
		})
	}
	for i := range paths {
		next <- i
	}
	close(next)
	workers.Wait()
	for i := range found {
		found[i] = v.rep.judge(found[i])
	}
	return errors.Join(found...)
}

func (v *volume) hashFile(name string, buffer []byte) error {
	f := v.files[name]
	limit := int64(maxNumber)
	if name == "README.txt" {
		limit = maxReadme
	}
	file, err := openFile(v.dir, name, limit, "volume")
	if err != nil {
		if coded(err, "-type") {
			return nil // said already
		}
		return err
	}
	defer file.Close()
	short, long := sha256.New(), sha512.New()
	size, err := io.CopyBuffer(io.MultiWriter(short, long), struct{ io.Reader }{file}, buffer)
	if err != nil {
		return err
	}
	digests := [2]string{hex.EncodeToString(short.Sum(nil)), hex.EncodeToString(long.Sum(nil))}
	if f.sha256 != "" && size != f.size {
		return refuse("item-size", name, "%d bytes, the manifest says %d", size, f.size)
	}
	if f.sha256 != "" && digests[0] != f.sha256 {
		return refuse("item-digest", name, "its content has SHA-256 %s", digests[0])
	}
	for i, want := range f.sums {
		if want != "" && want != digests[i] {
			return refuse("volume-sum", name, "differs from %s", sumsFiles[i])
		}
	}
	return nil
}
