package channeltest

import (
	"bytes"
	"crypto"
	"crypto/dsa" //lint:ignore SA1019 old commits are signed with it
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"

	_ "crypto/md5" // hashes that signatures of the cases name
	_ "crypto/sha256"
	_ "crypto/sha512"

	"golang.org/x/crypto/ripemd160" //lint:ignore SA1019 old signatures exist

	"sallyport/guix/channel/openpgp"
)

// Numbers of hashes in OpenPGP.
const (
	MD5    = 1
	SHA1   = 2
	RMD160 = 3
	SHA256 = 8
	SHA512 = 10
)

var hashes = map[byte]crypto.Hash{MD5: crypto.MD5, SHA1: crypto.SHA1, RMD160: crypto.RIPEMD160, SHA256: crypto.SHA256, SHA512: crypto.SHA512}

// ecdsaAlgorithm is that of keys that Guix cannot use.
const ecdsaAlgorithm = 19

// A Key is an OpenPGP key with its secret part.
type Key struct {
	Name        string
	Algorithm   byte
	Created     uint32
	Fingerprint openpgp.Fingerprint
	body        []byte
	sign        func(hash crypto.Hash, digest []byte) [][]byte // the numbers of a signature
}

func newKey(name string, algorithm byte, created uint32, material []byte, sign func(crypto.Hash, []byte) [][]byte) *Key {
	k := &Key{Name: name, Algorithm: algorithm, Created: created, sign: sign}
	k.body = append(binary.BigEndian.AppendUint32([]byte{4}, created), algorithm)
	k.body = append(k.body, material...)
	h := sha1.New()
	h.Write(k.framed())
	h.Sum(k.Fingerprint[:0])
	return k
}

func (k *Key) framed() []byte {
	return append([]byte{0x99, byte(len(k.body) >> 8), byte(len(k.body))}, k.body...)
}

// Ed25519 makes a key from 32 bytes of random.
func Ed25519(name string, created uint32, random io.Reader) (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, err
	}
	secret := ed25519.NewKeyFromSeed(seed)
	public := append([]byte{0x40}, secret.Public().(ed25519.PublicKey)...)
	material := append([]byte{9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}, mpi(public)...)
	return newKey(name, openpgp.AlgorithmEdDSA, created, material, func(_ crypto.Hash, digest []byte) [][]byte {
		sig := ed25519.Sign(secret, digest)
		return [][]byte{sig[:32], sig[32:]}
	}), nil
}

// RSA makes a key.
func RSA(name string, created uint32, bits int, random io.Reader) (*Key, error) {
	secret, err := rsa.GenerateKey(random, bits)
	if err != nil {
		return nil, err
	}
	material := append(mpi(secret.N.Bytes()), mpi(big.NewInt(int64(secret.E)).Bytes())...)
	return newKey(name, openpgp.AlgorithmRSA, created, material, func(hash crypto.Hash, digest []byte) [][]byte {
		if hash == crypto.RIPEMD160 { // OpenPGP has another object identifier there than crypto/rsa
			hash, digest = 0, append([]byte{0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x24, 0x03, 0x02, 0x01, 0x05, 0x00, 0x04, 0x14}, digest...)
		}
		sig, err := rsa.SignPKCS1v15(nil, secret, hash, digest)
		if err != nil {
			panic(err) // a hash that the case must not use
		}
		return [][]byte{sig}
	}), nil
}

// DSA makes a key of 1024 bits, since larger parameters take long to find.
func DSA(name string, created uint32, random io.Reader) (*Key, error) {
	var secret dsa.PrivateKey
	if err := dsa.GenerateParameters(&secret.Parameters, random, dsa.L1024N160); err != nil {
		return nil, err
	}
	if err := dsa.GenerateKey(&secret, random); err != nil {
		return nil, err
	}
	var material []byte
	for _, n := range []*big.Int{secret.P, secret.Q, secret.G, secret.Y} {
		material = append(material, mpi(n.Bytes())...)
	}
	return newKey(name, openpgp.AlgorithmDSA, created, material, func(_ crypto.Hash, digest []byte) [][]byte {
		r, s, err := dsa.Sign(random, &secret, digest[:min(len(digest), secret.Q.BitLen()/8)])
		if err != nil {
			panic(err)
		}
		return [][]byte{r.Bytes(), s.Bytes()}
	}), nil
}

