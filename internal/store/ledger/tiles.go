package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// entriesLevel is the level under which package tlog keeps data tiles: our entry bundles.
const entriesLevel = -1

// maxBundle is the size of a full bundle of the largest leaves.
const maxBundle = TileWidth * (2 + MaxLeaf)

// Path is where a tile or, for level -1, an entry bundle lies below the published directory.
func Path(t tlog.Tile) string {
	// Package tlog writes the height, too, and another word for entries; the groups of digits are the same.
	rest := strings.TrimPrefix(t.Path(), fmt.Sprintf("tile/%d/", t.H))
	if t.L == entriesLevel {
		return "tile/entries/" + strings.TrimPrefix(rest, "data/")
	}
	return "tile/" + rest
}

// ParsePath parses what [Path] prints, and nothing else.
func ParsePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return tlog.Tile{}, fmt.Errorf("tile path %.80q", path)
	}
	if after, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + after
	}
	t, err := tlog.ParseTilePath(fmt.Sprintf("tile/%d/%s", Height, rest))
	if err != nil || t.N < 0 || t.N > MaxSize/TileWidth || t.L > 63 || Path(t) != path {
		return tlog.Tile{}, fmt.Errorf("tile path %.80q", path)
	}
	return t, nil
}

// NewTiles lists what must be published when a tree grows from one size to another: hash tiles and, before those of level 0, entry bundles.
func NewTiles(from, to int64) []tlog.Tile {
	hashes := tlog.NewTiles(Height, from, to)
	tiles := make([]tlog.Tile, 0, 2*len(hashes))
	for _, t := range hashes {
		if t.L == 0 {
			bundle := t
			bundle.L = entriesLevel
			tiles = append(tiles, bundle)
		}
	}
	return append(tiles, hashes...)
}

// AppendEntry appends a leaf to a bundle.
func AppendEntry(bundle, leaf []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
}

// ParseBundle takes a bundle of n leaves apart. They share its memory.
func ParseBundle(bundle []byte, n int) ([][]byte, error) {
	leaves := make([][]byte, 0, n)
	rest := bundle
	for range n {
		if len(rest) < 2 {
			return nil, fmt.Errorf("entry bundle ends in entry %d of %d", len(leaves), n)
		}
		size := int(binary.BigEndian.Uint16(rest))
		rest = rest[2:]
		if size == 0 || size > len(rest) {
			return nil, fmt.Errorf("entry %d of a bundle claims %d bytes, %d are left", len(leaves), size, len(rest))
		}
		leaves = append(leaves, rest[:size:size])
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("entry bundle has %d bytes beyond its %d entries", len(rest), n)
	}
	return leaves, nil
}

// A Log reads a published directory in the light of one checkpoint.
type Log struct {
	files fs.FS
	at    Checkpoint
}

// NewLog reads below files, the directory in which `tile` lies.
func NewLog(files fs.FS, at Checkpoint) *Log { return &Log{files, at} }

// Checkpoint is the checkpoint in whose light the log is read.
func (l *Log) Checkpoint() Checkpoint { return l.at }

// ReadCheckpoint reads the published checkpoint, unverified; a missing one is fs.ErrNotExist.
func ReadCheckpoint(files fs.FS) ([]byte, error) { return readFile(files, "checkpoint", MaxCheckpoint) }

// readFile reads a file of at most limit bytes.
func readFile(files fs.FS, name string, limit int64) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The size is a hint, to read without growing; what arrives counts.
	var b []byte
	if fi, err := f.Stat(); err == nil && fi.Size() <= limit {
		b = make([]byte, 0, fi.Size()+bytes.MinRead)
	}
	buf := bytes.NewBuffer(b)
	if _, err := buf.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	b = buf.Bytes()
	if int64(len(b)) > limit {
		return nil, trust.Refuse("ledger-size", name, "more than %d bytes", limit)
	}
	return b, nil
}

