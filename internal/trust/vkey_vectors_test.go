package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"filippo.io/edwards25519"
)

const keyVectors = "../../vectors/keys"

// A keyVector is one case of vectors/keys/cases.json: does this vkey have this signature of this message?
type keyVector struct {
	Name      string   `json:"name"`
	Rules     []string `json:"rules"` // labels of docs/spec/keys.md
	VKey      string   `json:"vkey"`
	Message   string   `json:"message,omitempty"`
	Signature []byte   `json:"signature,omitempty"` // base64
	Verdict   string   `json:"verdict"`             // good; key: there is no such key; signature: it does not verify
}

type keyCorpus struct {
	t     *testing.T
	cases []keyVector
}

func (c *keyCorpus) add(name, rules string, k VKey, message, sig []byte, verdict string) {
	c.cases = append(c.cases, keyVector{name, strings.Fields(rules), k.String(), string(message), sig, verdict})
}

// bad adds a signature with one fault.
func (c *keyCorpus) bad(name, rules string, k VKey, message, sig []byte) {
	c.add(name, rules, k, message, sig, "signature")
}

// noKey adds a vkey that is none.
func (c *keyCorpus) noKey(name, rules, vkey string) {
	c.cases = append(c.cases, keyVector{Name: name, Rules: strings.Fields(rules), VKey: vkey, Verdict: "key"})
}

func keyCases(t *testing.T) []keyVector {
	c := &keyCorpus{t: t}
	c.table()
	c.spellings()
	c.ed25519()
	c.p256()
	for _, a := range sshAlgorithms() {
		c.sshsig(a)
	}
	c.sshKeys()
	c.mldsa()
	return c.cases
}

// table has each kind in each context.
func (c *keyCorpus) table() {
	public := map[KeyKind][]byte{
		KeyEd25519:     testKey(c.t, "olga/root", "").VKey().Public,
		KeyCosignature: testKey(c.t, "olga/root", "").VKey().Public,
		KeyP256:        newDevice(c.t, sshP256, "").key(c.t, "olga/root", false).v.Public,
		KeySSHSIG:      newDevice(c.t, sshP256, "").k.wire(),
		KeyMLDSA87:     mldsaKey(c.t, "cleo/manifest").VKey().Public,
	}
	for _, kind := range []KeyKind{KeyEd25519, KeyCosignature, KeyP256, KeySSHSIG, KeyMLDSA87} {
		for _, name := range []string{"olga/root", "olga/order", "olga/allowlist", "olga/manifest", "olga/statement", "olga/witness", "olga/sums", "station/statement", testZone} {
			person, context, err := parseKeyName(name)
			if err != nil {
				c.t.Fatal(err)
			}
			if kind == KeyMLDSA87 && context != ContextManifest && context != ContextRoot {
				continue // as long as they are
			}
			if k := (VKey{name, person, context, public[kind], kind}); checkKind(kind, context, person) != nil {
				c.noKey(fmt.Sprintf("table: %s for %s", kind, name), "K1", k.String())
			}
		}
		k := VKey{"olga/narinfo", "olga", ContextNarinfo, public[kind], kind}
		c.noKey(fmt.Sprintf("table: %s for narinfos", kind), "K1", k.String())
	}
}

