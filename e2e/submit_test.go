package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/enclavetest"
)

// submitted is the command by which a person brings a commit in.
func (w *world) channelSubmit(c *enclavetest.Channel, person string, commit git.ID, more ...string) []string {
	w.t.Helper()
	dir, _ := c.Repository()
	return append([]string{station, "channel", "submit", "--zone", "inside", "--repository", dir, "--key", w.key(person + "/statement"), "--commit", commit.String(), c.Name}, more...)
}

// approveOwn is how a reviewer approves a submission.
func (w *world) approveOwn(name, person string) []string {
	return []string{station, "review", "approve", "--zone", "inside", "--track", track, "--key", w.key(person + "/allowlist"), name}
}

func (w *world) admitOwn(name string) {
	w.t.Helper()
	w.must(w.approveOwn(name, "alice")...)
	w.must(w.approveOwn(name, "bob")...)
}

// TestSubmission follows the enclave's own channel from a repository inside to the host, with a shipment between, and no outside at all.
func TestSubmission(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	c := enclavetest.NewChannel(t, "ours", 12)
	w.refuses("channel-unknown", w.channelSubmit(c, "dave", c.Ends[3])...)
	w.takeChannel(c)
	before := w.kept()
	for _, lie := range []struct {
		code   string
		commit git.ID
	}{
		{"commit-unsigned", c.Commit(channeltest.Spec{Same: "unsigned", Parents: []git.ID{c.Ends[3]}, At: 1700000001})},
		{"key-unauthorized", c.Commit(channeltest.Spec{Same: "stranger", Parents: []git.ID{c.Ends[3]}, Signer: c.C, At: 1700000002})},
		{"inspection-block", c.Add(map[string]string{"login.scm": "(if root) ; \u202e then\n"}, c.Ends[3])},
	} {
		w.refuses(lie.code, w.channelSubmit(c, "dave", lie.commit)...)
		if after := w.kept(); after != before {
			t.Fatalf("%s: something changed:\n%s\nbefore:\n%s", lie.code, after, before)
		}
	}
	w.refuses("key-context", station, "channel", "submit", "--zone", "inside", "--repository", ".", "--key", w.key("alice/allowlist"), "ours")

	var own struct {
		Submission int64
		Before     bool
		Basis      string
		Item       string
	}
	w.get(&own, append(w.channelSubmit(c, "dave", c.Ends[3]), "--json")...)
	if own.Submission != 1 || own.Before || own.Basis != "-" {
		t.Errorf("%+v", own)
	}
	first := own.Item
	// The same again is an answer, and no entry.
	entries := len(w.entries("inside"))
	if s := string(w.must(w.channelSubmit(c, "dave", c.Ends[3])...).stdout); !strings.Contains(s, "is here already, with own-1, which is quarantined") {
		t.Errorf("%s", s)
	}
	if n := len(w.entries("inside")); n != entries {
		t.Errorf("%d entries, %d before", n, entries)
	}
	show := string(w.must(station, "review", "show", "--zone", "inside", "own-1").stdout)
	for _, want := range []string{"own-1, quarantined", "submitted by dave", "no track has this channel yet", "commits from there to " + c.Ends[3].String() + " are authentic"} {
		if !strings.Contains(show, want) {
			t.Errorf("no %q in\n%s", want, show)
		}
	}
	// Two doors: dave is a reviewer, too.
	w.refuses("separation-of-duties", w.approveOwn("own-1", "dave")...)
	w.refuses("separation-of-duties", station, "review", "reject", "--zone", "inside", "--key", w.key("dave/allowlist"), "--reason", "x", "own-1")
	w.refuses("class-submission", append(w.approveOwn("own-1", "alice"), "--class", "kind=channel")...)
	w.code(usage, w.approveOwn("own-0", "alice")...)
	w.admitOwn("own-1")

	// A shipment comes between, numbers 10 and 2, as ever; it brings what stands on what was submitted.
	w.must(w.bring(10, c.At(c.Ends[4], c.Ends[3]))...)
	w.must(w.approveArgs(10, "alice")...)
	w.must(w.approveArgs(10, "bob")...)
	series := string(w.must(station, "shipment", "series", "--zone", "inside").stdout)
	if strings.Contains(series, "own") || strings.Contains(series, "submitted") {
		t.Errorf("%s", series)
	}
	// What is submitted then stands on what the shipment brought.
	w.get(&own, append(w.channelSubmit(c, "dave", c.Ends[5]), "--json")...)
	if own.Submission != 2 || own.Basis != c.Ends[4].String() {
		t.Errorf("%+v", own)
	}
	w.admitOwn("own-2")
	w.refuses("channel-not-forward", w.channelSubmit(c, "dave", c.Ends[2])...)
	// One that is rejected can be submitted again, under the next number.
	next := c.Add(map[string]string{"hello.scm": "(define-module (hello))\n"}, c.Ends[5])
	w.must(w.channelSubmit(c, "dave", next)...)
	w.must(station, "review", "reject", "--zone", "inside", "--key", w.key("alice/allowlist"), "--reason", "once more, please", "own-3")
	w.refuses("shipment-rejected", w.approveOwn("own-3", "alice")...)
	w.get(&own, append(w.channelSubmit(c, "dave", next), "--json")...)
	if own.Submission != 4 || own.Before {
		t.Errorf("%+v", own)
	}
	w.admitOwn("own-4")

	list := string(w.must(station, "review", "list", "--zone", "inside").stdout)
	for _, want := range []string{"own-1  admitted", "own-2  admitted", "own-3  rejected", "own-4  admitted"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if n := len(lines[entry](t, w.must(station, "ledger", "show", "--json", "--zone", "inside", "--submission", "3"))); n != 4 { // inspected, submitted, declined, refused
		t.Errorf("%d entries about own-3", n)
	}
	w.tidy()
	w.sound()

	// It is served to whoever clones.
	commits := w.served(c.Name, next)
	if !strings.Contains(commits, next.String()) || !strings.Contains(commits, c.Ends[3].String()) {
		t.Errorf("%s", commits)
	}
	// What is published and the blobs are enough: the catalog made anew is the same.
	outcome, was := w.outcome(), list
	w.must(station, "catalog", "rebuild", "--zone", "inside")
	if now := w.outcome(); !strings.HasPrefix(now, outcome) {
		t.Errorf("after a rebuild:\n%s\nbefore:\n%s", now, outcome)
	}
	if now := string(w.must(station, "review", "list", "--zone", "inside").stdout); now != was {
		t.Errorf("after a rebuild:\n%s\nbefore:\n%s", now, was)
	}
	w.sound()
	// And so is a restored zone.
	w.must(station, "backup", "create", "--zone", "inside", "--quiet", "--with-keys", "backup.tar")
	log := strings.TrimSpace(string(read(t, w.path("inside", "keys", "ledger.vkey"))))
	w.must(station, "backup", "verify", "--log", log, "backup.tar")
	if err := os.Rename(w.path("inside"), w.path("dead")); err != nil {
		t.Fatal(err)
	}
	w.must(station, "backup", "restore", "--log", log, "--public", "dead/public", "backup.tar", "inside")
	if now := string(w.must(station, "review", "list", "--zone", "inside").stdout); now != was {
		t.Errorf("after a restore:\n%s\nbefore:\n%s", now, was)
	}
	w.sound()
	// A recall takes it out like any other.
	w.order(w.recall(first)...)
	if s := string(w.must(station, "channel", "list", "--zone", "inside", "--all").stdout); !strings.Contains(s, "RECALLED") {
		t.Errorf("%s", s)
	}
	w.sound()
}

// served starts a channel host, clones from it, and returns the commits of the clone.
func (w *world) served(name string, tip git.ID) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	p := w.start(station, "channel", "serve", "--zone", "inside", "--root", w.fingerprint(), "--track", track, "--listen", address)
	defer func() {
		p.cmd.Process.Signal(os.Interrupt)
		w.wait(p)
	}()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if r, err := http.Get("http://" + address + "/" + track + "/channels.scm"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				break
			}
		}
	}
	clone := w.path("clone")
	cmd := exec.Command("git", "clone", "-q", "http://"+address+"/git/"+name, clone)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "HOME="+w.dir, "GIT_TERMINAL_PROMPT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("clone: %v\n%s\n%s", err, out, p.stderr.String())
	}
	out, err := exec.Command("git", "-C", clone, "log", "--format=%H", tip.String()).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestSubmissionKilled: a submission, and the approval of it, are killed at any moment and made again: the end is the same.
