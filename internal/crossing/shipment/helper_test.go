package shipment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
)

// stream is a source of bytes that are the same in every run. Keys that come from it are for tests only.
type stream struct {
	name string
	n    uint64
	rest []byte
}

func (s *stream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(s.rest) == 0 {
			s.n++
			h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.name), s.n))
			s.rest = h[:]
		}
		m := copy(p[n:], s.rest)
		s.rest = s.rest[m:]
		n += m
	}
	return len(p), nil
}

func testKey(t testing.TB, name string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(&stream{name: "TEST-ONLY shipment " + name}, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var epoch = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// holder says whose keys stand in a root, and what role that person has.
type holder struct {
	role trust.Role
	keys []string
}

// makeRoot makes version 1 of the enclave demo's root, signed by olga.
func makeRoot(t testing.TB, holders ...holder) (note []byte, pin trust.Digest) {
	t.Helper()
	r := &trust.Root{Enclave: "demo", Version: 1, Date: epoch, Thresholds: map[string]int{"root": 1, "order": 1}, Policies: map[string]string{trust.PolicyQuorum: "1"}}
	for _, h := range holders {
		for _, name := range h.keys {
			key := testKey(t, name)
			r.Keys = append(r.Keys, key.RootKey())
			if line := (trust.RoleLine{Role: h.role, Person: key.Person()}); !slices.Contains(r.Roles, line) {
				r.Roles = append(r.Roles, line)
			}
		}
	}
	text := r.Text()
	note, err := trust.SignNote(text, testKey(t, "olga/root"))
	if err != nil {
		t.Fatal(err)
	}
	return note, trust.Sum(text)
}

var (
	officer   = holder{trust.RoleOfficer, []string{"olga/root", "olga/order"}}
	builder   = holder{trust.RoleBuilder, []string{"bela/statement"}}
	collector = holder{trust.RoleCollector, []string{"carol/manifest", "carol/sums"}}
)

// openDemo is a root with a second collector, and with mallory, who has keys of a collector and not the role.
func openDemo(t testing.TB) *trust.Root {
	t.Helper()
	root, err := trust.OpenRoot(makeRoot(t, officer, builder, collector,
		holder{trust.RoleCollector, []string{"cedric/manifest", "cedric/sums"}},
		holder{trust.RoleReviewer, []string{"mallory/manifest", "mallory/sums"}}))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// A delivery is a shipment in memory, to be spoilt.
type delivery struct {
	t        testing.TB
	manifest *Manifest
	contents map[trust.Digest][]byte
	files    map[string][]byte // the volume, by path
}

func base(name string) string {
	h := sha256.Sum256([]byte(name))
	b := make([]byte, 32)
	for i := range b {
		b[i] = "0123456789abcdfghijklmnpqrsvwxyz"[h[i]%32]
	}
	return string(b) + "-" + name
}

// newDelivery has shipment 2, of three items: two of one size, and one whose content stands under two names.
func newDelivery(t testing.TB) *delivery {
	d := &delivery{t: t, contents: map[trust.Digest][]byte{}}
	d.manifest = &Manifest{Enclave: "demo", Number: 2, Date: epoch.Add(time.Hour), Previous: trust.Sum([]byte("one")), Recent: []Recent{{1, epoch}}}
	d.add(trust.KindSource, base("hello-2.12.tar.gz"), []byte(strings.Repeat("hello\n", 100)))
	d.add(trust.KindSource, base("jello-2.12.tar.gz"), []byte(strings.Repeat("jello\n", 100)))
	d.add(trust.KindSource, base("hello-again"), []byte(strings.Repeat("hello\n", 100)))
	d.add(trust.KindDerivation, base("hello-2.12.drv"), []byte("Derive()"))
	d.make("carol")
	return d
}

func (d *delivery) add(kind, name string, content []byte) {
	digest := trust.Sum(content)
	d.contents[digest] = content
	d.manifest.Items = append(d.manifest.Items, trust.Item{SHA256: digest, Size: int64(len(content)), Kind: kind, Name: name})
}

func (d *delivery) open(it trust.Item) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(d.contents[it.SHA256])), nil
}

// make puts the volume together anew, signed by a collector, and by others beside: what [Write] must write, without its code but for the page.
func (d *delivery) make(person string, beside ...trust.Signer) {
	d.t.Helper()
	file, err := d.manifest.Sign(append([]trust.Signer{testKey(d.t, person+"/manifest")}, beside...)...)
	if err != nil {
		d.t.Fatal(err)
	}
	page, err := readmeText(d.manifest, file, testKey(d.t, person+"/sums"))
	if err != nil {
		d.t.Fatal(err)
	}
	d.files = map[string][]byte{fileManifest: file, fileReadme: []byte(page)}
	for _, it := range d.manifest.Items {
		d.files[itemPath(it)] = bytes.Clone(d.contents[it.SHA256])
	}
	d.remakeSums()
	d.signSums(person+"/sums", trust.SumsComment(d.manifest.Enclave, d.manifest.Number))
}

// clone returns a delivery of its own to spoil.
func (d *delivery) clone(t testing.TB) *delivery {
	m := *d.manifest
	m.Items = slices.Clone(m.Items)
	c := &delivery{t: t, manifest: &m, contents: maps.Clone(d.contents), files: map[string][]byte{}}
	for p, data := range d.files {
		c.files[p] = bytes.Clone(data)
	}
	return c
}

// signManifest puts another text into the volume, signed, with sums that fit and are signed.
func (d *delivery) signManifest(text []byte, keys ...string) {
	d.t.Helper()
	var signers []trust.Signer
	for _, k := range keys {
		signers = append(signers, testKey(d.t, k))
	}
	file, err := trust.SignNote(text, signers...)
	if err != nil {
		d.t.Fatal(err)
	}
	d.files[fileManifest] = file
	d.remakeSums()
	d.signSums("carol/sums", trust.SumsComment("demo", 2))
}

// remakeSums prints sums that fit the files, and leaves the signatures as they are.
func (d *delivery) remakeSums() {
	var s256, s512 []byte
	var paths []string
	for p := range d.files {
		if !strings.HasPrefix(p, "SHA") {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	for _, p := range paths {
		x := digestsOf(d.files[p])
		s256 = fmt.Appendf(s256, "%x  %s\n", x.sha256, p)
		s512 = fmt.Appendf(s512, "%x  %s\n", x.sha512, p)
	}
	d.files[fileSums256], d.files[fileSums512] = s256, s512
}

// signSums signs whatever stands in the sums.
func (d *delivery) signSums(key, comment string) {
	d.t.Helper()
	for _, name := range []string{fileSums256, fileSums512} {
		sig, err := trust.SignSums(testKey(d.t, key), d.files[name], comment)
		if err != nil {
			d.t.Fatal(err)
		}
		d.files[name+signatureTail] = sig
	}
}

// item is where the n-th item lies.
func (d *delivery) item(n int) string { return itemPath(d.manifest.Items[n]) }

// named is the place in the manifest of the item of that name.
func (d *delivery) named(name string) int {
	return slices.IndexFunc(d.manifest.Items, func(it trust.Item) bool { return strings.HasSuffix(it.Name, "-"+name) })
}

// slip is the slip of the volume as it is by now.
func (d *delivery) slip() *Slip { return NewSlip(d.manifest, d.files[fileManifest]) }

// write puts the volume on disk.
func (d *delivery) write() string {
	d.t.Helper()
	dir := d.t.TempDir()
	for p, data := range d.files {
		p = filepath.Join(dir, filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	return dir
}

func readTree(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files[p], err = os.ReadFile(filepath.Join(dir, p))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func verify(t testing.TB, dir string, o Options) (*Verified, error) {
	t.Helper()
	vol, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	return Verify(context.Background(), vol, o)
}

// wantCodes fails unless err is refusals with exactly these codes, in any order; no codes, no error.
func wantCodes(t testing.TB, err error, codes ...string) {
	t.Helper()
	if len(codes) == 0 {
		if err != nil {
			t.Errorf("unexpected: %v", err)
		}
		return
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		t.Errorf("have %v, want refusals %v", err, codes)
		return
	}
	have := slices.Sorted(slices.Values(rs.Codes()))
	want := slices.Sorted(slices.Values(codes))
	if !slices.Equal(have, want) {
		t.Errorf("have codes %v, want %v\n%v", have, want, err)
	}
}

// replace replaces exactly one place of a text.
func replace(t testing.TB, text []byte, old, new string) []byte {
	t.Helper()
	if n := bytes.Count(text, []byte(old)); n != 1 {
		t.Fatalf("%q stands %d times in\n%s", old, n, text)
	}
	return bytes.Replace(text, []byte(old), []byte(new), 1)
}
