package create

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/ed25519"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/guix/channel/openpgp"
)

// A Signer signs commits.
type Signer interface {
	// Fingerprint is that of the key that signs: of the subkey, if it is one.
	Fingerprint() openpgp.Fingerprint
	// Public is the certificate in ASCII armour.
	Public() []byte
	// Sign makes a detached signature in ASCII armour.
	Sign(ctx context.Context, data []byte) ([]byte, error)
}

// Bounds on a user id.
const maxUserID = 200

// A Key is a new OpenPGP key.
type Key struct {
	print   openpgp.Fingerprint
	secret  ed25519.PrivateKey
	created uint32
	user    string
	body    []byte // of the public key's packet
}

// Numbers of OpenPGP: packets, subpackets, algorithms.
const (
	packetSignature = 2
	packetSecretKey = 5
	packetPublicKey = 6
	packetUserID    = 13

	subCreated   = 2
	subCiphers   = 11
	subIssuer    = 16
	subHashes    = 21
	subKeyFlags  = 27
	subFeatures  = 30
	subIssuerFPR = 33

	typeBinary   = 0x00
	typePositive = 0x13

	cipherAES256 = 9
	hashSHA256   = 8
	hashSHA512   = 10
)

// curve is the object identifier of Ed25519 in OpenPGP.
var curve = []byte{9, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}

// CheckUser holds a user id to the form NAME <ADDRESS>, which a commit's author has, too.
func CheckUser(user string) error {
	name, rest, _ := strings.Cut(user, " <")
	address, ok := strings.CutSuffix(rest, ">")
	if !ok || strings.TrimSpace(name) != name || name == "" || address == "" || !strings.Contains(address, "@") || len(user) > maxUserID || !utf8.ValidString(user) ||
		strings.ContainsAny(name, "<>") || strings.ContainsAny(address, "<> ") || strings.ContainsFunc(user, func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 }) {
		return fmt.Errorf("%.80q is not a person: want 'NAME <ADDRESS>', at most %d bytes", user, maxUserID)
	}
	return nil
}

// NewKey makes a key for a person, NAME <ADDRESS>.
func NewKey(random io.Reader, now time.Time, user string) (*Key, error) {
	if err := CheckUser(user); err != nil {
		return nil, err
	}
	if now.Unix() < 0 || now.Unix() > 1<<32-1 {
		return nil, fmt.Errorf("an OpenPGP key cannot have been made at %v", now)
	}
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, err
	}
	k := &Key{secret: ed25519.NewKeyFromSeed(seed), created: uint32(now.Unix()), user: user}
	k.body = append(binary.BigEndian.AppendUint32([]byte{4}, k.created), openpgp.AlgorithmEdDSA)
	k.body = append(k.body, curve...)
	k.body = append(k.body, number(append([]byte{0x40}, k.secret[ed25519.SeedSize:]...))...)
	h := sha1.New()
	h.Write(k.framed())
	h.Sum(k.print[:0])
	return k, nil
}

// Wipe forgets the secret.
func (k *Key) Wipe() { clear(k.secret) }

// Fingerprint is that of the key.
func (k *Key) Fingerprint() openpgp.Fingerprint { return k.print }

// framed is the public key as fingerprints and certifications hash it.
func (k *Key) framed() []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x99}, uint16(len(k.body))), k.body...)
}

// Public is the certificate.
func (k *Key) Public() []byte {
	return armor("PGP PUBLIC KEY BLOCK", append(packet(packetPublicKey, k.body), k.certified()...))
}

// certified is the user id and its certification.
func (k *Key) certified() []byte {
	var over []byte
	over = append(over, k.framed()...)
	over = append(binary.BigEndian.AppendUint32(append(over, 0xb4), uint32(len(k.user))), k.user...)
	more := subpacket(subKeyFlags, 0x03) // to certify and to sign
	more = append(more, subpacket(subCiphers, 9, 8, 7)...)
	more = append(more, subpacket(subHashes, 10, 9, 8)...)
	more = append(more, subpacket(subFeatures, 0x01)...)
	return append(packet(packetUserID, []byte(k.user)), k.signature(typePositive, k.created, more, over)...)
}

// signature makes a signature packet.
func (k *Key) signature(kind byte, when uint32, more, over []byte) []byte {
	hashed := subpacket(subIssuerFPR, append([]byte{4}, k.print[:]...)...)
	hashed = append(hashed, subpacket(subCreated, binary.BigEndian.AppendUint32(nil, when)...)...)
	hashed = append(hashed, more...)
	head := binary.BigEndian.AppendUint16([]byte{4, kind, openpgp.AlgorithmEdDSA, hashSHA512}, uint16(len(hashed)))
	head = append(head, hashed...)
	h := sha512.New()
	h.Write(over)
	h.Write(head)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(head))))
	digest := h.Sum(nil)
	sig := ed25519.Sign(k.secret, digest)
	unhashed := subpacket(subIssuer, binary.BigEndian.AppendUint64(nil, k.print.ID())...)
	head = append(binary.BigEndian.AppendUint16(head, uint16(len(unhashed))), unhashed...)
	head = append(head, digest[:2]...)
	head = append(head, number(sig[:32])...)
	return packet(packetSignature, append(head, number(sig[32:])...))
}

