package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The writer and the auditor, who share no code, meet here: the real programs make a small zone, as persons would, and the auditor
// judges what they published, and what somebody who holds one or another of the real keys could make of it.

// zone is a directory with the programs, the persons' keys, an outside, an inside, and two volumes with their slips.
type zone struct {
	t   testing.TB
	dir string
	pin string
}

func (z *zone) path(name string) string { return filepath.Join(z.dir, name) }

// run runs one of the programs and returns its exit code and what it printed.
func (z *zone) run(args ...string) (code int, stdout, stderr []byte) {
	z.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, z.path("bin/"+args[0]), args[1:]...)
	cmd.Dir = z.dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); err == nil || code == exitRefused {
		return code, out, errs.Bytes()
	}
	z.t.Fatalf("%q: %v\n%s%s", args, err, out, errs.Bytes())
	return 0, nil, nil
}

func (z *zone) must(args ...string) []byte {
	z.t.Helper()
	code, out, errs := z.run(args...)
	if code != 0 {
		z.t.Fatalf("%q: exit code %d: %s%s", args, code, out, errs)
	}
	return out
}

// secret reads a key that has no passphrase, to sign what no program would.
func (z *zone) secret(file, name string) *tkey {
	z.t.Helper()
	text, err := os.ReadFile(z.path(file))
	must(z.t, err)
	raw, ok := decode64(strings.Split(string(text), "\n")[1])
	if !ok || len(raw) != 158 {
		z.t.Fatalf("%s is no minisign secret key", file)
	}
	k := &tkey{name: name, alg: 1, priv: ed25519.PrivateKey(raw[62:126])}
	if strings.HasSuffix(name, "/witness") {
		k.alg = 4
	}
	return k
}

func (z *zone) key(name string) string { return "keys/" + strings.ReplaceAll(name, "/", ".") + ".key" }

