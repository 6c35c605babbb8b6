package channel

// Bounds. What is larger is refused, never cut without saying so.
const (
	MaxCommits        = 8 << 20 // commits in the history of a channel
	MaxRefusals       = 10000   // refusals that are listed; those beyond are counted
	MaxFindings       = 1 << 20 // findings of one channel
	MaxKeyFiles       = 10000   // files in a keyring
	MaxKeyringBytes   = 64 << 20
	MaxKeyringDepth   = 16
	MaxAuthorizations = 1 << 20 // bytes in a .guix-authorizations
	maxProven         = 1 << 30 // bytes in a proof
	maxText           = 400     // bytes of another's text in a report
)
