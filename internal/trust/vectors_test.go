package trust_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/quorum"
	"sallyport/internal/trust/statement"
	"sallyport/internal/trust/trusttest"
)

var update = flag.Bool("update", false, "write vectors/trust anew")

const (
	vectorsDir = "../../vectors/trust"
	specPage   = "../../docs/spec/trust.md"
)

// A vector is one case of cases.json. A verifier that knows nothing is given Pin and the chain Roots, then each of Accepted, which it must accept and
// raise its floor by; then it judges File, and the reason codes must be Codes, in any order, as often as they stand there: none means accepted.
type vector struct {
	Name  string   `json:"name"`
	Rules []string `json:"rules"` // labels of docs/spec/trust.md
	About string   `json:"about"` // what is right or wrong, for people

	Do       string   `json:"do"`                 // root, orders, allowlist, statement, quorum, no-orders, pin
	Pin      string   `json:"pin,omitempty"`      // as somebody typed it; of version 1 of the root
	Roots    []string `json:"roots,omitempty"`    // files
	Accepted []string `json:"accepted,omitempty"` // files of orders and allowlists, by their first line
	Follows  string   `json:"follows,omitempty"`  // a file: what is judged must be its successor
	File     string   `json:"file,omitempty"`
	Grow     *grow    `json:"grow,omitempty"`

	Origin     string   `json:"origin,omitempty"`     // statement: the ledger that it stands in
	Derivation string   `json:"derivation,omitempty"` // quorum: base name
	SHA256     string   `json:"sha256,omitempty"`     // quorum: of the derivation
	Now        string   `json:"now,omitempty"`        // quorum: the reference time
	Envelopes  []string `json:"envelopes,omitempty"`  // quorum: files
	Digest     string   `json:"digest,omitempty"`     // pin: does what was typed stand for it

	Codes []string `json:"codes"`
}

// A grow puts Count lines behind the text of File, for what is too long to lie in a folder: {N} in Line is the line's number, from 1, in N digits.
type grow struct {
	Count int    `json:"count"`
	Line  string `json:"line"`
}

var growField = regexp.MustCompile(`\{[0-9]+\}`)

func (g *grow) apply(note []byte) []byte {
	text, sigs, _ := bytes.Cut(note, []byte("\n\n"))
	b := append(bytes.Clone(text), '\n')
	for i := 1; i <= g.Count; i++ {
		b = append(b, growField.ReplaceAllStringFunc(g.Line, func(f string) string {
			var width int
			fmt.Sscanf(f, "{%d}", &width)
			return fmt.Sprintf("%0*d", width, i)
		})...)
		b = append(b, '\n')
	}
	return append(append(b, '\n'), sigs...)
}

// corpus collects the cases and the files that they name.
type corpus struct {
	t     testing.TB
	e     *trusttest.Enclave
	files map[string][]byte
	cases []vector

	rootPin trust.Digest // of rootFile
}

// Files that many cases share.
const (
	rootFile   = "root/1"
	ordersFile = "orders/1"
	listFile   = "allowlist/1"
)

func newCorpus(t testing.TB) *corpus {
	c := &corpus{t: t, e: trusttest.New(t), files: map[string][]byte{}}
	r := c.root(nil)
	c.rootPin = r.Digest()
	c.file(rootFile, c.note(r.Text(), officers...))
	c.file(ordersFile, c.note(c.orders(nil).Text(), orderers...))
	c.file(listFile, c.note(c.list(nil).Text(), reviewers...))
	return c
}

// Who meets the thresholds.
var (
	officers  = []string{"olga/root", "omar/root"}
	orderers  = []string{"olga/order", "omar/order"}
	reviewers = []string{"rada/allowlist", "remy/allowlist"}
)

func (c *corpus) file(name string, data []byte) string {
	c.t.Helper()
	if old, ok := c.files[name]; ok && !bytes.Equal(old, data) {
		c.t.Fatalf("two vectors are %s", name)
	}
	c.files[name] = append([]byte{}, data...)
	return name
}

func (c *corpus) add(v vector) {
	if v.Codes == nil {
		v.Codes = []string{}
	}
	slices.Sort(v.Codes)
	c.cases = append(c.cases, v)
}

// root is version 1 of the enclave's root, changed.
func (c *corpus) root(change func(r *trust.Root)) *trust.Root {
	r := c.e.Root()
	r.Policies[trust.PolicyBreakGlass] = "48"
	if change != nil {
		change(r)
	}
	return r
}

