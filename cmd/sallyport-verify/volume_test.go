package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestVolume(t *testing.T) {
	const right = "sallyport keep shipment 1"
	patch := "items/e3/" + hexSum(nil)
	source := "items/" + hexSum([]byte("the source"))[:2] + "/" + hexSum([]byte("the source"))
	remake := func(change func(text string) string, by ...string) func(map[string][]byte) {
		return func(f map[string][]byte) {
			f["manifest"] = noteOf(change(manifestText(itemLines(contents()))), keysNamed(by...)...)
			signVolume(f, "carl/sums", right)
		}
	}
	replace := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				panic("no " + old)
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	same := func(s string) string { return s }
	without := func(name, line string) func(map[string][]byte) { // drops the line of a file from a sums file, and signs it again
		return func(f map[string][]byte) {
			var kept []string
			for _, l := range strings.SplitAfter(string(f[name]), "\n") {
				if !strings.HasSuffix(l, "  "+line+"\n") {
					kept = append(kept, l)
				}
			}
			f[name] = []byte(strings.Join(kept, ""))
			resign(f, "carl/sums", right)
		}
	}
	w := newWorld()
	roots := writeFiles(t, t.TempDir(), map[string][]byte{"1": noteOf(w.roots[0], keysNamed(w.rootSigs[0]...)...)})
	for _, c := range []struct {
		name, codes string
		change      func(f map[string][]byte)
		slip        func(string) string
		dir         func(dir string) error
	}{
		{name: "good"},
		{name: "good with a slip", slip: same},
		{name: "slip of another manifest", codes: "slip-mismatch", slip: func(s string) string { return slipFor(hexSum(nil)) }},
		{name: "slip of another count", codes: "slip-mismatch", slip: replace("items 3", "items 4")},
		{name: "slip with another spelling", codes: "slip-syntax", slip: replace("items 3", "items 03")},
		{name: "slip with more", codes: "slip-syntax", slip: func(s string) string { return s + "note hello\n" }},
		{name: "slip disagrees, so the rest is not read", codes: "slip-mismatch", slip: func(string) string { return slipFor(hexSum(nil)) }, change: func(f map[string][]byte) { delete(f, "README.txt") }},
		{name: "item byte flipped", codes: "item-digest", change: func(f map[string][]byte) { f[source][2] ^= 1 }},
		{name: "README byte flipped", codes: "volume-sum", change: func(f map[string][]byte) { f["README.txt"][2] ^= 1 }},
		{name: "item changed and sums made again", codes: "item-digest", change: func(f map[string][]byte) {
			f[source] = []byte("the s0urce")
			signVolume(f, "carl/sums", right)
		}},
		{name: "item of another size than the manifest says", codes: "item-size", change: remake(replace(" 10 source", " 11 source"), "carl/manifest")},
		{name: "extra file", codes: "volume-extra", change: func(f map[string][]byte) { f["autorun.inf"] = nil }},
		{name: "extra file among items", codes: "volume-extra", change: func(f map[string][]byte) { f[patch+".txt"] = nil }},
		{name: "item no manifest names", codes: "volume-extra volume-sum", change: func(f map[string][]byte) {
			f["items/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"] = []byte("abc")
			signVolume(f, "carl/sums", right)
		}},
		{name: "item in the wrong folder", codes: "volume-extra volume-missing", change: func(f map[string][]byte) {
			f["items/00/"+hexSum(nil)] = f[patch]
			delete(f, patch)
		}},
		{name: "item missing", codes: "volume-missing", change: func(f map[string][]byte) { delete(f, patch) }},
		{name: "README missing", codes: "volume-missing", change: func(f map[string][]byte) { delete(f, "README.txt") }},
		{name: "sums missing", codes: "volume-missing", change: func(f map[string][]byte) { delete(f, "SHA512SUMS") }},
		{name: "signature missing", codes: "volume-missing", change: func(f map[string][]byte) { delete(f, "SHA256SUMS.minisig") }},
		{name: "manifest missing", codes: "volume-missing", change: func(f map[string][]byte) { delete(f, "manifest") }},
		{name: "sums do not cover the manifest", codes: "volume-uncovered", change: without("SHA256SUMS", "manifest")},
		{name: "sums do not cover an item", codes: "volume-uncovered", change: without("SHA512SUMS", patch)},
		{name: "sums not sorted", codes: "volume-sum", change: func(f map[string][]byte) {
			l := strings.SplitAfter(string(f["SHA256SUMS"]), "\n")
			f["SHA256SUMS"] = []byte(l[1] + l[0] + strings.Join(l[2:], ""))
			resign(f, "carl/sums", right)
		}},
		{name: "sums in binary mode", codes: "volume-sum", change: func(f map[string][]byte) {
			f["SHA256SUMS"] = bytes.Replace(f["SHA256SUMS"], []byte("  "), []byte(" *"), 1)
			resign(f, "carl/sums", right)
		}},
		{name: "sums changed after signing", codes: "volume-signature volume-sum", change: func(f map[string][]byte) { f["SHA256SUMS"][0] ^= 1 }},
		{name: "signature of another shipment", codes: "volume-signature", change: func(f map[string][]byte) { resign(f, "carl/sums", "sallyport keep shipment 2") }},
		{name: "trusted comment changed", codes: "volume-signature", change: func(f map[string][]byte) {
			f["SHA256SUMS.minisig"] = bytes.Replace(f["SHA256SUMS.minisig"], []byte("shipment 1"), []byte("shipment 2"), 1)
		}},
		{name: "signature of nobody known", codes: "volume-signature", change: func(f map[string][]byte) { resign(f, "mallory/sums", right) }},
		{name: "signature of another collector", codes: "volume-signature", change: func(f map[string][]byte) { resign(f, "cora/sums", right) }},
		{name: "legacy minisign", codes: "volume-signature", change: func(f map[string][]byte) {
			l := strings.SplitAfter(string(f["SHA256SUMS.minisig"]), "\n")
			raw, _ := decode64(strings.TrimSpace(l[1]))
			raw[1] = 'd'
			f["SHA256SUMS.minisig"] = []byte(l[0] + b64(raw) + "\n" + l[2] + l[3])
		}},
		{name: "minisign file with more lines", codes: "volume-signature", change: func(f map[string][]byte) { f["SHA256SUMS.minisig"] = append(f["SHA256SUMS.minisig"], '\n') }},
		{name: "manifest of nobody known", codes: "manifest-unsigned", change: remake(same, "mallory/manifest")},
		{name: "manifest by a key of another context", codes: "manifest-unsigned", change: remake(same, "carl/sums")},
		{name: "manifest by two collectors", change: remake(same, "cora/manifest", "carl/manifest")},
		{name: "manifest signature damaged", codes: "manifest-signature", change: func(f map[string][]byte) {
			b := f["manifest"]
			if i := len(b) - 30; b[i] == 'A' {
				b[i] = 'B'
			} else {
				b[i] = 'A'
			}
			signVolume(f, "carl/sums", right)
		}},
		{name: "manifest for another enclave", codes: "manifest-enclave", change: remake(replace("enclave keep", "enclave moat"), "carl/manifest")},
		{name: "manifest without items", codes: "manifest-empty", change: remake(func(s string) string { return s[:strings.Index(s, "item ")] }, "carl/manifest")},
		{name: "manifest with an unknown kind", codes: "manifest-kind", change: remake(replace(" derivation ", " program "), "carl/manifest")},
		{name: "manifest with a name twice", codes: "manifest-duplicate-name", change: remake(replace("1123456789abcdfghijklmnpqrsvwxyz-patch", "0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.tar.gz"), "carl/manifest")},
		{name: "manifest with a name that climbs", codes: "manifest-name", change: remake(replace("-patch", "-../patch"), "carl/manifest")},
		{name: "manifest with recent numbers out of order", codes: "manifest-recent", change: remake(replace("item ", "recent 5 2026-01-01T00:00:00Z\nitem "), "carl/manifest")},
		{name: "manifest of another format", codes: "manifest-format", change: remake(replace("manifest v1", "manifest v2"), "carl/manifest")},
		{name: "manifest with a control character", codes: "manifest-syntax", change: remake(replace("-patch", "-pat\tch"), "carl/manifest")},
		{name: "empty directory", codes: "volume-extra", dir: func(dir string) error { return os.Mkdir(filepath.Join(dir, "items/00"), 0o755) }},
		{name: "directory too many", codes: "volume-extra", dir: func(dir string) error { return os.Mkdir(filepath.Join(dir, "lost+found"), 0o755) }},
		{name: "link", codes: "volume-type", dir: func(dir string) error {
			must(t, os.Remove(filepath.Join(dir, "README.txt")))
			return os.Symlink("manifest", filepath.Join(dir, "README.txt"))
		}},
		{name: "manifest is a link", codes: "volume-type", dir: func(dir string) error {
			must(t, os.Rename(filepath.Join(dir, "manifest"), filepath.Join(dir, "m")))
			return os.Symlink("m", filepath.Join(dir, "manifest"))
		}},
		{name: "items is a file", codes: "volume-missing volume-type", dir: func(dir string) error {
			must(t, os.RemoveAll(filepath.Join(dir, "items")))
			return os.WriteFile(filepath.Join(dir, "items"), nil, 0o644)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := volumeFiles()
			if c.change != nil {
				c.change(files)
			}
			dir := writeFiles(t, t.TempDir(), files)
			if c.dir != nil {
				must(t, c.dir(dir))
			}
			args := []string{"volume", "--root", w.pin(), "--roots", roots, dir}
			if c.slip != nil {
				slip := filepath.Join(t.TempDir(), "slip")
				must(t, os.WriteFile(slip, []byte(c.slip(slipText(files))), 0o644))
				args = append(args, "--slip", slip)
			}
			rep := expect(t, c.codes, args...)
			if c.codes == "" && (rep.get("shipment") != "1" || rep.get("items") != "3" || rep.get("bytes") != "24" || rep.get("manifest sha256") != hexSum(files["manifest"])) {
				t.Errorf("report %+v", rep)
			}
		})
	}
}