// Sign makes a detached signature, dated as the key is: that is when this is done.
func (k *Key) Sign(_ context.Context, data []byte) ([]byte, error) {
	return armor("PGP SIGNATURE", k.signature(typeBinary, k.created, nil, data)), nil
}

// ErrNoPassphrase says that a passphrase is empty.
var ErrNoPassphrase = errors.New("an empty passphrase protects nothing")

// Secret is the secret key in ASCII armour, for gpg --import; encrypted, unless open says that it need not be.
func (k *Key) Secret(random io.Reader, passphrase []byte, open bool) ([]byte, error) {
	secret := number(k.secret.Seed())
	defer clear(secret)
	body := bytes.Clone(k.body)
	if open {
		var sum uint16
		for _, b := range secret {
			sum += uint16(b)
		}
		body = append(append(body, 0), secret...)
		body = binary.BigEndian.AppendUint16(body, sum)
	} else {
		if len(passphrase) == 0 {
			return nil, ErrNoPassphrase
		}
		var salt [8]byte
		var vector [aes.BlockSize]byte
		for _, b := range [][]byte{salt[:], vector[:]} {
			if _, err := io.ReadFull(random, b); err != nil {
				return nil, err
			}
		}
		key := stretch(passphrase, salt[:])
		defer clear(key)
		sum := sha1.Sum(secret)
		body = append(body, 254, cipherAES256, 3, hashSHA256)
		body = append(append(append(body, salt[:]...), stretchCount), vector[:]...)
		plain := append(bytes.Clone(secret), sum[:]...)
		defer clear(plain)
		sealed, err := feedback(key, vector[:], plain)
		if err != nil {
			return nil, err
		}
		body = append(body, sealed...)
	}
	defer clear(body)
	return armor("PGP PRIVATE KEY BLOCK", append(packet(packetSecretKey, body), k.certified()...)), nil
}

// stretchCount codes how much is hashed, stretchBytes: the most that OpenPGP has.
const (
	stretchCount = 0xff
	stretchBytes = (16 + stretchCount&15) << (stretchCount>>4 + 6)
)

// stretch derives a key from a passphrase: salt and passphrase hashed over and over (RFC 4880, section 3.7.1.3).
func stretch(passphrase, salt []byte) []byte {
	// Many repetitions at once: writes of a few bytes would cost more than the hashing.
	once := len(salt) + len(passphrase)
	piece := make([]byte, 0, once*(1+(64<<10)/once))
	defer func() { clear(piece) }()
	for len(piece)+once <= cap(piece) {
		piece = append(append(piece, salt...), passphrase...)
	}
	h := sha256.New()
	left := max(stretchBytes, once)
	for ; left > len(piece); left -= len(piece) {
		h.Write(piece)
	}
	h.Write(piece[:left])
	return h.Sum(nil)
}

// feedback encrypts with a cipher in CFB mode, which the library only has for those who still read it.
func feedback(key, vector, plain []byte) ([]byte, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(plain))
	var stream [aes.BlockSize]byte
	defer clear(stream[:])
	for at := 0; at < len(plain); at += aes.BlockSize {
		block.Encrypt(stream[:], vector)
		for i := at; i < min(at+aes.BlockSize, len(plain)); i++ {
			out[i] = plain[i] ^ stream[i-at]
		}
		vector = out[at:min(at+aes.BlockSize, len(plain))]
	}
	return out, nil
}

// packet frames a packet.
func packet(tag byte, body []byte) []byte {
	b := []byte{0xc0 | tag}
	switch n := len(body); {
	case n < 192:
		b = append(b, byte(n))
	case n < 8384:
		b = append(b, byte((n-192)>>8)+192, byte(n-192))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xff), uint32(n))
	}
	return append(b, body...)
}

func subpacket(kind byte, data ...byte) []byte {
	return append([]byte{byte(len(data) + 1), kind}, data...)
}

// number frames an integer: its size in bits, and its bytes without leading zeros.
func number(b []byte) []byte {
	b = bytes.TrimLeft(b, "\x00")
	size := 0
	if len(b) > 0 {
		size = 8*(len(b)-1) + bits.Len8(b[0])
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(b)), uint16(size)), b...)
}

// armor prints data as gpg does (RFC 4880, section 6.2), with the checksum that Guix demands.
func armor(label string, data []byte) []byte {
	const width = 64
	text := base64.StdEncoding.EncodeToString(data)
	var b bytes.Buffer
	b.Grow(len(text) + len(text)/width + 2*len(label) + 64)
	fmt.Fprintf(&b, "-----BEGIN %s-----\n\n", label)
	for ; len(text) > width; text = text[width:] {
		b.WriteString(text[:width] + "\n")
	}
	sum := binary.BigEndian.AppendUint32(nil, checksum(data))
	fmt.Fprintf(&b, "%s\n=%s\n-----END %s-----\n", text, base64.StdEncoding.EncodeToString(sum[1:]), label)
	return b.Bytes()
}

// checksum is the CRC-24 of armour.
func checksum(data []byte) uint32 {
	sum := uint32(0xb704ce)
	for _, b := range data {
		sum ^= uint32(b) << 16
		for range 8 {
			if sum <<= 1; sum&(1<<24) != 0 {
				sum ^= 0x1864cfb
			}
		}
	}
	return sum
}
