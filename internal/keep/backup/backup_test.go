package backup_test

import (
	"archive/tar"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/keep/backup"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// childEnv makes this test binary a process that backs a zone up, or puts one back, until it is killed: WHAT:FROM:TO.
const childEnv = "SALLYPORT_BACKUP_CHILD"

func TestMain(m *testing.M) {
	words := strings.Split(os.Getenv(childEnv), ":")
	if len(words) != 3 {
		os.Exit(m.Run())
	}
	err := func() error {
		fmt.Println("begun")
		if words[0] == "restore" {
			_, err := backup.Restore(context.Background(), words[1], words[2], backup.RestoreOptions{Options: store.Options{Clock: later}})
			return err
		}
		z, err := store.Open(context.Background(), words[1], store.Options{Clock: later})
		if err != nil {
			return err
		}
		_, err = backup.Create(context.Background(), z, words[2], backup.Options{WithKeys: true})
		return err
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func later() time.Time { return enclavetest.Epoch.Add(24 * time.Hour) }

type bench struct {
	*enclavetest.Enclave
	t     *testing.T
	dir   string // for backups
	state string // the witness's
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{enclavetest.New(t), t, t.TempDir(), filepath.Join(t.TempDir(), "state")}
	b.NextRoot(func(r *trust.Root) {
		r.Keys = append(r.Keys, enclavetest.Key(t, "wilma/witness").RootKey())
		r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleWitness, Person: "wilma"})
	})
	b.Quarantine("dave", b.Source("a-1.0", "a\n"), b.Source("b-1.0", strings.Repeat("b\n", 10_000)))
	b.Allow("dev", b.Source("a-1.0", "a\n"))
	return b
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) create(name string, keys bool) string {
	b.t.Helper()
	to := filepath.Join(b.dir, name)
	_, err := backup.Create(b.t.Context(), b.Zone, to, backup.Options{WithKeys: keys})
	b.must(err)
	return to
}

func (b *bench) note(n int64) {
	b.t.Helper()
	b.Commit(func(tx *store.Tx) error {
		return tx.Statement(statement.KindInspected, []statement.Subject{{Name: "x", SHA256: trust.Sum(fmt.Append(nil, n))}}, map[string]any{"files": n, "bytes": n, "findings": map[string]any{}, "confinement": map[string]any{}})
	})
}

func (b *bench) witness() []byte {
	b.t.Helper()
	note, err := store.Witness(b.state, b.Zone.LedgerFS(), b.Zone.LedgerVKey(), enclavetest.Key(b.t, "wilma/witness"), b.Clock())
	b.must(err)
	return note
}

func (b *bench) restore(from string, opts backup.RestoreOptions) (*backup.Restored, string, error) {
	b.t.Helper()
	to := filepath.Join(b.t.TempDir(), "zone")
	opts.Clock = b.Clock
	r, err := backup.Restore(b.t.Context(), from, to, opts)
	if _, gone := os.Stat(to); err != nil && gone == nil {
		b.t.Errorf("something is left of a restore that failed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(to), ".*")); len(left) > 0 {
		b.t.Errorf("%v stays", left)
	}
	return r, to, err
}

func (b *bench) size() int64 {
	b.t.Helper()
	_, c, err := b.Zone.Checkpoint()
	b.must(err)
	return c.Size
}

func code(err error) string {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return fmt.Sprint(err)
	}
	return strings.Join(rs.Codes(), " ")
}

// open opens a restored zone, and checks its ledger.
func (b *bench) open(dir string) *store.Zone {
	b.t.Helper()
	z, err := store.Open(b.t.Context(), dir, store.Options{Clock: b.Clock})
	b.must(err)
	b.t.Cleanup(func() { z.Close() })
	b.must(z.Verify(b.t.Context(), nil))
	return z
}

// A directory and an archive hold the same, are verified, and give the zone back: every blob, row and document, and the zone goes on where nothing was lost.
func TestRoundTrip(t *testing.T) {
	b := newBench(t)
	var manifests []*backup.Checked
	for _, name := range []string{"dir", "file.tar"} {
		from := b.create(name, true)
		c, err := backup.Verify(t.Context(), from, backup.VerifyOptions{Ledger: b.Zone.LedgerVKey()})
		b.must(err)
		if len(c.Lost) > 0 || !c.Keys || c.Checkpoint.Size != b.size() {
			t.Errorf("%+v", c)
		}
		manifests = append(manifests, c)
		r, to, err := b.restore(from, backup.RestoreOptions{Newest: []string{b.Zone.Dir}})
		b.must(err)
		if r.Waits || r.Evidence != b.size() {
			t.Errorf("%+v", r)
		}
		z := b.open(to)
		before, mine := b.State(), b.Zone
		b.Zone = z
		if b.State() != before {
			t.Errorf("%s: the restored zone has other rows or blobs", name)
		}
		b.Zone = mine
		if err := z.Commit(t.Context(), func(tx *store.Tx) error {
			return tx.Statement(statement.KindCollected, []statement.Subject{{Name: "x", SHA256: trust.Sum(nil)}}, map[string]any{"items": int64(1), "bytes": int64(1), "request": trust.Sum(nil).String()})
		}); err != nil {
			t.Error(err)
		}
	}
	if !slices.EqualFunc(manifests[0].Files, manifests[1].Files, func(x, y backup.File) bool {
		return x.Path == y.Path && (x == y || x.Path == "catalog.sqlite")
	}) {
		t.Error("directory and archive hold different files")
	}
	// Blobs are links where that is possible, and everything but blobs is not.
	for _, name := range []string{"zone.toml", "cas/" + blobPath(b, "a\n")} {
		one, err := os.Stat(filepath.Join(b.Zone.Dir, name))
		b.must(err)
		two, err := os.Stat(filepath.Join(b.dir, "dir", name))
		b.must(err)
		if os.SameFile(one, two) != strings.HasPrefix(name, "cas/") {
			t.Errorf("%s: linked %v", name, os.SameFile(one, two))
		}
	}
	if left, _ := filepath.Glob(filepath.Join(b.dir, ".*")); len(left) > 0 {
		t.Errorf("%v stays", left)
	}
	if _, err := backup.Create(t.Context(), b.Zone, filepath.Join(b.dir, "dir"), backup.Options{}); !errors.Is(err, backup.ErrExists) {
		t.Error("written over:", err)
	}
	if _, err := backup.Create(t.Context(), b.Zone, filepath.Join(b.Zone.Dir, "backup"), backup.Options{}); err == nil {
		t.Error("a backup in the zone itself")
	}
	if _, err := backup.Restore(t.Context(), filepath.Join(b.dir, "dir"), b.Zone.Dir, backup.RestoreOptions{}); !errors.Is(err, fs.ErrExist) {
		t.Error("restored over a zone:", err)
	}
}

func blobPath(b *bench, content string) string {
	d := b.Source("x", content).SHA256.String()
	return d[:2] + "/" + d
}

// A backup that is made while others commit is one moment of the zone.
func TestInUse(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	other, err := store.Open(t.Context(), b.Zone.Dir, store.Options{Clock: b.Clock})
	b.must(err)
	defer other.Close()
	for k, z := range []*store.Zone{b.Zone, other} {
		wg.Go(func() {
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				blob, err := z.CAS.PutBytes(fmt.Append(nil, k, n))
				if err == nil {
					err = z.Commit(t.Context(), func(tx *store.Tx) error {
						return errors.Join(
							tx.Statement(statement.KindCollected, []statement.Subject{{Name: "x", SHA256: blob}}, map[string]any{"items": n, "bytes": n, "request": trust.Sum(nil).String()}),
							tx.Attach(t.Context(), blob), tx.Publish(fmt.Sprintf("note/%d/%d", k, n), fmt.Append(nil, n)))
					})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 4 {
		from := b.create(fmt.Sprintf("backup%d%s", i, []string{"", ".tar"}[i%2]), true)
		c, err := backup.Verify(t.Context(), from, backup.VerifyOptions{})
		if err != nil || len(c.Lost) > 0 {
			t.Error(c, err)
		}
		r, to, err := b.restore(from, backup.RestoreOptions{Newest: []string{from}})
		if i%2 == 1 {
			r, to, err = b.restore(from, backup.RestoreOptions{})
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if r.Waits != (i%2 == 1) {
			t.Errorf("%+v", r)
		}
		b.open(to)
	}
	close(stop)
	wg.Wait()
}

// The secret keys are in a backup only if asked for; without them they come from elsewhere, and must be the right ones.
func TestKeys(t *testing.T) {
	b := newBench(t)
	from := b.create("dir", false)
	for _, name := range []string{"ledger.key", "station.key"} {
		if _, err := os.Stat(filepath.Join(from, "keys", name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is in the backup: %v", name, err)
		}
	}
	here := []string{b.Zone.Dir}
	if _, _, err := b.restore(from, backup.RestoreOptions{Newest: here}); code(err) != "backup-key backup-key" {
		t.Error(err)
	}
	if _, _, err := b.restore(from, backup.RestoreOptions{Newest: here, Keys: filepath.Join(b.stranger(), "keys")}); code(err) != "backup-key backup-key" {
		t.Error(err)
	}
	_, to, err := b.restore(from, backup.RestoreOptions{Newest: here, Keys: filepath.Join(b.Zone.Dir, "keys")})
	b.must(err)
	b.open(to)
	for _, name := range []string{"keys", "keys/ledger.key", "keys/station.key"} {
		if fi, err := os.Stat(filepath.Join(to, name)); err != nil || fi.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, others must not read it", name, fi.Mode())
		}
	}
	if _, err := backup.Verify(t.Context(), from, backup.VerifyOptions{Ledger: b.Zone.StationVKey()}); code(err) != "backup-key" {
		t.Error(err)
	}
}

// TestKeysChanged: the zone got other keys after the backup was made.
func TestKeysChanged(t *testing.T) {
	b := newBench(t)
	with, without := b.create("with", true), b.create("without", false)
	early := b.witness()
	b.Renew(trust.ContextCheckpoint)
	b.Renew(trust.ContextStatement)
	b.note(1)
	b.witness()
	after := b.create("after", true)
	public, now := filepath.Join(b.Zone.Dir, "public"), filepath.Join(b.Zone.Dir, "keys")
	var roots [][]byte
	for n := 3; ; n++ {
		note, err := b.Zone.ReadPublic(fmt.Sprintf("root/%d", n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		b.must(err)
		roots = append(roots, note)
	}
	goesOn := func(dir string) {
		t.Helper()
		z := b.open(dir)
		if z.LedgerVKey().String() != b.Zone.LedgerVKey().String() || z.StationVKey().String() != b.Zone.StationVKey().String() {
			t.Error("not with the new keys")
		}
		if _, err := z.OpenCheckpoint(early); err != nil {
			t.Error(err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "keys", "*.next.*")); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
	}
	// After it there is nothing particular; what is at hand may be from before.
	_, to, err := b.restore(after, backup.RestoreOptions{Newest: []string{b.Zone.Dir, b.state}})
	b.must(err)
	goesOn(to)
	// What was published survived: the catalog is made again, whether or not the former secrets are there.
	for _, from := range []string{with, without} {
		r, to, err := b.restore(from, backup.RestoreOptions{Public: public, Keys: now, Newest: []string{b.state}})
		if err != nil || r.Waits {
			t.Fatalf("%+v, %v", r, err)
		}
		goesOn(to)
	}
	// It did not, but the roots are here. Entries are lost, so it waits; the keys change once more, by the same root.
	r, to, err := b.restore(with, backup.RestoreOptions{Newest: []string{b.state}, Keys: now, Roots: roots})
	if err != nil || !r.Waits {
		t.Fatalf("%+v, %v", r, err)
	}
	goesOn(to)
	// Without the roots nobody knows these keys, and without the former secrets nothing can be signed.
	if _, _, err := b.restore(with, backup.RestoreOptions{Keys: now}); code(err) != "backup-key backup-key" {
		t.Error(err)
	}
	if _, _, err := b.restore(without, backup.RestoreOptions{Newest: []string{b.state}, Keys: now, Roots: roots}); code(err) != "backup-key backup-key" {
		t.Error(err)
	}
	// And a root that names keys which the zone has not yet is refused.
	if _, _, err := b.restore(with, backup.RestoreOptions{Roots: roots}); code(err) != "key-unnamed" {
		t.Error(err)
	}
	// The thief of the former key signs what was published behind the change, as if it had survived.
	secret, err := os.ReadFile(filepath.Join(with, "keys", "ledger.key"))
	b.must(err)
	stolen, err := trust.ParseKey(secret, nil)
	b.must(err)
	_, at, err := b.Zone.Checkpoint()
	b.must(err)
	note, err := ledger.SignCheckpoint(at, stolen)
	b.must(err)
	thief := filepath.Join(t.TempDir(), "public")
	b.must(os.CopyFS(thief, os.DirFS(public)))
	b.must(os.WriteFile(filepath.Join(thief, "ledger", "checkpoint"), note, 0o644))
	// Without the new keys, too, for which the catalog that is made again would ask in vain.
	for _, keys := range []string{now, ""} {
		if _, _, err := b.restore(with, backup.RestoreOptions{Public: thief, Keys: keys}); code(err) != "key-replaced" {
			t.Errorf("what the thief published, keys from %q: %v", keys, err)
		}
	}
	// Or he makes a backup of it, with the only key that he has.
	forged := filepath.Join(t.TempDir(), "forged")
	b.must(os.CopyFS(forged, os.DirFS(after)))
	for name, data := range map[string][]byte{"public/ledger/checkpoint": note, "keys/ledger.key": secret, "keys/ledger.vkey": []byte(stolen.VKey().String() + "\n")} {
		b.must(os.WriteFile(filepath.Join(forged, name), data, 0o600))
	}
	db, err := sql.Open("sqlite", filepath.Join(forged, "catalog.sqlite"))
	b.must(err)
	_, err = db.Exec("UPDATE checkpoint SET note = ? WHERE size = ?", note, at.Size)
	b.must(errors.Join(err, db.Close()))
	remake(t, forged)
	for _, paper := range []trust.VKey{{}, stolen.VKey()} {
		if _, err := backup.Verify(t.Context(), forged, backup.VerifyOptions{Ledger: paper}); code(err) != "key-replaced" {
			t.Errorf("a backup that the thief made: %v", err)
		}
		if _, _, err := b.restore(forged, backup.RestoreOptions{Ledger: paper}); code(err) != "key-replaced" {
			t.Errorf("put back, a backup that the thief made: %v", err)
		}
	}
	if _, err := backup.Verify(t.Context(), forged, backup.VerifyOptions{Ledger: b.Zone.LedgerVKey()}); code(err) != "backup-key" {
		t.Errorf("with the key on paper: %v", err)
	}
	// One that was made before is as good as it was.
	if _, err := backup.Verify(t.Context(), with, backup.VerifyOptions{Ledger: stolen.VKey()}); err != nil {
		t.Error(err)
	}
	// What survived is signed by a key that the newest root at hand does not name: that may be old, or the thief's. Officers decide.
	if r, _, err := b.restore(with, backup.RestoreOptions{Public: filepath.Join(with, "public"), Keys: now, Roots: roots}); err != nil || !r.Waits || !r.Former {
		t.Errorf("signed by a former key: %+v, %v", r, err)
	}
	// The first root, compared with the fingerprint that officers give.
	first, err := b.Zone.ReadPublic("root/1")
	b.must(err)
	text, _, err := trust.SplitNote("root", first, trust.MaxRootSize)
	b.must(err)
	if _, _, err := b.restore(after, backup.RestoreOptions{Newest: []string{b.state}, Root: trust.Sum(text)}); err != nil {
		t.Error(err)
	}
	if _, _, err := b.restore(after, backup.RestoreOptions{Newest: []string{b.state}, Root: trust.Sum(nil)}); code(err) != "root-pin" {
		t.Errorf("another enclave's fingerprint: %v", err)
	}
	z, err := store.Open(t.Context(), b.stranger(), store.Options{Clock: b.Clock})
	b.must(err)
	rootless := filepath.Join(t.TempDir(), "rootless")
	_, err = backup.Create(t.Context(), z, rootless, backup.Options{WithKeys: true})
	b.must(errors.Join(err, z.Close()))
	if _, _, err := b.restore(rootless, backup.RestoreOptions{}); err != nil {
		t.Errorf("of a zone that has no root: %v", err)
	}
	if _, _, err := b.restore(rootless, backup.RestoreOptions{Root: trust.Sum(text)}); code(err) != "root-missing" {
		t.Errorf("no root for the fingerprint: %v", err)
	}
}

// remake writes the manifest of a backup again, as whoever holds the medium can.
func remake(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := backup.ParseManifest(text)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range m.Files {
		data, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f.Path)))
		if err != nil {
			t.Fatal(err)
		}
		m.Files[i].SHA256, m.Files[i].Size = trust.Sum(data), int64(len(data))
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest"), m.Text(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// stranger makes a zone of the same name with other keys.
func (b *bench) stranger() string {
	b.t.Helper()
	dir := filepath.Join(b.t.TempDir(), "zone")
	cfg, err := store.NewConfig(store.Inside, enclavetest.Name)
	b.must(err)
	b.must(store.Init(dir, cfg, b.Clock, zeros{}))
	return dir
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// Every fault of a backup is named, by verify and by restore, and nothing is put back.
func TestFaults(t *testing.T) {
	b := newBench(t)
	whole := b.create("dir", true)
	blob := "cas/" + blobPath(b, "a\n")
	write := func(name, text string) func(dir string) {
		return func(dir string) {
			path := filepath.Join(dir, name)
			os.MkdirAll(filepath.Dir(path), 0o755)
			os.Remove(path) // not through a link
			b.must(os.WriteFile(path, []byte(text), 0o644))
		}
	}
	flip := func(name string) func(dir string) {
		return func(dir string) {
			data, err := os.ReadFile(filepath.Join(dir, name))
			b.must(err)
			data[len(data)/2] ^= 1
			write(name, string(data))(dir)
		}
	}
	remove := func(name string) func(dir string) {
		return func(dir string) { b.must(os.Remove(filepath.Join(dir, name))) }
	}
	// forge changes a file and the manifest with it, as whoever holds the medium can.
	forge := func(name string, change func(data []byte) []byte) func(dir string) {
		return func(dir string) {
			text, err := os.ReadFile(filepath.Join(dir, "manifest"))
			b.must(err)
			m, err := backup.ParseManifest(text)
			b.must(err)
			data, err := os.ReadFile(filepath.Join(dir, name))
			b.must(err)
			data = change(data)
			write(name, string(data))(dir)
			for i := range m.Files {
				if m.Files[i].Path == name {
					m.Files[i].SHA256, m.Files[i].Size = trust.Sum(data), int64(len(data))
				}
			}
			write("manifest", string(m.Text()))(dir)
		}
	}
	bend := func(data []byte) []byte { data[len(data)/2] ^= 1; return data }
	for what, v := range map[string]struct {
		spoil func(dir string)
		code  string
	}{
		"blob":            {flip(blob), "backup-digest"},
		"blob gone":       {remove(blob), "backup-missing"},
		"more":            {write("floor/x", "x"), "backup-extra"},
		"blob forged":     {forge(blob, bend), "backup-digest"},
		"not finished":    {remove("manifest"), "backup-manifest"},
		"manifest cut":    {func(dir string) { b.must(os.Truncate(filepath.Join(dir, "manifest"), 300)) }, "backup-syntax"},
		"config":          {forge("zone.toml", func(d []byte) []byte { return bytes.Replace(d, []byte("inside"), []byte("staging"), 1) }), "backup-origin"},
		"tile":            {forge("public/ledger/tile/0/000.p/"+fmt.Sprint(b.size()), bend), "ledger-entry"},
		"checkpoint":      {forge("public/ledger/checkpoint", func(d []byte) []byte { d[30] ^= 1; return d }), "checkpoint-signature"},
		"catalog":         {forge("catalog.sqlite", func(d []byte) []byte { return d[:len(d)/2] }), "catalog-copy"},
		"catalog's entry": {forge("catalog.sqlite", func(d []byte) []byte { d[bytes.LastIndex(d, []byte(`"payload":"ey`))+11] = 'f'; return d }), "catalog-copy"},
		"a link":          {func(dir string) { b.must(os.Symlink("/etc/passwd", filepath.Join(dir, "floor"))) }, "backup-file"},
		"odd name":        {write("floor/a b", "x"), "backup-file"},
		"two things":      {func(dir string) { flip("zone.toml")(dir); remove("keys/ledger.vkey")(dir) }, "backup-missing backup-digest"},
		"key of a manifest": {func(dir string) {
			text, err := os.ReadFile(filepath.Join(dir, "manifest"))
			b.must(err)
			write("manifest", strings.Replace(string(text), "\nsize ", "\nsize 1", 1))(dir)
		}, "backup-ledger"},
	} {
		dir := filepath.Join(t.TempDir(), "backup")
		b.must(os.CopyFS(dir, os.DirFS(whole)))
		v.spoil(dir)
		if _, err := backup.Verify(t.Context(), dir, backup.VerifyOptions{}); code(err) != v.code {
			t.Errorf("%s: verify: %v, want %s", what, err, v.code)
		}
		if _, _, err := b.restore(dir, backup.RestoreOptions{Newest: []string{b.Zone.Dir}}); code(err) != v.code {
			t.Errorf("%s: restore: %v, want %s", what, err, v.code)
		}
	}
	// Archives that no Create has made.
	for what, headers := range map[string][]tar.Header{
		"upwards":   {{Name: "../x", Typeflag: tar.TypeReg}},
		"absolute":  {{Name: "/etc/x", Typeflag: tar.TypeReg}},
		"link":      {{Name: "cas", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}},
		"directory": {{Name: "cas/", Typeflag: tar.TypeDir}},
		"twice":     {{Name: "zone.toml", Typeflag: tar.TypeReg}, {Name: "zone.toml", Typeflag: tar.TypeReg}},
		"manifest":  {{Name: "manifest", Typeflag: tar.TypeReg}, {Name: "manifest", Typeflag: tar.TypeReg}},
	} {
		path := filepath.Join(t.TempDir(), "x.tar")
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, h := range headers {
			b.must(w.WriteHeader(&h))
		}
		b.must(w.Close())
		b.must(os.WriteFile(path, buf.Bytes(), 0o644))
		if _, err := backup.Verify(t.Context(), path, backup.VerifyOptions{}); code(err) != "backup-file" {
			t.Errorf("%s: %v", what, err)
		}
		if _, _, err := b.restore(path, backup.RestoreOptions{}); code(err) != "backup-file" {
			t.Errorf("%s: %v", what, err)
		}
	}
	data, err := os.ReadFile(b.create("whole.tar", true))
	b.must(err)
	for _, n := range []int{1000, len(data) / 2, len(data) - 2000} {
		path := filepath.Join(t.TempDir(), "x.tar")
		b.must(os.WriteFile(path, data[:n], 0o644))
		if _, err := backup.Verify(t.Context(), path, backup.VerifyOptions{}); err == nil {
			t.Errorf("an archive that was cut at %d was verified", n)
		}
	}
}

// Entries were made behind the backup: the zone is put back and waits for officers, goes on with their order, and the
// witness who has seen more goes along, once.
func TestLost(t *testing.T) {
	b := newBench(t)
	ctx := t.Context()
	from := b.create("dir", true)
	end := b.size()
	for n := range int64(3) {
		b.note(n)
	}
	cosigned := b.witness()
	file := filepath.Join(t.TempDir(), "cosigned")
	b.must(os.WriteFile(file, cosigned, 0o644))
	for what, newest := range map[string][]string{
		"the zone":      {b.Zone.Dir},
		"its public":    {filepath.Join(b.Zone.Dir, "public")},
		"its ledger":    {filepath.Join(b.Zone.Dir, "public", "ledger")},
		"the witness":   {b.state},
		"a cosignature": {file},
		"both":          {from, b.state},
		"nothing":       nil,
	} {
		r, to, err := b.restore(from, backup.RestoreOptions{Newest: newest})
		if err != nil || !r.Waits || r.End.Size != end || newest != nil && r.Evidence != end+3 {
			t.Errorf("%s: %+v, %v", what, r, err)
			continue
		}
		z := b.open(to)
		err = z.Commit(ctx, func(tx *store.Tx) error {
			return tx.Statement(statement.KindCollected, []statement.Subject{{Name: "x", SHA256: trust.Sum(nil)}}, map[string]any{"items": int64(1), "bytes": int64(1), "request": trust.Sum(nil).String()})
		})
		if code(err) != "zone-restored" || !strings.Contains(err.Error(), fmt.Sprint(end-1)) {
			t.Errorf("%s: %v", what, err)
		}
		z.Close()
	}
	// What nobody has lost needs nobody.
	if r, _, err := b.restore(from, backup.RestoreOptions{Newest: []string{from}}); err != nil || r.Waits {
		t.Errorf("%+v, %v", r, err)
	}

	r, to, err := b.restore(from, backup.RestoreOptions{Newest: []string{b.state}})
	b.must(err)
	former := b.Zone
	b.Zone = b.open(to)
	pin := b.Pin()
	// The witness sees the log go back, and says so.
	if _, err := store.Witness(b.state, b.Zone.LedgerFS(), b.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), b.Clock()); code(err) != "witness-rollback" {
		t.Error(err)
	}
	again := func() ([]byte, error) {
		return store.WitnessRestored(b.state, b.Zone.PublicFS(), pin, b.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), b.Clock())
	}
	if _, err := again(); code(err) != "witness-restored" {
		t.Error(err)
	}
	// Orders about something else let nothing go on.
	b.Order(func(o *trust.Orders) {
		o.Restored = append(o.Restored, trust.Restored{Size: end - 1, Tree: r.End.Root, Date: o.Date, Reason: "another backup"})
	})
	if _, waits := b.Zone.Restored(); !waits {
		t.Error("let go on by orders about another backup")
	}
	// A root may come first.
	b.NextRoot(nil)
	orders := b.Order(func(o *trust.Orders) {
		o.Restored = append(o.Restored, trust.Restored{Size: end, Tree: r.End.Root, Date: o.Date, Reason: "the disk failed"})
	})
	if _, waits := b.Zone.Restored(); waits {
		t.Error("still waits")
	}
	b.note(7)
	last := b.Entries()
	i := slices.IndexFunc(last, func(s statement.Statement) bool { return s.Kind == statement.KindRestored })
	if i < 0 || last[i].Predicate["size"] != end || last[i].Predicate["version"] != orders.Version || last[i].Subjects[0].SHA256 != trust.Digest(r.End.Root) {
		t.Errorf("%+v", last)
	}
	b.must(b.Zone.Verify(ctx, nil))
	// Another process, and the next opening, know that it goes on.
	z := b.open(to)
	if _, waits := z.Restored(); waits {
		t.Error("still waits when opened again")
	}
	z.Close()
	// Killed between the entry and the end of the waiting: the next opening sees the entry.
	b.must(b.Zone.Close())
	b.must(store.MarkRestored(to, r.End))
	b.Zone = b.open(to)
	if _, waits := b.Zone.Restored(); waits {
		t.Error("waits again although the entry is there")
	}
	// The witness: the log is another one than it saw, until it is shown the order; and the order works once.
	if _, err := store.Witness(b.state, b.Zone.LedgerFS(), b.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), b.Clock()); code(err) != "witness-fork" && code(err) != "witness-rollback" {
		t.Error(err)
	}
	if _, err := store.WitnessRestored(b.state, b.Zone.PublicFS(), trust.Sum([]byte("another root")), b.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), b.Clock()); err == nil {
		t.Error("by another root")
	}
	note, err := again()
	b.must(err)
	if _, c, err := b.Zone.AddCosigned(ctx, note); err != nil || c.Size != b.size()-1 {
		t.Error(c, err)
	}
	if _, err := again(); code(err) != "witness-restored" {
		t.Error("an order worked twice:", err)
	}
	b.witness() // as ever
	// The former log goes on somewhere: the witness, who has gone along, does not cosign it any more.
	b.Zone = former
	b.note(8)
	if _, err := store.Witness(b.state, b.Zone.LedgerFS(), b.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), b.Clock()); code(err) != "witness-fork" && code(err) != "witness-rollback" {
		t.Error(err)
	}
}

// Orders and roots that are at hand when the backup is put back are taken in at once.
func TestOrdersAtHand(t *testing.T) {
	b := newBench(t)
	from := b.create("file.tar", true)
	end := b.size()
	c, err := backup.Verify(t.Context(), from, backup.VerifyOptions{})
	b.must(err)
	b.NextRoot(nil)
	b.Order(func(o *trust.Orders) {
		o.Restored = append(o.Restored, trust.Restored{Size: end, Tree: c.Checkpoint.Root, Date: o.Date, Reason: "a drill"})
	})
	root, err := b.Zone.ReadPublic("root/3")
	b.must(err)
	orders, err := b.Zone.ReadPublic("orders/1")
	b.must(err)
	if _, _, err := b.restore(from, backup.RestoreOptions{Newest: []string{b.Zone.Dir}, Orders: [][]byte{orders}}); code(err) != "orders-root" {
		t.Error("orders under a root that is not known:", err)
	}
	r, to, err := b.restore(from, backup.RestoreOptions{Newest: []string{b.Zone.Dir}, Roots: [][]byte{root}, Orders: [][]byte{orders}})
	if err != nil || r.Waits {
		t.Fatalf("%+v, %v", r, err)
	}
	z := b.open(to)
	if _, waits := z.Restored(); waits {
		t.Error("it waits")
	}
}

// What is at hand is of another log: nothing is put back.
func TestFork(t *testing.T) {
	b := newBench(t)
	from := b.create("dir", true)
	other := filepath.Join(t.TempDir(), "other")
	b.must(os.CopyFS(other, os.DirFS(from)))
	first := b.size()
	for _, dir := range []string{"x", "y"} {
		r, to, err := b.restore(from, backup.RestoreOptions{Newest: []string{from}})
		if err != nil || r.Waits {
			t.Fatal(err)
		}
		b.Zone = b.open(to)
		for n := range int64(len(dir) + 1) {
			b.note(n + int64(dir[0]))
		}
		b.create(dir, true)
	}
	if b.size() != first+2 {
		t.Fatal(b.size())
	}
	for _, newest := range []string{filepath.Join(b.dir, "y"), filepath.Join(b.dir, "y", "public", "ledger", "checkpoint")} {
		if _, _, err := b.restore(filepath.Join(b.dir, "x"), backup.RestoreOptions{Newest: []string{newest}}); code(err) != "ledger-fork" {
			t.Errorf("%s: %v", newest, err)
		}
	}
	if _, _, err := b.restore(filepath.Join(b.dir, "x"), backup.RestoreOptions{Newest: []string{b.stranger()}}); err == nil {
		t.Error("another enclave's ledger was taken for evidence")
	}
}

// The published directory survived: nothing is lost, the catalog is made again, and nobody has to be asked.
func TestSurvived(t *testing.T) {
	b := newBench(t)
	from := b.create("dir", true)
	b.Allow("dev", b.Source("c-1.0", "c\n"))
	b.note(1)
	cosigned := b.witness()
	_, _, err := b.Zone.AddCosigned(t.Context(), cosigned)
	b.must(err)
	size := b.size()
	r, to, err := b.restore(from, backup.RestoreOptions{Public: filepath.Join(b.Zone.Dir, "public"), Newest: []string{b.state}})
	if err != nil || r.Waits || !r.Rebuilt {
		t.Fatalf("%+v, %v", r, err)
	}
	z := b.open(to)
	if _, c, err := z.Checkpoint(); err != nil || c.Size != size+1 {
		t.Error(c, err)
	}
	if note, err := z.Allowlist(t.Context(), "dev"); err != nil || !bytes.Contains(note, []byte("c-1.0")) {
		t.Error("the newest allowlist is not there:", err)
	}
	// A witness has seen more than what survived.
	survivor := filepath.Join(t.TempDir(), "public")
	b.must(os.CopyFS(survivor, os.DirFS(filepath.Join(b.Zone.Dir, "public"))))
	b.note(2)
	b.witness()
	r, _, err = b.restore(from, backup.RestoreOptions{Public: survivor, Newest: []string{b.state}})
	if err != nil || !r.Waits || !r.Rebuilt || r.End.Size != size+1 {
		t.Errorf("%+v, %v", r, err)
	}
	// And one that is older than the backup is no help.
	if _, _, err := b.restore(b.create("newer", true), backup.RestoreOptions{Public: survivor}); code(err) != "ledger-rollback" {
		t.Error(err)
	}
	// Blobs that came after the backup are needed, too: they are taken from what survived, but for those that rotted.
	late := b.Put([]byte("late\n"))
	b.Commit(func(tx *store.Tx) error {
		return errors.Join(
			tx.Statement(statement.KindInspected, []statement.Subject{{Name: "x", SHA256: late}}, map[string]any{"files": int64(0), "bytes": int64(0), "findings": map[string]any{}, "confinement": map[string]any{}, "report": late.String()}),
			tx.Attach(t.Context(), late))
	})
	blobs := filepath.Join(t.TempDir(), "cas")
	b.must(os.CopyFS(blobs, os.DirFS(filepath.Join(b.Zone.Dir, "cas"))))
	public := filepath.Join(b.Zone.Dir, "public")
	if _, _, err := b.restore(from, backup.RestoreOptions{Public: public}); code(err) != "rebuild-missing" {
		t.Error(err)
	}
	if r, _, err := b.restore(from, backup.RestoreOptions{Public: public, Blobs: blobs}); err != nil || r.Blobs < 1 || len(r.Lost) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	rotten := filepath.Join(blobs, late.String()[:2], late.String())
	b.must(os.Remove(rotten))
	b.must(os.WriteFile(rotten, []byte("rot!\n"), 0o644))
	if _, _, err := b.restore(from, backup.RestoreOptions{Public: public, Blobs: blobs}); code(err) != "rebuild-missing" {
		t.Error(err)
	}
}

// Killed anywhere, a backup or a restore is there whole or not at all, and the same call can be made again.
func TestKill(t *testing.T) {
	b := newBench(t)
	for n := range int64(50) {
		b.note(n)
		b.Put(bytes.Repeat(fmt.Append(nil, n), 1000))
	}
	b.Zone.Close()
	from := ""
	for _, what := range []string{"create", "restore"} {
		for round := range 10 {
			to := filepath.Join(b.dir, fmt.Sprint(what, round, []string{"", ".tar"}[round%2]))
			source := b.Zone.Dir
			if what == "restore" {
				source = from
			}
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+what+":"+source+":"+to)
			out, err := cmd.StdoutPipe()
			b.must(err)
			b.must(cmd.Start())
			out.Read(make([]byte, 6))
			if round < 8 {
				time.Sleep(rand.N(80 * time.Millisecond))
				cmd.Process.Kill()
			}
			io.Copy(io.Discard, out)
			err = cmd.Wait()
			if round >= 8 && err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			_, missing := os.Stat(to)
			switch {
			case missing != nil:
			case what == "create":
				if _, err := backup.Verify(t.Context(), to, backup.VerifyOptions{}); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
				from = to
			default:
				b.open(to)
			}
		}
		// Whoever makes one again sweeps what the dead have left of the same name.
		for round := range 8 {
			to := filepath.Join(b.dir, fmt.Sprint(what, round, []string{"", ".tar"}[round%2]))
			if _, err := os.Stat(to); err == nil {
				os.RemoveAll(to)
			}
			if what == "create" {
				b.Open(b.Zone.Dir)
				_, err := backup.Create(t.Context(), b.Zone, to, backup.Options{WithKeys: true})
				b.must(err)
				b.Zone.Close()
			} else {
				_, err := backup.Restore(t.Context(), from, to, backup.RestoreOptions{Options: store.Options{Clock: later}})
				b.must(err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(b.dir, ".*")); len(left) > 0 {
			t.Errorf("%s: %v stays", what, left)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	m := &backup.Manifest{Date: enclavetest.Epoch, Files: []backup.File{{SHA256: trust.Sum(nil), Path: "a"}, {SHA256: trust.Sum([]byte("x")), Size: 1, Path: "cas/b"}}}
	m.Checkpoint.Origin = "sallyport/keep/inside"
	m.Checkpoint.Size = 7
	f.Add(m.Text())
	m.Files, m.Keys = nil, true
	f.Add(m.Text())
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := backup.ParseManifest(data)
		if err == nil && !bytes.Equal(m.Text(), data) {
			t.Errorf("%q prints as %q", data, m.Text())
		}
	})
}
