// Package pin has what crosses the gap of a Guix channel: one commit of it, with the history that the other side does not have yet.
//
// A pin says in a page which commit a channel stands at. Beside it crosses a git bundle; both lie in a nar, which is an item of kind "channel".
// docs/spec/channel.md, sections Pins and The item, has the bytes.
//
//	sallyport pin v1
//	channel NAME
//	url URL
//	branch BRANCH
//	introduction COMMIT FINGERPRINT
//	keyring COMMIT
//	commit COMMIT
//	nar SHA256 SIZE
//	basis COMMIT | -
//
// The outside makes an item with [Create]. Whoever gets one reads it with [Open] and puts its objects into a repository with [Unpack]:
//
//	p, header, err := pin.Open(item, pack)             // the pack goes to a file as it passes
//	err = pin.Unpack(ctx, git, dir, base, packFile)
//	repository, err := authenticate.Open(dir, authenticate.Options{Alternates: []string{base + "/objects"}})
//	report, err := repository.Authenticate(ctx, authenticate.Request{..., End: p.Commit.String()})
//
// # What is checked
//
// Open checks the form: that the nar has the two files and nothing else, that the pin has its one spelling, that the header of the bundle says what the
// pin says. Unpack has git check every object as fsck does, its links, its marks of collisions and that the pack is whole, and sees itself that it ends where the bundle does. Neither says that a commit is authentic, nor that the hash of the checkout is the one in the pin: that is for
// package authenticate, whose Repository has Authenticate and Nar.
//
// Git runs in a cage (package gitrun). What it writes is a claim: guix/channel/git holds every object against its id, its form and the marks of collisions when
// it reads it, so authentication, the comparison of commits and the checkout do not rest on git; and a client that clones hashes for itself. Old versions of
// files that nobody reads here are not read to check them: a channel's packs hold some hundred times their size, a quarter of an hour of hashing for Guix.
//
// # Size
//
// Nothing of the size of a channel is held in memory: bundles and packs go through files.
package pin
