package store

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/durable/durabletest"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func record(t testing.TB, z *Zone, n int64) {
	t.Helper()
	if err := z.Record(context.Background(), func(tx *Tx) error { return collected(tx, n) }); err != nil {
		t.Fatal(err)
	}
}

// publishedSize reads what is published as a stranger would.
func publishedSize(t testing.TB, dir string) int64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "public/ledger/checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	size, err := strconv.ParseInt(strings.Split(string(raw), "\n")[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return size
}

// What is recorded is in the catalog at once, and published when somebody asks, when nobody does within MaxLag, when another
// process opens the zone, and when it is closed.
func TestRecord(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	if err := z.Published(ctx); err != nil {
		t.Error("with nothing recorded:", err)
	}
	record(t, z, 1)
	var n int64
	if err := z.Read(ctx).QueryRowContext(ctx, "SELECT count(*) FROM entry").Scan(&n); err != nil || n != 2 {
		t.Error(n, err)
	}
	if err := z.Published(ctx); err != nil {
		t.Error(err)
	}
	if size := publishedSize(t, dir); size != 2 {
		t.Errorf("published size %d after Published, want 2", size)
	}
	sound(t, z, 2)

	record(t, z, 2)
	for stop := time.Now().Add(5 * time.Minute); publishedSize(t, dir) < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(stop) {
			t.Fatal("what was recorded was not published by itself")
		}
	}

	record(t, z, 3)
	other := testOpen(t, dir, Options{})
	if size := publishedSize(t, dir); size != 4 {
		t.Errorf("published size %d after another opening, want 4", size)
	}
	commit(t, other, 4)
	record(t, z, 5) // behind another process's
	record(t, other, 6)
	if err := errors.Join(z.Published(ctx), other.Published(ctx)); err != nil {
		t.Error(err)
	}
	sound(t, z, 7)

	record(t, z, 7)
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	if size := publishedSize(t, dir); size != 8 {
		t.Errorf("published size %d after Close, want 8", size)
	}
	if err := z.Published(ctx); err != nil {
		t.Error("after Close, with nothing left:", err)
	}
	if err := z.Record(ctx, func(tx *Tx) error { return collected(tx, 8) }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Tiles that are made from memory are those that the catalog makes, across every edge, with other
// processes' entries in between and without.
func TestRecordTiles(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	z := testOpen(t, dir, Options{})
	other := testOpen(t, dir, Options{})
	n := int64(0)
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 30 {
		size := 1 + rng.IntN(3)
		if round%5 == 0 {
			size = 1 + rng.IntN(300)
		}
		err := z.Record(ctx, func(tx *Tx) error {
			for range size {
				n++
				if err := collected(tx, n); err != nil {
					return err
				}
			}
			return tx.Publish("note/x", fmt.Append(nil, n))
		})
		if err != nil {
			t.Fatal(err)
		}
		if round%3 == 1 {
			n++
			commit(t, other, n)
		}
		if round%2 == 0 {
			if err := z.Published(ctx); err != nil {
				t.Fatal(err)
			}
			if b, err := z.ReadPublic("note/x"); err != nil || len(b) == 0 {
				t.Error(err)
			}
		}
	}
	if err := z.Published(ctx); err != nil {
		t.Fatal(err)
	}
	sound(t, z, n+1)
}

// While nothing can be published, what was recorded stays recorded, whoever asks is told, the zone takes no further deeds, and Close says so.
func TestRecordFaults(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	var broken atomic.Bool
	c := &durabletest.Faulty{Inner: durable.OS{}, Fail: func(int, string, string) (bool, bool) { return broken.Load(), false }}
	z := testOpen(t, dir, Options{Calls: c})
	broken.Store(true)
	record(t, z, 1)
	var late *UnpublishedError
	if err := z.Published(ctx); !errors.As(err, &late) || late.Size != 2 {
		t.Error(err)
	}
	if err := z.Published(ctx); !errors.As(err, &late) { // tried once more
		t.Error(err)
	}
	ran := false
	if err := z.Record(ctx, func(tx *Tx) error { ran = true; return collected(tx, 2) }); err == nil || ran {
		t.Errorf("%v, ran %v: want a failure with nothing done", err, ran)
	}
	broken.Store(false)
	if err := z.Published(ctx); err != nil {
		t.Error(err)
	}
	record(t, z, 3)
	if err := z.Published(ctx); err != nil {
		t.Error(err)
	}
	sound(t, z, 3)
	record(t, z, 4)
	broken.Store(true)
	if err := z.Close(); !errors.As(err, &late) || late.Size != 4 {
		t.Errorf("closed with something unpublished: %v", err)
	}
	if err := z.Published(ctx); !errors.As(err, &late) {
		t.Error(err)
	}
	if size := publishedSize(t, dir); size != 3 {
		t.Errorf("published size %d", size)
	}
	sound(t, testOpen(t, dir, Options{}), 4)
}

// Every call of publishing fails once, before it is done and after it, when what is published was only recorded. Nothing is
// lost, and the next attempt heals.
func TestRecordPublishFaults(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	size, n := int64(1), int64(0)
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			var target atomic.Int64 // 0: none
			c := &durabletest.Faulty{Inner: durable.OS{}}
			c.Fail = func(n int, op, path string) (bool, bool) { return int64(n) == target.Load(), done }
			z := testOpen(t, dir, Options{Calls: c})
			n++
			record(t, z, n)
			if err := z.Published(ctx); err != nil { // the edge of the tree is in memory from here on
				t.Fatal(err)
			}
			from := c.Calls()
			target.Store(int64(from + at))
			n++
			record(t, z, n)
			size += 2
			err := z.Published(ctx)
			reached := c.Calls() >= from+at
			target.Store(0)
			if !reached && err != nil {
				t.Fatal(err)
			}
			var late *UnpublishedError
			if reached && (!errors.As(err, &late) || !errors.Is(err, durabletest.ErrInjected)) {
				t.Fatalf("call %d, done %v: %v", at, done, err)
			}
			if at%2 == 0 {
				n++
				record(t, z, n)
				size++
			}
			if err := z.Published(ctx); err != nil {
				t.Fatalf("call %d, done %v: not healed: %v", at, done, err)
			}
			z.Close()
			z = testOpen(t, dir, Options{})
			sound(t, z, size)
			z.Close()
			if !reached {
				break
			}
		}
	}
	if size < 20 {
		t.Errorf("only %d entries: there were hardly any calls", size)
	}
}

