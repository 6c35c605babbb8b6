package shipment

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// Bounds of a shipment, from docs/spec/shipment.md.
const (
	MaxManifest = trust.MaxListSize // bytes of the manifest file
	MaxRecent   = 16
	MaxNumber   = int64(1) << 53
)

const manifestTitle = "sallyport manifest v1"

// A Recent names an earlier shipment, so that a missing one is noticed by whoever gets a later one.
type Recent struct {
	Number int64
	Date   time.Time
}

// A Manifest says what a shipment offers. The zero Previous means "none": only number 1 has none.
type Manifest struct {
	Enclave  string
	Number   int64
	Date     time.Time
	Previous trust.Digest
	Recent   []Recent     // newest first
	Items    []trust.Item // sorted
}

// Bytes returns the number of items' bytes.
func (m *Manifest) Bytes() int64 {
	var n int64
	for _, it := range m.Items {
		n += it.Size
	}
	return n
}

// Text prints the manifest: the bytes that are signed.
func (m *Manifest) Text() []byte {
	b := fmt.Appendf(nil, "%s\nenclave %s\nshipment %d\ndate %s\nprevious %s\n",
		manifestTitle, m.Enclave, m.Number, trust.FormatDate(m.Date), trust.FormatPrevious(m.Previous))
	for _, r := range m.Recent {
		b = fmt.Appendf(b, "recent %d %s\n", r.Number, trust.FormatDate(r.Date))
	}
	return trust.AppendItems(b, m.Items)
}

// Sign returns the manifest file: the text and the collector's signature. The items are sorted on the way.
func (m *Manifest) Sign(k *trust.Key) ([]byte, error) {
	trust.SortItems(m.Items)
	text := m.Text()
	if _, err := ParseManifest(text); err != nil {
		return nil, fmt.Errorf("a manifest that would be refused is not signed: %w", err)
	}
	return trust.SignNote(text, k)
}

// ParseManifest reads a manifest's text. It is strict: Text of the result is text again. Errors are [trust.Refusals] that list every fault.
func ParseManifest(text []byte) (*Manifest, error) {
	s, err := trust.NewScanner("manifest", text, MaxManifest)
	if err != nil {
		return nil, err
	}
	m := &Manifest{}
	if !s.Title(manifestTitle) {
		return nil, s.Err()
	}
	m.Enclave = s.Word("enclave")
	at := s.Offset()
	if m.Number = s.Number("shipment"); m.Number > MaxNumber {
		s.Refuse("number", at, "shipment %d is above %d", m.Number, MaxNumber)
	}
	m.Date = s.Date("date")
	m.Previous = s.Previous("previous", m.Number == 1)
	below := m.Number
	for s.Peek("recent") {
		line, at, _ := s.Next()
		number, date, _ := strings.Cut(strings.TrimPrefix(line, "recent "), " ")
		r := Recent{}
		if r.Number, err = trust.ParseNumber(number, MaxNumber); err != nil {
			s.Refuse("syntax", at, "recent: %v", err)
		}
		if r.Date, err = trust.ParseDate(date); err != nil {
			s.Refuse("syntax", at, "recent: %v", err)
		}
		if r.Number < 1 || r.Number >= below {
			s.Refuse("recent", at, "recent %d does not stand below %d", r.Number, below)
		}
		below = r.Number
		m.Recent = append(m.Recent, r)
		if len(m.Recent) > MaxRecent {
			s.Refuse("recent", at, "more than %d recent shipments", MaxRecent)
			break
		}
	}
	m.Items = s.Items(true)
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Text(), text) {
		return nil, trust.Refuse("manifest-not-canonical", "manifest", "the text does not print again to the same bytes")
	}
	return m, nil
}

// OpenManifest checks the collectors' signatures under a manifest file, for the enclave that root is of, and only then reads its lines.
// It also returns the collectors who signed.
func OpenManifest(file []byte, root *trust.Root) (*Manifest, []string, error) {
	if len(file) > MaxManifest {
		return nil, nil, trust.Refuse("manifest-size", "manifest", "%d bytes, more than %d", len(file), MaxManifest)
	}
	n, err := trust.OpenNote("manifest", file, MaxManifest, root.CollectorVerifiers())
	if err != nil {
		return nil, nil, err
	}
	m, err := ParseManifest(n.Text)
	if err != nil {
		return nil, nil, err
	}
	if m.Enclave != root.Enclave {
		return nil, nil, trust.Refuse("manifest-enclave", "manifest", "made for enclave %q, this is %q", m.Enclave, root.Enclave)
	}
	var persons []string
	for _, k := range n.Signers {
		if !slices.Contains(persons, k.Person) {
			persons = append(persons, k.Person)
		}
	}
	return m, persons, nil
}

// itemPath is where an item lies on a volume.
func itemPath(it trust.Item) string {
	h := it.SHA256.String()
	return "items/" + h[:2] + "/" + h
}
