//go:build peer

package peer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/storepath"
)

var (
	seed  = flag.Uint64("seed", 1, "of the random trees")
	trees = flag.Int("trees", 500, "random trees that Guix and Nix hash")
)

// nixDepth is how deep a tree Nix 2.34 archives: deeper ones are compared with Guix alone, which has no bound.
const nixDepth = 64

// strange is how many further trees have names that are no UTF-8. `guix hash` cannot open such files; Nix can, and so does the daemon.
const strange = 60

func TestNarHash(t *testing.T) {
	p := start(t)
	t.Run("names in UTF-8", func(t *testing.T) {
		in := p.folder(t)
		names := newForest(*seed, 192<<20).plant(t, in, *trees)
		ours, depths := hashes(t, in, names)
		compare(t, "guix hash -S nar", names, ours, base32Lines(p.run(t, append([]string{"guix", "hash", "-S", "nar"}, inside(in, names)...)...)))
		nix(t, p, in, names, ours, depths)
	})
	t.Run("names of any bytes", func(t *testing.T) {
		in := p.folder(t)
		f := newForest(*seed+1, 32<<20)
		f.bytes = true
		names := f.plant(t, in, strange)
		ours, depths := hashes(t, in, names)
		nix(t, p, in, names, ours, depths)
	})
}

func nix(t *testing.T, p *peer, in folder, all, sums []string, depths []int) {
	t.Helper()
	var names, ours []string
	for i, n := range all {
		if depths[i] <= nixDepth {
			names, ours = append(names, n), append(ours, sums[i])
		}
	}
	if n := len(all) - len(names); n > 0 {
		t.Logf("%d trees are deeper than %d, which Nix refuses", n, nixDepth)
	}
	compare(t, "nix-hash", names, ours, base32Lines(p.run(t, append([]string{"nix-hash", "--type", "sha256", "--base32"}, inside(in, names)...)...)))
	out := p.run(t, append([]string{"sh", "-c", `for i; do nix-store --dump "$i" | sha256sum; done`, "sh"}, inside(in, names)...)...)
	var dumped []string
	for line := range strings.Lines(string(out)) {
		sum, err := hex.DecodeString(strings.Fields(line)[0])
		if err != nil {
			t.Fatal(err)
		}
		dumped = append(dumped, storepath.EncodeBase32(sum))
	}
	compare(t, "nix-store --dump", names, ours, dumped)
}

func inside(in folder, names []string) []string {
	var list []string
	for _, n := range names {
		list = append(list, filepath.Join(in.name, n))
	}
	return list
}

// hashes are ours, computed in two ways, and how deep each tree is.
func hashes(t *testing.T, in folder, names []string) (list []string, depths []int) {
	t.Helper()
	root, err := os.OpenRoot(in.host)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	start := time.Now()
	var total int64
	sums := make(map[[32]byte]bool)
	for _, n := range names {
		sum, size, err := nar.Sum(root.FS(), n)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		total += size
		sums[sum] = true
		list = append(list, storepath.EncodeBase32(sum[:]))
	}
	took := time.Since(start)
	nodes := 0
	for i, n := range names {
		archive := dump(t, in.host, n)
		if sum := sha256.Sum256(archive); storepath.EncodeBase32(sum[:]) != list[i] {
			t.Errorf("%s: Sum and Dump differ", n)
		}
		entries, err := nar.List(bytes.NewReader(archive))
		if err != nil {
			t.Errorf("%s: what was written is not read: %v", n, err)
		}
		nodes += len(entries)
		depth := 0
		for _, e := range entries {
			depth = max(depth, len(strings.Split(e.Path, "/")))
		}
		depths = append(depths, depth)
	}
	t.Logf("%d trees, %d of them different, with %d nodes and %d bytes as nars; we hash them in %v", len(names), len(sums), nodes, total, took.Round(time.Millisecond))
	if len(sums) < len(names)*3/4 {
		t.Error("the trees are too much alike to prove anything")
	}
	return list, depths
}

func base32Lines(out []byte) []string {
	var list []string
	for line := range strings.Lines(string(out)) {
		list = append(list, strings.TrimSpace(line))
	}
	return list
}

func compare(t *testing.T, program string, names, ours, theirs []string) {
	t.Helper()
	if len(ours) != len(theirs) {
		t.Fatalf("%s gave %d hashes for %d trees", program, len(theirs), len(ours))
	}
	equal := 0
	for i, n := range names {
		if ours[i] == theirs[i] {
			equal++
		} else {
			t.Errorf("%s (seed %d): ours is %s, %s says %s", n, *seed, ours[i], program, theirs[i])
		}
	}
	t.Logf("%s: %d of %d hashes equal", program, equal, len(names))
}
