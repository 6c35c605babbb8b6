// Package agent signs with keys that lie in an ssh-agent: keys of OpenSSH, cards behind PKCS#11 (`ssh-add -s`), FIDO2 keys. The secret half never
// comes here.
//
//	a := agent.Open(os.Getenv("SSH_AUTH_SOCK"))
//	line, err := trust.ParsePublic(file) // alice.allowlist.pub
//	key, err := a.Key(ctx, line)
//	note, err := trust.SignNote(text, key)
//
// docs/spec/keys.md says which keys of an agent become which kind here, and what the agent is given to sign.
//
// # An agent is not believed
//
// It is another process, perhaps on another machine. It may be dead, or hang, or lie. Each request is a connection of its own, which ends after
// [DefaultAnswer], or after [DefaultTouch] where a person may have to touch a key or confirm; or when the context ends. What it answers is bounded by [MaxAnswer], and a signature
// is verified under the public key that the root has before anybody sees it. All errors are of type [Error], which says what to do.
//
// # What an agent cannot
//
// It takes requests of up to 256 KiB, so a key that signs texts as they are signs none longer than [MaxMessage]. A key of kind sshsig has no such
// limit: the agent gets a hash.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"sallyport/internal/trust"
)

// Bounds of what passes between us and an agent.
const (
	DefaultAnswer = 15 * time.Second // to list keys
	DefaultTouch  = 3 * time.Minute  // to sign: a person may have to do something
	MaxAnswer     = 1 << 20          // bytes of an answer
	MaxIdentities = 256              // of one agent
	MaxMessage    = 255 << 10        // bytes that an agent is given to sign; OpenSSH's takes requests of 256 KiB
	maxComment    = 80               // characters of a comment that are shown
)

// An Error says what is wrong with an agent, and what to do about it.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Remedy says what to do.
func (e *Error) Remedy() string { return e.Hint }

// An Agent is reached anew for each request.
type Agent struct {
	Name   string // how errors call it
	Dial   func(ctx context.Context) (net.Conn, error)
	Answer time.Duration // DefaultAnswer, if 0
	Touch  time.Duration // DefaultTouch, if 0
}

