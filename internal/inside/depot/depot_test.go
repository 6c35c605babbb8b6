package depot

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/serve"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

// A served enclave: a source, a derivation with an output that is agreed on, all signed; and a depot in front of it.
type house struct {
	*enclavetest.Enclave
	depot    *Depot
	url      string
	src, drv enclavetest.Content
	out      enclavetest.Out
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{Enclave: enclavetest.New(t)}
	h.src = h.Source("src", strings.Repeat("source\n", 100_000))
	h.drv = h.Derivation("hello-1.0", h.src)
	h.Allow("dev", h.src, h.drv)
	h.out = enclavetest.Out{Path: h.drv.Output("out"), Nar: enclavetest.Nar("hello"), References: []string{h.src.Path()}}
	h.Vote("erin", h.drv, h.out)
	h.Vote("frank", h.drv, h.out)
	h.sign(h.src.Path(), h.src.Data)
	h.sign(h.drv.Path(), enclavetest.Nar(string(h.drv.Data)), h.src.Path())
	h.sign(h.out.Path, h.out.Nar, h.src.Path())
	h.serve(t)
	return h
}

func (h *house) serve(t testing.TB) {
	t.Helper()
	h.depot = &Depot{Zone: h.Zone, Track: "dev", Log: h.Log.Logger()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := h.depot.Server()
	done := make(chan struct{})
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serve: %v", err)
		}
		close(done)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	h.url = "http://" + l.Addr().String()
}

func path(t testing.TB, s string) storepath.Path {
	t.Helper()
	p, err := storepath.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (h *house) info(item string, nar []byte, refs ...string) *narinfo.NarInfo {
	n := &narinfo.NarInfo{StorePath: path(h.T, item), NarHash: trust.Sum(nar), NarSize: int64(len(nar))}
	for _, r := range refs {
		n.References = append(n.References, path(h.T, r))
	}
	return n
}

func (h *house) sign(item string, nar []byte, refs ...string) {
	h.Enclave.Sign("dev", h.info(item, nar, refs...), enclavetest.TrackKey(h.T, "dev"))
}

// do makes a request with the path as it is written.
func do(t testing.TB, method, base, path string) (*http.Response, []byte) {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Method: method, URL: &url.URL{Scheme: "http", Host: u.Host, Opaque: path}, Host: u.Host, Header: http.Header{}}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res, body
}

func (h *house) get(t testing.TB, path string) []byte {
	t.Helper()
	res, body := do(t, "GET", h.url, path)
	if res.StatusCode != 200 {
		t.Fatalf("GET %s: %s: %s %s", path, res.Status, res.Header.Get(serve.ReasonHeader), body)
	}
	if res.ContentLength != int64(len(body)) {
		t.Errorf("GET %s: Content-Length %d, %d bytes", path, res.ContentLength, len(body))
	}
	head, none := do(t, "HEAD", h.url, path)
	if head.StatusCode != 200 || len(none) != 0 || head.Header.Get("Content-Length") != strconv.Itoa(len(body)) || head.Header.Get("Content-Type") != res.Header.Get("Content-Type") {
		t.Errorf("HEAD %s: %s, %v", path, head.Status, head.Header)
	}
	return body
}

// refused demands a code and a reason.
func (h *house) refused(t testing.TB, path string, code int, reason string) {
	t.Helper()
	res, body := do(t, "GET", h.url, path)
	if got := res.Header.Get(serve.ReasonHeader); res.StatusCode != code || got != reason {
		t.Errorf("GET %s: %s, %q, want %d, %q: %s", path, res.Status, got, code, reason, body)
	} else if reason != "" {
		suite.Seen(reason)
	}
	if len(body) == 0 || res.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("GET %s: %q, %v", path, body, res.Header)
	}
}

func (h *house) narinfoPath(item string) string { return "/" + path(h.T, item).Hash() + ".narinfo" }
func narPath(item string) string                { return "/nar/" + strings.TrimPrefix(item, storepath.Dir+"/") }

