package trust

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// testOrders is version 1, with a line of each kind.
func testOrders() *Orders {
	name := func(s string) string { return base("order", s) }
	return &Orders{
		Enclave: "citadel", Version: 1, Date: epoch.Add(time.Hour), Root: 1,
		BreakGlass: []BreakGlass{{"dev", epoch.Add(48 * time.Hour), Item{Sum([]byte("fix")), 77, KindSource, name("fix.patch")}, epoch.Add(time.Minute), "openssl is burning"}},
		Lost:       []Lost{{7, epoch, "the disc broke in the post"}},
		Recalls:    []Recall{{Sum([]byte("bad")), name("bad-1.0.tar.gz"), epoch, "a back door,  see the advisory"}},
		Restored:   []Restored{{99, Sum([]byte("tree")), epoch, "the disk died"}},
		Settled:    []Settled{{name("hello.drv"), "bela/statement+01234567", epoch, "bad memory"}},
		Downgrades: []Downgrade{{"guix", strings.Repeat("0a", 20), epoch, "the tip does not build"}},
		Channels:   []Channel{{"guix", "https://git.guix.gnu.org/guix.git", "master", strings.Repeat("9e", 20), strings.Repeat("BB", 20), epoch, "as the manual prints it"}},
		Excuses: []Excuse{
			{"august", "signed-after-expiry", "guix", "", "", epoch.Add(30 * 24 * time.Hour), epoch, "the key was renewed late"},
			{"one", "weak-hash", "guix", strings.Repeat("0c", 20), strings.Repeat("CC", 20), epoch.Add(MaxExcuse), epoch, "seen"}},
	}
}

// ordersRoot is a root that allows broken glass.
func (e *enclave) ordersRoot() *Root {
	r := e.root()
	r.Policies[PolicyBreakGlass] = "48"
	return r
}

func TestOrdersRoundTrip(t *testing.T) {
	for _, o := range []*Orders{testOrders(), {Enclave: "citadel", Version: 2, Date: epoch, Root: 1, Previous: Sum(nil)}} {
		text := o.Text()
		again, err := ParseOrders(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Text(), text) || again.Digest() != Sum(text) || o.Digest() != Sum(text) {
			t.Errorf("printed again\n%s\nwas\n%s", again.Text(), text)
		}
	}
	o := testOrders()
	parsed, err := ParseOrders(o.Text())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []*Orders{o, parsed} {
		bad := o.Recalls[0]
		if r, ok := o.Recalled(bad.SHA256, "x"); !ok || r != bad {
			t.Error("not recalled by content")
		}
		if r, ok := o.Recalled(Sum(nil), bad.Name); !ok || r.Refusal("x").Code != "recalled" {
			t.Error("not recalled by name")
		}
		if _, ok := o.Recalled(Sum(nil), "x"); ok {
			t.Error("something else is recalled")
		}
		if l, ok := o.IsLost(7); !ok || l.Reason != "the disc broke in the post" {
			t.Error("7 is not lost")
		}
		if _, ok := o.IsLost(8); ok {
			t.Error("8 is lost")
		}
		s := o.Settled[0]
		if _, ok := o.IsSettled(s.Derivation, s.KeyID); !ok {
			t.Error("not settled")
		}
		if _, ok := o.IsSettled(s.Derivation, "boas/statement+01234567"); ok {
			t.Error("another key is settled")
		}
		if _, ok := o.MayDowngrade("guix", strings.Repeat("0a", 20)); !ok {
			t.Error("no downgrade")
		}
		if _, ok := o.MayDowngrade("guix", strings.Repeat("0b", 20)); ok {
			t.Error("a downgrade to another commit")
		}
		if c, ok := o.Channel("guix"); !ok || c != o.Channels[0] {
			t.Error("no channel")
		}
		if _, ok := o.Channel("nonguix"); ok {
			t.Error("another channel")
		}
		if list := o.ExcusesFor("guix"); !slices.Equal(list, o.Excuses) || len(o.ExcusesFor("nonguix")) != 0 {
			t.Errorf("excuses: %v", list)
		}
		if len(o.ForTrack("dev", epoch)) != 1 || len(o.ForTrack("prod", epoch)) != 0 || len(o.ForTrack("dev", epoch.Add(48*time.Hour-time.Second))) != 1 || len(o.ForTrack("dev", epoch.Add(48*time.Hour))) != 0 {
			t.Error("broken glass lasts too long, or not long enough")
		}
	}
	var none *Orders
	if _, ok := none.Recalled(Sum(nil), "x"); ok {
		t.Error("no orders recall something")
	}
	if _, ok := none.IsLost(1); ok {
		t.Error("no orders lose something")
	}
	if _, ok := none.IsSettled("", ""); ok {
		t.Error("no orders settle something")
	}
	if _, ok := none.MayDowngrade("", ""); ok {
		t.Error("no orders allow a downgrade")
	}
	if _, ok := none.Channel("guix"); ok || none.ExcusesFor("guix") != nil {
		t.Error("no orders take a channel")
	}
	if none.ForTrack("dev", epoch) != nil || none.Number() != 0 || none.Opened() {
		t.Error("no orders are something")
	}
}

