//go:build peer

package peer

import (
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	serving "sallyport/internal/inside/depot"
	"sallyport/internal/inside/signer"
	"sallyport/internal/trust"
)

// A tracked enclave has one item on dev and on prod, each with a depot and a Guix key of its own.
type tracked struct {
	*enclavetest.Enclave
	item enclavetest.Content
	url  map[string]string
}

func newTracked(t *testing.T) *tracked {
	t.Helper()
	e := &tracked{Enclave: enclavetest.New(t), url: map[string]string{}}
	e.item = e.Source("goods-1.0", "carried\n")
	e.Quarantine("dave", e.item)
	for _, track := range []string{"dev", "prod"} {
		e.Allow(track, e.item)
		e.sign(track, enclavetest.TrackKey(t, track))
		d := &serving.Depot{Zone: e.Zone, Track: track, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
		if err := d.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(d.Server().Handler)
		t.Cleanup(s.Close)
		e.url[track] = s.URL
	}
	return e
}

func (e *tracked) sign(track string, k signature.SecretKey) {
	e.T.Helper()
	s := &signer.Signer{Zone: e.Zone, Root: e.Root, Track: track, Key: k, Host: "station"}
	if _, err := s.Sign(e.T.Context()); err != nil {
		e.T.Fatal(err)
	}
}

// get is a piece of script that takes the item from a track's depot, and demands that it comes, or that it does not. What Guix remembers of narinfos is forgotten
// first, as it is by itself when their time is over.
func (e *tracked) get(track string, comes bool) string {
	path := storepath.Dir + "/" + e.item.Name
	test := "test -e " + path
	if !comes {
		test = "test ! -e " + path
	}
	return fmt.Sprintf("rm -rf /var/guix/substitute/cache\nguix build --substitute-urls=%s %s >&2 || true\n%s\n", e.url[track], path, test)
}

// meet stops a script until the host has done something.
func meet(t *testing.T, in folder, n int, do func()) (script string) {
	t.Helper()
	here, there := fmt.Sprintf("here-%d", n), fmt.Sprintf("there-%d", n)
	go func() {
		for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if _, err := os.Stat(filepath.Join(in.host, here)); err == nil {
				do()
				os.WriteFile(filepath.Join(in.host, there), nil, 0o644)
				return
			}
		}
	}()
	return fmt.Sprintf("touch %s/%s\nwhile [ ! -e %[1]s/%s ]; do sleep 0.1; done\n", in.name, here, there)
}

// TestTracks is the client's side: the real Guix, which has authorised one track's key, and knows nothing of allowlists.
func TestTracks(t *testing.T) {
	p := start(t)
	client := func(t *testing.T, k signature.SecretKey) (folder, string) {
		t.Helper()
		in := p.folder(t)
		return in, install(t, in, key(t), signature.NewACL(k.Public()))
	}
	run := func(t *testing.T, script ...string) {
		t.Helper()
		r := p.try(t, nil, "fresh", "sh", "-e", "-c", strings.Join(script, ""))
		if r.code != 0 {
			t.Errorf("exit status %d\n%s", r.code, tail(r.stderr))
		}
	}

	t.Run("its track, and no other", func(t *testing.T) {
		e := newTracked(t)
		_, begin := client(t, enclavetest.TrackKey(t, "prod"))
		// The same item, signed for dev, is refused; signed for prod it is taken.
		run(t, begin, e.get("dev", false), e.get("prod", true))
	})

	t.Run("after a recall", func(t *testing.T) {
		e := newTracked(t)
		in, begin := client(t, enclavetest.TrackKey(t, "prod"))
		path := storepath.Dir + "/" + e.item.Name
		recall := meet(t, in, 1, func() {
			e.Order(func(o *trust.Orders) {
				o.Recalls = append(o.Recalls, trust.Recall{SHA256: e.item.SHA256, Name: e.item.Name, Date: o.Date, Reason: "a back door"})
			})
		})
		run(t, begin, e.get("prod", true), fmt.Sprintf("guix gc -D %s >&2\ntest ! -e %[1]s\n", path),
			recall,
			// While Guix remembers the narinfo it asks for the archive, and gets none.
			fmt.Sprintf("guix build --substitute-urls=%s %s >&2 || true\ntest ! -e %[2]s\n", e.url["prod"], path),
			e.get("prod", false), e.get("dev", false))
	})

	t.Run("after a rotation", func(t *testing.T) {
		e := newTracked(t)
		fresh := key(t)
		in, begin := client(t, enclavetest.TrackKey(t, "prod"))
		path := storepath.Dir + "/" + e.item.Name
		both, beginBoth := client(t, enclavetest.TrackKey(t, "prod"))
		rotate := func() {
			e.NextRoot(func(r *trust.Root) {
				for i, k := range r.Keys {
					if k.Context == trust.ContextNarinfo && k.Owner == "prod" {
						q := fresh.Public().Q()
						r.Keys[i].Key = hex.EncodeToString(q[:])
					}
				}
			})
			e.sign("prod", fresh)
		}
		// Whoever has authorised the new key beforehand sees no gap.
		acl := both.write(t, "acl-both", signature.NewACL(enclavetest.TrackKey(t, "prod").Public(), fresh.Public()).Bytes(), 0o644)
		run(t, beginBoth, fmt.Sprintf("cp %s /etc/guix/acl\n", acl), e.get("prod", true), fmt.Sprintf("guix gc -D %s >&2\n", path),
			meet(t, both, 1, rotate), e.get("prod", true))
		// Whoever has only the old one takes nothing any more.
		run(t, begin, e.get("prod", false))
		_ = in
	})
}
