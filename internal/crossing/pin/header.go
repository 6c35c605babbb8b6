package pin

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/internal/trust"
)

// CodeBundle is the code of a bundle whose header is not the one that its pin asks for.
const CodeBundle = "channel-bundle"

const bundleMagic = "# v2 git bundle\n"

// A Header is what stands before the pack in a bundle (gitformat-bundle, version 2), in the one spelling that an item has it in:
//
//	# v2 git bundle
//	-BASIS SP                      if there is a basis; the space ends what git wants to be a remark
//	-KEYRING SP                    the basis's keyring, if the receiver is to have it
//	COMMIT refs/heads/BRANCH
//	KEYRING refs/heads/keyring
//
// and an empty line.
type Header struct {
	Basis        git.ID // zero for none
	BasisKeyring git.ID // zero for none
	Branch       string
	Commit       git.ID
	Keyring      git.ID
}

// Prerequisites are the commits that the receiver must have, with their history.
func (h *Header) Prerequisites() []git.ID {
	return slices.DeleteFunc([]git.ID{h.Basis, h.BasisKeyring}, git.ID.IsZero)
}

// Text prints the header.
func (h *Header) Text() []byte {
	var b bytes.Buffer
	b.WriteString(bundleMagic)
	for _, id := range h.Prerequisites() {
		fmt.Fprintf(&b, "-%s \n", id)
	}
	fmt.Fprintf(&b, "%s refs/heads/%s\n%s refs/heads/%s\n\n", h.Commit, h.Branch, h.Keyring, KeyringBranch)
	return b.Bytes()
}

// ParseHeader reads a header that begins text. It returns how long that is.
func ParseHeader(text []byte) (h *Header, n int, err error) {
	bad := func(format string, args ...any) (*Header, int, error) {
		return nil, 0, trust.Refuse(CodeBundle, "bundle", format, args...).At(int64(n))
	}
	if !bytes.HasPrefix(text, []byte(bundleMagic)) {
		return bad("it begins %.40q: want %q, a bundle of version 2", text[:min(len(text), 40)], bundleMagic)
	}
	n = len(bundleMagic)
	h = new(Header)
	var refs []string
	for {
		line, _, ok := bytes.Cut(text[n:min(len(text), n+MaxHeader)], []byte("\n"))
		if !ok || n+len(line) >= MaxHeader {
			return bad("the header does not end within %d bytes", MaxHeader)
		}
		s := string(line)
		required := strings.HasPrefix(s, "-")
		switch id, err := git.ParseID(s[min(len(s), btoi(required)):min(len(s), 40+btoi(required))]); {
		case s == "":
			n++
			if len(refs) != 2 {
				return bad("%d references: want a branch and %s", len(refs), KeyringBranch)
			}
			return h, n, nil
		case err != nil || id.IsZero():
			return bad("%.100q is no line of a header", s)
		case required && (len(refs) > 0 || s[41:] != " " || !h.BasisKeyring.IsZero()):
			return bad("%.100q: want at most two prerequisites, before the references, each with a space behind it", s)
		case required && h.Basis.IsZero():
			h.Basis = id
		case required:
			h.BasisKeyring = id
		case len(refs) == 2:
			return bad("%.100q: a third reference", s)
		default:
			name, ok := strings.CutPrefix(s[40:], " refs/heads/")
			if !ok {
				return bad("%.100q is no branch", s)
			}
			if len(refs) == 1 && name != KeyringBranch {
				return bad("the second reference is %.100q: want refs/heads/%s", s, KeyringBranch)
			}
			if len(refs) == 0 {
				if err := trust.CheckBranch(name); err != nil {
					return bad("%v", err)
				}
				h.Branch, h.Commit = name, id
			} else {
				h.Keyring = id
			}
			refs = append(refs, name)
		}
		n += len(line) + 1
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// matches compares the header with the pin.
func (h *Header) matches(p *Pin) trust.Refusals {
	var bad trust.Refusals
	same := func(what string, got, want string) {
		if got != want {
			bad.Add(trust.Refuse(CodeBundle, "bundle", "its %s is %s, the pin's is %s", what, got, want))
		}
	}
	same("branch", h.Branch, p.Branch)
	same("commit", h.Commit.String(), p.Commit.String())
	same("keyring", h.Keyring.String(), p.Keyring.String())
	same("basis", orDash(h.Basis), orDash(p.Basis))
	return bad
}
