// Package account reads where the channels of an outside zone stand: which pins it has made, and which of them it has sent. What writes the pins is outside/channels, what
// makes items of them outside/collect; they meet here.
package account

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
)

// An Entry is a pin of the zone. Its basis is none: what an item of it stands on is another question.
type Entry struct {
	*pin.Pin
	Number int64 // among those of the channel
	Date   time.Time
}

// Pins returns the pins of a channel, the oldest first; of all channels, by name, if channel is "".
func Pins(ctx context.Context, z *store.Zone, channel string) ([]*Entry, error) {
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT number, text, added FROM pin WHERE ?1 = '' OR channel = ?1 ORDER BY channel, number`, channel)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*Entry
	for rows.Next() {
		var text []byte
		var added string
		e := new(Entry)
		if err := rows.Scan(&e.Number, &text, &added); err != nil {
			return nil, err
		}
		if e.Pin, err = pin.Parse(text); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		if e.Date, err = trust.ParseDate(added); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		all = append(all, e)
	}
	return all, rows.Err()
}

// Shipped returns the commits of a channel that were sent, each with the last shipment that had it.
func Shipped(ctx context.Context, z *store.Zone, channel string) (map[git.ID]int64, error) {
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT substr(s.name, -40), max(s.number) FROM shipment_item s JOIN collected c ON c.sha256 = s.sha256 AND c.name = s.name
		WHERE c.kind = ? AND substr(s.name, 34, length(s.name) - 73) = ? GROUP BY 1`, trust.KindChannel, channel+"-channel-")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := make(map[git.ID]int64)
	for rows.Next() {
		var commit string
		var number int64
		if err := rows.Scan(&commit, &number); err != nil {
			return nil, err
		}
		id, err := git.ParseID(commit)
		if err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		all[id] = number
	}
	return all, rows.Err()
}

// A Made is an item that was made of a pin.
type Made struct {
	Item     trust.Item
	Shipment int64 // the last that has it; 0 if it was not sent yet
	Pin      *pin.Pin
}

// Items returns the items that were made of a channel, those that were sent last behind the others and those not sent yet before them. An item whose content is not in the
// store any more is left out: nothing can stand on what is not known.
func Items(ctx context.Context, z *store.Zone, channel string) ([]Made, error) {
	// HASH-NAME-channel-COMMIT: 33 characters before the name, 40 behind it.
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT sha256, size, name, coalesce((SELECT max(number) FROM shipment_item s WHERE s.sha256 = c.sha256 AND s.name = c.name), 0) AS sent
		FROM collected c WHERE kind = ? AND substr(name, 34, length(name) - 73) = ? ORDER BY sent, added, name`, trust.KindChannel, channel+"-channel-")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Made
	for rows.Next() {
		var digest string
		m := Made{Item: trust.Item{Kind: trust.KindChannel}}
		if err := rows.Scan(&digest, &m.Item.Size, &m.Item.Name, &m.Shipment); err != nil {
			return nil, err
		}
		if m.Item.SHA256, err = trust.ParseDigest(digest); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
		all = append(all, m)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := 0; i < len(all); {
		m := &all[i]
		switch m.Pin, err = pinOf(z, m.Item); {
		case errors.Is(err, cas.ErrNotFound):
			all = slices.Delete(all, i, i+1)
		case err != nil:
			return nil, fmt.Errorf("item %s: %w", m.Item.Name, err)
		default:
			i++
		}
	}
	return all, nil
}

// pinOf reads the pin at the end of an item. The cas checks what is read to the end.
func pinOf(z *store.Zone, it trust.Item) (*pin.Pin, error) {
	r, err := z.CAS.Open(it.SHA256)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p, _, err := pin.Open(r, io.Discard)
	return p, err
}

// Sent returns what was sent last of a channel; nil if nothing was. Of several in one shipment it is that of the newest pin.
func Sent(all []Made, pins []*Entry) *Made {
	place := func(commit git.ID) int {
		for i := len(pins) - 1; i >= 0; i-- {
			if pins[i].Commit == commit {
				return i
			}
		}
		return -1
	}
	var last *Made
	for i := range all {
		m := &all[i]
		if m.Shipment > 0 && (last == nil || m.Shipment > last.Shipment || m.Shipment == last.Shipment && place(m.Pin.Commit) > place(last.Pin.Commit)) {
			last = m
		}
	}
	return last
}

// Same reports whether an item's pin is that of the zone, but for what it stands on.
func Same(item, zone *pin.Pin) bool {
	p := *item
	p.Basis = git.ID{}
	return bytes.Equal(p.Text(), zone.Text())
}

// Cache opens the zone's cache of proofs.
func Cache(z *store.Zone, random io.Reader) (*authenticate.Cache, error) {
	return authenticate.OpenCache(filepath.Join(z.Dir, "channels", "proofs"), filepath.Join(z.Dir, "keys", "authenticate.key"), random)
}

// Excuses returns those of a channel, also those that are over.
func Excuses(ctx context.Context, z *store.Zone, channel string) ([]authenticate.Excuse, error) {
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT name, code, about, key, until, person, reason FROM excuse WHERE channel = ? ORDER BY name`, channel)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []authenticate.Excuse
	for rows.Next() {
		var e authenticate.Excuse
		var about, key, until string
		if err := rows.Scan(&e.Name, &e.Code, &about, &key, &until, &e.By, &e.Reason); err != nil {
			return nil, err
		}
		if about != "-" {
			if e.Commit, err = git.ParseID(about); err != nil {
				return nil, fmt.Errorf("catalog: excuse %s: %w", e.Name, err)
			}
		}
		if key != "-" {
			print, err := scheme.ParseFingerprint(key)
			if err != nil {
				return nil, fmt.Errorf("catalog: excuse %s: %w", e.Name, err)
			}
			e.Key = openpgp.Fingerprint(print)
		}
		if e.Expires, err = trust.ParseDate(until); err != nil {
			return nil, fmt.Errorf("catalog: excuse %s: %w", e.Name, err)
		}
		all = append(all, e)
	}
	return all, rows.Err()
}
