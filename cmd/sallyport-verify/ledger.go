package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
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

// tree is one that a ledger had.
type tree struct {
	size int64
	root hash
}

// text is that of its checkpoint.
func (t tree) text(origin string) string { return fmt.Sprintf("%s\n%d\n%s\n", origin, t.size, t.root) }

// checkpoint says which tree a ledger has, and who signed that.
type checkpoint struct {
	name   string // of its file
	origin string
	tree
	by []signature
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
	l := read("checkpoint", name, n.text, maxCheckpoint)
	origin, size, root := l.next(), l.next(), l.next()
	if !is("origin", origin) || !is("count", size) || number(size) > maxEntries || !is("tree", root) {
		l.fail("no origin, size and tree hash")
	}
	if err := l.end(); err != nil {
		return c, err
	}
	raw, _ := decode64(root)
	c = checkpoint{name: name, origin: origin, tree: tree{number(size), hash(raw)}}
	own := slices.DeleteFunc(slices.Clone(keys), func(k *key) bool { return k.name != origin })
	by, _, wrong := n.by(append(own, witnesses...))
	if !slices.ContainsFunc(by, func(s signature) bool { return s.name == origin }) && len(wrong) == 0 {
		wrong.add("checkpoint-unsigned", name, "is signed by no key of %s", origin)
	}
	c.by = by
	return c, wrong.err()
}

// cosigned is a tree that a witness cosigned.
type cosigned struct {
	tree
	witness string
}

// cosignatures gathers what witnesses signed: on the checkpoint, and in the files of dir, one a witness. Each of those must be a tree
// of the same ledger. want names those who must be among them. Beside what was cosigned, all the checkpoints are returned.
func cosignatures(dir *os.Root, now checkpoint, keys, witnesses []*key, want []string, rep *report) (found []cosigned, all []checkpoint, err error) {
	all = []checkpoint{now}
	files, err := listDir(dir, "witness", maxWitnesses, "witness")
	if err = rep.judge(err); err != nil {
		return nil, nil, err
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
			return nil, nil, err
		}
	}
	seen := map[string]bool{}
	for _, c := range all {
		for _, s := range c.by {
			if name, ok := strings.CutSuffix(s.name, "/witness"); ok {
				found, seen[name] = append(found, cosigned{c.tree, name}), true
				rep.fact("witness "+name, fmt.Sprintf("%d of %d entries, %s", c.size, now.size, s.time()))
			}
		}
	}
	for _, name := range want {
		if !seen[name] {
			rep.refuse("witness-missing", name, "has not cosigned a tree of this ledger")
		}
	}
	return found, all, nil
}

// entry is one statement as a worker left it. It is used again for another one.
type entry struct {
	statement
	index           int64
	key             *key // that may have signed it; nil if none of any root has this keyid
	checked, signed bool // the signature was looked at, and is right
	err             error
}

func (e *entry) String() string {
	if e.kind == "" {
		return fmt.Sprintf("entry %d", e.index)
	}
	return fmt.Sprintf("entry %d (%s)", e.index, e.kind)
}

