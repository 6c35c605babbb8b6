package ceremony_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
	"sallyport/internal/trust/trusttest"
)

// full is a root with something of every sort.
func full(t *testing.T) *trust.Root {
	t.Helper()
	r := first(t)
	for _, p := range []string{"rada", "remy", "ruth"} {
		ceremony.Grant(r, p, trust.RoleReviewer)
		ceremony.Enroll(r, key(t, p+"/allowlist").RootKey())
	}
	until := key(t, "ruth/allowlist").RootKey()
	until.Until = date.Add(24 * time.Hour)
	ceremony.Enroll(r, until)
	ceremony.Grant(r, "dora", trust.RoleReviewer)
	r.Deputies = []trust.Deputy{{Role: trust.RoleReviewer, Deputy: "dora", Principal: "rada"}}
	r.Exclusive = []trust.Exclusion{{A: trust.RoleBuilder, B: trust.RoleReviewer}}
	r.Keys = append(r.Keys, trust.RootKey{Context: trust.ContextNarinfo, Owner: "dev", Key: strings.Repeat("ab", 32)})
	r.Thresholds["allowlist/dev"] = 2
	r.Policies["silence"], r.Policies["break-glass"] = "30", "24"
	return open(t, r)
}

// TestChanges: each change has its sentence, and what takes a guard away is marked.
func TestChanges(t *testing.T) {
	old := full(t)
	if again := ceremony.Changes(old, ceremony.Successor(old, date)); len(again) != 0 {
		t.Errorf("nothing changed: %v", again)
	}
	if all := ceremony.Changes(nil, old); len(all) < len(old.Keys)+len(old.Roles) || slices.ContainsFunc(all, func(c ceremony.Change) bool { return c.Danger && strings.Contains(c.Text, "enrolled") }) {
		t.Errorf("the first root: %v", all)
	}
	bound := func(r *trust.Root, until time.Time) {
		k := key(t, "ruth/allowlist").RootKey()
		k.Until = until
		ceremony.Enroll(r, k)
	}
	for _, c := range []struct {
		name   string
		edit   func(r *trust.Root)
		danger bool
		says   string
	}{
		{"an officer", func(r *trust.Root) { ceremony.Grant(r, "nina", trust.RoleOfficer) }, true, "nina becomes officer"},
		{"a witness", func(r *trust.Root) { ceremony.Grant(r, "wim", trust.RoleWitness) }, false, "wim becomes witness"},
		{"a role less", func(r *trust.Root) { ceremony.Dismiss(r, "bela", trust.RoleBuilder) }, false, "bela is no longer builder"},
		{"a key for roots", func(r *trust.Root) { ceremony.Enroll(r, trusttest.Key(t, "olga/root", "2").RootKey()) }, true, "olga's root key"},
		{"a key for lists", func(r *trust.Root) { ceremony.Enroll(r, trusttest.Key(t, "rada/allowlist", "2").RootKey()) }, false, "rada's allowlist key"},
		{"a key less", func(r *trust.Root) { ceremony.DropKey(r, key(t, "rada/allowlist").RootKey()) }, false, "counts no longer"},
		{"a key for longer", func(r *trust.Root) { bound(r, date.Add(48*time.Hour)) }, true, "until 2026-03-03T09:00:00Z, instead of until 2026-03-02T09:00:00Z"},
		{"a key for ever", func(r *trust.Root) { bound(r, time.Time{}) }, true, "without end"},
		{"a key for a shorter time", func(r *trust.Root) { bound(r, date.Add(time.Hour)) }, false, "until 2026-03-01T10:00:00Z"},
		{"a track's key", func(r *trust.Root) {
			i := slices.IndexFunc(r.Keys, func(k trust.RootKey) bool { return k.Context == trust.ContextNarinfo })
			r.Keys[i].Key = strings.Repeat("cd", 32)
		}, false, "track dev's Guix key cdcd"},
		{"a deputy more", func(r *trust.Root) {
			r.Deputies = append(r.Deputies, trust.Deputy{Role: trust.RoleReviewer, Deputy: "ruth", Principal: "remy"})
		}, false, "ruth may stand for remy as reviewer"},
		{"a deputy who becomes a person of their own", func(r *trust.Root) { r.Deputies = nil }, true, "they count as two persons"},
		{"a deputy who goes", func(r *trust.Root) { ceremony.Dismiss(r, "dora", "") }, false, "dora is no longer rada's deputy as reviewer"},
		{"roles apart", func(r *trust.Root) {
			r.Exclusive = append(r.Exclusive, trust.Exclusion{A: trust.RoleOfficer, B: trust.RoleWitness})
		}, false, "nobody may be both officer and witness"},
		{"roles together", func(r *trust.Root) { r.Exclusive = nil }, true, "one person may be both builder and reviewer"},
		{"a threshold down", func(r *trust.Root) { r.Thresholds["root"] = 1 }, true, "threshold root is 1, instead of 2"},
		{"a threshold up", func(r *trust.Root) { r.Thresholds["root"] = 3 }, false, "threshold root is 3, instead of 2"},
		{"a threshold gone", func(r *trust.Root) { delete(r.Thresholds, "allowlist/dev") }, true, "threshold allowlist/dev, 2, is gone"},
		{"one person is enough", func(r *trust.Root) { r.Thresholds["allowlist/prod"] = 1 }, true, "one stolen key, is enough"},
		{"a quorum down", func(r *trust.Root) { old.Policies["quorum"] = "2" }, true, "policy quorum is 1, instead of 2"},
		{"silence for longer", func(r *trust.Root) { r.Policies["silence"] = "100" }, true, "policy silence is 100, instead of 30"},
		{"silence for a shorter time", func(r *trust.Root) { r.Policies["silence"] = "9" }, false, "policy silence is 9"},
		{"glass for longer", func(r *trust.Root) { r.Policies["break-glass"] = "100" }, true, "policy break-glass is 100"},
		{"no glass", func(r *trust.Root) { delete(r.Policies, "break-glass") }, false, "policy break-glass, 24, is gone"},
		{"no alarm", func(r *trust.Root) { delete(r.Policies, "silence") }, true, "policy silence, 30, is gone"},
	} {
		next := ceremony.Successor(old, date)
		was := old.Policies["quorum"]
		c.edit(next)
		found := false
		changes := ceremony.Changes(old, next)
		for i, x := range changes {
			found = found || strings.Contains(x.Text, c.says) && x.Danger == c.danger
			if i > 0 && x.Danger && !changes[i-1].Danger {
				t.Errorf("%s: what is dangerous does not stand first: %v", c.name, changes)
			}
			if strings.HasPrefix(x.String(), "DANGER") != x.Danger {
				t.Errorf("%q", x.String())
			}
		}
		if !found {
			t.Errorf("%s: %v, want %q, dangerous: %v", c.name, changes, c.says, c.danger)
		}
		old.Policies["quorum"] = was
	}
}

