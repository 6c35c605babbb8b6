package verbs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

const maxDerivationFile = 64 << 20

func derivationNoun(env *frame.Env) *cobra.Command {
	return noun("derivation", "Guix's descriptions of builds", derivationShow(env), derivationVerify(env))
}

func derivationShow(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "show FILE",
		Short:   "print a derivation",
		Example: "  sallyport derivation show /gnu/store/...-hello-2.12.2.drv\n  sallyport derivation show --json FILE | jq .outputs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := frame.ReadBounded(args[0], maxDerivationFile)
			if err != nil {
				return err
			}
			d, err := derivation.Parse(data)
			if err != nil {
				return derivationRefusal(args[0], err)
			}
			type output struct {
				ID   string `json:"id"`
				Path string `json:"path"`
				Algo string `json:"algorithm,omitempty"`
				Hash string `json:"hash,omitempty"`
			}
			type input struct {
				Path    string   `json:"path"`
				Outputs []string `json:"outputs"`
			}
			out := struct {
				Outputs []output          `json:"outputs"`
				Inputs  []input           `json:"inputs"`
				Sources []string          `json:"sources"`
				System  string            `json:"system"`
				Builder string            `json:"builder"`
				Args    []string          `json:"args"`
				Env     map[string]string `json:"env"`
				Fixed   bool              `json:"fixed_output"`
			}{Outputs: []output{}, Inputs: []input{}, Sources: append([]string{}, d.Sources...), System: d.System, Builder: d.Builder, Args: append([]string{}, d.Args...), Env: map[string]string{}, Fixed: d.IsFixed()}
			for _, o := range d.Outputs {
				out.Outputs = append(out.Outputs, output{o.ID, o.Path, o.HashAlgo, o.Hash})
			}
			for _, i := range d.Inputs {
				out.Inputs = append(out.Inputs, input{i.Path, i.Outputs})
			}
			for _, e := range d.Env {
				out.Env[e.Name] = e.Value
			}
			return env.Result(out, func(w io.Writer) {
				for _, o := range d.Outputs {
					fmt.Fprintf(w, "output   %s %s", o.ID, o.Path)
					if o.Hash != "" {
						fmt.Fprintf(w, " %s %s", o.HashAlgo, o.Hash)
					}
					fmt.Fprintln(w)
				}
				for _, i := range d.Inputs {
					fmt.Fprintf(w, "input    %s %s\n", i.Path, strings.Join(i.Outputs, ","))
				}
				for _, s := range d.Sources {
					fmt.Fprintf(w, "source   %s\n", s)
				}
				fmt.Fprintf(w, "system   %s\nbuilder  %q\n", d.System, d.Builder)
				for _, a := range d.Args {
					fmt.Fprintf(w, "arg      %q\n", a)
				}
				for _, e := range d.Env {
					fmt.Fprintf(w, "env      %s=%q\n", e.Name, e.Value)
				}
			})
		},
	}
}

func derivationRefusal(subject string, err error) error {
	var de *derivation.Error
	if errors.As(err, &de) {
		return trust.Refuse("derivation-"+de.Code, subject, "%s", de.Detail).At(int64(de.Offset))
	}
	return fmt.Errorf("%s: %w", subject, err)
}

func derivationVerify(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "verify PATH...",
		Short:   "recompute the store path and every output path of derivations",
		Long:    "Recompute the store path and every output path of derivations: files, or directories of them. What a derivation builds on must lie beside it.",
		Example: "  sallyport derivation verify /gnu/store\n  sallyport derivation verify vectors/drv-hello/drv",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files := map[string]string{} // store path to file
			for _, a := range args {
				st, err := os.Stat(a)
				if err != nil {
					return err
				}
				if !st.IsDir() {
					files[storepath.Dir+"/"+filepath.Base(a)] = a
					continue
				}
				entries, err := os.ReadDir(a)
				if err != nil {
					return err
				}
				for _, e := range entries {
					if strings.HasSuffix(e.Name(), ".drv") && e.Type().IsRegular() {
						files[storepath.Dir+"/"+e.Name()] = filepath.Join(a, e.Name())
					}
				}
			}
			if len(files) == 0 {
				return errors.New("no derivation found: want files that end in .drv, or directories of them")
			}
			dirs := map[string]bool{}
			for _, f := range files {
				dirs[filepath.Dir(f)] = true
			}
			parsed := map[string]*derivation.Derivation{}
			read := func(p string) ([]byte, error) {
				if f, ok := files[p]; ok {
					return frame.ReadBounded(f, maxDerivationFile)
				}
				for d := range dirs {
					data, err := frame.ReadBounded(filepath.Join(d, filepath.Base(p)), maxDerivationFile)
					if !errors.Is(err, fs.ErrNotExist) {
						return data, err
					}
				}
				return nil, fmt.Errorf("%s: %w", p, fs.ErrNotExist)
			}
			h := derivation.NewHasher(func(p string) (*derivation.Derivation, error) {
				if d := parsed[p]; d != nil {
					return d, nil
				}
				data, err := read(p)
				if err != nil {
					return nil, err
				}
				d, err := derivation.Parse(data)
				parsed[p] = d
				return d, err
			})
			var rs trust.Refusals
			var outputs, fixed int
			for p, f := range files {
				sp, err := storepath.Parse(p)
				if err != nil {
					rs.Add(trust.Refuse("derivation-name", f, "%v", err))
					continue
				}
				data, err := read(p)
				if err != nil {
					return err
				}
				d, err := h.Verify(sp, data)
				if err != nil {
					rs.Add(trust.Refuse("derivation-invalid", f, "%v", err))
					continue
				}
				outputs += len(d.Outputs)
				if d.IsFixed() {
					fixed++
				}
			}
			if err := rs.Err(); err != nil {
				return err
			}
			return env.Result(map[string]int{"derivations": len(files), "outputs": outputs, "fixed": fixed}, func(w io.Writer) {
				fmt.Fprintf(w, "%d derivations, %d outputs, %d fixed: every path recomputed and equal\n", len(files), outputs, fixed)
			})
		},
	}
}
