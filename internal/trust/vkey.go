package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"filippo.io/edwards25519"
	"golang.org/x/mod/sumdb/note"
)

// A Context is what a key signs; it signs nothing else.
type Context string

// The contexts.
const (
	ContextRoot       Context = "root"
	ContextOrder      Context = "order"
	ContextManifest   Context = "manifest"
	ContextSums       Context = "sums"
	ContextAllowlist  Context = "allowlist"
	ContextStatement  Context = "statement"
	ContextCheckpoint Context = "checkpoint"
	ContextWitness    Context = "witness"
	ContextNarinfo    Context = "narinfo"
)

// A Role is what a person does in an enclave.
type Role string

// The roles.
const (
	RoleBuilder   Role = "builder"
	RoleCollector Role = "collector"
	RoleImporter  Role = "importer"
	RoleOfficer   Role = "officer"
	RoleReviewer  Role = "reviewer"
	RoleStation   Role = "station"
	RoleWitness   Role = "witness"
)

// Station is the owner of the station's keys. It is no person: it has the role
// station, which nobody else has, and counts towards no threshold.
const Station = "station"

const (
	maxKeyName   = 128 // of a vkey
	originPrefix = "sallyport/"
)

// ParseContext parses the name of a context.
func ParseContext(s string) (Context, error) {
	switch c := Context(s); c {
	case ContextRoot, ContextOrder, ContextManifest, ContextSums, ContextAllowlist, ContextStatement,
		ContextCheckpoint, ContextWitness, ContextNarinfo:
		return c, nil
	}
	return "", fmt.Errorf("context %.40q is not known", s)
}

// ParseRole parses the name of a role.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleBuilder, RoleCollector, RoleImporter, RoleOfficer, RoleReviewer, RoleStation, RoleWitness:
		return r, nil
	}
	return "", fmt.Errorf("role %.40q is not known", s)
}

// Origin returns the name of the ledger, and so of the checkpoint key, of a zone:
// sallyport/ENCLAVE/KIND.
func Origin(enclave, kind string) string { return originPrefix + enclave + "/" + kind }

// ParseOrigin takes an origin apart.
func ParseOrigin(s string) (enclave, kind string, err error) {
	rest, ok := strings.CutPrefix(s, originPrefix)
	enclave, kind, two := strings.Cut(rest, "/")
	if !ok || !two || CheckWord(enclave) != nil {
		return "", "", fmt.Errorf("origin %.80q: want sallyport/ENCLAVE/KIND", s)
	}
	switch kind {
	case "outside", "staging", "inside":
		return enclave, kind, nil
	}
	return "", "", fmt.Errorf("origin %.80q: want outside, staging or inside at its end", s)
}

// parseKeyName takes the name of a key apart: PERSON/CONTEXT, or the origin of a
// ledger, whose key belongs to the station.
func parseKeyName(name string) (person string, context Context, err error) {
	if len(name) > maxKeyName {
		return "", "", fmt.Errorf("key name of %d bytes, more than %d", len(name), maxKeyName)
	}
	if strings.Count(name, "/") == 2 {
		if _, _, err := ParseOrigin(name); err != nil {
			return "", "", err
		}
		return Station, ContextCheckpoint, nil
	}
	person, c, ok := strings.Cut(name, "/")
	if !ok || CheckWord(person) != nil {
		return "", "", fmt.Errorf("key name %.80q: want PERSON/CONTEXT", name)
	}
	context, err = ParseContext(c)
	if err != nil {
		return "", "", err
	}
	switch context {
	case ContextCheckpoint:
		return "", "", fmt.Errorf("key name %q: a checkpoint key is named for its ledger, sallyport/ENCLAVE/KIND", name)
	case ContextNarinfo:
		return "", "", fmt.Errorf("key name %q: narinfos are signed with a key of Guix's own form", name)
	}
	return person, context, nil
}

// A VKey is a public key that verifies notes or statements, as NAME says:
// PERSON/CONTEXT, or the origin of a ledger. [NewVKey] and [ParseVKey] make
// one; the zero VKey verifies nothing.
type VKey struct {
	Name    string
	Person  string
	Context Context
	Public  []byte // in the form of its kind; not to be changed

	kind KeyKind
}

