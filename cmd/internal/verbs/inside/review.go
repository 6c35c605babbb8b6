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
)

func reviewNoun(env *frame.Env) *cobra.Command {
	return noun("review", "persons decide what is allowed", reviewList(env), reviewShow(env), reviewApprove(env), reviewReject(env))
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

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		return 0, frame.Usage("%q is no shipment's number", s)
	}
	return n, nil
}

func reviewList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the shipments and what became of them", Example: "  sallyport-station review list --zone inside", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				list, err := d.List(cmd.Context())
				if err != nil {
					return err
				}
				for _, s := range list {
					err := env.Result(struct {
						Type string `json:"type"`
						review.Summary
					}{"shipment", s}, func(w io.Writer) {
						if s.State == review.Missing {
							fmt.Fprintf(w, "%5d  %-12s a later one is here\n", s.Number, s.State)
							return
						}
						fmt.Fprintf(w, "%5d  %-12s %6d items %12s  imported by %s, %s\n", s.Number, s.State, s.Items, frame.Bytes(s.Bytes), s.Importer, s.Date)
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
		Use: "show NUMBER", Short: "show everything about one shipment that a reviewer needs", Example: "  sallyport-station review show --zone inside 1", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				s, err := d.Show(cmd.Context(), n)
				if err != nil {
					return err
				}
				return env.Result(s, func(w io.Writer) {
					fmt.Fprintf(w, "shipment %d, %s; manifest %s\ncollected by %s, imported by %s, %s\n\n", s.Number, s.State, s.Manifest, strings.Join(s.Collectors, ", "), s.Importer, s.Date)
					for _, it := range s.New {
						fmt.Fprintf(w, "%-10s %12d  %s\n           sha256 %s\n", it.Kind, it.Size, it.Name, it.SHA256)
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

func reviewApprove(env *frame.Env) *cobra.Command {
	var track, keyFile string
	c := &cobra.Command{
		Use:   "approve --track TRACK --key FILE NUMBER",
		Short: "sign the track's next allowlist, with this shipment's items in it",
		Example: "  sallyport-station review approve --zone inside --track dev --key alice.allowlist.key 1\n" +
			"  sallyport-station review approve --zone inside --track dev --key agent:alice.allowlist.pub 1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := number(args[0])
			if err != nil {
				return err
			}
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			return desk(cmd.Context(), env, func(d *review.Desk) error {
				key, err := env.Key(cmd.Context(), keyFile)
				if err != nil {
					return err
				}
				o, err := d.Approve(cmd.Context(), n, track, key)
				if err != nil {
					return err
				}
				return env.Result(o, func(w io.Writer) {
					if len(o.Void) > 0 {
						fmt.Fprintf(w, "another root is in force since: what %s signed is void, and has to be signed again\n", strings.Join(o.Void, ", "))
					}
					if o.InForce && len(o.Persons) == 0 {
						fmt.Fprintf(w, "allowlist %s version %d is in force and has all of it already; nothing was signed\n", o.Track, o.Version)
						return
					}
					if o.InForce {
						fmt.Fprintf(w, "allowlist %s version %d is in force (%s)\n", o.Track, o.Version, strings.Join(o.Persons, ", "))
						return
					}
					fmt.Fprintf(w, "signed; allowlist %s version %d has %d of %d signatures (%s)\n", o.Track, o.Version, len(o.Persons), o.Threshold, strings.Join(o.Persons, ", "))
				})
			})
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track: dev, test, prod")
	c.Flags().StringVar(&keyFile, "key", "", "the reviewer's allowlist key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	return c
}

func reviewReject(env *frame.Env) *cobra.Command {
	var keyFile, reason string
	c := &cobra.Command{
		Use:     "reject --key FILE --reason TEXT NUMBER",
		Short:   "end a quarantined shipment; its number is spent",
		Example: "  sallyport-station review reject --zone inside --key alice.allowlist.key --reason 'binary blob in src/' 2",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := number(args[0])
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
				return env.Result(map[string]any{"shipment": n, "state": "rejected"}, func(w io.Writer) { fmt.Fprintf(w, "shipment %d is rejected\n", n) })
			})
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the reviewer's allowlist key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	c.Flags().StringVar(&reason, "reason", "", "why")
	return c
}
