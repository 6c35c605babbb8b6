package narinfo

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/sexp"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

const vectors = "../../vectors/narinfo"

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func testACL(t testing.TB) signature.ACL {
	t.Helper()
	acl, err := signature.ParseACL(read(t, "acl"))
	if err != nil {
		t.Fatal(err)
	}
	return acl
}

// testKey is the key of the server that the samples are from.
func testKey(t testing.TB) signature.SecretKey {
	t.Helper()
	k, err := signature.ParseSecretKey(read(t, "../archives/authorised.TEST-ONLY.sec"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func samples(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(vectors, "*.narinfo"))
	if err != nil || len(files) < 6 {
		t.Fatalf("%d samples in %s (%v)", len(files), vectors, err)
	}
	for i, file := range files {
		files[i] = filepath.Base(file)
	}
	return files
}

// codeOf returns the code of an error of this package or of signature.
func codeOf(t testing.TB, err error) string {
	t.Helper()
	var here *Error
	var there *signature.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &here):
		return here.Code
	case errors.As(err, &there):
		return there.Code
	}
	t.Fatalf("%T: %v", err, err)
	return ""
}

// What guix publish served verifies, and signing the same fields with the same
// key makes the same bytes.
func TestSamples(t *testing.T) {
	acl, k := testACL(t), testKey(t)
	for _, name := range samples(t) {
		data := read(t, name)
		n, err := Verify(data, acl)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again := appendRest(n.appendSigned(nil), n.Signature, n.Files); !bytes.Equal(again, data) {
			t.Errorf("%s prints as\n%s", name, again)
		}
		if _, err := VerifyStrict(data, acl); err != nil {
			t.Errorf("%s: refused in strict mode: %v", name, err)
		}
		if !bytes.HasPrefix(data[len(n.Unsigned()):], []byte("Signature: ")) {
			t.Errorf("%s: signed is %q", name, n.Unsigned())
		}
		fresh := *n
		fresh.unsigned = ""
		fresh.Signature = Signature{}
		slices.Reverse(fresh.References)
		if !bytes.Equal(fresh.Unsigned(), n.Unsigned()) {
			t.Errorf("%s: %q would be signed", name, fresh.Unsigned())
		}
		again, err := Sign(&fresh, n.Signature.Host, k)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: signed again: %v\n%s", name, err, again)
		}
		for _, f := range n.Files {
			prefix := "nar"
			if name == "other-nar-path.narinfo" {
				prefix = "some/deep/nar"
			}
			if url := ItemURL(prefix, f.Compression, n.StorePath); url != f.URL {
				t.Errorf("%s: URL %s, expected %s", name, url, f.URL)
			}
		}
	}
}

