package signed

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
)

func part(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// ed is the wire form of a key.
var ed = string(part(part(nil, algEd25519), string(ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey))))

func line(s string) string {
	return strings.ReplaceAll(s, "KEY", algEd25519+" "+base64.StdEncoding.EncodeToString([]byte(ed)))
}

func TestParseAllowedSigners(t *testing.T) {
	for _, c := range []struct {
		text string
		want string // what is printed again, "" for nothing; or
		code string
	}{
		{"", "", ""},
		{"\n\n# a\n \t# b\n", "", ""},
		{"a KEY", "a KEY", ""},
		{"a KEY\n", "a KEY", ""},
		{"  a\t KEY  more  words \n", "a KEY more words", ""},
		{"\"a b\" KEY", "\"a b\" KEY", ""},
		{"\"a\" KEY", "a KEY", ""},
		{"a,!b,*c? KEY", "a,!b,*c? KEY", ""},
		{`a namespaces="git" KEY`, `a namespaces="git" KEY`, ""},
		{`a NAMESPACES="git,file" KEY`, `a namespaces="git,file" KEY`, ""},
		{`a valid-after="20200229",valid-before="202003010000" KEY`, `a valid-after="20200228230000Z",valid-before="20200229230000Z" KEY`, ""},
		{`a valid-before="20200301000001Z",valid-after="20200301Z" KEY`, `a valid-after="20200301000000Z",valid-before="20200301000001Z" KEY`, ""},
		{"a", "", CodeAllowed},
		{"a ", "", CodeAllowed},
		{"\"a KEY", "", CodeAllowed},
		{"\"a\"b KEY", "", CodeAllowed},
		{"\"\" KEY", "", CodeAllowed},
		{"a,,b KEY", "", CodeAllowed},
		{"a,! KEY", "", CodeAllowed},
		{"a ssh-ed25519", "", CodeAllowed},
		{"a ssh-ed25519 AAAA", "", CodeAllowed},
		{"a ssh-rsa " + base64.StdEncoding.EncodeToString([]byte(ed)), "", CodeAllowed},
		{"a ssh-dss AAAA", "", CodeAllowed},
		{"a cert-authority KEY", "", CodeAuthority},
		{`a namespaces="git",cert-authority KEY`, "", CodeAuthority},
		{`a CERT-authority KEY`, "", CodeAuthority},
		{`a namespaces=git KEY`, "", CodeAllowed},
		{`a namespaces="git KEY`, "", CodeAllowed},
		{`a namespaces="g\"it" KEY`, "", CodeAllowed},
		{`a namespaces="" KEY`, "", CodeAllowed},
		{`a namespaces="git"KEY`, "", CodeAllowed},
		{`a namespaces="git",namespaces="file" KEY`, "", CodeAllowed},
		{`a namespaces="git", KEY`, "", CodeAllowed},
		{`a namespaces="git"`, "", CodeAllowed},
		{`a namespaces="git",`, "", CodeAllowed},
		{`a verify-required KEY`, "", CodeAllowed},
		{`a valid-after="2020" KEY`, "", CodeAllowed},
		{`a valid-after="20200230" KEY`, "", CodeAllowed},
		{`a valid-after="2020 101" KEY`, "", CodeAllowed},
		{`a valid-after="19000101" KEY`, "", CodeAllowed},
		{`a valid-after="20200101z" KEY`, "", CodeAllowed},
		{`a valid-after="20200102",valid-before="20200101" KEY`, "", CodeAllowed},
		{"a KEY\r", "", CodeAllowed},
		{"a KEY\x00", "", CodeAllowed},
		{"\xff KEY", "", CodeAllowed},
		{strings.Repeat("a", maxLine) + " KEY", "", CodeAllowed},
		{strings.Repeat("\n", MaxAllowedLines+1), "", CodeAllowed},
		{strings.Repeat("#", MaxAllowed+1), "", CodeAllowed},
	} {
		all, err := ParseAllowedSigners("file", []byte(line(c.text)), time.FixedZone("", 3600))
		var printed []string
		for _, s := range all {
			printed = append(printed, s.String())
		}
		code := ""
		if refusals, ok := trust.AsRefusals(err); ok && len(refusals) > 0 {
			code = refusals[0].Code
		}
		if got := strings.Join(printed, "\n"); got != line(c.want) || code != c.code || (err != nil) != (c.code != "") {
			t.Errorf("%.80q: %q, %v; want %q, %s", c.text, got, err, line(c.want), c.code)
		}
	}
}

