package scheme

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds of one file. The manifest of a large profile has some hundred kilobytes, and
// is as deep as its chains of propagated inputs are long.
const (
	MaxSize   = 8 << 20
	MaxDepth  = 256
	MaxValues = 1 << 19
)

// Reason codes of an [Error].
const (
	// Of the reader.
	CodeSyntax     = "scheme-syntax"     // a byte that begins no datum, or a datum that is no data
	CodeUnbalanced = "scheme-unbalanced" // a parenthesis, string or comment that is not closed, or ")" too much
	CodeString     = "scheme-string"     // an escape that is not read, or bytes that are no text
	CodeNumber     = "scheme-number"     // a number that is not a plain integer
	CodeDots       = "scheme-dots"       // "." where no datum before or not one after it
	CodeLimit      = "scheme-limit"      // larger than a bound of this package

	// Of the files.
	CodeForm      = "scheme-form"      // a form that is not of the file's language
	CodeField     = "scheme-field"     // a field that is not known, missing, or there twice
	CodeVersion   = "scheme-version"   // a version that is not known
	CodeValue     = "scheme-value"     // a value that its field cannot have
	CodeDuplicate = "scheme-duplicate" // two things of one name
)

// An Error says where a file leaves the language that this package reads.
type Error struct {
	Line, Column int   // from 1; columns count characters
	Offset       int64 // in bytes
	Code         string
	Detail       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("scheme: line %d, column %d: %s: %s", e.Line, e.Column, e.Code, e.Detail)
}

// A Kind says what a Value is.
type Kind byte

// Kinds of values.
const (
	List Kind = iota + 1
	String
	Symbol
	Keyword
	Integer
	Boolean
)

func (k Kind) String() string {
	if k < List || k > Boolean {
		return "Kind(" + strconv.Itoa(int(k)) + ")"
	}
	return [...]string{"a list", "a string", "a symbol", "a keyword", "an integer", "a boolean"}[k-List]
}

// A Value is one datum. "'X" is the list (quote X).
type Value struct {
	Kind  Kind
	Text  string  // of a string, symbol or keyword
	Int   int64   // of an integer
	Bool  bool    // of a boolean
	Items []Value // of a list
	Tail  *Value  // what follows the dot of a list; nil if there is none

	Line, Column int // where it begins, from 1
	Offset       int64
}

// Head returns the symbol that a list begins with, or "".
func (v Value) Head() string {
	if v.Kind == List && len(v.Items) > 0 && v.Items[0].Kind == Symbol {
		return v.Items[0].Text
	}
	return ""
}

// Equal reports whether v and w are the same datum, wherever they stand.
func (v Value) Equal(w Value) bool {
	switch {
	case v.Kind != w.Kind || v.Text != w.Text || v.Int != w.Int || v.Bool != w.Bool:
		return false
	case (v.Tail == nil) != (w.Tail == nil) || v.Tail != nil && !v.Tail.Equal(*w.Tail):
		return false
	}
	return slices.EqualFunc(v.Items, w.Items, Value.Equal)
}

// String prints v on one line, as far as its strings let it.
func (v Value) String() string { return string(v.append(nil)) }

func (v Value) append(b []byte) []byte {
	switch v.Kind {
	case String:
		return appendString(b, v.Text)
	case Symbol:
		return append(b, v.Text...)
	case Keyword:
		return append(append(b, "#:"...), v.Text...)
	case Integer:
		return strconv.AppendInt(b, v.Int, 10)
	case Boolean:
		if v.Bool {
			return append(b, "#t"...)
		}
		return append(b, "#f"...)
	case List:
		if len(v.Items) == 2 && v.Head() == quote && v.Tail == nil {
			return v.Items[1].append(append(b, '\''))
		}
		b = append(b, '(')
		for i, item := range v.Items {
			if i > 0 {
				b = append(b, ' ')
			}
			b = item.append(b)
		}
		if v.Tail != nil {
			b = v.Tail.append(append(b, " . "...))
		}
		return append(b, ')')
	}
	return append(b, "#<no value>"...)
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if k := strings.IndexByte(escaped, s[i]); k >= 0 {
			b = append(b, '\\', escapes[k])
		} else {
			b = append(b, s[i])
		}
	}
	return append(b, '"')
}

const (
	quote   = "quote"
	escapes = `"\nrtabfv` // after a backslash
	escaped = "\"\\\n\r\t\a\b\f\v"

	space     = " \t\n\r\f"
	delimiter = space + `()";`
	initial   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$%&*/:<=>?^_~"
	digits    = "0123456789"
	more      = initial + digits + "+-.@"
)

