package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// TestImporterAsReviewer: whoever imported a shipment does not approve it, whatever key they hold and whatever the catalog says.
func TestImporterAsReviewer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	w.must(w.importArgs(2)...)
	before := w.kept()
	w.refuses("separation-of-duties", w.approveArgs(2, "dave")...)
	// Dave's other key has another context.
	w.refuses("key-context", station, "review", "approve", "--zone", "inside", "--track", track, "--key", w.key("dave/statement"), "2")
	w.refuses("not-reviewer", w.approveArgs(2, "mallory")...)
	// Dave edits the row that says who imported it.
	db := catalog(t, w.path("inside"))
	edit(t, db, `UPDATE shipment SET importer = 'carol' WHERE number = 2`)
	w.refuses("separation-of-duties", w.approveArgs(2, "dave")...)
	edit(t, db, `UPDATE shipment SET importer = 'dave' WHERE number = 2`)
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	// Nobody else imports in his place.
	for key, reason := range map[string]string{"alice/allowlist": "key-context", "erin/statement": "not-importer", "mallory/statement": "not-importer"} {
		w.refuses(reason, station, "import", "--zone", "inside", "--slip", "slip-3.txt", "--key", w.key(key), "volume-3")
	}
	w.sound()
}

// TestReviewerTwice: one person counts once, however often they sign.
func TestReviewerTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	w.must(w.importArgs(2)...)
	var o struct {
		Persons   []string
		Threshold int
		InForce   bool `json:"in_force"`
	}
	for range 3 {
		w.get(&o, w.approveArgs(2, "alice")...)
		if o.InForce || !slices.Equal(o.Persons, []string{"alice"}) || o.Threshold != 2 {
			t.Fatalf("%+v", o)
		}
	}
	if n := w.kinds("inside"); n["approved"] != 3 || n["allowed"] != 1 {
		t.Errorf("entries %v: one more \"approved\" wanted, and none \"allowed\"", n)
	}
	// Another shipment does not slip into the same list.
	w.must(w.importArgs(3)...)
	r := w.code(failed, w.approveArgs(3, "bob")...)
	if !strings.Contains(string(r.stderr), "under review") {
		t.Error(r)
	}
	if files := files(t, w.path("inside", "public", "allowlist", track)); !slices.Equal(files, []string{"1"}) {
		t.Errorf("allowlists %q", files)
	}
	w.get(&o, w.approveArgs(2, "bob")...)
	if !o.InForce {
		t.Errorf("%+v", o)
	}
	w.sound()
	w.tidy()
}

// TestWrongSlip: a slip of another shipment, of another enclave, with another number or size.
func TestWrongSlip(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	before := w.kept()
	slip := string(read(t, w.path("slip-2.txt")))
	for from, to := range map[string]string{"enclave demo": "enclave other", "shipment 2": "shipment 4", "items 2": "items 3", "bytes 2": "bytes 1", "manifest ": "manifest 0000"} {
		text := strings.Replace(slip, from, to, 1)
		if strings.HasPrefix(from, "manifest") {
			i := strings.Index(text, "\nitems")
			text = text[:i-4] + text[i:]
		}
		if text == slip {
			t.Fatalf("%q is not in the slip", from)
		}
		write(t, w.path("slip-wrong"), []byte(text), 0o644)
		w.refuses("slip-mismatch", w.importOf("slip-wrong", "volume-2")...)
	}
	w.refuses("slip-mismatch", w.importOf("slip-1.txt", "volume-2")...)
	// A whole delivery for another enclave, honest there.
	o := &world{t: t, dir: w.path("elsewhere"), keys: w.keys}
	o.mkdir("")
	copyTree(t, filepath.Join(fresh(t), "goods"), o.path("goods"))
	o.must(whole, "init", "--kind", "outside", "--enclave", "other", "outside")
	write(t, o.path("request.toml"), bytes.Replace(request{}.text(), []byte(`"demo"`), []byte(`"other"`), 1), 0o644)
	o.must(whole, "collect", "--zone", "outside", "request.toml")
	o.must(whole, "shipment", "create", "--zone", "outside", "--key", w.key("carol/manifest"), "--sums-key", w.key("carol/sums"), "--slip", "slip", "volume")
	w.refuses("slip-mismatch", w.importOf("elsewhere/slip", "elsewhere/volume")...)
	// And with a forged slip to match.
	write(t, w.path("slip-wrong"), bytes.Replace(read(t, o.path("slip")), []byte("enclave other"), []byte("enclave demo"), 1), 0o644)
	r := w.code(refused, append(w.importOf("slip-wrong", "elsewhere/volume"), "--json")...)
	if codes := reasons(t, r); !slices.Contains(codes, "manifest-enclave") && !slices.Contains(codes, "slip-mismatch") {
		t.Error(r)
	}
	// A collector whom nobody authorised.
	o.must(whole, "init", "--kind", "outside", "--enclave", enclave, "mallory")
	write(t, o.path("request.toml"), request{}.text(), 0o644)
	o.must(whole, "collect", "--zone", "mallory", "request.toml")
	o.must(whole, "shipment", "create", "--zone", "mallory", "--key", w.key("mallory/manifest"), "--sums-key", w.key("mallory/sums"), "--slip", "slip-mallory", "volume-mallory")
	w.refuses("manifest-unsigned", w.importOf("elsewhere/slip-mallory", "elsewhere/volume-mallory")...)
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	w.sound()
}

