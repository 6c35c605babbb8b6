package channels

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/account"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

var world = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

const url = "https://git.example.org/guix.git"

// An outside has a channel that grows. Every seventh state has something that Guix passes over.
type outside struct {
	*Pinner
	t    *testing.T
	dir  string
	ends []git.ID
	h    channeltest.History
	now  time.Time
}

func newOutside(t *testing.T) *outside {
	t.Helper()
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	o := &outside{t: t, dir: filepath.Join(t.TempDir(), "channel.git"), now: enclavetest.Epoch}
	o.ends, o.h = channeltest.Growing(w, 16)
	o.h.Refs["refs/heads/master"] = o.ends[2]
	if err := o.h.Write(o.dir); err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return o.now }
	o.Pinner = &Pinner{Zone: enclavetest.Outside(t, clock), Clock: clock, Rand: rand.Reader}
	return o
}

// first asks for the first pin, next for another.
func (o *outside) first(commit git.ID) Request {
	return Request{Channel: "guix", Repository: o.dir, Commit: commit.String(), URL: url, Introduction: o.h.Introduction, Signer: o.h.Signer}
}

func (o *outside) next(commit git.ID) Request {
	return Request{Channel: "guix", Repository: o.dir, Commit: commit.String()}
}

func (o *outside) must(req Request) *Outcome {
	o.t.Helper()
	out, err := o.Pin(o.t.Context(), req)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// kinds counts the entries of the ledger.
func (o *outside) kinds() map[string]int {
	o.t.Helper()
	return enclavetest.Kinds(o.t, o.Zone)
}

// refused wants a refusal that is an entry, and that nothing else has changed.
func (o *outside) refused(req Request, codes ...string) error {
	o.t.Helper()
	kinds, pins := o.kinds(), o.pins()
	_, err := o.Pin(o.t.Context(), req)
	suite.Want(o.t, err, codes...)
	kinds[statement.KindRefused]++
	if k := o.kinds(); fmt.Sprint(k) != fmt.Sprint(kinds) || o.pins() != pins {
		o.t.Errorf("entries %v, want %v; pins %s, were %s", k, kinds, o.pins(), pins)
	}
	return err
}

func (o *outside) pins() string {
	o.t.Helper()
	all, err := account.Pins(o.t.Context(), o.Zone, "")
	if err != nil {
		o.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "%d %s\n", e.Number, e.Text())
	}
	return b.String()
}

