package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/trust"
)

const (
	enclave = "demo"
	track   = "dev"
)

// The programs.
const (
	whole    = "sallyport"
	station  = "sallyport-station"
	verifier = "sallyport-verify"
)

// Exit codes, as the manual has them.
const (
	done        = 0
	failed      = 1
	usage       = 2
	refused     = 3
	waiting     = 4
	interrupted = 130
)

// limit is how long one command may take, on the slowest machine.
const limit = 10 * time.Minute

// persons have keys; mallory's are in no root.
var persons = []string{
	"olga/root", "olga/order", "carol/manifest", "carol/sums", "dave/statement", "dave/allowlist", "alice/allowlist", "bob/allowlist",
	"erin/statement", "frank/statement", "wilma/witness", "dev/narinfo",
}

// officials are the further ones of a world with three officers and two tracks.
var officials = []string{"oscar/root", "oscar/order", "otto/root", "otto/order", "prod/narinfo", "rita/allowlist"}

var strangers = []string{"mallory/root", "mallory/order", "mallory/manifest", "mallory/sums", "mallory/statement", "mallory/allowlist", "mallory-track/narinfo"}

// A world is a directory with keys, an outside, an inside, volumes and slips.
type world struct {
	t     testing.TB
	dir   string
	keys  string // where the keys lie; all worlds share them
	paper string // see fingerprint
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

func (w *world) key(name string) string {
	return filepath.Join(w.keys, strings.ReplaceAll(name, "/", ".")+".key")
}

// secret loads a key, for a test that signs what no program would.
func (w *world) secret(name string) *trust.Key {
	w.t.Helper()
	k, err := trust.ParseKey(read(w.t, w.key(name)), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// public is the third word of a .pub file: the key itself.
func (w *world) public(name string) string {
	w.t.Helper()
	f := strings.Fields(string(read(w.t, w.key(name)+".pub")))
	return f[len(f)-1]
}

func (w *world) acl() signature.ACL {
	w.t.Helper()
	k, err := signature.ParsePublicKeyHex(w.public("dev/narinfo"))
	if err != nil {
		w.t.Fatal(err)
	}
	return signature.NewACL(k)
}

// A result is what a command did.
type result struct {
	args           []string
	code           int // -1: killed by a signal
	stdout, stderr []byte
	took           time.Duration
	peak           int64 // bytes: peak resident memory of the program or of a child of its, whichever is larger
}

func (r *result) String() string {
	return fmt.Sprintf("%s: exit code %d\nstdout: %.3000s\nstderr: %.3000s", strings.Join(r.args, " "), r.code, r.stdout, r.stderr)
}

// command makes a command that runs in the world's directory.
func (w *world) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, args[0]), args[1:]...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(), "SALLYPORT_ZONE=", "SALLYPORT_READER=", "SALLYPORT_PASSPHRASE_FILE=")
	cmd.WaitDelay = time.Minute
	return cmd
}

// a process is a command that is running.
type process struct {
	cmd            *exec.Cmd
	cancel         context.CancelFunc
	start          time.Time
	stdout, stderr bytes.Buffer
	args           []string
}

func (w *world) start(args ...string) *process {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p := &process{cmd: w.command(ctx, args), cancel: cancel, args: args, start: time.Now()}
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func (w *world) wait(p *process) *result {
	w.t.Helper()
	err := p.cmd.Wait()
	took := time.Since(p.start)
	p.cancel()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		w.t.Fatalf("%s: %v", strings.Join(p.args, " "), err)
	}
	if took > limit {
		w.t.Fatalf("%s: not done after %v", strings.Join(p.args, " "), limit)
	}
	r := &result{args: p.args, code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.Bytes(), stderr: p.stderr.Bytes(), took: took}
	if u, ok := p.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		r.peak = u.Maxrss << 10
	}
	return r
}

// run runs a command to its end.
func (w *world) run(args ...string) *result {
	w.t.Helper()
	return w.wait(w.start(args...))
}

// code runs a command that must end with a code.
func (w *world) code(want int, args ...string) *result {
	w.t.Helper()
	r := w.run(args...)
	if r.code != want {
		w.t.Fatalf("exit code %d wanted: %v", want, r)
	}
	return r
}

