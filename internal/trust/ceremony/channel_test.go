package ceremony_test

import (
	"strings"
	"testing"
	"time"

	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

// TestChannelChanges: whoever signs reads which channel is taken, and what is excused, as it stands on paper.
func TestChannelChanges(t *testing.T) {
	channel := trust.Channel{Name: "guix", URL: "https://git.example/guix.git", Branch: "master", Commit: strings.Repeat("9e", 20), Signer: "BBB02DDF2CEAF6A80D1DE643A2A06DF2A33A54FA", Date: date, Reason: "read from the manual"}
	moved := channel
	moved.URL = "https://elsewhere.example/guix.git"
	excuse := trust.Excuse{Name: "late", Code: "signed-after-expiry", Channel: "guix", Until: date.Add(time.Hour), Date: date, Reason: "asked by telephone"}
	narrow := excuse
	narrow.Commit, narrow.Key = strings.Repeat("0c", 20), channel.Signer
	for _, c := range []struct {
		name      string
		old, next trust.Orders
		now       time.Time
		says      []string
		danger    bool
	}{
		{"taken", trust.Orders{}, trust.Orders{Channels: []trust.Channel{channel}}, date,
			[]string{"channel guix is taken from https://git.example/guix.git, branch master, introduced by commit " + channel.Commit + ", signed by BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA: read from the manual"}, true},
		{"moved", trust.Orders{Channels: []trust.Channel{channel}}, trust.Orders{Channels: []trust.Channel{moved}}, date, []string{"is taken from https://elsewhere.example", "from https://git.example/guix.git, branch master", "is not taken any more"}, true},
		{"given up", trust.Orders{Channels: []trust.Channel{channel}}, trust.Orders{}, date, []string{"is not taken any more"}, false},
		{"excused", trust.Orders{}, trust.Orders{Excuses: []trust.Excuse{excuse}}, date, []string{"excuse late: findings signed-after-expiry about channel guix pass, until 2026-03-01T10:00:00Z: asked by telephone"}, true},
		{"narrow", trust.Orders{}, trust.Orders{Excuses: []trust.Excuse{narrow}}, date, []string{"of commit " + narrow.Commit + ", of key BBB0 2DDF"}, true},
		{"over", trust.Orders{}, trust.Orders{Excuses: []trust.Excuse{excuse}}, date.Add(time.Hour), []string{"over since 2026-03-01T10:00:00Z"}, true},
		{"gone", trust.Orders{Excuses: []trust.Excuse{excuse}}, trust.Orders{}, date, []string{"excuse late for findings signed-after-expiry about channel guix is gone"}, false},
		{"the same", trust.Orders{Channels: []trust.Channel{channel}, Excuses: []trust.Excuse{excuse}}, trust.Orders{Channels: []trust.Channel{channel}, Excuses: []trust.Excuse{excuse}}, date, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text strings.Builder
			danger := false
			for _, x := range ceremony.OrderChanges(&c.old, &c.next, c.now) {
				text.WriteString(x.Text + "\n")
				danger = danger || x.Danger
			}
			for _, want := range c.says {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no %q in\n%s", want, text.String())
				}
			}
			if danger != c.danger || len(c.says) == 0 && text.Len() > 0 {
				t.Errorf("danger %v\n%s", danger, text.String())
			}
		})
	}
}
