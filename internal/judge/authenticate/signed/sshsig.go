package signed

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/big"
)

// Algorithms of SSH keys.
const (
	algEd25519   = "ssh-ed25519"
	algRSA       = "ssh-rsa"
	algSKEd25519 = "sk-ssh-ed25519@openssh.com"
	algSKP256    = "sk-ecdsa-sha2-nistp256@openssh.com"
	algECDSA     = "ecdsa-sha2-" // with the name of a curve
)

// What is signed over is named in PROTOCOL.sshsig of OpenSSH.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	beginSSH      = "-----BEGIN SSH SIGNATURE-----"
	endSSH        = "-----END SSH SIGNATURE-----"
	namespaceGit  = "git"
)

// Bounds.
const (
	maxBlob     = 16 << 10 // of a key, or of a signature
	maxArmor    = 64 << 10
	maxWord     = 256 // of a name in SSH's encoding
	minRSA      = 2048
	maxRSA      = 16384
	maxExponent = 1<<31 - 1
)

// A wire takes SSH's encoding apart (RFC 4251, section 5). The first fault sticks.
type wire struct {
	b   []byte
	bad bool
}

func (w *wire) take(n int) []byte {
	if w.bad || n < 0 || len(w.b) < n {
		w.bad = true
		return nil
	}
	v := w.b[:n:n]
	w.b = w.b[n:]
	return v
}