// must runs a command that must succeed.
func (w *world) must(args ...string) *result {
	w.t.Helper()
	return w.code(done, args...)
}

// get runs a command that must succeed and decodes the one object that it prints.
func (w *world) get(v any, args ...string) {
	w.t.Helper()
	r := w.must(append(args, "--json")...)
	if err := json.Unmarshal(r.stdout, v); err != nil {
		w.t.Fatalf("%v: %v", err, r)
	}
}

// lines decodes one object a line.
func lines[T any](t testing.TB, r *result) []T {
	t.Helper()
	list := []T{}
	for dec := json.NewDecoder(bytes.NewReader(r.stdout)); ; {
		var x T
		if err := dec.Decode(&x); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("%v: %v", err, r)
		}
		list = append(list, x)
	}
}

// reasons are the codes of a refusal that a program printed with --json.
func reasons(t testing.TB, r *result) []string {
	t.Helper()
	var codes []string
	for _, x := range lines[struct {
		Reasons []struct{ Code string }
		Refused json.RawMessage
	}](t, r) {
		for _, y := range x.Reasons {
			codes = append(codes, y.Code)
		}
		var list []struct{ Code string }
		if json.Unmarshal(x.Refused, &list) == nil {
			for _, y := range list {
				codes = append(codes, y.Code)
			}
		}
	}
	return codes
}

