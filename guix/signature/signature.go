// Package signature makes and verifies the signatures of GNU Guix: those of
// export streams (guix archive --export) and of substitutes (guix publish),
// with the keys and the access control list they are judged by.
//
// # Vocabulary
//
// An access control list (ACL) holds the public keys whose signatures are
// believed. A key that is in it is authorised. A signature is a text that
// names a hash, a key, and the two numbers that prove that the one who has
// the secret half of the key vouched for the hash. What the hash is of is the
// business of packages archive and narinfo.
//
// # The algorithm
//
// It is ECDSA over the Edwards curve of Ed25519. It is not EdDSA, and nothing
// that implements Ed25519 signatures can verify one. With B the base point, n
// its order (253 bits), x(P) the affine Edwards coordinate of a point:
//
//	D = big-endian value of d               neither hashed nor clamped nor reduced
//	Q = D*B                                 encoded as in RFC 8032, section 5.1.2
//	e = big-endian value of hash, >> 3      its leftmost 253 bits
//	k = nonce of RFC 6979 with HMAC-SHA-256
//	r = x(k*B) mod n
//	s = (e + D*r) / k mod n
//
// A signature is valid if 0 < r < n, 0 < s < n and x((e/s)*B + (r/s)*Q) mod n = r.
// There is no cofactor, and unlike ECDSA over a Weierstrass curve (r, n-s) is
// not a second valid signature, because negation changes x. The nonce takes
// int2octets of the *unreduced* D, which usually exceeds n: reducing it gives
// valid signatures, but not those that Guix makes.
//
// Older keys may be RSA. Their signatures, PKCS #1 v1.5 with SHA-256 over the
// given hash, are verified here and not made.
//
// # Files
//
// All are s-expressions in the spelling of package sexp.
//
//	/etc/guix/signing-key.pub   (public-key (ecc (curve Ed25519) (q #Q#)))
//	                            (public-key (rsa (n #N#) (e #E#)))
//	/etc/guix/signing-key.sec   (private-key (ecc (curve Ed25519) (q #Q#) (d #D#)))
//	/etc/guix/acl               (acl (entry PUBLIC-KEY (tag (guix import))) ...)
//	signature                   (signature
//	                             (data (flags rfc6979) (hash sha256 #HASH#))
//	                             (sig-val (ecdsa (r #R#) (s #S#)))
//	                             PUBLIC-KEY)
//	                            (signature
//	                             (data (flags pkcs1) (hash sha256 #HASH#))
//	                             (sig-val (rsa (s #S#)))
//	                             PUBLIC-KEY)
//
// HASH, Q and D are 32 octets. R, S, N, E are unsigned, big-endian; Guix
// writes R and S without leading zeros, so that one in sixteen is shorter
// than usual, and N with a leading zero octet if its top bit is set.
//
// # Verification
//
// Verify judges in the order of the daemon's helper, and the code of the
// first failure is the answer:
//
//	CodeMalformed        the text is not one of the two signatures above
//	CodeSpelling         VerifyStrict: it is, in another spelling than Guix's
//	CodeUnauthorised     its public key is not in the access control list
//	CodeInvalid          the signature was not made by that key over that hash
//	CodeHashMismatch     it was, but over something else than what is at hand
//
// Parse and the methods of Unverified do the same one at a time, for substitutes,
// where Guix compares the hash before it does the arithmetic.
//
// # Strict mode
//
// VerifyStrict and ParseStrict take one text for each value: the one that Guix
// prints. Whoever compares, counts or stores signatures by their bytes wants
// that, since otherwise a stranger could make a second text of a signature
// that he cannot make. Verify itself accepts, as Guix does, what says the
// same in another spelling: canonical form, all on one line, hex in lower
// case, r and s with leading zeros, and the elements of signature, data and
// ecdsa in any order. Neither wants a nonce to be that of RFC 6979: it cannot
// be seen from outside whether it is.
//
// # Where Guix is looser
//
// Guix looks for data and public-key anywhere in the text, ignores the rest,
// and leaves the details to libgcrypt. It accepts, and this package refuses
// as malformed:
//
//   - a list that is not headed signature; further elements, a second data
//     or sig-val among them (the first counts); bytes after the list
//   - a hash that is not labelled sha256: Guix never looks at the label
//   - flags raw in place of rfc6979 (a verifier sees no difference)
//
// Like Guix, an access control list with any entry of another shape is
// refused as a whole, and keys are compared by their s-expression: (curve
// ed25519), q with a prefix of 40 or elements in another order make another,
// unauthorised key. Unlike Guix, the list may hold only keys that can verify
// something: RSA of MinRSABits to MaxRSABits, and for the curve the canonical
// encoding of a point of order n. A key of small order would let anybody sign.
//
// # A worked example
//
// Who has signed this hash, of those whom this machine believes?
//
//	acl, err := signature.ParseACL(file) // of /etc/guix/acl
//	...
//	key, err := signature.Verify(text, hash, acl)
//	var refused *signature.Error
//	switch {
//	case errors.As(err, &refused):
//		fmt.Println("refused:", refused.Code)
//	case err == nil:
//		fmt.Println("signed by", key.Hex())
//	}
//
// Making a key, and signing as guix archive --export and guix publish do:
//
//	secret, err := signature.GenerateKey(rand.Reader) // of crypto/rand
//	...
//	text, err := signature.Sign(secret, hash)
//	os.WriteFile("signing-key.sec", secret.Bytes(), 0o400)
//	os.WriteFile("signing-key.pub", []byte(secret.Public().String()), 0o444)
//
// # Bounds
//
// [MaxText], [MaxInteger], [MinRSABits], [MaxRSABits] and [MaxKeys], and those
// of package sexp. The arithmetic runs only on keys that are authorised.
//
// # Secrets
//
// Signing runs in constant time with respect to D and k, as far as the
// arithmetic of filippo.io/edwards25519 and crypto/hmac does. Reading and
// writing key files does not.
//
// # Sources
//
// Guix's own code is the specification: guix/pki.scm and
// guix/scripts/authenticate.scm of 1.5.0, and libgcrypt underneath
// (cipher/ecc-ecdsa.c, cipher/dsa-common.c, cipher/ecc-curves.c). Signatures made by
// Guix, with the keys, are in vectors/archives with the verdicts of Guix on others;
// TestSignatures of package peer signs the same hashes with the same keys
// on both sides and compares the bytes.
package signature

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"sallyport/guix/sexp"
)

