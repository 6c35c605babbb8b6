// Package quorum takes in what builders made and says when enough of them agree.
//
// A builder hands over a result directory: the statement "built", signed with the builder's key, and one file an output, BASE.nar. Submit checks the
// signature and the role, that the outputs are those of the derivation, reads each nar in the reader child, stores it under the digest that the statement
// names, and writes the statement itself as a ledger entry. When it completes a quorum the entry "agreed" follows in the same transaction; when a valid statement contradicts
// another, "disagreed" does, and nothing of that derivation is released until officers have settled it.
//
// A result that is refused leaves nothing: the outputs' digests are noted as pending (package pending) before the first is stored. A builder may contradict
// itself once, which is a dissent; what it says after that is not taken in.
//
// The entries say what the station saw. Authority is in the builders' statements: depot, signer and other builders count them again
// ([sallyport/internal/judge/admit]).
package quorum

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/judge/admit"
	"sallyport/internal/judge/examine"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/quorum"
	"sallyport/internal/trust/statement"
)

// Files of a result directory.
const (
	StatementFile = "built.dsse"
	NarSuffix     = ".nar"
)

// A Desk takes in results for one enclave.
type Desk struct {
	Zone     *store.Zone
	Root     *trust.Root
	Reader   confine.Options
	Progress func(bytes int64, item string)
}

// A Status says how far the builders have come with one derivation.
type Status struct {
	Type       string            `json:"type"` // quorum; what is wrong may follow it, on a line of its own
	Derivation string            `json:"derivation"`
	Track      string            `json:"track"`
	Want       int               `json:"want"`
	Votes      []Vote            `json:"votes"`
	Agreed     bool              `json:"agreed"`
	Outputs    map[string]string `json:"outputs,omitempty"` // agreed: nar sha256 by store path
	Why        string            `json:"why,omitempty"`     // not agreed: what is missing or wrong
	err        error
}

// Err is why the outputs are not agreed; nil if they are.
func (s *Status) Err() error { return s.err }

// A Vote is what one builder says.
type Vote struct {
	KeyID   string            `json:"key"`
	Person  string            `json:"person"`
	Outputs map[string]string `json:"outputs"` // nar sha256 by store path
}

// Status judges the statements about a derivation, named by its base name, on a track.
func (d *Desk) Status(ctx context.Context, track, name string) (*Status, error) {
	view, err := admit.Load(ctx, d.Zone, d.Root, track)
	if err != nil {
		return nil, err
	}
	envelopes, err := d.envelopes(ctx, name)
	if err != nil {
		return nil, err
	}
	return d.status(view, name, envelopes)
}

func (d *Desk) status(view *admit.View, name string, envelopes [][]byte) (*Status, error) {
	s := &Status{Type: "quorum", Derivation: name, Track: view.List.Track, Want: d.Root.Quorum(), Votes: []Vote{}}
	votes, _, err := quorum.Ballot(d.Root, view.Orders, name, envelopes)
	if err != nil {
		return nil, err
	}
	for _, v := range votes {
		vote := Vote{KeyID: v.KeyID, Person: v.Person, Outputs: map[string]string{}}
		for path, o := range v.Outputs {
			vote.Outputs[path] = o.SHA256.String()
		}
		s.Votes = append(s.Votes, vote)
	}
	a, err := view.Evidence(name, envelopes)
	if err != nil {
		if _, refused := trust.AsRefusals(err); !refused {
			return nil, err
		}
		s.err, s.Why = err, err.Error()
		return s, nil
	}
	s.Agreed, s.Outputs = true, map[string]string{}
	for path, o := range a.Outputs {
		s.Outputs[path] = o.SHA256.String()
	}
	return s, nil
}

