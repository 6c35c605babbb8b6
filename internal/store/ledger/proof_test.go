package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
)

// wantCode fails unless err is one refusal with this code; an empty code wants no error.
func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	rs, ok := trust.AsRefusals(err)
	if code == "" && err != nil || code != "" && (!ok || !rs.Has(code)) {
		t.Errorf("have %v, want %q", err, code)
	}
}

// sizes are those at which a tree has another shape: around a tile's width, and inside.
var sizes = []int64{1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 700}

func TestProofFiles(t *testing.T) {
	m := newMemory(t)
	kept := map[int64]Checkpoint{0: {Origin: origin, Root: EmptyRoot()}}
	for _, size := range sizes {
		c := m.grow(size)
		kept[size] = c
		note := m.sign(c)
		log := NewLog(m.files, c)
		for _, index := range []int64{0, 1, size / 2, size - 2, size - 1} {
			if index < 0 || index >= size {
				continue
			}
			p, err := log.ProveEntry(index, note)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseProof(p.Marshal())
			if err != nil {
				t.Fatalf("size %d, entry %d: %v\n%s", size, index, err, p.Marshal())
			}
			if got.Index != index || !bytes.Equal(got.Leaf, m.leaves[index]) || !slices.Equal(got.Path, p.Path) || !bytes.Equal(got.Checkpoint, note) {
				t.Errorf("size %d, entry %d: parsed to something else", size, index)
			}
			wantCode(t, got.Check(c), "")
			for name, change := range map[string]func(p *Proof){
				"another entry":      func(p *Proof) { p.Leaf = []byte("other") },
				"another index":      func(p *Proof) { p.Index++ },
				"a hash more":        func(p *Proof) { p.Path = append(p.Path, tlog.Hash{}) },
				"an index below":     func(p *Proof) { p.Index = -1 },
				"beyond the ledger":  func(p *Proof) { p.Index = size },
				"an entry's prefix":  func(p *Proof) { p.Leaf = p.Leaf[:len(p.Leaf)-1] },
				"no entry":           func(p *Proof) { p.Leaf = nil },
				"a hash of the path": func(p *Proof) { p.Path = append(slices.Clone(p.Path), tlog.Hash{1})[1:] },
			} {
				bad := *got
				bad.Path = slices.Clone(got.Path)
				if change(&bad); slices.Equal(bad.Path, got.Path) && bad.Index == got.Index && bytes.Equal(bad.Leaf, got.Leaf) {
					continue
				}
				if name == "a hash of the path" && len(got.Path) == 0 {
					continue
				}
				if err := bad.Check(c); err == nil {
					t.Errorf("size %d, entry %d: %s passes", size, index, name)
				}
			}
		}
		for old, was := range kept {
			g, err := log.ProveGrowth(old, note)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseGrowth(g.Marshal())
			if err != nil {
				t.Fatalf("%d to %d: %v\n%s", old, size, err, g.Marshal())
			}
			wantCode(t, got.Check(was, c), "")
			other := was
			other.Root[0] ^= 1
			if err := got.Check(other, c); err == nil {
				t.Errorf("%d to %d: another former tree passes", old, size)
			}
			if len(got.Path) > 0 {
				got.Path[len(got.Path)/2][5] ^= 1
				wantCode(t, got.Check(was, c), "ledger-fork")
			} else {
				got.Path = append(got.Path, tlog.Hash{})
				wantCode(t, got.Check(was, c), "proof-syntax")
			}
			got.Old++
			wantCode(t, got.Check(was, c), "proof-old")
		}
	}
}

