package gate

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/nar"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

func TestChannelImport(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
	e.Ordered(c)
	g := newGate(t, e, "dave/statement")
	q, err := g.take(t, e.Volume(c.At(c.Ends[3], git.ID{}), e.Source("a", "a\n")))
	if err != nil {
		t.Fatal(err)
	}
	if q.Items != 2 || q.Files < 3 || !slices.ContainsFunc(q.Details, func(f Finding) bool {
		return f.Rule == "channel-authentic" && strings.Contains(f.Detail, "commits are authentic from the introduction "+c.History.Introduction.String())
	}) {
		t.Errorf("%+v %+v", q, q.Details)
	}
	repos := &history.Repositories{Zone: e.Zone, Git: noGit}
	r, err := repos.Open(t.Context(), "guix")
	if err != nil {
		t.Fatalf("what the gate has unpacked is unpacked again: %v", err)
	}
	defer r.Close()
	if err := r.Check(c.Ends[3], nil); err != nil {
		t.Error(err)
	}
	// What follows stands on it, several in one shipment, too.
	if _, err := g.take(t, e.Volume(c.At(c.Ends[6], c.Ends[3]), c.At(c.Ends[8], c.Ends[6]))); err != nil {
		t.Fatal(err)
	}
	// The repository is a copy: it is made again from what is in the store.
	if err := os.RemoveAll(filepath.Join(e.Zone.Dir, "channels")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.take(t, e.Volume(c.At(c.Ends[9], c.Ends[8]))); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(e.Zone.Dir, "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func noGit(context.Context) (*gitrun.Git, error) {
	return nil, errors.New("nothing has to be unpacked")
}

func TestChannelRefusals(t *testing.T) {
	t.Parallel()
	change := func(f func(p *pin.Pin)) func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
		return func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			f(p)
			return []enclavetest.Content{c.Item(p)}
		}
	}
	for _, tt := range []struct {
		name  string
		codes []string
		make  func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content
	}{
		{"not ordered", []string{"channel-unknown"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			return []enclavetest.Content{c.At(c.Ends[3], git.ID{})}
		}},
		{"another ordered", []string{"channel-unknown"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			p.Channel = "nonguix"
			return []enclavetest.Content{c.Item(p)}
		}},
		{"another URL", []string{"channel-url"}, change(func(p *pin.Pin) { p.URL = "https://evil.example/guix.git" })},
		{"another branch", []string{"channel-branch"}, change(func(p *pin.Pin) { p.Branch = "main" })},
		{"a later introduction", []string{"channel-introduction", "introduction-signer"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			p.Introduction = c.Ends[1] // not signed by the one who signed the introduction
			return []enclavetest.Content{c.Item(p)}
		}},
		{"another signer", []string{"channel-introduction", "introduction-signer"}, change(func(p *pin.Pin) { p.Signer[0] ^= 1 })},
		{"another hash", []string{"channel-nar"}, change(func(p *pin.Pin) { p.NarHash[0] ^= 1 })},
		{"a smaller nar", []string{"channel-nar", "nar-truncated"}, change(func(p *pin.Pin) { p.NarSize -= 8 })},
		{"a larger nar", []string{"channel-nar"}, change(func(p *pin.Pin) { p.NarSize += 8 })},
		{"all at once", []string{"channel-url", "channel-branch", "channel-nar"}, change(func(p *pin.Pin) { p.URL, p.Branch, p.NarHash[0] = "https://evil.example/", "main", p.NarHash[0]^1 })},
		{"a basis that is not here", []string{"channel-basis"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			return []enclavetest.Content{c.At(c.Ends[6], c.Ends[3])}
		}},
		{"a basis beside what is here", []string{"channel-basis"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			side := c.Add(map[string]string{"side": "side"}, c.Ends[1])
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(c.At(c.Ends[3], git.ID{}))); err != nil {
				t.Fatal(err)
			}
			return []enclavetest.Content{c.At(c.Add(map[string]string{"side": "two"}, side), side)}
		}},
		{"objects are missing", []string{"channel-pack"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			// The pack of what stands on another, in a bundle that says that it is complete.
			p := c.Pin(c.Ends[6], c.Ends[3])
			_, h, pack := opened(t, c.Item(p).Data)
			p.Basis, h.Basis, h.BasisKeyring = git.ID{}, git.ID{}, git.ID{}
			return []enclavetest.Content{repacked(t, p, h, pack)}
		}},
		{"a complete bundle that stands on what is here", []string{"channel-pack"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(c.At(c.Ends[3], git.ID{}))); err != nil {
				t.Fatal(err)
			}
			p := c.Pin(c.Ends[5], c.Ends[3])
			_, h, pack := opened(t, c.Item(p).Data)
			p.Basis, h.Basis, h.BasisKeyring = git.ID{}, git.ID{}, git.ID{}
			return []enclavetest.Content{repacked(t, p, h, pack)}
		}},
		{"a complete bundle that stands on what comes with it", []string{"channel-pack"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[5], c.Ends[3])
			_, h, pack := opened(t, c.Item(p).Data)
			p.Basis, h.Basis, h.BasisKeyring = git.ID{}, git.ID{}, git.ID{}
			return []enclavetest.Content{c.At(c.Ends[3], git.ID{}), repacked(t, p, h, pack)}
		}},
		{"a basis of the keyring that is not here", []string{"channel-basis"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(c.At(c.Ends[3], git.ID{}))); err != nil {
				t.Fatal(err)
			}
			p := c.Pin(c.Ends[5], c.Ends[3])
			_, h, pack := opened(t, c.Item(p).Data)
			h.BasisKeyring = git.ID{9}
			return []enclavetest.Content{repacked(t, p, h, pack)}
		}},
		{"a cut pack", []string{"channel-pack"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[6], git.ID{})
			_, h, pack := opened(t, c.Item(p).Data)
			return []enclavetest.Content{repacked(t, p, h, pack[:len(pack)-30])}
		}},
		{"a third file", []string{"channel-item"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			return []enclavetest.Content{enclavetest.ChannelItem(t, p, enclavetest.Nar("a file"))}
		}},
		{"another name", []string{"item-path"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			item := c.Item(p)
			other := *p
			other.Commit = c.Ends[4]
			return []enclavetest.Content{enclavetest.ChannelItem(t, &other, item.Data)}
		}},
		{"a path that is not its own", []string{"item-path"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			item := c.At(c.Ends[3], git.ID{})
			item.Name = map[bool]string{true: "1", false: "0"}[item.Name[0] == '0'] + item.Name[1:]
			return []enclavetest.Content{item}
		}},
		{"text that shows something else", []string{"inspection-block"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			return []enclavetest.Content{c.At(c.Add(map[string]string{"gnu/packages/login.scm": "(define-module (login)) ; \u202e check\n"}, c.Ends[3]), git.ID{})}
		}},
		{"attributes that change a checkout", []string{"channel-attributes"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			return []enclavetest.Content{c.At(c.Add(map[string]string{".gitattributes": "*.scm eol=crlf\n", "a.scm": "1\n"}, c.Ends[3]), git.ID{})}
		}},
		{"one that nobody let sign", []string{"key-unauthorized"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(c.At(c.Ends[3], git.ID{}))); err != nil {
				t.Fatal(err)
			}
			bad := c.Commit(channeltest.Spec{Same: "bad", Parents: []git.ID{c.Ends[3]}, Signer: c.C, At: 1700000000})
			return []enclavetest.Content{c.At(c.Add(map[string]string{"good": "again"}, bad), c.Ends[3])}
		}},
		{"a keyring without one who has signed", []string{"key-missing", "key-missing"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			p := c.Pin(c.Ends[3], git.ID{})
			p.Keyring = keyring(c, map[string]*channeltest.Key{"alice.key": c.A, "rose.key": c.R})
			return []enclavetest.Content{c.Item(p)}
		}},
		{"back behind a track", []string{"channel-not-forward"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			item := c.At(c.Ends[6], git.ID{})
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(item)); err != nil {
				t.Fatal(err)
			}
			e.Allow("dev", item)
			return []enclavetest.Content{c.At(c.Ends[3], git.ID{})}
		}},
		{"a new finding", []string{"malformed-headers"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel) []enclavetest.Content {
			e.Ordered(c)
			item := c.At(c.Ends[3], git.ID{})
			if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(item)); err != nil {
				t.Fatal(err)
			}
			e.Allow("prod", item)
			return []enclavetest.Content{c.At(c.Ends[6], c.Ends[3])} // state 6 is the odd one
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
			items := tt.make(t, e, c)
			refuse(t, e, e.Volume(items...), tt.codes...)
			if left, err := filepath.Glob(filepath.Join(e.Zone.Dir, "tmp", "*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func opened(t *testing.T, item []byte) (*pin.Pin, *pin.Header, []byte) {
	t.Helper()
	var pack bytes.Buffer
	p, h, err := pin.Open(bytes.NewReader(item), &pack)
	if err != nil {
		t.Fatal(err)
	}
	return p, h, pack.Bytes()
}

// repacked puts an item together.
func repacked(t *testing.T, p *pin.Pin, h *pin.Header, pack []byte) enclavetest.Content {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	bundle := slices.Concat(h.Text(), pack)
	err := w.WriteHeader(&nar.Header{Type: nar.Directory})
	for _, f := range []struct {
		name string
		data []byte
	}{{"bundle", bundle}, {"pin", p.Text()}} {
		err = errors.Join(err, w.WriteHeader(&nar.Header{Path: f.name, Type: nar.Regular, Size: int64(len(f.data))}))
		_, writeErr := w.Write(f.data)
		err = errors.Join(err, writeErr)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return enclavetest.ChannelItem(t, p, b.Bytes())
}

var long = flag.Bool("long", false, "let the gate judge every hostile history, not a dozen of them")

// Whatever history a lying outside sends, the gate refuses what authentication refuses.
func TestChannelHostileHistories(t *testing.T) {
	t.Parallel()
	short := []string{"unsigned", "sha1-with-list", "launder-second-parent", "intersection-first", "introduction-moved", "end-is-ancestor", "object-is-another", "merge-unrelated-root", "list-version-1", "key-missing"}
	for _, of := range channeltest.Cases() {
		if !*long && !slices.Contains(short, of.Name) {
			continue
		}
		t.Run(of.Name, func(t *testing.T) {
			t.Parallel()
			c := enclavetest.CaseChannel(t, "guix", of)
			if len(c.History.Historical) > 0 {
				return // the gate takes no historical keys
			}
			item, ok := c.TryItem(c.Pin(c.History.End, git.ID{}))
			if !ok {
				return // of such objects git makes no bundle
			}
			e := enclavetest.New(t)
			e.Ordered(c)
			_, err := newGate(t, e, "dave/statement").take(t, e.Volume(item))
			refused, isRefusal := trust.AsRefusals(err)
			if err != nil && !isRefusal {
				t.Fatal(err)
			}
			// Git may have refused an object before anybody judged the history. And a bundle has nothing that its end does not descend from.
			if refused.Has("channel-pack") || refused.Has("introduction-missing") {
				return
			}
			if len(of.Codes) == 0 && err != nil {
				t.Error(err)
			}
			for _, code := range of.Codes {
				if !refused.Has(code) {
					t.Errorf("%v; want %q", err, of.Codes)
				}
			}
		})
	}
}

// An end before the introduction: nothing is proven of it, and the introduction is there all the same, brought along behind the keyring.
func TestChannelBeforeIntroduction(t *testing.T) {
	t.Parallel()
	i := slices.IndexFunc(channeltest.Cases(), func(c channeltest.Case) bool { return c.Name == "end-is-ancestor" })
	c := enclavetest.CaseChannel(t, "guix", channeltest.Cases()[i])
	_, r := c.Repository()
	raw, err := r.Database().NewReader().Read(c.Keyring, git.KindCommit)
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := git.ParseCommit(raw)
	if err != nil {
		t.Fatal(err)
	}
	tree := keyring.Tree
	p := c.Pin(c.History.End, git.ID{})
	p.Keyring = c.Commit(channeltest.Spec{Tree: tree, Parents: []git.ID{c.History.Introduction}})
	item, ok := c.TryItem(p)
	if !ok {
		t.Fatal("no item")
	}
	e := enclavetest.New(t)
	e.Ordered(c)
	refuse(t, e, e.Volume(item), channel.FindingNotIntroduced)
	e.Order(func(o *trust.Orders) {
		o.Excuses = []trust.Excuse{{Name: "never", Code: channel.FindingNotIntroduced, Channel: "guix", Until: o.Date.Add(24 * time.Hour), Date: o.Date, Reason: "harmless"}}
	})
	refuse(t, e, e.Volume(item), channel.FindingNotIntroduced)
}

func TestChannelExcuse(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
	e.Ordered(c)
	first := c.At(c.Ends[3], git.ID{})
	g := newGate(t, e, "dave/statement")
	if _, err := g.take(t, e.Volume(first)); err != nil {
		t.Fatal(err)
	}
	e.Allow("dev", first)
	next := c.At(c.Ends[6], c.Ends[3])
	refuse(t, e, e.Volume(next), "malformed-headers")
	excuse := func(change func(x *trust.Excuse)) {
		e.Order(func(o *trust.Orders) {
			x := trust.Excuse{Name: "seen", Code: "malformed-headers", Channel: "guix", Until: o.Date.Add(24 * time.Hour), Date: o.Date, Reason: "harmless"}
			change(&x)
			o.Excuses = []trust.Excuse{x}
		})
	}
	for _, change := range []func(x *trust.Excuse){
		func(x *trust.Excuse) { x.Code = "weak-hash" },
		func(x *trust.Excuse) { x.Code = "not-known-yet" },
		func(x *trust.Excuse) { x.Channel = "nonguix" },
		func(x *trust.Excuse) { x.Commit = strings.Repeat("ab", 20) },
		func(x *trust.Excuse) { x.Key = strings.Repeat("AB", 20) },
		func(x *trust.Excuse) { x.Until = x.Date.Add(time.Second) },
	} {
		excuse(change)
		refuse(t, e, e.Volume(next), "malformed-headers")
	}
	excuse(func(x *trust.Excuse) { x.Commit = c.Ends[6].String() })
	q, err := g.take(t, e.Volume(next))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(q.Details, func(f Finding) bool {
		return f.Severity == "high" && f.Rule == "malformed-headers" && strings.Contains(f.Detail, "EXCUSED by seen, orders version 8")
	}) {
		t.Errorf("%+v", q.Details)
	}
}

// Orders let a pin go back.
func TestChannelDowngrade(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
	e.Ordered(c)
	g := newGate(t, e, "dave/statement")
	item := c.At(c.Ends[9], git.ID{})
	if _, err := g.take(t, e.Volume(item)); err != nil {
		t.Fatal(err)
	}
	e.Allow("dev", item)
	back := c.At(c.Ends[3], git.ID{})
	refuse(t, e, e.Volume(back), "channel-not-forward")
	e.Order(func(o *trust.Orders) {
		o.Downgrades = append(o.Downgrades, trust.Downgrade{Channel: "guix", Commit: c.Ends[3].String(), Date: o.Date, Reason: "x"})
	})
	if _, err := g.take(t, e.Volume(back)); err != nil {
		t.Fatal(err)
	}
	// Who is back stands there: on the way forward again, every step from there is one.
	e.Allow("dev", back)
	if _, err := g.take(t, e.Volume(c.At(c.Ends[4], c.Ends[3]))); err != nil {
		t.Fatal(err)
	}
}

func keyring(c *enclavetest.Channel, keys map[string]*channeltest.Key) git.ID {
	files := map[string]string{}
	for name, k := range keys {
		files[name] = string(k.File(channeltest.Certificate{}))
	}
	return c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(files)...), At: 1700000000})
}