func TestParseOrdersRefuses(t *testing.T) {
	good := string(testOrders().Text())
	const head = 6
	add := func(line string) string { return sortBody(good+line+"\n", head) }
	swap := func(old, new string) string { return sortBody(replace(t, good, old, new), head) }
	day, h := "2026-03-01T09:00:00Z", strings.Repeat("ab", 32)
	name := base("order", "other")
	tests := []struct{ name, text, code string }{
		{"empty", "", "orders-syntax"},
		{"another document", strings.Replace(good, "orders", "recalls", 1), "orders-syntax"},
		{"number 0", replace(t, good, "version 1\n", "version 0\n"), "orders-syntax"},
		{"root 0", replace(t, good, "root 1\n", "root 0\n"), "orders-syntax"},
		{"version 2 without a previous", replace(t, good, "version 1\n", "version 2\n"), "orders-previous"},
		{"version 1 with a previous", replace(t, good, "previous -", "previous "+h), "orders-previous"},
		{"unsorted", replace(t, good, "orders v1\nenclave citadel\nversion 1\ndate 2026-03-01T10:00:00Z\nroot 1\nprevious -\n", "orders v1\nenclave citadel\nversion 1\ndate 2026-03-01T10:00:00Z\nroot 1\nprevious -\nlost 8 "+day+" x\n"), "orders-unsorted"},
		{"line twice", good + good[strings.LastIndex(good[:len(good)-1], "\n")+1:], "orders-duplicate"},
		{"unknown word", add("forget " + h + " " + day + " x"), "orders-syntax"},
		{"no reason", add("lost 8 " + day), "orders-syntax"},
		{"empty reason", add("lost 8 " + day + " "), "orders-syntax"},
		{"space before the reason", add("lost 8 " + day + "  x"), "orders-syntax"},
		{"space behind the reason", add("lost 8 " + day + " x "), "orders-syntax"},
		{"reason of 501 characters", add("lost 8 " + day + " " + strings.Repeat("x", 501)), "orders-syntax"},
		{"reason of 500 characters", add("lost 8 " + day + " " + strings.Repeat("x", 500)), ""},
		{"lost 0", add("lost 0 " + day + " x"), "orders-syntax"},
		{"lost 08", add("lost 08 " + day + " x"), "orders-syntax"},
		{"lost twice", add("lost 7 " + day + " x"), "orders-duplicate"},
		{"dated after the orders", add("lost 8 2026-03-01T10:00:01Z x"), "orders-date"},
		{"dated as the orders", add("lost 8 2026-03-01T10:00:00Z x"), ""},
		{"date of another form", add("lost 8 2026-03-01 x"), "orders-syntax"},
		{"recall of no digest", add("recall " + h[1:] + " " + name + " " + day + " x"), "orders-syntax"},
		{"recall in upper case", add("recall " + strings.ToUpper(h) + " " + name + " " + day + " x"), "orders-syntax"},
		{"recall of a path", add("recall " + h + " /gnu/store/" + name + " " + day + " x"), "orders-syntax"},
		{"recall of one thing twice", add(strings.Replace(lineText(testOrders().Recalls[0]), "see the", "look at the", 1)), "orders-duplicate"},
		{"restored 0", add("restored 0 " + strings.Repeat("A", 43) + "= " + day + " x"), "orders-syntax"},
		{"restored with spare bits", add("restored 9 " + strings.Repeat("A", 42) + "B= " + day + " x"), "orders-syntax"},
		{"restored with a short hash", add("restored 9 AAAA " + day + " x"), "orders-syntax"},
		{"restored again from one backup", add(replace(t, lineText(testOrders().Restored[0]), "09:00:00Z", "09:30:00Z")), ""},
		{"settled of no derivation", add("settled " + name + " bela/statement+01234567 " + day + " x"), "orders-syntax"},
		{"settled of another context", add("settled " + name + ".drv bela/root+01234567 " + day + " x"), "orders-syntax"},
		{"settled of a name without hash", add("settled " + name + ".drv bela/statement " + day + " x"), "orders-syntax"},
		{"downgrade to a short commit", add("downgrade nonguix abcdef " + day + " x"), "orders-syntax"},
		{"downgrade of no channel", add("downgrade -x " + strings.Repeat("0a", 20) + " " + day + " x"), "orders-syntax"},
		{"downgrade of a long channel", add("downgrade " + strings.Repeat("a", 65) + " " + strings.Repeat("0a", 20) + " " + day + " x"), "orders-syntax"},
		{"broken glass of an unknown kind", swap(" source ", " sauce "), "orders-kind"},
		{"broken glass of a bad name", swap("fix.patch", "fix.drv"), "orders-name"},
		{"broken glass of a bad size", swap(" 77 ", " 077 "), "orders-syntax"},
		{"broken glass that ends as it begins", swap("2026-03-03T09:00:00Z", "2026-03-01T09:01:00Z"), "orders-break-glass"},
		{"broken glass twice", add(replace(t, lineText(testOrders().BreakGlass[0]), "2026-03-03T09:00:00Z", "2026-03-03T08:00:00Z")), "orders-duplicate"},
		{"broken glass of no track", swap("break-glass dev", "break-glass Dev"), "orders-syntax"},
		{"too many lines", sortBody(good+manyLost(MaxOrders), head), "orders-size"},
		{"over size", good + strings.Repeat("x", MaxOrdersSize), "orders-size"},
		{"no LF at the end", good[:len(good)-1], "orders-syntax"},
		{"channel of two branches", add("channel x https://a master main " + h[:40] + " " + strings.Repeat("AB", 20) + " " + day + " x"), "orders-syntax"},
		{"channel without a reason", add("channel x https://a master " + h[:40] + " " + strings.Repeat("AB", 20) + " " + day), "orders-syntax"},
		{"excuse for too long", add("excuse x weak-hash guix - - 2027-03-02T09:00:01Z " + day + " x"), "orders-excuse"},
		{"excuse twice", add("excuse one weak-key guix - - 2026-03-02T09:00:01Z " + day + " x"), "orders-duplicate"},
		{"tab in the reason", add("lost 8 " + day + " x\ty"), "orders-syntax"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseOrders([]byte(tt.text))
			if tt.code == "" {
				wantCodes(t, err)
				return
			}
			wantCodes(t, err, tt.code)
		})
	}
}

