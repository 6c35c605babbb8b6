package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

// editVerb makes a verb that changes the draft of the next root: the one that lies there, or a new one from the root in force.
func editVerb(env *frame.Env, c *cobra.Command, edit func(r *trust.Root) error) *cobra.Command {
	var draft string
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		z, in, err := enclaveZone(cmd, env)
		if err != nil {
			return err
		}
		defer z.Close()
		next := ceremony.Successor(in, env.Clock())
		name := draft
		if name == "" {
			name = draftName(&ceremony.Draft{Root: next})
		}
		before, err := readDraft(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case before.Root == nil || before.Root.Version != next.Version || before.Root.Previous != in.Digest():
			return trust.Refuse("root-previous", name, "this draft, %s, does not follow the root in force, version %d", before.Subject(), in.Version).WithHint("delete it, or name another file with --draft")
		default:
			next = before.Root
			// A text that somebody signed already is not changed under their signature's name.
			if files, err := beside(name); err != nil || len(files) > 0 {
				return errors.Join(err, frame.WithHint(fmt.Errorf("%s has signatures already: %q", name, files), "delete them: whoever signed reads and signs the changed draft again; or name another file with --draft"))
			}
		}
		if err := edit(next); err != nil {
			return err
		}
		d, err := ceremony.ParseDraft(next.Text())
		if err != nil {
			return err
		}
		if before != nil && d.Digest() == before.Digest() || before == nil && len(ceremony.Changes(in, d.Root)) == 0 {
			return errors.New("nothing to change: it is so already")
		}
		printChanges(env.Stderr, ceremony.Changes(in, d.Root))
		warn(env, in, d.Root)
		out, err := outOfForce(cmd.Context(), z, d.Root)
		if err != nil {
			return err
		}
		for _, s := range out {
			env.Say("WARNING: %s", s)
		}
		// Officers would sign in vain: the zone refuses it.
		if err := z.CheckKeys(in, d.Root); err != nil {
			rs, ok := trust.AsRefusals(err)
			if !ok {
				return err
			}
			for _, r := range rs {
				env.Say("WARNING: this zone will not accept it: %s: %s", r.Subject, r.Detail)
			}
		}
		if before == nil {
			return writeDraft(env, d, name)
		}
		if err := frame.Replace(name, d.Text, 0o644); err != nil {
			return err
		}
		return printDraft(env, d, name, nil)
	}
	c.Args = cobra.MaximumNArgs(0)
	draftFlag(c, &draft, "the draft to go on with or to begin (default root-N.draft)")
	return c
}

func trustEnroll(env *frame.Env) *cobra.Command {
	var person, role, deputyOf, from, until string
	var keys []string
	c := &cobra.Command{
		Use:     "enroll --person PERSON --role ROLE --key FILE.pub ...",
		Short:   "draft a root in which a person has a role and keys",
		Example: "  sallyport-station trust enroll --person dan --role reviewer --key dan.allowlist.key.pub\n  sallyport-station trust enroll --person dan --role reviewer --deputy-of alice --key dan.allowlist.key.pub --until 2027-03-01T00:00:00Z",
	}
	f := c.Flags()
	f.StringVar(&person, "person", "", "who")
	f.StringVar(&role, "role", "", "builder, collector, importer, officer, reviewer or witness; none: a further key of somebody who has one")
	f.StringVar(&deputyOf, "deputy-of", "", "in this role they stand for this person: both count as one")
	f.StringArrayVar(&keys, "key", nil, "a .pub file; once for each key")
	f.StringVar(&from, "from", "", "the keys count from this date on, YYYY-MM-DDTHH:MM:SSZ")
	f.StringVar(&until, "until", "", "the keys count until this date")
	return editVerb(env, c, func(r *trust.Root) error {
		if err := trust.CheckWord(person); err != nil {
			return frame.Usage("--person: %v", err)
		}
		var bounds [2]time.Time
		for i, s := range []string{from, until} {
			if s == "" {
				continue
			}
			var err error
			if bounds[i], err = trust.ParseDate(s); err != nil {
				return frame.Usage("--%s: %v", []string{"from", "until"}[i], err)
			}
		}
		if role == "" && len(keys) == 0 {
			return frame.Usage("nothing to enroll: give --role, --key or both")
		}
		if role != "" {
			as, err := trust.ParseRole(role)
			if err != nil {
				return frame.Usage("--role: %v", err)
			}
			ceremony.Grant(r, person, as)
			if deputyOf != "" {
				r.Deputies = append(r.Deputies, trust.Deputy{Role: as, Deputy: person, Principal: deputyOf})
			}
		} else if deputyOf != "" {
			return frame.Usage("--deputy-of wants --role")
		}
		for _, file := range keys {
			k, err := readPublic(file)
			if err != nil {
				return err
			}
			if k.Owner != person {
				return frame.Usage("%s is a key of %s, not of %s", file, k.Owner, person)
			}
			k.From, k.Until = bounds[0], bounds[1]
			ceremony.Enroll(r, k)
		}
		return nil
	})
}