// Open returns the agent behind a UNIX socket. Nothing is opened yet.
func Open(socket string) *Agent {
	return &Agent{Name: socket, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// An Identity is a key that an agent says it holds.
type Identity struct {
	Wire        []byte // SSH's encoding of the public key
	Algorithm   string
	Fingerprint string
	Comment     string // printable
}

// String is the identity as ssh-add -l shows it.
func (i Identity) String() string { return i.Fingerprint + " " + i.Comment + " (" + i.Algorithm + ")" }

// List returns what the agent says that it holds, of every algorithm.
func (a *Agent) List(ctx context.Context) ([]Identity, error) {
	var list []Identity
	err := a.call(ctx, a.Answer, DefaultAnswer, func(c agent.Agent) error {
		keys, err := c.List()
		if err != nil {
			return err
		}
		if len(keys) > MaxIdentities {
			return fmt.Errorf("it lists %d keys, more than %d", len(keys), MaxIdentities)
		}
		for _, k := range keys {
			list = append(list, Identity{k.Blob, trust.Printable(k.Format, maxComment), trust.SSHFingerprint(k.Blob), trust.Printable(k.Comment, maxComment)})
		}
		return nil
	})
	if err != nil {
		return nil, a.fail(err, "see that ssh-add -l lists keys; SSH_AUTH_SOCK names the agent's socket")
	}
	return list, nil
}

// Find returns the identity of a fingerprint, SHA256:…, or, if the fingerprint is empty, the only identity of an algorithm that may sign here.
func (a *Agent) Find(ctx context.Context, fingerprint string) (Identity, error) {
	list, err := a.List(ctx)
	if err != nil {
		return Identity{}, err
	}
	if fingerprint != "" {
		i := slices.IndexFunc(list, func(i Identity) bool { return i.Fingerprint == fingerprint })
		if i < 0 {
			return Identity{}, a.missing(fingerprint, list)
		}
		return list[i], nil
	}
	var usable []Identity
	for _, i := range list {
		if i.Usable() == nil {
			usable = append(usable, i)
		}
	}
	switch len(usable) {
	case 0:
		return Identity{}, a.missing("that can sign here", list)
	case 1:
		return usable[0], nil
	}
	return Identity{}, a.fail(fmt.Errorf("it holds %d keys that could be meant: %s", len(usable), names(usable)), "say which, with --fingerprint SHA256:...")
}

// Usable says why the key can sign nothing here; nil if it can.
func (i Identity) Usable() error {
	_, err := trust.FromSSH("any/"+string(trust.ContextRoot), i.Wire, true)
	if err != nil {
		// The name is of no meaning to whoever reads this.
		err = errors.New(strings.TrimPrefix(err.Error(), "key any/"+string(trust.ContextRoot)+": "))
	}
	return err
}

func names(list []Identity) string {
	const shown = 8
	var s []string
	for _, i := range list[:min(len(list), shown)] {
		s = append(s, i.String())
	}
	if len(list) > shown {
		s = append(s, fmt.Sprintf("and %d more", len(list)-shown))
	}
	return strings.Join(s, "; ")
}

func (a *Agent) missing(what string, list []Identity) error {
	if len(list) == 0 {
		return a.fail(errors.New("it holds no keys"), "add one with ssh-add FILE, or ssh-add -s LIBRARY for a card; a locked agent shows none: ssh-add -X unlocks it")
	}
	return a.fail(fmt.Errorf("it holds no key %s; it holds %s", what, names(list)), "add the key with ssh-add FILE, or ssh-add -s LIBRARY for a card; ssh-add -l lists what the agent holds")
}

// A Key is a key that an agent holds. It is a [trust.Signer].
type Key struct {
	ctx   context.Context // of the command that asked for it: signing ends with it
	agent *Agent
	line  trust.RootKey
	v     trust.VKey
	wire  []byte
}

var _ trust.Signer = (*Key)(nil)

// Key returns the signer whose public half is given, if the agent holds it. It signs until ctx ends.
func (a *Agent) Key(ctx context.Context, line trust.RootKey) (*Key, error) {
	v, err := line.VKey()
	if err != nil {
		return nil, err
	}
	wire, err := v.SSHPublic()
	if err != nil {
		return nil, &Error{err, "use the key's file instead of an agent"}
	}
	if _, err := a.Find(ctx, trust.SSHFingerprint(wire)); err != nil {
		return nil, fmt.Errorf("key %s: %w", v.Name, err)
	}
	return &Key{ctx, a, line, v, wire}, nil
}

// Name returns the key's name.
func (k *Key) Name() string { return k.v.Name }

// Person returns whose key it is.
func (k *Key) Person() string { return k.v.Person }

// Context returns what the key signs.
func (k *Key) Context() trust.Context { return k.v.Context }

// VKey returns the public half.
func (k *Key) VKey() trust.VKey { return k.v }

// RootKey returns the key's line for a root.
func (k *Key) RootKey() trust.RootKey { return k.line }

// Sign has the agent sign a message, and verifies what it answers.
func (k *Key) Sign(c trust.Context, message []byte) ([]byte, error) {
	if err := trust.CheckContext(k, c); err != nil {
		return nil, err
	}
	return k.sign(message)
}

func (k *Key) sign(message []byte) ([]byte, error) {
	data := k.v.SSHData(message)
	if len(data) > MaxMessage {
		return nil, &Error{fmt.Errorf("key %s: %d bytes are to be signed, more than the %d that an ssh-agent takes", k.v.Name, len(data), MaxMessage),
			"enrol the key with 'key agent --sshsig': then the agent signs a hash"}
	}
	var answer []byte
	err := k.agent.call(k.ctx, k.agent.Touch, DefaultTouch, func(c agent.Agent) error {
		sig, err := c.Sign(&agent.Key{Format: trust.SSHAlgorithm(k.wire), Blob: k.wire}, data)
		if err == nil {
			answer = ssh.Marshal(*sig)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", k.v.Name, k.agent.fail(err, "see that ssh-add -l lists the key; it may want a touch, a PIN or a confirmation, or the card may be gone"))
	}
	sig, err := k.v.SSHSignature(message, answer)
	if err != nil {
		return nil, k.agent.fail(fmt.Errorf("what it answered is not used: %w", err), "is this the agent and the key that were enrolled? 'ssh-add -T FILE.pub' tests an agent's key")
	}
	return sig, nil
}

// Prove has the agent sign what is no document of any kind, and forgets the signature: a key that cannot sign here is found before a root has it.
func (k *Key) Prove() error {
	_, err := k.sign(trust.Proof(k.v.Context))
	return err
}

// call connects, does one thing, and hangs up. Whatever happens it ends with the time or the context.
func (a *Agent) call(ctx context.Context, limit, preset time.Duration, do func(agent.Agent) error) error {
	if limit == 0 {
		limit = preset
	}
	timed, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not answer within %s", limit))
	defer cancel()
	err := a.talk(timed, do)
	if err != nil && timed.Err() != nil {
		// The error is of the connection that was cut for this.
		return context.Cause(timed)
	}
	return err
}

func (a *Agent) talk(ctx context.Context, do func(agent.Agent) error) error {
	conn, err := a.Dial(ctx)
	if err != nil {
		return err
	}
	// Closing is what unblocks a read; whether it was closed before does not matter.
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	return do(agent.NewClient(&stream{conn, MaxAnswer}))
}

// A stream is a connection of which so much is read and no more. It cannot be closed, and so the client starts no goroutine.
type stream struct {
	conn net.Conn
	left int
}

func (s *stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, fmt.Errorf("an answer of more than %d bytes", MaxAnswer)
	}
	n, err := s.conn.Read(p[:min(len(p), s.left)])
	s.left -= n
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// fail makes an error of the agent one that says whose it is and what to do. The end of the caller's context stays what it is.
func (a *Agent) fail(err error, hint string) error {
	return &Error{fmt.Errorf("ssh-agent %s: %w", a.Name, err), hint}
}
