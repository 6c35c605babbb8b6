package verbs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOrdersOfChannels: what is wrong with an order about channels is told at once, before there is a draft; a root of one officer is enough for that.
func TestOrdersOfChannels(t *testing.T) {
	w := newKeyWorld(t)
	w.env["SALLYPORT_ZONE"] = w.path("inside")
	w.must("init", "--kind", "inside", "--enclave", "demo", "@inside")
	enroll := []string{"trust", "init"}
	for _, k := range []string{"olga/root", "olga/order", "alice/allowlist", "dave/statement", "carol/manifest", "dev/narinfo"} {
		file := strings.ReplaceAll(k, "/", ".")
		w.must("key", "generate", "--no-passphrase", k, "@"+file)
		if enroll = append(enroll, "--enroll", "@"+file+".pub"); k == "olga/root" {
			enroll = append(enroll, "--key", "@"+file)
		}
	}
	w.must(append(enroll, "--role", "officer=olga", "--role", "reviewer=alice", "--role", "importer=dave", "--role", "collector=carol",
		"--threshold", "root=1", "--threshold", "order=1", "--threshold", "allowlist/dev=1", "--policy", "quorum=1")...)

	commit, print := strings.Repeat("1a", 20), strings.Repeat("2B", 20)
	order := func(verb string, more ...string) []string {
		return append([]string{"order", verb, "--draft", "@x.draft", "--reason", "for tests"}, more...)
	}
	says := func(code int, args []string, all ...string) {
		t.Helper()
		got, _, stderr := w.run(args...)
		if got != code {
			t.Errorf("%q: code %d, want %d\n%s", args, got, code, stderr)
		}
		for _, s := range all {
			if !strings.Contains(stderr, s) {
				t.Errorf("%q: not said: %q\n%s", args, s, stderr)
			}
		}
	}
	says(2, order("channel", "n n", "ftp://x", "HEAD", "zz", "11"), "channel \"n n\"", "URL", "branch \"HEAD\"", "commit \"zz\"", "\"11\"")
	says(2, order("channel", "guix"), "want NAME URL")
	says(3, order("downgrade", "guix", commit), "channel-unknown", "order show")
	says(2, order("downgrade", "gu ix", "zz"), "channel \"gu ix\"", "commit \"zz\"")
	says(3, order("excuse", "late", "signed-after-expiry", "guix"), "channel-unknown", "order channel")
	if _, err := os.Lstat(filepath.Join(w.dir, "x.draft")); err == nil {
		t.Error("there is a draft")
	}
	w.must(order("channel", "guix", "https://git.example.org/guix.git", "master", commit, print)...)
	says(2, order("excuse", "--days", "367", "--commit", "zz", "--key", "11", "La te", "no-such", "guix"), "--days 367", "commit \"zz\"", "\"11\"", "La te", "no-such", "signed-after-expiry")
	w.must(order("excuse", "late", "signed-after-expiry", "guix")...)
	says(3, order("downgrade", "--remove", "guix", commit), "guix: downgrade-unknown", "order show")
	w.must(order("downgrade", "guix", commit)...)
	w.must(order("downgrade", "--remove", "guix", commit)...)
	says(3, order("downgrade", "--remove", "guix", commit), "guix: downgrade-unknown")
	w.must(order("downgrade", "guix", commit)...)
	says(3, order("channel", "--remove", "a", "guix", "b"), "2 reasons", "a: channel-unknown", "b: channel-unknown")
	says(3, order("excuse", "--remove", "late", "a", "b"), "2 reasons", "a: excuse-unknown", "b: excuse-unknown")
	w.must(order("excuse", "--remove", "late")...)

	// A key that waits is not dropped for one whose line cannot be written.
	line := w.must("key", "renew", "--out", "@ledger.pub", "ledger")
	says(1, []string{"key", "renew", "--anew", "--out", "@ledger.pub", "ledger"}, "is there already", "--out", "nothing was changed")
	if again := w.must("key", "renew", "--out", "@ledger.pub", "ledger"); again != line {
		t.Errorf("%s is not %s", again, line)
	}
	if err := os.WriteFile(w.path("other"), []byte("other"), 0o644); err != nil {
		t.Fatal(err)
	}
	says(1, []string{"key", "renew", "--out", "@other", "ledger"}, "another file with --out")
	if again := w.must("key", "renew", "--anew", "--out", "@ledger2.pub", "ledger"); again == line {
		t.Errorf("%s again", again)
	}
}
