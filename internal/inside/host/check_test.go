package host

import (
	"crypto/sha256"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
)

func TestCleanHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, contents := range []bool{false, true} {
		w.withContents = contents
		res := w.mustCheck()
		want(t, res, map[string]string{w.source.Name: Allowed, w.lib.Name: Allowed, w.app.Name: Allowed, w.libOut: Agreed, w.appOut: Agreed, w.profile: Local, w.profileDrv.Name: Local})
		if err := res.Err(); err != nil {
			t.Error(err)
		}
		if res.Items != 7 || res.Counts[Agreed] != (Count{2, 2}) || res.Counts[Local] != (Count{2, 1}) || res.Counts[Allowed] != (Count{3, 0}) {
			t.Errorf("%d items, %v", res.Items, res.Counts)
		}
		if len(res.Roots) != 1 || !res.Roots[0].Current || res.Roots[0].Generation != 1 || res.Roots[0].Status != "" {
			t.Errorf("%+v", res.Roots)
		}
		if len(res.Strays)+len(res.Broken)+len(res.Unseen)+len(res.Faults) > 0 {
			t.Errorf("%v %v %v %v", res.Strays, res.Broken, res.Unseen, res.Faults)
		}
	}
	w.rules.Local = true
	res := w.mustCheck()
	suite.Want(t, res.Err(), "host-local") // the profile; its derivation is kept by no root
}

// TestDerivationsAreElsewhere: a host that got outputs from a depot has no derivations; then what builders say tells which makes what.
func TestDerivationsAreElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []enclavetest.Content{w.lib, w.app} {
		w.forget(c.Name)
	}
	res := w.mustCheck()
	want(t, res, map[string]string{w.libOut: Agreed, w.appOut: Agreed})
	// The profile's derivation stands on one that is not there: it cannot be verified any more.
	want(t, res, map[string]string{w.profile: Unknown})
	if !slices.Equal(res.Unseen, slices.Sorted(slices.Values([]string{w.lib.Name, w.app.Name}))) {
		t.Errorf("unseen: %v", res.Unseen)
	}
}

