package git

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"math/bits"
)

// An inflater undoes zlib's compression (RFC 1950 and 1951) from one slice into another of known size. The library's streaming reader keeps a
// window and copies through it, and most objects of a history are smaller than its tables; this one takes a third of the time. It accepts what
// zlib accepts. FuzzInflate holds it against the library.
type inflater struct {
	lit, dist decoder
	fixedLit  decoder
	fixedDist decoder
	fixed     bool // the fixed codes are built
	lengths   [maxLit + maxDist]byte
}

const (
	maxLit      = 288
	maxDist     = 32
	litBits     = 9 // bits looked up at once
	distBits    = 7
	maxCodeBits = 15
)

// A decoder is one Huffman code. What the table does not answer, because the code is longer than its index, count and symbols do.
type decoder struct {
	table   [1 << litBits]uint32
	width   uint
	count   [maxCodeBits + 1]uint16
	symbols [maxLit]uint16
	entries *[maxLit]uint32
}

// An entry of a table is value<<16 | extra bits<<8 | kind<<4 | code length.
const (
	entryLiteral = 0 << 4
	entryCopy    = 1 << 4
	entryEnd     = 2 << 4
	entryBad     = 3 << 4
	entryKind    = 3 << 4
	entryLength  = 15
)

var litEntries, distEntries, plainEntries = func() (lit, dist, plain [maxLit]uint32) {
	for s := range uint32(maxLit) {
		lit[s], dist[s], plain[s] = entryBad, entryBad, s<<16
	}
	for s := range uint32(256) {
		lit[s] = s<<16 | entryLiteral
	}
	lit[256] = entryEnd
	length := uint32(3)
	for s := uint32(257); s < 285; s++ {
		extra := uint32(0)
		if s >= 265 {
			extra = (s - 261) / 4
		}
		lit[s] = length<<16 | extra<<8 | entryCopy
		length += 1 << extra
	}
	lit[285] = 258<<16 | entryCopy
	distance := uint32(1)
	for s := range uint32(30) {
		extra := uint32(0)
		if s >= 4 {
			extra = s/2 - 1
		}
		dist[s] = distance<<16 | extra<<8 | entryCopy
		distance += 1 << extra
	}
	return
}()

var (
	errShort   = errors.New("the compressed data ends early")
	errDeflate = errors.New("the compressed data is not well formed")
	errSize    = errors.New("the object is larger or smaller than it says")
)

// build makes the decoder of a canonical code with the lengths given.
func (d *decoder) build(lengths []byte, width uint, entries *[maxLit]uint32) bool {
	d.width, d.entries = width, entries
	clear(d.count[:])
	for _, l := range lengths {
		d.count[l]++
	}
	d.count[0] = 0
	left, most := 1, 0
	var next [maxCodeBits + 2]uint16 // the next code of each length
	var first [maxCodeBits + 2]uint16
	code := uint16(0)
	for l := 1; l <= maxCodeBits; l++ {
		left = left<<1 - int(d.count[l])
		if left < 0 {
			return false // more codes than there is room for
		}
		if d.count[l] > 0 {
			most = l
		}
		next[l] = code
		code = (code + d.count[l]) << 1
		first[l+1] = first[l] + d.count[l]
	}
	if left > 0 && most > 1 {
		return false // only a code with one symbol, or none, may be incomplete
	}
	table := d.table[:1<<width]
	clear(table)
	for s, l := range lengths {
		if l == 0 {
			continue
		}
		d.symbols[first[l]] = uint16(s)
		first[l]++
		c := next[l]
		next[l]++
		if uint(l) <= width {
			e := entries[s] | uint32(l)
			for i := uint(bits.Reverse16(c) >> (16 - l)); i < 1<<width; i += 1 << l {
				table[i] = e
			}
		}
	}
	return true
}

