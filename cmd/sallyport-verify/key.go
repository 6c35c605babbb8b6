package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Kinds of keys in a vkey and under a note, by their type byte.
const (
	algEd25519     = 1
	algCosignature = 4 // C2SP tlog-cosignature: the signature has the time before it
)

// key is a public key: one key line of a root, or a vkey from the command line.
type key struct {
	context, owner string
	public         [32]byte
	name           string // of a vkey
	hash           uint32
	alg            byte
	number         [8]byte // minisign's, of sums
}

func parseVKey(s string) (*key, bool) {
	name, rest, _ := strings.Cut(s, "+")
	_, b64, _ := strings.Cut(rest, "+")
	raw, ok := decode64(b64)
	if !ok || len(raw) != 33 || raw[0] != algEd25519 && raw[0] != algCosignature {
		return &key{}, false
	}
	k := &key{name: name, alg: raw[0], public: [32]byte(raw[1:])}
	h := sha256.Sum256(slices.Concat([]byte(name+"\n"), raw))
	k.hash = binary.BigEndian.Uint32(h[:])
	return k, k.id()+"+"+b64 == s && isSound(k.public) // one spelling, and the hash is that of the key
}

func (k *key) id() string { return fmt.Sprintf("%s+%08x", k.name, k.hash) }

func (k *key) verify(message, sig []byte) bool {
	if k.alg == algCosignature {
		if len(sig) != 8+ed25519.SignatureSize || binary.BigEndian.Uint64(sig) > math.MaxInt64 {
			return false
		}
		message = append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", binary.BigEndian.Uint64(sig)), message...)
		sig = sig[8:]
	}
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k.public[:], message, sig)
}

// cosigned is the time in a cosignature that was verified.
func (s signature) cosigned() string {
	return time.Unix(int64(binary.BigEndian.Uint64(s.sig)), 0).UTC().Format(dateForm)
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
