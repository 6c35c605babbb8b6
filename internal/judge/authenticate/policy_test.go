package authenticate_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/trust"
)

var now = time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)

// judged judges a growing history and returns its states.
func judged(t *testing.T) (*channel.Verdict, []git.ID) {
	t.Helper()
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 30)
	db := h.Database()
	keyring, err := channel.ReadKeyring(db.NewReader(), h.Refs["refs/heads/keyring"])
	if err != nil {
		t.Fatal(err)
	}
	v, err := channel.Authenticate(t.Context(), db, channel.Request{Introduction: h.Introduction, Signer: h.Signer, End: ends[len(ends)-1], Keyring: keyring})
	if err != nil || !v.OK() {
		t.Fatal(v, err)
	}
	if len(v.Findings) < 3 {
		t.Fatalf("%d findings", len(v.Findings))
	}
	return v, ends
}

func refusedFor(err error, code string) bool {
	rs, _ := trust.AsRefusals(err)
	return rs.Has(code)
}

func TestPolicy(t *testing.T) {
	v, ends := judged(t)
	rule := func(p authenticate.Policy) *authenticate.Ruling {
		t.Helper()
		r, err := p.Rule(v, now)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Refused) + len(r.Excused) + len(r.Noted); n != len(v.Findings) {
			t.Fatalf("%d of %d findings", n, len(v.Findings))
		}
		return r
	}
	all := len(v.Findings)
	if r := rule(authenticate.Policy{}); len(r.Noted) != all {
		t.Errorf("without a pin: %+v", r)
	}
	if r := rule(authenticate.Policy{Raise: map[string]bool{channel.FindingHeaders: true}}); len(r.Refused) != all {
		t.Errorf("raised: %+v", r)
	}
	if r := rule(authenticate.Policy{Raise: map[string]bool{channel.FindingWeakKey: true}}); len(r.Noted) != all {
		t.Errorf("another raised: %+v", r)
	}
	// New is what is not the pin or an ancestor of it.
	if r := rule(authenticate.Policy{Since: v.Introduction}); len(r.Refused) != all {
		t.Errorf("since the introduction: %+v", r)
	}
	if r := rule(authenticate.Policy{Since: ends[len(ends)-1]}); len(r.Noted) != all {
		t.Errorf("since the end: %+v", r)
	}
	split := rule(authenticate.Policy{Since: ends[15]})
	if len(split.Refused) == 0 || len(split.Noted) == 0 {
		t.Errorf("since the middle: %+v", split)
	}
	many := *v
	many.MoreFindings = 1
	if _, err := new(authenticate.Policy).Rule(&many, now); !refusedFor(err, "policy-findings") {
		t.Errorf("more findings than are listed: %v", err)
	}
	if _, err := (&authenticate.Policy{Since: git.ID{1}}).Rule(v, now); err == nil {
		t.Error("a pin that is not of the history")
	}

	good := authenticate.Excuse{Name: "headers of 2020", Code: channel.FindingHeaders, Reason: "an old tool", By: "olga", Expires: now.Add(time.Hour)}
	if r := rule(authenticate.Policy{Since: v.Introduction, Excuses: []authenticate.Excuse{good}}); len(r.Excused) != all || r.Excused[0].Excuse.Name != good.Name {
		t.Errorf("excused: %+v", r)
	}
	of := good
	of.Commit = v.Findings[0].Commit
	if r := rule(authenticate.Policy{Since: v.Introduction, Excuses: []authenticate.Excuse{of}}); len(r.Excused) != 1 || len(r.Refused) != all-1 {
		t.Errorf("one commit excused: %+v", r)
	}
	of = good
	of.Key = openpgp.Fingerprint{1}
	if r := rule(authenticate.Policy{Since: v.Introduction, Excuses: []authenticate.Excuse{of}}); len(r.Refused) != all {
		t.Errorf("another key excused: %+v", r)
	}
	old := good
	old.Expires = now
	if r := rule(authenticate.Policy{Since: v.Introduction, Excuses: []authenticate.Excuse{old}}); len(r.Refused) != all || len(r.Expired) != 1 {
		t.Errorf("an expired excuse: %+v", r)
	}
	for i, change := range []func(*authenticate.Excuse){
		func(e *authenticate.Excuse) { e.Name = "" },
		func(e *authenticate.Excuse) { e.Reason = "" },
		func(e *authenticate.Excuse) { e.By = "" },
		func(e *authenticate.Excuse) { e.Code = "nothing" },
		func(e *authenticate.Excuse) { e.Expires = time.Time{} },
		func(e *authenticate.Excuse) { e.Expires = now.Add(2 * authenticate.MaxExcuse) },
	} {
		bad := good
		change(&bad)
		if _, err := (&authenticate.Policy{Excuses: []authenticate.Excuse{bad}}).Rule(v, now); err == nil {
			t.Errorf("bad excuse %d is taken", i)
		}
	}
	if err := (&authenticate.Policy{Excuses: []authenticate.Excuse{good, good}, Raise: map[string]bool{"x": true}}).Check(now); err == nil || len(err.(trust.Refusals)) != 2 {
		t.Errorf("two faults: %v", err)
	}
}

