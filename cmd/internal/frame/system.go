package frame

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"sallyport/internal/store"
	"sallyport/internal/trust"
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
	err = Usage("zone %s is of kind %q; this verb belongs to %q", dir, z.Config.Kind, kinds)
	return nil, errors.Join(err, z.Close())
}

// Key reads a person's key file, asking for its passphrase when it has one: from the file that SALLYPORT_PASSPHRASE_FILE names, else at the
// terminal.
func (e *Env) Key(path string) (*trust.Key, error) {
	if path == "" {
		return nil, Usage("no key: give --key FILE")
	}
	data, err := ReadBounded(path, 64<<10)
	if err != nil {
		return nil, err
	}
	k, err := trust.ParseKey(data, func() ([]byte, error) { return e.passphrase("passphrase of " + path + ": ") })
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return k, nil
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
