//go:build peer

package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/daemon"
	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/inside/host"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// content makes an item of the enclave's of one of ours.
func content(kind string, p storepath.Path, data []byte) enclavetest.Content {
	return enclavetest.Content{Item: trust.Item{SHA256: trust.Sum(data), Size: int64(len(data)), Kind: kind, Name: p.Base()}, Data: data}
}

// checkHost looks at the peer as at a host of the enclave.
func checkHost(t *testing.T, p *peer, e *enclavetest.Enclave, state string, contents bool) *host.Result {
	t.Helper()
	s, err := host.OpenState(state)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	public, err := host.OpenPublic(filepath.Join(e.Zone.Dir, "public"))
	if err != nil {
		t.Fatal(err)
	}
	defer public.Close()
	open, err := host.Open(t.Context(), s, e.Pin(), e.Clock(), []string{"dev"}, public)
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(p.root)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	begin := time.Now()
	res, err := (&host.Check{Host: "peer", Root: root, Proc: "/proc", Enclave: open, Contents: contents, Clock: e.Clock}).Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d items, %d bytes, contents read: %v: %s", res.Items, res.Bytes, contents, time.Since(begin).Round(time.Millisecond))
	return res
}

func printed(paths []storepath.Path) []string {
	var list []string
	for _, p := range paths {
		list = append(list, p.String())
	}
	return list
}

// statusOf is what a result says of an item.
func statusOf(res *host.Result, p storepath.Path) string {
	for _, f := range res.Findings {
		if f.Name == p.Base() {
			return f.Status
		}
	}
	for _, f := range res.Inventory {
		if f.Name == p.Base() {
			return f.Status
		}
	}
	return ""
}

