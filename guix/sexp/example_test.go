package sexp_test

import (
	"fmt"
	"strings"

	"sallyport/guix/sexp"
)

// The same public key on one line, as a person may type it, and as Guix prints it.
func Example() {
	v, err := sexp.Parse([]byte(`(public-key (ecc (curve "Ed25519") (q #c3ff#)))`))
	if err != nil {
		fmt.Println(err)
		return
	}
	ecc := v.Items()[1]
	q, ok := ecc.Items()[2].Items()[1].Atom()
	fmt.Printf("%s %x %v\n", ecc.Head(), q, ok)
	fmt.Printf("%q\n", v.Canonical())
	fmt.Printf("%q\n", v.Advanced())
	// Output:
	// ecc c3ff true
	// "(10:public-key(3:ecc(5:curve7:Ed25519)(1:q2:\xc3\xff)))"
	// "(public-key \n (ecc \n  (curve Ed25519)\n  (q #C3FF#)\n  )\n )\n"
}

// Any of the forms is read, and one is printed.
func ExampleParse() {
	v, err := sexp.Parse([]byte("(3:tag(guix #696D706F7274#))"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(v.Head(), len(v.Items()))
	fmt.Print(strings.ReplaceAll(v.String(), " \n", "\n")) // Guix ends the first line in a space
	// Output:
	// tag 2
	// (tag
	//  (guix import)
	//  )
}

// A value that is made here.
func ExampleList() {
	tag := sexp.List(sexp.Atom("tag"), sexp.List(sexp.Atom("guix"), sexp.Atom("import")))
	fmt.Printf("%s\n", tag.Canonical())
	v, err := sexp.Parse([]byte("(tag (guix import))"))
	fmt.Println(v.Equal(tag), err)
	// Output:
	// (3:tag(4:guix6:import))
	// true <nil>
}

// A fault has its place.
func ExampleError() {
	_, err := sexp.Parse([]byte("(acl (entry) ) and more"))
	fmt.Println(err)
	_, err = sexp.Parse([]byte("(q #ABC#)"))
	fmt.Println(err)
	// Output:
	// s-expression: byte 15: trailing: 'a' after the expression
	// s-expression: byte 7: malformed: odd number of hexadecimal digits
}
