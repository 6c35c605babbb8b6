package shipment

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"aead.dev/minisign"

	"sallyport/internal/trust"
)

func TestVerify(t *testing.T) {
	d := newDelivery(t)
	var bytesSeen int64
	v, err := verify(t, d.write(), Options{Root: openDemo(t), Slip: d.slip(), Progress: func(n int64) { bytesSeen += n }})
	if err != nil {
		t.Fatal(err)
	}
	if v.Digest != trust.Sum(d.files[fileManifest]) || !bytes.Equal(v.File, d.files[fileManifest]) {
		t.Error("not the manifest of the volume")
	}
	if !bytes.Equal(v.Manifest.Text(), d.manifest.Text()) || !slices.Equal(v.Signers, []string{"carol"}) {
		t.Errorf("manifest\n%sby %v", v.Manifest.Text(), v.Signers)
	}
	if v.Bytes != 1808 || bytesSeen != v.Bytes {
		t.Errorf("%d bytes, and progress told of %d; want 1808", v.Bytes, bytesSeen)
	}
}

// A slip from paper decides alone which volume it is.
func TestSlipMismatch(t *testing.T) {
	root := openDemo(t)
	d := newDelivery(t)
	dir := d.write()
	for name, spoil := range map[string]func(s *Slip){
		"of another manifest": func(s *Slip) { s.Manifest = trust.Sum([]byte("one")) },
		"number":              func(s *Slip) { s.Number = 1 },
		"enclave":             func(s *Slip) { s.Enclave = "other" },
		"items":               func(s *Slip) { s.Items++ },
		"bytes":               func(s *Slip) { s.Bytes-- },
	} {
		t.Run(name, func(t *testing.T) {
			s := d.slip()
			spoil(s)
			read := &recorder{}
			_, err := verify(t, dir, Options{Root: root, Slip: s, Sink: read})
			wantCodes(t, err, "slip-mismatch")
			if len(read.begun) > 0 {
				t.Error("items were read all the same")
			}
		})
	}
	t.Run("all at once", func(t *testing.T) {
		s := &Slip{Enclave: "other", Number: 9, Manifest: d.slip().Manifest, Items: 9, Bytes: 9}
		_, err := verify(t, dir, Options{Root: root, Slip: s})
		wantCodes(t, err, "slip-mismatch", "slip-mismatch", "slip-mismatch")
	})
	// The slip of shipment 1 does not let shipment 2 in, and the other way round.
	t.Run("replayed", func(t *testing.T) {
		first := newDelivery(t)
		first.manifest.Number, first.manifest.Previous, first.manifest.Recent = 1, trust.Digest{}, nil
		first.make("carol")
		_, err := verify(t, dir, Options{Root: root, Slip: first.slip()})
		wantCodes(t, err, "slip-mismatch")
		_, err = verify(t, first.write(), Options{Root: root, Slip: d.slip()})
		wantCodes(t, err, "slip-mismatch")
	})
	// Nothing is parsed of what is not the slip's: not even its form is found fault with.
	t.Run("before all else", func(t *testing.T) {
		d := newDelivery(t)
		s := d.slip()
		d.files[fileManifest] = []byte("\x00")
		_, err := verify(t, d.write(), Options{Root: root, Slip: s})
		wantCodes(t, err, "slip-mismatch")
	})
}

func TestAdmit(t *testing.T) {
	d := newDelivery(t)
	dir := d.write()
	read := &recorder{}
	_, err := verify(t, dir, Options{Root: openDemo(t), Sink: read, Admit: func(m *Manifest, file []byte) error {
		if m.Number != 2 || !bytes.Equal(file, d.files[fileManifest]) {
			t.Errorf("asked for shipment %d", m.Number)
		}
		return trust.Refuse("shipment-replayed", "shipment 2", "it came before")
	}})
	wantCodes(t, err, "shipment-replayed")
	if len(read.begun) > 0 {
		t.Error("items of a replayed shipment were read")
	}
	// Who did not sign is never admitted, nor asked about.
	d.signManifest(d.manifest.Text(), "eve/manifest")
	_, err = verify(t, d.write(), Options{Root: openDemo(t), Admit: func(*Manifest, []byte) error { t.Error("asked about a forgery"); return nil }})
	wantCodes(t, err, "manifest-unsigned")
}