func TestSubmissionKilled(t *testing.T) {
	t.Parallel()
	c := enclavetest.NewChannel(t, "ours", 12)
	base := newWorld(t, governed(t), "inside")
	base.takeChannel(c)
	begin := func() (*world, []string) {
		w := newWorld(t, governed(t))
		copyTree(t, base.path("inside"), w.path("inside"))
		return w, w.channelSubmit(c, "dave", c.Ends[5])
	}
	twin, args := begin()
	took := twin.must(args...).took
	approval := twin.must(twin.approveOwn("own-1", "alice")...).took
	twin.must(twin.approveOwn("own-1", "bob")...)
	// Git may pack the same objects in another way: digests are no part of what is compared.
	counted := func(w *world) string {
		db := catalog(t, w.path("inside"))
		return fmt.Sprint(query(t, db, `SELECT number || state || importer || items FROM shipment WHERE number < 0 ORDER BY 1`),
			query(t, db, `SELECT number || severity || rule || place || count FROM finding WHERE number < 0 ORDER BY 1`), query(t, db, `SELECT count(*) FROM item`), len(w.allowed(2)))
	}
	want := counted(twin)
	h := newHunt(t, kills(), took, approval)
	moments := []string{"inside/tmp/scratch-*/item", "inside/tmp/scratch-*/pack-*", "inside/pending/import", "inside/tmp/scratch-*/ours.git/objects/pack/*.pack", "inside/channels/ours.git"}
	for i := 0; h.more(); i++ {
		w, args := begin()
		if i < len(moments) {
			w.killAt(moments[i], args...)
		} else {
			h.kill(w, 0, args...)
		}
		gone(t, filepath.Join(binDir, "sallyport-reader"))
		w.must(args...)
		if i%2 == 0 {
			h.kill(w, 1, w.approveOwn("own-1", "alice")...)
		}
		w.must(w.approveOwn("own-1", "alice")...)
		w.must(w.approveOwn("own-1", "bob")...)
		if got := counted(w); got != want {
			t.Errorf("%v:\n%s\nwant:\n%s", h, got, want)
		}
		if n := w.kinds("inside"); n["submitted"] != 1 || n["inspected"] != 2 || n["refused"] != 0 {
			t.Errorf("%v: %v", h, n)
		}
		w.tidy()
		w.sound()
		if t.Failed() {
			t.FailNow()
		}
	}
}

