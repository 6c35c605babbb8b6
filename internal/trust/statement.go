package trust

// A Subject is what a statement is about.
type Subject struct {
	Name   string
	SHA256 Digest
}

// A Statement is what somebody did: an in-toto Statement v1 of the type
// urn:sallyport:statement:KIND:1.
type Statement struct {
	Kind      string
	Subjects  []Subject
	Predicate map[string]any // values: string, int64, bool, []any, map[string]any
}
