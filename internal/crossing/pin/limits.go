package pin

import "time"

// Bounds.
const (
	MaxPin     = 4096     // bytes of a pin
	MaxHeader  = 4096     // bytes of a bundle's header
	MaxPack    = 16 << 30 // bytes of a pack
	MaxObjects = 16 << 20 // in a pack; a channel like Guix's has about a tenth of it
	MaxNar     = 16 << 30 // bytes of a checkout's nar

	gitTime = 2 * time.Hour // for one run of git
)
