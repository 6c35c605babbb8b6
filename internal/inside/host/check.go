package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// A Check is one look at a host.
type Check struct {
	Host     string   // its name
	Root     *os.Root // its root directory
	Proc     string   // where the kernel lists processes; "" where the host is not the machine that runs this
	Enclave  *Enclave
	Contents bool // read what lies in the store
	Rules    Rules
	Clock    func() time.Time
	Progress func(n int64, note string) // n: bytes, where contents are read
	Total    func(n int64)              // how many there will be
}

// A Count says how many items there are, and how many of them a root reaches.
type Count struct {
	Items   int `json:"items"`
	Reached int `json:"reached"`
}

// A Finding is an item that is not simply good.
type Finding struct {
	Status string       `json:"status"`
	Name   string       `json:"name"` // base name
	SHA256 trust.Digest `json:"sha256"`
	Why    string       `json:"why"`
	Root   string       `json:"root,omitempty"`  // the nearest root that reaches it
	Chain  []string     `json:"chain,omitempty"` // from that root's own item to it
	To     []string     `json:"to,omitempty"`    // of an affected one: from it to what was recalled
}

// A RootFinding is a root, and the worst that it reaches.
type RootFinding struct {
	Root
	Status string   // "" if all is well
	Why    string   // what is wrong with the worst
	Chain  []string // from its own item to the worst, the nearest of them
}

// A Result is what a host was found to be.
type Result struct {
	Host      string
	Enclave   string
	Date      time.Time
	Documents struct {
		Root, Orders Document
		Lists        map[string]Document // by track
	}
	Contents  bool
	Rules     Rules
	Items     int
	Bytes     int64 // of all nars, as far as it is known
	Counts    map[string]Count
	Findings  []Finding // the worst first
	Inventory []Found   // all items; those that are local only if that is refused
	Roots     []RootFinding
	Broken    []Broken
	Strays    []string // on disk without a row: left over, or under way
	Unread    int      // processes that could not be looked at
	Unseen    []string // derivations that were not to be had: what they make, and from what, is not known
	Faults    trust.Refusals
}

// noRow is what is wrong with a root whose item has no row in the database.
const noRow = "the store does not have it as a valid item"

// Run looks at the host.
func (c *Check) Run(ctx context.Context) (*Result, error) {
	t := newTree(c.Root)
	say := func(n int64, note string) {
		if c.Progress != nil {
			c.Progress(n, note)
		}
	}
	// In this order: what a root, or the disk, has before the database is copied the database has as well, unless it was deleted since.
	say(0, "roots")
	roots, broken, err := findRoots(t)
	if err != nil {
		return nil, err
	}
	res := &Result{Host: c.Host, Enclave: c.Enclave.Root.Enclave, Date: c.Clock().UTC(), Contents: c.Contents, Rules: c.Rules, Counts: map[string]Count{}, Broken: broken}
	if c.Proc != "" {
		more, unread, err := findProcesses(t, c.Proc)
		if err != nil {
			return nil, err
		}
		roots, res.Unread = append(roots, more...), unread
	}
	disk, err := listStore(t)
	if err != nil {
		return nil, err
	}
	say(0, "store database")
	rows, err := readDatabase(ctx, t, c.Enclave.state.temp())
	if err != nil {
		return nil, err
	}
	c.Enclave.host = t
	j := &judge{e: c.Enclave, t: t, rows: rows, say: func(_ int64, note string) { say(0, note) }}
	say(0, "items")
	if err := j.all(ctx); err != nil {
		return nil, err
	}
	if err := c.missing(ctx, j, disk); err != nil {
		return nil, err
	}
	if c.Contents {
		if err := c.contents(ctx, j); err != nil {
			return nil, err
		}
	}
	c.fill(res, j, roots, disk)
	return res, c.Enclave.prune()
}

// listStore returns the names in the store.
func listStore(t *tree) (map[string]bool, error) {
	at := t.store
	if at == "" {
		return nil, fmt.Errorf("%s: %w; is this the root directory of a Guix host?", storepath.Dir, fs.ErrNotExist)
	}
	list, err := t.list(at)
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool, len(list))
	for _, e := range list {
		names[e.Name()] = true
	}
	return names, nil
}

