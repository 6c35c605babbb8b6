//go:build peer

package peer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// TestDemo runs the demo, and puts the real Guix in the place of its clients and builders: it takes from the depot what the
// allowlist names, with the track's key as all that it believes, and builds with guix-daemon the derivation that our two builders built.
func TestDemo(t *testing.T) {
	p := start(t)
	zones := filepath.Join(t.TempDir(), "zones")
	t.Cleanup(func() { // store items are read-only
		exec.Command("chmod", "-R", "u+w", zones).Run()
	})
	ctx, cancel := context.WithTimeout(t.Context(), commandTime)
	defer cancel()
	begin := time.Now()
	demo := exec.CommandContext(ctx, "go", "run", "-trimpath", "-buildvcs=false", "./demo", "--zones", zones)
	demo.Dir = ".."
	demo.Env = append(os.Environ(), "CGO_ENABLED=0")
	demo.WaitDelay = 10 * time.Second
	if out, err := demo.CombinedOutput(); err != nil {
		t.Fatalf("the demo itself failed: %v\n%s", err, tail(out))
	}
	t.Logf("the demo ran in %v", time.Since(begin).Round(time.Second))

	station := filepath.Join(zones, "bin", "sallyport-station")
	url := depot(t, station, filepath.Join(zones, "inside"))

	out, err := exec.CommandContext(ctx, station, "review", "show", "--json", "--zone", filepath.Join(zones, "inside"), "1").Output()
	if err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Items []struct{ Kind, Name string } `json:"items_of_shipment"`
	}
	if err := json.Unmarshal(out, &shown); err != nil {
		t.Fatal(err)
	}
	var inputs []string
	var drv string
	for _, it := range shown.Items {
		if name := storepath.Dir + "/" + it.Name; it.Kind == "derivation" {
			drv = name
		} else {
			inputs = append(inputs, name)
		}
	}
	nars, err := filepath.Glob(filepath.Join(zones, "result-*", "*.nar"))
	if err != nil || len(nars) != 2 || drv == "" || len(inputs) == 0 {
		t.Fatalf("two builders' results, a derivation and its inputs are wanted; there are %q, %q, %q %v", nars, drv, inputs, err)
	}
	path, err := storepath.ParseBase(strings.TrimSuffix(filepath.Base(nars[0]), ".nar"))
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(read(t, nars[0]))
	if sha256.Sum256(read(t, nars[1])) != want {
		t.Fatal("our builders do not agree")
	}

	words := strings.Fields(string(read(t, filepath.Join(zones, "keys", "dev.narinfo.key.pub"))))
	track, err := signature.ParsePublicKeyHex(words[len(words)-1])
	if err != nil {
		t.Fatal(err)
	}
	in := p.folder(t)
	k := key(t)
	setUp := install(t, in, k, signature.NewACL(track))

	t.Run("guix build takes it from the depot", func(t *testing.T) {
		out := p.fresh(t, setUp+fmt.Sprintf("guix build --substitute-urls=%s %s >&2\nguix hash -S nar %[2]s\n%[2]s/bin/sallyport-verify --help >&2", url, path))
		if got := strings.TrimSpace(string(out)); got != storepath.EncodeBase32(want[:]) {
			t.Errorf("Guix got %s, our builders made %s", got, storepath.EncodeBase32(want[:]))
		}
	})

	t.Run("another key than the track's", func(t *testing.T) {
		r := p.try(t, nil, "fresh", "sh", "-e", "-c", install(t, p.folder(t), k, signature.NewACL(k.Public()))+
			fmt.Sprintf("guix build --substitute-urls=%s %s >&2\nls /gnu/store >&2\ntest ! -e %[2]s", url, path))
		if r.code != 0 {
			t.Errorf("Guix took from the depot what it had no reason to believe: %s", tail(r.stderr))
		}
	})

	t.Run("guix-daemon builds the same", func(t *testing.T) {
		begin := time.Now()
		// The derivation comes with what it refers to. `guix build` would take its output too: ensure-path takes what it is told.
		scheme := in.write(t, "take.scm", fmt.Appendf(nil, `(use-modules (guix store))
(with-store store
  (set-build-options store #:use-substitutes? #t #:substitute-urls '(%q))
  (for-each (lambda (path) (ensure-path store path)) '(%q)))
`, url, drv), 0o644)
		var sh strings.Builder
		fmt.Fprintf(&sh, "guix repl -q %s >&2\n", scheme)
		fmt.Fprintf(&sh, "for i in %s; do test -e $i; done\ntest ! -e %s\n", strings.Join(inputs, " "), path)
		fmt.Fprintf(&sh, "guix build --no-substitutes %s >&2\n", drv)
		fmt.Fprintf(&sh, "guix archive --export %s >%s/built\n", path, in.name)
		p.fresh(t, setUp+sh.String())
		got := exported(t, in.read(t, "built"), signature.NewACL(k.Public()))
		if len(got) != 1 || got[0].Path != path {
			t.Fatalf("%d items", len(got))
		}
		if got[0].NarHash != want {
			t.Errorf("guix-daemon made %x, our builders %x", got[0].NarHash, want)
		}
		if got[0].Deriver.String() != drv {
			t.Errorf("deriver %s", got[0].Deriver)
		}
		info := fetch(t, url+"/"+path.Hash()+".narinfo", signature.NewACL(track))
		if info.NarHash != want || !slices.Equal(got[0].References, info.References) {
			t.Errorf("the depot says %x %q, guix-daemon %q", info.NarHash, info.References, got[0].References)
		}
		t.Logf("guix-daemon fetched the inputs and built %s in %v: nar hash %s, as our two builders made", path.Name(), time.Since(begin).Round(time.Second), storepath.EncodeBase32(want[:]))
	})
}

// fingerprint is the digest of a zone's first root.
func fingerprint(t *testing.T, zone string) string {
	t.Helper()
	text, _, _ := bytes.Cut(read(t, filepath.Join(zone, "public", "root", "1")), []byte("\n\n"))
	return fmt.Sprintf("%x", sha256.Sum256(append(text, '\n')))
}

// depot starts one and returns its URL.
func depot(t *testing.T, station, zone string) string {
	t.Helper()
	cmd := exec.Command(station, "depot", "serve", "--zone", zone, "--root", fingerprint(t, zone), "--track", "dev", "--listen", "127.0.0.1:0", "--json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var l struct{ URL string }
	if err != nil || json.Unmarshal(line, &l) != nil || l.URL == "" {
		t.Fatalf("the depot did not start: %v %s %s", err, line, stderr.String())
	}
	return l.URL
}

func fetch(t *testing.T, url string, acl signature.ACL) *narinfo.NarInfo {
	t.Helper()
	client := &http.Client{Timeout: time.Minute}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, narinfo.MaxSize))
	if err != nil {
		t.Fatal(err)
	}
	info, err := narinfo.Verify(body, acl)
	if err != nil {
		t.Fatalf("%s: %s: %v", url, res.Status, err)
	}
	return info
}
