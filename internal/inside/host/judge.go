package host

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/trust"
)

// What an item of a host can be. From the worst to the best.
const (
	Recalled   = "recalled"    // a tombstone is of it, or of the derivation that makes it
	Altered    = "altered"     // its content, or what it refers to, is not what the database says
	Differs    = "differs"     // it is not what the enclave says that it is
	Disputed   = "disputed"    // builders disagree on what it is
	Affected   = "affected"    // it refers, itself or by others, to what was recalled
	Missing    = "missing"     // the database has it, the disk does not
	Unknown    = "unknown"     // nothing says where it comes from
	Derived    = "derived"     // something that was recalled went into making it
	Built      = "built"       // an allowed derivation makes it; builders have not agreed on it yet
	Local      = "local"       // added on this host under its own content, or made here from a derivation that was: profiles, manifests, grafts
	BreakGlass = "break-glass" // officers let it in without reviewers, for a while
	Fixed      = "fixed"       // an allowed derivation makes it and says its hash
	Agreed     = "agreed"      // an allowed derivation makes it, and a quorum of builders agrees on it
	Allowed    = "allowed"     // the allowlist names it
)

// Statuses returns all of them, from the worst to the best.
func Statuses() []string {
	return []string{Recalled, Altered, Differs, Disputed, Affected, Missing, Unknown, Derived, Built, Local, BreakGlass, Fixed, Agreed, Allowed}
}

// Rules say what a host may not use beyond what no host may.
type Rules struct {
	Local    bool // nothing that only the host vouches for: what is local, or built
	MadeFrom bool // nothing that something recalled went into, at whatever distance
}

// refuse says whether a host may not use items of a status.
func (r Rules) refuse(status string) bool {
	switch status {
	case Derived:
		return r.MadeFrom
	case Built, Local:
		return r.Local
	case BreakGlass, Fixed, Agreed, Allowed:
		return false
	}
	return true
}

// A verdict is what an item was found to be.
type verdict struct {
	status string
	why    string
	maker  string // base name of the derivation that makes it, as far as that is certain
}

// A maker is a derivation, as far as it matters what it makes and from what.
type maker struct {
	sha     trust.Digest
	outputs []derivation.Output
	inputs  []string // base names of derivations
	sources []string // base names
	fixed   bool
}

func newMaker(d *derivation.Derivation, sha trust.Digest) *maker {
	m := &maker{sha: sha, outputs: slices.Clone(d.Outputs), fixed: d.IsFixed()}
	for _, in := range d.Inputs {
		m.inputs = append(m.inputs, strings.TrimPrefix(in.Path, storepath.Dir+"/"))
	}
	for _, s := range d.Sources {
		m.sources = append(m.sources, strings.TrimPrefix(s, storepath.Dir+"/"))
	}
	return m
}

func (m *maker) makes(p storepath.Path) (derivation.Output, bool) {
	i := slices.IndexFunc(m.outputs, func(o derivation.Output) bool { return o.Path == p.String() })
	if i < 0 {
		return derivation.Output{}, false
	}
	return m.outputs[i], true
}

// A judge finds out what the items of one host are.
type judge struct {
	e    *Enclave
	t    *tree
	rows *rows
	say  func(n int64, note string)

	verdicts []verdict              // by row
	flat     map[int32]trust.Digest // of derivations: of the file, by row

	mu     sync.Mutex
	makers map[string]*maker // by base name; nil for those that are not to be had
	parsed map[string]parsed // derivations of the host's own
	hasher *derivation.Hasher
	unseen map[string]bool // derivations that would have had to be looked at
}

type parsed struct {
	d    *derivation.Derivation
	data []byte
	err  error
}

// all judges every item.
func (j *judge) all(ctx context.Context) error {
	j.verdicts = make([]verdict, len(j.rows.all))
	j.flat, j.makers, j.parsed, j.unseen = map[int32]trust.Digest{}, map[string]*maker{}, map[string]parsed{}, map[string]bool{}
	j.hasher = derivation.NewHasher(j.lookup)
	for _, step := range []func(context.Context) error{j.named, j.made, j.own, j.recalled, j.derived} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (j *judge) set(i int32, status, maker, format string, args ...any) {
	j.verdicts[i] = verdict{status, fmt.Sprintf(format, args...), maker}
}

// compare holds a row against an admitted item.
func (j *judge) compare(i int32, it admit.Item, status, track string) {
	r := &j.rows.all[i]
	maker := ""
	if !it.Deriver.IsZero() {
		maker = it.Deriver.Base()
	}
	switch {
	case r.hash != it.NarHash:
		j.set(i, Differs, maker, "its nar is %s; on track %s it is %s", r.hash, track, it.NarHash)
	case r.size >= 0 && r.size != it.NarSize:
		j.set(i, Differs, maker, "its nar has %d bytes; on track %s it has %d", r.size, track, it.NarSize)
	default:
		want := map[string]bool{}
		for _, p := range it.References {
			want[p.Base()] = true
		}
		delete(want, r.name)
		for _, ref := range r.refs {
			if !want[j.rows.all[ref].name] {
				j.set(i, Differs, maker, "the database lets it refer to %s; on track %s it does not", j.rows.all[ref].name, track)
				return
			}
			delete(want, j.rows.all[ref].name)
		}
		for _, name := range sortedKeys(want) {
			j.set(i, Differs, maker, "the database does not say that it refers to %s; on track %s it does", name, track)
			return
		}
		j.set(i, status, maker, "track %s", track)
	}
}

// named judges what the allowlists name, on all processors.
func (j *judge) named(ctx context.Context) error {
	workers := runtime.GOMAXPROCS(0)
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(j.rows.all) && errs[w] == nil; i += workers {
				if i%1024 == 0 && ctx.Err() != nil {
					errs[w] = ctx.Err()
				}
				errs[w] = errors.Join(errs[w], j.nameOf(int32(i)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (j *judge) nameOf(i int32) error {
	r := &j.rows.all[i]
	if r.odd != "" {
		j.set(i, Unknown, "", "%s", r.odd)
		return nil
	}
	for _, v := range j.e.Views {
		it, status, err := j.e.named(v, r.name)
		if err == nil {
			j.compare(i, it, status, v.List.Track)
			return nil
		}
		rs, ok := trust.AsRefusals(err)
		switch {
		case !ok:
			return err
		case rs.Has("item-lost"):
			// Nobody else has the derivation's file; the host's own is not the one that is allowed, or would have been taken.
			j.set(i, Differs, "", "its file is not the one that track %s allows", v.List.Track)
			return nil
		case rs.Has(codeRecalled):
			j.set(i, Recalled, "", "%s", rs[0].Detail)
			return nil
		case !rs.Has("not-allowed"):
			j.set(i, Unknown, "", "%s", rs[0].Error())
			return nil
		}
	}
	return nil
}
