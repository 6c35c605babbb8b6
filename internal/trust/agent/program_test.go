package agent

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
)

// need looks for programs; without one of them a test is skipped, and says what was not tested.
func need(t *testing.T, what string, programs map[string]string) {
	t.Helper()
	for program, install := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: no %s found, so %s was not tested; install %s to run this test", program, what, install)
		}
	}
}

// A realAgent is an ssh-agent of OpenSSH that this test has started, with a home of its own.
type realAgent struct {
	t   *testing.T
	dir string
	env []string
	*Agent
}

func startAgent(t *testing.T, env []string, args ...string) *realAgent {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sallyport-agent-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	r := &realAgent{t, dir, append([]string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "SSH_AUTH_SOCK=" + socket}, env...), Open(socket)}
	cmd := exec.Command("ssh-agent", append([]string{"-D", "-a", socket}, args...)...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.env, &out, &out, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("ssh-agent: %s", out.String())
		}
	})
	for range 30_000 {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return r
		}
		select {
		case <-ended:
			t.Fatalf("ssh-agent ended: %s", out.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("ssh-agent does not listen")
	return nil
}

// run runs a program of OpenSSH beside the agent.
func (r *realAgent) run(program string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
	return string(out)
}

// public reads what ssh-keygen wrote.
func (r *realAgent) public(file string) []byte {
	r.t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil {
		r.t.Fatal(err)
	}
	wire, err := trust.ParseSSHPublicFile(data)
	if err != nil {
		r.t.Fatal(err)
	}
	return wire
}

// signAll signs with an identity in every form it may have.
func (r *realAgent) signAll(wire []byte) {
	t := r.t
	t.Helper()
	for _, wrap := range []bool{false, true} {
		for _, tt := range []struct{ name, text string }{
			{"alice/root", "sallyport root v1\n"}, {"alice/order", "sallyport orders v1\n"}, {"alice/allowlist", testText}, {"alice/manifest", "sallyport manifest v1\n"},
		} {
			k, err := r.Key(t.Context(), enrol(t, tt.name, wire, wrap))
			if err != nil {
				t.Fatal(err)
			}
			for range 4 {
				line, err := trust.SignText([]byte(tt.text), k)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := trust.VerifyLine("note", []byte(tt.text), line, []trust.VKey{k.VKey()}); err != nil {
					t.Error(err)
				}
			}
		}
		k, err := r.Key(t.Context(), enrol(t, "alice/statement", wire, wrap))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Sign(trust.ContextStatement, []byte("DSSEv1 28 application/vnd.in-toto+json 2 {}")); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenSSHAgent(t *testing.T) {
	need(t, "signing with a real ssh-agent", map[string]string{"ssh-agent": "openssh-client", "ssh-add": "openssh-client", "ssh-keygen": "openssh-client"})
	r := startAgent(t, nil)
	_, err := r.Find(t.Context(), "")
	wantHint(t, err, "no keys")
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		r.run("ssh-keygen", "-q", "-t", kind, "-b", map[string]string{"rsa": "2048"}[kind]+map[bool]string{true: "256"}[kind != "rsa"], "-N", "", "-C", "key of alice", "-f", kind)
		r.run("ssh-add", "-q", kind)
	}
	list, err := r.List(t.Context())
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	shown := r.run("ssh-add", "-l")
	for _, i := range list {
		if !strings.Contains(shown, i.Fingerprint+" key of alice ") {
			t.Errorf("%s is not among\n%s", i, shown)
		}
		if (i.Usable() == nil) != (i.Algorithm != "ssh-rsa") {
			t.Errorf("%s: %v", i, i.Usable())
		}
	}
	for _, kind := range []string{"ed25519", "ecdsa"} {
		t.Run(kind, func(t *testing.T) { r := *r; r.t = t; r.signAll(r.public(kind + ".pub")) })
	}
	t.Run("witness and sums", func(t *testing.T) {
		w, err := r.Key(t.Context(), enrol(t, "wim/witness", r.public("ed25519.pub"), false))
		if err != nil {
			t.Fatal(err)
		}
		checkpoint := []byte("sallyport/citadel/inside\n12\nq83vEjRWeJA=\n")
		line, err := trust.CosignText(checkpoint, w, time.Unix(1_772_355_600, 0))
		if err == nil {
			_, err = trust.VerifyLine("cosignature", checkpoint, line, []trust.VKey{w.VKey()})
		}
		if err != nil {
			t.Error(err)
		}
		s, err := r.Key(t.Context(), enrol(t, "carol/sums", r.public("ed25519.pub"), false))
		if err != nil {
			t.Fatal(err)
		}
		sums := []byte("0123  README.txt\n")
		sig, err := trust.SignSums(s, sums, "sallyport citadel shipment 7")
		if err != nil {
			t.Fatal(err)
		}
		if err := trust.VerifySums(s.RootKey().Key, sums, sig, "sallyport citadel shipment 7"); err != nil {
			t.Error(err)
		}
		if _, err := exec.LookPath("minisign"); err != nil {
			t.Skip("SKIPPED: no minisign program found, so it did not check sums that an agent signed; install minisign")
		}
		for name, b := range map[string][]byte{"sums": sums, "sums.minisig": sig} {
			if err := os.WriteFile(filepath.Join(r.dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r.run("minisign", "-VHm", "sums", "-P", s.RootKey().Key)
	})
	t.Run("as long as it may be", func(t *testing.T) {
		head := testText
		text := []byte(head + strings.Repeat("a\n", (MaxMessage-len(head))/2))
		k, err := r.Key(t.Context(), enrol(t, "alice/allowlist", r.public("ecdsa.pub"), false))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.SignText(text, k); err != nil {
			t.Errorf("%d bytes: %v", len(text), err)
		}
		_, err = trust.SignText(append(text, "aaa\n"...), k)
		wantHint(t, err, "more than")
	})
	t.Run("ssh-keygen signs through it", func(t *testing.T) {
		// The same text, the same key: what ssh-keygen makes of the agent's answer becomes the very line that we make of it (Ed25519 is deterministic).
		line := enrol(t, "alice/allowlist", r.public("ed25519.pub"), true)
		k, err := r.Key(t.Context(), line)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(r.dir, "list"), []byte(testText), 0o600); err != nil {
			t.Fatal(err)
		}
		r.run("ssh-keygen", "-Y", "sign", "-f", "ed25519.pub", "-n", "sallyport-allowlist", "list")
		file, err := os.ReadFile(filepath.Join(r.dir, "list.sig"))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := trust.FromSSHKeygen([]byte(testText), k.VKey(), file)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := trust.SignText([]byte(testText), k)
		if err != nil || ours != theirs {
			t.Errorf("%s\n%s\n%v", ours, theirs, err)
		}
		blob, err := base64.StdEncoding.DecodeString(strings.Fields(ours)[2])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(trust.Armor(blob[4:]), file) {
			t.Errorf("armour:\n%s\n%s", trust.Armor(blob[4:]), file)
		}
	})
	t.Run("locked", func(t *testing.T) {
		k, err := r.Key(t.Context(), enrol(t, "alice/allowlist", r.public("ed25519.pub"), false))
		if err != nil {
			t.Fatal(err)
		}
		askpass(t, r, "lock me")
		r.run("ssh-add", "-x")
		_, err = r.Find(t.Context(), "")
		wantHint(t, err, "no keys")
		_, err = k.Sign(trust.ContextAllowlist, []byte(testText))
		wantHint(t, err, "failed to sign")
		r.run("ssh-add", "-X")
		if _, err := k.Sign(trust.ContextAllowlist, []byte(testText)); err != nil {
			t.Error(err)
		}
	})
	t.Run("key removed", func(t *testing.T) {
		k, err := r.Key(t.Context(), enrol(t, "alice/allowlist", r.public("ecdsa.pub"), false))
		if err != nil {
			t.Fatal(err)
		}
		r.run("ssh-add", "-q", "-D")
		_, err = k.Sign(trust.ContextAllowlist, []byte(testText))
		wantHint(t, err, "failed to sign")
	})
}

// askpass makes ssh-add take a passphrase or a PIN from a script.
func askpass(t *testing.T, r *realAgent, answer string) {
	t.Helper()
	script := filepath.Join(r.dir, "askpass")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\necho '%s'\n", answer), 0o700); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "SSH_ASKPASS="+script, "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:none")
}

// confirm is a key that asks before each use, and a person who says no, or nothing.
func TestOpenSSHAgentThatAsks(t *testing.T) {
	need(t, "a key that asks before use", map[string]string{"ssh-agent": "openssh-client", "ssh-add": "openssh-client", "ssh-keygen": "openssh-client"})
	dir := t.TempDir()
	script := func(name, body string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tt := range map[string]struct {
		body string
		says string
	}{
		"no":      {"exit 1", "failed to sign"},
		"nothing": {"while kill -0 $PPID; do sleep 0.1; done; exit 1", "did not answer within"}, // for as long as there is an agent
		"yes":     {"exit 0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := startAgent(t, []string{"SSH_ASKPASS=" + script(name, tt.body), "SSH_ASKPASS_REQUIRE=force", "DISPLAY=:none"})
			r.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
			r.run("ssh-add", "-q", "-c", "key")
			r.Touch = 5 * time.Minute
			if name == "nothing" {
				r.Touch = 300 * time.Millisecond
			}
			k, err := r.Key(t.Context(), enrol(t, "alice/allowlist", r.public("key.pub"), false))
			if err != nil {
				t.Fatal(err)
			}
			_, err = k.Sign(trust.ContextAllowlist, []byte(testText))
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantHint(t, err, tt.says)
		})
	}
}

// softHSM is where Debian and others keep the library.
func softHSM() string {
	for _, path := range []string{os.Getenv("SALLYPORT_SOFTHSM"), "/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"} {
		if real, err := filepath.EvalSymlinks(path); path != "" && err == nil {
			return real
		}
	}
	return ""
}

// A card: a key on P-256 that was made in a PKCS#11 token and never leaves it.
func TestPKCS11BehindAgent(t *testing.T) {
	need(t, "a PKCS#11 key behind ssh-agent", map[string]string{"ssh-agent": "openssh-client", "ssh-add": "openssh-client", "softhsm2-util": "softhsm2", "pkcs11-tool": "opensc"})
	library := softHSM()
	if library == "" {
		t.Skip("SKIPPED: libsofthsm2.so not found, so a PKCS#11 key behind ssh-agent was not tested; install softhsm2, or name the library in SALLYPORT_SOFTHSM")
	}
	home := t.TempDir()
	conf := filepath.Join(home, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(home, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s/tokens\nobjectstore.backend = file\nlog.level = ERROR\n", home), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startAgent(t, []string{"SOFTHSM2_CONF=" + conf}, "-P", library)
	r.run("softhsm2-util", "--init-token", "--free", "--label", "alice", "--so-pin", "123456", "--pin", "654321")
	r.run("pkcs11-tool", "--module", library, "--token-label", "alice", "--login", "--pin", "654321", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "alice", "--id", "01", "--usage-sign")
	askpass(t, r, "654321")
	r.run("ssh-add", "-s", library)
	i, err := r.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if i.Algorithm != "ecdsa-sha2-nistp256" {
		t.Fatalf("the token has a key of %s", i.Algorithm)
	}
	r.signAll(i.Wire)
	// The card is pulled.
	k, err := r.Key(t.Context(), enrol(t, "alice/allowlist", i.Wire, false))
	if err != nil {
		t.Fatal(err)
	}
	r.run("ssh-add", "-e", library)
	_, err = k.Sign(trust.ContextAllowlist, []byte(testText))
	wantHint(t, err, "failed to sign")
	_, err = r.Key(t.Context(), enrol(t, "alice/allowlist", i.Wire, false))
	wantHint(t, err, "no keys")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.List(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
