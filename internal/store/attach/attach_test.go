package attach

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

func sampleFindings() []Finding {
	return []Finding{
		{"hello-1.0", "review", "binary", "bin/", 3, "ELF executable"},
		{"odd \"name\"", "block", "bidi", "src/\xff\u202e\n", 1 << 60, ""},
		{"", "info", "x", "", 0, "\\"},
	}
}

func sampleNarinfos(t testing.TB) []Narinfo {
	t.Helper()
	var list []Narinfo
	for _, p := range []string{"/gnu/store/00000000000000000000000000000000-a", "/gnu/store/10000000000000000000000000000000-b.drv"} {
		path, err := storepath.Parse(p)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Narinfo{path, trust.Sum([]byte(p)), "nar", []byte("StorePath: " + p + "\n")})
	}
	list[1].Form = "flat"
	return list
}

func TestFindings(t *testing.T) {
	for _, list := range [][]Finding{nil, sampleFindings()} {
		b, err := Findings(list)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseFindings(b)
		if err != nil || !reflect.DeepEqual(back, list) {
			t.Errorf("%q: %v, %v", b, back, err)
		}
	}
	for _, f := range []Finding{{Rule: "x"}, {Severity: "a b", Rule: "x"}, {Severity: "a", Rule: "é"}, {Severity: "a", Rule: "b", Count: -1}} {
		if _, err := Findings([]Finding{f}); err == nil {
			t.Errorf("%+v was printed", f)
		}
	}
}

func TestNarinfos(t *testing.T) {
	for _, list := range [][]Narinfo{nil, sampleNarinfos(t)} {
		b, err := Narinfos(list)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseNarinfos(b)
		if err != nil || !reflect.DeepEqual(back, list) {
			t.Errorf("%q: %v, %v", b, back, err)
		}
	}
	list := sampleNarinfos(t)
	for what, wrong := range map[string][]Narinfo{
		"order":   {list[1], list[0]},
		"twice":   {list[0], list[0]},
		"no path": {{Form: "nar", Body: []byte("x")}},
		"form":    {{Path: list[0].Path, Form: "zip", Body: []byte("x")}},
		"empty":   {{Path: list[0].Path, Form: "nar"}},
		"long":    {{Path: list[0].Path, Form: "nar", Body: make([]byte, MaxNarinfo+1)}},
	} {
		if _, err := Narinfos(wrong); err == nil {
			t.Errorf("%s: was printed", what)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{
		"", "sallyport findings v2\n", findingsTitle + "\n", findingsTitle + "info x 1 \"a\" \"b\" \"c\"", findingsTitle + "info x 1 \"a\" \"b\"\n",
		findingsTitle + "info x 01 \"a\" \"b\" \"c\"\n", findingsTitle + "info x 1 \"a\"  \"b\" \"c\"\n", findingsTitle + "info x 1 `a` \"b\" \"c\"\n",
		findingsTitle + "info x 1 \"\\u0041\" \"b\" \"c\"\n", findingsTitle + "info x 1 \"a\" \"b\" \"c\" \n", findingsTitle + "info x -1 \"a\" \"b\" \"c\"\n",
		findingsTitle + "info x 1 a \"b\" \"c\"\n",
	} {
		if _, err := ParseFindings([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	good, err := Narinfos(sampleNarinfos(t))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"nothing": "", "title": "sallyport narinfos v2\n", "cut": string(good[:len(good)-1]), "more": string(good) + "x", "no line": narinfosTitle + "x",
		"size":  strings.Replace(string(good), " nar ", " nar 0", 1),
		"path":  strings.Replace(string(good), "/gnu/store/0", "/gnu/stor/0", 1),
		"blob":  strings.Replace(string(good), " nar ", "0 nar ", 1),
		"swap":  narinfosTitle + string(good[bytes.LastIndex(good, []byte("/gnu/store/1000000000000000000000")):]) + string(good[len(narinfosTitle):]),
		"words": narinfosTitle + "a b c\n",
	} {
		if _, err := ParseNarinfos([]byte(text)); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func FuzzParseFindings(f *testing.F) {
	b, err := Findings(sampleFindings())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(findingsTitle))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseFindings(data)
		if err != nil {
			return
		}
		if again, err := Findings(list); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q printed again is %q (%v)", data, again, err)
		}
	})
}

func FuzzParseNarinfos(f *testing.F) {
	b, err := Narinfos(sampleNarinfos(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(narinfosTitle))
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := ParseNarinfos(data)
		if err != nil {
			return
		}
		if again, err := Narinfos(list); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q printed again is %q (%v)", data, again, err)
		}
	})
}
