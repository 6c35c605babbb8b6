package trust

import (
	"errors"
	"fmt"
	"strings"
)

// MaxRefusals is how many refusals a check lists before it stops looking.
const MaxRefusals = 200

// A Refusal says that a document, or a part of one, was judged and not
// accepted. Code is stable and meant for programs; Subject names what was
// judged; Detail is the evidence; Hint, if any, is the next step. Offset is
// the byte of the document where the fault stands, 0 where that has no meaning.
type Refusal struct {
	Code    string `json:"code"`
	Subject string `json:"subject"`
	Detail  string `json:"detail,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Offset  int64  `json:"offset,omitempty"`
}

// Refuse returns a refusal whose detail is formatted as by [fmt.Sprintf].
// Bytes that are not trusted belong under %q.
func Refuse(code, subject, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Subject: subject, Detail: fmt.Sprintf(format, args...)}
}

// WithHint sets the hint and returns r.
func (r *Refusal) WithHint(hint string) *Refusal {
	r.Hint = hint
	return r
}

// At sets the offset and returns r.
func (r *Refusal) At(offset int64) *Refusal {
	r.Offset = offset
	return r
}

// Error is the refusal on one line: subject, code, detail.
func (r *Refusal) Error() string {
	var b strings.Builder
	if r.Subject != "" {
		b.WriteString(r.Subject)
		b.WriteString(": ")
	}
	b.WriteString(r.Code)
	if r.Detail != "" {
		b.WriteString(": ")
		b.WriteString(r.Detail)
	}
	if r.Offset > 0 {
		fmt.Fprintf(&b, " (byte %d)", r.Offset)
	}
	return b.String()
}

// Refusals is everything that was found wrong at once. It is an error; each
// refusal is reachable through [errors.As].
type Refusals []*Refusal

// Error lists all refusals, one a line.
func (rs Refusals) Error() string {
	lines := make([]string, len(rs))
	for i, r := range rs {
		lines[i] = r.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the refusals to [errors.Is] and [errors.As].
func (rs Refusals) Unwrap() []error {
	errs := make([]error, len(rs))
	for i, r := range rs {
		errs[i] = r
	}
	return errs
}

// Add appends r.
func (rs *Refusals) Add(r ...*Refusal) { *rs = append(*rs, r...) }

// Merge appends the refusals in err and returns what in err is no refusal:
// nil if err is nil or was taken in whole.
func (rs *Refusals) Merge(err error) error {
	if err == nil {
		return nil
	}
	more, ok := AsRefusals(err)
	if !ok {
		return err
	}
	*rs = append(*rs, more...)
	return nil
}

// Full reports whether [MaxRefusals] has been reached.
func (rs Refusals) Full() bool { return len(rs) >= MaxRefusals }

// Err returns rs as an error, nil if there is nothing in it.
func (rs Refusals) Err() error {
	if len(rs) == 0 {
		return nil
	}
	return rs
}

// Codes returns the code of each refusal, in order.
func (rs Refusals) Codes() []string {
	codes := make([]string, len(rs))
	for i, r := range rs {
		codes[i] = r.Code
	}
	return codes
}

// Has reports whether one of the refusals has the code.
func (rs Refusals) Has(code string) bool {
	for _, r := range rs {
		if r.Code == code {
			return true
		}
	}
	return false
}

// AsRefusals returns the refusals that err consists of, one or many; ok is
// false for any other error.
func AsRefusals(err error) (rs Refusals, ok bool) {
	var many Refusals
	if errors.As(err, &many) {
		return many, true
	}
	var one *Refusal
	if errors.As(err, &one) {
		return Refusals{one}, true
	}
	return nil, false
}
