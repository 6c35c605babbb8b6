package signed_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/openpgp"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/signed"
	"sallyport/internal/trust"
)

// now is when signatures are judged; the real programs go by the clock of the machine, so it is that one.
var now = time.Now()

// A bench is a repository with keys, made and judged by the real git, gpg and ssh-keygen.
type bench struct {
	t   testing.TB
	now time.Time
	dir string // with the repository in repo
	env []string
}

// need skips, loudly, where a program is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED, NOT TESTED: signatures of the real %s, because %s is missing (apt-get install git gpg gpg-agent openssh-client)", p, p)
		}
	}
}

func newBench(t testing.TB) *bench {
	// A short path: gpg-agent listens on a socket in it.
	dir, err := os.MkdirTemp("", "signed")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, now: now, dir: dir}
	t.Cleanup(func() {
		if _, err := exec.LookPath("gpgconf"); err == nil {
			b.try("", "gpgconf", "--kill", "all")
		}
		os.RemoveAll(dir)
	})
	b.env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GNUPGHOME=" + dir + "/gnupg", "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "TZ=UTC",
		"GIT_AUTHOR_NAME=An Author", "GIT_AUTHOR_EMAIL=author@example.org", "GIT_COMMITTER_NAME=Al Ice", "GIT_COMMITTER_EMAIL=alice@example.org"}
	if err := os.Mkdir(filepath.Join(dir, "gnupg"), 0o700); err != nil {
		t.Fatal(err)
	}
	// gpg waits five seconds for its agent, which may need longer on a busy machine.
	if _, err := exec.LookPath("gpgconf"); err == nil {
		for range 20 {
			if _, err := b.try("", "gpgconf", "--launch", "gpg-agent"); err == nil {
				break
			}
		}
	}
	b.run("", "git", "init", "-q", "-b", "main", "repo")
	b.run("", "git", "-C", "repo", "commit", "-q", "--allow-empty", "-m", "unsigned")
	return b
}

func (b *bench) try(stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env, cmd.Stdin = b.dir, b.env, strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), err
}

