package siem

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A book is a published ledger in memory.
type book struct {
	t       testing.TB
	station *trust.Key

	mu     sync.Mutex
	hashes []tlog.Hash
	leaves [][]byte
	files  fstest.MapFS
	at     ledger.Checkpoint
}

func newBook(t testing.TB) *book {
	return &book{t: t, station: newKey(t, "station/statement"), files: fstest.MapFS{}, at: ledger.Checkpoint{Origin: origin, Root: ledger.EmptyRoot()}}
}

func (b *book) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(b.hashes)) {
			return nil, errors.New("beyond the tree")
		}
		out[i] = b.hashes[x]
	}
	return out, nil
}

// grow appends entries up to a size and publishes them.
func (b *book) grow(size int64) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	batch := ledger.NewBatch(b.at.Size, b)
	for batch.Size() < size {
		n := batch.Size()
		leaf := sign(b.t, b.station, statement.KindSigned, map[string]any{"track": "dev"}, fmt.Sprintf("item %d", n))
		if _, err := batch.Append(leaf); err != nil {
			b.t.Fatal(err)
		}
	}
	c, err := batch.Checkpoint(origin)
	if err != nil {
		b.t.Fatal(err)
	}
	_, hashes := batch.Hashes()
	b.hashes = append(b.hashes, hashes...)
	b.leaves = append(b.leaves, batch.Leaves()...)
	files := fstest.MapFS{}
	for n, f := range b.files {
		files[n] = f
	}
	for _, t := range ledger.NewTiles(b.at.Size, size) {
		var data []byte
		if t.L < 0 {
			for _, l := range b.leaves[t.N*ledger.TileWidth:][:t.W] {
				data = ledger.AppendEntry(data, l)
			}
		} else if data, err = tlog.ReadTileData(t, b); err != nil {
			b.t.Fatal(err)
		}
		files[ledger.Path(t)] = &fstest.MapFile{Data: data}
	}
	b.files, b.at = files, c
}

func (b *book) log() (*ledger.Log, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return ledger.NewLog(b.files, b.at), nil
}

// follower tells a book.
func (b *book) follower(connect func(context.Context, *FileMark) (Sink, error)) *Follower {
	f := &Follower{To: -1, Log: b.log, Connect: connect, Interval: 10 * time.Millisecond, Say: b.t.Logf}
	f.Format = (*Record).JSON
	f.Keys = func(bool) (Keys, error) { return Keys{b.station.VKey()}, nil }
	f.Alarm = func(r *trust.Refusal) ([]byte, error) { return AlarmJSON(time.Unix(0, 0), origin, r) }
	return f
}

// resume takes up a cursor.
func (f *Follower) resume(t testing.TB, path string) *Cursor {
	t.Helper()
	c, at, ok, err := OpenCursor(path)
	if err != nil {
		t.Fatal(err)
	}
	if ok {
		f.At, f.Next = at, at.Told.Size
	}
	f.Told = c.Save
	return c
}

// indexes reads which entries lines tell, in order.
func indexes(t testing.TB, lines []byte) []int64 {
	t.Helper()
	var all []int64
	for line := range bytes.Lines(lines) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil || line[len(line)-1] != '\n' || r.Type != "entry" || r.Signature != Good {
			t.Fatalf("%v: %q", err, line)
		}
		all = append(all, r.Index)
	}
	return all
}

// once fails unless each index up to n stands there once, in order.
func wantOnce(t testing.TB, have []int64, n int64) {
	t.Helper()
	for i, x := range have {
		if x != int64(i) {
			t.Fatalf("line %d tells entry %d", i, x)
		}
	}
	if int64(len(have)) != n {
		t.Fatalf("%d lines of %d", len(have), n)
	}
}

// A failing sink lets some messages through, and then a part of one more batch, as when a process dies in the middle of writing.
type failing struct {
	Sink
	f     *os.File
	left  int
	flush bool // it dies in Flush, after everything was written
}

var errDied = errors.New("died")

