package shipment

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

var update = flag.Bool("update", false, "write vectors/shipment and the example of docs/spec/shipment.md anew")

const (
	vectors = "../../../vectors/shipment"
	spec    = "../../../docs/spec/shipment.md"

	exampleBegin = "<!-- the example is written by the tests of internal/crossing/shipment with -update -->\n"
	exampleEnd   = "<!-- end of the example -->\n"
)

// example is the shipment of vectors/shipment: what a build of one greeting needs, whole enough for a gate to let in.
func example(t *testing.T) *delivery {
	d := &delivery{t: t, contents: map[trust.Digest][]byte{}}
	d.manifest = &Manifest{Enclave: "demo", Number: 1, Date: epoch}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	file := func(name, content string, executable bool) storepath.Path {
		var b bytes.Buffer
		must(nar.WriteFile(&b, int64(len(content)), executable, strings.NewReader(content)))
		path, err := storepath.Source(name, trust.Sum(b.Bytes()))
		must(err)
		d.add(trust.KindSource, path.Base(), b.Bytes())
		return path
	}
	greeting := file("greeting.txt", "Hello from the outside.\n", false)
	file("greeting-again.txt", "Hello from the outside.\n", false)
	script := file("build.sh", "#!/bin/sh\nread -r line <\"$1\" && printf '%s\\n' \"$line\" >\"$out\"\n", true)
	drv := &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out"}},
		Sources: []string{greeting.String(), script.String()},
		System:  "x86_64-linux",
		Builder: script.String(),
		Args:    []string{greeting.String()},
		Env:     []derivation.Variable{{Name: "out"}},
	}
	slices.Sort(drv.Sources)
	must(derivation.NewHasher(nil).Fill("greeting", drv))
	path, err := drv.Path("greeting")
	must(err)
	d.add(trust.KindDerivation, path.Base(), drv.Bytes())
	d.make("carol")
	return d
}

