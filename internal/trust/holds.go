package trust

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Printable makes a string from outside safe to print and to put into a statement: whatever is not printable ASCII becomes an escape as in a
// Go string. What comes out has at most max bytes; if it would have more it is cut, between characters and escapes, and ends in "...".
func Printable(s string, max int) string {
	plain := strings.IndexFunc(s[:min(len(s), max+1)], func(r rune) bool { return r < 0x20 || r > 0x7e }) < 0
	if plain && len(s) <= max {
		return s
	}
	const more = "..."
	var b strings.Builder
	cut := 0 // where what is kept ends, if more follows than there is room for
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+n]
		if i += n; !plain || r < 0x20 || r > 0x7e {
			q := strconv.QuoteToASCII(piece)
			piece = q[1 : len(q)-1]
		}
		if b.Len()+len(piece) > max {
			return b.String()[:cut] + more[:min(len(more), max)]
		}
		b.WriteString(piece)
		if b.Len() <= max-len(more) {
			cut = b.Len()
		}
	}
	return b.String()
}
