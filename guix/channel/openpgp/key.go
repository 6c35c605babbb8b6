package openpgp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// A Fingerprint is that of a key of version 4.
type Fingerprint [20]byte

// String prints f in ten groups of four digits, as gpg and Guix do.
func (f Fingerprint) String() string {
	var b strings.Builder
	for i := 0; i < len(f); i += 2 {
		switch i {
		case 0:
		case 10:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%02X%02X", f[i], f[i+1])
	}
	return b.String()
}

// Hex prints f as 40 lower-case digits.
func (f Fingerprint) Hex() string { return hex.EncodeToString(f[:]) }

// ID is the key id: the last 64 bits.
func (f Fingerprint) ID() uint64 { return binary.BigEndian.Uint64(f[12:]) }

// A Key is a public key or subkey.
type Key struct {
	Fingerprint Fingerprint
	Created     int64
	Algorithm   byte
	Subkey      bool
	Bits        int    // of the modulus or curve; 0 if the key is of no use
	File        string // of the keyring

	body    []byte // of its packet
	block   *block // of the certificate that it belongs to
	n, e    *big.Int
	p, q    *big.Int
	g, y    *big.Int
	point   ed25519.PublicKey
	modulus func() *modulus       // of n, made once
	powers  func() (g, y *powers) // of g and y, made once; nil where there are enough
	uses    atomic.Int32          // signatures that were verified
	tables  *atomic.Int32         // how many keys of the keyring may still have powers made
	binding []*Signature          // of a subkey: bindings and revocations
	status  func() Status
}

// A block is one certificate: a primary key, its subkeys, and what is said about them.
type block struct {
	primary *Key
	direct  []*Signature // over the primary key alone
	users   []user
}

type user struct {
	prefix byte // of what is hashed: a user id, or an attribute
	id     []byte
	sigs   []*Signature
}

// User returns the first user id of the key's certificate, or "".
func (k *Key) User() string {
	for _, u := range k.block.users {
		if u.prefix == userIDPrefix {
			return string(u.id)
		}
	}
	return ""
}

// Primary returns the key itself, or that of which it is a subkey.
func (k *Key) Primary() *Key { return k.block.primary }

const (
	userIDPrefix    = 0xb4
	attributePrefix = 0xd1
)

// Curves by their object identifiers.
var (
	oidEd25519    = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01}
	oidCurve25519 = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0x97, 0x55, 0x01, 0x05, 0x01}
)

// parseKey reads a public key packet; nil without an error for a version that Guix passes over.
func parseKey(body []byte, subkey bool) (*Key, error) {
	if len(body) < 1 {
		return nil, fail(CodeKey, "an empty key")
	}
	if body[0] != 4 {
		return nil, nil
	}
	if len(body) < 6 || len(body) > 0xffff {
		return nil, fail(CodeKey, "a key of %d bytes", len(body))
	}
	k := &Key{Created: int64(binary.BigEndian.Uint32(body[1:])), Algorithm: body[5], Subkey: subkey, body: body}
	h := sha1.New()
	h.Write([]byte{0x99, byte(len(body) >> 8), byte(len(body))})
	h.Write(body)
	h.Sum(k.Fingerprint[:0])
	b := body[6:]
	number := func(n **big.Int) (err error) {
		var m []byte
		if m, b, err = mpi(b); err == nil {
			*n = new(big.Int).SetBytes(m)
		}
		return err
	}
	numbers := func(all ...**big.Int) error {
		for _, n := range all {
			if err := number(n); err != nil {
				return err
			}
		}
		return nil
	}
	switch k.Algorithm {
	case AlgorithmRSA:
		if err := numbers(&k.n, &k.e); err != nil {
			return nil, err
		}
		if len(b) == 0 && usableRSA(k.n, k.e) {
			k.Bits = k.n.BitLen()
			k.modulus = sync.OnceValue(func() *modulus { return newModulus(k.n) })
		}
	case AlgorithmDSA:
		if err := numbers(&k.p, &k.q, &k.g, &k.y); err != nil {
			return nil, err
		}
		if len(b) == 0 && usableDSA(k.p, k.q, k.g, k.y) {
			k.Bits = k.p.BitLen()
			k.powers = sync.OnceValues(func() (g, y *powers) {
				if k.tables == nil || k.tables.Add(-1) < 0 {
					return nil, nil
				}
				p := newModulus(k.p)
				return newPowers(k.g, p, k.q.BitLen()), newPowers(k.y, p, k.q.BitLen())
			})
		}
	case AlgorithmEdDSA:
		if len(b) < 1 || len(b) < 1+int(b[0]) {
			return nil, fail(CodeKey, "a key that ends early")
		}
		oid := b[1 : 1+b[0]]
		b = b[1+b[0]:]
		q, rest, err := mpi(b)
		if err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(oid, oidEd25519):
			if len(q) == 33 && q[0] == 0x40 && len(rest) == 0 {
				k.point, k.Bits = ed25519.PublicKey(q[1:]), 256
			}
		case bytes.Equal(oid, oidCurve25519): // of no use for signatures
		default:
			return nil, fail(CodeKey, "an EdDSA key on the curve %x", oid)
		}
	}
	return k, nil
}