// Parse returns all that stands in a file.
func Parse(text []byte) ([]Value, error) {
	p := parser{text: text, line: 1}
	if len(text) > MaxSize {
		return nil, p.fail(CodeLimit, "%d bytes, at most %d are read", len(text), MaxSize)
	}
	var all []Value
	for {
		switch more, err := p.skip(0); {
		case err != nil:
			return nil, err
		case !more:
			return all, nil
		}
		v, err := p.datum(0)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
}

// A parser stands before the byte at.
type parser struct {
	text   []byte
	at     int
	line   int // of at
	begin  int // where the line begins
	col    int // characters between begin and seen
	seen   int
	values int
}

// fail reports the byte at which p stands.
func (p *parser) fail(code, format string, args ...any) *Error {
	line, col := p.place()
	return &Error{line, col, int64(p.at), code, fmt.Sprintf(format, args...)}
}

// failAt reports the beginning of v.
func failAt(v Value, code, format string, args ...any) *Error {
	return &Error{v.Line, v.Column, v.Offset, code, fmt.Sprintf(format, args...)}
}

// place returns line and column. Characters of a line are counted once.
func (p *parser) place() (line, col int) {
	if p.seen < p.begin {
		p.seen, p.col = p.begin, 0
	}
	p.col += utf8.RuneCount(p.text[p.seen:p.at])
	p.seen = p.at
	return p.line, p.col + 1
}

// next passes over n bytes.
func (p *parser) next(n int) {
	passed := p.text[p.at : p.at+n]
	if i := bytes.LastIndexByte(passed, '\n'); i >= 0 {
		p.line += bytes.Count(passed, []byte("\n"))
		p.begin = p.at + i + 1
	}
	p.at += n
}

func (p *parser) has(prefix string) bool { return bytes.HasPrefix(p.text[p.at:], []byte(prefix)) }

// skip passes over white space and comments, and tells whether anything follows.
func (p *parser) skip(depth int) (bool, error) {
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch {
		case strings.IndexByte(space, rest[0]) >= 0:
			p.next(1)
		case rest[0] == ';':
			n := bytes.IndexByte(rest, '\n')
			if n < 0 {
				n = len(rest)
			}
			if err := p.comment(n); err != nil {
				return false, err
			}
		case p.has("#|"):
			if err := p.block(); err != nil {
				return false, err
			}
		case p.has("#;"):
			open := p.fail(CodeSyntax, `no datum follows "#;"`)
			p.next(2)
			if depth >= MaxDepth {
				return false, p.fail(CodeLimit, "nested deeper than %d", MaxDepth)
			}
			switch more, err := p.skip(depth + 1); {
			case err != nil:
				return false, err
			case !more || p.has(")"):
				return false, open
			}
			if _, err := p.datum(depth + 1); err != nil {
				return false, err
			}
		default:
			return true, nil
		}
	}
	return false, nil
}

// comment passes over n bytes of a comment.
func (p *parser) comment(n int) error {
	if i := badText(p.text[p.at : p.at+n]); i >= 0 {
		p.next(i)
		return p.fail(CodeSyntax, "the comment is not text: byte %#02x", p.text[p.at])
	}
	p.next(n)
	return nil
}

