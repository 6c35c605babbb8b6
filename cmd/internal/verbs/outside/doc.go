// Package outside has the verbs of the low side: what collects, and makes volumes. The enclave's program does not link it.
package outside

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/internal/outside/collect"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// Nouns returns the nouns of the outside. shipment is the noun whose verbs both sides have; the outside adds to it.
func Nouns(env *frame.Env, shipment *cobra.Command) []*cobra.Command {
	shipment.AddCommand(create(env))
	return []*cobra.Command{collectVerb(env), request(env), channelNoun(env)}
}

func request(env *frame.Env) *cobra.Command {
	c := &cobra.Command{Use: "request", Short: "what is wanted", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(&cobra.Command{
		Use:     "check FILE",
		Short:   "check a request and list every fault, without doing anything",
		Example: "  sallyport request check request.toml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := read(args[0])
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"enclave": r.Enclave, "sources": len(r.Source), "derivations": len(r.Derivation), "channels": len(r.Channel)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s, %s, %s for enclave %s\n", args[0], trust.Count(len(r.Source), "source"), trust.Count(len(r.Derivation), "derivation"), trust.Count(len(r.Channel), "channel"), r.Enclave)
			})
		},
	})
	return c
}

func read(file string) (*collect.Request, error) {
	data, err := frame.ReadBounded(file, collect.MaxRequest)
	if err != nil {
		return nil, err
	}
	r, err := collect.ParseRequest(data)
	if err != nil {
		return nil, frame.Usage("%s: %v", file, err)
	}
	return r, nil
}

func collectVerb(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "collect FILE",
		Short:   "bring together what a request asks for, and look into every file",
		Example: "  sallyport collect --zone outside request.toml\n  sallyport collect --zone outside --json request.toml | jq '.outputs[].path'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			r, err := read(args[0])
			if err != nil {
				return err
			}
			z, err := env.Zone(ctx, store.Outside)
			if err != nil {
				return err
			}
			defer z.Close()
			reader, err := verbs.ReaderOptions(z)
			if err != nil {
				return err
			}
			p := env.Progress("collecting", 0)
			defer p.Done()
			c := &collect.Collector{Zone: z, Reader: reader, Clock: env.Clock, Rand: env.Rand, Progress: func(n int64, item string) { p.Note(item); p.Add(n) }}
			base, err := filepath.Abs(filepath.Dir(args[0]))
			if err != nil {
				return err
			}
			out, err := c.Collect(ctx, r, base)
			if err != nil {
				return err
			}
			return env.Result(out, func(w io.Writer) {
				for _, it := range out.Items {
					fmt.Fprintf(w, "%-10s %12d  %s\n", it.Kind, it.Size, it.Name)
				}
				for _, c := range out.Channels {
					basis := "its whole history"
					if c.Basis != "-" {
						basis = "what is new since " + c.Basis
					}
					if c.Sent > 0 {
						basis += fmt.Sprintf("; shipment %d has it already", c.Sent)
					}
					fmt.Fprintf(w, "channel %s at %s, %s authentic: %s\n", c.Channel, c.Commit, trust.Count(c.Commits, "commit"), basis)
					for _, e := range c.Excused {
						fmt.Fprintf(w, "EXCUSED %s\n", e)
					}
				}
				for _, o := range out.Outputs {
					fmt.Fprintf(w, "will build %12s  %s\n", o.ID, o.Path)
				}
				fmt.Fprintf(w, "%s, %s; %s looked at:%s\n", trust.Count(len(out.Items), "item"), frame.Bytes(out.Bytes), trust.Count(out.Files, "file"), verbs.Severities(out.Findings))
				for _, f := range out.Details {
					if f.Severity == "high" || f.Severity == "block" {
						verbs.PrintFinding(w, f.Finding)
					}
				}
			})
		},
	}
}

func create(env *frame.Env) *cobra.Command {
	var keys []string
	var sums, slip string
	c := &cobra.Command{
		Use:   "create --key FILE ... --sums-key FILE --slip FILE DIR",
		Short: "sign and number what was collected, and write it as a volume",
		Long: `Sign and number what was collected, and write it as a volume.

The manifest is signed with each --key: one collector's, or several collectors', and ML-DSA-87 keys beside them, which the root's 'policy mldsa' can demand. A zone
that knows the enclave's root ('trust accept') checks before the shipment gets its number that the enclave would take the manifest.`,
		Example: "  sallyport shipment create --zone outside --key carol.manifest.key --sums-key carol.sums.key --slip slip-1.txt volume-1\n" +
			"  sallyport shipment create --zone outside --key carol.manifest.key --key carol.mldsa.key --sums-key carol.sums.key --slip slip-1.txt volume-1\n" +
			"  sallyport shipment create --zone outside --key agent:carol.manifest.pub --sums-key agent:carol.sums.pub --slip slip-1.txt volume-1",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if slip == "" {
				return frame.Usage("no place for the slip: give --slip FILE; it travels by another way than the volume")
			}
			z, err := env.Zone(ctx, store.Outside)
			if err != nil {
				return err
			}
			defer z.Close()
			root, err := z.Root()
			if err != nil && !errors.Is(err, store.ErrNoRoot) {
				return err
			}
			if len(keys) == 0 {
				return frame.Usage("no key: give --key FILE or --key agent:PUBFILE")
			}
			var signers []trust.Signer
			for _, k := range keys {
				signer, err := env.Key(ctx, k)
				if err != nil {
					return err
				}
				signers = append(signers, signer)
			}
			sk, err := env.Key(ctx, sums)
			if err != nil {
				return err
			}
			p := env.Progress("writing the volume", 0)
			defer p.Done()
			c := &collect.Collector{Zone: z, Root: root, Clock: env.Clock, Progress: func(n int64, item string) { p.Note(item); p.Add(n) }}
			out, err := c.Pack(ctx, args[0], signers, sk)
			if err != nil {
				return err
			}
			if err := frame.WriteNew(slip, out.Slip.Text(), 0o644); err != nil {
				return frame.WithHint(err, "the volume is whole; 'sallyport shipment slip %s' prints its slip again", args[0])
			}
			return env.Result(out, func(w io.Writer) {
				fmt.Fprintf(w, "shipment %d: %s, %s in %s\n\nThe slip, which travels by another way (%s):\n\n%s", out.Number, trust.Count(out.Items, "item"), frame.Bytes(out.Bytes), out.Volume, slip, out.Slip.Text())
			})
		},
	}
	c.Flags().StringArrayVar(&keys, "key", nil, "a collector's key for manifests: a file, or agent:PUBFILE for one that an ssh-agent holds; once for each signature")
	c.Flags().StringVar(&sums, "sums-key", "", "the collector's minisign key for sums: a file, or agent:PUBFILE")
	c.Flags().StringVar(&slip, "slip", "", "where to write the slip")
	return c
}
