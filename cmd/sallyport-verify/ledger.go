package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	tileWidth     = 256
	maxEntries    = 1 << 40 // keeps a tree below six levels of tiles
	maxTile       = tileWidth * sha256.Size
	maxBundle     = tileWidth * (2 + maxEnvelope)
	maxCheckpoint = 1<<10 + maxSigLines
	maxWitnesses  = 1000
)

type hash [sha256.Size]byte

func (h hash) String() string { return base64.StdEncoding.EncodeToString(h[:]) }

// checkpoint says which tree a ledger had, and who signed that.
type checkpoint struct {
	origin string
	size   int64
	root   hash
	by     []signature
}

// openCheckpoint reads a checkpoint. It must be signed by one of the ledger's keys; witnesses may have signed it, too.
func openCheckpoint(dir *os.Root, name string, keys, witnesses []*key) (c checkpoint, err error) {
	data, err := readFile(dir, name, maxCheckpoint, "checkpoint")
	if err != nil {
		return c, err
	}
	n, err := parseNote(data, "checkpoint", name)
	if err != nil {
		return c, err
	}
	l := read("checkpoint", name, n.text)
	origin, size, b64 := l.next(), l.next(), l.next()
	_, ok := originEnclave(origin)
	number, ok2 := parseNumber(size, maxEntries)
	raw, ok3 := decode64(b64)
	if !ok || !ok2 || !ok3 || len(raw) != sha256.Size {
		l.fail("no origin, size and tree hash")
	}
	if err := l.end(); err != nil {
		return c, err
	}
	known := slices.Clone(witnesses)
	for _, k := range keys {
		if k.name == origin {
			known = append(known, k)
		}
	}
	c = checkpoint{origin: origin, size: number, root: hash(raw)}
	c.by, err = n.signers(known, "checkpoint", name)
	if err == nil && !slices.ContainsFunc(c.by, func(s signature) bool { return s.name == origin }) {
		err = refuse("checkpoint-unsigned", name, "is signed by no key of %s", origin)
	}
	return c, err
}

// mark is a tree that the walk must find on its way: the published checkpoint's, or one that a witness cosigned.
type mark struct {
	checkpoint
	witness string // "" for the checkpoint itself
}

// cosignatures gathers what witnesses signed: on the checkpoint, and in the files of dir, one a witness. Each of those must be a tree
// of the same ledger, no larger than the present one. want names those who must be among them.
func cosignatures(dir *os.Root, now checkpoint, keys, witnesses []*key, want []string, rep *report) ([]mark, error) {
	all := []checkpoint{now}
	files, err := listDir(dir, "witness", maxWitnesses, "witness")
	if err = rep.judge(err); err != nil {
		return nil, err
	}
	for _, f := range files {
		person := f.Name()
		c, err := openCheckpoint(dir, "witness/"+person, keys, witnesses)
		if err == nil && c.origin != now.origin {
			err = refuse("checkpoint-enclave", "witness/"+person, "is of %s", c.origin)
		} else if err == nil && !slices.ContainsFunc(c.by, func(s signature) bool { return s.name == person+"/witness" }) {
			err = refuse("checkpoint-unsigned", "witness/"+quote(person), "is not cosigned by a key of this witness")
		}
		if err == nil {
			all = append(all, c)
		} else if err = rep.judge(err); err != nil {
			return nil, err
		}
	}
	marks := []mark{{now, ""}}
	seen := map[string]int64{}
	for _, c := range all {
		for _, s := range c.by {
			name, ok := strings.CutSuffix(s.name, "/witness")
			if !ok {
				continue
			} else if c.size > now.size {
				rep.refuse("witness-rollback", name, "cosigned %d entries; now there are %d", c.size, now.size)
				continue
			}
			marks, seen[name] = append(marks, mark{c, name}), c.size
			rep.fact("witness "+name, fmt.Sprintf("%d of %d entries, %s", c.size, now.size, s.cosigned()))
		}
	}
	for _, name := range want {
		if _, ok := seen[name]; !ok {
			rep.refuse("witness-missing", name, "has not cosigned a tree of this ledger")
		}
	}
	return marks, nil
}

// entry is one statement as a worker left it: signed by key, or not to be believed because of err.
type entry struct {
	*statement
	index int64
	key   *key
	err   error
}

func (e entry) String() string {
	if e.statement == nil {
		return fmt.Sprintf("entry %d", e.index)
	}
	return fmt.Sprintf("entry %d (%s)", e.index, e.kind)
}

// ledger walks a published tree. Bundles are read, hashed and checked by several goroutines, a bounded number at a time; what they
// found is put together in the entries' order by one.
type ledger struct {
	dir   *os.Root // relative to it, tiles are under a path
	under string
	now   checkpoint
	rep   *report
	keys  map[string][]*key // of statements, by keyid
	each  func(entry)
	count map[string]int64 // statements believed, by kind
	// levels[k] holds the hashes of the complete subtrees of 256^(k+1) leaves that fill no tile yet.
	levels [][]hash
	done   []int64 // full tiles of each of these levels
	whole  bool    // all entries were read
}