// Each volume has one fault. What is said of it is all that is said.
func TestHostileVolumes(t *testing.T) {
	root := openDemo(t)
	pristine := newDelivery(t)
	right := trust.SumsComment("demo", 2)
	flip := func(path string, at int) func(*delivery) {
		return func(d *delivery) {
			b := d.files[path]
			if at < 0 {
				at += len(b)
			}
			b[at] ^= 1
		}
	}
	minisig := func(n int) int { // where line n of a signature begins
		lines := strings.SplitAfter(string(pristine.files[fileSums256+signatureTail]), "\n")
		return len(strings.Join(lines[:n], ""))
	}
	in := func(dir string, path ...string) string { return filepath.Join(append([]string{dir}, path...)...) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	cases := []struct {
		name  string
		spoil func(d *delivery)             // in memory
		disk  func(d *delivery, dir string) // on disk
		codes []string
		about string // stands in the refusals
	}{
		{name: "whole"},

		{name: "empty volume", spoil: func(d *delivery) { clear(d.files) }, codes: []string{"volume-missing"}, about: "manifest"},
		{name: "extra file", spoil: func(d *delivery) { d.files["autorun.inf"] = nil }, codes: []string{"volume-extra"}, about: "autorun.inf"},
		{name: "extra file that the sums cover", spoil: func(d *delivery) { d.files["autorun.inf"] = nil; d.remakeSums(); d.signSums("carol/sums", right) },
			codes: []string{"volume-extra", "volume-sum", "volume-sum"}, about: "autorun.inf"},
		{name: "extra file among the items", spoil: func(d *delivery) { d.files[d.item(0)+".txt"] = nil }, codes: []string{"volume-extra"}},
		{name: "extra item", spoil: func(d *delivery) {
			it := trust.Item{SHA256: trust.Sum([]byte("more"))}
			d.files[itemPath(it)] = []byte("more")
		}, codes: []string{"volume-extra"}},
		{name: "extra file with a name that terminals act on", disk: func(d *delivery, dir string) { must(os.WriteFile(in(dir, "\x1b[2J\n"), nil, 0o644)) }, codes: []string{"volume-extra"}, about: `\x1b[2J\n`},
		{name: "third signature", spoil: func(d *delivery) { d.files["manifest.minisig"] = nil }, codes: []string{"volume-extra"}},
		{name: "README in lower case", spoil: func(d *delivery) { d.files["readme.txt"] = nil }, codes: []string{"volume-extra"}},
		{name: "empty directory", disk: func(d *delivery, dir string) { must(os.Mkdir(in(dir, "lost+found"), 0o755)) }, codes: []string{"volume-extra"}, about: "lost+found"},
		{name: "empty directory among the items", disk: func(d *delivery, dir string) {
			for i := range 256 { // one that no item is in
				if p := in(dir, "items", fmt.Sprintf("%02x", i)); os.Mkdir(p, 0o755) == nil {
					return
				}
			}
		}, codes: []string{"volume-extra"}},
		{name: "empty directory under an item's", disk: func(d *delivery, dir string) { must(os.Mkdir(in(dir, filepath.Dir(d.item(0)), "x"), 0o755)) }, codes: []string{"volume-extra"}},
		{name: "directory with files that nobody reads", disk: func(d *delivery, dir string) { must(os.MkdirAll(in(dir, ".Trash", "files", "x"), 0o755)) }, codes: []string{"volume-extra"}},

		{name: "item missing", spoil: func(d *delivery) { delete(d.files, d.item(0)) }, codes: []string{"volume-missing"}},
		{name: "item missing, its directory left", disk: func(d *delivery, dir string) { must(os.Remove(in(dir, d.item(0)))) }, codes: []string{"volume-missing"}},
		{name: "item in the wrong directory", spoil: func(d *delivery) {
			p := d.item(0)
			d.files["items/"+p[len(p)-64:]] = d.files[p]
			delete(d.files, p)
		}, codes: []string{"volume-missing", "volume-extra"}},
		{name: "manifest missing", spoil: func(d *delivery) { delete(d.files, fileManifest) }, codes: []string{"volume-missing"}},
		{name: "README missing", spoil: func(d *delivery) { delete(d.files, fileReadme) }, codes: []string{"volume-missing"}},
		{name: "SHA256SUMS missing", spoil: func(d *delivery) { delete(d.files, fileSums256) }, codes: []string{"volume-missing"}},
		{name: "SHA512SUMS missing", spoil: func(d *delivery) { delete(d.files, fileSums512) }, codes: []string{"volume-missing"}},
		{name: "signature missing", spoil: func(d *delivery) { delete(d.files, fileSums256+signatureTail) }, codes: []string{"volume-missing"}},
		{name: "other signature missing", spoil: func(d *delivery) { delete(d.files, fileSums512+signatureTail) }, codes: []string{"volume-missing"}},

		{name: "byte flipped in an item", spoil: func(d *delivery) { d.files[d.item(0)][3] ^= 1 }, codes: []string{"item-digest"}},
		{name: "byte flipped in the manifest's text", spoil: flip(fileManifest, 69), codes: []string{"manifest-signature"}},
		{name: "byte flipped in the manifest's signature", spoil: flip(fileManifest, -20), codes: []string{"manifest-signature"}},
		{name: "byte flipped in README", spoil: flip(fileReadme, 3), codes: []string{"volume-sum", "volume-sum"}, about: fileReadme},
		{name: "digest flipped in SHA256SUMS", spoil: flip(fileSums256, 0), codes: []string{"volume-sum", "volume-signature"}, about: fileSums256},
		{name: "digest flipped in SHA512SUMS", spoil: flip(fileSums512, 0), codes: []string{"volume-sum", "volume-signature"}, about: fileSums512},
		{name: "path flipped in SHA256SUMS", spoil: flip(fileSums256, 67), codes: []string{"volume-sum", "volume-uncovered", "volume-signature"}, about: fileSums256},
		{name: "last byte flipped in SHA256SUMS", spoil: flip(fileSums256, -1), codes: []string{"volume-sum", "volume-signature"}},
		{name: "byte flipped in the untrusted comment", spoil: flip(fileSums256+signatureTail, 25)}, // nobody signs that; see the spec
		{name: "byte flipped in a signature", spoil: flip(fileSums256+signatureTail, minisig(1)+40), codes: []string{"volume-signature"}},
		{name: "byte flipped in the key id", spoil: flip(fileSums256+signatureTail, minisig(1)+5), codes: []string{"volume-signature"}},
		{name: "byte flipped in the trusted comment", spoil: flip(fileSums512+signatureTail, minisig(2)+20), codes: []string{"volume-signature"}},
		{name: "byte flipped in the global signature", spoil: flip(fileSums512+signatureTail, minisig(3)+9), codes: []string{"volume-signature"}},

		{name: "item cut", spoil: func(d *delivery) { p := d.item(0); d.files[p] = d.files[p][:5] }, codes: []string{"item-size"}},
		{name: "item empty", spoil: func(d *delivery) { d.files[d.item(0)] = nil }, codes: []string{"item-size"}},
		{name: "item longer", spoil: func(d *delivery) { p := d.item(0); d.files[p] = append(d.files[p], 0) }, codes: []string{"item-size"}},
		{name: "items of one size swapped", spoil: func(d *delivery) {
			a, b := d.item(d.named("hello-2.12.tar.gz")), d.item(d.named("jello-2.12.tar.gz"))
			d.files[a], d.files[b] = d.files[b], d.files[a]
		}, codes: []string{"item-digest", "item-digest"}},
		{name: "items swapped, sums re-made and signed", spoil: func(d *delivery) {
			a, b := d.item(d.named("hello-2.12.tar.gz")), d.item(d.named("jello-2.12.tar.gz"))
			d.files[a], d.files[b] = d.files[b], d.files[a]
			d.remakeSums()
			d.signSums("carol/sums", right)
		}, codes: []string{"item-digest", "item-digest"}},
		{name: "item changed, sums re-made without signature", spoil: func(d *delivery) { d.files[d.item(0)][3] ^= 1; d.remakeSums() },
			codes: []string{"item-digest", "volume-signature", "volume-signature"}},
		{name: "README changed, sums re-made without signature", spoil: func(d *delivery) { d.files[fileReadme][3] ^= 1; d.remakeSums() },
			codes: []string{"volume-signature", "volume-signature"}},
		{name: "README changed, sums signed by a collector who did not sign the manifest", spoil: func(d *delivery) {
			d.files[fileReadme][3] ^= 1
			d.remakeSums()
			d.signSums("cedric/sums", right)
		}, codes: []string{"volume-signature", "volume-signature"}},
		{name: "README too long", spoil: func(d *delivery) {
			d.files[fileReadme] = make([]byte, MaxReadme+1)
			d.remakeSums()
			d.signSums("carol/sums", right)
		}, codes: []string{"volume-size"}},

		{name: "sums do not cover the manifest", spoil: func(d *delivery) { d.uncover(fileSums256, fileManifest) }, codes: []string{"volume-uncovered"}, about: "manifest"},
		{name: "sums do not cover README", spoil: func(d *delivery) { d.uncover(fileSums256, fileReadme) }, codes: []string{"volume-uncovered"}, about: fileReadme},
		{name: "sums do not cover an item", spoil: func(d *delivery) { d.uncover(fileSums512, d.item(0)) }, codes: []string{"volume-uncovered"}, about: fileSums512},
		{name: "sums are empty", spoil: func(d *delivery) { d.files[fileSums256] = nil; d.signSums("carol/sums", right) },
			codes: []string{"volume-uncovered", "volume-uncovered", "volume-uncovered", "volume-uncovered", "volume-uncovered"}},
		{name: "sums cover themselves", spoil: func(d *delivery) {
			d.resum(fileSums512, func(s string) string {
				readme, rest, _ := strings.Cut(s, "\n")
				return readme + "\n" + line512(fileSums256) + rest
			})
		}, codes: []string{"volume-sum"}},
		{name: "sums name a file outside", spoil: func(d *delivery) {
			d.resum(fileSums512, func(s string) string { return line512("../../etc/passwd") + s })
		}, codes: []string{"volume-sum"}, about: "../../etc/passwd"},
		{name: "sums not sorted", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string {
				lines := strings.SplitAfter(s, "\n")
				return strings.Join(append(lines[1:], lines[0]), "")
			})
		}, codes: []string{"volume-uncovered", "volume-sum"}},
		{name: "a line of the sums twice", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string { return s[:strings.Index(s, "\n")+1] + s })
		}, codes: []string{"volume-sum"}},
		{name: "sums in binary mode", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string { return strings.ReplaceAll(s, "  ", " *") })
		}, codes: []string{"volume-sum"}},
		{name: "sums in BSD's form", spoil: func(d *delivery) {
			d.resum(fileSums256, func(string) string { return "SHA256 (manifest) = 00\n" })
		}, codes: []string{"volume-sum"}},
		{name: "sums with CR LF", spoil: func(d *delivery) {
			d.resum(fileSums512, func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") })
		}, codes: []string{"volume-sum", "volume-uncovered", "volume-sum", "volume-uncovered", "volume-sum", "volume-uncovered", "volume-sum", "volume-uncovered", "volume-sum", "volume-uncovered"}},
		{name: "sums in capitals", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string { return strings.ToUpper(s[:64]) + s[64:] })
		}, codes: []string{"volume-sum"}},
		{name: "sums have no digest of an item that is missing", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string {
				return strings.Replace(s, d.manifest.Items[0].SHA256.String()+"  ", "nonsense  ", 1)
			})
			delete(d.files, d.item(0))
		}, codes: []string{"volume-missing", "volume-sum"}},
		{name: "SHA512 where SHA256 belongs", spoil: func(d *delivery) {
			d.files[fileSums256], d.files[fileSums256+signatureTail] = d.files[fileSums512], d.files[fileSums512+signatureTail]
		}, codes: []string{"volume-sum", "volume-sum", "volume-sum", "volume-sum", "volume-sum"}},
		{name: "sums without end", disk: func(d *delivery, dir string) { must(os.Truncate(in(dir, fileSums256), 1<<40)) }, codes: []string{"volume-size"}},
		{name: "sums with a tail of line feeds", spoil: func(d *delivery) {
			d.resum(fileSums256, func(s string) string { return s + strings.Repeat("\n", 1000) })
		}, codes: []string{"volume-sum"}},

		{name: "signature of the other sums", spoil: func(d *delivery) { d.files[fileSums256+signatureTail] = d.files[fileSums512+signatureTail] }, codes: []string{"volume-signature"}},
		{name: "signatures by a stranger", spoil: func(d *delivery) { d.signSums("eve/sums", right) }, codes: []string{"volume-signature", "volume-signature"}},
		{name: "signatures by a person who is no collector", spoil: func(d *delivery) { d.signSums("mallory/sums", right) }, codes: []string{"volume-signature", "volume-signature"}},
		{name: "signatures by another collector", spoil: func(d *delivery) { d.signSums("cedric/sums", right) }, codes: []string{"volume-signature", "volume-signature"}},
		{name: "signatures of another shipment", spoil: func(d *delivery) { d.signSums("carol/sums", trust.SumsComment("demo", 3)) }, codes: []string{"volume-signature", "volume-signature"}},
		{name: "signatures for another enclave", spoil: func(d *delivery) { d.signSums("carol/sums", trust.SumsComment("other", 2)) }, codes: []string{"volume-signature", "volume-signature"}},
		{name: "legacy signature", spoil: func(d *delivery) {
			d.files[fileSums256+signatureTail] = legacySignature(t, "carol/sums", d.files[fileSums256], right)
		},
			codes: []string{"volume-signature"}, about: "legacy"},
		{name: "signature that is none", spoil: func(d *delivery) { d.files[fileSums256+signatureTail] = []byte("carol was here\n") }, codes: []string{"volume-signature"}},
		{name: "signature without end", disk: func(d *delivery, dir string) { must(os.Truncate(in(dir, fileSums256+signatureTail), 1<<40)) }, codes: []string{"volume-size"}},
		{name: "two collectors for the two sums", spoil: func(d *delivery) {
			d.signManifest(d.manifest.Text(), "carol/manifest", "cedric/manifest")
			carols := d.files[fileSums256+signatureTail]
			d.signSums("cedric/sums", right)
			d.files[fileSums256+signatureTail] = carols
		}, codes: []string{"volume-signature"}, about: "made by cedric"},
		{name: "second of two collectors signs the sums", spoil: func(d *delivery) {
			d.signManifest(d.manifest.Text(), "carol/manifest", "cedric/manifest")
			d.signSums("cedric/sums", right)
		}},

		{name: "manifest signed by a key outside of the root", spoil: func(d *delivery) { d.signManifest(d.manifest.Text(), "eve/manifest") }, codes: []string{"manifest-unsigned"}},
		{name: "manifest signed by a person who is no collector", spoil: func(d *delivery) { d.signManifest(d.manifest.Text(), "mallory/manifest") }, codes: []string{"manifest-unsigned"}},
		{name: "manifest for another enclave", spoil: func(d *delivery) {
			d.signManifest(replace(t, d.manifest.Text(), "enclave demo", "enclave other"), "carol/manifest")
		}, codes: []string{"manifest-enclave"}},
		{name: "manifest with a leading zero", spoil: func(d *delivery) {
			d.signManifest(replace(t, d.manifest.Text(), "shipment 2\n", "shipment 02\n"), "carol/manifest")
		}, codes: []string{"manifest-syntax"}},
		{name: "manifest without previous", spoil: func(d *delivery) {
			d.signManifest(replace(t, d.manifest.Text(), d.manifest.Previous.String(), "-"), "carol/manifest")
		}, codes: []string{"manifest-previous"}},
		{name: "manifest with a name twice", spoil: func(d *delivery) {
			d.signManifest(replace(t, d.manifest.Text(), base("jello-2.12.tar.gz"), base("hello-2.12.tar.gz")), "carol/manifest")
		}, codes: []string{"manifest-duplicate-name"}},
		{name: "manifest says another size", spoil: func(d *delivery) {
			d.signManifest(replace(t, d.manifest.Text(), " 8 derivation", " 9 derivation"), "carol/manifest")
		}, codes: []string{"item-size"}},
		{name: "manifest without end", disk: func(d *delivery, dir string) { must(os.Truncate(in(dir, fileManifest), 1<<40)) }, codes: []string{"volume-size"}},

		{name: "directory for the manifest", disk: func(d *delivery, dir string) { instead(t, in(dir, fileManifest), mkdir) }, codes: []string{"volume-type"}},
		{name: "directory for README", disk: func(d *delivery, dir string) { instead(t, in(dir, fileReadme), mkdir) }, codes: []string{"volume-type"}},
		{name: "directory for the sums", disk: func(d *delivery, dir string) { instead(t, in(dir, fileSums512), mkdir) }, codes: []string{"volume-type"}},
		{name: "directory for an item", disk: func(d *delivery, dir string) { instead(t, in(dir, d.item(0)), mkdir) }, codes: []string{"volume-type"}},
		{name: "file for an item's directory", disk: func(d *delivery, dir string) {
			instead(t, in(dir, filepath.Dir(d.item(0))), func(p string) error { return os.WriteFile(p, nil, 0o644) })
		}, codes: []string{"volume-type", "volume-missing"}},
		{name: "file for items", disk: func(d *delivery, dir string) {
			instead(t, in(dir, "items"), func(p string) error { return os.WriteFile(p, nil, 0o644) })
		}, codes: []string{"volume-type", "volume-missing", "volume-missing", "volume-missing"}},
		{name: "link for items, to the items", disk: func(d *delivery, dir string) {
			elsewhere := filepath.Join(t.TempDir(), "items")
			must(os.Rename(in(dir, "items"), elsewhere))
			must(os.Symlink(elsewhere, in(dir, "items")))
		}, codes: []string{"volume-type", "volume-missing", "volume-missing", "volume-missing"}},
		{name: "extra link", disk: func(d *delivery, dir string) { must(os.Symlink("manifest", in(dir, "offer"))) }, codes: []string{"volume-type"}},
		{name: "extra link to nothing", disk: func(d *delivery, dir string) { must(os.Symlink("/nowhere", in(dir, "offer"))) }, codes: []string{"volume-type"}},
		{name: "extra pipe", disk: func(d *delivery, dir string) { must(syscall.Mkfifo(in(dir, "pipe"), 0o644)) }, codes: []string{"volume-type"}},
	}
	// A link to the very content, and a pipe, in place of each kind of file.
	for _, name := range []string{fileManifest, fileReadme, fileSums256, fileSums512 + signatureTail, "item"} {
		path := func(d *delivery) string {
			if name == "item" {
				return d.item(1)
			}
			return name
		}
		cases = append(cases, struct {
			name  string
			spoil func(d *delivery)
			disk  func(d *delivery, dir string)
			codes []string
			about string
		}{name: "link for " + name, disk: func(d *delivery, dir string) {
			elsewhere := filepath.Join(t.TempDir(), "x")
			must(os.Rename(in(dir, path(d)), elsewhere))
			must(os.Symlink(elsewhere, in(dir, path(d))))
		}, codes: []string{"volume-type"}, about: "symbolic link"}, struct {
			name  string
			spoil func(d *delivery)
			disk  func(d *delivery, dir string)
			codes []string
			about string
		}{name: "pipe for " + name, disk: func(d *delivery, dir string) {
			instead(t, in(dir, path(d)), func(p string) error { return syscall.Mkfifo(p, 0o644) })
		}, codes: []string{"volume-type"}, about: "pipe"})
	}
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.name] {
			t.Fatalf("two cases are %q", c.name)
		}
		names[c.name] = true
		t.Run(c.name, func(t *testing.T) {
			d := pristine.clone(t)
			if c.spoil != nil {
				c.spoil(d)
			}
			dir := d.write()
			if c.disk != nil {
				c.disk(d, dir)
			}
			sink := &recorder{}
			v, err := verify(t, dir, Options{Root: root, Sink: sink})
			wantCodes(t, err, c.codes...)
			if err != nil && v != nil {
				t.Error("verified in spite of the refusal")
			}
			if err != nil && !strings.Contains(err.Error(), c.about) {
				t.Errorf("%q is not in %v", c.about, err)
			}
			for _, r := range strings.Join(sink.committed, "\n") + fmt.Sprint(err) {
				if r < 0x20 && r != '\n' || r == 0x7f {
					t.Errorf("the byte %#x would reach a terminal", r)
				}
			}
			if slices.Contains(c.codes, "item-size") && len(sink.aborted) > 0 {
				t.Errorf("the sink was bothered with %v, of a size that is wrong", sink.aborted)
			}
			sink.check(t, d)
		})
	}
}

