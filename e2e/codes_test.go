package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWholeWay carries a shipment from a tree outside to a client inside, with nobody disturbing.
func TestWholeWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	d := w.depot()
	for _, it := range w.items(1) {
		if _, reason, err := fetch(d.url, it.Name, w.acl()); err != nil || reason != "" {
			t.Errorf("%s: %q %v", it.Name, reason, err)
		}
	}
	if t.Failed() {
		return
	}
	drv := w.named(1, ".drv").Name
	w.builder("builder-1", "erin", d.url)
	w.builder("builder-2", "frank", d.url)
	var output string
	for i, want := range []int{waiting, done} {
		r := fmt.Sprintf("result-%d", i+1)
		var b struct {
			Outputs []struct{ Path string }
			Strays  []string
		}
		w.get(&b, w.buildArgs(fmt.Sprintf("builder-%d", i+1), r, drv)...)
		if len(b.Outputs) != 1 || len(b.Strays) != 0 {
			t.Fatalf("%+v", b)
		}
		output = strings.TrimPrefix(b.Outputs[0].Path, "/gnu/store/")
		w.must(w.submitArgs(r)...)
		w.code(want, station, "quorum", "status", "--zone", "inside", "--track", track, drv)
		if _, reason, err := fetch(d.url, output, w.acl()); err != nil || reason == "" {
			t.Errorf("an output that is not signed yet is served: %v", err)
		}
	}
	w.must(w.signArgs()...)
	if _, reason, err := fetch(d.url, output, w.acl()); err != nil || reason != "" {
		t.Errorf("%s: %q %v", output, reason, err)
	}
	w.sound()
	want := map[string]int{"created": 1, "root": 1, "undersigned": 1, "inspected": 1, "imported": 1, "approved": 2, "allowed": 1, "signed": 2, "built": 2, "agreed": 1}
	if got := w.kinds("inside"); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("entries %v, want %v", got, want)
	}
}

