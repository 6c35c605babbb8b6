// Command demo is the project's main job on real input: it carries sallyport-verify, the auditor's program, across a gap, as an enclave
// would do first of all, and then attacks the enclave.
//
// It runs the programs as a person would, prints each command, and fails if anything is not as it says. Nothing is simulated: the toolchain is the one that is
// installed here, the source is this tree, the depot is an HTTP server, the builds run in sandboxes without network.
//
//	go run ./demo [--zones DIR] [--keep-build]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	zones := flag.String("zones", "demo-zones", "directory for the zones; what an earlier demo left there is removed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	d := &demo{ctx: ctx, start: time.Now()}
	err := d.run(*zones)
	d.stopServers()
	if ctx.Err() != nil {
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		os.Exit(130)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
		os.Exit(1)
	}
}

// exit codes of the programs, as their manual has them.
const (
	done    = 0
	refused = 3
)

type demo struct {
	ctx     context.Context
	start   time.Time
	dir     string // of the zones, absolute
	bin     string // of the programs
	source  string // of the project
	paper   string // fingerprint of the enclave's root
	times   []timing
	servers []*exec.Cmd
}

type timing struct {
	what string
	took time.Duration
}

// markFile shows that a directory was made by a demo: only such a one is removed.
const markFile = "made-by-the-sallyport-demo"

// step runs one step and remembers how long it took.
func (d *demo) step(what string, fn func() error) error {
	fmt.Printf("\n\033[1m== %s\033[0m\n", what)
	start := time.Now()
	err := fn()
	d.times = append(d.times, timing{what, time.Since(start)})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return d.ctx.Err()
}

func (d *demo) say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// shown shortens a command line for people: paths below the zones, digests.
func (d *demo) shown(args []string) string {
	var b strings.Builder
	for _, a := range args {
		a = strings.ReplaceAll(a, d.dir+"/", "")
		a = strings.ReplaceAll(a, d.bin+"/", "")
		if strings.ContainsAny(a, " ") {
			a = "'" + a + "'"
		}
		b.WriteString(" " + a)
	}
	return strings.TrimSpace(b.String())
}

// result is what a program did.
type result struct {
	code   int
	stdout []byte
	stderr []byte
}

// exec runs a program in the directory of the zones and shows its command line.
func (d *demo) exec(args ...string) (*result, error) {
	fmt.Printf("   \033[36m$ %s\033[0m\n", d.shown(args))
	return d.silent(args...)
}

func (d *demo) silent(args ...string) (*result, error) {
	cmd := exec.CommandContext(d.ctx, args[0], args[1:]...)
	cmd.Dir = d.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout = &out
	cmd.Stderr = io.MultiWriter(&errs, progressLines{})
	err := cmd.Run()
	r := &result{stdout: out.Bytes(), stderr: errs.Bytes()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		return nil, err
	}
	return r, nil
}

// progressLines shows what the programs say on standard error, indented.
type progressLines struct{}

func (progressLines) Write(p []byte) (int, error) {
	for _, l := range strings.Split(strings.TrimSuffix(string(p), "\n"), "\n") {
		fmt.Printf("     \033[2m%s\033[0m\n", l)
	}
	return len(p), nil
}

// do runs a program that must succeed, shows its result, and returns it.
func (d *demo) do(args ...string) ([]byte, error) {
	r, err := d.exec(args...)
	if err != nil {
		return nil, err
	}
	for _, l := range strings.Split(strings.TrimSuffix(string(r.stdout), "\n"), "\n") {
		if l != "" {
			d.say("%s", l)
		}
	}
	if r.code != done {
		return nil, fmt.Errorf("%s: exit code %d", d.shown(args), r.code)
	}
	return r.stdout, nil
}

// get runs a program that must succeed, with --json, and decodes its one object without showing it.
func (d *demo) get(v any, args ...string) error {
	r, err := d.silent(append(args, "--json")...)
	if err != nil {
		return err
	}
	if r.code != done {
		return fmt.Errorf("%s: exit code %d: %s", d.shown(args), r.code, r.stderr)
	}
	return json.Unmarshal(r.stdout, v)
}

// refusedWith runs a program that must refuse with the code.
func (d *demo) refusedWith(code string, args ...string) error {
	r, err := d.exec(append(args, "--json")...)
	if err != nil {
		return err
	}
	if r.code != refused {
		return fmt.Errorf("%s: exit code %d, a refusal (3) was expected", d.shown(args), r.code)
	}
	var out struct {
		Reasons []struct{ Code, Subject, Detail string } // of sallyport
		Refused []struct{ Code, Subject, Detail string } // of sallyport-verify
	}
	if err := json.Unmarshal(lastLine(r.stdout), &out); err != nil {
		return fmt.Errorf("%s: %w in %q", d.shown(args), err, r.stdout)
	}
	for _, x := range append(out.Reasons, out.Refused...) {
		if x.Code == code {
			fmt.Printf("   \033[32mrefused, exit code 3: %s\033[0m\n", code)
			return nil
		}
	}
	return fmt.Errorf("%s: refused for %v %v, expected %s", d.shown(args), out.Reasons, out.Refused, code)
}