// nextRoot is the version that follows, changed.
func (c *corpus) nextRoot(change func(r *trust.Root)) *trust.Root {
	return c.root(func(r *trust.Root) {
		r.Version, r.Previous, r.Date = 2, c.rootPin, r.Date.Add(time.Hour)
		if change != nil {
			change(r)
		}
	})
}

const day = 24 * time.Hour

// orders are version 1, with a line of each kind, changed.
func (c *corpus) orders(change func(o *trust.Orders)) *trust.Orders {
	base := func(s string) string { return trusttest.Base("order", s) }
	o := &trust.Orders{
		Enclave: "citadel", Version: 1, Date: trusttest.Epoch.Add(time.Hour), Root: 1,
		BreakGlass: []trust.BreakGlass{{Track: "dev", Until: trusttest.Epoch.Add(2 * day), Item: trust.Item{SHA256: trust.Sum([]byte("fix")), Size: 77, Kind: trust.KindDerivation, Name: base("fix-1.1.drv")}, Date: trusttest.Epoch, Reason: "the server burns"}},
		Lost:       []trust.Lost{{Shipment: 7, Date: trusttest.Epoch, Reason: "the disc broke in the post"}},
		Recalls:    []trust.Recall{{SHA256: trust.Sum([]byte("bad")), Name: base("bad-1.0.tar.gz"), Date: trusttest.Epoch, Reason: "a back door,  says the advisory"}},
		Restored:   []trust.Restored{{Size: 99, Tree: trust.Sum([]byte("tree")), Date: trusttest.Epoch, Reason: "the disk died"}},
		Settled:    []trust.Settled{{Derivation: base("hello.drv"), KeyID: c.e.Key("bria/statement").ID(), Date: trusttest.Epoch, Reason: "bad memory"}},
		Downgrades: []trust.Downgrade{{Channel: "guix", Commit: strings.Repeat("0a", 20), Date: trusttest.Epoch, Reason: "the tip does not build"}},
		Channels:   []trust.Channel{{Name: "guix", URL: "https://git.guix.gnu.org/guix.git", Branch: "master", Commit: strings.Repeat("9e", 20), Signer: strings.Repeat("BB", 20), Date: trusttest.Epoch, Reason: "as the manual prints it"}},
		Excuses: []trust.Excuse{
			{Name: "august", Code: "signed-after-expiry", Channel: "guix", Until: trusttest.Epoch.Add(30 * day), Date: trusttest.Epoch, Reason: "the key was renewed late"},
			{Name: "one-merge", Code: "malformed-headers", Channel: "guix", Commit: strings.Repeat("0c", 20), Key: strings.Repeat("CC", 20), Until: trusttest.Epoch.Add(trust.MaxExcuse), Date: trusttest.Epoch, Reason: "seen and harmless"}},
	}
	if change != nil {
		change(o)
	}
	return o
}

// nextOrders are the version that follows, changed.
func (c *corpus) nextOrders(change func(o *trust.Orders)) *trust.Orders {
	before := c.orders(nil).Digest()
	return c.orders(func(o *trust.Orders) {
		o.Version, o.Previous, o.Date = 2, before, o.Date.Add(time.Hour)
		if change != nil {
			change(o)
		}
	})
}

// list is version 1 of an allowlist, changed: it was signed before there were orders.
func (c *corpus) list(change func(a *trust.Allowlist)) *trust.Allowlist {
	a := trusttest.Allowlist(4)
	a.Date = a.Date.Add(2 * time.Hour)
	a.Items = append(a.Items, trust.Item{SHA256: trust.Sum([]byte("derivation")), Size: 10, Kind: trust.KindDerivation, Name: helloDrv})
	trust.SortItems(a.Items)
	if change != nil {
		change(a)
	}
	return a
}

var helloDrv = trusttest.Base("drv", "hello-2.12.drv")

// nextList is the version that follows, changed.
func (c *corpus) nextList(change func(a *trust.Allowlist)) *trust.Allowlist {
	before := c.list(nil).Digest()
	return c.list(func(a *trust.Allowlist) {
		a.Version, a.Previous, a.Date = 2, before, a.Date.Add(time.Hour)
		if change != nil {
			change(a)
		}
	})
}

// line signs a text, whatever it is, and returns the signature line.
func (c *corpus) line(text []byte, key *trust.Key) string {
	sig, err := key.Sign(key.Context(), text)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.lineOf(key.VKey(), sig)
}

func (c *corpus) lineOf(k trust.VKey, sig []byte) string {
	return "— " + k.Name + " " + base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, k.Hash()), sig...))
}

