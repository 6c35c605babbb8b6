package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileWidth     = 256
	maxEntries    = 1 << 40 // keeps a tree below six levels of tiles
	maxBundle     = tileWidth * (2 + maxEnvelope)
	maxCheckpoint = 1<<10 + maxSigLines
	maxWitnesses  = 1000
	maxMissing    = 1000 // bundles not there, after which the walk ends
)

// checkpoint says which tree a ledger had.
type checkpoint struct {
	origin string
	size   int64
	root   tlog.Hash
}

func parseCheckpoint(text string) (c checkpoint, err error) {
	l := &lines{text: text}
	c.origin = l.next()
	size := l.next()
	b64 := l.next()
	if err := l.end(); err != nil {
		return c, err
	}
	if _, err := parseOrigin(c.origin); err != nil {
		return c, err
	}
	var ok bool
	if c.size, ok = parseNumber(size, maxEntries); !ok {
		return c, fmt.Errorf("size %.100q", size)
	}
	raw, ok := decode64(b64)
	if !ok || len(raw) != len(c.root) {
		return c, fmt.Errorf("tree hash %.100q", b64)
	}
	copy(c.root[:], raw)
	return c, nil
}

// mark is a tree that the walk must find on its way: the published checkpoint's, or one that a witness cosigned.
type mark struct {
	checkpoint
	witness string // "" for the checkpoint itself
}

// entry is one statement as a worker left it: signed by key if that is not nil, or not to be believed because of fault.
type entry struct {
	st    *statement
	key   *key
	fault *fault
}

// ledger walks a published tree. The bundles are read, hashed and checked by several goroutines, a bounded number at a time;
// what they found is put together in the entries' order by one.
type ledger struct {
	dir   *os.Root // relative to it, tiles are under prefix
	under string
	size  int64
	rep   *report
	check func(leaf []byte) entry // called from several goroutines
	each  func(index int64, e entry)
	// levels holds the complete subtrees not yet in a full tile: levels[k] those of 256^k leaves, k > 0.
	levels [][]pair
	done   []int64 // tiles completed on each level
	holes  bool    // some entries could not be read, so the history is not whole
}

// pair is one node computed twice: from the entries, and from the published tiles of level 0. If they differ somewhere, the
// checkpoint tells which of the two was changed.
type pair [2]tlog.Hash

// bundle is up to 256 entries and the hash tile above them.
type bundle struct {
	leaves  []pair
	entries []entry
	faults  []*fault
	differ  []int64 // entries whose hash is not the tile's
	missing bool
	err     error
}

// merkle is RFC 6962's tree hash over nodes of one column; a last node may stand for fewer leaves than the others.
func merkle(nodes []pair, column int) tlog.Hash {
	if len(nodes) == 1 {
		return nodes[0][column]
	}
	k := 1
	for k*2 < len(nodes) {
		k *= 2
	}
	return tlog.NodeHash(merkle(nodes[:k], column), merkle(nodes[k:], column))
}

func both(nodes []pair) pair { return pair{merkle(nodes, 0), merkle(nodes, 1)} }

// tree is the root over everything in levels and the given leaves after it.
func (l *ledger) tree(leaves []pair) pair {
	nodes := leaves
	for _, level := range append([][]pair{nil}, l.levels...) {
		if nodes = append(slices.Clip(level), nodes...); len(nodes) > 0 {
			nodes = []pair{both(nodes)}
		}
	}
	if len(nodes) == 0 {
		return pair{sha256.Sum256(nil), sha256.Sum256(nil)}
	}
	return nodes[0]
}

// push adds a complete subtree to level k > 0, and checks and folds the tile that it completes.
func (l *ledger) push(k int, node pair) error {
	if len(l.levels) < k {
		l.levels, l.done = append(l.levels, nil), append(l.done, 0)
	}
	at := &l.levels[k-1]
	if *at = append(*at, node); len(*at) < tileWidth {
		return nil
	}
	if err := l.tile(k); err != nil {
		return err
	}
	full := both(*at)
	*at = (*at)[:0:0]
	l.done[k-1]++
	return l.push(k+1, full)
}

// tile compares the published tile of level k with what levels holds of it. It must agree with the entries or with the tiles
// of level 0; where those two differ has been said already.
func (l *ledger) tile(k int) error {
	var want [2][]byte
	for _, node := range l.levels[k-1] {
		want[0], want[1] = append(want[0], node[0][:]...), append(want[1], node[1][:]...)
	}
	name := tilePath(strconv.Itoa(k), l.done[k-1])
	data, err := l.read(name, len(l.levels[k-1]), tileWidth*tlog.HashSize, func(data []byte) []byte {
		return data[:min(len(data), len(want[0]))]
	})
	if err != nil {
		return l.rep.judge(err)
	}
	if l.rep.Tiles++; !bytes.Equal(data, want[0]) && !bytes.Equal(data, want[1]) {
		l.rep.refuse("ledger-tile", name, "its hashes are not those of the tiles below it")
	}
	return nil
}

