package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// A depot is a running depot.
type depot struct {
	w   *world
	url string
	cmd *exec.Cmd
	log *safeBuffer
}

// A safeBuffer may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

var client = &http.Client{Timeout: limit}

// depot starts a depot and stops it with the test.
func (w *world) depot() *depot {
	w.t.Helper()
	return w.depotOf(track)
}

// depotOf is depot of another track.
func (w *world) depotOf(track string) *depot {
	w.t.Helper()
	d, r := w.tryDepotOf(track)
	if d == nil {
		w.t.Fatalf("the depot did not start: %v", r)
	}
	return d
}

// tryDepot starts a depot; if it does not start, the result says why.
func (w *world) tryDepot() (*depot, *result) {
	w.t.Helper()
	return w.tryDepotOf(track)
}

func (w *world) tryDepotOf(track string) (*depot, *result) {
	w.t.Helper()
	args := []string{station, "depot", "serve", "--zone", "inside", "--root", w.fingerprint(), "--track", track, "--listen", "127.0.0.1:0", "--json"}
	d := &depot{w: w, cmd: w.command(context.Background(), args), log: &safeBuffer{}}
	d.cmd.Stderr = d.log
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	var l struct{ URL string }
	if err == nil {
		err = json.Unmarshal(line, &l)
	}
	if err != nil || l.URL == "" {
		d.cmd.Wait()
		return nil, &result{args: args, code: d.cmd.ProcessState.ExitCode(), stdout: line, stderr: []byte(d.log.String())}
	}
	d.url = l.URL
	w.t.Cleanup(d.stop)
	return d, nil
}

func (d *depot) stop() {
	if d.cmd.ProcessState != nil {
		return
	}
	d.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.AfterFunc(limit, func() { d.cmd.Process.Kill() })
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		d.w.t.Errorf("the depot ended with %v: %s", err, d.log)
	}
}

// fetch takes an item from a depot as a client would, believing only the track's key and what it hashes. A depot that does not serve it says why.
func fetch(url, base string, acl signature.ACL) (info *narinfo.NarInfo, reason string, err error) {
	p, err := storepath.ParseBase(base)
	if err != nil {
		return nil, "", err
	}
	body, reason, err := download(url + "/" + p.Hash() + ".narinfo")
	if err != nil || reason != "" {
		return nil, reason, err
	}
	if info, err = narinfo.Verify(body, acl); err != nil {
		return nil, "", fmt.Errorf("narinfo of %s: %w", base, err)
	}
	if info.StorePath != p {
		return nil, "", fmt.Errorf("narinfo of %s is about %s", base, info.StorePath)
	}
	body, reason, err = download(url + "/" + info.Files[0].URL)
	if err != nil || reason != "" {
		return nil, reason, fmt.Errorf("a narinfo of %s is served, its nar is not: %q %w", base, reason, err)
	}
	if int64(len(body)) != info.NarSize || sha256.Sum256(body) != info.NarHash {
		return nil, "", fmt.Errorf("%s: %d bytes were served that are not the nar that was signed", base, len(body))
	}
	return info, "", nil
}

// download gets a URL; any answer but 200 and 404 is an error.
func download(url string) (body []byte, reason string, err error) {
	res, err := client.Get(url)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return nil, "", fmt.Errorf("%s: the answer was cut: %w", url, err)
	}
	switch res.StatusCode {
	case http.StatusOK:
		return body, "", nil
	case http.StatusNotFound:
		if reason = res.Header.Get("Sallyport-Reason"); reason == "" {
			reason = strings.TrimSpace(string(body))
		}
		return nil, reason, nil
	}
	return nil, "", fmt.Errorf("%s: %s: %s", url, res.Status, body)
}