func (b *bench) run(stdin, name string, args ...string) string {
	b.t.Helper()
	out, err := b.try(stdin, name, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) git(args ...string) string {
	b.t.Helper()
	return b.run("", "git", append([]string{"-C", "repo"}, args...)...)
}

func (b *bench) object(kind, text string) string {
	b.t.Helper()
	return b.run(text, "git", "-C", "repo", "hash-object", "-t", kind, "-w", "--literally", "--stdin")
}

func (b *bench) raw(object string) string {
	b.t.Helper()
	cmd := exec.Command("git", "-C", "repo", "cat-file", "-p", object)
	cmd.Dir, cmd.Env = b.dir, b.env
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

func (b *bench) write(name, text string) string {
	b.t.Helper()
	name = filepath.Join(b.dir, name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return name
}

func (b *bench) verify(name string, by signed.By) (*signed.Result, trust.Refusals) {
	b.t.Helper()
	r, err := authenticate.Open(filepath.Join(b.dir, "repo"), authenticate.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	res, err := signed.Verify(r, name, by, b.now)
	if err == nil {
		return res, nil
	}
	refusals, ok := trust.AsRefusals(err)
	if !ok {
		b.t.Fatalf("%s: %v", name, err)
	}
	return nil, refusals
}

// A check is one object with the verdict it is to have.
type check struct {
	what, object string
	by           signed.By
	codes        []string
	differs      string // why git says otherwise; "" where it agrees
}

// judge holds our verdict against the table, and against git's.
func (b *bench) judge(checks []check, config ...string) {
	b.t.Helper()
	for _, c := range checks {
		res, refusals := b.verify(c.object, c.by)
		if got := refusals.Codes(); !slices.Equal(got, c.codes) {
			b.t.Errorf("%s: %v, want %v\n%v", c.what, got, c.codes, refusals)
		}
		if res != nil && (res.Key == "" || res.Signer == "" || res.Signed == 0 || res.Format == "") {
			b.t.Errorf("%s: %+v", c.what, res)
		}
		verb := "verify-tag"
		if res != nil && res.Tag == "" || strings.TrimSpace(b.git("cat-file", "-t", c.object)) != "tag" {
			verb = "verify-commit"
		}
		_, err := b.try("", "git", append(append([]string{"-C", "repo"}, config...), verb, c.object)...)
		if ours, theirs := len(refusals) == 0, err == nil; (ours == theirs) == (c.differs != "") {
			b.t.Errorf("%s: ours: good %v, git: good %v (%q): %v", c.what, ours, theirs, c.differs, err)
		}
	}
}

// gpgKey makes a key and returns its fingerprint.
func (b *bench) gpgKey(user string, args ...string) string {
	b.t.Helper()
	b.run("", "gpg", append([]string{"--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"}, append(args, "--quick-gen-key", user, "ed25519", "sign,cert", "0")...)...)
	return b.print(user, "fpr")
}

func (b *bench) print(user, of string) string {
	b.t.Helper()
	for line := range strings.SplitSeq(b.run("", "gpg", "--with-colons", "--with-fingerprint", "--with-subkey-fingerprint", "--list-keys", user), "\n") {
		if f := strings.Split(line, ":"); f[0] == of {
			return f[9]
		}
	}
	b.t.Fatalf("gpg has no key of %s", user)
	return ""
}

func (b *bench) ring(armor bool, users ...string) *openpgp.Keyring {
	b.t.Helper()
	ring := openpgp.NewKeyring()
	args := []string{"--export"}
	if armor {
		args = append([]string{"--armor"}, args...)
	}
	cmd := exec.Command("gpg", append(args, users...)...)
	cmd.Dir, cmd.Env = b.dir, b.env
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := ring.Add("ring", out); err != nil {
		b.t.Fatal(err)
	}
	return ring
}

func fingerprint(t testing.TB, s string) openpgp.Fingerprint {
	t.Helper()
	var f openpgp.Fingerprint
	if n, err := hex.Decode(f[:], []byte(s)); err != nil || n != len(f) {
		t.Fatalf("%q: %v", s, err)
	}
	return f
}

func TestOpenPGP(t *testing.T) {
	need(t, "git", "gpg", "gpg-agent", "gpgconf")
	b := newBench(t)
	alice, mallory := b.gpgKey("alice@example.org"), b.gpgKey("mallory@example.org")
	// One whose subkey signs.
	loop := []string{"--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"}
	b.run("", "gpg", append(loop, "--quick-gen-key", "bob@example.org", "ed25519", "cert", "0")...)
	bob := b.print("bob@example.org", "fpr")
	b.run("", "gpg", append(loop, "--quick-add-key", bob, "ed25519", "sign", "0")...)
	// One that has expired: it was made and signed three years ago, and held for a year.
	const long = "20230101T000000"
	old := []string{"--faked-system-time", long + "!"}
	b.run("", "gpg", append(append(loop, old...), "--quick-gen-key", "old@example.org", "ed25519", "sign,cert", "1y")...)
	expired := b.print("old@example.org", "fpr")
	b.run("", "gpg", append(append(loop, old...), "--quick-gen-key", "brief@example.org", "ed25519", "sign,cert", "0")...)
	briefly := b.print("brief@example.org", "fpr")

	sign := func(key, name string, more ...string) string {
		b.git(append([]string{"-c", "user.signingkey=" + key, "tag", "-s", "-m", "release " + name, name}, more...)...)
		return name
	}
	b.git("-c", "user.signingkey="+alice, "commit", "-q", "-S", "--allow-empty", "-m", "signed")
	sign(alice, "v1")
	sign(bob, "v2")
	sign(mallory, "evil")
	b.git("tag", "light")
	b.git("tag", "-a", "-m", "annotated", "annotated")
	head := b.git("rev-parse", "HEAD")
	b.git("update-ref", "refs/tags/v9", b.git("rev-parse", "v1"))
	sign(alice, "of-tag", "v1")
	sign(alice, "of-tree", "HEAD^{tree}")
	good := b.raw("v1")
	b.git("update-ref", "refs/tags/moved", b.object("tag", strings.Replace(good, "tag v1\n", "tag moved\n", 1)))
	b.git("update-ref", "refs/tags/v1-more", b.object("tag", strings.Replace(good, "tag v1\n", "tag v1-more\n", 1)+"more\n"))
	after := b.object("tag", good+"and more\n")
	other := b.object("tag", strings.Replace(good, "object "+head, "object "+b.git("rev-parse", "HEAD^"), 1))
	kind := b.object("tag", strings.Replace(good, "type commit", "type tree", 1))
	twice := b.object("tag", good+good[strings.Index(good, "-----BEGIN"):])
	commit := b.raw("HEAD")
	changed := b.object("commit", strings.Replace(commit, "\nsigned", "\nsinged", 1))
	nul := b.object("commit", commit+"\x00more")
	second := b.object("commit", strings.Replace(commit, "\ngpgsig", "\nauthor A <a@example.org> 1 +0000\ngpgsig", 1))
	unsigned := b.git("rev-parse", "HEAD^")

	// With an old clock, through a program of git's choice.
	fake := b.write("old-gpg", "#!/bin/sh\nexec gpg --faked-system-time "+long+"! --allow-weak-digest-algos \"$@\"\n")
	sha1 := b.write("sha1-gpg", "#!/bin/sh\nexec gpg --digest-algo SHA1 --allow-weak-digest-algos \"$@\"\n")
	brief := b.write("brief-gpg", "#!/bin/sh\nexec gpg --faked-system-time $(date -d '-5 days' +%Y%m%dT%H%M%S)! --default-sig-expire 2d --no-ask-sig-expire \"$@\"\n")
	for _, f := range []string{fake, sha1, brief} {
		if err := os.Chmod(f, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	b.git("-c", "gpg.program="+fake, "-c", "user.signingkey="+expired, "tag", "-s", "-m", "old", "old")
	b.git("-c", "gpg.program="+sha1, "-c", "user.signingkey="+alice, "tag", "-s", "-m", "weak", "weak")
	b.git("-c", "gpg.program="+brief, "-c", "user.signingkey="+briefly, "tag", "-s", "-m", "brief", "brief")

	all := b.ring(true, "alice@example.org", "bob@example.org", "mallory@example.org", "old@example.org", "brief@example.org")
	binary := b.ring(false, "alice@example.org")
	by := func(ring *openpgp.Keyring, prints ...string) signed.By {
		x := signed.By{Keyring: ring}
		for _, p := range prints {
			x.Fingerprints = append(x.Fingerprints, fingerprint(t, p))
		}
		return x
	}
	honest := by(all, alice, bob, expired)
	const stricter = "git does not ask whose key it is"
	b.judge([]check{
		{"a tag", "v1", honest, nil, ""},
		{"its full name", "refs/tags/v1", honest, nil, ""},
		{"its id", b.git("rev-parse", "v1"), honest, nil, ""},
		{"a binary keyring", "v1", by(binary, alice), nil, ""},
		{"a commit", head, honest, nil, ""},
		{"a branch", "main", honest, nil, ""},
		{"by a subkey of one that is named", "v2", honest, nil, ""},
		{"by a subkey that is named", "v2", by(all, subkey(b, "bob@example.org")), nil, ""},
		{"a tag of a tag", "of-tag", honest, nil, ""},
		{"a tag of a tree", "of-tree", honest, nil, ""},
		{"by another key", "evil", honest, []string{"key-unlisted"}, stricter},
		{"by nobody that is named", "v1", by(all, bob), []string{"key-unlisted"}, stricter},
		{"by a key that is not there", "v2", by(binary, alice, bob), []string{"key-missing"}, "git has the keys of all"},
		{"lightweight", "light", honest, []string{"tag-lightweight"}, "git verify-tag refuses, verify-commit does not ask for the name"},
		{"not signed", "annotated", honest, []string{"signature-missing"}, ""},
		{"a commit that is not signed", unsigned, honest, []string{"signature-missing"}, ""},
		{"a reference that was moved", "v9", honest, []string{"tag-name"}, "git does not compare the names"},
		{"renamed within", "moved", honest, []string{"signature-bad"}, ""},
		{"renamed, and more behind", "v1-more", honest, []string{"tag-malformed", "signature-bad"}, ""},
		{"text behind the signature", after, honest, []string{"tag-malformed"}, "git verifies what stands before"},
		{"of another object", other, honest, []string{"signature-bad"}, ""},
		{"of another kind", kind, honest, []string{"tag-target", "signature-bad"}, ""},
		{"two signatures", twice, honest, []string{"tag-malformed"}, ""},
		{"another message", changed, honest, []string{"signature-bad"}, ""},
		{"a zero byte", nul, honest, []string{"commit-malformed"}, ""},
		{"two authors", second, honest, []string{"commit-malformed", "signature-bad"}, ""},
		{"by a key that has expired since", "old", honest, nil, "gpg goes by today"},
		{"past its own expiry", "brief", by(all, briefly), []string{"signature-date"}, ""},
		{"with SHA-1", "weak", honest, []string{"signature-hash"}, "gpg takes it"},
		{"a blob", b.git("hash-object", "-w", fake), honest, []string{"object-kind"}, ""},
	})
	if res, _ := b.verify("old", honest); res == nil || len(res.Notes) != 1 || !strings.Contains(res.Notes[0], "expired since") {
		t.Errorf("%+v", res)
	}
	res, refusals := b.verify("v1", honest)
	if refusals != nil || res.Tag != "v1" || res.Target.String() != head || res.Signer != "alice@example.org" || strings.ReplaceAll(res.Key, " ", "") != alice {
		t.Errorf("%+v %v", res, refusals)
	}
	if _, refusals := b.verify("nothing", honest); !slices.Equal(refusals.Codes(), []string{"end-missing"}) {
		t.Error(refusals)
	}
	if _, refusals := b.verify(strings.Repeat("1", 40), honest); !slices.Equal(refusals.Codes(), []string{"object-missing"}) {
		t.Error(refusals)
	}
	if _, refusals := b.verify("v1", signed.By{}); !slices.Equal(refusals.Codes(), []string{"signature-format"}) {
		t.Error(refusals)
	}

	// After a revocation nothing counts, if no reason is given.
	cert, err := os.ReadFile(filepath.Join(b.dir, "gnupg/openpgp-revocs.d", alice+".rev"))
	if err != nil {
		t.Fatal(err)
	}
	b.run(strings.Replace(string(cert), ":-----BEGIN", "-----BEGIN", 1), "gpg", append(loop, "--import")...)
	b.judge([]check{{"by a revoked key", "v1", by(b.ring(true, "alice@example.org"), alice), []string{"key-revoked"}, ""}})
}

// subkey is the fingerprint of a user's first subkey.
func subkey(b *bench, user string) string {
	b.t.Helper()
	prints := 0
	for line := range strings.SplitSeq(b.run("", "gpg", "--with-colons", "--with-subkey-fingerprint", "--list-keys", user), "\n") {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			if prints++; prints == 2 {
				return f[9]
			}
		}
	}
	b.t.Fatal("no subkey")
	return ""
}

func TestSSH(t *testing.T) {
	need(t, "git", "ssh-keygen")
	b := newBench(t)
	public := make(map[string]string)
	key := func(name string, args ...string) {
		b.run("", "ssh-keygen", append([]string{"-q", "-N", "", "-C", "comment", "-f", name}, args...)...)
		data, err := os.ReadFile(filepath.Join(b.dir, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		public[name] = strings.TrimSpace(string(data))
	}
	key("alice", "-t", "ed25519")
	key("bob", "-t", "ecdsa", "-b", "256")
	key("carol", "-t", "ecdsa", "-b", "521")
	key("rose", "-t", "rsa", "-b", "2048")
	key("weak", "-t", "rsa", "-b", "1024")
	key("mallory", "-t", "ed25519")
	ssh := func(name string, args ...string) {
		b.git(append([]string{"-c", "gpg.format=ssh", "-c", "user.signingkey=" + filepath.Join(b.dir, name)}, args...)...)
	}
	for _, name := range []string{"alice", "bob", "carol", "rose", "weak", "mallory"} {
		ssh(name, "tag", "-s", "-m", "by "+name, name)
	}
	ssh("alice", "commit", "-q", "-S", "--allow-empty", "-m", "signed")
	head := b.git("rev-parse", "HEAD")
	b.env = append(b.env, "GIT_COMMITTER_DATE=2020-06-01T12:00:00Z")
	ssh("alice", "tag", "-s", "-m", "long ago", "ago")
	good := b.raw("alice")
	// Signed for something else: of the same bytes, in another namespace.
	payload := good[:strings.Index(good, "-----BEGIN")]
	b.write("payload", payload)
	b.run("", "ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", "alice", "payload")
	file, err := os.ReadFile(filepath.Join(b.dir, "payload.sig"))
	if err != nil {
		t.Fatal(err)
	}
	namespace := b.object("tag", payload+string(file))
	changed := b.object("tag", strings.Replace(good, "by alice", "by malice", 1))
	cut := b.object("tag", strings.Replace(good, "-----END", "A\n-----END", 1))

	lines := func(names ...string) string {
		var s strings.Builder
		for _, n := range names {
			fmt.Fprintf(&s, "%s@example.org %s\n", n, public[n])
		}
		return s.String()
	}
	everyone := lines("alice", "bob", "carol", "rose")
	n := 0
	table := func(file string, checks ...check) {
		t.Helper()
		n++
		name := b.write(fmt.Sprint("allowed", n), file)
		signers, err := signed.ParseAllowedSigners(name, []byte(file), time.UTC)
		if err != nil {
			t.Fatal(err)
		}
		for i := range checks {
			checks[i].what += " with " + file
			checks[i].by.Allowed = signers
		}
		b.judge(checks, "-c", "gpg.ssh.allowedSignersFile="+name)
	}
	table("# all\n\n"+everyone,
		check{what: "Ed25519", object: "alice"}, check{what: "P-256", object: "bob"}, check{what: "P-521", object: "carol"}, check{what: "RSA", object: "rose"},
		check{what: "a commit", object: head}, check{what: "a branch", object: "main"}, check{what: "an old one", object: "ago"},
		check{what: "by another", object: "mallory", codes: []string{"key-unlisted"}},
		check{what: "another message", object: changed, codes: []string{"signature-bad"}},
		check{what: "cut", object: cut, codes: []string{"signature-malformed"}},
		check{what: "for something else", object: namespace, codes: []string{"signature-namespace"}},
		check{what: "a weak key", object: "weak", codes: []string{"key-weak"}},
	)
	table(everyone, check{what: "by who must be", object: "alice", by: signed.By{Principal: "alice@example.org"}},
		check{what: "by who must not be", object: "alice", by: signed.By{Principal: "bob@example.org"}, codes: []string{"signer-principal"}, differs: "git asks for nobody by name"})
	for _, c := range []struct {
		options string
		object  string
		codes   []string
	}{
		{`namespaces="git"`, "alice", nil},
		{`namespaces="file,git"`, "alice", nil},
		{`NameSpaces="g*"`, "alice", nil},
		{`namespaces="file"`, "alice", []string{"signer-namespace"}},
		{`namespaces="*,!git"`, "alice", []string{"signer-namespace"}},
		{`valid-after="20210101Z"`, "alice", nil},
		{`valid-after="20210101Z"`, "ago", []string{"signer-time"}},
		{`valid-before="20210101Z"`, "ago", nil},
		{`valid-before="202101010000Z"`, "alice", []string{"signer-time"}},
		{`valid-after="20200601115959Z",valid-before="20200601120001Z"`, "ago", nil},
		{`valid-after="20200601120001Z",valid-before="20210601120001Z"`, "ago", []string{"signer-time"}},
		{`namespaces="git",valid-before="20200601115959Z"`, "ago", []string{"signer-time"}},
	} {
		table(fmt.Sprintf("alice@example.org %s %s\n", c.options, public["alice"]), check{what: c.options, object: c.object, codes: c.codes})
	}
	// A second line of the same key; patterns; a quoted list.
	table(fmt.Sprintf("a@example.org namespaces=\"file\" %s\n\"a@example.org,b@example.org\"\tnamespaces=\"git\"  %s", public["alice"], public["alice"]), check{what: "two lines", object: "alice"})
	table("*@example.org "+public["alice"], check{what: "a pattern", object: "alice", by: signed.By{Principal: "anyone@example.org"}},
		check{what: "a pattern that does not match", object: "alice", by: signed.By{Principal: "x@example.com"}, codes: []string{"signer-principal"}, differs: "git asks for nobody by name"})
	if res, refusals := b.verify("alice", signed.By{Allowed: nil, Keyring: openpgp.NewKeyring()}); !slices.Equal(refusals.Codes(), []string{"signature-format"}) {
		t.Error(res, refusals)
	}
	var none trust.Refusals
	if _, err := signed.ParseAllowedSigners("x", []byte("a "+public["weak"]+"\nb cert-authority "+public["alice"]+"\nc nonsense\n"), time.UTC); !errors.As(err, &none) ||
		!slices.Equal(none.Codes(), []string{"allowed-signers-malformed", "allowed-signers-authority", "allowed-signers-malformed"}) {
		t.Error(err)
	}
}
