package shipment

import (
	"bytes"
	"fmt"

	"sallyport/internal/trust"
)

// MaxSlip is the size bound of a slip.
const MaxSlip = 1 << 10

const slipTitle = "sallyport slip v1"

// A Slip is what is known of a shipment from paper: which number, and which manifest.
type Slip struct {
	Enclave  string
	Number   int64
	Manifest trust.Digest // of the whole manifest file
	Items    int64        // lines of the manifest
	Bytes    int64        // sum of their sizes
}

// NewSlip makes the slip of a signed manifest file.
func NewSlip(m *Manifest, file []byte) *Slip {
	return &Slip{Enclave: m.Enclave, Number: m.Number, Manifest: trust.Sum(file), Items: int64(len(m.Items)), Bytes: m.Bytes()}
}

// Text prints the slip.
func (s *Slip) Text() []byte {
	return fmt.Appendf(nil, "%s\nenclave %s\nshipment %d\nmanifest %s\nitems %d\nbytes %d\n",
		slipTitle, s.Enclave, s.Number, s.Manifest, s.Items, s.Bytes)
}

// ParseSlip reads a slip; Text of the result is text again.
func ParseSlip(text []byte) (*Slip, error) {
	sc, err := trust.NewScanner("slip", text, MaxSlip)
	if err != nil {
		return nil, err
	}
	s := &Slip{}
	if !sc.Title(slipTitle) {
		return nil, sc.Err()
	}
	s.Enclave = sc.Word("enclave")
	at := sc.Offset()
	if s.Number = sc.Number("shipment"); s.Number > MaxNumber {
		sc.Refuse("number", at, "shipment %d is above %d", s.Number, MaxNumber)
	}
	at = sc.Offset()
	if d := sc.Field("manifest"); d != "" {
		if s.Manifest, err = trust.ParseDigest(d); err != nil {
			sc.Refuse("syntax", at, "manifest: %v", err)
		}
	}
	s.Items = sc.Number("items")
	at = sc.Offset()
	if n := sc.Field("bytes"); n != "" { // 0 is possible: an empty file is an item
		if s.Bytes, err = trust.ParseNumber(n, trust.MaxSize); err != nil {
			sc.Refuse("syntax", at, "bytes: %v", err)
		}
	}
	if _, at, more := sc.Next(); more {
		sc.Refuse("syntax", at, "text behind the last line")
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if !bytes.Equal(s.Text(), text) {
		return nil, trust.Refuse("slip-not-canonical", "slip", "the text does not print again to the same bytes")
	}
	return s, nil
}

// Matches compares the slip with a manifest that has the slip's digest: they must tell one story.
func (s *Slip) Matches(m *Manifest) trust.Refusals {
	var rs trust.Refusals
	if s.Enclave != m.Enclave {
		rs.Add(trust.Refuse("slip-mismatch", "slip", "enclave %q on the slip, %q in the manifest", s.Enclave, m.Enclave))
	}
	if s.Number != m.Number {
		rs.Add(trust.Refuse("slip-mismatch", "slip", "number %d on the slip, %d in the manifest", s.Number, m.Number))
	}
	if s.Items != int64(len(m.Items)) || s.Bytes != m.Bytes() {
		rs.Add(trust.Refuse("slip-mismatch", "slip", "%d items of %d bytes on the slip, %d of %d in the manifest", s.Items, s.Bytes, len(m.Items), m.Bytes()))
	}
	return rs
}
