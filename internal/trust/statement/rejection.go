package statement

import (
	"fmt"
	"time"

	"sallyport/internal/trust"
)

// rejectionTitle is known to package trust, which signs the text with allowlist keys only.
const rejectionTitle = "sallyport rejection v1"

// A Rejection is a reviewer's no to a shipment: the text that an allowlist key signs, so that nobody can say it in the reviewer's place, the
// station included.
type Rejection struct {
	Enclave  string
	Shipment int64
	Manifest trust.Digest // of the manifest file
	Date     time.Time
	Reason   string // printable ASCII
}

// Text prints the rejection: the bytes that are signed.
func (r *Rejection) Text() []byte {
	return fmt.Appendf(nil, "%s\nenclave %s\nshipment %d\nmanifest %s\ndate %s\nreason %s\n",
		rejectionTitle, r.Enclave, r.Shipment, r.Manifest, trust.FormatDate(r.Date), r.Reason)
}

// Predicate signs the rejection and returns what the statement `rejected` says of it.
func (r *Rejection) Predicate(k trust.Signer) (map[string]any, error) {
	if err := trust.CheckReason(r.Reason); err != nil {
		return nil, err
	}
	line, err := trust.SignText(r.Text(), k)
	if err != nil {
		return nil, err
	}
	return map[string]any{"shipment": r.Shipment, "person": k.Person(), "date": trust.FormatDate(r.Date), "reason": r.Reason, "signature": line}, nil
}

// rejection checks the evidence in a statement `rejected`: the reviewer's own signature under the text that the statement describes.
func (s *Statement) rejection(root *trust.Root) error {
	subject := "statement " + s.Kind
	if len(s.Subjects) != 1 {
		return trust.Refuse("statement-predicate", subject, "%d subjects, want the manifest alone", len(s.Subjects))
	}
	// The form of each was checked when the statement was parsed.
	r := Rejection{Enclave: root.Enclave, Manifest: s.Subjects[0].SHA256}
	r.Shipment, _ = s.Predicate["shipment"].(int64)
	r.Reason, _ = s.Predicate["reason"].(string)
	person, _ := s.Predicate["person"].(string)
	line, _ := s.Predicate["signature"].(string)
	text, _ := s.Predicate["date"].(string)
	var err error
	if r.Date, err = trust.ParseDate(text); err != nil {
		return trust.Refuse("statement-predicate", subject, "date: %v", err)
	}
	key, err := trust.VerifyLine("rejection", r.Text(), line, root.Signers(trust.ContextAllowlist, r.Date))
	if err != nil {
		return err
	}
	if key.Person != person {
		return trust.Refuse("rejection-person", subject, "it names %q, but %s signed the rejection", trust.Clip(person), key.Person)
	}
	return nil
}
