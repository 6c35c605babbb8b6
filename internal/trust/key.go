package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
	"golang.org/x/mod/sumdb/note"
)

// The first line of a key file; NAME stands behind it.
const keyComment = "untrusted comment: sallyport secret key "

// maxKeyFile is more than twice what a key file needs.
const maxKeyFile = 1024

// The bytes of a minisign secret key, decoded.
const (
	keyFileLen = 158
	keyFileKDF = 2   // two bytes: none or scrypt
	keyFileRaw = 54  // key id, then seed and public key, then checksum
	keyFileSum = 126 // BLAKE2b-256 of algorithm, key id and key
)

// A Key is a secret key in one context.
type Key struct {
	name    string
	person  string
	context Context
	private ed25519.PrivateKey
	mini    minisign.PrivateKey
}

// GenerateKey makes a key from 32 bytes of rand. The name says whose it is and
// what it signs: PERSON/CONTEXT, or the origin of a ledger.
func GenerateKey(rand io.Reader, name string) (*Key, error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	id := blake2b.Sum256(private[ed25519.SeedSize:])
	return newKey(name, id[:8], private)
}

func newKey(name string, id []byte, private ed25519.PrivateKey) (*Key, error) {
	person, context, err := parseKeyName(name)
	if err != nil {
		return nil, err
	}
	// A public half that is not the seed's makes a signer give away its secret.
	if !bytes.Equal(ed25519.NewKeyFromSeed(private.Seed()), private) {
		return nil, fmt.Errorf("key %s: the public half does not belong to the secret one", name)
	}
	k := &Key{name: name, person: person, context: context, private: private}
	if err := k.mini.UnmarshalText(marshalPlain("", id, private)); err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	return k, nil
}

// marshalPlain prints a key file without passphrase, as `minisign -G -W` does: the
// checksum is there.
func marshalPlain(name string, id []byte, private ed25519.PrivateKey) []byte {
	b := make([]byte, keyFileLen)
	copy(b, "Ed\x00\x00B2")
	copy(b[keyFileRaw:], id)
	copy(b[keyFileRaw+8:], private)
	sum := blake2b.Sum256(append([]byte("Ed"), b[keyFileRaw:keyFileSum]...))
	copy(b[keyFileSum:], sum[:])
	return fmt.Appendf(nil, "%s%s\n%s\n", keyComment, name, base64.StdEncoding.EncodeToString(b))
}

// Marshal returns the key file: a minisign secret key, encrypted unless the
// passphrase is empty. Encryption takes seconds and 1 GiB by design.
func (k *Key) Marshal(passphrase string) ([]byte, error) {
	if passphrase == "" {
		var id [8]byte
		binary.LittleEndian.PutUint64(id[:], k.mini.ID())
		return marshalPlain(k.name, id[:], k.private), nil
	}
	text, err := minisign.EncryptKey(passphrase, k.mini)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.name, err)
	}
	_, body, _ := bytes.Cut(text, []byte("\n"))
	return fmt.Appendf(nil, "%s%s\n%s\n", keyComment, k.name, bytes.TrimSpace(body)), nil
}

// ErrPassphrase is returned by [ParseKey] for an encrypted key when there is no
// way to ask, or when the answer does not open it.
var ErrPassphrase = errors.New("the passphrase does not open the key")

// ParseKey reads a key file. It calls passphrase only if the key is
// encrypted; passphrase may be nil. The name is the last word of the first line: it is
// not protected, and a key that was renamed verifies under no root.
func ParseKey(data []byte, passphrase func() (string, error)) (*Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("key file of %d bytes, more than %d", len(data), maxKeyFile)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	words := strings.Fields(first)
	if !strings.HasPrefix(first, "untrusted comment: ") || len(words) < 3 {
		return nil, errors.New("key file: the first line is not `untrusted comment: … NAME`")
	}
	name := words[len(words)-1]
	if _, _, err := parseKeyName(name); err != nil {
		return nil, fmt.Errorf("key file: the first line does not end in the key's name: %w", err)
	}
	var mini minisign.PrivateKey
	if minisign.IsEncrypted(data) {
		if passphrase == nil {
			return nil, fmt.Errorf("key %s: it is encrypted: %w", name, ErrPassphrase)
		}
		pass, err := passphrase()
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		if mini, err = minisign.DecryptKey(pass, data); err != nil {
			return nil, fmt.Errorf("key %s: %w", name, ErrPassphrase)
		}
	} else if err := mini.UnmarshalText(data); err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	// The library keeps the raw key to itself; its file form, which it prints
	// without passphrase, has it at a fixed place.
	text, err := mini.MarshalText()
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", name, err)
	}
	_, body, _ := bytes.Cut(text, []byte("\n"))
	raw, err := decode64(string(body), keyFileLen)
	if err != nil || len(raw) != keyFileLen {
		return nil, fmt.Errorf("key %s: malformed", name)
	}
	return newKey(name, raw[keyFileRaw:keyFileRaw+8], raw[keyFileRaw+8:keyFileSum])
}

