package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

func trustNoun(env *frame.Env) *cobra.Command {
	return noun("trust", "the enclave's root: who holds which role and key",
		trustInit(env), trustSign(env), trustAccept(env), trustShow(env),
		trustEnroll(env), trustRevoke(env), trustRotate(env), trustPolicy(env), trustThreshold(env), trustExclusive(env))
}

// maxRootNote bounds a root with its signatures.
const maxRootNote = trust.MaxRootSize + 128<<10

// grants are the flags that say who is who.
type grants struct{ enroll, roles, thresholds, policies, deputies, exclusive []string }

func (g *grants) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&g.enroll, "enroll", nil, "a .pub file to enroll; once for each key")
	f.StringArrayVar(&g.roles, "role", nil, "ROLE=PERSON; roles: builder collector importer officer reviewer witness")
	f.StringArrayVar(&g.deputies, "deputy", nil, "ROLE=DEPUTY:PRINCIPAL: in the role both count as one person")
	f.StringArrayVar(&g.exclusive, "exclusive", nil, "ROLE,ROLE: nobody may have both")
	f.StringArrayVar(&g.thresholds, "threshold", nil, "root=N, order=N, allowlist/TRACK=N or allowlist/TRACK/KIND=N; root and order are 2 if nothing is said")
	f.StringArrayVar(&g.policies, "policy", []string{"quorum=2"}, "NAME=VALUE")
}

// apply writes the flags into a root. What does not fit together is found when the root is parsed.
func (g *grants) apply(r *trust.Root) error {
	for _, f := range g.enroll {
		k, err := readPublic(f)
		if err != nil {
			return err
		}
		ceremony.Enroll(r, k)
	}
	for _, s := range g.roles {
		name, person, ok := strings.Cut(s, "=")
		role, err := trust.ParseRole(name)
		if !ok || err != nil {
			return frame.Usage("--role %q: want ROLE=PERSON, as in reviewer=alice", s)
		}
		ceremony.Grant(r, person, role)
	}
	for _, s := range g.deputies {
		d, err := parseDeputy(s)
		if err != nil {
			return err
		}
		r.Deputies = append(r.Deputies, d)
	}
	for _, s := range g.exclusive {
		x, err := parseExclusion(s)
		if err != nil {
			return err
		}
		r.Exclusive = append(r.Exclusive, x)
	}
	for _, s := range g.thresholds {
		name, n, ok := strings.Cut(s, "=")
		count, err := strconv.Atoi(n)
		if !ok || err != nil {
			return frame.Usage("--threshold %q: want root=N, order=N, allowlist/TRACK=N or allowlist/TRACK/KIND=N", s)
		}
		r.Thresholds[name] = count
	}
	for _, s := range g.policies {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return frame.Usage("--policy %q: want NAME=VALUE, as in quorum=2", s)
		}
		r.Policies[name] = value
	}
	return nil
}

func parseDeputy(s string) (trust.Deputy, error) {
	name, rest, ok := strings.Cut(s, "=")
	deputy, principal, both := strings.Cut(rest, ":")
	role, err := trust.ParseRole(name)
	if !ok || !both || err != nil {
		return trust.Deputy{}, frame.Usage("--deputy %q: want ROLE=DEPUTY:PRINCIPAL, as in reviewer=dan:alice", s)
	}
	return trust.Deputy{Role: role, Deputy: deputy, Principal: principal}, nil
}

// parseExclusion reads ROLE,ROLE in whatever order.
func parseExclusion(s string) (trust.Exclusion, error) {
	one, other, ok := strings.Cut(s, ",")
	a, err := trust.ParseRole(one)
	b, err2 := trust.ParseRole(other)
	if !ok || err != nil || err2 != nil || a == b {
		return trust.Exclusion{}, frame.Usage("%q: want ROLE,ROLE, as in importer,reviewer", s)
	}
	return trust.Exclusion{A: min(a, b), B: max(a, b)}, nil
}

