// Package signer holds a track's Guix key for as long as one command runs, and signs what clients of the depot will believe: one narinfo for each item
// that is allowed.
//
// Before it signs anything it reads the whole ledger under its signed checkpoint ([admit.Record]), opens root and allowlist itself, and raises a floor of its own.
// Where the root asks for it, witnesses must have cosigned the ledger with the list's approval in it (`not-cosigned`). What is recalled is not signed.
// Each narinfo's hash, size and references are those of the content: a source's nar and a derivation's file are named by the allowlist, an output by
// the builders that agree on it. A narinfo is signed once; another content under a signed name is an alarm.
//
// Everything is judged before anything is signed: one item that cannot be vouched for, and nothing is, with the list of all that is wrong. The narinfos and the
// entry "signed" that lists them are one transaction.
package signer

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/store/attach"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// maxEntry bounds the subjects of one "signed" entry, in bytes as they stand in its payload: the entry, in base64, must stay below 64 KiB.
const maxEntry = 44_000

// subjectSize is what a subject takes beside its name.
const subjectSize = len(`{"name":"","digest":{"sha256":""}},`) + 2*len(trust.Digest{})

// A Signer signs for one track.
type Signer struct {
	Zone  *store.Zone
	Root  *trust.Root
	Track string
	Key   signature.SecretKey
	Host  string // what stands in the signatures' host field; clients ignore it
}

// A Result says what was signed.
type Result struct {
	Track   string   `json:"track"`
	Version int64    `json:"version"` // of the allowlist
	Signed  []string `json:"signed"`  // base names, newly signed
	Before  int      `json:"signed_before"`
}

// Sign signs every allowed item of the track that has no narinfo yet. A refusal is a ledger entry.
func (s *Signer) Sign(ctx context.Context) (*Result, error) {
	unlock, err := s.Zone.LockContext(ctx, "signer-"+s.Track)
	if err != nil {
		return nil, err
	}
	defer unlock()
	r, err := s.sign(ctx)
	if err != nil {
		return nil, s.Zone.Refused(ctx, "signer", statement.Subject{Name: "track " + s.Track, SHA256: s.Root.Digest()}, err)
	}
	return r, nil
}

func (s *Signer) sign(ctx context.Context) (*Result, error) {
	q := s.Key.Public().Q()
	if want, ok := s.Root.TrackKey(s.Track); !ok || want != hex.EncodeToString(q[:]) {
		return nil, trust.Refuse("track-key", "track "+s.Track, "the root in force (version %d) does not give this key to the track", s.Root.Version)
	}
	var record admit.Record
	if _, err := record.Read(ctx, s.Zone, s.Root); err != nil {
		return nil, err
	}
	view, err := record.View(ctx, s.Zone, s.Root, s.Track)
	if err != nil {
		return nil, err
	}
	if err := record.Cosigned(ctx, s.Zone, view); err != nil {
		return nil, err
	}
	if err := admit.Raise(filepath.Join(s.Zone.Dir, "floor", "signer-"+s.Track+".json"), view); err != nil {
		return nil, err
	}
	r := &Result{Track: s.Track, Version: view.List.Version, Signed: []string{}}
	var todo []signed
	var rs trust.Refusals
	for _, name := range view.Names() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n, err := s.one(ctx, view, name)
		if err := rs.Merge(err); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		switch {
		case err != nil:
		case n == nil:
			r.Before++
		default:
			todo = append(todo, *n)
		}
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	for len(todo) > 0 {
		n, size := 0, 0
		for n < len(todo) && size <= maxEntry-subjectSize-storepath.HashLen-1-storepath.MaxNameLen {
			size += subjectSize + len(todo[n].item.Path.Base())
			n++
		}
		if err := s.commit(ctx, todo[:n]); err != nil {
			return nil, err
		}
		for _, t := range todo[:n] {
			r.Signed = append(r.Signed, t.item.Path.Base())
		}
		todo = todo[n:]
	}
	return r, nil
}

type signed struct {
	item admit.Item
	body []byte
}

// one makes the narinfo of an item; nil if there is one already.
func (s *Signer) one(ctx context.Context, view *admit.View, name string) (*signed, error) {
	it, err := view.Item(name)
	if err != nil {
		return nil, err
	}
	var body []byte
	err = s.Zone.Read(ctx).QueryRowContext(ctx, `SELECT body FROM narinfo WHERE track = ? AND hash = ?`, s.Track, it.Path.Hash()).Scan(&body)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if err == nil {
		// A row that this key did not sign was not made here: it is replaced.
		if had, err := narinfo.Verify(body, signature.NewACL(s.Key.Public())); err == nil {
			if err := it.Described(had); err != nil {
				return nil, trust.Refuse("signed-otherwise", name, "ALARM: this track has signed something else under this name: %v", err)
			}
			return nil, nil
		}
	}
	if size, ok := s.Zone.CAS.Has(it.Content); !ok || size != it.Size {
		return nil, trust.Refuse("item-lost", name, "its content %s is not in the store", it.Content)
	}
	info := &narinfo.NarInfo{StorePath: it.Path, NarHash: it.NarHash, NarSize: it.NarSize, References: it.References, Deriver: it.Deriver,
		Files: []narinfo.File{{URL: "nar/" + narinfo.EscapeItem(it.Path.Base()), Compression: "none", FileSize: it.NarSize}}}
	if body, err = narinfo.Sign(info, s.Host, s.Key); err != nil {
		return nil, err
	}
	return &signed{it, body}, nil
}

func (s *Signer) commit(ctx context.Context, list []signed) error {
	var subjects []statement.Subject
	for _, n := range list {
		subjects = append(subjects, statement.Subject{Name: n.item.Path.Base(), SHA256: trust.Sum(n.body)})
	}
	// The narinfos themselves are too much for an entry, and nobody else could make them again: it has their digest.
	rows := make([]attach.Narinfo, len(list))
	for i, n := range list {
		rows[i] = attach.Narinfo{Path: n.item.Path, Content: n.item.Content, Form: "nar", Body: n.body}
		if n.item.Flat() {
			rows[i].Form = "flat"
		}
	}
	slices.SortFunc(rows, func(a, b attach.Narinfo) int { return a.Path.Compare(b.Path) })
	text, err := attach.Narinfos(rows)
	if err != nil {
		return err
	}
	bodies := trust.Sum(text)
	in, err := pending.Begin(ctx, s.Zone, "signer-"+s.Track, []trust.Digest{bodies})
	if err != nil {
		return err
	}
	if _, err = s.Zone.CAS.PutBytes(text); err == nil {
		err = s.enter(ctx, subjects, bodies, list)
	}
	return errors.Join(err, in.End(ctx, err))
}

// enter is the write that makes it true.
func (s *Signer) enter(ctx context.Context, subjects []statement.Subject, bodies trust.Digest, list []signed) error {
	return s.Zone.Commit(ctx, func(tx *store.Tx) error {
		if err := tx.Statement(statement.KindSigned, subjects, map[string]any{"track": s.Track, "narinfos": bodies.String()}); err != nil {
			return err
		}
		if err := tx.Attach(ctx, bodies); err != nil {
			return err
		}
		for _, n := range list {
			form := "nar"
			if n.item.Flat() {
				form = "flat"
			}
			if err := tx.Exec(ctx, `INSERT OR REPLACE INTO narinfo (track, hash, path, body, nar, blob, form) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				s.Track, n.item.Path.Hash(), n.item.Path.String(), n.body, n.item.NarHash.String(), n.item.Content.String(), form); err != nil {
				return err
			}
		}
		return nil
	})
}