// TestSubmissionForged: root on the station, who has its keys, makes a history with submissions that was not. The auditor's program tells.
func TestSubmissionForged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	c := enclavetest.NewChannel(t, "ours", 12)
	w.takeChannel(c)
	w.must(w.channelSubmit(c, "dave", c.Ends[3])...)
	w.admitOwn("own-1")
	w.sound()
	// Who edits an entry where it lies is told by the tree.
	dir := w.path("inside", "public", "ledger", "tile", "entries")
	edited := 0
	for _, f := range files(t, dir) {
		path := filepath.Join(dir, f)
		data, n := editPayloads(read(t, path), c.Ends[3].String(), c.Ends[4].String())
		if n > 0 {
			edited += n
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			write(t, path, data, 0o644)
		}
	}
	if edited == 0 {
		t.Fatal("nothing was edited")
	}
	r := w.code(refused, verifier, "enclave", "--json", "--root", w.fingerprint(), "inside/public")
	if s := string(r.stdout) + string(r.stderr); !strings.Contains(s, "ledger-entry") || !strings.Contains(s, "statement-predicate") {
		t.Errorf("%v", r)
	}
	// A row for a submission that nobody made is worth nothing.
	v := newWorld(t, governed(t), "inside")
	v.takeChannel(c)
	v.must(v.channelSubmit(c, "dave", c.Ends[3])...)
	var shown struct{ Manifest string }
	if err := json.Unmarshal(v.must(station, "review", "show", "--zone", "inside", "--json", "own-1").stdout, &shown); err != nil {
		t.Fatal(err)
	}
	edit(t, catalog(t, v.path("inside")), `INSERT INTO shipment SELECT -2, manifest, state, 'erin', date, items, bytes FROM shipment WHERE number = -1`)
	v.refuses("not-submitted", v.approveOwn("own-2", "dave")...)
}
