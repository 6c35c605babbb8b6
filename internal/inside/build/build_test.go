package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
)

// A bench is a store with the vectors' builder in it.
type bench struct {
	*store
	builder storepath.Path
}

func newBench(t testing.TB) *bench {
	s := newStore(t)
	return &bench{s, vectorBuilder(t, s)}
}

// job is that of a derivation whose builder does the deeds. change, if any, may change the derivation before its paths are computed.
func (b *bench) make(t testing.TB, name string, change func(*derivation.Derivation), deeds ...string) Job {
	t.Helper()
	d := &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out"}},
		Sources: []string{b.builder.String()},
		System:  hostSystem(),
		Builder: b.builder.String() + "/bin/builder",
		Args:    deeds,
	}
	if change != nil {
		change(d)
	}
	if err := derivation.NewHasher(nil).Fill(name, d); err != nil {
		t.Fatal(err)
	}
	p, err := d.Path(name)
	if err != nil {
		t.Fatal(err)
	}
	return b.job(t, p, d)
}

func (b *bench) build(t testing.TB, name string, deeds ...string) (*Result, string, error) {
	t.Helper()
	return run(t, b.make(t, name, nil, deeds...))
}

const emptyOutput = "write $out 644"

// TestNetwork has listeners on the host, which a process of the host reaches and a builder does not.
func TestNetwork(t *testing.T) {
	b := newBench(t)
	var targets []string
	listen := func(network, address string) {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Logf("no listener on %s %s: %v", network, address, err)
			return
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "reached")
				c.Close()
			}
		}()
		targets = append(targets, "dial "+network+" "+l.Addr().String())
	}
	listen("tcp", "127.0.0.1:0")
	listen("tcp", "[::1]:0")
	listen("unix", "@sallyport-build-test-"+strconv.Itoa(os.Getpid()))
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && ip.IP.To4() != nil {
				listen("tcp", net.JoinHostPort(ip.IP.String(), "0"))
				break
			}
		}
	}
	if len(targets) < 2 {
		t.Fatal("no listeners to try")
	}

	control, err := exec.Command(b.path(b.builder)+"/bin/builder", targets...).CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(control), `: yes: "reached"`); n != len(targets) {
		t.Fatalf("on the host, %d of %d listeners were reached:\n%s", n, len(targets), control)
	}
	fixed := func(d *derivation.Derivation) {
		d.Outputs[0].HashAlgo, d.Outputs[0].Hash = "sha256", fmt.Sprintf("%x", sha256Of(nil))
	}
	for name, change := range map[string]func(*derivation.Derivation){"usual": nil, "fixed": fixed} {
		t.Run(name, func(t *testing.T) {
			_, log, err := run(t, b.make(t, "network", change, append(slices.Clone(targets), emptyOutput)...))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(log, ": no: "); n != len(targets) || strings.Contains(log, "reached") {
				t.Errorf("in the sandbox:\n%s", log)
			}
		})
	}
}

// TestDenied asks for more than a builder gets.
func TestDenied(t *testing.T) {
	b := newBench(t)
	answers := []struct{ deed, answer string }{
		{"try unshare-user", "operation not permitted"},
		{"try unshare-mount", "operation not permitted"},
		{"try clone3", "function not implemented"},
		{"try setns", "operation not permitted"},
		{"try mount", "operation not permitted"},
		{"try umount", "operation not permitted"},
		{"try keyctl", "function not implemented"},
		{"try bpf", "operation not permitted"},
		{"try perf", "operation not permitted"},
		{"try userfaultfd", "operation not permitted"},
		{"try io_uring", "operation not permitted"},
		{"try kexec", "operation not permitted"},
		{"try syslog", "operation not permitted"},
		{"try chroot", "operation not permitted"},
		{"try mknod", "operation not permitted"},
		{"try setuid", "*"},
		{"try core", "<nil>, limit 1 1"},
		{"try kill-supervisor", "no such process"},
		{"try ptrace", "traced"}, // allowed on purpose
		{"family 1", "yes"},
		{"family 2", "yes"},
		{"family 10", "yes"},
		{"family 40", "address family not supported by protocol"}, // vsock
		{"family 38", "address family not supported by protocol"}, // alg
	}
	var deeds []string
	want := ""
	for _, a := range answers {
		deeds = append(deeds, a.deed)
		if a.answer == "*" { // differs with the mode: permission, or no such id in the namespace
			a.answer = map[bool]string{true: "operation not permitted", false: "invalid argument"}[os.Geteuid() == 0]
		}
		want += a.deed + ": " + a.answer + "\n"
	}
	_, log, err := b.build(t, "denied", append(deeds, emptyOutput)...)
	if err != nil {
		t.Fatal(err)
	}
	if log != want {
		t.Errorf("answers:\n%s\nwant:\n%s", log, want)
	}

	job := b.make(t, "allowed", nil, "try unshare-user", "try mount", "try keyctl", emptyOutput)
	job.UserNamespaces = true
	_, log, err = run(t, job)
	if err != nil {
		t.Fatal(err)
	}
	// A process of several threads may not unshare its user namespace: this is the kernel's answer, not the filter's.
	if want := "try unshare-user: invalid argument\ntry mount: operation not permitted\ntry keyctl: function not implemented\n"; log != want {
		t.Errorf("with user namespaces:\n%s\nwant:\n%s", log, want)
	}
}

