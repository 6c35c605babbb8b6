package storepath_test

import (
	"crypto/sha256"
	"fmt"

	"sallyport/guix/storepath"
)

func ExampleParse() {
	p, err := storepath.Parse("/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2")
	fmt.Println(p.Hash(), p.Name(), err)

	// The real daemon takes this one when it imports an archive.
	_, err = storepath.Parse("/gnu/store/..")
	fmt.Println(err)
	// Output:
	// cs56i9digj9qg1bd383cmxc6xrfpdn9n hello-2.12.2 <nil>
	// store path: path-length at byte 13: want 32 characters of hash and a dash
}

func ExampleText() {
	p, err := storepath.Text("text-plain", sha256.Sum256([]byte("hello world\n")), nil)
	fmt.Println(p, err)
	// Output: /gnu/store/r1jkipi5avj3wmdancznwcz2kmqqgp1h-text-plain <nil>
}

func ExampleFixedOutput() {
	sum := sha256.Sum256([]byte("flat content\n"))
	p, err := storepath.FixedOutput("fo", "sha256", false, sum[:])
	fmt.Println(p, err)
	// Output: /gnu/store/fyq7i7vrm6bv7mys2ks5j5hx3p644rpz-fo <nil>
}

func ExampleEncodeBase32() {
	sum := sha256.Sum256(nil)
	fmt.Println(storepath.EncodeBase32(sum[:]))
	// Output: 0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73
}
