package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/scrypt"
)

// The first line of a key file; NAME stands behind it.
const keyComment = "untrusted comment: sallyport secret key "

// maxKeyFile is more than twice what a key file needs.
const maxKeyFile = 1024

// A key file's second line is base64 of
//
//	algorithm   2 bytes: Ed, or ML for ML-DSA-87
//	derivation  2 bytes: Sc for scrypt, 00 00 for no passphrase
//	checksum    2 bytes: B2 for BLAKE2b-256
//	salt        32 bytes
//	work        8 bytes, little-endian
//	memory      8 bytes, little-endian
//	body        key id (8), secret (64 for Ed, 32 for ML), checksum of algorithm and both (32);
//	            each byte exclusive-or one of scrypt's stream, if there is a passphrase
//
// which for Ed is what minisign writes.
const (
	keyFileKDF    = 2
	keyFileHash   = 4
	keyFileSalt   = 6
	keyFileWork   = 38
	keyFileMemory = 46
	keyFileBody   = 54

	algorithmEd    = "Ed"
	algorithmMLDSA = "ML"
	derivationNone = "\x00\x00"
	derivationS    = "Sc"
	checksumB2     = "B2"
	keyFileSumLen  = blake2b.Size256
)

// What scrypt is asked for, and the most it may be asked for by a file: libsodium's "sensitive".
const (
	scryptWork      = 1 << 25
	scryptMemory    = 1 << 30
	scryptMinWork   = 1 << 15
	scryptBlock     = 8
	scryptMaxLog    = 30
	maxPassphrase   = 4096
	scryptPerBlock  = 4 * scryptBlock   // work a unit of N
	scryptPerMemory = 128 * scryptBlock // bytes a unit of N
)

// ErrPassphrase is returned by [ParseKey] for an encrypted key when there is no
// way to ask, or when the answer does not open it.
var ErrPassphrase = errors.New("the passphrase does not open the key")

// secretLen is how long the secret in a file of the algorithm is.
func secretLen(algorithm string) int {
	switch algorithm {
	case algorithmEd:
		return ed25519.PrivateKeySize
	case algorithmMLDSA:
		return ed25519.SeedSize
	}
	return 0
}

// Marshal returns the key file, encrypted unless the passphrase is empty; rand
// is read for that only. Encryption takes seconds and 1 GiB by design.
func (k *Key) Marshal(rand io.Reader, passphrase []byte) ([]byte, error) {
	algorithm, secret := algorithmEd, []byte(k.private)
	if k.v.kind == KeyMLDSA87 {
		algorithm, secret = algorithmMLDSA, k.mldsa.Bytes()
		defer clear(secret)
	}
	b := make([]byte, keyFileBody, keyFileBody+keyIDLen+len(secret)+keyFileSumLen)
	copy(b, algorithm+derivationNone+checksumB2)
	b = append(append(b, k.id[:]...), secret...)
	b = append(b, keyFileSum(b)...)
	defer clear(b)
	if len(passphrase) > 0 {
		copy(b[keyFileKDF:], derivationS)
		if _, err := io.ReadFull(rand, b[keyFileSalt:keyFileWork]); err != nil {
			return nil, fmt.Errorf("key %s: salt: %w", k.v.Name, err)
		}
		binary.LittleEndian.PutUint64(b[keyFileWork:], scryptWork)
		binary.LittleEndian.PutUint64(b[keyFileMemory:], scryptMemory)
		if err := crypt(b, passphrase); err != nil {
			return nil, fmt.Errorf("key %s: %w", k.v.Name, err)
		}
	}
	return fmt.Appendf(nil, "%s%s\n%s\n", keyComment, k.v.Name, base64.StdEncoding.EncodeToString(b)), nil
}

// keyFileSum is the checksum of a plain file's bytes up to it.
func keyFileSum(b []byte) []byte {
	message := append(bytes.Clone(b[:len(algorithmEd)]), b[keyFileBody:]...)
	defer clear(message)
	sum := blake2b.Sum256(message)
	return sum[:]
}

