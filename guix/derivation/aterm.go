package derivation

import (
	"encoding/hex"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
)

// Bytes returns the .drv file.
func (d *Derivation) Bytes() []byte { return d.appendATerm(nil, nil, false) }

// appendATerm appends the text of d: with the paths of its inputs, or with
// their hashes in the order that hashed has worked out; masked or not.
func (d *Derivation) appendATerm(b []byte, hashed *sheet, mask bool) []byte {
	b = append(b, "Derive(["...)
	for i := range d.Outputs {
		o := &d.Outputs[i]
		b = comma(b, i)
		b = append(b, '(')
		b = appendString(b, o.ID)
		b = append(b, ',')
		if mask {
			b = append(b, `""`...)
		} else {
			b = appendString(b, o.Path)
		}
		b = append(b, ',')
		b = appendString(b, o.HashAlgo)
		b = append(b, ',')
		b = appendString(b, o.Hash)
		b = append(b, ')')
	}
	b = append(b, "],["...)
	if hashed != nil {
		for i, r := range hashed.order {
			b = comma(b, i)
			b = append(b, `("`...)
			b = hex.AppendEncode(b, hashed.hashes[r.input][:])
			b = append(b, `",`...)
			b = appendStrings(b, d.Inputs[r.input].Outputs)
			b = append(b, ')')
		}
	} else {
		for i := range d.Inputs {
			b = comma(b, i)
			b = append(b, '(')
			b = appendString(b, d.Inputs[i].Path)
			b = append(b, ',')
			b = appendStrings(b, d.Inputs[i].Outputs)
			b = append(b, ')')
		}
	}
	b = append(b, "],"...)
	b = appendStrings(b, d.Sources)
	b = append(b, ',')
	b = appendString(b, d.System)
	b = append(b, ',')
	b = appendString(b, d.Builder)
	b = append(b, ',')
	b = appendStrings(b, d.Args)
	b = append(b, ",["...)
	for i := range d.Env {
		v := &d.Env[i]
		b = comma(b, i)
		b = append(b, '(')
		b = appendString(b, v.Name)
		b = append(b, ',')
		if mask && d.output(v.Name) >= 0 {
			b = append(b, `""`...)
		} else {
			b = appendString(b, v.Value)
		}
		b = append(b, ')')
	}
	return append(b, "])"...)
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

func appendStrings(b []byte, list []string) []byte {
	b = append(b, '[')
	for i, s := range list {
		b = comma(b, i)
		b = appendString(b, s)
	}
	return append(b, ']')
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for {
		n := plain(s)
		b = append(b, s[:n]...)
		if n == len(s) {
			return append(b, '"')
		}
		switch c := s[n]; c {
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			// A zero byte, which Parse refuses and Fill does not let pass.
			b = append(b, c)
		}
		s = s[n+1:]
	}
}

// plain returns the length of the longest beginning of s that is written as
// it is.
func plain(s string) int {
	for i := 0; i < len(s); i++ {
		if special[s[i]] {
			return i
		}
	}
	return len(s)
}

var special = [256]bool{0: true, '\n': true, '\r': true, '\t': true, '"': true, '\\': true}

// Parse reads a .drv file. It does not check what only a Hasher can: whether
// the output paths follow from the rest.
func Parse(b []byte) (*Derivation, error) {
	if len(b) > MaxSize {
		return nil, &Error{Offset: MaxSize, Code: CodeLimit, Detail: "the file has " + strconv.Itoa(len(b)) + " bytes, more than " + strconv.Itoa(MaxSize)}
	}
	// The one copy: the strings of the result are parts of it.
	p := parser{s: string(b)}
	d := p.derivation()
	if p.err != nil {
		return nil, p.err
	}
	return d, nil
}

// A parser walks over s once. The first error sticks: after it, no method
// moves or changes it.
type parser struct {
	s   string
	pos int
	err *Error
}

// Sizes of the buffers that lists are gathered in before they are copied to
// their exact size. Longer lists move to the heap.
const (
	fewOutputs = 4
	fewInputs  = 32
	fewStrings = 32
	fewEnv     = 32
)

func (p *parser) derivation() *Derivation {
	d := new(Derivation)
	p.expect("Derive([")
	d.Outputs = p.outputs()
	p.expect(",[")
	d.Inputs = p.inputs()
	p.expect(",[")
	d.Sources = p.strings(MaxSources, true)
	p.expect(",")
	d.System = p.string()
	p.expect(",")
	d.Builder = p.string()
	p.expect(",[")
	d.Args = p.strings(MaxArgs, false)
	p.expect(",[")
	d.Env = p.env()
	p.expect(")")
	if p.err == nil && p.pos < len(p.s) {
		p.fail(p.pos, CodeTrailing, strconv.Itoa(len(p.s)-p.pos)+" bytes after the end")
	}
	return d
}

func (p *parser) outputs() []Output {
	var buf [fewOutputs]Output
	list := buf[:0]
	for p.more(len(list), MaxOutputs) {
		var o Output
		p.expect("(")
		at := p.pos
		o.ID = p.string()
		if len(list) > 0 {
			p.ascending(list[len(list)-1].ID, o.ID, at)
		}
		p.id(o.ID, at)
		p.expect(",")
		o.Path = p.path(false)
		p.expect(",")
		at = p.pos
		o.HashAlgo = p.string()
		p.expect(",")
		o.Hash = p.string()
		if o.HashAlgo != "" || o.Hash != "" {
			if _, _, _, ok := o.Content(); !ok {
				p.fail(at, CodeFixed, "not a hash of a known algorithm: "+quote(o.HashAlgo)+", "+quote(o.Hash))
			} else if o.ID != outID || len(list) > 0 {
				p.fail(at, CodeFixed, `an output with a hash must be "out" and alone`)
			}
		} else if len(list) > 0 && list[0].Hash != "" {
			p.fail(at, CodeFixed, `an output with a hash must be "out" and alone`)
		}
		p.expect(")")
		if p.err != nil {
			return nil
		}
		list = append(list, o)
	}
	if len(list) == 0 {
		p.fail(p.pos, CodeOutput, "there is no output")
		return nil
	}
	exact := make([]Output, len(list))
	copy(exact, list)
	return exact
}

func (p *parser) inputs() []Input {
	var buf [fewInputs]Input
	var idBuf [fewInputs]string
	var countBuf [fewInputs]int32
	list, ids, counts := buf[:0], idBuf[:0], countBuf[:0]
	for p.more(len(list), MaxInputs) {
		p.expect("(")
		at := p.pos
		path := p.path(true)
		if len(list) > 0 {
			p.ascending(list[len(list)-1].Path, path, at)
		}
		p.expect(",[")
		n := 0
		for p.more(n, MaxOutputs) {
			at := p.pos
			id := p.string()
			if n > 0 {
				p.ascending(ids[len(ids)-1], id, at)
			}
			p.id(id, at)
			ids = append(ids, id)
			n++
		}
		if n == 0 {
			p.fail(p.pos, CodeOutput, "no output of the input is wanted")
		}
		p.expect(")")
		if p.err != nil {
			return nil
		}
		list = append(list, Input{Path: path})
		counts = append(counts, int32(n))
	}
	if len(list) == 0 || p.err != nil {
		return nil
	}
	// One array for the IDs of all inputs: most have one.
	exactIDs := make([]string, len(ids))
	copy(exactIDs, ids)
	exact := make([]Input, len(list))
	copy(exact, list)
	for i, n := range counts {
		exact[i].Outputs, exactIDs = exactIDs[:n:n], exactIDs[n:]
	}
	return exact
}

func (p *parser) strings(limit int, paths bool) []string {
	var buf [fewStrings]string
	list := buf[:0]
	for p.more(len(list), limit) {
		at := p.pos
		var s string
		if paths {
			s = p.path(false)
			if len(list) > 0 {
				p.ascending(list[len(list)-1], s, at)
			}
		} else {
			s = p.string()
		}
		if p.err != nil {
			return nil
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil
	}
	exact := make([]string, len(list))
	copy(exact, list)
	return exact
}

func (p *parser) env() []Variable {
	var buf [fewEnv]Variable
	list := buf[:0]
	for p.more(len(list), MaxEnv) {
		var v Variable
		p.expect("(")
		at := p.pos
		v.Name = p.string()
		if len(list) > 0 {
			p.ascending(list[len(list)-1].Name, v.Name, at)
		}
		p.expect(",")
		v.Value = p.string()
		p.expect(")")
		if p.err != nil {
			return nil
		}
		list = append(list, v)
	}
	if len(list) == 0 {
		return nil
	}
	exact := make([]Variable, len(list))
	copy(exact, list)
	return exact
}

// more stands behind the opening bracket of a list, or behind its n-th
// element. It reports whether another one follows, and has then consumed the
// comma; or it has consumed the closing bracket.
func (p *parser) more(n, limit int) bool {
	if p.err != nil {
		return false
	}
	if p.pos < len(p.s) && p.s[p.pos] == ']' {
		p.pos++
		return false
	}
	if n >= limit {
		p.fail(p.pos, CodeLimit, "the list has more than "+strconv.Itoa(limit)+" elements")
		return false
	}
	if n > 0 {
		p.expect(",")
	}
	return p.err == nil
}

// expect consumes lit.
func (p *parser) expect(lit string) {
	if p.err != nil {
		return
	}
	rest := p.s[p.pos:]
	if strings.HasPrefix(rest, lit) {
		p.pos += len(lit)
		return
	}
	for i := 0; i < len(lit); i++ {
		if i == len(rest) {
			p.fail(len(p.s), CodeTruncated, "the text ends where "+quote(lit[i:])+" should be")
			return
		}
		if rest[i] != lit[i] {
			p.fail(p.pos+i, CodeSyntax, "want "+quote(lit[i:])+", have "+quote(rest[i:i+1]))
			return
		}
	}
}

// string consumes a quoted string and returns what it stands for.
func (p *parser) string() string {
	p.expect(`"`)
	if p.err != nil {
		return ""
	}
	rest := p.s[p.pos:]
	n := plain(rest)
	if n < len(rest) && rest[n] == '"' {
		// The common case: no escape, no copy.
		p.pos += n + 1
		return rest[:n]
	}
	var out []byte
	for {
		out = append(out, rest[:n]...)
		p.pos += n
		rest = rest[n:]
		if rest == "" {
			p.fail(p.pos, CodeTruncated, "the text ends within a string")
			return ""
		}
		switch rest[0] {
		case '"':
			p.pos++
			return string(out)
		case '\\':
			if len(rest) == 1 {
				p.fail(p.pos+1, CodeTruncated, "the text ends within a string")
				return ""
			}
			switch c := rest[1]; c {
			case '"', '\\':
				out = append(out, c)
			case 'n':
				out = append(out, '\n')
			case 'r':
				out = append(out, '\r')
			case 't':
				out = append(out, '\t')
			default:
				p.fail(p.pos, CodeString, "unknown escape "+quote(rest[:2]))
				return ""
			}
			p.pos += 2
			rest = rest[2:]
		default:
			p.fail(p.pos, CodeString, "the byte "+quote(rest[:1])+" cannot stand raw in a string")
			return ""
		}
		n = plain(rest)
	}
}

// path consumes a string that is a store path.
func (p *parser) path(drv bool) string {
	at := p.pos
	s := p.string()
	if p.err != nil {
		return ""
	}
	path, err := storepath.Parse(s)
	if err != nil {
		p.fail(at, CodePath, quote(s)+": "+err.Error())
		return ""
	}
	if drv && !path.IsDerivation() {
		p.fail(at, CodePath, quote(s)+" is no derivation")
	}
	return s
}

func (p *parser) id(id string, at int) {
	if p.err != nil {
		return
	}
	if id == "" || storepath.CheckName(id) != nil {
		p.fail(at, CodeOutput, quote(id)+" cannot be the name of an output")
	}
}

func (p *parser) ascending(prev, s string, at int) {
	switch {
	case p.err != nil || prev < s:
	case prev == s:
		p.fail(at, CodeDuplicate, quote(s)+" is there twice")
	default:
		p.fail(at, CodeOrder, quote(s)+" comes after "+quote(prev))
	}
}

func (p *parser) fail(at int, code, detail string) {
	if p.err == nil {
		p.err = &Error{Offset: int64(at), Code: code, Detail: detail}
	}
}