func newZone(t *testing.T) *zone {
	if testing.Short() {
		t.Skip("SKIPPED: the writer's zone was not audited: it takes some seconds to make; run without -short")
	}
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("SKIPPED: the writer's zone was not audited: no go command to build the programs with; put the Go toolchain in PATH")
	}
	z := &zone{t: t, dir: t.TempDir()}
	for d := z.dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		os.Chmod(d, 0o755) // builds run as another user
	}
	t.Cleanup(func() {
		filepath.WalkDir(z.dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(path, 0o755) // store items are read-only
			}
			return nil
		})
	})
	for _, args := range [][]string{
		{"-o", z.path("bin") + "/", "../sallyport", "../sallyport-station", "../sallyport-reader"},
		{"-o", z.path("goods/tool/bin/deeds"), "../../vectors/builds/builder/main.go"},
	} {
		cmd := exec.Command(gotool, append([]string{"build", "-buildvcs=false"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
	}
	doctor := exec.Command(z.path("bin/sallyport"), "doctor")
	if out, err := doctor.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: the writer's zone was not audited: this machine cannot build in namespaces of its own, or look into files confined; what is missing, and the remedy:\n%s", out)
	}
	writeFiles(t, z.dir, map[string][]byte{
		"goods/words/greeting": []byte("hello, world\n"), "goods/more/note": []byte("one more\n"), "keys/README": nil,
		"1.toml": []byte("enclave = \"demo\"\n[[source]]\nlabel = \"tool\"\nname = \"tool-1\"\nfrom = \"path\"\npath = \"goods/tool\"\n[[source]]\nlabel = \"words\"\nname = \"words-1\"\nfrom = \"path\"\npath = \"goods/words\"\n" +
			"[[derivation]]\nname = \"hello-1.0\"\nbuilder = \"{tool}/bin/deeds\"\nargs = [\"copy {words}/greeting $out\"]\n"),
		"2.toml": []byte("enclave = \"demo\"\n[[source]]\nlabel = \"more\"\nname = \"more-1\"\nfrom = \"path\"\npath = \"goods/more\"\n"),
	})
	init := []string{"sallyport-station", "trust", "init", "--zone", "inside", "--key", z.key("olga/root"), "--threshold", "root=1", "--threshold", "order=1", "--threshold", "allowlist/dev=2", "--policy", "quorum=2"}
	for _, name := range []string{"olga/root", "olga/order", "carol/manifest", "carol/sums", "dave/statement", "dave/allowlist", "alice/allowlist", "bob/allowlist", "erin/statement", "frank/statement", "wilma/witness", "dev/narinfo"} {
		z.must("sallyport", "key", "generate", "--quiet", "--no-passphrase", name, z.key(name))
		init = append(init, "--enroll", z.key(name)+".pub")
	}
	for _, role := range []string{"officer=olga", "collector=carol", "importer=dave", "reviewer=alice", "reviewer=bob", "reviewer=dave", "builder=erin", "builder=frank", "witness=wilma"} {
		init = append(init, "--role", role)
	}
	z.must("sallyport", "init", "--kind", "outside", "--enclave", "demo", "outside")
	for _, n := range []string{"1", "2"} {
		z.must("sallyport", "collect", "--zone", "outside", "--quiet", n+".toml")
		z.must("sallyport", "shipment", "create", "--zone", "outside", "--quiet", "--key", z.key("carol/manifest"), "--sums-key", z.key("carol/sums"), "--slip", "slip-"+n, "volume-"+n)
	}
	z.must("sallyport-station", "init", "--kind", "inside", "--enclave", "demo", "inside")
	z.must(init...)
	var shown struct{ Fingerprint string }
	must(t, json.Unmarshal(z.must("sallyport-station", "trust", "show", "--zone", "inside", "--json"), &shown))
	z.pin = shown.Fingerprint
	for _, n := range []string{"1", "2"} {
		z.must("sallyport-station", "import", "--zone", "inside", "--slip", "slip-"+n, "--key", z.key("dave/statement"), "volume-"+n)
	}
	for _, person := range []string{"alice", "bob"} {
		z.must("sallyport-station", "review", "approve", "--zone", "inside", "--track", "dev", "--key", z.key(person+"/allowlist"), "1")
	}
	z.must("sallyport-station", "review", "reject", "--zone", "inside", "--key", z.key("bob/allowlist"), "--reason", "who asked for it?", "2")
	sign := []string{"sallyport-station", "depot", "sign", "--zone", "inside", "--root", z.pin, "--track", "dev", "--track-key", z.key("dev/narinfo")}
	z.must(sign...)
	url := z.serve()
	manifest, err := os.ReadFile(z.path("volume-1/manifest"))
	must(t, err)
	var drv string
	for line := range strings.Lines(string(manifest)) {
		if it, ok := parseItem(strings.TrimSuffix(line, "\n")); ok && it.kind == "derivation" {
			drv = it.name
		}
	}
	for _, person := range []string{"erin", "frank"} {
		z.must("sallyport-station", "builder", "init", "--enclave", "demo", "--depot", url, "--track", "dev", "--root", z.pin, "--key", z.key(person+"/statement"), person)
		z.must("sallyport-station", "build", "--builder", person, "--out", "by-"+person, drv)
		z.must("sallyport-station", "quorum", "submit", "--zone", "inside", "--track", "dev", "by-"+person)
	}
	z.must(sign...)
	log, err := os.ReadFile(z.path("inside/keys/ledger.vkey"))
	must(t, err)
	z.must("sallyport", "ledger", "witness", "--key", z.key("wilma/witness"), "--state", "wilma.state", "--log", strings.TrimSpace(string(log)), "--out", "cosigned", "inside/public/ledger")
	z.must("sallyport-station", "ledger", "cosign", "--zone", "inside", "cosigned")
	return z
}

// serve starts a depot and returns its URL.
func (z *zone) serve() string {
	cmd := exec.Command(z.path("bin/sallyport-station"), "depot", "serve", "--zone", "inside", "--root", z.pin, "--track", "dev", "--listen", "127.0.0.1:0", "--json")
	cmd.Dir = z.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	must(z.t, err)
	must(z.t, cmd.Start())
	z.t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	must(z.t, err)
	var l struct{ URL string }
	must(z.t, json.Unmarshal(line, &l))
	return l.URL
}

// readTree reads a directory into memory.
func readTree(t testing.TB, dir string) map[string][]byte {
	files := map[string][]byte{}
	must(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		files[name], err = os.ReadFile(path)
		return err
	}))
	return files
}

