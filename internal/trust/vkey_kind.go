package trust

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/mldsa"
)

// A KeyKind is a form of public key and its signatures.
type KeyKind string

// The kinds of keys. Each is allowed in some contexts only; docs/spec/keys.md
// has the table.
const (
	KeyEd25519     KeyKind = "ed25519"
	KeyCosignature KeyKind = "cosignature" // Ed25519, of a witness: cosignature/v1
	KeyP256        KeyKind = "p256"        // ECDSA on P-256 over SHA-256
	KeySSHSIG      KeyKind = "sshsig"      // what an OpenSSH key signs in its own format, security keys included
	KeyMLDSA87     KeyKind = "mldsa87"     // ML-DSA-87, beside another signature and never instead of one
	KeyMinisign    KeyKind = "minisign"    // of sums: no vkey
	KeyGuix        KeyKind = "guix"        // of narinfos: no vkey
)

// keyKind is one row of the table of kinds.
type keyKind struct {
	kind     KeyKind
	prefix   string // the TYPE bytes of a vkey; empty: the kind has none
	contexts []Context
	persons  bool // the station has none
}

// keyKinds is the table of docs/spec/keys.md: what each kind may sign.
func keyKinds() [7]keyKind {
	persons := []Context{ContextRoot, ContextOrder, ContextAllowlist, ContextManifest, ContextStatement}
	return [...]keyKind{
		{KeyEd25519, "\x01", append(slices.Clone(persons), ContextCheckpoint), false},
		{KeyCosignature, "\x04", []Context{ContextWitness}, false},
		{KeyP256, "\xffsallyport-p256", persons, true},
		{KeySSHSIG, "\xffsallyport-sshsig", persons, true},
		{KeyMLDSA87, "\xffsallyport-mldsa87", []Context{ContextManifest}, true},
		{KeyMinisign, "", []Context{ContextSums}, false},
		{KeyGuix, "", []Context{ContextNarinfo}, false},
	}
}

// Bounds of a vkey's parts.
const (
	maxKeyType     = len("\xffsallyport-mldsa87")
	maxPublic      = mldsa.MLDSA87PublicKeySize
	cosignatureLen = 8 + ed25519.SignatureSize

	// MaxKeyLine bounds a `key` line of a root, and so a .pub file.
	MaxKeyLine = 4096
	// MaxSignature bounds a signature that counts, of whatever kind: what ML-DSA
	// makes is longer, and stands in notes only.
	MaxSignature = 1024
)

// KeyKinds returns all kinds.
func KeyKinds() []KeyKind {
	var kinds []KeyKind
	for _, k := range keyKinds() {
		kinds = append(kinds, k.kind)
	}
	return kinds
}

// ParseKeyKind parses the name of a kind.
func ParseKeyKind(s string) (KeyKind, error) {
	if slices.Contains(KeyKinds(), KeyKind(s)) {
		return KeyKind(s), nil
	}
	return "", fmt.Errorf("kind of key %.40q is not known", s)
}

// Contexts returns what a key of the kind may sign.
func (k KeyKind) Contexts() []Context {
	for _, row := range keyKinds() {
		if row.kind == k {
			return row.contexts
		}
	}
	return nil
}

func (k KeyKind) prefix() string {
	for _, row := range keyKinds() {
		if row.kind == k {
			return row.prefix
		}
	}
	return ""
}

// checkKind checks that a key of the kind may sign in the context for the owner.
func checkKind(kind KeyKind, context Context, owner string) error {
	for _, row := range keyKinds() {
		switch {
		case row.kind != kind:
		case !slices.Contains(row.contexts, context):
			return fmt.Errorf("a key of kind %s signs nothing in the context %s", kind, context)
		case owner == Station && row.persons:
			return fmt.Errorf("the station has no key of kind %s", kind)
		default:
			return nil
		}
	}
	return fmt.Errorf("kind of key %.40q is not known", string(kind))
}

// splitType takes the bytes of a vkey apart. No type is the beginning of another.
func splitType(b []byte) (KeyKind, []byte, error) {
	for _, row := range keyKinds() {
		if public, ok := strings.CutPrefix(string(b), row.prefix); ok && row.prefix != "" {
			return row.kind, []byte(public), nil
		}
	}
	return "", nil, errors.New("type of key is not known")
}

