package openpgp

import (
	"crypto"
	"encoding/binary"
	"unicode/utf8"

	// Hashes that signatures may name.
	_ "crypto/sha1"
	_ "crypto/sha256"
	_ "crypto/sha512"

	_ "golang.org/x/crypto/ripemd160" //lint:ignore SA1019 old signatures exist
)

// Algorithms of keys.
const (
	AlgorithmRSA   = 1
	AlgorithmDSA   = 17
	AlgorithmEdDSA = 22
)

// Types of signatures.
const (
	TypeBinary           = 0x00
	TypeText             = 0x01
	typeCertGeneric      = 0x10
	typeCertPositive     = 0x13
	typeSubkeyBinding    = 0x18
	typePrimaryBinding   = 0x19
	typeDirect           = 0x1f
	typeKeyRevocation    = 0x20
	typeSubkeyRevocation = 0x28
)

// hashes by their numbers in OpenPGP, all that Guix knows.
var hashes = [...]struct {
	name string
	hash crypto.Hash
}{
	1: {"md5", 0}, // never verified, whatever else is linked into the program
	2: {"sha1", crypto.SHA1}, 3: {"rmd160", crypto.RIPEMD160},
	8: {"sha256", crypto.SHA256}, 9: {"sha384", crypto.SHA384}, 10: {"sha512", crypto.SHA512}, 11: {"sha224", crypto.SHA224},
}

// A Signature is a signature packet.
type Signature struct {
	Version   byte // 3 or 4
	Type      byte
	Algorithm byte // of the key
	Hash      byte // its number

	Created    int64 // seconds; 0 if it is not said
	Lifetime   uint32
	Issuer     uint64 // key id
	HasIssuer  bool
	Print      []byte // fingerprint of the issuer: 20 bytes, or 32 of a version that Guix does not use; or nil
	Trailing   bool   // more packets follow
	keyLife    uint32 // how long the key is valid, of a self-signature
	reason     int    // of a revocation; -1 if it is not said
	hashed     []byte // what of the packet is hashed after the data
	r, s       []byte
	primaryUID bool
	flags      []byte // what a key is for, of a self-signature; nil if it is not said
	embedded   []byte // the first signature within this one
}

// HashName returns the name of the hash as Guix prints it.
func (s *Signature) HashName() string { return hashes[s.Hash].name }

// ParseArmoredSignature reads the first packet of a detached signature in ASCII armour.
func ParseArmoredSignature(text []byte) (*Signature, error) {
	data, err := Dearmor(text)
	if err != nil {
		return nil, err
	}
	tag, body, rest, err := packet(data)
	if err != nil {
		return nil, err
	}
	if tag != tagSignature {
		return nil, fail(CodeSignature, "a packet of kind %d, not a signature", tag)
	}
	s, err := parseSignature(body)
	if err != nil {
		return nil, err
	}
	s.Trailing = len(rest) > 0
	return s, nil
}

func parseSignature(b []byte) (*Signature, error) {
	short := fail(CodeSignature, "a signature that ends early")
	if len(b) < 1 {
		return nil, short
	}
	s := &Signature{Version: b[0], reason: -1}
	switch s.Version {
	case 3:
		if len(b) < 19 {
			return nil, short
		}
		if b[1] != 5 {
			return nil, fail(CodeSignature, "%d hashed bytes in a signature of version 3", b[1])
		}
		s.Type, s.Algorithm, s.Hash = b[2], b[15], b[16]
		s.Created = int64(binary.BigEndian.Uint32(b[3:]))
		s.Issuer, s.HasIssuer = binary.BigEndian.Uint64(b[7:]), true
		s.hashed = b[2:7:7]
		b = b[19:]
	case 4:
		if len(b) < 6 {
			return nil, short
		}
		s.Type, s.Algorithm, s.Hash = b[1], b[2], b[3]
		n := 6 + int(binary.BigEndian.Uint16(b[4:]))
		if len(b) < n+2 {
			return nil, short
		}
		m := n + 2 + int(binary.BigEndian.Uint16(b[n:]))
		if len(b) < m+2 {
			return nil, short
		}
		s.hashed = append(make([]byte, 0, n+6), b[:n]...)
		s.hashed = append(s.hashed, 4, 0xff)
		s.hashed = binary.BigEndian.AppendUint32(s.hashed, uint32(n))
		if err := s.subpackets(b[6:n], true); err != nil {
			return nil, err
		}
		if err := s.subpackets(b[n+2:m], false); err != nil {
			return nil, err
		}
		if s.HasIssuer && s.Print != nil && binary.BigEndian.Uint64(s.Print[len(s.Print)-8:]) != s.Issuer {
			return nil, fail(CodeSignature, "the issuer's key id is not that of its fingerprint")
		}
		b = b[m+2:]
	default:
		return nil, fail(CodeUnsupported, "a signature of version %d", s.Version)
	}
	if int(s.Hash) >= len(hashes) || hashes[s.Hash].name == "" {
		return nil, fail(CodeSignature, "hash algorithm %d", s.Hash)
	}
	var err error
	switch s.Algorithm {
	case AlgorithmRSA:
		s.s, _, err = mpi(b)
	case AlgorithmDSA, AlgorithmEdDSA:
		if s.r, b, err = mpi(b); err == nil {
			s.s, _, err = mpi(b)
		}
	}
	return s, err
}

