//go:build peer

package peer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/guix/archive"
	"sallyport/guix/signature"
)

// needs are the streams that have to be in the store before another.
var needs = map[string]string{"ok-ref-b.nar": "ok-ref-a.nar", "ok-built-deriver.nar": firstItem}

// firstItem is the first item of ok-built-closure.nar, in a stream of its own.
const firstItem = "first-item"

// TestVerdicts asks the daemon again. Each stream meets an empty store.
func TestVerdicts(t *testing.T) {
	p := start(t)
	folder := filepath.Join(vectorsFolder, "archives")
	var verdicts []struct {
		File, Note, Output string
		Exit               int
	}
	if err := json.Unmarshal(read(t, filepath.Join(folder, "verdicts.json")), &verdicts); err != nil {
		t.Fatal(err)
	}
	if len(verdicts) < 90 {
		t.Fatalf("only %d verdicts", len(verdicts))
	}
	in := p.folder(t)
	for _, acl := range []string{"acl", "acl-with-rsa"} {
		in.write(t, acl, read(t, filepath.Join(folder, acl)), 0o644)
	}
	streams, err := filepath.Glob(filepath.Join(folder, "*.nar"))
	if err != nil || len(streams) < 90 {
		t.Fatalf("only %d streams: %v", len(streams), err)
	}
	for _, s := range streams {
		data := read(t, s)
		// Whatever became of the list of names: such a path never reaches a daemon.
		for _, path := range []string{"/gnu/store/..", "/gnu/store/./", "/gnu/store//"} {
			if bytes.Contains(data, []byte(path)) {
				t.Fatalf("%s has the path %q: a daemon that takes it erases its store", s, path)
			}
		}
		in.write(t, filepath.Base(s), data, 0o644)
	}
	in.write(t, firstItem, first(t, folder), 0o644)
	// Two at a time: each spends its time waiting for a daemon to come up.
	asked := 0
	t.Run("streams", func(t *testing.T) {
		for i, v := range verdicts {
			if v.File == dangerous { // not among these files either: see TestDanger
				continue
			}
			asked++
			if _, err := os.Stat(filepath.Join(in.host, v.File)); err != nil {
				t.Fatal(err)
			}
			t.Run(fmt.Sprintf("%02d-%s", i, v.File), func(t *testing.T) {
				t.Parallel()
				acl := "acl"
				if strings.Contains(v.Note, "acl-with-rsa") {
					acl = "acl-with-rsa"
				}
				sh := fmt.Sprintf("cp %s/%s /etc/guix/acl\n", in.name, acl)
				if n, ok := needs[v.File]; ok {
					sh += fmt.Sprintf("guix archive --import <%s/%s\n", in.name, n)
				}
				sh += fmt.Sprintf("exec guix archive --import <%s/%s", in.name, v.File)
				r := p.try(t, nil, "fresh", "sh", "-e", "-c", sh)
				if r.code != v.Exit {
					t.Errorf("%s: exit status %d, recorded is %d\n%s\nrecorded: %s", v.Note, r.code, v.Exit, tail(r.stderr), v.Output)
				}
				if said := plain(string(r.stderr)); strings.HasPrefix(v.Output, "guix archive: ") && !strings.HasPrefix(said, plain(v.Output)) {
					t.Errorf("%s: it says\n%s\nrecorded is\n%s", v.Note, said, plain(v.Output))
				}
			})
		}
	})
	t.Logf("%d verdicts asked for again, %d left to TestDanger", asked, len(verdicts)-asked)
}

var (
	temporary = regexp.MustCompile(`nix-[0-9]+-[0-9]+`)
	address   = regexp.MustCompile(`#<closed: file [0-9a-f]+>`)
)

// plain is a message without what differs between runs. The recorded ones have single spaces.
func plain(s string) string {
	s = strings.Join(strings.Fields(strings.ToValidUTF8(s, "?")), " ")
	return address.ReplaceAllString(temporary.ReplaceAllString(s, "nix-N"), "#<closed: file>")
}

// first makes firstItem.
func first(t *testing.T, folder string) []byte {
	t.Helper()
	k, err := signature.ParseSecretKey(read(t, filepath.Join(folder, "authorised.TEST-ONLY.sec")))
	if err != nil {
		t.Fatal(err)
	}
	r := archive.NewReader(bytes.NewReader(read(t, filepath.Join(folder, "ok-built-closure.nar"))))
	z, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	var content, out bytes.Buffer
	if err := again(&content, z); err != nil {
		t.Fatal(err)
	}
	it, err := r.Item()
	if err != nil {
		t.Fatal(err)
	}
	w := archive.NewWriter(&out, k)
	if err := errors.Join(w.Add(it, &content), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
