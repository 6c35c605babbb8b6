package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// kills is how often each command is killed.
func kills() int {
	if testing.Short() {
		return 2
	}
	return 10
}

// manyKills is kills for what persons with authority do: approve, promote, recall, rotate.
func manyKills() int { return 2 * kills() }

// A watch asks a depot for everything, all the time: whatever it serves must be whole, and nothing may be served before it is signed.
type watch struct {
	t      testing.TB
	stop   chan struct{}
	once   sync.Once
	over   sync.WaitGroup
	signed atomic.Bool  // whether the second shipment may be served
	served atomic.Int64 // good answers
}

func (w *world) watch(d *depot) *watch {
	x := &watch{t: w.t, stop: make(chan struct{})}
	acl, first, second := w.acl(), w.items(1), w.items(2)
	w.t.Cleanup(x.halt) // before the depot's own, so that its end is no news
	x.over.Go(func() {
		for {
			for _, it := range slices.Concat(first, second) {
				select {
				case <-x.stop:
					return
				default:
				}
				may := x.signed.Load() || slices.Contains(first, it)
				_, reason, err := fetch(d.url, it.Name, acl)
				switch {
				case err != nil:
					x.t.Errorf("depot: %v\n%s", err, d.log)
					return
				case reason == "" && !may:
					x.t.Errorf("depot: it serves %s, which is not allowed", it.Name)
					return
				case reason != "" && slices.Contains(first, it):
					x.t.Errorf("depot: %s is not served any more: %s", it.Name, reason)
					return
				case reason == "":
					x.served.Add(1)
				}
				time.Sleep(2 * time.Millisecond)
			}
		}
	})
	return x
}

func (x *watch) halt() {
	x.once.Do(func() { close(x.stop) })
	x.over.Wait()
}

func (x *watch) end() {
	x.t.Helper()
	x.halt()
	if x.served.Load() == 0 {
		x.t.Error("the depot served nothing while it was watched")
	}
}

// A hunt kills commands at random moments of their lives until enough of them were hit.
type hunt struct {
	t      *testing.T
	rnd    *rand.Rand
	enough int             // how many are to be alive when they are killed
	life   []time.Duration // how long each command lives, as far as is known

	hit, tries int
	victim     int           // who was killed last
	delay      time.Duration // when
}

func newHunt(t *testing.T, enough int, life ...time.Duration) *hunt {
	return &hunt{t: t, rnd: dice(t), enough: enough, life: life}
}

func (h *hunt) more() bool {
	h.t.Helper()
	if h.tries > 5*h.enough {
		h.t.Fatalf("only %d of %d were alive when they were to be killed", h.hit, h.tries)
	}
	h.tries++
	return h.hit < h.enough
}

// kill kills a command. On a machine that was busier when the life was measured all kills would come too late: each that does shortens the life.
func (h *hunt) kill(w *world, victim int, args ...string) {
	h.t.Helper()
	h.victim, h.delay = victim, time.Duration(h.rnd.Int64N(int64(h.life[victim])))
	if w.kill(h.delay, args...) {
		h.hit++
	} else {
		h.life[victim] = max(h.delay, time.Millisecond)
	}
}

func (h *hunt) String() string {
	return fmt.Sprintf("command %d killed after %v of %v", h.victim, h.delay, h.life[h.victim])
}

// kill starts a command and kills it after a delay. It reports whether the command was still running.
func (w *world) kill(delay time.Duration, args ...string) bool {
	w.t.Helper()
	p := w.start(args...)
	time.Sleep(delay)
	p.cmd.Process.Kill()
	return w.wait(p).code == -1
}

// killAt kills a command as soon as a file is there: moments that are too short to be met by chance.
func (w *world) killAt(pattern string, args ...string) {
	w.t.Helper()
	p := w.start(args...)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if found, err := filepath.Glob(w.path(pattern)); err != nil || len(found) > 0 {
			p.cmd.Process.Kill()
			break
		}
		// A zombie has no executable file any more.
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.cmd.Process.Pid)); err != nil {
			break
		}
	}
	w.wait(p)
}

// again runs a command until it succeeds. One that had become true before it was killed says so, and that is counted as a success, too.
func (w *world) again(already string, args ...string) (refusals int, before bool) {
	w.t.Helper()
	var r *result
	for range 3 {
		r = w.run(append(args, "--json")...)
		switch {
		case r.code == done:
			return refusals, false
		case r.code == refused && slices.Equal(reasons(w.t, r), []string{already}):
			return refusals + 1, true
		case r.code == failed && already != "" && strings.Contains(string(r.stderr), already):
			return refusals, true
		}
	}
	w.t.Fatalf("it does not succeed after a kill: %v", r)
	return 0, false
}

