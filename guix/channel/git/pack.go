package git

import (
	"bytes"
	"encoding/binary"
	"io"
)

// A Pack is one pack file with its index (gitformat-pack, version 2 of both).
//
// The index is only a means to find things: what it leads to is hashed, so one that lies makes objects missing or wrong, never other than
// their ids say. Its own checksum is therefore not computed.
type Pack struct {
	index []byte // as it is in its file
	count int
	data  io.ReaderAt
	size  int64 // of the pack, without the checksum at its end
}

const (
	indexHead    = 8 + 256*4
	packHead     = 12
	packTail     = 20
	deltaOffset  = 6 // kinds of entries in a pack, beside the four of objects
	deltaRef     = 7
	maxSmall     = 1<<31 - 1
	windowSize   = 16 << 10
	maxEntryHead = 64
)

// OpenPack checks the frame of a pack of size bytes and of its index, which is kept.
func OpenPack(index []byte, pack io.ReaderAt, size int64) (*Pack, error) {
	switch {
	case len(index) > MaxIndex:
		return nil, fail(CodeLimit, 0, "an index of %d bytes", len(index))
	case len(index) < indexHead+2*packTail || !bytes.HasPrefix(index, []byte("\xfftOc\x00\x00\x00\x02")):
		return nil, fail(CodeIndex, 0, "this is no index of version 2")
	}
	count := uint32(0)
	for i := range 256 {
		n := binary.BigEndian.Uint32(index[8+4*i:])
		if n < count {
			return nil, fail(CodeIndex, int64(8+4*i), "the table of first bytes goes down")
		}
		count = n
	}
	n := int64(count)
	least := int64(indexHead) + n*(20+4+4) + 2*20
	if int64(len(index)) < least || (int64(len(index))-least)%8 != 0 || int64(len(index)) > least+8*n {
		return nil, fail(CodeIndex, int64(len(index)), "%d bytes are no index of %d objects with ids of 20 bytes", len(index), count)
	}
	var head [packHead]byte
	if size < packHead+packTail {
		return nil, fail(CodePack, 0, "a pack of %d bytes", size)
	}
	if _, err := pack.ReadAt(head[:], 0); err != nil {
		return nil, err
	}
	if v := binary.BigEndian.Uint32(head[4:]); string(head[:4]) != "PACK" || v != 2 && v != 3 {
		return nil, fail(CodePack, 0, "this is no pack of version 2")
	}
	if got := binary.BigEndian.Uint32(head[8:]); got != count {
		return nil, fail(CodePack, 8, "a pack of %d objects with an index of %d", got, count)
	}
	return &Pack{index, int(count), pack, size - packTail}, nil
}

