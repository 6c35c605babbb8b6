package main

import "errors"

// read does with one entry what a ledger does with a bundle of them.
func (e *entry) read(l *ledger, leaf []byte) {
	*e = entry{statement: statement{subjects: e.subjects[:0], predicate: e.predicate[:0], sig: e.sig[:0]}}
	var text []byte
	text, e.err = e.unseal(nil, leaf)
	e.check(l, string(text))
}

// parse reads a statement and judges nothing of it but its form.
func (st *statement) parse(leaf []byte) (misfits []string, err error) {
	text, err := st.unseal(nil, leaf)
	if err != nil {
		return nil, err
	}
	st.keyid, st.payload = string(text[:st.middle]), string(text[st.middle:])
	if !is("keyid", st.keyid) {
		return nil, errors.New("no keyid")
	}
	return st.parsePayload()
}
