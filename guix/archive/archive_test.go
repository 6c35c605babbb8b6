package archive

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

const (
	vectors = "../../vectors/archives"

	// danger names the one stream that lies apart, since it makes a daemon delete its store.
	danger     = "DANGER-path-dotdot.nar"
	dangerFile = "../archives-danger/" + danger + ".do-not-import"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func readACL(t testing.TB, name string) signature.ACL {
	t.Helper()
	acl, err := signature.ParseACL(read(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return acl
}

func testKey(t testing.TB) signature.SecretKey {
	t.Helper()
	k, err := signature.ParseSecretKey(read(t, "authorised.TEST-ONLY.sec"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// verify reads a stream and verifies each item.
func verify(r io.Reader, acl signature.ACL) (items []*Item, err error) {
	z := NewReader(r)
	for {
		if _, err := z.Next(); err == io.EOF {
			return items, nil
		} else if err != nil {
			return items, err
		}
		item, err := z.Item()
		if err != nil {
			return items, err
		}
		if _, err := item.Verify(acl); err != nil {
			if _, strict := item.VerifyStrict(acl); strict == nil {
				return items, fmt.Errorf("taken in strict mode: %w", err)
			}
			return items, err
		}
		items = append(items, item)
	}
}

// codeOf returns the code of an error of this package, nar or signature.
func codeOf(t testing.TB, err error) string {
	t.Helper()
	var archive *Error
	var inside *nar.Error
	var sig *signature.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &inside):
		if !errors.As(err, &archive) || archive.Code != CodeNar {
			t.Fatalf("%T: %v", err, err)
		}
		return CodeNar
	case errors.As(err, &archive):
		return archive.Code
	case errors.As(err, &sig):
		return sig.Code
	}
	t.Fatalf("%T: %v", err, err)
	return ""
}

// stricter lists what the daemon imports and this package refuses, on purpose.
// The reasons are in the package comments of signature and nar, and above.
var stricter = map[string]string{
	"sig-flags-raw.nar":      signature.CodeMalformed,
	"sig-extra.nar":          signature.CodeMalformed,
	"sig-head.nar":           signature.CodeMalformed,
	"sig-trailing.nar":       signature.CodeMalformed,
	"sig-hashlabel.nar":      signature.CodeMalformed,
	"sig-hashlabel2.nar":     signature.CodeMalformed,
	"sig-two-data.nar":       signature.CodeMalformed,
	"frame-trailing.nar":     CodeTrailing,
	"path-shortname.nar":     CodePath,
	"path-badhash.nar":       CodePath,
	"path-badchar.nar":       CodePath,
	"nar-unsorted.nar":       CodeNar,
	"nar-nocontents.nar":     CodeNar,
	"nar-contents-twice.nar": CodeNar,
	"nar-exec-value.nar":     CodeNar,
	"nar-exec-after.nar":     CodeNar,
	"nar-symlink-nul.nar":    CodeNar,
	"nar-entry-empty.nar":    CodeNar,
	"nar-entry-nameonly.nar": CodeNar,
	"nar-entry-twonames.nar": CodeNar,
}

// looser lists what the daemon refuses and this package does not.
var looser = map[string]string{
	"ref-missing.nar": "there is no store to miss anything",
}

func TestVerdicts(t *testing.T) {
	var verdicts []struct {
		File, Note, Output string
		Exit               int
	}
	if err := json.Unmarshal(read(t, "verdicts.json"), &verdicts); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	accepted := 0
	for _, v := range verdicts {
		seen[v.File] = true
		file := v.File
		if file == danger {
			file = dangerFile
		}
		acl := readACL(t, "acl")
		if strings.HasSuffix(v.Note, "ACL = acl-with-rsa") {
			acl = readACL(t, "acl-with-rsa")
		}
		_, err := verify(bytes.NewReader(read(t, file)), acl)
		code := codeOf(t, err)
		want, isStricter := stricter[v.File]
		switch {
		case isStricter:
			if v.Exit != 0 || code != want {
				t.Errorf("%s: %v; the daemon says %d, the table %s", v.File, err, v.Exit, want)
			}
		case looser[v.File] != "":
			if v.Exit == 0 || err != nil {
				t.Errorf("%s: %v; the daemon says %d", v.File, err, v.Exit)
			}
		case (err == nil) != (v.Exit == 0):
			t.Errorf("%s (%s): %v; the daemon says %d %s", v.File, v.Note, err, v.Exit, v.Output)
		case strings.HasPrefix(v.File, "nar-") && err != nil && code != CodeNar:
			t.Errorf("%s (%s): refused for another reason: %v", v.File, v.Note, err)
		}
		if err == nil {
			accepted++
		}
	}
	if len(seen) < 90 || accepted < 25 || !seen[danger] {
		t.Errorf("%d streams, %d accepted: vectors are missing", len(seen), accepted)
	}
	for file := range stricter {
		if !seen[file] {
			t.Errorf("no verdict on %s", file)
		}
	}
	for file := range looser {
		if !seen[file] {
			t.Errorf("no verdict on %s", file)
		}
	}
}

// Exact reasons for streams that are wrong outside archive and signature.
func TestReasons(t *testing.T) {
	acl := readACL(t, "acl")
	for file, want := range map[string]string{
		"frame-zero.nar":       CodeTruncated,
		"frame-truncated.nar":  CodeTruncated,
		"frame-mark2.nar":      CodeMark,
		"magic-bad.nar":        CodeMagic,
		"sig-none.nar":         CodeUnsigned,
		"sig-flag2.nar":        CodeUnsigned,
		"path-sub.nar":         CodePath,
		"path-outside.nar":     CodePath,
		"deriver-bad.nar":      CodePath,
		"content-tampered.nar": signature.CodeHashMismatch,
		"sig-unauthorised.nar": signature.CodeUnauthorised,
		"sig-tampered-r.nar":   signature.CodeInvalid,
	} {
		if _, err := verify(bytes.NewReader(read(t, file)), acl); codeOf(t, err) != want {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
	// The path is judged before anything is done with it, and before the signature, which is good.
	data := read(t, dangerFile)
	if sum := sha256.Sum256(data); fmt.Sprintf("%x", sum) != "400528729f296a1763d06684b7c8b7c7942254ff2c3156bc15f9471c1fa4b45b" {
		t.Errorf("%s is not the stream that was recorded: %x", danger, sum)
	}
	var e *Error
	if _, err := verify(bytes.NewReader(data), acl); !errors.As(err, &e) || e.Code != CodePath || e.Offset != int64(bytes.Index(data, []byte("/gnu/store/.."))-8) {
		t.Errorf("%s: %v", danger, err)
	}
	// Bare archives whose restoring would leave the target.
	bare, err := filepath.Glob(filepath.Join(vectors, "*.rawnar"))
	if err != nil || len(bare) != 2 {
		t.Fatalf("%v %v", bare, err)
	}
	for _, file := range bare {
		stream := append(appendNumber(nil, marked), read(t, filepath.Base(file))...)
		if _, err := verify(bytes.NewReader(stream), acl); codeOf(t, err) != CodeNar {
			t.Errorf("%s: %v", file, err)
		}
	}
}

// What guix archive exported is exported again as the same bytes, however the
// stream arrives.
func TestExport(t *testing.T) {
	acl, k := readACL(t, "acl"), testKey(t)
	files, err := filepath.Glob(filepath.Join(vectors, "ok-*.nar"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d streams made by Guix (%v)", len(files), err)
	}
	for _, file := range files {
		data := read(t, filepath.Base(file))
		items, err := verify(iotest.OneByteReader(bytes.NewReader(data)), acl)
		if err != nil || len(items) == 0 {
			t.Errorf("%s: %v", file, err)
			continue
		}
		for _, item := range items {
			if _, err := item.VerifyStrict(acl); err != nil {
				t.Errorf("%s: %s, made by Guix, is refused in strict mode: %v", file, item.Path, err)
			}
		}
		var out bytes.Buffer
		w := NewWriter(&out, k)
		rest := data
		for _, item := range items {
			rest = rest[8:]
			if sha256.Sum256(rest[:item.NarSize]) != item.NarHash {
				t.Errorf("%s: hash of the archive is wrong", file)
			}
			fresh := &Item{Path: item.Path, Deriver: item.Deriver, References: slices.Clone(item.References)}
			slices.Reverse(fresh.References)
			r := bytes.NewReader(rest)
			if err := w.Add(fresh, r); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if fresh.NarHash != item.NarHash || fresh.NarSize != item.NarSize || fresh.Hash != item.Hash || !bytes.Equal(fresh.Signature, item.Signature) {
				t.Errorf("%s: %+v, read %+v", file, fresh, item)
			}
			if r.Len() != len(rest)-int(item.NarSize) {
				t.Errorf("%s: Add took more than the archive", file)
			}
			rest = rest[len(appendItem(nil, nil, item))+int(item.NarSize):]
		}
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s: exported otherwise (%v)", file, err)
		}
	}
}

// appendItem appends an archive and what follows it.
func appendItem(b, archive []byte, item *Item) []byte {
	refs := make([]string, len(item.References))
	for i, ref := range item.References {
		refs[i] = ref.String()
	}
	deriver := ""
	if !item.Deriver.IsZero() {
		deriver = item.Deriver.String()
	}
	return appendRaw(b, archive, item.Path.String(), refs, deriver, item.Signature)
}

func appendRaw(b, archive []byte, path string, refs []string, deriver string, sig []byte) []byte {
	b = append(b, archive...)
	b = appendNumber(b, magic)
	b = appendString(b, path)
	b = appendNumber(b, uint64(len(refs)))
	for _, ref := range refs {
		b = appendString(b, ref)
	}
	b = appendString(b, deriver)
	return appendString(appendNumber(b, marked), string(sig))
}

// singleFile returns an archive.
func singleFile(t testing.TB, contents string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.WriteFile(&b, int64(len(contents)), false, strings.NewReader(contents)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	pathA = "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a"
	pathB = "/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b"
	drvA  = "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.drv"
)

// Properly signed items whose names are wrong.
func TestPaths(t *testing.T) {
	k := testKey(t)
	acl := signature.NewACL(k.Public())
	archive := singleFile(t, "x")
	for _, tc := range []struct {
		path    string
		refs    []string
		deriver string
		code    string
	}{
		{pathA, nil, "", ""},
		{pathB, []string{pathA, pathB}, drvA, ""},
		{"/gnu/store/..", nil, "", CodePath}, // the daemon deletes what is there
		{"/gnu/store/.", nil, "", CodePath},
		{"/gnu/store/", nil, "", CodePath},
		{"", nil, "", CodePath},
		{pathA + "\x00", nil, "", CodePath},
		{"/gnu/store/../store/71srfn47sm9135lkrw596p9k7f3s5kyz-a", nil, "", CodePath},
		{pathA + strings.Repeat("a", 300), nil, "", CodeString},
		{pathA, []string{"/gnu/store/.."}, "", CodePath},
		{pathA, []string{""}, "", CodePath},
		{pathA, []string{pathB, pathA}, "", CodeOrder},
		{pathA, []string{pathA, pathA}, "", CodeOrder},
		{pathA, make([]string, MaxReferences+1), "", CodeTooLarge},
		{pathA, nil, pathB, CodePath},
		{pathA, nil, "/gnu/store/..", CodePath},
	} {
		item := appendRaw(nil, archive, tc.path, tc.refs, tc.deriver, nil)
		sig, err := signature.Sign(k, sha256.Sum256(item[:len(item)-16]))
		if err != nil {
			t.Fatal(err)
		}
		stream := appendNumber(nil, marked)
		stream = appendRaw(stream, archive, tc.path, tc.refs, tc.deriver, sig)
		stream = appendNumber(stream, markEnd)
		if _, err := verify(bytes.NewReader(stream), acl); codeOf(t, err) != tc.code {
			t.Errorf("%.60q %.200q %q: %v, want %q", tc.path, tc.refs, tc.deriver, err, tc.code)
		}
	}
}

// Every flipped bit and every cut is noticed.
func TestTampering(t *testing.T) {
	acl, data := readACL(t, "acl"), read(t, "ok-ref-b.nar")
	end := bytes.Index(data, []byte("(signature"))
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 0x20
		_, err := verify(bytes.NewReader(bad), acl)
		// In the text of the signature, case of hex digits means nothing.
		if err == nil && (i < end || !strings.ContainsRune("ABCDEFabcdef", rune(data[i]))) {
			t.Errorf("byte %d: %q for %q is accepted", i, bad[i], data[i])
		}
		_, err = verify(bytes.NewReader(data[:i]), acl)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at byte %d: %v", i, err)
		}
		broken := errors.New("broken")
		_, err = verify(io.MultiReader(bytes.NewReader(data[:i]), iotest.ErrReader(broken)), acl)
		if !errors.Is(err, broken) {
			t.Errorf("broken at byte %d: %v", i, err)
		}
	}
	broken := errors.New("broken")
	if _, err := verify(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(broken)), acl); !errors.Is(err, broken) {
		t.Errorf("broken at the end: %v", err)
	}
}

func TestReader(t *testing.T) {
	data := read(t, "ok-closure.nar")
	z := NewReader(bytes.NewReader(data))
	if _, err := z.Item(); err == nil {
		t.Error("an item before the first")
	}
	// Archives may be read, read in part, or not at all; items forgotten.
	count := 0
	for {
		a, err := z.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if count++; count == 1 {
			if h, err := a.Next(); err != nil || h.Path != "" {
				t.Fatalf("%v %v", h, err)
			}
		}
	}
	if items, err := verify(bytes.NewReader(data), readACL(t, "acl")); err != nil || len(items) != count || count < 2 {
		t.Errorf("%d items, %d without looking (%v)", len(items), count, err)
	}
	for range 2 {
		if _, err := z.Next(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
		if _, err := z.Item(); err != io.EOF {
			t.Errorf("after the end: %v", err)
		}
	}
	// The first error stays.
	z = NewReader(bytes.NewReader(read(t, "frame-mark2.nar")))
	var first error
	for range 3 {
		_, err := z.Next()
		if err == nil {
			_, err = z.Item()
		}
		if first == nil {
			first = err
		} else if err != first {
			t.Errorf("%v, then %v", first, err)
		}
	}
	var e *Error
	if !errors.As(first, &e) || e.Offset != 0 || fmt.Sprint(e) != "archive: byte 0: archive-mark: 2 is neither item nor end" {
		t.Errorf("%v", first)
	}
}

type failing struct{ after int }

func (w *failing) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestWriterRefuses(t *testing.T) {
	k, archive := testKey(t), singleFile(t, "x")
	path := func(s string) storepath.Path {
		p, err := storepath.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for name, tc := range map[string]struct {
		item    Item
		archive string
		key     signature.SecretKey
	}{
		"no path":       {Item{}, string(archive), k},
		"no deriver":    {Item{Path: path(pathA), Deriver: path(pathB)}, string(archive), k},
		"no reference":  {Item{Path: path(pathA), References: []storepath.Path{{}}}, string(archive), k},
		"no archive":    {Item{Path: path(pathA)}, "x", k},
		"cut archive":   {Item{Path: path(pathA)}, string(archive[:len(archive)-8]), k},
		"no secret key": {Item{Path: path(pathA)}, string(archive), signature.SecretKey{}},
	} {
		w := NewWriter(io.Discard, tc.key)
		err := w.Add(&tc.item, strings.NewReader(tc.archive))
		if err == nil || w.Add(&Item{Path: path(pathA)}, bytes.NewReader(archive)) != err || w.Close() != err {
			t.Errorf("%s: %v", name, err)
		}
	}
	for after := range 900 {
		w := NewWriter(&failing{after}, k)
		err := w.Add(&Item{Path: path(pathA)}, bytes.NewReader(archive))
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			if after < 600 {
				t.Errorf("a stream of %d bytes", after)
			}
			return
		}
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%d: %v", after, err)
		}
	}
	t.Error("the stream never ends")
}

// What parses consists of exactly what was read from it.
func FuzzReader(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(vectors, "*.nar"))
	if err != nil || len(files) < 90 {
		f.Fatalf("%d seeds (%v)", len(files), err)
	}
	for _, file := range files {
		f.Add(read(f, filepath.Base(file)))
	}
	f.Add(read(f, dangerFile))
	f.Fuzz(func(t *testing.T, data []byte) {
		z := NewReader(bytes.NewReader(data))
		var out []byte
		for {
			_, err := z.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				codeOf(t, err)
				return
			}
			item, err := z.Item()
			if err != nil {
				codeOf(t, err)
				return
			}
			out = appendNumber(out, marked)
			archive := data[len(out):][:item.NarSize]
			if sha256.Sum256(archive) != item.NarHash {
				t.Fatal("hash of the archive is wrong")
			}
			start := len(out)
			out = appendItem(out, archive, item)
			signed := len(out) - len(appendString(nil, string(item.Signature))) - 8
			if sha256.Sum256(out[start:signed]) != item.Hash {
				t.Fatal("hash of the item is wrong")
			}
		}
		if out = appendNumber(out, markEnd); !bytes.Equal(out, data) {
			t.Fatalf("%q, printed as %q", data, out)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k := testKey(b)
	acl := signature.NewACL(k.Public())
	path, err := storepath.Parse(pathA)
	if err != nil {
		b.Fatal(err)
	}
	var stream bytes.Buffer
	w := NewWriter(&stream, k)
	if err := w.Add(&Item{Path: path}, bytes.NewReader(singleFile(b, strings.Repeat("x", 16<<20)))); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(stream.Len()))
	for b.Loop() {
		if _, err := verify(bytes.NewReader(stream.Bytes()), acl); err != nil {
			b.Fatal(err)
		}
	}
}

// The peer: SHA-256 of the same number of bytes, without which nothing can be verified.
func BenchmarkSHA256(b *testing.B) {
	data := make([]byte, 16<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		sha256.Sum256(data)
	}
}

// A stream that promises much and ends takes no memory for its promises, beside the buffers of a Reader.
func TestMemory(t *testing.T) {
	const buffers = 160 << 10
	whole := singleFile(t, "x")
	item := appendNumber(append(appendNumber(nil, marked), whole...), magic)
	named := appendString(item, pathA)
	refs := appendNumber(named, MaxReferences)
	for i := range MaxReferences {
		refs = appendString(refs, fmt.Sprintf("/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-%05d", i))
	}
	for name, stream := range map[string][]byte{
		"a path":              appendNumber(item, 1<<63),
		"a path of some size": appendNumber(item, uint64(maxPath)),
		"references":          appendNumber(named, 1<<40),
		"as many as may be":   appendNumber(named, MaxReferences),
		"a signature":         appendNumber(appendNumber(appendString(appendNumber(named, 0), ""), marked), signature.MaxText),
		"contents":            appendNumber(append(appendNumber(nil, marked), whole[:bytes.Index(whole, []byte("contents"))+8]...), 1<<62),
		"what came":           refs,
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		z := NewReader(bytes.NewReader(stream))
		_, err := z.Next()
		if err == nil {
			_, err = z.Item()
		}
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; err == nil || used > buffers+uint64(len(stream))*6 {
			t.Errorf("%s: %d bytes for %d of input (%v)", name, used, len(stream), err)
		}
	}
}
