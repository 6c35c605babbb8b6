package outside

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/frame/frametest"
	"sallyport/cmd/internal/verbs"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/scheme"
)

// TestChannel: one promise of the manual a step, from a channels.scm to a pin that moved.
func TestChannel(t *testing.T) {
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	top := t.TempDir()
	ends, h := channeltest.Growing(w, 10)
	h.Refs["refs/heads/master"] = ends[2]
	repo := filepath.Join(top, "guix.git")
	if err := h.Write(repo); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(top, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	c := scheme.Channel{Name: "guix", URL: "https://git.example.org/guix.git", Branch: "master", Introduction: &scheme.Introduction{Commit: h.Introduction.String(), Signer: scheme.Fingerprint(h.Signer)}}
	scm := write("channels.scm", string(scheme.PrintChannels([]scheme.Channel{c})))
	c.Commit = ends[1].String()
	pinned := write("pinned.scm", string(scheme.PrintChannels([]scheme.Channel{c})))
	zone := filepath.Join(top, "outside")
	env := frame.Env{Rand: rand.Reader, Clock: func() time.Time { return time.Unix(1700000000, 0) }, Getenv: func(s string) string {
		if s == "SALLYPORT_ZONE" {
			return zone
		}
		return ""
	}}
	nouns := func(env *frame.Env) []*cobra.Command {
		shipment := verbs.Shipment(env)
		return append(append(verbs.Both(env), shipment), Nouns(env, shipment)...)
	}
	run := func(args ...string) frametest.Outcome { return frametest.Run(t.Context(), env, nouns, args...) }
	check := frametest.Checker(t)
	check("no zone", run("channel", "list"), 1)
	check("init", run("init", "--kind", "outside", "--enclave", "keep", zone), 0)
	check("nothing pinned", run("channel", "list"), 0, "no channel is pinned")
	check("show nothing", run("channel", "show", "guix"), 3, "channel-unpinned", "channel list")
	check("no introduction", run("channel", "pin", "-r", repo, "guix"), 3, "pin-first", "channels.scm", "--url")
	check("no repository", run("channel", "pin", "guix"), 2)
	check("no name", run("channel", "pin", "-r", repo, "gu/ix"), 2)
	check("not in the file", run("channel", "pin", "-r", repo, "--channels", scm, "nonguix"), 2, "it has guix")
	check("another fingerprint", run("channel", "pin", "-r", repo, "--channels", scm, "--fingerprint", w.C.Fingerprint.String(), "guix"), 2, "do not say the same")
	check("wrong fingerprint", run("channel", "pin", "-r", repo, "--url", c.URL, "--introduction", h.Introduction.String(), "--fingerprint", w.C.Fingerprint.String(), "guix"), 3, "introduction-signer")
	check("a short one", run("channel", "pin", "-r", repo, "--fingerprint", "ABCD", "guix"), 2)
	check("the commit of the file", run("channel", "pin", "-r", repo, "--channels", pinned, "guix"), 0, "pinned channel guix to commit "+ends[1].String()+": pin 1")
	check("the branch", run("channel", "pin", "-r", repo, "guix"), 0, "to commit "+ends[2].String()+": pin 2", "forward from commit "+ends[1].String())
	check("again", run("channel", "pin", "-r", repo, "--channels", scm, "guix"), 0, "channel guix was pinned already to commit ", "pin 2")
	check("back", run("channel", "pin", "-r", repo, "guix", ends[1].String()), 3, "pin-not-forward", "--orders")
	check("moved", run("channel", "pin", "-r", repo, "--introduction", ends[1].String(), "guix"), 3, "pin-introduction")
	check("odd headers", run("channel", "pin", "-r", repo, "guix", ends[8].String()), 3, "malformed-headers", "channel excuse")
	check("too long", run("channel", "excuse", "--by", "carol", "--reason", "for tests", "--days", "367", "odd", "malformed-headers", "guix"), 2)
	check("no reason", run("channel", "excuse", "--by", "carol", "odd", "malformed-headers", "guix"), 3, "excuse-form")
	check("excuse", run("channel", "excuse", "--by", "carol", "--reason", "for tests", "odd", "malformed-headers", "guix"), 0, "passes until 2023-12-14T22:13:20Z")
	check("excused", run("channel", "pin", "-r", repo, "guix", ends[8].String()), 0, "EXCUSED malformed-headers: 1,", "odd, by carol until 2023-12-14T22:13:20Z: for tests")

	o := run("channel", "list", "--all", "--json")
	lines := strings.Split(strings.TrimSpace(o.Stdout), "\n")
	var last struct {
		Type, Channel, Commit string
		Number                int
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(lines) != 3 || last.Type != "pin" || last.Commit != ends[8].String() || last.Number != 3 {
		t.Errorf("%v %+v\n%s", err, last, o.Stdout)
	}
	check("list", run("channel", "list"), 0, "pin 3", "not sent")
	check("show", run("channel", "show", "-r", repo, "guix"), 0, "from "+ends[2].String(), "commits\n", "signed by", "excused odd: malformed-headers, by carol")
	check("show two", run("channel", "show", "-r", repo, "guix", "1", ends[2].String()), 0, "from "+ends[1].String(), "to   "+ends[2].String())
	check("show back", run("channel", "show", "-r", repo, "guix", "3", "1"), 0, "NOT FORWARD")
	check("show what is not there", run("channel", "show", "-r", repo, "guix", "7"), 3, "channel-unpinned", "channel list --all")
	check("a track outside", run("channel", "show", "--track", "dev", "guix"), 2, "no tracks")
	check("an unknown code", run("channel", "excuse", "--by", "carol", "--reason", "for tests", "odd", "odd-headers", "guix"), 3, "excuse-code", "malformed-headers")
	check("nothing collected", run("channel", "show", "guix"), 1, "--repository DIR")
	o = run("channel", "show", "-r", repo, "--json", "guix")
	var shown struct {
		Type       string
		Difference struct {
			Forward bool
			Commits int
		}
	}
	if err := json.Unmarshal([]byte(o.Stdout), &shown); err != nil || shown.Type != "channel" || !shown.Difference.Forward || shown.Difference.Commits == 0 {
		t.Errorf("%v %+v\n%s", err, shown, o.Stdout)
	}
	o = run("channel", "show", "--scheme", "guix")
	list, err := scheme.Channels([]byte(o.Stdout))
	if err != nil || len(list) != 1 || list[0].Commit != ends[8].String() || list[0].URL != c.URL {
		t.Errorf("%v %+v\n%s", err, list, o.Stdout)
	}
	var inJSON struct{ Type, Channels string }
	if j := run("channel", "show", "--scheme", "--json", "guix"); json.Unmarshal([]byte(j.Stdout), &inJSON) != nil || inJSON.Type != "scheme" || inJSON.Channels != o.Stdout {
		t.Errorf("%+v\n%s", inJSON, j.Stdout)
	}
	request := write("request.toml", fmt.Sprintf("enclave = \"keep\"\n[[channel]]\nname = \"guix\"\nrepository = %q\n", repo))
	check("request", run("request", "check", request), 0, "1 channel ")
	check("request with two", run("request", "check", write("two.toml", "enclave = \"keep\"\n"+strings.Repeat("[[channel]]\nname = \"guix\"\nrepository = \"x\"\n", 2))), 2, "stands twice")
	check("ledger", run("ledger", "verify"), 0)
}
