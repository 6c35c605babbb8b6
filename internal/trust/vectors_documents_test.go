package trust_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

// Lines before the body.
const (
	ordersHead = 6
	listHead   = 8
)

// judge adds a case about orders or an allowlist under version 1 of the root.
func (c *corpus) judge(do, rules, name, about string, note []byte, codes ...string) *vector {
	folder := map[string]string{"orders": "orders/", "allowlist": "allowlist/"}[do]
	c.add(vector{Name: folder + name, Rules: strings.Fields(rules), About: about, Do: do, Pin: trust.Fingerprint(c.rootPin), Roots: []string{rootFile}, File: c.file(folder+name, note), Codes: codes})
	return &c.cases[len(c.cases)-1]
}

func (c *corpus) ordersCases() {
	good := c.orders(nil).Text()
	judge := func(rules, name, about string, text []byte, codes ...string) *vector {
		return c.judge("orders", rules, name, about, c.note(text, orderers...), codes...)
	}
	with := func(line string) []byte { return c.with(good, ordersHead, line) }
	swap := func(old, new string) []byte { return c.edit(good, ordersHead, old, new) }
	changed := func(change func(o *trust.Orders)) []byte { return c.orders(change).Text() }
	const at = "2026-03-01T09:00:00Z"
	digest, name := strings.Repeat("ab", 32), trusttest.Base("order", "other")
	commit, signer := strings.Repeat("0b", 20), strings.Repeat("AB", 20)
	channel := func(fields ...string) string { return "channel " + strings.Join(fields, " ") + " " + at + " x" }
	excuse := func(fields ...string) string { return "excuse " + strings.Join(fields, " ") + " " + at + " x" }

	judge("O1 O4 O5", "good", "a line of each kind", good)
	judge("O1", "empty", "no line at all", changed(func(o *trust.Orders) {
		*o = trust.Orders{Enclave: o.Enclave, Version: 1, Date: o.Date, Root: 1}
	}))
	for _, l := range []struct{ name, line, code string }{
		{"unknown", "forget " + digest + " " + at + " x", "orders-syntax"},
		{"no-reason", "lost 8 " + at, "orders-syntax"},
		{"empty-reason", "lost 8 " + at + " ", "orders-syntax"},
		{"space-before-reason", "lost 8 " + at + "  x", "orders-syntax"},
		{"space-behind-reason", "lost 8 " + at + " x ", "orders-syntax"},
		{"reason-of-500", "lost 8 " + at + " " + strings.Repeat("x", 500), ""},
		{"reason-of-501", "lost 8 " + at + " " + strings.Repeat("x", 501), "orders-syntax"},
		{"reason-of-words", `lost 8 ` + at + ` two  spaces, "quotes" and \`, ""},
		{"lost-zero", "lost 0 " + at + " x", "orders-syntax"},
		{"lost-leading-zero", "lost 08 " + at + " x", "orders-syntax"},
		{"day-for-date", "lost 8 2026-03-01 x", "orders-syntax"},
		{"recall-short-digest", "recall " + digest[1:] + " " + name + " " + at + " x", "orders-syntax"},
		{"recall-upper-case", "recall " + strings.ToUpper(digest) + " " + name + " " + at + " x", "orders-syntax"},
		{"recall-path", "recall " + digest + " /gnu/store/" + name + " " + at + " x", "orders-syntax"},
		{"recall-no-name", "recall " + digest + " " + at + " x", "orders-syntax"},
		{"restored-zero", "restored 0 " + strings.Repeat("A", 43) + "= " + at + " x", "orders-syntax"},
		{"restored-spare-bits", "restored 9 " + strings.Repeat("A", 42) + "B= " + at + " x", "orders-syntax"},
		{"restored-short", "restored 9 AAAA " + at + " x", "orders-syntax"},
		{"settled-source", "settled " + name + " bela/statement+01234567 " + at + " x", "orders-syntax"},
		{"settled-context", "settled " + name + ".drv bela/root+01234567 " + at + " x", "orders-syntax"},
		{"settled-no-hash", "settled " + name + ".drv bela/statement " + at + " x", "orders-syntax"},
		{"downgrade", "downgrade my-Channel_2.0 " + commit + " " + at + " x", ""},
		{"downgrade-short", "downgrade guix 0b0b " + at + " x", "orders-syntax"},
		{"downgrade-channel", "downgrade -guix " + commit + " " + at + " x", "orders-syntax"},
		{"downgrade-long-channel", "downgrade " + strings.Repeat("a", 65) + " " + commit + " " + at + " x", "orders-syntax"},
		{"channel", channel("my-Channel_2.0", "ssh://git@forge.example/a/b.git", "team/main-1.x", commit, signer), ""},
		{"channel-file", channel("own", "file:///srv/git/own.git", "main", commit, signer), ""},
		{"channel-http", channel("own", "http://forge.example/own", "main", commit, signer), ""},
		{"channel-url-of-1024", channel("own", "https://"+strings.Repeat("x", 1016), "main", commit, signer), ""},
		{"channel-url-of-1025", channel("own", "https://"+strings.Repeat("x", 1017), "main", commit, signer), "orders-syntax"},
		{"channel-url-git", channel("own", "git://forge.example/own", "main", commit, signer), "orders-syntax"},
		{"channel-url-path", channel("own", "/srv/git/own.git", "main", commit, signer), "orders-syntax"},
		{"channel-url-bare", channel("own", "https://", "main", commit, signer), "orders-syntax"},
		{"channel-url-upper-case", channel("own", "HTTPS://forge.example/own", "main", commit, signer), "orders-syntax"},
		{"channel-no-url", "channel own main " + commit + " " + signer + " " + at + " x", "orders-syntax"},
		{"channel-name", channel(".own", "https://forge.example/own", "main", commit, signer), "orders-syntax"},
		{"channel-branch-of-200", channel("own", "https://forge.example/own", strings.Repeat("b", 200), commit, signer), ""},
		{"channel-branch-of-201", channel("own", "https://forge.example/own", strings.Repeat("b", 201), commit, signer), "orders-syntax"},
		{"channel-branch-head", channel("own", "https://forge.example/own", "HEAD", commit, signer), "orders-syntax"},
		{"channel-branch-keyring", channel("own", "https://forge.example/own", "keyring", commit, signer), "orders-syntax"},
		{"channel-branch-dots", channel("own", "https://forge.example/own", "a..b", commit, signer), "orders-syntax"},
		{"channel-branch-hidden", channel("own", "https://forge.example/own", "a/.b", commit, signer), "orders-syntax"},
		{"channel-branch-option", channel("own", "https://forge.example/own", "-b", commit, signer), "orders-syntax"},
		{"channel-branch-lock", channel("own", "https://forge.example/own", "a.lock/b", commit, signer), "orders-syntax"},
		{"channel-branch-dot", channel("own", "https://forge.example/own", "a.", commit, signer), "orders-syntax"},
		{"channel-branch-slashes", channel("own", "https://forge.example/own", "a//b", commit, signer), "orders-syntax"},
		{"channel-branch-colon", channel("own", "https://forge.example/own", "a:b", commit, signer), "orders-syntax"},
		{"channel-commit", channel("own", "https://forge.example/own", "main", strings.ToUpper(commit), signer), "orders-syntax"},
		{"channel-signer", channel("own", "https://forge.example/own", "main", commit, strings.ToLower(signer)), "orders-syntax"},
		{"channel-signer-long", channel("own", "https://forge.example/own", "main", commit, signer+strings.Repeat("AB", 12)), "orders-syntax"},
		{"excuse", excuse("weak-hash", "weak-hash", "guix", "-", "-", "2026-04-01T00:00:00Z"), ""},
		{"excuse-of-commit", excuse("weak-hash", "weak-hash", "guix", commit, "-", "2026-04-01T00:00:00Z"), ""},
		{"excuse-of-key", excuse("weak-hash", "weak-hash", "guix", "-", signer, "2026-04-01T00:00:00Z"), ""},
		{"excuse-other-channel", excuse("weak-hash", "weak-hash", "other", "-", "-", "2026-04-01T00:00:00Z"), ""},
		{"excuse-unknown-code", excuse("weak-hash", "not-a-code", "guix", "-", "-", "2026-04-01T00:00:00Z"), ""},
		{"excuse-name", excuse("Weak", "weak-hash", "guix", "-", "-", "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-no-code", excuse("weak-hash", "-", "guix", "-", "-", "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-no-channel", excuse("weak-hash", "weak-hash", "-", "-", "-", "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-commit", excuse("weak-hash", "weak-hash", "guix", commit[1:], "-", "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-key", excuse("weak-hash", "weak-hash", "guix", "-", strings.ToLower(signer), "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-zero-commit", excuse("weak-hash", "weak-hash", "guix", strings.Repeat("0", 40), "-", "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-zero-key", excuse("weak-hash", "weak-hash", "guix", "-", strings.Repeat("0", 40), "2026-04-01T00:00:00Z"), "orders-syntax"},
		{"excuse-for-ever", excuse("weak-hash", "weak-hash", "guix", "-", "-", "-"), "orders-syntax"},
		{"break-glass-of-channel", "break-glass dev 2026-03-02T09:00:00Z " + digest + " 1 channel " + name + " " + at + " x", ""},
		{"break-glass-no-track", "break-glass Dev 2026-03-02T09:00:00Z " + digest + " 1 source " + name + " " + at + " x", "orders-syntax"},
		{"break-glass-kind", "break-glass dev 2026-03-02T09:00:00Z " + digest + " 1 gift " + name + " " + at + " x", "orders-kind"},
		{"break-glass-name", "break-glass dev 2026-03-02T09:00:00Z " + digest + " 1 derivation " + name + " " + at + " x", "orders-name"},
		{"break-glass-size", "break-glass dev 2026-03-02T09:00:00Z " + digest + " 01 source " + name + " " + at + " x", "orders-syntax"},
	} {
		var codes []string
		if l.code != "" {
			codes = []string{l.code}
		}
		rule := "O1"
		if strings.HasPrefix(l.name, "channel") || strings.HasPrefix(l.name, "excuse") {
			rule = "O1 O9"
		}
		judge(rule, "line-"+l.name, fmt.Sprintf("`%.100s`", l.line), with(l.line), codes...)
	}
	judge("O2", "lost-twice", "one shipment lost for two reasons", with("lost 7 "+at+" x"), "orders-duplicate")
	judge("O2", "recall-twice", "one thing recalled for two reasons", with(strings.Replace(lineOf(good, "recall"), "back door", "front door", 1)), "orders-duplicate")
	judge("O2", "recall-other-name", "one content under another name", with("recall "+trust.Sum([]byte("bad")).String()+" "+name+" "+at+" x"))
	judge("O2", "settled-twice", "one key settled twice", with(lineOf(good, "settled")+", indeed"), "orders-duplicate")
	judge("O2", "downgrade-twice", "one commit twice", with(lineOf(good, "downgrade")+" at all"), "orders-duplicate")
	judge("O2", "channel-twice", "one channel from two places", with(strings.Replace(lineOf(good, "channel"), "https:", "http:", 1)), "orders-duplicate")
	judge("O2", "channel-same-url", "two channels of one repository", with(strings.Replace(lineOf(good, "channel"), "guix", "guix-2", 1)))
	judge("O2", "excuse-twice", "one name, two codes", with(strings.Replace(lineOf(good, "excuse"), "expiry", "revocation", 1)), "orders-duplicate")
	judge("O2", "excuse-again", "another name for the same", with(strings.Replace(lineOf(good, "excuse"), "august", "july", 1)))
	judge("O2", "break-glass-twice", "one item until two dates", with(strings.Replace(lineOf(good, "break-glass"), "2026-03-03T09", "2026-03-03T08", 1)), "orders-duplicate")
	judge("O2", "restored-again", "one backup, needed again", with(strings.Replace(lineOf(good, "restored"), "09:00:00Z", "09:30:00Z", 1)))
	judge("O2", "restored-twice", "one restoration for two reasons", with(lineOf(good, "restored")+" again"), "orders-duplicate")
	judge("O3", "line-of-same-date", "a line of the orders' own date", with("lost 8 2026-03-01T10:00:00Z x"))
	judge("O3", "line-from-the-future", "a line dated after the orders", with("lost 8 2026-03-01T10:00:01Z x"), "orders-date")
	judge("O3", "break-glass-empty", "glass that ends when it begins", swap("2026-03-03T09:00:00Z", at), "orders-break-glass")
	judge("O3", "excuse-empty", "an excuse that ends when it begins", with(excuse("b", "weak-hash", "guix", "-", "-", at)), "orders-excuse")
	judge("O3", "excuse-second", "an excuse of a second", with(excuse("b", "weak-hash", "guix", "-", "-", "2026-03-01T09:00:01Z")))
	judge("O3", "excuse-366", "366 days to the second", with(excuse("b", "weak-hash", "guix", "-", "-", "2027-03-02T09:00:00Z")))
	judge("O3", "excuse-longer", "366 days and a second", with(excuse("b", "weak-hash", "guix", "-", "-", "2027-03-02T09:00:01Z")), "orders-excuse")
	judge("O3", "channel-from-the-future", "a channel dated after the orders", with(strings.Replace(channel("own", "https://forge.example/own", "main", commit, signer), at, "2026-03-01T10:00:01Z", 1)), "orders-date")

	c.judge("orders", "O4", "one-officer", "one of two", c.note(good, "olga/order"), "orders-threshold")
	c.judge("orders", "O4", "root-key", "an officer's key for roots", trust.JoinNote(good, c.line(good, c.e.Key("olga/order")), c.line(good, c.e.Key("omar/root"))), "orders-threshold")
	c.judge("orders", "O4", "reviewer", "a reviewer", trust.JoinNote(good, c.line(good, c.e.Key("olga/order")), c.line(good, c.e.Key("rada/allowlist"))), "orders-threshold")
	c.judge("orders", "O4 N3", "wrong-signature", "a wrong signature beside enough", trust.JoinNote(good, c.line(good, c.e.Key("olga/order")), c.line(good, c.e.Key("omar/order")), c.lineOf(c.e.Key("oona/order").VKey(), make([]byte, 64))), "orders-signature")
	judge("O4", "newer-root", "signed under a root that is not known yet", changed(func(o *trust.Orders) { o.Root = 2 }), "orders-root")
	judge("O4", "root-zero", "root 0", []byte(trusttest.Replace(c.t, string(good), "root 1\n", "root 0\n")), "orders-syntax")
	early := func(o *trust.Orders) {
		*o = trust.Orders{Enclave: o.Enclave, Version: 1, Date: trusttest.Epoch.Add(-time.Second), Root: 1}
	}
	judge("O4", "before-root", "dated before the root", changed(early), "orders-date")
	judge("O4", "enclave", "of another enclave", changed(func(o *trust.Orders) { o.Enclave = "keep" }), "orders-enclave")
	c.judge("orders", "O4 N4", "all", "all at once", c.note(changed(func(o *trust.Orders) { o.Enclave, o.Root, o.BreakGlass[0].Track = "keep", 2, "prod" }), "olga/order"), "orders-enclave", "orders-root", "orders-track", "orders-threshold")
	judge("O5", "break-glass-track", "glass of an unknown track", changed(func(o *trust.Orders) { o.BreakGlass[0].Track = "prod" }), "orders-track")
	judge("O5", "break-glass-track-longer", "both", changed(func(o *trust.Orders) {
		o.BreakGlass[0].Track, o.BreakGlass[0].Until = "prod", o.BreakGlass[0].Until.Add(time.Second)
	}), "orders-track", "orders-break-glass")
	judge("O5", "break-glass-48", "48 hours to the second", good)
	judge("O5", "break-glass-longer", "48 hours and a second", swap("2026-03-03T09:00:00Z", "2026-03-03T09:00:01Z"), "orders-break-glass")
	strict := c.root(func(r *trust.Root) { delete(r.Policies, trust.PolicyBreakGlass) }).Text()
	v := judge("O5", "break-glass-no-policy", "the root has no such policy", good, "orders-break-glass")
	v.Roots, v.Pin = []string{c.file("root/no-break-glass", c.note(strict, officers...))}, trust.Sum(strict).String()

	follow := func(name, about string, change func(o *trust.Orders), codes ...string) {
		v := c.judge("orders", "O6", name, about, c.note(c.nextOrders(change).Text(), orderers...), codes...)
		v.Accepted, v.Follows = []string{ordersFile}, ordersFile
	}
	follow("next-good", "version 2", nil)
	follow("next-previous", "another previous", func(o *trust.Orders) { o.Previous = trust.Sum(nil) }, "orders-previous")
	follow("next-gap", "version 3", func(o *trust.Orders) { o.Version = 3 }, "orders-version")
	follow("next-earlier", "dated before version 1", func(o *trust.Orders) {
		*o = trust.Orders{Enclave: o.Enclave, Version: 2, Previous: o.Previous, Date: trusttest.Epoch, Root: 1}
		for _, kept := range []*trust.Orders{c.orders(nil)} {
			o.Lost, o.Recalls, o.Restored = kept.Lost, kept.Recalls, kept.Restored
		}
	}, "orders-date")
	follow("next-same-date", "of the date of version 1", func(o *trust.Orders) { o.Date = c.orders(nil).Date })
	follow("next-recall-dropped", "a recall is gone", func(o *trust.Orders) { o.Recalls = nil }, "orders-dropped")
	follow("next-recall-changed", "a recall has another reason", func(o *trust.Orders) { o.Recalls[0].Reason = "nothing" }, "orders-dropped")
	follow("next-lost-dropped", "a lost shipment is back", func(o *trust.Orders) { o.Lost = nil }, "orders-dropped")
	follow("next-restored-dropped", "a restoration is gone", func(o *trust.Orders) { o.Restored = nil }, "orders-dropped")
	follow("next-rest-dropped", "all else may go", func(o *trust.Orders) {
		o.BreakGlass, o.Settled, o.Downgrades, o.Channels, o.Excuses = nil, nil, nil, nil, nil
	})
	follow("next-channel", "a channel comes from elsewhere, with another introduction", func(o *trust.Orders) {
		o.Channels[0].URL, o.Channels[0].Commit, o.Channels[0].Signer = "https://forge.example/guix", commit, signer
	})
	follow("next-all", "all at once", func(o *trust.Orders) { o.Recalls, o.Lost, o.Previous = nil, nil, trust.Sum(nil) }, "orders-dropped", "orders-dropped", "orders-previous")
	v = c.judge("orders", "O6 V2", "skipped-dropped", "a verifier that has not seen version 2 still finds that a recall is gone", c.note(c.nextOrders(func(o *trust.Orders) { o.Version, o.Previous, o.Recalls = 3, trust.Sum(nil), nil }).Text(), orderers...), "orders-dropped")
	v.Accepted = []string{ordersFile}

	few := c.orders(func(o *trust.Orders) {
		*o = trust.Orders{Enclave: o.Enclave, Version: 1, Date: o.Date, Root: 1}
	}).Text()
	v = c.judge("orders", "O7", "too-many", "100,001 lines", c.note(few, orderers...), "orders-size")
	v.Grow = &grow{100_001, "lost 1{6} " + at + " x"}
}

// lineOf returns the first line of a text that begins with a word.
func lineOf(text []byte, word string) string {
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, word+" ") {
			return strings.TrimSuffix(line, "\n")
		}
	}
	return ""
}

func (c *corpus) listCases() {
	good := c.list(nil)
	text := good.Text()
	judge := func(rules, name, about string, text []byte, codes ...string) *vector {
		return c.judge("allowlist", rules, name, about, c.note(text, reviewers...), codes...)
	}
	changed := func(change func(a *trust.Allowlist)) []byte { return c.list(change).Text() }
	line := func(i int) string { return "item " + good.Items[i].String() + "\n" }
	sub := func(old, new string) []byte { return []byte(trusttest.Replace(c.t, string(text), old, new)) }

	judge("A1 A3", "good", "an allowlist", text)
	judge("A1", "empty", "no item", changed(func(a *trust.Allowlist) { a.Items = nil }))
	judge("A1 T3", "size-zero", "an item of no bytes", changed(func(a *trust.Allowlist) { a.Items = a.Items[:1]; a.Items[0].Size = 0 }))
	judge("A1", "kind", "a kind that there is not", sub(line(1), strings.Replace(line(1), " "+good.Items[1].Kind+" ", " gift ", 1)), "allowlist-kind")
	judge("A1", "name", "a name that is none", sub(line(1), strings.Replace(line(1), good.Items[1].Name, good.Items[1].Name[1:], 1)), "allowlist-name")
	i := slices.IndexFunc(good.Items, func(it trust.Item) bool { return it.Kind == trust.KindSource })
	judge("A1", "name-drv", "a source that is called a derivation", sub(line(i), strings.TrimSuffix(line(i), "\n")+".drv\n"), "allowlist-name")
	judge("A1", "channel", "a channel", changed(func(a *trust.Allowlist) {
		a.Items = append(a.Items, trust.Item{SHA256: trust.Sum([]byte("pin")), Size: 9, Kind: trust.KindChannel, Name: trusttest.Base("channel", "guix-channel-"+strings.Repeat("0a", 20))})
	}))
	judge("A1", "channel-drv", "a channel that is called a derivation", changed(func(a *trust.Allowlist) {
		a.Items = append(a.Items, trust.Item{SHA256: trust.Sum([]byte("pin")), Size: 9, Kind: trust.KindChannel, Name: trusttest.Base("channel", "guix.drv")})
	}), "allowlist-name")
	judge("A1", "two-of-a-name", "two items of one name", changed(func(a *trust.Allowlist) {
		it := a.Items[1]
		it.SHA256 = trust.Sum(nil)
		a.Items = append(a.Items, it)
	}), "allowlist-duplicate-name")
	judge("A1", "two-sizes", "two sizes of one content", changed(func(a *trust.Allowlist) {
		it := a.Items[i]
		it.Size, it.Name = it.Size+1, it.Name+"x"
		a.Items = append(a.Items, it)
	}), "allowlist-item-size")
	judge("A1", "two-names", "two names of one content", changed(func(a *trust.Allowlist) {
		it := a.Items[i]
		it.Name += "x"
		a.Items = append(a.Items, it)
	}))
	judge("A1 T4", "unsorted", "two items in another order", sub(line(1)+line(2), line(2)+line(1)), "allowlist-unsorted")
	judge("A1 T4", "item-twice", "an item twice", sub(line(1), line(1)+line(1)), "allowlist-duplicate")
	judge("A1", "not-an-item", "a line that is neither class nor item", append(slices.Clone(text), "note hello\n"...), "allowlist-syntax")
	class := trust.NewClass(3, "kind=source,severity<=review", good.Items[:2])
	classy := func(rule string) []byte {
		return changed(func(a *trust.Allowlist) {
			k := class
			k.Rule = rule
			a.Classes = []trust.Class{k}
		})
	}
	judge("A2", "class", "a class", classy(class.Rule))
	judge("A2", "class-two", "two rules of one shipment", changed(func(a *trust.Allowlist) {
		a.Classes = []trust.Class{trust.NewClass(3, "kind=source", good.Items[:1]), trust.NewClass(3, "kind=derivation,severity!=high", good.Items[1:2])}
	}))
	judge("A2", "class-twice", "a rule of a shipment twice", changed(func(a *trust.Allowlist) {
		a.Classes = []trust.Class{class, trust.NewClass(3, class.Rule, good.Items[:1])}
	}), "allowlist-class")
	judge("A2", "class-all", "as many items as the list has", changed(func(a *trust.Allowlist) { a.Classes = []trust.Class{trust.NewClass(3, "kind=source", good.Items)} }))
	judge("A2", "class-more", "more items than the list has", changed(func(a *trust.Allowlist) {
		k := class
		k.Items = len(a.Items) + 1
		a.Classes = []trust.Class{k}
	}), "allowlist-class")
	judge("A2", "class-none", "a class of no items", changed(func(a *trust.Allowlist) { a.Classes = []trust.Class{trust.NewClass(3, "kind=source", nil)} }), "allowlist-class")
	judge("A2", "class-shipment-zero", "shipment 0", changed(func(a *trust.Allowlist) { a.Classes = []trust.Class{trust.NewClass(0, "kind=source", good.Items)} }), "allowlist-class")
	judge("A2", "class-digest", "a digest in upper case", []byte(strings.Replace(string(classy(class.Rule)), class.Digest.String(), strings.ToUpper(class.Digest.String()), 1)), "allowlist-class")
	judge("A2", "class-fields", "a field too many", []byte(strings.Replace(string(classy(class.Rule)), class.Digest.String(), class.Digest.String()+" x", 1)), "allowlist-class")
	judge("A1 A2", "class-behind", "a class behind an item", append(slices.Clone(text), []byte(lineOf(classy(class.Rule), "class")+"\n")...), "allowlist-syntax")
	for _, r := range [][2]string{
		{"unsorted", "severity<=review,kind=source"}, {"twice", "kind=source,kind=source"}, {"empty-term", "kind=source,"}, {"no-value", "kind="}, {"no-op", "kind"}, {"no-field", "=source"},
		{"other-op", "severity<review"}, {"double-op", "kind==source"}, {"upper-case", "Kind=source"}, {"digit-first", "1kind=source"}, {"long", "kind=" + strings.Repeat("x", 65)}, {"comma", "kind=so,urce"},
		{"too-long", "aa=" + strings.Repeat("x", 64) + ",b=" + strings.Repeat("x", 64) + ",c=" + strings.Repeat("x", 64)},
	} {
		judge("A2", "rule-"+r[0], "`"+r[1]+"`", classy(r[1]), "allowlist-class")
	}
	for _, r := range [][2]string{{"value-of-64", "name=" + strings.Repeat("x", 64)}, {"signs", `name!=*-[a]"#'/\~`}, {"three", "kind=source,severity!=high,severity<=review"}} {
		judge("A2", "rule-"+r[0], "`"+r[1]+"`", classy(r[1]))
	}

	c.judge("allowlist", "A3", "one-reviewer", "one of two", c.note(text, "rada/allowlist"), "allowlist-threshold")
	c.judge("allowlist", "A3 N5", "no-reviewer", "nobody that is known", c.note(text, "zora/allowlist", "zeno/allowlist"), "allowlist-threshold")
	c.judge("allowlist", "A3", "officer", "an officer in a reviewer's place", trust.JoinNote(text, c.line(text, c.e.Key("rada/allowlist")), c.line(text, c.e.Key("olga/root"))), "allowlist-threshold")
	c.judge("allowlist", "A3 R4", "no-role", "a key for allowlists of somebody who is no reviewer", c.note(text, "rada/allowlist", "ines/allowlist"), "allowlist-threshold")
	judge("A3", "track", "an unknown track", changed(func(a *trust.Allowlist) { a.Track = "prod" }), "allowlist-track")
	kinds := c.root(func(r *trust.Root) { r.SetKindThreshold("dev", trust.KindDerivation, 3) })
	under := func(r *trust.Root, name string, v *vector) {
		text := r.Text()
		v.Roots, v.Pin = []string{c.file("root/"+name, c.note(text, officers...))}, trust.Sum(text).String()
	}
	under(kinds, "three-for-derivations", c.judge("allowlist", "A3", "kind-two", "two, where a derivation needs three", c.note(text, reviewers...), "allowlist-threshold"))
	under(kinds, "three-for-derivations", c.judge("allowlist", "A3", "kind-three", "three", c.note(text, "rada/allowlist", "remy/allowlist", "rosa/allowlist")))
	sources := changed(func(a *trust.Allowlist) {
		a.Items = slices.DeleteFunc(a.Items, func(it trust.Item) bool { return it.Kind != trust.KindSource })
	})
	under(kinds, "three-for-derivations", c.judge("allowlist", "A3", "kind-none", "two, and no derivation in it", c.note(sources, reviewers...)))
	deputy := c.root(func(r *trust.Root) {
		r.Deputies = []trust.Deputy{{Role: trust.RoleReviewer, Deputy: "remy", Principal: "rada"}}
	})
	under(deputy, "remy-for-rada", c.judge("allowlist", "A3 R6", "deputy-and-principal", "remy is rada's deputy: they are one", c.note(text, reviewers...), "allowlist-threshold"))
	under(deputy, "remy-for-rada", c.judge("allowlist", "A3 R6", "deputy-and-another", "remy for rada, and rosa", c.note(text, "remy/allowlist", "rosa/allowlist")))
	limited := c.root(func(r *trust.Root) {
		for i, k := range r.Keys {
			if k.Owner == "remy" {
				r.Keys[i].Until = good.Date
			}
		}
	})
	under(limited, "remy-leaves", c.judge("allowlist", "A3 R5", "run-out", "remy's key has run out that second", c.note(text, reviewers...), "allowlist-threshold"))
	before := changed(func(a *trust.Allowlist) { a.Date = a.Date.Add(-time.Second) })
	under(limited, "remy-leaves", c.judge("allowlist", "A3 R5", "not-run-out", "a second before", c.note(before, reviewers...)))

	judge("A4", "newer-root", "signed under a root that is not known yet", changed(func(a *trust.Allowlist) { a.Root = 2 }), "allowlist-root")
	judge("A4", "root-zero", "root 0", sub("root 1\n", "root 0\n"), "allowlist-syntax")
	judge("A4", "before-root", "dated before the root", changed(func(a *trust.Allowlist) { a.Date = trusttest.Epoch.Add(-time.Second) }), "allowlist-date")
	judge("A4", "enclave", "of another enclave", changed(func(a *trust.Allowlist) { a.Enclave = "keep" }), "allowlist-enclave")
	judge("A5", "orders-none-held", "signed under orders that the verifier has not", changed(func(a *trust.Allowlist) { a.Orders = 1 }), "allowlist-orders")
	v := judge("A5", "orders-held", "signed under the orders that it has", changed(func(a *trust.Allowlist) { a.Orders = 1 }))
	v.Accepted = []string{ordersFile}
	v = judge("A5", "orders-older", "signed before there were orders", text)
	v.Accepted = []string{ordersFile}
	v = judge("A5", "orders-newer", "signed under the next orders", changed(func(a *trust.Allowlist) { a.Orders = 2 }), "allowlist-orders")
	v.Accepted = []string{ordersFile}
	v = judge("A5", "before-orders", "dated before the orders that it was signed under", changed(func(a *trust.Allowlist) { a.Orders, a.Date = 1, trusttest.Epoch.Add(time.Hour-time.Second) }), "allowlist-date")
	v.Accepted = []string{ordersFile}
	c.judge("allowlist", "N4", "all", "all at once", c.note(changed(func(a *trust.Allowlist) { a.Enclave, a.Root, a.Orders = "keep", 2, 1 }), "rada/allowlist"), "allowlist-enclave", "allowlist-root", "allowlist-orders", "allowlist-threshold")
	c.judge("allowlist", "N4", "form-only", "of a list with a wrong signature and a wrong line only the line is said", trust.JoinNote(sub("root 1\n", "root 0\n"), c.lineOf(c.e.Key("rada/allowlist").VKey(), make([]byte, 64))), "allowlist-syntax")

	malformed := "— zora/allowlist AAAA"
	c.judge("allowlist", "N4", "note-first", "a malformed signature line is said before a wrong line", trust.JoinNote(sub("root 1\n", "root 0\n"), c.line(text, c.e.Key("rada/allowlist")), malformed), "allowlist-note")
	c.judge("allowlist", "N4", "text-first", "a letter that is not ASCII is said before a wrong line", c.note(sub("root 1\n", "root é\n"), "rada/allowlist"), "allowlist-syntax")
	c.judge("allowlist", "N1", "note-two-lines", "two malformed signature lines", trust.JoinNote(text, malformed, malformed), "allowlist-note", "allowlist-note")
	c.judge("allowlist", "N4 A6", "opened-first", "whether it follows is not asked of a list that too few have signed", c.note(c.nextList(func(a *trust.Allowlist) { a.Previous = trust.Sum(nil) }).Text(), "rada/allowlist"), "allowlist-threshold").Follows = listFile

	follow := func(name, about string, change func(a *trust.Allowlist), codes ...string) *vector {
		v := c.judge("allowlist", "A6", name, about, c.note(c.nextList(change).Text(), reviewers...), codes...)
		v.Accepted, v.Follows = []string{listFile}, listFile
		return v
	}
	follow("next-good", "version 2", nil)
	follow("next-without", "version 2 without an item of version 1", func(a *trust.Allowlist) { a.Items = a.Items[1:] })
	follow("next-previous", "another previous", func(a *trust.Allowlist) { a.Previous = trust.Sum(nil) }, "allowlist-previous")
	follow("next-gap", "version 3", func(a *trust.Allowlist) { a.Version = 3 }, "allowlist-version")
	follow("next-earlier", "dated before version 1", func(a *trust.Allowlist) { a.Date = good.Date.Add(-time.Second) }, "allowlist-date")
	follow("next-same-date", "of the date of version 1", func(a *trust.Allowlist) { a.Date = good.Date })
	v = follow("next-fewer-orders", "signed under older orders than version 1", nil, "allowlist-orders")
	v.Accepted, v.Follows = []string{ordersFile}, "allowlist/orders-none-held"
	v.Codes = []string{"allowlist-orders", "allowlist-previous"}

	none := changed(func(a *trust.Allowlist) { a.Items = nil })
	v = c.judge("allowlist", "A7", "too-many", "1,000,001 items", c.note(none, reviewers...), "allowlist-size")
	v.Grow = &grow{1_000_001, "item {64} 1 source {32}-x"}
	v = c.judge("allowlist", "A7", "too-many-classes", "1,001 classes", c.note(none, reviewers...), "allowlist-size")
	v.Grow = &grow{1_001, "class 1{4} kind=source 1 " + strings.Repeat("ab", 32)}
}
