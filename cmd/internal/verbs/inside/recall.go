package inside

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/internal/inside/host"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// recall drafts the recall of items: what depends on them is shown before anybody signs.
func recall(env *frame.Env) *cobra.Command {
	var reason string
	var with bool
	var args []string
	c := &cobra.Command{
		Use:   "recall --reason TEXT NAME|SHA256...",
		Short: "draft the recall of items, and show what depends on them",
		Long: `Draft the recall of items: tombstones, signed by officers, that overrule every list for ever.

NAME is the base name of a store item, in an allowlist in force, imported, or agreed on by builders; SHA256 is its
content's, of an output its nar's. Shown, track by track, is what would be gone with it: derivations that use it,
directly or not, their outputs, and what refers to these; the versions of allowlists that have it; and the hosts whose
last report has it. What builds upon a recalled item is not built any more; what was built stays in force unless it is
recalled too, with --with-dependents.

'order sign' and 'order accept' make it true. The depot answers 404 with the reason from the next checkpoint on; clients
may have cached a narinfo for five minutes. 'recall status' tells which hosts are clean.`,
		Example: "  sallyport-station recall --reason 'back door in the tarball' 0c0fr0...-xz-5.6.1.tar.gz\n  sallyport-station recall --with-dependents --reason 'CVE-2026-1234' 9zk1...-openssl-3.0.19.drv",
		Args:    cobra.MinimumNArgs(1),
	}
	verbs.ReasonFlag(c, &reason)
	c.Flags().BoolVar(&with, "with-dependents", false, "recall everything that depends on them too")
	verbs.EditOrders(env, c, &args, func(d *verbs.OrderDraft) error {
		if err := verbs.CheckReason(reason); err != nil {
			return err
		}
		found, err := impactOf(c.Context(), d, args)
		if err != nil {
			return err
		}
		found.print(env.Stderr)
		add := func(sum trust.Digest, name string) {
			if !slices.ContainsFunc(d.Orders.Recalls, func(r trust.Recall) bool { return r.SHA256 == sum && r.Name == name }) {
				d.Orders.Recalls = append(d.Orders.Recalls, trust.Recall{SHA256: sum, Name: name, Date: d.Now, Reason: reason})
			}
		}
		for _, it := range found.Items {
			add(it.SHA256, it.Name)
			for _, dep := range it.Dependents {
				if with {
					add(dep.SHA256, dep.Name)
				}
			}
		}
		d.Impact = map[string]any{"items": found.Items}
		return nil
	})
	c.AddCommand(recallStatus(env))
	return c
}

// An impact is what a recall would mean.
type impact struct{ Items []recalledItem }

type recalledItem struct {
	Name       string            `json:"name"`
	SHA256     trust.Digest      `json:"sha256"`
	Tracks     []string          `json:"tracks"`   // where it is admitted now
	Releases   []string          `json:"releases"` // versions of allowlists that name it
	Hosts      []string          `json:"hosts"`    // whose newest report has it
	Dependents []admit.Dependent `json:"dependents"`
}

// impactOf finds the items and all that hangs on them.
func impactOf(ctx context.Context, d *verbs.OrderDraft, wanted []string) (*impact, error) {
	views := map[string]*admit.View{}
	for _, track := range tracks(d.Root) {
		var record admit.Record
		if _, err := record.Read(ctx, d.Zone, d.Root); err != nil {
			return nil, err
		}
		v, err := record.View(ctx, d.Zone, d.Root, track)
		if rs, refused := trust.AsRefusals(err); refused && (rs.Has("no-allowlist") || rs.Has("allowlist-threshold") || rs.Has("allowlist-unsigned")) {
			continue // nothing is admitted there
		}
		if err != nil {
			return nil, fmt.Errorf("track %s: %w", track, err)
		}
		views[track] = v
	}
	reports, err := host.Reports(ctx, d.Zone)
	if err != nil {
		return nil, err
	}
	out := &impact{}
	var rs trust.Refusals
	for _, want := range wanted {
		list, err := resolve(ctx, d.Zone, views, strings.TrimPrefix(want, "/gnu/store/"))
		if err != nil {
			return nil, err
		}
		if len(list) == 0 {
			rs.Add(trust.Refuse("item-unknown", want, "it is in no allowlist in force, was not imported, and no builders agreed on it").
				WithHint("an item that was never here needs no recall; check the name"))
		}
		for _, it := range list {
			r := recalledItem{Name: it.Name, SHA256: it.SHA256, Tracks: []string{}, Releases: []string{}, Hosts: []string{}, Dependents: []admit.Dependent{}}
			seen := map[string]bool{}
			for _, track := range slices.Sorted(maps.Keys(views)) {
				v := views[track]
				if slices.Contains(v.Names(), it.Name) {
					r.Tracks = append(r.Tracks, track)
				}
				deps, err := v.Dependents(it.Name)
				if err != nil {
					return nil, err
				}
				for _, dep := range deps {
					if !seen[dep.Name] {
						seen[dep.Name] = true
						r.Dependents = append(r.Dependents, dep)
					}
				}
			}
			if r.Releases, err = releases(ctx, d.Zone, it); err != nil {
				return nil, err
			}
			hosts, err := host.Holders(d.Zone, reports, it.SHA256, it.Name)
			if err != nil {
				return nil, err
			}
			r.Hosts = append(r.Hosts, hosts...)
			out.Items = append(out.Items, r)
		}
	}
	return out, rs.Err()
}

