package nar_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"testing/fstest"

	"sallyport/guix/nar"
)

// A tree that exists nowhere is written and read.
func Example() {
	var archive bytes.Buffer
	w := nar.NewWriter(&archive)
	const script = "#!/bin/sh\necho hello\n"
	for _, h := range []*nar.Header{
		{Path: "", Type: nar.Directory},
		{Path: "bin", Type: nar.Directory},
		{Path: "bin/hello", Type: nar.Regular, Executable: true, Size: int64(len(script))},
		{Path: "bin/hi", Type: nar.Symlink, Target: "hello"},
	} {
		if err := w.WriteHeader(h); err != nil {
			log.Fatal(err)
		}
		if h.Type == nar.Regular {
			io.WriteString(w, script)
		}
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}

	for h, err := range nar.Entries(&archive) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%-9v %q\n", h.Type, h.Path)
	}
	// Output:
	// directory ""
	// directory "bin"
	// regular   "bin/hello"
	// symlink   "bin/hi"
}

// An archive whose hash is known is restored, or nothing is.
func ExampleNewVerifier() {
	var archive bytes.Buffer
	if err := nar.WriteFile(&archive, 5, false, strings.NewReader("hello")); err != nil {
		log.Fatal(err)
	}
	want := sha256.Sum256(archive.Bytes())
	size := int64(archive.Len())

	dir, err := os.MkdirTemp("", "nar")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer root.Close()

	altered := bytes.Replace(archive.Bytes(), []byte("hello"), []byte("jello"), 1)
	fmt.Println(nar.Restore(root, "altered", nar.NewVerifier(bytes.NewReader(altered), size, want)) != nil)
	fmt.Println(nar.Restore(root, "good", nar.NewVerifier(&archive, size, want)))
	b, err := root.ReadFile("good")
	fmt.Printf("%s %v\n", b, err)
	// Output:
	// true
	// <nil>
	// hello <nil>
}

func ExampleSum() {
	fsys := fstest.MapFS{"hello": {Data: []byte("hello"), Mode: 0o644}}
	sum, size, err := nar.Sum(fsys, "hello")
	fmt.Printf("%x %d %v\n", sum, size, err)
	// Output:
	// 0a430879c266f8b57f4092a0f935cf3facd48bbccde5760d4748ca405171e969 120 <nil>
}

// The references of an item, out of two candidates.
func ExampleScanner() {
	glibc, bash := "n7zi0bqc1b7kbm4y9mkkxmyfqj54cv1d", "9krpz9ypym3c2qyf15nk8xd2y03z0ycv"
	fsys := fstest.MapFS{"run": {Data: []byte("#!/gnu/store/" + bash + "-bash-5.2/bin/sh\n"), Mode: 0o755}}

	s, err := nar.NewScanner([]string{glibc, bash})
	if err != nil {
		log.Fatal(err)
	}
	if err := nar.Dump(s, fsys, "."); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s.Found())
	// Output:
	// [9krpz9ypym3c2qyf15nk8xd2y03z0ycv]
}