// spellings are of vkeys.
func (c *keyCorpus) spellings() {
	k := testKey(c.t, "olga/root", "").VKey()
	s := k.String()
	padded := newDevice(c.t, sshEd25519, "").key(c.t, "olga/root", true).v.String()
	named := func(name string) string { return VKey{name, "", "", k.Public, KeyEd25519}.String() }
	for name, bad := range map[string]string{
		"empty":                  "",
		"no hash":                k.Name + "+" + s[strings.LastIndex(s, "+")+1:],
		"other hash":             strings.Replace(s, k.ID(), k.Name+"+00000000", 1),
		"hash in capitals":       strings.Replace(s, k.ID(), k.Name+"+"+strings.ToUpper(fmt.Sprintf("%08x", k.Hash())), 1),
		"byte behind":            s + "A",
		"line feed in base64":    s[:len(s)-8] + "\n" + s[len(s)-8:],
		"line feed behind":       s + "\n",
		"spare bits":             padded[:len(padded)-2] + string(padded[len(padded)-2]+1) + "=",
		"no padding":             strings.TrimRight(padded, "="),
		"unknown type 02":        VKey{k.Name, "", "", k.Public, KeyEd25519}.ID() + "+" + base64.StdEncoding.EncodeToString(append([]byte{2}, k.Public...)),
		"unknown long type":      k.ID() + "+" + base64.StdEncoding.EncodeToString(append([]byte("\xffsallyport-p384"), k.Public...)),
		"no type":                k.ID() + "+" + base64.StdEncoding.EncodeToString(k.Public),
		"no key":                 VKey{k.Name, "", "", nil, KeyEd25519}.String(),
		"one byte less":          VKey{k.Name, "", "", k.Public[:31], KeyEd25519}.String(),
		"one byte more":          VKey{k.Name, "", "", append(bytes.Clone(k.Public), 0), KeyEd25519}.String(),
		"name of no context":     named("olga"),
		"name of another word":   named("olga/boss"),
		"name of three parts":    named("sallyport/citadel/elsewhere"),
		"person in capitals":     named("Olga/root"),
		"person of 33 letters":   named(strings.Repeat("o", 33) + "/root"),
		"space in the name":      named("olga /root"),
		"station, by its ledger": named("station/checkpoint"),
	} {
		c.noKey("spelling: "+name, "K5", bad)
	}
	slices.SortFunc(c.cases, func(a, b keyVector) int { return strings.Compare(a.Name, b.Name) })
}

func (c *keyCorpus) ed25519() {
	text := []byte(rootTitle + "\nenclave citadel\n")
	s := testKey(c.t, "olga/root", "")
	k := s.VKey()
	sig := c.sign(s, ContextRoot, text)
	c.add("ed25519: good", "K6 K7", k, text, sig, "good")
	c.bad("ed25519: bit of the message", "K7", k, append([]byte("S"), text[1:]...), sig)
	c.bad("ed25519: bit of R", "K7", k, text, flip(sig, 0))
	c.bad("ed25519: bit of S", "K7", k, text, flip(sig, 40))
	c.bad("ed25519: S and the group's order", "K7", k, text, addOrder(sig))
	c.bad("ed25519: byte behind", "K5 K7", k, text, append(bytes.Clone(sig), 0))
	c.bad("ed25519: byte less", "K5 K7", k, text, sig[:63])
	c.bad("ed25519: none", "K5 K7", k, text, nil)
	for name, point := range weakPoints(c.t) {
		c.noKey("ed25519: "+name, "K6", VKey{"olga/root", "olga", ContextRoot, point, KeyEd25519}.String())
		c.noKey("ed25519 in sshsig: "+name, "K6 K10", VKey{"olga/root", "olga", ContextRoot, sshPublic{algorithm: sshEd25519, point: point}.wire(), KeySSHSIG}.String())
	}
	slices.SortStableFunc(c.cases, func(a, b keyVector) int {
		if strings.HasPrefix(a.Name, "ed25519") && strings.HasPrefix(b.Name, "ed25519") {
			return strings.Compare(a.Name, b.Name)
		}
		return 0
	})
	w := testKey(c.t, "wim/witness", "")
	checkpoint := []byte(testCheckpoint)
	at := func(seconds uint64) []byte {
		return append(binary.BigEndian.AppendUint64(nil, seconds), ed25519.Sign(w.private, fmt.Appendf(nil, "%s%d\n%s", cosignHeader, seconds, checkpoint))...)
	}
	c.add("cosignature: good", "K5 K7", w.VKey(), checkpoint, at(1_772_355_600), "good")
	c.add("cosignature: of 1970", "K5 K7", w.VKey(), checkpoint, at(0), "good")
	c.add("cosignature: at the bound", "K5 K7", w.VKey(), checkpoint, at(MaxSize), "good")
	c.bad("cosignature: above the bound", "K5 K7", w.VKey(), checkpoint, at(MaxSize+1))
	c.bad("cosignature: of another time", "K5 K7", w.VKey(), checkpoint, flip(at(1_772_355_600), 7))
	c.bad("cosignature: plain signature", "K5 K7", w.VKey(), checkpoint, ed25519.Sign(w.private, checkpoint))
	c.bad("cosignature: plain signature behind a time", "K5 K7", w.VKey(), checkpoint, append(at(0)[:8], ed25519.Sign(w.private, checkpoint)...))
}

