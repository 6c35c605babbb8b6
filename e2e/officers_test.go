package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"sallyport/guix/signature"
)

// aclOf is what a client of a track has authorised: its key alone.
func (w *world) aclOf(track string) signature.ACL {
	w.t.Helper()
	k, err := signature.ParseSecretKey(read(w.t, w.key(track+"/narinfo")))
	if err != nil {
		w.t.Fatal(err)
	}
	return signature.NewACL(k.Public())
}

// order drafts, signs by two officers, and puts in force.
func (w *world) order(args ...string) {
	w.t.Helper()
	draft := w.draft(args...)
	w.officers("order", "order", draft)
	w.must(w.orderAccept(draft)...)
}

func (w *world) draft(args ...string) string {
	w.t.Helper()
	draft := fmt.Sprintf("orders-%d.draft", len(files(w.t, w.path("inside", "public", "orders")))+1)
	w.must(append(append([]string{station}, args...), "--zone", "inside", "--draft", draft)...)
	return draft
}

func (w *world) orderAccept(draft string) []string {
	return []string{station, "order", "accept", "--zone", "inside", draft}
}

func (w *world) recall(name string) []string {
	return []string{"recall", "--reason", "a back door", name}
}

// root drafts the next root with an edit, signs by two officers, and puts it in force.
func (w *world) root(args ...string) {
	w.t.Helper()
	draft := w.rootDraft(args...)
	w.officers("trust", "root", draft)
	w.must(station, "trust", "accept", "--zone", "inside", draft)
}

func (w *world) rootDraft(args ...string) string {
	w.t.Helper()
	draft := fmt.Sprintf("root-%d.draft", len(files(w.t, w.path("inside", "public", "root")))+1)
	w.must(append(append([]string{station, "trust"}, args...), "--zone", "inside", "--draft", draft)...)
	return draft
}

// reason is with which code a depot does not serve an item; "" if it does.
func (w *world) reason(d *depot, name string, acl signature.ACL) string {
	w.t.Helper()
	_, reason, err := fetch(d.url, name, acl)
	if err != nil {
		w.t.Error(err)
	}
	return reason
}

func (w *world) promoteArgs(person string) []string {
	return []string{station, "release", "promote", "--zone", "inside", "--from", track, "--to", "prod", "--all", "--key", w.key(person + "/allowlist")}
}

func (w *world) signProd() []string {
	return []string{station, "depot", "sign", "--zone", "inside", "--root", w.fingerprint(), "--track", "prod", "--track-key", w.key("prod/narinfo")}
}

// cosign carries a checkpoint to wilma and her cosignature back.
func (w *world) cosign() {
	w.t.Helper()
	log := strings.TrimSpace(string(read(w.t, w.path("inside", "keys", "ledger.vkey"))))
	for _, f := range []string{"for-wilma", "from-wilma"} {
		os.Remove(w.path(f))
	}
	w.must(station, "ledger", "witness", "export", "--zone", "inside", "--for", "wilma", "--out", "for-wilma")
	w.must(whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "wilma.state", "--log", log, "--out", "from-wilma", "for-wilma")
	w.must(station, "ledger", "witness", "add", "--zone", "inside", "from-wilma")
}

