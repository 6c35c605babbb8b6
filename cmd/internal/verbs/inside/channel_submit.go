package inside

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/internal/inside/gate"
	"sallyport/internal/trust"
)

func channelSubmit(env *frame.Env) *cobra.Command {
	var s gate.Submission
	var keyFile string
	c := &cobra.Command{
		Use:   "submit --repository DIR --key FILE [--commit REV] NAME",
		Short: "judge a commit of the enclave's own channel and quarantine it; nothing leaves the enclave",
		Long: `Judge a commit of the enclave's own channel and quarantine it; nothing leaves the enclave.

NAME is a channel that officers took ('order channel'): URL, branch and introduction are theirs. DIR is a repository that has the commit,
a clone on this machine or on a stick; nothing is written into it, and nothing of its configuration, hooks, grafts or alternates is read
or run. What is judged is the item that is made of it, exactly as one that a shipment brings: every commit from the introduction on, every
file of the checkout, forward only unless officers ordered a downgrade.

It gets a name of its own, own-1, own-2 and so on, and takes no number from the shipments. The key is an importer's, of context statement;
whoever submits cannot approve. The item has what is new since the pin at which a track stands; --complete makes it whole.
A commit that is here already is not taken twice. Exit code 3: refused, nothing was kept.`,
		Example: "  sallyport-station channel submit --zone inside --repository packages --key dave.statement.key enclave-packages\n" +
			"  sallyport-station channel submit --zone inside --repository /media/stick/packages --commit v1.4 --key agent:dave.statement.pub enclave-packages\n" +
			"  sallyport-station review show --zone inside own-1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if s.Channel = args[0]; trust.CheckChannel(s.Channel) != nil {
				return frame.Usage("%q is no channel's name: %v", s.Channel, trust.CheckChannel(s.Channel))
			}
			if s.Repository == "" {
				return frame.Usage("no repository: give --repository DIR, a clone that has the commit")
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
			reader, err := verbs.ReaderOptions(z)
			if err != nil {
				return err
			}
			p := env.Progress("submitting", 0)
			defer p.Done()
			g := &gate.Gate{Zone: z, Root: root, Reader: reader, Importer: key, Clock: env.Clock, Progress: func(n int64, item string) { p.Note(item); p.Add(n) }}
			out, err := g.Submit(ctx, s)
			if err != nil {
				return err
			}
			// It is done: whoever interrupts from here on is told so, not that it was interrupted.
			if err := attention(context.WithoutCancel(ctx), env, z, root); err != nil {
				return err
			}
			if len(out.Ignored) > 0 {
				env.Say("note: the repository has %s: ignored", strings.Join(out.Ignored, " and "))
			}
			return env.Result(out, func(w io.Writer) { printSubmitted(w, env, out) })
		},
	}
	f := c.Flags()
	f.StringVarP(&s.Repository, "repository", "r", "", "the repository, bare or with a working tree")
	f.StringVar(&keyFile, "key", "", "the importer's statement key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	f.StringVar(&s.Commit, "commit", "", "the commit: its id, a tag or a branch; without it, the end of the branch that officers ordered")
	f.StringVarP(&s.Keyring, "keyring", "k", "", "the branch with the keys, if it is not keyring")
	f.BoolVar(&s.Complete, "complete", false, "the whole history, not only what is new since the pin at which a track stands")
	return c
}

func printSubmitted(w io.Writer, env *frame.Env, s *gate.Submitted) {
	name := strings.TrimPrefix(s.Name(), "shipment ")
	if s.Before {
		fmt.Fprintf(w, "commit %s of channel %s is here already, with %s, which is %s; nothing was done\n", s.Commit, s.Channel, s.Name(), s.State)
	} else {
		since := "with its whole history"
		if s.Basis != "-" {
			since = "with what is new since " + s.Basis
		}
		fmt.Fprintf(w, "%s is quarantined: channel %s at commit %s, %s\n%s, %d files looked at:%s\n", s.Name(), s.Channel, s.Commit, since, frame.Bytes(s.Bytes), s.Files, verbs.Severities(s.Findings))
	}
	if s.State == "quarantined" {
		fmt.Fprintf(w, "it waits for reviewers: '%s review show %s'\n", env.Program, name)
	}
}
