package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// grow lets the inside's ledger grow by some entries, as the station's own process would.
func (w *world) grow(n int) {
	w.t.Helper()
	z, err := store.Open(w.t.Context(), w.path("inside"), store.Options{Clock: time.Now})
	if err != nil {
		w.t.Fatal(err)
	}
	defer z.Close()
	err = z.Commit(w.t.Context(), func(tx *store.Tx) error {
		for range n {
			if err := tx.Statement(statement.KindSigned, []statement.Subject{{Name: fmt.Sprintf("item %d", tx.Size()), SHA256: trust.Sum([]byte("x"))}}, map[string]any{"track": track}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// told are the lines that `ledger export` prints of a ledger that rests.
func (w *world) told(args ...string) [][]byte {
	w.t.Helper()
	out := w.must(append([]string{station, "ledger", "export", "--zone", "inside", "--quiet"}, args...)...).stdout
	return bytes.SplitAfter(bytes.TrimSuffix(out, []byte("\n")), []byte("\n"))
}

// size is that of the inside's ledger.
func (w *world) size() int64 {
	w.t.Helper()
	_, c, err := w.checkpoint()
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Size
}

// TestExportKilled: an exporter that is killed again and again while the ledger grows leaves in a file each entry once.
func TestExportKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	random := dice(t)
	args := []string{station, "ledger", "export", "--zone", "inside", "--quiet", "--follow", "--interval", "10ms", "--cursor", "cursor", "--out", "siem.jsonl"}
	w.grow(600) // so that there is something to be killed in
	for range 8 {
		p := w.start(args...)
		w.grow(1 + random.IntN(5))
		time.Sleep(time.Duration(random.IntN(80)) * time.Millisecond)
		p.cmd.Process.Kill()
		w.wait(p)
		// What lies there is whole lines but for the end.
		data, err := os.ReadFile(w.path("siem.jsonl"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		lines := bytes.Split(data, []byte("\n"))
		for i, l := range lines[:len(lines)-1] {
			var e entry
			if err := json.Unmarshal(l, &e); err != nil || e.Index != int64(i) {
				t.Fatalf("line %d: %v: %.200s", i, err, l)
			}
		}
	}
	// Told to stop it stops, and has told what it took on. It listens to signals when it follows: what came after its start is told.
	p := w.start(args...)
	w.grow(1)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if told, _ := os.ReadFile(w.path("siem.jsonl")); int64(bytes.Count(told, []byte("\n"))) == w.size() {
			break
		}
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	if r := w.wait(p); r.code != interrupted {
		t.Errorf("%v", r)
	}
	w.must(station, "ledger", "export", "--zone", "inside", "--quiet", "--cursor", "cursor", "--out", "siem.jsonl")
	want := bytes.Join(w.told(), nil)
	if have := read(t, w.path("siem.jsonl")); !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(want)) {
		t.Errorf("the file is not what one run would have told: %d and %d bytes", len(have), len(want))
	}
	// Again, with nothing new: nothing changes.
	before := read(t, w.path("siem.jsonl"))
	w.must(station, "ledger", "export", "--zone", "inside", "--quiet", "--cursor", "cursor", "--out", "siem.jsonl")
	if !bytes.Equal(before, read(t, w.path("siem.jsonl"))) {
		t.Error("a run with nothing to tell changed the file")
	}
	w.must(station, "ledger", "verify", "--zone", "inside")
}

// TestExportToSocket: what is sent to a receiver while both sides are killed comes at least once; what comes again is the same byte for byte.
func TestExportToSocket(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	random := dice(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var mu sync.Mutex
	var got [][]byte
	var conns []net.Conn
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			go func() {
				in := bufio.NewReader(c)
				for {
					head, err := in.ReadString(' ')
					if err != nil {
						return
					}
					n, err := strconv.Atoi(strings.TrimSpace(head))
					if err != nil || n > 8192 {
						t.Errorf("length %q", head)
						return
					}
					m := make([]byte, n)
					if _, err := io.ReadFull(in, m); err != nil {
						return
					}
					mu.Lock()
					got = append(got, m)
					mu.Unlock()
				}
			}()
		}
	}()
	args := []string{station, "ledger", "export", "--zone", "inside", "--quiet", "--follow", "--interval", "10ms", "--cursor", "cursor", "--format", "syslog", "--hostname", "gate",
		"--send", "tcp:" + l.Addr().String()}
	for range 6 {
		p := w.start(args...)
		w.grow(1 + random.IntN(40))
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		p.cmd.Process.Kill()
		w.wait(p)
	}
	w.must(slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--follow" || a == "--interval" || a == "10ms" })...)
	want := w.told("--format", "syslog", "--hostname", "gate")
	seen := map[string]int{}
	for range 6000 {
		mu.Lock()
		clear(seen)
		for _, m := range got {
			seen[string(m)]++
		}
		mu.Unlock()
		if len(seen) >= len(want) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	again := 0
	for _, m := range want {
		n := seen[strings.TrimSuffix(string(m), "\n")]
		if n == 0 {
			t.Errorf("it never came: %.200s", m)
		}
		again += n - 1
	}
	if len(seen) != len(want) {
		t.Errorf("%d messages of %d", len(seen), len(want))
	}
	t.Logf("%d entries, %d came again", len(want), again)
	mu.Lock()
	defer mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// TestExportAlarm: a ledger that was put back while it is followed is an alarm to the receiver, and exit code 3.
func TestExportAlarm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	copyTree(t, w.path("inside", "public", "ledger"), w.path("old"))
	w.grow(5)
	export := []string{station, "ledger", "export", "--zone", "inside", "--quiet", "--cursor", "cursor", "--out", "told"}
	w.must(export...)
	before := read(t, w.path("told"))
	// Only what is published is put back: the catalog would notice by itself.
	public := []string{whole, "ledger", "export", "--public", "old", "--log", w.ledgerKey().VKey().String(), "--quiet", "--cursor", "cursor", "--out", "told"}
	r := w.code(refused, public...)
	if !strings.Contains(string(r.stderr), "ledger-rollback") {
		t.Errorf("%v", r)
	}
	alarm, ok := bytes.CutPrefix(read(t, w.path("told")), before)
	var a struct{ Type, Code, Origin string }
	if err := json.Unmarshal(alarm, &a); !ok || err != nil || a.Type != "alarm" || a.Code != "ledger-rollback" || a.Origin != "sallyport/"+enclave+"/inside" {
		t.Errorf("%v, %v: %s", ok, err, alarm)
	}
	w.must(export...)
	w.grow(1)
	w.must(export...)
	if n := len(w.told()); int64(n) != w.size() {
		t.Errorf("%d lines of %d", n, w.size())
	}
	if r := w.code(usage, append(export, "--from", "3")...); !strings.Contains(string(r.stderr), "cursor") {
		t.Errorf("%v", r)
	}
}

// TestExportNoSpaceWithin runs TestExportOnFullDisk with a small file system of its own.
func TestExportNoSpaceWithin(t *testing.T) {
	t.Parallel()
	admitted(t)
	onSmallDisk(t, "TestExportOnFullDisk", "an export to a full disk")
}

// TestExportOnFullDisk: a full disk is a failure that says so; what was written is whole lines, and the next run goes on behind them.
func TestExportOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t, "TestExportNoSpaceWithin", "an export to a full disk", 256<<10)
	w := newWorld(t, filepath.Join(shareDir, "admitted"), "inside")
	w.grow(1400)
	out, cursor := disk.path("out"), disk.path("cursor")
	export := []string{station, "ledger", "export", "--zone", "inside", "--quiet", "--cursor", cursor, "--out", out}
	write(t, disk.filler(), make([]byte, 200<<10), 0o644)
	r := w.code(failed, export...)
	if !strings.Contains(string(r.stderr), "space") {
		t.Errorf("it does not say that the disk is full: %v", r)
	}
	if data, err := os.ReadFile(out); err == nil && len(data) > 0 && data[len(data)-1] != '\n' {
		t.Errorf("half a line: %q", data[max(0, len(data)-100):])
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	disk.empty()
	if err := syscall.Mount("tmpfs", disk.dir, "tmpfs", syscall.MS_REMOUNT, "size=4194304"); err != nil {
		t.Fatal(err)
	}
	w.must(export...)
	if have, want := read(t, out), bytes.Join(w.told(), nil); !bytes.Equal(bytes.TrimSpace(have), bytes.TrimSpace(want)) {
		t.Errorf("%d bytes, want %d", len(have), len(want))
	}
}

// TestProofs: one entry is carried to somebody who has nothing but what is on paper; who lies about it is found out.
func TestProofs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	log := w.ledgerKey().VKey().String()
	small := w.size()
	write(t, w.path("then"), read(t, w.path("inside", "public", "ledger", "checkpoint")), 0o644)
	w.must(station, "ledger", "witness", "export", "--zone", "inside", "--for", "wilma", "--out", "for-wilma")
	w.must(whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "state", "--log", log, "--out", "from-wilma", "for-wilma")
	w.must(station, "ledger", "witness", "add", "--zone", "inside", "from-wilma")
	w.grow(300)

	// With the key alone; with the root; with a witness.
	w.must(station, "ledger", "prove", "--zone", "inside", "3", "--out", "three")
	w.must(station, "ledger", "prove", "--zone", "inside", "3", "--checkpoint", "inside/public/witness/wilma", "--out", "three-cosigned")
	w.must(station, "ledger", "prove", "--zone", "inside", "--consistency", fmt.Sprint(small), "--out", "growth")
	w.must(whole, "ledger", "verify", "--proof", "three", "--log", log)
	w.must(whole, "ledger", "verify", "--proof", "three", "--root", w.fingerprint(), "--roots", "inside/public/root")
	w.must(whole, "ledger", "verify", "--proof", "three-cosigned", "--root", w.fingerprint(), "--roots", "inside/public/root/1", "--witnesses", "1")
	w.must(whole, "ledger", "verify", "--proof", "growth", "--log", log, "--old", "then")
	w.refuses("witness-missing", whole, "ledger", "verify", "--proof", "three", "--root", w.fingerprint(), "--roots", "inside/public/root", "--witnesses", "1")
	w.code(usage, whole, "ledger", "verify", "--proof", "three")
	w.code(usage, whole, "ledger", "verify", "--proof", "growth", "--log", log)
	w.code(usage, whole, "ledger", "verify", "--proof", "three", "--root", w.fingerprint())
	w.refuses("root-pin", whole, "ledger", "verify", "--proof", "three", "--root", strings.Repeat("0", 64), "--roots", "inside/public/root")
	w.refuses("checkpoint-origin", whole, "ledger", "verify", "--proof", "three", "--log", trustKey(t, "sallyport/other/inside"))
	w.refuses("checkpoint-unsigned", whole, "ledger", "verify", "--proof", "three", "--log", trustKey(t, "sallyport/"+enclave+"/inside"))
	// An index that is another entry's, and growth from a tree that is not the ledger's.
	write(t, w.path("four"), bytes.Replace(read(t, w.path("three")), []byte("index 3\n"), []byte("index 4\n"), 1), 0o644)
	w.refuses("ledger-inclusion", whole, "ledger", "verify", "--proof", "four", "--log", log)
	w.refuses("proof-old", whole, "ledger", "verify", "--proof", "growth", "--log", log, "--old", "inside/public/ledger/checkpoint")
	write(t, w.path("cut"), read(t, w.path("three"))[:300], 0o644)
	w.refuses("proof-syntax", whole, "ledger", "verify", "--proof", "cut", "--log", log)

	// By what it is about.
	e := w.entries("inside")[3]
	w.must(station, "ledger", "prove", "--zone", "inside", "--digest", e.Subjects[0].SHA256, "--kind", e.Kind, "--out", "same")
	if !bytes.Equal(read(t, w.path("same")), read(t, w.path("three"))) {
		t.Error("the same entry has another proof")
	}
	w.code(failed, station, "ledger", "prove", "--zone", "inside", "--digest", strings.Repeat("0", 64))
	w.code(usage, station, "ledger", "prove", "--zone", "inside", "--digest", fmt.Sprintf("%x", trust.Sum([]byte("x")))) // 300 entries are about it
	w.code(usage, station, "ledger", "prove", "--zone", "inside", "100000")
	w.code(usage, station, "ledger", "prove", "--zone", "inside")

	// By file, a witness who goes on; who is shown a fork does not.
	w.must(station, "ledger", "witness", "export", "--zone", "inside", "--for", "wilma", "--out", "for-wilma-2")
	w.refuses("witness-stale", whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "another", "--log", log, "--out", "x", "for-wilma-2")
	w.must(whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "state", "--out", "from-wilma-2", "for-wilma-2")
	w.refuses("witness-rollback", whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "state", "--out", "x", "for-wilma")
	w.must(station, "ledger", "cosign", "--zone", "inside", "from-wilma-2")
	w.refuses("witness-unknown", station, "ledger", "witness", "export", "--zone", "inside", "--for", "mallory", "--out", "x")
	if _, err := os.Stat(w.path("x")); err == nil {
		t.Error("refused, and yet there is a file")
	}
	w.must(station, "ledger", "verify", "--zone", "inside")
}

// trustKey makes a stranger's key.
func trustKey(t *testing.T, name string) string {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	return k.VKey().String()
}

// TestShowFilters: each filter finds what it is for, and nothing else.
func TestShowFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	w.code(refused, w.importOf("slip-1.txt", "volume-2")...)
	all := w.entries("inside")
	show := func(args ...string) []entry {
		t.Helper()
		return lines[entry](t, w.must(append([]string{station, "ledger", "show", "--zone", "inside", "--json"}, args...)...))
	}
	count := func(want func(e entry) bool) (n int) {
		for _, e := range all {
			if want(e) {
				n++
			}
		}
		return n
	}
	for _, tt := range []struct {
		args []string
		want func(e entry) bool
	}{
		{[]string{"--kind", "approved"}, func(e entry) bool { return e.Kind == "approved" }},
		{[]string{"--kind", "approved,imported"}, func(e entry) bool { return e.Kind == "approved" || e.Kind == "imported" }},
		{[]string{"--person", "alice"}, func(e entry) bool {
			persons, _ := e.Predicate["persons"].([]any)
			return e.Predicate["person"] == "alice" || slices.Contains(persons, any("alice"))
		}},
		{[]string{"--person", "dave", "--kind", "imported"}, func(e entry) bool { return e.Kind == "imported" }},
		{[]string{"--shipment", "1"}, func(e entry) bool {
			return e.Predicate["shipment"] == 1.0 || slices.ContainsFunc(e.Subjects, func(s struct{ Name, SHA256 string }) bool { return s.Name == "shipment 1" })
		}},
		{[]string{"--item", "hello-1.0.drv"}, func(e entry) bool {
			return slices.ContainsFunc(e.Subjects, func(s struct{ Name, SHA256 string }) bool { return strings.HasSuffix(s.Name, "-hello-1.0.drv") })
		}},
		{[]string{"--item", all[1].Subjects[0].SHA256}, func(e entry) bool { return e.Subjects[0].SHA256 == all[1].Subjects[0].SHA256 }},
		{[]string{"--since", "1h"}, func(entry) bool { return true }},
		{[]string{"--until", "2001-01-01"}, func(entry) bool { return false }},
		{[]string{"--since", "2001-01-01T00:00:00Z", "--from", "2"}, func(e entry) bool { return e.Index >= 2 }},
	} {
		got := show(tt.args...)
		if len(got) != count(tt.want) || slices.ContainsFunc(got, func(e entry) bool { return !tt.want(e) }) {
			t.Errorf("%q: %d entries, want %d", tt.args, len(got), count(tt.want))
		}
		if len(got) == 0 && tt.args[0] != "--until" {
			t.Errorf("%q finds nothing", tt.args)
		}
	}
	if got := show("-n", "2"); len(got) != 2 || got[1].Index != all[len(all)-1].Index {
		t.Errorf("the last two: %v", got)
	}
	if got := show("3"); len(got) != 1 || got[0].Index != 3 {
		t.Errorf("one: %v", got)
	}
	for _, args := range [][]string{{"--since", "yesterday"}, {"--from", "-1"}, {"-n", "-1"}, {"--shipment", "-1"}, {"100000"}, {"--from", "100000"}, {"--root", "x"}, {"--public", "inside/public"}} {
		w.code(usage, append([]string{station, "ledger", "show", "--zone", "inside"}, args...)...)
	}
	// Of a copy, by what stands on paper.
	for _, args := range [][]string{{"--public", "inside/public", "--root", w.fingerprint()}, {"--public", "inside/public/ledger", "--root", w.fingerprint()}, {"--public", "inside/public", "--log", w.ledgerKey().VKey().String()}} {
		if got := lines[entry](t, w.must(append([]string{whole, "ledger", "show", "--json"}, args...)...)); len(got) != len(all) {
			t.Errorf("%q: %d entries of %d", args, len(got), len(all))
		}
		w.must(append([]string{whole, "ledger", "verify"}, args...)...)
	}
	if text := string(w.must(station, "ledger", "show", "--zone", "inside").stdout); strings.Count(text, "\n") != len(all) || !strings.Contains(text, "dave imported shipment 1") {
		t.Errorf("%s", text)
	}
}
