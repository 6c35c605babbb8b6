package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// TestThreatModel: every row of the threat model names the tests that play it, and all of them are there.
func TestThreatModel(t *testing.T) {
	t.Parallel()
	have := map[string]bool{}
	define := regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`)
	for _, root := range []string{"cmd", "e2e", "guix", "internal", "peer"} {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			dir, err := filepath.Rel("..", filepath.Dir(path))
			for _, m := range define.FindAllSubmatch(read(t, path), -1) {
				have[dir+" "+string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	page := string(read(t, filepath.Join("..", "docs", "design", "threat-model.md")))
	_, page, _ = strings.Cut(page, "\n## Who attacks")
	page, _, _ = strings.Cut(page, "\n## What is not answered")
	// The last cell: a package in code, then its tests; TestA, TestB without one are of the package before.
	word := regexp.MustCompile("`([^`]+)`")
	test := regexp.MustCompile(`^(Test|Fuzz)\w+$`)
	rows := 0
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| **") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 {
			t.Errorf("a row of %d cells, want 5: %.80s", len(cells), line)
			continue
		}
		dir, named := "", 0
		for _, m := range word.FindAllStringSubmatch(cells[4], -1) {
			if !test.MatchString(m[1]) {
				dir = m[1]
				if _, err := os.Stat(filepath.Join("..", dir)); err != nil {
					t.Errorf("%.60s: %v", line, err)
				}
				continue
			}
			named++
			if !have[dir+" "+m[1]] {
				t.Errorf("%.60s: there is no %s in %s", line, m[1], dir)
			}
		}
		if named == 0 {
			t.Errorf("no test plays %.80s", line)
		}
	}
	if rows < 12 {
		t.Errorf("%d rows; the page has another form now?", rows)
	}
}

// pad adds refusals to a zone's ledger, which cost nobody anything.
func (w *world) pad(zone string, n int) {
	w.t.Helper()
	for range n {
		w.refuses("not-importer", station, "import", "--zone", zone, "--slip", "slip-2.txt", "--key", w.key("mallory/statement"), "volume-2")
	}
}

