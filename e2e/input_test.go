package e2e_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"sallyport/internal/trust"
)

// maxPeak is what no import of small things may need.
const maxPeak = 150 << 20

// kept is what a volume that is not let in must not change. Only refusals may be added to the ledger.
func (w *world) kept() string {
	w.t.Helper()
	var b strings.Builder
	for _, d := range []string{"cas", "tmp", "public/root", "public/orders", "public/allowlist", "public/witness"} {
		for _, f := range files(w.t, w.path("inside", d)) {
			fmt.Fprintf(&b, "%s/%s\n", d, f)
		}
	}
	for _, s := range w.shipments() {
		fmt.Fprintf(&b, "%+v\n", s)
	}
	kinds := w.kinds("inside")
	delete(kinds, "refused")
	fmt.Fprintf(&b, "%v\n", kinds)
	return b.String()
}

// words are the strings of a nar: each with its length before it, and padded to eight bytes.
func words(list ...string) []byte {
	var b []byte
	for _, s := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
		b = append(b, make([]byte, -len(s)&7)...)
	}
	return b
}

func TestBadVolumes(t *testing.T) {
	t.Parallel()
	template := admitted(t)
	base := newWorld(t, template, "inside")
	before := base.kept()
	item := func(w *world, suffix string) string { return w.itemFile(2, suffix) }
	nothing := func(w *world) {}
	huge := func(claim uint64) func(w *world) {
		return func(w *world) {
			nar := append(words("nix-archive-1", "(", "type", "regular", "contents"), binary.LittleEndian.AppendUint64(nil, claim)...)
			it, content := source(w.t, "huge", append(nar, "some bytes"...))
			w.craft(3, "volume-crafted", "slip-crafted", goods(it, content))
		}
	}
	tests := []struct {
		name   string
		code   int
		wants  []string // reason codes, or words of the message
		make   func(w *world)
		slip   string
		volume string
	}{
		{"empty directory", refused, []string{"volume-missing"}, func(w *world) { w.mkdir("volume-empty") }, "slip-2.txt", "volume-empty"},
		{"no directory", failed, []string{"volume-7: no such file"}, nothing, "slip-2.txt", "volume-7"},
		{"a file for a volume", refused, []string{"volume-type"}, func(w *world) { write(w.t, w.path("disc.iso"), []byte("CD001"), 0o644) }, "slip-2.txt", "disc.iso"},
		{"a device for a volume", refused, []string{"volume-type"}, nothing, "slip-2.txt", "/dev/zero"},
		{"a directory for a slip", failed, []string{"not a regular file"}, nothing, "volume-2", "volume-2"},
		{"an endless slip", failed, []string{"not a regular file"}, nothing, "/dev/zero", "volume-2"},
		{"an item cut short", refused, []string{"item-size"}, func(w *world) { w.cut(item(w, "pages-1"), 1_000_000) }, "slip-2.txt", "volume-2"},
		{"an item cut to nothing", refused, []string{"item-size"}, func(w *world) { w.cut(item(w, "pages-1"), 0) }, "slip-2.txt", "volume-2"},
		{"an item that grew", refused, []string{"item-size"}, func(w *world) { w.cut(item(w, "pages-1"), 1<<40) }, "slip-2.txt", "volume-2"},
		{"an item is gone", refused, []string{"volume-missing"}, func(w *world) { w.remove(item(w, ".drv")) }, "slip-2.txt", "volume-2"},
		{"the manifest cut short", refused, []string{"slip-mismatch"}, func(w *world) { w.cut(w.path("volume-2", "manifest"), 200) }, "slip-2.txt", "volume-2"},
		{"the sums cut short", refused, []string{"volume-sum", "volume-signature"}, func(w *world) { w.cut(w.path("volume-2", "SHA256SUMS"), 100) }, "slip-2.txt", "volume-2"},
		{"all items are gone", refused, []string{"volume-missing"}, func(w *world) { w.remove(w.path("volume-2", "items")) }, "slip-2.txt", "volume-2"},
		{"one file too many", refused, []string{"volume-extra"}, func(w *world) { write(w.t, w.path("volume-2", "autorun.inf"), []byte("[autorun]\n"), 0o644) }, "slip-2.txt", "volume-2"},
		{"a directory too many", refused, []string{"volume-extra"}, func(w *world) { w.mkdir("volume-2/more") }, "slip-2.txt", "volume-2"},
		{"a file where a directory belongs", refused, []string{"volume-type"}, func(w *world) {
			w.remove(w.path("volume-2", "items"))
			write(w.t, w.path("volume-2", "items"), []byte("x"), 0o644)
		}, "slip-2.txt", "volume-2"},
		{"a directory where an item belongs", refused, []string{"volume-type"}, func(w *world) {
			f := item(w, "pages-1")
			w.remove(f)
			w.mkdir(strings.TrimPrefix(f, w.dir+"/"))
		}, "slip-2.txt", "volume-2"},
		{"a directory where the manifest belongs", refused, []string{"volume-type"}, func(w *world) {
			w.remove(w.path("volume-2", "manifest"))
			w.mkdir("volume-2/manifest")
		}, "slip-2.txt", "volume-2"},
		{"a link where an item belongs", refused, []string{"volume-type"}, func(w *world) {
			f := item(w, "pages-1")
			w.remove(f)
			if err := os.Symlink(w.path("inside", "keys", "ledger.key"), f); err != nil {
				w.t.Fatal(err)
			}
		}, "slip-2.txt", "volume-2"},
		{"a pipe where an item belongs", refused, []string{"volume-type"}, func(w *world) {
			f := item(w, "pages-1")
			w.remove(f)
			if err := syscall.Mkfifo(f, 0o644); err != nil {
				w.t.Fatal(err)
			}
		}, "slip-2.txt", "volume-2"},
		{"two faults are both told", refused, []string{"volume-extra", "item-digest", "volume-missing"}, func(w *world) {
			write(w.t, w.path("volume-2", "more"), nil, 0o644)
			w.flip(item(w, "pages-1"))
			w.remove(item(w, ".drv"))
		}, "slip-2.txt", "volume-2"},
		{"a nar that claims 2^63 bytes", refused, []string{"nar-size"}, huge(1 << 63), "slip-crafted", "volume-crafted"},
		{"a nar that claims 2^63-1 bytes", refused, []string{"nar-size"}, huge(1<<63 - 1), "slip-crafted", "volume-crafted"},
		{"a nar that claims 1 TB", refused, []string{"nar-truncated"}, huge(1 << 40), "slip-crafted", "volume-crafted"},
		{"a name that claims 2^62 bytes", refused, []string{"nar-length"}, func(w *world) {
			nar := append(words("nix-archive-1", "(", "type", "directory", "entry", "(", "name"), binary.LittleEndian.AppendUint64(nil, 1<<62)...)
			it, content := source(w.t, "huge", append(nar, "name"...))
			w.craft(3, "volume-crafted", "slip-crafted", goods(it, content))
		}, "slip-crafted", "volume-crafted"},
		{"a source under another content's name", refused, []string{"item-path"}, func(w *world) {
			it, _ := source(w.t, "false", narOf(w.t, "true\n"))
			_, content := source(w.t, "false", narOf(w.t, "fals\n"))
			it.SHA256 = trust.Sum(narOf(w.t, "fals\n"))
			w.craft(3, "volume-crafted", "slip-crafted", goods(it, content))
		}, "slip-crafted", "volume-crafted"},
		{"a derivation that is none", refused, []string{"drv-"}, func(w *world) {
			it, content := source(w.t, "x.drv", []byte(`Derive([("out","/gnu/store`))
			it.Kind = trust.KindDerivation
			w.craft(3, "volume-crafted", "slip-crafted", goods(it, content))
		}, "slip-crafted", "volume-crafted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: base.dir, keys: base.keys}
			for _, d := range []string{"volume-2", "volume-crafted", "slip-crafted"} {
				w.remove(w.path(d))
			}
			w.take(template, "volume-2")
			tt.make(w)
			r := w.code(tt.code, append(w.importOf(tt.slip, tt.volume), "--json")...)
			got := append(reasons(t, r), string(r.stderr))
			for _, want := range tt.wants {
				if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) || strings.Contains(string(r.stderr), want) }) {
					t.Errorf("not said: %s: %v", want, r)
				}
			}
			if r.peak > maxPeak {
				t.Errorf("%d MB of memory", r.peak>>20)
			}
			if after := w.kept(); after != before {
				t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
	base.tidy()
	base.sound()
	base.remove(base.path("volume-2"))
	base.take(template, "volume-2")
	base.must(base.importArgs(2)...)
	base.tidy()
}