// TestLyingBuilder: one that signs something else stops the release; one that is not enrolled is not heard; a result that was changed on its way is refused.
func TestLyingBuilder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	d := w.depot()
	drv := w.named(1, ".drv").Name
	w.builder("builder-1", "erin", d.url)
	w.builder("builder-2", "frank", d.url)
	w.builder("builder-3", "mallory", d.url)
	w.must(w.buildArgs("builder-1", "result-1", drv)...)
	w.must(w.buildArgs("builder-2", "result-2", drv)...)
	w.refuses("not-builder", w.buildArgs("builder-3", "result-3", drv)...)
	if _, err := os.Lstat(w.path("result-3")); err == nil {
		t.Error("a builder who is none left a result")
	}
	nars, _ := filepath.Glob(w.path("result-1", "*.nar"))
	if len(nars) != 1 {
		t.Fatalf("%q", nars)
	}
	output := strings.TrimSuffix(filepath.Base(nars[0]), ".nar")
	before := w.kept()

	// On its way to the station.
	for name, damage := range map[string]func(dir string) string{
		"a bit of the nar is flipped": func(dir string) string {
			text := read(t, w.path(dir, output+".nar"))
			text[bytes.Index(text, []byte("hello, world"))] ^= 1
			write(t, w.path(dir, output+".nar"), text, 0o644)
			return "output-digest"
		},
		"the nar is cut": func(dir string) string {
			w.cut(w.path(dir, output+".nar"), 8)
			return "output-size"
		},
		"the nar is gone": func(dir string) string {
			w.remove(w.path(dir, output+".nar"))
			return "result-incomplete"
		},
		"the statement is gone": func(dir string) string {
			w.remove(w.path(dir, "built.dsse"))
			return "result-incomplete"
		},
		"the statement is edited": func(dir string) string {
			text, n := editPayloads(read(t, w.path(dir, "built.dsse")), `"person":"erin"`, `"person":"evil"`)
			if n != 1 {
				t.Fatal("the statement does not name its builder")
			}
			write(t, w.path(dir, "built.dsse"), text, 0o644)
			return "statement-signature"
		},
		"the statement is no envelope": func(dir string) string {
			write(t, w.path(dir, "built.dsse"), []byte("{}"), 0o644)
			return "statement-not-canonical"
		},
		"somebody else signs": func(dir string) string {
			w.resign(dir, "mallory/statement", func(*statement.Statement) {})
			return "statement-key"
		},
		"an importer signs": func(dir string) string {
			w.resign(dir, "dave/statement", func(*statement.Statement) {})
			return "statement-role"
		},
		"for another derivation": func(dir string) string {
			evil := "/gnu/store/" + w.named(2, ".drv").Name
			w.resign(dir, "erin/statement", func(s *statement.Statement) { s.Predicate["derivation"] = evil })
			return "not-allowed"
		},
		"for another enclave": func(dir string) string {
			w.resign(dir, "erin/statement", func(s *statement.Statement) { s.Predicate["zone"] = "sallyport/other/inside" })
			return "statement-zone"
		},
	} {
		dir := "tampered"
		w.remove(w.path(dir))
		copyTree(t, w.path("result-1"), w.path(dir))
		reason := damage(dir)
		t.Log(name)
		w.refuses(reason, w.submitArgs(dir)...)
		if after := w.kept(); after != before {
			t.Fatalf("%s: something changed:\n%s\nbefore:\n%s", name, after, before)
		}
	}

	// Frank lies: a well-formed nar of something else, under his own good signature.
	lie := narOf(t, "something else\n")
	write(t, w.path("result-2", output+".nar"), lie, 0o644)
	w.resign("result-2", "frank/statement", func(s *statement.Statement) {
		s.Subjects[0].SHA256 = trust.Sum(lie)
		out := s.Predicate["outputs"].(map[string]any)["out"].(map[string]any)
		out["size"] = int64(len(lie))
	})
	w.must(w.submitArgs("result-1")...)
	w.refuses("quorum-dissent", w.submitArgs("result-2")...)
	w.refuses("quorum-dissent", station, "quorum", "status", "--zone", "inside", "--track", track, drv)
	w.must(w.signArgs()...)
	if _, reason, err := fetch(d.url, output, w.acl()); err != nil || reason == "" {
		t.Errorf("builders disagree, and the output is served: %v", err)
	}
	if n := w.kinds("inside"); n["built"] != 2 || n["disagreed"] != 1 || n["agreed"] != 0 {
		t.Errorf("entries %v", n)
	}
	w.sound()
	w.tidy()
}

