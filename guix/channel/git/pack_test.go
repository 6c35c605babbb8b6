package git

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A packEntry is one entry of a pack that a test makes.
type packEntry struct {
	id   ID
	kind byte
	data []byte // before compression
	size int64  // what the head says; -1 for the truth
	base int    // place of the base, for deltaOffset
	ref  ID     // for deltaRef
	raw  []byte // instead of data compressed
}

// makePack makes a pack and its index.
func makePack(t testing.TB, entries []packEntry) (pack, index []byte) {
	t.Helper()
	pack = binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(entries)))
	offsets := make([]int64, len(entries))
	for i, e := range entries {
		offsets[i] = int64(len(pack))
		size := e.size
		if size < 0 {
			size = int64(len(e.data))
		}
		c := e.kind<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			pack = append(pack, c|0x80)
			c = byte(size & 0x7f)
		}
		pack = append(pack, c)
		switch e.kind {
		case deltaOffset:
			back := offsets[i] - offsets[e.base]
			b := []byte{byte(back & 0x7f)}
			for back >>= 7; back > 0; back >>= 7 {
				back--
				b = append([]byte{0x80 | byte(back&0x7f)}, b...)
			}
			pack = append(pack, b...)
		case deltaRef:
			pack = append(pack, e.ref[:]...)
		}
		if e.raw != nil {
			pack = append(pack, e.raw...)
		} else {
			pack = append(pack, deflate(t, 6, e.data)...)
		}
	}
	pack = append(pack, make([]byte, packTail)...) // its checksum is not looked at
	order := make([]int, len(entries))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return bytes.Compare(entries[a].id[:], entries[b].id[:]) })
	index = []byte("\xfftOc\x00\x00\x00\x02")
	n := 0
	for b := range 256 {
		for n < len(order) && int(entries[order[n]].id[0]) <= b {
			n++
		}
		index = binary.BigEndian.AppendUint32(index, uint32(n))
	}
	for _, i := range order {
		index = append(index, entries[i].id[:]...)
	}
	index = append(index, make([]byte, 4*len(order))...)
	for _, i := range order {
		index = binary.BigEndian.AppendUint32(index, uint32(offsets[i]))
	}
	return pack, append(index, make([]byte, 2*20)...)
}

func open(t testing.TB, pack, index []byte) *Database {
	t.Helper()
	p, err := OpenPack(index, bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		t.Fatal(err)
	}
	return &Database{Packs: []*Pack{p}}
}

// delta makes one of inserts and copies: "i" text, "c" from and length.
func delta(from, to int, ops ...any) []byte {
	var b []byte
	number := func(n int) {
		for ; n > 0x7f; n >>= 7 {
			b = append(b, byte(n)|0x80)
		}
		b = append(b, byte(n))
	}
	number(from)
	number(to)
	for _, op := range ops {
		switch op := op.(type) {
		case string:
			b = append(append(b, byte(len(op))), op...)
		case [2]int:
			b = append(b, 0x80|0x0f|0x70)
			b = binary.LittleEndian.AppendUint32(b, uint32(op[0]))
			b = append(b, byte(op[1]), byte(op[1]>>8), byte(op[1]>>16))
		case []byte:
			b = append(b, op...)
		}
	}
	return b
}

func blob(s string) packEntry {
	return packEntry{id: Hash(KindBlob, []byte(s)), kind: byte(KindBlob), data: []byte(s), size: -1}
}

// TestPack reads a pack with chains of both kinds of deltas.
func TestPack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	text := strings.Repeat("a line of a file\n", 100)
	entries := []packEntry{blob(text)}
	texts := []string{text}
	for i := range 300 {
		base := max(0, i-r.IntN(3))
		from := texts[base]
		cut := r.IntN(len(from))
		more := fmt.Sprintf("more %d", i)
		made := from[:cut] + more + from[cut:]
		d := delta(len(from), len(made), [2]int{0, cut}, more, [2]int{cut, len(from) - cut})
		if cut == 0 {
			d = delta(len(from), len(made), more, [2]int{0, len(from)})
		}
		e := packEntry{id: Hash(KindBlob, []byte(made)), kind: deltaOffset, data: d, base: base, size: -1}
		if i%3 == 0 {
			e.kind, e.ref = deltaRef, entries[base].id
		}
		texts, entries = append(texts, made), append(entries, e)
	}
	pack, index := makePack(t, entries)
	for _, cacheSize := range []int{0, 1, 20000} {
		db := open(t, pack, index)
		db.Cache = cacheSize
		reader := db.NewReader()
		for range 3 {
			for _, i := range r.Perm(len(entries)) {
				got, err := reader.Read(entries[i].id, KindBlob)
				if err != nil || string(got) != texts[i] {
					t.Fatalf("entry %d: %v", i, err)
				}
			}
		}
		if _, err := reader.Read(Hash(KindBlob, []byte("nowhere")), KindBlob); !IsMissing(err) {
			t.Errorf("an object that is not there: %v", err)
		}
		if _, err := reader.Read(entries[0].id, KindTree); code(err) != CodeKind {
			t.Errorf("a file as a tree: %v", err)
		}
	}
}