// tilePath is where a full tile lies: LEVEL/x001/x234/067.
func tilePath(level string, index int64) string {
	p := fmt.Sprintf("%03d", index%1000)
	for index /= 1000; index > 0; index /= 1000 {
		p = fmt.Sprintf("x%03d/%s", index%1000, p)
	}
	return "tile/" + level + "/" + p
}

// read returns what is published of a tile or bundle of the given width: the partial one, or the part that first cuts from the
// full one, which may be there already when the ledger has grown. Every other partial one that still lies there must hold the
// same bytes as far as it goes: one that does not is the trace of another tree.
func (l *ledger) read(name string, width int, limit int64, first func([]byte) []byte) ([]byte, error) {
	at := path.Join(l.under, name)
	var data, full []byte
	full, err := readFile(l.dir, at, limit, "ledger")
	missing := isMissing(err)
	if err != nil && !(missing && width < tileWidth) {
		return nil, err
	}
	list, err := listDir(l.dir, at+".p", tileWidth, "ledger")
	if err != nil {
		return nil, err
	}
	var others [][]byte
	for _, f := range list {
		w, ok := parseNumber(f.Name(), tileWidth-1)
		if !ok || w == 0 {
			return nil, refuse("ledger-extra", name+".p", "%q is no width", f.Name())
		}
		part, err := readFile(l.dir, at+".p/"+f.Name(), limit, "ledger")
		if err != nil {
			return nil, err
		}
		if others = append(others, part); int(w) == width {
			data = part
		}
	}
	switch {
	case data != nil && missing:
	case !missing:
		switch {
		case width == tileWidth:
			data = full
		case data == nil:
			data = first(full)
		}
		others = append(others, full)
	default:
		return nil, refuse("ledger-missing", name, "neither whole nor with %d entries", width)
	}
	for _, o := range others {
		if n := min(len(o), len(data)); !bytes.Equal(o[:n], data[:n]) {
			return nil, refuse("ledger-tile", name, "two published widths of it disagree")
		}
	}
	return data, nil
}

func isMissing(err error) bool {
	var f *fault
	return errors.As(err, &f) && strings.HasSuffix(f.Code, "-missing")
}

// split cuts the first width entries from a bundle, each with its length before it, and returns what they take up.
func split(data []byte, width int) (entries [][]byte, length int) {
	for rest := data; len(entries) < width; {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return entries, len(data) - len(rest)
		}
		n := 2 + int(binary.BigEndian.Uint16(rest))
		entries, rest, length = append(entries, rest[2:n]), rest[n:], length+n
	}
	return entries, length
}

// bundle reads entries 256*i and following, and the tile of their hashes. It is called from several goroutines.
func (l *ledger) bundle(i int64) *bundle {
	width := int(min(tileWidth, l.size-i*tileWidth))
	b := &bundle{leaves: make([]pair, width)}
	judge := func(err error) bool {
		var f *fault
		if errors.As(err, &f) {
			b.faults = append(b.faults, f)
		} else {
			b.err = cmp.Or(b.err, err)
		}
		return err == nil
	}
	name := tilePath("entries", i)
	data, err := l.read(name, width, maxBundle, func(data []byte) []byte {
		_, n := split(data, width)
		return data[:n]
	})
	b.missing = isMissing(err)
	entries, length := split(data, width)
	haveEntries := judge(err)
	if haveEntries && (len(entries) != width || length != len(data)) {
		haveEntries = judge(refuse("ledger-bundle", name, "does not hold exactly %d entries", width))
	}
	name = tilePath("0", i)
	hashes, err := l.read(name, width, tileWidth*tlog.HashSize, func(data []byte) []byte {
		return data[:min(len(data), width*tlog.HashSize)]
	})
	haveTile := judge(err)
	if haveTile && len(hashes) != width*tlog.HashSize {
		haveTile = judge(refuse("ledger-tile", name, "does not hold exactly %d hashes", width))
	}
	for j := range b.leaves {
		p := &b.leaves[j]
		if haveEntries {
			p[0] = tlog.RecordHash(entries[j])
			p[1] = p[0]
		}
		if haveTile {
			p[1] = tlog.Hash(hashes[j*tlog.HashSize:])
		}
		if !haveEntries {
			p[0] = p[1]
		} else if p[0] != p[1] {
			b.differ = append(b.differ, i*tileWidth+int64(j))
		}
	}
	if haveEntries {
		for _, leaf := range entries {
			b.entries = append(b.entries, l.check(leaf))
		}
	}
	return b
}

