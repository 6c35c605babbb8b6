package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/host"
	"sallyport/internal/trust"
)

func hostNoun(env *frame.Env) *cobra.Command {
	return noun("host", "judge the enclave's Guix hosts, and keep what they report", hostCheck(env), hostRecord(env), hostList(env))
}

// hostFlags are those of a check.
type hostFlags struct {
	root, state, name, fingerprint, public, report string
	tracks, depots                                 []string
	contents, strict, madeFrom, all                bool
}

func hostCheck(env *frame.Env) *cobra.Command {
	var f hostFlags
	c := &cobra.Command{
		Use:   "check --fingerprint FINGERPRINT --track TRACK... (--depot URL... | --public DIR) --state DIR",
		Short: "judge a Guix host's store, roots, profiles and generations by the enclave's lists and orders",
		Long: `Judge a Guix host's store, roots, profiles and generations by the enclave's lists and orders.

Nothing is changed on the host, and its daemon is not asked: its database is copied and read, links are followed below
--root and nowhere else. Items are allowed, agreed on by builders, local (made here: profiles, grafts), or not: recalled,
affected (they refer to what was recalled), altered, differing from what the enclave says, disputed, missing, unknown.
Exit code 3: a root keeps such an item; each is listed with the shortest way to it.

The enclave's documents come from the depots that the host uses, one for each track, or from a copy of the zone's public
directory. --state is a directory of the check's own: it keeps what was accepted, so that nobody gets an older list taken.

With --contents every item is read and hashed. Without, what the database says of hashes is believed.`,
		Example: `  sallyport-station host check --fingerprint abcd-efgh-... --track prod --depot http://10.0.0.5:8080 --state /var/lib/sallyport/host
  sallyport-station host check --fingerprint abcd-efgh-... --track prod --public /media/public --state ./state --root /mnt/disk --contents
  sallyport-station host check ... --report host-7.report      # then, at the station: host record host-7.report`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.check(cmd.Context(), env) },
	}
	fl := c.Flags()
	fl.StringVar(&f.fingerprint, "fingerprint", "", "fingerprint of the enclave's first root, from paper")
	fl.StringSliceVar(&f.tracks, "track", nil, "a track that the host uses; may be given several times")
	fl.StringSliceVar(&f.depots, "depot", nil, "URL of the depot of a track; may be given several times")
	fl.StringVar(&f.public, "public", "", "a copy of the public directory of the enclave's zone, in place of depots")
	fl.StringVar(&f.state, "state", "", "directory that the check keeps of its own")
	fl.StringVar(&f.root, "root", "/", "root directory of the host")
	fl.StringVar(&f.name, "host", "", "the host's name in the report (default: this machine's)")
	fl.BoolVar(&f.contents, "contents", false, "read and hash all that lies in the store")
	fl.BoolVar(&f.strict, "strict", false, "refuse what only the host vouches for, too: what is local, or built and not agreed on")
	fl.BoolVar(&f.madeFrom, "made-from", false, "refuse what something recalled went into, too")
	fl.StringVar(&f.report, "report", "", "write a report, to be carried to the station, into this new file")
	fl.BoolVar(&f.all, "all", false, "list all roots and what is local, not only what is wrong")
	return c
}

