package statement

import (
	"fmt"
	"maps"
	"slices"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// Kinds of statements.
const (
	KindCreated   = "created"
	KindRoot      = "root"
	KindCollected = "collected"
	KindInspected = "inspected"
	KindShipped   = "shipped"
	KindImported  = "imported"
	KindRefused   = "refused"
	KindApproved  = "approved"
	KindRejected  = "rejected"
	KindSubmitted = "submitted"
	KindDeclined  = "declined"
	KindAllowed   = "allowed"
	KindSigned    = "signed"
	KindBuilt     = "built"
	KindAgreed    = "agreed"
	KindDisagreed = "disagreed"

	// Of the documents of officers, and of releases.
	KindUndersigned = "undersigned"
	KindOrdered     = "ordered"
	KindRecalled    = "recalled"
	KindReleased    = "released"
	KindRestored    = "restored"

	// What a zone says of its own ledger.
	KindWitnessed = "witnessed"
	KindRebuilt   = "rebuilt"

	// What a zone says of its own keys.
	KindKeyChanged = "key-changed"

	// Of channels, outside.
	KindPinned  = "pinned"
	KindExcused = "excused"

	// Of hosts.
	KindChecked = "checked"
)

// A form checks one value of a predicate and says what it wants.
type form struct {
	want string
	ok   func(v any) bool
}

func textForm(want string, ok func(s string) bool) form {
	return form{want, func(v any) bool { s, is := v.(string); return is && ok(s) }}
}

func listForm(want string, ok func(v any) bool) form {
	return form{want, func(v any) bool {
		list, is := v.([]any)
		return is && !slices.ContainsFunc(list, func(v any) bool { return !ok(v) })
	}}
}

func tableForm(want string, ok func(v any) bool) form {
	return form{want, func(v any) bool {
		m, is := v.(map[string]any)
		if !is {
			return false
		}
		for _, v := range m {
			if !ok(v) {
				return false
			}
		}
		return true
	}}
}

func isText(v any) bool  { _, ok := v.(string); return ok }
func isCount(v any) bool { n, ok := v.(int64); return ok && n >= 0 }

var (
	anyText  = textForm("a string", func(string) bool { return true })
	word     = textForm("a name", func(s string) bool { return trust.CheckWord(s) == nil })
	date     = textForm("a date", func(s string) bool { _, err := trust.ParseDate(s); return err == nil })
	origin   = textForm("an origin", func(s string) bool { _, _, err := trust.ParseOrigin(s); return err == nil })
	document = textForm("`orders` or `root`", func(s string) bool { return s == "orders" || s == "root" })
	zoneKey  = textForm("`checkpoint` or `statement`", func(s string) bool {
		return s == string(trust.ContextCheckpoint) || s == string(trust.ContextStatement)
	})
	zoneVKey   = textForm("a zone's vkey", isZoneVKey)
	digest     = textForm("a digest", func(s string) bool { _, err := trust.ParseDigest(s); return err == nil })
	storePath  = textForm("a store path", isStorePath)
	count      = form{"an integer from 0 up", isCount}
	number     = form{"an integer from 1 up", func(v any) bool { n, ok := v.(int64); return ok && n > 0 }}
	object     = tableForm("an object", func(any) bool { return true })
	counts     = tableForm("an object of integers from 0 up", isCount)
	texts      = listForm("an array of strings", isText)
	votes      = tableForm("an object of arrays of strings", texts.ok)
	channel    = textForm("a channel's name", func(s string) bool { return trust.CheckChannel(s) == nil })
	commit     = textForm("a commit", func(s string) bool { return trust.CheckCommit(s) == nil })
	maybeID    = textForm("a commit or `-`", func(s string) bool { return s == "-" || trust.CheckCommit(s) == nil })
	maybePrint = textForm("a fingerprint or `-`", func(s string) bool { return s == "-" || trust.CheckOpenPGP(s) == nil })
	reason     = textForm("a reason", func(s string) bool { return trust.CheckReason(s) == nil })
	sigLine    = textForm("a signature line", func(s string) bool { return trust.CheckLine(s) == nil })
	reasonList = listForm("an array of {code, subject}", func(v any) bool {
		m, ok := v.(map[string]any)
		return ok && isText(m["code"]) && isText(m["subject"])
	})
	outputTable = tableForm("an object of {path, size, references}", func(v any) bool {
		_, ok := parseOutput(v)
		return ok
	})
)

// isZoneVKey reports whether s is a key of a ledger or of a station, of the kind that they have.
func isZoneVKey(s string) bool {
	k, err := trust.ParseVKey(s)
	return err == nil && k.Kind() == trust.KeyEd25519 && (k.Context == trust.ContextCheckpoint || k.Context == trust.ContextStatement && k.Person == trust.Station)
}

func isStorePath(s string) bool { _, err := storepath.Parse(s); return err == nil }

// A statementKind says who signs a kind and what its predicate must have, beside
// `time` and `zone`. It may have more.
type statementKind struct {
	role    trust.Role
	members map[string]form
}

var statementKinds = map[string]statementKind{
	KindCreated:   {trust.RoleStation, map[string]form{"enclave": word, "kind": word}},
	KindRoot:      {trust.RoleStation, map[string]form{"version": number, "changes": texts}},
	KindCollected: {trust.RoleStation, map[string]form{"items": count, "bytes": count, "request": digest}},
	KindInspected: {trust.RoleStation, map[string]form{"files": count, "bytes": count, "findings": counts, "confinement": object}},
	KindShipped:   {trust.RoleStation, map[string]form{"shipment": number, "items": count, "bytes": count}},
	KindImported:  {trust.RoleImporter, map[string]form{"shipment": number, "items": count, "bytes": count, "person": word}},
	KindRefused:   {trust.RoleStation, map[string]form{"stage": anyText, "reasons": reasonList, "total": count}},
	KindApproved:  {trust.RoleStation, map[string]form{"track": word, "version": number, "person": word, "signature": sigLine}},
	KindRejected:  {trust.RoleStation, map[string]form{"shipment": number, "person": word, "date": date, "reason": reason, "signature": sigLine}},
	KindSubmitted: {trust.RoleImporter, map[string]form{"submission": number, "size": number, "channel": channel, "commit": commit, "basis": maybeID, "person": word}},
	KindDeclined:  {trust.RoleStation, map[string]form{"submission": number, "person": word, "date": date, "reason": reason, "signature": sigLine}},
	KindAllowed:   {trust.RoleStation, map[string]form{"track": word, "version": number, "persons": texts}},
	KindSigned:    {trust.RoleStation, map[string]form{"track": word}},
	KindBuilt:     {trust.RoleBuilder, map[string]form{"derivation": storePath, "derivation-sha256": digest, "outputs": outputTable, "person": word, "system": anyText}},
	KindAgreed:    {trust.RoleStation, map[string]form{"derivation": storePath, "builders": texts}},
	KindDisagreed: {trust.RoleStation, map[string]form{"builders": votes}},

	KindUndersigned: {trust.RoleStation, map[string]form{"document": document, "version": number, "person": word, "signature": sigLine}},
	KindOrdered:     {trust.RoleStation, map[string]form{"version": number, "persons": texts}},
	KindRecalled:    {trust.RoleStation, map[string]form{"version": number}},
	KindReleased:    {trust.RoleStation, map[string]form{"track": word, "version": number, "from": word}},
	KindRestored:    {trust.RoleStation, map[string]form{"size": number, "version": number}},

	KindWitnessed: {trust.RoleStation, map[string]form{"person": word, "size": number, "signature": sigLine}},
	KindRebuilt:   {trust.RoleStation, map[string]form{"size": number}},

	KindKeyChanged: {trust.RoleStation, map[string]form{"context": zoneKey, "from": zoneVKey, "to": zoneVKey, "size": number, "version": number, "signature": sigLine}},

	KindPinned:  {trust.RoleStation, map[string]form{"channel": channel, "commit": commit, "from": maybeID}},
	KindExcused: {trust.RoleStation, map[string]form{"name": word, "code": word, "channel": channel, "commit": maybeID, "key": maybePrint, "until": date, "person": word, "reason": reason}},

	KindChecked: {trust.RoleStation, map[string]form{"host": word, "date": date, "orders": count, "items": count, "recalled": count, "derived": count, "unknown": count, "kept": count,
		"report": digest}},
}

// Kinds returns the kinds of statements, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(statementKinds)) }

// check checks the kind and what its predicate must have.
func (s *Statement) check() error {
	subject := "statement " + s.Kind
	kind, ok := statementKinds[s.Kind]
	if !ok {
		return trust.Refuse("statement-kind", subject, "kind %q is not known", trust.Clip(s.Kind))
	}
	var bad trust.Refusals
	member := func(name string, f form) {
		v, ok := s.Predicate[name]
		if !ok {
			bad.Add(trust.Refuse("statement-predicate", subject, "no member %q", name))
		} else if !f.ok(v) {
			bad.Add(trust.Refuse("statement-predicate", subject, "member %q is not %s", name, f.want))
		}
	}
	member("time", date)
	member("zone", origin)
	for _, name := range slices.Sorted(maps.Keys(kind.members)) {
		member(name, kind.members[name])
	}
	if len(bad) == 0 && s.Kind == KindSubmitted {
		if _, err := s.Submission(); err != nil {
			bad.Add(trust.Refuse("statement-predicate", subject, "%v", err))
		}
	}
	if len(bad) == 0 && s.Kind == KindBuilt {
		if _, err := s.Outputs(); err != nil {
			bad.Add(trust.Refuse("statement-predicate", subject, "%v", err))
		}
	}
	return bad.Err()
}

// A BuiltOutput is one output as a builder names it.
type BuiltOutput struct {
	ID         string
	Path       string       // store path
	SHA256     trust.Digest // of the nar
	Size       int64        // of the nar
	References []string
}

// Equal reports whether both say the same.
func (o BuiltOutput) Equal(other BuiltOutput) bool {
	return o.ID == other.ID && o.Path == other.Path && o.SHA256 == other.SHA256 &&
		o.Size == other.Size && slices.Equal(o.References, other.References)
}

// parseOutput reads {path, size, references}: references are store paths, sorted, none twice.
func parseOutput(v any) (o BuiltOutput, ok bool) {
	m, _ := v.(map[string]any)
	path, ok1 := m["path"].(string)
	size, ok2 := m["size"].(int64)
	list, ok3 := m["references"].([]any)
	if !ok1 || !ok2 || !ok3 || len(m) != 3 || size < 0 || !isStorePath(path) {
		return BuiltOutput{}, false
	}
	o = BuiltOutput{Path: path, Size: size, References: make([]string, 0, len(list))}
	for _, v := range list {
		ref, _ := v.(string)
		if !isStorePath(ref) || len(o.References) > 0 && o.References[len(o.References)-1] >= ref {
			return BuiltOutput{}, false
		}
		o.References = append(o.References, ref)
	}
	return o, true
}

// Outputs returns the outputs of a `built` statement, by store path: each named
// once in `outputs`, once as a subject.
func (s *Statement) Outputs() (map[string]BuiltOutput, error) {
	outputs := make(map[string]BuiltOutput)
	table, _ := s.Predicate["outputs"].(map[string]any)
	for _, id := range slices.Sorted(maps.Keys(table)) {
		o, ok := parseOutput(table[id])
		if !ok {
			return nil, fmt.Errorf("output %q is malformed", trust.Clip(id))
		}
		if _, ok := outputs[o.Path]; ok {
			return nil, fmt.Errorf("two outputs are %s", o.Path)
		}
		o.ID = id
		outputs[o.Path] = o
	}
	for _, sub := range s.Subjects {
		o, ok := outputs[sub.Name]
		if !ok {
			return nil, fmt.Errorf("subject %q is not among the outputs", trust.Clip(sub.Name))
		}
		o.SHA256 = sub.SHA256
		outputs[sub.Name] = o
	}
	if len(outputs) != len(s.Subjects) {
		return nil, fmt.Errorf("%d outputs, but %d subjects", len(outputs), len(s.Subjects))
	}
	return outputs, nil
}