// A Status says until when a key was to be used, by the word of its owner.
type Status struct {
	Expires int64 // seconds; 0 means never
	Revoked int64 // when; 0 means never
	Hard    bool  // the revocation holds from the beginning: the key was compromised, or no reason is given
}

// Status evaluates the self-signatures of the key and, for a subkey, those of its primary key. Guix looks at none of this. A keyring is not
// authenticated, so who made it may have left out what the owner said; but he cannot have added to it.
func (k *Key) Status() Status { return k.status() }

func (k *Key) evaluate() Status {
	var st Status
	var latest int64 = -1
	primary := k.block.primary
	life := func(s *Signature) {
		if s.Created >= latest {
			latest = s.Created
			st.Expires = 0
			if s.keyLife > 0 {
				st.Expires = k.Created + int64(s.keyLife)
			}
		}
	}
	revoke := func(s *Signature) {
		if st.Revoked == 0 || s.Created < st.Revoked {
			st.Revoked = max(s.Created, 1)
		}
		st.Hard = st.Hard || s.reason < 1 || s.reason == 2
	}
	if k.Subkey {
		for _, s := range k.binding {
			if !primary.made(s, keyText(primary), keyText(k)) {
				continue
			}
			switch s.Type {
			case typeSubkeyBinding:
				life(s)
			case typeSubkeyRevocation:
				revoke(s)
			}
		}
		over := primary.Status()
		if over.Expires != 0 && (st.Expires == 0 || over.Expires < st.Expires) {
			st.Expires = over.Expires
		}
		if over.Revoked != 0 && (st.Revoked == 0 || over.Revoked < st.Revoked) {
			st.Revoked = over.Revoked
		}
		st.Hard = st.Hard || over.Hard
		return st
	}
	for _, s := range k.block.direct {
		if s.Type != typeDirect && s.Type != typeKeyRevocation || !k.made(s, keyText(k)) {
			continue
		}
		if s.Type == typeDirect {
			life(s)
		} else {
			revoke(s)
		}
	}
	for _, u := range k.block.users {
		for _, s := range u.sigs {
			if s.Type >= typeCertGeneric && s.Type <= typeCertPositive && k.made(s, keyText(k), userText(u)) {
				life(s)
			}
		}
	}
	return st
}

const maySign = 0x02 // of the flags of a key

// MaySign reports whether the owner says that the key is for signing, in the last self-signature that says anything about it; true if none does. Of a
// subkey it demands more: that its primary key is bound to it by a good signature, and it to the primary key by one within that, so that nobody can
// take another's subkey for his own. Guix asks none of this.
func (k *Key) MaySign() bool {
	var flags []byte
	latest, bound := int64(-1), !k.Subkey
	take := func(s *Signature) {
		if s.flags != nil && s.Created >= latest {
			latest, flags = s.Created, s.flags
		}
	}
	primary := k.block.primary
	if k.Subkey {
		for _, s := range k.binding {
			if s.Type != typeSubkeyBinding || s.embedded == nil || !primary.made(s, keyText(primary), keyText(k)) {
				continue
			}
			back, err := parseSignature(s.embedded)
			if err != nil || back.Type != typePrimaryBinding || !k.made(back, keyText(primary), keyText(k)) {
				continue
			}
			bound = true
			take(s)
		}
	} else {
		for _, s := range k.block.direct {
			if s.Type == typeDirect && k.made(s, keyText(k)) {
				take(s)
			}
		}
		for _, u := range k.block.users {
			for _, s := range u.sigs {
				if s.Type >= typeCertGeneric && s.Type <= typeCertPositive && k.made(s, keyText(k), userText(u)) {
					take(s)
				}
			}
		}
	}
	return bound && (flags == nil || len(flags) > 0 && flags[0]&maySign != 0)
}

// made reports whether k made s over what is given.
func (k *Key) made(s *Signature, over ...[]byte) bool {
	if s.Print != nil && !bytes.Equal(s.Print, k.Fingerprint[:]) || s.HasIssuer && s.Issuer != k.Fingerprint.ID() || s.Print == nil && !s.HasIssuer {
		return false
	}
	return k.verify(s, over) == nil
}

