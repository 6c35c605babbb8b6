package nar

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// openRoot opens dir until the test ends, and then makes it removable.
func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			if err := Remove(root, e.Name()); err != nil {
				t.Error(err)
			}
		}
		root.Close()
	})
	return root
}

// sample is an archive with a node of every kind.
func sample(t testing.TB) []byte {
	t.Helper()
	return []byte(magic + dir(
		entry(")", fileX),
		entry("bin", dir(
			entry("hello", strs("(", "type", "regular", "executable", "", "contents", "#!/bin/sh\n", ")")),
			entry("hi", link("hello")),
		)),
		entry("empty", dir()),
		entry("nothing", strs("(", "type", "regular", "contents", "", ")")),
		entry("\xff\xfe", strs("(", "type", "regular", "contents", "12345678", ")")),
	))
}

// rewrite reads an archive and writes it again.
func rewrite(w io.Writer, r io.Reader) error {
	in, out := NewReader(r), NewWriter(w)
	for {
		h, err := in.Next()
		if err == io.EOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
		if err := out.WriteHeader(h); err != nil {
			return fmt.Errorf("read but not written: %w", err)
		}
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
	}
}

type vector struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

func vectors(t testing.TB) map[string][]byte {
	t.Helper()
	index, err := os.ReadFile("../../vectors/nars/index.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(index, &list); err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]byte)
	for _, v := range list {
		b, err := os.ReadFile("../../vectors/nars/" + v.Name + ".nar")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if hex.EncodeToString(sum[:]) != v.SHA256 || int64(len(b)) != v.Size {
			t.Fatalf("the vector %s is damaged", v.Name)
		}
		all[v.Name] = b
	}
	if len(all) < 10 {
		t.Fatalf("found %d vectors, want at least 10", len(all))
	}
	return all
}

// The archives that Guix writes are read, written, restored and dumped, each time to
// the same bytes.
func TestVectors(t *testing.T) {
	for name, archive := range vectors(t) {
		t.Run(name, func(t *testing.T) {
			for _, r := range readers {
				if err := r.read(bytes.NewReader(archive)); err != nil {
					t.Errorf("%s: %v", r.name, err)
				}
			}
			var out bytes.Buffer
			if err := rewrite(&out, bytes.NewReader(archive)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), archive) {
				t.Error("written otherwise than read")
			}

			root := openRoot(t, t.TempDir())
			if err := Restore(root, "x", bytes.NewReader(archive)); err != nil {
				t.Fatal(err)
			}
			out.Reset()
			if err := Dump(&out, root.FS(), "x"); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), archive) {
				t.Error("dumped otherwise than restored")
			}
			sum, size, err := Sum(root.FS(), "x")
			if err != nil {
				t.Fatal(err)
			}
			if sum != sha256.Sum256(archive) || size != int64(len(archive)) {
				t.Errorf("Sum is %x of %d bytes", sum, size)
			}
			if name == "bad" {
				return // an fs.FS has no names that are not UTF-8
			}
			out.Reset()
			if err := Dump(&out, os.DirFS(root.Name()), "x"); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), archive) {
				t.Error("dumped otherwise from a plain file system")
			}
		})
	}
}

