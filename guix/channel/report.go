package channel

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// Codes of a [Refusal]. Each is a rule of Guix, or of this package where it is stricter; the package comment has the list.
const (
	CodeIntroductionMissing = "introduction-missing"
	CodeIntroductionSigner  = "introduction-signer"
	CodeNotDescendant       = "not-descendant"
	CodeEndMissing          = "end-missing"
	CodeKeyring             = "keyring-malformed"
	CodeUnsigned            = "commit-unsigned"
	CodeNotUTF8             = "commit-not-utf8"
	CodeSignatureForm       = "signature-malformed"
	CodeSignatureText       = "signature-text"
	CodeSignatureHash       = "signature-hash"
	CodeSignatureBad        = "signature-bad"
	CodeKeyMissing          = "key-missing"
	CodeKeyUnusable         = "key-unusable"
	CodeUnauthorized        = "key-unauthorized"
	CodeRemoved             = "authorizations-removed"
	CodeAuthorizations      = "authorizations-malformed"
	CodeObjectMissing       = "object-missing"
	CodeObjectMalformed     = "object-malformed"
	CodeObjectCollision     = "object-collision"
)

// Codes of a [Finding].
const (
	FindingExpired        = "signed-after-expiry"
	FindingRevoked        = "signed-after-revocation"
	FindingBeforeKey      = "signed-before-key"
	FindingUndated        = "signature-undated"
	FindingWeakHash       = "weak-hash"
	FindingWeakKey        = "weak-key"
	FindingOldSignature   = "old-signature-version"
	FindingSeveral        = "several-signatures"
	FindingHeaders        = "malformed-headers"
	FindingNUL            = "zero-byte"
	FindingRemoval        = "authorizations-removal"
	FindingNotIntroduced  = "before-introduction"
	FindingBesideOriginal = "not-from-introduction"
)

// FindingCodes lists all codes of findings with what they mean.
func FindingCodes() [][2]string {
	return [][2]string{
		{FindingExpired, "the signature was made after its key had expired"},
		{FindingRevoked, "the signature is by a key that its owner has revoked, and younger than that or with a key said to be compromised"},
		{FindingBeforeKey, "the signature is older than its key"},
		{FindingUndated, "the signature does not say when it was made"},
		{FindingWeakHash, "the signature uses SHA-1 or RIPEMD-160"},
		{FindingWeakKey, "the key has fewer than 2048 bits"},
		{FindingOldSignature, "the signature is of version 3"},
		{FindingSeveral, "there is more than one signature, or one where none belongs; Guix looks at the first alone"},
		{FindingHeaders, "the commit's headers are not as git writes them"},
		{FindingNUL, "a zero byte, after which nothing is signed"},
		{FindingRemoval, "the commit removes .guix-authorizations; Guix refuses only its children"},
		{FindingNotIntroduced, "the end is an ancestor of the introduction, about which nothing is proven"},
		{FindingBesideOriginal, "the commit does not descend from the introduction: it was merged from beside it"},
	}
}

// A Refusal says why a commit, or the channel, is not authentic.
type Refusal struct {
	Code   string
	Commit git.ID // zero for the channel as a whole
	Author string // of the commit, as it says; escaped
	Key    string // the fingerprint or key id that signed, or ""
	Rule   string // what is demanded
	File   string // what would have had to allow it, COMMIT:FILE
	Detail string
}

func (r Refusal) String() string {
	var b strings.Builder
	b.WriteString(r.Code)
	if !r.Commit.IsZero() {
		fmt.Fprintf(&b, ": commit %s", r.Commit)
	}
	if r.Author != "" {
		fmt.Fprintf(&b, " by %s", r.Author)
	}
	fmt.Fprintf(&b, ": %s", r.Detail)
	return b.String()
}

// A Finding is something that Guix passes over.
type Finding struct {
	Code   string
	Commit git.ID
	Author string
	Key    string
	Detail string
	When   int64 // the committer's date, as it says
	Signed int64 // the signature's date, as it says; 0 if it says none
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: commit %s by %s: %s", f.Code, f.Commit, f.Author, f.Detail)
	if f.Signed != 0 {
		s += ", signed at " + date(f.Signed)
	}
	return s
}

func sortFindings(all []Finding) {
	slices.SortFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.When, b.When), bytes.Compare(a.Commit[:], b.Commit[:]), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Detail, b.Detail))
	})
}

// A Count tells how many commits of the range a key has signed.
type Count struct {
	Key     openpgp.Fingerprint
	Commits int
}

// Escape makes another's text one line of printable characters within bounds.
func Escape(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "..."
	}
	plain := true
	for _, c := range s {
		plain = plain && c >= ' ' && c != 0x7f && c != 0xfffd && !(0x80 <= c && c < 0xa0) && !bidirectional(c)
	}
	if plain {
		return s
	}
	q := fmt.Sprintf("%+q", s)
	return q[1 : len(q)-1]
}

// bidirectional characters reorder what a terminal shows.
func bidirectional(c rune) bool {
	return c == 0x61c || 0x200b <= c && c <= 0x200f || 0x2028 <= c && c <= 0x202e || 0x2066 <= c && c <= 0x2069 || c == 0xfeff
}

func author(c *git.Commit) string {
	name, email := git.Person(c.Author)
	return Escape(name + " <" + email + ">")
}
