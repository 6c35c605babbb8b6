package nar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

// str is str(s) of the grammar, written apart from the package.
func str(s string) string {
	return word(uint64(len(s))) + s + strings.Repeat("\x00", (8-len(s)%8)%8)
}

func word(n uint64) string {
	return string(binary.LittleEndian.AppendUint64(nil, n))
}

func strs(words ...string) string {
	var b strings.Builder
	for _, w := range words {
		b.WriteString(str(w))
	}
	return b.String()
}

var (
	magic   = str("nix-archive-1")
	dirHead = magic + strs("(", "type", "directory")
	fileX   = strs("(", "type", "regular", "contents", "x", ")")
	mark    = "<<HERE>>"
)

func entry(name, node string) string {
	return strs("entry", "(", "name", name, "node") + node + str(")")
}

func link(target string) string {
	return strs("(", "type", "symlink", "target", target, ")")
}

func dir(entries ...string) string {
	return strs("(", "type", "directory") + strings.Join(entries, "") + str(")")
}

// A hostileCase is an archive with one fault; mark stands where it lies.
type hostileCase struct {
	name, code, archive string
}

func (c hostileCase) bytes(t testing.TB) (archive string, offset int64) {
	at := strings.Index(c.archive, mark)
	if at < 0 || strings.Count(c.archive, mark) != 1 {
		t.Fatalf("%s: needs one mark", c.name)
	}
	return c.archive[:at] + c.archive[at+len(mark):], int64(at)
}

