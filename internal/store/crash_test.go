package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/durable/durabletest"
)

// childEnv makes this test binary a process that commits, in one of several ways.
const childEnv = "SALLYPORT_STORE_CHILD"

func TestMain(m *testing.M) {
	if mode, rest, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		if err := child(mode, rest); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode, arg string) error {
	ctx := context.Background()
	switch mode {
	case "loop", "record": // commits until it is killed, and prints what has been announced
		z, err := Open(ctx, arg, Options{Clock: testClock})
		if err != nil {
			return err
		}
		commit := z.Commit
		if mode == "record" {
			commit = z.Record
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		base := rand.Int64N(1 << 40)
		for k := range int64(4) {
			wg.Go(func() {
				for n := int64(0); ; n++ {
					at := int64(0)
					err := commit(ctx, func(tx *Tx) error {
						at = tx.Size()
						if n%5 == 0 {
							if err := tx.Publish(fmt.Sprintf("note/%d", at), fmt.Append(nil, at)); err != nil {
								return err
							}
						}
						return collected(tx, base+n*10+k)
					})
					published := false
					if mode == "record" && err == nil && n%7 == k {
						err, published = z.Published(ctx), true
					}
					mu.Lock()
					if err != nil {
						fmt.Println("failed:", err)
					} else if published {
						fmt.Println("published", at)
					} else {
						fmt.Println(at)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
	case "count": // commits a number of entries
		dir, count, _ := strings.Cut(arg, ":")
		n, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			return err
		}
		z, err := Open(ctx, dir, Options{Clock: testClock})
		if err != nil {
			return err
		}
		for i := range n {
			if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, int64(os.Getpid())*1_000_000+i) }); err != nil {
				return err
			}
		}
		return z.Close()
	case "full":
		return childFull(arg)
	}
	return fmt.Errorf("no mode %q", mode)
}

func command(t *testing.T, mode string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+mode)
	return cmd
}

// A process that commits is killed at a random moment, ten times. Nothing that
// it has announced is lost, nothing is half done, and whoever comes next finds
// the log sound and goes on.
func TestKill(t *testing.T) {
	dir := testInit(t, Inside)
	var announced int64
	for round := range 10 {
		cmd := command(t, "loop:"+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The clock runs from the child's first word: on a busy machine it may not have begun earlier.
		stuck := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
		var once sync.Once
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			once.Do(func() { time.AfterFunc(rand.N(300*time.Millisecond), func() { cmd.Process.Kill() }) })
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil {
				if strings.HasPrefix(lines.Text(), "failed") {
					t.Errorf("round %d: %s", round, lines.Text())
				}
				continue // the last line may be cut
			}
			announced = max(announced, n)
		}
		cmd.Wait()
		stuck.Stop()
		// What was announced is published before anybody heals anything.
		raw, err := os.ReadFile(filepath.Join(dir, "public/ledger/checkpoint"))
		if err != nil {
			t.Fatal(err)
		}
		if size, _ := strconv.ParseInt(strings.Split(string(raw), "\n")[1], 10, 64); size <= announced {
			t.Fatalf("round %d: entry %d was announced, the published size is %d", round, announced, size)
		}
		z := testOpen(t, dir, Options{})
		sound(t, z, -1)
		rows, err := z.Read(context.Background()).QueryContext(context.Background(), "SELECT path FROM public")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			var path string
			rows.Scan(&path)
			if b, err := z.ReadPublic(path); err != nil || path != "note/"+string(b) {
				t.Errorf("round %d: %s: %q, %v", round, path, b, err)
			}
		}
		rows.Close()
		z.Close()
		if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
			t.Errorf("round %d: %d temporary files stay", round, len(left))
		}
	}
	if announced < 10 {
		t.Errorf("only %d entries were announced in ten rounds", announced)
	}
}

