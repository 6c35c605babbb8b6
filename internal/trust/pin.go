package trust

import (
	"encoding/base32"
	"fmt"
	"strings"
)

// A fingerprint is the first 160 bits of a digest in base32: 8 groups of 4 letters and digits, which a person can read aloud.
const (
	fingerprintBytes = 20
	fingerprintChars = 32
	fingerprintGroup = 4
)

func base32Lower() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// Fingerprint prints a digest as people speak it and as it stands on paper: abcd-efgh-….
func Fingerprint(d Digest) string {
	s := base32Lower().EncodeToString(d[:fingerprintBytes])
	var b strings.Builder
	for i := 0; i < len(s); i += fingerprintGroup {
		if i > 0 {
			b.WriteByte('-')
		}
		b.WriteString(s[i : i+fingerprintGroup])
	}
	return b.String()
}

// A Pin is what somebody typed from paper: a fingerprint, or all 64 digits. The zero Pin matches nothing.
type Pin struct {
	want Digest
	n    int // bytes of want that were given
}

// ParsePin parses what a person types: a fingerprint, or 64 hexadecimal digits. It is no part of a document: the case of letters does
// not matter, nor where hyphens and spaces stand.
func ParsePin(s string) (Pin, error) {
	plain := strings.ToLower(strings.NewReplacer("-", "", " ", "").Replace(s))
	if len(plain) == 2*len(Digest{}) {
		d, err := ParseDigest(plain)
		return Pin{d, len(d)}, err
	}
	b, err := base32Lower().DecodeString(plain)
	if err != nil || len(plain) != fingerprintChars || strings.ContainsAny(plain, "\r\n") {
		return Pin{}, fmt.Errorf("fingerprint %.80q: want 8 groups of 4 of the letters a to z and the digits 2 to 7, as in %s, or 64 hexadecimal digits", s, Fingerprint(Digest{}))
	}
	p := Pin{n: fingerprintBytes}
	copy(p.want[:], b)
	return p, nil
}

// Matches reports whether d is the digest that stood on the paper.
func (p Pin) Matches(d Digest) bool { return p.n > 0 && string(d[:p.n]) == string(p.want[:p.n]) }

// String prints the pin as it was given: a fingerprint or 64 digits.
func (p Pin) String() string {
	switch p.n {
	case 0:
		return "none"
	case fingerprintBytes:
		return Fingerprint(p.want)
	}
	return p.want.String()
}

// Matches reports whether both are the same digest, and not none.
func (d Digest) Matches(other Digest) bool { return !d.IsZero() && d == other }

// A Pinned says whether a digest is the one that was handed over: a [Digest] or a [Pin].
type Pinned interface {
	Matches(Digest) bool
	String() string
}