// TestThiefOfTheLedgerKey: whoever has the ledger's key makes a true tree of lies. Witness, auditor, signer and depot each have seen another.
func TestThiefOfTheLedgerKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	log := strings.TrimSpace(string(read(t, w.path("inside", "keys", "ledger.vkey"))))
	fingerprint := w.fingerprint()
	witness := func(ledger string) []string {
		os.Remove(w.path("cosigned"))
		return []string{whole, "ledger", "witness", "--key", w.key("wilma/witness"), "--state", "wilma", "--log", log, "--out", "cosigned", ledger}
	}
	copyTree(t, w.path("inside"), w.path("early"))
	// The thief has all that the station had up to here, and both its keys.
	copyTree(t, w.path("inside"), w.path("thief"))
	w.must(w.importArgs(2)...)
	w.must(witness("inside/public/ledger")...)
	w.must(station, "ledger", "witness", "add", "--zone", "inside", "cosigned")
	kept := read(t, w.path("inside", "public", "ledger", "checkpoint")) // by an auditor
	write(t, w.path("kept"), kept, 0o644)
	size := len(w.entries("inside"))
	w.pad("inside", 1)
	w.pad("thief", 12) // a larger tree than the true one, in which shipment 2 never came
	w.must(station, "ledger", "verify", "--zone", "thief")
	w.must(verifier, "enclave", "--root", fingerprint, "thief/public") // it is sound in itself

	// The witness.
	w.refuses("witness-fork", witness("thief/public/ledger")...)
	if _, err := os.Stat(w.path("cosigned")); err == nil {
		t.Error("the witness cosigned a fork")
	}
	w.refuses("witness-rollback", witness("early/public/ledger")...)
	w.must(witness("inside/public/ledger")...)

	// The auditor: by the witness's cosignature, by its absence, or by a checkpoint that was kept.
	copyTree(t, w.path("thief", "public"), w.path("published"))
	w.refuses("witness-missing", verifier, "enclave", "--root", fingerprint, "--witness", "wilma", "published")
	copyTree(t, w.path("inside", "public", "witness"), w.path("with", "witness"))
	copyTree(t, w.path("with", "witness", "wilma"), w.path("published", "witness", "wilma"))
	w.refuses("witness-fork", verifier, "enclave", "--root", fingerprint, "published")
	w.must(station, "ledger", "prove", "--zone", "inside", "--consistency", fmt.Sprint(size), "--out", "grown")
	w.must(station, "ledger", "verify", "--proof", "grown", "--old", "kept", "--log", log)
	w.must(station, "ledger", "prove", "--zone", "thief", "--consistency", fmt.Sprint(size), "--out", "forked")
	w.code(refused, station, "ledger", "verify", "--proof", "forked", "--old", "kept", "--log", log)

	// The station, when the thief's catalog or the thief's published ledger is put in place of its own.
	for name, put := range map[string]func(v *world){
		"catalog": func(v *world) {
			for _, f := range []string{"catalog.sqlite", "catalog.sqlite-wal", "catalog.sqlite-shm"} {
				os.Remove(v.path("inside", f))
				if _, err := os.Stat(w.path("thief", f)); err == nil {
					copyTree(t, w.path("thief", f), v.path("inside", f))
				}
			}
		},
		"published ledger": func(v *world) {
			v.remove(v.path("inside", "public", "ledger"))
			copyTree(t, w.path("thief", "public", "ledger"), v.path("inside", "public", "ledger"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newWorld(t, w.dir, "inside")
			v.paper = fingerprint
			put(v)
			for _, args := range [][]string{v.importArgs(3), v.signArgs(), v.approveArgs(2, "alice"), {station, "ledger", "verify", "--zone", "inside"}} {
				r := v.code(refused, append(args, "--json")...)
				if codes := strings.Join(reasons(t, r), " "); !strings.Contains(codes, "ledger-fork") && !strings.Contains(codes, "ledger-rollback") {
					t.Errorf("%s: refused for %q", name, codes)
				}
			}
			if d, _ := v.tryDepot(); d != nil {
				t.Error("a depot starts")
			}
		})
	}
}

