package pin

import "time"

// Bounds.
const (
	MaxPin    = 4096     // bytes of a pin
	MaxHeader = 4096     // bytes of a bundle's header
	MaxPack   = 16 << 30 // bytes of a pack
	MaxNar    = 16 << 30 // bytes of a checkout's nar

	gitTime = 2 * time.Hour // for one run of git
)
