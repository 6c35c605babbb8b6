package scheme

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const (
	commit1 = "9edb3f66fd807b096b48283debdcddccfea34bad"
	commit2 = "897c1a470da759236cc11798f4e0a5f7d4d59fbc"
	key1    = "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA"
	key2    = "2A39 3FFF 68F4 EF7A 3D29  12AF 6F51 20A0 22FB B2D5"
	item1   = "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a"
	item2   = "/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b"
)

func print(t testing.TB, s string) Fingerprint {
	t.Helper()
	f, err := ParseFingerprint(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const intro2 = `(introduction (make-channel-introduction "` + commit2 + `" (openpgp-fingerprint "` + key2 + `")))`

func TestChannels(t *testing.T) {
	guix := DefaultChannel()
	extra := Channel{Name: "nonguix", URL: "https://gitlab.com/nonguix/nonguix", Branch: "main", Commit: commit1,
		Introduction: &Introduction{commit2, print(t, key2)}}
	plain := Channel{Name: "my-own", URL: "/srv/own.git", Branch: "master"}
	const extraText = `(channel (name 'nonguix) (url "https://gitlab.com/nonguix/nonguix") (branch "main") (commit "` + commit1 + `") ` + intro2 + `)`
	const plainText = `(channel (url "/srv/own.git") (name (quote my-own)))`
	for _, tt := range []struct {
		in   string
		want []Channel
	}{
		{"%default-channels", []Channel{guix}},
		{"(use-modules (guix channels) ((a b) #:select (c)))\n;; mine\n%default-channels", []Channel{guix}},
		{"'()", nil},
		{"(list)", nil},
		{"(list %default-guix-channel " + plainText + ")", []Channel{guix, plain}},
		{"(cons " + extraText + " %default-channels)", []Channel{extra, guix}},
		{"(cons* " + extraText + plainText + " %default-channels)", []Channel{extra, plain, guix}},
		{"(cons* %default-channels)", []Channel{guix}},
		{"(append (list " + plainText + ") (cons " + extraText + " '()) %default-channels)", []Channel{plain, extra, guix}},
		{`(list (channel (name 'guix) (url #f) (branch #f) (commit #f) (introduction #f)))`, []Channel{{Name: "guix"}}},
		{`(list (channel (name 'guix) (url "u") (branch "b") (commit "v1.5.0")))`, []Channel{{Name: "guix", URL: "u", Branch: "b", Commit: "v1.5.0"}}},
	} {
		got, err := Channels([]byte(tt.in))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.in, got, err)
			continue
		}
		printed := PrintChannels(got)
		again, err := Channels(printed)
		if err != nil || len(again) != len(got) || len(got) > 0 && !reflect.DeepEqual(again, got) {
			t.Errorf("%s is printed as %s (%v)", tt.in, printed, err)
		}
		if !bytes.Equal(PrintChannels(again), printed) {
			t.Errorf("%s is not printed alike twice", tt.in)
		}
	}
	if !extra.Pinned() || guix.Pinned() || (Channel{Commit: strings.ToUpper(commit1)}).Pinned() {
		t.Error("Pinned is wrong")
	}
}

// The layout is that of guix describe -f channels.
func TestPrintChannels(t *testing.T) {
	c := DefaultChannel()
	c.Commit = commit2
	const want = `(list (channel
       (name 'guix)
       (url "https://git.guix.gnu.org/guix.git")
       (branch "master")
       (commit "897c1a470da759236cc11798f4e0a5f7d4d59fbc")
       (introduction
        (make-channel-introduction
         "9edb3f66fd807b096b48283debdcddccfea34bad"
         (openpgp-fingerprint
          "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA"))))
      (channel
       (name 'own)
       (url "u\"")
       (branch #f)))
`
	if got := string(PrintChannels([]Channel{c, {Name: "own", URL: `u"`}})); got != want {
		t.Errorf("printed\n%s", got)
	}
}