func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

// TestHostilePacks: one fault each.
func TestHostilePacks(t *testing.T) {
	base := blob("base")
	made := Hash(KindBlob, []byte("based"))
	derived := func(d []byte) packEntry {
		return packEntry{id: made, kind: deltaOffset, data: d, base: 0, size: -1}
	}
	tests := []struct {
		name    string
		entries []packEntry
		code    string
	}{
		{"good", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, "d"))}, ""},
		{"another content", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, "x"))}, CodeID},
		{"another base", []packEntry{base, derived(delta(5, 5, [2]int{0, 4}, "d"))}, CodePack},
		{"copy past the base", []packEntry{base, derived(delta(4, 5, [2]int{1, 4}, "d"))}, CodePack},
		{"copy far past the base", []packEntry{base, derived(delta(4, 5, [2]int{1<<31 - 1, 4}, "d"))}, CodePack},
		{"makes more", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, "dd"))}, CodePack},
		{"makes less", []packEntry{base, derived(delta(4, 6, [2]int{0, 4}, "d"))}, CodePack},
		{"insert of nothing", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, "d", []byte{0}))}, CodePack},
		{"insert past the end", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, []byte{9, 'd'}))}, CodePack},
		{"copy that ends early", []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, []byte{0xff, 0}))}, CodePack},
		{"no sizes", []packEntry{base, derived(nil)}, CodePack},
		{"endless size", []packEntry{base, derived(bytes.Repeat([]byte{0xff}, 20))}, CodePack},
		{"a lie about a large size", []packEntry{base, derived(delta(4, 300<<20, [2]int{0, 4}))}, CodePack},
		{"too large", []packEntry{base, derived(delta(4, 600<<20, [2]int{0, 4}))}, CodeLimit},
		{"base by name missing", []packEntry{base, {id: made, kind: deltaRef, ref: ID{1}, data: delta(4, 5, [2]int{0, 4}, "d"), size: -1}}, CodePack},
		{"base by name is itself", []packEntry{base, {id: made, kind: deltaRef, ref: made, data: delta(4, 5, [2]int{0, 4}, "d"), size: -1}}, CodeLimit},
		{"kind 0", []packEntry{base, {id: made, kind: 0, data: []byte("based"), size: -1}}, CodePack},
		{"kind 5", []packEntry{base, {id: made, kind: 5, data: []byte("based"), size: -1}}, CodePack},
		{"larger than it says", []packEntry{base, {id: made, kind: 3, data: []byte("based"), size: 4}}, CodeDeflate},
		{"smaller than it says", []packEntry{base, {id: made, kind: 3, data: []byte("based"), size: 6}}, CodeDeflate},
		{"more than can expand", []packEntry{base, {id: made, kind: 3, data: []byte("based"), size: 400 << 20}}, CodePack},
		{"blob over the bound", []packEntry{base, {id: made, kind: 3, data: []byte("based"), size: MaxBlob + 1}}, CodeLimit},
		{"commit over the bound", []packEntry{base, {id: made, kind: 1, data: []byte("based"), size: MaxCommit + 1}}, CodeLimit},
		{"not compressed", []packEntry{base, {id: made, kind: 3, raw: []byte("based, and more of it"), size: 5}}, CodeDeflate},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pack, index := makePack(t, tt.entries)
			_, err := open(t, pack, index).NewReader().Read(made, KindBlob)
			if tt.code == "" && err != nil || tt.code != "" && code(err) != tt.code {
				t.Errorf("%v, want %q", err, tt.code)
			}
		})
	}
	good, index := makePack(t, []packEntry{base, derived(delta(4, 5, [2]int{0, 4}, "d"))})
	frames := []struct {
		name        string
		pack, index []byte
	}{
		{"empty pack", nil, index},
		{"not a pack", append([]byte("KCAP"), good[4:]...), index},
		{"version 4", append([]byte("PACK\x00\x00\x00\x04"), good[8:]...), index},
		{"another count", append(append([]byte("PACK\x00\x00\x00\x02"), 0, 0, 0, 9), good[12:]...), index},
		{"empty index", good, nil},
		{"index of version 1", good, index[8:]},
		{"index cut", good, index[:len(index)-1]},
		{"index with more", good, append(slices.Clone(index), 0)},
		{"table that goes down", good, append(append(slices.Clone(index[:8]), 0xff, 0xff, 0xff, 0xff), index[12:]...)},
	}
	for _, f := range frames {
		if _, err := OpenPack(f.index, bytes.NewReader(f.pack), int64(len(f.pack))); err == nil {
			t.Errorf("%s: opened", f.name)
		}
	}
	// Offsets that lead out of the pack, also by way of the table of large ones.
	for _, off := range []uint32{0, 5, uint32(len(good)), 1<<31 - 1, 1 << 31, 1<<31 | 7} {
		bad := slices.Clone(index)
		table := indexHead + 2*24
		for i := range 2 {
			binary.BigEndian.PutUint32(bad[table+4*i:], off)
		}
		if _, err := open(t, good, bad).NewReader().Read(made, KindBlob); err == nil {
			t.Errorf("offset %#x: read", off)
		}
	}
}

