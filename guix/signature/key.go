package signature

import (
	"crypto"
	"crypto/rsa"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"strings"

	"filippo.io/edwards25519"

	"sallyport/guix/sexp"
)

// curve is how libgcrypt spells it; access control lists compare the spelling.
const curve = "Ed25519"

// A PublicKey is a key that signatures are verified with. Keys are equal, with
// ==, if they are the same to Guix. The zero PublicKey is no key.
type PublicKey struct {
	canonical string // of its s-expression
}

// A verifier is the form of a key that does the arithmetic.
type verifier interface {
	verify(*Unverified) bool
}

// ParsePublicKey reads a file such as /etc/guix/signing-key.pub.
func ParsePublicKey(text []byte) (PublicKey, error) {
	key, _, err := parseKey(text)
	return key, err
}

// ParsePublicKeyHex reads q of a key on the curve: 64 hexadecimal digits in
// lower case.
func ParsePublicKeyHex(s string) (PublicKey, error) {
	q, err := hex.DecodeString(s)
	if err != nil || len(q) != 32 || s != strings.ToLower(s) {
		return PublicKey{}, &Error{-1, CodeBadKey, fmt.Sprintf("%.80q is not 64 hexadecimal digits in lower case", s)}
	}
	key, _, err := keyOf(eccKey("public-key", string(q)), CodeBadKey)
	return key, err
}

// Q returns the encoded point of a key on the curve; zeros for an RSA key.
func (k PublicKey) Q() (q [32]byte) {
	if k.RSA() {
		return q
	}
	// (public-key (ecc (curve Ed25519) (q 32:...))): the point stands last.
	if end := len(k.canonical) - len(")))"); end >= len(q) {
		copy(q[:], k.canonical[end-len(q):])
	}
	return q
}

// RSA reports whether k is an RSA key.
func (k PublicKey) RSA() bool { return strings.HasPrefix(k.canonical, "(10:public-key(3:rsa") }

// Hex returns Q in the form that ParsePublicKeyHex reads; "" for an RSA key.
func (k PublicKey) Hex() string {
	if k == (PublicKey{}) || k.RSA() {
		return ""
	}
	q := k.Q()
	return hex.EncodeToString(q[:])
}

// String returns k as in a file signing-key.pub.
func (k PublicKey) String() string {
	if k == (PublicKey{}) {
		return ""
	}
	return k.value().String()
}

// name returns what messages call the key.
func (k PublicKey) name() string {
	if !k.RSA() {
		return k.Hex()
	}
	n, _ := k.value().Items()[1].Items()[1].Items()[1].Atom()
	return fmt.Sprintf("the RSA key of modulus %x...", n[:16])
}

func (k PublicKey) value() sexp.Value {
	v, err := sexp.Parse([]byte(k.canonical))
	if err != nil {
		panic("signature: use of the zero PublicKey")
	}
	return v
}

func parseKey(text []byte) (PublicKey, verifier, error) {
	v, err := parse(text, MaxText, CodeBadKey)
	if err != nil {
		return PublicKey{}, nil, err
	}
	return keyOf(v, CodeBadKey)
}

// keyOf reads the list (public-key ...). Refusals get the code given.
func keyOf(v sexp.Value, code string) (PublicKey, verifier, error) {
	m := matcher{code: code}
	body := m.list(v, "public-key", 1)[0]
	var check verifier
	switch body.Head() {
	case "ecc":
		q := m.ecc(body, 2)[1]
		point := m.point(q, m.field(q, "q"))
		check = eccVerifier{point}
	case "rsa":
		fields := m.list(body, "rsa", 2)
		check = m.rsa(body, m.field(fields[0], "n"), m.field(fields[1], "e"))
	default:
		m.fail(body, "the key is neither ecc nor rsa")
	}
	if m.err != nil {
		return PublicKey{}, nil, m.err
	}
	return PublicKey{string(v.Canonical())}, check, nil
}

// ecc returns the n fields of (ecc (curve Ed25519) ...), the curve among them.
func (m *matcher) ecc(v sexp.Value, n int) []sexp.Value {
	fields := m.list(v, "ecc", n)
	if name := m.field(fields[0], "curve"); m.err == nil && name != curve {
		m.fail(fields[0], "the curve is not %s", curve)
	}
	return fields
}

// point decodes the public point q.
func (m *matcher) point(at sexp.Value, q string) *edwards25519.Point {
	if m.err != nil {
		return nil
	}
	if len(q) != 32 {
		m.fail(at, "q has %d octets, not 32", len(q))
		return nil
	}
	p, err := edwards25519.NewIdentityPoint().SetBytes([]byte(q))
	if err != nil || string(p.Bytes()) != q {
		m.fail(at, "q is not the encoding of a point")
		return nil
	}
	// The order of p divides 8n. With a component of small order it is no
	// multiple of B, so no secret key has it, and if it were of small order
	// itself there would be only eight values that r could be checked against.
	one, _ := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{1}, make([]byte, 31)...))
	zero := edwards25519.NewScalar()
	minusP := edwards25519.NewIdentityPoint().VarTimeDoubleScalarBaseMult(zero.Negate(one), p, edwards25519.NewScalar())
	identity := edwards25519.NewIdentityPoint()
	if p.Equal(identity) == 1 || minusP.Add(minusP, p).Equal(identity) != 1 {
		m.fail(at, "q is not a multiple of the base point")
		return nil
	}
	return p
}