func (s *failing) Send(ctx context.Context, m [][]byte) error {
	if s.left--; s.left < 0 {
		b := Lines.frame(m)
		s.f.WriteAt(b[:len(b)*2/3], int64(s.Mark().Size))
		return errDied
	}
	return s.Sink.Send(ctx, m)
}

func (s *failing) Flush(ctx context.Context) error {
	if err := s.Sink.Flush(ctx); err != nil || !s.flush {
		return err
	}
	return errDied
}

// TestFileOnce: whatever a run that died left in the file, at the end each line is there once.
func TestFileOnce(t *testing.T) {
	b := newBook(t)
	b.grow(Batch*3 + 100)
	dir := t.TempDir()
	out, cursor := filepath.Join(dir, "out"), filepath.Join(dir, "cursor")
	for round, how := range []failing{{left: 0}, {left: 1}, {left: 3}, {left: 100, flush: true}, {left: 2, flush: true}} {
		f := b.follower(func(_ context.Context, last *FileMark) (Sink, error) {
			sink, err := ToFile(out, last)
			if err != nil {
				return nil, err
			}
			s := how
			s.Sink, s.f = sink, sink.(*file).f
			return &s, nil
		})
		c := f.resume(t, cursor)
		if err := f.Run(t.Context()); !errors.Is(err, errDied) {
			t.Fatalf("round %d: %v", round, err)
		}
		c.Close()
	}
	for _, size := range []int64{b.at.Size, b.at.Size, b.at.Size + 1, b.at.Size + 700} {
		b.grow(size)
		f := b.follower(func(_ context.Context, last *FileMark) (Sink, error) { return ToFile(out, last) })
		c := f.resume(t, cursor)
		if err := f.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		wantOnce(t, indexes(t, data), size)
	}
	// The file is put aside: a new one goes on where the old one ended, and neither is cut.
	old := out + ".1"
	if err := os.Rename(out, old); err != nil {
		t.Fatal(err)
	}
	before := b.at.Size
	b.grow(before + 10)
	if err := os.WriteFile(out, []byte("# begun by another program\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := b.follower(func(_ context.Context, last *FileMark) (Sink, error) { return ToFile(out, last) })
	c := f.resume(t, cursor)
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	first, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	wantOnce(t, indexes(t, first), before)
	second, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	rest, ok := bytes.CutPrefix(second, []byte("# begun by another program\n"))
	if got := indexes(t, rest); !ok || len(got) != 10 || got[0] != before {
		t.Errorf("the new file tells %v", got)
	}
}

func TestToFileRefuses(t *testing.T) {
	if _, err := ToFile(t.TempDir(), nil); err == nil {
		t.Error("a directory is written to")
	}
	if _, err := ToFile("/dev/null", nil); err == nil {
		t.Error("a device is written to")
	}
}

// TestForkIsAlarm: a ledger that does not go on from what was told ends the follower, with the refusal and a line to the receiver.
func TestForkIsAlarm(t *testing.T) {
	one, other := newBook(t), newBook(t)
	other.station = one.station
	one.grow(300)
	other.grow(10)
	other.station = newKey(t, "station/statement")
	other.grow(400)
	small := newBook(t)
	small.station = one.station
	small.grow(200)
	for code, now := range map[string]*book{"ledger-fork": other, "ledger-rollback": small} {
		cursor := filepath.Join(t.TempDir(), "cursor")
		var told bytes.Buffer
		f := one.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(&told), nil })
		c := f.resume(t, cursor)
		if err := f.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.Close()
		wantOnce(t, indexes(t, told.Bytes()), 300)
		kept, err := os.ReadFile(cursor)
		if err != nil {
			t.Fatal(err)
		}
		told.Reset()
		f = now.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(&told), nil })
		f.Follow = true
		c = f.resume(t, cursor)
		err = f.Run(t.Context())
		c.Close()
		if rs, ok := trust.AsRefusals(err); !ok || !rs.Has(code) {
			t.Errorf("%s: %v", code, err)
		}
		var a struct{ Type, Code, Origin string }
		if err := json.Unmarshal(told.Bytes(), &a); err != nil || a.Type != "alarm" || a.Code != code || a.Origin != origin {
			t.Errorf("%s: %v, told %s", code, err, &told)
		}
		if again, err := os.ReadFile(cursor); err != nil || !bytes.Equal(again, kept) {
			t.Errorf("%s: %v, the cursor moved", code, err)
		}
	}
	// A damaged bundle: nothing of it is told, and an alarm is.
	var told bytes.Buffer
	one.files = fstest.MapFS{}
	f := one.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(&told), nil })
	if err := f.Run(t.Context()); err == nil || !strings.HasPrefix(told.String(), `{"type":"alarm"`) || bytes.Count(told.Bytes(), []byte("\n")) != 1 {
		t.Errorf("%v; told %s", err, &told)
	}
}

