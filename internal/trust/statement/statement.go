package statement

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"sallyport/internal/trust"
)

// MaxEnvelopeSize is the largest envelope: its length fits the 16 bits that a
// ledger has for it.
const MaxEnvelopeSize = 65_535

const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	kindPrefix    = "urn:sallyport:statement:"
	kindSuffix    = ":1"
)

// A Subject is what a statement is about.
type Subject struct {
	Name   string
	SHA256 trust.Digest
}

// A Statement is what somebody did: an in-toto Statement v1 of the type
// urn:sallyport:statement:KIND:1. Every predicate has `time` and `zone`.
type Statement struct {
	Kind      string
	Subjects  []Subject
	Predicate map[string]any // parsed: string, int64, bool, []any, map[string]any
}

// Payload prints the statement in its one spelling, subjects sorted by name.
func (s *Statement) Payload() ([]byte, error) {
	subjects := slices.Clone(s.Subjects)
	slices.SortFunc(subjects, func(a, b Subject) int { return strings.Compare(a.Name, b.Name) })
	b := []byte(`{"_type":"` + statementType + `","subject":[`)
	var err error
	for i, sub := range subjects {
		if i > 0 {
			b = append(b, ',')
			if sub.Name == subjects[i-1].Name {
				return nil, fmt.Errorf("two subjects are named %q", trust.Clip(sub.Name))
			}
		}
		b = append(b, `{"name":`...)
		if b, err = appendString(b, sub.Name); err != nil {
			return nil, err
		}
		b = append(b, `,"digest":{"sha256":"`+sub.SHA256.String()+`"}}`...)
	}
	if len(subjects) == 0 {
		return nil, errors.New("no subject")
	}
	b = append(b, `],"predicateType":`...)
	if b, err = appendString(b, kindPrefix+s.Kind+kindSuffix); err != nil {
		return nil, err
	}
	b = append(b, `,"predicate":`...)
	if s.Predicate == nil {
		return nil, errors.New("no predicate")
	}
	if b, err = appendObject(b, s.Predicate, 1); err != nil {
		return nil, err
	}
	return append(b, '}'), nil
}

// parsePayload parses what Payload prints.
func parsePayload(b []byte) (*Statement, error) {
	d := &decoder{s: string(b)}
	s := new(Statement)
	d.literal(`{"_type":"` + statementType + `","subject":[`)
	for d.err == nil {
		var sub Subject
		d.literal(`{"name":`)
		sub.Name = d.string()
		d.literal(`,"digest":{"sha256":`)
		digest := d.string()
		d.literal(`}}`)
		if d.err != nil {
			break
		}
		var err error
		if sub.SHA256, err = trust.ParseDigest(digest); err != nil {
			d.fail("%w", err)
		}
		if n := len(s.Subjects); n > 0 && sub.Name <= s.Subjects[n-1].Name {
			d.fail("subject %.80q stands behind %.80q", sub.Name, s.Subjects[n-1].Name)
		}
		s.Subjects = append(s.Subjects, sub)
		if !d.more(']') {
			break
		}
	}
	d.literal(`,"predicateType":`)
	kind, ok1 := strings.CutPrefix(d.string(), kindPrefix)
	kind, ok2 := strings.CutSuffix(kind, kindSuffix)
	if !ok1 || !ok2 || trust.CheckWord(kind) != nil {
		d.fail("predicate type: want %sKIND%s", kindPrefix, kindSuffix)
	}
	s.Kind = kind
	d.literal(`,"predicate":`)
	s.Predicate = d.object(1)
	d.literal(`}`)
	if d.err == nil && d.i != len(b) {
		d.fail("bytes behind the end")
	}
	if d.err != nil {
		return nil, trust.Refuse("statement-not-canonical", "statement", "payload: %v", d.err).At(int64(d.i))
	}
	// The decoder takes one spelling only; printing it again proves that.
	if again, err := s.Payload(); err != nil || !bytes.Equal(again, b) {
		return nil, trust.Refuse("statement-not-canonical", "statement", "payload: printed again it is other bytes")
	}
	return s, nil
}

