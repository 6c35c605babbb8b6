package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/trust"
	writer "sallyport/internal/trust/statement"
)

// Documents that are bent at random, and mostly signed again by those who signed them, must be refused by the writer's packages and by
// this program, or by neither: for the same reasons where a good document was bent once, and for a common one where there may be several. What
// is bent are the documents of vectors/trust.

// judges are a case's context in both implementations.
type judges struct {
	vector
	*verifier
	theirRoot   *trust.Root
	theirOrders *trust.Orders
}

func newJudges(t *testing.T, c vector) *judges {
	j := &judges{vector: c, verifier: newVerifier(t, c.Pin)}
	j.prepare(c)
	for i, name := range c.Roots {
		var err error
		if i == 0 {
			pin, perr := trust.ParsePin(c.Pin)
			must(t, perr)
			j.theirRoot, err = trust.OpenRoot(j.read(name), pin)
		} else {
			j.theirRoot, err = j.theirRoot.Next(j.read(name))
		}
		must(t, err)
	}
	for _, name := range c.Accepted {
		if data := j.read(name); bytes.HasPrefix(data, []byte("sallyport orders")) {
			var err error
			j.theirOrders, _, err = trust.OpenOrders(data, j.theirRoot)
			must(t, err)
		}
	}
	return j
}