func mkdir(p string) error { return os.Mkdir(p, 0o755) }

// instead removes what lies at a path and makes something else there.
func instead(t *testing.T, path string, make func(string) error) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), make(path)); err != nil {
		t.Fatal(err)
	}
}

func line512(path string) string { return fmt.Sprintf("%0128x  %s\n", 0, path) }

// resum changes a sums file and signs it.
func (d *delivery) resum(name string, change func(string) string) {
	d.t.Helper()
	d.files[name] = []byte(change(string(d.files[name])))
	d.signSums("carol/sums", trust.SumsComment("demo", 2))
}

// uncover takes a path's line out of a sums file and signs the rest.
func (d *delivery) uncover(name, path string) {
	d.t.Helper()
	d.resum(name, func(s string) string {
		lines := strings.SplitAfter(s, "\n")
		return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasSuffix(l, "  "+path+"\n") }), "")
	})
}

// legacySignature is a minisign signature of the bytes themselves, as minisign made them before it hashed them first.
func legacySignature(t *testing.T, name string, sums []byte, comment string) []byte {
	t.Helper()
	key := testKey(t, name)
	file, err := key.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.Split(string(file), "\n")[1])
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.PrivateKey(raw[62:126])
	sig := ed25519.Sign(private, sums)
	global := ed25519.Sign(private, append(bytes.Clone(sig), comment...))
	blob := append(append([]byte("Ed"), raw[54:62]...), sig...)
	text := fmt.Appendf(nil, "untrusted comment: legacy\n%s\ntrusted comment: %s\n%s\n", base64.StdEncoding.EncodeToString(blob), comment, base64.StdEncoding.EncodeToString(global))
	var pub minisign.PublicKey
	if err := pub.UnmarshalText([]byte(key.Public())); err != nil {
		t.Fatal(err)
	}
	if !minisign.Verify(pub, sums, text) {
		t.Fatal("the legacy signature is no signature")
	}
	return text
}

