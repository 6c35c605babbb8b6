package signature_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/guix/signature"
)

const vectors = "../../vectors/archives"

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readACL(t testing.TB, name string) signature.ACL {
	t.Helper()
	acl, err := signature.ParseACL(read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return acl
}

func readSecret(t testing.TB, name string) signature.SecretKey {
	t.Helper()
	k, err := signature.ParseSecretKey(read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func codeOf(t testing.TB, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var e *signature.Error
	if !errors.As(err, &e) {
		t.Fatalf("%T: %v", err, err)
	}
	return e.Code
}

// An exported is one item of an export stream, cut where its signature is.
type exported struct {
	hash      [32]byte // of what is signed: the archive up to the deriver
	tail      uint64   // 1 if a signature follows
	signature []byte
}

// stream cuts an export stream whose archives are well-formed.
func stream(t testing.TB, data []byte) (items []exported) {
	t.Helper()
	pos := 0
	number := func() uint64 {
		if pos+8 > len(data) {
			t.Fatalf("stream ends at byte %d", pos)
		}
		pos += 8
		return binary.LittleEndian.Uint64(data[pos-8:])
	}
	str := func() string {
		n := int(number())
		start := pos
		if pos += (n + 7) / 8 * 8; pos > len(data) {
			t.Fatalf("stream ends in a string at byte %d", start)
		}
		return string(data[start : start+n])
	}
	for {
		switch mark := number(); mark {
		case 0:
			return items
		case 1:
		default:
			t.Fatalf("mark %d at byte %d", mark, pos-8)
		}
		start := pos
		// An archive ends with the parenthesis that closes its first one.
		// Names, targets and contents are data, even if they read "(".
		str()
		for depth := 0; ; {
			switch str() {
			case "(":
				depth++
			case ")":
				depth--
			case "name", "target", "contents":
				str()
			}
			if depth == 0 {
				break
			}
		}
		if magic := number(); magic != 0x4558494e {
			t.Fatalf("magic %x before byte %d", magic, pos)
		}
		str()                           // path
		for n := number(); n > 0; n-- { // references
			str()
		}
		str() // deriver
		item := exported{hash: sha256.Sum256(data[start:pos])}
		if item.tail = number(); item.tail == 1 {
			item.signature = []byte(str())
		} else if item.tail != 0 {
			return append(items, item)
		}
		items = append(items, item)
	}
}

// stricter lists what Guix accepts and this package refuses, on purpose.
var stricter = map[string]string{
	"sig-flags-raw.nar":  "one value of flags for one algorithm",
	"sig-extra.nar":      "nothing is ignored",
	"sig-head.nar":       "nothing but a signature is a signature",
	"sig-trailing.nar":   "nothing is ignored",
	"sig-hashlabel.nar":  "the label says which hash it is",
	"sig-hashlabel2.nar": "the label says which hash it is",
	"sig-two-data.nar":   "which of two counts is nobody's to guess",
}

// spelled lists what Guix and Verify accept and the strict mode does not: the same in another spelling.
var spelled = map[string]bool{
	"sig-canonical.nar": true,
	"sig-lowerhex.nar":  true,
	"sig-oneline.nar":   true,
	"sig-order2.nar":    true,
	"sig-pad.nar":       true, // zeros before r and s
	"sig-random-k.nar":  true, // all on one line, as these two were made
	"rsa-signed.nar":    true,
}

// otherReason lists what both refuse, this package earlier than Guix.
var otherReason = map[string]string{
	"sig-data-first-bogus.nar": signature.CodeMalformed, // a second data is refused before the first is used
}

// reasons maps the messages of Guix to codes.
var reasons = []struct{ message, code string }{
	{"unauthorized public key", signature.CodeUnauthorised},
	{"invalid signature", signature.CodeInvalid},
	{"signed hash doesn't match", signature.CodeHashMismatch},
	{"corrupt signature data", signature.CodeMalformed},
	{"corrupt input while restoring archive", signature.CodeMalformed}, // the helper crashed on flags
}

func TestVerdicts(t *testing.T) {
	var verdicts []struct {
		File, Note, Output string
		Exit               int
	}
	if err := json.Unmarshal(read(t, "verdicts.json"), &verdicts); err != nil {
		t.Fatal(err)
	}
	accepted, refused, unsigned := 0, 0, 0
	seen := make(map[string]bool)
	for _, v := range verdicts {
		kind, _, _ := strings.Cut(v.File, "-")
		if kind != "ok" && kind != "py" && kind != "sig" && kind != "rsa" && kind != "content" {
			continue // about framing, paths or archives
		}
		acl := readACL(t, "acl")
		if strings.HasSuffix(v.Note, "ACL = acl-with-rsa") {
			acl = readACL(t, "acl-with-rsa")
		}
		seen[v.File] = true
		items := stream(t, read(t, v.File))
		if len(items) == 0 {
			t.Errorf("%s: no items", v.File)
		}
		for _, item := range items {
			if item.tail != 1 {
				// The stream says itself that there is no signature.
				if v.Exit == 0 {
					t.Errorf("%s: imported without a signature", v.File)
				}
				unsigned++
				continue
			}
			want := ""
			switch {
			case stricter[v.File] != "":
				if v.Exit != 0 {
					t.Errorf("%s is in the table stricter, but Guix refuses it", v.File)
				}
				want = signature.CodeMalformed
			case otherReason[v.File] != "":
				want = otherReason[v.File]
			case v.Exit != 0:
				for _, r := range reasons {
					if strings.Contains(v.Output, r.message) {
						want = r.code
					}
				}
				if want == "" {
					t.Errorf("%s: no reason known for %q", v.File, v.Output)
				}
			}
			key, err := signature.Verify(item.signature, item.hash, acl)
			if got := codeOf(t, err); got != want {
				t.Errorf("%s (%s): %v, want code %q", v.File, v.Note, err, want)
			}
			if (err == nil) != acl.Has(key) {
				t.Errorf("%s: verdict %v and key %q", v.File, err, key)
			}
			strictly, strictErr := signature.VerifyStrict(item.signature, item.hash, acl)
			switch got := codeOf(t, strictErr); {
			case spelled[v.File] && v.Exit == 0:
				if err != nil || got != signature.CodeSpelling {
					t.Errorf("%s (%s): %v, and in strict mode %v", v.File, v.Note, err, strictErr)
				}
			case err == nil && (got != "" || strictly != key):
				t.Errorf("%s (%s): refused in strict mode: %v", v.File, v.Note, strictErr)
			case err != nil && got != codeOf(t, err) && got != signature.CodeSpelling:
				t.Errorf("%s (%s): %v, but in strict mode %v", v.File, v.Note, err, strictErr)
			}
			if err == nil {
				accepted++
			} else {
				refused++
			}
		}
	}
	if accepted < 20 || refused < 20 || unsigned != 2 {
		t.Errorf("%d accepted, %d refused, %d unsigned: vectors are missing", accepted, refused, unsigned)
	}
	for file := range stricter {
		if !seen[file] {
			t.Errorf("%s is in the table stricter, but not among the verdicts", file)
		}
	}
	for file := range spelled {
		if !seen[file] {
			t.Errorf("%s is in the table spelled, but not among the verdicts", file)
		}
	}
}

// What Guix signed, Sign signs the same.
func TestSignAsGuix(t *testing.T) {
	k := readSecret(t, "authorised.TEST-ONLY.sec")
	files, err := filepath.Glob(filepath.Join(vectors, "ok-*.nar"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d streams made by Guix (%v)", len(files), err)
	}
	for _, file := range files {
		for i, item := range stream(t, read(t, filepath.Base(file))) {
			got, err := signature.Sign(k, item.hash)
			if err != nil || !bytes.Equal(got, item.signature) {
				t.Errorf("%s, item %d: %v\n%s\nGuix made\n%s", file, i, err, got, item.signature)
			}
		}
	}
}

func TestRSASignature(t *testing.T) {
	acl, text := readACL(t, "acl-with-rsa"), read(t, "rsa-signature.sexp")
	key, err := signature.Verify(text, sha256.Sum256([]byte("x")), acl)
	if err != nil || !key.RSA() || key.String() != string(read(t, "rsa.pub")) {
		t.Errorf("%v\n%s", err, key)
	}
	if again, err := signature.VerifyStrict(text, sha256.Sum256([]byte("x")), acl); err != nil || again != key {
		t.Errorf("in strict mode: %v", err)
	}
	_, err = signature.Verify(text, sha256.Sum256([]byte("y")), acl)
	if codeOf(t, err) != signature.CodeHashMismatch {
		t.Error(err)
	}
}
