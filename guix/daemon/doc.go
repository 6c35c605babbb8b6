// Package daemon speaks with guix-daemon, the program that owns the store: it
// asks what is there, adds to it, has things built, and moves items in and out.
//
// The package opens no socket. The caller passes a [net.Conn], which on a usual
// machine is one to /var/guix/daemon-socket/socket, and the package closes it:
//
//	conn, err := net.Dial("unix", "/var/guix/daemon-socket/socket")
//	...
//	c, err := daemon.Connect(ctx, conn)
//	...
//	defer c.Close()
//	info, err := c.Info(ctx, path)
//
// # Grammar
//
// Numbers and strings are those of nars: 8 bytes, little endian; a str is its
// length, its bytes and zero bytes up to a multiple of 8. A list is its length and
// its elements; a set is a list that ascends; a bool is 0 or 1.
//
//	handshake = C: 0x6e697863
//	            S: 0x6478696f VERSION
//	            C: VERSION 0 0             no processor wanted, no space reserved
//	            S: talk
//	request   = C: OPERATION arguments
//	            S: talk results            results only if the talk ends in LAST
//	talk      = { NEXT str | WRITE str | READ n (C: str of at most n bytes) } ( LAST | ERROR str STATUS )
//
// VERSION is 0x164 in Guix 1.5.0 and was 0x163 before; its upper byte has to be 1, its
// lower at least 0x63. Nix has the same numbers with a lower byte below 0x40 and
// another language: it is refused by that ([CodeVersion]).
//
// # Vocabulary
//
// An item is valid if the daemon knows it; what else lies in the store is garbage. An
// item's references are the items whose names occur in it, its referrers the
// items that refer to it. A deriver is a derivation that makes it. A root keeps an item and all that it
// refers to from being collected; a temporary one ends with the connection. A
// trace is a line of the daemon's own in a log of builds: see [Event].
//
// # Operations
//
//	 1 valid path             IsValid             18 deriver              Deriver
//	 5 references             References          19 options              SetOptions
//	 6 referrers              Referrers           20 collect garbage      CollectGarbage
//	 7 add to the store       AddNar, AddFile     22 outputs              Outputs
//	 8 add text               AddText             23 all valid paths      AllValid
//	 9 build                  Build               26 path info            Info
//	10 ensure path            Ensure              27 import paths         Import
//	11 temporary root         AddTempRoot         29 path from hash part  FromHash
//	12 indirect root          AddIndirectRoot     30 substitutable infos  Substitutable
//	14 roots                  Roots               31 valid paths          Valid
//	16 export path            Export              33 valid derivers       Derivers
//	                                              35 verify the store     VerifyStore
//
// A Client does one at a time; calls from several goroutines wait for each other.
// Streams are never held in memory: AddNar and Import read as the daemon takes, Export
// writes as it gives. [Client.Build] reports the log while the build runs.
//
// # What is believed
//
// Nothing that arrives is taken as it comes. Every path is a store path by the grammar of
// package storepath, every set ascends, every length is bounded by a constant of this
// package before anything is allocated, and memory grows with what has arrived and
// not with what a length promises. What the daemon computes and the client can
// compute too is compared: the path of what was added, the item in an exported
// stream. The rest (references, derivers, hashes) is the word of the daemon.
//
// Nothing is passed on to the daemon unchecked either. An import hands over the end of
// each item, which names it, only after package archive has read all of the
// item and the caller's check has agreed, because the daemon itself takes an item called
// /gnu/store/.. and deletes what is there. An archive that is not the canonical one
// is never completed.
//
// # Errors
//
//	*Error             the daemon said no: its message and status. The Client can go on.
//	*ProtocolError     what came is not the protocol: a code and an offset. The connection is closed.
//	ErrNotValid        wrapped with the Error, by operations on one item, if the item is not valid
//	ErrClosed          the Client was closed, by Close or by an earlier failure
//	*nar.Error, *archive.Error    of what the caller gave to be added or imported
//
// Any other error is a failure of the connection, or of the caller's reader or
// writer, or the context's. After such a one, too, the connection is closed.
//
// # Cancellation
//
// When the context of a call ends, the connection's deadline is set to the past and
// the connection closed: the protocol has no other way to stop. The daemon then
// stops the build that it was doing for this connection. So a Client serves until its
// first context that ends during a call, and a new one has to be connected after. A
// reader or writer of the caller's that blocks is for the caller to stop.
//
// # Where the facts come from
//
// nix/nix-daemon/nix-daemon.cc, nix/libstore/worker-protocol.hh and guix/store.scm of GNU Guix
// 1.5.0. The tests have a daemon of their own, which refuses all that a client should not say;
// TestDaemon in package peer drives the real one.
package daemon