// forged is the public directory of the inside, in the hands of one who may hold keys.
type forged struct {
	*zone
	files map[string][]byte
}

// digest is that of the root's text.
func (f *forged) digest() string {
	text, _, _ := strings.Cut(string(f.files["root/1"]), "\n\n")
	return hexSum([]byte(text + "\n"))
}

func (f *forged) must(err error) { must(f.t, err) }

func (f *forged) bundle() string {
	for name := range f.files {
		if strings.HasPrefix(name, "ledger/tile/entries/000.p/") && len(f.leaves(f.files[name])) == f.size() {
			return name
		}
	}
	f.t.Fatal("no bundle")
	return ""
}

func (f *forged) size() (n int) {
	fmt.Sscan(strings.Split(string(f.files["ledger/checkpoint"]), "\n")[1], &n)
	return n
}

func (f *forged) leaves(bundle []byte) (leaves [][]byte) {
	for len(bundle) > 0 {
		n := 2 + int(bundle[0])<<8 + int(bundle[1])
		leaves, bundle = append(leaves, slices.Clone(bundle[2:n])), bundle[n:]
	}
	return leaves
}

// rewrite makes another ledger of other entries, signed by the station's own key, and says nothing to the witness.
func (f *forged) rewrite(change func(leaves [][]byte) [][]byte) {
	leaves := change(f.leaves(f.files[f.bundle()]))
	maps.DeleteFunc(f.files, func(name string, _ []byte) bool { return strings.HasPrefix(name, "ledger/") })
	text := strings.Replace((&world{files: f.files}).tree(leaves), originName, "sallyport/demo/inside", 1)
	f.files["ledger/checkpoint"] = noteOf(text, f.secret("inside/keys/ledger.key", "sallyport/demo/inside"))
}

func kindOf(leaf []byte) string {
	st := &statement{}
	if _, err := st.parse(leaf); err != nil {
		return ""
	}
	return st.kind
}

// entry rewrites the last entry of a kind, and seals it with the key that sealed it, or another; it returns no leaf to drop it.
func (f *forged) entry(kind, keyFile, keyName, old, new string) {
	f.rewrite(func(leaves [][]byte) [][]byte {
		for i := len(leaves) - 1; i >= 0; i-- {
			if kindOf(leaves[i]) != kind {
				continue
			} else if old == "" {
				return slices.Delete(leaves, i, i+1)
			}
			st := &statement{}
			_, err := st.parse(leaves[i])
			f.must(err)
			if !strings.Contains(st.payload, old) {
				f.t.Fatalf("no %q in %s", old, st.payload)
			}
			leaves[i] = seal(f.secret(keyFile, keyName), strings.Replace(st.payload, old, new, 1))
			return leaves
		}
		f.t.Fatalf("no entry %s", kind)
		return nil
	})
}

func (f *forged) station(kind, old, new string) {
	f.entry(kind, "inside/keys/station.key", "station/statement", old, new)
}

func (f *forged) drop(kind string) { f.entry(kind, "", "", "", "") }

func (f *forged) edit(name, old, new string) {
	if !bytes.Contains(f.files[name], []byte(old)) {
		f.t.Fatalf("no %q in %s: %s", old, name, f.files[name])
	}
	f.files[name] = bytes.Replace(f.files[name], []byte(old), []byte(new), 1)
}

