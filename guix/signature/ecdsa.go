package signature

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"slices"

	"filippo.io/edwards25519"
)

// order is n as four words, the lowest first.
var order = [4]uint64{0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 0x1000000000000000}

// sign returns r and s, big-endian without leading zeros.
func sign(d *[32]byte, hash [32]byte) (r, s []byte) {
	e := reduce(leftmost(hash))
	D := reduce(*d)
	nonces := newNonces(d, e)
	for {
		k := nonces.next()
		R := edwards25519.NewIdentityPoint().ScalarBaseMult(k)
		rn := xModOrder(R)
		// s = (e + D r) / k. Invert runs a fixed chain of multiplications.
		sn := edwards25519.NewScalar().MultiplyAdd(D, rn, e)
		sn.Multiply(sn, edwards25519.NewScalar().Invert(k))
		zero := edwards25519.NewScalar()
		if rn.Equal(zero) == 0 && sn.Equal(zero) == 0 {
			return integer(rn), integer(sn)
		}
	}
}

// verify checks (r, s) against the public point Q; all of it is public.
func verify(Q *edwards25519.Point, hash [32]byte, r, s string) bool {
	rn, ok := positive(r)
	if !ok {
		return false
	}
	sn, ok := positive(s)
	if !ok {
		return false
	}
	w := edwards25519.NewScalar().Invert(sn)
	u1 := edwards25519.NewScalar().Multiply(reduce(leftmost(hash)), w)
	u2 := edwards25519.NewScalar().Multiply(rn, w)
	P := edwards25519.NewIdentityPoint().VarTimeDoubleScalarBaseMult(u2, Q, u1)
	return xModOrder(P).Equal(rn) == 1
}

// leftmost returns the leftmost 253 bits of b as a number: b >> 3.
func leftmost(b [32]byte) [32]byte {
	var out [32]byte
	for i := range b {
		out[i] = b[i] >> 3
		if i > 0 {
			out[i] |= b[i-1] << 5
		}
	}
	return out
}

// reduce returns the scalar b mod n, b being big-endian.
func reduce(b [32]byte) *edwards25519.Scalar {
	var wide [64]byte
	copy(wide[:], b[:])
	slices.Reverse(wide[:32])
	s, err := edwards25519.NewScalar().SetUniformBytes(wide[:])
	if err != nil {
		panic(err) // wide has the length it wants
	}
	return s
}

// xModOrder returns x(P) mod n. The x of the nonce's point is no secret, its
// projective coordinates are: Invert and Bytes take constant time.
func xModOrder(P *edwards25519.Point) *edwards25519.Scalar {
	X, _, Z, _ := P.ExtendedCoordinates()
	X.Multiply(X, Z.Invert(Z))
	var x [32]byte
	copy(x[:], X.Bytes())
	slices.Reverse(x[:])
	return reduce(x)
}

// integer returns s as libgcrypt prints an unsigned number.
func integer(s *edwards25519.Scalar) []byte {
	b := s.Bytes()
	slices.Reverse(b)
	return bytes.TrimLeft(b, "\x00")
}

// positive reads an unsigned big-endian number x, 0 < x < n.
func positive(x string) (*edwards25519.Scalar, bool) {
	for len(x) > 0 && x[0] == 0 {
		x = x[1:]
	}
	if x == "" || len(x) > 32 {
		return nil, false
	}
	var b [32]byte
	copy(b[32-len(x):], x)
	if !inRange(&b) {
		return nil, false
	}
	return reduce(b), true
}

// inRange reports whether 0 < b < n, b being big-endian, in constant time.
func inRange(b *[32]byte) bool {
	var borrow, any uint64
	for i, n := range order {
		word := binary.BigEndian.Uint64(b[24-8*i:])
		_, borrow = bits.Sub64(word, n, borrow)
		any |= word
	}
	return borrow == 1 && any != 0
}

// nonces generates the values k of RFC 6979, section 3.2, with qlen 253.
type nonces struct {
	k, v    [sha256.Size]byte
	started bool
}

// newNonces takes d as it is in the key file, although int2octets is meant
// for numbers below n: that is what libgcrypt does. e is below n already.
func newNonces(d *[32]byte, e *edwards25519.Scalar) *nonces {
	h1 := e.Bytes()
	slices.Reverse(h1)
	g := new(nonces)
	for i := range g.v {
		g.v[i] = 1
	}
	for _, step := range []byte{0, 1} {
		g.k = mac(&g.k, g.v[:], []byte{step}, d[:], h1)
		g.v = mac(&g.k, g.v[:])
	}
	return g
}

// next returns the next k. About half of the candidates are rejected; how
// many says nothing about the one that is not.
func (g *nonces) next() *edwards25519.Scalar {
	for {
		if g.started {
			g.k = mac(&g.k, g.v[:], []byte{0})
			g.v = mac(&g.k, g.v[:])
		}
		g.started = true
		g.v = mac(&g.k, g.v[:])
		if candidate := leftmost(g.v); inRange(&candidate) {
			return reduce(candidate)
		}
	}
}

func mac(key *[sha256.Size]byte, parts ...[]byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, key[:])
	for _, part := range parts {
		h.Write(part)
	}
	h.Sum(sum[:0])
	return sum
}
