package channel

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// A Request says what is to be authenticated.
type Request struct {
	Introduction git.ID // where it begins
	Signer       openpgp.Fingerprint
	End          git.ID
	Keyring      *Keyring
	Historical   []openpgp.Fingerprint // keys that may sign children of commits that have no .guix-authorizations; usually none

	// Proven is what an earlier run has proven; nil for nothing. One that was made for another introduction, signer, keyring, or other historical
	// keys, is not used.
	Proven *Proven

	Workers  int                     // goroutines; 0 means as many as there are processors
	Progress func(judged, found int) // called now and then, never twice at once; may be nil
}

// A Verdict is the outcome. It is the same whatever was proven before, except for Judged.
type Verdict struct {
	Introduction git.ID
	Signer       openpgp.Fingerprint
	End          git.ID
	Commits      int // in the range: ancestors of the end, itself included, without the introduction and its ancestors
	Judged       int // of these, in this run
	Signers      []Count
	Refusals     []Refusal // parents first
	More         int       // refusals beyond MaxRefusals
	Findings     []Finding // oldest first
	MoreFindings int       // findings beyond MaxFindings

	proven *Proven
	graph  *graph
}

// OK reports whether the end is authentic.
func (v *Verdict) OK() bool { return len(v.Refusals) == 0 }

// Proven returns what the run has proven, with what was proven before; nil if something was refused.
func (v *Verdict) Proven() *Proven { return v.proven }

// Ancestors returns a function that tells whether a commit is id or an ancestor of it. ok is false if id is not known to be an ancestor of the end, or
// the end: it is not the introduction, none of its ancestors, and not in the range.
func (v *Verdict) Ancestors(id git.ID) (within func(git.ID) bool, ok bool) {
	if v.graph == nil {
		return nil, false
	}
	if v.graph.isBefore(id) {
		// Exactly which of them are ancestors is not known for what an earlier run has proven, and does not matter: none is judged.
		return v.graph.isBefore, true
	}
	from, end := v.graph.find(id), v.graph.find(v.End)
	if from == nil || end == nil || end.before || end.intro && !from.intro {
		return nil, false
	}
	set := make(map[git.ID]bool)
	if !from.intro {
		// An earlier run may have proven more than the history of this end. That a commit is known does not make it a part of that.
		in := false
		v.graph.reach(end, func(n *node) { in = in || n == from })
		if !in {
			return nil, false
		}
		v.graph.reach(from, func(n *node) { set[n.id] = true })
	}
	return func(c git.ID) bool { return set[c] || c == v.Introduction || v.graph.isBefore(c) }, true
}

const authorizationsFile = ".guix-authorizations"

// A node is a commit of the graph.
type node struct {
	id      git.ID
	parents []*node
	intro   bool // the introduction
	before  bool // an ancestor of it
	proven  bool // taken from an earlier run
	when    int64
	author  string // only where something is to be said of it
	signer  *openpgp.Fingerprint
	refusal *Refusal // what is wrong with its signature
	notes   []Finding

	loaded bool // the three below are known
	auth   authState
	blob   git.ID
	fault  error // why the tree could not be read

	descends bool // from the introduction
	mark     int32
}

type authState byte

const (
	authAbsent authState = iota
	authFile
	authOther // a directory, symbolic link or submodule
)

// A graph is the commits that were seen.
type graph struct {
	mu     sync.Mutex
	nodes  map[git.ID]*node
	before []git.ID // ancestors of the introduction that an earlier run has found, sorted; else they are nodes
	marks  int32
}

func (g *graph) find(id git.ID) *node {
	return g.nodes[id]
}

func (g *graph) isBefore(id git.ID) bool {
	if n := g.nodes[id]; n != nil {
		return n.before
	}
	_, ok := slices.BinarySearchFunc(g.before, id, func(a, b git.ID) int { return slices.Compare(a[:], b[:]) })
	return ok
}