// find returns where the entry of an object begins.
func (p *Pack) find(id ID) (int64, bool, error) {
	at := func(i int) uint32 { return binary.BigEndian.Uint32(p.index[8+4*i:]) }
	lo, hi := 0, int(at(int(id[0])))
	if id[0] > 0 {
		lo = int(at(int(id[0]) - 1))
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		switch bytes.Compare(p.index[indexHead+20*mid:][:20], id[:]) {
		case 0:
			off, err := p.offset(mid)
			return off, true, err
		case -1:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return 0, false, nil
}

func (p *Pack) offset(i int) (int64, error) {
	table := indexHead + p.count*24
	off := int64(binary.BigEndian.Uint32(p.index[table+4*i:]))
	if off > maxSmall {
		big := table + p.count*4 + int(off&maxSmall)*8
		if big+8 > len(p.index)-2*20 {
			return 0, fail(CodeIndex, int64(table+4*i), "an offset that is not in the table of large offsets")
		}
		off = int64(binary.BigEndian.Uint64(p.index[big:]))
	}
	if off < packHead || off >= p.size {
		return 0, fail(CodeIndex, int64(table+4*i), "the offset %d is not in the pack", off)
	}
	return off, nil
}

// An entry is what stands before the compressed bytes of an object or a delta.
type entry struct {
	kind  byte
	size  int64 // of what the compressed bytes expand to
	base  int64 // for deltaOffset
	ref   ID    // for deltaRef
	start int64 // of the compressed bytes
}

// entry reads the head of an entry.
func (p *Pack) entry(r *Reader, off int64) (e entry, err error) {
	b, err := r.window(p, off, maxEntryHead)
	if err != nil {
		return e, err
	}
	bad := func() (entry, error) { return e, fail(CodePack, off, "the head of the entry is not well formed") }
	i := 0
	next := func() (c byte, ok bool) {
		if i == len(b) || i == maxEntryHead {
			return 0, false
		}
		i++
		return b[i-1], true
	}
	c, ok := next()
	if !ok {
		return bad()
	}
	e.kind = c >> 4 & 7
	e.size = int64(c & 15)
	for shift := uint(4); c&0x80 != 0; shift += 7 {
		if c, ok = next(); !ok || shift > 42 {
			return bad()
		}
		e.size |= int64(c&0x7f) << shift
	}
	switch e.kind {
	case byte(KindCommit), byte(KindTree), byte(KindBlob), byte(KindTag):
	case deltaOffset:
		c, ok = next()
		if !ok {
			return bad()
		}
		back := int64(c & 0x7f)
		for c&0x80 != 0 {
			if c, ok = next(); !ok || back > 1<<48 {
				return bad()
			}
			back = (back+1)<<7 | int64(c&0x7f)
		}
		if e.base = off - back; back == 0 || e.base < packHead {
			return bad()
		}
	case deltaRef:
		if len(b) < i+20 {
			return bad()
		}
		copy(e.ref[:], b[i:])
		i += 20
	default:
		return bad()
	}
	e.start = off + int64(i)
	return e, nil
}

// expand fills dst with what is compressed at off.
func (p *Pack) expand(r *Reader, dst []byte, off int64) error {
	// What does not compress grows a little: stored blocks, the head and the sum.
	most := int64(len(dst)) + int64(len(dst))/1000 + 64
	for want := min(most, int64(len(dst))/2+512); ; want = min(want*4, p.size-off) {
		b, err := r.window(p, off, want)
		if err != nil {
			return err
		}
		_, err = r.z.inflate(dst, b)
		if err == errShort && int64(len(b)) < p.size-off {
			continue
		}
		if err != nil {
			return fail(CodeDeflate, off, "%v", err)
		}
		return nil
	}
}

// apply makes an object of its base and a delta.
func apply(base, delta []byte, most int64) ([]byte, error) {
	from, rest, ok := varint(delta)
	if !ok || from != int64(len(base)) {
		return nil, fail(CodePack, 0, "a delta for another base")
	}
	size, rest, ok := varint(rest)
	if !ok {
		return nil, fail(CodePack, 0, "a delta without a size")
	}
	if size > most {
		return nil, fail(CodeLimit, 0, "an object of %d bytes, at most %d are read", size, most)
	}
	// A byte of a delta makes at most one copy of the base. Room is taken as it is filled.
	if size > int64(len(rest))*max(1, int64(len(base))) {
		return nil, fail(CodePack, 0, "a delta that does not make its size")
	}
	out := make([]byte, 0, min(size, int64(len(base))+int64(len(rest))))
	bad := fail(CodePack, 0, "a delta that is not well formed")
	for i := 0; i < len(rest); {
		c := rest[i]
		i++
		if c&0x80 == 0 {
			n := int(c)
			if n == 0 || n > len(rest)-i || int64(len(out)+n) > size {
				return nil, bad
			}
			out = append(out, rest[i:i+n]...)
			i += n
			continue
		}
		var at, n int64
		for k := range 7 {
			if c>>k&1 == 0 {
				continue
			}
			if i == len(rest) {
				return nil, bad
			}
			if k < 4 {
				at |= int64(rest[i]) << (8 * k)
			} else {
				n |= int64(rest[i]) << (8 * (k - 4))
			}
			i++
		}
		if n == 0 {
			n = 0x10000
		}
		if at+n > int64(len(base)) || int64(len(out))+n > size {
			return nil, bad
		}
		out = append(out, base[at:at+n]...)
	}
	if int64(len(out)) != size {
		return nil, bad
	}
	return out, nil
}

func varint(b []byte) (n int64, rest []byte, ok bool) {
	for i, shift := 0, uint(0); i < len(b) && shift <= 56; i, shift = i+1, shift+7 {
		n |= int64(b[i]&0x7f) << shift
		if b[i]&0x80 == 0 {
			return n, b[i+1:], n >= 0
		}
	}
	return 0, nil, false
}
