package trust

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFingerprint(t *testing.T) {
	// The first 160 bits of the SHA-256 of nothing, e3b0c44298fc1c149afbf4c8996fb92427ae41e4, in base32.
	const want = "4oym-iquy-7qob-jgx3-6tej-s35z-eqt2-4qpe"
	if have := Fingerprint(Sum(nil)); have != want {
		t.Errorf("%s, want %s", have, want)
	}
	p, err := ParsePin(want)
	if err != nil || !p.Matches(Sum(nil)) || p.String() != want || p.Matches(Sum([]byte("x"))) {
		t.Errorf("%v, %v", p, err)
	}
	full, err := ParsePin(Sum(nil).String())
	if err != nil || !full.Matches(Sum(nil)) || full.String() != Sum(nil).String() {
		t.Errorf("%v, %v", full, err)
	}
	// A digest that begins alike is another one to all 64 digits, and the same to a fingerprint.
	twin := Sum(nil)
	twin[31] ^= 1
	if full.Matches(twin) || !p.Matches(twin) {
		t.Error("a pin compares what was given, all of it")
	}
	if (Pin{}).Matches(Digest{}) || (Pin{}).Matches(Sum(nil)) || (Digest{}).Matches(Digest{}) || (Pin{}).String() != "none" {
		t.Error("no pin matches something")
	}
}

func FuzzParsePin(f *testing.F) {
	f.Add(Fingerprint(Sum(nil)))
	f.Add(Sum(nil).String())
	f.Add("4oym iquy7qob-jgx3 6tej-s35z-eqt2-4qpe")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePin(s)
		if err != nil {
			return
		}
		if again, err := ParsePin(p.String()); err != nil || again != p {
			t.Fatalf("%q is %s, which is %v, %v", s, p, again, err)
		}
		if !p.Matches(p.want) || p.n < fingerprintBytes {
			t.Fatalf("%q matches too little", s)
		}
	})
}

func TestPolicies(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	if _, ok := r.Silence(); ok || r.MLDSA() != 0 || r.Cosigned("dev") != 0 {
		t.Error("policies that are not there")
	}
	if _, ok := r.BreakGlass(); ok {
		t.Error("break-glass without a policy")
	}
	maps.Copy(r.Policies, map[string]string{PolicySilence: "30", PolicyBreakGlass: "48", PolicyCosigned + "dev": "1", PolicyManifest: "1", PolicyMLDSA: "0"})
	r = e.open(r)
	days, ok1 := r.Silence()
	hours, ok2 := r.BreakGlass()
	if days != 30 || hours != 48 || !ok1 || !ok2 || r.Cosigned("dev") != 1 || r.Cosigned("prod") != 0 || r.Quorum() != 2 {
		t.Errorf("%d days, %d hours, %d witnesses", days, hours, r.Cosigned("dev"))
	}
	if v, ok := r.Policy(PolicySilence); !ok || v != "30" {
		t.Errorf("%q, %v", v, ok)
	}
}

