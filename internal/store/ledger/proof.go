package ledger

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// What is carried away as a file. Both forms end in the checkpoint as the log
// has signed it, with the cosignatures that stand under it.
const (
	proofTitle = "c2sp.org/tlog-proof@v1"
	// maxPath bounds the hashes of a proof: a tree of 2^63 leaves has no longer one.
	maxPath = 63
	// MaxProof bounds a file: the largest leaf in base64, the hashes, the checkpoint.
	MaxProof = (MaxLeaf+2)/3*4 + maxPath*(hashLen+1) + MaxCheckpoint + 512

	hashLen = 44 // of a hash in base64
)

// A Proof is one entry with what shows that it is in a log: a file that a
// person can carry to whoever has nothing but the log's key. Its form is C2SP
// tlog-proof, whose `extra` line has the entry's own bytes.
type Proof struct {
	Index      int64
	Leaf       []byte // nil: the file has it not, and whoever checks must bring it
	Path       tlog.RecordProof
	Checkpoint []byte // the signed note, unverified
}

// Marshal prints a proof.
func (p *Proof) Marshal() []byte {
	var b bytes.Buffer
	b.WriteString(proofTitle + "\n")
	if p.Leaf != nil {
		b.WriteString("extra " + base64.StdEncoding.EncodeToString(p.Leaf) + "\n")
	}
	fmt.Fprintf(&b, "index %d\n", p.Index)
	appendPath(&b, p.Path)
	b.WriteByte('\n')
	b.Write(p.Checkpoint)
	return b.Bytes()
}

// ParseProof parses what [Proof.Marshal] prints, and nothing else. Nothing in it is verified. Codes: proof-size, proof-syntax.
func ParseProof(data []byte) (*Proof, error) {
	s, err := newPathScanner(data)
	if err != nil {
		return nil, err
	}
	p := &Proof{}
	if line, ok := s.line(); !ok || line != proofTitle {
		return nil, s.bad("want `%s` on the first line", proofTitle)
	}
	line, ok := s.line()
	if word, is := strings.CutPrefix(line, "extra "); ok && is {
		if p.Leaf, err = base64.StdEncoding.DecodeString(word); err != nil || CheckLeaf(p.Leaf) != nil {
			return nil, s.bad("extra: want one entry in base64")
		}
		line, ok = s.line()
	}
	if p.Index, err = number(line, "index ", MaxSize-1); !ok || err != nil {
		return nil, s.bad("want `index N`")
	}
	if p.Path, p.Checkpoint, err = s.rest(); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.Marshal(), data) {
		return nil, s.bad("printed again it is other bytes")
	}
	return p, nil
}

// Check verifies that the entry is in the tree of a checkpoint that was verified.
func (p *Proof) Check(c Checkpoint) error { return CheckInclusion(c, p.Index, p.Leaf, p.Path) }

// A Growth shows that a log has only grown since it had a former size. Its form
// is the request that a C2SP tlog-witness takes.
type Growth struct {
	Old        int64
	Path       tlog.TreeProof
	Checkpoint []byte // the signed note, unverified
}

// Marshal prints a growth.
func (g *Growth) Marshal() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", g.Old)
	appendPath(&b, g.Path)
	b.WriteByte('\n')
	b.Write(g.Checkpoint)
	return b.Bytes()
}

// ParseGrowth parses what [Growth.Marshal] prints, and nothing else. Nothing in it is verified. Codes: proof-size, proof-syntax.
func ParseGrowth(data []byte) (*Growth, error) {
	s, err := newPathScanner(data)
	if err != nil {
		return nil, err
	}
	g := &Growth{}
	line, ok := s.line()
	if g.Old, err = number(line, "old ", MaxSize); !ok || err != nil {
		return nil, s.bad("want `old N` on the first line")
	}
	if g.Path, g.Checkpoint, err = s.rest(); err != nil {
		return nil, err
	}
	if !bytes.Equal(g.Marshal(), data) {
		return nil, s.bad("printed again it is other bytes")
	}
	return g, nil
}

// IsGrowth says which of the two forms a file claims to have.
func IsGrowth(data []byte) bool { return bytes.HasPrefix(data, []byte("old ")) }

