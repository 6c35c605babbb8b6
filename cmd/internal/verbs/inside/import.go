package inside

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/internal/inside/gate"
)

func importVerb(env *frame.Env) *cobra.Command {
	var slipFile, keyFile string
	c := &cobra.Command{
		Use:   "import --slip FILE --key FILE SOURCE",
		Short: "judge a volume and quarantine what it brings, or refuse it with everything that is wrong",
		Long: "Judge a volume and quarantine what it brings, or refuse it with everything that is wrong.\n\n" +
			"The slip came by another way than the volume. The key is the importer's, of context statement; whoever imports a\nshipment cannot approve it. Exit code 3: refused, nothing was kept.",
		Example: "  sallyport-station import --zone inside --slip slip-1.txt --key dave.statement.key /media/disc",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			slip, err := verbs.ReadSlip(slipFile)
			if err != nil {
				return err
			}
			z, root, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			key, err := env.Key(ctx, keyFile)
			if err != nil {
				return err
			}
			vol, err := verbs.OpenVolume(args[0])
			if err != nil {
				return err
			}
			defer vol.Close()
			reader, err := verbs.ReaderOptions(z)
			if err != nil {
				return err
			}
			p := env.Progress("importing", slip.Bytes)
			defer p.Done()
			g := &gate.Gate{Zone: z, Root: root, Reader: reader, Importer: key, Clock: env.Clock, Progress: func(n int64, item string) { p.Note(item); p.Add(n) }}
			q, err := g.Import(ctx, vol, slip)
			if err != nil {
				return err
			}
			// It is done: whoever interrupts from here on is told so, not that it was interrupted.
			if err := attention(context.WithoutCancel(ctx), env, z, root); err != nil {
				return err
			}
			return env.Result(q, func(w io.Writer) {
				fmt.Fprintf(w, "shipment %d is quarantined: %d items, %s, %d files looked at:%s\n", q.Number, q.Items, frame.Bytes(q.Bytes), q.Files, verbs.Severities(q.Findings))
				for _, n := range q.Missing {
					fmt.Fprintf(w, "missing: shipment %d has not arrived\n", n)
				}
				fmt.Fprintf(w, "it waits for reviewers: '%s review show %d'\n", env.Program, q.Number)
			})
		},
	}
	c.Flags().StringVar(&slipFile, "slip", "", "the slip, as it came by the other way")
	c.Flags().StringVar(&keyFile, "key", "", "the importer's statement key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	return c
}