// TestThiefOfFormerKeys: the zone has changed both its keys, and somebody has the former ones, with all that the station had then. Whoever knows the root believes nothing that they sign.
func TestThiefOfFormerKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	fingerprint := w.fingerprint()
	log := strings.TrimSpace(string(read(t, w.path("inside", "keys", "ledger.vkey"))))
	seen := len(w.entries("inside"))
	w.cosign()
	w.must(station, "ledger", "prove", "--zone", "inside", "3", "--out", "proof-before")
	write(t, w.path("kept"), read(t, w.path("inside", "public", "ledger", "checkpoint")), 0o644)
	size := len(w.entries("inside"))
	d := w.depot()
	w.renewal("root-2.draft", "ledger", "station")
	// A root that names a key which the zone has dropped is refused by it.
	w.must(station, "key", "renew", "--zone", "inside", "--anew", "--out", "anew.pub", "ledger")
	for file, warned := range map[string]bool{"ledger.pub": true, "anew.pub": false} {
		r := w.must(station, "trust", "rotate", "--zone", "inside", "--draft", file+".draft", "--old", strings.TrimSuffix(log, log[strings.LastIndex(log, "+"):]), "--new", file)
		if strings.Contains(string(r.stderr), "will not accept it") != warned {
			t.Errorf("who drafts with %s is told: %v; %v", file, !warned, r)
		}
	}
	w.officers("trust", "root", "root-2.draft")
	before := w.kept()
	w.refuses("key-unnamed", station, "trust", "accept", "--zone", "inside", "root-2.draft")
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}
	copyTree(t, w.path("inside"), w.path("thief"))
	for _, f := range []string{"root-2.draft", "root-2.draft.olga.sig", "root-2.draft.oscar.sig"} {
		os.Remove(w.path(f))
	}
	w.renewal("root-2.draft", "ledger", "station")
	w.officers("trust", "root", "root-2.draft")
	w.must(station, "trust", "accept", "--zone", "inside", "root-2.draft")
	w.sound()
	if n := w.kinds("inside")["key-changed"]; n != 2 {
		t.Errorf("%d entries tell of the change", n)
	}
	w.must(w.importArgs(2)...)
	for _, p := range []string{"alice", "bob"} {
		w.must(w.approveArgs(2, p)...)
	}
	w.must(w.signArgs()...)
	if r := w.reason(d, w.items(2)[0].Name, w.acl()); r != "" {
		t.Errorf("the depot that was running all the time says %q", r)
	}
	w.pad("thief", 40)

	// The thief shows a larger ledger, signed with the former key, beside the roots that everybody knows.
	copyTree(t, w.path("thief", "public"), w.path("false"))
	copyTree(t, w.path("inside", "public", "root", "2"), w.path("false", "root", "2"))
	w.refuses("checkpoint-unsigned", verifier, "enclave", "--root", fingerprint, "false")
	w.refuses("key-replaced", station, "ledger", "verify", "--public", "false", "--root", fingerprint)
	os.RemoveAll(w.path("wilma.copy"))
	witness := func(dir string) []string {
		os.Remove(w.path("cosigned"))
		return []string{whole, "ledger", "witness", "--key", w.key("wilma/witness"), "--state", "wilma.copy", "--root", fingerprint, "--roots", "inside/public/root", "--out", "cosigned", dir}
	}
	w.must(witness("inside/public/ledger")...)
	w.refuses("checkpoint-unsigned", witness("false/ledger")...)
	// A witness who is asked by file, and knew the ledger by the former key: the roots teach it, and it does not go back.
	ask := func(zone string, more ...string) []string {
		for _, f := range []string{"for-wilma", "from-wilma"} {
			os.Remove(w.path(f))
		}
		w.must(station, "ledger", "witness", "export", "--zone", zone, "--for", "wilma", "--from", fmt.Sprint(seen), "--out", "for-wilma")
		return append([]string{whole, "ledger", "cosign", "--key", w.key("wilma/witness"), "--state", "wilma.state", "--out", "from-wilma", "for-wilma"}, more...)
	}
	w.refuses("checkpoint-unsigned", ask("inside")...)
	w.must(ask("inside", "--root", fingerprint, "--roots", "inside/public/root")...)
	w.must(station, "ledger", "witness", "add", "--zone", "inside", "from-wilma")
	for _, args := range [][]string{ask("thief"), ask("thief", "--root", fingerprint, "--roots", "inside/public/root"), ask("thief", "--log", log)} {
		r := w.code(refused, append(args, "--json")...)
		if codes := strings.Join(reasons(t, r), " "); codes != "checkpoint-unsigned" && codes != "witness-log" {
			t.Errorf("the witness refuses for %q", codes)
		}
	}
	// Proofs: of before the change none counts by itself; what was kept is compared with what is there.
	paper := []string{"--root", fingerprint, "--roots", "inside/public/root"}
	w.refuses("key-replaced", append([]string{station, "ledger", "verify", "--proof", "proof-before"}, paper...)...)
	w.must(station, "ledger", "prove", "--zone", "inside", "3", "--out", "proof-now")
	w.must(append([]string{station, "ledger", "verify", "--proof", "proof-now"}, paper...)...)
	w.must(station, "ledger", "prove", "--zone", "inside", "--consistency", fmt.Sprint(size), "--out", "grown")
	w.must(append([]string{station, "ledger", "verify", "--proof", "grown", "--old", "kept"}, paper...)...)
	// Somebody lays the thief's ledger, or a cosignature under a tree of the thief's, into the zone.
	for name, put := range map[string]func(v *world){
		"ledger": func(v *world) {
			v.remove(v.path("inside", "public", "ledger"))
			copyTree(t, w.path("thief", "public", "ledger"), v.path("inside", "public", "ledger"))
		},
		"checkpoint": func(v *world) {
			write(t, v.path("inside", "public", "ledger", "checkpoint"), read(t, w.path("thief", "public", "ledger", "checkpoint")), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newWorld(t, w.dir, "inside")
			v.paper = fingerprint
			put(v)
			for _, args := range [][]string{v.signArgs(), {station, "ledger", "verify", "--zone", "inside"}} {
				r := v.code(refused, append(args, "--json")...)
				if codes := strings.Join(reasons(t, r), " "); !strings.Contains(codes, "key-replaced") {
					t.Errorf("refused for %q", codes)
				}
			}
			if d, _ := v.tryDepot(); d != nil {
				t.Error("a depot starts")
			}
		})
	}
	// A SIEM is told that they changed, and takes no entry for another's.
	if r := w.must(station, "ledger", "export", "--zone", "inside"); strings.Count(string(r.stdout), `"kind":"key-changed"`) != 2 || strings.Contains(string(r.stdout), `"signature":"unknown"`) || strings.Contains(string(r.stdout), `"signature":"bad"`) {
		t.Errorf("exported: %v", r)
	}
	w.refuses("key-replaced", station, "ledger", "export", "--public", "false", "--root", fingerprint)
	// The catalog is made again, and a backup made, with the keys as they are now.
	w.sound()
	d.stop()
	w.must(station, "catalog", "rebuild", "--zone", "inside")
	w.sound()
	w.must(station, "backup", "create", "--zone", "inside", "--with-keys", "backup")
	w.must(station, "backup", "verify", "backup")
	w.sound()
}

