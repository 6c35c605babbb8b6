package rebuild_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/narinfo"
	"sallyport/guix/storepath"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/enclavetest"
	"sallyport/internal/keep/rebuild"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// childEnv makes this test binary a process that rebuilds a zone until it is killed.
const childEnv = "SALLYPORT_REBUILD_CHILD"

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(childEnv); ok {
		fmt.Println("begun")
		if _, err := run(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func run(dir string) (*store.Replaced, error) {
	return rebuild.Run(context.Background(), dir, store.ReplaceOptions{Options: store.Options{Clock: func() time.Time { return enclavetest.Epoch.Add(24 * time.Hour) }}})
}

// lived makes an inside zone with documents, shipments, votes, narinfos and a cosignature, and closes it. That the stages write these
// very rows is tested where the stages are.
func lived(t *testing.T) string {
	t.Helper()
	ctx := context.Background()
	e := enclavetest.New(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	e.NextRoot(func(r *trust.Root) {
		r.Keys = append(r.Keys, enclavetest.Key(t, "wilma/witness").RootKey())
		r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleWitness, Person: "wilma"})
	})
	a, b := e.Source("a-1.0", "a\n"), e.Source("b-1.0", "b\n")
	hello := e.Derivation("hello-1.0", a, b)
	e.Quarantine("dave", a, b, hello)
	e.Quarantine("eve", b, e.SourceOf("twin", a.Data))
	e.Allow("dev", a, b, hello)
	e.Allow("dev", e.Source("c-1.0", "c\n"))
	e.Allow("prod", a)
	// Submissions: one that waits, one that was rejected, one that is allowed.
	for i, what := range []string{"1", "2", "3"} {
		commit := strings.Repeat(what, 40)
		own := enclavetest.Content{Item: trust.Item{Kind: trust.KindChannel}, Data: []byte("pack " + what)}
		own.SHA256, own.Size = trust.Sum(own.Data), int64(len(own.Data))
		path, err := storepath.Source("ours-channel-"+commit, own.SHA256)
		must(err)
		own.Name = path.Base()
		n := e.Submit("dave", own, commit, "-")
		switch i {
		case 1:
			r := statement.Rejection{Enclave: enclavetest.Name, Arrival: n, Digest: own.SHA256, Date: e.Clock(), Reason: "no"}
			kind, predicate, err := r.Predicate(enclavetest.Key(t, "alice/allowlist"))
			must(err)
			e.Commit(func(tx *store.Tx) error {
				return errors.Join(tx.Statement(kind, []statement.Subject{{Name: statement.Arrived(n), SHA256: own.SHA256}}, predicate),
					tx.Exec(ctx, "UPDATE shipment SET state = 'rejected' WHERE number = ?", n))
			})
		case 2:
			e.Allow("dev", own)
		}
	}
	e.Order(func(o *trust.Orders) {
		for _, c := range []enclavetest.Content{a, b} {
			o.Recalls = append(o.Recalls, trust.Recall{SHA256: c.SHA256, Name: c.Name, Date: o.Date, Reason: "bad"})
		}
	})
	e.Order(func(o *trust.Orders) {
		o.Lost = append(o.Lost, trust.Lost{Shipment: 9, Date: o.Date, Reason: "lost on the way"})
	})
	out := enclavetest.Out{Path: hello.Output("out"), Nar: enclavetest.Nar("hello\n"), References: []string{}}
	e.Vote("erin", hello, out)
	e.Vote("frank", hello, out)

	// A proposal that waits, and signed narinfos.
	l := e.List("prod", b)
	text := e.Put(l.Text())
	line, err := trust.SignText(l.Text(), enclavetest.Key(t, "rita/allowlist"))
	must(err)
	path, err := storepath.Parse(hello.Path())
	must(err)
	info := &narinfo.NarInfo{StorePath: path, NarHash: hello.SHA256, NarSize: 8, Files: []narinfo.File{{URL: "nar/x", Compression: "none", FileSize: 8}}}
	body, err := narinfo.Sign(info, "keep", enclavetest.TrackKey(t, "dev"))
	must(err)
	bundle, err := attach.Narinfos([]attach.Narinfo{{Path: path, Content: hello.SHA256, Form: "flat", Body: body}})
	must(err)
	bodies := e.Put(bundle)
	e.Commit(func(tx *store.Tx) error {
		return errors.Join(
			tx.Statement(statement.KindApproved, []statement.Subject{{Name: "allowlist prod 2", SHA256: text}}, map[string]any{"track": "prod", "version": int64(2), "shipment": int64(2), "person": "rita", "signature": line}),
			tx.Exec(ctx, "INSERT INTO proposal (track, version, shipment, text) VALUES ('prod', 2, 2, ?)", text.String()),
			tx.Exec(ctx, "INSERT INTO proposal_signature (track, person, line) VALUES ('prod', 'rita', ?)", line),
			tx.Statement(statement.KindSigned, []statement.Subject{{Name: path.Base(), SHA256: trust.Sum(body)}}, map[string]any{"track": "dev", "narinfos": bodies.String()}),
			tx.Attach(ctx, bodies),
			tx.Exec(ctx, "INSERT INTO narinfo (track, hash, path, body, nar, blob, form) VALUES ('dev', ?, ?, ?, ?, ?, 'flat')", path.Hash(), path.String(), body, hello.SHA256.String(), hello.SHA256.String()))
	})
	e.Renew(trust.ContextStatement)
	note, err := store.Witness(filepath.Join(t.TempDir(), "state"), e.Zone.LedgerFS(), e.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), e.Clock())
	must(err)
	e.Renew(trust.ContextCheckpoint) // it cosigned what the former key signed
	_, _, err = e.Zone.AddCosigned(ctx, note)
	must(err)
	must(e.Zone.Close())
	return e.Zone.Dir
}

