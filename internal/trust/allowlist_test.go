package trust

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/guix/storepath"
)

func TestItem(t *testing.T) {
	hash := strings.Repeat("0", 32)
	sha := Sum([]byte("x")).String()
	good := sha + " 42 source " + hash + "-hello-2.12.tar.gz"
	it, err := ParseItem(good)
	if err != nil || it.String() != good || it.Size != 42 || it.Kind != KindSource {
		t.Fatalf("%v, %v", it, err)
	}
	if err := it.Check(); err != nil {
		t.Error(err)
	}
	name := func(s string) string { return sha + " 42 source " + s }
	tests := []struct {
		name, line, code string
	}{
		{"empty", "", "item-syntax"},
		{"three fields", sha + " 42 source", "item-syntax"},
		{"five fields", good + " more", "item-name"},
		{"two spaces", strings.Replace(good, " 42", "  42", 1), "item-syntax"},
		{"upper case digest", strings.ToUpper(sha) + " 42 source " + hash + "-a", "item-syntax"},
		{"short digest", sha[1:] + " 42 source " + hash + "-a", "item-syntax"},
		{"leading zero", strings.Replace(good, " 42 ", " 042 ", 1), "item-syntax"},
		{"sign", strings.Replace(good, " 42 ", " +42 ", 1), "item-syntax"},
		{"negative", strings.Replace(good, " 42 ", " -42 ", 1), "item-syntax"},
		{"above 2^62", strings.Replace(good, " 42 ", " 4611686018427387905 ", 1), "item-syntax"},
		{"above 2^64", strings.Replace(good, " 42 ", " 18446744073709551658 ", 1), "item-syntax"},
		{"unknown kind", strings.Replace(good, "source", "canal", 1), "item-kind"},
		{"no hash", name("hello"), "item-name"},
		{"short hash", name(hash[1:] + "-hello"), "item-name"},
		{"letter not in base32", name("e" + hash[1:] + "-hello"), "item-name"},
		{"upper case hash", name("A" + hash[1:] + "-hello"), "item-name"},
		{"no hyphen", name(hash + "hello"), "item-name"},
		{"dot before the name", name(hash + "-.hello"), "item-name"},
		{"slash", name(hash + "-a/../b"), "item-name"},
		{"store directory", name("/gnu/store/" + hash + "-hello"), "item-name"},
		{"NUL", name(hash + "-a\x00b"), "item-name"},
		{"not ASCII", name(hash + "-é"), "item-name"},
		{"name too long", name(hash + "-" + strings.Repeat("a", 218)), "item-name"},
		{"source named .drv", name(hash + "-hello.drv"), "item-name"},
		{"derivation not named .drv", sha + " 42 derivation " + hash + "-hello", "item-name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseItem(tt.line)
			wantCodes(t, err, tt.code)
		})
	}
	for _, line := range []string{
		sha + " 1 source " + hash + "-", // the store has such names
		sha + " 0 output " + hash + "-" + strings.Repeat("a", 217),
		sha + " 4611686018427387904 derivation " + hash + "-A+b-c.d_e?f=.drv",
	} {
		if it, err := ParseItem(line); err != nil || it.String() != line {
			t.Errorf("%s: %v", line, err)
		}
	}
}

func TestItemOrderIsThatOfBytes(t *testing.T) {
	var items []Item
	for _, size := range []int64{9, 10, 100, 2, 0} {
		for _, kind := range []string{KindOutput, KindSource} {
			for _, name := range []string{"a", "a-b", "a+b", "b"} {
				for _, sum := range []string{"x", "y"} {
					items = append(items, Item{Sum([]byte(sum)), size, kind, base("", name)})
				}
			}
		}
	}
	for _, a := range items {
		for _, b := range items {
			if a.Compare(b) != strings.Compare(a.String(), b.String()) {
				t.Fatalf("%s and %s: %d", a, b, a.Compare(b))
			}
		}
	}
}

