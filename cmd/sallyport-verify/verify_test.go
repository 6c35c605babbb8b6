package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// verify runs the program and returns its exit code, the codes it refused with, and its report.
func verify(t testing.TB, args ...string) (int, []string, *report) {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(append(args[:1:1], append([]string{"--json"}, args[1:]...)...), &out, &errs)
	var rep report
	if code == exitUsage {
		return code, nil, nil
	}
	if err := json.Unmarshal(out.Bytes(), &rep); err != nil {
		t.Fatalf("exit %d, stdout %q, stderr %q: %v", code, out.Bytes(), errs.Bytes(), err)
	}
	codes := []string{}
	for _, f := range rep.Refused {
		if codes = append(codes, f.Code); f.Subject == "" || f.Detail == "" {
			t.Errorf("%+v says too little", f)
		}
	}
	slices.Sort(codes)
	return code, slices.Compact(codes), &rep
}

// get returns a fact as it is printed.
func (r *report) get(name string) string {
	for _, f := range r.Facts {
		if f.Name == name {
			return fmt.Sprint(f.Value)
		}
	}
	return "?"
}

func expect(t *testing.T, want string, args ...string) *report {
	t.Helper()
	exit, codes, rep := verify(t, args...)
	wantExit := exitRefused
	if want == "" {
		wantExit = exitGood
	}
	if got := strings.Join(codes, " "); got != want || exit != wantExit {
		t.Errorf("exit %d, refused with %q, want %d and %q", exit, got, wantExit, want)
		for _, f := range rep.Refused {
			t.Logf("%s %s: %s", f.Code, f.Subject, f.Detail)
		}
	}
	return rep
}

