package main

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// at moves what f says to the place of statement i.
func (w *world) at(i int, f func()) {
	n := len(w.statements)
	f()
	said := slices.Clone(w.statements[n:])
	w.statements = slices.Insert(w.statements[:n:n], i, said...)
}

// reroot writes root 1 with other lines: those that begin as from are replaced by to, which may be nothing, and may be several.
func (w *world) reroot(from, to string) {
	before, found := w.pin(), from == ""
	var body []string
	for _, line := range strings.Split(strings.TrimSuffix(strings.SplitN(w.roots[0], "\n", 6)[5], "\n"), "\n") {
		if from != "" && strings.HasPrefix(line, from) {
			found = true
			continue
		}
		body = append(body, line)
	}
	if !found {
		panic("no " + from)
	}
	if to != "" {
		body = append(body, strings.Split(to, "\n")...)
	}
	w.roots[0] = rootText(1, "-", body)
	for _, s := range w.statements {
		for _, sub := range s.Subject {
			if sub["sha256"] == before {
				sub["sha256"] = w.pin()
			}
		}
	}
}

const (
	afterAllowed, afterBuilt, afterAgreed = 7, 9, 10 // places in the world's statements
	aDate                                 = "2026-01-04T00:00:00Z"
)

var (
	outName   = strings.TrimPrefix(outPath, storeDir)
	recallOut = "recall " + hexSum([]byte("another")) + " " + outName + " " + aDate + " a back door"
)

