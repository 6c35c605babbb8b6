// Package ceremony is how officers make documents that none of them can make alone: roots and orders.
//
// # Drafts and signatures
//
// A draft is the unsigned text of a document, in a file of its own. Each officer reads what it changes, signs it, and gives back a file with one
// signature; whoever has enough of them puts the document in force. Nothing else is kept anywhere: files are copied by hand between
// people who may sit at different places, and each step can be killed and done again.
//
// A signature file is three lines:
//
//	sallyport signature v1
//	of root 5f3c… (the document's word, and the digest of the text that is signed)
//	— olga/root 4gqk…
//
// The second line makes a signature of another draft known by name: it is refused, and not merely unknown. What counts is the third line, which stands in the note
// as it is.
//
// # What a draft changes
//
// [Changes] says in words what a root changes against the one before: who gains and who loses what. What takes a guard away (a lower threshold, a role that may be held
// together with another again, a policy that is gone) is marked as dangerous, and stands first.
//
// # Who is missing
//
// A root is signed by the threshold of the version before, with its keys, and by its own. [Tallies] says for each who has signed and who still may.
package ceremony

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// MaxSignatureFile bounds a signature file.
const MaxSignatureFile = 16 << 10

const signatureTitle = "sallyport signature v1"

// The documents that are drafted.
const (
	Root   = "root"
	Orders = "orders"
)

// A Draft is an unsigned document. Exactly one of Root and Orders is set: parsed, and nothing is verified.
type Draft struct {
	Word   string // Root or Orders
	Text   []byte
	Root   *trust.Root
	Orders *trust.Orders
}

// Date is the draft's, against which the bounds of keys are held.
func (d *Draft) Date() time.Time {
	if d.Root != nil {
		return d.Root.Date
	}
	return d.Orders.Date
}

// MaxDraft bounds a draft.
const MaxDraft = trust.MaxOrdersSize

// ParseDraft reads the text of a draft.
func ParseDraft(text []byte) (*Draft, error) {
	d := &Draft{Text: text}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	var err error
	switch {
	case bytes.HasPrefix(first, []byte("sallyport root ")):
		d.Word = Root
		d.Root, err = trust.ParseRoot(text)
	case bytes.HasPrefix(first, []byte("sallyport orders ")):
		d.Word = Orders
		d.Orders, err = trust.ParseOrders(text)
	default:
		return nil, trust.Refuse("draft-syntax", "draft", "it begins with %.60q; a draft is the text of a root or of orders", first)
	}
	return d, err
}

// Digest is the digest of the text.
func (d *Draft) Digest() trust.Digest { return trust.Sum(d.Text) }

// Subject is how refusals and people name the draft.
func (d *Draft) Subject() string {
	if d.Root != nil {
		return fmt.Sprintf("root version %d", d.Root.Version)
	}
	return d.Orders.Subject()
}

// Context is what a key must sign to sign the draft.
func (d *Draft) Context() trust.Context {
	if d.Root != nil {
		return trust.ContextRoot
	}
	return trust.ContextOrder
}

// Sign signs the draft and returns the signature file.
func (d *Draft) Sign(s trust.Signer) ([]byte, error) {
	if err := trust.CheckContext(s, d.Context()); err != nil {
		return nil, err
	}
	line, err := trust.SignText(d.Text, s)
	if err != nil {
		return nil, err
	}
	return d.File(line), nil
}

// File makes a signature file of a signature line.
func (d *Draft) File(line string) []byte {
	return fmt.Appendf(nil, "%s\nof %s %s\n%s\n", signatureTitle, d.Word, d.Digest(), line)
}