func keyText(k *Key) []byte {
	return append([]byte{0x99, byte(len(k.body) >> 8), byte(len(k.body))}, k.body...)
}

func userText(u user) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{u.prefix}, uint32(len(u.id))), u.id...)
}

// A Keyring holds keys by fingerprint and by key id.
type Keyring struct {
	prints map[Fingerprint]*Key
	ids    map[uint64]*Key
	keys   []*Key
	tables atomic.Int32 // how many keys may still have powers made
}

// NewKeyring returns an empty keyring.
func NewKeyring() *Keyring {
	r := &Keyring{prints: make(map[Fingerprint]*Key), ids: make(map[uint64]*Key)}
	r.tables.Store(maxTables)
	return r
}

// Keys returns all keys, subkeys too, in the order in which they were added.
func (r *Keyring) Keys() []*Key { return r.keys }

// ByFingerprint returns a key, or nil.
func (r *Keyring) ByFingerprint(f Fingerprint) *Key { return r.prints[f] }

// Issuer returns the key that a signature names: by its fingerprint if it gives one, else by its key id; or nil.
func (r *Keyring) Issuer(s *Signature) *Key {
	switch {
	case s.Print != nil:
		if len(s.Print) != len(Fingerprint{}) {
			return nil
		}
		return r.prints[Fingerprint(s.Print)]
	case s.HasIssuer:
		return r.ids[s.Issuer]
	}
	return nil
}

// Add adds the keys of a file, binary or in armour. Files are to be added in the order of Guix: it takes them backwards, so that of two keys with
// one key id that of the first file counts. An error means that Guix can use no key at all of a keyring with this file.
func (r *Keyring) Add(name string, data []byte) error {
	if len(data) > MaxFile {
		return fail(CodeLimit, "%s has %d bytes", name, len(data))
	}
	if Armored(data) {
		var err error
		if data, err = Dearmor(data); err != nil {
			return err
		}
	}
	var b *block
	var keys []*Key // of b
	ids := make(map[uint64]*Key)
	flush := func() error {
		if b == nil {
			return nil
		}
		// The last one added under an id counts: of one certificate the primary key, then the first subkey; of one file the last certificate.
		for i := len(keys) - 1; i >= 0; i-- {
			k := keys[i]
			ids[k.Fingerprint.ID()] = k
			if len(r.keys) == MaxKeys {
				return fail(CodeLimit, "more than %d keys", MaxKeys)
			}
			r.keys = append(r.keys, k)
			if _, ok := r.prints[k.Fingerprint]; !ok {
				r.prints[k.Fingerprint] = k
			}
		}
		b, keys = nil, nil
		return nil
	}
	for len(data) > 0 {
		tag, body, rest, err := packet(data)
		if err != nil {
			return err
		}
		data = rest
		switch tag {
		case tagPublicKey, tagPublicSubkey:
			k, err := parseKey(body, tag == tagPublicSubkey)
			if err != nil {
				return err
			}
			if k == nil || !k.Subkey {
				if err := flush(); err != nil {
					return err
				}
			}
			if k == nil || k.Subkey && b == nil {
				continue // what Guix skips until the next primary key
			}
			if !k.Subkey {
				b = &block{primary: k}
			}
			k.File, k.block, k.tables = name, b, &r.tables
			k.status = sync.OnceValue(k.evaluate)
			keys = append(keys, k)
		case tagSignature:
			s, err := parseSignature(body)
			if len(body) > 0 && body[0] != 3 && body[0] != 4 {
				continue // a version that Guix passes over
			}
			if err != nil {
				return err
			}
			switch {
			case b == nil:
			case len(keys) > 1:
				last := keys[len(keys)-1]
				last.binding = append(last.binding, s)
			case len(b.users) > 0:
				u := &b.users[len(b.users)-1]
				u.sigs = append(u.sigs, s)
			default:
				b.direct = append(b.direct, s)
			}
		case tagUserID:
			if !utf8.Valid(body) {
				return fail(CodePacket, "a user id that is not UTF-8")
			}
			if b != nil {
				b.users = append(b.users, user{prefix: userIDPrefix, id: body})
			}
		case tagUserAttribute:
			if b != nil {
				b.users = append(b.users, user{prefix: attributePrefix, id: body})
			}
		case tagTrust, tagOnePass:
		default:
			return fail(CodePacket, "a packet of kind %d", tag)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	for id, k := range ids {
		if _, ok := r.ids[id]; !ok {
			r.ids[id] = k
		}
	}
	return nil
}
