package cas

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/durable/durabletest"
	"sallyport/internal/trust"
)

// childEnv makes this test binary the writer that is killed, or the one on a small file system.
const childEnv = "SALLYPORT_CAS_CHILD"

func TestMain(m *testing.M) {
	switch mode, dir, _ := strings.Cut(os.Getenv(childEnv), ":"); mode {
	case "write":
		childWrite(dir)
	case "full":
		childFull(dir)
	}
	os.Exit(m.Run())
}

func newStore(t *testing.T, calls durable.Calls) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cas")
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	s, err := OpenCalls(dir, calls)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func blob(n int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func tmpFiles(t *testing.T, s *Store) int {
	t.Helper()
	names, err := os.ReadDir(filepath.Join(s.dir, tmpDir))
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestInAndOut(t *testing.T) {
	s := newStore(t, durable.OS{})
	for _, n := range []int{0, 1, 4096, copyBuffer - 1, copyBuffer, 3*copyBuffer + 17} {
		b := blob(n)
		d := trust.Sum(b)
		if err := s.Put(iotest.HalfReader(bytes.NewReader(b)), d, int64(n)); err != nil {
			t.Fatal(n, err)
		}
		if err := s.Put(bytes.NewReader(b), d, int64(n)); err != nil { // again: nothing changes
			t.Fatal(n, err)
		}
		if size, ok := s.Has(d); !ok || size != int64(n) {
			t.Error(n, size, ok)
		}
		r, err := s.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(n) {
			t.Error(n, r.Size())
		}
		if err := iotest.TestReader(r, b); err != nil && n > 0 {
			t.Error(n, err)
		}
		r.Close()
		got, err := s.ReadAll(d, int64(n))
		if err != nil || !bytes.Equal(got, b) {
			t.Error(n, len(got), err)
		}
		if n > 0 {
			if _, err := s.ReadAll(d, int64(n)-1); err == nil {
				t.Error("more than the limit was read")
			}
		}
		if err := s.Check(d); err != nil {
			t.Error(err)
		}
	}
	var n int
	var last trust.Digest
	if err := s.Walk(func(d trust.Digest, size int64) error {
		if bytes.Compare(last[:], d[:]) > 0 {
			t.Error("not in order")
		}
		last = d
		n++
		return nil
	}); err != nil || n != 6 {
		t.Error(n, err)
	}
	if tmpFiles(t, s) != 0 {
		t.Error("temporary files left")
	}
	if _, err := s.Open(trust.Sum([]byte("other"))); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if err := s.Remove(last); err != nil {
		t.Error(err)
	}
	if err := s.Remove(last); err != nil {
		t.Error("removing twice:", err)
	}
	if _, ok := s.Has(last); ok {
		t.Error("removed and still there")
	}
	removed, _, err := s.Sweep(func(d trust.Digest) bool { return d == trust.Sum(nil) })
	if err != nil || removed != 4 {
		t.Error(removed, err)
	}
	if _, ok := s.Has(trust.Sum(nil)); !ok {
		t.Error("what was to be kept was swept")
	}
	os.WriteFile(filepath.Join(s.dir, "e3", "stranger"), nil, 0o644)
	if err := s.Walk(func(trust.Digest, int64) error { return nil }); err == nil {
		t.Error("a stranger in the store was not noticed")
	}
}

func TestRefusedOnTheWayIn(t *testing.T) {
	s := newStore(t, durable.OS{})
	b := blob(1000)
	d := trust.Sum(b)
	flipped := bytes.Clone(b)
	flipped[500] ^= 1
	var mismatch *MismatchError
	for what, err := range map[string]error{
		"flipped":   s.Put(bytes.NewReader(flipped), d, 1000),
		"short":     s.Put(bytes.NewReader(b[:999]), d, 1000),
		"long":      s.Put(bytes.NewReader(append(bytes.Clone(b), 0)), d, 1000),
		"long size": s.Put(bytes.NewReader(b), d, 999),
	} {
		if !errors.As(err, &mismatch) {
			t.Errorf("%s: %v, want a mismatch", what, err)
		}
	}
	if err := s.Put(iotest.ErrReader(io.ErrUnexpectedEOF), d, 1000); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	w, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	w.Abort()
	if _, err := w.Write(b); err == nil {
		t.Error("writing after Abort")
	}
	if _, _, err := w.Commit(trust.Digest{}); err == nil {
		t.Error("commit after Abort")
	}
	if _, ok := s.Has(d); ok || tmpFiles(t, s) != 0 {
		t.Error("something was kept")
	}
}

// A blob that changed on the disk never ends in io.EOF.
func TestRefusedOnTheWayOut(t *testing.T) {
	b := blob(copyBuffer + 100)
	d := trust.Sum(b)
	for what, spoil := range map[string]func(path string) error{
		"first bit": func(p string) error { return flip(p, 0) },
		"last bit":  func(p string) error { return flip(p, int64(len(b)-1)) },
		"cut":       func(p string) error { return os.Truncate(p, int64(len(b)-1)) },
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
		"extended":  func(p string) error { return os.Truncate(p, int64(len(b)+1)) },
	} {
		s := newStore(t, durable.OS{})
		if _, err := s.PutBytes(b); err != nil {
			t.Fatal(err)
		}
		os.Chmod(s.path(d), 0o600)
		if err := spoil(s.path(d)); err != nil {
			t.Fatal(err)
		}
		var corrupt *CorruptError
		if err := s.Check(d); !errors.As(err, &corrupt) {
			t.Errorf("%s: Check: %v", what, err)
		}
		if _, err := s.ReadAll(d, 1<<30); !errors.As(err, &corrupt) {
			t.Errorf("%s: ReadAll: %v", what, err)
		}
		// Taking it in again heals it.
		if _, err := s.PutBytes(b); err != nil {
			t.Fatal(err)
		}
		if err := s.Check(d); err != nil {
			t.Errorf("%s: after healing: %v", what, err)
		}
	}
	// Cut or grown while it is being read.
	for _, size := range []int64{10, int64(len(b)) + 10} {
		s := newStore(t, durable.OS{})
		s.PutBytes(b)
		r, err := s.Open(d)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(r, make([]byte, 5))
		os.Chmod(s.path(d), 0o600)
		os.Truncate(s.path(d), size)
		var corrupt *CorruptError
		if _, err := io.Copy(io.Discard, r); !errors.As(err, &corrupt) {
			t.Errorf("changed to %d bytes while read: %v", size, err)
		}
		if _, err := r.Read(make([]byte, 1)); !errors.As(err, &corrupt) {
			t.Error("the error does not stick")
		}
		r.Close()
	}
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	return err
}

func TestFaults(t *testing.T) {
	b := blob(5000)
	d := trust.Sum(b)
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			c := &durabletest.Faulty{Inner: durable.OS{}, Fail: func(n int, _, _ string) (bool, bool) { return n == at, done }}
			s := newStore(t, c)
			err := s.Put(bytes.NewReader(b), d, int64(len(b)))
			if c.Calls() < at {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if !errors.Is(err, durabletest.ErrInjected) {
				t.Fatalf("call %d, done %v: %v", at, done, err)
			}
			// Not there, or there and whole.
			if _, ok := s.Has(d); ok {
				if err := s.Check(d); err != nil {
					t.Errorf("call %d, done %v: %v", at, done, err)
				}
			}
			if err := s.SweepTemp(); err != nil || tmpFiles(t, s) != 0 {
				t.Errorf("call %d, done %v: temporary files stay: %v", at, done, err)
			}
			if err := s.Put(bytes.NewReader(b), d, int64(len(b))); err != nil {
				t.Errorf("call %d, done %v: again: %v", at, done, err)
			}
		}
	}
}

// What Put has reported survives a power failure; what it had not reported is whole or not there.
func TestPowerFailure(t *testing.T) {
	c := &durabletest.Crash{Spare: t.TempDir()}
	s := newStore(t, c)
	for n := range 20 {
		b := blob(n * 100)
		if _, err := s.PutBytes(b); err != nil {
			t.Fatal(err)
		}
		w, err := s.Create() // one under way at the time
		if err != nil {
			t.Fatal(err)
		}
		w.Write(b)
		c.Lose()
		w.Abort()
		for m := range n + 1 {
			if err := s.Check(trust.Sum(blob(m * 100))); err != nil {
				t.Fatalf("after %d: %v", n, err)
			}
		}
	}
	if err := s.Walk(func(d trust.Digest, _ int64) error { return s.Check(d) }); err != nil {
		t.Error(err)
	}
}

// childWrite puts blobs in until it is killed.
func childWrite(dir string) {
	s, err := Open(dir)
	if err != nil {
		panic(err)
	}
	for n := 0; ; n++ {
		if n == 2 {
			os.Stdout.Write([]byte("go\n"))
		}
		if _, err := s.PutBytes(blob(n%50*7919 + os.Getpid())); err != nil {
			panic(err)
		}
	}
}

func TestKill(t *testing.T) {
	s := newStore(t, durable.OS{})
	for range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=write:"+s.dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		io.ReadFull(out, make([]byte, 3))
		for range 3 { // sweeping beside a living writer
			if err := s.SweepTemp(); err != nil {
				t.Error(err)
			}
		}
		w, err := s.Create()
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte("mine"))
		time.Sleep(rand.N(20 * time.Millisecond))
		cmd.Process.Kill()
		cmd.Wait()
		if err := s.SweepTemp(); err != nil {
			t.Error(err)
		}
		if n := tmpFiles(t, s); n != 1 {
			t.Errorf("%d temporary files, want the one that is being written", n)
		}
		if _, _, err := w.Commit(trust.Sum([]byte("mine"))); err != nil {
			t.Error(err)
		}
	}
	n := 0
	if err := s.Walk(func(d trust.Digest, _ int64) error { n++; return s.Check(d) }); err != nil {
		t.Error(err)
	}
	if n < 2 {
		t.Errorf("%d blobs; the child did nothing", n)
	}
}

