// Package trusttest makes keys, roots and lists for the tests of the packages that stand on trust: the same bytes in every run, and of no
// use anywhere else.
//
// Persons: olga, omar and oona are officers, rada, remy and rosa reviewers, bela, boas and bria builders, cleo is collector, ines importer,
// wim witness. Two of each that are three are the threshold. The track is dev.
package trusttest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// counter is a source of bytes that are the same in every run.
type counter struct {
	name string
	n    uint64
	rest []byte
}

func (c *counter) Read(p []byte) (int, error) {
	for n := 0; n < len(p); {
		if len(c.rest) == 0 {
			c.n++
			h := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(c.name), c.n))
			c.rest = h[:]
		}
		m := copy(p[n:], c.rest)
		c.rest = c.rest[m:]
		n += m
	}
	return len(p), nil
}

// Key makes a key; seed tells apart keys of one name.
func Key(t testing.TB, name, seed string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKey(&counter{name: name + seed}, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Epoch is the date of everything here.
var Epoch = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// Zone is the origin of the ledger.
const Zone = "sallyport/citadel/inside"

// An Enclave has the keys of everybody, by name.
type Enclave struct {
	t    testing.TB
	keys map[string]*trust.Key
}

// New returns an enclave without keys; they are made when they are asked for.
func New(t testing.TB) *Enclave { return &Enclave{t, make(map[string]*trust.Key)} }

// Key returns the key of a name.
func (e *Enclave) Key(name string) *trust.Key {
	e.t.Helper()
	if e.keys[name] == nil {
		e.keys[name] = Key(e.t, name, "")
	}
	return e.keys[name]
}

// Root is version 1: two of three officers, two of three reviewers, two of
// three builders.
func (e *Enclave) Root() *trust.Root {
	r := &trust.Root{
		Enclave:    "citadel",
		Version:    1,
		Date:       Epoch,
		Thresholds: map[string]int{"root": 2, "order": 2},
		Policies:   map[string]string{trust.PolicyQuorum: "2"},
	}
	r.SetThreshold("dev", 2)
	give := func(role trust.Role, context trust.Context, persons ...string) {
		for _, p := range persons {
			r.Roles = append(r.Roles, trust.RoleLine{Role: role, Person: p})
			r.Keys = append(r.Keys, e.Key(p+"/"+string(context)).RootKey())
		}
	}
	give(trust.RoleOfficer, trust.ContextRoot, "olga", "omar", "oona")
	for _, p := range r.Persons(trust.RoleOfficer) {
		r.Keys = append(r.Keys, e.Key(p+"/order").RootKey())
	}
	give(trust.RoleReviewer, trust.ContextAllowlist, "rada", "remy", "rosa")
	give(trust.RoleBuilder, trust.ContextStatement, "bela", "boas", "bria")
	give(trust.RoleCollector, trust.ContextManifest, "cleo")
	give(trust.RoleImporter, trust.ContextStatement, "ines")
	give(trust.RoleWitness, trust.ContextWitness, "wim")
	give(trust.RoleStation, trust.ContextStatement, trust.Station)
	r.Keys = append(r.Keys,
		e.Key("cleo/sums").RootKey(),
		e.Key(Zone).RootKey(),
		trust.RootKey{Context: trust.ContextNarinfo, Owner: "dev", Key: strings.Repeat("8d", 32)})
	return r
}

// Sign signs a text with the keys of the given names.
func (e *Enclave) Sign(text []byte, names ...string) []byte {
	e.t.Helper()
	keys := make([]trust.Signer, len(names))
	for i, name := range names {
		keys[i] = e.Key(name)
	}
	msg, err := trust.SignNote(text, keys...)
	if err != nil {
		e.t.Fatal(err)
	}
	return msg
}

// Open opens a root that was given version 1.
func (e *Enclave) Open(r *trust.Root) *trust.Root {
	e.t.Helper()
	text := r.Text()
	opened, err := trust.OpenRoot(e.Sign(text, "olga/root", "omar/root"), trust.Sum(text))
	if err != nil {
		e.t.Fatal(err)
	}
	return opened
}

// Base makes the base name of a store path.
func Base(seed, name string) string {
	h := sha256.Sum256([]byte(seed + name))
	b := make([]byte, storepath.HashLen)
	for i := range b {
		b[i] = "0123456789abcdfghijklmnpqrsvwxyz"[h[i]%32]
	}
	return string(b) + "-" + name
}

// Items makes items, sorted, sources and derivations in turn.
func Items(n int) []trust.Item {
	items := make([]trust.Item, n)
	for i := range items {
		name := Base("item", fmt.Sprintf("package-%d.tar.gz", i))
		items[i] = trust.Item{SHA256: trust.Sum([]byte(name)), Size: int64(i) * 977, Kind: trust.KindSource, Name: name}
		if i%2 == 1 {
			items[i].Kind, items[i].Name = trust.KindDerivation, name+".drv"
		}
	}
	trust.SortItems(items)
	return items
}

// Allowlist makes version 1 of a list.
func Allowlist(n int) *trust.Allowlist {
	return &trust.Allowlist{Enclave: "citadel", Track: "dev", Version: 1, Date: Epoch, Root: 1, Items: Items(n)}
}

// WantCodes fails unless err is refusals with exactly these codes, in any order.
func WantCodes(t testing.TB, err error, codes ...string) {
	t.Helper()
	if len(codes) == 0 {
		if err != nil {
			t.Errorf("unexpected: %v", err)
		}
		return
	}
	rs, ok := trust.AsRefusals(err)
	if !ok {
		t.Errorf("have %v, want refusals %v", err, codes)
		return
	}
	have := slices.Sorted(slices.Values(rs.Codes()))
	want := slices.Sorted(slices.Values(codes))
	if !slices.Equal(have, want) {
		t.Errorf("have codes %v, want %v\n%v", have, want, err)
	}
}

// Replace replaces exactly one place of a text.
func Replace(t testing.TB, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q stands %d times in\n%s", old, strings.Count(text, old), text)
	}
	return strings.Replace(text, old, new, 1)
}

// Names returns the names of the keys that were made, sorted.
func (e *Enclave) Names() []string { return slices.Sorted(maps.Keys(e.keys)) }

// Seed returns the 32 bytes that the key of a name is made from.
func Seed(name, seed string) []byte {
	b := make([]byte, 32)
	(&counter{name: name + seed}).Read(b)
	return b
}
