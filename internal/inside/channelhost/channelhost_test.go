package channelhost

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/serve"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

var long = flag.Bool("long", false, "fifty clones at once, of a channel of four thousand commits")

var suite enclavetest.Suite

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedDir); dir != "" {
		serveUntilKilled(dir)
	}
	if dir := os.Getenv(fullDir); dir != "" {
		serveOnFullDisk(dir)
	}
	os.Exit(suite.Run(m))
}

func find(t testing.TB) *gitrun.Git {
	t.Helper()
	g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
	if err != nil && strings.Contains(err.Error(), "git is missing") {
		suite.Skipped = true
		t.Skip("SKIPPED, NOT TESTED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// client runs git as anybody does who has not configured it.
func client(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@x", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@x"}
	return cmd.CombinedOutput()
}

func must(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := client(t.Context(), dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, tail(out))
	}
	return string(out)
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }

// A channel is a repository that grows.
type channel struct {
	name    string
	dir     string
	commits []git.ID
	keyring git.ID
}

// newChannel makes a channel of so many commits; every hundredth is a merge. Files are large enough to make a pack that takes a while.
func newChannel(t testing.TB, name string, commits int) *channel {
	t.Helper()
	c := &channel{name: name, dir: filepath.Join(t.TempDir(), name+".git")}
	must(t, "", "init", "-q", "--bare", "-b", "master", c.dir)
	var b bytes.Buffer
	fmt.Fprintf(&b, "commit refs/heads/keyring\ncommitter K <k@x> 1000000000 +0000\ndata 5\nkeys\nM 644 inline a.key\ndata 7\nno key\n\n")
	for i := range commits {
		fmt.Fprintf(&b, "commit refs/heads/master\nmark :%d\ncommitter A <a@x> %d +0000\ndata %d\ncommit %d of %s\n\n", i+1, 1000000000+i, len(fmt.Sprintf("commit %d of %s\n", i, name)), i, name)
		if i > 0 {
			fmt.Fprintf(&b, "from :%d\n", i)
		}
		if i > 5 && i%100 == 0 {
			fmt.Fprintf(&b, "merge :%d\n", i-3)
		}
		text := strings.Repeat(fmt.Sprintf("(define-public p%d %q)\n", i, name), 20)
		fmt.Fprintf(&b, "M 644 inline gnu/packages/d%d/p%d.scm\ndata %d\n%s\n", i%17, i%301, len(text), text)
	}
	b.WriteString("done\n")
	cmd := exec.Command("git", "fast-import", "--quiet", "--done")
	cmd.Dir, cmd.Stdin = c.dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fast-import: %v\n%s", err, out)
	}
	for line := range strings.Lines(must(t, c.dir, "rev-list", "--reverse", "--topo-order", "master")) {
		c.commits = append(c.commits, parse(t, strings.TrimSpace(line)))
	}
	c.keyring = parse(t, strings.TrimSpace(must(t, c.dir, "rev-parse", "keyring")))
	return c
}

func parse(t testing.TB, s string) git.ID {
	t.Helper()
	id, err := git.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// noise adds a commit with so many bytes that cannot be compressed.
func (c *channel) noise(t testing.TB, size int) git.ID {
	t.Helper()
	noise := make([]byte, size)
	rand.Read(noise)
	if err := os.WriteFile(filepath.Join(c.dir, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	blob := strings.TrimSpace(must(t, c.dir, "hash-object", "-w", "noise"))
	cmd := exec.Command("git", "-C", c.dir, "mktree")
	cmd.Stdin = strings.NewReader("100644 blob " + blob + "\tnoise\n")
	tree, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, strings.TrimSpace(must(t, c.dir, "commit-tree", "-m", "noise", "-p", c.commits[len(c.commits)-1].String(), strings.TrimSpace(string(tree)))))
}

// item makes the item of a commit; basis is nil for a complete one.
func (c *channel) item(t testing.TB, g *gitrun.Git, commit git.ID, basis *git.ID) enclavetest.Content {
	t.Helper()
	r, err := authenticate.Open(c.dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := &pin.Pin{Channel: c.name, URL: "https://git.example.org/" + c.name + ".git", Branch: "master", Introduction: c.commits[0], Signer: openpgp.Fingerprint{1, 2, 3},
		Keyring: c.keyring, Commit: commit, NarHash: trust.Sum([]byte("nar")), NarSize: 1000}
	var keys git.ID
	if basis != nil {
		p.Basis, keys = *basis, c.keyring
	}
	var b bytes.Buffer
	if err := pin.Create(t.Context(), g, r, t.TempDir(), p, keys, &b); err != nil {
		t.Fatal(err)
	}
	return itemOf(t, p, b.Bytes())
}

func itemOf(t testing.TB, p *pin.Pin, data []byte) enclavetest.Content {
	t.Helper()
	path, err := storepath.Source(p.StoreName(), trust.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	return enclavetest.Content{Item: trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Kind: trust.KindChannel, Name: path.Base()}, Data: data}
}

// A house is an enclave with a host in front of its track dev.
type house struct {
	*enclavetest.Enclave
	t     testing.TB
	git   *gitrun.Git
	host  *Host
	url   string
	close func()
}

func newHouse(t testing.TB) *house {
	t.Helper()
	return &house{Enclave: enclavetest.New(t), t: t, git: find(t)}
}

// serve starts a host, on the state that an earlier one may have left.
func (h *house) serve(change ...func(o *Options)) {
	h.t.Helper()
	o := Options{Zone: h.Zone, Track: "dev", Git: h.git, Log: h.Log.Logger()}
	for _, c := range change {
		c(&o)
	}
	var err error
	if h.host, err = Open(o); err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	srv := h.host.Server()
	done := make(chan struct{})
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			h.t.Errorf("serve: %v", err)
		}
		close(done)
	}()
	h.close = sync.OnceFunc(func() {
		srv.Close()
		<-done
		if err := h.host.Close(); err != nil {
			h.t.Errorf("close: %v", err)
		}
	})
	h.t.Cleanup(h.close)
	h.url = "http://" + l.Addr().String()
}

// ready waits until all is prepared.
func (h *house) ready() {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Minute)
	defer cancel()
	if err := h.host.Ready(ctx); err != nil {
		h.t.Fatalf("not ready: %v\n%s", err, h.Log)
	}
}

