package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sallyport/guix/storepath"
)

// Info is what the daemon knows of a valid item.
type Info struct {
	Path       storepath.Path
	Deriver    storepath.Path // zero if none is known
	NarHash    [32]byte
	NarSize    int64
	References []storepath.Path // ascending
	Registered time.Time        // when it became valid
}

// errNoPath is a mistake of the caller's.
var errNoPath = errors.New("guix-daemon: the zero Path is no item")

func check(paths ...storepath.Path) error {
	if slices.Contains(paths, storepath.Path{}) {
		return errNoPath
	}
	return nil
}

// about runs an operation on one item. An error of the daemon's is joined with ErrNotValid if the item is not valid.
func (c *Client) about(ctx context.Context, op Op, p storepath.Path, results func(w *wire)) error {
	if err := check(p); err != nil {
		return err
	}
	return c.do(ctx, op, func(t talk) error {
		err := plain(t, op, func(w *wire) { w.putPath(p) }, results)
		return absent(t, p, err)
	})
}

// absent wraps err, if it is the daemon's and p is not valid, with ErrNotValid. The
// daemon's texts are no language, so it is asked again.
func absent(t talk, p storepath.Path, err error) error {
	var said *Error
	if t.w.err != nil || !errors.As(err, &said) {
		return err
	}
	valid := true
	if plain(t, OpIsValid, func(w *wire) { w.putPath(p) }, func(w *wire) { valid = w.bool() }) == nil && !valid {
		return fmt.Errorf("%s: %w: %w", p, ErrNotValid, err)
	}
	return err
}

// IsValid tells whether the store has an item.
func (c *Client) IsValid(ctx context.Context, p storepath.Path) (valid bool, err error) {
	if err := check(p); err != nil {
		return false, err
	}
	err = c.call(ctx, OpIsValid, func(w *wire) { w.putPath(p) }, func(w *wire) { valid = w.bool() })
	return valid && err == nil, err
}

// Valid returns, ascending, those of paths that the store has.
func (c *Client) Valid(ctx context.Context, paths ...storepath.Path) (valid []storepath.Path, err error) {
	if err := check(paths...); err != nil {
		return nil, err
	}
	err = c.call(ctx, OpValid, func(w *wire) { w.putPaths(paths) }, func(w *wire) {
		asked := asked(w, paths)
		valid = w.set(asked)
	})
	return valid, err
}

// asked returns a reader of paths that have to be among those given.
func asked(w *wire, paths []storepath.Path) func() storepath.Path {
	set := make(map[storepath.Path]bool, len(paths))
	for _, p := range paths {
		set[p] = true
	}
	return func() storepath.Path {
		at := w.off
		p := w.path()
		if w.err == nil && !set[p] {
			w.fail(at, CodeAnswer, nil, "%s was not asked for", p)
		}
		return p
	}
}

// AllValid returns all items of the store, ascending.
func (c *Client) AllValid(ctx context.Context) (all []storepath.Path, err error) {
	err = c.call(ctx, OpAllValid, none, func(w *wire) { all = w.set(w.path) })
	return all, err
}

