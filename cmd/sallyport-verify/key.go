package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Kinds of keys (docs/spec/keys.md).
const (
	edwards     = "ed25519"
	cosignature = "cosignature" // C2SP tlog-cosignature: the signature has the time before it
	p256        = "p256"
	sshsig      = "sshsig"
	mldsa87     = "mldsa87" // the standard library cannot check it
	minisign    = "minisign"
	guix        = "guix"
)

// vkeyTypes is what stands before the public key in a vkey.
var vkeyTypes = map[string]string{edwards: "\x01", cosignature: "\x04", p256: "\xffsallyport-p256", sshsig: "\xffsallyport-sshsig", mldsa87: "\xffsallyport-mldsa87"}

const (
	maxSSHSig = 1024
	mldsaKey  = 2592
	mldsaSig  = 4627
	mldsaSeed = 32 // before the coefficients of a public key
)

// key is a public key: one key line of a root, or a vkey from the command line.
type key struct {
	context, owner, from, until string // of a line

	kind, name, id string
	hash           uint32
	ssh            string // the public key on the wire, of sshsig
	algorithm      string // in it
	application    string // of a security key, likewise
	raw            string // the key itself, in whatever kind
	ec             *ecdsa.PublicKey
	number         [8]byte // minisign's
}

// counts tells whether the key counts for what bears this date; "" is what bears none.
func (k *key) counts(date string) bool {
	return (k.from == "" || k.from <= date) && (k.until == "" || date < k.until)
}

// parseVKey reads a vkey in its one spelling.
func parseVKey(s string) (*key, bool) {
	name, rest, _ := strings.Cut(s, "+")
	_, b64, _ := strings.Cut(rest, "+")
	bytes, ok := decode64(b64)
	h := sha256.Sum256(slices.Concat([]byte(name+"\n"), bytes))
	k := &key{name: name, id: fmt.Sprintf("%s+%x", name, h[:4]), hash: binary.BigEndian.Uint32(h[:])}
	owner, context, _ := strings.Cut(name, "/")
	named := is("origin", name) || is("name", owner) && is("context", context)
	if !ok || !named || k.id+"+"+b64 != s {
		return k, false
	}
	for kind, prefix := range vkeyTypes {
		if public, found := strings.CutPrefix(string(bytes), prefix); found {
			k.kind = kind
			return k, k.setPublic(public)
		}
	}
	return k, false
}

// setPublic takes the public key of a kind, unless strangers could sign under it or it is not in its one spelling.
func (k *key) setPublic(public string) bool {
	switch k.kind {
	case p256:
		return k.setPoint(elliptic.UnmarshalCompressed(elliptic.P256(), []byte(public)))
	case sshsig:
		return k.setSSH(public)
	case mldsa87:
		// Coefficients of 10 bits: were they all 0 or 1023, anybody could sign.
		weak := true
		for i := 8 * mldsaSeed; weak && i < 8*len(public); i++ {
			bit := func(i int) byte { return public[i/8] >> (i % 8) & 1 }
			weak = i%10 == (8*mldsaSeed)%10 || bit(i) == bit(i-1)
		}
		k.raw = public
		return len(public) == mldsaKey && !weak
	}
	return k.setEdwards(public)
}

func (k *key) setEdwards(public string) bool {
	k.raw = public
	return len(public) == ed25519.PublicKeySize && (k.kind == guix || isSound([32]byte([]byte(public))))
}

func (k *key) setPoint(x, y *big.Int) bool {
	if x == nil {
		return false
	}
	uncompressed := make([]byte, 65)
	uncompressed[0] = 4
	x.FillBytes(uncompressed[1:33])
	y.FillBytes(uncompressed[33:])
	var err error
	k.raw = string(uncompressed)
	k.ec, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), uncompressed)
	return err == nil
}

// setSSH reads a public key as SSH has it on the wire.
func (k *key) setSSH(public string) bool {
	k.ssh = public
	w := wire{rest: public, ok: true}
	k.algorithm = w.str()
	security := strings.HasPrefix(k.algorithm, "sk-")
	var sound bool
	switch k.algorithm {
	case "ssh-ed25519", "sk-ssh-ed25519@openssh.com":
		sound = k.setEdwards(w.str())
	case "ecdsa-sha2-nistp256", "sk-ecdsa-sha2-nistp256@openssh.com":
		curve, point := w.str(), w.str()
		pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), []byte(point))
		k.ec, k.raw, sound = pub, point, err == nil && curve == "nistp256"
	}
	if security {
		k.application = w.str()
		sound = sound && len(k.application) <= 128 && isMadeOf(printable, k.application) && strings.HasPrefix(k.application, "ssh:")
	}
	return sound && w.end()
}

// wire takes fields off a string as SSH writes them.
type wire struct {
	rest string
	ok   bool
}

func (w *wire) take(n int) string {
	if w.ok = w.ok && n <= len(w.rest); !w.ok {
		return ""
	}
	field := w.rest[:n]
	w.rest = w.rest[n:]
	return field
}

func (w *wire) str() string {
	length := w.take(4)
	if !w.ok {
		return ""
	}
	return w.take(int(binary.BigEndian.Uint32([]byte(length))))
}

func (w *wire) end() bool { return w.ok && w.rest == "" }

func sshString(s string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
}

// verify tells whether sig is the one spelling of a signature of the message. That of an ML-DSA-87 key is only looked at.
func (k *key) verify(message, sig []byte) bool {
	switch k.kind {
	case cosignature:
		if len(sig) != 8+ed25519.SignatureSize || binary.BigEndian.Uint64(sig) > maxNumber {
			return false
		}
		return k.verifyEdwards(append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig)), message...), sig[8:])
	case p256:
		var pair struct{ R, S *big.Int }
		_, err := asn1.Unmarshal(sig, &pair)
		return err == nil && bytes.Equal(sig, der(pair.R, pair.S)) && k.verifyPoint(message, pair.R, pair.S)
	case sshsig:
		return len(sig) <= maxSSHSig && k.verifySSH(message, string(sig))
	case mldsa87:
		return len(sig) == mldsaSig
	}
	return k.verifyEdwards(message, sig)
}

