package collect

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var world = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

// A channelBench is an outside with a channel's repository, and pins as 'channel pin' leaves them behind.
type channelBench struct {
	*outside
	repo string
	ends []git.ID
	h    channeltest.History
	pins int64
}

func newChannelBench(t *testing.T) *channelBench {
	t.Helper()
	enclavetest.NewChannel(t, "x", 1) // skips where git is missing
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	b := &channelBench{outside: newOutside(t)}
	b.Rand = rand.Reader
	b.ends, b.h = channeltest.Growing(w, 12)
	b.repo = filepath.Join(b.dir, "guix.git")
	if err := b.h.Write(b.repo); err != nil {
		t.Fatal(err)
	}
	return b
}

// pin leaves the next pin behind.
func (b *channelBench) pin(commit git.ID, change ...func(p *pin.Pin)) *pin.Pin {
	b.t.Helper()
	r, err := authenticate.Open(b.repo, authenticate.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	var nar bytes.Buffer
	if err := r.Nar(b.t.Context(), commit, &nar); err != nil {
		b.t.Fatal(err)
	}
	p := &pin.Pin{Channel: "guix", URL: "https://git.example.org/guix.git", Branch: "master", Introduction: b.h.Introduction, Signer: b.h.Signer, Keyring: b.h.Refs["refs/heads/keyring"], Commit: commit,
		NarHash: sha256.Sum256(nar.Bytes()), NarSize: int64(nar.Len())}
	for _, c := range change {
		c(p)
	}
	b.pins++
	digest := trust.Sum(p.Text())
	if _, err := b.Zone.CAS.PutBytes(p.Text()); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Zone.Commit(b.t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.Statement(statement.KindPinned, []statement.Subject{{Name: "guix", SHA256: digest}}, map[string]any{"channel": "guix", "commit": commit.String(), "from": "-"}),
			tx.Attach(b.t.Context(), digest),
			tx.Exec(b.t.Context(), `INSERT INTO pin (channel, number, digest, text, added) VALUES ('guix', ?, ?, ?, ?)`, b.pins, digest.String(), p.Text(), trust.FormatDate(tx.Now())))
	}); err != nil {
		b.t.Fatal(err)
	}
	return p
}

const wanted = "[[channel]]\nname = \"guix\"\nrepository = \"guix.git\"\n"