func TestAllowlistRoundTrip(t *testing.T) {
	a := testAllowlist(50)
	text := a.Text()
	b, err := ParseAllowlist(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Text(), text) || b.Digest() != Sum(text) || a.Digest() != b.Digest() {
		t.Error("not the same printed again")
	}
	for _, it := range a.Items {
		for _, list := range []*Allowlist{a, b} {
			if have, ok := list.ByName(it.Name); !ok || have != it {
				t.Errorf("by name: %v, %v", have, ok)
			}
			if have, ok := list.BySHA256(it.SHA256); !ok || have != it {
				t.Errorf("by digest: %v, %v", have, ok)
			}
		}
	}
	for _, list := range []*Allowlist{a, b} {
		if _, ok := list.ByName("nothing"); ok {
			t.Error("found nothing by name")
		}
		if _, ok := list.BySHA256(Digest{}); ok {
			t.Error("found nothing by digest")
		}
	}
	if empty, err := ParseAllowlist(testAllowlist(0).Text()); err != nil || len(empty.Items) != 0 {
		t.Errorf("an allowlist that allows nothing: %v", err)
	}
}

func TestParseAllowlistRefuses(t *testing.T) {
	a := testAllowlist(4)
	good := string(a.Text())
	line := func(i int) string { return "item " + a.Items[i].String() + "\n" }
	same := a.Items[1]
	same.Name, same.Kind = base("other", "name"), KindSource
	size := same
	size.Size++
	named := Item{Sum([]byte("another content")), 1, a.Items[1].Kind, a.Items[1].Name}
	with := func(it Item) string {
		b := *a
		b.Items = append([]Item{it}, a.Items...)
		return string(b.Text())
	}
	tests := []struct {
		name, text string
		code       []string
	}{
		{"good", good, nil},
		{"one content under two names", with(same), nil},
		{"other format version", replace(t, good, "allowlist v1", "allowlist v2"), []string{"allowlist-syntax"}},
		{"manifest", replace(t, good, "sallyport allowlist", "sallyport manifest"), []string{"allowlist-syntax"}},
		{"unsorted", replace(t, good, line(1)+line(2), line(2)+line(1)), []string{"allowlist-unsorted"}},
		{"line twice", replace(t, good, line(1), line(1)+line(1)), []string{"allowlist-duplicate"}},
		{"name twice", with(named), []string{"allowlist-duplicate-name"}},
		{"two sizes of one content", with(size), []string{"allowlist-item-size"}},
		{"unknown kind", replace(t, good, line(1), strings.Replace(line(1), a.Items[1].Kind, "tool", 1)), []string{"allowlist-kind"}},
		{"bad name", replace(t, good, a.Items[1].Name, a.Items[1].Name[1:]), []string{"allowlist-name"}},
		{"leading zero", replace(t, good, line(1), strings.Replace(line(1), " "+strconv.FormatInt(a.Items[1].Size, 10)+" ", " 0"+strconv.FormatInt(a.Items[1].Size, 10)+" ", 1)), []string{"allowlist-syntax"}},
		{"line that is no item", good + "note hello\n", []string{"allowlist-syntax"}},
		{"no LF at the end", strings.TrimSuffix(good, "\n"), []string{"allowlist-syntax"}},
		{"version 1 with a previous", replace(t, good, "previous -", "previous "+Sum(nil).String()), []string{"allowlist-previous"}},
		{"version 2 without", replace(t, good, "version 1", "version 2"), []string{"allowlist-previous"}},
		{"root 0", replace(t, good, "root 1", "root 0"), []string{"allowlist-syntax"}},
		{"track in upper case", replace(t, good, "track dev", "track Dev"), []string{"allowlist-syntax"}},
		{"all at once", replace(t, good, line(1)+line(2), line(2)+line(1)+line(1)) + "x\n", []string{"allowlist-unsorted", "allowlist-duplicate", "allowlist-syntax"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseAllowlist([]byte(tt.text))
			wantCodes(t, err, tt.code...)
		})
	}
	_, err := NewScanner("allowlist", []byte(good), len(good)-1)
	wantCodes(t, err, "allowlist-size")
	// A text of nothing but faults ends soon.
	_, err = ParseAllowlist([]byte(good + strings.Repeat("x\n", 100_000)))
	if rs, ok := AsRefusals(err); !ok || len(rs) != MaxRefusals {
		t.Errorf("%d refusals, want %d", len(rs), MaxRefusals)
	}
}

func TestScannerItemsOfManifest(t *testing.T) {
	text := AppendItems(nil, testItems(3))
	s, err := NewScanner("manifest", text, MaxListSize)
	if err != nil {
		t.Fatal(err)
	}
	if items := s.Items(true); len(items) != 3 || s.Err() != nil {
		t.Errorf("%d items, %v", len(items), s.Err())
	}
	s, _ = NewScanner("manifest", []byte("x y\n"), MaxListSize)
	s.Next()
	s.Items(true)
	wantCodes(t, s.Err(), "manifest-empty")
	s, _ = NewScanner("manifest", []byte(strings.Replace(string(text), "source", "gift", 1)), MaxListSize)
	s.Items(true)
	wantCodes(t, s.Err(), "manifest-kind")
}

