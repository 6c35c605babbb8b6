package host

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// order puts orders in force as the officers' desk does.
func (s *estate) order(version int64, previous trust.Digest, change func(o *trust.Orders)) trust.Digest {
	t := s.e.T
	t.Helper()
	o := &trust.Orders{Enclave: enclavetest.Name, Version: version, Date: enclavetest.Epoch.Add(time.Minute), Root: s.e.Root.Version, Previous: previous}
	change(o)
	line, err := trust.SignText(o.Text(), enclavetest.Key(t, "olga/order"))
	if err != nil {
		t.Fatal(err)
	}
	s.e.Commit(func(tx *store.Tx) error {
		return errors.Join(tx.Publish(fmt.Sprintf("orders/%d", version), trust.JoinNote(o.Text(), line)),
			tx.Statement(statement.KindOrdered, []statement.Subject{{Name: fmt.Sprintf("orders %d", version), SHA256: o.Digest()}}, map[string]any{"version": version, "persons": []any{"olga"}}))
	})
	return o.Digest()
}

func recall(name string, sum trust.Digest) trust.Recall {
	return trust.Recall{SHA256: sum, Name: name, Date: enclavetest.Epoch, Reason: "it phones home"}
}

func TestOrders(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	first := s.order(1, trust.Digest{}, func(*trust.Orders) {})
	res := w.mustCheck()
	suite.Want(t, res.Err())
	if res.Documents.Orders != (Document{1, first}) {
		t.Errorf("%+v", res.Documents)
	}
	second := s.order(2, first, func(o *trust.Orders) { o.Recalls = []trust.Recall{recall(w.libOut, trust.Sum(w.libNar))} })
	res = w.mustCheck()
	want(t, res, map[string]string{w.libOut: Recalled, w.appOut: Affected})
	suite.Want(t, res.Err(), "host-recalled")
	if !strings.Contains(res.Err().Error(), "it phones home") {
		t.Error(res.Err())
	}
	// Whoever has seen orders never goes on without, or with older ones.
	for _, n := range []string{"2", "1"} {
		public := copyPublic(t, s.public)
		if err := os.Remove(filepath.Join(public, "orders", n)); err != nil {
			t.Fatal(err)
		}
		if n == "1" {
			if err := os.Remove(filepath.Join(public, "orders", "2")); err != nil {
				t.Fatal(err)
			}
		}
		other := *w
		e := *s
		e.public, other.estate = public, &e
		_, err := other.check()
		suite.Want(t, err, "host-document-old")
	}
	_ = second
}