// What the standard library cannot check is not passed in silence.
func TestMLDSA(t *testing.T) {
	public := bytes.Repeat([]byte{0x5a}, mldsaKey)
	k := &tkey{name: "carl/manifest", raw: append([]byte("\xffsallyport-mldsa87"), public...), made: make([]byte, mldsaSig)}
	w := newWorld()
	w.reroot("", "key manifest carl "+k.vkey())
	optional := writeFiles(t, t.TempDir(), map[string][]byte{"1": noteOf(w.roots[0], keysNamed(w.rootSigs[0]...)...)})
	optionalPin := w.pin()
	w.reroot("", "policy mldsa 1")
	demanded := writeFiles(t, t.TempDir(), map[string][]byte{"1": noteOf(w.roots[0], keysNamed(w.rootSigs[0]...)...)})
	sign := func(keys ...*tkey) string {
		files := volumeFiles()
		files["manifest"] = noteOf(manifestText(itemLines(contents())), keys...)
		signVolume(files, "carl/sums", "sallyport keep shipment 1")
		return writeFiles(t, t.TempDir(), files)
	}
	carl, short := newKey("carl/manifest"), *k
	short.made = short.made[1:]
	for _, c := range []struct {
		name, codes, place string
		unchecked          int
		args               []string
	}{
		{"asked for by nobody, not there", "", sign(carl), 0, []string{"--root", optionalPin, "--roots", optional}},
		{"asked for by nobody", "", sign(carl, k), 1, []string{"--root", optionalPin, "--roots", optional}},
		{"instead of another", "manifest-unsigned", sign(k), 1, []string{"--root", optionalPin, "--roots", optional}},
		{"short", "manifest-signature", sign(carl, &short), 0, []string{"--root", optionalPin, "--roots", optional}},
		{"demanded, not there", "manifest-mldsa", sign(carl), 0, []string{"--root", w.pin(), "--roots", demanded, "--mldsa-checked"}},
		{"demanded", "manifest-mldsa", sign(carl, k), 1, []string{"--root", w.pin(), "--roots", demanded}},
		{"demanded, and checked elsewhere", "", sign(carl, k), 1, []string{"--root", w.pin(), "--roots", demanded, "--mldsa-checked"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if rep := expect(t, c.codes, append([]string{"volume", c.place}, c.args...)...); len(rep.NotChecked) != c.unchecked {
				t.Errorf("not checked: %+v", rep.NotChecked)
			}
		})
	}
}