func (f *hostFlags) check(ctx context.Context, env *frame.Env) (err error) {
	if f.fingerprint == "" || f.state == "" || len(f.tracks) == 0 || (len(f.depots) == 0) == (f.public == "") {
		return frame.Usage("--fingerprint, --state, --track and either --depot or --public are needed")
	}
	pin, err := trust.ParsePin(f.fingerprint)
	if err != nil {
		return frame.Usage("--fingerprint: %v", err)
	}
	for _, t := range f.tracks {
		if err := trust.CheckWord(t); err != nil {
			return frame.Usage("--track: %v", err)
		}
	}
	if f.name == "" {
		if f.name, err = os.Hostname(); err != nil {
			return err
		}
		f.name, _, _ = strings.Cut(strings.ToLower(f.name), ".")
	}
	if err := trust.CheckWord(f.name); err != nil {
		return frame.Usage("--host: %v", err)
	}
	if f.report != "" {
		// Before an hour's work, not after it.
		if _, err := os.Lstat(f.report); err == nil {
			return frame.Usage("--report: %s is there already", f.report)
		}
	}
	root, err := os.OpenRoot(f.root)
	if err != nil {
		return err
	}
	defer root.Close()
	state, err := host.OpenState(f.state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	p := env.Progress("checking", 0)
	defer p.Done()
	var sources []host.Source
	for _, url := range f.depots {
		d, err := host.NewDepot(url)
		if err != nil {
			return frame.Usage("%v", err)
		}
		sources = append(sources, d)
	}
	if f.public != "" {
		dir, err := host.OpenPublic(f.public)
		if err != nil {
			return err
		}
		defer dir.Close()
		dir.Progress = func(_ int64, note string) { p.Note(note) }
		sources = append(sources, dir)
	}
	e, err := host.Open(ctx, state, pin, env.Clock(), f.tracks, sources...)
	if err != nil {
		return err
	}
	check := &host.Check{Host: f.name, Root: root, Proc: "/proc", Enclave: e, Contents: f.contents, Rules: host.Rules{Local: f.strict, MadeFrom: f.madeFrom}, Clock: env.Clock,
		Progress: func(n int64, note string) { p.Note(note); p.Add(n) }, Total: p.Total}
	res, err := check.Run(ctx)
	if err != nil {
		return err
	}
	p.Done()
	digest := ""
	if f.report != "" {
		text := res.Report().Text()
		if err := frame.WriteNew(f.report, text, 0o644); err != nil {
			return err
		}
		digest = trust.Fingerprint(trust.Sum(text))
	}
	if env.JSON {
		err = f.printJSON(env, res, digest)
	} else {
		f.print(env.Stdout, res, digest)
	}
	f.remarks(env, res)
	return errors.Join(err, res.Err())
}

// remarks say what the result does not rest on.
func (f *hostFlags) remarks(env *frame.Env, res *host.Result) {
	if !res.Contents {
		env.Say("note: contents were not read; what the database says of them was believed (--contents reads them)")
	}
	if res.Unread > 0 {
		env.Say("note: %d processes could not be looked at; run it as root to see what they use", res.Unread)
	}
	if n := len(res.Unseen); n > 0 {
		env.Say("note: %d derivations were not to be had, the first is %s; what they make, and from what, is only known as far as builders say", n, res.Unseen[0])
	}
	if n := len(res.Strays); n > 0 {
		env.Say("note: %d names in the store have no row in the database: builds under way, or left over; 'guix gc' removes them", n)
	}
	for _, b := range res.Broken {
		env.Say("note: %s leads nowhere: %s", trust.Printable(b.Path, 300), trust.Printable(b.Reason, 300))
	}
}

type hostRootLine struct {
	Type       string   `json:"type"` // root
	Kind       string   `json:"kind"`
	Path       string   `json:"path"`
	Profile    string   `json:"profile,omitempty"`
	Generation int64    `json:"generation,omitempty"`
	Current    bool     `json:"current,omitempty"`
	Time       string   `json:"time,omitempty"`
	Item       string   `json:"item"`
	Status     string   `json:"status"` // ok, or the worst that it keeps
	Why        string   `json:"why,omitempty"`
	Chain      []string `json:"chain,omitempty"` // from its item to the worst
}

func (f *hostFlags) printJSON(env *frame.Env, res *host.Result, digest string) error {
	line := func(v any) error { return env.Result(v, nil) }
	for _, it := range res.Findings {
		if it.Status == host.Local && !f.all && !f.strict {
			continue
		}
		if err := line(struct {
			Type string `json:"type"`
			host.Finding
		}{"item", it}); err != nil {
			return err
		}
	}
	for _, r := range res.Roots {
		l := hostRootLine{"root", r.Kind, trust.Printable(r.Path, 4096), trust.Printable(r.Profile, 4096), r.Generation, r.Current, "", r.Item, r.Status, r.Why, r.Chain}
		if l.Status == "" {
			l.Status = "ok"
		}
		if !r.Time.IsZero() {
			l.Time = trust.FormatDate(r.Time)
		}
		if err := line(l); err != nil {
			return err
		}
	}
	for _, b := range res.Broken {
		if err := line(map[string]string{"type": "broken", "path": trust.Printable(b.Path, 4096), "why": trust.Printable(b.Reason, 4096)}); err != nil {
			return err
		}
	}
	for _, name := range res.Strays {
		if err := line(map[string]string{"type": "stray", "name": trust.Printable(name, 4096)}); err != nil {
			return err
		}
	}
	bad := 0
	for _, r := range res.Roots {
		if r.Status != "" {
			bad++
		}
	}
	return line(struct {
		Type     string                   `json:"type"`
		Host     string                   `json:"host"`
		Enclave  string                   `json:"enclave"`
		Date     string                   `json:"date"`
		Root     host.Document            `json:"root"`
		Orders   host.Document            `json:"orders"`
		Lists    map[string]host.Document `json:"allowlists"`
		Contents bool                     `json:"contents"`
		Items    int                      `json:"items"`
		Bytes    int64                    `json:"bytes"`
		Counts   map[string]host.Count    `json:"counts"`
		Roots    int                      `json:"roots"`
		BadRoots int                      `json:"bad_roots"`
		Strays   int                      `json:"strays"`
		Unread   int                      `json:"unread_processes"`
		Unseen   int                      `json:"unseen_derivations"`
		Report   string                   `json:"report,omitempty"`
	}{"summary", res.Host, res.Enclave, trust.FormatDate(res.Date), res.Documents.Root, res.Documents.Orders, res.Documents.Lists, res.Contents, res.Items, res.Bytes, res.Counts,
		len(res.Roots), bad, len(res.Strays), res.Unread, len(res.Unseen), digest})
}

func (f *hostFlags) print(w io.Writer, res *host.Result, digest string) {
	var lists []string
	for _, t := range host.Tracks(res.Documents.Lists) {
		lists = append(lists, fmt.Sprintf("%s %d", t, res.Documents.Lists[t].Version))
	}
	orders := "no orders"
	if n := res.Documents.Orders.Version; n > 0 {
		orders = fmt.Sprintf("orders %d", n)
	}
	fmt.Fprintf(w, "host %s: %d items, %s, by root %d, %s, allowlist %s\n", res.Host, res.Items, frame.Bytes(res.Bytes), res.Documents.Root.Version, orders, strings.Join(lists, ", "))
	for _, s := range host.Statuses() {
		if n := res.Counts[s]; n.Items > 0 {
			fmt.Fprintf(w, "  %-12s %7d, in use %d\n", s, n.Items, n.Reached)
		}
	}
	good, profile := 0, ""
	for _, r := range res.Roots {
		if r.Status == "" && !f.all {
			good++
			continue
		}
		name := trust.Printable(r.Path, 300)
		if r.Kind == host.KindGeneration {
			if r.Profile != profile {
				profile = r.Profile
				fmt.Fprintf(w, "profile %s\n", trust.Printable(profile, 300))
			}
			name = fmt.Sprintf("  generation %d", r.Generation)
			if r.Current {
				name += ", current"
			}
			name += ", " + r.Time.UTC().Format(time.DateTime)
		}
		if r.Status == "" {
			fmt.Fprintf(w, "%s: all is well\n", name)
			continue
		}
		fmt.Fprintf(w, "%s: %s: %s\n", name, r.Status, host.PrintChain(r.Chain))
	}
	if good > 0 {
		fmt.Fprintf(w, "%d of %d roots keep nothing that is wrong\n", good, len(res.Roots))
	}
	for _, it := range res.Findings {
		switch {
		case it.Status == host.Affected || it.Status == host.Local && !f.all:
		case it.Status == host.Built && !f.all && !f.strict:
		case it.Chain == nil:
			fmt.Fprintf(w, "%s, in no use: %s: %s\n", it.Status, trust.Printable(it.Name, 300), it.Why)
		case it.Status == host.BreakGlass || it.Status == host.Derived || it.Status == host.Built || it.Status == host.Local:
			fmt.Fprintf(w, "%s: %s: %s\n", it.Status, trust.Printable(it.Name, 300), it.Why)
		}
	}
	if digest != "" {
		fmt.Fprintf(w, "report %s, fingerprint %s\n", f.report, digest)
	}
}

func hostRecord(env *frame.Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "record FILE",
		Short: "take a host's report into the ledger",
		Long: `Take a host's report into the ledger.

The report is what 'host check --report' wrote on the host. It is not signed: compare the fingerprint that is printed here with
the one that was printed there. A report is refused that is older than the host's last, or made against other
documents than the enclave's.`,
		Example: "  sallyport-station host record --zone inside host-7.report",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			text, err := frame.ReadBounded(args[0], host.MaxReportSize)
			if err != nil {
				return err
			}
			z, _, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			c, err := host.Record(ctx, z, text)
			if err != nil {
				return err
			}
			return env.Result(c, func(w io.Writer) {
				fmt.Fprintf(w, "host %s, checked %s against orders %d: %d items, %d recalled, %d otherwise not allowed, %d of them in use\nreport %s, entry %d of the ledger\n", c.Host, c.Date, c.Orders, c.Items, c.Recalled, c.Unknown, c.Kept,
					trust.Fingerprint(c.Report), c.Entry)
			})
		},
	}
	return c
}

func hostList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "list the hosts that have reported, with what they said last",
		Example: "  sallyport-station host list --zone inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			z, _, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			newest, err := host.Reports(ctx, z)
			if err != nil {
				return err
			}
			for _, c := range host.Sorted(newest) {
				if err := env.Result(c, func(w io.Writer) {
					fmt.Fprintf(w, "%-32s checked %s, orders %3d, %7d items, %5d recalled, %5d otherwise not allowed, %5d in use\n", c.Host, c.Date, c.Orders, c.Items, c.Recalled, c.Unknown, c.Kept)
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
