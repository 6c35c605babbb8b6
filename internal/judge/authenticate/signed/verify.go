package signed

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

// Codes of refusals; the package comment says what they mean. Those of objects are package channel's.
const (
	CodeKind        = "object-kind"
	CodeLightweight = "tag-lightweight"
	CodeTagName     = "tag-name"
	CodeTag         = "tag-malformed"
	CodeTarget      = "tag-target"
	CodeCommit      = "commit-malformed"
	CodeMissing     = "signature-missing"
	CodeFormat      = "signature-format"
	CodeMalformed   = channel.CodeSignatureForm
	CodeType        = "signature-type"
	CodeHash        = channel.CodeSignatureHash
	CodeBad         = channel.CodeSignatureBad
	CodeDate        = "signature-date"
	CodeNamespace   = "signature-namespace"
	CodeKeyMissing  = channel.CodeKeyMissing
	CodeUnlisted    = "key-unlisted"
	CodeUnusable    = channel.CodeKeyUnusable
	CodeWeak        = "key-weak"
	CodePurpose     = "key-purpose"
	CodeExpired     = "key-expired"
	CodeRevoked     = "key-revoked"
	CodePrincipal   = "signer-principal"
	CodeSignerUse   = "signer-namespace"
	CodeSignerTime  = "signer-time"
)

// Bounds.
const (
	maxTags  = 8              // tags that lead to one another
	maxAhead = 24 * time.Hour // by which the clock of a signer may be fast
)

// By says whose signatures count. One of the two halves is given.
type By struct {
	Keyring      *openpgp.Keyring
	Fingerprints []openpgp.Fingerprint // keys of it; a primary key stands for its subkeys, too

	Allowed   AllowedSigners
	Principal string // who of them has to have signed; "" for anyone
}

func (by By) ssh() bool { return by.Keyring == nil }

// A Result is an object that is signed as it should be.
type Result struct {
	Object git.ID
	Kind   git.Kind
	Ref    string // the reference that was asked for; "" if it was an id
	Tag    string // the name in the tag
	Target git.ID // what the tag leads to, at last; else the object
	Leads  git.Kind
	Format string // openpgp or ssh
	Key    string // its fingerprint
	Signer string // a user id of the key, or the principals of the line
	Signed int64  // when, as the signature or else the object says; 0 if it is not said
	Notes  []string
}

// Verify checks the signature of a tag or a commit, as the operator calls it: an id, a reference, a tag, a branch. An error is of type trust.Refusals
// where something was judged.
func Verify(r *authenticate.Repository, name string, by By, now time.Time) (*Result, error) {
	id, ref, err := r.Object(name)
	if err != nil {
		return nil, err
	}
	v := &verifier{by: by, now: now, r: r, subject: name, res: &Result{Object: id, Ref: ref}}
	if err := v.object(id); err != nil {
		return nil, err
	}
	if err := v.refused.Err(); err != nil {
		return nil, err
	}
	return v.res, nil
}

type verifier struct {
	by      By
	now     time.Time
	r       *authenticate.Repository
	subject string
	refused trust.Refusals
	res     *Result
}

func (v *verifier) refuse(code, format string, args ...any) {
	v.refused.Add(trust.Refuse(code, v.subject, format, args...))
}

func (v *verifier) note(format string, args ...any) {
	v.res.Notes = append(v.res.Notes, fmt.Sprintf(format, args...))
}

// objectFault takes what is wrong with an object's bytes; what reading them said is returned.
func (v *verifier) objectFault(err error) error {
	var e *git.Error
	if !errors.As(err, &e) {
		return err
	}
	code := channel.CodeObjectMalformed
	switch e.Code {
	case git.CodeMissing:
		code = channel.CodeObjectMissing
	case git.CodeCollision:
		code = channel.CodeObjectCollision
	}
	refusal := trust.Refuse(code, v.subject, "%v", e)
	if code == channel.CodeObjectMissing {
		refusal.Hint = v.r.Missing()
	}
	v.refused.Add(refusal)
	return nil
}

