package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// A listener says hello to whoever reaches it, and counts.
type listener struct {
	network, addr string
	met           atomic.Int64
}

func listen(t *testing.T, network, addr string) *listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	x := &listener{network: network, addr: l.Addr().String()}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			x.met.Add(1)
			c.Write([]byte("hello"))
			c.Close()
		}
	}()
	return x
}

// carry brings one more shipment to an admitted world, and returns its derivation.
func (w *world) carry(n int, name string, deeds ...string) string {
	w.t.Helper()
	w.ship(n, request{derivations: map[string][]string{name: deeds}})
	w.admit(n)
	return w.named(n, "-"+name+".drv").Name
}

// TestNoNetwork: what answers outside of a build cannot be reached from within.
func TestNoNetwork(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside", "outside", "goods")
	socket := filepath.Join(w.dir, "socket")
	listeners := []*listener{
		listen(t, "tcp", "127.0.0.1:0"),
		listen(t, "unix", fmt.Sprintf("@sallyport-e2e-%d", os.Getpid())),
		listen(t, "unix", socket),
	}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		listeners = append(listeners, listen(t, "tcp", "[::1]:0"))
	}
	var dials []string
	for _, l := range listeners {
		dials = append(dials, "dial "+l.network+" "+l.addr)
	}
	// Outside of the sandbox the very program reaches every one.
	out, err := exec.Command(filepath.Join(binDir, "deeds"), dials...).CombinedOutput()
	if err != nil || strings.Count(string(out), `: yes: "hello"`) != len(listeners) {
		t.Fatalf("the control does not reach what it should: %v\n%s", err, out)
	}
	before := make([]int64, len(listeners))
	for i, l := range listeners {
		before[i] = l.met.Load()
	}
	d := w.depot()
	port := d.url[strings.LastIndexByte(d.url, ':')+1:]
	drv := w.carry(4, "caller-1.0", append(dials, "dial tcp 127.0.0.1:"+port, "-interfaces $out", "write /tmp/x 600 x")...)
	w.builder("builder-1", "erin", d.url)
	r := w.must(append(w.buildArgs("builder-1", "result-1", drv), "--log")...)
	log := string(r.stderr)
	if n := strings.Count(log, ": no: "); n != len(listeners)+1 || strings.Contains(log, ": yes:") {
		t.Errorf("%d calls did not get through, want %d:\n%s", n, len(listeners)+1, log)
	}
	for i, l := range listeners {
		if n := l.met.Load(); n != before[i] {
			t.Errorf("%s %s was reached from a build", l.network, l.addr)
		}
	}
	// It has a loopback of its own, and nothing else.
	nars, err := filepath.Glob(w.path("result-1", "*.nar"))
	if err != nil || len(nars) != 1 {
		t.Fatalf("%q %v", nars, err)
	}
	if text := string(read(t, nars[0])); !strings.Contains(text, "lo up|loopback") || strings.Contains(text, "eth") || strings.Contains(text, "broadcast") {
		t.Errorf("interfaces: %q", text)
	}
}

// TestNothingLeft: what a build writes beside its output is reported and gone.
func TestNothingLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside", "outside", "goods")
	mark := fmt.Sprintf("sallyport-e2e-stray-%d", os.Getpid())
	strays := []string{"/dev/shm/" + mark, "/gnu/store/" + mark, "/tmp/" + mark}
	var deeds []string
	for _, s := range strays {
		deeds = append(deeds, "write "+s+" 644 stray")
	}
	deeds = append(deeds, "-write /etc/"+mark+" 644 x", "-write /"+mark+" 644 x", "-write /proc/"+mark+" 644 x", "write $out 644 the output", "write beside 644 in the build's own directory")
	d := w.depot()
	drv := w.carry(4, "stray-1.0", deeds...)
	w.builder("builder-1", "erin", d.url)
	host := func() []string {
		var list []string
		for _, dir := range []string{"/dev/shm", "/gnu/store", "/tmp", "/etc", "/", w.path("builder-1", "store")} {
			found, err := filepath.Glob(filepath.Join(dir, "*"+mark+"*"))
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, found...)
		}
		more, err := filepath.Glob("/tmp/guix-build-stray-1.0.drv-*")
		if err != nil {
			t.Fatal(err)
		}
		return append(list, more...)
	}
	var b struct {
		Strays  []string
		Outputs []struct{ Path string }
	}
	w.get(&b, w.buildArgs("builder-1", "result-1", drv)...)
	for _, s := range strays {
		if !slices.Contains(b.Strays, s) {
			t.Errorf("%s is not reported: %q", s, b.Strays)
		}
	}
	if left := host(); len(left) > 0 {
		t.Errorf("a build left %q on the machine", left)
	}
	// Nor does one that fails, and it is told of all the same.
	drv = w.carry(5, "failing-1.0", append(slices.Clone(deeds), "exit 7")...)
	r := w.code(failed, append(w.buildArgs("builder-1", "result-2", drv), "--json")...)
	for _, s := range append(slices.Clone(strays), "exit code 7") {
		if !strings.Contains(string(r.stderr), s) {
			t.Errorf("%s is not told: %v", s, r)
		}
	}
	if left := host(); len(left) > 0 {
		t.Errorf("a build left %q on the machine", left)
	}
	if left := files(t, w.path("result-2")); len(left) > 0 {
		t.Errorf("a failed build has a result: %q", left)
	}
	for _, f := range files(t, w.path("builder-1", "work")) {
		if !strings.HasSuffix(f, ".lock") {
			t.Errorf("work/%s stays", f)
		}
	}
}
