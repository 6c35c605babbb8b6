package trust

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"filippo.io/edwards25519"
)

func TestRootRoundTrip(t *testing.T) {
	e := newEnclave(t)
	text := e.root().Text()
	r, err := ParseRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.Text(), text) {
		t.Errorf("printed again:\n%s\nwas:\n%s", r.Text(), text)
	}
	if r.Digest() != Sum(text) {
		t.Error("digest is not that of the text")
	}
	if r.Threshold("dev") != 2 || r.RootThreshold() != 2 || r.Quorum() != 2 || r.Threshold("prod") != 0 {
		t.Error("thresholds or quorum are wrong")
	}
	if q, ok := r.TrackKey("dev"); !ok || q != strings.Repeat("8d", 32) {
		t.Error("no narinfo key of dev")
	}
	if _, ok := r.TrackKey("prod"); ok {
		t.Error("a narinfo key of prod")
	}
	if !r.HasRole("ines", RoleImporter) || r.HasRole("ines", RoleBuilder) {
		t.Error("roles of ines are wrong")
	}
	if n := len(r.SumsKeys("cleo", epoch)); n != 1 || r.SumsKeys("olga", epoch) != nil {
		t.Errorf("%d sums keys of cleo", n)
	}
	if len(r.CheckpointKeys(testZone)) != 1 || len(r.CheckpointKeys("sallyport/citadel/outside")) != 0 {
		t.Error("checkpoint keys are wrong")
	}
	for context, n := range map[Context]int{ContextRoot: 3, ContextOrder: 3, ContextAllowlist: 3, ContextStatement: 5, ContextManifest: 1, ContextWitness: 1, ContextCheckpoint: 1} {
		if have := len(r.Signers(context, epoch)); have != n {
			t.Errorf("%d signers of %s, want %d", have, context, n)
		}
	}
	if len(r.StationKeys(epoch)) != 1 || len(r.WitnessKeys()) != 1 || len(r.CollectorVerifiers(epoch)) != 1 || len(r.Reviewers()) != 3 {
		t.Error("keys of station, witness, collector or reviewers are wrong")
	}
}

