package storepath_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/storepath"
)

const hello = "/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2"

func TestPath(t *testing.T) {
	p, err := storepath.Parse(hello)
	if err != nil {
		t.Fatal(err)
	}
	if p.String() != hello || p.Base() != "cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2" ||
		p.Hash() != "cs56i9digj9qg1bd383cmxc6xrfpdn9n" || p.Name() != "hello-2.12.2" || p.IsDerivation() || p.IsZero() {
		t.Errorf("parts of %s: %q %q %q", p, p.Base(), p.Hash(), p.Name())
	}
	q, err := storepath.ParseBase(p.Base())
	if err != nil || q != p || q.Compare(p) != 0 {
		t.Errorf("ParseBase(%q) = %v, %v", p.Base(), q, err)
	}
	d, err := storepath.ParseBase(p.Base() + ".drv")
	if err != nil || !d.IsDerivation() || p.Compare(d) >= 0 {
		t.Errorf("%v, %v", d, err)
	}
	var zero storepath.Path
	if !zero.IsZero() || zero.String()+zero.Base()+zero.Hash()+zero.Name() != "" || zero.IsDerivation() {
		t.Error("the zero Path is something")
	}
}

func TestPathText(t *testing.T) {
	type doc struct{ A, B storepath.Path }
	p, _ := storepath.Parse(hello)
	b, err := json.Marshal(doc{A: p})
	if err != nil || string(b) != `{"A":"`+hello+`","B":""}` {
		t.Fatalf("%s, %v", b, err)
	}
	var back doc
	if err := json.Unmarshal(b, &back); err != nil || back != (doc{A: p}) {
		t.Errorf("%+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"A":"/gnu/store/.."}`), &back); err == nil {
		t.Error("took /gnu/store/..")
	}
}

// TestParseRefuses has one fault a case; most of them the daemon lets pass.
func TestParseRefuses(t *testing.T) {
	const h = "/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n"
	for _, c := range []struct {
		path, code string
		offset     int64
	}{
		{"", storepath.CodePrefix, 0},
		{"/gnu/stor", storepath.CodePrefix, 9},
		{"/nix/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello", storepath.CodePrefix, 1},
		{"/gnu/store/", storepath.CodeLength, 11},
		{"/gnu/store/..", storepath.CodeLength, 13},
		{"/gnu/store/foo", storepath.CodeLength, 14},
		{h, storepath.CodeLength, 43},
		{h + "x", storepath.CodeHash, 43},
		{h + "_hello", storepath.CodeHash, 43},
		{h + "\x00hello", storepath.CodeHash, 43},
		{"/gnu/store/Cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello", storepath.CodeHash, 11},
		{"/gnu/store/es56i9digj9qg1bd383cmxc6xrfpdn9n-hello", storepath.CodeHash, 11},
		{"/gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9u-hello", storepath.CodeHash, 42},
		{"/gnu/store/../../../../etc/passwd-xxxxxxxxxxx-hello", storepath.CodeHash, 11},
		{h + "-.hello", storepath.CodeName, 44},
		{h + "-..", storepath.CodeName, 44},
		{h + "-hello/", storepath.CodeName, 49},
		{h + "-a b", storepath.CodeName, 45},
		{h + "-a\n", storepath.CodeName, 45},
		{h + "-é", storepath.CodeName, 44},
		{h + "-a~", storepath.CodeName, 45},
		{h + "-" + strings.Repeat("n", 218), storepath.CodeLength, 44 + 217},
	} {
		p, err := storepath.Parse(c.path)
		var e *storepath.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Offset != c.offset || !p.IsZero() {
			t.Errorf("Parse(%q) = %q, %v; want %s at %d", c.path, p, err, c.code, c.offset)
		}
	}
	for _, ok := range []string{h + "-", h + "--", h + "-?=+_.-A", h + "-" + strings.Repeat("n", 217)} {
		if _, err := storepath.Parse(ok); err != nil {
			t.Errorf("Parse(%q): %v", ok, err)
		}
	}
}

func TestMakeRefuses(t *testing.T) {
	var sum [32]byte
	long := strings.Repeat("n", 217)
	type result struct {
		p   storepath.Path
		err error
	}
	made := func(p storepath.Path, err error) result { return result{p, err} }
	for name, c := range map[string]struct {
		result
		code string
	}{
		"text dot":           {made(storepath.Text(".x", sum, nil)), storepath.CodeName},
		"text long":          {made(storepath.Text(long+"n", sum, nil)), storepath.CodeLength},
		"text zero ref":      {made(storepath.Text("x", sum, make([]storepath.Path, 1))), storepath.CodePrefix},
		"source slash":       {made(storepath.Source("a/b", sum)), storepath.CodeName},
		"source huge":        {made(storepath.Source(strings.Repeat("n", 1<<20), sum)), storepath.CodeLength},
		"fixed algorithm":    {made(storepath.FixedOutput("x", "sha384", false, make([]byte, 48))), storepath.CodeAlgorithm},
		"fixed r: algorithm": {made(storepath.FixedOutput("x", "r:sha256", false, sum[:])), storepath.CodeAlgorithm},
		"fixed capitals":     {made(storepath.FixedOutput("x", "SHA256", false, sum[:])), storepath.CodeAlgorithm},
		"fixed short":        {made(storepath.FixedOutput("x", "sha256", true, sum[:31])), storepath.CodeDigest},
		"fixed long":         {made(storepath.FixedOutput("x", "sha1", true, sum[:])), storepath.CodeDigest},
		"output empty":       {made(storepath.Output("", sum, "x")), storepath.CodeName},
		"output slash":       {made(storepath.Output("a/b", sum, "x")), storepath.CodeName},
		"output long":        {made(storepath.Output("dev", sum, long)), storepath.CodeLength},
	} {
		if code(c.err) != c.code || !c.p.IsZero() {
			t.Errorf("%s: %q, %v; want %s", name, c.p, c.err, c.code)
		}
	}
	if _, err := storepath.Output("out", sum, long); err != nil {
		t.Errorf("name of 217 bytes: %v", err)
	}
	if p, err := storepath.Output("o", sum, long[:215]); err != nil || len(p.Name()) != 217 {
		t.Errorf("name of 217 bytes with its output: %v", err)
	}
}

// TestTextLeavesReferences: sorting must not reorder the caller's slice.
func TestTextLeavesReferences(t *testing.T) {
	a, _ := storepath.ParseBase("cs56i9digj9qg1bd383cmxc6xrfpdn9n-b")
	b, _ := storepath.ParseBase("cs56i9digj9qg1bd383cmxc6xrfpdn9n-a")
	refs := []storepath.Path{a, b, a}
	p, err := storepath.Text("x", [32]byte{}, refs)
	if err != nil || !slices.Equal(refs, []storepath.Path{a, b, a}) {
		t.Fatalf("%v, %v", refs, err)
	}
	if q, _ := storepath.Text("x", [32]byte{}, []storepath.Path{b, a}); p != q {
		t.Error("order of references changes the path")
	}
}

func TestBase32(t *testing.T) {
	// SHA-256 of the empty string and of "hello\n", as `guix hash` and
	// `guix hash -f hex` print them.
	for _, c := range []struct{ hex, text string }{
		{"", ""},
		{"00", "00"},
		{"ff", "7z"},
		{"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"},
		{"0000000000000000000000000000000000000001", "04000000000000000000000000000000"},
	} {
		b, _ := hex.DecodeString(c.hex)
		if got := storepath.EncodeBase32(b); got != c.text {
			t.Errorf("encode %s: %s, want %s", c.hex, got, c.text)
		}
		back, err := storepath.DecodeBase32(c.text, len(b))
		if err != nil || !bytes.Equal(back, b) {
			t.Errorf("decode %s: %x, %v", c.text, back, err)
		}
	}
	for n, want := range map[int]int{20: 32, 32: 52, 64: 103} {
		if got := len(storepath.EncodeBase32(make([]byte, n))); got != want || storepath.Base32Len(n) != want {
			t.Errorf("%d bytes take %d characters, want %d", n, got, want)
		}
	}
	for _, c := range []struct {
		text   string
		n      int
		code   string
		offset int64
	}{
		{"0", 0, storepath.CodeLength, 1},
		{"", -1, storepath.CodeLength, 0},
		{"", -4, storepath.CodeLength, 0},
		{"00", 2, storepath.CodeLength, 2},
		{strings.Repeat("0", 51), 32, storepath.CodeLength, 51},
		{strings.Repeat("0", 53), 32, storepath.CodeLength, 53},
		{"80", 1, storepath.CodeBase32, 0},
		{"2" + strings.Repeat("0", 51), 32, storepath.CodeBase32, 0},
		{"0" + strings.Repeat("0", 50) + "A", 32, storepath.CodeBase32, 51},
		{"0e" + strings.Repeat("0", 50), 32, storepath.CodeBase32, 1},
		{"0\n" + strings.Repeat("0", 50), 32, storepath.CodeBase32, 1},
	} {
		b, err := storepath.DecodeBase32(c.text, c.n)
		var e *storepath.Error
		if !errors.As(err, &e) || e.Code != c.code || e.Offset != c.offset || b != nil {
			t.Errorf("DecodeBase32(%q, %d) = %x, %v; want %s at %d", c.text, c.n, b, err, c.code, c.offset)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add(v.Result)
	}
	f.Add("/gnu/store/..")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := storepath.Parse(s)
		if err != nil {
			var e *storepath.Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(s)) || !p.IsZero() {
				t.Fatalf("Parse(%q) = %q, %v", s, p, err)
			}
			return
		}
		if p.String() != s || "/gnu/store/"+p.Hash()+"-"+p.Name() != s || len(s) > storepath.MaxLen || strings.ContainsAny(p.Base(), "/\x00\n ") {
			t.Fatalf("Parse(%q) = %q", s, p)
		}
		if q, err := storepath.ParseBase(p.Base()); err != nil || q != p {
			t.Fatalf("ParseBase(%q) = %v, %v", p.Base(), q, err)
		}
	})
}

func FuzzBase32(f *testing.F) {
	f.Add("0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", 32)
	f.Add("cs56i9digj9qg1bd383cmxc6xrfpdn9n", 20)
	f.Add("2", 1)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n > 1<<16 {
			return
		}
		b, err := storepath.DecodeBase32(s, n)
		if err == nil && (len(b) != n || storepath.EncodeBase32(b) != s) {
			t.Fatalf("%q is %x is %q", s, b, storepath.EncodeBase32(b))
		}
		back, err := storepath.DecodeBase32(storepath.EncodeBase32([]byte(s)), len(s))
		if err != nil || string(back) != s {
			t.Fatalf("%q became %q, %v", s, back, err)
		}
	})
}

func BenchmarkSource(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := storepath.Source("hello-2.12.2", [32]byte{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := storepath.Parse(hello); err != nil {
			b.Fatal(err)
		}
	}
}