// Bounds.
const (
	MaxText    = 16 << 10 // octets of a signature or a key file
	MaxInteger = 64       // octets of r or s of ECDSA, leading zeros included
	MinRSABits = 2048
	MaxRSABits = 8192
	MaxKeys    = 1024 // keys in an access control list
)

// Reason codes of an Error.
const (
	CodeMalformed    = "malformed-signature"
	CodeSpelling     = "signature-spelling"
	CodeUnauthorised = "unauthorised-key"
	CodeInvalid      = "invalid-signature"
	CodeHashMismatch = "hash-mismatch"
	CodeBadKey       = "malformed-key" // of a key file
	CodeBadACL       = "malformed-acl"
)

// An Error says why a signature, a key or an access control list was refused.
type Error struct {
	Offset int64 // where in the text, -1 if the fault has no place
	Code   string
	Detail string
}

func (e *Error) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("guix signature: %s: %s", e.Code, e.Detail)
	}
	return fmt.Sprintf("guix signature: byte %d: %s: %s", e.Offset, e.Code, e.Detail)
}

// An Unverified is a signature that was read, not believed.
type Unverified struct {
	key  string // canonical form of the public key as it stands there
	hash [sha256.Size]byte
	rsa  bool
	r, s string // RSA has no r
}

// Parse reads the text of a signature.
func Parse(text []byte) (*Unverified, error) {
	v, err := parse(text, MaxText, CodeMalformed)
	if err != nil {
		return nil, err
	}
	m := matcher{code: CodeMalformed}
	top := m.record(v, "signature", "data", "sig-val", "public-key")
	u := &Unverified{key: string(top[2].Canonical())}

	data := m.record(top[0], "data", "flags", "hash")
	flags := m.field(data[0], "flags")
	hash := m.list(data[1], "hash", 2)
	if label, ok := hash[0].Atom(); !ok || label != "sha256" {
		m.fail(hash[0], "the hash is not labelled sha256")
	}
	digest, ok := hash[1].Atom()
	if !ok || len(digest) != len(u.hash) {
		m.fail(hash[1], "the hash has not %d octets", len(u.hash))
	}
	copy(u.hash[:], digest)

	value := m.list(top[1], "sig-val", 1)[0]
	switch flags {
	case "rfc6979":
		rs := m.record(value, "ecdsa", "r", "s")
		u.r, u.s = m.field(rs[0], "r"), m.field(rs[1], "s")
		if max(len(u.r), len(u.s)) > MaxInteger {
			m.fail(value, "an integer of more than %d octets", MaxInteger)
		}
	case "pkcs1":
		u.rsa = true
		u.s = m.field(m.record(value, "rsa", "s")[0], "s")
	default:
		m.fail(data[0], "flags are neither rfc6979 nor pkcs1")
	}
	if m.err != nil {
		return nil, m.err
	}
	return u, nil
}