// TestIdentity looks at what the kernel says of the builder's process.
func TestIdentity(t *testing.T) {
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE) // as under nohup: a builder must not inherit it
	defer signal.Reset(syscall.SIGHUP, syscall.SIGPIPE)
	b := newBench(t)
	_, log, err := b.build(t, "identity", "descriptors", "dump /proc/self/status", "print", "dump /proc/self/personality", "dump /proc/self/oom_score_adj",
		"dump /proc/sys/kernel/hostname", "dump /proc/sys/kernel/domainname", "dump /proc/self/stat", "dump /proc/self/cmdline", "print", "dump /proc/self/limits", "dump /proc/self/mountinfo", emptyOutput)
	if err != nil {
		t.Fatal(err)
	}
	status, rest, _ := strings.Cut(log, "\n\n")
	for _, want := range []string{
		"Umask:\t0022", "Pid:\t1", "PPid:\t0", "TracerPid:\t0", "NSsid:\t1",
		"Uid:\t30001\t30001\t30001\t30001", "Gid:\t30000\t30000\t30000\t30000", "Groups:\t30000 ",
		"SigIgn:\t0000000000000000", "SigBlk:\t0000000000000000",
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
		"NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains("\n"+status+"\n", "\n"+want+"\n") {
			t.Errorf("no line %q in\n%s", want, status)
		}
	}
	if want := "0 /dev/null\n1 pipe\n2 pipe\nName:"; !strings.HasPrefix(status, want) {
		t.Errorf("descriptors:\n%s", status[:min(len(status), 200)])
	}
	// A program of several threads may read this while its first one sleeps.
	if want := "00040000\n1000\nlocalhost\n(none)\n1 (builder) R 0 1 1 0 -1 "; !strings.HasPrefix(strings.Replace(rest, ") S ", ") R ", 1), want) {
		t.Errorf("the kernel says\n%s", rest)
	}
	if !strings.Contains(rest, "\nbuilder\x00descriptors\x00dump") {
		t.Errorf("argv is not the expected one in %q", rest)
	}
	mounts := make(map[string]string)
	for _, line := range strings.Split(rest, "\n") {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		if _, err := strconv.Atoi(f[0]); err == nil && strings.HasPrefix(f[4], "/") {
			mounts[f[4]] = f[5]
		}
	}
	for point, want := range map[string]string{
		"/": "rw,nosuid,nodev", b.builder.String(): "ro,nosuid,nodev", "/tmp/guix-build-identity.drv-0": "rw,nosuid,nodev", "/proc": "rw,nosuid,nodev,noexec",
		"/dev/shm": "rw,nosuid,nodev", "/dev/null": "rw,nosuid,noexec",
	} {
		if !strings.HasPrefix(mounts[point]+",", want+",") {
			t.Errorf("the mount of %s is %q, want %s", point, mounts[point], want)
		}
	}
	for point := range mounts {
		if !slices.Contains([]string{"/", "/proc", b.builder.String(), "/tmp/guix-build-identity.drv-0"}, point) && !strings.HasPrefix(point, "/dev/") {
			t.Errorf("there is a mount on %s", point)
		}
	}
	if !strings.Contains(strings.Join(strings.Fields(rest), " "), "Max core file size 1 1 bytes") {
		t.Errorf("limits:\n%s", rest)
	}
}