func trustInit(env *frame.Env) *cobra.Command {
	var keys []string
	var draft string
	var g grants
	c := &cobra.Command{
		Use:   "init --enroll FILE.pub ... --role ROLE=PERSON ... --threshold NAME=N ... [--key OFFICER.key ...]",
		Short: "make the first root of an enclave, to be signed by its officers",
		Long: `Make the first root of an enclave.

Without --key the root is written as a draft, which each officer signs where they are ('trust sign') before it is put in
force in the inside zone ('trust accept'). With the keys of enough officers at hand it is signed and in force at once.

Two officers must sign roots and orders unless --threshold says otherwise; have at least three, so that one key can be
lost. The station's own keys are enrolled by themselves. What is printed, the root's fingerprint, is handed over on
paper to everybody who has to check something: builders, hosts, auditors, the outside. See docs/operate/ceremony.md.`,
		Example: "  sallyport-station trust init --draft root-1.draft --enroll olga.root.key.pub --enroll oscar.root.key.pub --enroll otto.root.key.pub ... \\\n" +
			"      --role officer=olga --role officer=oscar --role officer=otto --role reviewer=alice --role reviewer=bob \\\n" +
			"      --threshold root=2 --threshold order=2 --threshold allowlist/dev=2 --policy quorum=2\n" +
			"  sallyport-station trust init --key olga.root.key --key oscar.root.key --enroll ... --role ...",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			z, err := env.Zone(ctx, store.Inside)
			if err != nil {
				return err
			}
			defer z.Close()
			switch have, err := z.Root(); {
			case err == nil:
				return frame.WithHint(fmt.Errorf("the zone has root version %d already", have.Version), "'trust enroll', 'trust revoke' and 'trust rotate' make the next version")
			case !errors.Is(err, store.ErrNoRoot):
				return err
			}
			r := &trust.Root{Enclave: z.Config.Enclave, Version: 1, Date: env.Clock(), Policies: map[string]string{},
				Thresholds: map[string]int{"root": 2, "order": 2}}
			if err := g.apply(r); err != nil {
				return err
			}
			ceremony.Grant(r, trust.Station, trust.RoleStation)
			r.Keys = append(r.Keys,
				trust.RootKey{Context: trust.ContextStatement, Owner: trust.Station, Key: z.StationVKey().String()},
				trust.RootKey{Context: trust.ContextCheckpoint, Owner: trust.Station, Key: z.LedgerVKey().String()})
			d, err := ceremony.ParseDraft(r.Text())
			if err != nil {
				return err
			}
			warn(env, nil, d.Root)
			if len(keys) == 0 {
				return writeDraft(env, d, draft)
			}
			lines := map[string]string{}
			for _, f := range keys {
				k, err := env.Key(ctx, f)
				if err != nil {
					return err
				}
				file, err := d.Sign(k)
				if err != nil {
					return err
				}
				if lines[f], err = d.Line(f, file); err != nil {
					return err
				}
			}
			return accept(ctx, env, z, d, lines, d.Digest())
		},
	}
	g.flags(c)
	c.Flags().StringArrayVar(&keys, "key", nil, "an officer's root key that signs at once; once for each officer")
	draftFlag(c, &draft, "the draft to write (default root-1.draft)")
	return c
}

func draftFlag(c *cobra.Command, draft *string, usage string) {
	c.Flags().StringVar(draft, "draft", "", usage)
}

// warn says what is dangerous in a root.
func warn(env *frame.Env, old, next *trust.Root) {
	for _, c := range ceremony.Changes(old, next) {
		if c.Danger {
			env.Say("WARNING: %s", c.Text)
		}
	}
	if n := len(next.Persons(trust.RoleOfficer)); n <= next.RootThreshold() {
		env.Say("WARNING: all %d officers must sign every root: one lost key, and no root can be made any more", n)
	}
}

// draftName is where a draft lies if nobody says otherwise.
func draftName(d *ceremony.Draft) string {
	if d.Root != nil {
		return fmt.Sprintf("root-%d.draft", d.Root.Version)
	}
	return fmt.Sprintf("orders-%d.draft", d.Orders.Version)
}

// writeDraft writes a draft that is not there yet and says what is to be done with it.
func writeDraft(env *frame.Env, d *ceremony.Draft, name string) error {
	if name == "" {
		name = draftName(d)
	}
	if err := frame.WriteNew(name, d.Text, 0o644); err != nil {
		return frame.WithHint(err, "name another file with --draft")
	}
	return printDraft(env, d, name, nil)
}