// forget deletes an item as the daemon does.
func (m *machine) forget(name string) {
	m.t.Helper()
	m.exec(`DELETE FROM Refs WHERE reference IN (SELECT id FROM ValidPaths WHERE path = ?1) OR referrer IN (SELECT id FROM ValidPaths WHERE path = ?1)`, storepath.Dir+"/"+name)
	m.exec(`DELETE FROM ValidPaths WHERE path = ?`, storepath.Dir+"/"+name)
	if err := os.RemoveAll(m.path(storepath.Dir + "/" + name)); err != nil {
		m.t.Fatal(err)
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	other := enclavetest.Nar("something else")
	tests := []struct {
		name     string
		contents bool
		change   func(w *world)
		item     func(w *world) string
		status   string
		codes    []string
	}{
		{"another nar of an agreed output", false, func(w *world) {
			w.exec(`UPDATE ValidPaths SET hash = ? WHERE path = ?`, fmt.Sprintf("sha256:%x", sha256.Sum256(other)), w.lib.Output("out"))
		}, func(w *world) string { return w.libOut }, Differs, []string{"host-differs"}},
		{"another size", false, func(w *world) {
			w.exec(`UPDATE ValidPaths SET narSize = 1 WHERE path = ?`, w.lib.Output("out"))
		}, func(w *world) string { return w.libOut }, Differs, []string{"host-differs"}},
		{"no size, as in an old database", false, func(w *world) {
			w.exec(`UPDATE ValidPaths SET narSize = NULL`)
		}, func(w *world) string { return w.libOut }, Agreed, nil},
		{"a reference that the database hides", false, func(w *world) {
			w.exec(`DELETE FROM Refs WHERE referrer = (SELECT id FROM ValidPaths WHERE path = ?)`, w.app.Output("out"))
		}, func(w *world) string { return w.appOut }, Differs, []string{"host-differs"}},
		{"a reference that the database invents", false, func(w *world) {
			w.exec(`INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, w.lib.Output("out"), w.source.Path())
		}, func(w *world) string { return w.libOut }, Differs, []string{"host-differs"}},
		{"a source with a reference", false, func(w *world) {
			w.exec(`INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, w.source.Path(), w.lib.Output("out"))
		}, func(w *world) string { return w.source.Name }, Differs, nil},
		{"a reference to itself", false, func(w *world) {
			w.exec(`INSERT INTO Refs SELECT a.id, a.id FROM ValidPaths a WHERE a.path = ?`, w.lib.Output("out"))
		}, func(w *world) string { return w.libOut }, Agreed, nil},
		{"a derivation whose references are hidden", false, func(w *world) {
			w.exec(`DELETE FROM Refs WHERE referrer = (SELECT id FROM ValidPaths WHERE path = ?)`, w.profileDrv.Path())
		}, func(w *world) string { return w.profileDrv.Name }, Altered, []string{"host-altered"}},
		{"an output from nowhere that a profile uses", false, func(w *world) {
			w.stranger("evil-1", true)
		}, func(w *world) string { return strangerPath("evil-1") }, Unknown, []string{"host-unknown"}},
		{"and one that nothing uses", false, func(w *world) {
			w.stranger("evil-1", false)
		}, func(w *world) string { return strangerPath("evil-1") }, Unknown, nil},
		{"that claims to come of an allowed derivation", false, func(w *world) {
			w.stranger("evil-1", true)
			w.exec(`UPDATE ValidPaths SET deriver = ? WHERE path = ?`, w.lib.Path(), storepath.Dir+"/"+strangerPath("evil-1"))
		}, func(w *world) string { return strangerPath("evil-1") }, Unknown, []string{"host-unknown"}},
		{"of a derivation that was made here", false, func(w *world) {
			w.stranger("evil-1", true)
			w.exec(`UPDATE ValidPaths SET deriver = ? WHERE path = ?`, w.profileDrv.Path(), storepath.Dir+"/"+strangerPath("evil-1"))
		}, func(w *world) string { return strangerPath("evil-1") }, Unknown, []string{"host-unknown"}},
		{"of one that is not there", false, func(w *world) {
			w.stranger("evil-1", true)
			w.exec(`UPDATE ValidPaths SET deriver = ? WHERE path = ?`, storepath.Dir+"/"+strangerPath("evil-1.drv"), storepath.Dir+"/"+strangerPath("evil-1"))
		}, func(w *world) string { return strangerPath("evil-1") }, Unknown, []string{"host-unknown"}},
		{"a file that was added under its nar", false, func(w *world) {
			w.added()
		}, func(w *world) string { p, _ := storepath.Source("mine", sha256.Sum256(other)); return p.Base() }, Local, nil},
		{"a text that refers to something", false, func(w *world) {
			w.text("builder", "run "+w.libOut, w.libOut)
		}, func(w *world) string { return w.textPath("builder", "run "+w.libOut, w.libOut) }, Local, nil},
		{"a text whose references are others", false, func(w *world) {
			p := w.textPath("builder", "run", w.libOut)
			w.add(p, enclavetest.Nar("run"), "")
		}, func(w *world) string { return w.textPath("builder", "run", w.libOut) }, Unknown, nil},
		{"a download that was added under its bytes", false, func(w *world) {
			sum := sha256.Sum256([]byte("x"))
			p, _ := storepath.FixedOutput("x.tar", "sha256", false, sum[:])
			w.add(p.Base(), enclavetest.Nar("x"), "")
		}, func(w *world) string {
			sum := sha256.Sum256([]byte("x"))
			p, _ := storepath.FixedOutput("x.tar", "sha256", false, sum[:])
			return p.Base()
		}, Local, nil},
		{"a derivation that is not what its path says", false, func(w *world) {
			w.add(strangerPath("odd.drv"), enclavetest.Nar(string(w.profileDrv.Data)), "")
		}, func(w *world) string { return strangerPath("odd.drv") }, Unknown, nil},
		{"a derivation that is none", false, func(w *world) {
			w.add(strangerPath("odd.drv"), enclavetest.Nar("Derive("), "")
		}, func(w *world) string { return strangerPath("odd.drv") }, Unknown, nil},
		{"a row without anything on disk", false, func(w *world) {
			if err := os.Remove(w.path(w.lib.Output("out"))); err != nil {
				t.Fatal(err)
			}
		}, func(w *world) string { return w.libOut }, Missing, []string{"host-missing"}},
		{"a changed file, if nobody looks", false, func(w *world) {
			w.overwrite(w.libOut, "tampered!")
		}, func(w *world) string { return w.libOut }, Agreed, nil},
		{"a changed file", true, func(w *world) {
			w.overwrite(w.libOut, "tampered!")
		}, func(w *world) string { return w.libOut }, Altered, []string{"host-altered"}},
		{"a changed file that nothing uses", true, func(w *world) {
			w.overwrite(w.source.Name, "tampered!")
		}, func(w *world) string { return w.source.Name }, Altered, []string{"host-altered"}},
		{"a mode", true, func(w *world) {
			if err := os.Chmod(w.path(w.lib.Output("out")), 0o755); err != nil {
				t.Fatal(err)
			}
		}, func(w *world) string { return w.libOut }, Altered, []string{"host-altered"}},
		{"a pipe in the place of a file", true, func(w *world) {
			if err := os.Remove(w.path(w.lib.Output("out"))); err != nil {
				t.Fatal(err)
			}
			mkfifo(t, w.path(w.lib.Output("out")))
		}, func(w *world) string { return w.libOut }, Altered, []string{"host-altered"}},
		{"a reference of a profile that the database invents", true, func(w *world) {
			w.exec(`INSERT INTO Refs SELECT a.id, b.id FROM ValidPaths a, ValidPaths b WHERE a.path = ? AND b.path = ?`, storepath.Dir+"/"+w.profile, w.source.Path())
		}, func(w *world) string { return w.profile }, Altered, []string{"host-altered"}},
		{"a reference to something bad that the database hides", true, func(w *world) {
			w.stranger("evil-1", false)
			_, out, _ := w.local("other", strangerPath("evil-1"), w.app)
			w.exec(`DELETE FROM Refs WHERE referrer = (SELECT id FROM ValidPaths WHERE path = ?)`, storepath.Dir+"/"+out)
			w.generation(profilesDir+"/per-user/root/other", 1, out, true)
		}, func(w *world) string {
			return base(w.e.Derivation("other", w.app).Output("out"))
		}, Altered, []string{"host-altered"}},
	}
	estate := newEstate(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := estate.world(t)
			w.withContents = tt.contents
			tt.change(w)
			res := w.mustCheck()
			want(t, res, map[string]string{tt.item(w): tt.status})
			suite.Want(t, res.Err(), tt.codes...)
			if tt.status != Agreed && t.Failed() {
				t.Logf("%+v", res.Findings)
			}
		})
	}
}

