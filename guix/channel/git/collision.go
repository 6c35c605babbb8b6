package git

import (
	"crypto/sha1"
	"encoding"
	"encoding/binary"
	"hash"
	"math/bits"
	"slices"
)

// Collides reports whether the concatenation of head and content bears the marks of a collision attack on SHA-1: whether one of its blocks is the last of a
// pair of near-collision blocks by one of the 32 disturbance vectors that such attacks can use at a feasible cost.
//
// The method is Marc Stevens's ("Counter-cryptanalysis", CRYPTO 2013; with Dan Shumow, "Speeding up detection of SHA-1 collision attacks using
// unavoidable attack conditions", USENIX Security 2017), which git and libgit2 use too. An attack makes two messages whose blocks differ by a
// known difference that follows from its vector. So the other message can be computed from the one at hand, and if both lead to the same chaining
// value, there is the collision. False alarms are as rare as chance collisions.
//
// Nothing here is a table: differences and conditions follow from the vectors' definition (see newVector). Known collisions are in testdata.
func Collides(head, content []byte) bool {
	if len(head) >= 64 {
		return false // not an object's
	}
	var first [64]byte
	var tail [128]byte // what is left at the end, with its padding
	n := copy(first[:], head)
	k := copy(first[n:], content)
	whole := (n + len(content)) / 64 // blocks without padding
	rest := tail[:0]
	if whole == 0 {
		rest = append(rest, first[:n+k]...)
	} else {
		rest = append(rest, content[64*whole-n:]...)
	}
	size := 64
	if len(rest) >= 56 {
		size = 128
	}
	tail[len(rest)] = 0x80
	binary.BigEndian.PutUint64(tail[size-8:], uint64(n+len(content))*8)
	block := func(i int) *[64]byte {
		switch {
		case i >= whole:
			return (*[64]byte)(tail[64*(i-whole):])
		case i == 0:
			return &first
		}
		return (*[64]byte)(content[64*i-n:])
	}
	var s scan
	all := whole + size/64
	for i := 0; i < all; i += 2 {
		a := block(i)
		b := a
		if i+1 < all {
			b = block(i + 1)
		}
		s.two.expand(a, b)
		left := suspects(&s.two)
		if left == 0 {
			continue
		}
		for k, of := range [2]uint32{uint32(left), uint32(left >> 32)} {
			if of == 0 || i+k == all {
				continue
			}
			s.w.expand(block(i + k))
			s.advance(&first, content, tail[:], n, whole, i+k)
			if s.collides(of) {
				return true
			}
		}
	}
	return false
}

const rounds = 80

// A schedule is an expanded block.
type schedule [rounds]uint32

// A pair is two expanded blocks side by side, the second in the upper halves, as far as conditions need them. One step for both costs little more
// than one for each.
type pair [128]uint64 // of a size that a mask keeps an index in

const ones = 1<<32 | 1 // the lowest bit of each half

func (w *pair) expand(a, b *[64]byte) {
	for i := range 16 {
		w[i] = uint64(binary.BigEndian.Uint32(a[4*i:])) | uint64(binary.BigEndian.Uint32(b[4*i:]))<<32
	}
	for i := 16; i <= lastCondition; i++ {
		x := w[i-3] ^ w[i-8] ^ w[i-14] ^ w[i-16]
		w[i] = x<<1&^ones | x>>31&ones // each half by itself
	}
}

type state [5]uint32

// A scan goes over a message.
type scan struct {
	two    pair
	w      schedule
	h      state              // the chaining value before the block, where it was needed
	hash   hash.Hash          // what computes it
	hashed int                // blocks that it has
	late   [rounds - 40]state // the states before the later steps
	room   []byte
}

// advance computes the chaining value before block i of a message: first, then what follows the first n bytes in content, then, from block whole on,
// tail.
func (s *scan) advance(first *[64]byte, content, tail []byte, n, whole, i int) {
	if s.hash == nil {
		s.hash = sha1.New()
	}
	if s.hashed == 0 && i > 0 && whole > 0 {
		s.hash.Write(first[:])
		s.hashed = 1
	}
	if to := min(i, whole); s.hashed < to { // at once, which is faster
		s.hash.Write(content[64*s.hashed-n : 64*to-n])
		s.hashed = to
	}
	for ; s.hashed < i; s.hashed++ {
		s.hash.Write(tail[64*(s.hashed-whole):][:64])
	}
	// The library gives its state as four bytes of a name, then the five words.
	var err error
	s.room, err = s.hash.(encoding.BinaryAppender).AppendBinary(s.room[:0])
	if err != nil || len(s.room) < 24 {
		panic("git: crypto/sha1 does not give its state")
	}
	for k := range s.h {
		s.h[k] = binary.BigEndian.Uint32(s.room[4+4*k:])
	}
}