func trustRevoke(env *frame.Env) *cobra.Command {
	var person, role, key string
	c := &cobra.Command{
		Use:     "revoke --person PERSON [--role ROLE] | --key NAME+HASH8",
		Short:   "draft a root without a person, a role or a key",
		Example: "  sallyport-station trust revoke --key bob/allowlist+9f31c0de\n  sallyport-station trust revoke --person bob --role reviewer\n  sallyport-station trust revoke --person bob",
	}
	f := c.Flags()
	f.StringVar(&person, "person", "", "take every role and key from this person, or one role")
	f.StringVar(&role, "role", "", "only this role")
	f.StringVar(&key, "key", "", "take this key")
	return editVerb(env, c, func(r *trust.Root) error {
		if (person == "") == (key == "") || role != "" && person == "" {
			return frame.Usage("give --person, perhaps with --role, or --key")
		}
		if key != "" {
			k, err := ceremony.FindKey(r, key)
			if err != nil {
				return err
			}
			ceremony.DropKey(r, k)
			return nil
		}
		if role != "" {
			if _, err := trust.ParseRole(role); err != nil {
				return frame.Usage("--role: %v", err)
			}
		}
		if !ceremony.Dismiss(r, person, trust.Role(role)) {
			return fmt.Errorf("%s has nothing of that in root version %d", person, r.Version)
		}
		return nil
	})
}

func trustRotate(env *frame.Env) *cobra.Command {
	var old, pub string
	c := &cobra.Command{
		Use:   "rotate --old NAME+HASH8 --new FILE.pub",
		Short: "draft a root in which one key takes another's place",
		Long: `Draft a root in which one key takes another's place: a person's, the station's, the ledger's, or a track's Guix key.

The station's and the ledger's own keys are made by 'key renew', which prints the line for --new.

A track's clients must authorise the new key before the root is in force, and the signer sign with it afterwards:
docs/operate/ceremony.md has the order in which nobody sees a gap.`,
		Example: "  sallyport-station trust rotate --old alice/allowlist+9f31c0de --new alice2.allowlist.key.pub\n  sallyport-station trust rotate --old 8f0b52c1d2a39e64 --new dev2.narinfo.key.pub",
	}
	f := c.Flags()
	f.StringVar(&old, "old", "", "the key that goes: NAME+HASH8, or the first 16 digits of a Guix key")
	f.StringVar(&pub, "new", "", "the .pub file of the key that comes")
	return editVerb(env, c, func(r *trust.Root) error {
		if old == "" || pub == "" {
			return frame.Usage("give --old and --new")
		}
		gone, err := ceremony.FindKey(r, old)
		if err != nil {
			return err
		}
		come, err := readPublic(pub)
		if err != nil {
			return err
		}
		if come.Context != gone.Context || come.Owner != gone.Owner {
			return frame.Usage("%s is a %s key of %s; it cannot take the place of a %s key of %s", pub, come.Context, come.Owner, gone.Context, gone.Owner)
		}
		ceremony.DropKey(r, gone)
		ceremony.Enroll(r, come)
		return nil
	})
}

