// Package store keeps the state of one zone: blobs ([cas]), the catalog
// (SQLite) and the ledger.
//
//	zone.toml          configuration ([Config], [ConfigKeys])
//	catalog.sqlite     schema.sql
//	cas/               blobs by SHA-256
//	keys/              ledger.key, station.key and, for the officers, their public halves *.vkey; *.next.key and *.next.vkey: those that are to come
//	lock/NAME          locks between processes
//	tmp/               for whoever needs scratch space on the zone's file system
//	public/ledger/     the published ledger
//	public/root/N  public/orders/N  public/allowlist/TRACK/N  public/witness/NAME
//
// A zone is made by [Init], all at once, and opened by [Open]; a missing one is
// an error, never made again, since an empty log where an old one should be is
// how a split view begins. Several processes may have one zone open.
//
// # What makes a deed true
//
// [Zone.Commit] and [Zone.Record] run a function in a transaction. Whatever waits at that moment
// shares one transaction, each caller under a savepoint of his own, so that one
// failure takes nobody else along; and one checkpoint. Then:
//
//  1. The SQLite transaction commits: entries, hashes, signed checkpoint and
//     the state they record. This write makes it true. A crash before it leaves
//     nothing of it. Record returns.
//  2. Entry bundles, tiles and the files of [Tx.Publish] are written, all durable.
//  3. public/ledger/checkpoint is replaced, durably.
//  4. Commit returns.
//
// One goroutine publishes, in the order of the ledger and never ahead of the
// database: all that has been committed since it published last, at once. While
// somebody waits it does so without delay, else within [MaxLag].
//
// A deed must be published before it has an effect that can be seen outside of the zone: a file
// that is handed out, a list that is in force, a slip that is printed, the end of a
// command. Commit waits for that, so nobody can forget it. Whoever does many
// deeds in a row before the first effect takes Record and, in the end, [Zone.Published].
//
// A crash between 1 and 3 loses nothing: publishing takes as its work the
// difference between the published checkpoint and the catalog's, so the next
// commit of any process, or the next Open, does what is missing. If publishing
// fails while the process lives, Commit, Published and [Zone.Close] return an
// [*UnpublishedError]: the deed is done and stays done, but must have no effect
// yet; and until publishing works again the zone takes no further deeds.
//
// Across processes, transactions begin immediate, read the size of the ledger
// inside, and publishing happens under lock/publish and only ever forward.
//
// # The zone's own keys
//
// [Zone.RenewKey] makes the key that is to follow the ledger's or the station's; [Zone.SetRoot] goes on with it when a root names it. What makes that true is the
// commit with the entry "key-changed" and the settings key/CONTEXT; the renaming of the files behind it is done again by the next opening. Every
// transaction asks the catalog which keys the zone has, so a process that had them in memory before goes on with the new ones. A checkpoint
// by a former key is believed as far as that key went ([Zone.OpenCheckpoint]).
//
// # Time
//
// An entry of the station carries the time of the machine's clock, or that of the newest such entry if the
// clock is behind it: time never goes back in a ledger. If the clock is more than [ClockSlack]
// behind, the entry says what it showed (member `clock`). A clock that is more than [ClockLeap] ahead of
// the newest time that the zone has heard of is refused (clock-ahead): were
// it wrong and believed, time would stand still until it is reached. What the zone hears of is its entries, and the dates of
// documents and cosignatures that it takes in.
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
