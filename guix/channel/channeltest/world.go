package channeltest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// When things are made, in seconds since 1970.
const (
	keyTime = 1600000000
	day     = 86400
	begin   = keyTime + 100*day // the introduction
)

// A World has the keys of all cases.
type World struct {
	A, B, C, R, D          *Key // A and B are in the list, C is not; R is RSA, D DSA
	Sub, SubKey            *Key // a certificate with a subkey
	Expired, Hard, Soft, E *Key // one that expired, two that were revoked, one on P-256
	files                  map[string][]byte
}

// NewWorld makes the keys.
func NewWorld(random io.Reader) (*World, error) {
	w := new(World)
	var err error
	make := func(k **Key, name string) {
		if err == nil {
			*k, err = Ed25519(name, keyTime, random)
		}
	}
	make(&w.A, "alice")
	make(&w.B, "bob")
	make(&w.C, "carol")
	make(&w.Sub, "dave")
	make(&w.SubKey, "dave-sub")
	make(&w.Expired, "expired")
	make(&w.Hard, "hard")
	make(&w.Soft, "soft")
	if err != nil {
		return nil, err
	}
	if w.R, err = RSA("rose", keyTime, 2048, random); err != nil {
		return nil, err
	}
	if w.D, err = DSA("dan", keyTime, random); err != nil {
		return nil, err
	}
	w.E = ECDSA("eve", keyTime)
	w.files = map[string][]byte{
		"alice.key": Armor("PUBLIC KEY BLOCK", w.A.File(Certificate{})),
		"bob.key":   w.B.File(Certificate{}), // binary
		"carol.key": Armor("PUBLIC KEY BLOCK", w.C.File(Certificate{})),
		"rose.key":  Armor("PUBLIC KEY BLOCK", w.R.File(Certificate{})),
		"dan.key":   w.D.File(Certificate{}),
		"dave.key":  Armor("PUBLIC KEY BLOCK", w.Sub.File(Certificate{Subkeys: []*Key{w.SubKey}})),
		// Two certificates in one file.
		"gone.key": append(w.Expired.File(Certificate{Lifetime: 101 * day}), w.Hard.File(Certificate{Revoked: begin + 2*day, Reason: 2})...),
		"soft.key": w.Soft.File(Certificate{Revoked: begin + 2*day, Reason: 3}),
		"eve.key":  w.E.File(Certificate{}),
		"README":   []byte("keys"),
	}
	return w, nil
}

// A Builder builds the history of one case.
type Builder struct {
	*World
	*Repo
	Intro git.ID // signed by A, with a list of A, B, R and D
	keys  map[string][]byte
	clock int64
}

// list makes the text of a .guix-authorizations.
func list(keys ...*Key) string {
	var b strings.Builder
	b.WriteString(";; keys\n(authorizations\n (version 0)\n ((")
	for i, k := range keys {
		if i > 0 {
			b.WriteString(")\n  (")
		}
		fmt.Fprintf(&b, "%q (name %q)", k.Fingerprint, k.Name)
	}
	b.WriteString(")))\n")
	return b.String()
}

func (w *World) builder() *Builder {
	b := &Builder{World: w, Repo: NewRepo(), keys: maps.Clone(w.files), clock: begin}
	b.Intro = b.Commit(Spec{Signer: w.A, Tree: b.Files("intro", list(w.A, w.B, w.R, w.D))})
	return b
}

// Files makes the tree of a commit: a file with text, and a list unless it is "".
func (b *Builder) Files(text, list string) git.ID {
	e := []Entry{{git.ModeFile, "file", b.Put(git.KindBlob, []byte(text))}}
	if list != "" {
		e = append(e, Entry{git.ModeFile, ".guix-authorizations", b.Put(git.KindBlob, []byte(list))})
	}
	return b.Tree(e...)
}

// A Spec says what commit to make.
type Spec struct {
	Tree    git.ID // zero: as Same makes it
	Same    string // the file's text; the list is that of the introduction
	Parents []git.ID
	Signer  *Key // nil for none
	Form    Form
	At      int64 // when it is committed and signed; 0: a minute after the last one
	Message string
	Headers string // lines between the committer and gpgsig
	Author  string // line

	Payload func([]byte) []byte                    // what is signed instead of the commit without its signature
	Packets func([]byte) []byte                    // change the packets of the signature
	Armor   func([]byte) []byte                    // change its armour
	Place   func(head, gpgsig, body []byte) []byte // put the commit together otherwise
}

