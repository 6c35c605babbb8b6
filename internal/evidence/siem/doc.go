// Package siem tells a ledger to a security information and event management
// system: as JSON lines or as syslog messages (RFC 5424), to a file, a pipe or a
// socket, once or for as long as the ledger grows.
//
// # What is told
//
// A [Record] is one entry. It is made only of entries that were proven to be in
// the tree under a checkpoint which the ledger's key has signed
// (internal/store/ledger, Range); nothing that is unproven is printed, not even
// if a later line would take it back. Record.Signature says besides whether the
// statement itself verifies with a key that some root of the enclave has.
//
// # Lines that cannot be forged
//
// Names, reasons and paths in entries come from outside. In JSON they are JSON
// strings. In syslog every value that an entry brings stands in quotes, `"`, `\`
// and `]` escaped, everything that is no printable character replaced, and cut
// where it is long: no entry can end its message, begin another, or look like a
// field of its own ([Syslog]). Whoever wants the whole entry takes JSON, or
// looks it up by its index.
//
// # Not lost, not twice
//
// A [Cursor] is a file that says up to where the ledger was told, and which tree
// that was: what goes on must contain it, else it is a fork or a rollback, and
// an alarm. The cursor moves after the lines have been handed over, and is
// durable before more are:
//
//	to a file     each line once: after a crash the file is cut back to what the cursor says
//	to a socket   each line at least once: the cursor moves when the other machine's kernel has
//	              acknowledged every byte (of a local socket: when the other process has read it).
//	              A line may come again after a crash or a broken connection, the same byte for byte,
//	              with the same index. What a receiver had acknowledged and lost in its own
//	              memory no sender learns of: RFC 6587 has no acknowledgement
//	to a pipe     each line at least once, up to the pipe
//
// The package reads no clock but for the deadlines of sockets.
package siem
