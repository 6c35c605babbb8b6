package host

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func sample() *Report {
	sum := trust.Sum([]byte("x"))
	return &Report{Enclave: "keep", Host: "h1", Date: enclavetest.Epoch, Root: Document{2, sum}, Orders: Document{3, sum}, Contents: true, Items: 7,
		Lists:  map[string]Document{"dev": {4, sum}, "prod": {1, sum}},
		Counts: map[string]Count{Agreed: {5, 4}, Recalled: {1, 1}, Unknown: {1, 0}},
		Found:  []Found{{Recalled, sum, true, itemA}, {Unknown, trust.Digest{}, false, "/etc/pass wd%\n"}, {Agreed, sum, true, itemB}},
		Roots:  []FoundRoot{{Recalled, itemA, "/home/u/my profile-1-link"}, {Recalled, itemA, "/\xff"}},
		Unread: 2, Unseen: 1, Omitted: 9}
}

func TestReportText(t *testing.T) {
	t.Parallel()
	r := sample()
	text := r.Text()
	again, err := ParseReport(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if !bytes.Equal(again.Text(), text) {
		t.Errorf("%s\n%s", text, again.Text())
	}
	if again.Found[len(again.Found)-1].Name == "" || !slices.ContainsFunc(again.Found, func(f Found) bool { return f.Name == "/etc/pass wd%\n" && !f.Kept }) {
		t.Errorf("%+v", again.Found)
	}
	if again.Kept() != 1 || again.recalled() != 1 || again.others() != 1 || again.Orders.Version != 3 || !again.Contents || again.Rules != (Rules{}) {
		t.Errorf("%+v", again)
	}
	if again.Unread != 2 || again.Unseen != 1 || again.Omitted != 9 {
		t.Errorf("%+v", again)
	}
	empty := &Report{Enclave: "keep", Host: "h", Date: enclavetest.Epoch, Root: Document{1, trust.Sum(nil)}}
	if _, err := ParseReport(empty.Text()); err != nil {
		t.Error(err)
	}
}

// TestExampleOfTheSpec: what stands on the page is a report.
func TestExampleOfTheSpec(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/spec/host-report.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(page), "\n## Example\n\n")
	if !ok {
		t.Fatal("no example")
	}
	var text strings.Builder
	for line := range strings.Lines(example) {
		text.WriteString(strings.TrimPrefix(line, "    "))
	}
	r, err := ParseReport([]byte(text.String()))
	if err != nil || r.Kept() != 1 || len(r.Found) != 2 || len(r.Roots) != 1 {
		t.Errorf("%+v %v", r, err)
	}
	for _, s := range Statuses() {
		if !strings.Contains(string(page), "`"+s+"`") {
			t.Errorf("the page does not have the status %s", s)
		}
	}
}

