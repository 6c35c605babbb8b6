package verbs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel"
	"sallyport/internal/trust"
)

func orderChannel(env *frame.Env) *cobra.Command {
	var reason string
	var remove bool
	var args []string
	c := &cobra.Command{
		Use:   "channel --reason TEXT NAME URL BRANCH COMMIT FINGERPRINT | channel --remove NAME...",
		Short: "draft the order that the enclave takes a channel, from this introduction",
		Long: `Draft the order that the enclave takes a channel, from this introduction.

COMMIT and FINGERPRINT are the channel's introduction, as its makers hand it over: they come on paper or by another way that
is trusted by itself, never with a shipment. URL and BRANCH are the ones that every host has in its channels.scm. Without
this order nothing of the channel is let in; with it, each pin is authenticated from the introduction again.

A channel of this name that was ordered before is replaced. The pins that tracks have stay allowed; a new one has to fit the
order that is in force when it is imported, and when it is approved. Excuses were given for the commits of one introduction:
with another one, or with --remove, those of the channel end.`,
		Example: "  sallyport-station order channel --reason 'introduction read from the manual, page 71' guix https://git.guix.gnu.org/guix.git master \\\n" +
			"      9edb3f66fd807b096b48283debdcddccfea34bad 'BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA'\n" +
			"  sallyport-station order channel --remove nonguix",
		Args: cobra.MinimumNArgs(1),
	}
	c.Flags().BoolVar(&remove, "remove", false, "nothing more of these channels is let in")
	ReasonFlag(c, &reason)
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if remove {
			var bad trust.Refusals
			for _, name := range args {
				if _, ok := d.Orders.Channel(name); !ok {
					bad.Add(unknownChannel(name).WithHint("'order show' shows those that are taken"))
				}
				leaveChannel(d.Orders, name)
			}
			return bad.Err()
		}
		if err := CheckReason(reason); err != nil {
			return err
		}
		if len(args) != 5 {
			return frame.Usage("want NAME URL BRANCH COMMIT FINGERPRINT")
		}
		next := trust.Channel{Name: args[0], URL: args[1], Branch: args[2], Commit: args[3], Signer: fingerprintArg(args[4]), Date: d.Now, Reason: reason}
		if err := errors.Join(trust.CheckChannel(next.Name), trust.CheckChannelURL(next.URL), trust.CheckBranch(next.Branch), trust.CheckCommit(next.Commit), trust.CheckOpenPGP(next.Signer)); err != nil {
			return frame.Usage("%v", err)
		}
		if last, ok := d.Orders.Channel(next.Name); ok && last.Commit == next.Commit && last.Signer == next.Signer {
			d.Orders.Channels = slices.DeleteFunc(d.Orders.Channels, func(c trust.Channel) bool { return c.Name == next.Name })
		} else {
			leaveChannel(d.Orders, next.Name)
		}
		d.Orders.Channels = append(d.Orders.Channels, next)
		return nil
	})
}

// leaveChannel takes a channel out of orders, with the excuses for its commits.
func leaveChannel(o *trust.Orders, name string) {
	o.Channels = slices.DeleteFunc(o.Channels, func(c trust.Channel) bool { return c.Name == name })
	o.Excuses = slices.DeleteFunc(o.Excuses, func(e trust.Excuse) bool { return e.Channel == name })
}

func unknownChannel(name string) *trust.Refusal {
	return trust.Refuse("channel-unknown", name, "no order takes this channel")
}

// fingerprintArg takes a fingerprint as gpg and Guix print it, with spaces, or without; in either case of letters.
func fingerprintArg(s string) string { return strings.ToUpper(strings.Join(strings.Fields(s), "")) }

func orderExcuse(env *frame.Env) *cobra.Command {
	var reason, commit, key string
	var days int
	var remove bool
	var args []string
	c := &cobra.Command{
		Use:   "excuse --reason TEXT [--days N] [--commit COMMIT] [--key FINGERPRINT] NAME CODE CHANNEL | excuse --remove NAME...",
		Short: "draft the order that a finding about a channel's commits passes for some days",
		Long: `Draft the order that a finding about a channel's commits passes for some days.

The gate refuses every finding about a commit that is newer than the first pin which a track of the enclave allowed. An excuse
has a NAME by which people speak of it, and the finding's CODE as the refusal printed it. It ends by itself after at most
366 days, and stands in every report in which it was used.`,
		Example: "  sallyport-station order excuse --reason 'key renewed three days late, asked by telephone' --days 30 \\\n      --key '3CE4 6455 8A84 FDC6 9DB4  0CFB 090B 1199 3D9A EBB5' late-renewal signed-after-expiry guix\n" +
			"  sallyport-station order excuse --remove late-renewal",
		Args: cobra.MinimumNArgs(1),
	}
	ReasonFlag(c, &reason)
	c.Flags().IntVar(&days, "days", 30, "how long, from 1 to 366")
	c.Flags().StringVar(&commit, "commit", "", "only about this commit")
	c.Flags().StringVar(&key, "key", "", "only about commits of this key")
	c.Flags().BoolVar(&remove, "remove", false, "take these excuses away")
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if remove {
			var bad trust.Refusals
			for _, name := range args {
				n := len(d.Orders.Excuses)
				d.Orders.Excuses = slices.DeleteFunc(d.Orders.Excuses, func(e trust.Excuse) bool { return e.Name == name })
				if len(d.Orders.Excuses) == n {
					bad.Add(trust.Refuse("excuse-unknown", name, "the orders have no excuse of this name").WithHint("'order show' shows those that there are"))
				}
			}
			return bad.Err()
		}
		if err := CheckReason(reason); err != nil {
			return err
		}
		most := int(trust.MaxExcuse / (24 * time.Hour))
		if len(args) != 3 {
			return frame.Usage("want NAME CODE CHANNEL")
		}
		e := trust.Excuse{Name: args[0], Code: args[1], Channel: args[2], Commit: commit, Key: fingerprintArg(key), Until: d.Now.Add(time.Duration(days) * 24 * time.Hour), Date: d.Now, Reason: reason}
		checks := []error{trust.CheckWord(e.Name), trust.CheckChannel(e.Channel)}
		if commit != "" {
			checks = append(checks, trust.CheckCommit(e.Commit))
		}
		if key != "" {
			checks = append(checks, trust.CheckOpenPGP(e.Key))
		}
		if days < 1 || days > most {
			checks = append(checks, fmt.Errorf("--days %d: want 1 to %d", days, most))
		}
		known := channel.FindingCodes()
		if !slices.ContainsFunc(known, func(c [2]string) bool { return c[0] == e.Code }) {
			var codes []string
			for _, c := range known {
				codes = append(codes, c[0])
			}
			checks = append(checks, fmt.Errorf("no finding has the code %q; there are %s", e.Code, strings.Join(codes, ", ")))
		}
		if err := errors.Join(checks...); err != nil {
			return frame.Usage("%v", err)
		}
		if _, ok := d.Orders.Channel(e.Channel); !ok {
			return unknownChannel(e.Channel).WithHint("'order channel' comes first; both may stand in one draft")
		}
		d.Orders.Excuses = slices.DeleteFunc(d.Orders.Excuses, func(x trust.Excuse) bool { return x.Name == e.Name })
		d.Orders.Excuses = append(d.Orders.Excuses, e)
		return nil
	})
}
