package trust

import (
	"fmt"
	"strings"
	"time"
)

// MaxReason bounds the reason of a rejection.
const MaxReason = 500

// A Rejection is a reviewer's no to a shipment: the text that an allowlist key signs, so that nobody can say it in the reviewer's place, the
// station included.
type Rejection struct {
	Enclave  string
	Shipment int64
	Manifest Digest // of the manifest file
	Date     time.Time
	Reason   string // printable ASCII
}

// Text prints the rejection: the bytes that are signed.
func (r *Rejection) Text() []byte {
	return fmt.Appendf(nil, "%s\nenclave %s\nshipment %d\nmanifest %s\ndate %s\nreason %s\n",
		rejectionTitle, r.Enclave, r.Shipment, r.Manifest, FormatDate(r.Date), r.Reason)
}

// Predicate signs the rejection and returns what the statement `rejected` says of it.
func (r *Rejection) Predicate(k *Key) (map[string]any, error) {
	if !isReason(r.Reason) {
		return nil, fmt.Errorf("reason %.80q: want 1 to %d printable ASCII characters, no space at either end", r.Reason, MaxReason)
	}
	line, err := SignText(r.Text(), k)
	if err != nil {
		return nil, err
	}
	return map[string]any{"shipment": r.Shipment, "person": k.Person(), "date": FormatDate(r.Date), "reason": r.Reason, "signature": line}, nil
}

func isReason(s string) bool {
	return s != "" && len(s) <= MaxReason && strings.TrimSpace(s) == s && Printable(s, MaxReason) == s
}

// rejection checks the evidence in a statement `rejected`: the reviewer's own signature under the text that the statement describes.
func (s *Statement) rejection(root *Root) error {
	subject := "statement " + s.Kind
	if len(s.Subjects) != 1 {
		return Refuse("statement-predicate", subject, "%d subjects, want the manifest alone", len(s.Subjects))
	}
	// The form of each was checked when the statement was parsed.
	r := Rejection{Enclave: root.Enclave, Manifest: s.Subjects[0].SHA256}
	r.Shipment, _ = s.Predicate["shipment"].(int64)
	r.Reason, _ = s.Predicate["reason"].(string)
	person, _ := s.Predicate["person"].(string)
	line, _ := s.Predicate["signature"].(string)
	text, _ := s.Predicate["date"].(string)
	var err error
	if r.Date, err = ParseDate(text); err != nil {
		return Refuse("statement-predicate", subject, "date: %v", err)
	}
	key, err := VerifyLine("rejection", r.Text(), line, root.Signers(ContextAllowlist))
	if err != nil {
		return err
	}
	if key.Person != person {
		return Refuse("rejection-person", subject, "it names %q, but %s signed the rejection", clip(person), key.Person)
	}
	return nil
}
