// Package builder is one builder of the enclave: a key, a directory of its own, and a depot from which it gets everything.
//
// # What a builder believes
//
// The digest of the enclave's first root, which it was told when it was made. From there it opens the chain of roots and the track's allowlist itself, raises its own
// floor, and builds nothing that the allowlist does not name: the derivation by the digest of its file, sources by the digest of their nar, outputs of other
// derivations by the quorum of builders that agree on them. The depot is a pipe: whatever it sends is hashed before it is looked at.
//
// # Its directory
//
//	builder.toml          depot, track, root digest, enclave, key file, person
//	floor.json            the highest versions it has accepted
//	store/                inputs, each under its base name; a name is given only to what is whole
//	whole/                for each of them its nar's digest: builders may agree anew on what an output is, under the same name
//	input/                an input that is being fetched; cleared by the next build
//	work/                 the build that is going on; cleared by the next
//
// # Its result
//
// A directory with the statement "built", signed with its key, and the nar of each output. It gets its name last: a result that
// has its name is whole.
package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Names in a builder's directory and in a result.
const (
	configFile    = "builder.toml"
	StatementFile = "built.dsse"
	narSuffix     = ".nar"
	maxConfig     = 64 << 10
	wholeDir      = "whole"
	maxClosure    = 100_000 // items of one build's inputs
)

// A Config is builder.toml. Unknown keys are errors.
type Config struct {
	Enclave string `toml:"enclave"`
	Depot   string `toml:"depot"` // URL
	Track   string `toml:"track"` // the depot's
	Root    string `toml:"root"`  // fingerprint of root version 1
	Key     string `toml:"key"`   // file of the builder's statement key
	Cores   int    `toml:"cores"` // NIX_BUILD_CORES; 0: all
	UID     int    `toml:"uid"`   // as root: the user that builds run as
	GID     int    `toml:"gid"`   // as root: and its group
	Timeout string `toml:"timeout"`
	Silent  string `toml:"max-silent"`
}

// A Builder is ready to build.
type Builder struct {
	dir      string
	config   Config
	root     trust.Pin
	timeout  time.Duration
	silent   time.Duration
	depot    *client
	Key      trust.Signer
	Clock    func() time.Time
	Log      io.Writer // the build's output
	Say      func(format string, args ...any)
	Progress func(bytes int64, item string)
}

// Init makes a builder's directory. It must not be there yet.
func Init(dir string, c Config) error {
	if _, err := c.check(); err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("%s is there already", dir)
	}
	data, err := toml.Marshal(c)
	if err != nil {
		return err
	}
	temp := filepath.Clean(dir) + ".partial"
	if err := os.RemoveAll(temp); err != nil {
		return err
	}
	for _, d := range []string{"store", "work", "input", wholeDir} {
		if err := os.MkdirAll(filepath.Join(temp, d), 0o755); err != nil {
			return err
		}
	}
	if err := durable.WriteAll(durable.OS{}, temp, durable.File{Path: filepath.Join(temp, configFile), Data: data, Perm: 0o644}); err != nil {
		return err
	}
	return durable.Rename(durable.OS{}, temp, filepath.Clean(dir))
}

func (c *Config) check() (*Builder, error) {
	b := &Builder{config: *c}
	var errs []error
	if err := trust.CheckWord(c.Enclave); err != nil {
		errs = append(errs, fmt.Errorf("enclave: %w", err))
	}
	if err := trust.CheckWord(c.Track); err != nil {
		errs = append(errs, fmt.Errorf("track: %w", err))
	}
	var err error
	if b.root, err = trust.ParsePin(c.Root); err != nil {
		errs = append(errs, fmt.Errorf("root: %w", err))
	}
	if b.depot, err = newClient(c.Depot); err != nil {
		errs = append(errs, err)
	}
	for _, d := range []struct {
		name, text string
		to         *time.Duration
		def        time.Duration
	}{{"timeout", c.Timeout, &b.timeout, 24 * time.Hour}, {"max-silent", c.Silent, &b.silent, time.Hour}} {
		*d.to = d.def
		if d.text != "" {
			if *d.to, err = time.ParseDuration(d.text); err != nil || *d.to <= 0 {
				errs = append(errs, fmt.Errorf("%s = %q: want a time such as \"1h30m\"", d.name, d.text))
			}
		}
	}
	if c.Key == "" {
		errs = append(errs, errors.New("key: no file"))
	}
	if c.Cores < 0 || c.UID < 0 || c.GID < 0 {
		errs = append(errs, errors.New("cores, uid and gid are not negative"))
	}
	return b, errors.Join(errs...)
}

