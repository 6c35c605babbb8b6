package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// bring makes volume and slip NAME-N of channels' items, whatever is in them.
func (w *world) bring(n int64, contents ...enclavetest.Content) []string {
	w.t.Helper()
	items := map[trust.Item]func() io.Reader{}
	for _, c := range contents {
		items[c.Item] = func() io.Reader { return bytes.NewReader(c.Data) }
	}
	volume, slip := fmt.Sprintf("channel-volume-%d", n), fmt.Sprintf("channel-slip-%d.txt", n)
	w.craft(n, volume, slip, items)
	return w.importOf(slip, volume)
}

// takeChannel has officers order a channel as its makers print it.
func (w *world) takeChannel(c *enclavetest.Channel) {
	w.t.Helper()
	o := c.Order(enclavetest.Epoch)
	w.order("order", "channel", "--reason", "introduction read from the manual, page 71", o.Name, o.URL, o.Branch, o.Commit, fmt.Sprintf("%s %s", strings.ToLower(o.Signer[:20]), o.Signer[20:]))
}

// TestChannelInside follows a channel from the volume to the tracks: nothing of it counts that the outside says, and tracks only move forward.
func TestChannelInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	c := enclavetest.NewChannel(t, "guix", 12)
	first := c.At(c.Ends[3], git.ID{})
	approveBoth := func(n int) {
		t.Helper()
		w.must(w.approveArgs(n, "alice")...)
		w.must(w.approveArgs(n, "bob")...)
	}
	one := w.bring(10, first)
	w.refuses("channel-unknown", one...)
	w.takeChannel(c)
	if s := string(w.must(station, "order", "show", "--zone", "inside").stdout); !strings.Contains(s, "channel guix is taken from https://forge.example/guix.git, branch master") {
		t.Errorf("%s", s)
	}
	w.must(one...)
	show := string(w.must(station, "review", "show", "--zone", "inside", "10").stdout)
	for _, want := range []string{"no track has this channel yet", "commits from there to " + c.Ends[3].String() + " are authentic", "channel-authentic"} {
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	approveBoth(10)
	w.must(w.signArgs()...)
	d := w.depot()
	// The item is a source like another, for whoever asks.
	if r := w.reason(d, first.Name, w.acl()); r != "" {
		t.Errorf("not served: %s", r)
	}
	d.stop()

	// A finding about what is new refuses, until officers excuse it.
	next := c.At(c.Ends[6], c.Ends[3])
	two := w.bring(20, next)
	w.refuses("malformed-headers", two...)
	w.order("order", "excuse", "--reason", "seen by two of us", "--days", "20", "--commit", c.Ends[6].String(), "odd-header", "malformed-headers", "guix")
	w.must(two...)
	show = string(w.must(station, "review", "show", "--zone", "inside", "20").stdout)
	for _, want := range []string{"EXCUSED by odd-header, orders version 2", "track dev stands at another commit", "from " + c.Ends[3].String()} {
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	approveBoth(20)
	w.must(w.promoteArgs("alice")...)
	w.must(w.promoteArgs("bob")...)

	// Back only by order.
	back := w.bring(30, c.At(c.Ends[4], git.ID{}))
	w.refuses("channel-not-forward", back...)
	w.order("order", "downgrade", "--reason", "it does not boot", "guix", c.Ends[4].String())
	w.must(back...)
	approveBoth(30)

	// Who may sign is in capitals.
	signers := c.List(c.A, c.C)
	changed := c.Add(map[string]string{".guix-authorizations": signers}, c.Ends[4])
	changed = c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": signers, "x": "1"})...), Parents: []git.ID{changed}, Signer: c.C, At: 1700001000})
	w.order("order", "downgrade", "--reason", "the other line, for prod", "guix", changed.String())
	w.must(w.bring(40, c.At(changed, c.Ends[4]))...)
	show = string(w.must(station, "review", "show", "--zone", "inside", "40").stdout)
	for _, want := range []string{"AUTHORIZATIONS CHANGED", "NEW SIGNER", "NOT FORWARD"} { // the last for prod, which did not go back
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	// The channel is taken from elsewhere now: what has the old introduction is not approved any more.
	w.order("order", "channel", "--reason", "moved", "guix", "https://elsewhere.example/guix.git", "master", c.History.Introduction.String(), fmt.Sprintf("%X", c.History.Signer[:]))
	w.refuses("channel-url", w.approveArgs(40, "alice")...)
	// What was excused of this introduction's commits stays excused, and no other introduction's commits are.
	excused := func() bool {
		t.Helper()
		return strings.Contains(string(w.must(station, "order", "show", "--zone", "inside").stdout), "odd-header")
	}
	if !excused() {
		t.Error("an excuse ended with the URL alone")
	}
	w.order("order", "channel", "--reason", "begun anew", "guix", "https://elsewhere.example/guix.git", "master", c.Ends[5].String(), fmt.Sprintf("%X", c.History.Signer[:]))
	if excused() {
		t.Error("an excuse outlived the introduction for whose commits it was given")
	}
	w.order("order", "excuse", "--reason", "seen by two of us", "--days", "20", "odd-header", "malformed-headers", "guix")
	w.order("order", "channel", "--remove", "guix")
	w.refuses("channel-unknown", w.approveArgs(40, "alice")...)
	if excused() {
		t.Error("an excuse outlived its channel")
	}
	// A pin that is recalled is none: prod stands at the one before.
	w.order(w.recall(next.Name)...)
	list := string(w.must(station, "channel", "list", "--zone", "inside", "--all").stdout)
	if !strings.Contains(list, "RECALLED") {
		t.Errorf("%s", list)
	}
	for line := range strings.Lines(string(w.must(station, "channel", "list", "--zone", "inside").stdout)) {
		want := c.Ends[4]
		if strings.Contains(line, "prod") {
			want = c.Ends[3]
		}
		if !strings.Contains(line, want.String()) {
			t.Errorf("want %s: %s", want, line)
		}
	}
	w.tidy()
	w.sound()
}

// TestChannelLies: the outside has pinned what nobody should pin. Each lie is refused for what it is, and leaves nothing.
func TestChannelLies(t *testing.T) {
	t.Parallel()
	c := enclavetest.NewChannel(t, "guix", 12)
	unsigned := c.Commit(channeltest.Spec{Same: "unsigned", Parents: []git.ID{c.Ends[3]}, At: 1700000001})
	stranger := c.Commit(channeltest.Spec{Same: "stranger", Parents: []git.ID{c.Ends[3]}, Signer: c.C, At: 1700000002})
	laundered := c.Commit(channeltest.Spec{Same: "merge", Parents: []git.ID{c.Ends[3], stranger}, Signer: c.A, At: 1700000003})
	trojan := c.Add(map[string]string{"gnu/packages/login.scm": "(if (access \"root\") ; \u202e then\n"}, c.Ends[3])
	pinned := func(commit git.ID, change func(p *pin.Pin)) enclavetest.Content {
		p := c.Pin(commit, git.ID{})
		if change != nil {
			change(p)
		}
		return c.Item(p)
	}
	w := newWorld(t, governed(t), "inside")
	w.takeChannel(c)
	before := w.kept()
	for i, lie := range []struct {
		code string
		item enclavetest.Content
	}{
		{"commit-unsigned", pinned(unsigned, nil)},
		{"key-unauthorized", pinned(laundered, nil)},
		{"channel-introduction", pinned(c.Ends[5], func(p *pin.Pin) { p.Introduction = c.Ends[1] })},
		{"channel-url", pinned(c.Ends[5], func(p *pin.Pin) { p.URL = "https://evil.example/guix.git" })},
		{"channel-branch", pinned(c.Ends[5], func(p *pin.Pin) { p.Branch = "core-updates" })},
		{"channel-nar", pinned(c.Ends[5], func(p *pin.Pin) { p.NarHash[5] ^= 1 })},
		{"channel-basis", c.At(c.Ends[6], c.Ends[5])},
		{"inspection-block", pinned(trojan, nil)},
	} {
		w.refuses(lie.code, w.bring(int64(10*i+10), lie.item)...)
		if after := w.kept(); after != before {
			t.Fatalf("%s: something changed:\n%s\nbefore:\n%s", lie.code, after, before)
		}
		if left := files(t, w.path("inside", "channels")); len(left) > 0 {
			t.Errorf("%s: left behind: %q", lie.code, left)
		}
	}
	w.tidy()
	w.sound()
	// After all of that an honest pin still comes in.
	w.must(w.bring(500, pinned(c.Ends[5], nil))...)
}

// TestChannelKilled: an import that unpacks, judges and moves repositories, and the approval of what it brought, are killed at any moment, and run again.
func TestChannelKilled(t *testing.T) {
	t.Parallel()
	rnd := dice(t)
	c := enclavetest.NewChannel(t, "guix", 12)
	base := newWorld(t, governed(t), "inside")
	base.takeChannel(c)
	first, second := c.At(c.Ends[3], git.ID{}), c.At(c.Ends[5], c.Ends[3])
	begin := func() (*world, []string) {
		w := newWorld(t, governed(t))
		copyTree(t, base.path("inside"), w.path("inside"))
		return w, w.bring(10, first, second)
	}
	twin, args := begin()
	took := twin.must(args...).took
	approval := twin.must(twin.approveArgs(10, "alice")...).took
	twin.must(twin.approveArgs(10, "bob")...)
	want := twin.outcome()
	moments := []string{"inside/tmp/scratch-*/guix.git/unpack", "inside/tmp/scratch-*/guix.git/objects/pack/*.pack", "inside/tmp/scratch-*/guix.git/packed-refs", "inside/channels", "inside/channels/guix.git/objects/pack/*.pack", "inside/channels/guix.git/items"}
	for i := range len(moments) + kills() {
		w, args := begin()
		if i < len(moments) {
			w.killAt(moments[i], args...)
		} else {
			w.kill(time.Duration(rnd.Int64N(int64(took))), args...)
		}
		refusals, _ := w.again("shipment-replayed", args...)
		if i%2 == 0 {
			w.kill(time.Duration(rnd.Int64N(int64(approval))), w.approveArgs(10, "alice")...)
		}
		w.must(w.approveArgs(10, "alice")...)
		w.must(w.approveArgs(10, "bob")...)
		w.like(want, map[string]int{"imported": 2, "inspected": 2, "refused": refusals, "allowed": 2})
		// Whatever is left of the copy, it can be used, or made again.
		if s := string(w.must(station, "review", "show", "--zone", "inside", "10").stdout); !strings.Contains(s, "commits from there to "+c.Ends[5].String()+" are authentic") {
			t.Errorf("%s", s)
		}
		w.tidy()
		w.sound()
		if t.Failed() {
			t.FailNow()
		}
	}
}

// TestChannelNoSpace runs TestChannelOnFullDisk with a small file system of its own.
func TestChannelNoSpace(t *testing.T) {
	t.Parallel()
	enclavetest.NewChannel(t, "guix", 1) // skips where git is missing
	governed(t)
	onSmallDisk(t, "TestChannelOnFullDisk", "a channel on a full disk")
}

// TestChannelOnFullDisk imports a channel while git fills the disk: a small bundle stands on large files, which unpacking puts beside it.
func TestChannelOnFullDisk(t *testing.T) {
	t.Parallel()
	disk := newSmallDisk(t, "TestChannelNoSpace", "a channel on a full disk", 128<<20)
	c := enclavetest.NewChannel(t, "guix", 5)
	var large bytes.Buffer
	for x := sha256.Sum256([]byte("large")); large.Len() < 12<<20; x = sha256.Sum256(x[:]) {
		fmt.Fprintf(&large, "%x\n", x)
	}
	before := c.Add(map[string]string{"large.scm": large.String()}, c.Ends[4])
	after := c.Add(map[string]string{"large.scm": large.String() + ";; more\n"}, before)
	first, second := c.At(before, git.ID{}), c.At(after, before)
	if first.Size < 5<<20 || second.Size > 1<<20 {
		t.Fatalf("the bundles have %d and %d bytes", first.Size, second.Size)
	}
	w := &world{t: t, dir: disk.path("w"), keys: filepath.Join(shareDir, "keys")}
	w.take(filepath.Join(shareDir, "governed"), "inside")
	write(t, w.path("inside", "zone.toml"), append(read(t, w.path("inside", "zone.toml")), "\n[space]\nreserve = 0\n"...), 0o644)
	w.takeChannel(c)
	args := w.bring(10, first)
	full := func(free int64, args []string) {
		t.Helper()
		kept := w.kept()
		had := files(t, w.path("inside", "channels"))
		disk.fill(free)
		r := w.code(failed, args...)
		disk.empty()
		t.Logf("%d bytes free: %s", free, r.stderr)
		if s := strings.ToLower(string(r.stderr)); !strings.Contains(s, "space") && !strings.Contains(s, "missing") {
			t.Errorf("it does not say that the disk is full: %v", r)
		}
		if now := w.kept(); now != kept {
			t.Errorf("something changed:\n%s\nbefore:\n%s", now, kept)
		}
		if now := files(t, w.path("inside", "channels")); !slices.Equal(now, had) {
			t.Errorf("channels: %q, before %q", now, had)
		}
		w.tidy()
		w.sound()
	}
	full(first.Size-1000, args)    // before anything is read
	full(2*first.Size+1<<20, args) // before it is unpacked
	w.must(args...)
	full(4<<20, w.bring(20, second)) // git itself
	w.must(w.importOf("channel-slip-20.txt", "channel-volume-20")...)
	// A submission: before it is packed, and while it is.
	own := w.channelSubmit(c, "dave", c.Add(map[string]string{"large.scm": ";; less\n" + large.String()}, after))
	full(1<<20, own)
	full(first.Size+4<<20, own)
	w.must(own...)
	w.tidy()
}

// TestChannelReal measures the import of a real channel, complete, where the environment says that a mirror of it lies (a bare repository with the branch keyring).
func TestChannelReal(t *testing.T) {
	const variable = "SALLYPORT_E2E_NONGUIX"
	dir := os.Getenv(variable)
	if dir == "" {
		t.Skipf("NOT MEASURED: the import of a real channel: name a mirror of nonguix in %s", variable)
	}
	repo, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	p := &pin.Pin{Channel: "nonguix", URL: "https://forge.example/nonguix", Branch: "master"}
	for id, text := range map[*git.ID]string{&p.Introduction: "897c1a470da759236cc11798f4e0a5f7d4d59fbc", &p.Commit: "caa8c0b4646b993537be13c9bc819b3df68ab9b2"} {
		if *id, err = git.ParseID(text); err != nil {
			t.Fatal(err)
		}
	}
	signer, err := hex.DecodeString("2A393FFF68F4EF7A3D2912AF6F5120A022FBB2D5")
	if err != nil {
		t.Fatal(err)
	}
	copy(p.Signer[:], signer)
	if p.Keyring, err = repo.Branch("keyring"); err != nil {
		t.Fatal(err)
	}
	measureChannel(t, repo, p)
}

// TestChannelLarge measures the import of a channel with the files of the Guix channel and much that does not compress beside them. The history is a short one.
func TestChannelLarge(t *testing.T) {
	const variable = "SALLYPORT_E2E_GUIX"
	dir := os.Getenv(variable)
	if dir == "" {
		t.Skipf("NOT MEASURED: the import of a large channel: name a mirror of guix, which need not have its largest files, in %s", variable)
	}
	guix, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer guix.Close()
	c := enclavetest.NewChannel(t, "large", 5)
	reader := guix.Database().NewReader()
	get := func(id git.ID, kind git.Kind) []byte {
		data, err := reader.Read(id, kind)
		if err != nil && !git.IsMissing(err) {
			t.Fatal(err)
		}
		return bytes.Clone(data)
	}
	var copied func(id git.ID, top bool) git.ID
	copied = func(id git.ID, top bool) git.ID {
		var entries []channeltest.Entry
		for e, err := range git.Entries(get(id, git.KindTree)) {
			if err != nil {
				t.Fatal(err)
			}
			name := string(e.Name)
			if top && name == ".guix-authorizations" {
				continue
			}
			if e.IsTree() {
				entries = append(entries, channeltest.Entry{Mode: e.Mode, Name: name, ID: copied(e.ID, false)})
			} else if data := get(e.ID, git.KindBlob); data != nil {
				entries = append(entries, channeltest.Entry{Mode: e.Mode, Name: name, ID: c.Put(git.KindBlob, data)})
			}
		}
		if top {
			entries = append(entries, c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.B, c.R)})...)
			noise := make([]byte, 4<<20)
			var more []channeltest.Entry
			for i := range 75 {
				for j := 0; j < len(noise); j += sha256.Size {
					x := sha256.Sum256(fmt.Appendf(nil, "%d %d", i, j))
					copy(noise[j:], x[:])
				}
				more = append(more, channeltest.Entry{Mode: git.ModeFile, Name: fmt.Sprintf("noise-%02d.png", i), ID: c.Put(git.KindBlob, noise)})
			}
			entries = append(entries, channeltest.Entry{Mode: git.ModeTree, Name: "noise", ID: c.Tree(more...)})
		}
		return c.Tree(entries...)
	}
	end, err := guix.Commit("master")
	if err != nil {
		t.Fatal(err)
	}
	commit, err := git.ParseCommit(get(end, git.KindCommit))
	if err != nil {
		t.Fatal(err)
	}
	large := c.Commit(channeltest.Spec{Tree: copied(commit.Tree, true), Parents: []git.ID{c.Ends[4]}, Signer: c.A, At: 1700000000})
	_, repo := c.Repository()
	o := c.Order(enclavetest.Epoch)
	measureChannel(t, repo, &pin.Pin{Channel: o.Name, URL: o.URL, Branch: o.Branch, Introduction: c.History.Introduction, Signer: c.History.Signer, Keyring: c.Keyring, Commit: large})
}

