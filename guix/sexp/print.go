package sexp

import (
	"strconv"
	"strings"
)

// Canonical returns the canonical form of v.
func (v Value) Canonical() []byte { return v.appendCanonical(nil) }

func (v Value) appendCanonical(b []byte) []byte {
	if !v.isList {
		b = strconv.AppendInt(b, int64(len(v.atom)), 10)
		b = append(b, ':')
		return append(b, v.atom...)
	}
	b = append(b, '(')
	for _, item := range v.list {
		b = item.appendCanonical(b)
	}
	return append(b, ')')
}

// Advanced returns v as libgcrypt prints it, with the final line feed.
func (v Value) Advanced() []byte { return append(v.appendAdvanced(nil, 0), '\n') }

// String returns what Advanced does.
func (v Value) String() string { return string(v.Advanced()) }

func (v Value) appendAdvanced(b []byte, depth int) []byte {
	if !v.isList {
		return appendAtom(b, v.atom)
	}
	b = append(b, '(')
	for i, item := range v.list {
		if item.isList {
			b = appendIndent(b, depth+1)
		}
		b = item.appendAdvanced(b, depth+1)
		// What follows an item depends on its neighbour: a space after an
		// atom unless the list ends, a line break after a list unless another
		// list, which breaks the line itself, comes next.
		last := i == len(v.list)-1
		switch {
		case !item.isList && !last:
			b = append(b, ' ')
		case item.isList && (last || !v.list[i+1].isList):
			b = appendIndent(b, depth+1)
		}
	}
	return append(b, ')')
}

func appendIndent(b []byte, depth int) []byte {
	b = append(b, '\n')
	for range depth {
		b = append(b, ' ')
	}
	return b
}

func appendAtom(b []byte, s string) []byte {
	token, text := true, true
	for i := 0; i < len(s); i++ {
		c := s[i]
		if i == 0 && (c == 0 || c >= 0x80 || isDigit(c)) {
			token = false
			text = isDigit(c)
		}
		if (c < 0x20 || 0x7f <= c && c <= 0xa0) && (c == 0 || strings.IndexByte(escapeOctets, c) < 0) {
			text = false
		}
		token = token && isToken(c)
	}
	switch {
	case s == "":
		return append(b, `""`...)
	case !text:
		const digits = "0123456789ABCDEF"
		b = append(b, '#')
		for i := 0; i < len(s); i++ {
			b = append(b, digits[s[i]>>4], digits[s[i]&15])
		}
		return append(b, '#')
	case token:
		return append(b, s...)
	}
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if j := strings.IndexByte(escapeOctets, s[i]); j >= 0 {
			b = append(b, '\\', escapeLetters[j])
		} else {
			b = append(b, s[i])
		}
	}
	return append(b, '"')
}
