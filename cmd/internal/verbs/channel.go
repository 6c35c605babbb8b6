package verbs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin/account"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

func channelNoun(env *frame.Env) *cobra.Command {
	return noun("channel", "repositories of package definitions, authenticated commit by commit", channelAuthenticate(env), channelCreate(env), channelList(env), channelShow(env))
}

const maxHistorical = 1 << 20

// A channelFinding is a finding as --json prints it.
type channelFinding struct {
	Code   string `json:"code"`
	Commit string `json:"commit"`
	Author string `json:"author,omitempty"`
	Key    string `json:"key,omitempty"`
	Detail string `json:"detail"`
}

func channelAuthenticate(env *frame.Env) *cobra.Command {
	var (
		repository, keyring, end, historical, since, of string
		alternates                                      []string
		noCache, strict, fsck, list                     bool
	)
	c := &cobra.Command{
		Use:   "authenticate [flags] INTRODUCTION FINGERPRINT",
		Short: "check every commit of a channel from its introduction on",
		Long: `Check every commit of a channel, from its introduction on, as guix git authenticate does: each must be signed by a key that the list
.guix-authorizations of every parent has. INTRODUCTION is the id of the commit where that begins, FINGERPRINT the OpenPGP key that signed it; both
are handed over on paper or by another way that can be trusted. Unlike Guix, the introduction is always checked, and all bad commits are listed.

What Guix passes over is counted as findings: a signature made after its key's expiry or revocation, weak hashes, odd headers and so on. With
--since, findings about commits newer than that one refuse; with --strict, all do. With --channel, they are ruled on as by 'channel pin' in the zone outside:
those newer than its first pin of that channel refuse, but for what the zone's excuses let pass. Excuses that were used are listed, and those that have ended.

Nothing is written into the repository, and nothing of its configuration or hooks is read or run. Commits that were proven are remembered in the
user's cache, sealed with a key in the user's state directory, so that the next run takes less time; it comes to the same verdict.`,
		Example: `  sallyport channel authenticate --repository guix 9edb3f66fd807b096b48283debdcddccfea34bad "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA"
  sallyport channel authenticate --repository nonguix --keyring origin/keyring --end 3f2c... 897c1a470da759236cc11798f4e0a5f7d4d59fbc 2A393FFF68F4EF7A3D2912AF6F5120A022FBB2D5
  sallyport channel authenticate --repository guix --zone outside --channel guix 9edb3f66... BBB02DDF...
  sallyport channel authenticate --repository guix --json --findings 9edb3f66... BBB02DDF... | jq '.findings[].commit'`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := authenticate.Request{Keyring: keyring, End: end}
			var err error
			if req.Introduction, err = git.ParseID(args[0]); err != nil {
				return frame.Usage("the introduction %q is not the id of a commit: 40 lower-case hexadecimal digits", args[0])
			}
			print, err := scheme.ParseFingerprint(args[1])
			if err != nil {
				return frame.Usage("%q is not a fingerprint: 40 hexadecimal digits (quote it if it has spaces)", args[1])
			}
			req.Signer = openpgp.Fingerprint(print)
			if req.Historical, err = historicalKeys(historical); err != nil {
				return err
			}
			var policy authenticate.Policy
			if since != "" {
				if policy.Since, err = git.ParseID(since); err != nil {
					return frame.Usage("--since %q is not the id of a commit: 40 lower-case hexadecimal digits", since)
				}
			}
			if of != "" {
				if since != "" {
					return frame.Usage("--channel has a commit since which findings refuse: the zone's first pin; leave --since out")
				}
				if err := zonePolicy(cmd.Context(), env, of, &policy); err != nil {
					return err
				}
			}
			if strict {
				policy.Raise = make(map[string]bool)
				for _, f := range channel.FindingCodes() {
					policy.Raise[f[0]] = true
				}
			}
			if !noCache {
				if req.Cache, err = userCache(env); err != nil {
					env.Say("nothing is remembered: %v", err)
				}
			}
			return runAuthenticate(cmd.Context(), env, repository, alternates, req, policy, fsck, list)
		},
	}
	f := c.Flags()
	f.StringVarP(&repository, "repository", "r", ".", "the repository, bare or with a working tree")
	f.StringVarP(&keyring, "keyring", "k", authenticate.DefaultKeyring, "the branch with the keys: a local one, REMOTE/BRANCH, or one of origin")
	f.StringVarP(&end, "end", "e", "HEAD", "the commit to authenticate: its id, a tag or a branch")
	f.StringVar(&historical, "historical-authorizations", "", "a file like .guix-authorizations with the keys that may sign where parents have none; an enclave's gate knows of no such keys, and refuses what needs them")
	f.StringVar(&since, "since", "", "a commit: about newer ones findings refuse")
	f.StringVar(&of, "channel", "", "the channel of the zone by whose first pin and excuses findings are ruled on")
	f.BoolVar(&strict, "strict", false, "refuse every finding")
	f.BoolVar(&list, "findings", false, "list the findings, do not only count them")
	f.BoolVar(&fsck, "fsck", false, "check every file and tree of the end as well: what a checkout would hold")
	f.BoolVar(&noCache, "no-cache", false, "judge every commit again and remember nothing")
	f.StringArrayVar(&alternates, "alternate", nil, "a directory of objects to use beside the repository's own (what the repository names is not followed)")
	return c
}

