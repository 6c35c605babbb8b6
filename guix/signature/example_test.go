package signature_test

import (
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
