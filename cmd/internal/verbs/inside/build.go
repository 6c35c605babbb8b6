package inside

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/build/builder"
)

func builderNoun(env *frame.Env) *cobra.Command {
	return noun("builder", "an offline builder: its key, its depot, its directory", builderInit(env))
}

func builderInit(env *frame.Env) *cobra.Command {
	var c builder.Config
	cmd := &cobra.Command{
		Use:     "init --enclave NAME --depot URL --track TRACK --root FINGERPRINT --key FILE DIR",
		Short:   "make a builder's directory",
		Example: "  sallyport-station builder init --enclave demo --depot http://10.0.0.5:8080 --track dev --root 5f3c... --key erin.statement.key /var/lib/sallyport/builder",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if c.Key != "" {
				key, err := frame.KeyPath(c.Key)
				if err != nil {
					return err
				}
				c.Key = key
			}
			if err := builder.Init(args[0], c); err != nil {
				return frame.Usage("%v", err)
			}
			return env.Result(map[string]string{"builder": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "builder %s\n", args[0]) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Enclave, "enclave", "", "name of the enclave")
	f.StringVar(&c.Depot, "depot", "", "URL of the depot")
	f.StringVar(&c.Track, "track", "", "the track it serves")
	f.StringVar(&c.Root, "root", "", "digest of root version 1, from paper")
	f.StringVar(&c.Key, "key", "", "the builder's statement key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	f.IntVar(&c.Cores, "cores", 0, "NIX_BUILD_CORES for builds (0: all)")
	f.IntVar(&c.UID, "uid", 0, "as root: the unprivileged user that builds run as (0: a default)")
	f.IntVar(&c.GID, "gid", 0, "as root: and its group (0: a default)")
	return cmd
}

func buildVerb(env *frame.Env) *cobra.Command {
	var dir, out string
	var log bool
	c := &cobra.Command{
		Use:   "build --builder DIR --out DIR DERIVATION",
		Short: "build an allowed derivation in a sandbox without network, and sign what came out",
		Long: "Build an allowed derivation in a sandbox without network, and sign what came out.\n\n" +
			"DERIVATION is the base name or store path of one that the track's allowlist names; the builder checks that itself.\nThe result is taken to the station and handed in with 'quorum submit'.",
		Example: "  sallyport-station build --builder /var/lib/sallyport/builder --out result-1 0lj5...-sallyport-verify-0.1.0.drv",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if dir == "" || out == "" {
				return frame.Usage("--builder and --out are needed")
			}
			b, err := builder.Open(dir)
			if err != nil {
				return err
			}
			if b.Key, err = env.Key(ctx, b.KeyFile()); err != nil {
				return err
			}
			p := env.Progress("fetching inputs", 0)
			defer p.Done()
			b.Clock, b.Say = env.Clock, env.Say
			b.Progress = func(n int64, item string) { p.Note(item); p.Add(n) }
			if log {
				b.Log = env.Stderr
			}
			r, err := b.Build(ctx, args[0], out)
			if err != nil {
				return err
			}
			for _, s := range r.Strays {
				env.Say("note: the build wrote outside of its outputs: %s (removed)", s)
			}
			return env.Result(r, func(w io.Writer) {
				for _, o := range r.Outputs {
					fmt.Fprintf(w, "%s\n  nar sha256 %s, %s\n", o.Path, o.NarHash, frame.Bytes(o.NarSize))
				}
				fmt.Fprintf(w, "signed by %s, in %s\n", r.Key, r.Dir)
			})
		},
	}
	c.Flags().StringVar(&dir, "builder", "", "the builder's directory")
	c.Flags().StringVar(&out, "out", "", "where to leave the result")
	c.Flags().BoolVar(&log, "log", false, "show the build's own output on standard error")
	return c
}