// zonePolicy takes the first pin and the excuses of a channel from the zone outside. (Inside, the orders in force excuse, when a channel is imported.)
func zonePolicy(ctx context.Context, env *frame.Env, name string, policy *authenticate.Policy) error {
	if err := trust.CheckChannel(name); err != nil {
		return frame.Usage("--channel: %v", err)
	}
	z, err := env.Zone(ctx, store.Outside)
	if err != nil {
		return err
	}
	defer z.Close()
	pins, err := account.Pins(ctx, z, name)
	if err != nil {
		return err
	}
	if len(pins) == 0 {
		env.Say("note: this zone has no pin of channel %s yet: no finding refuses", name)
	} else {
		policy.Since = pins[0].Commit
	}
	policy.Excuses, err = account.Excuses(ctx, z, name)
	return err
}

// historicalKeys reads a file in the form of .guix-authorizations.
func historicalKeys(file string) ([]openpgp.Fingerprint, error) {
	if file == "" {
		return nil, nil
	}
	data, err := frame.ReadBounded(file, maxHistorical)
	if err != nil {
		return nil, err
	}
	list, err := scheme.ParseAuthorizations(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	keys := make([]openpgp.Fingerprint, len(list))
	for i, a := range list {
		keys[i] = openpgp.Fingerprint(a.Key)
	}
	return keys, nil
}

// userCache opens the cache of the one who runs the program, where the XDG Base Directory Specification has it.
func userCache(env *frame.Env) (*authenticate.Cache, error) {
	dir := func(variable, below string) (string, error) {
		if d := env.Getenv(variable); filepath.IsAbs(d) {
			return d, nil
		}
		home := env.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("neither %s nor HOME names a directory", variable)
		}
		return filepath.Join(home, below), nil
	}
	cache, err := dir("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return nil, err
	}
	state, err := dir("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return nil, err
	}
	return authenticate.OpenCache(filepath.Join(cache, "sallyport", "authenticate"), filepath.Join(state, "sallyport", "authenticate.key"), env.Rand)
}