func TestReader(t *testing.T) {
	list, err := List(bytes.NewReader(sample(t)))
	if err != nil {
		t.Fatal(err)
	}
	want := []Header{
		{Path: "", Type: Directory},
		{Path: ")", Type: Regular, Size: 1},
		{Path: "bin", Type: Directory},
		{Path: "bin/hello", Type: Regular, Executable: true, Size: 10},
		{Path: "bin/hi", Type: Symlink, Target: "hello"},
		{Path: "empty", Type: Directory},
		{Path: "nothing", Type: Regular},
		{Path: "\xff\xfe", Type: Regular, Size: 8},
	}
	var got []Header
	for _, e := range list {
		got = append(got, e.Header)
		if e.Type != Regular {
			continue
		}
		at := sample(t)[e.Offset:]
		if n := string(sample(t)[e.Offset-8 : e.Offset]); n != word(uint64(e.Size)) {
			t.Errorf("%q: the offset %d does not follow the size", e.Path, e.Offset)
		}
		if e.Path == "bin/hello" && string(at[:e.Size]) != "#!/bin/sh\n" {
			t.Errorf("%q: other contents at its offset", e.Path)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, h := range got {
		if h.UTF8() != (h.Path != "\xff\xfe") {
			t.Errorf("%q: UTF8 is %v", h.Path, h.UTF8())
		}
	}
}

func TestReadInPieces(t *testing.T) {
	// Contents around the size of the buffer, read with buffers of all sizes.
	for _, size := range []int{0, 1, 7, 8, readBuffer - 1, readBuffer, readBuffer + 1, 3*readBuffer + 5} {
		contents := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
		archive := magic + dir(entry("a", strs("(", "type", "regular", "contents", string(contents), ")")), entry("b", fileX))
		for _, piece := range []int{1, 100, readBuffer / 2, 4 * readBuffer} {
			z := NewReader(strings.NewReader(archive))
			z.Next()
			z.Next()
			var got []byte
			buf := make([]byte, piece)
			for {
				n, err := z.Read(buf)
				got = append(got, buf[:n]...)
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, contents) {
				t.Errorf("size %d by %d: read %d other bytes", size, piece, len(got))
			}
			if n, err := z.Read(buf); n != 0 || err != io.EOF {
				t.Errorf("size %d by %d: after the end: %d, %v", size, piece, n, err)
			}
			if h, err := z.Next(); err != nil || h.Path != "b" {
				t.Errorf("size %d by %d: then %v, %v", size, piece, h, err)
			}
		}
	}
}

// greedy counts what is read of it.
type greedy struct {
	r io.Reader
	n int64
}

func (g *greedy) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	g.n += int64(n)
	return n, err
}

// What follows an archive is left in the source, whatever the archive looks like
// and however it is read.
func TestLeavesTheRest(t *testing.T) {
	all := vectors(t)
	all["sample"] = sample(t)
	all["big"] = []byte(magic + strs("(", "type", "regular", "contents", strings.Repeat("x", 5*readBuffer+3), ")"))
	deep := fileX
	for range MaxDepth {
		deep = dir(entry("d", deep))
	}
	all["deep"] = []byte(magic + deep)
	for name, archive := range all {
		for _, r := range readers {
			if r.name == "end with data" {
				continue // that source itself reads ahead
			}
			g := &greedy{r: bytes.NewReader(append(bytes.Clone(archive), sample(t)...))}
			if err := r.read(g); err != nil {
				t.Errorf("%s: %s: %v", name, r.name, err)
			}
			if g.n != int64(len(archive)) {
				t.Errorf("%s: %s: read %d bytes of an archive of %d", name, r.name, g.n, len(archive))
			}
		}
	}
}

// Few reads make up an archive.
func TestReadsAhead(t *testing.T) {
	var entries []string
	for i := range 100 {
		entries = append(entries, entry(fmt.Sprintf("file-%d", i+100), fileX))
	}
	calls := 0
	r := readerFunc(strings.NewReader(magic + dir(entries...)).Read)
	if err := readAll(readerFunc(func(p []byte) (int, error) { calls++; return r(p) })); err != nil {
		t.Fatal(err)
	}
	if calls > 4*100 {
		t.Errorf("%d reads for 100 files", calls)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestReaderFailures(t *testing.T) {
	boom := errors.New("boom")
	archive := sample(t)
	for n := range archive {
		z := NewReader(io.MultiReader(bytes.NewReader(archive[:n]), iotest.ErrReader(boom)))
		var err error
		for err == nil {
			_, err = z.Next()
		}
		if !errors.Is(err, boom) {
			t.Fatalf("failure after %d bytes: got %v", n, err)
		}
		if _, again := z.Next(); again != err {
			t.Fatalf("failure after %d bytes: then %v", n, again)
		}
		if _, again := z.Read(make([]byte, 1)); again != err {
			t.Fatalf("failure after %d bytes: Read then returned %v", n, again)
		}
	}
	if err := readAll(readerFunc(func([]byte) (int, error) { return 0, nil })); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a source that gives nothing: %v", err)
	}
	if err := readAll(readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil })); err == nil {
		t.Error("a source that lies about its count is believed")
	}
	if err := readAll(readerFunc(func(p []byte) (int, error) { return -1, nil })); err == nil {
		t.Error("a source with a negative count is believed")
	}
}