// Sign signs a statement with a key of the context statement and returns the
// envelope. What Verify would refuse for its form is an error here.
func Sign(k trust.Signer, s Statement) ([]byte, error) {
	payload, err := s.Payload()
	if err != nil {
		return nil, fmt.Errorf("statement %s: %w", s.Kind, err)
	}
	parsed, err := parsePayload(payload)
	if err != nil {
		return nil, err
	}
	if err := parsed.check(); err != nil {
		return nil, err
	}
	sig, err := k.Sign(trust.ContextStatement, dsse.PAE(payloadType, payload))
	if err != nil {
		return nil, err
	}
	b := printEnvelope(payload, k.VKey().ID(), sig)
	if len(b) > MaxEnvelopeSize {
		return nil, fmt.Errorf("statement %s: envelope of %d bytes, more than %d; name larger subjects by digest", s.Kind, len(b), MaxEnvelopeSize)
	}
	return b, nil
}

const (
	envelope1 = `{"payload":"`
	envelope2 = `","payloadType":"` + payloadType + `","signatures":[{"keyid":"`
	envelope3 = `","sig":"`
	envelope4 = `"}]}`
)

func printEnvelope(payload []byte, keyid string, sig []byte) []byte {
	b := []byte(envelope1)
	b = base64.StdEncoding.AppendEncode(b, payload)
	b = append(b, envelope2+keyid+envelope3...)
	b = base64.StdEncoding.AppendEncode(b, sig)
	return append(b, envelope4...)
}

// An Envelope is a statement with a signature that has not been verified. What it says
// is reached through [Envelope.Verify].
type Envelope struct {
	keyid     string
	payload   []byte
	sig       []byte
	statement *Statement
}

// ParseEnvelope checks the form of an envelope and of the statement in it. Codes:
// statement-size, statement-not-canonical, statement-kind, statement-predicate.
func ParseEnvelope(b []byte) (*Envelope, error) {
	refuse := func(format string, args ...any) error {
		return trust.Refuse("statement-not-canonical", "statement", "envelope: "+format, args...)
	}
	if len(b) > MaxEnvelopeSize {
		return nil, trust.Refuse("statement-size", "statement", "envelope of %d bytes, more than %d", len(b), MaxEnvelopeSize)
	}
	rest, ok1 := strings.CutPrefix(string(b), envelope1)
	payload64, rest, ok2 := strings.Cut(rest, envelope2)
	keyid, rest, ok3 := strings.Cut(rest, envelope3)
	sig64, ok4 := strings.CutSuffix(rest, envelope4)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return nil, refuse("not spelled as DSSE with one signature is spelled here")
	}
	e := &Envelope{keyid: keyid}
	if err := trust.CheckKeyID(keyid, trust.ContextStatement); err != nil {
		return nil, refuse("%v", err)
	}
	var err error
	if e.payload, err = decode64(payload64); err != nil {
		return nil, refuse("payload: %v", err)
	}
	if e.sig, err = decode64(sig64); err != nil {
		return nil, refuse("sig: %v", err)
	}
	if len(e.sig) == 0 || len(e.sig) > trust.MaxSignature {
		return nil, refuse("sig of %d bytes, want 1 to %d", len(e.sig), trust.MaxSignature)
	}
	if !bytes.Equal(printEnvelope(e.payload, e.keyid, e.sig), b) {
		return nil, refuse("printed again it is other bytes")
	}
	if e.statement, err = parsePayload(e.payload); err != nil {
		return nil, err
	}
	if err := e.statement.check(); err != nil {
		return nil, err
	}
	return e, nil
}

// decode64 decodes standard padded base64. The decoder skips CR and LF: the caller prints what came out and compares.
func decode64(s string) ([]byte, error) { return base64.StdEncoding.Strict().DecodeString(s) }