func TestOrders(t *testing.T) {
	officers := []string{"olga", "otto"}
	order := func(lines ...string) func(*world) { return func(w *world) { w.order(lines, officers...) } }
	early := func(lines ...string) func(*world) {
		return func(w *world) { w.at(2, func() { w.order(lines, officers...) }) }
	}
	signAgain := func(w *world) { w.say("station", "signed", object{"track": "dev"}, outName+" "+hexSum(nil)) }
	treeOf := func(leaves [][]byte) (string, string) {
		text := (&world{files: map[string][]byte{}}).tree(leaves)
		raw, _ := decode64(strings.Split(text, "\n")[2])
		return b64(raw), hex.EncodeToString(raw)
	}
	for _, c := range []struct {
		name, codes, notices string
		do                   func(*world)
		after                func(*world)
		args                 []string
	}{
		{name: "none left", do: order()},
		{name: "all kinds", notices: "break-glass channel downgrade excuse lost restored settled", do: func(w *world) {
			w.reroot("", "policy break-glass 48")
			w.order([]string{"break-glass dev 2026-01-05T00:00:00Z " + hexSum(nil) + " 0 source " + drvName[:33] + "fix " + aDate + " urgent",
				"channel guix https://git.example/guix.git master " + strings.Repeat("ab", 20) + " " + strings.Repeat("AB", 20) + " " + aDate + " x", "excuse x weak-hash guix - - 2026-01-05T00:00:00Z " + aDate + " x", "downgrade guix " + strings.Repeat("ab", 20) + " " + aDate + " x", "lost 7 " + aDate + " x",
				"recall " + hexSum([]byte("x")) + " " + drvName[:33] + "bad " + aDate + " x", "restored 9 " + b64(make([]byte, 32)) + " " + aDate + " x", "settled " + drvName + " " + newKey("bill/statement").id() + " " + aDate + " x"}, officers...)
		}},
		{name: "one officer", codes: "orders-threshold", do: func(w *world) { w.order(nil, "olga") }},
		{name: "no officer", codes: "orders-threshold undersigned-signature", do: func(w *world) { w.order(nil, "rita", "rolf") }},
		{name: "no entry", codes: "orders-unrecorded", do: func(w *world) {
			w.order(nil, officers...)
			w.statements = w.statements[:len(w.statements)-1]
		}},
		{name: "not published", codes: "orders-missing", notices: "undersigned undersigned", do: order(), after: func(w *world) { delete(w.files, "orders/1") }},
		{name: "others published", codes: "orders-equivocation orders-unrecorded", notices: "undersigned undersigned", do: order(), after: func(w *world) {
			w.files["orders/1"] = noteOf(strings.Replace(w.orders[0], "2026-01-04", "2026-01-05", 1), newKey("olga/order"), newKey("otto/order"))
		}},
		{name: "recorded twice", codes: "orders-version", do: func(w *world) {
			w.order(nil, officers...)
			w.statements = append(w.statements, w.find("ordered"))
		}},
		{name: "number skipped", codes: "orders-missing orders-version", notices: "undersigned undersigned", do: func(w *world) {
			w.order(nil, officers...)
			w.order(nil, officers...)
			w.statements = slices.DeleteFunc(w.statements, func(s *tstatement) bool { return s.kind == "ordered" && s.Predicate["version"] == 1 })
			w.orderSigs[0] = nil
		}, after: func(w *world) { delete(w.files, "orders/1") }},
		{name: "a recall taken back", codes: "orders-dropped orders-missing", notices: "recalled undersigned undersigned", do: func(w *world) {
			w.order([]string{recallOut}, officers...)
			w.order(nil, officers...)
		}},
		{name: "before the root", codes: "orders-date", do: func(w *world) {
			w.order(nil, officers...)
			w.roots[0] = strings.Replace(w.roots[0], "date 2026-01-01", "date 2026-01-05", 1)
			w.find("root").Subject[0]["sha256"] = w.pin()
			w.files["allowlist/dev/1"] = nil
		}, after: func(w *world) {
			w.files["allowlist/dev/1"] = noteOf(allowText(1, 1, "-", itemLines(contents())), newKey("rita/allowlist"), newKey("rolf/allowlist"))
		}, args: []string{"allowlist-date"}},
		{name: "glass without the policy", codes: "orders-break-glass", notices: "break-glass", do: order("break-glass dev 2026-01-05T00:00:00Z " + hexSum(nil) + " 0 source " + drvName[:33] + "fix " + aDate + " urgent")},
		// What entries tell of them.
		{name: "signature not told", codes: "undersigned-missing undersigned-missing undersigned-missing undersigned-missing", do: func(w *world) {
			w.silent = true
			w.order(nil, officers...)
		}},
		{name: "signature told that is not there", codes: "undersigned-signature", do: func(w *world) {
			w.order(nil, officers...)
			w.undersign("orders", 1, w.orders[0], []*tkey{newKey("olga/order#2")})
		}},
		{name: "signature of a draft", notices: "undersigned", do: func(w *world) {
			w.order(nil, officers...)
			w.undersign("orders", 1, w.orders[0]+"x", []*tkey{newKey("olga/order")})
		}},
		{name: "recall not told", codes: "recalled-missing", notices: "recalled", do: func(w *world) {
			w.order([]string{recallOut}, officers...)
			w.statements = w.statements[:len(w.statements)-1]
		}},
		{name: "recall told twice", codes: "recalled-missing", notices: "recalled", do: func(w *world) {
			w.order([]string{recallOut}, officers...)
			w.statements = append(w.statements, w.find("recalled"))
		}},
		{name: "recall told that is none", codes: "recalled-unordered", do: func(w *world) {
			w.order(nil, officers...)
			w.say("station", "recalled", object{"version": 1}, outName+" "+hexSum(nil))
		}},
		// Recalls.
		{name: "signed before the recall", notices: "recalled", do: order(recallOut)},
		{name: "signed after the recall", codes: "recalled", notices: "recalled", do: func(w *world) {
			w.order([]string{recallOut}, officers...)
			signAgain(w)
		}},
		{name: "signed after the recall of its nar", codes: "recalled", notices: "recalled", do: func(w *world) {
			w.order([]string{"recall " + outDigest + " " + drvName[:33] + "other " + aDate + " x"}, officers...)
			signAgain(w)
		}},
		{name: "signed after the recall of its derivation", codes: "recalled", notices: "recalled recalled", do: func(w *world) {
			w.order([]string{"recall " + hexSum(nil) + " " + drvName + " " + aDate + " x"}, officers...)
			signAgain(w)
		}},
		{name: "item signed after the recall of its content", codes: "recalled", notices: "recalled", do: func(w *world) {
			w.order([]string{"recall " + hexSum([]byte("the source")) + " " + drvName[:33] + "other " + aDate + " x"}, officers...)
			w.say("station", "signed", object{"track": "dev"}, "0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.tar.gz "+hexSum(nil))
		}},
		{name: "agreed after the recall", codes: "recalled recalled", do: func(w *world) { w.at(afterBuilt, func() { w.order([]string{recallOut}, officers...) }) }},
		{name: "agreed after the recall of the derivation", codes: "recalled recalled", notices: "recalled", do: func(w *world) {
			w.at(afterBuilt, func() {
				w.order([]string{"recall " + drvDigest + " " + drvName[:33] + "other.drv " + aDate + " x"}, officers...)
			})
		}},
		{name: "another is recalled", do: func(w *world) {
			w.order([]string{"recall " + hexSum([]byte("x")) + " " + drvName[:33] + "other " + aDate + " x"}, officers...)
			signAgain(w)
		}},
		// Lost, settled, broken glass.
		{name: "lost before it came", codes: "approval-unshipped shipment-lost", notices: "lost", do: early("lost 1 " + aDate + " x")},
		{name: "lost after it came", codes: "approval-unshipped", notices: "lost", do: func(w *world) { w.at(3, func() { w.order([]string{"lost 1 " + aDate + " x"}, officers...) }) }},
		{name: "dissent is settled", notices: "settled", do: func(w *world) {
			w.at(afterBuilt, func() {
				w.built("bill", hexSum(nil))
				w.order([]string{"settled " + drvName + " " + newKey("bill/statement").id() + " " + aDate + " x"}, officers...)
			})
		}},
		{name: "what agrees is settled", codes: "quorum-builders quorum-waiting", notices: "settled", do: func(w *world) {
			w.at(afterBuilt, func() {
				w.order([]string{"settled " + drvName + " " + newKey("bea/statement").id() + " " + aDate + " x"}, officers...)
			})
		}},
		{name: "built by broken glass", notices: "break-glass", do: func(w *world) {
			w.reroot("", "policy break-glass 48")
			w.order([]string{"break-glass dev 2026-01-05T00:00:00Z " + drvDigest + " 14 derivation " + drvName + " " + aDate + " x"}, officers...)
			agreed := *w.find("agreed")
			w.statements = slices.DeleteFunc(w.statements, func(s *tstatement) bool {
				return slices.Contains([]string{"approved", "allowed", "agreed", "signed"}, s.kind)
			})
			delete(w.files, "allowlist/dev/1")
			w.statements = append(w.statements, &agreed)
		}},
		{name: "built when the glass was whole again", codes: "not-allowed", notices: "break-glass clock", do: func(w *world) {
			w.reroot("", "policy break-glass 48")
			w.order([]string{"break-glass dev 2026-01-05T00:00:00Z " + drvDigest + " 14 derivation " + drvName + " " + aDate + " x"}, officers...)
			agreed := *w.find("agreed")
			agreed.Predicate = maps.Clone(agreed.Predicate)
			agreed.Predicate["time"] = "2026-01-05T00:00:00Z"
			w.statements = slices.DeleteFunc(w.statements, func(s *tstatement) bool {
				return slices.Contains([]string{"approved", "allowed", "agreed", "signed"}, s.kind)
			})
			delete(w.files, "allowlist/dev/1")
			w.statements, w.fill = append(w.statements, &agreed), 1
		}},
		// Restorations.
		{name: "put back, as nobody ordered", codes: "restored-unordered", do: func(w *world) {
			w.say("station", "restored", object{"size": 9, "version": 1}, originName+" "+hexSum(nil))
		}},
		{name: "put back to another tree", codes: "restored-fork", notices: "restored", do: func(w *world) {
			w.order([]string{"restored 9 " + b64(make([]byte, 32)) + " " + aDate + " x"}, officers...)
			w.say("station", "restored", object{"size": 9, "version": 1}, originName+" "+strings.Repeat("0", 64))
		}},
		// Lists name the orders that they were signed under.
		{name: "list under orders", do: func(w *world) {
			w.at(2, func() { w.order(nil, officers...) })
			w.reallow(strings.NewReplacer("orders 0", "orders 1", "2026-01-03", "2026-01-04").Replace(allowText(1, 1, "-", itemLines(contents()))), "rita", "rolf")
		}},
		{name: "list under orders to come", codes: "allowlist-orders", do: func(w *world) {
			w.order(nil, officers...)
			w.reallow(strings.NewReplacer("orders 0", "orders 1", "2026-01-03", "2026-01-04").Replace(allowText(1, 1, "-", itemLines(contents()))), "rita", "rolf")
		}},
		{name: "list before its orders", codes: "allowlist-date", do: func(w *world) {
			w.at(2, func() { w.order(nil, officers...) })
			w.reallow(strings.Replace(allowText(1, 1, "-", itemLines(contents())), "orders 0", "orders 1", 1), "rita", "rolf")
		}},
		// The root's new lines.
		{name: "deputy and principal approve", codes: "allowlist-threshold", do: func(w *world) { w.reroot("", "deputy reviewer rolf rita") }},
		{name: "deputy and another approve", do: func(w *world) { w.reroot("", "deputy reviewer rolf ruth") }},
		{name: "deputy of the importer approves", codes: "approval-own-import", do: func(w *world) {
			w.reroot("", "deputy reviewer rolf ivan\nrole reviewer ivan")
		}},
		{name: "builder and deputy agree", codes: "quorum-waiting", do: func(w *world) { w.reroot("", "deputy builder bob bea") }},
		{name: "derivations need three", codes: "allowlist-threshold", do: func(w *world) { w.reroot("", "threshold allowlist/dev/derivation 3") }},
		{name: "derivations have three", do: func(w *world) {
			w.reroot("", "threshold allowlist/dev/derivation 3")
			w.reallow(allowText(1, 1, "-", itemLines(contents())), "rita", "rolf", "ruth")
		}},
		{name: "reviewer's key that has run out", codes: "allowlist-threshold", do: func(w *world) {
			w.reroot("key allowlist rolf", "key allowlist rolf "+newKey("rolf/allowlist").vkey()+" - 2026-01-03T00:00:00Z")
		}},
		{name: "builder's key that has not begun", codes: "quorum-builders quorum-waiting statement-key", do: func(w *world) {
			w.reroot("key statement bob", "key statement bob "+newKey("bob/statement").vkey()+" 2026-01-02T03:04:06Z -")
		}},
		{name: "importer and reviewer exclude each other", codes: "root-exclusive", do: func(w *world) { w.reroot("", "exclusive importer reviewer") }},
		{name: "policy that nobody knows", codes: "root-policy", do: func(w *world) { w.reroot("", "policy luck 7") }},
		{name: "station's key of another kind", codes: "root-key", do: func(w *world) {
			w.reroot("key statement station", "key statement station "+newKey("station/statement#p256").vkey())
		}},
		{name: "one key of two kinds", codes: "root-duplicate-key", do: func(w *world) {
			k := newKey("olga/root")
			k.kind = "ssh"
			w.reroot("", "key root olga "+k.vkey())
		}},
		{name: "keys of all kinds", do: func(w *world) {
			for name, kind := range map[string]string{"rita/allowlist": "p256", "rolf/allowlist": "sk", "olga/root": "ssh", "olga/order": "sk", "ivan/statement": "ssh", "bea/statement": "p256"} {
				owner, context, _ := strings.Cut(name, "/")
				w.reroot("key "+context+" "+owner, "key "+context+" "+owner+" "+newKey(name+"#"+kind).vkey())
			}
			w.rootSigs[0] = []string{"olga/root#ssh", "otto/root"}
			w.find("imported").key, w.find("built").key = newKey("ivan/statement#ssh"), newKey("bea/statement#p256")
			w.find("agreed").Predicate["builders"] = []any{newKey("bea/statement#p256").id(), newKey("bob/statement").id()}
			w.reallow(allowText(1, 1, "-", itemLines(contents())), "rita#p256", "rolf#sk")
			w.order(nil, "olga#sk", "otto")
		}},
		// Classes.
		{name: "classes", do: func(w *world) { w.class(3, hexSum([]byte(itemLines(contents())))) }, args: []string{"manifests"}},
		{name: "class of other items", codes: "allowlist-class", do: func(w *world) { w.class(3, hexSum(nil)) }, args: []string{"manifests"}},
		{name: "class of some of the items", do: func(w *world) { w.class(2, hexSum(nil)) }, args: []string{"manifests"}},
		{name: "class of another shipment", codes: "allowlist-class", do: func(w *world) {
			w.reallow(strings.Replace(allowText(1, 1, "-", itemLines(contents())), "previous -\n", "previous -\nclass 2 kind=source 1 "+hexSum(nil)+"\n", 1), "rita", "rolf")
		}, args: []string{"manifests"}},
		// Witnesses before the track's key.
		{name: "no witness before the key", codes: "witness-missing", do: func(w *world) { w.reroot("", "policy cosigned-dev 1") }},
		{name: "a witness before the key", do: func(w *world) {
			w.reroot("", "policy cosigned-dev 1")
			w.witnessed = afterAgreed
		}},
		{name: "a witness of nothing before the key", codes: "witness-fork", do: func(w *world) {
			w.reroot("", "policy cosigned-dev 1")
			w.witnessed = afterAgreed
		}, args: []string{"fork"}},
		// Clocks.
		{name: "clock that goes back", notices: "clock", do: func(w *world) { w.find("agreed").Predicate["time"] = "2026-01-02T03:04:04Z" }},
		{name: "clock that went back", notices: "clock", do: func(w *world) { w.find("agreed").Predicate["clock"] = "2026-01-02T02:04:04Z" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.fill = 8
			c.do(w)
			fork := slices.Contains(c.args, "fork")
			w.edit = func(w *world, i int, s *tstatement, body string) []byte {
				if s.kind == "witnessed" { // of the tree of all before it
					base64, digest := treeOf(w.leaves)
					if fork {
						base64, digest = b64(make([]byte, 32)), strings.Repeat("0", 64)
					}
					text := fmt.Sprintf("%s\n%d\n%s\n", originName, len(w.leaves), base64)
					s.Subject[0]["sha256"], s.Predicate["size"], s.Predicate["signature"] = digest, len(w.leaves), strings.TrimSuffix(newKey("wendy/witness").sigLine(text), "\n")
					body = payload(*s)
				}
				return seal(s.key, body)
			}
			if w.witnessed > 0 {
				w.at(w.witnessed, func() { w.say("station", "witnessed", object{"person": "wendy"}, originName+" "+hexSum(nil)) })
			}
			w.publish()
			if c.after != nil {
				c.after(w)
			}
			args := []string{"enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files)}
			if slices.Contains(c.args, "manifests") {
				args = append(args, "--manifests", writeFiles(t, t.TempDir(), map[string][]byte{"one": w.manifest}))
			}
			want := strings.Fields(c.codes)
			for _, a := range c.args {
				if strings.Contains(a, "-") {
					want = append(want, strings.Fields(a)...)
				}
			}
			slices.Sort(want)
			rep := expect(t, strings.Join(slices.Compact(want), " "), args...)
			var notices []string
			for _, n := range rep.Notices {
				notices = append(notices, n.Code)
			}
			slices.Sort(notices)
			if got := strings.Join(slices.Compact(notices), " "); got != strings.Join(slices.Compact(strings.Fields(c.notices)), " ") {
				t.Errorf("notices %q, want %q: %+v", got, c.notices, rep.Notices)
			}
		})
	}
}

// reallow writes another allowlist 1 and its approvals in place of the first.
func (w *world) reallow(text string, names ...string) {
	first := slices.IndexFunc(w.statements, func(s *tstatement) bool { return s.kind == "approved" })
	w.statements = slices.DeleteFunc(w.statements, func(s *tstatement) bool { return s.kind == "approved" || s.kind == "allowed" })
	w.at(first, func() { w.allow(1, text, names...) })
}

// class writes allowlist 1 with a class.
func (w *world) class(items int, digest string) {
	w.reallow(strings.Replace(allowText(1, 1, "-", itemLines(contents())), "previous -\n", fmt.Sprintf("previous -\nclass 1 severity<=review %d %s\n", items, digest), 1), "rita", "rolf")
}

// A ledger that was put back from a backup: whoever cosigned what was given up, cosigned no fork.
func TestRestored(t *testing.T) {
	leavesOf := func(do func(w *world)) *world {
		w := newWorld()
		w.fill = 8
		do(w)
		w.publish()
		return w
	}
	lost := leavesOf(func(w *world) { w.built("bill", hexSum(nil)) })
	kept := lost.leaves[:9]
	text := (&world{files: map[string][]byte{}}).tree(kept)
	root, _ := decode64(strings.Split(text, "\n")[2])
	restore := func(w *world) {
		w.order([]string{"restored 9 " + b64(root) + " " + aDate + " a disk died"}, "olga", "otto")
		w.say("station", "restored", object{"size": 9, "version": 1}, originName+" "+hex.EncodeToString(root))
	}
	for _, c := range []struct {
		name, codes, notices string
		do                   func(*world)
		size                 int // that wendy cosigned of what was lost
	}{
		{"put back", "", "restored restored", restore, len(lost.leaves)},
		{"more than there is now", "", "restored restored", restore, -1},
		{"no entry", "witness-fork", "restored", func(w *world) {
			restore(w)
			w.statements = w.statements[:len(w.statements)-1]
		}, len(lost.leaves)},
		{"a fork of what was put back", "witness-fork", "restored", restore, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := leavesOf(c.do)
			gone := slices.Clone(lost.leaves)
			if c.size == 7 {
				gone[6] = gone[5]
			}
			for c.size < 0 && len(gone) < len(w.leaves)+9 {
				gone = append(gone, gone[12])
			}
			if c.size > 0 {
				gone = gone[:c.size]
			}
			w.files["witness/wendy"] = noteOf((&world{files: map[string][]byte{}}).tree(gone), newKey(originName), newKey("wendy/witness"))
			rep := expect(t, c.codes, "enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files))
			var notices []string
			for _, n := range rep.Notices {
				notices = append(notices, n.Code)
			}
			if got := strings.Join(notices, " "); got != c.notices {
				t.Errorf("notices %q, want %q: %+v", got, c.notices, rep.Notices)
			}
		})
	}
}

// Signatures of the station may be left out, those of persons not; what was left out is said.
func TestSignaturesOfPersons(t *testing.T) {
	for _, kind := range []string{"inspected", "built"} {
		w := newWorld()
		w.fill = 8
		done := false
		w.edit = func(_ *world, _ int, s *tstatement, body string) []byte {
			if s.kind == kind && !done {
				done = true
				return []byte(strings.Replace(string(seal(s.key, body)), b64([]byte(body)), b64([]byte(strings.Replace(body, "03:04:05Z", "03:04:06Z", 1))), 1))
			}
			return seal(s.key, body)
		}
		w.publish()
		dir := writeFiles(t, t.TempDir(), w.files)
		all, persons := "statement-signature", "" // codes
		if kind == "built" {
			all = "quorum-builders quorum-waiting statement-signature"
			persons = all
		}
		expect(t, all, "enclave", "--root", w.pin(), dir)
		rep := expect(t, persons, "enclave", "--root", w.pin(), "--signatures", "persons", dir)
		if len(rep.NotChecked) != 1 {
			t.Errorf("%s: not checked: %+v", kind, rep.NotChecked)
		}
	}
}
