package outside

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/outside/channels"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// Bounds of files that are read.
const (
	maxScheme = 1 << 20
	maxOrders = trust.MaxOrdersSize + 1<<20 // and signatures
)

func channelNoun(env *frame.Env) *cobra.Command {
	c := &cobra.Command{Use: "channel", Short: "", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(channelPin(env), channelExcuse(env))
	return c
}

// pinner opens the zone for channels.
func pinner(cmd *cobra.Command, env *frame.Env) (*channels.Pinner, error) {
	z, err := env.Zone(cmd.Context(), store.Outside)
	if err != nil {
		return nil, err
	}
	root, err := z.Root()
	if err != nil && !errors.Is(err, store.ErrNoRoot) {
		return nil, errors.Join(err, z.Close())
	}
	return &channels.Pinner{Zone: z, Root: root, Clock: env.Clock, Rand: env.Rand}, nil
}

func channelPin(env *frame.Env) *cobra.Command {
	var req channels.Request
	var scm, introduction, fingerprint, orders string
	c := &cobra.Command{
		Use:   "pin --repository DIR [--channels FILE] NAME [COMMIT]",
		Short: "authenticate a channel and pin the commit that the enclave is to have",
		Long: `Authenticate a channel's repository from its introduction on, and pin a commit of it: the one that a request with this channel
sends to the enclave. COMMIT is an id, a tag or a branch; unless it is said it is what the channels.scm pins, or the tip of the channel's branch.

The first pin of a name needs the channel's URL, branch and introduction, from a channels.scm or from flags. They come by a way that is trusted
by itself, and never change: the URL is the one that every host of the enclave has. From then on the channel moves forward only, and what Guix passes over
(a signature made after its key expired, odd headers and so on) refuses in newer commits, until 'channel excuse' lets it pass for a time. A commit
that does not descend from the last needs --orders, signed by the enclave's officers, with a downgrade to it.

Nothing is written into the repository, and nothing of its configuration or hooks is read or run.`,
		Example: "  sallyport channel pin --zone outside --repository /srv/guix.git --channels channels.scm guix\n" +
			"  sallyport channel pin --zone outside --repository nonguix --url https://gitlab.com/nonguix/nonguix --introduction 897c1a470da759236cc11798f4e0a5f7d4d59fbc \\\n" +
			"      --fingerprint '2A39 3FFF 68F4 EF7A 3D29  12AF 6F51 20A0 22FB B2D5' nonguix v1.0\n" +
			"  sallyport channel pin --zone outside --repository /srv/guix.git guix 4c4222f32a2906b7bcab74fab70ff2c2f152e8eb",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Channel = args[0]
			if err := trust.CheckChannel(req.Channel); err != nil {
				return frame.Usage("%v", err)
			}
			if req.Repository == "" {
				return frame.Usage("no repository: give --repository DIR")
			}
			if len(args) == 2 {
				req.Commit = args[1]
			}
			if err := identity(&req, scm, introduction, fingerprint); err != nil {
				return err
			}
			var err error
			if orders != "" {
				if req.Orders, err = frame.ReadBounded(orders, maxOrders); err != nil {
					return err
				}
			}
			p, err := pinner(cmd, env)
			if err != nil {
				return err
			}
			defer p.Zone.Close()
			progress := env.Progress("authenticating", 0)
			progress.Unit("commits")
			p.Progress = progress.Add
			out, err := p.Pin(cmd.Context(), req)
			progress.Done()
			if err != nil {
				return err
			}
			return printPinned(env, out)
		},
	}
	f := c.Flags()
	f.StringVarP(&req.Repository, "repository", "r", "", "the repository, bare or with a working tree")
	f.StringVar(&scm, "channels", "", "a channels.scm that has the channel")
	f.StringVar(&req.URL, "url", "", "the channel's URL, as every host has it")
	f.StringVar(&req.Branch, "branch", "", "the channel's branch; master unless it is said")
	f.StringVar(&introduction, "introduction", "", "the commit that introduces the channel")
	f.StringVar(&fingerprint, "fingerprint", "", "the OpenPGP key that signed the introduction")
	f.StringVarP(&req.Keyring, "keyring", "k", authenticate.DefaultKeyring, "the branch with the keys: a local one, REMOTE/BRANCH, or one of origin")
	f.StringArrayVar(&req.Alternates, "alternate", nil, "a directory of objects to use beside the repository's own (what the repository names is not followed)")
	f.StringVar(&orders, "orders", "", "orders in force, with a downgrade to the commit")
	return c
}

