package scheme

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct{ in, out string }{
		{"", ""},
		{" ; only a comment", ""},
		{"()", "()"},
		{"a", "a"},
		{"(a b  c)", "(a b c)"},
		{"(a . b)", "(a . b)"},
		{"(a b . c)", "(a b . c)"},
		{"(a . (b c))", "(a b c)"},
		{"(a . (b . (c . d)))", "(a b c . d)"},
		{"(a . ())", "(a)"},
		{"'x '(1 2)", "'x '(1 2)"},
		{"(quote x)", "'x"},
		{"(quote . (x))", "'x"},
		{"(quote x y)", "(quote x y)"},
		{`"a\"b\\c\n\r\t\a\b\f\v"`, `"a\"b\\c\n\r\t\a\b\f\v"`},
		{"\"a\nb\"", `"a\nb"`},
		{`"Grüße"`, `"Grüße"`},
		{`"a""b"`, `"a" "b"`},
		{"#t #f #true #false", "#t #f #t #f"},
		{"0 -1 9223372036854775807 -9223372036854775808", "0 -1 9223372036854775807 -9223372036854775808"},
		{"+ - ... cons* specifications->manifest %default-channels a.b", "+ - ... cons* specifications->manifest %default-channels a.b"},
		{"#:use-module", "#:use-module"},
		{"(a #| b |# c)", "(a c)"},
		{"#| a #| b |# c |# d", "d"},
		{"#|||# d", "d"},
		{"(a #;b c)", "(a c)"},
		{"(a #;(b (c)) #; ; x\n d)", "(a)"},
		{"#;#;a b c", "c"},
		{"(a . #;b c)", "(a . c)"},
		{"a;b\nc", "a c"},
		{"; Grüße\n\f\r\n x", "x"},
	} {
		all, err := Parse([]byte(tt.in))
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		if got := printAll(all); got != tt.out {
			t.Errorf("%q is read as %s, want %s", tt.in, got, tt.out)
		}
	}
}

func printAll(all []Value) string {
	var s []string
	for _, v := range all {
		s = append(s, v.String())
	}
	return strings.Join(s, " ")
}