// TestSuccessor: it follows, and what is done to it is not done to the one before.
func TestSuccessor(t *testing.T) {
	old := full(t)
	text := string(old.Text())
	for _, now := range []time.Time{date.Add(-time.Hour), date.Add(time.Hour)} {
		next := ceremony.Successor(old, now)
		if next.Version != 2 || next.Previous != old.Digest() || next.Date.Before(old.Date) || next.Enclave != old.Enclave {
			t.Errorf("%+v", next)
		}
		ceremony.Grant(next, "olga", trust.RoleOfficer) // she has it
		if len(next.Roles) != len(old.Roles) {
			t.Error("a role stands there twice")
		}
		if ceremony.Dismiss(next, "nobody", "") || !ceremony.Dismiss(next, "rada", "") || ceremony.Dismiss(next, "rada", "") {
			t.Error("who was there is not told from who was not")
		}
		if len(next.Deputies) != 0 || slices.ContainsFunc(next.Keys, func(k trust.RootKey) bool { return k.Owner == "rada" }) {
			t.Error("something of rada's is left")
		}
		next.Policies["quorum"], next.Thresholds["root"] = "9", 9
		if string(old.Text()) != text {
			t.Fatal("the root before changed")
		}
	}
	// A track named like a person keeps its key.
	r := first(t)
	r.Keys = append(r.Keys, trust.RootKey{Context: trust.ContextNarinfo, Owner: "bela", Key: strings.Repeat("ab", 32)})
	ceremony.Dismiss(r, "bela", "")
	if !slices.ContainsFunc(r.Keys, func(k trust.RootKey) bool { return k.Context == trust.ContextNarinfo }) {
		t.Error("the track lost its key with the person of its name")
	}
}

func TestFindKey(t *testing.T) {
	r := full(t)
	rada := key(t, "rada/allowlist").VKey()
	for id, want := range map[string]trust.Context{
		rada.ID(): trust.ContextAllowlist, rada.String(): trust.ContextAllowlist, strings.Repeat("ab", 32): trust.ContextNarinfo, strings.Repeat("ab", 8): trust.ContextNarinfo,
		strings.Repeat("ab", 7): "", "rada/allowlist": "", "": "", strings.Repeat("cd", 32): "", "rada/allowlist+00000000": "",
	} {
		k, err := ceremony.FindKey(r, id)
		if (err == nil) != (want != "") || k.Context != want {
			t.Errorf("%q: %+v, %v", id, k, err)
		}
	}
	r.Keys = append(r.Keys, trust.RootKey{Context: trust.ContextNarinfo, Owner: "prod", Key: strings.Repeat("ab", 31) + "00"})
	if _, err := ceremony.FindKey(r, strings.Repeat("ab", 8)); err == nil || !strings.Contains(err.Error(), "give more") {
		t.Errorf("two begin so: %v", err)
	}
}

