package e2e_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// envAll asks for every change to the auditor's inputs, not for some that the dice choose.
const envAll = "SALLYPORT_E2E_ALL"

// manual is the document that these tests follow word for word.
const manual = "../docs/operate/audit.md"

// A section of the manual: its blocks of commands, and what each prints.
type section struct {
	number int
	title  string
	blocks []block
}

type block struct {
	line    int // of the manual
	code    string
	output  string // what it is said to print; lines may be, or have in them, an ellipsis
	claimed bool
}

// readManual takes the manual apart.
func readManual(t *testing.T) []section {
	t.Helper()
	sections := []section{{}}
	var b *strings.Builder
	var kind string
	var start int
	for n, line := range strings.Split(string(read(t, manual)), "\n") {
		last := &sections[len(sections)-1]
		switch {
		case b != nil && line == "```":
			switch {
			case kind == "sh":
				last.blocks = append(last.blocks, block{line: start, code: b.String()})
			case kind == "text" && len(last.blocks) > 0 && !last.blocks[len(last.blocks)-1].claimed:
				x := &last.blocks[len(last.blocks)-1]
				x.output, x.claimed = b.String(), true
			default:
				t.Fatalf("%s:%d: a block %q that belongs to nothing", manual, start, kind)
			}
			b = nil
		case b != nil:
			b.WriteString(line + "\n")
		case strings.HasPrefix(line, "```"):
			b, kind, start = &strings.Builder{}, line[3:], n+2
		case strings.HasPrefix(line, "## "):
			s := section{title: line[3:]}
			if _, err := fmt.Sscanf(s.title, "%d.", &s.number); err != nil || s.number != len(sections) {
				t.Fatalf("%s:%d: section %q, want number %d", manual, n+1, s.title, len(sections))
			}
			sections = append(sections, s)
		}
	}
	if len(sections) < 10 {
		t.Fatalf("%s has %d sections: this test looks at the wrong thing", manual, len(sections))
	}
	return sections
}

