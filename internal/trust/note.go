package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"filippo.io/mldsa"
)

// The first lines of the documents that are notes.
const (
	rootTitle      = "sallyport root v1"
	ordersTitle    = "sallyport orders v1"
	manifestTitle  = "sallyport manifest v1"
	allowlistTitle = "sallyport allowlist v1"
	rejectionTitle = "sallyport rejection v1"
)

// Bounds on the signatures of a note.
const (
	MaxSignatures = 100
	maxSigBlock   = 1 << 20 // bytes of all signature lines together
	maxSigBlob    = 8 << 10 // bytes of one signature, decoded
)

const sigPrefix = "— "

// A Note is a text whose signatures by known keys have all been verified, at
// least one of them.
type Note struct {
	Text    []byte
	Signers []VKey   // whose signatures stand under it, each once
	Ignored []string // NAME+HASH8 of signatures by keys that are not known
}

// OpenNote verifies a signed note with the given keys. The text may have at most
// limit bytes. doc is the first half of the codes of refusals: for "root"
// root-note (malformed), root-size, root-signature (a known key's signature is wrong) and
// root-unsigned (no known key that counts has signed).
func OpenNote(doc string, msg []byte, limit int, known []VKey) (*Note, error) {
	n, err := openNote(doc, msg, limit, known)
	if err == nil && !slices.ContainsFunc(n.Signers, VKey.Counts) {
		return nil, Refuse(doc+"-unsigned", doc, "no known key has signed it%s", n.ignored())
	}
	return n, err
}

// openNote is OpenNote for documents that ask for a threshold afterwards: no
// signature by a known key is not yet a fault.
func openNote(doc string, msg []byte, limit int, known []VKey) (*Note, error) {
	text, lines, err := SplitNote(doc, msg, limit)
	if err != nil {
		return nil, err
	}
	return verifyNote(doc, text, lines, known)
}