func (k *key) verifyEdwards(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify([]byte(k.raw), message, sig)
}

// verifyPoint verifies ECDSA over SHA-256. Of the two s that verify, the greater is refused.
func (k *key) verifyPoint(message []byte, r, s *big.Int) bool {
	half := new(big.Int).Rsh(elliptic.P256().Params().N, 1)
	return s.Cmp(half) <= 0 && ecdsa.VerifyASN1(k.ec, sum256(message), der(r, s))
}

func der(r, s *big.Int) []byte {
	sig, _ := asn1.Marshal(struct{ R, S *big.Int }{r, s})
	return sig
}

func sum256(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// verifySSH verifies a signature of OpenSSH's PROTOCOL.sshsig, made by this key in this context and in no other words than these.
func (k *key) verifySSH(message []byte, sig string) bool {
	hashed := sha512.Sum512(message)
	what := sshString("sallyport-"+k.context) + sshString("") + sshString("sha512")
	rest, ok := strings.CutPrefix(sig, "SSHSIG\x00\x00\x00\x01"+sshString(k.ssh)+what)
	outer := wire{rest, ok}
	inner := wire{outer.str(), outer.end()}
	if inner.str() != k.algorithm {
		return false
	}
	blob := inner.str()
	signed := []byte("SSHSIG" + what + sshString(string(hashed[:])))
	if strings.HasPrefix(k.algorithm, "sk-") {
		flags, counter := inner.take(1), inner.take(4)
		if !inner.ok || flags[0]&0xc1 != 1 { // bit 0: a person touched the key
			return false
		}
		signed = slices.Concat(sum256([]byte(k.application)), []byte(flags+counter), sum256(signed))
	}
	if !inner.end() {
		return false
	}
	if k.ec == nil {
		return k.verifyEdwards(signed, []byte(blob))
	}
	pair := wire{blob, true}
	r, s := new(big.Int).SetBytes([]byte(pair.str())), new(big.Int).SetBytes([]byte(pair.str()))
	return blob == sshNumber(r)+sshNumber(s) && k.verifyPoint(signed, r, s)
}

// sshNumber is a positive number in its one spelling.
func sshNumber(n *big.Int) string {
	b := n.Bytes()
	if len(b) > 0 && b[0] >= 0x80 {
		b = append([]byte{0}, b...)
	}
	return sshString(string(b))
}

// time is that of a cosignature that was verified.
func (s signature) time() string {
	return time.Unix(int64(binary.BigEndian.Uint64(s.sig)), 0).UTC().Format(time.RFC3339)
}

// pin is a root's fingerprint as a person handed it over: the 64 digits of its SHA-256, or its first 160 bits in base32. Case, hyphens
// and spaces do not matter.
type pin string

func parsePin(s string) (pin, bool) {
	if !isMadeOf(printable, s) {
		return "", false
	}
	s = strings.NewReplacer("-", "", " ", "").Replace(strings.ToLower(s))
	raw, err := base32.StdEncoding.DecodeString(strings.ToUpper(s))
	return pin(s), is("sha256", s) || err == nil && len(raw) == 20 && len(s) == 32
}

func (p pin) matches(digest string) bool {
	raw, _ := hex.DecodeString(digest)
	return string(p) == digest || string(p) == strings.ToLower(base32.StdEncoding.EncodeToString(raw[:20]))
}

// isSound tells whether public is the one spelling of a point of Ed25519's prime-order group, other than the neutral one. The curve has
// 8 times as many points, in a cyclic group times that one, so the sound points are those that can be halved three times. In the
// coordinate u of Curve25519 (RFC 7748 section 4.1) a point is twice another if and only if u is a square, and u(2Q) = U says that
// s = u(Q) + 1/u(Q) solves s*s - 4*U*s - 4*(1 + 486662*U) = 0.
func isSound(public [32]byte) bool {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	num := func(n int64) *big.Int { return big.NewInt(n) }
	mod := func(n *big.Int) *big.Int { return n.Mod(n, p) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	add := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Add(a, b)) }
	sub := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Sub(a, b)) }
	div := func(a, b *big.Int) *big.Int { return mul(a, new(big.Int).ModInverse(b, p)) }
	root := func(a *big.Int) *big.Int { return new(big.Int).ModSqrt(a, p) }

	little := public
	little[31] &= 0x7f // without the sign of x
	slices.Reverse(little[:])
	y := new(big.Int).SetBytes(little[:])
	if y.Cmp(p) >= 0 {
		return false
	}
	d := div(num(-121665), num(121666))
	if xx := div(sub(mul(y, y), num(1)), add(mul(d, mul(y, y)), num(1))); big.Jacobi(xx, p) != 1 {
		return false // no point of the curve, or x = 0 and the order 1 or 2
	}
	u := div(add(num(1), y), sub(num(1), y))
	for halvings := 0; big.Jacobi(u, p) == 1; halvings++ {
		if halvings == 2 {
			return true
		}
		r := root(add(mul(u, add(u, num(486662))), num(1)))
		s := mul(num(2), add(u, r))
		square := func() *big.Int { return sub(mul(s, s), num(4)) }
		if big.Jacobi(square(), p) < 0 {
			s = mul(num(2), sub(u, r))
		}
		u = div(add(s, root(square())), num(2))
	}
	return false
}
