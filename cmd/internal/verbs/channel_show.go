package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/crossing/pin/account"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/judge/admit"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// A Stand is a pin as the zone has it: outside, one that was made; inside, one that a track's list has.
type Stand struct {
	Type     string `json:"type"` // pin
	Channel  string `json:"channel"`
	Number   int64  `json:"number,omitempty"` // outside: among the channel's pins
	Track    string `json:"track,omitempty"`
	Version  int64  `json:"version,omitempty"` // inside: of the track's list that brought it
	Commit   string `json:"commit"`
	Date     string `json:"date"`
	Recalled bool   `json:"recalled,omitempty"`
	Shipment int64  `json:"shipment,omitempty"` // outside: that brought it over, the last

	pin  *pin.Pin   // outside
	item trust.Item // inside
	id   git.ID
}

// stands returns the pins of a channel, or of all for "", the oldest first of each channel and track.
func stands(ctx context.Context, env *frame.Env, z *store.Zone, name string) ([]Stand, error) {
	if z.Config.Kind == store.Outside {
		return standsOutside(ctx, z, name)
	}
	root, err := z.Root()
	if err != nil {
		return nil, frame.WithHint(err, "'%s trust init' makes the enclave's first root", env.Program)
	}
	var all []Stand
	repositories := &history.Repositories{Zone: z, Git: history.FindGit}
	for _, track := range root.Tracks() {
		v, err := admit.Load(ctx, z, root, track)
		if rs, _ := trust.AsRefusals(err); rs.Has("no-allowlist") {
			continue // nothing was approved for it yet
		}
		if err != nil {
			return nil, err
		}
		h, err := history.Of(ctx, z, v.List, v.Orders, repositories)
		if err != nil {
			return nil, err
		}
		for _, c := range h.Channels() {
			if name != "" && c != name {
				continue
			}
			for _, e := range h.Entries(c) {
				all = append(all, Stand{Type: "pin", Channel: c, Track: track, Version: e.Version, Commit: e.Commit.String(), Date: trust.FormatDate(e.Date), Recalled: e.Recalled, item: e.Item, id: e.Commit})
			}
		}
	}
	return all, nil
}

func standsOutside(ctx context.Context, z *store.Zone, name string) ([]Stand, error) {
	pins, err := account.Pins(ctx, z, name)
	if err != nil {
		return nil, err
	}
	var all []Stand
	made := make(map[string]map[git.ID]int64)
	for _, e := range pins {
		if made[e.Channel] == nil {
			sent, err := account.Shipped(ctx, z, e.Channel)
			if err != nil {
				return nil, err
			}
			made[e.Channel] = sent
		}
		all = append(all, Stand{Type: "pin", Channel: e.Channel, Number: e.Number, Commit: e.Commit.String(), Date: trust.FormatDate(e.Date), Shipment: made[e.Channel][e.Commit], pin: e.Pin, id: e.Commit})
	}
	return all, nil
}

// newest keeps of each channel and track the last that is not recalled.
func newest(all []Stand) []Stand {
	var last []Stand
	for _, s := range all {
		if s.Recalled {
			continue
		}
		if n := len(last); n > 0 && last[n-1].Channel == s.Channel && last[n-1].Track == s.Track {
			last[n-1] = s
		} else {
			last = append(last, s)
		}
	}
	return last
}

func channelList(env *frame.Env) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "list [--all]",
		Short: "list where the channels stand",
		Long: `List where the channels stand: outside, the newest pin of each and the last shipment that had it; inside, the newest pin that each
track's list in force has. --all lists those before, too.`,
		Example: "  sallyport channel list --zone outside\n  sallyport-station channel list --zone inside --all --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context(), store.Outside, store.Inside)
			if err != nil {
				return err
			}
			defer z.Close()
			list, err := stands(cmd.Context(), env, z, "")
			if err != nil {
				return err
			}
			if !all {
				list = newest(list)
			}
			for _, s := range list {
				if err := env.Result(s, s.print); err != nil {
					return err
				}
			}
			if len(list) == 0 {
				env.Say("no channel is pinned")
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "the former pins, too")
	return c
}