// TestRecall: what two officers recall is gone everywhere, at once, and for ever.
func TestRecall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	d := w.depot()
	src, drv := w.named(1, "words-1"), w.named(1, ".drv")
	w.builder("builder-1", "erin", d.url)
	w.must(w.buildArgs("builder-1", "result-1", drv.Name)...)
	if r := w.reason(d, src.Name, w.acl()); r != "" {
		t.Fatal(r)
	}
	res, err := client.Get(d.url + "/" + src.Name[:32] + ".narinfo")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	var age int
	if _, err := fmt.Sscanf(res.Header.Get("Cache-Control"), "max-age=%d", &age); err != nil || age > 300 {
		t.Errorf("Cache-Control %q: five minutes are the most", res.Header.Get("Cache-Control"))
	}
	// Before it is signed it shows what hangs on the item.
	r := w.must(station, "recall", "--zone", "inside", "--draft", "look.draft", "--reason", "a back door", src.Name)
	if !strings.Contains(string(r.stderr), drv.Name) || !strings.Contains(string(r.stderr), "dev 1") {
		t.Errorf("it does not show the derivation, or the release:\n%s", r.stderr)
	}
	w.order(w.recall(src.Name)...)
	// The depot was not started again.
	if r := w.reason(d, src.Name, w.acl()); r != "recalled" {
		t.Errorf("the depot says %q of a recalled item", r)
	}
	if _, reason, err := download(d.url + "/nar/" + src.Name); err != nil || reason != "recalled" {
		t.Errorf("its nar: %q %v", reason, err)
	}
	w.refuses("recalled", w.buildArgs("builder-1", "result-2", drv.Name)...)
	var signed struct{ Signed []string }
	w.get(&signed, w.signArgs()...)
	if len(signed.Signed) != 0 {
		t.Errorf("the signer signed %q", signed.Signed)
	}
	// It never comes back: not by another list, not by a later order.
	for _, p := range []string{"alice", "bob"} {
		w.must(station, "review", "resign", "--zone", "inside", "--track", track, "--key", w.key(p+"/allowlist"))
	}
	for _, l := range w.allowed(2) {
		if strings.HasSuffix(l, " "+src.Name) {
			t.Error("the next list names it")
		}
	}
	if r := w.reason(d, src.Name, w.acl()); r != "recalled" {
		t.Errorf("after the next list the depot says %q", r)
	}
	draft := w.draft("order", "lost", "--reason", "burnt", "77")
	text := string(read(t, w.path(draft)))
	i := strings.Index(text, "recall ")
	write(t, w.path("forged.draft"), []byte(text[:i]+text[i+strings.Index(text[i:], "\n")+1:]), 0o644)
	for _, o := range []string{"olga", "oscar"} {
		// Whoever signs is told, and refused.
		w.refuses("orders-dropped", station, "order", "sign", "--zone", "inside", "--key", w.key(o+"/order"), "--fingerprint", w.digest("forged.draft"), "forged.draft")
	}
	r = w.must(station, "recall", "status", "--zone", "inside")
	if !strings.Contains(string(r.stdout), src.Name) {
		t.Error(r)
	}
	w.sound()
}

// TestTracks: what is allowed on one track is not on another; prod waits for a witness.
func TestTracks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	src := w.named(1, "words-1")
	w.refuses("no-allowlist", w.signProd()...)
	w.refuses("separation-of-duties", w.promoteArgs("dave")...)
	for _, p := range []string{"alice", "rita"} {
		w.must(w.promoteArgs(p)...)
	}
	w.refuses("not-cosigned", w.signProd()...)
	w.cosign()
	w.must(w.signProd()...)
	prod := w.depotOf("prod")
	if r := w.reason(prod, src.Name, w.aclOf("prod")); r != "" {
		t.Error(r)
	}
	// A client of prod believes no narinfo of dev, and the other way round.
	if _, _, err := fetch(prod.url, src.Name, w.aclOf("dev")); err == nil {
		t.Error("a client of dev believes what was signed for prod")
	}
	if _, _, err := fetch(w.depot().url, src.Name, w.aclOf("prod")); err == nil {
		t.Error("a client of prod believes what was signed for dev")
	}
	// The key of one track signs nothing of another.
	w.refuses("track-key", station, "depot", "sign", "--zone", "inside", "--root", w.fingerprint(), "--track", "prod", "--track-key", w.key("dev/narinfo"))
	w.sound()
}

// TestBreakGlass: an item without its reviewers, by two officers, for as long as they said.
func TestBreakGlass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	w.must(w.importArgs(3)...)
	src := w.named(3, "more-1")
	d := w.depot()
	if r := w.reason(d, src.Name, w.acl()); r != "not-allowed" {
		t.Errorf("%q", r)
	}
	w.refuses("break-glass", station, "order", "break-glass", "--zone", "inside", "--draft", "o.draft", "--track", track, "--hours", "25", "--reason", "exploited", src.Name)
	w.order("order", "break-glass", "--track", track, "--hours", "1", "--reason", "exploited", src.Name)
	w.must(w.signArgs()...)
	if r := w.reason(d, src.Name, w.acl()); r != "" {
		t.Errorf("%q", r)
	}
	// Everybody is told until it is closed.
	for _, args := range [][]string{{"review", "list"}, {"order", "show"}} {
		r := w.must(append(append([]string{station}, args...), "--zone", "inside")...)
		if !strings.Contains(string(r.stderr)+string(r.stdout), src.Name) {
			t.Errorf("%v does not tell: %v", args, r)
		}
	}
	w.order("order", "close", "--track", track, src.Name)
	if r := w.reason(d, src.Name, w.acl()); r != "not-allowed" {
		t.Errorf("after it was closed: %q", r)
	}
	w.sound()
}