// TestEndBehind: an end before the introduction proves nothing, so no enclave with a pin takes it.
func TestEndBehind(t *testing.T) {
	v := &channel.Verdict{Findings: []channel.Finding{{Code: channel.FindingNotIntroduced}}}
	r, err := (&authenticate.Policy{}).Rule(v, now)
	if err != nil || len(r.Noted) != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestCache: a proof that is not ours in every respect is not used.
func TestCache(t *testing.T) {
	v, _ := judged(t)
	top := t.TempDir()
	dir, key := filepath.Join(top, "cache"), filepath.Join(top, "state", "key")
	c, err := authenticate.OpenCache(dir, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	binding := [32]byte{1}
	if p, err := c.Load(binding); p != nil || err != nil {
		t.Fatal(p, err)
	}
	if err := c.Save(binding, v.Proven()); err != nil {
		t.Fatal(err)
	}
	same, err := authenticate.OpenCache(dir, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := same.Load(binding); err != nil || p == nil || p.Commits() != v.Commits {
		t.Fatal(p, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	name := filepath.Join(dir, files[0].Name())
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, c *authenticate.Cache, binding [32]byte) {
		t.Helper()
		if p, err := c.Load(binding); p != nil || err == nil {
			t.Errorf("%s: %v %v", what, p, err)
		}
	}
	write := func(name string, data []byte, mode os.FileMode) {
		t.Helper()
		if err := os.RemoveAll(name); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, data, mode); err != nil {
			t.Fatal(err)
		}
	}
	other, err := authenticate.OpenCache(dir, filepath.Join(top, "other"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	refused("another's key", other, binding)
	for _, i := range []int{0, 30, 60, len(whole) / 2, len(whole) - 40, len(whole) - 1} {
		bad := slices.Clone(whole)
		bad[i] ^= 1
		write(name, bad, 0o600)
		refused(fmt.Sprint("changed at ", i), c, binding)
	}
	for _, n := range []int{0, 10, 32, len(whole) - 1} {
		write(name, whole[:n], 0o600)
		refused(fmt.Sprint("cut at ", n), c, binding)
	}
	write(name, append(slices.Clone(whole), 0), 0o600)
	refused("longer", c, binding)
	write(name, whole, 0o666)
	if err := os.Chmod(name, 0o666); err != nil {
		t.Fatal(err)
	}
	refused("writable by others", c, binding)
	write(name, whole, 0o600)
	moved := filepath.Join(dir, strings.Repeat("02", 32)+".proof")
	write(moved, whole, 0o600)
	refused("under another name", c, [32]byte(slices.Repeat([]byte{2}, 32)))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(moved, name); err != nil {
		t.Fatal(err)
	}
	refused("a link", c, binding)

	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate.OpenCache(dir, key, rand.Reader); err == nil {
		t.Error("a key that others may read")
	}
	write(key, []byte("short"), 0o600)
	if _, err := authenticate.OpenCache(dir, key, rand.Reader); err == nil {
		t.Error("a key that is too short")
	}
	// Only so many are kept.
	for i := range 80 {
		if err := c.Save([32]byte{9, byte(i)}, v.Proven()); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 70 {
		t.Errorf("%d files, %v", len(files), err)
	}
}
