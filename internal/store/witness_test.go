package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// manyEntries fills a zone's ledger up to a size.
func manyEntries(t testing.TB, z *Zone, size int64) {
	t.Helper()
	const kinds, atOnce = 512, 10_000
	var envelopes []*statement.Envelope
	for i := range int64(kinds) {
		e, err := statement.ParseEnvelope(testEnvelope(t, z, i))
		if err != nil {
			t.Fatal(err)
		}
		envelopes = append(envelopes, e)
	}
	for n := z.mustSize(t); n < size; n = z.mustSize(t) {
		err := z.Commit(t.Context(), func(tx *Tx) error {
			for i := n; i < min(size, n+atOnce); i++ {
				if _, err := tx.AppendEnvelope(envelopes[i%kinds]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (z *Zone) mustSize(t testing.TB) int64 {
	t.Helper()
	_, c, err := z.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	return c.Size
}

func witnessKey(t testing.TB) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader, "wanda/witness")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A witness tells how far it has read, and can be told to stop, with nothing cosigned.
func TestWitnessProgress(t *testing.T) {
	z := testOpen(t, testInit(t, Inside), Options{})
	const size = 2*progressEntries + 100
	manyEntries(t, z, size)
	wanda, state := witnessKey(t), filepath.Join(t.TempDir(), "state")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	_, err := WitnessWith(ctx, state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock(), WitnessOptions{Progress: func(int64, int64) { stop() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("told to stop: %v", err)
	}
	if _, err := os.Stat(state); err == nil {
		t.Error("stopped, and remembers that it has cosigned")
	}
	var told []string
	read := func() {
		t.Helper()
		told = nil
		_, err := WitnessWith(t.Context(), state, z.LedgerFS(), z.LedgerVKey(), wanda, testClock(), WitnessOptions{Progress: func(done, all int64) { told = append(told, fmt.Sprintf("%d/%d", done, all)) }})
		if err != nil {
			t.Fatal(err)
		}
	}
	if read(); fmt.Sprint(told) != "[1024/2148 2048/2148 2148/2148]" {
		t.Errorf("the first time it tells %q", told)
	}
	commit(t, z, 1)
	if read(); fmt.Sprint(told) != "[2/2]" {
		t.Errorf("the next time, with the last entry that it had seen, it tells %q", told)
	}
}

// BenchmarkWitness cosigns a ledger that the witness has never seen, and reads all of it. peak-MB is the most that is on the heap while it does, beside what was there.
func BenchmarkWitness(b *testing.B) {
	for _, size := range []int64{10_000, 100_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			z := testOpen(b, testInit(b, Inside), Options{})
			manyEntries(b, z, size)
			wanda := witnessKey(b)
			heap := func() uint64 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				return m.HeapAlloc
			}
			runtime.GC()
			before, peak := heap(), uint64(0)
			for b.Loop() {
				_, err := WitnessWith(context.Background(), filepath.Join(b.TempDir(), "state"), z.LedgerFS(), z.LedgerVKey(), wanda, testClock(), WitnessOptions{Progress: func(int64, int64) { peak = max(peak, heap()) }})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
			b.ReportMetric(float64(peak-min(before, peak))/1e6, "peak-MB")
		})
	}
}