func TestServe(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	acl := signature.NewACL(enclavetest.TrackKey(t, "dev").Public())
	for item, want := range map[string][]byte{h.src.Path(): h.src.Data, h.drv.Path(): enclavetest.Nar(string(h.drv.Data)), h.out.Path: h.out.Nar} {
		n, err := narinfo.Verify(h.get(t, h.narinfoPath(item)), acl)
		if err != nil || n.StorePath.String() != item {
			t.Errorf("%s: %v", item, err)
			continue
		}
		if got := h.get(t, "/"+n.Files[0].URL); !bytes.Equal(got, want) || trust.Digest(n.NarHash) != trust.Sum(got) {
			t.Errorf("%s: another nar", item)
		}
	}
	if b := h.get(t, "/nix-cache-info"); !strings.Contains(string(b), "StoreDir: /gnu/store\n") {
		t.Errorf("%s", b)
	}
	if k, err := signature.ParsePublicKey(h.get(t, "/signing-key.pub")); err != nil || k.Hex() != enclavetest.TrackKey(t, "dev").Public().Hex() {
		t.Error(err)
	}
	var head Head
	if err := json.Unmarshal(h.get(t, "/sallyport/head"), &head); err != nil || head != (Head{enclavetest.Name, "dev", 1, 0, 1}) {
		t.Errorf("%+v, %v", head, err)
	}
	root, err := trust.OpenRoot(h.get(t, "/sallyport/root/1"), h.Pin())
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := trust.OpenAllowlist(h.get(t, "/sallyport/allowlist/1"), root, nil); err != nil {
		t.Error(err)
	}
	var ev Evidence
	if err := json.Unmarshal(h.get(t, "/sallyport/evidence/"+h.drv.Name), &ev); err != nil || len(ev.Statements) != 2 {
		t.Errorf("%+v, %v", ev, err)
	}
	for _, s := range ev.Statements {
		data, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		if env, err := statement.ParseEnvelope(data); err != nil || env.Kind() != statement.KindBuilt {
			t.Error(err)
		}
	}
	if b := h.get(t, "/sallyport/blob/"+h.drv.Name); !bytes.Equal(b, h.drv.Data) {
		t.Error("another derivation")
	}
	if b := h.get(t, "/sallyport/ledger/checkpoint"); !strings.HasPrefix(string(b), "sallyport/keep/inside\n") {
		t.Errorf("%s", b)
	}
	if log := h.Log.String(); log != "" {
		t.Errorf("log: %s", log)
	}
}

// Whatever else is asked for.
func TestPages(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	hash := path(t, h.src.Path()).Hash()
	for _, p := range []string{
		"/", "//", "/nar", "/nar/", "/nar/x", "/nar/" + hash, "/nar/" + hash + "-", "/x/y/z", "/sallyport", "/sallyport/", "/sallyport/x", "/sallyport/root", "/sallyport/root/0", "/sallyport/root/01",
		"/sallyport/root/2", "/sallyport/root/-1", "/sallyport/root/1/2", "/sallyport/allowlist/99", "/sallyport/ledger", "/sallyport/ledger/nothing", "/sallyport/ledger/checkpoint/x", "/sallyport/ledger/tile",
		"/sallyport/ledger/../root/1", "/sallyport/ledger/%2e%2e/root/1", "/sallyport/ledger/..%2froot%2f1", "/nar/%2e%2e/x", "/nar/" + hash + "-src%00", "/nar/" + hash + "-other",
		"/sallyport/blob/" + strings.TrimPrefix(h.src.Path(), storepath.Dir+"/"),
	} {
		h.refused(t, p, 404, "")
	}
	for _, p := range []string{"/x.narinfo", "/" + strings.Repeat("0", 32) + ".narinfo", "/" + strings.ToUpper(hash) + ".narinfo", "/nar/" + strings.Repeat("0", 32) + "-x", "/sallyport/evidence/x", "/sallyport/blob/x",
		"/sallyport/evidence/" + strings.TrimPrefix(h.src.Path(), storepath.Dir+"/"), "/" + hash + "x.narinfo", "/.narinfo"} {
		h.refused(t, p, 404, "not-allowed")
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "X"} {
		res, _ := do(t, method, h.url, "/nix-cache-info")
		if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s", method, res.Status)
		}
	}
}