func hostileCases() []hostileCase {
	long := strings.Repeat("n", 256)
	cases := []hostileCase{
		// the beginning
		{"empty", CodeTruncated, mark},
		{"not a nar", CodeMagic, mark + "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"seven bytes of something", CodeMagic, mark + "#!/bin/"},
		{"version 2", CodeMagic, mark + strs("nix-archive-2", "(", "type", "directory", ")")},
		{"magic of 2^63 bytes", CodeMagic, mark + word(1<<63) + "nix-archive-1\x00\x00\x00" + fileX},
		{"magic padding", CodePadding, word(13) + "nix-archive-1" + mark + "\x01\x00\x00" + fileX},
		{"export stream", CodeMagic, mark + word(1) + magic + fileX},
		{"no node", CodeToken, magic + mark + strs(")", "type", "directory", ")")},
		{"no parenthesis", CodeToken, magic + mark + strs("type", "directory")},

		// nodes
		{"no type", CodeToken, magic + str("(") + mark + strs("contents", "x", ")")},
		{"empty node", CodeToken, magic + str("(") + mark + strs(")", ")", ")", ")")},
		{"empty type", CodeType, magic + strs("(", "type") + mark + strs("", ")", ")", ")")},
		{"type )", CodeType, magic + strs("(", "type") + mark + strs(")", ")", ")", ")")},
		{"type device", CodeType, magic + strs("(", "type") + mark + strs("device", ")", ")", ")")},
		{"type Regular", CodeType, magic + strs("(", "type") + mark + strs("Regular", "contents", "x", ")")},
		{"type of an entry )", CodeType, dirHead + strs("entry", "(", "name", "a", "node", "(", "type") + mark + strs(")", ")", ")", ")", ")", ")")},
		{"type with NUL", CodeType, magic + strs("(", "type") + mark + strs("regular\x00", "contents", "x", ")")},
		{"two types", CodeToken, magic + strs("(", "type", "regular") + mark + strs("type", "directory", ")")},
		{"type padding", CodePadding, magic + strs("(", "type") + word(7) + "regular" + mark + "\x01" + strs("contents", "x", ")")},
		{"directory padding", CodePadding, magic + strs("(", "type") + word(9) + "directory\x00\x00\x00" + mark + "\x01\x00\x00\x00" + str(")")},
		{"parenthesis padding", CodePadding, magic + word(1) + "(" + mark + "\xff\x00\x00\x00\x00\x00\x00" + strs("type", "directory", ")")},
		{"last padding", CodePadding, dirHead + word(1) + ")\x00\x00\x00\x00\x00\x00" + mark + "\x01"},

		// regular files
		{"no contents", CodeToken, magic + strs("(", "type", "regular") + mark + strs(")", ")")},
		{"contents twice", CodeToken, magic + strs("(", "type", "regular", "contents", "x") + mark + strs("contents", "y", ")")},
		{"executable with a value", CodeExecutable, magic + strs("(", "type", "regular", "executable") + mark + strs("yes", "contents", "x", ")")},
		{"executable after contents", CodeToken, magic + strs("(", "type", "regular", "contents", "x") + mark + strs("executable", "", ")")},
		{"executable twice", CodeToken, magic + strs("(", "type", "regular", "executable", "") + mark + strs("executable", "", "contents", "x", ")")},
		{"executable without value", CodeExecutable, magic + strs("(", "type", "regular", "executable") + mark + strs("contents", "x", ")")},
		{"entries in a file", CodeToken, magic + strs("(", "type", "regular") + mark + entry("a", fileX) + str(")")},
		{"target in a file", CodeToken, magic + strs("(", "type", "regular") + mark + strs("target", "x", ")")},
		{"contents of 2^63 bytes", CodeSize, magic + strs("(", "type", "regular", "contents") + mark + word(1<<63)},
		{"contents of 2^64-1 bytes", CodeSize, magic + strs("(", "type", "regular", "contents") + mark + word(1<<64-1)},
		{"contents of 2^64-8 bytes", CodeSize, magic + strs("(", "type", "regular", "contents") + mark + word(1<<64-8) + strs("x", ")")},
		{"contents that end at 2^63", CodeSize, magic + strs("(", "type", "regular", "contents") + mark + word(1<<63-100)},
		{"contents of 2^62 bytes", CodeTruncated, magic + strs("(", "type", "regular", "contents") + word(1<<62) + "xxxxxxxx" + mark},
		{"contents padding", CodePadding, magic + strs("(", "type", "regular", "contents") + word(1) + "x" + mark + "y\x00\x00\x00\x00\x00\x00" + str(")")},
		{"contents padding at its end", CodePadding, magic + strs("(", "type", "regular", "contents") + word(1) + "x\x00\x00\x00\x00\x00\x00" + mark + "\x80" + str(")")},

		// links
		{"link without target", CodeToken, magic + strs("(", "type", "symlink") + mark + strs(")", ")", ")", ")")},
		{"link with contents", CodeToken, magic + strs("(", "type", "symlink") + mark + strs("contents", "x", ")", ")")},
		{"empty target", CodeTarget, magic + strs("(", "type", "symlink", "target") + mark + strs("", ")", ")")},
		{"target with NUL", CodeTarget, magic + strs("(", "type", "symlink", "target") + mark + strs("a\x00b", ")")},
		{"target of 4096 bytes", CodeLength, magic + strs("(", "type", "symlink", "target") + mark + strs(strings.Repeat("t", 4096), ")")},
		{"target of 2^32+1 bytes", CodeLength, magic + strs("(", "type", "symlink", "target") + mark + word(1<<32+1) + "t\x00\x00\x00\x00\x00\x00\x00" + str(")")},
		{"target padding", CodePadding, magic + strs("(", "type", "symlink", "target") + word(1) + "t\x00\x00" + mark + "\x01\x00\x00\x00\x00" + str(")")},
		{"two targets", CodeToken, magic + strs("(", "type", "symlink", "target", "a") + mark + strs("target", "b", ")")},
		{"executable link", CodeToken, magic + strs("(", "type", "symlink") + mark + strs("executable", "", "target", "b", ")")},

		// directories
		{"contents in a directory", CodeToken, dirHead + mark + strs("contents", "x", ")")},
		{"entry of nothing", CodeToken, dirHead + strs("entry", "(") + mark + strs(")", ")", ")", ")", ")", ")", ")", ")")},
		{"entry without name", CodeToken, dirHead + strs("entry", "(") + mark + str("node") + fileX + strs(")", ")", ")")},
		{"entry without node", CodeToken, dirHead + strs("entry", "(", "name", "a") + mark + strs(")", ")", ")", ")", ")", ")", ")")},
		{"entry with two names", CodeToken, dirHead + strs("entry", "(", "name", "a") + mark + strs("name", "b", "node") + fileX + strs(")", ")")},
		{"entry with two nodes", CodeToken, dirHead + strs("entry", "(", "name", "a", "node") + fileX + mark + str("node") + fileX + strs(")", ")")},
		{"entry not closed", CodeToken, dirHead + strs("entry", "(", "name", "a", "node") + fileX + mark + entry("b", fileX) + strs(")", ")")},
		{"entry of a directory not closed", CodeToken, dirHead + strs("entry", "(", "name", "a", "node") + dir() + mark + entry("b", fileX) + strs(")", ")")},
		{"word instead of entry", CodeToken, dirHead + mark + strs("Entry", "(", "name", "a", "node") + fileX + strs(")", ")")},
		{"entry of 2^32+5 bytes", CodeLength, dirHead + mark + word(1<<32+5) + "entry\x00\x00\x00" + strs("(", "name", "a", "node") + fileX + strs(")", ")")},
		{"entry padding", CodePadding, dirHead + word(5) + "entry" + mark + "\x00\x00\x01"[2:] + "\x00\x00" + strs("(", "name", "a", "node") + fileX + strs(")", ")")},

		// names
		{"empty name", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("", "node") + fileX + strs(")", ")")},
		{"name .", CodeName, dirHead + strs("entry", "(", "name") + mark + strs(".", "node") + fileX + strs(")", ")")},
		{"name ..", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("..", "node") + fileX + strs(")", ")")},
		{"name with slash", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("a/b", "node") + fileX + strs(")", ")")},
		{"absolute name", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("/etc", "node") + fileX + strs(")", ")")},
		{"name ../x", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("../x", "node") + fileX + strs(")", ")")},
		{"name with NUL", CodeName, dirHead + strs("entry", "(", "name") + mark + strs("a\x00", "node") + fileX + strs(")", ")")},
		{"name of 256 bytes", CodeLength, dirHead + strs("entry", "(", "name") + mark + strs(long, "node") + fileX + strs(")", ")")},
		{"name of 2^32 bytes", CodeLength, dirHead + strs("entry", "(", "name") + mark + word(1<<32) + strs("node") + fileX + strs(")", ")")},
		{"name of 2^32+1 bytes", CodeLength, dirHead + strs("entry", "(", "name") + mark + word(1<<32+1) + "a\x00\x00\x00\x00\x00\x00\x00" + strs("node") + fileX + strs(")", ")")},
		{"name of 2^64-1 bytes", CodeLength, dirHead + strs("entry", "(", "name") + mark + word(1<<64-1) + strs("a", "node") + fileX + strs(")", ")")},
		{"name padding", CodePadding, dirHead + strs("entry", "(", "name") + word(1) + "a" + mark + "b\x00\x00\x00\x00\x00\x00" + strs("node") + fileX + strs(")", ")")},
		{"name twice", CodeDuplicate, dirHead + entry("a", fileX) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"link and then file of a name", CodeDuplicate, dirHead + entry("a", link("/tmp/x")) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"link and then directory of a name", CodeDuplicate, dirHead + entry("a", link("..")) + strs("entry", "(", "name") + mark + strs("a", "node") + dir(entry("x", fileX)) + strs(")", ")")},
		{"names out of order", CodeOrder, dirHead + entry("b", fileX) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"order after a directory", CodeOrder, dirHead + entry("b", dir(entry("z", fileX))) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"name twice around a directory", CodeDuplicate, dirHead + entry("b", dir(entry("a", fileX))) + strs("entry", "(", "name") + mark + strs("b", "node") + fileX + strs(")", ")")},
		{"order as signed bytes", CodeOrder, dirHead + entry("\xff", fileX) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"order as UTF-16", CodeOrder, dirHead + entry("\U0001F600", fileX) + strs("entry", "(", "name") + mark + strs("\uFFFF", "node") + fileX + strs(")", ")")},
		{"order of a prefix", CodeOrder, dirHead + entry("ab", fileX) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},

		// An entry named ")" is fine; readers for which a word and a value are one
		// variable end there. The fault comes after it.
		{"name ) hides what follows", CodeOrder, dirHead + entry(")", fileX) + entry("b", fileX) + strs("entry", "(", "name") + mark + strs("a", "node") + fileX + strs(")", ")")},
		{"target ) hides what follows", CodeToken, dirHead + entry("a", link(")")) + mark + strs("x", ")")},
		{"contents ) hide what follows", CodeToken, dirHead + entry("a", strs("(", "type", "regular", "contents", ")", ")")) + mark + strs("x", ")")},
	}

	deep := func(n int) string {
		open := strs("entry", "(", "name", "d", "node", "(", "type", "directory")
		return dirHead + strings.Repeat(open, n) + mark + strings.Repeat(open, 10)
	}
	cases = append(cases, hostileCase{"too deep", CodeDepth, deep(MaxDepth)})

	step := strs("entry", "(", "name", strings.Repeat("d", 255), "node", "(", "type", "directory")
	cases = append(cases,
		hostileCase{"path of 4096 bytes", CodePath, dirHead + strings.Repeat(step, 16) + mark + step},
		hostileCase{"path of 4097 bytes", CodePath, dirHead + strings.Repeat(step, 15) +
			strs("entry", "(", "name", strings.Repeat("d", 254), "node", "(", "type", "directory") + mark + step})
	return cases
}

// readAll reads an archive to its end, contents included.
func readAll(r io.Reader) error {
	z := NewReader(r)
	buf := make([]byte, 4096)
	for {
		h, err := z.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{z}, buf)
		if err != nil {
			return err
		}
		if n != h.Size {
			return fmt.Errorf("%d bytes of %d", n, h.Size)
		}
	}
}