func (c *keyCorpus) sign(s Signer, context Context, text []byte) []byte {
	c.t.Helper()
	sig, err := s.Sign(context, text)
	if err != nil {
		c.t.Fatal(err)
	}
	return sig
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// addOrder adds the order of the group to S: the same number, in another spelling.
func addOrder(sig []byte) []byte {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	b := bytes.Clone(sig)
	s := b[32:]
	slices.Reverse(s)
	new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(s)
	slices.Reverse(s)
	return b
}

// weakPoints are encodings of no good point.
func weakPoints(t *testing.T) map[string][]byte {
	t.Helper()
	hex := func(s string) []byte {
		var b []byte
		if _, err := fmt.Sscanf(s, "%x", &b); err != nil || len(b) != 32 {
			t.Fatal(s)
		}
		return b
	}
	good := testKey(t, "olga/root", "").VKey().Public
	return map[string][]byte{
		"identity":          hex("0100000000000000000000000000000000000000000000000000000000000000"),
		"point of order 2":  hex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"point of order 4":  hex("0000000000000000000000000000000000000000000000000000000000000000"),
		"point of order 8":  hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		"y not reduced":     hex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"minus zero":        hex("0100000000000000000000000000000000000000000000000000000000000080"),
		"not on the curve":  hex("0200000000000000000000000000000000000000000000000000000000000000"),
		"with a small part": addOrder8(t, good, hex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")),
	}
}

// addOrder8 adds a point of order 8: the secret answers to the sum, too, for a verifier that takes it.
func addOrder8(t *testing.T, public, small []byte) []byte {
	t.Helper()
	p, err := new(edwards25519.Point).SetBytes(public)
	if err != nil {
		t.Fatal(err)
	}
	q, err := new(edwards25519.Point).SetBytes(small)
	if err != nil {
		t.Fatal(err)
	}
	return p.Add(p, q).Bytes()
}

func (c *keyCorpus) p256() {
	text := []byte(allowlistTitle + "\nenclave citadel\n")
	d := newDevice(c.t, sshP256, "")
	k := d.key(c.t, "rada/allowlist", false)
	sig := c.sign(k, ContextAllowlist, text)
	e := ecdsaOf(c.t, sig)
	c.add("p256: good", "K8 K9", k.v, text, sig, "good")
	order := elliptic.P256().Params().N
	high := e
	new(big.Int).Sub(order, new(big.Int).SetBytes(e.s[:])).FillBytes(high.s[:])
	c.bad("p256: the other s", "K9", k.v, text, high.der())
	c.bad("p256: bit of the message", "K9", k.v, append([]byte("S"), text[1:]...), sig)
	c.bad("p256: bit of r", "K9", k.v, text, flip(sig, 10))
	c.bad("p256: bit of s", "K9", k.v, text, flip(sig, len(sig)-1))
	c.bad("p256: none", "K5 K9", k.v, text, nil)
	c.bad("p256: byte behind", "K5 K9", k.v, text, append(bytes.Clone(sig), 0))
	c.bad("p256: byte behind, inside", "K9", k.v, text, append(append([]byte{0x30, sig[1] + 1}, sig[2:]...), 0))
	c.bad("p256: length in two bytes", "K9", k.v, text, append([]byte{0x30, 0x81}, sig[1:]...))
	c.bad("p256: indefinite length", "K9", k.v, text, append(append([]byte{0x30, 0x80}, sig[2:]...), 0, 0))
	r := appendInt(nil, e.r)
	zero := append([]byte{0x30, sig[1] + 1, 2, byte(len(r) + 1), 0}, sig[4:]...)
	c.bad("p256: zero in front of r", "K9", k.v, text, zero)
	c.bad("p256: r and s alone", "K9", k.v, text, append(bytes.Clone(e.r[:]), e.s[:]...))
	c.bad("p256: r is zero", "K9", k.v, text, ecdsaSig{s: e.s}.der())
	c.bad("p256: s is zero", "K9", k.v, text, ecdsaSig{r: e.r}.der())
	c.bad("p256: as SSH writes it", "K9", k.v, text, sshSignature{algorithm: sshP256, ecdsa: e}.wire())
	c.bad("p256: of the text's hash", "K9", k.v, text, c.sign(k, ContextAllowlist, sum256(text)))
	// A signature whose r or s needs the zero in front.
	for i := range 64 {
		text := fmt.Appendf(nil, "%s\nenclave citadel\nversion %d\n", allowlistTitle, i)
		sig := c.sign(k, ContextAllowlist, text)
		if e := ecdsaOf(c.t, sig); e.r[0] >= 0x80 {
			c.add("p256: good, r with its zero", "K9", k.v, text, sig, "good")
			without := append([]byte{0x30, sig[1] - 1, 2, 32}, sig[5:]...)
			c.bad("p256: r negative", "K9", k.v, text, without)
			break
		}
	}
	point := func(b []byte) string { return VKey{"rada/allowlist", "rada", ContextAllowlist, b, KeyP256}.String() }
	other := flip(k.v.Public, 0)
	c.add("p256, key: the other point of this x", "K8", VKey{"rada/allowlist", "rada", ContextAllowlist, other, KeyP256}, text, sig, "signature")
	c.noKey("p256, key: point written out", "K8", point(d.k.point))
	c.noKey("p256, key: infinity", "K8", point([]byte{0}))
	c.noKey("p256, key: no such x on the curve", "K8", point(append([]byte{2}, append(make([]byte, 31), 1)...)))
	c.noKey("p256, key: x not reduced", "K8", point(append([]byte{2}, elliptic.P256().Params().P.FillBytes(make([]byte, 32))...)))
	c.noKey("p256, key: another first byte", "K8", point(append([]byte{6}, k.v.Public[1:]...)))
	c.noKey("p256, key: byte behind", "K5 K8", point(append(bytes.Clone(k.v.Public), 0)))
}

func sum256(b []byte) []byte {
	d := Sum(b)
	return d[:]
}

func (c *keyCorpus) sshsig(algorithm string) {
	text := []byte(allowlistTitle + "\nenclave citadel\n")
	d := newDevice(c.t, algorithm, "")
	k := d.key(c.t, "rada/allowlist", true)
	name := func(s string) string { return "sshsig, " + algorithm + ": " + s }
	good := func() sshsig {
		s, err := parseSSHSIG(c.sign(k, ContextAllowlist, text))
		if err != nil {
			c.t.Fatal(err)
		}
		return s
	}
	data := func(namespace, reserved, hash string, sum []byte) []byte {
		b := appendSSH([]byte(sshsigMagic), namespace)
		return appendSSH(appendSSH(appendSSH(b, reserved), hash), sum)
	}
	answer := func(data []byte) sshSignature { return mustSSHSignature(c.t, d.sign(c.t, data)) }
	change := func(what, rules string, f func(s *sshsig)) {
		s := good()
		f(&s)
		c.bad(name(what), rules, k.v, text, s.wire())
	}
	s := good()
	c.add(name("good"), "K10 K12 K13", k.v, text, s.wire(), "good")
	c.bad(name("bit of the message"), "K13", k.v, append([]byte("S"), text[1:]...), s.wire())
	c.bad(name("byte behind"), "K5 K12", k.v, text, append(s.wire(), 0))
	c.bad(name("in armour"), "K12", k.v, text, Armor(s.wire()))
	c.bad(name("version 2"), "K12", k.v, text, bytes.Replace(s.wire(), []byte("SSHSIG\x00\x00\x00\x01"), []byte("SSHSIG\x00\x00\x00\x02"), 1))
	c.bad(name("unwrapped"), "K12", k.v, text, s.signature.wire())
	change("another namespace", "K12", func(s *sshsig) {
		s.namespace, s.signature = "sallyport-root", answer(data("sallyport-root", "", sshsigHash, sha512Sum(text)))
	})
	change("namespace file", "K12", func(s *sshsig) {
		s.namespace, s.signature = "file", answer(data("file", "", sshsigHash, sha512Sum(text)))
	})
	change("reserved", "K12", func(s *sshsig) {
		s.reserved, s.signature = "x", answer(data("sallyport-allowlist", "x", sshsigHash, sha512Sum(text)))
	})
	change("sha256", "K12", func(s *sshsig) {
		s.hash, s.signature = "sha256", answer(data("sallyport-allowlist", "", "sha256", sum256(text)))
	})
	other := newDevice(c.t, algorithm, "other")
	change("another key inside", "K12", func(s *sshsig) {
		s.public = other.k.wire()
	})
	change("signed by another key", "K13", func(s *sshsig) {
		s.signature = mustSSHSignature(c.t, other.sign(c.t, sshsigData(ContextAllowlist, text)))
	})
	change("the text itself is signed", "K12 K13", func(s *sshsig) { s.signature = answer(text) })
	inner := func(what, rules string, sig []byte) {
		b := good().wire()
		b = b[:len(b)-len(good().signature.wire())-4]
		c.bad(name(what), rules, k.v, text, appendSSH(b, sig))
	}
	inner("byte behind, inside", "K13", append(s.signature.wire(), 0))
	renamed := s.signature.wire()
	inner("another algorithm inside", "K13", append(appendSSH(nil, "rsa-sha2-512"), renamed[4+len(algorithm):]...))
	if d.k.onP256() {
		change("the other s", "K13", func(s *sshsig) {
			new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(s.signature.ecdsa.s[:])).FillBytes(s.signature.ecdsa.s[:])
		})
		blob := appendSSH(appendSSH(nil, append([]byte{0}, appendInt(nil, s.signature.ecdsa.r)...)), appendInt(nil, s.signature.ecdsa.s))
		sig := appendSSH(appendSSH(nil, algorithm), blob)
		if d.k.security() {
			sig = binary.BigEndian.AppendUint32(append(sig, s.signature.flags), s.signature.counter)
		}
		inner("zero in front of r", "K13", sig)
	}
	if !d.k.security() {
		inner("flags and counter behind", "K13 K14", append(s.signature.wire(), 1, 0, 0, 0, 7))
		return
	}
	flags := func(f byte) sshSignature {
		d.flags = f
		defer func() { d.flags = skUserPresent }()
		return answer(sshsigData(ContextAllowlist, text))
	}
	verified := good()
	verified.signature = flags(skUserPresent | 0x04)
	c.add(name("good, with a PIN"), "K14", k.v, text, verified.wire(), "good")
	change("nobody touched it", "K14", func(s *sshsig) { s.signature = flags(0) })
	change("a PIN, but nobody touched it", "K14", func(s *sshsig) { s.signature = flags(0x04) })
	change("attested data", "K14", func(s *sshsig) { s.signature = flags(skUserPresent | skAttested) })
	change("extensions", "K14", func(s *sshsig) { s.signature = flags(skUserPresent | skExtended) })
	change("another counter", "K14", func(s *sshsig) { s.signature.counter++ })
	change("other flags", "K14", func(s *sshsig) { s.signature.flags |= 0x04 })
	inner("no counter", "K14", s.signature.wire()[:len(s.signature.wire())-4])
	plain := newDevice(c.t, map[bool]string{true: sshP256, false: sshEd25519}[d.k.onP256()], "")
	plain.secret, plain.k.point = d.secret, d.k.point
	change("signed without flags and counter", "K14", func(s *sshsig) {
		p := mustSSHSignature(c.t, plain.sign(c.t, sshsigData(ContextAllowlist, text)))
		s.signature.ed25519, s.signature.ecdsa = p.ed25519, p.ecdsa
	})
}

// sshKeys are SSH keys that are none here.
func (c *keyCorpus) sshKeys() {
	ed, ec := newDevice(c.t, sshSKEd25519, "").k, newDevice(c.t, sshSKP256, "").k
	key := func(what, rules string, wire []byte) {
		c.noKey("sshsig, key: "+what, rules, VKey{"rada/allowlist", "rada", ContextAllowlist, wire, KeySSHSIG}.String())
	}
	application := func(s string) []byte { k := ed; k.application = s; return k.wire() }
	key("rsa", "K10", appendSSH(appendSSH(appendSSH(nil, "ssh-rsa"), "\x01\x00\x01"), strings.Repeat("\x7f", 256)))
	key("P-384", "K10", appendSSH(appendSSH(appendSSH(nil, "ecdsa-sha2-nistp384"), "nistp384"), make([]byte, 97)))
	key("another curve's name", "K10", appendSSH(appendSSH(appendSSH(nil, sshP256), "nistp384"), ec.point))
	key("compressed point", "K10", appendSSH(appendSSH(appendSSH(nil, sshP256), sshCurveP256), append([]byte{2}, ec.point[1:33]...)))
	key("point not on the curve", "K10", appendSSH(appendSSH(appendSSH(nil, sshP256), sshCurveP256), flip(ec.point, 64)))
	key("31 bytes of Ed25519", "K10", appendSSH(appendSSH(nil, sshEd25519), ed.point[:31]))
	key("byte behind", "K5 K10", append(ed.wire(), 0))
	key("cut", "K5 K10", ec.wire()[:len(ec.wire())-1])
	key("length over all", "K5 K10", append([]byte{0xff, 0xff, 0xff, 0xff}, ed.wire()[4:]...))
	key("no application", "K11", appendSSH(appendSSH(nil, sshSKEd25519), ed.point))
	key("application of a plain key", "K10", appendSSH(appendSSH(appendSSH(nil, sshEd25519), ed.point), "ssh:"))
	key("for a web site", "K11", application("https://example.org"))
	key("empty application", "K11", application(""))
	key("line feed in the application", "K11", application("ssh:\n"))
	key("application of 129 characters", "K11", application("ssh:"+strings.Repeat("a", maxApplication-3)))
	d := newDevice(c.t, sshSKEd25519, "")
	d.k.application = "ssh:" + strings.Repeat("a", maxApplication-4)
	k := d.key(c.t, "rada/allowlist", true)
	text := []byte(allowlistTitle + "\nenclave citadel\n")
	c.add("sshsig, key: good, application of 128 characters", "K11", k.v, text, c.sign(k, ContextAllowlist, text), "good")
}

func (c *keyCorpus) mldsa() {
	text := []byte(manifestTitle + "\nenclave citadel\n")
	s := mldsaKey(c.t, "cleo/manifest")
	k := s.VKey()
	sig := c.sign(s, ContextManifest, text)
	c.add("mldsa87: good", "K15 K16", k, text, sig, "good")
	c.bad("mldsa87: bit of the message", "K15", k, append([]byte("S"), text[1:]...), sig)
	c.bad("mldsa87: bit of the signature", "K15", k, text, flip(sig, 1000))
	c.bad("mldsa87: byte less", "K5 K15", k, text, sig[:len(sig)-1])
	c.noKey("mldsa87, key: t1 of nothing", "K16", VKey{"cleo/manifest", "cleo", ContextManifest, append(bytes.Clone(k.Public[:32]), make([]byte, len(k.Public)-32)...), KeyMLDSA87}.String())
	c.noKey("mldsa87, key: t1 of 0 and 1023", "K16", VKey{"cleo/manifest", "cleo", ContextManifest,
		append(bytes.Clone(k.Public[:32]), bytes.Repeat([]byte{0xff, 0x03, 0xf0, 0x3f, 0}, (len(k.Public)-32)/5)...), KeyMLDSA87}.String())
	c.noKey("mldsa87, key: byte less", "K5 K16", VKey{"cleo/manifest", "cleo", ContextManifest, k.Public[:len(k.Public)-1], KeyMLDSA87}.String())
}

const keyVectorsPage = `# keys: public keys and signatures, good ones and such with one fault

What docs/spec/keys.md says, as cases: %d of them in cases.json, an array. Written by the tests of internal/trust (` + "`go test ./internal/trust -run Vectors -update`" + `), which compare every byte on every
run and judge each case. ` + "`rules`" + ` are the labels of the page that a case is about.

- ` + "`vkey`" + ` is a public key as it stands in a root. Where ` + "`verdict`" + ` is ` + "`key`" + `, there is no such key: a root that has it is refused (` + "`root-key`" + `).
- ` + "`message`" + ` is what is signed, ` + "`signature`" + ` (base64) what follows HASH4 in a signature line. ` + "`verdict`" + ` is ` + "`good`, or `signature`" + `: it does not verify.
- A verifier without ML-DSA can judge the keys of kind mldsa87, and of their signatures the length.

All keys are made from their names and TEST-ONLY. No root may name them.
`

// Every vector gets its verdict; the file is what this test makes; and every rule of the page about keys and signatures has one.
func TestKeyVectors(t *testing.T) {
	cases := keyCases(t)
	seen, rules := map[string]bool{}, map[string]bool{}
	for _, v := range cases {
		if seen[v.Name] {
			t.Errorf("two vectors are %q", v.Name)
		}
		seen[v.Name] = true
		for _, r := range v.Rules {
			rules[r] = true
		}
		verdict := "key"
		if k, err := ParseVKey(v.VKey); err == nil {
			verdict = "signature"
			if k.Verify([]byte(v.Message), v.Signature) {
				verdict = "good"
			}
		}
		if verdict != v.Verdict {
			t.Errorf("%s: %s, want %s", v.Name, verdict, v.Verdict)
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	if err := enc.Encode(cases); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"cases.json": b.Bytes(), "README.md": fmt.Appendf(nil, keyVectorsPage, len(cases))}
	for name, data := range files {
		path := filepath.Join(keyVectors, name)
		if flag.Lookup("update").Value.String() == "true" {
			if err := os.MkdirAll(keyVectors, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, data) {
			t.Errorf("%s is not what this test makes (%v); look at the difference, then run with -update", path, err)
		}
	}
	page, err := os.ReadFile("../../docs/spec/keys.md")
	if err != nil {
		t.Fatal(err)
	}
	labels := regexp.MustCompile(`\*\*(K[0-9]+)\*\*`).FindAllStringSubmatch(string(page), -1)
	// Of thresholds, of verifiers, and of files: tested elsewhere.
	elsewhere := []string{"K2", "K3", "K4", "K17", "K18"}
	for _, l := range labels {
		if !rules[l[1]] && !slices.Contains(elsewhere, l[1]) {
			t.Errorf("no vector is about %s", l[1])
		}
		delete(rules, l[1])
	}
	if len(rules) > 0 || len(labels) < 10 {
		t.Errorf("vectors are about rules that the page does not have: %v", rules)
	}
}
