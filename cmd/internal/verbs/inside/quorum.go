package inside

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/internal/inside/quorum"
	"sallyport/internal/trust"
)

func quorumNoun(env *frame.Env) *cobra.Command {
	return noun("quorum", "builders that must agree", quorumSubmit(env), quorumStatus(env))
}

func quorumDesk(ctx context.Context, env *frame.Env, fn func(d *quorum.Desk) error) error {
	z, root, err := enclave(ctx, env)
	if err != nil {
		return err
	}
	defer z.Close()
	reader, err := verbs.ReaderOptions(z)
	if err != nil {
		return err
	}
	p := env.Progress("taking in the result", 0)
	defer p.Done()
	return fn(&quorum.Desk{Zone: z, Root: root, Reader: reader, Progress: func(n int64, item string) { p.Note(item); p.Add(n) }})
}

func printStatus(env *frame.Env, s *quorum.Status) error {
	return env.Result(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d of %d builders\n", s.Derivation, len(s.Votes), s.Want)
		for _, v := range s.Votes {
			for path, sum := range v.Outputs {
				fmt.Fprintf(w, "  %-32s %s %s\n", v.KeyID, sum, path)
			}
		}
		if s.Agreed {
			fmt.Fprintln(w, "agreed: the outputs are released")
		} else {
			fmt.Fprintf(w, "not agreed: %s\n", s.Why)
		}
	})
}

func quorumSubmit(env *frame.Env) *cobra.Command {
	var track string
	c := &cobra.Command{
		Use:     "submit --track TRACK RESULT",
		Short:   "hand in what a builder made",
		Example: "  sallyport-station quorum submit --zone inside --track dev result-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			dir, err := os.OpenRoot(args[0])
			if err != nil {
				return err
			}
			defer dir.Close()
			return quorumDesk(cmd.Context(), env, func(d *quorum.Desk) error {
				s, err := d.Submit(cmd.Context(), track, dir)
				if err != nil {
					return err
				}
				if err := printStatus(env, s); err != nil {
					return err
				}
				return dissent(s)
			})
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track")
	return c
}

// dissent is a refusal; builders that have not spoken yet are not.
func dissent(s *quorum.Status) error {
	rs, _ := trust.AsRefusals(s.Err())
	if rs.Has("quorum-waiting") {
		return nil
	}
	return s.Err()
}

func quorumStatus(env *frame.Env) *cobra.Command {
	var track string
	c := &cobra.Command{
		Use:     "status --track TRACK DERIVATION",
		Short:   "say how far the builders have come; exit code 4 while some have not spoken",
		Example: "  sallyport-station quorum status --zone inside --track dev 0lj5...-hello-2.12.2.drv",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			return quorumDesk(cmd.Context(), env, func(d *quorum.Desk) error {
				s, err := d.Status(cmd.Context(), track, filepath.Base(args[0]))
				if err != nil {
					return err
				}
				if err := printStatus(env, s); err != nil {
					return err
				}
				if rs, _ := trust.AsRefusals(s.Err()); rs.Has("quorum-waiting") {
					return &frame.WaitingError{Text: strings.TrimSpace(s.Why), Hint: "more builders have to build it and submit their results"}
				}
				return s.Err()
			})
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track")
	return c
}