// TestOrderChanges: what lets something in is marked.
func TestOrderChanges(t *testing.T) {
	item := trust.Item{SHA256: trust.Sum([]byte("x")), Size: 1, Kind: "source", Name: trusttest.Base("x", "x-1.0")}
	o := &trust.Orders{
		Recalls:    []trust.Recall{{SHA256: item.SHA256, Name: item.Name, Date: date, Reason: "a back door"}},
		Lost:       []trust.Lost{{Shipment: 7, Date: date, Reason: "burnt"}},
		BreakGlass: []trust.BreakGlass{{Track: "dev", Until: date.Add(time.Hour), Item: item, Date: date, Reason: "exploited"}},
		Settled:    []trust.Settled{{Derivation: "d.drv", KeyID: "bela/statement+00000000", Date: date, Reason: "a bad disk"}},
		Downgrades: []trust.Downgrade{{Channel: "guix", Commit: strings.Repeat("a", 40), Date: date, Reason: "broken"}},
		Restored:   []trust.Restored{{Size: 9, Date: date, Reason: "a disk died"}},
	}
	wants := map[string]bool{"recalled for ever": false, "shipment 7 is lost": false, "break-glass: track dev": true, "is set aside": true, "may go back to commit": true, "goes on from a backup": true}
	list := ceremony.OrderChanges(nil, o, date)
	for says, danger := range wants {
		if !slices.ContainsFunc(list, func(c ceremony.Change) bool { return strings.Contains(c.Text, says) && c.Danger == danger }) {
			t.Errorf("%q (%v) is not in %v", says, danger, list)
		}
	}
	for _, c := range []struct {
		now  time.Time
		says string
	}{{date, "until 2026-03-01T10:00:00Z"}, {date.Add(time.Hour), "over since 2026-03-01T10:00:00Z"}} {
		if list := ceremony.OrderChanges(nil, o, c.now); !slices.ContainsFunc(list, func(x ceremony.Change) bool { return strings.Contains(x.Text, c.says) }) {
			t.Errorf("%v: %v", c.now, list)
		}
	}
	if again := ceremony.OrderChanges(o, o, date); len(again) != 0 {
		t.Errorf("nothing changed: %v", again)
	}
	for _, c := range ceremony.OrderChanges(o, &trust.Orders{}, date) {
		if c.Danger {
			t.Errorf("to take it back is not dangerous: %v", c)
		}
	}
}

// TestStands: whether a list or orders would be in force under a root that is only a draft.
func TestStands(t *testing.T) {
	r := full(t)
	list := &trust.Allowlist{Enclave: "citadel", Track: "dev", Version: 1, Date: date, Root: 1}
	note := func(text []byte, keys ...string) []byte {
		var signers []trust.Signer
		for _, k := range keys {
			signers = append(signers, key(t, k))
		}
		n, err := trust.SignNote(text, signers...)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	gone := ceremony.Successor(r, date)
	ceremony.Dismiss(gone, "remy", "")
	three := ceremony.Successor(r, date)
	three.Thresholds["order"] = 3
	for _, c := range []struct {
		name    string
		note    []byte
		under   *trust.Root
		ok      bool
		persons string
	}{
		{"a list by two", note(list.Text(), "rada/allowlist", "remy/allowlist"), r, true, "rada remy"},
		{"by one and a stranger", note(list.Text(), "rada/allowlist", "mallory/allowlist"), r, false, "rada"},
		{"one of whom goes", note(list.Text(), "rada/allowlist", "remy/allowlist"), gone, false, "rada"},
		{"of a track that the root has not", note(bytesReplace(list.Text(), "track dev", "track prod"), "rada/allowlist", "remy/allowlist"), r, false, "rada remy"},
		{"orders by two", note(orders(t, r, 1).Text(), "olga/order", "otto/order"), r, true, "olga otto"},
		{"orders, of which three are wanted", note(orders(t, r, 1).Text(), "olga/order", "otto/order"), three, false, "olga otto"},
	} {
		ok, persons, err := ceremony.Stands(c.note, c.under)
		if err != nil || ok != c.ok || strings.Join(persons, " ") != c.persons {
			t.Errorf("%s: %v %q %v", c.name, ok, persons, err)
		}
	}
	for _, bad := range [][]byte{nil, []byte("sallyport"), note(r.Text(), "olga/root")} {
		if ok, _, err := ceremony.Stands(bad, r); ok || err == nil {
			t.Errorf("%.40q: %v %v", bad, ok, err)
		}
	}
}

func bytesReplace(text []byte, old, with string) []byte {
	return []byte(strings.Replace(string(text), old, with, 1))
}
