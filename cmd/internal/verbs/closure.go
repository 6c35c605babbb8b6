package verbs

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
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
			var roots []storepath.Path
			var rs trust.Refusals
			for _, a := range args {
				p, err := storepath.ParseBase(filepath.Base(a))
				if err != nil {
					rs.Add(trust.Refuse("derivation-name", a, "%v", err))
					continue
				}
				roots = append(roots, p)
			}
			if err := rs.Err(); err != nil {
				return err
			}
			g, err := derivation.LoadClosure(os.DirFS(dir), roots...)
			if err != nil {
				return closureRefusals(dir, err)
			}
			if err := closurePrint(env, g, sources, fixed); err != nil {
				return err
			}
			nfixed := 0
			for range g.Fixed() {
				nfixed++
			}
			env.Say("%d derivations, %d fixed, %d sources: every path recomputed and equal", g.Len(), nfixed, len(g.Sources()))
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
	type output struct {
		ID   string `json:"id"`
		Path string `json:"path"`
		Algo string `json:"algorithm,omitempty"`
		Hash string `json:"hash,omitempty"`
	}
	for n := range g.Nodes() {
		if fixed && !n.Derivation.IsFixed() {
			continue
		}
		outputs := []output{}
		for _, o := range n.Derivation.Outputs {
			outputs = append(outputs, output{o.ID, o.Path, o.HashAlgo, o.Hash})
		}
		err := env.Result(map[string]any{"type": "derivation", "path": n.Path.String(), "sha256": hex.EncodeToString(n.SHA256[:]), "size": n.Size,
			"fixed_output": n.Derivation.IsFixed(), "outputs": outputs}, func(w io.Writer) { fmt.Fprintln(w, n.Path) })
		if err != nil {
			return err
		}
	}
	return nil
}

// closureRefusals turns everything that is wrong with a closure into refusals; what is no judgement stays a failure.
func closureRefusals(dir string, err error) error {
	all := []error{err}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		all = many.Unwrap()
	}
	var rs trust.Refusals
	var failures []error
	for _, err := range all {
		var de *derivation.Error
		if !errors.As(err, &de) {
			failures = append(failures, err)
			continue
		}
		subject := de.Path
		if subject == "" {
			subject = dir
		}
		rs.Add(trust.Refuse(de.Code, subject, "%s", de.Detail).At(max(de.Offset, 0)))
	}
	return errors.Join(append(failures, rs.Err())...)
}
