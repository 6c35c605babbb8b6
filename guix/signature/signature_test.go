package signature_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/guix/sexp"
	"sallyport/guix/signature"
)

func hexInt(s string) *big.Int {
	n, ok := new(big.Int).SetString(s, 16)
	if !ok {
		panic(s)
	}
	return n
}

// A second implementation, of math/big alone, from the equations in the
// package comment.
var (
	prime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	order = hexInt("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed")
	base  = affine{
		hexInt("216936d3cd6e53fec0a4e231fdd6dc5c692cc7609525a7b2c9562d608f25d51a"),
		hexInt("6666666666666666666666666666666666666666666666666666666666666658"),
	}
	edwardsD = modP(mul(big.NewInt(-121665), inverse(big.NewInt(121666), prime)))
)

type affine struct{ x, y *big.Int }

func modP(a *big.Int) *big.Int       { return new(big.Int).Mod(a, prime) }
func modN(a *big.Int) *big.Int       { return new(big.Int).Mod(a, order) }
func mul(a, b *big.Int) *big.Int     { return new(big.Int).Mul(a, b) }
func plus(a, b *big.Int) *big.Int    { return new(big.Int).Add(a, b) }
func inverse(a, m *big.Int) *big.Int { return new(big.Int).ModInverse(a, m) }

func (p affine) add(q affine) affine {
	one := big.NewInt(1)
	t := modP(mul(edwardsD, mul(mul(p.x, q.x), mul(p.y, q.y))))
	return affine{
		modP(mul(plus(mul(p.x, q.y), mul(p.y, q.x)), inverse(modP(plus(one, t)), prime))),
		modP(mul(plus(mul(p.y, q.y), mul(p.x, q.x)), inverse(modP(new(big.Int).Sub(one, t)), prime))),
	}
}

func (p affine) times(k *big.Int) affine {
	sum := affine{big.NewInt(0), big.NewInt(1)}
	for i := k.BitLen() - 1; i >= 0; i-- {
		sum = sum.add(sum)
		if k.Bit(i) == 1 {
			sum = sum.add(p)
		}
	}
	return sum
}

func refSign(d [32]byte, hash [32]byte) (r, s *big.Int) {
	D := new(big.Int).SetBytes(d[:])
	e := new(big.Int).Rsh(new(big.Int).SetBytes(hash[:]), 3)
	h1 := modN(e).FillBytes(make([]byte, 32))
	h := func(k []byte, data ...[]byte) []byte {
		m := hmac.New(sha256.New, k)
		m.Write(bytes.Join(data, nil))
		return m.Sum(nil)
	}
	v, k := bytes.Repeat([]byte{1}, 32), make([]byte, 32)
	k = h(k, v, []byte{0}, d[:], h1)
	v = h(k, v)
	k = h(k, v, []byte{1}, d[:], h1)
	v = h(k, v)
	for {
		v = h(k, v)
		nonce := new(big.Int).Rsh(new(big.Int).SetBytes(v), 3)
		if nonce.Sign() > 0 && nonce.Cmp(order) < 0 {
			r = modN(base.times(nonce).x)
			s = modN(mul(inverse(nonce, order), plus(e, mul(D, r))))
			return r, s
		}
		k = h(k, v, []byte{0})
		v = h(k, v)
	}
}

func refVerify(Q affine, hash [32]byte, r, s *big.Int) bool {
	e := new(big.Int).Rsh(new(big.Int).SetBytes(hash[:]), 3)
	w := inverse(s, order)
	p := base.times(modN(mul(e, w))).add(Q.times(modN(mul(r, w))))
	return modN(p.x).Cmp(r) == 0
}

// text returns a signature; r and s are hexadecimal digits.
func text(key signature.PublicKey, hash [32]byte, r, s string) string {
	return fmt.Sprintf("(signature (data (flags rfc6979) (hash sha256 #%x#)) (sig-val (ecdsa (r #%s#) (s #%s#))) %s)", hash, r, s, key)
}

func even(n *big.Int) string { return fmt.Sprintf("%X", n.Bytes()) }

func random(seed string) io.Reader { return rand.NewChaCha8(sha256.Sum256([]byte(seed))) }

