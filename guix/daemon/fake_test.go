package daemon

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// A fake is a daemon in memory. It speaks the protocol with code of its own, and reports as failures of
// the test whatever a client should not say.
type fake struct {
	t     testing.TB
	conn  net.Conn
	mu    sync.Mutex
	items map[string]*fakeItem
	roots [][2]string
	temp  []string
	opts  map[string]string
	flags []uint64
	key   signature.SecretKey
	read  uint64 // bytes to ask for at once
	step  uint64 // bytes of an export in a message
	log   string // sent at the beginning of each operation
	calls []uint64
	build func(f *fake, things []string, mode uint64) error
}

type fakeItem struct {
	nar     []byte
	refs    []string
	deriver string
}

type fakeError struct {
	message string
	status  uint64
}

func (e *fakeError) Error() string { return e.message }

func newFake(t testing.TB) *fake {
	key, err := signature.GenerateKey(rand.NewChaCha8([32]byte{7}))
	if err != nil {
		t.Fatal(err)
	}
	return &fake{t: t, items: make(map[string]*fakeItem), key: key, read: 32768, step: 32768}
}

// start runs the daemon and returns the client's end. The test ends after the daemon.
func (f *fake) start(version uint64) net.Conn {
	mine, yours := net.Pipe()
	f.conn = mine
	var wg sync.WaitGroup
	wg.Go(func() {
		defer mine.Close()
		f.serve(version)
	})
	f.t.Cleanup(func() {
		yours.Close()
		wg.Wait()
	})
	return yours
}

type gone struct{}

func (f *fake) serve(version uint64) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(gone); !ok {
				panic(r)
			}
		}
	}()
	f.want(f.num(), 0x6e697863, "magic")
	f.put(0x6478696f, version)
	f.want(f.num(), 0x164, "version")
	f.want(f.num(), 0, "affinity")
	f.want(f.num(), 0, "reserve")
	f.put(0x616c7473)
	for {
		op := f.num()
		f.mu.Lock()
		f.calls = append(f.calls, op)
		err := f.serve1(op)
		f.mu.Unlock()
		if err != nil {
			e, ok := err.(*fakeError)
			if !ok {
				e = &fakeError{err.Error(), 1}
			}
			f.put(0x63787470)
			f.puts(e.message)
			f.put(e.status)
		}
	}
}

func (f *fake) want(got, want uint64, what string) {
	if got != want {
		f.t.Errorf("the client sent %#x for %s, not %#x", got, what, want)
		panic(gone{})
	}
}

func (f *fake) Read(p []byte) (int, error) {
	n, err := f.conn.Read(p)
	if n == 0 && err != nil {
		panic(gone{})
	}
	return n, nil
}

func (f *fake) num() uint64 {
	var b [8]byte
	io.ReadFull(f, b[:])
	return binary.LittleEndian.Uint64(b[:])
}

func (f *fake) bool() bool {
	n := f.num()
	if n > 1 {
		f.want(n, 1, "a bool")
	}
	return n == 1
}

func (f *fake) str() string {
	b := make([]byte, f.num())
	io.ReadFull(f, b)
	pad := make([]byte, -len(b)&7)
	io.ReadFull(f, pad)
	if !bytes.Equal(pad, make([]byte, len(pad))) {
		f.t.Errorf("padding of %q is %x", b, pad)
	}
	return string(b)
}

func (f *fake) path() string {
	s := f.str()
	if _, err := storepath.Parse(s); err != nil {
		f.t.Errorf("the client sent the path %q: %v", s, err)
	}
	return s
}

func (f *fake) paths() []string {
	var all []string
	for range f.num() {
		all = append(all, f.path())
	}
	return all
}

func (f *fake) put(numbers ...uint64) {
	var b []byte
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	f.write(b)
}

func (f *fake) write(b []byte) {
	if len(b) == 0 {
		return // a pipe would wait for somebody who reads nothing
	}
	if _, err := f.conn.Write(b); err != nil {
		panic(gone{})
	}
}

func (f *fake) puts(list ...string) {
	for _, s := range list {
		f.put(uint64(len(s)))
		f.write(append([]byte(s), make([]byte, -len(s)&7)...))
	}
}