func (c *corpus) note(text []byte, keys ...string) []byte {
	var lines []string
	for _, name := range keys {
		lines = append(lines, c.line(text, c.e.Key(name)))
	}
	return trust.JoinNote(text, lines...)
}

// edit replaces one place of a text and sorts its body again, which begins behind head lines.
func (c *corpus) edit(text []byte, head int, old, new string) []byte {
	return sortBody(trusttest.Replace(c.t, string(text), old, new), head)
}

// with adds a line to a text and sorts its body again.
func (c *corpus) with(text []byte, head int, line string) []byte {
	return sortBody(string(text)+line+"\n", head)
}

func sortBody(text string, head int) []byte {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	slices.Sort(lines[head:])
	return []byte(strings.Join(lines, ""))
}

func newCases(t testing.TB) *corpus {
	c := newCorpus(t)
	c.textCases()
	c.noteCases()
	c.rootCases()
	c.ordersCases()
	c.listCases()
	c.statementCases()
	c.quorumCases()
	c.attackCases()
	return c
}

// readme is for whoever writes a second implementation.
const readme = `# trust: documents that a verifier accepts or refuses, and why

What docs/spec/trust.md says, as files: notes, envelopes, and cases.json, an array of cases. Written by the tests of internal/trust
(` + "`go test ./internal/trust -run Vectors -update`" + `), which compare every byte on every run. ` + "`rules`" + ` are the labels of the page that a case is about.

A verifier that knows nothing plays a case like this:

1. It opens ` + "`roots`" + `, the first by ` + "`pin`" + ` (as a person typed it), each later one as the successor of the one before, and raises its floor by each. All must be accepted.
2. It opens ` + "`accepted`" + `, orders and allowlists by their first line, each under the newest root and the newest orders that it holds, and raises its floor by each. All must be accepted.
3. It judges ` + "`file`" + ` as ` + "`do`" + ` says:
   - ` + "`root`" + `: without roots as version 1 by ` + "`pin`" + `, else as the successor of the last;
   - ` + "`orders`, `allowlist`" + `: opens it, then, if ` + "`follows`" + ` is there, judges it as the successor of that file (whose signatures do not matter), then against its floor; the codes are those of the first of these steps that refuses;
   - ` + "`statement`" + `: parses the envelope, then verifies it as an entry of the ledger ` + "`origin`" + `;
   - ` + "`quorum`" + `: decides, by the last allowlist and the last orders accepted, at the reference time ` + "`now`" + `, on ` + "`derivation`" + ` with the digest ` + "`sha256`" + `, from ` + "`envelopes`" + `;
   - ` + "`no-orders`" + `: goes on without any orders;
   - ` + "`pin`" + `: reads ` + "`pin`" + ` as a fingerprint that was typed; the code is ` + "`root-pin`" + ` if it is none, or not that of ` + "`digest`" + `.
4. The reason codes must be ` + "`codes`" + `, as often as they stand there, in any order. None means: accepted.

Where a case has ` + "`grow`" + `, so many lines are first put behind the text of the file, before its empty line: in ` + "`line`, `{N}`" + ` is the line's number, from 1, in N digits.

All keys are made from their names and TEST-ONLY: ` + "`keys.json`" + ` has their seeds (32 bytes, hexadecimal), so that others can make more vectors. No root but these may name them.
`

// render returns the files of vectors/trust.
func (c *corpus) render() map[string][]byte {
	files := maps.Clone(c.files)
	var cases bytes.Buffer
	enc := json.NewEncoder(&cases)
	enc.SetEscapeHTML(false)
	for i, v := range c.cases {
		lead := ",\n"
		if i == 0 {
			lead = "[\n"
		}
		cases.WriteString(lead)
		if err := enc.Encode(v); err != nil {
			c.t.Fatal(err)
		}
		cases.Truncate(cases.Len() - 1)
	}
	cases.WriteString("\n]\n")
	files["cases.json"] = cases.Bytes()
	files["README.md"] = []byte(readme)
	seeds := map[string]string{}
	for _, name := range c.e.Names() {
		seeds[name] = fmt.Sprintf("%x", trusttest.Seed(name, ""))
	}
	b, err := json.MarshalIndent(seeds, "", "  ")
	if err != nil {
		c.t.Fatal(err)
	}
	files["keys.json"] = append(b, '\n')
	return files
}

