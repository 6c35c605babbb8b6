package statement

import (
	"fmt"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// ownPrefix begins the names of submissions.
const ownPrefix = "own-"

// Arrived names what came in, as subjects, refusals and persons do: `shipment N`, or `own-N` for what was submitted inside. In a catalog, and wherever
// else one number stands for either, shipments count from 1 up and submissions from -1 down, so none is ever taken for the other.
func Arrived(number int64) string {
	if number < 0 {
		return ownPrefix + strconv.FormatInt(-number, 10)
	}
	return fmt.Sprintf("shipment %d", number)
}

// ParseArrival reads what a person calls an arrival: the number of a shipment, or the name of a submission.
func ParseArrival(s string) (int64, error) {
	digits, own := strings.CutPrefix(s, ownPrefix)
	n, err := trust.ParseNumber(digits, MaxInteger)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is neither the number of a shipment nor the name of a submission, %sN", trust.Clip(s), ownPrefix)
	}
	if own {
		return -n, nil
	}
	return n, nil
}

// A Submission is a channel's item that a person of the enclave brought in, as the statement `submitted` has it. There is no manifest beside it: the statement says
// all that a manifest would, and the person's key signs it.
type Submission struct {
	Number int64 // from 1 up; in a catalog it is below zero
	Item   trust.Item
	Commit string
	Basis  string // "-" for none
	Person string
}

// channel is the one that the item is of, by its name: HASH-CHANNEL-channel-COMMIT.
func (s *Submission) channel() (string, bool) {
	p, err := storepath.ParseBase(s.Item.Name)
	if err != nil {
		return "", false
	}
	return strings.CutSuffix(p.Name(), "-channel-"+s.Commit)
}

// Statement is what the submitter signs, but for the time and the zone.
func (s *Submission) Statement() Statement {
	channel, _ := s.channel()
	return Statement{Kind: KindSubmitted, Subjects: []Subject{{Name: s.Item.Name, SHA256: s.Item.SHA256}}, Predicate: map[string]any{
		"submission": s.Number, "size": s.Item.Size, "channel": channel, "commit": s.Commit, "basis": s.Basis, "person": s.Person,
	}}
}

// Submission reads a statement `submitted`: one subject, the item, whose name is bound to its content, and to the channel and the commit.
func (s *Statement) Submission() (*Submission, error) {
	if s.Kind != KindSubmitted || len(s.Subjects) != 1 {
		return nil, fmt.Errorf("%d subjects of a statement %q, want the item alone", len(s.Subjects), s.Kind)
	}
	o := &Submission{Item: trust.Item{SHA256: s.Subjects[0].SHA256, Kind: trust.KindChannel, Name: s.Subjects[0].Name}}
	// The form of each was checked when the statement was parsed.
	o.Number, _ = s.Predicate["submission"].(int64)
	o.Item.Size, _ = s.Predicate["size"].(int64)
	o.Commit, _ = s.Predicate["commit"].(string)
	o.Basis, _ = s.Predicate["basis"].(string)
	o.Person, _ = s.Predicate["person"].(string)
	named, _ := s.Predicate["channel"].(string)
	want, err := storepath.Source(named+"-channel-"+o.Commit, o.Item.SHA256)
	if err != nil || want.Base() != o.Item.Name {
		return nil, fmt.Errorf("the item %q is not named by its content, the channel %q and the commit", trust.Clip(o.Item.Name), trust.Clip(named))
	}
	return o, nil
}