// One fault a root. What must be sorted is sorted again after the change, so that
// nothing but the fault is wrong.
func TestParseRootRefuses(t *testing.T) {
	e := newEnclave(t)
	good := string(e.root().Text())
	add := func(line string) string { return sortBody(good+line+"\n", 5) }
	swap := func(old, new string) string { return sortBody(replace(t, good, old, new), 5) }
	olga := e.key("olga/root")

	tests := []struct {
		name string
		text string
		code string
	}{
		{"empty", "", "root-syntax"},
		{"no LF at the end", strings.TrimSuffix(good, "\n"), "root-syntax"},
		{"empty line", replace(t, good, "version 1\n", "version 1\n\n"), "root-syntax"},
		{"CR", replace(t, good, "version 1\n", "version 1\r\n"), "root-syntax"},
		{"tab", replace(t, good, "version 1\n", "version\t1\n"), "root-syntax"},
		{"DEL", replace(t, good, "citadel\nversion", "citadel\x7f\nversion"), "root-syntax"},
		{"not ASCII", replace(t, good, "enclave citadel\n", "enclave citadél\n"), "root-syntax"},
		{"not UTF-8", replace(t, good, "enclave citadel\n", "enclave citadel\xff\n"), "root-syntax"},
		{"other format version", replace(t, good, "root v1", "root v2"), "root-syntax"},
		{"two spaces", replace(t, good, "enclave citadel\n", "enclave  citadel\n"), "root-syntax"},
		{"space at the end", replace(t, good, "enclave citadel\n", "enclave citadel \n"), "root-syntax"},
		{"space before", replace(t, good, "enclave citadel\n", " enclave citadel\n"), "root-syntax"},
		{"upper case in a name", swap("role officer olga", "role officer Olga"), "root-syntax"},
		{"name of 33 characters", add("role reviewer " + strings.Repeat("a", 33)), "root-syntax"},
		{"name that begins with a hyphen", add("role reviewer -a"), "root-syntax"},
		{"leading zero in the version", replace(t, good, "version 1\n", "version 01\n"), "root-syntax"},
		{"plus before the version", replace(t, good, "version 1\n", "version +1\n"), "root-syntax"},
		{"version 0", replace(t, good, "version 1\n", "version 0\n"), "root-syntax"},
		{"leading zero in a threshold", swap("threshold root 2", "threshold root 02"), "root-syntax"},
		{"date with an offset", replace(t, good, "09:00:00Z", "09:00:00+00:00"), "root-syntax"},
		{"date with a fraction", replace(t, good, "09:00:00Z", "09:00:00.0Z"), "root-syntax"},
		{"30 February", replace(t, good, "2026-03-01", "2026-02-30"), "root-syntax"},
		{"version 1 with a previous", replace(t, good, "previous -", "previous "+strings.Repeat("ab", 32)), "root-previous"},
		{"version 2 without a previous", replace(t, good, "version 1\n", "version 2\n"), "root-previous"},
		{"previous of zeros", replace(t, good, "version 1\ndate 2026-03-01T09:00:00Z\nprevious -", "version 2\ndate 2026-03-01T09:00:00Z\nprevious "+strings.Repeat("0", 64)), "root-syntax"},
		{"previous in upper case", replace(t, good, "version 1\ndate 2026-03-01T09:00:00Z\nprevious -", "version 2\ndate 2026-03-01T09:00:00Z\nprevious "+strings.Repeat("AB", 32)), "root-syntax"},
		{"header out of order", replace(t, good, "enclave citadel\nversion 1\n", "version 1\nenclave citadel\n"), "root-syntax"},
		{"unknown line", add("expires 2027-01-01T00:00:00Z"), "root-syntax"},
		{"unknown role", add("role emperor olga"), "root-syntax"},
		{"unknown context", add("key anything olga " + olga.Public()), "root-syntax"},
		{"unknown threshold", add("threshold prod 1"), "root-syntax"},
		{"line with a field too many", add("role officer olga twice"), "root-syntax"},
		{"unsorted", replace(t, good, "role officer olga\nrole officer omar\n", "role officer omar\nrole officer olga\n"), "root-unsorted"},
		{"line twice", replace(t, good, "role officer olga\n", "role officer olga\nrole officer olga\n"), "root-duplicate"},
		{"threshold twice", add("threshold root 1"), "root-duplicate"},
		{"policy twice", add("policy quorum 1"), "root-duplicate"},
		{"public key under two names", add("key root rada " + vkeyOf("rada/root", olga.VKey().Public)), "root-duplicate-key"},
		{"public key in two contexts", add("key allowlist olga " + vkeyOf("olga/allowlist", olga.VKey().Public)), "root-duplicate-key"},
		{"public key of a vkey and of sums", add("key statement cleo " + vkeyOf("cleo/statement", minisignPublic(e.key("cleo/sums").Public()))), "root-duplicate-key"},
		{"narinfo key that is a vkey too", sortBody(good+"key narinfo test "+fmt.Sprintf("%x", []byte(olga.VKey().Public))+"\nthreshold allowlist/test 1\n", 5), "root-duplicate-key"},
		{"two narinfo keys of a track", add("key narinfo dev " + strings.Repeat("01", 32)), "root-track-key"},
		{"narinfo key in upper case", swap(strings.Repeat("8d", 32), strings.Repeat("8D", 32)), "root-key"},
		{"owner is not the person named", add("key root rada " + testKey(t, "rosa/root", "").Public()), "root-owner"},
		{"context is not the one named", add("key root rada " + testKey(t, "rada/manifest", "").Public()), "root-owner"},
		{"ledger of another enclave", add("key checkpoint station " + testKey(t, "sallyport/other/inside", "").Public()), "root-owner"},
		{"ledger of a person", add("key checkpoint olga " + testKey(t, "sallyport/citadel/outside", "").Public()), "root-owner"},
		{"station as officer", add("key root station " + testKey(t, "station/root", "").Public()), "root-owner"},
		{"station with a sums key", add("key sums station " + testKey(t, "station/sums", "").Public()), "root-owner"},
		{"station in a person's role", add("role reviewer station"), "root-role"},
		{"person in the station's role", add("role station olga"), "root-role"},
		{"vkey with another hash", swap(olga.ID(), fmt.Sprintf("olga/root+%08x", olga.VKey().Hash()+1)), "root-key"},
		{"vkey with its hash in upper case", swap(e.key("wim/witness").ID(), "wim/witness+"+strings.ToUpper(e.key("wim/witness").ID()[12:])), "root-key"},
		{"vkey without a name", add("key root rada " + strings.TrimPrefix(olga.Public(), "olga/root")), "root-key"},
		{"minisign key where a vkey belongs", add("key root cleo " + e.key("cleo/sums").Public()), "root-key"},
		{"vkey where a minisign key belongs", add("key sums cleo " + olga.Public()), "root-key"},
		{"no threshold root", replace(t, good, "threshold root 2\n", ""), "root-threshold-missing"},
		{"no threshold of a track", replace(t, good, "threshold allowlist/dev 2\n", ""), "root-threshold-missing"},
		{"threshold 0", swap("threshold root 2", "threshold root 0"), "root-threshold-range"},
		{"threshold above the officers", swap("threshold root 2", "threshold root 4"), "root-threshold-range"},
		{"threshold above the reviewers", swap("threshold allowlist/dev 2", "threshold allowlist/dev 4"), "root-threshold-range"},
		{"threshold met only by two keys of one person", sortBody(replace(t, good, "threshold root 2", "threshold root 4")+"key root olga "+testKey(t, "olga/root", "second").Public()+"\n", 5), "root-threshold-range"},
		{"threshold met only by a key without the role", sortBody(replace(t, good, "threshold root 2", "threshold root 4")+"key root rada "+testKey(t, "rada/root", "").Public()+"\n", 5), "root-threshold-range"},
		{"threshold met only by a role without a key", sortBody(replace(t, good, "threshold root 2", "threshold root 4")+"role officer rada\n", 5), "root-threshold-range"},
		{"no quorum", replace(t, good, "policy quorum 2\n", ""), "root-quorum"},
		{"quorum 0", swap("policy quorum 2", "policy quorum 0"), "root-quorum"},
		{"quorum 17", swap("policy quorum 2", "policy quorum 17"), "root-quorum"},
		{"quorum 02", swap("policy quorum 2", "policy quorum 02"), "root-quorum"},
		{"over size", good + strings.Repeat("x", MaxRootSize) + "\n", "root-size"},
		{"too many lines", sortBody(good+manyRoles(MaxRootLines), 5), "root-size"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRoot([]byte(tt.text))
			wantCodes(t, err, tt.code)
		})
	}
}