func TestBounds(t *testing.T) {
	b := newBook(t)
	b.grow(20)
	for _, tt := range []struct {
		from, to, first, n int64
		err                bool
	}{{0, -1, 0, 20, false}, {5, 9, 5, 5, false}, {19, 19, 19, 1, false}, {20, -1, 0, 0, false}, {21, -1, 0, 0, true}, {0, 20, 0, 0, true}} {
		var told bytes.Buffer
		f := b.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(&told), nil })
		f.Next, f.To = tt.from, tt.to
		err := f.Run(t.Context())
		got := indexes(t, told.Bytes())
		if (err != nil) != tt.err || tt.err && !errors.Is(err, ErrBeyond) || int64(len(got)) != tt.n || tt.n > 0 && got[0] != tt.first {
			t.Errorf("%d to %d: %v, %v", tt.from, tt.to, err, got)
		}
	}
}

// TestKeysComeLater: an entry by a key that a later root names is good once that root is there.
func TestKeysComeLater(t *testing.T) {
	b := newBook(t)
	b.grow(600)
	var told bytes.Buffer
	f := b.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(&told), nil })
	asked := 0
	f.Keys = func(again bool) (Keys, error) {
		if asked++; !again {
			return Keys{}, nil
		}
		return Keys{b.station.VKey()}, nil
	}
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantOnce(t, indexes(t, told.Bytes()), 600)
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// A receiver takes what is sent to a socket, in one framing.
type receiver struct {
	mu    sync.Mutex
	index []int64
}

func (r *receiver) add(line []byte) error {
	var rec Record
	if err := json.Unmarshal(line, &rec); err != nil {
		return fmt.Errorf("%w: %q", err, line)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index = append(r.index, rec.Index)
	return nil
}

// whole says whether every entry up to n was received, in order but for what came again.
func (r *receiver) whole(n int64) (again int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := int64(0)
	for _, i := range r.index {
		switch {
		case i == next:
			next++
		case i < next:
			again++
			if i+Batch*Between < next {
				return again, fmt.Errorf("entry %d comes again behind %d", i, next-1)
			}
		default:
			return again, fmt.Errorf("entry %d comes behind %d", i, next-1)
		}
	}
	if next != n {
		return again, fmt.Errorf("%d entries of %d", next, n)
	}
	return again, nil
}

// serve takes connections. Of each it reads some messages, as many as quota says, and hangs up without a word, leaving unread what is there.
func (r *receiver) serve(t *testing.T, l net.Listener, framing Framing, quota func() int) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewReaderSize(c, 512) // so that most of what is on its way stays with the kernel
		for n := quota(); n != 0; n-- {
			var line []byte
			if framing == Octets {
				head, err := in.ReadString(' ')
				if err != nil {
					break
				}
				size, err := strconv.Atoi(strings.TrimSuffix(head, " "))
				if err != nil {
					t.Errorf("length %q", head)
					break
				}
				line = make([]byte, size)
				if _, err := io.ReadFull(in, line); err != nil {
					break
				}
			} else if line, err = in.ReadBytes('\n'); err != nil {
				break
			}
			if err := r.add(line); err != nil {
				t.Error(err)
			}
		}
		c.Close()
	}
}