func (s Stand) print(w io.Writer) {
	where := fmt.Sprintf("pin %d", s.Number)
	if s.Track != "" {
		where = fmt.Sprintf("%s version %d", s.Track, s.Version)
	}
	tail := ""
	switch {
	case s.Recalled:
		tail = "  RECALLED"
	case s.Shipment > 0:
		tail = fmt.Sprintf("  shipment %d", s.Shipment)
	case s.Track == "":
		tail = "  not sent"
	}
	fmt.Fprintf(w, "%-16s %-16s %s  %s%s\n", s.Channel, where, s.Commit, s.Date, tail)
}

// An excuseRow is an excuse of the outside as it is printed.
type excuseRow struct {
	Name   string `json:"name"`
	Code   string `json:"code"`
	Commit string `json:"commit,omitempty"`
	Key    string `json:"key,omitempty"`
	By     string `json:"by"`
	Until  string `json:"until"`
	Over   bool   `json:"over,omitempty"`
	Reason string `json:"reason"`
}

func (e excuseRow) print(w io.Writer) {
	over := ""
	if e.Over {
		over = " (OVER)"
	}
	about := ""
	if e.Commit != "" {
		about += " of commit " + e.Commit
	}
	if e.Key != "" {
		about += " of key " + e.Key
	}
	fmt.Fprintf(w, "excused %s: %s%s, by %s until %s%s: %s\n", e.Name, e.Code, about, e.By, e.Until, over, e.Reason)
}

// ExcuseRows makes excuses ready to be printed.
func ExcuseRows(list []authenticate.Excuse, now time.Time) []excuseRow {
	var rows []excuseRow
	for _, e := range list {
		r := excuseRow{Name: e.Name, Code: e.Code, By: e.By, Until: trust.FormatDate(e.Expires), Over: !now.Before(e.Expires), Reason: e.Reason}
		if !e.Commit.IsZero() {
			r.Commit = e.Commit.String()
		}
		if e.Key != [20]byte{} {
			r.Key = e.Key.String()
		}
		rows = append(rows, r)
	}
	return rows
}

func channelShow(env *frame.Env) *cobra.Command {
	var repository, track string
	var scm bool
	c := &cobra.Command{
		Use:   "show [--repository DIR] [--track TRACK] NAME [OLD [NEW]]",
		Short: "tell what changed in a channel from one pin to another",
		Long: `Tell what changed in a channel from one pin to another: who signed, WHO MAY SIGN, which files and which packages. NEW is the newest
pin unless it is said, OLD the one before it; each is the number of a pin (of a list's version, inside) or a commit that is pinned.

What is told was authenticated for it once more. Outside, the objects are taken from --repository; without it, from the items
that were collected. Inside, they are those of the items that came in, and --track says of which track.`,
		Example: "  sallyport channel show --zone outside --repository /srv/guix.git guix\n" +
			"  sallyport channel show --zone outside guix 3 5\n" +
			"  sallyport channel show --zone outside --scheme guix > channels.scm\n" +
			"  sallyport-station channel show --zone inside --track dev guix",
		Args: cobra.RangeArgs(1, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if err := trust.CheckChannel(args[0]); err != nil {
				return frame.Usage("%v", err)
			}
			z, err := env.Zone(ctx, store.Outside, store.Inside)
			if err != nil {
				return err
			}
			defer z.Close()
			switch outside := z.Config.Kind == store.Outside; {
			case outside && track != "":
				return frame.Usage("--track: a zone outside has no tracks")
			case !outside && repository != "":
				return frame.Usage("--repository: inside, what came in is shown, and nothing else")
			}
			all, err := stands(ctx, env, z, args[0])
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return trust.Refuse("channel-unpinned", args[0], "this zone has no pin of it").WithHint("'channel list' lists the channels that are pinned")
			}
			if track != "" {
				tracks := tracksOf(all)
				if all = slices.DeleteFunc(all, func(s Stand) bool { return s.Track != track }); len(all) == 0 {
					return trust.Refuse("channel-unpinned", args[0], "track %s has no pin of it", track).WithHint("it is on " + strings.Join(tracks, ", "))
				}
			}
			if len(tracksOf(all)) > 1 {
				return frame.Usage("tracks %s have channel %s: say of which with --track", strings.Join(tracksOf(all), ", "), args[0])
			}
			old, now, err := choose(all, args[1:])
			if err != nil {
				return err
			}
			if now.pin == nil {
				if now.pin, _, err = history.Read(z.CAS, now.item, io.Discard); err != nil {
					return err
				}
			}
			if scm {
				text := scheme.PrintChannels([]scheme.Channel{now.pin.Scheme()})
				return env.Result(map[string]string{"type": "scheme", "channel": args[0], "channels": string(text)}, func(w io.Writer) { w.Write(text) })
			}
			return showPin(ctx, env, z, old, now, repository)
		},
	}
	c.Flags().StringVarP(&repository, "repository", "r", "", "outside: a repository that has the commits")
	c.Flags().StringVar(&track, "track", "", "inside: the track")
	c.Flags().BoolVar(&scm, "scheme", false, "print the pin as channels.scm, and nothing else")
	return c
}

