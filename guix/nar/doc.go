// Package nar reads, writes, dumps and restores nars, the archive format whose
// hash names the contents of the Guix store.
//
// A nar is the canonical form of a file tree: it has no times, no owners, no
// modes but one bit, and exactly one spelling. Two trees are the same to Guix
// if and only if their nars have the same SHA-256.
//
// # Grammar
//
//	int(n)  = n as 8 bytes, little endian
//	str(s)  = int(length of s) s, then zero bytes up to a multiple of 8
//	nar     = str("nix-archive-1") node
//	node    = str("(") str("type") body str(")")
//	body    = str("regular") [ str("executable") str("") ] str("contents") str(DATA)
//	        | str("symlink") str("target") str(TARGET)
//	        | str("directory") { str("entry") str("(") str("name") str(NAME)
//	                             str("node") node str(")") }
//
// Entries stand in ascending order of the bytes of NAME, each NAME once. A
// regular file is executable if its owner may execute it (mode bit 0100).
// Nothing else of a file is kept.
//
// # Vocabulary
//
// A node is a regular file, a directory or a symbolic link. The top is the
// node that the archive holds; it need not be a directory. An entry is a node
// with a name in a directory. Contents are the bytes of a regular file.
//
// A [Header] describes one node. [Reader] returns headers, [Writer] takes
// them, in the one order there is: a directory before its entries, entries by
// name. Header.Path of the top is "", of an entry "bin", of its entry
// "bin/hello".
//
// # Strictness
//
// The readers of this format in common use accept much that no writer would
// write: entries out of order, a name twice, "..", padding that is not zero.
// Such an archive has one hash as sent and another once restored, or writes
// outside its directory. This package accepts what it would write itself and
// nothing else, so for every archive that [Reader] reads to its end, a Writer
// given the same headers and contents prints the same bytes. Refused are, each
// with a code of its own in an [Error]:
//
//   - any word but the one, or the ones, that the grammar has at that place;
//   - a string longer than its place allows, before anything is allocated;
//   - padding that is not zero;
//   - an entry name that is empty, ".", ".." or contains "/" or NUL;
//   - a name that does not come after the one before it, or repeats it;
//   - a value for "executable" that is not empty;
//   - a link target that is empty or contains NUL;
//   - an archive that ends early.
//
// Names are bytes. A name that is not valid UTF-8 is accepted, since the Guix
// daemon accepts it, but no Guile program can archive it; [Header.UTF8] tells.
// Names that differ only in case are different names.
//
// What follows the archive is the business of the caller: an export stream
// goes on after each nar, a file does not. Reader leaves whatever follows
// unread.
//
// # Bounds
//
// [MaxName], [MaxTarget], [MaxPath], [MaxDepth] and [MaxEntries] bound what is
// read and, so that whatever is written can be read, what is written. Contents
// may have any length that keeps the archive below 2^63 bytes. Reader holds
// one buffer of fixed size and one name for each open directory; it
// never allocates for a length that an archive merely claims.
//
// # Reading
//
// A Reader is pulled, like that of archive/tar:
//
//	r := nar.NewReader(src)
//	for {
//		h, err := r.Next()
//		if err == io.EOF {
//			break // the archive was complete and well-formed
//		}
//		if err != nil {
//			return err
//		}
//		if h.Type == nar.Regular {
//			io.Copy(dst, r)
//		}
//	}
//
// [Entries] is the same as an iterator, for whoever needs no contents, and [List]
// returns all headers with the offsets of contents. The first error sticks.
// An Error is a judgement of the archive; anything else is a failure of the
// source, passed on.
//
// # Trust
//
// Nothing read is to be believed until the hash of the archive agrees with
// one that was. [NewVerifier] ties the two: it passes bytes on, and keeps the last of
// them back until the size and the SHA-256 of all agree. A consumer that
// needs the whole archive, as Reader does, cannot come to a good end on an
// archive that is not the expected one.
//
// # Trees
//
// [Dump] writes the nar of a tree and [Sum] hashes it; files are read ahead in
// parallel. [Restore] is the way back. It creates and never opens, replaces or
// follows: every directory is entered through an [os.Root] of its own, every
// file is created exclusively, so no archive writes outside its place.
// [Remove] deletes a restored tree, whose directories are read-only.
//
// # References
//
// An item of the store refers to another if the 32 characters of the other's
// hash part occur anywhere in its nar. [Scanner] finds them in a stream.
//
// # Sources
//
// The format has no specification but its implementations: nix/libutil/archive.cc
// and guix/serialization.scm in Guix 1.5.0, and E. Dolstra, "The Purely Functional
// Software Deployment Model", 2006, section 5.2. The recorded archives in
// vectors/nars are equal to what Guix writes.
package nar