// Info returns what is known of an item.
func (c *Client) Info(ctx context.Context, p storepath.Path) (*Info, error) {
	info := &Info{Path: p}
	err := c.about(ctx, OpInfo, p, func(w *wire) {
		info.Deriver = optional(w, w.drv)
		info.NarHash = w.sha256()
		info.References = w.set(w.path)
		info.Registered = time.Unix(w.size("a time"), 0).UTC()
		info.NarSize = w.size("a size")
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

// References returns the items that p refers to, ascending.
func (c *Client) References(ctx context.Context, p storepath.Path) (all []storepath.Path, err error) {
	err = c.about(ctx, OpReferences, p, func(w *wire) { all = w.set(w.path) })
	return all, err
}

// Referrers returns the items of the store that refer to p, ascending.
func (c *Client) Referrers(ctx context.Context, p storepath.Path) (all []storepath.Path, err error) {
	err = c.about(ctx, OpReferrers, p, func(w *wire) { all = w.set(w.path) })
	return all, err
}

// Deriver returns the derivation that is known to have made p, zero if none is. The store may not have it.
func (c *Client) Deriver(ctx context.Context, p storepath.Path) (drv storepath.Path, err error) {
	err = c.about(ctx, OpDeriver, p, func(w *wire) { drv = optional(w, w.drv) })
	return drv, err
}

// Derivers returns the derivations in the store that make p, ascending.
func (c *Client) Derivers(ctx context.Context, p storepath.Path) (all []storepath.Path, err error) {
	err = c.about(ctx, OpDerivers, p, func(w *wire) { all = w.set(w.drv) })
	return all, err
}

// Outputs returns what a derivation in the store makes, ascending, whether it was made or not.
func (c *Client) Outputs(ctx context.Context, drv storepath.Path) (all []storepath.Path, err error) {
	err = c.about(ctx, OpOutputs, drv, func(w *wire) { all = w.set(w.path) })
	return all, err
}

// FromHash returns the item whose hash part is given; the error is ErrNotValid if there is none.
func (c *Client) FromHash(ctx context.Context, hash string) (p storepath.Path, err error) {
	if _, err := storepath.DecodeBase32(hash, 20); err != nil {
		return p, err
	}
	err = c.call(ctx, OpFromHash, func(w *wire) { w.putString(hash) }, func(w *wire) {
		at := w.off
		p = optional(w, w.path)
		if w.err == nil && !p.IsZero() && p.Hash() != hash {
			w.fail(at, CodeAnswer, nil, "%s has not the hash part %s", p, hash)
		}
	})
	if err == nil && p.IsZero() {
		err = fmt.Errorf("%s: %w", hash, ErrNotValid)
	}
	if err != nil {
		return storepath.Path{}, err
	}
	return p, nil
}

// Substitute is what the daemon has learnt of an item that it could fetch.
type Substitute struct {
	Path       storepath.Path
	Deriver    storepath.Path // zero if none is known
	References []storepath.Path
	Download   int64 // bytes to fetch, 0 if not known
	NarSize    int64 // 0 if not known
}

// Substitutable asks the daemon which of paths it could fetch, from the servers
// that it was told. It may take long and needs the network.
func (c *Client) Substitutable(ctx context.Context, paths ...storepath.Path) (all []Substitute, err error) {
	if err := check(paths...); err != nil {
		return nil, err
	}
	err = c.call(ctx, OpSubstitutable, func(w *wire) { w.putPaths(paths) }, func(w *wire) {
		asked := asked(w, paths)
		for range w.count() {
			s := Substitute{Path: asked(), Deriver: optional(w, w.drv), References: w.set(w.path), Download: w.size("a size"), NarSize: w.size("a size")}
			if w.err != nil {
				all = nil
				return
			}
			all = append(all, s)
		}
	})
	return all, err
}

// Ensure has the daemon fetch or make p if the store does not have it.
func (c *Client) Ensure(ctx context.Context, p storepath.Path) error {
	return c.about(ctx, OpEnsure, p, (*wire).one)
}

// AddTempRoot keeps p from being collected while the Client is connected. The store need not have it yet.
func (c *Client) AddTempRoot(ctx context.Context, p storepath.Path) error {
	return c.about(ctx, OpAddTempRoot, p, (*wire).one)
}

// AddIndirectRoot makes what the symbolic link points to a root, as long as the link is there. It is the link's
// absolute name; the daemon does not look whether it exists.
func (c *Client) AddIndirectRoot(ctx context.Context, link string) error {
	if !strings.HasPrefix(link, "/") || strings.ContainsRune(link, 0) || len(link) > MaxString {
		return fmt.Errorf("guix-daemon: %.64q is not the absolute name of a link", link)
	}
	return c.call(ctx, OpAddIndirectRoot, func(w *wire) { w.putString(link) }, (*wire).one)
}

// A Root is a link that keeps an item from being collected.
type Root struct {
	Link   string
	Target storepath.Path
}

// Roots returns the roots that are files.
func (c *Client) Roots(ctx context.Context) (all []Root, err error) {
	err = c.call(ctx, OpFindRoots, none, func(w *wire) {
		for range w.count() {
			at := w.off
			r := Root{w.string(MaxString), w.path()}
			if w.err == nil && strings.ContainsRune(r.Link, 0) {
				w.fail(at, CodeString, nil, "a zero byte in the name of a root")
			}
			if w.err != nil {
				all = nil
				return
			}
			all = append(all, r)
		}
	})
	return all, err
}

// VerifyStore has the daemon compare its database with the store, with contents also the hash of each item, and with repair
// restore what is damaged, which only root may ask for. It tells whether all is well; what is not is in the log.
func (c *Client) VerifyStore(ctx context.Context, contents, repair bool) (ok bool, err error) {
	err = c.call(ctx, OpVerifyStore, func(w *wire) { w.putBool(contents); w.putBool(repair) }, func(w *wire) { ok = !w.bool() })
	return ok && err == nil, err
}

// Options are the client's wishes for what the daemon does on this connection. The zero value
// asks for builds with the daemon's limits, without substitutes and without offloading.
type Options struct {
	KeepFailed  bool // keep the directory of a failed build
	KeepGoing   bool // build what can be built after a failure
	Fallback    bool // build what could not be substituted
	Substitutes bool // fetch what somebody else has built
	Offload     bool // build on other machines that the daemon knows
	Verbosity   uint64

	// SubstituteURLs, if not nil, replaces the daemon's list of servers.
	SubstituteURLs []string

	// Limits; zero leaves the daemon's. Times are rounded up to seconds.
	Jobs, Cores        int
	Timeout, MaxSilent time.Duration
	Rounds             int // build that often, and compare
}

// SetOptions sets the options of this connection. It also makes the daemon send traces and frame the output of
// builders, so that [Event] can tell them apart.
func (c *Client) SetOptions(ctx context.Context, o Options) error {
	type pair struct{ name, value string }
	pairs := []pair{{"multiplexed-build-output", "true"}}
	if o.SubstituteURLs != nil {
		for _, url := range o.SubstituteURLs {
			if url == "" || strings.ContainsFunc(url, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
				return fmt.Errorf("guix-daemon: %.64q is no URL of a substitute server", url)
			}
		}
		pairs = append(pairs, pair{"substitute-urls", strings.Join(o.SubstituteURLs, " ")})
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"build-max-jobs", int64(o.Jobs)}, {"build-cores", int64(o.Cores)},
		{"build-timeout", seconds(o.Timeout)}, {"build-max-silent-time", seconds(o.MaxSilent)}, {"build-repeat", int64(max(o.Rounds-1, 0))},
	} {
		if n.value < 0 {
			return fmt.Errorf("guix-daemon: %s cannot be %d", n.name, n.value)
		}
		if n.value > 0 {
			pairs = append(pairs, pair{n.name, strconv.FormatInt(n.value, 10)})
		}
	}
	return c.do(ctx, OpSetOptions, func(t talk) error {
		err := plain(t, OpSetOptions, func(w *wire) {
			w.putBool(o.KeepFailed)
			w.putBool(o.KeepGoing)
			w.putBool(o.Fallback)
			w.putNumber(o.Verbosity)
			w.putBool(o.Offload)
			w.putNumber(0) // verbosity from which on the output of builders is sent: all
			w.putNumber(0) // type of log: obsolete
			w.putBool(true)
			w.putBool(o.Substitutes)
			w.putNumber(uint64(len(pairs)))
			for _, p := range pairs {
				w.putString(p.name)
				w.putString(p.value)
			}
		}, none)
		c.framed = c.framed || err == nil
		return err
	})
}

func seconds(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Second - 1) / time.Second)
}

