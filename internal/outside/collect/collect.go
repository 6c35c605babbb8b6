// Package collect brings together, outside, what an enclave asked for: it reads a request, turns trees of this machine into store items, computes
// the derivations that are to be built from them, and looks into every file before anything is signed.
//
// # The request
//
// A TOML file; unknown keys are errors.
//
//	enclave = "demo"
//
//	[[source]]
//	label = "go"                  # derivations call it {go}
//	from = "go-toolchain"         # the Go installed here
//
//	[[source]]
//	label = "src"
//	name = "hello-1.0"
//	from = "go-module"            # files under version control, modules vendored
//	path = "."                    # relative to this file
//
//	[[derivation]]
//	name = "hello-1.0"
//	builder = "{go}/bin/go"
//	args = ["generate", "-C", "{src}", "./cmd/hello"]
//	env = { GOROOT = "{go}", GOCACHE = "{builddir}/cache" }
//
//	[[channel]]
//	name = "guix"                 # where 'channel pin' has it
//	repository = "/srv/guix.git"  # has the commit; what is new since the pin that was sent last is taken
//	complete = false              # true: the whole history
//
// Store paths are computed from content as Guix computes them (sallyport/guix/storepath, sallyport/guix/derivation).
//
// # When it becomes true
//
// Trees are archived straight into the blob store, hashed on the way, and inspected. Their digests are noted (package pending) before they have a name there. One
// transaction then names the items and writes the entries "inspected" and "collected". A run that is cut before has no effect: the next run removes what was noted and
// is not named.
package collect

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/judge/examine"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// A Collector works for one outside zone.
type Collector struct {
	Zone     *store.Zone
	Root     *trust.Root // the enclave's, if the outside knows it: no shipment that it refuses gets a number
	Reader   confine.Options
	Clock    func() time.Time
	Rand     io.Reader // for the key of the cache of proofs
	Progress func(bytes int64, item string)
}

// A Collection is what a request came to.
type Collection struct {
	Request  trust.Digest     `json:"request"`
	Items    []trust.Item     `json:"items"`
	Bytes    int64            `json:"bytes"`
	Files    int64            `json:"files"`
	Findings map[string]int64 `json:"findings"` // by severity
	Details  []Detail         `json:"details"`
	Outputs  []Output         `json:"outputs"`
	Channels []ChannelItem    `json:"channels,omitempty"`
	Confined map[string]any   `json:"confinement"`
}

// A Detail is a finding with the item that it is about.
type Detail struct {
	Item string `json:"item"`
	confine.Finding
}

// An Output is what a derivation of the request will build.
type Output struct {
	Derivation string `json:"derivation"`
	ID         string `json:"id"`
	Path       string `json:"path"`
}

// stage names the lock and the note of pending blobs.
const stage = "collect"

// Collect does what the request says. base is the directory its paths are relative to. A finding of severity "block" and a tree that cannot
// be a store item are refusals, and ledger entries: nothing is collected then.
func (c *Collector) Collect(ctx context.Context, req *Request, base string) (*Collection, error) {
	if req.Enclave != c.Zone.Config.Enclave {
		return nil, trust.Refuse("request-enclave", "request", "made for enclave %q, this zone is of %q", req.Enclave, c.Zone.Config.Enclave)
	}
	unlock, err := c.Zone.LockContext(ctx, stage)
	if err != nil {
		return nil, err
	}
	defer unlock()
	w := &work{c: c, out: &Collection{Request: req.digest, Items: []trust.Item{}, Findings: map[string]int64{}, Details: []Detail{}, Outputs: []Output{}}}
	err = w.run(ctx, req, base)
	if w.reader != nil {
		w.reader.Close()
	}
	left := w.pending.End(ctx, err)
	if err == nil {
		for _, adopt := range w.adopt {
			if adopt() != nil {
				break // it is unpacked again when it is needed
			}
		}
	}
	for _, end := range w.ends {
		end()
	}
	if err == nil {
		return w.out, left
	}
	return nil, errors.Join(c.Zone.Refused(ctx, stage, statement.Subject{Name: "request", SHA256: req.digest}, err), left)
}

