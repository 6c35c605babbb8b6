package narinfo_test

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"

	"sallyport/guix/narinfo"
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
	nar := []byte("stands for an archive")
	path, err := storepath.ParseBase("m1ifsjhqxcvzb115va975vn4vc5v4f1r-gtk+-3")
	if err != nil {
		fmt.Println(err)
		return
	}
	signed, err := narinfo.Sign(&narinfo.NarInfo{
		StorePath: path,
		NarHash:   sha256.Sum256(nar),
		NarSize:   int64(len(nar)),
		Files:     []narinfo.File{{URL: narinfo.ItemURL("nar", "none", path), Compression: "none"}},
	}, "depot", key)
	if err != nil {
		fmt.Println(err)
		return
	}

	n, err := narinfo.Verify(signed, signature.NewACL(key.Public()))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := n.Answers("m1ifsjhqxcvzb115va975vn4vc5v4f1r"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(n.StorePath, n.NarSize)
	fmt.Println(n.Files[0].Resolve("http://depot.example"))
	// Output:
	// /gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-gtk+-3 21
	// http://depot.example/nar/m1ifsjhqxcvzb115va975vn4vc5v4f1r-gtk%2B-3
}
