package ledger

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// Bounds of the format.
const (
	// Height is the height of a tile: a full one has 1<<Height hashes.
	Height = 8
	// TileWidth is the number of hashes in a full tile, of leaves in a full bundle.
	TileWidth = 1 << Height
	// MaxLeaf is what the 16 bits of a length in a bundle can say.
	MaxLeaf = 65_535
	// MaxCheckpoint bounds a checkpoint with all its signatures.
	MaxCheckpoint = 64 << 10
	// MaxSize bounds the size of a tree, so that no arithmetic on indexes overflows.
	MaxSize = 1 << 48

	maxText = 512 // of a checkpoint's three lines
)

// A Checkpoint is what a log is at one moment.
type Checkpoint struct {
	Origin string
	Size   int64
	Root   tlog.Hash
}

// EmptyRoot is the root of a tree without leaves: SHA-256 of nothing.
func EmptyRoot() tlog.Hash { return tlog.Hash(trust.Sum(nil)) }

// Text is the text that is signed.
func (c Checkpoint) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, c.RootText())
}

// RootText is the root as it stands in the text.
func (c Checkpoint) RootText() string { return base64.StdEncoding.EncodeToString(c.Root[:]) }

// ParseCheckpoint parses the text of a checkpoint: exactly its three lines, in their one spelling.
func ParseCheckpoint(text []byte) (Checkpoint, error) {
	bad := func(format string, args ...any) (Checkpoint, error) {
		return Checkpoint{}, trust.Refuse("checkpoint-syntax", "checkpoint", format, args...)
	}
	if len(text) > maxText {
		return bad("%d bytes, more than %d", len(text), maxText)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return bad("want three lines: origin, size, root")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > MaxSize || strconv.FormatInt(size, 10) != lines[1] {
		return bad("size %.40q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return bad("root %.80q", lines[2])
	}
	if _, _, err := trust.ParseOrigin(lines[0]); err != nil {
		return bad("%v", err)
	}
	c := Checkpoint{Origin: lines[0], Size: size, Root: tlog.Hash(root)}
	if string(c.Text()) != string(text) {
		return bad("not in its one spelling")
	}
	if size == 0 && c.Root != EmptyRoot() {
		return bad("an empty tree with another root than that of nothing")
	}
	return c, nil
}

// SignCheckpoint signs with the key of the log, whose name is the origin. Where the log changes its key, the leaving one signs beside it; those that are nil do not.
func SignCheckpoint(c Checkpoint, key *trust.Key, leaving ...*trust.Key) ([]byte, error) {
	signers := []trust.Signer{key}
	for _, k := range leaving {
		if k != nil {
			signers = append(signers, k)
		}
	}
	for _, k := range signers {
		if k.Name() != c.Origin {
			return nil, fmt.Errorf("checkpoint of %s cannot be signed with the key %s", c.Origin, k.Name())
		}
	}
	return trust.SignNote(c.Text(), signers...)
}

// OpenCheckpoint verifies a signed checkpoint: by the log's key, of this
// origin. Signatures of others, such as witnesses, are not looked at.
func OpenCheckpoint(msg []byte, origin string, log trust.VKey) (Checkpoint, error) {
	if log.Name != origin {
		return Checkpoint{}, fmt.Errorf("checkpoint of %s cannot be verified with the key %s", origin, log.Name)
	}
	if len(msg) > MaxCheckpoint {
		return Checkpoint{}, trust.Refuse("checkpoint-size", "checkpoint", "%d bytes, more than %d", len(msg), MaxCheckpoint)
	}
	n, err := trust.OpenNote("checkpoint", msg, maxText, []trust.VKey{log})
	if err != nil {
		return Checkpoint{}, err
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, trust.Refuse("checkpoint-origin", "checkpoint", "it is of %s, not of %s", c.Origin, origin)
	}
	return c, nil
}

// Leaving says which key a log goes on with, in words, if it is another than the one given: that has signed only beside it, for the last time. The one that comes has
// the first line of the log's name, as [SignCheckpoint] writes them. It is a claim, for those who have nothing else of the log at hand.
func Leaving(msg []byte, log trust.VKey) (next string, leaving bool) {
	_, lines, err := trust.SplitNote("checkpoint", msg, maxText)
	if err != nil {
		return "", false
	}
	for _, line := range lines {
		word, ok := strings.CutPrefix(line, "— "+log.Name+" ")
		if !ok {
			continue
		}
		if sig, err := base64.StdEncoding.DecodeString(word); err == nil && len(sig) > 4 {
			hash := binary.BigEndian.Uint32(sig)
			return fmt.Sprintf("%s+%08x", log.Name, hash), hash != log.Hash()
		}
	}
	return "", false
}

// OpenCosigned verifies a checkpoint that a witness has cosigned, and says when it did.
func OpenCosigned(msg []byte, origin string, log, witness trust.VKey) (Checkpoint, time.Time, error) {
	if _, err := OpenCheckpoint(msg, origin, log); err != nil {
		return Checkpoint{}, time.Time{}, err
	}
	return OpenWitnessed(msg, origin, witness)
}

// OpenWitnessed verifies what a witness has cosigned by the cosignature alone: for a witness, of whom it is the own memory, and for whoever compares the tree with one that was
// read. To them the log's signature says no more; and it may be by a key that the log has no longer.
func OpenWitnessed(msg []byte, origin string, witness trust.VKey) (Checkpoint, time.Time, error) {
	if len(msg) > MaxCheckpoint {
		return Checkpoint{}, time.Time{}, trust.Refuse("checkpoint-size", "checkpoint", "%d bytes, more than %d", len(msg), MaxCheckpoint)
	}
	if witness.Context != trust.ContextWitness {
		return Checkpoint{}, time.Time{}, fmt.Errorf("key %s is not a witness's", witness.Name)
	}
	n, err := trust.OpenNote("cosignature", msg, maxText, []trust.VKey{witness})
	if err != nil {
		return Checkpoint{}, time.Time{}, err
	}
	c, err := ParseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, time.Time{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, time.Time{}, trust.Refuse("checkpoint-origin", "checkpoint", "it is of %s, not of %s", c.Origin, origin)
	}
	line, err := SignatureLine(msg, witness)
	if err != nil {
		return Checkpoint{}, time.Time{}, err
	}
	// The form was checked when the signature was verified: four bytes of key hash, eight of time.
	blob, err := base64.StdEncoding.DecodeString(line[strings.LastIndexByte(line, ' ')+1:])
	if err != nil || len(blob) < 12 {
		return Checkpoint{}, time.Time{}, trust.Refuse("cosignature-note", "cosignature", "malformed")
	}
	return c, time.Unix(int64(binary.BigEndian.Uint64(blob[4:])), 0).UTC(), nil
}

// SignatureLine finds the line of a key under a note.
func SignatureLine(msg []byte, key trust.VKey) (string, error) {
	text, lines, err := trust.SplitNote("checkpoint", msg, maxText)
	if err != nil {
		return "", err
	}
	for _, line := range lines {
		if !strings.HasPrefix(line, "— "+key.Name+" ") {
			continue
		}
		if _, err := trust.VerifyLine("checkpoint", text, line, []trust.VKey{key}); err == nil {
			return line, nil
		}
	}
	return "", trust.Refuse("checkpoint-unsigned", "checkpoint", "no signature by %s", key.ID())
}