// TestLedgerKeyChanged: a host follows the ledger to its new key by the roots, and believes nothing that the former one signs afterwards.
func TestLedgerKeyChanged(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	secret, err := os.ReadFile(filepath.Join(s.e.Zone.Dir, "keys", "ledger.key"))
	if err != nil {
		t.Fatal(err)
	}
	former, err := trust.ParseKey(secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	suite.Want(t, w.mustCheck().Err())
	s.e.Renew(trust.ContextCheckpoint)
	s.e.Renew(trust.ContextStatement)
	s.order(1, trust.Digest{}, func(*trust.Orders) {})
	suite.Want(t, w.mustCheck().Err())
	_, c, err := s.e.Zone.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ledger.SignCheckpoint(c, former)
	if err != nil {
		t.Fatal(err)
	}
	public := copyPublic(t, s.public)
	if err := os.WriteFile(filepath.Join(public, "ledger", "checkpoint"), forged, 0o644); err != nil {
		t.Fatal(err)
	}
	other, e := *w, *s
	e.public, other.estate = public, &e
	_, err = other.check()
	suite.Want(t, err, "checkpoint-unsigned")
}

// copyPublic copies a public directory, to be changed.
func copyPublic(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "public")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestBreakGlass(t *testing.T) {
	t.Parallel()
	s := &estate{}
	*s = *newEstate(t)
	s.e.NextRoot(func(r *trust.Root) { r.Policies[trust.PolicyBreakGlass] = "24" })
	w := s.world(t)
	fix := s.e.Source("fix.patch", "the fix")
	drv := s.e.Derivation("fixed-3", fix)
	out := enclavetest.Nar("fixed")
	for _, b := range []string{"erin", "frank"} {
		s.e.Vote(b, drv, enclavetest.Out{Path: drv.Output("out"), Nar: out})
	}
	w.content(fix)
	w.content(drv)
	w.add(base(drv.Output("out")), out, drv.Name)
	w.generation(profilesDir+"/fixed", 1, base(drv.Output("out")), true)
	glass := func(hours int) func(o *trust.Orders) {
		return func(o *trust.Orders) {
			for _, c := range []enclavetest.Content{fix, drv} {
				o.BreakGlass = append(o.BreakGlass, trust.BreakGlass{Track: "dev", Until: enclavetest.Epoch.Add(time.Duration(hours) * time.Hour), Item: c.Item, Date: enclavetest.Epoch, Reason: "tonight"})
			}
		}
	}
	w.rules.Local = true // they are not merely local
	first := s.order(1, trust.Digest{}, glass(2))
	res := w.mustCheck()
	want(t, res, map[string]string{fix.Name: BreakGlass, drv.Name: BreakGlass, base(drv.Output("out")): Agreed})
	w.rules.Local = false
	// An hour later than the officers said it is over.
	s.order(2, first, func(o *trust.Orders) {
		glass(2)(o)
		o.Date = enclavetest.Epoch.Add(3 * time.Hour)
	})
	res = w.mustCheck()
	want(t, res, map[string]string{fix.Name: Local, drv.Name: Local, base(drv.Output("out")): Local})
}

func TestFloor(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	old := copyPublic(t, s.public)
	suite.Want(t, w.mustCheck().Err())
	s.e.Allow("dev", s.e.Source("more", "more"))
	suite.Want(t, w.mustCheck().Err())
	// The old copy is consistent in itself, ledger and all: only the floor tells.
	s.public = old
	_, err := w.check()
	suite.Want(t, err, "allowlist-rollback")
	// A damaged floor is no lower one.
	w.write("/state/"+floorFile, "{}")
	if _, err := w.check(); err == nil || !strings.Contains(err.Error(), floorFile) {
		t.Error(err)
	}
}

func TestDamagedPublic(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	s.e.NextRoot(nil)
	tests := []struct {
		name  string
		make  func(dir string) error
		codes []string
	}{
		{"no root", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "root")) }, nil},
		{"another first root", func(dir string) error {
			return os.Rename(filepath.Join(dir, "root", "2"), filepath.Join(dir, "root", "1"))
		}, []string{"root-pin"}},
		{"the newest root is missing", func(dir string) error { return os.Remove(filepath.Join(dir, "root", "2")) }, []string{"host-document-old"}},
		{"no allowlist of the track", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "allowlist")) }, []string{"host-track"}},
		{"an allowlist under another number", func(dir string) error {
			return os.Rename(filepath.Join(dir, "allowlist", "dev", "1"), filepath.Join(dir, "allowlist", "dev", "7"))
		}, []string{"allowlist-version"}},
		{"an allowlist that nobody signed", func(dir string) error {
			return replace(filepath.Join(dir, "allowlist", "dev", "1"), "lib-1", "lib-2")
		}, []string{"allowlist-signature", "allowlist-signature"}},
		{"orders under another number", func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "orders"), 0o755); err != nil {
				return err
			}
			o := &trust.Orders{Enclave: enclavetest.Name, Version: 1, Date: enclavetest.Epoch, Root: 1}
			line, err := trust.SignText(o.Text(), enclavetest.Key(t, "olga/order"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "orders", "2"), trust.JoinNote(o.Text(), line), 0o644))
		}, []string{"orders-version"}},
		{"orders that no officer signed", func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "orders"), 0o755); err != nil {
				return err
			}
			o := &trust.Orders{Enclave: enclavetest.Name, Version: 1, Date: enclavetest.Epoch, Root: 1}
			line, err := trust.SignText(o.Text(), enclavetest.Key(t, "mallory/order"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "orders", "1"), trust.JoinNote(o.Text(), line), 0o644))
		}, []string{"orders-threshold"}},
		{"no ledger", func(dir string) error { return os.RemoveAll(filepath.Join(dir, "ledger")) }, nil},
		{"a changed entry", func(dir string) error {
			files, err := filepath.Glob(filepath.Join(dir, "ledger", "tile", "entries", "000.p", "*"))
			if err != nil || len(files) == 0 {
				return fmt.Errorf("no bundle: %w", err)
			}
			for _, f := range files {
				if err := replace(f, "keyid", "keyed"); err != nil {
					return err
				}
			}
			return nil
		}, []string{"ledger-entry", "ledger-entry"}},
		{"a checkpoint of nobody", func(dir string) error { return replace(filepath.Join(dir, "ledger", "checkpoint"), "\n", "\n") }, []string{"fine"}},
		{"a pipe", func(dir string) error {
			p := filepath.Join(dir, "root", "2")
			if err := os.Remove(p); err != nil {
				return err
			}
			mkfifo(t, p)
			return nil
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := *s
			e.public = copyPublic(t, s.public)
			if err := tt.make(e.public); err != nil {
				t.Fatal(err)
			}
			w := e.world(t)
			_, err := w.check()
			switch {
			case tt.codes == nil:
				if _, refused := trust.AsRefusals(err); err == nil || refused {
					t.Error(err)
				}
			case tt.codes[0] == "fine":
				suite.Want(t, err)
			case tt.codes[0] == "ledger-entry":
				if rs, _ := trust.AsRefusals(err); !rs.Has("ledger-entry") {
					t.Error(err)
				}
			default:
				suite.Want(t, err, tt.codes...)
			}
		})
	}
	t.Run("no key for the ledger", func(t *testing.T) {
		_, err := openCheckpoint(nil, &trust.Root{Enclave: enclavetest.Name})
		suite.Want(t, err, "checkpoint-key")
	})
	t.Run("a former key of the ledger, by roots that are not the newest", func(t *testing.T) {
		s := newEstate(t)
		secret, err := os.ReadFile(filepath.Join(s.e.Zone.Dir, "keys", "ledger.key"))
		if err != nil {
			t.Fatal(err)
		}
		stolen, err := trust.ParseKey(secret, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.e.Renew(trust.ContextCheckpoint)
		withheld := func() *world {
			other := *s
			other.public = copyPublic(t, s.public)
			w := other.world(t)
			if err := os.Remove(filepath.Join(w.public, "root", fmt.Sprint(s.e.Root.Version))); err != nil {
				t.Fatal(err)
			}
			return w
		}
		// While the tree ends with the change: a copy that was made in the midst of it.
		w := withheld()
		_, err = w.check()
		suite.Want(t, err, "host-document-old")
		s.e.Vote("erin", s.lib, enclavetest.Out{Path: s.lib.Output("out"), Nar: enclavetest.Nar("another one")})
		w = withheld()
		_, err = w.check()
		suite.Want(t, err, "checkpoint-unsigned")
		_, c, err := s.e.Zone.Checkpoint()
		if err != nil {
			t.Fatal(err)
		}
		note, err := ledger.SignCheckpoint(c, stolen)
		if err == nil {
			err = os.WriteFile(filepath.Join(w.public, "ledger", "checkpoint"), note, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.check()
		suite.Want(t, err, "key-replaced")
	})
	t.Run("another root on paper", func(t *testing.T) {
		w := s.world(t)
		state, err := OpenState(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		p, err := OpenPublic(w.public)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		_, err = Open(t.Context(), state, trust.Sum([]byte("x")), enclavetest.Epoch, []string{"dev"}, p)
		suite.Want(t, err, "root-pin")
		if _, err := Open(t.Context(), state, s.e.Pin(), enclavetest.Epoch, nil, p); err == nil {
			t.Error("no track, and taken")
		}
	})
}

func replace(file, old, new string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strings.ReplaceAll(string(data), old, new)), 0o644)
}

func TestState(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "state")
	s, err := OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenState(dir); err == nil || !strings.Contains(err.Error(), "another check") {
		t.Error(err)
	}
	data := []byte("a derivation")
	if err := s.keep(trust.Sum(data), data); err != nil {
		t.Fatal(err)
	}
	if err := s.keep(trust.Sum([]byte("other")), []byte("torn")); err != nil {
		t.Fatal(err)
	}
	if have, ok := s.derivation(trust.Sum(data), int64(len(data))); !ok || string(have) != string(data) {
		t.Errorf("%q", have)
	}
	if _, ok := s.derivation(trust.Sum(data), 3); ok {
		t.Error("another size, and taken")
	}
	if _, ok := s.derivation(trust.Sum([]byte("other")), 4); ok {
		t.Error("torn, and taken")
	}
	// Killed: the lock goes, the temporary files stay until the next run.
	if err := errors.Join(os.WriteFile(filepath.Join(s.temp(), "left"), nil, 0o644), s.lock.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = OpenState(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.temp(), "left")); err == nil {
		t.Error("what a dead run left is there still")
	}
	if err := s.prune(func(d trust.Digest) bool { return d == trust.Sum(data) }); err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(filepath.Join(dir, derivationsDir)); err != nil || len(list) != 1 {
		t.Errorf("%v %v", list, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A pipe is a depot of a zone, to be bent.
type pipe struct {
	*httptest.Server
	s     *estate
	track string
	bend  func(path string, body []byte) []byte
	mu    sync.Mutex
	asked map[string]int
}

func (s *estate) depot(t testing.TB, track string) *pipe {
	p := &pipe{s: s, track: track, asked: map[string]int{}}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	return p
}

func (p *pipe) source(t testing.TB) *Depot {
	t.Helper()
	d, err := NewDepot(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (p *pipe) serve(w http.ResponseWriter, r *http.Request) {
	body, err := p.answer(strings.TrimPrefix(r.URL.Path, "/sallyport/"))
	p.mu.Lock()
	p.asked[r.URL.Path]++
	bend := p.bend
	p.mu.Unlock()
	if bend != nil {
		body, err = bend(r.URL.Path, body), nil
	}
	if err != nil || body == nil {
		w.Header().Set("Sallyport-Reason", "not-allowed")
		http.Error(w, fmt.Sprint(err), http.StatusNotFound)
		return
	}
	w.Write(body)
}

func (p *pipe) answer(path string) ([]byte, error) {
	word, name, _ := strings.Cut(path, "/")
	z := p.s.e.Zone
	switch word {
	case "head":
		root, err := z.Root()
		if err != nil {
			return nil, err
		}
		newest := func(dir string) (n int64) {
			list, _ := os.ReadDir(filepath.Join(p.s.public, dir))
			return int64(len(list))
		}
		return json.Marshal(map[string]any{"enclave": root.Enclave, "track": p.track, "root": root.Version, "allowlist": newest("allowlist/" + p.track), "orders": newest("orders")})
	case "root", "orders":
		return z.ReadPublic(path)
	case "allowlist":
		return z.ReadPublic("allowlist/" + p.track + "/" + name)
	case "evidence":
		list := []string{}
		for _, s := range p.s.e.Entries() {
			if s.Kind == statement.KindBuilt && s.Predicate["derivation"] == storePath(name) {
				list = append(list, "")
			}
		}
		i := 0
		_, at, err := z.Checkpoint()
		if err != nil {
			return nil, err
		}
		for n := range at.Size {
			leaf, err := z.Entry(context.Background(), n)
			if err != nil {
				return nil, err
			}
			e, err := statement.ParseEnvelope(leaf)
			if err != nil {
				return nil, err
			}
			if s := e.Unverified(); s.Kind == statement.KindBuilt && s.Predicate["derivation"] == storePath(name) {
				list[i] = base64.StdEncoding.EncodeToString(leaf)
				i++
			}
		}
		return json.Marshal(map[string]any{"derivation": name, "statements": list})
	case "blob":
		for _, c := range []enclavetest.Content{p.s.lib, p.s.app} {
			if c.Name == name {
				return c.Data, nil
			}
		}
	}
	return nil, fmt.Errorf("nothing is at %s", path)
}

// TestDepot: a host asks its depot as a builder does.
func TestDepot(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	p := s.depot(t, "dev")
	res, err := w.checkWith(p.source(t))
	if err != nil {
		t.Fatal(err)
	}
	suite.Want(t, res.Err())
	want(t, res, map[string]string{w.source.Name: Allowed, w.lib.Name: Allowed, w.libOut: Agreed, w.appOut: Agreed, w.profile: Local})
	if n := p.asked["/sallyport/blob/"+w.lib.Name]; n > 0 {
		t.Errorf("a derivation that the host has was fetched %d times", n)
	}
	// One that has no derivations of its own fetches them, once.
	w.forget(w.profile)
	w.forget(w.profileDrv.Name)
	w.forget(w.app.Name)
	w.forget(w.lib.Name)
	w.exec(`UPDATE ValidPaths SET deriver = NULL`)
	for range 2 {
		if res, err = w.checkWith(p.source(t)); err != nil {
			t.Fatal(err)
		}
		want(t, res, map[string]string{w.source.Name: Allowed, w.libOut: Agreed, w.appOut: Agreed})
		if len(res.Unseen) > 0 {
			t.Errorf("%v", res.Unseen)
		}
	}
	if n := p.asked["/sallyport/blob/"+w.lib.Name]; n != 1 {
		t.Errorf("fetched %d times", n)
	}
	// A source that was recalled is found in what was made from it, though nothing of it is on the host.
	w.forget(w.source.Name)
	s.order(1, trust.Digest{}, func(o *trust.Orders) { o.Recalls = []trust.Recall{recall(w.source.Name, w.source.SHA256)} })
	if res, err = w.checkWith(p.source(t)); err != nil {
		t.Fatal(err)
	}
	want(t, res, map[string]string{w.libOut: Derived, w.appOut: Derived})
	if f := res.finding(t, w.appOut); !strings.Contains(f.Why, "made by "+w.app.Name+", from "+w.lib.Name+", from "+w.source.Name) {
		t.Errorf("%q", f.Why)
	}
}

func TestTwoTracks(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	w := s.world(t)
	tool := s.e.Source("tool", "a tool")
	s.e.Allow("prod", tool)
	w.content(tool)
	w.track = []string{"prod", "dev", "prod"}
	res, err := w.checkWith(s.depot(t, "dev").source(t), s.depot(t, "prod").source(t))
	if err != nil {
		t.Fatal(err)
	}
	want(t, res, map[string]string{tool.Name: Allowed, w.libOut: Agreed, w.source.Name: Allowed})
	if len(res.Documents.Lists) != 2 {
		t.Errorf("%v", res.Documents.Lists)
	}
	w.track = []string{"prod"}
	res = w.mustCheck()
	// What dev has is nothing to a host of prod.
	want(t, res, map[string]string{tool.Name: Allowed, w.libOut: Local, w.source.Name: Local})
	w.rules.Local = true
	if rs, _ := trust.AsRefusals(w.mustCheck().Err()); !rs.Has("host-local") {
		t.Error(rs)
	}
	w.track = []string{"dev", "prod"}
	_, err = w.checkWith(s.depot(t, "dev").source(t))
	suite.Want(t, err, "host-track")
}

func TestLyingDepot(t *testing.T) {
	t.Parallel()
	s := newEstate(t)
	head := func(change func(h map[string]any)) func(string, []byte) []byte {
		return func(path string, body []byte) []byte {
			if path != "/sallyport/head" {
				return body
			}
			var h map[string]any
			if err := json.Unmarshal(body, &h); err != nil {
				t.Error(err)
			}
			change(h)
			out, _ := json.Marshal(h)
			return out
		}
	}
	at := func(prefix string, answer func(body []byte) []byte) func(string, []byte) []byte {
		return func(path string, body []byte) []byte {
			if strings.HasPrefix(path, "/sallyport/"+prefix) {
				return answer(body)
			}
			return body
		}
	}
	tests := []struct {
		name  string
		bend  func(path string, body []byte) []byte
		codes []string
	}{
		{"another enclave", head(func(h map[string]any) { h["enclave"] = "other" }), []string{"host-source"}},
		{"no root", head(func(h map[string]any) { h["root"] = 0 }), []string{"depot-answer"}},
		{"too many roots", head(func(h map[string]any) { h["root"] = maxRoots + 1 }), []string{"host-source"}},
		{"a track that is none", head(func(h map[string]any) { h["track"] = "../x" }), []string{"depot-answer"}},
		{"a member too many", head(func(h map[string]any) { h["x"] = 1 }), []string{"depot-answer"}},
		{"a long head", at("head", func([]byte) []byte { return make([]byte, maxHead+1) }), []string{"depot-size"}},
		{"a head of nothing", at("head", func([]byte) []byte { return []byte{} }), []string{"depot-answer"}},
		{"another root", at("root/", func([]byte) []byte { return []byte("x") }), nil},
		{"another allowlist", at("allowlist/", func([]byte) []byte { return []byte("x") }), nil},
		{"evidence that is no JSON", at("evidence/", func([]byte) []byte { return []byte("x") }), []string{"depot-answer"}},
		{"evidence that is no base64", at("evidence/", func([]byte) []byte { return []byte(`{"derivation":"x","statements":["!"]}`) }), []string{"depot-answer"}},
		{"another derivation", at("blob/", func([]byte) []byte { return []byte("x") }), []string{"item-digest"}},
		{"a derivation that is too long", at("blob/", func(b []byte) []byte { return append(b, make([]byte, 1000)...) }), []string{"depot-size"}},
		{"no derivation", at("blob/", func([]byte) []byte { return nil }), []string{"fine"}},
		{"all withheld", func(path string, body []byte) []byte {
			if strings.HasPrefix(path, "/sallyport/blob/") || strings.HasPrefix(path, "/sallyport/evidence/") {
				return nil
			}
			return body
		}, []string{"fine"}},
		{"no evidence", at("evidence/", func([]byte) []byte { return []byte(`{"derivation":"x","statements":[]}`) }), []string{"fine"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := s.world(t)
			w.forget(w.profile)
			w.forget(w.profileDrv.Name)
			w.forget(w.app.Name)
			w.forget(w.lib.Name)
			p := s.depot(t, "dev")
			p.bend = tt.bend
			res, err := w.checkWith(p.source(t))
			switch {
			case tt.codes == nil:
				if _, refused := trust.AsRefusals(err); !refused {
					t.Error(err)
				}
			case tt.codes[0] == "fine":
				if err != nil {
					t.Fatal(err)
				}
				// It can withhold: then nothing is agreed on.
				if s := res.status(w.libOut); s == Agreed && tt.name != "no derivation" {
					t.Errorf("%s is %s", w.libOut, s)
				}
			default:
				suite.Want(t, err, tt.codes...)
			}
		})
	}
	for _, bad := range []string{"", "ftp://x", "http://u@x", "http://x?y", "http://", "http://x#y", "\x00"} {
		if _, err := NewDepot(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	t.Run("one that stalls", func(t *testing.T) {
		block := make(chan struct{})
		defer close(block)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write([]byte("{"))
			w.(http.Flusher).Flush()
			<-block
		}))
		d, err := NewDepot(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		d.stall = 50 * time.Millisecond
		if _, err := d.Newest(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing came") {
			t.Error(err)
		}
	})
	t.Run("one that sends elsewhere", func(t *testing.T) {
		srv := httptest.NewServer(http.RedirectHandler("http://127.0.0.1:1/", http.StatusFound))
		defer srv.Close()
		d, err := NewDepot(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Newest(t.Context()); err == nil || !strings.Contains(err.Error(), "redirect") {
			t.Error(err)
		}
	})
}

func TestDerivationBounds(t *testing.T) {
	t.Parallel()
	e := &Enclave{state: &State{dir: t.TempDir()}}
	_, err := e.derivation(t.Context(), trust.Item{Size: 1 << 40, Name: strangerPath("x.drv")})
	suite.Want(t, err, "derivation-size")
	state, err := OpenState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	e.state = state
	data := []byte("no derivation")
	if err := state.keep(trust.Sum(data), data); err != nil {
		t.Fatal(err)
	}
	_, err = e.maker(t.Context(), trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Name: strangerPath("x.drv")})
	suite.Want(t, err, "derivation-invalid")
}

func TestEach(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint(i))
	}
	var mu sync.Mutex
	var did []string
	if err := each(t.Context(), names, func(_ context.Context, n string) error {
		mu.Lock()
		defer mu.Unlock()
		did = append(did, n)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	slices.Sort(did)
	slices.Sort(names)
	if !slices.Equal(did, names) {
		t.Errorf("%v", did)
	}
	boom := errors.New("boom")
	if err := each(t.Context(), names, func(context.Context, string) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := each(ctx, names, func(context.Context, string) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