func TestFields(t *testing.T) {
	n, err := Parse(read(t, "cached-three-compressions.narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	const item = "m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple"
	nar := read(t, "v-simple.nar")
	if n.StorePath.String() != "/gnu/store/"+item || n.NarHash != sha256.Sum256(nar) || n.NarSize != int64(len(nar)) ||
		len(n.References) != 1 || n.References[0] != n.StorePath || n.System != "" ||
		n.Deriver.Base() != "71srfn47sm9135lkrw596p9k7f3s5kyz-v-simple.drv" || n.Signature.Host != "vm" {
		t.Errorf("%+v", n)
	}
	for i, ext := range []string{"gz", "zstd", "lzip"} {
		f := n.Files[i]
		if want := (File{"nar/" + f.Compression + "/" + item, f.Compression, int64(len(read(t, "v-simple.nar."+ext)))}); f != want || len(n.Files) != 3 {
			t.Errorf("file %d: %+v, expected %+v", i, f, want)
		}
	}
	n, err = Parse(read(t, "source-no-deriver.narinfo"))
	if err != nil || len(n.References) != 0 || !n.Deriver.IsZero() || n.Files[0].FileSize != 0 {
		t.Errorf("%v %+v", err, n)
	}
	if n.Answers("3ix5rmclmn1yc1hl1r68mr61wccnjkdr") != nil {
		t.Error("does not answer for its own hash")
	}
	for _, hash := range []string{"", "3ix5rmclmn1yc1hl1r68mr61wccnjkd", "m1ifsjhqxcvzb115va975vn4vc5v4f1r"} {
		if codeOf(t, n.Answers(hash)) != CodeOtherItem {
			t.Errorf("answers for %q", hash)
		}
	}
}

// stricter lists the variants that Guix takes and Verify refuses, on purpose.
// What Guix "takes" is what its answer to `have` says: it offers the item.
var stricter = map[string]struct{ code, why string }{
	"sizeafter": {CodeNotSigned, "nobody vouches for the size, and Guix does not check it"},
	"dup":       {CodeDuplicate, "the signed field and the one below it name two items"},
	"dupref":    {CodeDuplicate, "as dup"},
	"dupsig":    {CodeDuplicate, "which signature counts is nobody's to guess"},
	"crlf":      {CodeMalformed, "Guix takes the carriage return for part of the path"},
	"sha512":    {CodeMalformed, "the label says which hash it is"},
	"brotli":    {CodeMalformed, "Guix itself fails as soon as it fetches"},
	"traverse":  {CodeMalformed, "a URL that leaves the directory it is resolved in"},
}

// refused lists the reasons for the others.
var refused = map[string]string{
	"unauth":   signature.CodeUnauthorised,
	"nosig":    CodeUnsigned,
	"badsig":   signature.CodeHashMismatch,
	"tampered": signature.CodeInvalid,
	"noref":    CodeMissing,
	"refafter": CodeNotSigned,
	"version2": CodeMalformed,
	"sigword":  CodeUnknown,
	"nourl":    CodeMissing,
}

func TestVariants(t *testing.T) {
	var variants []struct{ Tag, File, Path, Asked, Note, Have, Info string }
	if err := json.Unmarshal(read(t, "variants.json"), &variants); err != nil {
		t.Fatal(err)
	}
	acl := testACL(t)
	seen := make(map[string]bool)
	for _, v := range variants {
		seen[v.Tag] = true
		guixTakes := strings.HasPrefix(v.Have, v.Path)
		want := refused[v.Tag]
		if s, ok := stricter[v.Tag]; ok {
			want = s.code
			if !guixTakes {
				t.Errorf("%s is in the table stricter, but Guix refuses it", v.Tag)
			}
		} else if guixTakes != (want == "") {
			t.Errorf("%s: Guix takes it: %v, the tables say %q", v.Tag, guixTakes, want)
		}
		n, err := Verify(read(t, "variants/"+v.File), acl)
		if got := codeOf(t, err); got != want {
			t.Errorf("%s (%s): %v, want code %q", v.Tag, v.Note, err, want)
		}
		if _, strictErr := VerifyStrict(read(t, "variants/"+v.File), acl); err != nil && strictErr == nil {
			t.Errorf("%s: refused by Verify, taken in strict mode", v.Tag)
		}
		if err != nil {
			continue
		}
		if n.StorePath.String() != v.Path {
			t.Errorf("%s: path %s", v.Tag, n.StorePath)
		}
		asked, err := storepath.Parse(v.Asked)
		if err != nil {
			t.Fatal(err)
		}
		if got := codeOf(t, n.Answers(asked.Hash())); (got == "") != (v.Path == v.Asked) {
			t.Errorf("%s: asked for %s: %q", v.Tag, v.Asked, got)
		}
	}
	if len(variants) < 22 || len(seen) != len(variants) {
		t.Errorf("%d variants", len(variants))
	}
	for tag := range stricter {
		if !seen[tag] {
			t.Errorf("no variant %s", tag)
		}
	}
	for tag := range refused {
		if !seen[tag] {
			t.Errorf("no variant %s", tag)
		}
	}
}

const good = `StorePath: /gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple
NarHash: sha256:07lqqpp9p238lbw72agmfpc5k2sgwl9ygm7bfbsvvm6649djfvbp
NarSize: 1664
References: 71srfn47sm9135lkrw596p9k7f3s5kyz-a m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple
System: x86_64-linux
Deriver: 71srfn47sm9135lkrw596p9k7f3s5kyz-v-simple.drv
Signature: 1;host.example;QUI=
URL: nar/gzip/m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple
Compression: gzip
FileSize: 317
URL: https://example.org:8080/a%2Bb
Compression: none
`

// Each changes one thing of good.
func TestRefused(t *testing.T) {
	if _, err := Parse([]byte(good)); err != nil {
		t.Fatal(err)
	}
	const url1 = "nar/gzip/m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple"
	drop := func(name string) string {
		i := strings.Index(good, name+": ")
		return good[i : i+strings.Index(good[i:], "\n")+1]
	}
	many := strings.Repeat("71srfn47sm9135lkrw596p9k7f3s5kyz-a ", MaxReferences+1)
	for _, tc := range []struct{ old, new, code string }{
		// still fine
		{drop("System"), "", ""},
		{drop("Deriver"), "", ""},
		{"FileSize: 317\n", "", ""},
		{"1;host.example;", "1;;", ""},
		{"sha256:07", "sha256:17", ""},
		{"References: 71srfn47sm9135lkrw596p9k7f3s5kyz-a m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple",
			"References: m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple 71srfn47sm9135lkrw596p9k7f3s5kyz-a", ""},
		{drop("StorePath") + drop("NarHash"), drop("NarHash") + drop("StorePath"), ""},
		{url1, "x", ""},
		{url1, "Signature:/x", CodeMalformed}, // for its colon
		{url1, "x/Signature:", ""},
		{url1, "a+b=c,d", ""},
		{url1, "http://h/x", ""},
		{url1, "http://[::1]:80/x", ""},
		{url1, "%41/..a/.b", ""},

		{good, "", CodeMissing},
		{good, "\n", CodeMalformed},
		{"Compression: none\n", "Compression: none", CodeMalformed},
		{"Compression: none\n", "Compression: none\n\n", CodeMalformed},
		{"Compression: none\n", "", CodeMissing},
		{"Compression: gzip\n", "", CodeMissing},
		{drop("StorePath"), "", CodeMissing},
		{drop("NarHash"), "", CodeMissing},
		{drop("NarSize"), "", CodeMissing},
		{drop("References"), "", CodeMissing},
		{drop("Signature"), "", CodeUnsigned},
		{good[strings.Index(good, "URL"):], "", CodeMissing},
		{"NarSize: ", "NarSize:", CodeMalformed},
		{"NarSize: ", "narsize: ", CodeUnknown},
		{"NarSize: ", " NarSize: ", CodeUnknown},
		{"NarSize: ", "FileHash: x\nNarSize: ", CodeUnknown},
		{"NarSize: ", "NarSize: 1664\nNarSize: ", CodeDuplicate},
		{"URL: nar", "Deriver: 71srfn47sm9135lkrw596p9k7f3s5kyz-v-simple.drv\nURL: nar", CodeDuplicate},
		{"System: x86_64-linux\n" + drop("Deriver") + drop("Signature"), drop("Signature") + drop("Deriver"), CodeNotSigned},
		{drop("System") + drop("Deriver") + drop("Signature"), drop("Signature") + drop("System"), CodeNotSigned},
		{"System: x86_64-linux", "System: ", CodeMalformed},
		{"System: x86_64-linux", "System: X86", CodeMalformed},
		{"System: x86_64-linux", "System: Signature:", CodeMalformed},
		{"System: x86_64-linux", "System: " + strings.Repeat("x", MaxSystem+1), CodeMalformed},

		{"/gnu/store/m1i", "/gnu/store/e1i", CodeMalformed},
		{"/gnu/store/m1i", "m1i", CodeMalformed},
		{"/gnu/store/m1i", "/nix/store/m1i", CodeMalformed},
		{"v-simple\nNar", "v-simple/x\nNar", CodeMalformed},
		{"v-simple\nNar", "v-simple\r\nNar", CodeMalformed},
		{"v-simple\nNar", "v-simple \nNar", CodeMalformed},
		{"sha256:07", "sha256:27", CodeMalformed}, // surplus bits
		{"sha256:07", "sha256:7", CodeMalformed},
		{"sha256:07", "sha256:0E", CodeMalformed},
		{"sha256:07", "sha512:07", CodeMalformed},
		{"sha256:07", "07", CodeMalformed},
		{"NarSize: 1664", "NarSize: 01664", CodeMalformed},
		{"NarSize: 1664", "NarSize: +1664", CodeMalformed},
		{"NarSize: 1664", "NarSize: -1664", CodeMalformed},
		{"NarSize: 1664", "NarSize: 0", CodeMalformed},
		{"NarSize: 1664", "NarSize: 0x10", CodeMalformed},
		{"NarSize: 1664", "NarSize: 1_664", CodeMalformed},
		{"NarSize: 1664", "NarSize: ", CodeMalformed},
		{"NarSize: 1664", "NarSize: 9223372036854775808", CodeMalformed},
		{"FileSize: 317", "FileSize: 0", CodeMalformed},
		{"References: ", "References:  ", CodeMalformed},
		{"-a m1i", "-a  m1i", CodeMalformed},
		{"-v-simple\nSystem", "-v-simple \nSystem", CodeMalformed},
		{"References: 71s", "References: /gnu/store/71s", CodeMalformed},
		{"References: ", "References: m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple ", CodeMalformed},
		{"References: ", "References: " + many, CodeTooLarge},
		{"Deriver: 71s", "Deriver: /gnu/store/71s", CodeMalformed},
		{"v-simple.drv", "v-simple", CodeMalformed},
		{drop("Deriver"), "Deriver: \n", CodeMalformed},

		{"1;host", "2;host", CodeMalformed},
		{"1;host", "01;host", CodeMalformed},
		{"1;host", "host", CodeMalformed},
		{"1;host", "1;a;host", CodeMalformed},
		{"1;host", "1;a b;host", CodeMalformed},
		{"1;host.", "1;a b.", CodeMalformed},
		{"1;host.", "1;\u00e9.", CodeMalformed},
		{"1;host.", "1;" + strings.Repeat("h", MaxHost), CodeMalformed},
		{"QUI=", "QUI", CodeMalformed},
		{"QUI=", "QUJ=", CodeMalformed}, // last bits not zero
		{"QUI=", "QUI=QUI=", CodeMalformed},
		{"QUI=", "Q_I=", CodeMalformed},
		{"QUI=", "QUI\r=", CodeMalformed},
		{"QUI=", "QUI= ", CodeMalformed},
		{"QUI=", strings.Repeat("QUFB", signature.MaxText), CodeTooLarge},

		{"Compression: gzip", "Compression: brotli", CodeMalformed},
		{"Compression: gzip", "Compression: ", CodeMalformed},
		{"Compression: gzip", "Compression: gzip\nCompression: gzip", CodeMalformed},
		{"FileSize: 317", "FileSize: 317\nFileSize: 317", CodeMalformed},
		{"Compression: gzip\nFileSize: 317", "FileSize: 317\nCompression: gzip", CodeMissing},
		{"URL: nar", "Compression: gzip\nURL: nar", CodeMalformed},
		{"URL: nar", "FileSize: 1\nURL: nar", CodeMalformed},
		{"URL: nar", strings.Repeat("URL: x\nCompression: none\n", MaxFiles) + "URL: nar", CodeTooLarge},
		{url1, "", CodeMalformed},
		{url1, "/nar/x", CodeMalformed},
		{url1, "//host/x", CodeMalformed},
		{url1, "nar//x", CodeMalformed},
		{url1, "nar/", CodeMalformed},
		{url1, "../x", CodeMalformed},
		{url1, "nar/../x", CodeMalformed},
		{url1, "nar/.", CodeMalformed},
		{url1, "nar/%2e%2E/x", CodeMalformed},
		{url1, "nar/%2fx", CodeMalformed},
		{url1, "nar/%5cx", CodeMalformed},
		{url1, "nar/a\\x", CodeMalformed},
		{url1, "nar/%00", CodeMalformed},
		{url1, "nar/%c3%a9", CodeMalformed},
		{url1, "nar/%zz", CodeMalformed},
		{url1, "nar/%2", CodeMalformed},
		{url1, "nar/x?y", CodeMalformed},
		{url1, "nar/x#y", CodeMalformed},
		{url1, "nar/x y", CodeMalformed},
		{url1, "file:///etc/passwd", CodeMalformed},
		{url1, "file:/etc/passwd", CodeMalformed},
		{url1, "ftp://h/x", CodeMalformed},
		{url1, "HTTP://h/x", CodeMalformed},
		{url1, "http://h", CodeMalformed},
		{url1, "http:///x", CodeMalformed},
		{url1, "http://h/", CodeMalformed},
		{url1, "http://user@h/x", CodeMalformed},
		{url1, "http://h%41/x", CodeMalformed},
		{url1, "http://h/../x", CodeMalformed},
		{url1, strings.Repeat("x", MaxURL+1), CodeMalformed},
		{good, good + strings.Repeat(" ", MaxSize), CodeTooLarge},
	} {
		changed := strings.Replace(good, tc.old, tc.new, 1)
		if changed == good {
			t.Fatalf("no %q", tc.old)
		}
		if _, err := Parse([]byte(changed)); codeOf(t, err) != tc.code {
			t.Errorf("%.80q to %.80q: %v, want %q", tc.old, tc.new, err, tc.code)
		}
	}
	// The word Signature: before the field, where the grammar would let it through.
	early := drop("Signature")
	moved := strings.Replace(good, early, "", 1)
	moved = strings.Replace(moved, "StorePath", "URL: x/Signature:\nCompression: none\nStorePath", 1)
	moved = strings.Replace(moved, "URL: nar", early+"URL: nar", 1)
	if _, err := Parse([]byte(moved)); codeOf(t, err) != CodeMalformed {
		t.Error(err)
	}
}

func TestErrorOffset(t *testing.T) {
	_, err := Parse([]byte(strings.Replace(good, "NarSize: 1664", "NarSize: x", 1)))
	var e *Error
	if !errors.As(err, &e) || e.Offset != int64(strings.Index(good, "NarSize")) {
		t.Errorf("%v", err)
	}
	if want := `narinfo: byte 133: malformed-narinfo: NarSize "x" is not a number above zero`; err.Error() != want {
		t.Errorf("%v", err)
	}
}

// Nobody changes a signed byte, or moves one, without being noticed.
func TestTampering(t *testing.T) {
	acl := testACL(t)
	data := read(t, "cached-three-compressions.narinfo")
	end := bytes.Index(data, []byte("URL:"))
	sound, err := Verify(data, acl)
	if err != nil {
		t.Fatal(err)
	}
	value, err := sexp.Parse(sound.Signature.Text)
	if err != nil {
		t.Fatal(err)
	}
	for i := range end {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		n, err := Verify(bad, acl)
		if err != nil {
			continue
		}
		// HOST is not signed, and white space in the text of the signature
		// means nothing.
		v, err := sexp.Parse(n.Signature.Text)
		if err != nil || !v.Equal(value) || !bytes.Equal(n.Unsigned(), sound.Unsigned()) {
			t.Errorf("byte %d: %q for %q is accepted", i, bad[i], data[i])
		}
	}
	// The signature of one item does not do for another.
	n, err := Parse(read(t, "default-gzip.narinfo"))
	if err != nil {
		t.Fatal(err)
	}
	forged := read(t, "built-with-deriver.narinfo")
	forged = forged[:bytes.Index(forged, []byte("Signature: "))]
	forged = appendRest(forged, n.Signature, n.Files)
	if _, err := Verify(forged, acl); codeOf(t, err) != signature.CodeHashMismatch {
		t.Error(err)
	}
	if _, err := Verify(data, signature.ACL{}); codeOf(t, err) != signature.CodeUnauthorised {
		t.Error(err)
	}
	if _, err := Verify([]byte(good), acl); codeOf(t, err) != signature.CodeMalformed {
		t.Error(err)
	}
	// Fields that were changed after Parse change nothing that was signed.
	before := n.Unsigned()
	n.NarSize++
	if !bytes.Equal(n.Unsigned(), before) {
		t.Errorf("%s", n.Unsigned())
	}
}

// Each is signed by the right key over the right bytes, and says the same.
func TestStrict(t *testing.T) {
	k := testKey(t)
	acl := signature.NewACL(k.Public())
	n, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(n.Unsigned()), "\n")
	swapped := func(i, j int) string {
		l := slices.Clone(lines)
		l[i], l[j] = l[j], l[i]
		return strings.Join(l, "")
	}
	oneLine := func(text []byte) []byte {
		v, err := sexp.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return v.Canonical()
	}
	same := func(text []byte) []byte { return text }
	refs := strings.Fields(lines[3])
	for _, tc := range []struct {
		name, signed string
		spell        func([]byte) []byte
		code         string
		line         int64
	}{
		{"as guix publish writes it", strings.Join(lines, ""), same, "", 0},
		{"path last", swapped(0, 4), same, CodeSpelling, 0},
		{"deriver before system", swapped(4, 5), same, CodeSpelling, int64(len(strings.Join(lines[:4], "")))},
		{"references unsorted", strings.Replace(strings.Join(lines, ""), lines[3], "References: "+refs[2]+" "+refs[1]+"\n", 1), same, CodeSpelling, int64(len(strings.Join(lines[:3], "")))},
		{"signature in canonical form", strings.Join(lines, ""), oneLine, signature.CodeSpelling, 0},
	} {
		text, err := signature.Sign(k, sha256.Sum256([]byte(tc.signed)))
		if err != nil {
			t.Fatal(err)
		}
		out := appendRest([]byte(tc.signed), Signature{"host", tc.spell(text)}, n.Files)
		if _, err := Verify(out, acl); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		_, err = VerifyStrict(out, acl)
		if codeOf(t, err) != tc.code {
			t.Errorf("%s: %v in strict mode", tc.name, err)
		}
		if e, ok := err.(*Error); ok && e.Offset != tc.line {
			t.Errorf("%s: the line at byte %d is named, not that at %d", tc.name, e.Offset, tc.line)
		}
	}
}

func TestSign(t *testing.T) {
	k := testKey(t)
	path, err := storepath.ParseBase("m1ifsjhqxcvzb115va975vn4vc5v4f1r-a+b=c?d")
	if err != nil {
		t.Fatal(err)
	}
	make := func() *NarInfo {
		return &NarInfo{StorePath: path, NarHash: [32]byte{1}, NarSize: 1, System: "i686-linux",
			Files: []File{{ItemURL("nar", "zstd", path), "zstd", 7}, {ItemURL("nar", "none", path), "none", 0}}}
	}
	out, err := Sign(make(), "", k)
	if err != nil {
		t.Fatal(err)
	}
	n, err := Verify(out, signature.NewACL(k.Public()))
	if err != nil || n.Files[0].URL != "nar/zstd/m1ifsjhqxcvzb115va975vn4vc5v4f1r-a%2Bb%3Dc%3Fd" {
		t.Errorf("%v\n%s", err, out)
	}
	for name, spoil := range map[string]func(n *NarInfo){
		"no path":      func(n *NarInfo) { n.StorePath = storepath.Path{} },
		"no size":      func(n *NarInfo) { n.NarSize = 0 },
		"a size below": func(n *NarInfo) { n.NarSize = -1 },
		"no file":      func(n *NarInfo) { n.Files = nil },
		"no deriver":   func(n *NarInfo) { n.Deriver = path },
		"twice":        func(n *NarInfo) { n.References = []storepath.Path{path, path} },
		"zero ref":     func(n *NarInfo) { n.References = []storepath.Path{{}} },
		"a line":       func(n *NarInfo) { n.System = "x\nDeriver: 71srfn47sm9135lkrw596p9k7f3s5kyz-v-simple.drv" },
		"a file":       func(n *NarInfo) { n.Files[0].URL = "x\nCompression: none\nURL: y" },
		"file size":    func(n *NarInfo) { n.Files[0].FileSize = -1 },
		"compression":  func(n *NarInfo) { n.Files[0].Compression = "brotli" },
	} {
		n := make()
		spoil(n)
		if out, err := Sign(n, "", k); err == nil || out != nil {
			t.Errorf("%s: signed\n%s", name, out)
		}
	}
	for _, host := range []string{"a;b", "a b", "a\nURL: x", "a;QUI=\nURL: x\nCompression: none\nX: ", "\u00e9"} {
		if out, err := Sign(make(), host, k); err == nil {
			t.Errorf("host %q: signed\n%s", host, out)
		}
	}
	if _, err := Sign(make(), "", signature.SecretKey{}); err == nil {
		t.Error("signed without a key")
	}
}

func TestURLs(t *testing.T) {
	for _, tc := range []struct{ server, url, want string }{
		{"http://h", "nar/x", "http://h/nar/x"},
		{"http://h/", "nar/x", "http://h/nar/x"},
		{"http://h/guix/", "nar/x", "http://h/guix/nar/x"},
		{"http://h", "https://other/x", "https://other/x"},
	} {
		if got := (File{URL: tc.url}).Resolve(tc.server); got != tc.want {
			t.Errorf("%s at %s: %s", tc.url, tc.server, got)
		}
	}
	const hash = "m1ifsjhqxcvzb115va975vn4vc5v4f1r-"
	for name, escaped := range map[string]string{
		"hello-2.12_x": "hello-2.12_x",
		"gtk+-3?a=b":   "gtk%2B-3%3Fa%3Db",
		"":             "",
	} {
		if got := EscapeItem(hash + name); got != hash+escaped {
			t.Errorf("%s: %s", name, got)
		}
		if p, err := UnescapeItem(hash + escaped); err != nil || p.Name() != name {
			t.Errorf("%s: %v %v", escaped, p, err)
		}
	}
	if p, err := UnescapeItem(hash + "gtk+%2d3%3fa=b"); err != nil || p.Name() != "gtk+-3?a=b" {
		t.Errorf("%v %v", p, err)
	}
	for _, s := range []string{"", hash + "%", hash + "%2", hash + "%GG", hash + "?", hash + "%2F..", hash + "%00", hash + "/x", "x"} {
		if p, err := UnescapeItem(s); err == nil {
			t.Errorf("%q: %v", s, p)
		}
	}
}

// What parses prints back: to the same bytes if it stands in Guix's order and
// is unsigned nowhere else, else to bytes of the same meaning.
func FuzzParse(f *testing.F) {
	for _, name := range samples(f) {
		f.Add(read(f, name))
	}
	variants, err := filepath.Glob(filepath.Join(vectors, "variants", "*.narinfo"))
	if err != nil || len(variants) == 0 {
		f.Fatalf("no variants (%v)", err)
	}
	for _, file := range variants {
		f.Add(read(f, "variants/"+filepath.Base(file)))
	}
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := Parse(data)
		if err != nil {
			codeOf(t, err)
			return
		}
		if !bytes.HasPrefix(data, n.Unsigned()) || !bytes.HasPrefix(data[len(n.Unsigned()):], []byte("Signature: 1;")) {
			t.Fatalf("signed is %q", n.Unsigned())
		}
		printed := appendRest(n.appendSigned(nil), n.Signature, n.Files)
		again, err := Parse(printed)
		if err != nil {
			t.Fatalf("%q, printed as %q: %v", data, printed, err)
		}
		if twice := appendRest(again.appendSigned(nil), again.Signature, again.Files); !bytes.Equal(twice, printed) {
			t.Fatalf("%q, printed again as %q: there is no one spelling", printed, twice)
		}
		slices.SortFunc(n.References, storepath.Path.Compare)
		n.unsigned, again.unsigned = "", ""
		if !reflect.DeepEqual(n, again) {
			t.Fatalf("%q, printed as %q", data, printed)
		}
		// Both consist of the same lines, or of the same references in a line.
		a, b := bytes.Fields(data), bytes.Fields(printed)
		slices.SortFunc(a, bytes.Compare)
		slices.SortFunc(b, bytes.Compare)
		if !bytes.Equal(bytes.Join(a, []byte(" ")), bytes.Join(b, []byte(" "))) {
			t.Fatalf("%q, printed as %q", data, printed)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data := read(b, "cached-three-compressions.narinfo")
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	data, acl := read(b, "cached-three-compressions.narinfo"), testACL(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Verify(data, acl); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSign(b *testing.B) {
	n, err := Parse(read(b, "cached-three-compressions.narinfo"))
	if err != nil {
		b.Fatal(err)
	}
	k := testKey(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Sign(n, "vm", k); err != nil {
			b.Fatal(err)
		}
	}
}

// Whatever comes, memory stays in proportion to it.
func TestMemory(t *testing.T) {
	const ref = "71srfn47sm9135lkrw596p9k7f3s5kyz-"
	var refs strings.Builder
	for i := range MaxReferences {
		fmt.Fprintf(&refs, "%s%d ", ref, i)
	}
	for name, text := range map[string]string{
		"references":          strings.Replace(good, "References: ", "References: "+refs.String(), 1),
		"too many references": strings.Replace(good, "References: ", "References: "+strings.Repeat(" ", 1<<19), 1),
		"files":               good + strings.Repeat("URL: a\nCompression: none\n", 1<<14),
		"a signature":         strings.Replace(good, "QUI=", strings.Repeat("QUIA", 1<<17), 1),
		"a line":              strings.Repeat("x", MaxSize),
		"fields":              strings.Repeat("x: y\n", MaxSize/5),
	} {
		data := []byte(text)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Parse(data)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 4096+uint64(len(data))*10 {
			t.Errorf("%s: %d bytes for %d of input (%v)", name, used, len(data), err)
		}
	}
}