func TestChannelsRefused(t *testing.T) {
	ch := func(fields string) string { return "(list (channel " + fields + "))" }
	const good = `(name 'a) (url "u") `
	for _, tt := range []struct{ in, code string }{
		{"", CodeForm},
		{"a", CodeForm},
		{`"a"`, CodeForm},
		{"(define x 1) %default-channels", CodeForm},
		{"%default-channels %default-channels", CodeForm},
		{"(map f %default-channels)", CodeForm},
		{"(if #t %default-channels '())", CodeForm},
		{"(list . a)", CodeForm},
		{"()", CodeForm},
		{"'(a)", CodeForm},
		{"(cons %default-channels)", CodeForm},
		{"(cons*)", CodeForm},
		{"(cons a b c)", CodeForm},
		{"(list %default-channels)", CodeForm},
		{"(list 1)", CodeForm},
		{ch(`(inherit x) (url "u")`), CodeForm},
		{ch(`(name 'a) (url (string-append "a" "b"))`), CodeValue},
		{ch(`(name 'a) (url "")`), CodeValue},
		{ch("(name 'a) (url \"a\nb\")"), CodeValue},
		{ch("(name 'a) (url \"a\u0085b\")"), CodeValue},
		{ch(`(name 'a) (url #t)`), CodeValue},
		{ch(`(name 'a)`), CodeField},
		{ch(`(url "u")`), CodeField},
		{ch(`(name a) (url "u")`), CodeValue},
		{ch(`(name "a") (url "u")`), CodeValue},
		{ch(`(name 'a/b) (url "u")`), CodeValue},
		{ch(`(name '...) (url "u")`), CodeValue},
		{ch(`(name 'a) (url "u") (url "v")`), CodeField},
		{ch(`(name 'a) (url "u" "v")`), CodeField},
		{ch(`(name 'a) (url . "v")`), CodeField},
		{ch(good + `(colour "red")`), CodeField},
		{ch(good + `"x"`), CodeField},
		{ch(good + `(introduction "x")`), CodeForm},
		{ch(good + `(introduction (make-channel-introduction "` + commit1 + `"))`), CodeForm},
		{ch(good + `(introduction (make-channel-introduction "` + commit1 + `" "` + key1 + `"))`), CodeForm},
		{ch(good + `(introduction (make-channel-introduction "` + commit1[1:] + `" (openpgp-fingerprint "` + key1 + `")))`), CodeValue},
		{ch(good + `(introduction (make-channel-introduction "` + strings.ToUpper(commit1) + `" (openpgp-fingerprint "` + key1 + `")))`), CodeValue},
		{ch(good + `(introduction (make-channel-introduction "` + commit1 + `" (openpgp-fingerprint "` + key1[1:] + `")))`), CodeValue},
		{ch(good + `(introduction (make-channel-introduction "` + commit1 + `" (openpgp-fingerprint "` + key1 + `" "")))`), CodeForm},
		{ch(good + `(introduction (channel-introduction (version 0) (commit "` + commit1 + `") (signer "` + key1 + `")))`), CodeForm},
		{"(cons (channel (name 'guix) (url \"u\")) %default-channels)", CodeDuplicate},
		{"(list", CodeUnbalanced},
	} {
		if got, err := Channels([]byte(tt.in)); codeOf(err) != tt.code {
			t.Errorf("%s: %+v, %v; want %s", tt.in, got, err, tt.code)
		}
	}
	_, err := Channels([]byte("(list\n  (channel (name 'a)\n           (url (f))))"))
	if where(err) != fmt.Sprint(CodeValue, 3, 17) {
		t.Errorf("the place is %v", err)
	}
}

func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestFingerprint(t *testing.T) {
	want := print(t, key1)
	for _, s := range []string{strings.ToLower(key1), strings.ReplaceAll(key1, " ", ""), "\t" + key1 + "\n"} {
		if print(t, s) != want {
			t.Errorf("%q is another key", s)
		}
	}
	if want.String() != key1 || want.Hex() != "bbb02ddf2ceaf6a80d1de643a2a06df2a33a54fa" {
		t.Errorf("%s %s", want, want.Hex())
	}
	for _, s := range []string{"", key1[1:], key1 + "00", strings.Replace(key1, "B", "G", 1), strings.Replace(key1, " ", "-", 1)} {
		if _, err := ParseFingerprint(s); err == nil {
			t.Errorf("%q is a fingerprint", s)
		}
	}
}

