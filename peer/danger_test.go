//go:build peer

package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/guix/archive"
)

// The one stream that no daemon may see but the one that is made for it here: see vectors/archives-danger.
const (
	dangerous       = "DANGER-path-dotdot.nar"
	dangerFile      = vectorsFolder + "/archives-danger/" + dangerous + ".do-not-import"
	dangerSHA256    = "400528729f296a1763d06684b7c8b7c7942254ff2c3156bc15f9471c1fa4b45b"
	statusRefused   = 70 // the script's, of a throwaway that is no cage
	throwawayAnswer = 2 * time.Minute
)

// TestDanger gives a daemon an item called /gnu/store/.., upon which it deletes all that lies below /gnu. The daemon is in a throwaway: a whole system in
// memory from which nothing of this machine can be reached (contrib/peer/peer checks that from within, and refuses otherwise). Before the daemon sees the
// stream, it is checked from outside as well that what is written in there does not appear here; afterwards, that nothing has gone.
func TestDanger(t *testing.T) {
	p := start(t)
	danger := read(t, dangerFile)
	if sum := sha256.Sum256(danger); hex.EncodeToString(sum[:]) != dangerSHA256 {
		t.Fatalf("NOT RUN: %s is not the stream that was recorded", dangerFile)
	}
	var verdicts []struct {
		File, Output string
		Exit         int
	}
	if err := json.Unmarshal(read(t, filepath.Join(vectorsFolder, "archives", "verdicts.json")), &verdicts); err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(verdicts, func(v struct {
		File, Output string
		Exit         int
	}) bool {
		return v.File == dangerous
	})
	if i < 0 {
		t.Fatalf("no verdict on %s", dangerous)
	}
	message, _, _ := strings.Cut(verdicts[i].Output, " (the store was a mount point")

	// Ours first: neither the reader nor the gate before a daemon lets it pass.
	z := archive.NewReader(bytes.NewReader(danger))
	if _, err := z.Next(); err != nil {
		t.Fatal(err)
	}
	var refused *archive.Error
	if _, err := z.Item(); !errors.As(err, &refused) || refused.Code != archive.CodePath {
		t.Fatalf("NOT RUN: we do not refuse it ourselves: %v", err)
	}

	in := p.folder(t)
	harmless := in.write(t, "harmless", read(t, filepath.Join(vectorsFolder, "archives", "ok-single-file.nar")), 0o400)
	acl := in.write(t, "acl", read(t, filepath.Join(vectorsFolder, "archives", "acl")), 0o400)

	places := []string{"/gnu", filepath.Join(p.root, "gnu"), filepath.Join(p.root, "gnu/store"), filepath.Join(p.root, "etc/guix")}
	before := make(map[string]map[string]string)
	for _, place := range places {
		before[place] = census(t, place)
	}
	valid := must(p.connect(t).AllValid(t.Context()))(t)

	token := make([]byte, 16)
	if _, err := io.ReadFull(random, token); err != nil {
		t.Fatal(err)
	}
	canary := "sallyport-canary-" + hex.EncodeToString(token)
	ctx, cancel := context.WithTimeout(t.Context(), throwawayAnswer)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, "throwaway", "sh", "-c", fmt.Sprintf(`set -e
cp %s /etc/guix/acl
guix archive --import <%s
for d in / /gnu /gnu/store /var/guix /etc/guix /tmp /var/tmp; do echo of the throwaway >"$d/%s"; done
echo "namespaces $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/pid) $(readlink /proc/self/ns/net)"
echo "items" $(ls /gnu/store)
echo ready
read answer
[ "$answer" = go ]
set +e
guix archive --import
echo "status $?"
echo "left" $(ls -A /gnu/store)
echo "above" $(ls -A /gnu)`, acl, harmless, canary))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = 10 * time.Second
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(map[string][]string)
	lines := bufio.NewScanner(stdout)
	until := func(last string) bool {
		for lines.Scan() {
			words := strings.Fields(lines.Text())
			if len(words) == 0 {
				continue
			}
			said[words[0]] = words[1:]
			if words[0] == last {
				return true
			}
		}
		return false
	}
	stop := func(format string, args ...any) {
		t.Helper()
		cancel()
		cmd.Wait()
		t.Fatalf("NOT RUN: "+format, args...)
	}
	if !until("ready") {
		cancel()
		cmd.Wait()
		switch code := cmd.ProcessState.ExitCode(); code {
		case unavailable:
			t.Skipf("SKIPPED, THE STREAM WAS NOT GIVEN TO A DAEMON: there can be no throwaway here: %s", tail(stderr.Bytes()))
		case statusRefused:
			t.Fatalf("NOT RUN: the throwaway is no cage: %s", tail(stderr.Bytes()))
		default:
			t.Fatalf("NOT RUN: exit status %d: %s", code, tail(stderr.Bytes()))
		}
	}

	// It is in its own world, and what it writes is not seen in this one.
	own := []string{namespace(t, "self", "mnt"), namespace(t, "self", "pid"), namespace(t, "self", "net")}
	daemon := strings.Fields(string(read(t, filepath.Join(filepath.Dir(p.root), "daemon.pid"))))[0]
	for i, n := range said["namespaces"] {
		if n == own[i] || i < 2 && n == namespace(t, daemon, []string{"mnt", "pid"}[i]) {
			stop("the throwaway shares the namespace %s", n)
		}
	}
	if len(said["namespaces"]) != len(own) || len(said["items"]) != 2 {
		stop("the throwaway says %q", said)
	}
	for _, top := range []string{"/", p.root} {
		for _, d := range []string{"", "gnu", "gnu/store", "var/guix", "etc/guix", "tmp", "var/tmp"} {
			if _, err := os.Lstat(filepath.Join(top, d, canary)); !errors.Is(err, fs.ErrNotExist) {
				stop("what the throwaway wrote is in %s: %v", filepath.Join(top, d), err)
			}
		}
	}

	// The stream is never a file that somebody else could import.
	if _, err := stdin.Write(append([]byte("go\n"), danger...)); err != nil {
		stop("%v", err)
	}
	stdin.Close()
	complete := until("above")
	if err := cmd.Wait(); err != nil || !complete {
		t.Errorf("the throwaway ended: %v\n%s", err, tail(stderr.Bytes()))
	}

	// The verdict is the recorded one, the danger real: what was in the store and beside it is gone.
	if got := strings.Join(said["status"], " "); got != fmt.Sprint(verdicts[i].Exit) {
		t.Errorf("exit status %q, recorded is %d\n%s", got, verdicts[i].Exit, tail(stderr.Bytes()))
	}
	// Before that the daemon says, at times, that the temporary file of the import has gone with the rest.
	if got := plain(stderr.String()); !strings.Contains(got, plain(message)) {
		t.Errorf("it says\n%s\nrecorded is\n%s", got, plain(message))
	}
	if len(said["left"]) != 0 {
		t.Errorf("of the throwaway's store %q is left: the danger is not the one that was recorded", said["left"])
	}
	if slices.Contains(said["above"], canary) {
		t.Logf("beside the store, in /gnu, %q is left: the deletion ended at the mount point", said["above"])
	}

	// And nothing of ours is.
	for _, place := range places {
		after := census(t, place)
		for name, was := range before[place] {
			if ofTests(name) {
				continue
			}
			if is, ok := after[name]; !ok || is != was {
				t.Errorf("%s: %q was %s and is %q", place, name, was, is)
			}
		}
	}
	c := p.connect(t)
	still := make(map[string]bool)
	for _, item := range must(c.AllValid(t.Context()))(t) {
		still[item.String()] = true
	}
	for _, item := range valid {
		if !still[item.String()] && !ofTests(item.Base()) {
			t.Errorf("the peer's %s is not valid any more", item)
		}
	}
	if !must(c.VerifyStore(t.Context(), false, false))(t) {
		t.Error("the peer's store is damaged")
	}
	t.Logf("exit status %s, %q; its store was erased; %d files of the peer's store and %d valid items are what they were, and /gnu of this machine (%d files)",
		said["status"], message, len(before[places[2]]), len(valid), len(before["/gnu"]))
}

