// Package ledger is the sealed log of a zone: a Merkle tree over statements,
// its signed checkpoints, its published tiles, proofs and witnesses. The
// format is docs/spec/ledger.md, which is C2SP tlog-tiles, tlog-checkpoint and
// tlog-cosignature with leaves that are DSSE envelopes.
//
// # Words
//
// A leaf is one entry's bytes, its index counts from 0. The size of a tree is
// the number of its leaves; a [Checkpoint] is origin, size and root hash, and
// as a signed note the log's word for them. A tile has 256 hashes of one level
// of the tree (a tile of level L has the hashes of level 8L), an entry bundle
// 256 leaves; at the right edge both are partial, with their width in the
// name. A witness cosigns checkpoints that only ever grow.
//
// # Growing
//
// A [Batch] holds what is appended in one transaction: leaves and, for each,
// the hashes that the storage order of golang.org/x/mod/sumdb/tlog puts
// behind it. It can be cut back to an earlier size, so that one caller's
// failure takes only his leaves away.
//
//	b := ledger.NewBatch(size, stored)
//	index, err := b.Append(leaf)
//	c, err := b.Checkpoint(origin)
//	msg, err := ledger.SignCheckpoint(c, key)
//
// # Reading
//
// [NewLog] reads published files and believes nothing in them that the
// checkpoint does not prove:
//
//	c, err := ledger.OpenCheckpoint(msg, origin, key)
//	log := ledger.NewLog(os.DirFS("public/ledger"), c)
//	proof, err := log.ProveInclusion(index)
//	err = ledger.CheckInclusion(c, index, leaf, proof)
//	err = log.Verify(nil)            // everything, from the leaves up
//
// # Bounds
//
// A leaf has 1 to [MaxLeaf] bytes, a checkpoint [MaxCheckpoint].
//
// The package opens only the fs.FS that it is given and reads no clock.
package ledger
