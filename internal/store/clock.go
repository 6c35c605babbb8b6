package store

import (
	"fmt"
	"time"

	"sallyport/internal/trust"
)

// What is said of the machine's clock.
const (
	// ClockSlack is how far a clock may be set back in silence: what synchronising clocks do.
	ClockSlack = 2 * time.Minute
	// ClockLeap is how far a clock may be ahead of the newest time that the zone has heard of. Were it wrong and believed, time
	// would stand still in the ledger until it is reached.
	ClockLeap = 366 * 24 * time.Hour
)

// newest times stand in the catalog as dates, and as nothing while there is none.
func formatNewest(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return trust.FormatDate(t)
}

func parseNewest(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := trust.ParseDate(s)
	if err != nil {
		return t, fmt.Errorf("time of the newest entry: %w", err)
	}
	return t, nil
}

// setTime takes the clock's time for the deed, or that of the newest entry if the clock is behind it: the time of the
// station's entries never goes back.
func (tx *Tx) setTime(clock time.Time) {
	clock = clock.UTC().Truncate(time.Second)
	tx.now, tx.clock = clock, time.Time{}
	if newest := tx.growth.newest; clock.Before(newest) {
		tx.now = newest
		if newest.Sub(clock) > ClockSlack {
			tx.clock = clock // and it is said what the clock showed
		}
	}
}

// checkClock refuses a clock that is further ahead than can be believed.
func (tx *Tx) checkClock() error {
	if newest := tx.growth.newest; !newest.IsZero() && tx.now.Sub(newest) > ClockLeap {
		return trust.Refuse("clock-ahead", tx.z.Origin(), "this machine's clock says %s, the newest time that the ledger knows is %s", trust.FormatDate(tx.now), trust.FormatDate(newest)).
			WithHint("set the clock. If it is right, and nothing happened here for so long, a document or a cosignature of these days says so: have a witness cosign the ledger and take that in first")
	}
	return nil
}

// heard says that others, whose signatures were verified, know a time: the date of a document, of a cosignature. A clock that is not
// far ahead of it is believed.
func (tx *Tx) heard(t time.Time) {
	if t = t.UTC().Truncate(time.Second); t.After(tx.growth.newest) && !t.After(tx.now) {
		tx.growth.newest = t
	}
}