// strangerPath is the base name of an item that nothing explains.
func strangerPath(name string) string { return "0123456789abcdfghijklmnpqrsvwxyz-" + name }

// stranger adds such an item, in use or not.
func (w *world) stranger(name string, used bool) {
	w.t.Helper()
	w.add(strangerPath(name), enclavetest.Nar("from somewhere"), "")
	if used {
		_, out, _ := w.local("mine", strangerPath(name), w.app)
		w.generation(profilesDir+"/per-user/root/mine", 1, out, true)
	}
}

func (w *world) added() {
	w.t.Helper()
	data := enclavetest.Nar("something else")
	p, err := storepath.Source("mine", sha256.Sum256(data))
	if err != nil {
		w.t.Fatal(err)
	}
	w.add(p.Base(), data, "")
}

func (w *world) textPath(name, content string, refs ...string) string {
	w.t.Helper()
	var list []storepath.Path
	for _, r := range refs {
		p, err := storepath.ParseBase(r)
		if err != nil {
			w.t.Fatal(err)
		}
		list = append(list, p)
	}
	p, err := storepath.Text(name, sha256.Sum256([]byte(content)), list)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Base()
}

func (w *world) text(name, content string, refs ...string) {
	w.t.Helper()
	w.add(w.textPath(name, content, refs...), enclavetest.Nar(content), "", refs...)
}

func (m *machine) overwrite(name, content string) {
	m.t.Helper()
	p := m.path(storepath.Dir + "/" + name)
	if err := os.Chmod(p, 0o644); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), 0o444); err != nil {
		m.t.Fatal(err)
	}
}

