package signature

import (
	"fmt"

	"sallyport/guix/sexp"
)

// An ACL is an access control list: the keys whose signatures are believed.
// The zero ACL holds none.
type ACL struct {
	entries []entry
	index   map[string]int // by canonical form of the key
}

type entry struct {
	key      PublicKey
	verifier verifier
}

// NewACL returns a list of the given keys, each once, in the order given. It
// panics if one of them is the zero PublicKey.
func NewACL(keys ...PublicKey) ACL {
	var acl ACL
	for _, key := range keys {
		_, verifier, err := keyOf(key.value(), CodeBadKey)
		if err != nil {
			panic(err) // a PublicKey other than zero has been through keyOf
		}
		acl.add(key, verifier)
	}
	return acl
}

func (acl *ACL) add(key PublicKey, v verifier) {
	if acl.index == nil {
		acl.index = make(map[string]int)
	}
	if _, ok := acl.index[key.canonical]; !ok {
		acl.index[key.canonical] = len(acl.entries)
		acl.entries = append(acl.entries, entry{key, v})
	}
}

// ParseACL reads a file such as /etc/guix/acl. A key that stands there twice
// is kept once.
func ParseACL(text []byte) (ACL, error) {
	v, err := parse(text, sexp.MaxSize, CodeBadACL)
	if err != nil {
		return ACL{}, err
	}
	m := matcher{code: CodeBadACL}
	if v.Head() != "acl" {
		m.fail(v, "the list is not an acl")
		return ACL{}, m.err
	}
	items := v.Items()[1:]
	if len(items) > MaxKeys {
		m.fail(items[MaxKeys], "more than %d keys", MaxKeys)
		return ACL{}, m.err
	}
	var acl ACL
	for _, item := range items {
		fields := m.list(item, "entry", 2)
		// Guix knows no other tag: (guix import) is all that a key can be for.
		if m.err == nil && !fields[1].Equal(importTag()) {
			m.fail(fields[1], "the tag is not (guix import)")
		}
		if m.err != nil {
			return ACL{}, m.err
		}
		key, verifier, err := keyOf(fields[0], CodeBadACL)
		if err != nil {
			return ACL{}, err
		}
		acl.add(key, verifier)
	}
	// In canonical form a list of long keys takes half as many octets as Bytes gives it.
	if n := len(acl.Bytes()); n > sexp.MaxSize {
		return ACL{}, &Error{0, CodeBadACL, fmt.Sprintf("printed as Guix does, the list has %d bytes, more than the %d that are read", n, sexp.MaxSize)}
	}
	return acl, nil
}

func importTag() sexp.Value {
	return list("tag", list("guix", sexp.Atom("import")))
}

// Keys returns the keys of acl in their order.
func (acl ACL) Keys() []PublicKey {
	keys := make([]PublicKey, len(acl.entries))
	for i, e := range acl.entries {
		keys[i] = e.key
	}
	return keys
}

// Has reports whether key is in acl.
func (acl ACL) Has(key PublicKey) bool {
	_, ok := acl.index[key.canonical]
	return ok
}

// Bytes returns acl as Guix writes the file.
func (acl ACL) Bytes() []byte {
	items := make([]sexp.Value, len(acl.entries))
	for i, e := range acl.entries {
		items[i] = list("entry", e.key.value(), importTag())
	}
	return list("acl", items...).Advanced()
}
