package main

import (
	"path/filepath"
	"testing"
)

// One million entries, tree and canonical form; the bytes are the same again and again, which makes nothing faster.
func BenchmarkLedgerMillion(b *testing.B) {
	w := &world{files: map[string][]byte{}}
	leaf := seal(newKey("station/statement"), payload(*newWorld().find("inspected")))
	for range 1_000_000 {
		w.leaves = append(w.leaves, leaf)
	}
	w.files["ledger/checkpoint"] = noteOf(w.tree(w.leaves), newKey(originName))
	place := filepath.Join(writeFiles(b, b.TempDir(), w.files), "ledger")
	w = nil
	for b.Loop() {
		if exit, _, rep := verify(b, "ledger", "--key", newKey(originName).vkey(), place); exit != 0 {
			b.Fatalf("%+v", rep)
		}
	}
	b.ReportMetric(1_000_000*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// Everything that an enclave's auditor asks, a signature for each entry included. Ed25519 is nearly all of it.
func BenchmarkEnclave(b *testing.B) {
	w := newWorld()
	w.fill = 50_000
	w.publish()
	dir := writeFiles(b, b.TempDir(), w.files)
	size := len(w.leaves)
	pin := w.pin()
	for b.Loop() {
		if exit, _, rep := verify(b, "enclave", "--root", pin, dir); exit != 0 {
			b.Fatalf("%+v", rep)
		}
	}
	b.ReportMetric(float64(size*b.N)/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkBlake2b(b *testing.B) {
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		h := newBlake2b()
		h.Write(data)
		h.sum()
	}
}

// One entry without its signature.
func BenchmarkEntry(b *testing.B) {
	leaf := string(seal(newKey("station/statement"), payload(*newWorld().find("inspected"))))
	b.ReportAllocs()
	for b.Loop() {
		checkEntry(leaf, nil, originName)
	}
}
