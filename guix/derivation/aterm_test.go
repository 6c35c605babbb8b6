package derivation_test

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"sallyport/guix/derivation"
)

const (
	pathA = "/gnu/store/00000000000000000000000000000000-a"
	pathB = "/gnu/store/00000000000000000000000000000000-b"
	sha   = "325c26860ad4bba8558356c4ab914ac57e7b415dac6f5aae86b9b05ccb7ed282"
)

// A sheet of parts that makes a small well-formed derivation. Each case of
// the table replaces one part.
type parts struct{ head, outs, ins, srcs, system, builder, args, env, tail string }

func small() parts {
	return parts{
		head:    "Derive(",
		outs:    `[("doc","` + pathA + `-doc","",""),("out","` + pathA + `","","")]`,
		ins:     `[("` + pathA + `.drv",["doc","out"]),("` + pathB + `.drv",["out"])]`,
		srcs:    `["` + pathA + `","` + pathB + `"]`,
		system:  `"x86_64-linux"`,
		builder: `"/bin/sh"`,
		args:    `["-c","echo \"$out\"\n\t\r\\"]`,
		env:     `[("doc",""),("out","")]`,
		tail:    ")",
	}
}

func (p parts) String() string {
	return p.head + p.outs + "," + p.ins + "," + p.srcs + "," + p.system + "," + p.builder + "," + p.args + "," + p.env + p.tail
}

func with(change func(*parts)) string {
	p := small()
	change(&p)
	return p.String()
}

