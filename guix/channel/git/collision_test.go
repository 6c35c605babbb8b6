package git

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
)

// TestCollisions finds the known collisions, of two kinds of attack, and nothing in what is near them.
func TestCollisions(t *testing.T) {
	for _, name := range []string{"shattered", "sha-mbles"} {
		var texts [2][]byte
		for i, n := range []string{"-1.bin", "-2.bin"} {
			var err error
			if texts[i], err = os.ReadFile("testdata/" + name + n); err != nil {
				t.Fatal(err)
			}
		}
		if bytes.Equal(texts[0], texts[1]) || sha1.Sum(texts[0]) != sha1.Sum(texts[1]) {
			t.Fatalf("%s: the files are no collision", name)
		}
		for i, text := range texts {
			for _, n := range []int{0, 5, 63} {
				if !Collides(text[:n], text[n:]) {
					t.Errorf("%s-%d, with a head of %d bytes: not found", name, i+1, n)
				}
			}
			for _, n := range []int{20, 25, 55, 56, 63} { // what follows ends in every kind of padding
				if !Collides(text[:n], text[n:]) || !Collides(text[:n], append(bytes.Clone(text[n:]), make([]byte, n)...)) {
					t.Errorf("%s-%d, with a head of %d bytes and more behind: not found", name, i+1, n)
				}
			}
			if !Collides(nil, append(bytes.Clone(text), bytes.Repeat([]byte("more"), 1000)...)) {
				t.Errorf("%s-%d and more: not found", name, i+1)
			}
			// Another chaining value, or another message: no collision.
			if Collides([]byte("blob 320\x00"), text) || Collides(nil, text[64:]) {
				t.Errorf("%s-%d elsewhere: found", name, i+1)
			}
			for k := len(text) - 128; k < len(text); k += 7 {
				bad := bytes.Clone(text)
				bad[k] ^= 0x10
				if Collides(nil, bad) {
					t.Errorf("%s-%d changed at %d: found", name, i+1, k)
				}
			}
		}
	}
}

// TestCollisionStates holds the steps against crypto/sha1, forward and backward.
func TestCollisionStates(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	initial := state{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}
	for range 200 {
		var b [64]byte
		for i := range 55 {
			b[i] = byte(r.Uint32())
		}
		want := sha1.Sum(b[:55])
		b[55] = 0x80
		binary.BigEndian.PutUint64(b[56:], 55*8)
		w := new(schedule)
		w.expand(&b)
		var s scan
		end := initial.plus(s.forward(w, initial))
		var got []byte
		for _, x := range end {
			got = binary.BigEndian.AppendUint32(got, x)
		}
		if !bytes.Equal(got, want[:]) {
			t.Fatalf("%x, want %x", got, want)
		}
		step := 40 + r.IntN(rounds-40)
		if back := backward(w, s.late[step-40], step); back != initial {
			t.Fatalf("%d steps forward and back: %x", step, back)
		}
		if on := initial.plus(onward(w, s.late[step-40], step)); on != end {
			t.Fatalf("from step %d on: %x, want %x", step, on, end)
		}
	}
}

// TestVectors: each vector's difference is one of an expanded message, has a step where the states agree, and has conditions that few blocks meet.
func TestVectors(t *testing.T) {
	for i, v := range vectors {
		for k := 16; k < rounds; k++ {
			x := v.difference[k-3] ^ v.difference[k-8] ^ v.difference[k-14] ^ v.difference[k-16]
			if v.difference[k] != x<<1|x>>31 {
				t.Fatalf("vector %d: word %d does not follow", i, k)
			}
		}
		if v.step < 50 || v.step > 65 || len(v.conditions) < 7 {
			t.Errorf("vector %d: step %d, %d conditions", i, v.step, len(v.conditions))
		}
	}
	r := rand.New(rand.NewPCG(9, 10))
	met := 0
	const blocks = 50000
	for i := range blocks {
		var b [64]byte
		for i := 0; i < 64; i += 8 {
			binary.LittleEndian.PutUint64(b[i:], r.Uint64())
		}
		// Two blocks side by side are judged as each by itself, condition for condition.
		other := b
		other[r.IntN(64)] ^= 1 << r.IntN(8)
		two := new(pair)
		two.expand(&b, &other)
		left := suspects(two)
		if i%20 == 0 || left != 0 && i%5 == 0 {
			if got, want := [2]uint32{uint32(left), uint32(left >> 32)}, [2]uint32{meets(&b), meets(&other)}; got != want {
				t.Fatalf("suspects are %x, want %x", got, want)
			}
		}
		if uint32(left) != 0 {
			met++
		}
	}
	if met == 0 || met > blocks/5 {
		t.Errorf("%d of %d blocks are suspect", met, blocks)
	}
}

// meets tells the vectors all of whose conditions a block meets.
func meets(b *[64]byte) (all uint32) {
	w := new(schedule)
	w.expand(b)
	for i, v := range vectors {
		met := true
		for _, c := range v.conditions {
			met = met && (w[c.t1]>>c.b1^w[c.t2]>>c.b2)&1 == uint32(c.differ)
		}
		if met {
			all |= 1 << i
		}
	}
	return all
}

func BenchmarkCollides(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	text := make([]byte, 1200)
	for i := range text {
		text[i] = byte(r.Uint32())
	}
	b.SetBytes(int64(len(text)))
	head := []byte("commit 1200\x00")
	for b.Loop() {
		if Collides(head, text) {
			b.Fatal("found")
		}
	}
}
