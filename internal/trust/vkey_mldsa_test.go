package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/mldsa"
)

// A signature that OpenSSL 3.6.5 made with `pkeyutl -sign -rawin -pkeyopt context-string:sallyport-manifest`.
func TestMLDSAOfOpenSSL(t *testing.T) {
	read := func(name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join("testdata", "mldsa87", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	text, err := os.ReadFile("testdata/mldsa87/text")
	if err != nil {
		t.Fatal(err)
	}
	der, sig := read("public.b64"), read("signature.b64")
	k, err := NewVKey(KeyMLDSA87, "cleo/manifest", der[len(der)-mldsa.MLDSA87PublicKeySize:])
	if err != nil {
		t.Fatal(err)
	}
	if !k.Verify(text, sig) {
		t.Error("OpenSSL's signature does not verify")
	}
	if pem, err := k.PEM(); err != nil || !bytes.Contains(pem, []byte("BEGIN PUBLIC KEY")) || !bytes.Equal(unPEM(t, pem), der) {
		t.Errorf("the public key is another than OpenSSL's: %v", err)
	}
}

// OpenSSL verifies what we sign, and we what it signs.
func TestOpenSSL(t *testing.T) {
	text := []byte("sallyport manifest v1\nenclave citadel\n")
	program, ok := opensslWithMLDSA()
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for form, s := range signersOf(t, "cleo/manifest") {
		k := s.VKey()
		if k.Kind() == KeySSHSIG {
			if _, err := k.PEM(); err == nil {
				t.Errorf("%s has a PEM form", form)
			}
			continue
		}
		pem, err := k.PEM()
		if err != nil {
			t.Fatal(err)
		}
		sig, err := s.Sign(ContextManifest, text)
		if err != nil {
			t.Fatal(err)
		}
		args := []string{"pkeyutl", "-verify", "-rawin", "-in", write("text", text), "-sigfile", write("sig", sig), "-pubin", "-inkey", write("pem", pem)}
		use := "openssl"
		switch k.Kind() {
		case KeyP256:
			args = append(args, "-digest", "sha256")
		case KeyMLDSA87:
			if !ok {
				t.Log("SKIPPED: no openssl of version 3.5 or later found, so ML-DSA-87 was not compared with it; install one, or name it in SALLYPORT_OPENSSL")
				continue
			}
			args, use = append(args, "-pkeyopt", "context-string:sallyport-manifest"), program
		}
		if _, err := exec.LookPath(use); err != nil {
			t.Skip("SKIPPED: no openssl found, so no signature was compared with it; install openssl to run this test")
		}
		if out, err := exec.Command(use, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", form, err, out)
		}
		write("text", append(bytes.Clone(text), 'x'))
		if out, err := exec.Command(use, args...).CombinedOutput(); err == nil {
			t.Errorf("%s: openssl verifies everything: %s", form, out)
		}
	}
}

// opensslWithMLDSA looks for a program that knows ML-DSA.
func opensslWithMLDSA() (program string, ok bool) {
	for _, program := range []string{os.Getenv("SALLYPORT_OPENSSL"), "openssl"} {
		out, err := exec.Command(program, "list", "-signature-algorithms").Output()
		if program != "" && err == nil && bytes.Contains(out, []byte("ML-DSA-87")) {
			return program, true
		}
	}
	return "", false
}

// Under an all but empty t1 anybody can sign; no such key is taken.
func TestMLDSAKeys(t *testing.T) {
	good := mldsaKey(t, "cleo/manifest").VKey().Public
	for name, bad := range map[string][]byte{
		"empty":           {},
		"short":           good[:len(good)-1],
		"long":            append(bytes.Clone(good), 0),
		"zeroes":          make([]byte, len(good)),
		"t1 of zeroes":    append(bytes.Clone(good[:32]), make([]byte, len(good)-32)...),
		"t1 of -1":        append(bytes.Clone(good[:32]), bytes.Repeat([]byte{0xff}, len(good)-32)...),
		"t1 of 0 and -1s": append(bytes.Clone(good[:32]), bytes.Repeat([]byte{0xff, 0x03, 0xf0, 0x3f, 0}, (len(good)-32)/5)...),
	} {
		if _, err := NewVKey(KeyMLDSA87, "cleo/manifest", bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	almost := append(bytes.Clone(good[:32]), make([]byte, len(good)-32)...)
	almost[len(almost)-1] = 0x80
	if err := checkMLDSA(almost); err != nil {
		t.Errorf("a coefficient of 512: %v", err)
	}
}

// The signature is one of FIPS 204 with this context string, not with another.
func TestMLDSAContext(t *testing.T) {
	k := mldsaKey(t, "cleo/manifest")
	text := []byte("sallyport manifest v1\n")
	for context, want := range map[string]bool{"sallyport-manifest": true, "": false, "sallyport-root": false, "manifest": false} {
		sig, err := k.mldsa.Sign(nil, text, &mldsa.Options{Context: context})
		if err != nil {
			t.Fatal(err)
		}
		if k.VKey().Verify(text, sig) != want {
			t.Errorf("context string %q", context)
		}
	}
}

func unPEM(t testing.TB, b []byte) []byte {
	t.Helper()
	block, rest := pem.Decode(b)
	if block == nil || len(rest) > 0 {
		t.Fatal("no PEM")
		return nil
	}
	return block.Bytes
}
