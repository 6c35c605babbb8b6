package trust

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

func TestCheckText(t *testing.T) {
	naive := func(b []byte) bool {
		for i, c := range b {
			if c == '\n' && (i == 0 || b[i-1] == '\n') || c != '\n' && (c < 0x20 || c > 0x7e) {
				return false
			}
		}
		return len(b) > 0 && b[len(b)-1] == '\n'
	}
	text := []byte("sallyport root v1\nenclave citadel\nx\nversion 1\n")
	for i := range text {
		for c := range 256 {
			b := bytes.Clone(text)
			b[i] = byte(c)
			if _, fault := checkText(b); (fault == "") != naive(b) {
				t.Fatalf("%q: %q", b, fault)
			}
		}
	}
	for n := range len(text) + 1 {
		if _, fault := checkText(text[:n]); (fault == "") != naive(text[:n]) {
			t.Fatalf("%q: %q", text[:n], fault)
		}
	}
}

const testCheckpoint = testZone + "\n12\nq83vEjRWeJA=\n"

func TestOpenNote(t *testing.T) {
	k := testKey(t, testZone, "")
	w := testKey(t, "wim/witness", "")
	known := []VKey{k.VKey(), w.VKey()}
	text := []byte(testCheckpoint)
	good, err := SignNote(text, k)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSuffix(string(good[len(text)+1:]), "\n")
	cosigned, err := CosignText(text, w, epoch)
	if err != nil {
		t.Fatal(err)
	}
	stranger := lineOf(testKey(t, "zora/witness", "").VKey(), make([]byte, 72))
	join := func(lines ...string) []byte { return JoinNote(text, lines...) }
	spare := line[:len(line)-2] + string(line[len(line)-2]+1) + "=" // 68 bytes end in one `=`: two spare bits

	tests := []struct {
		name    string
		msg     []byte
		signers int
		code    []string
	}{
		{"one", good, 1, nil},
		{"two, one of them a cosignature", join(line, cosigned), 2, nil},
		{"stranger beside", join(stranger, line), 1, nil},
		{"stranger of a future kind", join("— example.com/log "+strings.Repeat("QUJD", 2000), line), 1, nil},
		{"nobody known", join(stranger), 0, []string{"checkpoint-unsigned"}},
		{"100 signatures", join(append(slicesRepeat(stranger, 99), line)...), 1, nil},
		{"101 signatures", join(append(slicesRepeat(stranger, 100), line)...), 0, []string{"checkpoint-note"}},
		{"signature twice", join(line, line), 0, []string{"checkpoint-note"}},
		{"no empty line", append(bytes.Clone(text), line+"\n"...), 0, []string{"checkpoint-note"}},
		{"last LF missing", bytes.TrimSuffix(good, []byte("\n")), 0, []string{"checkpoint-note"}},
		{"no text", []byte("\n\n" + line + "\n"), 0, []string{"checkpoint-syntax"}},
		{"empty line in the text", append([]byte("a\n\n"), good...), 0, []string{"checkpoint-syntax"}},
		{"empty line among the signatures", join(line, "", cosigned), 0, []string{"checkpoint-syntax"}},
		{"hyphen for the dash", join("-" + strings.TrimPrefix(line, "—")), 0, []string{"checkpoint-note"}},
		{"two spaces", join(strings.Replace(line, "— ", "—  ", 1)), 0, []string{"checkpoint-note"}},
		{"space at the end", join(line + " "), 0, []string{"checkpoint-note"}},
		{"CR at the end", join(line + "\r"), 0, []string{"checkpoint-note"}},
		{"no padding", join(strings.TrimRight(line, "=")), 0, []string{"checkpoint-note"}},
		{"spare bits set", join(spare), 0, []string{"checkpoint-note"}},
		{"URL alphabet", join("— a " + strings.Repeat("_-8=", 3)), 0, []string{"checkpoint-note"}},
		{"too short", join("— a QUJDRA=="), 0, []string{"checkpoint-note"}},
		{"plus in a name", join("— a+b QUJDREVG", line), 0, []string{"checkpoint-note"}},
		{"control character in a name", join("— a\x1bb QUJDREVG", line), 0, []string{"checkpoint-note"}},
		{"bad signature", join(lineOf(k.VKey(), make([]byte, 64))), 0, []string{"checkpoint-signature"}},
		{"signature cut", join(lineOf(k.VKey(), make([]byte, 63))), 0, []string{"checkpoint-signature"}},
		{"plain signature by a witness", join(line, lineOf(w.VKey(), signRaw(w, text))), 0, []string{"checkpoint-signature"}},
		{"cosignature of another time", join(line, strings.Replace(cosigned, cosigned[30:34], "AAAB", 1)), 0, []string{"checkpoint-signature"}},
		{"over size", JoinNote(bytes.Repeat([]byte("a\n"), 1000), line), 0, []string{"checkpoint-size"}},
		{"signatures over size", append(good, bytes.Repeat([]byte("a\n"), maxSigBlock)...), 0, []string{"checkpoint-note"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := OpenNote("checkpoint", tt.msg, 1000, known)
			wantCodes(t, err, tt.code...)
			if err == nil && (len(n.Signers) != tt.signers || !bytes.Equal(n.Text, text)) {
				t.Errorf("%d signers of %q", len(n.Signers), n.Text)
			}
		})
	}
	if k, err := VerifyLine("checkpoint", text, cosigned, known); err != nil || k.Name != "wim/witness" {
		t.Errorf("%v, %v", k, err)
	}
	_, err = VerifyLine("checkpoint", text, line+"\n"+cosigned, known)
	wantCodes(t, err, "checkpoint-note")
	_, err = VerifyLine("checkpoint", text, stranger, known)
	wantCodes(t, err, "checkpoint-unsigned")
	_, err = VerifyLine("checkpoint", append([]byte("more\n"), text...), line, known)
	wantCodes(t, err, "checkpoint-signature")
}

