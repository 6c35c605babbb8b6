package trust

import (
	"errors"

	"filippo.io/mldsa"
)

// sigContext is the context string of ML-DSA and the namespace of SSHSIG: what was signed for one context verifies in no other, and
// nothing that these keys sign elsewhere verifies here.
func sigContext(c Context) string { return "sallyport-" + string(c) }

const (
	mldsaSeedLen = 32                 // rho, in front of t1
	mldsaMaxT1   = 1<<mldsaT1Bits - 1 // times 2^13 it is -1 modulo q
	mldsaT1Bits  = 10                 // of a coefficient of t1
	mldsaPackLen = 5                  // bytes that four coefficients share
	mldsaPacked  = mldsaPackLen * 8 / mldsaT1Bits
)

// checkMLDSA takes every string of the right length, which has one spelling, but those whose t1 is nothing or next to nothing: under them a
// signature is found without a secret, since the challenge drops out of what is verified.
func checkMLDSA(public []byte) error {
	if len(public) != mldsa.MLDSA87PublicKeySize {
		return errors.New("an ML-DSA-87 key has 2,592 bytes")
	}
	strong := false
	for t1 := public[mldsaSeedLen:]; len(t1) > 0; t1 = t1[mldsaPackLen:] {
		var word uint64
		for i := range mldsaPackLen {
			word |= uint64(t1[i]) << (8 * i)
		}
		for i := range mldsaPacked {
			if c := word >> (mldsaT1Bits * i) & mldsaMaxT1; c != 0 && c != mldsaMaxT1 {
				strong = true
			}
		}
	}
	if !strong {
		return errors.New("an ML-DSA-87 key under which anybody can sign")
	}
	_, err := mldsa.NewPublicKey(mldsa.MLDSA87(), public)
	return err
}

func verifyMLDSA(public []byte, c Context, message, sig []byte) bool {
	if len(sig) != mldsa.MLDSA87SignatureSize || len(public) != mldsa.MLDSA87PublicKeySize {
		return false
	}
	key, err := mldsa.NewPublicKey(mldsa.MLDSA87(), public)
	return err == nil && mldsa.Verify(key, message, sig, &mldsa.Options{Context: sigContext(c)}) == nil
}
