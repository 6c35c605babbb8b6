package confine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/guix/derivation"
)

// The test binary is its own child: the first argument says as what.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "child-probe":
			probeChild(os.Args[2])
		case "child-fake":
			fakeChild(os.Args[2])
		case "child-parent":
			parentChild(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts the test binary; where this host cannot confine at all it skips, and says why.
func start(t *testing.T, o Options) *Child {
	t.Helper()
	o.Path = self(t)
	c, err := Start(t.Context(), o)
	var f *FeatureError
	if errors.As(err, &f) {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: %v", f)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Probes: each tries one thing a parser has no business with. They make raw calls, as an exploit would.

type probe struct {
	try func(arg string) error
	// How each layer alone, and all together, answers. "" in alone means that the layer does not hold this back.
	full     string // an errno, or "killed"
	seccomp  string
	landlock string // with namespaces and limits, as always
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags, 0o600)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func connect(family int, kind int, sa unix.Sockaddr) error {
	fd, err := unix.Socket(family, kind, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, sa)
}

func raw(trap uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, e := unix.Syscall6(trap, a[0], a[1], a[2], a[3], a[4], a[5])
	if e != 0 {
		return e
	}
	return nil
}

func loopback(port string) *unix.SockaddrInet4 {
	n, _ := strconv.Atoi(port)
	return &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}
}

var probes = map[string]probe{
	"open-file":   {func(arg string) error { return open(arg, unix.O_RDONLY) }, "EPERM", "EPERM", "EACCES"},
	"open-dir":    {func(string) error { return open("/", unix.O_RDONLY|unix.O_DIRECTORY) }, "EPERM", "EPERM", "EACCES"},
	"open-proc":   {func(string) error { return open("/proc/self/mem", unix.O_RDWR) }, "EPERM", "EPERM", "EACCES"},
	"write-file":  {func(arg string) error { return open(arg, unix.O_WRONLY|unix.O_APPEND) }, "EPERM", "EPERM", "EACCES"},
	"create-file": {func(arg string) error { return open(arg+".new", unix.O_CREAT|unix.O_WRONLY) }, "EPERM", "EPERM", "EACCES"},
	"memfd":       {func(string) error { _, err := unix.MemfdCreate("x", 0); return err }, "killed", "killed", ""},
	"mkdir":       {func(arg string) error { return unix.Mkdir(arg+".dir", 0o700) }, "killed", "killed", "EACCES"},
	"unlink":      {func(arg string) error { return unix.Unlink(arg) }, "killed", "killed", "EACCES"},
	"exec":        {func(arg string) error { return unix.Exec(arg, []string{"x"}, nil) }, "killed", "killed", "EACCES"},
	"fork":        {func(string) error { return raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) }, "killed", "killed", "-"},
	"tcp":         {func(arg string) error { return connect(unix.AF_INET, unix.SOCK_STREAM, loopback(arg)) }, "killed", "killed", "EACCES"},
	"udp":         {func(arg string) error { return connect(unix.AF_INET, unix.SOCK_DGRAM, loopback(arg)) }, "killed", "killed", "ENETUNREACH"},
	"abstract": {func(arg string) error {
		return connect(unix.AF_UNIX, unix.SOCK_STREAM, &unix.SockaddrUnix{Name: "@" + arg})
	}, "killed", "killed", "EPERM|ECONNREFUSED"},
	"socketpair": {func(string) error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }, "killed", "killed", ""},
	"unshare":    {func(string) error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNET) }, "killed", "killed", "EPERM"},
	"mount":      {func(string) error { return unix.Mount("none", "/", "tmpfs", 0, "") }, "killed", "killed", "EPERM"},
	"ptrace":     {func(string) error { return raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 2) }, "killed", "killed", "EPERM|ESRCH"},
	"io-uring":   {func(string) error { return raw(unix.SYS_IO_URING_SETUP, 1, 0) }, "killed", "killed", "-"},
	"bpf":        {func(string) error { return raw(unix.SYS_BPF, 0, 0, 0) }, "killed", "killed", "-"},
	"code": {func(string) error {
		_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
		return err
	}, "killed", "killed", ""},
	"raise-limit": {func(string) error {
		return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100})
	}, "EPERM", "EPERM", "EPERM"},
	"setuid": {func(string) error { return raw(unix.SYS_SETUID, 0) }, "killed", "killed", "EPERM"},
}

