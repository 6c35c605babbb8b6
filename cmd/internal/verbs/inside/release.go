package inside

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/inside/review"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

func releaseNoun(env *frame.Env) *cobra.Command {
	return noun("release", "states of a track's allowlist, and how items move between tracks", releaseList(env), releaseShow(env), releaseDiff(env), releasePromote(env))
}

func releasePromote(env *frame.Env) *cobra.Command {
	var from, to, keyFile string
	var items []string
	var all bool
	c := &cobra.Command{
		Use:   "promote --from TRACK --to TRACK --key FILE --all | --item NAME ...",
		Short: "sign the list of a track that takes over items from another track's",
		Long: `Sign the list of a track that takes over items from another track's list in force.

Each reviewer runs it, with the same items. Outputs follow by themselves: what builders agreed on does not depend on the
track. What a derivation needs must go along, or be there. Whoever imported an item does not promote it.`,
		Example: "  sallyport-station release promote --zone inside --from dev --to test --all --key alice.allowlist.key\n" +
			"  sallyport-station release promote --from test --to prod --item 9zk1...-hello-2.12.drv --item 0c0f...-hello-2.12.tar.gz --key bob.allowlist.key",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all == (len(items) > 0) {
				return frame.Usage("give --all, or --item NAME")
			}
			if err := trust.CheckWord(from); err != nil {
				return frame.Usage("--from: %v", err)
			}
			return sign(cmd.Context(), env, to, keyFile, func(d *review.Desk, key trust.Signer) (*review.Outcome, error) {
				return d.Promote(cmd.Context(), from, to, items, key)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&from, "from", "", "the track whose list has the items")
	f.StringVar(&to, "to", "", "the track that takes them over")
	f.StringVar(&keyFile, "key", "", "the reviewer's allowlist key: a file, or agent:PUBFILE")
	f.StringArrayVar(&items, "item", nil, "base name of an item")
	f.BoolVar(&all, "all", false, "all items")
	return c
}

// A released is one version of an allowlist.
type released struct {
	Type    string `json:"type"` // release
	Track   string `json:"track"`
	Version int64  `json:"version"`
	Date    string `json:"date"`
	Root    int64  `json:"root"`
	Orders  int64  `json:"orders"`
	Items   int    `json:"items"`
	Digest  string `json:"allowlist"`
	list    *trust.Allowlist
}

// version reads a version of a track's list as it was published; 0 is the newest. Nothing of who signed it is checked: the auditor's and the depot's business.
func version(ctx context.Context, z *store.Zone, track string, n int64) (*released, error) {
	if err := trust.CheckWord(track); err != nil {
		return nil, frame.Usage("track: %v", err)
	}
	var note []byte
	var err error
	if n > 0 {
		note, err = z.ReadPublic(fmt.Sprintf("allowlist/%s/%d", track, n))
	} else if note, err = z.Allowlist(ctx, track); err == nil && note == nil {
		return nil, trust.Refuse("no-allowlist", "track "+track, "nothing was approved for it yet")
	}
	if err != nil {
		return nil, err
	}
	text, _, err := trust.SplitNote("allowlist", note, trust.MaxListSize)
	if err != nil {
		return nil, err
	}
	a, err := trust.ParseAllowlist(text)
	if err != nil {
		return nil, err
	}
	return &released{"release", track, a.Version, trust.FormatDate(a.Date), a.Root, a.Orders, len(a.Items), a.Digest().String(), a}, nil
}

func releaseList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list [TRACK]",
		Short:   "list the versions of the tracks' allowlists",
		Example: "  sallyport-station release list --zone inside\n  sallyport-station release list prod",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			z, root, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			which := tracks(root)
			if len(args) == 1 {
				which = args
			}
			for _, track := range which {
				newest, err := version(ctx, z, track, 0)
				if rs, _ := trust.AsRefusals(err); rs.Has("no-allowlist") {
					continue
				}
				if err != nil {
					return err
				}
				for n := int64(1); n <= newest.Version; n++ {
					r, err := version(ctx, z, track, n)
					if err != nil {
						return err
					}
					if err := env.Result(r, func(w io.Writer) {
						fmt.Fprintf(w, "%-8s %5d  %s  %7d items  root %d, orders %d\n", r.Track, r.Version, r.Date, r.Items, r.Root, r.Orders)
					}); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func releaseShow(env *frame.Env) *cobra.Command {
	var n int64
	c := &cobra.Command{
		Use:     "show TRACK [--version N]",
		Short:   "print what a version of a track's list allows",
		Example: "  sallyport-station release show --zone inside dev\n  sallyport-station release show prod --version 3 --json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			z, root, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			r, err := version(ctx, z, args[0], n)
			if err != nil {
				return err
			}
			o, err := z.Orders(ctx, root)
			if err != nil {
				return err
			}
			if err := env.Result(r, func(w io.Writer) {
				fmt.Fprintf(w, "allowlist %s version %d, %s, under root %d and orders %d; %d items\nsha256 of the text %s\n", r.Track, r.Version, r.Date, r.Root, r.Orders, r.Items, r.Digest)
				for _, c := range r.list.Classes {
					fmt.Fprintf(w, "by the rule %s: %d items of shipment %d\n", c.Rule, c.Items, c.Shipment)
				}
			}); err != nil {
				return err
			}
			for _, it := range r.list.Items {
				recall, gone := o.Recalled(it.SHA256, it.Name)
				v := map[string]any{"type": "item", "kind": it.Kind, "size": it.Size, "name": it.Name, "sha256": it.SHA256.String(), "recalled": gone}
				if err := env.Result(v, func(w io.Writer) {
					fmt.Fprintf(w, "%-10s %12d  %s\n           sha256 %s\n", it.Kind, it.Size, it.Name, it.SHA256)
					if gone {
						fmt.Fprintf(w, "           RECALLED %s: %s\n", trust.FormatDate(recall.Date), recall.Reason)
					}
				}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().Int64Var(&n, "version", 0, "a version (default the newest)")
	return c
}

// at reads TRACK or TRACK@N.
func at(s string) (track string, n int64, err error) {
	track, number, ok := strings.Cut(s, "@")
	if ok {
		if n, err = trust.ParseNumber(number, trust.MaxSize); err != nil || n < 1 {
			return "", 0, frame.Usage("%q: want TRACK, or TRACK@N with a version", s)
		}
	}
	return track, n, nil
}

func releaseDiff(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "diff TRACK[@N] TRACK[@N]",
		Short:   "show what one list has that another does not",
		Example: "  sallyport-station release diff --zone inside test prod\n  sallyport-station release diff prod@3 prod@4",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			z, _, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			var lists [2]*released
			for i, a := range args {
				track, n, err := at(a)
				if err != nil {
					return err
				}
				if lists[i], err = version(ctx, z, track, n); err != nil {
					return err
				}
			}
			show := func(sign string, from, other *released) error {
				for _, it := range from.list.Items {
					if have, ok := other.list.ByName(it.Name); ok && have == it {
						continue
					}
					v := map[string]any{"type": map[string]string{"-": "gone", "+": "new"}[sign], "kind": it.Kind, "size": it.Size, "name": it.Name, "sha256": it.SHA256.String()}
					if err := env.Result(v, func(w io.Writer) { fmt.Fprintf(w, "%s %-10s %12d  %s\n", sign, it.Kind, it.Size, it.Name) }); err != nil {
						return err
					}
				}
				return nil
			}
			if err := show("-", lists[0], lists[1]); err != nil {
				return err
			}
			return show("+", lists[1], lists[0])
		},
	}
}
