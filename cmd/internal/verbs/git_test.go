package verbs

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/frame/frametest"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
)

// TestGitVerify: one promise of the manual a step. The real git, gpg and ssh-keygen are in the tests of package signed.
func TestGitVerify(t *testing.T) {
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	ends, h := channeltest.Growing(w, 3)
	h.End = ends[len(ends)-1]
	h.Refs["refs/heads/end"] = h.End
	tag := func(name string, signed bool) {
		text := fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger A <a@example.org> 1700000000 +0000\n\nrelease\n", h.End, name)
		if signed {
			text = append(text, channeltest.Armor("SIGNATURE", w.A.Signature(channeltest.Form{Created: 1700000000}, text))...)
		}
		h.Refs["refs/tags/"+name] = h.Put(git.KindTag, text)
	}
	tag("v1", true)
	tag("v2", false)
	h.Refs["refs/tags/v3"] = h.Refs["refs/tags/v1"]
	repo := filepath.Join(top, "repo.git")
	if err := h.Write(repo); err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		t.Helper()
		name = filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	key := w.A.File(channeltest.Certificate{})
	ring, armored, bad := file("ring.gpg", key), file("keys/a.asc", channeltest.Armor("PUBLIC KEY BLOCK", key)), file("bad.gpg", key[:50])
	file("keys/README", []byte("not a key"))
	empty := filepath.Dir(file("empty/README", nil))
	signers := file("signers", []byte("a ssh-ed25519 nonsense\nb cert-authority ssh-ed25519 AAAA\n"))
	none := file("none", []byte("# nobody\n"))
	env := frame.Env{Rand: rand.Reader, Clock: func() time.Time { return time.Unix(1800000000, 0) }}
	run := func(args ...string) frametest.Outcome {
		return frametest.Run(t.Context(), env, Both, append([]string{"git", "verify", "-r", repo}, args...)...)
	}
	check := frametest.Checker(t)
	a, c := w.A.Fingerprint.String(), w.C.Fingerprint.String()
	check("a tag", run("-k", ring, "-f", a, "v1"), 0, "verified tag v1, of commit "+h.End.String(), "alice", a, "at 2023-11-14T22:13:20Z")
	check("a directory of keys", run("-k", filepath.Dir(armored), "-f", strings.ReplaceAll(a, " ", ""), "v1", "refs/tags/v1"), 0, "verified tag v1")
	check("all that is wrong", run("-k", ring, "-f", a, "v1", "v2", "v3", "v4"), 3, "3 reasons", "verified tag v1", "signature-missing", "tag-name", "end-missing")
	check("another key", run("-k", ring, "-f", c, "v1"), 3, "key-unlisted", "the keyring has no key "+c)
	check("allowed signers", run("--allowed-signers", none, "v1"), 3, "signature-format")
	check("bad signers", run("--allowed-signers", signers, "v1"), 3, "signers, line 1", "allowed-signers-malformed", "signers, line 2", "allowed-signers-authority")
	check("a bad keyring", run("-k", bad, "-f", a, "v1"), 3, "keyring-malformed")
	check("no keys", run("-k", empty, "-f", a, "v1"), 1, ".asc")
	check("no keyring", run("-k", filepath.Join(top, "nowhere"), "-f", a, "v1"), 1)
	check("a keyring alone", run("-k", ring, "v1"), 2)
	check("nothing", run("v1"), 2)
	check("both", run("-k", ring, "-f", a, "--allowed-signers", none, "v1"), 2)
	check("a principal of OpenPGP", run("-k", ring, "-f", a, "--principal", "x", "v1"), 2)
	check("no fingerprint", run("-k", ring, "-f", "short", "v1"), 2)
	check("no object", run("-k", ring, "-f", a), 2)

	o := run("-k", ring, "-f", a, "--json", "v1", "end~1", h.End.String())
	var out struct{ Type, Name, Object, Kind, Tag, Target, Format, Key, Signer, Signed string }
	if err := json.NewDecoder(strings.NewReader(o.Stdout)).Decode(&out); err != nil || out.Type != "verified" || out.Tag != "v1" || out.Target != h.End.String() || out.Format != "openpgp" || out.Key != a || out.Kind != "tag" {
		t.Errorf("%+v %v\n%s", out, err, o.Stdout)
	}
}
