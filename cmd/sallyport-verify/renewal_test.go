package main

import (
	"encoding/hex"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// bentRenewal is a world whose zone changes its keys with root 2. change says what else; the leaves are made here, since an entry tells of the tree before it.
type bentRenewal struct {
	old, come [2]string // names of the keys: of the station, of the ledger
	both      bool      // root 2 names the old ones, too
	again     bool      // root 3, without a change, names the old ones again
	size      int       // of the tree that the entries tell of, from the end; 0 is the tree of all that is before the commit
	line      string    // by which the entry of the ledger's key is signed; "" is the old one
	speaker   string    // signs the entry of the station's key; "" is the new one
	version   int
	edit      func(context string, p object)
	after     []string // keys that sign entries of the station behind the change
	head      []string // keys under the present checkpoint
	witness   []string // keys of the log under wendy's, of the whole tree
	bridge    []string // keys of the log under wim's, of the tree that ends with the change
	twice     bool     // the ledger goes back to its first key, with root 3
}

func (r bentRenewal) world() *world {
	w := newWorld()
	w.fill = 0
	const station, ledger = 0, 1
	if r.old == [2]string{} {
		r.old = [2]string{"station/statement", originName}
	}
	if r.come == [2]string{} {
		r.come = [2]string{"station/statement#2", originName + "#2"}
	}
	body := func(from, to [2]string, both bool) []string {
		lines := slices.DeleteFunc(rootBody(), func(l string) bool {
			return strings.HasPrefix(l, "key statement station") || strings.HasPrefix(l, "key checkpoint")
		})
		for i, context := range []string{"statement", "checkpoint"} {
			lines = append(lines, "key "+context+" station "+newKey(to[i]).vkey())
			if both {
				lines = append(lines, "key "+context+" station "+newKey(from[i]).vkey())
			}
		}
		return lines
	}
	seal1 := func(key string, s *tstatement) {
		w.leaves = append(w.leaves, seal(newKey(key), payload(*s)))
	}
	w.undersign("root", 1, w.roots[0], keysNamed("olga/root", "otto/root"))
	for _, s := range w.statements {
		w.leaves = append(w.leaves, seal(s.key, payload(*s)))
	}
	w.statements = nil
	change := func(version int, from, to [2]string, lines []string, contexts ...string) {
		text := rootText(version, hexSum([]byte(w.roots[version-2])), lines)
		w.roots, w.rootSigs = append(w.roots, text), append(w.rootSigs, []string{"olga/root", "otto/root"})
		size := len(w.leaves) - r.size
		tree := (&world{files: map[string][]byte{}}).tree(w.leaves[:size])
		for _, k := range keysNamed("olga/root", "otto/root") {
			person, _, _ := strings.Cut(k.name, "/")
			seal1(from[station], w.say("station", "undersigned", object{"document": "root", "version": version, "person": person, "signature": strings.TrimSuffix(k.sigLine(text), "\n")}, "root "+hexSum([]byte(text))))
		}
		seal1(from[station], w.say("station", "root", object{"version": version, "changes": []any{"keys"}}, "root "+hexSum([]byte(text))))
		root, _ := decode64(strings.Split(tree, "\n")[2])
		for _, context := range contexts {
			i := map[string]int{"statement": station, "checkpoint": ledger}[context]
			signer, line := to[station], from[ledger]
			if context == "statement" && r.speaker != "" {
				signer = r.speaker
			}
			if r.line != "" {
				line = r.line
			}
			told := version
			if r.version > 0 {
				told = r.version
			}
			p := object{"context": context, "from": newKey(from[i]).vkey(), "to": newKey(to[i]).vkey(), "size": size, "version": told, "signature": strings.TrimSuffix(newKey(line).sigLine(tree), "\n")}
			if r.edit != nil {
				r.edit(context, p)
			}
			seal1(signer, w.say("station", "key-changed", p, originName+" "+hex.EncodeToString(root)))
		}
	}
	change(2, r.old, r.come, body(r.old, r.come, r.both), "statement", "checkpoint")
	bridge := len(w.leaves)
	if r.again {
		change(3, r.come, r.come, body(r.old, r.come, true))
	}
	for _, k := range append(r.after, r.come[station]) {
		seal1(k, w.say("station", "inspected", object{"files": 1, "bytes": 0, "findings": object{}, "confinement": object{}}, "list "+hexSum(nil)))
	}
	if r.twice {
		back := [2]string{r.come[station], r.old[ledger]}
		change(3, r.come, back, body(r.come, back, false), "checkpoint")
	}
	for i, names := range w.rootSigs {
		w.files["root/"+string(rune('1'+i))] = noteOf(w.roots[i], keysNamed(names...)...)
	}
	if r.head == nil {
		r.head = []string{r.come[ledger]}
	}
	text := w.tree(w.leaves)
	w.files["ledger/checkpoint"] = noteOf(text, keysNamed(r.head...)...)
	cosigned := func(file, person, text string, by []string) {
		if by != nil {
			w.files[file] = noteOf(text, append(keysNamed(by...), newKey(person+"/witness"))...)
		}
	}
	cosigned("witness/wendy", "wendy", text, r.witness)
	cosigned("witness/wim", "wim", (&world{files: map[string][]byte{}}).tree(w.leaves[:bridge]), r.bridge)
	return w
}

// A zone changes its own keys: the change is followed by the roots, and a thief of the old ones is not.
func TestRenewal(t *testing.T) {
	old, come := originName, originName+"#2"
	set := func(context, member string, value any) func(string, object) {
		return func(c string, p object) {
			if c == context {
				p[member] = value
			}
		}
	}
	for _, c := range []struct {
		name, codes string
		r           bentRenewal
	}{
		{"good", "", bentRenewal{}},
		{"cosigned before, and at the change by the old key alone", "", bentRenewal{bridge: []string{old}, witness: []string{come}}},
		{"at the change, signed by both", "", bentRenewal{bridge: []string{old, come}}},
		{"the tree of which it tells is older", "", bentRenewal{size: 3}},

		{"the root names the old keys, too", "key-replaced key-unrecorded", bentRenewal{both: true}},
		{"the present checkpoint by the old key, which the root has dropped", "checkpoint-unsigned", bentRenewal{head: []string{old}}},
		{"the present checkpoint by the old key, which a later root names again", "key-replaced", bentRenewal{again: true, head: []string{old}}},
		{"by both, long after the change, since a root names it again", "", bentRenewal{again: true, head: []string{old, come}}},
		{"a witness cosigned what the old key signed after the change", "key-replaced", bentRenewal{witness: []string{old}}},
		{"the old key of the station goes on", "key-replaced statement-key", bentRenewal{after: []string{"station/statement"}}},
		{"it goes on, and a later root names it again", "key-replaced", bentRenewal{again: true, after: []string{"station/statement"}}},
		{"another root than the one in force", "key-unnamed key-unrecorded", bentRenewal{version: 1}},
		{"to a key that no root names", "key-unnamed key-unrecorded", bentRenewal{edit: set("checkpoint", "to", newKey(originName+"#3").vkey())}},
		{"from a key that no root named", "key-signature key-unnamed key-unrecorded", bentRenewal{edit: set("checkpoint", "from", newKey(originName+"#3").vkey())}},
		{"from the new key to itself", "key-replaced key-signature key-unnamed key-unrecorded", bentRenewal{edit: set("checkpoint", "from", newKey(come).vkey())}},
		{"of the station, named as the ledger's", "key-signature key-unnamed", bentRenewal{edit: set("statement", "context", "checkpoint")}},
		{"the station's change signed by the old one", "statement-key", bentRenewal{speaker: "station/statement"}},
		{"and the root names the old one still", "key-replaced key-signature key-unrecorded", bentRenewal{both: true, speaker: "station/statement"}},
		{"the end of the old key signed by the new one", "key-signature key-unrecorded", bentRenewal{line: come}},
		{"by a stranger", "key-signature key-unrecorded", bentRenewal{line: originName + "#4"}},
		{"an end that is not that of this ledger", "checkpoint-signature key-unrecorded", bentRenewal{edit: set("checkpoint", "size", 4)}},
		{"no entry tells of it", "key-unrecorded statement-kind", bentRenewal{edit: nil, twice: false}},
		{"back to the first key", "key-replaced", bentRenewal{twice: true, head: []string{old}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := c.r.world()
			if c.name == "no entry tells of it" {
				// The zone just goes on with the key that the root names.
				w = bentRenewal{}.world()
				for i, leaf := range w.leaves {
					st := &statement{}
					if _, err := st.parse(leaf); err == nil && st.kind == "key-changed" && strings.Contains(st.payload, `"context":"checkpoint"`) {
						w.leaves[i] = seal(newKey("station/statement#2"), strings.Replace(st.payload, "statement:key-changed:1", "statement:key-altered:1", 1))
					}
				}
				w.files["ledger/checkpoint"] = noteOf(w.tree(w.leaves), newKey(come))
			}
			expect(t, c.codes, "enclave", "--root", w.pin(), writeFiles(t, t.TempDir(), w.files))
		})
	}
	if rep := expect(t, "", "enclave", "--root", bentRenewal{}.world().pin(), writeFiles(t, t.TempDir(), bentRenewal{}.world().files)); len(rep.Notices) != 2 || rep.Notices[0].Code != "key-changed" {
		t.Errorf("nobody is told: %+v", rep.Notices)
	}
}

// With the key of old paper and without roots: the ledger's own entry that gives that key up is not passed over.
func TestFormerKeyOnPaper(t *testing.T) {
	old, come := originName, originName+"#2"
	for _, c := range []struct {
		codes, paper string
		head         []string
	}{
		{"", come, []string{come}},
		{"", come, []string{come, old}},
		{"key-replaced", old, []string{come, old}},
		{"key-replaced", old, []string{old}},
		{"checkpoint-unsigned", old, []string{come}},
	} {
		w := bentRenewal{head: c.head}.world()
		expect(t, c.codes, "ledger", "--key", newKey(c.paper).vkey(), filepath.Join(writeFiles(t, t.TempDir(), w.files), "ledger"))
	}
	// Both on paper, and one entry after the other gives them up.
	for codes, r := range map[string]bentRenewal{"": {head: []string{come, old}}, "key-replaced": {twice: true, head: []string{come, old}}} {
		expect(t, codes, "ledger", "--key", newKey(old).vkey(), "--key", newKey(come).vkey(), filepath.Join(writeFiles(t, t.TempDir(), r.world().files), "ledger"))
	}
}
