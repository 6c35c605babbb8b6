package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Algorithms of OpenSSH keys that may sign here. A key and its signatures name the same one.
const (
	sshEd25519   = "ssh-ed25519"
	sshP256      = "ecdsa-sha2-nistp256"
	sshSKEd25519 = "sk-ssh-ed25519@openssh.com"
	sshSKP256    = "sk-ecdsa-sha2-nistp256@openssh.com"
	sshCurveP256 = "nistp256"

	sshApplication = "ssh:" // what ssh-keygen lets a security key be made for begins with it
)

// PROTOCOL.sshsig of OpenSSH.
const (
	sshsigMagic   = "SSHSIG"
	sshsigVersion = 1
	sshsigHash    = "sha512"
)

// Bounds of what comes in SSH's encoding.
const (
	maxSSHWord     = 64  // of the name of an algorithm, a namespace, a hash
	maxApplication = 128 // of a security key: what it was made for
	maxSSHKey      = 512
	maxArmor       = 4096 // of a file that ssh-keygen writes
)

// Flags that a security key signs along.
const (
	skUserPresent = 0x01
	skAttested    = 0x40 // attested data follow in what was signed; never in a signature
	skExtended    = 0x80 // and so extensions
)

// sshReader takes SSH's encoding apart (RFC 4251 section 5). The first fault sticks.
type sshReader struct {
	b   []byte
	err error
}

func (r *sshReader) take(n int) []byte {
	if r.err == nil && len(r.b) < n {
		r.err = errors.New("SSH encoding: cut short")
	}
	if r.err != nil {
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *sshReader) uint32() uint32 {
	v := r.take(4)
	if v == nil {
		return 0
	}
	return binary.BigEndian.Uint32(v)
}

func (r *sshReader) byte() byte {
	v := r.take(1)
	if v == nil {
		return 0
	}
	return v[0]
}

// string reads a string of at most max bytes.
func (r *sshReader) string(max int) []byte {
	n := r.uint32()
	if r.err == nil && uint64(n) > uint64(max) {
		r.err = fmt.Errorf("SSH encoding: string of %d bytes, more than %d", n, max)
	}
	if r.err != nil {
		return nil
	}
	return r.take(int(n))
}

// end returns the first fault; bytes behind the end are one.
func (r *sshReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errors.New("SSH encoding: bytes behind the end")
	}
	return r.err
}

