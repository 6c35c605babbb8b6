package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A device is what stands behind an SSH key in these tests: an agent's key, or an emulated security key. It signs as
// PROTOCOL.u2f of OpenSSH says that the authenticator does.
type device struct {
	k       sshPublic
	secret  crypto.Signer
	flags   byte
	counter uint32
	s       string // how s is made: low, high or as it comes
}

// newDevice makes a key of an algorithm; seed tells apart several.
func newDevice(t testing.TB, algorithm, seed string) *device {
	t.Helper()
	d := &device{k: sshPublic{algorithm: algorithm}, flags: skUserPresent, counter: 7}
	if d.k.security() {
		d.k.application = "ssh:"
	}
	if d.k.onP256() {
		// Not the library's generator, which is not the same in every run.
		var b [32]byte
		(&counter{name: algorithm + seed}).Read(b[:])
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), b[:])
		if err != nil {
			t.Fatal(err)
		}
		if d.k.point, err = key.PublicKey.Bytes(); err != nil {
			t.Fatal(err)
		}
		d.secret = key
		return d
	}
	_, key, err := ed25519.GenerateKey(&counter{name: algorithm + seed})
	if err != nil {
		t.Fatal(err)
	}
	d.secret, d.k.point = key, key[32:]
	return d
}

// sign answers as an agent does.
func (d *device) sign(t testing.TB, data []byte) []byte {
	t.Helper()
	if d.k.security() {
		application, hash := sha256.Sum256([]byte(d.k.application)), sha256.Sum256(data)
		data = append(application[:], d.flags)
		data = binary.BigEndian.AppendUint32(data, d.counter)
		data = append(data, hash[:]...)
	}
	s := sshSignature{algorithm: d.k.algorithm, flags: d.flags, counter: d.counter}
	if !d.k.onP256() {
		sig, err := d.secret.Sign(nil, data, crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		s.ed25519 = sig
		return s.wire()
	}
	hash := sha256.Sum256(data)
	sig, err := d.secret.Sign(nil, hash[:], crypto.SHA256) // the same in every run, by RFC 6979
	if err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(sig, &rs); err != nil {
		t.Fatal(err)
	}
	rs.R.FillBytes(s.ecdsa.r[:])
	rs.S.FillBytes(s.ecdsa.s[:])
	if s.ecdsa.isLow() == (d.s == "high") && d.s != "" {
		rs.S.Sub(elliptic.P256().Params().N, rs.S).FillBytes(s.ecdsa.s[:])
	}
	return s.wire()
}

// A deviceKey signs with a device, as package agent does with an agent.
type deviceKey struct {
	t testing.TB
	d *device
	r RootKey
	v VKey
}

func (d *device) key(t testing.TB, name string, wrap bool) *deviceKey {
	t.Helper()
	r, err := FromSSH(name, d.k.wire(), wrap)
	if err != nil {
		t.Fatal(err)
	}
	v, err := r.VKey()
	if err != nil {
		t.Fatal(err)
	}
	return &deviceKey{t, d, r, v}
}

func (k *deviceKey) Name() string { return k.v.Name }

func (k *deviceKey) Person() string { return k.v.Person }

func (k *deviceKey) Context() Context { return k.v.Context }

func (k *deviceKey) VKey() VKey { return k.v }

func (k *deviceKey) RootKey() RootKey { return k.r }

func (k *deviceKey) Sign(c Context, message []byte) ([]byte, error) {
	if err := CheckContext(k, c); err != nil {
		return nil, err
	}
	return k.v.SSHSignature(message, k.d.sign(k.t, k.v.SSHData(message)))
}

func sshAlgorithms() []string { return []string{sshEd25519, sshP256, sshSKEd25519, sshSKP256} }

func TestSSHKeys(t *testing.T) {
	ed, sk := newDevice(t, sshEd25519, "").k, newDevice(t, sshSKP256, "").k
	with := func(k sshPublic, change func(*sshPublic)) []byte {
		k.point = bytes.Clone(k.point)
		change(&k)
		return k.wire()
	}
	identity := append([]byte{1}, make([]byte, 31)...)
	rsa := appendSSH(appendSSH(appendSSH(nil, "ssh-rsa"), "\x01\x00\x01"), strings.Repeat("\x7f", 256))
	for name, bad := range map[string][]byte{
		"empty":                    {},
		"rsa":                      rsa,
		"certificate":              with(ed, func(k *sshPublic) { k.algorithm += "-cert-v01@openssh.com" }),
		"weak point":               with(ed, func(k *sshPublic) { k.point = identity }),
		"short point":              with(ed, func(k *sshPublic) { k.point = k.point[:31] }),
		"compressed point":         with(sk, func(k *sshPublic) { k.point = k.point[:33]; k.point[0] = 2 }),
		"not on the curve":         with(sk, func(k *sshPublic) { k.point[64] ^= 1 }),
		"for a web site":           with(sk, func(k *sshPublic) { k.application = "https://example.org" }),
		"no application":           with(sk, func(k *sshPublic) { k.application = "" }),
		"control in application":   with(sk, func(k *sshPublic) { k.application = "ssh:\x1b[2J" }),
		"endless application":      with(sk, func(k *sshPublic) { k.application = "ssh:" + strings.Repeat("a", maxApplication) }),
		"cut":                      ed.wire()[:len(ed.wire())-1],
		"bytes behind":             append(ed.wire(), 0),
		"length over all":          append([]byte{0xff, 0xff, 0xff, 0xff}, ed.wire()[4:]...),
		"of a security key, alone": appendSSH(appendSSH(nil, sshSKEd25519), ed.point),
		"other curve":              appendSSH(appendSSH(appendSSH(nil, sshP256), "nistp384"), sk.point),
	} {
		if _, err := FromSSH("olga/root", bad, true); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := NewVKey(KeySSHSIG, "olga/root", bad); err == nil {
			t.Errorf("%s: a vkey took it", name)
		}
	}
	ec := newDevice(t, sshP256, "").k
	for _, tt := range []struct {
		name string
		k    sshPublic
		wrap bool
		want KeyKind // empty: refused
	}{
		{"a/root", ed, false, KeyEd25519}, {"a/root", ed, true, KeySSHSIG}, {"a/root", ec, false, KeyP256}, {"a/root", ec, true, KeySSHSIG},
		{"a/root", sk, false, KeySSHSIG}, {"a/witness", ed, false, KeyCosignature}, {"a/sums", ed, false, KeyMinisign},
		{"a/witness", ed, true, ""}, {"a/sums", ed, true, ""}, {"a/witness", ec, false, ""}, {"a/sums", sk, false, ""}, {testZone, ec, false, ""}, {"a/narinfo", ed, false, ""},
		{"station/statement", ed, false, KeyEd25519}, {"station/statement", ec, false, ""}, {"station/statement", ed, true, ""},
	} {
		r, err := FromSSH(tt.name, tt.k.wire(), tt.wrap)
		if (err == nil) != (tt.want != "") {
			t.Errorf("%s from %s: %v", tt.name, tt.k.algorithm, err)
		}
		if err != nil {
			continue
		}
		k, err := r.VKey()
		if err != nil || k.Kind() != tt.want {
			t.Errorf("%s from %s: %s, %v", tt.name, tt.k.algorithm, k.Kind(), err)
		}
		if wire, err := k.SSHPublic(); err != nil || !bytes.Equal(wire, tt.k.wire()) {
			t.Errorf("%s from %s: not the same SSH key: %v", tt.name, tt.k.algorithm, err)
		}
	}
	if _, err := mldsaKey(t, "a/manifest").VKey().SSHPublic(); err == nil {
		t.Error("an ML-DSA key became one of SSH")
	}
}

// An SSHSIG of a key has one spelling, and says nothing but what it must.
func TestSSHSIGSpellings(t *testing.T) {
	text := []byte(allowlistTitle + "\n")
	for _, algorithm := range sshAlgorithms() {
		d := newDevice(t, algorithm, "")
		k := d.key(t, "rada/allowlist", true)
		good := func() sshsig {
			sig, err := k.Sign(ContextAllowlist, text)
			if err != nil {
				t.Fatal(err)
			}
			s, err := parseSSHSIG(sig)
			if err != nil || !bytes.Equal(s.wire(), sig) || !k.v.Verify(text, sig) {
				t.Fatalf("%s: %v", algorithm, err)
			}
			return s
		}
		// resign makes the signature anew, over other data or with other flags, so that nothing but what is tested is wrong with it.
		resign := func(data []byte) sshSignature {
			s, err := parseSSHSignature(d.sign(t, data))
			if err != nil {
				t.Fatal(err)
			}
			s.ecdsa = s.ecdsa.low()
			return s
		}
		data := func(namespace, reserved, hash string) []byte {
			b := appendSSH([]byte(sshsigMagic), namespace)
			b = appendSSH(appendSSH(b, reserved), hash)
			sum := sha512Sum(text)
			return appendSSH(b, sum)
		}
		other := newDevice(t, algorithm, "other")
		changes := map[string]func(s *sshsig){
			"other namespace": func(s *sshsig) {
				s.namespace, s.signature = "sallyport-root", resign(data("sallyport-root", "", sshsigHash))
			},
			"git's namespace": func(s *sshsig) { s.namespace, s.signature = "git", resign(data("git", "", sshsigHash)) },
			"reserved": func(s *sshsig) {
				s.reserved, s.signature = "x", resign(data(sigContext(ContextAllowlist), "x", sshsigHash))
			},
			"sha256": func(s *sshsig) {
				s.hash, s.signature = "sha256", resign(data(sigContext(ContextAllowlist), "", "sha256"))
			},
			"another key": func(s *sshsig) { s.public = other.k.wire() },
			"unwrapped":   func(s *sshsig) { s.signature = resign(text) },
			"other algorithm": func(s *sshsig) {
				s.signature.algorithm = map[bool]string{true: sshEd25519, false: sshSKEd25519}[algorithm != sshEd25519]
			},
			"another's answer": func(s *sshsig) { s.signature = mustSSHSignature(t, other.sign(t, sshsigData(ContextAllowlist, text))) },
		}
		if d.k.onP256() {
			changes["higher s"] = func(s *sshsig) {
				n := new(big.Int).Sub(elliptic.P256().Params().N, new(big.Int).SetBytes(s.signature.ecdsa.s[:]))
				n.FillBytes(s.signature.ecdsa.s[:])
			}
		}
		if d.k.security() {
			for name, flags := range map[string]byte{"not touched": 0, "verified, not touched": 0x04, "attested": skUserPresent | skAttested, "extended": skUserPresent | skExtended} {
				changes[name] = func(s *sshsig) {
					d.flags = flags
					s.signature = resign(sshsigData(ContextAllowlist, text))
					d.flags = skUserPresent
				}
			}
			changes["other counter"] = func(s *sshsig) { s.signature.counter++ }
			changes["other flags"] = func(s *sshsig) { s.signature.flags |= 0x04 }
			d.flags = skUserPresent | 0x04 // with a PIN
			if s := good(); s.signature.flags != 0x05 {
				t.Errorf("%s: flags %x", algorithm, s.signature.flags)
			}
			d.flags = 0
			if _, err := k.Sign(ContextAllowlist, text); err == nil || !strings.Contains(err.Error(), "no-touch-required") {
				t.Errorf("%s: signed without a touch: %v", algorithm, err)
			}
			d.flags = skUserPresent
		}
		for name, change := range changes {
			s := good()
			change(&s)
			if k.v.Verify(text, s.wire()) {
				t.Errorf("%s: %s: verifies", algorithm, name)
			}
		}
		s := good()
		wire := s.wire()
		for name, bad := range map[string][]byte{
			"other magic":   append([]byte("SSHSIH"), wire[6:]...),
			"version 2":     bytes.Replace(wire, []byte("SSHSIG\x00\x00\x00\x01"), []byte("SSHSIG\x00\x00\x00\x02"), 1),
			"bytes behind":  append(bytes.Clone(wire), 0),
			"endless":       append(bytes.Clone(wire), make([]byte, MaxSignature)...),
			"length beyond": append(append([]byte("SSHSIG\x00\x00\x00\x01"), 0xff, 0xff, 0xff, 0xff), wire[14:]...),
			"armoured":      Armor(wire),
		} {
			if k.v.Verify(text, bad) {
				t.Errorf("%s: %s: verifies", algorithm, name)
			}
		}
	}
}

func mustSSHSignature(t testing.TB, b []byte) sshSignature {
	t.Helper()
	s, err := parseSSHSignature(b)
	if err != nil {
		t.Fatal(err)
	}
	s.ecdsa = s.ecdsa.low()
	return s
}

// What an agent answers is not believed.
func TestSSHSignatureRefuses(t *testing.T) {
	text := []byte(allowlistTitle + "\n")
	for _, algorithm := range sshAlgorithms() {
		for _, wrap := range []bool{true, false} {
			d, other := newDevice(t, algorithm, ""), newDevice(t, algorithm, "other")
			k := d.key(t, "rada/allowlist", wrap)
			good := d.sign(t, k.v.SSHData(text))
			if _, err := k.v.SSHSignature(text, good); err != nil {
				t.Fatal(err)
			}
			for name, bad := range map[string][]byte{
				"empty":         {},
				"another key's": other.sign(t, k.v.SSHData(text)),
				"of other data": d.sign(t, []byte("challenge")),
				"cut":           good[:len(good)-1],
				"bytes behind":  append(bytes.Clone(good), 0),
				"rsa":           appendSSH(appendSSH(nil, "rsa-sha2-512"), make([]byte, 256)),
				"endless":       appendSSH(appendSSH(nil, algorithm), make([]byte, 1<<20)),
			} {
				if sig, err := k.v.SSHSignature(text, bad); err == nil {
					t.Errorf("%s: %s: became %x", algorithm, name, sig)
				}
			}
		}
	}
}

// The same file, signed by the real ssh-keygen and by us, verifies at the other.
func TestSSHKeygen(t *testing.T) {
	program, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIPPED: no ssh-keygen found, so its signatures were not compared with ours; install openssh-client to run this test")
	}
	dir := t.TempDir()
	run := func(stdin []byte, args ...string) ([]byte, error) {
		cmd := exec.Command(program, args...)
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
		return cmd.CombinedOutput()
	}
	write := func(name string, b []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text := testAllowlist(3).Text()
	file := write("list", text)
	// allowed writes the file by which ssh-keygen knows who may sign.
	allowed := func(k VKey) string {
		wire, err := k.SSHPublic()
		if err != nil {
			t.Fatal(err)
		}
		return write("allowed", fmt.Appendf(nil, "rada %s %s\n", sshAlgorithm(t, wire), base64.StdEncoding.EncodeToString(wire)))
	}
	verify := func(k VKey, sig []byte, message []byte) error {
		out, err := run(message, "-Y", "verify", "-f", allowed(k), "-I", "rada", "-n", "sallyport-allowlist", "-s", write("sig", Armor(sig)))
		if err == nil && !bytes.Contains(out, []byte("Good ")) {
			err = errors.New("it does not say Good")
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	for _, kind := range []string{"ed25519", "ecdsa"} {
		t.Run("signed by ssh-keygen, "+kind, func(t *testing.T) {
			key := filepath.Join(dir, "id_"+kind)
			if out, err := run(nil, "-q", "-t", kind, "-b", "256", "-N", "", "-C", "a comment", "-f", key); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			pub, err := os.ReadFile(key + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			wire, err := ParseSSHPublicFile(pub)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := run(nil, "-l", "-f", key+".pub"); err != nil || !strings.Contains(string(out), " "+SSHFingerprint(wire)+" ") {
				t.Errorf("fingerprint %s, ssh-keygen says %s (%v)", SSHFingerprint(wire), out, err)
			}
			r, err := FromSSH("rada/allowlist", wire, true)
			if err != nil {
				t.Fatal(err)
			}
			k, err := r.VKey()
			if err != nil {
				t.Fatal(err)
			}
			for range 4 { // half of the signatures on P-256 have the higher s
				os.Remove(file + ".sig")
				if out, err := run(nil, "-Y", "sign", "-f", key, "-n", "sallyport-allowlist", file); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				theirs, err := os.ReadFile(file + ".sig")
				if err != nil {
					t.Fatal(err)
				}
				line, err := FromSSHKeygen(text, k, theirs)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := VerifyLine("allowlist", text, line, []VKey{k}); err != nil {
					t.Error(err)
				}
				// Back to them: our spelling of it is good there.
				_, sig, err := parseSigLine(line)
				if err != nil {
					t.Fatal(err)
				}
				if err := verify(k, sig, text); err != nil {
					t.Error(err)
				}
				crlf := bytes.ReplaceAll(theirs, []byte("\n"), []byte("\r\n"))
				if again, err := FromSSHKeygen(text, k, crlf); err != nil || again != line {
					t.Errorf("the same with CRLF: %v", err)
				}
				stranger := newDevice(t, sshEd25519, "other").key(t, "rada/allowlist", true).v
				raw := newDevice(t, sshEd25519, "").key(t, "rada/allowlist", false).v
				elsewhere, err := FromSSH("rada/root", wire, true)
				if err != nil {
					t.Fatal(err)
				}
				root, err := elsewhere.VKey()
				if err != nil {
					t.Fatal(err)
				}
				for name, tt := range map[string]struct {
					text []byte
					k    VKey
					sig  []byte
					code string
				}{
					"other text":         {testAllowlist(4).Text(), k, theirs, "ssh-signature"},
					"stranger":           {text, stranger, theirs, "ssh-signature"},
					"raw key":            {text, raw, theirs, "ssh-signature"},
					"key of a root":      {text, root, theirs, "key-context"},
					"text of a root":     {[]byte(rootTitle + "\n"), k, theirs, "key-context"},
					"root's text, key":   {[]byte(rootTitle + "\n"), root, theirs, "ssh-signature"},
					"empty":              {text, k, nil, "ssh-signature"},
					"cut":                {text, k, theirs[:len(theirs)/2], "ssh-signature"},
					"over size":          {text, k, append(bytes.Clone(theirs), bytes.Repeat([]byte("\n"), maxArmor)...), "ssh-signature"},
					"character in bas64": {text, k, bytes.Replace(theirs, []byte("U1NI"), []byte("U1N*"), 1), "ssh-signature"},
				} {
					_, err := FromSSHKeygen(tt.text, tt.k, tt.sig)
					if rs, ok := AsRefusals(err); !ok || !rs.Has(tt.code) {
						t.Errorf("%s: %v, want %s", name, err, tt.code)
					}
				}
			}
			os.Remove(file + ".sig")
			if out, err := run(nil, "-Y", "sign", "-f", key, "-n", "file", file); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			theirs, err := os.ReadFile(file + ".sig")
			if err != nil {
				t.Fatal(err)
			}
			_, err = FromSSHKeygen(text, k, theirs)
			wantCodes(t, err, "ssh-signature")
		})
	}
	// Ours, of every algorithm: security keys emulated.
	for _, algorithm := range sshAlgorithms() {
		t.Run("verified by ssh-keygen, "+algorithm, func(t *testing.T) {
			for i := range 4 {
				d := newDevice(t, algorithm, fmt.Sprint(i))
				k := d.key(t, "rada/allowlist", true)
				sig, err := k.Sign(ContextAllowlist, text)
				if err != nil {
					t.Fatal(err)
				}
				if err := verify(k.v, sig, text); err != nil {
					t.Error(err)
				}
				if err := verify(k.v, sig, append(bytes.Clone(text), '\n')); err == nil {
					t.Error("ssh-keygen verifies everything")
				}
				line, err := FromSSHKeygen(text, k.v, Armor(sig))
				if err != nil {
					t.Error(err)
				}
				if want := sigLine(k.v, sig); line != want {
					t.Errorf("%s, want %s", line, want)
				}
			}
		})
	}
}

func sshAlgorithm(t testing.TB, wire []byte) string {
	t.Helper()
	s, err := parseSSHPublic(wire)
	if err != nil {
		t.Fatal(err)
	}
	return s.algorithm
}

func TestParseSSHPublicFile(t *testing.T) {
	wire := newDevice(t, sshP256, "").k.wire()
	b64 := base64.StdEncoding.EncodeToString(wire)
	for _, good := range []string{sshP256 + " " + b64 + "\n", sshP256 + " " + b64, sshP256 + " " + b64 + " me@there, with spaces\r\n"} {
		if got, err := ParseSSHPublicFile([]byte(good)); err != nil || !bytes.Equal(got, wire) {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "\n", sshP256, sshEd25519 + " " + b64, sshP256 + " " + b64 + "\n" + sshP256 + " " + b64 + "\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
		"no-pty " + sshP256 + " " + b64, sshP256 + " " + b64 + strings.Repeat(" ", maxArmor)} {
		if _, err := ParseSSHPublicFile([]byte(bad)); err == nil {
			t.Errorf("%.80q taken", bad)
		}
	}
}

// What parses prints back to the same bytes.
func FuzzSSH(f *testing.F) {
	text := []byte(allowlistTitle + "\n")
	for _, a := range sshAlgorithms() {
		d := newDevice(f, a, "")
		k := d.key(f, "rada/allowlist", true)
		sig, err := k.Sign(ContextAllowlist, text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(d.k.wire())
		f.Add(sig)
		f.Add(d.sign(f, text))
		f.Add(Armor(sig))
	}
	k := newDevice(f, sshSKP256, "").key(f, "rada/allowlist", true).v
	raw := newDevice(f, sshP256, "").key(f, "rada/allowlist", false).v
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := parseSSHPublic(b); err == nil && !bytes.Equal(p.wire(), b) {
			t.Fatalf("key %x prints as %x", b, p.wire())
		}
		if s, err := parseSSHSignature(b); err == nil && !bytes.Equal(s.wire(), b) {
			t.Fatalf("signature %x prints as %x", b, s.wire())
		}
		if s, err := parseSSHSIG(b); err == nil && !bytes.Equal(s.wire(), b) {
			t.Fatalf("SSHSIG %x prints as %x", b, s.wire())
		}
		for _, k := range []VKey{k, raw} {
			if sig, err := k.SSHSignature(text, b); err == nil && !k.Verify(text, sig) {
				t.Fatal("made a signature that does not verify")
			}
		}
		if line, err := FromSSHKeygen(text, k, b); err == nil {
			if _, err := VerifyLine("allowlist", text, line, []VKey{k}); err != nil {
				t.Fatal(err)
			}
		}
		ParseSSHPublicFile(b)
	})
}

func sha512Sum(b []byte) []byte {
	h := sha512.Sum512(b)
	return h[:]
}