// ParseStrict is Parse for texts as Guix prints them, to the byte.
func ParseStrict(text []byte) (*Unverified, error) {
	u, err := Parse(text)
	if err != nil {
		return nil, err
	}
	want := u.text()
	same := 0
	for same < min(len(text), len(want)) && text[same] == want[same] {
		same++
	}
	if same < len(text) || same < len(want) {
		return nil, &Error{int64(same), CodeSpelling, "Guix spells this signature otherwise from here on"}
	}
	return u, nil
}

// text returns the text that Guix prints for u.
func (u *Unverified) text() []byte {
	key, err := sexp.Parse([]byte(u.key))
	if err != nil {
		panic(err) // package sexp has printed it
	}
	r, s := strings.TrimLeft(u.r, "\x00"), strings.TrimLeft(u.s, "\x00")
	if !u.rsa {
		return ecdsaText(u.hash, r, s, key)
	}
	// libgcrypt makes this s as long as the modulus.
	if _, v, err := keyOf(key, CodeBadKey); err == nil {
		if rsa, ok := v.(rsaVerifier); ok {
			s = strings.Repeat("\x00", max(0, rsa.key.Size()-len(s))) + s
		}
	}
	return spell("pkcs1", u.hash, list("rsa", list("s", sexp.Atom(s))), key)
}

// Hash returns the hash that the signature claims to be over.
func (u *Unverified) Hash() [32]byte { return u.hash }

// PublicKey returns the key that the signature claims to be by. The key may
// be none that this package takes: a signature that carries such a key is
// well-formed, as in Guix, and unauthorised.
func (u *Unverified) PublicKey() (PublicKey, error) {
	key, _, err := parseKey([]byte(u.key))
	return key, err
}

// Authorised returns the key of the signature if acl holds it.
func (u *Unverified) Authorised(acl ACL) (PublicKey, error) {
	i, ok := acl.index[u.key]
	if ok {
		return acl.entries[i].key, nil
	}
	key, err := u.PublicKey()
	if err != nil {
		return PublicKey{}, &Error{-1, CodeUnauthorised, "the key is not in the access control list and is none that Guix makes"}
	}
	return PublicKey{}, &Error{-1, CodeUnauthorised, "the key is not in the access control list: " + key.name()}
}

// Matches compares the hash of the signature with the one of what is at hand.
func (u *Unverified) Matches(hash [32]byte) error {
	if u.hash != hash {
		return &Error{-1, CodeHashMismatch, fmt.Sprintf("the signature is over %x, the content has %x", u.hash, hash)}
	}
	return nil
}

// Valid reports, by returning nil, that the key of the signature made it over
// the hash it names. The key has to be in acl: the arithmetic runs only on
// keys that somebody vouched for.
func (u *Unverified) Valid(acl ACL) error {
	key, err := u.Authorised(acl)
	if err != nil {
		return err
	}
	if !acl.entries[acl.index[u.key]].verifier.verify(u) {
		return &Error{-1, CodeInvalid, "the signature was not made by " + key.name() + " over the hash it names"}
	}
	return nil
}

// Verify checks that sig is a signature over hash by a key in acl, and returns
// that key.
func Verify(sig []byte, hash [32]byte, acl ACL) (PublicKey, error) {
	u, err := Parse(sig)
	if err != nil {
		return PublicKey{}, err
	}
	return u.verify(hash, acl)
}

