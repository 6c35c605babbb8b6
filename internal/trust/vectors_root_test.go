package trust_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

// rootHead is how many lines stand before the body of a root.
const rootHead = 5

// judgeRoot adds a case about version 1 of a root with its own text, signed by who meets the threshold.
func (c *corpus) judgeRoot(rules, name, about string, text []byte, codes ...string) {
	file := c.file("root/"+name, c.note(text, officers...))
	c.add(vector{Name: "root/" + name, Rules: strings.Fields(rules), About: about, Do: "root", Pin: trust.Fingerprint(trust.Sum(text)), File: file, Codes: codes})
}

// judgeNext adds a case about version 2.
func (c *corpus) judgeNext(rules, name, about string, note []byte, codes ...string) {
	c.add(vector{Name: "root/" + name, Rules: strings.Fields(rules), About: about, Do: "root", Pin: trust.Fingerprint(c.rootPin), Roots: []string{rootFile}, File: c.file("root/"+name, note), Codes: codes})
}

// textCases are about what all texts have in common; a root stands for all.
func (c *corpus) textCases() {
	good := c.root(nil).Text()
	sub := func(old, new string) []byte { return []byte(trusttest.Replace(c.t, string(good), old, new)) }
	c.judgeRoot("T1 R11", "good", "the root of most cases", good)
	c.judgeRoot("T1", "text-empty-line", "an empty line", sub("version 1\n", "version 1\n\n"), "root-syntax")
	c.judgeRoot("T1", "text-cr", "CR before an LF", sub("version 1\n", "version 1\r\n"), "root-syntax")
	c.judgeRoot("T1", "text-tab", "a tab", sub("version 1\n", "version\t1\n"), "root-syntax")
	c.judgeRoot("T1", "text-del", "0x7f", sub("citadel\nversion", "citadel\x7f\nversion"), "root-syntax")
	c.judgeRoot("T1", "text-utf8", "a letter that is not ASCII", sub("enclave citadel\n", "enclave citadél\n"), "root-syntax")
	c.judgeRoot("T1", "text-title", "another first line", sub("root v1", "root v2"), "root-syntax")
	c.judgeRoot("T2", "text-two-spaces", "two spaces", sub("enclave citadel\n", "enclave  citadel\n"), "root-syntax")
	c.judgeRoot("T2", "text-space-behind", "a space at the end of a line", sub("enclave citadel\n", "enclave citadel \n"), "root-syntax")
	c.judgeRoot("T2", "text-head-order", "two lines of the head in another order", sub("enclave citadel\nversion 1\n", "version 1\nenclave citadel\n"), "root-syntax")
	c.judgeRoot("T2", "text-upper-case", "a name in upper case", c.edit(good, rootHead, "role officer olga", "role officer Olga"), "root-syntax")
	c.judgeRoot("T2", "text-long-name", "a name of 33 characters", c.with(good, rootHead, "role reviewer "+strings.Repeat("a", 33)), "root-syntax")
	c.judgeRoot("T2", "text-name-hyphen", "a name that begins with a hyphen", c.with(good, rootHead, "role reviewer -a"), "root-syntax")
	c.judgeRoot("T2", "text-date-offset", "a date with an offset", sub("09:00:00Z", "09:00:00+00:00"), "root-syntax")
	c.judgeRoot("T2", "text-date-fraction", "a date with a fraction", sub("09:00:00Z", "09:00:00.0Z"), "root-syntax")
	c.judgeRoot("T2", "text-date-none", "30 February", sub("2026-03-01", "2026-02-30"), "root-syntax")
	c.judgeRoot("T2", "text-date-second", "second 60", sub("09:00:00Z", "09:00:60Z"), "root-syntax")
	c.judgeRoot("T3", "number-zero", "version 0", sub("version 1\n", "version 0\n"), "root-syntax")
	c.judgeRoot("T3", "number-leading-zero", "version 01", sub("version 1\n", "version 01\n"), "root-syntax")
	c.judgeRoot("T3", "number-plus", "version +1", sub("version 1\n", "version +1\n"), "root-syntax")
	c.judgeRoot("T3", "number-hex", "version 0x1", sub("version 1\n", "version 0x1\n"), "root-syntax")
	c.judgeRoot("T3", "number-above", "2^62 + 1", sub("version 1\ndate 2026-03-01T09:00:00Z\nprevious -", "version 4611686018427387905\ndate 2026-03-01T09:00:00Z\nprevious "+strings.Repeat("ab", 32)), "root-syntax")
	c.judgeRoot("T3", "number-far-above", "2^64 + 1", sub("version 1\ndate 2026-03-01T09:00:00Z\nprevious -", "version 18446744073709551617\ndate 2026-03-01T09:00:00Z\nprevious "+strings.Repeat("ab", 32)), "root-syntax")
	c.judgeRoot("T4", "body-unsorted", "two lines of the body in another order", sub("role officer olga\nrole officer omar\n", "role officer omar\nrole officer olga\n"), "root-unsorted")
	c.judgeRoot("T4", "body-duplicate", "a line twice", sub("role officer olga\n", "role officer olga\nrole officer olga\n"), "root-duplicate")
	c.judgeRoot("T4", "body-threshold-twice", "two lines about one threshold", c.with(good, rootHead, "threshold root 1"), "root-duplicate")
	c.judgeRoot("T4", "body-policy-twice", "two lines about one policy", c.with(good, rootHead, "policy quorum 1"), "root-duplicate")
	c.judgeRoot("T4 N4", "body-all-at-once", "all faults of the form are listed", []byte(strings.Replace(strings.Replace(string(sub("role officer olga\n", "role officer olga\nrole officer olga\n")), "policy quorum 2\n", "", 1), "threshold order 2\n", "", 1)),
		"root-duplicate", "root-quorum", "root-threshold-missing")
	c.judgeRoot("N4", "head-before-body", "a fault before the body is said alone", []byte(strings.Replace(string(sub("role officer olga\n", "role officer olga\nrole officer olga\n")), "version 1\n", "version 01\n", 1)), "root-syntax")
	c.judgeRoot("R9 N4", "lines-before-whole", "that a threshold is missing is not said beside a line that could not be read", []byte(strings.Replace(string(sub("threshold order 2\n", "")), "role officer olga\n", "role officer Olga\n", 1)), "root-syntax")
	c.judgeRoot("T5", "previous-first", "version 1 with a previous", sub("previous -", "previous "+strings.Repeat("ab", 32)), "root-previous")
	c.judgeRoot("T5", "previous-none", "version 2 without", sub("version 1\n", "version 2\n"), "root-previous")
	second := func(previous string) []byte {
		return sub("version 1\ndate 2026-03-01T09:00:00Z\nprevious -", "version 2\ndate 2026-03-01T09:00:00Z\nprevious "+previous)
	}
	c.judgeRoot("T5", "previous-zeros", "a digest of zeros", second(strings.Repeat("0", 64)), "root-syntax")
	c.judgeRoot("T2", "previous-upper-case", "a digest in upper case", second(strings.Repeat("AB", 32)), "root-syntax")
	c.judgeRoot("T2", "previous-short", "a digest of 63 digits", second(strings.Repeat("ab", 31)+"a"), "root-syntax")

	d := c.rootPin
	f := trust.Fingerprint(d)
	pin := func(name, about, typed string, ok bool) {
		v := vector{Name: "pin/" + name, Rules: []string{"T6"}, About: about, Do: "pin", Pin: typed, Digest: d.String()}
		if !ok {
			v.Codes = []string{"root-pin"}
		}
		c.add(v)
	}
	pin("fingerprint", "8 groups of 4", f, true)
	pin("digits", "64 digits", d.String(), true)
	pin("upper-case", "typed in upper case", strings.ToUpper(f), true)
	pin("digits-upper-case", "digits in upper case", strings.ToUpper(d.String()), true)
	pin("spaces", "with spaces for hyphens", strings.ReplaceAll(f, "-", " "), true)
	pin("together", "without hyphens", strings.ReplaceAll(f, "-", ""), true)
	pin("digits-grouped", "64 digits in groups", d.String()[:32]+" "+d.String()[32:], true)
	pin("other", "another's", trust.Fingerprint(trust.Sum(nil)), false)
	pin("other-digits", "another's digits", trust.Sum(nil).String(), false)
	pin("last-letter", "the last letter is another", f[:len(f)-1]+map[bool]string{true: "a", false: "b"}[f[len(f)-1] != 'a'], false)
	pin("seven-groups", "7 groups", f[:len(f)-5], false)
	pin("nine-groups", "9 groups", f+"-aaaa", false)
	pin("digits-short", "63 digits", d.String()[:63], false)
	pin("digits-half", "the first 40 digits", d.String()[:40], false)
	pin("empty", "nothing", "", false)
	pin("zero", "a 0 is no letter of base32", strings.Replace(f, f[:1], "0", 1), false)
}

