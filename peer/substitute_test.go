//go:build peer

package peer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// A server offers items as a depot does, from memory, and remembers what it was asked.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string][]byte
	asked []string
}

func serve(t *testing.T) *server {
	t.Helper()
	s := &server{files: map[string][]byte{"/nix-cache-info": []byte("StoreDir: /gnu/store\nWantMassQuery: 0\nPriority: 100\n")}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.EscapedPath())
		data, ok := s.files[r.URL.EscapedPath()] // Guix asks for what the narinfo says, to the letter
		s.mu.Unlock()
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	}))
	s.Config.ReadHeaderTimeout = 10 * time.Second
	t.Cleanup(s.Close)
	return s
}

// nars counts the archives that were asked for.
func (s *server) nars() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, a := range s.asked {
		if strings.HasPrefix(a, "/nar/") {
			n++
		}
	}
	return n
}

// offer signs it with k and serves its archive, or content in its place if that is not nil.
func (s *server) offer(t *testing.T, it item, k signature.SecretKey, compression string, content []byte) {
	t.Helper()
	n := &narinfo.NarInfo{StorePath: it.path, NarHash: sha256.Sum256(it.nar), NarSize: int64(len(it.nar)), References: it.refs}
	if content == nil {
		content = it.nar
	}
	if compression == "gzip" {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(content)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		content = b.Bytes()
	}
	url := narinfo.ItemURL("nar", compression, it.path)
	n.Files = []narinfo.File{{URL: url, Compression: compression, FileSize: int64(len(content))}}
	body, err := narinfo.Sign(n, "depot", k)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files["/"+it.path.Hash()+".narinfo"] = body
	s.files["/"+url] = content
}

// tree is a small item with a bit of everything.
func tree(t *testing.T, name string) item {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, n := range []struct {
		h    nar.Header
		text string
	}{
		{nar.Header{Type: nar.Directory}, ""},
		{nar.Header{Path: "bin", Type: nar.Directory}, ""},
		{nar.Header{Path: "bin/" + name, Type: nar.Regular, Executable: true}, "#!/bin/sh\n"},
		{nar.Header{Path: "empty", Type: nar.Directory}, ""},
		{nar.Header{Path: "link", Type: nar.Symlink, Target: "bin/" + name}, ""},
		{nar.Header{Path: "ñandú", Type: nar.Regular}, name},
	} {
		n.h.Size = int64(len(n.text))
		if err := w.WriteHeader(&n.h); err != nil {
			t.Fatal(err)
		}
		if n.h.Type == nar.Regular {
			if _, err := w.Write([]byte(n.text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return source(t, name, b.Bytes())
}

func TestSubstitute(t *testing.T) {
	p := start(t)
	k := key(t)
	in := p.folder(t)
	begin := install(t, in, key(t), signature.NewACL(k.Public()))

	// try asks Guix for an item and returns what it says, and the hash of what it got.
	try := func(t *testing.T, s *server, path storepath.Path) (result, string) {
		t.Helper()
		// guix build is content, and silent, when nobody offers the item; that it is there is seen by its hash.
		r := p.try(t, nil, "fresh", "sh", "-e", "-c", begin+fmt.Sprintf("guix build --substitute-urls=%s %s\nguix hash -S nar %s", s.URL, path, path))
		if r.code != 0 {
			return r, ""
		}
		return r, strings.TrimSpace(string(r.stdout))
	}
	hash := func(it item) string {
		sum := sha256.Sum256(it.nar)
		return storepath.EncodeBase32(sum[:])
	}

	for _, compression := range []string{"none", "gzip"} {
		t.Run(compression, func(t *testing.T) {
			s := serve(t)
			low := tree(t, "low")
			high := text(t, "high?=+_-.x", "I stand on "+low.path.String(), low.path)
			s.offer(t, low, k, compression, nil)
			s.offer(t, high, k, compression, nil)
			r, got := try(t, s, high.path)
			if got != hash(high) {
				t.Errorf("exit status %d, hash %q, want %s\n%s", r.code, got, hash(high), tail(r.stderr))
			}
			if s.nars() != 2 {
				t.Errorf("%d archives were asked for, want the item and what it stands on: %q", s.nars(), s.asked)
			}
		})
	}
	t.Run("another key", func(t *testing.T) {
		s := serve(t)
		it := tree(t, "item")
		s.offer(t, it, key(t), "gzip", nil)
		if r, _ := try(t, s, it.path); r.code == 0 || s.nars() > 0 {
			t.Errorf("exit status %d, %q\n%s", r.code, s.asked, tail(r.stderr))
		}
		if len(s.asked) == 0 {
			t.Error("Guix never asked")
		}
	})
	t.Run("another archive", func(t *testing.T) {
		s := serve(t)
		it, other := tree(t, "item"), tree(t, "evil")
		s.offer(t, it, k, "gzip", other.nar)
		r, _ := try(t, s, it.path)
		if r.code == 0 || s.nars() == 0 || !bytes.Contains(r.stderr, []byte("hash mismatch")) {
			t.Errorf("exit status %d, %q\n%s", r.code, s.asked, tail(r.stderr))
		}
	})
	t.Run("a changed signed line", func(t *testing.T) {
		s := serve(t)
		it := tree(t, "item")
		s.offer(t, it, k, "gzip", nil)
		name := "/" + it.path.Hash() + ".narinfo"
		s.files[name] = bytes.Replace(s.files[name], []byte("NarSize: "), []byte("NarSize: 1"), 1)
		if r, _ := try(t, s, it.path); r.code == 0 || s.nars() > 0 {
			t.Errorf("exit status %d, %q\n%s", r.code, s.asked, tail(r.stderr))
		}
	})
}
