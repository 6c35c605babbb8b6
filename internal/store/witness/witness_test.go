package witness

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

const origin = "sallyport/citadel/inside"

var at = time.Unix(1_700_000_000, 0)

func newKey(t *testing.T, name string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A tree is a ledger in memory that can be asked for the proof from any size to any other.
type tree struct {
	t      *testing.T
	key    *trust.Key
	word   string
	hashes []tlog.Hash
	size   int64
}

func (r *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = r.hashes[x]
	}
	return out, nil
}

func (r *tree) grow(size int64) {
	for ; r.size < size; r.size++ {
		h, err := tlog.StoredHashes(r.size, fmt.Appendf(nil, "%s %d", r.word, r.size), r)
		if err != nil {
			r.t.Fatal(err)
		}
		r.hashes = append(r.hashes, h...)
	}
}

// growth is what is carried to a witness.
func (r *tree) growth(from, to int64) *ledger.Growth {
	r.t.Helper()
	c, err := ledger.At(origin, to, r)
	if err != nil {
		r.t.Fatal(err)
	}
	note, err := ledger.SignCheckpoint(c, r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	g := &ledger.Growth{Old: from, Checkpoint: note}
	if from > 0 && from < to {
		if g.Path, err = tlog.ProveTree(to, from, r); err != nil {
			r.t.Fatal(err)
		}
	}
	return g
}

// code is that of a refusal; "" of no error.
func code(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		t.Fatalf("no refusal: %v", err)
	}
	return rs.Codes()[0]
}

// snapshot is every file below a directory but for locks and what is temporary.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "lock" {
			return err
		}
		data, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s\n%s\n", path, data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCosign(t *testing.T) {
	log := &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(100)
	fork := &tree{t: t, key: log.key, word: "entry"}
	fork.grow(9)
	fork.word = "other"
	fork.grow(100)
	stranger := &tree{t: t, key: newKey(t, origin), word: "entry"}
	stranger.grow(100)
	wilma := newKey(t, "wilma/witness")
	paper := log.key.VKey()
	dir := filepath.Join(t.TempDir(), "wilma")

	steps := []struct {
		name  string
		g     *ledger.Growth
		paper trust.VKey
		code  string
		size  int64
	}{
		{"a ledger that it does not know", log.growth(0, 10), trust.VKey{}, "witness-unknown-log", 0},
		{"another's key on paper", log.growth(0, 10), newKey(t, "sallyport/other/inside").VKey(), "checkpoint-origin", 0},
		{"signed by another key", stranger.growth(0, 10), paper, "checkpoint-unsigned", 0},
		{"not from nothing", log.growth(5, 10), paper, "witness-stale", 0},
		{"the first", log.growth(0, 10), paper, "", 10},
		{"the same again, as after a crash before the answer was written", log.growth(0, 10), paper, "", 10},
		{"grown", log.growth(10, 40), trust.VKey{}, "", 40},
		{"another key on paper than before", log.growth(40, 50), stranger.key.VKey(), "witness-log", 40},
		{"signed by another key than before", stranger.growth(40, 50), trust.VKey{}, "checkpoint-unsigned", 40},
		{"a rollback", log.growth(0, 39), trust.VKey{}, "witness-rollback", 40},
		{"an old file once more", log.growth(0, 10), trust.VKey{}, "witness-rollback", 40},
		{"a fork of the same size", fork.growth(0, 40), trust.VKey{}, "witness-fork", 40},
		{"a fork", fork.growth(40, 50), trust.VKey{}, "witness-fork", 40},
		{"a proof from another size", log.growth(39, 50), trust.VKey{}, "witness-stale", 40},
		{"a proof from nothing", log.growth(0, 50), trust.VKey{}, "witness-stale", 40},
		{"grown once more", log.growth(40, 100), paper, "", 100},
	}
	for _, s := range steps {
		before := ""
		if _, err := os.Stat(dir); err == nil {
			before = snapshot(t, dir)
		}
		c, note, err := Cosign(dir, s.g, s.paper, wilma, at)
		if got := code(t, err); got != s.code {
			t.Fatalf("%s: %v, want %q", s.name, err, s.code)
		}
		if s.code != "" {
			if note != nil {
				t.Errorf("%s: refused, and yet a note is handed out", s.name)
			}
			if _, err := os.Stat(dir); err == nil && snapshot(t, dir) != before {
				t.Errorf("%s: refused, and yet the state has changed", s.name)
			}
			continue
		}
		held, rerr := os.ReadFile(filepath.Join(dir, "citadel", "inside", "checkpoint"))
		if rerr != nil || !bytes.Equal(held, note) || c.Size != s.size {
			t.Errorf("%s: %v; size %d, want %d; held\n%s", s.name, rerr, c.Size, s.size, held)
		}
		if _, _, err := ledger.OpenCosigned(note, origin, paper, wilma.VKey()); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}

	// The ledger's key changes: only by a person's hand.
	renewed := &tree{t: t, key: stranger.key, word: "entry"}
	renewed.grow(120)
	next := renewed.growth(100, 120)
	file := filepath.Join(dir, "citadel", "inside", "log")
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(lines, "%s\n", renewed.key.VKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _, err := Cosign(dir, next, trust.VKey{}, wilma, at); err != nil || c.Size != 120 {
		t.Errorf("a new key: %v", err)
	}
	// Whoever lost the state does not begin again on a proof from where the ledger thinks that it stood.
	if _, _, err := Cosign(filepath.Join(t.TempDir(), "new"), log.growth(40, 100), paper, wilma, at); code(t, err) != "witness-stale" {
		t.Errorf("state lost: %v", err)
	}
}

