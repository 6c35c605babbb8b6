package git

import (
	"bytes"
	"container/list"
	"crypto/sha1"
	"hash"
	"io"
	"strconv"
	"sync"
)

// A Database finds objects in packs and, where these have none, loose.
type Database struct {
	Packs []*Pack

	// Loose returns the file of a loose object, which is compressed; an error for which IsMissing is true if there is none. nil means that no
	// object is loose. It is called from several goroutines.
	Loose func(ID) ([]byte, error)

	// Collides says whether content bears the marks of a SHA-1 collision attack: the function of that name, or nil to look for none.
	Collides func(head, content []byte) bool

	// Cache is how many bytes of delta bases are kept; 0 means DefaultCache.
	Cache int

	cache cache
}

// A Reader reads objects of a Database. Each goroutine has its own.
type Reader struct {
	db   *Database
	z    inflater
	h    hash.Hash
	head []byte
	sum  []byte

	buf  []byte // a piece of the pack file
	at   int64  // where it begins
	from *Pack

	flat  []byte // the last object, if it is no delta
	delta []byte
	last  int // the pack that had the last object
}

// NewReader makes a reader.
func (db *Database) NewReader() *Reader { return &Reader{db: db, h: sha1.New()} }

// Read returns the content of an object whose id has been computed again. It must not be changed and is valid until the next Read. An error
// is an *Error where the bytes are at fault, and else what reading them said.
func (r *Reader) Read(id ID, kind Kind) ([]byte, error) {
	got, content, err := r.read(id)
	if err != nil {
		return nil, err
	}
	if got != kind {
		return nil, fail(CodeKind, 0, "%s is a %s, no %s", id, got, kind)
	}
	return content, nil
}

// ReadAny is Read for an object whose kind is not known.
func (r *Reader) ReadAny(id ID) (Kind, []byte, error) { return r.read(id) }

func (r *Reader) read(id ID) (Kind, []byte, error) {
	kind, content, err := r.find(id)
	if err != nil {
		return 0, nil, err
	}
	r.head = appendHeader(r.head[:0], kind, len(content))
	r.h.Reset()
	r.h.Write(r.head)
	r.h.Write(content)
	if r.sum = r.h.Sum(r.sum[:0]); !bytes.Equal(r.sum, id[:]) {
		return 0, nil, fail(CodeID, 0, "what is stored as %s is the %s %x", id, kind, r.sum)
	}
	if r.db.Collides != nil && r.db.Collides(r.head, content) {
		return 0, nil, fail(CodeCollision, 0, "the %s %s bears the marks of a SHA-1 collision attack", kind, id)
	}
	return kind, content, nil
}

func (r *Reader) find(id ID) (Kind, []byte, error) {
	n := len(r.db.Packs)
	for i := range n {
		k := (r.last + i) % n
		off, ok, err := r.db.Packs[k].find(id)
		if err != nil {
			return 0, nil, err
		}
		if ok {
			r.last = k
			return r.packed(r.db.Packs[k], off)
		}
	}
	if r.db.Loose == nil {
		return 0, nil, fail(CodeMissing, 0, "there is no object %s", id)
	}
	file, err := r.db.Loose(id)
	if err != nil {
		return 0, nil, err
	}
	return r.loose(file)
}

// loose reads the file of a loose object: "KIND SIZE\0CONTENT", compressed.
func (r *Reader) loose(file []byte) (Kind, []byte, error) {
	// The size stands in the first bytes, which must be expanded to know how many there are.
	var head [32]byte
	if _, err := r.z.inflate(head[:], file); err != errSize && err != nil {
		return 0, nil, fail(CodeLoose, 0, "%v", err)
	}
	first, _, _ := bytes.Cut(head[:], []byte{0})
	word, digits, _ := bytes.Cut(first, []byte(" "))
	kind, ok := kindOf(string(word))
	size, err := strconv.ParseInt(string(digits), 10, 63)
	if !ok || len(first) == len(head) || err != nil || strconv.FormatInt(size, 10) != string(digits) || size < 0 {
		return 0, nil, fail(CodeLoose, 0, "the head %q is not one of an object", first)
	}
	if size > maxSize(kind) {
		return 0, nil, fail(CodeLimit, 0, "a %s of %d bytes, at most %d are read", kind, size, maxSize(kind))
	}
	// Deflate expands to at most 1032 times its size.
	if size > int64(len(file))*1032 {
		return 0, nil, fail(CodeLoose, 0, "%d bytes cannot expand to %d", len(file), size)
	}
	n := len(first) + 1
	content := make([]byte, int64(n)+size)
	used, err := r.z.inflate(content, file)
	if err != nil {
		return 0, nil, fail(CodeLoose, 0, "%v", err)
	}
	if used != len(file) {
		return 0, nil, fail(CodeLoose, int64(used), "the file goes on after the object")
	}
	return kind, content[n:], nil
}