func (w *world) mkdir(name string) {
	w.t.Helper()
	if err := os.MkdirAll(w.path(name), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) cut(file string, size int64) {
	w.t.Helper()
	if err := os.Truncate(file, size); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) remove(path string) {
	w.t.Helper()
	if err := os.RemoveAll(path); err != nil {
		w.t.Fatal(err)
	}
}

// flip changes one bit in the middle of a file.
func (w *world) flip(file string) {
	w.t.Helper()
	data := read(w.t, file)
	data[len(data)/2] ^= 1
	write(w.t, file, data, 0o644)
}

// TestNoSpaceBefore: what cannot fit is said before anything is read.
func TestNoSpaceBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	write(t, w.path("inside", "zone.toml"), append(read(t, w.path("inside", "zone.toml")), fmt.Sprintf("\n[space]\nreserve = %d\n", int64(1)<<60)...), 0o644)
	before := w.kept()
	r := w.code(failed, w.importArgs(2)...)
	if !strings.Contains(string(r.stderr), "space.reserve") || !strings.Contains(string(r.stderr), "missing") {
		t.Errorf("it does not say what is missing: %v", r)
	}
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	w.sound()
}

// TestNoSpaceWithin runs TestOnFullDisk with a small file system of its own.
func TestNoSpaceWithin(t *testing.T) {
	t.Parallel()
	admitted(t)
	onSmallDisk(t, "TestOnFullDisk", "a full disk")
}

