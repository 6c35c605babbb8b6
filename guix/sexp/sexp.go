// Package sexp reads and writes the s-expressions in which GNU Guix keeps its
// keys, its access control list and its signatures.
//
// Guix leaves them to libgcrypt, so libgcrypt is the specification: the
// functions gcry_sexp_new and gcry_sexp_sprint of its src/sexp.c. The format
// is Rivest's draft, https://people.csail.mit.edu/rivest/Sexp.txt, of which
// only what Guix meets is understood here.
//
// # Values
//
// These are all the words there are: a value is an atom, which is a string of octets, or a list of values. An
// atom has no type: the number 65537, the three octets 01 00 01 and a symbol
// of three letters differ only in how they are spelled.
//
// # Reading
//
//	expression = list
//	list       = "(" { value } ")"
//	value      = list | token | quoted | hex | verbatim
//	token      = (letter | special) { letter | digit | special }
//	special    = "-" | "." | "/" | "_" | ":" | "*" | "+" | "="
//	quoted     = `"` { octet | escape } `"`
//	escape     = `\` ( one of btvnfr"'\ | "x" hexdigit hexdigit | three octal digits up to 377 )
//	hex        = "#" { hexdigit hexdigit } "#"        white space is allowed between digits
//	verbatim   = length ":" octets                    length in decimal, without leading zeros
//
// White space (space, tab, vertical tab, newline, form feed, carriage return)
// separates values and has no other meaning. Tokens, quotes and hex make up
// the advanced form, verbatim strings alone the canonical form; libgcrypt
// reads any mixture, and so does Parse.
//
// Parse is stricter than libgcrypt in these points, none of which Guix's own
// output touches:
//
//   - Octets after the last parenthesis are an error, unless white space.
//     libgcrypt ignores them.
//   - Display hints "[..]", base-64 "|..|" and "{..}", a length in front of a
//     quoted or hex string, and escaped line ends are refused.
//   - Control characters inside quotes have to be escaped.
//   - Values, nesting and size are bounded: see MaxSize, MaxDepth, MaxValues.
//
// It is more liberal in one: "0:" is the empty atom, as libgcrypt prints it
// and then refuses to read.
//
// # Writing
//
// Advanced prints exactly the octets of gcry_sexp_sprint in mode
// GCRYSEXP_FMT_ADVANCED, the form of every file that Guix writes: a list
// within a list begins on a new line, indented by its depth; after the
// parenthesis that closes it, unless another list follows at once, comes a
// line break and the indentation of what encloses it.
//
//	(acl
//	 (entry
//	  (tag
//	   (guix import)
//	   )
//	  )
//	 )
//
// (Each line that ends in a name here ends in a space there.) An atom is
// printed as a token where it can be one; else quoted where it is text; else
// as upper-case hex. It is not text if it begins with an octet above 7F or
// holds a control character that has no escape of one letter, an octet from
// 7F to A0, or NUL.
//
// Canonical prints the canonical form, which is unique for a value: two
// values are equal if and only if their canonical forms are.
//
// # A worked example
//
// The point of a public key, and the same key with another spelling:
//
//	v, err := sexp.Parse([]byte("(public-key (ecc (curve Ed25519) (q #0102#)))"))
//	ecc := v.Items()[1]                    // (ecc (curve Ed25519) (q #0102#))
//	q, ok := ecc.Items()[2].Items()[1].Atom() // "\x01\x02", true
//	w := sexp.List(sexp.Atom("public-key"), ecc)
//	v.Equal(w)                             // true
//	v.Canonical()                          // (10:public-key(3:ecc(5:curve7:Ed25519)(1:q2:\x01\x02)))
//
// # Bounds
//
// [MaxSize], [MaxDepth] and [MaxValues]. A value takes some hundred bytes
// beside its octets, so that no input takes more than a few megabytes.
//
// # Errors
//
// Every error of Parse is an [*Error]: a stable code, the offset of the octet,
// and words for a person. The first one ends the reading.
//
// # Sources
//
// libgcrypt, src/sexp.c, as above. What Guix wrote and what it made of
// other spellings is recorded in vectors/archives; the tests of package
// signature read all of it.
package sexp

import (
	"fmt"
	"strings"
)

