// Package statement has what persons and machines say they did: in-toto statements in DSSE envelopes, as docs/spec/trust.md section 7 spells
// them. An envelope is the leaf of a ledger.
//
// [ParseEnvelope] checks the form alone; what a statement says is reached through [Envelope.Verify], which takes a root that was opened:
//
//	envelope, err := statement.Sign(key, statement.Statement{Kind: statement.KindShipped, Subjects: subjects, Predicate: predicate})
//	e, err := statement.ParseEnvelope(envelope)
//	s, person, err := e.Verify(root)
//
// A statement has one spelling: what is parsed and printed again is the same bytes, and anything else is refused (statement-not-canonical). An envelope
// has at most [MaxEnvelopeSize] bytes, values nest [MaxDepth] deep, an integer is at most [MaxInteger]. The package opens nothing and reads no clock.
package statement
