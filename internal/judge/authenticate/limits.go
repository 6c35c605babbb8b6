package authenticate

// Bounds of a repository. What is larger is refused.
const (
	MaxPacks      = 4096
	MaxPackedRefs = 256 << 20 // bytes
	MaxRefFile    = 4096
	MaxRefDepth   = 5        // references that lead to references
	MaxLoose      = 64 << 20 // bytes of a loose object's file
	MaxTreeDepth  = 256
	MaxTreeFiles  = 4 << 20
	MaxCheckout   = 16 << 30 // bytes of the files and trees of a checkout, each as often as it stands there
)
