package daemon

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
)

func numbers(all ...uint64) (b []byte) {
	for _, n := range all {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return b
}

// said puts an answer together of numbers and strings.
func said(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = append(b, numbers(uint64(p))...)
		case uint64:
			b = append(b, numbers(p)...)
		case string:
			b = append(append(b, numbers(uint64(len(p)))...), p...)
			b = append(b, make([]byte, -len(p)&7)...)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// script is a connection on which a fixed answer waits; whatever is written is forgotten.
type script struct {
	r      *bytes.Reader
	closed bool
}

func (s *script) Read(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.r.Read(p)
}
func (s *script) Write(p []byte) (int, error) {
	if s.closed {
		return 0, net.ErrClosed
	}
	return len(p), nil
}
func (s *script) Close() error                     { s.closed = true; return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

var greeting = said(0x6478696f, 0x164, messageLast)

// answer connects a client to a daemon that greets and then says b.
func answer(t testing.TB, b []byte) (*Client, *script) {
	t.Helper()
	s := &script{r: bytes.NewReader(append(bytes.Clone(greeting), b...))}
	c, err := Connect(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return c, s
}

func TestGreeting(t *testing.T) {
	for _, tt := range []struct {
		b    []byte
		code string
	}{
		{nil, CodeTruncated},
		{said(0x6478696f), CodeTruncated},
		{said(0x6478696e, 0x164, messageLast), CodeMagic},
		{said(0x6478696f, 0x264, messageLast), CodeVersion},
		{said(0x6478696f, 0x126, messageLast), CodeVersion}, // Nix
		{said(0x6478696f, 0x10164, messageLast), CodeVersion},
		{said(0x6478696f, uint64(1<<63|0x164), messageLast), CodeVersion},
		{said(0x6478696f, 0x164, 1), CodeMessage},
		{said(0x6478696f, 0x164, messageRead), CodeMessage},
		{said(0x6478696f, 0x164, messageError, "x", 1), ""},
		{greeting[:len(greeting)-1], CodeTruncated},
		{[]byte("HTTP/1.1 400 Bad Request\r\n"), CodeMagic},
	} {
		s := &script{r: bytes.NewReader(tt.b)}
		_, err := Connect(t.Context(), s)
		if codeOf(t, err) != tt.code || !s.closed {
			t.Errorf("%x: %v, want %s; closed: %v", tt.b, err, tt.code, s.closed)
		}
	}
}

// codeOf returns the code of a ProtocolError, and "" of an Error.
func codeOf(t testing.TB, err error) string {
	t.Helper()
	var p *ProtocolError
	var e *Error
	switch {
	case errors.As(err, &p):
		if p.Code == CodeTruncated && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v wraps nothing", err)
		}
		return p.Code
	case errors.As(err, &e):
		return ""
	}
	t.Errorf("%T: %v", err, err)
	return "?"
}

// calls has every operation.
func calls(t testing.TB) map[string]func(context.Context, *Client) error {
	a, drv := parse(t, pathA), parse(t, drvA)
	_, stream := streamOf(t)
	return map[string]func(context.Context, *Client) error{
		"valid":      func(ctx context.Context, c *Client) error { return second(c.IsValid(ctx, a)) },
		"valids":     func(ctx context.Context, c *Client) error { return second(c.Valid(ctx, a, drv)) },
		"all":        func(ctx context.Context, c *Client) error { return second(c.AllValid(ctx)) },
		"info":       func(ctx context.Context, c *Client) error { return second(c.Info(ctx, a)) },
		"references": func(ctx context.Context, c *Client) error { return second(c.References(ctx, a)) },
		"referrers":  func(ctx context.Context, c *Client) error { return second(c.Referrers(ctx, a)) },
		"deriver":    func(ctx context.Context, c *Client) error { return second(c.Deriver(ctx, a)) },
		"derivers":   func(ctx context.Context, c *Client) error { return second(c.Derivers(ctx, a)) },
		"outputs":    func(ctx context.Context, c *Client) error { return second(c.Outputs(ctx, drv)) },
		"hash":       func(ctx context.Context, c *Client) error { return second(c.FromHash(ctx, a.Hash())) },
		"substitute": func(ctx context.Context, c *Client) error { return second(c.Substitutable(ctx, a)) },
		"ensure":     func(ctx context.Context, c *Client) error { return c.Ensure(ctx, a) },
		"temproot":   func(ctx context.Context, c *Client) error { return c.AddTempRoot(ctx, a) },
		"root":       func(ctx context.Context, c *Client) error { return c.AddIndirectRoot(ctx, "/x") },
		"roots":      func(ctx context.Context, c *Client) error { return second(c.Roots(ctx)) },
		"verify":     func(ctx context.Context, c *Client) error { return second(c.VerifyStore(ctx, true, false)) },
		"options":    func(ctx context.Context, c *Client) error { return c.SetOptions(ctx, Options{}) },
		"build":      func(ctx context.Context, c *Client) error { return c.Build(ctx, Normal, Target{Path: drv}) },
		"garbage":    func(ctx context.Context, c *Client) error { return second(c.CollectGarbage(ctx, Garbage{})) },
		"nar": func(ctx context.Context, c *Client) error {
			return second(c.AddNar(ctx, "x", "sha256", bytes.NewReader(file("x"))))
		},
		"file": func(ctx context.Context, c *Client) error {
			return second(c.AddFile(ctx, "x", "sha256", 1, strings.NewReader("x")))
		},
		"text":   func(ctx context.Context, c *Client) error { return second(c.AddText(ctx, "x", []byte("x"), nil)) },
		"export": func(ctx context.Context, c *Client) error { return second(c.Export(ctx, io.Discard, a)) },
		"import": func(ctx context.Context, c *Client) error { return second(c.Import(ctx, bytes.NewReader(stream), nil)) },
	}
}

// Each answer has one fault. It is found, and the connection given up.
func TestHostile(t *testing.T) {
	all := calls(t)
	const last = messageLast
	hash := strings.Repeat("0123456789abcdef", 4)
	f := stocked(t)
	item := f.stream(pathA, f.items[pathA])
	item = item[8 : len(item)-8]
	other := f.stream(pathB, f.items[pathB])
	other = other[8 : len(other)-8]
	write := func(b []byte) []byte { return said(messageWrite, string(b)) }
	for _, tt := range []struct {
		op, name string
		b        []byte
		code     string
	}{
		{"valid", "nothing", nil, CodeTruncated},
		{"valid", "message", said(0x6f6c6d68), CodeMessage},
		{"valid", "message of 64 bits", said(uint64(1<<32 | last)), CodeMessage},
		{"valid", "read", said(messageRead, 1), CodeMessage},
		{"valid", "write", said(messageWrite, "x"), CodeMessage},
		{"valid", "bool", said(last, 2), CodeBool},
		{"valid", "log too long", said(messageNext, MaxMessage+1), CodeString},
		{"valid", "log of 2^63", said(messageNext, uint64(1<<63)), CodeString},
		{"valid", "log cut", said(messageNext, 8, []byte("abc")), CodeTruncated},
		{"valid", "log padding", said(messageNext, 1, []byte("a\x00\x00\x01\x00\x00\x00\x00"), last, 1), CodeString},
		{"valid", "error too long", said(messageError, MaxMessage+1), CodeString},
		{"valid", "error padding", said(messageError, 1, []byte("a\x00\x00\x01\x00\x00\x00\x00"), 1), CodeString},
		{"valid", "error cut", said(messageError, "a"), CodeTruncated},
		{"valids", "not asked for", said(last, 1, pathB), CodeAnswer},
		{"valids", "twice", said(last, 2, pathA, pathA), CodeOrder},
		{"valids", "order", said(last, 2, drvA, pathA), CodeOrder},
		{"all", "too many", said(last, MaxPaths+1), CodeTooMany},
		{"all", "2^64-1", said(last, ^uint64(0)), CodeTooMany},
		{"all", "cut", said(last, MaxPaths, pathA), CodeTruncated},
		{"all", "long path", said(last, 1, "/gnu/store/"+strings.Repeat("a", 251)), CodeString},
		{"all", "string of 2^62", said(last, 1, uint64(1<<62)), CodeString},
		{"all", "padding", said(last, 1, len(pathA), []byte(pathA), []byte("\x00\x00\x01")), CodeString},
		{"references", "dots", said(last, 1, "/gnu/store/.."), CodePath},
		{"references", "no hash", said(last, 1, "/gnu/store/foo"), CodePath},
		{"references", "empty", said(last, 1, ""), CodePath},
		{"references", "below an item", said(last, 1, pathA+"/bin"), CodePath},
		{"references", "NUL", said(last, 1, pathA+"\x00"), CodePath},
		{"references", "elsewhere", said(last, 1, "/nix/store"+pathA[10:]), CodePath},
		{"referrers", "order", said(last, 2, pathB, pathA), CodeOrder},
		{"deriver", "no derivation", said(last, pathB), CodePath},
		{"deriver", "path", said(last, "x.drv"), CodePath},
		{"derivers", "no derivation", said(last, 1, pathB), CodePath},
		{"outputs", "twice", said(last, 2, pathB, pathB), CodeOrder},
		{"info", "deriver", said(last, pathB, hash, 0, 1, 1), CodePath},
		{"info", "hash in base32", said(last, "", "sha256:"+hash, 0, 1, 1), CodeString},
		{"info", "short hash", said(last, "", hash[1:], 0, 1, 1), CodeHash},
		{"info", "upper case", said(last, "", strings.ToUpper(hash), 0, 1, 1), CodeHash},
		{"info", "no hash", said(last, "", strings.Repeat("x", 64), 0, 1, 1), CodeHash},
		{"info", "references", said(last, "", hash, 2, pathB, pathA, 1, 1), CodeOrder},
		{"info", "time", said(last, "", hash, 0, ^uint64(0), 1), CodeNumber},
		{"info", "size", said(last, "", hash, 0, 1, uint64(1<<63)), CodeNumber},
		{"info", "cut", said(last, "", hash, 0, 1), CodeTruncated},
		{"hash", "another", said(last, pathB), CodeAnswer},
		{"hash", "path", said(last, "x"), CodePath},
		{"substitute", "not asked for", said(last, 1, pathB, "", 0, 1, 1), CodeAnswer},
		{"substitute", "deriver", said(last, 1, pathA, pathA, 0, 1, 1), CodePath},
		{"substitute", "reference", said(last, 1, pathA, "", 1, "", 1, 1), CodePath},
		{"substitute", "size", said(last, 1, pathA, "", 0, 1, ^uint64(0)), CodeNumber},
		{"substitute", "too many", said(last, MaxPaths+1), CodeTooMany},
		{"ensure", "answer", said(last, 0), CodeNumber},
		{"temproot", "answer", said(last, 2), CodeNumber},
		{"root", "answer", said(last, 0), CodeNumber},
		{"build", "answer", said(last, 0), CodeNumber},
		{"build", "write", said(messageWrite, "x"), CodeMessage},
		{"options", "read", said(messageRead, 1), CodeMessage},
		{"verify", "bool", said(last, 3), CodeBool},
		{"roots", "target", said(last, 1, "/x", "/etc"), CodePath},
		{"roots", "long link", said(last, 1, strings.Repeat("x", MaxString+1), pathA), CodeString},
		{"roots", "NUL", said(last, 1, "/x\x00", pathA), CodeString},
		{"garbage", "elsewhere", said(last, 1, "/etc/passwd", 0, 0), CodePath},
		{"garbage", "dots", said(last, 1, "/gnu/store/..", 0, 0), CodePath},
		{"garbage", "below", said(last, 1, "/gnu/store/a/b", 0, 0), CodePath},
		{"garbage", "the store", said(last, 1, "/gnu/store/", 0, 0), CodePath},
		{"garbage", "size", said(last, 0, ^uint64(0), 0), CodeNumber},
		{"nar", "another path", said(last, pathA), CodeMismatch},
		{"nar", "no path", said(last, "/gnu/store/x"), CodePath},
		{"file", "another path", said(last, pathA), CodeMismatch},
		{"text", "another path", said(last, pathA), CodeMismatch},
		{"export", "nothing", said(last, 1), CodeStream},
		{"export", "another item", said(write(other), last, 1), CodeStream},
		{"export", "cut", said(write(item[:1000]), last, 1), CodeStream},
		{"export", "too much", said(write(item), write([]byte("x")), last, 1), CodeStream},
		{"export", "not an archive", said(write([]byte("nix-archive-2")), last, 1), CodeStream},
		{"export", "read", said(write(item[:1000]), messageRead, 1), CodeMessage},
		{"export", "answer", said(write(item), last, 0), CodeNumber},
		{"export", "connection cut", said(messageWrite, len(item), item[:500]), CodeTruncated},
		{"export", "cut between", said(write(item[:500])), CodeTruncated},
		{"export", "padding", said(messageWrite, 1, []byte("\x0d\x00\x00\x00\x00\x00\x00\x01"), last, 1), CodeString},
		{"export", "huge", said(messageWrite, ^uint64(0), item), CodeTruncated},
		{"import", "early end", said(messageRead, 100, last, 0), CodeMessage},
		{"import", "end at once", said(last, 0), CodeMessage},
		{"import", "asks for nothing", said(messageRead, 0), CodeNumber},
		{"import", "asks for more", bytes.Repeat(said(messageRead, 1<<20), 1000), CodeMessage},
		{"import", "writes", said(messageWrite, "x"), CodeMessage},
	} {
		t.Run(tt.op+" "+tt.name, func(t *testing.T) {
			c, s := answer(t, tt.b)
			err := all[tt.op](t.Context(), c)
			if codeOf(t, err) != tt.code {
				t.Errorf("%v, want %s", err, tt.code)
			}
			var p *ProtocolError
			if errors.As(err, &p) && (p.Offset < int64(len(greeting)) || p.Offset > int64(len(greeting)+len(tt.b)) || p.Op == 0) {
				t.Errorf("%v is elsewhere", err)
			}
			if !s.closed {
				t.Error("the connection was left open")
			}
			if _, err := c.AllValid(t.Context()); err != ErrClosed {
				t.Errorf("then %v", err)
			}
		})
	}
}

// A daemon that says other paths than those that were imported.
func TestImportAnswer(t *testing.T) {
	for name, result := range map[string][]byte{
		"fewer": said(1, pathB), "more": said(3, pathB, pathA, pathA), "others": said(2, pathB, pathB), "no paths": said(2, pathB, "x"), "too many": said(MaxPaths + 1),
	} {
		_, stream := streamOf(t)
		mine, yours := net.Pipe()
		go func() {
			defer mine.Close()
			f := &fake{t: t, conn: mine, read: 32768, items: make(map[string]*fakeItem)}
			defer func() { recover() }()
			io.ReadFull(mine, make([]byte, 8))
			mine.Write(greeting[:16])
			io.ReadFull(mine, make([]byte, 24))
			mine.Write(greeting[16:])
			f.num()
			s := &tunnel{f: f}
			for {
				if n, err := s.num(); n == 0 || err != nil {
					break
				}
				f.importOne(s)
			}
			f.last()
			f.write(result)
		}()
		c, err := Connect(t.Context(), yours)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Import(t.Context(), bytes.NewReader(stream), nil)
		var p *ProtocolError
		want := map[string]string{"no paths": CodePath, "too many": CodeTooMany}[name]
		if want == "" {
			want = CodeAnswer
		}
		if !errors.As(err, &p) || p.Code != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An error of the daemon's leaves the connection in order, in every operation.
func TestSaidNo(t *testing.T) {
	for name, call := range calls(t) {
		b := said(messageNext, "why: ", messageError, "no\n\x1b[31m", 101, messageLast, 1)
		c, s := answer(t, append(b, said(messageLast, 1, messageLast, 1)...))
		var log strings.Builder
		c.Log = func(e Event) { log.WriteString(e.String()) }
		err := call(t.Context(), c)
		var e *Error
		if !errors.As(err, &e) || e.Status != StatusTimeout || e.Message != "no\n\x1b[31m" || errors.Is(err, ErrNotValid) || s.closed || log.String() != "why: " {
			t.Errorf("%s: %v, log %q", name, err, log.String())
		}
		if strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("%s: the daemon's bytes go to the terminal: %q", name, err.Error())
		}
		if valid, err := c.IsValid(t.Context(), parse(t, pathA)); !valid || err != nil {
			t.Errorf("%s: then %v, %v", name, valid, err)
		}
	}
}

// What a length promises is not allocated.
func TestMemory(t *testing.T) {
	for name, b := range map[string][]byte{
		"list":    said(messageLast, MaxPaths),
		"paths":   said(messageLast, MaxPaths, pathA, pathB),
		"error":   said(messageError, MaxMessage),
		"log":     said(messageNext, MaxMessage),
		"string":  said(messageLast, 1, 255),
		"strings": bytes.Repeat(said(messageNext, strings.Repeat("x", 100000)), 100),
	} {
		c, _ := answer(t, b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := c.AllValid(t.Context()); codeOf(t, err) != CodeTruncated {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
			t.Errorf("%s: %d bytes for an answer of %d", name, n, len(b))
		}
	}
	c, _ := answer(t, said(messageWrite, uint64(1<<62)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := c.Export(t.Context(), io.Discard, parse(t, pathA)); codeOf(t, err) == "" {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 512<<10 {
		t.Errorf("%d bytes for an export", n)
	}
}

// The gate keeps only what has not been judged.
func TestGateMemory(t *testing.T) {
	const size = 64 << 20
	from := newFake(t)
	item := &archive.Item{Path: parse(t, pathA)}
	pr, pw := io.Pipe()
	go func() {
		pw.CloseWithError(nar.WriteFile(pw, size, false, io.LimitReader(zeros{}, size)))
	}()
	sr, sw := io.Pipe()
	go func() {
		w := archive.NewWriter(sw, from.key)
		sw.CloseWithError(errors.Join(w.Add(item, pr), w.Close()))
	}()
	g := newGate(sr, nil)
	p := make([]byte, 32<<10)
	total := int64(0)
	for !g.ended() {
		n, err := g.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(n)
		if g.tap.kept.Cap() > 1<<20 {
			t.Fatalf("%d bytes kept", g.tap.kept.Cap())
		}
	}
	if total < size || len(g.paths) != 1 {
		t.Errorf("%d bytes, %v", total, g.paths)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Whatever a daemon answers, the client returns, with an error of its kinds.
func FuzzAnswer(f *testing.F) {
	all := calls(f)
	names := []string{"valid", "valids", "all", "info", "references", "referrers", "deriver", "derivers", "outputs", "hash", "substitute", "ensure",
		"temproot", "root", "roots", "verify", "options", "build", "garbage", "nar", "file", "text", "export", "import"}
	if len(names) != len(all) {
		f.Fatal("operations are missing")
	}
	fk := stocked(f)
	item := fk.stream(pathA, fk.items[pathA])
	for i := range names {
		f.Add(byte(i), said(messageNext, "@ build-log 1 5\nhello", messageLast, 1, pathA))
		f.Add(byte(i), said(messageError, "no", 1, messageLast, 0))
	}
	f.Add(byte(3), said(messageLast, drvA, strings.Repeat("0", 64), 2, pathA, pathB, 1, 1))
	f.Add(byte(10), said(messageLast, 1, pathA, "", 0, 1, 1))
	f.Add(byte(22), said(messageWrite, string(item[8:len(item)-8]), messageLast, 1))
	f.Add(byte(23), said(messageRead, 1<<20, messageRead, 1<<20, messageLast, 2, pathB, pathA))
	f.Fuzz(func(t *testing.T, op byte, b []byte) {
		c, s := answer(t, b)
		c.framed = len(b)%2 == 0
		logged := 0
		c.Log = func(e Event) { logged += len(e.String()) }
		err := all[names[int(op)%len(names)]](t.Context(), c)
		if logged > 2*len(b) {
			t.Errorf("%d bytes of log in %d", logged, len(b))
		}
		var p *ProtocolError
		var e *Error
		switch {
		case err == nil:
		case errors.As(err, &p):
			if !s.closed {
				t.Errorf("left open after %v", err)
			}
		case errors.As(err, &e), errors.Is(err, ErrNotValid):
		default:
			t.Errorf("%T: %v", err, err)
		}
	})
}

// The gate lets through the whole stream or nothing that ends a bad item.
func FuzzGate(f *testing.F) {
	_, stream := streamOf(f)
	small := newFake(f)
	small.items[pathB] = &fakeItem{file("b"), []string{pathA, pathB}, drvA}
	f.Add(small.stream(pathB, small.items[pathB]), uint16(3))
	f.Add(stream[:4000], uint16(100))
	f.Add(make([]byte, 8), uint16(8))
	f.Add([]byte{}, uint16(8))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		var want []storepath.Path
		z := archive.NewReader(bytes.NewReader(b))
		var err error
		for {
			if _, err = z.Next(); err != nil {
				break
			}
			var item *archive.Item
			if item, err = z.Item(); err != nil {
				break
			}
			want = append(want, item.Path)
		}
		g := newGate(bytes.NewReader(b), nil)
		var passed []byte
		p := make([]byte, int(size)+1)
		var gerr error
		for !g.ended() {
			var n int
			if n, gerr = g.Read(p); gerr != nil {
				break
			}
			passed = append(passed, p[:n]...)
		}
		if !bytes.HasPrefix(b, passed) {
			t.Fatal("other bytes came out")
		}
		if (err == io.EOF) != (gerr == nil) || err == io.EOF && len(passed) != len(b) {
			t.Fatalf("the reader says %v, the gate %v after %d of %d", err, gerr, len(passed), len(b))
		}
		if gerr != nil && err.Error() != gerr.Error() {
			t.Fatalf("the reader says %v, the gate %v", err, gerr)
		}
		if len(want) != len(g.paths) {
			t.Fatalf("%v, the gate let through %v", want, g.paths)
		}
		if gerr != nil {
			// What passed has no more items than those, and no end.
			z := archive.NewReader(bytes.NewReader(passed))
			n := 0
			for {
				if _, err := z.Next(); err == io.EOF {
					t.Fatal("the end passed")
				} else if err != nil {
					break
				}
				if _, err := z.Item(); err != nil {
					break
				}
				n++
			}
			if n != len(want) {
				t.Fatalf("%d items passed, %d are good", n, len(want))
			}
		}
	})
}

// A log means the same however it is cut.
func FuzzLog(f *testing.F) {
	f.Add("plain\n@ build-log 7 3\n@ x@ y z\n", uint8(2))
	f.Add("@ build-log 1 99999999999\nabc", uint8(1))
	f.Fuzz(func(t *testing.T, text string, size uint8) {
		a, b := events(true, text, len(text)+1), events(true, text, int(size)+1)
		if strings.Join(a, "\x01") != strings.Join(b, "\x01") {
			t.Errorf("%q\n%q", a, b)
		}
	})
}