// printed says whether what was printed is what the manual claims.
func (b block) printed(out string) bool {
	if !b.claimed {
		return out == ""
	}
	var pattern strings.Builder
	for line := range strings.Lines(b.output) {
		if line == "…\n" {
			pattern.WriteString("(?:.*\n)*")
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*"))
	}
	return regexp.MustCompile("^(?:" + pattern.String() + ")$").MatchString(out)
}

const mark = "@@@ end of block\n"

// remember is what is run behind a section: the shell's memory, to begin the next one from.
const remember = `for v in $(compgen -v); do case $v in [a-z]*) declare -p "$v" ;; esac; done > %[1]s 2> /dev/null; declare -f >> %[1]s; echo 'set -eu -o pipefail; shopt -s inherit_errexit globstar dotglob nullglob; export LC_ALL=C' >> %[1]s` + "\n"

// bash runs a script with bash -eu.
func bash(t testing.TB, dir, script string) (stdout, stderr string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	file := filepath.Join(t.TempDir(), "script")
	write(t, file, []byte(script), 0o644)
	cmd := exec.CommandContext(ctx, "bash", "-eu", file)
	cmd.Dir = dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// auditWorld makes an enclave in which everything has happened that the manual speaks of, and the directory that an auditor brings home.
func auditWorld(t *testing.T) (w *world, audit string) {
	t.Helper()
	w = &world{t: t, dir: t.TempDir()}
	for d := w.dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755) // builds run as another user
	}
	t.Cleanup(func() { openTree(w.dir) })
	w.keys = w.path("keys")
	if err := os.Mkdir(w.keys, 0o755); err != nil {
		t.Fatal(err)
	}
	who := []string{"olga/root", "olga/order", "oscar/root", "oscar/order", "carol/manifest", "carol/sums", "dave/statement", "dave/allowlist", "alice/allowlist", "bob/allowlist",
		"erin/statement", "frank/statement", "wilma/witness", "dev/narinfo"}
	for _, k := range who {
		w.must(whole, "key", "generate", "--quiet", "--no-passphrase", k, w.key(k))
	}
	copyTree(t, filepath.Join(binDir, "deeds"), w.path("goods", "tool", "bin", "deeds"))
	write(t, w.path("goods", "words", "greeting"), []byte("hello, world\n"), 0o644)
	write(t, w.path("goods", "more", "note"), []byte("one more\n"), 0o644)
	w.must(whole, "init", "--kind", "outside", "--enclave", enclave, "outside")
	w.ship(1, request{map[string]string{"words": "goods/words"}, map[string][]string{"hello-1.0": {"copy {words}/greeting $out", "print made of words"}}})
	w.must(whole, "collect", "--zone", "outside", "--quiet", w.plain("more"))
	w.must(whole, "shipment", "create", "--zone", "outside", "--quiet", "--key", w.key("carol/manifest"), "--sums-key", w.key("carol/sums"), "--slip", "slip-2.txt", "volume-2")

	w.must(station, "init", "--kind", "inside", "--enclave", enclave, "inside")
	args := []string{station, "trust", "init", "--zone", "inside", "--draft", "root-1.draft", "--threshold", "root=2", "--threshold", "order=2", "--threshold", "allowlist/" + track + "=2", "--policy", "quorum=2"}
	for _, k := range who {
		args = append(args, "--enroll", w.key(k)+".pub")
	}
	for _, r := range []string{"officer=olga", "officer=oscar", "collector=carol", "importer=dave", "reviewer=alice", "reviewer=bob", "reviewer=dave", "builder=erin", "builder=frank", "witness=wilma"} {
		args = append(args, "--role", r)
	}
	w.must(args...)
	w.officers("trust", "root", "root-1.draft")
	w.must(station, "trust", "accept", "--zone", "inside", "--fingerprint", w.digest("root-1.draft"), "root-1.draft")
	w.admit(1)

	// wilma cosigns by file.
	log := strings.TrimSpace(string(read(t, w.path("inside", "keys", "ledger.vkey"))))
	w.must(station, "ledger", "witness", "export", "--zone", "inside", "--for", "wilma", "--out", "for-wilma")
	w.must(whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "wilma", "--log", log, "--out", "from-wilma", "for-wilma")
	w.must(station, "ledger", "witness", "add", "--zone", "inside", "from-wilma")
	kept := read(t, w.path("inside", "public", "ledger", "checkpoint"))

	w.must(station, "trust", "policy", "--zone", "inside", "--draft", "root-2.draft", "silence", "30")
	w.renewal("root-2.draft", "ledger", "station")
	w.officers("trust", "root", "root-2.draft")
	w.must(station, "trust", "accept", "--zone", "inside", "root-2.draft")
	w.must(station, "order", "lost", "--zone", "inside", "--draft", "orders-1.draft", "--reason", "disc destroyed", "9")
	w.officers("order", "order", "orders-1.draft")
	w.must(station, "order", "accept", "--zone", "inside", "orders-1.draft")

	d := w.depot()
	for i, person := range []string{"erin", "frank"} {
		dir, result := fmt.Sprintf("builder-%d", i+1), fmt.Sprintf("result-%d", i+1)
		w.builder(dir, person, d.url)
		w.must(w.buildArgs(dir, result, w.named(1, ".drv").Name)...)
		w.must(w.submitArgs(result)...)
	}
	d.stop()
	w.admit(2)
	w.must(station, "recall", "--zone", "inside", "--draft", "orders-2.draft", "--reason", "it says hello", w.named(2, "more-1").Name)
	w.officers("order", "order", "orders-2.draft")
	w.must(station, "order", "accept", "--zone", "inside", "orders-2.draft")

	audit = w.path("audit")
	copyTree(t, w.path("inside", "public"), filepath.Join(audit, "public"))
	for _, v := range []string{"volume-1", "volume-2", "slip-1.txt", "slip-2.txt"} {
		copyTree(t, w.path(v), filepath.Join(audit, v))
	}
	var root struct{ Fingerprint string }
	w.get(&root, station, "trust", "show", "--zone", "inside", "--version", "1")
	write(t, filepath.Join(audit, "paper"), []byte(root.Fingerprint+"\n"), 0o644)
	write(t, filepath.Join(audit, "checkpoint-of-last-time"), kept, 0o644)
	list := textOf(t, read(t, w.path("inside", "public", "allowlist", track, "1")))
	w.must(station, "ledger", "prove", "--zone", "inside", "--kind", "allowed", "--digest", trust.Sum(list).String(), "--out", filepath.Join(audit, "entry.tlog-proof"))
	return w, audit
}