// All that is wrong is listed at once.
func TestManyFaults(t *testing.T) {
	d := newDelivery(t)
	d.files["autorun.inf"] = nil
	d.files[d.item(d.named("jello-2.12.tar.gz"))][0] ^= 1
	delete(d.files, d.item(d.named("hello-2.12.drv")))
	delete(d.files, fileSums512+signatureTail)
	d.files[fileSums256][0] ^= 1
	dir := d.write()
	if err := os.Symlink("manifest", filepath.Join(dir, "offer")); err != nil {
		t.Fatal(err)
	}
	_, err := verify(t, dir, Options{Root: openDemo(t), Slip: d.slip()})
	wantCodes(t, err, "volume-extra", "volume-type", "item-digest", "volume-missing", "volume-missing", "volume-sum", "volume-signature")
}

// Of very many faults the first are listed, and the others counted.
func TestTooManyFaults(t *testing.T) {
	d := newDelivery(t)
	dir := d.write()
	for i := range maxListed + 10 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("x", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	_, err := verify(t, dir, Options{Root: openDemo(t)})
	rs, _ := trust.AsRefusals(err)
	if len(rs) != maxListed+1 || rs[maxListed].Code != "volume-faults" || !strings.HasPrefix(rs[maxListed].Detail, "10 more") {
		t.Errorf("%d refusals, the last is %v", len(rs), rs[len(rs)-1])
	}
}

// recorder is a sink that keeps what it gets, and a log of the calls.
type recorder struct {
	live                      bool // an item has begun and not ended
	begun, committed, aborted []string
	content                   map[string][]byte
	refuse, fail              map[string]string // by the name behind the hash, at which call
}

type recording struct {
	r    *recorder
	name string
	buf  bytes.Buffer
	over bool
}

func (r *recorder) at(name, call string) error {
	_, short, _ := strings.Cut(name, "-")
	switch call {
	case r.refuse[short]:
		return trust.Refuse("sink-"+call, name, "not wanted")
	case r.fail[short]:
		return fmt.Errorf("at %s of %s: %w", call, short, errSink)
	}
	return nil
}

var errSink = errors.New("the sink is full")

func (r *recorder) Begin(it trust.Item) (ItemSink, error) {
	if r.live {
		panic("an item begins before the last one has ended")
	}
	r.begun = append(r.begun, it.Name)
	if err := r.at(it.Name, "begin"); err != nil {
		return nil, err
	}
	r.live = true
	return &recording{r: r, name: it.Name}, nil
}

func (s *recording) Write(p []byte) (int, error) {
	if s.over {
		panic("written to after its end")
	}
	if err := s.r.at(s.name, "write"); err != nil {
		return 0, err
	}
	return s.buf.Write(p)
}

func (s *recording) end(call string, list *[]string) error {
	if s.over {
		panic("ended twice")
	}
	s.over, s.r.live = true, false
	*list = append(*list, s.name)
	if err := s.r.at(s.name, call); err != nil {
		return err
	}
	if s.r.content == nil {
		s.r.content = map[string][]byte{}
	}
	if call == "commit" {
		s.r.content[s.name] = s.buf.Bytes()
	}
	return nil
}

func (s *recording) Commit() error { return s.end("commit", &s.r.committed) }
func (s *recording) Abort() error  { return s.end("abort", &s.r.aborted) }

// check fails unless everything committed is what its name stands for, and everything begun has ended.
func (r *recorder) check(t *testing.T, d *delivery) {
	t.Helper()
	for name, content := range r.content {
		for _, it := range d.manifest.Items {
			if it.Name == name && trust.Sum(content) != it.SHA256 {
				t.Errorf("%s was committed with content %.80q", name, content)
			}
		}
	}
	if r.live {
		t.Errorf("begun %v, committed %v, aborted %v", r.begun, r.committed, r.aborted)
	}
}

func TestSink(t *testing.T) {
	d := newDelivery(t)
	var all []string
	for _, it := range d.manifest.Items {
		all = append(all, it.Name)
	}
	r := &recorder{}
	if _, err := verify(t, d.write(), Options{Root: openDemo(t), Sink: r}); err != nil {
		t.Fatal(err)
	}
	// Each item once and in order, also the one that shares another's content.
	if !slices.Equal(r.begun, all) || !slices.Equal(r.committed, all) || len(r.content) != len(all) {
		t.Errorf("begun %v, committed %v; want %v", r.begun, r.committed, all)
	}
	r.check(t, d)
}

// A refusal of the sink is listed beside all others; a failure ends the matter.
func TestSinkRefuses(t *testing.T) {
	pristine := newDelivery(t)
	for _, call := range []string{"begin", "write", "commit"} {
		t.Run(call, func(t *testing.T) {
			d := pristine.clone(t)
			delete(d.files, fileReadme)
			r := &recorder{refuse: map[string]string{"jello-2.12.tar.gz": call}}
			_, err := verify(t, d.write(), Options{Root: openDemo(t), Sink: r})
			wantCodes(t, err, "sink-"+call, "volume-missing")
			if len(r.begun) != 4 {
				t.Errorf("only %v were begun", r.begun)
			}
			if want := map[string]int{"begin": 0, "write": 1, "commit": 0}[call]; len(r.aborted) != want {
				t.Errorf("aborted %v", r.aborted)
			}
			r.check(t, d)
		})
		t.Run(call+" and the item is flipped", func(t *testing.T) {
			d := pristine.clone(t)
			d.files[d.item(d.named("jello-2.12.tar.gz"))][0] ^= 1
			r := &recorder{refuse: map[string]string{"jello-2.12.tar.gz": call}}
			_, err := verify(t, d.write(), Options{Root: openDemo(t), Sink: r})
			if call == "commit" { // never asked
				wantCodes(t, err, "item-digest")
			} else {
				wantCodes(t, err, "sink-"+call, "item-digest")
			}
		})
		t.Run(call+" fails", func(t *testing.T) {
			d := pristine.clone(t)
			r := &recorder{fail: map[string]string{"jello-2.12.tar.gz": call}}
			_, err := verify(t, d.write(), Options{Root: openDemo(t), Sink: r})
			if _, refused := trust.AsRefusals(err); refused || !errors.Is(err, errSink) {
				t.Errorf("have %v, want a failure", err)
			}
			if last := r.begun[len(r.begun)-1]; !strings.HasSuffix(last, "jello-2.12.tar.gz") {
				t.Errorf("went on to %s", last)
			}
		})
	}
	// A missing directory of the sink's own is no fault of the volume.
	t.Run("not exist", func(t *testing.T) {
		d := pristine.clone(t)
		_, err := verify(t, d.write(), Options{Root: openDemo(t), Sink: noDirectory{}})
		if _, refused := trust.AsRefusals(err); refused || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("have %v, want a failure", err)
		}
	})
}