// dump prints every table of a closed zone's catalog but the checkpoints, and of the entries the first ones.
func dump(t *testing.T, dir string, entries int64) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "catalog.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	query := func(q string, args ...any) (lines []string) {
		t.Helper()
		rows, err := db.Query(q, args...)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		defer rows.Close()
		cols, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
			for i := range vals {
				ptrs[i] = &vals[i]
			}
			if err := rows.Scan(ptrs...); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%q", vals))
		}
		return lines
	}
	out := map[string]string{"schema": strings.Join(query("SELECT type, name, sql FROM sqlite_master ORDER BY type, name"), "\n")}
	for _, name := range query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'") {
		name = strings.Trim(name, `[]"`)
		switch {
		case name == "checkpoint":
		case name == "entry":
			out[name] = strings.Join(query("SELECT * FROM entry WHERE idx < ? ORDER BY 1", entries), "\n")
		default:
			lines := query("SELECT * FROM " + name)
			slices.Sort(lines)
			out[name] = strings.Join(lines, "\n")
		}
	}
	return out
}

func differ(t *testing.T, have, want map[string]string) {
	t.Helper()
	if !slices.Equal(slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want))) {
		t.Errorf("tables %v, want %v", slices.Sorted(maps.Keys(have)), slices.Sorted(maps.Keys(want)))
	}
	for name := range want {
		a, b := strings.Split(have[name], "\n"), strings.Split(want[name], "\n")
		if i := slices.IndexFunc(a, func(line string) bool { return !slices.Contains(b, line) }); i >= 0 {
			t.Errorf("table %s: there is %.300s, which was not", name, a[i])
		}
		if i := slices.IndexFunc(b, func(line string) bool { return !slices.Contains(a, line) }); i >= 0 {
			t.Errorf("table %s: there was %.300s, which is not", name, b[i])
		}
		if len(a) != len(b) {
			t.Errorf("table %s: %d rows, want %d", name, len(a), len(b))
		}
	}
}

