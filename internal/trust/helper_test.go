package trust

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/storepath"
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

// testKey makes a key; seed tells apart keys of one name.
func testKey(t testing.TB, name, seed string) *Key {
	t.Helper()
	k, err := GenerateKey(&counter{name: name + seed}, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var epoch = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

const testZone = "sallyport/citadel/inside"

// An enclave has the keys of everybody, by name.
type enclave struct {
	t    testing.TB
	keys map[string]*Key
}

func newEnclave(t testing.TB) *enclave { return &enclave{t, make(map[string]*Key)} }

func (e *enclave) key(name string) *Key {
	e.t.Helper()
	if e.keys[name] == nil {
		e.keys[name] = testKey(e.t, name, "")
	}
	return e.keys[name]
}

// root is version 1: two of three officers, two of three reviewers, two of
// three builders.
func (e *enclave) root() *Root {
	r := &Root{
		Enclave:    "citadel",
		Version:    1,
		Date:       epoch,
		Thresholds: map[string]int{"root": 2, "order": 2},
		Policies:   map[string]string{PolicyQuorum: "2"},
	}
	r.SetThreshold("dev", 2)
	give := func(role Role, context Context, persons ...string) {
		for _, p := range persons {
			r.Roles = append(r.Roles, RoleLine{role, p})
			r.Keys = append(r.Keys, e.key(p+"/"+string(context)).RootKey())
		}
	}
	give(RoleOfficer, ContextRoot, "olga", "omar", "oona")
	for _, p := range r.Persons(RoleOfficer) {
		r.Keys = append(r.Keys, e.key(p+"/order").RootKey())
	}
	give(RoleReviewer, ContextAllowlist, "rada", "remy", "rosa")
	give(RoleBuilder, ContextStatement, "bela", "boas", "bria")
	give(RoleCollector, ContextManifest, "cleo")
	give(RoleImporter, ContextStatement, "ines")
	give(RoleWitness, ContextWitness, "wim")
	give(RoleStation, ContextStatement, Station)
	r.Keys = append(r.Keys,
		e.key("cleo/sums").RootKey(),
		e.key(testZone).RootKey(),
		RootKey{Context: ContextNarinfo, Owner: "dev", Key: strings.Repeat("8d", 32)})
	return r
}

// sign signs a text with the keys of the given names.
func (e *enclave) sign(text []byte, names ...string) []byte {
	e.t.Helper()
	keys := make([]Signer, len(names))
	for i, name := range names {
		keys[i] = e.key(name)
	}
	msg, err := SignNote(text, keys...)
	if err != nil {
		e.t.Fatal(err)
	}
	return msg
}

// open opens a root that was given version 1.
func (e *enclave) open(r *Root) *Root {
	e.t.Helper()
	text := r.Text()
	opened, err := OpenRoot(e.sign(text, "olga/root", "omar/root"), Sum(text))
	if err != nil {
		e.t.Fatal(err)
	}
	return opened
}

// next is a root that follows r.
func next(r *Root) *Root {
	n := *r
	n.Version++
	n.Previous = r.Digest()
	n.Date = r.Date.Add(time.Hour)
	n.Keys, n.Roles = slices.Clone(r.Keys), slices.Clone(r.Roles)
	n.Thresholds, n.Policies = maps.Clone(r.Thresholds), maps.Clone(r.Policies)
	return &n
}

func base(seed, name string) string {
	h := sha256.Sum256([]byte(seed + name))
	b := make([]byte, storepath.HashLen)
	for i := range b {
		b[i] = "0123456789abcdfghijklmnpqrsvwxyz"[h[i]%32]
	}
	return string(b) + "-" + name
}

func testItems(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		name := base("item", fmt.Sprintf("package-%d.tar.gz", i))
		items[i] = Item{Sum([]byte(name)), int64(i) * 977, KindSource, name}
		if i%2 == 1 {
			items[i].Kind, items[i].Name = KindDerivation, name+".drv"
		}
	}
	SortItems(items)
	return items
}

func testAllowlist(n int) *Allowlist {
	return &Allowlist{Enclave: "citadel", Track: "dev", Version: 1, Date: epoch, Root: 1, Items: testItems(n)}
}

// wantCodes fails unless err is refusals with exactly these codes, in any order.
func wantCodes(t testing.TB, err error, codes ...string) {
	t.Helper()
	if len(codes) == 0 {
		if err != nil {
			t.Errorf("unexpected: %v", err)
		}
		return
	}
	rs, ok := AsRefusals(err)
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

// replace replaces exactly one place of a text.
func replace(t testing.TB, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q stands %d times in\n%s", old, strings.Count(text, old), text)
	}
	return strings.Replace(text, old, new, 1)
}

// sortBody sorts the lines behind the header of five or seven lines.
func sortBody(text string, header int) string {
	lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n")
	lines[len(lines)-1] += "\n"
	slices.Sort(lines[header:])
	return strings.Join(lines, "")
}

// vkeyOf names any bytes as a vkey, without any check.
func vkeyOf(name string, public []byte) string {
	person, context, _ := parseKeyName(name)
	kind := KeyEd25519
	if context == ContextWitness {
		kind = KeyCosignature
	}
	return VKey{name, person, context, public, kind}.String()
}

// lineOf is a signature line with any signature.
func lineOf(k VKey, sig []byte) string {
	return sigPrefix + k.Name + " " + base64.StdEncoding.EncodeToString(append(binary.BigEndian.AppendUint32(nil, k.Hash()), sig...))
}

// signRaw signs with the secret key itself, past all checks.
func signRaw(k *Key, msg []byte) []byte { return ed25519.Sign(k.private, msg) }