// judge returns the codes of both. A first root is pinned by what it is: else nothing of it would be looked at.
func (j *judges) judge(t *testing.T, data []byte) (ours, theirs []string) {
	var err, terr error
	switch j.Do {
	case "root":
		if len(j.chain) > 0 {
			_, err = openRoot(data, "root", "", j.chain)
			_, terr = j.theirRoot.Next(data)
			break
		}
		text, _, _ := bytes.Cut(data, []byte("\n\n"))
		if n, nerr := parseNote(data, "root", "root"); nerr == nil {
			text = []byte(n.text)
		}
		p, _ := parsePin(hexSum(text))
		pin, perr := trust.ParsePin(string(p))
		must(t, perr)
		_, err = openRoot(data, "root", p, nil)
		_, terr = trust.OpenRoot(data, pin)
	case "orders":
		var o *orders
		if o, err = openOrder(data, "orders"); err == nil {
			err = o.under(j.now()).err()
		}
		_, _, terr = trust.OpenOrders(data, j.theirRoot)
	case "allowlist":
		var a *allowlist
		if a, err = openAllowlist(data, "allowlist"); err == nil {
			_, wrong := a.under(j.now(), j.standing())
			err = wrong.err()
		}
		_, _, terr = trust.OpenAllowlist(data, j.theirRoot, j.theirOrders)
	case "statement":
		_, err = j.statement(data, j.Origin)
		var e *writer.Envelope
		if e, terr = writer.ParseEnvelope(data); terr == nil {
			_, _, terr = e.Verify(j.theirRoot, j.Origin)
		}
	}
	var wrong faults
	if err != nil && !errors.As(err, &wrong) {
		t.Fatal(err)
	}
	for _, f := range wrong {
		ours = append(ours, f.Code)
	}
	if terr != nil {
		refusals, ok := trust.AsRefusals(terr)
		if !ok {
			t.Fatal(terr)
		}
		theirs = refusals.Codes()
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	return slices.Compact(ours), slices.Compact(theirs)
}

// bender changes bytes at random, and signs again.
type bender struct {
	*rand.Rand
	keys   map[string]*tkey
	fields []string // of all documents
}

func (b *bender) pick(list []string) string { return list[b.IntN(len(list))] }

// bend changes one thing in a text of fields and lines.
func (b *bender) bend(text string) string {
	if text == "" {
		return "\n"
	}
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	i := b.IntN(len(lines))
	switch b.IntN(8) {
	case 0:
		at := b.IntN(len(text))
		return text[:at] + string([]byte{text[at] ^ 1<<b.IntN(8)}) + text[at+1:]
	case 1:
		at := b.IntN(len(text))
		return text[:at] + text[at+b.IntN(min(3, len(text)-at)):]
	case 2:
		lines = slices.Delete(lines, i, i+1)
	case 3:
		lines = slices.Insert(lines, b.IntN(len(lines)), lines[i])
	case 4:
		j := b.IntN(len(lines))
		lines[i], lines[j] = lines[j], lines[i]
	default: // most often a field, by one of another place or document, so that much else stays right
		f := strings.Split(strings.TrimSuffix(lines[i], "\n"), " ")
		f[b.IntN(len(f))] = b.pick(b.fields)
		lines[i] = strings.Join(f, " ") + "\n"
	}
	return strings.TrimSuffix(strings.Join(lines, ""), "\n") + "\n"
}

// inOrder sorts the lines behind the head, of each kind by themselves.
func inOrder(text string) string {
	head, body, ok := strings.Cut(text, "\nprevious ")
	if !ok {
		return text
	}
	lines := strings.SplitAfter(body, "\n")
	slices.Sort(lines[1:])
	return head + "\nprevious " + strings.Join(lines, "")
}

func (b *bender) note(data []byte, times int) []byte {
	text, sigs, ok := strings.Cut(string(data), "\n\n")
	if !ok || b.IntN(6) == 0 {
		return []byte(b.bend(string(data)))
	}
	text += "\n"
	for range times {
		text = b.bend(text)
	}
	if times > 1 && b.IntN(2) == 0 {
		text = inOrder(text)
	}
	if b.IntN(8) == 0 {
		return []byte(text + "\n" + sigs)
	}
	var keys []*tkey
	for line := range strings.Lines(sigs) {
		if f := strings.Fields(line); len(f) == 3 && b.keys[f[1]] != nil {
			keys = append(keys, b.keys[f[1]])
		}
	}
	return noteOf(text, keys...)
}

func (b *bender) envelope(data []byte, times int) []byte {
	st := &statement{}
	if _, err := st.parse(data); err != nil || b.IntN(6) == 0 {
		return []byte(b.bend(string(data)))
	}
	payload := st.payload
	for range times {
		parts := strings.SplitAfter(payload, ",")
		i, j := b.IntN(len(parts)), b.IntN(len(parts))
		switch b.IntN(7) {
		case 0:
			payload = strings.TrimSuffix(b.bend(payload), "\n")
			continue
		case 1:
			parts[i], parts[j] = parts[j], parts[i]
		case 2:
			parts = slices.Delete(parts, i, i+1)
		case 3:
			parts = slices.Insert(parts, j, parts[i])
		default: // a value
			name, value, ok := strings.Cut(parts[i], ":")
			end := strings.TrimLeft(value, `"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+=/:. `)
			values := []string{`0`, `-1`, `true`, `null`, `""`, `[]`, `{}`, `"a"`, `[1]`, `["a"]`, `{"a":1}`, `01`, `9007199254740993`, `"` + b.pick(b.fields) + `"`, `"/gnu/store/` + b.pick(b.fields) + `"`}
			if ok {
				parts[i] = name + ":" + b.pick(values) + end
			}
		}
		payload = strings.Join(parts, "")
		if len(payload) == 0 {
			payload = "{}"
		}
	}
	name, _, _ := strings.Cut(st.keyid, "+")
	if k := b.keys[name]; k != nil {
		return seal(k, payload)
	}
	return data
}

// corpus reads the cases that can be bent, the keys that signed them, and all of their fields.
func corpus(t testing.TB) (cases []vector, b *bender) {
	data, err := os.ReadFile(filepath.Join(vectors, "cases.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &cases))
	seeds := map[string]string{}
	data, err = os.ReadFile(filepath.Join(vectors, "keys.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &seeds))
	b = &bender{keys: map[string]*tkey{}}
	for name, seed := range seeds {
		raw, err := hex.DecodeString(seed)
		must(t, err)
		b.keys[name] = &tkey{name: name, alg: 1, priv: ed25519.NewKeyFromSeed(raw)}
	}
	cases = slices.DeleteFunc(cases, func(c vector) bool {
		return c.Grow != nil || !slices.Contains([]string{"root", "orders", "allowlist", "statement"}, c.Do)
	})
	seen := map[string]bool{"-": true, "0": true, "1": true, "2": true, "3": true, "": true}
	for _, c := range cases {
		data, err := os.ReadFile(filepath.Join(vectors, c.File))
		must(t, err)
		text, _, _ := strings.Cut(string(data), "\n\n")
		if c.Do != "statement" && len(text) < 1<<16 {
			for _, f := range strings.Fields(text) {
				seen[f] = true
			}
		}
	}
	for f := range seen {
		b.fields = append(b.fields, f)
	}
	slices.Sort(b.fields)
	return cases, b
}

// news tells which lines a document has lost and got.
func news(before, after []byte) (text string) {
	old, now := strings.Split(string(before), "\n"), strings.Split(string(after), "\n")
	for _, line := range old {
		if !slices.Contains(now, line) && !strings.HasPrefix(line, "—") {
			text += "- " + line + "\n"
		}
	}
	for i, line := range now {
		if (!slices.Contains(old, line) || slices.Contains(now[:i], line)) && !strings.HasPrefix(line, "—") {
			text += fmt.Sprintf("+ %d: %q\n", i+1, line)
		}
	}
	return text
}

func differ(t *testing.T, j *judges, b *bender, rounds int) (accepted int) {
	data := j.read(j.File)
	for range rounds {
		bent := b.note
		if j.Do == "statement" {
			bent = b.envelope
		}
		times := 1 + b.IntN(3)
		doc := bent(data, times)
		ours, theirs := j.judge(t, doc)
		common := slices.ContainsFunc(ours, func(code string) bool { return slices.Contains(theirs, code) })
		if !slices.Equal(ours, theirs) && (!common || times == 1 && len(j.Codes) == 0) {
			t.Errorf("the auditor says %q, the writer %q, of %s with\n%s", ours, theirs, j.File, news(data, doc))
			return
		}
		if len(ours) == 0 {
			accepted++
		}
	}
	return accepted
}

func TestDifferential(t *testing.T) {
	rounds := 3
	if testing.Short() {
		rounds = 1
	}
	cases, b := corpus(t)
	var accepted, all int
	for i, c := range cases {
		b.Rand = rand.New(rand.NewPCG(1, uint64(i)))
		t.Run(c.Name, func(t *testing.T) {
			accepted += differ(t, newJudges(t, c), b, rounds)
			all += rounds
		})
	}
	if accepted < all/100 || accepted > all/2 {
		t.Errorf("%d of %d documents were accepted: the changes are not what they should be", accepted, all)
	}
	t.Logf("%d of %d documents were accepted", accepted, all)
}

// FuzzDifferential seeks a document that only one of the implementations takes, or that both refuse for other reasons.
func FuzzDifferential(f *testing.F) {
	cases, b := corpus(f)
	f.Add(uint64(1), 0)
	f.Fuzz(func(t *testing.T, seed uint64, which int) {
		b := &bender{rand.New(rand.NewPCG(seed, 0)), b.keys, b.fields}
		differ(t, newJudges(t, cases[(which%len(cases)+len(cases))%len(cases)]), b, 1)
	})
}

// Every member of every kind of statement, with every sort of value.
func TestDifferentialMembers(t *testing.T) {
	cases, b := corpus(t)
	good := slices.DeleteFunc(cases, func(c vector) bool { return c.Do != "statement" || len(c.Codes) > 0 })
	values := []string{`0`, `1`, `-1`, `9007199254740992`, `9007199254740993`, `true`, `""`, `" "`, `"a"`, `"A"`, `"1"`, `"é"`, `[]`, `{}`, `[1]`, `["a"]`, `["b","a"]`, `[["a"]]`, `{"a":0}`, `{"a":-1}`, `{"a":"b"}`, `{"a":["b"]}`,
		`[{"code":"a","subject":"b"}]`, `[{"code":"a","subject":1}]`, `[{"code":"a"}]`, `[{"code":"a","more":1,"subject":"b"}]`, `"root"`, `"orders"`, `"2026-03-01T12:00:00Z"`, `"2026-02-30T12:00:00Z"`, `"sallyport/citadel/staging"`, `"sallyport/citadel"`,
		`"/gnu/store/pln21119d0p5zs8p00xch64flvf1w4iy-hello"`, `"/gnu/store/pln21119d0p5zs8p00xch64flvf1w4ie-hello"`, `"` + hexSum(nil) + `"`, `"` + strings.Repeat("0", 64) + `"`, `"— a/root AAAAAAA="`, `"— a/root AAAAAA=="`, `"— a+b/root AAAAAAA="`}
	if len(good) < len(kinds) {
		t.Fatalf("only %d good statements", len(good))
	}
	for _, c := range good {
		j := newJudges(t, c)
		st := &statement{}
		if _, err := st.parse(j.read(c.File)); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(st.keyid, "+")
		for _, m := range st.predicate {
			for _, value := range values {
				payload := strings.Replace(st.payload, `"`+m.name+`":`+m.json, `"`+m.name+`":`+value, 1)
				if ours, theirs := j.judge(t, seal(b.keys[name], payload)); !slices.Equal(ours, theirs) {
					t.Errorf("%s with %s %s: the auditor says %q, the writer %q", c.Name, m.name, value, ours, theirs)
				}
			}
		}
	}
}
