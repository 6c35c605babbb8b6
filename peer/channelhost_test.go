//go:build peer

package peer

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/enclavetest"
	"sallyport/internal/inside/channelhost"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/create"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// gitIn runs the host's git, as nobody has configured it.
func gitIn(t *testing.T, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, tail(out))
	}
	return strings.TrimSpace(string(out))
}

// latestInstances has Guix fetch, authenticate and add to the store what a channels.scm names.
const latestInstances = `
(use-modules (guix store) (guix channels))
(define channels (load (cadr (command-line))))
(with-store store
  (for-each (lambda (i)
              (format #t "INSTANCE ~a ~a ~a~%" (channel-name (channel-instance-channel i)) (channel-instance-commit i) (channel-instance-checkout i)))
            (latest-channel-instances store channels)))
`

// hostOf serves the channels of an enclave's track dev until the test ends.
func hostOf(t *testing.T, e *enclavetest.Enclave, g *gitrun.Git, l net.Listener) *channelhost.Host {
	t.Helper()
	host, err := channelhost.Open(channelhost.Options{Zone: e.Zone, Track: "dev", Git: g, Log: e.Log.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	srv := host.Server()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("%s", e.Log)
		}
	})
	return host
}

// TestRealChannelHost: Guix pulls a real channel from our host, and authenticates all of it.
func TestRealChannelHost(t *testing.T) {
	c := channels[0]
	mirror := os.Getenv(c.variable)
	if mirror == "" {
		t.Skipf("SKIPPED, NOT TESTED: %s does not name a bare repository of the channel %s", c.variable, c.name)
	}
	p := start(t)
	f := p.folder(t)
	g, err := gitrun.Find(t.Context(), os.Getenv("PATH"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, err := authenticate.Open(mirror, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pinned := &pin.Pin{Channel: c.name, URL: "http://" + l.Addr().String() + "/git/" + c.name, Branch: "master", NarHash: trust.Sum(nil), NarSize: 1}
	signer, err := scheme.ParseFingerprint(c.signer)
	if err != nil {
		t.Fatal(err)
	}
	pinned.Signer = openpgp.Fingerprint(signer)
	for to, from := range map[*git.ID]string{&pinned.Introduction: c.introduction, &pinned.Commit: c.end} {
		if *to, err = git.ParseID(from); err != nil {
			t.Fatal(err)
		}
	}
	if pinned.Keyring, err = r.Branch(pin.KeyringBranch); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := pin.Create(t.Context(), g, r, t.TempDir(), pinned, git.ID{}, &b); err != nil {
		t.Fatal(err)
	}
	name, err := pinned.ItemName(trust.Sum(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	e := enclavetest.New(t)
	e.Allow("dev", enclavetest.Content{Item: trust.Item{SHA256: trust.Sum(b.Bytes()), Size: int64(b.Len()), Kind: trust.KindChannel, Name: name}, Data: b.Bytes()})
	host := hostOf(t, e, g, l)
	begin := time.Now()
	if err := host.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KB, made ready in %v", b.Len()>>10, time.Since(begin))
	res, err := http.Get("http://" + l.Addr().String() + "/dev/channels.scm")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %s", err, text)
	}
	begin = time.Now()
	said := p.run(t, "env", "HOME="+f.name, "guix", "repl", "-q", "--", f.write(t, "instances.scm", []byte(latestInstances), 0o644), f.write(t, "channels.scm", text, 0o644))
	if !bytes.Contains(said, []byte("INSTANCE "+c.name+" "+c.end+" /gnu/store/")) {
		t.Errorf("%s", said)
	}
	t.Logf("Guix has fetched and authenticated it in %v: %s", time.Since(begin), bytes.TrimSpace(said))
}

// TestChannelHost: a channel that we create, with commits that its key signs, is authentic to the real program; unmodified clients clone it from our host, and
// Guix pulls the commits of each release by its channels.scm.
func TestChannelHost(t *testing.T) {
	p := start(t)
	f := p.folder(t)
	g, err := gitrun.Find(t.Context(), os.Getenv("PATH"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "http://" + l.Addr().String()

	// The enclave's own channel, and two commits on it.
	now := time.Now().UTC().Truncate(time.Second)
	key, err := create.NewKey(rand.Reader, now, "Alice Example <alice@enclave.example>")
	if err != nil {
		t.Fatal(err)
	}
	repository := filepath.Join(f.host, "packages")
	made, err := create.Repository(t.Context(), repository, create.Options{Name: "packages", URL: base + "/git/packages", Branch: "master", Author: "Alice Example <alice@enclave.example>", Date: now}, key)
	if err != nil {
		t.Fatal(err)
	}
	commits := []git.ID{made.Introduction}
	for i := range 2 {
		if err := os.WriteFile(filepath.Join(repository, fmt.Sprintf("p%d.scm", i)), fmt.Appendf(nil, "(define-module (p%d))\n", i), 0o644); err != nil {
			t.Fatal(err)
		}
		gitIn(t, repository, "", "add", ".")
		who := fmt.Sprintf("Alice Example <alice@enclave.example> %d +0000", now.Unix())
		head := fmt.Sprintf("tree %s\nparent %s\nauthor %s\ncommitter %s\n", gitIn(t, repository, "", "write-tree"), commits[i], who, who)
		message := fmt.Sprintf("\nadd p%d\n", i)
		sig, err := key.Sign(t.Context(), []byte(head+message))
		if err != nil {
			t.Fatal(err)
		}
		signed := head + "gpgsig " + strings.ReplaceAll(strings.TrimSpace(string(sig)), "\n", "\n ") + "\n" + message
		id, err := git.ParseID(gitIn(t, repository, signed, "hash-object", "-t", "commit", "-w", "--stdin"))
		if err != nil {
			t.Fatal(err)
		}
		commits = append(commits, id)
		gitIn(t, repository, "", "update-ref", "refs/heads/master", id.String())
	}

	// Released in two steps.
	e := enclavetest.New(t)
	r, err := authenticate.Open(repository, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	release := func(commit, basis git.ID) enclavetest.Content {
		t.Helper()
		pinned := &pin.Pin{Channel: "packages", URL: made.Order.URL, Branch: "master", Introduction: made.Introduction, Signer: made.Signer, Keyring: made.Keyring,
			Commit: commit, NarHash: trust.Sum(nil), NarSize: 1, Basis: basis}
		var b bytes.Buffer
		if err := pin.Create(t.Context(), g, r, t.TempDir(), pinned, made.Keyring, &b); err != nil {
			t.Fatal(err)
		}
		path, err := storepath.Source(pinned.StoreName(), trust.Sum(b.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		it := trust.Item{SHA256: trust.Sum(b.Bytes()), Size: int64(b.Len()), Kind: trust.KindChannel, Name: path.Base()}
		c := enclavetest.Content{Item: it, Data: b.Bytes()}
		e.Allow("dev", c)
		return c
	}
	release(commits[1], git.ID{})
	second := release(commits[2], commits[1])
	host := hostOf(t, e, g, l)
	if err := host.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}

	// git clone, and guix git authenticate on the clone.
	gitIn(t, f.host, "", "clone", "-q", base+"/git/packages", "clone")
	said := p.run(t, "env", "HOME="+f.name, "guix", "git", "authenticate", "--keyring=origin/keyring", "-r", filepath.Join(f.name, "clone"), "--end="+commits[2].String(), made.Introduction.String(), made.Signer.String())
	t.Logf("guix git authenticate: %s", bytes.TrimSpace(said))
	forged := strings.Replace(made.Signer.String(), made.Signer.String()[:4], "0000", 1)
	if res := p.try(t, nil, "run", "env", "HOME="+f.name+"/other", "guix", "git", "authenticate", "--keyring=origin/keyring", "-r", filepath.Join(f.name, "clone"), "--end="+commits[2].String(), made.Introduction.String(), forged); res.code == 0 {
		t.Errorf("another signer is believed: %s", res.stdout)
	}

	// What Guix takes by the channels.scm of each release.
	script := f.write(t, "instances.scm", []byte(latestInstances), 0o644)
	get := func(path string) (int, []byte) {
		t.Helper()
		res, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, body
	}
	pull := func(n int) result {
		t.Helper()
		code, body := get(fmt.Sprintf("/dev/releases/%d/channels.scm", n))
		if code != 200 {
			t.Fatalf("release %d: %d %s", n, code, body)
		}
		channels := f.write(t, fmt.Sprintf("channels-%d.scm", n), body, 0o644)
		return p.try(t, nil, "run", "env", "HOME="+f.name, "guix", "repl", "-q", "--", script, channels)
	}
	for n := 1; n <= 2; n++ {
		res := pull(n)
		want := fmt.Sprintf("INSTANCE packages %s /gnu/store/", commits[n])
		if res.code != 0 || !bytes.Contains(res.stdout, []byte(want)) {
			t.Fatalf("release %d: exit status %d, no %q\n%s\n%s", n, res.code, want, res.stdout, tail(res.stderr))
		}
		_, checkout, _ := strings.Cut(strings.TrimSpace(string(res.stdout)), commits[n].String()+" ")
		if _, err := os.Stat(filepath.Join(p.root, checkout, fmt.Sprintf("p%d.scm", n-1))); err != nil {
			t.Error(err)
		}
		t.Logf("release %d: %s", n, bytes.TrimSpace(res.stdout))
	}

	// Recalled, it is gone for Guix, too.
	_, text := get("/dev/releases/2/channels.scm")
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: second.SHA256, Name: second.Name, Date: o.Date, Reason: "malice"})
	})
	if code, body := get("/dev/releases/2/channels.scm"); code != 404 {
		t.Errorf("%d %s", code, body)
	}
	if err := host.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	channels := f.write(t, "recalled.scm", text, 0o644)
	if res := p.try(t, nil, "run", "env", "HOME="+f.name+"/new", "guix", "repl", "-q", "--", script, channels); res.code == 0 {
		t.Errorf("what was recalled was pulled: %s", res.stdout)
	}
	if res := p.try(t, nil, "run", "env", "HOME="+f.name+"/new", "guix", "repl", "-q", "--", script, filepath.Join(f.name, "channels-1.scm")); res.code != 0 || !bytes.Contains(res.stdout, []byte(commits[1].String())) {
		t.Errorf("what was not recalled was not pulled: %s %s", res.stdout, tail(res.stderr))
	}
}