// merkle is RFC 6962's tree hash over nodes; the last may stand for fewer leaves than the others.
func merkle(nodes []hash) hash {
	switch len(nodes) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return nodes[0]
	}
	k := 1
	for k*2 < len(nodes) {
		k *= 2
	}
	left, right := merkle(nodes[:k]), merkle(nodes[k:])
	both := [1 + 2*sha256.Size]byte{1}
	copy(both[1:], left[:])
	copy(both[1+sha256.Size:], right[:])
	return sha256.Sum256(both[:])
}

// tree is the root over everything in levels and the given leaves after it.
func (l *ledger) tree(leaves []hash) hash {
	nodes := leaves
	for _, level := range l.levels {
		if len(nodes) > 0 {
			nodes = []hash{merkle(nodes)}
		}
		nodes = append(slices.Clip(level), nodes...)
	}
	return merkle(nodes)
}

// push adds a complete subtree to level k, and checks and folds the tile that it completes.
func (l *ledger) push(k int, node hash) error {
	if len(l.levels) == k {
		l.levels, l.done = append(l.levels, nil), append(l.done, 0)
	}
	if l.levels[k] = append(l.levels[k], node); len(l.levels[k]) < tileWidth {
		return nil
	}
	full := l.levels[k]
	l.levels[k], l.done[k] = nil, l.done[k]+1
	return cmp.Or(l.rep.judge(l.tile(k+1, l.done[k]-1, full)), l.push(k+1, merkle(full)))
}

// read returns a published tile or bundle, and its width: the one that the checkpoint needs, or the whole one, which may be there already
// when the ledger has grown.
func (l *ledger) read(level string, index int64, width int, limit int64) (name string, data []byte, have int, err error) {
	whole := tilePath(level, index)
	if width < tileWidth {
		name = fmt.Sprintf("%s.p/%d", whole, width)
		if data, err = readFile(l.dir, path.Join(l.under, name), limit, "ledger"); !coded(err, "-missing") {
			return name, data, width, err
		}
	}
	data, err = readFile(l.dir, path.Join(l.under, whole), limit, "ledger")
	return whole, data, tileWidth, err
}

// tilePath is where a tile or bundle lies: LEVEL/x001/x234/067.
func tilePath(level string, index int64) string {
	p := fmt.Sprintf("%03d", index%1000)
	for index /= 1000; index > 0; index /= 1000 {
		p = fmt.Sprintf("x%03d/%s", index%1000, p)
	}
	return "tile/" + level + "/" + p
}

// tile compares a published tile with its hashes as they were computed from the entries.
func (l *ledger) tile(level int, index int64, want []hash) error {
	name, data, have, err := l.read(strconv.Itoa(level), index, len(want), maxTile)
	if err != nil {
		return err
	}
	if len(data) != have*sha256.Size {
		return refuse("ledger-tile", name, "%d bytes, not %d hashes", len(data), have)
	}
	var all faults
	for j := range want {
		if got := hash(data[j*sha256.Size:]); got == want[j] {
			continue
		} else if level == 0 {
			all = append(all, fault{"ledger-entry", fmt.Sprintf("entry %d", index*tileWidth+int64(j)), "is another than " + name + " says"})
		} else {
			all = append(all, fault{"ledger-tile", name, fmt.Sprintf("hash %d is not what the entries below it make", j)})
		}
	}
	if len(all) > 0 {
		return all
	}
	return nil
}

// split cuts a bundle into entries, each with its length before it.
func split(data string, width int) (leaves []string, ok bool) {
	leaves = make([]string, 0, width)
	for range width {
		if len(data) < 2 || len(data)-2 < int(data[0])<<8+int(data[1]) {
			return nil, false
		}
		n := 2 + int(data[0])<<8 + int(data[1])
		leaves, data = append(leaves, data[2:n]), data[n:]
	}
	return leaves, data == ""
}

// bundle is up to 256 entries and the hashes of their leaves. It has none if the entries could not be read.
type bundle struct {
	hashes  []hash
	entries []entry
	above   hash
	err     error
}

// bundle reads entries 256*i and following. It is called from several goroutines.
func (l *ledger) bundle(i int64) (b bundle) {
	width := int(min(tileWidth, l.now.size-i*tileWidth))
	name, data, have, err := l.read("entries", i, width, maxBundle)
	if err != nil {
		return bundle{err: err}
	}
	leaves, ok := split(string(data), have)
	if !ok {
		return bundle{err: refuse("ledger-bundle", name, "does not hold exactly %d entries", have)}
	}
	var scratch []byte
	b.entries, b.hashes = make([]entry, 0, width), make([]hash, 0, width)
	for j, leaf := range leaves[:width] {
		scratch = append(append(scratch[:0], 0), leaf...)
		b.hashes = append(b.hashes, sha256.Sum256(scratch))
		e := entry{index: i*tileWidth + int64(j)}
		e.statement, e.key, e.err = checkEntry(leaf, l.keys, l.now.origin)
		b.entries = append(b.entries, e)
	}
	b.above = merkle(b.hashes)
	b.err = l.tile(0, i, b.hashes)
	return b
}

