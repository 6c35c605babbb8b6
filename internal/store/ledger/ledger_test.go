package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

const origin = "sallyport/citadel/inside"

func newKey(t testing.TB, name string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(rand.Reader, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// memory is a log in memory that publishes as the zone does.
type memory struct {
	t      testing.TB
	key    *trust.Key
	hashes []tlog.Hash
	leaves [][]byte
	files  fstest.MapFS
	size   int64 // published
}

func newMemory(t testing.TB) *memory {
	return &memory{t: t, key: newKey(t, origin), files: fstest.MapFS{}}
}

func (m *memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(m.hashes)) {
			return nil, errors.New("beyond the tree")
		}
		out[i] = m.hashes[x]
	}
	return out, nil
}

func leaf(i int64) []byte { return []byte(strings.Repeat(fmt.Sprintf("leaf %d.", i), 1+int(i%7))) }

// grow appends leaves up to size and publishes.
func (m *memory) grow(size int64) Checkpoint {
	m.t.Helper()
	b := NewBatch(int64(len(m.leaves)), m)
	for b.Size() < size {
		if _, err := b.Append(leaf(b.Size())); err != nil {
			m.t.Fatal(err)
		}
	}
	c, err := b.Checkpoint(origin)
	if err != nil {
		m.t.Fatal(err)
	}
	first, hashes := b.Hashes()
	if first != int64(len(m.hashes)) {
		m.t.Fatalf("hashes begin at %d, want %d", first, len(m.hashes))
	}
	m.hashes = append(m.hashes, hashes...)
	m.leaves = append(m.leaves, b.Leaves()...)
	for _, t := range NewTiles(m.size, size) {
		var data []byte
		if t.L < 0 {
			for _, l := range m.leaves[t.N*TileWidth:][:t.W] {
				data = AppendEntry(data, l)
			}
		} else if data, err = tlog.ReadTileData(t, m); err != nil {
			m.t.Fatal(err)
		}
		m.files[Path(t)] = &fstest.MapFile{Data: data}
	}
	m.size = size
	m.files["checkpoint"] = &fstest.MapFile{Data: m.sign(c)}
	return c
}

func (m *memory) sign(c Checkpoint) []byte {
	m.t.Helper()
	msg, err := SignCheckpoint(c, m.key)
	if err != nil {
		m.t.Fatal(err)
	}
	return msg
}

func (m *memory) dropPartial() {
	for name := range m.files {
		if dir, _, ok := strings.Cut(name, ".p/"); ok && m.files[dir] != nil {
			delete(m.files, name)
		}
	}
}

