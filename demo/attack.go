package main

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "modernc.org/sqlite" // root on the station edits the catalog with the same tool

	"sallyport/guix/storepath"
)

// evilRequest is what the second shipment carries: small, and never approved.
const evilRequest = `enclave = "demo"

[[source]]
label = "a"
name = "tool-a"
from = "path"
path = "evil/a"

[[source]]
label = "b"
name = "tool-b"
from = "path"
path = "evil/b"

[[derivation]]
name = "evil-1.0"
builder = "{a}/tool"
args = ["{b}/tool"]
`

// state is what of the inside an attack must not change.
type state struct {
	blobs, public string
	shipments     string
	ledger        []string // kinds of the entries
}

// inside describes the inside zone: its blobs, its published roots and allowlists, its shipments. Only the ledger may grow, by refusals.
func (d *demo) inside() (state, error) {
	var s state
	digest := func(dir string, content bool) (string, error) {
		h := sha256.New()
		err := filepath.WalkDir(d.path("inside", dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			fmt.Fprintln(h, path)
			if content {
				data, err := os.ReadFile(path)
				h.Write(data)
				return err
			}
			return nil
		})
		return hex.EncodeToString(h.Sum(nil)), err
	}
	var err error
	if s.blobs, err = digest("cas", false); err != nil {
		return s, err
	}
	for _, dir := range []string{"public/root", "public/allowlist"} {
		x, err := digest(dir, true)
		if err != nil {
			return s, err
		}
		s.public += x
	}
	r, err := d.silent(d.station("review", "list", "--zone", "inside", "--json")...)
	if err != nil {
		return s, err
	}
	s.shipments = string(r.stdout)
	list, err := d.entries("inside")
	for _, e := range list {
		s.ledger = append(s.ledger, e.Kind)
	}
	return s, err
}