// ship makes a volume of what was collected.
func (b *channelBench) ship() *Shipped {
	b.t.Helper()
	mk, sk := []trust.Signer{enclavetest.Key(b.t, "carol/manifest")}, enclavetest.Key(b.t, "carol/sums")
	s, err := b.Pack(b.t.Context(), filepath.Join(b.t.TempDir(), "volume"), mk, sk)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// item opens the one channel item of a collection.
func (b *channelBench) item(c *Collection) (*pin.Pin, *pin.Header) {
	b.t.Helper()
	if len(c.Items) != 1 || c.Items[0].Kind != trust.KindChannel || len(c.Channels) != 1 {
		b.t.Fatalf("%+v", c)
	}
	r, err := b.Zone.CAS.Open(c.Items[0].SHA256)
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	p, h, err := pin.Open(r, io.Discard)
	if err != nil {
		b.t.Fatal(err)
	}
	if name, err := p.ItemName(c.Items[0].SHA256); err != nil || name != c.Items[0].Name {
		b.t.Errorf("%s, want %s: %v", c.Items[0].Name, name, err)
	}
	return p, h
}

// TestChannel: complete at first, then what is new since what was sent last; nothing is made twice.
func TestChannel(t *testing.T) {
	b := newChannelBench(t)
	first := b.pin(b.ends[3])
	c := b.must(wanted)
	p, h := b.item(c)
	if *p != *first || len(h.Prerequisites()) != 0 || c.Files == 0 || c.Channels[0].Basis != "-" || c.Channels[0].Commits == 0 {
		t.Errorf("%+v %+v %+v", p, h, c.Channels)
	}
	// Not sent yet: the same again, from any repository that has it. And a later pin is complete, too.
	if again := b.must(wanted); again.Items[0] != c.Items[0] {
		t.Errorf("%+v", again.Items)
	}
	s := b.ship()
	if s.Number != 1 || s.Items != 1 {
		t.Errorf("%+v", s)
	}
	// It was sent; nothing is new.
	if again := b.must(wanted); again.Items[0] != c.Items[0] || again.Channels[0].Sent != 1 {
		t.Errorf("%+v", again)
	}
	second := b.pin(b.ends[5])
	c2 := b.must(wanted)
	if p, h = b.item(c2); p.Commit != second.Commit || p.Basis != first.Commit || len(h.Prerequisites()) != 2 || c2.Items[0].Size >= c.Items[0].Size {
		t.Errorf("%+v %+v, %d bytes after %d", p, h, c2.Items[0].Size, c.Items[0].Size)
	}
	// Before it is sent, another: it stands on what was sent, not on what was not.
	b.pin(b.ends[8])
	if p, _ = b.item(b.must(wanted)); p.Commit != b.ends[8] || p.Basis != first.Commit {
		t.Errorf("%+v", p)
	}
	if s := b.ship(); s.Number != 2 || s.Items != 2 {
		t.Errorf("%+v", s)
	}
	// Of two in one shipment the newer pin counts. The zone's own copy is lost, and made again from what was sent.
	if err := os.RemoveAll(filepath.Join(b.Zone.Dir, "channels", "guix.git")); err != nil {
		t.Fatal(err)
	}
	b.pin(b.ends[10])
	if p, _ = b.item(b.must(wanted)); p.Commit != b.ends[10] || p.Basis != b.ends[8] {
		t.Errorf("%+v", p)
	}
	complete := wanted + "complete = true\n"
	c = b.must(complete)
	if p, _ = b.item(c); !p.Basis.IsZero() || p.Commit != b.ends[10] {
		t.Errorf("%+v", p)
	}
	if again := b.must(complete); again.Items[0] != c.Items[0] {
		t.Errorf("%+v", again.Items)
	}
	if b.row(`SELECT count(*) FROM collected`) != "5" {
		t.Error(b.row(`SELECT count(*) FROM collected`))
	}
	if err := b.Zone.Verify(t.Context(), nil); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Join(b.Zone.Dir, "tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestChannelRefused: what was pinned is looked at again, whoever pinned it.
func TestChannelRefused(t *testing.T) {
	b := newChannelBench(t)
	refuse := func(text string, codes ...string) {
		t.Helper()
		collected := b.row(`SELECT count(*) FROM collected`)
		blobs := b.blobs()
		_, err := b.collect(text)
		suite.Want(t, err, codes...)
		if b.row(`SELECT count(*) FROM collected`) != collected || b.blobs() != blobs {
			t.Errorf("something was collected")
		}
	}
	refuse(wanted, "channel-unpinned")
	b.pin(b.ends[3], func(p *pin.Pin) { p.NarHash[0] ^= 1 })
	refuse(wanted, "channel-nar")
	b.pin(b.ends[3], func(p *pin.Pin) { p.Signer[0] ^= 1 })
	refuse(wanted, channel.CodeIntroductionSigner)
	b.pin(b.ends[3], func(p *pin.Pin) { p.Introduction = b.ends[4] })
	if _, err := b.collect(wanted); err == nil {
		t.Error("a moved introduction")
	}
	b.pin(b.ends[3])
	other := channeltest.NewRepo()
	other.Put(git.KindBlob, nil)
	if err := other.Write(filepath.Join(b.dir, "other.git")); err != nil {
		t.Fatal(err)
	}
	refuse(strings.Replace(wanted, "guix.git", "other.git", 1), "channel-repository")
	refuse(strings.Replace(wanted, "guix.git", ".", 1), authenticate.CodeNoRepository)
	// What was sent is not there any more: nothing can be checked against it.
	c := b.must(wanted)
	b.ship()
	b.pin(b.ends[5])
	b.must(wanted)
	b.ship()
	b.pin(b.ends[8])
	if err := errors.Join(os.RemoveAll(filepath.Join(b.Zone.Dir, "channels", "guix.git")), b.Zone.CAS.Remove(c.Items[0].SHA256)); err != nil {
		t.Fatal(err)
	}
	refuse(wanted, "channel-basis")
	b.must(wanted + "complete = true\n") // it stands on nothing
	for _, bad := range []string{"[[channel]]\nname = \"gu/ix\"\nrepository = \"x\"\n", "[[channel]]\nname = \"guix\"\n", wanted + wanted, wanted + "more = 1\n", ""} {
		if _, err := ParseRequest([]byte("enclave = \"keep\"\n" + bad)); err == nil {
			t.Errorf("%q", bad)
		}
	}
}

// TestChannelExcused: excuses with which a pin was made are told.
func TestChannelExcused(t *testing.T) {
	b := newChannelBench(t)
	b.pin(b.ends[3])
	if err := b.Zone.Commit(t.Context(), func(tx *store.Tx) error {
		return errors.Join(tx.Statement(statement.KindExcused, []statement.Subject{{Name: "guix", SHA256: trust.Sum(nil)}}, map[string]any{"name": "odd", "code": channel.FindingHeaders, "channel": "guix", "commit": "-", "key": "-",
			"until": trust.FormatDate(enclavetest.Epoch.Add(time.Hour)), "person": "carol", "reason": "for tests"}),
			tx.Exec(t.Context(), `INSERT INTO excuse (name, code, channel, about, key, until, person, reason, added) VALUES ('odd', ?, 'guix', '-', '-', ?, 'carol', 'for tests', '')`, channel.FindingHeaders, trust.FormatDate(enclavetest.Epoch.Add(time.Hour))))
	}); err != nil {
		t.Fatal(err)
	}
	b.pin(b.ends[8])
	c := b.must(wanted)
	if got := fmt.Sprint(c.Channels[0].Excused); got != "[odd: malformed-headers, by carol until 2026-03-01T10:00:00Z: for tests]" {
		t.Error(got)
	}
}

// TestChannelDirty: a file that no reviewer could read the name of stops the channel before it is packed, and so do attributes by which nobody would check out what was
// looked at.
func TestChannelDirty(t *testing.T) {
	b := newChannelBench(t)
	ch := enclavetest.NewChannel(t, "guix", 2)
	dirty := ch.Add(map[string]string{"good": "x", "a\x01b": "x"}, ch.Ends[1])
	converted := ch.Add(map[string]string{".gitattributes": "* eol=crlf\n"}, ch.Ends[1])
	b.repo, _ = ch.Repository()
	b.h.Introduction, b.h.Signer = ch.History.Introduction, ch.History.Signer
	b.h.Refs["refs/heads/keyring"] = ch.Keyring
	text := strings.Replace(wanted, "guix.git", b.repo, 1)
	good := b.pin(ch.Ends[1])
	if p, _ := b.item(b.must(text)); p.Commit != good.Commit {
		t.Errorf("%+v", p)
	}
	b.pin(dirty)
	blobs := b.blobs()
	_, err := b.collect(text)
	suite.Want(t, err, "inspection-block")
	if b.blobs() != blobs {
		t.Error("something stayed")
	}
	b.pin(ch.Ends[1], func(p *pin.Pin) { p.Commit = converted })
	_, err = b.collect(text)
	suite.Want(t, err, authenticate.CodeAttributes)
}

// TestChannelTwice: two who collect at once wait for one another.
func TestChannelTwice(t *testing.T) {
	b := newChannelBench(t)
	b.pin(b.ends[3])
	r, err := ParseRequest([]byte("enclave = \"keep\"\n" + wanted))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	items := make([]trust.Item, 3)
	for i := range items {
		wg.Go(func() {
			c, err := b.Collect(t.Context(), r, b.dir)
			if err != nil {
				t.Error(err)
				return
			}
			items[i] = c.Items[0]
		})
	}
	wg.Wait()
	if items[0] != items[1] || items[1] != items[2] || b.row(`SELECT count(*) FROM collected`) != "1" {
		t.Errorf("%v", items)
	}
}