// follow runs a follower that sends to an address, while the book grows, until everything was received.
func follow(t *testing.T, b *book, a Address, framing Framing, r *receiver, size int64) (again int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := b.follower(func(ctx context.Context, _ *FileMark) (Sink, error) { return Dial(ctx, a, framing) })
	f.Follow, f.Retry = true, true
	f.Interval = time.Millisecond
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for n := int64(100); n < size; n += 333 {
		b.grow(n)
		time.Sleep(2 * time.Millisecond)
	}
	b.grow(size)
	for ctx.Err() == nil {
		var err error
		if again, err = r.whole(size); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	again, err := r.whole(size)
	if err != nil {
		t.Error(err)
	}
	return again
}

// shortDir is a directory for sockets, whose names have to be short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "siem")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// TestStreams: a receiver that hangs up again and again misses nothing that it did not read.
func TestStreams(t *testing.T) {
	for _, framing := range []Framing{Lines, Octets} {
		b := newBook(t)
		path := filepath.Join(shortDir(t), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var r receiver
		n := 0
		go r.serve(t, l, framing, func() int {
			if n++; n > 6 {
				return -1
			}
			return 17 * n
		})
		if again := follow(t, b, Address{"unix", path}, framing, &r, 1500); again == 0 {
			t.Error("nothing came again: the receiver never hung up")
		}
	}
}

// TestTCP: whoever reads what arrived and hangs up between two batches misses nothing either.
func TestTCP(t *testing.T) {
	b := newBook(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var r receiver
	conns := make(chan net.Conn, 64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns <- c
			in := bufio.NewReader(c)
			for {
				line, err := in.ReadBytes('\n')
				if err != nil {
					break
				}
				if err := r.add(line); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	f := b.follower(func(ctx context.Context, _ *FileMark) (Sink, error) {
		return Dial(ctx, Address{"tcp", l.Addr().String()}, Lines)
	})
	f.Follow, f.Retry, f.Interval = true, true, time.Millisecond
	told := make(chan int64, 1000)
	f.Told = func(at Position) error { told <- at.Told.Size; return nil }
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for n := int64(10); n <= 60; n += 10 {
		b.grow(n)
		// Everything that was acknowledged is read before it hangs up.
		for size := int64(0); size < n && ctx.Err() == nil; {
			select {
			case size = <-told:
			case <-ctx.Done():
			}
		}
		for ctx.Err() == nil {
			if _, err := r.whole(n); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		select {
		case c := <-conns:
			c.Close()
		case <-ctx.Done():
			t.Fatalf("of %d entries: %v", n, ctx.Err())
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := r.whole(60); err != nil {
		t.Error(err)
	}
}

// TestHalfClosed: a receiver that has closed its own direction, as many do that never say a word, is sent to.
func TestHalfClosed(t *testing.T) {
	b := newBook(t)
	b.grow(20)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		c.(*net.TCPConn).CloseWrite()
		data, _ := io.ReadAll(c)
		got <- data
	}()
	f := b.follower(func(ctx context.Context, _ *FileMark) (Sink, error) {
		s, err := Dial(ctx, Address{"tcp", l.Addr().String()}, Lines)
		time.Sleep(20 * time.Millisecond)
		return s, err
	})
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantOnce(t, indexes(t, <-got), 20)
}

// TestDatagrams: to a socket as /dev/log a message is a datagram.
func TestDatagrams(t *testing.T) {
	b := newBook(t)
	path := filepath.Join(shortDir(t), "log")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var r receiver
	go func() {
		buf := make([]byte, 1<<17)
		for {
			n, err := l.Read(buf)
			if err != nil {
				return
			}
			if err := r.add(buf[:n]); err != nil {
				t.Error(err)
			}
		}
	}()
	if again := follow(t, b, Address{"unix", path}, Octets, &r, 900); again != 0 {
		t.Errorf("%d came again", again)
	}
}

// TestNobodyListens: without --follow a receiver that is not there is a failure, of the sink.
func TestNobodyListens(t *testing.T) {
	b := newBook(t)
	b.grow(3)
	for _, a := range []Address{{"unix", filepath.Join(t.TempDir(), "none")}, {"tcp", "127.0.0.1:1"}} {
		f := b.follower(func(ctx context.Context, _ *FileMark) (Sink, error) { return Dial(ctx, a, Lines) })
		f.Retry = true
		var sink *SinkError
		if err := f.Run(t.Context()); !errors.As(err, &sink) {
			t.Errorf("%v: %v", a, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for s, want := range map[string]string{
		"unix:/dev/log": "unix /dev/log", "tcp:siem:601": "tcp siem:601", "tcp:[::1]:601": "tcp [::1]:601",
		"": "", "unix:": "", "unix:dev/log": "", "tcp:601": "", "tcp::601": "", "tcp:h:0": "", "tcp:h:65536": "", "tcp:h:x": "", "udp:h:514": "", "/dev/log": "", "http://h:1": "",
	} {
		a, err := ParseAddress(s)
		if (err == nil) != (want != "") || err == nil && a.Network+" "+a.Name != want {
			t.Errorf("%q: %v, %v", s, a, err)
		}
	}
}

func TestCursor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cursor")
	c, _, ok, err := OpenCursor(path)
	if err != nil || ok {
		t.Fatal(err, ok)
	}
	if _, _, _, err := OpenCursor(path); !errors.Is(err, ErrHeld) {
		t.Errorf("a second holder: %v", err)
	}
	for _, p := range []Position{
		{Told: ledger.Checkpoint{Origin: origin, Size: 7, Root: tlog.Hash{1}}},
		{Told: ledger.Checkpoint{Origin: origin, Root: ledger.EmptyRoot()}, File: &FileMark{1 << 63, 1<<63 - 1}},
	} {
		// What a run left that was killed while it wrote.
		if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Save(p); err != nil {
			t.Fatal(err)
		}
		c.Close()
		var got Position
		if c, got, ok, err = OpenCursor(path); err != nil || !ok || got.Told != p.Told || (got.File == nil) != (p.File == nil) || p.File != nil && *got.File != *p.File {
			t.Errorf("%v: %+v, want %+v", err, got, p)
		}
	}
	c.Close()
	for _, s := range []string{"", "x", "sallyport cursor v1\n", "sallyport cursor v1\norigin a\nnext 01\ntree AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"} {
		if err := os.WriteFile(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := OpenCursor(path); err == nil {
			t.Errorf("%q: it is a cursor", s)
		}
	}
}

func FuzzCursor(f *testing.F) {
	f.Add(Position{Told: ledger.Checkpoint{Origin: origin, Size: 7, Root: tlog.Hash{1}}}.text())
	f.Add(Position{Told: ledger.Checkpoint{Origin: origin, Size: 0, Root: ledger.EmptyRoot()}, File: &FileMark{3, 4}}.text())
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := parsePosition(data); err == nil && !bytes.Equal(p.text(), data) {
			t.Errorf("prints as %q", p.text())
		}
	})
}

func BenchmarkExport(b *testing.B) {
	k := newBook(b)
	const n = 20_000
	k.grow(n)
	log := Syslog{Facility: 13, Host: "gate", Enterprise: DocumentationNumber}
	for name, set := range map[string]func(f *Follower){
		"jsonl":             func(*Follower) {},
		"jsonl, unverified": func(f *Follower) { f.Keys = nil },
		"syslog":            func(f *Follower) { f.Format = func(r *Record) ([]byte, error) { return log.Message(r), nil } },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f := k.follower(func(context.Context, *FileMark) (Sink, error) { return ToWriter(io.Discard), nil })
				set(f)
				if err := f.Run(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