func trustPolicy(env *frame.Env) *cobra.Command {
	var drop bool
	var args []string
	c := &cobra.Command{
		Use:   "policy NAME [VALUE]",
		Short: "draft a root with another policy",
		Long: `Draft a root with another policy.

  quorum N           how many builders must agree
  mldsa N            how many collectors must sign manifests with ML-DSA-87 too
  silence DAYS       alarm when no shipment came for so long
  break-glass HOURS  officers may let an item in without reviewers, for at most so long
  cosigned-TRACK N   how many witnesses must have cosigned a list of the track before it is signed for clients
  manifest N         the format of manifests that the outside writes`,
		Example: "  sallyport-station trust policy quorum 3\n  sallyport-station trust policy cosigned-prod 1\n  sallyport-station trust policy --drop break-glass",
	}
	c.Flags().BoolVar(&drop, "drop", false, "take the policy away")
	return positional(editVerb(env, c, func(r *trust.Root) error {
		switch {
		case drop && len(args) == 1:
			delete(r.Policies, args[0])
		case !drop && len(args) == 2:
			r.Policies[args[0]] = args[1]
		default:
			return frame.Usage("want NAME VALUE, or --drop NAME")
		}
		return nil
	}), &args)
}

func trustThreshold(env *frame.Env) *cobra.Command {
	var args []string
	var drop bool
	c := &cobra.Command{
		Use:     "threshold root|order|allowlist/TRACK[/KIND] [N]",
		Short:   "draft a root with another threshold",
		Example: "  sallyport-station trust threshold allowlist/prod 3\n  sallyport-station trust threshold allowlist/prod/derivation 4\n  sallyport-station trust threshold --drop allowlist/prod/derivation",
	}
	c.Flags().BoolVar(&drop, "drop", false, "take the threshold away: of a kind, or of a track that ends")
	return positional(editVerb(env, c, func(r *trust.Root) error {
		switch {
		case drop && len(args) == 1:
			delete(r.Thresholds, args[0])
			return nil
		case drop || len(args) != 2:
			return frame.Usage("want NAME N, or --drop NAME")
		}
		n, err := strconv.Atoi(args[1])
		if err != nil {
			return frame.Usage("%q is no number", args[1])
		}
		r.Thresholds[args[0]] = n
		return nil
	}), &args)
}

func trustExclusive(env *frame.Env) *cobra.Command {
	var drop bool
	var args []string
	c := &cobra.Command{
		Use:     "exclusive ROLE ROLE",
		Short:   "draft a root in which nobody may have both roles",
		Example: "  sallyport-station trust exclusive importer reviewer\n  sallyport-station trust exclusive --drop builder reviewer",
	}
	c.Flags().BoolVar(&drop, "drop", false, "let one person have both again")
	return positional(editVerb(env, c, func(r *trust.Root) error {
		if len(args) != 2 {
			return frame.Usage("want two roles")
		}
		x, err := parseExclusion(args[0] + "," + args[1])
		if err != nil {
			return err
		}
		r.Exclusive = slices.DeleteFunc(r.Exclusive, func(have trust.Exclusion) bool { return have == x })
		if !drop {
			r.Exclusive = append(r.Exclusive, x)
		}
		return nil
	}), &args)
}

// positional lets an edit take arguments.
func positional(c *cobra.Command, args *[]string) *cobra.Command {
	run := c.RunE
	c.Args = cobra.RangeArgs(1, 2)
	c.RunE = func(cmd *cobra.Command, a []string) error {
		*args = a
		return run(cmd, nil)
	}
	return c
}