// get makes a request.
func (h *house) get(path string, change ...func(r *http.Request)) (*http.Response, string) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, c := range change {
		c(r)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		h.t.Fatalf("%s %s: %v", r.Method, path, err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		h.t.Fatalf("%s %s: %v", r.Method, path, err)
	}
	if code := res.Header.Get(serve.ReasonHeader); code != "" {
		suite.Seen(code)
	}
	return res, b.String()
}

// wants demands a code and a reason.
func (h *house) wants(path string, code int, reason string, change ...func(r *http.Request)) string {
	h.t.Helper()
	res, body := h.get(path, change...)
	if res.StatusCode != code || res.Header.Get(serve.ReasonHeader) != reason {
		h.t.Errorf("%s: %d %q, want %d %q: %.300s", path, res.StatusCode, res.Header.Get(serve.ReasonHeader), code, reason, body)
	}
	return body
}

// pins reads a channels.scm and returns the commits that it names.
func (h *house) pins(path string) map[string]string {
	h.t.Helper()
	body := h.wants(path, 200, "")
	all, err := scheme.Channels([]byte(body))
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", path, err, body)
	}
	pins := map[string]string{}
	for _, c := range all {
		pins[c.Name] = c.Commit
	}
	return pins
}

func (h *house) clone(name string, args ...string) (dir string, err error) {
	h.t.Helper()
	dir = filepath.Join(h.t.TempDir(), "clone")
	out, err := client(h.t.Context(), "", slices.Concat([]string{"-c", "fetch.fsckObjects=true"}, args, []string{"clone", "-q", h.url + "/git/" + name, dir})...)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, tail(out))
	}
	return dir, err
}

