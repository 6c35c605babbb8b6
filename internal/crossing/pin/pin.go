package pin

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// KeyringBranch is the branch as which the keys cross.
const KeyringBranch = "keyring"

// CodeSyntax is the code of what is no pin.
const CodeSyntax = "pin-syntax"

const head = "sallyport pin v1"

// A Pin says at which commit a channel stands.
type Pin struct {
	Channel      string
	URL          string // the one that the enclave and its tracks have, too
	Branch       string
	Introduction git.ID
	Signer       openpgp.Fingerprint // of the introduction
	Keyring      git.ID              // the commit of the keyring branch
	Commit       git.ID
	NarHash      trust.Digest // of the checkout
	NarSize      int64
	Basis        git.ID // the commit whose history the receiver has; zero for none
}

// Parse reads a pin. All that is wrong with it is in the error, a [trust.Refusals].
func Parse(text []byte) (*Pin, error) {
	if len(text) > MaxPin {
		return nil, trust.Refusals{trust.Refuse(CodeSyntax, "pin", "%d bytes, more than %d", len(text), MaxPin)}
	}
	p := new(Pin)
	var bad trust.Refusals
	line, off := 1, 0
	fault := func(format string, args ...any) {
		bad.Add(trust.Refuse(CodeSyntax, "pin", "line %d: %s", line, fmt.Sprintf(format, args...)).At(int64(off)))
	}
	rest := text
	// fields reads the next line: a word and so many fields, with one space between.
	fields := func(word string, n int) ([]string, bool) {
		before, after, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			fault("it ends before the line of %q", word)
			rest = nil
			return nil, false
		}
		rest = after
		f := strings.Split(string(before), " ")
		if f[0] != word || len(f) != n+1 {
			fault("%.100q: want %q and %d fields, with one space between", before, word, n)
			return nil, false
		}
		return f[1:], true
	}
	next := func() { off, line = len(text)-len(rest), line+1 }
	check := func(err error) {
		if err != nil {
			fault("%v", err)
		}
	}
	id := func(s string) git.ID {
		id, err := git.ParseID(s)
		if err != nil || id.IsZero() {
			fault("%.80q is not the id of a commit: want 40 lower-case hexadecimal digits", s)
		}
		return id
	}
	if f, ok := fields("sallyport", 2); ok && strings.Join(f, " ") != strings.TrimPrefix(head, "sallyport ") {
		fault("%.80q: want %q", strings.Join(f, " "), head)
	}
	for _, l := range []struct {
		word  string
		count int
		read  func(f []string)
	}{
		{"channel", 1, func(f []string) { p.Channel = f[0]; check(trust.CheckChannel(f[0])) }},
		{"url", 1, func(f []string) { p.URL = f[0]; check(trust.CheckChannelURL(f[0])) }},
		{"branch", 1, func(f []string) { p.Branch = f[0]; check(trust.CheckBranch(f[0])) }},
		{"introduction", 2, func(f []string) {
			p.Introduction = id(f[0])
			if err := trust.CheckOpenPGP(f[1]); err != nil {
				fault("%v", err)
				return
			}
			hex.Decode(p.Signer[:], []byte(f[1])) // 40 digits, as was checked
		}},
		{"keyring", 1, func(f []string) { p.Keyring = id(f[0]) }},
		{"commit", 1, func(f []string) { p.Commit = id(f[0]) }},
		{"nar", 2, func(f []string) {
			var err error
			p.NarHash, err = trust.ParseDigest(f[0])
			check(err)
			p.NarSize, err = trust.ParseNumber(f[1], MaxNar)
			check(err)
		}},
		{"basis", 1, func(f []string) {
			if f[0] != "-" {
				p.Basis = id(f[0])
			}
		}},
	} {
		next()
		if f, ok := fields(l.word, l.count); ok {
			l.read(f)
		}
		if rest == nil {
			break
		}
	}
	next()
	if len(rest) > 0 {
		fault("%d bytes after the end", len(rest))
	}
	if len(bad) > 0 {
		return nil, bad
	}
	return p, nil
}

// Check lists what keeps p from being a pin.
func (p *Pin) Check() error {
	_, err := Parse(p.Text())
	return err
}

// Text prints the pin.
func (p *Pin) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nchannel %s\nurl %s\nbranch %s\n", head, p.Channel, p.URL, p.Branch)
	fmt.Fprintf(&b, "introduction %s %X\nkeyring %s\ncommit %s\n", p.Introduction, p.Signer[:], p.Keyring, p.Commit)
	fmt.Fprintf(&b, "nar %s %s\nbasis %s\n", p.NarHash, strconv.FormatInt(p.NarSize, 10), orDash(p.Basis))
	return b.Bytes()
}

func orDash(id git.ID) string {
	if id.IsZero() {
		return "-"
	}
	return id.String()
}

// StoreName is the name of the item in the store: what stands behind the hash.
func (p *Pin) StoreName() string { return p.Channel + "-channel-" + p.Commit.String() }

// ItemName is the name of the item whose nar has this digest: it is bound to it as a source's is.
func (p *Pin) ItemName(nar trust.Digest) (string, error) {
	path, err := storepath.Source(p.StoreName(), nar)
	if err != nil {
		return "", err
	}
	return path.Base(), nil
}

// Scheme is the pin as channels.scm has it.
func (p *Pin) Scheme() scheme.Channel {
	return scheme.Channel{Name: p.Channel, URL: p.URL, Branch: p.Branch, Commit: p.Commit.String(),
		Introduction: &scheme.Introduction{Commit: p.Introduction.String(), Signer: scheme.Fingerprint(p.Signer)}}
}
