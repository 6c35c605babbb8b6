package trust

import (
	"strconv"
	"strings"
)

// Printable makes a string from outside safe to print and to put into a statement: whatever is not printable ASCII becomes an escape as in a
// Go string, and what is longer than max bytes is cut and ends in "...".
func Printable(s string, max int) string {
	if len(s) > max {
		s = s[:max] + "..."
	}
	if strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0 {
		return s
	}
	q := strconv.QuoteToASCII(s)
	return q[1 : len(q)-1]
}