// Check verifies that old, which must have the size that the growth begins at,
// is the beginning of a checkpoint that was verified.
func (g *Growth) Check(old, c Checkpoint) error {
	if old.Size != g.Old {
		return trust.Refuse("proof-old", c.Origin, "it proves the growth from size %d, the former checkpoint has size %d", g.Old, old.Size)
	}
	if (old.Size == 0 || old.Size == c.Size) && len(g.Path) > 0 {
		return trust.Refuse("proof-syntax", "proof", "%d hashes where there is nothing to prove", len(g.Path))
	}
	return CheckConsistency(old, c, g.Path)
}

// ProveEntry makes the proof of one entry. note is the log's checkpoint as it is signed.
func (l *Log) ProveEntry(index int64, note []byte) (*Proof, error) {
	leaf, err := l.Leaf(index)
	if err != nil {
		return nil, err
	}
	path, err := l.ProveInclusion(index)
	if err != nil {
		return nil, err
	}
	return &Proof{index, leaf, path, note}, nil
}

// ProveGrowth makes the proof that the log has only grown since it had a size. note is the log's checkpoint as it is signed.
func (l *Log) ProveGrowth(old int64, note []byte) (*Growth, error) {
	path, err := l.ProveConsistency(old)
	if err != nil {
		return nil, err
	}
	return &Growth{old, path, note}, nil
}

// Join puts the signature lines of others under a checkpoint: those notes among
// them whose text is the same. Lines that stand there already are left out.
func Join(note []byte, others ...[]byte) []byte {
	text, lines, err := trust.SplitNote("checkpoint", note, maxText)
	if err != nil {
		return note
	}
	there := map[string]bool{}
	for _, l := range lines {
		there[l] = true
	}
	for _, o := range others {
		t, more, err := trust.SplitNote("checkpoint", o, maxText)
		if err != nil || !bytes.Equal(t, text) {
			continue
		}
		for _, l := range more {
			if !there[l] && len(lines) < trust.MaxSignatures {
				there[l] = true
				lines = append(lines, l)
			}
		}
	}
	return trust.JoinNote(text, lines...)
}

func appendPath[P ~[]tlog.Hash](b *bytes.Buffer, path P) {
	for _, h := range path {
		b.WriteString(base64.StdEncoding.EncodeToString(h[:]))
		b.WriteByte('\n')
	}
}

func number(line, word string, limit int64) (int64, error) {
	digits, ok := strings.CutPrefix(line, word)
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("want `%sN`", word)
	}
	return n, nil
}

// A pathScanner reads what both forms share.
type pathScanner struct {
	data []byte
	off  int
}

func newPathScanner(data []byte) (*pathScanner, error) {
	if len(data) > MaxProof {
		return nil, trust.Refuse("proof-size", "proof", "%d bytes, more than %d", len(data), MaxProof)
	}
	return &pathScanner{data: data}, nil
}

func (s *pathScanner) bad(format string, args ...any) error {
	return trust.Refuse("proof-syntax", "proof", format, args...).At(int64(s.off))
}

// line returns the next line without its LF; ok is false where there is none.
func (s *pathScanner) line() (line string, ok bool) {
	i := bytes.IndexByte(s.data[s.off:], '\n')
	if i < 0 {
		return "", false
	}
	line = string(s.data[s.off : s.off+i])
	s.off += i + 1
	return line, true
}

// rest reads hashes, the empty line and the checkpoint.
func (s *pathScanner) rest() (path []tlog.Hash, note []byte, err error) {
	for {
		line, ok := s.line()
		if !ok {
			return nil, nil, s.bad("want hashes, an empty line and a checkpoint")
		}
		if line == "" {
			break
		}
		h, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(h) != tlog.HashSize || len(line) != hashLen {
			return nil, nil, s.bad("want a hash in base64, have %.60q", line)
		}
		if len(path) == maxPath {
			return nil, nil, s.bad("more than %d hashes", maxPath)
		}
		path = append(path, tlog.Hash(h))
	}
	note = s.data[s.off:]
	if len(note) == 0 || len(note) > MaxCheckpoint {
		return nil, nil, s.bad("a checkpoint of %d bytes, want 1 to %d", len(note), MaxCheckpoint)
	}
	return path, note, nil
}
