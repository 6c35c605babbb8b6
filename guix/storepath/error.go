package storepath

import "strconv"

// Reason codes of an [Error].
const (
	CodePrefix    = "path-prefix"    // does not begin with /gnu/store/
	CodeLength    = "path-length"    // too short, too long, or not the length that the value must have
	CodeHash      = "path-hash"      // the hash part, or the dash after it
	CodeName      = "path-name"      // a byte or beginning that a name cannot have
	CodeBase32    = "base32"         // a character outside the alphabet, or surplus bits
	CodeAlgorithm = "hash-algorithm" // a hash algorithm that the daemon does not know
	CodeDigest    = "hash-length"    // a digest that is not of its algorithm's length
)

// An Error says why something is not a store path or not base32.
type Error struct {
	Offset int64  // of the first byte that is wrong, in the text that was given
	Code   string // one of the codes above
	Detail string // for people
}

func (e *Error) Error() string {
	return "store path: " + e.Code + " at byte " + strconv.FormatInt(e.Offset, 10) + ": " + e.Detail
}

func quoteByte(c byte) string { return strconv.QuoteToASCII(string([]byte{c})) }

// quote shortens what it quotes: the text comes from outside.
func quote(s string) string {
	if len(s) > 32 {
		return strconv.QuoteToASCII(s[:32]) + "..."
	}
	return strconv.QuoteToASCII(s)
}
