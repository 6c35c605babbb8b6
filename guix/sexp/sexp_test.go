package sexp_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sallyport/guix/sexp"
)

const vectors = "../../vectors/archives"

func mustParse(t *testing.T, s string) sexp.Value {
	t.Helper()
	v, err := sexp.Parse([]byte(s))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return v
}

// Every file that Guix wrote prints back to the same bytes.
func TestAdvancedAsGuix(t *testing.T) {
	var files []string
	for _, pattern := range []string{"*.pub", "*.sec", "acl*", "*.sexp"} {
		m, err := filepath.Glob(filepath.Join(vectors, pattern))
		if err != nil || len(m) == 0 {
			t.Fatalf("no vectors for %s (%v)", pattern, err)
		}
		files = append(files, m...)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		v, err := sexp.Parse(data)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if got := v.Advanced(); !bytes.Equal(got, data) {
			t.Errorf("%s prints as\n%s", file, got)
		}
	}
}

func TestPrint(t *testing.T) {
	for _, tc := range []struct {
		value     sexp.Value
		advanced  string
		canonical string
	}{
		{sexp.List(), "()\n", "()"},
		{sexp.List(sexp.Atom("a")), "(a)\n", "(1:a)"},
		{sexp.List(sexp.Atom("")), "(\"\")\n", "(0:)"},
		{sexp.List(sexp.Atom("a"), sexp.Atom("b")), "(a b)\n", "(1:a1:b)"},
		{sexp.List(sexp.Atom("a"), sexp.List()), "(a \n ()\n )\n", "(1:a())"},
		{sexp.List(sexp.List(), sexp.List()), "(\n ()\n ()\n )\n", "(()())"},
		{sexp.List(sexp.List(), sexp.Atom("a"), sexp.List(sexp.Atom("b"))), "(\n ()\n a \n (b)\n )\n", "(()1:a(1:b))"},
		{sexp.List(sexp.Atom("rfc6979")), "(rfc6979)\n", "(7:rfc6979)"},
		{sexp.List(sexp.Atom("a-./_:*+=9")), "(a-./_:*+=9)\n", "(10:a-./_:*+=9)"},
		{sexp.List(sexp.Atom("9a")), "(\"9a\")\n", "(2:9a)"},
		{sexp.List(sexp.Atom("a b")), "(\"a b\")\n", "(3:a b)"},
		{sexp.List(sexp.Atom("\"\\'\b\t\v\n\f\r")), `("\"\\\'\b\t\v\n\f\r")` + "\n", "(9:\"\\'\b\t\v\n\f\r)"},
		{sexp.List(sexp.Atom("a\xe9")), "(\"a\xe9\")\n", "(2:a\xe9)"},
		{sexp.List(sexp.Atom("a\xa0")), "(#61A0#)\n", "(2:a\xa0)"},
		{sexp.List(sexp.Atom("a\x7f")), "(#617F#)\n", "(2:a\x7f)"},
		{sexp.List(sexp.Atom("a\x01")), "(#6101#)\n", "(2:a\x01)"},
		{sexp.List(sexp.Atom("a\x00")), "(#6100#)\n", "(2:a\x00)"},
		{sexp.List(sexp.Atom("\x80a")), "(#8061#)\n", "(2:\x80a)"},
		{sexp.List(sexp.Atom("\x00a")), "(#0061#)\n", "(2:\x00a)"},
	} {
		if got := tc.value.String(); got != tc.advanced {
			t.Errorf("%q: advanced %q", tc.advanced, got)
		}
		if got := string(tc.value.Canonical()); got != tc.canonical {
			t.Errorf("%q: canonical %q", tc.canonical, got)
		}
		for _, form := range []string{tc.advanced, tc.canonical} {
			if v := mustParse(t, form); !v.Equal(tc.value) {
				t.Errorf("%q reads as %q", form, v.Canonical())
			}
		}
	}
}

