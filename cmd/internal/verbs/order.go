package verbs

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

func orderNoun(env *frame.Env) *cobra.Command {
	return noun("order", "what officers order: recalls, lost shipments, channels, break-glass",
		orderSign(env), orderAccept(env), orderShow(env), orderLost(env), orderBreakGlass(env), orderClose(env), orderSettle(env), orderDowngrade(env), orderChannel(env), orderExcuse(env), orderRestored(env), orderRenew(env))
}

// An OrderDraft is what a verb that drafts orders works on.
type OrderDraft struct {
	Zone   *store.Zone
	Root   *trust.Root
	Orders *trust.Orders
	Now    time.Time      // the date that new lines bear
	Impact map[string]any // what the verb says beside the draft, with --json
}

// EditOrders makes a verb that changes the draft of the next orders: the one that lies there, or a new one from those in force. The verb's own arguments
// are seen by its edit through args.
func EditOrders(env *frame.Env, c *cobra.Command, args *[]string, edit func(*OrderDraft) error) *cobra.Command {
	var draft string
	c.RunE = func(cmd *cobra.Command, a []string) error {
		if args != nil {
			*args = a
		}
		z, root, err := enclaveZone(cmd, env)
		if err != nil {
			return err
		}
		defer z.Close()
		last, err := z.LastOrders(cmd.Context())
		if err != nil {
			return err
		}
		now := env.Clock()
		o := &trust.Orders{Enclave: root.Enclave, Version: 1, Date: later(now, root.Date), Root: root.Version}
		if last != nil {
			*o = trust.Orders{Enclave: root.Enclave, Version: last.Version + 1, Date: later(now, root.Date, last.Date), Root: root.Version, Previous: last.Digest(),
				BreakGlass: slices.Clone(last.BreakGlass), Lost: slices.Clone(last.Lost), Recalls: slices.Clone(last.Recalls),
				Restored: slices.Clone(last.Restored), Settled: slices.Clone(last.Settled), Downgrades: slices.Clone(last.Downgrades),
				Channels: slices.Clone(last.Channels), Excuses: slices.Clone(last.Excuses)}
		}
		name := draft
		if name == "" {
			name = draftName(&ceremony.Draft{Orders: o})
		}
		before, err := readDraft(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case before.Orders == nil || before.Orders.Version != o.Version || before.Orders.Previous != o.Previous || before.Orders.Root != root.Version:
			return trust.Refuse("orders-previous", name, "this draft, %s, does not follow the orders in force under root version %d", before.Subject(), root.Version).WithHint("delete it, or name another file with --draft")
		default:
			if files, err := beside(name); err != nil || len(files) > 0 {
				return errors.Join(err, frame.WithHint(fmt.Errorf("%s has signatures already: %q", name, files), "delete them: whoever signed reads and signs the changed draft again; or name another file with --draft"))
			}
			b := before.Orders
			*o = trust.Orders{Enclave: b.Enclave, Version: b.Version, Date: later(now, b.Date), Root: b.Root, Previous: b.Previous,
				BreakGlass: b.BreakGlass, Lost: b.Lost, Recalls: b.Recalls, Restored: b.Restored, Settled: b.Settled, Downgrades: b.Downgrades,
				Channels: b.Channels, Excuses: b.Excuses}
		}
		od := &OrderDraft{Zone: z, Root: root, Orders: o, Now: o.Date}
		if err := edit(od); err != nil {
			return err
		}
		d, err := ceremony.ParseDraft(o.Text())
		if err != nil {
			return err
		}
		printChanges(env.Stderr, ceremony.OrderChanges(last, d.Orders, now))
		if before == nil {
			err = frame.WriteNew(name, d.Text, 0o644)
		} else {
			err = frame.Replace(name, d.Text, 0o644)
		}
		if err != nil {
			return err
		}
		return printDraft(env, d, name, od.Impact)
	}
	if c.Args == nil {
		c.Args = cobra.NoArgs
	}
	draftFlag(c, &draft, "the draft to go on with or to begin (default orders-N.draft)")
	return c
}

