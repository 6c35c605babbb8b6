package ledger

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// Range reads the entries from one index up to, and without, another. Each
// bundle is proven to belong to the checkpoint before visit sees an entry of it;
// bundles are read and hashed ahead on all processors, and visited in order.
// The error of visit ends the run, and so does the end of ctx.
func (l *Log) Range(ctx context.Context, from, to int64, visit func(index int64, leaf []byte, hash tlog.Hash) error) error {
	if from < 0 || from > to || to > l.at.Size {
		return fmt.Errorf("entries %d to %d of a ledger of %d", from, to, l.at.Size)
	}
	if from == to {
		return nil
	}
	type proven struct {
		leaves [][]byte
		hashes []tlog.Hash
		err    error
	}
	first, last := from/TileWidth, (to-1)/TileWidth
	workers := min(int64(runtime.GOMAXPROCS(0)), last-first+1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	lanes := make([]chan proven, workers)
	for k := range workers {
		lanes[k] = make(chan proven, 4)
		wg.Go(func() {
			for n := first + k; n <= last; n += workers {
				var p proven
				p.leaves, p.hashes, p.err = l.provenBundle(n)
				select {
				case lanes[k] <- p:
				case <-stop:
					return
				}
				if p.err != nil {
					return
				}
			}
		})
	}
	for n := first; n <= last; n++ {
		var p proven
		select {
		case p = <-lanes[(n-first)%workers]:
		case <-ctx.Done():
			return ctx.Err()
		}
		if p.err != nil {
			return p.err
		}
		for i, leaf := range p.leaves {
			index := n*TileWidth + int64(i)
			if index < from || index >= to {
				continue
			}
			if err := visit(index, leaf, p.hashes[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// provenBundle reads the entries of a bundle and proves that they belong to the checkpoint.
func (l *Log) provenBundle(n int64) ([][]byte, []tlog.Hash, error) {
	w := int(min(TileWidth, l.at.Size-n*TileWidth))
	leaves, err := l.bundle(tlog.Tile{H: Height, L: entriesLevel, N: n, W: w})
	if err != nil {
		return nil, nil, err
	}
	indexes := make([]int64, w)
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, n*TileWidth+int64(i))
	}
	want, err := l.Hashes().ReadHashes(indexes)
	if err != nil {
		return nil, nil, l.inconsistent(err)
	}
	var bad trust.Refusals
	for i, leaf := range leaves {
		if tlog.RecordHash(leaf) != want[i] && !bad.Full() {
			bad.Add(trust.Refuse("ledger-entry", fmt.Sprintf("entry %d", n*TileWidth+int64(i)), "it is not the one in the tree"))
		}
	}
	return leaves, want, bad.Err()
}