// crypt encrypts or decrypts the body of a file, as its other fields say.
func crypt(b, passphrase []byte) error {
	work, memory := binary.LittleEndian.Uint64(b[keyFileWork:]), binary.LittleEndian.Uint64(b[keyFileMemory:])
	if work > scryptWork || memory > scryptMemory {
		return errors.New("the key file asks scrypt for more work or memory than minisign ever does")
	}
	if len(passphrase) > maxPassphrase {
		return fmt.Errorf("passphrase of %d bytes, more than %d", len(passphrase), maxPassphrase)
	}
	n, p := scryptCost(work, memory)
	body := b[keyFileBody:]
	stream, err := scrypt.Key(passphrase, b[keyFileSalt:keyFileWork], n, scryptBlock, p, len(body))
	if err != nil {
		return err
	}
	subtle.XORBytes(body, body, stream)
	clear(stream)
	return nil
}

// scryptCost turns libsodium's limits into scrypt's N and p, as libsodium does.
func scryptCost(work, memory uint64) (n, p int) {
	work = max(work, scryptMinWork)
	power := func(limit uint64) int {
		log := 1
		for log < scryptMaxLog && uint64(1)<<log <= limit/2 {
			log++
		}
		return 1 << log
	}
	if work < memory/32 {
		return power(work / scryptPerBlock), 1
	}
	n = power(memory / scryptPerMemory)
	return n, int(work/4/uint64(n)) / scryptBlock
}

// ParseKey reads a key file. It calls passphrase only if the key is
// encrypted, and wipes what that returns; passphrase may be nil. The name is the last word of the first line: it is
// not protected, and a key that was renamed verifies under no root.
func ParseKey(data []byte, passphrase func() ([]byte, error)) (*Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("key file of %d bytes, more than %d", len(data), maxKeyFile)
	}
	line, body, _ := bytes.Cut(data, []byte("\n"))
	first := string(line)
	words := strings.Fields(first)
	if !strings.HasPrefix(first, "untrusted comment: ") || len(words) < 3 {
		return nil, errors.New("key file: the first line is not `untrusted comment: … NAME`")
	}
	name := words[len(words)-1]
	_, context, err := parseKeyName(name)
	if err != nil {
		return nil, fmt.Errorf("key file: the first line does not end in the key's name: %w", err)
	}
	text := bytes.TrimSpace(body)
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	defer clear(b)
	size, err := base64.StdEncoding.Strict().Decode(b, text)
	b = b[:size]
	if err != nil || bytes.ContainsAny(text, "\r\n") || len(b) < keyFileBody {
		return nil, fmt.Errorf("key %s: malformed", name)
	}
	algorithm := string(b[:keyFileKDF])
	secret := secretLen(algorithm)
	if secret == 0 || len(b) != keyFileBody+keyIDLen+secret+keyFileSumLen || string(b[keyFileHash:keyFileSalt]) != checksumB2 {
		return nil, fmt.Errorf("key %s: malformed", name)
	}
	end := len(b) - keyFileSumLen
	switch derivation := string(b[keyFileKDF:keyFileHash]); derivation {
	case derivationNone:
		// minisign itself writes files without passphrase with a checksum of zeroes.
		if !bytes.Equal(b[end:], make([]byte, keyFileSumLen)) && subtle.ConstantTimeCompare(keyFileSum(b[:end]), b[end:]) != 1 {
			return nil, fmt.Errorf("key %s: the checksum is not that of the key", name)
		}
	case derivationS:
		if passphrase == nil {
			return nil, fmt.Errorf("key %s: it is encrypted: %w", name, ErrPassphrase)
		}
		pass, err := passphrase()
		if err == nil {
			err = crypt(b, pass)
		}
		clear(pass)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", name, err)
		}
		if subtle.ConstantTimeCompare(keyFileSum(b[:end]), b[end:]) != 1 {
			return nil, fmt.Errorf("key %s: %w", name, ErrPassphrase)
		}
	default:
		return nil, fmt.Errorf("key %s: derivation %q is not known", name, derivation)
	}
	kind := fileKind(context)
	if algorithm == algorithmMLDSA {
		kind = KeyMLDSA87
	}
	id, raw := b[keyFileBody:keyFileBody+keyIDLen], b[keyFileBody+keyIDLen:end]
	k, err := newKey(kind, name, id, raw[:ed25519.SeedSize])
	if err != nil {
		return nil, err
	}
	// A public half that is not the seed's makes a signer give away its secret.
	if algorithm == algorithmEd && !bytes.Equal(k.v.Public, raw[ed25519.SeedSize:]) {
		return nil, fmt.Errorf("key %s: the public half does not belong to the secret one", name)
	}
	return k, nil
}