func runAuthenticate(ctx context.Context, env *frame.Env, dir string, alternates []string, req authenticate.Request, policy authenticate.Policy, fsck, list bool) error {
	if err := policy.Check(env.Clock()); err != nil {
		return err
	}
	if _, err := os.Stat(dir); err != nil {
		return err
	}
	repository, err := authenticate.Open(dir, authenticate.Options{Alternates: alternates})
	if err != nil {
		return err
	}
	defer repository.Close()
	progress := env.Progress("authenticating", 0)
	progress.Unit("commits")
	var told atomic.Int64
	req.Progress = func(judged, found int) { progress.Add(int64(judged) - told.Swap(int64(judged))) }
	report, err := repository.Authenticate(ctx, req)
	progress.Done()
	if err != nil {
		return err
	}
	for _, n := range report.Notes {
		env.Say("note: %s", n)
	}
	var ruling *authenticate.Ruling
	var refused trust.Refusals
	if report.OK() {
		if ruling, err = policy.Rule(report.Verdict, env.Clock()); err != nil {
			return err
		}
		if fsck {
			if err := refused.Merge(repository.Check(report.End, nil)); err != nil {
				return err
			}
		}
	}
	refused.Add(repository.Refused(report.Verdict, ruling)...)
	if err := refused.Err(); err != nil {
		return err
	}
	return printReport(env, report, ruling, list)
}

func printReport(env *frame.Env, report *authenticate.Report, ruling *authenticate.Ruling, list bool) error {
	type signer struct {
		Key     string `json:"key"`
		Name    string `json:"name,omitempty"`
		Commits int    `json:"commits"`
	}
	type excused struct {
		Name   string `json:"name"`
		Code   string `json:"code"`
		Commit string `json:"commit"`
		By     string `json:"by"`
		Until  string `json:"until"`
		Reason string `json:"reason"`
	}
	out := struct {
		Type         string           `json:"type"`
		Commit       string           `json:"commit"`
		Introduction string           `json:"introduction"`
		Signer       string           `json:"signer"`
		Commits      int              `json:"commits"`
		Judged       int              `json:"judged"`
		Signers      []signer         `json:"signers"`
		Counts       map[string]int   `json:"finding_counts"`
		Findings     []channelFinding `json:"findings,omitempty"`
		Excused      []excused        `json:"excused,omitempty"`
		Over         []string         `json:"excuses_over,omitempty"`
	}{Type: "authenticated", Commit: report.End.String(), Introduction: report.Introduction.String(), Signer: report.Signer.String(), Commits: report.Commits, Judged: report.Judged, Signers: []signer{}, Counts: map[string]int{}}
	for _, e := range ruling.Excused {
		out.Excused = append(out.Excused, excused{e.Excuse.Name, e.Finding.Code, e.Finding.Commit.String(), e.Excuse.By, trust.FormatDate(e.Excuse.Expires), e.Excuse.Reason})
	}
	for _, e := range ruling.Expired {
		out.Over = append(out.Over, e.Name)
	}
	for _, s := range report.Signers {
		name := ""
		if k := report.Keyring.ByFingerprint(s.Key); k != nil {
			name = channel.Escape(k.User())
		}
		out.Signers = append(out.Signers, signer{s.Key.String(), name, s.Commits})
	}
	for _, f := range report.Findings {
		out.Counts[f.Code]++
		if list {
			out.Findings = append(out.Findings, channelFinding{f.Code, f.Commit.String(), f.Author, f.Key, f.Detail})
		}
	}
	return env.Result(out, func(w io.Writer) {
		fmt.Fprintf(w, "authenticated commit %s: %s since the introduction, signed by %s", report.End, trust.Count(report.Commits, "commit"), trust.Count(len(report.Signers), "key"))
		if known := report.Commits - report.Judged; known > 0 {
			fmt.Fprintf(w, "; %d proven before", known)
		}
		fmt.Fprintln(w)
		for _, code := range channel.FindingCodes() {
			if n := out.Counts[code[0]]; n > 0 {
				fmt.Fprintf(w, "finding %s: %d: %s\n", code[0], n, code[1])
			}
		}
		for _, e := range out.Excused {
			fmt.Fprintf(w, "EXCUSED %s in commit %s: %s, by %s until %s: %s\n", e.Code, e.Commit, e.Name, e.By, e.Until, e.Reason)
		}
		for _, name := range out.Over {
			fmt.Fprintf(w, "excuse %s has ended\n", name)
		}
		if list {
			for _, f := range report.Findings {
				fmt.Fprintln(w, f)
			}
		}
	})
}
