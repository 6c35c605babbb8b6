package archive_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

func Example() {
	// A real key takes crypto/rand.Reader; this one has to be the same each time.
	key, err := signature.GenerateKey(rand.NewChaCha8([32]byte{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	path, err := storepath.ParseBase("m1ifsjhqxcvzb115va975vn4vc5v4f1r-greeting")
	if err != nil {
		fmt.Println(err)
		return
	}
	var contents, stream bytes.Buffer
	if err := nar.WriteFile(&contents, 6, false, strings.NewReader("hello\n")); err != nil {
		fmt.Println(err)
		return
	}
	w := archive.NewWriter(&stream, key)
	if err := w.Add(&archive.Item{Path: path}, &contents); err != nil {
		fmt.Println(err)
		return
	}
	if err := w.Close(); err != nil {
		fmt.Println(err)
		return
	}

	acl := signature.NewACL(key.Public())
	r := archive.NewReader(&stream)
	for {
		// The archive could be unpacked here, into quarantine.
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			fmt.Println(err)
			return
		}
		item, err := r.Item()
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := item.Verify(acl); err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(item.Path, item.NarSize)
	}
	// Output:
	// /gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-greeting 120
}