// noteCases are about signatures; a root stands for all notes.
func (c *corpus) noteCases() {
	text := c.root(nil).Text()
	pin := trust.Fingerprint(c.rootPin)
	judge := func(rules, name, about string, note []byte, codes ...string) {
		c.add(vector{Name: "note/" + name, Rules: strings.Fields(rules), About: about, Do: "root", Pin: pin, File: c.file("note/"+name, note), Codes: codes})
	}
	signed := c.note(text, officers...)
	olga := c.line(text, c.e.Key("olga/root"))
	omar := c.line(text, c.e.Key("omar/root"))
	zero := c.lineOf(c.e.Key("oona/root").VKey(), make([]byte, 64))
	stranger := c.lineOf(c.e.Key("zora/root").VKey(), make([]byte, 64))
	judge("N1", "no-signature", "a text and nothing behind it", text, "root-note")
	judge("N1", "no-line", "an empty line and no signature", append(bytes.Clone(text), '\n'), "root-note")
	judge("N1", "no-lf", "the last line does not end", signed[:len(signed)-1], "root-note")
	judge("N1", "hyphen", "a hyphen for the dash", bytes.Replace(signed, []byte("— olga"), []byte("- olga"), 1), "root-note")
	judge("N1", "spare-bits", "base64 with spare bits", trust.JoinNote(text, olga, omar, spare(c.lineOf(c.e.Key("zora/root").VKey(), make([]byte, 64)))), "root-note")
	judge("N1", "short", "a signature line of no signature", trust.JoinNote(text, olga, omar, "— zora/root AAAAAA=="), "root-note")
	judge("N1", "plus-in-name", "a plus in a name", trust.JoinNote(text, olga, omar, "— zo+ra "+strings.Fields(stranger)[2]), "root-note")
	many := []string{olga, omar}
	for i := range 99 {
		many = append(many, fmt.Sprintf("— stranger-%d %s", i, strings.Fields(stranger)[2]))
	}
	judge("N1", "hundred", "100 signatures", trust.JoinNote(text, many[:100]...))
	judge("N1", "hundred-and-one", "101 signatures", trust.JoinNote(text, many...), "root-note")
	judge("N2", "stranger", "a stranger beside the known keys, whose signature is wrong", trust.JoinNote(text, olga, omar, stranger))
	judge("N2", "stranger-twice", "a stranger twice", trust.JoinNote(text, olga, omar, stranger, stranger))
	judge("N2", "other-context", "an order key of an officer signs a root", trust.JoinNote(text, olga, c.line(text, c.e.Key("omar/order"))), "root-threshold")
	judge("N2", "other-hash", "the name of a known key with the hash of another", trust.JoinNote(text, olga, c.line(text, trusttest.Key(c.t, "omar/root", "second"))), "root-threshold")
	judge("N3", "wrong", "a wrong signature by a known key, though enough others are right", trust.JoinNote(text, olga, omar, zero), "root-signature")
	judge("N3", "wrong-and-too-few", "what is wrong of signatures is said first", trust.JoinNote(text, olga, zero), "root-signature")
	judge("N3", "twice", "one signature twice", trust.JoinNote(text, olga, omar, olga), "root-note")
	judge("N3", "twice-other", "two signatures by one key, the second wrong", trust.JoinNote(text, olga, omar, c.lineOf(c.e.Key("olga/root").VKey(), make([]byte, 64))), "root-note")
	judge("N4", "form-first", "faults of the text are said before those of signatures", trust.JoinNote([]byte(trusttest.Replace(c.t, string(text), "threshold order 2\n", "")), zero), "root-pin")
	judge("N5", "nobody", "strangers only", c.note(text, "zora/root", "zeno/root"), "root-threshold")
	judge("N5", "one", "one of two", c.note(text, "olga/root"), "root-threshold")
}