// TestBuilderPath has builders that are links, scripts of nobody, or not there.
func TestBuilderPath(t *testing.T) {
	b := newBench(t)
	item := b.addSource(t, "links", func(w *nar.Writer) error {
		for _, h := range []*nar.Header{
			{Type: nar.Directory},
			{Path: "escape", Type: nar.Symlink, Target: "/proc/self/exe"},
			{Path: "other", Type: nar.Symlink, Target: b.builder.String() + "/bin/builder"},
			{Path: "text", Type: nar.Regular},
		} {
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return nil
	})
	builder := func(path string) func(*derivation.Derivation) {
		return func(d *derivation.Derivation) {
			d.Sources = append(d.Sources, item.String())
			d.Builder = path
		}
	}
	_, log, err := run(t, b.make(t, "other", builder(item.String()+"/other"), "dump /proc/self/cmdline", emptyOutput))
	if err != nil || !strings.HasPrefix(log, "other\x00") {
		t.Errorf("by a link: argv %q, %v", log, err)
	}
	for _, path := range []string{item.String() + "/escape", "/proc/self/exe", item.String() + "/text", item.String() + "/none", "builder", "/bin/sh"} {
		_, _, err := run(t, b.make(t, "escape", builder(path), emptyOutput))
		var f *Failure
		if !errors.As(err, &f) || f.Code != CodeNotExecuted {
			t.Errorf("builder %s: %v, want code %s", path, err, CodeNotExecuted)
		}
	}
	_, _, err = run(t, b.make(t, "builtin", builder("builtin:download"), emptyOutput))
	var f *Failure
	if !errors.As(err, &f) || f.Code != CodeBuiltin {
		t.Errorf("builtin: %v", err)
	}
}

func TestSystem(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: the personalities expected here are those of x86-64")
	}
	b := newBench(t)
	_, log, err := run(t, b.make(t, "i686", func(d *derivation.Derivation) { d.System = "i686-linux" }, "dump /proc/self/personality", emptyOutput))
	if err != nil || log != "00040008\n" {
		t.Errorf("i686-linux: personality %q, %v", log, err)
	}
	for _, system := range []string{"aarch64-linux", "i586-gnu", ""} {
		_, _, err = run(t, b.make(t, "foreign", func(d *derivation.Derivation) { d.System = system }, emptyOutput))
		var f *Failure
		if !errors.As(err, &f) || f.Code != CodeSystem {
			t.Errorf("%q: %v", system, err)
		}
	}
}

// TestEnd has builders that do not end well.
func TestEnd(t *testing.T) {
	b := newBench(t)
	for _, c := range []struct {
		name  string
		limit func(*Job)
		deeds []string
		code  string
		log   int64
	}{
		{"timeout", func(j *Job) { j.Timeout = 300 * time.Millisecond }, []string{"chatter 72000 50"}, CodeTimeout, -1},
		{"silent", func(j *Job) { j.MaxSilent = 400 * time.Millisecond }, []string{"chatter 8 100", "sleep 3600000"}, CodeSilent, 8 * int64(len("still here\n"))},
		{"log", func(j *Job) { j.MaxLog = 1000 }, []string{"flood 100000", "sleep 3600000"}, CodeLog, 1000},
		{"log-at-the-end", func(j *Job) { j.MaxLog = 1000 }, []string{emptyOutput, "flood 1001"}, CodeLog, 1000},
		{"log-full", func(j *Job) { j.MaxLog = 1000 }, []string{emptyOutput, "flood 1000"}, "", 1000},
		{"signal", nil, []string{"fault"}, CodeSignal, -1},
		{"exit", nil, []string{"exit 255"}, CodeExit, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := fmt.Sprintf("/tmp/token-%s-%d", c.name, rand.Int64())
			// A builder that is not ended sleeps for an hour: what takes longer than half of one has waited for it.
			job := b.make(t, c.name, nil, append([]string{"orphan", "detach 3600000 " + token}, c.deeds...)...)
			if c.limit != nil {
				c.limit(&job)
			}
			begin := time.Now()
			r, log, err := run(t, job)
			var f *Failure
			// A machine that stands still for longer than the builder may be silent makes it silent too early.
			for c.code == CodeSilent && errors.As(err, &f) && f.Code == CodeSilent && r.LogBytes < c.log && job.MaxSilent < 5*time.Minute {
				job.MaxSilent *= 4
				r, log, err = run(t, job)
			}
			if took := time.Since(begin); took > 30*time.Minute {
				t.Errorf("took %v", took)
			}
			f = nil
			if c.code == "" {
				if err != nil {
					t.Error(err)
				}
			} else if !errors.As(err, &f) || f.Code != c.code {
				t.Errorf("%v, want code %s", err, c.code)
			}
			if c.log >= 0 && (r.LogBytes != c.log || int64(len(log)) != c.log) {
				t.Errorf("log of %d bytes, said to be %d; want %d", len(log), r.LogBytes, c.log)
			}
			if c.code == CodeSignal && f != nil && f.Signal != syscall.SIGSEGV {
				t.Errorf("signal %v", f.Signal)
			}
			assertNotRunning(t, token)
		})
	}
}

