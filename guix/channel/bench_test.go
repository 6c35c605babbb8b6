package channel_test

import (
	"testing"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
)

// BenchmarkAuthenticate judges a small history with keys of three kinds, from the beginning and with what was proven. The Guix channel itself is
// measured in peer, beside the real program.
func BenchmarkAuthenticate(b *testing.B) {
	w, err := world()
	if err != nil {
		b.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 300)
	h.End = ends[len(ends)-1]
	req, db, err := prepare(b, h)
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B) *channel.Verdict {
		v, err := channel.Authenticate(b.Context(), db, req)
		if err != nil || !v.OK() {
			b.Fatal(v, err)
		}
		return v
	}
	v := run(b)
	for _, warm := range []bool{false, true} {
		name := "cold"
		if warm {
			name, req.Proven = "proven", v.Proven()
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				run(b)
			}
			b.ReportMetric(float64(v.Commits)*float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}
