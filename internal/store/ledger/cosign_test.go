package ledger

import (
	"bytes"
	"testing"
	"time"
)

// growthOf is what a log sends to a witness who has seen a size.
func (m *memory) growthOf(old int64, c Checkpoint) *Growth {
	m.t.Helper()
	g, err := NewLog(m.files, c).ProveGrowth(old, m.sign(c))
	if err != nil {
		m.t.Fatal(err)
	}
	return g
}

func TestCosignGrowth(t *testing.T) {
	m := newMemory(t)
	wilma := newKey(t, "wilma/witness")
	at := time.Unix(1_700_000_000, 0)
	var none Checkpoint
	ten := m.grow(10)
	first := m.growthOf(0, ten)
	three := m.growthOf(0, ten)
	three.Old = 3
	thirty := m.grow(30)
	grown := m.growthOf(10, thirty)
	stale := m.growthOf(20, thirty)
	from0 := m.growthOf(0, thirty)
	same := m.growthOf(30, thirty)

	// Another log with the same key, which went another way after entry 9.
	fork := newMemory(t)
	fork.key = m.key
	fork.grow(9)
	b := NewBatch(9, fork)
	for i := range int64(31) {
		if _, err := b.Append(append([]byte("other "), leaf(i)...)); err != nil {
			t.Fatal(err)
		}
	}
	forked, err := b.Checkpoint(origin)
	if err != nil {
		t.Fatal(err)
	}
	forkedAt30, err := At(origin, 30, b)
	if err != nil {
		t.Fatal(err)
	}
	empty := Checkpoint{Origin: origin, Root: EmptyRoot()}
	tests := []struct {
		name string
		seen Checkpoint
		g    *Growth
		code string
	}{
		{"the first", none, first, ""},
		{"the first, of what has an empty tree behind it", empty, first, ""},
		{"the first, but the log thinks that it is not", none, three, "witness-stale"},
		{"grown", ten, grown, ""},
		{"the same again", thirty, same, ""},
		{"the same, proven from another size", thirty, from0, ""},
		{"a proof from elsewhere", ten, stale, "witness-stale"},
		{"a proof from nothing", ten, from0, "witness-stale"},
		{"smaller", thirty, first, "witness-rollback"},
		{"empty again", ten, &Growth{Checkpoint: m.sign(empty)}, "witness-rollback"},
		{"the same size, other entries", thirty, &Growth{Old: 30, Checkpoint: m.sign(forkedAt30)}, "witness-fork"},
		{"larger, other entries", thirty, &Growth{Old: 30, Path: grown.Path, Checkpoint: m.sign(forked)}, "witness-fork"},
		{"no proof", ten, &Growth{Old: 10, Checkpoint: grown.Checkpoint}, "witness-fork"},
		{"another's signature", none, &Growth{Checkpoint: resign(t, ten)}, "checkpoint-unsigned"},
	}
	for _, tt := range tests {
		c, note, err := CosignGrowth(tt.seen, tt.g, m.key.VKey(), wilma, at)
		wantCode(t, err, tt.code)
		if t.Failed() {
			t.Fatal(tt.name)
		}
		if err != nil {
			if note != nil || c != (Checkpoint{}) {
				t.Errorf("%s: refused, and yet something is handed out", tt.name)
			}
			continue
		}
		got, when, err := OpenCosigned(note, origin, m.key.VKey(), wilma.VKey())
		if err != nil || got != c || !when.Equal(at) {
			t.Errorf("%s: %v, %v at %v", tt.name, err, got, when)
		}
	}
	// By file or by directory: the same note.
	_, a, err := CosignGrowth(ten, grown, m.key.VKey(), wilma, at)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := Cosign(ten, m.sign(thirty), m.key.VKey(), m.files, wilma, at)
	if err != nil || !bytes.Equal(a, d) {
		t.Errorf("%v\n%s\n%s", err, a, d)
	}
}

// resign signs a checkpoint with another key of the same name.
func resign(t *testing.T, c Checkpoint) []byte {
	t.Helper()
	msg, err := SignCheckpoint(c, newKey(t, origin))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}