func (d *Desk) envelopes(ctx context.Context, name string) ([][]byte, error) {
	rows, err := d.Zone.Read(ctx).QueryContext(ctx, `SELECT envelope FROM built WHERE derivation = ? ORDER BY leaf`, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list [][]byte
	for rows.Next() {
		var e []byte
		if err := rows.Scan(&e); err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, rows.Err()
}

// stage names the lock and the note of pending blobs.
const stage = "quorum"

// maxWords is how many different statements about one derivation are taken in from one builder: the second shows that the builder is not to be relied on, more show
// nothing, and would push other builders' words out of bounds.
const maxWords = 2

// Submit takes in one result for a track. A refusal is a ledger entry and leaves nothing else.
func (d *Desk) Submit(ctx context.Context, track string, result *os.Root) (*Status, error) {
	unlock, err := d.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	envelope, err := readStatement(result)
	if err != nil {
		return nil, d.refused(ctx, envelope, err)
	}
	s, left, err := d.submit(ctx, track, result, envelope)
	if err != nil {
		return nil, errors.Join(d.refused(ctx, envelope, err), left)
	}
	return s, left
}

func readStatement(result *os.Root) ([]byte, error) {
	f, _, err := open(result, StatementFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, statement.MaxEnvelopeSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > statement.MaxEnvelopeSize {
		return nil, trust.Refuse("statement-size", StatementFile, "more than %d bytes", statement.MaxEnvelopeSize)
	}
	return data, nil
}

// open opens a file of a result. It does not wait for a pipe that somebody put there.
func open(result *os.Root, name string) (*os.File, int64, error) {
	f, err := result.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, trust.Refuse("result-incomplete", name, "the result has no such file").WithHint("a result directory is what 'build --out' makes; an interrupted build leaves none")
	}
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = trust.Refuse("result-type", name, "it is no regular file")
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// submit also returns what went wrong with cleaning up, which is no part of the judgement.
func (d *Desk) submit(ctx context.Context, track string, result *os.Root, envelope []byte) (s *Status, left, err error) {
	e, err := statement.ParseEnvelope(envelope)
	if err != nil {
		return nil, nil, err
	}
	if e.Kind() != statement.KindBuilt {
		return nil, nil, trust.Refuse("statement-kind", StatementFile, "it is %q; a builder's result is %q", e.Kind(), statement.KindBuilt)
	}
	said, _, err := e.Verify(d.Root, d.Zone.Origin())
	if err != nil {
		return nil, nil, err
	}
	path, _ := said.Predicate["derivation"].(string)
	drv, err := storepath.Parse(path)
	if err != nil {
		return nil, nil, err // its form was checked when the statement was taken apart
	}
	name := drv.Base()
	view, err := admit.Load(ctx, d.Zone, d.Root, track)
	if err != nil {
		return nil, nil, err
	}
	derivation, err := view.Derivation(name)
	if err != nil {
		return nil, nil, err
	}
	before, err := d.envelopes(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	// Alone: a ballot leaves out a statement that it has seen, and one that is no vote.
	own, ignored, err := quorum.Ballot(d.Root, view.Orders, name, [][]byte{envelope})
	if err != nil {
		return nil, nil, err
	}
	if len(own) != 1 {
		return nil, nil, ignored
	}
	mine := own[0]
	if err := admit.CheckOutputs(name, derivation, mine.Outputs); err != nil {
		return nil, nil, err
	}
	votes, _, err := quorum.Ballot(d.Root, view.Orders, name, before)
	if err != nil {
		return nil, nil, err
	}
	words := 0
	for _, v := range votes {
		if v.KeyID != mine.KeyID {
			continue
		}
		if v.Same(mine) {
			s, err = d.status(view, name, before) // said before
			return s, nil, err
		}
		words++
	}
	if words >= maxWords {
		return nil, nil, trust.Refuse("quorum-repeated", name, "%s has said %d different things of it already", mine.KeyID, words)
	}
	var digests []trust.Digest
	var size int64
	for _, o := range mine.Outputs {
		digests = append(digests, o.SHA256)
		size += o.Size
	}
	if err := d.Zone.Space(size); err != nil {
		return nil, nil, err
	}
	in, err := pending.Begin(ctx, d.Zone, stage, digests)
	if err != nil {
		return nil, nil, err
	}
	if err = d.take(ctx, result, mine); err == nil {
		if s, err = d.status(view, name, append(before, envelope)); err == nil {
			err = d.commit(ctx, s, drv, mine, envelope, view)
		}
	}
	return s, in.End(ctx, err), err
}

// take stores the outputs, each read by the confined reader on its way.
func (d *Desk) take(ctx context.Context, result *os.Root, vote quorum.Vote) error {
	reader, err := examine.Start(ctx, d.Reader)
	if err != nil {
		return err
	}
	defer reader.Close()
	var rs trust.Refusals
	for _, path := range slices.Sorted(maps.Keys(vote.Outputs)) {
		o := vote.Outputs[path]
		p, err := storepath.Parse(path)
		if err != nil {
			return err
		}
		if size, ok := d.Zone.CAS.Has(o.SHA256); ok && size == o.Size {
			continue // another builder made the same
		}
		if err := rs.Merge(d.output(ctx, reader, result, p, o)); err != nil {
			return err
		}
	}
	return rs.Err()
}

func (d *Desk) output(ctx context.Context, reader *examine.Reader, result *os.Root, p storepath.Path, o quorum.BuiltOutput) error {
	f, size, err := open(result, p.Base()+NarSuffix)
	if err != nil {
		return err
	}
	defer f.Close()
	if size != o.Size {
		return trust.Refuse("output-size", p.Base(), "%d bytes, the statement says %d", size, o.Size)
	}
	blob, err := d.Zone.CAS.Create()
	if err != nil {
		return err
	}
	defer blob.Abort()
	if _, err := reader.Item(ctx, confine.Request{Kind: confine.KindNar, Name: p.Base(), Size: o.Size, Rules: confine.RulesStructure}, io.TeeReader(f, blob)); err != nil {
		return err
	}
	if d.Progress != nil {
		d.Progress(o.Size, p.Base())
	}
	_, _, err = blob.Commit(o.SHA256)
	var other *cas.MismatchError
	if errors.As(err, &other) {
		return trust.Refuse("output-digest", p.Base(), "its nar has sha256 %s, the statement says %s", other.Got, o.SHA256)
	}
	return err
}

// maxListed bounds the entry "disagreed", which has to stay below 64 KiB: beyond it are only as many builders as fit, the newest first.
const maxListed = 40_000

// listed says what each builder says, as far as it fits.
func listed(list []Vote) map[string]any {
	votes := map[string]any{}
	size := 0
	for _, v := range slices.Backward(list) {
		var says []any
		for _, path := range slices.Sorted(maps.Keys(v.Outputs)) {
			line := path + " " + v.Outputs[path]
			says = append(says, line)
			size += len(line) + 3
		}
		if len(votes) > 0 && size > maxListed {
			break
		}
		if _, ok := votes[v.KeyID]; !ok {
			votes[v.KeyID] = says
		}
	}
	return votes
}

// commit is the write that makes a vote true.
func (d *Desk) commit(ctx context.Context, s *Status, drv storepath.Path, mine quorum.Vote, envelope []byte, view *admit.View) error {
	var builders []any
	for _, v := range s.Votes {
		builders = append(builders, v.KeyID)
	}
	item, _ := view.List.ByName(drv.Base())
	return d.Zone.Commit(ctx, func(tx *store.Tx) error {
		leaf, err := tx.Append(envelope)
		if err != nil {
			return err
		}
		if err := tx.Exec(ctx, `INSERT INTO built (derivation, keyid, sha256, leaf, envelope) VALUES (?, ?, ?, ?, ?)`,
			drv.Base(), mine.KeyID, trust.Sum(envelope).String(), leaf, envelope); err != nil {
			return err
		}
		rs, _ := trust.AsRefusals(s.err)
		switch {
		case s.Agreed:
			var subjects []statement.Subject
			for path, o := range mine.Outputs {
				subjects = append(subjects, statement.Subject{Name: path, SHA256: o.SHA256})
			}
			if err := tx.Statement(statement.KindAgreed, subjects, map[string]any{"derivation": drv.String(), "builders": builders}); err != nil {
				return err
			}
			err := tx.Exec(ctx, `INSERT INTO agreed (derivation, leaf) VALUES (?, ?) ON CONFLICT (derivation) DO UPDATE SET leaf = excluded.leaf`, drv.Base(), leaf+1)
			return err
		case rs.Has("quorum-dissent"):
			if err := tx.Statement(statement.KindDisagreed, []statement.Subject{{Name: drv.String(), SHA256: item.SHA256}}, map[string]any{"builders": listed(s.Votes)}); err != nil {
				return err
			}
			err := tx.Exec(ctx, `DELETE FROM agreed WHERE derivation = ?`, drv.Base())
			return err
		}
		return nil
	})
}

func (d *Desk) refused(ctx context.Context, envelope []byte, err error) error {
	return d.Zone.Refused(ctx, "quorum", statement.Subject{Name: "result", SHA256: trust.Sum(envelope)}, err)
}