// measureChannel imports, shows and approves a channel, complete.
func measureChannel(t *testing.T, repo *authenticate.Repository, p *pin.Pin) {
	h := sha256.New()
	n := &countingWriter{w: h}
	if err := repo.Nar(t.Context(), p.Commit, n); err != nil {
		t.Fatal(err)
	}
	h.Sum(p.NarHash[:0])
	p.NarSize = n.n
	g, err := gitrun.Find(t.Context(), os.Getenv("PATH"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, governed(t), "inside")
	file, err := os.Create(w.path("item"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	h.Reset()
	n = &countingWriter{w: io.MultiWriter(h, file)}
	if err := pin.Create(t.Context(), g, repo, w.dir, p, git.ID{}, n); err != nil {
		t.Fatal(err)
	}
	it := trust.Item{Kind: trust.KindChannel, Size: n.n}
	h.Sum(it.SHA256[:0])
	if it.Name, err = p.ItemName(it.SHA256); err != nil {
		t.Fatal(err)
	}
	w.craft(10, "volume", "slip", map[trust.Item]func() io.Reader{it: func() io.Reader { return io.NewSectionReader(file, 0, it.Size) }})
	w.order("order", "channel", "--reason", "measured", p.Channel, p.URL, p.Branch, p.Introduction.String(), fmt.Sprintf("%X", p.Signer[:]))
	in := w.patient(w.importOf("slip", "volume")...)
	t.Logf("imported: item %d MB, checkout %d MB: %v, peak %d MB\n%s", it.Size>>20, p.NarSize>>20, in.took, in.peak>>20, in.stdout)
	show := w.patient(station, "review", "show", "--zone", "inside", "10")
	t.Logf("shown: %v, peak %d MB\n%.2000s", show.took, show.peak>>20, show.stdout)
	for _, who := range []string{"alice", "bob"} {
		approved := w.patient(w.approveArgs(10, who)...)
		t.Logf("approved by %s: %v, peak %d MB", who, approved.took, approved.peak>>20)
	}
	if in.peak > 1<<30 {
		t.Errorf("the import took %d MB of memory", in.peak>>20)
	}
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return c.w.Write(p)
}

// patient runs a command that must succeed, however long it takes.
func (w *world) patient(args ...string) *result {
	w.t.Helper()
	r := &result{args: args}
	cmd := w.command(context.Background(), args)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	// What the kernel says at the end counts what this large process had when it made a small one of itself. So it is asked on the way.
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-ended:
				return
			case <-time.After(20 * time.Millisecond):
				r.peak = max(r.peak, peakOf(cmd.Process.Pid))
			}
		}
	})
	err := cmd.Wait()
	close(ended)
	watch.Wait()
	r.took, r.code, r.stdout, r.stderr = time.Since(start), cmd.ProcessState.ExitCode(), stdout.Bytes(), stderr.Bytes()
	if err != nil {
		w.t.Fatalf("%v: %v", err, r)
	}
	return r
}

// peakOf is the peak of the resident memory of a process or of one below it, whichever is the largest.
func peakOf(pid int) int64 {
	var peak int64
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // it may have ended
	for line := range strings.Lines(string(status)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			peak = kb << 10
		}
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range tasks {
		children, _ := os.ReadFile(name)
		for _, child := range strings.Fields(string(children)) {
			var id int
			if n, _ := fmt.Sscan(child, &id); n == 1 {
				peak = max(peak, peakOf(id))
			}
		}
	}
	return peak
}
