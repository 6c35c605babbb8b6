package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sshAgent starts a real ssh-agent for this test's commands, and returns a function that runs OpenSSH's programs beside it.
func sshAgent(t *testing.T) func(args ...string) {
	t.Helper()
	for _, program := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: no %s found, so no enclave was made whose keys lie in an ssh-agent; install openssh-client to run this test", program)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "sallyport-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	cmd.Env, cmd.WaitDelay = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	t.Setenv("SSH_AUTH_SOCK", socket)
	for range 30_000 {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return func(args ...string) {
				t.Helper()
				if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%q: %v\n%s", args, err, out)
				}
			}
		}
		select {
		case <-ended:
			t.Fatalf("ssh-agent ended: %v", cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("ssh-agent does not listen")
	return nil
}

// TestKeysInAgent is an enclave whose persons hold no key file: an officer's, a reviewer's and the importer's key lie in an agent, in every form; another officer signs
// with ssh-keygen alone; and the root demands an ML-DSA-87 signature beside the collector's.
func TestKeysInAgent(t *testing.T) {
	ssh := sshAgent(t)
	w := newWorld(t, fresh(t), "goods")
	for _, n := range []int{1, 2, 3} { // of another outside
		os.Remove(w.path(fmt.Sprintf("volume-%d", n)))
		os.Remove(w.path(fmt.Sprintf("slip-%d.txt", n)))
	}
	pub := func(name string) string { return w.path(strings.ReplaceAll(name, "/", ".") + ".pub") }
	inAgent := func(name string) string { return "agent:" + pub(name) }
	for name, kind := range map[string]string{"olga/root": "ecdsa", "alice/allowlist": "ed25519", "bob/allowlist": "ecdsa", "dave/statement": "ed25519",
		"carol/manifest": "ecdsa", "carol/sums": "ed25519", "wilma/witness": "ed25519"} {
		id := w.path("id-" + strings.ReplaceAll(name, "/", "-"))
		ssh("ssh-keygen", "-q", "-t", kind, "-b", "256", "-N", "", "-C", name, "-f", id)
		ssh("ssh-add", "-q", id)
		if err := os.Remove(id); err != nil { // the agent alone has it now
			t.Fatal(err)
		}
		listed := w.must(whole, "key", "agent").stdout
		at := bytes.Index(listed, []byte(" "+name+" ("))
		if at < 0 {
			t.Fatalf("key agent does not list %s:\n%s", name, listed)
		}
		fingerprint := string(listed[bytes.LastIndexByte(listed[:at], '\n')+1 : at])
		args := []string{whole, "key", "agent", "--quiet", "--name", name, "--fingerprint", fingerprint, "--out", pub(name)}
		if strings.HasSuffix(name, "/allowlist") {
			args = append(args, "--sshsig")
		}
		w.must(args...)
	}
	ssh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", w.path("otto"))
	w.must(whole, "key", "agent", "--name", "otto/root", "--sshsig", "--ssh-public", "otto.pub", "--out", pub("otto/root"))
	w.must(whole, "key", "generate", "--quiet", "--no-passphrase", "--kind", "mldsa87", "carol/manifest", "carol.mldsa.key")

	// The root: one officer signs through the agent, the other with ssh-keygen.
	w.must(station, "init", "--kind", "inside", "--enclave", enclave, "inside")
	args := []string{station, "trust", "init", "--zone", "inside", "--threshold", "root=2", "--threshold", "order=1", "--threshold", "allowlist/" + track + "=2", "--policy", "quorum=1", "--policy", "mldsa=1"}
	for _, name := range []string{"olga/root", "otto/root", "alice/allowlist", "bob/allowlist", "dave/statement", "carol/manifest", "carol/sums", "wilma/witness"} {
		args = append(args, "--enroll", pub(name))
	}
	args = append(args, "--enroll", "carol.mldsa.key.pub", "--enroll", w.key("dev/narinfo")+".pub", "--enroll", w.key("olga/order")+".pub", "--enroll", w.key("erin/statement")+".pub")
	for _, r := range []string{"officer=olga", "officer=otto", "collector=carol", "importer=dave", "reviewer=alice", "reviewer=bob", "builder=erin", "witness=wilma"} {
		args = append(args, "--role", r)
	}
	w.must(args...)
	draft := "root-1.draft"
	var shown struct{ Fingerprint string }
	w.get(&shown, station, "trust", "show", "--zone", "inside", "--draft", draft)
	w.must(station, "trust", "sign", "--zone", "inside", "--key", inAgent("olga/root"), "--fingerprint", shown.Fingerprint, draft)
	w.code(waiting, station, "trust", "accept", "--zone", "inside", "--fingerprint", shown.Fingerprint, draft)
	ssh("ssh-keygen", "-Y", "sign", "-f", w.path("otto"), "-n", "sallyport-order", w.path(draft))
	w.refuses("ssh-signature", station, "trust", "sign", "--zone", "inside", "--ssh-signature", draft+".sig", "--public", pub("otto/root"), draft)
	os.Remove(w.path(draft + ".sig"))
	ssh("ssh-keygen", "-Y", "sign", "-f", w.path("otto"), "-n", "sallyport-root", w.path(draft))
	w.must(station, "trust", "sign", "--zone", "inside", "--ssh-signature", draft+".sig", "--public", pub("otto/root"), draft)
	w.must(station, "trust", "accept", "--zone", "inside", "--fingerprint", shown.Fingerprint, draft)

	// The outside knows the root: what the enclave would refuse gets no number.
	w.must(whole, "init", "--kind", "outside", "--enclave", enclave, "outside")
	w.must(whole, "trust", "accept", "--zone", "outside", "--fingerprint", shown.Fingerprint, "inside/public/root/1")
	write(t, w.path("request.toml"), request{map[string]string{"words": "goods/words"}, nil}.text(), 0o644)
	w.must(whole, "collect", "--zone", "outside", "--quiet", "request.toml")
	create := []string{whole, "shipment", "create", "--zone", "outside", "--quiet", "--sums-key", inAgent("carol/sums"), "--slip", "slip-1.txt"}
	w.refuses("manifest-mldsa", append(create, "--key", inAgent("carol/manifest"), "volume-1")...)
	w.code(failed, append(create, "--key", "carol.mldsa.key", "volume-1")...)
	if n := w.kinds("outside")["shipped"]; n != 0 {
		t.Fatalf("%d shipments got a number", n)
	}
	w.must(append(create, "--key", inAgent("carol/manifest"), "--key", "carol.mldsa.key", "volume-1")...)
	w.must(whole, "shipment", "verify", "--root", "inside/public/root", "--fingerprint", shown.Fingerprint, "--slip", "slip-1.txt", "volume-1")

	// In, read, approved and cosigned.
	w.refuses("key-context", station, "import", "--zone", "inside", "--slip", "slip-1.txt", "--key", inAgent("alice/allowlist"), "volume-1")
	w.must(station, "import", "--zone", "inside", "--slip", "slip-1.txt", "--key", inAgent("dave/statement"), "volume-1")
	for _, person := range []string{"alice", "bob"} {
		w.must(station, "review", "approve", "--zone", "inside", "--track", track, "--key", inAgent(person+"/allowlist"), "1")
	}
	w.must(station, "depot", "sign", "--zone", "inside", "--root", shown.Fingerprint, "--track", track, "--track-key", w.key("dev/narinfo"))
	w.sound()
	// The auditor's program cannot check ML-DSA, says so, and wants to be told that another did.
	audit := []string{verifier, "volume", "--roots", "inside/public/root", "--root", shown.Fingerprint, "--slip", "slip-1.txt"}
	if r := w.code(refused, append(audit, "volume-1")...); !bytes.Contains(r.stdout, []byte("NOT CHECKED")) || !bytes.Contains(r.stdout, []byte("manifest-mldsa")) {
		t.Errorf("%v", r)
	}
	w.must(append(audit, "--mldsa-checked", "volume-1")...)

	// An agent that has lost the key says so, and what to do.
	ssh("ssh-add", "-q", "-D")
	r := w.code(failed, station, "review", "reject", "--zone", "inside", "--key", inAgent("alice/allowlist"), "--reason", "no more", "1")
	if !strings.Contains(string(r.stderr), "holds no keys") || !strings.Contains(string(r.stderr), "hint: ") {
		t.Errorf("%v", r)
	}
}
