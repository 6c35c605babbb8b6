package git

import (
	"bytes"
	"compress/zlib"
	"io"
	"math/rand/v2"
	"testing"
)

func deflate(t testing.TB, level int, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// samples are texts of many shapes.
func samples() [][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	all := [][]byte{{}, {'a'}, bytes.Repeat([]byte{'x'}, 70000), bytes.Repeat([]byte("tree and parent\n"), 5000)}
	for range 60 {
		n := r.IntN(1 << r.IntN(17))
		b := make([]byte, n)
		alphabet := 1 + r.IntN(256)
		for i := range b {
			if i > 20 && r.IntN(3) == 0 {
				b[i] = b[i-1-r.IntN(20)]
			} else {
				b[i] = byte(r.IntN(alphabet))
			}
		}
		all = append(all, b)
	}
	return all
}

func TestInflate(t *testing.T) {
	var z inflater
	for i, want := range samples() {
		for _, level := range []int{0, 1, 6, 9, zlib.HuffmanOnly} {
			src := deflate(t, level, want)
			got := make([]byte, len(want))
			n, err := z.inflate(got, append(src, "and more"...))
			if err != nil || n != len(src) || !bytes.Equal(got, want) {
				t.Fatalf("sample %d at level %d: %d of %d bytes, %v", i, level, n, len(src), err)
			}
			if n, err = z.inflate(got, src); err != nil || n != len(src) {
				t.Fatalf("sample %d at level %d without more behind: %v", i, level, err)
			}
			if _, err := z.inflate(make([]byte, len(want)+1), src); err != errSize {
				t.Fatalf("sample %d into a larger slice: %v", i, err)
			}
			if len(want) > 0 {
				if _, err := z.inflate(make([]byte, len(want)-1), src); err != errSize {
					t.Fatalf("sample %d into a smaller slice: %v", i, err)
				}
			}
			for cut := 0; cut < len(src); cut += 1 + len(src)/50 {
				if _, err := z.inflate(got, src[:cut]); err != errShort {
					t.Fatalf("sample %d at level %d cut at %d of %d: %v", i, level, cut, len(src), err)
				}
			}
		}
	}
}

// FuzzInflate: what the library reads, so do we, to the same bytes, and nothing else.
func FuzzInflate(f *testing.F) {
	for _, s := range samples() {
		if len(s) < 2000 {
			f.Add(deflate(f, 6, s))
			f.Add(deflate(f, 0, s))
		}
	}
	f.Add([]byte{0x78, 0x9c, 0x63, 0, 0, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, src []byte) {
		const most = 1 << 16
		var want []byte
		r, err := zlib.NewReader(bytes.NewReader(src))
		if err == nil {
			want, err = io.ReadAll(io.LimitReader(r, most+1))
		}
		if len(want) > most {
			return
		}
		var z inflater
		got := make([]byte, len(want))
		n, ours := z.inflate(got, src)
		switch {
		case err == nil && ours != nil:
			// The library does not mind a code without an end, which then never comes.
			t.Fatalf("the library reads %d bytes, we say %v", len(want), ours)
		case err == nil && !bytes.Equal(want, got):
			t.Fatalf("%q, the library reads %q", got, want)
		case err != nil && ours == nil:
			t.Fatalf("we read %d of %d bytes, the library says %v", n, len(src), err)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	text := samples()[40]
	text = append(bytes.Repeat([]byte("author A U Thor <a@example.org> 1590525051 +0200\n"), 5), text[:min(len(text), 700)]...)
	src := deflate(b, 6, text)
	dst := make([]byte, len(text))
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		var z inflater
		for b.Loop() {
			if _, err := z.inflate(dst, src); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("library", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		in := bytes.NewReader(src)
		r, err := zlib.NewReader(in)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			in.Reset(src)
			r.(zlib.Resetter).Reset(in, nil)
			if _, err := io.ReadFull(r, dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}