func slipFor(manifest string) string {
	return "sallyport slip v1\nenclave keep\nshipment 1\nmanifest " + manifest + "\nitems 3\nbytes 24\n"
}

// RFC 7693 appendix A, and digests of the bytes i%251 made by another implementation at the edges of blocks.
func TestBlake2b(t *testing.T) {
	sum := func(data []byte, step int) string {
		b := newBlake2b()
		for len(data) > 0 {
			n := min(step, len(data))
			b.Write(data[:n])
			data = data[n:]
		}
		d := b.sum()
		return hex.EncodeToString(d[:])
	}
	if got := sum([]byte("abc"), 3); got != "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923" {
		t.Errorf("abc: %s", got)
	}
	for n, want := range map[int]string{
		0:      "786a02f742015903c6c6fd852552d272912f4740e15847618a86e217f71f5419d25e1031afee585313896444934eb04b903a685b1448b755d56f701afe9be2ce",
		1:      "2fa3f686df876995167e7c2e5d74c4c7b6e48f8068fe0e44208344d480f7904c36963e44115fe3eb2a3ac8694c28bcb4f5a0f3276f2e79487d8219057a506e4b",
		127:    "b6292669ccd38d5f01caae96ba272c76a879a45743afa0725d83b9ebb26665b731f1848c52f11972b6644f554c064fa90780dbbbf3a89d4fc31f67df3e5857ef",
		128:    "2319e3789c47e2daa5fe807f61bec2a1a6537fa03f19ff32e87eecbfd64b7e0e8ccff439ac333b040f19b0c4ddd11a61e24ac1fe0f10a039806c5dcc0da3d115",
		129:    "f59711d44a031d5f97a9413c065d1e614c417ede998590325f49bad2fd444d3e4418be19aec4e11449ac1a57207898bc57d76a1bcf3566292c20c683a5c4648f",
		256:    "93463ac058b6163eb43be3f5bb32b28541498f4e3366f1effe253ad44e1e076e41c3616046027c82a7124f8f4746668ad10b12e8e25a95ac8f3151df01cd5a93",
		257:    "9ca40e2ddee9436dbbd08efc65dbaf4870059f5eb3d76efd20241ae5bf13c60f250b882ea5c564838257a3fc95c496819ace2c6490b55b268535208dfc31822c",
		100000: "a0b4e1c912a57364ed019d57296b9f14fd4ac7a36dc5b324706ba2b1497cf7b58b813ef6d86efab3a9461768ea9a552ab97554f8c4b010ed26d04ae6158bcedf",
	} {
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(i % 251)
		}
		for _, step := range []int{1, 127, 128, 129, 100000} {
			if got := sum(data, step); got != want {
				t.Errorf("%d bytes by %d: %s", n, step, got)
			}
		}
	}
}