// reach calls each for from and its ancestors in the range, parents first.
func (g *graph) reach(from *node, each func(*node)) {
	g.marks++
	type step struct {
		n    *node
		next int
	}
	stack := []step{{n: from}}
	from.mark = g.marks
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		if top.next == len(top.n.parents) {
			each(top.n)
			stack = stack[:len(stack)-1]
			continue
		}
		p := top.n.parents[top.next]
		top.next++
		if p.mark != g.marks && !p.before && !p.intro {
			p.mark = g.marks
			stack = append(stack, step{n: p})
		}
	}
}

// An authenticator is one run.
type authenticator struct {
	db  *git.Database
	req Request
	g   *graph

	cond    *sync.Cond // over g.mu
	queue   []*node    // to be read
	working int
	err     error // what ended the run
	judged  atomic.Int64
	tell    sync.Mutex

	lists  map[git.ID]list // .guix-authorizations that were read
	beside *node           // stands for all ancestors of the introduction, as parents of proven commits
}

type list struct {
	keys map[openpgp.Fingerprint]bool
	err  error
}

// Authenticate judges all commits between the introduction and the end as `guix git authenticate` does, and the introduction always. An error
// means that there is no verdict: the repository could not be read, or ctx ended.
func Authenticate(ctx context.Context, db *git.Database, req Request) (*Verdict, error) {
	v := &Verdict{Introduction: req.Introduction, Signer: req.Signer, End: req.End}
	if req.Workers <= 0 {
		req.Workers = runtime.GOMAXPROCS(0)
	}
	a := &authenticator{db: db, req: req, g: &graph{nodes: make(map[git.ID]*node)}, lists: make(map[git.ID]list)}
	a.cond = sync.NewCond(&a.g.mu)
	v.graph = a.g
	if req.Proven != nil && req.Proven.binding != req.binding() {
		a.req.Proven = nil
	}
	r := db.NewReader()

	intro, err := a.introduction(r, v)
	if err != nil || intro == nil {
		return v, err
	}
	if a.req.Proven != nil {
		a.recall(a.req.Proven, intro)
	} else {
		// All ancestors of the introduction, which are not judged. They are found first and exactly: dates, by which git finds its way, are the
		// committer's word.
		if err := a.walk(ctx, intro.parents, a.readBefore); err != nil {
			return nil, err
		}
		if n := a.bad(); n != nil {
			v.refuse(*n.refusal)
			return v, nil
		}
	}
	end, err := a.end(r, v)
	if err != nil || end == nil {
		return v, err
	}
	if !end.before && !end.intro && !end.proven {
		if err := a.walk(ctx, []*node{end}, a.judge); err != nil {
			return nil, err
		}
	}
	return v, a.conclude(r, v, intro, end)
}

// introduction reads the first commit and checks its signer. It returns nil if there is nothing to go on with.
func (a *authenticator) introduction(r *git.Reader, v *Verdict) (*node, error) {
	n := &node{id: a.req.Introduction, intro: true}
	const rule = "the introduction must be signed by the key that was handed over with it"
	raw, err := r.Read(n.id, git.KindCommit)
	if git.IsMissing(err) {
		v.refuse(Refusal{Code: CodeIntroductionMissing, Commit: n.id, Rule: "the repository must have the introductory commit", Detail: "the repository does not have the introductory commit"})
		return nil, nil
	}
	refusal, err := objectRefusal(n.id, err)
	if err != nil {
		return nil, err
	}
	var c *git.Commit
	if refusal == nil {
		if c, err = git.ParseCommit(raw); err != nil {
			refusal, _ = objectRefusal(n.id, err)
		}
	}
	if refusal != nil {
		v.refuse(*refusal)
		return nil, nil
	}
	n.when = git.Seconds(c.Committer)
	refusal, key := a.signature(n, c)
	switch {
	case refusal == nil && key.Fingerprint != a.req.Signer:
		refusal = &Refusal{Code: CodeIntroductionSigner, Detail: fmt.Sprintf("signed by %s instead of %s", key.Fingerprint, a.req.Signer)}
	case refusal == nil && key.sha1:
		refusal = a.hashRefusal(n, c, "sha1")
	}
	if refusal != nil {
		refusal.Commit, refusal.Author, refusal.Rule, refusal.File = n.id, author(c), rule, "the introduction, as it was handed over"
		if key != nil {
			refusal.Key = key.Fingerprint.String()
		}
		v.refuse(*refusal)
	}
	a.g.nodes[n.id] = n
	for _, id := range c.Parents {
		if a.g.nodes[id] != nil {
			continue // twice the same parent
		}
		p := &node{id: id, before: true}
		a.g.nodes[id] = p
		n.parents = append(n.parents, p)
	}
	// Its own list governs its children.
	a.load(r, n, c.Tree)
	return n, nil
}

