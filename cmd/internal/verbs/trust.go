package verbs

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

func trustNoun(env *frame.Env) *cobra.Command {
	return noun("trust", "the enclave's root: who holds which role and key", trustInit(env), trustAccept(env), trustShow(env))
}

func trustInit(env *frame.Env) *cobra.Command {
	var keys, enroll, roles, thresholds, policies []string
	c := &cobra.Command{
		Use:   "init --key OFFICER.key --enroll FILE.pub ... --role ROLE=PERSON ... --threshold NAME=N ...",
		Short: "make and sign the first root of an enclave, and put it in force in its zone",
		Long: `Make and sign the first root of an enclave, and put it in force in its inside zone.

The station's own keys are enrolled by themselves. What is printed, the root's fingerprint, is handed over on paper to
everybody who has to check something: builders, auditors, the outside.`,
		Example: "  sallyport-station trust init --key olga.root.key --enroll olga.root.key.pub --enroll alice.allowlist.key.pub \\\n" +
			"      --role officer=olga --role reviewer=alice --role reviewer=bob \\\n      --threshold root=1 --threshold allowlist/dev=2 --policy quorum=2",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			z, err := env.Zone(ctx, store.Inside)
			if err != nil {
				return err
			}
			defer z.Close()
			r := &trust.Root{Enclave: z.Config.Enclave, Version: 1, Date: env.Clock(), Thresholds: map[string]int{}, Policies: map[string]string{}}
			for _, f := range enroll {
				k, err := readPublic(f)
				if err != nil {
					return err
				}
				r.Keys = append(r.Keys, k)
			}
			r.Keys = append(r.Keys,
				trust.RootKey{Context: trust.ContextStatement, Owner: trust.Station, Key: z.StationVKey().String()},
				trust.RootKey{Context: trust.ContextCheckpoint, Owner: trust.Station, Key: z.LedgerVKey().String()})
			r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleStation, Person: trust.Station})
			for _, s := range roles {
				name, person, ok := strings.Cut(s, "=")
				role, err := trust.ParseRole(name)
				if !ok || err != nil {
					return frame.Usage("--role %q: want ROLE=PERSON, as in reviewer=alice", s)
				}
				r.Roles = append(r.Roles, trust.RoleLine{Role: role, Person: person})
			}
			for _, s := range thresholds {
				name, n, ok := strings.Cut(s, "=")
				count, err := strconv.Atoi(n)
				if !ok || err != nil {
					return frame.Usage("--threshold %q: want root=N or allowlist/TRACK=N", s)
				}
				r.Thresholds[name] = count
			}
			for _, s := range policies {
				name, value, ok := strings.Cut(s, "=")
				if !ok {
					return frame.Usage("--policy %q: want NAME=VALUE, as in quorum=2", s)
				}
				r.Policies[name] = value
			}
			for name, n := range r.Thresholds {
				if n == 1 {
					env.Say("WARNING: threshold %s is 1: one person, or one stolen key, is enough", name)
				}
			}
			text := r.Text()
			if _, err := trust.ParseRoot(text); err != nil {
				return err
			}
			var signers []trust.Signer
			for _, f := range keys {
				k, err := env.Key(f)
				if err != nil {
					return err
				}
				signers = append(signers, k)
			}
			note, err := trust.SignNote(text, signers...)
			if err != nil {
				return err
			}
			if _, err := z.SetRoot(ctx, note, trust.Sum(text)); err != nil {
				return err
			}
			return printRoot(env, r, trust.Sum(text))
		},
	}
	f := c.Flags()
	f.StringArrayVar(&keys, "key", nil, "an officer's root key that signs; once for each officer")
	f.StringArrayVar(&enroll, "enroll", nil, "a .pub file to enroll; once for each key")
	f.StringArrayVar(&roles, "role", nil, "ROLE=PERSON; roles: builder collector importer officer reviewer witness")
	f.StringArrayVar(&thresholds, "threshold", []string{}, "root=N or allowlist/TRACK=N")
	f.StringArrayVar(&policies, "policy", []string{"quorum=2"}, "NAME=VALUE")
	return c
}

func trustAccept(env *frame.Env) *cobra.Command {
	var fingerprint string
	c := &cobra.Command{
		Use:     "accept --fingerprint DIGEST FILE",
		Short:   "take an enclave's first root into another zone, by the fingerprint that came on paper",
		Example: "  sallyport trust accept --zone outside --fingerprint 5f3c... root-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			pin, err := trust.ParseDigest(fingerprint)
			if err != nil {
				return frame.Usage("--fingerprint: %v", err)
			}
			note, err := frame.ReadBounded(args[0], trust.MaxRootSize+(128<<10))
			if err != nil {
				return err
			}
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			r, err := z.SetRoot(cmd.Context(), note, pin)
			if err != nil {
				return err
			}
			return printRoot(env, r, r.Digest())
		},
	}
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "the root's digest, from paper")
	return c
}

func trustShow(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "print the root in force",
		Example: "  sallyport-station trust show --zone /srv/sallyport/inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			r, err := z.Root()
			if err != nil {
				return err
			}
			return printRoot(env, r, r.Digest())
		},
	}
}

func printRoot(env *frame.Env, r *trust.Root, digest trust.Digest) error {
	var roles []map[string]string
	for _, l := range r.Roles {
		roles = append(roles, map[string]string{"role": string(l.Role), "person": l.Person})
	}
	out := map[string]any{"enclave": r.Enclave, "version": r.Version, "fingerprint": digest.String(), "roles": roles, "thresholds": r.Thresholds, "policies": r.Policies}
	return env.Result(out, func(w io.Writer) {
		fmt.Fprintf(w, "enclave      %s\nroot         version %d\nfingerprint  %s\n", r.Enclave, r.Version, digest)
		slices.SortFunc(r.Roles, func(a, b trust.RoleLine) int {
			return strings.Compare(string(a.Role)+a.Person, string(b.Role)+b.Person)
		})
		for _, l := range r.Roles {
			fmt.Fprintf(w, "%-12s %s\n", l.Role, l.Person)
		}
	})
}

// OpenRoots opens a chain of root notes that lie as files 1, 2, ... in a directory, or one root file, from the digest on paper.
func OpenRoots(path, fingerprint string) (*trust.Root, error) {
	pin, err := trust.ParseDigest(fingerprint)
	if err != nil {
		return nil, frame.Usage("--fingerprint: %v", err)
	}
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
	var chain [][]byte
	for _, f := range files {
		note, err := frame.ReadBounded(f, trust.MaxRootSize+(128<<10))
		if err != nil {
			return nil, err
		}
		chain = append(chain, note)
	}
	return trust.OpenChain(chain, pin)
}