// Of a keyring nothing counts but fingerprints: another one, with more keys and under other names, makes no commit authentic that was not, and none less so.
func TestChannelOtherKeyring(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 5)
	e.Ordered(c)
	other := keyring(c, map[string]*channeltest.Key{"a.key": c.C, "alice.key": c.B, "bob.key": c.A, "z.key": c.R})
	p := c.Pin(c.Ends[3], git.ID{})
	p.Keyring = other
	if _, err := newGate(t, e, "dave/statement").take(t, e.Volume(c.Item(p))); err != nil {
		t.Fatal(err)
	}
	p = c.Pin(c.Commit(channeltest.Spec{Same: "bad", Parents: []git.ID{c.Ends[3]}, Signer: c.C, At: 1700000001}), git.ID{})
	p.Keyring = other
	refuse(t, e, e.Volume(c.Item(p)), "key-unauthorized")
}

// Reviewers read who may sign now, and who has signed for the first time.
func TestChannelChanges(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 5)
	e.Ordered(c)
	g := newGate(t, e, "dave/statement")
	item := c.At(c.Ends[4], git.ID{})
	if _, err := g.take(t, e.Volume(item)); err != nil {
		t.Fatal(err)
	}
	e.Allow("dev", item)
	next := c.Add(map[string]string{".guix-authorizations": c.List(c.A, c.C), ".guix-channel": "(channel (version 0))\n"}, c.Ends[4])
	next = c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.C), "x": "x"})...), Parents: []git.ID{next}, Signer: c.C, At: 1700001000})
	q, err := g.take(t, e.Volume(c.At(next, c.Ends[4])))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range []string{"channel-authorizations", "channel-new-signer"} {
		if !slices.ContainsFunc(q.Details, func(f Finding) bool { return f.Rule == rule }) {
			t.Errorf("%s: %+v", rule, q.Details)
		}
	}
}

// TestChannelBomb: a few objects can be a checkout without end, which is known when it is larger than the pin says, and no later.
func TestChannelBomb(t *testing.T) {
	t.Parallel()
	for name, file := range map[string][]byte{"files": []byte("x"), "bytes": make([]byte, 1<<20)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 12)
			e.Ordered(c)
			entry := channeltest.Entry{Mode: git.ModeFile, Name: "f", ID: c.Put(git.KindBlob, file)}
			for range 40 {
				a, b := entry, entry
				a.Name, b.Name = "a", "b"
				entry = channeltest.Entry{Mode: git.ModeTree, Name: "d", ID: c.Tree(a, b)}
			}
			p := c.Pin(c.Ends[3], git.ID{})
			p.Commit = c.Commit(channeltest.Spec{Tree: entry.ID, Parents: []git.ID{c.Ends[3]}})
			start := time.Now()
			refuse(t, e, e.Volume(c.Item(p)), "channel-nar", "commit-unsigned", "nar-truncated")
			if took := time.Since(start); took > 8*time.Minute { // to walk all of it takes weeks
				t.Errorf("it took %v", took)
			}
		})
	}
}