func TestHostileReports(t *testing.T) {
	t.Parallel()
	good := string(sample().Text())
	tests := []struct{ name, from, to string }{
		{"another title", "v1\n", "v2\n"},
		{"no enclave", "enclave keep\n", ""},
		{"a host that is none", "host h1", "host H1"},
		{"a host with a slash", "host h1", "host ../h"},
		{"a date in another spelling", "2026-03-01T09:00:00Z", "2026-03-01T09:00:00+00:00"},
		{"no root", "root 2 ", "root 0 "},
		{"a root without a digest", "root 2 " + trust.Sum([]byte("x")).String(), "root 0 -"},
		{"orders 0 with a digest", "orders 3", "orders 0"},
		{"a choice that is none", "contents read", "contents guessed"},
		{"a number in another spelling", "items 7", "items 07"},
		{"too many", "items 7", "items 99999999"},
		{"an unknown line", "unread 2", "unheard 2"},
		{"an unknown status", "count recalled", "count excused"},
		{"a status that is unknown, of an item", "item agreed", "item fine"},
		{"a status that is unknown, of a root", "root recalled", "root fine"},
		{"more in use than there are", "count unknown 1 0", "count unknown 1 2"},
		{"a count of nothing", "count unknown 1 0", "count unknown 0 0"},
		{"0", "unread 2", "unread 0"},
		{"a digest that is none", "item recalled 2d", "item recalled zz"},
		{"kept or not", " kept ", " perhaps "},
		{"a field too few", "omitted 9", "omitted"},
		{"a field too many", "omitted 9", "omitted 9 9"},
		{"another escape", "%0a", "%0A"},
		{"an escape that is not needed", "wd%25", "%77d%25"},
		{"half an escape", "wd%25%0a", "wd%25%0"},
		{"an escape that is none", "wd%25%0a", "wd%25%zz"},
		{"a long path", "/home/u/my", "/" + strings.Repeat("x", 3*maxPath+1)},
		{"a track that is none", "allowlist dev", "allowlist DEV"},
		{"a track without a version", "allowlist dev 4 " + trust.Sum([]byte("x")).String(), "allowlist dev 0 -"},
		{"unsorted", "allowlist dev", "allowlist zzz"},
		{"twice", "omitted 9\n", "omitted 9\nomitted 9\n"},
		{"two of one", "omitted 9\n", "omitted 8\nomitted 9\n"},
		{"no end", "unseen 1\n", "unseen 1"},
		{"an empty line", "unseen 1\n", "unseen 1\n\n"},
		{"another byte", "unseen 1\n", "unseen 1\xff\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bad := strings.Replace(good, tt.from, tt.to, 1)
			if bad == good {
				t.Fatalf("no %q in\n%s", tt.from, good)
			}
			_, err := ParseReport([]byte(bad))
			if rs, ok := trust.AsRefusals(err); !ok || rs[0].Code != "report-syntax" {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add(sample().Text())
	f.Add((&Report{Enclave: "keep", Host: "h", Date: enclavetest.Epoch, Root: Document{1, trust.Sum(nil)}}).Text())
	f.Add([]byte("sallyport host-report v1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseReport(text)
		if err != nil {
			if _, ok := trust.AsRefusals(err); !ok {
				t.Fatal(err)
			}
			return
		}
		if !bytes.Equal(r.Text(), text) {
			t.Fatalf("%q\n%q", r.Text(), text)
		}
	})
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "%", "a b", "\xff\x00\n", "plain"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e := escape(s)
		if strings.ContainsAny(e, " \n") || e == "" {
			t.Fatalf("%q", e)
		}
		if len(s) > maxPath {
			s = s[:maxPath]
		}
		if back, err := unescape(e); err != nil || back != s {
			t.Fatalf("%q, %q, %v", s, back, err)
		}
	})
}

func TestRecord(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	z := s.e.Zone
	report := func() *Report { return w.mustCheck().Report() }
	first := report()
	c, err := Record(t.Context(), z, first.Text())
	if err != nil {
		t.Fatal(err)
	}
	if c.Host != "h1" || c.Orders != 0 || c.Items != 7 || c.Recalled+c.Unknown+c.Kept != 0 || c.Report != first.Digest() {
		t.Errorf("%+v", c)
	}
	if data, err := z.CAS.ReadAll(c.Report, MaxReportSize); err != nil || !bytes.Equal(data, first.Text()) {
		t.Error(err)
	}
	// Twice changes nothing.
	state, kinds := s.e.State(), s.e.Kinds()[statement.KindChecked]
	again, err := Record(t.Context(), z, first.Text())
	if err != nil || again.Entry != c.Entry || s.e.State() != state || s.e.Kinds()[statement.KindChecked] != kinds {
		t.Errorf("%+v %v", again, err)
	}
	// Who has it is told before it is recalled.
	newest, err := Reports(t.Context(), z)
	if err != nil || len(newest) != 1 {
		t.Fatalf("%v %v", newest, err)
	}
	for _, name := range []string{w.libOut, w.lib.Name, strangerPath("no")} {
		hosts, err := Holders(z, newest, trust.Digest{1}, name)
		if err != nil || (len(hosts) == 1) != (name != strangerPath("no")) {
			t.Errorf("%s: %v %v", name, hosts, err)
		}
	}
	s.order(1, trust.Digest{}, func(o *trust.Orders) { o.Recalls = []trust.Recall{recall(w.libOut, trust.Sum(w.libNar))} })
	second := report()
	second.Date = second.Date.Add(time.Second)
	if c, err = Record(t.Context(), z, second.Text()); err != nil {
		t.Fatal(err)
	}
	if c.Orders != 1 || c.Recalled != 3 || c.Kept != 3 {
		t.Errorf("%+v\n%s", c, second.Text())
	}
	newest, err = Reports(t.Context(), z)
	if err != nil || newest["h1"].Orders != 1 {
		t.Errorf("%v %v", newest, err)
	}
	entries := s.e.Entries()
	if last := entries[len(entries)-1]; last.Kind != statement.KindChecked || last.Subjects[0].Name != "orders 1" {
		t.Errorf("%+v", last)
	}
	tests := []struct {
		name   string
		change func(r *Report)
		codes  []string
	}{
		{"older", func(r *Report) { r.Date = r.Date.Add(-time.Hour) }, []string{"report-old"}},
		{"of the future", func(r *Report) { r.Date = r.Date.Add(maxAhead + 48*time.Hour) }, []string{"report-date"}},
		{"of another enclave", func(r *Report) { r.Enclave = "other" }, []string{"report-enclave"}},
		{"against another root", func(r *Report) { r.Root.SHA256[0]++ }, []string{"report-document"}},
		{"against orders that are not there", func(r *Report) { r.Orders.Version = 9 }, []string{"report-document"}},
		{"against other lists", func(r *Report) {
			r.Lists["dev"] = Document{1, trust.Sum(nil)}
			r.Lists["qa"] = Document{1, trust.Sum(nil)}
		}, []string{"report-document", "report-document"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseReport(second.Text())
			if err != nil {
				t.Fatal(err)
			}
			tt.change(r)
			before := fmt.Sprint(s.e.Blobs())
			_, err = Record(t.Context(), z, r.Text())
			suite.Want(t, err, tt.codes...)
			entries := s.e.Entries()
			if last := entries[len(entries)-1]; last.Kind != statement.KindRefused || fmt.Sprint(s.e.Blobs()) != before || len(s.e.Notes()) > 0 {
				t.Errorf("%+v", last)
			}
		})
	}
	t.Run("no report", func(t *testing.T) {
		_, err := Record(t.Context(), z, []byte("x"))
		suite.Want(t, err, "report-syntax")
	})
}

// TestKilledWhileRecording: what a dead run has stored goes, what it has entered stays.
func TestKilledWhileRecording(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	text := w.mustCheck().Report().Text()
	c, err := Record(t.Context(), s.e.Zone, text)
	if err != nil {
		t.Fatal(err)
	}
	// Killed between the entry and the end of the note.
	note := "sallyport pending blobs v1\n" + c.Report.String() + "\n"
	writeNote(t, s, note)
	later, err := ParseReport(text)
	if err != nil {
		t.Fatal(err)
	}
	later.Date = later.Date.Add(time.Second)
	if _, err := Record(t.Context(), s.e.Zone, later.Text()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.e.Zone.CAS.Has(c.Report); !ok {
		t.Error("a report that is in the ledger was swept away")
	}
	// Killed before the entry.
	stray := s.e.Put([]byte("a report that was not entered"))
	writeNote(t, s, "sallyport pending blobs v1\n"+stray.String()+"\n")
	later.Date = later.Date.Add(time.Second)
	if _, err := Record(t.Context(), s.e.Zone, later.Text()); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.e.Zone.CAS.Has(stray); ok {
		t.Error("what a dead run stored is there still")
	}
}