// resign changes what a result states and signs it anew.
func (w *world) resign(dir, key string, change func(*statement.Statement)) {
	w.t.Helper()
	file := w.path(dir, "built.dsse")
	e, err := statement.ParseEnvelope(read(w.t, file))
	if err != nil {
		w.t.Fatal(err)
	}
	s := e.Unverified()
	k := w.secret(key)
	s.Predicate["person"] = k.Person()
	change(&s)
	text, err := statement.Sign(k, s)
	if err != nil {
		w.t.Fatal(err)
	}
	write(w.t, file, text, 0o644)
}

// forgeries are edits of the catalog, one table in turn, by root on the station who wants the items of shipment 2 served, signed and built upon.
func (w *world) forgeries(evil item) map[string]func(exec func(q string, args ...any)) {
	p, err := storepath.ParseBase(evil.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	// The blob of a note that lies in the store under its right digest: root can put that there, too.
	blob := func(data []byte) string {
		sum := trust.Sum(data).String()
		write(w.t, w.path("inside", "cas", sum[:2], sum), data, 0o444)
		return sum
	}
	now := time.Now().UTC().Truncate(time.Second)
	list := func(signers ...string) (note []byte, digest string) {
		a, err := trust.ParseAllowlist(textOf(w.t, read(w.t, w.path("inside", "public", "allowlist", track, "1"))))
		if err != nil {
			w.t.Fatal(err)
		}
		sum, err := trust.ParseDigest(evil.SHA256)
		if err != nil {
			w.t.Fatal(err)
		}
		a.Version, a.Previous, a.Date = 2, a.Digest(), now
		a.Items = append(a.Items, trust.Item{SHA256: sum, Size: evil.Size, Kind: evil.Kind, Name: evil.Name})
		trust.SortItems(a.Items)
		var keys []trust.Signer
		for _, s := range signers {
			keys = append(keys, w.secret(s))
		}
		note, err = trust.SignNote(a.Text(), keys...)
		if err != nil {
			w.t.Fatal(err)
		}
		return note, a.Digest().String()
	}
	root := func() (note []byte, digest string) {
		m := &world{t: w.t, dir: w.path("mallorys"), keys: w.keys}
		m.mkdir("")
		m.must(station, "init", "--kind", "inside", "--enclave", enclave, "inside")
		args := []string{station, "trust", "init", "--zone", "inside", "--key", w.key("mallory/root"), "--threshold", "root=1", "--threshold", "order=1", "--threshold", "allowlist/dev=1", "--policy", "quorum=1"}
		for _, k := range []string{"mallory/root", "mallory/order", "mallory/allowlist", "mallory/statement", "dev/narinfo"} {
			args = append(args, "--enroll", w.key(k)+".pub")
		}
		for _, r := range []string{"officer=mallory", "reviewer=mallory", "builder=mallory"} {
			args = append(args, "--role", r)
		}
		m.must(args...)
		return read(w.t, m.path("inside", "public", "root", "1")), m.fingerprint()
	}
	return map[string]func(exec func(q string, args ...any)){
		"shipment":      func(exec func(string, ...any)) { exec(`UPDATE shipment SET state = 'admitted'`) },
		"shipment_item": func(exec func(string, ...any)) { exec(`UPDATE OR IGNORE shipment_item SET number = 1`) },
		"item": func(exec func(string, ...any)) {
			exec(`DELETE FROM item WHERE name = ?`, evil.Name)
			exec(`UPDATE item SET name = ? WHERE name LIKE '%-hello-1.0.drv'`, evil.Name)
		},
		"finding":  func(exec func(string, ...any)) { exec(`DELETE FROM finding`) },
		"proposal": func(exec func(string, ...any)) { exec(`DELETE FROM proposal`) },
		"proposal_signature": func(exec func(string, ...any)) {
			note, digest := list("mallory/allowlist")
			text := textOf(w.t, note)
			line := strings.TrimSpace(string(note[len(text):]))
			blob(text)
			exec(`INSERT INTO proposal (track, version, shipment, text) VALUES ('dev', 2, 2, ?)`, digest)
			for _, p := range []string{"alice", "bob", "mallory"} {
				exec(`INSERT INTO proposal_signature (track, person, line) VALUES ('dev', ?, ?)`, p, line)
			}
		},
		"allowlist, signed by a stranger": func(exec func(string, ...any)) {
			note, digest := list("mallory/allowlist")
			exec(`INSERT INTO allowlist (track, version, digest, note) VALUES ('dev', 2, ?, ?)`, digest, blob(note))
		},
		"allowlist, signed by one": func(exec func(string, ...any)) {
			note, digest := list("alice/allowlist")
			exec(`INSERT INTO allowlist (track, version, digest, note) VALUES ('dev', 2, ?, ?)`, digest, blob(note))
		},
		"allowlist, signed by two behind the ledger's back": func(exec func(string, ...any)) {
			note, digest := list("alice/allowlist", "bob/allowlist")
			exec(`INSERT INTO allowlist (track, version, digest, note) VALUES ('dev', 2, ?, ?)`, digest, blob(note))
		},
		"allowlist, edited in place": func(exec func(string, ...any)) {
			note, _ := list("mallory/allowlist")
			exec(`UPDATE allowlist SET note = ?`, blob(note))
		},
		"narinfo": func(exec func(string, ...any)) {
			exec(`INSERT OR REPLACE INTO narinfo (track, hash, path, body, nar, blob, form) SELECT track, ?, ?, body, nar, ?, form FROM narinfo LIMIT 1`, p.Hash(), p.String(), evil.SHA256)
		},
		"built": func(exec func(string, ...any)) {
			exec(`INSERT INTO built (derivation, keyid, sha256, leaf, envelope) VALUES (?, 'erin/statement+00000000', ?, 1, ?)`, evil.Name, evil.SHA256, []byte("{}"))
		},
		"agreed": func(exec func(string, ...any)) {
			exec(`INSERT INTO agreed (derivation, leaf) VALUES (?, 1)`, evil.Name)
		},
		"root": func(exec func(string, ...any)) {
			note, digest := root()
			exec(`UPDATE root SET digest = ?, note = ?`, digest, note)
		},
		"root, its pin and its file": func(exec func(string, ...any)) {
			note, digest := root()
			exec(`UPDATE root SET digest = ?, note = ?`, digest, note)
			exec(`UPDATE setting SET value = ? WHERE length(value) = 64`, digest)
			write(w.t, w.path("inside", "public", "root", "1"), note, 0o644)
		},
		"public": func(exec func(string, ...any)) {
			note, _ := list("mallory/allowlist")
			exec(`INSERT OR REPLACE INTO public (path, size, data) VALUES ('allowlist/dev/2', 1, ?)`, note)
			exec(`UPDATE public SET data = ?, blob = NULL, size = 1 WHERE path = 'allowlist/dev/1'`, note)
			write(w.t, w.path("inside", "public", "allowlist", track, "1"), note, 0o644)
		},
		"witness": func(exec func(string, ...any)) {
			exec(`INSERT INTO witness (name, size, note) VALUES ('wilma', 1000, ?)`, []byte("x"))
		},
		"entry": func(exec func(string, ...any)) {
			exec(`UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE idx = 0) WHERE idx > 1`)
		},
		"hashes":     func(exec func(string, ...any)) { exec(`UPDATE entry SET hashes = zeroblob(length(hashes))`) },
		"checkpoint": func(exec func(string, ...any)) { exec(`DELETE FROM checkpoint WHERE size > 2`) },
	}
}

// textOf is a note's text.
func textOf(t testing.TB, note []byte) []byte {
	t.Helper()
	i := bytes.Index(note, []byte("\n\n"))
	if i < 0 {
		t.Fatal("no note")
	}
	return note[:i+1]
}

// TestRootEditsCatalog: no row of any table makes depot, signer or builder use what reviewers have not signed.
func TestRootEditsCatalog(t *testing.T) {
	t.Parallel()
	quarantined := newWorld(t, admitted(t), "inside")
	quarantined.must(quarantined.importArgs(2)...)
	honest := quarantined.depot()
	quarantined.builder("builder-1", "erin", honest.url) // has seen the good root and list
	quarantined.must(quarantined.buildArgs("builder-1", "result-1", quarantined.named(1, ".drv").Name)...)
	honest.stop()
	evil := quarantined.named(2, ".drv")
	names := sorted(quarantined.forgeries(evil))
	for i, name := range names {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, quarantined.dir, "inside")
			// Only the subjects of shipment 2 are asked for. A depot that ran before has its floor.
			running := w.depot()
			db := catalog(t, w.path("inside"))
			w.forgeries(evil)[name](func(q string, args ...any) { edit(t, db, q, args...) })
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			w.unserved(running, evil)
			running.stop()
			if d, r := w.tryDepot(); d == nil {
				if r.code != refused && r.code != failed {
					t.Errorf("the depot does not start, but does not refuse either: %v", r)
				}
			} else {
				w.unserved(d, evil)
				w.unbuilt(d, quarantined, evil)
				d.stop()
			}
			r := w.run(append(w.signArgs(), "--json")...)
			if strings.Contains(string(r.stdout), evil.Name) && r.code == done || r.code != done && r.code != refused && r.code != failed {
				t.Errorf("the signer: %v", r)
			}
			if d, _ := w.tryDepot(); d != nil {
				w.unserved(d, evil)
				d.stop()
			}
			// A reviewer alone does not complete what was forged.
			if name == "proposal_signature" {
				r := w.run(append(w.approveArgs(2, "alice"), "--json")...)
				if r.code == done && strings.Contains(string(r.stdout), `"in_force":true`) {
					t.Errorf("forged signatures count: %v", r)
				}
			}
			if name == "entry" || name == "hashes" || name == "checkpoint" {
				w.code(refused, station, "ledger", "verify", "--zone", "inside")
			}
		})
	}
}