// TestServed: what is allowed is cloned with each version of the protocol, whole, and nothing more; releases have their texts.
func TestServed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 250)
	other := newChannel(t, "tools", 5)
	h.Allow("dev", h.Source("unrelated", "unrelated"))
	a := c.item(t, h.git, c.commits[100], nil)
	b := c.item(t, h.git, c.commits[200], &c.commits[100])
	h.Allow("dev", a)
	h.serve()
	h.wants("/dev/channels.scm", 503, "not-ready")
	h.ready()
	h.wants("/dev/releases/1/channels.scm", 404, "no-channel")
	h.wants("/dev/releases/3/channels.scm", 404, "")
	first := h.wants("/dev/releases/2/channels.scm", 200, "")
	if got := h.pins("/dev/channels.scm"); len(got) != 1 || got["guix"] != c.commits[100].String() {
		t.Errorf("%v", got)
	}
	h.Allow("dev", b)
	h.Allow("dev", other.item(t, h.git, other.commits[4], nil))
	h.ready()
	if again := h.wants("/dev/releases/2/channels.scm", 200, ""); again != first {
		t.Errorf("the text of a release has changed:\n%s\n%s", first, again)
	}
	last := map[string]string{"guix": c.commits[200].String(), "tools": other.commits[4].String()}
	for path, want := range map[string]map[string]string{"/dev/releases/3/channels.scm": {"guix": c.commits[200].String()}, "/dev/releases/4/channels.scm": last, "/dev/channels.scm": last} {
		if got := h.pins(path); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v", path, got)
		}
	}
	if x, y := h.wants("/dev/releases/4/channels.scm", 200, ""), h.wants("/dev/channels.scm", 200, ""); x != y {
		t.Errorf("the newest is not the newest release:\n%s\n%s", x, y)
	}

	want := must(t, c.dir, "rev-list", "--objects", c.commits[200].String(), c.keyring.String())
	for version := range 3 {
		dir, err := h.clone("guix", "-c", fmt.Sprintf("protocol.version=%d", version))
		if err != nil {
			t.Fatal(err)
		}
		if refs := must(t, dir, "for-each-ref", "--format=%(refname) %(objectname)", "refs/remotes"); refs != fmt.Sprintf("refs/remotes/origin/HEAD %[1]s\nrefs/remotes/origin/keyring %[2]s\nrefs/remotes/origin/master %[1]s\n", c.commits[200], c.keyring) {
			t.Errorf("version %d: %s", version, refs)
		}
		if out := must(t, dir, "fsck", "--full", "--strict"); out != "" {
			t.Errorf("version %d: %s", version, out)
		}
		if got := must(t, dir, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)"); strings.Count(got, "\n") != strings.Count(want, "\n") {
			t.Errorf("version %d: %d objects, not %d", version, strings.Count(got, "\n"), strings.Count(want, "\n"))
		}
	}
	dir, err := h.clone("tools", "-c", "transfer.fsckObjects=true", "-c", "uploadpack.allowFilter=true")
	if err != nil {
		t.Fatal(err)
	}
	if must(t, dir, "rev-parse", "HEAD") != other.commits[4].String()+"\n" {
		t.Error("another commit")
	}
	// What is there can be had shallow, too; and news are fetched.
	shallow := filepath.Join(t.TempDir(), "shallow")
	must(t, "", "clone", "-q", "--depth", "3", "-b", "master", h.url+"/git/guix", shallow)
	if n := must(t, shallow, "rev-list", "--count", "--first-parent", "HEAD"); n != "3\n" {
		t.Errorf("%s commits", n)
	}
	must(t, shallow, "fetch", "-q", "--unshallow")
	must(t, shallow, "fsck", "--full")
	dir, err = h.clone("guix")
	if err != nil {
		t.Fatal(err)
	}
	h.Allow("dev", c.item(t, h.git, c.commits[249], &c.commits[200]))
	h.ready()
	must(t, dir, "pull", "-q", "--ff-only")
	if must(t, dir, "rev-parse", "HEAD") != c.commits[249].String()+"\n" {
		t.Error("the news were not pulled")
	}
	if again := h.wants("/dev/releases/2/channels.scm", 200, ""); again != first {
		t.Errorf("the text of a release has changed:\n%s\n%s", first, again)
	}
	// The channel under its own URL.
	for _, host := range []string{"git.example.org", "GIT.example.org:443"} {
		res, body := h.get("/guix.git/info/refs?service=git-upload-pack", func(r *http.Request) { r.Host = host })
		if res.StatusCode != 200 || !strings.Contains(body, c.commits[249].String()) {
			t.Errorf("%s: %d %.100s", host, res.StatusCode, body)
		}
	}
	h.wants("/guix.git/info/refs?service=git-upload-pack", 404, "")
	// One repository a channel is left.
	h.host.Ready(t.Context())
	waitFor(t, func() bool { return len(repositories(t, h.host.Dir)) == 2 })
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for range 30_000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it did not come")
}