// probeChild enters with the given layers and runs the probe a request names, on the thread it names:
// "existing" was locked before Enter, "new" starts afterwards.
func probeChild(which string) {
	n, _ := strconv.Atoi(which)
	type job struct {
		probe, arg string
		answer     chan error
	}
	existing := make(chan job)
	for range 3 {
		locked := make(chan bool)
		go func() {
			runtime.LockOSThread()
			close(locked)
			for j := range existing {
				j.answer <- probes[j.probe].try(j.arg)
			}
		}()
		<-locked
	}
	conf, err := enter(layers(n))
	if err != nil {
		Fail(os.Stdout, err)
		os.Exit(1)
	}
	err = Serve(os.Stdin, os.Stdout, conf, func(req Request, body io.Reader, a *Answers) (int64, int64) {
		what := strings.Fields(req.Name) // PROBE THREAD ARG
		switch what[0] {
		case "eat":
			var kept [][]byte
			for {
				b := make([]byte, 64<<20)
				for i := 0; i < len(b); i += 4096 {
					b[i] = 1
				}
				kept = append(kept, b)
				runtime.KeepAlive(kept)
			}
		case "panic":
			panic("a bug, \x1b[31m told in colour")
		case "discard":
			return 1, req.Size
		}
		j := job{what[0], what[2], make(chan error)}
		if what[1] == "existing" {
			existing <- j
		} else {
			go func() {
				runtime.LockOSThread() // never unlocked: with three threads locked already this one is fresh or was idle
				j.answer <- probes[j.probe].try(j.arg)
			}()
		}
		text := "OK"
		if err := <-j.answer; err != nil {
			text = unix.ErrnoName(err.(syscall.Errno))
		}
		a.Refuse(Refusal{Code: "probe", Detail: text})
		return 0, 0
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// ask starts a child for one probe: many of them kill it.
func ask(t *testing.T, which layers, name string) string {
	t.Helper()
	c := start(t, Options{args: []string{"child-probe", strconv.Itoa(int(which))}, wire: which != allLayers})
	defer c.Close()
	r, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: name}, strings.NewReader(""))
	var d *DeathError
	if errors.As(err, &d) {
		if d.Code == DeathForbidden {
			return "killed"
		}
		return err.Error()
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return r.Refusals[0].Detail
}

// fixtures are what the probes reach for. Each is first reached from here, so that a refusal in the child means something.
func fixtures(t *testing.T) func(probe string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o777); err != nil { // reachable for the child's user, so that only confinement is in its way
			t.Fatal(err)
		}
	}
	os.Chmod(file, 0o777)
	tcp, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(tcp) })
	if err := unix.Bind(tcp, loopback("0")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(tcp, 16); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(tcp)
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(sa.(*unix.SockaddrInet4).Port)
	abstract, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(abstract) })
	name := fmt.Sprintf("confine-test-%d-%s", os.Getpid(), port)
	if err := unix.Bind(abstract, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(abstract, 16); err != nil {
		t.Fatal(err)
	}
	arg := func(probe string) string {
		switch probe {
		case "tcp", "udp":
			return port
		case "abstract":
			return name
		}
		return file
	}
	for _, p := range []string{"open-file", "open-dir", "write-file", "memfd", "tcp", "udp", "abstract", "socketpair", "code"} {
		if err := probes[p].try(arg(p)); err != nil {
			t.Fatalf("%s does not work without confinement either: %v", p, err)
		}
	}
	return arg
}

func TestNothingIsReachable(t *testing.T) {
	arg := fixtures(t)
	for _, layer := range []struct {
		name  string
		which layers
		want  func(probe) string
	}{
		{"all", allLayers, func(p probe) string { return p.full }},
		{"seccomp alone", layerSeccomp, func(p probe) string { return p.seccomp }},
		{"landlock and namespaces alone", layerLandlock | layerLimits, func(p probe) string { return p.landlock }},
	} {
		for name, p := range probes {
			want := layer.want(p)
			if want == "" || want == "-" {
				continue // another layer's work
			}
			for _, thread := range []string{"existing", "new"} {
				got := ask(t, layer.which, name+" "+thread+" "+arg(name))
				if !strings.Contains("|"+want+"|", "|"+got+"|") {
					t.Errorf("%s, %s thread, %s: %s, want %s", layer.name, thread, name, got, want)
				}
			}
		}
	}
	if err := probes["open-file"].try(arg("open-file")); err != nil {
		t.Errorf("the file did not survive the probes: %v", err)
	}
	if _, err := os.Stat(arg("create-file") + ".new"); err == nil {
		t.Error("a probe created a file")
	}
}

