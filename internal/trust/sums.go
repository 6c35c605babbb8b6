package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"aead.dev/minisign"
	"golang.org/x/crypto/blake2b"
)

// maxSumsSig is more than twice what a signature of sums needs.
const maxSumsSig = 4096

// SignSums signs the bytes of SHA256SUMS or SHA512SUMS with a key for sums and
// returns a minisign signature file (pre-hashed), as `minisign -V` takes it.
func SignSums(s Signer, sums []byte, trustedComment string) ([]byte, error) {
	if err := CheckContext(s, ContextSums); err != nil {
		return nil, err
	}
	if err := checkComment(trustedComment); err != nil {
		return nil, err
	}
	public, err := parseMinisignKey(s.RootKey().Key)
	if err != nil {
		return nil, err
	}
	sign := func(message []byte) ([]byte, error) {
		sig, err := s.Sign(ContextSums, message)
		if err == nil && len(sig) != ed25519.SignatureSize {
			err = fmt.Errorf("key %s: signature of %d bytes, want %d", s.Name(), len(sig), ed25519.SignatureSize)
		}
		return sig, err
	}
	hash := blake2b.Sum512(sums)
	sig, err := sign(hash[:])
	if err != nil {
		return nil, err
	}
	comment, err := sign(append(bytes.Clone(sig), trustedComment...))
	if err != nil {
		return nil, err
	}
	file := minisign.Signature{
		Algorithm:        minisign.HashEdDSA,
		KeyID:            public.ID(),
		TrustedComment:   trustedComment,
		UntrustedComment: "signature by " + s.Name(),
		Signature:        [ed25519.SignatureSize]byte(sig),
		CommentSignature: [ed25519.SignatureSize]byte(comment),
	}
	return file.MarshalText()
}

// VerifySums verifies a minisign signature of sums under a minisign public key, as
// a root has it. The trusted comment must be the wanted one. The refusal's code is
// volume-signature.
func VerifySums(pub string, sums, sig []byte, wantComment string) error {
	refuse := func(format string, args ...any) *Refusal {
		return Refuse("volume-signature", "sums", format, args...)
	}
	key, err := parseMinisignKey(pub)
	if err != nil {
		return err
	}
	if len(sig) > maxSumsSig {
		return refuse("signature file of %d bytes, more than %d", len(sig), maxSumsSig)
	}
	var s minisign.Signature
	if err := s.UnmarshalText(sig); err != nil {
		return refuse("%v", err)
	}
	// The library reads CR at the ends of lines, and LF within base64.
	if text, err := s.MarshalText(); err != nil || !bytes.Equal(text, sig) || checkComment(s.UntrustedComment) != nil {
		return refuse("the signature file is not spelled as minisign spells it")
	}
	if s.Algorithm != minisign.HashEdDSA {
		return refuse("legacy signature; want a pre-hashed one (ED)").WithHint("sign with `minisign -S -H`")
	}
	if s.KeyID != key.ID() {
		return refuse("made with key %016X, want %016X", s.KeyID, key.ID())
	}
	if !minisign.Verify(key, sums, sig) {
		return refuse("it does not verify")
	}
	if s.TrustedComment != wantComment {
		return refuse("trusted comment %.200q, want %q", s.TrustedComment, wantComment)
	}
	return nil
}

// SumsComment is the trusted comment of a shipment's sums.
func SumsComment(enclave string, shipment int64) string {
	return fmt.Sprintf("sallyport %s shipment %d", enclave, shipment)
}

// SumsKeyID returns the key id under which people know a minisign public key.
func SumsKeyID(pub string) (string, error) {
	key, err := parseMinisignKey(pub)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%016X", key.ID()), nil
}

func checkComment(s string) error {
	if len(s) > 1024 || strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) >= 0 {
		return fmt.Errorf("comment %.80q: want at most 1024 characters of printable ASCII", s)
	}
	return nil
}

// minisignKeyLen is the length of a public key as text, of which the last 32
// bytes are the Ed25519 key.
const minisignKeyLen = 56

// parseMinisignKey parses the second line of a minisign public key file.
func parseMinisignKey(s string) (minisign.PublicKey, error) {
	var key minisign.PublicKey
	if len(s) != minisignKeyLen {
		return key, fmt.Errorf("minisign public key %.80q: want %d characters", s, minisignKeyLen)
	}
	if err := key.UnmarshalText([]byte(s)); err != nil {
		return key, err
	}
	if key.String() != s {
		return key, fmt.Errorf("minisign public key %q: not in its one spelling", s)
	}
	return key, checkPoint(minisignPublic(s))
}

// minisignText prints a minisign public key.
func minisignText(id, public []byte) string {
	return base64.StdEncoding.EncodeToString(slices.Concat([]byte(algorithmEd), id, public))
}

// minisignPublic returns the Ed25519 key of a minisign public key.
func minisignPublic(s string) []byte {
	b, err := decode64(s, 42)
	if err != nil || len(b) != 42 {
		return nil
	}
	return b[10:]
}
