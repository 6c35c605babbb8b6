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
//	err = log.Range(ctx, from, to, visit) // some entries, each bundle proven before one of it is seen
//
// # What is carried by hand
//
// Proofs as files, for who has not the published directory. A [Proof] is one entry with the way from it to a checkpoint (C2SP tlog-proof), a
// [Growth] a checkpoint with the proof that the log only grew since a former size (the request of C2SP tlog-witness):
//
//	p, err := log.ProveEntry(index, msg)   // msg: the checkpoint, and what witnesses signed of it ([Join])
//	file := p.Marshal()
//	p, err = ledger.ParseProof(file)       // elsewhere
//	c, err := ledger.OpenCheckpoint(p.Checkpoint, origin, key)
//	err = p.Check(c)
//
// A witness answers a Growth by [CosignGrowth], one who can read the files does the same by [Cosign]; [Merge] takes in what comes back.
//
// # Another key
//
// A log may get another key. The checkpoint with which the change ends is signed by both ([SignCheckpoint]); here a checkpoint is verified by one key that the caller
// names, and who knows which key counts for which size is package store, and a root.
//
// # Bounds
//
// A leaf has 1 to [MaxLeaf] bytes, a checkpoint [MaxCheckpoint].
//
// The package opens only the fs.FS that it is given and reads no clock.
package ledger
