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

func only(k *trust.Key) Keys { return Keys{Now: []trust.VKey{k.VKey()}} }

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
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
	paper := only(log.key)
	dir := filepath.Join(t.TempDir(), "wilma")

	steps := []struct {
		name  string
		g     *ledger.Growth
		paper Keys
		code  string
		size  int64
	}{
		{"a ledger that it does not know", log.growth(0, 10), Keys{}, "witness-unknown-log", 0},
		{"another's key on paper", log.growth(0, 10), only(newKey(t, "sallyport/other/inside")), "checkpoint-origin", 0},
		{"signed by another key", stranger.growth(0, 10), paper, "checkpoint-unsigned", 0},
		{"not from nothing", log.growth(5, 10), paper, "witness-stale", 0},
		{"the first", log.growth(0, 10), paper, "", 10},
		{"the same again, as after a crash before the answer was written", log.growth(0, 10), paper, "", 10},
		{"grown", log.growth(10, 40), Keys{}, "", 40},
		{"another key on paper than before", log.growth(40, 50), only(stranger.key), "witness-log", 40},
		{"signed by another key than before", stranger.growth(40, 50), Keys{}, "checkpoint-unsigned", 40},
		{"a rollback", log.growth(0, 39), Keys{}, "witness-rollback", 40},
		{"an old file once more", log.growth(0, 10), Keys{}, "witness-rollback", 40},
		{"a fork of the same size", fork.growth(0, 40), Keys{}, "witness-fork", 40},
		{"a fork", fork.growth(40, 50), Keys{}, "witness-fork", 40},
		{"a proof from another size", log.growth(39, 50), Keys{}, "witness-stale", 40},
		{"a proof from nothing", log.growth(0, 50), Keys{}, "witness-stale", 40},
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
		if _, _, err := ledger.OpenCosigned(note, origin, log.key.VKey(), wilma.VKey()); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}

	// The ledger's key changes: by roots that say so, which here are another witness's who was told the same,
	told := filepath.Join(t.TempDir(), "wilma")
	copyDir(t, dir, told)
	renewed := &tree{t: t, key: stranger.key, word: "entry"}
	renewed.grow(140)
	next := renewed.growth(100, 120)
	roots := Keys{Now: []trust.VKey{renewed.key.VKey()}, Former: []trust.VKey{log.key.VKey()}}
	if _, _, err := Cosign(told, next, Keys{Now: roots.Now, Former: []trust.VKey{newKey(t, origin).VKey()}}, wilma, at); code(t, err) != "witness-log" {
		t.Errorf("roots that never named the known key: %v", err)
	}
	// (killed between the two files of the state: the same again)
	if err := os.WriteFile(filepath.Join(told, "citadel", "inside", "log"), fmt.Appendf(nil, "%s\n", renewed.key.VKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if c, _, err := Cosign(told, renewed.growth(100, 120), roots, wilma, at); err == nil && c.Size == 120 {
			break
		} else if code(t, err) != "witness-stale" {
			t.Fatalf("a new key by the roots: %v", err)
		}
	}
	// after which a thief of the old one makes it cosign nothing, whatever it was told before,
	log.grow(140)
	for _, k := range []Keys{{}, roots, only(log.key)} {
		if _, note, err := Cosign(told, log.growth(120, 130), k, wilma, at); code(t, err) != "checkpoint-unsigned" && code(t, err) != "witness-log" || note != nil {
			t.Errorf("signed by the key that was given up: %v", err)
		}
	}
	if c, _, err := Cosign(told, renewed.growth(120, 130), Keys{}, wilma, at); err != nil || c.Size != 130 {
		t.Errorf("it goes on by the new key: %v", err)
	}

	// or by a person's hand.
	file := filepath.Join(dir, "citadel", "inside", "log")
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, fmt.Appendf(lines, "%s\n", renewed.key.VKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, _, err := Cosign(dir, next, Keys{}, wilma, at); err != nil || c.Size != 120 {
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
		if _, _, err := Cosign(dir, log.growth(0, 10), only(log.key), wilma, at); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, "citadel", "inside", name[:min(len(name), len("checkpoint"))])
		if name == "log of rubbish" {
			file = filepath.Join(dir, "citadel", "inside", "log")
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, note, err := Cosign(dir, log.growth(10, 20), only(log.key), wilma, at); err == nil || note != nil {
			t.Errorf("%s: it goes on", name)
		}
	}
	// A flipped bit of the size or the root.
	dir := t.TempDir()
	if _, _, err := Cosign(dir, log.growth(0, 10), only(log.key), wilma, at); err != nil {
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
	if _, note, err := Cosign(dir, log.growth(10, 20), only(log.key), wilma, at); err == nil || note != nil {
		t.Error("a damaged state: it goes on")
	}
}

// TestTwoAtOnce: of two forks that come at the same moment one is cosigned.
func TestTwoAtOnce(t *testing.T) {
	log := &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(10)
	wilma := newKey(t, "wilma/witness")
	dir := t.TempDir()
	if _, _, err := Cosign(dir, log.growth(0, 10), only(log.key), wilma, at); err != nil {
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
		wg.Go(func() { _, notes[i], _ = Cosign(dir, growths[i], Keys{}, wilma, at) })
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
	if _, _, err := Cosign(dir, log.growth(0, 10), only(log.key), wilma, at); err != nil {
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
	if _, note, err := Cosign(dir, log.growth(10, 20), only(log.key), wilma, at); err == nil || note != nil {
		t.Error("cosigned, and forgotten")
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, data) {
		t.Errorf("%v: the state moved", err)
	}
}

// TestLearnsAtOnce: a witness who was shown the roots believes a former key no more, also if what was brought with them was no good.
func TestLearnsAtOnce(t *testing.T) {
	log, renewed := &tree{t: t, key: newKey(t, origin), word: "entry"}, &tree{t: t, key: newKey(t, origin), word: "entry"}
	log.grow(60)
	renewed.grow(60)
	wilma := newKey(t, "wilma/witness")
	roots := Keys{Now: []trust.VKey{renewed.key.VKey()}, Former: []trust.VKey{log.key.VKey()}}
	for name, first := range map[string]func(dir string) error{
		"a proof from another size": func(dir string) error {
			_, _, err := Cosign(dir, renewed.growth(10, 40), roots, wilma, at)
			return err
		},
		"the thief's": func(dir string) error {
			_, _, err := Cosign(dir, log.growth(20, 40), roots, wilma, at)
			return err
		},
	} {
		dir := t.TempDir()
		if _, _, err := Cosign(dir, log.growth(0, 20), only(log.key), wilma, at); err != nil {
			t.Fatal(err)
		}
		if err := first(dir); err == nil {
			t.Fatalf("%s: it was cosigned", name)
		}
		if _, note, err := Cosign(dir, log.growth(20, 50), Keys{}, wilma, at); code(t, err) != "checkpoint-unsigned" || note != nil {
			t.Errorf("%s: the thief of the former key has it cosigned: %v", name, err)
		}
		if c, _, err := Cosign(dir, renewed.growth(20, 50), Keys{}, wilma, at); err != nil || c.Size != 50 {
			t.Errorf("%s: by the new key: %v", name, err)
		}
		// Officers took it away, and gave it none.
		if _, _, err := Cosign(dir, renewed.growth(50, 60), Keys{Former: roots.Now}, wilma, at); code(t, err) != "witness-log" {
			t.Errorf("%s: of a ledger without a key: %v", name, err)
		}
	}
}
