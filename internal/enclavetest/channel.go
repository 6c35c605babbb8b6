package enclavetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

var channelWorld = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

// A Channel is a channel outside, of which items are made.
type Channel struct {
	*channeltest.Builder
	T    testing.TB
	Name string
	Ends []git.ID // states, one after another

	History channeltest.History
	Keyring git.ID
	git     *gitrun.Git
}

// NewChannel makes a channel of n honest states, signed by alice, bob and rose, who are in its list. It skips the test, saying why, where git is missing.
func NewChannel(t testing.TB, name string, n int) *Channel {
	t.Helper()
	w, err := channelWorld()
	if err != nil {
		t.Fatal(err)
	}
	c := &Channel{T: t, Name: name}
	c.Ends, c.History = channeltest.Growing(w, n)
	c.Keyring = c.History.Refs["refs/heads/keyring"]
	c.Builder = &channeltest.Builder{World: w, Repo: c.History.Repo}
	c.findGit()
	return c
}

// CaseChannel makes the channel of a case.
func CaseChannel(t testing.TB, name string, of channeltest.Case) *Channel {
	t.Helper()
	w, err := channelWorld()
	if err != nil {
		t.Fatal(err)
	}
	h := of.Build(w)
	c := &Channel{T: t, Name: name, Ends: []git.ID{h.End}, History: h, Keyring: h.Refs["refs/heads/keyring"], Builder: &channeltest.Builder{World: w, Repo: h.Repo}}
	c.findGit()
	return c
}

func (c *Channel) findGit() {
	c.T.Helper()
	g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
	if err != nil && strings.Contains(err.Error(), "git is missing") {
		c.T.Skip("SKIPPED, NOT TESTED: channels: ", err)
	}
	if err != nil {
		c.T.Fatal(err)
	}
	c.git = g
}

// Order is how officers take the channel.
func (c *Channel) Order(date time.Time) trust.Channel {
	return trust.Channel{Name: c.Name, URL: "https://forge.example/" + c.Name + ".git", Branch: "master", Commit: c.History.Introduction.String(),
		Signer: fmt.Sprintf("%X", c.History.Signer[:]), Date: date, Reason: "read from the manual"}
}

// Ordered puts the order in force.
func (e *Enclave) Ordered(c *Channel) {
	e.T.Helper()
	e.Order(func(o *trust.Orders) { o.Channels = append(o.Channels, c.Order(o.Date)) })
}

// Add makes a commit behind parents, signed by alice, with these files and a list of alice, bob and rose.
func (c *Channel) Add(files map[string]string, parents ...git.ID) git.ID {
	c.T.Helper()
	if _, ok := files[".guix-authorizations"]; !ok {
		files[".guix-authorizations"] = c.List(c.A, c.B, c.R)
	}
	return c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(files)...), Parents: parents, Signer: c.A, At: c.now()})
}

// now is behind the dates of all states, and of all commits before.
func (c *Channel) now() int64 { return 1700000000 + int64(len(c.Objects)) }

// Entries are files of one directory; a name with a slash makes one below.
func (c *Channel) Entries(files map[string]string) []channeltest.Entry {
	var entries []channeltest.Entry
	below := map[string]map[string]string{}
	for name, text := range files {
		if dir, rest, ok := strings.Cut(name, "/"); ok {
			if below[dir] == nil {
				below[dir] = map[string]string{}
			}
			below[dir][rest] = text
			continue
		}
		entries = append(entries, channeltest.Entry{Mode: git.ModeFile, Name: name, ID: c.Put(git.KindBlob, []byte(text))})
	}
	for dir, files := range below {
		entries = append(entries, channeltest.Entry{Mode: git.ModeTree, Name: dir, ID: c.Tree(c.Entries(files)...)})
	}
	return entries
}

// List is a .guix-authorizations.
func (c *Channel) List(keys ...*channeltest.Key) string {
	var b strings.Builder
	b.WriteString("(authorizations (version 0) (")
	for _, k := range keys {
		fmt.Fprintf(&b, "(%q (name %q))", k.Fingerprint, k.Name)
	}
	b.WriteString("))\n")
	return b.String()
}

// Repository writes the channel to disk as it is now.
func (c *Channel) Repository() (dir string, r *authenticate.Repository) {
	c.T.Helper()
	dir = filepath.Join(c.T.TempDir(), "channel.git")
	if err := c.Repo.Write(dir); err != nil {
		c.T.Fatal(err)
	}
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		c.T.Fatal(err)
	}
	c.T.Cleanup(func() { r.Close() })
	return dir, r
}

// Pin is an honest pin of a commit; a zero basis makes a complete bundle of it.
func (c *Channel) Pin(commit, basis git.ID) *pin.Pin {
	c.T.Helper()
	o := c.Order(Epoch)
	p := &pin.Pin{Channel: c.Name, URL: o.URL, Branch: o.Branch, Introduction: c.History.Introduction, Signer: c.History.Signer, Keyring: c.Keyring, Commit: commit, Basis: basis}
	_, r := c.Repository()
	h, n := sha256.New(), &counting{}
	if err := r.Nar(context.Background(), commit, h); err != nil {
		// Of what has no checkout nobody has a hash.
		p.NarHash, p.NarSize = trust.Sum([]byte("none")), 1000
		return p
	}
	if err := r.Nar(context.Background(), commit, n); err != nil {
		c.T.Fatal(err)
	}
	h.Sum(p.NarHash[:0])
	p.NarSize = n.n
	return p
}

type counting struct{ n int64 }

func (c *counting) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// Item makes the item of a pin, true or not.
func (c *Channel) Item(p *pin.Pin) Content {
	c.T.Helper()
	_, r := c.Repository()
	basisKeyring := git.ID{}
	if !p.Basis.IsZero() {
		basisKeyring = p.Keyring
	}
	var b bytes.Buffer
	if err := pin.Create(context.Background(), c.git, r, c.T.TempDir(), p, basisKeyring, &b); err != nil {
		c.T.Fatal(err)
	}
	return ChannelItem(c.T, p, b.Bytes())
}

// TryItem is Item; ok is false if git makes no pack of such objects.
func (c *Channel) TryItem(p *pin.Pin) (item Content, ok bool) {
	c.T.Helper()
	_, r := c.Repository()
	var b bytes.Buffer
	if err := pin.Create(context.Background(), c.git, r, c.T.TempDir(), p, git.ID{}, &b); err != nil {
		c.T.Logf("no item can be made: %v", err)
		return Content{}, false
	}
	return ChannelItem(c.T, p, b.Bytes()), true
}

// ChannelItem is the item of a pin that has these bytes.
func ChannelItem(t testing.TB, p *pin.Pin, data []byte) Content {
	t.Helper()
	name, err := p.ItemName(trust.Sum(data))
	if err != nil {
		t.Fatal(err)
	}
	return Content{Item: trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Kind: trust.KindChannel, Name: name}, Data: data}
}

// At is the item of an honest pin.
func (c *Channel) At(commit, basis git.ID) Content {
	c.T.Helper()
	return c.Item(c.Pin(commit, basis))
}
