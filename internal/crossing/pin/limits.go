package pin

import "time"

// Bounds.
const (
	MaxPin     = 4096     // bytes of a pin
	MaxHeader  = 4096     // bytes of a bundle's header
	MaxPack    = 16 << 30 // bytes of a pack
	MaxObjects = 16 << 20 // in a pack; a channel like Guix's has about a tenth of it
	MaxNar     = 16 << 30 // bytes of a checkout's nar

	// What the objects of a pack may have in bytes: so much, and so many times what the pack has. Histories of real channels have some hundred times.
	freeWeight   = 4 << 30
	maxExpansion = 1000

	gitTime = 2 * time.Hour // for one run of git
)