// unserved demands that a depot serves neither narinfo nor nar of an item, and that it says why.
func (w *world) unserved(d *depot, evil item) {
	w.t.Helper()
	p, err := storepath.ParseBase(evil.Name)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, u := range []string{"/" + p.Hash() + ".narinfo", "/nar/" + evil.Name, "/sallyport/blob/" + evil.Name} {
		res, err := client.Get(d.url + u)
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode == http.StatusOK || err != nil {
			w.t.Errorf("%s: %s %.300q %v", u, res.Status, body, err)
		}
	}
}

// unbuilt demands that neither a builder who has built before nor a new one builds an item from a depot.
func (w *world) unbuilt(d *depot, from *world, evil item) {
	w.t.Helper()
	copyTree(w.t, from.path("builder-1", "store"), w.path("builder-1", "store"))
	for _, f := range []string{"floor.json", "builder.toml"} {
		write(w.t, w.path("builder-1", f), read(w.t, from.path("builder-1", f)), 0o644)
	}
	config := string(read(w.t, w.path("builder-1", "builder.toml")))
	var b strings.Builder
	for l := range strings.Lines(config) {
		if strings.HasPrefix(l, "depot = ") {
			l = fmt.Sprintf("depot = %q\n", d.url)
		}
		b.WriteString(l)
	}
	write(w.t, w.path("builder-1", "builder.toml"), []byte(b.String()), 0o644)
	w.mkdir("builder-1/work")
	w.mkdir("builder-2")
	write(w.t, w.path("builder-2", "builder.toml"), []byte(b.String()), 0o644)
	for _, dir := range []string{"builder-1", "builder-2"} {
		out := "result-evil-" + dir
		r := w.run(append(w.buildArgs(dir, out, evil.Name), "--json")...)
		if r.code != refused && r.code != failed {
			w.t.Errorf("a builder builds what nobody approved: %v", r)
		}
		if _, err := os.Lstat(w.path(out)); err == nil {
			w.t.Errorf("%s left a result", dir)
		}
	}
}