// note signs a document again, by other keys, after a change of its text.
func (f *forged) note(name, as, old, new string, keys ...string) {
	text, _, _ := strings.Cut(string(f.files[name]), "\n\n")
	var by []*tkey
	for _, k := range keys {
		by = append(by, f.secret(f.key(k), k))
	}
	if !strings.Contains(text, old) {
		f.t.Fatalf("no %q in %s", old, text)
	}
	f.files[as] = noteOf(strings.Replace(text, old, new, 1)+"\n", by...)
}

func TestRealZone(t *testing.T) {
	z := newZone(t)
	public := readTree(t, z.path("inside/public"))
	kinds := []string{"--require", "created,root,imported,inspected,approved,allowed,rejected,signed,built,agreed"}
	outside, err := os.ReadFile(z.path("outside/keys/ledger.vkey"))
	must(t, err)
	clerk, err := os.ReadFile(z.path("outside/keys/station.vkey"))
	must(t, err)
	if rep := expect(t, "", "ledger", "--key", strings.TrimSpace(string(outside)), "--key", strings.TrimSpace(string(clerk)), z.path("outside/public/ledger")); len(rep.NotChecked) != 0 {
		t.Errorf("%+v", rep)
	}
	station := func(kind, old, new string) func(*forged) { return func(f *forged) { f.station(kind, old, new) } }
	drop := func(kind string) func(*forged) { return func(f *forged) { f.drop(kind) } }
	wilma := []string{"--witness", "wilma"}
	for _, c := range []struct {
		name, codes string
		change      func(f *forged)
		args        []string
	}{
		{name: "as it was made", change: func(*forged) {}, args: wilma},
		{name: "written again", change: func(f *forged) { f.rewrite(func(l [][]byte) [][]byte { return l }) }, args: wilma},
		// Somebody with write access, and no key.
		{name: "byte of an entry", codes: "ledger-entry ledger-root statement-signature witness-fork", change: func(f *forged) {
			b := f.files[f.bundle()]
			at := bytes.Index(b, []byte(`"sig":"`)) + 20
			b[at] = map[bool]byte{true: 'B', false: 'A'}[b[at] == 'A']
		}},
		{name: "byte of a tile", codes: "ledger-entry", change: func(f *forged) {
			f.files[strings.Replace(f.bundle(), "entries", "0", 1)][70] ^= 1
		}},
		{name: "size of the checkpoint", codes: "checkpoint-signature", change: func(f *forged) { f.edit("ledger/checkpoint", "\n1", "\n2") }},
		{name: "checkpoint of another", codes: "checkpoint-unsigned", change: func(f *forged) {
			text, _, _ := strings.Cut(string(f.files["ledger/checkpoint"]), "\n\n")
			f.files["ledger/checkpoint"] = noteOf(text+"\n", newKey("sallyport/demo/inside"))
		}},
		{name: "another role in the root", codes: "root-pin", change: func(f *forged) { f.edit("root/1", "role officer olga", "role officer dave") }},
		{name: "root of another officer", codes: "root-threshold", change: func(f *forged) {
			f.note("root/1", "root/1", "\n", "\n", "dave/allowlist")
		}},
		{name: "root that nobody signed", codes: "root-note", change: func(f *forged) {
			text, _, _ := strings.Cut(string(f.files["root/1"]), "\n\n")
			f.files["root/1"] = []byte(text + "\n")
		}},
		{name: "another allowlist", codes: "allowlist-unrecorded", change: func(f *forged) { f.files["allowlist/dev/2"] = f.files["allowlist/dev/1"] }},
		{name: "signature taken from the allowlist", codes: "allowlist-threshold", change: func(f *forged) {
			f.note("allowlist/dev/1", "allowlist/dev/1", "\n", "\n", "alice/allowlist")
		}},
		{name: "no allowlist", codes: "allowlist-missing not-allowed", change: func(f *forged) { delete(f.files, "allowlist/dev/1") }},
		{name: "no witness", codes: "witness-missing", args: wilma, change: func(f *forged) { delete(f.files, "witness/wilma") }},
		{name: "witness under another name", codes: "checkpoint-unsigned", change: func(f *forged) { f.files["witness/walt"] = f.files["witness/wilma"]; delete(f.files, "witness/wilma") }},
		// Officers and reviewers who sign what they must not.
		{name: "root that no entry records", codes: "root-unrecorded", change: func(f *forged) {
			f.note("root/1", "root/2", "version 1\n", "version 2\n", "olga/root")
			f.note("root/2", "root/2", "previous -", "previous "+f.digest(), "olga/root")
		}},
		{name: "root that follows no other", codes: "root-previous", change: func(f *forged) {
			f.note("root/1", "root/2", "version 1\n", "version 2\n", "olga/root")
			f.note("root/2", "root/2", "previous -", "previous "+hexSum(nil), "olga/root")
		}},
		{name: "other items", codes: "allowlist-equivocation not-allowed", change: func(f *forged) {
			f.note("allowlist/dev/1", "allowlist/dev/1", "hello-1.0.drv", "hello-1.1.drv", "alice/allowlist", "bob/allowlist")
		}},
		// The station with its keys, and a witness who has not looked yet.
		{name: "entry dropped", codes: "witness-fork", change: drop("signed")},
		{name: "entry changed", codes: "witness-fork", change: station("inspected", `"files":`, `"files":1`)},
		{name: "nobody imported it", codes: "approval-unshipped witness-rollback", change: func(f *forged) { f.drop("imported"); f.drop("imported") }},
		{name: "the station imports", codes: "approval-unshipped statement-person statement-role witness-fork", change: func(f *forged) {
			f.drop("imported")
			f.station("imported", `"person"`, `"person"`)
		}},
		{name: "one approval", codes: "approval-missing witness-fork", change: drop("approved")},
		{name: "an approval with another signature", codes: "approval-signature witness-fork", change: station("approved", `"signature":"— bob/allowlist `, `"signature":"— bob/allowlist AAAA`)},
		{name: "nobody allowed it", codes: "allowlist-unrecorded not-allowed witness-fork", change: drop("allowed")},
		{name: "allowed by one person twice", codes: "approval-duplicate approval-missing witness-fork", change: station("allowed", `["alice","bob"]`, `["bob","bob"]`)},
		{name: "one builder", codes: "quorum-builders quorum-waiting witness-fork", change: drop("built")},
		{name: "builder of the station's", codes: "quorum-builders quorum-waiting statement-person statement-role witness-fork", change: station("built", `"person"`, `"person"`)},
		{name: "agreed on something else", codes: "quorum-dissent witness-fork", change: station("agreed", `-hello-1.0","digest"`, `-hello-1.1","digest"`)},
		{name: "agreed by fewer", codes: "quorum-waiting witness-fork", change: func(f *forged) {
			f.station("agreed", f.secret(f.key("frank/statement"), "frank/statement").id(), f.secret(f.key("erin/statement"), "erin/statement").id())
		}},
		{name: "rejected for another reason", codes: "rejection-signature witness-fork", change: station("rejected", "who asked for it?", "nobody knows")},
		{name: "rejected by another person", codes: "rejection-person witness-fork", change: station("rejected", `"person":"bob"`, `"person":"alice"`)},
		{name: "made for another zone", codes: "statement-zone witness-fork", change: station("signed", "sallyport/demo/inside", "sallyport/demo/outside")},
		{name: "white space", codes: "statement-not-canonical witness-fork", change: station("signed", `"predicate":{`, `"predicate": {`)},
		{name: "kind that nobody knows", codes: "statement-kind witness-fork", change: station("signed", "statement:signed:1", "statement:blessed:1")},
		{name: "member missing", codes: "statement-predicate witness-fork", change: station("signed", `"track":"dev",`, "")},
		{name: "created again", codes: "ledger-created", change: func(f *forged) {
			f.rewrite(func(l [][]byte) [][]byte { return append(l, l[0]) })
		}},
		{name: "shipment imported twice", codes: "shipment-replayed", change: func(f *forged) {
			f.rewrite(func(l [][]byte) [][]byte {
				return append(l, l[slices.IndexFunc(l, func(b []byte) bool { return kindOf(b) == "imported" })])
			})
		}},
		// A builder and an importer with their keys.
		{name: "a builder who contradicts itself", codes: "quorum-dissent witness-fork", change: func(f *forged) {
			f.rewrite(func(l [][]byte) [][]byte {
				at := slices.IndexFunc(l, func(b []byte) bool { return kindOf(b) == "built" })
				st := &statement{}
				_, err := st.parse(l[at])
				f.must(err)
				for _, person := range []string{"erin", "frank"} {
					if k := f.secret(f.key(person+"/statement"), person+"/statement"); k.id() == st.keyid {
						l = slices.Insert(l, at+1, seal(k, strings.Replace(st.payload, `"size":`, `"size":1`, 1)))
					}
				}
				delete(f.files, "witness/wilma")
				return l
			})
		}},
		{name: "a reviewer who rejects what he imported", codes: "rejection-own-import", change: func(f *forged) {
			f.rewrite(func(l [][]byte) [][]byte {
				at := slices.IndexFunc(l, func(b []byte) bool { return kindOf(b) == "rejected" })
				st := &statement{}
				_, err := st.parse(l[at])
				f.must(err)
				text := fmt.Sprintf("sallyport rejection v1\nenclave demo\nshipment 2\nmanifest %s\ndate %s\nreason %s\n", st.subjects[0].digest, st.text("date"), st.text("reason"))
				dave := f.secret(f.key("dave/allowlist"), "dave/allowlist")
				body := strings.Replace(st.payload, st.text("signature"), strings.TrimSuffix(dave.sigLine(text), "\n"), 1)
				return append(l, seal(f.secret("inside/keys/station.key", "station/statement"), strings.Replace(body, `"person":"bob"`, `"person":"dave"`, 1)))
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &forged{&zone{t, z.dir, z.pin}, map[string][]byte{}}
			for name, data := range public {
				f.files[name] = slices.Clone(data)
			}
			c.change(f)
			args := append([]string{"enclave", "--root", z.pin, writeFiles(t, t.TempDir(), f.files)}, c.args...)
			if c.codes == "" {
				args = append(args, kinds...)
			}
			expect(t, c.codes, args...)
		})
	}
	t.Run("volume", func(t *testing.T) { realVolume(t, z) })
}

// realVolume has both implementations judge a volume. They must agree whether it is good, and on the codes where it is not.
func realVolume(t *testing.T, z *zone) {
	volume := readTree(t, z.path("volume-1"))
	paper, err := os.ReadFile(z.path("slip-1"))
	must(t, err)
	var anItem string
	for name := range volume {
		if strings.HasPrefix(name, "items/") {
			anItem = name
		}
	}
	carol, sums := z.secret(z.key("carol/manifest"), "carol/manifest"), z.secret(z.key("carol/sums"), "carol/sums")
	public, err := os.ReadFile(z.path(z.key("carol/sums") + ".pub"))
	must(t, err)
	rawKey, _ := decode64(strings.Fields(string(public))[len(strings.Fields(string(public)))-1])
	for _, c := range []struct {
		name, codes string
		change      func(files map[string][]byte) (slip []byte)
	}{
		{"as it was made", "", func(map[string][]byte) []byte { return paper }},
		{"item", "item-digest", func(f map[string][]byte) []byte { f[anItem][9] ^= 1; return paper }},
		{"item cut", "item-size", func(f map[string][]byte) []byte { f[anItem] = f[anItem][1:]; return paper }},
		{"item missing", "volume-missing", func(f map[string][]byte) []byte { delete(f, anItem); return paper }},
		{"README", "volume-sum", func(f map[string][]byte) []byte { f["README.txt"][9] ^= 1; return paper }},
		{"extra file", "volume-extra", func(f map[string][]byte) []byte { f["autorun.inf"] = nil; return paper }},
		{"sums", "volume-signature volume-sum", func(f map[string][]byte) []byte {
			b := f["SHA256SUMS"]
			b[0] = map[bool]byte{true: '1', false: '0'}[b[0] == '0']
			return paper
		}},
		{"line of the sums", "volume-signature volume-uncovered", func(f map[string][]byte) []byte {
			_, f["SHA512SUMS"], _ = bytes.Cut(f["SHA512SUMS"], []byte("\n"))
			return paper
		}},
		{"signature of the sums", "volume-signature", func(f map[string][]byte) []byte {
			f["SHA256SUMS.minisig"] = f["SHA512SUMS.minisig"]
			return paper
		}},
		{"sums missing", "volume-missing", func(f map[string][]byte) []byte { delete(f, "SHA512SUMS.minisig"); return paper }},
		{"manifest", "slip-mismatch", func(f map[string][]byte) []byte { f["manifest"][99] ^= 1; return paper }},
		{"manifest by somebody else", "manifest-unsigned", func(f map[string][]byte) []byte {
			text, _, _ := strings.Cut(string(f["manifest"]), "\n\n")
			return reissue(f, text+"\n", paper, newKey("carol/manifest"))
		}},
		{"manifest for another enclave", "manifest-enclave", func(f map[string][]byte) []byte {
			text, _, _ := strings.Cut(string(f["manifest"]), "\n\n")
			return bytes.Replace(reissue(f, strings.Replace(text, "enclave demo", "enclave demi", 1)+"\n", paper, carol), []byte("enclave demo"), []byte("enclave demi"), 1)
		}},
		{"trusted comment", "volume-signature", func(f map[string][]byte) []byte {
			d := newBlake2b()
			d.Write(f["SHA256SUMS"])
			digest := d.sum()
			sig := ed25519.Sign(sums.priv, digest[:])
			comment := "sallyport demo shipment 2"
			f["SHA256SUMS.minisig"] = []byte("untrusted comment: x\n" + b64(slices.Concat([]byte("ED"), rawKey[2:10], sig)) + "\ntrusted comment: " + comment + "\n" + b64(ed25519.Sign(sums.priv, append(sig, comment...))) + "\n")
			return paper
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string][]byte{}
			for name, data := range volume {
				files[name] = slices.Clone(data)
			}
			slip := c.change(files)
			dir := writeFiles(t, t.TempDir(), files)
			at := filepath.Join(t.TempDir(), "slip")
			must(t, os.WriteFile(at, slip, 0o644))
			expect(t, c.codes, "volume", "--root", z.pin, "--roots", z.path("inside/public/root"), "--slip", at, dir)
			_, out, _ := (&zone{t, z.dir, z.pin}).run("sallyport", "shipment", "verify", "--json", "--root", "inside/public/root", "--fingerprint", z.pin, "--slip", at, dir)
			var said struct{ Reasons []struct{ Code string } }
			must(t, json.Unmarshal(out, &said))
			var codes []string
			for _, r := range said.Reasons {
				codes = append(codes, r.Code)
			}
			slices.Sort(codes)
			if got := strings.Join(slices.Compact(codes), " "); got != c.codes {
				t.Errorf("the writer says %q, the auditor %q", got, c.codes)
			}
		})
	}
}

// reissue gives a volume another manifest, and the slip that belongs to it.
func reissue(files map[string][]byte, text string, paper []byte, by *tkey) []byte {
	old := hexSum(files["manifest"])
	files["manifest"] = noteOf(text, by)
	return bytes.Replace(paper, []byte(old), []byte(hexSum(files["manifest"])), 1)
}