// Bounds of Parse. Beyond them is an error.
const (
	MaxSize   = 256 << 10 // octets of input: an access control list of 1,400 keys
	MaxDepth  = 32        // lists within lists; Guix needs 5
	MaxValues = 32 << 10  // atoms and lists together
)

// Reason codes of an Error.
const (
	CodeTooLarge  = "too-large" // a bound was exceeded
	CodeTruncated = "truncated" // the input ends inside a value
	CodeTrailing  = "trailing"  // something follows the expression
	CodeMalformed = "malformed" // any other departure from the grammar
)

// An Error says where and why an input is not an s-expression.
type Error struct {
	Offset int64 // of the offending octet
	Code   string
	Detail string
}

func (e *Error) Error() string {
	return fmt.Sprintf("s-expression: byte %d: %s: %s", e.Offset, e.Code, e.Detail)
}

// A Value is an atom or a list. The zero Value is the empty atom.
type Value struct {
	atom   string
	list   []Value
	isList bool
	offset int
}

// Atom returns the atom of the octets of s.
func Atom(s string) Value { return Value{atom: s} }

// List returns the list of the given values.
func List(values ...Value) Value { return Value{list: values, isList: true} }

// IsList reports whether v is a list.
func (v Value) IsList() bool { return v.isList }

// Atom returns the octets of an atom; of a list, the empty string and false.
func (v Value) Atom() (string, bool) { return v.atom, !v.isList }

// Items returns the values of a list, nil for an atom. The slice belongs to v.
func (v Value) Items() []Value { return v.list }

// Head returns the atom that a list begins with, or "" if it begins with none.
func (v Value) Head() string {
	if len(v.list) == 0 {
		return ""
	}
	return v.list[0].atom
}

// Offset returns where v began in the input of Parse; 0 for a value made by
// Atom or List.
func (v Value) Offset() int64 { return int64(v.offset) }

// Equal reports whether v and w are the same value, however they were spelled.
func (v Value) Equal(w Value) bool {
	if v.isList != w.isList || v.atom != w.atom || len(v.list) != len(w.list) {
		return false
	}
	for i := range v.list {
		if !v.list[i].Equal(w.list[i]) {
			return false
		}
	}
	return true
}

// Parse reads one list, which must be all of data. Errors are of type *Error.
func Parse(data []byte) (Value, error) {
	if len(data) > MaxSize {
		return Value{}, &Error{MaxSize, CodeTooLarge, fmt.Sprintf("%d bytes, at most %d are read", len(data), MaxSize)}
	}
	p := parser{in: data}
	p.space()
	if p.pos < len(p.in) && p.in[p.pos] != '(' {
		return Value{}, p.fail(CodeMalformed, "%q where a list should begin", p.in[p.pos])
	}
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	p.space()
	if p.pos < len(p.in) {
		return Value{}, p.fail(CodeTrailing, "%q after the expression", p.in[p.pos])
	}
	return v, nil
}

type parser struct {
	in     []byte
	pos    int
	values int
}