// Name returns the key's name.
func (k *Key) Name() string { return k.name }

// Person returns whose key it is.
func (k *Key) Person() string { return k.person }

// Context returns what the key signs.
func (k *Key) Context() Context { return k.context }

// VKey returns the public half of any key but one for sums, whose public half
// has no vkey; see [Key.Public].
func (k *Key) VKey() VKey {
	return VKey{k.name, k.person, k.context, ed25519.PublicKey(k.private[ed25519.SeedSize:])}
}

// ID returns NAME+HASH8.
func (k *Key) ID() string { return k.VKey().ID() }

// Public returns the public half as it stands in a root: a minisign public key for
// sums, else a vkey.
func (k *Key) Public() string {
	if k.context == ContextSums {
		return k.mini.Public().(minisign.PublicKey).String()
	}
	return k.VKey().String()
}

// RootKey returns the key's line for a root.
func (k *Key) RootKey() RootKey { return RootKey{k.context, k.person, k.Public()} }

// Minisign returns the key for the minisign library; only a sums key gives it.
func (k *Key) Minisign() (minisign.PrivateKey, error) {
	if k.context != ContextSums {
		return minisign.PrivateKey{}, k.wrongContext(ContextSums)
	}
	return k.mini, nil
}

func (k *Key) wrongContext(want Context) error {
	return fmt.Errorf("key %s signs in the context %s, not %s", k.name, k.context, want)
}

// Sign returns the Ed25519 signature of a message in a context, which must be the key's.
// What a sums or a witness key signs has a form of its own: [SignSums], [Key.Cosigner].
func (k *Key) Sign(context Context, message []byte) ([]byte, error) {
	if k.context != context {
		return nil, k.wrongContext(context)
	}
	if context == ContextSums || context == ContextWitness {
		return nil, fmt.Errorf("key %s: the context %s has its own form of signature", k.name, context)
	}
	return ed25519.Sign(k.private, message), nil
}

// Signer returns the key in the form that package note takes. It signs texts of
// its own context only, known by their first line.
func (k *Key) Signer() note.Signer { return noteSigner{k, k.VKey().Hash(), -1} }

// Cosigner returns a witness key that cosigns a checkpoint at the given time.
func (k *Key) Cosigner(at time.Time) (note.Signer, error) {
	if k.context != ContextWitness {
		return nil, k.wrongContext(ContextWitness)
	}
	if at.Unix() < 0 {
		return nil, fmt.Errorf("key %s: time %s before 1970", k.name, FormatDate(at))
	}
	return noteSigner{k, k.VKey().Hash(), at.Unix()}, nil
}

type noteSigner struct {
	k       *Key
	hash    uint32
	seconds int64 // of a cosignature; -1 for other signatures
}

func (s noteSigner) Name() string    { return s.k.name }
func (s noteSigner) KeyHash() uint32 { return s.hash }
func (s noteSigner) Sign(msg []byte) ([]byte, error) {
	context := textContext(msg)
	if s.seconds >= 0 {
		if context != ContextCheckpoint {
			return nil, fmt.Errorf("key %s: only checkpoints are cosigned", s.k.name)
		}
		sig := binary.BigEndian.AppendUint64(nil, uint64(s.seconds))
		return append(sig, ed25519.Sign(s.k.private, cosigned(s.seconds, msg))...), nil
	}
	if context == ContextCheckpoint && !bytes.HasPrefix(msg, []byte(s.k.name+"\n")) && s.k.context == ContextCheckpoint {
		return nil, fmt.Errorf("key %s: the checkpoint is of another ledger", s.k.name)
	}
	return s.k.Sign(context, msg)
}

// textContext says in which context a text is signed, by its first line.
func textContext(text []byte) Context {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch string(first) {
	case rootTitle:
		return ContextRoot
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