func appendSSH[T string | []byte](b []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// An sshPublic is an OpenSSH public key of an algorithm that may sign here.
type sshPublic struct {
	algorithm   string
	point       []byte // 32 bytes of Ed25519, or 65 of a point of P-256
	application string // of a security key
}

// parseSSHPublic parses the wire form of a public key. Of each there is one.
func parseSSHPublic(b []byte) (sshPublic, error) {
	k, err := splitSSHPublic(b)
	switch {
	case err != nil:
	case k.onP256():
		_, err = compressP256(k.point)
	default:
		err = checkPoint(k.point)
	}
	return k, err
}

// splitSSHPublic is parseSSHPublic without the arithmetic, for a key that has been checked.
func splitSSHPublic(b []byte) (sshPublic, error) {
	if len(b) > maxSSHKey {
		return sshPublic{}, fmt.Errorf("SSH key of %d bytes, more than %d", len(b), maxSSHKey)
	}
	r := &sshReader{b: b}
	k := sshPublic{algorithm: string(r.string(maxSSHWord))}
	curve := sshCurveP256
	switch k.algorithm {
	case sshEd25519, sshSKEd25519:
		k.point = r.string(ed25519.PublicKeySize)
	case sshP256, sshSKP256:
		curve = string(r.string(maxSSHWord))
		k.point = r.string(p256Uncompressed)
	default:
		if r.err == nil {
			r.err = fmt.Errorf("SSH keys of the algorithm %.64q sign nothing here", k.algorithm)
		}
	}
	if k.security() {
		k.application = string(r.string(maxApplication))
	}
	if err := r.end(); err != nil {
		return sshPublic{}, err
	}
	if curve != sshCurveP256 {
		return sshPublic{}, fmt.Errorf("SSH key: curve %.64q, want %s", curve, sshCurveP256)
	}
	// A key that was made for a web site would sign what that site hands it.
	if k.security() && (!strings.HasPrefix(k.application, sshApplication) || Printable(k.application, maxApplication) != k.application) {
		return sshPublic{}, fmt.Errorf("SSH security key: application %.128q, want one that begins with %q", k.application, sshApplication)
	}
	return k, nil
}

func (k sshPublic) security() bool { return strings.HasPrefix(k.algorithm, "sk-") }
func (k sshPublic) onP256() bool   { return k.algorithm == sshP256 || k.algorithm == sshSKP256 }

// wire prints the key.
func (k sshPublic) wire() []byte {
	b := appendSSH(nil, k.algorithm)
	if k.onP256() {
		b = appendSSH(b, sshCurveP256)
	}
	b = appendSSH(b, k.point)
	if k.security() {
		b = appendSSH(b, k.application)
	}
	return b
}

func (k sshPublic) raw() RawKey {
	if !k.onP256() {
		return rawEd25519(k.point)
	}
	c, err := compressP256(k.point)
	if err != nil {
		return RawKey(k.wire())
	}
	return RawKey("p256 " + string(c))
}

// An sshSignature is a signature as SSH writes it: by an agent, or inside an SSHSIG.
type sshSignature struct {
	algorithm string
	ed25519   []byte   // of Ed25519
	ecdsa     ecdsaSig // of P-256
	flags     byte     // of a security key
	counter   uint32   // of a security key
}

func parseSSHSignature(b []byte) (s sshSignature, err error) {
	r := &sshReader{b: b}
	s.algorithm = string(r.string(maxSSHWord))
	blob := r.string(maxSSHKey)
	switch s.algorithm {
	case sshEd25519, sshSKEd25519:
		if s.ed25519 = blob; r.err == nil && len(blob) != ed25519.SignatureSize {
			r.err = fmt.Errorf("SSH signature of %d bytes, want %d", len(blob), ed25519.SignatureSize)
		}
	case sshP256, sshSKP256:
		ints := &sshReader{b: blob, err: r.err}
		for _, n := range []*[p256Len]byte{&s.ecdsa.r, &s.ecdsa.s} {
			v, ok := parseInt(ints.string(maxP256Int))
			if *n = v; !ok && ints.err == nil {
				ints.err = errors.New("SSH signature: a number is not in its one spelling")
			}
		}
		r.err = ints.end()
	default:
		if r.err == nil {
			r.err = fmt.Errorf("SSH signature of the unknown algorithm %.64q", s.algorithm)
		}
	}
	if strings.HasPrefix(s.algorithm, "sk-") {
		s.flags, s.counter = r.byte(), r.uint32()
	}
	return s, r.end()
}

// wire prints the signature.
func (s sshSignature) wire() []byte {
	blob := s.ed25519
	if s.algorithm == sshP256 || s.algorithm == sshSKP256 {
		blob = appendSSH(nil, appendInt(nil, s.ecdsa.r))
		blob = appendSSH(blob, appendInt(nil, s.ecdsa.s))
	}
	b := appendSSH(appendSSH(nil, s.algorithm), blob)
	if strings.HasPrefix(s.algorithm, "sk-") {
		b = binary.BigEndian.AppendUint32(append(b, s.flags), s.counter)
	}
	return b
}

// verify verifies what an SSH key has signed. Of a security key it demands that a person touched it.
func (k sshPublic) verify(data []byte, s sshSignature) bool {
	if s.algorithm != k.algorithm {
		return false
	}
	if k.security() {
		if s.flags&skUserPresent == 0 || s.flags&(skAttested|skExtended) != 0 {
			return false
		}
		application, hash := sha256.Sum256([]byte(k.application)), sha256.Sum256(data)
		data = append(application[:], s.flags)
		data = binary.BigEndian.AppendUint32(data, s.counter)
		data = append(data, hash[:]...)
	}
	if !k.onP256() {
		return verifyEd25519(k.point, data, s.ed25519)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), k.point)
	digest := sha256.Sum256(data)
	return err == nil && s.ecdsa.verify(key, digest[:])
}

// An sshsig is an SSHSIG, taken apart.
type sshsig struct {
	public    []byte
	namespace string
	reserved  string
	hash      string
	signature sshSignature
}

func parseSSHSIG(b []byte) (s sshsig, err error) {
	r := &sshReader{b: b}
	if magic, version := r.take(len(sshsigMagic)), r.uint32(); r.err == nil && (string(magic) != sshsigMagic || version != sshsigVersion) {
		return s, errors.New("not an SSH signature of version 1")
	}
	s.public = r.string(maxSSHKey)
	s.namespace = string(r.string(maxSSHWord))
	s.reserved = string(r.string(maxSSHWord))
	s.hash = string(r.string(maxSSHWord))
	sig := r.string(maxSSHKey)
	if err := r.end(); err != nil {
		return s, err
	}
	s.signature, err = parseSSHSignature(sig)
	return s, err
}

// wire prints the SSHSIG.
func (s sshsig) wire() []byte {
	b := binary.BigEndian.AppendUint32([]byte(sshsigMagic), sshsigVersion)
	b = appendSSH(b, s.public)
	b = appendSSH(b, s.namespace)
	b = appendSSH(b, s.reserved)
	b = appendSSH(b, s.hash)
	return appendSSH(b, s.signature.wire())
}