// tracksOf returns the tracks of pins, each once, in their order.
func tracksOf(all []Stand) []string {
	var tracks []string
	for _, s := range all {
		if !slices.Contains(tracks, s.Track) {
			tracks = append(tracks, s.Track)
		}
	}
	return tracks
}

// choose finds the two pins that are to be compared; old is nil if there is but one.
func choose(all []Stand, args []string) (old, now *Stand, err error) {
	find := func(arg string) (int, error) {
		n, numErr := strconv.ParseInt(arg, 10, 64)
		for i := len(all) - 1; i >= 0; i-- {
			if s := all[i]; numErr == nil && (n == s.Number+s.Version) || arg == s.Commit {
				return i, nil
			}
		}
		return 0, trust.Refuse("channel-unpinned", all[0].Channel, "no pin has the number or the commit %q", arg).WithHint("'channel list --all' lists them; a commit is given with all of its 40 digits")
	}
	last := len(all) - 1
	for last > 0 && all[last].Recalled {
		last--
	}
	if len(args) == 2 {
		if last, err = find(args[1]); err != nil {
			return nil, nil, err
		}
	}
	now = &all[last]
	switch {
	case len(args) > 0:
		i, err := find(args[0])
		if err != nil {
			return nil, nil, err
		}
		return &all[i], now, nil
	case last > 0:
		return &all[last-1], now, nil
	}
	return nil, now, nil
}

func showPin(ctx context.Context, env *frame.Env, z *store.Zone, old, now *Stand, from string) error {
	p := now.pin
	out := struct {
		Type       string                   `json:"type"` // channel
		Pin        Stand                    `json:"pin"`
		URL        string                   `json:"url"`
		Branch     string                   `json:"branch"`
		Intro      string                   `json:"introduction"`
		Signer     string                   `json:"signer"`
		Keyring    string                   `json:"keyring"`
		NarHash    string                   `json:"nar_sha256"`
		NarSize    int64                    `json:"nar_size"`
		Commits    int                      `json:"commits,omitempty"` // since the introduction
		Excuses    []excuseRow              `json:"excuses,omitempty"`
		From       string                   `json:"from,omitempty"`
		Difference *authenticate.Difference `json:"difference,omitempty"`
	}{Type: "channel", Pin: *now, URL: p.URL, Branch: p.Branch, Intro: p.Introduction.String(), Signer: p.Signer.String(), Keyring: p.Keyring.String(), NarHash: p.NarHash.String(), NarSize: p.NarSize}
	if z.Config.Kind == store.Outside {
		excuses, err := account.Excuses(ctx, z, p.Channel)
		if err != nil {
			return err
		}
		out.Excuses = ExcuseRows(excuses, env.Clock())
	}
	if old != nil {
		report, d, err := difference(ctx, env, z, old, now, from)
		if err != nil {
			return err
		}
		out.From, out.Difference, out.Commits = old.Commit, d, report.Commits
	}
	return env.Result(out, func(w io.Writer) {
		fmt.Fprintf(w, "channel %s\nurl %s\nbranch %s\nintroduction %s\nsigned by %s\nkeyring %s\ncommit %s\nnar %s, %s\n", p.Channel, p.URL, p.Branch, out.Intro, out.Signer, out.Keyring, p.Commit, out.NarHash, frame.Bytes(p.NarSize))
		for _, e := range out.Excuses {
			e.print(w)
		}
		if out.Difference == nil {
			fmt.Fprintln(w, "it is the first pin: nothing to compare it with")
			return
		}
		fmt.Fprintln(w)
		w.Write(out.Difference.Text())
	})
}