func TestReset(t *testing.T) {
	z := NewReader(strings.NewReader("nonsense"))
	if _, err := z.Next(); err == nil {
		t.Fatal("nonsense accepted")
	}
	z.Reset(bytes.NewReader(sample(t)))
	n := 0
	for {
		_, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 8 || z.Offset() != int64(len(sample(t))) {
		t.Errorf("%d nodes, %d bytes", n, z.Offset())
	}
}

func TestWriterRefusals(t *testing.T) {
	top := &Header{Type: Directory}
	file := func(path string) *Header { return &Header{Path: path, Type: Regular} }
	long := strings.Repeat("n", 256)
	for _, c := range []struct {
		name    string
		code    string
		headers []*Header
	}{
		{"nothing", CodePath, nil},
		{"no top", CodePath, []*Header{file("a")}},
		{"two tops", CodePath, []*Header{file(""), file("")}},
		{"entry of a file", CodePath, []*Header{file(""), file("a")}},
		{"top twice", CodeName, []*Header{top, top}},
		{"parent missing", CodePath, []*Header{top, file("a/b")}},
		{"parent is a file", CodePath, []*Header{top, file("a"), file("a/b")}},
		{"parent closed", CodePath, []*Header{top, {Path: "a", Type: Directory}, file("b"), file("a/b")}},
		{"parent a prefix", CodePath, []*Header{top, {Path: "ab", Type: Directory}, file("a/b")}},
		{"absolute", CodePath, []*Header{top, file("/a")}},
		{"double slash", CodePath, []*Header{top, {Path: "a", Type: Directory}, file("a//b")}},
		{"trailing slash", CodeName, []*Header{top, {Path: "a", Type: Directory}, file("a/")}},
		{"dot", CodeName, []*Header{top, file(".")}},
		{"dot dot", CodeName, []*Header{top, file("..")}},
		{"NUL", CodeName, []*Header{top, file("a\x00")}},
		{"long name", CodeLength, []*Header{top, file(long)}},
		{"duplicate", CodeDuplicate, []*Header{top, file("a"), file("a")}},
		{"order", CodeOrder, []*Header{top, file("b"), file("a")}},
		{"order after a directory", CodeOrder, []*Header{top, {Path: "b", Type: Directory}, file("b/c"), file("a")}},
		{"no type", CodeType, []*Header{top, {Path: "a"}}},
		{"negative size", CodeSize, []*Header{{Type: Regular, Size: -1}}},
		{"huge size", CodeSize, []*Header{{Type: Regular, Size: 1<<63 - 1}}},
		{"contents missing", CodeSize, []*Header{{Type: Regular, Size: 1}}},
		{"contents missing before another", CodeSize, []*Header{top, {Path: "a", Type: Regular, Size: 1}, file("b")}},
		{"empty target", CodeTarget, []*Header{{Type: Symlink}}},
		{"target with NUL", CodeTarget, []*Header{{Type: Symlink, Target: "a\x00"}}},
		{"long target", CodeLength, []*Header{{Type: Symlink, Target: strings.Repeat("t", 4096)}}},
	} {
		z := NewWriter(io.Discard)
		var err error
		for _, h := range c.headers {
			if err = z.WriteHeader(h); err != nil {
				break
			}
		}
		if err == nil {
			err = z.Close()
		}
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: got %v, want %s", c.name, err, c.code)
		}
		if again := z.Close(); again != err {
			t.Errorf("%s: then %v", c.name, again)
		}
	}

	z := NewWriter(io.Discard)
	z.WriteHeader(&Header{Type: Regular, Size: 3})
	if n, err := z.Write([]byte("four")); n != 0 || err == nil {
		t.Errorf("contents beyond the size: %d, %v", n, err)
	}
	z = NewWriter(io.Discard)
	z.WriteHeader(top)
	z.Close()
	if err := z.WriteHeader(file("a")); err == nil {
		t.Error("a header after Close is accepted")
	}
}