func TestParse(t *testing.T) {
	text := small().String()
	d, err := derivation.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(d.Bytes()); got != text {
		t.Errorf("printed %s\nwant    %s", got, text)
	}
	if d.Args[1] != "echo \"$out\"\n\t\r\\" {
		t.Errorf("argument is %q", d.Args[1])
	}
	if v, ok := d.Lookup("doc"); !ok || v != "" {
		t.Errorf("Lookup(doc) = %q, %v", v, ok)
	}
	if _, ok := d.Lookup("nope"); ok {
		t.Error("found a variable that is not there")
	}
	if o, ok := d.Output("doc"); !ok || o.Path != pathA+"-doc" {
		t.Errorf("Output(doc) = %v, %v", o, ok)
	}
	if _, ok := d.Output("lib"); ok {
		t.Error("found an output that is not there")
	}
	for name, text := range map[string]string{
		"empty lists":   with(func(p *parts) { p.ins, p.srcs, p.args, p.env = "[]", "[]", "[]", "[]" }),
		"not UTF-8":     with(func(p *parts) { p.args = "[\"\xff\xfe\x01\x7f\"]" }),
		"empty strings": with(func(p *parts) { p.system, p.builder, p.env = `""`, `""`, `[("","")]` }),
		"equal args":    with(func(p *parts) { p.args = `["b","a","a"]` }),
	} {
		d, err := derivation.Parse([]byte(text))
		if err != nil || string(d.Bytes()) != text {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestParseRefuses has one fault a case, the code and the place.
func TestParseRefuses(t *testing.T) {
	outs := func(s string) string { return with(func(p *parts) { p.outs = s }) }
	ins := func(s string) string { return with(func(p *parts) { p.ins = s }) }
	srcs := func(s string) string { return with(func(p *parts) { p.srcs = s }) }
	args := func(s string) string { return with(func(p *parts) { p.args = s }) }
	env := func(s string) string { return with(func(p *parts) { p.env = s }) }
	fixed := func(algo, hash string) string { return outs(`[("out","` + pathA + `","` + algo + `","` + hash + `")]`) }
	for name, c := range map[string]struct{ text, code, at string }{
		"no derivation":    {"name test", derivation.CodeSyntax, ""},
		"versioned":        {"DrvWithVersion(", derivation.CodeSyntax, "rvWith"},
		"space before":     {" " + small().String(), derivation.CodeSyntax, ""},
		"newline after":    {small().String() + "\n", derivation.CodeTrailing, "\n"},
		"twice":            {strings.Repeat(small().String(), 2), derivation.CodeTrailing, ")Derive("},
		"space in list":    {args(`["a", "b"]`), derivation.CodeSyntax, ` "b"`},
		"comma at the end": {args(`["a",]`), derivation.CodeSyntax, `],[("doc"`},
		"comma alone":      {args(`[,]`), derivation.CodeSyntax, `,],[("doc"`},
		"no comma":         {args(`["a""b"]`), derivation.CodeSyntax, `"b"`},
		"wrong bracket":    {args(`("a")`), derivation.CodeSyntax, `("a"`},
		"system bare":      {with(func(p *parts) { p.system = "x" }), derivation.CodeSyntax, `x,"/bin`},
		"no closing":       {with(func(p *parts) { p.tail = "" }), derivation.CodeTruncated, "$"},
		"other closing":    {with(func(p *parts) { p.tail = "]" }), derivation.CodeSyntax, "$-1"},
		"env of three":     {env(`[("a","b","c")]`), derivation.CodeSyntax, `,"c"`},

		"zero byte":     {args("[\"a\x00b\"]"), derivation.CodeString, "\x00"},
		"raw newline":   {args("[\"a\nb\"]"), derivation.CodeString, "\n"},
		"raw tab":       {args("[\"a\tb\"]"), derivation.CodeString, "\t"},
		"raw return":    {args("[\"a\rb\"]"), derivation.CodeString, "\r"},
		"needless":      {args(`["\a"]`), derivation.CodeString, `\a`},
		"octal":         {args(`["\n\000"]`), derivation.CodeString, `\000`},
		"ends escaping": {`Derive([("o\`, derivation.CodeTruncated, "$"},
		"ends in text":  {`Derive([("o`, derivation.CodeTruncated, "$"},

		"no output":        {outs("[]"), derivation.CodeOutput, `,[("` + pathA + `.drv`},
		"output unsorted":  {outs(`[("out","` + pathA + `","",""),("doc","` + pathA + `-doc","","")]`), derivation.CodeOrder, `"doc","` + pathA},
		"output twice":     {outs(`[("out","` + pathA + `","",""),("out","` + pathB + `","","")]`), derivation.CodeDuplicate, `"out","` + pathB},
		"output unnamed":   {outs(`[("","` + pathA + `","","")]`), derivation.CodeOutput, `"","` + pathA},
		"output slash":     {outs(`[("a/b","` + pathA + `","","")]`), derivation.CodeOutput, `"a/b"`},
		"output dots":      {outs(`[("..","` + pathA + `","","")]`), derivation.CodeOutput, `".."`},
		"output masked":    {outs(`[("out","","","")]`), derivation.CodePath, `"","",""`},
		"output elsewhere": {outs(`[("out","/etc/passwd","","")]`), derivation.CodePath, `"/etc`},
		"output above":     {outs(`[("out","/gnu/store/..","","")]`), derivation.CodePath, `"/gnu/store/..`},

		"fixed not out":       {outs(`[("doc","` + pathA + `","sha256","` + sha + `")]`), derivation.CodeFixed, `"sha256"`},
		"fixed and another":   {outs(`[("doc","` + pathA + `","",""),("out","` + pathA + `","sha256","` + sha + `")]`), derivation.CodeFixed, `"sha256"`},
		"fixed, then another": {outs(`[("out","` + pathA + `","sha256","` + sha + `"),("zip","` + pathA + `","","")]`), derivation.CodeFixed, `"","")],[(`},
		"hash alone":          {fixed("", sha), derivation.CodeFixed, `"","325c`},
		"algorithm alone":     {fixed("sha256", ""), derivation.CodeFixed, `"sha256"`},
		"algorithm unknown":   {fixed("sha384", sha+sha[:32]), derivation.CodeFixed, `"sha384"`},
		"algorithm capitals":  {fixed("SHA256", sha), derivation.CodeFixed, `"SHA256"`},
		"algorithm r:r:":      {fixed("r:r:sha256", sha), derivation.CodeFixed, `"r:r:`},
		"algorithm text:":     {fixed("text:sha256", sha), derivation.CodeFixed, `"text:`},
		"hash capitals":       {fixed("sha256", strings.ToUpper(sha)), derivation.CodeFixed, `"sha256"`},
		"hash short":          {fixed("sha256", sha[:62]), derivation.CodeFixed, `"sha256"`},
		"hash base32":         {fixed("sha256", "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"), derivation.CodeFixed, `"sha256"`},
		"hash of sha1":        {fixed("sha1", sha), derivation.CodeFixed, `"sha1"`},

		"input unsorted":   {ins(`[("` + pathB + `.drv",["out"]),("` + pathA + `.drv",["out"])]`), derivation.CodeOrder, `"` + pathA + `.drv"`},
		"input twice":      {ins(`[("` + pathB + `.drv",["out"]),("` + pathB + `.drv",["doc"])]`), derivation.CodeDuplicate, `"` + pathB + `.drv",["doc"`},
		"input no .drv":    {ins(`[("` + pathB + `",["out"])]`), derivation.CodePath, `"` + pathB + `",["out"`},
		"input no path":    {ins(`[("b.drv",["out"])]`), derivation.CodePath, `"b.drv"`},
		"input of nothing": {ins(`[("` + pathB + `.drv",[])]`), derivation.CodeOutput, `)],["` + pathA},
		"IDs unsorted":     {ins(`[("` + pathB + `.drv",["out","doc"])]`), derivation.CodeOrder, `"doc"])],["`},
		"IDs twice":        {ins(`[("` + pathB + `.drv",["out","out"])]`), derivation.CodeDuplicate, `"out"])],["`},
		"ID unnamed":       {ins(`[("` + pathB + `.drv",[""])]`), derivation.CodeOutput, `""]`},

		"source unsorted": {srcs(`["` + pathB + `","` + pathA + `"]`), derivation.CodeOrder, `"` + pathA + `"],"x86`},
		"source twice":    {srcs(`["` + pathB + `","` + pathB + `"]`), derivation.CodeDuplicate, `"` + pathB + `"],"x86`},
		"source no path":  {srcs(`["/etc/passwd"]`), derivation.CodePath, `"/etc/`},
		"env unsorted":    {env(`[("b",""),("a","")]`), derivation.CodeOrder, `"a",""`},
		"env twice":       {env(`[("b","x"),("b","y")]`), derivation.CodeDuplicate, `"b","y"`},
	} {
		at := int64(strings.Index(c.text, c.at))
		switch c.at {
		case "$":
			at = int64(len(c.text))
		case "$-1":
			at = int64(len(c.text)) - 1
		case ")Derive(":
			at++
		}
		d, err := derivation.Parse([]byte(c.text))
		var e *derivation.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Offset != at || d != nil {
			t.Errorf("%s: %v; want %s at byte %d\n%s", name, err, c.code, at, c.text)
		}
	}
}

// TestParseCut: every beginning of a derivation is truncated, at its end.
func TestParseCut(t *testing.T) {
	text := small().String()
	for n := range len(text) {
		_, err := derivation.Parse([]byte(text[:n]))
		var e *derivation.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v", text[:n], err)
		} else if e.Code != derivation.CodeTruncated || e.Offset != int64(n) {
			t.Errorf("%s: %v; want %s at byte %d", text[:n], e, derivation.CodeTruncated, n)
		}
	}
}

func TestLimits(t *testing.T) {
	list := func(n int, item func(i int) string) string {
		var b strings.Builder
		b.WriteByte('[')
		for i := range n {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(item(i))
		}
		b.WriteByte(']')
		return b.String()
	}
	for name, c := range map[string]struct {
		limit int
		text  func(n int) string
	}{
		"outputs": {derivation.MaxOutputs, func(n int) string {
			return with(func(p *parts) {
				p.outs = list(n, func(i int) string { return fmt.Sprintf(`("o%06d","%s","","")`, i, pathA) })
			})
		}},
		"inputs": {derivation.MaxInputs, func(n int) string {
			return with(func(p *parts) {
				p.ins = list(n, func(i int) string { return fmt.Sprintf(`("%s%06d.drv",["out"])`, pathA, i) })
			})
		}},
		"outputs of an input": {derivation.MaxOutputs, func(n int) string {
			return with(func(p *parts) {
				p.ins = `[("` + pathA + `.drv",` + list(n, func(i int) string { return fmt.Sprintf(`"o%06d"`, i) }) + `)]`
			})
		}},
		"sources": {derivation.MaxSources, func(n int) string {
			return with(func(p *parts) { p.srcs = list(n, func(i int) string { return fmt.Sprintf(`"%s%06d"`, pathA, i) }) })
		}},
		"args": {derivation.MaxArgs, func(n int) string {
			return with(func(p *parts) { p.args = list(n, func(int) string { return `""` }) })
		}},
		"env": {derivation.MaxEnv, func(n int) string {
			return with(func(p *parts) { p.env = list(n, func(i int) string { return fmt.Sprintf(`("%06d","")`, i) }) })
		}},
	} {
		text := []byte(c.text(c.limit))
		if d, err := derivation.Parse(text); err != nil || !bytes.Equal(d.Bytes(), text) {
			t.Errorf("%s: %d: %v", name, c.limit, err)
		}
		_, err := derivation.Parse([]byte(c.text(c.limit + 1)))
		if code(err) != derivation.CodeLimit {
			t.Errorf("%s: %d: %v; want %s", name, c.limit+1, err, derivation.CodeLimit)
		}
	}
	big := with(func(p *parts) { p.args = `["` + strings.Repeat("x", derivation.MaxSize) + `"]` })
	if _, err := derivation.Parse([]byte(big)); code(err) != derivation.CodeLimit {
		t.Errorf("%d bytes: %v", len(big), err)
	}
}

// TestMemory: what is allocated, garbage of growing lists included, stays
// within a multiple of what was read, whatever is in it.
func TestMemory(t *testing.T) {
	const multiple = 40
	for name, text := range map[string]string{
		"args":    with(func(p *parts) { p.args = "[" + strings.Repeat(`"",`, derivation.MaxArgs-1) + `""]` }),
		"escapes": with(func(p *parts) { p.args = `["` + strings.Repeat(`\"`, 1<<19) + `"]` }),
		"deep":    "Derive([" + strings.Repeat("(", 1<<20),
		"lists":   strings.Repeat("Derive([", 1<<17),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		derivation.Parse([]byte(text))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > multiple*uint64(len(text)) {
			t.Errorf("%s: %d bytes allocated for %d", name, used, len(text))
		}
	}
}

func code(err error) string {
	var e *derivation.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
