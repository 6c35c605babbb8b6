package inside

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/gate"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// Series is the verb that the inside adds to the noun shipment.
func Series(env *frame.Env) *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "series",
		Short: "list the numbers of shipments: what came, what is missing or lost, and for how long nothing came",
		Long: `List the numbers of shipments: what came, what is missing or lost, and for how long nothing came.

A number is missing if a later one came, until it is imported or officers declare it lost ('order lost'). With the policy
silence in the root there is an alarm when nothing came for that many days: somebody may keep shipments back.`,
		Example: "  sallyport-station shipment series --zone inside\n  sallyport-station shipment series --check || mail officers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			z, root, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			list, alarms, err := gate.Series(ctx, z, root, env.Clock())
			if err != nil {
				return err
			}
			for _, s := range list {
				if err := env.Result(s, func(w io.Writer) {
					switch s.State {
					case "missing":
						fmt.Fprintf(w, "%5d  MISSING      a later one is here\n", s.Number)
					case "lost":
						fmt.Fprintf(w, "%5d  lost         %s\n", s.Number, s.Reason)
					default:
						fmt.Fprintf(w, "%5d  %-12s made %s, imported %s by %s\n", s.Number, s.State, s.Made, s.Imported, s.Importer)
					}
				}); err != nil {
					return err
				}
			}
			if check {
				return alarms.Err()
			}
			warnAlarms(env, alarms)
			return nil
		},
	}
	c.Flags().BoolVar(&check, "check", false, "exit with 3 if there is an alarm")
	return c
}

func warnAlarms(env *frame.Env, alarms trust.Refusals) {
	for _, a := range alarms {
		env.Say("ALARM: %s", a.Error())
	}
}

// attention says, whatever verb a person runs, what they ought to know: alarms in the series of shipments, and what is in use without its reviewers.
func attention(ctx context.Context, env *frame.Env, z *store.Zone, root *trust.Root) error {
	_, alarms, err := gate.Series(ctx, z, root, env.Clock())
	if err != nil {
		return err
	}
	warnAlarms(env, alarms)
	o, err := z.Orders(ctx, root)
	if err != nil || o == nil {
		return err
	}
	for _, b := range o.BreakGlass {
		state := "until " + trust.FormatDate(b.Until)
		if !env.Clock().Before(b.Until) {
			state = "over since " + trust.FormatDate(b.Until) + ", and not closed"
		}
		env.Say("BREAK-GLASS: track %s has %s without its reviewers, %s: %s", b.Track, b.Item.Name, state, b.Reason)
	}
	return nil
}
