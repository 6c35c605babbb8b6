package trust_test

import (
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

// attackCases are the attacks that The Update Framework names, and others, each against root, orders and allowlist as far as it has a meaning there.
func (c *corpus) attackCases() {
	pin := trust.Fingerprint(c.rootPin)
	epoch := trusttest.Epoch
	judge := func(rules, name, about, do string, accepted []string, note []byte, codes ...string) *vector {
		c.add(vector{Name: "attack/" + name, Rules: strings.Fields(rules), About: about, Do: do, Pin: pin, Roots: []string{rootFile}, Accepted: accepted, File: c.file("attack/"+name, note), Codes: codes})
		return &c.cases[len(c.cases)-1]
	}
	list2 := c.file("allowlist/2", c.note(c.nextList(nil).Text(), reviewers...))
	orders2 := c.file("orders/2", c.note(c.nextOrders(nil).Text(), orderers...))
	root2 := c.file("root/2", c.note(c.nextRoot(nil).Text(), officers...))
	now := "2026-03-01T13:00:00Z"

	// Arbitrary software: what no reviewer has signed.
	evil := trust.Item{SHA256: trust.Sum([]byte("evil")), Size: 4, Kind: trust.KindDerivation, Name: trusttest.Base("evil", "evil-1.0.drv")}
	evilText := c.nextList(func(a *trust.Allowlist) {
		a.Items = append(a.Items, evil)
		trust.SortItems(a.Items)
	}).Text()
	judge("A3", "arbitrary-software", "a list with an item more, under the signatures of the list without it", "allowlist", []string{listFile}, append(slices.Clone(evilText), c.files[list2][len(c.nextList(nil).Text()):]...), "allowlist-signature", "allowlist-signature")
	judge("A3", "arbitrary-software-strangers", "the same, signed by strangers", "allowlist", []string{listFile}, c.note(evilText, "zora/allowlist", "zeno/allowlist"), "allowlist-threshold")
	c.add(vector{Name: "attack/wrong-software", Rules: []string{"Q1"}, About: "a derivation of an allowed name, with other content", Do: "quorum", Pin: pin, Roots: []string{rootFile}, Accepted: []string{listFile},
		Derivation: helloDrv, SHA256: evil.SHA256.String(), Now: now, Envelopes: []string{"built/bela", "built/boas"}, Codes: []string{"not-allowed"}})
	c.add(vector{Name: "attack/extraneous-software", Rules: []string{"Q1"}, About: "a derivation that nobody allowed, beside one that is", Do: "quorum", Pin: pin, Roots: []string{rootFile}, Accepted: []string{listFile},
		Derivation: evil.Name, SHA256: evil.SHA256.String(), Now: now, Envelopes: []string{"built/bela", "built/boas"}, Codes: []string{"not-allowed"}})

	// Rollback: an older version than was accepted, truly signed.
	judge("V1", "rollback-allowlist", "version 1 after version 2", "allowlist", []string{listFile, list2}, c.files[listFile], "allowlist-rollback")
	judge("V1", "rollback-orders", "version 1 after version 2: the recalls of version 2 would be gone", "orders", []string{ordersFile, orders2}, c.files[ordersFile], "orders-rollback")
	judge("R12 V1", "rollback-root", "version 1 after version 2", "root", nil, c.files[rootFile], "root-rollback").Roots = []string{rootFile, root2}
	c.add(vector{Name: "attack/rollback-no-orders", Rules: []string{"V3"}, About: "no orders at all, after orders", Do: "no-orders", Pin: pin, Roots: []string{rootFile}, Accepted: []string{ordersFile}, Codes: []string{"orders-rollback"}})
	c.add(vector{Name: "attack/no-orders-yet", Rules: []string{"V3"}, About: "no orders at all, where there were none", Do: "no-orders", Pin: pin, Roots: []string{rootFile}, Accepted: []string{listFile}})

	// Rollback after every key but the officers' was rotated: the old list is signed by keys that the root does not know any more, and a list of the old number by the new ones.
	rotated := c.nextRoot(func(r *trust.Root) {
		for i, k := range r.Keys {
			if k.Context == trust.ContextAllowlist || k.Context == trust.ContextOrder || k.Context == trust.ContextStatement && k.Owner != trust.Station {
				r.Keys[i] = trusttest.Key(c.t, k.Owner+"/"+string(k.Context), "rotated").RootKey()
			}
		}
	})
	rotatedFile := c.file("root/2-rotated", c.note(rotated.Text(), officers...))
	by := func(text []byte, names ...string) []byte {
		var lines []string
		for _, name := range names {
			lines = append(lines, c.line(text, trusttest.Key(c.t, name, "rotated")))
		}
		return trust.JoinNote(text, lines...)
	}
	third := c.nextList(func(a *trust.Allowlist) { a.Version, a.Previous, a.Root = 3, trust.Sum([]byte("2")), 2 }).Text()
	list3 := c.file("allowlist/3-rotated", by(third, reviewers...))
	judge("R12 A3", "rotated-old-keys", "a list by keys that were rotated away", "allowlist", nil, c.files[list2], "allowlist-threshold").Roots = []string{rootFile, rotatedFile}
	judge("V1", "rotated-rollback", "an old number by the new keys: a floor knows no keys", "allowlist", []string{list3}, by(c.list(func(a *trust.Allowlist) { a.Date = c.list(nil).Date }).Text(), reviewers...), "allowlist-rollback").Roots = []string{rootFile, rotatedFile}
	orders3 := c.file("orders/3-rotated", by(c.nextOrders(func(o *trust.Orders) { o.Version, o.Previous, o.Root = 3, trust.Sum([]byte("2")), 2 }).Text(), orderers...))
	judge("V1", "rotated-rollback-orders", "the same with orders", "orders", []string{orders3}, by(c.orders(nil).Text(), orderers...), "orders-rollback").Roots = []string{rootFile, rotatedFile}
	judge("R12", "rotated-root", "version 1 again, under version 2 that has rotated all keys but the officers'", "root", nil, c.files[rootFile], "root-rollback").Roots = []string{rootFile, rotatedFile}

	// Equivocation: an equal number with other bytes, truly signed.
	judge("V1", "equivocation-allowlist", "another version 2", "allowlist", []string{listFile, list2}, c.note(evilText, reviewers...), "allowlist-equivocation")
	judge("V1", "equivocation-orders", "other orders 2", "orders", []string{ordersFile, orders2}, c.note(c.nextOrders(func(o *trust.Orders) { o.Settled = nil }).Text(), orderers...), "orders-equivocation")
	judge("R12 V1", "equivocation-root", "another version 2", "root", nil, c.note(c.nextRoot(func(r *trust.Root) { r.Policies[trust.PolicyQuorum] = "1" }).Text(), officers...), "root-equivocation").Roots = []string{rootFile, root2}
	judge("R12 V1", "equivocation-root-strangers", "another version 2 by strangers is no alarm", "root", nil, c.note(c.nextRoot(func(r *trust.Root) { r.Policies[trust.PolicyQuorum] = "1" }).Text(), "zora/root", "zeno/root"), "root-threshold", "root-threshold", "root-version").Roots = []string{rootFile, root2}

	// Fast-forward: a number so high that none could follow. One who may sign may do so; it is seen by whoever checks that versions follow, and the rest never accept another number.
	judge("A6", "fast-forward-allowlist", "version 2^62", "allowlist", []string{listFile}, c.note(c.nextList(func(a *trust.Allowlist) { a.Version = 1 << 62 }).Text(), reviewers...), "allowlist-version").Follows = listFile
	judge("O6", "fast-forward-orders", "version 2^62", "orders", []string{ordersFile}, c.note(c.nextOrders(func(o *trust.Orders) { o.Version = 1 << 62 }).Text(), orderers...), "orders-version").Follows = ordersFile
	judge("R12", "fast-forward-root", "version 2^62", "root", nil, c.note(c.nextRoot(func(r *trust.Root) { r.Version = 1 << 62 }).Text(), officers...), "root-version")
	judge("T3", "fast-forward-above", "version 2^62 + 1", "allowlist", []string{listFile}, c.note(c.nextList(func(a *trust.Allowlist) { a.Version = 1<<62 + 1 }).Text(), reviewers...), "allowlist-syntax")

	// Freeze: time does not go back. What is withheld is found by what came after it: a list names its root and its orders.
	judge("V1", "freeze-allowlist", "a later number with an earlier date", "allowlist", []string{list2}, c.note(c.nextList(func(a *trust.Allowlist) {
		a.Version, a.Previous, a.Date = 3, trust.Sum(nil), a.Date.Add(-time.Second)
	}).Text(), reviewers...), "allowlist-date")
	judge("V1", "freeze-orders", "a later number with an earlier date", "orders", []string{orders2}, c.note(c.nextOrders(func(o *trust.Orders) {
		o.Version, o.Previous, o.Date = 3, trust.Sum(nil), o.Date.Add(-time.Second)
	}).Text(), orderers...), "orders-date")
	judge("R12", "freeze-root", "a later number with an earlier date", "root", nil, c.note(c.nextRoot(func(r *trust.Root) { r.Date = epoch.Add(-time.Second) }).Text(), officers...), "root-date")
	judge("A4", "freeze-withheld-root", "version 2 of the root is withheld: a list that was signed under it shows that", "allowlist", []string{listFile}, c.note(c.nextList(func(a *trust.Allowlist) { a.Root = 2 }).Text(), reviewers...), "allowlist-root")
	judge("A5", "freeze-withheld-orders", "orders 2 are withheld: a list that was signed under them shows that", "allowlist", []string{ordersFile, listFile}, c.note(c.nextList(func(a *trust.Allowlist) { a.Orders = 2 }).Text(), reviewers...), "allowlist-orders")

	// Endless data: see root/too-many-lines, orders/too-many, allowlist/too-many.

	// Mix and match: documents that are each right, and do not belong together.
	keep := c.root(func(r *trust.Root) {
		r.Enclave = "keep"
		r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Context == trust.ContextCheckpoint })
	}).Text()
	keepFile := c.file("root/1-keep", c.note(keep, officers...))
	other := func(v *vector) { v.Roots, v.Pin = []string{keepFile}, trust.Sum(keep).String() }
	other(judge("A4", "mix-list-of-another-enclave", "the same persons and keys, another enclave", "allowlist", nil, c.files[listFile], "allowlist-enclave"))
	other(judge("O4", "mix-orders-of-another-enclave", "the same persons and keys, another enclave", "orders", nil, c.files[ordersFile], "orders-enclave"))
	judge("R12", "mix-root-of-another-chain", "version 2 of another chain", "root", nil, c.note(c.nextRoot(func(r *trust.Root) { r.Previous = trust.Sum(keep) }).Text(), officers...), "root-previous")
	judge("A6", "mix-track", "a list of another track", "allowlist", []string{listFile}, c.note(c.nextList(func(a *trust.Allowlist) { a.Track = "prod" }).Text(), reviewers...), "allowlist-track")
	judge("N2", "mix-orders-as-list", "orders in the place of a list", "allowlist", nil, c.files[ordersFile], "allowlist-syntax")
	judge("N2", "mix-list-as-orders", "a list in the place of orders", "orders", nil, c.files[listFile], "orders-syntax")
	judge("A6", "mix-fewer-orders", "a list that was signed under older orders than the one before", "allowlist", []string{ordersFile}, c.note(c.nextList(func(a *trust.Allowlist) {
		a.Previous = c.list(func(a *trust.Allowlist) { a.Orders = 1 }).Digest()
	}).Text(), reviewers...), "allowlist-orders").Follows = "allowlist/orders-none-held"

	// Keys that were stolen: below the threshold they are worth nothing; at the threshold they sign, until the officers rotate them, and never against the floor.
	judge("A3", "stolen-one", "one reviewer's key", "allowlist", []string{listFile}, c.note(evilText, "rada/allowlist"), "allowlist-threshold")
	judge("A3 R8", "stolen-one-twice", "one reviewer's key, signing as two", "allowlist", []string{listFile}, trust.JoinNote(evilText, c.line(evilText, c.e.Key("rada/allowlist")), "— remy/allowlist "+strings.Fields(c.line(evilText, c.e.Key("rada/allowlist")))[2]), "allowlist-threshold")
	judge("A3", "stolen-two", "two reviewers' keys: this is the threshold", "allowlist", []string{listFile}, c.note(evilText, reviewers...))
	judge("A3 R12", "stolen-two-rotated", "and they are worth nothing once the officers rotated them", "allowlist", nil, c.note(evilText, reviewers...), "allowlist-threshold").Roots = []string{rootFile, rotatedFile}
	judge("O4", "stolen-reviewers-recall", "all reviewers' keys order nothing", "orders", []string{ordersFile}, trust.JoinNote(c.nextOrders(nil).Text(), c.line(c.nextOrders(nil).Text(), c.e.Key("rada/allowlist")), c.line(c.nextOrders(nil).Text(), c.e.Key("remy/allowlist")), c.line(c.nextOrders(nil).Text(), c.e.Key("rosa/allowlist"))), "orders-threshold")
	judge("R12", "stolen-officer", "one officer's key", "root", nil, c.note(c.nextRoot(nil).Text(), "olga/root"), "root-threshold", "root-threshold")
	judge("R12 N2", "stolen-order-keys", "all officers' keys for orders make no root", "root", nil, trust.JoinNote(c.nextRoot(nil).Text(), c.line(c.nextRoot(nil).Text(), c.e.Key("olga/order")), c.line(c.nextRoot(nil).Text(), c.e.Key("omar/order"))), "root-threshold", "root-threshold")
	judge("O6", "stolen-orders-unrecall", "at the threshold of officers: a recall is still not taken back", "orders", []string{ordersFile}, c.note(c.nextOrders(func(o *trust.Orders) { o.Recalls = nil }).Text(), orderers...), "orders-dropped")
	// A thief of a key that has run out dates a document before its end: the date may not be before what was accepted already.
	limited := c.root(func(r *trust.Root) {
		for i, k := range r.Keys {
			if k.Owner == "remy" {
				r.Keys[i].Until = c.list(nil).Date.Add(time.Minute)
			}
		}
	}).Text()
	limitedFile := c.file("root/remy-leaves-soon", c.note(limited, officers...))
	first := c.file("allowlist/1-later", c.note(c.list(func(a *trust.Allowlist) { a.Date = a.Date.Add(time.Hour) }).Text(), "rada/allowlist", "rosa/allowlist"))
	v := judge("R5 V1", "stolen-run-out", "remy's key has run out; the thief dates the list before its end", "allowlist", []string{first}, c.note(c.list(func(a *trust.Allowlist) { a.Version, a.Previous = 2, trust.Sum(nil) }).Text(), reviewers...), "allowlist-date")
	v.Roots, v.Pin = []string{limitedFile}, trust.Sum(limited).String()
	v = judge("R5", "stolen-run-out-honest", "dated as it was made", "allowlist", []string{first}, c.note(c.list(func(a *trust.Allowlist) {
		a.Version, a.Previous, a.Date = 2, trust.Sum(nil), a.Date.Add(2*time.Hour)
	}).Text(), reviewers...), "allowlist-threshold")
	v.Roots, v.Pin = []string{limitedFile}, trust.Sum(limited).String()
}