func repositories(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.git"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestUnreleased: what was not released cannot be had, however it is asked for.
func TestUnreleased(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 60)
	complete, next := c.item(t, h.git, c.commits[30], nil), c.item(t, h.git, c.commits[40], &c.commits[30])
	h.Allow("dev", complete)
	h.Allow("prod", complete, next) // of another track
	h.Put(c.item(t, h.git, c.commits[50], nil).Data)
	h.serve()
	h.ready()
	// The next commit, one of another track, one that only lies in the store, one that is nowhere here; a tree and a file.
	secret := []string{c.commits[31].String(), c.commits[40].String(), c.commits[50].String(), c.commits[59].String()}
	secret = append(secret, strings.TrimSpace(must(t, c.dir, "rev-parse", c.commits[40].String()+":gnu/packages")))
	secret = append(secret, strings.TrimSpace(must(t, c.dir, "rev-parse", c.commits[40].String()+":gnu/packages/d6/p40.scm")))
	dir, err := h.clone("guix")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range secret {
		for version := range 3 {
			for _, more := range [][]string{nil, {"--depth=1"}, {"--filter=blob:none"}} {
				args := slices.Concat([]string{"-c", fmt.Sprintf("protocol.version=%d", version), "-c", "uploadpack.allowAnySHA1InWant=true", "fetch", "-q"}, more, []string{"origin", id})
				if out, err := client(t.Context(), dir, args...); err == nil {
					t.Errorf("%v: fetched: %s", args, tail(out))
				}
			}
		}
		if _, err := client(t.Context(), dir, "cat-file", "-e", id); err == nil {
			t.Errorf("%s is in a clone", id)
		}
		// By hand, without what git's own client refuses by itself.
		for _, request := range []string{
			pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+id+"\n") + pkt("done\n") + "0000",
			pkt("command=fetch") + "0001" + pkt("want-ref "+id+"\n") + pkt("done\n") + "0000",
			pkt("command=fetch") + "0001" + pkt("filter blob:none\n") + pkt("want "+id+"\n") + pkt("done\n") + "0000",
			pkt("command=object-info") + "0001" + pkt("size") + pkt("oid "+id) + "0000",
		} {
			res, body := h.post("/git/guix/git-upload-pack", request, func(r *http.Request) { r.Header.Set("Git-Protocol", "version=2") })
			if strings.Contains(body, "PACK") || res.StatusCode == 200 && !strings.Contains(body, "ERR") && strings.Contains(strings.ReplaceAll(body, pkt(id+" "), ""), id) {
				t.Errorf("%d %.300q", res.StatusCode, body)
			}
		}
		res, body := h.post("/git/guix/git-upload-pack", pkt("want "+id+" no-progress allow-any-sha1-in-want allow-tip-sha1-in-want allow-reachable-sha1-in-want filter\n")+"0000"+pkt("done\n"))
		if strings.Contains(body, "PACK") || res.StatusCode == 200 && !strings.Contains(body, "ERR upload-pack: not our ref") {
			t.Errorf("%d %.300q", res.StatusCode, body)
		}
	}
	// It is not there at all, on the disk either.
	for _, repository := range repositories(t, h.host.Dir) {
		objects, err := objectsOf(filepath.Join(repository, "objects"))
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range secret {
			if objects[parse(t, id)] {
				t.Errorf("%s is in %s", id, repository)
			}
		}
		if want := strings.Count(must(t, c.dir, "rev-list", "--objects", c.commits[30].String(), c.keyring.String()), "\n"); len(objects) != want {
			t.Errorf("%d objects, not %d", len(objects), want)
		}
	}
	if out, err := client(t.Context(), dir, "push", "-q", h.url+"/git/guix", "HEAD:refs/heads/new"); err == nil || !bytes.Contains(out, []byte("403")) {
		t.Errorf("pushed: %v %s", err, out)
	}
}

func pkt(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

func (h *house) post(path, body string, change ...func(r *http.Request)) (*http.Response, string) {
	h.t.Helper()
	return h.get(path, append([]func(r *http.Request){func(r *http.Request) {
		again, err := http.NewRequest(http.MethodPost, h.url+path, strings.NewReader(body))
		if err != nil {
			h.t.Fatal(err)
		}
		*r = *again.WithContext(r.Context())
		r.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	}}, change...)...)
}

// Extra objects in an item's pack are not served: nothing leads to them. The first item makes a repository, the second adds to it.
func TestMoreThanHistory(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 20)
	cmd := exec.Command("git", "-C", c.dir, "pack-objects", "-q", "--revs", "--stdout")
	cmd.Stdin = strings.NewReader("master\nkeyring\n")
	all, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	full := func(honest enclavetest.Content) enclavetest.Content {
		t.Helper()
		p, header, err := pin.Open(bytes.NewReader(honest.Data), new(bytes.Buffer))
		if err != nil {
			t.Fatal(err)
		}
		return itemOf(t, p, narOf(t, append(header.Text(), all...), p.Text()))
	}
	h.serve()
	for i, it := range []enclavetest.Content{full(c.item(t, h.git, c.commits[10], nil)), full(c.item(t, h.git, c.commits[14], &c.commits[10]))} {
		h.Allow("dev", it)
		h.ready()
		at := []int{10, 14}[i]
		waitFor(t, func() bool { return len(repositories(t, h.host.Dir)) == 1 })
		repository := repositories(t, h.host.Dir)[0]
		objects, err := objectsOf(filepath.Join(repository, "objects"))
		want := strings.Count(must(t, c.dir, "rev-list", "--objects", c.commits[at].String(), c.keyring.String()), "\n")
		if err != nil || objects[c.commits[at+1]] || !objects[c.commits[at]] || len(objects) != want {
			t.Errorf("%d objects, not %d; %v", len(objects), want, err)
		}
		if packs, err := packsOf(repository); err != nil || len(packs) != i+1 {
			t.Errorf("%v %v", packs, err)
		}
		if bitmaps, err := filepath.Glob(filepath.Join(repository, "objects", "pack", "*.bitmap")); err != nil || len(bitmaps) != 1 {
			t.Errorf("%v %v", bitmaps, err)
		}
		request := pkt("command=fetch") + "0001" + pkt("want "+c.commits[at+1].String()+"\n") + pkt("done\n") + "0000"
		if _, body := h.post("/git/guix/git-upload-pack", request, func(r *http.Request) { r.Header.Set("Git-Protocol", "version=2") }); !strings.Contains(body, "not our ref") {
			t.Errorf("%.300q", body)
		}
		if dir, err := h.clone("guix"); err != nil || must(t, dir, "fsck", "--full") != "" {
			t.Errorf("%v", err)
		}
	}
}

