package openpgp

import "math/big"

// A modulus multiplies modulo n by Barrett's method (Handbook of Applied Cryptography, 14.42): the division of big.Int becomes two
// multiplications with what is computed once a key. Before that the product is folded: what stands above a place is multiplied by what one at that place is
// modulo n, so that the product is shorter and Barrett's two multiplications are small. All values are public; nothing here is constant-time, and nothing
// secret may ever go through it. TestModulus holds it against big.Int.
type modulus struct {
	n, mu *big.Int
	words int // of n
	rest  int // words by which a folded product may be longer
	folds []fold
}

// A fold is a place, in words, and 2^(wordBits*at) modulo n.
type fold struct {
	at   int
	here *big.Int
}

const (
	wordBits = 64
	minFold  = 8 // words: below that folding costs more than it saves
)

func newModulus(n *big.Int) *modulus {
	one := big.NewInt(1)
	words := (n.BitLen() + wordBits - 1) / wordBits
	m := &modulus{n: n, words: words, rest: words}
	for m.rest >= 2*minFold {
		half := (m.rest + 1) / 2
		at := words + half
		here := new(big.Int).Lsh(one, uint(at)*wordBits)
		m.folds = append(m.folds, fold{at, here.Mod(here, n)})
		// What stands above has at most half words, so it makes no more than what stands below: the sum is longer by one bit at most.
		m.rest = half + 1
	}
	mu := new(big.Int).Lsh(one, uint(words+m.rest)*wordBits)
	m.mu = mu.Quo(mu, n)
	return m
}

// A reducer is the room for one computation.
type reducer struct {
	*modulus
	t, u, q   big.Int
	high, low big.Int // parts of t, in its memory
}

// mul sets z to x*y mod n, for x and y below n. z may be x or y.
func (r *reducer) mul(z, x, y *big.Int) {
	t, u := &r.t, &r.u
	t.Mul(x, y)
	for _, f := range r.folds {
		if b := t.Bits(); len(b) > f.at {
			r.high.SetBits(b[f.at:])
			r.low.SetBits(b[:f.at])
			u.Mul(&r.high, f.here)
			u.Add(u, &r.low)
			t, u = u, t
		}
	}
	// Now t is below 2^(wordBits*(words+rest)), which mu is for.
	if b := t.Bits(); len(b) >= r.words {
		r.high.SetBits(b[r.words-1:])
		u.Mul(&r.high, r.mu)
		if b := u.Bits(); len(b) > r.rest+1 {
			r.high.SetBits(b[r.rest+1:])
			r.q.Mul(&r.high, r.n)
			t.Sub(t, &r.q)
		}
	}
	for t.Cmp(r.n) >= 0 { // at most twice
		t.Sub(t, r.n)
	}
	z.Set(t)
}

// exp returns x^e mod n, for x below n and e above 0.
func (m *modulus) exp(x, e *big.Int) *big.Int {
	r := &reducer{modulus: m}
	z := new(big.Int).Set(x)
	for i := e.BitLen() - 2; i >= 0; i-- {
		r.mul(z, z, z)
		if e.Bit(i) == 1 {
			r.mul(z, z, x)
		}
	}
	return z
}

// powers are base^(d * 2^(5i)) mod p for all digits d of 5 bits and all i, so that a power is a product of few of them.
type powers struct {
	p     *modulus
	table [][]*big.Int
}

const powerBits = 5

func newPowers(base *big.Int, p *modulus, bits int) *powers {
	t := &powers{p: p}
	r := &reducer{modulus: p}
	b := base
	for range (bits + powerBits - 1) / powerBits {
		row := make([]*big.Int, 1<<powerBits)
		row[1] = b
		for d := 2; d < len(row); d++ {
			row[d] = new(big.Int)
			r.mul(row[d], row[d-1], b)
		}
		t.table = append(t.table, row)
		next := new(big.Int)
		r.mul(next, row[len(row)-1], b)
		b = next
	}
	return t
}

// times multiplies z by base^u.
func (t *powers) times(r *reducer, z, u *big.Int) {
	for i, row := range t.table {
		d := uint(0)
		for k := range powerBits {
			d |= u.Bit(i*powerBits+k) << k
		}
		if d > 0 {
			r.mul(z, z, row[d])
		}
	}
}