// ECDSA makes something that looks like a key on P-256 and signs nothing.
func ECDSA(name string, created uint32) *Key {
	point := append([]byte{4}, bytes.Repeat([]byte{7}, 64)...)
	material := append([]byte{8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, mpi(point)...)
	return newKey(name, ecdsaAlgorithm, created, material, func(crypto.Hash, []byte) [][]byte {
		return [][]byte{bytes.Repeat([]byte{5}, 32), bytes.Repeat([]byte{6}, 32)}
	})
}

func mpi(b []byte) []byte {
	b = bytes.TrimLeft(b, "\x00")
	bits := 0
	if len(b) > 0 {
		bits = (len(b)-1)*8 + big.NewInt(int64(b[0])).BitLen()
	}
	return append([]byte{byte(bits >> 8), byte(bits)}, b...)
}

// Form says how a signature is made where that is not as gpg makes it.
type Form struct {
	Version    byte // 4
	Type       byte
	Hash       byte // SHA256
	Created    uint32
	NoPrint    bool   // no fingerprint of the issuer, its key id alone
	NoID       bool   // no key id
	WrongID    bool   // a key id that is not that of the fingerprint
	Hashed     []byte // further subpackets
	Unhashed   []byte
	Numbers    func([][]byte) [][]byte // change the numbers
	NoCreation bool
}

// Subpacket makes one.
func Subpacket(kind byte, data []byte) []byte {
	return append([]byte{byte(len(data) + 1), kind}, data...)
}

// Signature makes a signature packet over data.
func (k *Key) Signature(f Form, data ...[]byte) []byte {
	if f.Version == 0 {
		f.Version = 4
	}
	if f.Hash == 0 {
		f.Hash = SHA256
	}
	id := binary.BigEndian.AppendUint64(nil, k.Fingerprint.ID())
	var head, tail []byte // of the packet; tail follows the hash's beginning
	h := hashes[f.Hash].New()
	for _, d := range data {
		h.Write(d)
	}
	if f.Version == 3 {
		hashed := binary.BigEndian.AppendUint32([]byte{f.Type}, f.Created)
		h.Write(hashed)
		head = append([]byte{3, 5}, hashed...)
		head = append(append(head, id...), k.Algorithm, f.Hash)
	} else {
		var hashed, unhashed []byte
		if !f.NoPrint {
			hashed = append(hashed, Subpacket(33, append([]byte{4}, k.Fingerprint[:]...))...)
		}
		if !f.NoCreation {
			hashed = append(hashed, Subpacket(2, binary.BigEndian.AppendUint32(nil, f.Created))...)
		}
		hashed = append(hashed, f.Hashed...)
		if f.WrongID {
			id[0] ^= 1
		}
		if !f.NoID {
			unhashed = append(unhashed, Subpacket(16, id)...)
		}
		unhashed = append(unhashed, f.Unhashed...)
		head = append([]byte{f.Version, f.Type, k.Algorithm, f.Hash, byte(len(hashed) >> 8), byte(len(hashed))}, hashed...)
		h.Write(head)
		h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
		head = append(append(head, byte(len(unhashed)>>8), byte(len(unhashed))), unhashed...)
	}
	digest := h.Sum(nil)
	tail = append(tail, digest[:2]...)
	numbers := k.sign(hashes[f.Hash], digest)
	if f.Numbers != nil {
		numbers = f.Numbers(numbers)
	}
	for _, n := range numbers {
		tail = append(tail, mpi(n)...)
	}
	return Packet(2, append(head, tail...))
}

// Packet frames a packet in the new format.
func Packet(tag byte, body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0xc0 | tag, 0xff}, uint32(len(body))), body...)
}

// Certificate says what the file of a key holds.
type Certificate struct {
	Lifetime   uint32 // in seconds; 0 for ever
	Subkeys    []*Key
	Revoked    uint32 // when; 0 for never
	Reason     byte   // of the revocation
	NoReason   bool
	Extra      []byte // packets at the end
	SelfHashed []byte // subpackets of the self-signature
	Flags      byte   // what the key is for; 0 for certifying and signing
	Bound      bool   // the subkeys sign that they belong to it
}

// File makes the file of a key.
func (k *Key) File(c Certificate) []byte {
	b := Packet(6, k.body)
	if c.Revoked != 0 {
		f := Form{Type: 0x20, Created: c.Revoked}
		if !c.NoReason {
			f.Hashed = Subpacket(29, append([]byte{c.Reason}, "said so"...))
		}
		b = append(b, k.Signature(f, k.framed())...)
	}
	uid := fmt.Appendf(nil, "%s <%s@example.org>", k.Name, k.Name)
	b = append(b, Packet(13, uid)...)
	flags := c.Flags
	if flags == 0 {
		flags = 3
	}
	self := Form{Type: 0x13, Created: k.Created, Hashed: append(Subpacket(27, []byte{flags}), c.SelfHashed...)}
	if c.Lifetime > 0 {
		self.Hashed = append(self.Hashed, Subpacket(9, binary.BigEndian.AppendUint32(nil, c.Lifetime))...)
	}
	framed := append(binary.BigEndian.AppendUint32([]byte{0xb4}, uint32(len(uid))), uid...)
	b = append(b, k.Signature(self, k.framed(), framed)...)
	for _, s := range c.Subkeys {
		b = append(b, Packet(14, s.body)...)
		f := Form{Type: 0x18, Created: s.Created, Hashed: Subpacket(27, []byte{2})}
		if c.Bound {
			f.Unhashed = Subpacket(32, s.Signature(Form{Type: 0x19, Created: s.Created}, k.framed(), s.framed())[6:])
		}
		b = append(b, k.Signature(f, k.framed(), s.framed())...)
	}
	return append(b, c.Extra...)
}

// Armor wraps data as gpg does.
func Armor(kind string, data []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "-----BEGIN PGP %s-----\n\n", kind)
	text := base64.StdEncoding.EncodeToString(data)
	for len(text) > 64 {
		b.WriteString(text[:64] + "\n")
		text = text[64:]
	}
	sum := crc24(data)
	fmt.Fprintf(&b, "%s\n=%s\n-----END PGP %s-----\n", text, base64.StdEncoding.EncodeToString([]byte{byte(sum >> 16), byte(sum >> 8), byte(sum)}), kind)
	return b.Bytes()
}

// crc24 is the checksum of armour, bit by bit as RFC 4880 has it.
func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc
}

var _ = ripemd160.Size // linked for its hash