func TestAuthorizations(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []Authorization
	}{
		{`(authorizations (version 0) ())`, nil},
		{`;; remark
(authorizations
 (version 0)
 (("` + key1 + `" ; first
   (name "one"))
  ("` + strings.ToLower(key2) + `" (name 1) (other . x) "y")) (more) 12)`,
			[]Authorization{{print(t, key1), "one"}, {print(t, key2), ""}}},
	} {
		got, err := ParseAuthorizations([]byte(tt.in))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, %v", tt.in, got, err)
		}
	}
	for in, code := range map[string]string{
		"":                                       CodeForm,
		"(authorizations)":                       CodeVersion,
		"(authorizations (version 1) ())":        CodeVersion,
		"(authorizations (version \"0\") ())":    CodeVersion,
		"(authorizations (version 0))":           CodeForm,
		"(authorizations (version 0) x)":         CodeForm,
		"(authorizations (version 0) (\"a\"))":   CodeForm,
		"(authorizations (version 0) ((\"a\")))": CodeValue,
		"(authorizations (version 0) ((a)))":     CodeValue,
		"(authorizations (version 0) (()))":      CodeForm,
		"(authorizations (version 0) () . x)":    CodeForm,
		"(authorizations (version 0) ()) more":   CodeForm,
		"(authorisations (version 0) ())":        CodeForm,
		"(authorizations (version 0) `())":       CodeSyntax,
	} {
		if _, err := ParseAuthorizations([]byte(in)); codeOf(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
}

func TestMetadata(t *testing.T) {
	m, err := ParseMetadata([]byte("(channel (version 0))"))
	if err != nil || !reflect.DeepEqual(m, &Metadata{Directory: ".", KeyringReference: "keyring"}) {
		t.Errorf("%+v, %v", m, err)
	}
	m, err = ParseMetadata([]byte(`(channel (version 0) (directory "/guix/modules/") (news-file "etc/news.scm") (url "https://x/y")
 (keyring-reference "keys") (dependencies
  (channel (name guix) (url "https://g") (branch "b") (commit "c")
   (introduction (channel-introduction (version 0) (commit "` + commit1 + `") (signer "` + key1 + `"))))
  (channel (name other) (url "u"))))`))
	want := &Metadata{"guix/modules", "etc/news.scm", "https://x/y", "keys", []Channel{
		{"guix", "https://g", "b", "c", &Introduction{commit1, print(t, key1)}}, {Name: "other", URL: "u", Branch: "master"}}}
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("%+v, %v", m, err)
	}
	for in, code := range map[string]string{
		`(channel)`:             CodeVersion,
		`(channel (version 1))`: CodeVersion,
		`(channel (version 0) (directory "a/../../b"))`:                                                  CodeValue,
		`(channel (version 0) (directory ".."))`:                                                         CodeValue,
		`(channel (version 0) (news-file "../x"))`:                                                       CodeValue,
		`(channel (version 0) (directory ""))`:                                                           CodeValue,
		`(channel (version 0) (directory #f))`:                                                           CodeValue,
		`(channel (version 0) (shell "rm"))`:                                                             CodeField,
		`(channel (version 0) (url "a") (url "b"))`:                                                      CodeField,
		`(channel (version 0) (dependencies x))`:                                                         CodeForm,
		`(channel (version 0) (dependencies (channel (name 'a) (url "u"))))`:                             CodeValue,
		`(channel (version 0) (dependencies (channel (name a) (url "u")) (channel (name a) (url "u"))))`: CodeDuplicate,
		`(channel (version 0) (dependencies (channel (name a) (url "u") (introduction (channel-introduction (version 1))))))`: CodeVersion,
	} {
		if _, err := ParseMetadata([]byte(in)); codeOf(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
}

func TestSpecifications(t *testing.T) {
	want := []Specification{{Name: "hello"}, {"gcc", "12", "lib"}, {"gtk+", "", "doc"}}
	for _, in := range []string{
		`(specifications->manifest (list "hello" "gcc@12:lib" "gtk+:doc"))`,
		`(use-modules (guix)) (specifications->manifest '("hello" "gcc@12:lib" "gtk+:doc"))`,
		`(specifications->manifest (cons* "hello" "gcc@12:lib" '("gtk+:doc")))`,
		`(specifications->manifest (append (cons "hello" '()) (list "gcc@12:lib") (quote ("gtk+:doc"))))`,
		`(concatenate-manifests (list (specifications->manifest '("hello")) (concatenate-manifests (list)) (specifications->manifest (list "gcc@12:lib" "gtk+:doc"))))`,
	} {
		got, err := Specifications([]byte(in))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, s := range want {
		if got, err := ParseSpecification(s.String()); got != s || err != nil {
			t.Errorf("%s is read as %v (%v)", s, got, err)
		}
	}
	for in, code := range map[string]string{
		`(packages->manifest (list hello))`:                         CodeForm,
		`(specifications->manifest)`:                                CodeForm,
		`(specifications->manifest (list "a") (list "b"))`:          CodeForm,
		`(specifications->manifest (list a))`:                       CodeValue,
		`(specifications->manifest (list (f "a")))`:                 CodeValue,
		`(specifications->manifest (map f '("a")))`:                 CodeForm,
		`(specifications->manifest '("a" . "b"))`:                   CodeForm,
		`(specifications->manifest %default-channels)`:              CodeForm,
		`(specifications->manifest '("a b"))`:                       CodeValue,
		`(concatenate-manifests (specifications->manifest '("a")))`: CodeForm,
		`(begin (delete-file "x") (specifications->manifest '()))`:  CodeForm,
	} {
		if _, err := Specifications([]byte(in)); codeOf(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
	for _, s := range []string{"", "@1", ":out", "a@", "a:", "a@1:", "a@1@2", "a:b:c", "-a", "a/b", "a\n", "a:b@1", "ä"} {
		if _, err := ParseSpecification(s); codeOf(err) != CodeValue {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestProfile(t *testing.T) {
	const source = `(source (repository (version 0) (url "https://g") (branch "b") (commit "` + commit1 + `")
	  (introduction (channel-introduction (version 0) (commit "` + commit2 + `") (signer "` + key2 + `")))))`
	for _, tt := range []string{
		`(manifest (version 4) (packages (
  ("a" "1.0" "out" "` + item1 + `" (propagated-inputs (("b" "2" "lib" "` + item2 + `" (search-paths (("PATH" ("bin" "") ":" directory #f))))))
    (properties (` + source + ` (tests . "x"))))
  (repeated "b" "2" "` + item2 + `"))))`,
		`(manifest (version 3) (packages (
  ("a" "1.0" "out" "` + item1 + `" (propagated-inputs (("b" "2" "lib" "` + item2 + `" (propagated-inputs ()) (search-paths (("PATH" ("bin" "") ":" directory #f))))))
    (search-paths ()) (properties ` + source + ` (tests . "x")))
  ("b" "2" "lib" "` + item2 + `" (propagated-inputs ()) (search-paths (("PATH" ("bin" "") ":" directory #f)))))))`,
	} {
		got, err := ParseProfile([]byte(tt))
		if err != nil {
			t.Errorf("%s: %v", tt, err)
			continue
		}
		var names []string
		for i := range got {
			for e := range got[i].All {
				names = append(names, e.Name+"@"+e.Version+":"+e.Output+" "+e.Item.Name())
			}
		}
		if want := "a@1.0:out a, b@2:lib b, b@2:lib b"; strings.Join(names, ", ") != want {
			t.Errorf("%s: %q", tt, names)
		}
		want := []Channel{{"", "https://g", "b", commit1, &Introduction{commit2, print(t, key2)}}}
		if !reflect.DeepEqual(got[0].Provenance, want) || len(got[0].Properties) != 2 ||
			!reflect.DeepEqual(got[0].Propagated[0].SearchPaths, []SearchPath{{"PATH", []string{"bin", ""}, ":", "directory", ""}}) || len(got[1].SearchPaths) != 1 {
			t.Errorf("%s: %+v", tt, got)
		}
	}
	got, err := ParseProfile([]byte(`(manifest (version 4) (packages (("a" "1" "out" "` + item1 + `"
 (properties ((provenance (channel (name 'guix) (url "u") (branch "b") (commit "c") ` + intro2 + `) (channel (name x) (url "v"))))))) ) )`))
	if err != nil || len(got) != 1 || len(got[0].Provenance) != 2 || got[0].Provenance[0].Introduction == nil || got[0].Provenance[1].Name != "x" {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := ParseProfile([]byte("(manifest (version 4) (packages ()))")); err != nil || len(got) != 0 {
		t.Errorf("the empty profile: %v %v", got, err)
	}
	p := func(s string) string { return "(manifest (version 4) (packages (" + s + ")))" }
	e := func(s string) string { return p(`("a" "1" "out" "` + item1 + `" ` + s + ")") }
	for in, code := range map[string]string{
		"(manifest (version 2) (packages ()))":                        CodeVersion,
		"(manifest (version 4))":                                      CodeField,
		"(manifest (version 4) (packages x))":                         CodeForm,
		p("x"):                                                        CodeForm,
		p(`("a" "1" "out")`):                                          CodeForm,
		p(`("a" "1" "out" "/gnu/store/..")`):                          CodeValue,
		p(`("a" "1" "out" "/etc/passwd")`):                            CodeValue,
		p(`(a "1" "out" "` + item1 + `")`):                            CodeValue,
		p(`("" "1" "out" "` + item1 + `")`):                           CodeValue,
		p(`(repeated "a" "1" "` + item1 + `")`):                       CodeForm,
		p(`(repeated a "1" "` + item1 + `")`):                         CodeValue,
		e("(properties x)"):                                           CodeForm,
		e("(unknown)"):                                                CodeField,
		e("(search-paths x)"):                                         CodeForm,
		e(`(search-paths (("PATH" ("bin") #f regular)))`):             CodeForm,
		e(`(search-paths (("PATH" "bin" #f regular #f)))`):            CodeForm,
		e(`(search-paths (("PATH" (bin) #f regular #f)))`):            CodeValue,
		e(`(search-paths ((PATH ("bin") #f regular #f)))`):            CodeValue,
		e(`(search-paths (("PATH" ("bin") #t regular #f)))`):          CodeValue,
		e(`(search-paths (("PATH" ("bin") #f "regular" #f)))`):        CodeValue,
		e(`(search-paths (("PATH" ("bin") #f regular symbol)))`):      CodeValue,
		e("(search-paths (x))"):                                       CodeForm,
		e("(properties ((source (svn))))"):                            CodeForm,
		e("(properties ((source (repository (version 0) (url 1)))))"): CodeValue,
		`(manifest (version 3) (packages (("a" "1" "out" "` + item1 + `") (repeated "a" "1" "` + item1 + `"))))`: CodeValue,
	} {
		if got, err := ParseProfile([]byte(in)); codeOf(err) != code {
			t.Errorf("%s: %+v, %v, want %s", in, got, err, code)
		}
	}
}

func TestProvenance(t *testing.T) {
	const channels = `(channels (channel (name guix) (url "u") (branch "b") (commit "` + commit1 + `") (introduction (channel-introduction (version 0) (commit "` + commit2 + `") (signer "` + key2 + `")))))`
	for in, file := range map[string]string{
		`(provenance (version 0) ` + channels + ` (configuration-file "` + item1 + `"))`: item1,
		`(provenance (version 0) ` + channels + ` (configuration-file #f))`:              "",
		`(provenance (version 0) ` + channels + `)`:                                      "",
	} {
		p, err := ParseProvenance([]byte(in))
		want := []Channel{{"guix", "u", "b", commit1, &Introduction{commit2, print(t, key2)}}}
		if err != nil || p.Configuration.String() != file || !reflect.DeepEqual(p.Channels, want) {
			t.Errorf("%s: %+v, %v", in, p, err)
		}
	}
	for in, code := range map[string]string{
		"(provenance (version 1) (channels))":                          CodeVersion,
		"(provenance (version 0))":                                     CodeField,
		"(provenance (version 0) (channels x))":                        CodeForm,
		`(provenance (version 0) (channels) (configuration-file "x"))`: CodeValue,
		`(provenance (version 0) (channels) (x))`:                      CodeField,
	} {
		if _, err := ParseProvenance([]byte(in)); codeOf(err) != code {
			t.Errorf("%s: %v, want %s", in, err, code)
		}
	}
}

// Whatever is given to the readers of files, they return.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		"(cons* (channel (name 'a) (url \"u\") " + intro2 + ") %default-channels)",
		"(authorizations (version 0) ((\"" + key1 + "\" (name \"x\"))))",
		`(channel (version 0) (directory "d") (dependencies (channel (name n) (url "u"))))`,
		`(specifications->manifest (list "hello" "gcc@12:lib"))`,
		`(manifest (version 4) (packages (("a" "1" "out" "` + item1 + `" (properties ((source (repository (version 0) (url "u")))))) (repeated "a" "1" "` + item1 + `"))))`,
		`(provenance (version 0) (channels (channel (name n) (url "u"))) (configuration-file #f))`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := Channels(text); err == nil {
			again, err := Channels(PrintChannels(got))
			if err != nil || len(got) > 0 && !reflect.DeepEqual(got, again) {
				t.Errorf("%q: %+v, then %+v (%v)", text, got, again, err)
			}
		}
		ParseAuthorizations(text)
		if m, err := ParseMetadata(text); err == nil && !filepath.IsLocal(m.Directory) {
			t.Errorf("%q leaves the repository: %s", text, m.Directory)
		}
		if got, err := Specifications(text); err == nil {
			for _, s := range got {
				if again, err := ParseSpecification(s.String()); err != nil || again != s {
					t.Errorf("%v, then %v (%v)", s, again, err)
				}
			}
		}
		ParseProfile(text)
		ParseProvenance(text)
	})
}
