package channelhost

import (
	"time"

	"sallyport/internal/serve"
)

const (
	// MaxConnections is how many clients are connected at a time; more wait.
	MaxConnections = 1024
	// MaxRequest bounds the body of a request, once it is expanded: a client that has much to tell of what it has sends some megabytes.
	MaxRequest = 16 << 20
	// smallRequest is what a body may have without waiting for one of largeRequests places.
	smallRequest  = 64 << 10
	largeRequests = 16
	// MaxAnswer bounds one answer.
	MaxAnswer = 16 << 30
	// DefaultQueue is how many requests wait for a child.
	DefaultQueue = 1024

	// readTime is how long a client may take for a whole request.
	readTime = time.Minute
	// answerTime is how long a client may take for an answer that is not given piece by piece.
	answerTime = 2 * serve.StallTime
	// childTime is how long git may take for one answer.
	childTime = 30 * time.Minute
	// repackTime is how long git may take to pack a repository.
	repackTime = 3 * time.Hour

	// maxPacks is how many packs a repository may have: what one release after another brings. Then all is packed together again.
	maxPacks = 16

	// maxKept and maxKeptBytes bound the answers that are kept for the next who asks; those that are being sent do not count.
	maxKept      = 256
	maxKeptBytes = 2 << 30
	// inMemory is how large an answer gets before it becomes a file.
	inMemory = 256 << 10
	// stride is how much an answer grows between two looks at the room that is left: the reserve of zone.toml stays free.
	stride = 64 << 20

	// maxPinned bounds the pins that a host knows, those of old releases included.
	maxPinned = 100_000

	// retryAfter is how long is waited before what went wrong is tried again.
	retryAfter = 5 * time.Second
	// lookAgain is how long is waited before what was refused is tried again, though nothing was published.
	lookAgain = time.Minute
)