// FuzzPack: whatever the bytes, what is read has its id, and nothing panics.
func FuzzPack(f *testing.F) {
	base := blob("base")
	made := Hash(KindBlob, []byte("based"))
	for _, kind := range []byte{deltaOffset, deltaRef} {
		pack, index := makePack(f, []packEntry{base, {id: made, kind: kind, ref: base.id, data: delta(4, 5, [2]int{0, 4}, "d"), size: -1}})
		f.Add(pack, index)
	}
	f.Fuzz(func(t *testing.T, pack, index []byte) {
		p, err := OpenPack(index, bytes.NewReader(pack), int64(len(pack)))
		if err != nil {
			return
		}
		db := &Database{Packs: []*Pack{p}}
		r := db.NewReader()
		for i := range min(p.count, 16) {
			id := ID(p.index[indexHead+20*i:][:20])
			if kind, content, err := r.ReadAny(id); err == nil && Hash(kind, content) != id {
				t.Fatalf("%s is not what was read", id)
			}
		}
	})
}

// FuzzLoose is FuzzPack for the files of loose objects.
func FuzzLoose(f *testing.F) {
	for _, s := range []string{"blob 4\x00base", "tree 0\x00", "blob 40\x00" + strings.Repeat("x", 40), "blob 04\x00base", "blob 5\x00base", "tag -1\x00"} {
		f.Add(deflate(f, 6, []byte(s)))
		f.Add(deflate(f, 0, []byte(s)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r := (&Database{}).NewReader()
		kind, content, err := r.loose(file)
		if err != nil {
			return
		}
		id := Hash(kind, content)
		db := &Database{Loose: func(ID) ([]byte, error) { return file, nil }}
		if again, err := db.NewReader().Read(id, kind); err != nil || !bytes.Equal(again, content) {
			t.Fatalf("%q: %v", content, err)
		}
	})
}

func TestLoose(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		more       string
		ok         bool
	}{
		{"blob", "blob 4\x00base", "", true},
		{"empty", "blob 0\x00", "", true},
		{"long", "blob 70000\x00" + strings.Repeat("abcdefg", 10000), "", true},
		{"zeros", "blob 3\x00\x00\x00\x00", "", true},
		{"leading zero", "blob 04\x00base", "", false},
		{"sign", "blob +4\x00base", "", false},
		{"negative", "blob -4\x00base", "", false},
		{"kind", "glob 4\x00base", "", false},
		{"no end", strings.Repeat("b", 100), "", false},
		{"nothing", "", "", false},
		{"shorter", "blob 5\x00base", "", false},
		{"longer", "blob 3\x00base", "", false},
		{"over the bound", "commit 99999999\x00", "", false},
		{"more than can expand", "blob 9999999\x00base", "", false},
		{"goes on", "blob 4\x00base", "x", false},
	} {
		for _, level := range []int{0, 6} {
			file := append(deflate(t, level, []byte(tt.file)), tt.more...)
			_, content, err := (&Database{}).NewReader().loose(file)
			if (err == nil) != tt.ok {
				t.Errorf("%s: %v", tt.name, err)
			}
			if _, want, _ := strings.Cut(tt.file, "\x00"); tt.ok && string(content) != want {
				t.Errorf("%s: %q", tt.name, content)
			}
		}
	}
}
