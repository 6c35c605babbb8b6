package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"math/big"
)

const (
	p256Len           = 32          // of a coordinate, and of r and s
	p256Compressed    = 1 + p256Len // a point: 02 or 03, then x
	p256Uncompressed  = 1 + 2*p256Len
	maxP256Int        = 1 + p256Len // of r or s as an integer with a sign
	derSequence       = 0x30
	derInteger        = 0x02
	p256PointUnpacked = 0x04
)

// parseP256 parses a compressed point, the one spelling of a key of kind p256. The curve has a prime number of points, so
// whatever is on it and finite is a good key.
func parseP256(public []byte) (*ecdsa.PublicKey, error) {
	if len(public) != p256Compressed {
		return nil, errors.New("a P-256 key is a compressed point of 33 bytes")
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), public)
	if x == nil {
		return nil, errors.New("not a point of P-256 in its one spelling")
	}
	b := make([]byte, p256Uncompressed)
	b[0] = p256PointUnpacked
	x.FillBytes(b[1 : 1+p256Len])
	y.FillBytes(b[1+p256Len:])
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
}

// compressP256 compresses a point that is written out, as SSH writes it.
func compressP256(point []byte) ([]byte, error) {
	if len(point) != p256Uncompressed || point[0] != p256PointUnpacked {
		return nil, errors.New("a P-256 key of SSH is a point of 65 bytes, written out")
	}
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
		return nil, errors.New("not a point of P-256")
	}
	b := bytes.Clone(point[:p256Compressed])
	b[0] = 0x02 | point[p256Uncompressed-1]&1
	return b, nil
}

func verifyP256(public, message, sig []byte) bool {
	key, err := parseP256(public)
	if err != nil {
		return false
	}
	s, ok := parseDER(sig)
	digest := sha256.Sum256(message)
	return ok && s.verify(key, digest[:])
}

// An ecdsaSig is a signature on P-256: r and s, big-endian.
type ecdsaSig struct{ r, s [p256Len]byte }

// verify takes the lower of the two s with which a signature verifies, so that it has one spelling.
func (e ecdsaSig) verify(key *ecdsa.PublicKey, digest []byte) bool {
	return e.isLow() && ecdsa.VerifyASN1(key, digest, e.der())
}

// isLow reports whether s is at most half of the group's order.
func (e ecdsaSig) isLow() bool {
	half := new(big.Int).Rsh(elliptic.P256().Params().N, 1)
	return new(big.Int).SetBytes(e.s[:]).Cmp(half) <= 0
}

// low returns the same signature with the lower s. What signs for us, an agent or a card, makes either.
func (e ecdsaSig) low() ecdsaSig {
	if !e.isLow() {
		if s := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(e.s[:])); s.Sign() > 0 {
			s.FillBytes(e.s[:])
		}
	}
	return e
}

// appendInt appends the content of an integer, the same in DER and in an mpint of SSH: minimal, with a zero before a
// number whose first bit is set.
func appendInt(b []byte, n [p256Len]byte) []byte {
	v := bytes.TrimLeft(n[:], "\x00")
	if len(v) == 0 || v[0] >= 0x80 {
		b = append(b, 0)
	}
	return append(b, v...)
}

// parseInt reads what appendInt appends.
func parseInt(b []byte) (n [p256Len]byte, ok bool) {
	if len(b) == 0 || len(b) > maxP256Int || b[0] >= 0x80 {
		return n, false
	}
	if b[0] == 0 {
		if len(b) > 1 && b[1] < 0x80 {
			return n, false // another spelling
		}
		b = b[1:]
	}
	if len(b) > p256Len {
		return n, false
	}
	copy(n[p256Len-len(b):], b)
	return n, true
}

// der prints SEQUENCE { INTEGER r, INTEGER s }. All lengths are below 128.
func (e ecdsaSig) der() []byte {
	var body []byte
	for _, n := range [][p256Len]byte{e.r, e.s} {
		v := appendInt(nil, n)
		body = append(append(body, derInteger, byte(len(v))), v...)
	}
	return append([]byte{derSequence, byte(len(body))}, body...)
}

// parseDER reads what der prints, and nothing else.
func parseDER(b []byte) (e ecdsaSig, ok bool) {
	body, ok := cutTLV(&b, derSequence)
	if !ok || len(b) > 0 {
		return e, false
	}
	for _, n := range []*[p256Len]byte{&e.r, &e.s} {
		v, ok := cutTLV(&body, derInteger)
		if !ok {
			return e, false
		}
		if *n, ok = parseInt(v); !ok {
			return e, false
		}
	}
	return e, len(body) == 0
}

// cutTLV takes one value of the tag, of less than 128 bytes, from the front of b.
func cutTLV(b *[]byte, tag byte) (v []byte, ok bool) {
	if len(*b) < 2 || (*b)[0] != tag || (*b)[1] >= 0x80 || len(*b) < 2+int((*b)[1]) {
		return nil, false
	}
	end := 2 + int((*b)[1])
	v, *b = (*b)[2:end], (*b)[end:]
	return v, true
}
