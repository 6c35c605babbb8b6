package channelhost

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/git"
)

// TestMirror measures a host of a real channel, where SALLYPORT_PEER_GUIX names a bare repository of it with the branches master and keyring (a whole one, no partial
// clone), or with -long of a made-up one of 60,000 commits: how long the repository takes to be made, from a complete item and then from one more, and how long
// clones take, one alone and several at once.
func TestMirror(t *testing.T) {
	mirror := os.Getenv("SALLYPORT_PEER_GUIX")
	if mirror == "" && !*long {
		t.Skip("SKIPPED, NOT MEASURED: SALLYPORT_PEER_GUIX does not name a bare repository of a real channel, nor was -long given")
	}
	h := newHouse(t)
	if mirror == "" {
		mirror = newChannel(t, "guix", 60_000).dir
	}
	show := func(what string, begin time.Time) {
		t.Logf("%s: %.1f s", what, time.Since(begin).Seconds())
	}
	c := &channel{name: "guix", dir: mirror}
	ask := func(args ...string) git.ID {
		return parse(t, strings.TrimSpace(must(t, mirror, append([]string{"-c", "safe.directory=*", "rev-parse"}, args...)...)))
	}
	c.commits, c.keyring = []git.ID{ask("master~200"), ask("master")}, ask("keyring")
	begin := time.Now()
	one := c.item(t, h.git, c.commits[0], nil)
	two := c.item(t, h.git, c.commits[1], &c.commits[0])
	show("both items", begin)
	t.Logf("%d MB complete, %d KB more", one.Size>>20, two.Size>>10)
	h.Allow("dev", one)
	one.Data = nil
	begin = time.Now()
	h.serve()
	wait := func(what string) {
		t.Helper()
		if err := h.host.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		show(what, begin)
	}
	wait("the repository is made")
	h.close()
	begin = time.Now()
	h.serve()
	wait("started again")
	h.Allow("dev", two)
	begin = time.Now()
	wait("the repository is made with one item more")
	clone := func() {
		dir := filepath.Join(t.TempDir(), "clone.git")
		if out, err := client(t.Context(), "", "clone", "-q", "--bare", h.url+"/git/guix", dir); err != nil {
			t.Errorf("%v: %s", err, tail(out))
		}
		os.RemoveAll(dir)
	}
	answer := func(what string) {
		begin = time.Now()
		request := pkt("command=fetch") + "0001" + pkt("no-progress") + pkt("ofs-delta") + pkt("want "+c.commits[1].String()+"\n") + pkt("want "+c.keyring.String()+"\n") + pkt("done\n") + "0000"
		conn := dial(t, h.url)
		defer conn.Close()
		if _, err := conn.Write([]byte("POST /git/guix/git-upload-pack HTTP/1.0\r\nGit-Protocol: version=2\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: " + strconv.Itoa(len(request)) + "\r\n\r\n" + request)); err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		buf := make([]byte, 1<<20)
		for {
			k, err := conn.Read(buf)
			if n == 0 && k > 0 {
				show(what+", its first byte", begin)
			}
			if n += int64(k); err != nil {
				break
			}
		}
		show(what+", all", begin)
		t.Logf("%d MB", n>>20)
	}
	answer("the answer to a clone")
	answer("the same answer again")
	begin = time.Now()
	clone()
	show("a clone, with the work of its client", begin)
	begin = time.Now()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(clone)
	}
	wg.Wait()
	show("three clones at once", begin)
}
