// Package backup copies a zone while it is in use, checks such copies, and puts
// them back.
//
// A backup is a directory or, the same files under the same names, a tar archive:
//
//	manifest             what it holds, written last
//	zone.toml            as in the zone
//	catalog.sqlite       the catalog at one moment
//	public/ledger/...    the published ledger at that moment, made from the catalog's copy
//	public/...           roots, orders, allowlists, cosignatures
//	cas/...              the blobs: hard links where the backup lies on the zone's file system, else copies
//	keys/*.vkey          public halves; ledger.key and station.key only if asked for
//	floor/ pending/ ...  whatever else the zone has, but for lock/, tmp/ and served/
//
// The manifest is text, one spelling:
//
//	sallyport backup v1
//	origin ORIGIN
//	date DATE
//	size SIZE            the ledger with which it ends
//	root BASE64
//	keys with|without
//	file SHA256 SIZE PATH    sorted by path, each once
//
// # What a backup is worth
//
// Blobs are copied after the catalog: whatever the catalog names is among them. [Verify]
// recomputes every digest and the whole ledger, under its signed
// checkpoint. The manifest is not signed: who changes a backup can change it too. What
// he cannot make is another ledger, documents or blobs; what he could change are rows of
// the catalog. Whoever puts back a backup from a medium that was not guarded makes the catalog again.
//
// # Putting back
//
// A log that is put back and goes on has two continuations if entries were
// lost: those that others have seen, and the new ones. So [Restore] asks for the newest state of
// the log that is at hand: a published directory, a checkpoint that a witness cosigned or keeps.
//
//	the backup has all of it           the zone goes on: nothing was lost
//	it has not, or nothing is at hand  the zone is put back and waits: it takes in roots and orders only, until
//	                                   two officers have ordered that the log goes on from there (`restored SIZE ROOT`)
//	another log                        refused
//
// Where the published directory itself survived, nothing needs to be lost: put back with it, the zone has all
// that was published, and its catalog is made again. A zone that got other keys after the backup was made (package store) is given both: the former from the
// backup, the new ones by name, which take their place with the root that names them. Blobs that survived are taken, too, each by its digest.
//
// What is at hand of a zone that changed its keys may be a thief's, who has the former one:
//
//	the backup, or the published directory that survived, is signed behind
//	its own entry `key-changed` by the key that the entry gives up           refused (key-replaced), by Verify, too
//	what is put back ends with a key that the newest root at hand does
//	not name                                                                 put back, and waits: Restored.Former
//	the first root has not the fingerprint that officers gave                refused (root-pin); no root is there: root-missing
//	no fingerprint was given, or no root is newer                            taken at the backup's word
//
// A restore is made beside its place and renamed; one that was killed leaves nothing in that place, and its
// remains go with the next.
//
// # Bounds
//
// A manifest has at most [MaxFiles] files.
package backup