// openWhole opens a zone and checks its whole ledger, and what the last entry is.
func openWhole(t *testing.T, dir string, last string) {
	t.Helper()
	ctx := context.Background()
	z, err := store.Open(ctx, dir, store.Options{Clock: func() time.Time { return enclavetest.Epoch.Add(25 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var leaf []byte
	if err := z.Verify(ctx, func(_ int64, l []byte) error { leaf = bytes.Clone(l); return nil }); err != nil {
		t.Error(err)
	}
	e, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if e.Kind() != last {
		t.Errorf("the last entry is %q, want %q", e.Kind(), last)
	}
	if _, err := z.Root(); err != nil {
		t.Error(err)
	}
	if err := z.Commit(ctx, func(tx *store.Tx) error {
		return tx.Statement(statement.KindCollected, []statement.Subject{{Name: "x", SHA256: trust.Sum(nil)}}, map[string]any{"items": int64(0), "bytes": int64(0), "request": trust.Sum(nil).String()})
	}); err != nil {
		t.Error(err)
	}
}

func size(t *testing.T, dir string) int64 {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "catalog.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var n int64
	if err := db.QueryRow("SELECT count(*) FROM entry").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func copyZone(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "zone")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ledger.key", "station.key"} {
		if err := os.Chmod(filepath.Join(to, "keys", key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// Where the channels of an outside stand, and what is excused there, comes back; what is no pin does not.
func TestRebuildPins(t *testing.T) {
	ctx := t.Context()
	z := enclavetest.Outside(t, func() time.Time { return enclavetest.Epoch })
	date := trust.FormatDate(enclavetest.Epoch)
	add := func(number int, channel string, text []byte) {
		t.Helper()
		digest := trust.Sum(text)
		if _, err := z.CAS.PutBytes(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Commit(ctx, func(tx *store.Tx) error {
			return errors.Join(tx.Statement(statement.KindPinned, []statement.Subject{{Name: channel, SHA256: digest}}, map[string]any{"channel": channel, "commit": strings.Repeat("1", 40), "from": "-"}),
				tx.Attach(ctx, digest),
				tx.Exec(ctx, `INSERT INTO pin (channel, number, digest, text, added) VALUES (?, ?, ?, ?, ?)`, channel, number, digest.String(), text, date))
		}); err != nil {
			t.Fatal(err)
		}
	}
	p := pin.Pin{Channel: "guix", URL: "https://example.org/x", Branch: "master", Introduction: git.ID{1}, Signer: openpgp.Fingerprint{4}, Keyring: git.ID{2}, Commit: git.ID{3}, NarSize: 9}
	add(1, "guix", p.Text())
	p.Commit = git.ID{4}
	add(2, "guix", p.Text())
	p.Channel = "nonguix"
	add(1, "nonguix", p.Text())
	excuse := func(reason string) {
		t.Helper()
		if err := z.Commit(ctx, func(tx *store.Tx) error {
			return errors.Join(tx.Statement(statement.KindExcused, []statement.Subject{{Name: "guix", SHA256: trust.Sum(nil)}}, map[string]any{"name": "odd", "code": "weak-key", "channel": "guix", "commit": "-", "key": "-",
				"until": "2026-04-01T00:00:00Z", "person": "carol", "reason": reason}),
				tx.Exec(ctx, `INSERT OR REPLACE INTO excuse (name, code, channel, about, key, until, person, reason, added) VALUES ('odd', 'weak-key', 'guix', '-', '-', '2026-04-01T00:00:00Z', 'carol', ?, ?)`, reason, date))
		}); err != nil {
			t.Fatal(err)
		}
	}
	excuse("the first")
	excuse("another of the same name")
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	dir := z.Dir
	n := size(t, dir)
	before := dump(t, dir, n)
	if _, err := run(dir); err != nil {
		t.Fatal(err)
	}
	differ(t, dump(t, dir, n), before)

	z, err := store.Open(ctx, dir, store.Options{Clock: func() time.Time { return enclavetest.Epoch.Add(25 * time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	add(3, "guix", []byte("no pin"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = run(dir)
	enclavetest.WantCodes(t, err, "rebuild-digest")
}

// The rows come back as they were; the former catalog is kept; a second time works as well.
func TestRebuild(t *testing.T) {
	dir := lived(t)
	n := size(t, dir)
	before := dump(t, dir, n)
	for round := range int64(2) {
		r, err := run(dir)
		if err != nil {
			t.Fatal(err)
		}
		if r.Fault != nil || r.From.Size != n+round || r.Aside != fmt.Sprintf("%s.%d", filepath.Join(dir, "catalog.sqlite"), round+1) {
			t.Errorf("%+v", r)
		}
		differ(t, dump(t, dir, n), before)
		if got := size(t, dir); got != n+round+1 {
			t.Errorf("%d entries, want %d", got, n+round+1)
		}
	}
	openWhole(t, dir, statement.KindRebuilt)
	if left, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(left) > 0 {
		t.Errorf("%d temporary files stay", len(left))
	}
}

// However the catalog was lost, the new one is the same; what was committed and not published comes along if the former catalog still works.
func TestLosses(t *testing.T) {
	whole := lived(t)
	n := size(t, whole)
	before := dump(t, whole, n)
	path := func(dir, name string) string { return filepath.Join(dir, name) }
	for what, v := range map[string]struct {
		spoil func(dir string) error
		fault bool
		aside bool
	}{
		"nothing": {func(dir string) error { return nil }, false, true},
		"gone":    {func(dir string) error { return os.Remove(path(dir, "catalog.sqlite")) }, true, false},
		"cut":     {func(dir string) error { return os.Truncate(path(dir, "catalog.sqlite"), 8192) }, true, true},
		"garbage": {func(dir string) error {
			return os.WriteFile(path(dir, "catalog.sqlite"), bytes.Repeat([]byte("x"), 9000), 0o644)
		}, true, true},
		"a stranger's log": {func(dir string) error {
			return errors.Join(os.Remove(path(dir, "catalog.sqlite")), os.WriteFile(path(dir, "catalog.sqlite-wal"), bytes.Repeat([]byte("x"), 9000), 0o644))
		}, true, false},
		"an old one": {func(dir string) error {
			db, err := sql.Open("sqlite", path(dir, "catalog.sqlite"))
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec("DELETE FROM entry WHERE idx > 3; DELETE FROM checkpoint WHERE size > 4; DELETE FROM item")
			return err
		}, true, true},
		"rows edited": {func(dir string) error {
			db, err := sql.Open("sqlite", path(dir, "catalog.sqlite"))
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec("UPDATE shipment SET state = 'admitted', importer = 'nobody'; DELETE FROM built; INSERT INTO agreed VALUES ('x', 1); UPDATE root SET note = x'00' WHERE version = 2")
			return err
		}, false, true},
		"another version": {func(dir string) error {
			db, err := sql.Open("sqlite", path(dir, "catalog.sqlite"))
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec("PRAGMA user_version = 77")
			return err
		}, true, true},
	} {
		dir := copyZone(t, whole)
		if err := v.spoil(dir); err != nil {
			t.Fatal(err)
		}
		r, err := run(dir)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if (r.Fault != nil) != v.fault || (r.Aside != "") != v.aside || r.From.Size != n {
			t.Errorf("%s: %+v", what, r)
		}
		differ(t, dump(t, dir, n), before)
		openWhole(t, dir, statement.KindRebuilt)
	}
}

// All that is missing or wrong is named, and the former catalog stays.
func TestRefused(t *testing.T) {
	whole := lived(t)
	manifest := ""
	db, err := sql.Open("sqlite", filepath.Join(whole, "catalog.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	var bundle string
	if err := db.QueryRow("SELECT (SELECT manifest FROM shipment WHERE number = 1), (SELECT sha256 FROM attachment)").Scan(&manifest, &bundle); err != nil {
		t.Fatal(err)
	}
	db.Close()
	blob := func(d string) string { return filepath.Join("cas", d[:2], d) }
	remove := func(name string) func(dir string) {
		return func(dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(name string, at int) func(dir string) {
		return func(dir string) {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			b[at] ^= 1
			os.Chmod(filepath.Join(dir, name), 0o644)
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, v := range map[string]struct {
		spoil func(dir string)
		codes []string
	}{
		"root":      {remove("public/root/1"), []string{"rebuild-missing"}},
		"root text": {flip("public/root/2", 60), []string{"rebuild-digest"}},
		"orders":    {remove("public/orders/2"), []string{"rebuild-missing"}},
		"lists":     {func(dir string) { remove("public/allowlist/dev/1")(dir); remove("public/allowlist/prod/1")(dir) }, []string{"rebuild-missing", "rebuild-missing"}},
		"manifest":  {remove(blob(manifest)), []string{"rebuild-missing"}},
		"rotten":    {flip(blob(manifest), 30), []string{"rebuild-digest"}},
		"narinfos":  {remove(blob(bundle)), []string{"rebuild-missing", "rebuild-missing"}},
		"cosigned": {func(dir string) { // a catalog that works would mend it
			flip("public/witness/wilma", 30)(dir)
			if err := os.WriteFile(filepath.Join(dir, "catalog.sqlite"), bytes.Repeat([]byte("x"), 9000), 0o644); err != nil {
				t.Fatal(err)
			}
		}, []string{"checkpoint-signature"}},
		"tile":       {flip("public/ledger/tile/0/000.p/"+fmt.Sprint(size(t, whole)), 40), []string{"ledger-entry"}},
		"checkpoint": {flip("public/ledger/checkpoint", 33), nil},
	} {
		dir := copyZone(t, whole)
		v.spoil(dir)
		was, err := os.ReadFile(filepath.Join(dir, "catalog.sqlite"))
		if err != nil {
			t.Fatal(err)
		}
		_, err = run(dir)
		rs, ok := trust.AsRefusals(err)
		if !ok {
			t.Errorf("%s: %v", what, err)
			continue
		}
		codes := rs.Codes()
		if v.codes != nil && !slices.Equal(codes, v.codes) {
			t.Errorf("%s: %v, want %v\n%v", what, codes, v.codes, err)
		}
		if now, err := os.ReadFile(filepath.Join(dir, "catalog.sqlite")); err != nil || !bytes.Equal(now, was) {
			t.Errorf("%s: the former catalog was changed: %v", what, err)
		}
	}
}

// A zone that is in use keeps its catalog.
func TestInUse(t *testing.T) {
	dir := lived(t)
	z, err := store.Open(context.Background(), dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var locked *store.LockedError
	if _, err := run(dir); !errors.As(err, &locked) {
		t.Error(err)
	}
	z.Close()
	if _, err := run(t.TempDir()); !errors.Is(err, store.ErrNoZone) {
		t.Error(err)
	}
	if _, err := run(dir); err != nil {
		t.Error(err)
	}
}

// Killed anywhere, the zone has the former catalog or the new one, opens, and the same call can be made again.
func TestKill(t *testing.T) {
	whole := lived(t)
	n := size(t, whole)
	before := dump(t, whole, n)
	dir := copyZone(t, whole)
	whenever := func() time.Duration { return rand.N(60 * time.Millisecond) }
	for range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 6)
		out.Read(word) // "begun": before that nothing can have happened
		time.Sleep(whenever())
		cmd.Process.Kill()
		cmd.Wait()
		z, err := store.Open(context.Background(), dir, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := z.Verify(context.Background(), nil); err != nil {
			t.Error(err)
		}
		z.Close()
		differ(t, dump(t, dir, n), before)
	}
	if _, err := run(dir); err != nil {
		t.Error(err)
	}
	differ(t, dump(t, dir, n), before)
	openWhole(t, dir, statement.KindRebuilt)
}