func (f *fake) putset(list []string) {
	list = slices.Clone(list)
	sort.Strings(list)
	f.put(uint64(len(list)))
	f.puts(list...)
}

func (f *fake) next(s string) {
	f.put(0x6f6c6d67)
	f.puts(s)
}

func (f *fake) last() { f.put(0x616c7473) }

// tunnel is the client's stream of an import.
type tunnel struct {
	f   *fake
	buf []byte
}

func (s *tunnel) Read(p []byte) (int, error) {
	if len(s.buf) == 0 {
		s.f.put(0x64617461, s.f.read)
		data := s.f.str()
		if uint64(len(data)) > s.f.read {
			s.f.t.Errorf("%d bytes, %d were asked for", len(data), s.f.read)
		}
		if data == "" {
			return 0, io.ErrUnexpectedEOF
		}
		s.buf = []byte(data)
	}
	n := copy(p, s.buf)
	s.buf = s.buf[n:]
	return n, nil
}

func (s *tunnel) num() (n uint64, err error) {
	err = binary.Read(s, binary.LittleEndian, &n)
	return n, err
}

func (s *tunnel) str() (string, error) {
	n, err := s.num()
	if err != nil || n > 1<<16 {
		return "", fmt.Errorf("a string of %d: %w", n, err)
	}
	b := make([]byte, (n+7)&^7)
	_, err = io.ReadFull(s, b)
	return string(b[:n]), err
}

func (f *fake) importOne(s *tunnel) (string, error) {
	var archived bytes.Buffer
	z := nar.NewReader(io.TeeReader(s, &archived))
	for {
		if _, err := z.Next(); err == io.EOF {
			break
		} else if err != nil {
			return "", err
		}
	}
	if n, err := s.num(); err != nil || n != 0x4558494e {
		return "", fmt.Errorf("magic %#x (%w)", n, err)
	}
	path, err := s.str()
	if err != nil {
		return "", err
	}
	if _, err := storepath.Parse(path); err != nil {
		f.t.Errorf("the client let through the path %q, and the store is gone", path)
	}
	item := &fakeItem{nar: archived.Bytes()}
	n, err := s.num()
	for range n {
		ref, err := s.str()
		if err != nil {
			return "", err
		}
		item.refs = append(item.refs, ref)
	}
	if err == nil {
		item.deriver, err = s.str()
	}
	if err != nil {
		return "", err
	}
	if n, err := s.num(); err != nil || n != 1 {
		return "", fmt.Errorf("%s lacks a signature (%w)", path, err)
	}
	if _, err := s.str(); err != nil {
		return "", err
	}
	f.items[path] = item
	return path, nil
}

func (f *fake) get(p string) (*fakeItem, error) {
	if item := f.items[p]; item != nil {
		return item, nil
	}
	return nil, fmt.Errorf("path `%s' is not valid", p)
}

func (f *fake) add(p storepath.Path, archived []byte, refs []string) string {
	f.items[p.String()] = &fakeItem{nar: archived, refs: refs}
	return p.String()
}

// results ends the talk and sends what follows.
func (f *fake) results(send func()) error {
	f.last()
	send()
	return nil
}

func (f *fake) one() error { return f.results(func() { f.put(1) }) }