func (v *verifier) object(id git.ID) error {
	reader := v.r.Database().NewReader()
	kind, raw, err := reader.ReadAny(id)
	if err != nil {
		return v.objectFault(err)
	}
	raw = bytes.Clone(raw)
	v.res.Kind, v.res.Target, v.res.Leads = kind, id, kind
	tag, named := strings.CutPrefix(v.res.Ref, "refs/tags/")
	switch kind {
	case git.KindTag:
		t, err := git.ParseTag(raw)
		if err != nil {
			return v.objectFault(err)
		}
		v.res.Tag = channel.Escape(string(t.Name))
		if named && string(t.Name) != tag {
			v.refuse(CodeTagName, "the reference %s leads to a tag whose name is %q", v.res.Ref, t.Name)
		} else if !named {
			v.note("it was not asked for by the name of a tag: only its id says that it is the right one")
		}
		if why := oddTag(raw, t); why != "" {
			v.refuse(CodeTag, "%s", why)
		}
		if err := v.target(reader, t); err != nil {
			return err
		}
		v.signature(t.Signature, [][]byte{t.Signed}, git.Seconds(t.Tagger))
	case git.KindCommit:
		if named {
			v.refused.Add(trust.Refuse(CodeLightweight, v.subject, "%s leads to a commit and to no tag object: nobody signed that name", v.res.Ref).
				WithHint("give the commit's id, if it is known from elsewhere: " + id.String()))
		}
		c, err := git.ParseCommit(raw)
		if err != nil {
			return v.objectFault(err)
		}
		for _, o := range c.Oddities {
			if o.Kind == git.OddPerson {
				v.note("%s", o.Detail)
			} else {
				v.refuse(CodeCommit, "%s", o.Detail)
			}
		}
		v.signature(c.Signature, c.Signed, git.Seconds(c.Committer))
	default:
		v.refuse(CodeKind, "%s is a %s, and neither a tag nor a commit", id, kind)
	}
	return nil
}

// oddTag says what of a tag could be read in two ways, or "".
func oddTag(raw []byte, t *git.Tag) string {
	var head []byte
	head = fmt.Appendf(head, "object %s\ntype %s\ntag %s\n", t.Object, t.Kind, t.Name)
	if t.Tagger != nil {
		head = fmt.Appendf(head, "tagger %s\n", t.Tagger)
	}
	if !bytes.HasPrefix(t.Signed, append(head, '\n')) {
		return "its headers are not those of a tag"
	}
	// git takes the last line that begins a signature, package git the first.
	begins, ends := 0, 0
	for line := range bytes.SplitSeq(raw, []byte("\n")) {
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) {
			begins++
		}
		if bytes.HasPrefix(line, []byte("-----END ")) {
			ends++
		}
	}
	switch {
	case len(t.Signature) == 0:
		return ""
	case begins != 1 || ends != 1:
		return "it has more than one block that may be a signature"
	}
	end := bytes.LastIndex(t.Signature, []byte("\n-----END "))
	if _, after, _ := bytes.Cut(t.Signature[max(end, 0)+1:], []byte("\n")); end < 0 || len(after) > 0 {
		return "something follows its signature, which does not cover it"
	}
	return ""
}

// target follows the tag to what it is of.
func (v *verifier) target(reader *git.Reader, t *git.Tag) error {
	seen := 1
	for {
		kind, raw, err := reader.ReadAny(t.Object)
		if err != nil {
			var e *git.Error
			if !errors.As(err, &e) {
				return err
			}
			v.refused.Add(trust.Refuse(CodeTarget, v.subject, "it leads to %s: %v", t.Object, e).WithHint(v.r.Missing()))
			return nil
		}
		if kind != t.Kind {
			v.refuse(CodeTarget, "it leads to %s, which it says is a %s and which is a %s", t.Object, t.Kind, kind)
			return nil
		}
		v.res.Target, v.res.Leads = t.Object, kind
		if kind != git.KindTag {
			return nil
		}
		if seen++; seen > maxTags {
			v.refuse(CodeTarget, "more than %d tags lead to one another", maxTags)
			return nil
		}
		if t, err = git.ParseTag(bytes.Clone(raw)); err != nil {
			return v.objectFault(err)
		}
	}
}

