package verbs

import (
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/derivation"
	"sallyport/internal/trust"
)

func derivationClosure(env *frame.Env) *cobra.Command {
	var dir string
	var sources, fixed bool
	c := &cobra.Command{
		Use:   "closure DERIVATION...",
		Short: "list all that derivations stand on, every path recomputed",
		Long: "List the derivations that the given ones stand on and themselves, what is needed before what needs it. Each is read from the directory\n" +
			"of the first (or --store), and its own path and those of its outputs are recomputed: a closure with one wrong path is refused.",
		Example: "  sallyport derivation closure /gnu/store/...-hello-2.12.2.drv\n  sallyport derivation closure --sources FILE   # items that no derivation makes\n" +
			"  sallyport derivation closure --json FILE | jq -r 'select(.fixed_output) | .outputs[].path'",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sources && fixed {
				return frame.Usage("--sources and --fixed exclude each other")
			}
			if dir == "" {
				dir = filepath.Dir(args[0])
			}
			roots, err := derivationPaths(args)
			if err != nil {
				return err
			}
			from := &derivations{ctx: cmd.Context(), dirs: []string{dir}}
			g, err := from.load(dir, roots)
			if err != nil {
				return err
			}
			if err := closurePrint(env, g, sources, fixed); err != nil {
				return err
			}
			nfixed := 0
			for range g.Fixed() {
				nfixed++
			}
			env.Say("%s, %d fixed, %s: every path recomputed and equal", trust.Count(g.Len(), "derivation"), nfixed, trust.Count(len(g.Sources()), "source"))
			return nil
		},
	}
	c.Flags().StringVar(&dir, "store", "", "directory that holds the derivations (default that of the first)")
	c.Flags().BoolVar(&sources, "sources", false, "list instead the items that no derivation makes")
	c.Flags().BoolVar(&fixed, "fixed", false, "list only the derivations whose output's hash is known")
	return c
}

func closurePrint(env *frame.Env, g *derivation.Graph, sources, fixed bool) error {
	if sources {
		for _, s := range g.Sources() {
			if err := env.Result(map[string]any{"type": "source", "path": s.String()}, func(w io.Writer) { fmt.Fprintln(w, s) }); err != nil {
				return err
			}
		}
		return nil
	}
	for n := range g.Nodes() {
		if fixed && !n.Derivation.IsFixed() {
			continue
		}
		err := env.Result(map[string]any{"type": "derivation", "path": n.Path.String(), "sha256": hex.EncodeToString(n.SHA256[:]), "size": n.Size,
			"fixed_output": n.Derivation.IsFixed(), "outputs": outputsJSON(n.Derivation)}, func(w io.Writer) { fmt.Fprintln(w, n.Path) })
		if err != nil {
			return err
		}
	}
	return nil
}
