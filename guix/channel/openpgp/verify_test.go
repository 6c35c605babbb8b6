package openpgp

import (
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 old commits are signed with it
	"crypto/rand"
	"crypto/rsa"
	"math/big"
	mathrand "math/rand/v2"
	"sync/atomic"
	"testing"
)

// TestRSA holds verifyRSA against crypto/rsa: good signatures, damaged ones, and numbers that are none.
func TestRSA(t *testing.T) {
	for _, bits := range []int{1024, 2048, 2056} {
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
	for _, bits := range []int{1024, 1025, 1087, 1088, 1984, 2048, 2112, 3071, 4096, 4160} {
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
	var small dsa.Parameters
	if err := dsa.GenerateParameters(&small, rand.Reader, dsa.L1024N160); err != nil {
		t.Fatal(err)
	}
	for _, params := range []dsa.Parameters{small, {P: hexNumber(largeP), Q: hexNumber(largeQ), G: hexNumber(largeG)}} {
		k := dsa.PrivateKey{PublicKey: dsa.PublicKey{Parameters: params}}
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
		// First without a memory, then with one.
		n := k.Q.BitLen() / 8
		key.tables = new(atomic.Int32)
		key.tables.Store(1)
		for _, kind := range []crypto.Hash{crypto.SHA1, crypto.SHA256, crypto.SHA512} {
			h := kind.New()
			h.Write([]byte("text"))
			digest := h.Sum(nil)
			cut := digest[:min(len(digest), n)]
			for i := range 3 * 6 {
				i %= 6
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
		if g, _ := key.powers(); g == nil || key.uses.Load() <= tableUses {
			t.Error("the powers were not made")
		}
		other, err := parseKey(body, false)
		if err != nil {
			t.Fatal(err)
		}
		other.tables = key.tables
		if g, _ := other.powers(); g != nil {
			t.Error("a keyring has more tables than its bound")
		}
	}
}

// number prints a number as OpenPGP does.
func number(n *big.Int) []byte {
	return append([]byte{byte(n.BitLen() >> 8), byte(n.BitLen())}, n.Bytes()...)
}

func hexNumber(s string) *big.Int {
	n, _ := new(big.Int).SetString(s, 16)
	return n
}

// Parameters of 2048 and 256 bits, which take seconds to find: made once with dsa.GenerateParameters.
const (
	largeP = "ce2fb2b85ffb676c85e75d35ee2c6019cfa82603af92c531778fb1068b84a65c1455d7fe0e408690fcca4418319572d161bd588933d1b9cd1e4b3ef133270698" +
		"eccb213ed2c116e32dfd3303ce405c32768420594baeb963dffb6e732c26c08b2a5a11c765c27dd29296e8edb4a8091845f42fe6b7aba5e8430d6e7b03df1f30" +
		"4466902ca6c655196c33760aabcb7d082484feb5f072c21fe810753a699a080a156b9f0c17c9795d38d2770c4127e5ca7d634fbc14555306482e6122872ab62e" +
		"70e7c52940932f54e2450d78216ac4716a0c531b44fd9a3643d58659bb0f12c497c7e7912a41ec587acdc6258dbe82900ff10d81768ed44c1fc668001b0b6ab3"
	largeQ = "df62b1f619479406ad2c9ee9555a8f0079685591421b565fce6b3031f376e3c5"
	largeG = "3ef7bc8bdfa2f58a8793e46d23edd0dc871f905f14036e700e573a239012947b776bb07360ba08a8bebba85ebe11e0cb98caf3e829280554da6da12077f8105d" +
		"0e6b2131c1227beb93e12eac672abcac206cacd832af13de354de39045f05e8229f3d9734a99698f92519215e63656a55e6cc44d56a039bea5cec9ed17cce6f2" +
		"351823eb32c3ea7e9d400048bfe234c010863190e94fe81000355244d7bafe83d84f79d0f953375c1a839b259660078f77b8cf30e640e783283a14fd4c29b991" +
		"f4b1fdbfb892a2b2f008b3561b18388bb50746cfd52c8540f8332e5be3b5ce27710b317fc19b02093819a06381290e13ffcbf63e5ec34ae10196db286af6d2bf"
)