// Line reads a signature file: the line that stands in a note. One of another document is refused.
func (d *Draft) Line(name string, file []byte) (string, error) {
	lines := strings.Split(string(file), "\n")
	if len(file) > MaxSignatureFile || len(lines) != 4 || lines[0] != signatureTitle || lines[3] != "" || trust.CheckLine(lines[2]) != nil {
		return "", trust.Refuse("signature-file", name, "it is no signature file: want %q, the document's digest, and one signature line", signatureTitle)
	}
	if want := fmt.Sprintf("of %s %s", d.Word, d.Digest()); lines[1] != want {
		return "", trust.Refuse("signature-other", name, "it is a signature %s; this is %s, whose digest is %s", printable(lines[1]), d.Subject(), d.Digest()).
			WithHint("the draft was changed after it was signed, or two drafts are about: whoever signed must read this one, and sign again")
	}
	return lines[2], nil
}

func printable(s string) string { return fmt.Sprintf("%.120q", s) }

// A Tally is how far the signatures of one root's officers have come.
type Tally struct {
	By      int64    `json:"by_root"` // the version whose keys and threshold are counted
	Want    int      `json:"want"`
	Have    int      `json:"have"` // persons; a deputy and the principal are one
	Signed  []string `json:"signed"`
	Missing []string `json:"missing"` // who could sign still
}

// Met reports whether the threshold is reached.
func (t Tally) Met() bool { return t.Have >= t.Want }

// Complete reports whether all thresholds are reached.
func Complete(tallies []Tally) bool {
	return !slices.ContainsFunc(tallies, func(t Tally) bool { return !t.Met() })
}

// Tallies verifies the signature lines by name and counts them: for a root by the one before, nil for version 1, and by itself; for orders by the root in force. Lines by keys
// that neither root knows are refused, as is one that does not verify: all at once, beside the count of the good ones.
func (d *Draft) Tallies(in *trust.Root, lines map[string]string) (tallies []Tally, good []string, err error) {
	var judges []*trust.Root
	if in != nil {
		judges = append(judges, in)
	}
	date := d.Date()
	if d.Root != nil {
		judges = append(judges, d.Root)
	}
	var known []trust.VKey
	for _, r := range judges {
		for _, k := range r.Signers(d.Context(), date) {
			if !slices.ContainsFunc(known, k.Equal) {
				known = append(known, k)
			}
		}
	}
	var rs trust.Refusals
	var signers []trust.VKey
	for _, name := range sortedKeys(lines) {
		k, err := trust.VerifyLine(d.Word, d.Text, lines[name], known)
		if err != nil {
			for _, r := range asRefusals(err) {
				r.Subject = name
				rs.Add(r)
			}
			continue
		}
		if !slices.ContainsFunc(signers, k.Equal) {
			signers, good = append(signers, k), append(good, lines[name])
		}
	}
	for _, r := range judges {
		tallies = append(tallies, d.tally(r, signers))
	}
	return tallies, good, rs.Err()
}

// tally counts by one root.
func (d *Draft) tally(r *trust.Root, signers []trust.VKey) Tally {
	t := Tally{By: r.Version, Want: r.OrderThreshold(), Signed: []string{}, Missing: []string{}}
	if d.Root != nil {
		t.Want = r.RootThreshold()
	}
	known := r.Signers(d.Context(), d.Date())
	var counted []trust.VKey
	seats := map[string]bool{}
	for _, k := range known {
		if slices.ContainsFunc(signers, k.Equal) {
			counted = append(counted, k)
			seats[r.Seat(trust.RoleOfficer, k.Person)] = true
			if !slices.Contains(t.Signed, k.Person) {
				t.Signed = append(t.Signed, k.Person)
			}
		}
	}
	for _, k := range known {
		if !seats[r.Seat(trust.RoleOfficer, k.Person)] && !slices.Contains(t.Missing, k.Person) {
			t.Missing = append(t.Missing, k.Person)
		}
	}
	slices.Sort(t.Signed)
	slices.Sort(t.Missing)
	t.Have = r.Count(trust.RoleOfficer, counted)
	return t
}

func asRefusals(err error) trust.Refusals {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return trust.Refusals{trust.Refuse("signature-file", "", "%v", err)}
	}
	return rs
}

func sortedKeys(m map[string]string) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