func lineText(o order) string { return string(o.append(nil)) }

func manyLost(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "lost %d 2026-03-01T09:00:00Z x\n", 1000+i)
	}
	return b.String()
}

func TestOpenOrders(t *testing.T) {
	e := newEnclave(t)
	root := e.open(e.ordersRoot())
	short := e.ordersRoot()
	short.Policies[PolicyBreakGlass] = "47"
	dated := e.ordersRoot()
	for i, k := range dated.Keys {
		if k.Owner == "omar" && k.Context == ContextOrder {
			dated.Keys[i].Until = epoch.Add(time.Hour) // the orders' date
		}
	}
	text := testOrders().Text()
	with := func(change func(o *Orders)) []byte {
		o := testOrders()
		change(o)
		return o.Text()
	}
	two := []string{"olga/order", "omar/order"}
	tests := []struct {
		name string
		root *Root
		msg  []byte
		code []string
	}{
		{"two of three", root, e.sign(text, two...), nil},
		{"one", root, e.sign(text, two[0]), []string{"orders-threshold"}},
		{"one and a reviewer", root, append(e.sign(text, two[0]), lineOf(e.key("rada/allowlist").VKey(), signRaw(e.key("rada/allowlist"), text))+"\n"...), []string{"orders-threshold"}},
		{"one and a root key", root, append(e.sign(text, two[0]), lineOf(e.key("omar/root").VKey(), signRaw(e.key("omar/root"), text))+"\n"...), []string{"orders-threshold"}},
		{"strangers", root, e.sign(text, "zora/order", "zeno/order"), []string{"orders-threshold"}},
		{"a wrong signature", root, append(e.sign(text, two...), lineOf(e.key("oona/order").VKey(), make([]byte, 64))+"\n"...), []string{"orders-signature"}},
		{"another enclave", root, e.sign(with(func(o *Orders) { o.Enclave = "keep" }), two...), []string{"orders-enclave"}},
		{"a root not known yet", root, e.sign(with(func(o *Orders) { o.Root = 2 }), two...), []string{"orders-root"}},
		{"dated before the root", root, e.sign((&Orders{Enclave: "citadel", Version: 1, Date: epoch.Add(-1), Root: 1}).Text(), two...), []string{"orders-date"}},
		{"glass of an unknown track", root, e.sign(with(func(o *Orders) { o.BreakGlass[0].Track = "prod" }), two...), []string{"orders-track"}},
		{"glass where there is no policy", e.open(e.root()), e.sign(text, two...), []string{"orders-break-glass"}},
		{"glass for too long", e.open(short), e.sign(text, two...), []string{"orders-break-glass"}},
		{"a key that has run out", e.open(dated), e.sign(text, two...), []string{"orders-threshold"}},
		{"all at once", root, e.sign(with(func(o *Orders) { o.Enclave, o.Root, o.BreakGlass[0].Track = "keep", 2, "prod" }), two[0]), []string{"orders-enclave", "orders-root", "orders-track", "orders-threshold"}},
		{"no note", root, text, []string{"orders-note"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, persons, err := OpenOrders(tt.msg, tt.root)
			wantCodes(t, err, tt.code...)
			if err == nil && (!o.Opened() || !slices.Equal(persons, []string{"olga", "omar"})) {
				t.Errorf("%v, %v", o.Opened(), persons)
			}
			if err != nil && o != nil {
				t.Error("orders came with the refusal")
			}
		})
	}
	if _, err := SignText(text, e.key("olga/root")); err == nil {
		t.Error("a root key signed orders")
	}
	parsed, err := ParseRoot(e.root().Text())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenOrders(e.sign(text, two...), parsed); err != ErrNotOpened {
		t.Errorf("by a root that was not opened: %v", err)
	}
}