// long decodes a code that the table does not hold: bit by bit, as it is defined. 0 means that no code fits the n bits of b.
func (d *decoder) long(b uint64, n uint) uint32 {
	code, first, index := 0, 0, 0
	for l := 1; l <= maxCodeBits && uint(l) <= n; l++ {
		code |= int(b & 1)
		b >>= 1
		count := int(d.count[l])
		if code-count < first {
			return d.entries[d.symbols[index+code-first]] | uint32(l)
		}
		index += count
		first = (first + count) << 1
		code <<= 1
	}
	return 0
}

// inflate fills dst from src, a zlib stream of exactly len(dst) bytes, and returns how many bytes of src the stream has. errShort means that src
// ends before the stream does, errSize that dst has another size than it; what fits is in dst.
func (z *inflater) inflate(dst, src []byte) (int, error) {
	if len(src) < 2 {
		return 0, errShort
	}
	if src[0]&15 != 8 || src[0]>>4 > 7 || binary.BigEndian.Uint16(src)%31 != 0 || src[1]&0x20 != 0 {
		return 0, errDeflate
	}
	pos := 2
	var b uint64 // the next bits, lowest first
	var n uint   // how many of them count
	out := 0
	for final := false; !final; {
		// refill
		for n <= 56 && pos < len(src) {
			b |= uint64(src[pos]) << n
			pos++
			n += 8
		}
		if n < 3 {
			return 0, errShort
		}
		final = b&1 == 1
		kind := b >> 1 & 3
		b >>= 3
		n -= 3
		var lit, dist *decoder
		switch kind {
		case 0: // stored
			// Whole bytes that were read ahead go back.
			pos -= int(n / 8)
			b, n = 0, 0
			if len(src)-pos < 4 {
				return 0, errShort
			}
			size := int(binary.LittleEndian.Uint16(src[pos:]))
			if size != int(^binary.LittleEndian.Uint16(src[pos+2:])) {
				return 0, errDeflate
			}
			pos += 4
			if len(src)-pos < size {
				return 0, errShort
			}
			if len(dst)-out < size {
				copy(dst[out:], src[pos:])
				return 0, errSize
			}
			out += copy(dst[out:], src[pos:pos+size])
			pos += size
			continue
		case 1:
			if !z.fixed {
				z.buildFixed()
			}
			lit, dist = &z.fixedLit, &z.fixedDist
		case 2:
			var err error
			if pos, b, n, err = z.dynamic(src, pos, b, n); err != nil {
				return 0, err
			}
			lit, dist = &z.lit, &z.dist
		default:
			return 0, errDeflate
		}
		litMask, distMask := uint64(1)<<lit.width-1, uint64(1)<<dist.width-1
		for {
			// A symbol with all that belongs to it has at most 48 bits.
			if len(src)-pos >= 8 {
				b |= binary.LittleEndian.Uint64(src[pos:]) << n
				pos += int((63 - n) >> 3)
				n |= 56
			} else {
				for n <= 56 && pos < len(src) {
					b |= uint64(src[pos]) << n
					pos++
					n += 8
				}
			}
			e := lit.table[b&litMask&(1<<litBits-1)]
			if e == 0 {
				if e = lit.long(b, n); e == 0 {
					return 0, shortOr(n)
				}
			}
			l := uint(e & entryLength)
			if l > n {
				return 0, errShort
			}
			b >>= l
			n -= l
			switch e & entryKind {
			case entryLiteral:
				if out == len(dst) {
					return 0, errSize
				}
				dst[out] = byte(e >> 16)
				out++
				continue
			case entryEnd:
			case entryCopy:
				extra := uint(e >> 8 & 0xff)
				if extra > n {
					return 0, errShort
				}
				length := int(e>>16) + int(b&(1<<extra-1))
				b >>= extra
				n -= extra
				e = dist.table[b&distMask&(1<<litBits-1)]
				if e == 0 {
					if e = dist.long(b, n); e == 0 {
						return 0, shortOr(n)
					}
				}
				if e&entryKind == entryBad {
					return 0, errDeflate
				}
				l, extra = uint(e&entryLength), uint(e>>8&0xff)
				if l+extra > n {
					return 0, errShort
				}
				b >>= l
				distance := int(e>>16) + int(b&(1<<extra-1))
				b >>= extra
				n -= l + extra
				if distance > out {
					return 0, errDeflate
				}
				from := out - distance
				if length > len(dst)-out {
					for ; out < len(dst); out++ {
						dst[out] = dst[from]
						from++
					}
					return 0, errSize
				}
				if distance >= length {
					copy(dst[out:out+length], dst[from:from+length])
					out += length
				} else {
					for range length {
						dst[out] = dst[from]
						out++
						from++
					}
				}
				continue
			default:
				return 0, errDeflate
			}
			break
		}
	}
	pos -= int(n / 8)
	if len(src)-pos < 4 {
		return 0, errShort
	}
	if out != len(dst) {
		return 0, errSize
	}
	if binary.BigEndian.Uint32(src[pos:]) != adler32.Checksum(dst) {
		return 0, errDeflate
	}
	return pos + 4, nil
}