// signature checks a signature over pieces of an object, which says that it was made at said.
func (v *verifier) signature(text []byte, over [][]byte, said int64) {
	switch {
	case len(text) == 0:
		v.refuse(CodeMissing, "the %s is not signed", v.res.Kind)
	case bytes.HasPrefix(text, []byte(beginSSH)):
		v.res.Format = "ssh"
		if !v.by.ssh() {
			v.refused.Add(trust.Refuse(CodeFormat, v.subject, "it has a signature of SSH, and keys of OpenPGP were named").WithHint("give a file of allowed signers"))
			return
		}
		v.sshSignature(text, slices.Concat(over...), said)
	case bytes.HasPrefix(text, []byte("-----BEGIN PGP ")):
		v.res.Format = "openpgp"
		if v.by.ssh() {
			v.refused.Add(trust.Refuse(CodeFormat, v.subject, "it has a signature of OpenPGP, and allowed signers of SSH were named").WithHint("give a keyring and fingerprints"))
			return
		}
		v.openpgp(text, over)
	default:
		first, _, _ := bytes.Cut(text, []byte("\n"))
		v.refuse(CodeFormat, "a signature that begins with %.60q is not one of OpenPGP or of SSH", first)
	}
}

func (v *verifier) openpgp(text []byte, over [][]byte) {
	sig, err := openpgp.ParseArmoredSignature(text)
	if err != nil {
		v.refuse(CodeMalformed, "%s", channel.Escape(err.Error()))
		return
	}
	if sig.Trailing {
		v.refuse(CodeMalformed, "more packets follow the signature")
	}
	if sig.Type != openpgp.TypeBinary {
		v.refuse(CodeType, "it is of type %#02x, and not of a binary document", sig.Type)
		return
	}
	if name := sig.HashName(); name == "md5" || name == "sha1" || name == "rmd160" {
		v.refuse(CodeHash, "the hash is %s", name)
	}
	key := v.by.Keyring.Issuer(sig)
	if key == nil {
		name := "that it does not name"
		switch {
		case len(sig.Print) > 0:
			name = fmt.Sprintf("%X", sig.Print)
		case sig.HasIssuer:
			name = fmt.Sprintf("%016X", sig.Issuer)
		}
		v.refuse(CodeKeyMissing, "the key %s is not in the keyring", name)
		return
	}
	v.res.Key, v.res.Signer, v.res.Signed = key.Fingerprint.String(), channel.Escape(key.User()), sig.Created
	by := "the key " + v.res.Key
	if key.Subkey {
		by = fmt.Sprintf("the subkey %s of %s", key.Fingerprint, key.Primary().Fingerprint)
	}
	if !slices.Contains(v.by.Fingerprints, key.Fingerprint) && !slices.Contains(v.by.Fingerprints, key.Primary().Fingerprint) {
		v.refuse(CodeUnlisted, "%s is none of those that were named", by)
	}
	if key.Bits == 0 {
		v.refuse(CodeUnusable, "%s cannot be used: RSA, DSA and Ed25519 can", by)
		return
	}
	if err := key.Verify(sig, over); err != nil {
		var e *openpgp.Error
		if errors.As(err, &e) && e.Code == openpgp.CodeUnsupported {
			if !v.refused.Has(CodeHash) {
				v.refuse(CodeUnusable, "%s", e.Detail)
			}
			return
		}
		v.refuse(CodeBad, "the signature is not one of %s over this %s", by, v.res.Kind)
		return
	}
	// What follows is said by a good signature.
	if key.Algorithm != openpgp.AlgorithmEdDSA && key.Bits < minRSA {
		v.refuse(CodeWeak, "%s has %d bits", by, key.Bits)
	}
	if !key.MaySign() {
		v.refuse(CodePurpose, "%s is not for signing, or not bound to its primary key", by)
	}
	switch at := sig.Created; {
	case at == 0:
		v.refuse(CodeDate, "the signature does not say when it was made")
	case at > v.now.Add(maxAhead).Unix():
		v.refuse(CodeDate, "the signature was made at %s, which is to come", date(at))
	case at < key.Created:
		v.refuse(CodeDate, "the signature was made at %s, before its key", date(at))
	case sig.Lifetime > 0 && at+int64(sig.Lifetime) < v.now.Unix():
		v.refuse(CodeDate, "the signature held until %s", date(at+int64(sig.Lifetime)))
	}
	st := key.Status()
	if st.Expires != 0 {
		if sig.Created > st.Expires {
			v.refuse(CodeExpired, "%s was to be used until %s, and signed at %s", by, date(st.Expires), date(sig.Created))
		} else if st.Expires < v.now.Unix() {
			v.note("the key has expired since, at %s", date(st.Expires))
		}
	}
	if st.Revoked != 0 {
		if st.Hard || sig.Created >= st.Revoked {
			v.refuse(CodeRevoked, "%s was revoked at %s", by, date(st.Revoked))
		} else {
			v.note("the key was retired since, at %s", date(st.Revoked))
		}
	}
}