// TestOldCatalog: a database put back from an old copy is noticed at the next opening, by everybody.
func TestOldCatalog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	old := w.path("old")
	for _, f := range []string{"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"} {
		if _, err := os.Stat(w.path("inside", f)); err == nil {
			copyTree(t, w.path("inside", f), filepath.Join(old, f))
		}
	}
	w.must(w.importArgs(2)...)
	for _, f := range []string{"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"} {
		w.remove(w.path("inside", f))
	}
	copyTree(t, old, w.path("inside"))
	for _, args := range [][]string{w.importArgs(2), w.signArgs(), {station, "ledger", "verify", "--zone", "inside"}, {station, "review", "list", "--zone", "inside"},
		{station, "depot", "serve", "--zone", "inside", "--root", w.fingerprint(), "--track", track, "--listen", "127.0.0.1:0"}} {
		w.refuses("ledger-rollback", args...)
	}
}

// TestEditedEntry: an entry that is changed in the catalog or in the published files is named.
func TestEditedEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	fingerprint := w.fingerprint()
	db := catalog(t, w.path("inside"))
	var index int64
	var leaf []byte
	for _, e := range w.entries("inside") {
		if e.Kind == "imported" {
			index = e.Index
		}
	}
	if err := db.QueryRowContext(context.Background(), `SELECT leaf FROM entry WHERE idx = ?`, index).Scan(&leaf); err != nil {
		t.Fatal(err)
	}
	other, n := editPayloads(leaf, `"person":"dave"`, `"person":"evil"`)
	if n != 1 {
		t.Fatal("the entry does not name the importer")
	}
	edit(t, db, `UPDATE entry SET leaf = ? WHERE idx = ?`, other, index)
	w.refuses("ledger-entry", station, "ledger", "verify", "--zone", "inside")
	// What is published is untouched, and that is what counts.
	w.must(verifier, "enclave", "--root", fingerprint, "inside/public")
	edit(t, db, `UPDATE entry SET leaf = ? WHERE idx = ?`, leaf, index)
	w.sound()
	// The published copy is edited instead.
	edited := 0
	for _, f := range files(t, w.path("inside", "public", "ledger", "tile", "entries")) {
		path := w.path("inside", "public", "ledger", "tile", "entries", f)
		text, n := editPayloads(read(t, path), `"person":"dave"`, `"person":"evil"`)
		edited += n
		write(t, path, text, 0o644)
	}
	if edited == 0 {
		t.Fatal("no published entry names the importer")
	}
	w.code(refused, station, "ledger", "verify", "--zone", "inside")
	w.refuses("ledger-entry", verifier, "enclave", "--root", fingerprint, "inside/public")
}

