package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// ecdsaOf takes the two numbers from a signature of kind p256.
func ecdsaOf(t testing.TB, sig []byte) ecdsaSig {
	t.Helper()
	e, ok := parseDER(sig)
	if !ok {
		t.Fatalf("%x is no DER", sig)
	}
	return e
}

// Of a signature on P-256 there is one spelling.
func TestP256Spellings(t *testing.T) {
	d := newDevice(t, sshP256, "")
	k := d.key(t, "olga/root", false)
	text := []byte(rootTitle + "\n")
	for _, d.s = range []string{"low", "high"} {
		for i := range 20 {
			text = fmt.Appendf(nil, "%s\nversion %d\n", rootTitle, i)
			sig, err := k.Sign(ContextRoot, text)
			if err != nil {
				t.Fatal(err)
			}
			e := ecdsaOf(t, sig)
			if !e.isLow() || !k.v.Verify(text, sig) {
				t.Fatal("not a signature with the lower s")
			}
			high := e
			new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(e.s[:])).FillBytes(high.s[:])
			digest := sha256.Sum256(text)
			public, err := parseP256(k.v.Public)
			if err != nil || !ecdsa.VerifyASN1(public, digest[:], high.der()) {
				t.Fatal("the higher s is no signature at all")
			}
			if k.v.Verify(text, high.der()) {
				t.Fatal("two signatures verify")
			}
			if high.low() != e {
				t.Fatal("the higher s does not become the lower")
			}
		}
	}
	der := func(r, s string) []byte {
		b, err := hex.DecodeString("02" + fmt.Sprintf("%02x", len(r)/2) + r + "02" + fmt.Sprintf("%02x", len(s)/2) + s)
		if err != nil {
			t.Fatal(err)
		}
		return append([]byte{0x30, byte(len(b))}, b...)
	}
	if e, ok := parseDER(der("01", "0080")); !ok || e.r[31] != 1 || e.s[31] != 0x80 {
		t.Fatal("the plainest DER is not read")
	}
	for name, bad := range map[string][]byte{
		"empty":               {},
		"no sequence":         der("01", "01")[2:],
		"zero in front":       der("0001", "01"),
		"negative":            der("80", "01"),
		"no bytes":            der("", "01"),
		"33 bytes":            der("01"+strings.Repeat("00", 32), "01"),
		"one number":          {0x30, 3, 2, 1, 1},
		"three numbers":       append([]byte{0x30, 9}, bytes.Repeat([]byte{2, 1, 1}, 3)...),
		"bytes behind":        append(der("01", "01"), 0),
		"length in long form": append([]byte{0x30, 0x81}, der("01", "01")[1:]...),
		"length too great":    {0x30, 9, 2, 1, 1, 2, 1, 1},
		"number too long":     {0x30, 6, 2, 1, 1, 2, 9, 1},
		"other tag":           {0x31, 6, 2, 1, 1, 2, 1, 1},
		"indefinite length":   {0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0},
	} {
		if _, ok := parseDER(bad); ok {
			t.Errorf("%s: taken", name)
		}
	}
	for name, e := range map[string]ecdsaSig{"zeroes": {}, "r zero": {s: [32]byte{31: 1}}, "s zero": {r: [32]byte{31: 1}}} {
		if k.v.Verify(text, e.der()) {
			t.Errorf("%s verifies", name)
		}
	}
}

func TestP256Keys(t *testing.T) {
	good := newDevice(t, sshP256, "").key(t, "olga/root", false).v.Public
	x := bytes.Clone(good)
	p := elliptic.P256().Params().P
	for name, bad := range map[string][]byte{
		"empty":          {},
		"uncompressed":   append([]byte{4}, make([]byte, 64)...),
		"infinity":       {0},
		"zero in front":  append([]byte{0}, good...),
		"short":          good[:32],
		"other prefix":   append([]byte{5}, good[1:]...),
		"x not on curve": append([]byte{2}, append(make([]byte, 31), 1)...),
		"x above p":      append([]byte{2}, bytes.Repeat([]byte{0xff}, 32)...),
		"x is p":         append([]byte{2}, p.FillBytes(make([]byte, 32))...),
	} {
		if _, err := NewVKey(KeyP256, "olga/root", bad); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	x[0] ^= 1 // the other point of this x is another key
	other, err := NewVKey(KeyP256, "olga/root", x)
	if err != nil || other.Same(newDevice(t, sshP256, "").key(t, "olga/root", false).v) {
		t.Errorf("the other point: %v", err)
	}
}

// Our DER is that of the standard library's reader, which is the looser one.
func FuzzDER(f *testing.F) {
	d := newDevice(f, sshP256, "")
	for range 4 {
		f.Add(mustSSHSignature(f, d.sign(f, []byte("x"))).ecdsa.der())
	}
	f.Add([]byte{0x30, 6, 2, 1, 1, 2, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parseDER(b)
		if !ok {
			return
		}
		if !bytes.Equal(e.der(), b) {
			t.Fatalf("%x prints as %x", b, e.der())
		}
		var rs struct{ R, S *big.Int }
		rest, err := asn1.Unmarshal(b, &rs)
		if err != nil || len(rest) > 0 || rs.R.Cmp(new(big.Int).SetBytes(e.r[:])) != 0 || rs.S.Cmp(new(big.Int).SetBytes(e.s[:])) != 0 {
			t.Fatalf("%x: %v", b, err)
		}
	})
}