// readers are the ways an archive is read: every one has to come to the same verdict.
var readers = []struct {
	name string
	read func(r io.Reader) error
}{
	{"all", readAll},
	{"skip", func(r io.Reader) error {
		for _, err := range Entries(r) {
			if err != nil {
				return err
			}
		}
		return nil
	}},
	{"list", func(r io.Reader) error { _, err := List(r); return err }},
	{"write-to", func(r io.Reader) error {
		z := NewReader(r)
		for {
			if _, err := z.Next(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			if _, err := z.WriteTo(io.Discard); err != nil {
				return err
			}
		}
	}},
	{"byte by byte", func(r io.Reader) error { return readAll(iotest.OneByteReader(r)) }},
	{"end with data", func(r io.Reader) error { return readAll(iotest.DataErrReader(r)) }},
}

func TestHostile(t *testing.T) {
	for _, c := range hostileCases() {
		t.Run(c.name, func(t *testing.T) {
			archive, offset := c.bytes(t)
			for _, r := range readers {
				err := r.read(strings.NewReader(archive))
				var e *Error
				if !errors.As(err, &e) {
					t.Errorf("%s: got %v, want an *Error", r.name, err)
					continue
				}
				if e.Code != c.code || e.Offset != offset {
					t.Errorf("%s: got %s at %d (%v), want %s at %d", r.name, e.Code, e.Offset, e, c.code, offset)
				}
			}
		})
	}
}

// Every fault is refused by Restore, and leaves nothing behind.
func TestHostileRestore(t *testing.T) {
	for _, c := range hostileCases() {
		t.Run(c.name, func(t *testing.T) {
			archive, _ := c.bytes(t)
			base := t.TempDir()
			if err := os.Mkdir(filepath.Join(base, "in"), 0o700); err != nil {
				t.Fatal(err)
			}
			root := openRoot(t, filepath.Join(base, "in"))
			err := Restore(root, "x", strings.NewReader(archive))
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			for _, d := range []string{base, filepath.Join(base, "in")} {
				list, err := os.ReadDir(d)
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range list {
					if f.Name() != "in" {
						t.Errorf("%s is left in %s", f.Name(), d)
					}
				}
			}
		})
	}
}

func TestHostileVectors(t *testing.T) {
	want := map[string]Error{
		"restore-escape-dotdot.rawnar":  {Offset: 128, Code: CodeName},
		"restore-escape-symlink.rawnar": {Offset: 328, Code: CodeDuplicate},
	}
	files, _ := filepath.Glob("../../vectors/nars-hostile/*.rawnar")
	if len(files) != len(want) {
		t.Fatalf("found %d vectors, want %d", len(files), len(want))
	}
	for _, f := range files {
		archive, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		w := want[filepath.Base(f)]
		for _, r := range readers {
			var e *Error
			if err := r.read(bytes.NewReader(archive)); !errors.As(err, &e) || e.Code != w.Code || e.Offset != w.Offset {
				t.Errorf("%s: %s: got %v, want %s at %d", f, r.name, err, w.Code, w.Offset)
			}
		}
		base := t.TempDir()
		if err := Restore(openRoot(t, base), "x", bytes.NewReader(archive)); err == nil {
			t.Errorf("%s: restored", f)
		}
		if list, _ := os.ReadDir(base); len(list) != 0 {
			t.Errorf("%s: left %v", f, list)
		}
	}
}

// An archive cut anywhere is truncated, there and nowhere else.
func TestTruncated(t *testing.T) {
	whole := sample(t)
	for n := range whole {
		for _, r := range readers {
			var e *Error
			err := r.read(bytes.NewReader(whole[:n]))
			if !errors.As(err, &e) || e.Code != CodeTruncated || e.Offset != int64(n) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: cut at %d: got %v", r.name, n, err)
			}
		}
	}
	for _, r := range readers {
		if err := r.read(bytes.NewReader(whole)); err != nil {
			t.Errorf("%s: whole: %v", r.name, err)
		}
	}
}