// ofTests tells the items that tests add to the peer's store and delete again, perhaps while this one runs, and what the daemon locks.
func ofTests(name string) bool {
	return strings.Contains(name, "-sallyport-") || strings.HasSuffix(name, ".lock")
}

// census tells each file of a directory by its inode and mode, and its size and time of change if it is no directory, which others may add to; a directory
// that is not there has none.
func census(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		all[e.Name()] = fmt.Sprintf("inode %d %s", st.Ino, info.Mode())
		if !info.IsDir() {
			all[e.Name()] += fmt.Sprintf(" %d bytes %v", st.Size, st.Ctim)
		}
	}
	return all
}

// namespace names a namespace of a process.
func namespace(t *testing.T, pid, kind string) string {
	t.Helper()
	return must(os.Readlink(filepath.Join("/proc", pid, "ns", kind)))(t)
}

// TestCage opens the cage in three ways, and nothing is run in it.
func TestCage(t *testing.T) {
	start(t)
	text := string(read(t, script))
	for name, change := range map[string][2]string{
		"a mount of the host's": {"\tmkdir dev/shm\n", "\tmkdir dev/shm; mount --bind /etc mnt\n"},
		"the host below":        {"\t\tumount -l /.host\n", "\t\ttrue\n"},
		"the host's network":    {" --pid --net ", " --pid "},
		"the host's processes":  {" --mount --pid --net ", " --mount --net "},
		"a store that is there": {"\tmount -t tmpfs -o mode=1775,size=", "\ttouch gnu/store/x; : "},
		"nothing":               {"readonly suite=", "readonly suite="},
	} {
		opened := strings.Replace(text, change[0], change[1], 1)
		if opened == text && change[0] != change[1] {
			t.Fatalf("%s: no %q in the script", name, change[0])
		}
		file := filepath.Join(t.TempDir(), "peer")
		if err := os.WriteFile(file, []byte(opened), 0o755); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), throwawayAnswer)
		out, err := exec.CommandContext(ctx, file, "throwaway", "echo", "it ran").CombinedOutput()
		cancel()
		var exit *exec.ExitError
		switch ran := bytes.Contains(out, []byte("it ran")); {
		case errors.As(err, &exit) && exit.ExitCode() == unavailable:
			t.Skipf("SKIPPED: there can be no throwaway here: %s", out)
		case change[0] == change[1]:
			if err != nil || !ran {
				t.Errorf("the cage itself: %v\n%s", err, out)
			}
		case ran || !errors.As(err, &exit) || exit.ExitCode() != statusRefused:
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
