package shipment

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// Bounds of a shipment, from docs/spec/shipment.md.
const (
	MaxManifest = trust.MaxListSize    // bytes of the manifest file, signatures included
	MaxRecent   = 16                   // recent lines
	MaxNumber   = int64(1) << 53       // of a shipment: what a statement can hold as an integer
	MaxBytes    = int64(trust.MaxSize) // of all items together
)

const (
	manifestWord  = "sallyport manifest v"
	manifestTitle = manifestWord + "1" // and trust.ManifestFormat
)

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

// Bytes returns the sum of the items' sizes. For a manifest that was parsed it is at most [MaxBytes].
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

// Sign returns the manifest file: the text and a signature by each of the collectors' keys, one of which at least is no ML-DSA-87 key: those stand
// beside another. The items are sorted on the way.
func (m *Manifest) Sign(keys ...trust.Signer) ([]byte, error) {
	if !slices.ContainsFunc(keys, func(k trust.Signer) bool { return k.VKey().Counts() }) {
		return nil, errors.New("a manifest is signed by a collector's key, and by ML-DSA-87 keys beside it; none alone")
	}
	for i, k := range keys {
		if slices.ContainsFunc(keys[:i], func(other trust.Signer) bool { return other.VKey().Equal(k.VKey()) }) {
			return nil, fmt.Errorf("key %s is given twice", k.Name())
		}
	}
	trust.SortItems(m.Items)
	text := m.Text()
	if _, err := ParseManifest(text); err != nil {
		return nil, fmt.Errorf("a manifest that would be refused is not signed: %w", err)
	}
	file, err := trust.SignNote(text, keys...)
	if err == nil && len(file) > MaxManifest {
		err = fmt.Errorf("a manifest of %d bytes, more than %d, would be refused", len(file), MaxManifest)
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}

// checkFormat tells a manifest of another format from nonsense: both sides of a gap are not brought up to date on one day.
func checkFormat(text []byte) error {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	number, ok := strings.CutPrefix(string(first), manifestWord)
	if !ok {
		return nil
	}
	n, err := trust.ParseNumber(number, trust.MaxSize)
	if err != nil || n == trust.ManifestFormat {
		return nil
	}
	r := trust.Refuse("manifest-format", "manifest", "it is of format %d; this program reads format %d", n, trust.ManifestFormat)
	if n > trust.ManifestFormat {
		return r.WithHint("the outside is newer than the enclave: bring the enclave up to date, or have officers name the format that it reads, 'trust policy manifest 1', and the outside write it")
	}
	return r.WithHint("the outside is older than any that this enclave can read: bring it up to date")
}

// ParseManifest reads a manifest's text. It is strict: Text of the result is text again. Errors are [trust.Refusals] that list every fault.
func ParseManifest(text []byte) (*Manifest, error) {
	s, err := trust.NewScanner("manifest", text, MaxManifest)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(text); err != nil {
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
	if below == 0 { // refused already
		below = MaxNumber + 1
	}
	for n := 1; s.Peek("recent"); n++ {
		line, at, _ := s.Next()
		if n > MaxRecent {
			if n == MaxRecent+1 {
				s.Refuse("recent", at, "more than %d recent shipments", MaxRecent)
			}
			continue
		}
		number, date, _ := strings.Cut(strings.TrimPrefix(line, "recent "), " ")
		var r Recent
		if r.Number, err = trust.ParseNumber(number, MaxNumber); err != nil {
			s.Refuse("syntax", at, "recent: %v", err)
		} else if r.Number < 1 || r.Number >= below {
			s.Refuse("recent", at, "recent %d does not stand below %d", r.Number, below)
		} else {
			below = r.Number
		}
		if r.Date, err = trust.ParseDate(date); err != nil {
			s.Refuse("syntax", at, "recent: %v", err)
		}
		m.Recent = append(m.Recent, r)
	}
	at = s.Offset()
	m.Items = s.Items(true)
	// A sum that wraps around would tell another total than the slip's reader adds up.
	left := MaxBytes
	for _, it := range m.Items {
		if left -= it.Size; left < 0 {
			s.Refuse("size", at, "the items have more than %d bytes together", MaxBytes)
			break
		}
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Text(), text) {
		return nil, trust.Refuse("manifest-not-canonical", "manifest", "the text does not print again to the same bytes")
	}
	return m, nil
}

// OpenManifest reads a manifest file and checks the collectors' signatures under it, by the keys that count on its date, for the enclave that root is of.
// It also returns the collectors who signed.
func OpenManifest(file []byte, root *trust.Root) (*Manifest, []string, error) {
	if len(file) > MaxManifest {
		return nil, nil, trust.Refuse("manifest-size", "manifest", "%d bytes, more than %d", len(file), MaxManifest)
	}
	text, _, err := trust.SplitNote("manifest", file, MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	// Its date says which keys count.
	m, err := ParseManifest(text)
	if err != nil {
		return nil, nil, err
	}
	n, err := trust.OpenNote("manifest", file, MaxManifest, root.CollectorVerifiers(m.Date))
	if err != nil {
		return nil, nil, err
	}
	if m.Enclave != root.Enclave {
		return nil, nil, trust.Refuse("manifest-enclave", "manifest", "made for enclave %q, this is %q", m.Enclave, root.Enclave)
	}
	persons, err := root.Collectors(n, m.Date)
	if err != nil {
		return nil, nil, err
	}
	return m, persons, nil
}

// itemPath is where an item lies on a volume. Items of one content share a file.
func itemPath(it trust.Item) string {
	h := it.SHA256.String()
	return "items/" + h[:2] + "/" + h
}