func printDraft(env *frame.Env, d *ceremony.Draft, name string, more map[string]any) error {
	noun := map[bool]string{true: "trust", false: "order"}[d.Root != nil]
	v := map[string]any{"draft": name, "document": d.Subject(), "digest": d.Digest().String(), "fingerprint": trust.Fingerprint(d.Digest())}
	maps.Copy(v, more)
	return env.Result(v, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s\nfingerprint  %s\n\nnext: each officer runs  %s %s sign --key FILE %s\n      then            %s %s accept %s\n",
			name, d.Subject(), trust.Fingerprint(d.Digest()), env.Program, noun, name, env.Program, noun, name)
	})
}

// readDraft reads a draft.
func readDraft(name string) (*ceremony.Draft, error) {
	text, err := frame.ReadBounded(name, ceremony.MaxDraft)
	if err != nil {
		return nil, err
	}
	d, err := ceremony.ParseDraft(text)
	if err != nil {
		return nil, err
	}
	return d, nil
}

func trustAccept(env *frame.Env) *cobra.Command {
	var fingerprint string
	c := &cobra.Command{
		Use:   "accept [--fingerprint FINGERPRINT] FILE [SIGNATURE...]",
		Short: "put a root in force: a draft with enough signatures, or a signed root from another zone",
		Long: `Put a root in force in this zone.

FILE is a draft, whose signatures are FILE.*.sig and those that are named; or a root that is signed already, as it lies
below public/root of another zone. Version 1 needs the fingerprint that came on paper. If signatures are missing
nothing happens, exit code 4, and it is said whose.`,
		Example: "  sallyport-station trust accept --zone inside --fingerprint mfrg-gzdf-mzta-... root-1.draft\n  sallyport-station trust accept --zone inside root-2.draft\n" +
			"  sallyport trust accept --zone outside --fingerprint mfrg-gzdf-mzta-... root-1",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var pin trust.Pinned
			if fingerprint != "" {
				p, err := trust.ParsePin(fingerprint)
				if err != nil {
					return frame.Usage("--fingerprint: %v", err)
				}
				pin = p
			}
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			file, err := frame.ReadBounded(args[0], maxRootNote)
			if err != nil {
				return err
			}
			if strings.Contains(string(file), "\n\n") {
				if len(args) > 1 {
					return frame.Usage("%s is signed already; signatures belong to a draft", args[0])
				}
				return inForce(cmd.Context(), env, z, file, pin)
			}
			d, lines, err := signatures(args[0], args[1:])
			if err != nil {
				return err
			}
			if d.Root == nil {
				return frame.Usage("%s is %s: 'order accept' puts it in force", args[0], d.Subject())
			}
			return accept(cmd.Context(), env, z, d, lines, pin)
		},
	}
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "of version 1, from paper: 8 groups of 4, or 64 hexadecimal digits")
	return c
}

// signatures reads a draft and the signature files beside it, and those that are named.
func signatures(draft string, more []string) (*ceremony.Draft, map[string]string, error) {
	d, err := readDraft(draft)
	if err != nil {
		return nil, nil, err
	}
	files, err := beside(draft)
	if err != nil {
		return nil, nil, err
	}
	lines := map[string]string{}
	var rs trust.Refusals
	for _, f := range append(files, more...) {
		data, err := frame.ReadBounded(f, ceremony.MaxSignatureFile)
		if err != nil {
			return nil, nil, err
		}
		line, err := d.Line(f, data)
		if err := rs.Merge(err); err != nil {
			return nil, nil, err
		}
		lines[f] = line
	}
	return d, lines, rs.Err()
}

// accept puts a draft of a root in force if enough officers have signed.
func accept(ctx context.Context, env *frame.Env, z *store.Zone, d *ceremony.Draft, lines map[string]string, pin trust.Pinned) error {
	old, err := z.Root()
	if errors.Is(err, store.ErrNoRoot) {
		old, err = nil, nil
	}
	if err != nil {
		return err
	}
	switch {
	case old == nil && d.Root.Version != 1:
		return trust.Refuse("root-version", d.Subject(), "the zone has no root yet").WithHint("take version 1 first, with the fingerprint from paper")
	case old != nil && d.Root.Version == 1 || old != nil && d.Digest() == old.Digest():
		old = nil // it is in force already, or refused below
	}
	tallies, good, err := d.Tallies(old, lines)
	if err != nil {
		return err
	}
	if !ceremony.Complete(tallies) {
		return waiting(d, tallies)
	}
	return inForce(ctx, env, z, trust.JoinNote(d.Text, good...), pin)
}