// Commit makes a commit and returns its id.
func (b *Builder) Commit(s Spec) git.ID {
	b.clock += 60
	if s.At == 0 {
		s.At = b.clock
	}
	if s.Tree.IsZero() {
		s.Tree = b.Files(s.Same, list(b.A, b.B, b.R, b.D))
	}
	if s.Message == "" {
		s.Message = "message\n"
	}
	if s.Author == "" {
		s.Author = fmt.Sprintf("An Author <author@example.org> %d +0200", s.At)
	}
	if s.Form.Created == 0 {
		s.Form.Created = uint32(s.At)
	}
	var head []byte
	head = fmt.Appendf(head, "tree %s\n", s.Tree)
	for _, p := range s.Parents {
		head = fmt.Appendf(head, "parent %s\n", p)
	}
	head = fmt.Appendf(head, "author %s\ncommitter Cöm Mitter <committer@example.org> %d +0000\n%s", s.Author, s.At, s.Headers)
	body := []byte("\n" + s.Message)
	var gpgsig []byte
	if s.Signer != nil {
		payload := slices.Concat(head, body)
		if s.Payload != nil {
			payload = s.Payload(payload)
		}
		packets := s.Signer.Signature(s.Form, payload)
		if s.Packets != nil {
			packets = s.Packets(packets)
		}
		armor := Armor("SIGNATURE", packets)
		if s.Armor != nil {
			armor = s.Armor(armor)
		}
		gpgsig = Header("gpgsig", armor)
	}
	if s.Place != nil {
		return b.Put(git.KindCommit, s.Place(head, gpgsig, body))
	}
	return b.Put(git.KindCommit, slices.Concat(head, gpgsig, body))
}

// Header makes a header of several lines, the later ones folded.
func Header(name string, text []byte) []byte {
	text = bytes.TrimSuffix(text, []byte("\n"))
	return slices.Concat([]byte(name+" "), bytes.ReplaceAll(text, []byte("\n"), []byte("\n ")), []byte("\n"))
}

// chain adds n commits by signer.
func (b *Builder) chain(parent git.ID, signer *Key, n int) git.ID {
	for i := range n {
		parent = b.Commit(Spec{Same: fmt.Sprint(parent, i), Parents: []git.ID{parent}, Signer: signer})
	}
	return parent
}

// keyring makes the branch keyring of b.keys.
func (b *Builder) keyring() {
	var e []Entry
	dirs := make(map[string][]Entry)
	for name, data := range b.keys {
		id := b.Put(git.KindBlob, data)
		if dir, below, ok := strings.Cut(name, "/"); ok {
			dirs[dir] = append(dirs[dir], Entry{git.ModeFile, below, id})
		} else {
			e = append(e, Entry{git.ModeFile, name, id})
		}
	}
	for dir, below := range dirs {
		e = append(e, Entry{git.ModeTree, dir, b.Tree(below...)})
	}
	if b.Refs["refs/heads/keyring"].IsZero() {
		b.Refs["refs/heads/keyring"] = b.Commit(Spec{Tree: b.Tree(e...)})
	}
}

// A History is a case, ready to be judged.
type History struct {
	*Repo
	Introduction git.ID
	Signer       openpgp.Fingerprint
	End          git.ID
	Historical   []openpgp.Fingerprint
}

// Growing makes an honest history with merges, of n states one after another, and a request for it whose End is to be set.
func Growing(w *World, n int) (ends []git.ID, h History) {
	b := w.builder()
	tip := b.Intro
	for i := range n {
		signer := []*Key{b.A, b.B, b.R}[i%3]
		switch {
		case i%5 == 4 && i > 8: // a branch from an earlier state
			side := b.chain(ends[i-7], b.B, 2)
			tip = b.Commit(Spec{Same: fmt.Sprint("merge", i), Parents: []git.ID{tip, side}, Signer: signer})
		case i%7 == 6: // something that Guix passes over
			tip = b.Commit(Spec{Same: fmt.Sprint("odd", i), Parents: []git.ID{tip}, Signer: signer, Headers: "nonsense\n"})
		default:
			tip = b.chain(tip, signer, 1+i%2)
		}
		ends = append(ends, tip)
	}
	b.keyring()
	return ends, History{Repo: b.Repo, Introduction: b.Intro, Signer: w.A.Fingerprint}
}
