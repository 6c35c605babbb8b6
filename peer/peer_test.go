//go:build peer

package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build"
)

func TestMain(m *testing.M) {
	build.MaybeChild()
	os.Exit(m.Run())
}

const (
	script        = "../contrib/peer/peer"
	unavailable   = 69               // the script's exit status where it cannot run
	setUpTime     = 90 * time.Minute // the script bounds each of its steps
	commandTime   = 20 * time.Minute // for anything that runs in there
	vectorsFolder = "../vectors"
)

// A peer is the real Guix and Nix in a directory.
type peer struct {
	root string // that directory
}

var setUp = sync.OnceValues(func() (*peer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	if out, err := exec.CommandContext(ctx, script, "up").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	out, err := exec.CommandContext(ctx, script, "root").Output()
	return &peer{root: strings.TrimSpace(string(out))}, err
})

// start returns the peer, or skips the test where there can be none.
func start(t *testing.T) *peer {
	t.Helper()
	p, err := setUp()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == unavailable {
		t.Skipf("SKIPPED, NOTHING WAS COMPARED with the real programs: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// result is what a command did.
type result struct {
	stdout, stderr []byte
	code           int
}

// try runs the script with args.
func (p *peer) try(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, script, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%.300s: %v %v\n%s", strings.Join(args, " "), err, ctx.Err(), tail(stderr.Bytes()))
	}
	return result{stdout.Bytes(), stderr.Bytes(), cmd.ProcessState.ExitCode()}
}

// run runs a command in the peer that must succeed, and returns what it printed.
func (p *peer) run(t *testing.T, args ...string) []byte {
	t.Helper()
	return p.must(t, append([]string{"run"}, args...))
}

// fresh runs a shell script in the peer beside an empty store; it must succeed.
func (p *peer) fresh(t *testing.T, sh string, args ...string) []byte {
	t.Helper()
	return p.must(t, append([]string{"fresh", "sh", "-c", "set -e\n" + sh, "sh"}, args...))
}

func (p *peer) must(t *testing.T, args []string) []byte {
	t.Helper()
	r := p.try(t, nil, args...)
	if r.code != 0 {
		t.Fatalf("%.300s: exit status %d\n%s", strings.Join(args, " "), r.code, tail(r.stderr))
	}
	return r.stdout
}

// tail is the end of what a program said.
func tail(b []byte) []byte {
	const enough = 3000
	if len(b) > enough {
		return append([]byte("[...] "), b[len(b)-enough:]...)
	}
	return b
}

// A folder is seen by both sides.
type folder struct {
	host string // its name here
	name string // its name in the peer
}

func (p *peer) folder(t *testing.T) folder {
	t.Helper()
	host, err := os.MkdirTemp(filepath.Join(p.root, "var/tmp"), "sallyport-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(host); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	return folder{host, filepath.Join("/var/tmp", filepath.Base(host))}
}

// write puts a file into the folder and returns its name in the peer.
func (f folder) write(t *testing.T, name string, data []byte, mode os.FileMode) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.host, name), data, mode); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(f.name, name)
}

func (f folder) read(t *testing.T, name string) []byte {
	t.Helper()
	return read(t, filepath.Join(f.host, name))
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// key makes a key of ours.
func key(t *testing.T) signature.SecretKey {
	t.Helper()
	// A generator with a seed would do, but a new key each time finds more.
	k, err := signature.GenerateKey(random)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyOf is the peer's own key.
func (p *peer) key(t *testing.T) signature.SecretKey {
	t.Helper()
	k, err := signature.ParseSecretKey(read(t, filepath.Join(p.root, "etc/guix/signing-key.sec")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// install makes the script's beginning that installs k as the daemon's key, and acl as all it believes.
func install(t *testing.T, f folder, k signature.SecretKey, acl signature.ACL) string {
	t.Helper()
	sec := f.write(t, "signing-key.sec", k.Bytes(), 0o400)
	pub := f.write(t, "signing-key.pub", []byte(k.Public().String()), 0o444)
	list := f.write(t, "acl", acl.Bytes(), 0o644)
	return fmt.Sprintf("cp -f %s %s %s /etc/guix/\n", sec, pub, list)
}

// An item is one of ours, with its nar.
type item struct {
	path storepath.Path
	refs []storepath.Path
	nar  []byte
}

// text makes a text item.
func text(t *testing.T, name, content string, refs ...storepath.Path) item {
	t.Helper()
	p, err := storepath.Text(name, sha256.Sum256([]byte(content)), refs)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := nar.WriteFile(&b, int64(len(content)), false, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	return item{p, sorted(refs), b.Bytes()}
}

// source makes a source item of a nar.
func source(t *testing.T, name string, archive []byte) item {
	t.Helper()
	p, err := storepath.Source(name, sha256.Sum256(archive))
	if err != nil {
		t.Fatal(err)
	}
	return item{path: p, nar: archive}
}

// dump makes the nar of a tree.
func dump(t *testing.T, dir, name string) []byte {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var b bytes.Buffer
	if err := nar.Dump(&b, root.FS(), name); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func parse(t *testing.T, s string) storepath.Path {
	t.Helper()
	p, err := storepath.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
