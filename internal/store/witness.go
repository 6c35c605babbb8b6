package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// WitnessOptions are what a witness may be told beside the key of the log.
type WitnessOptions struct {
	Former   []trust.VKey          // keys that officers' roots gave the log before
	Progress func(done, all int64) // entries that were read of those that are new to the witness; may be nil
}

// Witness is [WitnessWith] without options.
func Witness(state string, public fs.FS, log trust.VKey, key trust.Signer, now time.Time) ([]byte, error) {
	return WitnessWith(context.Background(), state, public, log, key, now, WitnessOptions{})
}

// WitnessWith cosigns what a log shows now. state is the witness's own file: the
// note that it cosigned last, which is replaced durably before the new one is
// returned, so that a crash cannot make it forget what it has vouched for. A
// missing file means that it has seen nothing yet. public is the log's
// published directory (the one with `checkpoint` in it).
//
// The entries since then are read, a few bundles of them in memory at a time: all of them, the first time. A key that they say was given up is refused (key-replaced), on
// whatever paper it stands. If what was cosigned last is signed by another key than log, this must be one of opts.Former, or the entries must lead from it to log: else witness-log.
func WitnessWith(ctx context.Context, state string, public fs.FS, log trust.VKey, key trust.Signer, now time.Time, opts WitnessOptions) ([]byte, error) {
	// One run at a time: two could cosign two continuations of the same state.
	lock, err := os.OpenFile(state+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	defer lock.Close()
	if err := durable.Lock(lock, syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	var seen ledger.Checkpoint
	held, err := readBounded(state, ledger.MaxCheckpoint)
	switch {
	case err == nil:
		// By its own signature: the log may have got another key since.
		if seen, _, err = ledger.OpenWitnessed(held, log.Name, key.VKey()); err != nil {
			return nil, fmt.Errorf("witness: %s: %w", state, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("witness: %w", err)
	}
	msg, err := ledger.ReadCheckpoint(public)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	c, cosigned, err := ledger.Cosign(seen, msg, log, public, key, now)
	if err != nil {
		return nil, err
	}
	if bySome(held, opts.Former) {
		held = nil // officers' roots say how the log came by its key
	}
	// The last entry that was seen, too: by the former key alone this witness may have cosigned the tree that ends with the change.
	if err := followKey(ctx, ledger.NewLog(public, c), max(seen.Size-1, 0), held, log, opts.Progress); err != nil {
		return nil, err
	}
	if err := durable.WriteAll(durable.OS{}, filepath.Dir(state), durable.File{Path: state, Data: cosigned, Perm: 0o600}); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	return cosigned, nil
}

// bySome reports whether one of the keys has signed a checkpoint.
func bySome(note []byte, keys []trust.VKey) bool {
	return slices.ContainsFunc(keys, func(k trust.VKey) bool {
		_, err := ledger.OpenCheckpoint(note, k.Name, k)
		return err == nil
	})
}

// progressEntries is after how many entries progress is told.
const progressEntries = 1024

// followKey reads a log from an entry on for changes of its key. held is what was signed before, nil if nothing is to be followed from there.
func followKey(ctx context.Context, log *ledger.Log, from int64, held []byte, key trust.VKey, progress func(done, all int64)) error {
	c := log.Checkpoint()
	follow := held != nil && !bySome(held, []trust.VKey{key})
	var at string // the key that has been followed so far
	changes := KeyChanges(func(k KeyChange) error {
		if err := k.leftBy(c.Origin, key); err != nil {
			return err
		}
		v, err := trust.ParseVKey(k.From)
		if err == nil && (k.From == at || at == "" && bySome(held, []trust.VKey{v})) {
			at = k.To
		}
		return nil
	})
	err := log.Range(ctx, from, c.Size, func(i int64, leaf []byte, _ tlog.Hash) error {
		if done := i + 1 - from; progress != nil && (done%progressEntries == 0 || i+1 == c.Size) {
			progress(done, c.Size-from)
		}
		return changes(i, leaf)
	})
	if err == nil && follow && at != key.String() {
		err = trust.Refuse("witness-log", c.Origin, "what this witness cosigned last is signed by another key than %s, and no entry since leads from the one to the other", key.ID()).
			WithHint("give --root, the fingerprint of the first root, and --roots: they say whether officers have given the ledger this key")
	}
	return err
}

// maxAfterRestore is how far behind the end of a backup the entry "restored" is looked for: roots and orders alone stand between.
const maxAfterRestore = 1000

// WitnessRestored is Witness for a log that was put back from a backup and has lost entries that this witness has
// cosigned. zone is the published directory as a whole, pin the first root's fingerprint from paper. It is accepted if officers
// have ordered, since this witness cosigned last, that the log goes on from there, and the log has the
// entry "restored" that says so. From then on this is the log that the witness knows.
func WitnessRestored(state string, zone fs.FS, pin trust.Pinned, log trust.VKey, key *trust.Key, now time.Time) ([]byte, error) {
	files, err := fs.Sub(zone, ledgerDir)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	msg, err := ledger.ReadCheckpoint(files)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	c, err := ledger.OpenCheckpoint(msg, log.Name, log)
	if err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(state+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	defer lock.Close()
	if err := durable.Lock(lock, syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	held, err := readBounded(state, ledger.MaxCheckpoint)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	seen, at, err := ledger.OpenWitnessed(held, log.Name, key.VKey())
	if err != nil {
		return nil, fmt.Errorf("witness: %s: %w", state, err)
	}
	orders, err := publishedOrders(zone, pin)
	if err != nil {
		return nil, err
	}
	refuse := func(format string, args ...any) error {
		return trust.Refuse("witness-restored", log.Name, format, args...)
	}
	tiles := ledger.NewLog(files, c)
	for _, r := range orders.Restored {
		// An order that is older than the last cosignature was for an earlier restore: it must not open the log again.
		if r.Size >= seen.Size || r.Date.Before(at) {
			continue
		}
		if err := tiles.Contains(ledger.Checkpoint{Origin: log.Name, Size: r.Size, Root: r.Tree}); err != nil {
			return nil, err
		}
		if err := hasRestored(tiles, r); err != nil {
			return nil, err
		}
		_, cosigned, err := ledger.Cosign(ledger.Checkpoint{}, msg, log, files, key, now)
		if err != nil {
			return nil, err
		}
		// Of the keys since the end of the backup; those of what was given up do not count.
		if err := followKey(context.Background(), tiles, max(r.Size-1, 0), nil, log, nil); err != nil {
			return nil, err
		}
		if err := durable.WriteAll(durable.OS{}, filepath.Dir(state), durable.File{Path: state, Data: cosigned, Perm: 0o600}); err != nil {
			return nil, fmt.Errorf("witness: %w", err)
		}
		return cosigned, nil
	}
	return nil, refuse("no order since %s lets it go on from a backup that ends before entry %d", trust.FormatDate(at), seen.Size)
}

// hasRestored looks for the entry that a log was put back.
func hasRestored(log *ledger.Log, r trust.Restored) error {
	for i := r.Size; i < min(log.Checkpoint().Size, r.Size+maxAfterRestore); i++ {
		leaf, err := log.Leaf(i)
		if err != nil {
			return err
		}
		e, err := statement.ParseEnvelope(leaf)
		if err != nil || e.Kind() != statement.KindRestored {
			continue
		}
		if s := e.Unverified(); s.Predicate["size"] == r.Size && s.Subjects[0].SHA256 == trust.Digest(r.Tree) {
			return nil
		}
	}
	return trust.Refuse("witness-restored", log.Checkpoint().Origin, "it has no entry that it was put back from a backup that ends with size %d", r.Size)
}

// publishedOrders opens the newest orders of a published directory, by its roots.
func publishedOrders(zone fs.FS, pin trust.Pinned) (*trust.Orders, error) {
	newest := func(dir string, limit int64, visit func(note []byte)) error {
		for n := int64(1); ; n++ {
			f, err := zone.Open(fmt.Sprintf("%s/%d", dir, n))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			note, err := io.ReadAll(io.LimitReader(f, limit+1))
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			if int64(len(note)) > limit {
				return fmt.Errorf("%s/%d: more than %d bytes", dir, n, limit)
			}
			visit(note)
		}
	}
	var roots [][]byte
	var orders []byte
	if err := newest("root", MaxPublic, func(note []byte) { roots = append(roots, note) }); err != nil {
		return nil, err
	}
	if err := newest("orders", MaxPublic, func(note []byte) { orders = note }); err != nil {
		return nil, err
	}
	root, err := trust.OpenChain(roots, pin)
	if err != nil {
		return nil, err
	}
	if orders == nil {
		return &trust.Orders{}, nil
	}
	o, _, err := trust.OpenOrders(orders, root)
	return o, err
}

// AddCosigned takes in what a witness of the root has cosigned. It must be of
// this ledger, which must still contain it, and not older than what is held.
// It is published as public/witness/PERSON, and makes the entry "witnessed".
//
// A cosignature is worth an entry if it vouches for something: not if all that
// this witness had not cosigned before are such entries. Else the entry would
// make the ledger grow, which would be cosigned, and so on for ever.
func (z *Zone) AddCosigned(ctx context.Context, cosigned []byte) (person string, c ledger.Checkpoint, err error) {
	root, err := z.Root()
	if err != nil {
		return "", c, err
	}
	witness, err := findWitness(root, cosigned)
	if err != nil {
		return "", c, err
	}
	log, err := z.Log()
	if err != nil {
		return "", c, err
	}
	err = z.Commit(ctx, func(tx *Tx) error {
		var held []byte
		var was int64
		err := tx.QueryRow(ctx, "SELECT size, note FROM witness WHERE name = ?", witness.Person).Scan(&was, &held)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if held != nil {
			// A new key of the same person starts again; only what the log contains counts either way.
			if _, _, err := z.openCosigned(held, witness); err != nil {
				held = nil
			}
		}
		// What was cosigned, or is held, may be older than the ledger's key.
		_, by, err := z.openNote(cosigned)
		if err != nil {
			return err
		}
		heldBy := by
		if held != nil {
			if _, heldBy, err = z.openNote(held); err != nil {
				return err
			}
		}
		var note []byte
		if c, note, err = ledger.Merge(held, heldBy, cosigned, by, log, witness); err != nil {
			return err
		}
		if err := tx.Exec(ctx, "INSERT INTO witness (name, size, note) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET size = excluded.size, note = excluded.note",
			witness.Person, c.Size, note); err != nil {
			return err
		}
		return tx.witnessed(ctx, witness, was, c, note)
	})
	if err != nil {
		return "", c, err
	}
	// A crash here leaves the row without the file: Open writes what is missing.
	return witness.Person, c, z.publishWitnesses(ctx)
}

// witnessed enters that a witness, who had cosigned a size before, has cosigned c.
func (tx *Tx) witnessed(ctx context.Context, witness trust.VKey, was int64, c ledger.Checkpoint, note []byte) error {
	worth, err := tx.worthAnEntry(ctx, was, c.Size)
	if err != nil || !worth {
		return err
	}
	text, lines, err := trust.SplitNote("checkpoint", note, ledger.MaxCheckpoint)
	if err != nil {
		return err
	}
	_, at, err := tx.z.openCosigned(note, witness)
	if err != nil {
		return err
	}
	tx.heard(at)
	for _, line := range lines {
		if _, err := trust.VerifyLine("checkpoint", text, line, []trust.VKey{witness}); err != nil {
			continue // the log's own
		}
		return tx.Statement(statement.KindWitnessed, []statement.Subject{{Name: tx.z.Origin(), SHA256: trust.Digest(c.Root)}},
			map[string]any{"person": witness.Person, "size": c.Size, "signature": line})
	}
	return errors.New("cosigned checkpoint without the witness's line")
}

// worthAnEntry looks for an entry that is not itself about a cosignature.
func (tx *Tx) worthAnEntry(ctx context.Context, from, to int64) (bool, error) {
	rows, err := tx.Query(ctx, "SELECT leaf FROM entry WHERE idx >= ? AND idx < ? ORDER BY idx", from, to)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	for rows.Next() {
		var leaf sql.RawBytes
		if err := rows.Scan(&leaf); err != nil {
			return false, tx.fail(err)
		}
		if e, err := statement.ParseEnvelope(leaf); err != nil || e.Kind() != statement.KindWitnessed {
			return true, nil
		}
	}
	return false, tx.fail(rows.Err())
}

// findWitness finds whose cosignature a note carries.
func findWitness(root *trust.Root, cosigned []byte) (trust.VKey, error) {
	keys := root.WitnessKeys()
	if len(keys) == 0 {
		return trust.VKey{}, trust.Refuse("witness-unknown", "cosignature", "the root names no witness")
	}
	n, err := trust.OpenNote("cosignature", cosigned, ledger.MaxCheckpoint, keys)
	if err != nil {
		return trust.VKey{}, err
	}
	if len(n.Signers) != 1 {
		return trust.VKey{}, trust.Refuse("cosignature-note", "cosignature", "%d witnesses have signed it; bring each one's file", len(n.Signers))
	}
	return n.Signers[0], nil
}

// publishWitnesses makes public/witness what the catalog says.
func (z *Zone) publishWitnesses(ctx context.Context) error {
	unlock, err := z.lockPublish()
	if err != nil {
		return err
	}
	defer unlock()
	rows, err := z.catalog.readers.QueryContext(ctx, "SELECT name, note FROM witness")
	if err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	defer rows.Close()
	var files []durable.File
	for rows.Next() {
		var name string
		var note []byte
		if err := rows.Scan(&name, &note); err != nil {
			return fmt.Errorf("catalog: %w", err)
		}
		path, err := z.publicPath("witness/" + name)
		if err != nil {
			return err
		}
		if _, same, err := sameBytes(path, note); err != nil {
			return err
		} else if !same {
			files = append(files, durable.File{Path: path, Data: note, Perm: 0o644})
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	return z.writeFiles(files...)
}

// openCosigned opens what a witness has cosigned, by a key of the ledger that may have signed it.
func (z *Zone) openCosigned(note []byte, witness trust.VKey) (ledger.Checkpoint, time.Time, error) {
	_, by, err := z.openNote(note)
	if err != nil {
		return ledger.Checkpoint{}, time.Time{}, err
	}
	return ledger.OpenCosigned(note, z.Origin(), by, witness)
}

// Cosigned reads back what a witness has cosigned last: verified, and contained
// in the published ledger. A missing one is fs.ErrNotExist.
func (z *Zone) Cosigned(witness trust.VKey) (ledger.Checkpoint, time.Time, error) {
	b, err := z.ReadPublic("witness/" + witness.Person)
	if err != nil {
		return ledger.Checkpoint{}, time.Time{}, err
	}
	c, at, err := z.openCosigned(b, witness)
	if err != nil {
		return ledger.Checkpoint{}, time.Time{}, err
	}
	log, err := z.Log()
	if err != nil {
		return ledger.Checkpoint{}, time.Time{}, err
	}
	return c, at, log.Contains(c)
}