// TestOldAllowlist: a published list that is replaced by an older one does not take a builder back that has seen the newer.
func TestOldAllowlist(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	first := read(t, w.path("inside", "public", "allowlist", track, "1"))
	w.admit(2)
	d := w.depot()
	w.builder("builder-1", "erin", d.url)
	w.builder("builder-2", "frank", d.url)
	drv := w.named(1, ".drv").Name
	w.must(w.buildArgs("builder-1", "result-1", drv)...)
	write(t, w.path("inside", "public", "allowlist", track, "2"), first, 0o644)
	// Neither one that has seen the newer list nor one that has seen nothing takes the old one for the newest.
	w.refuses("allowlist-version", w.buildArgs("builder-1", "result-2", drv)...)
	w.refuses("allowlist-version", w.buildArgs("builder-2", "result-3", drv)...)
	w.code(refused, verifier, "enclave", "--root", w.fingerprint(), "inside/public")
	// A depot that says itself that the old one is the newest.
	proxy := w.proxy(d, func(path string, res *http.Response) []byte {
		if path == "/sallyport/head" {
			return fmt.Appendf(nil, `{"enclave":"demo","track":"dev","root":1,"allowlist":1}`)
		}
		return nil
	})
	w.point("builder-1", proxy)
	w.refuses("allowlist-rollback", w.buildArgs("builder-1", "result-4", drv)...)
	for _, r := range []string{"result-2", "result-3", "result-4"} {
		if _, err := os.Lstat(w.path(r)); err == nil {
			t.Errorf("%s is there", r)
		}
	}
}

