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
	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/outside/channels"
	"sallyport/internal/store"
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
	env := frame.Env{Rand: rand.Reader, Clock: func() time.Time { return time.Unix(1700000000, 0) }, Getenv: func(s string) string { return vars[s] }}
	run := func(args ...string) frametest.Outcome {
		return frametest.Run(t.Context(), env, Both, append([]string{"channel", "authenticate"}, args...)...)
	}
	intro, signer := good.Introduction.String(), good.Signer.String()
	check := frametest.Checker(t)
	check("good", run("-r", repo, intro, signer), 0, "authenticated commit "+good.End.String(), "signed by 3 keys", "malformed-headers: 1")
	check("again", run("-r", repo, intro, strings.ToLower(strings.ReplaceAll(signer, " ", ""))), 0, " proven before")
	check("without the cache", run("-r", repo, "--no-cache", "--end", "end", intro, signer), 0)
	check("fsck", run("-r", repo, "--fsck", intro, signer), 0)
	check("findings", run("-r", repo, "--findings", intro, signer), 0, "malformed-headers: commit ")
	check("strict", run("-r", repo, "--strict", intro, signer), 3, "malformed-headers", "an excuse has to be named")
	check("since the end", run("-r", repo, "--since", good.End.String(), intro, signer), 0)
	check("since the introduction", run("-r", repo, "--since", intro, intro, signer), 3, "malformed-headers")
	check("since nothing", run("-r", repo, "--since", strings.Repeat("1", 40), intro, signer), 3, "policy-pin")
	check("another signer", run("-r", repo, intro, w.C.Fingerprint.String()), 3, "introduction-signer", "instead of", "hint: compare")
	check("another introduction", run("-r", repo, strings.Repeat("1", 40), signer), 3, "introduction-missing", "hint: compare")
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
	if err := json.Unmarshal([]byte(o.Stdout), &out); err != nil || out.Type != "authenticated" || out.Commit != good.End.String() || len(out.Signers) != 3 || len(out.Findings) != 1 || out.Commits < 10 {
		t.Errorf("%+v %v\n%s", out, err, o.Stdout)
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

// TestChannelAuthenticateExcuses: with a zone's channel, what is newer than its first pin refuses, unless the zone excuses it, and that is told.
func TestChannelAuthenticateExcuses(t *testing.T) {
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	ends, h := channeltest.Growing(w, 16)
	h.Refs["refs/heads/master"] = ends[2]
	h.Refs["refs/heads/end"] = ends[15]
	repo, zone := filepath.Join(top, "channel.git"), filepath.Join(top, "outside")
	if err := h.Write(repo); err != nil {
		t.Fatal(err)
	}
	now := time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	cfg, err := store.NewConfig(store.Outside, "test")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Space.Reserve = 0
	if err := store.Init(zone, cfg, clock, rand.Reader); err != nil {
		t.Fatal(err)
	}
	inZone := func(f func(p *channels.Pinner) error) {
		t.Helper()
		z, err := store.Open(t.Context(), zone, store.Options{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		if err := f(&channels.Pinner{Zone: z, Clock: clock, Rand: rand.Reader}); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) frametest.Outcome {
		args = append([]string{"channel", "authenticate", "--zone", zone, "--channel", "guix", "-r", repo, "--no-cache"}, args...)
		return frametest.Run(t.Context(), frame.Env{Rand: rand.Reader, Clock: clock}, Both, append(args, h.Introduction.String(), h.Signer.String())...)
	}
	check := frametest.Checker(t)
	check("no pin yet", run(), 0, "finding malformed-headers: 2", "has no pin of channel guix yet")
	inZone(func(p *channels.Pinner) error {
		_, err := p.Pin(t.Context(), channels.Request{Channel: "guix", Repository: repo, Commit: ends[2].String(), URL: "https://git.example.org/guix.git", Introduction: h.Introduction, Signer: h.Signer})
		return err
	})
	check("newer than the first pin", run(), 3, "malformed-headers", "an excuse has to be named")
	check("the pin itself", run("--end", "master"), 0)
	inZone(func(p *channels.Pinner) error {
		return p.Excuse(t.Context(), channels.Excuse{Channel: "guix", Excuse: authenticate.Excuse{Name: "old-tool", Code: channel.FindingHeaders, Reason: "asked by telephone", By: "olga", Expires: now.Add(30 * 24 * time.Hour)}})
	})
	check("excused", run(), 0, "EXCUSED malformed-headers in commit ", "old-tool, by olga until 2025-01-31", "asked by telephone")
	var out struct {
		Excused []struct{ Name, Code, Commit, By, Until, Reason string }
		Over    []string `json:"excuses_over"`
	}
	if o := run("--json"); json.Unmarshal([]byte(o.Stdout), &out) != nil || len(out.Excused) != 2 || out.Excused[0].Name != "old-tool" || out.Excused[0].Reason == "" || len(out.Over) != 0 {
		t.Errorf("%+v\n%s%s", out, o.Stdout, o.Stderr)
	}
	check("a commit twice", run("--since", ends[2].String()), 2)
	now = now.Add(31 * 24 * time.Hour)
	check("the excuse has ended", run(), 3, "malformed-headers", "the excuse \"old-tool\", by olga, ended at 2025-01-31")
}