// missing finds rows of which there is nothing on disk.
func (c *Check) missing(ctx context.Context, j *judge, disk map[string]bool) error {
	var gone []int32
	for i := range j.rows.all {
		r := &j.rows.all[i]
		if r.path.IsZero() || disk[r.name] {
			continue
		}
		// It may have come since the store was listed.
		if _, err := j.t.lstat(path.Join(j.t.store, r.name)); errors.Is(err, fs.ErrNotExist) {
			gone = append(gone, int32(i))
		} else if err != nil {
			return err
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// And it may have been deleted since, with its row.
	now, err := readDatabase(ctx, j.t, c.Enclave.state.temp())
	if err != nil {
		return err
	}
	for _, i := range gone {
		if _, ok := now.find(j.rows.all[i].name); !ok {
			j.verdicts[i] = verdict{}
		} else if s := j.verdicts[i].status; s != Recalled {
			j.set(i, Missing, j.verdicts[i].maker, "the database has it, but there is nothing in the store")
		}
	}
	return nil
}

// contents reads all items and compares them with what is said of them.
func (c *Check) contents(ctx context.Context, j *judge) error {
	store, err := c.Root.OpenRoot(rel(j.t.store))
	if err != nil {
		return err
	}
	defer store.Close()
	// An item may name one that is bad without that the database says so.
	bad := map[string]named{}
	var total int64
	for i := range j.rows.all {
		r := &j.rows.all[i]
		if !r.path.IsZero() && (Rules{}).refuse(j.verdicts[i].status) {
			bad[r.path.Hash()] = named{int32(i), r.name + " (" + j.verdicts[i].status + ")"}
		}
		total += max(0, r.size)
	}
	if c.Total != nil {
		c.Total(total)
	}
	badParts := sortedKeys(bad)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int32)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := range work {
				if err := c.content(ctx, j, store, i, bad, badParts); err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := range j.rows.all {
		v := &j.verdicts[i]
		if v.status == "" || v.status == Missing || j.rows.all[i].path.IsZero() {
			continue
		}
		select {
		case work <- int32(i):
		case <-ctx.Done():
		}
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

// A named item is told by name to those who look at others at the same time.
type named struct {
	row  int32
	name string
}

// A meter hashes, counts, looks for references and ends when it is told to.
type meter struct {
	ctx  context.Context
	hash interface{ Write([]byte) (int, error) }
	scan *nar.Scanner
	say  func(n int64, note string)
	n    int64
}

func (m *meter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	m.hash.Write(p)
	m.scan.Write(p)
	m.n += int64(len(p))
	m.say(int64(len(p)), "")
	return len(p), nil
}

func (c *Check) content(ctx context.Context, j *judge, store *os.Root, i int32, bad map[string]named, badParts []string) error {
	r := &j.rows.all[i]
	want := make([]string, 0, len(r.refs)+len(badParts))
	for _, ref := range r.refs {
		if p := j.rows.all[ref].path; !p.IsZero() {
			want = append(want, p.Hash())
		}
	}
	scan, err := nar.NewScanner(append(want, badParts...))
	if err != nil {
		return err
	}
	h := sha256.New()
	m := &meter{ctx: ctx, hash: h, scan: scan, say: func(n int64, _ string) {
		if c.Progress != nil {
			c.Progress(n, r.name)
		}
	}}
	err = nar.Dump(m, store.FS(), r.name)
	var fault *nar.Error
	switch {
	case ctx.Err() != nil:
		return nil // the cause is known
	case errors.As(err, &fault):
		j.worse(i, Altered, "it cannot be archived: %v", err)
		return nil
	case errors.Is(err, fs.ErrNotExist):
		j.worse(i, Missing, "it went while it was read")
		return nil
	case err != nil:
		return err
	}
	var sum trust.Digest
	h.Sum(sum[:0])
	if r.odd == "" && (sum != r.hash || r.size >= 0 && m.n != r.size) {
		j.worse(i, Altered, "its content makes a nar of %d bytes with sha256 %s; the database says %d and %s", m.n, sum, r.size, r.hash)
		return nil
	}
	if r.deriver == "" && j.verdicts[i].maker == "" {
		return nil // what was added under its content has the references that were given with it
	}
	found := scan.Found()
	has := func(part string) bool { _, ok := slices.BinarySearch(found, part); return ok }
	for _, part := range want {
		if !has(part) {
			j.worse(i, Altered, "the database lets it refer to an item with the hash %s; its content does not", part)
			return nil
		}
	}
	for _, part := range found {
		if b, ok := bad[part]; ok && b.row != i && !slices.Contains(r.refs, b.row) {
			j.worse(i, Altered, "its content names %s; the database does not say so", b.name)
			return nil
		}
	}
	return nil
}

// worse sets a status, unless the item was recalled.
func (j *judge) worse(i int32, status, format string, args ...any) {
	if j.verdicts[i].status != Recalled {
		j.set(i, status, j.verdicts[i].maker, format, args...)
	}
}

// fill makes the result of what was found.
func (c *Check) fill(res *Result, j *judge, roots []Root, disk map[string]bool) {
	rows := j.rows
	res.Faults = rows.faults
	e := c.Enclave
	res.Documents.Root = Document{e.Root.Version, e.Root.Digest()}
	res.Documents.Orders = e.Orders()
	res.Documents.Lists = map[string]Document{}
	for _, v := range e.Views {
		res.Documents.Lists[v.List.Track] = Document{v.List.Version, v.List.Digest()}
	}
	rank := map[string]int{}
	for n, s := range Statuses() {
		rank[s] = n
	}
	is := func(statuses ...string) func(int32) bool {
		return func(i int32) bool { return slices.Contains(statuses, j.verdicts[i].status) }
	}
	toRecalled := towards(rows, is(Recalled))
	for i := range j.verdicts {
		v := &j.verdicts[i]
		switch next := toRecalled[i]; {
		case next < 0 || next == int32(i) || v.status == "":
		case (Rules{}).refuse(v.status):
			v.why += "; and it refers to what was recalled, by " + rows.all[next].name
		default:
			v.status, v.why = Affected, "it refers to "+rows.all[next].name
		}
	}
	at := make([]int32, len(roots))
	for k, r := range roots {
		at[k] = -1
		if i, ok := rows.find(r.Item); ok && j.verdicts[i].status != "" {
			at[k] = i
		}
	}
	ways := reached(rows, roots, at)
	for i := range rows.all {
		v := &j.verdicts[i]
		if v.status == "" {
			continue
		}
		r := &rows.all[i]
		res.Items++
		res.Bytes += max(0, r.size)
		n := res.Counts[v.status]
		n.Items++
		if ways.reached(int32(i)) {
			n.Reached++
		}
		res.Counts[v.status] = n
		if v.status != Local || c.Rules.Local {
			res.Inventory = append(res.Inventory, Found{v.status, r.hash, ways.reached(int32(i)), r.name})
		}
		if rank[v.status] > rank[BreakGlass] {
			continue
		}
		f := Finding{Status: v.status, Name: r.name, SHA256: r.hash, Why: v.why}
		if ways.reached(int32(i)) {
			f.Root, f.Chain = roots[ways.root[i]].Path, ways.chain(rows, int32(i))
		}
		if v.status == Affected {
			f.To = follow(rows, toRecalled, int32(i))
		}
		res.Findings = append(res.Findings, f)
	}
	slices.SortFunc(res.Findings, func(a, b Finding) int {
		if a.Status != b.Status {
			return rank[a.Status] - rank[b.Status]
		}
		return strings.Compare(a.Name, b.Name)
	})
	c.judgeRoots(res, j, roots, at, disk)
	for _, name := range sortedKeys(disk) {
		if _, ok := rows.find(name); !ok && name != ".links" {
			res.Strays = append(res.Strays, name)
		}
	}
	res.Unseen = sortedKeys(j.unseen)
}

// judgeRoots finds the worst that each root reaches.
func (c *Check) judgeRoots(res *Result, j *judge, roots []Root, at []int32, disk map[string]bool) {
	var bad []string
	for _, s := range Statuses() {
		if n := res.Counts[s]; n.Reached > 0 && s != Affected && c.Rules.refuse(s) {
			bad = append(bad, s)
		}
	}
	ways := make([][]int32, len(bad))
	for k, s := range bad {
		ways[k] = towards(j.rows, func(i int32) bool { return j.verdicts[i].status == s })
	}
	for k, r := range roots {
		f := RootFinding{Root: r}
		switch {
		case at[k] >= 0:
			for b, s := range bad {
				if ways[b][at[k]] >= 0 {
					f.Status, f.Chain = s, follow(j.rows, ways[b], at[k])
					if i, ok := j.rows.find(f.Chain[len(f.Chain)-1]); ok {
						f.Why = j.verdicts[i].why
					}
					break
				}
			}
		case disk[r.Item]:
			f.Status, f.Why, f.Chain = Unknown, noRow, []string{r.Item}
		default:
			res.Broken = append(res.Broken, Broken{r.Path, fmt.Sprintf("there is no %s in the store", trust.Printable(r.Item, 300))})
			continue
		}
		res.Roots = append(res.Roots, f)
	}
}

// Err is why the host is refused: everything that its roots reach and may not use. nil if it is clean.
func (r *Result) Err() error {
	rs := slices.Clone(r.Faults)
	more := 0
	add := func(ref *trust.Refusal) {
		// The last place is for how many there are beyond.
		if len(rs) < trust.MaxRefusals-1 {
			rs.Add(ref)
		} else {
			more++
		}
	}
	for _, f := range r.Findings {
		if !r.Rules.refuse(f.Status) || f.Status == Affected || f.Chain == nil && f.Status != Altered {
			continue
		}
		ref := trust.Refuse(code(f.Status), trust.Printable(f.Name, 300), "%s", f.Why)
		if f.Chain != nil {
			ref.Detail += fmt.Sprintf("; %s keeps it: %s", trust.Printable(f.Root, 300), PrintChain(f.Chain))
		}
		add(ref.WithHint(hint(f.Status)))
	}
	for _, f := range r.Roots {
		if f.Why == noRow {
			add(trust.Refuse("host-root", trust.Printable(f.Path, 300), "it leads to %s, and %s", trust.Printable(f.Item, 300), noRow).
				WithHint("what is only put into the store was never checked by the daemon: find out who did it"))
		}
	}
	if more > 0 {
		rs.Add(trust.Refuse("host-more", r.Host, "and %d more", more))
	}
	return rs.Err()
}

// code is the reason code of what a host may not use.
func code(status string) string { return "host-" + status }

func hint(status string) string {
	switch status {
	case Recalled, Derived:
		return "bring each profile that keeps it to a generation without it, delete the older generations, run 'guix gc', and check again"
	case Altered, Differs:
		return "this host's store was tampered with, or its disk is failing: take it off the network and compare it with another"
	case Disputed:
		return "officers settle what builders disagree on; until then nothing of it is to be used"
	case Missing:
		return "'guix gc --verify=repair' fetches it again"
	case Unknown:
		return "find out where it came from; what an enclave uses comes from its depot, or is built on the host"
	}
	return "what only the host vouches for is not taken here"
}

// PrintChain prints a way, shortened in the middle.
func PrintChain(chain []string) string {
	const ends = 6
	if len(chain) > 2*ends {
		chain = slices.Concat(chain[:ends], []string{fmt.Sprintf("… %d more …", len(chain)-2*ends)}, chain[len(chain)-ends:])
	}
	var b bytes.Buffer
	for i, n := range chain {
		if i > 0 {
			b.WriteString(" → ")
		}
		b.WriteString(trust.Printable(n, 300))
	}
	return b.String()
}

// prune drops derivations that no list has any more.
func (e *Enclave) prune() error {
	return e.state.prune(func(d trust.Digest) bool {
		for _, v := range e.Views {
			if _, ok := v.List.BySHA256(d); ok {
				return true
			}
		}
		return false
	})
}