// TestThiefOfAnOfficersKey: one officer's keys, of whatever number, put nothing in force.
func TestThiefOfAnOfficersKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	before := w.kept()
	// mallory has otto's keys, and makes herself an officer and a reviewer.
	args := []string{"enroll", "--person", "mallory", "--role", "officer"}
	for _, c := range []string{"root", "order", "allowlist"} {
		args = append(args, "--key", w.key("mallory/"+c)+".pub")
	}
	draft := w.rootDraft(args...)
	sign := func(noun, key, draft string) []string {
		return []string{station, noun, "sign", "--zone", "inside", "--key", w.key(key), "--fingerprint", w.digest(draft), draft}
	}
	accept := []string{station, "trust", "accept", "--zone", "inside", draft}
	w.must(sign("trust", "otto/root", draft)...)
	r := w.code(waiting, accept...)
	if !strings.Contains(string(r.stderr), "1 of 2") || !strings.Contains(string(r.stderr), "olga") {
		t.Errorf("it does not say who is missing: %v", r)
	}
	// Her own key is one of the new root, and not of the old one.
	w.must(sign("trust", "mallory/root", draft)...)
	w.code(waiting, accept...)
	// A key for orders signs no root, and a signature of another draft does not count.
	w.refuses("key-context", sign("trust", "otto/order", draft)...)
	other := w.draft("order", "lost", "--reason", "burnt", "77")
	w.must(sign("order", "otto/order", other)...)
	w.code(waiting, w.orderAccept(other)...)
	write(t, w.path(draft+".oscar.sig"), read(t, w.path(other+".otto.sig")), 0o644)
	w.refuses("signature-other", accept...)
	os.Remove(w.path(draft + ".oscar.sig"))
	// Nor one that is made up.
	forged := strings.Replace(string(read(t, w.path(draft+".otto.sig"))), "otto/root", "oscar/root", 1)
	write(t, w.path(draft+".oscar.sig"), []byte(forged), 0o644)
	w.code(refused, accept...)
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	w.sound()
}

// TestOrdersTakenAway: root on the station takes the newest orders away, or puts old ones back; nobody goes on without them.
func TestOrdersTakenAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	src, drv := w.named(1, "words-1"), w.named(1, ".drv")
	d := w.depot()
	w.builder("builder-1", "erin", d.url)
	w.order("order", "lost", "--reason", "burnt", "77")
	w.must(w.buildArgs("builder-1", "result-1", drv.Name)...)
	old := read(t, w.path("inside", "public", "orders", "1"))
	w.order(w.recall(src.Name)...)
	// A depot that says that the old ones are the newest.
	proxy := w.proxy(d, func(path string, _ *http.Response) []byte {
		switch path {
		case "/sallyport/head":
			return []byte(`{"enclave":"demo","track":"dev","root":1,"orders":1,"allowlist":1}`)
		case "/sallyport/orders/2":
			return old
		}
		return nil
	})
	w.refuses("recalled", w.buildArgs("builder-1", "result-2", drv.Name)...)
	w.point("builder-1", proxy)
	w.refuses("orders-rollback", w.buildArgs("builder-1", "result-3", drv.Name)...)
	db := catalog(t, w.path("inside"))
	for i, do := range []func(){
		func() { edit(t, db, `DELETE FROM orders WHERE version = 2`) },
		func() { edit(t, db, `DELETE FROM orders`) },
	} {
		do()
		if fresh, r := w.tryDepot(); fresh != nil {
			t.Errorf("%d: a depot starts", i)
		} else if !strings.Contains(string(r.stderr)+string(r.stdout), "orders-rollback") {
			t.Errorf("%d: %v", i, r)
		}
		w.refuses("orders-rollback", w.signArgs()...)
		// The depot that runs goes by what it has opened, or by nothing at all.
		if _, reason, err := fetch(d.url, src.Name, w.acl()); err == nil && reason != "recalled" || err != nil && !strings.Contains(err.Error(), "orders-rollback") {
			t.Errorf("%d: the depot that runs: %q %v", i, reason, err)
		}
	}
	// The auditor has them from the ledger.
	write(t, w.path("inside", "public", "orders", "2"), old, 0o644)
	w.code(refused, verifier, "enclave", "--root", w.fingerprint(), "inside/public")
}