// badText returns the index of the first byte that is zero or not UTF-8, or -1.
func badText(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == 0 || r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// block passes over a comment from #| to |#. It does not recurse.
func (p *parser) block() error {
	open := p.fail(CodeUnbalanced, "the comment is not closed")
	depth := 0
	for i := p.at; i+1 < len(p.text); {
		switch string(p.text[i : i+2]) {
		case "#|":
			depth++
			i += 2
		case "|#":
			depth--
			i += 2
		default:
			i++
		}
		if depth == 0 {
			return p.comment(i - p.at)
		}
	}
	return open
}

// datum parses the datum at which p stands.
func (p *parser) datum(depth int) (Value, error) {
	line, col := p.place()
	v := Value{Line: line, Column: col, Offset: int64(p.at)}
	if p.values++; p.values > MaxValues {
		return v, p.fail(CodeLimit, "more than %d values", MaxValues)
	}
	var err error
	switch c := p.text[p.at]; {
	case c == '(':
		err = p.list(&v, depth)
	case c == ')':
		err = p.fail(CodeUnbalanced, `")" closes nothing`)
	case c == '\'':
		err = p.quoted(&v, depth)
	case c == '"':
		err = p.string(&v)
	default:
		err = p.token(&v)
	}
	return v, err
}

func (p *parser) list(v *Value, depth int) error {
	if depth >= MaxDepth {
		return p.fail(CodeLimit, "nested deeper than %d", MaxDepth)
	}
	open := p.fail(CodeUnbalanced, `"(" is not closed`)
	v.Kind = List
	p.next(1)
	for {
		switch more, err := p.skip(depth + 1); {
		case err != nil:
			return err
		case !more:
			return open
		}
		switch {
		case p.has(")"):
			p.next(1)
			return nil
		case v.Tail != nil:
			return p.fail(CodeDots, `more than one datum after "."`)
		case p.dot():
			if len(v.Items) == 0 {
				return p.fail(CodeDots, `no datum before "."`)
			}
			p.next(1)
			switch more, err := p.skip(depth + 1); {
			case err != nil:
				return err
			case !more:
				return open
			case p.has(")"):
				return p.fail(CodeDots, `no datum after "."`)
			}
			tail, err := p.datum(depth + 1)
			if err != nil {
				return err
			}
			// (A . (B)) is (A B). One value has one form here.
			if tail.Kind == List {
				v.Items = append(v.Items, tail.Items...)
				if tail.Tail == nil {
					if more, err := p.skip(depth + 1); err != nil {
						return err
					} else if !more {
						return open
					}
					if !p.has(")") {
						return p.fail(CodeDots, `more than one datum after "."`)
					}
					p.next(1)
					return nil
				}
				v.Tail = tail.Tail
			} else {
				v.Tail = &tail
			}
		default:
			item, err := p.datum(depth + 1)
			if err != nil {
				return err
			}
			v.Items = append(v.Items, item)
		}
	}
}

// dot reports whether p stands before a "." that is all of a token.
func (p *parser) dot() bool {
	return p.has(".") && (p.at+1 == len(p.text) || strings.IndexByte(delimiter, p.text[p.at+1]) >= 0)
}

func (p *parser) quoted(v *Value, depth int) error {
	if depth >= MaxDepth {
		return p.fail(CodeLimit, "nested deeper than %d", MaxDepth)
	}
	open := p.fail(CodeSyntax, "the quote is before nothing")
	p.next(1)
	switch more, err := p.skip(depth + 1); {
	case err != nil:
		return err
	case !more || p.has(")") || p.dot():
		return open
	}
	x, err := p.datum(depth + 1)
	v.Kind = List
	v.Items = []Value{{Kind: Symbol, Text: quote, Line: v.Line, Column: v.Column, Offset: v.Offset}, x}
	return err
}

func (p *parser) string(v *Value) error {
	open := p.fail(CodeUnbalanced, "the string is not closed")
	v.Kind = String
	p.next(1)
	var b []byte
	for p.at < len(p.text) {
		switch c := p.text[p.at]; c {
		case '"':
			p.next(1)
			v.Text = string(b)
			return nil
		case '\\':
			if p.at+1 == len(p.text) {
				return open
			}
			k := strings.IndexByte(escapes, p.text[p.at+1])
			if k < 0 {
				return p.fail(CodeString, "the escape %q is not read", p.text[p.at:min(p.at+2, len(p.text))])
			}
			b = append(b, escaped[k])
			p.next(2)
		default:
			r, n := utf8.DecodeRune(p.text[p.at:])
			if r == 0 || r == utf8.RuneError && n == 1 {
				return p.fail(CodeString, "the string is not text: byte %#02x", c)
			}
			b = append(b, p.text[p.at:p.at+n]...)
			p.next(n)
		}
	}
	return open
}

// token parses a symbol, keyword, integer or boolean.
func (p *parser) token(v *Value) error {
	rest := p.text[p.at:]
	n := bytes.IndexAny(rest, delimiter)
	if n < 0 {
		n = len(rest)
	}
	tok := rest[:n]
	word := string(tok[:min(n, maxQuoted)])
	isSymbol := func(s []byte) bool {
		switch string(s) {
		case "+", "-", "...":
			return true
		}
		return len(s) > 0 && strings.IndexByte(initial, s[0]) >= 0 && len(bytes.TrimLeft(s, more)) == 0
	}
	switch {
	case isSymbol(tok):
		v.Kind, v.Text = Symbol, string(tok)
	case bytes.HasPrefix(tok, []byte("#:")) && isSymbol(tok[2:]):
		v.Kind, v.Text = Keyword, string(tok[2:])
	case word == "#t" || word == "#true":
		v.Kind, v.Bool = Boolean, true
	case word == "#f" || word == "#false":
		v.Kind = Boolean
	case p.dot():
		return p.fail(CodeDots, `"." outside of a list`)
	case strings.IndexByte(digits+"+-.", tok[0]) >= 0:
		i, err := strconv.ParseInt(word, 10, 64)
		if err != nil || strconv.FormatInt(i, 10) != string(tok) {
			return p.fail(CodeNumber, "%q is not a plain integer", word)
		}
		v.Kind, v.Int = Integer, i
	default:
		return p.fail(CodeSyntax, "%q is not data that is read here", word)
	}
	p.next(n)
	return nil
}

// maxQuoted bounds what an error repeats of the file.
const maxQuoted = 64

func quoted(s string) string {
	if len(s) > maxQuoted {
		return strconv.QuoteToASCII(s[:maxQuoted]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// short cuts a symbol, whose characters need no quotes.
func short(s string) string {
	if len(s) > maxQuoted {
		return s[:maxQuoted] + "..."
	}
	return s
}