// running returns the processes whose command line holds token.
func running(t testing.TB, token string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(files) == 0 {
		t.Fatalf("no processes in /proc: %v", err)
	}
	var found []string
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte(token)) {
			found = append(found, f)
		}
	}
	return found
}

func assertNotRunning(t testing.TB, token string) {
	t.Helper()
	if found := running(t, token); len(found) > 0 {
		t.Errorf("still running: %q", found)
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t)
	token := fmt.Sprintf("/tmp/token-%d", rand.Int64())
	job := b.make(t, "cancel", nil, "orphan", "detach 3600000 "+token, "print ready", "sleep 3600000")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	job.Log = writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	_, err := Run(ctx, job)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	assertNotRunning(t, token)
	assertNothingLeft(t, job.WorkDir)

	full := errors.New("disk full")
	job.Log = writerFunc(func(p []byte) (int, error) { return 0, full })
	if _, err := Run(t.Context(), job); !errors.Is(err, full) {
		t.Errorf("with a log that fails: %v", err)
	}
	assertNotRunning(t, token)
	assertNothingLeft(t, job.WorkDir)
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestKilled kills a process that builds at many moments. Nothing of the build may run on, and the next build in the same place
// finds it clean.
func TestKilled(t *testing.T) {
	b := newBench(t)
	// The slot's path is in no command line; the deeds' token is.
	token := fmt.Sprintf("/tmp/token-%d", rand.Int64())
	deeds := []string{"orphan", "detach 3600000 " + token, "write /tmp/stray 644 x", "deep /tmp/deep 50", "print ready " + token, "sleep 3600000"}
	kills := []time.Duration{-1, -1, 0}
	for range 12 {
		kills = append(kills, time.Duration(rand.IntN(80))*time.Millisecond)
	}
	for _, after := range kills {
		cmd := exec.Command(os.Args[0], deeds...)
		cmd.Env = append(os.Environ(), helperVariable+"=1", "HELPER_STORE="+b.dir, "HELPER_WORK="+b.work, "HELPER_BUILDER="+b.builder.String())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if after < 0 { // when the builder is at work
			buf := make([]byte, 100)
			if n, err := out.Read(buf); err != nil || !bytes.HasPrefix(buf[:n], []byte("ready")) {
				rest, _ := io.ReadAll(out)
				t.Fatalf("the helper said %q %v %q", buf[:n], err, rest)
			}
			if len(running(t, token)) == 0 {
				t.Error("the builder is not found among the processes; this test would see nothing")
			}
		} else {
			time.Sleep(after)
		}
		cmd.Process.Kill()
		cmd.Wait()
		deadline := time.Now().Add(5 * time.Minute) // what is not killed with its parent sleeps for an hour
		for len(running(t, token)) > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		assertNotRunning(t, token)
	}
	if left, _ := filepath.Glob(b.work + "/[0-9]"); len(left) == 0 {
		t.Error("the killed build left nothing; this test shows nothing")
	}
	r, _, err := b.build(t, "after", emptyOutput)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	assertNothingLeft(t, b.work)
}

// helperVariable makes this test's program a process that builds what its arguments say, to be killed.
const helperVariable = "SALLYPORT_BUILD_TEST_HELPER"

func helper() {
	builder, err := storepath.Parse(os.Getenv("HELPER_BUILDER"))
	if err != nil {
		panic(err)
	}
	d := &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out"}}, Sources: []string{builder.String()}, System: hostSystem(),
		Builder: builder.String() + "/bin/builder", Args: os.Args[1:],
	}
	if err := derivation.NewHasher(nil).Fill("killed", d); err != nil {
		panic(err)
	}
	p, err := d.Path("killed")
	if err != nil {
		panic(err)
	}
	_, err = Run(context.Background(), Job{
		Derivation: d, Path: p, StoreDir: os.Getenv("HELPER_STORE"), WorkDir: os.Getenv("HELPER_WORK"), Inputs: []storepath.Path{builder}, Log: os.Stdout,
	})
	fmt.Println(err)
}

