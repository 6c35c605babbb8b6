package verbs

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/enclavetest"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Nobody who has the ledger's own entry that it gave a key up goes on believing that key: not by old paper, and not by roots of which the last was kept back.
func TestFormerKey(t *testing.T) {
	e, w := enclavetest.New(t), newKeyWorld(t)
	secret, err := os.ReadFile(filepath.Join(e.Zone.Dir, "keys", "ledger.key"))
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := trust.ParseKey(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := e.Zone.LedgerVKey().String()
	_, before, err := e.Zone.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	publish := func(name string, sign *trust.Key, withhold ...string) {
		t.Helper()
		to := w.path(name)
		if err := os.CopyFS(to, e.Zone.PublicFS()); err != nil {
			t.Fatal(err)
		}
		for _, f := range withhold {
			if err := os.Remove(filepath.Join(to, f)); err != nil {
				t.Fatal(err)
			}
		}
		if sign == nil {
			return
		}
		_, c, err := e.Zone.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		note, err := ledger.SignCheckpoint(c, sign)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "ledger", "checkpoint"), note, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	publish("before", nil)
	e.Renew(trust.ContextCheckpoint)
	newest := fmt.Sprintf("root/%d", e.Root.Version)
	publish("change", nil) // its tree ends with the entry, and both keys have signed it
	publish("change-withheld", nil, newest)
	e.NextRoot(func(r *trust.Root) { r.Policies[trust.PolicyBreakGlass] = "24" })
	after := fmt.Sprintf("root/%d", e.Root.Version)
	publish("false", stolen)
	publish("withheld", stolen, newest, after)
	publish("after", nil)
	come, pin := e.Zone.LedgerVKey().String(), trust.Fingerprint(e.Pin())

	// The entry, and what is proved of it, as the thief would hand them out: by his own software.
	thief := func(dir string, growth bool) string {
		t.Helper()
		files := os.DirFS(w.path(dir + "/ledger"))
		note, err := ledger.ReadCheckpoint(files)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ledger.OpenCheckpoint(note, stolen.Name(), stolen.VKey())
		if err != nil {
			t.Fatal(err)
		}
		log, index := ledger.NewLog(files, c), int64(-1)
		for i := range c.Size {
			leaf, err := log.Leaf(i)
			if err != nil {
				t.Fatal(err)
			}
			if p, err := statement.ParseEnvelope(leaf); err == nil && p.Kind() == statement.KindKeyChanged {
				index = i
			}
		}
		name, data := w.path("proof-"+dir), []byte(nil)
		if growth {
			g, err := log.ProveGrowth(before.Size, note)
			if err != nil {
				t.Fatal(err)
			}
			name, data = w.path("growth-"+dir), g.Marshal()
		} else {
			p, err := log.ProveEntry(index, note)
			if err != nil {
				t.Fatal(err)
			}
			data = p.Marshal()
		}
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	proof, both, growth := thief("false", false), thief("change", false), thief("change", true)
	kept := w.path("before/ledger/checkpoint")
	verify := []string{"ledger", "verify"}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"", []string{"--public", "@before", "--log", old}},
		{"", []string{"--public", "@change", "--log", come}},
		{"", []string{"--public", "@after", "--log", come}},
		{"", []string{"--public", "@after", "--root", pin}},
		{"key-replaced", []string{"--public", "@change", "--log", old}},
		{"key-replaced", []string{"--public", "@change-withheld", "--root", pin}},
		{"key-replaced", []string{"--public", "@false", "--log", old}},
		{"key-replaced", []string{"--public", "@false", "--root", pin}},
		{"key-replaced", []string{"--public", "@withheld", "--root", pin}},
		{"checkpoint-unsigned", []string{"--public", "@after", "--log", old}},
		{"key-replaced", []string{"--proof", proof, "--log", old}},
		{"key-replaced", []string{"--proof", both, "--log", old}},
		{"key-replaced", []string{"--proof", both, "--root", pin, "--roots", "@change-withheld/root"}},
		{"", []string{"--proof", both, "--log", come}},
		{"", []string{"--proof", both, "--root", pin, "--roots", "@after/root"}},
		{"key-replaced", []string{"--proof", growth, "--old", kept, "--log", old}},
		{"", []string{"--proof", growth, "--old", kept, "--root", pin, "--roots", "@after/root"}},
	} {
		code, _, stderr := w.run(append(append([]string(nil), verify...), c.args...)...)
		if (code == 0) != (c.want == "") || !strings.Contains(stderr, c.want) {
			t.Errorf("verify %q: want %q, code %d\n%s", c.args, c.want, code, stderr)
		}
	}
	// Whoever reads one entry, or makes a proof of it, reads the others for that.
	for _, args := range [][]string{
		{"ledger", "show", "0"}, {"ledger", "show", "-n", "1"}, {"ledger", "export"}, {"ledger", "prove", "0"}, {"ledger", "prove", "--consistency", "1"},
		{"ledger", "prove", "0", "--checkpoint", kept},
	} {
		for _, from := range [][]string{{"@false", "--log", old}, {"@withheld", "--root", pin}, {"@change", "--log", old}} {
			code, stdout, stderr := w.run(append(append(append([]string(nil), args...), "--public"), from...)...)
			if code == 0 || !strings.Contains(stderr, "key-replaced") || args[1] != "export" && stdout != "" {
				t.Errorf("%q %q: code %d\n%s%s", args, from, code, stdout, stderr)
			}
		}
		if code, _, stderr := w.run(append(append([]string(nil), args...), "--public", "@after", "--root", pin)...); code != 0 {
			t.Errorf("%q of the ledger as it is: %s", args, stderr)
		}
	}
}

