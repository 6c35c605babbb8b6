package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// own judges what nothing of the enclave's names: what was added here under its own content, and what was made here.
func (j *judge) own(ctx context.Context) error {
	for i := range j.rows.all {
		if j.verdicts[i].status != "" {
			continue
		}
		if i%64 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if err := j.ownOne(int32(i)); err != nil {
			return err
		}
	}
	return nil
}

func (j *judge) ownOne(i int32) error {
	r := &j.rows.all[i]
	if r.path.IsDerivation() {
		p := j.local(r.path)
		if errors.Is(p.err, fs.ErrPermission) {
			return p.err
		}
		if p.err != nil {
			j.set(i, Unknown, "", "%v", p.err)
			return nil
		}
		j.flat[i] = trust.Sum(p.data)
		if refs, err := p.d.References(); err != nil || !j.refers(r, refs) {
			j.set(i, Altered, "", "the database does not have the references that its content has")
			return nil
		}
		j.set(i, Local, "", "a derivation that was added here")
		return nil
	}
	unmade := ""
	if r.deriver != "" {
		if d, ok := j.rows.find(r.deriver); ok && j.rows.all[d].odd == "" {
			done, err := j.madeHere(i, r.deriver)
			if err != nil {
				unmade = "; " + err.Error()
			} else if done {
				return nil
			}
		} else {
			unmade = fmt.Sprintf("; %s, which is said to make it, is not here", r.deriver)
		}
	}
	if len(r.refs) == 0 {
		if want, err := storepath.Source(r.path.Name(), r.hash); err == nil && want == r.path {
			j.set(i, Local, "", "added here: its path is that of its nar")
			return nil
		}
	}
	added, err := j.text(i)
	if err != nil {
		return err
	}
	if added != "" {
		j.set(i, Local, "", "added here: %s", added)
		return nil
	}
	j.set(i, Unknown, "", "no allowlist names it, no derivation that is known makes it, and its path is not that of its content%s", unmade)
	return nil
}

// refers says whether the database has these references of a row, and no others.
func (j *judge) refers(r *row, refs []storepath.Path) bool {
	want := map[string]bool{}
	for _, p := range refs {
		want[p.Base()] = true
	}
	delete(want, r.name)
	for _, ref := range r.refs {
		if !want[j.rows.all[ref].name] {
			return false
		}
		delete(want, j.rows.all[ref].name)
	}
	return len(want) == 0
}

// lookup gives the hasher the host's own derivations.
func (j *judge) lookup(path string) (*derivation.Derivation, error) {
	p, err := storepath.Parse(path)
	if err != nil {
		return nil, err
	}
	got := j.local(p)
	return got.d, got.err
}

// local reads a derivation of the host's store. What is read has the path that its content has.
func (j *judge) local(p storepath.Path) parsed {
	if got, ok := j.parsed[p.Base()]; ok {
		return got
	}
	var got parsed
	got.data, got.err = j.t.read(p.String(), derivation.MaxSize)
	if got.err == nil {
		got.d, got.err = derivation.Parse(got.data)
	}
	if got.err == nil {
		var have storepath.Path
		if have, got.err = got.d.Path(strings.TrimSuffix(p.Name(), ".drv")); got.err == nil && have != p {
			got.err = fmt.Errorf("the derivation that lies there is %s", have.Base())
		}
	}
	if got.err != nil {
		got.d = nil
	}
	j.parsed[p.Base()] = got
	return got
}

// madeHere judges what a derivation of the host's own makes.
func (j *judge) madeHere(i int32, deriver string) (bool, error) {
	r := &j.rows.all[i]
	p, err := storepath.ParseBase(deriver)
	if err != nil {
		return false, err
	}
	got := j.local(p)
	if got.err != nil {
		return false, fmt.Errorf("%s: %w", deriver, got.err)
	}
	if _, err := j.hasher.Verify(p, got.data); err != nil {
		return false, fmt.Errorf("%s: %s", deriver, trust.Printable(err.Error(), 300))
	}
	m := newMaker(got.d, trust.Sum(got.data))
	o, ok := m.makes(r.path)
	if !ok {
		return false, fmt.Errorf("%s does not make it", deriver)
	}
	if _, ok := j.makers[deriver]; !ok {
		j.makers[deriver] = m
	}
	if m.fixed {
		j.fixed(i, deriver, o, Local, "made here by "+deriver)
		return true, nil
	}
	j.set(i, Local, deriver, "made here by %s", deriver)
	return true, nil
}

// text says how an item that is a plain file was added under its content; "" if it was not.
func (j *judge) text(i int32) (string, error) {
	r := &j.rows.all[i]
	f, err := j.t.open(r.path.String())
	if errors.Is(err, fs.ErrPermission) {
		return "", err
	}
	if err != nil {
		return "", nil // a directory, a link, nothing: not added as a file
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	refs := make([]storepath.Path, 0, len(r.refs))
	for _, ref := range r.refs {
		refs = append(refs, j.rows.all[ref].path)
	}
	if p, err := storepath.Text(r.path.Name(), sum, refs); err == nil && p == r.path {
		return "its path is that of its text", nil
	}
	if p, err := storepath.FixedOutput(r.path.Name(), "sha256", false, sum[:]); err == nil && p == r.path && len(refs) == 0 {
		return "its path is that of its bytes", nil
	}
	return "", nil
}