// sshsigData is what the key itself signs.
func sshsigData(c Context, message []byte) []byte {
	hash := sha512.Sum512(message)
	b := appendSSH([]byte(sshsigMagic), sigContext(c))
	b = appendSSH(b, "") // reserved
	b = appendSSH(b, sshsigHash)
	return appendSSH(b, hash[:])
}

// check checks what an SSHSIG says of itself: everything but whether it verifies.
func (s sshsig) check(public []byte, c Context) error {
	switch {
	case !bytes.Equal(s.public, public):
		return errors.New("it is by another key")
	case s.namespace != sigContext(c):
		return fmt.Errorf("it was made for the namespace %.64q, not %s", s.namespace, sigContext(c))
	case s.reserved != "" || s.hash != sshsigHash:
		return fmt.Errorf("it hashes with %.64q, not %s", s.hash, sshsigHash)
	}
	return nil
}

func verifySSHSIG(public []byte, c Context, message, sig []byte) bool {
	if len(sig) > MaxSignature {
		return false
	}
	key, err := splitSSHPublic(public)
	if err != nil {
		return false
	}
	s, err := parseSSHSIG(sig)
	if err != nil || s.check(public, c) != nil || !bytes.Equal(s.wire(), sig) {
		return false
	}
	return key.verify(sshsigData(c, message), s.signature)
}

// SSHPublic returns the wire form of the SSH key that holds the same secret; an error for a kind that SSH does not know.
func (k VKey) SSHPublic() ([]byte, error) {
	switch k.kind {
	case KeyEd25519, KeyCosignature, KeyMinisign:
		return sshPublic{algorithm: sshEd25519, point: k.Public}.wire(), nil
	case KeyP256:
		key, err := parseP256(k.Public)
		if err != nil {
			return nil, err
		}
		point, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		return sshPublic{algorithm: sshP256, point: point}.wire(), nil
	case KeySSHSIG:
		return k.Public, nil
	}
	return nil, fmt.Errorf("key %s: no SSH key is of kind %s", k.Name, k.kind)
}

// SSHFingerprint returns the fingerprint by which ssh-add -l and ssh-keygen -l name a public key in its wire form.
func SSHFingerprint(wire []byte) string {
	h := sha256.Sum256(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(h[:])
}

// SSHAlgorithm returns the algorithm in front of an SSH public key in its wire form, empty if there is none.
func SSHAlgorithm(wire []byte) string {
	r := &sshReader{b: wire}
	if a := string(r.string(maxSSHWord)); Printable(a, maxSSHWord) == a {
		return a
	}
	return ""
}

// FromSSH names an SSH public key in its wire form. For sums and for a witness it must be an Ed25519 key. Otherwise an Ed25519 or a P-256 key becomes one of kind
// ed25519 or p256, which sign texts as they are, unless wrap is set; a security key, and any with wrap, becomes one of kind sshsig.
func FromSSH(name string, wire []byte, wrap bool) (RootKey, error) {
	person, context, err := parseKeyName(name)
	if err != nil {
		return RootKey{}, err
	}
	s, err := parseSSHPublic(wire)
	if err != nil {
		return RootKey{}, fmt.Errorf("key %s: %w", name, err)
	}
	if context == ContextSums || context == ContextWitness || context == ContextCheckpoint {
		if s.algorithm != sshEd25519 || wrap {
			return RootKey{}, fmt.Errorf("key %s: the context %s wants an %s key that signs as it is", name, context, sshEd25519)
		}
	}
	var k VKey
	switch {
	case context == ContextSums:
		id := keyID(s.point)
		return RootKey{Context: context, Owner: person, Key: minisignText(id[:], s.point)}, nil
	case context == ContextWitness:
		k, err = NewVKey(KeyCosignature, name, s.point)
	case wrap || s.security():
		k, err = NewVKey(KeySSHSIG, name, wire)
	case s.onP256():
		var point []byte
		if point, err = compressP256(s.point); err == nil {
			k, err = NewVKey(KeyP256, name, point)
		}
	default:
		k, err = NewVKey(KeyEd25519, name, s.point)
	}
	if err != nil {
		return RootKey{}, err
	}
	return RootKey{Context: context, Owner: person, Key: k.String()}, nil
}

// SSHData returns what an SSH agent has to sign so that [VKey.SSHSignature] can make a signature of this key's kind.
func (k VKey) SSHData(message []byte) []byte {
	if k.kind == KeySSHSIG {
		return sshsigData(k.Context, message)
	}
	return message
}

// SSHSignature makes a signature of this key's kind from what an SSH agent answered, algorithm and all, when it was given [VKey.SSHData]. It returns none that does
// not verify.
func (k VKey) SSHSignature(message, answer []byte) ([]byte, error) {
	bad := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("key %s: %w", k.Name, fmt.Errorf(format, args...))
	}
	s, err := parseSSHSignature(answer)
	if err != nil {
		return bad("%w", err)
	}
	wire, err := k.SSHPublic()
	if err != nil {
		return nil, err
	}
	public, err := splitSSHPublic(wire)
	if err != nil {
		return bad("%w", err)
	}
	if s.algorithm != public.algorithm {
		return bad("signature of the algorithm %q, want %s", s.algorithm, public.algorithm)
	}
	s.ecdsa = s.ecdsa.low()
	if !public.verify(k.SSHData(message), s) {
		if public.security() && s.flags&skUserPresent == 0 {
			return bad("nobody touched the security key: a key that was made with no-touch-required signs nothing here")
		}
		return bad("the signature does not verify")
	}
	switch k.kind {
	case KeyCosignature:
		seconds, _, ok := splitCosigned(message)
		if !ok {
			return bad("a witness key signs cosignatures only")
		}
		return append(binary.BigEndian.AppendUint64(nil, uint64(seconds)), s.ed25519...), nil
	case KeyP256:
		return s.ecdsa.der(), nil
	case KeySSHSIG:
		return sshsig{public: k.Public, namespace: sigContext(k.Context), hash: sshsigHash, signature: s}.wire(), nil
	}
	return s.ed25519, nil
}

