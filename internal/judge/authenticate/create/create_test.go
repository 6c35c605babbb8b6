package create_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/create"
	"sallyport/internal/trust"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const alice = "Alice Example <alice@enclave.example>"

func options() create.Options {
	return create.Options{Name: "enclave-packages", URL: "https://git.enclave.example/packages.git", Branch: "master", Author: alice, Date: now}
}

func newKey(t *testing.T, user string) *create.Key {
	t.Helper()
	k, err := create.NewKey(rand.Reader, now, user)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestRepository: what is made is what Guix reads, and git finds nothing to mend in it.
func TestRepository(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "packages")
	bob := newKey(t, "Bob \"Tab\" Müller <bob@enclave.example>")
	o := options()
	o.Message = "introduce\n\nit\n"
	o.Committers = []create.Committer{{Key: bob.Fingerprint(), Public: bob.Public()}}
	k := newKey(t, alice)
	made, err := create.Repository(t.Context(), dir, o, k)
	if err != nil {
		t.Fatal(err)
	}
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: made.Introduction, Signer: k.Fingerprint()})
	if err != nil || !report.OK() || report.End != made.Introduction || len(report.Findings) != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if len(report.Keyring.Keys()) != 2 {
		t.Errorf("%d keys", len(report.Keyring.Keys()))
	}
	data, err := os.ReadFile(filepath.Join(dir, ".guix-authorizations"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := scheme.ParseAuthorizations(data)
	if err != nil || len(all) != 2 || all[0].Name != "alice-example" || all[1].Name != "bob-tab-m-ller" || openpgp.Fingerprint(all[1].Key) != bob.Fingerprint() {
		t.Errorf("%+v, %v", all, err)
	}
	back, err := scheme.Channels(scheme.PrintChannels([]scheme.Channel{made.Channel()}))
	if err != nil || len(back) != 1 || back[0].URL != o.URL || back[0].Introduction.Commit != made.Introduction.String() {
		t.Errorf("%+v, %v", back, err)
	}
	if err := trust.CheckOpenPGP(made.Order.Signer); err != nil {
		t.Error(err)
	}
	git := gitIn(t, dir)
	if out := git("fsck", "--full", "--strict"); strings.Contains(out, "error") {
		t.Error(out)
	}
	if out := git("status", "--porcelain"); out != "" {
		t.Error(out)
	}
	if out := git("log", "--format=%an %ae %ct %B"); out != "Alice Example alice@enclave.example 1772366400 introduce\n\nit\n\n" {
		t.Errorf("%q", out)
	}
	if out := git("branch", "--format=%(refname)"); out != "refs/heads/keyring\nrefs/heads/master\n" {
		t.Errorf("%q", out)
	}
	if names, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(names) != 1 {
		t.Errorf("left over: %v %v", names, err)
	}
	if _, err := create.Repository(t.Context(), dir, o, k); err == nil {
		t.Error("made where one is")
	}
}

// gitIn returns a git that nobody has configured, in a directory.
func gitIn(t *testing.T, dir string, env ...string) func(args ...string) string {
	t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED against git: install it")
	}
	return func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Dir = dir
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}, env...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

// broken signs otherwise than it should.
type broken struct {
	*create.Key
	sign func(data []byte) ([]byte, error)
}

func (b broken) Sign(_ context.Context, data []byte) ([]byte, error) { return b.sign(data) }

// Nothing is left behind, and nothing is in its place, where something is wrong.
func TestRefused(t *testing.T) {
	t.Parallel()
	k, other := newKey(t, alice), newKey(t, alice)
	failed := errors.New("no card")
	tests := []struct {
		name, want string
		by         create.Signer
		change     func(o *create.Options)
	}{
		{"name", "channel", k, func(o *create.Options) { o.Name = "a b" }},
		{"url", "URL", k, func(o *create.Options) { o.URL = "/srv/git" }},
		{"branch", "branch", k, func(o *create.Options) { o.Branch = "keyring" }},
		{"author", "person", k, func(o *create.Options) { o.Author = "Alice" }},
		{"message", "message", k, func(o *create.Options) { o.Message = "a\x1b[2J" }},
		{"committer twice", "key-twice", k, func(o *create.Options) { o.Committers = []create.Committer{{Key: k.Fingerprint(), Public: k.Public()}} }},
		{"committer's key is another", "key-unusable", k, func(o *create.Options) {
			o.Committers = []create.Committer{{Key: other.Fingerprint(), Public: newKey(t, alice).Public()}}
		}},
		{"committer's key is none", "key-unusable", k, func(o *create.Options) {
			o.Committers = []create.Committer{{Key: other.Fingerprint(), Public: []byte("no key")}}
		}},
		{"cannot sign", "no card", broken{k, func([]byte) ([]byte, error) { return nil, failed }}, nil},
		{"signs something else", "signature-bad", broken{k, func(d []byte) ([]byte, error) { return k.Sign(t.Context(), append(d, '\n')) }}, nil},
		{"another key signs", "signature-bad", broken{k, func(d []byte) ([]byte, error) { return other.Sign(t.Context(), d) }}, nil},
		{"signs nothing", "signature-bad", broken{k, func([]byte) ([]byte, error) { return nil, nil }}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			top := t.TempDir()
			o := options()
			if tt.change != nil {
				tt.change(&o)
			}
			_, err := create.Repository(t.Context(), filepath.Join(top, "c"), o, tt.by)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if names, err := os.ReadDir(top); err != nil || len(names) != 0 {
				t.Errorf("left over: %v %v", names, err)
			}
		})
	}
	for _, user := range []string{"", "<a@b>", "A <a>", "A <a@b", "A\n <a@b>", "A <a@b> <c@d>", "A  <a b@c>", " A <a@b>", "A\xff <a@b>", strings.Repeat("A", 300) + " <a@b>"} {
		if _, err := create.NewKey(rand.Reader, now, user); err == nil {
			t.Errorf("%q is taken for a person", user)
		}
	}
	if _, err := create.NewKey(bytes.NewReader(make([]byte, 31)), now, alice); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if _, err := k.Secret(rand.Reader, nil, false); !errors.Is(err, create.ErrNoPassphrase) {
		t.Errorf("%v", err)
	}
}