// TestRevoked: a reviewer who was revoked, or whose key has run out, counts no more; the list that rested on them is out of force until it is signed again.
func TestRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	d := w.depot()
	src := w.named(1, "words-1")
	draft := w.rootDraft("revoke", "--person", "bob")
	w.officers("trust", "root", draft)
	r := w.must(station, "trust", "accept", "--zone", "inside", draft)
	if !strings.Contains(string(r.stderr), "out of force") {
		t.Errorf("nobody is told that the list is out of force: %v", r)
	}
	if _, reason, err := download(d.url + "/" + src.Name[:32] + ".narinfo"); err == nil && reason == "" {
		t.Error("a list that rests on a revoked reviewer is served")
	}
	w.refuses("allowlist-threshold", w.signArgs()...)
	w.refuses("not-reviewer", station, "review", "resign", "--zone", "inside", "--track", track, "--key", w.key("bob/allowlist"))
	for _, p := range []string{"alice", "rita"} {
		w.must(station, "review", "resign", "--zone", "inside", "--track", track, "--key", w.key(p+"/allowlist"))
	}
	w.must(w.signArgs()...)
	if r := w.reason(d, src.Name, w.acl()); r != "" {
		t.Errorf("after it was signed again: %q", r)
	}
	// A key that has run out.
	w.root("enroll", "--person", "rita", "--key", w.key("rita/allowlist")+".pub", "--until", time.Now().UTC().Add(-time.Minute).Format(time.RFC3339))
	w.refuses("not-reviewer", station, "review", "resign", "--zone", "inside", "--track", track, "--key", w.key("rita/allowlist"))
	w.sound()
}

// TestRotatedTrackKey: after a rotation the old key signs nothing, what it signed is served no more, and the new one signs all of it again.
func TestRotatedTrackKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	d := w.depot()
	src := w.named(1, "words-1")
	w.must(whole, "key", "generate", "--quiet", "dev/narinfo", "dev2.key")
	old := strings.Fields(string(read(t, w.key("dev/narinfo")+".pub")))[2]
	w.root("rotate", "--old", old[:20], "--new", "dev2.key.pub")
	w.refuses("track-key", w.signArgs()...)
	k, err := signature.ParseSecretKey(read(t, w.path("dev2.key")))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := download(d.url + "/" + src.Name[:32] + ".narinfo"); err != nil {
		t.Error(err)
	}
	w.must(station, "depot", "sign", "--zone", "inside", "--root", w.fingerprint(), "--track", track, "--track-key", "dev2.key")
	if r := w.reason(d, src.Name, signature.NewACL(k.Public())); r != "" {
		t.Errorf("after the rotation: %q", r)
	}
	if _, _, err := fetch(d.url, src.Name, w.acl()); err == nil {
		t.Error("a client that has the old key alone believes what is served")
	}
	w.sound()
}

// TestKilledPromotion, TestKilledRecall, TestKilledRotation and TestKilledRenewal: killed at random moments, run again, the end is that of a twin.
func TestKilledPromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	killed(t, w.dir, map[string]int{"approved": 4, "allowed": 2, "released": 1, "refused": 0}, func(w *world) [][]string {
		return [][]string{w.promoteArgs("alice"), w.promoteArgs("rita")}
	})
}

func TestKilledRecall(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	draft := w.draft(w.recall(w.named(1, "tool-1").Name)...)
	w.officers("order", "order", draft)
	killed(t, w.dir, map[string]int{"ordered": 1, "recalled": 1, "undersigned": 4, "refused": 0}, func(v *world) [][]string {
		return [][]string{{station, "order", "accept", "--zone", "inside", w.path(draft)}}
	})
}

func TestKilledRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	draft := w.rootDraft("revoke", "--person", "otto")
	w.officers("trust", "root", draft)
	killed(t, w.dir, map[string]int{"root": 2, "undersigned": 4, "refused": 0}, func(v *world) [][]string {
		return [][]string{{station, "trust", "accept", "--zone", "inside", w.path(draft)}}
	})
}

// TestKilledRenewal: making the zone's new keys, and going on with them. The depot serves all the while.
func TestKilledRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	w.renewal("root-2.draft", "ledger", "station")
	w.officers("trust", "root", "root-2.draft")
	want := w.keysOf("root-2.draft")
	killed(t, w.dir, map[string]int{"root": 2, "undersigned": 4, "key-changed": 2, "refused": 0}, func(v *world) [][]string {
		return [][]string{{station, "key", "renew", "--zone", "inside", "ledger"}, {station, "trust", "accept", "--zone", "inside", w.path("root-2.draft")}}
	}, func(v *world) {
		for _, name := range []string{"ledger", "station"} {
			if !strings.Contains(want, string(read(t, v.path("inside", "keys", name+".vkey")))) {
				t.Errorf("the zone has another %s key than the root names", name)
			}
			for _, f := range []string{name + ".next.key", name + ".next.vkey"} {
				if _, err := os.Lstat(v.path("inside", "keys", f)); err == nil {
					t.Errorf("%s is left", f)
				}
			}
		}
	})
}

// renewal has the zone make keys to follow its own, and drafts the root that names them.
func (w *world) renewal(draft string, names ...string) {
	w.t.Helper()
	for _, name := range names {
		os.Remove(w.path(name + ".pub"))
		w.must(station, "key", "renew", "--zone", "inside", "--out", name+".pub", name)
		id, _, _ := cutLast(strings.TrimSpace(string(read(w.t, w.path("inside", "keys", name+".vkey")))), "+")
		w.must(station, "trust", "rotate", "--zone", "inside", "--draft", draft, "--old", id, "--new", name+".pub")
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// keysOf are the keys that a draft gives the station, a line each.
func (w *world) keysOf(draft string) string {
	w.t.Helper()
	var b strings.Builder
	for line := range strings.Lines(string(read(w.t, w.path(draft)))) {
		if f := strings.Fields(line); len(f) == 4 && f[0] == "key" && f[2] == "station" {
			b.WriteString(f[3] + "\n")
		}
	}
	return b.String()
}

// killed runs commands in copies of a world, one of them killed at a random moment and run again.
func killed(t *testing.T, template string, kinds map[string]int, commands func(w *world) [][]string, more ...func(w *world)) {
	t.Helper()
	twin := newWorld(t, template, "inside")
	var took []time.Duration
	for _, args := range commands(twin) {
		took = append(took, twin.must(args...).took)
	}
	want := twin.outcome()
	for h := newHunt(t, manyKills(), took...); h.more(); {
		w := newWorld(t, template, "inside")
		d := w.depot()
		x := w.watchAlways(d)
		victim := h.hit % len(took)
		for i, args := range commands(w) {
			if i == victim {
				h.kill(w, i, args...)
			}
			w.again("", args...)
		}
		w.like(want, kinds)
		x.end()
		d.stop()
		w.sound()
		for _, check := range more {
			check(w)
		}
		w.tidy()
		if t.Failed() {
			t.Fatal(h)
		}
	}
}

// watchAlways is watch where items may come and go: whatever is served is whole and signed.
func (w *world) watchAlways(d *depot) *watch {
	x := &watch{t: w.t, stop: make(chan struct{})}
	acl, items := w.acl(), w.items(1)
	w.t.Cleanup(x.halt)
	x.over.Go(func() {
		for {
			for _, it := range items {
				select {
				case <-x.stop:
					return
				default:
				}
				_, reason, err := fetch(d.url, it.Name, acl)
				switch {
				case err != nil && strings.Contains(err.Error(), "a narinfo of"):
					// It was recalled between the two questions.
				case err != nil && !strings.Contains(err.Error(), "503"):
					x.t.Errorf("depot: %v\n%s", err, d.log)
					return
				case err == nil && reason == "":
					x.served.Add(1)
				}
				time.Sleep(2 * time.Millisecond)
			}
		}
	})
	return x
}
