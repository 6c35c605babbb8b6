// Package store keeps the state of one zone: blobs ([cas]), the catalog
// (SQLite) and the ledger.
//
//	zone.toml          configuration ([Config], [ConfigKeys])
//	catalog.sqlite     schema.sql
//	cas/               blobs by SHA-256
//	keys/              ledger.key, station.key and, for the officers, their public halves *.vkey
//	lock/NAME          locks between processes
//	tmp/               for whoever needs scratch space on the zone's file system
//	public/ledger/     the published ledger
//	public/root/N  public/allowlist/TRACK/N  public/witness/NAME
//
// A zone is made by [Init], all at once, and opened by [Open]; a missing one is
// an error, never made again, since an empty log where an old one should be is
// how a split view begins. Several processes may have one zone open.
//
// # What makes a deed true
//
// [Zone.Commit] runs a function in a transaction. Whatever waits at that moment
// shares one transaction, each caller under a savepoint of his own, so that one
// failure takes nobody else along; and one checkpoint. Then:
//
//  1. The SQLite transaction commits: entries, hashes, signed checkpoint and
//     the state they record. This write makes it true. A crash before it leaves
//     nothing of it.
//  2. Entry bundles, tiles and the files of [Tx.Publish] are written, all durable.
//  3. public/ledger/checkpoint is replaced, durably.
//  4. Commit returns: only now may the deed be announced.
//
// A crash between 1 and 3 loses nothing: publishing takes as its work the
// difference between the published checkpoint and the catalog's, so the next
// commit of any process, or the next Open, does what is missing, with the same
// code. If publishing fails while the process lives, Commit returns an
// [*UnpublishedError]: the deed is done and stays done, but must not be announced
// yet; and until publishing works again the zone takes no further commits.
//
// Across processes, transactions begin immediate, read the size of the ledger
// inside, and publishing happens under lock/publish and only ever forward.
//
// # What Open refuses
//
//	ledger-rollback    the published checkpoint is ahead of the catalog: the catalog was put back from an old copy
//	ledger-fork        the catalog's tree does not contain the published one
//	ledger-corrupt     the catalog's ledger does not make up its own checkpoint
//	ledger-missing     nothing is published although the zone once was
//
// [Zone.Verify] recomputes everything, and also finds an edited entry
// (ledger-entry), hash (ledger-hash) or published file (ledger-tile).
//
// # Using it
//
//	z, err := store.Open(ctx, dir, store.Options{Clock: time.Now, Rand: rand.Reader, Log: log})
//	defer z.Close()
//	err = z.Commit(ctx, func(tx *store.Tx) error {
//		if err := tx.Exec(ctx, `INSERT INTO shipped VALUES (?, ?, ?)`, n, digest, date); err != nil {
//			return err
//		}
//		return tx.Statement(statement.KindShipped, subjects, predicate)
//	})
//	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT ...`)
//
// The function runs while every other writer of the zone waits: it must not
// wait for anything but its own statements, not touch Commit again, and not ask
// a person to sign.
package store
