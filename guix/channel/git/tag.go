package git

import "bytes"

// A Tag is an annotated tag. It refers to the bytes that it was parsed from.
type Tag struct {
	Object    ID
	Kind      Kind
	Name      []byte
	Tagger    []byte // the line, without "tagger "; nil in tags of old git
	Signed    []byte // what a signature at the end covers
	Signature []byte // from "-----BEGIN" on; nil if there is none
}

// ParseTag reads a tag.
func ParseTag(raw []byte) (*Tag, error) {
	if len(raw) > MaxCommit {
		return nil, fail(CodeLimit, 0, "a tag of %d bytes", len(raw))
	}
	t := new(Tag)
	rest := raw
	header := func(name string) ([]byte, bool) {
		line, more, ok := bytes.Cut(rest, []byte("\n"))
		value, named := bytes.CutPrefix(line, []byte(name+" "))
		if !ok || !named {
			return nil, false
		}
		rest = more
		return value, true
	}
	at := func() int64 { return int64(len(raw) - len(rest)) }
	value, ok := header("object")
	id, err := ParseID(value)
	if !ok || err != nil {
		return nil, fail(CodeTag, at(), "it does not begin with an object")
	}
	t.Object = id
	if value, ok = header("type"); ok {
		t.Kind, ok = kindOf(string(value))
	}
	if !ok {
		return nil, fail(CodeTag, at(), "a type belongs here")
	}
	if t.Name, ok = header("tag"); !ok || len(t.Name) == 0 {
		return nil, fail(CodeTag, at(), "a name belongs here")
	}
	t.Tagger, _ = header("tagger")
	if bytes.IndexByte(raw, 0) >= 0 {
		return nil, fail(CodeTag, int64(bytes.IndexByte(raw, 0)), "a zero byte")
	}
	t.Signed = raw
	for _, begin := range []string{"\n-----BEGIN PGP SIGNATURE-----", "\n-----BEGIN SSH SIGNATURE-----", "\n-----BEGIN PGP MESSAGE-----"} {
		if i := bytes.Index(raw, []byte(begin)); i >= 0 && i+1 < len(t.Signed) {
			t.Signed, t.Signature = raw[:i+1], raw[i+1:]
		}
	}
	return t, nil
}
