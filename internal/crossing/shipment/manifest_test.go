package shipment

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
)

func TestManifestForm(t *testing.T) {
	d := newDelivery(t)
	good := d.manifest.Text()
	item := d.manifest.Items[0].String()
	lines := bytes.SplitAfter(good, []byte("\n"))
	swapped := bytes.Join([][]byte{bytes.Join(lines[:6], nil), lines[7], lines[6], bytes.Join(lines[8:], nil)}, nil)
	recents := func(n int) string {
		var b strings.Builder
		for i := n; i > 0; i-- {
			fmt.Fprintf(&b, "recent %d 2026-03-01T09:00:00Z\n", i)
		}
		return b.String()
	}
	big := func(sizes ...int64) string {
		var items []trust.Item
		for i, size := range sizes {
			items = append(items, trust.Item{SHA256: trust.Sum([]byte{byte(i)}), Size: size, Kind: trust.KindSource, Name: base(fmt.Sprint("big-", i))})
		}
		trust.SortItems(items)
		return string(trust.AppendItems(nil, items))
	}
	head, _, _ := strings.Cut(string(good), "recent 1")
	for _, c := range []struct {
		name  string
		text  []byte
		codes []string
	}{
		{"whole", good, nil},
		{"no recent", []byte(head + "item " + item + "\n"), nil},
		{"empty", nil, []string{"manifest-syntax"}},
		{"a newer format", replace(t, good, "sallyport manifest v1", "sallyport manifest v2"), []string{"manifest-format"}},
		{"a newer format, with lines of its own", append([]byte("sallyport manifest v2\nfrom mars\n"), good...), []string{"manifest-format"}},
		{"an older format", replace(t, good, "sallyport manifest v1", "sallyport manifest v0"), []string{"manifest-format"}},
		{"a format in another spelling", replace(t, good, "sallyport manifest v1", "sallyport manifest v01"), []string{"manifest-syntax"}},
		{"another title", replace(t, good, "sallyport manifest v1", "sallyport manifesto v1"), []string{"manifest-syntax"}},
		{"enclave in capitals", replace(t, good, "enclave demo", "enclave Demo"), []string{"manifest-syntax"}},
		{"number with a leading zero", replace(t, good, "shipment 2\n", "shipment 02\n"), []string{"manifest-syntax"}},
		{"number with a sign", replace(t, good, "shipment 2\n", "shipment +2\n"), []string{"manifest-syntax"}},
		{"number 0", replace(t, good, "shipment 2\n", "shipment 0\n"), []string{"manifest-syntax"}},
		{"largest number", replace(t, good, "shipment 2\n", "shipment 9007199254740992\n"), nil},
		{"number too large", replace(t, good, "shipment 2\n", "shipment 9007199254740993\n"), []string{"manifest-number"}},
		{"date in another zone", replace(t, good, "T10:00:00Z", "T10:00:00+00:00"), []string{"manifest-syntax"}},
		{"date that is none", replace(t, good, "2026-03-01T10", "2026-02-30T10"), []string{"manifest-syntax"}},
		{"previous missing", replace(t, good, "previous "+d.manifest.Previous.String(), "previous -"), []string{"manifest-previous"}},
		{"previous of the first", replace(t, replace(t, good, "shipment 2\n", "shipment 1\n"), "recent 1 2026-03-01T09:00:00Z\n", ""), []string{"manifest-previous"}},
		{"previous of zeros", replace(t, good, d.manifest.Previous.String(), strings.Repeat("0", 64)), []string{"manifest-syntax"}},
		{"no previous line", replace(t, good, "previous "+d.manifest.Previous.String()+"\n", ""), []string{"manifest-syntax"}},
		{"recent is itself", replace(t, good, "recent 1", "recent 2"), []string{"manifest-recent"}},
		{"recent 0", replace(t, good, "recent 1", "recent 0"), []string{"manifest-recent"}},
		{"recent twice", replace(t, good, "recent 1 2026-03-01T09:00:00Z\n", recents(1)+recents(1)), []string{"manifest-recent"}},
		{"recent with the oldest first", replace(t, replace(t, good, "shipment 2\n", "shipment 9\n"), "recent 1", "recent 1 2026-03-01T09:00:00Z\nrecent 2"), []string{"manifest-recent"}},
		{"recent with a leading zero", replace(t, good, "recent 1", "recent 01"), []string{"manifest-syntax"}},
		{"recent without date", replace(t, good, "recent 1 2026-03-01T09:00:00Z", "recent 1"), []string{"manifest-syntax"}},
		{"recent with two spaces", replace(t, good, "recent 1 ", "recent 1  "), []string{"manifest-syntax"}},
		{"16 recent", replace(t, replace(t, good, "shipment 2\n", "shipment 40\n"), "recent 1 2026-03-01T09:00:00Z\n", recents(16)), nil},
		{"20 recent", replace(t, replace(t, good, "shipment 2\n", "shipment 40\n"), "recent 1 2026-03-01T09:00:00Z\n", recents(20)), []string{"manifest-recent"}},
		{"recent behind an item", append(bytes.Clone(good), "recent 1 2026-03-01T09:00:00Z\n"...), []string{"manifest-syntax"}},
		{"no item", []byte(head), []string{"manifest-empty"}},
		{"item twice", replace(t, good, "item "+item+"\n", "item "+item+"\nitem "+item+"\n"), []string{"manifest-duplicate"}},
		{"items not sorted", swapped, []string{"manifest-unsorted"}},
		{"name twice", replace(t, good, base("jello-2.12.tar.gz"), base("hello-2.12.tar.gz")), []string{"manifest-duplicate-name"}},
		{"unknown kind", replace(t, good, " derivation ", " program "), []string{"manifest-kind"}},
		{"name that climbs", replace(t, good, "-jello-2.12.tar.gz", "-../jello"), []string{"manifest-name"}},
		{"size with a leading zero", replace(t, good, " 8 derivation", " 08 derivation"), []string{"manifest-syntax"}},
		{"two sizes of one content", replace(t, good, " 600 source "+base("hello-again"), " 601 source "+base("hello-again")), sized(d)},
		{"CR LF", bytes.ReplaceAll(good, []byte("\n"), []byte("\r\n")), []string{"manifest-syntax"}},
		{"no LF at the end", good[:len(good)-1], []string{"manifest-syntax"}},
		{"empty line", replace(t, good, "date ", "\ndate "), []string{"manifest-syntax"}},
		{"largest sum", []byte(head + big(1<<61, 1<<61)), nil},
		{"sum too large", []byte(head + big(1<<61, 1<<61, 1)), []string{"manifest-size"}},
		{"sum that wraps around", []byte(head + big(1<<62, 1<<62, 1<<62, 1<<62, 600)), []string{"manifest-size"}},
		{"several faults", replace(t, replace(t, good, "enclave demo", "enclave De"), " derivation ", " program "), []string{"manifest-syntax", "manifest-kind"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, err := ParseManifest(c.text)
			wantCodes(t, err, c.codes...)
			if err == nil && !bytes.Equal(m.Text(), c.text) {
				t.Errorf("prints as\n%s", m.Text())
			}
			if err != nil && m != nil {
				t.Error("a manifest in spite of the error")
			}
		})
	}
}