func TestSpellings(t *testing.T) {
	for _, tc := range []struct{ in, canonical string }{
		{" ( a\tb\v(c)\r\n\f) \n", "(1:a1:b(1:c))"},
		{"(a#62#\"c\"1:d(e)f)", "(1:a1:b1:c1:d(1:e)1:f)"},
		{"(#6a6B#)", "(2:jk)"},
		{"(# 6 a\n6B #)", "(2:jk)"},
		{"(##)", "(0:)"},
		{`("\x41\102\'\"")`, "(4:AB'\")"},
		{"(3:)(\x00)", "(3:)(\x00)"},
		{"(\"\u00e9\")", "(2:\u00e9)"},
	} {
		if got := mustParse(t, tc.in).Canonical(); string(got) != tc.canonical {
			t.Errorf("%q: %q", tc.in, got)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat("(", sexp.MaxDepth+1)
	for _, tc := range []struct {
		in     string
		code   string
		offset int64
	}{
		{"", sexp.CodeTruncated, 0},
		{" ", sexp.CodeTruncated, 1},
		{"a", sexp.CodeMalformed, 0},
		{"#00#", sexp.CodeMalformed, 0},
		{")", sexp.CodeMalformed, 0},
		{"(", sexp.CodeTruncated, 1},
		{"(a", sexp.CodeTruncated, 2},
		{"(a))", sexp.CodeTrailing, 3},
		{"(a) x", sexp.CodeTrailing, 4},
		{"(a)(b)", sexp.CodeTrailing, 3},
		{"(a)\x00", sexp.CodeTrailing, 3},
		{"(\x00)", sexp.CodeMalformed, 1},
		{"(\x80)", sexp.CodeMalformed, 1},
		{"([x]a)", sexp.CodeMalformed, 1},
		{"(|QQ==|)", sexp.CodeMalformed, 1},
		{"({a})", sexp.CodeMalformed, 1},
		{"(a;b)", sexp.CodeMalformed, 2},
		{"(#0#)", sexp.CodeMalformed, 3},
		{"(#0g#)", sexp.CodeMalformed, 3},
		{"(#00", sexp.CodeTruncated, 4},
		{"(\"a", sexp.CodeTruncated, 3},
		{"(\"a\\", sexp.CodeTruncated, 4},
		{"(\"\n\")", sexp.CodeMalformed, 2},
		{"(\"\x7f\")", sexp.CodeMalformed, 2},
		{`("\q")`, sexp.CodeMalformed, 3},
		{`("\x4")`, sexp.CodeMalformed, 3},
		{`("\400")`, sexp.CodeMalformed, 3},
		{`("\08")`, sexp.CodeMalformed, 3},
		{"(\"a\\\nb\")", sexp.CodeMalformed, 4},
		{"(9x)", sexp.CodeMalformed, 2},
		{"(01:a)", sexp.CodeMalformed, 1},
		{"(00:)", sexp.CodeMalformed, 1},
		{"(3\"abc\")", sexp.CodeMalformed, 2},
		{"(1#61#)", sexp.CodeMalformed, 2},
		{"(5:abc)", sexp.CodeTruncated, 3},
		{"(5", sexp.CodeTruncated, 2},
		{"(99999999999999999999:a)", sexp.CodeTooLarge, 6},
		{deep, sexp.CodeTooLarge, sexp.MaxDepth},
		{"(" + strings.Repeat("()", sexp.MaxValues) + ")", sexp.CodeTooLarge, 2*sexp.MaxValues - 1},
		{strings.Repeat(" ", sexp.MaxSize+1), sexp.CodeTooLarge, sexp.MaxSize},
	} {
		_, err := sexp.Parse([]byte(tc.in))
		var e *sexp.Error
		if !errors.As(err, &e) || e.Code != tc.code || e.Offset != tc.offset {
			t.Errorf("%.40q: %v, want %s at %d", tc.in, err, tc.code, tc.offset)
		}
	}
	mustParse(t, strings.Repeat("(", sexp.MaxDepth)+strings.Repeat(")", sexp.MaxDepth))
}

func TestAccessors(t *testing.T) {
	v := mustParse(t, " (a (b) #00#)")
	if v.Head() != "a" || !v.IsList() || len(v.Items()) != 3 || v.Offset() != 1 {
		t.Errorf("%+v", v)
	}
	b := v.Items()[1]
	if b.Head() != "b" || b.Offset() != 4 {
		t.Errorf("%+v", b)
	}
	if s, ok := v.Items()[2].Atom(); s != "\x00" || !ok {
		t.Errorf("%q %v", s, ok)
	}
	if s, ok := b.Atom(); s != "" || ok {
		t.Errorf("%q %v", s, ok)
	}
	// The empty list is not the empty atom.
	if sexp.List().Equal(sexp.Atom("")) || (sexp.Value{}).IsList() {
		t.Error("the empty atom is a list")
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(vectors, "*.pub"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds in %s (%v)", vectors, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(`(a 1:b#6a#("\x41\'" ()) 0:)`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := sexp.Parse(data)
		if err != nil {
			var e *sexp.Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(data)) {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		canonical := v.Canonical()
		// The advanced form may be larger than what was read: hex doubles,
		// indentation adds.
		for _, form := range [][]byte{canonical, v.Advanced()} {
			if len(form) > sexp.MaxSize {
				continue
			}
			w, err := sexp.Parse(form)
			if err != nil {
				t.Fatalf("%q, printed as %q: %v", data, form, err)
			}
			if !w.Equal(v) || !bytes.Equal(w.Canonical(), canonical) {
				t.Fatalf("%q, printed as %q, reads as %q", data, form, w.Canonical())
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(vectors, "rsa-signature.sexp"))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sexp.Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever comes, memory stays in proportion to it.
func TestMemory(t *testing.T) {
	for name, text := range map[string]string{
		"atoms":       "(" + strings.Repeat("a ", sexp.MaxValues-2) + ")",
		"lists":       "(" + strings.Repeat("()", sexp.MaxValues-2) + ")",
		"too many":    "(" + strings.Repeat("a ", sexp.MaxSize/2-2) + ")",
		"deep":        strings.Repeat("(", sexp.MaxSize),
		"verbatim":    "(" + strings.Repeat("262144:", sexp.MaxSize/8),
		"quoted":      "(\"" + strings.Repeat("x", sexp.MaxSize-4) + "\")",
		"hexadecimal": "(#" + strings.Repeat("00", sexp.MaxSize/2-4) + "#)",
	} {
		data := []byte(text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := sexp.Parse(data)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 4096+uint64(len(data))*200 {
			t.Errorf("%s: %d bytes for %d of input (%v)", name, used, len(data), err)
		}
	}
}