// TestClonesMeanwhile: releases come and clients clone and fetch at the same time, none of them in vain.
func TestClonesMeanwhile(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 300)
	h.Allow("dev", c.item(t, h.git, c.commits[100], nil))
	h.serve()
	h.ready()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range 3 {
		dir := filepath.Join(t.TempDir(), "clone.git")
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				args := []string{"-c", fmt.Sprintf("protocol.version=%d", i), "clone", "-q", "--mirror", h.url + "/git/guix", dir}
				if n%4 != 0 {
					args = []string{"-c", fmt.Sprintf("protocol.version=%d", i), "--git-dir", dir, "fetch", "-q"}
				} else {
					os.RemoveAll(dir)
				}
				if out, err := client(t.Context(), "", args...); err != nil {
					t.Errorf("%v: %v: %s", args, err, tail(out))
					return
				}
			}
		})
	}
	for i := 110; i < 300; i += 20 {
		h.Allow("dev", c.item(t, h.git, c.commits[i], &c.commits[100]))
		h.ready()
	}
	close(stop)
	wg.Wait()
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[290].String()+"\n" {
		t.Errorf("%v", err)
	}
}

// TestGrows: release after release is put beside the ones before, and now and then packed together.
func TestGrows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 30)
	h.serve()
	most := 0
	for i := 1; i < 26; i++ {
		basis := &c.commits[i-1]
		if i == 1 {
			basis = nil
		}
		h.Allow("dev", c.item(t, h.git, c.commits[i], basis))
		h.ready()
		waitFor(t, func() bool { return len(repositories(t, h.host.Dir)) == 1 })
		packs, err := packsOf(repositories(t, h.host.Dir)[0])
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, len(packs))
	}
	if most != maxPacks {
		t.Errorf("%d packs at most, not %d", most, maxPacks)
	}
	dir, err := h.clone("guix")
	if err != nil {
		t.Fatal(err)
	}
	if must(t, dir, "fsck", "--full") != "" || must(t, dir, "rev-parse", "HEAD") != c.commits[25].String()+"\n" {
		t.Error("not whole")
	}
	if got := h.pins("/dev/releases/7/channels.scm")["guix"]; got != c.commits[7].String() {
		t.Error(got)
	}
}

// TestRecall: what is recalled is gone with the first request; what was there before it is served.
func TestRecall(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 60)
	a, b, d := c.item(t, h.git, c.commits[20], nil), c.item(t, h.git, c.commits[30], &c.commits[20]), c.item(t, h.git, c.commits[40], &c.commits[30])
	h.Allow("dev", a)
	h.Allow("dev", b)
	h.Allow("dev", d)
	h.serve()
	h.ready()
	release := h.wants("/dev/releases/1/channels.scm", 200, "")
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[40].String() {
		t.Error(got)
	}
	h.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: b.SHA256, Name: b.Name, Date: o.Date, Reason: "malice"})
	})
	// At once: neither the commit nor what stands on it.
	for range 2 {
		for _, commit := range []git.ID{c.commits[30], c.commits[40]} {
			_, body := h.post("/git/guix/git-upload-pack", pkt("command=fetch")+"0001"+pkt("want "+commit.String()+"\n")+pkt("done\n")+"0000", func(r *http.Request) { r.Header.Set("Git-Protocol", "version=2") })
			if strings.Contains(body, "PACK") {
				t.Errorf("%.300q", body)
			}
		}
		h.wants("/dev/releases/2/channels.scm", 404, "recalled")
		h.ready()
	}
	h.wants("/dev/releases/3/channels.scm", 404, "release-behind")
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[20].String() {
		t.Error(got)
	}
	if again := h.wants("/dev/releases/1/channels.scm", 200, ""); again != release {
		t.Errorf("the text of a release has changed:\n%s\n%s", release, again)
	}
	dir, err := h.clone("guix")
	if err != nil {
		t.Fatal(err)
	}
	if got := must(t, dir, "rev-parse", "HEAD"); got != c.commits[20].String()+"\n" {
		t.Error(got)
	}
	waitFor(t, func() bool { return len(repositories(t, h.host.Dir)) == 1 })
	// A later one, complete, is another item.
	h.Allow("dev", c.item(t, h.git, c.commits[50], nil))
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[50].String() {
		t.Error(got)
	}
	// And all of them gone: there is no channel.
	h.Order(func(o *trust.Orders) {
		for _, it := range []enclavetest.Content{a, c.item(t, h.git, c.commits[50], nil)} {
			o.Recalls = append(o.Recalls, trust.Recall{SHA256: it.SHA256, Name: it.Name, Date: o.Date, Reason: "malice"})
		}
	})
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "recalled")
	h.ready()
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "channel-basis")
	h.wants("/dev/channels.scm", 404, "no-channel")
}

