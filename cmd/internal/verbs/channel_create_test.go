package verbs

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/frame/frametest"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate/create"
	"sallyport/internal/trust"
)

// TestChannelCreate: one promise of the manual a step.
func TestChannelCreate(t *testing.T) {
	top := t.TempDir()
	in := func(name string) string { return filepath.Join(top, name) }
	clock := func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }
	for name, text := range map[string]string{"pass": "correct horse\n", "empty": "\n", "no.asc": "no key\n"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bob, err := create.NewKey(rand.Reader, clock(), "Bob <bob@enclave.example>")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in("bob.asc"), bob.Public(), 0o644); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"HOME": in("home"), "SALLYPORT_PASSPHRASE_FILE": in("pass"), "PATH": in("nowhere")}
	env := frame.Env{Rand: rand.Reader, Clock: clock, Getenv: func(s string) string { return vars[s] }}
	run := func(args ...string) frametest.Outcome {
		return frametest.Run(t.Context(), env, Both, append([]string{"channel"}, args...)...)
	}
	created := func(more ...string) frametest.Outcome {
		return run(append([]string{"create", "--name", "packages", "--url", "https://git.enclave.example/packages.git", "--author", "Alice <alice@enclave.example>"}, more...)...)
	}
	check := frametest.Checker(t)
	check("created", created("--key", in("a.key"), "--committer", in("bob.asc"), in("a")), 0, "channel packages is in", "introduction ", "(name 'packages)", "order channel --reason REASON packages https://git.enclave.example/packages.git master ", "gpg --import")
	if st, err := os.Stat(in("a.key")); err != nil || st.Mode().Perm() != 0o400 {
		t.Errorf("%v %v", st, err)
	}
	if list, err := os.ReadFile(filepath.Join(in("a"), ".guix-authorizations")); err != nil || !strings.Contains(string(list), bob.Fingerprint().String()) {
		t.Errorf("%s %v", list, err)
	}
	o := created("--json", "--key", in("b.key"), "--no-passphrase", "--branch", "main", in("b"))
	var out struct{ Type, Introduction, Signer, Keyring, Channels, Order string }
	if err := json.Unmarshal([]byte(o.Stdout), &out); err != nil || out.Type != "created" || !strings.Contains(o.Stderr, "not encrypted") {
		t.Fatalf("%v\n%s%s", err, o.Stdout, o.Stderr)
	}
	if all, err := scheme.Channels([]byte(out.Channels)); err != nil || len(all) != 1 || all[0].Branch != "main" || all[0].Introduction.Commit != out.Introduction {
		t.Errorf("%+v %v", all, err)
	}
	// The order is a line as orders have it.
	text := "sallyport orders v1\nenclave demo\nversion 1\ndate 2026-03-02T12:00:00Z\nroot 1\nprevious -\n" + out.Order + " ours\n"
	if orders, err := trust.ParseOrders([]byte(text)); err != nil || len(orders.Channels) != 1 || orders.Channels[0].Commit != out.Introduction {
		t.Errorf("%v\n%s", err, text)
	}
	check("authentic", run("authenticate", "-r", in("b"), "--no-cache", out.Introduction, out.Signer), 0, "authenticated commit "+out.Introduction)

	check("there already", created("--key", in("c.key"), in("a")), 1, "there already", "hint:")
	check("the key is there already", created("--key", in("a.key"), in("c")), 1, "never overwritten", "hint:")
	check("neither key nor gpg", created(in("c")), 2, "--key FILE")
	check("key and gpg", created("--key", in("c.key"), "--gpg", out.Signer, in("c")), 2)
	check("no gpg", created("--gpg", out.Signer, in("c")), 1, "gpg is missing")
	check("no fingerprint", created("--gpg", "abc", in("c")), 2, "is not a fingerprint")
	check("no name", run("create", "--key", in("c.key"), in("c")), 2, "channel", "URL", "person")
	check("nothing", run("create", in("c")), 2, "channel", "URL", "person", "--key FILE")
	check("no directory", created("--key", in("c.key")), 2)
	check("a committer without a key", created("--key", in("c.key"), "--committer", in("no.asc"), in("c")), 1, "openpgp", "gpg --export")
	check("a committer's other key", created("--key", in("c.key"), "--committer", in("bob.asc")+"="+out.Signer, in("c")), 3, "key-unusable")
	check("a committer's fingerprint", created("--key", in("c.key"), "--committer", in("bob.asc")+"=12", in("c")), 2, "is not a fingerprint")
	check("a committer twice", created("--key", in("c.key"), "--committer", in("bob.asc"), "--committer", in("bob.asc")+"="+bob.Fingerprint().Hex(), in("c")), 3, "key-twice")
	check("nowhere", created("--key", in("c.key"), filepath.Join(in("nowhere"), "c")), 1)
	vars["SALLYPORT_PASSPHRASE_FILE"] = in("empty")
	check("no passphrase", created("--key", in("c.key"), in("c")), 2, "--no-passphrase")
	// After whatever failed nothing is left.
	names, err := os.ReadDir(top)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if strings.HasPrefix(n.Name(), "c") || strings.HasPrefix(n.Name(), ".") {
			t.Errorf("left behind: %s", n.Name())
		}
	}
}
