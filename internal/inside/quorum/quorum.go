// Package quorum takes in what builders made and says when enough of them agree.
//
// A builder hands over a result directory: the statement "built", signed with the builder's key, and one file an output, BASE.nar. Submit checks the
// signature and the role, reads each nar in the reader child, stores it under the digest that the statement names, and writes the
// statement itself as a ledger entry. When it completes a quorum the entry "agreed" follows in the same transaction; when a valid statement contradicts
// another, "disagreed" does, and nothing of that derivation is released until officers have settled it.
//
// The entries say what the station saw. Authority is in the builders' statements: depot, signer and other builders count them again
// ([sallyport/internal/judge/admit]).
package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
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
	votes, _, err := trust.Ballot(d.Root, name, envelopes)
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

// Submit takes in one result for a track. A refusal is a ledger entry and leaves nothing else.
func (d *Desk) Submit(ctx context.Context, track string, result *os.Root) (*Status, error) {
	unlock, err := d.Zone.Lock("quorum")
	if err != nil {
		return nil, err
	}
	defer unlock()
	envelope, err := readStatement(result)
	if err != nil {
		return nil, d.refused(ctx, envelope, err)
	}
	s, err := d.submit(ctx, track, result, envelope)
	if err != nil {
		return nil, d.refused(ctx, envelope, err)
	}
	return s, nil
}

func readStatement(result *os.Root) ([]byte, error) {
	f, err := result.Open(StatementFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trust.Refuse("result-incomplete", StatementFile, "the result has no statement").WithHint("a result directory is what 'build --out' makes; an interrupted build leaves none")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, trust.MaxEnvelopeSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > trust.MaxEnvelopeSize {
		return nil, trust.Refuse("statement-size", StatementFile, "more than %d bytes", trust.MaxEnvelopeSize)
	}
	return data, nil
}

func (d *Desk) submit(ctx context.Context, track string, result *os.Root, envelope []byte) (*Status, error) {
	e, err := trust.ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	if e.Kind() != trust.StatementBuilt {
		return nil, trust.Refuse("statement-kind", StatementFile, "it is %q; a builder's result is %q", e.Kind(), trust.StatementBuilt)
	}
	statement, _, err := e.Verify(d.Root)
	if err != nil {
		return nil, err
	}
	path, _ := statement.Predicate["derivation"].(string)
	drv, err := storepath.Parse(path)
	if err != nil {
		return nil, trust.Refuse("statement-predicate", StatementFile, "derivation: %v", err)
	}
	name := drv.Base()
	view, err := admit.Load(ctx, d.Zone, d.Root, track)
	if err != nil {
		return nil, err
	}
	if _, ok := view.List.ByName(name); !ok {
		return nil, trust.Refuse("not-allowed", name, "the allowlist of track %s, version %d, does not name this derivation", track, view.List.Version)
	}
	before, err := d.envelopes(ctx, name)
	if err != nil {
		return nil, err
	}
	// Alone: a ballot leaves out a statement that it has seen, and one that is no vote.
	own, ignored, err := trust.Ballot(d.Root, name, [][]byte{envelope})
	if err != nil {
		return nil, err
	}
	if len(own) != 1 {
		return nil, ignored
	}
	mine := own[0]
	votes, _, err := trust.Ballot(d.Root, name, before)
	if err != nil {
		return nil, err
	}
	for _, v := range votes {
		if v.KeyID == mine.KeyID && v.Same(mine) {
			return d.status(view, name, before) // said before
		}
	}
	if err := d.take(ctx, result, mine); err != nil {
		return nil, err
	}
	s, err := d.status(view, name, append(before, envelope))
	if err != nil {
		return nil, err
	}
	return s, d.commit(ctx, s, drv, mine, envelope, view)
}

// take stores the outputs, each read by the confined child on its way.
func (d *Desk) take(ctx context.Context, result *os.Root, vote trust.Vote) error {
	child, err := confine.Start(ctx, d.Reader)
	if err != nil {
		return fmt.Errorf("no reading without confinement: %w", err)
	}
	defer child.Close()
	for path, o := range vote.Outputs {
		p, err := storepath.Parse(path)
		if err != nil {
			return trust.Refuse("output-path", StatementFile, "%v", err)
		}
		if size, ok := d.Zone.CAS.Has(o.SHA256); ok && size == o.Size {
			continue // another builder made the same
		}
		f, err := result.Open(p.Base() + NarSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			return trust.Refuse("result-incomplete", p.Base(), "the result has no file %s%s", p.Base(), NarSuffix)
		}
		if err != nil {
			return err
		}
		err = d.output(ctx, child, f, p, o)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func (d *Desk) output(ctx context.Context, child *confine.Child, f *os.File, p storepath.Path, o trust.BuiltOutput) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() || st.Size() != o.Size {
		return trust.Refuse("output-size", p.Base(), "%d bytes, the statement says %d", st.Size(), o.Size)
	}
	report, err := child.Judge(ctx, confine.Request{Kind: confine.KindNar, Name: p.Base(), Size: o.Size, Rules: confine.RulesStructure}, f)
	if err != nil {
		return err
	}
	var rs trust.Refusals
	for _, r := range report.Refusals {
		rs.Add(trust.Refuse(r.Code, p.Base(), "%s", r.Detail).At(r.Offset))
	}
	if err := rs.Err(); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if d.Progress != nil {
		d.Progress(o.Size, p.Base())
	}
	// The store checks the digest: what was judged a moment ago and what is stored are the same bytes, or neither counts.
	err = d.Zone.CAS.Put(f, o.SHA256, o.Size)
	var other *cas.MismatchError
	if errors.As(err, &other) {
		return trust.Refuse("output-digest", p.Base(), "its nar has sha256 %s, the statement says %s", other.Got, o.SHA256)
	}
	return err
}

// commit is the write that makes a vote true.
func (d *Desk) commit(ctx context.Context, s *Status, drv storepath.Path, mine trust.Vote, envelope []byte, view *admit.View) error {
	var builders []any
	votes := map[string]any{}
	for _, v := range s.Votes {
		builders = append(builders, v.KeyID)
		var says []any
		for _, path := range sortedKeys(v.Outputs) {
			says = append(says, path+" "+v.Outputs[path])
		}
		votes[v.KeyID] = says
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
			var subjects []trust.Subject
			for path, o := range mine.Outputs {
				subjects = append(subjects, trust.Subject{Name: path, SHA256: o.SHA256})
			}
			if err := tx.Statement(trust.StatementAgreed, subjects, map[string]any{"derivation": drv.String(), "builders": builders}); err != nil {
				return err
			}
			err := tx.Exec(ctx, `INSERT INTO agreed (derivation, leaf) VALUES (?, ?) ON CONFLICT (derivation) DO UPDATE SET leaf = excluded.leaf`, drv.Base(), leaf+1)
			return err
		case rs.Has("quorum-dissent"):
			if err := tx.Statement(trust.StatementDisagreed, []trust.Subject{{Name: drv.String(), SHA256: item.SHA256}}, map[string]any{"builders": votes}); err != nil {
				return err
			}
			err := tx.Exec(ctx, `DELETE FROM agreed WHERE derivation = ?`, drv.Base())
			return err
		}
		return nil
	})
}

func (d *Desk) refused(ctx context.Context, envelope []byte, err error) error {
	return d.Zone.Refused(ctx, "quorum", trust.Subject{Name: "result", SHA256: trust.Sum(envelope)}, err)
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
