package channelhost

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/guix/nar"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/serve"
	"sallyport/internal/store"
)

// narOf makes an item's nar of what should stand in it.
func narOf(t testing.TB, bundle, pin []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	write := func(h *nar.Header, data []byte) {
		t.Helper()
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&nar.Header{Type: nar.Directory}); err != nil {
		t.Fatal(err)
	}
	write(&nar.Header{Path: "bundle", Type: nar.Regular, Size: int64(len(bundle))}, bundle)
	write(&nar.Header{Path: "pin", Type: nar.Regular, Size: int64(len(pin))}, pin)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func dial(t testing.TB, url string) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", hostOf(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn)
}

// TestHTTP: each odd request has its answer.
func TestHTTP(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 10)
	h.Allow("dev", c.item(t, h.git, c.commits[5], nil))
	h.serve()
	h.ready()
	method := func(m string) func(*http.Request) { return func(r *http.Request) { r.Method = m } }
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	const refs, upload = "/git/guix/info/refs?service=git-upload-pack", "/git/guix/git-upload-pack"
	for _, tt := range []struct {
		path   string
		code   int
		reason string
		change func(*http.Request)
	}{
		{"/", 404, "", nil},
		{"/git/guix", 404, "", nil},
		{"/git/guix/HEAD", 404, "", nil},
		{"/git/guix/objects/info/packs", 404, "", nil},
		{"/git/guix/info/refs", 404, "", nil},
		{"/git/guix/info/refs?service=git-upload-archive", 404, "", nil},
		{"/git/guix/info/refs?service=git-receive-pack", 403, "read-only", nil},
		{"/git/guix/git-receive-pack", 403, "read-only", method("POST")},
		{"/git/none/info/refs?service=git-receive-pack", 403, "read-only", nil},
		{"/git/../guix/info/refs?service=git-upload-pack", 404, "not-allowed", nil},
		{"/git/none/info/refs?service=git-upload-pack", 404, "not-allowed", nil},
		{"/git/guix%2f/info/refs?service=git-upload-pack", 404, "not-allowed", nil},
		{refs, 200, "", nil},
		{refs, 200, "", method("HEAD")},
		{refs, 405, "", method("POST")},
		{refs, 405, "", method("DELETE")},
		{refs, 405, "", method("OPTIONS")},
		{refs, 200, "", header("Git-Protocol", "x=y:version=2:version=99")},
		{refs, 400, "", header("Git-Protocol", strings.Repeat("x", 300))},
		{upload, 405, "", nil},
		{"/dev/channels.scm", 200, "", nil},
		{"/dev/channels.scm", 200, "", method("HEAD")},
		{"/dev/channels.scm", 405, "", method("POST")},
		{"/dev/channels.scm/", 404, "", nil},
		{"/dev/releases/1/channels.scm", 200, "", nil},
		{"/dev/releases/01/channels.scm", 404, "", nil},
		{"/dev/releases/0/channels.scm", 404, "", nil},
		{"/dev/releases/-1/channels.scm", 404, "", nil},
		{"/dev/releases/99999999999999999999/channels.scm", 404, "", nil},
		{"/dev/releases/2/channels.scm", 404, "", nil},
		{"/dev/releases/1/x", 404, "", nil},
		{"/prod/channels.scm", 404, "", nil},
	} {
		var change []func(*http.Request)
		if tt.change != nil {
			change = append(change, tt.change)
		}
		h.wants(tt.path, tt.code, tt.reason, change...)
	}
	res, body := h.get(refs)
	if res.Header.Get("Content-Type") != "application/x-git-upload-pack-advertisement" || res.Header.Get("Cache-Control") != "no-cache" || !strings.HasPrefix(body, "001e# service=git-upload-pack\n0000") {
		t.Errorf("%v %.100q", res.Header, body)
	}
	if strings.Contains(body, "allow-any-sha1-in-want") || strings.Contains(body, "filter") {
		t.Errorf("%q", body)
	}
	if _, body := h.get(refs, header("Git-Protocol", "version=2")); !strings.HasPrefix(body, "000eversion 2\n") || strings.Contains(body, "filter") {
		t.Errorf("%.100q", body)
	}
	good := pkt("command=ls-refs\n") + "0000"
	v2 := header("Git-Protocol", "version=2")
	var zipped, bomb bytes.Buffer
	for w, data := range map[*bytes.Buffer]io.Reader{&zipped: strings.NewReader(good), &bomb: io.LimitReader(zeros{}, 10*MaxRequest)} {
		z := gzip.NewWriter(w)
		if _, err := io.Copy(z, data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	noise := make([]byte, 100<<10)
	rand.Read(noise)
	for _, tt := range []struct {
		name, body string
		code       int
		change     []func(*http.Request)
	}{
		{"good", good, 200, nil},
		{"gzip", zipped.String(), 200, []func(*http.Request){header("Content-Encoding", "gzip")}},
		{"x-gzip", zipped.String(), 200, []func(*http.Request){header("Content-Encoding", "x-gzip")}},
		{"not gzip", good, 400, []func(*http.Request){header("Content-Encoding", "gzip")}},
		{"cut gzip", zipped.String()[:zipped.Len()-4], 400, []func(*http.Request){header("Content-Encoding", "gzip")}},
		{"bomb", bomb.String(), 413, []func(*http.Request){header("Content-Encoding", "gzip")}},
		{"brotli", good, 415, []func(*http.Request){header("Content-Encoding", "br")}},
		{"large", strings.Repeat("x", MaxRequest+1), 413, nil},
		{"type", good, 415, []func(*http.Request){header("Content-Type", "application/x-git-receive-pack-request")}},
		{"no type", good, 415, []func(*http.Request){func(r *http.Request) { r.Header.Del("Content-Type") }}},
		{"type with charset", good, 200, []func(*http.Request){header("Content-Type", "application/x-git-upload-pack-request; charset=utf-8")}},
		{"noise", string(noise), 400, nil},
		{"no packet", "zzzz", 400, nil},
		{"an unknown command", pkt("command=rm\n") + "0000", 400, nil},
	} {
		res, body := h.post(upload, tt.body, append([]func(*http.Request){v2}, tt.change...)...)
		if res.StatusCode != tt.code {
			t.Errorf("%s: %d, want %d: %.200q", tt.name, res.StatusCode, tt.code, body)
		}
		if tt.code == 200 && !strings.Contains(body, c.commits[5].String()+" refs/heads/master") {
			t.Errorf("%s: %q", tt.name, body)
		}
	}
	if left, err := os.ReadDir(h.host.tmp()); err != nil || len(left) > 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestClients: those that hang, send half, read slowly or leave keep nobody from being served, with one child at a time.
func TestClients(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 1200)
	h.Allow("dev", c.item(t, h.git, c.commits[1199], nil))
	h.serve(func(o *Options) { o.Children = 1 })
	h.ready()
	request := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+c.commits[1199].String()+"\n") + pkt("done\n") + "0000"
	head := "POST /git/guix/git-upload-pack HTTP/1.1\r\nHost: x\r\nGit-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request\r\n"
	var open []net.Conn
	for i := range 60 {
		conn := dial(t, h.url)
		open = append(open, conn)
		switch i % 6 {
		case 0: // says nothing
		case 1:
			fmt.Fprint(conn, head[:20])
		case 2: // half a body
			fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(request), request[:10])
		case 3: // a body of chunks that does not end
			fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n5\r\n00000\r\n", head)
		case 4: // asks, each for something else, and does not read
			conn.SetReadBuffer(4096)
			other := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+c.commits[700+i].String()+"\n") + pkt("done\n") + "0000"
			fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(other), other)
		case 5: // asks and leaves
			other := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+c.commits[500+i].String()+"\n") + pkt("done\n") + "0000"
			fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(other), other)
			conn.SetLinger(0)
			conn.Close()
		}
	}
	begin := time.Now()
	dir, err := h.clone("guix")
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	must(t, dir, "fsck", "--connectivity-only")
	for _, conn := range open {
		conn.Close()
	}
	waitFor(t, func() bool { return h.host.waiting.Load() == 0 && len(h.host.slots) == 0 })
	if took > 30*time.Second {
		// On a machine where the same takes long without them, too, nobody was kept waiting.
		h.close()
		if err := os.RemoveAll(h.host.Dir); err != nil {
			t.Fatal(err)
		}
		h.serve(func(o *Options) { o.Children = 1 })
		h.ready()
		begin = time.Now()
		if _, err := h.clone("guix"); err != nil {
			t.Fatal(err)
		}
		if alone := time.Since(begin); took > 10*alone {
			t.Errorf("it took %v, and alone %v", took, alone)
		}
	}
}