// end makes the node of the last commit.
func (a *authenticator) end(r *git.Reader, v *Verdict) (*node, error) {
	id := a.req.End
	if n := a.g.find(id); n != nil {
		return n, nil
	}
	if a.g.isBefore(id) {
		return &node{id: id, before: true}, nil
	}
	if _, err := r.Read(id, git.KindCommit); err != nil {
		if git.IsMissing(err) {
			v.refuse(Refusal{Code: CodeEndMissing, Commit: id, Rule: "the repository must have the commit to authenticate", Detail: "the repository does not have this commit"})
			return nil, nil
		}
		refusal, err := objectRefusal(id, err)
		if refusal != nil {
			v.refuse(*refusal)
		}
		return nil, err
	}
	n := &node{id: id}
	a.g.nodes[id] = n
	return n, nil
}

// walk reads nodes and what they lead to, until nothing is left to read.
func (a *authenticator) walk(ctx context.Context, from []*node, read func(*git.Reader, *node) error) error {
	a.queue = append(a.queue[:0], from...)
	stop := context.AfterFunc(ctx, func() { a.fail(ctx.Err()) })
	var wg sync.WaitGroup
	for range a.req.Workers {
		wg.Go(func() {
			r := a.db.NewReader()
			for {
				n := a.next()
				if n == nil {
					return
				}
				a.done(read(r, n))
			}
		})
	}
	wg.Wait()
	stop()
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	return a.err
}

func (a *authenticator) fail(err error) {
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	if a.err == nil {
		a.err = err
	}
	a.cond.Broadcast()
}

// next waits for a node to read; nil means that there will be none.
func (a *authenticator) next() *node {
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	for {
		switch {
		case a.err != nil || len(a.queue) == 0 && a.working == 0:
			a.cond.Broadcast()
			return nil
		case len(a.queue) > 0:
			n := a.queue[len(a.queue)-1]
			a.queue = a.queue[:len(a.queue)-1]
			a.working++
			return n
		}
		a.cond.Wait()
	}
}

func (a *authenticator) done(err error) {
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	a.working--
	if err != nil && a.err == nil {
		a.err = err
	}
	if a.working == 0 && len(a.queue) == 0 || a.err != nil {
		a.cond.Broadcast()
	}
}

// follow links n to its parents and has those read that are new.
func (a *authenticator) follow(n *node, parents []git.ID) error {
	a.g.mu.Lock()
	defer a.g.mu.Unlock()
	n.parents = make([]*node, len(parents))
	for i, id := range parents {
		p := a.g.nodes[id]
		if p == nil {
			if len(a.g.nodes) == MaxCommits {
				return fmt.Errorf("channel: more than %d commits", MaxCommits)
			}
			p = &node{id: id, before: n.before || a.g.isBefore(id)}
			a.g.nodes[id] = p
			if n.before == p.before {
				a.queue = append(a.queue, p)
				a.cond.Signal()
			}
		}
		n.parents[i] = p
	}
	return nil
}