// The files are those that the tests make now.
func TestVectorsCommitted(t *testing.T) {
	want := newCases(t).render()
	if *update {
		if err := os.RemoveAll(vectorsDir); err != nil {
			t.Fatal(err)
		}
		for name, data := range want {
			path := filepath.Join(vectorsDir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	have := readVectors(t)
	for name, data := range want {
		if !bytes.Equal(have[name], data) {
			t.Errorf("%s is not what is made now; run with -update and look at the difference", name)
		}
	}
	for name := range have {
		if want[name] == nil {
			t.Errorf("%s is left over", name)
		}
	}
}

func readVectors(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	err := filepath.WalkDir(vectorsDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(vectorsDir, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Every rule of the page has a case that keeps it or breaks it, and every case names rules of the page.
func TestVectorsCoverTheSpec(t *testing.T) {
	page, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	rules := map[string]int{}
	for _, m := range regexp.MustCompile(`\*\*([A-Z][0-9]+)\*\* `).FindAllSubmatch(page, -1) {
		rules[string(m[1])]++
	}
	if len(rules) < 40 {
		t.Fatalf("the page has only %d rules", len(rules))
	}
	for rule, n := range rules {
		if n != 1 {
			t.Errorf("%s stands %d times on the page", rule, n)
		}
	}
	covered := map[string]bool{
		// What cannot be told from documents alone; the packages named test it.
		"Q5": true, // internal/judge/admit: the paths of outputs follow from the derivation
		"V7": true, // internal/judge/admit: the ledger says what came into force
	}
	names := map[string]bool{}
	var cases []vector
	if err := json.Unmarshal(readVectors(t)["cases.json"], &cases); err != nil {
		t.Fatal(err)
	}
	for _, v := range cases {
		if names[v.Name] {
			t.Errorf("two cases are called %s", v.Name)
		}
		names[v.Name] = true
		for _, rule := range v.Rules {
			if rules[rule] == 0 {
				t.Errorf("%s is about %s, which is no rule of the page", v.Name, rule)
			}
			covered[rule] = true
		}
		if len(v.Rules) == 0 {
			t.Errorf("%s is about no rule", v.Name)
		}
	}
	for rule := range rules {
		if !covered[rule] {
			t.Errorf("no case is about %s", rule)
		}
	}
}

// The codes that the page and the cases have are those of the sources.
func TestSpecCodes(t *testing.T) {
	page, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	has := func(code string) bool { return bytes.Contains(page, []byte("`"+code+"`")) }
	known := func(code string) bool {
		_, half, _ := strings.Cut(code, "-")
		return has(code) || has("-"+half)
	}
	count := 0
	for _, pattern := range []string{"*.go", "quorum/*.go", "statement/*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			source, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`[^a-zA-Z.]Refuse\("([a-z-]+)"|trust\.Refuse\("([a-z-]+)"|[sp]\.Refuse\("([a-z-]+)"|doc ?\+ ?"(-[a-z-]+)"`).FindAllSubmatch(source, -1) {
				count++
				switch {
				case len(m[1])+len(m[2]) > 0:
					if code := string(m[1]) + string(m[2]); !known(code) && !strings.HasPrefix(code, "volume-") {
						t.Errorf("%s: %s stands not on the page", name, code)
					}
				case len(m[3]) > 0:
					if half := string(m[3]); !has("-"+half) && !has("root-"+half) && !has("orders-"+half) && !has("allowlist-"+half) {
						t.Errorf("%s: -%s stands not on the page", name, half)
					}
				default:
					if half := string(m[4]); !has(half) && half != "-key" {
						t.Errorf("%s: %s stands not on the page", name, half)
					}
				}
			}
		}
	}
	if count < 60 {
		t.Errorf("only %d refusals were found", count)
	}
	for _, v := range newCases(t).cases {
		for _, code := range v.Codes {
			if !known(code) {
				t.Errorf("%s: %s stands not on the page", v.Name, code)
			}
		}
	}
}

// play is a verifier that knows nothing but what a case gives it. It does what README.md says, and nothing else.
type play struct {
	files  map[string][]byte
	chains map[string]play // roots that were opened for an earlier case, to save the time
	root   *trust.Root
	floor  trust.Floor

	orders *trust.Orders
	list   *trust.Allowlist
}

func (p *play) run(v vector) error {
	if v.Do == "pin" {
		d, err := trust.ParseDigest(v.Digest)
		if err != nil {
			return err
		}
		if pin, err := trust.ParsePin(v.Pin); err != nil || !pin.Matches(d) {
			return trust.Refuse("root-pin", "root", "%v", err)
		}
		return nil
	}
	pin, err := trust.ParsePin(v.Pin)
	if err != nil {
		return err
	}
	chain := v.Pin + " " + strings.Join(v.Roots, " ")
	if known, ok := p.chains[chain]; ok {
		p.root, p.floor = known.root, known.floor
	} else {
		for _, name := range v.Roots {
			if err := p.nextRoot(p.files[name], pin); err != nil {
				return fmt.Errorf("%s: %v", name, err) // %v: a refusal here is none of the case
			}
		}
		p.chains[chain] = play{root: p.root, floor: p.floor}
	}
	for _, name := range v.Accepted {
		if err := p.accept(p.files[name]); err != nil {
			return fmt.Errorf("%s: %v", name, err)
		}
	}
	data := p.files[v.File]
	if v.Grow != nil {
		data = v.Grow.apply(data)
	}
	switch v.Do {
	case "root":
		return p.nextRoot(data, pin)
	case "orders":
		o, _, err := trust.OpenOrders(data, p.root)
		if err == nil && v.Follows != "" {
			var prev *trust.Orders
			if prev, err = trust.ParseOrders(textOf(p.files[v.Follows])); err != nil {
				return fmt.Errorf("%s: %v", v.Follows, err)
			}
			err = o.CheckSuccessor(prev)
		}
		if err == nil {
			_, err = p.floor.AcceptOrders(o)
		}
		if err == nil {
			err = o.CheckKept(p.orders)
		}
		return err
	case "allowlist":
		a, _, err := trust.OpenAllowlist(data, p.root, p.orders)
		if err == nil && v.Follows != "" {
			var prev *trust.Allowlist
			if prev, err = trust.ParseAllowlist(textOf(p.files[v.Follows])); err != nil {
				return fmt.Errorf("%s: %v", v.Follows, err)
			}
			err = a.CheckSuccessor(prev)
		}
		if err == nil {
			_, err = p.floor.AcceptAllowlist(a)
		}
		return err
	case "no-orders":
		return p.floor.CheckOrders(nil)
	case "statement":
		e, err := statement.ParseEnvelope(data)
		if err != nil {
			return err
		}
		_, _, err = e.Verify(p.root, v.Origin)
		return err
	case "quorum":
		sum, err := trust.ParseDigest(v.SHA256)
		if err != nil {
			return err
		}
		now, err := trust.ParseDate(v.Now)
		if err != nil {
			return err
		}
		var envelopes [][]byte
		for _, name := range v.Envelopes {
			envelopes = append(envelopes, p.files[name])
		}
		_, err = quorum.Decide(trust.Allowed{Root: p.root, Orders: p.orders, List: p.list, Now: now}, v.Derivation, sum, envelopes)
		return err
	}
	return fmt.Errorf("nothing is known of %q", v.Do)
}

func textOf(note []byte) []byte {
	text, _, _ := bytes.Cut(note, []byte("\n\n"))
	return append(bytes.Clone(text), '\n')
}

func (p *play) nextRoot(note []byte, pin trust.Pin) error {
	var r *trust.Root
	var err error
	if p.root == nil {
		r, err = trust.OpenRoot(note, pin)
	} else {
		r, err = p.root.Next(note)
	}
	if err != nil {
		return err
	}
	p.root = r
	p.floor, err = p.floor.AcceptRoot(r)
	return err
}

func (p *play) accept(note []byte) (err error) {
	if bytes.HasPrefix(note, []byte("sallyport orders")) {
		if p.orders, _, err = trust.OpenOrders(note, p.root); err == nil {
			p.floor, err = p.floor.AcceptOrders(p.orders)
		}
		return err
	}
	if p.list, _, err = trust.OpenAllowlist(note, p.root, p.orders); err == nil {
		p.floor, err = p.floor.AcceptAllowlist(p.list)
	}
	return err
}

// TestVectors plays every case that lies there, and expects the codes that stand there.
func TestVectors(t *testing.T) {
	files := readVectors(t)
	var cases []vector
	dec := json.NewDecoder(bytes.NewReader(files["cases.json"]))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 200 {
		t.Fatalf("%d cases", len(cases))
	}
	chains := map[string]play{}
	for _, v := range cases {
		t.Run(v.Name, func(t *testing.T) {
			if v.Grow != nil && v.Grow.Count > 200_000 && !*trust.Long {
				t.Skip("SKIPPED: a million lines; run with -long")
			}
			p := &play{files: files, chains: chains}
			trusttest.WantCodes(t, p.run(v), v.Codes...)
		})
	}
}
