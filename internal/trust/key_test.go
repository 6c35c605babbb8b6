package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/scrypt"
)

var long = flag.Bool("long", false, "run tests that need a gigabyte and many seconds")

func TestKeyNames(t *testing.T) {
	for name, want := range map[string]Context{
		"olga/root": ContextRoot, "cleo/manifest": ContextManifest, "cleo/sums": ContextSums,
		"rada/allowlist": ContextAllowlist, "station/statement": ContextStatement,
		"wim/witness": ContextWitness, testZone: ContextCheckpoint, "sallyport/root": ContextRoot,
	} {
		k, err := GenerateKey(&counter{name: name}, name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if k.Context() != want || k.Name() != name || k.RootKey().Context != want {
			t.Errorf("%s: context %s", name, k.Context())
		}
	}
	for _, name := range []string{"", "olga", "olga/", "/root", "olga/root/x", "olga/other", "Olga/root", "olga /root",
		"olga/narinfo", "olga/checkpoint", "sallyport/citadel/", "sallyport/citadel/elsewhere", "other/citadel/inside"} {
		if _, err := GenerateKey(&counter{}, name); err == nil {
			t.Errorf("%q: taken", name)
		}
	}
	if _, err := GenerateKey(strings.NewReader("short"), "olga/root"); err == nil {
		t.Error("made a key from five bytes")
	}
}

func TestKeyFile(t *testing.T) {
	for _, name := range []string{"olga/root", "cleo/sums", testZone} {
		k := testKey(t, name, "")
		file, err := k.Marshal("")
		if err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(string(file), "\n"); !strings.HasPrefix(first, "untrusted comment: ") || !strings.HasSuffix(first, " "+name) {
			t.Errorf("first line %q", first)
		}
		again, err := ParseKey(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again.Name() != name || again.Public() != k.Public() || !bytes.Equal(again.private, k.private) {
			t.Errorf("%s: not the same key", name)
		}
	}
}

// encrypt makes an encrypted key file that opens quickly: the parameters stand in the file.
func encrypt(k *Key, passphrase string) []byte {
	const ops, mem = 1 << 15, 1 << 24
	b := make([]byte, keyFileLen)
	copy(b, "EdScB2")
	copy(b[6:38], "salt of thirty-two bytes, no less")
	binary.LittleEndian.PutUint64(b[38:], ops)
	binary.LittleEndian.PutUint64(b[46:], mem)
	plain, _ := k.Marshal("")
	_, body, _ := bytes.Cut(plain, []byte("\n"))
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(string(body)))
	copy(b[keyFileRaw:], raw[keyFileRaw:])
	// libsodium: with less work than memory allows, N is the power of two above work/8r.
	stream, err := scrypt.Key([]byte(passphrase), b[6:38], 1<<10, 8, 1, 104)
	if err != nil {
		panic(err)
	}
	for i, s := range stream {
		b[keyFileRaw+i] ^= s
	}
	return []byte("untrusted comment: anything " + k.Name() + "\n" + base64.StdEncoding.EncodeToString(b) + "\n")
}

func TestEncryptedKeyFile(t *testing.T) {
	k := testKey(t, "olga/root", "")
	file := encrypt(k, "correct horse")
	pass := func(s string) func() (string, error) { return func() (string, error) { return s, nil } }
	again, err := ParseKey(file, pass("correct horse"))
	if err != nil || again.Public() != k.Public() {
		t.Fatalf("%v", err)
	}
	if _, err := ParseKey(file, pass("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := ParseKey(file, nil); !errors.Is(err, ErrPassphrase) {
		t.Errorf("nobody to ask: %v", err)
	}
	stop := errors.New("stop")
	if _, err := ParseKey(file, func() (string, error) { return "", stop }); !errors.Is(err, stop) {
		t.Errorf("passphrase not given: %v", err)
	}
}

func TestMarshalWithPassphrase(t *testing.T) {
	if !*long {
		t.Skip("SKIPPED: encrypting a key takes 1 GiB and seconds; run with -long")
	}
	k := testKey(t, "olga/root", "")
	file, err := k.Marshal("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseKey(file, func() (string, error) { return "correct horse", nil })
	if err != nil || again.Name() != "olga/root" || again.Public() != k.Public() {
		t.Fatal(err)
	}
}

func TestParseKeyRefuses(t *testing.T) {
	k := testKey(t, "olga/root", "")
	file, err := k.Marshal("")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(file), "\n")
	raw, _ := base64.StdEncoding.DecodeString(strings.TrimSpace(body))
	with := func(change func(b []byte)) string {
		b := bytes.Clone(raw)
		change(b)
		return keyComment + "olga/root\n" + base64.StdEncoding.EncodeToString(b) + "\n"
	}
	for name, bad := range map[string]string{
		"empty":                 "",
		"no comment":            body,
		"name of no context":    "untrusted comment: key of olga\n" + body,
		"no name":               "untrusted comment: \n" + body,
		"no key":                keyComment + "olga/root\n",
		"cut":                   string(file[:len(file)-20]),
		"over size":             string(file) + strings.Repeat("\n", maxKeyFile),
		"other algorithm":       with(func(b []byte) { b[0] = 'X' }),
		"other public half":     with(func(b []byte) { b[keyFileSum-1] ^= 1 }),
		"other secret half":     with(func(b []byte) { b[keyFileRaw+8] ^= 1 }),
		"unknown derivation":    with(func(b []byte) { b[keyFileKDF] = 'x' }),
		"not base64":            keyComment + "olga/root\n!!!!\n",
		"scrypt without bounds": with(func(b []byte) { copy(b[2:], "Sc"); copy(b[38:], "\xff\xff\xff\xff\xff\xff\xff\xff") }),
	} {
		if _, err := ParseKey([]byte(bad), func() (string, error) { return "", nil }); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestSignContexts(t *testing.T) {
	msg := []byte("message")
	contexts := []Context{ContextRoot, ContextManifest, ContextSums, ContextAllowlist, ContextStatement, ContextCheckpoint, ContextWitness, ContextNarinfo}
	for _, name := range []string{"a/root", "a/statement", "a/sums", "a/witness", testZone} {
		k := testKey(t, name, "")
		for _, c := range contexts {
			sig, err := k.Sign(c, msg)
			want := c == k.Context() && c != ContextSums && c != ContextWitness
			if (err == nil) != want {
				t.Errorf("%s in %s: %v", name, c, err)
			}
			if err == nil && !ed25519.Verify(k.VKey().Public, msg, sig) {
				t.Errorf("%s: its signature does not verify", name)
			}
		}
		if _, err := k.Minisign(); (err == nil) != (k.Context() == ContextSums) {
			t.Errorf("%s as a minisign key: %v", name, err)
		}
	}
}

const (
	testSums    = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  manifest\n"
	testComment = "sallyport citadel shipment 7"
)

func TestSums(t *testing.T) {
	k := testKey(t, "cleo/sums", "")
	if SumsComment("citadel", 7) != testComment {
		t.Error(SumsComment("citadel", 7))
	}
	sig, err := SignSums(k, []byte(testSums), testComment)
	if err != nil {
		t.Fatal(err)
	}
	mini, _ := k.Minisign()
	other := testKey(t, "cleo/sums", "other")
	legacy := minisign.SignWithComments(mini, []byte(testSums), testComment, "x")
	hash := blake2b.Sum512([]byte(testSums))
	disguised := minisign.SignWithComments(mini, hash[:], testComment, "x") // legacy over the hash
	var foreign minisign.Signature
	forged, err := SignSums(other, []byte(testSums), testComment)
	if err != nil {
		t.Fatal(err)
	}
	if err := foreign.UnmarshalText(forged); err != nil {
		t.Fatal(err)
	}
	foreign.KeyID = mini.ID()
	claimed, _ := foreign.MarshalText()

	if err := VerifySums(k.Public(), []byte(testSums), sig, testComment); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(sig), "\n")
	tests := []struct {
		name string
		sig  string
	}{
		{"empty", ""},
		{"legacy kind", string(legacy)},
		{"legacy kind over the hash", string(disguised)},
		{"other key", string(forged)},
		{"other key under this key's id", string(claimed)},
		{"comment changed", strings.Replace(string(sig), "shipment 7", "shipment 8", 1)},
		{"CRLF", strings.ReplaceAll(string(sig), "\n", "\r\n")},
		{"line feed in the base64", lines[0] + lines[1][:10] + "\n" + lines[1][10:] + lines[2] + lines[3]},
		{"line feed in the second base64", lines[0] + lines[1] + lines[2] + lines[3][:10] + "\n" + lines[3][10:]},
		{"bytes behind", string(sig) + "more\n"},
		{"escape in the untrusted comment", strings.Replace(string(sig), "cleo", "\x1b[2J", 1)},
		{"cut", string(sig[:len(sig)-10])},
		{"over size", strings.Replace(string(sig), "cleo", strings.Repeat("c", maxSumsSig), 1)},
		{"no untrusted comment", lines[1] + lines[2] + lines[3]},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantCodes(t, VerifySums(k.Public(), []byte(testSums), []byte(tt.sig), testComment), "volume-signature")
		})
	}
	wantCodes(t, VerifySums(k.Public(), []byte(testSums+"x"), sig, testComment), "volume-signature")
	wantCodes(t, VerifySums(k.Public(), []byte(testSums), sig, "sallyport citadel shipment 8"), "volume-signature")

	if _, err := SignSums(testKey(t, "cleo/manifest", ""), []byte(testSums), testComment); err == nil {
		t.Error("a manifest key signed sums")
	}
	if _, err := SignSums(k, []byte(testSums), "two\nlines"); err == nil {
		t.Error("a comment of two lines was signed")
	}
	for _, pub := range []string{"", k.Public() + "\n", k.Public()[:55] + "\n", k.VKey().String()} {
		if err := VerifySums(pub, []byte(testSums), sig, testComment); err == nil {
			t.Errorf("public key %q taken", pub)
		}
	}
}

// People check our signatures, and make keys, with the minisign program.
func TestMinisignProgram(t *testing.T) {
	program, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("SKIPPED: no minisign program found; install minisign to run this test")
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Errorf("minisign %v: %v\n%s", args, err, out)
		}
	}
	k := testKey(t, "cleo/sums", "")
	sums := write("SHA256SUMS", []byte(testSums))
	sig, err := SignSums(k, []byte(testSums), testComment)
	if err != nil {
		t.Fatal(err)
	}
	write("SHA256SUMS.minisig", sig)
	run("-VHm", sums, "-P", k.Public())

	// Our key file signs there, and the result verifies here.
	plain, err := k.Marshal("")
	if err != nil {
		t.Fatal(err)
	}
	secret := write("key", plain)
	run("-SHm", sums, "-W", "-s", secret, "-t", testComment, "-x", filepath.Join(dir, "theirs"))
	theirs, err := os.ReadFile(filepath.Join(dir, "theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifySums(k.Public(), []byte(testSums), theirs, testComment); err != nil {
		t.Error(err)
	}

	// A key made there is read here once its first line is ours.
	run("-GWf", "-p", filepath.Join(dir, "made.pub"), "-s", filepath.Join(dir, "made"))
	made, err := os.ReadFile(filepath.Join(dir, "made"))
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(made), "\n")
	mine, err := ParseKey([]byte(keyComment+"cleo/sums\n"+body), nil)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile(filepath.Join(dir, "made.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(pub), "\n"+mine.Public()+"\n") {
		t.Errorf("public key %s, there %s", mine.Public(), pub)
	}
}
