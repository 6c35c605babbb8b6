package verbs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

func derivationNoun(env *frame.Env) *cobra.Command {
	return noun("derivation", "Guix's descriptions of builds", derivationShow(env), derivationVerify(env))
}

// outputJSON is an output of a derivation as --json prints it.
type outputJSON struct {
	ID   string `json:"id"`
	Path string `json:"path"`
	Algo string `json:"algorithm,omitempty"`
	Hash string `json:"hash,omitempty"`
}

func outputsJSON(d *derivation.Derivation) []outputJSON {
	outputs := make([]outputJSON, len(d.Outputs))
	for i, o := range d.Outputs {
		outputs[i] = outputJSON{o.ID, o.Path, o.HashAlgo, o.Hash}
	}
	return outputs
}

func derivationShow(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "show FILE",
		Short: "print a derivation",
		Long: "Print a derivation, unverified. FILE may be - for standard input. JSON is UTF-8 and derivations are bytes: where those are not UTF-8, --json puts\n" +
			"U+FFFD for them and says \"lossy\": true.",
		Example: "  sallyport derivation show /gnu/store/...-hello-2.12.2.drv\n  sallyport derivation show --json FILE | jq .outputs",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readAll(cmd.Context(), env, args[0], derivation.MaxSize)
			if err != nil {
				return err
			}
			d, err := derivation.Parse(data)
			if err != nil {
				return judged(args[0], err)
			}
			type input struct {
				Path    string   `json:"path"`
				Outputs []string `json:"outputs"`
			}
			out := struct {
				Outputs []outputJSON      `json:"outputs"`
				Inputs  []input           `json:"inputs"`
				Sources []string          `json:"sources"`
				System  string            `json:"system"`
				Builder string            `json:"builder"`
				Args    []string          `json:"args"`
				Env     map[string]string `json:"env"`
				Fixed   bool              `json:"fixed_output"`
				Lossy   bool              `json:"lossy,omitempty"`
			}{outputsJSON(d), []input{}, append([]string{}, d.Sources...), d.System, d.Builder, append([]string{}, d.Args...), map[string]string{}, d.IsFixed(), !utf8.Valid(data)}
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
				fmt.Fprintf(w, "system   %q\nbuilder  %q\n", d.System, d.Builder)
				for _, a := range d.Args {
					fmt.Fprintf(w, "arg      %q\n", a)
				}
				for _, e := range d.Env {
					fmt.Fprintf(w, "env      %q=%q\n", e.Name, e.Value)
				}
			})
		},
	}
}

// derivations is where a closure is read from: files that were named, then directories.
type derivations struct {
	ctx   context.Context
	files map[string]string // base name to file
	dirs  []string
}

// Open fails when the operator has stopped the program, so that loading a closure ends.
func (d *derivations) Open(base string) (fs.File, error) {
	if d.ctx.Err() != nil {
		return nil, context.Cause(d.ctx)
	}
	if file, ok := d.files[base]; ok {
		return os.Open(file)
	}
	for _, dir := range d.dirs {
		f, err := os.DirFS(dir).Open(base)
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: base, Err: fs.ErrNotExist}
}

// load loads a closure and makes refusals of whatever is wrong with it.
func (d *derivations) load(where string, roots []storepath.Path) (*derivation.Graph, error) {
	g, err := derivation.LoadClosure(d, roots...)
	if err == nil {
		return g, nil
	}
	if d.ctx.Err() != nil {
		return nil, context.Cause(d.ctx) // and not once for each derivation that was still to be read
	}
	return nil, judgedOf(err, func(item string) string {
		switch file, ok := d.files[strings.TrimPrefix(item, storepath.Dir+"/")]; {
		case ok:
			return file
		case item == "":
			return where
		}
		return item
	})
}

// roots reads the names of files as the paths of derivations.
func derivationPaths(files []string) ([]storepath.Path, error) {
	var all []storepath.Path
	var rs trust.Refusals
	for _, f := range files {
		p, err := storepath.ParseBase(filepath.Base(f))
		switch {
		case err != nil:
			rs.Add(trust.Refuse(derivation.CodeName, f, "not the name of a derivation, HASH-NAME.drv: %v", err))
		case !p.IsDerivation():
			rs.Add(trust.Refuse(derivation.CodeName, f, "not the name of a derivation, HASH-NAME.drv"))
		}
		all = append(all, p)
	}
	return all, rs.Err()
}

func derivationVerify(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "verify PATH...",
		Short: "recompute the store path and every output path of derivations",
		Long: "Recompute the store path and every output path of derivations: files, or directories of them. What a derivation builds on must lie beside it, and is\n" +
			"verified, too.",
		Example: "  sallyport derivation verify /gnu/store\n  sallyport derivation verify vectors/drv-hello/drv\n  sallyport derivation verify --json /gnu/store/...-hello-2.12.2.drv | jq .outputs",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			from := &derivations{ctx: cmd.Context(), files: make(map[string]string)}
			add := func(file string) error {
				base := filepath.Base(file)
				if other, twice := from.files[base]; twice {
					return sameFile(other, file)
				}
				from.files[base] = file
				return nil
			}
			var rs trust.Refusals
			dirs := make(map[string]bool)
			for _, a := range args {
				st, err := os.Stat(a)
				if err != nil {
					return err
				}
				if !st.IsDir() {
					dirs[filepath.Dir(a)] = true
					if err := rs.Merge(add(a)); err != nil {
						return err
					}
					continue
				}
				dirs[a] = true
				entries, err := os.ReadDir(a)
				if err != nil {
					return err
				}
				for _, e := range entries {
					if !strings.HasSuffix(e.Name(), ".drv") || e.IsDir() {
						continue
					}
					if err := rs.Merge(add(filepath.Join(a, e.Name()))); err != nil {
						return err
					}
				}
			}
			if len(from.files) == 0 {
				return errors.New("no derivation found: want files that end in .drv, or directories of them")
			}
			from.dirs = slices.Sorted(maps.Keys(dirs))
			roots, err := derivationPaths(slices.Sorted(maps.Values(from.files)))
			if err := errors.Join(rs.Merge(err), rs.Err()); err != nil {
				return err
			}
			g, err := from.load(strings.Join(args, " "), roots)
			if err != nil {
				return err
			}
			outputs, fixed := 0, 0
			for _, p := range roots {
				n, _ := g.Node(p)
				outputs += len(n.Derivation.Outputs)
				if n.Derivation.IsFixed() {
					fixed++
				}
			}
			return env.Result(map[string]int{"derivations": len(roots), "outputs": outputs, "fixed": fixed, "closure": g.Len()}, func(w io.Writer) {
				fmt.Fprintf(w, "%s, %s, %d fixed: every path recomputed and equal", trust.Count(len(roots), "derivation"), trust.Count(outputs, "output"), fixed)
				if more := g.Len() - len(roots); more > 0 {
					fmt.Fprintf(w, "; so are those of %d that they stand on", more)
				}
				fmt.Fprintln(w)
			})
		},
	}
}

// sameFile refuses a second file of one name that holds something else: one of the two cannot have that path.
func sameFile(one, two string) error {
	a, err := frame.ReadBounded(one, derivation.MaxSize)
	if err != nil {
		return err
	}
	b, err := frame.ReadBounded(two, derivation.MaxSize)
	if err != nil {
		return err
	}
	if !bytes.Equal(a, b) {
		return trust.Refuse(derivation.CodeMismatch, two, "it has the name of %s and other bytes", one)
	}
	return nil
}
