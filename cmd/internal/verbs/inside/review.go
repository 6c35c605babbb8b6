package inside

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/review"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func reviewNoun(env *frame.Env) *cobra.Command {
	return noun("review", "persons decide what is allowed", reviewList(env), reviewShow(env), reviewClasses(env), reviewApprove(env), reviewResign(env), reviewWithdraw(env), reviewReject(env))
}

// desk opens the reviewers' desk and runs fn on it.
func desk(ctx context.Context, env *frame.Env, fn func(d *review.Desk) error) error {
	z, root, err := enclave(ctx, env)
	if err != nil {
		return err
	}
	defer z.Close()
	return fn(&review.Desk{Zone: z, Root: root, Clock: env.Clock})
}

// arrival reads what a person calls a shipment, N, or a submission, own-N.
func arrival(s string) (int64, error) {
	n, err := statement.ParseArrival(s)
	if err != nil {
		return 0, frame.Usage("%v", err)
	}
	return n, nil
}

// about is the member by which a result says which it is of.
func about(arrival int64, result map[string]any) map[string]any {
	if arrival < 0 {
		result["submission"] = -arrival
	} else {
		result["shipment"] = arrival
	}
	return result
}

func reviewList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the shipments and submissions, and what became of them", Example: "  sallyport-station review list --zone inside", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				list, err := d.List(cmd.Context())
				if err != nil {
					return err
				}
				if err := attention(cmd.Context(), env, d.Zone, d.Root); err != nil {
					return err
				}
				for _, s := range list {
					kind, name, brought := "shipment", strconv.FormatInt(s.Number, 10), "imported"
					if s.Submission > 0 {
						kind, name, brought = "submission", s.Name(), "submitted"
					}
					err := env.Result(struct {
						Type string `json:"type"`
						review.Summary
					}{kind, s}, func(w io.Writer) {
						switch s.State {
						case review.Missing:
							fmt.Fprintf(w, "%5d  %-12s a later one is here\n", s.Number, s.State)
							return
						case review.Lost:
							fmt.Fprintf(w, "%5d  %-12s officers have declared it\n", s.Number, s.State)
							return
						}
						fmt.Fprintf(w, "%5s  %-12s %6d items %12s  %s by %s, %s\n", name, s.State, s.Items, frame.Bytes(s.Bytes), brought, s.Importer, s.Date)
					})
					if err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func reviewShow(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use: "show NUMBER|own-N", Short: "show everything about one shipment or submission that a reviewer needs",
		Example: "  sallyport-station review show --zone inside 1\n  sallyport-station review show --zone inside own-1", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := arrival(args[0])
			if err != nil {
				return err
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				s, err := d.Show(cmd.Context(), n)
				if err != nil {
					return err
				}
				return env.Result(s, func(w io.Writer) {
					if s.Submission > 0 {
						fmt.Fprintf(w, "%s, %s\nmade inside and submitted by %s, %s; no collector has seen it\n\n", s.Name(), s.State, s.Importer, s.Date)
					} else {
						fmt.Fprintf(w, "shipment %d, %s; manifest %s\ncollected by %s, imported by %s, %s\n\n", s.Number, s.State, s.Manifest, strings.Join(s.Collectors, ", "), s.Importer, s.Date)
					}
					for _, it := range s.New {
						fmt.Fprintf(w, "%-10s %12d  %s\n           sha256 %s\n", it.Kind, it.Size, it.Name, it.SHA256)
					}
					for i := range s.Channels {
						printChannel(w, &s.Channels[i])
					}
					fmt.Fprintf(w, "\nfindings: %d\n", len(s.Findings))
					for _, f := range s.Findings {
						place := f.Place
						if place == "" {
							place = "."
						}
						fmt.Fprintf(w, "%-6s %-26s %5d  %s: %s  (%s)\n", f.Severity, f.Rule, f.Count, f.Item, place, f.Examples)
					}
					for _, a := range s.Approvals {
						fmt.Fprintf(w, "\nsigned for track %s by %s\n", a.Track, a.Person)
					}
				})
			})
		},
	}
}

