package gate

import (
	"context"
	"fmt"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// A SeriesLine is what became of one number.
type SeriesLine struct {
	Type     string `json:"type"` // shipment
	Number   int64  `json:"shipment"`
	State    string `json:"state"` // quarantined, admitted, rejected, lost or missing
	Made     string `json:"made,omitempty"`
	Importer string `json:"importer,omitempty"`
	Imported string `json:"imported,omitempty"`
	Reason   string `json:"reason,omitempty"` // of a lost one
}

// maxMissing bounds how many missing numbers are listed: one forged number must not fill a screen.
const maxMissing = 1000

// Series lists the numbers of shipments, and what is alarming in the row of them. Codes: shipment-missing (a later one came, or one names it, and nobody has
// declared it lost), shipment-silence (the root's policy), manifest-recent (a later manifest gives another date for it).
func Series(ctx context.Context, z *store.Zone, root *trust.Root, now time.Time) ([]SeriesLine, trust.Refusals, error) {
	orders, err := z.Orders(ctx, root)
	if err != nil {
		return nil, nil, err
	}
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT number, manifest, state, importer, date FROM shipment WHERE number > 0 ORDER BY number`)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var came []SeriesLine
	var manifests []string
	for rows.Next() {
		s := SeriesLine{Type: "shipment"}
		var manifest string
		if err := rows.Scan(&s.Number, &manifest, &s.State, &s.Importer, &s.Imported); err != nil {
			return nil, nil, err
		}
		came, manifests = append(came, s), append(manifests, manifest)
	}
	if err := rows.Err(); err != nil {
		return nil, nil, err
	}
	var alarms trust.Refusals
	dates := map[int64]time.Time{}
	var newest time.Time
	for i := range came {
		m, err := manifest(z, came[i].Number, manifests[i])
		if err != nil {
			return nil, nil, err
		}
		came[i].Made = trust.FormatDate(m.Date)
		dates[m.Number] = m.Date
		for _, r := range m.Recent {
			if had, ok := dates[r.Number]; ok && !had.Equal(r.Date) {
				alarms.Add(recentRefusal(m.Number, r, had))
			}
		}
		if t, err := trust.ParseDate(came[i].Imported); err == nil && t.After(newest) {
			newest = t
		}
	}
	list := []SeriesLine{}
	next, missing := int64(1), 0
	for _, s := range came {
		for ; next < s.Number && missing < maxMissing; next++ {
			line := SeriesLine{Type: "shipment", Number: next, State: "missing"}
			if lost, ok := orders.IsLost(next); ok {
				line.State, line.Reason = "lost", lost.Reason
			} else {
				missing++
				alarms.Add(trust.Refuse("shipment-missing", fmt.Sprintf("shipment %d", next), "it has not arrived, a later one has").
					WithHint("import it, or have officers declare it lost: 'order lost'"))
			}
			list = append(list, line)
		}
		next = s.Number + 1
		list = append(list, s)
	}
	if days, ok := root.Silence(); ok {
		if newest.IsZero() {
			newest = root.Date
		}
		if silent := now.Sub(newest); silent > time.Duration(days)*24*time.Hour {
			alarms.Add(trust.Refuse("shipment-silence", "series", "nothing came since %s, %d days ago; the policy is %d days", trust.FormatDate(newest), int(silent/(24*time.Hour)), days).
				WithHint("ask the outside by another way whether something was sent: a shipment may be kept back"))
		}
	}
	return list, alarms, nil
}

func recentRefusal(by int64, r shipment.Recent, had time.Time) *trust.Refusal {
	return trust.Refuse("manifest-recent", fmt.Sprintf("shipment %d", by), "it says that shipment %d is of %s; the one that came is of %s", r.Number, trust.FormatDate(r.Date), trust.FormatDate(had)).
		WithHint("two shipments of one number may have been made: compare the slips with the outside")
}

// manifest reads the manifest of a shipment that came. Its signature was checked when it did; a collector may have left since.
func manifest(z *store.Zone, number int64, digest string) (*shipment.Manifest, error) {
	d, err := trust.ParseDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("manifest of shipment %d: %w", number, err)
	}
	file, err := z.CAS.ReadAll(d, shipment.MaxManifest)
	if err != nil {
		return nil, fmt.Errorf("manifest of shipment %d: %w", number, err)
	}
	body, _, err := trust.SplitNote("manifest", file, shipment.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := shipment.ParseManifest(body)
	if err != nil {
		return nil, err
	}
	if m.Number != number {
		return nil, trust.Refuse("catalog-forged", fmt.Sprintf("shipment %d", number), "the catalog names the manifest of shipment %d", m.Number)
	}
	return m, nil
}