// dsse takes an envelope apart, has its payload changed, and signs it again, canonical or not.
func (w *world) dsse(file, key string, change func(payload string) string) (payload, keyid, sig string) {
	w.t.Helper()
	var e struct {
		Payload    string
		Signatures []struct{ KeyID string }
	}
	if err := json.Unmarshal(read(w.t, w.path(file)), &e); err != nil {
		w.t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		w.t.Fatal(err)
	}
	changed := change(string(text))
	k := w.secret(key)
	const kind = "application/vnd.in-toto+json"
	s, err := k.Sign(k.Context(), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(kind), kind, len(changed), changed))
	if err != nil {
		w.t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString([]byte(changed)), k.VKey().ID(), base64.StdEncoding.EncodeToString(s)
}

// envelopeOf finds an envelope in the published ledger.
func (w *world) envelopeOf(kind string) []byte {
	w.t.Helper()
	for _, e := range w.entries("inside") {
		if e.Kind != kind {
			continue
		}
		var leaf []byte
		db := catalog(w.t, w.path("inside"))
		if err := db.QueryRowContext(w.t.Context(), `SELECT leaf FROM entry WHERE idx = ?`, e.Index).Scan(&leaf); err != nil {
			w.t.Fatal(err)
		}
		return leaf
	}
	w.t.Fatalf("no entry %s", kind)
	return nil
}