// Without Landlock and seccomp the namespaces still keep the listeners out of reach.
func TestNamespacesHoldTheListeners(t *testing.T) {
	arg := fixtures(t)
	for name, want := range map[string]string{"tcp": "ENETUNREACH", "udp": "ENETUNREACH", "abstract": "ECONNREFUSED"} {
		if got := ask(t, layerLimits, name+" new "+arg(name)); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if os.Getuid() == 0 {
		// The probe file is writable for everybody; root's own files are not, as the child has changed its user.
		private := arg("") + ".private"
		if err := os.WriteFile(private, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, layerLimits, "open-file new "+private); got != "EACCES" {
			t.Errorf("a private file of root: %s, want EACCES", got)
		}
	}
}

func TestConfinement(t *testing.T) {
	// A descriptor that this process inherited without close-on-exec must not be there in the child: it would show as an answer to a write.
	c := start(t, Options{args: []string{"child-probe", strconv.Itoa(int(allLayers))}})
	m := c.Confinement()
	if m["landlock"].(int64) < 1 || m["seccomp"] != "allowlist" || m["no-new-privileges"] != true {
		t.Errorf("in force: %v", m)
	}
	if want := min(m["landlock-kernel"].(int64), maxLandlock); m["landlock"] != want {
		t.Errorf("landlock %v, the kernel has %v", m["landlock"], m["landlock-kernel"])
	}
	if _, err := json.Marshal(m); err != nil {
		t.Error(err)
	}
	// Several items, one after the other, each with exactly its bytes.
	for _, size := range []int64{0, 1, 70000, 3 << 20} {
		r, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "discard", Size: size}, zeros{})
		if err != nil || r.Bytes != size {
			t.Fatalf("%d bytes: %+v, %v", size, r, err)
		}
	}
	// Close would not wait for ever.
	c.in.Close()
	<-c.ended
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if s := c.state.String(); s != "exit status 0" {
		t.Errorf("after Close the child ended with %s", s)
	}
	if _, err := c.Judge(t.Context(), Request{Kind: KindFlat}, zeros{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestDeaths(t *testing.T) {
	for name, want := range map[string]string{
		"eat new x":   DeathMemory,
		"panic new x": DeathCrashed,
		"exec new /":  DeathForbidden,
	} {
		c := start(t, Options{args: []string{"child-probe", strconv.Itoa(int(allLayers))}})
		_, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: name}, strings.NewReader(""))
		var d *DeathError
		if !errors.As(err, &d) || d.Code != want {
			t.Errorf("%s: %v, want %s", name, err, want)
			continue
		}
		if !printable(d.Error(), 1<<20) {
			t.Errorf("%s: the message is not printable: %q", name, d.Error())
		}
		if _, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "discard"}, zeros{}); !errors.As(err, &d) {
			t.Errorf("%s: the next item: %v", name, err)
		}
	}
}