func TestOrdersSuccessor(t *testing.T) {
	one := testOrders()
	follow := func(change func(o *Orders)) *Orders {
		o := testOrders()
		o.Version, o.Previous = 2, one.Digest()
		if change != nil {
			change(o)
		}
		return o
	}
	two := follow(nil)
	for _, tt := range []struct {
		name    string
		o, prev *Orders
		code    []string
	}{
		{"first", one, nil, nil},
		{"first is not 1", two, nil, []string{"orders-version"}},
		{"second", two, one, nil},
		{"again", two, two, []string{"orders-version"}},
		{"gap", follow(func(o *Orders) { o.Version = 3 }), one, []string{"orders-version"}},
		{"rollback", one, two, []string{"orders-rollback"}},
		{"equivocation", follow(func(o *Orders) { o.Settled = nil }), two, []string{"orders-equivocation"}},
		{"other previous", follow(func(o *Orders) { o.Previous = Sum(nil) }), one, []string{"orders-previous"}},
		{"other enclave", follow(func(o *Orders) { o.Enclave = "keep" }), one, []string{"orders-enclave"}},
		{"earlier root", follow(func(o *Orders) { o.Root = 0 }), one, []string{"orders-root"}},
		{"earlier date", follow(func(o *Orders) { o.Date = one.Date.Add(-time.Second) }), one, []string{"orders-date"}},
		{"a recall taken back", follow(func(o *Orders) { o.Recalls = nil }), one, []string{"orders-dropped"}},
		{"a recall changed", follow(func(o *Orders) { o.Recalls[0].Reason = "nothing" }), one, []string{"orders-dropped"}},
		{"a lost shipment found", follow(func(o *Orders) { o.Lost = nil }), one, []string{"orders-dropped"}},
		{"a restoration forgotten", follow(func(o *Orders) { o.Restored = nil }), one, []string{"orders-dropped"}},
		{"channels and excuses gone", follow(func(o *Orders) { o.Channels, o.Excuses = nil, nil }), one, nil},
		{"glass mended, the rest settled", follow(func(o *Orders) { o.BreakGlass, o.Settled, o.Downgrades = nil, nil, nil }), one, nil},
		{"all at once", follow(func(o *Orders) { o.Recalls, o.Lost, o.Enclave = nil, nil, "keep" }), one, []string{"orders-enclave", "orders-dropped", "orders-dropped"}},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCodes(t, tt.o.CheckSuccessor(tt.prev), tt.code...) })
	}
	// Whoever has not seen the versions between asks for this much.
	nine := follow(func(o *Orders) { o.Version, o.Previous = 9, Sum(nil) })
	wantCodes(t, nine.CheckKept(one))
	wantCodes(t, one.CheckKept(nil))
	nine.Lost, nine.Date = nil, epoch
	wantCodes(t, nine.CheckKept(one), "orders-dropped", "orders-date")
}