// sized are the codes for a second size of hello's content: where its line stands decides whether the order is broken too.
func sized(d *delivery) []string {
	items := d.manifest.Items
	if n := d.named("hello-again"); n+1 < len(items) && items[n+1].SHA256 == items[n].SHA256 {
		return []string{"manifest-item-size", "manifest-unsorted"}
	}
	return []string{"manifest-item-size"}
}

func TestManifestBound(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a manifest of 256 MiB is made")
	}
	_, err := ParseManifest(make([]byte, MaxManifest+1))
	wantCodes(t, err, "manifest-size")
	_, _, err = OpenManifest(make([]byte, MaxManifest+1), openDemo(t))
	wantCodes(t, err, "manifest-size")
}

func TestOpenManifest(t *testing.T) {
	root := openDemo(t)
	d := newDelivery(t)
	text := d.manifest.Text()
	sign := func(text []byte, keys ...string) []byte {
		var ks []trust.Signer
		for _, k := range keys {
			ks = append(ks, testKey(t, k))
		}
		file, err := trust.SignNote(text, ks...)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	good := sign(text, "carol/manifest")
	other := sign(replace(t, text, "shipment 2\n", "shipment 3\n"), "cedric/manifest")
	for _, c := range []struct {
		name    string
		file    []byte
		persons string
		codes   []string
	}{
		{"one collector", good, "carol", nil},
		{"two collectors", sign(text, "cedric/manifest", "carol/manifest"), "carol cedric", nil},
		{"a collector and a stranger", sign(text, "eve/manifest", "carol/manifest"), "carol", nil},
		{"a key outside of the root", sign(text, "eve/manifest"), "", []string{"manifest-unsigned"}},
		{"another key of the same name", sign(text, "carol/manifest")[:len(text)+1], "", []string{"manifest-note"}},
		{"a key of a person who is no collector", sign(text, "mallory/manifest"), "", []string{"manifest-unsigned"}},
		{"text changed", replace(t, good, "shipment 2\n", "shipment 3\n"), "", []string{"manifest-signature"}},
		{"one of two is of another text", append(bytes.Clone(good), other[bytes.LastIndex(other, []byte("\n\n"))+2:]...), "", []string{"manifest-signature"}},
		{"bad form under a good signature", sign(replace(t, text, "shipment 2\n", "shipment 02\n"), "carol/manifest"), "", []string{"manifest-syntax"}},
		{"another enclave", sign(replace(t, text, "enclave demo", "enclave other"), "carol/manifest"), "", []string{"manifest-enclave"}},
		{"bytes behind", append(bytes.Clone(good), '\n'), "", []string{"manifest-note"}},
		{"nothing", nil, "", []string{"manifest-note"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, persons, err := OpenManifest(c.file, root)
			wantCodes(t, err, c.codes...)
			if got := strings.Join(persons, " "); err == nil && got != c.persons {
				t.Errorf("signed by %q, want %q", got, c.persons)
			}
		})
	}
}

func TestSign(t *testing.T) {
	d := newDelivery(t)
	if _, err := d.manifest.Sign(testKey(t, "carol/sums")); err == nil {
		t.Error("a key for sums signed a manifest")
	}
	for name, spoil := range map[string]func(m *Manifest){
		"no items":   func(m *Manifest) { m.Items = nil },
		"no enclave": func(m *Manifest) { m.Enclave = "" },
		"year 10000": func(m *Manifest) { m.Date = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no number":  func(m *Manifest) { m.Number = 0 },
		"line feed":  func(m *Manifest) { m.Enclave = "demo\nshipment 9" },
		"sum":        func(m *Manifest) { m.Items[0].Size, m.Items[1].Size = 1<<62, 1<<62 },
	} {
		t.Run(name, func(t *testing.T) {
			m := newDelivery(t).manifest
			spoil(m)
			if _, err := m.Sign(testKey(t, "carol/manifest")); err == nil {
				t.Error("signed")
			}
		})
	}
}

func TestSlip(t *testing.T) {
	d := newDelivery(t)
	good := d.slip().Text()
	for _, c := range []struct {
		name  string
		text  []byte
		codes []string
	}{
		{"whole", good, nil},
		{"no bytes at all", replace(t, good, "bytes 1808\n", "bytes 0\n"), nil},
		{"empty", nil, []string{"slip-syntax"}},
		{"a manifest's title", replace(t, good, "slip v1", "manifest v1"), []string{"slip-syntax"}},
		{"leading zero", replace(t, good, "items 4\n", "items 04\n"), []string{"slip-syntax"}},
		{"no items", replace(t, good, "items 4\n", "items 0\n"), []string{"slip-syntax"}},
		{"number too large", replace(t, good, "shipment 2\n", "shipment 9007199254740993\n"), []string{"slip-number"}},
		{"bytes too large", replace(t, good, "bytes 1808\n", "bytes 4611686018427387905\n"), []string{"slip-syntax"}},
		{"digest in capitals", bytes.Replace(good, []byte(d.slip().Manifest.String()), []byte(strings.ToUpper(d.slip().Manifest.String())), 1), []string{"slip-syntax"}},
		{"long digest", replace(t, good, "manifest ", "manifest 00"), []string{"slip-syntax"}},
		{"line too many", append(bytes.Clone(good), "bytes 1808\n"...), []string{"slip-syntax"}},
		{"line missing", replace(t, good, "items 4\n", ""), []string{"slip-syntax", "slip-syntax"}},
		{"lines swapped", replace(t, replace(t, good, "items 4\n", ""), "bytes 1808\n", "bytes 1808\nitems 4\n"), []string{"slip-syntax", "slip-syntax"}},
		{"space at the end", replace(t, good, "enclave demo\n", "enclave demo \n"), []string{"slip-syntax"}},
		{"too long", append(bytes.Clone(good), bytes.Repeat([]byte("x"), MaxSlip)...), []string{"slip-size"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := ParseSlip(c.text)
			wantCodes(t, err, c.codes...)
			if err == nil && !bytes.Equal(s.Text(), c.text) {
				t.Errorf("prints as\n%s", s.Text())
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	good := newDelivery(f).manifest.Text()
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("shipment 2\n"), []byte("shipment 3\n"), 1))
	f.Add(bytes.Replace(good, []byte("shipment 2\n"), []byte("shipment 02\n"), 1))
	f.Add(bytes.Replace(good, []byte("recent 1"), []byte("recent 1 2026-03-01T09:00:00Z\nrecent 1"), 1))
	f.Add(bytes.Replace(good, []byte(" 600 "), []byte(" 4611686018427387904 "), -1))
	f.Add([]byte("sallyport manifest v1\nenclave e\nshipment 1\ndate 2026-01-01T00:00:00Z\nprevious -\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseManifest(text)
		if err != nil {
			if _, ok := trust.AsRefusals(err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if !bytes.Equal(m.Text(), text) {
			t.Errorf("%q prints as %q", text, m.Text())
		}
		if n := m.Bytes(); n < 0 || n > MaxBytes {
			t.Errorf("%d bytes", n)
		}
		// What was accepted has a slip that is accepted.
		s := NewSlip(m, text)
		if again, err := ParseSlip(s.Text()); err != nil || *again != *s {
			t.Errorf("slip %q: %v", s.Text(), err)
		}
		if rs := s.Matches(m); len(rs) > 0 {
			t.Errorf("its own slip: %v", rs)
		}
	})
}

func FuzzSlip(f *testing.F) {
	good := newDelivery(f).slip().Text()
	f.Add(good)
	f.Add(bytes.Replace(good, []byte("bytes 1808"), []byte("bytes 0"), 1))
	f.Add(bytes.Replace(good, []byte("items 4"), []byte("items  4"), 1))
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseSlip(text)
		if err != nil {
			if _, ok := trust.AsRefusals(err); !ok {
				t.Fatalf("%v is no refusal", err)
			}
			return
		}
		if !bytes.Equal(s.Text(), text) {
			t.Errorf("%q prints as %q", text, s.Text())
		}
	})
}
