package openpgp

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"math/big"
)

// Verify checks that the key made s over the data, given in pieces. Only signatures of binary data are accepted, as by Guix.
func (k *Key) Verify(s *Signature, data [][]byte) error {
	if s.Type != TypeBinary {
		return fail(CodeUnsupported, "a signature of type %#02x, not of a binary document", s.Type)
	}
	return k.verify(s, data)
}

func (k *Key) verify(s *Signature, data [][]byte) error {
	if s.Algorithm != k.Algorithm {
		return fail(CodeBad, "a signature of algorithm %d for a key of algorithm %d", s.Algorithm, k.Algorithm)
	}
	if k.Bits == 0 {
		return fail(CodeUnsupported, "a key that cannot be used: algorithm %d", k.Algorithm)
	}
	kind := hashes[s.Hash].hash
	if !kind.Available() { // MD5
		return fail(CodeUnsupported, "the hash %s", s.HashName())
	}
	h := kind.New()
	for _, d := range data {
		h.Write(d)
	}
	h.Write(s.hashed)
	digest := h.Sum(make([]byte, 0, 64))
	ok := false
	switch k.Algorithm {
	case AlgorithmRSA:
		ok = verifyRSA(k.n, k.modulus(), k.e, kind, digest, s.s)
	case AlgorithmDSA:
		ok = k.verifyDSA(digest, s.r, s.s)
	case AlgorithmEdDSA:
		ok = verifyEd25519(k.point, digest, s.r, s.s)
	}
	if !ok {
		return fail(CodeBad, "not a signature of %s over this", k.Fingerprint)
	}
	return nil
}

// verifyEd25519 takes R and S as Guix does: of 32 bytes, or 31 that lost a zero in front. A number that lost two is refused by Guix too.
func verifyEd25519(key ed25519.PublicKey, digest, r, s []byte) bool {
	var sig [64]byte
	for i, n := range [][]byte{r, s} {
		if len(n) != 32 && len(n) != 31 {
			return false
		}
		copy(sig[32*i+32-len(n):], n)
	}
	return ed25519.Verify(key, digest, sig[:])
}

// Bounds of RSA keys. Exponents are those of crypto/rsa.
const (
	minRSA      = 1024
	maxExponent = 1<<31 - 1
)

func usableRSA(n, e *big.Int) bool {
	return n.BitLen() >= minRSA && n.Bit(0) == 1 && e.IsInt64() && e.Int64() >= 3 && e.Int64() <= maxExponent && e.Bit(0) == 1
}

// What stands before a digest in PKCS #1 v1.5 (RFC 8017, section 9.2).
var digestInfo = map[crypto.Hash][]byte{
	crypto.SHA1:      {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14},
	crypto.RIPEMD160: {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x24, 0x03, 0x02, 0x01, 0x05, 0x00, 0x04, 0x14},
	crypto.SHA224:    {0x30, 0x2d, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04, 0x05, 0x00, 0x04, 0x1c},
	crypto.SHA256:    {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20},
	crypto.SHA384:    {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0x04, 0x30},
	crypto.SHA512:    {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00, 0x04, 0x40},
}

// verifyRSA makes the padded digest that the signature must be of and compares, so that no padding is parsed. It does what crypto/rsa does, and
// TestRSA holds it against that; but for public values alone, at less than half the cost for the keys of 4096 bits that half of Guix's commits
// are signed with.
func verifyRSA(n *big.Int, m *modulus, e *big.Int, kind crypto.Hash, digest, sig []byte) bool {
	prefix, ok := digestInfo[kind]
	size := (n.BitLen() + 7) / 8
	pad := size - 3 - len(prefix) - len(digest)
	if !ok || pad < 8 || len(sig) > size {
		return false
	}
	s := new(big.Int).SetBytes(sig)
	if s.Cmp(n) >= 0 {
		return false
	}
	want := make([]byte, 0, size)
	want = append(want, 0, 1)
	for range pad {
		want = append(want, 0xff)
	}
	want = append(want, 0)
	want = append(want, prefix...)
	want = append(want, digest...)
	got := make([]byte, size)
	m.exp(s, e).FillBytes(got)
	return bytes.Equal(got, want)
}

// Bounds of DSA keys. The powers of a key take up to 3 MB, and whoever makes a keyring decides how many keys it has: only those that sign much get them, and
// not too many.
const (
	tableUses = 16 // signatures of a key that are verified without
	maxTables = 64 // keys of a keyring that have them
	minDSA    = 1024
	maxDSA    = 4096
	minDSAq   = 160
	maxDSAq   = 512
)

func usableDSA(p, q, g, y *big.Int) bool {
	one := big.NewInt(1)
	return p.BitLen() >= minDSA && p.BitLen() <= maxDSA && p.Bit(0) == 1 && q.BitLen() >= minDSAq && q.BitLen() <= maxDSAq && q.Bit(0) == 1 && q.BitLen()%8 == 0 &&
		g.Cmp(one) > 0 && g.Cmp(p) < 0 && y.Cmp(one) > 0 && y.Cmp(p) < 0
}

// verifyDSA is the check of FIPS 186-4, section 4.7. crypto/dsa has the same, without a memory: it takes four times as long for a key that has
// signed many commits. TestDSA holds it against that.
func (k *Key) verifyDSA(digest, rb, sb []byte) bool {
	r, s := new(big.Int).SetBytes(rb), new(big.Int).SetBytes(sb)
	if r.Sign() == 0 || r.Cmp(k.q) >= 0 || s.Sign() == 0 || s.Cmp(k.q) >= 0 {
		return false
	}
	if n := k.q.BitLen() / 8; len(digest) > n {
		digest = digest[:n]
	}
	w := new(big.Int).ModInverse(s, k.q)
	if w == nil {
		return false // q is no prime
	}
	u1 := new(big.Int).SetBytes(digest)
	u1.Mod(u1.Mul(u1, w), k.q)
	u2 := w.Mod(w.Mul(r, w), k.q)
	v := new(big.Int)
	var g, y *powers
	if k.uses.Add(1) > tableUses {
		g, y = k.powers()
	}
	if g != nil {
		room := &reducer{modulus: g.p}
		v.SetInt64(1)
		g.times(room, v, u1)
		y.times(room, v, u2)
	} else {
		v.Exp(k.g, u1, k.p)
		v.Mul(v, u2.Exp(k.y, u2, k.p))
		v.Mod(v, k.p)
	}
	v.Mod(v, k.q)
	return v.Cmp(r) == 0
}