// Signatures equal those of the second implementation, which also verifies them.
func TestAgainstReference(t *testing.T) {
	rnd := random("reference")
	short := 0
	for i := range 60 {
		k, err := signature.GenerateKey(rnd)
		if err != nil {
			t.Fatal(err)
		}
		v, err := sexp.Parse(k.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		d, _ := v.Items()[1].Items()[3].Items()[1].Atom()
		var hash [32]byte
		rnd.Read(hash[:])
		if i%4 == 0 {
			hash[0] = 0xff // e above n
		}
		got, err := signature.Sign(k, hash)
		if err != nil {
			t.Fatal(err)
		}
		r, s := refSign([32]byte([]byte(d)), hash)
		if r.BitLen() <= 248 || s.BitLen() <= 248 {
			short++
		}
		want, err := sexp.Parse([]byte(text(k.Public(), hash, even(r), even(s))))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Advanced()) {
			t.Errorf("signature\n%s, expected\n%s", got, want.Advanced())
		}
		Q := base.times(new(big.Int).SetBytes([]byte(d)))
		if !refVerify(Q, hash, r, s) {
			t.Errorf("the reference does not verify itself")
		}
		key, err := signature.Verify(got, hash, signature.NewACL(k.Public()))
		if err != nil || key != k.Public() {
			t.Errorf("%v", err)
		}
	}
	if short == 0 {
		t.Error("no r or s of fewer than 32 octets among the samples")
	}
}