// An answer that is under way is cut by a recall.
func TestRecallCuts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 3)
	commit := c.noise(t, 32<<20) // more than what lies between the two ends of a connection
	a := c.item(t, h.git, commit, nil)
	h.Allow("dev", a)
	h.serve()
	h.ready()
	conn := dial(t, h.url)
	defer conn.Close()
	request := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+commit.String()+"\n") + pkt("done\n") + "0000"
	fmt.Fprintf(conn, "POST /git/guix/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: %d\r\n\r\n%s", len(request), request)
	first := make([]byte, 1000)
	if _, err := conn.Read(first); err != nil || !bytes.Contains(first, []byte("200 OK")) {
		t.Fatalf("%v %q", err, first)
	}
	h.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: a.SHA256, Name: a.Name, Date: o.Date, Reason: "malice"})
	})
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "recalled")
	var rest bytes.Buffer
	conn.SetReadDeadline(time.Now().Add(5 * time.Minute))
	rest.ReadFrom(conn)
	if bytes.HasSuffix(rest.Bytes(), []byte("0\r\n\r\n")) {
		t.Error("the answer was sent to its end")
	}
}

// Items whose basis is not there, that are lost, or that came together.
func TestWhichPin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 60)
	h.serve()
	h.wants("/dev/channels.scm", 503, "no-allowlist")
	b := c.item(t, h.git, c.commits[30], &c.commits[20])
	h.Allow("dev", b)
	h.ready()
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "channel-basis")
	h.wants("/git/none/info/refs?service=git-upload-pack", 404, "not-allowed")
	h.wants("/dev/channels.scm", 404, "no-channel")
	// Then the basis, and two more, all at once: the one that descends from the others is the newest.
	h.Allow("dev", c.item(t, h.git, c.commits[20], nil), c.item(t, h.git, c.commits[45], nil), c.item(t, h.git, c.commits[40], nil))
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[45].String() {
		t.Error(got)
	}
	h.wants("/dev/releases/1/channels.scm", 404, "no-channel")
	// Back, as officers may order it; what was there before is not served any more.
	h.Allow("dev", c.item(t, h.git, c.commits[10], nil))
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[10].String() {
		t.Error(got)
	}
	h.wants("/dev/releases/2/channels.scm", 404, "release-behind")
	// And on from there.
	h.Allow("dev", c.item(t, h.git, c.commits[50], &c.commits[10]))
	h.ready()
	if got := h.pins("/dev/releases/2/channels.scm")["guix"]; got != c.commits[45].String() {
		t.Error(got)
	}
	// On a commit that nobody pinned here, but that is in the history of what was.
	h.Allow("dev", c.item(t, h.git, c.commits[55], &c.commits[48]))
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[55].String() {
		t.Error(got)
	}
	h.close()
	h.serve()
	h.ready()
	if got := h.pins("/dev/releases/5/channels.scm")["guix"]; got != c.commits[55].String() {
		t.Error(got)
	}
	// Two that have nothing to do with each other.
	side := newChannel(t, "guix", 3)
	for i := range side.commits {
		side.commits[i] = parse(t, strings.TrimSpace(must(t, side.dir, "commit-tree", "-m", fmt.Sprint("side ", i), side.commits[i].String()+"^{tree}")))
	}
	x, y := side.item(t, h.git, side.commits[1], nil), side.item(t, h.git, side.commits[2], nil)
	h.Allow("dev", x, y)
	h.ready()
	h.wants("/dev/releases/6/channels.scm", 404, "channel-ambiguous")
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[55].String()+"\n" {
		t.Errorf("what was served before is not served on: %v", err)
	}
	h.close()
	h.serve()
	h.ready()
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "channel-ambiguous")
	// Officers say that one of them may be gone back to.
	h.Order(func(o *trust.Orders) {
		o.Downgrades = append(o.Downgrades, trust.Downgrade{Channel: "guix", Commit: side.commits[2].String(), Date: o.Date, Reason: "the other line"})
	})
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != side.commits[2].String() {
		t.Error(got)
	}
}

