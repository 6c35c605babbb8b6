package e2e_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/storepath"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/trust"
)

// maxStream is what either program may need, however large an item is.
const maxStream = 200 << 20

// Sums of the nar of one file of 2 GB of zeros. They are written down here because computing them takes longer than the import; if they were wrong, it would be refused.
const (
	streamSHA256 = "7f029f266071c2ff711f76c1cd27c7a95b0257891ecc3fc1a6613452bc2aac20"
	streamSHA512 = "b8a3adeda05d07f03baf9c6de2c63b3aed80a7c64ddea0662c053e75d116a58101dc069c208e044ef05cf867e391c863dcc7fb617073243ca1f10e03db0fab1f"
)

// TestStreaming imports one item of 2 GB.
func TestStreaming(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("2 GB take some seconds; run without -short")
	}
	const size = int64(2 << 30)
	head := append(words("nix-archive-1", "(", "type", "regular", "contents"), words("")...)
	head = append(head[:len(head)-8], 0, 0, 0, byte(size>>24), 0, 0, 0, 0)
	tail := words(")")
	w := newWorld(t, admitted(t), "inside")
	if free := space(t, w.dir); free < 2*size+(2<<30) {
		t.Skipf("NOT TESTED: 2 GB in bounded memory. %d MB free in %s, %d wanted (remedy: set TMPDIR)", free>>20, w.dir, (2*size+(2<<30))>>20)
	}
	sum256, err := trust.ParseDigest(streamSHA256)
	if err != nil {
		t.Fatal(err)
	}
	it := trust.Item{SHA256: sum256, Size: size + int64(len(head)+len(tail)), Kind: trust.KindSource}
	p, err := storepath.Source("large", it.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	it.Name = p.Base()
	w.sparse(it, head, tail, streamSHA512)

	run := w.start(w.importOf("slip-large", "volume-large")...)
	var wg sync.WaitGroup
	peaks := map[string]int64{} // by program
	over := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(20 * time.Millisecond):
			}
			for _, pid := range append(children(run.cmd.Process.Pid), run.cmd.Process.Pid) {
				exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
				if err != nil {
					continue
				}
				peaks[filepath.Base(exe)] = max(peaks[filepath.Base(exe)], highWater(pid))
			}
		}
	})
	r := w.wait(run)
	close(over)
	wg.Wait()
	if r.code != done {
		t.Fatal(r)
	}
	t.Logf("2 GB in %.1f s (%.0f MB/s); peaks: station %d MB, reader %d MB, by rusage %d MB", r.took.Seconds(), float64(size)/1e6/r.took.Seconds(),
		peaks[station]>>20, peaks["sallyport-reader"]>>20, r.peak>>20)
	if r.peak > maxStream {
		t.Errorf("peak memory of station or reader: %d MB, at most %d wanted", r.peak>>20, maxStream>>20)
	}
	for _, program := range []string{station, "sallyport-reader"} {
		if n := peaks[program]; n == 0 || n > maxStream {
			t.Errorf("%s: peak memory %d MB, at most %d wanted", program, n>>20, maxStream>>20)
		}
	}
	if !slices.ContainsFunc(w.shipments(), func(s shipped) bool { return s.Shipment == 3 && s.Bytes == it.Size }) {
		t.Errorf("shipments %v", w.shipments())
	}
}

// sparse writes a volume whose one item is a file with a hole, byte by byte what [shipment.Write] would make.
func (w *world) sparse(it trust.Item, head, tail []byte, sum512 string) {
	w.t.Helper()
	m := &shipment.Manifest{Enclave: enclave, Number: 3, Date: time.Now().UTC().Truncate(time.Second), Previous: trust.Sum([]byte("unseen")), Items: []trust.Item{it}}
	manifest, err := m.Sign(w.secret("carol/manifest"))
	if err != nil {
		w.t.Fatal(err)
	}
	hex := it.SHA256.String()
	path := "items/" + hex[:2] + "/" + hex
	write(w.t, w.path("volume-large", path), head, 0o644)
	f, err := os.OpenFile(w.path("volume-large", path), os.O_WRONLY, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(tail, it.Size-int64(len(tail))); err != nil {
		w.t.Fatal(err)
	}
	readme := []byte("A large one.\n")
	write(w.t, w.path("volume-large", "README.txt"), readme, 0o644)
	write(w.t, w.path("volume-large", "manifest"), manifest, 0o644)
	for _, s := range []struct{ name, readme, item, manifest string }{
		{"SHA256SUMS", fmt.Sprintf("%x", sha256.Sum256(readme)), hex, fmt.Sprintf("%x", sha256.Sum256(manifest))},
		{"SHA512SUMS", fmt.Sprintf("%x", sha512.Sum512(readme)), sum512, fmt.Sprintf("%x", sha512.Sum512(manifest))},
	} {
		sums := fmt.Appendf(nil, "%s  README.txt\n%s  %s\n%s  manifest\n", s.readme, s.item, path, s.manifest)
		sig, err := trust.SignSums(w.secret("carol/sums"), sums, trust.SumsComment(enclave, 3))
		if err != nil {
			w.t.Fatal(err)
		}
		write(w.t, w.path("volume-large", s.name), sums, 0o644)
		write(w.t, w.path("volume-large", s.name+".minisig"), sig, 0o644)
	}
	write(w.t, w.path("slip-large"), shipment.NewSlip(m, manifest).Text(), 0o644)
}

// children are the processes that a process has started.
func children(pid int) []int {
	var list []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		data, _ := os.ReadFile(f)
		for _, s := range strings.Fields(string(data)) {
			if n, err := strconv.Atoi(s); err == nil {
				list = append(list, n)
			}
		}
	}
	return list
}

// highWater is the peak resident memory of a process, in bytes; 0 if it is gone.
func highWater(pid int) int64 {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	f := strings.Fields(rest)
	if len(f) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(f[0], 10, 64)
	return n << 10
}