// walk reads the whole tree once and holds it against the marks. It ends at entries that are not there.
func (l *ledger) walk(marks []mark) error {
	l.count = map[string]int64{}
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.size, b.size) })
	workers := runtime.GOMAXPROCS(0)
	pending := make(chan chan bundle, 4*workers) // in the entries' order
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pending)
		running := make(chan struct{}, workers)
		for i := range (l.now.size + tileWidth - 1) / tileWidth {
			c := make(chan bundle, 1)
			select {
			case pending <- c:
			case <-stop:
				return
			}
			running <- struct{}{}
			go func() {
				c <- l.bundle(i)
				<-running
			}()
		}
	}()
	base := int64(0)
	meet := func(leaves []hash) {
		for ; len(marks) > 0 && marks[0].size <= base+int64(len(leaves)); marks = marks[1:] {
			m := marks[0]
			if got := l.tree(leaves[:m.size-base]); got == m.root {
				continue
			} else if m.witness == "" {
				l.rep.refuse("ledger-root", "checkpoint", "the entries make tree %s, the checkpoint says %s", got, m.root)
			} else {
				l.rep.refuse("witness-fork", m.witness, "cosigned tree %s; these %d entries now make %s", m.root, m.size, got)
			}
		}
	}
	meet(nil)
	for c := range pending {
		b := <-c
		if err := l.rep.judge(b.err); err != nil {
			return err
		}
		if b.entries == nil {
			return nil
		}
		meet(b.hashes)
		for _, e := range b.entries {
			l.each(e)
		}
		if base += int64(len(b.hashes)); len(b.hashes) == tileWidth {
			if err := l.push(0, b.above); err != nil {
				return err
			}
		}
	}
	for k, level := range l.levels {
		if len(level) > 0 {
			if err := l.rep.judge(l.tile(k+1, l.done[k], level)); err != nil {
				return err
			}
		}
	}
	l.whole = true
	return nil
}

// believed records what a worker found, and tells whether the entry counts.
func (l *ledger) believed(e entry) bool {
	var f faults
	if e.err == errUnknownKey {
		l.rep.refuse("statement-key", e.String(), "key %.100q is unknown", e.keyid)
		return false
	} else if errors.As(e.err, &f) {
		l.rep.refuse(f[0].Code, e.String(), "%s", f[0].Detail)
		return false
	}
	l.count[e.kind]++
	return true
}

func (l *ledger) facts() {
	l.rep.fact("ledger", l.now.origin)
	l.rep.fact("entries", l.now.size)
	l.rep.fact("tree", l.now.root.String())
	for _, kind := range slices.Sorted(maps.Keys(l.count)) {
		l.rep.fact("entries "+kind, l.count[kind])
	}
}

// verifyLedger is the command for a ledger without a root: tree and signatures by the keys given.
func verifyLedger(place string, o options, rep *report) error {
	var checkpoints []*key
	l := &ledger{under: ".", rep: rep, keys: map[string][]*key{}}
	for _, s := range o.keys {
		k, ok := parseVKey(s)
		if !ok || k.alg != algEd25519 {
			return usageError(fmt.Sprintf("--key %q is no vkey", s))
		}
		if _, ok := originEnclave(k.name); ok {
			checkpoints = append(checkpoints, k)
		} else if k.owner, ok = strings.CutSuffix(k.name, "/statement"); ok {
			l.keys[k.id()] = append(l.keys[k.id()], k)
		} else {
			return usageError(fmt.Sprintf("--key %q is named neither for a ledger nor NAME/statement", s))
		}
	}
	if len(checkpoints) == 0 {
		return usageError("--key VKEY of the ledger is needed")
	}
	dir, err := os.OpenRoot(place)
	if err != nil {
		return err
	}
	defer dir.Close()
	l.dir = dir
	if l.now, err = openCheckpoint(dir, "checkpoint", checkpoints, nil); err != nil {
		return rep.judge(err)
	}
	var unchecked int64
	l.each = func(e entry) {
		if e.err == errUnknownKey {
			unchecked++
			l.count[e.kind]++
		} else if l.believed(e) && (kinds[e.kind].signer == station) != (e.key.owner == station) {
			rep.refuse("statement-role", e.String(), "is signed by %s", e.key.owner)
		}
	}
	err = l.walk([]mark{{l.now, ""}})
	l.facts()
	rep.fact("unchecked signatures", unchecked)
	return err
}
