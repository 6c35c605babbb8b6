package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

func connect(t testing.TB, f *fake) *Client {
	t.Helper()
	c, err := Connect(t.Context(), f.start(0x164))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func list(paths []storepath.Path) string {
	var s []string
	for _, p := range paths {
		s = append(s, p.Name())
	}
	return strings.Join(s, " ")
}

func TestQueries(t *testing.T) {
	for _, log := range []string{"", "some remark\n"} {
		f := stocked(t)
		f.log = log
		c := connect(t, f)
		ctx := t.Context()
		a, b, absent, drv := parse(t, pathA), parse(t, pathB), parse(t, pathC), parse(t, drvA)
		if c.Version() != 0x164 {
			t.Errorf("version %#x", c.Version())
		}
		for p, want := range map[storepath.Path]bool{a: true, b: true, absent: false} {
			if got, err := c.IsValid(ctx, p); got != want || err != nil {
				t.Errorf("%s valid: %v, %v", p, got, err)
			}
		}
		want := &Info{Path: a, Deriver: drv, NarHash: sha256.Sum256(f.items[pathA].nar), NarSize: 100112, References: []storepath.Path{a, b}, Registered: time.Unix(1700000000, 0).UTC()}
		if got, err := c.Info(ctx, a); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if got, err := c.Info(ctx, b); err != nil || !got.Deriver.IsZero() || len(got.References) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		sets := func(what, want string) func(got []storepath.Path, err error) {
			return func(got []storepath.Path, err error) {
				t.Helper()
				if err != nil || list(got) != want {
					t.Errorf("%s: %s, %v; want %s", what, list(got), err, want)
				}
			}
		}
		sets("valid", "a a.drv")(c.Valid(ctx, drv, absent, a, a))
		sets("all", "a a.drv b")(c.AllValid(ctx))
		sets("references", "a b")(c.References(ctx, a))
		sets("referrers", "a a.drv")(c.Referrers(ctx, b))
		sets("derivers", "a.drv")(c.Derivers(ctx, a))
		sets("outputs", "a")(c.Outputs(ctx, drv))
		if got, err := c.Deriver(ctx, a); got != drv || err != nil {
			t.Errorf("deriver %s, %v", got, err)
		}
		if got, err := c.Deriver(ctx, b); !got.IsZero() || err != nil {
			t.Errorf("deriver %s, %v", got, err)
		}
		if got, err := c.FromHash(ctx, a.Hash()); got != a || err != nil {
			t.Errorf("hash part: %s, %v", got, err)
		}
		if got, err := c.FromHash(ctx, absent.Hash()); !errors.Is(err, ErrNotValid) || !got.IsZero() {
			t.Errorf("hash part: %s, %v", got, err)
		}
		if _, err := c.FromHash(ctx, "x"); err == nil {
			t.Error("a hash part of one character was sent")
		}
		if got, err := c.Roots(ctx); err != nil || !slices.Equal(got, []Root{{"/var/guix/profiles/x", a}}) {
			t.Errorf("roots: %v, %v", got, err)
		}
		if got, err := c.Substitutable(ctx, a, absent); err != nil || len(got) != 2 || !reflect.DeepEqual(got[1], Substitute{absent, drv, []storepath.Path{absent}, 10, 20}) {
			t.Errorf("substitutes: %v, %v", got, err)
		}
		// What the daemon says no to leaves the connection open.
		for what, ask := range map[string]func() error{
			"info":       func() error { _, err := c.Info(ctx, absent); return err },
			"references": func() error { _, err := c.References(ctx, absent); return err },
			"referrers":  func() error { _, err := c.Referrers(ctx, absent); return err },
			"deriver":    func() error { _, err := c.Deriver(ctx, absent); return err },
			"derivers":   func() error { _, err := c.Derivers(ctx, absent); return err },
			"outputs":    func() error { _, err := c.Outputs(ctx, absent); return err },
			"ensure":     func() error { return c.Ensure(ctx, absent) },
			"export":     func() error { _, err := c.Export(ctx, io.Discard, b, absent); return err },
		} {
			var said *Error
			if err := ask(); !errors.Is(err, ErrNotValid) || !errors.As(err, &said) || !strings.Contains(said.Message, "is not valid") || said.Status != StatusGeneral {
				t.Errorf("%s: %v", what, err)
			}
		}
		if ok, err := c.VerifyStore(ctx, false, false); !ok || err != nil {
			t.Errorf("verify: %v, %v", ok, err)
		}
		if ok, err := c.VerifyStore(ctx, true, false); ok || err != nil {
			t.Errorf("verify: %v, %v", ok, err)
		}
		var said *Error
		if _, err := c.VerifyStore(ctx, false, true); !errors.As(err, &said) || errors.Is(err, ErrNotValid) {
			t.Errorf("repair: %v", err)
		}
		if err := errors.Join(c.Ensure(ctx, a), c.AddTempRoot(ctx, absent), c.AddIndirectRoot(ctx, "/home/x/link")); err != nil {
			t.Error(err)
		}
		if !slices.Equal(f.temp, []string{pathC}) || f.roots[1][0] != "/home/x/link" {
			t.Errorf("%v %v", f.temp, f.roots)
		}
	}
}

func TestGarbage(t *testing.T) {
	f := stocked(t)
	c := connect(t, f)
	for _, tt := range []struct {
		g     Garbage
		paths string
		other int
		freed int64
	}{
		{Garbage{Action: ListLive}, "a", 0, 0},
		{Garbage{Action: ListDead}, "a.lock a.drv b", 1, 0},
		{Garbage{Action: DeleteSpecific, Paths: []storepath.Path{parse(t, drvA)}}, "a.drv", 0, int64(len(file("Derive")))},
		{Garbage{Action: DeleteDead, MaxFreed: 1 << 20}, "a.lock b", 1, int64(len(file("b")))},
		{Garbage{Action: ListDead}, "a.lock", 1, 0},
	} {
		got, err := c.CollectGarbage(t.Context(), tt.g)
		if err != nil || list(got.Paths) != tt.paths || len(got.Other) != tt.other || got.Freed != tt.freed {
			t.Errorf("%+v: %+v, %v", tt.g, got, err)
		}
	}
	for _, g := range []Garbage{{Action: 4}, {MaxFreed: -1}, {Action: DeleteDead, Paths: []storepath.Path{parse(t, pathA)}}} {
		if _, err := c.CollectGarbage(t.Context(), g); err == nil {
			t.Errorf("%+v was sent", g)
		}
	}
}

func TestAdd(t *testing.T) {
	f := newFake(t)
	c := connect(t, f)
	ctx := t.Context()
	tree := archiveOf(t)
	for _, algo := range []string{"sha256", "sha1", "md5", "sha512", "sha3-256", "sha3-512", "blake2s-256"} {
		r := bytes.NewReader(append(slices.Clone(tree), "more"...))
		p, err := c.AddNar(ctx, "tree", algo, iotest.HalfReader(r))
		if err != nil || !bytes.Equal(f.items[p.String()].nar, tree) || r.Len() != len("more") {
			t.Errorf("%s: %s, %v; %d bytes left", algo, p, err, r.Len())
		}
		p, err = c.AddFile(ctx, "file", algo, 5, strings.NewReader("hello"))
		if err != nil || !bytes.Equal(f.items[p.String()].nar, file("hello")) {
			t.Errorf("%s: %s, %v", algo, p, err)
		}
	}
	a, err := c.AddText(ctx, "text", []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.AddText(ctx, "text", []byte("y"), []storepath.Path{a})
	if err != nil || !slices.Equal(f.items[b.String()].refs, []string{a.String()}) {
		t.Error(err)
	}
	var said *Error
	if _, err := c.AddText(ctx, "text", []byte("z"), []storepath.Path{parse(t, pathA)}); !errors.As(err, &said) {
		t.Error(err)
	}
	// What cannot be is not sent.
	n := len(f.calls)
	for what, err := range map[string]error{
		"algorithm": second(c.AddNar(ctx, "x", "sha224", bytes.NewReader(tree))),
		"name":      second(c.AddNar(ctx, "a/b", "sha256", bytes.NewReader(tree))),
		"text name": second(c.AddText(ctx, ".x", nil, nil)),
		"reference": second(c.AddText(ctx, "x", nil, make([]storepath.Path, 1))),
		"valid":     second(c.IsValid(ctx, storepath.Path{})),
		"export":    second(c.Export(ctx, io.Discard, storepath.Path{})),
		"root":      c.AddIndirectRoot(ctx, "relative"),
		"zero root": c.AddIndirectRoot(ctx, "/a\x00"),
		"target":    c.Build(ctx, Normal, Target{}),
		"output":    c.Build(ctx, Normal, Target{parse(t, drvA), []string{"a,b"}}),
		"no drv":    c.Build(ctx, Normal, Target{parse(t, pathA), []string{"out"}}),
		"mode":      c.Build(ctx, 3, Target{Path: parse(t, drvA)}),
		"url":       c.SetOptions(ctx, Options{SubstituteURLs: []string{"http://a http://b"}}),
		"jobs":      c.SetOptions(ctx, Options{Jobs: -1}),
		"timeout":   c.SetOptions(ctx, Options{Timeout: -1}),
	} {
		if err == nil {
			t.Errorf("%s: sent", what)
		}
	}
	if valid, err := c.IsValid(ctx, a); !valid || err != nil || len(f.calls) != n+1 {
		t.Errorf("%v %v: %d calls", valid, err, len(f.calls)-n)
	}
}

func second[T any](_ T, err error) error { return err }

func archiveOf(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(dir+"/d", 0o755), os.WriteFile(dir+"/d/big", bytes.Repeat([]byte("0123456789"), 20000), 0o644),
		os.WriteFile(dir+"/x", nil, 0o755), os.Symlink("d/big", dir+"/l")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := nar.Dump(&b, os.DirFS(dir).(fs.ReadLinkFS), "."); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An archive that is refused on the way is never completed, and the connection is given up.
func TestAddRefused(t *testing.T) {
	tree := archiveOf(t)
	tree[len(tree)-9] = 1
	for name, r := range map[string]io.Reader{
		"malformed": bytes.NewReader(tree), "cut": bytes.NewReader(tree[:1000]),
		"failing": io.MultiReader(bytes.NewReader(tree[:1000]), iotest.ErrReader(errors.ErrUnsupported)),
	} {
		f := newFake(t)
		c, err := Connect(t.Context(), f.start(0x163))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.AddNar(t.Context(), "x", "sha256", r)
		var fault *nar.Error
		if name == "failing" && !errors.Is(err, errors.ErrUnsupported) || name != "failing" && !errors.As(err, &fault) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := c.AllValid(t.Context()); err != ErrClosed || len(f.items) != 0 {
			t.Errorf("%s: after that %v, %d items", name, err, len(f.items))
		}
	}
	c := connect(t, newFake(t))
	if _, err := c.AddFile(t.Context(), "x", "sha256", 6, strings.NewReader("hello")); err == nil {
		t.Error("a file that is too short was added")
	}
}

func TestBuild(t *testing.T) {
	f := stocked(t)
	var things []string
	f.build = func(f *fake, got []string, mode uint64) error {
		things = append(got, fmt.Sprint(mode))
		f.next("@ build-started " + drvA + " - x86_64-linux /var/log/guix/x 4711\n")
		f.next("@ build-log 4711 6\nhello\n")
		f.next("@ build-log 4711 39\n@ build-succeeded /forged -\nand no newline@ build-failed " + drvA + " - 1 exit code 1\n")
		f.next("remark\n")
		if mode == 2 {
			return &fakeError{"build of `" + drvA + "' failed", 100}
		}
		return nil
	}
	c := connect(t, f)
	var log []string
	c.Log = func(e Event) {
		switch {
		case e.Trace != "":
			log = append(log, fmt.Sprintf("%s %v %s", e.Trace, len(e.Args), e.Item.Name()))
		default:
			log = append(log, fmt.Sprintf("%d %q", e.PID, e.Text))
		}
	}
	if err := c.SetOptions(t.Context(), Options{KeepGoing: true, Offload: true, Substitutes: true, Verbosity: 3, SubstituteURLs: []string{"http://a", "http://b"},
		Jobs: 2, Cores: 3, Timeout: 1500 * time.Millisecond, MaxSilent: time.Minute, Rounds: 2}); err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"multiplexed-build-output": "true", "substitute-urls": "http://a http://b", "build-max-jobs": "2", "build-cores": "3",
		"build-timeout": "2", "build-max-silent-time": "60", "build-repeat": "1"}; !reflect.DeepEqual(f.opts, want) || !slices.Equal(f.flags, []uint64{0, 1, 0, 3, 1, 0, 0, 1, 1}) {
		t.Errorf("%v %v", f.opts, f.flags)
	}
	drv := parse(t, drvA)
	if err := c.Build(t.Context(), Normal, Target{Path: drv}, Target{drv, []string{"out", "doc"}}); err != nil {
		t.Error(err)
	}
	if want := []string{drvA, drvA + "!out,doc", "0"}; !slices.Equal(things, want) {
		t.Errorf("%q", things)
	}
	want := []string{`build-started 5 a.drv`, `4711 "hello\n"`, `4711 "@ build-succeeded /forged -\nand no newl"`, `0 "ine@ build-failed ` + drvA + ` - 1 exit code 1\n"`, `0 "remark\n"`}
	if !slices.Equal(log, want) {
		t.Errorf("log %q", log)
	}
	var said *Error
	if err := c.Build(t.Context(), Check, Target{Path: drv}); !errors.As(err, &said) || said.Status != StatusBuildFailed || errors.Is(err, ErrNotValid) {
		t.Error(err)
	}
	if things[len(things)-1] != "2" {
		t.Errorf("%q", things)
	}
}

// The log comes out alike, however it arrives.
func TestLog(t *testing.T) {
	const text = "plain\n@ build-started " + drvA + " -\n@ build-log 7 11\n@ fake x\nab@ substituter-started " + pathA + "\n@ build-log 7\n@ build-log x 3\n@ build-log 7 -1\n@\n@ \n@ ÄB\n no @ trace\n@@ x\n\n@ a-b\npartial @ x"
	want := []string{`0 "plain\n"`, "@ build-started " + drvA + " -\n", `7 "@ fake x\nab"`, "@ substituter-started " + pathA + "\n",
		`0 "@ build-log 7\n@ build-log x 3\n@ build-log 7 -1\n@\n@ \n@ ÄB\n no @ trace\n@@ x\n\n"`, "@ a-b\n", `0 "partial @ x"`}
	for size := 1; size <= len(text); size++ {
		var got []string
		if got = events(true, text, size); !slices.Equal(got, want) {
			t.Fatalf("in pieces of %d: %q", size, got)
		}
	}
	if got := events(false, text, 5); len(got) != 1 || got[0] != fmt.Sprintf("0 %q", text) {
		t.Errorf("without frames: %q", got)
	}
	// A line without end, and a frame longer than all.
	long := "@ " + strings.Repeat("x", 3*MaxLine)
	s := splitter{framed: true, emit: func(Event) {}}
	for i := range len(long) {
		s.write([]byte(long[i : i+1]))
		if cap(s.line) > 2*MaxLine {
			t.Fatalf("%d bytes kept", cap(s.line))
		}
	}
	if got := events(true, long+"\n@ x\n", 1000); len(got) != 2 || got[1] != "@ x\n" {
		t.Errorf("%.100q", got)
	}
	if got := events(true, "@ build-log 1 18446744073709551615\nabc\n@ x\n", 3); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

// events splits text that arrives in pieces, and joins text again.
func events(framed bool, text string, size int) []string {
	var all []string
	pid, pending := uint64(0), ""
	flush := func() {
		if pending != "" {
			all = append(all, fmt.Sprintf("%d %q", pid, pending))
		}
		pending = ""
	}
	s := splitter{framed: framed, emit: func(e Event) {
		if e.Trace != "" || e.PID != pid {
			flush()
		}
		pid = e.PID
		if e.Trace != "" {
			all = append(all, e.String())
		} else {
			pending += string(e.Text)
		}
	}}
	for chunk := range slices.Chunk([]byte(text), size) {
		s.write(chunk)
	}
	s.end()
	flush()
	return all
}

func TestExport(t *testing.T) {
	for _, step := range []uint64{7, 8, 4096, 1 << 20} {
		f := stocked(t)
		f.step, f.log = step, "remark"
		c := connect(t, f)
		a, b := parse(t, pathA), parse(t, pathB)
		var out bytes.Buffer
		items, err := c.Export(t.Context(), &out, b, a)
		if err != nil || len(items) != 2 || items[1].Path != a || items[1].Deriver.String() != drvA {
			t.Fatalf("%v, %v", items, err)
		}
		one, two := f.stream(pathB, f.items[pathB]), f.stream(pathA, f.items[pathA])
		if !bytes.Equal(out.Bytes(), append(one[:len(one)-8], two...)) {
			t.Errorf("in steps of %d other bytes", step)
		}
		for _, i := range items {
			if _, err := i.Verify(signature.NewACL(f.key.Public())); err != nil {
				t.Error(err)
			}
		}
		out.Reset()
		if items, err := c.Export(t.Context(), &out); err != nil || len(items) != 0 || !bytes.Equal(out.Bytes(), make([]byte, 8)) {
			t.Errorf("nothing exported is %x, %v", out.Bytes(), err)
		}
	}
}

// A writer that fails ends the export and the connection.
func TestExportWriter(t *testing.T) {
	c := connect(t, stocked(t))
	pr, pw := io.Pipe()
	pr.CloseWithError(errors.ErrUnsupported)
	if _, err := c.Export(t.Context(), pw, parse(t, pathA)); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if valid, err := c.IsValid(t.Context(), parse(t, pathA)); !valid || err != nil {
		t.Errorf("nothing had been asked, but: %v", err)
	}
	if _, err := c.Export(t.Context(), &limited{left: 20}, parse(t, pathA)); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if _, err := c.IsValid(t.Context(), parse(t, pathA)); err != ErrClosed {
		t.Errorf("the rest of an item is on the wire, but: %v", err)
	}
}

type limited struct{ left int }

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.ErrUnsupported
	}
	return len(p), nil
}

func streamOf(t testing.TB) (*fake, []byte) {
	from := stocked(t)
	b := slices.Clone(number(1))
	for _, p := range []string{pathB, pathA} {
		s := from.stream(p, from.items[p])
		b = append(b[:len(b)-8], s...)
	}
	return from, b
}

func TestImport(t *testing.T) {
	from, stream := streamOf(t)
	for _, read := range []uint64{13, 100, 32768, 1 << 40} {
		f := newFake(t)
		f.read = read
		c := connect(t, f)
		var checked []string
		paths, err := c.Import(t.Context(), iotest.HalfReader(bytes.NewReader(stream)), func(i *archive.Item) error {
			if f.items[i.Path.String()] != nil {
				t.Errorf("%s was there before it was checked", i.Path)
			}
			_, err := i.Verify(signature.NewACL(f.key.Public()))
			checked = append(checked, i.Path.Name())
			return err
		})
		if err != nil || list(paths) != "b a" || !slices.Equal(checked, []string{"b", "a"}) || !reflect.DeepEqual(f.items[pathA], from.items[pathA]) {
			t.Errorf("asked for %d at once: %v, %v", read, paths, err)
		}
		if valid, err := c.IsValid(t.Context(), parse(t, pathA)); !valid || err != nil {
			t.Error(err)
		}
	}
	c := connect(t, newFake(t))
	if paths, err := c.Import(t.Context(), bytes.NewReader(make([]byte, 8)), nil); err != nil || len(paths) != 0 {
		t.Errorf("an empty stream: %v, %v", paths, err)
	}
}

// What is refused on the way does not get in, and the connection stays open.
func TestImportRefused(t *testing.T) {
	_, stream := streamOf(t)
	change := func(at int, b byte) []byte {
		s := slices.Clone(stream)
		s[at] = b
		return s
	}
	dots := bytes.Replace(stream, append(number(uint64(len(pathB))), (pathB+"\x00\x00\x00")...), append(number(uint64(len("/gnu/store/.."))), "/gnu/store/..\x00\x00\x00"...), 1)
	if len(dots) == len(stream) {
		t.Fatal("the path was not replaced")
	}
	two := bytes.LastIndex(stream, []byte("nix-archive-1")) - 16 // mark of the second item
	for _, tt := range []struct {
		name   string
		stream []byte
		code   string
		items  int
	}{
		{"empty", nil, archive.CodeTruncated, 0},
		{"mark", change(0, 2), archive.CodeMark, 0},
		{"archive", change(20, 'x'), archive.CodeNar, 0},
		{"path", dots, archive.CodePath, 0},
		{"cut in an archive", stream[:50], archive.CodeNar, 0},
		{"cut in a signature", stream[:two-20], archive.CodeTruncated, 0},
		{"cut after an item", stream[:two], archive.CodeTruncated, 1},
		{"second mark", change(two, 3), archive.CodeMark, 1},
		{"second archive", change(two+20, 'x'), archive.CodeNar, 1},
		{"cut before the end", stream[:len(stream)-8], archive.CodeTruncated, 2},
		{"trailing", append(slices.Clone(stream), 0), archive.CodeTrailing, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			c := connect(t, f)
			paths, err := c.Import(t.Context(), bytes.NewReader(tt.stream), nil)
			var fault *archive.Error
			if !errors.As(err, &fault) || fault.Code != tt.code || paths != nil {
				t.Errorf("%v, %v; want %s", paths, err, tt.code)
			}
			if all, err := c.AllValid(t.Context()); err != nil || len(all) != tt.items {
				t.Errorf("then %v, %v; want %d items", all, err, tt.items)
			}
		})
	}
	f := newFake(t)
	c := connect(t, f)
	_, err := c.Import(t.Context(), bytes.NewReader(stream), func(i *archive.Item) error {
		if i.Path.Name() == "a" {
			return errors.ErrUnsupported
		}
		return nil
	})
	if all, err2 := c.AllValid(t.Context()); !errors.Is(err, errors.ErrUnsupported) || err2 != nil || list(all) != "b" {
		t.Errorf("%v, then %v, %v", err, all, err2)
	}
	if _, err := c.Import(t.Context(), iotest.ErrReader(errors.ErrUnsupported), nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

func TestCancel(t *testing.T) {
	f := stocked(t)
	started := make(chan struct{})
	f.build = func(f *fake, _ []string, _ uint64) error {
		f.next("working\n")
		close(started)
		f.num() // comes to an end when the client goes
		return nil
	}
	c := connect(t, f)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	go func() { <-started; cancel(why) }()
	if err := c.Build(ctx, Normal, Target{Path: parse(t, drvA)}); !errors.Is(err, why) {
		t.Error(err)
	}
	if _, err := c.AllValid(t.Context()); err != ErrClosed {
		t.Errorf("after that: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}

	// A context that has ended before does no harm, nor does waiting for another call.
	f = stocked(t)
	started = make(chan struct{})
	goon := make(chan struct{})
	f.build = func(f *fake, _ []string, _ uint64) error { close(started); <-goon; return nil }
	c = connect(t, f)
	if _, err := c.AllValid(ctx); !errors.Is(err, why) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.Build(t.Context(), Normal, Target{Path: parse(t, drvA)}); err != nil {
			t.Error(err)
		}
	})
	<-started
	short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	if _, err := c.AllValid(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(goon)
	wg.Wait()
	for range 4 {
		wg.Go(func() {
			for range 20 {
				if all, err := c.AllValid(t.Context()); err != nil || len(all) != 3 {
					t.Error(all, err)
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(c.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if _, err := c.AllValid(t.Context()); err != ErrClosed {
		t.Error(err)
	}

	// A daemon that does not answer at all.
	mine, yours := net.Pipe()
	defer mine.Close()
	short, done2 := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done2()
	if _, err := Connect(short, yours); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := yours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the connection was left open: %v", err)
	}
}

// A daemon that hangs up in the middle of an archive, with or without a word.
func TestHangup(t *testing.T) {
	for _, said := range []bool{true, false} {
		mine, yours := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer mine.Close()
			io.ReadFull(mine, make([]byte, 8))
			mine.Write(numbers(0x6478696f, 0x164))
			io.ReadFull(mine, make([]byte, 24))
			mine.Write(numbers(0x616c7473))
			io.ReadFull(mine, make([]byte, 1000))
			if said {
				// What was written to a socket can be read when it is closed; a pipe has no memory.
				yours.SetWriteDeadline(time.Unix(1, 0))
				mine.Write(append(numbers(0x63787470, 4), "full\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x00"...))
			}
		})
		c, err := Connect(t.Context(), yours)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.AddNar(t.Context(), "x", "sha256", bytes.NewReader(archiveOf(t)))
		var e *Error
		if errors.As(err, &e) != said || err == nil || said && (e.Message != "full" || e.Status != 7) {
			t.Errorf("%v", err)
		}
		if _, err := c.AllValid(t.Context()); err != ErrClosed {
			t.Error(err)
		}
		wg.Wait()
	}
}