// plain writes a request for one tree, without the tool.
func (w *world) plain(label string) string {
	file := "request-" + label + ".toml"
	write(w.t, w.path(file), fmt.Appendf(nil, "enclave = %q\n\n[[source]]\nlabel = %q\nname = %q\nfrom = \"path\"\npath = %q\n", enclave, label, label+"-1", "goods/"+label), 0o644)
	return file
}

// digest is that of a draft, as two officers compare it over the telephone.
func (w *world) digest(draft string) string {
	w.t.Helper()
	return trust.Sum(read(w.t, w.path(draft))).String()
}

// officers sign a draft.
func (w *world) officers(noun, context, draft string) {
	w.t.Helper()
	for _, o := range []string{"olga", "oscar"} {
		w.must(station, noun, "sign", "--zone", "inside", "--key", w.key(o+"/"+context), "--fingerprint", w.digest(draft), draft)
	}
}

// needs skips a test, loudly, where a program is missing.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("NOT TESTED: that docs/operate/audit.md is true: %s is not installed here; remedy: apt-get install jq minisign openssl openssh-client", p)
		}
	}
}

// A change is what somebody does to the auditor's directory; the named section must notice.
type change struct {
	name    string
	section int
	do      func(t *testing.T, dir string)
}

// TestAuditByHand follows docs/operate/audit.md word for word over an enclave: each block must print what the manual says. Then bytes of each input are changed, one
// at a time, and the section that is about it must fail, from where the one before it ended.
func TestAuditByHand(t *testing.T) {
	needs(t, "bash", "jq", "minisign", "openssl", "ssh-keygen")
	t.Parallel()
	sections := readManual(t)
	w, audit := auditWorld(t)

	// All of it, in one go.
	shots := filepath.Join(w.dir, "shots")
	if err := os.Mkdir(shots, 0o755); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for _, s := range sections {
		for _, b := range s.blocks {
			script.WriteString(b.code + "echo -n '" + mark + "'\n")
		}
		fmt.Fprintf(&script, "if [ -d work ]; then cp -a work %s/work-%d; fi\n", shots, s.number)
		fmt.Fprintf(&script, remember, fmt.Sprintf("%s/shell-%d", shots, s.number))
	}
	out, errs, err := bash(t, audit, script.String())
	rest := out
	for _, s := range sections {
		for _, b := range s.blocks {
			have, after, ok := strings.Cut(rest, mark)
			if !ok {
				t.Fatalf("%s:%d: the audit ends here: %v\n%s%s", manual, b.line, err, rest, errs)
			}
			if rest = after; !b.printed(have) {
				t.Errorf("%s:%d: it prints\n%s\nthe manual says\n%s", manual, b.line, have, b.output)
			}
		}
	}
	if err != nil || errs != "" || rest != "" {
		t.Fatalf("%v; beyond what the manual says:\n%s%s", err, rest, errs)
	}

	changes := w.changes(audit)
	var wg sync.WaitGroup
	work := make(chan change)
	var mu sync.Mutex
	unnoticed := 0
	for k := range 2 {
		wg.Go(func() {
			dir := filepath.Join(w.dir, fmt.Sprintf("tampered-%d", k))
			for c := range work {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
				copyTree(t, audit, dir)
				os.RemoveAll(filepath.Join(dir, "work"))
				copyTree(t, filepath.Join(shots, fmt.Sprintf("work-%d", c.section-1)), filepath.Join(dir, "work"))
				if c.do != nil {
					c.do(t, dir)
				}
				var script strings.Builder
				fmt.Fprintf(&script, "source %s/shell-%d\n", shots, c.section-1)
				for _, b := range sections[c.section].blocks {
					script.WriteString(b.code)
				}
				out, errs, err := bash(t, dir, script.String())
				if _, err := os.Lstat(filepath.Join(dir, "pwned")); err == nil {
					t.Errorf("section %d: %s: what was brought along was run as a command", c.section, c.name)
				}
				if c.do == nil && err != nil {
					t.Errorf("section %d does not run by itself: %v\n%s%s", c.section, err, out, errs)
				}
				if c.do != nil && err == nil {
					t.Errorf("section %d does not notice: %s\n%s%s", c.section, c.name, out, errs)
					mu.Lock()
					unnoticed++
					mu.Unlock()
				}
			}
		})
	}
	// A run takes some of them, another run others: each is a few hundred processes.
	random, share := dice(t), 3
	if testing.Short() {
		share = 12
	}
	start, tried := time.Now(), 0
	for _, c := range changes {
		if c.do == nil || os.Getenv(envAll) != "" || random.IntN(share) == 0 {
			work <- c
			tried++
		}
	}
	close(work)
	wg.Wait()
	t.Logf("%d of %d changes, %d unnoticed, in %v; %s=1 tries all", tried, len(changes), unnoticed, time.Since(start).Round(time.Second), envAll)
}

