package nar

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// scanSlowly looks at every position.
func scanSlowly(candidates []string, data []byte) []string {
	var found []string
	for _, c := range candidates {
		if bytes.Contains(data, []byte(c)) && !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	slices.Sort(found)
	return found
}

func scan(t testing.TB, candidates []string, pieces ...[]byte) []string {
	s, err := NewScanner(candidates)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		keep := bytes.Clone(p)
		if n, err := s.Write(p); n != len(p) || err != nil {
			t.Fatalf("Write returned %d, %v", n, err)
		}
		if !bytes.Equal(keep, p) {
			t.Fatal("Write has changed its argument")
		}
	}
	return s.Found()
}

func TestScan(t *testing.T) {
	a, b, c := fakeHash(1), fakeHash(2), fakeHash(3)
	for _, test := range []struct {
		data string
		want []string
	}{
		{"", nil},
		{a, []string{a}},
		{a[:31], nil},
		{a + b, []string{a, b}},
		{"0" + a + "z", []string{a}},
		{"/gnu/store/" + a + "-hello-2.12\x00" + strings.ToUpper(b) + c[1:], []string{a}},
		{strings.Repeat("0", 100) + c, []string{c}},
		{a + a + a, []string{a}},
		{a[:16] + b + a[16:], []string{b}},
		{a[:16] + "\x00" + a[16:], nil},
	} {
		slices.Sort(test.want)
		if got := scan(t, []string{a, b, c}, []byte(test.data)); !slices.Equal(got, test.want) {
			t.Errorf("%q: got %v, want %v", test.data, got, test.want)
		}
	}
	for _, bad := range []string{"", a[:31], a + "0", strings.ToUpper(a), a[:31] + "e", a[:31] + "\xff"} {
		if _, err := NewScanner([]string{a, bad}); err == nil {
			t.Errorf("the candidate %q is accepted", bad)
		}
	}
	if got := scan(t, nil, []byte(a)); len(got) != 0 {
		t.Errorf("without candidates: %v", got)
	}
}

// A hash part is found wherever the stream is cut.
func TestScanCuts(t *testing.T) {
	a, b := fakeHash(1), fakeHash(2)
	data := []byte("some text " + a + b + " e")
	want := scanSlowly([]string{a, b}, data)
	for i := range data {
		for j := i; j <= len(data); j++ {
			if got := scan(t, []string{a, b}, data[:i], data[i:j], data[j:]); !slices.Equal(got, want) {
				t.Fatalf("cut at %d and %d: got %v", i, j, got)
			}
		}
	}
	for size := 1; size < 70; size++ {
		if got := scan(t, []string{a, b}, slices.Collect(slices.Chunk(data, size))...); !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d: got %v", size, got)
		}
	}
}

// Streams in which runs of the alphabet are long and hash parts lie at all distances.
func TestScanRandom(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	var candidates []string
	for i := range 50 {
		candidates = append(candidates, fakeHash(i))
	}
	for round := range 300 {
		var data []byte
		for range rnd.IntN(60) {
			switch rnd.IntN(4) {
			case 0:
				data = append(data, candidates[rnd.IntN(50)]...)
			case 1:
				c := candidates[rnd.IntN(50)]
				data = append(data, c[rnd.IntN(32):]...)
			case 2:
				c := fakeHash(1000 + rnd.IntN(50))
				data = append(data, c[:rnd.IntN(33)]...)
			case 3:
				for range rnd.IntN(40) {
					data = append(data, byte(rnd.UintN(256)))
				}
			}
		}
		var pieces [][]byte
		for rest := data; len(rest) > 0; {
			n := 1 + rnd.IntN(min(len(rest), 90))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		want := scanSlowly(candidates, data)
		if got := scan(t, candidates, pieces...); !slices.Equal(got, want) {
			t.Fatalf("round %d: got %v, want %v", round, got, want)
		}
	}
}

func FuzzScanner(f *testing.F) {
	a := fakeHash(0)
	f.Add([]byte(a), uint8(7))
	f.Add([]byte(a[:31]+a), uint8(31))
	f.Add([]byte("0"+a+a[1:]), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		// Candidates come from the data themselves, at some positions.
		var candidates []string
		for i := 0; i+hashLen <= len(data); i += 5 {
			if c := string(data[i : i+hashLen]); !strings.ContainsFunc(c, func(r rune) bool { return r > 255 || !base32[byte(r)] }) {
				candidates = append(candidates, c)
			}
		}
		candidates = append(candidates, a)
		want := scanSlowly(candidates, data)
		got := scan(t, candidates, slices.Collect(slices.Chunk(data, int(size)+1))...)
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}