// waiting says who has to sign still.
func waiting(d *ceremony.Draft, tallies []ceremony.Tally) error {
	var parts []string
	for _, t := range tallies {
		parts = append(parts, fmt.Sprintf("by root %d: %d of %d officers (%s); could sign still: %s", t.By, t.Have, t.Want, orNobody(t.Signed), orNobody(t.Missing)))
	}
	slices.Sort(parts)
	return &frame.WaitingError{Text: d.Subject() + " waits for signatures: " + strings.Join(slices.Compact(parts), "; "), Hint: "copy the draft to them, have it signed, bring the .sig files back, and run this again"}
}

func orNobody(persons []string) string {
	if len(persons) == 0 {
		return "nobody"
	}
	return strings.Join(persons, ", ")
}

// inForce takes a signed root into the zone, and says what it puts out of force.
func inForce(ctx context.Context, env *frame.Env, z *store.Zone, note []byte, pin trust.Pinned) error {
	r, err := z.SetRoot(ctx, note, pin)
	if err != nil {
		return err
	}
	out, err := outOfForce(ctx, z, r)
	if err != nil {
		return err
	}
	for _, s := range out {
		env.Say("WARNING: %s", s)
	}
	return printRoot(env, r, out)
}

// outOfForce says which lists do not stand under a root, which may be a draft.
func outOfForce(ctx context.Context, z *store.Zone, r *trust.Root) ([]string, error) {
	if z.Config.Kind != store.Inside {
		return nil, nil
	}
	var out []string
	say := func(what, remedy string, note []byte) error {
		if note == nil {
			return nil
		}
		ok, persons, err := ceremony.Stands(note, r)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if !ok {
			out = append(out, fmt.Sprintf("under root version %d %s is out of force (of its signers count: %s): %s", r.Version, what, orNobody(persons), remedy))
		}
		return nil
	}
	for _, track := range allTracks(r) {
		note, err := z.Allowlist(ctx, track)
		if err == nil {
			err = say("the allowlist of track "+track, "nothing of it is served until reviewers sign it again, 'review resign --track "+track+"'", note)
		}
		if err != nil {
			return nil, err
		}
	}
	note, err := z.OrdersNote(ctx)
	if err != nil {
		return nil, err
	}
	return out, say("the officers' orders", "recalls do not count and nothing is served until officers sign them again, 'order draft renew'", note)
}

// allTracks returns the tracks for which the root has a threshold.
func allTracks(r *trust.Root) []string {
	var tracks []string
	for name := range r.Thresholds {
		if track, ok := strings.CutPrefix(name, "allowlist/"); ok && !strings.Contains(track, "/") {
			tracks = append(tracks, track)
		}
	}
	slices.Sort(tracks)
	return tracks
}

// OpenRoots opens a chain of root notes that lie as files 1, 2, ... in a directory, or one root file, from the fingerprint on paper.
func OpenRoots(path, fingerprint string) (*trust.Root, error) {
	pin, err := trust.ParsePin(fingerprint)
	if err != nil {
		return nil, frame.Usage("--fingerprint: %v", err)
	}
	chain, err := rootChain(path, pin)
	if err != nil {
		return nil, err
	}
	return chain[len(chain)-1], nil
}

// rootChain is OpenRoots that returns every version.
func rootChain(path string, pin trust.Pinned) ([]*trust.Root, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	files := []string{path}
	if st.IsDir() {
		files = nil
		for n := 1; ; n++ {
			f := fmt.Sprintf("%s/%d", path, n)
			if _, err := os.Stat(f); err != nil {
				break
			}
			files = append(files, f)
		}
	}
	var chain []*trust.Root
	for _, f := range files {
		note, err := frame.ReadBounded(f, maxRootNote)
		if err != nil {
			return nil, err
		}
		var r *trust.Root
		if len(chain) == 0 {
			r, err = trust.OpenRoot(note, pin)
		} else {
			r, err = chain[len(chain)-1].Next(note)
		}
		if err != nil {
			return nil, err
		}
		chain = append(chain, r)
	}
	if len(chain) == 0 {
		return nil, fmt.Errorf("%s: there is no root in it", path)
	}
	return chain, nil
}