// Processes and zones in one process that commit to one directory at once.
func TestProcesses(t *testing.T) {
	dir := testInit(t, Inside)
	const processes, zones, each = 3, 2, 40
	var wg sync.WaitGroup
	for range processes {
		cmd := command(t, fmt.Sprintf("count:%s:%d", dir, each))
		wg.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	for k := range int64(zones) {
		z := testOpen(t, dir, Options{})
		wg.Go(func() {
			for n := range int64(each) {
				if err := z.Commit(context.Background(), func(tx *Tx) error { return collected(tx, k*each+n) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	// Meanwhile somebody opens, looks, and sees the log only ever grow.
	stop := make(chan struct{})
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		var last int64
		for {
			select {
			case <-stop:
				return
			default:
			}
			z, err := Open(context.Background(), dir, Options{Clock: testClock})
			if err != nil {
				t.Error(err)
				return
			}
			_, c, err := z.Checkpoint()
			if err != nil || c.Size < last {
				t.Error(c, last, err)
			}
			last = c.Size
			z.Close()
		}
	}()
	wg.Wait()
	close(stop)
	<-watched
	sound(t, testOpen(t, dir, Options{}), 1+(processes+zones)*each)
}

// Every system call of publishing fails once: before it is done, and after. The
// deed stands either way, the caller is told that it is not published, and the next commit or Open heals.
func TestPublishFaults(t *testing.T) {
	dir := testInit(t, Inside)
	size := int64(1)
	n := int64(0)
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			armed := false
			c := &durabletest.Faulty{Inner: durable.OS{}}
			c.Fail = func(n int, op, path string) (bool, bool) { return armed && n == at, done }
			z := testOpen(t, dir, Options{Calls: c})
			before := c.Calls()
			at := at + before
			c.Fail = func(n int, op, path string) (bool, bool) { return n == at && armed, done }
			armed = true
			n++
			err := z.Commit(context.Background(), func(tx *Tx) error {
				if err := tx.Publish("note/"+fmt.Sprint(n), []byte("x")); err != nil {
					return err
				}
				return collected(tx, n)
			})
			size++
			if c.Calls() < at {
				if err != nil {
					t.Fatal(err)
				}
				z.Close()
				break
			}
			// Only removing a temporary file may fail without anybody being told.
			var unpublished *UnpublishedError
			if !errors.As(err, &unpublished) || !errors.Is(err, durabletest.ErrInjected) || unpublished.Size != size {
				t.Fatalf("call %d, done %v: %v", at-before, done, err)
			}
			if at%2 == 0 { // the next commit heals
				n++
				commit(t, z, n)
				size++
			}
			z.Close()
			z = testOpen(t, dir, Options{}) // and so does the next Open
			sound(t, z, size)
			if b, err := z.ReadPublic("note/" + fmt.Sprint(n-int64(1-at%2))); err != nil || string(b) != "x" {
				t.Errorf("call %d, done %v: the published file: %q, %v", at-before, done, b, err)
			}
			z.Close()
		}
	}
	if size < 20 {
		t.Errorf("only %d commits: there were hardly any calls", size)
	}
}

// While nothing can be published, the zone takes no further commits.
func TestBehind(t *testing.T) {
	dir := testInit(t, Inside)
	broken := false
	c := &durabletest.Faulty{Inner: durable.OS{}, Fail: func(int, string, string) (bool, bool) { return broken, false }}
	z := testOpen(t, dir, Options{Calls: c})
	broken = true
	var unpublished *UnpublishedError
	if err := z.Commit(context.Background(), func(tx *Tx) error { return collected(tx, 1) }); !errors.As(err, &unpublished) {
		t.Fatal(err)
	}
	ran := false
	err := z.Commit(context.Background(), func(tx *Tx) error { ran = true; return collected(tx, 2) })
	if err == nil || errors.As(err, &unpublished) || ran {
		t.Errorf("%v, ran %v: want a failure with nothing done", err, ran)
	}
	broken = false
	commit(t, z, 3)
	sound(t, z, 3)
}

// COMMIT fails and is not done; COMMIT reports an error and is done.
func TestCommitFaults(t *testing.T) {
	dir := testInit(t, Inside)
	ctx := context.Background()
	z := testOpen(t, dir, Options{})
	real := z.sqlCommit
	fault := errors.New("fault")
	z.sqlCommit = func(context.Context) error { return fault }
	if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, 1) }); !errors.Is(err, fault) {
		t.Error(err)
	}
	sound(t, z, 1)
	z.sqlCommit = func(ctx context.Context) error { return errors.Join(real(ctx), fault) }
	if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, 1) }); err != nil {
		t.Error("it was done:", err)
	}
	sound(t, z, 2)
	z.sqlCommit = real
	commit(t, z, 2)
	sound(t, z, 3)

	// Somebody rolls back under our feet, as SQLite does by itself when the disk is full: everybody in the group is told.
	err := z.Commit(ctx, func(tx *Tx) error {
		if err := collected(tx, 3); err != nil {
			return err
		}
		z.catalog.writer.ExecContext(ctx, "ROLLBACK")
		return nil
	})
	if err == nil {
		t.Error("a transaction that was rolled back was reported as done")
	}
	commit(t, z, 4)
	sound(t, z, 4)
}