// Each variation of a good signature is refused, or accepted, for its reason.
func TestVariations(t *testing.T) {
	k := readSecret(t, "authorised.TEST-ONLY.sec")
	key, acl := k.Public(), signature.NewACL(k.Public())
	rsaKey, err := signature.ParsePublicKey(read(t, "rsa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte("content"))
	good, err := signature.Sign(k, hash)
	if err != nil {
		t.Fatal(err)
	}
	v, _ := sexp.Parse(good)
	number := func(i int) *big.Int {
		s, _ := v.Items()[2].Items()[1].Items()[i].Items()[1].Atom()
		return new(big.Int).SetBytes([]byte(s))
	}
	r, s := number(1), number(2)
	minusS := even(new(big.Int).Sub(order, s))
	one := text(key, hash, even(r), even(s)) // on one line
	other := sha256.Sum256([]byte("other"))
	otherSig, _ := signature.Sign(k, other)
	flip := func(old, new string) string {
		changed := strings.Replace(one, old, new, 1)
		if changed == one {
			t.Fatalf("no %q in %s", old, one)
		}
		return changed
	}
	for _, tc := range []struct{ name, text, code string }{
		{"as made", string(good), ""},
		{"one line", one, ""},
		{"canonical", string(v.Canonical()), ""},
		{"leading zeros", text(key, hash, strings.Repeat("00", 32)+even(r), "00"+even(s)), ""},
		{"too many leading zeros", text(key, hash, strings.Repeat("00", 33)+even(r), even(s)), signature.CodeMalformed},
		{"r empty", text(key, hash, "", even(s)), signature.CodeInvalid},
		{"r zero", text(key, hash, "00", even(s)), signature.CodeInvalid},
		{"s zero", text(key, hash, even(r), "00"), signature.CodeInvalid},
		{"both zero", text(key, hash, "00", "00"), signature.CodeInvalid},
		{"s = n", text(key, hash, even(r), even(order)), signature.CodeInvalid},
		{"r = n", text(key, hash, even(order), even(s)), signature.CodeInvalid},
		{"s + n", text(key, hash, even(r), even(plus(s, order))), signature.CodeInvalid},
		{"r + n", text(key, hash, even(plus(r, order)), even(s)), signature.CodeInvalid},
		{"s above 2^256", text(key, hash, even(r), "01"+strings.Repeat("00", 32)), signature.CodeInvalid},
		{"n - s", text(key, hash, even(r), minusS), signature.CodeInvalid},
		{"r and s exchanged", text(key, hash, even(s), even(r)), signature.CodeInvalid},
		{"other hash", text(key, other, even(r), even(s)), signature.CodeInvalid},
		{"over another hash", string(otherSig), signature.CodeHashMismatch},
		{"32-byte hash in sha512", flip("sha256", "sha512"), signature.CodeMalformed},
		{"short hash", strings.Replace(one, fmt.Sprintf("%x", hash), "00", 1), signature.CodeMalformed},
		{"no hash", flip(fmt.Sprintf("(hash sha256 #%x#)", hash), ""), signature.CodeMalformed},
		{"hash first", flip(fmt.Sprintf("(flags rfc6979) (hash sha256 #%x#)", hash), fmt.Sprintf("(hash sha256 #%x#) (flags rfc6979)", hash)), ""},
		{"flags eddsa", flip("rfc6979", "eddsa"), signature.CodeMalformed},
		{"flags pkcs1", flip("rfc6979", "pkcs1"), signature.CodeMalformed},
		{"flags list", flip("rfc6979", "(rfc6979)"), signature.CodeMalformed},
		{"two flags", flip("rfc6979", "rfc6979 raw"), signature.CodeMalformed},
		{"no flags", flip("(flags rfc6979)", ""), signature.CodeMalformed},
		{"eddsa value", flip("(ecdsa", "(eddsa"), signature.CodeMalformed},
		{"s before r", flip(fmt.Sprintf("(r #%s#) (s #%s#)", even(r), even(s)), fmt.Sprintf("(s #%s#) (r #%s#)", even(s), even(r))), ""},
		{"s twice", flip("(r #", "(s #"), signature.CodeMalformed},
		{"r and s without names", flip("(r #", "(#"), signature.CodeMalformed},
		{"r is a list", flip("(r #", "(r (x) #"), signature.CodeMalformed},
		{"sig-val twice", flip("(sig-val", "(sig-val (rsa (s #00#))) (sig-val"), signature.CodeMalformed},
		{"public-key twice", flip("(public-key", key.String()+"(public-key"), signature.CodeMalformed},
		{"no public-key", one[:strings.Index(one, "(public-key")] + ")", signature.CodeMalformed},
		{"atom inside", flip("(data", "x (data"), signature.CodeMalformed},
		{"list head", flip("(signature", "((signature)"), signature.CodeMalformed},
		{"empty list", "()", signature.CodeMalformed},
		{"no list", "signature", signature.CodeMalformed},
		{"NUL after it", one + "\x00", signature.CodeMalformed},
		{"two of them", one + one, signature.CodeMalformed},
		{"too large", one + strings.Repeat(" ", signature.MaxText), signature.CodeMalformed},
		{"empty", "", signature.CodeMalformed},
		{"data as atom", flip("(data (flags", "(data x (flags"), signature.CodeMalformed},
		{"curve in lower case", flip("(curve Ed25519)", "(curve ed25519)"), signature.CodeUnauthorised},
		{"key of another kind", flip(key.String(), "(public-key (dsa (y #01#)))"), signature.CodeUnauthorised},
		{"ecdsa by an RSA key", flip(key.String(), rsaKey.String()), signature.CodeUnauthorised},
	} {
		_, err := signature.Verify([]byte(tc.text), hash, acl)
		if codeOf(t, err) != tc.code {
			t.Errorf("%s: %v, want %q\n%s", tc.name, err, tc.code, tc.text)
		}
		_, err = signature.VerifyStrict([]byte(tc.text), hash, acl)
		switch got := codeOf(t, err); {
		case tc.text == string(good) && got != "":
			t.Errorf("%s: %v in strict mode", tc.name, err)
		case tc.text != string(good) && got != signature.CodeSpelling && (got != tc.code || got == ""):
			t.Errorf("%s: %v in strict mode", tc.name, err)
		}
	}
	for _, more := range []string{"\n", " ", "\x00", "()"} {
		if _, err := signature.VerifyStrict([]byte(string(good)+more), hash, acl); err == nil {
			t.Errorf("%q after a signature is accepted in strict mode", more)
		}
	}
	if _, err := signature.VerifyStrict(bytes.TrimRight(good, "\n"), hash, acl); codeOf(t, err) != signature.CodeSpelling {
		t.Errorf("without the last line feed: %v in strict mode", err)
	}
	// The kinds do not mix, even if both keys are believed.
	both := signature.NewACL(rsaKey, key)
	for _, mixed := range []string{
		flip(key.String(), rsaKey.String()),
		strings.Replace(string(read(t, "rsa-signature.sexp")), rsaKey.String()[:12], key.String()[:12], 1),
	} {
		_, err := signature.Verify([]byte(mixed), hash, both)
		if err == nil {
			t.Errorf("accepted:\n%s", mixed)
		}
	}
	if _, err := signature.Verify(good, hash, signature.ACL{}); codeOf(t, err) != signature.CodeUnauthorised {
		t.Error(err)
	}
	if _, err := signature.Sign(signature.SecretKey{}, hash); err == nil {
		t.Error("the zero key signs")
	}
}

func TestRSAVariations(t *testing.T) {
	acl, good := readACL(t, "acl-with-rsa"), string(read(t, "rsa-signature.sexp"))
	hash := sha256.Sum256([]byte("x"))
	for _, tc := range []struct{ old, new, code string }{
		{"(s #", "(s #0000", ""},
		{"(s #", "(s #01", signature.CodeInvalid},
		{"(s #A0", "(s #A1", signature.CodeInvalid},
		{"(s #A0", "(s #", signature.CodeInvalid},
		{"(hash sha256 #2D", "(hash sha256 #2E", signature.CodeInvalid},
		{"pkcs1", "rfc6979", signature.CodeMalformed},
		{"pkcs1", "pss", signature.CodeMalformed},
		{"(rsa \n   (s", "(rsa (r #01#) (s", signature.CodeMalformed},
		{"(e #010001#)", "(e #03#)", signature.CodeUnauthorised},
		{"(n #00C0", "(n #C0", signature.CodeUnauthorised},
	} {
		changed := strings.Replace(good, tc.old, tc.new, 1)
		if changed == good {
			t.Fatalf("no %q", tc.old)
		}
		_, err := signature.Verify([]byte(changed), hash, acl)
		if codeOf(t, err) != tc.code {
			t.Errorf("%q to %q: %v, want %q", tc.old, tc.new, err, tc.code)
		}
		if _, err := signature.VerifyStrict([]byte(changed), hash, acl); err == nil {
			t.Errorf("%q to %q: accepted in strict mode", tc.old, tc.new)
		}
	}
}

// s of RSA is as long as the modulus, zeros at its beginning included: one signature in 256 has one. That is what libgcrypt prints
// (TestSignatures of package peer asks it); without the zero it is accepted by Verify and refused in strict mode.
func TestRSAShort(t *testing.T) {
	v, err := sexp.Parse(read(t, "rsa.TEST-ONLY.sec"))
	if err != nil {
		t.Fatal(err)
	}
	number := func(i int) *big.Int {
		atom, _ := v.Items()[1].Items()[i].Items()[1].Atom()
		return new(big.Int).SetBytes([]byte(atom))
	}
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: number(1), E: int(number(2).Int64())}, D: number(3), Primes: []*big.Int{number(4), number(5)}}
	k.Precompute()
	public, acl := read(t, "rsa.pub"), readACL(t, "acl-with-rsa")
	for i := range 10000 {
		hash := sha256.Sum256(fmt.Append(nil, i))
		s, err := rsa.SignPKCS1v15(nil, k, crypto.SHA256, hash[:])
		if err != nil {
			t.Fatal(err)
		}
		if s[0] != 0 {
			continue
		}
		text := func(s []byte) []byte {
			v, err := sexp.Parse(fmt.Appendf(nil, "(signature (data (flags pkcs1) (hash sha256 #%x#)) (sig-val (rsa (s #%x#))) %s)", hash, s, public))
			if err != nil {
				t.Fatal(err)
			}
			return v.Advanced()
		}
		if _, err := signature.VerifyStrict(text(s), hash, acl); err != nil {
			t.Errorf("%d octets of s: %v", len(s), err)
		}
		short := text(bytes.TrimLeft(s, "\x00"))
		if _, err := signature.Verify(short, hash, acl); err != nil {
			t.Errorf("s without its zeros: %v", err)
		}
		if _, err := signature.VerifyStrict(short, hash, acl); codeOf(t, err) != signature.CodeSpelling {
			t.Errorf("s without its zeros, in strict mode: %v", err)
		}
		return
	}
	t.Fatal("no s begins with a zero")
}

