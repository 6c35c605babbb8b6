// Command bench measures Sallyport's formats beside their peers, in one run: the real Guix and Nix (contrib/peer), and go-nix. It is a module of its own, so that no peer is ever a
// dependency of the product.
//
//	make bench                   all rows
//	go run . -runs 7             more runs of each; what is printed are medians
//
// Each row is measured in turn with its peer, A B A B ..., and the ratio is the median of the ratios pair by pair: a machine whose speed drifts does not
// decide. A row whose peer is not there says so loudly, and has no ratio.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	peernar "github.com/nix-community/go-nix/pkg/nar"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
)

func main() {
	runs := flag.Int("runs", 5, "runs of each")
	flag.Parse()
	if err := run(*runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is one measurement: ours, the peer's, and what we reach for.
type row struct {
	what  string
	peer  string
	reach float64 // how many times faster; 0: an absolute bound stands in note
	note  string
	ours  func() error
	their func() error // nil: the peer is not there
	why   string       // it is not there
}

func run(runs int) error {
	top, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return err
	}
	tree := strings.TrimSpace(string(out))
	temp, err := os.MkdirTemp("", "sallyport-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	bin := filepath.Join(temp, "sallyport")
	build := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/sallyport")
	build.Dir, build.Stderr = top, os.Stderr
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := build.Run(); err != nil {
		return err
	}
	archive, entries, err := dump(tree, filepath.Join(temp, "tree.nar"))
	if err != nil {
		return err
	}
	fmt.Printf("%s/%s, %d processors; tree: %s, %d entries, nar of %.0f MB; medians of %d runs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), "GOROOT", entries, float64(len(archive))/1e6, runs)

	p := findPeer(top)
	rows := []row{
		{what: "nar hash of the tree (whole process)", peer: "guix hash -S nar", reach: 6, ours: process(bin, "nar", "hash", tree), their: p.in(tree, "guix", "hash", "-S", "nar", "/mnt"), why: p.why},
		{what: "nar hash of the tree (whole process)", peer: "nix-hash", reach: 1.7, ours: process(bin, "nar", "hash", tree), their: p.in(tree, "nix-hash", "--type", "sha256", "--base32", "/mnt"), why: p.why},
		{what: "nar hash of the tree (in process)", peer: "go-nix DumpPath", reach: 2.5, ours: func() error { return ourHash(tree) }, their: func() error { return theirHash(tree) }},
		{what: "parse and check the nar (in memory)", peer: "go-nix reader, unchecked", reach: 3, ours: func() error { return ourParse(archive) }, their: func() error { return theirParse(archive) }},
	}
	fmt.Printf("%-42s %12s   %-26s %12s %8s %8s\n", "work", "ours", "peer", "peer's", "ratio", "reach")
	for _, r := range rows {
		if r.their == nil {
			fmt.Printf("%-42s %12s   %-26s NOT MEASURED: %s\n", r.what, median(repeat(r.ours, runs)), r.peer, r.why)
			continue
		}
		var a, b []time.Duration
		var ratios []float64
		for i := range runs + 1 {
			x, err := timed(r.ours)
			if err != nil {
				return fmt.Errorf("%s: %w", r.what, err)
			}
			y, err := timed(r.their)
			if err != nil {
				return fmt.Errorf("%s: %w", r.peer, err)
			}
			if i == 0 {
				continue // a warm-up of both
			}
			a, b, ratios = append(a, x), append(b, y), append(ratios, float64(y)/float64(x))
		}
		slices.Sort(ratios)
		fmt.Printf("%-42s %12s   %-26s %12s %7.1fx %7.1fx\n", r.what, median(a), r.peer, median(b), ratios[len(ratios)/2], r.reach)
	}
	return closure(p, top, runs)
}

// closure loads real derivations, if the peer has some, and recomputes every path.
func closure(p *peer, top string, runs int) error {
	dir, what := filepath.Join(p.root, "gnu", "store"), "a closure of %d real derivations: load, recompute, list sources"
	var roots []storepath.Path
	if p.root != "" {
		roots = p.closure()
	}
	if len(roots) == 0 {
		dir, what = filepath.Join(top, "vectors", "drv-hello", "drv"), "the closure of hello, %d derivations (NO PEER: emacs and others were not computed)"
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if sp, err := storepath.ParseBase(e.Name()); err == nil && strings.HasSuffix(e.Name(), "hello-2.12.2.drv") {
				roots = append(roots, sp)
			}
		}
	}
	var n int
	load := func() error {
		g, err := derivation.LoadClosure(os.DirFS(dir), roots...)
		if err != nil {
			return err
		}
		n = g.Len()
		_ = g.Sources()
		return nil
	}
	times := repeat(load, runs)
	fmt.Printf("\n%s: %s\n", fmt.Sprintf(what, n), median(times))
	return nil
}

func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}

func repeat(f func() error, runs int) []time.Duration {
	var ts []time.Duration
	for range runs {
		t, err := timed(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		ts = append(ts, t)
	}
	return ts
}

func median(ts []time.Duration) time.Duration {
	ts = slices.Sorted(slices.Values(ts))
	return ts[len(ts)/2].Round(time.Millisecond)
}

func process(args ...string) func() error {
	return func() error { return exec.Command(args[0], args[1:]...).Run() }
}

// peer is contrib/peer, if it is up.
type peer struct {
	tool, root, why string
}

func findPeer(top string) *peer {
	p := &peer{tool: filepath.Join(top, "contrib", "peer", "peer")}
	if out, err := exec.Command(p.tool, "up").CombinedOutput(); err != nil {
		p.why = "contrib/peer/peer up: " + lastLine(out)
		return p
	}
	out, err := exec.Command(p.tool, "root").Output()
	if err != nil {
		p.why = "contrib/peer/peer root: " + err.Error()
		return p
	}
	p.root = strings.TrimSpace(string(out))
	return p
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// in runs a command of the peer on a copy of the tree at /mnt in there.
func (p *peer) in(tree string, args ...string) func() error {
	if p.root == "" {
		return nil
	}
	inside := filepath.Join(p.root, "var", "tmp", "sallyport-bench-tree")
	if _, err := os.Stat(inside); errors.Is(err, fs.ErrNotExist) {
		if err := os.CopyFS(inside+".partial", os.DirFS(tree)); err == nil {
			err = os.Rename(inside+".partial", inside)
			if err != nil {
				p.why = err.Error()
			}
		}
	}
	for i := range args {
		if args[i] == "/mnt" {
			args[i] = "/var/tmp/sallyport-bench-tree"
		}
	}
	return process(append([]string{p.tool, "run"}, args...)...)
}

// packages whose derivations are the closure to be loaded.
var packages = []string{"emacs", "icecat", "gcc-toolchain", "libreoffice", "guix", "linux-libre"}

// closure has the peer compute derivations and returns them.
func (p *peer) closure() []storepath.Path {
	out, err := exec.Command(p.tool, append([]string{"run", "guix", "build", "-d", "--no-grafts"}, packages...)...).Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: the peer did not compute derivations:", err)
		return nil
	}
	var roots []storepath.Path
	for _, l := range strings.Fields(string(out)) {
		if sp, err := storepath.Parse(l); err == nil {
			roots = append(roots, sp)
		}
	}
	return roots
}

func dump(tree, file string) ([]byte, int, error) {
	root, err := os.OpenRoot(filepath.Dir(tree))
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	var b bytes.Buffer
	if err := nar.Dump(&b, root.FS(), filepath.Base(tree)); err != nil {
		return nil, 0, err
	}
	n := 0
	for _, err := range nar.Entries(bytes.NewReader(b.Bytes())) {
		if err != nil {
			return nil, 0, err
		}
		n++
	}
	return b.Bytes(), n, nil
}

func ourHash(tree string) error {
	root, err := os.OpenRoot(filepath.Dir(tree))
	if err != nil {
		return err
	}
	defer root.Close()
	_, _, err = nar.Sum(root.FS(), filepath.Base(tree))
	return err
}

func theirHash(tree string) error {
	h := sha256.New()
	return peernar.DumpPath(h, tree)
}

func ourParse(b []byte) error {
	r := nar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == nar.Regular {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
		}
	}
}

func theirParse(b []byte) error {
	r, err := peernar.NewReader(bytes.NewReader(b))
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Type == peernar.TypeRegular {
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
		}
	}
}
