package inside

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/channelhost"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

// What may be asked of one host: more children or waiting requests than these are a slip of the hand.
const (
	maxChildren = 1024
	maxQueue    = 1 << 20
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
			var wrong []error
			if track == "" {
				wrong = append(wrong, errors.New("no track: give --track TRACK"))
			} else if err := trust.CheckWord(track); err != nil {
				wrong = append(wrong, fmt.Errorf("--track: %w", err))
			}
			if listen == "" {
				wrong = append(wrong, errors.New("no address: give --listen ADDR"))
			}
			if fingerprint == "" {
				wrong = append(wrong, errNoFingerprint)
			}
			if children < 0 || children > maxChildren {
				wrong = append(wrong, fmt.Errorf("--children %d: want 0 to %d", children, maxChildren))
			}
			if queue < 0 || queue > maxQueue {
				wrong = append(wrong, fmt.Errorf("--queue %d: want 0 to %d", queue, maxQueue))
			}
			if err := errors.Join(wrong...); err != nil {
				return frame.Usage("%v", err)
			}
			z, root, err := pinned(ctx, env, fingerprint)
			if err != nil {
				return err
			}
			defer z.Close()
			if tracks := root.Tracks(); !slices.Contains(tracks, track) {
				return trust.Refuse("no-track", track, "the root names no key for this track").WithHint("it has " + strings.Join(tracks, ", "))
			}
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
	f.StringVar(&listen, "listen", "", "address: HOST:PORT")
	f.StringVar(&fingerprint, "root", "", "fingerprint of the enclave's first root, from paper")
	f.StringVar(&state, "state", "", "directory for the repositories (default: served, in the zone)")
	f.IntVar(&children, "children", 0, "git processes at a time (default: one a processor)")
	f.IntVar(&queue, "queue", channelhost.DefaultQueue, "requests that wait for one; more are told to come again")
	return c
}