// NewVKey names a public key of a kind. It may be none that the kind forbids,
// and the kind must be allowed in the name's context.
func NewVKey(kind KeyKind, name string, public []byte) (VKey, error) {
	k, err := nameKey(kind, name, public)
	if err == nil && kind.prefix() == "" {
		err = fmt.Errorf("key %s: a key of kind %s is no vkey", name, kind)
	}
	if err == nil {
		err = k.checkPublic()
	}
	if err != nil {
		return VKey{}, err
	}
	return k, nil
}

func nameKey(kind KeyKind, name string, public []byte) (VKey, error) {
	person, context, err := parseKeyName(name)
	if err != nil {
		return VKey{}, err
	}
	if err := checkKind(kind, context, person); err != nil {
		return VKey{}, fmt.Errorf("key %s: %w", name, err)
	}
	return VKey{name, person, context, public, kind}, nil
}

// ParseVKey parses NAME+HASH8+BASE64.
func ParseVKey(s string) (VKey, error) {
	k, err := parseVKey(s)
	if err == nil {
		err = k.checkPublic()
	}
	if err != nil {
		return VKey{}, err
	}
	return k, nil
}

// parseVKey is ParseVKey without the arithmetic, for a key that has been checked.
func parseVKey(s string) (VKey, error) {
	name, rest, ok1 := strings.Cut(s, "+")
	_, key64, ok2 := strings.Cut(rest, "+")
	if !ok1 || !ok2 {
		return VKey{}, fmt.Errorf("vkey %.80q: want NAME+HASH8+BASE64", s)
	}
	key, err := decode64(key64, maxKeyType+maxPublic)
	if err != nil {
		return VKey{}, fmt.Errorf("vkey %.80q: %w", s, err)
	}
	kind, public, err := splitType(key)
	if err != nil {
		return VKey{}, fmt.Errorf("vkey %.80q: %w", s, err)
	}
	k, err := nameKey(kind, name, public)
	if err != nil {
		return VKey{}, err
	}
	if k.String() != s {
		return VKey{}, fmt.Errorf("vkey %.160q: its hash is %08x", s, k.Hash())
	}
	return k, nil
}

// Kind returns the kind of key.
func (k VKey) Kind() KeyKind { return k.kind }

// Counts reports whether the key's signatures count towards a threshold: those of
// an additional key, ML-DSA-87, never do.
func (k VKey) Counts() bool { return k.kind != KeyMLDSA87 }

// typed returns the bytes of type and key, as they stand in a vkey.
func (k VKey) typed() []byte { return append([]byte(k.kind.prefix()), k.Public...) }

// Hash returns the four bytes that signature lines carry.
func (k VKey) Hash() uint32 {
	h := sha256.Sum256(append([]byte(k.Name+"\n"), k.typed()...))
	return binary.BigEndian.Uint32(h[:])
}

// ID returns NAME+HASH8, the keyid of a statement.
func (k VKey) ID() string { return fmt.Sprintf("%s+%08x", k.Name, k.Hash()) }

// String returns the vkey.
func (k VKey) String() string {
	return k.ID() + "+" + base64.StdEncoding.EncodeToString(k.typed())
}

// Equal reports whether both are the same key of the same name and kind.
func (k VKey) Equal(other VKey) bool {
	return k.Name == other.Name && k.kind == other.kind && bytes.Equal(k.Public, other.Public)
}

// Same reports whether one secret answers to both, whatever their kinds and
// names: what counts distinct keys must not count it twice.
func (k VKey) Same(other VKey) bool { return k.Raw() == other.Raw() }

