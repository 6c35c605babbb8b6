package confine

import "time"

// Bounds of the protocol, for both sides.
const (
	MaxLine     = 64 << 10 // bytes in a line, LF included
	MaxFindings = 8192     // findings about one item
	MaxRefusals = 256      // refusals of one item
	MaxStrings  = 1 << 18  // strings of one derivation
	MaxName     = 4096     // bytes in the name of an item
	MaxText     = 16 << 10 // bytes in any string of an answer
	MaxExamples = 3        // examples of one finding
	MaxSize     = 1 << 40  // bytes in an item
)

// Bounds of the child.
const (
	MaxAddressSpace = 2 << 30   // below about 1.2 GB the Go runtime does not start
	MaxHeap         = 256 << 20 // where the collector begins to work harder
	MaxDescriptors  = 16
	MaxThreads      = 64
	MaxStderr       = 2 << 10 // bytes kept of what the child says on standard error
)

// Deadlines. An item has BaseTime and what its size takes at MinSpeed.
const (
	StartTime = time.Minute // it has not seen a byte yet: only a busy machine makes it slow
	BaseTime  = 30 * time.Second
	EndTime   = 10 * time.Second // for one that was told to end, or has closed its output
	MinSpeed  = 4 << 20          // bytes a second
)

// nobody is the user and group that a child started by root changes to.
const nobody = 65534
