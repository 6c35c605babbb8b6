package verbs

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func ledgerNoun(env *frame.Env) *cobra.Command {
	return noun("ledger", "the sealed log of a zone", ledgerVerify(env), ledgerShow(env), ledgerWitness(env), ledgerCosign(env))
}

func ledgerVerify(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "recompute the ledger of a zone, published files and catalog alike",
		Long: "Recompute the ledger of a zone from its entries, and compare the published files and the catalog with it. The auditor's\n" +
			"own program, sallyport-verify, does the same from the published files alone and shares no code with this one.",
		Example: "  sallyport ledger verify --zone /srv/sallyport/inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			var n int64
			if err := z.Verify(cmd.Context(), func(int64, []byte) error { n++; return nil }); err != nil {
				return err
			}
			_, c, err := z.Checkpoint()
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"origin": c.Origin, "size": c.Size, "root": fmt.Sprintf("%x", c.Root[:])}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d entries, root %x: good\n", c.Origin, c.Size, c.Root[:])
			})
		},
	}
}

func ledgerShow(env *frame.Env) *cobra.Command {
	var from int64
	c := &cobra.Command{
		Use:     "show",
		Short:   "list the entries of a ledger",
		Example: "  sallyport ledger show --zone inside\n  sallyport ledger show --zone inside --json | jq -r .kind",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			_, c, err := z.Checkpoint()
			if err != nil {
				return err
			}
			if from < 0 {
				return frame.Usage("--from %d: want an index from 0 up", from)
			}
			for i := from; i < c.Size; i++ {
				leaf, err := z.Entry(cmd.Context(), i)
				if err != nil {
					return err
				}
				e, err := statement.ParseEnvelope(leaf)
				if err != nil {
					return fmt.Errorf("entry %d: %w", i, err)
				}
				s := e.Unverified()
				subjects := []map[string]string{}
				for _, x := range s.Subjects {
					subjects = append(subjects, map[string]string{"name": x.Name, "sha256": x.SHA256.String()})
				}
				err = env.Result(map[string]any{"type": "entry", "index": i, "kind": s.Kind, "key": e.KeyID(), "subjects": subjects, "predicate": s.Predicate}, func(w io.Writer) {
					more := ""
					if n := len(s.Subjects); n > 1 {
						more = fmt.Sprintf(" and %d more", n-1)
					}
					fmt.Fprintf(w, "%5d  %v  %-10s %-32s %s%s\n", i, s.Predicate["time"], s.Kind, e.KeyID(), s.Subjects[0].Name, more)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().Int64Var(&from, "from", 0, "index of the first entry to list")
	return c
}

func ledgerWitness(env *frame.Env) *cobra.Command {
	var keyFile, stateFile, logKey, out string
	c := &cobra.Command{
		Use:   "witness --key FILE --state FILE --log VKEY --out FILE LEDGER-DIR",
		Short: "as a witness: check that a ledger only grew, and cosign its checkpoint",
		Long: "As a witness: check the published ledger in LEDGER-DIR (a copy will do) against what this witness cosigned last, demand that the one contains the\n" +
			"other, and cosign its checkpoint. The new state is durable before the cosignature is written to --out; 'ledger cosign' takes it in.",
		Example: "  sallyport ledger witness --key wilma.witness.key --state wilma.state --log VKEY --out cosigned inside/public/ledger",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if stateFile == "" || logKey == "" || out == "" {
				return frame.Usage("--state, --log and --out are needed")
			}
			log, err := trust.ParseVKey(logKey)
			if err != nil {
				return frame.Usage("--log: %v", err)
			}
			k, err := env.Key(keyFile)
			if err != nil {
				return err
			}
			note, err := store.Witness(stateFile, os.DirFS(args[0]), log, k, env.Clock())
			if err != nil {
				return err
			}
			next, _, err := ledger.OpenCosigned(note, log.Name, log, k.VKey())
			if err != nil {
				return err
			}
			if err := durable.WriteAll(durable.OS{}, filepath.Dir(out), durable.File{Path: out, Data: note, Perm: 0o644}); err != nil {
				return err
			}
			return env.Result(map[string]any{"origin": next.Origin, "size": next.Size, "witness": k.Name(), "file": out}, func(w io.Writer) {
				fmt.Fprintf(w, "%s cosigned %s at size %d\n", k.Name(), next.Origin, next.Size)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key", "", "the witness's key")
	f.StringVar(&stateFile, "state", "", "file in which this witness remembers what it cosigned last")
	f.StringVar(&logKey, "log", "", "the ledger's checkpoint key (vkey), from paper")
	f.StringVar(&out, "out", "", "where to write the cosigned checkpoint")
	return c
}

func ledgerCosign(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "cosign FILE",
		Short:   "take in what a witness cosigned, and publish it",
		Example: "  sallyport-station ledger cosign --zone inside cosigned",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			z, err := env.Zone(ctx)
			if err != nil {
				return err
			}
			defer z.Close()
			note, err := frame.ReadBounded(args[0], ledger.MaxCheckpoint)
			if err != nil {
				return err
			}
			name, c, err := z.AddCosigned(ctx, note)
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"witness": name, "size": c.Size, "file": filepath.Join(z.Dir, "public", "witness", name)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s has cosigned the ledger at size %d\n", name, c.Size)
			})
		},
	}
}