// TestOnFullDisk imports while the disk fills up, at ever later moments.
func TestOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t, "TestNoSpaceWithin", "a full disk", 64<<20)
	full, whole := 0, 0
	// Beyond the items themselves: nothing, the first pages of the catalog's log, ..., enough.
	amounts := []int64{-1 << 20, 0, 40 << 10, 56 << 10, 72 << 10, 88 << 10, 104 << 10, 4 << 20}
	if testing.Short() {
		amounts = []int64{-1 << 20, 40 << 10, 56 << 10, 104 << 10, 4 << 20}
	}
	for i, more := range amounts {
		w := &world{t: t, dir: disk.path(fmt.Sprint(i)), keys: filepath.Join(shareDir, "keys")}
		w.take(filepath.Join(shareDir, "admitted"), "inside", "volume-2", "slip-2.txt", "volume-1")
		write(t, w.path("inside", "zone.toml"), append(read(t, w.path("inside", "zone.toml")), "\n[space]\nreserve = 0\n"...), 0o644)
		before := w.kept()
		var need int64
		for _, it := range w.items(2) {
			need += it.Size
		}
		disk.fill(need + more)
		r := w.run(append(w.importArgs(2), "--json")...)
		disk.empty()
		t.Logf("%d bytes more than needed: exit code %d: %.300s", more, r.code, r.stderr)
		switch r.code {
		case failed:
			full++
			if s := strings.ToLower(string(r.stderr)); !strings.Contains(s, "space") && !strings.Contains(s, "full") && !strings.Contains(s, "missing") {
				t.Errorf("it does not say that the disk is full: %v", r)
			}
			if strings.Contains(string(r.stderr), "not yet published") {
				break // it is quarantined, and the next opening publishes it
			}
			if after := w.kept(); after != before {
				t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
			}
			w.tidy()
		case done:
			whole++
		default:
			t.Errorf("a full disk is a failure, exit code 1: %v", r)
		}
		w.sound()
		if r.code != done {
			w.again("shipment-replayed", w.importArgs(2)...)
		}
		w.tidy()
		w.sound()
		if n := w.kinds("inside")["imported"]; n != 2 {
			t.Errorf("%d entries \"imported\", want 2", n)
		}
		w.remove(w.dir)
		if t.Failed() {
			t.FailNow()
		}
	}
	if full < 3 || whole == 0 {
		t.Errorf("%d imports met a full disk and %d did not: the amounts do not fit any more", full, whole)
	}
}