// An item that is lost, or is not what it says, or is another's.
func TestBadItems(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 20)
	a, b := c.item(t, h.git, c.commits[5], nil), c.item(t, h.git, c.commits[10], &c.commits[5])
	h.Allow("dev", a)
	h.Allow("dev", b)
	if err := h.Zone.CAS.Remove(b.SHA256); err != nil {
		t.Fatal(err)
	}
	h.serve()
	h.ready()
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[5].String()+"\n" {
		t.Errorf("%v", err)
	}
	h.wants("/dev/releases/2/channels.scm", 404, "item-lost")
	h.wants("/dev/releases/1/channels.scm", 200, "")
	if !strings.Contains(h.Log.String(), "item-lost") {
		t.Errorf("%s", h.Log)
	}
	// Under another name.
	d := c.item(t, h.git, c.commits[15], nil)
	p, _, err := pin.Open(bytes.NewReader(d.Data), new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	p.Channel = "tools"
	wrong := itemOf(t, p, d.Data)
	// Without an object that it needs.
	var pack bytes.Buffer
	p, header, err := pin.Open(bytes.NewReader(b.Data), &pack)
	if err != nil {
		t.Fatal(err)
	}
	p.Channel, p.Basis, header.Basis, header.BasisKeyring = "thin", git.ID{}, git.ID{}, git.ID{}
	thin := itemOf(t, p, narOf(t, append(header.Text(), pack.Bytes()...), p.Text()))
	// With objects, but not the commit.
	p.Channel, p.Commit = "none", c.commits[19]
	header.Commit = p.Commit
	pack.Reset()
	if _, _, err := pin.Open(bytes.NewReader(a.Data), &pack); err != nil {
		t.Fatal(err)
	}
	none := itemOf(t, p, narOf(t, append(header.Text(), pack.Bytes()...), p.Text()))
	h.Allow("dev", wrong, thin, none)
	h.ready0()
	h.wants("/git/tools/info/refs?service=git-upload-pack", 404, "item-path")
	h.wants("/git/thin/info/refs?service=git-upload-pack", 404, "channel-pack")
	if res, body := h.get("/git/none/info/refs?service=git-upload-pack"); res.StatusCode == 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[5].String()+"\n" {
		t.Errorf("%v", err)
	}
}

// ready0 waits until something was prepared for the newest documents, whole or not.
func (h *house) ready0() {
	h.t.Helper()
	waitFor(h.t, func() bool {
		s, err := h.host.now(h.t.Context())
		p := h.host.prepared.Load()
		return err == nil && p != nil && p.state.view == s.view
	})
}

// A list that is not the ledger's, or that is older than one that was served; a host that cannot serve says so.
func TestFloor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 5)
	a := c.item(t, h.git, c.commits[1], nil)
	h.Allow("dev", a)
	h.serve()
	h.ready()
	h.wants("/dev/channels.scm", 200, "")
	h.Allow("dev", c.item(t, h.git, c.commits[2], nil))
	h.ready()
	h.close()
	// Back to the older one, as root on the station can have the rows.
	h.Exec(`DELETE FROM allowlist WHERE version = 2`)
	h.serve()
	h.wants("/dev/channels.scm", 503, "allowlist-rollback")
	h.wants("/git/guix/info/refs?service=git-upload-pack", 503, "allowlist-rollback")
	if err := h.host.Check(t.Context()); err == nil {
		t.Error("it would serve")
	}
}