// TestBuilders: what builders say of an allowed derivation decides what its output is.
func TestBuilders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.e
	waiting, disputed := e.Derivation("waiting-1", w.source), e.Derivation("disputed-1", w.source)
	flat := sha256.Sum256([]byte("bytes"))
	flatDrv := e.Derive("flat.tar", fixedDrv("flat.tar", "sha256", fmt.Sprintf("%x", flat)))
	deep := enclavetest.Nar("tree")
	deepDrv := e.Derive("deep", fixedDrv("deep", "r:sha256", fmt.Sprintf("%x", sha256.Sum256(deep))))
	liar := e.Derive("liar", fixedDrv("liar", "r:sha256", fmt.Sprintf("%x", sha256.Sum256([]byte("no nar")))))
	e.Allow("dev", waiting, disputed, flatDrv, deepDrv, liar)
	nar := enclavetest.Nar("an output")
	e.Vote("erin", waiting, enclavetest.Out{Path: waiting.Output("out"), Nar: nar})
	e.Vote("erin", disputed, enclavetest.Out{Path: disputed.Output("out"), Nar: nar})
	e.Vote("frank", disputed, enclavetest.Out{Path: disputed.Output("out"), Nar: deep})
	for _, c := range []enclavetest.Content{waiting, disputed, flatDrv, deepDrv, liar} {
		w.content(c)
	}
	w.add(base(waiting.Output("out")), nar, waiting.Name)
	w.add(base(disputed.Output("out")), nar, disputed.Name)
	w.add(base(flatDrv.Output("out")), enclavetest.Nar("bytes"), "") // nobody said what makes it
	w.add(base(deepDrv.Output("out")), deep, deepDrv.Name)
	w.add(base(liar.Output("out")), deep, liar.Name)
	res := w.mustCheck()
	want(t, res, map[string]string{base(waiting.Output("out")): Built, base(disputed.Output("out")): Disputed, base(flatDrv.Output("out")): Fixed, base(deepDrv.Output("out")): Fixed,
		base(liar.Output("out")): Differs})
	suite.Want(t, res.Err())
	w.generation(profilesDir+"/a", 1, base(disputed.Output("out")), true)
	w.generation(profilesDir+"/b", 1, base(waiting.Output("out")), true)
	suite.Want(t, w.mustCheck().Err(), "host-disputed")
	w.rules.Local = true
	suite.Want(t, w.mustCheck().Err(), "host-disputed", "host-built", "host-local")
}

func TestRecall(t *testing.T) {
	t.Parallel()
	reason := "backdoor in the tarball"
	tests := []struct {
		name  string
		grave func(w *world) string
		want  func(w *world) map[string]string
		codes []string
		more  []string // where nothing may have been made from it
	}{
		{"an output by name", func(w *world) string { return w.libOut }, func(w *world) map[string]string {
			return map[string]string{w.libOut: Recalled, w.appOut: Affected, w.profile: Affected, w.source.Name: Allowed, w.lib.Name: Allowed, w.profileDrv.Name: Local}
		}, []string{"host-recalled"}, nil},
		{"an output by content", func(w *world) string { return trust.Sum(w.libNar).String() }, func(w *world) map[string]string {
			return map[string]string{w.libOut: Recalled, w.appOut: Affected, w.profile: Affected}
		}, []string{"host-recalled"}, nil},
		{"a derivation by name", func(w *world) string { return w.app.Name }, func(w *world) map[string]string {
			return map[string]string{w.app.Name: Recalled, w.appOut: Recalled, w.libOut: Agreed, w.profileDrv.Name: Affected, w.profile: Affected}
		}, []string{"host-recalled"}, nil},
		{"a derivation by content", func(w *world) string { return w.app.SHA256.String() }, func(w *world) map[string]string {
			return map[string]string{w.app.Name: Recalled, w.appOut: Recalled}
		}, []string{"host-recalled"}, nil},
		{"a source that no item in use refers to", func(w *world) string { return w.source.Name }, func(w *world) map[string]string {
			return map[string]string{w.source.Name: Recalled, w.libOut: Derived, w.appOut: Derived, w.lib.Name: Affected, w.app.Name: Affected, w.profile: Derived}
		}, nil, []string{"host-derived", "host-derived", "host-derived"}},
		{"what was made here", func(w *world) string { return w.profileDrv.Name }, func(w *world) map[string]string {
			return map[string]string{w.profile: Recalled, w.profileDrv.Name: Recalled, w.appOut: Agreed}
		}, []string{"host-recalled"}, nil},
		{"something that is not here", func(*world) string { return strangerPath("gone") }, func(w *world) map[string]string {
			return map[string]string{w.profile: Local, w.appOut: Agreed}
		}, nil, nil},
	}
	estate := newEstate(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := estate.world(t)
			w.graveyard = graves{tt.grave(w): reason}
			res := w.mustCheck()
			want(t, res, tt.want(w))
			suite.Want(t, res.Err(), tt.codes...)
			if tt.more != nil {
				w.rules.MadeFrom = true
				suite.Want(t, w.mustCheck().Err(), tt.more...)
			}
			if len(tt.codes) == 0 {
				return
			}
			if !strings.Contains(res.Err().Error(), reason) {
				t.Errorf("the reason is not told:\n%v", res.Err())
			}
			// Deleted as the garbage collector does it, the host is clean.
			w.link("/home/u/keep", storepath.Dir+"/"+w.source.Name)
			for _, p := range []string{"guix-profile", "guix-profile-1-link"} {
				if err := os.Remove(w.path(profilesDir + "/per-user/root/" + p)); err != nil {
					t.Fatal(err)
				}
			}
			suite.Want(t, w.mustCheck().Err())
			for _, n := range []string{w.profile, w.profileDrv.Name, w.appOut, w.app.Name, w.libOut, w.lib.Name, w.source.Name} {
				w.forget(n)
			}
			res = w.mustCheck()
			suite.Want(t, res.Err())
			if res.Items != 0 || res.Counts[Recalled].Items != 0 {
				t.Errorf("%d items: %v", res.Items, res.Counts)
			}
		})
	}
}