func (w *work) run(ctx context.Context, req *Request, base string) error {
	var err error
	if err := w.note(ctx); err != nil { // and what a run that was killed has left goes
		return err
	}
	if w.reader, err = examine.Start(ctx, w.c.Reader); err != nil {
		return err
	}
	w.out.Confined = w.reader.Confinement()
	paths := map[string]storepath.Path{}
	for i := range req.Source {
		s := &req.Source[i]
		p, err := w.source(ctx, s, base)
		if err != nil {
			return fmt.Errorf("source %q: %w", s.Label, err)
		}
		paths[s.Label] = p
	}
	system, err := guixSystem(runtime.GOARCH)
	if err != nil {
		return err
	}
	for i := range req.Derivation {
		d := &req.Derivation[i]
		if err := w.derivation(ctx, d, paths, system); err != nil {
			return fmt.Errorf("derivation %q: %w", d.Name, err)
		}
	}
	for i := range req.Channel {
		c := &req.Channel[i]
		if err := w.refusals.Merge(w.channel(ctx, c, base)); err != nil {
			return fmt.Errorf("channel %q: %w", c.Name, err)
		}
	}
	if err := w.refusals.Err(); err != nil {
		return err
	}
	trust.SortItems(w.out.Items)
	return w.commit(ctx)
}

// note says which blobs are about to be stored, those that were stored before among them.
func (w *work) note(ctx context.Context, more ...trust.Digest) (err error) {
	w.noted = append(w.noted, more...)
	if w.pending == nil {
		w.pending, err = pending.Begin(ctx, w.c.Zone, stage, w.noted)
		return err
	}
	return w.pending.More(w.noted)
}

// guixSystem is Guix's name of this machine's kind.
func guixSystem(arch string) (string, error) {
	switch arch {
	case "amd64":
		return "x86_64-linux", nil
	case "arm64":
		return "aarch64-linux", nil
	case "riscv64":
		return "riscv64-linux", nil
	case "ppc64le":
		return "powerpc64le-linux", nil
	}
	return "", fmt.Errorf("no Guix system is known for the architecture %q; set system in the request", arch)
}

type work struct {
	c        *Collector
	reader   *examine.Reader
	pending  *pending.Intake
	noted    []trust.Digest
	out      *Collection
	refusals trust.Refusals
	git      *gitrun.Git
	adopt    []func() error // of what was unpacked, once all is true
	ends     []func()
}

// source archives one source into the store, and has it looked into.
func (w *work) source(ctx context.Context, s *Source, base string) (storepath.Path, error) {
	stage, remove, err := w.c.Zone.Scratch()
	if err != nil {
		return storepath.Path{}, err
	}
	defer remove()
	t, err := s.open(ctx, base, stage)
	if err != nil {
		return storepath.Path{}, err
	}
	defer t.Close()
	blob, err := w.c.Zone.CAS.Create()
	if err != nil {
		return storepath.Path{}, err
	}
	defer blob.Abort()
	// The size of a nar is not known before it is written, and the reader wants to know it: the archive goes to the store first and is read from there.
	progress := counter(func(n int64) {
		if w.c.Progress != nil {
			w.c.Progress(n, s.Name)
		}
	})
	hash := sha256.New()
	if err := nar.Dump(io.MultiWriter(blob, hash, progress, until{ctx}), t.root.FS(), t.name); err != nil {
		return storepath.Path{}, err
	}
	var digest trust.Digest
	hash.Sum(digest[:0])
	if err := w.note(ctx, digest); err != nil {
		return storepath.Path{}, err
	}
	_, size, err := blob.Commit(digest)
	if err != nil {
		return storepath.Path{}, err
	}
	path, err := storepath.Source(s.Name, digest)
	if err != nil {
		return storepath.Path{}, err
	}
	return path, w.item(ctx, confine.KindNar, trust.Item{SHA256: digest, Size: size, Kind: trust.KindSource, Name: path.Base()})
}