// difference authenticates the newer of two pins and compares them.
func difference(ctx context.Context, env *frame.Env, z *store.Zone, old, now *Stand, from string) (*authenticate.Report, *authenticate.Difference, error) {
	repository, done, err := pinnedRepository(ctx, env, z, now.pin, from)
	if err != nil {
		return nil, nil, err
	}
	defer done()
	cache, err := account.Cache(z, env.Rand)
	if err != nil {
		return nil, nil, err
	}
	progress := env.Progress("authenticating", 0)
	progress.Unit("commits")
	told := 0
	report, err := repository.Authenticate(ctx, authenticate.Request{Introduction: now.pin.Introduction, Signer: now.pin.Signer, Keyring: pin.KeyringBranch, End: now.Commit, Cache: cache,
		Progress: func(judged, _ int) { progress.Add(int64(judged - told)); told = judged }})
	progress.Done()
	if err != nil {
		return nil, nil, err
	}
	if !report.OK() {
		return nil, nil, repository.Refused(report.Verdict, nil)
	}
	d, err := repository.Diff(ctx, report, old.id)
	return report, d, err
}

// pinnedRepository opens the objects of a channel with the keyring that a pin names.
func pinnedRepository(ctx context.Context, env *frame.Env, z *store.Zone, p *pin.Pin, from string) (*authenticate.Repository, func(), error) {
	repositories := &history.Repositories{Zone: z, Git: history.FindGit}
	if z.Config.Kind == store.Inside {
		repository, remove, err := repositories.At(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		return repository, func() { repository.Close(); remove() }, nil
	}
	hint := "name a repository that has the commits: --repository DIR"
	dir := from
	if dir == "" {
		dir = repositories.Dir(p.Channel)
	}
	source, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		if from == "" && errors.Is(err, os.ErrNotExist) {
			return nil, nil, frame.WithHint(fmt.Errorf("channel %s: nothing of it was collected yet", p.Channel), "%s", hint)
		}
		return nil, nil, err
	}
	_, err = source.Database().NewReader().Read(p.Commit, git.KindCommit)
	if err := errors.Join(err, source.Close()); err != nil {
		return nil, nil, trust.Refuse(channel.CodeEndMissing, dir, "%v", err).WithHint(hint)
	}
	objects := filepath.Join(dir, "objects")
	if _, err := os.Lstat(filepath.Join(dir, ".git")); err == nil {
		objects = filepath.Join(dir, ".git", "objects")
	}
	scratch, remove, err := z.Scratch()
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*authenticate.Repository, func(), error) { remove(); return nil, nil, err }
	for _, d := range []string{"objects", "refs"} {
		if err := os.Mkdir(filepath.Join(scratch, d), 0o700); err != nil {
			return fail(err)
		}
	}
	refs := fmt.Sprintf("# pack-refs with: sorted \n%s refs/heads/%s\n", p.Keyring, pin.KeyringBranch)
	if err := os.WriteFile(filepath.Join(scratch, "packed-refs"), []byte(refs), 0o600); err != nil {
		return fail(err)
	}
	repository, err := authenticate.Open(scratch, authenticate.Options{Alternates: []string{objects}})
	if err != nil {
		return fail(err)
	}
	repository.Dir = dir
	return repository, func() { repository.Close(); remove() }, nil
}
