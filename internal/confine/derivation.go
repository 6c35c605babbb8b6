package confine

import (
	"bytes"
	"crypto/sha256"

	"sallyport/guix/derivation"
)

// A derivation comes back as its strings, in the order in which the file has them, so that the parent can put it together and print it again: the SHA-256 of what
// it prints must be that of the bytes it sent. Printing is the inverse of strict parsing; a child that reports another derivation than
// the one it was given is found out, and the parent never parses the original.
type (
	derivationLine struct {
		tag
		Outputs int   `json:"outputs"`
		Inputs  []int `json:"inputs"` // how many outputs each names
		Sources int   `json:"sources"`
		Args    int   `json:"args"`
		Env     int   `json:"env"`
	}
	// textLine is a string of the derivation, or a part of one.
	textLine struct {
		tag
		More bool   `json:"more"` // another part follows
		Data []byte `json:"data"`
	}
)

// maxInputs bounds the counts in the head line, which must fit a line.
const maxInputs = 16 << 10

// strings lists the strings of d in the order of the protocol, as pointers, to be read or to be set.
func stringsOf(d *derivation.Derivation) []*string {
	var s []*string
	for i := range d.Outputs {
		o := &d.Outputs[i]
		s = append(s, &o.ID, &o.Path, &o.HashAlgo, &o.Hash)
	}
	for i := range d.Inputs {
		s = append(s, &d.Inputs[i].Path)
		for k := range d.Inputs[i].Outputs {
			s = append(s, &d.Inputs[i].Outputs[k])
		}
	}
	for i := range d.Sources {
		s = append(s, &d.Sources[i])
	}
	s = append(s, &d.System, &d.Builder)
	for i := range d.Args {
		s = append(s, &d.Args[i])
	}
	for i := range d.Env {
		s = append(s, &d.Env[i].Name, &d.Env[i].Value)
	}
	return s
}

// Derivation sends d.
func (a *Answers) Derivation(d *derivation.Derivation) {
	if len(d.Inputs) > maxInputs {
		a.overflow("inputs of a derivation")
		return
	}
	head := derivationLine{tag: tag{"derivation"}, Outputs: len(d.Outputs), Inputs: []int{}, Sources: len(d.Sources), Args: len(d.Args), Env: len(d.Env)}
	for _, in := range d.Inputs {
		head.Inputs = append(head.Inputs, len(in.Outputs))
	}
	all := stringsOf(d)
	if len(all) > MaxStrings {
		a.overflow("strings in a derivation")
		return
	}
	a.send(head)
	for _, s := range all {
		rest := []byte(*s)
		for {
			part := rest[:min(len(rest), maxPart)]
			rest = rest[len(part):]
			a.send(textLine{tag{"text"}, len(rest) > 0, part})
			if len(rest) == 0 {
				break
			}
		}
	}
}

// maxPart is what of a string stands in one line, before base64.
const maxPart = 32 << 10

// assembly puts a derivation together from the child's lines.
type assembly struct {
	d       derivation.Derivation
	waiting []*string
	part    bytes.Buffer
	left    int64 // bytes of text that may still come: no derivation has more than its file
}

// begin takes the head line. Nothing is allocated for what it promises beyond MaxStrings strings.
func (s *assembly) begin(line []byte, size int64) error {
	var l derivationLine
	if err := decode(line, &l); err != nil {
		return badAnswer("derivation: %v", err)
	}
	total := int64(2)
	for _, n := range append([]int{l.Outputs, l.Sources, l.Args, l.Env, len(l.Inputs)}, l.Inputs...) {
		if n < 0 || n > MaxStrings {
			return badAnswer("derivation: a count of %d", n)
		}
		total += 4 * int64(n)
	}
	if total > 8*MaxStrings || total > 8+4*size {
		return badAnswer("derivation: counts that do not fit an item of %d bytes", size)
	}
	s.left = size
	s.d.Outputs = make([]derivation.Output, l.Outputs)
	for _, n := range l.Inputs {
		s.d.Inputs = append(s.d.Inputs, derivation.Input{Outputs: make([]string, n)})
	}
	s.d.Sources = make([]string, l.Sources)
	s.d.Args = make([]string, l.Args)
	s.d.Env = make([]derivation.Variable, l.Env)
	s.waiting = stringsOf(&s.d)
	return nil
}

// text takes one string, or a part of one.
func (s *assembly) text(line []byte) error {
	var l textLine
	if err := decode(line, &l); err != nil {
		return badAnswer("text: %v", err)
	}
	if s.left -= int64(len(l.Data)); s.left < 0 || len(s.waiting) == 0 || l.More && len(l.Data) == 0 {
		return badAnswer("text: more than the derivation can have")
	}
	s.part.Write(l.Data)
	if l.More {
		return nil
	}
	*s.waiting[0] = s.part.String()
	s.waiting = s.waiting[1:]
	s.part.Reset()
	return nil
}

// end returns the derivation if it prints to the bytes whose digest is sent.
func (s *assembly) end(sent [sha256.Size]byte) (*derivation.Derivation, error) {
	if len(s.waiting) > 0 || s.part.Len() > 0 {
		return nil, badAnswer("derivation: %d strings are missing", len(s.waiting))
	}
	if sha256.Sum256(s.d.Bytes()) != sent {
		return nil, badAnswer("the derivation that it reports is not the one that it was given")
	}
	return &s.d, nil
}