// TestStatementsReplayed: what a builder signed counts for what it was signed for, while the key does, in one spelling. All else is refused, told to the ledger, and changes nothing.
func TestStatementsReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	w.admit(2)
	d := w.depot()
	w.builder("builder-1", "erin", d.url)
	drv, other := w.named(1, ".drv").Name, w.named(2, ".drv").Name
	w.must(w.buildArgs("builder-1", "result-1", drv)...)
	w.must(w.buildArgs("builder-1", "result-2", other)...)
	nar := func(dir string) string {
		list, _ := filepath.Glob(w.path(dir, "*.nar"))
		if len(list) != 1 {
			t.Fatalf("%q", list)
		}
		return list[0]
	}
	same := func(s string) string { return s }
	put := func(format, payload, keyid, sig string) {
		const kind = "application/vnd.in-toto+json"
		write(t, w.path("played", "built.dsse"), fmt.Appendf(nil, format, payload, kind, keyid, sig), 0o644)
	}
	const envelope = `{"payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`
	play := func(name, reason string, change func(), args ...string) {
		t.Helper()
		before, refusals := w.kept(), w.kinds("inside")["refused"]
		w.remove(w.path("played"))
		copyTree(t, w.path("result-1"), w.path("played"))
		change()
		if args == nil {
			args = w.submitArgs("played")
		}
		t.Log(name)
		w.refuses(reason, args...)
		if after := w.kept(); after != before {
			t.Fatalf("%s: something changed:\n%s\nbefore:\n%s", name, after, before)
		}
		if n := w.kinds("inside")["refused"]; n != refusals+1 {
			t.Errorf("%s: %d entries \"refused\", want one more than %d", name, n, refusals)
		}
	}
	play("the word on another derivation", "result-incomplete", func() {
		write(t, w.path("played", "built.dsse"), read(t, w.path("result-2", "built.dsse")), 0o644)
	})
	play("the word on another derivation, with this one's bytes under its name", "output-size", func() {
		write(t, w.path("played", "built.dsse"), read(t, w.path("result-2", "built.dsse")), 0o644)
		write(t, w.path("played", filepath.Base(nar("result-2"))), read(t, nar("result-1")), 0o644)
	})
	play("on a track that does not allow it", "no-allowlist", func() {}, station, "quorum", "submit", "--zone", "inside", "--track", "prod", "played")
	play("an importer's word", "statement-kind", func() {
		write(t, w.path("played", "built.dsse"), w.envelopeOf("imported"), 0o644)
	})
	// The helper itself makes what is valid, or the cases after it would test nothing.
	payload, keyid, sig := w.dsse("result-1/built.dsse", "erin/statement", same)
	if got := fmt.Sprintf(envelope, payload, "application/vnd.in-toto+json", keyid, sig); got != strings.TrimSpace(string(read(t, w.path("result-1", "built.dsse")))) {
		t.Fatalf("not the same statement:\n%s", got)
	}
	for name, change := range map[string]func(string) string{
		"a member twice": func(s string) string {
			return strings.Replace(s, `"person":"erin"`, `"person":"erin","person":"erin"`, 1)
		},
		"a member twice, contrary": func(s string) string {
			return strings.Replace(s, `"person":"erin"`, `"person":"frank","person":"erin"`, 1)
		},
		"white space":                func(s string) string { return strings.Replace(s, `"person":"erin"`, `"person": "erin"`, 1) },
		"an escape":                  func(s string) string { return strings.Replace(s, `"person":"erin"`, `"person":"\u0065rin"`, 1) },
		"a predicate twice":          func(s string) string { return strings.TrimSuffix(s, "}") + `,"predicate":{}}` },
		"something behind the value": func(s string) string { return s + "{}" },
	} {
		play("signed over "+name, "statement-not-canonical", func() {
			p, k, s := w.dsse("result-1/built.dsse", "erin/statement", change)
			if p == payload {
				t.Fatalf("%s: nothing changed", name)
			}
			put(envelope, p, k, s)
		})
	}
	for name, format := range map[string]string{
		"the payload twice":     `{"payload":"AAAA","payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`,
		"another member":        `{"payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}],"x":1}`,
		"white space":           `{"payload": "%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s"}]}`,
		"a second, wrong, name": `{"payload":"%s","payloadType":"%s","signatures":[{"keyid":"%s","sig":"%s","keyid":"frank"}]}`,
	} {
		play("an envelope with "+name, "statement-not-canonical", func() { put(format, payload, keyid, sig) })
	}
	play("a reviewer's key, which has another context", "statement-not-canonical", func() {
		p, k, s := w.dsse("result-1/built.dsse", "alice/allowlist", same)
		put(envelope, p, k, s)
	})
	play("a reviewer's key under the builder's name", "statement-signature", func() {
		p, _, s := w.dsse("result-1/built.dsse", "alice/allowlist", same)
		put(envelope, p, keyid, s)
	})
	play("frank's name over what erin signed", "statement-signature", func() {
		put(envelope, payload, w.secret("frank/statement").VKey().ID(), sig)
	})

	// What counts counts once.
	w.must(w.submitArgs("result-2")...)
	entries := len(w.entries("inside"))
	w.must(w.submitArgs("result-2")...)
	if n := len(w.entries("inside")); n != entries {
		t.Errorf("said again it makes %d entries", n-entries)
	}
	// The key's time was over when the statement was made.
	w.root("enroll", "--person", "erin", "--key", w.key("erin/statement")+".pub", "--until", "2020-01-01T00:00:00Z")
	play("by a key that had run out", "statement-key", func() {})
	w.root("revoke", "--person", "erin")
	play("by a key that was revoked", "statement-key", func() {})
	r := w.code(waiting, station, "quorum", "status", "--zone", "inside", "--track", track, other, "--json")
	if !strings.Contains(string(r.stdout), `"votes":[]`) {
		t.Errorf("the vote of a revoked builder still counts: %v", r)
	}
	w.sound()
}