func later(t time.Time, others ...time.Time) time.Time {
	for _, o := range others {
		if o.After(t) {
			t = o
		}
	}
	return t
}

// ReasonFlag adds the reason that every order has.
func ReasonFlag(c *cobra.Command, reason *string) {
	c.Flags().StringVar(reason, "reason", "", "why; it stands in the orders for ever")
}

// CheckReason is the reason as an order has it, or a usage error.
func CheckReason(reason string) error {
	if err := trust.CheckReason(reason); err != nil {
		return frame.Usage("--reason: %v", err)
	}
	return nil
}

func orderSign(env *frame.Env) *cobra.Command {
	s := &signing{
		word: ceremony.Orders,
		long: `Read what a draft of orders changes, and sign it with an officer's key of the context order.

What it adds and takes away against the orders in force is shown, which come from the zone, or else from a copy of its
public/orders/N (--last). Then the draft's fingerprint is to be typed, as it came from whoever made it. The signature is
written to DRAFT.PERSON.sig.`,
		example: "  sallyport-station order sign --key olga.order.key orders-3.draft\n  sallyport order sign --last public/orders/2 --key agent:oscar.order.pub orders-3.draft",
	}
	var last string
	s.before = func(cmd *cobra.Command, d *ceremony.Draft) (*trust.Orders, error) {
		inZone := last == "" && zoneNamed(env)
		if d.Orders.Version == 1 && !inZone {
			return nil, nil
		}
		var o *trust.Orders
		if last != "" {
			note, err := frame.ReadBounded(last, store.MaxPublic)
			if err != nil {
				return nil, err
			}
			text, _, err := trust.SplitNote("orders", note, trust.MaxOrdersSize)
			if err != nil {
				return nil, err
			}
			if o, err = trust.ParseOrders(text); err != nil {
				return nil, err
			}
		} else {
			if !inZone {
				return nil, frame.Usage("nothing to compare the draft with: give --zone DIR, or --last FILE with the orders in force")
			}
			z, root, err := enclaveZone(cmd, env)
			if err != nil {
				return nil, err
			}
			if d.Orders.Enclave != root.Enclave {
				return nil, errors.Join(trust.Refuse("orders-enclave", d.Subject(), "the draft is of enclave %s, the zone of %s", d.Orders.Enclave, root.Enclave), z.Close())
			}
			o, err = z.LastOrders(cmd.Context())
			if err := errors.Join(err, z.Close()); err != nil {
				return nil, err
			}
		}
		// The draft names the digest of what it follows, so nothing else can be shown in its place.
		return o, d.Orders.CheckSuccessor(o)
	}
	s.describeOrders = func(w io.Writer, last *trust.Orders, d *ceremony.Draft) {
		fmt.Fprintf(w, "orders version %d of enclave %s, dated %s\n", d.Orders.Version, d.Orders.Enclave, trust.FormatDate(d.Orders.Date))
		printChanges(w, ceremony.OrderChanges(last, d.Orders, env.Clock()))
	}
	c := signVerb(env, s)
	c.Flags().StringVar(&last, "last", "", "the orders in force, where there is no zone")
	return c
}

func orderAccept(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "accept DRAFT [SIGNATURE...]",
		Short: "put orders in force that enough officers have signed",
		Long: `Put orders in force that enough officers have signed.

The signatures are DRAFT.*.sig and those that are named. If some are missing nothing happens, exit code 4, and it is
said whose. From the next published checkpoint on depot, signer and builders go by the orders.`,
		Example: "  sallyport-station order accept --zone inside orders-3.draft",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, lines, err := signatures(args[0], args[1:])
			if err != nil {
				return err
			}
			if d.Orders == nil {
				return frame.Usage("%s is %s: 'trust accept' puts it in force", args[0], d.Subject())
			}
			z, root, err := enclaveZone(cmd, env)
			if err != nil {
				return err
			}
			defer z.Close()
			tallies, good, err := d.Tallies(root, lines)
			if err != nil {
				return err
			}
			if !ceremony.Complete(tallies) {
				return waiting(d, tallies)
			}
			o, err := z.SetOrders(cmd.Context(), trust.JoinNote(d.Text, good...))
			if err != nil {
				return err
			}
			return printOrders(env, o)
		},
	}
}