func TestSourceFailure(t *testing.T) {
	broken := errors.New("the disc is scratched")
	for name, r := range map[string]io.Reader{
		"short":  io.LimitReader(zeros{}, 100000),
		"broken": io.MultiReader(io.LimitReader(zeros{}, 300000), errorReader{broken}),
	} {
		c := start(t, Options{args: []string{"child-probe", strconv.Itoa(int(allLayers))}})
		_, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "discard", Size: 1 << 20}, r)
		want := io.ErrUnexpectedEOF
		if name == "broken" {
			want = broken
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Cancelling ends a wait for a reader of bytes that takes its time.
	c := start(t, Options{args: []string{"child-probe", strconv.Itoa(int(allLayers))}})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Judge(ctx, Request{Kind: KindFlat, Name: "discard", Size: MaxSize}, zeros{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
}

type errorReader struct{ err error }

func (e errorReader) Read([]byte) (int, error) { return 0, e.err }

// Hostile answers. The fake child reads the request and the item, then writes what the case says.

const okResult = `{"type":"result","files":1,"bytes":4}` + "\n"

var hostile = map[string]struct {
	answer string // %REPEAT is written for ever
	want   string // in the error
}{
	"unknown field":             {`{"type":"result","files":1,"bytes":4,"verdict":"clean"}` + "\n", "unknown field"},
	"member twice":              {`{"type":"result","files":1,"bytes":4,"bytes":4}` + "\n", "spelling"},
	"letter case":               {`{"type":"result","Files":1,"bytes":4}` + "\n", "spelling"},
	"white space":               {`{"type":"result", "files":1,"bytes":4}` + "\n", "spelling"},
	"missing member":            {`{"type":"result","files":1}` + "\n", "spelling"},
	"order":                     {`{"type":"result","bytes":4,"files":1}` + "\n", "spelling"},
	"null":                      {`{"type":"result","files":null,"bytes":4}` + "\n", "spelling"},
	"second value":              {`{"type":"result","files":1,"bytes":4}{}` + "\n", "answer line"},
	"no object":                 {"[]\n", "answer line"},
	"empty line":                {"\n", "answer line"},
	"unknown type":              {`{"type":"pass"}` + "\n", "type"},
	"ready again":               {`{"type":"ready"}` + "\n", "type"},
	"more bytes than are":       {`{"type":"result","files":1,"bytes":5}` + "\n", "5 bytes"},
	"negative":                  {`{"type":"result","files":-1,"bytes":4}` + "\n", "-1 files"},
	"float":                     {`{"type":"result","files":1.0,"bytes":4}` + "\n", "result"},
	"two results":               {okResult + okResult, "more lines"},
	"terminal escape":           {`{"type":"refusal","code":"x","place":"","offset":0,"detail":"\u001b[2J"}` + "\n", "printable"},
	"bidi":                      {`{"type":"refusal","code":"x","place":"` + "\u202e" + `","offset":0,"detail":""}` + "\n", "printable"},
	"bad UTF-8":                 {`{"type":"refusal","code":"x","place":"` + "\xff" + `","offset":0,"detail":""}` + "\n", "spelling"},
	"severity":                  {`{"type":"finding","rule":"r","severity":"fine","place":"","count":1,"examples":[],"detail":""}` + "\n", "severity"},
	"rule":                      {`{"type":"finding","rule":"a b","severity":"info","place":"","count":1,"examples":[],"detail":""}` + "\n", "rule"},
	"count":                     {`{"type":"finding","rule":"r","severity":"info","place":"","count":0,"examples":[],"detail":""}` + "\n", "count"},
	"examples":                  {`{"type":"finding","rule":"r","severity":"info","place":"","count":9,"examples":["","","",""],"detail":""}` + "\n", "examples"},
	"examples null":             {`{"type":"finding","rule":"r","severity":"info","place":"","count":9,"examples":null,"detail":""}` + "\n", "examples"},
	"long text":                 {`{"type":"refusal","code":"x","place":"` + strings.Repeat("a", MaxText+1) + `","offset":0,"detail":""}` + "\n", "printable"},
	"long line":                 {`{"type":"refusal","code":"x","place":"` + strings.Repeat("a", MaxLine) + `","offset":0,"detail":""}` + "\n", "more than"},
	"endless line":              {"%REPEAT" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "more than"},
	"endless findings":          {"%REPEAT" + `{"type":"finding","rule":"r","severity":"info","place":"","count":1,"examples":[],"detail":""}` + "\n", "more than"},
	"endless refusals":          {"%REPEAT" + `{"type":"refusal","code":"x","place":"","offset":0,"detail":""}` + "\n", "more than"},
	"text of a flat item":       {`{"type":"text","more":false,"data":""}` + "\n", "about a flat"},
	"derivation of a flat item": {`{"type":"derivation","outputs":0,"inputs":[],"sources":0,"args":0,"env":0}` + "\n", "about a flat"},
}

func fakeChild(name string) {
	defer os.Exit(0)
	os.Stdout.WriteString(fakeReady)
	in := bufio.NewReader(os.Stdin)
	if name != "early" {
		in.ReadSlice('\n')
	}
	switch name {
	case "silent":
		time.Sleep(time.Hour)
	case "closes":
		os.Stdout.Close()
		time.Sleep(time.Hour)
	case "ends":
		return
	case "suicide":
		unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
		// The first process of a PID namespace cannot be killed from within; a crash can.
		panic("fake")
	case "early":
		os.Stdout.WriteString(okResult)
		time.Sleep(time.Hour)
	}
	answer := hostile[name].answer
	if d, ok := derivationAnswers()[name]; ok {
		io.CopyN(io.Discard, in, int64(len(recipe().Bytes())))
		answer = d.answer
	} else {
		io.CopyN(io.Discard, in, 4)
	}
	once, repeat, ok := strings.Cut(answer, "%REPEAT")
	if ok {
		os.Stdout.WriteString(once)
	} else {
		os.Stdout.WriteString(answer)
		in.ReadByte()
		return
	}
	for {
		if _, err := os.Stdout.WriteString(repeat); err != nil {
			return
		}
	}
}

// fakeReady claims everything.
const fakeReady = `{"type":"ready","landlock":7,"landlock-kernel":7,"namespaces":["net"],"no-new-privileges":true,"address-space":1,"descriptors":3,` +
	`"seccomp":"allowlist","seccomp-calls":40,"user":"nobody","kernel":"6"}` + "\n"

func TestHostileAnswers(t *testing.T) {
	for name, h := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, Options{args: []string{"child-fake", name}, wire: true})
			report, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "x", Size: 4}, strings.NewReader("abcd"))
			var a *AnswerError
			if !errors.As(err, &a) || !strings.Contains(a.Detail, h.want) || report != nil {
				t.Fatalf("%+v, %v; want an AnswerError with %q", report, err, h.want)
			}
			if !printable(a.Detail, 4096) {
				t.Errorf("not printable: %q", a.Detail)
			}
			select {
			case <-c.ended:
			default:
				t.Error("the child still runs")
			}
		})
	}
}