// TestForgedImports: with the keys of station and ledger somebody enters that another than dave has imported shipment 2. Dave still does not approve it, and the auditor names the entry.
func TestForgedImports(t *testing.T) {
	t.Parallel()
	w := newWorld(t, admitted(t), "inside")
	first := w.envelopeOf("imported")
	w.must(w.importArgs(2)...)
	manifest := query(t, catalog(t, w.path("inside")), `SELECT manifest FROM shipment WHERE number = 2`)[0]
	sum, err := trust.ParseDigest(manifest)
	if err != nil {
		t.Fatal(err)
	}
	base := func() statement.Statement {
		e, err := statement.ParseEnvelope(first)
		if err != nil {
			t.Fatal(err)
		}
		s := e.Unverified()
		s.Subjects[0].SHA256 = sum
		s.Predicate["shipment"] = int64(2)
		return s
	}
	sign := func(k *trust.Key, person string) []byte {
		s := base()
		s.Predicate["person"] = person
		text, err := statement.Sign(k, s)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	own, err := trust.ParseKey(read(t, w.path("inside", "keys", "station.key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, desk, audit string
		leaf              func() []byte
	}{
		{"the entry of shipment 1 once more", "separation-of-duties", "shipment-replayed", func() []byte { return first }},
		{"the station in another's name", "statement-role", "statement-role", func() []byte { return sign(own, "alice") }},
		{"a stranger", "statement-key", "statement-key", func() []byte { return sign(w.secret("mallory/statement"), "mallory") }},
		{"a builder", "statement-role", "statement-role", func() []byte { return sign(w.secret("erin/statement"), "erin") }},
		{"dave's word on shipment 1, turned into one on shipment 2", "statement-signature", "statement-signature", func() []byte {
			out, n := editPayloads(sign(w.secret("dave/statement"), "dave"), `"person":"dave"`, `"person":"evil"`)
			if n != 1 {
				t.Fatal("it names nobody")
			}
			return out
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newWorld(t, w.dir, "inside")
			leaf := tt.leaf()
			z, err := store.Open(t.Context(), v.path("inside"), store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			err = z.Commit(t.Context(), func(tx *store.Tx) error {
				index, err := tx.Append(leaf)
				if err != nil {
					return err
				}
				if err := tx.Exec(t.Context(), `UPDATE shipment SET importer = 'alice' WHERE number = 2`); err != nil {
					return err
				}
				return tx.Exec(t.Context(), `UPDATE setting SET value = ? WHERE name = 'imported/2'`, fmt.Sprint(index))
			})
			if err := z.Close(); err != nil {
				t.Error(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			if n := v.kinds("inside")["imported"]; n != 3 {
				t.Fatalf("%d entries \"imported\": the forged one is not there", n)
			}
			before := v.kept()
			v.refuses(tt.desk, v.approveArgs(2, "dave")...)
			if after := v.kept(); after != before {
				t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
			}
			v.refuses(tt.audit, verifier, "enclave", "--root", v.fingerprint(), "inside/public")
		})
	}
}

// TestMixAndMatch: documents that are all well signed, but do not belong together.
func TestMixAndMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, governed(t), "inside")
	drv := w.named(1, ".drv").Name
	d := w.depot()
	w.order("order", "lost", "--reason", "burnt", "77")

	// Another enclave with the same officers and the same reviewers.
	o := &world{t: t, dir: w.path("elsewhere"), keys: w.keys}
	o.mkdir("")
	o.must(station, "init", "--kind", "inside", "--enclave", "other", "inside")
	args := append(o.trustInit()[:5:5], append(o.trustInit()[7:], "--draft", "root-1.draft", "--role", "officer=oscar", "--threshold", "root=2", "--threshold", "order=2")...)
	for _, p := range []string{"oscar/root", "oscar/order"} {
		args = append(args, "--enroll", w.key(p)+".pub")
	}
	o.must(args...)
	o.officers("trust", "root", "root-1.draft")
	o.must(station, "trust", "accept", "--zone", "inside", "--fingerprint", o.digest("root-1.draft"), "root-1.draft")
	o.order("order", "lost", "--reason", "drowned", "78")
	foreign := read(t, o.path("inside", "public", "orders", "1"))
	foreignRoot := read(t, o.path("inside", "public", "root", "1"))

	before := w.kept()
	for _, f := range files(t, o.path()) {
		if strings.HasPrefix(f, "orders-1.draft") {
			write(t, w.path(f), read(t, o.path(f)), 0o644)
		}
	}
	w.refuses("orders-enclave", w.orderAccept("orders-1.draft")...)
	// Nor is such a draft signed where this enclave's zone or roots are named: the same officers hold keys of both.
	o.must(station, "trust", "policy", "--zone", "inside", "--draft", "root-2.draft", "silence", "60")
	o.draft("order", "lost", "--reason", "drowned", "79")
	for _, f := range []string{"root-1.draft", "root-2.draft", "orders-2.draft"} {
		write(t, w.path("foreign-"+f), read(t, o.path(f)), 0o644)
	}
	sign := func(noun, key, draft string, more ...string) []string {
		return append([]string{station, noun, "sign", "--key", w.key(key), "--fingerprint", w.digest(draft), draft}, more...)
	}
	here := []string{"--zone", "inside"}
	for _, args := range [][]string{
		sign("trust", "olga/root", "foreign-root-1.draft", here...),
		sign("trust", "olga/root", "foreign-root-1.draft", "--roots", "inside/public/root", "--roots-fingerprint", w.fingerprint()),
		sign("trust", "olga/root", "foreign-root-2.draft", here...),
		sign("trust", "olga/root", "foreign-root-2.draft", "--roots", "inside/public/root", "--roots-fingerprint", w.fingerprint()),
	} {
		w.refuses("root-enclave", args...)
	}
	w.refuses("orders-enclave", sign("order", "olga/order", "foreign-orders-2.draft", here...)...)
	w.refuses("orders-enclave", sign("order", "olga/order", "foreign-orders-2.draft", "--last", "inside/public/orders/1")...)
	w.must(station, "init", "--kind", "inside", "--enclave", "third", "third")
	w.refuses("root-enclave", sign("trust", "olga/root", "foreign-root-1.draft", "--zone", "third")...)
	for _, f := range files(t, w.path()) {
		if strings.HasPrefix(f, "foreign-") && strings.HasSuffix(f, ".sig") {
			t.Errorf("%s was signed", f)
		}
	}
	// Where they are of the zone that is named, they are: the first root, too, again.
	o.must(station, "trust", "sign", "--zone", "inside", "--key", w.key("olga/root"), "--fingerprint", o.digest("root-1.draft"), "root-1.draft")
	if after := w.kept(); after != before {
		t.Errorf("something changed:\n%s\nbefore:\n%s", after, before)
	}

	// Root 2, under which the list is signed again.
	w.root("policy", "silence", "60")
	list := textOf(t, read(t, w.path("inside", "public", "allowlist", track, "1")))
	for _, p := range []string{"alice", "bob"} {
		w.must(station, "review", "resign", "--zone", "inside", "--track", track, "--key", w.key(p+"/allowlist"))
	}
	second := read(t, w.path("inside", "public", "allowlist", track, "2"))
	signList := func(text string) []byte {
		note, err := trust.SignNote([]byte(text), w.secret("alice/allowlist"), w.secret("bob/allowlist"))
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	head := func(root, orders, list int) []byte {
		return fmt.Appendf(nil, `{"enclave":"demo","track":"dev","root":%d,"orders":%d,"allowlist":%d}`, root, orders, list)
	}
	tests := []struct {
		name, reason string
		bodies       map[string][]byte
	}{
		{"the list of root 2 beside root 1", "allowlist-root", map[string][]byte{"/sallyport/head": head(1, 1, 2)}},
		{"the list that knows orders, without orders", "allowlist-orders", map[string][]byte{"/sallyport/head": head(2, 0, 2)}},
		{"the orders of another enclave", "orders-enclave", map[string][]byte{"/sallyport/orders/1": foreign}},
		{"the list of another enclave", "allowlist-enclave", map[string][]byte{"/sallyport/allowlist/2": signList(strings.Replace(string(textOf(t, second)), "enclave demo", "enclave other", 1))}},
		{"the list of another track", "allowlist-track", map[string][]byte{"/sallyport/allowlist/2": signList(strings.Replace(string(textOf(t, second)), "track dev", "track prod", 1))}},
		{"the first list under the second's number", "allowlist-version", map[string][]byte{"/sallyport/allowlist/2": signList(string(list))}},
		{"the root of another enclave", "root-pin", map[string][]byte{"/sallyport/root/1": foreignRoot}},
		{"the root of another enclave as the second", "root-", map[string][]byte{"/sallyport/root/2": foreignRoot}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, dir: w.dir, keys: w.keys, paper: w.fingerprint()}
			asked := map[string]bool{}
			url := w.proxy(d, func(path string, _ *http.Response) []byte {
				asked[path] = true
				return tt.bodies[path]
			})
			b, out := fmt.Sprintf("builder-%d", i), fmt.Sprintf("result-%d", i)
			w.builder(b, "erin", url)
			r := w.code(refused, append(w.buildArgs(b, out, drv), "--json")...)
			if codes := strings.Join(reasons(t, r), " "); !strings.Contains(codes, tt.reason) {
				t.Errorf("refused for %q, want %s", codes, tt.reason)
			}
			if _, err := os.Lstat(w.path(out)); err == nil {
				t.Error("there is a result")
			}
			w.point(b, d.url)
			w.must(w.buildArgs(b, out, drv)...)
		})
	}

	// The same in the station's own catalog.
	text, err := trust.ParseOrders(textOf(t, foreign))
	if err != nil {
		t.Fatal(err)
	}
	edit(t, catalog(t, w.path("inside")), `UPDATE orders SET digest = ?, note = ?`, text.Digest().String(), foreign)
	w.refuses("orders-enclave", w.signArgs()...)
	if fresh, _ := w.tryDepot(); fresh != nil {
		t.Error("a depot starts with the orders of another enclave")
	}
}