func orderShow(env *frame.Env) *cobra.Command {
	var draft string
	c := &cobra.Command{
		Use:     "show [--draft FILE]",
		Short:   "print the orders in force, or a draft and who has signed it",
		Example: "  sallyport-station order show --zone inside\n  sallyport-station order show --draft orders-3.draft",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, root, err := enclaveZone(cmd, env)
			if err != nil {
				return err
			}
			defer z.Close()
			if draft == "" {
				o, err := z.Orders(cmd.Context(), root)
				if err != nil {
					return frame.WithHint(err, "officers sign them again: 'order renew'")
				}
				if o == nil {
					return env.Result(map[string]any{"version": 0}, func(w io.Writer) { fmt.Fprintln(w, "nothing was ordered yet") })
				}
				return printOrders(env, o)
			}
			d, lines, err := signatures(draft, nil)
			if err != nil {
				return err
			}
			if d.Orders == nil {
				return frame.Usage("%s is %s: 'trust show' prints it", draft, d.Subject())
			}
			tallies, _, err := d.Tallies(root, lines)
			if err != nil {
				return err
			}
			v := ordersJSON(env, d.Orders)
			v["tallies"] = tallies
			return env.Result(v, func(w io.Writer) {
				textOrders(env, w, d.Orders)
				printTallies(w, tallies)
			})
		},
	}
	c.Flags().StringVar(&draft, "draft", "", "a draft, with its signatures beside it")
	return c
}

func printOrders(env *frame.Env, o *trust.Orders) error {
	return env.Result(ordersJSON(env, o), func(w io.Writer) { textOrders(env, w, o) })
}

func ordersJSON(env *frame.Env, o *trust.Orders) map[string]any {
	type line = map[string]any
	date := trust.FormatDate
	recalls, lost, glass, settled, downgrades, restored := []line{}, []line{}, []line{}, []line{}, []line{}, []line{}
	for _, r := range o.Recalls {
		recalls = append(recalls, line{"sha256": r.SHA256.String(), "name": r.Name, "date": date(r.Date), "reason": r.Reason})
	}
	for _, l := range o.Lost {
		lost = append(lost, line{"shipment": l.Shipment, "date": date(l.Date), "reason": l.Reason})
	}
	for _, b := range o.BreakGlass {
		glass = append(glass, line{"track": b.Track, "until": date(b.Until), "over": !env.Clock().Before(b.Until), "sha256": b.Item.SHA256.String(), "name": b.Item.Name, "date": date(b.Date), "reason": b.Reason})
	}
	for _, s := range o.Settled {
		settled = append(settled, line{"derivation": s.Derivation, "keyid": s.KeyID, "date": date(s.Date), "reason": s.Reason})
	}
	for _, d := range o.Downgrades {
		downgrades = append(downgrades, line{"channel": d.Channel, "commit": d.Commit, "date": date(d.Date), "reason": d.Reason})
	}
	channels, excuses := []line{}, []line{}
	for _, c := range o.Channels {
		channels = append(channels, line{"name": c.Name, "url": c.URL, "branch": c.Branch, "commit": c.Commit, "signer": c.Signer, "date": date(c.Date), "reason": c.Reason})
	}
	for _, e := range o.Excuses {
		excuses = append(excuses, line{"name": e.Name, "code": e.Code, "channel": e.Channel, "commit": e.Commit, "key": e.Key, "until": date(e.Until), "over": !env.Clock().Before(e.Until), "date": date(e.Date), "reason": e.Reason})
	}
	for _, r := range o.Restored {
		restored = append(restored, line{"size": r.Size, "tree": base64.StdEncoding.EncodeToString(r.Tree[:]), "date": date(r.Date), "reason": r.Reason})
	}
	return line{"enclave": o.Enclave, "version": o.Version, "date": date(o.Date), "root": o.Root, "digest": o.Digest().String(), "fingerprint": trust.Fingerprint(o.Digest()),
		"recalls": recalls, "lost": lost, "break_glass": glass, "settled": settled, "downgrades": downgrades, "channels": channels, "excuses": excuses, "restored": restored}
}