// VerifyStrict is Verify for a signature that is spelled as Guix spells it.
func VerifyStrict(sig []byte, hash [32]byte, acl ACL) (PublicKey, error) {
	u, err := ParseStrict(sig)
	if err != nil {
		return PublicKey{}, err
	}
	return u.verify(hash, acl)
}

func (u *Unverified) verify(hash [32]byte, acl ACL) (PublicKey, error) {
	key, err := u.Authorised(acl)
	if err != nil {
		return PublicKey{}, err
	}
	if err := u.Valid(acl); err != nil {
		return PublicKey{}, err
	}
	if err := u.Matches(hash); err != nil {
		return PublicKey{}, err
	}
	return key, nil
}

// Sign returns the signature of hash by k: the text that Guix makes with the
// same key, to the byte. It fails only if k is the zero SecretKey.
func Sign(k SecretKey, hash [32]byte) ([]byte, error) {
	if k.public == (PublicKey{}) {
		return nil, &Error{-1, CodeBadKey, "there is no key to sign with"}
	}
	r, s := sign(&k.d, hash)
	return ecdsaText(hash, string(r), string(s), k.public.value()), nil
}

func ecdsaText(hash [32]byte, r, s string, key sexp.Value) []byte {
	return spell("rfc6979", hash, list("ecdsa", list("r", sexp.Atom(r)), list("s", sexp.Atom(s))), key)
}

func spell(flags string, hash [32]byte, value, key sexp.Value) []byte {
	return list("signature",
		list("data",
			list("flags", sexp.Atom(flags)),
			list("hash", sexp.Atom("sha256"), sexp.Atom(string(hash[:])))),
		list("sig-val", value),
		key).Advanced()
}

// list returns (head values...).
func list(head string, values ...sexp.Value) sexp.Value {
	return sexp.List(append([]sexp.Value{sexp.Atom(head)}, values...)...)
}

// parse reads an s-expression and turns its error into one of this package.
func parse(text []byte, limit int, code string) (sexp.Value, error) {
	if len(text) > limit {
		return sexp.Value{}, &Error{int64(limit), code, fmt.Sprintf("%d bytes, at most %d are read", len(text), limit)}
	}
	v, err := sexp.Parse(text)
	if err != nil {
		e := err.(*sexp.Error) // the only type that Parse returns
		return sexp.Value{}, &Error{e.Offset, code, e.Detail}
	}
	return v, nil
}

// A matcher takes values apart and remembers the first that has not the shape
// it should have. After a failure it returns empty values, so that callers
// ask once, at the end.
type matcher struct {
	code string
	err  error
}

func (m *matcher) fail(v sexp.Value, format string, args ...any) {
	if m.err == nil {
		m.err = &Error{v.Offset(), m.code, fmt.Sprintf(format, args...)}
	}
}

// list returns the n values that follow the head of v.
func (m *matcher) list(v sexp.Value, head string, n int) []sexp.Value {
	if m.err == nil && v.Head() != head {
		m.fail(v, "no list %s where one should be", head)
	}
	if m.err == nil && len(v.Items()) != n+1 {
		m.fail(v, "%s consists of %d elements, not of %d", head, n, len(v.Items())-1)
	}
	if m.err != nil {
		return make([]sexp.Value, n)
	}
	return v.Items()[1:]
}

// record returns the lists that v consists of, in the order of names. In v
// they may stand in any order, each once, and nothing else.
func (m *matcher) record(v sexp.Value, head string, names ...string) []sexp.Value {
	found := make([]sexp.Value, len(names))
	for _, item := range m.list(v, head, len(names)) {
		i := slices.Index(names, item.Head())
		if i < 0 || found[i].IsList() {
			m.fail(item, "%s consists of one each of %s", head, strings.Join(names, ", "))
			break
		}
		found[i] = item
	}
	return found
}

// field returns the atom of v, which is (name ATOM).
func (m *matcher) field(v sexp.Value, name string) string {
	value := m.list(v, name, 1)[0]
	atom, ok := value.Atom()
	if !ok {
		m.fail(value, "%s is a list", name)
	}
	return atom
}
