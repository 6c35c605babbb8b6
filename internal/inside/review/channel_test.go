package review

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
)

// approve has alice and bob approve a shipment.
func approveBoth(t *testing.T, e *enclavetest.Enclave, number int64, track string) error {
	t.Helper()
	d := desk(e)
	for _, who := range []string{"alice/allowlist", "bob/allowlist"} {
		if _, err := d.Approve(t.Context(), number, track, enclavetest.Key(t, who), Selection{}); err != nil {
			return err
		}
	}
	return nil
}

func TestChannelApproval(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
	one := e.Quarantine("eve", c.At(c.Ends[3], git.ID{}))
	// Without an order nothing of a channel is allowed, whatever lies in quarantine.
	suite.Want(t, approveBoth(t, e, one, "dev"), "channel-unknown")
	e.Ordered(c)
	if err := approveBoth(t, e, one, "dev"); err != nil {
		t.Fatal(err)
	}
	two := e.Quarantine("eve", c.At(c.Ends[6], c.Ends[3]))
	three := e.Quarantine("eve", c.At(c.Ends[9], c.Ends[6]))
	// Its bundle stands on what the track does not have.
	suite.Want(t, approveBoth(t, e, three, "dev"), "channel-basis")
	if err := errors.Join(approveBoth(t, e, two, "dev"), approveBoth(t, e, three, "dev")); err != nil {
		t.Fatal(err)
	}
	// Back is not forward; beside neither.
	back := e.Quarantine("eve", c.At(c.Ends[4], git.ID{}))
	suite.Want(t, approveBoth(t, e, back, "dev"), "channel-not-forward")
	side := c.Add(map[string]string{"side": "side"}, c.Ends[8])
	beside := e.Quarantine("eve", c.At(side, git.ID{}))
	suite.Want(t, approveBoth(t, e, beside, "dev"), "channel-not-forward")
	// Each track is judged by itself: for prod it is the first.
	if err := approveBoth(t, e, back, "prod"); err != nil {
		t.Fatal(err)
	}
	e.Order(func(o *trust.Orders) {
		o.Downgrades = append(o.Downgrades, trust.Downgrade{Channel: "guix", Commit: c.Ends[4].String(), Date: o.Date, Reason: "x"})
	})
	if err := approveBoth(t, e, back, "dev"); err != nil {
		t.Fatal(err)
	}
	// The track stands where it went back to: what descends from there is forward again.
	if err := approveBoth(t, e, beside, "dev"); err != nil {
		t.Fatal(err)
	}
	// The introduction that is in force counts, not the one of then.
	next := e.Quarantine("eve", c.At(c.Ends[10], git.ID{}))
	e.Order(func(o *trust.Orders) {
		o.Channels[0].URL, o.Channels[0].Branch, o.Channels[0].Commit = "https://elsewhere.example/guix.git", "main", strings.Repeat("ab", 20)
	})
	suite.Want(t, approveBoth(t, e, next, "dev"), "channel-url", "channel-branch", "channel-introduction", "channel-not-forward")
}

func TestChannelPromotion(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
	e.Ordered(c)
	first, second, third := c.At(c.Ends[3], git.ID{}), c.At(c.Ends[6], c.Ends[3]), c.At(c.Ends[9], c.Ends[6])
	for _, item := range []enclavetest.Content{first, second, third} {
		if err := approveBoth(t, e, e.Quarantine("eve", item), "dev"); err != nil {
			t.Fatal(err)
		}
	}
	d := desk(e)
	promote := func(names ...string) error {
		for _, who := range []string{"alice/allowlist", "bob/allowlist"} {
			if _, err := d.Promote(t.Context(), "dev", "prod", names, enclavetest.Key(t, who)); err != nil {
				return err
			}
		}
		return nil
	}
	suite.Want(t, promote(second.Name), "channel-basis")
	suite.Want(t, promote(first.Name, third.Name), "channel-basis")
	if err := promote(); err != nil { // all of them at once, each behind the one before
		t.Fatal(err)
	}
	// A pin that is recalled is none: the track stands at the one before, and what stands on the recalled one cannot come.
	fourth := c.At(c.Ends[10], c.Ends[9])
	number := e.Quarantine("eve", fourth)
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: third.SHA256, Name: third.Name, Date: o.Date, Reason: "x"})
	})
	suite.Want(t, approveBoth(t, e, number, "dev"), "channel-basis")
	whole := e.Quarantine("eve", c.At(c.Ends[8], git.ID{})) // before the recalled one, behind the second
	if err := approveBoth(t, e, whole, "dev"); err != nil {
		t.Fatal(err)
	}
}

func TestChannelShow(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 6)
	e.Ordered(c)
	one := e.Quarantine("eve", c.At(c.Ends[4], git.ID{}), e.Source("a", "a\n"))
	d := desk(e)
	do, err := d.Show(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	if len(do.Channels) != 1 || do.Channels[0].Authentic == 0 || len(do.Channels[0].Changes) != 1 || !do.Channels[0].Changes[0].First || len(do.Channels[0].Refused) != 0 {
		t.Fatalf("%+v", do.Channels)
	}
	if err := approveBoth(t, e, one, "dev"); err != nil {
		t.Fatal(err)
	}
	next := c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.C), "gnu/packages/x.scm": "(define-public x 1)\n"})...), Parents: []git.ID{c.Ends[4]}, Signer: c.A, At: 1700000000})
	next = c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.C)})...), Parents: []git.ID{next}, Signer: c.C, At: 1700000001})
	two := e.Quarantine("eve", c.At(next, c.Ends[4]))
	if err := os.RemoveAll(filepath.Join(e.Zone.Dir, "channels")); err != nil {
		t.Fatal(err)
	}
	if do, err = d.Show(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	p := do.Channels[0]
	if p.Commit != next.String() || p.Basis != c.Ends[4].String() || len(p.Changes) != 1 || p.Changes[0].From != c.Ends[4].String() || !slices.Equal(p.Changes[0].Tracks, []string{"dev"}) {
		t.Fatalf("%+v", p)
	}
	text := string(p.Changes[0].Diff.Text())
	for _, want := range []string{"AUTHORIZATIONS CHANGED", "NEW SIGNER", "2 commits"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	// A commit by one whom nobody let sign: reviewers see it, though no gate would have let it in.
	bad := c.Commit(channeltest.Spec{Same: "bad", Parents: []git.ID{c.Ends[4]}, Signer: c.C, At: 1700000002})
	if do, err = d.Show(t.Context(), e.Quarantine("eve", c.At(bad, git.ID{}))); err != nil {
		t.Fatal(err)
	}
	if p := do.Channels[0]; p.Authentic != 0 || len(p.Refused) != 1 || !strings.Contains(p.Refused[0], "key-unauthorized") {
		t.Errorf("%+v", p)
	}
	if left, err := filepath.Glob(filepath.Join(e.Zone.Dir, "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