func TestEnclaveGood(t *testing.T) {
	w := newWorld()
	w.publish()
	dir := writeFiles(t, t.TempDir(), w.files)
	rep := expect(t, "", "enclave", "--root", w.pin(), "--require", "approved,built,agreed", "--witness", "wendy", "--witness", "wim", dir)
	for name, want := range map[string]string{"entries": "312", "entries built": "2", "entries inspected": "299", "entries undersigned": "2", "entries agreed": "1", "enclave": "keep", "root": "1",
		"witness wendy": "100 of 312 entries, 2023-11-14T22:13:20Z", "allowlist dev": "version 1, 3 items, " + hexSum([]byte(allowText(1, 1, "-", itemLines(contents()))))} {
		if got := rep.get(name); got != want {
			t.Errorf("%s is %q, not %q", name, got, want)
		}
	}
	if rep.Verdict != "good" {
		t.Errorf("report %+v", rep)
	}
	var out, errs bytes.Buffer
	if code := run([]string{"enclave", dir, "--root", w.pin()}, &out, &errs); code != 0 || errs.Len() > 0 {
		t.Errorf("exit %d, %s", code, errs.String())
	}
	for _, want := range []string{"enclave               keep\n", "witness wendy         100 of 312 entries, ", "verdict               good\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

// Each case bends one thing before or after the zone is written, and names everything that it is refused with.
func TestEnclaveFaults(t *testing.T) {
	editOne := func(kind string, f func(s *tstatement, body string) []byte) func(*world) {
		return func(w *world) {
			done := false
			w.edit = func(_ *world, _ int, s *tstatement, body string) []byte {
				if s.kind == kind && !done {
					done = true
					return f(s, body)
				}
				return seal(s.key, body)
			}
		}
	}
	text := func(kind, old, new string) func(*world) {
		return editOne(kind, func(s *tstatement, body string) []byte {
			if !strings.Contains(body, old) {
				panic("no " + old + " in " + body)
			}
			return seal(s.key, strings.Replace(body, old, new, 1))
		})
	}
	flip := func(name string, at int) func(*world) {
		return func(w *world) {
			b := w.files[name]
			at := (at + len(b)) % len(b)
			if strings.Contains(name, "tile/") {
				b[at] ^= 1
			} else if b[at] == 'A' { // base64 stays base64
				b[at] = 'B'
			} else {
				b[at] = 'A'
			}
		}
	}
	// rebody writes root 1 with a changed body.
	rebody := func(old, new string) func(*world) {
		return func(w *world) {
			before := w.pin()
			lines := rootBody()
			found := false
			for i := range lines {
				if strings.HasPrefix(lines[i], old) {
					found, lines[i] = true, strings.TrimSpace(strings.Replace(lines[i], old, new, 1))
				}
			}
			if !found {
				panic("no " + old)
			}
			w.roots[0] = rootText(1, "-", slices.DeleteFunc(lines, func(s string) bool { return s == "" }))
			for _, s := range w.statements {
				for _, sub := range s.Subject {
					if sub["sha256"] == before {
						sub["sha256"] = w.pin()
					}
				}
			}
		}
	}
	// second adds root 2; change bends its text, sigs are the keys under it.
	second := func(change func(string) string, sigs ...string) func(*world) {
		return func(w *world) {
			w.roots = append(w.roots, change(rootText(2, hexSum([]byte(w.roots[0])), rootBody())))
			w.rootSigs = append(w.rootSigs, sigs)
			w.say("station", "root", object{"version": 2, "changes": []any{}}, "root "+hexSum([]byte(w.roots[1])))
		}
	}
	same := func(s string) string { return s }
	// relist writes another allowlist 1 and its approvals in place of the first.
	relist := func(text string, names ...string) func(*world) {
		return func(w *world) {
			rest := w.statements[7:]
			w.statements = w.statements[:4]
			w.allow(1, text, names...)
			w.statements = append(w.statements, rest...)
		}
	}
	good := allowText(1, 1, "-", itemLines(contents()))
	next := func(prev, items string, names ...string) func(*world) {
		return func(w *world) { w.allow(2, allowText(2, 1, prev, items), names...) }
	}
	more := itemLines(map[string]string{"2123456789abcdfghijklmnpqrsvwxyz-new": "new"})
	drop := func(kind string) func(*world) {
		return func(w *world) {
			i := slices.IndexFunc(w.statements, func(s *tstatement) bool { return s.kind == kind })
			w.statements = slices.Delete(w.statements, i, i+1)
		}
	}
	for _, c := range []struct {
		name, codes   string
		before, after func(*world)
		args          []string
	}{
		// The tree.
		{name: "entry edited", codes: "ledger-entry ledger-root ledger-tile statement-signature witness-fork", after: func(w *world) {
			b := w.files["ledger/tile/entries/000"]
			i := bytes.Index(b, []byte(`"sig":"`)) + 20
			for b[i] == 'A' {
				i++
			}
			b[i] = 'A'
		}},
		{name: "entry edited and tiles recomputed", codes: "ledger-root statement-missing witness-fork", args: []string{"--require", "agreed"}, after: func(w *world) {
			check := w.files["ledger/checkpoint"]
			w.leaves[11], w.leaves[99] = w.leaves[99], w.leaves[98]
			w.tree(w.leaves)
			w.files["ledger/checkpoint"] = check
		}},
		{name: "history rewritten with the ledger's key", codes: "witness-fork", after: func(w *world) {
			w.leaves[50] = w.leaves[51]
			w.files["ledger/checkpoint"] = noteOf(w.tree(w.leaves), newKey(originName))
		}},
		{name: "entry dropped", codes: "ledger-bundle", after: func(w *world) {
			b := w.files["ledger/tile/entries/000"]
			w.files["ledger/tile/entries/000"] = b[2+int(b[0])<<8+int(b[1]):]
		}},
		{name: "entry added to a full bundle", codes: "ledger-bundle", after: func(w *world) {
			w.files["ledger/tile/entries/000"] = append(w.files["ledger/tile/entries/000"], 0, 1, 'x')
		}},
		{name: "entries reordered", codes: "ledger-entry ledger-root ledger-tile witness-fork", after: func(w *world) {
			l := slices.Clone(w.leaves)
			l[20], l[21] = l[21], l[20]
			other := &world{files: map[string][]byte{}}
			other.tree(l)
			w.files["ledger/tile/entries/000"] = other.files["ledger/tile/entries/000"]
		}},
		{name: "tile edited", codes: "ledger-entry", after: flip("ledger/tile/0/000", 40)},
		{name: "partial tile edited", codes: "ledger-entry", after: flip("ledger/tile/0/001.p/56", 40)},
		{name: "upper tile edited", codes: "ledger-tile", after: flip("ledger/tile/1/000.p/1", 3)},
		{name: "tile cut", codes: "ledger-tile", after: func(w *world) { w.files["ledger/tile/0/000"] = w.files["ledger/tile/0/000"][:8000] }},
		{name: "tile missing", codes: "ledger-missing", after: func(w *world) { delete(w.files, "ledger/tile/0/000") }},
		{name: "bundle missing", codes: "ledger-missing", after: func(w *world) { delete(w.files, "ledger/tile/entries/001.p/56") }},
		{name: "tiles ahead of the checkpoint", after: func(w *world) {
			ahead := slices.Clone(w.leaves)
			for len(ahead) < 600 {
				ahead = append(ahead, w.leaves[20])
			}
			w.tree(ahead)
			for name := range w.files { // as if the smaller widths were gone already
				if strings.Contains(name, "tile/") && strings.HasSuffix(name, ".p/56") {
					delete(w.files, name)
				}
			}
			w.files["ledger/tile/1/000.p/1"] = w.files["ledger/tile/1/000.p/2"][:32]
		}},
		{name: "checkpoint by another key", codes: "checkpoint-unsigned", before: func(w *world) { w.checkpoint = originName + "#2" }},
		{name: "checkpoint signature damaged", codes: "checkpoint-signature", after: flip("ledger/checkpoint", -40)},
		{name: "checkpoint missing", codes: "checkpoint-missing", after: func(w *world) { delete(w.files, "ledger/checkpoint") }},
		{name: "checkpoint with another spelling", codes: "checkpoint-syntax", after: func(w *world) {
			w.files["ledger/checkpoint"] = bytes.Replace(w.files["ledger/checkpoint"], []byte("\n312\n"), []byte("\n0312\n"), 1)
		}},
		// Witnesses.
		{name: "witness of a fork", codes: "witness-fork", after: func(w *world) {
			l := slices.Clone(w.leaves[:100])
			l[99] = l[98]
			w.files["witness/wendy"] = noteOf((&world{files: map[string][]byte{}}).tree(l), newKey(originName), newKey("wendy/witness"))
		}},
		{name: "witness saw more", codes: "witness-rollback", after: func(w *world) {
			l := append(slices.Clone(w.leaves), w.leaves[20])
			w.files["witness/wendy"] = noteOf((&world{files: map[string][]byte{}}).tree(l), newKey(originName), newKey("wendy/witness"))
		}},
		{name: "witness signature damaged", codes: "checkpoint-signature", after: flip("witness/wendy", -20)},
		{name: "witness signature at another time", codes: "checkpoint-signature", after: func(w *world) {
			text := string(w.files["witness/wim"])
			i := strings.LastIndexByte(text, ' ') + 1
			raw, _ := decode64(strings.TrimSpace(text[i:]))
			raw[11]++
			w.files["witness/wim"] = []byte(text[:i] + b64(raw) + "\n")
		}},
		{name: "witness unknown", codes: "checkpoint-unsigned witness-missing", args: []string{"--witness", "walt"}, after: func(w *world) {
			w.files["witness/walt"] = noteOf(string(w.files["ledger/checkpoint"][:bytes.Index(w.files["ledger/checkpoint"], []byte("\n\n"))+1]), newKey(originName), newKey("walt/witness"))
		}},
		{name: "witness on the checkpoint itself", args: []string{"--witness", "wendy"}, after: func(w *world) {
			text := string(w.files["ledger/checkpoint"][:bytes.Index(w.files["ledger/checkpoint"], []byte("\n\n"))+1])
			w.files["ledger/checkpoint"] = noteOf(text, newKey(originName), newKey("wendy/witness"))
			delete(w.files, "witness/wendy")
		}},
		// Statements.
		{name: "payload re-encoded with white space", codes: "statement-not-canonical", before: text("inspected", `,"predicate":`, `, "predicate":`)},
		{name: "envelope re-encoded", codes: "statement-not-canonical", before: editOne("inspected", func(s *tstatement, body string) []byte {
			return bytes.Replace(seal(s.key, body), []byte(`,"payloadType"`), []byte(`, "payloadType"`), 1)
		})},
		{name: "base64 with a line feed", codes: "statement-not-canonical", before: editOne("inspected", func(s *tstatement, body string) []byte {
			return bytes.Replace(seal(s.key, body), []byte(`"payload":"`), []byte("\"payload\":\"\n"), 1)
		})},
		{name: "duplicate members", codes: "statement-not-canonical", before: text("inspected", `"files":3,`, `"files":3,"files":3,`)},
		{name: "members not sorted", codes: "statement-not-canonical", before: text("inspected", `"low":2`, `"low":2,"high":1`)},
		{name: "duplicate subjects", codes: "statement-not-canonical", before: text("inspected", `"subject":[`, `"subject":[{"name":"manifest","digest":{"sha256":"`+hexSum(nil)+`"}},`)},
		{name: "escape that is not needed", codes: "statement-not-canonical", before: text("refused", `"gate"`, `"gat\u0065"`)},
		{name: "line separator", codes: "statement-not-canonical", before: text("refused", `"gate"`, "\"gate\u2028\"")},
		{name: "float", codes: "statement-not-canonical", before: text("inspected", `"files":3`, `"files":3.0`)},
		{name: "number too large", codes: "statement-not-canonical", before: text("inspected", `"files":3`, `"files":9007199254740993`)},
		{name: "null", codes: "statement-not-canonical", before: text("inspected", `"files":3`, `"files":null`)},
		{name: "member missing", codes: "statement-predicate", before: text("inspected", `"files":3,`, ``)},
		{name: "kind unknown", codes: "statement-kind", before: text("inspected", `statement:inspected:1`, `statement:blessed:1`)},
		{name: "date with another spelling", codes: "statement-predicate", before: text("inspected", `03:04:05Z`, `03:04:05+00:00`)},
		{name: "other zone", codes: "statement-zone", before: text("inspected", originName, "sallyport/keep/outside")},
		{name: "signature damaged", codes: "statement-signature", before: editOne("inspected", func(s *tstatement, body string) []byte {
			return []byte(strings.Replace(string(seal(s.key, body)), b64([]byte(body)), b64([]byte(strings.Replace(body, `"files":3`, `"files":4`, 1))), 1))
		})},
		{name: "key unknown", codes: "statement-key", before: func(w *world) { w.find("inspected").key = newKey("mallory/statement") }},
		{name: "key of another context", codes: "statement-not-canonical", before: func(w *world) { w.find("inspected").key = newKey("rita/allowlist") }},
		{name: "wrong role: builder inspects", codes: "statement-role", before: func(w *world) { w.find("inspected").key = newKey("bea/statement") }},
		{name: "wrong role: station imports", codes: "approval-unshipped statement-person statement-role", before: func(w *world) { w.find("imported").key = newKey("station/statement") }},
		{name: "person is another", codes: "approval-unshipped statement-person", before: func(w *world) { w.find("imported").Predicate["person"] = "rita" }},
		{name: "kind required and missing", codes: "statement-missing", args: []string{"--require", "built,disagreed"}},
		{name: "shipment twice", codes: "shipment-replayed", before: func(w *world) {
			w.statements = append(w.statements, w.find("imported"))
		}},
		{name: "shipment twice with other bytes", codes: "shipment-equivocation", before: func(w *world) {
			w.say("ivan", "imported", object{"shipment": 1, "items": 3, "bytes": 24, "person": "ivan"}, "manifest "+hexSum(nil))
		}},
		{name: "created for another zone", codes: "ledger-created", before: func(w *world) { w.find("created").Subject[0]["name"] = "sallyport/keep/outside" }},
		{name: "created twice", codes: "ledger-created", before: func(w *world) { w.statements = append(w.statements, w.statements[0]) }},
		// The root.
		{name: "root of another digest", codes: "root-pin", args: []string{"--root", hexSum(nil)}},
		{name: "root missing", codes: "root-missing", after: func(w *world) { delete(w.files, "root/1") }},
		{name: "root under its threshold", codes: "root-threshold", before: func(w *world) { w.rootSigs[0] = []string{"olga/root"} }},
		{name: "root by two keys of one person", codes: "root-threshold", before: func(w *world) {
			w.rootSigs[0] = []string{"olga/root", "olga/root#2"}
			rebody("policy quorum 2", "key root olga "+newKey("olga/root#2").vkey())(w)
			w.roots[0] = strings.Replace(w.roots[0], "role ", "policy quorum 2\nrole ", 1)
		}},
		{name: "root signature damaged", codes: "root-signature", after: flip("root/1", -30)},
		{name: "root not sorted", codes: "root-unsorted", before: func(w *world) {
			w.roots[0] = strings.Replace(w.roots[0], "policy quorum 2\n", "", 1) + "policy quorum 2\n"
		}},
		{name: "root without quorum", codes: "root-quorum", before: rebody("policy quorum 2", "")},
		{name: "root with a threshold nobody can meet", codes: "root-threshold-range", before: rebody("threshold root 2", "threshold root 3")},
		{name: "root without a track's threshold", codes: "root-threshold-missing", before: rebody("threshold allowlist/dev 2", "")},
		{name: "root with a key twice", codes: "root-duplicate-key", before: rebody("key narinfo dev "+strings.Repeat("ab", 32), "key narinfo dev "+fmt.Sprintf("%x", newKey("olga/root").public()[1:]))},
		{name: "root with a role unknown", codes: "root-syntax", before: rebody("role officer olga", "role owner olga")},
		{name: "root with a key misnamed", codes: "root-owner root-threshold-range", before: rebody("key root olga", "key root otto")},
		{name: "root 2", before: second(same, "olga/root", "otto/root")},
		{name: "root 2 under threshold", codes: "root-missing root-threshold", before: second(same, "olga/root")},
		{name: "root chain broken: previous", codes: "root-missing root-previous", before: second(func(s string) string {
			return regexp.MustCompile("previous .{64}").ReplaceAllString(s, "previous "+hexSum(nil))
		}, "olga/root", "otto/root")},
		{name: "root chain broken: version", codes: "root-missing root-version", before: second(func(s string) string { return strings.Replace(s, "version 2", "version 3", 1) }, "olga/root", "otto/root")},
		{name: "root chain broken: enclave", codes: "root-missing root-owner", before: second(func(s string) string { return strings.Replace(s, "enclave keep", "enclave kept", 1) }, "olga/root", "otto/root")},
		{name: "root chain broken: date", codes: "root-date root-missing", before: second(func(s string) string { return strings.Replace(s, "date 2026", "date 2025", 1) }, "olga/root", "otto/root")},
		{name: "root 2 not recorded", codes: "root-unrecorded", before: func(w *world) {
			second(same, "olga/root", "otto/root")(w)
			w.statements = w.statements[:len(w.statements)-1]
		}},
		{name: "root number skipped", codes: "root-missing", after: func(w *world) { w.files["root/3"] = w.files["root/1"] }},
		{name: "builder removed by root 2 goes on", codes: "statement-role", before: func(w *world) {
			second(func(s string) string { return strings.Replace(s, "role builder bea\n", "", 1) }, "olga/root", "otto/root")(w)
			w.built("bea", outDigest)
		}},
		// The allowlist.
		{name: "allowlist under threshold", codes: "allowlist-threshold", after: func(w *world) {
			w.files["allowlist/dev/1"] = noteOf(good, newKey("rita/allowlist"))
		}},
		{name: "allowlist by two keys of one person", codes: "allowlist-threshold", before: func(w *world) {
			w.roots[0] = strings.Replace(w.roots[0], "key allowlist rolf", "key allowlist rita "+newKey("rita/allowlist#2").vkey()+"\nkey allowlist rolf", 1)
			lines := strings.SplitAfterN(w.roots[0], "\n", 6)
			body := strings.Split(strings.TrimSuffix(lines[5], "\n"), "\n")
			w.roots[0] = rootText(1, "-", body)
			w.find("root").Subject[0]["sha256"] = w.pin()
		}, after: func(w *world) {
			w.files["allowlist/dev/1"] = noteOf(good, newKey("rita/allowlist"), newKey("rita/allowlist#2"))
		}},
		{name: "allowlist signature damaged", codes: "allowlist-signature", after: flip("allowlist/dev/1", -30)},
		{name: "allowlist by no reviewer", codes: "allowlist-threshold", after: func(w *world) {
			w.files["allowlist/dev/1"] = noteOf(good, newKey("rita/allowlist"), newKey("mallory/allowlist"))
		}},
		{name: "allowlist changed", codes: "allowlist-equivocation not-allowed", after: func(w *world) {
			w.files["allowlist/dev/1"] = noteOf(allowText(1, 1, "-", more), newKey("rita/allowlist"), newKey("rolf/allowlist"))
		}},
		{name: "allowlist missing", codes: "allowlist-missing not-allowed", after: func(w *world) { delete(w.files, "allowlist/dev/1") }},
		{name: "allowlist never allowed", codes: "allowlist-unrecorded", after: func(w *world) { w.files["allowlist/dev/2"] = w.files["allowlist/dev/1"] }},
		{name: "allowlist not sorted", codes: "allowlist-duplicate-name allowlist-unsorted not-allowed", before: relist(allowText(1, 1, "-", itemLines(contents())+strings.SplitAfter(itemLines(contents()), "\n")[0]), "rita", "rolf")},
		{name: "allowlist with a name twice", codes: "allowlist-duplicate-name not-allowed", before: relist(allowText(1, 1, "-", sorted(itemLine("a", "source", drvName[:33]+"x")+itemLine("b", "source", drvName[:33]+"x"))), "rita", "rolf")},
		{name: "allowlist of a later root", codes: "allowlist-root", before: relist(allowText(1, 2, "-", itemLines(contents())), "rita", "rolf")},
		{name: "allowlist 2", before: next(hexSum([]byte(good)), more, "rolf", "ruth")},
		{name: "allowlist 2 with another previous", codes: "allowlist-previous", before: next(hexSum(nil), more, "rita", "rolf")},
		{name: "allowlist 1 again", codes: "allowlist-rollback", before: func(w *world) { w.statements = append(w.statements, w.find("allowed")) }},
		{name: "allowlist 1 with another digest", codes: "allowlist-equivocation", before: func(w *world) {
			f := w.files["allowlist/dev/1"]
			w.allow(1, allowText(1, 1, "-", more), "rita", "rolf")
			w.files["allowlist/dev/1"] = f
		}},
		{name: "allowlist 3 after 1", codes: "allowlist-version", before: func(w *world) { w.allow(3, allowText(3, 1, hexSum([]byte(good)), more), "rita", "rolf") }},
		{name: "approval missing", codes: "approval-missing", before: drop("approved")},
		{name: "approval of another signature", codes: "approval-signature", before: func(w *world) {
			w.find("approved").Predicate["signature"] = strings.TrimSuffix(newKey("rita/allowlist").sigLine(good+"x"), "\n")
		}},
		{name: "approval by one person twice", codes: "approval-duplicate approval-missing", before: func(w *world) { w.find("allowed").Predicate["persons"] = []any{"rita", "rita"} }},
		{name: "approver is the importer", codes: "approval-own-import", before: func(w *world) {
			s := w.find("imported")
			s.key, s.Predicate["person"] = newKey("rita/statement"), "rita"
		}},
		{name: "rejected", before: func(w *world) { w.reject("rolf", "rolf") }},
		{name: "rejected in another's name", codes: "rejection-person", before: func(w *world) { w.reject("rita", "rolf") }},
		{name: "rejected by nobody's key", codes: "rejection-unsigned", before: func(w *world) { w.reject("mallory", "mallory") }},
		{name: "rejected for another reason", codes: "rejection-signature", before: func(w *world) { w.reject("rolf", "rolf").Predicate["reason"] = "another" }},
		{name: "rejected by a digest for a signature", codes: "statement-predicate", before: func(w *world) {
			w.reject("rolf", "rolf").Predicate["signature"] = newKey("rolf/allowlist").id()
		}},
		{name: "rejected by the importer", codes: "approval-own-import rejection-own-import", before: func(w *world) {
			s := w.find("imported")
			s.key, s.Predicate["person"] = newKey("rita/statement"), "rita"
			w.reject("rita", "rita")
			n := len(w.statements) - 1
			w.statements = slices.Insert(w.statements[:n:n], 4, w.statements[n])
		}},
		// Submissions.
		{name: "submitted", before: func(w *world) { w.submit("ivan", 1) }},
		{name: "submitted and approved", before: func(w *world) { w.submit("ivan", 1); w.allowOwn("rita", "rolf") }},
		{name: "submitted and approved by the submitter", codes: "approval-own-submission", before: func(w *world) {
			w.submit("rita", 1)
			w.allowOwn("rita", "rolf")
		}},
		{name: "submitted by two, approved by one of them", codes: "approval-own-submission", before: func(w *world) {
			w.submit("ivan", 1)
			w.submit("rita", 2)
			w.allowOwn("rita", "rolf")
		}},
		{name: "submitted by a stranger", codes: "statement-key", before: func(w *world) { w.submit("mallory", 1) }},
		{name: "submitted by the station", codes: "statement-person statement-role", before: func(w *world) { w.submit("ivan", 1).key = newKey("station/statement") }},
		{name: "submission out of turn", codes: "submission-number", before: func(w *world) { w.submit("ivan", 2) }},
		{name: "submission twice", codes: "submission-number", before: func(w *world) { w.submit("ivan", 1); w.submit("ivan", 1) }},
		{name: "submission of another item", codes: "statement-predicate", before: func(w *world) { w.submit("ivan", 1).Subject[0]["sha256"] = hexSum(nil) }},
		{name: "allowed, and nobody submitted it", codes: "allowlist-submission", before: func(w *world) { w.allowOwn("rita", "rolf") }},
		{name: "submission declined", before: func(w *world) { w.submit("ivan", 1); w.decline("rolf", 1) }},
		{name: "submission declined by the submitter", codes: "rejection-own-import", before: func(w *world) { w.submit("rita", 1); w.decline("rita", 1) }},
		{name: "submission declined by a signature for another", codes: "rejection-signature", before: func(w *world) {
			w.submit("ivan", 1)
			w.decline("rolf", 1).Predicate["submission"] = 2
		}},
		{name: "allowed after it was declined", codes: "allowlist-submission", before: func(w *world) {
			w.submit("ivan", 1)
			w.decline("rolf", 1)
			w.allowOwn("rita", "rolf")
		}},
		// Quorum.
		{name: "quorum of one", codes: "quorum-waiting", before: func(w *world) {
			w.find("agreed").Predicate["builders"] = []any{newKey("bea/statement").id()}
		}},
		{name: "quorum of one person twice", codes: "quorum-waiting", before: func(w *world) {
			w.find("agreed").Predicate["builders"] = []any{newKey("bea/statement").id(), newKey("bea/statement").id()}
		}},
		{name: "quorum with a builder who did not build", codes: "quorum-builders", before: func(w *world) {
			w.find("agreed").Predicate["builders"] = []any{newKey("bea/statement").id(), newKey("bill/statement").id()}
		}},
		{name: "quorum dissent", codes: "quorum-dissent", before: func(w *world) {
			w.built("bill", hexSum(nil))
			n := len(w.statements) - 1
			w.statements = slices.Insert(w.statements[:n:n], 8, w.statements[n])
		}},
		{name: "agreed on something else", codes: "quorum-dissent", before: func(w *world) { w.find("agreed").Subject[0]["sha256"] = hexSum(nil) }},
		{name: "agreed on what nobody allowed", codes: "not-allowed quorum-builders", before: func(w *world) { w.find("agreed").Predicate["derivation"] = "/gnu/store/" + drvName[:33] + "other.drv" }},
		{name: "built of other bytes than allowed", codes: "quorum-dissent", before: func(w *world) {
			for _, s := range w.statements {
				if s.kind == "built" {
					s.Predicate["derivation-sha256"] = hexSum(nil)
				}
			}
		}},
		{name: "built with outputs that are not its subjects", codes: "quorum-builders quorum-waiting statement-predicate", before: func(w *world) {
			w.find("built").Predicate["outputs"] = object{"out": object{"path": outPath + "x", "size": 1, "references": []any{}}}
		}},
		{name: "disagreed", before: func(w *world) {
			w.built("bill", hexSum(nil))
			w.say("station", "disagreed", object{"builders": object{newKey("bill/statement").id(): []any{outPath + " " + hexSum(nil)}}}, "/gnu/store/"+drvName+" "+drvDigest)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			if c.after == nil && c.args == nil {
				w.fill = 8 // no tile is bent
			}
			if c.before != nil {
				c.before(w)
			}
			w.publish()
			if c.after != nil {
				c.after(w)
			}
			expect(t, c.codes, append([]string{"enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files)}, c.args...)...)
		})
	}
}

func sorted(text string) string {
	l := strings.SplitAfter(text, "\n")
	slices.Sort(l)
	return strings.Join(l, "")
}

// Two shipments, of two importers: only with the manifests it shows who imported what a version adds.
func TestTwoDoorsWithManifests(t *testing.T) {
	items := itemLines(map[string]string{"2123456789abcdfghijklmnpqrsvwxyz-new": "new"})
	other := noteOf(strings.NewReplacer("shipment 1", "shipment 2", "previous -", "previous "+hexSum(nil)).Replace(manifestText(items)), newKey("carl/manifest"))
	for _, c := range []struct {
		approver, codes string
		manifests       bool
	}{{"rita", "", false}, {"rita", "approval-own-import", true}, {"ruth", "", true}} {
		w := newWorld()
		w.say("rita", "imported", object{"shipment": 2, "items": 1, "bytes": 3, "person": "rita"}, "manifest "+hexSum(other))
		w.allow(2, allowText(2, 1, hexSum([]byte(allowText(1, 1, "-", itemLines(contents())))), items), c.approver, "rolf")
		w.publish()
		args := []string{"enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files)}
		if c.manifests {
			args = append(args, "--manifests", writeFiles(t, t.TempDir(), map[string][]byte{"one": w.manifest, "two": other}))
		}
		expect(t, c.codes, args...)
	}
}

func TestHostileFiles(t *testing.T) {
	for name, bend := range map[string]func(t *testing.T, dir string) string{
		"link": func(t *testing.T, dir string) string {
			must(t, os.Rename(filepath.Join(dir, "ledger/checkpoint"), filepath.Join(dir, "ledger/c")))
			must(t, os.Symlink("c", filepath.Join(dir, "ledger/checkpoint")))
			return "checkpoint-type"
		},
		"directory": func(t *testing.T, dir string) string {
			must(t, os.Remove(filepath.Join(dir, "ledger/checkpoint")))
			must(t, os.Mkdir(filepath.Join(dir, "ledger/checkpoint"), 0o755))
			return "checkpoint-type"
		},
		"file for a directory": func(t *testing.T, dir string) string {
			must(t, os.RemoveAll(filepath.Join(dir, "ledger/tile/0")))
			must(t, os.WriteFile(filepath.Join(dir, "ledger/tile/0"), nil, 0o644))
			return "ledger-missing"
		},
		"huge": func(t *testing.T, dir string) string {
			must(t, os.Truncate(filepath.Join(dir, "ledger/tile/entries/000"), 1<<40))
			return "ledger-size"
		},
		"many": func(t *testing.T, dir string) string {
			for i := range maxWitnesses {
				must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("witness/w%d", i)), nil, 0o644))
			}
			return "witness-files"
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			w.publish()
			dir := writeFiles(t, t.TempDir(), w.files)
			expect(t, bend(t, dir), "enclave", "--root", w.pin(), dir)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestFindingsAreBounded(t *testing.T) {
	w := newWorld()
	w.fill = 2000
	w.edit = func(_ *world, _ int, s *tstatement, body string) []byte { return append(seal(s.key, body), ' ') }
	w.publish()
	rep := expect(t, "statement-not-canonical", "enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files))
	if rep.RefusedTotal != 2016 || len(rep.Refused) != maxFindings {
		t.Errorf("%d of %d findings", len(rep.Refused), rep.RefusedTotal)
	}
}

func TestLedger(t *testing.T) {
	w := newWorld()
	// Three levels of tiles; nothing here asks for signatures of statements, so few are made.
	leaf := seal(newKey("station/statement"), payload(*newWorld().find("inspected")))
	for range 66_000 {
		w.leaves = append(w.leaves, leaf)
	}
	w.publish()
	dir := writeFiles(t, t.TempDir(), w.files)
	key, place := newKey(originName).vkey(), filepath.Join(dir, "ledger")
	rep := expect(t, "", "ledger", "--key", key, place)
	if rep.get("entries") != "66000" || len(rep.NotChecked) != 1 {
		t.Errorf("report %+v", rep)
	}
	for _, tile := range []string{"tile/2/000.p/1", "tile/1/000"} {
		at := filepath.Join(place, tile)
		data, err := os.ReadFile(at)
		must(t, err)
		data[9] ^= 1
		must(t, os.WriteFile(at, data, 0o644))
		expect(t, "ledger-tile", "ledger", "--key", key, place)
		data[9] ^= 1
		must(t, os.WriteFile(at, data, 0o644))
	}
	must(t, os.RemoveAll(filepath.Join(place, "tile/entries")))
	expect(t, "ledger-missing", "ledger", "--key", key, place)
}

// Trees of every size up to a few tiles agree with sumdb/tlog, which made them.
func TestTreeSizes(t *testing.T) {
	leaf := seal(newKey("station/statement"), payload(*newWorld().find("inspected")))
	for _, size := range []int{0, 1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 700} {
		w := &world{files: map[string][]byte{}, checkpoint: originName}
		for range size {
			w.leaves = append(w.leaves, leaf)
		}
		w.files["ledger/checkpoint"] = noteOf(w.tree(w.leaves), newKey(originName))
		dir := writeFiles(t, t.TempDir(), w.files)
		place := filepath.Join(dir, "ledger")
		expect(t, "", "ledger", "--key", newKey(originName).vkey(), place)
		if size == 513 {
			expect(t, "checkpoint-unsigned", "ledger", "--key", newKey(originName+"#2").vkey(), place)
			// With the station's key, its statements are checked too.
			if rep := expect(t, "", "ledger", "--key", newKey(originName).vkey(), "--key", newKey("station/statement").vkey(), place); len(rep.NotChecked) != 0 {
				t.Errorf("report %+v", rep)
			}
			expect(t, "statement-role", "ledger", "--key", newKey(originName).vkey(), "--key", newKey("station/statement").vkey(), "--key", newKey("bea/statement").vkey(),
				filepath.Join(writeFiles(t, t.TempDir(), builderOnly(3)), "ledger"))
		}
	}
}

// builderOnly is a ledger whose station's statements a builder signed.
func builderOnly(size int) map[string][]byte {
	w := &world{files: map[string][]byte{}}
	for range size {
		w.leaves = append(w.leaves, seal(newKey("bea/statement"), payload(*newWorld().find("inspected"))))
	}
	w.files["ledger/checkpoint"] = noteOf(w.tree(w.leaves), newKey(originName))
	return w.files
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"frob"}, {"enclave", "x"}, {"enclave", "--root", "12", "x"}, {"enclave", "--root", hexSum(nil)}, {"enclave", "--root", hexSum(nil), "x", "y"},
		{"enclave", "--root", hexSum(nil), "--require", "blessed", t.TempDir()},
		{"ledger", "x"}, {"ledger", "--key", "x", "y"}, {"ledger", "--key", newKey("olga/root").vkey(), "y"}, {"ledger", "--key", newKey(originName).vkey(), "--witness", "x", "y"},
		{"volume", "--root", hexSum(nil), "x"}, {"volume", "--frob", "x"},
	} {
		var out, errs bytes.Buffer
		if code := run(args, &out, &errs); code != exitUsage || out.Len() > 0 || !strings.Contains(errs.String(), "hint:") {
			t.Errorf("%q: exit %d, %q, %q", args, code, out.String(), errs.String())
		}
	}
	var out, errs bytes.Buffer
	if code := run([]string{"enclave", "--root", hexSum(nil), filepath.Join(t.TempDir(), "none")}, &out, &errs); code != exitFailed || errs.Len() == 0 {
		t.Errorf("missing place: exit %d, %q", code, errs.String())
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"volume", "--help"}} {
		out.Reset()
		if code := run(args, &out, &errs); code != 0 || !strings.HasPrefix(out.String(), "Examples:") {
			t.Errorf("%q: exit %d, %q", args, code, out.String())
		}
	}
	source, err := os.ReadFile("main.go")
	must(t, err)
	for _, m := range regexp.MustCompile(`(?:Var|IntVar|StringVar)\((?:&o\.\w+, )"([\w-]+)"`).FindAllStringSubmatch(string(source), -1) {
		if !strings.Contains(usage, "--"+m[1]) {
			t.Errorf("the help does not name --%s", m[1])
		}
	}
}

// The auditor's program shares no code with what it checks, and has none that could reach out.
func TestImports(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("SKIPPED: the wall of imports was not checked: no go command; put the Go toolchain in PATH")
	}
	out, err := exec.Command(gotool, "list", "-deps", "-f", "{{.ImportPath}} {{.Standard}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	listed := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(listed) < 20 {
		t.Fatalf("only %d packages listed", len(listed))
	}
	for _, line := range listed {
		name, standard, _ := strings.Cut(line, " ")
		switch {
		case name == "sallyport/cmd/sallyport-verify":
		case standard != "true":
			t.Errorf("imports %s: only the standard library may be imported", name)
		case name == "net" || strings.HasPrefix(name, "net/") || name == "os/exec" || name == "plugin" || name == "crypto/tls" || name == "text/template":
			t.Errorf("imports %s: the auditor's program opens no connection, starts no program and builds quickly", name)
		}
	}
	source, err := os.ReadFile("main.go")
	must(t, err)
	if !strings.Contains(string(source), "\n//go:generate go build -trimpath -buildvcs=false -mod=vendor -o $out/bin/sallyport-verify .\n") {
		t.Error("main.go has lost the line by which the demonstration builds it")
	}
}

// Every code that the program can refuse with stands on a page.
func TestCodesAreDocumented(t *testing.T) {
	var pages, source []byte
	for _, name := range []string{"trust.md", "ledger.md", "shipment.md"} {
		page, err := os.ReadFile("../../docs/spec/" + name)
		must(t, err)
		pages = append(pages, page...)
	}
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range files {
		if !strings.HasSuffix(name, "_test.go") {
			text, err := os.ReadFile(name)
			must(t, err)
			source = append(source, text...)
		}
	}
	has := func(code string) bool { return bytes.Contains(pages, []byte("`"+code+"`")) }
	found := regexp.MustCompile(`(?:refuse\(|add\(|fault\{)"([a-z]+-[a-z-]+)"`).FindAllSubmatch(source, -1)
	for _, m := range found {
		area, rest, _ := strings.Cut(string(m[1]), "-")
		if !has(string(m[1])) && !((has("-"+rest) || has("AREA-"+rest)) && (has(area) || area == "rejection")) {
			t.Errorf("%s stands on no page", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?:area\+|context\+|l\.bad\(|\bh, |Header, |header, )"(-?[a-z-]+)"`).FindAllSubmatch(source, -1) {
		if rest := strings.TrimPrefix(string(m[1]), "-"); !has("-"+rest) && !has("root-"+rest) && !has("orders-"+rest) && !has("allowlist-"+rest) && !has("manifest-"+rest) && !has("AREA-"+rest) {
			t.Errorf("AREA-%s stands on no page", rest)
		}
	}
	if len(found) < 50 {
		t.Errorf("only %d codes were found", len(found))
	}
}
