package inside

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/signature"
	"sallyport/internal/inside/depot"
	"sallyport/internal/inside/signer"
	"sallyport/internal/trust"
)

func depotNoun(env *frame.Env) *cobra.Command {
	return noun("depot", "the enclave's substitute server", depotSign(env), depotServe(env))
}

func depotSign(env *frame.Env) *cobra.Command {
	var track, keyFile, fingerprint string
	c := &cobra.Command{
		Use:     "sign --root FINGERPRINT --track TRACK --track-key FILE",
		Short:   "sign a narinfo for every allowed item that has none yet",
		Long:    "Sign a narinfo for every allowed item that has none yet. The track's key is read for this one run; the depot itself holds none.",
		Example: "  sallyport-station depot sign --zone inside --root 5f3c... --track dev --track-key dev.narinfo.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			z, root, err := pinned(ctx, env, fingerprint)
			if err != nil {
				return err
			}
			defer z.Close()
			if keyFile == "" {
				return frame.Usage("no key: give --track-key FILE")
			}
			data, err := frame.ReadBounded(keyFile, 64<<10)
			if err != nil {
				return err
			}
			key, err := signature.ParseSecretKey(data)
			if err != nil {
				return fmt.Errorf("%s: %w", keyFile, err)
			}
			r, err := (&signer.Signer{Zone: z, Root: root, Track: track, Key: key, Host: z.Config.Depot.Host}).Sign(ctx)
			if err != nil {
				return err
			}
			return env.Result(r, func(w io.Writer) {
				for _, n := range r.Signed {
					fmt.Fprintln(w, n)
				}
				fmt.Fprintf(w, "track %s, allowlist version %d: %d signed now, %d before\n", r.Track, r.Version, len(r.Signed), r.Before)
			})
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track")
	c.Flags().StringVar(&keyFile, "track-key", "", "the track's Guix key")
	c.Flags().StringVar(&fingerprint, "root", "", "fingerprint of the enclave's first root, from paper")
	return c
}

func depotServe(env *frame.Env) *cobra.Command {
	var track, listen, fingerprint string
	c := &cobra.Command{
		Use:     "serve --root FINGERPRINT --track TRACK [--listen ADDR]",
		Short:   "serve a track to Guix clients and builders, over HTTP, until interrupted",
		Example: "  sallyport-station depot serve --zone inside --root 5f3c... --track dev --listen 10.0.0.5:8080\n  guix build --substitute-urls=http://10.0.0.5:8080 hello",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			z, _, err := pinned(ctx, env, fingerprint)
			if err != nil {
				return err
			}
			defer z.Close()
			if listen == "" {
				listen = z.Config.Depot.Listen
			}
			d := &depot.Depot{Zone: z, Track: track, Log: env.Log()}
			if err := d.Check(ctx); err != nil {
				return err
			}
			return serve(ctx, env, d.Server(), listen, depot.MaxConnections, track, "track "+track)
		},
	}
	c.Flags().StringVar(&track, "track", "", "the track")
	c.Flags().StringVar(&listen, "listen", "", "address (default: depot.listen of zone.toml)")
	c.Flags().StringVar(&fingerprint, "root", "", "fingerprint of the enclave's first root, from paper")
	return c
}
