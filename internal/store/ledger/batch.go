package ledger

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Batch is what one transaction appends to a tree. It is not safe for concurrent use.
type Batch struct {
	start  int64
	size   int64
	stored tlog.HashReader
	first  int64       // storage index of hashes[0]
	hashes []tlog.Hash // of all new leaves, in storage order
	leaves [][]byte
	edge   map[int64]tlog.Hash // stored hashes that were read before
}

// NewBatch begins a batch on top of a tree of the given size, whose hashes can be read.
func NewBatch(size int64, stored tlog.HashReader) *Batch {
	return &Batch{start: size, size: size, stored: stored, first: tlog.StoredHashCount(size), edge: map[int64]tlog.Hash{}}
}

// Next begins a batch on top of this one, once that is stored: the hashes at the
// edge of the tree are known already and are not read again.
func (b *Batch) Next() (*Batch, error) {
	n := NewBatch(b.size, b.stored)
	if b.size == 0 {
		return n, nil
	}
	at := edgeIndexes(b.size)
	edge, err := b.ReadHashes(at)
	if err != nil {
		return nil, err
	}
	for i, x := range at {
		n.edge[x] = edge[i]
	}
	return n, nil
}

// edgeIndexes are the storage indexes of the perfect subtrees that a tree of this size is made of, the largest first.
func edgeIndexes(size int64) []int64 {
	var at []int64
	for from := int64(0); from < size; {
		level := bits.Len64(uint64(size-from)) - 1
		at = append(at, tlog.StoredHashIndex(level, from>>level))
		from += 1 << level
	}
	return at
}

// CheckLeaf checks the bounds of a leaf.
func CheckLeaf(leaf []byte) error {
	if len(leaf) == 0 || len(leaf) > MaxLeaf {
		return fmt.Errorf("leaf of %d bytes, want 1 to %d", len(leaf), MaxLeaf)
	}
	return nil
}

// Append adds a leaf, which must not be changed afterwards, and returns its index.
func (b *Batch) Append(leaf []byte) (int64, error) {
	if err := CheckLeaf(leaf); err != nil {
		return 0, err
	}
	if b.size >= MaxSize {
		return 0, fmt.Errorf("the ledger has %d leaves and takes no more", b.size)
	}
	h, err := tlog.StoredHashesForRecordHash(b.size, tlog.RecordHash(leaf), b)
	if err != nil {
		return 0, err
	}
	b.hashes = append(b.hashes, h...)
	b.leaves = append(b.leaves, leaf)
	b.size++
	return b.size - 1, nil
}

// Size is the size of the tree with the batch.
func (b *Batch) Size() int64 { return b.size }

// Start is the size of the tree without it.
func (b *Batch) Start() int64 { return b.start }

// Leaves are the new leaves, beginning with index Start.
func (b *Batch) Leaves() [][]byte { return b.leaves }

// Hashes are the new hashes and the storage index of the first.
func (b *Batch) Hashes() (first int64, hashes []tlog.Hash) { return b.first, b.hashes }

// Cut takes back all leaves from index size on.
func (b *Batch) Cut(size int64) {
	if size < b.start || size > b.size {
		panic(fmt.Sprintf("ledger: cut to %d of %d..%d", size, b.start, b.size))
	}
	b.hashes = b.hashes[:tlog.StoredHashCount(size)-b.first]
	b.leaves = b.leaves[:size-b.start]
	b.size = size
}

// ReadHashes implements [tlog.HashReader] over the tree with the batch.
func (b *Batch) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	var miss []int64
	var at []int
	for i, x := range indexes {
		if x >= b.first {
			if x-b.first >= int64(len(b.hashes)) {
				return nil, fmt.Errorf("hash %d is beyond the tree", x)
			}
			out[i] = b.hashes[x-b.first]
		} else if h, ok := b.edge[x]; ok {
			out[i] = h
		} else {
			miss = append(miss, x)
			at = append(at, i)
		}
	}
	if len(miss) == 0 {
		return out, nil
	}
	got, err := b.stored.ReadHashes(miss)
	if err != nil {
		return nil, err
	}
	if len(got) != len(miss) {
		return nil, fmt.Errorf("asked for %d hashes, given %d", len(miss), len(got))
	}
	for i, h := range got {
		out[at[i]] = h
		b.edge[miss[i]] = h
	}
	return out, nil
}

// Checkpoint is the tree with the batch.
func (b *Batch) Checkpoint(origin string) (Checkpoint, error) { return At(origin, b.size, b) }

// At is the checkpoint of the first size leaves of a tree.
func At(origin string, size int64, hashes tlog.HashReader) (Checkpoint, error) {
	c := Checkpoint{Origin: origin, Size: size, Root: EmptyRoot()}
	if size == 0 {
		return c, nil
	}
	var err error
	c.Root, err = tlog.TreeHash(size, hashes)
	return c, err
}