// TestStateIsNoState: a state that cannot be read is a failure, never an empty one.
func TestStateIsNoState(t *testing.T) {
	log := &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(20)
	wilma := newKey(t, "wilma/witness")
	for name, data := range map[string]string{"log": "", "checkpoint": "", "log of rubbish": "rubbish\n"} {
		dir := t.TempDir()
		if _, _, err := Cosign(dir, log.growth(0, 10), log.key.VKey(), wilma, at); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "citadel", "inside", name[:min(len(name), len("checkpoint"))])
		if name == "log of rubbish" {
			file = filepath.Join(dir, "citadel", "inside", "log")
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, note, err := Cosign(dir, log.growth(10, 20), log.key.VKey(), wilma, at); err == nil || note != nil {
			t.Errorf("%s: it goes on", name)
		}
	}
	// A flipped bit of the size or the root.
	dir := t.TempDir()
	if _, _, err := Cosign(dir, log.growth(0, 10), log.key.VKey(), wilma, at); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "citadel", "inside", "checkpoint")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(origin)+1] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, note, err := Cosign(dir, log.growth(10, 20), log.key.VKey(), wilma, at); err == nil || note != nil {
		t.Error("a damaged state: it goes on")
	}
}

// TestTwoAtOnce: of two forks that come at the same moment one is cosigned.
func TestTwoAtOnce(t *testing.T) {
	log := &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(10)
	wilma := newKey(t, "wilma/witness")
	dir := t.TempDir()
	if _, _, err := Cosign(dir, log.growth(0, 10), log.key.VKey(), wilma, at); err != nil {
		t.Fatal(err)
	}
	const forks = 8
	growths := make([]*ledger.Growth, forks)
	for i := range growths {
		f := &tree{t: t, key: log.key, word: "entry"}
		f.grow(10)
		f.word = fmt.Sprint("fork ", i)
		f.grow(20)
		growths[i] = f.growth(10, 20)
	}
	notes := make([][]byte, forks)
	var wg sync.WaitGroup
	for i := range forks {
		wg.Go(func() { _, notes[i], _ = Cosign(dir, growths[i], trust.VKey{}, wilma, at) })
	}
	wg.Wait()
	if notes = slices.DeleteFunc(notes, func(n []byte) bool { return n == nil }); len(notes) != 1 {
		t.Errorf("%d of %d forks were cosigned", len(notes), forks)
	}
	left, err := os.ReadDir(filepath.Join(dir, "citadel", "inside", "tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestDiskFails: if the state cannot be written there is no cosignature.
func TestDiskFails(t *testing.T) {
	log := &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(20)
	wilma := newKey(t, "wilma/witness")
	dir := t.TempDir()
	if _, _, err := Cosign(dir, log.growth(0, 10), log.key.VKey(), wilma, at); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "citadel", "inside", "checkpoint")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A file where temporary ones are to be made: that fails for root, too.
	tmp := filepath.Join(dir, "citadel", "inside", "tmp")
	if err := os.Remove(tmp); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tmp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, note, err := Cosign(dir, log.growth(10, 20), log.key.VKey(), wilma, at); err == nil || note != nil {
		t.Error("cosigned, and forgotten")
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, data) {
		t.Errorf("%v: the state moved", err)
	}
}
