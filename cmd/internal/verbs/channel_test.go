package verbs

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel/channeltest"
)

// TestChannelAuthenticate: one promise of the manual a step.
func TestChannelAuthenticate(t *testing.T) {
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	ends, good := channeltest.Growing(w, 10)
	good.End = ends[len(ends)-1]
	good.Refs["refs/heads/end"] = good.End
	repo := filepath.Join(top, "good.git")
	if err := good.Write(repo); err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{"HOME": filepath.Join(top, "home")}
	run := func(args ...string) outcome {
		t.Helper()
		var stdout, stderr bytes.Buffer
		env := &frame.Env{Program: "sallyport", Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr, Rand: rand.Reader,
			Clock: func() time.Time { return time.Unix(1700000000, 0) }, Getenv: func(s string) string { return vars[s] }}
		root := frame.Root(env, "", "", "", channelNoun(env))
		return outcome{frame.Run(t.Context(), env, root, append([]string{"channel", "authenticate"}, args...)), stdout.String(), stderr.String()}
	}
	intro, signer := good.Introduction.String(), good.Signer.String()
	check := func(what string, o outcome, code int, said ...string) {
		t.Helper()
		if o.code != code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", what, o.code, code, o.stdout, o.stderr)
		}
		for _, s := range said {
			if !strings.Contains(o.stdout+o.stderr, s) {
				t.Errorf("%s: not said: %q\n%s%s", what, s, o.stdout, o.stderr)
			}
		}
	}
	check("good", run("-r", repo, intro, signer), 0, "authenticated commit "+good.End.String(), "signed by 3 keys", "malformed-headers: 1")
	check("again", run("-r", repo, intro, strings.ToLower(strings.ReplaceAll(signer, " ", ""))), 0, "were proven before")
	check("without the cache", run("-r", repo, "--no-cache", "--end", "end", intro, signer), 0)
	check("fsck", run("-r", repo, "--fsck", intro, signer), 0)
	check("findings", run("-r", repo, "--findings", intro, signer), 0, "malformed-headers: commit ")
	check("strict", run("-r", repo, "--strict", intro, signer), 3, "malformed-headers", "an excuse has to be named")
	check("since the end", run("-r", repo, "--since", good.End.String(), intro, signer), 0)
	check("since the introduction", run("-r", repo, "--since", intro, intro, signer), 3, "malformed-headers")
	check("since nothing", run("-r", repo, "--since", strings.Repeat("1", 40), intro, signer), 3, "policy-pin")
	check("another signer", run("-r", repo, intro, w.C.Fingerprint.String()), 3, "introduction-signer", "instead of")
	check("no such branch and end", run("-r", repo, "-k", "no", "--end", "none", intro, signer), 3, "keyring-missing", "end-missing")
	check("no introduction", run("-r", repo, "short", signer), 2)
	check("no fingerprint", run("-r", repo, intro, "short"), 2)
	check("one argument", run("-r", repo, intro), 2)
	check("nowhere", run("-r", filepath.Join(top, "nowhere"), intro, signer), 1)
	check("no repository", run("-r", top, intro, signer), 3, "repository-none")

	o := run("-r", repo, "--json", "--findings", intro, signer)
	var out struct {
		Type, Commit string
		Commits      int
		Signers      []struct{ Name string }
		Findings     []struct{ Code, Commit string }
	}
	if err := json.Unmarshal([]byte(o.stdout), &out); err != nil || out.Type != "authenticated" || out.Commit != good.End.String() || len(out.Signers) != 3 || len(out.Findings) != 1 || out.Commits < 10 {
		t.Errorf("%+v %v\n%s", out, err, o.stdout)
	}

	// A proof that somebody else wrote is not used, and that is said.
	proofs, err := filepath.Glob(filepath.Join(top, "home/.cache/sallyport/authenticate/*.proof"))
	if err != nil || len(proofs) != 1 {
		t.Fatal(proofs, err)
	}
	data, err := os.ReadFile(proofs[0])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(proofs[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	check("a forged proof", run("-r", repo, intro, signer), 0, "an earlier proof is not used", "seal")
	vars = nil
	check("no home", run("-r", repo, intro, signer), 0, "nothing is remembered")

	for _, c := range channeltest.Cases() {
		if c.Name == "several-bad" {
			h := c.Build(w)
			bad := filepath.Join(top, "bad.git")
			if err := h.Write(bad); err != nil {
				t.Fatal(err)
			}
			check("several bad commits", run("-r", bad, h.Introduction.String(), h.Signer.String()), 3, "3 reasons", "commit-unsigned", "key-unauthorized", "signature-bad", "An Author", ".guix-authorizations")
		}
	}
}