type eccVerifier struct{ q *edwards25519.Point }

func (v eccVerifier) verify(u *Unverified) bool { return !u.rsa && verify(v.q, u.hash, u.r, u.s) }

// rsa builds an RSA key of n and e, each a positive two's complement number
// without superfluous octets, as libgcrypt prints them.
func (m *matcher) rsa(at sexp.Value, n, e string) verifier {
	for _, number := range []string{n, e} {
		if m.err == nil && (number == "" || number[0] >= 0x80 ||
			number[0] == 0 && (len(number) == 1 || number[1] < 0x80)) {
			m.fail(at, "n or e is not a number as it should be written")
		}
	}
	if m.err != nil {
		return nil
	}
	N, E := new(big.Int).SetBytes([]byte(n)), new(big.Int).SetBytes([]byte(e))
	switch {
	case N.BitLen() < MinRSABits || N.BitLen() > MaxRSABits:
		m.fail(at, "a modulus of %d bits, not %d to %d", N.BitLen(), MinRSABits, MaxRSABits)
	case N.Bit(0) == 0:
		m.fail(at, "the modulus is even")
	case E.BitLen() > 31 || E.Int64() < 3 || E.Bit(0) == 0:
		m.fail(at, "the exponent is not an odd number from 3 to 2^31-1")
	default:
		return rsaVerifier{&rsa.PublicKey{N: N, E: int(E.Int64())}}
	}
	return nil
}

type rsaVerifier struct{ key *rsa.PublicKey }

func (v rsaVerifier) verify(u *Unverified) bool {
	s := strings.TrimLeft(u.s, "\x00")
	if !u.rsa || len(s) > v.key.Size() {
		return false
	}
	padded := make([]byte, v.key.Size())
	copy(padded[len(padded)-len(s):], s)
	return rsa.VerifyPKCS1v15(v.key, crypto.SHA256, u.hash[:], padded) == nil
}

// A SecretKey is a key that signs. It does not print: only Bytes shows it.
type SecretKey struct {
	d      [32]byte // big-endian, as in the file
	public PublicKey
}

// GenerateKey makes a key from 32 octets of rand, shaped as libgcrypt shapes
// its own: D has 255 bits and is a multiple of 8.
func GenerateKey(rand io.Reader) (SecretKey, error) {
	var d [32]byte
	if _, err := io.ReadFull(rand, d[:]); err != nil {
		return SecretKey{}, fmt.Errorf("generating a key: %w", err)
	}
	d[0] = d[0]&0x7f | 0x40
	d[31] &= 0xf8
	return newSecretKey(d), nil
}

func newSecretKey(d [32]byte) SecretKey {
	q := edwards25519.NewIdentityPoint().ScalarBaseMult(reduce(d)).Bytes()
	return SecretKey{d, PublicKey{string(eccKey("public-key", string(q)).Canonical())}}
}

// ParseSecretKey reads a file such as /etc/guix/signing-key.sec, and checks
// that its public part belongs to its secret part. RSA keys are refused.
func ParseSecretKey(text []byte) (SecretKey, error) {
	v, err := parse(text, MaxText, CodeBadKey)
	if err != nil {
		return SecretKey{}, err
	}
	m := matcher{code: CodeBadKey}
	fields := m.ecc(m.list(v, "private-key", 1)[0], 3)
	q, d := m.field(fields[1], "q"), m.field(fields[2], "d")
	if len(d) != 32 {
		m.fail(fields[2], "d has %d octets, not 32", len(d))
	}
	m.point(fields[1], q)
	if m.err != nil {
		return SecretKey{}, m.err
	}
	k := newSecretKey([32]byte([]byte(d)))
	if point := k.public.Q(); string(point[:]) != q {
		m.fail(fields[1], "q is not the public point of d")
		return SecretKey{}, m.err
	}
	return k, nil
}

// Public returns the public key of k.
func (k SecretKey) Public() PublicKey { return k.public }

// Bytes returns k as in a file signing-key.sec; nil for the zero SecretKey.
func (k SecretKey) Bytes() []byte {
	if k.public == (PublicKey{}) {
		return nil
	}
	q := k.public.Q()
	return eccKey("private-key", string(q[:]), list("d", sexp.Atom(string(k.d[:])))).Advanced()
}

// String names k by its public key.
func (k SecretKey) String() string { return "secret key of " + k.public.Hex() }

// Format is String for every verb, so that no message shows the secret.
func (k SecretKey) Format(f fmt.State, verb rune) { io.WriteString(f, k.String()) }

func eccKey(head, q string, more ...sexp.Value) sexp.Value {
	fields := []sexp.Value{
		list("curve", sexp.Atom(curve)),
		list("q", sexp.Atom(q)),
	}
	return list(head, list("ecc", append(fields, more...)...))
}