// shortOr tells missing bits from bits that are no code.
func shortOr(n uint) error {
	if n < maxCodeBits {
		return errShort
	}
	return errDeflate
}

func (z *inflater) buildFixed() {
	l := z.lengths[:maxLit]
	for s := range l {
		switch {
		case s < 144:
			l[s] = 8
		case s < 256:
			l[s] = 9
		case s < 280:
			l[s] = 7
		default:
			l[s] = 8
		}
	}
	z.fixedLit.build(l, litBits, &litEntries)
	l = l[:maxDist]
	for s := range l {
		l[s] = 5
	}
	z.fixedDist.build(l, distBits, &distEntries)
	z.fixed = true
}

// The order in which the lengths of the code for code lengths come.
var codeOrder = [19]byte{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamic reads the codes of a block.
func (z *inflater) dynamic(src []byte, pos int, b uint64, n uint) (int, uint64, uint, error) {
	refill := func() {
		for n <= 56 && pos < len(src) {
			b |= uint64(src[pos]) << n
			pos++
			n += 8
		}
	}
	refill()
	if n < 14 {
		return 0, 0, 0, errShort
	}
	lits, dists, codes := int(b&31)+257, int(b>>5&31)+1, int(b>>10&15)+4
	b >>= 14
	n -= 14
	if lits > 286 || dists > 30 {
		return 0, 0, 0, errDeflate
	}
	lengths := z.lengths[:19]
	clear(lengths)
	for _, s := range codeOrder[:codes] {
		if n < 3 {
			refill()
		}
		if n < 3 {
			return 0, 0, 0, errShort
		}
		lengths[s] = byte(b & 7)
		b >>= 3
		n -= 3
	}
	code := &z.dist // not yet in use
	if !code.build(lengths, distBits, &plainEntries) {
		return 0, 0, 0, errDeflate
	}
	lengths = z.lengths[:lits+dists]
	for i := 0; i < len(lengths); {
		if n < 14 {
			refill()
		}
		e := code.table[b&(1<<distBits-1)]
		if e == 0 {
			return 0, 0, 0, shortOr(n) // these codes have at most 7 bits, all in the table
		}
		l := uint(e & entryLength)
		if l > n {
			return 0, 0, 0, errShort
		}
		s := byte(e >> 16)
		if s < 16 {
			b >>= l
			n -= l
			lengths[i] = s
			i++
			continue
		}
		var value byte
		extra, repeat := uint(2), 3
		switch s {
		case 16:
			if i == 0 {
				return 0, 0, 0, errDeflate
			}
			value = lengths[i-1]
		case 17:
			extra = 3
		default:
			extra, repeat = 7, 11
		}
		if l+extra > n {
			return 0, 0, 0, errShort
		}
		repeat += int(b >> l & (1<<extra - 1))
		b >>= l + extra
		n -= l + extra
		if repeat > len(lengths)-i {
			return 0, 0, 0, errDeflate
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	if lengths[256] == 0 { // no end
		return 0, 0, 0, errDeflate
	}
	if !z.lit.build(lengths[:lits], litBits, &litEntries) || !z.dist.build(lengths[lits:], distBits, &distEntries) {
		return 0, 0, 0, errDeflate
	}
	return pos, b, n, nil
}