func TestOpenAllowlist(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	second := testKey(t, "rada/allowlist", "second")
	r.Keys = append(r.Keys, second.RootKey(), e.key("ines/allowlist").RootKey()) // ines has a key, not the role
	root := e.open(r)
	text := testAllowlist(5).Text()
	with := func(change func(a *Allowlist)) []byte {
		a := testAllowlist(5)
		change(a)
		return a.Text()
	}
	line, err := SignText(text, second)
	if err != nil {
		t.Fatal(err)
	}
	rada := e.key("rada/allowlist").VKey()
	officer := e.key("olga/root")
	tests := []struct {
		name string
		msg  []byte
		code []string
	}{
		{"two of three", e.sign(text, "rada/allowlist", "rosa/allowlist"), nil},
		{"one", e.sign(text, "rada/allowlist"), []string{"allowlist-threshold"}},
		{"two keys of one person", append(e.sign(text, "rada/allowlist"), line+"\n"...), []string{"allowlist-threshold"}},
		{"a key without the role", e.sign(text, "rada/allowlist", "ines/allowlist"), []string{"allowlist-threshold"}},
		{"a stranger", e.sign(text, "rada/allowlist", "zora/allowlist"), []string{"allowlist-threshold"}},
		{"a key of another context", append(e.sign(text, "rada/allowlist"), lineOf(officer.VKey(), signRaw(officer, text))+"\n"...), []string{"allowlist-threshold"}},
		{"a reviewer's name on another's key", append(e.sign(text, "rada/allowlist"), lineOf(VKey{"remy/allowlist", "remy", ContextAllowlist, second.VKey().Public, KeyEd25519}, signRaw(second, text))+"\n"...), []string{"allowlist-threshold"}},
		{"bad signature of a known key", append(e.sign(text, "remy/allowlist", "rosa/allowlist"), lineOf(rada, make([]byte, 64))+"\n"...), []string{"allowlist-signature"}},
		{"bad second signature of a known key", append(e.sign(text, "remy/allowlist", "rada/allowlist"), lineOf(rada, make([]byte, 64))+"\n"...), []string{"allowlist-note"}},
		{"text changed after signing", bytes.Replace(e.sign(text, "rada/allowlist", "rosa/allowlist"), []byte("09:00:00Z"), []byte("09:00:01Z"), 1), []string{"allowlist-signature", "allowlist-signature"}},
		{"other enclave", e.sign(with(func(a *Allowlist) { a.Enclave = "keep" }), "rada/allowlist", "rosa/allowlist"), []string{"allowlist-enclave"}},
		{"unknown track", e.sign(with(func(a *Allowlist) { a.Track = "prod" }), "rada/allowlist", "rosa/allowlist"), []string{"allowlist-track"}},
		{"root not known yet", e.sign(with(func(a *Allowlist) { a.Root = 2 }), "rada/allowlist", "rosa/allowlist"), []string{"allowlist-root"}},
		{"all at once", e.sign(with(func(a *Allowlist) { a.Root, a.Enclave = 2, "keep" }), "rada/allowlist"), []string{"allowlist-enclave", "allowlist-root", "allowlist-threshold"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, persons, err := OpenAllowlist(tt.msg, root, nil)
			wantCodes(t, err, tt.code...)
			if err == nil && (len(persons) != 2 || a.Track != "dev") {
				t.Errorf("%v", persons)
			}
			if err != nil && a != nil {
				t.Error("an allowlist came with the refusal")
			}
		})
	}
}