// ledger walks a published tree. Bundles are read, hashed and checked by several goroutines, a bounded number at a time; what they
// found is put together in the entries' order by one.
type ledger struct {
	dir       *os.Root // relative to it, tiles are under a path
	under     string
	head      checkpoint
	rep       *report
	keys      map[string][]*key // of statements, by keyid
	persons   bool              // only signatures of persons are checked
	each      func(*entry)
	count     map[string]int64 // statements believed, by kind
	unchecked int64            // of them, those whose signature was not looked at
	full      [][]hash         // full[k] has the hashes of the complete subtrees of 256^(k+1) leaves
	rest      []hash           // of the leaves behind those
	whole     bool             // all entries were read
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

// push adds a complete subtree to a level, and compares and folds the tile that it completes.
func (l *ledger) push(k int, node hash) error {
	if len(l.full) == k {
		l.full = append(l.full, nil)
	}
	l.full[k] = append(l.full[k], node)
	n := len(l.full[k])
	if n%tileWidth > 0 {
		return nil
	}
	tile := l.full[k][n-tileWidth:]
	return cmp.Or(l.rep.judge(l.tile(nil, k+1, int64(n/tileWidth-1), tile)), l.push(k+1, merkle(tile)))
}

// treeAt is the tree of the first entries, as the entries make it. Above the leaves it is in memory; leaves are read again.
func (l *ledger) treeAt(size int64) (root hash, err error) {
	nodes, bundles := l.rest, size/tileWidth
	if size%tileWidth > 0 && len(l.full) > 0 && bundles < int64(len(l.full[0])) {
		b := bundle{index: bundles}
		if err := l.leaves(&b); err != nil {
			return root, err
		}
		if nodes = b.hashes; merkle(nodes) != l.full[0][bundles] {
			return root, fmt.Errorf("%s changed while it was read", tilePath("entries", bundles))
		}
	}
	nodes = nodes[:size%tileWidth]
	for _, level := range l.full {
		if len(nodes) > 0 {
			nodes = []hash{merkle(nodes)}
		}
		size /= tileWidth
		nodes = append(slices.Clone(level[size/tileWidth*tileWidth:size]), nodes...)
	}
	return merkle(nodes), nil
}

// read returns a published tile or bundle, and its width: the one that the checkpoint needs, or the whole one, which may be there already
// when the ledger has grown. It may use the memory of buffer.
func (l *ledger) read(buffer []byte, level string, index int64, width int, limit int64) (name string, data []byte, have int, err error) {
	whole := tilePath(level, index)
	if width < tileWidth {
		name = fmt.Sprintf("%s.p/%d", whole, width)
		if data, err = readInto(buffer, l.dir, path.Join(l.under, name), limit, "ledger"); !coded(err, "-missing") {
			return name, data, width, err
		}
	}
	data, err = readInto(buffer, l.dir, path.Join(l.under, whole), limit, "ledger")
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
func (l *ledger) tile(buffer []byte, level int, index int64, want []hash) error {
	name, data, have, err := l.read(buffer, strconv.Itoa(level), index, len(want), maxTile)
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

// split cuts a bundle into entries, each with its length of two bytes before it. The second of these is left on: a leaf is hashed
// behind a byte that is zero, and there is one to write over.
func split(framed [][]byte, data []byte, width int) (_ [][]byte, ok bool) {
	for range width {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return framed, false
		}
		n := 2 + int(binary.BigEndian.Uint16(data))
		framed, data = append(framed, data[1:n]), data[n:]
	}
	return framed, len(data) == 0
}

// bundle is up to 256 entries and the hashes of their leaves; it has none if they could not be read. Its memory is used again.
type bundle struct {
	index   int64
	ready   chan bool
	data    []byte
	leaves  [][]byte
	hashes  []hash
	text    []byte // keyids and payloads, one behind the other
	entries []entry
	above   hash
	err     error
}

// leaves reads entries 256*b.index and following, and hashes them.
func (l *ledger) leaves(b *bundle) error {
	b.leaves, b.hashes, b.entries = b.leaves[:0], b.hashes[:0], b.entries[:0]
	width := int(min(tileWidth, l.head.size-b.index*tileWidth))
	name, data, have, err := l.read(b.data, "entries", b.index, width, maxBundle)
	if err != nil {
		return err
	}
	b.data = data
	var ok bool
	if b.leaves, ok = split(b.leaves, data, have); !ok {
		return refuse("ledger-bundle", name, "does not hold exactly %d entries", have)
	}
	b.leaves = b.leaves[:width]
	for _, leaf := range b.leaves {
		leaf[0] = 0
		b.hashes = append(b.hashes, sha256.Sum256(leaf))
	}
	return nil
}

// fill does with a bundle all that can be done without those before it. It is called by several goroutines.
func (l *ledger) fill(b *bundle) {
	if b.err = l.leaves(b); b.err != nil {
		return
	}
	b.entries, b.text = slices.Grow(b.entries, len(b.leaves))[:len(b.leaves)], b.text[:0]
	for i, leaf := range b.leaves {
		e := &b.entries[i]
		*e = entry{statement: statement{subjects: e.subjects[:0], predicate: e.predicate[:0], sig: e.sig[:0]}, index: b.index*tileWidth + int64(i)}
		b.text, e.err = e.unseal(b.text, leaf[1:])
	}
	text := string(b.text) // all at once: a string for each entry would take as long as reading it
	for i := range b.entries {
		b.entries[i].check(l, text)
	}
	b.above = merkle(b.hashes)
	b.err = l.tile(b.data, 0, b.index, b.hashes) // nobody needs the data any more
}

// walk reads the whole tree once. It ends at entries that are not there.
func (l *ledger) walk() error {
	l.count = map[string]int64{}
	workers := runtime.GOMAXPROCS(0)
	free, order, work := make(chan *bundle, 3*workers), make(chan *bundle, 3*workers), make(chan *bundle)
	for range cap(free) {
		free <- &bundle{ready: make(chan bool, 1)}
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(order)
		defer close(work)
		for i := range (l.head.size + tileWidth - 1) / tileWidth {
			select {
			case b := <-free:
				b.index = i
				order <- b
				work <- b
			case <-stop:
				return
			}
		}
	}()
	for range workers {
		go func() {
			for b := range work {
				l.fill(b)
				b.ready <- true
			}
		}()
	}
	for b := range order {
		<-b.ready
		if err := l.rep.judge(b.err); err != nil || len(b.entries) == 0 {
			return err
		}
		for i := range b.entries {
			l.each(&b.entries[i])
		}
		if len(b.hashes) < tileWidth {
			l.rest = slices.Clone(b.hashes)
		} else if err := l.push(0, b.above); err != nil {
			return err
		}
		free <- b
	}
	for k, level := range l.full {
		if tiles := len(level) / tileWidth; len(level)%tileWidth > 0 {
			if err := l.rep.judge(l.tile(nil, k+1, int64(tiles), level[tiles*tileWidth:])); err != nil {
				return err
			}
		}
	}
	l.whole = true
	made, err := l.treeAt(l.head.size)
	if err == nil && made != l.head.root {
		err = refuse("ledger-root", "checkpoint", "the entries make tree %s, the checkpoint says %s", made, l.head.root)
	}
	return l.rep.judge(err)
}

// contains tells whether the tree that was walked has this one inside.
func (l *ledger) contains(t tree) (bool, error) {
	if t.size > l.head.size || !l.whole {
		return false, nil
	}
	made, err := l.treeAt(t.size)
	return made == t.root, err
}

// believe counts an entry that nothing is wrong with, and refuses another.
func (l *ledger) believe(e *entry, wrong faults) bool {
	var f faults
	if errors.As(e.err, &f) {
		wrong = f
	}
	for _, w := range wrong {
		l.rep.refuse(w.Code, e.String(), "%s", w.Detail)
	}
	if len(wrong) > 0 {
		return false
	}
	if l.count[e.kind]++; !e.checked {
		l.unchecked++
	}
	return true
}

func (l *ledger) facts() {
	l.rep.fact("ledger", l.head.origin)
	l.rep.fact("entries", l.head.size)
	l.rep.fact("tree", l.head.root.String())
	for _, kind := range slices.Sorted(maps.Keys(l.count)) {
		l.rep.fact("entries "+kind, l.count[kind])
	}
	if l.unchecked > 0 {
		l.rep.notChecked("signatures", "of %d of %d entries; the tree that holds them is signed by the ledger", l.unchecked, l.head.size)
	}
}

// verifyLedger is the command for a ledger without a root: tree and signatures by the keys given.
func verifyLedger(place string, o options, rep *report) error {
	var checkpoints []*key
	l := &ledger{under: ".", rep: rep, keys: map[string][]*key{}}
	for _, s := range o.keys {
		k, ok := parseVKey(s)
		if !ok || k.kind == mldsa87 || k.kind == cosignature {
			return usageError(fmt.Sprintf("--key %q is no vkey", s))
		}
		if is("origin", k.name) {
			checkpoints = append(checkpoints, k)
		} else if k.owner, ok = strings.CutSuffix(k.name, "/statement"); ok {
			k.context = "statement"
			l.keys[k.id] = append(l.keys[k.id], k)
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
	if l.head, err = openCheckpoint(dir, "checkpoint", checkpoints, nil); err != nil {
		return rep.judge(err)
	}
	left := slices.Clone(l.head.by) // without those of keys that the entries have given up so far
	l.each = func(e *entry) {
		var wrong faults
		switch {
		case e.err != nil:
		case e.key == nil && e.text("zone") != l.head.origin:
			wrong.add("statement-zone", "", "made for %.100q", e.text("zone"))
		case e.key != nil:
			wrong = e.signedBy(e.key, l.head.origin, func(role, person string) bool { return (role == station) == (person == station) })
		}
		if from, ok := parseVKey(e.text("from")); e.err == nil && e.kind == "key-changed" && e.text("context") == "checkpoint" && ok {
			had := len(left)
			if left = slices.DeleteFunc(left, func(s signature) bool { return s.key.raw == from.raw }); len(left) == 0 && had > 0 {
				rep.refuse("key-replaced", e.String(), "the ledger has given up %s, by which alone the checkpoint is verified here: the key that followed stands in the root", from.id)
			}
		}
		l.believe(e, wrong)
	}
	err = l.walk()
	l.facts()
	return err
}