// identity fills in what a channels.scm and the flags say of the channel. Where both say something, they say the same.
func identity(req *channels.Request, scm, introduction, fingerprint string) error {
	if introduction != "" {
		id, err := git.ParseID(introduction)
		if err != nil {
			return frame.Usage("--introduction %q is not the id of a commit: 40 lower-case hexadecimal digits", introduction)
		}
		req.Introduction = id
	}
	if fingerprint != "" {
		print, err := scheme.ParseFingerprint(fingerprint)
		if err != nil {
			return frame.Usage("--fingerprint %q is not one: 40 hexadecimal digits (quote it if it has spaces)", fingerprint)
		}
		req.Signer = openpgp.Fingerprint(print)
	}
	if scm == "" {
		return nil
	}
	text, err := frame.ReadBounded(scm, maxScheme)
	if err != nil {
		return err
	}
	list, err := scheme.Channels(text)
	if err != nil {
		return fmt.Errorf("%s: %w", scm, err)
	}
	var names []string
	for _, c := range list {
		if names = append(names, c.Name); c.Name != req.Channel {
			continue
		}
		var said channels.Request
		said.URL, said.Branch = c.URL, c.Branch
		if c.Introduction != nil {
			if said.Introduction, err = git.ParseID(c.Introduction.Commit); err != nil {
				return fmt.Errorf("%s: the introduction of %s: %w", scm, c.Name, err)
			}
			said.Signer = openpgp.Fingerprint(c.Introduction.Signer)
		}
		if req.URL != "" && req.URL != said.URL || req.Branch != "" && req.Branch != said.Branch || !req.Introduction.IsZero() && req.Introduction != said.Introduction ||
			req.Signer != (openpgp.Fingerprint{}) && req.Signer != said.Signer {
			return frame.Usage("the flags and %s do not say the same of channel %s", scm, c.Name)
		}
		req.URL, req.Branch, req.Introduction, req.Signer = said.URL, said.Branch, said.Introduction, said.Signer
		if req.Commit == "" && c.Pinned() {
			req.Commit = c.Commit
		}
		return nil
	}
	return frame.Usage("%s has no channel %s; it has %s", scm, req.Channel, strings.Join(names, ", "))
}

func printPinned(env *frame.Env, o *channels.Outcome) error {
	type excused struct {
		Name   string `json:"name"`
		Code   string `json:"code"`
		Count  int    `json:"count"`  // of findings
		Commit string `json:"commit"` // of the first
		By     string `json:"by"`
		Until  string `json:"until"`
		Reason string `json:"reason"`
	}
	out := struct {
		Type    string         `json:"type"` // pinned
		Channel string         `json:"channel"`
		Number  int64          `json:"number"`
		Again   bool           `json:"again,omitempty"`
		Back    bool           `json:"back,omitempty"`
		Commit  string         `json:"commit"`
		From    string         `json:"from,omitempty"`
		Keyring string         `json:"keyring"`
		NarHash string         `json:"nar_sha256"`
		NarSize int64          `json:"nar_size"`
		Commits int            `json:"commits"` // since the introduction
		Judged  int            `json:"judged"`
		Noted   map[string]int `json:"findings_noted"`
		Excused []excused      `json:"excused,omitempty"`
		Over    []string       `json:"excuses_over,omitempty"`
		Digest  string         `json:"pin"` // sha256 of its text
	}{Type: "pinned", Channel: o.Channel, Number: o.Number, Again: o.Again, Back: o.Back, Commit: o.Commit.String(), Keyring: o.Keyring.String(), NarHash: o.NarHash.String(), NarSize: o.NarSize,
		Commits: o.Report.Commits, Judged: o.Report.Judged, Noted: map[string]int{}, Digest: trust.Sum(o.Text()).String()}
	if !o.From.IsZero() {
		out.From = o.From.String()
	}
	for _, f := range o.Ruling.Noted {
		out.Noted[f.Code]++
	}
	for _, e := range o.Ruling.Excused {
		i := slices.IndexFunc(out.Excused, func(x excused) bool { return x.Name == e.Excuse.Name })
		if i < 0 {
			i = len(out.Excused)
			out.Excused = append(out.Excused, excused{e.Excuse.Name, e.Finding.Code, 0, e.Finding.Commit.String(), e.Excuse.By, trust.FormatDate(e.Excuse.Expires), e.Excuse.Reason})
		}
		out.Excused[i].Count++
	}
	for _, e := range o.Ruling.Expired {
		out.Over = append(out.Over, e.Name)
	}
	for _, n := range o.Report.Notes {
		env.Say("note: %s", n)
	}
	return env.Result(out, func(w io.Writer) {
		if o.Again {
			fmt.Fprintf(w, "channel %s was pinned already to commit %s: pin %d\n", out.Channel, out.Commit, out.Number)
		} else {
			fmt.Fprintf(w, "pinned channel %s to commit %s: pin %d\n", out.Channel, out.Commit, out.Number)
		}
		if o.Back {
			fmt.Fprintf(w, "BACK from commit %s, by orders\n", out.From)
		} else if out.From != "" && !o.Again {
			fmt.Fprintf(w, "forward from commit %s\n", out.From)
		}
		fmt.Fprintf(w, "%s authentic since the introduction %s; checkout %s, %s\n", trust.Count(out.Commits, "commit"), o.Introduction, out.NarHash, frame.Bytes(out.NarSize))
		for _, code := range channel.FindingCodes() {
			if n := out.Noted[code[0]]; n > 0 {
				fmt.Fprintf(w, "finding %s: %d: %s\n", code[0], n, code[1])
			}
		}
		for _, e := range out.Excused {
			fmt.Fprintf(w, "EXCUSED %s: %d, first in commit %s: %s, by %s until %s: %s\n", e.Code, e.Count, e.Commit, e.Name, e.By, e.Until, e.Reason)
		}
	})
}

