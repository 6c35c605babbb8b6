package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
)

// signersOf returns a signer of each form of key that may sign in the context.
func signersOf(t testing.TB, name string) map[string]Signer {
	t.Helper()
	signers := map[string]Signer{
		"file":          testKey(t, name, ""),
		"agent ed25519": newDevice(t, sshEd25519, "raw").key(t, name, false),
		"agent p256":    newDevice(t, sshP256, "raw").key(t, name, false),
	}
	for _, a := range sshAlgorithms() {
		signers["sshsig "+a] = newDevice(t, a, "").key(t, name, true)
	}
	if strings.HasSuffix(name, "/manifest") {
		signers["mldsa87"] = mldsaKey(t, name)
	}
	return signers
}

// The table in docs/spec/keys.md is the one in the code.
func TestKeyTable(t *testing.T) {
	page, err := os.ReadFile("../../docs/spec/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	var contexts []Context
	rows := 0
	for _, line := range strings.Split(string(page), "\n") {
		f := strings.Split(line, "|")
		for i := range f {
			f[i] = strings.Trim(f[i], " `")
		}
		if len(f) < 4 {
			continue
		}
		if f[1] == "kind \\ context" {
			for _, c := range f[2 : len(f)-1] {
				context, err := ParseContext(c)
				if err != nil {
					t.Fatal(err)
				}
				contexts = append(contexts, context)
			}
			continue
		}
		kind, err := ParseKeyKind(f[1])
		if err != nil || len(contexts) == 0 || len(f) != len(contexts)+3 {
			continue
		}
		rows++
		for i, c := range contexts {
			cell := f[i+2]
			person, station := checkKind(kind, c, "olga") == nil, checkKind(kind, c, Station) == nil
			want := map[[2]bool]string{{true, true}: "yes", {true, false}: "persons", {false, false}: ""}[[2]bool{person, station}]
			if cell != want {
				t.Errorf("%s in %s: the page says %q, the code %q", kind, c, cell, want)
			}
		}
	}
	if rows != len(KeyKinds()) || len(contexts) != 9 {
		t.Errorf("%d rows of %d kinds, %d columns", rows, len(KeyKinds()), len(contexts))
	}
}

// What the table forbids no function takes: not a name, not a vkey, not a root.
func TestKindsInContexts(t *testing.T) {
	public := map[KeyKind][]byte{
		KeyEd25519:     testKey(t, "olga/root", "").VKey().Public,
		KeyCosignature: testKey(t, "wim/witness", "").VKey().Public,
		KeyP256:        newDevice(t, sshP256, "").key(t, "olga/root", false).v.Public,
		KeySSHSIG:      newDevice(t, sshSKEd25519, "").k.wire(),
		KeyMLDSA87:     mldsaKey(t, "cleo/manifest").VKey().Public,
		KeyMinisign:    testKey(t, "cleo/sums", "").VKey().Public,
		KeyGuix:        make([]byte, 32),
	}
	for kind, p := range public {
		for _, name := range []string{"olga/root", "olga/order", "olga/allowlist", "olga/manifest", "olga/statement", "olga/witness", "olga/sums", "olga/narinfo", "station/statement", testZone} {
			person, context, err := parseKeyName(name)
			want := err == nil && checkKind(kind, context, person) == nil && kind.prefix() != ""
			k, err := NewVKey(kind, name, p)
			if (err == nil) != want {
				t.Errorf("%s of kind %s: %v", name, kind, err)
			}
			forged := VKey{name, person, context, p, kind}
			again, err := ParseVKey(forged.String())
			if (err == nil) != want || want && !again.Equal(k) {
				t.Errorf("%s of kind %s, parsed: %v", name, kind, err)
			}
			if !want && kind != KeyMinisign && forged.Verify([]byte("x"), make([]byte, 64)) {
				t.Errorf("%s of kind %s verified something", name, kind)
			}
		}
	}
	if new(VKey).Verify(nil, nil) {
		t.Error("the zero key verified something")
	}
	// A root with such a key is refused for it.
	e := newEnclave(t)
	for name, kind := range map[string]KeyKind{"olga/root": KeyMLDSA87, "rada/allowlist": KeyCosignature, "wim/witness": KeyP256, "station/statement": KeySSHSIG} {
		person, context, err := parseKeyName(name)
		if err != nil {
			t.Fatal(err)
		}
		r := e.root()
		for i, k := range r.Keys {
			if k.Context == context && k.Owner == person {
				r.Keys[i].Key = VKey{name, person, context, public[kind], kind}.String()
			}
		}
		_, err = ParseRoot(r.Text())
		if rs, ok := AsRefusals(err); !ok || !rs.Has("root-key") {
			t.Errorf("%s of kind %s in a root: %v", name, kind, err)
		}
	}
}

// A vkey of each kind, hashed by the words of the specification.
func TestVKeyKinds(t *testing.T) {
	for form, s := range signersOf(t, "cleo/manifest") {
		k := s.VKey()
		prefix := map[KeyKind]string{KeyEd25519: "\x01", KeyP256: "\xffsallyport-p256", KeySSHSIG: "\xffsallyport-sshsig", KeyMLDSA87: "\xffsallyport-mldsa87"}[k.Kind()]
		h := sha256.Sum256([]byte("cleo/manifest\n" + prefix + string(k.Public)))
		want := "cleo/manifest+" + hex.EncodeToString(h[:4]) + "+" + base64.StdEncoding.EncodeToString([]byte(prefix+string(k.Public)))
		if k.String() != want {
			t.Errorf("%s: %s, want %s", form, k, want)
		}
		again, err := ParseVKey(want)
		if err != nil || !again.Equal(k) || again.Kind() != k.Kind() || again.Counts() != (k.Kind() != KeyMLDSA87) {
			t.Errorf("%s: %v", form, err)
		}
		line := s.RootKey().Line() + "\n"
		root, err := ParsePublic([]byte(line))
		if err != nil || root != s.RootKey() {
			t.Errorf("%s: %v, %v", form, root, err)
		}
		if len(line) > MaxKeyLine {
			t.Errorf("%s: a line of %d bytes", form, len(line))
		}
		for _, bad := range []string{"", line + line, strings.TrimSuffix(line, "\n"), " " + line, strings.Replace(line, " ", "  ", 1), strings.Replace(line, "\n", "\r\n", 1),
			strings.Replace(line, "manifest cleo", "root cleo", 1), strings.Replace(line, "manifest cleo", "manifest carl", 1), strings.Replace(line, "manifest ", "nothing ", 1)} {
			if _, err := ParsePublic([]byte(bad)); err == nil {
				t.Errorf("%s: %.60q taken", form, bad)
			}
		}
	}
}

// Each form of key signs; no byte of the signature can be changed, and no other context takes it.
func TestSignaturesOfAllKinds(t *testing.T) {
	text := []byte("sallyport manifest v1\nenclave citadel\n")
	for form, s := range signersOf(t, "cleo/manifest") {
		k := s.VKey()
		line, err := SignText(text, s)
		if err != nil {
			t.Errorf("%s: %v", form, err)
			continue
		}
		_, sig, err := parseSigLine(line)
		if err != nil {
			t.Fatal(err)
		}
		if k.Counts() && len(sig) > MaxSignature {
			t.Errorf("%s: signature of %d bytes", form, len(sig))
		}
		if got, err := VerifyLine("manifest", text, line, []VKey{k}); k.Counts() != (err == nil) || err == nil && !got.Equal(k) {
			t.Errorf("%s: %v", form, err)
		}
		if !k.Verify(text, sig) || k.Verify(append(bytes.Clone(text), 'x'), sig) || k.Verify(nil, sig) || k.Verify(text, nil) {
			t.Errorf("%s: verifies wrongly", form)
		}
		step := max(1, len(sig)/200)
		for i := 0; i < len(sig); i += step {
			bad := bytes.Clone(sig)
			bad[i] ^= 1 << (i % 8)
			if k.Verify(text, bad) {
				t.Errorf("%s: byte %d can be changed", form, i)
			}
		}
		for _, bad := range [][]byte{append(bytes.Clone(sig), 0), sig[:len(sig)-1], sig[1:], append([]byte{0}, sig...)} {
			if k.Verify(text, bad) {
				t.Errorf("%s: %d bytes for %d", form, len(bad), len(sig))
			}
		}
		// The same public key, enrolled for something else. An Ed25519 or a P-256 signature is bound to its context by the first line of what it
		// signs; the others by what they sign along.
		if k.Kind() == KeySSHSIG {
			other := k
			other.Name, other.Context = "cleo/allowlist", ContextAllowlist
			if other.Verify(text, sig) {
				t.Errorf("%s: verifies in another context", form)
			}
		}
		for _, c := range []Context{ContextRoot, ContextAllowlist, ContextStatement, ContextOrder, ""} {
			_, err := s.Sign(c, text)
			wantCodes(t, err, "key-context")
		}
		_, err = SignText([]byte(allowlistTitle+"\n"), s)
		wantCodes(t, err, "key-context")
	}
}

// One note with a signature of every kind.
func TestNoteOfAllKinds(t *testing.T) {
	text := []byte("sallyport manifest v1\nenclave citadel\n")
	var signers []Signer
	var keys []VKey
	for _, s := range signersOf(t, "cleo/manifest") {
		signers, keys = append(signers, s), append(keys, s.VKey())
	}
	msg, err := SignNote(text, signers...)
	if err != nil {
		t.Fatal(err)
	}
	n, err := OpenNote("manifest", msg, 1000, keys)
	if err != nil || len(n.Signers) != len(keys) || len(n.Ignored) != 0 {
		t.Fatalf("%v", err)
	}
	// Whoever knows but one of them ignores the others.
	for _, k := range keys {
		n, err := OpenNote("manifest", msg, 1000, []VKey{k})
		if !k.Counts() {
			wantCodes(t, err, "manifest-unsigned") // ML-DSA is never instead of another
		} else if err != nil || len(n.Ignored) != len(keys)-1 {
			t.Errorf("%s: %v", k.Kind(), err)
		}
	}
}

func TestRawKeys(t *testing.T) {
	ed, ec := newDevice(t, sshEd25519, ""), newDevice(t, sshP256, "")
	skEd, skEC := newDevice(t, sshSKEd25519, ""), newDevice(t, sshSKP256, "")
	skEd.k.point, skEC.k.point = ed.k.point, ec.k.point
	other := newDevice(t, sshEd25519, "other")
	same := [][]RootKey{
		{ed.key(t, "a/root", false).r, ed.key(t, "a/allowlist", true).r, ed.key(t, "b/witness", false).r, ed.key(t, "c/sums", false).r, skEd.key(t, "d/root", true).r,
			{Context: ContextNarinfo, Owner: "dev", Key: hex.EncodeToString(ed.k.point)}},
		{ec.key(t, "a/root", false).r, ec.key(t, "b/allowlist", true).r, skEC.key(t, "c/root", false).r},
		{other.key(t, "a/root", false).r},
		{mldsaKey(t, "a/manifest").RootKey(), mldsaKey(t, "a/manifest").RootKey()},
		{mldsaKey(t, "b/manifest").RootKey()},
	}
	seen := map[RawKey]int{}
	for i, group := range same {
		for _, r := range group {
			raw, err := r.Raw()
			if err != nil {
				t.Fatal(err)
			}
			if j, ok := seen[raw]; ok && j != i {
				t.Errorf("%s has the raw key of another group", r.Line())
			}
			seen[raw] = i
			if first, err := group[0].VKey(); err == nil && r.Context != ContextNarinfo {
				k, err := r.VKey()
				if err != nil || !k.Same(first) || !first.Same(k) {
					t.Errorf("%s is not the same as %s", k.Name, first.Name)
				}
			}
		}
	}
	if len(seen) != len(same) {
		t.Errorf("%d raw keys in %d groups", len(seen), len(same))
	}
	for _, bad := range []RootKey{{}, {Context: ContextNarinfo, Owner: "dev", Key: strings.Repeat("AB", 32)}, {Context: ContextSums, Owner: "c", Key: "x"}, {Context: ContextRoot, Owner: "b", Key: same[0][0].Key}} {
		if _, err := bad.Raw(); err == nil {
			t.Errorf("%v taken", bad)
		}
	}
}

// No bytes make a key panic, and none verifies in two spellings.
func FuzzVKeyVerify(f *testing.F) {
	text := []byte("sallyport manifest v1\nenclave citadel\n")
	for _, s := range signersOf(f, "cleo/manifest") {
		sig, err := s.Sign(ContextManifest, text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.VKey().String(), text, sig)
	}
	f.Add("a/root+00000000+", []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, vkey string, message, sig []byte) {
		k, err := ParseVKey(vkey)
		if err != nil {
			return
		}
		if k.String() != vkey {
			t.Fatalf("%q prints as %q", vkey, k)
		}
		if _, err := k.SSHPublic(); (err == nil) != (k.Kind() != KeyMLDSA87) {
			t.Fatalf("%s: %v", k.Kind(), err)
		}
		if k.Raw() == "" || !k.Same(k) {
			t.Fatal("it is not the same as itself")
		}
		if !k.Verify(message, sig) {
			return
		}
		for i := range sig {
			for bit := range 8 {
				sig[i] ^= 1 << bit
				if len(sig) < MaxSignature && k.Verify(message, sig) {
					t.Fatalf("verifies with bit %d of byte %d changed", bit, i)
				}
				sig[i] ^= 1 << bit
			}
		}
	})
}