// window returns at least want bytes of a pack from off on, or what there is.
func (r *Reader) window(p *Pack, off, want int64) ([]byte, error) {
	if r.from == p && off >= r.at && off+want <= r.at+int64(len(r.buf)) {
		return r.buf[off-r.at:], nil
	}
	n := min(max(want, windowSize), p.size-off)
	if int64(cap(r.buf)) < n {
		r.buf = make([]byte, n)
	}
	r.buf, r.at, r.from = r.buf[:n], off, p
	if k, err := p.data.ReadAt(r.buf, off); int64(k) < n {
		r.from = nil
		if err == io.EOF {
			return nil, fail(CodePack, off, "the pack ends early")
		}
		return nil, err
	}
	return r.buf, nil
}

// packed reads an object of a pack.
func (r *Reader) packed(p *Pack, off int64) (Kind, []byte, error) {
	type link struct{ at, size, start int64 }
	var few [64]link // most chains are shorter
	chain := few[:0]
	var kind Kind
	var content []byte

	for at := off; content == nil; {
		if c, ok := r.db.cache.get(p, at); ok {
			kind, content = c.kind, c.content
			break
		}
		e, err := p.entry(r, at)
		if err != nil {
			return 0, nil, err
		}
		switch e.kind {
		case deltaOffset, deltaRef:
			// Deltas of one file may be larger than what they make, by little.
			if e.size > MaxBlob {
				return 0, nil, fail(CodeLimit, at, "a delta of %d bytes", e.size)
			}
			if len(chain) == MaxChain {
				return 0, nil, fail(CodeLimit, at, "more than %d deltas on one another", MaxChain)
			}
			chain = append(chain, link{at, e.size, e.start})
			if e.kind == deltaOffset {
				at = e.base
				continue
			}
			base, ok, err := p.find(e.ref)
			if err != nil {
				return 0, nil, err
			}
			if !ok {
				return 0, nil, fail(CodePack, at, "the base %s of a delta is not in its pack", e.ref)
			}
			at = base
		default:
			kind = Kind(e.kind)
			if e.size > maxSize(kind) {
				return 0, nil, fail(CodeLimit, at, "a %s of %d bytes, at most %d are read", kind, e.size, maxSize(kind))
			}
			if e.size > (p.size-e.start)*1032 {
				return 0, nil, fail(CodePack, at, "the pack's rest cannot expand to %d bytes", e.size)
			}
			if len(chain) == 0 && kind == KindCommit { // rarely the base of anything
				r.flat = grow(r.flat, e.size)
				return kind, r.flat, p.expand(r, r.flat, e.start)
			}
			content = make([]byte, e.size)
			if err := p.expand(r, content, e.start); err != nil {
				return 0, nil, err
			}
			r.db.cache.put(p, at, kind, content, r.db.limit())
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		l := chain[i]
		if l.size > (p.size-l.start)*1032 {
			return 0, nil, fail(CodePack, l.at, "the pack's rest cannot expand to %d bytes", l.size)
		}
		r.delta = grow(r.delta, l.size)
		if err := p.expand(r, r.delta, l.start); err != nil {
			return 0, nil, err
		}
		made, err := apply(content, r.delta, maxSize(kind))
		if err != nil {
			return 0, nil, err
		}
		content = made
		r.db.cache.put(p, l.at, kind, content, r.db.limit())
	}
	return kind, content, nil
}

func grow(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n, n+n/4)
	}
	return b[:n]
}

func (db *Database) limit() int {
	if db.Cache > 0 {
		return db.Cache
	}
	return DefaultCache
}

// A cache holds objects that deltas may stand on, those last used.
type cache struct {
	mu    sync.Mutex
	items map[cacheKey]*list.Element
	order list.List // the latest in front
	bytes int
}

type cacheKey struct {
	pack *Pack
	at   int64
}

type cached struct {
	key     cacheKey
	kind    Kind
	content []byte
}

// overhead is about what an item costs beside its content.
const overhead = 200

func (c *cache) get(p *Pack, at int64) (*cached, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[cacheKey{p, at}]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cached), true
}

func (c *cache) put(p *Pack, at int64, kind Kind, content []byte, limit int) {
	if len(content) > limit/8 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = make(map[cacheKey]*list.Element)
	}
	key := cacheKey{p, at}
	if _, ok := c.items[key]; ok {
		return
	}
	c.items[key] = c.order.PushFront(&cached{key, kind, content})
	c.bytes += len(content) + overhead
	for c.bytes > limit {
		e := c.order.Back()
		old := e.Value.(*cached)
		c.order.Remove(e)
		delete(c.items, old.key)
		c.bytes -= len(old.content) + overhead
	}
}