func manyRoles(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "role reviewer p%d\n", i)
	}
	return b.String()
}

// All that is wrong is said at once.
func TestParseRootListsAll(t *testing.T) {
	text := string(newEnclave(t).root().Text())
	text = replace(t, text, "policy quorum 2\n", "")
	text = replace(t, text, "threshold root 2\n", "")
	text = replace(t, text, "role reviewer rosa\n", "role reviewer rosa\nrole reviewer rosa\n")
	_, err := ParseRoot([]byte(text))
	wantCodes(t, err, "root-quorum", "root-threshold-missing", "root-duplicate")
}

func TestWeakKeys(t *testing.T) {
	good := testKey(t, "olga/root", "").VKey()
	p, err := new(edwards25519.Point).SetBytes(good.Public)
	if err != nil {
		t.Fatal(err)
	}
	order4, err := new(edwards25519.Point).SetBytes(make([]byte, 32)) // y = 0
	if err != nil {
		t.Fatal(err)
	}
	identity := append([]byte{1}, make([]byte, 31)...)
	loose := bytes.Repeat([]byte{0xff}, 32) // y = p + 1 where 1 would do
	loose[0], loose[31] = 0xee, 0x7f
	tests := map[string][]byte{
		"identity":               identity,
		"order 4":                make([]byte, 32),
		"with a part of order 4": new(edwards25519.Point).Add(p, order4).Bytes(),
		"not reduced":            loose,
		"not on the curve":       append([]byte{2}, make([]byte, 31)...),
	}
	for name, public := range tests {
		if _, err := ParseVKey(vkeyOf("olga/root", public)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := ParseVKey(good.String()); err != nil {
		t.Error(err)
	}
	if _, err := NewVKey(KeyEd25519, "olga/root", identity); err == nil {
		t.Error("NewVKey took the identity")
	}
}

func TestParseVKeyRefuses(t *testing.T) {
	k := testKey(t, "olga/root", "").VKey()
	s := k.String()
	tests := map[string]string{
		"empty":                   "",
		"line feed in the base64": s[:60] + "\n" + s[60:],
		"URL alphabet":            strings.NewReplacer("+", "-", "/", "_").Replace(s[19:]),
		"byte behind":             s + "A",
		"type of a cosignature":   VKey{k.Name, k.Person, ContextRoot, k.Public, KeyCosignature}.String(),
		"three parts in the name": vkeyOf("a/b/c", k.Public),
		"context checkpoint":      vkeyOf("olga/checkpoint", k.Public),
		"context sums":            vkeyOf("olga/sums", k.Public),
		"context narinfo":         vkeyOf("dev/narinfo", k.Public),
		"space in the name":       vkeyOf("ol ga/root", k.Public),
		"origin of no kind":       vkeyOf("sallyport/citadel/elsewhere", k.Public),
		"long name":               vkeyOf(strings.Repeat("a", 200)+"/root", k.Public),
	}
	for name, v := range tests {
		if _, err := ParseVKey(v); err == nil {
			t.Errorf("%s: %q taken", name, v)
		}
	}
	w := testKey(t, "wim/witness", "").VKey()
	if again, err := ParseVKey(w.String()); err != nil || !again.Equal(w) {
		t.Errorf("witness: %v", err)
	}
}

func TestOpenRoot(t *testing.T) {
	e := newEnclave(t)
	text := e.root().Text()
	pin := Sum(text)
	two := e.root()
	two.Version, two.Previous = 2, Sum(nil)
	second := testKey(t, "olga/root", "second")
	doubled := e.root()
	doubled.Keys = append(doubled.Keys, second.RootKey())
	twice := e.sign(doubled.Text(), "olga/root")
	line, err := SignText(doubled.Text(), second)
	if err != nil {
		t.Fatal(err)
	}
	twice = append(twice, line+"\n"...)
	forged := lineOf(e.key("oona/root").VKey(), make([]byte, 64))

	tests := []struct {
		name string
		msg  []byte
		pin  Digest
		code []string
	}{
		{"two of three", e.sign(text, "olga/root", "oona/root"), pin, nil},
		{"three of three", e.sign(text, "olga/root", "omar/root", "oona/root"), pin, nil},
		{"a stranger beside", e.sign(text, "olga/root", "omar/root", "zora/root"), pin, nil},
		{"other digest", e.sign(text, "olga/root", "omar/root"), Sum(nil), []string{"root-pin"}},
		{"one of three", e.sign(text, "olga/root"), pin, []string{"root-threshold"}},
		{"one and a stranger", e.sign(text, "olga/root", "zora/root"), pin, []string{"root-threshold"}},
		{"strangers only", e.sign(text, "zora/root", "zeno/root"), pin, []string{"root-threshold"}},
		{"two keys of one person", twice, doubled.Digest(), []string{"root-threshold"}},
		{"one signature twice", append(e.sign(text, "olga/root"), e.sign(text, "olga/root")[len(text)+1:]...), pin, []string{"root-note"}},
		{"bad signature of a known key", append(e.sign(text, "olga/root", "omar/root"), forged+"\n"...), pin, []string{"root-signature"}},
		{"not version 1", e.sign(two.Text(), "olga/root", "omar/root"), two.Digest(), []string{"root-version"}},
		{"unsigned", text, pin, []string{"root-note"}},
		{"empty line, no signature", append(bytes.Clone(text), '\n'), pin, []string{"root-note"}},
		{"over size", append(make([]byte, MaxRootSize), "\n\n— a AAAA\n"...), pin, []string{"root-size"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := OpenRoot(tt.msg, tt.pin)
			wantCodes(t, err, tt.code...)
		})
	}
	// The same person, the wrong context: the key cannot even be made to sign.
	if _, err := SignText(text, e.key("rada/allowlist")); err == nil {
		t.Error("an allowlist key signed a root")
	}
	// Forced to, it does not count.
	k := e.key("rada/allowlist")
	wrong := append(e.sign(text, "olga/root"), lineOf(k.VKey(), signRaw(k, text))+"\n"...)
	_, err = OpenRoot(wrong, pin)
	wantCodes(t, err, "root-threshold")
}

func TestRootNext(t *testing.T) {
	e := newEnclave(t)
	one := e.open(e.root())

	replaced := next(one) // oona gives way to otto
	for i, k := range replaced.Keys {
		if k.Owner == "oona" {
			replaced.Keys[i] = e.key("otto/" + string(k.Context)).RootKey()
		}
	}
	for i, l := range replaced.Roles {
		if l.Person == "oona" {
			replaced.Roles[i].Person = "otto"
		}
	}
	with := func(change func(r *Root)) []byte {
		r := next(one)
		change(r)
		return r.Text()
	}
	nothing := func(*Root) {}
	other := e.root()
	other.Policies = map[string]string{PolicyQuorum: "1"}
	tests := []struct {
		name string
		msg  []byte
		code []string
	}{
		{"good", e.sign(with(nothing), "olga/root", "omar/root"), nil},
		{"both thresholds", e.sign(replaced.Text(), "olga/root", "omar/root"), nil},
		{"both thresholds, by three", e.sign(replaced.Text(), "olga/root", "oona/root", "otto/root"), nil},
		{"old threshold only", e.sign(replaced.Text(), "olga/root", "oona/root"), []string{"root-threshold"}},
		{"new threshold only", e.sign(replaced.Text(), "olga/root", "otto/root"), []string{"root-threshold"}},
		{"neither", e.sign(replaced.Text(), "oona/root"), []string{"root-threshold", "root-threshold"}},
		{"the version in force again", e.sign(e.root().Text(), "olga/root", "omar/root"), []string{"root-rollback"}},
		{"equivocation", e.sign(other.Text(), "olga/root", "omar/root"), []string{"root-equivocation"}},
		{"equivocation by strangers is none", e.sign(other.Text(), "zora/root", "zeno/root"), []string{"root-threshold", "root-threshold", "root-version"}},
		{"gap", e.sign(with(func(r *Root) { r.Version = 3 }), "olga/root", "omar/root"), []string{"root-version"}},
		{"other previous", e.sign(with(func(r *Root) { r.Previous = Sum(nil) }), "olga/root", "omar/root"), []string{"root-previous"}},
		{"earlier date", e.sign(with(func(r *Root) { r.Date = epoch.Add(-time.Second) }), "olga/root", "omar/root"), []string{"root-date"}},
		{"same date", e.sign(with(func(r *Root) { r.Date = epoch }), "olga/root", "omar/root"), nil},
		{"all at once", e.sign(with(func(r *Root) {
			r.Previous, r.Date = Sum(nil), epoch.Add(-time.Second)
		}), "olga/root"), []string{"root-threshold", "root-threshold", "root-previous", "root-date"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := one.Next(tt.msg)
			wantCodes(t, err, tt.code...)
		})
	}

	// Another enclave of the same officers.
	alien := next(one)
	alien.Enclave = "keep"
	alien.Keys = nil
	for _, k := range one.Keys {
		if k.Context != ContextCheckpoint {
			alien.Keys = append(alien.Keys, k)
		}
	}
	_, err := one.Next(e.sign(alien.Text(), "olga/root", "omar/root"))
	wantCodes(t, err, "root-enclave")

	// Version 1 again, under version 2 that has rotated a key away.
	two, err := one.Next(e.sign(replaced.Text(), "olga/root", "omar/root"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = two.Next(e.sign(e.root().Text(), "olga/root", "omar/root"))
	wantCodes(t, err, "root-rollback")
	// The officer who left signs no more.
	_, err = two.Next(e.sign(next(two).Text(), "olga/root", "oona/root"))
	wantCodes(t, err, "root-threshold", "root-threshold")

	chain := [][]byte{
		e.sign(e.root().Text(), "olga/root", "omar/root"),
		e.sign(replaced.Text(), "olga/root", "omar/root"),
	}
	last, err := OpenChain(chain, one.Digest())
	if err != nil || last.Version != 2 {
		t.Errorf("chain: version %d, %v", last.Version, err)
	}
	if _, err := OpenChain([][]byte{chain[0], chain[0]}, one.Digest()); err == nil {
		t.Error("a chain with version 1 twice was opened")
	}
	if _, err := OpenChain(nil, one.Digest()); err == nil {
		t.Error("an empty chain was opened")
	}
}

// What was only parsed verifies nothing.
func TestParsedRootVerifiesNothing(t *testing.T) {
	e := newEnclave(t)
	r, err := ParseRoot(e.root().Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(e.sign(next(r).Text(), "olga/root", "omar/root")); err != ErrNotOpened {
		t.Errorf("Next: %v", err)
	}
	if _, _, err := OpenAllowlist(e.sign(testAllowlist(1).Text(), "rada/allowlist", "remy/allowlist"), r, nil); err != ErrNotOpened {
		t.Errorf("OpenAllowlist: %v", err)
	}
	if _, err := (Floor{}).AcceptRoot(r); err != ErrNotOpened {
		t.Errorf("AcceptRoot: %v", err)
	}
}

// Persons and public keys both have to be distinct; a root cannot hold one
// public key of two persons, so the count is tested on its own.
func TestThresholdCountsPublicKeys(t *testing.T) {
	k := testKey(t, "olga/root", "").VKey()
	twin := VKey{"omar/root", "omar", ContextRoot, k.Public, KeyEd25519}
	r := &Root{Roles: []RoleLine{{RoleOfficer, "olga"}, {RoleOfficer, "omar"}}, Keys: []RootKey{{Context: ContextRoot, Owner: "olga", Key: k.String()}, {Context: ContextRoot, Owner: "omar", Key: twin.String()}}}
	n := &Note{Signers: []VKey{k, twin}}
	if _, ref := r.met(n, "root", ContextRoot, epoch, 2); ref == nil {
		t.Error("one public key under two names met a threshold of two")
	}
	if _, ref := r.met(n, "root", ContextRoot, epoch, 0); ref == nil {
		t.Error("a threshold of 0 was met")
	}
}

func TestFloorRoot(t *testing.T) {
	e := newEnclave(t)
	one := e.open(e.root())
	two, err := one.Next(e.sign(next(one).Text(), "olga/root", "omar/root"))
	if err != nil {
		t.Fatal(err)
	}
	variant := next(one)
	variant.Date = variant.Date.Add(time.Second)
	twoAgain, err := one.Next(e.sign(variant.Text(), "olga/root", "omar/root"))
	if err != nil {
		t.Fatal(err)
	}
	var f Floor
	for _, r := range []*Root{one, one, two, two} {
		if f, err = f.AcceptRoot(r); err != nil {
			t.Fatal(err)
		}
	}
	_, err = f.AcceptRoot(one)
	wantCodes(t, err, "root-rollback")
	_, err = f.AcceptRoot(twoAgain)
	wantCodes(t, err, "root-equivocation")
	if f.Root.Version != 2 || f.Root.Digest != two.Digest() {
		t.Error("the floor moved on a refusal")
	}
}

func TestFloorJSON(t *testing.T) {
	f := Floor{Root: Mark{3, Sum([]byte("root")), epoch}, Orders: Mark{4, Sum([]byte("orders")), epoch}, Allowlists: map[string]Mark{"dev": {7, Sum([]byte("dev")), epoch}, "prod": {1, Sum([]byte("prod")), epoch}}}
	b, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	g, err := ParseFloor(b)
	if err != nil || g.Root != f.Root || g.Orders != f.Orders || !maps.Equal(f.Allowlists, g.Allowlists) {
		t.Fatalf("%+v, %v", g, err)
	}
	empty, err := Floor{}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseFloor(empty); err != nil {
		t.Error(err)
	}
	s := string(b)
	for name, bad := range map[string]string{
		"cut":              s[:len(s)/2],
		"empty":            "",
		"unknown member":   replace(t, s, `{"root"`, `{"x":1,"root"`),
		"member twice":     replace(t, s, `"version":3`, `"version":9,"version":3`),
		"other case":       replace(t, s, `"root"`, `"Root"`),
		"white space":      replace(t, s, `"version":3`, `"version": 3`),
		"negative":         replace(t, s, `"version":3`, `"version":-3`),
		"version 0":        replace(t, s, `"version":3`, `"version":0`),
		"no allowlists":    replace(t, string(empty), "{}}", "null}"),
		"orders 0":         replace(t, s, `"version":4`, `"version":0`),
		"no date":          replace(t, s, `"version":4,"digest":"`+Sum([]byte("orders")).String()+`","date":"2026-03-01T09:00:00Z"`, `"version":4,"digest":"`+Sum([]byte("orders")).String()+`","date":"0001-01-01T00:00:00Z"`),
		"allowlist 0":      replace(t, s, `"version":7`, `"version":0`),
		"name of no track": replace(t, s, `"dev"`, `"Dev"`),
	} {
		if _, err := ParseFloor([]byte(bad)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzParseRoot(f *testing.F) {
	e := newEnclave(f)
	f.Add(e.root().Text())
	f.Add([]byte("sallyport root v1\n"))
	more := e.root()
	more.Keys[0].From, more.Keys[1].Until = epoch, epoch.Add(time.Hour)
	more.Deputies, more.Exclusive = []Deputy{{RoleOfficer, "oona", "olga"}}, []Exclusion{{RoleImporter, RoleReviewer}}
	more.SetKindThreshold("dev", KindSource, 3)
	more.Policies[PolicyBreakGlass], more.Policies[PolicyCosigned+"dev"] = "48", "1"
	f.Add(more.Text())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRoot(b)
		if err != nil {
			return
		}
		if !bytes.Equal(r.Text(), b) {
			t.Fatalf("printed again:\n%q\nwas\n%q", r.Text(), b)
		}
	})
}

func FuzzParseVKey(f *testing.F) {
	f.Add(testKey(f, "olga/root", "").VKey().String())
	f.Add(testKey(f, "wim/witness", "").VKey().String())
	f.Add(testKey(f, testZone, "").VKey().String())
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseVKey(s)
		if err == nil && k.String() != s {
			t.Fatalf("printed again %q, was %q", k, s)
		}
	})
}

func FuzzParseFloor(f *testing.F) {
	b, err := Floor{Root: Mark{3, Sum(nil), epoch}, Allowlists: map[string]Mark{"dev": {7, Sum(nil), epoch}}}.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		fl, err := ParseFloor(b)
		if err != nil {
			return
		}
		if again, err := fl.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("printed again %q, was %q", again, b)
		}
	})
}

func TestHolds(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	if !r.Holds(e.key("ines/statement"), RoleImporter, epoch) || r.Holds(e.key("ines/statement"), RoleBuilder, epoch) {
		t.Error("roles of ines's key are wrong")
	}
	if r.Holds(testKey(t, "ines/statement", "second"), RoleImporter, epoch) || r.Holds(e.key("ines/manifest"), RoleImporter, epoch) {
		t.Error("a key that is not in the root is held")
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[2Jb": `a\x1b[2Jb`, "0123456789": "0123456789", "0123456789abc": "0123456...", "ü": `\u00fc`, "012345678ü": "0123456...",
		"\x1b\x1b\x1b": `\x1b...`, "01234\x1b": `01234\x1b`, "012345\x1b": `012345\x1b`, "0123456\x1b": "0123456...", "\xff\xfe": `\xff\xfe`, "\"\\": "\"\\", "\"\n": `\"\n`, "": "",
		"012345\x1b7": "012345...", `a\b"c`: `a\b"c`,
	} {
		if have := Printable(in, 10); have != want {
			t.Errorf("%q: %q, want %q", in, have, want)
		}
	}
	for max := range 6 {
		for _, in := range []string{"0123456789", "\x1b\x1b", "ü"} {
			if have := Printable(in, max); len(have) > max {
				t.Errorf("%q in %d bytes: %q", in, max, have)
			}
		}
	}
	// What a reviewer gives as a reason is one.
	if r := Printable(strings.Repeat("because\x1b ", 100), MaxReason); CheckReason(r) != nil {
		t.Errorf("no reason: %q", r)
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b[2Jb", 10)
	f.Add("012345678ü", 11)
	f.Fuzz(func(t *testing.T, s string, max int) {
		max &= 1<<10 - 1
		have := Printable(s, max)
		if len(have) > max {
			t.Errorf("%q in %d bytes: %q", s, max, have)
		}
		if strings.IndexFunc(have, func(r rune) bool { return r < 0x20 || r > 0x7e }) >= 0 {
			t.Errorf("%q prints as %q", s, have)
		}
	})
}