// recipe is the derivation that the fake child is asked about.
func recipe() *derivation.Derivation {
	return &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out", Path: "/gnu/store/7bj9z2rm5lvvvdq8kfbvfsh1nwcqxgjb-x"}},
		Inputs:  []derivation.Input{{Path: "/gnu/store/9q35rcgj03qd76ylw1xcq7yy8p9159l8-y.drv", Outputs: []string{"doc", "out"}}},
		Sources: []string{"/gnu/store/qr32z1d17qfl877s871zlwf88329pshj-z"},
		System:  "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", strings.Repeat("long ", 20000), ""},
		Env: []derivation.Variable{{Name: "out", Value: "/gnu/store/7bj9z2rm5lvvvdq8kfbvfsh1nwcqxgjb-x"}},
	}
}

// linesOf are the answer lines of an honest child about d.
func linesOf(d *derivation.Derivation) []string {
	var b strings.Builder
	w := bufio.NewWriter(&b)
	(&Answers{w: w}).Derivation(d)
	w.Flush()
	return strings.SplitAfter(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func derivationAnswers() map[string]struct{ answer, want string } {
	honest := linesOf(recipe())
	honest[len(honest)-1] += "\n"
	result := `{"type":"result","files":1,"bytes":1}` + "\n"
	refusal := `{"type":"refusal","code":"x","place":"","offset":0,"detail":""}` + "\n"
	other := recipe()
	other.Builder = "/bin/sj"
	lie := linesOf(other)
	join := func(l ...string) string { return strings.Join(l, "") }
	text := `{"type":"text","more":false,"data":""}` + "\n"
	return map[string]struct{ answer, want string }{
		"honest derivation":    {join(honest...) + result, ""},
		"another derivation":   {join(lie...) + "\n" + result, "not the one"},
		"a string too few":     {join(honest[:len(honest)-1]...) + result, "missing"},
		"a string too many":    {join(honest...) + text + result, "more than"},
		"no derivation":        {result, "neither"},
		"and refused":          {join(honest...) + refusal + result, "both"},
		"head twice":           {honest[0] + honest[0], "place"},
		"text before the head": {text, "place"},
		"negative count":       {`{"type":"derivation","outputs":-1,"inputs":[],"sources":0,"args":0,"env":0}` + "\n", "count"},
		"huge count":           {`{"type":"derivation","outputs":0,"inputs":[],"sources":2000000000,"args":0,"env":0}` + "\n", "count"},
		"counts past the item": {`{"type":"derivation","outputs":0,"inputs":[200000,200000],"sources":0,"args":0,"env":0}` + "\n", "fit"},
		"endless parts":        {honest[0] + "%REPEAT" + `{"type":"text","more":true,"data":""}` + "\n", "more than"},
		"no base64":            {honest[0] + `{"type":"text","more":false,"data":"?"}` + "\n", "text"},
		"loose base64":         {honest[0] + `{"type":"text","more":false,"data":"b3V0\n"}` + "\n", "spelling"},
	}
}

// What the child says of a derivation prints to the bytes that it was given, or the parent does not take it.
func TestDerivationAnswers(t *testing.T) {
	item := recipe().Bytes()
	for name, h := range derivationAnswers() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, Options{args: []string{"child-fake", name}, wire: true})
			report, err := c.Judge(t.Context(), Request{Kind: KindDerivation, Name: "x", Size: int64(len(item))}, bytes.NewReader(item))
			if h.want == "" {
				if err != nil || report.Derivation == nil || !bytes.Equal(report.Derivation.Bytes(), item) {
					t.Fatalf("%+v, %v", report, err)
				}
				return
			}
			var a *AnswerError
			if !errors.As(err, &a) || !strings.Contains(a.Detail, h.want) {
				t.Fatalf("%v; want an AnswerError with %q", err, h.want)
			}
		})
	}
}

