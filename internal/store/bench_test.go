package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// testEnvelope is a signed envelope of about 800 bytes.
func testEnvelope(t testing.TB, z *Zone, n int64) []byte {
	t.Helper()
	d := trust.Sum([]byte{byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	e, err := statement.Sign(z.station, statement.Statement{
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

// BenchmarkCommit commits one envelope and one row at a time from many
// goroutines; each returns only when its entry is durable and published. The
// aim is 20,000 a second with 1,024 of them.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range []int{1, 64, 1024} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			ctx := context.Background()
			z := testOpen(b, testInit(b, Inside), Options{})
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
						err := z.Commit(ctx, func(tx *Tx) error {
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
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