// proxy stands before a depot and answers otherwise where instead returns a body.
func (w *world) proxy(d *depot, instead func(path string, res *http.Response) []byte) string {
	w.t.Helper()
	u, err := url.Parse(d.url)
	if err != nil {
		w.t.Fatal(err)
	}
	s := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(u) },
		ModifyResponse: func(res *http.Response) error {
			if body := instead(res.Request.URL.Path, res); body != nil {
				res.Body.Close()
				res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
				res.Header.Set("Content-Length", fmt.Sprint(len(body)))
			}
			return nil
		},
	})
	w.t.Cleanup(s.Close)
	return s.URL
}

// point has a builder ask another depot.
func (w *world) point(builder, url string) {
	w.t.Helper()
	file := w.path(builder, "builder.toml")
	var b strings.Builder
	for l := range strings.Lines(string(read(w.t, file))) {
		if strings.HasPrefix(l, "depot = ") {
			l = fmt.Sprintf("depot = %q\n", url)
		}
		b.WriteString(l)
	}
	write(w.t, file, []byte(b.String()), 0o644)
}

// TestLyingDepot: a builder takes nothing from a depot but what is allowed.
func TestLyingDepot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	d := w.depot()
	drv, words := w.named(1, ".drv").Name, w.named(1, "-words-1").Name
	nar, _, err := download(d.url + "/nar/" + words)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(nar)
	flipped[bytes.Index(nar, []byte("hello, world"))] = 'j'
	blob, _, err := download(d.url + "/sallyport/blob/" + drv)
	if err != nil {
		t.Fatal(err)
	}
	list := textOf(t, read(t, w.path("inside", "public", "allowlist", track, "1")))
	signed := func(keys ...string) []byte {
		var signers []trust.Signer
		for _, k := range keys {
			signers = append(signers, w.secret(k))
		}
		note, err := trust.SignNote(list, signers...)
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	tests := []struct {
		name, reason, path string
		body               []byte
	}{
		{"another nar of the same size", "item-digest", "/nar/" + words, flipped},
		{"a well-formed nar of something else", "item-digest", "/nar/" + words, narOf(t, "else")},
		{"a nar that ends early", "item-digest", "/nar/" + words, nar[:len(nar)-8]},
		{"a nar with something behind it", "item-digest", "/nar/" + words, append(bytes.Clone(nar), 0)},
		{"another derivation", "item-digest", "/sallyport/blob/" + drv, bytes.Replace(blob, []byte("made of words"), []byte("made of wands"), 1)},
		{"another root", "root-", "/sallyport/root/1", []byte("sallyport root v1\n")},
		{"an allowlist that nobody signed", "allowlist-", "/sallyport/allowlist/1", list},
		{"an allowlist that one reviewer signed", "allowlist-threshold", "/sallyport/allowlist/1", signed("alice/allowlist")},
		{"an allowlist that one reviewer and a stranger signed", "allowlist-threshold", "/sallyport/allowlist/1", signed("alice/allowlist", "mallory/allowlist")},
		{"another track", "depot-wrong", "/sallyport/head", []byte(`{"enclave":"demo","track":"prod","root":1,"allowlist":1}`)},
		{"nonsense", "depot-answer", "/sallyport/head", []byte(`[]`)},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: w.dir, keys: w.keys}
			var lies atomic.Int64
			url := w.proxy(d, func(path string, _ *http.Response) []byte {
				if path == tt.path {
					lies.Add(1)
					return tt.body
				}
				return nil
			})
			b, out := fmt.Sprintf("builder-%d", i), fmt.Sprintf("result-%d", i)
			w.builder(b, "erin", url)
			r := w.code(refused, append(w.buildArgs(b, out, drv), "--json")...)
			if codes := reasons(t, r); !slices.ContainsFunc(codes, func(c string) bool { return strings.HasPrefix(c, tt.reason) }) {
				t.Errorf("refused for %q, want %s: %v", codes, tt.reason, r)
			}
			if lies.Load() == 0 {
				t.Error("the builder did not ask for it: nothing was tried")
			}
			if _, err := os.Lstat(w.path(b, "store", words)); err == nil && strings.HasPrefix(tt.path, "/nar/") {
				t.Error("what the depot lied about is in the builder's store")
			}
			if _, err := os.Lstat(w.path(out)); err == nil {
				t.Error("there is a result")
			}
			// The truth is still taken.
			w.point(b, d.url)
			w.must(w.buildArgs(b, out, drv)...)
		})
	}
}
