package openpgp

import "math/big"

// A modulus multiplies modulo n by Barrett's method (Handbook of Applied Cryptography, 14.42): the division of big.Int becomes two
// multiplications with what is computed once a key. All values are public; nothing here is constant-time, and nothing secret may ever go through it.
// TestModulus holds it against big.Int.
type modulus struct {
	n, mu *big.Int
	words uint
}

const wordBits = 64

func newModulus(n *big.Int) *modulus {
	words := uint(n.BitLen()+wordBits-1) / wordBits
	mu := new(big.Int).Lsh(big.NewInt(1), 2*words*wordBits)
	return &modulus{n, mu.Quo(mu, n), words}
}

// A reducer is the room for one computation.
type reducer struct {
	*modulus
	t, q, u big.Int
}

// mul sets z to x*y mod n, for x and y below n. z may be x or y.
func (r *reducer) mul(z, x, y *big.Int) {
	r.t.Mul(x, y)
	r.q.Rsh(&r.t, (r.words-1)*wordBits)
	r.u.Mul(&r.q, r.mu)
	r.q.Rsh(&r.u, (r.words+1)*wordBits)
	r.u.Mul(&r.q, r.n)
	z.Sub(&r.t, &r.u)
	for z.Cmp(r.n) >= 0 { // at most twice
		z.Sub(z, r.n)
	}
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
