package history_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func repositories(e *enclavetest.Enclave) *history.Repositories {
	return &history.Repositories{Zone: e.Zone, Git: history.FindGit}
}

// list is the list in force of dev.
func list(t *testing.T, e *enclavetest.Enclave) *trust.Allowlist {
	t.Helper()
	note, err := e.Zone.Allowlist(t.Context(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := trust.SplitNote("allowlist", note, trust.MaxListSize)
	if err != nil {
		t.Fatal(err)
	}
	a, err := trust.ParseAllowlist(text)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func of(t *testing.T, e *enclavetest.Enclave) *history.History {
	t.Helper()
	orders, err := e.Zone.LastOrders(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h, err := history.Of(t.Context(), e.Zone, list(t, e), orders, repositories(e))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHistory(t *testing.T) {
	t.Parallel()
	e, c, other := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12), enclavetest.NewChannel(t, "own-channel-x", 3)
	if h, err := history.Of(t.Context(), e.Zone, nil, nil, repositories(e)); err != nil || len(h.Channels()) != 0 {
		t.Errorf("%v %v", h, err)
	}
	newest := func(channel string, want git.ID) {
		t.Helper()
		if n, ok := of(t, e).Newest(channel); !ok || n.Commit != want {
			t.Errorf("%s stands at %v %s, want %s", channel, ok, n.Commit, want)
		}
	}
	items := map[int]enclavetest.Content{}
	allow := func(i, basis int) {
		t.Helper()
		var from git.ID
		if basis >= 0 {
			from = c.Ends[basis]
		}
		items[i] = c.At(c.Ends[i], from)
		e.Quarantine("eve", items[i])
		e.Allow("dev", items[i])
	}
	e.Allow("dev", e.Source("a", "a\n"))
	allow(2, -1)
	newest("guix", c.Ends[2])
	// Three at once, one of them of another channel.
	items[4], items[5] = c.At(c.Ends[4], c.Ends[2]), c.At(c.Ends[5], c.Ends[4])
	own := other.At(other.Ends[1], git.ID{})
	e.Quarantine("eve", items[4], items[5], own)
	e.Allow("dev", items[4], items[5], own)
	newest("guix", c.Ends[5])
	newest("own-channel-x", other.Ends[1])
	e.Allow("dev", e.Source("b", "b\n"))
	// Back, since officers said so: it came last.
	allow(3, -1)
	newest("guix", c.Ends[3])
	h := of(t, e)
	var versions []int64
	for _, x := range h.Entries("guix") {
		versions = append(versions, x.Version)
	}
	if !slices.Equal(versions, []int64{2, 3, 3, 5}) || !slices.Equal(h.Channels(), []string{"guix", "own-channel-x"}) || h.Track != "dev" {
		t.Errorf("%v %v", versions, h.Channels())
	}
	if first, ok := h.First("guix"); !ok || first.Commit != c.Ends[2] {
		t.Errorf("%+v", first)
	}
	if _, ok := h.First("none"); ok {
		t.Error("a channel that never came")
	}
	// What is recalled is passed over, and stays the first.
	e.Order(func(o *trust.Orders) {
		for _, i := range []int{2, 3} {
			o.Recalls = append(o.Recalls, trust.Recall{SHA256: items[i].SHA256, Name: items[i].Name, Date: o.Date, Reason: "x"})
		}
	})
	newest("guix", c.Ends[5])
	if first, ok := of(t, e).First("guix"); !ok || !first.Recalled {
		t.Errorf("%+v", first)
	}
	// A list of before says where the track stood then.
	name := filepath.Join(e.Zone.Dir, "public", "allowlist", "dev", "3")
	old, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody changes what was published.
	if err := os.WriteFile(name, append(slices.Clone(old[:len(old)/2]), old...), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err = history.Of(t.Context(), e.Zone, list(t, e), nil, repositories(e)); err == nil {
		t.Error("a list that nobody signed is believed")
	}
	two, err := os.ReadFile(filepath.Join(filepath.Dir(name), "2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, two, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = history.Of(t.Context(), e.Zone, list(t, e), nil, repositories(e))
	suite.Want(t, err, "allowlist-previous")
}

// A track all of whose pins were recalled has had them all the same: what is new since the first is known by it.
func TestHistoryOfWhatIsGone(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 5)
	first, next := c.At(c.Ends[1], git.ID{}), c.At(c.Ends[3], git.ID{})
	e.Quarantine("eve", first, next)
	e.Allow("dev", first)
	e.Order(func(o *trust.Orders) {
		o.Recalls = append(o.Recalls, trust.Recall{SHA256: first.SHA256, Name: first.Name, Date: o.Date, Reason: "x"})
	})
	gone := e.List("dev", e.Source("a", "a\n"))
	gone.Items = slices.DeleteFunc(gone.Items, func(it trust.Item) bool { return it.Name == first.Name })
	e.Enter(gone, true, "alice", "bob")
	e.Allow("dev", next)
	h := of(t, e)
	if x, ok := h.First("guix"); !ok || x.Commit != c.Ends[1] || !x.Recalled {
		t.Errorf("%+v", h.Entries("guix"))
	}
	if x, ok := h.Newest("guix"); !ok || x.Commit != c.Ends[3] {
		t.Errorf("%+v", h.Entries("guix"))
	}
}

// An item that cannot be unpacked takes what stands on it with it, and nothing else.
func TestRepositoriesBroken(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 9)
	p := c.Pin(c.Ends[6], git.ID{})
	broken := enclavetest.ChannelItem(t, p, bytes.Replace(c.Item(p).Data, []byte("PACK"), []byte("KCAP"), 1))
	e.Quarantine("eve", c.At(c.Ends[2], git.ID{}), broken, c.At(c.Ends[8], c.Ends[6]))
	e.Quarantine("eve", c.At(c.Ends[4], c.Ends[2]))
	repo, err := repositories(e).Open(t.Context(), "guix")
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	for i, id := range c.Ends {
		if _, err := repo.Database().NewReader().Read(id, git.KindCommit); (err == nil) != (i <= 4) {
			t.Errorf("commit %d: %v", i, err)
		}
	}
}

// Beside one another, the one for which a downgrade was ordered is the newer.
func TestSort(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 5)
	left, right := c.Add(map[string]string{"l": "l"}, c.Ends[4]), c.Add(map[string]string{"r": "r"}, c.Ends[4])
	var entries []history.Entry
	for _, id := range []git.ID{left, right, c.Ends[4]} {
		item := c.At(id, git.ID{})
		e.Quarantine("eve", item)
		entry, err := history.Named(item.Item)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, entry)
	}
	for _, back := range []git.ID{left, right} {
		orders := &trust.Orders{Downgrades: []trust.Downgrade{{Channel: "guix", Commit: back.String()}}}
		sorted, err := history.Sort(t.Context(), entries, orders, repositories(e))
		if err != nil {
			t.Fatal(err)
		}
		if sorted[0].Commit != c.Ends[4] || sorted[2].Commit != back {
			t.Errorf("%v", sorted)
		}
	}
}

func TestNamed(t *testing.T) {
	t.Parallel()
	hash := "0123456789abcdfghijklmnpqrsvwxyz"[:32]
	for _, name := range []string{"guix", "guix-channel-", "-channel-" + git.ID{1}.String(), "guix-channel-" + git.ID{1}.String()[1:], "g?-channel-" + git.ID{1}.String(), "guix-canal-" + git.ID{1}.String()} {
		_, err := history.Named(trust.Item{Name: hash + "-" + name})
		suite.Want(t, err, "item-path")
	}
	_, err := history.Named(trust.Item{Name: "x"})
	suite.Want(t, err, "item-path")
	if e, err := history.Named(trust.Item{Name: hash + "-a-channel-b-channel-" + git.ID{1}.String()}); err != nil || e.Channel != "a-channel-b" {
		t.Errorf("%+v %v", e, err)
	}
}

func TestRepositories(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 9)
	r := repositories(e)
	if _, err := r.Open(t.Context(), "guix"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing came: %v", err)
	}
	if _, err := r.Open(t.Context(), "../guix"); err == nil {
		t.Error("a name that leads elsewhere")
	}
	one, two, three := c.At(c.Ends[2], git.ID{}), c.At(c.Ends[4], c.Ends[2]), c.At(c.Ends[6], c.Ends[4])
	e.Quarantine("eve", three, one)
	e.Quarantine("eve", two)
	has := func(want ...git.ID) {
		t.Helper()
		repo, err := r.Open(t.Context(), "guix")
		if err != nil {
			t.Fatal(err)
		}
		defer repo.Close()
		for _, id := range c.Ends {
			_, err := repo.Database().NewReader().Read(id, git.KindCommit)
			if (err == nil) != slices.Contains(want, id) {
				t.Errorf("commit %s: %v", id, err)
			}
		}
	}
	all := c.Ends[:7]
	has(all...)
	// Nothing is unpacked twice.
	r.Git = func(context.Context) (*gitrun.Git, error) { return nil, errors.New("nothing has to be unpacked") }
	has(all...)
	r.Git = history.FindGit
	// A copy that is damaged, or gone, is made again.
	for _, damage := range []func(dir string) error{
		os.RemoveAll,
		func(dir string) error { return os.RemoveAll(filepath.Join(dir, "objects")) },
		func(dir string) error { return os.RemoveAll(filepath.Join(dir, "items")) },
		func(dir string) error { return os.WriteFile(filepath.Join(dir, "commondir"), nil, 0o644) },
		func(dir string) error {
			packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.idx"))
			return errors.Join(err, os.Remove(packs[0]))
		},
		func(dir string) error {
			packs, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "*.idx"))
			if err := errors.Join(err, os.Remove(packs[1])); err != nil {
				return err
			}
			return os.WriteFile(packs[1], []byte("nothing"), 0o644)
		},
	} {
		if err := damage(r.Dir("guix")); err != nil {
			t.Fatal(err)
		}
		has(all...)
	}
	// An item that is lost takes what stands on it with it, and nothing else.
	if err := errors.Join(os.RemoveAll(r.Dir("guix")), e.Zone.CAS.Remove(two.SHA256)); err != nil {
		t.Fatal(err)
	}
	has(c.Ends[:3]...)
	_, _, err := history.Read(e.Zone.CAS, two.Item, io.Discard)
	suite.Want(t, err, "item-lost")
	if ok, err := r.Descends(t.Context(), "guix", c.Ends[2], c.Ends[0]); err != nil || !ok {
		t.Errorf("%v %v", ok, err)
	}
	if ok, err := r.Descends(t.Context(), "guix", c.Ends[0], c.Ends[2]); err != nil || ok {
		t.Errorf("%v %v", ok, err)
	}
	if _, err := r.Descends(t.Context(), "guix", c.Ends[4], c.Ends[2]); err == nil {
		t.Error("a commit that is not there")
	}
}

func TestFits(t *testing.T) {
	t.Parallel()
	c := enclavetest.NewChannel(t, "guix", 2)
	p := c.Pin(c.Ends[1], git.ID{})
	suite.Want(t, history.Fits(p, nil).Err(), "channel-unknown")
	o := &trust.Orders{Channels: []trust.Channel{c.Order(enclavetest.Epoch)}}
	suite.Want(t, history.Fits(p, o).Err())
	o.Channels[0].URL, o.Channels[0].Branch, o.Channels[0].Signer = "x", "y", "z"
	suite.Want(t, history.Fits(p, o).Err(), "channel-url", "channel-branch", "channel-introduction")
	suite.Want(t, history.NotForward("guix", c.Ends[0], "dev", c.Ends[1]), "channel-not-forward")
}

func TestLacks(t *testing.T) {
	t.Parallel()
	c := enclavetest.NewChannel(t, "guix", 2)
	_, repo := c.Repository()
	p := c.Pin(c.Ends[1], git.ID{})
	suite.Want(t, history.Lacks(repo, p))
	p.Commit = git.ID{7}
	suite.Want(t, history.Lacks(repo, p), "channel-repository")
}
