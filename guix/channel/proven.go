package channel

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// A Proven is what a run has proven: which commits are authentic, in the light of one introduction, one signer, one keyring and one set of historical
// keys. With it the next run judges only what is new and comes to the same verdict, findings included, as without.
//
// An id names a commit with all its history, so a proof holds in every repository. Whoever can write one can have anything believed: it must be
// kept where only the judge writes, or be sealed by him. See internal/judge/authenticate.
type Proven struct {
	binding  [sha256.Size]byte
	before   []git.ID // the ancestors of the introduction, sorted
	commits  []provenCommit
	signers  []openpgp.Fingerprint
	findings []Finding
}

// A provenCommit stands behind its parents.
type provenCommit struct {
	id      git.ID
	signer  uint32
	parents []int32 // places in commits, or one of the two below
}

const (
	parentIntro  = -1
	parentBefore = -2
)

// proofName stands at the beginning of what is hashed into a binding, and of a written proof. Its number changes with the rules.
const proofName = "sallyport channel proof 1\n"

// binding names the circumstances of a proof.
func (req *Request) binding() [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(proofName))
	h.Write(req.Introduction[:])
	h.Write(req.Signer[:])
	h.Write(req.Keyring.Digest[:])
	historical := slices.Clone(req.Historical)
	slices.SortFunc(historical, func(a, b openpgp.Fingerprint) int { return bytes.Compare(a[:], b[:]) })
	for _, f := range slices.Compact(historical) {
		h.Write(f[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// Binding returns the name of the circumstances under which a proof for this request holds.
func (req *Request) Binding() [sha256.Size]byte { return req.binding() }

// Commits returns how many commits are proven.
func (p *Proven) Commits() int { return len(p.commits) }

// recall makes nodes of what was proven.
func (a *authenticator) recall(p *Proven, intro *node) {
	a.g.before = p.before
	nodes := make([]node, len(p.commits))
	a.beside = &node{before: true}
	for i, c := range p.commits {
		n := &nodes[i]
		n.id, n.proven = c.id, true
		n.signer = &p.signers[c.signer]
		n.parents = make([]*node, len(c.parents))
		for k, at := range c.parents {
			switch at {
			case parentIntro:
				n.parents[k] = intro
			case parentBefore:
				n.parents[k] = a.beside
			default:
				n.parents[k] = &nodes[at]
			}
		}
		a.g.nodes[n.id] = n
	}
	for _, f := range p.findings {
		n := a.g.nodes[f.Commit]
		n.notes = append(n.notes, f)
	}
}

// prove makes a proof of what was proven before and of the commits of order, parents first.
func (a *authenticator) prove(order []*node) *Proven {
	p := &Proven{binding: a.req.binding(), before: a.g.before}
	if old := a.req.Proven; old != nil {
		p.commits, p.signers, p.findings = slices.Clip(old.commits), slices.Clip(old.signers), slices.Clip(old.findings)
	} else {
		for id, n := range a.g.nodes {
			if n.before {
				p.before = append(p.before, id)
			}
		}
		slices.SortFunc(p.before, func(x, y git.ID) int { return bytes.Compare(x[:], y[:]) })
	}
	places := make(map[*node]int32, len(p.commits)+len(order))
	for i, c := range p.commits {
		places[a.g.nodes[c.id]] = int32(i)
	}
	signers := make(map[openpgp.Fingerprint]uint32)
	for i, s := range p.signers {
		signers[s] = uint32(i)
	}
	for _, n := range order {
		if n.proven {
			continue
		}
		s, ok := signers[*n.signer]
		if !ok {
			s = uint32(len(p.signers))
			signers[*n.signer] = s
			p.signers = append(p.signers, *n.signer)
		}
		c := provenCommit{id: n.id, signer: s}
		for _, parent := range n.parents {
			switch {
			case parent.intro:
				c.parents = append(c.parents, parentIntro)
			case parent.before:
				c.parents = append(c.parents, parentBefore)
			default:
				c.parents = append(c.parents, places[parent])
			}
		}
		places[n] = int32(len(p.commits))
		p.commits = append(p.commits, c)
		p.findings = append(p.findings, n.notes...)
	}
	sortFindings(p.findings)
	return p
}

// MarshalBinary writes the proof: the name, the binding, the ancestors of the introduction, the signers, the commits, the
// texts of findings, the findings; numbers as varints, each list after its length.
func (p *Proven) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, len(proofName)+64+20*len(p.before)+28*len(p.commits))
	b = append(b, proofName...)
	b = append(b, p.binding[:]...)
	b = binary.AppendUvarint(b, uint64(len(p.before)))
	for _, id := range p.before {
		b = append(b, id[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.signers)))
	for _, f := range p.signers {
		b = append(b, f[:]...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.commits)))
	for i, c := range p.commits {
		b = append(b, c.id[:]...)
		b = binary.AppendUvarint(b, uint64(c.signer))
		b = binary.AppendUvarint(b, uint64(len(c.parents)))
		for _, at := range c.parents {
			// How far back; 0 and 1 are the introduction and its ancestors.
			switch at {
			case parentIntro:
				b = append(b, 0)
			case parentBefore:
				b = append(b, 1)
			default:
				b = binary.AppendUvarint(b, uint64(i)-uint64(at)+1)
			}
		}
	}
	// Authors, keys and reasons come again and again.
	places := make(map[git.ID]int, len(p.commits))
	for i, c := range p.commits {
		places[c.id] = i
	}
	var texts []string
	known := make(map[string]int)
	for _, f := range p.findings {
		for _, s := range f.texts() {
			if _, ok := known[*s]; !ok {
				known[*s] = len(texts)
				texts = append(texts, *s)
			}
		}
	}
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, s := range texts {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendUvarint(b, uint64(len(p.findings)))
	for _, f := range p.findings {
		b = binary.AppendUvarint(b, uint64(places[f.Commit]))
		b = binary.AppendVarint(b, f.When)
		b = binary.AppendVarint(b, f.Signed)
		for _, s := range f.texts() {
			b = binary.AppendUvarint(b, uint64(known[*s]))
		}
	}
	if len(b) > maxProven {
		return nil, errors.New("channel: the proof is too large to be kept")
	}
	return b, nil
}

func (f *Finding) texts() [4]*string { return [4]*string{&f.Code, &f.Author, &f.Key, &f.Detail} }

var errProof = errors.New("channel: this is no proof, or one by other rules")

// UnmarshalBinary reads what MarshalBinary has written, and nothing else.
func (p *Proven) UnmarshalBinary(data []byte) error {
	if len(data) > maxProven || !bytes.HasPrefix(data, []byte(proofName)) {
		return errProof
	}
	b := data[len(proofName):]
	var q Proven
	take := func(n int) []byte {
		if len(b) < n {
			n, b = 0, nil
			return make([]byte, 64)[:64] // the length is checked at the end
		}
		part := b[:n]
		b = b[n:]
		return part
	}
	failed := false
	number := func() uint64 {
		n, k := binary.Uvarint(b)
		if k <= 0 || k > 1 && b[k-1] == 0 {
			failed = true
			b = nil
			return 0
		}
		b = b[k:]
		return n
	}
	count := func(size int) int {
		n := number()
		if n > uint64(len(b)/size) {
			failed = true
			b = nil
			return 0
		}
		return int(n)
	}
	if len(b) < len(q.binding) {
		return errProof
	}
	copy(q.binding[:], take(len(q.binding)))
	q.before = make([]git.ID, count(20))
	for i := range q.before {
		copy(q.before[i][:], take(20))
		if i > 0 && bytes.Compare(q.before[i-1][:], q.before[i][:]) >= 0 {
			return errProof
		}
	}
	q.signers = make([]openpgp.Fingerprint, count(20))
	for i := range q.signers {
		copy(q.signers[i][:], take(20))
	}
	q.commits = make([]provenCommit, count(22))
	known := make(map[git.ID]bool, len(q.commits))
	var all []int32 // one allocation for many lists
	for i := range q.commits {
		c := &q.commits[i]
		if failed || len(b) < 22 {
			return errProof
		}
		copy(c.id[:], take(20))
		signer, parents := number(), count(1)
		if failed || signer >= uint64(len(q.signers)) || known[c.id] {
			return errProof
		}
		known[c.id] = true
		c.signer = uint32(signer)
		if cap(all)-len(all) < parents {
			all = make([]int32, 0, max(4096, parents))
		}
		from := len(all)
		for range parents {
			switch back := number(); {
			case back == 0:
				all = append(all, parentIntro)
			case back == 1:
				all = append(all, parentBefore)
			case back-1 > uint64(i):
				return errProof
			default:
				all = append(all, int32(uint64(i)-(back-1)))
			}
		}
		c.parents = all[from:len(all):len(all)]
	}
	texts := make([]string, count(1))
	for i := range texts {
		n := number()
		if failed || n > 4*maxText+16 || n > uint64(len(b)) {
			return errProof
		}
		texts[i] = string(take(int(n)))
	}
	date := func() int64 {
		n := number()
		return int64(n>>1) ^ -int64(n&1) // as binary.AppendVarint writes it
	}
	q.findings = make([]Finding, count(7))
	for i := range q.findings {
		f := &q.findings[i]
		place := number()
		if failed || place >= uint64(len(q.commits)) {
			return errProof
		}
		f.Commit, f.When, f.Signed = q.commits[place].id, date(), date()
		for _, s := range f.texts() {
			k := number()
			if failed || k >= uint64(len(texts)) {
				return errProof
			}
			*s = texts[k]
		}
	}
	if failed || len(b) != 0 {
		return errProof
	}
	if !slices.IsSortedFunc(q.findings, func(x, y Finding) int { return cmp.Compare(x.When, y.When) }) {
		return errProof
	}
	*p = q
	return nil
}
