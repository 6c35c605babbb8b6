//go:build peer

package peer

import (
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"sallyport/guix/storepath"
)

var random = crand.Reader

func sorted(paths []storepath.Path) []storepath.Path {
	paths = slices.Clone(paths)
	slices.SortFunc(paths, storepath.Path.Compare)
	return slices.Compact(paths)
}

// A forest grows random trees: odd names, modes, links, empty things, deep things, large things. The same seed grows the same forest.
type forest struct {
	*rand.Rand
	bytes bool // names may be bytes that are no UTF-8: Guile cannot name such a file
	limit int  // nodes left for the tree
	left  int  // bytes left for the forest's large files
}

func newForest(seed uint64, large int) *forest {
	return &forest{Rand: rand.New(rand.NewPCG(seed, 0x5a11)), left: large}
}

var letters = []string{
	"a", "b", "A", "B", "z", "0", "9", "-", "--", ".", "..", " ", "  ", "\t", "\n", "\r", "\x01", "\x1b[31m", "\x7f", "~", "#", "%", "%2F", "\\", "'", "\"", "`", "$", "*", "?", "[", "(", ")", "<", "|", "&", ";", ":", ",", "=", "+", "@", "!", "^", "{", "}",
	"é", "e\u0301", "ß", "İ", "ı", "ſ", "K", "ﬁ", "日本", "한", "\u1112\u1161", "\u202e", "\u200b", "\ufeff", "\u00a0", "\u0085", "\u2028", "🜁", "𐀀", "\U0010fffd", "\uffff", "\ue000", "\ufffd",
}

var fixedNames = []string{
	"(", ")", "type", "entry", "name", "node", "contents", "executable", "directory", "regular", "symlink", "target", "nix-archive-1", // tokens of the format
	"-", "-n", "--help", ".git", ".hidden", "...", ".. ", "CON", "nul.txt", "~", "*", "\n", " ", "a:b", "A", "a",
}

func (f *forest) name() string {
	var s string
	switch n := f.IntN(20); {
	case n < 5:
		s = fixedNames[f.IntN(len(fixedNames))]
	case n == 5: // as long as can be
		for len(s) < 255 {
			if l := letters[f.IntN(len(letters))]; len(s)+len(l) <= 255 {
				s += l
			}
		}
	case n == 6 && f.bytes:
		b := make([]byte, 1+f.IntN(20))
		for i := range b {
			for b[i] = byte(f.IntN(256)); b[i] == 0 || b[i] == '/'; {
				b[i] = byte(f.IntN(256))
			}
		}
		s = string(b)
	default:
		for range 1 + f.IntN(6) {
			s += letters[f.IntN(len(letters))]
		}
	}
	if s == "." || s == ".." {
		return s + "x"
	}
	if !f.bytes && !utf8.ValidString(s) {
		panic("a name that is no UTF-8: " + s)
	}
	return s
}

var sizes = []int{0, 0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 511, 4095, 4096, 4097, 32767, 32768, 65535, 65536, 65537, 131073}

var modes = []os.FileMode{0o644, 0o755, 0o444, 0o555, 0o600, 0o700, 0o100, 0, 0o077, 0o011, 0o111, 0o666, 0o777, 0o400, 0o200, 0o655}

// grow makes a tree at path, which does not exist.
func (f *forest) grow(t *testing.T, path string) {
	t.Helper()
	f.limit = 1 + f.IntN(60)
	var err error
	switch n := f.IntN(50); {
	case n < 3:
		err = f.file(path)
	case n < 5:
		err = f.link(path)
	case n < 7: // a chain: deep, and little else
		err = f.chain(path, 20+f.IntN(400))
	case n == 7: // a crowd in one place
		f.limit = 2000
		err = f.crowd(path, 1000)
	default:
		err = f.directory(path, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f *forest) node(path string, depth int) error {
	f.limit--
	switch n := f.IntN(10); {
	case n < 3 && depth < 12 && len(path) < 3000:
		return f.directory(path, depth+1)
	case n < 5:
		return f.link(path)
	default:
		return f.file(path)
	}
}

func (f *forest) directory(path string, depth int) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return f.fill(path, f.IntN(12), depth)
}

func (f *forest) crowd(path string, n int) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	return f.fill(path, n, 12)
}

func (f *forest) fill(path string, n, depth int) error {
	var last string
	for i := 0; i < n && f.limit > 0; i++ {
		child := filepath.Join(path, f.name())
		if _, err := os.Lstat(child); err == nil {
			continue
		}
		if last != "" && f.IntN(12) == 0 { // a hard link is a file like any other
			if err := os.Link(last, child); err != nil {
				return err
			}
			continue
		}
		if err := f.node(child, depth); err != nil {
			return err
		}
		if st, err := os.Lstat(child); err == nil && st.Mode().IsRegular() {
			last = child
		}
	}
	// Modes of directories say nothing, as long as root reads them.
	return syscall.Chmod(path, []uint32{0o755, 0o700, 0o555, 0o1777, 0o2755, 0, 0o111}[f.IntN(7)])
}

func (f *forest) chain(path string, depth int) error {
	for range depth {
		if len(path) > 3500 { // other people's programs use whole names, of which the kernel takes 4,095 bytes
			break
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
		path = filepath.Join(path, string(rune('a'+f.IntN(26))))
	}
	return f.file(path)
}

func (f *forest) link(path string) error {
	var target string
	switch f.IntN(8) {
	case 0:
		target = "/gnu/store/" + f.name()
	case 1:
		target = "../../../../" + f.name()
	case 2:
		target = filepath.Base(path) // to itself
	case 3:
		target = strings.Repeat("x/", 2000) + "y" // 4,001 bytes
	case 4:
		target = "."
	case 5:
		target = "//" + f.name() + "//"
	default:
		target = f.name()
	}
	return os.Symlink(target, path)
}

func (f *forest) file(path string) error {
	size := sizes[f.IntN(len(sizes))]
	if f.IntN(200) == 0 {
		size = 1<<20 + f.IntN(8<<20)
	}
	if size > 4096 {
		if size > f.left {
			size = f.IntN(64)
		}
		f.left -= size
	}
	data := make([]byte, size)
	for i := 0; i < size; i += 8 {
		v := f.Uint64()
		for j := i; j < min(i+8, size); j++ {
			data[j] = byte(v)
			v >>= 8
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return err
	}
	mode := uint32(modes[f.IntN(len(modes))])
	if f.IntN(10) == 0 {
		mode |= []uint32{syscall.S_ISUID, syscall.S_ISGID, syscall.S_ISVTX}[f.IntN(3)]
	}
	return syscall.Chmod(path, mode)
}

// plant grows n trees in a folder and returns their names there.
func (f *forest) plant(t *testing.T, in folder, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("tree-%04d", i)
		f.grow(t, filepath.Join(in.host, names[i]))
	}
	return names
}
