package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// testEnvelope is a signed envelope of about 800 bytes.
func testEnvelope(t testing.TB, z *Zone, n int64) []byte {
	t.Helper()
	d := trust.Sum([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	e, err := statement.Sign(z.ring().station, statement.Statement{
		Kind:     statement.KindCollected,
		Subjects: []statement.Subject{{Name: "items", SHA256: d}},
		Predicate: map[string]any{"items": n, "bytes": n, "request": d.String(),
			"time": trust.FormatDate(testClock()), "zone": z.Origin()},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// BenchmarkLedger commits one signed envelope and one row at a time from some
// goroutines, each of which goes on only when it has been answered:
//
//	recorded     the entry is durable in the catalog, with its checkpoint (Record); the publisher follows, and before the clock
//	             stops all is published (Published)
//	published    the entry is durable in the published tiles, too, under a published checkpoint (Commit)
//
// The aim is 2,000 a second from one goroutine, 20,000 from 64. What limits
// them is the disk: syncs/s is how often it could make 4 KiB at the end of a
// file durable, one at a time, just before.
func BenchmarkLedger(b *testing.B) {
	for _, mode := range []string{"recorded", "published"} {
		for _, writers := range []int{1, 64, 1024} {
			b.Run(fmt.Sprintf("%s/%d", mode, writers), func(b *testing.B) { benchmarkLedger(b, mode == "recorded", writers) })
		}
	}
}

func benchmarkLedger(b *testing.B, early bool, writers int) {
	ctx := context.Background()
	dir := testInit(b, Inside)
	syncs := syncRate(b, dir)
	z := testOpen(b, dir, Options{})
	commit := z.Commit
	if early {
		commit = z.Record
	}
	envelopes := make([]*statement.Envelope, 512)
	for i := range envelopes {
		e, err := statement.ParseEnvelope(testEnvelope(b, z, int64(i)))
		if err != nil {
			b.Fatal(err)
		}
		envelopes[i] = e
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	b.SetBytes(int64(len(envelopes[0].Bytes())))
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for {
				n := next.Add(1)
				if n > int64(b.N) {
					return
				}
				err := commit(ctx, func(tx *Tx) error {
					if err := tx.Exec(ctx, "INSERT INTO agreed (derivation, leaf) VALUES (?, ?)", n, tx.Size()); err != nil {
						return err
					}
					_, err := tx.AppendEnvelope(envelopes[n%int64(len(envelopes))])
					return err
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := z.Published(ctx); err != nil {
		b.Error(err)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	b.ReportMetric(syncs, "syncs/s")
}

// syncRate is how many syncs a second the disk under dir does, one after the other.
func syncRate(b *testing.B, dir string) float64 {
	f, err := os.Create(filepath.Join(dir, "syncs"))
	if err != nil {
		b.Fatal(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	page := make([]byte, 4096)
	start := time.Now()
	n := 0
	for ; n < 100 || time.Since(start) < 200*time.Millisecond; n++ {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(n) / time.Since(start).Seconds()
}
