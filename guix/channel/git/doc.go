// Package git reads what git stores: commits, trees, tags and files, loose or in packs, without git.
//
// It is made for repositories that nobody trusts. It opens nothing: its caller hands it packs and loose files. There is no configuration to
// obey, no hook, no reference to replace an object, no other place to fetch one from; what is not there is missing. Every object is hashed when it is
// read ([Reader.Read]), so an index that lies, a pack that was patched, a loose file under another's name are errors, never other content.
//
//	db := &git.Database{Packs: packs, Loose: loose}
//	r := db.NewReader()                            // one for each goroutine
//	raw, err := r.Read(id, git.KindCommit)         // valid until the next Read
//	c, err := git.ParseCommit(raw)
//
// Ids are SHA-1, for which collisions can be made. [Collides] finds the marks of the known attacks; a [Database] that uses it refuses such objects, as git and
// libgit2 do.
//
// # Formats
//
// Packs of version 2 and 3 with an index of version 2, deltas by offset and by name within the pack; loose objects with a header inside the
// compression, as git has written them since 2006. Ids are SHA-1; repositories of SHA-256 are refused by the length of their index. The documents:
// gitformat-pack, gitformat-index and the like at https://git-scm.com/docs.
//
// # Commits
//
// [ParseCommit] reads a commit as libgit2 does, because its word decides what Guix authenticates (git_commit__parse and
// git_commit_extract_signature in commit.c, version 1.9): which parents it has, where its signature is, what that signs. Where libgit2 is lax, the commit
// is read as libgit2 reads it and [Commit.Oddities] says what is odd: a zero byte, after which nothing is signed; a line of the message that is taken
// for the header gpgsig; headers twice. Only what could be read as two different parents or trees is an error.
//
// # Trees
//
// [Entries] refuses what git's fsck calls an error: entries out of order or twice, names that lead out of the directory or into .git (as NTFS and HFS+
// read them, too), modes that git does not have.
//
// # Bounds
//
// In limits.go. Memory is what the largest object takes, and the cache; a length that the bytes at hand cannot expand to is refused before anything is
// allocated. Chains of deltas are followed in a loop and are bounded.
package git