// refuses runs a command that must be refused, and for this reason among others.
func (w *world) refuses(reason string, args ...string) *result {
	w.t.Helper()
	r := w.code(refused, append(args, "--json")...)
	if codes := reasons(w.t, r); !slices.Contains(codes, reason) {
		w.t.Fatalf("refused for %q, %q wanted: %v", codes, reason, r)
	}
	return r
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a tree with its modes.
func copyTree(t testing.TB, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if e.IsDir() {
			return os.MkdirAll(target, st.Mode().Perm()|0o700)
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("%s is %s", path, e.Type())
		}
		src, err := os.Open(path)
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, src)
		return errors.Join(err, dst.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// request is what a shipment of a test carries.
type request struct {
	sources     map[string]string // path below the world by label; the tool is always there
	derivations map[string][]string
}

// text prints a request. Every derivation runs the tool with its deeds.
func (q request) text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "enclave = %q\n\n[[source]]\nlabel = \"tool\"\nname = \"tool-1\"\nfrom = \"path\"\npath = \"goods/tool\"\n", enclave)
	for _, label := range sorted(q.sources) {
		fmt.Fprintf(&b, "\n[[source]]\nlabel = %q\nname = %q\nfrom = \"path\"\npath = %q\n", label, label+"-1", q.sources[label])
	}
	for _, name := range sorted(q.derivations) {
		fmt.Fprintf(&b, "\n[[derivation]]\nname = %q\nbuilder = \"{tool}/bin/deeds\"\nargs = [", name)
		for _, deed := range q.derivations[name] {
			fmt.Fprintf(&b, "%q, ", deed)
		}
		b.WriteString("]\n")
	}
	return b.Bytes()
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ship collects a request and cuts volume-N with slip-N.txt.
func (w *world) ship(n int, q request) {
	w.t.Helper()
	write(w.t, w.path(fmt.Sprintf("request-%d.toml", n)), q.text(), 0o644)
	w.must(whole, "collect", "--zone", "outside", "--quiet", fmt.Sprintf("request-%d.toml", n))
	w.must(whole, "shipment", "create", "--zone", "outside", "--quiet", "--key", w.key("carol/manifest"), "--sums-key", w.key("carol/sums"),
		"--slip", fmt.Sprintf("slip-%d.txt", n), fmt.Sprintf("volume-%d", n))
}

// importArgs imports volume-N.
func (w *world) importArgs(n int) []string {
	return w.importOf(fmt.Sprintf("slip-%d.txt", n), fmt.Sprintf("volume-%d", n))
}

func (w *world) importOf(slip, volume string) []string {
	return []string{station, "import", "--zone", "inside", "--slip", slip, "--key", w.key("dave/statement"), volume}
}

func (w *world) approveArgs(n int, person string) []string {
	return []string{station, "review", "approve", "--zone", "inside", "--track", track, "--key", w.key(person + "/allowlist"), fmt.Sprint(n)}
}

func (w *world) signArgs() []string {
	return []string{station, "depot", "sign", "--zone", "inside", "--root", w.fingerprint(), "--track", track, "--track-key", w.key("dev/narinfo")}
}

func (w *world) buildArgs(builder, out, derivation string) []string {
	return []string{station, "build", "--builder", builder, "--out", out, derivation}
}

func (w *world) submitArgs(result string) []string {
	return []string{station, "quorum", "submit", "--zone", "inside", "--track", track, result}
}

// admit takes shipment n in, has it approved by two, and signs what is new.
func (w *world) admit(n int) {
	w.t.Helper()
	w.must(w.importArgs(n)...)
	w.must(w.approveArgs(n, "alice")...)
	w.must(w.approveArgs(n, "bob")...)
	w.must(w.signArgs()...)
}

// fingerprint is that of the enclave's first root, as it would be on paper: of the file that was published when the world was made.
func (w *world) fingerprint() string {
	w.t.Helper()
	if w.paper == "" {
		w.paper = fmt.Sprintf("%x", sha256.Sum256(textOf(w.t, read(w.t, w.path("inside", "public", "root", "1")))))
	}
	return w.paper
}

// builder makes a builder's directory.
func (w *world) builder(dir, person, depot string) {
	w.t.Helper()
	w.must(station, "builder", "init", "--enclave", enclave, "--depot", depot, "--track", track, "--root", w.fingerprint(), "--key", w.key(person+"/statement"), dir)
}

// An item is what a shipment brings, as its manifest says.
type item struct {
	Kind, Name, SHA256 string
	Size               int64
}

// items lists what volume-N offers.
func (w *world) items(n int) []item {
	w.t.Helper()
	return lines[item](w.t, w.must(whole, "shipment", "list", "--json", fmt.Sprintf("volume-%d", n)))
}

// named finds the item of a volume whose name ends so.
func (w *world) named(n int, suffix string) item {
	w.t.Helper()
	for _, it := range w.items(n) {
		if strings.HasSuffix(it.Name, suffix) {
			return it
		}
	}
	w.t.Fatalf("volume-%d has no item %s", n, suffix)
	return item{}
}

// An entry is a line of 'ledger show --json'.
type entry struct {
	Index     int64
	Kind      string
	Key       string
	Subjects  []struct{ Name, SHA256 string }
	Predicate map[string]any
}

func (w *world) entries(zone string) []entry {
	w.t.Helper()
	return lines[entry](w.t, w.must(station, "ledger", "show", "--json", "--zone", zone))
}

// kinds counts a ledger's entries by kind.
func (w *world) kinds(zone string) map[string]int {
	w.t.Helper()
	n := map[string]int{}
	for _, e := range w.entries(zone) {
		n[e.Kind]++
	}
	return n
}

// sound checks the inside's ledger with both implementations.
func (w *world) sound() {
	w.t.Helper()
	w.must(station, "ledger", "verify", "--zone", "inside")
	w.must(verifier, "enclave", "--root", w.fingerprint(), "inside/public")
}

// A shipped is a line of 'review list'.
type shipped struct {
	Shipment, Items, Bytes int64
	State, Importer        string
}

func (w *world) shipments() []shipped {
	w.t.Helper()
	return lines[shipped](w.t, w.must(station, "review", "list", "--zone", "inside", "--json"))
}

// allowed are the item lines of the published allowlist.
func (w *world) allowed(version int) []string {
	w.t.Helper()
	var list []string
	for l := range strings.Lines(string(read(w.t, w.path("inside", "public", "allowlist", track, fmt.Sprint(version))))) {
		if strings.HasPrefix(l, "item ") {
			list = append(list, strings.TrimSpace(l))
		}
	}
	return list
}

// templates are made once, when the first test asks for one.
var templates struct {
	keys, fresh, admitted, governed sync.Once
}

// makeOnce makes a template; if that fails, every test that needs it does.
func makeOnce(t testing.TB, once *sync.Once, dir string, fn func(w *world)) {
	t.Helper()
	mark := dir + ".made"
	once.Do(func() {
		if _, err := os.Stat(mark); err == nil {
			return // by the run that started this one
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		fn(&world{t: t, dir: dir, keys: filepath.Join(shareDir, "keys")})
		write(t, mark, nil, 0o644)
	})
	if _, err := os.Stat(mark); err != nil {
		t.Fatalf("the template %s could not be made; an earlier test says why", filepath.Base(dir))
	}
}

// fresh is a world with three volumes, of which the inside knows nothing yet. What they bring:
//
//	1  the tool, a small tree, the derivation hello-1.0 over both
//	2  a larger tree, the derivation slow-1.0 over it and the tool
//	3  one more tree
func fresh(t testing.TB) string {
	t.Helper()
	makeOnce(t, &templates.keys, filepath.Join(shareDir, "keys"), func(w *world) {
		for _, p := range slices.Concat(persons, officials, strangers) {
			w.must(whole, "key", "generate", "--quiet", "--no-passphrase", p, w.key(p))
		}
	})
	dir := filepath.Join(shareDir, "fresh")
	makeOnce(t, &templates.fresh, dir, func(w *world) {
		copyTree(t, filepath.Join(binDir, "deeds"), w.path("goods", "tool", "bin", "deeds"))
		write(t, w.path("goods", "words", "greeting"), []byte("hello, world\n"), 0o644)
		write(t, w.path("goods", "words", "run.sh"), []byte("#!/bin/sh\necho hello\n"), 0o755)
		write(t, w.path("goods", "words", "deep", "er", "empty"), nil, 0o644)
		for i := range 40 {
			// Text that does not repeat, so that nothing is cheap about it.
			var b bytes.Buffer
			for x := sha256.Sum256([]byte{byte(i)}); b.Len() < 50_000; x = sha256.Sum256(x[:]) {
				fmt.Fprintf(&b, "%x\n", x)
			}
			write(t, w.path("goods", "pages", fmt.Sprintf("page-%02d.txt", i)), b.Bytes(), 0o644)
		}
		write(t, w.path("goods", "more", "note"), []byte("one more\n"), 0o644)
		w.must(whole, "init", "--kind", "outside", "--enclave", enclave, "outside")
		w.ship(1, request{map[string]string{"words": "goods/words"}, map[string][]string{
			"hello-1.0": {"copy {words}/greeting $out", "print made of words"}}})
		w.ship(2, request{map[string]string{"pages": "goods/pages"}, map[string][]string{
			"slow-1.0": {"mkdir $out", "copy {pages}/page-07.txt $out/page", "write /tmp/left-over 644 x", "sleep 150", "copy {tool}/bin/deeds $out/tool", "write $out/end 644 the end"}}})
		w.ship(3, request{map[string]string{"more": "goods/more"}, nil})
		w.must(station, "init", "--kind", "inside", "--enclave", enclave, "inside")
		w.must(w.trustInit()...)
	})
	return dir
}

func (w *world) trustInit() []string {
	args := []string{station, "trust", "init", "--zone", "inside", "--key", w.key("olga/root"), "--threshold", "root=1", "--threshold", "order=1", "--threshold", "allowlist/" + track + "=2", "--policy", "quorum=2"}
	for _, p := range persons {
		args = append(args, "--enroll", w.key(p)+".pub")
	}
	for _, r := range []string{"officer=olga", "collector=carol", "importer=dave", "reviewer=alice", "reviewer=bob", "reviewer=dave", "builder=erin", "builder=frank", "witness=wilma"} {
		args = append(args, "--role", r)
	}
	return args
}

// admitted is a fresh world whose first shipment is allowed and signed.
func admitted(t testing.TB) string {
	t.Helper()
	from := fresh(t)
	dir := filepath.Join(shareDir, "admitted")
	makeOnce(t, &templates.admitted, dir, func(w *world) {
		w.take(from, everything...)
		w.admit(1)
	})
	return dir
}

// governed is like admitted, but with two of three officers for roots and orders, a track prod for which a witness must cosign, and leave to break glass.
func governed(t testing.TB) string {
	t.Helper()
	from := fresh(t)
	dir := filepath.Join(shareDir, "governed")
	makeOnce(t, &templates.governed, dir, func(w *world) {
		for _, p := range everything {
			if p != "inside" {
				w.take(from, p)
			}
		}
		w.must(station, "init", "--kind", "inside", "--enclave", enclave, "inside")
		args := w.trustInit()
		i := slices.Index(args, "--key")
		args = append(slices.Delete(args, i, i+2), // nobody signs at once, and later flags win
			"--draft", "root-1.draft", "--role", "officer=oscar", "--role", "officer=otto", "--role", "reviewer=rita", "--threshold", "allowlist/prod=2",
			"--policy", "cosigned-prod=1", "--policy", "break-glass=24", "--threshold", "root=2", "--threshold", "order=2")
		for _, p := range officials {
			args = append(args, "--enroll", w.key(p)+".pub")
		}
		w.must(args...)
		w.officers("trust", "root", "root-1.draft")
		w.must(station, "trust", "accept", "--zone", "inside", "--fingerprint", w.digest("root-1.draft"), "root-1.draft")
		w.admit(1)
	})
	return dir
}

// everything of a template.
var everything = []string{"goods", "outside", "inside", "volume-1", "volume-2", "volume-3", "slip-1.txt", "slip-2.txt", "slip-3.txt"}

// take copies parts of a template.
func (w *world) take(from string, parts ...string) {
	w.t.Helper()
	for _, p := range parts {
		copyTree(w.t, filepath.Join(from, p), w.path(p))
	}
}

// newWorld copies parts of a template for a test to do with as it likes. Volumes and slips that are not copied are linked: no test changes them.
func newWorld(t testing.TB, template string, parts ...string) *world {
	t.Helper()
	dir := t.TempDir()
	// Builds run as another user.
	for d := dir; d != filepath.Dir(os.TempDir()) && d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	w := &world{t: t, dir: dir, keys: filepath.Join(shareDir, "keys")}
	t.Cleanup(func() { openTree(dir) })
	w.take(template, parts...)
	for _, p := range everything[3:] {
		if !slices.Contains(parts, p) {
			if err := os.Symlink(filepath.Join(template, p), w.path(p)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// openTree lets a tree be removed whose directories are read-only.
func openTree(dir string) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

// craft makes volume and slip, number n, of items that no collector would sign.
func (w *world) craft(n int64, volume, slip string, items map[trust.Item]func() io.Reader) {
	w.t.Helper()
	m := &shipment.Manifest{Enclave: enclave, Number: n, Date: time.Now().UTC().Truncate(time.Second)}
	if n > 1 {
		m.Previous = trust.Sum([]byte("a manifest that nobody has seen"))
	}
	for it := range items {
		m.Items = append(m.Items, it)
	}
	file, err := m.Sign(w.secret("carol/manifest"))
	if err != nil {
		w.t.Fatal(err)
	}
	open := func(it trust.Item) (io.ReadCloser, error) { return io.NopCloser(items[it]()), nil }
	if err := shipment.Write(context.Background(), w.path(volume), m, file, open, w.secret("carol/sums"), nil); err != nil {
		w.t.Fatal(err)
	}
	write(w.t, w.path(slip), shipment.NewSlip(m, file).Text(), 0o644)
}

// source makes an item of kind source of a nar in memory, under its right name.
func source(t testing.TB, name string, data []byte) (trust.Item, func() io.Reader) {
	t.Helper()
	sum := trust.Sum(data)
	p, err := storepath.Source(name, sum)
	if err != nil {
		t.Fatal(err)
	}
	return trust.Item{SHA256: sum, Size: int64(len(data)), Kind: trust.KindSource, Name: p.Base()}, func() io.Reader { return bytes.NewReader(data) }
}

// narOf is the nar of one file.
func narOf(t testing.TB, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.WriteFile(&b, int64(len(content)), false, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
