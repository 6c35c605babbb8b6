package nar

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// What is read prints back to the same bytes, is read to exactly its end, and is
// judged alike in whatever pieces it comes.
func FuzzReader(f *testing.F) {
	for _, c := range hostileCases() {
		archive, _ := c.bytes(f)
		if len(archive) < 1<<14 {
			f.Add([]byte(archive))
		}
	}
	for name, archive := range vectors(f) {
		if name != "pad" { // too long to be mutated with profit
			f.Add(archive)
		}
	}
	f.Add(append(sample(f), "rest"...))
	f.Fuzz(func(t *testing.T, archive []byte) {
		var out bytes.Buffer
		g := &greedy{r: bytes.NewReader(archive)}
		err := rewrite(&out, g)
		if err == nil {
			if g.n != int64(out.Len()) {
				t.Fatalf("read %d bytes, wrote %d", g.n, out.Len())
			}
			if !bytes.Equal(out.Bytes(), archive[:g.n]) {
				t.Fatal("written otherwise than read")
			}
		}
		for _, r := range readers {
			for _, src := range []io.Reader{bytes.NewReader(archive), iotest.HalfReader(bytes.NewReader(archive))} {
				other := r.read(src)
				if (err == nil) != (other == nil) {
					t.Fatalf("%s: %v, but %v", r.name, other, err)
				}
				if err == nil {
					continue
				}
				var a, b *Error
				if !errors.As(err, &a) || !errors.As(other, &b) || *a != *b {
					t.Fatalf("%s: %v, but %v", r.name, other, err)
				}
			}
		}
	})
}

// Whatever is restored dumps to the same bytes; what is refused leaves nothing.
func FuzzRestore(f *testing.F) {
	for _, archive := range vectors(f) {
		f.Add(archive)
	}
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, archive []byte) {
		root := openRoot(t, t.TempDir())
		r := bytes.NewReader(archive)
		if err := Restore(root, "x", r); err != nil {
			if _, err := root.Lstat("x"); err == nil {
				t.Error("something is left")
			}
			return
		}
		var out bytes.Buffer
		if err := Dump(&out, root.FS(), "x"); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.Bytes(), archive[:len(archive)-r.Len()]) {
			t.Error("dumped otherwise than restored")
		}
	})
}
