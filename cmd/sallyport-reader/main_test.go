package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/guix/nar"
	"sallyport/internal/confine"
)

// The test binary is the reader when it is started as one.
func TestMain(m *testing.M) {
	if len(os.Args) == 1 && os.Args[0] == confine.Program {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func start(t testing.TB) *confine.Child {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := confine.Start(t.Context(), confine.Options{Path: path})
	var f *confine.FeatureError
	if errors.As(err, &f) {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", f)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// tree makes a nar of files, by path; a value that begins with "->" is a link, and one of "/" a folder.
func tree(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	put := func(h *nar.Header, data string) {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Type == nar.Regular {
			if _, err := io.WriteString(w, data); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(&nar.Header{Type: nar.Directory}, "")
	folders := map[string]bool{}
	for _, p := range slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	}) {
		for i, c := range p {
			if c == '/' && !folders[p[:i]] {
				folders[p[:i]] = true
				put(&nar.Header{Path: p[:i], Type: nar.Directory}, "")
			}
		}
		if target, ok := strings.CutPrefix(files[p], "->"); ok {
			put(&nar.Header{Path: p, Type: nar.Symlink, Target: target}, "")
			continue
		}
		put(&nar.Header{Path: p, Type: nar.Regular, Size: int64(len(files[p]))}, files[p])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func judge(t testing.TB, c *confine.Child, kind, name string, data []byte) *confine.Report {
	t.Helper()
	r, err := c.Judge(t.Context(), confine.Request{Kind: kind, Name: name, Size: int64(len(data))}, bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%s %s: %v", kind, name, err)
	}
	return r
}

// One child reads good and bad items in turn, and each answer is about its own item.
func TestItemsInTurn(t *testing.T) {
	c := start(t)
	good := tree(t, map[string]string{"src/main.c": "int main() { return 0; }\n", "README": "hello\n"})
	trojan := tree(t, map[string]string{"src/main.c": "/* \u202e } \u2066 if (admin) */\n", "src/out": "->../../../etc/passwd", "bin/x": "\x7fELF\x02\x01\x01\x00"})
	drv, err := os.ReadFile(filepath.Join("..", "..", "vectors", "builds", "drv", "71srfn47sm9135lkrw596p9k7f3s5kyz-v-simple.drv"))
	if err != nil {
		drv = []byte(`Derive([("out","/gnu/store/7bj9z2rm5lvvvdq8kfbvfsh1nwcqxgjb-x","","")],[],["/gnu/store/dq5v0c8jpcv3sgbvrcnswqlc6djcyxcv-y"],"x86_64-linux","/bin/sh",[],[("out","/gnu/store/7bj9z2rm5lvvvdq8kfbvfsh1nwcqxgjb-x")])`)
	}
	for range 3 {
		if r := judge(t, c, confine.KindNar, "good", good); len(r.Findings)+len(r.Refusals) != 0 || r.Files != 2 || r.Bytes != 31 {
			t.Fatalf("good: %+v", r)
		}
		r := judge(t, c, confine.KindNar, "trojan", trojan)
		var got []string
		for _, f := range r.Findings {
			got = append(got, f.Severity+" "+f.Rule+" "+strings.Join(f.Examples, ","))
		}
		want := []string{"block bidi-unterminated src/main.c:1", "high bidi-control src/main.c:1", "high executable bin/x", "review symlink-outside src/out"}
		if !slices.Equal(got, want) || len(r.Refusals) != 0 {
			t.Fatalf("trojan: %q, want %q; %v", got, want, r.Refusals)
		}
		for _, cut := range []int{0, 1, 24, len(good) / 2, len(good) - 1} {
			if r := judge(t, c, confine.KindNar, "cut", good[:cut]); len(r.Refusals) != 1 || r.Refusals[0].Code != "nar-truncated" && r.Refusals[0].Code != "nar-magic" {
				t.Fatalf("cut at %d: %+v", cut, r)
			}
		}
		if r := judge(t, c, confine.KindNar, "trailing", append(slices.Clone(good), make([]byte, 100<<10)...)); len(r.Refusals) != 1 || r.Refusals[0].Code != "nar-trailing" || r.Refusals[0].Offset != int64(len(good)) {
			t.Fatalf("trailing: %+v", r)
		}
		if r := judge(t, c, confine.KindNar, "noise", bytes.Repeat([]byte{7}, 1<<20)); len(r.Refusals) != 1 {
			t.Fatalf("noise: %+v", r)
		}
		if r := judge(t, c, confine.KindDerivation, "x.drv", drv); r.Derivation == nil || r.Derivation.System != "x86_64-linux" || !bytes.Equal(r.Derivation.Bytes(), drv) {
			t.Fatalf("derivation: %+v", r)
		}
		if r := judge(t, c, confine.KindDerivation, "x.drv", drv[:len(drv)-1]); r.Derivation != nil || len(r.Refusals) != 1 || r.Refusals[0].Code != "drv-truncated" {
			t.Fatalf("cut derivation: %+v", r)
		}
		if r := judge(t, c, confine.KindFlat, "x-1.0.tar.gz", []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00")); len(r.Findings) != 1 || r.Findings[0].Rule != "archive-not-opened" || r.Findings[0].Severity != confine.Review {
			t.Fatalf("archive: %+v", r)
		}
	}
}

// A name can hold anything but a slash and NUL; what is told of it is printable.
func TestHostileNames(t *testing.T) {
	c := start(t)
	r := judge(t, c, confine.KindNar, "x", tree(t, map[string]string{"a\x1b[2J": "", "b\u202e.c": "", "\xff": "", `c\d`: "", "E": "", "e": ""}))
	var got []string
	for _, f := range r.Findings {
		got = append(got, fmt.Sprint(f.Severity, " ", f.Rule, " ", f.Examples))
	}
	want := []string{`block name-control [a\x1b[2J \xff]`, `high name-backslash [c\\d]`, `high name-case [e]`, `high name-unicode [b\u202e.c]`}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// More findings than there is room for are told in fewer lines, not dropped and not a failure.
func TestManyFindings(t *testing.T) {
	c := start(t)
	files := map[string]string{}
	for i := range 6000 {
		files[fmt.Sprintf("d%d/x", i)] = "\x7fELF\x02\x01\x01\x00"
	}
	r := judge(t, c, confine.KindNar, "many", tree(t, files))
	var n int64
	for _, f := range r.Findings {
		n += f.Count
	}
	if n != 6000 || len(r.Refusals) != 0 || len(r.Findings) > confine.MaxFindings {
		t.Errorf("%d findings about %d files, refusals %v", len(r.Findings), n, r.Refusals)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestBoundedMemory(t *testing.T) {
	c := start(t)
	const size = 1 << 30
	archive, w := io.Pipe()
	go func() {
		w.CloseWithError(nar.WriteFile(w, size, false, zeros{}))
	}()
	begun := time.Now()
	r, err := c.Judge(t.Context(), confine.Request{Kind: confine.KindNar, Name: "zeros", Size: nar.FileSize(size)}, archive)
	if err != nil || r.Bytes != size || len(r.Refusals) != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Logf("%.0f MB/s", size/1e6/time.Since(begun).Seconds())
	// The peak of the child, which is the only one.
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, task := range tasks {
		data, _ := os.ReadFile(task)
		for pid := range strings.FieldsSeq(string(data)) {
			status, err := os.ReadFile("/proc/" + pid + "/status")
			if err != nil {
				t.Fatal(err)
			}
			_, after, _ := strings.Cut(string(status), "VmHWM:")
			kb, err := strconv.Atoi(strings.Fields(after)[0])
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("peak %d KiB", kb)
			if seen = true; kb > 48<<10 {
				t.Errorf("the child used %d KiB for a file of 1 GiB", kb)
			}
		}
	}
	if !seen {
		t.Skip("SKIPPED AT THE END: the kernel does not list children (CONFIG_PROC_CHILDREN), so the memory was not measured")
	}
}

// What the reader links, beyond the standard library's innermost packages, and why. A new line here is code that hostile bytes may reach.
var linked = map[string]string{
	"sallyport/cmd/sallyport-reader":   "itself",
	"sallyport/guix/derivation":        "parser of .drv files",
	"sallyport/guix/nar":               "parser of nars",
	"sallyport/guix/storepath":         "store paths in both",
	"sallyport/internal/confine":       "confinement and protocol",
	"sallyport/internal/judge/inspect": "the rules",

	"github.com/elastic/go-seccomp-bpf":               "compiles the system call filter, before anything is read",
	"github.com/elastic/go-seccomp-bpf/arch":          "numbers of system calls",
	"github.com/elastic/go-seccomp-bpf/internal/unix": "its constants",
	"golang.org/x/net/bpf":                            "assembler of the filter; nothing else of x/net",
	"golang.org/x/sys/unix":                           "system calls of the confinement",

	"bufio":           "protocol",
	"bytes":           "",
	"cmp":             "",
	"container/heap":  "order of derivations",
	"context":         "parent's side of package confine",
	"crypto":          "through crypto/sha256",
	"crypto/cipher":   "through crypto/sha256",
	"crypto/fips140":  "through crypto/sha256",
	"crypto/sha256":   "store paths",
	"crypto/subtle":   "through crypto/sha256",
	"encoding":        "through encoding/json",
	"encoding/base64": "through encoding/json",
	"encoding/binary": "lengths in nars",
	"encoding/hex":    "hashes in derivations",
	"encoding/json":   "protocol",
	"errors":          "",
	"fmt":             "",
	"hash":            "",
	"hash/maphash":    "names compared by letter case",
	"io":              "",
	"io/fs":           "",
	"iter":            "",
	"math":            "entropy",
	"math/bits":       "",
	"os":              "standard input and output, starting",
	"path":            "",
	"path/filepath":   "parent's side of package confine",
	"reflect":         "through encoding/json",
	"regexp":          "build script rules, on one line at a time",
	"regexp/syntax":   "through regexp",
	"runtime":         "",
	"runtime/debug":   "memory and thread limits",
	"slices":          "",
	"sort":            "",
	"strconv":         "",
	"strings":         "",
	"sync":            "",
	"sync/atomic":     "",
	"syscall":         "",
	"time":            "",
	"unicode":         "",
	"unicode/utf16":   "through encoding/json",
	"unicode/utf8":    "",
	"unsafe":          "",
}

func TestLinked(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOPROXY=off")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: go list: %v; run the tests where the Go command is", err)
	}
	n := 0
	for p := range strings.FieldsSeq(string(out)) {
		n++
		if _, ok := linked[p]; ok {
			continue
		}
		// The standard library's own internals come with the packages above.
		if first, _, _ := strings.Cut(p, "/"); first == "internal" || strings.HasPrefix(p, "crypto/internal/") || strings.HasPrefix(p, "runtime/internal/") || strings.HasPrefix(p, "vendor/golang.org/x/") && strings.Contains(p, "/internal/") {
			continue
		}
		why, _ := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{$p := .ImportPath}}{{range .Imports}}{{if eq . \""+p+"\"}}{{$p}} {{end}}{{end}}{{end}}", ".").Output()
		t.Errorf("the reader links %s (imported by %s): give the reason in this test, or do without", p, strings.Join(strings.Fields(string(why)), " "))
	}
	if n < 30 {
		t.Errorf("go list named only %d packages", n)
	}
}

// Honest software is not blocked. The corpus is what every developer of this project has: the Go tree and the modules it is built from.
func TestHonestCorpus(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: reads the whole Go tree; run without -short")
	}
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: go env: %v; run the tests where the Go command is", err)
	}
	where := strings.Fields(string(out))
	trees := map[string]string{"go": where[0]}
	for _, m := range []string{"modernc.org/libc", "modernc.org/sqlite", "golang.org/x/sys", "golang.org/x/net"} {
		if found, _ := filepath.Glob(filepath.Join(where[1], filepath.FromSlash(m)+"@*")); len(found) > 0 {
			trees[m] = found[len(found)-1]
		}
	}
	c := start(t)
	for name, dir := range trees {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_, size, err := nar.Sum(root.FS(), ".")
		if err != nil {
			t.Fatal(err)
		}
		archive, w := io.Pipe()
		go func() { w.CloseWithError(nar.Dump(w, root.FS(), ".")) }()
		begun := time.Now()
		r, err := c.Judge(t.Context(), confine.Request{Kind: confine.KindNar, Name: name, Size: size}, archive)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		took := time.Since(begun)
		if len(r.Refusals) > 0 || r.Files == 0 {
			t.Errorf("%s: %d files, refusals %v", name, r.Files, r.Refusals)
		}
		summary := map[string]int64{}
		for _, f := range r.Findings {
			summary[f.Severity+" "+f.Rule] += f.Count
			if f.Severity == confine.Block {
				t.Errorf("%s: honest code is blocked: %+v", name, f)
			}
			if f.Severity == confine.High {
				t.Logf("%s: %+v", name, f)
			}
		}
		t.Logf("%s: %d files, %d bytes in %v (%.0f MB/s, %d cores): %s", name, r.Files, r.Bytes, took.Round(time.Millisecond), float64(r.Bytes)/1e6/took.Seconds(), runtime.GOMAXPROCS(0), sorted(summary))
	}
}

func sorted(m map[string]int64) string {
	var s []string
	for _, k := range slices.SortedFunc(maps.Keys(m), cmp.Compare) {
		s = append(s, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(s, ", ")
}