// ? and + in names, encoded or not.
func TestEscapes(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	odd := h.Source("gtk+-3.0?x=1", "odd")
	h.Allow("dev", odd)
	h.sign(odd.Path(), odd.Data)
	base := strings.TrimPrefix(odd.Path(), storepath.Dir+"/")
	encoded := strings.ReplaceAll(base, "?", "%3F")
	for _, p := range []string{"/nar/" + encoded, "/nar/" + strings.ReplaceAll(encoded, "+", "%2B"), "/nar/" + strings.ReplaceAll(encoded, "=", "%3d"), "/" + narURL(t, h, odd)} {
		if got := h.get(t, p); !bytes.Equal(got, odd.Data) {
			t.Errorf("%s: another nar", p)
		}
	}
	// Unescaped it is a query, and the name another.
	h.refused(t, "/nar/"+base, 404, "")
}

func narURL(t *testing.T, h *house, c enclavetest.Content) string {
	t.Helper()
	n, err := narinfo.Parse(h.get(t, h.narinfoPath(c.Path())))
	if err != nil {
		t.Fatal(err)
	}
	return n.Files[0].URL
}

// What root on the station writes into rows is not served.
func TestForgedRows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	evil := h.Source("evil", "evil")
	h.Put(evil.Data)
	track := enclavetest.TrackKey(t, "dev")
	// Signed even, by a stolen key: nobody allowed it.
	h.sign(evil.Path(), evil.Data)
	h.refused(t, h.narinfoPath(evil.Path()), 404, "not-allowed")
	h.refused(t, narPath(evil.Path()), 404, "not-allowed")
	more := h.Source("more", "more")
	h.Allow("dev", more)
	h.refused(t, h.narinfoPath(more.Path()), 404, "not-signed")
	p := path(t, more.Path())
	for what, body := range map[string][]byte{
		"another track's key": h.Enclave.Sign("prod", h.info(more.Path(), more.Data), enclavetest.TrackKey(t, "prod")),
		"nonsense":            []byte("StorePath: x\n"),
		"nothing":             {},
	} {
		h.Narinfo("dev", p, body)
		res, _ := do(t, "GET", h.url, h.narinfoPath(more.Path()))
		if res.StatusCode != 404 || res.Header.Get(serve.ReasonHeader) != "narinfo-signature" {
			t.Errorf("%s: %s, %s", what, res.Status, res.Header.Get(serve.ReasonHeader))
		}
	}
	suite.Seen("narinfo-signature")
	for what, n := range map[string]*narinfo.NarInfo{
		"another item":       h.info(h.src.Path(), h.src.Data),
		"another nar":        h.info(more.Path(), evil.Data),
		"another size":       {StorePath: p, NarHash: more.SHA256, NarSize: more.Size + 8},
		"another references": h.info(more.Path(), more.Data, h.src.Path()),
	} {
		n.Files = []narinfo.File{{URL: "nar/x", Compression: "none"}}
		body, err := narinfo.Sign(n, "keep", track)
		if err != nil {
			t.Fatal(err)
		}
		h.Narinfo("dev", p, body)
		res, _ := do(t, "GET", h.url, h.narinfoPath(more.Path()))
		if res.StatusCode != 404 || res.Header.Get(serve.ReasonHeader) != "narinfo-content" {
			t.Errorf("%s: %s, %s", what, res.Status, res.Header.Get(serve.ReasonHeader))
		}
	}
	h.sign(more.Path(), more.Data)
	h.get(t, h.narinfoPath(more.Path()))
}

