package verbs

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
)

func initZone(env *frame.Env) *cobra.Command {
	var kind, enclave string
	c := &cobra.Command{
		Use:   "init --kind outside|staging|inside --enclave NAME DIR",
		Short: "make a zone: one directory of state with a ledger of its own",
		Example: "  sallyport init --kind outside --enclave demo /srv/sallyport/outside\n" +
			"  sallyport-station init --kind inside --enclave demo /srv/sallyport/inside",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind == "" || enclave == "" {
				return frame.Usage("--kind and --enclave are needed")
			}
			// With every default: a field that is left alone would be written down as zero, and no space be kept free.
			cfg, err := store.NewConfig(kind, enclave)
			if err != nil {
				return frame.Usage("%v", err)
			}
			if err := store.Init(args[0], cfg, env.Clock, env.Rand); err != nil {
				return err
			}
			env.ZoneDir = args[0]
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			return env.Result(map[string]string{"zone": args[0], "origin": z.Origin(), "checkpoint": z.LedgerVKey().String(), "station": z.StationVKey().String()}, func(w io.Writer) {
				fmt.Fprintf(w, "zone        %s\norigin      %s\ncheckpoint  %s\nstation     %s\n", args[0], z.Origin(), z.LedgerVKey(), z.StationVKey())
			})
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "outside, staging or inside")
	c.Flags().StringVar(&enclave, "enclave", "", "name of the enclave: [a-z0-9][a-z0-9-]{0,31}")
	return c
}

func config(env *frame.Env) *cobra.Command {
	return noun("config", "zone.toml", &cobra.Command{
		Use:     "explain",
		Short:   "print every key that zone.toml may have",
		Example: "  sallyport config explain",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !env.JSON {
				_, err := io.WriteString(env.Stdout, store.ExplainConfig())
				return err
			}
			for _, k := range store.ConfigKeys() {
				if err := env.Result(map[string]any{"type": "key", "name": k.Name, "value": k.Type, "default": k.Default, "kinds": k.Kinds, "doc": k.Doc}, nil); err != nil {
					return err
				}
			}
			return nil
		},
	})
}