// A key file of any bytes is no more than refused.
func FuzzParseKey(f *testing.F) {
	for _, k := range []*Key{testKey(f, "olga/root", ""), testKey(f, "cleo/sums", ""), testKey(f, "wim/witness", ""), mldsaKey(f, "cleo/manifest")} {
		file, err := k.Marshal(nil, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b, func() ([]byte, error) { return nil, errors.New("nobody to ask") })
		if err != nil {
			return
		}
		file, err := k.Marshal(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseKey(file, nil)
		if err != nil || again.Public() != k.Public() || again.Name() != k.Name() {
			t.Fatalf("%v", err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	text := []byte("sallyport manifest v1\nenclave citadel\n")
	signers := signersOf(b, "cleo/manifest")
	forms := make([]string, 0, len(signers))
	for form := range signers {
		forms = append(forms, form)
	}
	slices.Sort(forms)
	for _, form := range forms {
		b.Run(form, func(b *testing.B) {
			s := signers[form]
			sig, err := s.Sign(ContextManifest, text)
			if err != nil {
				b.Fatal(err)
			}
			k := s.VKey()
			for b.Loop() {
				if !k.Verify(text, sig) {
					b.Fatal("does not verify")
				}
			}
		})
	}
}

// One secret on two lines of a root is refused, whatever kinds the lines are of.
func TestRootHasEachRawKeyOnce(t *testing.T) {
	ed, ec := newDevice(t, sshEd25519, ""), newDevice(t, sshP256, "")
	touched := newDevice(t, sshSKEd25519, "")
	touched.k.point = ed.k.point
	for name, pair := range map[string][2]RootKey{
		"Ed25519, and inside SSHSIG":     {ed.key(t, "olga/root", false).r, ed.key(t, "rada/allowlist", true).r},
		"Ed25519, and in a security key": {ed.key(t, "olga/root", false).r, touched.key(t, "rada/allowlist", true).r},
		"SSHSIG twice":                   {ed.key(t, "olga/root", true).r, ed.key(t, "rada/allowlist", true).r},
		"a witness, and inside SSHSIG":   {ed.key(t, "wim/witness", false).r, ed.key(t, "rada/allowlist", true).r},
		"sums, and inside SSHSIG":        {ed.key(t, "cleo/sums", false).r, ed.key(t, "rada/allowlist", true).r},
		"P-256, and inside SSHSIG":       {ec.key(t, "olga/root", false).r, ec.key(t, "rada/allowlist", true).r},
		"P-256 of one person, twice":     {ec.key(t, "rada/allowlist", false).r, ec.key(t, "rada/allowlist", true).r},
		"ML-DSA twice":                   {mldsaKey(t, "cleo/manifest").RootKey(), mldsaKey(t, "cleo/manifest").RootKey()},
		"narinfos, and inside SSHSIG":    {{Context: ContextNarinfo, Owner: "test", Key: hex.EncodeToString(ed.k.point)}, ed.key(t, "rada/allowlist", true).r},
	} {
		r := newEnclave(t).root()
		r.SetThreshold("test", 1)
		r.Keys = append(r.Keys, pair[0])
		if _, err := ParseRoot(r.Text()); err != nil {
			t.Errorf("%s: the first alone: %v", name, err)
		}
		r.Keys = append(r.Keys, pair[1])
		want := "root-duplicate-key"
		if pair[0] == pair[1] {
			want = "root-duplicate" // the very same line
		}
		_, err := ParseRoot(r.Text())
		wantCodes(t, err, want)
	}
}
