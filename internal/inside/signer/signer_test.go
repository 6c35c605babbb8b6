package signer

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func sign(t *testing.T, e *enclavetest.Enclave, track string) (*Result, error) {
	t.Helper()
	return (&Signer{Zone: e.Zone, Root: e.Root, Track: track, Key: enclavetest.TrackKey(t, track), Host: "keep"}).Sign(t.Context())
}

func refuse(t *testing.T, e *enclavetest.Enclave, track string, codes ...string) {
	t.Helper()
	before, kinds := e.State(), e.Kinds()
	_, err := sign(t, e, track)
	suite.Want(t, err, codes...)
	if e.State() != before {
		t.Error("something changed")
	}
	kinds[statement.KindRefused]++
	if after := e.Kinds(); fmt.Sprint(after) != fmt.Sprint(kinds) {
		t.Errorf("entries %v, want %v", after, kinds)
	}
}

func acl(t *testing.T, track string) signature.ACL {
	return signature.NewACL(enclavetest.TrackKey(t, track).Public())
}

func row(t *testing.T, e *enclavetest.Enclave, track, path string) *narinfo.NarInfo {
	t.Helper()
	n, err := narinfo.Verify([]byte(e.Row(`SELECT body FROM narinfo WHERE track = ? AND path = ?`, track, path)), acl(t, track))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSign(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	src := e.Source("src", "source\n")
	drv := e.Derivation("hello-1.0", src)
	e.Allow("dev", src, drv)
	r, err := sign(t, e, "dev")
	if err != nil || len(r.Signed) != 2 || r.Before != 0 || r.Version != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	n := row(t, e, "dev", drv.Path())
	want := enclavetest.Nar(string(drv.Data))
	if trust.Digest(n.NarHash) != trust.Sum(want) || n.NarSize != int64(len(want)) || len(n.References) != 1 || !n.Deriver.IsZero() || n.Files[0].Compression != "none" {
		t.Errorf("%+v", n)
	}
	out := enclavetest.Out{Path: drv.Output("out"), Nar: enclavetest.Nar("hello"), References: []string{drv.Output("out"), src.Path()}}
	e.Vote("erin", drv, out)
	before := e.State()
	if r, err = sign(t, e, "dev"); err != nil || len(r.Signed) != 0 || r.Before != 2 || e.State() != before {
		t.Errorf("one builder: %+v, %v", r, err)
	}
	e.Vote("frank", drv, out)
	if r, err = sign(t, e, "dev"); err != nil || len(r.Signed) != 1 || r.Before != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	n = row(t, e, "dev", out.Path)
	if trust.Digest(n.NarHash) != trust.Sum(out.Nar) || len(n.References) != 2 || n.Deriver.Base() != drv.Name {
		t.Errorf("%+v", n)
	}
	if k := e.Kinds(); k["signed"] != 2 {
		t.Error(k)
	}
	before = e.State()
	if r, err = sign(t, e, "dev"); err != nil || len(r.Signed) != 0 || e.State() != before {
		t.Errorf("again: %+v, %v", r, err)
	}
	// A row that somebody else wrote is replaced.
	e.Exec(`UPDATE narinfo SET body = 'x' WHERE path = ?`, src.Path())
	if r, err = sign(t, e, "dev"); err != nil || len(r.Signed) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	row(t, e, "dev", src.Path())
}

// Many items, the longest names: every entry stays within its bound.
func TestMany(t *testing.T) {
	t.Parallel()
	e := enclavetest.New(t)
	var all []enclavetest.Content
	for i := range 450 {
		name := fmt.Sprintf("x%d-", i)
		if i%2 == 0 {
			name += strings.Repeat("n", storepath.MaxNameLen-len(name))
		}
		all = append(all, e.Source(name, "content of "+name))
	}
	e.Allow("dev", all...)
	r, err := sign(t, e, "dev")
	if err != nil || len(r.Signed) != len(all) {
		t.Fatalf("%d, %v", len(r.Signed), err)
	}
	if k := e.Kinds(); k["signed"] < 2 || k["signed"] > 4 {
		t.Error(k)
	}
	if n := e.Row(`SELECT count(*) FROM narinfo`); n != fmt.Sprint(len(all)) {
		t.Error(n)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	t.Run("another track's key", func(t *testing.T) {
		t.Parallel()
		e := enclavetest.New(t)
		e.Allow("dev", e.Source("a", "a"))
		s := &Signer{Zone: e.Zone, Root: e.Root, Track: "dev", Key: enclavetest.TrackKey(t, "prod")}
		_, err := s.Sign(t.Context())
		suite.Want(t, err, "track-key")
	})
	t.Run("nothing approved", func(t *testing.T) {
		t.Parallel()
		refuse(t, enclavetest.New(t), "dev", "no-allowlist")
	})
	t.Run("two items lost", func(t *testing.T) {
		t.Parallel()
		e := enclavetest.New(t)
		a, b, c := e.Source("a", "a"), e.Derivation("b"), e.Source("c", "c")
		e.Allow("dev", a, b, c)
		for _, x := range []enclavetest.Content{a, b} {
			if err := e.Zone.CAS.Remove(x.SHA256); err != nil {
				t.Fatal(err)
			}
		}
		refuse(t, e, "dev", "item-lost", "item-lost")
	})
	t.Run("signed otherwise", func(t *testing.T) {
		t.Parallel()
		e := enclavetest.New(t)
		a := e.Source("a", "a")
		e.Allow("dev", a)
		p, err := storepath.Parse(a.Path())
		if err != nil {
			t.Fatal(err)
		}
		e.Sign("dev", &narinfo.NarInfo{StorePath: p, NarHash: trust.Sum([]byte("other")), NarSize: a.Size}, enclavetest.TrackKey(t, "dev"))
		refuse(t, e, "dev", "signed-otherwise")
		e.Sign("dev", &narinfo.NarInfo{StorePath: p, NarHash: a.SHA256, NarSize: a.Size, References: []storepath.Path{p}}, enclavetest.TrackKey(t, "dev"))
		refuse(t, e, "dev", "signed-otherwise")
	})
	t.Run("an older list put back", func(t *testing.T) {
		t.Parallel()
		e := enclavetest.New(t)
		e.Allow("dev", e.Source("a", "a"))
		e.Allow("dev", e.Source("b", "b"))
		if _, err := sign(t, e, "dev"); err != nil {
			t.Fatal(err)
		}
		e.Exec(`DELETE FROM allowlist WHERE version = 2`)
		refuse(t, e, "dev", "allowlist-rollback")
	})
	t.Run("a list past the ledger", func(t *testing.T) {
		t.Parallel()
		e := enclavetest.New(t)
		e.Enter(e.List("dev", e.Source("a", "a")), false, "alice", "bob")
		refuse(t, e, "dev", "not-in-ledger")
	})
}