// Each text has one fault; where it is found is part of the answer.
func TestRefused(t *testing.T) {
	deep := func(n int) string { return strings.Repeat("(", n) + strings.Repeat(")", n) }
	for _, tt := range []struct {
		in           string
		code         string
		line, column int
	}{
		{"(", CodeUnbalanced, 1, 1},
		{"(a\n (b c)", CodeUnbalanced, 1, 1},
		{"(a\n (b c", CodeUnbalanced, 2, 2},
		{"a\n  )", CodeUnbalanced, 2, 3},
		{`"abc`, CodeUnbalanced, 1, 1},
		{`"abc\`, CodeUnbalanced, 1, 1},
		{"x #| a #| b |#", CodeUnbalanced, 1, 3},
		{"#|", CodeUnbalanced, 1, 1},
		{"(a #;)", CodeSyntax, 1, 4},
		{"a #;", CodeSyntax, 1, 3},
		{"(a ')", CodeSyntax, 1, 4},
		{"'", CodeSyntax, 1, 1},
		{"(a ' . b)", CodeSyntax, 1, 4},
		{"`a", CodeSyntax, 1, 1},
		{",a", CodeSyntax, 1, 1},
		{"(a ,@b)", CodeSyntax, 1, 4},
		{"[a]", CodeSyntax, 1, 1},
		{"{a}", CodeSyntax, 1, 1},
		{"|a b|", CodeSyntax, 1, 1},
		{"#{a b}#", CodeSyntax, 1, 1},
		{"#\\a", CodeSyntax, 1, 1},
		{"#(1 2)", CodeSyntax, 1, 1},
		{"#vu8(1 2)", CodeSyntax, 1, 1},
		{"#!eof", CodeSyntax, 1, 1},
		{"#!/usr/bin/guile\n!#", CodeSyntax, 1, 1},
		{"#x41", CodeSyntax, 1, 1},
		{"#nil", CodeSyntax, 1, 1},
		{"#T", CodeSyntax, 1, 1},
		{"#~(a)", CodeSyntax, 1, 1},
		{"#$a", CodeSyntax, 1, 1},
		{"#: a", CodeSyntax, 1, 1},
		{"#:", CodeSyntax, 1, 1},
		{"#", CodeSyntax, 1, 1},
		{"a'b", CodeSyntax, 1, 1},
		{"a#b", CodeSyntax, 1, 1},
		{"ab\"c\" d\\e", CodeSyntax, 1, 7},
		{"@a", CodeSyntax, 1, 1},
		{"grüße", CodeSyntax, 1, 1},
		{"a\x00", CodeSyntax, 1, 1},
		{"\x00", CodeSyntax, 1, 1},
		{"; \x00", CodeSyntax, 1, 3},
		{";\n#| ab\xff |#", CodeSyntax, 2, 6},
		{"\ufeffa", CodeSyntax, 1, 1},
		{"1.5", CodeNumber, 1, 1},
		{"1/2", CodeNumber, 1, 1},
		{"1e3", CodeNumber, 1, 1},
		{"+1", CodeNumber, 1, 1},
		{"-0", CodeNumber, 1, 1},
		{"007", CodeNumber, 1, 1},
		{"1+", CodeNumber, 1, 1},
		{"-i", CodeNumber, 1, 1},
		{"+inf.0", CodeNumber, 1, 1},
		{".5", CodeNumber, 1, 1},
		{"9223372036854775808", CodeNumber, 1, 1},
		{".", CodeDots, 1, 1},
		{"( . a)", CodeDots, 1, 3},
		{"(a . )", CodeDots, 1, 6},
		{"(a . b c)", CodeDots, 1, 8},
		{"(a . (b) c)", CodeDots, 1, 10},
		{"(a . b . c)", CodeDots, 1, 8},
		{"(a . . b)", CodeDots, 1, 6},
		{`"\x41;"`, CodeString, 1, 2},
		{`"\u0041"`, CodeString, 1, 2},
		{`"\0"`, CodeString, 1, 2},
		{"\"a\\\n  b\"", CodeString, 1, 3},
		{"\"ü\\(\"", CodeString, 1, 3},
		{"\"a\x00\"", CodeString, 1, 3},
		{"\"a\xff\"", CodeString, 1, 3},
		{"\"\xc0\x80\"", CodeString, 1, 2},
		{"\"\xed\xa0\x80\"", CodeString, 1, 2},
		{deep(MaxDepth + 1), CodeLimit, 1, MaxDepth + 1},
		{strings.Repeat("'", MaxDepth+1) + "a", CodeLimit, 1, MaxDepth + 1},
		{strings.Repeat("#;", 1<<16) + "a", CodeLimit, 1, 2*MaxDepth + 3},
		{strings.Repeat("(a . ", 1<<16), CodeLimit, 1, 5*MaxDepth + 1},
		{strings.Repeat("a ", MaxValues+1), CodeLimit, 1, 2*MaxValues + 1},
		{strings.Repeat(" ", MaxSize+1), CodeLimit, 1, 1},
	} {
		_, err := Parse([]byte(tt.in))
		if got := where(err); got != fmt.Sprint(tt.code, tt.line, tt.column) {
			t.Errorf("%.40q: %v, want %s at %d:%d", tt.in, err, tt.code, tt.line, tt.column)
		}
	}
	for _, ok := range []string{deep(MaxDepth), strings.Repeat("a ", MaxValues), strings.Repeat(" ", MaxSize)} {
		if _, err := Parse([]byte(ok)); err != nil {
			t.Errorf("%.10q...: %v", ok, err)
		}
	}
}

func where(err error) string {
	var e *Error
	if !errors.As(err, &e) {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(e.Code, e.Line, e.Column)
}

// The offset, the line and the column of an error are the same place.
func TestPlace(t *testing.T) {
	text := "(u \"é\n\" ; ç\n #| \n ö |# \t x,)"
	_, err := Parse([]byte(text))
	var e *Error
	if !errors.As(err, &e) || e.Line != 4 || e.Column != 9 || text[e.Offset:] != "x,)" {
		t.Errorf("%v", err)
	}
	all, err := Parse([]byte("a\n (b\n  \"c\" 'd)"))
	if err != nil {
		t.Fatal(err)
	}
	c, d := all[1].Items[1], all[1].Items[2].Items[1]
	if c.Line != 3 || c.Column != 3 || c.Offset != 8 || d.Line != 3 || d.Column != 8 {
		t.Errorf("%+v %+v", c, d)
	}
}

// Memory is bounded by the text.
func TestMemory(t *testing.T) {
	text := []byte(strings.Repeat("(", MaxDepth) + strings.Repeat("a ", MaxValues/2))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Parse(text); err == nil {
		t.Fatal("not closed, but read")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(text))*1000 {
		t.Errorf("%d bytes allocated for %d", n, len(text))
	}
}

func TestValue(t *testing.T) {
	parse := func(s string) Value {
		all, err := Parse([]byte(s))
		if err != nil || len(all) != 1 {
			t.Fatal(s, err)
		}
		return all[0]
	}
	same := []string{`(a "b" 1 #t . c)`, "(a\n \"b\" 1 #true . c) ; d"}
	if !parse(same[0]).Equal(parse(same[1])) {
		t.Error("layout makes a difference")
	}
	for _, other := range []string{`(a "b" 1 #t)`, `(a "b" 1 #f . c)`, `(a "b" 2 #t . c)`, `(a b 1 #t . c)`, `(a "b" 1 #t . d)`, `(a "b" 1 #t c)`, "a"} {
		if parse(same[0]).Equal(parse(other)) || parse(other).Equal(parse(same[0])) {
			t.Errorf("%s is equal to %s", other, same[0])
		}
	}
	for s, want := range map[string]string{"(a b)": "a", "()": "", `("a")`: "", "a": "", "((a))": "", "'x": "quote"} {
		if got := parse(s).Head(); got != want {
			t.Errorf("head of %s is %q", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`(list (channel (name 'guix) (url "https://x/") (branch #f)))`, `(a . (b . "c\n")) #;(x) #| y #| z |# |# -12 #:k ; e`,
		"(authorizations (version 0) ((\"BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA\" (name \"x\"))))",
		`'(#t #f ... + - "` + "\xff" + `")`, "(((((", `"\x41;"`, "#!eof",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		all, err := Parse(text)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(text)) || e.Line < 1 || e.Column < 1 || e.Code == "" {
				t.Fatalf("%#v", err)
			}
			if e.Line != 1+strings.Count(string(text[:e.Offset]), "\n") {
				t.Fatalf("line %d is not that of byte %d", e.Line, e.Offset)
			}
			return
		}
		printed := printAll(all)
		again, err := Parse([]byte(printed))
		if err != nil || len(again) != len(all) || printAll(again) != printed {
			t.Fatalf("%q was printed as %q, which is read as %q (%v)", text, printed, printAll(again), err)
		}
		for i := range all {
			if !all[i].Equal(again[i]) {
				t.Fatalf("%v is read again as %v", all[i], again[i])
			}
		}
	})
}