// The power fails after Record has answered and before anything is published: whatever of the published files was
// not synced is lost, and the next opening publishes all that was recorded.
func TestRecordPowerFailure(t *testing.T) {
	ctx := context.Background()
	dir := testInit(t, Inside)
	n := int64(0)
	for range 6 {
		c := &durabletest.Crash{Spare: t.TempDir()}
		z := testOpen(t, dir, Options{Calls: c})
		for range 40 {
			n++
			record(t, z, n)
		}
		if err := z.Published(ctx); err != nil {
			t.Fatal(err)
		}
		announced := publishedSize(t, dir)
		for range 40 {
			n++
			record(t, z, n)
		}
		c.Lose() // perhaps in the middle of a publication
		if size := publishedSize(t, dir); size < announced {
			t.Fatalf("size %d was announced as published, %d is there", announced, size)
		}
		z.Close()
	}
	sound(t, testOpen(t, dir, Options{}), n+1)
}

// A process that records is killed at a random moment. Nothing that it has answered for is lost from the catalog, what it has
// said to be published is published, the published ledger is whole at every moment, and the next opening publishes the rest.
func TestRecordKill(t *testing.T) {
	dir := testInit(t, Inside)
	recorded, published := int64(0), int64(0)
	for round := range 10 {
		cmd := command(t, "record:"+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stuck := time.AfterFunc(5*time.Minute, func() { cmd.Process.Kill() })
		var once sync.Once
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			once.Do(func() { time.AfterFunc(rand.N(300*time.Millisecond), func() { cmd.Process.Kill() }) })
			text, announced := strings.CutPrefix(lines.Text(), "published ")
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				if strings.HasPrefix(text, "failed") {
					t.Errorf("round %d: %s", round, text)
				}
				continue // the last line may be cut
			}
			recorded = max(recorded, n)
			if announced {
				published = max(published, n)
			}
		}
		cmd.Wait()
		stuck.Stop()
		if size := publishedSize(t, dir); size <= published {
			t.Fatalf("round %d: entry %d was said to be published, the size is %d", round, published, size)
		}
		db, err := sql.Open("sqlite", dsn(filepath.Join(dir, catalogFile), "rw", true))
		if err != nil {
			t.Fatal(err)
		}
		var last int64
		if err := db.QueryRow("SELECT max(idx) FROM entry").Scan(&last); err != nil || last < recorded {
			t.Fatalf("round %d: entry %d was answered for, the catalog ends with %d: %v", round, recorded, last, err)
		}
		db.Close()
		z := testOpen(t, dir, Options{})
		sound(t, z, last+1)
		z.Close()
	}
	if recorded < 10 {
		t.Errorf("only %d entries were recorded in ten rounds", recorded)
	}
}