// TestKilledImport and its like: ten times, in a zone of its own each time, a command is killed at a random moment of its life and run again.
func TestKilledImport(t *testing.T) {
	t.Parallel()
	twin := newWorld(t, admitted(t), "inside")
	h := newHunt(t, kills(), twin.must(twin.importArgs(2)...).took)
	want := twin.outcome()
	for h.more() {
		w := newWorld(t, admitted(t), "inside")
		d := w.depot()
		x := w.watch(d)
		if h.tries == 1 {
			w.killAt("inside/cas/tmp/*", w.importArgs(2)...)
		} else {
			h.kill(w, 0, w.importArgs(2)...)
		}
		gone(t, filepath.Join(binDir, "sallyport-reader"))
		refusals, _ := w.again("shipment-replayed", w.importArgs(2)...)
		w.like(want, map[string]int{"imported": 2, "inspected": 2, "refused": refusals})
		w.atEnd(x)
		d.stop()
		if t.Failed() {
			t.Fatal(h)
		}
	}
}

// like compares the zone with a twin that nobody disturbed.
func (w *world) like(want string, kinds map[string]int) {
	w.t.Helper()
	if got := w.outcome(); got != want {
		w.t.Errorf("the end is not that of an undisturbed zone:\n%s\nwant:\n%s", got, want)
	}
	have := w.kinds("inside")
	for kind, n := range kinds {
		if have[kind] != n {
			w.t.Errorf("%d entries %q, want %d", have[kind], kind, n)
		}
	}
}

// atEnd checks everything that must hold at the end, and lets the watch have a last look.
func (w *world) atEnd(x *watch) {
	w.t.Helper()
	w.sound()
	w.tidy()
	x.end()
}

func TestKilledApproval(t *testing.T) {
	t.Parallel()
	twin := newWorld(t, admitted(t), "inside")
	twin.must(twin.importArgs(2)...)
	persons := []string{"alice", "bob"}
	var took []time.Duration
	for _, p := range persons {
		took = append(took, twin.must(twin.approveArgs(2, p)...).took)
	}
	twin.must(twin.signArgs()...)
	want := twin.outcome()
	for h := newHunt(t, manyKills(), took...); h.more(); {
		w := newWorld(t, admitted(t), "inside")
		w.must(w.importArgs(2)...)
		d := w.depot()
		x := w.watch(d)
		victim := h.hit % len(persons)
		for i, p := range persons {
			if i == victim {
				if h.tries == 1 {
					w.killAt("inside/cas/tmp/*", w.approveArgs(2, p)...)
				} else {
					h.kill(w, i, w.approveArgs(2, p)...)
				}
				// In another second the next list has another date, and what a dead run stored of this one is of no use.
				if h.tries%3 == 0 {
					time.Sleep(time.Second)
				}
			}
			w.again("", w.approveArgs(2, p)...)
		}
		x.signed.Store(true)
		w.must(w.signArgs()...)
		w.like(want, map[string]int{"approved": 4, "allowed": 2, "refused": 0})
		approvals := map[string]int{}
		for _, e := range w.entries("inside") {
			if e.Kind == "approved" {
				approvals[fmt.Sprint(e.Predicate["person"], e.Predicate["version"])]++
			}
		}
		if len(approvals) != 4 {
			t.Errorf("approvals by person and version: %v", approvals)
		}
		for _, it := range w.items(2) {
			if _, reason, err := fetch(d.url, it.Name, w.acl()); err != nil || reason != "" {
				t.Errorf("%s is allowed and not served: %q %v", it.Name, reason, err)
			}
		}
		w.atEnd(x)
		d.stop()
		if t.Failed() {
			t.Fatal(h)
		}
	}
}

func TestKilledBuild(t *testing.T) {
	t.Parallel()
	base := newWorld(t, admitted(t), "inside")
	base.admit(2)
	d := base.depot()
	x := base.watch(d)
	x.signed.Store(true)
	drv := base.named(2, ".drv").Name
	base.builder("builder-twin", "erin", d.url)
	// The program that builds sleeps for 0.15 s, so that it is hit as well as the fetching before and the archiving after.
	h := newHunt(t, kills(), base.must(base.buildArgs("builder-twin", "result-twin", drv)...).took)
	want := files(t, base.path("result-twin"))
	last := ""
	for h.more() {
		b, out := fmt.Sprintf("builder-%d", h.tries), fmt.Sprintf("result-%d", h.tries)
		base.builder(b, "frank", d.url)
		if moments := []string{".result-*.partial", b + "/input/*"}; h.tries <= len(moments) {
			base.killAt(moments[h.tries-1], base.buildArgs(b, out, drv)...)
		} else {
			h.kill(base, 0, base.buildArgs(b, out, drv)...)
		}
		for _, program := range files(t, base.path(b, "store")) {
			if strings.HasSuffix(program, "/deeds") {
				gone(t, base.path(b, "store", program))
			}
		}
		gone(t, filepath.Join(binDir, station))
		if _, before := base.again("is there already", base.buildArgs(b, out, drv)...); before {
			// The result is whole; what else the dead run left is the next build's to clear.
			base.must(base.buildArgs(b, out+"-next", drv)...)
		}
		if got := files(t, base.path(out)); !slices.Equal(got, want) {
			t.Errorf("result %q, want %q", got, want)
		}
		for _, f := range want {
			if strings.HasSuffix(f, ".nar") && string(read(t, base.path(out, f))) != string(read(t, base.path("result-twin", f))) {
				t.Errorf("%s differs from that of an undisturbed build", f)
			}
		}
		for _, dir := range []string{"input", "work"} {
			for _, f := range files(t, base.path(b, dir)) {
				if !strings.HasSuffix(f, ".lock") {
					t.Errorf("%s/%s stays", dir, f)
				}
			}
		}
		if left, _ := filepath.Glob(base.path(".result*")); len(left) > 0 {
			t.Errorf("%q stay", left)
		}
		if last == "" {
			base.must(base.submitArgs("result-twin")...)
			base.must(base.submitArgs(out)...)
		}
		last = out
		if t.Failed() {
			t.Fatal(h)
		}
	}
	// Handed in once more, nothing changes.
	base.must(base.submitArgs("result-twin")...)
	base.must(base.signArgs()...)
	if n := base.kinds("inside"); n["built"] != 2 || n["agreed"] != 1 || n["disagreed"] != 0 {
		t.Errorf("entries %v", n)
	}
	base.atEnd(x)
}