func TestFakeChildren(t *testing.T) {
	short := func(int64) time.Duration { return 1500 * time.Millisecond }
	for name, want := range map[string]string{"silent": DeathTimeout, "closes": DeathCrashed, "ends": DeathCrashed, "suicide": DeathCrashed} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deadline := func(int64) time.Duration { return 5 * time.Minute }
			if want == DeathTimeout {
				deadline = short
			}
			c := start(t, Options{args: []string{"child-fake", name}, wire: true, Deadline: deadline})
			_, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "x", Size: 8 << 20}, zeros{})
			var d *DeathError
			if !errors.As(err, &d) || d.Code != want {
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
	t.Run("result before the item was read", func(t *testing.T) {
		// What is sent to it waits for the deadline. A child that has not even answered by then was not given enough by this machine.
		for limit := 1500 * time.Millisecond; ; limit *= 4 {
			c := start(t, Options{args: []string{"child-fake", "early"}, wire: true, Deadline: func(int64) time.Duration { return limit }})
			_, err := c.Judge(t.Context(), Request{Kind: KindFlat, Name: "x", Size: 8 << 20}, zeros{})
			var d *DeathError
			if errors.As(err, &d) && d.Code == DeathTimeout && limit < 5*time.Minute {
				continue
			}
			var a *AnswerError
			if !errors.As(err, &a) {
				t.Errorf("%v, want an AnswerError", err)
			}
			break
		}
	})
	// A child that only says that it is confined is found out before it gets a byte.
	t.Run("unconfined", func(t *testing.T) {
		start(t, Options{args: []string{"child-fake", "idle"}, wire: true}).Close() // skips where nothing works
		_, err := Start(t.Context(), Options{Path: self(t), args: []string{"child-fake", "silent"}})
		var f *FeatureError
		if !errors.As(err, &f) || f.Feature != "reader" {
			t.Errorf("%v, want a FeatureError about the reader", err)
		}
	})
	t.Run("no protocol", func(t *testing.T) {
		start(t, Options{args: []string{"child-fake", "idle"}, wire: true}).Close()
		_, err := Start(t.Context(), Options{Path: self(t), args: []string{"-test.list", "TestFake"}})
		var a *AnswerError
		if !errors.As(err, &a) {
			t.Errorf("%v, want an AnswerError", err)
		}
	})
}

// parentChild is a parent started as somebody else: it starts the reader at path and tells what happened.
func parentChild(path string) {
	c, err := Start(context.Background(), Options{Path: path, args: []string{"child-probe", strconv.Itoa(int(allLayers))}})
	var f *FeatureError
	switch {
	case errors.As(err, &f):
		fmt.Println("feature:", f.Feature)
	case err != nil:
		fmt.Println("error:", err)
	default:
		_, err := c.Judge(context.Background(), Request{Kind: KindFlat, Name: "discard", Size: 10}, zeros{})
		fmt.Println("judged:", err, c.conf.User)
		c.Close()
	}
	os.Exit(0)
}

// runAs copies the test binary where everybody can reach it and runs parentChild with attr.
func runAs(t *testing.T, attr *syscall.SysProcAttr, path func(copied string) string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED, NOTHING WAS TESTED: changing the user or the root needs root; run the tests as root too")
	}
	start(t, Options{args: []string{"child-probe", strconv.Itoa(int(allLayers))}}).Close() // skips where nothing works
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(self(t))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "reader")
	if err := errors.Join(os.WriteFile(copied, data, 0o755), os.Chmod(copied, 0o755)); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	if attr.Chroot != "" {
		attr.Chroot = dir
	}
	cmd := exec.Command(path(copied), "child-parent", path(copied))
	cmd.SysProcAttr = attr
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestAsOrdinaryUser(t *testing.T) {
	got := runAs(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}, func(p string) string { return p })
	if got != "judged: <nil> caller" {
		t.Error(got)
	}
}

