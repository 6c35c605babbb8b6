package openpgp

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 old commits are signed with it
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	mathrand "math/rand/v2"
	"testing"
)

// TestRSA holds verifyRSA against crypto/rsa: good signatures, damaged ones, and numbers that are none.
func TestRSA(t *testing.T) {
	for _, bits := range []int{1024, 2048, 2056, 3072} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		m := newModulus(k.N)
		e := big.NewInt(int64(k.E))
		for kind := range digestInfo {
			if kind == crypto.RIPEMD160 {
				continue // crypto/rsa has the object identifier of ISO there, OpenPGP that of TeleTrusT
			}
			h := kind.New()
			h.Write([]byte("text"))
			digest := h.Sum(nil)
			sig, err := rsa.SignPKCS1v15(nil, k, kind, digest)
			if err != nil {
				t.Fatal(err)
			}
			check := func(what string, digest, sig []byte) {
				t.Helper()
				padded := sig // crypto/rsa wants the whole length, numbers of OpenPGP come without leading zeros
				if len(sig) < k.Size() {
					padded = append(make([]byte, k.Size()-len(sig)), sig...)
				}
				want := rsa.VerifyPKCS1v15(&k.PublicKey, kind, digest, padded) == nil
				if got := verifyRSA(k.N, m, e, kind, digest, sig); got != want {
					t.Errorf("%d bits, %v, %s: %v, crypto/rsa says %v", bits, kind, what, got, want)
				}
			}
			check("good", digest, sig)
			if !verifyRSA(k.N, m, e, kind, digest, sig) {
				t.Errorf("%d bits, %v: a good signature is refused", bits, kind)
			}
			for range 8 {
				bad := append([]byte(nil), sig...)
				bad[mathrand.IntN(len(bad))] ^= 1 << mathrand.IntN(8)
				check("damaged", digest, bad)
			}
			check("another digest", append([]byte{digest[0] ^ 1}, digest[1:]...), sig)
			check("zero", digest, make([]byte, k.Size()))
			check("empty", digest, nil)
			check("too large", digest, new(big.Int).Add(new(big.Int).SetBytes(sig), k.N).FillBytes(make([]byte, k.Size()+1)))
			check("the modulus", digest, k.N.Bytes())
		}
	}
}

// TestModulus holds Barrett's method against big.Int, at the edges too.
func TestModulus(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 3))
	number := func(bits int) *big.Int {
		n := new(big.Int)
		for range bits/64 + 1 {
			n.Lsh(n, 64).Or(n, new(big.Int).SetUint64(r.Uint64()))
		}
		return n.Rsh(n, uint(n.BitLen()-min(bits, n.BitLen())))
	}
	one := big.NewInt(1)
	for _, bits := range []int{1024, 1025, 1087, 1088, 2048, 3071, 4096} {
		for k := range 20 {
			n := number(bits)
			switch k {
			case 0: // all ones
				n = n.Sub(new(big.Int).Lsh(one, uint(bits)), one)
			case 1: // one, zeros, one
				n = n.Add(new(big.Int).Lsh(one, uint(bits-1)), one)
			}
			n.SetBit(n, 0, 1)
			m := newModulus(n)
			red := &reducer{modulus: m}
			values := []*big.Int{new(big.Int), one, new(big.Int).Sub(n, one), new(big.Int).Mod(number(bits), n), new(big.Int).Mod(number(bits), n)}
			for _, x := range values {
				for _, y := range values {
					want := new(big.Int).Mul(x, y)
					want.Mod(want, n)
					var got big.Int
					if red.mul(&got, x, y); got.Cmp(want) != 0 {
						t.Fatalf("%v * %v mod %v is %v, want %v", x, y, n, &got, want)
					}
				}
				if got, want := m.exp(x, big.NewInt(65537)), new(big.Int).Exp(x, big.NewInt(65537), n); got.Cmp(want) != 0 {
					t.Fatalf("%v ^ 65537 mod %v is %v", x, n, got)
				}
			}
		}
	}
}

// TestDSA holds verifyDSA against crypto/dsa.
func TestDSA(t *testing.T) {
	for _, size := range []dsa.ParameterSizes{dsa.L1024N160, dsa.L2048N256} {
		var k dsa.PrivateKey
		if err := dsa.GenerateParameters(&k.Parameters, rand.Reader, size); err != nil {
			t.Fatal(err)
		}
		if err := dsa.GenerateKey(&k, rand.Reader); err != nil {
			t.Fatal(err)
		}
		body := []byte{4, 0, 0, 0, 1, AlgorithmDSA}
		for _, n := range []*big.Int{k.P, k.Q, k.G, k.Y} {
			body = append(body, number(n)...)
		}
		key, err := parseKey(body, false)
		if err != nil || key.Bits != k.P.BitLen() {
			t.Fatal(err, key)
		}
		n := k.Q.BitLen() / 8
		for _, kind := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA512} {
			h := kind.New()
			h.Write([]byte("text"))
			digest := h.Sum(nil)
			cut := digest[:min(len(digest), n)]
			for i := range 6 {
				r, s, err := dsa.Sign(rand.Reader, &k, cut)
				if err != nil {
					t.Fatal(err)
				}
				d := append([]byte(nil), digest...)
				switch i {
				case 1:
					d[0] ^= 1
				case 2:
					r.Add(r, big.NewInt(1))
				case 3:
					s.Add(s, k.Q)
				case 4:
					r.SetInt64(0)
				case 5:
					s.SetInt64(0)
				}
				want := dsa.Verify(&k.PublicKey, d[:len(cut)], r, s)
				if got := key.verifyDSA(d, r.Bytes(), s.Bytes()); got != want || want != (i == 0) {
					t.Errorf("%d bits, %v, case %d: %v, crypto/dsa says %v", k.P.BitLen(), kind, i, got, want)
				}
			}
		}
	}
}

// number prints a number as OpenPGP does.
func number(n *big.Int) []byte {
	return append([]byte{byte(n.BitLen() >> 8), byte(n.BitLen())}, n.Bytes()...)
}
