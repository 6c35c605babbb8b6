package ledger

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// source gives the files of a tree as it was at a size, straight from its leaves and hashes.
func (m *memory) source(t tlog.Tile) ([]byte, error) {
	if t.L >= 0 {
		return tlog.ReadTileData(t, m)
	}
	var b []byte
	for _, l := range m.leaves[t.N*TileWidth:][:t.W] {
		b = AppendEntry(b, l)
	}
	return b, nil
}

// Steps of every kind give the same files as NewTiles and the tree say, whether the edge was kept or made anew.
func TestFront(t *testing.T) {
	m := newMemory(t)
	var kept *Front
	for _, size := range []int64{0, 1, 2, 255, 256, 257, 300, 511, 513, 1000, 1024, 5000, 65535, 65536, 65537, 66000, 131072, 131073} {
		from := m.size
		fresh, err := NewFront(from, m.source)
		if err != nil {
			t.Fatal(err)
		}
		if kept == nil {
			kept = fresh
		}
		b := NewBatch(from, m)
		for b.Size() < size {
			if _, err := b.Append(leaf(b.Size())); err != nil {
				t.Fatal(err)
			}
		}
		_, hashes := b.Hashes()
		m.grow(size)
		want := map[string]bool{}
		for _, tile := range NewTiles(from, size) {
			want[Path(tile)] = true
		}
		for what, f := range map[string]*Front{"kept": kept, "fresh": fresh} {
			files, err := f.Append(b.Leaves(), hashes)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) != len(want) || f.Size() != size {
				t.Fatalf("%s, %d to %d: %d files, want %d; size %d", what, from, size, len(files), len(want), f.Size())
			}
			for _, file := range files {
				path := Path(file.Tile)
				if !want[path] {
					t.Fatalf("%s, %d to %d: %s is not asked for", what, from, size, path)
				}
				if data, err := m.source(file.Tile); err != nil || !bytes.Equal(data, file.Data) {
					t.Fatalf("%s, %d to %d: %s differs (%v)", what, from, size, path, err)
				}
			}
		}
	}
}

// Hashes that do not belong to the leaves are an error.
func TestFrontCount(t *testing.T) {
	m := newMemory(t)
	m.grow(3)
	for _, n := range []int{0, 1, 2, 4} {
		f, err := NewFront(3, m.source)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Append([][]byte{leaf(3)}, make([]tlog.Hash, n))
		if err == nil {
			t.Errorf("%d hashes for leaf 3 were taken", n)
		}
	}
	if _, err := NewFront(3, func(t tlog.Tile) ([]byte, error) { return make([]byte, 7), nil }); err == nil {
		t.Error("a tile of 7 bytes was taken")
	}
}

// A batch on top of another one makes the same tree without reading anything.
func TestBatchNext(t *testing.T) {
	m := newMemory(t)
	b := NewBatch(0, m)
	blind := func([]int64) ([]tlog.Hash, error) { return nil, fmt.Errorf("read") }
	for range 200 {
		for range 1 + b.Size()%5 {
			if _, err := b.Append(leaf(b.Size())); err != nil {
				t.Fatal(err)
			}
		}
		c, err := b.Checkpoint(origin)
		if err != nil {
			t.Fatal(err)
		}
		if want := m.grow(b.Size()); c != want {
			t.Fatalf("%+v, want %+v", c, want)
		}
		if b, err = b.Next(); err != nil {
			t.Fatal(err)
		}
		b.stored = tlog.HashReaderFunc(blind)
		b.Append(leaf(b.Size()))
		b.Cut(b.Start())
	}
}
