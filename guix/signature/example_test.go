package signature_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"

	"sallyport/guix/signature"
)

func Example() {
	// A real key takes crypto/rand.Reader; this one has to be the same each time.
	secret, err := signature.GenerateKey(rand.NewChaCha8([32]byte{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	hash := sha256.Sum256([]byte("what is signed"))
	sig, err := signature.Sign(secret, hash)
	if err != nil {
		fmt.Println(err)
		return
	}

	acl := signature.NewACL(secret.Public())
	key, err := signature.Verify(sig, hash, acl)
	fmt.Println(key == secret.Public(), err)

	var refused *signature.Error
	_, err = signature.Verify(sig, sha256.Sum256([]byte("what is at hand")), acl)
	if errors.As(err, &refused) {
		fmt.Println(refused.Code)
	}
	_, err = signature.Verify(sig, hash, signature.ACL{})
	if errors.As(err, &refused) {
		fmt.Println(refused.Code)
	}
	// Output:
	// true <nil>
	// hash-mismatch
	// unauthorised-key
}

// Who is believed: a list as /etc/guix/acl, of which one key is asked for.
func ExampleParseACL() {
	acl, err := signature.ParseACL([]byte(`(acl (entry (public-key (ecc (curve Ed25519)
	  (q #1EC345EBEA089F9D64CF3562A674B5DBB6B1107E9CED3DAEFB8AA8AAF9FE056C#))) (tag (guix import))))`))
	if err != nil {
		fmt.Println(err)
		return
	}
	key, err := signature.ParsePublicKeyHex("1ec345ebea089f9d64cf3562a674b5dbb6b1107e9ced3daefb8aa8aaf9fe056c")
	fmt.Println(len(acl.Keys()), acl.Has(key), err)

	// One entry of another shape makes the list mean nothing, as in Guix.
	_, err = signature.ParseACL([]byte(`(acl (entry (public-key (ecc (curve Ed25519) (q #00#))) (tag (guix export))))`))
	fmt.Println(err)
	// Output:
	// 1 true <nil>
	// guix signature: byte 56: malformed-acl: the tag is not (guix import)
}

// Two texts of one signature: Guix and Verify take both, the strict mode one.
func ExampleVerifyStrict() {
	secret, err := signature.GenerateKey(rand.NewChaCha8([32]byte{}))
	if err != nil {
		fmt.Println(err)
		return
	}
	hash := sha256.Sum256([]byte("what is signed"))
	sig, err := signature.Sign(secret, hash)
	if err != nil {
		fmt.Println(err)
		return
	}
	acl := signature.NewACL(secret.Public())
	other := bytes.Replace(sig, []byte("(flags rfc6979)"), []byte("( flags  rfc6979 )"), 1)
	for _, text := range [][]byte{sig, other} {
		_, err := signature.Verify(text, hash, acl)
		_, strict := signature.VerifyStrict(text, hash, acl)
		fmt.Println(err, strict)
	}
	// Output:
	// <nil> <nil>
	// <nil> guix signature: byte 23: signature-spelling: Guix spells this signature otherwise from here on
}
