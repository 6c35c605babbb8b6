package e2e_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// Set for the whole run by TestMain, and never changed again.
var (
	binDir   string // the programs, and the builder of derivations
	shareDir string // templates of worlds
	seed     uint64 // of all random moments
)

// Names in the environment. The last three are for a run of the tests by the tests, in namespaces of its own.
const (
	envSeed  = "SALLYPORT_E2E_SEED"
	envBin   = "SALLYPORT_E2E_BIN"
	envShare = "SALLYPORT_E2E_SHARE"
	envTmpfs = "SALLYPORT_E2E_TMPFS"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	seed = uint64(time.Now().UnixNano())
	if s := os.Getenv(envSeed); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", envSeed, err)
			return 2
		}
		seed = n
	}
	if binDir, shareDir = os.Getenv(envBin), os.Getenv(envShare); binDir != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sallyport-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer removeAll(dir)
	// Builds run as another user, who must be able to reach their inputs.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binDir, shareDir = filepath.Join(dir, "bin"), filepath.Join(dir, "share")
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// build makes the programs, static, as they are shipped.
func build() error {
	for _, d := range []string{binDir, shareDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"-o", binDir + "/", "../cmd/sallyport", "../cmd/sallyport-station", "../cmd/sallyport-reader", "../cmd/sallyport-verify"},
		{"-ldflags=-s -w", "-o", filepath.Join(binDir, "deeds"), "../vectors/builds/builder/main.go"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-trimpath"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	return nil
}

// removeAll removes a tree whose directories may be read-only, as those of store items are.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
	os.RemoveAll(dir)
}

// dice returns the random numbers of one test, and has a failing test print how to get them again.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("again: %s=%d go test -run '^%s$' ./e2e", envSeed, seed, t.Name())
		}
	})
	var n uint64
	for _, c := range t.Name() {
		n = n*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(seed, n))
}