// collides tries the vectors that are left.
func (s *scan) collides(left uint32) bool {
	next := s.h.plus(s.forward(&s.w, s.h))
	for ; left != 0; left &= left - 1 {
		v := &vectors[bits.TrailingZeros32(left)]
		// From where the two messages have the same state, back to the other one's chaining value and on to its next.
		at := s.late[v.step-40]
		var other schedule
		for i := range other {
			other[i] = s.w[i] ^ v.difference[i]
		}
		if backward(&other, at, v.step).plus(onward(&other, at, v.step)) == next {
			return true
		}
	}
	return false
}

func (a state) plus(b state) state {
	for i := range a {
		a[i] += b[i]
	}
	return a
}

func (w *schedule) expand(b *[64]byte) {
	for i := range 16 {
		w[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	for i := 16; i < rounds; i++ {
		w[i] = bits.RotateLeft32(w[i-3]^w[i-8]^w[i-14]^w[i-16], 1)
	}
}

// The constants of the four kinds of steps (FIPS 180-4, section 4.2.1).
const (
	k0 = 0x5a827999
	k1 = 0x6ed9eba1
	k2 = 0x8f1bbcdc
	k3 = 0xca62c1d6
)

// forward makes all steps, and keeps the states before the later ones.
func (s *scan) forward(w *schedule, h state) state {
	a, b, c, d, e := h[0], h[1], h[2], h[3], h[4]
	i := 0
	for ; i < 20; i++ {
		a, b, c, d, e = bits.RotateLeft32(a, 5)+(b&c|^b&d)+e+w[i]+k0, a, bits.RotateLeft32(b, 30), c, d
	}
	for ; i < 40; i++ {
		a, b, c, d, e = bits.RotateLeft32(a, 5)+(b^c^d)+e+w[i]+k1, a, bits.RotateLeft32(b, 30), c, d
	}
	for ; i < 60; i++ {
		s.late[i-40] = state{a, b, c, d, e}
		a, b, c, d, e = bits.RotateLeft32(a, 5)+((b|c)&d|b&c)+e+w[i]+k2, a, bits.RotateLeft32(b, 30), c, d
	}
	for ; i < rounds; i++ {
		s.late[i-40] = state{a, b, c, d, e}
		a, b, c, d, e = bits.RotateLeft32(a, 5)+(b^c^d)+e+w[i]+k3, a, bits.RotateLeft32(b, 30), c, d
	}
	return state{a, b, c, d, e}
}

// onward makes the steps from step on, which is 40 or more.
func onward(w *schedule, s state, step int) state {
	a, b, c, d, e := s[0], s[1], s[2], s[3], s[4]
	i := max(step, 40)
	for ; i < 60; i++ {
		a, b, c, d, e = bits.RotateLeft32(a, 5)+((b|c)&d|b&c)+e+w[i]+k2, a, bits.RotateLeft32(b, 30), c, d
	}
	for ; i < rounds; i++ {
		a, b, c, d, e = bits.RotateLeft32(a, 5)+(b^c^d)+e+w[i]+k3, a, bits.RotateLeft32(b, 30), c, d
	}
	return state{a, b, c, d, e}
}

// backward undoes the steps before step, which is 40 or more.
func backward(w *schedule, s state, step int) state {
	a, b, c, d, e := s[0], s[1], s[2], s[3], s[4]
	i := step - 1
	for ; i >= 60; i-- {
		a, b, c, d, e = b, bits.RotateLeft32(c, -30), d, e, a
		e -= bits.RotateLeft32(a, 5) + (b ^ c ^ d) + w[i] + k3
	}
	for ; i >= 40; i-- {
		a, b, c, d, e = b, bits.RotateLeft32(c, -30), d, e, a
		e -= bits.RotateLeft32(a, 5) + ((b|c)&d | b&c) + w[i] + k2
	}
	for ; i >= 20; i-- {
		a, b, c, d, e = b, bits.RotateLeft32(c, -30), d, e, a
		e -= bits.RotateLeft32(a, 5) + (b ^ c ^ d) + w[i] + k1
	}
	for ; i >= 0; i-- {
		a, b, c, d, e = b, bits.RotateLeft32(c, -30), d, e, a
		e -= bits.RotateLeft32(a, 5) + (b&c | ^b&d) + w[i] + k0
	}
	return state{a, b, c, d, e}
}

// A vector is one disturbance vector: how the two messages of an attack differ, and a step before which their states do not.
type vector struct {
	difference schedule
	step       int
	conditions []condition
}

// A condition is one that every message of an attack meets: bit b1 of word t1 and bit b2 of word t2 are equal, or differ.
type condition struct {
	t1, b1, t2, b2 uint8
	differ         uint8 // 1 if they do
}

// The vectors I(K,b) and II(K,b) that the authors give as those that are feasible.
var vectors = func() (all [32]vector) {
	n := 0
	add := func(second bool, k, b int) {
		all[n] = newVector(second, k, b)
		n++
	}
	for k := 43; k <= 52; k++ {
		add(false, k, 0)
	}
	for k := 46; k <= 51; k++ {
		add(false, k, 2)
	}
	for k := 45; k <= 56; k++ {
		add(true, k, 0)
	}
	for _, k := range []int{46, 49, 50, 51} {
		add(true, k, 2)
	}
	return all
}()

// newVector makes a vector by its definition. Of sixteen consecutive words of a vector all are zero but for these:
//
//	I(K,b)    word K+15 is 2^b
//	II(K,b)   words K+1 and K+3 are 2^(b+31), word K+15 is 2^b
//
// and the others follow by the message expansion, both ways. Each bit of it is a disturbance: a difference that the message brings into one
// step, and that the words of the next five steps take out again.
func newVector(second bool, k, b int) vector {
	const before = 16 // words before the first that are needed
	var d [before + rounds + 8]uint32
	at := func(t int) uint32 {
		if t < -before || t >= rounds+8 {
			return 0
		}
		return d[t+before]
	}
	set := func(t int, x uint32) { d[t+before] = x }
	set(k+15, 1<<b)
	if second {
		set(k+1, bits.RotateLeft32(1, b+31))
		set(k+3, bits.RotateLeft32(1, b+31))
	}
	for t := k + 16; t < rounds; t++ {
		set(t, bits.RotateLeft32(at(t-3)^at(t-8)^at(t-14)^at(t-16), 1))
	}
	for t := k - 1; t >= -5; t-- {
		set(t, bits.RotateLeft32(at(t+16), -1)^at(t+13)^at(t+8)^at(t+2))
	}
	var v vector
	for t := range v.difference {
		v.difference[t] = at(t) ^ bits.RotateLeft32(at(t-1), 5) ^ at(t-2) ^ bits.RotateLeft32(at(t-3)^at(t-4)^at(t-5), 30)
	}
	// A step where five words without a disturbance lie behind: the states are the same. In the last steps an attack may leave its path.
	for t := lastCondition + 1; t > 16 && v.step == 0; t-- {
		if at(t-1)|at(t-2)|at(t-3)|at(t-4)|at(t-5) == 0 {
			v.step = t
		}
	}
	v.conditions = newConditions(at)
	return v
}

// The words between which conditions are sought: before, an attack is free; after, it may leave its path.
const (
	firstCondition = 35
	lastCondition  = 64
)

// newConditions derives conditions from the vector. A disturbance of bit p in step t makes a difference of one sign in the register, and
// the differences of the words that take it out again have the opposite sign: that of step t+1, in bit p+5, and that of step t+5, in bit p+30, always; those
// between where the step's function is the majority, which passes a difference on with its sign (steps 40 to 59). A word's difference in a bit
// has the sign that the bit says, so these bits are equal, and differ from bit p of word t. Not so for bit 31, whose sign means nothing;
// nor where more than one disturbance has a share in a bit or in its neighbours, which could carry. Where a disturbance meets the next of the same bit two
// steps on, the majority gives both one sign.
//
// This finds 7 to 11 conditions a vector, all of them among those of the authors' paper.
func newConditions(at func(int) uint32) []condition {
	shares := func(t, q int) int {
		n := 0
		for _, c := range [...][2]int{{0, 0}, {1, 5}, {2, 0}, {3, 30}, {4, 30}, {5, 30}} {
			n += int(at(t-c[0]) >> uint((q-c[1]+64)%32) & 1)
		}
		return n
	}
	majority := func(t int) bool { return 40 <= t && t < 60 }
	clean := func(t, q int) bool {
		return firstCondition <= t && t <= lastCondition && shares(t, q) == 1 && (q == 0 || shares(t, q-1) == 0) && (q == 31 || shares(t, q+1) == 0)
	}
	var all []condition
	for t := firstCondition - 5; t < lastCondition; t++ {
		if bits.OnesCount32(at(t)) != 1 {
			continue
		}
		p := bits.TrailingZeros32(at(t))
		p5, p30 := (p+5)%32, (p+30)%32
		var equal [][2]int
		if clean(t+1, p5) {
			equal = append(equal, [2]int{t + 1, p5})
		}
		if p != 31 && majority(t+2) && clean(t+2, p) {
			equal = append(equal, [2]int{t + 2, p})
		}
		for i := 3; i <= 5 && p30 != 31; i++ {
			if (i == 5 || majority(t+i)) && clean(t+i, p30) {
				equal = append(equal, [2]int{t + i, p30})
			}
		}
		add := func(t1, b1, t2, b2 int, differ uint8) {
			all = append(all, condition{uint8(t1), uint8(b1), uint8(t2), uint8(b2), differ})
		}
		for i := 1; i < len(equal); i++ {
			add(equal[i-1][0], equal[i-1][1], equal[i][0], equal[i][1], 0)
		}
		if p != 31 && clean(t, p) && len(equal) > 0 {
			add(t, p, equal[0][0], equal[0][1], 1)
		}
		if p != 31 && at(t+2) == at(t) && majority(t+2) && shares(t+2, p) == 2 && clean(t+1, p5) && clean(t+3, p5) {
			add(t+1, p5, t+3, p5, 0)
		}
	}
	return all
}

// A check is a condition with the vectors that have it.
type check struct {
	condition
	vectors uint32
	both    uint64 // vectors, in each half
	differs uint64 // differ, in each half
}

// checks are the conditions of all vectors, in an order in which few suffice to exclude all.
var checks = func() (order []check) {
	all := make(map[condition]uint32)
	for i := range vectors {
		for _, c := range vectors[i].conditions {
			all[c] |= 1 << i
		}
	}
	var weight [len(vectors)]float64 // the chance that a vector is not yet excluded
	for i := range weight {
		weight[i] = 1
	}
	for len(all) > 0 {
		var best check
		most := -1.0
		for c, mask := range all {
			sum := 0.0
			for i := range weight {
				if mask>>i&1 == 1 {
					sum += weight[i]
				}
			}
			if sum > most || sum == most && less(c, best.condition) {
				best, most = check{c, mask, uint64(mask) * ones, uint64(c.differ) * ones}, sum
			}
		}
		delete(all, best.condition)
		order = append(order, best)
		for i := range weight {
			if best.vectors>>i&1 == 1 {
				weight[i] /= 2
			}
		}
	}
	return order
}()

// less puts conditions of one weight into an order, the same each time.
func less(a, b condition) bool {
	return slices.Compare([]uint8{a.t1, a.b1, a.t2, a.b2, a.differ}, []uint8{b.t1, b.b1, b.t2, b.b2, b.differ}) < 0
}

// suspects returns the vectors whose conditions a block meets, one bit each: those of the first block, then those of the second.
func suspects(w *pair) uint64 {
	left := ^uint64(0)
	for i := range checks {
		c := &checks[i]
		x := (w[c.t1%uint8(len(w))]>>(c.b1&31)^w[c.t2%uint8(len(w))]>>(c.b2&31))&ones ^ c.differs
		// A half whose bit is set becomes all ones.
		if left &^= c.both & (x<<32 - x); left == 0 {
			return 0
		}
	}
	return left
}