// harmless runs an attack and demands that nothing changed inside.
func (d *demo) harmless(what string, attack func() error) error {
	d.say("\033[1m%s\033[0m", what)
	before, err := d.inside()
	if err != nil {
		return err
	}
	if err := attack(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	after, err := d.inside()
	if err != nil {
		return err
	}
	if before.blobs != after.blobs || before.public != after.public || before.shipments != after.shipments {
		return fmt.Errorf("%s: something changed inside", what)
	}
	if len(after.ledger) != len(before.ledger)+1 || !slices.Equal(after.ledger[:len(before.ledger)], before.ledger) || after.ledger[len(before.ledger)] != "refused" {
		return fmt.Errorf("%s: the ledger did not grow by one refusal: %v", what, after.ledger)
	}
	d.say("nothing changed inside, and the ledger tells of the refusal")
	return nil
}

func (d *demo) importArgs(slip, volume string) []string {
	return d.station("import", "--zone", "inside", "--slip", slip, "--key", d.key("dave/statement"), volume)
}

func (d *demo) attack() error {
	// A second shipment, honest as a delivery; what it carries will never be approved.
	for _, x := range []string{"a", "b"} {
		if err := os.MkdirAll(d.path("evil", x), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(d.path("evil", x, "tool"), []byte("#!/bin/tool "+x+"\n"), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(d.path("evil.toml"), []byte(evilRequest), 0o644); err != nil {
		return err
	}
	var out struct {
		Items []struct{ Kind, Name, SHA256 string }
	}
	if err := d.get(&out, d.sallyport("collect", "--zone", "outside", "evil.toml")...); err != nil {
		return err
	}
	var shipped struct{ Shipment int64 }
	if err := d.get(&shipped, d.sallyport("shipment", "create", "--zone", "outside", "--key", d.key("carol/manifest"), "--sums-key", d.key("carol/sums"), "--slip", "slip-2.txt", "volume-2")...); err != nil {
		return err
	}
	attacks := []struct {
		what string
		fn   func() error
	}{
		{"one byte of the volume is flipped", d.flip},
		{"an item is swapped for another of the same size, and the sums are made again", d.swap},
		{"an old shipment is replayed", func() error {
			return d.refusedWith("shipment-replayed", d.importArgs("slip-1.txt", "volume-1-inside")...)
		}},
		{"the wrong slip", func() error { return d.refusedWith("slip-mismatch", d.importArgs("slip-1.txt", "volume-2")...) }},
		{"a collector's key that nobody authorised, with a slip to match", d.mallory},
	}
	for _, a := range attacks {
		if err := d.harmless(a.what, a.fn); err != nil {
			return err
		}
	}
	d.say("The honest second disc is quarantined. Nobody approves it.")
	if _, err := d.do(d.importArgs("slip-2.txt", "volume-2")...); err != nil {
		return err
	}
	if err := d.rootOnStation(); err != nil {
		return err
	}
	return d.editedLedger()
}

// itemFile finds the file of an item on a volume.
func (d *demo) itemFile(volume string, contains string) (string, error) {
	var found string
	err := filepath.WalkDir(d.path(volume, "items"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), contains) && !strings.HasPrefix(string(data), "Derive(") {
			found = path
		}
		return err
	})
	if found == "" && err == nil {
		err = errors.New("the item is not on the volume")
	}
	return found, err
}

func (d *demo) flip() error {
	if err := d.copyTree("volume-2", "volume-flipped"); err != nil {
		return err
	}
	file, err := d.itemFile("volume-flipped", "#!/bin/tool a")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return err
	}
	return d.refusedWith("item-digest", d.importArgs("slip-2.txt", "volume-flipped")...)
}

func (d *demo) swap() error {
	if err := d.copyTree("volume-2", "volume-swapped"); err != nil {
		return err
	}
	a, err := d.itemFile("volume-swapped", "#!/bin/tool a")
	if err != nil {
		return err
	}
	b, err := d.itemFile("volume-swapped", "#!/bin/tool b")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(a)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(b)
	if err != nil {
		return err
	}
	if len(data) != len(old) {
		return errors.New("the two items differ in size")
	}
	if err := os.WriteFile(b, data, 0o644); err != nil {
		return err
	}
	// Whoever swaps an item makes the sums fit again; the signature under them is what he cannot make.
	for _, s := range []struct{ file, program string }{{"SHA256SUMS", "sha256sum"}, {"SHA512SUMS", "sha512sum"}} {
		if err := d.resum("volume-swapped", s.file, s.program); err != nil {
			return err
		}
	}
	return d.refusedWith("item-digest", d.importArgs("slip-2.txt", "volume-swapped")...)
}

// resum makes a sums file anew, as coreutils would.
func (d *demo) resum(volume, sums, program string) error {
	old, err := os.ReadFile(d.path(volume, sums))
	if err != nil {
		return err
	}
	args := []string{program}
	for _, l := range strings.Split(strings.TrimSuffix(string(old), "\n"), "\n") {
		_, file, _ := strings.Cut(l, "  ")
		args = append(args, file)
	}
	args[0] = program
	r, err := d.in(volume, args...)
	if err != nil {
		return err
	}
	return os.WriteFile(d.path(volume, sums), r, 0o644)
}

// mallory makes a delivery with keys of his own, and prints a slip for it.
func (d *demo) mallory() error {
	for _, k := range []string{"mallory/manifest", "mallory/sums"} {
		if r, err := d.silent(d.sallyport("key", "generate", "--quiet", "--no-passphrase", k, d.key(k))...); err != nil || r.code != done {
			return fmt.Errorf("key generate: %w", err)
		}
	}
	if r, err := d.silent(d.sallyport("init", "--kind", "outside", "--enclave", enclave, "mallory")...); err != nil || r.code != done {
		return fmt.Errorf("init: %w", err)
	}
	if r, err := d.silent(d.sallyport("collect", "--zone", "mallory", "--quiet", "evil.toml")...); err != nil || r.code != done {
		return fmt.Errorf("collect: %w", err)
	}
	if r, err := d.silent(d.sallyport("shipment", "create", "--zone", "mallory", "--key", d.key("mallory/manifest"), "--sums-key", d.key("mallory/sums"), "--slip", "slip-mallory.txt", "volume-mallory")...); err != nil || r.code != done {
		return fmt.Errorf("shipment create: %w", err)
	}
	return d.refusedWith("manifest-unsigned", d.importArgs("slip-mallory.txt", "volume-mallory")...)
}

// rootOnStation edits the catalog to say that the second shipment was approved: every row that an approval would have made.
func (d *demo) rootOnStation() error {
	_, evil, err := d.items("2")
	if err != nil {
		return err
	}
	d.say("\033[1mroot on the station edits the catalog: shipment 2 is \"admitted\", its items have narinfos\033[0m")
	db, err := sql.Open("sqlite", "file:"+d.path("inside", "catalog.sqlite")+"?_txlock=immediate&_pragma=busy_timeout(10000)")
	if err != nil {
		return err
	}
	path, err := storepath.ParseBase(evil)
	if err != nil {
		return err
	}
	defer db.Close()
	err = d.edit(db, []edit{
		{`UPDATE shipment SET state = 'admitted' WHERE number = 2`, nil},
		{`DELETE FROM proposal`, nil},
		// The narinfo of an allowed item under the evil one's hash: the only signature there is to steal.
		{`INSERT INTO narinfo (track, hash, path, body, nar, blob, form) SELECT track, ?, ?, body, nar, (SELECT sha256 FROM item WHERE name = ?), form FROM narinfo LIMIT 1`,
			[]any{path.Hash(), path.String(), evil}},
		{`INSERT INTO agreed (derivation, leaf) VALUES (?, 1)`, []any{evil}},
	})
	if err != nil {
		return err
	}
	d.say("The depot is asked for it:")
	for _, u := range []string{"/" + path.Hash() + ".narinfo", "/nar/" + evil} {
		res, err := d.fetch(depot.url + u)
		if err != nil {
			return err
		}
		res.Body.Close()
		reason := res.Header.Get("Sallyport-Reason")
		if res.StatusCode != http.StatusNotFound || reason == "" {
			return fmt.Errorf("GET %s: %s, reason %q; a refusal was expected", u, res.Status, reason)
		}
		d.say("GET %s: %s, \033[32m%s\033[0m", u, res.Status, reason)
	}
	d.say("The signer signs nothing of it:")
	var signed struct{ Signed []string }
	if err := d.get(&signed, d.station("depot", "sign", "--zone", "inside", "--root", d.paper, "--track", track, "--track-key", d.key("dev/narinfo"))...); err != nil {
		return err
	}
	if slices.Contains(signed.Signed, evil) {
		return errors.New("the signer signed what nobody approved")
	}
	d.say("signed now: %d", len(signed.Signed))
	d.say("A builder is asked to build it:")
	if err := d.refusedWith("not-allowed", d.station("build", "--builder", "builder-1", "--out", "result-evil", evil)...); err != nil {
		return err
	}
	if _, err := os.Lstat(d.path("result-evil")); !errors.Is(err, fs.ErrNotExist) {
		return errors.New("the builder left a result")
	}
	d.say("(The edits are taken back.)")
	return d.edit(db, []edit{
		{`UPDATE shipment SET state = 'quarantined' WHERE number = 2`, nil},
		{`DELETE FROM narinfo WHERE hash = ?`, []any{path.Hash()}},
		{`DELETE FROM agreed WHERE derivation = ?`, []any{evil}},
	})
}

// an edit of the catalog, as root would make it.
type edit struct {
	text string
	args []any
}

func (d *demo) edit(db *sql.DB, edits []edit) error {
	for _, e := range edits {
		if _, err := db.ExecContext(d.ctx, e.text, e.args...); err != nil {
			return fmt.Errorf("%s: %w", e.text, err)
		}
	}
	return nil
}

// editedLedger changes one published entry: who imported the first shipment.
func (d *demo) editedLedger() error {
	d.say("\033[1man entry of the ledger is edited on disk: the second shipment was imported by bobb, not by dave\033[0m")
	if err := d.copyTree("inside/public", "public-edited"); err != nil {
		return err
	}
	edited := 0
	err := filepath.WalkDir(d.path("public-edited", "ledger", "tile", "entries"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out, n := editPayloads(data, `"person":"dave"`, `"person":"bobb"`)
		edited += n
		return os.WriteFile(path, out, 0o644)
	})
	if err != nil {
		return err
	}
	if edited == 0 {
		return errors.New("no entry names the importer")
	}
	return d.refusedWith("ledger-entry", depot.binary, "enclave", "--root", d.paper, "public-edited")
}

// editPayloads replaces text in the base64 payloads of a bundle, for a text of the same length, so that every length still fits.
func editPayloads(bundle []byte, from, to string) (edited []byte, n int) {
	const mark = `"payload":"`
	out := bytes.Clone(bundle)
	for at := 0; ; {
		i := bytes.Index(out[at:], []byte(mark))
		if i < 0 {
			return out, n
		}
		start := at + i + len(mark)
		end := start + bytes.IndexByte(out[start:], '"')
		payload, err := base64.StdEncoding.DecodeString(string(out[start:end]))
		if err == nil && bytes.Contains(payload, []byte(from)) {
			payload = bytes.ReplaceAll(payload, []byte(from), []byte(to))
			base64.StdEncoding.Encode(out[start:end], payload)
			n++
		}
		at = end
	}
}
