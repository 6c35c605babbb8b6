package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
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
		file, err := k.Marshal(nil, nil)
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
func encrypt(t testing.TB, k *Key, passphrase string) []byte {
	t.Helper()
	plain, err := k.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := bytes.Cut(plain, []byte("\n"))
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	copy(b[keyFileKDF:], derivationS)
	copy(b[keyFileSalt:keyFileWork], "salt of thirty-two bytes, no less")
	binary.LittleEndian.PutUint64(b[keyFileWork:], 1<<15)
	binary.LittleEndian.PutUint64(b[keyFileMemory:], 1<<24)
	// libsodium: with less work than memory allows, N is the power of two above work/8r.
	stream, err := scrypt.Key([]byte(passphrase), b[keyFileSalt:keyFileWork], 1<<10, 8, 1, len(b)-keyFileBody)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range stream {
		b[keyFileBody+i] ^= s
	}
	return []byte("untrusted comment: anything " + k.Name() + "\n" + base64.StdEncoding.EncodeToString(b) + "\n")
}

func mldsaKey(t testing.TB, name string) *Key {
	t.Helper()
	k, err := GenerateKeyOf(&counter{name: name + " mldsa87"}, KeyMLDSA87, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestEncryptedKeyFile(t *testing.T) {
	for _, k := range []*Key{testKey(t, "olga/root", ""), testKey(t, "cleo/sums", ""), mldsaKey(t, "cleo/manifest")} {
		file := encrypt(t, k, "correct horse")
		asked := []byte("correct horse")
		pass := func(s []byte) func() ([]byte, error) { return func() ([]byte, error) { return s, nil } }
		again, err := ParseKey(file, pass(asked))
		if err != nil || again.Public() != k.Public() || again.Kind() != k.Kind() {
			t.Fatalf("%s: %v", k.Name(), err)
		}
		if !bytes.Equal(asked, make([]byte, len(asked))) {
			t.Errorf("%s: the passphrase was not wiped", k.Name())
		}
		for _, wrong := range []string{"wrong", "", "correct horse "} {
			if _, err := ParseKey(file, pass([]byte(wrong))); !errors.Is(err, ErrPassphrase) {
				t.Errorf("%s: wrong passphrase: %v", k.Name(), err)
			}
		}
		if _, err := ParseKey(file, pass(make([]byte, maxPassphrase+1))); err == nil {
			t.Errorf("%s: endless passphrase taken", k.Name())
		}
		if _, err := ParseKey(file, nil); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: nobody to ask: %v", k.Name(), err)
		}
		stop := errors.New("stop")
		if _, err := ParseKey(file, func() ([]byte, error) { return nil, stop }); !errors.Is(err, stop) {
			t.Errorf("%s: passphrase not given: %v", k.Name(), err)
		}
	}
	// The minisign library opens what we encrypt.
	k := testKey(t, "cleo/sums", "")
	theirs, err := minisign.DecryptKey("correct horse", encrypt(t, k, "correct horse"))
	if err != nil || theirs.Public().(minisign.PublicKey).String() != k.Public() {
		t.Errorf("the minisign library: %v", err)
	}
}

// What libsodium makes of its limits decides whether files open elsewhere.
func TestScryptCost(t *testing.T) {
	for _, tt := range []struct {
		work, memory uint64
		n, p         int
	}{
		{scryptWork, scryptMemory, 1 << 20, 1},
		{1 << 15, 1 << 24, 1 << 10, 1},
		{0, 0, 2, 512},
		{1 << 25, 1 << 24, 1 << 14, 64},
		{1 << 25, 0, 2, 1 << 19},
	} {
		if n, p := scryptCost(tt.work, tt.memory); n != tt.n || p != tt.p {
			t.Errorf("%d, %d: N %d, p %d; want %d, %d", tt.work, tt.memory, n, p, tt.n, tt.p)
		}
	}
}

func TestMarshalWithPassphrase(t *testing.T) {
	if !*long {
		t.Skip("SKIPPED: encrypting a key takes 1 GiB and seconds; run with -long")
	}
	k := testKey(t, "cleo/sums", "")
	file, err := k.Marshal(&counter{name: "salt"}, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := minisign.DecryptKey("correct horse", file)
	if err != nil || theirs.Public().(minisign.PublicKey).String() != k.Public() {
		t.Errorf("the minisign library: %v", err)
	}
}

// No printing of a key prints its secret.
func TestKeySecretIsNotPrinted(t *testing.T) {
	for _, k := range []*Key{testKey(t, "olga/root", ""), mldsaKey(t, "cleo/manifest")} {
		secret := []byte(k.private)
		if k.mldsa != nil {
			secret = k.mldsa.Bytes()
		}
		all := fmt.Sprintf("%v %+v %#v %s %q %x %d %X", k, k, k, k, k, k, k, k) + fmt.Sprintf("%v %+v %#v %s %q %x %d", *k, *k, *k, *k, *k, *k, *k) +
			fmt.Sprintf("%v %+v %#v", struct{ K *Key }{k}, []any{*k}, map[string]Key{"k": *k}) + fmt.Sprint(errors.Join(fmt.Errorf("%v", k)))
		j, err := json.Marshal(map[string]any{"key": k})
		if err != nil {
			t.Fatal(err)
		}
		all += string(j)
		for _, form := range []string{string(secret[:32]), hex.EncodeToString(secret[:32]), base64.StdEncoding.EncodeToString(secret[:30]), fmt.Sprint(secret[:8])} {
			if strings.Contains(all, strings.Trim(form, "[]")) {
				t.Errorf("%s: printed its secret: %.300q", k.Name(), all)
			}
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	k := testKey(t, "olga/root", "")
	file, err := k.Marshal(nil, nil)
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
	sealed := func(change func(b []byte)) string {
		return with(func(b []byte) {
			change(b)
			copy(b[len(b)-keyFileSumLen:], keyFileSum(b[:len(b)-keyFileSumLen]))
		})
	}
	pq, err := mldsaKey(t, "cleo/manifest").Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":                 "",
		"no comment":            body,
		"name of no context":    "untrusted comment: key of olga\n" + body,
		"no name":               "untrusted comment: \n" + body,
		"no key":                keyComment + "olga/root\n",
		"cut":                   string(file[:len(file)-20]),
		"over size":             string(file) + strings.Repeat("\n", maxKeyFile),
		"checksum":              with(func(b []byte) { b[len(b)-1] ^= 1 }),
		"other hash":            with(func(b []byte) { b[keyFileHash] = 'X' }),
		"bytes behind":          string(file) + "AAAA\n",
		"one byte more":         keyComment + "olga/root\n" + base64.StdEncoding.EncodeToString(append(bytes.Clone(raw), 0)) + "\n",
		"ML-DSA in Ed's form":   with(func(b []byte) { copy(b, algorithmMLDSA) }),
		"ML-DSA for a root":     strings.Replace(string(pq), "cleo/manifest", "olga/root", 1),
		"ML-DSA of the station": strings.Replace(string(pq), "cleo/manifest", "station/manifest", 1),
		"other algorithm":       with(func(b []byte) { b[0] = 'X' }),
		"other public half":     sealed(func(b []byte) { b[len(b)-keyFileSumLen-1] ^= 1 }),
		"other secret half":     sealed(func(b []byte) { b[keyFileBody+keyIDLen] ^= 1 }),
		"unknown derivation":    with(func(b []byte) { b[keyFileKDF] = 'x' }),
		"not base64":            keyComment + "olga/root\n!!!!\n",
		"scrypt without bounds": with(func(b []byte) { copy(b[2:], "Sc"); copy(b[38:], "\xff\xff\xff\xff\xff\xff\xff\xff") }),
	} {
		if _, err := ParseKey([]byte(bad), func() ([]byte, error) { return nil, nil }); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// A key signs in its own context and refuses, by a stable code, every other.
func TestSignContexts(t *testing.T) {
	contexts := []Context{ContextRoot, ContextOrder, ContextManifest, ContextSums, ContextAllowlist, ContextStatement, ContextCheckpoint, ContextWitness, ContextNarinfo, ""}
	keys := []*Key{mldsaKey(t, "a/manifest")}
	for _, name := range []string{"a/root", "a/order", "a/manifest", "a/statement", "a/sums", "a/witness", testZone} {
		keys = append(keys, testKey(t, name, ""))
	}
	for _, k := range keys {
		for _, c := range contexts {
			msg, text := []byte("message"), []byte("message")
			if c == ContextWitness {
				text = []byte(testCheckpoint)
				msg = cosigned(7, text)
			}
			sig, err := k.Sign(c, msg)
			if c != k.Context() {
				wantCodes(t, err, "key-context")
				continue
			}
			if err != nil {
				t.Errorf("%s in %s: %v", k.Name(), c, err)
				continue
			}
			if k.Kind() == KeyMinisign {
				if !ed25519.Verify(k.VKey().Public, text, sig) || k.VKey().Verify(text, sig) {
					t.Errorf("%s: a bare signature", k.Name())
				}
				continue
			}
			if !k.VKey().Verify(text, sig) {
				t.Errorf("%s: its signature does not verify", k.Name())
			}
		}
	}
	w := testKey(t, "a/witness", "")
	for _, msg := range []string{"message", cosignHeader, cosignHeader + "x\n", cosignHeader + "07\n", cosignHeader + "7"} {
		if _, err := w.Sign(ContextWitness, []byte(msg)); err == nil {
			t.Errorf("a witness signed %q", msg)
		}
	}
}

const (
	testSums    = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  manifest\n"
	testComment = "sallyport citadel shipment 7"
)

// miniKey is the key as the minisign library has it.
func miniKey(t testing.TB, k *Key) minisign.PrivateKey {
	t.Helper()
	file, err := k.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var mini minisign.PrivateKey
	if err := mini.UnmarshalText(file); err != nil {
		t.Fatal(err)
	}
	return mini
}

func TestSums(t *testing.T) {
	k := testKey(t, "cleo/sums", "")
	if SumsComment("citadel", 7) != testComment {
		t.Error(SumsComment("citadel", 7))
	}
	sig, err := SignSums(k, []byte(testSums), testComment)
	if err != nil {
		t.Fatal(err)
	}
	mini := miniKey(t, k)
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

	_, err = SignSums(testKey(t, "cleo/manifest", ""), []byte(testSums), testComment)
	wantCodes(t, err, "key-context")
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
	plain, err := k.Marshal(nil, nil)
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