// tile reads a tile. A partial one may be gone since the full one is there: then it is the beginning of that.
func (l *Log) tile(t tlog.Tile) ([]byte, error) {
	size := int64(t.W) * tlog.HashSize
	b, err := readFile(l.files, Path(t), TileWidth*tlog.HashSize)
	if errors.Is(err, fs.ErrNotExist) && t.W < TileWidth {
		full := t
		full.W = TileWidth
		if b, err2 := readFile(l.files, Path(full), TileWidth*tlog.HashSize); err2 == nil && int64(len(b)) == TileWidth*tlog.HashSize {
			return b[:size], nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trust.Refuse("ledger-tile", Path(t), "it is missing")
	}
	if err != nil {
		return nil, err
	}
	if int64(len(b)) != size {
		return nil, trust.Refuse("ledger-tile", Path(t), "%d bytes, want %d", len(b), size)
	}
	return b, nil
}

// bundle reads the leaves of a bundle, a partial one as tile does.
func (l *Log) bundle(t tlog.Tile) ([][]byte, error) {
	b, err := readFile(l.files, Path(t), maxBundle)
	n := t.W
	if errors.Is(err, fs.ErrNotExist) && t.W < TileWidth {
		full := t
		full.W = TileWidth
		if b2, err2 := readFile(l.files, Path(full), maxBundle); err2 == nil {
			b, err, n = b2, nil, TileWidth
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trust.Refuse("ledger-tile", Path(t), "it is missing")
	}
	if err != nil {
		return nil, err
	}
	leaves, err := ParseBundle(b, n)
	if err != nil {
		return nil, trust.Refuse("ledger-entry", Path(t), "%v", err)
	}
	return leaves[:t.W], nil
}

// tileReader is what package tlog asks for.
type tileReader struct{ l *Log }

func (r tileReader) Height() int { return Height }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, t := range tiles {
		// Package tlog also asks for partial tiles in the middle of the tree; their width is theirs at the checkpoint.
		b, err := r.l.tile(t)
		if err != nil {
			return nil, err
		}
		data[i] = b
	}
	return data, nil
}

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// Hashes reads hashes of the tree, each proven to belong to the checkpoint.
func (l *Log) Hashes() tlog.HashReader {
	return tlog.TileHashReader(tlog.Tree{N: l.at.Size, Hash: l.at.Root}, tileReader{l})
}

// Leaf reads one leaf and proves that it belongs to the checkpoint.
func (l *Log) Leaf(index int64) ([]byte, error) {
	if index < 0 || index >= l.at.Size {
		return nil, fmt.Errorf("there is no entry %d in a ledger of %d", index, l.at.Size)
	}
	n := index / TileWidth
	leaves, err := l.bundle(tlog.Tile{H: Height, L: entriesLevel, N: n, W: int(min(TileWidth, l.at.Size-n*TileWidth))})
	if err != nil {
		return nil, err
	}
	leaf := leaves[index%TileWidth]
	h, err := l.Hashes().ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
	if err != nil {
		return nil, l.inconsistent(err)
	}
	if h[0] != tlog.RecordHash(leaf) {
		return nil, trust.Refuse("ledger-entry", fmt.Sprintf("entry %d", index), "it is not the one in the tree")
	}
	return leaf, nil
}

// inconsistent turns package tlog's word for hashes that do not make up the root into a refusal.
func (l *Log) inconsistent(err error) error {
	var path *fs.PathError
	if _, ok := trust.AsRefusals(err); ok || errors.As(err, &path) {
		return err
	}
	return trust.Refuse("ledger-tile", l.at.Origin, "the published tiles do not make up the checkpoint of size %d: %v", l.at.Size, err)
}

// ProveInclusion proves that the leaf of this index is in the checkpoint's tree.
func (l *Log) ProveInclusion(index int64) (tlog.RecordProof, error) {
	if index < 0 || index >= l.at.Size {
		return nil, fmt.Errorf("there is no entry %d in a ledger of %d", index, l.at.Size)
	}
	p, err := tlog.ProveRecord(l.at.Size, index, l.Hashes())
	if err != nil {
		return nil, l.inconsistent(err)
	}
	return p, nil
}

// CheckInclusion checks a proof of inclusion.
func CheckInclusion(c Checkpoint, index int64, leaf []byte, proof tlog.RecordProof) error {
	if index < 0 || index >= c.Size {
		return trust.Refuse("ledger-inclusion", fmt.Sprintf("entry %d", index), "the checkpoint has size %d", c.Size)
	}
	if err := tlog.CheckRecord(proof, c.Size, c.Root, index, tlog.RecordHash(leaf)); err != nil {
		return trust.Refuse("ledger-inclusion", fmt.Sprintf("entry %d", index), "the proof does not lead to the root of size %d", c.Size)
	}
	return nil
}

// ProveConsistency proves that the tree of the first old leaves is the
// beginning of the checkpoint's. For the empty tree there is nothing to prove.
func (l *Log) ProveConsistency(old int64) (tlog.TreeProof, error) {
	if old < 0 || old > l.at.Size {
		return nil, fmt.Errorf("a ledger of %d has no former size %d", l.at.Size, old)
	}
	if old == 0 || old == l.at.Size {
		return nil, nil
	}
	p, err := tlog.ProveTree(l.at.Size, old, l.Hashes())
	if err != nil {
		return nil, l.inconsistent(err)
	}
	return p, nil
}

// CheckConsistency checks that old is the beginning of c.
func CheckConsistency(old, c Checkpoint, proof tlog.TreeProof) error {
	fork := func(format string, args ...any) error {
		return trust.Refuse("ledger-fork", c.Origin, format, args...)
	}
	switch {
	case old.Origin != c.Origin:
		return trust.Refuse("checkpoint-origin", c.Origin, "the former checkpoint is of %s", old.Origin)
	case old.Size > c.Size:
		return trust.Refuse("ledger-rollback", c.Origin, "size %d, it was %d before", c.Size, old.Size)
	case old.Size == c.Size:
		if old.Root != c.Root {
			return fork("two trees of size %d: %v and %v", c.Size, old.Root, c.Root)
		}
		return nil
	case old.Size == 0:
		if old.Root != EmptyRoot() {
			return fork("an empty tree with the root %v", old.Root)
		}
		return nil
	}
	if err := tlog.CheckTree(proof, c.Size, c.Root, old.Size, old.Root); err != nil {
		return fork("the tree of size %d does not contain the former one of size %d", c.Size, old.Size)
	}
	return nil
}

// Contains checks against the published tiles that old is the beginning of the log's checkpoint.
func (l *Log) Contains(old Checkpoint) error {
	if old.Size >= l.at.Size || old.Size == 0 {
		return CheckConsistency(old, l.at, nil)
	}
	proof, err := l.ProveConsistency(old.Size)
	if err != nil {
		return err
	}
	return CheckConsistency(old, l.at, proof)
}