// The power fails right after Commit has answered: what it has announced is
// published, with all tiles, although nothing was given time to settle.
func TestPowerFailure(t *testing.T) {
	dir := testInit(t, Inside)
	n := int64(0)
	for round := range 8 {
		c := &durabletest.Crash{Spare: t.TempDir()}
		z := testOpen(t, dir, Options{Calls: c})
		if err := z.Commit(context.Background(), func(tx *Tx) error { // across the edges of tiles, too
			for range 66 {
				n++
				if err := collected(tx, n); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			n++
			commit(t, z, n)
		}
		_, before, err := z.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		c.Lose()
		_, after, err := z.Checkpoint()
		if err != nil || before != after {
			t.Fatalf("round %d: the checkpoint of size %d is lost: %v, %v", round, before.Size, after, err)
		}
		log, err := z.Log()
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Verify(nil); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		z.Close()
	}
	sound(t, testOpen(t, dir, Options{}), n+1)
}

// childFull works on a file system of 2 MiB until it is full.
func childFull(dir string) error {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		return fmt.Errorf("SKIP mount: %w", err)
	}
	dir = filepath.Join(dir, "zone")
	cfg, err := NewConfig(Inside, "citadel")
	if err != nil {
		return err
	}
	if err := Init(dir, cfg, testClock, reader{}); err != nil {
		return err
	}
	ctx := context.Background()
	z, err := Open(ctx, dir, Options{Clock: testClock})
	if err != nil {
		return err
	}
	announced := int64(1)
	var failed error
	for n := int64(0); failed == nil; n++ {
		failed = z.Commit(ctx, func(tx *Tx) error { return collected(tx, n) })
		if failed == nil {
			announced++
		}
	}
	if !errors.Is(failed, syscall.ENOSPC) && !strings.Contains(failed.Error(), "full") && !strings.Contains(failed.Error(), "disk I/O") {
		return fmt.Errorf("want a full disk, have %w", failed)
	}
	_, c, err := z.Checkpoint()
	if err != nil {
		return err
	}
	if c.Size < announced {
		return fmt.Errorf("%d entries were announced, %d are published", announced, c.Size)
	}
	z.Close()
	// Some room again.
	if err := syscall.Mount("", filepath.Dir(dir), "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		return fmt.Errorf("SKIP remount: %w", err)
	}
	if z, err = Open(ctx, dir, Options{Clock: testClock}); err != nil {
		return err
	}
	if err := z.Verify(ctx, nil); err != nil {
		return err
	}
	_, c, err = z.Checkpoint()
	if err != nil || c.Size < announced || c.Size > announced+1 {
		return fmt.Errorf("%d announced, %d there: %w", announced, c.Size, err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
		return fmt.Errorf("%d temporary files stay", len(left))
	}
	if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, 1<<40) }); err != nil {
		return err
	}
	fmt.Printf("announced %d, then: %v\n", announced, failed)
	return z.Close()
}

// reader is randomness enough for keys of a zone that lives for a second.
type reader struct{}

func (reader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(rand.Uint32())
	}
	return len(p), nil
}

func TestDiskFull(t *testing.T) {
	cmd := command(t, "full:"+t.TempDir())
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
	default:
		t.Logf("%s", out)
	}
}