// changes lists what is done to each input. A change without a deed is none: the section must pass.
func (w *world) changes(audit string) []change {
	w.t.Helper()
	var list []change
	flip := func(section int, file string, at int) {
		list = append(list, change{fmt.Sprintf("byte %d of %s", at, file), section, func(t *testing.T, dir string) {
			data := read(t, filepath.Join(dir, file))
			data[at] ^= 1
			write(t, filepath.Join(dir, file), data, 0o644)
		}})
	}
	edit := func(section int, name, file string, how func([]byte) []byte) {
		list = append(list, change{name, section, func(t *testing.T, dir string) {
			before := read(t, filepath.Join(dir, file))
			after := how(bytes.Clone(before))
			if bytes.Equal(before, after) {
				t.Errorf("%s: nothing was changed", name)
			}
			write(t, filepath.Join(dir, file), after, 0o644)
		}})
	}
	remove := func(section int, file string) {
		list = append(list, change{"without " + file, section, func(t *testing.T, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, file)); err != nil {
				t.Error(err)
			}
		}})
	}
	for s := 3; s <= 11; s++ {
		list = append(list, change{section: s})
	}

	// Notes: in the text, and in each signature, in the middle of it.
	for _, n := range []struct {
		section int
		files   []string
	}{
		{3, []string{"public/root/1", "public/root/2"}},
		{4, []string{"public/ledger/checkpoint"}},
		{7, []string{"public/orders/1", "public/orders/2"}},
		{8, []string{"public/allowlist/dev/1", "public/allowlist/dev/2"}},
		{9, []string{"public/witness/wilma", "checkpoint-of-last-time"}},
	} {
		section := n.section
		for _, file := range n.files {
			data := read(w.t, filepath.Join(audit, file))
			text := textOf(w.t, data)
			flip(section, file, len(text)/2)
			flip(section, file, len(text)-2)
			at := len(text) + 1
			for line := range bytes.Lines(data[at:]) {
				flip(section, file, at+len(line)-60) // of the signature
				at += len(line)
			}
			flip(section, file, len(text)+2) // of the em dash
			flip(section, file, len(text)+7) // of the name
			edit(section, "a line of signatures less in "+file, file, func(b []byte) []byte {
				lines := bytes.SplitAfter(b, []byte("\n"))
				return bytes.Join(lines[:len(lines)-2], nil)
			})
		}
	}
	flip(3, "paper", 0)
	flip(3, "paper", 20)
	remove(3, "public/root/1")
	list = append(list, change{"a root that does not follow", 3, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "public", "root", "3"), read(t, filepath.Join(dir, "public", "root", "2")), 0o644)
	}}, change{"a gap in the roots", 3, func(t *testing.T, dir string) {
		if err := os.Rename(filepath.Join(dir, "public", "root", "2"), filepath.Join(dir, "public", "root", "3")); err != nil {
			t.Error(err)
		}
	}})

	// What is brought along is no command, even where it is signed: the station itself may be the one who lies.
	const command = "a[$(touch pwned)]"
	list = append(list, change{"a size that is a command", 4, func(t *testing.T, dir string) {
		text := fmt.Appendf(nil, "sallyport/%s/inside\n%s\nAAAA\n", enclave, command)
		line, err := trust.SignText(text, w.ledgerKey())
		if err != nil {
			t.Error(err)
		}
		write(t, filepath.Join(dir, "public/ledger/checkpoint"), trust.JoinNote(text, line), 0o644)
	}}, change{"a track that is a command", 8, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "public/allowlist/$(touch pwned)/1"), nil, 0o644)
	}}, change{"a witness who is a command", 9, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "public/witness/a$(touch pwned)"), read(t, filepath.Join(dir, "public/witness/wilma")), 0o644)
	}}, change{"an index that is a command", 11, func(t *testing.T, dir string) {
		b := read(t, filepath.Join(dir, "entry.tlog-proof"))
		write(t, filepath.Join(dir, "entry.tlog-proof"), bytes.Replace(b, []byte("index 8\n"), []byte("index "+command+"\n"), 1), 0o644)
	}}, change{"an entry that steers the terminal", 6, func(t *testing.T, dir string) {
		b := read(t, filepath.Join(dir, "work/entry/0"))
		var e struct{ Payload string }
		if err := json.Unmarshal(b, &e); err != nil {
			t.Error(err)
		}
		payload, err := base64.StdEncoding.DecodeString(e.Payload)
		if err != nil {
			t.Error(err)
		}
		evil := base64.StdEncoding.EncodeToString(bytes.Replace(payload, []byte(`"demo"`), []byte(`"\u001b[2J"`), 1))
		write(t, filepath.Join(dir, "work/entry/0"), bytes.Replace(b, []byte(e.Payload), []byte(evil), 1), 0o644)
	}})

	// The tree.
	_, c, err := w.checkpoint()
	if err != nil {
		w.t.Fatal(err)
	}
	bundle := ledger.Path(tlog.Tile{H: 8, L: -1, W: int(c.Size)})
	tile := ledger.Path(tlog.Tile{H: 8, L: 0, W: int(c.Size)})
	size := len(read(w.t, filepath.Join(audit, "public/ledger", bundle)))
	for i := range 5 {
		flip(5, "public/ledger/"+bundle, i*(size-1)/4)
	}
	for i := range 3 {
		flip(5, "public/ledger/"+tile, i*(int(c.Size)*32-1)/2)
	}
	edit(5, "an entry less", "public/ledger/"+bundle, func(b []byte) []byte { return b[:len(b)-1] })
	edit(5, "a byte more", "public/ledger/"+bundle, func(b []byte) []byte { return append(b, 0) })
	remove(5, "public/ledger/"+bundle)
	remove(5, "public/ledger/"+tile)

	// Entries, of which section 5 has shown that they are the ledger's: what they say must be signed.
	for _, i := range []string{"0", "5"} {
		for _, x := range []int{12, 200, len(w.entry(audit, i)) - 30} {
			flip(6, "work/entry/"+i, x)
		}
	}
	edit(6, "an entry with a space", "work/entry/1", func(b []byte) []byte { return bytes.Replace(b, []byte(`,"payloadType"`), []byte(` ,"payloadType"`), 1) })
	edit(6, "an entry of another order", "work/entry/2", func([]byte) []byte { return []byte("{}") })
	list = append(list, change{"an entry comes twice, another not at all", 6, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "work/entry/3"), read(t, filepath.Join(dir, "work/entry/4")), 0o644)
	}}, change{"a root's entry comes again", 6, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "work/entry/4"), w.entry(dir, "3"), 0o644)
	}})

	remove(7, "public/orders/2")
	remove(7, "public/orders/1")
	remove(8, "public/allowlist/dev/2")
	remove(8, "public/allowlist/dev/1")
	list = append(list, change{"a fork of what was seen last time", 9, func(t *testing.T, dir string) {
		_, c, err := w.checkpoint()
		if err == nil {
			c.Size -= 3
			var note []byte
			if note, err = ledger.SignCheckpoint(c, w.ledgerKey()); err == nil {
				write(t, filepath.Join(dir, "checkpoint-of-last-time"), note, 0o644)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}}, change{"a rollback behind what was seen last time", 9, func(t *testing.T, dir string) {
		_, c, err := w.checkpoint()
		if err == nil {
			c.Size += 3
			var note []byte
			if note, err = ledger.SignCheckpoint(c, w.ledgerKey()); err == nil {
				write(t, filepath.Join(dir, "checkpoint-of-last-time"), note, 0o644)
			}
		}
		if err != nil {
			t.Error(err)
		}
	}})

	// A volume: every file of it, and the slip.
	var files []string
	for _, f := range []string{"README.txt", "SHA256SUMS", "SHA512SUMS", "manifest"} {
		files = append(files, "volume-1/"+f)
	}
	items, err := filepath.Glob(filepath.Join(audit, "volume-1/items/*/*"))
	if err != nil || len(items) != 3 {
		w.t.Fatalf("%v: %q", err, items)
	}
	for _, f := range items {
		rel, err := filepath.Rel(audit, f)
		if err != nil {
			w.t.Fatal(err)
		}
		files = append(files, rel)
	}
	for _, f := range append(files, "slip-1.txt") {
		n := len(read(w.t, filepath.Join(audit, f)))
		flip(10, f, n-n/3)
	}
	for _, f := range []string{"volume-1/SHA256SUMS.minisig", "volume-1/SHA512SUMS.minisig"} {
		data := read(w.t, filepath.Join(audit, f))
		// The first line is covered by nothing, and says so.
		at := bytes.IndexByte(data, '\n') + 1
		for line := range bytes.Lines(data[at:]) {
			flip(10, f, at+len(line)/2)
			at += len(line)
		}
		remove(10, f)
	}
	for _, f := range append(files, "slip-2.txt") {
		remove(10, f)
	}
	list = append(list, change{"a file more", 10, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "volume-1", "items", "autorun"), nil, 0o644)
	}}, change{"a hidden file more", 10, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "volume-1", ".hidden"), nil, 0o644)
	}}, change{"the other volume's slip", 10, func(t *testing.T, dir string) {
		write(t, filepath.Join(dir, "slip-1.txt"), read(t, filepath.Join(dir, "slip-2.txt")), 0o644)
	}})

	// A proof: each line of it.
	at := 0
	for line := range bytes.Lines(read(w.t, filepath.Join(audit, "entry.tlog-proof"))) {
		if x := len(line) / 2; len(line) > 1 {
			flip(11, "entry.tlog-proof", at+x)
		}
		at += len(line)
	}
	edit(11, "an index more", "entry.tlog-proof", func(b []byte) []byte { return bytes.Replace(b, []byte("index 8\n"), []byte("index 9\n"), 1) })
	edit(11, "a hash less", "entry.tlog-proof", func(b []byte) []byte {
		i := bytes.Index(b, []byte("index 8\n")) + len("index 8\n")
		return slices.Delete(b, i, i+45)
	})
	return list
}