type noDirectory struct{}

func (noDirectory) Begin(trust.Item) (ItemSink, error) { return nil, os.ErrNotExist }

func TestVerifyCancelled(t *testing.T) {
	d := newDelivery(t)
	vol, err := os.OpenRoot(d.write())
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{}
	_, err = Verify(ctx, vol, Options{Root: openDemo(t), Sink: r, Admit: func(*Manifest, []byte) error { cancel(); return nil }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("have %v", err)
	}
	if len(r.committed) > 0 {
		t.Errorf("%v were committed", r.committed)
	}
}

// A file that changes under the reader: what is committed is what was hashed.
func TestItemChangesWhileRead(t *testing.T) {
	for name, change := range map[string]func(p string) error{
		"grows":   func(p string) error { return os.Truncate(p, 1<<40) },
		"shrinks": func(p string) error { return os.Truncate(p, chunk+1) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDelivery(t)
			d.add(trust.KindSource, base("big"), make([]byte, 3*chunk))
			d.make("carol")
			dir := d.write()
			changed := false
			r := &recorder{}
			_, err := verify(t, dir, Options{Root: openDemo(t), Sink: r, Progress: func(n int64) {
				if n == chunk && !changed {
					changed = true
					if err := change(filepath.Join(dir, d.item(d.named("big")))); err != nil {
						t.Error(err)
					}
				}
			}})
			wantCodes(t, err, "item-size")
			r.check(t, d)
		})
	}
}