// TestBusy: those for whom there is no place are told to come again.
func TestBusy(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 10)
	h.Allow("dev", c.item(t, h.git, c.commits[9], nil))
	h.serve(func(o *Options) { o.Children, o.Queue = 1, 1 })
	h.ready()
	h.host.slots <- struct{}{} // a child that takes long
	ask := func(i int) (*http.Response, string) {
		return h.post("/git/guix/git-upload-pack", pkt("command=fetch")+"0001"+pkt("want "+c.commits[i].String()+"\n")+pkt("done\n")+"0000", func(r *http.Request) { r.Header.Set("Git-Protocol", "version=2") })
	}
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			if res, body := ask(i); res.StatusCode != 200 || !strings.Contains(body, "PACK") {
				t.Errorf("%d %.100q", res.StatusCode, body)
			}
		})
	}
	waitFor(t, func() bool { return h.host.waiting.Load() == 2 })
	res, _ := ask(3)
	if res.StatusCode != 503 || res.Header.Get(serve.ReasonHeader) != "busy" || res.Header.Get("Retry-After") == "" {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	<-h.host.slots
	wg.Wait()
}

// TestNoRoom: what is kept for those who read slowly leaves the reserve free; who asks for little gets it.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 3)
	commit := c.noise(t, 2<<20)
	h.Allow("dev", c.item(t, h.git, commit, nil))
	h.Zone.Config.Space.Reserve = 1 << 62
	h.serve()
	h.ready()
	for _, tt := range []struct {
		commit string
		whole  bool
	}{{commit.String(), false}, {c.commits[0].String(), true}} {
		conn := dial(t, h.url)
		request := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("want "+tt.commit+"\n") + pkt("done\n") + "0000"
		fmt.Fprintf(conn, "POST /git/guix/git-upload-pack HTTP/1.1\r\nHost: x\r\nConnection: close\r\nGit-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: %d\r\n\r\n%s", len(request), request)
		conn.SetReadDeadline(time.Now().Add(5 * time.Minute))
		var answer bytes.Buffer
		answer.ReadFrom(conn)
		conn.Close()
		if whole := bytes.HasSuffix(answer.Bytes(), []byte("0\r\n\r\n")) && bytes.Contains(answer.Bytes(), []byte("PACK")); whole != tt.whole {
			t.Errorf("%s: %d bytes, whole %t", tt.commit, answer.Len(), whole)
		}
	}
}