func TestFloorOrders(t *testing.T) {
	e := newEnclave(t)
	root := e.open(e.ordersRoot())
	open := func(o *Orders) *Orders {
		t.Helper()
		opened, _, err := OpenOrders(e.sign(o.Text(), "olga/order", "oona/order"), root)
		if err != nil {
			t.Fatal(err)
		}
		return opened
	}
	one := open(testOrders())
	three := testOrders()
	three.Version, three.Previous, three.Date = 3, Sum(nil), epoch.Add(2*time.Hour)
	variant := testOrders()
	variant.Version, variant.Previous, variant.Date = 3, Sum(nil), epoch.Add(3*time.Hour)
	back := testOrders()
	back.Version, back.Previous = 4, Sum(nil)
	var f Floor
	wantCodes(t, f.CheckOrders(nil))
	f1, err := f.AcceptOrders(one)
	if err != nil {
		t.Fatal(err)
	}
	f3, err := f1.AcceptOrders(open(three)) // a verifier need not see version 2
	if err != nil || f3.Orders.Version != 3 || f1.Orders.Version != 1 {
		t.Fatalf("%+v, %v", f3, err)
	}
	_, err = f3.AcceptOrders(one)
	wantCodes(t, err, "orders-rollback")
	_, err = f3.AcceptOrders(open(variant))
	wantCodes(t, err, "orders-equivocation")
	_, err = f3.AcceptOrders(open(back))
	wantCodes(t, err, "orders-date")
	wantCodes(t, f3.CheckOrders(nil), "orders-rollback")
	wantCodes(t, f3.CheckOrders(one), "orders-rollback")
	if _, err := f.AcceptOrders(testOrders()); err == nil {
		t.Error("orders that were not opened moved the floor")
	}
	if !f3.ReferenceTime().Equal(epoch.Add(2 * time.Hour)) {
		t.Errorf("reference time %s", f3.ReferenceTime())
	}
}

func FuzzParseOrders(f *testing.F) {
	f.Add(testOrders().Text())
	f.Add((&Orders{Enclave: "citadel", Version: 1, Date: epoch, Root: 1}).Text())
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOrders(b)
		if err == nil && !bytes.Equal(o.Text(), b) {
			t.Fatalf("printed again\n%q\nwas\n%q", o.Text(), b)
		}
	})
}