// The tree hash straight from the definition in RFC 6962, section 2.1.
func mth(leaves [][]byte) [32]byte {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	l, r := mth(leaves[:k]), mth(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

// independent recomputes what must be published for the leaves by the words of
// C2SP tlog-tiles, without package tlog: every file by its path.
func independent(leaves [][]byte) map[string][]byte {
	path := func(n int) string {
		s := fmt.Sprintf("%03d", n%1000)
		for n /= 1000; n > 0; n /= 1000 {
			s = fmt.Sprintf("x%03d/%s", n%1000, s)
		}
		return s
	}
	files := map[string][]byte{}
	put := func(level string, n, w int, data []byte) {
		p := "tile/" + level + "/" + path(n)
		if w < 256 {
			p += fmt.Sprintf(".p/%d", w)
		}
		files[p] = data
	}
	for at := 0; at < len(leaves); at += 256 {
		end := min(at+256, len(leaves))
		var data []byte
		for _, l := range leaves[at:end] {
			data = append(data, byte(len(l)>>8), byte(len(l)))
			data = append(data, l...)
		}
		put("entries", at/256, end-at, data)
	}
	width := 1 // leaves below one hash of the level
	for level := 0; len(leaves)/width > 0; level++ {
		count := len(leaves) / width // only complete subtrees have a hash in a tile
		for at := 0; at < count; at += 256 {
			end := min(at+256, count)
			var data []byte
			for i := at; i < end; i++ {
				h := mth(leaves[i*width : (i+1)*width])
				data = append(data, h[:]...)
			}
			put(fmt.Sprint(level), at/256, end-at, data)
		}
		width *= 256
	}
	return files
}

func TestConformance(t *testing.T) {
	m := newMemory(t)
	for _, size := range []int64{1, 2, 3, 255, 256, 257, 511, 512, 513, 1000, 65535, 65536, 65537, 66000} {
		c := m.grow(size)
		if c.Root != mth(m.leaves) {
			t.Fatalf("size %d: root is not the one of RFC 6962", size)
		}
		want := independent(m.leaves)
		for path, data := range want {
			f := m.files[path]
			if f == nil {
				t.Fatalf("size %d: %s is not published", size, path)
			}
			if !bytes.Equal(f.Data, data) {
				t.Fatalf("size %d: %s differs", size, path)
			}
		}
		m.dropPartial()
		for path := range m.files {
			dir, _, partial := strings.Cut(path, ".p/")
			if want[path] == nil && path != "checkpoint" && !(partial && strings.HasPrefix(path, dir)) {
				t.Errorf("size %d: %s is published and should not be", size, path)
			}
		}
		if err := NewLog(m.files, c).Verify(nil); err != nil {
			t.Fatalf("size %d: %v", size, err)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, v := range []struct {
		tile tlog.Tile
		path string
	}{
		{tlog.Tile{H: 8, L: 0, N: 0, W: 256}, "tile/0/000"},
		{tlog.Tile{H: 8, L: 0, N: 1234067, W: 256}, "tile/0/x001/x234/067"},
		{tlog.Tile{H: 8, L: 2, N: 1234067, W: 17}, "tile/2/x001/x234/067.p/17"},
		{tlog.Tile{H: 8, L: -1, N: 999, W: 1}, "tile/entries/999.p/1"},
		{tlog.Tile{H: 8, L: -1, N: 1000, W: 256}, "tile/entries/x001/000"},
	} {
		if got := Path(v.tile); got != v.path {
			t.Errorf("%s, want %s", got, v.path)
		}
		if got, err := ParsePath(v.path); err != nil || got != v.tile {
			t.Errorf("%s: %v, %v", v.path, got, err)
		}
	}
	for _, bad := range []string{"", "tile", "tile/", "tile/0", "tile/0/1", "tile/0/0000", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/x000/000",
		"tile/data/000", "tile/8/0/000", "tile/-1/000", "tile/64/000", "tile/00/000", "tile/entries/000.p/01", "tile/0/000/", "/tile/0/000", "tile/0/../0/000"} {
		if tile, err := ParsePath(bad); err == nil {
			t.Errorf("%q parsed as %v", bad, tile)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("tile/0/x001/x234/067.p/17")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, s string) {
		if tile, err := ParsePath(s); err == nil && Path(tile) != s {
			t.Errorf("%q prints as %q", s, Path(tile))
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add([]byte(origin + "\n5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"))
	f.Add(Checkpoint{Origin: origin, Root: EmptyRoot()}.Text())
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseCheckpoint(b); err == nil && !bytes.Equal(c.Text(), b) {
			t.Errorf("%q prints as %q", b, c.Text())
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x02bc"), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		leaves, err := ParseBundle(b, min(max(n, 0), TileWidth))
		if err != nil {
			return
		}
		var back []byte
		for _, l := range leaves {
			back = AppendEntry(back, l)
		}
		if !bytes.Equal(back, b) {
			t.Errorf("%q prints as %q", b, back)
		}
	})
}

func TestCheckpointRefused(t *testing.T) {
	m := newMemory(t)
	c := m.grow(5)
	good := string(c.Text())
	root := base64.StdEncoding.EncodeToString(c.Root[:])
	for what, text := range map[string]string{
		"no last newline": strings.TrimSuffix(good, "\n"),
		"extension":       good + "more\n",
		"leading zero":    origin + "\n05\n" + root + "\n",
		"plus":            origin + "\n+5\n" + root + "\n",
		"negative":        origin + "\n-5\n" + root + "\n",
		"huge":            origin + "\n281474976710657\n" + root + "\n",
		"short root":      origin + "\n5\n" + root[:40] + "\n",
		"loose bits":      origin + "\n5\n" + root[:42] + "/=\n",
		"return":          strings.ReplaceAll(good, "\n", "\r\n"),
		"origin":          "sallyport/citadel/elsewhere\n5\n" + root + "\n",
		"empty tree":      origin + "\n0\n" + root + "\n",
		"nothing":         "",
		"long":            origin + strings.Repeat("x", maxText) + "\n5\n" + root + "\n",
	} {
		if c, err := ParseCheckpoint([]byte(text)); err == nil && string(c.Text()) != text {
			t.Errorf("%s: accepted and printed differently", what)
		} else if err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	msg := m.sign(c)
	if got, err := OpenCheckpoint(msg, origin, m.key.VKey()); err != nil || got != c {
		t.Error(got, err)
	}
	other := newKey(t, origin)
	codes := func(err error) string {
		rs, _ := trust.AsRefusals(err)
		return strings.Join(rs.Codes(), " ")
	}
	if _, err := OpenCheckpoint(msg, origin, other.VKey()); codes(err) != "checkpoint-unsigned" {
		t.Error(err)
	}
	larger := bytes.Replace(msg, []byte("\n5\n"), []byte("\n6\n"), 1)
	if _, err := OpenCheckpoint(larger, origin, m.key.VKey()); codes(err) != "checkpoint-signature" {
		t.Error(err)
	}
	if _, err := OpenCheckpoint(append(msg, bytes.Repeat([]byte("x"), MaxCheckpoint)...), origin, m.key.VKey()); codes(err) != "checkpoint-size" {
		t.Error(err)
	}
	if _, err := SignCheckpoint(Checkpoint{Origin: "sallyport/citadel/outside", Root: EmptyRoot()}, m.key); err == nil {
		t.Error("signed for another log")
	}
}

// Proofs computed from published files hold, and nothing else does.
func TestProofs(t *testing.T) {
	m := newMemory(t)
	former := map[int64]Checkpoint{0: {Origin: origin, Root: EmptyRoot()}}
	for _, size := range []int64{1, 5, 256, 300, 512, 700} {
		former[size] = m.grow(size)
		m.dropPartial()
	}
	c := former[700]
	log := NewLog(m.files, c)
	for _, i := range []int64{0, 1, 255, 256, 511, 512, 698, 699} {
		p, err := log.ProveInclusion(i)
		if err != nil {
			t.Fatal(i, err)
		}
		if err := CheckInclusion(c, i, leaf(i), p); err != nil {
			t.Error(err)
		}
		if err := CheckInclusion(c, i, leaf(i+1), p); err == nil {
			t.Error("another leaf was proven")
		}
		if err := CheckInclusion(c, i^1, leaf(i), p); err == nil {
			t.Error("another index was proven")
		}
		if got, err := log.Leaf(i); err != nil || !bytes.Equal(got, leaf(i)) {
			t.Errorf("%d: %q, %v", i, got, err)
		}
	}
	for _, i := range []int64{-1, 700} {
		if _, err := log.ProveInclusion(i); err == nil {
			t.Error(i, "was proven")
		}
		if _, err := log.Leaf(i); err == nil {
			t.Error(i, "was read")
		}
	}
	for size, old := range former {
		if err := log.Contains(old); err != nil {
			t.Errorf("%d: %v", size, err)
		}
		// Also seen from a checkpoint in between, whose partial tiles are gone.
		if size >= 300 {
			if err := NewLog(m.files, old).Contains(former[256]); err != nil {
				t.Errorf("%d: %v", size, err)
			}
		}
		forged := old
		forged.Root[3] ^= 1
		if err := log.Contains(forged); !refused(err, "ledger-fork") {
			t.Errorf("%d: forged root: %v", size, err)
		}
	}
	if err := NewLog(m.files, former[300]).Contains(c); !refused(err, "ledger-rollback") {
		t.Error(err)
	}
	p, err := log.ProveConsistency(300)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConsistency(former[300], c, p); err != nil {
		t.Error(err)
	}
	if err := CheckConsistency(former[256], c, p); err == nil {
		t.Error("a proof for another size held")
	}
}

func refused(err error, code string) bool {
	rs, ok := trust.AsRefusals(err)
	return ok && rs.Has(code)
}

// Each published file, changed in one bit, cut, or missing, is found.
func TestTampering(t *testing.T) {
	m := newMemory(t)
	c := m.grow(600)
	for path, f := range m.files {
		if path == "checkpoint" {
			continue
		}
		tile, err := ParsePath(path)
		if err != nil {
			t.Fatal(err)
		}
		good := f.Data
		spoil := map[string]func() *fstest.MapFile{
			"first": func() *fstest.MapFile { b := bytes.Clone(good); b[2] ^= 1; return &fstest.MapFile{Data: b} },
			"last":  func() *fstest.MapFile { b := bytes.Clone(good); b[len(b)-1] ^= 1; return &fstest.MapFile{Data: b} },
			"cut":   func() *fstest.MapFile { return &fstest.MapFile{Data: good[:len(good)-1]} },
			"grown": func() *fstest.MapFile { return &fstest.MapFile{Data: append(bytes.Clone(good), 0)} },
			"gone":  func() *fstest.MapFile { return nil },
		}
		for what, bad := range spoil {
			if b := bad(); b == nil {
				delete(m.files, path)
			} else {
				m.files[path] = b
			}
			err := NewLog(m.files, c).Verify(nil)
			if !refused(err, "ledger-tile") && !refused(err, "ledger-entry") && !refused(err, "ledger-size") {
				t.Errorf("%s %s: %v", path, what, err)
			}
			if tile.L == 0 {
				if _, err := NewLog(m.files, c).ProveInclusion(tile.N * TileWidth); err == nil {
					t.Errorf("%s %s: a proof was made", path, what)
				}
			}
			m.files[path] = f
		}
	}
	forged := c
	forged.Root[0] ^= 1
	if err := NewLog(m.files, forged).Verify(nil); !refused(err, "ledger-entry") {
		t.Error(err)
	}
	if err := NewLog(m.files, c).Verify(nil); err != nil {
		t.Error(err)
	}
	seen := int64(0)
	NewLog(m.files, c).Verify(func(i int64, l []byte) error {
		if i != seen || !bytes.Equal(l, leaf(i)) {
			t.Errorf("visited %d, want %d", i, seen)
		}
		seen++
		return nil
	})
	if seen != 600 {
		t.Error(seen)
	}
	stop := errors.New("stop")
	if err := NewLog(m.files, c).Verify(func(i int64, l []byte) error { return stop }); err != stop {
		t.Error(err)
	}
}

func TestBatchCut(t *testing.T) {
	m := newMemory(t)
	m.grow(300)
	a, b := NewBatch(300, m), NewBatch(300, m)
	for i := range int64(50) {
		a.Append(leaf(300 + i))
		b.Append(leaf(300 + i))
		mark := b.Size()
		for k := range int64(3) {
			b.Append([]byte(fmt.Sprint("taken back", k)))
		}
		b.Cut(mark)
	}
	ca, err := a.Checkpoint(origin)
	if err != nil {
		t.Fatal(err)
	}
	if cb, err := b.Checkpoint(origin); err != nil || ca != cb {
		t.Error(cb, err)
	}
	for _, bad := range [][]byte{nil, make([]byte, MaxLeaf+1)} {
		if _, err := a.Append(bad); err == nil {
			t.Errorf("leaf of %d bytes was taken", len(bad))
		}
	}
	if _, err := a.Append(make([]byte, MaxLeaf)); err != nil {
		t.Error(err)
	}
}

func TestWitness(t *testing.T) {
	m := newMemory(t)
	w := newKey(t, "wanda/witness")
	now := time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)
	read := func() []byte { b, _ := ReadCheckpoint(m.files); return b }
	m.grow(10)
	seen, note, err := Cosign(Checkpoint{}, read(), m.key.VKey(), m.files, w, now)
	if err != nil || seen.Size != 10 {
		t.Fatal(seen, err)
	}
	c, at, err := OpenCosigned(note, origin, m.key.VKey(), w.VKey())
	if err != nil || c != seen || !at.Equal(now) {
		t.Fatal(c, at, err)
	}

	// The cosignature by the words of C2SP tlog-cosignature, with crypto/ed25519 alone.
	lines := strings.Split(strings.TrimSuffix(string(note), "\n"), "\n")
	if len(lines) != 6 || lines[3] != "" || !strings.HasPrefix(lines[4], "— "+origin+" ") || !strings.HasPrefix(lines[5], "— wanda/witness ") {
		t.Fatalf("not text, empty line, log, witness:\n%s", note)
	}
	blob, err := base64.StdEncoding.DecodeString(strings.Fields(lines[5])[2])
	if err != nil || len(blob) != 4+8+64 {
		t.Fatal(len(blob), err)
	}
	id := sha256.Sum256(append([]byte("wanda/witness\n\x04"), w.VKey().Public...))
	if !bytes.Equal(blob[:4], id[:4]) {
		t.Error("key hash")
	}
	seconds := binary.BigEndian.Uint64(blob[4:])
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", seconds, strings.Join(lines[:3], "\n")+"\n")
	if !ed25519.Verify(w.VKey().Public, []byte(message), blob[12:]) {
		t.Error("the cosignature does not verify")
	}

	// Growth, and the same again.
	m.grow(300)
	if seen, note, err = Cosign(seen, read(), m.key.VKey(), m.files, w, now); err != nil || seen.Size != 300 {
		t.Fatal(seen, err)
	}
	if _, _, err := Cosign(seen, read(), m.key.VKey(), m.files, w, now); err != nil {
		t.Error(err)
	}
	older := read()
	log := NewLog(m.files, m.grow(301))

	// Merging.
	merged, held, err := Merge(nil, m.key.VKey(), note, m.key.VKey(), log, w.VKey())
	if err != nil || merged != seen || !bytes.Equal(held, note) {
		t.Fatal(merged, err)
	}
	_, note10, _ := Cosign(Checkpoint{}, m.sign(c), m.key.VKey(), m.files, w, now)
	if _, _, err := Merge(held, m.key.VKey(), note10, m.key.VKey(), log, w.VKey()); !refused(err, "witness-old") {
		t.Error(err)
	}
	stranger := newKey(t, "mallory/witness")
	line, _ := trust.CosignText(seen.Text(), stranger, now)
	if _, kept, err := Merge(nil, m.key.VKey(), append(bytes.Clone(note), line+"\n"...), m.key.VKey(), log, w.VKey()); err != nil || !bytes.Equal(kept, note) {
		t.Error("a stranger's line was kept", err)
	}
	if _, _, err := Merge(nil, m.key.VKey(), note, m.key.VKey(), log, stranger.VKey()); err == nil {
		t.Error("merged for another witness")
	}

	// Rollback.
	seen301, _, err := Cosign(seen, read(), m.key.VKey(), m.files, w, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := Cosign(seen301, older, m.key.VKey(), m.files, w, now); !refused(err, "witness-rollback") {
		t.Error(err)
	}
	// Forks: another tree of the same size, and a larger one without the former.
	fork := newMemory(t)
	fork.key = m.key
	b := NewBatch(0, fork)
	b.Append([]byte("another first leaf"))
	_, fork.hashes = b.Hashes()
	fork.leaves = b.Leaves()
	for _, size := range []int64{301, 302, 600} {
		c := fork.grow(size)
		if _, _, err := Cosign(seen301, fork.sign(c), m.key.VKey(), fork.files, w, now); !refused(err, "witness-fork") {
			t.Errorf("fork of size %d: %v", size, err)
		}
		_, note, err := Cosign(Checkpoint{}, fork.sign(c), m.key.VKey(), fork.files, w, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := Merge(nil, m.key.VKey(), note, m.key.VKey(), log, w.VKey()); !refused(err, "ledger-fork") && !refused(err, "ledger-rollback") {
			t.Errorf("fork of size %d merged: %v", size, err)
		}
	}
	// Tiles that do not belong to the checkpoint.
	m.grow(500)
	for name, f := range m.files {
		if strings.HasPrefix(name, "tile/0/") {
			bad := bytes.Clone(f.Data)
			bad[0] ^= 1
			m.files[name] = &fstest.MapFile{Data: bad}
		}
	}
	if _, _, err := Cosign(seen301, read(), m.key.VKey(), m.files, w, now); !refused(err, "ledger-tile") {
		t.Error(err)
	}
	if _, _, err := Cosign(Checkpoint{}, read(), newKey(t, origin).VKey(), m.files, w, now); err == nil {
		t.Error("cosigned for another log")
	}
	if _, _, err := Cosign(Checkpoint{}, read(), m.key.VKey(), m.files, m.key, now); err == nil {
		t.Error("cosigned with a key that is no witness's")
	}
}

func TestReadBounds(t *testing.T) {
	huge := fstest.MapFS{"checkpoint": {Data: make([]byte, MaxCheckpoint+1)}}
	if _, err := ReadCheckpoint(huge); err == nil {
		t.Error("too large a checkpoint was read")
	}
	if _, err := ReadCheckpoint(fstest.MapFS{}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// BenchmarkVerify recomputes a published log of 100,000 entries of 800 bytes; the aim is 1,000,000 in 2 s.
func BenchmarkVerify(b *testing.B) {
	const size = 100_000
	m := newMemory(b)
	body := bytes.Repeat([]byte("x"), 792)
	batch := NewBatch(0, m)
	for i := range int64(size) {
		batch.Append(binary.BigEndian.AppendUint64(bytes.Clone(body), uint64(i)))
	}
	_, m.hashes = batch.Hashes()
	m.leaves = batch.Leaves()
	m.size = 0
	c := m.grow(size)
	for b.Loop() {
		if err := NewLog(m.files, c).Verify(nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(size)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkAppend(b *testing.B) {
	m := newMemory(b)
	l := bytes.Repeat([]byte("x"), 800)
	batch := NewBatch(0, m)
	for b.Loop() {
		if _, err := batch.Append(l); err != nil {
			b.Fatal(err)
		}
	}
}