// TestManyClones: many at once, all whole.
func TestManyClones(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	clones, commits := 20, 600
	if *long {
		clones, commits = 50, 4000
	}
	c := newChannel(t, "guix", commits)
	h.Allow("dev", c.item(t, h.git, c.commits[commits-1], nil))
	h.serve()
	h.ready()
	begin := time.Now()
	var wg sync.WaitGroup
	dirs := make([]string, clones)
	for i := range clones {
		dirs[i] = filepath.Join(t.TempDir(), "clone.git")
		wg.Go(func() {
			if out, err := client(t.Context(), "", "-c", fmt.Sprintf("protocol.version=%d", i%3), "clone", "-q", "--bare", h.url+"/git/guix", dirs[i]); err != nil {
				t.Errorf("%v: %s", err, tail(out))
			}
		})
	}
	wg.Wait()
	t.Logf("%d clones of %d commits: %v", clones, commits, time.Since(begin))
	want := must(t, c.dir, "rev-list", "--objects", "--all", "--count")
	for i, dir := range dirs {
		if got := must(t, dir, "rev-list", "--objects", "--all", "--count"); got != want {
			t.Errorf("%d: %s objects, not %s", i, got, want)
		}
	}
}

const killedDir = "SALLYPORT_TEST_KILLED_ZONE"

// serveUntilKilled is a host in a process of its own, on a zone and a directory.
func serveUntilKilled(dir string) {
	zone, state, _ := strings.Cut(dir, "\n")
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	z, err := store.Open(context.Background(), zone, store.Options{})
	fail(err)
	g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
	fail(err)
	var log enclavetest.Log
	h, err := Open(Options{Zone: z, Track: "dev", Git: g, Log: log.Logger(), Dir: state})
	fail(err)
	fail(h.Ready(context.Background()))
	fmt.Println("ready")
	time.Sleep(time.Hour) // and not select {}, which the runtime takes for a deadlock when nothing else is left to do
}

