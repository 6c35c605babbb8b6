package inside

import (
	"errors"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/channelhost"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

func channelServe(env *frame.Env) *cobra.Command {
	var track, listen, fingerprint, state string
	var children, queue int
	c := &cobra.Command{
		Use:   "serve --root FINGERPRINT --track TRACK --listen ADDR",
		Short: "serve a track's channels to Guix and git clients, over HTTP, until interrupted",
		Long: `Serve the channels of a track to unmodified Guix and git clients: read-only repositories at /git/NAME, and under the host and the path of each channel's own
URL; /TRACK/channels.scm with the newest pins, and /TRACK/releases/N/channels.scm with those of version N of the allowlist.

A repository holds what the items that the allowlist in force names lead to, and nothing else. It is made of them when the list has changed; meanwhile what was
served before is served on. What is recalled is gone with the next request. --children is how many git processes run at a time; others wait.`,
		Example: "  sallyport-station channel serve --zone inside --root 5f3c... --track dev --listen 10.0.0.5:8090\n" +
			"  guix time-machine -C <(curl -s http://10.0.0.5:8090/dev/releases/12/channels.scm) -- describe\n  git clone http://10.0.0.5:8090/git/guix",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if err := trust.CheckWord(track); err != nil {
				return frame.Usage("--track: %v", err)
			}
			if listen == "" {
				return frame.Usage("no address: give --listen ADDR")
			}
			if children < 0 || queue < 0 {
				return frame.Usage("--children and --queue are at least 0")
			}
			z, _, err := pinned(ctx, env, fingerprint)
			if err != nil {
				return err
			}
			defer z.Close()
			git, err := gitrun.Find(ctx, env.Getenv("PATH"))
			if err != nil {
				return err
			}
			host, err := channelhost.Open(channelhost.Options{Zone: z, Track: track, Git: git, Log: env.Log(), Dir: state, Children: children, Queue: queue})
			if err != nil {
				return err
			}
			if err = host.Check(ctx); err == nil {
				err = serve(ctx, env, host.Server(), listen, channelhost.MaxConnections, track, "the channels of track "+track)
			}
			return errors.Join(err, host.Close())
		},
	}
	f := c.Flags()
	f.StringVar(&track, "track", "", "the track")
	f.StringVar(&listen, "listen", "", "address")
	f.StringVar(&fingerprint, "root", "", "fingerprint of the enclave's first root, from paper")
	f.StringVar(&state, "state", "", "directory for the repositories (default: served, in the zone)")
	f.IntVar(&children, "children", 0, "git processes at a time (default: one a processor)")
	f.IntVar(&queue, "queue", channelhost.DefaultQueue, "requests that wait for one; more are told to come again")
	return c
}
