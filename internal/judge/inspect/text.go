package inspect

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf8"
)

// The rules about characters, as indices of textState.seen.
const (
	bidiUnterminated = iota
	bidiControl
	variationPayload
	tagCharacters
	hangulFiller
	mixedCyrillic
	mixedGreek
	zeroWidth
	joiner
	textRules
)

var textRuleNames = [textRules]string{"bidi-unterminated", "bidi-control", "variation-payload", "tag-characters", "hangul-filler", "mixed-cyrillic", "mixed-greek", "zero-width", "joiner"}

// selectorRun is how many variation selectors in a row are no typography.
const selectorRun = 8

// maxToken bounds how far the ends of a word are looked for.
const maxToken = 128

// textState is what the character rules remember of one file. Windows may be cut anywhere but inside a character.
type textState struct {
	seen      [textRules]int64 // line of the first sight, 0 for none
	count     [textRules]int64
	invalid   int64 // bytes that are not UTF-8
	valid     int64 // characters past ASCII
	selectors int
	depth     int
	stack     [64]byte // open controls: 'e' embedding or override, 'i' isolate
	started   bool     // past the first character
}

func (s *textState) reset() {
	*s = textState{}
}

// nextHigh gives the index of the first byte past ASCII in b from i on, or len(b).
func nextHigh(b []byte, i int) int {
	for ; i+8 <= len(b); i += 8 {
		if m := binary.LittleEndian.Uint64(b[i:]) & 0x8080808080808080; m != 0 {
			return i + bits.TrailingZeros64(m)/8
		}
	}
	for ; i < len(b); i++ {
		if b[i] >= 0x80 {
			return i
		}
	}
	return i
}

// scan goes through a window that begins on the given line.
func (s *textState) scan(b []byte, line int64) {
	counted := 0 // newlines before this index are in line
	hit := func(rule, at int) {
		s.count[rule]++
		if s.seen[rule] == 0 {
			line += newlines(b[counted:at])
			counted = at
			s.seen[rule] = line
		}
	}
	for i := 0; i < len(b); {
		if b[i] < 0x80 {
			s.started = true
			s.selectors = 0
			if s.depth == 0 {
				i = nextHigh(b, i)
				continue
			}
			if b[i] == '\n' || b[i] == '\r' {
				s.endLine(hit, i)
			}
			i++
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			s.invalid++
			s.started = true
			i++
			continue
		}
		s.valid++
		at := i
		i += size
		// Most of what is not ASCII is letters: out of the way first.
		if r >= 0x3400 && r < 0xd800 || r >= 0xc0 && r < 0x370 {
			s.started = true
			s.selectors = 0
			continue
		}
		selector := false
		switch {
		case r >= 0x370 && r < 0x530:
			i = s.word(b, at, hit)
		case r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			hit(bidiControl, at)
			s.bidi(r)
		case r == 0x2028 || r == 0x2029:
			s.endLine(hit, at)
		case r >= 0xe0000 && r <= 0xe007f:
			hit(tagCharacters, at)
		case r >= 0xe0100 && r <= 0xe01ef:
			hit(variationPayload, at)
		case r >= 0xfe00 && r <= 0xfe0f:
			selector = true
			if s.selectors++; s.selectors == selectorRun {
				hit(variationPayload, at)
			}
		case r == 0x115f || r == 0x1160 || r == 0x3164 || r == 0xffa0:
			hit(hangulFiller, at)
		case r == 0x200b || r == 0x2060 || r == 0x180e || r == 0xfeff && s.started:
			hit(zeroWidth, at)
		case r == 0xad || r >= 0x200c && r <= 0x200f:
			hit(joiner, at)
		}
		s.started = true
		if !selector {
			s.selectors = 0
		}
	}
}

// bidi follows the nesting of controls as the algorithm of UAX #9 does.
func (s *textState) bidi(r rune) {
	push := func(c byte) {
		if s.depth < len(s.stack) {
			s.stack[s.depth] = c
		}
		s.depth++
	}
	switch r {
	case 0x202a, 0x202b, 0x202d, 0x202e:
		push('e')
	case 0x2066, 0x2067, 0x2068:
		push('i')
	case 0x202c: // closes an embedding, if that is what is innermost
		if s.depth > 0 && s.top() == 'e' {
			s.depth--
		}
	case 0x2069: // closes the innermost isolate and what is open inside it
		for d := s.depth; d > 0; d-- {
			if d > len(s.stack) || s.stack[d-1] == 'i' {
				s.depth = d - 1
				break
			}
		}
	}
}

func (s *textState) top() byte {
	if s.depth > len(s.stack) {
		return 'e'
	}
	return s.stack[s.depth-1]
}

// endLine: the algorithm starts anew in each paragraph, so what is open here stays open for the reader's eye only.
func (s *textState) endLine(hit func(rule, at int), at int) {
	if s.depth > 0 {
		hit(bidiUnterminated, at)
		s.depth = 0
	}
}

// word judges the word around the Cyrillic or Greek letter at b[at] and gives the index of its end.
func (s *textState) word(b []byte, at int, hit func(rule, at int)) int {
	start := at
	for start > 0 && at-start < maxToken && isWord(b[start-1]) {
		start--
	}
	if start > 0 && b[start-1] == '\\' && start < at {
		start++ // the n of "\nДа" belongs to the escape
	}
	latin, cyrillic, greek, other := false, false, false, false
	i := start
	for i < len(b) && i-start < 2*maxToken {
		c := b[i]
		if c < 0x80 {
			if !isWord(c) {
				break
			}
			latin = latin || isLetter(c)
			i++
			continue
		}
		r, size := utf8.DecodeRune(b[i:])
		switch {
		case r >= 0x370 && r < 0x400:
			greek = greek || greekLookalike(r)
		case r >= 0x400 && r < 0x530:
			if cyrillicLookalike(r) {
				cyrillic = true
			} else {
				other = true // shows what it is
			}
		case r >= 0xc0 && r < 0x250 && r != 0xd7 && r != 0xf7:
			latin = true
		default:
			size = 0
		}
		if size == 0 {
			break
		}
		if i > at {
			s.valid++
		}
		i += size
	}
	if latin && cyrillic && !other {
		hit(mixedCyrillic, at)
	} else if latin && greek && !cyrillic && !other {
		hit(mixedGreek, at)
	}
	return max(i, at+2)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
func isWord(c byte) bool   { return isLetter(c) || c >= '0' && c <= '9' || c == '_' }

func cyrillicLookalike(r rune) bool {
	switch r {
	case 'а', 'е', 'о', 'р', 'с', 'у', 'х', 'і', 'ј', 'ѕ', 'ԁ', 'ԛ', 'ԝ', 'һ', 'ӏ', 'г', 'ѵ',
		'А', 'В', 'Е', 'К', 'М', 'Н', 'О', 'Р', 'С', 'Т', 'У', 'Х', 'І', 'Ј', 'Ѕ', 'Ԍ', 'Ԛ', 'Ԝ', 'Ү', 'Ӏ', 'Ѵ':
		return true
	}
	return false
}

func greekLookalike(r rune) bool {
	switch r {
	case 'α', 'ο', 'ν', 'ι', 'ρ', 'υ', 'χ', 'γ', 'κ', 'ϲ', 'Α', 'Β', 'Ε', 'Ζ', 'Η', 'Ι', 'Κ', 'Μ', 'Ν', 'Ο', 'Ρ', 'Τ', 'Υ', 'Χ':
		return true
	}
	return false
}
