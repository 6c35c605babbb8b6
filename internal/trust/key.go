package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/mldsa"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/mod/sumdb/note"
)

// A Signer signs in one context, as one person: a [Key] from a file, or what
// stands for a key that lies elsewhere, in an agent or on a card.
type Signer interface {
	Name() string
	Person() string
	Context() Context
	VKey() VKey       // the public half; of a key for sums one of kind [KeyMinisign]
	RootKey() RootKey // its line in a root
	// Sign returns the signature of the message by a key of this kind, and refuses (key-context) another context than the key's.
	// Of a key for sums it is the bare Ed25519 signature, which [SignSums] makes a file of; a witness's key takes what [CosignText]
	// hands it.
	Sign(c Context, message []byte) ([]byte, error)
}

// A Key is a secret key in one context, from a file.
type Key struct {
	v       VKey
	id      [keyIDLen]byte
	private ed25519.PrivateKey // of the kinds that are Ed25519
	mldsa   *mldsa.PrivateKey  // of kind mldsa87
}

// GenerateKey makes a key from 32 bytes of rand. The name says whose it is and
// what it signs: PERSON/CONTEXT, or the origin of a ledger.
func GenerateKey(rand io.Reader, name string) (*Key, error) {
	_, context, err := parseKeyName(name)
	if err != nil {
		return nil, err
	}
	return GenerateKeyOf(rand, fileKind(context), name)
}

// fileKind returns the kind that a key file has in a context, unless it is one of ML-DSA.
func fileKind(c Context) KeyKind {
	switch c {
	case ContextSums:
		return KeyMinisign
	case ContextWitness:
		return KeyCosignature
	}
	return KeyEd25519
}

// GenerateKeyOf makes a key of a kind that lies in files.
func GenerateKeyOf(rand io.Reader, kind KeyKind, name string) (*Key, error) {
	var seed [ed25519.SeedSize]byte // and mldsa.PrivateKeySize
	defer clear(seed[:])
	if _, err := io.ReadFull(rand, seed[:]); err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return newKey(kind, name, nil, seed[:])
}

// newKey makes a key from its seed. The id of a new key follows from the public half; nil.
func newKey(kind KeyKind, name string, id, seed []byte) (*Key, error) {
	k := new(Key)
	var public []byte
	switch kind {
	case KeyEd25519, KeyCosignature, KeyMinisign:
		k.private = ed25519.NewKeyFromSeed(seed)
		public = bytes.Clone(k.private[ed25519.SeedSize:])
	case KeyMLDSA87:
		var err error
		if k.mldsa, err = mldsa.NewPrivateKey(mldsa.MLDSA87(), seed); err != nil {
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		public = k.mldsa.PublicKey().Bytes()
	default:
		return nil, fmt.Errorf("key %s: no key file has a key of kind %.40q", name, string(kind))
	}
	var err error
	if k.v, err = nameKey(kind, name, public); err != nil {
		return nil, err
	}
	if k.id = keyID(public); id != nil {
		k.id = [keyIDLen]byte(id)
	}
	return k, nil
}

const keyIDLen = 8

// keyID is the id of a new key: minisign, which draws one at random, shows it to people.
func keyID(public []byte) [keyIDLen]byte {
	h := blake2b.Sum256(public)
	return [keyIDLen]byte(h[:])
}

// Name returns the key's name.
func (k *Key) Name() string { return k.v.Name }

// Person returns whose key it is.
func (k *Key) Person() string { return k.v.Person }

// Context returns what the key signs.
func (k *Key) Context() Context { return k.v.Context }

// Kind returns the key's kind.
func (k *Key) Kind() KeyKind { return k.v.kind }

// VKey returns the public half. That of a key for sums stands in a root in
// another form; see [Key.Public].
func (k *Key) VKey() VKey { return k.v }

// ID returns NAME+HASH8.
func (k *Key) ID() string { return k.v.ID() }

// Public returns the public half as it stands in a root: a minisign public key for
// sums, else a vkey.
func (k *Key) Public() string {
	if k.v.kind == KeyMinisign {
		return minisignText(k.id[:], k.v.Public)
	}
	return k.v.String()
}

// RootKey returns the key's line for a root.
func (k *Key) RootKey() RootKey {
	return RootKey{Context: k.v.Context, Owner: k.v.Person, Key: k.Public()}
}

// Format prints the key's name and nothing of its secret, whatever the verb.
func (k Key) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "key %s", k.v.Name) }

// Sign signs a message in a context, which must be the key's: see [Signer].
func (k *Key) Sign(c Context, message []byte) ([]byte, error) {
	if err := CheckContext(k, c); err != nil {
		return nil, err
	}
	switch k.v.kind {
	case KeyEd25519, KeyMinisign:
		return ed25519.Sign(k.private, message), nil
	case KeyCosignature:
		seconds, _, ok := splitCosigned(message)
		if !ok {
			return nil, fmt.Errorf("key %s: a witness key signs cosignatures only", k.v.Name)
		}
		return append(binary.BigEndian.AppendUint64(nil, uint64(seconds)), ed25519.Sign(k.private, message)...), nil
	case KeyMLDSA87:
		return k.mldsa.SignDeterministic(message, &mldsa.Options{Context: sigContext(c)})
	}
	return nil, fmt.Errorf("key %s: no key file has a key of kind %s", k.v.Name, k.v.kind)
}

// CheckContext refuses (key-context) a signer that signs in another context.
func CheckContext(s Signer, want Context) error { return checkContext(s.Name(), s.Context(), want) }

func checkContext(name string, have, want Context) error {
	if have == want {
		return nil
	}
	what := "in the context " + string(want)
	if want == "" {
		what = "what is no document of a known kind"
	}
	return Refuse("key-context", name, "it signs in the context %s; it does not sign %s", have, what).
		WithHint("a key signs in one context: its name ends in it")
}

// checkSign checks that a key of the name and context may sign the text, which its first line tells.
func checkSign(name string, c Context, text []byte) error {
	if len(text) == 0 || text[len(text)-1] != '\n' {
		return errors.New("the text to be signed does not end in LF")
	}
	of := textContext(text)
	if err := checkContext(name, c, of); err != nil {
		return err
	}
	if of == ContextCheckpoint && !bytes.HasPrefix(text, []byte(name+"\n")) {
		return Refuse("key-context", name, "the checkpoint is of another ledger")
	}
	return nil
}

// NoteSigner returns a signer in the form that package note takes. It signs texts
// of its own context only, known by their first line.
func NoteSigner(s Signer) note.Signer { return noteSigner{s, s.VKey().Hash()} }

type noteSigner struct {
	s    Signer
	hash uint32
}

func (n noteSigner) Name() string    { return n.s.Name() }
func (n noteSigner) KeyHash() uint32 { return n.hash }
func (n noteSigner) Sign(msg []byte) ([]byte, error) {
	if err := checkSign(n.s.Name(), n.s.Context(), msg); err != nil {
		return nil, err
	}
	return n.s.Sign(n.s.Context(), msg)
}

// textContext says in which context a text is signed, by its first line.
func textContext(text []byte) Context {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch string(first) {
	case rootTitle:
		return ContextRoot
	case ordersTitle:
		return ContextOrder
	case manifestTitle:
		return ContextManifest
	case allowlistTitle, rejectionTitle:
		return ContextAllowlist
	}
	if _, _, err := ParseOrigin(string(first)); err == nil {
		return ContextCheckpoint
	}
	return ""
}