// checkPublic checks the public key's one spelling, and that no stranger can
// sign under it.
func (k VKey) checkPublic() error {
	var err error
	switch k.kind {
	case KeyEd25519, KeyCosignature, KeyMinisign:
		err = checkPoint(k.Public)
	case KeyP256:
		_, err = parseP256(k.Public)
	case KeySSHSIG:
		_, err = parseSSHPublic(k.Public)
	case KeyMLDSA87:
		err = checkMLDSA(k.Public)
	default:
		err = fmt.Errorf("kind of key %.40q is not known", string(k.kind))
	}
	if err != nil {
		return fmt.Errorf("key %s: %w", k.Name, err)
	}
	return nil
}

// A RawKey is what two public keys have in common to which one secret answers,
// whatever the forms they are written in. It means nothing but that, and may be
// compared and used in a map.
type RawKey string

func rawEd25519(public []byte) RawKey { return RawKey("ed25519 " + string(public)) }

// Raw returns the raw public key: an Ed25519 key is the same in a vkey, in a minisign key and inside
// ssh-ed25519, a P-256 key the same by itself and inside ecdsa-sha2-nistp256.
func (k VKey) Raw() RawKey {
	switch k.kind {
	case KeyEd25519, KeyCosignature, KeyMinisign:
		return rawEd25519(k.Public)
	case KeyP256:
		return RawKey("p256 " + string(k.Public))
	case KeySSHSIG:
		if s, err := splitSSHPublic(k.Public); err == nil {
			return s.raw()
		}
	}
	return RawKey(string(k.kind) + " " + string(k.Public))
}

// VKey returns the public key of a root's line, whatever its form: one for sums has
// the kind [KeyMinisign], whose signatures [VerifySums] verifies. A track's key for narinfos is Guix's
// and has none.
func (k RootKey) VKey() (VKey, error) {
	switch k.Context {
	case ContextNarinfo:
		return VKey{}, fmt.Errorf("the narinfo key of track %.40q is a key of Guix's own form", k.Owner)
	case ContextSums:
		if _, err := parseMinisignKey(k.Key); err != nil {
			return VKey{}, err
		}
		return nameKey(KeyMinisign, k.Owner+"/"+string(ContextSums), minisignPublic(k.Key))
	}
	v, err := ParseVKey(k.Key)
	if err != nil {
		return VKey{}, err
	}
	if v.Context != k.Context || v.Person != k.Owner {
		return VKey{}, fmt.Errorf("key %s stands on a line of %.40q in the context %.40q", v.Name, k.Owner, string(k.Context))
	}
	return v, nil
}

// Raw returns the raw public key of a root's line, of whatever form.
func (k RootKey) Raw() (RawKey, error) {
	if k.Context == ContextNarinfo {
		d, err := ParseDigest(k.Key) // the same spelling: 64 lower-case digits
		if err != nil {
			return "", fmt.Errorf("narinfo key of track %.40q: want 64 lower-case hexadecimal digits", k.Owner)
		}
		return rawEd25519(d[:]), nil
	}
	v, err := k.VKey()
	if err != nil {
		return "", err
	}
	return v.Raw(), nil
}

// Line prints the public key as it stands in a .pub file and, behind the word `key`, in a root.
func (k RootKey) Line() string { return string(k.Context) + " " + k.Owner + " " + k.Key }

// ParsePublic reads a .pub file: one line, CONTEXT OWNER KEY.
func ParsePublic(data []byte) (RootKey, error) {
	line, ok := strings.CutSuffix(string(data), "\n")
	f := strings.Split(line, " ")
	if !ok || len(data) > MaxKeyLine || len(f) != 3 || strings.ContainsAny(line, "\r\n\t") {
		return RootKey{}, errors.New("want one line, CONTEXT OWNER KEY, as `key generate` and `key agent` write it")
	}
	context, err := ParseContext(f[0])
	if err == nil {
		err = CheckWord(f[1])
	}
	if err != nil {
		return RootKey{}, err
	}
	k := RootKey{Context: context, Owner: f[1], Key: f[2]}
	_, err = k.Raw()
	return k, err
}