// A blob that rots, is cut or gone: refused, or cut before its last byte.
func TestRottenBlobs(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	blob := func(c enclavetest.Content) string {
		d := c.SHA256.String()
		file := filepath.Join(h.Zone.Dir, "cas", d[:2], d)
		if err := os.Chmod(file, 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	src, drv := blob(h.src), blob(h.drv)
	rot := func(file string, data []byte, at int) {
		data = bytes.Clone(data)
		data[at] ^= 1
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int{0, len(h.src.Data) / 2, len(h.src.Data) - 1} {
		rot(src, h.src.Data, at)
		res, err := http.Get(h.url + narPath(h.src.Path()))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err == nil || len(body) >= len(h.src.Data) {
			t.Errorf("byte %d is rotten: %d of %d bytes came, %v", at, len(body), len(h.src.Data), err)
		}
	}
	if !strings.Contains(h.Log.String(), "answer cut") {
		t.Errorf("log: %s", h.Log)
	}
	for _, c := range []int{0, 100, len(h.src.Data) - 1} {
		if err := os.Truncate(src, int64(c)); err != nil {
			t.Fatal(err)
		}
		h.refused(t, narPath(h.src.Path()), 404, "item-lost")
		if err := os.WriteFile(src, h.src.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h.get(t, narPath(h.src.Path()))
	rot(drv, h.drv.Data, 20)
	h.get(t, h.narinfoPath(h.out.Path)) // what was judged already
	h.refused(t, "/sallyport/blob/"+h.drv.Name, 404, "item-lost")
	h.refused(t, narPath(h.drv.Path()), 404, "item-lost")
	if err := os.Remove(drv); err != nil {
		t.Fatal(err)
	}
	h.refused(t, "/sallyport/blob/"+h.drv.Name, 404, "item-lost")
}

// The depot follows the ledger: what comes in is served, what builders contest is not, and what was verified is kept.
func TestFollows(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.get(t, h.narinfoPath(h.out.Path))
	h.get(t, h.narinfoPath(h.src.Path()))
	first := h.depot.state.Load()
	if len(first.kept) != 2 {
		t.Errorf("%d narinfos are kept", len(first.kept))
	}
	// An entry that says nothing to a depot costs nothing.
	h.Commit(func(tx *store.Tx) error {
		return tx.Statement(statement.KindSigned, []statement.Subject{{Name: "x"}}, map[string]any{"track": "dev"})
	})
	h.get(t, h.narinfoPath(h.src.Path()))
	if s := h.depot.state.Load(); s == first || s.view != first.view || len(s.kept) != 2 {
		t.Error("the state was not kept")
	}
	evil := h.out
	evil.Nar = enclavetest.Nar("evil")
	h.Vote("greg", h.drv, evil)
	h.Exec(`DELETE FROM built`) // root on the station hides the dissent, and all else
	h.refused(t, h.narinfoPath(h.out.Path), 404, "not-allowed")
	h.refused(t, narPath(h.out.Path), 404, "not-allowed")
	var ev Evidence
	if err := json.Unmarshal(h.get(t, "/sallyport/evidence/"+h.drv.Name), &ev); err != nil || len(ev.Statements) != 3 {
		t.Errorf("%+v, %v", ev, err)
	}
	more := h.Source("more", "more")
	h.Allow("dev", more)
	h.sign(more.Path(), more.Data)
	h.get(t, h.narinfoPath(more.Path()))
	h.NextRoot(nil)
	var head Head
	if err := json.Unmarshal(h.get(t, "/sallyport/head"), &head); err != nil || head.Root != 2 || head.Allowlist != 2 {
		t.Errorf("%+v, %v", head, err)
	}
	for i := range MaxEvidence {
		h.Vote("erin", h.drv, enclavetest.Out{Path: h.out.Path, Nar: enclavetest.Nar(fmt.Sprint(i))})
	}
	h.refused(t, "/sallyport/evidence/"+h.drv.Name, 404, "quorum-size")
}

// A document that does not verify any more ends all service until it is mended, with one line in the log.
func TestFailsClosed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.get(t, h.narinfoPath(h.src.Path()))
	everything := func(reason string) {
		t.Helper()
		for _, p := range []string{h.narinfoPath(h.src.Path()), narPath(h.src.Path()), "/sallyport/head", "/sallyport/evidence/" + h.drv.Name, "/sallyport/root/1", "/signing-key.pub"} {
			res, body := do(t, "GET", h.url, p)
			if res.StatusCode != 503 || res.Header.Get(serve.ReasonHeader) != reason || !strings.Contains(string(body), "until this is mended") {
				t.Errorf("GET %s: %s, %q, want %q", p, res.Status, res.Header.Get(serve.ReasonHeader), reason)
			}
		}
		h.get(t, "/nix-cache-info")
	}
	// A root without one of the two who signed the list.
	h.NextRoot(enclavetest.Without("alice", trust.ContextAllowlist))
	everything("allowlist-threshold")
	if n := strings.Count(h.Log.String(), "the depot serves nothing"); n != 1 || !strings.Contains(h.Log.String(), "allowlist-threshold") {
		t.Errorf("%d lines: %s", n, h.Log)
	}
	h.Enter(h.List("dev"), true, "bob", "rita")
	h.get(t, h.narinfoPath(h.src.Path()))
	if !strings.Contains(h.Log.String(), "serves again") {
		t.Errorf("log: %s", h.Log)
	}
	// A list that is older than the depot's floor, put back for a depot that was started anew.
	h.Exec(`DELETE FROM allowlist WHERE version = 2`)
	h.NextRoot(func(r *trust.Root) { r.Keys = append(r.Keys, enclavetest.Key(t, "alice/allowlist").RootKey()) })
	everything("allowlist-rollback")
	h.serve(t)
	if err := h.depot.Check(t.Context()); err == nil {
		t.Error("a depot with an older list started")
	}
	everything("allowlist-rollback")
	// A ledger whose entries are not those that are signed.
	other := newHouse(t)
	other.get(t, "/sallyport/head")
	other.Vote("greg", other.drv, other.out)
	other.Exec(`UPDATE entry SET leaf = (SELECT leaf FROM entry WHERE idx = 0) WHERE idx = (SELECT max(idx) FROM entry)`)
	h = other
	everything("ledger-entry")
	// And one that is not there.
	if err := os.Remove(filepath.Join(h.Zone.Dir, "public", "ledger", "checkpoint")); err != nil {
		t.Fatal(err)
	}
	everything("")
}

func TestTracks(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	d := &Depot{Zone: h.Zone, Track: "prod", Log: h.Log.Logger()}
	suite.Want(t, d.Check(t.Context()), "no-allowlist")
	h.NextRoot(func(r *trust.Root) {
		enclavetest.Without("prod", trust.ContextNarinfo)(r)
	})
	h.Allow("prod", h.src)
	suite.Want(t, (&Depot{Zone: h.Zone, Track: "prod", Log: h.Log.Logger()}).Check(t.Context()), "no-track")
}

// TestServer: it has the limits that the manual says.
func TestServer(t *testing.T) {
	t.Parallel()
	srv := (&Depot{Log: slog.New(slog.DiscardHandler)}).Server()
	if srv.ReadTimeout != 30*time.Second || srv.WriteTimeout != serve.StallTime || srv.ReadHeaderTimeout != serve.HeadTime {
		t.Errorf("%+v", srv)
	}
}

// BenchmarkNarinfo: requests on kept-alive connections, each client waiting for its answer before it asks again.
func BenchmarkNarinfo(b *testing.B) {
	h := newHouse(b)
	for _, clients := range []int{1, 16, 64} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) { h.load(b, clients, h.narinfoPath(h.src.Path())) })
	}
}

// load has clients ask for a path b.N times, all together.
func (h *house) load(b *testing.B, clients int, path string) {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: depot\r\nUser-Agent: GNU Guile\r\nAccept: */*\r\n\r\n")
	want := len(h.get(b, path))
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range clients {
		n := b.N / clients
		if i < b.N%clients {
			n++
		}
		wg.Go(func() {
			conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
			if err != nil {
				b.Error(err)
				return
			}
			defer conn.Close()
			r := bufio.NewReader(conn)
			for range n {
				if _, err := conn.Write(request); err != nil {
					b.Error(err)
					return
				}
				if err := answer(r, want); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// answer reads one answer: 200, and a body of the size that is wanted.
func answer(r *bufio.Reader, want int) error {
	length := -1
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if first && !bytes.Equal(line, []byte("HTTP/1.1 200 OK\r\n")) {
			return fmt.Errorf("%s", line)
		}
		if len(line) == 2 {
			break
		}
		if v, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(v))); err != nil {
				return err
			}
		}
	}
	if length != want {
		return fmt.Errorf("%d bytes, want %d", length, want)
	}
	_, err := r.Discard(length)
	return err
}