// A file that goes away after the directory was read is a fault of the volume, not an accident.
func TestFileGoes(t *testing.T) {
	pristine := newDelivery(t)
	last := len(pristine.manifest.Items) - 1
	for _, path := range []string{pristine.item(last), fileSums256, fileSums512 + signatureTail} {
		d := pristine.clone(t)
		dir := d.write()
		_, err := verify(t, dir, Options{Root: openDemo(t), Progress: func(int64) { os.Remove(filepath.Join(dir, path)) }})
		wantCodes(t, err, "volume-missing")
	}
}

func TestReadManifest(t *testing.T) {
	d := newDelivery(t)
	dir := d.write()
	vol, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	if file, err := ReadManifest(vol); err != nil || !bytes.Equal(file, d.files[fileManifest]) {
		t.Errorf("%q, %v", file, err)
	}
	path := filepath.Join(dir, fileManifest)
	if err := os.Truncate(path, MaxManifest+1); err != nil {
		t.Fatal(err)
	}
	_, err = ReadManifest(vol)
	wantCodes(t, err, "volume-size")
	instead(t, path, mkdir)
	_, err = ReadManifest(vol)
	wantCodes(t, err, "volume-type")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err = ReadManifest(vol)
	wantCodes(t, err, "volume-missing")
}

