package statement

import (
	"bytes"
	"encoding/base64"
)

// Mark is what stands in the payload of every statement of a kind: whoever looks for a few kinds in a long ledger need not take the rest apart. A mark stands in a
// payload in one spelling, and in no string, where its quotes would be escaped; a payload that has it may still be of another kind, or be no statement.
func Mark(kind string) []byte {
	return []byte(`,"predicateType":"urn:sallyport:statement:` + kind + `:1",`)
}

// AppendPayload appends an envelope's payload to buf[:0], and nothing where there is none. Nothing else of the envelope is looked at.
func AppendPayload(buf, leaf []byte) []byte {
	rest, ok := bytes.CutPrefix(leaf, []byte(envelope1))
	end := bytes.IndexByte(rest, '"')
	if !ok || end < 0 {
		return buf[:0]
	}
	buf, err := base64.StdEncoding.AppendDecode(buf[:0], rest[:end])
	if err != nil {
		return buf[:0]
	}
	return buf
}
