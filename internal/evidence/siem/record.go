package siem

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// What a Record says of a statement's own signature.
const (
	Good      = "good"      // by a key that a root of the enclave has
	Bad       = "bad"       // it names such a key, and does not verify
	Unknown   = "unknown"   // by no such key
	Unchecked = "unchecked" // there was no root to check it by
)

// A Record is one entry of a ledger as it is told.
type Record struct {
	Type      string         `json:"type"` // "entry"
	Origin    string         `json:"origin"`
	Index     int64          `json:"index"`
	Kind      string         `json:"kind"`
	Time      string         `json:"time"`
	Signer    string         `json:"signer"` // whose key it is: a person, or "station"
	Key       string         `json:"key"`
	Signature string         `json:"signature"`
	Subjects  []Subject      `json:"subjects"`
	Predicate map[string]any `json:"predicate"`
	Leaf      string         `json:"leaf_hash"`       // SHA-256(0x00 || entry), in hexadecimal
	Fault     string         `json:"fault,omitempty"` // why it could not be read as a statement; Kind is then empty
}

// A Subject is what an entry is about.
type Subject struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Keys are the statement keys that a signature may be by; nil: none is checked.
type Keys []trust.VKey

// NewRecord makes the record of an entry that was proven to be in the ledger.
func NewRecord(origin string, index int64, leaf []byte, hash tlog.Hash, keys Keys) *Record {
	r := &Record{Type: "entry", Origin: origin, Index: index, Leaf: hex.EncodeToString(hash[:]), Signature: Unchecked, Subjects: []Subject{}, Predicate: map[string]any{}}
	e, err := statement.ParseEnvelope(leaf)
	if err != nil {
		// It is in the ledger all the same. Whoever reads on has to know that something is there.
		r.Fault = clean(strings.ReplaceAll(err.Error(), "\n", "; "), maxValue)
		return r
	}
	s := e.Unverified()
	r.Kind, r.Key, r.Predicate = s.Kind, e.KeyID(), s.Predicate
	r.Signer, _, _ = strings.Cut(r.Key, "/")
	r.Time, _ = s.Predicate["time"].(string)
	for _, sub := range s.Subjects {
		r.Subjects = append(r.Subjects, Subject{sub.Name, sub.SHA256.String()})
	}
	if keys != nil {
		_, _, err := e.VerifyKeys(keys.of(r.Key)...)
		r.Signature = verdict(err)
	}
	return r
}

// of are the keys with a name; a signature by none of them is by no key that is known.
func (keys Keys) of(id string) (list []trust.VKey) {
	name, _, _ := strings.Cut(id, "+")
	for _, k := range keys {
		if k.Name == name {
			list = append(list, k)
		}
	}
	return list
}

func verdict(err error) string {
	var refusal *trust.Refusal
	switch {
	case err == nil:
		return Good
	case errors.As(err, &refusal) && refusal.Code == "statement-key":
		return Unknown
	}
	return Bad
}

// JSON is the record as one line, without LF.
func (r *Record) JSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// text returns a member of the predicate that is a string.
func (r *Record) text(name string) string {
	s, _ := r.Predicate[name].(string)
	return s
}

// number returns a member of the predicate that is an integer.
func (r *Record) number(name string) int64 {
	n, _ := r.Predicate[name].(int64)
	return n
}

// names returns a member of the predicate that is an array of strings.
func (r *Record) names(name string) []string {
	list, _ := r.Predicate[name].([]any)
	var out []string
	for _, v := range list {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// Persons are all whom an entry names: its signer, and who did or decided what it tells.
func (r *Record) Persons() []string {
	all := []string{r.Signer}
	if p := r.text("person"); p != "" {
		all = append(all, p)
	}
	return append(all, r.names("persons")...)
}

// IsAbout says whether a name is that of a subject, or of the derivation that an
// entry speaks of: the whole of it, a part of it, or the SHA-256 of a subject.
// "shipment 1" is not a part of "shipment 10".
func (r *Record) IsAbout(name string) bool {
	within := func(s string) bool {
		i := strings.Index(s, name)
		if i < 0 || name == "" {
			return false
		}
		rest := s[i+len(name):]
		return rest == "" || !isDigit(rest[0]) || !isDigit(name[len(name)-1])
	}
	for _, s := range r.Subjects {
		if s.SHA256 == name || within(s.Name) {
			return true
		}
	}
	return within(r.text("derivation"))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// AlarmJSON says, as one line without LF, that the ledger itself is not to be believed any more.
func AlarmJSON(now time.Time, origin string, refusal *trust.Refusal) ([]byte, error) {
	return json.Marshal(struct {
		Type    string `json:"type"` // "alarm"
		Origin  string `json:"origin"`
		Time    string `json:"time"`
		Code    string `json:"code"`
		Subject string `json:"subject"`
		Detail  string `json:"detail"`
	}{"alarm", origin, trust.FormatDate(now), refusal.Code, refusal.Subject, refusal.Detail})
}
