package openpgp_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/openpgp"
)

const made = 1600000000

type keys struct{ a, b, r *channeltest.Key }

var some = sync.OnceValue(func() keys {
	var k keys
	var err [3]error
	k.a, err[0] = channeltest.Ed25519("alice", made, rand.Reader)
	k.b, err[1] = channeltest.Ed25519("bob", made, rand.Reader)
	k.r, err[2] = channeltest.RSA("rose", made, 2048, rand.Reader)
	if e := errors.Join(err[:]...); e != nil {
		panic(e)
	}
	return k
})

func ring(t testing.TB, files ...[]byte) *openpgp.Keyring {
	t.Helper()
	r := openpgp.NewKeyring()
	for _, f := range files {
		if err := r.Add("x.key", f); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func signature(t testing.TB, k *channeltest.Key, f channeltest.Form, data string) *openpgp.Signature {
	t.Helper()
	s, err := openpgp.ParseArmoredSignature(channeltest.Armor("SIGNATURE", k.Signature(f, []byte(data))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerify(t *testing.T) {
	k := some()
	r := ring(t, k.a.File(channeltest.Certificate{Subkeys: []*channeltest.Key{k.b}}), k.r.File(channeltest.Certificate{}))
	for _, key := range []*channeltest.Key{k.a, k.b, k.r} {
		s := signature(t, key, channeltest.Form{Created: made + 1}, "text")
		got := r.Issuer(s)
		if got == nil || got.Fingerprint != key.Fingerprint {
			t.Fatalf("the issuer is %v", got)
		}
		if err := got.Verify(s, [][]byte{[]byte("te"), nil, []byte("xt")}); err != nil {
			t.Error(err)
		}
		if err := got.Verify(s, [][]byte{[]byte("Text")}); err == nil {
			t.Error("a signature over another text")
		}
		if s.Created != made+1 || s.HashName() != "sha256" {
			t.Errorf("%+v", s)
		}
	}
	if sub := r.ByFingerprint(k.b.Fingerprint); !sub.Subkey || sub.Primary().Fingerprint != k.a.Fingerprint || sub.User() != "alice <alice@example.org>" {
		t.Errorf("%+v", sub)
	}
	s := signature(t, k.a, channeltest.Form{}, "text")
	if err := r.ByFingerprint(k.r.Fingerprint).Verify(s, [][]byte{[]byte("text")}); err == nil {
		t.Error("a signature by a key of another kind")
	}
	if err := r.ByFingerprint(k.b.Fingerprint).Verify(s, [][]byte{[]byte("text")}); err == nil {
		t.Error("a signature by another key")
	}
	// R that lost zeros in front.
	for i := range 3000 {
		data := strings.Repeat("x", i)
		short := false
		s := signature(t, k.a, channeltest.Form{Numbers: func(n [][]byte) [][]byte {
			short = n[0][0] == 0
			return n
		}}, data)
		if short {
			if err := r.Issuer(s).Verify(s, [][]byte{[]byte(data)}); err != nil {
				t.Error("a number that lost a zero:", err)
			}
			return
		}
	}
	t.Error("no number began with a zero")
}

func TestStatus(t *testing.T) {
	k := some()
	const day = 86400
	forged := k.b.File(channeltest.Certificate{Revoked: made + day}) // Bob's word about Bob
	for _, tt := range []struct {
		name string
		file []byte
		want openpgp.Status
	}{
		{"for ever", k.a.File(channeltest.Certificate{}), openpgp.Status{}},
		{"expires", k.a.File(channeltest.Certificate{Lifetime: day}), openpgp.Status{Expires: made + day}},
		{"compromised", k.a.File(channeltest.Certificate{Revoked: made + day, Reason: 2}), openpgp.Status{Revoked: made + day, Hard: true}},
		{"no reason", k.a.File(channeltest.Certificate{Revoked: made + day, NoReason: true}), openpgp.Status{Revoked: made + day, Hard: true}},
		{"superseded", k.a.File(channeltest.Certificate{Revoked: made + day, Reason: 1}), openpgp.Status{Revoked: made + day}},
		{"retired and expires", k.a.File(channeltest.Certificate{Revoked: made + day, Reason: 3, Lifetime: 2 * day}), openpgp.Status{Revoked: made + day, Expires: made + 2*day}},
		{"revoked by another", slices.Concat(k.a.File(channeltest.Certificate{}), after(forged)), openpgp.Status{}},
	} {
		r := ring(t, tt.file)
		if got := r.ByFingerprint(k.a.Fingerprint).Status(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	// A subkey is no better than its primary key.
	r := ring(t, k.a.File(channeltest.Certificate{Lifetime: day, Subkeys: []*channeltest.Key{k.b}, Revoked: made + 5, Reason: 1}))
	if got := r.ByFingerprint(k.b.Fingerprint).Status(); got != (openpgp.Status{Expires: made + day, Revoked: made + 5}) {
		t.Errorf("of a subkey: %+v", got)
	}
}

func TestMaySign(t *testing.T) {
	k := some()
	sub := func(c channeltest.Certificate) channeltest.Certificate {
		c.Subkeys = []*channeltest.Key{k.b}
		return c
	}
	own := k.a.File(sub(channeltest.Certificate{Bound: true}))
	for _, tt := range []struct {
		name string
		file []byte
		of   *channeltest.Key
		want bool
	}{
		{"a primary key", k.a.File(channeltest.Certificate{}), k.a, true},
		{"one that certifies alone", k.a.File(channeltest.Certificate{Flags: 1}), k.a, false},
		{"one without a word about it", k.a.File(channeltest.Certificate{}), k.a, true},
		{"a subkey", own, k.b, true},
		{"a subkey that does not say so itself", k.a.File(sub(channeltest.Certificate{})), k.b, false},
		{"another's subkey, with what it said of the other", slices.Concat(k.r.File(channeltest.Certificate{}), own[len(k.a.File(channeltest.Certificate{})):]), k.b, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.name, "without a word") {
				tt.file = tt.file[:len(tt.file)-len(after(tt.file))] // the key packet alone
			}
			if got := ring(t, tt.file).ByFingerprint(tt.of.Fingerprint).MaySign(); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// after cuts the first packet, the key, from a certificate.
func after(file []byte) []byte {
	n := int(file[2])<<24 | int(file[3])<<16 | int(file[4])<<8 | int(file[5])
	return file[6+n:]
}

func TestKeyringOrder(t *testing.T) {
	k := some()
	r := ring(t, k.a.File(channeltest.Certificate{}), slices.Concat(k.b.File(channeltest.Certificate{}), k.a.File(channeltest.Certificate{Lifetime: 1})))
	if n := len(r.Keys()); n != 3 {
		t.Errorf("%d keys", n)
	}
	if got := r.ByFingerprint(k.a.Fingerprint).Status(); got.Expires != 0 {
		t.Error("of two of one fingerprint the second counts")
	}
	if r.ByFingerprint(openpgp.Fingerprint{}) != nil {
		t.Error("a key without a fingerprint")
	}
	if err := openpgp.NewKeyring().Add("large", make([]byte, openpgp.MaxFile+1)); err == nil {
		t.Error("a file over the bound")
	}
}

func TestDearmor(t *testing.T) {
	data := []byte("some data that is longer than one line of armour, so that there are two")
	good := string(channeltest.Armor("X", data))
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"good", good, true},
		{"carriage returns", strings.ReplaceAll(good, "\n", "\r\n"), true},
		{"spaces", strings.ReplaceAll(good, "\n", " \t\n "), true},
		{"empty lines", strings.Replace(good, "\n=", "\n\n \n=", 1), true},
		{"headers", strings.Replace(good, "\n\n", "\nA: b\nC\n\n", 1), true},
		{"what follows", good + "more", true},
		{"what comes before", "\n" + good, false},
		{"a space before", " " + good, false},
		{"no end", good[:len(good)-5], false},
		{"another end", strings.Replace(good, "END PGP X", "END PGP Y", 1), false},
		{"no empty line", strings.Replace(good, "\n\n", "\n", 1), false},
		{"no checksum", strings.Join(strings.Split(good, "\n=")[:1], "") + "\n-----END PGP X-----\n", false},
		{"wrong checksum", strings.Replace(good, "\n=", "\n=A", 1), false},
		{"damaged", strings.Replace(good, "c29t", "c29u", 1), false},
		{"not base64", strings.Replace(good, "c29t", "c2!t", 1), false},
		{"nothing", "", false},
		{"dashes", "-----BEGIN -----", false},
		{"short dashes", "-----BEGIN ----", false},
	} {
		got, err := openpgp.Dearmor([]byte(tt.text))
		if (err == nil) != tt.ok || tt.ok && !bytes.Equal(got, data) {
			t.Errorf("%s: %q %v", tt.name, got, err)
		}
	}
}

// FuzzSignature: no panic, and a signature that verifies over a text that was not signed is not found.
func FuzzSignature(f *testing.F) {
	k := some()
	r := ring(f, k.a.File(channeltest.Certificate{}), k.r.File(channeltest.Certificate{}))
	for _, form := range []channeltest.Form{{}, {Version: 3}, {Hash: channeltest.SHA1}, {NoPrint: true}, {Hashed: channeltest.Subpacket(20, append([]byte{0x80, 0, 0, 0, 0, 1, 0, 1}, "nv"...))},
		{Unhashed: channeltest.Subpacket(32, k.b.Signature(channeltest.Form{Type: 0x19}, []byte("x"))[6:])}} {
		f.Add(k.a.Signature(form, []byte("signed")))
		f.Add(k.r.Signature(form, []byte("signed")))
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, err := openpgp.ParseArmoredSignature(channeltest.Armor("SIGNATURE", packet))
		if err != nil {
			return
		}
		if key := r.Issuer(s); key != nil && key.Verify(s, [][]byte{[]byte("never signed")}) == nil {
			t.Fatal("forged")
		}
	})
}

// FuzzKeyring: no panic, whatever a file says; and what was loaded can be asked.
func FuzzKeyring(f *testing.F) {
	k := some()
	f.Add(k.a.File(channeltest.Certificate{Subkeys: []*channeltest.Key{k.b}, Lifetime: 5, Revoked: 6, Reason: 1}))
	f.Add(k.r.File(channeltest.Certificate{Extra: channeltest.Packet(17, []byte("x"))}))
	f.Add(channeltest.Armor("PUBLIC KEY BLOCK", k.a.File(channeltest.Certificate{})))
	f.Fuzz(func(t *testing.T, file []byte) {
		r := openpgp.NewKeyring()
		if r.Add("x.key", file) != nil {
			return
		}
		for _, key := range r.Keys() {
			key.Status()
			key.MaySign()
			key.User()
			if r.ByFingerprint(key.Fingerprint) == nil {
				t.Fatal("a key that is not found by its fingerprint")
			}
		}
	})
}

// FuzzDearmor: what is decoded is encoded to something that is decoded alike.
func FuzzDearmor(f *testing.F) {
	f.Add(channeltest.Armor("X", []byte("data")))
	f.Add(channeltest.Armor("X", nil))
	f.Fuzz(func(t *testing.T, text []byte) {
		data, err := openpgp.Dearmor(text)
		if err != nil {
			return
		}
		if again, err := openpgp.Dearmor(channeltest.Armor("X", data)); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("%q: %q %v", data, again, err)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	k := some()
	large, err := channeltest.RSA("large", made, 4096, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	old, err := channeltest.DSA("old", made, rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	for _, key := range []struct {
		name string
		*channeltest.Key
	}{{"Ed25519", k.a}, {"RSA2048", k.r}, {"RSA4096", large}, {"DSA1024", old}} {
		b.Run(key.name, func(b *testing.B) {
			r := ring(b, key.File(channeltest.Certificate{}))
			s := signature(b, key.Key, channeltest.Form{}, "text")
			data := [][]byte{[]byte("text")}
			for b.Loop() {
				if err := r.Issuer(s).Verify(s, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestMD5: the hash is verified for no key, though a program that speaks TLS has it.
func TestMD5(t *testing.T) {
	if !crypto.MD5.Available() {
		t.Fatal("nothing is tested: MD5 is linked nowhere")
	}
	k := some()
	r := ring(t, k.a.File(channeltest.Certificate{}), k.r.File(channeltest.Certificate{}))
	for _, key := range []*channeltest.Key{k.a, k.r} {
		s := signature(t, key, channeltest.Form{Created: made + 1, Hash: channeltest.MD5}, "text")
		var e *openpgp.Error
		if err := r.Issuer(s).Verify(s, [][]byte{[]byte("text")}); !errors.As(err, &e) || e.Code != openpgp.CodeUnsupported {
			t.Errorf("%s: %v", key.Name, err)
		}
	}
}