// commit reads and parses a commit. What is wrong with it is put into the node.
func (a *authenticator) commit(r *git.Reader, n *node) (*git.Commit, error) {
	raw, err := r.Read(n.id, git.KindCommit)
	var c *git.Commit
	if err == nil {
		c, err = git.ParseCommit(raw)
	}
	if err != nil {
		refusal, err := objectRefusal(n.id, err)
		n.refusal = refusal
		return nil, err
	}
	return c, nil
}

// objectRefusal makes a refusal of what the bytes are at fault for.
func objectRefusal(id git.ID, err error) (*Refusal, error) {
	if err == nil {
		return nil, nil
	}
	var e *git.Error
	if !errors.As(err, &e) {
		return nil, err
	}
	r := &Refusal{Code: CodeObjectMalformed, Commit: id, Rule: "every object must be there, be what its id says, and be well formed", Detail: e.Error()}
	switch e.Code {
	case git.CodeMissing:
		r.Code = CodeObjectMissing
		r.Detail = "the repository does not have it; the history is cut short, or part of it lies elsewhere"
	case git.CodeCollision:
		r.Code = CodeObjectCollision
	}
	return r, nil
}

func (a *authenticator) readBefore(r *git.Reader, n *node) error {
	c, err := a.commit(r, n)
	if err != nil || c == nil {
		return err
	}
	return a.follow(n, c.Parents)
}

// bad returns a node that could not be read.
func (a *authenticator) bad() *node {
	var worst *node
	for _, n := range a.g.nodes {
		if n.refusal != nil && (worst == nil || slices.Compare(n.id[:], worst.id[:]) < 0) {
			worst = n
		}
	}
	return worst
}

// judge reads one commit of the range and checks its signature; who was allowed to sign is for conclude.
func (a *authenticator) judge(r *git.Reader, n *node) error {
	c, err := a.commit(r, n)
	if err != nil || c == nil {
		return err
	}
	n.when = git.Seconds(c.Committer)
	if err := a.follow(n, c.Parents); err != nil {
		return err
	}
	refusal, key := a.signature(n, c)
	if key != nil {
		n.signer = &key.Fingerprint
	}
	if refusal != nil || len(n.notes) > 0 || key.sha1 {
		n.author = author(c)
	}
	// The tree is read last: the commit lies in the reader's memory.
	tree := c.Tree
	var sha1 *Refusal
	if refusal == nil && key.sha1 {
		sha1 = a.hashRefusal(n, c, "sha1")
	}
	a.load(r, n, tree)
	if n.fault != nil {
		broken, err := objectRefusal(n.id, n.fault)
		if err != nil {
			return err
		}
		broken.Detail = "its tree: " + broken.Detail
		refusal = broken
	}
	if refusal == nil && sha1 != nil && n.auth != authAbsent {
		refusal = sha1
	}
	if refusal != nil {
		refusal.Commit, refusal.Author = n.id, n.author
		if key != nil {
			refusal.Key = key.Fingerprint.String()
		}
		n.refusal = refusal
	}
	if k := a.judged.Add(1); k%512 == 0 && a.req.Progress != nil && a.tell.TryLock() {
		a.g.mu.Lock()
		found := int(k) + len(a.queue)
		a.g.mu.Unlock()
		a.req.Progress(int(k), found)
		a.tell.Unlock()
	}
	return nil
}

// load finds .guix-authorizations in the tree of n. A tree that cannot be read is told by fault.
func (a *authenticator) load(r *git.Reader, n *node, tree git.ID) {
	if n.loaded {
		return
	}
	n.loaded = true
	raw, err := r.Read(tree, git.KindTree)
	if err != nil {
		n.fault = err
		return
	}
	e, ok, err := git.Find(raw, authorizationsFile)
	switch {
	case err != nil:
		n.fault = err
	case !ok:
		n.auth = authAbsent
	case e.Mode == git.ModeTree || e.Mode == git.ModeSymlink || e.Mode == git.ModeSubmodule:
		n.auth = authOther
	default:
		n.auth, n.blob = authFile, e.ID
	}
}