func lastLine(b []byte) []byte {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		return b[i+1:]
	}
	return b
}

func (d *demo) sallyport(args ...string) []string {
	return append([]string{filepath.Join(d.bin, "sallyport")}, args...)
}

func (d *demo) station(args ...string) []string {
	return append([]string{filepath.Join(d.bin, "sallyport-station")}, args...)
}

// path is a path below the zones.
func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// run is the whole of it.
func (d *demo) run(zones string) error {
	fmt.Println("\033[1mSallyport carries sallyport-verify, the auditor's program, across an air gap.\033[0m")
	if err := d.step("0. what is needed here", func() error { return d.prepare(zones) }); err != nil {
		return err
	}
	steps := []struct {
		what string
		fn   func() error
	}{
		{"1. outside: collect the toolchain, the source and the derivation", d.collect},
		{"2. inspect: what the confined reader saw", d.inspected},
		{"3. a signed, numbered volume; its slip; coreutils and minisign agree", d.ship},
		{"4. inside: import, quarantine, two reviewers", d.admit},
		{"5. the depot serves what the allowlist names", d.serve},
		{"6. two builders build it without network, and agree", d.build},
		{"7. the very binary that came out audits the enclave", d.audit},
		{"8. the attacks", d.attack},
	}
	for _, s := range steps {
		if err := d.step(s.what, s.fn); err != nil {
			return err
		}
	}
	return d.summary()
}

// prepare builds the programs and makes an empty directory for the zones.
func (d *demo) prepare(zones string) error {
	var err error
	if d.source, err = os.Getwd(); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(d.source, "cmd", "sallyport-verify")); err != nil {
		return errors.New("run it from the top of the project: make demo")
	}
	for _, p := range []string{"go", "git"} {
		if _, err := exec.LookPath(p); err != nil {
			return fmt.Errorf("the program %s is missing: install it", p)
		}
	}
	if d.dir, err = filepath.Abs(zones); err != nil {
		return err
	}
	if err := clear(d.dir); err != nil {
		return err
	}
	d.bin = d.path("bin")
	if err := os.MkdirAll(d.bin, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(d.path(markFile), nil, 0o644); err != nil {
		return err
	}
	// A module of its own: the trees below are no packages of this project.
	if err := os.WriteFile(d.path("go.mod"), []byte("module demo-zones\n"), 0o644); err != nil {
		return err
	}
	fmt.Printf("   \033[36m$ go build -trimpath -buildvcs=false -o bin/ ./cmd/...\033[0m\n")
	cmd := exec.CommandContext(d.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", d.bin+"/", "./cmd/sallyport", "./cmd/sallyport-station", "./cmd/sallyport-reader")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	if _, err := d.do(d.sallyport("doctor")...); err != nil {
		return err
	}
	return nil
}

// clear removes what an earlier demo left. Store items are read-only, so directories are opened first.
func clear(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Lstat(filepath.Join(dir, markFile)); err != nil {
		return fmt.Errorf("%s is there and was not made by a demo; name another with --zones", dir)
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// summary says what was carried, how long it took, and where to look.
func (d *demo) summary() error {
	r, err := d.silent(d.station("review", "list", "--zone", "inside", "--json")...)
	if err != nil {
		return err
	}
	fmt.Printf("\n\033[1m== done\033[0m\n")
	for dec := json.NewDecoder(bytes.NewReader(r.stdout)); ; {
		var x struct {
			Shipment, Items, Bytes int64
			State                  string
		}
		if err := dec.Decode(&x); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		fmt.Printf("   shipment %d: %d items, %d bytes, %s\n", x.Shipment, x.Items, x.Bytes, x.State)
	}
	for _, t := range d.times {
		fmt.Printf("   %7.1f s  %s\n", t.took.Seconds(), t.what)
	}
	fmt.Printf("   %7.1f s  in all\n\n", time.Since(d.start).Seconds())
	fmt.Printf("   To look around in: %s\n", d.dir)
	fmt.Printf("     outside/  inside/      the two zones; inside/public is what an auditor gets\n")
	fmt.Printf("     builder-1/ builder-2/  two builders\n")
	fmt.Printf("     volume-1/ slip-1.txt   what crossed, and by which other way\n")
	fmt.Printf("     %s ledger show --zone %s\n", filepath.Join(d.bin, "sallyport-station"), d.path("inside"))
	return nil
}

// in runs a program in a directory below the zones and returns what it printed.
func (d *demo) in(dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(d.ctx, args[0], args[1:]...)
	cmd.Dir = d.path(dir)
	return cmd.Output()
}