// derivation computes a derivation and stores it.
func (w *work) derivation(ctx context.Context, r *Recipe, sources map[string]storepath.Path, system string) error {
	d, err := r.derive(sources, system)
	if err != nil {
		return err
	}
	path, err := d.Path(r.Name)
	if err != nil {
		return err
	}
	data := d.Bytes()
	digest := trust.Sum(data)
	if err := w.note(ctx, digest); err != nil {
		return err
	}
	if _, err := w.c.Zone.CAS.PutBytes(data); err != nil {
		return err
	}
	for _, o := range d.Outputs {
		w.out.Outputs = append(w.out.Outputs, Output{path.Base(), o.ID, o.Path})
	}
	return w.item(ctx, confine.KindDerivation, trust.Item{SHA256: digest, Size: int64(len(data)), Kind: trust.KindDerivation, Name: path.Base()})
}

// item has the reader look into an item of the store.
func (w *work) item(ctx context.Context, kind string, it trust.Item) error {
	r, err := w.c.Zone.CAS.Open(it.SHA256)
	if err != nil {
		return err
	}
	defer r.Close()
	report, err := w.reader.Item(ctx, confine.Request{Kind: kind, Name: it.Name, Size: it.Size}, r)
	if report == nil {
		// One that could not be judged may still be one of several faults.
		return w.refusals.Merge(err)
	}
	if err := w.refusals.Merge(err); err != nil {
		return err
	}
	for _, f := range report.Findings {
		w.out.Findings[f.Severity] += f.Count
		w.out.Details = append(w.out.Details, Detail{it.Name, f})
	}
	for _, had := range w.out.Items {
		if had == it {
			return nil // asked for twice
		}
	}
	w.out.Items = append(w.out.Items, it)
	w.out.Bytes += it.Size
	w.out.Files += report.Files
	return nil
}

// commit is the write that makes it true.
func (w *work) commit(ctx context.Context) error {
	z, out := w.c.Zone, w.out
	list := trust.AppendItems(nil, out.Items)
	subjects := []statement.Subject{{Name: "items", SHA256: trust.Sum(list)}}
	findings := map[string]any{}
	for severity, n := range out.Findings {
		findings[severity] = n
	}
	// The list is what the entry names.
	if err := w.note(ctx, trust.Sum(list)); err != nil {
		return err
	}
	if _, err := z.CAS.PutBytes(list); err != nil {
		return err
	}
	return z.Commit(ctx, func(tx *store.Tx) error {
		now := trust.FormatDate(tx.Now())
		if err := tx.Statement(statement.KindInspected, subjects, map[string]any{
			"files": out.Files, "bytes": out.Bytes, "findings": findings, "confinement": out.Confined}); err != nil {
			return err
		}
		if err := tx.Statement(statement.KindCollected, subjects, map[string]any{
			"items": int64(len(out.Items)), "bytes": out.Bytes, "request": out.Request.String()}); err != nil {
			return err
		}
		if err := tx.Attach(ctx, trust.Sum(list)); err != nil {
			return err
		}
		for _, it := range out.Items {
			if err := tx.Exec(ctx, `INSERT INTO collected (sha256, size, kind, name, request, added) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (sha256, name) DO UPDATE SET request = excluded.request, added = excluded.added`,
				it.SHA256.String(), it.Size, string(it.Kind), it.Name, out.Request.String(), now); err != nil {
				return err
			}
		}
		return nil
	})
}

// until is a writer that fails when its context has ended.
type until struct{ ctx context.Context }

func (u until) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return len(p), nil
}

type counter func(int64)

func (c counter) Write(p []byte) (int, error) { c(int64(len(p))); return len(p), nil }