// TestGPG: gpg takes the secret key, encrypted and not; ordinary commits signed by it are authentic; and a channel is made with a key that gpg has, with a subkey, and
// with none that it has.
func TestGPG(t *testing.T) {
	t.Parallel()
	gpg, err := create.FindGPG(os.Getenv("PATH"))
	if err != nil {
		t.Skip("SKIPPED, NOT TESTED against GnuPG: ", err)
	}
	home, err := os.MkdirTemp("/tmp", "gpg") // sockets have short names
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"GNUPGHOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	gpg.Env = env
	t.Cleanup(func() {
		kill := exec.Command("gpgconf", "--kill", "gpg-agent")
		kill.Env = env
		if out, err := kill.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		os.RemoveAll(home)
	})
	// gpg waits five seconds for its agent, which may need longer on a busy machine.
	for range 20 {
		launch := exec.Command("gpgconf", "--launch", "gpg-agent")
		launch.Env = env
		if launch.Run() == nil {
			break
		}
	}
	passphrase := "correct horse"
	for name, text := range map[string]string{"pass": passphrase + "\n", "gpg.conf": "pinentry-mode loopback\npassphrase-file " + home + "/pass\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(stdin []byte, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), gpg.Path, append([]string{"--batch"}, args...)...)
		cmd.Env, cmd.Stdin = env, bytes.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("gpg %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	k, open := newKey(t, alice), newKey(t, "Open <open@enclave.example>")
	secret, err := k.Secret(rand.Reader, []byte(passphrase), false)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := open.Secret(rand.Reader, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range [][]byte{secret, plain} {
		if out := run(s, "--import"); !strings.Contains(out, "secret keys imported: 1") {
			t.Fatal(out)
		}
	}

	dir := filepath.Join(t.TempDir(), "packages")
	made, err := create.Repository(t.Context(), dir, options(), k)
	if err != nil {
		t.Fatal(err)
	}
	git := gitIn(t, dir, "GNUPGHOME="+home)
	if err := os.WriteFile(filepath.Join(dir, "hello.scm"), []byte("(define-module (hello))\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	git("add", "hello.scm")
	git("commit", "-q", "-m", "add hello")
	authentic(t, dir, made, 1)

	run(nil, "--quick-add-key", k.Fingerprint().Hex(), "ed25519", "sign", "0")
	var sub openpgp.Fingerprint
	ring := openpgp.NewKeyring()
	if err := ring.Add("gpg", []byte(run(nil, "--armor", "--export", k.Fingerprint().Hex()))); err != nil {
		t.Fatal(err)
	}
	for _, key := range ring.Keys() {
		if key.Subkey {
			sub = key.Fingerprint
		}
	}
	for i, print := range []openpgp.Fingerprint{k.Fingerprint(), open.Fingerprint(), sub} {
		by, err := gpg.Key(t.Context(), print)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "two")
		made, err := create.Repository(t.Context(), dir, options(), by)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if made.Signer != print {
			t.Errorf("%d: signed by %s", i, made.Signer)
		}
		gitIn(t, dir, "GNUPGHOME="+home)("commit", "-q", "--allow-empty", "-m", "more")
		authentic(t, dir, made, 1)
	}
	_, err = gpg.Key(t.Context(), newKey(t, alice).Fingerprint())
	if rs, refused := trust.AsRefusals(err); !refused || !rs.Has("key-missing") {
		t.Errorf("%v", err)
	}
}

func authentic(t *testing.T, dir string, made *create.Made, commits int) {
	t.Helper()
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: made.Introduction, Signer: made.Signer})
	if err != nil || !report.OK() || report.Commits != commits {
		t.Errorf("%+v, %v", report, err)
	}
}
