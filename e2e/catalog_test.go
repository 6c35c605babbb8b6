package e2e_test

import (
	cryptorand "crypto/rand"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
)

// tables prints every row of a catalog but the ledger's own tables, by table.
func (w *world) tables(zone string) map[string][]string {
	w.t.Helper()
	db := catalog(w.t, w.path(zone))
	out := map[string][]string{}
	for _, table := range query(w.t, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT IN ('entry', 'checkpoint')`) {
		var columns []string
		for _, c := range query(w.t, db, `SELECT name FROM pragma_table_info(?)`, table) {
			columns = append(columns, fmt.Sprintf(`quote("%s")`, c))
		}
		rows := query(w.t, db, fmt.Sprintf(`SELECT %s FROM "%s"`, strings.Join(columns, " || ' ' || "), table))
		slices.Sort(rows)
		out[table] = rows
	}
	db.Close()
	return out
}

func (w *world) sameTables(have, want map[string][]string) {
	w.t.Helper()
	if len(have) != len(want) {
		w.t.Errorf("%d tables, were %d", len(have), len(want))
	}
	for table, rows := range want {
		for _, row := range rows {
			if !slices.Contains(have[table], row) {
				w.t.Errorf("table %s: there was %.400s, which is not", table, row)
				break
			}
		}
		for _, row := range have[table] {
			if !slices.Contains(rows, row) {
				w.t.Errorf("table %s: there is %.400s, which was not", table, row)
				break
			}
		}
		if len(have[table]) != len(rows) {
			w.t.Errorf("table %s: %d rows, were %d", table, len(have[table]), len(rows))
		}
	}
}

// TestCatalogRebuild: after all that persons and programs do, the catalog that is made again from the published ledger and the blobs has every row of
// the one that was lost; killed at any moment the zone has the one or the other; and the work goes on.
func TestCatalogRebuild(t *testing.T) {
	t.Parallel()
	dice := dice(t)
	w := newWorld(t, governed(t), "outside", "inside", "goods")
	d := w.depot()
	drv := w.named(1, ".drv")
	for i, person := range []string{"erin", "frank"} {
		builder, result := fmt.Sprintf("builder-%d", i), fmt.Sprintf("result-%d", i)
		w.builder(builder, person, d.url)
		w.must(w.buildArgs(builder, result, drv.Name)...)
		w.must(w.submitArgs(result)...)
	}
	w.must(w.signArgs()...)
	w.root("enroll", "--person", "rita", "--key", w.key("rita/allowlist")+".pub", "--until", time.Now().UTC().AddDate(1, 0, 0).Format(time.RFC3339))
	w.renewal("root-3.draft", "ledger", "station")
	w.officers("trust", "root", "root-3.draft")
	w.must(station, "trust", "accept", "--zone", "inside", "root-3.draft")
	w.must(w.importArgs(3)...)
	w.must(station, "review", "reject", "--zone", "inside", "--key", w.key("bob/allowlist"), "--reason", "not wanted", "3")
	w.cosign()
	w.must(w.promoteArgs("alice")...)
	w.must(w.promoteArgs("bob")...)
	w.cosign()
	w.must(w.signProd()...)
	w.order(w.recall(w.named(1, "words-1").Name)...)
	w.order("order", "lost", "--reason", "never came", "9")
	w.must(w.importArgs(2)...)
	w.must(w.approveArgs(2, "alice")...) // a proposal that waits
	w.cosign()

	// The outside pins a channel, moves it forward, and excuses something.
	channels, err := channeltest.NewWorld(cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ends, history := channeltest.Growing(channels, 6)
	history.Refs["refs/heads/master"] = ends[5]
	if err := history.Write(w.path("channel.git")); err != nil {
		t.Fatal(err)
	}
	pin := []string{whole, "channel", "pin", "--zone", "outside", "--repository", "channel.git"}
	w.must(append(pin, "--url", "https://git.example.org/guix.git", "--introduction", history.Introduction.String(), "--fingerprint", history.Signer.String(), "guix", ends[2].String())...)
	w.must(append(pin, "guix", ends[5].String())...)
	for _, days := range []string{"3", "5"} { // the second takes the place of the first
		w.must(whole, "channel", "excuse", "--zone", "outside", "--by", "carol", "--reason", "asked by telephone", "--days", days, "late", "signed-after-expiry", "guix")
	}

	w.refusesInUse(d)
	kinds := w.kinds("inside")
	for _, zone := range []string{"inside", "outside"} {
		program := station
		if zone == "outside" {
			program = whole
		}
		before := w.tables(zone)
		for table, rows := range before {
			if outsides := slices.Contains([]string{"collected", "pin", "excuse"}, table); len(rows) == 0 && outsides == (zone == "outside") {
				t.Errorf("nothing has happened that makes a row of %s: this tests nothing of it", table)
			}
		}
		if zone == "outside" {
			// The newest shipment counts as numbered: its volume may not have been written.
			rows := before["shipment"]
			i := slices.IndexFunc(rows, func(row string) bool { return strings.HasPrefix(row, "3 ") })
			rows[i] = strings.Replace(rows[i], "'written'", "'numbered'", 1)
			slices.Sort(rows)
		}
		for range kills() {
			w.kill(time.Duration(dice.Int64N(int64(60*time.Millisecond))), program, "catalog", "rebuild", "--zone", zone)
		}
		w.must(program, "ledger", "verify", "--zone", zone)
		os.Remove(w.path(zone, "catalog.sqlite")) // lost
		w.must(program, "catalog", "rebuild", "--zone", zone)
		w.sameTables(w.tables(zone), before)
	}
	w.sound()
	after := w.kinds("inside")
	if after["rebuilt"] < 1 {
		t.Errorf("%v: no entry says that the catalog was made again", after)
	}
	delete(after, "rebuilt")
	if fmt.Sprint(after) != fmt.Sprint(kinds) {
		t.Errorf("entries %v, want %v", after, kinds)
	}

	// The work goes on: the proposal gets its second signature, narinfos are signed, and served.
	w.must(w.approveArgs(2, "bob")...)
	w.must(w.signArgs()...)
	d = w.depot()
	for _, it := range w.items(2) {
		if strings.HasSuffix(it.Name, "words-1") {
			continue
		}
		if r := w.reason(d, it.Name, w.acl()); r != "" {
			t.Errorf("%s is not served: %s", it.Name, r)
		}
	}
	w.tidy()
	// Outside the newest volume is written once more, and then comes the next.
	w.must(whole, "shipment", "create", "--zone", "outside", "--quiet", "--key", w.key("carol/manifest"), "--sums-key", w.key("carol/sums"), "--slip", "again.txt", "again")
	if a, b := read(t, w.path("again", "manifest")), read(t, w.path("volume-3", "manifest")); string(a) != string(b) {
		t.Error("another manifest under the number of a shipment that was written")
	}
}

// refusesInUse: while a depot runs the catalog stays, and it is said who uses it. Then the depot is stopped.
func (w *world) refusesInUse(d *depot) {
	w.t.Helper()
	r := w.code(failed, station, "catalog", "rebuild", "--zone", "inside")
	if !strings.Contains(string(r.stderr), fmt.Sprintf("pid %d", d.cmd.Process.Pid)) {
		w.t.Errorf("it does not say who has the zone open:\n%s", r.stderr)
	}
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// TestBackup: a zone is copied while it is served from, dies, and is put back; what was entered behind the copy is lost, so it waits for two officers, and
// then the work goes on.
func TestBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	d := w.depot()
	w.cosign()
	var made struct {
		Size       int64
		Root, Path string
	}
	w.get(&made, station, "backup", "create", "--zone", "inside", "--quiet", "backup.tar")
	if r := w.reason(d, w.items(1)[0].Name, w.acl()); r != "" {
		t.Errorf("the depot does not serve any more: %s", r)
	}
	copyTree(t, w.path("inside", "keys"), w.path("safe"))
	log := strings.TrimSpace(string(read(t, w.path("inside", "keys", "ledger.vkey"))))
	w.must(station, "backup", "verify", "--log", log, "backup.tar")
	fingerprint := w.fingerprint()

	// Work goes on, a witness sees it, and the disk dies.
	w.must(w.importArgs(3)...)
	w.cosign()
	d.cmd.Process.Kill()
	d.cmd.Wait()
	if err := os.Rename(w.path("inside"), w.path("dead")); err != nil {
		t.Fatal(err)
	}
	restore := []string{station, "backup", "restore", "--log", log, "--keys", "safe", "--newest", "wilma.state", "backup.tar", "inside"}
	w.refuses("backup-key", station, "backup", "restore", "backup.tar", "inside")
	for range kills() {
		w.kill(30*time.Millisecond, restore...)
		if _, err := os.Stat(w.path("inside")); err == nil {
			os.RemoveAll(w.path("inside"))
		}
	}
	r := w.code(waiting, restore...)
	if !strings.Contains(string(r.stdout), "entries that others have seen") || !strings.Contains(string(r.stderr), fmt.Sprintf("order restored %d %s", made.Size, made.Root)) {
		t.Errorf("it does not say what is lost and what is to be done: %v", r)
	}
	if got := w.fingerprint(); got != fingerprint {
		t.Errorf("the first root is %s, was %s", got, fingerprint)
	}
	// It waits: nothing but roots and orders.
	if r := w.run(w.importArgs(3)...); r.code == done || !strings.Contains(string(r.stderr), "zone-restored") {
		t.Errorf("imported: %v", r)
	}
	w.order("order", "restored", "--reason", "the disk died", fmt.Sprint(made.Size), made.Root)
	w.must(w.importArgs(3)...) // once more
	w.sound()
	w.tidy()
	if k := w.kinds("inside"); k["restored"] != 1 {
		t.Errorf("%v", k)
	}
	if r := w.reason(w.depot(), w.items(1)[0].Name, w.acl()); r != "" {
		t.Errorf("the depot does not serve: %s", r)
	}

	// What survived of the dead zone were its published directory and its blobs: with that nothing is lost, and nobody is asked.
	w.refuses("rebuild-missing", station, "backup", "restore", "--log", log, "--keys", "safe", "--public", "dead/public", "--newest", "wilma.state", "backup.tar", "third")
	w.must(station, "backup", "restore", "--log", log, "--keys", "safe", "--public", "dead/public", "--blobs", "dead/cas", "--newest", "wilma.state", "backup.tar", "third")
	w.must(station, "ledger", "verify", "--zone", "third")
	if a, b := len(w.entries("third")), len(w.entries("dead")); a != b+1 {
		t.Errorf("%d entries, the dead zone had %d", a, b)
	}
}
