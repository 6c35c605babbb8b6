package channel

import (
	"errors"
	"fmt"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// A signing is who signed a commit.
type signing struct {
	*openpgp.Key
	sha1 bool // which is permitted only where the tree has no .guix-authorizations
}

const minStrongBits = 2048 // below that a key of RSA or DSA is weak

// signature checks the signature of a commit against the keyring. It returns a refusal, or the key; both if the key is known and its signature is
// bad. What Guix passes over goes to the node's notes.
func (a *authenticator) signature(n *node, c *git.Commit) (*Refusal, *signing) {
	refuse := func(code, rule, format string, args ...any) *Refusal {
		return &Refusal{Code: code, Rule: rule, Detail: fmt.Sprintf(format, args...)}
	}
	for _, o := range c.Oddities {
		code := FindingHeaders
		switch o.Kind {
		case git.OddSignature:
			code = FindingSeveral
		case git.OddNUL:
			code = FindingNUL
		}
		a.note(n, c, code, "", "%s", o.Detail)
	}
	if c.Signature == nil {
		return refuse(CodeUnsigned, "every commit must be signed", "it lacks a signature"), nil
	}
	sig, err := openpgp.ParseArmoredSignature(c.Signature)
	if err != nil {
		return refuse(CodeSignatureForm, "the signature must be an OpenPGP signature in armour with a checksum", "%s", Escape(err.Error())), nil
	}
	if sig.HashName() == "md5" {
		r := a.hashRefusal(n, c, "md5")
		r.Key = issuer(sig)
		return r, nil
	}
	if sig.Type != openpgp.TypeBinary {
		what := fmt.Sprintf("type %#02x", sig.Type)
		if sig.Type == openpgp.TypeText {
			what = "a text document"
		}
		r := refuse(CodeSignatureText, "the signature must be of a binary document", "it is a signature of %s", what)
		r.Key = issuer(sig)
		return r, nil
	}
	key := a.req.Keyring.Issuer(sig)
	if key == nil {
		name := issuer(sig)
		r := refuse(CodeKeyMissing, "the keyring must have the key that signed", "the key %s is not in the keyring", name)
		r.Key, r.File = name, a.req.Keyring.Commit.String()+":*.key"
		return r, nil
	}
	s := &signing{Key: key, sha1: sig.HashName() == "sha1"}
	if !c.SignedText() {
		return refuse(CodeNotUTF8, "what is signed must be UTF-8, as Guix reads it", "it is not UTF-8, and Guix cannot verify a signature over anything else"), s
	}
	if err := key.Verify(sig, c.Signed); err != nil {
		var e *openpgp.Error
		if errors.As(err, &e) && e.Code == openpgp.CodeUnsupported {
			return refuse(CodeKeyUnusable, "the key must be one that Guix can use: RSA, DSA or Ed25519", "%s", e.Detail), s
		}
		return refuse(CodeSignatureBad, "the signature must be one over the commit", "the signature is not one of %s over this commit", key.Fingerprint), s
	}
	a.signatureNotes(n, c, sig, key)
	return nil, s
}

// issuer is the key that a signature names: a claim.
func issuer(sig *openpgp.Signature) string {
	switch {
	case len(sig.Print) == 20:
		return openpgp.Fingerprint(sig.Print).String()
	case sig.Print != nil:
		return fmt.Sprintf("%X", sig.Print)
	case sig.HasIssuer:
		return fmt.Sprintf("%016X", sig.Issuer)
	}
	return "that it does not name"
}

// signatureNotes looks at what Guix does not, of a signature that is good.
func (a *authenticator) signatureNotes(n *node, c *git.Commit, sig *openpgp.Signature, key *openpgp.Key) {
	by := key.Fingerprint.String()
	note := func(code, format string, args ...any) {
		a.note(n, c, code, by, format, args...)
		n.notes[len(n.notes)-1].Signed = sig.Created
	}
	switch name := sig.HashName(); name {
	case "sha1", "rmd160":
		note(FindingWeakHash, "the signature uses %s", name)
	}
	if key.Algorithm != openpgp.AlgorithmEdDSA && key.Bits < minStrongBits {
		note(FindingWeakKey, "the key has %d bits", key.Bits)
	}
	if sig.Version < 4 {
		note(FindingOldSignature, "the signature is of version %d", sig.Version)
	}
	if sig.Trailing {
		note(FindingSeveral, "more packets follow the signature")
	}
	if sig.Created == 0 {
		note(FindingUndated, "the signature does not say when it was made")
		return
	}
	if sig.Created < key.Created {
		note(FindingBeforeKey, "the key was made at %s", date(key.Created))
	}
	st := key.Status()
	if st.Expires != 0 && sig.Created > st.Expires {
		note(FindingExpired, "the key was to be used until %s", date(st.Expires))
	}
	switch {
	case st.Revoked == 0:
	case st.Hard:
		note(FindingRevoked, "the key was revoked at %s, as one never to be relied on", date(st.Revoked))
	case sig.Created >= st.Revoked:
		note(FindingRevoked, "the key was revoked at %s", date(st.Revoked))
	}
}

func (a *authenticator) note(n *node, c *git.Commit, code, key, format string, args ...any) {
	n.notes = append(n.notes, Finding{Code: code, Commit: n.id, Author: author(c), Key: key, Detail: fmt.Sprintf(format, args...), When: n.when})
}

func (a *authenticator) hashRefusal(n *node, c *git.Commit, name string) *Refusal {
	return &Refusal{Code: CodeSignatureHash, Commit: n.id, Author: author(c),
		Rule:   "MD5 is never permitted, SHA-1 not where the tree has " + authorizationsFile + ", and not in the introduction",
		Detail: "it has a " + name + " signature, which is not permitted"}
}