const fullDir = "SALLYPORT_TEST_FULL_ZONE"

// serveOnFullDisk is a host whose directory gets full, and then gets room.
func serveOnFullDisk(dir string) {
	zone, state, _ := strings.Cut(dir, "\n")
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=5m"); err != nil {
		fmt.Println("SKIP", err)
		os.Exit(1)
	}
	z, err := store.Open(context.Background(), zone, store.Options{})
	fail(err)
	g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
	fail(err)
	var log enclavetest.Log
	h, err := Open(Options{Zone: z, Track: "dev", Git: g, Log: log.Logger(), Dir: state})
	fail(err)
	fail(h.Ready(context.Background()))
	first := h.prepared.Load().served["guix"].pin.Commit
	fmt.Println("ready")
	var line string
	fmt.Scanln(&line)
	ready := make(chan error, 1)
	go func() { ready <- h.Ready(context.Background()) }()
	for deadline := time.Now().Add(5 * time.Minute); !strings.Contains(log.String(), "No space left") && !strings.Contains(log.String(), "no space left"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			fail(fmt.Errorf("nothing was said: %s", log.String()))
		}
	}
	if now := h.prepared.Load().served["guix"]; now == nil || now.pin.Commit != first {
		fail(fmt.Errorf("what was served before is not served on"))
	}
	fail(unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=200m"))
	fail(<-ready)
	if now := h.prepared.Load().served["guix"]; now == nil || now.pin.Commit == first {
		fail(fmt.Errorf("the new one is not served"))
	}
	fail(h.Close())
	fmt.Println("done")
	os.Exit(0)
}

// TestFullDisk: there is no room for a new repository; the one before is served on, and when there is room again, the new one is made.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 5)
	h.Allow("dev", c.item(t, h.git, c.commits[4], nil))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fullDir+"="+h.Zone.Dir+"\n"+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIPPED, a full disk is NOT tested: no user namespace: %v; allow them (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)", err)
	}
	said := bufio.NewReader(out)
	if line, _ := said.ReadString('\n'); line != "ready\n" {
		cmd.Wait()
		if strings.HasPrefix(line, "SKIP") {
			t.Skipf("SKIPPED, a full disk is NOT tested: %s; a kernel that lets users mount tmpfs in their own namespace is needed", line)
		}
		t.Fatalf("%s", line)
	}
	h.Allow("dev", c.item(t, h.git, c.noise(t, 8<<20), &c.commits[4]))
	fmt.Fprintln(in, "on")
	rest, _ := io.ReadAll(said)
	if err := cmd.Wait(); err != nil || string(rest) != "done\n" {
		t.Errorf("%v: %s", err, rest)
	}
}

// TestKilled: a host that is killed while it makes a repository leaves nothing that the next one trips over.
func TestKilled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	c := newChannel(t, "guix", 1500)
	h.Allow("dev", c.item(t, h.git, c.commits[700], nil))
	h.Allow("dev", c.item(t, h.git, c.commits[1499], &c.commits[700]))
	state := filepath.Join(t.TempDir(), "state")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	finished := 0
	for i := range 12 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), killedDir+"="+h.Zone.Dir+"\n"+state)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(i*i)*12*time.Millisecond, func() { cmd.Process.Signal(unix.SIGKILL) })
		said, _ := io.ReadAll(out)
		timer.Stop()
		if cmd.Wait(); stderr.Len() > 0 {
			t.Fatalf("%s", stderr.String())
		}
		if len(said) > 0 {
			finished++
		}
		// Whatever has its name is whole.
		for _, repository := range repositories(t, filepath.Join(state, "dev")) {
			must(t, "", "-c", "safe.directory=*", "--git-dir", repository, "fsck", "--full")
			if err := intact(repository); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	}
	t.Logf("%d of 12 were ready before they were killed", finished)
	h.serve(func(o *Options) { o.Dir = state })
	h.ready()
	if dir, err := h.clone("guix"); err != nil || must(t, dir, "rev-parse", "HEAD") != c.commits[1499].String()+"\n" {
		t.Errorf("%v", err)
	}
	names, err := os.ReadDir(filepath.Join(state, "dev"))
	if err != nil || len(names) != 3 { // lock, tmp, and the repository
		t.Errorf("%v %v", names, err)
	}
}