// walk reads the whole tree once and holds it against the marks.
func (l *ledger) walk(marks []mark) error {
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.size, b.size) })
	count := (l.size + tileWidth - 1) / tileWidth
	workers := runtime.GOMAXPROCS(0)
	pending := make(chan chan *bundle, 2*workers) // in the entries' order
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pending)
		running := make(chan struct{}, workers)
		for i := range count {
			c := make(chan *bundle, 1)
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
	var base, differing, missing int64
	var differ []int64
	var own pair // the checkpoint's tree, as recomputed
	meet := func(size int64, leaves []pair) {
		for ; len(marks) > 0 && marks[0].size == size; marks = marks[1:] {
			m, got := marks[0], l.tree(leaves)
			if m.witness == "" {
				own = got
				if got[0] != m.root {
					detail := "the entries make tree %s, the checkpoint says %s"
					if got[1] == m.root {
						detail += "; the tiles agree with the checkpoint, so entries were changed"
					}
					l.rep.refuse("ledger-root", "checkpoint", detail, got[0], m.root)
				}
			} else if got[0] != m.root && got[1] != m.root {
				l.rep.refuse("witness-fork", m.witness, "cosigned tree %s of %d entries; the first %d entries now make %s", m.root, size, size, got[0])
			}
		}
	}
	meet(0, nil)
	for c := range pending {
		b := <-c
		if b.err != nil {
			return b.err
		}
		for _, f := range b.faults {
			l.rep.add(f)
		}
		if differing += int64(len(b.differ)); len(differ) < maxFindings {
			differ = append(differ, b.differ...)
		}
		if b.missing {
			if missing++; missing >= maxMissing {
				l.rep.refuse("ledger-missing", "entries", "%d bundles are not there; the rest was not looked for", missing)
				return nil
			}
		}
		l.rep.Tiles += 2
		l.holes = l.holes || len(b.entries) == 0
		for j, e := range b.entries {
			l.each(base+int64(j), e)
		}
		for j := range b.leaves {
			meet(base+int64(j)+1, b.leaves[:j+1])
		}
		if base += int64(len(b.leaves)); len(b.leaves) == tileWidth {
			if err := l.push(1, both(b.leaves)); err != nil {
				return err
			}
		}
	}
	for k := range l.levels {
		if len(l.levels[k]) > 0 {
			if err := l.tile(k + 1); err != nil {
				return err
			}
		}
	}
	for _, i := range differ {
		if l.rep.Tree == base64.StdEncoding.EncodeToString(own[0][:]) {
			l.rep.refuse("ledger-tile", tilePath("0", i/tileWidth), "hash of entry %d was changed", i)
		} else {
			l.rep.refuse("ledger-entry", fmt.Sprintf("entry %d", i), "is not what %s says", tilePath("0", i/tileWidth))
		}
	}
	if more := differing - int64(len(differ)); more > 0 {
		l.rep.refuse("ledger-entry", "entries", "%d more differ from their tiles", more)
	}
	return nil
}

// openCheckpoint reads the checkpoint under a directory. A bad signature is reported, and the tree is judged all the same.
func openCheckpoint(dir *os.Root, name string, keys, witnesses []*vkey, rep *report) (checkpoint, []signer, error) {
	data, err := readFile(dir, name, maxCheckpoint, "checkpoint")
	if err != nil {
		return checkpoint{}, nil, err
	}
	text, err := splitNote(data)
	if err != nil {
		return checkpoint{}, nil, refuse("checkpoint-form", name, "%v", err)
	}
	c, err := parseCheckpoint(text)
	if err != nil {
		return checkpoint{}, nil, refuse("checkpoint-form", name, "%v", err)
	}
	known := slices.Clone(witnesses)
	for _, k := range keys {
		if k.name == c.origin {
			known = append(known, k)
		}
	}
	_, signers, err := openNote(data, known)
	if err != nil {
		rep.refuse("checkpoint-signature", name, "%v", err)
	} else if !slices.ContainsFunc(signers, func(s signer) bool { return s.key.alg == algEd25519 }) {
		rep.refuse("checkpoint-signature", name, "is not signed by a checkpoint key of %s", c.origin)
	}
	return c, signers, nil
}