// TestExitCodes: each code of the manual, from a command that deserves it, and nothing but JSON with a type on standard output.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside", "outside")
	d := w.depot()
	w.builder("builder-1", "erin", d.url)
	drv := w.named(1, ".drv").Name
	w.must(w.buildArgs("builder-1", "result-1", drv)...)
	w.must(w.submitArgs("result-1")...)
	write(t, w.path("file"), []byte("x"), 0o644)
	write(t, w.path("bad-slip"), []byte("sallyport slip v1\n"), 0o644)
	tests := []struct {
		name string
		code int
		kind string // type of the last object with --json
		says string // on standard error
		args []string
	}{
		{"done", done, "", "", []string{station, "ledger", "verify", "--zone", "inside"}},
		{"shipment with a gap", done, "", "", w.importArgs(3)},
		{"list", done, "shipment", "", []string{station, "review", "list", "--zone", "inside"}},
		{"show", done, "", "", []string{station, "review", "show", "--zone", "inside", "1"}},
		{"trust", done, "", "", []string{station, "trust", "show", "--zone", "inside"}},
		{"keys of zone.toml", done, "key", "", []string{station, "config", "explain"}},
		{"nothing to sign", done, "", "", w.signArgs()},
		{"missing zone", failed, "failed", "init --kind", []string{station, "ledger", "verify", "--zone", "nowhere"}},
		{"missing volume", failed, "failed", "volume-9", w.importOf("slip-1.txt", "volume-9")},
		{"missing slip", failed, "failed", "slip-9.txt", w.importOf("slip-9.txt", "volume-1")},
		{"missing key", failed, "failed", "nobody.key", []string{station, "import", "--zone", "inside", "--slip", "slip-1.txt", "--key", "nobody.key", "volume-1"}},
		{"missing builder", failed, "failed", "builder init", w.buildArgs("builder-9", "result-9", drv)},
		{"result is there", failed, "failed", "is there already", w.buildArgs("builder-1", "result-1", drv)},
		{"no shipment", failed, "failed", "no shipment 7", []string{station, "review", "show", "--zone", "inside", "7"}},
		{"zone is there", failed, "failed", "exist", []string{station, "init", "--kind", "inside", "--enclave", enclave, "inside"}},
		{"no zone given", usage, "usage", "SALLYPORT_ZONE", []string{station, "ledger", "verify"}},
		{"no slip given", usage, "usage", "--slip", []string{station, "import", "--zone", "inside", "volume-1"}},
		{"unknown flag", usage, "usage", "--help", []string{station, "import", "--force"}},
		{"unknown verb", usage, "usage", "--help", []string{station, "review", "destroy"}},
		{"unknown noun", usage, "usage", "--help", []string{station, "collect", "request.toml"}},
		{"too many arguments", usage, "usage", "--help", []string{station, "import", "a", "b"}},
		{"no number", usage, "usage", "number", []string{station, "review", "show", "--zone", "inside", "one"}},
		{"wrong kind of zone", usage, "usage", `"outside"`, []string{station, "review", "list", "--zone", "outside"}},
		{"wrong kind of zone, the other way", usage, "usage", `"inside"`, []string{whole, "collect", "--zone", "inside", "request.toml"}},
		{"kind of zone", usage, "usage", "outside, staging", []string{station, "init", "--kind", "upside", "--enclave", enclave, "new"}},
		{"replayed", refused, "refused", "shipment-replayed", w.importArgs(1)},
		{"not a slip", refused, "refused", "slip-syntax", w.importOf("bad-slip", "volume-1")},
		{"not allowed", refused, "refused", "not-allowed", w.buildArgs("builder-1", "result-9", w.named(2, ".drv").Name)},
		{"builders have to speak", waiting, "waiting", "hint:", []string{station, "quorum", "status", "--zone", "inside", "--track", track, drv}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: w.dir, keys: w.keys}
			args := tt.args
			if tt.name == "wrong kind of zone, the other way" {
				write(t, w.path("request.toml"), request{}.text(), 0o644)
			}
			r := w.code(tt.code, append(args, "--json")...)
			var last map[string]any
			list := bytes.Split(bytes.TrimSpace(r.stdout), []byte("\n"))
			for _, l := range list {
				last = nil
				if err := json.Unmarshal(l, &last); err != nil {
					t.Fatalf("a line is no object: %v: %v", err, r)
				}
				if _, ok := last["type"].(string); !ok && len(list) > 1 {
					t.Errorf("several objects, and one has no type: %s", l)
				}
			}
			if got, _ := last["type"].(string); tt.kind != "" && got != tt.kind {
				t.Errorf("type %q, want %q: %v", got, tt.kind, r)
			}
			if !strings.Contains(string(r.stderr), tt.says) {
				t.Errorf("standard error does not say %q: %v", tt.says, r)
			}
			if tt.code != done && !strings.HasPrefix(string(r.stderr), tt.args[0]+": ") {
				t.Errorf("standard error does not begin with the program's name: %v", r)
			}
		})
	}
}

// TestConfiguration: an unknown key of zone.toml is refused with its line, and nothing happens.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside", "outside")
	before := read(t, w.path("inside", "zone.toml"))
	tests := []struct {
		reason, line, add string
	}{
		{"config-unknown", "zone.toml:%d", "insepct = false\n"},
		{"config-unknown", "zone.toml:%d", "\n[gate]\nskip = true\n"},
		{"config-syntax", "zone.toml:%d", "enclave\n"},
		{"config-value", "space.reserve", "[space]\nreserve = -1\n"},
	}
	for _, tt := range tests {
		write(t, w.path("inside", "zone.toml"), append(bytes.Clone(before), tt.add...), 0o644)
		r := w.refuses(tt.reason, w.importArgs(2)...)
		at := tt.line
		if strings.Contains(at, "%d") {
			row := 1 + bytes.Count(before, []byte("\n"))
			at = fmt.Sprintf(at, row+len(tt.add)-len(strings.TrimLeft(tt.add, "\n")))
		}
		if !strings.Contains(string(r.stderr), at) {
			t.Errorf("%q: does not say %q: %v", tt.add, at, r)
		}
	}
	write(t, w.path("inside", "zone.toml"), before, 0o644)
	// A key of another kind of zone.
	outside := append(read(t, w.path("outside", "zone.toml")), "[depot]\nhost = \"depot\"\n"...)
	write(t, w.path("outside", "zone.toml"), outside, 0o644)
	write(t, w.path("request.toml"), request{}.text(), 0o644)
	if r := w.refuses("config-kind", whole, "collect", "--zone", "outside", "request.toml"); !strings.Contains(string(r.stderr), "depot.host") {
		t.Errorf("it does not name the key: %v", r)
	}
	if got := w.shipments(); len(got) != 1 {
		t.Errorf("shipments %v", got)
	}
	w.sound()
}