// TestStrays fills the sandbox with what cannot be deleted by a simple walk.
func TestStrays(t *testing.T) {
	b := newBench(t)
	r, log, err := b.build(t, "strays", "deep /tmp/deep 3000", "deep nested 3000", "fill /dev/shm 1500", "mkdir /tmp/.gone-0", "write /tmp/.gone-0/.gone-1 0 x",
		"mkdir /gnu/store/closed", "write /gnu/store/closed/x 0 x", "chmod 0 /gnu/store/closed", emptyOutput)
	if err != nil {
		t.Fatal(err, log)
	}
	if r.StrayCount != 1503 || len(r.Strays) != MaxStrays {
		t.Errorf("%d strays, %d listed", r.StrayCount, len(r.Strays))
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	assertNothingLeft(t, b.work)

	_, _, err = b.build(t, "too-deep", "mkdir $out", "deep $out/d 1100")
	assertCode(t, err, CodeUnarchivable)
}

// TestOwnRoot has a builder that rearranges the sandbox, which as an ordinary user it owns: what the judge looks at must not be led astray.
func TestOwnRoot(t *testing.T) {
	b := newBench(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.Mkdir(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	r, log, err := b.build(t, "own-root", "-chmod 755 /", "-chmod 755 /gnu", "-rename /gnu/store /gnu/away", "-symlink "+secret+" /gnu/store", "-write /new 644 x",
		"-write /gnu/away/own 644 x", "-write $out 644 x", "-chmod 0 /gnu/away", "-chmod 0 /tmp", "-chmod 0 /gnu", "-chmod 0 /")
	t.Logf("log:\n%s", log)
	if err != nil {
		t.Logf("refused: %v", err)
	}
	if entries, _ := os.ReadDir(secret); len(entries) > 0 {
		t.Errorf("written to the host: %v", entries)
	}
	if os.Geteuid() == 0 {
		if err != nil || r.StrayCount != 0 {
			t.Errorf("root's builder rearranged the root: %v, strays %q", err, r.Strays)
		}
	} else if want := []string{"/gnu/away", "/gnu/store", "/new"}; !slices.Equal(r.Strays, want) {
		t.Errorf("strays %q, want %q", r.Strays, want)
	} else {
		assertCode(t, err, CodeMissing)
	}
}

func TestAttributesRemoved(t *testing.T) {
	b := newBench(t)
	r, log, err := b.build(t, "xattr", "mkdir $out", "xattr $out user.a b", "write $out/x 644 x", "xattr $out/x user.hidden content")
	if strings.Contains(log, "xattr: operation not supported") {
		t.Skipf("SKIPPED: no extended attributes in %s; set TMPDIR to a file system that has them", b.work)
	}
	if err != nil {
		t.Fatal(err, log)
	}
	for _, name := range []string{"", "/x"} {
		if n, err := unix.Llistxattr(r.Outputs[0].HostPath+name, nil); n != 0 || err != nil {
			t.Errorf("out%s has attributes: %d bytes, %v", name, n, err)
		}
	}
}

// TestTogether runs builds at once in one work directory.
func TestTogether(t *testing.T) {
	b := newBench(t)
	var jobs []Job
	for i := range 6 {
		jobs = append(jobs, b.make(t, "together-"+strconv.Itoa(i), nil, "sleep 100", "write $out 644 "+strconv.Itoa(i)))
	}
	var wg sync.WaitGroup
	for i, job := range jobs {
		wg.Go(func() {
			r, err := Run(t.Context(), job)
			if err != nil {
				t.Error(err)
				return
			}
			got, err := os.ReadFile(r.Outputs[0].HostPath)
			if err != nil || string(got) != strconv.Itoa(i) {
				t.Errorf("%d: %q, %v", i, got, err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	assertNothingLeft(t, b.work)
}

// TestSweep has leftovers of dead builds, and one of a living one.
func TestSweep(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"3", "5", "7", "mine"} {
		if err := os.MkdirAll(filepath.Join(b.work, name, "root/x"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(b.work, name, "root"), 0o500); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := tryLock(filepath.Join(b.work, "5"+lockSuffix))
	if err != nil || lock == nil {
		t.Fatal(lock, err)
	}
	r, _, err := b.build(t, "sweep", emptyOutput)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{"3": false, "5": true, "7": false, "mine": true} {
		if _, err := os.Stat(filepath.Join(b.work, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	lock.Close()
	for _, name := range []string{"5", "mine"} {
		if err := removeTree(filepath.Join(b.work, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestJob gives jobs that cannot be run.
func TestJob(t *testing.T) {
	b := newBench(t)
	good := b.make(t, "job", nil, emptyOutput)
	missing := mustPath(t, "/gnu/store/00000000000000000000000000000000-missing")
	for name, change := range map[string]func(*Job){
		"no derivation":       func(j *Job) { j.Derivation = nil },
		"no work directory":   func(j *Job) { j.WorkDir = "" },
		"work not there":      func(j *Job) { j.WorkDir += "/none" },
		"not a .drv":          func(j *Job) { j.Path = b.builder },
		"source not an input": func(j *Job) { j.Inputs = nil },
		"input not there":     func(j *Job) { j.Inputs = append(slices.Clone(j.Inputs), missing) },
		"output an input":     func(j *Job) { j.Inputs = append(slices.Clone(j.Inputs), mustPath(t, j.Derivation.Outputs[0].Path)) },
		"no such executable":  func(j *Job) { j.Executable = "/nonexistent" },
		"cores":               func(j *Job) { j.Cores = -1 },
	} {
		job := good
		change(&job)
		r, err := Run(t.Context(), job)
		var f *Failure
		if err == nil || errors.As(err, &f) {
			t.Errorf("%s: %v", name, err)
		}
		if r != nil {
			t.Errorf("%s: there is a result", name)
		}
		assertNothingLeft(t, good.WorkDir)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("when cancelled before: %v", err)
	}

	for name, value := range map[string]string{
		"odd":          "graph",
		"name":         "a/b " + b.builder.String(),
		"no path":      "graph /etc",
		"not an input": "graph " + missing.String(),
	} {
		_, _, err := run(t, b.make(t, "graph", func(d *derivation.Derivation) {
			d.Env = append(d.Env, derivation.Variable{Name: "exportReferencesGraph", Value: value})
		}, emptyOutput))
		var f *Failure
		if !errors.As(err, &f) || f.Code != CodeAttribute {
			t.Errorf("exportReferencesGraph %s: %v", name, err)
		}
	}
}

func TestCores(t *testing.T) {
	b := newBench(t)
	job := b.make(t, "cores", nil, "print $NIX_BUILD_CORES", emptyOutput)
	job.Cores = 3
	if _, log, err := run(t, job); err != nil || log != "3\n" {
		t.Errorf("%q, %v", log, err)
	}
}

func TestMaybeChildReturns(t *testing.T) {
	// In a process started otherwise, the hidden arguments do nothing.
	for _, arg := range []string{"--sandbox-supervisor", "--sandbox-builder"} {
		out, err := exec.Command(os.Args[0], arg).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() == 0 || !strings.Contains(string(out), "not by hand") {
			t.Errorf("%s: %v: %s", arg, err, out)
		}
	}
}

// BenchmarkRun is what a build costs beside its builder.
func BenchmarkRun(b *testing.B) {
	bench := newBench(b)
	job := bench.make(b, "bench", nil, emptyOutput)
	for b.Loop() {
		r, err := Run(b.Context(), job)
		if err != nil {
			b.Fatal(err)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