// cosignatures gathers what the witnesses signed: on the checkpoint, and in the files of dir, one a witness. Each of those must
// be a tree of the same ledger, no larger than the present one. want names those who must be among them.
func cosignatures(dir *os.Root, now checkpoint, on []signer, keys, witnesses []*vkey, want []string, rep *report) ([]mark, error) {
	marks := []mark{{now, ""}}
	seen := map[string]int{}
	add := func(c checkpoint, signers []signer) {
		for _, s := range signers {
			if s.key.alg != algCosignature {
				continue
			}
			name := strings.TrimSuffix(s.key.name, "/witness")
			if c.size > now.size {
				rep.refuse("witness-rollback", name, "cosigned %d entries; now there are %d", c.size, now.size)
				continue
			}
			marks = append(marks, mark{c, name})
			w := witnessReport{name, c.size, s.cosigned()}
			if i, again := seen[name]; !again {
				seen[name] = len(rep.Witnesses)
				rep.Witnesses = append(rep.Witnesses, w)
			} else if rep.Witnesses[i].Size < c.size {
				rep.Witnesses[i] = w
			}
		}
	}
	add(now, on)
	if dir != nil {
		files, err := listDir(dir, "witness", maxWitnesses, "witness")
		if err != nil {
			return marks, err
		}
		for _, f := range files {
			if !isName(f.Name()) {
				rep.refuse("witness-extra", strconv.Quote(f.Name()), "is no person's name")
				continue
			}
			c, signers, err := openCheckpoint(dir, "witness/"+f.Name(), keys, witnesses, rep)
			if err = rep.judge(err); err != nil {
				return marks, err
			} else if c.origin == "" {
				continue
			}
			if c.origin != now.origin {
				rep.refuse("witness-origin", f.Name(), "is of %s", c.origin)
			} else if !slices.ContainsFunc(signers, func(s signer) bool { return s.key.name == f.Name()+"/witness" }) {
				rep.note("witness-unknown", f.Name(), "not signed by a key that this witness has now")
			} else {
				add(c, signers)
			}
		}
	}
	for _, name := range want {
		if _, ok := seen[name]; !ok {
			rep.refuse("witness-missing", name, "has not cosigned a tree of this ledger")
		}
	}
	return marks, nil
}

// verifyLedger is the command for a ledger without a root: tree and signatures by the keys given.
func verifyLedger(place string, o options, rep *report) error {
	var checkpoints, witnesses []*vkey
	var want []string
	statements := map[string][]*key{}
	for _, s := range o.keys {
		k, ok := parseVKey(s, algEd25519)
		if !ok {
			return usageError(fmt.Sprintf("--key %q is no vkey", s))
		}
		if _, err := parseOrigin(k.name); err == nil {
			checkpoints = append(checkpoints, k)
		} else if owner, ok := strings.CutSuffix(k.name, "/statement"); ok {
			statements[k.id()] = append(statements[k.id()], &key{owner: owner, vkey: k, public: k.public})
		} else {
			return usageError(fmt.Sprintf("--key %q is named neither for a ledger nor NAME/statement", s))
		}
	}
	for _, s := range o.witnesses {
		k, ok := parseVKey(s, algCosignature)
		if !ok || !strings.HasSuffix(k.name, "/witness") {
			return usageError(fmt.Sprintf("--witness %q is no vkey of a witness", s))
		}
		witnesses, want = append(witnesses, k), append(want, strings.TrimSuffix(k.name, "/witness"))
	}
	if len(checkpoints) == 0 {
		return usageError("--key VKEY of the ledger is needed")
	}
	dir, err := os.OpenRoot(place)
	if err != nil {
		return err
	}
	defer dir.Close()
	now, on, err := openCheckpoint(dir, "checkpoint", checkpoints, witnesses, rep)
	if err != nil {
		return rep.judge(err)
	}
	var above *os.Root
	if len(witnesses) > 0 {
		if above, err = os.OpenRoot(filepath.Join(place, "..")); err != nil {
			return err
		}
		defer above.Close()
	}
	marks, err := cosignatures(above, now, on, checkpoints, witnesses, want, rep)
	if err = rep.judge(err); err != nil {
		return err
	}
	rep.describe(now)
	l := &ledger{dir: dir, under: ".", size: now.size, rep: rep, check: func(leaf []byte) entry { return checkEntry(leaf, statements) }}
	l.each = func(index int64, e entry) {
		if e.fault != nil && e.fault.Code == "statement-key" {
			rep.Unchecked++
			e.fault = nil
		}
		if rep.count(index, e, now.origin) && e.key != nil {
			if k := kinds[e.st.kind]; k.signer == station && e.key.owner != station {
				rep.refuse("statement-role", entryName(index, e.st), "is signed by %s", e.key.owner)
			}
		}
	}
	return l.walk(marks)
}

func (r *report) describe(c checkpoint) {
	r.Origin, r.Size, r.Tree = c.origin, c.size, base64.StdEncoding.EncodeToString(c.root[:])
	r.Statements = map[string]int64{}
}