// Open reads a builder's directory. A missing one is an error.
func Open(dir string) (*Builder, error) {
	f, err := os.Open(filepath.Join(dir, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is no builder: it has no %s; 'builder init' makes one", dir, configFile)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s: more than %d bytes", f.Name(), maxConfig)
	}
	var c Config
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) {
			return nil, fmt.Errorf("%s: unknown keys:\n%s", f.Name(), strict.String())
		}
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	b, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if b.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	b.Log, b.Say, b.Progress = io.Discard, func(string, ...any) {}, func(int64, string) {}
	return b, nil
}

// KeyFile is where the builder's key lies.
func (b *Builder) KeyFile() string { return b.config.Key }

// A Result is what a build came to.
type Result struct {
	Derivation string   `json:"derivation"`
	Outputs    []Output `json:"outputs"`
	Inputs     int      `json:"inputs"`
	Strays     []string `json:"strays"` // what the build wrote elsewhere; it is gone
	Dir        string   `json:"result"`
	Key        string   `json:"key"`
}

// An Output is one thing built.
type Output struct {
	ID      string       `json:"id"`
	Path    string       `json:"path"`
	NarHash trust.Digest `json:"nar_sha256"`
	NarSize int64        `json:"nar_size"`
}

// Build builds a derivation, named by its base name, and leaves the signed result at out, which must not be there yet.
func (b *Builder) Build(ctx context.Context, name, out string) (*Result, error) {
	if b.Key.Context() != trust.ContextStatement {
		return nil, trust.Refuse("key-context", b.Key.Name(), "a key of context %q signs no statement", b.Key.Context())
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(out); err == nil {
		return nil, fmt.Errorf("%s is there already; a result is never overwritten", out)
	}
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	view, err := b.view(ctx)
	if err != nil {
		return nil, err
	}
	if !view.Root.Holds(b.Key, trust.RoleBuilder, b.Clock()) {
		return nil, trust.Refuse("not-builder", b.Key.Name(), "the root in force (version %d) does not give this key to a builder", view.Root.Version)
	}
	j := &job{b: b, view: view, drvs: map[string]*derivation.Derivation{}, makers: map[string]string{}, inputs: map[storepath.Path]admit.Item{}}
	path, err := storepath.ParseBase(strings.TrimPrefix(name, storepath.Dir+"/"))
	if err != nil {
		return nil, fmt.Errorf("derivation: %w", err)
	}
	d, err := j.derivation(path)
	if err != nil {
		return nil, err
	}
	if err := j.close(ctx, d); err != nil {
		return nil, err
	}
	work, input := filepath.Join(b.dir, "work"), filepath.Join(b.dir, "input")
	if err := durable.RemoveAll(input); err != nil {
		return nil, err
	}
	for _, dir := range []string{work, input, filepath.Join(b.dir, wholeDir)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, p := range j.order {
		if err := b.fetch(ctx, j.inputs[p], input); err != nil {
			return nil, fmt.Errorf("input %s: %w", p.Base(), err)
		}
	}
	b.Say("building %s", path.Base())
	res, err := build.Run(ctx, build.Job{Derivation: d, Path: path, StoreDir: filepath.Join(b.dir, "store"), Inputs: j.order,
		References: func(p storepath.Path) ([]storepath.Path, error) { return j.inputs[p].References, nil },
		WorkDir:    work, Cores: b.config.Cores, UID: b.config.UID, GID: b.config.GID, Timeout: b.timeout, MaxSilent: b.silent, Log: b.Log})
	if err != nil {
		for _, s := range strays(res) {
			b.Say("the build wrote outside of its outputs: %s (removed)", s)
		}
		return nil, errors.Join(err, res.Close())
	}
	r, err := b.write(ctx, path, d, view, res, out)
	if err == nil {
		r.Inputs = len(j.order)
	}
	return r, errors.Join(err, res.Close())
}

// view opens the enclave's documents, from the pinned root on.
func (b *Builder) view(ctx context.Context) (*admit.View, error) {
	head, err := b.depot.head(ctx)
	if err != nil {
		return nil, err
	}
	if head.Enclave != b.config.Enclave || head.Track != b.config.Track {
		return nil, trust.Refuse("depot-wrong", b.config.Depot, "it serves track %q of enclave %q; this builder is for %q of %q", head.Track, head.Enclave, b.config.Track, b.config.Enclave)
	}
	if head.Root > maxRoots {
		return nil, trust.Refuse("depot-wrong", b.config.Depot, "%d roots, more than %d", head.Root, maxRoots)
	}
	var chain [][]byte
	for n := int64(1); n <= head.Root; n++ {
		note, err := b.depot.get(ctx, maxRootNote, "sallyport", "root", fmt.Sprint(n))
		if err != nil {
			return nil, err
		}
		chain = append(chain, note)
	}
	root, err := trust.OpenChain(chain, b.root)
	if err != nil {
		return nil, err
	}
	note, err := b.depot.get(ctx, maxAllowlistNote, "sallyport", "allowlist", fmt.Sprint(head.Allowlist))
	if err != nil {
		return nil, err
	}
	var orders *trust.Orders
	if head.Orders > 0 {
		note, err := b.depot.get(ctx, maxOrdersNote, "sallyport", "orders", fmt.Sprint(head.Orders))
		if err != nil {
			return nil, err
		}
		if orders, _, err = trust.OpenOrders(note, root); err != nil {
			return nil, err
		}
		if orders.Version != head.Orders {
			return nil, trust.Refuse("orders-version", b.config.Depot, "the depot sent version %d for version %d", orders.Version, head.Orders)
		}
	}
	// A depot that keeps orders back is found out by the list, which names those it was signed under, and by the floor.
	list, _, err := trust.OpenAllowlist(note, root, orders)
	if err != nil {
		return nil, err
	}
	if list.Track != b.config.Track {
		return nil, trust.Refuse("allowlist-track", b.config.Track, "the depot sent an allowlist of track %q", list.Track)
	}
	// One that has seen nothing yet has no floor: an old list must at least not pass for the newest.
	if list.Version != head.Allowlist {
		return nil, trust.Refuse("allowlist-version", b.config.Track, "the depot sent version %d for version %d", list.Version, head.Allowlist)
	}
	v := admit.New(root, orders, list, b.Clock, func(d trust.Digest) (io.ReadCloser, error) { return b.blob(ctx, list, orders, d) })
	for _, g := range v.Glass() {
		b.Say("break-glass: %s is allowed without its reviewers until %s: %s", g.Item.Name, trust.FormatDate(g.Until), g.Reason)
	}
	return v, admit.Raise(filepath.Join(b.dir, "floor.json"), v)
}

// blob gets the file of an allowed derivation.
func (b *Builder) blob(ctx context.Context, list *trust.Allowlist, orders *trust.Orders, d trust.Digest) (io.ReadCloser, error) {
	it, ok := list.BySHA256(d)
	if orders != nil && !ok {
		i := slices.IndexFunc(orders.BreakGlass, func(g trust.BreakGlass) bool { return g.Item.SHA256 == d })
		if ok = i >= 0; ok {
			it = orders.BreakGlass[i].Item
		}
	}
	if !ok {
		return nil, trust.Refuse("not-allowed", d.String(), "the allowlist of track %s, version %d, has no such content", list.Track, list.Version)
	}
	data, err := b.depot.get(ctx, it.Size, "sallyport", "blob", it.Name)
	if err != nil {
		return nil, err
	}
	if have := trust.Sum(data); have != d {
		return nil, trust.Refuse("item-digest", it.Name, "the depot sent content %s, the allowlist says %s", have, d)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// A job is one build: what it needs, judged.
type job struct {
	b      *Builder
	view   *admit.View
	drvs   map[string]*derivation.Derivation // by store path: the one to build, and all that it stands on
	makers map[string]string                 // base names of these derivations, by the base names of their outputs
	inputs map[storepath.Path]admit.Item
	order  []storepath.Path
}

// derivation gets and checks a derivation and, for the recomputation of its outputs, all those it builds on.
func (j *job) derivation(path storepath.Path) (*derivation.Derivation, error) {
	var failed error
	load := func(p string) (d *derivation.Derivation, err error) {
		defer func() { failed = errors.Join(failed, err) }()
		if d := j.drvs[p]; d != nil {
			return d, nil
		}
		sp, err := storepath.Parse(p)
		if err != nil {
			return nil, err
		}
		if d, err = j.view.Derivation(sp.Base()); err != nil {
			return nil, err
		}
		j.drvs[p] = d
		for _, o := range d.Outputs {
			if out, err := storepath.Parse(o.Path); err == nil {
				j.makers[out.Base()] = sp.Base()
			}
		}
		return d, nil
	}
	d, err := load(path.String())
	if err != nil {
		return nil, err
	}
	_, err = derivation.NewHasher(load).Verify(path, d.Bytes())
	if failed != nil {
		// Not what the derivation says is wrong, but what should come from the depot.
		return nil, failed
	}
	if err != nil {
		return nil, trust.Refuse("derivation-outputs", path.Base(), "%s", trust.Printable(err.Error(), 1000))
	}
	return d, nil
}

// close finds the closure of the build's inputs: sources, outputs of other derivations, and all they refer to. Each must be admitted.
func (j *job) close(ctx context.Context, d *derivation.Derivation) error {
	todo := slices.Clone(d.Sources)
	for _, in := range d.Inputs {
		below := j.drvs[in.Path]
		for _, id := range in.Outputs {
			i := slices.IndexFunc(below.Outputs, func(o derivation.Output) bool { return o.ID == id })
			if i < 0 {
				return fmt.Errorf("%s has no output %q", in.Path, id) // the hasher has seen to that
			}
			todo = append(todo, below.Outputs[i].Path)
		}
	}
	asked := map[string]bool{}
	for len(todo) > 0 {
		p, err := storepath.Parse(todo[0])
		todo = todo[1:]
		if err != nil {
			return err
		}
		if _, ok := j.inputs[p]; ok {
			continue
		}
		// What an output refers to was made by one of the derivations that this one stands on.
		if maker := j.makers[p.Base()]; maker != "" && !asked[maker] {
			asked[maker] = true
			envelopes, err := j.b.depot.evidence(ctx, maker)
			if err != nil {
				return err
			}
			if _, err := j.view.Evidence(maker, envelopes); err != nil {
				return err
			}
		}
		it, err := j.view.Item(p.Base())
		if err != nil {
			return err
		}
		j.inputs[p] = it
		j.order = append(j.order, p)
		if len(j.order) > maxClosure {
			return fmt.Errorf("more than %d inputs", maxClosure)
		}
		for _, r := range it.References {
			todo = append(todo, r.String())
		}
	}
	slices.SortFunc(j.order, storepath.Path.Compare)
	return nil
}

// fetch puts an input into the builder's store, if it is not there: downloaded whole, its digest compared, and only then unpacked.
func (b *Builder) fetch(ctx context.Context, it admit.Item, work string) error {
	name := it.Path.Base()
	final, mark := filepath.Join(b.dir, "store", name), filepath.Join(b.dir, wholeDir, name)
	if _, err := os.Lstat(final); err == nil {
		if have, err := os.ReadFile(mark); err == nil && string(have) == it.NarHash.String()+"\n" {
			return nil
		}
		// Something else was agreed on since, or a run was cut before it could say what this is.
		if err := durable.RemoveAll(final); err != nil {
			return err
		}
	}
	temp := filepath.Join(work, "input.nar")
	f, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(temp)
	defer f.Close()
	err = b.depot.download(ctx, f, it.NarHash, it.NarSize, func(n int64) { b.Progress(n, name) }, "nar", name)
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	store := filepath.Dir(final)
	root, err := os.OpenRoot(store)
	if err != nil {
		return err
	}
	defer root.Close()
	// In the same directory as its final name: a read-only directory can be renamed by its owner, but not be moved to another place.
	partial := partialPrefix + name
	if err := durable.RemoveAll(filepath.Join(store, partial)); err != nil {
		return err
	}
	if err := nar.Restore(root, partial, f); err != nil {
		return err
	}
	// One sync for the whole tree; its name only says "whole" if it is.
	dir, err := os.Open(store)
	if err != nil {
		return err
	}
	err = unix.Syncfs(int(dir.Fd()))
	if err = errors.Join(err, dir.Close()); err != nil {
		return err
	}
	if err := durable.Rename(durable.OS{}, filepath.Join(store, partial), final); err != nil {
		return err
	}
	return durable.WriteAll(durable.OS{}, work, durable.File{Path: mark, Data: []byte(it.NarHash.String() + "\n"), Perm: 0o644})
}

// partialPrefix begins the name of an input that is not whole yet. No store path's name begins so.
const partialPrefix = ".partial-"

// write signs what came out and makes the result.
func (b *Builder) write(ctx context.Context, drv storepath.Path, d *derivation.Derivation, view *admit.View, res *build.Result, out string) (*Result, error) {
	item, _ := view.List.ByName(drv.Base())
	temp := filepath.Join(filepath.Dir(out), "."+filepath.Base(out)+".partial")
	if err := os.RemoveAll(temp); err != nil {
		return nil, err
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(temp)
	r := &Result{Derivation: drv.Base(), Strays: strays(res), Dir: out, Key: b.Key.VKey().ID()}
	outputs := map[string]any{}
	var subjects []statement.Subject
	for _, o := range res.Outputs {
		if err := b.dump(ctx, o, filepath.Join(temp, o.Path.Base()+narSuffix)); err != nil {
			return nil, err
		}
		refs := []any{}
		for _, ref := range o.References {
			refs = append(refs, ref.String())
		}
		outputs[o.ID] = map[string]any{"path": o.Path.String(), "size": o.NarSize, "references": refs}
		subjects = append(subjects, statement.Subject{Name: o.Path.String(), SHA256: o.NarHash})
		r.Outputs = append(r.Outputs, Output{o.ID, o.Path.String(), o.NarHash, o.NarSize})
	}
	envelope, err := statement.Sign(b.Key, statement.Statement{Kind: statement.KindBuilt, Subjects: subjects, Predicate: map[string]any{
		"time": trust.FormatDate(b.Clock()), "zone": trust.Origin(b.config.Enclave, "inside"), "derivation": drv.String(), "derivation-sha256": item.SHA256.String(),
		"outputs": outputs, "person": b.Key.Person(), "system": d.System,
	}})
	if err != nil {
		return nil, err
	}
	if err := durable.WriteAll(durable.OS{}, temp, durable.File{Path: filepath.Join(temp, StatementFile), Data: envelope, Perm: 0o644}); err != nil {
		return nil, err
	}
	return r, durable.Rename(durable.OS{}, temp, out)
}

// strays lists what a build wrote where it should not have, with a last line for what is not listed.
func strays(res *build.Result) []string {
	list := []string{}
	if res == nil {
		return list
	}
	for _, s := range res.Strays {
		list = append(list, trust.Printable(s, 300))
	}
	if more := res.StrayCount - len(res.Strays); more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return list
}

// dump archives an output; what is archived must be what was judged.
func (b *Builder) dump(ctx context.Context, o build.Output, file string) error {
	root, err := os.OpenRoot(filepath.Dir(o.HostPath))
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	h := newHash(f)
	err = nar.Dump(h, root.FS(), filepath.Base(o.HostPath))
	if err == nil && (h.sum() != trust.Digest(o.NarHash) || h.n != o.NarSize) {
		err = fmt.Errorf("%s changed after it was built", o.Path)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// lock keeps two builds out of one directory.
func (b *Builder) lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(b.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another build is going on in %s", b.dir)
	}
	return func() { f.Close() }, nil
}