// A copy of what was opened may be changed, and then says what nobody signed.
func TestCopiesAreNotOpened(t *testing.T) {
	e := newEnclave(t)
	root := e.open(e.ordersRoot())
	r := *root
	if !root.Opened() || r.Opened() {
		t.Error("a copy of a root is opened")
	}
	if _, err := r.Next(e.sign(next(root).Text(), "olga/root", "omar/root")); err != ErrNotOpened {
		t.Errorf("it verifies: %v", err)
	}
	list, _, err := OpenAllowlist(e.sign(testAllowlist(3).Text(), "rada/allowlist", "remy/allowlist"), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	orders, _, err := OpenOrders(e.sign(testOrders().Text(), "olga/order", "omar/order"), root)
	if err != nil {
		t.Fatal(err)
	}
	a, o := *list, *orders
	if a.Opened() || o.Opened() {
		t.Error("a copy of a list or of orders is opened")
	}
	if _, err := (Floor{}).AcceptAllowlist(&a); err == nil {
		t.Error("a copy moved the floor")
	}
	if _, _, err := OpenAllowlist(e.sign(testAllowlist(3).Text(), "rada/allowlist", "remy/allowlist"), root, &o); err != ErrNotOpened {
		t.Errorf("under a copy of orders: %v", err)
	}
	for _, allowed := range []Allowed{{Root: &r, List: list}, {Root: root, List: &a}, {Root: root, Orders: &o, List: list}, {}} {
		if err := allowed.Check(); err == nil {
			t.Error("copies allow something")
		}
	}
	if err := (Allowed{Root: root, Orders: orders, List: list}).Check(); err != nil {
		t.Error(err)
	}
}

func TestSeats(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	r.Deputies = []Deputy{{RoleOfficer, "oona", "olga"}}
	for _, r := range []*Root{r, e.open(r)} {
		if r.Seat(RoleOfficer, "oona") != "olga" || r.Seat(RoleReviewer, "oona") != "oona" || r.Seat(RoleOfficer, "omar") != "omar" {
			t.Error("seats are wrong")
		}
		olga, omar, oona := e.key("olga/root").VKey(), e.key("omar/root").VKey(), e.key("oona/root").VKey()
		if r.Count(RoleOfficer, []VKey{olga, oona}) != 1 || r.Count(RoleOfficer, []VKey{olga, omar, oona}) != 2 || r.Count(RoleReviewer, []VKey{olga, oona}) != 2 || r.Count(RoleOfficer, nil) != 0 {
			t.Error("seats are counted wrongly")
		}
		if r.able(ContextRoot, epoch) != 2 {
			t.Errorf("%d can sign a root", r.able(ContextRoot, epoch))
		}
	}
}

// The same secret in two kinds, and under two persons' names, is one key.
func TestCountRawKeys(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	olga := e.key("olga/root").VKey()
	wire := slices.Concat([]byte{0, 0, 0, 11}, []byte("ssh-ed25519"), []byte{0, 0, 0, 32}, olga.Public)
	ssh, err := NewVKey(KeySSHSIG, "omar/root", wire)
	if err != nil {
		t.Fatal(err)
	}
	if n := r.Count(RoleOfficer, []VKey{olga, ssh}); n != 1 {
		t.Errorf("one secret counts %d times", n)
	}
	r.Keys = append(r.Keys, RootKey{Context: ContextRoot, Owner: "omar", Key: ssh.String()})
	_, err = ParseRoot(r.Text())
	wantCodes(t, err, "root-duplicate-key")
}

func TestThresholdsOfKinds(t *testing.T) {
	r := newEnclave(t).root()
	r.SetKindThreshold("dev", KindOutput, 3)
	source, output := Item{Kind: KindSource}, Item{Kind: KindOutput}
	for _, tt := range []struct {
		track string
		items []Item
		want  int
	}{{"dev", nil, 2}, {"dev", []Item{source}, 2}, {"dev", []Item{source, output}, 3}, {"prod", []Item{output}, 0}} {
		if have := r.ListThreshold(tt.track, tt.items); have != tt.want {
			t.Errorf("%s: %d, want %d", tt.track, have, tt.want)
		}
	}
	if r.KindThreshold("dev", KindSource) != 2 || r.KindThreshold("dev", KindOutput) != 3 || r.OrderThreshold() != 2 {
		t.Error("thresholds of kinds are wrong")
	}
	r.SetOrderThreshold(3)
	if again, err := ParseRoot(r.Text()); err != nil || again.OrderThreshold() != 3 || again.KindThreshold("dev", KindOutput) != 3 {
		t.Error(err)
	}
}

func TestKeyBounds(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	from, until := epoch.Add(time.Hour), epoch.Add(2*time.Hour)
	for i, k := range r.Keys {
		if k.Owner == "cleo" || k.Owner == "ines" {
			r.Keys[i].From, r.Keys[i].Until = from, until
		}
	}
	root := e.open(r)
	if !bytes.Contains(root.Text(), []byte(" 2026-03-01T10:00:00Z 2026-03-01T11:00:00Z\n")) {
		t.Error("no bounds are printed")
	}
	id := e.key("ines/statement").ID()
	for date, want := range map[time.Time]bool{epoch: false, from.Add(-time.Second): false, from: true, until.Add(-time.Second): true, until: false} {
		_, ok := root.Signer(id, date)
		if ok != want || root.Holds(e.key("ines/statement"), RoleImporter, date) != want || (len(root.SumsKeys("cleo", date)) == 1) != want || (len(root.CollectorVerifiers(date)) == 1) != want {
			t.Errorf("%s: want %v", date, want)
		}
	}
	if _, ok := root.Signer("ines/statement+00000000", from); ok {
		t.Error("a key of another hash")
	}
}

func TestCollectors(t *testing.T) {
	e := newEnclave(t)
	r := e.root()
	extra := func(person string) *Key {
		k, err := GenerateKeyOf(&counter{name: "mldsa " + person}, KeyMLDSA87, person+"/manifest")
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	cleo, cora := extra("cleo"), extra("cora")
	r.Keys = append(r.Keys, cleo.RootKey(), e.key("cora/manifest").RootKey(), cora.RootKey())
	r.Roles = append(r.Roles, RoleLine{RoleCollector, "cora"})
	r.Policies[PolicyMLDSA] = "3"
	_, err := ParseRoot(r.Text())
	wantCodes(t, err, "root-policy") // two collectors have such keys
	r.Policies[PolicyMLDSA] = "2"
	root := e.open(r)
	text := []byte("sallyport manifest v1\n")
	judge := func(keys ...Signer) ([]string, error) {
		t.Helper()
		msg, err := SignNote(text, keys...)
		if err != nil {
			t.Fatal(err)
		}
		n, err := openNote("manifest", msg, 1000, root.CollectorVerifiers(epoch))
		if err != nil {
			t.Fatal(err)
		}
		return root.Collectors(n, epoch)
	}
	persons, err := judge(e.key("cleo/manifest"), cleo, cora)
	wantCodes(t, err)
	if !slices.Equal(persons, []string{"cleo"}) {
		t.Errorf("%v: who signs beside does not sign", persons)
	}
	_, err = judge(e.key("cleo/manifest"), e.key("cora/manifest"), cleo)
	wantCodes(t, err, "manifest-mldsa")
	_, err = judge(cleo, cora)
	wantCodes(t, err, "manifest-unsigned")
	_, err = judge(e.key("zora/manifest"))
	wantCodes(t, err, "manifest-unsigned")
	r.Deputies = []Deputy{{RoleCollector, "cora", "cleo"}}
	_, err = ParseRoot(r.Text())
	wantCodes(t, err, "root-policy") // the two are one
}

func TestAllowed(t *testing.T) {
	e := newEnclave(t)
	root := e.open(e.ordersRoot())
	o := testOrders()
	items := testItems(6)
	glass := o.BreakGlass[0].Item
	o.Recalls = append(o.Recalls,
		Recall{items[0].SHA256, base("x", "another-name"), epoch, "content"},
		Recall{Sum([]byte("other content")), items[1].Name, epoch, "name"},
		Recall{Sum([]byte("never listed")), base("x", "never-listed"), epoch, "neither"})
	orders, _, err := OpenOrders(e.sign(o.Text(), "olga/order", "omar/order"), root)
	if err != nil {
		t.Fatal(err)
	}
	list := testAllowlist(0)
	list.Items, list.Orders, list.Date = items, 1, o.Date
	a, _, err := OpenAllowlist(e.sign(list.Text(), "rada/allowlist", "remy/allowlist"), root, orders)
	if err != nil {
		t.Fatal(err)
	}
	allowed := Allowed{Root: root, Orders: orders, List: a, Now: o.Date}
	for _, tt := range []struct{ name, code, reason string }{
		{items[0].Name, "recalled", "content"},
		{items[1].Name, "recalled", "name"},
		{base("x", "never-listed"), "recalled", "neither"},
		{items[2].Name, "", ""},
		{base("x", "nothing"), "not-allowed", ""},
		{glass.Name, "", ""},
	} {
		it, by, err := allowed.ByName(tt.name)
		if tt.code == "" {
			wantCodes(t, err)
			if it.Name != tt.name || (by != nil) != (tt.name == glass.Name) {
				t.Errorf("%s: %v by %v", tt.name, it, by)
			}
			continue
		}
		wantCodes(t, err, tt.code)
		if !strings.HasSuffix(err.Error(), tt.reason) {
			t.Errorf("%v: want the reason %q", err, tt.reason)
		}
	}
	allowed.Now = o.BreakGlass[0].Until
	_, _, err = allowed.ByName(glass.Name)
	wantCodes(t, err, "not-allowed")
	allowed.Orders = nil
	_, _, err = allowed.ByName(items[2].Name)
	wantCodes(t, err, "allowlist-orders")
}

func TestRules(t *testing.T) {
	terms, err := ParseRule("kind=source,severity!=high,severity<=review,size>=10")
	if err != nil || !slices.Equal(terms, []Term{{"kind", "=", "source"}, {"severity", "!=", "high"}, {"severity", "<=", "review"}, {"size", ">=", "10"}}) {
		t.Errorf("%v, %v", terms, err)
	}
	items := testItems(3)
	c := NewClass(7, "kind=source", items)
	if c.Items != 3 || c.Digest != Sum(AppendItems(nil, items)) || NewClass(7, "kind=source", items[:2]).Digest == c.Digest {
		t.Errorf("%+v", c)
	}
}

func FuzzParseRule(f *testing.F) {
	f.Add("kind=source,severity<=review")
	f.Add("a!=b,c>=d")
	f.Fuzz(func(t *testing.T, s string) {
		terms, err := ParseRule(s)
		if err != nil {
			return
		}
		var words []string
		for _, term := range terms {
			words = append(words, term.Field+term.Op+term.Value)
		}
		if strings.Join(words, ",") != s {
			t.Fatalf("printed again %q, was %q", words, s)
		}
	})
}