// TestNumbers: a gap blocks nothing and is shown until it is filled; a number is used once.
func TestNumbers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside", "outside", "goods")
	var q struct {
		Missing []int64 `json:"missing_shipments"`
	}
	w.get(&q, w.importArgs(3)...)
	if !slices.Equal(q.Missing, []int64{2}) {
		t.Errorf("missing %v, want 2", q.Missing)
	}
	states := func() string {
		var b strings.Builder
		for _, s := range w.shipments() {
			fmt.Fprintf(&b, "%d %s ", s.Shipment, s.State)
		}
		return b.String()
	}
	if got, want := states(), "1 admitted 2 missing 3 quarantined "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.refuses("shipment-replayed", w.importArgs(3)...)
	// Another shipment 3: the outside lost its memory, or somebody has the collector's key.
	it, content := source(t, "other", narOf(t, "other\n"))
	w.craft(3, "volume-other", "slip-other", goods(it, content))
	r := w.refuses("shipment-equivocation", w.importOf("slip-other", "volume-other")...)
	if !strings.Contains(string(r.stderr), "ALARM") {
		t.Errorf("no alarm: %v", r)
	}
	// A shipment 2 that does not follow the first.
	it, content = source(t, "other", narOf(t, "another\n"))
	w.craft(2, "volume-chain", "slip-chain", goods(it, content))
	w.refuses("manifest-chain", w.importOf("slip-chain", "volume-chain")...)
	// The right one still comes.
	w.must(w.importArgs(2)...)
	if got, want := states(), "1 admitted 2 quarantined 3 quarantined "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.must(station, "review", "reject", "--zone", "inside", "--key", w.key("alice/allowlist"), "--reason", "not wanted", "3")
	w.refuses("shipment-rejected", w.approveArgs(3, "bob")...)
	w.refuses("shipment-replayed", w.importArgs(3)...)
	w.sound()
	if n := w.kinds("inside")["refused"]; n != 5 {
		t.Errorf("%d refusals in the ledger, want 5", n)
	}
}

// TestInterrupted: SIGINT during an import is exit code 130 and leaves nothing; the same command then succeeds.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	before := w.state()
	twin := newWorld(t, admitted(t), "inside")
	rnd, took := dice(t), twin.must(twin.importArgs(2)...).took
	hit := 0
	for range 60 {
		p := w.start(append(w.importArgs(2), "--json")...)
		delay := time.Duration(rnd.Int64N(int64(took)))
		time.Sleep(delay)
		p.cmd.Process.Signal(syscall.SIGINT)
		r := w.wait(p)
		if r.code == done { // too late: the machine was busier when this was measured
			took = max(delay, time.Millisecond)
			w = newWorld(t, admitted(t), "inside")
			before = w.state()
			continue
		}
		if r.code == -1 { // too early: the program was not yet listening, and the signal killed it; and later is too early, too, on a machine that got slower
			took += took / 4
			continue
		}
		if r.code != interrupted {
			t.Fatalf("exit code %d wanted: %v", interrupted, r)
		}
		if l := lines[struct{ Type string }](t, r); len(l) != 1 || l[0].Type != "interrupted" {
			t.Errorf("type interrupted wanted: %v", r)
		}
		if got := w.state(); got != before {
			t.Fatalf("an interrupted import left something:\n%s\nbefore:\n%s", got, before)
		}
		if hit++; hit == 3 {
			break
		}
	}
	if hit == 0 {
		t.Error("no import was interrupted in the middle")
	}
	w.must(w.importArgs(2)...)
	w.tidy()
	w.sound()
}
