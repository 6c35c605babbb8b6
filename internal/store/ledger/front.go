package ledger

import (
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"
)

// A Front is the right edge of a published tree: the files there that are not
// full yet. From it and what is appended the next files follow, without
// reading the tree again.
type Front struct {
	size   int64
	bundle []byte   // the partial entry bundle
	tiles  [][]byte // the partial tile of each level of tiles
}

// A TileFile is a tile or an entry bundle and its content.
type TileFile struct {
	Tile tlog.Tile
	Data []byte
}

// NewFront makes the edge of a tree of the given size. tile gives the content of a tile or, for level -1, of a bundle.
func NewFront(size int64, tile func(tlog.Tile) ([]byte, error)) (*Front, error) {
	f := &Front{size: size}
	for level, n := 0, size; n > 0; level, n = level+1, n>>Height {
		f.tiles = append(f.tiles, nil)
		w := int(n % TileWidth)
		if w == 0 {
			continue
		}
		t := tlog.Tile{H: Height, L: level, N: n / TileWidth, W: w}
		data, err := tile(t)
		if err != nil {
			return nil, err
		}
		if len(data) != w*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes, want %d", Path(t), len(data), w*tlog.HashSize)
		}
		f.tiles[level] = append(make([]byte, 0, TileWidth*tlog.HashSize), data...)
		if level == 0 {
			t.L = entriesLevel
			if data, err = tile(t); err != nil {
				return nil, err
			}
			f.bundle = append([]byte(nil), data...)
		}
	}
	return f, nil
}

// Size is the size of the tree.
func (f *Front) Size() int64 { return f.size }

// Append goes on to a larger tree: leaves, and the hashes that storage order
// puts behind each of them, as [Batch] has them. It returns what the step needs
// published, the files of [NewTiles]; of a tile that is still partial, only the last state.
func (f *Front) Append(leaves [][]byte, hashes []tlog.Hash) ([]TileFile, error) {
	var out []TileFile
	grown := make([]bool, len(f.tiles))
	grow := func(level int, h tlog.Hash) {
		for len(f.tiles) <= level {
			f.tiles, grown = append(f.tiles, nil), append(grown, false)
		}
		if f.tiles[level] == nil {
			f.tiles[level] = make([]byte, 0, TileWidth*tlog.HashSize)
		}
		f.tiles[level] = append(f.tiles[level], h[:]...)
		grown[level] = true
	}
	for _, leaf := range leaves {
		n := f.size
		mine := bits.TrailingZeros64(^uint64(n)) + 1 // one for the leaf, one for each subtree that it completes
		if len(hashes) < mine {
			return nil, fmt.Errorf("the hashes of leaf %d are missing", n)
		}
		f.bundle = AppendEntry(f.bundle, leaf)
		for level := 0; level < mine; level += Height {
			grow(level/Height, hashes[level])
		}
		hashes = hashes[mine:]
		f.size++
		if f.size%TileWidth == 0 {
			out = append(out, TileFile{tlog.Tile{H: Height, L: entriesLevel, N: n / TileWidth, W: TileWidth}, f.bundle})
			f.bundle = make([]byte, 0, len(f.bundle)+len(f.bundle)/8) // the next one will be about as large
		}
		for level := 0; level < len(f.tiles) && len(f.tiles[level]) == TileWidth*tlog.HashSize; level++ {
			out = append(out, TileFile{tlog.Tile{H: Height, L: level, N: n >> (Height * (level + 1)), W: TileWidth}, f.tiles[level]})
			f.tiles[level], grown[level] = nil, false
		}
	}
	if len(hashes) > 0 {
		return nil, fmt.Errorf("%d hashes belong to no leaf", len(hashes))
	}
	for level, yes := range grown {
		if !yes {
			continue
		}
		w := len(f.tiles[level]) / tlog.HashSize
		t := tlog.Tile{H: Height, L: level, N: f.size >> (Height * (level + 1)), W: w}
		if level == 0 {
			bundle := t
			bundle.L = entriesLevel
			out = append(out, TileFile{bundle, f.bundle})
		}
		out = append(out, TileFile{t, f.tiles[level]})
	}
	return out, nil
}