// Every single changed digit of a signature is noticed.
func TestFlippedDigits(t *testing.T) {
	k := readSecret(t, "authorised.TEST-ONLY.sec")
	hash := sha256.Sum256([]byte("content"))
	good, err := signature.Sign(k, hash)
	if err != nil {
		t.Fatal(err)
	}
	acl := signature.NewACL(k.Public())
	for i, c := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if _, err := signature.VerifyStrict(bad, hash, acl); err == nil {
			t.Errorf("byte %d: %q for %q is accepted in strict mode", i, bad[i], c)
		}
		if c == ' ' || c == '\n' {
			continue // white space
		}
		if _, err := signature.Verify(bad, hash, acl); err == nil {
			t.Errorf("byte %d: %q for %q is accepted", i, bad[i], c)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, name := range []string{"authorised", "unauthorised"} {
		public, secret := read(t, name+".pub"), read(t, name+".TEST-ONLY.sec")
		key, err := signature.ParsePublicKey(public)
		if err != nil || key.String() != string(public) || key.RSA() {
			t.Errorf("%s: %v\n%s", name, err, key)
		}
		k := readSecret(t, name+".TEST-ONLY.sec")
		if k.Public() != key || !bytes.Equal(k.Bytes(), secret) {
			t.Errorf("%s: secret key prints as\n%s", name, k.Bytes())
		}
		q := key.Q()
		again, err := signature.ParsePublicKeyHex(key.Hex())
		if err != nil || again != key || key.Hex() != hex.EncodeToString(q[:]) || !strings.Contains(string(public), strings.ToUpper(key.Hex())) {
			t.Errorf("%s: %v %s", name, err, key.Hex())
		}
		d := string(secret[bytes.Index(secret, []byte("(d #"))+4:][:64])
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if s := fmt.Sprintf(verb, k); strings.Contains(strings.ToUpper(s), d) || !strings.Contains(s, key.Hex()) {
				t.Errorf("%s shows %s", verb, s)
			}
		}
	}
	key, err := signature.ParsePublicKey(read(t, "rsa.pub"))
	if err != nil || !key.RSA() || key.String() != string(read(t, "rsa.pub")) || key.Hex() != "" || key.Q() != [32]byte{} {
		t.Errorf("%v\n%s", err, key)
	}
	var none signature.PublicKey
	if none.String() != "" || none.Hex() != "" || none.Q() != [32]byte{} || (signature.SecretKey{}).Bytes() != nil {
		t.Error("the zero key is something")
	}
	if _, err := signature.GenerateKey(strings.NewReader("too short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
}

func TestGenerateKey(t *testing.T) {
	rnd := random("generate")
	for range 20 {
		k, err := signature.GenerateKey(rnd)
		if err != nil {
			t.Fatal(err)
		}
		again, err := signature.ParseSecretKey(k.Bytes())
		if err != nil || again != k {
			t.Errorf("%v\n%s", err, k.Bytes())
		}
		// As libgcrypt makes them: never shorter than 32 octets, low bits clear.
		v, _ := sexp.Parse(k.Bytes())
		d, _ := v.Items()[1].Items()[3].Items()[1].Atom()
		if d[0]>>6 != 1 || d[31]&7 != 0 {
			t.Errorf("d is %x", d)
		}
	}
}

// y of a point, as little-endian hexadecimal digits.
const (
	identity    = "0100000000000000000000000000000000000000000000000000000000000000"
	orderTwo    = "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
	orderFour   = "0000000000000000000000000000000000000000000000000000000000000000"
	notOnCurve  = "0200000000000000000000000000000000000000000000000000000000000000"
	identityToo = "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f" // y = p + 1
	minusZero   = "0100000000000000000000000000000000000000000000000000000000000080" // x = -0
)

func TestKeysRefused(t *testing.T) {
	good := readSecret(t, "authorised.TEST-ONLY.sec")
	q := good.Public().Hex()
	// Q plus the point of order two is (-x, -y).
	Q := good.Public().Q()
	Q[31] &= 0x7f
	for i := range 16 {
		Q[i], Q[31-i] = Q[31-i], Q[i]
	}
	mixed := new(big.Int).Sub(prime, new(big.Int).SetBytes(Q[:])).FillBytes(make([]byte, 32))
	for i := range 16 {
		mixed[i], mixed[31-i] = mixed[31-i], mixed[i]
	}
	// One of the two encodings has the right sign; neither is a key.
	mixedEven := hex.EncodeToString(mixed)
	mixed[31] |= 0x80
	mixedOdd := hex.EncodeToString(mixed)
	for _, s := range []string{identity, orderTwo, orderFour, notOnCurve, identityToo, minusZero, mixedEven, mixedOdd,
		"", q[:62], q + "00", "40" + q, strings.ToUpper(q), q[:63] + "g", " " + q} {
		if key, err := signature.ParsePublicKeyHex(s); codeOf(t, err) != signature.CodeBadKey || key != (signature.PublicKey{}) {
			t.Errorf("q %q: %v", s, err)
		}
	}
	n := strings.TrimSuffix(strings.SplitAfter(string(read(t, "rsa.pub")), "#")[1], "#")
	for _, s := range []string{
		"",
		"(public-key)",
		"(public-key x)",
		"(public-key (dsa (y #01#)))",
		"(private-key (ecc (curve Ed25519) (q #" + q + "#)))",
		"(public-key (ecc (curve Ed25519) (q #" + q + "#)) x)",
		"(public-key (ecc (curve Ed25519) (q #" + q + "#) (comment x)))",
		"(public-key (ecc (q #" + q + "#) (curve Ed25519)))",
		"(public-key (ecc (curve ed25519) (q #" + q + "#)))",
		"(public-key (ecc (curve NIST-P256) (q #" + q + "#)))",
		"(public-key (ecc (curve Ed25519) (flags eddsa) (q #" + q + "#)))",
		"(public-key (ecc (curve Ed25519) (q #" + q + "#))) x",
		"(public-key (ecc (curve Ed25519) (q (#" + q + "#))))",
		"(public-key (ecc (curve Ed25519) (q #" + q + "00#)))",
		"(public-key (rsa (n #" + n + "#)))",
		"(public-key (rsa (e #010001#) (n #" + n + "#)))",
		"(public-key (rsa (n #" + n + "#) (e #00010001#)))",
		"(public-key (rsa (n #" + n + "#) (e ##)))",
		"(public-key (rsa (n #" + n + "#) (e #01#)))",
		"(public-key (rsa (n #" + n + "#) (e #010000#)))",
		"(public-key (rsa (n #" + n + "#) (e #0100000001#)))",
		"(public-key (rsa (n #" + n + "#) (e #00#)))",
		"(public-key (rsa (n #" + n[2:] + "#) (e #010001#)))",
		"(public-key (rsa (n #00" + n + "#) (e #010001#)))",
		"(public-key (rsa (n #" + n[:len(n)-1] + "A#) (e #010001#)))",
		"(public-key (rsa (n #" + n[:len(n)-2] + "#) (e #010001#)))",
		"(public-key (rsa (n #" + n + strings.Repeat("01", 800) + "#) (e #010001#)))",
	} {
		if _, err := signature.ParsePublicKey([]byte(s)); codeOf(t, err) != signature.CodeBadKey {
			t.Errorf("%.120s: %v", s, err)
		}
	}
	secret := string(good.Bytes())
	d := secret[strings.Index(secret, "(d #")+4:][:64]
	for _, s := range []string{
		"",
		good.Public().String(),
		string(read(t, "rsa.TEST-ONLY.sec")),
		strings.Replace(secret, d, d[:62], 1),
		strings.Replace(secret, d, "00"+d, 1),
		strings.Replace(secret, d, strings.Repeat("0", 64), 1),
		strings.Replace(secret, d, fmt.Sprintf("%064x", order), 1),
		strings.Replace(secret, d[:2], "00", 1),
		strings.Replace(secret, strings.ToUpper(q), "63E5C254E17C44F9559F0DB90E1FBB6919B2B43C03194C2F2287E822170A0D08", 1),
		strings.Replace(secret, strings.ToUpper(q), identity, 1),
		strings.Replace(secret, "(curve Ed25519)", "(curve Ed448)", 1),
		secret + "x",
	} {
		if k, err := signature.ParseSecretKey([]byte(s)); codeOf(t, err) != signature.CodeBadKey || k != (signature.SecretKey{}) {
			t.Errorf("%s: %v", s, err)
		}
	}
	// d and d+n have the same point, and sign differently: both are keys.
	D := plus(hexInt(d), order)
	k, err := signature.ParseSecretKey([]byte(strings.Replace(secret, d, fmt.Sprintf("%X", D), 1)))
	if err != nil || k.Public() != good.Public() {
		t.Fatal(err)
	}
	a, _ := signature.Sign(good, [32]byte{})
	b, _ := signature.Sign(k, [32]byte{})
	if bytes.Equal(a, b) {
		t.Error("the nonce does not depend on the multiple of n in d")
	}
	for _, sig := range [][]byte{a, b} {
		if _, err := signature.Verify(sig, [32]byte{}, signature.NewACL(k.Public())); err != nil {
			t.Error(err)
		}
	}
}

func TestACL(t *testing.T) {
	for _, name := range []string{"acl", "acl-with-rsa"} {
		acl := readACL(t, name)
		if !bytes.Equal(acl.Bytes(), read(t, name)) {
			t.Errorf("%s prints as\n%s", name, acl.Bytes())
		}
		if again := signature.NewACL(acl.Keys()...); !bytes.Equal(again.Bytes(), read(t, name)) {
			t.Errorf("%s is made as\n%s", name, again.Bytes())
		}
	}
	key, err := signature.ParsePublicKey(read(t, "authorised.pub"))
	if err != nil {
		t.Fatal(err)
	}
	entry := "(entry " + key.String() + "(tag (guix import)))"
	for _, tc := range []struct {
		text string
		keys int // -1: refused
	}{
		{"(acl)", 0},
		{"(acl" + entry + ")", 1},
		{"(acl" + entry + entry + ")", 1},
		{"(acl (entry (tag (guix import))" + key.String() + "))", -1},
		{"(acl" + entry + "x)", -1},
		{"(acl" + entry + "())", -1},
		{"(acl" + entry + "(entry " + key.String() + "(tag (guix export))))", -1},
		{"(acl" + entry + "(entry " + key.String() + "(tag (guix import) (x))))", -1},
		{"(acl" + entry + "(entry " + key.String() + "))", -1},
		{"(acl" + entry + "(entry (public-key (dsa (y #01#))) (tag (guix import))))", -1},
		{"(acl (entry (public-key (ecc (curve Ed25519) (q #" + identity + "#))) (tag (guix import))))", -1},
		{"(acl" + entry + ") x", -1},
		{"(acl" + entry, -1},
		{"(ACL" + entry + ")", -1},
		{"()", -1},
		{"", -1},
		{"(acl" + strings.Repeat(" ()", signature.MaxKeys+1) + ")", -1},
	} {
		acl, err := signature.ParseACL([]byte(tc.text))
		if tc.keys < 0 {
			if codeOf(t, err) != signature.CodeBadACL {
				t.Errorf("%.200s: %v", tc.text, err)
			}
		} else if err != nil || len(acl.Keys()) != tc.keys || acl.Has(key) != (tc.keys > 0) {
			t.Errorf("%.200s: %v, %d keys", tc.text, err, len(acl.Keys()))
		}
	}
	if new(signature.ACL).Has(key) || signature.NewACL(key).Has(signature.PublicKey{}) {
		t.Error("a list has a key that was not put there")
	}
	defer func() {
		if recover() == nil {
			t.Error("a list was made of the zero key")
		}
	}()
	signature.NewACL(signature.PublicKey{})
}

// A list that is read can be printed and read again, also if its canonical form is much shorter than what Guix prints.
func TestACLSize(t *testing.T) {
	rnd := random("acl")
	entries := []sexp.Value{sexp.Atom("acl")}
	list := func(values ...sexp.Value) sexp.Value { return sexp.List(values...) }
	for size := 0; size < sexp.MaxSize-1200; {
		n := make([]byte, signature.MaxRSABits/8)
		rnd.Read(n)
		n[0] |= 0x80
		n[len(n)-1] |= 1
		key := list(sexp.Atom("public-key"), list(sexp.Atom("rsa"), list(sexp.Atom("n"), sexp.Atom("\x00"+string(n))), list(sexp.Atom("e"), sexp.Atom("\x01\x00\x01"))))
		entries = append(entries, list(sexp.Atom("entry"), key, list(sexp.Atom("tag"), list(sexp.Atom("guix"), sexp.Atom("import")))))
		size = len(list(entries...).Canonical())
		text := list(entries...).Canonical()
		if len(entries)%20 != 0 && size < sexp.MaxSize-1200 {
			continue
		}
		acl, err := signature.ParseACL(text)
		if err != nil {
			if codeOf(t, err) != signature.CodeBadACL || 2*len(text) < sexp.MaxSize {
				t.Errorf("%d keys, %d bytes: %v", len(entries)-1, len(text), err)
			}
			continue
		}
		if again, err := signature.ParseACL(acl.Bytes()); err != nil || len(again.Keys()) != len(entries)-1 {
			t.Errorf("%d keys, %d bytes, printed: %v", len(entries)-1, len(text), err)
		}
	}
}

func TestErrorText(t *testing.T) {
	_, err := signature.Parse([]byte("(signature x () ())"))
	if want := "guix signature: byte 11: malformed-signature: signature consists of one each of data, sig-val, public-key"; fmt.Sprint(err) != want {
		t.Errorf("%v", err)
	}
	rsaText := read(t, "rsa-signature.sexp")
	_, err = signature.Verify(rsaText, sha256.Sum256([]byte("x")), signature.ACL{})
	if want := "the RSA key of modulus 00c04fbf00894d90ebc5dc2b6e347e3f..."; !strings.HasSuffix(fmt.Sprint(err), want) {
		t.Errorf("%v", err)
	}
	u, err := signature.Parse(rsaText)
	if err != nil || u.Hash() != sha256.Sum256([]byte("x")) {
		t.Errorf("%v", err)
	}
	if key, err := u.PublicKey(); err != nil || key.String() != string(read(t, "rsa.pub")) {
		t.Errorf("%v", err)
	}
}

func FuzzVerify(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(vectors, "sig-*.nar"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds in %s (%v)", vectors, err)
	}
	for _, file := range files {
		for _, item := range stream(f, read(f, filepath.Base(file))) {
			f.Add(item.signature)
		}
	}
	f.Add(read(f, "rsa-signature.sexp"))
	acl := readACL(f, "acl-with-rsa")
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := signature.Parse(data)
		if err != nil {
			codeOf(t, err)
			return
		}
		key, err := signature.Verify(data, u.Hash(), acl)
		if err == nil && !acl.Has(key) {
			t.Fatalf("accepted with the key %q", key)
		}
		// Of the texts that say one thing, the strict mode takes at most the one that libgcrypt prints.
		if strict, err3 := signature.ParseStrict(data); err3 == nil {
			if v, err := sexp.Parse(data); err != nil || !bytes.Equal(v.Advanced(), data) || strict.Hash() != u.Hash() {
				t.Fatalf("taken in strict mode: %q", data)
			}
		} else if codeOf(t, err3) != signature.CodeSpelling {
			t.Fatal(err3)
		}
		// Nothing but the spelling may change when it is printed again.
		v, perr := sexp.Parse(data)
		if perr != nil {
			t.Fatal(perr)
		}
		if len(v.Advanced()) > signature.MaxText {
			return
		}
		again, err2 := signature.Verify(v.Advanced(), u.Hash(), acl)
		if again != key || codeOf(t, err2) != codeOf(t, err) {
			t.Fatalf("%v, printed again %v", err, err2)
		}
	})
}