// A Target is something to be made: some or all outputs of a derivation, or an item that is to be fetched.
type Target struct {
	Path    storepath.Path
	Outputs []string // of a derivation; none means all
}

// A Mode is a way to build.
type Mode uint64

// Modes.
const (
	Normal Mode = iota // make what is missing
	Repair             // make again what is damaged; only for root
	Check              // make again what is there, and compare
)

// Build has the daemon make targets, and returns when all are made or one has failed. A failed build is an *Error; the
// log, which goes to c.Log while it arises, says more.
func (c *Client) Build(ctx context.Context, mode Mode, targets ...Target) error {
	things := make([]string, len(targets))
	for i, t := range targets {
		if err := check(t.Path); err != nil {
			return err
		}
		things[i] = t.Path.String()
		if len(t.Outputs) == 0 {
			continue
		}
		if !t.Path.IsDerivation() {
			return fmt.Errorf("guix-daemon: %s is no derivation and has no outputs", t.Path)
		}
		for _, id := range t.Outputs {
			if err := storepath.CheckName(id); err != nil || id == "" {
				return fmt.Errorf("guix-daemon: %.64q cannot be an output of %s", id, t.Path)
			}
		}
		things[i] += "!" + strings.Join(t.Outputs, ",")
	}
	if mode > Check {
		return fmt.Errorf("guix-daemon: there is no mode %d", mode)
	}
	return c.call(ctx, OpBuild, func(w *wire) {
		w.putNumber(uint64(len(things)))
		for _, s := range things {
			w.putString(s)
		}
		w.putNumber(uint64(mode))
	}, (*wire).one)
}