// tracks returns the tracks that the root knows.
func tracks(r *trust.Root) []string {
	var list []string
	for name := range r.Thresholds {
		if track, ok := strings.CutPrefix(name, "allowlist/"); ok && !strings.Contains(track, "/") {
			list = append(list, track)
		}
	}
	slices.Sort(list)
	return list
}

// resolve finds what a name or a digest means: in the lists in force, among what builders agreed on, or among what was imported.
func resolve(ctx context.Context, z *store.Zone, views map[string]*admit.View, want string) ([]trust.Item, error) {
	found := map[trust.Item]bool{}
	is := func(sum trust.Digest, name string) bool { return want == name || want == sum.String() }
	for _, v := range views {
		for _, it := range v.List.Items {
			if is(it.SHA256, it.Name) {
				found[it] = true
			}
		}
		for _, name := range v.Names() {
			if it, err := v.Item(name); err == nil && it.Kind == trust.KindOutput && is(it.NarHash, name) {
				found[trust.Item{SHA256: it.NarHash, Size: it.NarSize, Kind: trust.KindOutput, Name: name}] = true
			}
		}
	}
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT sha256, size, kind, name FROM item WHERE name = ? OR sha256 = ?`, want, want)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var it trust.Item
		var sum string
		if err := rows.Scan(&sum, &it.Size, &it.Kind, &it.Name); err != nil {
			return nil, err
		}
		if it.SHA256, err = trust.ParseDigest(sum); err != nil {
			return nil, err
		}
		found[it] = true
	}
	return slices.SortedFunc(maps.Keys(found), trust.Item.Compare), rows.Err()
}

// releases lists the versions of allowlists that name an item, as they were published.
func releases(ctx context.Context, z *store.Zone, it trust.Item) ([]string, error) {
	list := []string{}
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT track, version, note FROM allowlist ORDER BY track, version`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	type row struct {
		track, note string
		version     int64
	}
	var all []row
	for rows.Next() {
		var r row
		if err := rows.Scan(&r.track, &r.version, &r.note); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	line := "\nitem " + it.String() + "\n"
	for _, r := range all {
		d, err := trust.ParseDigest(r.note)
		if err != nil {
			return nil, err
		}
		note, err := z.CAS.ReadAll(d, store.MaxPublic)
		if err != nil {
			return nil, fmt.Errorf("allowlist %s version %d: %w", r.track, r.version, err)
		}
		if strings.Contains(string(note), line) {
			list = append(list, fmt.Sprintf("%s %d", r.track, r.version))
		}
	}
	return list, nil
}

func (m *impact) print(w io.Writer) {
	const enough = 200 // lines for a person; --json has them all
	for _, it := range m.Items {
		fmt.Fprintf(w, "%s\n  sha256 %s\n  on tracks: %s; in allowlists: %s; on hosts: %s\n", it.Name, it.SHA256, orNone(it.Tracks), orNone(it.Releases), orNone(it.Hosts))
		fmt.Fprintf(w, "  %d items depend on it\n", len(it.Dependents))
		for i, d := range it.Dependents {
			if i == enough {
				fmt.Fprintf(w, "  ... and %d more (--json lists them)\n", len(it.Dependents)-enough)
				break
			}
			fmt.Fprintf(w, "  %*s%s %s, through %s\n", 2*min(d.Depth, 20), "", d.Kind, d.Name, d.Via)
		}
	}
}

func orNone(list []string) string { return cmp.Or(strings.Join(list, ", "), "none") }

// recallStatus says how far the recalls have come.
func recallStatus(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "show for each recall which hosts have reported clean since, and how long it took",
		Long: `Show for each recall which hosts have reported clean since, and how long it took.

A recall is closed when every host that ever reported ('host check', 'host record') has reported without a recalled item,
checked against orders that have it. Exit code 4 while one is open.`,
		Example: "  sallyport-station recall status --zone inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			z, root, err := enclave(ctx, env)
			if err != nil {
				return err
			}
			defer z.Close()
			o, err := z.Orders(ctx, root)
			if err != nil {
				return err
			}
			since, err := recalledSince(z)
			if err != nil {
				return err
			}
			reports, err := host.Reports(ctx, z)
			if err != nil {
				return err
			}
			open := 0
			if o == nil || len(o.Recalls) == 0 {
				return env.Result(map[string]any{"type": "summary", "recalls": 0, "open": 0}, func(w io.Writer) { fmt.Fprintln(w, "nothing was recalled") })
			}
			for _, r := range o.Recalls {
				s := status(r, since[r.Name+" "+r.SHA256.String()], reports)
				if len(s.Waiting) > 0 {
					open++
				}
				if err := env.Result(s, func(w io.Writer) { s.print(w) }); err != nil {
					return err
				}
			}
			if err := env.Result(map[string]any{"type": "summary", "recalls": len(o.Recalls), "open": open, "hosts": len(reports)}, func(w io.Writer) {
				fmt.Fprintf(w, "%d recalls, %d open, %d hosts have ever reported\n", len(o.Recalls), open, len(reports))
			}); err != nil {
				return err
			}
			if open > 0 {
				return &frame.WaitingError{Text: fmt.Sprintf("%d recalls wait for hosts", open), Hint: "on each host: 'host check'; its report: 'host record'"}
			}
			return nil
		},
	}
}