// verifyNote is openNote for what [SplitNote] took apart.
func verifyNote(doc string, text []byte, lines []string, known []VKey) (*Note, error) {
	verifiers := make(map[keyHash]VKey, len(known))
	for _, k := range known {
		h := keyHash{k.Name, k.Hash()}
		if other, ok := verifiers[h]; ok && !other.Equal(k) {
			return nil, Refuse(doc+"-key", doc, "two keys are %s", k.ID())
		}
		verifiers[h] = k
	}
	type claim struct {
		key VKey
		sig []byte
		ok  bool
	}
	var claims []claim
	var bad Refusals
	seen := make(map[keyHash]bool)
	n := &Note{Text: text}
	for _, line := range lines {
		h, sig, err := parseSigLine(line)
		if err != nil {
			bad.Add(Refuse(doc+"-note", doc, "%v", err))
			continue
		}
		k, ok := verifiers[h]
		if !ok {
			n.Ignored = append(n.Ignored, h.String())
			continue
		}
		// Package note skips a second signature by one key without a look at
		// it. Here none by a known key is skipped.
		if seen[h] {
			bad.Add(Refuse(doc+"-note", doc, "two signatures by %s", h))
		}
		seen[h] = true
		claims = append(claims, claim{key: k, sig: sig})
	}
	if len(bad) > 0 {
		return nil, bad
	}
	// Each signature hashes the whole text, which for a list is most of the work.
	var wg sync.WaitGroup
	for i := range claims {
		c := &claims[i]
		wg.Go(func() { c.ok = c.key.Verify(text, c.sig) })
	}
	wg.Wait()
	for _, c := range claims {
		if !c.ok {
			bad.Add(Refuse(doc+"-signature", doc, "the signature by %s does not verify", c.key.ID()))
		}
		n.Signers = append(n.Signers, c.key)
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return n, nil
}

func (n *Note) ignored() string {
	return list("; signatures by other keys: ", n.Ignored)
}

func list(intro string, words []string) string {
	if len(words) == 0 {
		return ""
	}
	return intro + strings.Join(words, ", ")
}

type keyHash struct {
	name string
	hash uint32
}

func (h keyHash) String() string { return fmt.Sprintf("%s+%08x", h.name, h.hash) }

// SplitNote takes a note apart without verifying anything: the text, and the
// signature lines without LF, whose form alone is checked.
func SplitNote(doc string, msg []byte, limit int) (text []byte, lines []string, err error) {
	i := bytes.LastIndex(msg, []byte("\n\n"))
	if i < 0 || msg[len(msg)-1] != '\n' {
		return nil, nil, Refuse(doc+"-note", doc, "not a signed note: want text, an empty line, lines of signatures")
	}
	text, sigs := msg[:i+1], msg[i+2:]
	if len(text) > limit {
		return nil, nil, Refuse(doc+"-size", doc, "text of %d bytes, more than %d", len(text), limit)
	}
	if len(sigs) == 0 || len(sigs) > maxSigBlock {
		return nil, nil, Refuse(doc+"-note", doc, "signatures of %d bytes, want 1 to %d", len(sigs), maxSigBlock)
	}
	lines = strings.Split(strings.TrimSuffix(string(sigs), "\n"), "\n")
	if len(lines) > MaxSignatures {
		return nil, nil, Refuse(doc+"-note", doc, "%d signatures, more than %d", len(lines), MaxSignatures)
	}
	var bad Refusals
	for _, line := range lines {
		if err := CheckLine(line); err != nil {
			bad.Add(Refuse(doc+"-note", doc, "%v", err))
		}
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	if off, fault := checkText(text); fault != "" {
		return nil, nil, Refuse(doc+"-syntax", doc, "%s", fault).At(off)
	}
	return text, lines, nil
}

// parseSigLine checks the form of a signature line and says whose it claims to be.
func parseSigLine(line string) (h keyHash, sig []byte, err error) {
	rest, ok := strings.CutPrefix(line, sigPrefix)
	name, b64, two := strings.Cut(rest, " ")
	if !ok || !two || name == "" || len(name) > maxKeyName || strings.ContainsRune(name, '+') {
		return keyHash{}, nil, fmt.Errorf("signature line %.80q: want `%sNAME BASE64`", line, sigPrefix)
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= 0x20 || name[i] > 0x7e {
			return keyHash{}, nil, fmt.Errorf("signature line %.80q: the name is not printable ASCII", line)
		}
	}
	blob, err := decode64(b64, maxSigBlob)
	if err == nil && len(blob) < 5 {
		err = errors.New("too short")
	}
	if err != nil {
		return keyHash{}, nil, fmt.Errorf("signature line %.80q: %w", line, err)
	}
	return keyHash{name, binary.BigEndian.Uint32(blob)}, blob[4:], nil
}

// SignText returns the signature line, without LF, of a signer under a root, orders, a manifest, an
// allowlist, a rejection or a checkpoint. A key of another context than the text's is
// refused (key-context).
func SignText(text []byte, s Signer) (line string, err error) {
	if err := checkSign(s.Name(), s.Context(), text); err != nil {
		return "", err
	}
	sig, err := s.Sign(s.Context(), text)
	if err != nil {
		return "", err
	}
	return sigLine(s.VKey(), sig), nil
}

// CosignText returns the signature line, without LF, of a witness under a checkpoint.
func CosignText(text []byte, s Signer, at time.Time) (line string, err error) {
	if err := checkContext(s.Name(), s.Context(), ContextWitness); err != nil {
		return "", err
	}
	if len(text) == 0 || text[len(text)-1] != '\n' || textContext(text) != ContextCheckpoint {
		return "", Refuse("key-context", s.Name(), "only checkpoints are cosigned")
	}
	if at.Unix() < 0 {
		return "", fmt.Errorf("key %s: time %s before 1970", s.Name(), FormatDate(at))
	}
	sig, err := s.Sign(ContextWitness, cosigned(at.Unix(), text))
	if err != nil {
		return "", err
	}
	return sigLine(s.VKey(), sig), nil
}

const proofText = "sallyport proof of possession v1\n"

// Proof is what a key signs to show that it can sign in a context. No document begins so: the signature is worth nothing else.
func Proof(c Context) []byte {
	if c == ContextWitness {
		return cosigned(0, []byte(proofText))
	}
	return []byte(proofText)
}

// sigLine prints a signature line.
func sigLine(k VKey, sig []byte) string {
	blob := binary.BigEndian.AppendUint32(nil, k.Hash())
	return sigPrefix + k.Name + " " + base64.StdEncoding.EncodeToString(append(blob, sig...))
}

// LineOf returns the name that stands in a signature line, and whether the line is no more than an additional signature, by an ML-DSA-87 key. It
// verifies nothing: the length of the signature tells.
func LineOf(line string) (name string, additional bool, err error) {
	h, sig, err := parseSigLine(line)
	return h.name, len(sig) == mldsa.MLDSA87SignatureSize, err
}

// JoinNote puts a note together from its text and signature lines.
func JoinNote(text []byte, lines ...string) []byte {
	var b bytes.Buffer
	size := len(text) + 1
	for _, line := range lines {
		size += len(line) + 1
	}
	b.Grow(size)
	b.Write(text)
	b.WriteByte('\n')
	for _, line := range lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// SignNote has each signer sign a text and returns the note. Keys from files sign at once, since each hashes the whole text twice; a signer that may ask
// a person for something waits for the one before it.
func SignNote(text []byte, signers ...Signer) ([]byte, error) {
	lines, errs := make([]string, len(signers)), make([]error, len(signers))
	var wg sync.WaitGroup
	for i, s := range signers {
		sign := func() { lines[i], errs[i] = SignText(text, s) }
		if _, file := s.(*Key); file {
			wg.Go(sign)
		} else if sign(); errs[i] != nil {
			break
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return JoinNote(text, lines...), nil
}

// VerifyLine verifies one signature line under a text: it must be by a known key.
// The codes are those of [OpenNote].
func VerifyLine(doc string, text []byte, line string, known []VKey) (VKey, error) {
	if strings.Contains(line, "\n") {
		return VKey{}, Refuse(doc+"-note", doc, "more than one signature line")
	}
	n, err := OpenNote(doc, JoinNote(text, line), len(text), known)
	if err != nil {
		return VKey{}, err
	}
	return n.Signers[0], nil
}