// failAfter is a writer that fails after n bytes.
type failAfter struct{ n int }

var errFull = errors.New("full")

func (f *failAfter) Write(p []byte) (int, error) {
	if len(p) > f.n {
		n := f.n
		f.n = 0
		return n, errFull
	}
	f.n -= len(p)
	return len(p), nil
}

func TestWriterFailures(t *testing.T) {
	archive := append([]byte(nil), vectors(t)["pad"]...)
	for n := 0; n < len(archive); n += 101 {
		if err := rewrite(&failAfter{n}, bytes.NewReader(archive)); !errors.Is(err, errFull) {
			t.Fatalf("a writer that fails after %d bytes: %v", n, err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	for _, size := range []int{0, 1, 7, 8, 9, 100000} {
		contents := strings.Repeat("x", size)
		var out bytes.Buffer
		rest := strings.NewReader(contents + "rest")
		if err := WriteFile(&out, int64(size), false, rest); err != nil {
			t.Fatal(err)
		}
		if want := magic + strs("(", "type", "regular", "contents", contents, ")"); out.String() != want {
			t.Errorf("size %d: other bytes", size)
		}
		if FileSize(int64(size)) != int64(out.Len()) {
			t.Errorf("FileSize(%d) is %d, not %d", size, FileSize(int64(size)), out.Len())
		}
		if rest.Len() != len("rest") {
			t.Errorf("size %d: %d bytes are left", size, rest.Len())
		}
		out.Reset()
		if err := WriteFile(&out, int64(size), true, strings.NewReader(contents)); err != nil {
			t.Fatal(err)
		}
		if int64(out.Len()) != FileSize(int64(size))+32 {
			t.Errorf("size %d: the executable has %d bytes", size, out.Len())
		}
	}
	var e *Error
	if err := WriteFile(io.Discard, 5, false, strings.NewReader("four")); !errors.As(err, &e) || e.Code != CodeSize {
		t.Errorf("contents that end early: %v", err)
	}
}

func TestVerifier(t *testing.T) {
	data := vectors(t)["pad"]
	sum := sha256.Sum256(data)
	size := int64(len(data))
	read := func(r io.Reader, size int64, sum [32]byte) ([]byte, error) {
		var b bytes.Buffer
		_, err := b.ReadFrom(NewVerifier(r, size, sum))
		return b.Bytes(), err
	}
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"plain": func(r io.Reader) io.Reader { return r }, "one byte": iotest.OneByteReader, "half": iotest.HalfReader, "end with data": iotest.DataErrReader,
	} {
		b, err := read(wrap(bytes.NewReader(data)), size, sum)
		if err != nil || !bytes.Equal(b, data) {
			t.Errorf("%s: good stream: %v", name, err)
		}
		for _, c := range []struct {
			what, code string
			data       []byte
			size       int64
		}{
			{"short", CodeTruncated, data[:size-1], size},
			{"nothing", CodeTruncated, nil, size},
			{"long", CodeSize, append(bytes.Clone(data), 0), size},
			{"size too small", CodeSize, data, size - 1},
			{"size zero", CodeSize, data, 0},
			{"altered", CodeDigest, append([]byte{data[0] ^ 1}, data[1:]...), size},
			{"altered at its end", CodeDigest, append(bytes.Clone(data[:size-1]), 1), size},
			{"empty", CodeDigest, nil, 0},
			{"negative", CodeSize, data, -1},
		} {
			b, err := read(wrap(bytes.NewReader(c.data)), c.size, sum)
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("%s: %s: got %v, want %s", name, c.what, err, c.code)
			}
			if int64(len(b)) >= c.size && c.size > 0 {
				t.Errorf("%s: %s: all %d bytes came out", name, c.what, len(b))
			}
		}
	}
	if b, err := read(bytes.NewReader(nil), 0, sha256.Sum256(nil)); err != nil || len(b) != 0 {
		t.Errorf("empty stream: %v", err)
	}
	boom := errors.New("boom")
	for n := range 50 {
		if _, err := read(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(boom)), 49, sha256.Sum256(data[:49])); !errors.Is(err, boom) {
			t.Errorf("failure after %d bytes: %v", n, err)
		}
	}
	// A Reader on an altered archive that is well-formed does not come to a good end.
	altered := bytes.Clone(sample(t))
	altered[bytes.Index(altered, []byte("12345678"))] = '0'
	v := NewVerifier(bytes.NewReader(altered), int64(len(altered)), sha256.Sum256(sample(t)))
	root := openRoot(t, t.TempDir())
	var e *Error
	if err := Restore(root, "x", v); !errors.As(err, &e) || e.Code != CodeDigest {
		t.Errorf("restoring an altered archive: %v", err)
	}
	if _, err := root.Lstat("x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an altered archive was restored: %v", err)
	}
}