func TestSuccessorAndFloor(t *testing.T) {
	e := newEnclave(t)
	root := e.open(e.root())
	open := func(a *Allowlist) *Allowlist {
		t.Helper()
		opened, _, err := OpenAllowlist(e.sign(a.Text(), "rada/allowlist", "remy/allowlist"), root, nil)
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	follow := func(prev *Allowlist, change func(a *Allowlist)) *Allowlist {
		a := testAllowlist(7)
		a.Version, a.Previous, a.Date = prev.Version+1, prev.Digest(), prev.Date.Add(time.Hour)
		if change != nil {
			change(a)
		}
		return open(a)
	}
	one := open(testAllowlist(5))
	two := follow(one, nil)
	three := follow(two, nil)

	for _, tt := range []struct {
		name    string
		a, prev *Allowlist
		code    []string
	}{
		{"first", one, nil, nil},
		{"first is not 1", two, nil, []string{"allowlist-version"}},
		{"second", two, one, nil},
		{"gap", three, one, []string{"allowlist-version"}},
		{"again", two, two, []string{"allowlist-version"}},
		{"rollback", one, two, []string{"allowlist-rollback"}},
		{"equivocation", follow(one, func(a *Allowlist) { a.Items = nil }), two, []string{"allowlist-equivocation"}},
		{"other previous", follow(one, func(a *Allowlist) { a.Previous = Sum(nil) }), one, []string{"allowlist-previous"}},
		{"earlier date", &Allowlist{Enclave: "citadel", Track: "dev", Version: 2, Root: 1, Date: epoch.Add(-time.Second), Previous: one.Digest()}, one, []string{"allowlist-date"}},
		{"other track", &Allowlist{Enclave: "citadel", Track: "prod", Version: 2, Root: 1, Date: epoch, Previous: one.Digest()}, one, []string{"allowlist-track"}},
		{"earlier root", &Allowlist{Enclave: "citadel", Track: "dev", Version: 2, Root: 0, Date: epoch, Previous: one.Digest()}, one, []string{"allowlist-root"}},
		{"other enclave, other date", &Allowlist{Enclave: "keep", Track: "dev", Version: 2, Root: 1, Previous: one.Digest()}, one, []string{"allowlist-enclave", "allowlist-date"}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCodes(t, tt.a.CheckSuccessor(tt.prev), tt.code...) })
	}

	var f Floor
	f1, err := f.AcceptAllowlist(one)
	if err != nil {
		t.Fatal(err)
	}
	f3, err := f1.AcceptAllowlist(three) // a verifier need not see version 2
	if err != nil {
		t.Fatal(err)
	}
	if f1.Allowlists["dev"].Version != 1 || f.Allowlists != nil {
		t.Error("accepting changed the former floor")
	}
	if _, err := f3.AcceptAllowlist(three); err != nil {
		t.Errorf("the same again: %v", err)
	}
	_, err = f3.AcceptAllowlist(two)
	wantCodes(t, err, "allowlist-rollback")
	_, err = f3.AcceptAllowlist(follow(two, func(a *Allowlist) { a.Items = nil }))
	wantCodes(t, err, "allowlist-equivocation")
	if _, err := f.AcceptAllowlist(testAllowlist(5)); err == nil {
		t.Error("an allowlist that was not opened moved the floor")
	}
	// A rotation of keys brings no old version back: the floor stays.
	nextRoot, err := root.Next(e.sign(next(root).Text(), "olga/root", "omar/root"))
	if err != nil {
		t.Fatal(err)
	}
	f4, err := f3.AcceptRoot(nextRoot)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f4.AcceptAllowlist(two)
	wantCodes(t, err, "allowlist-rollback")
}

// The quick check of a name and the one that makes a path agree.
func TestIsBase(t *testing.T) {
	good := []byte(base("", "hello-2.12"))
	check := func(s string) {
		if _, err := storepath.ParseBase(s); isBase(s) != (err == nil) {
			t.Errorf("%q: %v, %v", s, isBase(s), err)
		}
	}
	for i := range good {
		check(string(good[:i]))
		for c := range 256 {
			b := bytes.Clone(good)
			b[i] = byte(c)
			check(string(b))
		}
	}
	for n := 216; n < 219; n++ {
		check(base("", strings.Repeat("a", n)))
	}
}

func FuzzParseItem(f *testing.F) {
	for _, it := range testItems(4) {
		f.Add(it.String())
	}
	f.Fuzz(func(t *testing.T, s string) {
		it, err := ParseItem(s)
		if err == nil && it.String() != s {
			t.Fatalf("printed again %q, was %q", it, s)
		}
	})
}

func FuzzParseAllowlist(f *testing.F) {
	f.Add(testAllowlist(3).Text())
	f.Add(testAllowlist(0).Text())
	classy := testAllowlist(2)
	classy.Orders, classy.Classes = 3, []Class{NewClass(1, "kind=source,severity<=review", classy.Items[:1])}
	f.Add(classy.Text())
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAllowlist(b)
		if err == nil && !bytes.Equal(a.Text(), b) {
			t.Fatalf("printed again\n%q\nwas\n%q", a.Text(), b)
		}
	})
}
