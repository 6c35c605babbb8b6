// Command bench measures Sallyport's formats beside their peers, in one run: the real Guix and Nix (contrib/peer), and go-nix. It is a module of its own, so that no peer is ever a
// dependency of the product.
//
//	make bench                   all rows
//	go run . -runs 7             more runs of each; what is printed are medians
//	go run . -only channels      the rows of channels alone
//
// Real channels are measured where SALLYPORT_PEER_GUIX and SALLYPORT_PEER_NONGUIX name bare repositories of them.
//
// Each row is measured in turn with its peer, A B A B ..., and the ratio is the median of the ratios pair by pair: a machine whose speed drifts does not
// decide. A row whose peer is not there says so loudly, and has no ratio.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	runs := flag.Int("runs", 5, "runs of each")
	only := flag.String("only", "", "the rows of this alone: channels")
	flag.Parse()
	if err := run(*runs, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A measure does something and tells how long it took.
type measure func() (time.Duration, error)

// row is one measurement: ours, the peer's, and what we reach for.
type row struct {
	what  string
	each  int // of how many things the time is; 0 is one
	ours  measure
	peer  string
	their measure // nil: the peer is not there
	why   string  // it is not there
	reach float64 // how many times faster; 0: nothing is asked
}

// result is what a row came to.
type result struct {
	ours, theirs time.Duration
	ratio        float64
}

func run(runs int, only string) error {
	top, err := filepath.Abs("..")
	if err != nil {
		return err
	}
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
	p := findPeer(top)
	switch only {
	case "":
	case "channels":
		return channels(p, bin, temp, runs)
	default:
		return fmt.Errorf("there are no rows of %q", only)
	}
	tree, err := goroot()
	if err != nil {
		return err
	}
	archive, entries, err := dump(tree)
	if err != nil {
		return err
	}
	fmt.Printf("%s/%s, %d processors, %s; tree: GOROOT, %d entries, nar of %.0f MB; medians of %d runs\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), extensions(), entries,
		float64(len(archive))/1e6, runs)
	fmt.Printf("%-44s %12s   %-28s %12s %8s %8s\n", "work", "ours", "peer", "peer's", "ratio", "reach")
	var results []result
	for _, r := range append(narRows(p, bin, tree, archive), signatureRows(p)...) {
		got, err := r.measure(runs)
		if err != nil {
			return err
		}
		results = append(results, got)
	}
	if err := floor(tree, archive, runs, results[0].ours); err != nil {
		return err
	}
	if err := closures(p, top, runs); err != nil {
		return err
	}
	return channels(p, bin, temp, runs)
}

// measure measures and prints a row.
func (r row) measure(runs int) (result, error) {
	var a, b []time.Duration
	var ratios []float64
	for i := range runs + 1 {
		x, err := r.ours()
		if err != nil {
			return result{}, fmt.Errorf("%s: %w", r.what, err)
		}
		y := time.Duration(0)
		if r.their != nil {
			if y, err = r.their(); err != nil {
				return result{}, fmt.Errorf("%s: %w", r.peer, err)
			}
		}
		if i == 0 {
			continue // a warm-up of both
		}
		a, b, ratios = append(a, x), append(b, y), append(ratios, float64(y)/float64(x))
	}
	slices.Sort(ratios)
	got := result{median(a), median(b), ratios[len(ratios)/2]}
	reach := ""
	if r.reach != 0 {
		reach = fmt.Sprintf("%.1fx", r.reach)
	}
	if r.their == nil {
		fmt.Printf("%-44s %12s   %-28s NOT MEASURED: %s\n", r.what, per(got.ours, r.each), r.peer, r.why)
	} else {
		fmt.Printf("%-44s %12s   %-28s %12s %7.1fx %8s\n", r.what, per(got.ours, r.each), r.peer, per(got.theirs, r.each), got.ratio, reach)
	}
	return got, nil
}

// per prints a time, or how many a second.
func per(t time.Duration, each int) string {
	if each == 0 {
		return t.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%.0f/s", float64(each)/t.Seconds())
}

// timed measures what only does something.
func timed(f func() error) measure {
	return func() (time.Duration, error) {
		start := time.Now()
		err := f()
		return time.Since(start), err
	}
}

// repeat measures alone.
func repeat(m measure, runs int) (time.Duration, error) {
	var ts []time.Duration
	for range runs {
		t, err := m()
		if err != nil {
			return 0, err
		}
		ts = append(ts, t)
	}
	return median(ts), nil
}

func median(ts []time.Duration) time.Duration {
	ts = slices.Sorted(slices.Values(ts))
	return ts[len(ts)/2]
}

func process(args ...string) measure {
	return timed(func() error { return exec.Command(args[0], args[1:]...).Run() })
}

func goroot() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	return strings.TrimSpace(string(out)), err
}

// extensions tells whether the processor has instructions for SHA-256, which decides the rows that hash.
func extensions() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	switch {
	case err != nil:
		return "SHA extensions not known"
	case slices.ContainsFunc(strings.Fields(string(info)), func(s string) bool { return s == "sha_ni" || s == "sha2" }):
		return "with SHA extensions"
	}
	return "WITHOUT SHA extensions"
}