// TestKilledRelease kills what releases an output: the station while it takes a result in, and the signer.
func TestKilledRelease(t *testing.T) {
	t.Parallel()
	base := newWorld(t, admitted(t), "inside")
	d := base.depot()
	drv := base.named(1, ".drv").Name
	for i, person := range []string{"erin", "frank"} {
		b := fmt.Sprintf("builder-%d", i+1)
		base.builder(b, person, d.url)
		base.must(base.buildArgs(b, fmt.Sprintf("result-%d", i+1), drv)...)
	}
	d.stop()
	nars, err := filepath.Glob(base.path("result-1", "*.nar"))
	if err != nil || len(nars) != 1 {
		t.Fatalf("%q %v", nars, err)
	}
	output := strings.TrimSuffix(filepath.Base(nars[0]), ".nar")
	commands := func(w *world) [][]string {
		return [][]string{w.submitArgs(base.path("result-1")), w.submitArgs(base.path("result-2")), w.signArgs()}
	}
	twin := newWorld(t, base.dir, "inside")
	var took []time.Duration
	for _, args := range commands(twin) {
		took = append(took, twin.must(args...).took)
	}
	want := twin.outcome()
	for h := newHunt(t, kills(), took...); h.more(); {
		w := newWorld(t, base.dir, "inside")
		d := w.depot()
		x := w.watch(d)
		victim := h.hit % len(took)
		for i, args := range commands(w) {
			if i == victim && h.tries == 1 {
				w.killAt("inside/cas/tmp/*", args...)
			} else if i == victim {
				h.kill(w, i, args...)
			}
			w.again("", args...)
		}
		w.like(want, map[string]int{"built": 2, "agreed": 1, "signed": 2, "refused": 0})
		if _, reason, err := fetch(d.url, output, w.acl()); err != nil || reason != "" {
			t.Errorf("%s is agreed and not served: %q %v", output, reason, err)
		}
		w.atEnd(x)
		d.stop()
		if t.Failed() {
			t.Fatal(h)
		}
	}
}

// TestCommittedNotPublished: what was decided but could not be published has no effect yet, takes nothing away, and is published by the next opening.
func TestCommittedNotPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	w.must(w.importArgs(2)...)
	d := w.depot()
	served := func(n int) bool {
		t.Helper()
		all := true
		for _, it := range w.items(n) {
			_, reason, err := fetch(d.url, it.Name, w.acl())
			if err != nil {
				t.Errorf("%v\n%s", err, d.log)
			}
			all = all && err == nil && reason == ""
		}
		return all
	}
	if !served(1) {
		t.Fatal("the depot does not serve the first shipment")
	}
	w.must(w.approveArgs(2, "alice")...)
	// Where the list should be published a directory stands in the way.
	obstacle := w.path("inside", "public", "allowlist", track, "2")
	if err := os.Mkdir(obstacle, 0o755); err != nil {
		t.Fatal(err)
	}
	r := w.code(failed, w.approveArgs(2, "bob")...)
	if !strings.Contains(string(r.stderr), "not yet published") {
		t.Fatal(r)
	}
	if !served(1) || served(2) {
		t.Errorf("first shipment served: %v, second: %v; want only the first\n%s", served(1), served(2), d.log)
	}
	// Nothing else happens before it is published.
	r = w.code(failed, w.signArgs()...)
	if !strings.Contains(string(r.stderr), "publish") {
		t.Error(r)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	w.must(w.signArgs()...)
	if !served(1) || !served(2) {
		t.Errorf("first shipment served: %v, second: %v; want both\n%s", served(1), served(2), d.log)
	}
	w.must(w.approveArgs(2, "bob")...)
	if n := w.kinds("inside"); n["approved"] != 4 || n["allowed"] != 2 {
		t.Errorf("entries %v", n)
	}
	w.sound()
	w.tidy()
}