func textOrders(env *frame.Env, w io.Writer, o *trust.Orders) {
	fmt.Fprintf(w, "enclave      %s\norders       version %d, %s, under root version %d\nfingerprint  %s\n", o.Enclave, o.Version, trust.FormatDate(o.Date), o.Root, trust.Fingerprint(o.Digest()))
	for _, c := range ceremony.OrderChanges(nil, o, env.Clock()) {
		fmt.Fprintln(w, c)
	}
}

func orderLost(env *frame.Env) *cobra.Command {
	var reason string
	var args []string
	c := &cobra.Command{
		Use:     "lost --reason TEXT NUMBER...",
		Short:   "draft the order that shipments are lost: they will never be let in",
		Example: "  sallyport-station order lost --reason 'disc destroyed at the checkpoint' 7",
		Args:    cobra.MinimumNArgs(1),
	}
	ReasonFlag(c, &reason)
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if err := CheckReason(reason); err != nil {
			return err
		}
		for _, a := range args {
			n, err := trust.ParseNumber(a, trust.MaxSize)
			if err != nil || n < 1 {
				return frame.Usage("%q is no shipment's number", a)
			}
			var state string
			switch err := d.Zone.Read(c.Context()).QueryRowContext(c.Context(), `SELECT state FROM shipment WHERE number = ?`, n).Scan(&state); {
			case err == nil:
				return trust.Refuse("shipment-here", "shipment "+a, "it is not lost: it came, and is %s", state).WithHint("'review reject' ends a shipment that is not wanted")
			case !isNoRows(err):
				return err
			}
			if _, ok := d.Orders.IsLost(n); !ok {
				d.Orders.Lost = append(d.Orders.Lost, trust.Lost{Shipment: n, Date: d.Now, Reason: reason})
			}
		}
		return nil
	})
}

func orderBreakGlass(env *frame.Env) *cobra.Command {
	var reason, track string
	var hours int
	var args []string
	c := &cobra.Command{
		Use:   "break-glass --track TRACK --hours N --reason TEXT NAME...",
		Short: "draft the order that a track has an item without its reviewers, for some hours",
		Long: `Draft the order that a track has an item without its reviewers, for some hours.

The item must have been imported: it is in quarantine or on another track. The root's policy break-glass says for how many
hours this may be. It ends by itself, and stands in every report until 'order close' takes the line away.`,
		Example: "  sallyport-station order break-glass --track prod --hours 24 --reason 'CVE-2026-1234 is exploited here' 0c0fr0...-openssl-3.0.19.tar.gz",
		Args:    cobra.MinimumNArgs(1),
	}
	ReasonFlag(c, &reason)
	c.Flags().StringVar(&track, "track", "", "the track")
	c.Flags().IntVar(&hours, "hours", 24, "how long")
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if err := CheckReason(reason); err != nil {
			return err
		}
		max, allowed := d.Root.BreakGlass()
		switch {
		case !allowed:
			return trust.Refuse("break-glass", "root", "its policy does not allow it").WithHint("'trust policy break-glass HOURS', by the officers")
		case hours < 1 || hours > max:
			return trust.Refuse("break-glass", "root", "%d hours; the policy allows 1 to %d", hours, max)
		case d.Root.Threshold(track) == 0:
			return frame.Usage("--track %q: the root has no threshold for it", track)
		}
		for _, name := range args {
			it, err := imported(c, d.Zone, name)
			if err != nil {
				return err
			}
			d.Orders.BreakGlass = slices.DeleteFunc(d.Orders.BreakGlass, func(b trust.BreakGlass) bool { return b.Track == track && b.Item == it })
			d.Orders.BreakGlass = append(d.Orders.BreakGlass, trust.BreakGlass{Track: track, Until: d.Now.Add(time.Duration(hours) * time.Hour), Item: it, Date: d.Now, Reason: reason})
		}
		return nil
	})
}

