package e2e_test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// onSmallDisk runs a test once more, in a process that may mount a file system of its own. what is what is not tested where there can be none.
func onSmallDisk(t *testing.T, test, what string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+test+"$", "-test.v")
	if testing.Short() {
		cmd.Args = append(cmd.Args, "-test.short")
	}
	cmd.Env = append(os.Environ(), envTmpfs+"="+t.TempDir(), envBin+"="+binDir, envShare+"="+shareDir, fmt.Sprintf("%s=%d", envSeed, seed))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("NOT TESTED: %s. It takes a user and a mount namespace, and this machine gives none: %v (remedy: sysctl user.max_user_namespaces above 0)", what, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if s := out.String(); strings.Contains(s, "--- SKIP") {
		t.Skipf("%s", s)
	} else if !strings.Contains(s, "--- PASS: "+test) {
		t.Fatalf("it did not run:\n%s", s)
	}
	t.Logf("%s", &out)
}

// A smallDisk is the file system of a test that onSmallDisk runs.
type smallDisk struct {
	t   *testing.T
	dir string
}

// newSmallDisk mounts it, with so many bytes. by is the test that runs this one.
func newSmallDisk(t *testing.T, by, what string, size int64) smallDisk {
	t.Helper()
	dir := os.Getenv(envTmpfs)
	if dir == "" {
		t.Skipf("it is run by %s, with a file system of its own", by)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0755", size)); err != nil {
		t.Skipf("NOT TESTED: %s. A tmpfs cannot be mounted in a user namespace here: %v", what, err)
	}
	return smallDisk{t, dir}
}

func (d smallDisk) path(name string) string { return filepath.Join(d.dir, name) }

func (d smallDisk) filler() string { return d.path("filler") }

// fill leaves so many bytes free, until it is emptied.
func (d smallDisk) fill(free int64) {
	d.t.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := io.CopyN(f, zeros{}, int64(st.Bavail)*st.Bsize-free); err != nil {
		d.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		d.t.Fatal(err)
	}
}

func (d smallDisk) empty() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