// A bit flipped anywhere outside contents, names and targets is noticed; elsewhere it
// changes what is read. Either way, what is accepted prints back to the same bytes.
func TestFlipped(t *testing.T) {
	whole := sample(t)
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			var out bytes.Buffer
			if err := rewrite(&out, bytes.NewReader(b)); err == nil && !bytes.Equal(out.Bytes(), b) {
				t.Fatalf("bit %d of byte %d: accepted, but prints otherwise", bit, i)
			}
		}
	}
}

// Lengths that are only claimed cost nothing.
func TestMemory(t *testing.T) {
	const allowed = readBuffer + 96<<10
	for _, c := range append(hostileCases(),
		hostileCase{"claims an exbibyte", "", magic + strs("(", "type", "regular", "contents") + word(1<<60) + mark}) {
		if c.name == "too deep" {
			continue // is long itself
		}
		archive, _ := c.bytes(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := readAll(strings.NewReader(archive))
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > allowed {
			t.Errorf("%s: allocated %d bytes for an archive of %d", c.name, n, len(archive))
		}
	}
}

// The bound on nodes holds. To get there by reading takes 600 MB, so the count is moved
// on.
func TestMaxEntries(t *testing.T) {
	z := NewReader(strings.NewReader(dirHead + entry("a", link("x")) + entry("b", dir(entry("c", fileX))) + str(")")))
	if _, err := z.Next(); err != nil {
		t.Fatal(err)
	}
	z.nodes = MaxEntries - 2
	for range 2 {
		if _, err := z.Next(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := z.Next()
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeEntries {
		t.Errorf("reading: %v", err)
	}

	w := NewWriter(io.Discard)
	if err := w.WriteHeader(&Header{Type: Directory}); err != nil {
		t.Fatal(err)
	}
	w.nodes = MaxEntries - 1
	if err := w.WriteHeader(&Header{Path: "a", Type: Directory}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(&Header{Path: "b", Type: Directory}); !errors.As(err, &e) || e.Code != CodeEntries {
		t.Errorf("writing: %v", err)
	}
}
