package verbs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/daemon"
	"sallyport/guix/storepath"
)

func storeNoun(env *frame.Env) *cobra.Command {
	return noun("store", "the store of this machine, through guix-daemon", storePath(env), storeInfo(env))
}

const defaultSocket = "/var/guix/daemon-socket/socket"

// dial connects to the daemon of this machine. Like every program of Guix it looks at GUIX_DAEMON_SOCKET, but
// takes only a local socket: this program connects to no other machine.
func dial(ctx context.Context, env *frame.Env) (*daemon.Client, error) {
	socket := env.Getenv("GUIX_DAEMON_SOCKET")
	if socket == "" {
		socket = defaultSocket
	}
	name, isURI := strings.CutPrefix(socket, "unix://")
	if !strings.HasPrefix(name, "/") || !isURI && strings.Contains(name, "://") {
		return nil, frame.Usage("GUIX_DAEMON_SOCKET is %q: want the absolute name of a socket, or unix:// and that", socket)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	if err != nil {
		return nil, frame.WithHint(err, "is guix-daemon running? GUIX_DAEMON_SOCKET names its socket if it is not %s", defaultSocket)
	}
	return daemon.Connect(ctx, conn)
}

// itemsOf reads arguments as store paths, which may be given with or without the directory.
func itemsOf(args []string) ([]storepath.Path, error) {
	var all []storepath.Path
	for _, a := range args {
		parse := storepath.Parse
		if !strings.Contains(a, "/") {
			parse = storepath.ParseBase
		}
		p, err := parse(a)
		if err != nil {
			return nil, frame.Usage("%.300q: %v", a, err)
		}
		all = append(all, p)
	}
	return all, nil
}

// withItems reads arguments as store paths, before the daemon is asked, and calls f with them and a connection.
func withItems(ctx context.Context, env *frame.Env, args []string, f func(c *daemon.Client, items []storepath.Path) error) error {
	items, err := itemsOf(args)
	if err != nil {
		return err
	}
	c, err := dial(ctx, env)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c, items)
}

func storePath(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "path ITEM...",
		Short: "print the paths of items that the store has",
		Long: "Print the paths of items that the store has. An ITEM is a path, its last component, or the 32 characters of its hash part. One that\n" +
			"the store does not have is a failure.",
		Example: "  sallyport store path 71srfn47sm9135lkrw596p9k7f3s5kyz\n  sallyport store path /gnu/store/...-hello-2.12.2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// All arguments are read before the daemon is asked.
			items := make([]storepath.Path, len(args))
			for i, a := range args {
				if _, err := storepath.DecodeBase32(a, 20); err == nil {
					continue
				}
				got, err := itemsOf(args[i : i+1])
				if err != nil {
					return err
				}
				items[i] = got[0]
			}
			c, err := dial(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer c.Close()
			var missing []error
			for i, p := range items {
				if p.IsZero() {
					p, err = c.FromHash(cmd.Context(), args[i])
				} else if valid, verr := c.IsValid(cmd.Context(), p); verr != nil {
					err = verr
				} else if !valid {
					err = fmt.Errorf("%s: %w", p, daemon.ErrNotValid)
				}
				switch {
				case errors.Is(err, daemon.ErrNotValid):
					missing = append(missing, err)
					err = nil
					continue
				case err != nil:
					return err
				}
				if err := env.Result(map[string]string{"type": "item", "path": p.String()}, func(w io.Writer) { fmt.Fprintln(w, p) }); err != nil {
					return err
				}
			}
			return errors.Join(missing...)
		},
	}
}

func storeInfo(env *frame.Env) *cobra.Command {
	var reverse bool
	c := &cobra.Command{
		Use:   "info ITEM...",
		Short: "print what guix-daemon knows of items",
		Long: "Print what guix-daemon knows of items: the hash and size of the nar, the references, the deriver, when they were registered. All of it is\n" +
			"the word of the daemon; 'nar hash' on the item computes the hash again.",
		Example: "  sallyport store info /gnu/store/...-hello-2.12.2\n  sallyport store info --json ITEM | jq -r '.references[]'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withItems(cmd.Context(), env, args, func(c *daemon.Client, items []storepath.Path) error {
				var missing []error
				for _, p := range items {
					err := info(cmd.Context(), env, c, p, reverse)
					if errors.Is(err, daemon.ErrNotValid) {
						missing = append(missing, fmt.Errorf("%s: %w", p, daemon.ErrNotValid))
					} else if err != nil {
						return err
					}
				}
				return errors.Join(missing...)
			})
		},
	}
	c.Flags().BoolVar(&reverse, "reverse", false, "also what refers to the item, and the derivations in the store that make it")
	return c
}

// info asks about one item and prints the answer.
func info(ctx context.Context, env *frame.Env, c *daemon.Client, p storepath.Path, reverse bool) error {
	info, err := c.Info(ctx, p)
	if err != nil {
		return err
	}
	out := struct {
		Type       string   `json:"type"`
		Path       string   `json:"path"`
		SHA256     string   `json:"nar_sha256"`
		Size       int64    `json:"nar_size"`
		References []string `json:"references"`
		Deriver    string   `json:"deriver,omitempty"`
		Registered string   `json:"registered"`
		Referrers  []string `json:"referrers,omitempty"`
		Derivers   []string `json:"derivers,omitempty"`
	}{"item", p.String(), hex.EncodeToString(info.NarHash[:]), info.NarSize, names(info.References), info.Deriver.String(),
		info.Registered.Format("2006-01-02T15:04:05Z"), nil, nil}
	if reverse {
		up, err := c.Referrers(ctx, p)
		if err != nil {
			return err
		}
		from, err := c.Derivers(ctx, p)
		if err != nil {
			return err
		}
		out.Referrers, out.Derivers = names(up), names(from)
	}
	return env.Result(out, func(w io.Writer) {
		fmt.Fprintf(w, "path       %s\nhash       sha256:%s\nsize       %d\nregistered %s\n", p, storepath.EncodeBase32(info.NarHash[:]), info.NarSize, out.Registered)
		if out.Deriver != "" {
			fmt.Fprintf(w, "deriver    %s\n", out.Deriver)
		}
		for _, list := range []struct {
			what  string
			paths []string
		}{{"reference", out.References}, {"referrer", out.Referrers}, {"made by", out.Derivers}} {
			for _, s := range list.paths {
				fmt.Fprintf(w, "%-10s %s\n", list.what, s)
			}
		}
	})
}

// names prints paths. It is never nil, so that JSON has a list.
func names(paths []storepath.Path) []string {
	all := make([]string, len(paths))
	for i, p := range paths {
		all[i] = p.String()
	}
	return all
}
