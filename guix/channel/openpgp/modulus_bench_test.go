package openpgp

import (
	"fmt"
	"math/big"
	"testing"
)

// BenchmarkModulus is what one signature of RSA costs.
func BenchmarkModulus(b *testing.B) {
	for _, bits := range []uint{2048, 3072, 4096} {
		n := new(big.Int).Lsh(big.NewInt(1), bits)
		n.Sub(n, big.NewInt(12345))
		m, x := newModulus(n), new(big.Int).Rsh(n, 1)
		e := big.NewInt(65537)
		b.Run(fmt.Sprint(bits), func(b *testing.B) {
			for b.Loop() {
				m.exp(x, e)
			}
		})
	}
}