// printChannel tells what a shipment brings of a channel, the commits by signer and all that a person should not overlook.
func printChannel(w io.Writer, c *review.ChannelPin) {
	fmt.Fprintf(w, "\nchannel %s, %s, branch %s\n  introduced by %s, signed by %s\n", c.Channel, c.URL, c.Branch, c.Introduction, c.Signer)
	if c.Authentic > 0 {
		fmt.Fprintf(w, "  %d commits from there to %s are authentic\n", c.Authentic, c.Commit)
	}
	for _, r := range c.Refused {
		fmt.Fprintf(w, "  NOT AS IT SHOULD BE: %s\n", r)
	}
	for _, m := range c.Changes {
		switch {
		case m.First:
			fmt.Fprintf(w, "  no track has this channel yet; since its introduction:\n")
		default:
			fmt.Fprintf(w, "  track %s stands at another commit:\n", strings.Join(m.Tracks, ", "))
		}
		for line := range strings.Lines(string(m.Diff.Text())) {
			fmt.Fprintf(w, "    %s", line)
		}
	}
}

func reviewApprove(env *frame.Env) *cobra.Command {
	var track, keyFile string
	var sel review.Selection
	c := &cobra.Command{
		Use:   "approve --track TRACK --key FILE [--class RULE ...] [--item NAME ...] NUMBER|own-N",
		Short: "sign the track's next allowlist, with what this shipment or submission brings in it",
		Long: `Sign the track's next allowlist, with what this shipment or submission brings in it.

With --class and --item only what a rule takes, or what is named, goes in; the rest stays in quarantine. A rule is signed
with its result. A second reviewer who selects nothing signs what the first selected, computed anew. 'review classes'
shows what rules would take.`,
		Example: "  sallyport-station review approve --zone inside --track dev --key alice.allowlist.key 1\n" +
			"  sallyport-station review approve --zone inside --track dev --key alice.allowlist.key own-1\n" +
			"  sallyport-station review approve --track dev --key alice.allowlist.key --class 'kind=source,severity<=info' --item 0c0fr0...-odd.tar.gz 1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := arrival(args[0])
			if err != nil {
				return err
			}
			return sign(cmd.Context(), env, track, keyFile, func(d *review.Desk, key trust.Signer) (*review.Outcome, error) {
				return d.Approve(cmd.Context(), n, track, key, sel)
			})
		},
	}
	trackFlags(c, &track, &keyFile)
	c.Flags().StringArrayVar(&sel.Rules, "class", nil, "a rule, as in kind=source,severity<=review; an item goes in by the first that takes it")
	c.Flags().StringArrayVar(&sel.Items, "item", nil, "the base name of an item that goes in by itself")
	return c
}

func trackFlags(c *cobra.Command, track, keyFile *string) {
	c.Flags().StringVar(track, "track", "", "the track: dev, test, prod")
	c.Flags().StringVar(keyFile, "key", "", "the reviewer's allowlist key: a file, or agent:PUBFILE")
}

// sign runs a verb that signs an allowlist, and prints what came of it.
func sign(ctx context.Context, env *frame.Env, track, keyFile string, do func(d *review.Desk, key trust.Signer) (*review.Outcome, error)) error {
	if err := trust.CheckWord(track); err != nil {
		return frame.Usage("track: %v", err)
	}
	return desk(ctx, env, func(d *review.Desk) error {
		key, err := env.Key(ctx, keyFile)
		if err != nil {
			return err
		}
		o, err := do(d, key)
		if err != nil {
			return err
		}
		return env.Result(o, func(w io.Writer) { printOutcome(w, o) })
	})
}

func printOutcome(w io.Writer, o *review.Outcome) {
	if len(o.Void) > 0 {
		fmt.Fprintf(w, "another root, or other orders, are in force since: what %s signed is void, and has to be signed again\n", strings.Join(o.Void, ", "))
	}
	for _, name := range o.Recalled {
		fmt.Fprintf(w, "left out, since it is recalled: %s\n", name)
	}
	switch {
	case o.InForce && len(o.Persons) == 0:
		fmt.Fprintf(w, "allowlist %s version %d is in force and has all of it already; nothing was signed\n", o.Track, o.Version)
		return
	case o.InForce:
		fmt.Fprintf(w, "allowlist %s version %d is in force (%s)\n", o.Track, o.Version, strings.Join(o.Persons, ", "))
	default:
		fmt.Fprintf(w, "signed; allowlist %s version %d has %d of %d signatures (%s)\n", o.Track, o.Version, len(o.Persons), o.Threshold, strings.Join(o.Persons, ", "))
	}
	fmt.Fprintf(w, "%d items are added", o.Added)
	for _, rule := range o.Classes {
		fmt.Fprintf(w, "; by the rule %s", rule)
	}
	if o.Left > 0 {
		fmt.Fprintf(w, "; %d items of the shipment stay in quarantine", o.Left)
	}
	fmt.Fprintln(w)
	if o.InForce && o.Cosign > 0 {
		fmt.Fprintf(w, "before 'depot sign', %d witnesses must cosign the ledger: 'ledger witness export'\n", o.Cosign)
	}
}