func slicesRepeat(s string, n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = s
	}
	return list
}

// A key signs texts of its own context and of no other.
func TestSignTextContexts(t *testing.T) {
	e := newEnclave(t)
	texts := map[Context][]byte{
		ContextRoot:       e.root().Text(),
		ContextAllowlist:  testAllowlist(1).Text(),
		ContextManifest:   []byte("sallyport manifest v1\nenclave citadel\n"),
		ContextCheckpoint: []byte(testCheckpoint),
		"":                []byte("hello\n"),
	}
	for context := range texts {
		for _, name := range []string{"a/root", "a/allowlist", "a/manifest", "a/statement", "a/sums", "a/witness", testZone} {
			k := e.key(name)
			_, err := SignText(texts[context], k)
			if (err == nil) != (k.Context() == context) {
				t.Errorf("%s under a text of context %q: %v", name, context, err)
			}
			_, err = CosignText(texts[context], k, epoch)
			if (err == nil) != (name == "a/witness" && context == ContextCheckpoint) {
				t.Errorf("%s cosigning a text of context %q: %v", name, context, err)
			}
		}
	}
	if _, err := SignText([]byte(testCheckpoint), e.key("sallyport/citadel/outside")); err == nil {
		t.Error("a ledger signed the checkpoint of another")
	}
	if _, err := SignText([]byte("sallyport root v1"), e.key("a/root")); err == nil {
		t.Error("a text without LF was signed")
	}
	if _, err := CosignText([]byte(testCheckpoint), e.key("a/witness"), time.Unix(-1, 0)); err == nil {
		t.Error("cosigned before 1970")
	}
}

// Whatever opens here opens in package note, to the same text and signers.
func FuzzOpenNote(f *testing.F) {
	k, w := testKey(f, testZone, ""), testKey(f, "wim/witness", "")
	text := []byte(testCheckpoint)
	good, err := SignNote(text, k)
	if err != nil {
		f.Fatal(err)
	}
	line, err := CosignText(text, w, epoch)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(good, line+"\n"...))
	f.Add(append(good, "— zora QUJDREVGR0g=\n"...))
	known := []VKey{k.VKey(), w.VKey()}
	f.Fuzz(func(t *testing.T, msg []byte) {
		n, err := OpenNote("note", msg, 1<<20, known)
		if err != nil {
			return
		}
		other, err := note.Open(msg, note.VerifierList(k.VKey().Verifier(), w.VKey().Verifier()))
		if err != nil {
			t.Fatalf("package note: %v", err)
		}
		if other.Text != string(n.Text) || len(other.Sigs) != len(n.Signers) {
			t.Fatalf("package note has %d signatures of %q", len(other.Sigs), other.Text)
		}
		for i, s := range other.Sigs {
			if id := fmt.Sprintf("%s+%08x", s.Name, s.Hash); id != n.Signers[i].ID() {
				t.Fatalf("signature %d is by %s or %s", i, id, n.Signers[i].ID())
			}
		}
	})
}

// Package note agrees on vkeys and hashes.
func TestVKeyAgainstPackageNote(t *testing.T) {
	k := testKey(t, testZone, "")
	v, err := note.NewVerifier(k.VKey().String())
	if err != nil {
		t.Fatal(err)
	}
	if v.Name() != k.Name() || v.KeyHash() != k.VKey().Hash() {
		t.Error("name or hash differ")
	}
	msg, err := note.Sign(&note.Note{Text: testCheckpoint}, NoteSigner(k))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := SignNote([]byte(testCheckpoint), k)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(msg, ours) {
		t.Errorf("%q\n%q", msg, ours)
	}
	if _, err := note.Open(ours, note.VerifierList(v)); err != nil {
		t.Error(err)
	}
}

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		n           int64
		thing, want string
	}{
		{1, "key", "1 key"}, {0, "key", "0 keys"}, {2, "key", "2 keys"}, {1, "entry", "1 entry"}, {3, "entry", "3 entries"}, {1, "hash", "1 hash"}, {2, "hash", "2 hashes"},
		{1 << 40, "byte", "1099511627776 bytes"}, {-2, "day", "-2 days"},
	} {
		if got := Count(tt.n, tt.thing); got != tt.want {
			t.Errorf("%d %s: %q, want %q", tt.n, tt.thing, got, tt.want)
		}
	}
}