// Verify verifies a signature of this key's kind. A witness key verifies
// cosignatures of a checkpoint. It takes any bytes and does no more work than
// their length asks for.
func (k VKey) Verify(message, sig []byte) bool {
	if checkKind(k.kind, k.Context, k.Person) != nil {
		return false // a key that no root can have
	}
	switch k.kind {
	case KeyEd25519:
		return verifyEd25519(k.Public, message, sig)
	case KeyCosignature:
		seconds, rest, ok := splitCosignature(sig)
		return ok && verifyEd25519(k.Public, cosigned(seconds, message), rest)
	case KeyP256:
		return verifyP256(k.Public, message, sig)
	case KeySSHSIG:
		return verifySSHSIG(k.Public, k.Context, message, sig)
	case KeyMLDSA87:
		return verifyMLDSA(k.Public, k.Context, message, sig)
	}
	return false
}

// verifyEd25519 is ed25519.Verify, which panics if the key has another length.
func verifyEd25519(public, message, sig []byte) bool {
	return len(public) == ed25519.PublicKeySize && ed25519.Verify(public, message, sig)
}

// Verifier returns the key in the form that package note takes.
func (k VKey) Verifier() note.Verifier { return noteVerifier{k, k.Hash()} }

type noteVerifier struct {
	k    VKey
	hash uint32
}

func (v noteVerifier) Name() string                { return v.k.Name }
func (v noteVerifier) KeyHash() uint32             { return v.hash }
func (v noteVerifier) Verify(msg, sig []byte) bool { return v.k.Verify(msg, sig) }

const cosignHeader = "cosignature/v1\ntime "

// cosigned returns what a witness signs.
func cosigned(seconds int64, text []byte) []byte {
	return append(fmt.Appendf(nil, "%s%d\n", cosignHeader, seconds), text...)
}

// splitCosigned takes apart what cosigned returns.
func splitCosigned(message []byte) (seconds int64, text []byte, ok bool) {
	rest, ok := bytes.CutPrefix(message, []byte(cosignHeader))
	digits, text, two := bytes.Cut(rest, []byte("\n"))
	seconds, err := ParseNumber(string(digits), MaxSize)
	return seconds, text, ok && two && err == nil
}

// splitCosignature takes a cosignature apart: when it was made, and the Ed25519
// signature.
func splitCosignature(sig []byte) (seconds int64, rest []byte, ok bool) {
	if len(sig) != cosignatureLen {
		return 0, nil, false
	}
	at := binary.BigEndian.Uint64(sig)
	return int64(at), sig[8:], at <= MaxSize
}

var errWeakKey = errors.New("public key is not a point of the prime-order group in its one spelling")

// checkPoint refuses public keys under which anybody can sign (points of small
// order) and those that a single secret answers under several spellings (points
// with a small-order part, or not fully reduced): with these, one
// person could pass for two.
func checkPoint(public []byte) error {
	if len(public) != ed25519.PublicKeySize {
		return fmt.Errorf("public key of %d bytes, want %d", len(public), ed25519.PublicKeySize)
	}
	// No point of the group has a second spelling (there is none with y below
	// 19), so the comparison only saves the reader that thought.
	p, err := new(edwards25519.Point).SetBytes(public)
	if err != nil || !bytes.Equal(p.Bytes(), public) {
		return errWeakKey
	}
	q := new(edwards25519.Point).MultByCofactor(p)
	if q.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return errWeakKey
	}
	// With the inverse of 8 modulo the group's order, only a point of that
	// group comes back as itself.
	eight, err := new(edwards25519.Scalar).SetCanonicalBytes(append([]byte{8}, make([]byte, 31)...))
	if err != nil {
		return err
	}
	inverse := new(edwards25519.Scalar).Invert(eight)
	if q.VarTimeDoubleScalarBaseMult(inverse, q, edwards25519.NewScalar()).Equal(p) != 1 {
		return errWeakKey
	}
	return nil
}

// decode64 decodes standard padded base64 in its one spelling, of at most limit bytes.
func decode64(s string, limit int) ([]byte, error) {
	if len(s) > base64.StdEncoding.EncodedLen(limit) {
		return nil, fmt.Errorf("base64 of %d characters, more than %d", len(s), base64.StdEncoding.EncodedLen(limit))
	}
	// The decoder skips CR and LF, and outside strict mode ignores spare bits.
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not base64 in its one spelling")
	}
	return b, nil
}