func (p *parser) fail(code, format string, args ...any) *Error {
	return &Error{int64(p.pos), code, fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.pos < len(p.in) && isSpace(p.in[p.pos]) {
		p.pos++
	}
}

// value reads the value that begins at pos, which is not white space.
func (p *parser) value(depth int) (Value, error) {
	if p.values++; p.values > MaxValues {
		return Value{}, p.fail(CodeTooLarge, "more than %d values", MaxValues)
	}
	if p.pos == len(p.in) {
		return Value{}, p.fail(CodeTruncated, "a value is missing")
	}
	start := p.pos
	var atom string
	var err error
	switch c := p.in[p.pos]; {
	case c == '(':
		return p.listAt(depth)
	case c == '"':
		atom, err = p.quoted()
	case c == '#':
		atom, err = p.hex()
	case isDigit(c):
		atom, err = p.verbatim()
	case isToken(c):
		for p.pos < len(p.in) && isToken(p.in[p.pos]) {
			p.pos++
		}
		atom = string(p.in[start:p.pos])
	default:
		return Value{}, p.fail(CodeMalformed, "%q begins no value", c)
	}
	if err != nil {
		return Value{}, err
	}
	return Value{atom: atom, offset: start}, nil
}

func (p *parser) listAt(depth int) (Value, error) {
	if depth == MaxDepth {
		return Value{}, p.fail(CodeTooLarge, "more than %d lists within lists", MaxDepth)
	}
	list := Value{isList: true, offset: p.pos}
	p.pos++
	for {
		p.space()
		if p.pos == len(p.in) {
			return Value{}, p.fail(CodeTruncated, "the list begun at byte %d is not closed", list.offset)
		}
		if p.in[p.pos] == ')' {
			p.pos++
			return list, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return Value{}, err
		}
		list.list = append(list.list, v)
	}
}

func (p *parser) quoted() (string, error) {
	var b strings.Builder
	start := p.pos
	for p.pos++; p.pos < len(p.in); p.pos++ {
		c := p.in[p.pos]
		switch {
		case c == '"':
			p.pos++
			return b.String(), nil
		case c < ' ' || c == 0x7f:
			return "", p.fail(CodeMalformed, "bare control character %q in quotes", c)
		case c != '\\':
			b.WriteByte(c)
			continue
		}
		if p.pos++; p.pos == len(p.in) {
			break
		}
		c = p.in[p.pos]
		if i := strings.IndexByte(escapeLetters, c); i >= 0 {
			b.WriteByte(escapeOctets[i])
			continue
		}
		// \xHH and \OOO are three octets, all of which must be there.
		rest := p.in[p.pos:]
		switch {
		case c == 'x' && len(rest) >= 3 && isHex(rest[1]) && isHex(rest[2]):
			b.WriteByte(unhex(rest[1])<<4 | unhex(rest[2]))
		case len(rest) >= 3 && '0' <= c && c <= '3' && isOctal(rest[1]) && isOctal(rest[2]):
			b.WriteByte((c-'0')<<6 | (rest[1]-'0')<<3 | rest[2] - '0')
		default:
			return "", p.fail(CodeMalformed, "%q after a backslash", c)
		}
		p.pos += 2
	}
	return "", p.fail(CodeTruncated, "the string begun at byte %d is not closed", start)
}

func (p *parser) hex() (string, error) {
	var b strings.Builder
	start, digits, high := p.pos, 0, byte(0)
	for p.pos++; p.pos < len(p.in); p.pos++ {
		c := p.in[p.pos]
		switch {
		case c == '#':
			if digits%2 != 0 {
				return "", p.fail(CodeMalformed, "odd number of hexadecimal digits")
			}
			p.pos++
			return b.String(), nil
		case isHex(c):
			if digits++; digits%2 != 0 {
				high = unhex(c)
			} else {
				b.WriteByte(high<<4 | unhex(c))
			}
		case !isSpace(c):
			return "", p.fail(CodeMalformed, "%q is not a hexadecimal digit", c)
		}
	}
	return "", p.fail(CodeTruncated, "the string begun at byte %d is not closed", start)
}

func (p *parser) verbatim() (string, error) {
	start, n := p.pos, 0
	for p.pos < len(p.in) && isDigit(p.in[p.pos]) {
		if n = n*10 + int(p.in[p.pos]-'0'); n > MaxSize {
			return "", p.fail(CodeTooLarge, "string length above %d", MaxSize)
		}
		p.pos++
	}
	if p.pos == len(p.in) {
		return "", p.fail(CodeTruncated, "the string begun at byte %d is not there", start)
	}
	if p.in[p.pos] != ':' {
		return "", p.fail(CodeMalformed, "%q after a string length", p.in[p.pos])
	}
	if p.in[start] == '0' && p.pos-start > 1 {
		p.pos = start
		return "", p.fail(CodeMalformed, "string length with a leading zero")
	}
	p.pos++
	if n > len(p.in)-p.pos {
		return "", p.fail(CodeTruncated, "%d bytes of a string of %d", len(p.in)-p.pos, n)
	}
	p.pos += n
	return string(p.in[p.pos-n : p.pos]), nil
}

// escapeLetters[i], after a backslash, stands for escapeOctets[i].
const (
	escapeLetters = "btvnfr\"'\\"
	escapeOctets  = "\b\t\v\n\f\r\"'\\"
)

func isSpace(c byte) bool  { return c == ' ' || '\t' <= c && c <= '\r' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isOctal(c byte) bool  { return '0' <= c && c <= '7' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
func isHex(c byte) bool    { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }
func isToken(c byte) bool {
	return isLetter(c) || isDigit(c) || c != 0 && strings.IndexByte("-./_:*+=", c) >= 0
}

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
