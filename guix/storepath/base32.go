package storepath

const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

const notDigit = 0xff

var digit = func() (t [256]byte) {
	for i := range t {
		t[i] = notDigit
	}
	for i := 0; i < len(alphabet); i++ {
		t[alphabet[i]] = byte(i)
	}
	return t
}()

// Base32Len returns the number of characters that n bytes take.
func Base32Len(n int) int { return (8*n + 4) / 5 }

// EncodeBase32 returns b in Guix's base32.
func EncodeBase32(b []byte) string {
	dst := make([]byte, Base32Len(len(b)))
	putBase32(dst, b)
	return string(dst)
}

// putBase32 fills dst, which has the right length, from its end.
func putBase32(dst, b []byte) {
	var acc, bits uint
	i := len(dst)
	for _, c := range b {
		acc |= uint(c) << bits
		bits += 8
		for bits >= 5 {
			i--
			dst[i] = alphabet[acc&31]
			acc >>= 5
			bits -= 5
		}
	}
	if bits > 0 {
		dst[0] = alphabet[acc]
	}
}

// DecodeBase32 returns the n bytes that s stands for. There is one text for
// n bytes and one value for a text: everything else is an error.
func DecodeBase32(s string, n int) ([]byte, error) {
	if n < 0 || len(s) != Base32Len(n) {
		return nil, &Error{Code: CodeLength, Offset: int64(len(s)), Detail: "base32 text has the wrong length"}
	}
	// Faults are looked for from the front, so that the offset reported is
	// that of the first one.
	for i := 0; i < len(s); i++ {
		if digit[s[i]] == notDigit {
			return nil, &Error{Code: CodeBase32, Offset: int64(i), Detail: quoteByte(s[i]) + " is not of the base32 alphabet"}
		}
	}
	out := make([]byte, 0, n)
	var acc, bits uint
	for i := len(s) - 1; i >= 0; i-- {
		acc |= uint(digit[s[i]]) << bits
		bits += 5
		if bits >= 8 {
			out = append(out, byte(acc))
			acc >>= 8
			bits -= 8
		}
	}
	if acc != 0 {
		// At most four surplus bits, and they stand in the first character.
		return nil, &Error{Code: CodeBase32, Offset: 0, Detail: "surplus bits are not zero"}
	}
	return out, nil
}