// code is all that the manual has typed up to and with a section.
func code(sections []section, numbers ...int) string {
	var b strings.Builder
	for _, n := range numbers {
		for _, x := range sections[n].blocks {
			b.WriteString(x.code)
		}
	}
	return b.String()
}

// TestAuditTree: the commands for the tree are right where it has more than one tile, too, at every kind of right edge.
func TestAuditTree(t *testing.T) {
	needs(t, "bash", "jq", "minisign", "openssl", "ssh-keygen")
	if testing.Short() {
		t.Skip("NOT TESTED with -short: the manual's commands over a tree of several tiles")
	}
	t.Parallel()
	sections := readManual(t)
	dir := t.TempDir()
	const all = 300
	tree := &leaves{}
	b := ledger.NewBatch(0, tree)
	for i := range int64(all) {
		if _, err := b.Append(bytes.Repeat([]byte{byte(i), 0, '\n'}, 1+int(i%5)*100)); err != nil {
			t.Fatal(err)
		}
	}
	_, tree.hashes = b.Hashes()
	for _, x := range ledger.NewTiles(0, all) {
		var data []byte
		var err error
		if x.L < 0 {
			for _, leaf := range b.Leaves()[x.N*256:][:x.W] {
				data = ledger.AppendEntry(data, leaf)
			}
		} else if data, err = tlog.ReadTileData(x, tree); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "public", "ledger", filepath.FromSlash(ledger.Path(x))), data, 0o644)
	}
	at := func(size int64) string {
		c, err := ledger.At("sallyport/demo/inside", size, tree)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", c.Root[:])
	}
	script := code(sections, 1, 2) + fmt.Sprintf("size=%d tree=%s\n", all, at(all)) + code(sections, 5)
	var want strings.Builder
	want.WriteString("all entries are those of the checkpoint\n")
	for _, size := range []int64{3, 40, 256, 257, 299} {
		script += fmt.Sprintf("root_at %d\n", size)
		want.WriteString(at(size) + "\n")
	}
	script += "path 0; path 999; path 1000; path 1234067\n"
	want.WriteString("000\n999\nx001/000\nx001/x234/067\n")
	out, errs, err := bash(t, dir, script)
	if _, after, _ := strings.Cut(out, "all entries"); err != nil || "all entries"+after != want.String() {
		t.Errorf("%v\n%s\n%s\nwant\n%s", err, out, errs, &want)
	}
	// One bit of a full bundle, and of a hash in a full tile.
	for _, file := range []string{"tile/entries/000", "tile/1/000.p/1"} {
		path := filepath.Join(dir, "public", "ledger", file)
		data := read(t, path)
		data[len(data)/2] ^= 1
		write(t, path, data, 0o644)
		if out, _, err := bash(t, dir, code(sections, 1, 2)+fmt.Sprintf("size=%d tree=%s\n", all, at(all))+code(sections, 5)); err == nil {
			t.Errorf("a bit of %s: %s", file, out)
		}
		data[len(data)/2] ^= 1
		write(t, path, data, 0o644)
	}
}

