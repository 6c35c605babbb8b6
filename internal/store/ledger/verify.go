package ledger

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// A Source gives the leaves of a tree, bundle by bundle: leaves n*256 and following, w of them.
type Source func(n int64, w int) ([][]byte, error)

// Verify recomputes the whole tree from the published entries and compares
// every published tile and the root with it. visit, if not nil, is given every
// leaf in order; its error ends the run. All that is wrong is returned as
// [trust.Refusals]: ledger-entry, ledger-tile.
func (l *Log) Verify(visit func(index int64, leaf []byte) error) error {
	return verify(l.at, func(n int64, w int) ([][]byte, error) {
		return l.bundle(tlog.Tile{H: Height, L: entriesLevel, N: n, W: w})
	}, l.tile, visit)
}

// VerifyTree is Verify with the leaves and the tiles of level 0 and above from anywhere.
func VerifyTree(at Checkpoint, leaves Source, tile func(tlog.Tile) ([]byte, error), visit func(int64, []byte) error) error {
	return verify(at, leaves, tile, visit)
}

// hashed is one bundle, read and hashed.
type hashed struct {
	leaves [][]byte
	hashes []byte
	err    error
}

func verify(at Checkpoint, source Source, tile func(tlog.Tile) ([]byte, error), visit func(int64, []byte) error) error {
	if at.Size == 0 {
		if at.Root != EmptyRoot() {
			return trust.Refuse("ledger-fork", at.Origin, "an empty tree with the root %v", at.Root)
		}
		return nil
	}
	var bad trust.Refusals
	bundles := (at.Size + TileWidth - 1) / TileWidth

	// Reading and hashing run ahead on all processors, in windows whose order is kept.
	workers := int64(runtime.GOMAXPROCS(0))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	lanes := make([]chan hashed, workers)
	for k := range workers {
		lanes[k] = make(chan hashed, 4)
		wg.Go(func() {
			for n := k; n < bundles; n += workers {
				w := int(min(TileWidth, at.Size-n*TileWidth))
				var h hashed
				h.leaves, h.err = source(n, w)
				if h.err == nil && len(h.leaves) != w {
					h.err = fmt.Errorf("bundle %d: %d entries, want %d", n, len(h.leaves), w)
				}
				if h.err == nil {
					h.hashes = make([]byte, 0, w*tlog.HashSize)
					for _, leaf := range h.leaves {
						r := tlog.RecordHash(leaf)
						h.hashes = append(h.hashes, r[:]...)
					}
				}
				select {
				case lanes[k] <- h:
				case <-stop:
					return
				}
			}
		})
	}

	t := tower{tile: tile, at: at, bad: &bad}
	for n := range bundles {
		h := <-lanes[n%workers]
		if h.err != nil {
			if err := bad.Merge(h.err); err != nil {
				return err
			}
			// Without these leaves nothing above can be computed; what was found so far is told.
			return bad
		}
		if visit != nil {
			for i, leaf := range h.leaves {
				if err := visit(n*TileWidth+int64(i), leaf); err != nil {
					if err := bad.Merge(err); err != nil {
						return err
					}
				}
			}
		}
		if err := t.add(0, n, h.hashes); err != nil {
			return err
		}
		if bad.Full() {
			return bad
		}
	}
	root, err := t.finish()
	if err != nil {
		return err
	}
	if root != at.Root {
		bad.Add(trust.Refuse("ledger-entry", at.Origin, "the entries make up another root than the checkpoint of size %d", at.Size))
	}
	return bad.Err()
}

// A tower recomputes tiles level by level.
type tower struct {
	tile  func(tlog.Tile) ([]byte, error)
	at    Checkpoint
	bad   *trust.Refusals
	above [][]byte // for each level from 1: the hashes of the tile that is being filled
	edge  []tlog.Hash
}

// add takes the hashes of tile n of a level, full or at the right edge, and compares it.
func (t *tower) add(level int, n int64, hashes []byte) error {
	w := len(hashes) / tlog.HashSize
	id := tlog.Tile{H: Height, L: level, N: n, W: w}
	published, err := t.tile(id)
	if err := t.bad.Merge(err); err != nil {
		return err
	}
	if err == nil && !bytes.Equal(published, hashes) {
		code, subject, what := "ledger-tile", Path(id), "it is not what the entries make up"
		if level == 0 {
			for i := range w {
				at := i * tlog.HashSize
				if !bytes.Equal(published[at:at+tlog.HashSize], hashes[at:at+tlog.HashSize]) {
					code, subject = "ledger-entry", fmt.Sprintf("entry %d", n*TileWidth+int64(i))
					what = "entry and hash in " + Path(id) + " do not belong together"
					break
				}
			}
		}
		t.bad.Add(trust.Refuse(code, subject, "%s", what))
	}
	if w < TileWidth {
		t.partial(hashes)
		return nil
	}
	for len(t.above) <= level {
		t.above = append(t.above, nil)
	}
	h := fold(hashes)
	t.above[level] = append(t.above[level], h[:]...)
	if len(t.above[level]) == TileWidth*tlog.HashSize {
		full := t.above[level]
		t.above[level] = nil
		return t.add(level+1, n/TileWidth, full)
	}
	return nil
}

// partial keeps the perfect subtrees of a tile at the right edge, largest first.
func (t *tower) partial(hashes []byte) {
	var parts []tlog.Hash
	for w := len(hashes) / tlog.HashSize; w > 0; {
		k := 1
		for k*2 <= w {
			k *= 2
		}
		parts = append(parts, fold(hashes[:k*tlog.HashSize]))
		hashes = hashes[k*tlog.HashSize:]
		w -= k
	}
	t.edge = append(parts, t.edge...)
}

// finish compares the tiles at the right edge and returns the root.
func (t *tower) finish() (tlog.Hash, error) {
	for level := 0; level < len(t.above); level++ {
		if hashes := t.above[level]; len(hashes) > 0 {
			if err := t.add(level+1, t.at.Size>>(Height*(level+2)), hashes); err != nil {
				return tlog.Hash{}, err
			}
		}
	}
	root := t.edge[len(t.edge)-1]
	for i := len(t.edge) - 2; i >= 0; i-- {
		root = tlog.NodeHash(t.edge[i], root)
	}
	return root, nil
}

// fold is the root of a perfect tree over 2^k hashes.
func fold(hashes []byte) tlog.Hash {
	if len(hashes) == tlog.HashSize {
		return tlog.Hash(hashes)
	}
	half := len(hashes) / 2
	return tlog.NodeHash(fold(hashes[:half]), fold(hashes[half:]))
}