// Subpackets by their numbers, those that Guix knows.
const (
	subCreated      = 2
	subExpires      = 3
	subTrust        = 5
	subRevocable    = 7
	subKeyExpires   = 9
	subSymmetric    = 11
	subIssuer       = 16
	subNotation     = 20
	subHashes       = 21
	subCompression  = 22
	subServerPrefs  = 23
	subServer       = 24
	subPrimaryUID   = 25
	subPolicy       = 26
	subFlags        = 27
	subSigner       = 28
	subReason       = 29
	subFeatures     = 30
	subEmbedded     = 32
	subIssuerPrint  = 33
	subCriticalFlag = 0x80
)

// subpackets reads one of the two areas. What Guix cannot read there makes it refuse the signature, and a keyring with it, so it is refused here.
// Of two of one type the first counts, as for Guix, and what says something about a key counts only where it is signed.
func (s *Signature) subpackets(b []byte, signed bool) error {
	for len(b) > 0 {
		n, rest, ok := length(b)
		if !ok || n == 0 || n > uint64(len(rest)) {
			return fail(CodeSignature, "a subpacket that is not well formed")
		}
		kind, data := rest[0], rest[1:n]
		b = rest[n:]
		need := func(k int) error {
			if len(data) < k {
				return fail(CodeSignature, "subpacket %d ends early", kind&0x7f)
			}
			return nil
		}
		var err error
		switch kind &^ subCriticalFlag {
		case subCreated:
			if err = need(4); err == nil && signed && s.Created == 0 {
				s.Created = int64(binary.BigEndian.Uint32(data))
			}
		case subExpires:
			if err = need(4); err == nil && signed && s.Lifetime == 0 {
				s.Lifetime = binary.BigEndian.Uint32(data)
			}
		case subKeyExpires:
			if err = need(4); err == nil && signed && s.keyLife == 0 {
				s.keyLife = binary.BigEndian.Uint32(data)
			}
		case subTrust, subRevocable:
			err = need(1)
		case subPrimaryUID:
			if err = need(1); err == nil && signed {
				s.primaryUID = data[0] != 0
			}
		case subIssuer:
			if err = need(8); err == nil && !s.HasIssuer {
				s.Issuer, s.HasIssuer = binary.BigEndian.Uint64(data), true
			}
		case subIssuerPrint:
			if err = need(1); err != nil {
				break
			}
			size := map[byte]int{4: 20, 5: 32}[data[0]]
			if size == 0 {
				return fail(CodeSignature, "the fingerprint of a key of version %d", data[0])
			}
			if err = need(1 + size); err == nil && s.Print == nil {
				s.Print = data[1 : 1+size]
			}
		case subNotation:
			if err = need(8); err != nil {
				break
			}
			name, value := int(binary.BigEndian.Uint16(data[4:])), int(binary.BigEndian.Uint16(data[6:]))
			if err = need(8 + name + value); err != nil {
				break
			}
			if !utf8.Valid(data[8:8+name]) || data[0]&0x80 != 0 && !utf8.Valid(data[8+name:8+name+value]) {
				err = fail(CodeSignature, "a notation that is not UTF-8")
			}
		case subHashes:
			for _, h := range data {
				if int(h) >= len(hashes) || hashes[h].name == "" {
					return fail(CodeSignature, "hash algorithm %d among the preferred ones", h)
				}
			}
		case subServer, subPolicy, subSigner:
			if !utf8.Valid(data) {
				err = fail(CodeSignature, "subpacket %d is not UTF-8", kind&0x7f)
			}
		case subReason:
			if err = need(1); err == nil {
				if signed && s.reason < 0 {
					s.reason = int(data[0])
				}
				if !utf8.Valid(data[1:]) {
					err = fail(CodeSignature, "a reason that is not UTF-8")
				}
			}
		case subEmbedded:
			// A signature of version 5 or 6 in there is passed over, as by Guix.
			if err = need(1); err == nil && (data[0] == 3 || data[0] == 4) {
				if err = embedded(data); err == nil && s.embedded == nil {
					s.embedded = data
				}
			}
		case subFlags:
			if signed && s.flags == nil {
				s.flags = append([]byte{}, data...)
			}
		case subSymmetric, subCompression, subServerPrefs, subFeatures:
		default:
			if kind&subCriticalFlag != 0 {
				err = fail(CodeSignature, "the critical subpacket %d is not known", kind&0x7f)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// embedded checks a signature within a signature; those within it, which have no business there, are refused, so that this ends.
func embedded(data []byte) error {
	if data[0] == 4 && len(data) >= 6 {
		n := 6 + int(binary.BigEndian.Uint16(data[4:]))
		if len(data) >= n+2 {
			m := n + 2 + int(binary.BigEndian.Uint16(data[n:]))
			for _, area := range [][2]int{{6, n}, {n + 2, m}} {
				for b := data[min(area[0], len(data)):min(area[1], len(data))]; len(b) > 0; {
					k, rest, ok := length(b)
					if !ok || k == 0 || k > uint64(len(rest)) {
						break // parseSignature says so
					}
					if rest[0]&^subCriticalFlag == subEmbedded {
						return fail(CodeSignature, "a signature embedded in an embedded signature")
					}
					b = rest[k:]
				}
			}
		}
	}
	_, err := parseSignature(data)
	return err
}