const (
	armorBegin = "-----BEGIN SSH SIGNATURE-----"
	armorEnd   = "-----END SSH SIGNATURE-----"
	armorWidth = 70
)

// FromSSHKeygen returns the signature line under a text that `ssh-keygen -Y sign -n sallyport-CONTEXT` made, of a key of kind sshsig. What
// ssh-keygen leaves open is brought into its one spelling.
func FromSSHKeygen(text []byte, k VKey, file []byte) (line string, err error) {
	bad := func(format string, args ...any) (string, error) {
		return "", Refuse("ssh-signature", k.Name, format, args...)
	}
	if k.kind != KeySSHSIG {
		return bad("the key is of kind %s; what ssh-keygen signs verifies only under a key of kind %s", k.kind, KeySSHSIG)
	}
	if err := checkSign(k.Name, k.Context, text); err != nil {
		return "", err
	}
	if len(file) > maxArmor {
		return bad("a file of %d bytes, more than %d", len(file), maxArmor)
	}
	body, ok1 := strings.CutPrefix(strings.TrimSpace(strings.ReplaceAll(string(file), "\r\n", "\n")), armorBegin+"\n")
	body, ok2 := strings.CutSuffix(body, "\n"+armorEnd)
	if !ok1 || !ok2 {
		return bad("not a file that ssh-keygen -Y sign writes: want %q at its beginning", armorBegin)
	}
	blob, err := decode64(strings.ReplaceAll(body, "\n", ""), maxArmor)
	if err != nil {
		return bad("%v", err)
	}
	s, err := parseSSHSIG(blob)
	if err == nil {
		err = s.check(k.Public, k.Context)
	}
	if err != nil {
		return "", Refuse("ssh-signature", k.Name, "%v", err).WithHint(fmt.Sprintf("sign with: ssh-keygen -Y sign -f KEY -n %s FILE", sigContext(k.Context)))
	}
	sig, err := k.SSHSignature(text, s.signature.wire())
	if err != nil {
		return bad("%v", err)
	}
	return sigLine(k, sig), nil
}

// Armor prints a signature of a key of kind sshsig as ssh-keygen -Y verify takes it.
func Armor(sig []byte) []byte {
	b := []byte(armorBegin + "\n")
	text := base64.StdEncoding.EncodeToString(sig)
	for len(text) > 0 {
		n := min(len(text), armorWidth)
		b = append(append(b, text[:n]...), '\n')
		text = text[n:]
	}
	return append(b, armorEnd+"\n"...)
}

// ParseSSHPublicFile reads a public key file of OpenSSH, `ALGORITHM BASE64 COMMENT`, and returns the wire form.
func ParseSSHPublicFile(data []byte) ([]byte, error) {
	line, rest, _ := strings.Cut(string(data), "\n")
	f := strings.Fields(line)
	if len(data) > maxArmor || strings.TrimSpace(rest) != "" || len(f) < 2 {
		return nil, errors.New("not a public key file of OpenSSH: want one line, ALGORITHM BASE64 COMMENT")
	}
	wire, err := decode64(f[1], maxSSHKey)
	if err == nil && SSHAlgorithm(wire) != f[0] {
		err = fmt.Errorf("the line says %.64q, its key is of the algorithm %q", f[0], SSHAlgorithm(wire))
	}
	if err == nil {
		_, err = parseSSHPublic(wire)
	}
	if err != nil {
		return nil, fmt.Errorf("not a public key file of OpenSSH that can be enrolled: %w", err)
	}
	return wire, nil
}