// childFull fills a file system of 1 MiB.
func childFull(dir string) {
	fail := func(v ...any) {
		for _, v := range v {
			switch v := v.(type) {
			case error:
				os.Stdout.WriteString(v.Error())
			case string:
				os.Stdout.WriteString(v + " ")
			}
		}
		os.Exit(1)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		fail("SKIP mount:", err)
	}
	dir = filepath.Join(dir, "cas")
	if err := Create(dir); err != nil {
		fail(err)
	}
	s, err := Open(dir)
	if err != nil {
		fail(err)
	}
	small := blob(100_000)
	if _, err := s.PutBytes(small); err != nil {
		fail(err)
	}
	big := blob(2_000_000)
	for range 3 {
		err := s.Put(bytes.NewReader(big), trust.Sum(big), int64(len(big)))
		if !errors.Is(err, syscall.ENOSPC) {
			fail("want ENOSPC, have", err)
		}
		names, _ := os.ReadDir(filepath.Join(dir, tmpDir))
		if len(names) != 0 {
			fail("a temporary file stays")
		}
	}
	if err := s.Check(trust.Sum(small)); err != nil {
		fail(err)
	}
	// The room is there again.
	if _, err := s.PutBytes(blob(700_000)); err != nil {
		fail(err)
	}
	os.Exit(0)
}

func TestDiskFull(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=full:"+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case strings.HasPrefix(string(out), "SKIP"):
		t.Skipf("a full disk is NOT tested: %s; a kernel that lets users mount tmpfs in their own namespace is needed", out)
	case len(out) == 0 && err != nil:
		t.Skipf("a full disk is NOT tested: no user namespace: %v; allow them (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)", err)
	case err != nil:
		t.Errorf("%s", out)
	}
}

func BenchmarkPut(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "cas")
	Create(dir)
	s, _ := Open(dir)
	data := blob(8 << 20)
	d := trust.Sum(data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := s.Put(bytes.NewReader(data), d, int64(len(data))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "cas")
	Create(dir)
	s, _ := Open(dir)
	data := blob(8 << 20)
	d, err := s.PutBytes(data)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := s.Check(d); err != nil {
			b.Fatal(err)
		}
	}
}
