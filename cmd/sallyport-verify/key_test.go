package main

import (
	"encoding/hex"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// slowlySound is isSound by definition: the point times the order of the group is the neutral one (RFC 8032 sections 5.1 and 5.1.4).
func slowlySound(public [32]byte) bool {
	num := func(s string) *big.Int { n, _ := new(big.Int).SetString(s, 0); return n }
	p := num("0x7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed")
	order := num("0x1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed")
	one := big.NewInt(1)
	mul := func(a, b *big.Int) *big.Int { n := new(big.Int).Mul(a, b); return n.Mod(n, p) }
	add := func(a, b *big.Int) *big.Int { n := new(big.Int).Add(a, b); return n.Mod(n, p) }
	sub := func(a, b *big.Int) *big.Int { n := new(big.Int).Sub(a, b); return n.Mod(n, p) }
	d := mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), p))

	little := public
	little[31] &= 0x7f
	slices.Reverse(little[:])
	y := new(big.Int).SetBytes(little[:])
	if y.Cmp(p) >= 0 {
		return false
	}
	yy := mul(y, y)
	x := new(big.Int).ModSqrt(mul(sub(yy, one), new(big.Int).ModInverse(add(mul(d, yy), one), p)), p)
	if x == nil || x.Sign() == 0 { // x = 0 only in the points of order 1 and 2
		return false
	}
	if x.Bit(0) != uint(public[31]>>7) {
		x.Sub(p, x)
	}
	type point struct{ x, y, z, t *big.Int } // extended coordinates
	plus := func(a, b point) point {
		m, n := mul(sub(a.y, a.x), sub(b.y, b.x)), mul(add(a.y, a.x), add(b.y, b.x))
		c, z := mul(mul(a.t, b.t), add(d, d)), mul(a.z, add(b.z, b.z))
		e, f, g, h := sub(n, m), sub(z, c), add(z, c), add(n, m)
		return point{mul(e, f), mul(g, h), mul(f, g), mul(e, h)}
	}
	self, sum := point{x, y, one, mul(x, y)}, point{new(big.Int), one, one, new(big.Int)}
	for i := order.BitLen() - 1; i >= 0; i-- {
		if sum = plus(sum, sum); order.Bit(i) == 1 {
			sum = plus(sum, self)
		}
	}
	return sum.x.Sign() == 0 && sum.y.Cmp(sum.z) == 0
}

func TestSound(t *testing.T) {
	for _, weak := range []string{ // the points of order 1, 2, 4 and 8, and spellings that are not reduced
		"0100000000000000000000000000000000000000000000000000000000000000", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000", "0000000000000000000000000000000000000000000000000000000000000080",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0100000000000000000000000000000000000000000000000000000000000080", "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		raw, err := hex.DecodeString(weak)
		must(t, err)
		if isSound([32]byte(raw)) || slowlySound([32]byte(raw)) {
			t.Errorf("%s is taken for sound", weak)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	sound := 0
	for range 200 {
		var public [32]byte
		random.Read(public[:])
		if isSound(public) != slowlySound(public) {
			t.Errorf("%x: isSound says %v", public, isSound(public))
		}
		if isSound(public) {
			sound++
		}
	}
	if sound < 4 || sound > 30 { // one in sixteen is expected
		t.Errorf("%d of 200 random strings are sound", sound)
	}
	for _, name := range []string{"a", "b", "c"} {
		if !isSound([32]byte(newKey(name).public()[1:])) {
			t.Errorf("the key of %s is not sound", name)
		}
	}
}

func BenchmarkSound(b *testing.B) {
	k := [32]byte(newKey("olga/root").public()[1:])
	for b.Loop() {
		isSound(k)
	}
}