func reviewClasses(env *frame.Env) *cobra.Command {
	var track string
	var rules []string
	c := &cobra.Command{
		Use:   "classes --track TRACK [--class RULE ...] NUMBER",
		Short: "show what rules would take of a shipment, and what would be left",
		Long: `Show what rules would take of a shipment, and what would be left.

A rule is FIELD OP VALUE, several with commas between them: kind=source, severity<=review (none, info, review, high,
block: the worst finding of the item), size<=1000000, known=yes (allowed on another track), corroborations>=2, bound=yes.
Without --class some are proposed, by kind and severity.`,
		Example: "  sallyport-station review classes --zone inside --track dev 1\n  sallyport-station review classes --track dev --class 'kind=source,severity<=info' --class known=yes 1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := arrival(args[0])
			if err != nil {
				return err
			}
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				list, left, err := d.Classes(cmd.Context(), n, track, rules)
				if err != nil {
					return err
				}
				names := []string{}
				for _, it := range left {
					names = append(names, it.Name)
				}
				return env.Result(about(n, map[string]any{"track": track, "classes": list, "left": names}), func(w io.Writer) {
					for _, c := range list {
						fmt.Fprintf(w, "%-40s %6d items %12s  worst finding: %s\n", c.Rule, c.Items, frame.Bytes(c.Bytes), c.Worst)
					}
					for _, name := range names {
						fmt.Fprintf(w, "left: %s\n", name)
					}
				})
			})
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track: dev, test, prod")
	c.Flags().StringArrayVar(&rules, "class", nil, "a rule")
	return c
}

func reviewResign(env *frame.Env) *cobra.Command {
	var track, keyFile string
	c := &cobra.Command{
		Use:   "resign --track TRACK --key FILE",
		Short: "sign the track's list again under the root and the orders in force",
		Long: `Sign the track's list again under the root and the orders in force, without what is recalled.

A new root can put a list out of force: its reviewers are no longer enough. Then nothing of it is served until they have
signed it again.`,
		Example: "  sallyport-station review resign --zone inside --track dev --key alice.allowlist.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return sign(cmd.Context(), env, track, keyFile, func(d *review.Desk, key trust.Signer) (*review.Outcome, error) {
				return d.Resign(cmd.Context(), track, key)
			})
		},
	}
	trackFlags(c, &track, &keyFile)
	return c
}

func reviewWithdraw(env *frame.Env) *cobra.Command {
	var track, keyFile string
	c := &cobra.Command{
		Use:     "withdraw --track TRACK --key FILE",
		Short:   "end the proposal that waits for signatures on a track; nothing is rejected",
		Example: "  sallyport-station review withdraw --zone inside --track prod --key alice.allowlist.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				key, err := env.Key(cmd.Context(), keyFile)
				if err != nil {
					return err
				}
				if err := d.Withdraw(cmd.Context(), track, key); err != nil {
					return err
				}
				return env.Result(map[string]any{"track": track, "state": "withdrawn"}, func(w io.Writer) { fmt.Fprintf(w, "the proposal for track %s is withdrawn\n", track) })
			})
		},
	}
	trackFlags(c, &track, &keyFile)
	return c
}

func reviewReject(env *frame.Env) *cobra.Command {
	var keyFile, reason string
	c := &cobra.Command{
		Use:   "reject --key FILE --reason TEXT NUMBER|own-N",
		Short: "end a quarantined shipment or submission; its number is spent",
		Example: "  sallyport-station review reject --zone inside --key alice.allowlist.key --reason 'binary blob in src/' 2\n" +
			"  sallyport-station review reject --zone inside --key alice.allowlist.key --reason 'not reviewed upstream' own-3",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := arrival(args[0])
			if err != nil {
				return err
			}
			if reason == "" {
				return frame.Usage("no reason: give --reason TEXT; it becomes part of the ledger")
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				key, err := env.Key(cmd.Context(), keyFile)
				if err != nil {
					return err
				}
				if err := d.Reject(cmd.Context(), n, key, reason); err != nil {
					return err
				}
				return env.Result(about(n, map[string]any{"state": "rejected"}), func(w io.Writer) { fmt.Fprintf(w, "%s is rejected\n", statement.Arrived(n)) })
			})
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the reviewer's allowlist key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}