func (w *wire) uint32() uint32 {
	if v := w.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (w *wire) string() []byte {
	n := w.uint32()
	if n > maxBlob {
		w.bad = true
		return nil
	}
	return w.take(int(n))
}

func (w *wire) word() string {
	v := w.string()
	if len(v) > maxWord {
		w.bad = true
	}
	return string(v)
}

// number reads a positive mpint, which has one spelling.
func (w *wire) number() *big.Int {
	v := w.string()
	if len(v) == 0 || v[0] >= 0x80 || v[0] == 0 && (len(v) == 1 || v[1] < 0x80) {
		w.bad = true
		return new(big.Int)
	}
	return new(big.Int).SetBytes(v)
}

func (w *wire) end() bool { return !w.bad && len(w.b) == 0 }

// A PublicKey is an SSH public key.
type PublicKey struct {
	Algorithm   string
	Blob        []byte // its wire form
	application string // of a security key
	ed          ed25519.PublicKey
	ec          *ecdsa.PublicKey
	rsa         *rsa.PublicKey
}

// Fingerprint prints the key's as ssh-keygen does.
func (k *PublicKey) Fingerprint() string {
	sum := sha256.Sum256(k.Blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// onToken tells whether the key is a security key's.
func (k *PublicKey) onToken() bool { return k.Algorithm == algSKEd25519 || k.Algorithm == algSKP256 }

var curves = map[string]elliptic.Curve{"nistp256": elliptic.P256(), "nistp384": elliptic.P384(), "nistp521": elliptic.P521()}

// errWeak says that a key is well formed and too short.
var errWeak = fmt.Errorf("an RSA key of fewer than %d bits", minRSA)

// ParsePublicKey reads the wire form of a public key.
func ParsePublicKey(blob []byte) (*PublicKey, error) {
	if len(blob) > maxBlob {
		return nil, fmt.Errorf("a key of %d bytes", len(blob))
	}
	w := &wire{b: blob}
	k := &PublicKey{Algorithm: w.word(), Blob: bytes.Clone(blob)}
	point := func(curve string) error {
		c, name, q := curves[curve], w.word(), w.string()
		if w.bad || name != curve {
			return errors.New("a key that is not well formed")
		}
		var err error
		k.ec, err = ecdsa.ParseUncompressedPublicKey(c, q)
		return err
	}
	var err error
	switch k.Algorithm {
	case algEd25519, algSKEd25519:
		if k.ed = w.string(); len(k.ed) != ed25519.PublicKeySize {
			w.bad = true
		}
		k.ed = bytes.Clone(k.ed)
	case algECDSA + "nistp256", algECDSA + "nistp384", algECDSA + "nistp521":
		err = point(k.Algorithm[len(algECDSA):])
	case algSKP256:
		err = point("nistp256")
	case algRSA:
		e, n := w.number(), w.number()
		switch {
		case w.bad:
		case !e.IsInt64() || e.Int64() < 3 || e.Int64() > maxExponent || e.Bit(0) == 0 || n.Bit(0) == 0 || n.BitLen() > maxRSA:
			err = errors.New("an RSA key that cannot be used")
		case n.BitLen() < minRSA:
			err = errWeak
		default:
			k.rsa = &rsa.PublicKey{N: n, E: int(e.Int64())}
		}
	default:
		return nil, fmt.Errorf("a key of the kind %.60q", k.Algorithm)
	}
	if k.onToken() {
		k.application = w.word()
	}
	if err == nil && !w.end() {
		err = errors.New("a key that is not well formed")
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// An SSHSignature is one as ssh-keygen -Y sign makes it.
type SSHSignature struct {
	Key       *PublicKey
	Namespace string
	Hash      string // sha256 or sha512
	format    string
	blob      []byte
	flags     byte // of a security key
	counter   uint32
}

// ParseSSHSignature reads a signature in armour: nothing before it, nothing after it but an end of line.
func ParseSSHSignature(text []byte) (*SSHSignature, error) {
	if len(text) > maxArmor {
		return nil, fmt.Errorf("a signature of %d bytes", len(text))
	}
	rest, ok := bytes.CutPrefix(text, []byte(beginSSH+"\n"))
	body, ok2 := bytes.CutSuffix(bytes.TrimSuffix(rest, []byte("\n")), []byte("\n"+endSSH))
	if !ok || !ok2 {
		return nil, errors.New("the armour is not well formed")
	}
	var packed []byte
	for line := range bytes.SplitSeq(body, []byte("\n")) {
		if len(line) == 0 || bytes.ContainsAny(line, "\r \t") {
			return nil, errors.New("the armour has a line that is not well formed")
		}
		packed = append(packed, line...)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(string(packed))
	if err != nil {
		return nil, fmt.Errorf("the armour: %w", err)
	}
	w := &wire{b: data}
	if string(w.take(len(sshsigMagic))) != sshsigMagic {
		return nil, errors.New("it does not begin as a signature of SSH")
	}
	if v := w.uint32(); w.bad || v != sshsigVersion {
		return nil, fmt.Errorf("a signature of version %d", v)
	}
	key := w.string()
	s := &SSHSignature{Namespace: w.word()}
	reserved := w.string()
	s.Hash = w.word()
	inner := &wire{b: w.string()}
	if !w.end() || len(reserved) != 0 {
		return nil, errors.New("the signature is not well formed")
	}
	if s.Key, err = ParsePublicKey(key); err != nil {
		return nil, err
	}
	s.format, s.blob = inner.word(), inner.string()
	if s.Key.onToken() {
		if f := inner.take(1); f != nil {
			s.flags = f[0]
		}
		s.counter = inner.uint32()
	}
	if !inner.end() {
		return nil, errors.New("the signature is not well formed")
	}
	return s, nil
}

// userPresent is the flag that somebody touched the security key.
const userPresent = 0x01

// errTouch says that nobody did.
var errTouch = errors.New("a security key signed without being touched")

// over is what is signed for a message: a hash of it, framed; nil for a hash that is not known.
func (s *SSHSignature) over(message []byte) []byte {
	var h hash.Hash
	switch s.Hash {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return nil
	}
	h.Write(message)
	text := []byte(sshsigMagic)
	for _, part := range [][]byte{[]byte(s.Namespace), nil, []byte(s.Hash), h.Sum(nil)} {
		text = append(binary.BigEndian.AppendUint32(text, uint32(len(part))), part...)
	}
	return text
}

// overToken is what a security key signs for a text (PROTOCOL.u2f of OpenSSH).
func (s *SSHSignature) overToken(text []byte) []byte {
	app, sum := sha256.Sum256([]byte(s.Key.application)), sha256.Sum256(text)
	b := binary.BigEndian.AppendUint32(append(app[:], s.flags), s.counter)
	return append(b, sum[:]...)
}

// Verify checks the signature over a message.
func (s *SSHSignature) Verify(message []byte) error {
	text := s.over(message)
	if text == nil {
		return fmt.Errorf("the hash %.60q", s.Hash)
	}
	good := false
	k := s.Key
	if k.onToken() {
		text = s.overToken(text)
	}
	digest := func(h crypto.Hash) []byte {
		d := h.New()
		d.Write(text)
		return d.Sum(nil)
	}
	switch {
	case k.rsa != nil:
		kind, ok := map[string]crypto.Hash{"rsa-sha2-256": crypto.SHA256, "rsa-sha2-512": crypto.SHA512}[s.format]
		if !ok {
			return fmt.Errorf("an RSA signature of the kind %.60q", s.format)
		}
		blob := s.blob // OpenSSH takes one that lost zeros in front
		if len(blob) < k.rsa.Size() {
			blob = append(make([]byte, k.rsa.Size()-len(blob)), blob...)
		}
		good = rsa.VerifyPKCS1v15(k.rsa, kind, digest(kind), blob) == nil
	case s.format != k.Algorithm:
		return fmt.Errorf("a signature of the kind %.60q by a key of the kind %q", s.format, k.Algorithm)
	case k.ed != nil:
		good = len(s.blob) == ed25519.SignatureSize && ed25519.Verify(k.ed, text, s.blob)
	case k.ec != nil:
		kind := crypto.SHA256
		switch k.ec.Curve.Params().BitSize {
		case 384:
			kind = crypto.SHA384
		case 521:
			kind = crypto.SHA512
		}
		w := &wire{b: s.blob}
		x, y := w.number(), w.number()
		good = w.end() && ecdsa.Verify(k.ec, digest(kind), x, y)
	}
	if !good {
		return errors.New("not a signature of that key over this object")
	}
	if k.onToken() && s.flags&userPresent == 0 {
		return errTouch
	}
	return nil
}