func TestOldLists(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 5)
	for i := range 3 {
		h.Allow("dev", c.item(t, h.git, c.commits[i+1], nil))
	}
	name := func(n int) string { return filepath.Join(h.Zone.Dir, "public", "allowlist", "dev", fmt.Sprint(n)) }
	one, err := os.ReadFile(name(1))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(name(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{nil, one, bytes.Replace(two, []byte("date 2"), []byte("date 3"), 1)} {
		if err := os.Remove(name(2)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		if text != nil {
			if err := os.WriteFile(name(2), text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		h.serve()
		h.ready()
		h.wants("/dev/releases/1/channels.scm", 404, "release-lost")
		h.wants("/dev/releases/2/channels.scm", 404, "release-lost")
		if got := h.pins("/dev/releases/3/channels.scm")["guix"]; got != c.commits[3].String() {
			t.Error(got)
		}
		h.close()
	}
	if !strings.Contains(h.Log.String(), "allowlist-previous") {
		t.Errorf("%s", h.Log)
	}
	suite.Seen("allowlist-previous")
}

// What officers let in for a while is served for a while.
func TestGlass(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 20)
	a, b := c.item(t, h.git, c.commits[5], nil), c.item(t, h.git, c.commits[10], &c.commits[5])
	h.Allow("dev", a)
	h.Put(b.Data)
	h.serve()
	h.ready()
	release := h.wants("/dev/releases/1/channels.scm", 200, "")
	h.NextRoot(func(r *trust.Root) { r.Policies[trust.PolicyBreakGlass] = "24" })
	h.Order(func(o *trust.Orders) {
		o.BreakGlass = append(o.BreakGlass, trust.BreakGlass{Track: "dev", Until: o.Date.Add(time.Hour), Item: b.Item, Date: o.Date, Reason: "fire"})
	})
	h.ready()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[10].String() {
		t.Error(got)
	}
	if again := h.wants("/dev/releases/1/channels.scm", 200, ""); again != release {
		t.Errorf("%s", again)
	}
	h.Sleep(2 * time.Hour)
	res, _ := h.get("/git/guix/info/refs?service=git-upload-pack")
	if res.StatusCode == 200 {
		t.Error("it is served still")
	}
	h.ready()
	if got := h.wants("/dev/channels.scm", 200, ""); got != release {
		t.Errorf("%s", got)
	}
}

// A list that witnesses have to cosign is not acted on before they have; its recalls are.
func TestCosigned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 20)
	a := c.item(t, h.git, c.commits[5], nil)
	h.Allow("dev", a)
	state := filepath.Join(t.TempDir(), "state")
	h.NextRoot(func(r *trust.Root) {
		r.Policies[trust.PolicyCosigned+"dev"] = "1"
		for _, person := range []string{"wilma", "walt"} {
			r.Keys = append(r.Keys, enclavetest.Key(t, person+"/witness").RootKey())
			r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleWitness, Person: person})
		}
	})
	cosign := func() {
		t.Helper()
		note, err := store.Witness(state, h.Zone.LedgerFS(), h.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), h.Clock())
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := h.Zone.AddCosigned(t.Context(), note); err != nil {
			t.Fatal(err)
		}
	}
	h.serve()
	h.wants("/dev/channels.scm", 503, "not-cosigned")
	suite.Want(t, h.host.Ready(t.Context()), "not-cosigned", "not-cosigned", "not-cosigned")
	cosign()
	h.settle()
	release := h.wants("/dev/channels.scm", 200, "")
	b := c.item(t, h.git, c.commits[10], nil)
	h.Allow("dev", b)
	h.wants("/dev/releases/2/channels.scm", 503, "not-cosigned")
	if again := h.wants("/dev/channels.scm", 200, ""); again != release {
		t.Errorf("%s", again)
	}
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[5].String()+"\n" {
		t.Errorf("%v", err)
	}
	h.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: a.SHA256, Name: a.Name, Date: o.Date, Reason: "malice"})
	})
	h.wants("/git/guix/info/refs?service=git-upload-pack", 404, "recalled")
	cosign()
	h.settle()
	if got := h.pins("/dev/channels.scm")["guix"]; got != c.commits[10].String() {
		t.Error(got)
	}
}

// settle waits until a list is not held back any more, and all is prepared.
func (h *house) settle() {
	h.t.Helper()
	for range 6000 {
		s, err := h.host.now(h.t.Context())
		if err != nil {
			h.t.Fatal(err)
		}
		if s.held == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.ready()
}

// One host a directory; and what a killed one left is used again, or swept.
func TestState(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 30)
	h.Allow("dev", c.item(t, h.git, c.commits[5], nil))
	h.serve()
	h.ready()
	if _, err := Open(Options{Zone: h.Zone, Track: "dev", Git: h.git, Log: h.Log.Logger()}); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("%v", err)
	}
	dir := h.host.Dir
	h.close()
	before := repositories(t, dir)
	st, err := os.Stat(before[0])
	if err != nil {
		t.Fatal(err)
	}
	h.serve()
	h.ready()
	if again, err := os.Stat(before[0]); err != nil || !os.SameFile(st, again) {
		t.Errorf("it was made again: %v", err)
	}
	h.close()
	packs, err := filepath.Glob(filepath.Join(before[0], "objects", "pack", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatal(packs, err)
	}
	data, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	for _, err := range []error{os.Chmod(packs[0], 0o644), os.WriteFile(packs[0], data, 0o644), os.MkdirAll(filepath.Join(dir, "old.git", "objects"), 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.serve()
	h.ready()
	if _, err := h.clone("guix"); err != nil {
		t.Error(err)
	}
	waitFor(t, func() bool { return slices.Equal(repositories(t, dir), before) })
}

func hostOf(t testing.TB, base string) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}