// The minisign program and the verifier agree on signatures.
func TestMinisignProgram(t *testing.T) {
	minisign, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("SKIPPED: not compared with the minisign program: it is not in PATH; install minisign")
	}
	dir := writeFiles(t, t.TempDir(), map[string][]byte{"SHA256SUMS": []byte("some sums\n")})
	program := func(args ...string) {
		t.Helper()
		cmd := exec.Command(minisign, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("minisign %q: %v: %s", args, err, out)
		}
	}
	program("-G", "-W", "-f", "-p", "key.pub", "-s", "key.sec")
	program("-S", "-s", "key.sec", "-m", "SHA256SUMS", "-t", "sallyport keep shipment 7")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		return data
	}
	r, l := &root{byRaw: map[string]*key{}}, &lines{area: "root"}
	r.addKey(l, "sums", "carl", strings.Split(string(read("key.pub")), "\n")[1], "", "")
	if len(l.faults) > 0 {
		t.Fatal(l.faults)
	}
	k := r.keys[0]
	sig, err := parseMinisig(string(read("SHA256SUMS.minisig")))
	must(t, err)
	if sig.comment != "sallyport keep shipment 7" || sig.number != k.number || !sig.verify(k, read("SHA256SUMS")) || sig.verify(k, []byte("other sums\n")) {
		t.Errorf("%+v does not verify as it should", sig)
	}
	// And the other way: the program accepts what the tests' writer signs.
	by := newKey("carl/sums")
	writeFiles(t, dir, map[string][]byte{"SHA256SUMS.minisig": []byte(by.minisig(read("SHA256SUMS"), "sallyport keep shipment 1"))})
	program("-V", "-H", "-P", by.minisignPublic(), "-m", "SHA256SUMS")
	program("-S", "-l", "-s", "key.sec", "-m", "SHA256SUMS", "-t", "legacy")
	if _, err := parseMinisig(string(read("SHA256SUMS.minisig"))); err == nil {
		t.Error("a legacy signature was taken")
	}
}