func TestMatchList(t *testing.T) {
	for _, c := range []struct {
		word, list string
		want       bool
	}{
		{"git", "git", true}, {"git", "Git", false}, {"git", "g?t", true}, {"git", "*", true}, {"", "*", true}, {"git", "", false}, {"git", "file,git", true},
		{"git", "!git,*", false}, {"git", "*,!git", false}, {"git", "!file,*", true}, {"git", "!file", false}, {"a@b.org", "*@b.org", true}, {"a@b.org.evil", "*@b.org", false},
		{"aab", "*a*b", true}, {"aaa", "*a*b", false}, {"a", "a**", true}, {"a", "?*?", false},
		{strings.Repeat("a", 5000), strings.Repeat("*a", 2000) + "*b", false},
	} {
		if got := matchList(c.word, c.list); got != c.want {
			t.Errorf("%.30q in %.30q: %v", c.word, c.list, got)
		}
	}
}

// FuzzAllowedSigners: what is taken prints, and what was printed is taken as the same.
func FuzzAllowedSigners(f *testing.F) {
	for _, s := range []string{"a KEY\n", `a,!b namespaces="git",valid-after="20200101Z",valid-before="202101010000" KEY c d`, "\"a b\" KEY\n# x\n", `a cert-authority KEY`, "a\tnamespaces=\"*\"\tKEY"} {
		f.Add(line(s))
	}
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ParseAllowedSigners("file", []byte(text), time.UTC)
		if err != nil {
			if refusals, ok := trust.AsRefusals(err); !ok || len(refusals) == 0 {
				t.Fatalf("no refusal: %v", err)
			}
			return
		}
		var b strings.Builder
		for _, s := range all {
			b.WriteString(s.String() + "\n")
		}
		again, err := ParseAllowedSigners("file", []byte(b.String()), time.UTC)
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q was printed as %q: %v", text, b.String(), err)
		}
		for i := range again {
			if again[i].String() != all[i].String() {
				t.Fatalf("%q, then %q", all[i].String(), again[i].String())
			}
		}
	})
}

// FuzzSSHSignature: no bytes panic, and none that were not signed verify.
func FuzzSSHSignature(f *testing.F) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	armor := func(inner string) string {
		b := append([]byte(sshsigMagic), 0, 0, 0, 1)
		for _, s := range []string{ed, namespaceGit, "", "sha512", inner} {
			b = part(b, s)
		}
		return beginSSH + "\n" + base64.StdEncoding.EncodeToString(b) + "\n" + endSSH + "\n"
	}
	f.Add(armor(string(part(part(nil, algEd25519), string(ed25519.Sign(secret, []byte("other")))))))
	f.Add(armor(""))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSSHSignature([]byte(text))
		if err != nil {
			return
		}
		if err := s.Verify([]byte("a message that nobody has signed")); err == nil {
			t.Fatal("verified")
		}
	})
}

// TestTouch: a security key's signature without a touch is refused, as one over other flags is.
func TestTouch(t *testing.T) {
	secret := ed25519.NewKeyFromSeed(make([]byte, 32))
	blob := string(part(part(part(nil, algSKEd25519), string(secret.Public().(ed25519.PublicKey))), "ssh:"))
	key, err := ParsePublicKey([]byte(blob))
	if err != nil {
		t.Fatal(err)
	}
	make := func(flags, told byte) error {
		s := &SSHSignature{Key: key, Namespace: namespaceGit, Hash: "sha256", format: algSKEd25519, flags: flags, counter: 7}
		s.blob = ed25519.Sign(secret, s.overToken(s.over([]byte("text"))))
		s.flags = told
		return s.Verify([]byte("text"))
	}
	if err := make(1, 1); err != nil {
		t.Error(err)
	}
	if err := make(0, 0); !errors.Is(err, errTouch) {
		t.Error(err)
	}
	if err := make(0, 1); err == nil || errors.Is(err, errTouch) {
		t.Error(err)
	}
}
