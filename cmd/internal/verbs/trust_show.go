package verbs

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

func trustShow(env *frame.Env) *cobra.Command {
	var draft string
	var version int64
	c := &cobra.Command{
		Use:     "show [--version N | --draft FILE]",
		Short:   "print the root in force, a former one, or a draft and who has signed it",
		Example: "  sallyport-station trust show --zone /srv/sallyport/inside\n  sallyport-station trust show --version 1\n  sallyport-station trust show --draft root-2.draft",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			if draft == "" && version == 0 {
				r, err := z.Root()
				if err != nil {
					return err
				}
				return printRoot(env, r, nil)
			}
			if draft == "" {
				note, err := z.ReadPublic(fmt.Sprintf("root/%d", version))
				if err != nil {
					return err
				}
				text, _, err := trust.SplitNote("root", note, trust.MaxRootSize)
				if err != nil {
					return err
				}
				r, err := trust.ParseRoot(text)
				if err != nil {
					return err
				}
				return printRoot(env, r, nil)
			}
			d, lines, err := signatures(draft, nil)
			if err != nil {
				return err
			}
			if d.Root == nil {
				return frame.Usage("%s is %s: 'order show' prints it", draft, d.Subject())
			}
			var in *trust.Root
			if d.Root.Version > 1 {
				if in, err = z.Root(); err != nil {
					return err
				}
			}
			tallies, _, err := d.Tallies(in, lines)
			if err != nil {
				return err
			}
			v := rootJSON(d.Root, nil)
			v["changes"], v["tallies"] = ceremony.Changes(in, d.Root), tallies
			return env.Result(v, func(w io.Writer) {
				textRoot(w, d.Root)
				fmt.Fprintln(w, "\nchanges:")
				printChanges(w, ceremony.Changes(in, d.Root))
				printTallies(w, tallies)
			})
		},
	}
	c.Flags().StringVar(&draft, "draft", "", "a draft, with its signatures beside it")
	c.Flags().Int64Var(&version, "version", 0, "a former version, as it is published")
	return c
}

func printTallies(w io.Writer, tallies []ceremony.Tally) {
	fmt.Fprintln(w, "\nsignatures:")
	for _, t := range tallies {
		fmt.Fprintf(w, "  by root %d: %d of %d; signed: %s; could sign still: %s\n", t.By, t.Have, t.Want, orNobody(t.Signed), orNobody(t.Missing))
	}
}

func rootJSON(r *trust.Root, out []string) map[string]any {
	roles, keys, deputies, exclusive := []map[string]string{}, []map[string]string{}, []map[string]string{}, [][]string{}
	for _, l := range r.Roles {
		roles = append(roles, map[string]string{"role": string(l.Role), "person": l.Person})
	}
	for _, k := range r.Keys {
		m := map[string]string{"context": string(k.Context), "owner": k.Owner, "key": k.Key}
		if v, err := k.VKey(); err == nil && k.Context != trust.ContextSums {
			m["id"], m["kind"] = v.ID(), string(v.Kind())
		}
		if !k.From.IsZero() {
			m["from"] = trust.FormatDate(k.From)
		}
		if !k.Until.IsZero() {
			m["until"] = trust.FormatDate(k.Until)
		}
		keys = append(keys, m)
	}
	for _, d := range r.Deputies {
		deputies = append(deputies, map[string]string{"role": string(d.Role), "deputy": d.Deputy, "principal": d.Principal})
	}
	for _, x := range r.Exclusive {
		exclusive = append(exclusive, []string{string(x.A), string(x.B)})
	}
	v := map[string]any{
		"enclave": r.Enclave, "version": r.Version, "date": trust.FormatDate(r.Date), "digest": r.Digest().String(), "fingerprint": trust.Fingerprint(r.Digest()),
		"roles": roles, "keys": keys, "deputies": deputies, "exclusive": exclusive, "thresholds": r.Thresholds, "policies": r.Policies,
	}
	if len(out) > 0 {
		v["out_of_force"] = out
	}
	return v
}

// printRoot prints a root; out is what it has put out of force.
func printRoot(env *frame.Env, r *trust.Root, out []string) error {
	return env.Result(rootJSON(r, out), func(w io.Writer) { textRoot(w, r) })
}

func textRoot(w io.Writer, r *trust.Root) {
	fmt.Fprintf(w, "enclave      %s\nroot         version %d, %s\nfingerprint  %s\nsha256       %s\n\n", r.Enclave, r.Version, trust.FormatDate(r.Date), trust.Fingerprint(r.Digest()), r.Digest())
	for _, line := range body(r) {
		fmt.Fprintln(w, line)
	}
}

// body says a root in lines for people: persons with their roles and keys, then the rules.
func body(r *trust.Root) []string {
	var lines []string
	roles := map[string][]string{}
	for _, l := range r.Roles {
		roles[l.Person] = append(roles[l.Person], string(l.Role))
	}
	for _, person := range slices.Sorted(maps.Keys(roles)) {
		slices.Sort(roles[person])
		lines = append(lines, fmt.Sprintf("%-12s %s", person, strings.Join(roles[person], ", ")))
		for _, d := range r.Deputies {
			if d.Deputy == person {
				lines = append(lines, fmt.Sprintf("%-12s   stands for %s as %s", "", d.Principal, d.Role))
			}
		}
		lines = append(lines, keyLines(r, func(k trust.RootKey) bool { return k.Owner == person && k.Context != trust.ContextNarinfo })...)
	}
	for _, track := range r.Tracks() {
		lines = append(lines, "track "+track)
		lines = append(lines, keyLines(r, func(k trust.RootKey) bool { return k.Owner == track && k.Context == trust.ContextNarinfo })...)
	}
	for _, k := range r.Keys {
		if _, known := roles[k.Owner]; !known && k.Context != trust.ContextNarinfo {
			lines = append(lines, fmt.Sprintf("%-12s has a key and no role: it counts for nothing", k.Owner))
		}
	}
	lines = append(lines, "")
	for _, name := range slices.Sorted(maps.Keys(r.Thresholds)) {
		lines = append(lines, fmt.Sprintf("threshold %-24s %d", name, r.Thresholds[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Policies)) {
		lines = append(lines, fmt.Sprintf("policy    %-24s %s", name, r.Policies[name]))
	}
	for _, x := range r.Exclusive {
		lines = append(lines, fmt.Sprintf("nobody may be both %s and %s", x.A, x.B))
	}
	return lines
}

func keyLines(r *trust.Root, of func(trust.RootKey) bool) []string {
	var lines []string
	for _, k := range r.Keys {
		if !of(k) {
			continue
		}
		id := k.Key
		if v, err := k.VKey(); err == nil && k.Context != trust.ContextSums {
			id = v.ID() + " " + string(v.Kind())
		}
		if !k.From.IsZero() {
			id += ", from " + trust.FormatDate(k.From)
		}
		if !k.Until.IsZero() {
			id += ", until " + trust.FormatDate(k.Until)
		}
		lines = append(lines, fmt.Sprintf("%-12s   %-10s %s", "", k.Context, id))
	}
	return lines
}