// What parses prints back to the same value.
func FuzzKeys(f *testing.F) {
	for _, name := range []string{"acl", "acl-with-rsa", "authorised.pub", "rsa.pub", "authorised.TEST-ONLY.sec"} {
		f.Add(read(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, perr := sexp.Parse(data)
		if key, err := signature.ParsePublicKey(data); err == nil {
			if perr != nil || key.String() != v.String() {
				t.Fatalf("%q prints as %q", data, key)
			}
		}
		if k, err := signature.ParseSecretKey(data); err == nil {
			if perr != nil || string(k.Bytes()) != v.String() {
				t.Fatalf("%q prints as %q", data, k.Bytes())
			}
		}
		if acl, err := signature.ParseACL(data); err == nil {
			again, err := signature.ParseACL(acl.Bytes())
			if err != nil || !bytes.Equal(again.Bytes(), acl.Bytes()) {
				t.Fatalf("%q prints as %q: %v", data, acl.Bytes(), err)
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	k := readSecret(b, "authorised.TEST-ONLY.sec")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signature.Sign(k, [32]byte{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	k := readSecret(b, "authorised.TEST-ONLY.sec")
	acl := signature.NewACL(k.Public())
	sig, err := signature.Sign(k, [32]byte{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signature.Verify(sig, [32]byte{}, acl); err != nil {
			b.Fatal(err)
		}
	}
}

// The peer: RSA-2048 of the standard library, by a key of the older kind.
func BenchmarkVerifyRSA(b *testing.B) {
	acl, sig := readACL(b, "acl-with-rsa"), read(b, "rsa-signature.sexp")
	hash := sha256.Sum256([]byte("x"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := signature.Verify(sig, hash, acl); err != nil {
			b.Fatal(err)
		}
	}
}
