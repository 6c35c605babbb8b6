package verbs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/frame/frametest"
	"sallyport/internal/trust"
)

// A keyWorld runs key verbs in a directory, with or without an agent.
type keyWorld struct {
	t   *testing.T
	dir string
	env map[string]string
}

func newKeyWorld(t *testing.T) *keyWorld {
	return &keyWorld{t, t.TempDir(), map[string]string{}}
}

func (w *keyWorld) path(name string) string { return filepath.Join(w.dir, name) }

// run runs a command line; words that begin with @ are files of the world.
func (w *keyWorld) run(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	for i, a := range args {
		args[i] = strings.Replace(a, "@", w.dir+"/", 1)
	}
	o := frametest.Run(w.t.Context(), *w.frame(), Both, args...)
	return o.Code, o.Stdout, o.Stderr
}

func (w *keyWorld) frame() *frame.Env {
	return &frame.Env{Program: "sallyport", Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}, Rand: rand.Reader,
		Clock: func() time.Time { return time.Unix(1_772_355_600, 0).UTC() }, Getenv: func(s string) string { return w.env[s] }}
}

// must runs what has to succeed and returns what it printed.
func (w *keyWorld) must(args ...string) string {
	w.t.Helper()
	code, stdout, stderr := w.run(args...)
	if code != 0 {
		w.t.Fatalf("%q: code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// object runs with --json and returns the one object.
func (w *keyWorld) object(args ...string) map[string]any {
	w.t.Helper()
	var o map[string]any
	if err := json.Unmarshal([]byte(w.must(append(args, "--json")...)), &o); err != nil {
		w.t.Fatal(err)
	}
	return o
}

// fails runs what must fail with the code and say something, twice: the second time with --json.
func (w *keyWorld) fails(want int, says string, args ...string) {
	w.t.Helper()
	for _, more := range [][]string{nil, {"--json"}} {
		code, stdout, stderr := w.run(append(append([]string{}, args...), more...)...)
		if code != want || !strings.Contains(stderr, says) {
			w.t.Errorf("%q: code %d, want %d; want %q in\n%s", args, code, want, says, stderr)
		}
		if more == nil && want == 1 && !strings.Contains(stderr, "hint: ") && !strings.Contains(stderr, "want one line") && !strings.Contains(stderr, "no such file") && !strings.Contains(stderr, "not a public key file") {
			w.t.Errorf("%q: no hint:\n%s", args, stderr)
		}
		if more != nil && !strings.Contains(stdout, `"error":`) {
			w.t.Errorf("%q --json: %q", args, stdout)
		}
	}
}

// wantFiles fails unless exactly these files are in the world.
func (w *keyWorld) wantFiles(names ...string) {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if strings.Join(have, " ") != strings.Join(names, " ") {
		w.t.Errorf("files %v, want %v", have, names)
	}
}

func TestKeyGenerate(t *testing.T) {
	w := newKeyWorld(t)
	for _, tt := range []struct{ args, kind, line string }{
		{"alice/allowlist @a", "ed25519", "allowlist alice alice/allowlist+"},
		{"olga/order @o", "ed25519", "order olga olga/order+"},
		{"wim/witness @w", "cosignature", "witness wim wim/witness+"},
		{"carol/sums @s", "minisign", "sums carol RW"},
		{"--kind ed25519 carol/manifest @m", "ed25519", "manifest carol carol/manifest+"},
		{"--kind mldsa87 carol/manifest @pq", "mldsa87", "manifest carol carol/manifest+"},
		{"dev/narinfo @n", "guix", "narinfo dev "},
	} {
		args := append([]string{"key", "generate", "--no-passphrase"}, strings.Fields(tt.args)...)
		o := w.object(args...)
		line, _ := o["public"].(string)
		if o["kind"] != tt.kind || !strings.HasPrefix(line, tt.line) {
			t.Errorf("%s: %v", tt.args, o)
		}
		file := w.path(strings.TrimPrefix(filepath.Base(args[len(args)-1]), "@"))
		pub, err := os.ReadFile(file + ".pub")
		if err != nil || string(pub) != line+"\n" {
			t.Errorf("%s: %v", tt.args, err)
		}
		secret, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o400 {
			t.Errorf("%s: mode %v, %v", tt.args, st.Mode(), err)
		}
		if tt.kind == "guix" {
			continue
		}
		// It signs, and the public half can be had from it again.
		k, err := w.frame().Key(t.Context(), file)
		if err != nil || k.RootKey().Line() != line {
			t.Errorf("%s: %v", tt.args, err)
		}
		if again := w.must("key", "show", "--line", file); again != string(pub) {
			t.Errorf("%s: shown again as %s", tt.args, again)
		}
		// No output has a part of the secret.
		_, body, _ := strings.Cut(string(secret), "\n")
		for _, form := range [][]string{{}, {"--json"}, {"--pem"}, {"--ssh"}} {
			_, stdout, stderr := w.run(append([]string{"key", "show", file}, form...)...)
			if strings.Contains(stdout+stderr, body[80:110]) {
				t.Errorf("%s: shown with its secret", tt.args)
			}
		}
	}
	w.fails(1, "is there already", "key", "generate", "--no-passphrase", "alice/allowlist", "@a")
	w.fails(2, "signs nothing in the context root", "key", "generate", "--no-passphrase", "--kind", "mldsa87", "olga/root", "@x")
	w.fails(2, "the station has no key", "key", "generate", "--no-passphrase", "--kind", "mldsa87", "station/manifest", "@x")
	w.fails(2, "want ed25519 or mldsa87", "key", "generate", "--no-passphrase", "--kind", "p256", "olga/root", "@x")
	w.fails(2, "want PERSON/CONTEXT", "key", "generate", "--no-passphrase", "olga", "@x")
	w.fails(2, "no meaning", "key", "generate", "--kind", "mldsa87", "dev/narinfo", "@x")
	w.fails(1, "no terminal to ask at", "key", "generate", "olga/root", "@x")
	if err := os.WriteFile(w.path("empty"), []byte("\nsecond line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env["SALLYPORT_PASSPHRASE_FILE"] = w.path("empty")
	w.fails(2, "empty first line", "key", "generate", "olga/root", "@x")
	if _, err := os.Lstat(w.path("x")); err == nil {
		t.Error("a failure left a file behind")
	}
}

func TestKeyShow(t *testing.T) {
	w := newKeyWorld(t)
	w.must("key", "generate", "--no-passphrase", "alice/allowlist", "@a")
	w.must("key", "generate", "--no-passphrase", "--kind", "mldsa87", "carol/manifest", "@pq")
	w.must("key", "generate", "--no-passphrase", "carol/sums", "@s")
	pub, err := os.ReadFile(w.path("a.pub"))
	if err != nil {
		t.Fatal(err)
	}
	sum := trust.Sum(pub)
	text := w.must("key", "show", "@a.pub")
	if !strings.HasPrefix(text, "allowlist   alice            alice/allowlist+") || !strings.Contains(text, "\n            ed25519, alice/allowlist+") || !strings.HasSuffix(text, ", fingerprint "+trust.Fingerprint(sum)+"\n") {
		t.Errorf("shown as\n%s", text)
	}
	o := w.object("key", "show", "@a.pub")
	if o["type"] != "key" || o["file"] != "a.pub" || o["sha256"] != sum.String() || o["kind"] != "ed25519" || !strings.HasPrefix(o["ssh_public"].(string), "ssh-ed25519 AAAA") {
		t.Errorf("%v", o)
	}
	if pem := w.must("key", "show", "--pem", "@pq.pub"); !strings.HasPrefix(pem, "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("%s", pem)
	}
	if ssh := w.must("key", "show", "--ssh", "@a.pub"); !strings.HasPrefix(ssh, `alice namespaces="sallyport-allowlist" ssh-ed25519 AAAA`) {
		t.Errorf("%s", ssh)
	}
	w.fails(2, "no such form", "key", "show", "--ssh", "@pq.pub")
	w.fails(2, "one or the other", "key", "show", "--ssh", "--pem", "@a.pub")
	w.fails(1, "no such file", "key", "show", "@nothing")
	for name, bad := range map[string]string{"two": string(pub) + string(pub), "changed": strings.Replace(string(pub), "alice/allow", "alicf/allow", 1), "crlf": strings.Replace(string(pub), "\n", "\r\n", 1), "none": ""} {
		if err := os.WriteFile(w.path(name), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, stdout, _ := w.run("key", "show", "@"+name); code != 1 || stdout != "" {
			t.Errorf("%s: code %d, %s", name, code, stdout)
		}
	}
}

// testAgent is an agent behind a socket, with these keys.
func testAgent(t *testing.T, keys map[string]any) (socket string, ring sshagent.Agent) {
	t.Helper()
	ring = sshagent.NewKeyring()
	for comment, k := range keys {
		if err := ring.Add(sshagent.AddedKey{PrivateKey: k, Comment: comment}); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "sallyport-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				sshagent.ServeAgent(ring, c)
			}()
		}
	}()
	return socket, ring
}

func TestKeyAgent(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := func(public any) string {
		k, err := ssh.NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		return ssh.FingerprintSHA256(k)
	}
	w := newKeyWorld(t)
	w.fails(1, "SSH_AUTH_SOCK is not set", "key", "agent")
	w.fails(1, "SSH_AUTH_SOCK is not set", "key", "agent", "--name", "alice/allowlist", "--out", "@x.pub")
	w.env["SSH_AUTH_SOCK"] = w.path("dead")
	w.fails(1, "no such file", "key", "agent")
	socket, ring := testAgent(t, map[string]any{"ed of alice": ed, "ec of alice": ec, "rsa of alice": rsaKey})
	w.env["SSH_AUTH_SOCK"] = socket
	list := w.must("key", "agent")
	if strings.Count(list, "\n") != 3 || strings.Count(list, "cannot sign here") != 1 || !strings.Contains(list, fingerprint(ed.Public())+" ed of alice (ssh-ed25519)\n") {
		t.Errorf("listed as\n%s", list)
	}
	if j := w.must("key", "agent", "--json"); strings.Count(j, `"type":"agent-key"`) != 3 || strings.Count(j, `"usable":true`) != 2 {
		t.Errorf("%s", j)
	}
	w.fails(2, "give --name", "key", "agent", "--out", "@x.pub")
	w.fails(2, "give --out", "key", "agent", "--name", "alice/allowlist")
	w.fails(1, "2 keys that could be meant", "key", "agent", "--name", "alice/allowlist", "--out", "@x.pub")
	w.fails(1, "no key SHA256:x", "key", "agent", "--name", "alice/allowlist", "--fingerprint", "SHA256:x", "--out", "@x.pub")
	w.fails(2, "sign nothing here", "key", "agent", "--name", "alice/allowlist", "--fingerprint", fingerprint(rsaKey.Public()), "--out", "@x.pub")
	w.fails(2, "wants an ssh-ed25519 key", "key", "agent", "--name", "wim/witness", "--fingerprint", fingerprint(ec.Public()), "--out", "@x.pub")
	w.fails(2, "want PERSON/CONTEXT", "key", "agent", "--name", "alice", "--fingerprint", fingerprint(ec.Public()), "--out", "@x.pub")
	w.wantFiles()
	text := []byte("sallyport allowlist v1\nenclave citadel\n")
	for _, tt := range []struct {
		name, fingerprint, kind string
		more                    []string
	}{
		{"alice/allowlist", fingerprint(ed.Public()), "ed25519", nil},
		{"alice/allowlist", fingerprint(ec.Public()), "p256", nil},
		{"alice/allowlist", fingerprint(ed.Public()), "sshsig", []string{"--sshsig"}},
		{"alice/allowlist", fingerprint(ec.Public()), "sshsig", []string{"--sshsig"}},
		{"wim/witness", fingerprint(ed.Public()), "cosignature", nil},
		{"carol/sums", fingerprint(ed.Public()), "minisign", nil},
	} {
		os.Remove(w.path("k.pub"))
		args := append([]string{"key", "agent", "--name", tt.name, "--fingerprint", tt.fingerprint, "--out", "@k.pub"}, tt.more...)
		o := w.object(args...)
		if o["kind"] != tt.kind || o["proved"] != true || o["ssh_fingerprint"] != tt.fingerprint {
			t.Errorf("%s as %s: %v", tt.name, tt.kind, o)
		}
		k, err := w.frame().Key(t.Context(), "agent:"+w.path("k.pub"))
		if err != nil || k.Name() != tt.name {
			t.Fatalf("%s as %s: %v", tt.name, tt.kind, err)
		}
		if k.Context() != trust.ContextAllowlist {
			continue
		}
		line, err := trust.SignText(text, k)
		if err == nil {
			_, err = trust.VerifyLine("allowlist", text, line, []trust.VKey{k.VKey()})
		}
		if err != nil {
			t.Errorf("%s as %s: %v", tt.name, tt.kind, err)
		}
	}
	w.fails(1, "is there already", "key", "agent", "--name", "alice/allowlist", "--fingerprint", fingerprint(ed.Public()), "--out", "@k.pub")
	// A public key file of OpenSSH will do, without agent and proof.
	edPublic, err := ssh.NewPublicKey(ed.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("id.pub"), ssh.MarshalAuthorizedKey(edPublic), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env["SSH_AUTH_SOCK"] = ""
	if o := w.object("key", "agent", "--name", "bob/allowlist", "--sshsig", "--ssh-public", "@id.pub", "--out", "@bob.pub"); o["kind"] != "sshsig" || o["proved"] != false {
		t.Errorf("%v", o)
	}
	w.fails(1, "not a public key file", "key", "agent", "--name", "bob/allowlist", "--ssh-public", "@bob.pub", "--out", "@x.pub")
	w.fails(2, "names a file", "key", "agent", "--name", "bob/allowlist", "--ssh-public", "@id.pub", "--fingerprint", "SHA256:x", "--out", "@x.pub")
	// What is given as --key and is none.
	for says, name := range map[string]string{"no key: give --key": "", "SSH_AUTH_SOCK is not set": "agent:" + w.path("bob.pub"), "no such file": "agent:" + w.path("nothing"), "want one line": "agent:" + w.path("id.pub"),
		"first line is not": w.path("bob.pub")} {
		if _, err := w.frame().Key(t.Context(), name); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("--key %s: %v", name, err)
		}
	}
	w.env["SSH_AUTH_SOCK"] = socket
	if err := ring.Remove(edPublic); err != nil {
		t.Fatal(err)
	}
	if _, err := w.frame().Key(t.Context(), "agent:"+w.path("bob.pub")); err == nil || !strings.Contains(err.Error(), "holds no key SHA256:") {
		t.Errorf("a key that the agent has lost: %v", err)
	}
	if err := ring.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := w.run("key", "agent"); code != 0 || stdout != "" || !strings.Contains(stderr, "holds no keys") {
		t.Errorf("an empty agent: %d %s%s", code, stdout, stderr)
	}
}

// key show --ssh makes the file of allowed signers by which the real ssh-keygen verifies.
func TestAllowedSigners(t *testing.T) {
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIPPED: no ssh-keygen found, so the output of key show --ssh was not given to it; install openssh-client to run this test")
	}
	w := newKeyWorld(t)
	text := []byte("sallyport allowlist v1\nenclave citadel\n")
	if err := os.WriteFile(w.path("list"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) error {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Stdin = w.dir, bytes.NewReader(text)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s", out)
		}
		return err
	}
	if err := run("-q", "-t", "ed25519", "-N", "", "-f", "id"); err != nil {
		t.Fatal(err)
	}
	if err := run("-Y", "sign", "-f", "id", "-n", "sallyport-allowlist", "list"); err != nil {
		t.Fatal(err)
	}
	w.must("key", "agent", "--name", "bob/allowlist", "--sshsig", "--ssh-public", "@id.pub", "--out", "@bob.pub")
	if err := os.WriteFile(w.path("allowed"), []byte(w.must("key", "show", "--ssh", "@bob.pub")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run("-Y", "verify", "-f", "allowed", "-I", "bob", "-n", "sallyport-allowlist", "-s", "list.sig"); err != nil {
		t.Error(err)
	}
	if err := run("-Y", "verify", "-f", "allowed", "-I", "bob", "-n", "sallyport-root", "-s", "list.sig"); err == nil {
		t.Error("for a root, too")
	}
}
