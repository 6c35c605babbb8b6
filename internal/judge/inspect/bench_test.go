package inspect

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The Go tree: many small files, as source trees are made of. The target is 300 MB/s.
func BenchmarkTree(b *testing.B) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		b.Skipf("SKIPPED: go env: %v; run this where the Go command is", err)
	}
	type file struct {
		name string
		data []byte
	}
	var files []file
	var total int64
	root := filepath.Join(strings.TrimSpace(string(out)), "src")
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, p)
		files = append(files, file{filepath.ToSlash(name), data})
		total += int64(len(data))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(total)
	b.ReportAllocs()
	for b.Loop() {
		in := New()
		for _, f := range files {
			if err := in.File(f.name, int64(len(f.data)), bytes.NewReader(f.data)); err != nil {
				b.Fatal(err)
			}
		}
	}
}