func (f *fake) serve1(op uint64) error {
	hello := func() {
		if f.log != "" {
			f.next(f.log)
		}
	}
	flag := func(b bool) uint64 {
		if b {
			return 1
		}
		return 0
	}
	item := func() (string, *fakeItem, error) {
		p := f.path()
		hello()
		i, err := f.get(p)
		return p, i, err
	}
	switch op {
	case 1:
		p := f.path()
		hello()
		return f.results(func() { f.put(flag(f.items[p] != nil)) })
	case 5:
		_, i, err := item()
		if err != nil {
			return err
		}
		return f.results(func() { f.putset(i.refs) })
	case 6:
		p, _, err := item()
		if err != nil {
			return err
		}
		var all []string
		for q, i := range f.items {
			if slices.Contains(i.refs, p) {
				all = append(all, q)
			}
		}
		return f.results(func() { f.putset(all) })
	case 7:
		name := f.str()
		f.want(f.num(), 1, "obsolete")
		recursive := f.bool()
		algo := f.str()
		var archived, contents bytes.Buffer
		z := nar.NewReader(io.TeeReader(f, &archived))
		for {
			h, err := z.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				f.t.Errorf("the client sent a bad archive: %v", err)
				panic(gone{})
			}
			if h.Type == nar.Regular {
				io.Copy(&contents, z)
			}
		}
		hello()
		h, err := newHash(algo)
		if err != nil {
			return err
		}
		if recursive {
			h.Write(archived.Bytes())
		} else {
			h.Write(contents.Bytes())
		}
		p, err := storepath.FixedOutput(name, algo, recursive, h.Sum(nil))
		if err != nil {
			return err
		}
		return f.results(func() { f.puts(f.add(p, archived.Bytes(), nil)) })
	case 8:
		name, text := f.str(), f.str()
		refs := f.paths()
		hello()
		var parsed []storepath.Path
		for _, r := range refs {
			if _, err := f.get(r); err != nil {
				return err
			}
			p, _ := storepath.Parse(r)
			parsed = append(parsed, p)
		}
		p, err := storepath.Text(name, sha256.Sum256([]byte(text)), parsed)
		if err != nil {
			return err
		}
		var archived bytes.Buffer
		nar.WriteFile(&archived, int64(len(text)), false, strings.NewReader(text))
		return f.results(func() { f.puts(f.add(p, archived.Bytes(), refs)) })
	case 9:
		var things []string
		for range f.num() {
			things = append(things, f.str())
		}
		mode := f.num()
		hello()
		if err := f.build(f, things, mode); err != nil {
			return err
		}
		return f.one()
	case 10, 11:
		p, _, err := item()
		if op == 11 {
			f.temp = append(f.temp, p)
		} else if err != nil {
			return err
		}
		return f.one()
	case 12:
		f.roots = append(f.roots, [2]string{f.str(), ""})
		return f.one()
	case 14:
		return f.results(func() {
			f.put(uint64(len(f.roots)))
			for _, r := range f.roots {
				f.puts(r[0], r[1])
			}
		})
	case 16:
		p := f.path()
		f.want(f.num(), 1, "signing")
		hello()
		i, err := f.get(p)
		if err != nil {
			return err
		}
		b := f.stream(p, i)
		for b = b[8 : len(b)-8]; len(b) > 0; {
			n := min(len(b), int(f.step))
			f.put(0x64617416)
			f.puts(string(b[:n]))
			b = b[n:]
			hello()
		}
		return f.one()
	case 18:
		_, i, err := item()
		if err != nil {
			return err
		}
		return f.results(func() { f.puts(i.deriver) })
	case 19:
		f.flags = nil
		for range 9 {
			f.flags = append(f.flags, f.num())
		}
		f.opts = make(map[string]string)
		for range f.num() {
			name := f.str()
			f.opts[name] = f.str()
		}
		f.last()
		return nil
	case 20:
		action := f.num()
		paths := f.paths()
		f.want(f.num(), 0, "ignore liveness")
		most := f.num()
		for range 3 {
			f.want(f.num(), 0, "obsolete")
		}
		hello()
		var all []string
		freed := uint64(0)
		for p, i := range f.items {
			live := slices.ContainsFunc(f.roots, func(r [2]string) bool { return r[1] == p })
			switch {
			case action == 0 && live, action == 1 && !live:
				all = append(all, p)
			case action == 2 && !live && freed < most, action == 3 && slices.Contains(paths, p):
				all = append(all, p)
				freed += uint64(len(i.nar))
				delete(f.items, p)
			}
		}
		if action == 1 || action == 2 {
			all = append(all, "/gnu/store/tmp-left", "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.lock")
		}
		return f.results(func() { f.putset(all); f.put(freed, 0) })
	case 22:
		p, _, err := item()
		if err != nil {
			return err
		}
		var outs []string
		for q, i := range f.items {
			if i.deriver == p {
				outs = append(outs, q)
			}
		}
		return f.results(func() { f.putset(outs) })
	case 23:
		hello()
		var all []string
		for p := range f.items {
			all = append(all, p)
		}
		return f.results(func() { f.putset(all) })
	case 26:
		_, i, err := item()
		if err != nil {
			return err
		}
		sum := sha256.Sum256(i.nar)
		return f.results(func() {
			f.puts(i.deriver, hex.EncodeToString(sum[:]))
			f.putset(i.refs)
			f.put(1700000000, uint64(len(i.nar)))
		})
	case 27:
		hello()
		s := &tunnel{f: f}
		var done []string
		for {
			n, err := s.num()
			if err != nil {
				return err
			}
			if n == 0 {
				return f.results(func() { f.put(uint64(len(done))); f.puts(done...) })
			}
			if n != 1 {
				return errors.New("input doesn't look like something created by an export")
			}
			p, err := f.importOne(s)
			if err != nil {
				return err
			}
			done = append(done, p)
			f.next("importing path `" + p + "'\n")
		}
	case 29:
		hash := f.str()
		hello()
		found := ""
		for p := range f.items {
			if strings.HasPrefix(p, "/gnu/store/"+hash) {
				found = p
			}
		}
		return f.results(func() { f.puts(found) })
	case 30:
		paths := f.paths()
		hello()
		return f.results(func() {
			f.put(uint64(len(paths)))
			for _, p := range paths {
				f.puts(p, drvA)
				f.putset([]string{p})
				f.put(10, 20)
			}
		})
	case 31:
		paths := f.paths()
		hello()
		var valid []string
		for _, p := range paths {
			if f.items[p] != nil {
				valid = append(valid, p)
			}
		}
		slices.Sort(valid)
		valid = slices.Compact(valid)
		return f.results(func() { f.putset(valid) })
	case 33:
		_, i, err := item()
		if err != nil {
			return err
		}
		var all []string
		if i.deriver != "" {
			all = []string{i.deriver}
		}
		return f.results(func() { f.putset(all) })
	case 35:
		contents, repair := f.bool(), f.bool()
		hello()
		if repair {
			return errors.New("you are not privileged to repair paths")
		}
		return f.results(func() { f.put(flag(contents)) })
	}
	f.t.Errorf("the client sent operation %d", op)
	panic(gone{})
}