// An inForce says when a recall came into force.
type inForce struct {
	version int64
	time    time.Time
}

// recalledSince reads from the published orders in which version each recall first stood.
func recalledSince(z *store.Zone) (map[string]inForce, error) {
	since := map[string]inForce{}
	for n := int64(1); ; n++ {
		note, err := z.ReadPublic(fmt.Sprintf("orders/%d", n))
		if errors.Is(err, fs.ErrNotExist) {
			return since, nil
		}
		if err != nil {
			return nil, err
		}
		text, _, err := trust.SplitNote("orders", note, trust.MaxOrdersSize)
		if err != nil {
			return nil, err
		}
		o, err := trust.ParseOrders(text)
		if err != nil {
			return nil, err
		}
		for _, r := range o.Recalls {
			key := r.Name + " " + r.SHA256.String()
			if _, ok := since[key]; !ok {
				since[key] = inForce{o.Version, o.Date}
			}
		}
	}
}

// A recallState is how far one recall has come.
type recallState struct {
	Type    string   `json:"type"` // recall
	Name    string   `json:"name"`
	SHA256  string   `json:"sha256"`
	Orders  int64    `json:"orders"` // the version that it came with
	Date    string   `json:"date"`
	Clean   []string `json:"clean"`
	Waiting []string `json:"waiting"`
	Seconds int64    `json:"seconds,omitempty"` // from the order to the last host's report, once it is closed
}

func status(r trust.Recall, since inForce, reports map[string]host.Checked) recallState {
	s := recallState{Type: "recall", Name: r.Name, SHA256: r.SHA256.String(), Orders: since.version, Date: trust.FormatDate(since.time), Clean: []string{}, Waiting: []string{}}
	var last time.Time
	for _, c := range host.Sorted(reports) {
		if c.Orders < since.version || c.Recalled > 0 {
			s.Waiting = append(s.Waiting, c.Host)
			continue
		}
		s.Clean = append(s.Clean, c.Host)
		if t, err := trust.ParseDate(c.Taken); err == nil && t.After(last) {
			last = t
		}
	}
	if len(s.Waiting) == 0 && len(s.Clean) > 0 && last.After(since.time) {
		s.Seconds = int64(last.Sub(since.time) / time.Second)
	}
	return s
}

func (s recallState) print(w io.Writer) {
	fmt.Fprintf(w, "%s\n  recalled by orders %d, %s; clean: %s; waiting for: %s", s.Name, s.Orders, s.Date, orNone(s.Clean), orNone(s.Waiting))
	switch {
	case len(s.Waiting) > 0:
	case len(s.Clean) == 0:
		fmt.Fprint(w, "; no host has ever reported")
	default:
		fmt.Fprintf(w, "; closed, the last host %s after the order", time.Duration(s.Seconds)*time.Second)
	}
	fmt.Fprintln(w)
}