// A witness tells of another key than last time, in words and with --json.
func TestWitnessTellsOfKey(t *testing.T) {
	e, w := enclavetest.New(t), newKeyWorld(t)
	key, err := enclavetest.Key(t, "wilma/witness").Marshal(rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("wilma.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	e.NextRoot(func(r *trust.Root) {
		r.Keys = append(r.Keys, enclavetest.Key(t, "wilma/witness").RootKey())
		r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleWitness, Person: "wilma"})
	})
	ask := func(from int64) string {
		t.Helper()
		note, c, err := e.Zone.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		g, err := ledger.NewLog(e.Zone.LedgerFS(), c).ProveGrowth(from, note)
		if err == nil {
			err = os.WriteFile(w.path("request"), g.Marshal(), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return "@request"
	}
	told := func(o map[string]any, key trust.VKey, changed bool) {
		t.Helper()
		if o["log"] != key.String() || o["changed"] != changed {
			t.Errorf("%v; want %s, changed: %v", o, key, changed)
		}
	}
	witness := func(paper ...string) map[string]any {
		t.Helper()
		return w.object(append([]string{"ledger", "witness", "--key", "@wilma.key", "--state", "@state", "--out", "@out", filepath.Join(e.Zone.Dir, "public", "ledger")}, paper...)...)
	}
	cosign := func(request string, paper ...string) map[string]any {
		t.Helper()
		return w.object(append([]string{"ledger", "cosign", "--key", "@wilma.key", "--state", "@states", "--out", "@out", request}, paper...)...)
	}
	old := e.Zone.LedgerVKey()
	_, c, err := e.Zone.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	told(witness("--log", old.String()), old, false)
	told(cosign(ask(0), "--log", old.String()), old, false)
	e.Renew(trust.ContextCheckpoint)
	come, roots := e.Zone.LedgerVKey(), []string{"--root", trust.Fingerprint(e.Pin()), "--roots", filepath.Join(e.Zone.Dir, "public", "root")}
	if code, _, stderr := w.run("ledger", "witness", "--key", "@wilma.key", "--state", "@state", "--out", "@out", "--log", old.String(), filepath.Join(e.Zone.Dir, "public", "ledger")); code == 0 || !strings.Contains(stderr, "key-replaced") {
		t.Errorf("with the old paper: %s", stderr)
	}
	told(witness("--log", come.String()), come, true)
	told(witness("--log", come.String()), come, false)
	told(cosign(ask(c.Size), roots...), come, true)
	_, c, err = e.Zone.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	told(cosign(ask(c.Size)), come, false)
}
