//go:build peer

package peer

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// again writes the archive that r reads.
func again(w io.Writer, r *nar.Reader) error {
	z := nar.NewWriter(w)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return z.Close()
		}
		if err != nil {
			return err
		}
		if err := z.WriteHeader(h); err != nil {
			return err
		}
		if h.Type == nar.Regular {
			if _, err := io.Copy(z, r); err != nil {
				return err
			}
		}
	}
}

// stream writes items as an export stream, signed with k.
func stream(t *testing.T, k signature.SecretKey, items ...item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := archive.NewWriter(&b, k)
	for _, it := range items {
		if err := w.Add(&archive.Item{Path: it.path, References: it.refs}, bytes.NewReader(it.nar)); err != nil {
			t.Fatalf("%s: %v", it.path, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// exported reads a stream and verifies each of its items.
func exported(t *testing.T, data []byte, acl signature.ACL) []*archive.Item {
	t.Helper()
	var items []*archive.Item
	for r := archive.NewReader(bytes.NewReader(data)); ; {
		if _, err := r.Next(); err == io.EOF {
			return items
		} else if err != nil {
			t.Fatal(err)
		}
		it, err := r.Item()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := it.Verify(acl); err != nil {
			t.Fatalf("%s: %v", it.Path, err)
		}
		items = append(items, it)
	}
}

// resign reads a stream and writes it anew, signed with k.
func resign(t *testing.T, data []byte, k signature.SecretKey) []byte {
	t.Helper()
	var out bytes.Buffer
	w := archive.NewWriter(&out, k)
	for r := archive.NewReader(bytes.NewReader(data)); ; {
		z, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var content bytes.Buffer
		if err := again(&content, z); err != nil {
			t.Fatal(err)
		}
		it, err := r.Item()
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(it, &content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// grown are items of random trees, and texts that refer to them in chains.
func grown(t *testing.T, p *peer, n int) []item {
	t.Helper()
	in := p.folder(t)
	f := newForest(*seed+2, 16<<20)
	f.bytes = true // the daemon takes names as bytes
	var items []item
	for _, name := range f.plant(t, in, n) {
		items = append(items, source(t, name, dump(t, in.host, name)))
	}
	for i := range n {
		refs := []storepath.Path{items[i].path, items[len(items)-1].path}
		items = append(items, text(t, fmt.Sprintf("text-%d", i), fmt.Sprintf("%s\n%s\n", refs[0], refs[1]), refs...))
	}
	return items
}

func TestExport(t *testing.T) {
	p := start(t)
	ours := key(t)
	in := p.folder(t)
	items := grown(t, p, 40)

	t.Run("ours to Guix and back", func(t *testing.T) {
		in.write(t, "ours", stream(t, ours, items...), 0o644)
		var paths strings.Builder
		for _, it := range items {
			fmt.Fprintln(&paths, it.path)
		}
		list := in.write(t, "paths", []byte(paths.String()), 0o644)
		// With our key as the daemon's own, what it exports is what we would have written, to the byte.
		p.fresh(t, install(t, in, ours, signature.NewACL(ours.Public()))+
			fmt.Sprintf("guix archive --import <%s/ours\nxargs guix archive --export <%s >%s/theirs\nguix gc --verify=contents,repair >&2", in.name, list, in.name))
		theirs := in.read(t, "theirs")
		got := exported(t, theirs, signature.NewACL(ours.Public()))
		if len(got) != len(items) {
			t.Fatalf("%d items came back, of %d", len(got), len(items))
		}
		byPath := make(map[storepath.Path]item)
		for _, it := range items {
			byPath[it.path] = it
		}
		var order []item
		for _, it := range got {
			order = append(order, byPath[it.Path])
			if !slices.Equal(it.References, byPath[it.Path].refs) {
				t.Errorf("%s: references %q", it.Path, it.References)
			}
		}
		if !bytes.Equal(stream(t, ours, order...), theirs) {
			t.Error("the daemon's stream is not the one that we write of the same items with the same key")
		}
		t.Logf("%d items, %d bytes: imported, exported, and equal to the byte, signatures included", len(got), len(theirs))
	})

	t.Run("an unauthorised key", func(t *testing.T) {
		other := key(t)
		in.write(t, "other", stream(t, other, items[0]), 0o644)
		r := p.try(t, nil, "fresh", "sh", "-e", "-c", install(t, in, ours, signature.NewACL(ours.Public()))+fmt.Sprintf("guix archive --import <%s/other", in.name))
		if r.code == 0 || !bytes.Contains(r.stderr, []byte("unauthorized public key")) {
			t.Errorf("exit status %d: %s", r.code, tail(r.stderr))
		}
	})

	t.Run("Guix's to us and back", func(t *testing.T) {
		drv := strings.TrimSpace(string(p.run(t, "guix", "build", "-d", "--no-grafts", "--no-substitutes", "hello")))
		p.run(t, "sh", "-c", fmt.Sprintf("guix archive --export -r %s >%s/closure", drv, in.name))
		theirs := in.read(t, "closure")
		guix := p.key(t)
		begin := time.Now()
		got := exported(t, theirs, signature.NewACL(guix.Public()))
		took := time.Since(begin)
		if len(got) < 200 {
			t.Fatalf("only %d items", len(got))
		}
		if !bytes.Equal(resign(t, theirs, guix), theirs) {
			t.Error("read and written again with its key, the stream is not the same")
		}
		t.Logf("%d items, %d bytes, read and verified in %v, and written again to the same bytes", len(got), len(theirs), took.Round(time.Millisecond))

		// And on to another enclave, under our name.
		in.write(t, "resigned", resign(t, theirs, ours), 0o644)
		p.fresh(t, install(t, in, ours, signature.NewACL(ours.Public()))+
			fmt.Sprintf("guix archive --import <%s/resigned\nguix archive --export -r %s >%s/again", in.name, drv, in.name))
		if !bytes.Equal(in.read(t, "again"), in.read(t, "resigned")) {
			t.Error("what was imported under our key is not exported as the same bytes")
		}
	})
}

// TestSignatures signs with the same keys on both sides.
func TestSignatures(t *testing.T) {
	const keys, each = 20, 25
	p := start(t)

	// A key that Guix made.
	text := read(t, filepath.Join(p.root, "etc/guix/signing-key.sec"))
	if k := p.key(t); !bytes.Equal(k.Bytes(), text) || k.Public().String() != string(read(t, filepath.Join(p.root, "etc/guix/signing-key.pub"))) {
		t.Error("Guix's key is not printed as Guix does")
	}

	in := p.folder(t)
	secrets := []signature.SecretKey{p.key(t)}
	for len(secrets) < keys {
		secrets = append(secrets, key(t))
	}
	var publics []signature.PublicKey
	var hashes [][32]byte
	var requests, verify bytes.Buffer
	for i, k := range secrets {
		publics = append(publics, k.Public())
		name := in.write(t, fmt.Sprintf("key-%02d.sec", i), k.Bytes(), 0o400)
		in.write(t, fmt.Sprintf("key-%02d.pub", i), []byte(k.Public().String()), 0o444)
		for j := range each {
			var h [32]byte
			switch j {
			case 0: // all zeros
			case 1:
				for b := range h {
					h[b] = 0xff
				}
			case 2:
				h[31] = 7 // nothing, once its last three bits are gone
			default:
				rand.Read(h[:])
			}
			hashes = append(hashes, h)
			x := hex.EncodeToString(h[:])
			fmt.Fprintf(&requests, "sign %d:%s %d:%s\n", len(name), name, len(x), x)
			sig, err := signature.Sign(k, h)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&verify, "verify %d:%s\n", len(sig), sig)
		}
	}
	acl := signature.NewACL(publics...)
	in.write(t, "requests", requests.Bytes(), 0o644)
	in.write(t, "verify", verify.Bytes(), 0o644)
	p.fresh(t, install(t, in, secrets[0], acl)+fmt.Sprintf("cd %s\nguix authenticate <requests >signed\nguix authenticate <verify >verified", in.name))

	signed := replies(t, in.read(t, "signed"))
	verified := replies(t, in.read(t, "verified"))
	if len(signed) != len(hashes) || len(verified) != len(hashes) {
		t.Fatalf("%d and %d replies to %d requests", len(signed), len(verified), len(hashes))
	}
	equal := 0
	for i, h := range hashes {
		k := secrets[i/each]
		sig, err := signature.Sign(k, h)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sig, signed[i]) {
			t.Errorf("hash %x, key %s: we sign\n%s\nGuix signs\n%s", h, k.Public().Hex(), sig, signed[i])
		} else {
			equal++
		}
		for mode, verify := range map[string]func([]byte, [32]byte, signature.ACL) (signature.PublicKey, error){"": signature.Verify, "in strict mode, ": signature.VerifyStrict} {
			if who, err := verify(signed[i], h, acl); err != nil || who != k.Public() {
				t.Errorf("hash %x: %sGuix's signature: %v", h, mode, err)
			}
		}
		if string(verified[i]) != hex.EncodeToString(h[:]) {
			t.Errorf("hash %x: Guix says of ours %q", h, verified[i])
		}
	}
	t.Logf("%d of %d signatures equal to the byte, with %d keys", equal, len(hashes), keys)
}

// TestRSASignatures has Guix sign with a key of the older kind. One signature in 256 begins with a zero, which libgcrypt prints and the strict mode wants.
func TestRSASignatures(t *testing.T) {
	const n = 1500
	p := start(t)
	in := p.folder(t)
	folder := filepath.Join(vectorsFolder, "archives")
	name := in.write(t, "rsa.sec", read(t, filepath.Join(folder, "rsa.TEST-ONLY.sec")), 0o400)
	public := read(t, filepath.Join(folder, "rsa.pub"))
	in.write(t, "rsa.pub", public, 0o444)
	key, err := signature.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	var hashes [n][32]byte
	var requests bytes.Buffer
	for i := range hashes {
		rand.Read(hashes[i][:])
		x := hex.EncodeToString(hashes[i][:])
		fmt.Fprintf(&requests, "sign %d:%s %d:%s\n", len(name), name, len(x), x)
	}
	in.write(t, "requests", requests.Bytes(), 0o644)
	p.fresh(t, fmt.Sprintf("cd %s\nguix authenticate <requests >signed", in.name))
	signed := replies(t, in.read(t, "signed"))
	if len(signed) != n {
		t.Fatalf("%d replies to %d requests", len(signed), n)
	}
	acl, zero := signature.NewACL(key), 0
	for i, sig := range signed {
		if _, err := signature.VerifyStrict(sig, hashes[i], acl); err != nil {
			t.Errorf("hash %x: %v\n%s", hashes[i], err, sig)
		}
		if bytes.Contains(sig, []byte("(s #00")) {
			zero++
		}
	}
	if zero == 0 {
		t.Errorf("none of %d signatures begins with a zero", n)
	}
	t.Logf("%d RSA signatures of Guix verified in strict mode, %d of them begin with a zero", n, zero)
}

// replies takes apart what `guix authenticate` answered: "CODE LENGTH:TEXT", one after the other. All must be of success.
func replies(t *testing.T, b []byte) [][]byte {
	t.Helper()
	var list [][]byte
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte(":"))
		code, length, ok2 := strings.Cut(string(head), " ")
		n, err := strconv.Atoi(length)
		if !ok || !ok2 || err != nil || n < 0 || n > len(rest) {
			t.Fatal(errors.Join(err, fmt.Errorf("reply %.100q", b)))
		}
		if code != "0" {
			t.Fatalf("code %s: %s", code, rest[:n])
		}
		list = append(list, rest[:n])
		b = rest[n:]
	}
	return list
}
