package nar

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// hashLen is the length of the hash part of a store path.
const hashLen = 32

// A Scanner looks for hash parts of store paths in what is written to it: at
// any position, in contents, names and link targets alike, as raw
// bytes. The references of a store item are the hash parts that occur in its
// nar, out of those of the items that its build could see, itself included.
//
// A hash part is a run of 32 bytes of the base32 alphabet. Such a run is
// rare in programs and in text, so Scanner looks at the last byte of a
// window first and, if it is not of the alphabet, moves on by a whole window: most
// bytes are never looked at. No input makes it look at a byte more than
// a few times.
type Scanner struct {
	want   map[[hashLen]byte]struct{} // not found yet
	found  []string
	filter [1 << filterBits / 64]uint64 // which hashes of beginnings are wanted
	tail   [hashLen - 1]byte            // the end of what has been written
	n      int                          // how much of tail is filled
}

// filterBits is the binary logarithm of the bits of a Scanner's filter. It lets
// 1 in 16 runs pass to the map if there are 4,096 candidates.
const filterBits = 16

// NewScanner returns a Scanner for the given hash parts, each of 32 characters
// of the base32 alphabet of Guix.
func NewScanner(candidates []string) (*Scanner, error) {
	s := &Scanner{want: make(map[[hashLen]byte]struct{}, len(candidates))}
	for _, c := range candidates {
		if len(c) != hashLen {
			return nil, fmt.Errorf("nar: the hash part %q has not %d characters", c, hashLen)
		}
		for i := range c {
			if !base32[c[i]] {
				return nil, fmt.Errorf("nar: the hash part %q contains %q", c, c[i])
			}
		}
		s.want[[hashLen]byte([]byte(c))] = struct{}{}
		bit := filterBit([]byte(c))
		s.filter[bit/64] |= 1 << (bit % 64)
	}
	return s, nil
}

// base32 tells the bytes of the alphabet.
var base32 = func() (t [256]bool) {
	for _, c := range "0123456789abcdfghijklmnpqrsvwxyz" {
		t[c] = true
	}
	return
}()

func filterBit(run []byte) uint64 {
	return binary.LittleEndian.Uint64(run) * 0x9e3779b97f4a7c15 >> (64 - filterBits)
}

// Write scans p. It never fails.
func (s *Scanner) Write(p []byte) (int, error) {
	if len(s.want) == 0 {
		return len(p), nil
	}
	if s.n > 0 {
		// What begins in an earlier p and ends in this one.
		var joint [2 * (hashLen - 1)]byte
		n := copy(joint[:], s.tail[:s.n])
		n += copy(joint[n:], p[:min(len(p), hashLen-1)])
		s.scan(joint[:n])
	}
	s.scan(p)
	if len(p) >= len(s.tail) {
		s.n = copy(s.tail[:], p[len(p)-len(s.tail):])
	} else {
		drop := max(0, s.n+len(p)-len(s.tail))
		s.n = copy(s.tail[:], s.tail[drop:s.n])
		s.n += copy(s.tail[s.n:], p)
	}
	return len(p), nil
}

// Found returns the hash parts that have occurred, in order.
func (s *Scanner) Found() []string {
	return slices.Sorted(slices.Values(s.found))
}

func (s *Scanner) scan(b []byte) {
	good := 0 // length of the run of the alphabet at the beginning of b
	for len(b) >= hashLen {
		i := hashLen - 1
		for i >= good && base32[b[i]] {
			i--
		}
		if i >= good {
			b = b[i+1:]
			good = hashLen - 1 - i
			continue
		}
		end := hashLen
		for end < len(b) && base32[b[end]] {
			end++
		}
		for run := b[:end]; len(run) >= hashLen; run = run[1:] {
			if bit := filterBit(run); s.filter[bit/64]&(1<<(bit%64)) != 0 {
				s.check(run[:hashLen])
			}
		}
		b = b[end:]
		good = 0
	}
}

func (s *Scanner) check(window []byte) {
	key := [hashLen]byte(window)
	if _, ok := s.want[key]; ok {
		delete(s.want, key)
		s.found = append(s.found, string(window))
	}
}
