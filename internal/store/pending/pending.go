// Package pending keeps account of blobs that are on their way in, so that a stage that is killed leaves none for ever.
//
// A blob is durable before the row that refers to it: whoever dies in between leaves one that nobody looks for. So a stage notes the digests of what it
// is about to store, then stores, then commits its rows, and then strikes the note:
//
//	in, err := pending.Begin(ctx, zone, "import", digests)
//	... zone.CAS.Put, zone.Commit ...
//	left := in.End(ctx, err) // err of what was done in between: nil, and the note is struck; else what no row refers to is removed
//
// The note is the file ZONE/pending/STAGE: a title, then one digest a line. It is durable before the first blob is stored. If a run is killed, the next
// run's Begin, or [Settle], removes what the note lists and no row refers to. A crash after the rows and before End costs nothing: all is referred to.
//
// # Races
//
// A blob is removed only under the zone's lock "blobs", and only if no other stage has noted it. A note is made under that lock, too. So a stage that finds a
// blob there already, after it made its note, keeps it. One stage has one note: its own lock (import, quorum, review) must be held from Begin to the end.
package pending

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sallyport/internal/store"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

const (
	dirName = "pending"
	lock    = "blobs"
	title   = "sallyport pending blobs v1"
	// maxNote bounds a note: the items of a shipment, and some.
	maxNote = (trust.MaxItems + 1000) * (2*32 + 1)
)

// An Intake is a note of blobs on their way in.
type Intake struct {
	z     *store.Zone
	stage string
}

// Begin settles what a dead run of the stage left behind, and notes the digests of what is about to be stored.
func Begin(ctx context.Context, z *store.Zone, stage string, digests []trust.Digest) (*Intake, error) {
	unlock, err := z.LockContext(ctx, lock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := settle(ctx, z, stage); err != nil {
		return nil, err
	}
	in := &Intake{z, stage}
	if err := in.write(digests); err != nil {
		return nil, err
	}
	return in, nil
}

// More notes anew, where not all digests are known at the beginning: those of before and more.
func (in *Intake) More(digests []trust.Digest) error {
	unlock, err := in.z.Lock(lock)
	if err != nil {
		return err
	}
	defer unlock()
	return in.write(digests)
}

func (in *Intake) write(digests []trust.Digest) error {
	var b bytes.Buffer
	b.WriteString(title + "\n")
	for _, d := range digests {
		b.WriteString(d.String() + "\n")
	}
	if b.Len() > maxNote {
		return fmt.Errorf("%s: %d blobs at once are too many", in.stage, len(digests))
	}
	file := durable.File{Path: notePath(in.z, in.stage), Data: b.Bytes(), Perm: 0o644}
	return durable.WriteAll(durable.OS{}, filepath.Join(in.z.Dir, "tmp"), file)
}

// End ends the intake after what was done, with this error or none: it strikes the note if the rows are committed, else it removes what was noted and no row
// refers to. Its error says what could not be cleaned up. A nil Intake has nothing to end.
func (in *Intake) End(ctx context.Context, done error) error {
	var late *store.UnpublishedError
	switch {
	case in == nil:
		return nil
	case done == nil || errors.As(done, &late): // committed, in the second case, too: only the telling failed
		return strike(in.z, in.stage)
	}
	return Settle(ctx, in.z, in.stage)
}

// Settle removes what a run of the stage noted and no row refers to. Where there is no note it does nothing.
func Settle(ctx context.Context, z *store.Zone, stage string) error {
	unlock, err := z.Lock(lock)
	if err != nil {
		return err
	}
	defer unlock()
	// A stage that was told to stop still cleans up behind itself.
	return settle(context.WithoutCancel(ctx), z, stage)
}

func notePath(z *store.Zone, stage string) string { return filepath.Join(z.Dir, dirName, stage) }

func strike(z *store.Zone, stage string) error {
	path := notePath(z, stage)
	if err := os.Remove(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return durable.SyncDir(durable.OS{}, filepath.Dir(path))
}

// read returns the digests of a note; none if there is no note.
func read(path string) ([]trust.Digest, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	lines := strings.Split(string(data), "\n")
	if len(data) > maxNote || lines[0] != title || lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("%s is damaged: it lists blobs that may be left over; remove it by hand to keep them", path)
	}
	var list []trust.Digest
	for _, l := range lines[1 : len(lines)-1] {
		d, err := trust.ParseDigest(l)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, d)
	}
	return list, nil
}

func settle(ctx context.Context, z *store.Zone, stage string) error {
	list, err := read(notePath(z, stage))
	if err != nil {
		return err
	}
	left := map[trust.Digest]bool{}
	for _, d := range list {
		if _, ok := z.CAS.Has(d); ok {
			left[d] = true
		}
	}
	if len(left) > 0 {
		if err := others(z, stage, left); err != nil {
			return err
		}
		if err := referred(ctx, z, left); err != nil {
			return err
		}
	}
	for d := range left {
		if err := z.CAS.Remove(d); err != nil {
			return err
		}
	}
	return strike(z, stage)
}

// others takes out of left what other stages have noted: it is theirs to settle.
func others(z *store.Zone, stage string, left map[trust.Digest]bool) error {
	notes, err := os.ReadDir(filepath.Join(z.Dir, dirName))
	if err != nil {
		return err
	}
	for _, n := range notes {
		if n.Name() == stage {
			continue
		}
		list, err := read(filepath.Join(z.Dir, dirName, n.Name()))
		if err != nil {
			return err
		}
		for _, d := range list {
			delete(left, d)
		}
	}
	return nil
}

// references are all the places in which a row names a blob, but for builders' statements.
const references = `SELECT sha256 FROM item UNION ALL SELECT manifest FROM shipment UNION ALL SELECT note FROM allowlist UNION ALL SELECT text FROM proposal
	UNION ALL SELECT blob FROM narinfo UNION ALL SELECT blob FROM public WHERE blob IS NOT NULL UNION ALL SELECT sha256 FROM collected UNION ALL SELECT sha256 FROM attachment`

// referred takes out of left what a row refers to.
func referred(ctx context.Context, z *store.Zone, left map[trust.Digest]bool) error {
	return Named(ctx, z.Read(ctx), func(d trust.Digest) { delete(left, d) })
}

// Named visits every blob that a row of a catalog names, some of them several times.
func Named(ctx context.Context, q store.Querier, visit func(d trust.Digest)) error {
	rows, err := q.QueryContext(ctx, references)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return err
		}
		// A row with something else in it names no blob.
		if d, err := trust.ParseDigest(text); err == nil {
			visit(d)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	built, err := q.QueryContext(ctx, `SELECT envelope FROM built`)
	if err != nil {
		return err
	}
	defer built.Close()
	for built.Next() {
		var envelope []byte
		if err := built.Scan(&envelope); err != nil {
			return err
		}
		if e, err := statement.ParseEnvelope(envelope); err == nil {
			for _, s := range e.Unverified().Subjects {
				visit(s.SHA256)
			}
		}
	}
	return built.Err()
}