// The root of a container that has no second user to give.
func TestAsContainerRoot(t *testing.T) {
	got := runAs(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 1}},
	}, func(p string) string { return p })
	if got != "judged: <nil> caller" {
		t.Error(got)
	}
}

// The kernel makes no user namespace inside a chroot.
func TestWithoutUserNamespaces(t *testing.T) {
	got := runAs(t, &syscall.SysProcAttr{Chroot: "here"}, func(p string) string { return "/" + filepath.Base(p) })
	if got != "feature: user namespaces" {
		t.Error(got)
	}
}

func TestEnterByHand(t *testing.T) {
	if _, err := Enter(); err == nil {
		t.Fatal("entered in a process that nobody prepared")
	} else if f := (*FeatureError)(nil); !errors.As(err, &f) || f.Remedy == "" {
		t.Error(err)
	}
}

func TestCheckStatus(t *testing.T) {
	good := "Name:\tx\nNSpid:\t812\t1\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
	if err := checkStatus(good); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"NSpid:\t812\t1", "NSpid:\t812"}, {"CapEff:\t0000000000000000", "CapEff:\t0000000000000001"}, {"NoNewPrivs:\t1", "NoNewPrivs:\t0"},
		{"Seccomp:\t2", "Seccomp:\t0"}, {"Seccomp:\t2\n", ""}, {"CapPrm:\t0000000000000000", "CapPrm:\t"},
	} {
		if checkStatus(strings.Replace(good, change[0], change[1], 1)) == nil {
			t.Errorf("%q instead of %q is accepted", change[1], change[0])
		}
	}
}

// Every architecture this is built for has a filter that lets reading pass and ends what is not on the list.
func TestSeccompPolicy(t *testing.T) {
	for _, goarch := range []string{"amd64", "arm64"} {
		policy, n, err := seccompPolicy(goarch)
		if err != nil || n < 35 {
			t.Errorf("%s: %d calls, %v", goarch, n, err)
		}
		if goarch == runtime.GOARCH {
			if _, err := policy.Assemble(); err != nil {
				t.Errorf("%s: %v", goarch, err)
			}
		}
	}
	if _, _, err := seccompPolicy("pdp11"); err == nil {
		t.Error("a filter for an unknown machine")
	}
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"a/b c":    "a/b c",
		"a\nb":     `a\nb`,
		"\u202e":   `\u202e`,
		"\xff\"\\": `\xff\"\\`,
	} {
		if got := Escape(in, 100); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	for n := 3; n < 40; n++ {
		for _, s := range []string{strings.Repeat("a", 30), strings.Repeat("\x00", 30), strings.Repeat("é", 7)} {
			got := Escape(s, n)
			if !printable(got, n) {
				t.Errorf("%q to %d bytes: %q", s, n, got)
			}
			if len(s) > n && !strings.HasSuffix(got, "...") {
				t.Errorf("%q to %d bytes: %q does not say that it was cut", s, n, got)
			}
		}
	}
}

// What a parent accepts it would have printed alike.
func FuzzAnswer(f *testing.F) {
	for _, h := range hostile {
		f.Add([]byte(h.answer))
	}
	f.Add([]byte(okResult))
	f.Add([]byte(`{"type":"finding","rule":"r","severity":"info","place":"a","count":2,"examples":["a/b:3"],"detail":"d"}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		a := &accumulator{kind: KindFlat, size: 4}
		if done, err := a.line(line); err != nil || done {
			return
		}
		var again []byte
		var err error
		switch {
		case len(a.report.Findings) == 1:
			again, err = encode(findingLine{tag{"finding"}, a.report.Findings[0]})
		case len(a.report.Refusals) == 1:
			again, err = encode(refusalLine{tag{"refusal"}, a.report.Refusals[0]})
		default:
			t.Fatalf("accepted, but nothing came of it: %q", line)
		}
		if err != nil || string(again) != string(line) {
			t.Fatalf("%q prints as %q (%v)", line, again, err)
		}
	})
}
