package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	peernar "github.com/nix-community/go-nix/pkg/nar"

	"sallyport/guix/nar"
)

func narRows(p *peer, bin, tree string, archive []byte) []row {
	return []row{
		{what: "nar hash of the tree (whole process)", ours: process(bin, "nar", "hash", tree), peer: "guix hash -S nar", their: p.over(tree, "guix", "hash", "-S", "nar"), why: p.why, reach: 6},
		{what: "nar hash of the tree (whole process)", ours: process(bin, "nar", "hash", tree), peer: "nix-hash", their: p.over(tree, "nix-hash", "--type", "sha256", "--base32"), why: p.why, reach: 1.7},
		{what: "nar hash of the tree (in process)", ours: timed(func() error { return ourHash(tree) }), peer: "go-nix DumpPath", their: timed(func() error { return peernar.DumpPath(sha256.New(), tree) }), reach: 2.5},
		{what: "parse and check the nar (in memory)", ours: timed(func() error { return ourParse(archive) }), peer: "go-nix reader, unchecked", their: timed(func() error { return theirParse(archive) }), reach: 3},
	}
}

// floor tells what no nar hash can be faster than: the hash of the same bytes, and the reading of the tree.
func floor(tree string, archive []byte, runs int, whole time.Duration) error {
	alone, err := repeat(timed(func() error { sha256.Sum256(archive); return nil }), runs)
	if err != nil {
		return err
	}
	read, err := repeat(timed(func() error { return ourDump(io.Discard, tree) }), runs)
	if err != nil {
		return err
	}
	fmt.Printf("\nof the nar hash: SHA-256 of the same bytes in memory, alone, takes %s (%.0f MB/s, %.0f%% of the whole process); reading and archiving the tree, alone, %s\n",
		alone.Round(time.Millisecond), float64(len(archive))/1e6/alone.Seconds(), 100*float64(alone)/float64(whole), read.Round(time.Millisecond))
	return nil
}

func dump(tree string) ([]byte, int, error) {
	var b bytes.Buffer
	if err := ourDump(&b, tree); err != nil {
		return nil, 0, err
	}
	n := 0
	for _, err := range nar.Entries(bytes.NewReader(b.Bytes())) {
		if err != nil {
			return nil, 0, err
		}
		n++
	}
	return b.Bytes(), n, nil
}

func ourDump(w io.Writer, tree string) error {
	root, err := os.OpenRoot(filepath.Dir(tree))
	if err != nil {
		return err
	}
	defer root.Close()
	return nar.Dump(w, root.FS(), filepath.Base(tree))
}

func ourHash(tree string) error { return ourDump(sha256.New(), tree) }

func ourParse(b []byte) error {
	r := nar.NewReader(bytes.NewReader(b))
	return parse(r, func() (bool, error) {
		h, err := r.Next()
		return err == nil && h.Type == nar.Regular, err
	})
}

func theirParse(b []byte) error {
	r, err := peernar.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer r.Close()
	return parse(r, func() (bool, error) {
		h, err := r.Next()
		return err == nil && h.Type == peernar.TypeRegular, err
	})
}

// parse reads an archive to its end, contents included. next tells whether there are any.
func parse(r io.Reader, next func() (bool, error)) error {
	for {
		contents, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if contents {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
		}
	}
}