// leaves are the hashes of a tree in memory.
type leaves struct{ hashes []tlog.Hash }

func (l *leaves) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.hashes[x]
	}
	return out, nil
}

// TestAuditKeys: for keys of every kind that may sign for a person the manual's command says what this program says.
func TestAuditKeys(t *testing.T) {
	needs(t, "bash", "jq", "minisign", "openssl", "ssh-keygen")
	t.Parallel()
	sections := readManual(t)
	dir := t.TempDir()
	message := []byte("sallyport allowlist v1\nenclave demo\n")
	write(t, filepath.Join(dir, "message"), message, 0o644)
	const name = "alice/allowlist"
	check := func(what string, k trust.VKey, sig []byte) {
		t.Helper()
		write(t, filepath.Join(dir, "sig"), sig, 0o644)
		other := bytes.Clone(message)
		other[20] ^= 1
		for want, m := range map[bool][]byte{true: message, false: other} {
			if k.Verify(m, sig) != want {
				t.Errorf("%s: this program says %v", what, !want)
			}
			write(t, filepath.Join(dir, "message"), m, 0o644)
			out, errs, err := bash(t, dir, code(sections, 1, 2)+fmt.Sprintf("verify '%s' message sig\n", k))
			if (err == nil) != want {
				t.Errorf("%s: by hand it is %v: %v\n%s%s", what, !want, err, out, errs)
			}
		}
		write(t, filepath.Join(dir, "message"), message, 0o644)
		// The same key under another name, and with another HASH8.
		for _, s := range []string{strings.Replace(k.String(), "alice", "bob", 1), strings.Replace(k.String(), "+", "+0", 1)} {
			if _, _, err := bash(t, dir, code(sections, 1, 2)+fmt.Sprintf("verify '%s' message sig\n", s)); err == nil {
				t.Errorf("%s: %s verifies", what, s)
			}
		}
	}

	plain, err := trust.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := plain.Sign(trust.ContextAllowlist, message)
	if err != nil {
		t.Fatal(err)
	}
	check("ed25519", plain.VKey(), sig)

	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := secret.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	public := append([]byte{2 + point[64]&1}, point[1:33]...)
	k, err := trust.NewVKey(trust.KeyP256, name, public)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256(message)
	for {
		// Of the two signatures that say the same the one with the smaller s is the spelling.
		if sig, err = ecdsa.SignASN1(rand.Reader, secret, hash[:]); err != nil {
			t.Fatal(err)
		}
		if k.Verify(message, sig) {
			break
		}
	}
	check("p256", k, sig)

	for _, algorithm := range []string{"ed25519", "ecdsa"} {
		file := filepath.Join(dir, "id_"+algorithm)
		keygen(t, "-q", "-t", algorithm, "-N", "", "-f", file)
		public, err := base64.StdEncoding.DecodeString(strings.Fields(string(read(t, file+".pub")))[1])
		if err != nil {
			t.Fatal(err)
		}
		k, err := trust.NewVKey(trust.KeySSHSIG, name, public)
		if err != nil {
			t.Fatal(err)
		}
		for try := 0; ; try++ {
			keygen(t, "-q", "-Y", "sign", "-n", "sallyport-allowlist", "-f", file, filepath.Join(dir, "message"))
			lines := strings.Split(strings.TrimSpace(string(read(t, filepath.Join(dir, "message.sig")))), "\n")
			if sig, err = base64.StdEncoding.DecodeString(strings.Join(lines[1:len(lines)-1], "")); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(dir, "message.sig")); err != nil {
				t.Fatal(err)
			}
			// ssh-keygen does not choose the smaller s either.
			if k.Verify(message, sig) || try == 50 {
				break
			}
		}
		check("sshsig, "+algorithm, k, sig)
	}
	if _, errs, err := bash(t, dir, code(sections, 1, 2)+"verify 'a/manifest+"+trust.Sum([]byte("a/manifest\n\xffsallyport-mldsa87")).String()[:8]+"+"+
		base64.StdEncoding.EncodeToString([]byte("\xffsallyport-mldsa87"))+"' message sig\n"); err == nil || !strings.Contains(errs, "does not know") {
		t.Errorf("%v: %s", err, errs)
	}
}

func keygen(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen %q: %v: %s", args, err, out)
	}
}

// entry is one that the auditor has cut out.
func (w *world) entry(audit, index string) []byte {
	w.t.Helper()
	return read(w.t, filepath.Join(audit, "work", "entry", index))
}

func (w *world) checkpoint() ([]byte, ledger.Checkpoint, error) {
	note := read(w.t, w.path("inside", "public", "ledger", "checkpoint"))
	c, err := ledger.OpenCheckpoint(note, w.ledgerKey().Name(), w.ledgerKey().VKey())
	return note, c, err
}

// ledgerKey is the station's: whoever is root there has it.
func (w *world) ledgerKey() *trust.Key {
	w.t.Helper()
	k, err := trust.ParseKey(read(w.t, w.path("inside", "keys", "ledger.key")), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}
