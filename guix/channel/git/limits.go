package git

// Bounds. What is larger is refused, never cut.
const (
	MaxCommit   = 4 << 20   // bytes in a commit or a tag
	MaxTree     = 64 << 20  // bytes in a tree
	MaxBlob     = 512 << 20 // bytes in a blob
	MaxParents  = 4096      // parents of a commit
	MaxName     = 4096      // bytes in the name of a tree's entry
	MaxChain    = 8192      // deltas on one another; git itself makes at most 4095
	MaxIndex    = 2 << 30   // bytes in the index of a pack
	MaxOddities = 16        // told of one commit

	// DefaultCache is how much of delta bases is kept by a Database.
	DefaultCache = 48 << 20
)

// maxSize gives the bound of a kind.
func maxSize(k Kind) int64 {
	switch k {
	case KindCommit, KindTag:
		return MaxCommit
	case KindTree:
		return MaxTree
	}
	return MaxBlob
}