// The times of the station's entries never go back; a clock that does is named, one far ahead is refused.
func TestClock(t *testing.T) {
	ctx := context.Background()
	now := testClock()
	z := testOpen(t, testInit(t, Inside), Options{Clock: func() time.Time { return now }})
	last := func() (string, any) {
		t.Helper()
		var size int64
		if err := z.Read(ctx).QueryRowContext(ctx, "SELECT count(*) FROM entry").Scan(&size); err != nil {
			t.Fatal(err)
		}
		s := entryStatement(t, z, size-1)
		return s.Predicate["time"].(string), s.Predicate["clock"]
	}
	at := func(d time.Duration) string { return trust.FormatDate(testClock().Add(d)) }
	for i, step := range []struct {
		clock time.Duration
		want  time.Duration
		named bool
	}{
		{time.Hour, time.Hour, false},
		{time.Hour - ClockSlack, time.Hour, false}, // what a synchronising clock does
		{time.Minute, time.Hour, true},
		{time.Hour + time.Second, time.Hour + time.Second, false},
		{-24 * time.Hour, time.Hour + time.Second, true},
		{ClockLeap, ClockLeap, false},
	} {
		now = testClock().Add(step.clock)
		commit(t, z, int64(i))
		date, clock := last()
		if date != at(step.want) || (clock != nil) != step.named || step.named && clock != at(step.clock) {
			t.Errorf("step %d: time %s, clock %v, want %s", i, date, clock, at(step.want))
		}
	}
	sound(t, z, 7)
	now = testClock().Add(2*ClockLeap + time.Hour)
	if err := z.Commit(ctx, func(tx *Tx) error { return collected(tx, 100) }); !hasCode(err, "clock-ahead") {
		t.Error(err)
	}
	// Rows and envelopes of others say nothing of the clock.
	if err := z.Commit(ctx, func(tx *Tx) error { _, err := tx.Append(testEnvelope(t, z, 1)); return err }); err != nil {
		t.Error(err)
	}
	// Somebody else's word for the time.
	if err := z.Commit(ctx, func(tx *Tx) error { tx.heard(now.Add(-time.Hour)); return collected(tx, 101) }); err != nil {
		t.Error(err)
	}
	if date, _ := last(); date != trust.FormatDate(now) {
		t.Error(date)
	}
	// What did not come about leaves no time behind.
	before, _ := last()
	now = now.Add(time.Hour)
	z.Commit(ctx, func(tx *Tx) error { collected(tx, 102); return errors.New("no") })
	now = now.Add(-time.Hour)
	commit(t, z, 103)
	if date, clock := last(); date != before || clock != nil {
		t.Error(date, clock)
	}
}

// entryStatement is what an entry says.
func entryStatement(t *testing.T, z *Zone, index int64) statement.Statement {
	t.Helper()
	leaf, err := z.Entry(context.Background(), index)
	if err != nil {
		t.Fatal(err)
	}
	e, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return e.Unverified()
}