// TestPin: the first pin, forward from it, the same again.
func TestPin(t *testing.T) {
	o := newOutside(t)
	req := o.first(o.ends[1])
	req.Commit = "" // the branch, which is at state 2
	out := o.must(req)
	r, err := authenticate.Open(o.dir, authenticate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	nar := sha256.New()
	if err := r.Nar(t.Context(), o.ends[2], nar); err != nil {
		t.Fatal(err)
	}
	want := &pin.Pin{Channel: "guix", URL: url, Branch: "master", Introduction: o.h.Introduction, Signer: o.h.Signer, Keyring: o.h.Refs["refs/heads/keyring"], Commit: o.ends[2],
		NarHash: trust.Digest(nar.Sum(nil)), NarSize: out.NarSize}
	if *out.Pin != *want || out.Number != 1 || out.Again || out.Back || !out.From.IsZero() {
		t.Errorf("%+v %+v", out, out.Pin)
	}
	if out = o.must(o.next(o.ends[2])); !out.Again || out.Number != 1 {
		t.Errorf("%+v", out)
	}
	if out = o.must(o.next(o.ends[5])); out.Again || out.Number != 2 || out.From != o.ends[2] || out.Report.Judged >= out.Report.Commits {
		t.Errorf("%+v: %d of %d judged", out, out.Report.Judged, out.Report.Commits)
	}
	if out = o.must(req2(o, o.ends[5])); !out.Again {
		t.Error("again, with all that the first pin had")
	}
	if k := o.kinds(); k[statement.KindPinned] != 2 || k[statement.KindRefused] != 0 {
		t.Error(k)
	}
	if err := o.Zone.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if notes, err := os.ReadDir(filepath.Join(o.Zone.Dir, "pending")); err == nil && len(notes) > 0 {
		t.Errorf("%v", notes)
	}
	// The proofs lie in the zone, and are of no use to others.
	if st, err := os.Stat(filepath.Join(o.Zone.Dir, "keys", "authenticate.key")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
}

func req2(o *outside, commit git.ID) Request {
	req := o.first(commit)
	req.Branch = "master"
	return req
}

// TestRefused: what is wrong with a request.
func TestRefused(t *testing.T) {
	o := newOutside(t)
	o.refused(Request{Channel: "guix", Repository: o.dir}, "pin-first", "pin-first")
	req := o.first(o.ends[2])
	req.URL = "git://x"
	o.refused(req, "pin-first")
	req = o.first(o.ends[2])
	req.Branch = "keyring"
	o.refused(req, "pin-first")
	req = o.first(o.ends[2])
	req.Signer = openpgp.Fingerprint{1}
	o.refused(req, "introduction-signer")
	req = o.first(o.ends[2])
	req.Introduction = o.ends[4] // moved: it is signed by another, and the commit is behind it
	o.refused(req, "introduction-signer")
	req.Introduction = o.ends[3] // moved to another that the same key signed
	o.refused(req, channel.FindingNotIntroduced)
	req = o.first(o.ends[2])
	req.Commit = "nothing"
	o.refused(req, "end-missing")
	req.Commit, req.Branch = "", "none"
	o.refused(req, "end-missing")
	req = o.first(git.ID{1})
	o.refused(req, "end-missing")
	req = o.first(o.ends[2])
	req.Keyring = "none"
	o.refused(req, "keyring-missing")
	if _, err := o.Pin(t.Context(), Request{Channel: "gu/ix"}); err == nil {
		t.Error("a name that is a path")
	}
	req = o.first(o.ends[2])
	req.Repository = t.TempDir()
	o.refused(req, "repository-none")

	o.must(o.first(o.ends[2]))
	req = o.next(o.ends[3])
	req.URL, req.Branch, req.Introduction = "https://evil.example.org/guix.git", "evil", o.ends[1]
	o.refused(req, "pin-url", "pin-branch", "pin-introduction")
	req = o.next(o.ends[3])
	req.Signer = openpgp.Fingerprint{1}
	o.refused(req, "pin-introduction")
	o.refused(o.next(o.ends[1]), "pin-not-forward")
	o.refused(o.next(o.h.Introduction), "pin-not-forward")
}

// TestBeforeIntroduction: of such a commit nothing is proven, and Guix says that all is well.
func TestBeforeIntroduction(t *testing.T) {
	o := newOutside(t)
	i := slices.IndexFunc(channeltest.Cases(), func(c channeltest.Case) bool { return c.Name == "end-is-ancestor" })
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	o.h = channeltest.Cases()[i].Build(w)
	o.dir = filepath.Join(t.TempDir(), "r.git")
	if err := o.h.Write(o.dir); err != nil {
		t.Fatal(err)
	}
	o.refused(o.first(o.h.End), channel.FindingNotIntroduced)
}

// TestFindings: what Guix passes over refuses in what is newer than the first pin, until somebody answers for it, by name and for a time.
func TestFindings(t *testing.T) {
	o := newOutside(t)
	o.must(o.first(o.ends[4]))
	o.refused(o.next(o.ends[8]), channel.FindingHeaders)
	good := Excuse{authenticate.Excuse{Name: "odd-2026", Code: channel.FindingHeaders, Reason: "it is a history for tests", By: "carol", Expires: o.now.Add(30 * 24 * time.Hour)}, "guix"}
	for _, c := range []struct {
		change func(e *Excuse)
		codes  []string
	}{
		{func(e *Excuse) { e.Code = "nonsense" }, []string{"excuse-code"}},
		{func(e *Excuse) { e.Code = channel.FindingNotIntroduced }, []string{"excuse-code"}},
		{func(e *Excuse) { e.Channel = "nonguix" }, []string{"excuse-channel"}},
		{func(e *Excuse) { e.Channel = "" }, []string{"excuse-channel"}},
		{func(e *Excuse) { e.Expires = o.now }, []string{"excuse-until"}},
		{func(e *Excuse) { e.Expires = o.now.Add(367 * 24 * time.Hour) }, []string{"excuse-until"}},
		{func(e *Excuse) { e.By = "" }, []string{"excuse-person"}},
		{func(e *Excuse) { e.Name, e.Reason = "a b", " " }, []string{"excuse-form", "excuse-form"}},
	} {
		bad := good
		c.change(&bad)
		suite.Want(t, o.Excuse(t.Context(), bad), c.codes...)
	}
	if err := o.Excuse(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	out := o.must(o.next(o.ends[8]))
	if got := out.Excused(); !slices.Equal(got, []string{"odd-2026"}) {
		t.Errorf("%v", got)
	}
	// It is over.
	o.now = o.now.Add(31 * 24 * time.Hour)
	o.refused(o.next(o.ends[10]), channel.FindingHeaders)
	other := good
	other.Name, other.Commit, other.Expires = "one", o.ends[6], o.now.Add(time.Hour)
	if err := o.Excuse(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	o.must(o.next(o.ends[10]))
	o.refused(o.next(o.ends[13]), channel.FindingHeaders) // another commit
	other.Name, other.Commit = "two", o.ends[13]
	other.Key = openpgp.Fingerprint{1}
	if err := o.Excuse(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	o.refused(o.next(o.ends[13]), channel.FindingHeaders) // another key
	list, err := account.Excuses(t.Context(), o.Zone, "guix")
	if err != nil || len(list) != 3 || list[1].Commit != o.ends[6] || list[2].Key != other.Key || list[0].By != "carol" {
		t.Errorf("%+v %v", list, err)
	}
	if k := o.kinds(); k[statement.KindExcused] != 3 {
		t.Error(k)
	}
	// With a root, who answers for it is a collector.
	o.Root = enclavetest.New(t).Root
	other.Name, other.By = "three", "alice"
	suite.Want(t, o.Excuse(t.Context(), other), "excuse-person")
}

// TestDowngrade: back goes a channel by orders alone.
func TestDowngrade(t *testing.T) {
	o := newOutside(t)
	e := enclavetest.New(t)
	o.must(o.first(o.ends[3]))
	o.must(o.next(o.ends[5]))
	orders := func(change func(o *trust.Orders)) []byte {
		t.Helper()
		e.Order(change)
		note, err := e.Zone.OrdersNote(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return note
	}
	allow := func(channel string, commit git.ID) []byte {
		return orders(func(o *trust.Orders) {
			o.Downgrades = append(o.Downgrades, trust.Downgrade{Channel: channel, Commit: commit.String(), Date: o.Date, Reason: "the newer one does not build"})
		})
	}
	req := o.next(o.ends[4])
	req.Orders = allow("guix", o.ends[2])
	o.refused(req, "pin-not-forward", "pin-orders") // there is no root to check them by
	o.Root = e.Root
	o.refused(req, "pin-not-forward") // another commit is allowed
	req.Orders = allow("nonguix", o.ends[4])
	o.refused(req, "pin-not-forward") // another channel
	good := allow("guix", o.ends[4])
	req.Orders = []byte(strings.Replace(string(good), o.ends[4].String(), o.ends[1].String(), 1))
	if _, err := o.Pin(t.Context(), req); err == nil {
		t.Error("orders that were changed")
	}
	req.Orders = good
	out := o.must(req)
	if !out.Back || out.From != o.ends[5] || out.Number != 3 || out.Commit != o.ends[4] {
		t.Errorf("%+v", out)
	}
	// Behind the first pin, where nothing is new.
	req = o.next(o.ends[2])
	req.Orders = good
	if out = o.must(req); !out.Back || out.Number != 4 {
		t.Errorf("%+v", out)
	}
	// And forward again: to what was there before, with what is found in it held against the first pin.
	if out = o.must(o.next(o.ends[5])); out.Back || out.Number != 5 {
		t.Errorf("%+v", out)
	}
}

// TestTwo: channels do not touch one another.
func TestTwo(t *testing.T) {
	o := newOutside(t)
	o.must(o.first(o.ends[3]))
	req := o.first(o.ends[1])
	req.Channel, req.URL = "nonguix", "file:///srv/nonguix"
	o.must(req)
	all, err := account.Pins(t.Context(), o.Zone, "")
	if err != nil || len(all) != 2 || all[0].Channel != "guix" || all[1].Channel != "nonguix" || all[1].Number != 1 {
		t.Errorf("%v %v", all, err)
	}
}