func (v *verifier) sshSignature(text, message []byte, said int64) {
	sig, err := ParseSSHSignature(text)
	if err != nil {
		code := CodeMalformed
		if errors.Is(err, errWeak) {
			code = CodeWeak
		}
		v.refuse(code, "%s", channel.Escape(err.Error()))
		return
	}
	v.res.Key, v.res.Signed = sig.Key.Fingerprint(), said
	by := fmt.Sprintf("the key %s (%s)", v.res.Key, sig.Key.Algorithm)
	if sig.Namespace != namespaceGit {
		v.refuse(CodeNamespace, "the signature was made for %.60q, and not for %q", sig.Namespace, namespaceGit)
	}
	v.allowed(sig.Key, by, said)
	if err := sig.Verify(message); err != nil {
		v.refuse(CodeBad, "%s: %s", by, channel.Escape(err.Error()))
	}
}

// allowed looks for a line that lets the key sign. If there is none that does, the refusals say why the best did not.
func (v *verifier) allowed(key *PublicKey, by string, said int64) {
	var best trust.Refusals
	at := time.Unix(said, 0)
	for _, s := range v.by.Allowed {
		if !bytes.Equal(s.Key.Blob, key.Blob) {
			continue
		}
		var why trust.Refusals
		refuse := func(code, format string, args ...any) {
			why.Add(trust.Refuse(code, v.subject, "%s, line %d of the allowed signers: %s", by, s.Line, fmt.Sprintf(format, args...)))
		}
		switch {
		case v.by.Principal != "" && !matchList(v.by.Principal, s.Principals):
			refuse(CodePrincipal, "it is for %q, and not for %q", s.Principals, v.by.Principal)
		case !anybody(s.Principals):
			refuse(CodePrincipal, "it is for nobody: %q", s.Principals)
		}
		if s.Namespaces != "" && !matchList(namespaceGit, s.Namespaces) {
			refuse(CodeSignerUse, "it is for %q, and not for %q", s.Namespaces, namespaceGit)
		}
		switch {
		case s.After.IsZero() && s.Before.IsZero():
		case said <= 0:
			refuse(CodeSignerTime, "it holds for a time, and the %s has no date", v.res.Kind)
		case !s.After.IsZero() && at.Before(s.After):
			refuse(CodeSignerTime, "it holds from %s on, and the %s is of %s", date(s.After.Unix()), v.res.Kind, date(said))
		case !s.Before.IsZero() && at.After(s.Before):
			refuse(CodeSignerTime, "it holds until %s, and the %s is of %s", date(s.Before.Unix()), v.res.Kind, date(said))
		}
		if len(why) == 0 {
			v.res.Signer = channel.Escape(s.Principals)
			return
		}
		if best == nil || len(why) < len(best) {
			best = why
		}
	}
	if best == nil {
		v.refuse(CodeUnlisted, "%s is no allowed signer's", by)
		return
	}
	v.refused.Add(best...)
}

func date(seconds int64) string { return time.Unix(seconds, 0).UTC().Format("2006-01-02 15:04:05 UTC") }
