package authenticate_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

const vectors = "../../../vectors/git-auth"

// gitRun runs git on repositories that tests made. A machine without git cannot run these tests, and says so.
func gitRun(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("SKIPPED, NOT TESTED: git is missing (apt-get install git)")
	}
	cmd := exec.Command("git", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out)
}

func fingerprint(t testing.TB, s string) openpgp.Fingerprint {
	t.Helper()
	f, err := scheme.ParseFingerprint(s)
	if err != nil {
		t.Fatal(err)
	}
	return openpgp.Fingerprint(f)
}

// verdict runs the judgement and tells the codes of what was refused.
func verdict(t testing.TB, dir string, req authenticate.Request) []string {
	t.Helper()
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), req)
	if rs, ok := trust.AsRefusals(err); ok {
		return rs.Codes()
	}
	if err != nil {
		t.Fatal(err)
	}
	return r.Refused(report.Verdict, nil).Codes()
}

// TestVectors holds the recorded verdicts of the real program, with the differences that are meant.
func TestVectors(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	gitRun(t, "clone", "-q", "--mirror", filepath.Join(vectors, "repo.bundle"), dir)
	f, err := os.Open(filepath.Join(vectors, "verdicts.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	type recorded struct{ name, said string }
	var all []recorded
	keys := make(map[string]string)
	intro := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		name, said, ok := strings.Cut(s.Text(), " :: ")
		fields := strings.Fields(s.Text())
		switch {
		case ok:
			all = append(all, recorded{name, said})
		case len(fields) == 2 && fields[0] == "intro":
			intro = fields[1]
		case len(fields) >= 3 && fields[0] == "key":
			keys[fields[1]] = fields[2]
		}
	}
	if len(all) < 28 || intro == "" || len(keys) < 6 {
		t.Fatalf("%d verdicts, %d keys", len(all), len(keys))
	}
	id, err := git.ParseID(intro)
	if err != nil {
		t.Fatal(err)
	}
	// What the real program said, by our codes.
	sayings := []struct{ said, code string }{
		{"successfully authenticated", ""}, {"lacks a signature", "commit-unsigned"}, {"not signed by an authorized key", "key-unauthorized"},
		{"is signed by", "introduction-signer"}, {"has a sha1 signature", "signature-hash"}, {"attempts to remove", "authorizations-removed"},
		{"is not a descendant", "not-descendant"}, {"unsupported-signature", "signature-text"}, {"(version 1)", "authorizations-malformed"},
		{"cannot locate", "keyring-missing"}, {"signature verification failed", "signature-bad"},
	}
	for _, r := range all {
		t.Run(r.name, func(t *testing.T) {
			req := authenticate.Request{Introduction: id, Signer: fingerprint(t, keys["a"]), End: "case/" + r.name}
			want := "?"
			for _, s := range sayings {
				if strings.Contains(r.said, s.said) {
					want = s.code
				}
			}
			switch r.name {
			case "wrong-intro-signer":
				req.Signer = fingerprint(t, keys["b"])
			case "intro-only-wrong-signer": // where ours differs, on purpose
				req.Signer = fingerprint(t, keys["b"])
				want = "introduction-signer"
			case "merge-unrelated-root-with-historical":
				req.Historical = []openpgp.Fingerprint{req.Signer}
			case "no-such-keyring":
				req.Keyring = "nokeyring"
				req.End = intro
			}
			got := verdict(t, dir, req)
			switch {
			case want == "" && len(got) != 0, want != "" && !slices.Contains(got, want):
				t.Errorf("refused for %q, the real program said: %s", got, r.said)
			}
		})
	}
}

var world = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

// TestCases judges all histories from files, loose and packed, with one cache for all: no proof of one lets another pass. Nothing of a repository
// changes, and nothing of it is run.
func TestCases(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	cache, err := authenticate.OpenCache(filepath.Join(top, "cache"), filepath.Join(top, "state", "key"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range channeltest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			h := c.Build(w)
			dir := filepath.Join(top, c.Name+".git")
			if h.Other != nil {
				other := filepath.Join(top, c.Name+".other")
				if err := h.Other.Write(other); err != nil {
					t.Fatal(err)
				}
				h.Files["objects/info/alternates"] = []byte(filepath.Join(other, "objects") + "\n")
			}
			if err := h.Write(dir); err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			req := authenticate.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End.String(), Historical: h.Historical}
			for _, req.Cache = range []*authenticate.Cache{nil, cache, cache} {
				got := verdict(t, dir, req)
				if slices.ContainsFunc(c.Codes, func(c string) bool { return strings.HasPrefix(c, "object-") }) && req.Cache != nil {
					continue // what was proven is not read again, whether or not it is there
				}
				if !slices.Equal(got, c.Codes) {
					t.Errorf("with the cache %v: refused for %q, want %q", req.Cache != nil, got, c.Codes)
				}
			}
			if after := listing(t, dir); after != before {
				t.Errorf("the repository has changed:\n%s\nbefore:\n%s", after, before)
			}
			if _, err := os.Stat(filepath.Join(dir, "hooked")); err == nil {
				t.Error("something of the repository was run")
			}
		})
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