// spare sets a spare bit of the base64 at the end of a line.
func spare(line string) string {
	i := strings.IndexByte(line, '=') - 1
	return line[:i] + string(line[i]+1) + line[i+1:]
}

func (c *corpus) rootCases() {
	good := c.root(nil).Text()
	with := func(line string) []byte { return c.with(good, rootHead, line) }
	swap := func(old, new string) []byte { return c.edit(good, rootHead, old, new) }
	drop := func(line string) []byte { return []byte(trusttest.Replace(c.t, string(good), line+"\n", "")) }
	changed := func(change func(r *trust.Root)) []byte { return c.root(change).Text() }
	olga := c.e.Key("olga/root").VKey()
	as := func(name string, public []byte) string {
		v, err := trust.NewVKey(trust.KeyEd25519, name, public)
		if err != nil {
			c.t.Fatal(err)
		}
		return v.String()
	}
	raw := func(name string, public []byte) string { // past all checks
		k := c.e.Key(name).VKey()
		k.Public = public
		return k.String()
	}

	c.judgeRoot("R1", "key-twice", "a public key under two names", with("key root rada "+as("rada/root", olga.Public)), "root-duplicate-key")
	c.judgeRoot("R1", "key-two-contexts", "a public key in two contexts", with("key order rada "+as("rada/order", olga.Public)), "root-duplicate-key")
	c.judgeRoot("R1", "key-narinfo-too", "a public key that is a track's too", sortBody(string(good)+"key narinfo test "+fmt.Sprintf("%x", olga.Public)+"\nthreshold allowlist/test 1\n", rootHead), "root-duplicate-key")
	c.judgeRoot("R1", "key-other-hash", "a vkey with another hash", swap(olga.ID(), fmt.Sprintf("olga/root+%08x", olga.Hash()+1)), "root-key")
	c.judgeRoot("R1", "key-hash-upper-case", "a vkey with its hash in upper case", swap(c.e.Key("wim/witness").VKey().ID(), "wim/witness+"+strings.ToUpper(c.e.Key("wim/witness").VKey().ID()[12:])), "root-key")
	c.judgeRoot("R1", "key-identity", "the neutral point, under which anybody signs", with("key root rada "+raw("rada/root", append([]byte{1}, make([]byte, 31)...))), "root-key")
	c.judgeRoot("R1", "key-order-4", "a point of order 4", with("key root rada "+raw("rada/root", make([]byte, 32))), "root-key")
	c.judgeRoot("R1", "key-not-a-point", "no point of the curve", with("key root rada "+raw("rada/root", append([]byte{2}, make([]byte, 31)...))), "root-key")
	c.judgeRoot("R1", "key-of-31-bytes", "a byte too few", with("key root rada "+raw("rada/root", olga.Public[:31])), "root-key")
	c.judgeRoot("R1", "key-narinfo-upper-case", "a track's key in upper case", swap(strings.Repeat("8d", 32), strings.Repeat("8D", 32)), "root-key")
	c.judgeRoot("R1", "key-sums-vkey", "a vkey where a minisign key belongs", with("key sums cleo "+olga.String()), "root-key")

	c.judgeRoot("R2", "owner-other", "the line is of another than the name", with("key root rada "+trusttest.Key(c.t, "rosa/root", "").VKey().String()), "root-owner")
	c.judgeRoot("R2", "owner-context", "the line is of another context than the name", with("key root rada "+trusttest.Key(c.t, "rada/manifest", "").VKey().String()), "root-owner")
	c.judgeRoot("R2", "owner-other-ledger", "the ledger of another enclave", with("key checkpoint station "+trusttest.Key(c.t, "sallyport/keep/inside", "").VKey().String()), "root-owner")
	c.judgeRoot("R2", "owner-two-ledgers", "inside and outside", with("key checkpoint station "+c.e.Key("sallyport/citadel/outside").VKey().String()))
	c.judgeRoot("R2", "owner-two-track-keys", "two keys of a track", with("key narinfo dev "+strings.Repeat("01", 32)), "root-track-key")
	c.judgeRoot("R2", "owner-two-keys", "two keys of a person in a context", with("key root olga "+trusttest.Key(c.t, "olga/root", "second").VKey().String()))
	c.judgeRoot("R3", "station-officer", "the station as officer", with("role officer station"), "root-role")
	c.judgeRoot("R3", "station-person", "a person as station", with("role station olga"), "root-role")
	c.judgeRoot("R3", "station-root-key", "the station with a root key", with("key root station "+c.e.Key("station/root").VKey().String()), "root-owner")
	c.judgeRoot("R3", "station-order-key", "the station with an order key", with("key order station "+c.e.Key("station/order").VKey().String()), "root-owner")
	c.judgeRoot("R3", "person-ledger", "a ledger's key of a person", with("key checkpoint olga "+c.e.Key("sallyport/citadel/outside").VKey().String()), "root-owner")
	c.judgeRoot("R4", "role-missing", "a key without the role is allowed", with("key root rada "+c.e.Key("rada/root").VKey().String()))
	noRole := with("key root rada " + c.e.Key("rada/root").VKey().String())
	c.add(vector{Name: "root/role-missing-signs", Rules: []string{"R4"}, About: "and counts for nothing", Do: "root", Pin: trust.Sum(noRole).String(),
		File: c.file("root/role-missing-signs", c.note(noRole, "olga/root", "rada/root")), Codes: []string{"root-threshold"}})

	epoch := trusttest.Epoch
	bounds := func(owner string, context trust.Context, from, until time.Time) func(r *trust.Root) {
		return func(r *trust.Root) {
			for i, k := range r.Keys {
				if k.Owner == owner && k.Context == context {
					r.Keys[i].From, r.Keys[i].Until = from, until
				}
			}
		}
	}
	omarLine := "key root omar " + c.e.Key("omar/root").VKey().String()
	c.judgeRoot("R5", "bounds", "a key that counts from the root's date on", changed(bounds("omar", trust.ContextRoot, epoch, epoch.Add(time.Second))))
	c.judgeRoot("R5", "bounds-not-yet", "a key that counts from the next second on", changed(bounds("omar", trust.ContextRoot, epoch.Add(time.Second), time.Time{})), "root-threshold")
	c.judgeRoot("R5", "bounds-over", "a key that counts before the root's date", changed(bounds("omar", trust.ContextRoot, time.Time{}, epoch)), "root-threshold")
	c.judgeRoot("R5", "bounds-over-unneeded", "a key that has run out, though its signature is wrong, is unknown", changed(bounds("oona", trust.ContextRoot, time.Time{}, epoch)))
	c.judgeRoot("R5", "bounds-none", "two hyphens", swap(omarLine+"\n", omarLine+" - -\n"), "root-syntax")
	c.judgeRoot("R5", "bounds-one-field", "one date", swap(omarLine+"\n", omarLine+" 2026-03-01T09:00:00Z\n"), "root-syntax")
	c.judgeRoot("R5", "bounds-form", "a day for a date", swap(omarLine+"\n", omarLine+" 2026-03-01 -\n"), "root-syntax")
	c.judgeRoot("R5", "bounds-empty", "from a date until the same", swap(omarLine+"\n", omarLine+" 2026-03-01T09:00:00Z 2026-03-01T09:00:00Z\n"), "root-validity")
	c.judgeRoot("R5", "bounds-backwards", "until a date before", swap(omarLine+"\n", omarLine+" 2026-03-01T09:00:00Z 2026-03-01T08:59:59Z\n"), "root-validity")
	c.judgeRoot("R5", "bounds-narinfo", "bounds of a track's key", changed(bounds("dev", trust.ContextNarinfo, epoch, time.Time{})), "root-validity")
	c.judgeRoot("R5", "bounds-checkpoint", "bounds of a ledger's key", changed(bounds("station", trust.ContextCheckpoint, epoch, time.Time{})), "root-validity")
	c.judgeRoot("R5", "bounds-witness", "bounds of a witness's key", changed(bounds("wim", trust.ContextWitness, epoch, time.Time{})), "root-validity")

	deputy := func(role trust.Role, deputy, principal string) func(r *trust.Root) {
		return func(r *trust.Root) {
			r.Deputies = append(r.Deputies, trust.Deputy{Role: role, Deputy: deputy, Principal: principal})
		}
	}
	both := func(changes ...func(r *trust.Root)) func(r *trust.Root) {
		return func(r *trust.Root) {
			for _, f := range changes {
				f(r)
			}
		}
	}
	c.judgeRoot("R6 R8", "deputy-and-another", "olga, whose deputy is oona, and omar", changed(deputy(trust.RoleOfficer, "oona", "olga")))
	c.judgeRoot("R6 R8", "deputy-and-principal", "omar is olga's deputy: they are one", changed(deputy(trust.RoleOfficer, "omar", "olga")), "root-threshold")
	c.judgeRoot("R6 R8", "two-deputies", "both are oona's deputies: they are one", changed(both(deputy(trust.RoleOfficer, "omar", "oona"), deputy(trust.RoleOfficer, "olga", "oona"), func(r *trust.Root) {
		r.Thresholds["root"], r.Thresholds["order"] = 1, 1
	})))
	c.judgeRoot("R6 R9", "two-deputies-range", "three officers of one seat cannot be two", changed(both(deputy(trust.RoleOfficer, "omar", "oona"), deputy(trust.RoleOfficer, "olga", "oona"))), "root-threshold-range", "root-threshold-range")
	c.judgeRoot("R6", "deputy-in-another-role", "a deputy as officer counts as reviewer like everybody", changed(both(deputy(trust.RoleOfficer, "oona", "olga"), func(r *trust.Root) {
		r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleReviewer, Person: "oona"})
	})))
	c.judgeRoot("R6", "deputy-without-role", "the deputy has not the role", changed(deputy(trust.RoleOfficer, "rada", "olga")), "root-deputy")
	c.judgeRoot("R6", "deputy-of-nobody", "the principal has not the role", changed(deputy(trust.RoleOfficer, "oona", "rada")), "root-deputy")
	c.judgeRoot("R6", "deputy-of-oneself", "olga is olga's deputy", changed(deputy(trust.RoleOfficer, "olga", "olga")), "root-deputy")
	c.judgeRoot("R6", "deputy-of-two", "two principals of one deputy", changed(both(deputy(trust.RoleOfficer, "oona", "olga"), deputy(trust.RoleOfficer, "oona", "omar"), func(r *trust.Root) {
		r.Thresholds["root"], r.Thresholds["order"] = 1, 1
	})), "root-deputy")
	c.judgeRoot("R6", "deputy-of-a-deputy", "a principal who is a deputy", changed(both(deputy(trust.RoleOfficer, "oona", "olga"), deputy(trust.RoleOfficer, "olga", "omar"), func(r *trust.Root) {
		r.Thresholds["root"], r.Thresholds["order"] = 1, 1
	})), "root-deputy")
	c.judgeRoot("R6", "deputy-unknown-role", "a role that there is not", with("deputy emperor oona olga"), "root-syntax")
	c.judgeRoot("R6", "deputy-field", "a field too few", with("deputy officer oona"), "root-syntax")

	c.judgeRoot("R7", "exclusive", "nobody is importer and reviewer", with("exclusive importer reviewer"))
	c.judgeRoot("R7", "exclusive-broken", "ines is both", sortBody(string(good)+"exclusive importer reviewer\nrole reviewer ines\n", rootHead), "root-exclusive")
	c.judgeRoot("R7", "exclusive-unsorted", "the greater role first", with("exclusive reviewer importer"), "root-syntax")
	c.judgeRoot("R7", "exclusive-itself", "a role and itself", with("exclusive officer officer"), "root-syntax")

	c.judgeRoot("R9", "threshold-no-root", "no threshold root", drop("threshold root 2"), "root-threshold-missing")
	c.judgeRoot("R9", "threshold-no-order", "no threshold order", drop("threshold order 2"), "root-threshold-missing")
	c.judgeRoot("R9", "threshold-no-track", "none of a track with a key", drop("threshold allowlist/dev 2"), "root-threshold-missing")
	c.judgeRoot("R9", "threshold-kind-alone", "one of a kind, none of the track", with("threshold allowlist/prod/source 2"), "root-threshold-missing")
	c.judgeRoot("R9", "threshold-kind", "a higher one of a kind", with("threshold allowlist/dev/derivation 3"))
	c.judgeRoot("R9", "threshold-kind-lower", "a lower one of a kind", with("threshold allowlist/dev/derivation 1"), "root-threshold-range")
	c.judgeRoot("R9", "threshold-kind-unknown", "of a kind that there is not", with("threshold allowlist/dev/gift 2"), "root-syntax")
	c.judgeRoot("R9", "threshold-unknown", "of nothing", with("threshold manifest 1"), "root-syntax")
	c.judgeRoot("R9", "threshold-zero", "0", swap("threshold root 2", "threshold root 0"), "root-threshold-range")
	c.judgeRoot("R9", "threshold-order-zero", "0 of orders", swap("threshold order 2", "threshold order 0"), "root-threshold-range")
	c.judgeRoot("R9", "threshold-above", "more than there are", swap("threshold root 2", "threshold root 4"), "root-threshold-range")
	c.judgeRoot("R9 T3", "threshold-far-above", "a number that is one, and far too great", swap("threshold root 2", "threshold root 4611686018427387904"), "root-threshold-range")
	c.judgeRoot("R9", "threshold-order-above", "more than have an order key", sortBody(strings.Replace(string(drop("key order oona "+c.e.Key("oona/order").VKey().String())), "threshold order 2", "threshold order 3", 1), rootHead), "root-threshold-range")
	c.judgeRoot("R9", "threshold-channel", "for channels, as many as there are", with("threshold allowlist/dev/channel 3"))
	c.judgeRoot("R9", "threshold-kind-above", "more reviewers than there are", with("threshold allowlist/dev/source 4"), "root-threshold-range")
	c.judgeRoot("R8 R9", "threshold-two-keys", "two keys of one person are one", sortBody(strings.Replace(string(good), "threshold root 2", "threshold root 4", 1)+"key root olga "+trusttest.Key(c.t, "olga/root", "second").VKey().String()+"\n", rootHead), "root-threshold-range")
	c.judgeRoot("R5 R9", "threshold-bounds", "one key has not begun on the root's date", sortBody(strings.Replace(strings.Replace(string(good), "threshold root 2", "threshold root 3", 1), omarLine, omarLine+" 2026-03-02T00:00:00Z -", 1), rootHead), "root-threshold-range")
	doubled := with("key root olga " + trusttest.Key(c.t, "olga/root", "second").VKey().String())
	c.add(vector{Name: "root/two-keys-of-one", Rules: []string{"R8"}, About: "two keys of one person sign", Do: "root", Pin: trust.Sum(doubled).String(),
		File: c.file("root/two-keys-of-one", trust.JoinNote(doubled, c.line(doubled, c.e.Key("olga/root")), c.line(doubled, trusttest.Key(c.t, "olga/root", "second")))), Codes: []string{"root-threshold"}})

	for _, p := range []struct{ name, line, code string }{
		{"unknown", "policy expires 30", "root-policy"},
		{"mldsa", "policy mldsa 0", ""},
		{"mldsa-without-keys", "policy mldsa 1", "root-policy"},
		{"mldsa-17", "policy mldsa 17", "root-policy"},
		{"silence", "policy silence 3650", ""},
		{"silence-0", "policy silence 0", "root-policy"},
		{"silence-3651", "policy silence 3651", "root-policy"},
		{"cosigned", "policy cosigned-dev 1", ""},
		{"cosigned-2", "policy cosigned-dev 2", "root-policy"},
		{"cosigned-0", "policy cosigned-dev 0", "root-policy"},
		{"cosigned-no-track", "policy cosigned-prod 1", "root-policy"},
		{"manifest", "policy manifest 1", ""},
		{"manifest-2", "policy manifest 2", "root-policy"},
		{"leading-zero", "policy silence 030", "root-policy"},
		{"empty", "policy silence", "root-syntax"},
	} {
		var codes []string
		if p.code != "" {
			codes = []string{p.code}
		}
		c.judgeRoot("R10", "policy-"+p.name, "`"+p.line+"`", with(p.line), codes...)
	}
	c.judgeRoot("R10", "policy-break-glass-0", "0 hours", swap("policy break-glass 48", "policy break-glass 0"), "root-policy")
	c.judgeRoot("R10", "policy-break-glass-169", "169 hours", swap("policy break-glass 48", "policy break-glass 169"), "root-policy")
	c.judgeRoot("R10", "quorum-none", "no quorum", drop("policy quorum 2"), "root-quorum")
	c.judgeRoot("R10", "quorum-0", "a quorum of 0", swap("policy quorum 2", "policy quorum 0"), "root-quorum")
	c.judgeRoot("R10", "quorum-17", "a quorum of 17", swap("policy quorum 2", "policy quorum 17"), "root-quorum")

	c.add(vector{Name: "root/pin-other", Rules: []string{"R11"}, About: "the paper has another fingerprint", Do: "root", Pin: trust.Fingerprint(trust.Sum(nil)), File: rootFile, Codes: []string{"root-pin"}})
	two := c.nextRoot(nil).Text()
	c.add(vector{Name: "root/first-is-2", Rules: []string{"R11"}, About: "version 2 where 1 must stand", Do: "root", Pin: trust.Sum(two).String(), File: c.file("root/2", c.note(two, officers...)), Codes: []string{"root-version"}})

	c.judgeNext("R12", "next-good", "version 2", c.note(two, officers...))
	replaced := c.nextRoot(func(r *trust.Root) { // oona gives way to otto
		for i, k := range r.Keys {
			if k.Owner == "oona" {
				r.Keys[i] = c.e.Key("otto/" + string(k.Context)).RootKey()
			}
		}
		for i, l := range r.Roles {
			if l.Person == "oona" {
				r.Roles[i].Person = "otto"
			}
		}
	}).Text()
	c.judgeNext("R12", "next-both", "one of each and one of both", c.note(replaced, "olga/root", "oona/root", "otto/root"))
	c.judgeNext("R12", "next-old-only", "the threshold of version 1 only", c.note(replaced, "olga/root", "oona/root"), "root-threshold")
	c.judgeNext("R12", "next-new-only", "the threshold of version 2 only", c.note(replaced, "olga/root", "otto/root"), "root-threshold")
	c.judgeNext("R12", "next-neither", "neither", c.note(replaced, "oona/root"), "root-threshold", "root-threshold")
	next := func(change func(r *trust.Root)) []byte { return c.note(c.nextRoot(change).Text(), officers...) }
	c.judgeNext("R12", "next-gap", "version 3", next(func(r *trust.Root) { r.Version = 3 }), "root-version")
	c.judgeNext("R12", "next-previous", "another previous", next(func(r *trust.Root) { r.Previous = trust.Sum(nil) }), "root-previous")
	c.judgeNext("R12", "next-same-date", "of the same date", next(func(r *trust.Root) { r.Date = epoch }))
	c.judgeNext("R12", "next-earlier", "a second earlier", next(func(r *trust.Root) { r.Date = epoch.Add(-time.Second) }), "root-date")
	c.judgeNext("R12", "next-enclave", "another enclave", next(func(r *trust.Root) {
		r.Enclave = "keep"
		r.Keys = slices.DeleteFunc(r.Keys, func(k trust.RootKey) bool { return k.Context == trust.ContextCheckpoint })
	}), "root-enclave")
	c.judgeNext("R12", "next-all", "all at once", c.note(c.nextRoot(func(r *trust.Root) { r.Previous, r.Date = trust.Sum(nil), epoch.Add(-time.Second) }).Text(), "olga/root"),
		"root-threshold", "root-threshold", "root-previous", "root-date")
	// The keys of version 1 that had run out when version 2 was made do not count for it, whatever version 2 says of them.
	until := c.root(bounds("omar", trust.ContextRoot, time.Time{}, epoch.Add(time.Hour))).Text()
	c.file("root/omar-leaves", c.note(until, officers...))
	after := c.nextRoot(func(r *trust.Root) { r.Previous = trust.Sum(until) }).Text()
	c.add(vector{Name: "root/next-run-out", Rules: []string{"R5", "R12"}, About: "omar's key had run out by version 1, which version 2 lengthens", Do: "root", Pin: trust.Sum(until).String(), Roots: []string{"root/omar-leaves"},
		File: c.file("root/next-run-out", c.note(after, officers...)), Codes: []string{"root-threshold"}})
	c.add(vector{Name: "root/next-not-run-out", Rules: []string{"R5", "R12"}, About: "dated a second earlier, it has not", Do: "root", Pin: trust.Sum(until).String(), Roots: []string{"root/omar-leaves"},
		File: c.file("root/next-not-run-out", c.note(c.nextRoot(func(r *trust.Root) { r.Previous, r.Date = trust.Sum(until), epoch.Add(time.Hour-time.Second) }).Text(), officers...))})

	// What would sort behind the lines that are put there is left out; that it is missing is not said of a text that is too long.
	var short []byte
	for _, line := range bytes.SplitAfter(good, []byte("\n")) {
		if !bytes.HasPrefix(line, []byte("threshold")) && !bytes.HasPrefix(line, []byte("role witness")) {
			short = append(short, line...)
		}
	}
	file := c.file("root/short", c.note(short, officers...))
	many := &grow{10_001 - bytes.Count(short, []byte("\n")) + rootHead, "role witness p{5}"}
	c.add(vector{Name: "root/too-many-lines", Rules: []string{"R13"}, About: "10,001 lines", Do: "root", Pin: trust.Sum(textOf(many.apply(c.files[file]))).String(), File: file, Grow: many, Codes: []string{"root-size"}})
	long := &grow{20_000, "role witness " + strings.Repeat("p", 22) + "-{5}"}
	long.Line += strings.Repeat("x", 30)
	c.add(vector{Name: "root/too-long", Rules: []string{"R13"}, About: "more than 1 MiB", Do: "root", Pin: trust.Sum(textOf(long.apply(c.files[file]))).String(), File: file, Grow: long, Codes: []string{"root-size"}})
}
