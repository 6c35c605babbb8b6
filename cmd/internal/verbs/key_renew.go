package verbs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/trust"
)

// renewable are the keys of a zone, as people call them.
var renewable = map[string]trust.Context{"ledger": trust.ContextCheckpoint, "station": trust.ContextStatement}

func keyRenew(env *frame.Env) *cobra.Command {
	var anew bool
	var out string
	c := &cobra.Command{
		Use:   "renew ledger|station",
		Short: "make the key that is to follow the ledger's or the station's own",
		Long: `Make the key that is to follow a zone's own: the ledger's, which signs checkpoints, or the station's, which signs what the zone states.

The private half is made in the zone and never leaves it. What is printed, and written to --out, is the line for the officers' next root ('trust rotate').
When this zone accepts a root that names the new key, it goes on with it at once; that is an entry of the ledger, and the old secret is removed. Until then
nothing changes, and the same line is printed again.

--anew makes another one in the place of a key that waits, if somebody else may have seen its secret: a root that names the former is not accepted any more.`,
		Example: "  sallyport-station key renew --zone inside --out ledger2.pub ledger\n" +
			"  sallyport-station trust rotate --zone inside --old sallyport/demo/inside+9f31c0de --new ledger2.pub",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"ledger", "station"},
		RunE: func(cmd *cobra.Command, args []string) error {
			context, ok := renewable[args[0]]
			if !ok {
				return frame.Usage("%q: want ledger or station", args[0])
			}
			if anew && out != "" {
				// The key that waits would be gone before it is known that the new one's line cannot be written.
				if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
					return frame.WithHint(errors.Join(fmt.Errorf("%s is there already", out), err), "name another file with --out; nothing was changed")
				}
			}
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			if anew {
				if err := z.DropNextKey(cmd.Context(), context); err != nil {
					return err
				}
			}
			now, next, made, err := z.RenewKey(cmd.Context(), context, env.Rand)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeSame(out, "--out", []byte(next.Line()+"\n")); err != nil {
					return err
				}
			}
			old, err := now.VKey()
			if err != nil {
				return err
			}
			env.Say("next: officers sign a root that names it in the place of %s: 'trust rotate --old %s --new FILE'", old.ID(), old.ID())
			v := map[string]any{"zone": z.Origin(), "key": args[0], "now": old.ID(), "public": next.Line(), "made": made}
			return env.Result(v, func(w io.Writer) { fmt.Fprintln(w, next.Line()) })
		},
	}
	c.Flags().BoolVar(&anew, "anew", false, "make another key, although one waits to be named by a root")
	c.Flags().StringVarP(&out, "out", "o", "", "write the line to this file, too")
	return c
}