// An Action is what collecting garbage does.
type Action uint64

// Actions. Only the last two delete.
const (
	ListLive       Action = iota // return what is live
	ListDead                     // return what is dead
	DeleteDead                   // delete what is dead
	DeleteSpecific               // delete Garbage.Paths, if they are dead
)

// Garbage says what to collect.
type Garbage struct {
	Action   Action
	Paths    []storepath.Path
	MaxFreed int64 // bytes after which to stop; 0 for no limit
}

// Collected is what was collected, or would be.
type Collected struct {
	Paths []storepath.Path
	Other []string // in the store, but no items: what builds have left
	Freed int64    // bytes
}

// CollectGarbage lists or deletes what no root keeps.
func (c *Client) CollectGarbage(ctx context.Context, g Garbage) (*Collected, error) {
	if err := check(g.Paths...); err != nil {
		return nil, err
	}
	if g.Action > DeleteSpecific || g.MaxFreed < 0 || g.Action != DeleteSpecific && len(g.Paths) > 0 {
		return nil, errors.New("guix-daemon: no such way to collect garbage")
	}
	most := uint64(g.MaxFreed)
	if most == 0 {
		most = 1<<64 - 1
	}
	got := new(Collected)
	err := c.call(ctx, OpCollectGarbage, func(w *wire) {
		w.putNumber(uint64(g.Action))
		w.putPaths(g.Paths)
		w.putBool(false) // ignore liveness
		w.putNumber(most)
		for range 3 { // obsolete
			w.putNumber(0)
		}
	}, func(w *wire) {
		for range w.count() {
			at := w.off
			s := w.string(maxEntry)
			if w.err != nil {
				return
			}
			if p, err := storepath.Parse(s); err == nil {
				got.Paths = append(got.Paths, p)
				continue
			}
			name, inside := strings.CutPrefix(s, storepath.Dir+"/")
			if !inside || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
				w.fail(at, CodePath, nil, "%q is not in the store", s)
				return
			}
			got.Other = append(got.Other, s)
		}
		got.Freed = w.size("a size")
		w.number() // obsolete
	})
	if err != nil {
		return nil, err
	}
	return got, nil
}

// maxEntry is the longest name of anything in the store.
const maxEntry = len(storepath.Dir) + 1 + 255
