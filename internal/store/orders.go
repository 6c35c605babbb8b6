package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// maxRecalledSubjects bounds the subjects of one "recalled" entry: the entry, in base64, stays below 64 KiB.
const maxRecalledSubjects = 100

// OrdersNote returns the newest orders' note that the zone has, unverified; nil if there is none. Whoever acts on it opens it with the root, and
// keeps a floor.
func (z *Zone) OrdersNote(ctx context.Context) ([]byte, error) {
	return ordersNote(ctx, z.catalog.readers)
}

func ordersNote(ctx context.Context, q Querier) ([]byte, error) {
	var note []byte
	err := q.QueryRowContext(ctx, "SELECT note FROM orders ORDER BY version DESC LIMIT 1").Scan(&note)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("catalog: %w", err)
	}
	return note, nil
}

// Orders opens the newest orders by the root in force; nil if there are none yet. Orders that the root's officers no longer stand for are refused: then
// nothing may be done that a recall could forbid.
func (z *Zone) Orders(ctx context.Context, root *trust.Root) (*trust.Orders, error) {
	note, err := z.OrdersNote(ctx)
	if err != nil || note == nil {
		return nil, err
	}
	o, _, err := trust.OpenOrders(note, root)
	return o, err
}

// LastOrders parses the newest orders, whether or not they are in force: the next ones follow them. nil if there are none yet.
func (z *Zone) LastOrders(ctx context.Context) (*trust.Orders, error) {
	return lastOrders(ctx, z.catalog.readers)
}

func lastOrders(ctx context.Context, q Querier) (*trust.Orders, error) {
	note, err := ordersNote(ctx, q)
	if err != nil || note == nil {
		return nil, err
	}
	text, _, err := trust.SplitNote("orders", note, trust.MaxOrdersSize)
	if err != nil {
		return nil, err
	}
	return trust.ParseOrders(text)
}

// SetOrders takes officers' orders into force, by the root in force. Entered in the ledger are each signature, what was recalled, and that they are in
// force; they are published as public/orders/N. A zone that was put back from a backup goes on with the orders that say so. Those that are in force already are taken again in silence if they are the same.
func (z *Zone) SetOrders(ctx context.Context, msg []byte) (*trust.Orders, error) {
	var o *trust.Orders
	same := errors.New("already in force")
	after := func() error { return nil }
	err := z.ceremony(ctx, func(tx *Tx) error {
		root, err := z.readRoot(ctx, z.catalog.writer, nil)
		if err != nil {
			return err
		}
		var persons []string
		if o, persons, err = trust.OpenOrders(msg, root); err != nil {
			return err
		}
		last, err := lastOrders(ctx, z.catalog.writer)
		if err != nil {
			return err
		}
		if last != nil && last.Digest() == o.Digest() {
			note, err := ordersNote(ctx, z.catalog.writer)
			if err != nil {
				return err
			}
			if _, _, err := trust.OpenOrders(note, root); err == nil {
				return same
			}
		}
		if err := o.CheckSuccessor(last); err != nil {
			return err
		}
		tx.heard(o.Date)
		if err := tx.Exec(ctx, "INSERT INTO orders (version, digest, note) VALUES (?, ?, ?)", o.Version, o.Digest().String(), msg); err != nil {
			return err
		}
		if err := tx.Publish(fmt.Sprintf("orders/%d", o.Version), msg); err != nil {
			return err
		}
		subjects := []statement.Subject{{Name: fmt.Sprintf("orders/%d", o.Version), SHA256: o.Digest()}}
		if err := tx.undersigned("orders", o.Version, subjects, o.Text(), msg, root.Signers(trust.ContextOrder, o.Date)); err != nil {
			return err
		}
		list := make([]any, len(persons))
		for i, p := range persons {
			list[i] = p
		}
		if err := tx.Statement(statement.KindOrdered, subjects, map[string]any{"version": o.Version, "persons": list}); err != nil {
			return err
		}
		if err := tx.recalled(last, o); err != nil {
			return err
		}
		after, err = tx.endRestore(o)
		return err
	})
	if err != nil && !errors.Is(err, same) {
		return nil, err
	}
	return o, after()
}

// undersigned enters each signature under a document by a known key.
func (tx *Tx) undersigned(document string, version int64, subjects []statement.Subject, text, msg []byte, known []trust.VKey) error {
	_, lines, err := trust.SplitNote(document, msg, len(text))
	if err != nil {
		return err
	}
	for _, line := range lines {
		k, err := trust.VerifyLine(document, text, line, known)
		if err != nil {
			continue // it does not count: the note's own opening has judged it
		}
		if err := tx.Statement(statement.KindUndersigned, subjects, map[string]any{"document": document, "version": version, "person": k.Person, "signature": line}); err != nil {
			return err
		}
	}
	return nil
}

// recalled enters what these orders recall and the last ones did not.
func (tx *Tx) recalled(last, o *trust.Orders) error {
	var subjects []statement.Subject
	for _, r := range o.Recalls {
		if last != nil && slices.ContainsFunc(last.Recalls, func(old trust.Recall) bool { return old.SHA256 == r.SHA256 && old.Name == r.Name }) {
			continue
		}
		subjects = append(subjects, statement.Subject{Name: r.Name, SHA256: r.SHA256})
	}
	// A statement names each subject once, by its name.
	slices.SortFunc(subjects, func(a, b statement.Subject) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	for len(subjects) > 0 {
		n := 1
		for n < min(len(subjects), maxRecalledSubjects) && subjects[n].Name != subjects[n-1].Name {
			n++
		}
		if err := tx.Statement(statement.KindRecalled, subjects[:n], map[string]any{"version": o.Version}); err != nil {
			return err
		}
		subjects = subjects[n:]
	}
	return nil
}