// KeyID returns the key that the envelope claims to be signed with.
func (e *Envelope) KeyID() string { return e.keyid }

// Kind returns the kind that the statement claims to be of.
func (e *Envelope) Kind() string { return e.statement.Kind }

// Unverified returns the statement although nobody stands for it: to show what
// a refused envelope says, never to act on.
func (e *Envelope) Unverified() Statement { return *e.statement }

// Bytes returns the envelope: the leaf of a ledger.
func (e *Envelope) Bytes() []byte { return printEnvelope(e.payload, e.keyid, e.sig) }

// VerifyKeys verifies the signature with the given keys, and nothing of roles. It
// is for a ledger whose zone has no root yet. Codes: statement-key, statement-signature.
func (e *Envelope) VerifyKeys(keys ...trust.VKey) (Statement, trust.VKey, error) {
	for _, k := range keys {
		if k.Context != trust.ContextStatement || k.ID() != e.keyid {
			continue
		}
		if !k.Verify(dsse.PAE(payloadType, e.payload), e.sig) {
			return Statement{}, trust.VKey{}, trust.Refuse("statement-signature", e.subject(), "the signature by %s does not verify", e.keyid)
		}
		return *e.statement, k, nil
	}
	return Statement{}, trust.VKey{}, trust.Refuse("statement-key", e.subject(), "signed by %s, which is not a known key of a role that signs statements", e.keyid)
}

// Verify verifies the statement by an opened root, as an entry of the ledger with the given origin: the signature by a key that counts on the statement's
// date, the role that its kind asks for, the person it names, and the ledger it was made for. It returns whose it is. Codes beside those of
// VerifyKeys: statement-role, statement-person, statement-zone, and of a rejection's evidence rejection-signature, rejection-unsigned, rejection-person.
func (e *Envelope) Verify(root *trust.Root, origin string) (s Statement, person string, err error) {
	if !root.Opened() {
		return Statement{}, "", trust.ErrNotOpened
	}
	s = *e.statement
	date, err := s.Time()
	if err != nil {
		return Statement{}, "", err
	}
	var keys []trust.VKey
	if k, ok := root.Signer(e.keyid, date); ok {
		keys = append(keys, k)
	}
	s, k, err := e.VerifyKeys(keys...)
	if err != nil {
		return Statement{}, "", err
	}
	var bad trust.Refusals
	kind, ok := statementKinds[s.Kind]
	if !ok || !root.HasRole(k.Person, kind.role) {
		bad.Add(trust.Refuse("statement-role", e.subject(), "%s has not the role %s, which signs %q", k.Person, kind.role, s.Kind))
	}
	if named, ok := s.Predicate["person"].(string); ok && kind.role != trust.RoleStation && named != k.Person {
		bad.Add(trust.Refuse("statement-person", e.subject(), "it names %q, but %s signed it", trust.Clip(named), k.Person))
	}
	zone, _ := s.Predicate["zone"].(string)
	if enclave, _, err := trust.ParseOrigin(zone); err != nil || zone != origin || enclave != root.Enclave {
		bad.Add(trust.Refuse("statement-zone", e.subject(), "made for %q, not for the ledger %s of enclave %s", trust.Clip(zone), origin, root.Enclave))
	}
	if s.Kind == KindRejected || s.Kind == KindDeclined {
		if err := bad.Merge(s.rejection(root)); err != nil {
			return Statement{}, "", err
		}
	}
	if len(bad) > 0 {
		return Statement{}, "", bad
	}
	return s, k.Person, nil
}

// Time returns the date that the statement bears.
func (s *Statement) Time() (time.Time, error) {
	text, _ := s.Predicate["time"].(string)
	t, err := trust.ParseDate(text)
	if err != nil {
		return t, trust.Refuse("statement-predicate", "statement "+s.Kind, "time: %v", err)
	}
	return t, nil
}

func (e *Envelope) subject() string { return "statement " + e.statement.Kind }