// TestHost judges the real daemon's store while the daemon is at work: what it has built, a root that it was told of, generations. Then something is
// recalled, found, deleted by the daemon, and gone.
func TestHost(t *testing.T) {
	p := start(t)
	c := p.connect(t)
	ctx := t.Context()
	if err := c.SetOptions(ctx, daemon.Options{Cores: 1, Timeout: 10 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	unique := make([]byte, 16)
	if _, err := io.ReadFull(random, unique); err != nil {
		t.Fatal(err)
	}

	// A library, and a program that refers to it, built by the daemon.
	it := buildersBuilder(t)
	builder := must(c.AddNar(ctx, "vector-builder", "sha256", bytes.NewReader(it.nar)))(t)
	input := must(c.AddText(ctx, "sallyport-host-input", unique, nil))(t)
	lib := recipe(t, "sallyport-host-lib", builder, input, []string{"out"}, "write $out 644 $input")
	libDrv := must(c.AddText(ctx, "sallyport-host-lib.drv", lib.Bytes(), must(lib.References())(t)))(t)
	libOut := parse(t, lib.Outputs[0].Path)
	app := recipe(t, "sallyport-host-app", builder, input, []string{"out"})
	app.Args, app.Sources = []string{"write $out 644 $lib"}, []string{builder.String()}
	app.Inputs = []derivation.Input{{Path: libDrv.String(), Outputs: []string{"out"}}}
	app.Env = []derivation.Variable{{Name: "lib", Value: libOut.String()}}
	if err := derivation.NewHasher(func(string) (*derivation.Derivation, error) { return lib, nil }).Fill("sallyport-host-app", app); err != nil {
		t.Fatal(err)
	}
	appDrv := must(c.AddText(ctx, "sallyport-host-app.drv", app.Bytes(), must(app.References())(t)))(t)
	appOut := parse(t, app.Outputs[0].Path)
	made := []storepath.Path{appOut, libOut, appDrv, libDrv, input}
	t.Cleanup(func() {
		if t.Failed() { // else they are gone
			p.try(t, nil, append([]string{"run", "guix", "gc", "-D"}, printed(made)...)...)
		}
	})
	for _, keep := range []storepath.Path{libDrv, appDrv} {
		if err := c.AddTempRoot(ctx, keep); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Build(ctx, daemon.Normal, daemon.Target{Path: appDrv}); err != nil {
		t.Fatal(err)
	}

	// The enclave allows both derivations; builders agree on what the daemon made.
	e := enclavetest.New(t)
	libItem, appItem := content(trust.KindDerivation, libDrv, lib.Bytes()), content(trust.KindDerivation, appDrv, app.Bytes())
	e.Allow("dev", content(trust.KindSource, builder, it.nar), libItem, appItem)
	libNar, appNar := dump(t, filepath.Join(p.root, storepath.Dir), libOut.Base()), dump(t, filepath.Join(p.root, storepath.Dir), appOut.Base())
	for _, b := range []string{"erin", "frank"} {
		e.Vote(b, libItem, enclavetest.Out{Path: libOut.String(), Nar: libNar, References: []string{input.String()}})
		e.Vote(b, appItem, enclavetest.Out{Path: appOut.String(), Nar: appNar, References: []string{libOut.String()}})
	}

	// Roots: one that Guix itself makes and tells the daemon of, and a profile with two generations.
	f := p.folder(t)
	link := f.name + "/result"
	p.run(t, "guix", "build", "--no-substitutes", "--root="+link, appDrv.String())
	profile := "/var/guix/profiles/per-user/root/sallyport-host-test"
	t.Cleanup(func() {
		for _, end := range []string{"", "-1-link", "-2-link"} {
			if err := os.Remove(p.root + profile + end); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	})
	for name, target := range map[string]string{profile + "-1-link": libOut.String(), profile + "-2-link": appOut.String(), profile: filepath.Base(profile) + "-2-link"} {
		if err := os.Symlink(target, p.root+name); err != nil {
			t.Fatal(err)
		}
	}

	state := filepath.Join(t.TempDir(), "state")
	res := checkHost(t, p, e, state, true)
	for path, want := range map[storepath.Path]string{builder: host.Allowed, libDrv: host.Allowed, appDrv: host.Allowed, libOut: host.Agreed, appOut: host.Agreed, input: host.Local} {
		if have := statusOf(res, path); have != want {
			t.Errorf("%s is %q, want %q", path, have, want)
		}
	}
	for _, finding := range res.Findings {
		if finding.Status != host.Local {
			t.Errorf("of the real store: %s is %s: %s", finding.Name, finding.Status, finding.Why)
		}
	}
	if err := res.Err(); err != nil {
		t.Error(err)
	}
	roots := func(res *host.Result) map[string]host.RootFinding {
		m := map[string]host.RootFinding{}
		for _, r := range res.Roots {
			m[r.Path] = r
		}
		return m
	}
	for path, want := range map[string]storepath.Path{link: appOut, profile + "-1-link": libOut, profile + "-2-link": appOut} {
		r, ok := roots(res)[path]
		if !ok || r.Item != want.Base() || r.Status != "" || strings.HasSuffix(path, "-2-link") != r.Current {
			t.Errorf("root %s: %+v", path, r)
		}
	}
	// All roots that the daemon knows are ours, too, and what ours keep it keeps.
	theirs := must(c.Roots(ctx))(t)
	for _, r := range theirs {
		if mine, ok := roots(res)[r.Link]; !ok || mine.Item != r.Target.Base() {
			t.Errorf("the daemon has the root %s to %s, we %+v", r.Link, r.Target, mine)
		}
	}
	live := must(c.CollectGarbage(ctx, daemon.Garbage{Action: daemon.ListLive}))(t).Paths
	kept := 0
	for _, one := range res.Inventory {
		if one.Kept {
			kept++
			if !slices.ContainsFunc(live, func(l storepath.Path) bool { return l.Base() == one.Name }) {
				t.Errorf("%s is kept by a root, but the daemon would delete it", one.Name)
			}
		}
	}
	all := must(c.AllValid(ctx))(t)
	if kept < 2 || res.Items != len(all) {
		t.Errorf("%d items are kept, %d there; the daemon has %d", kept, res.Items, len(all))
	}

	// A recall is found at once, with the way to it.
	reason := "the library calls home"
	orders := &trust.Orders{Enclave: enclavetest.Name, Version: 1, Date: enclavetest.Epoch.Add(time.Minute), Root: e.Root.Version,
		Recalls: []trust.Recall{{SHA256: trust.Sum(libNar), Name: libOut.Base(), Date: enclavetest.Epoch, Reason: reason}}}
	line, err := trust.SignText(orders.Text(), enclavetest.Key(t, "olga/order"))
	if err != nil {
		t.Fatal(err)
	}
	e.Commit(func(tx *store.Tx) error {
		return errors.Join(tx.Publish("orders/1", trust.JoinNote(orders.Text(), line)),
			tx.Statement(statement.KindOrdered, []statement.Subject{{Name: "orders 1", SHA256: orders.Digest()}}, map[string]any{"version": int64(1), "persons": []any{"olga"}}))
	})
	res = checkHost(t, p, e, state, false)
	if s1, s2 := statusOf(res, libOut), statusOf(res, appOut); s1 != host.Recalled || s2 != host.Affected {
		t.Errorf("%s, %s", s1, s2)
	}
	rs, _ := trust.AsRefusals(res.Err())
	if len(rs) != 1 || rs[0].Code != "host-recalled" || !strings.Contains(rs[0].Detail, reason) {
		t.Errorf("%v", res.Err())
	}
	if r := roots(res)[link]; r.Status != host.Recalled || !slices.Equal(r.Chain, []string{appOut.Base(), libOut.Base()}) {
		t.Errorf("%+v", r)
	}
	if c, err := host.Record(context.Background(), e.Zone, res.Report().Text()); err != nil || c.Recalled != 2 || c.Kept != 2 {
		t.Errorf("%+v %v", c, err)
	}

	// The roots go, the daemon deletes, the host is clean.
	for _, name := range []string{filepath.Join(f.host, "result"), p.root + profile, p.root + profile + "-1-link", p.root + profile + "-2-link"} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	res = checkHost(t, p, e, state, false)
	if err := res.Err(); err != nil {
		t.Error(err)
	}
	if res.Counts[host.Recalled] != (host.Count{Items: 1}) {
		t.Errorf("%v", res.Counts)
	}
	c.Close() // with its temporary roots
	other := p.connect(t)
	forget(t, other, made...)
	res = checkHost(t, p, e, state, false)
	if err := res.Err(); err != nil || res.Counts[host.Recalled].Items+res.Counts[host.Affected].Items != 0 || statusOf(res, appOut) != "" {
		t.Errorf("%v %v", res.Counts, err)
	}
	if c, err := host.Record(context.Background(), e.Zone, res.Report().Text()); err != nil || c.Recalled != 0 || c.Orders != 1 {
		t.Errorf("%+v %v", c, err)
	}
	t.Logf("%s", fmt.Sprint(res.Counts))
}
