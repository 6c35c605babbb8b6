package ceremony_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
	"sallyport/internal/trust/trusttest"
)

var date = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// officers are those of version 1; mallory is nobody.
var officers = []string{"olga", "oscar", "otto"}

func key(t testing.TB, name string) *trust.Key { return trusttest.Key(t, name, "") }

// first is version 1: two of three officers, two reviewers of one track.
func first(t testing.TB) *trust.Root {
	t.Helper()
	r := &trust.Root{Enclave: "citadel", Version: 1, Date: date, Policies: map[string]string{"quorum": "1"}, Thresholds: map[string]int{"root": 2, "order": 2}}
	for _, p := range officers {
		ceremony.Grant(r, p, trust.RoleOfficer)
		for _, c := range []string{"root", "order"} {
			ceremony.Enroll(r, key(t, p+"/"+c).RootKey())
		}
	}
	ceremony.Grant(r, "bela", trust.RoleBuilder)
	ceremony.Enroll(r, key(t, "bela/statement").RootKey())
	return r
}

func draft(t testing.TB, text []byte) *ceremony.Draft {
	t.Helper()
	d, err := ceremony.ParseDraft(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open signs and opens version 1.
func open(t testing.TB, r *trust.Root) *trust.Root {
	t.Helper()
	note, err := trust.SignNote(r.Text(), key(t, "olga/root"), key(t, "oscar/root"))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := trust.OpenRoot(note, trust.Sum(r.Text()))
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// signed is the line of a draft by a key, through a signature file.
func signed(t testing.TB, d *ceremony.Draft, name string) string {
	t.Helper()
	file, err := d.Sign(key(t, name))
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.Line(name, file)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func orders(t testing.TB, root *trust.Root, version int64) *trust.Orders {
	t.Helper()
	o := &trust.Orders{Enclave: root.Enclave, Version: version, Date: date.Add(time.Hour), Root: root.Version, Lost: []trust.Lost{{Shipment: version, Date: date, Reason: "burnt"}}}
	if version > 1 {
		o.Previous = trust.Sum([]byte("before"))
	}
	return o
}

func wantCode(t *testing.T, what string, err error, codes ...string) {
	t.Helper()
	rs, ok := trust.AsRefusals(err)
	if len(codes) == 0 {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	var have []string
	for _, r := range rs {
		have = append(have, r.Code)
		if r.Subject == "" || r.Detail == "" {
			t.Errorf("%s: a refusal that says too little: %+v", what, r)
		}
	}
	if !ok || !slices.Equal(have, codes) {
		t.Errorf("%s: %v, want %q", what, err, codes)
	}
}

// TestParseDraft: what is a draft, and what is not.
func TestParseDraft(t *testing.T) {
	r := first(t)
	o := orders(t, r, 1)
	for _, c := range []struct {
		text    []byte
		word    string
		context trust.Context
		subject string
		date    time.Time
	}{
		{r.Text(), ceremony.Root, trust.ContextRoot, "root version 1", date},
		{o.Text(), ceremony.Orders, trust.ContextOrder, o.Subject(), date.Add(time.Hour)},
	} {
		d := draft(t, c.text)
		if d.Word != c.word || d.Context() != c.context || d.Subject() != c.subject || !d.Date().Equal(c.date) || d.Digest() != trust.Sum(c.text) || (d.Root == nil) == (d.Orders == nil) {
			t.Errorf("%+v", d)
		}
	}
	note, err := trust.SignNote(r.Text(), key(t, "olga/root"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		text []byte
		code string
	}{
		{"nothing", nil, "draft-syntax"},
		{"an allowlist", []byte("sallyport allowlist v1\nenclave citadel\n"), "draft-syntax"},
		{"a signature file", draft(t, r.Text()).File("— olga/root AAAAAAAA"), "draft-syntax"},
		{"control characters", []byte("\x1b[2Jsallyport root v1\n"), "draft-syntax"},
		{"another version of the format", bytes.Replace(r.Text(), []byte(" v1\n"), []byte(" v2\n"), 1), "root-syntax"},
		{"half a root", r.Text()[:len(r.Text())/2], "root-syntax"},
		{"a root that was signed already", note, "root-syntax"},
		{"half of orders", o.Text()[:len(o.Text())-3], "orders-syntax"},
	} {
		d, err := ceremony.ParseDraft(c.text)
		rs, ok := trust.AsRefusals(err)
		if !ok || !rs.Has(c.code) {
			t.Errorf("%s: %v, want %s; %+v", c.name, err, c.code, d)
		} else if strings.ContainsAny(err.Error(), "\x1b") {
			t.Errorf("%s: it prints what it was given: %q", c.name, err)
		}
	}
}

// TestSign: a key signs a draft of its own context, and nothing else.
func TestSign(t *testing.T) {
	r := first(t)
	root, order := draft(t, r.Text()), draft(t, orders(t, r, 1).Text())
	for _, c := range []struct {
		d    *ceremony.Draft
		key  string
		good bool
	}{
		{root, "olga/root", true}, {root, "mallory/root", true}, // whether it counts is another question
		{root, "olga/order", false}, {root, "olga/allowlist", false}, {root, "olga/statement", false}, {root, "sallyport/citadel/inside", false},
		{order, "olga/order", true}, {order, "olga/root", false}, {order, "wanda/witness", false},
	} {
		file, err := c.d.Sign(key(t, c.key))
		if c.good {
			wantCode(t, c.key, err)
			continue
		}
		wantCode(t, c.key+" signs "+c.d.Subject(), err, "key-context")
		if file != nil {
			t.Errorf("%s: refused, and yet there is a file", c.key)
		}
	}
	// Signed twice, it is the same file: whoever was interrupted does it again.
	one, err := root.Sign(key(t, "olga/root"))
	two, err2 := root.Sign(key(t, "olga/root"))
	if err != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("%q\n%q", one, two)
	}
}

// TestSignatureFile: a file that is not whole, or of another draft, is refused by name, cut or flipped wherever it may be.
func TestSignatureFile(t *testing.T) {
	r := first(t)
	d := draft(t, r.Text())
	file, err := d.Sign(key(t, "olga/root"))
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.Line("x", file)
	if err != nil || !bytes.Equal(d.File(line), file) || trust.CheckLine(line) != nil {
		t.Fatal(line, err)
	}
	for n := range file {
		if _, err := d.Line("half.sig", file[:n]); err == nil {
			t.Errorf("cut after %d of %d bytes it is taken", n, len(file))
		} else {
			wantCode(t, fmt.Sprint(n), err, "signature-file")
		}
	}
	changed := draft(t, bytes.Replace(r.Text(), []byte("2026-03-01T09"), []byte("2026-03-01T10"), 1))
	for _, c := range []struct {
		name string
		file []byte
		code string
	}{
		{"more behind it", append(slices.Clone(file), '\n'), "signature-file"},
		{"two signatures", append(slices.Clone(file), line+"\n"...), "signature-file"},
		{"another title", bytes.Replace(file, []byte(" v1"), []byte(" v2"), 1), "signature-file"},
		{"carriage returns", bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")), "signature-file"},
		{"no signature", []byte("sallyport signature v1\nof root " + d.Digest().String() + "\nolga signs\n"), "signature-file"},
		{"longer than a signature may be", []byte("sallyport signature v1\n" + strings.Repeat("x", ceremony.MaxSignatureFile) + "\n\n"), "signature-file"},
		{"of orders with this digest", bytes.Replace(file, []byte("of root"), []byte("of orders"), 1), "signature-other"},
		{"of another text", bytes.Replace(file, []byte(d.Digest().String()), []byte(trust.Sum(nil).String()), 1), "signature-other"},
		{"of the draft before it was changed", mustSign(t, changed, "olga/root"), "signature-other"},
		{"with a second line that moves the cursor", bytes.Replace(file, []byte("of root"), []byte("of\x1b[1A root"), 1), "signature-other"},
	} {
		_, err := d.Line("some.sig", c.file)
		wantCode(t, c.name, err, c.code)
		if err != nil && strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: it prints what it was given: %q", c.name, err)
		}
	}
}

func mustSign(t *testing.T, d *ceremony.Draft, name string) []byte {
	t.Helper()
	file, err := d.Sign(key(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTallies: who counts, for which root, and who is missing.
func TestTallies(t *testing.T) {
	r1 := open(t, first(t))
	// Version 2: otto goes; pia comes, as a deputy of olga's, and nina.
	next := ceremony.Successor(r1, date.Add(time.Hour))
	ceremony.Dismiss(next, "otto", "")
	for _, p := range []string{"pia", "nina"} {
		ceremony.Grant(next, p, trust.RoleOfficer)
		ceremony.Enroll(next, key(t, p+"/root").RootKey())
		ceremony.Enroll(next, key(t, p+"/order").RootKey())
	}
	next.Deputies = append(next.Deputies, trust.Deputy{Role: trust.RoleOfficer, Deputy: "pia", Principal: "olga"})
	d := draft(t, next.Text())
	one := draft(t, first(t).Text())
	order := draft(t, orders(t, r1, 1).Text())
	type count struct {
		by         int64
		have       int
		signed, to string
	}
	for _, c := range []struct {
		name  string
		d     *ceremony.Draft
		in    *trust.Root
		keys  []string
		codes []string
		good  int
		want  []count
	}{
		{"nobody", d, r1, nil, nil, 0, []count{{1, 0, "", "olga oscar otto"}, {2, 0, "", "nina olga oscar pia"}}},
		{"one of both", d, r1, []string{"olga/root"}, nil, 1, []count{{1, 1, "olga", "oscar otto"}, {2, 1, "olga", "nina oscar"}}},
		{"a deputy beside the principal", d, r1, []string{"olga/root", "pia/root"}, nil, 2, []count{{1, 1, "olga", "oscar otto"}, {2, 1, "olga pia", "nina oscar"}}},
		{"one of the old, one of the new", d, r1, []string{"otto/root", "nina/root"}, nil, 2, []count{{1, 1, "otto", "olga oscar"}, {2, 1, "nina", "olga oscar pia"}}},
		{"two of both", d, r1, []string{"oscar/root", "olga/root"}, nil, 2, []count{{1, 2, "olga oscar", "otto"}, {2, 2, "olga oscar", "nina"}}},
		{"a stranger beside two", d, r1, []string{"oscar/root", "olga/root", "mallory/root"}, []string{"root-unsigned"}, 2, []count{{1, 2, "olga oscar", "otto"}, {2, 2, "olga oscar", "nina"}}},
		{"two strangers", d, r1, []string{"mallory/root", "mark/root"}, []string{"root-unsigned", "root-unsigned"}, 0, []count{{1, 0, "", "olga oscar otto"}, {2, 0, "", "nina olga oscar pia"}}},
		{"the first root, by itself", one, nil, []string{"olga/root", "otto/root"}, nil, 2, []count{{1, 2, "olga otto", "oscar"}}},
		{"orders", order, r1, []string{"olga/order"}, nil, 1, []count{{1, 1, "olga", "oscar otto"}}},
		{"orders by who is no officer yet", order, r1, []string{"olga/order", "nina/order"}, []string{"orders-unsigned"}, 1, []count{{1, 1, "olga", "oscar otto"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			lines := map[string]string{}
			for _, k := range c.keys {
				lines[k+".sig"] = signed(t, c.d, k)
			}
			tallies, good, err := c.d.Tallies(c.in, lines)
			wantCode(t, "tallies", err, c.codes...)
			if rs, ok := trust.AsRefusals(err); ok {
				for _, r := range rs {
					if !strings.HasSuffix(r.Subject, ".sig") {
						t.Errorf("the refusal does not name the file: %v", r)
					}
				}
			}
			if len(good) != c.good || len(tallies) != len(c.want) {
				t.Fatalf("%d good, %+v", len(good), tallies)
			}
			complete := true
			for i, w := range c.want {
				got := tallies[i]
				if got.By != w.by || got.Have != w.have || got.Want != 2 || strings.Join(got.Signed, " ") != w.signed || strings.Join(got.Missing, " ") != w.to || got.Met() != (w.have >= 2) {
					t.Errorf("%+v, want %+v", got, w)
				}
				complete = complete && w.have >= 2
			}
			if ceremony.Complete(tallies) != complete {
				t.Errorf("complete: %v", !complete)
			}
			// What is complete is taken by who opens it, and what is not is not.
			if c.d.Root != nil && len(good) > 0 {
				note := trust.JoinNote(c.d.Text, good...)
				if c.in == nil {
					_, err = trust.OpenRoot(note, c.d.Digest())
				} else {
					_, err = c.in.Next(note)
				}
				if (err == nil) != complete {
					t.Errorf("counted as complete: %v; opened: %v", complete, err)
				}
			}
		})
	}
}

// TestResumed: a ceremony that goes on after each signature, in whatever order, ends with the same document; a signature that comes twice, under two names, counts once.
func TestResumed(t *testing.T) {
	r1 := open(t, first(t))
	next := ceremony.Successor(r1, date)
	next.Policies["silence"] = "30"
	d := draft(t, next.Text())
	lines := map[string]string{}
	for i, k := range []string{"oscar/root", "oscar/root", "olga/root", "oscar/root"} {
		lines[fmt.Sprintf("%d-%s.sig", i, strings.ReplaceAll(k, "/", "-"))] = signed(t, d, k)
		tallies, good, err := d.Tallies(r1, maps.Clone(lines))
		if err != nil {
			t.Fatal(err)
		}
		if want := i >= 2; ceremony.Complete(tallies) != want {
			t.Errorf("after %d signatures complete is %v: %+v", i+1, !want, tallies)
		}
		if i < 2 && len(good) != 1 {
			t.Errorf("%d lines go into the note", len(good))
		}
		if i >= 2 {
			opened, err := r1.Next(trust.JoinNote(d.Text, good...))
			if err != nil || opened.Digest() != d.Digest() {
				t.Errorf("after %d: %v", i+1, err)
			}
		}
	}
	// The draft is changed under those who signed: nothing of theirs stands, whether brought as a file or as a line.
	next.Policies["silence"] = "300"
	changed := draft(t, next.Text())
	file := d.File(lines["0-oscar-root.sig"])
	_, err := changed.Line("oscar.sig", file)
	wantCode(t, "the file", err, "signature-other")
	forged := changed.File(lines["0-oscar-root.sig"]) // somebody mends the second line
	line, err := changed.Line("oscar.sig", forged)
	if err != nil {
		t.Fatal(err)
	}
	tallies, good, err := changed.Tallies(r1, map[string]string{"oscar.sig": line, "olga.sig": signed(t, changed, "olga/root")})
	wantCode(t, "the line", err, "root-signature")
	if len(good) != 1 || ceremony.Complete(tallies) || tallies[0].Have != 1 {
		t.Errorf("%+v", tallies)
	}
	// A signature by the same name and another key.
	_, _, err = d.Tallies(r1, map[string]string{"olga.sig": strings.TrimSuffix(strings.Split(string(mustFile(t, d)), "\n")[2], "\n")})
	wantCode(t, "olga's name, a stranger's key", err, "root-unsigned")
}

// mustFile is a draft signed by a key that bears olga's name, and is not hers.
func mustFile(t *testing.T, d *ceremony.Draft) []byte {
	t.Helper()
	file, err := d.Sign(trusttest.Key(t, "olga/root", "another"))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// TestKeysRunOut: a key counts for a draft by the draft's date, and not by anybody's clock.
func TestKeysRunOut(t *testing.T) {
	r := first(t)
	k := key(t, "oscar/root").RootKey()
	k.Until = date.Add(time.Hour)
	ceremony.Enroll(r, k)
	r1 := open(t, r)
	for _, c := range []struct {
		after time.Duration
		have  int
		codes []string
	}{{time.Minute, 2, nil}, {time.Hour, 1, []string{"root-unsigned"}}} {
		next := ceremony.Successor(r1, date.Add(c.after))
		next.Policies["silence"] = "30"
		d := draft(t, next.Text())
		tallies, _, err := d.Tallies(r1, map[string]string{"a": signed(t, d, "olga/root"), "b": signed(t, d, "oscar/root")})
		wantCode(t, c.after.String(), err, c.codes...)
		if tallies[0].Have != c.have {
			t.Errorf("%v: %+v", c.after, tallies)
		}
	}
}