func channelExcuse(env *frame.Env) *cobra.Command {
	var by, reason, commit, key string
	var days int
	c := &cobra.Command{
		Use:   "excuse --by PERSON --reason TEXT [--days N] [--commit COMMIT] [--key FINGERPRINT] NAME CODE CHANNEL",
		Short: "let a finding about a channel's commits pass, outside, for some days",
		Long: `Let a finding about a channel's commits pass for some days, for the pins of this zone. An excuse has a NAME by which people speak of it,
the finding's CODE as the refusal printed it, and one who answers for it. It is an entry of the ledger, ends by itself after at most 366 days, and stands in
every report in which it was used. One of the same name takes the place of a former one.

The enclave does not know it. There the orders of its officers excuse: 'order excuse'.`,
		Example: "  sallyport channel excuse --zone outside --by carol --reason 'key renewed three days late, asked by telephone' --days 30 \\\n" +
			"      --key '3CE4 6455 8A84 FDC6 9DB4  0CFB 090B 1199 3D9A EBB5' late-renewal signed-after-expiry guix",
		Args: cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			const most = int(authenticate.MaxExcuse / (24 * time.Hour))
			if days < 1 || days > most {
				return frame.Usage("--days %d: want 1 to %d", days, most)
			}
			e := channels.Excuse{Channel: args[2], Excuse: authenticate.Excuse{Name: args[0], Code: args[1], Reason: reason, By: by, Expires: env.Clock().UTC().Truncate(time.Second).Add(time.Duration(days) * 24 * time.Hour)}}
			var err error
			if commit != "" {
				if e.Commit, err = git.ParseID(commit); err != nil {
					return frame.Usage("--commit %q is not the id of a commit: 40 lower-case hexadecimal digits", commit)
				}
			}
			if key != "" {
				print, err := scheme.ParseFingerprint(key)
				if err != nil {
					return frame.Usage("--key %q is not a fingerprint: 40 hexadecimal digits (quote it if it has spaces)", key)
				}
				e.Key = openpgp.Fingerprint(print)
			}
			p, err := pinner(cmd, env)
			if err != nil {
				return err
			}
			defer p.Zone.Close()
			if err := p.Excuse(cmd.Context(), e); err != nil {
				return err
			}
			until := trust.FormatDate(e.Expires)
			return env.Result(map[string]any{"type": "excused", "name": e.Name, "code": e.Code, "channel": e.Channel, "by": e.By, "until": until}, func(w io.Writer) {
				fmt.Fprintf(w, "%s in channel %s passes until %s: %s, by %s\n", e.Code, e.Channel, until, e.Name, e.By)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&by, "by", "", "who answers for it")
	f.StringVar(&reason, "reason", "", "why, in one line")
	f.IntVar(&days, "days", 30, "how long, from 1 to 366")
	f.StringVar(&commit, "commit", "", "only about this commit")
	f.StringVar(&key, "key", "", "only about commits of this key")
	return c
}