// stream is an export of one item.
func (f *fake) stream(p string, i *fakeItem) []byte {
	item := &archive.Item{}
	item.Path, _ = storepath.Parse(p)
	for _, r := range i.refs {
		ref, _ := storepath.Parse(r)
		item.References = append(item.References, ref)
	}
	if i.deriver != "" {
		item.Deriver, _ = storepath.Parse(i.deriver)
	}
	var b bytes.Buffer
	w := archive.NewWriter(&b, f.key)
	if err := errors.Join(w.Add(item, bytes.NewReader(i.nar)), w.Close()); err != nil {
		f.t.Error(err)
	}
	return b.Bytes()
}

const (
	pathA = "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a"
	pathB = "/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b"
	pathC = "/gnu/store/z1ifsjhqxcvzb115va975vn4vc5v4f1r-c"
	drvA  = "/gnu/store/81srfn47sm9135lkrw596p9k7f3s5kyz-a.drv"
)

func parse(t testing.TB, s string) storepath.Path {
	t.Helper()
	p, err := storepath.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func file(contents string) []byte {
	var b bytes.Buffer
	nar.WriteFile(&b, int64(len(contents)), false, strings.NewReader(contents))
	return b.Bytes()
}

// stocked is a fake with A, which refers to itself and B and was made by the derivation, which is there too.
func stocked(t testing.TB) *fake {
	f := newFake(t)
	f.items[pathA] = &fakeItem{file(strings.Repeat("a", 100000)), []string{pathA, pathB}, drvA}
	f.items[pathB] = &fakeItem{file("b"), nil, ""}
	f.items[drvA] = &fakeItem{file("Derive"), []string{pathB}, ""}
	f.roots = [][2]string{{"/var/guix/profiles/x", pathA}}
	return f
}
