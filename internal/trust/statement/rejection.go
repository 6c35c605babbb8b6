package statement

import (
	"fmt"
	"time"

	"sallyport/internal/trust"
)

// rejectionTitle is known to package trust, which signs the text with allowlist keys only.
const rejectionTitle = "sallyport rejection v1"

// A Rejection is a reviewer's no to a shipment, or to a submission: the text that an allowlist key signs, so that nobody can say it in the reviewer's place, the
// station included.
type Rejection struct {
	Enclave string
	Arrival int64        // a shipment's number, or below zero a submission's
	Digest  trust.Digest // of the manifest file; of a submission, of its item
	Date    time.Time
	Reason  string // printable ASCII
}

// Text prints the rejection: the bytes that are signed.
func (r *Rejection) Text() []byte {
	about := fmt.Sprintf("shipment %d\nmanifest %s", r.Arrival, r.Digest)
	if r.Arrival < 0 {
		about = fmt.Sprintf("submission %d\nitem %s", -r.Arrival, r.Digest)
	}
	return fmt.Appendf(nil, "%s\nenclave %s\n%s\ndate %s\nreason %s\n", rejectionTitle, r.Enclave, about, trust.FormatDate(r.Date), r.Reason)
}

// Predicate signs the rejection and returns the kind of the statement that tells of it, `rejected` of a shipment or `declined` of a submission, and what it says.
func (r *Rejection) Predicate(k trust.Signer) (kind string, predicate map[string]any, err error) {
	if err := trust.CheckReason(r.Reason); err != nil {
		return "", nil, err
	}
	line, err := trust.SignText(r.Text(), k)
	if err != nil {
		return "", nil, err
	}
	kind, member, number := KindRejected, "shipment", r.Arrival
	if number < 0 {
		kind, member, number = KindDeclined, "submission", -number
	}
	return kind, map[string]any{member: number, "person": k.Person(), "date": trust.FormatDate(r.Date), "reason": r.Reason, "signature": line}, nil
}

// rejection checks the evidence in a statement `rejected` or `declined`: the reviewer's own signature under the text that the statement describes.
func (s *Statement) rejection(root *trust.Root) error {
	subject := "statement " + s.Kind
	if len(s.Subjects) != 1 {
		return trust.Refuse("statement-predicate", subject, "%d subjects, want one", len(s.Subjects))
	}
	// The form of each was checked when the statement was parsed.
	r := Rejection{Enclave: root.Enclave, Digest: s.Subjects[0].SHA256}
	if r.Arrival, _ = s.Predicate["shipment"].(int64); s.Kind == KindDeclined {
		n, _ := s.Predicate["submission"].(int64)
		r.Arrival = -n
	}
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
