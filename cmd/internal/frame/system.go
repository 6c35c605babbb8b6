package frame

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"

	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/agent"
)

var randReader = rand.Reader

// Interruptible returns a context that ends with SIGINT or SIGTERM. A second signal kills.
func Interruptible() (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Zone opens the zone that --zone or SALLYPORT_ZONE names and checks that it is of one of the kinds wanted (any, if none is given).
func (e *Env) Zone(ctx context.Context, kinds ...string) (*store.Zone, error) {
	dir := e.ZoneDir
	if dir == "" {
		dir = e.Getenv("SALLYPORT_ZONE")
	}
	if dir == "" {
		return nil, Usage("no zone: give --zone DIR or set SALLYPORT_ZONE; '%s init' makes one", e.Program)
	}
	z, err := store.Open(ctx, dir, store.Options{Clock: e.Clock, Rand: e.Rand, Log: e.Log()})
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		return z, nil
	}
	for _, k := range kinds {
		if z.Config.Kind == k {
			return z, nil
		}
	}
	err = Usage("zone %s is of kind %q; this is for one of kind %s", dir, z.Config.Kind, `"`+strings.Join(kinds, `" or "`)+`"`)
	return nil, errors.Join(err, z.Close())
}

// agentPrefix is what stands in front of a public key file whose secret half is in an ssh-agent.
const agentPrefix = "agent:"

// Key returns the signer that --key names: a key file, whose passphrase is asked for when it has one (of the file that SALLYPORT_PASSPHRASE_FILE names, else at the
// terminal), or agent:PUBFILE, a key that the ssh-agent at SSH_AUTH_SOCK holds. It signs until ctx ends.
func (e *Env) Key(ctx context.Context, name string) (trust.Signer, error) {
	if name == "" {
		return nil, Usage("no key: give --key FILE or --key agent:PUBFILE")
	}
	if public, ok := strings.CutPrefix(name, agentPrefix); ok {
		line, err := ReadPublic(public)
		if err != nil {
			return nil, err
		}
		a, err := e.Agent()
		if err != nil {
			return nil, err
		}
		return a.Key(ctx, line)
	}
	data, err := ReadBounded(name, maxKeyFile)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	k, err := trust.ParseKey(data, func() ([]byte, error) {
		pass, err := e.passphrase("passphrase of " + name + ": ")
		if err == nil {
			e.Say("opening %s: this takes seconds and 1 GiB of memory", name)
		}
		return pass, err
	})
	if err != nil {
		err = fmt.Errorf("key %s: %w", name, err)
		if _, public := trust.ParsePublic(data); public == nil {
			err = WithHint(err, "this is a public key; if an ssh-agent holds its secret half, give --key %s%s", agentPrefix, name)
		}
		return nil, err
	}
	return k, nil
}

// maxKeyFile bounds what is read of a file that should be a key. Larger ones are said to be none.
const maxKeyFile = 64 << 10

// KeyPath makes the file in a name as [Env.Key] takes it absolute.
func KeyPath(name string) (string, error) {
	public, ok := strings.CutPrefix(name, agentPrefix)
	abs, err := filepath.Abs(public)
	if ok {
		abs = agentPrefix + abs
	}
	return abs, err
}

// ReadPublic reads a .pub file.
func ReadPublic(file string) (trust.RootKey, error) {
	data, err := ReadBounded(file, maxKeyFile)
	if err != nil {
		return trust.RootKey{}, err
	}
	k, err := trust.ParsePublic(data)
	if err != nil {
		return trust.RootKey{}, fmt.Errorf("%s: %w", file, err)
	}
	return k, nil
}

// Agent returns the ssh-agent at SSH_AUTH_SOCK.
func (e *Env) Agent() (*agent.Agent, error) {
	socket := e.Getenv("SSH_AUTH_SOCK")
	if socket == "" {
		return nil, WithHint(errors.New("no ssh-agent: SSH_AUTH_SOCK is not set"), "start one with: eval $(ssh-agent), then ssh-add FILE, or ssh-add -s LIBRARY for a card")
	}
	return agent.Open(socket), nil
}

// NewPassphrase asks twice for the passphrase of a new key. The caller wipes it.
func (e *Env) NewPassphrase(what string) ([]byte, error) {
	if e.Getenv("SALLYPORT_PASSPHRASE_FILE") != "" {
		one, err := e.passphrase("")
		if err == nil && len(one) == 0 {
			return nil, Usage("the file that SALLYPORT_PASSPHRASE_FILE names has an empty first line; a key without a passphrase needs --no-passphrase")
		}
		return one, err
	}
	one, err := e.passphrase("new passphrase for " + what + ": ")
	if err != nil {
		return nil, err
	}
	two, err := e.passphrase("the same again: ")
	defer clear(two)
	if err == nil && !bytes.Equal(one, two) {
		err = errors.New("the two passphrases differ; nothing was written")
	}
	if err == nil && len(one) == 0 {
		err = Usage("empty passphrase; a key without one needs --no-passphrase")
	}
	if err != nil {
		clear(one)
		return nil, err
	}
	return one, nil
}

// passphrase asks for a passphrase. The caller wipes it.
func (e *Env) passphrase(prompt string) ([]byte, error) {
	if file := e.Getenv("SALLYPORT_PASSPHRASE_FILE"); file != "" {
		data, err := ReadBounded(file, 4096)
		if err != nil {
			return nil, err
		}
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		clear(rest)
		return line, nil
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, WithHint(errors.New("a passphrase is needed and there is no terminal to ask at"), "set SALLYPORT_PASSPHRASE_FILE to a file that holds it")
	}
	defer tty.Close()
	fmt.Fprint(tty, prompt)
	b, err := term.ReadPassword(int(tty.Fd()))
	fmt.Fprintln(tty)
	return b, err
}
