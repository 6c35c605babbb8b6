package ceremony

import (
	"strings"
	"time"

	"sallyport/internal/trust"
)

// OrderChanges says what orders change against those before; old is nil for the first. Dangerous is what lets something in that reviewers, builders or
// channels' histories would keep out, and a break-glass order that is still open.
func OrderChanges(old, next *trust.Orders, now time.Time) []Change {
	if old == nil {
		old = &trust.Orders{}
	}
	w := &words{}
	_, recalls := diff(old.Recalls, next.Recalls)
	for _, r := range recalls {
		w.say(false, "recalled for ever: %s, sha256 %s: %s", r.Name, r.SHA256, r.Reason)
	}
	_, lost := diff(old.Lost, next.Lost)
	for _, l := range lost {
		w.say(false, "shipment %d is lost: %s", l.Shipment, l.Reason)
	}
	closed, glass := diff(old.BreakGlass, next.BreakGlass)
	for _, b := range glass {
		state := "until " + trust.FormatDate(b.Until)
		if !now.Before(b.Until) {
			state = "over since " + trust.FormatDate(b.Until)
		}
		w.say(true, "break-glass: track %s has %s %s without its reviewers, %s, sha256 %s: %s", b.Track, b.Item.Kind, b.Item.Name, state, b.Item.SHA256, b.Reason)
	}
	for _, b := range closed {
		w.say(false, "break-glass on track %s for %s is closed", b.Track, b.Item.Name)
	}
	unsettled, settled := diff(old.Settled, next.Settled)
	for _, s := range settled {
		w.say(true, "what %s says of %s is set aside: %s", s.KeyID, s.Derivation, s.Reason)
	}
	for _, s := range unsettled {
		w.say(false, "what %s says of %s counts again", s.KeyID, s.Derivation)
	}
	closedChannels, channels := diff(old.Channels, next.Channels)
	for _, c := range channels {
		w.say(true, "channel %s is taken from %s, branch %s, introduced by commit %s, signed by %s: %s", c.Name, c.URL, c.Branch, c.Commit, spaced(c.Signer), c.Reason)
	}
	for _, c := range closedChannels {
		w.say(false, "channel %s from %s, branch %s, introduced by commit %s, signed by %s, is not taken any more", c.Name, c.URL, c.Branch, c.Commit, spaced(c.Signer))
	}
	expired, excuses := diff(old.Excuses, next.Excuses)
	for _, e := range excuses {
		of, state := "", "until "+trust.FormatDate(e.Until)
		if e.Commit != "" {
			of += ", of commit " + e.Commit
		}
		if e.Key != "" {
			of += ", of key " + spaced(e.Key)
		}
		if !now.Before(e.Until) {
			state = "over since " + trust.FormatDate(e.Until)
		}
		w.say(true, "excuse %s: findings %s about channel %s pass%s, %s: %s", e.Name, e.Code, e.Channel, of, state, e.Reason)
	}
	for _, e := range expired {
		w.say(false, "excuse %s for findings %s about channel %s is gone", e.Name, e.Code, e.Channel)
	}
	ended, downgrades := diff(old.Downgrades, next.Downgrades)
	for _, d := range downgrades {
		w.say(true, "channel %s may go back to commit %s: %s", d.Channel, d.Commit, d.Reason)
	}
	for _, d := range ended {
		w.say(false, "channel %s may not go back to commit %s any more", d.Channel, d.Commit)
	}
	_, restored := diff(old.Restored, next.Restored)
	for _, r := range restored {
		w.say(true, "the ledger goes on from a backup of size %d, tree %x: what was entered behind it is given up: %s", r.Size, r.Tree, r.Reason)
	}
	return sorted(w.list)
}

// spaced prints a fingerprint as gpg and Guix do, so that it can be compared with one on paper.
func spaced(fingerprint string) string {
	var b strings.Builder
	for i := 0; i < len(fingerprint); i += 4 {
		switch i {
		case 0:
		case len(fingerprint) / 2:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
		b.WriteString(fingerprint[i:min(i+4, len(fingerprint))])
	}
	return b.String()
}