// TestWays: the way that is told is the shortest, and from the root.
func TestWays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.graveyard = graves{w.libOut: "reason"}
	_, out, _ := w.local("direct", w.libOut, w.source)
	w.generation(profilesDir+"/per-user/root/guix-profile", 2, w.appOut, false)
	res := w.mustCheck()
	f := res.finding(t, w.libOut)
	if f.Root != profilesDir+"/per-user/root/guix-profile-2-link" || !slices.Equal(f.Chain, []string{w.appOut, w.libOut}) {
		t.Errorf("%s %v", f.Root, f.Chain)
	}
	for _, r := range res.Roots {
		want := []string{w.profile, w.appOut, w.libOut}
		if r.Generation == 2 {
			want = want[1:]
		}
		if r.Status != Recalled || !slices.Equal(r.Chain, want) || r.Why != "reason" || r.Current != (r.Generation == 1) {
			t.Errorf("%+v", r)
		}
	}
	if f := res.finding(t, out); f.Status != Affected || f.Root != "" || !slices.Equal(f.To, []string{out, w.libOut}) {
		t.Errorf("%+v", f)
	}
}

// TestRootWithoutRow: an item that somebody put into the store by hand is not known to the daemon, and is used all the same.
func TestRootWithoutRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(strangerPath("smuggled"), enclavetest.Nar("x"))
	w.put(strangerPath("left"), enclavetest.Nar("x"))
	w.generation(profilesDir+"/x", 1, strangerPath("smuggled"), true)
	w.generation(profilesDir+"/y", 1, strangerPath("nothing"), true)
	res := w.mustCheck()
	suite.Want(t, res.Err(), "host-root")
	if !slices.Equal(res.Strays, []string{strangerPath("left"), strangerPath("smuggled")}) {
		t.Errorf("%v", res.Strays)
	}
	if len(res.Broken) != 1 || res.Broken[0].Path != profilesDir+"/y-1-link" {
		t.Errorf("%v", res.Broken)
	}
}

// TestUnknownThatRefersToRecalled: both are told at once.
func TestUnknownThatRefersToRecalled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.graveyard = graves{w.libOut: "reason"}
	w.add(strangerPath("evil"), enclavetest.Nar("x"), "", w.libOut)
	w.generation(profilesDir+"/evil", 1, strangerPath("evil"), true)
	res := w.mustCheck()
	suite.Want(t, res.Err(), "host-recalled", "host-unknown")
	if f := res.finding(t, strangerPath("evil")); !strings.Contains(f.Why, w.libOut) {
		t.Errorf("%+v", f)
	}
}

// TestManyRefusals: the list ends, and says how much is missing from it.
func TestManyRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range trust.MaxRefusals + 50 {
		name := strangerPath(fmt.Sprintf("n-%d", i))
		w.add(name, enclavetest.Nar("x"), "")
		w.generation(profilesDir+"/many", i, name, false)
	}
	rs, ok := trust.AsRefusals(w.mustCheck().Err())
	suite.Seen("host-more")
	if !ok || len(rs) != trust.MaxRefusals || !rs.Has("host-more") || !strings.Contains(rs[len(rs)-1].Detail, "51 more") {
		t.Errorf("%d refusals, the last %v", len(rs), rs[len(rs)-1])
	}
}
