package statement

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/internal/trust"
)

// Bounds on the JSON of statements.
const (
	MaxDepth   = 16      // of objects and arrays within each other
	MaxInteger = 1 << 53 // of either sign
)

// errDepth: only objects and arrays nest; what lies in the innermost is no level of its own.
var errDepth = fmt.Errorf("nested more than %d deep", MaxDepth)

// appendJSON appends a value in its one spelling. Beside the types that
// parsing gives it takes int, []string, map[string]string,
// map[string]int64, []map[string]any, Digest and time.Time.
func appendJSON(b []byte, v any, depth int) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case string:
		return appendString(b, v)
	case trust.Digest:
		return appendString(b, v.String())
	case time.Time:
		return appendString(b, trust.FormatDate(v))
	case bool:
		return strconv.AppendBool(b, v), nil
	case int:
		return appendJSON(b, int64(v), depth)
	case int64:
		if v > MaxInteger || v < -MaxInteger {
			return nil, fmt.Errorf("integer %d is beyond 2^53", v)
		}
		return strconv.AppendInt(b, v, 10), nil
	case []any:
		return appendArray(b, v, depth)
	case []string:
		return appendArray(b, v, depth)
	case []map[string]any:
		return appendArray(b, v, depth)
	case map[string]any:
		return appendObject(b, v, depth)
	case map[string]string:
		return appendObject(b, v, depth)
	case map[string]int64:
		return appendObject(b, v, depth)
	default:
		err = fmt.Errorf("value of type %T has no place in a statement", v)
	}
	return nil, err
}

func appendArray[T any](b []byte, list []T, depth int) (_ []byte, err error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendJSON(b, v, depth+1); err != nil {
			return nil, err
		}
	}
	return append(b, ']'), nil
}

func appendObject[T any](b []byte, m map[string]T, depth int) (_ []byte, err error) {
	if depth > MaxDepth {
		return nil, errDepth
	}
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = appendString(b, name); err != nil {
			return nil, err
		}
		b = append(b, ':')
		if b, err = appendJSON(b, m[name], depth+1); err != nil {
			return nil, fmt.Errorf("member %q: %w", trust.Clip(name), err)
		}
	}
	return append(b, '}'), nil
}

func appendString(b []byte, s string) ([]byte, error) {
	if err := checkString(s); err != nil {
		return nil, err
	}
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"'), nil
}

// checkString refuses what would need an escape, or read as something else on a
// terminal: control characters (C0, DEL, C1), U+2028, U+2029, bytes that are not UTF-8.
func checkString(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("string %.80q is not UTF-8", s)
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 {
			return fmt.Errorf("string %.80q holds U+%04X", s, r)
		}
	}
	return nil
}

// A decoder reads JSON in its one spelling and nothing else. The first error
// sticks; values read after it mean nothing.
type decoder struct {
	s   string
	i   int
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// literal reads exactly s.
func (d *decoder) literal(s string) {
	if d.err == nil && strings.HasPrefix(d.s[d.i:], s) {
		d.i += len(s)
		return
	}
	d.fail("want %s", s)
}

func (d *decoder) peek() byte {
	if d.err != nil || d.i >= len(d.s) {
		return 0
	}
	return d.s[d.i]
}

// more reads what follows an element: a comma, or the end of the list.
func (d *decoder) more(end byte) bool {
	switch d.peek() {
	case ',':
		d.i++
		return true
	case end:
		d.i++
	default:
		d.fail("want a comma or %c", end)
	}
	return false
}

func (d *decoder) string() string {
	d.literal(`"`)
	if d.err != nil {
		return ""
	}
	start := d.i
	for ; d.i < len(d.s); d.i++ {
		switch d.s[d.i] {
		case '"':
			raw := d.s[start:d.i]
			d.i++
			if strings.Contains(raw, `\`) {
				// A backslash stands only before a quote or a backslash, as
				// the loop has seen.
				raw = unescaper.Replace(raw)
			}
			if err := checkString(raw); err != nil {
				d.fail("%w", err)
			}
			return raw
		case '\\':
			d.i++
			if c := d.peek(); c != '"' && c != '\\' {
				d.fail("an escape other than of a quote or a backslash")
				return ""
			}
		}
	}
	d.fail("a string without end")
	return ""
}

// unescaper reads from left to right, so `\\"` is a backslash and the end.
var unescaper = strings.NewReplacer(`\\`, `\`, `\"`, `"`)

func (d *decoder) value(depth int) any {
	switch c := d.peek(); {
	case (c == '{' || c == '[') && depth > MaxDepth:
		d.fail("%v", errDepth)
		return nil
	case c == '"':
		return d.string()
	case c == '{':
		return d.object(depth)
	case c == '[':
		d.i++
		list := []any{}
		if d.peek() == ']' {
			d.i++
			return list
		}
		for {
			list = append(list, d.value(depth+1))
			if !d.more(']') {
				return list
			}
		}
	case c == 't':
		d.literal("true")
		return true
	case c == 'f':
		d.literal("false")
		return false
	case c == '-' || '0' <= c && c <= '9':
		return d.integer()
	}
	d.fail("want a string, an integer, true, false, an array or an object")
	return nil
}

// object reads members in strictly ascending order of their names.
func (d *decoder) object(depth int) map[string]any {
	m := make(map[string]any)
	d.literal("{")
	if d.peek() == '}' {
		d.i++
		return m
	}
	last, first := "", true
	for d.err == nil {
		name := d.string()
		if d.err == nil && !first {
			if name == last {
				d.fail("member %.80q stands twice", name)
			} else if name < last {
				d.fail("member %.80q stands behind %.80q", name, last)
			}
		}
		last, first = name, false
		d.literal(":")
		m[name] = d.value(depth + 1)
		if !d.more('}') {
			break
		}
	}
	return m
}

func (d *decoder) integer() int64 {
	start := d.i
	if d.peek() == '-' {
		d.i++
	}
	digits := d.i
	for c := d.peek(); '0' <= c && c <= '9'; c = d.peek() {
		d.i++
	}
	n, err := trust.ParseNumber(d.s[digits:d.i], MaxInteger)
	if err != nil {
		d.fail("%w", err)
		return 0
	}
	if digits > start {
		if n == 0 {
			d.fail("minus zero")
		}
		n = -n
	}
	return n
}