// TestProofForm: what parses is in the one spelling.
func TestProofForm(t *testing.T) {
	m := newMemory(t)
	c := m.grow(5)
	note := m.sign(c)
	log := NewLog(m.files, c)
	p, err := log.ProveEntry(2, note)
	if err != nil {
		t.Fatal(err)
	}
	g, err := log.ProveGrowth(3, note)
	if err != nil {
		t.Fatal(err)
	}
	without := *p
	without.Leaf = nil
	if got, err := ParseProof(without.Marshal()); err != nil || got.Leaf != nil {
		t.Errorf("a proof without its entry: %v", err)
	}
	proof, growth := string(p.Marshal()), string(g.Marshal())
	hash := proof[strings.Index(proof, "index 2\n")+8:][:45]
	for name, s := range map[string]string{
		"empty":                     "",
		"another title":             strings.Replace(proof, "@v1", "@v2", 1),
		"a space behind the title":  strings.Replace(proof, "@v1\n", "@v1 \n", 1),
		"CR":                        strings.Replace(proof, "index 2\n", "index 2\r\n", 1),
		"a sign":                    strings.Replace(proof, "index 2", "index +2", 1),
		"a leading zero":            strings.Replace(proof, "index 2", "index 02", 1),
		"no index":                  strings.Replace(proof, "index 2\n", "", 1),
		"a negative index":          strings.Replace(proof, "index 2", "index -2", 1),
		"beyond any ledger":         strings.Replace(proof, "index 2", "index 9223372036854775807", 1),
		"extra that is empty":       strings.Replace(proof, "extra ", "extra \nextra ", 1),
		"extra behind the index":    strings.Replace(strings.Replace(proof, "index 2\n", "", 1), "\nextra", "\nindex 2\nextra", 1),
		"a hash that is short":      strings.Replace(proof, hash, hash[:40]+"\n", 1),
		"a hash in hexadecimal":     strings.Replace(proof, hash, strings.Repeat("0", 64)+"\n", 1),
		"spare bits":                strings.Replace(proof, hash, hash[:42]+"9=\n", 1),
		"too many hashes":           strings.Replace(proof, hash, strings.Repeat(hash, 64), 1),
		"no checkpoint":             proof[:strings.Index(proof, "\n\n")+2],
		"cut in the hashes":         proof[:strings.Index(proof, hash)+20],
		"a checkpoint without end":  proof + strings.Repeat("x", MaxCheckpoint),
		"more than any proof":       proof + strings.Repeat("x", MaxProof),
		"an entry that is too long": strings.Replace(proof, "extra ", "extra "+strings.Repeat("AAAA", MaxLeaf/3+1), 1),
	} {
		if s == proof {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := ParseProof([]byte(s)); err == nil {
			t.Errorf("%s: parses", name)
		} else if rs, ok := trust.AsRefusals(err); !ok || !rs.Has("proof-syntax") && !rs.Has("proof-size") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "a proof": proof, "a sign": strings.Replace(growth, "old 3", "old +3", 1), "a leading zero": strings.Replace(growth, "old 3", "old 003", 1),
		"negative": strings.Replace(growth, "old 3", "old -3", 1), "no old": strings.Replace(growth, "old 3\n", "", 1), "cut": growth[:20],
	} {
		if _, err := ParseGrowth([]byte(s)); err == nil {
			t.Errorf("%s: parses", name)
		}
	}
	if IsGrowth(p.Marshal()) || !IsGrowth(g.Marshal()) {
		t.Error("the two forms are taken for each other")
	}
}

func FuzzParseProof(f *testing.F) {
	m := newMemory(f)
	c := m.grow(300)
	note := m.sign(c)
	log := NewLog(m.files, c)
	for _, i := range []int64{0, 255, 299} {
		p, err := log.ProveEntry(i, note)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p.Marshal())
		p.Leaf = nil
		f.Add(p.Marshal())
	}
	for _, i := range []int64{0, 100, 300} {
		g, err := log.ProveGrowth(i, note)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(g.Marshal())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, err := ParseProof(data); err == nil && !bytes.Equal(p.Marshal(), data) {
			t.Errorf("a proof prints as\n%q", p.Marshal())
		}
		if g, err := ParseGrowth(data); err == nil && !bytes.Equal(g.Marshal(), data) {
			t.Errorf("a growth prints as\n%q", g.Marshal())
		}
	})
}

func TestRange(t *testing.T) {
	m := newMemory(t)
	size := int64(1030)
	c := m.grow(size)
	log := NewLog(m.files, c)
	for _, r := range [][2]int64{{0, 0}, {0, 1}, {0, size}, {255, 257}, {256, 512}, {300, 301}, {1029, 1030}, {size, size}, {1, 1024}} {
		next := r[0]
		err := log.Range(t.Context(), r[0], r[1], func(i int64, l []byte, h tlog.Hash) error {
			if i != next || !bytes.Equal(l, m.leaves[i]) || h != tlog.RecordHash(l) {
				return fmt.Errorf("entry %d where %d was to come, or another one", i, next)
			}
			next++
			return nil
		})
		if err != nil || next != r[1] {
			t.Errorf("%v: %v, up to %d", r, err, next)
		}
	}
	for _, r := range [][2]int64{{-1, 3}, {3, 2}, {0, size + 1}} {
		if err := log.Range(t.Context(), r[0], r[1], nil); err == nil {
			t.Errorf("%v: no error", r)
		}
	}
	stop := errors.New("stop")
	if err := log.Range(t.Context(), 0, size, func(i int64, _ []byte, _ tlog.Hash) error {
		if i == 700 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := log.Range(ctx, 0, size, func(int64, []byte, tlog.Hash) error { cancel(); return nil }); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestRangeBelievesNothing: a changed byte of any published file ends the run before an entry behind it is shown; what is shown is what was appended.
func TestRangeBelievesNothing(t *testing.T) {
	m := newMemory(t)
	c := m.grow(600)
	for name, file := range m.files {
		if name == "checkpoint" {
			continue
		}
		for _, at := range []int{0, len(file.Data) / 2, len(file.Data) - 1} {
			files := fstest.MapFS{}
			for n, f := range m.files {
				files[n] = f
			}
			data := bytes.Clone(file.Data)
			data[at] ^= 1
			files[name] = &fstest.MapFile{Data: data}
			shown := 0
			err := NewLog(files, c).Range(t.Context(), 0, 600, func(i int64, l []byte, h tlog.Hash) error {
				if !bytes.Equal(l, m.leaves[i]) || h != tlog.RecordHash(m.leaves[i]) {
					t.Errorf("%s, byte %d: entry %d is shown as another", name, at, i)
				}
				shown++
				return nil
			})
			if _, ok := trust.AsRefusals(err); !ok {
				t.Errorf("%s, byte %d: %v, %d entries shown", name, at, err, shown)
			}
		}
	}
}

func TestJoin(t *testing.T) {
	m := newMemory(t)
	note := m.sign(m.grow(3))
	wilma := newKey(t, "wilma/witness")
	_, one, err := Cosign(Checkpoint{}, note, m.key.VKey(), m.files, wilma, time.Unix(100, 0))
	if err != nil {
		t.Fatal(err)
	}
	later := m.sign(m.grow(4))
	_, two, err := Cosign(Checkpoint{}, later, m.key.VKey(), m.files, newKey(t, "xaver/witness"), time.Unix(100, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got := Join(note, one, two, one, []byte("nothing")); !bytes.Equal(got, one) {
		t.Errorf("have\n%s\nwant\n%s", got, one)
	}
	if got := Join([]byte("nothing"), one); string(got) != "nothing" {
		t.Errorf("%q", got)
	}
}