// imported finds an item of a name that came in, with its content in the store. Officers see its digest before they sign.
func imported(c *cobra.Command, z *store.Zone, name string) (trust.Item, error) {
	ctx := c.Context()
	rows, err := z.Read(ctx).QueryContext(ctx, `SELECT DISTINCT sha256, size, kind FROM item WHERE name = ?`, name)
	if err != nil {
		return trust.Item{}, err
	}
	defer rows.Close()
	var found []trust.Item
	for rows.Next() {
		var digest string
		it := trust.Item{Name: name}
		if err := rows.Scan(&digest, &it.Size, &it.Kind); err != nil {
			return trust.Item{}, err
		}
		if it.SHA256, err = trust.ParseDigest(digest); err != nil {
			return trust.Item{}, err
		}
		if size, ok := z.CAS.Has(it.SHA256); ok && size == it.Size {
			found = append(found, it)
		}
	}
	if err := rows.Err(); err != nil {
		return trust.Item{}, err
	}
	switch len(found) {
	case 1:
		return found[0], found[0].Check()
	case 0:
		return trust.Item{}, trust.Refuse("item-unknown", name, "no item of this name was imported, or its content is gone")
	}
	return trust.Item{}, trust.Refuse("item-unknown", name, "%d contents have this name", len(found)).WithHint("reject the shipment that should not have it")
}

func orderClose(env *frame.Env) *cobra.Command {
	var track string
	var args []string
	c := &cobra.Command{
		Use:     "close --track TRACK NAME...",
		Short:   "draft the end of break-glass orders",
		Example: "  sallyport-station order close --track prod 0c0fr0...-openssl-3.0.19.tar.gz",
		Args:    cobra.MinimumNArgs(1),
	}
	c.Flags().StringVar(&track, "track", "", "the track")
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		for _, name := range args {
			n := len(d.Orders.BreakGlass)
			d.Orders.BreakGlass = slices.DeleteFunc(d.Orders.BreakGlass, func(b trust.BreakGlass) bool { return b.Track == track && b.Item.Name == name })
			if len(d.Orders.BreakGlass) == n {
				return fmt.Errorf("no break-glass order for %s on track %q", name, track)
			}
		}
		return nil
	})
}

func orderSettle(env *frame.Env) *cobra.Command {
	var reason string
	var args []string
	c := &cobra.Command{
		Use:     "settle --reason TEXT DERIVATION KEYID",
		Short:   "draft the order that what a builder's key says of a derivation is set aside",
		Example: "  sallyport-station order settle --reason 'bad memory in builder 3, replaced' 9zk1...-hello.drv ben/statement+1f3a92c4",
		Args:    cobra.ExactArgs(2),
	}
	ReasonFlag(c, &reason)
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if err := CheckReason(reason); err != nil {
			return err
		}
		drv, id := strings.TrimPrefix(args[0], "/gnu/store/"), args[1]
		if err := trust.CheckKeyID(id, trust.ContextStatement); err != nil {
			return frame.Usage("KEYID: %v", err)
		}
		d.Orders.Settled = slices.DeleteFunc(d.Orders.Settled, func(s trust.Settled) bool { return s.Derivation == drv && s.KeyID == id })
		d.Orders.Settled = append(d.Orders.Settled, trust.Settled{Derivation: drv, KeyID: id, Date: d.Now, Reason: reason})
		return nil
	})
}

