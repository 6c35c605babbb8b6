package nar

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// The benchmarks run over the Go distribution, a tree of about 16,000 files,
// or over the tree that NAR_TREE names. Each Dump stands beside the loop
// that one would write first, and beside SHA-256 of the same bytes, which no dump
// that is hashed can beat.

// goroot is where the Go distribution lies; "" if go does not say.
func goroot(tb testing.TB) string {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		tb.Log("go env GOROOT:", err)
	}
	return strings.TrimSpace(string(out))
}

func benchTree(b *testing.B) *os.Root {
	dir := os.Getenv("NAR_TREE")
	if dir == "" {
		dir = goroot(b)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Skipf("no tree to dump: %v; set NAR_TREE to one", err)
	}
	b.Cleanup(func() { root.Close() })
	return root
}

// naiveDump dumps a tree of regular files, directories and links, a file after the other.
func naiveDump(w io.Writer, fsys fs.FS) error {
	z := NewWriter(w)
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		h := &Header{Path: name}
		if name == "." {
			h.Path = ""
		}
		switch d.Type() {
		case fs.ModeDir:
			h.Type = Directory
			return z.WriteHeader(h)
		case fs.ModeSymlink:
			h.Type = Symlink
			if h.Target, err = fs.ReadLink(fsys, name); err != nil {
				return err
			}
			return z.WriteHeader(h)
		}
		f, err := fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		h.Type, h.Size, h.Executable = Regular, fi.Size(), fi.Mode()&0o100 != 0
		if err := z.WriteHeader(h); err != nil {
			return err
		}
		_, err = io.Copy(z, f)
		return err
	})
	if err != nil {
		return err
	}
	return z.Close()
}

func BenchmarkDump(b *testing.B) {
	root := benchTree(b)
	_, size, err := Sum(root.FS(), ".")
	if err != nil {
		b.Fatal(err)
	}
	sinks := []struct {
		name string
		w    func() io.Writer
	}{
		{"discard", func() io.Writer { return struct{ io.Writer }{io.Discard} }},
		{"sha256", func() io.Writer { return struct{ io.Writer }{sha256.New()} }},
	}
	for _, sink := range sinks {
		b.Run(sink.name+"/Dump", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := Dump(sink.w(), root.FS(), "."); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(sink.name+"/Dump-of-plain-FS", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := Dump(sink.w(), os.DirFS(root.Name()), "."); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(sink.name+"/naive", func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				if err := naiveDump(sink.w(), root.FS()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sha256/alone", func(b *testing.B) {
		buf := make([]byte, dumpBuffer)
		b.SetBytes(size)
		for b.Loop() {
			h := sha256.New()
			for n := size; n > 0; n -= int64(len(buf)) {
				h.Write(buf[:min(n, int64(len(buf)))])
			}
		}
	})
}

func benchArchive(b *testing.B) []byte {
	var buf bytes.Buffer
	if err := Dump(&buf, benchTree(b).FS(), path.Clean("src")); err != nil {
		b.Skipf("no archive to read: %v; set NAR_TREE to a directory with one called src", err)
	}
	return buf.Bytes()
}

func BenchmarkRead(b *testing.B) {
	archive := benchArchive(b)
	b.Run("skip", func(b *testing.B) {
		b.SetBytes(int64(len(archive)))
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range Entries(bytes.NewReader(archive)) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("contents", func(b *testing.B) {
		b.SetBytes(int64(len(archive)))
		for b.Loop() {
			z := NewReader(bytes.NewReader(archive))
			for {
				_, err := z.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					b.Fatal(err)
				}
				z.WriteTo(struct{ io.Writer }{io.Discard})
			}
		}
	})
	b.Run("verified", func(b *testing.B) {
		b.SetBytes(int64(len(archive)))
		sum := sha256.Sum256(archive)
		for b.Loop() {
			v := NewVerifier(bytes.NewReader(archive), int64(len(archive)), sum)
			for _, err := range Entries(v) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("file", func(b *testing.B) {
		f, err := os.CreateTemp(b.TempDir(), "")
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		f.Write(archive)
		b.SetBytes(int64(len(archive)))
		for b.Loop() {
			f.Seek(0, io.SeekStart)
			for _, err := range Entries(f) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkRestore(b *testing.B) {
	archive := benchArchive(b)
	root, err := os.OpenRoot(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	b.SetBytes(int64(len(archive)))
	for b.Loop() {
		if err := Restore(root, "t", bytes.NewReader(archive)); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := Remove(root, "t"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkScan(b *testing.B) {
	var candidates []string
	for i := range 500 {
		candidates = append(candidates, fakeHash(i))
	}
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"program", program},
		{"source", benchArchive(b)},
		{"zeros-as-text", bytes.Repeat([]byte("0"), 1<<20)},
		{"alphabet", bytes.Repeat([]byte("0123456789abcdfghijklmnpqrsvwxyz"), 1<<15)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				s, err := NewScanner(candidates)
				if err != nil {
					b.Fatal(err)
				}
				for p := c.data; len(p) > 0; p = p[min(len(p), dumpBuffer):] {
					s.Write(p[:min(len(p), dumpBuffer)])
				}
			}
		})
	}
}

// fakeHash makes up a hash part.
func fakeHash(i int) string {
	const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"
	sum := sha256.Sum256(fmt.Append(nil, i))
	for i := range sum {
		sum[i] = alphabet[sum[i]%32]
	}
	return string(sum[:])
}