// exampleFiles are the files of vectors/shipment, by path.
func exampleFiles(t *testing.T) map[string][]byte {
	d := example(t)
	note, pin := makeRoot(t, officer, builder, collector)
	files := map[string][]byte{"root/1": note, "slip.txt": d.slip().Text()}
	for p, data := range d.files {
		files["volume/"+p] = data
	}
	var keys strings.Builder
	for _, name := range []string{"olga/root", "carol/manifest", "carol/sums"} {
		key := testKey(t, name)
		file, err := key.Marshal(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		path := "keys/" + strings.ReplaceAll(name, "/", ".") + ".TEST-ONLY.sec"
		files[path] = file
		fmt.Fprintf(&keys, "    %-33s public: %s\n", path, key.Public())
	}
	files["README.md"] = fmt.Appendf(nil, `# shipment: a small volume, its root, its slip, its keys

Shipment 1 to the enclave `+"`demo`"+`, as docs/spec/shipment.md describes it, and small enough to read. Written by the tests of internal/crossing/shipment
(`+"`go test ./internal/crossing/shipment -update`"+`), which compare every byte on every run.

    root/1      the root that names the collector carol; its text has SHA-256
                %s
    slip.txt    what travels another way
    volume/     the volume

Its four items are three files, for two items have one content: a text, the same text under another name, a script, and the derivation that runs the script on the
text. Every NAME is the base name of the store path that follows from the file. True of it:

- `+"`sha256sum -c SHA256SUMS`, `sha512sum -c SHA512SUMS` and `minisign -VHm SHA256SUMS -P PUBLIC`"+` accept it, the last with carol's key for sums (below);
- SHA-256 of `+"`volume/manifest`"+` is the digest of the slip;
- `+"`sallyport-verify volume --root FINGERPRINT --roots root --slip slip.txt volume`"+`, which shares no code with the package that wrote it, accepts it;
- any bit turned in any file but the first line of a .minisig file makes a reader refuse it.

The secret keys are printed so that others can make more vectors. They are TEST-ONLY: no root but this one may name them.

%s`, pin, keys.String())
	return files
}

// Whoever follows the spec makes these very bytes.
func TestVectors(t *testing.T) {
	want := exampleFiles(t)
	if *update {
		if err := os.RemoveAll(vectors); err != nil {
			t.Fatal(err)
		}
		for p, data := range want {
			p = filepath.Join(vectors, p)
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	have := readTree(t, vectors)
	for p, data := range want {
		if !bytes.Equal(have[p], data) {
			t.Errorf("%s is not what is made now; run with -update and look at the difference", p)
		}
	}
	for p := range have {
		if want[p] == nil {
			t.Errorf("%s is left over", p)
		}
	}
	// What Write writes is what lies there.
	d := example(t)
	dir := filepath.Join(t.TempDir(), "volume")
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
		t.Fatal(err)
	}
	for p, data := range readTree(t, dir) {
		if !bytes.Equal(data, have["volume/"+p]) {
			t.Errorf("%s is written otherwise", p)
		}
	}
}

// The volume that lies there is accepted by its root and slip, and no bit of it may be turned but those that nobody signs.
func TestVectorsVerify(t *testing.T) {
	files := readTree(t, vectors)
	if len(files) < 10 {
		t.Fatalf("vectors/shipment has %d files", len(files))
	}
	text, _, err := trust.SplitNote("root", files["root/1"], trust.MaxRootSize)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(files["README.md"], []byte(trust.Sum(text).String())) {
		t.Error("README.md has another digest of the root")
	}
	root, err := trust.OpenRoot(files["root/1"], trust.Sum(text))
	if err != nil {
		t.Fatal(err)
	}
	slip, err := ParseSlip(files["slip.txt"])
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "volume")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(vectors, "volume"))); err != nil {
		t.Fatal(err)
	}
	v, err := verify(t, dir, Options{Root: root, Slip: slip})
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range v.Manifest.Items {
		if it.Kind == trust.KindDerivation {
			path, err := storepath.ParseBase(it.Name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := derivation.NewHasher(nil).Verify(path, files["volume/"+itemPath(it)]); err != nil {
				t.Error(err)
			}
		}
	}
	for p, data := range readTree(t, dir) {
		unsigned := 0
		if strings.HasSuffix(p, signatureTail) {
			unsigned = bytes.IndexByte(data, '\n') // the untrusted comment
		}
		step := max(1, len(data)/24)
		for at := unsigned; at < len(data); at += step {
			turned := bytes.Clone(data)
			turned[at] ^= 1 << (at % 8)
			if err := os.WriteFile(filepath.Join(dir, p), turned, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := verify(t, dir, Options{Root: root, Slip: slip}); err == nil {
				t.Errorf("accepted with a bit of byte %d of %s turned", at, p)
			} else if _, ok := trust.AsRefusals(err); !ok {
				t.Errorf("byte %d of %s: %v is no refusal", at, p, err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, p), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// The example in the spec is that of the vectors.
func TestSpecExample(t *testing.T) {
	files := exampleFiles(t)
	var b strings.Builder
	show := func(title, path string) {
		fmt.Fprintf(&b, "\n%s\n\n", title)
		for line := range strings.Lines(string(files[path])) {
			if line != "\n" {
				line = "    " + line
			}
			b.WriteString(line)
		}
	}
	show("`slip.txt`:", "slip.txt")
	show("`volume/manifest`, whose SHA-256 is the slip's digest:", "volume/manifest")
	show("`volume/SHA256SUMS`:", "volume/SHA256SUMS")
	show("`volume/SHA256SUMS.minisig`:", "volume/SHA256SUMS.minisig")
	b.WriteString("\n")
	page, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), exampleBegin)
	have, after, ok2 := strings.Cut(rest, exampleEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks of the example", spec)
	}
	if have == b.String() {
		return
	}
	if !*update {
		t.Fatal("the example in the spec is not what is made now; run with -update")
	}
	if err := os.WriteFile(spec, []byte(before+exampleBegin+b.String()+exampleEnd+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The reasons that the code gives are those that the spec has.
func TestSpecCodes(t *testing.T) {
	page, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	// What all texts have in common stands in another page, as the second half of a code.
	common, err := os.ReadFile(filepath.Join(filepath.Dir(spec), "trust.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"manifest.go", "read.go", "slip.go", "verify.go"} {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		for _, call := range []string{`trust.Refuse("`, `j.refuse("`, `s.Refuse("`, `sc.Refuse("`} {
			for _, rest := range strings.Split(string(source), call)[1:] {
				code, _, _ := strings.Cut(rest, `"`)
				switch call {
				case `s.Refuse("`:
					code = "manifest-" + code
				case `sc.Refuse("`:
					code = "slip-" + code
				}
				calls++
				_, half, _ := strings.Cut(code, "-")
				if !bytes.Contains(page, []byte("`"+code+"`")) && !bytes.Contains(common, []byte("`-"+half+"`")) {
					t.Errorf("%s refuses with %s, which the spec does not have", name, code)
				}
			}
		}
		if calls == 0 {
			t.Errorf("%s refuses nothing", name)
		}
	}
}