// A volume with more entries than any has is not looked at further.
func TestTooManyFiles(t *testing.T) {
	d := newDelivery(t)
	delete(d.files, fileReadme)
	vol, err := os.OpenRoot(d.write())
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	// Five files beside each other, items, three directories in it and three items.
	for limit, codes := range map[int][]string{12: {"volume-missing"}, 11: {"volume-files"}, 3: {"volume-files"}} {
		sink := &recorder{}
		j := newJudge(vol, Options{Root: openDemo(t), Sink: sink}, d.manifest)
		j.max = limit
		if err := j.run(t.Context(), d.files[fileManifest], []string{"carol"}); err != nil {
			t.Fatal(err)
		}
		wantCodes(t, j.faults, codes...)
		if limit < 12 && len(sink.begun) > 0 {
			t.Errorf("items were read of a volume of more than %d files", limit)
		}
	}
	// The largest volume that the format allows has room.
	if most := trust.MaxItems + 256 + 1 + 6; MaxFiles < most {
		t.Errorf("MaxFiles is %d, a volume may have %d", MaxFiles, most)
	}
}

// The same file of another inode, or a link, in the place of one that was listed.
func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("file")
	vol, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer vol.Close()
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "pipe", "."} {
		_, _, err := openFile(vol, name)
		wantCodes(t, err, "volume-type")
	}
	f, size, err := openFile(vol, "file")
	if err != nil || size != 1 {
		t.Fatal(size, err)
	}
	f.Close()
}