func orderDowngrade(env *frame.Env) *cobra.Command {
	var reason string
	var remove bool
	var args []string
	c := &cobra.Command{
		Use:   "downgrade --reason TEXT CHANNEL COMMIT | downgrade --remove CHANNEL COMMIT",
		Short: "draft the order that a channel's pin may move back to a commit",
		Long: `Draft the order that a channel may move to a commit that does not descend from where it stands: back, or to another line.

With the order, the outside pins that commit ('channel pin --orders'), and gate, approval and promotion take it. It moves nothing by itself, and stays
good until --remove takes it out of the orders. To be rid of a pin that came in already, 'recall' its item: its track is then where it was before.`,
		Example: "  sallyport-station order downgrade --reason 'the update broke the login' guix 9edb3f66fd807b096b48283debdcddccfea34bad\n" +
			"  sallyport-station order downgrade --remove guix 9edb3f66fd807b096b48283debdcddccfea34bad",
		Args: cobra.ExactArgs(2),
	}
	c.Flags().BoolVar(&remove, "remove", false, "the pin may not move there any more")
	ReasonFlag(c, &reason)
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if remove {
			if _, ok := d.Orders.MayDowngrade(args[0], args[1]); !ok {
				return trust.Refuse("downgrade-unknown", args[0], "the orders have no downgrade of it to %.80q", args[1]).WithHint("'order show' shows those that there are")
			}
			d.Orders.Downgrades = slices.DeleteFunc(d.Orders.Downgrades, func(o trust.Downgrade) bool { return o.Channel == args[0] && o.Commit == args[1] })
			return nil
		}
		if err := CheckReason(reason); err != nil {
			return err
		}
		if err := errors.Join(trust.CheckChannel(args[0]), trust.CheckCommit(args[1])); err != nil {
			return frame.Usage("%v", err)
		}
		if _, ok := d.Orders.Channel(args[0]); !ok {
			return unknownChannel(args[0]).WithHint("'order show' shows those that are taken")
		}
		if _, ok := d.Orders.MayDowngrade(args[0], args[1]); !ok {
			d.Orders.Downgrades = append(d.Orders.Downgrades, trust.Downgrade{Channel: args[0], Commit: args[1], Date: d.Now, Reason: reason})
		}
		return nil
	})
}

func orderRestored(env *frame.Env) *cobra.Command {
	var reason string
	var args []string
	c := &cobra.Command{
		Use:     "restored --reason TEXT SIZE TREE",
		Short:   "draft the order that lets the ledger go on from a backup that ends at this size and tree hash",
		Example: "  sallyport-station order restored --reason 'disk failed on the 3rd' 4711 9uyI0s3k...=",
		Args:    cobra.ExactArgs(2),
	}
	ReasonFlag(c, &reason)
	return EditOrders(env, c, &args, func(d *OrderDraft) error {
		if err := CheckReason(reason); err != nil {
			return err
		}
		size, err := trust.ParseNumber(args[0], trust.MaxSize)
		if err != nil || size < 1 {
			return frame.Usage("%q is no size of a ledger", args[0])
		}
		tree, err := base64.StdEncoding.DecodeString(args[1])
		if err != nil || len(tree) != len(trust.Restored{}.Tree) {
			return frame.Usage("%q is no tree hash: want 32 bytes in base64, as a checkpoint has them", args[1])
		}
		d.Orders.Restored = append(d.Orders.Restored, trust.Restored{Size: size, Tree: [32]byte(tree), Date: d.Now, Reason: reason})
		return nil
	})
}

func orderRenew(env *frame.Env) *cobra.Command {
	return EditOrders(env, &cobra.Command{
		Use:     "renew",
		Short:   "draft the same orders again, for officers to sign after the root has changed",
		Example: "  sallyport-station order renew --zone inside",
	}, nil, func(*OrderDraft) error { return nil })
}