// The largest contents that Reader takes are the largest that Writer writes: those with which the archive still ends below 2^63.
func TestLargest(t *testing.T) {
	for _, headers := range [][]*Header{
		{{Type: Regular}},
		{{Type: Regular, Executable: true}},
		{{Type: Directory}, {Path: "a", Type: Regular}},
		{{Type: Directory}, {Path: "a", Type: Regular}, {Path: "name", Type: Directory}, {Path: "name/" + strings.Repeat("x", MaxName), Type: Regular, Executable: true}},
	} {
		last := headers[len(headers)-1]
		depth := int64(0)
		if last.Path != "" {
			depth = int64(1 + strings.Count(last.Path, "/"))
		}
		write := func(w io.Writer, size int64) (*Writer, error) {
			z := NewWriter(w)
			for _, h := range headers[:len(headers)-1] {
				if err := z.WriteHeader(h); err != nil {
					t.Fatal(err)
				}
			}
			h := *last
			h.Size = size
			return z, z.WriteHeader(&h)
		}
		var empty bytes.Buffer
		z, err := write(&empty, 0)
		if err := errors.Join(err, z.Close()); err != nil {
			t.Fatal(err)
		}
		begin := bytes.LastIndex(empty.Bytes(), []byte("contents")) + len("contents")
		// What follows contents: the parentheses of the node, and two for each directory around it.
		most := int64(1<<63-1) - int64(begin) - 8 - 16 - 32*depth
		most -= most % 8 // with their padding
		for size := most - 20; size < most+20; size++ {
			archive := binary.LittleEndian.AppendUint64(bytes.Clone(empty.Bytes()[:begin]), uint64(size))
			r := NewReader(bytes.NewReader(archive))
			var read error
			for range headers {
				if _, read = r.Next(); read != nil {
					break
				}
			}
			_, written := write(io.Discard, size)
			var fault *Error
			fits := size <= most
			// What fits is not refused for its size, but because it does not come.
			if (written == nil) != fits || (read == nil) != fits || !fits && (!errors.As(read, &fault) || fault.Code != CodeSize) {
				t.Errorf("%q, depth %d, %d bytes (at most %d): read %v, written %v", last.Path, depth, size, most, read, written)
			}
		}
	}
}