// A big item costs time and no memory: neither its own size nor what it pretends to be.
func TestMemory(t *testing.T) {
	const size = 32 << 20
	d := newDelivery(t)
	zero := newHasher()
	sum, _, err := zero.copy(t.Context(), io.Discard, io.LimitReader(zeros{}, size), size)
	if err != nil {
		t.Fatal(err)
	}
	big := trust.Item{SHA256: sum.sha256, Size: size, Kind: trust.KindSource, Name: base("sparse")}
	d.manifest.Items = append(d.manifest.Items, big)
	trust.SortItems(d.manifest.Items)
	sparse := func() *delivery {
		d.signManifest(d.manifest.Text(), "carol/manifest")
		for i, name := range []string{fileSums256, fileSums512} {
			digest := sum.sha256[:]
			if i == 1 {
				digest = sum.sha512[:]
			}
			lines := append(strings.SplitAfter(strings.TrimSuffix(string(d.files[name]), "\n"), "\n"), fmt.Sprintf("%x  %s\n", digest, itemPath(big)))
			lines[len(lines)-2] += "\n"
			slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[len(digest)*2:], b[len(digest)*2:]) })
			d.files[name] = []byte(strings.Join(lines, ""))
		}
		d.signSums("carol/sums", trust.SumsComment("demo", 2))
		return d
	}
	dir := sparse().write()
	place := filepath.Join(dir, itemPath(big))
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(place, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	root := openDemo(t)
	for _, c := range []struct {
		size  int64
		codes []string
	}{
		{size, nil},
		{1 << 42, []string{"item-size"}}, // not read at all
	} {
		if err := os.Truncate(place, c.size); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = verify(t, dir, Options{Root: root})
		runtime.ReadMemStats(&after)
		wantCodes(t, err, c.codes...)
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%d bytes of memory for an item of %d", used, c.size)
		}
	}
	for _, name := range []string{fileReadme, fileSums512, fileManifest} {
		if err := os.Truncate(filepath.Join(dir, name), 1<<42); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = verify(t, dir, Options{Root: root})
		runtime.ReadMemStats(&after)
		if rs, _ := trust.AsRefusals(err); !rs.Has("volume-size") {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
			t.Errorf("%d bytes of memory for a sparse %s", used, name)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
