package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/internal/trust"
)

// serve returns an Agent whose other end is a function.
func serve(t testing.TB, handle func(net.Conn)) *Agent {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // whoever serves must end with the connection
	return &Agent{Name: "TEST", Answer: 5 * time.Minute, Touch: 5 * time.Minute, Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		wg.Go(func() {
			defer theirs.Close()
			handle(theirs)
		})
		return ours, nil
	}}
}

// keyring returns an agent of the library with an Ed25519, a P-256 and an RSA key.
func keyring(t testing.TB) (ring agent.Agent, ed, ec []byte) {
	t.Helper()
	ring = agent.NewKeyring()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for comment, key := range map[string]any{"ed": edKey, "ec\x1b[2J": ecKey, "rsa": rsaKey} {
		if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: comment}); err != nil {
			t.Fatal(err)
		}
	}
	return ring, wireOf(t, edKey.Public()), wireOf(t, ecKey.Public())
}

func wireOf(t testing.TB, public any) []byte {
	t.Helper()
	k, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return k.Marshal()
}

func enrol(t testing.TB, name string, wire []byte, wrap bool) trust.RootKey {
	t.Helper()
	line, err := trust.FromSSH(name, wire, wrap)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// wantHint fails unless err is an Error that says what is wrong, and what to do.
func wantHint(t testing.TB, err error, says string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Remedy() == "" {
		t.Errorf("%v: no error with a remedy", err)
	} else if !strings.Contains(err.Error(), says) {
		t.Errorf("%v: does not say %q", err, says)
	}
}

const testText = "sallyport allowlist v1\nenclave citadel\n"

func TestSign(t *testing.T) {
	ring, ed, ec := keyring(t)
	a := serve(t, func(c net.Conn) { agent.ServeAgent(ring, c) })
	ctx := t.Context()
	list, err := a.List(ctx)
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	usable := 0
	for _, i := range list {
		if strings.ContainsRune(i.String(), '\x1b') {
			t.Errorf("a comment reaches the terminal: %q", i)
		}
		if i.Usable() == nil {
			usable++
		}
	}
	if usable != 2 {
		t.Errorf("%d keys can sign", usable)
	}
	for _, wire := range [][]byte{ed, ec} {
		for _, wrap := range []bool{false, true} {
			k, err := a.Key(ctx, enrol(t, "alice/allowlist", wire, wrap))
			if err != nil {
				t.Fatal(err)
			}
			if k.Name() != "alice/allowlist" || k.Person() != "alice" || k.Context() != trust.ContextAllowlist || k.RootKey() != enrol(t, "alice/allowlist", wire, wrap) {
				t.Errorf("it is %s of %s for %s", k.Name(), k.Person(), k.Context())
			}
			for range 8 { // of P-256 half have the higher s
				note, err := trust.SignNote([]byte(testText), k)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := trust.OpenNote("allowlist", note, 1000, []trust.VKey{k.VKey()}); err != nil {
					t.Error(err)
				}
			}
			_, err = k.Sign(trust.ContextRoot, []byte(testText))
			if rs, ok := trust.AsRefusals(err); !ok || !rs.Has("key-context") {
				t.Errorf("signed for a root: %v", err)
			}
			_, err = trust.SignText([]byte("sallyport root v1\n"), k)
			if rs, ok := trust.AsRefusals(err); !ok || !rs.Has("key-context") {
				t.Errorf("signed a root: %v", err)
			}
			long := append([]byte(testText), bytes.Repeat([]byte("a\n"), MaxMessage)...)
			_, err = trust.SignText(long, k)
			if wrap && err != nil {
				t.Errorf("a hash is never too long: %v", err)
			} else if !wrap {
				wantHint(t, err, "more than the 261120")
			}
		}
	}
}

// A witness and sums have forms of their own.
func TestSignOtherForms(t *testing.T) {
	ring, ed, _ := keyring(t)
	a := serve(t, func(c net.Conn) { agent.ServeAgent(ring, c) })
	w, err := a.Key(t.Context(), enrol(t, "wim/witness", ed, false))
	if err != nil {
		t.Fatal(err)
	}
	checkpoint := []byte("sallyport/citadel/inside\n12\nq83vEjRWeJA=\n")
	line, err := trust.CosignText(checkpoint, w, time.Unix(1_772_355_600, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.VerifyLine("cosignature", checkpoint, line, []trust.VKey{w.VKey()}); err != nil {
		t.Error(err)
	}
	if _, err := w.Sign(trust.ContextWitness, checkpoint); err == nil {
		t.Error("a witness signed what is no cosignature")
	}
	s, err := a.Key(t.Context(), enrol(t, "carol/sums", ed, false))
	if err != nil {
		t.Fatal(err)
	}
	sums := []byte("sums\n")
	sig, err := trust.SignSums(s, sums, "sallyport citadel shipment 7")
	if err != nil {
		t.Fatal(err)
	}
	if err := trust.VerifySums(s.RootKey().Key, sums, sig, "sallyport citadel shipment 7"); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	ring, ed, ec := keyring(t)
	a := serve(t, func(c net.Conn) { agent.ServeAgent(ring, c) })
	for _, wire := range [][]byte{ed, ec} {
		if i, err := a.Find(t.Context(), trust.SSHFingerprint(wire)); err != nil || !bytes.Equal(i.Wire, wire) {
			t.Errorf("%v, %v", i, err)
		}
	}
	_, err := a.Find(t.Context(), "")
	wantHint(t, err, "2 keys that could be meant")
	_, err = a.Find(t.Context(), "SHA256:nothing")
	wantHint(t, err, "no key SHA256:nothing; it holds SHA256:")
	k, err := ssh.ParsePublicKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Remove(k); err != nil {
		t.Fatal(err)
	}
	if i, err := a.Find(t.Context(), ""); err != nil || !bytes.Equal(i.Wire, ed) {
		t.Errorf("the only one: %v, %v", i, err)
	}
	_, err = a.Key(t.Context(), enrol(t, "alice/allowlist", ec, false))
	wantHint(t, err, "alice/allowlist")
	if err := ring.Lock([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, err = a.Find(t.Context(), "")
	wantHint(t, err, "no keys")
	pq, err := trust.GenerateKeyOf(rand.Reader, trust.KeyMLDSA87, "carol/manifest")
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Key(t.Context(), pq.RootKey())
	wantHint(t, err, "mldsa87")
}

// packet prefixes a message with its length.
func packet(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }

// request reads one message.
func request(c io.Reader) []byte {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	io.ReadFull(c, b)
	return b
}

// A liar lists a key and answers a request to sign as it likes.
func liar(t testing.TB, wire []byte, answer func(c net.Conn, req []byte)) *Agent {
	return serve(t, func(c net.Conn) {
		for {
			req := request(c)
			switch {
			case len(req) == 0:
				return
			case req[0] == 11:
				list := binary.BigEndian.AppendUint32([]byte{12}, 1)
				list = append(append(list, packet(wire)...), packet([]byte("mine"))...)
				c.Write(packet(list))
			default:
				answer(c, req)
			}
		}
	})
}

// Whatever an agent does, the caller gets an error in time, and never a signature that is none.
func TestLyingAgents(t *testing.T) {
	_, good, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wire := wireOf(t, good.Public())
	sshSig := func(algorithm string, blob []byte) []byte {
		return append(packet([]byte(algorithm)), packet(blob)...)
	}
	response := func(sig []byte) []byte { return packet(append([]byte{14}, packet(sig)...)) }
	for name, tt := range map[string]struct {
		answer func(c net.Conn, req []byte)
		says   string
	}{
		"refuses":           {func(c net.Conn, _ []byte) { c.Write(packet([]byte{5})) }, "failed to sign"},
		"says success":      {func(c net.Conn, _ []byte) { c.Write(packet([]byte{6})) }, "unexpected message"},
		"lists again":       {func(c net.Conn, _ []byte) { c.Write(packet([]byte{12, 0, 0, 0, 0})) }, "unexpected message"},
		"another message":   {func(c net.Conn, _ []byte) { c.Write(packet([]byte{99})) }, "unknown type"},
		"nothing":           {func(c net.Conn, _ []byte) { c.Write(packet(nil)) }, "empty"},
		"hangs up":          {func(c net.Conn, _ []byte) { c.Close() }, "EOF"},
		"hangs up half way": {func(c net.Conn, _ []byte) { c.Write([]byte{0, 0, 0, 9, 14}); c.Close() }, "EOF"},
		"endless":           {func(c net.Conn, _ []byte) { c.Write([]byte{0xff, 0xff, 0xff, 0xff}) }, "too large"},
		"two megabytes":     {func(c net.Conn, _ []byte) { c.Write(packet(append([]byte{14}, make([]byte, 2<<20)...))) }, "more than 1048576"},
		"garbage":           {func(c net.Conn, _ []byte) { c.Write(packet([]byte{14, 0, 0, 0, 2, 1, 1})) }, "ssh"},
		"zeroes":            {func(c net.Conn, _ []byte) { c.Write(response(sshSig("ssh-ed25519", make([]byte, 64)))) }, "does not verify"},
		"short":             {func(c net.Conn, _ []byte) { c.Write(response(sshSig("ssh-ed25519", make([]byte, 63)))) }, "63 bytes"},
		"other algorithm":   {func(c net.Conn, _ []byte) { c.Write(response(sshSig("rsa-sha2-256", make([]byte, 64)))) }, "rsa-sha2-256"},
		"other data": {func(c net.Conn, _ []byte) {
			c.Write(response(sshSig("ssh-ed25519", ed25519.Sign(good, []byte("other")))))
		}, "does not verify"},
		"other key": {func(c net.Conn, _ []byte) {
			c.Write(response(sshSig("ssh-ed25519", ed25519.Sign(other, []byte(testText)))))
		}, "does not verify"},
		"bytes behind": {func(c net.Conn, _ []byte) {
			c.Write(response(append(sshSig("ssh-ed25519", ed25519.Sign(good, []byte(testText))), 0)))
		}, "behind the end"},
	} {
		t.Run(name, func(t *testing.T) {
			a := liar(t, wire, tt.answer)
			for _, wrap := range []bool{false, true} {
				k, err := a.Key(t.Context(), enrol(t, "alice/allowlist", wire, wrap))
				if err != nil {
					t.Fatal(err)
				}
				sig, err := k.Sign(trust.ContextAllowlist, []byte(testText))
				if sig != nil {
					t.Errorf("it signed: %x", sig)
				}
				if tt.says == "behind the end" && wrap {
					continue // it is of other data, too
				}
				wantHint(t, err, tt.says)
			}
		})
	}
	// And the honest one, by the same means.
	a := liar(t, wire, func(c net.Conn, req []byte) {
		c.Write(response(sshSig("ssh-ed25519", ed25519.Sign(good, []byte(testText)))))
	})
	k, err := a.Key(t.Context(), enrol(t, "alice/allowlist", wire, false))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(trust.ContextAllowlist, []byte(testText)); err != nil {
		t.Error(err)
	}
}

// A FIDO2 key in an agent: what the agent answers has two fields more, which must come through.
func TestSecurityKey(t *testing.T) {
	const algorithm = "sk-ssh-ed25519@openssh.com"
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wire := append(packet([]byte(algorithm)), packet(key[32:])...)
	wire = append(wire, packet([]byte("ssh:"))...)
	flags := byte(1) // a person touched it
	a := liar(t, wire, func(c net.Conn, req []byte) {
		var r struct {
			Key, Data []byte
			Flags     uint32
		}
		if err := ssh.Unmarshal(append([]byte(nil), req[1:]...), &r); err != nil || !bytes.Equal(r.Key, wire) {
			t.Errorf("request %x: %v", req, err)
		}
		application, hash := sha256.Sum256([]byte("ssh:")), sha256.Sum256(r.Data)
		counter := []byte{0, 0, 1, 2}
		signed := append(append(append(application[:], flags), counter...), hash[:]...)
		sig := append(packet([]byte(algorithm)), packet(ed25519.Sign(key, signed))...)
		sig = append(append(sig, flags), counter...)
		c.Write(packet(append([]byte{14}, packet(sig)...)))
	})
	id, err := a.Find(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, wrap := range []bool{false, true} { // it is wrapped in any case
		k, err := a.Key(t.Context(), enrol(t, "alice/allowlist", id.Wire, wrap))
		if err != nil {
			t.Fatal(err)
		}
		if k.VKey().Kind() != trust.KeySSHSIG {
			t.Errorf("it is of kind %s", k.VKey().Kind())
		}
		if err := k.Prove(); err != nil {
			t.Error(err)
		}
		line, err := trust.SignText([]byte(testText), k)
		if err == nil {
			_, err = trust.VerifyLine("allowlist", []byte(testText), line, []trust.VKey{k.VKey()})
		}
		if err != nil {
			t.Error(err)
		}
		flags = 0
		wantHint(t, k.Prove(), "no-touch-required")
		flags = 1
	}
}

func TestLyingLists(t *testing.T) {
	many := binary.BigEndian.AppendUint32([]byte{12}, MaxIdentities+1)
	for range MaxIdentities + 1 {
		many = append(append(many, packet(packet([]byte("x")))...), packet(nil)...)
	}
	for name, answer := range map[string][]byte{
		"failure":       packet([]byte{5}),
		"success":       packet([]byte{6}),
		"no list":       packet([]byte{14, 0, 0, 0, 0}),
		"cut":           {0, 0, 0, 9, 12},
		"cut list":      packet([]byte{12, 0, 0, 0, 1}),
		"endless count": packet([]byte{12, 0xff, 0xff, 0xff, 0xff}),
		"great count":   packet([]byte{12, 0, 0x1f, 0xff, 0xff}),
		"too many":      packet(many),
		"nothing":       {},
	} {
		a := serve(t, func(c net.Conn) { request(c); c.Write(answer) })
		list, err := a.List(t.Context())
		if list != nil {
			t.Errorf("%s: %v", name, list)
		}
		wantHint(t, err, "TEST")
	}
}

// An agent that is not there, or hangs at whatever point, ends with the time, and sooner with the context.
func TestDeadAndHangingAgents(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wire := wireOf(t, key.Public())
	line := enrol(t, "alice/allowlist", wire, false)
	hang := func(c net.Conn) { io.Copy(io.Discard, c) } // until it is closed
	half := func(c net.Conn) { request(c); c.Write([]byte{0, 0, 1, 0, 12}); hang(c) }
	for name, handle := range map[string]func(net.Conn){"hangs": hang, "hangs half way": half} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, handle)
			a.Answer = 50 * time.Millisecond
			_, err := a.List(t.Context())
			wantHint(t, err, "did not answer within 50ms")
			a.Answer = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(20*time.Millisecond, cancel)
			if _, err := a.List(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled: %v", err)
			}
		})
	}
	t.Run("hangs while it signs", func(t *testing.T) {
		a := liar(t, wire, func(c net.Conn, _ []byte) { hang(c) })
		a.Touch = 50 * time.Millisecond
		k, err := a.Key(t.Context(), line)
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Sign(trust.ContextAllowlist, []byte(testText))
		wantHint(t, err, "did not answer within 50ms")
		a.Touch = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		if k, err = a.Key(ctx, line); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(20*time.Millisecond, cancel)
		if _, err := k.Sign(trust.ContextAllowlist, []byte(testText)); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
	t.Run("never reads", func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		a := &Agent{Name: "TEST", Answer: 50 * time.Millisecond, Dial: func(context.Context) (net.Conn, error) { return ours, nil }}
		_, err := a.List(t.Context())
		wantHint(t, err, "did not answer within 50ms")
	})
	dir, err := os.MkdirTemp("/tmp", "sallyport-agent-") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Run("no socket", func(t *testing.T) {
		_, err := Open(filepath.Join(dir, "none")).List(t.Context())
		wantHint(t, err, "no such file")
		_, err = Open("").List(t.Context())
		wantHint(t, err, "ssh-agent")
	})
	t.Run("dead socket", func(t *testing.T) {
		path := filepath.Join(dir, "dead")
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		_, err = Open(path).List(t.Context())
		wantHint(t, err, "connection refused")
	})
	t.Run("cancelled before", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := Open(filepath.Join(dir, "dead")).List(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// No answer makes the client panic, or sign falsely.
func FuzzAgent(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	wire := wireOf(f, key.Public())
	list := binary.BigEndian.AppendUint32([]byte{12}, 1)
	list = append(append(list, packet(wire)...), packet([]byte("mine"))...)
	f.Add(list, append([]byte{14}, packet(append(packet([]byte("ssh-ed25519")), packet(ed25519.Sign(key, []byte(testText)))...))...))
	f.Add(list, []byte{5})
	f.Add([]byte{6}, []byte{6})
	line := enrol(f, "alice/allowlist", wire, false)
	f.Fuzz(func(t *testing.T, list, answer []byte) {
		a := serve(t, func(c net.Conn) {
			switch req := request(c); {
			case len(req) == 0:
			case req[0] == 13:
				c.Write(packet(answer))
			default:
				c.Write(packet(list))
			}
		})
		k, err := a.Key(t.Context(), line)
		if err != nil {
			return
		}
		sig, err := k.Sign(trust.ContextAllowlist, []byte(testText))
		if err == nil && !k.VKey().Verify([]byte(testText), sig) {
			t.Fatal("a false signature")
		}
	})
}
