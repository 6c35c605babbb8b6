package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/nar"
	"sallyport/internal/confine"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// ReaderOptions finds the reader child: where reader.path of the zone says, else beside the running program. zone may be nil.
func ReaderOptions(zone *store.Zone) (confine.Options, error) {
	var path string
	if zone != nil {
		path = zone.Config.Reader.Path
	}
	if path == "" {
		var err error
		if path, err = confine.Beside(); err != nil {
			return confine.Options{}, err
		}
	}
	path, err := filepath.Abs(path)
	return confine.Options{Path: path}, err
}

// StartReader starts the reader child.
func StartReader(ctx context.Context) (*confine.Child, error) {
	o, err := ReaderOptions(nil)
	if err != nil {
		return nil, err
	}
	return confine.Start(ctx, o)
}

func inspect(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "inspect PATH...",
		Short:   "look into every file of trees or files, in the confined reader, and list what a reviewer should know",
		Example: "  sallyport inspect ./hello-2.12\n  sallyport inspect --json ./hello-2.12 | jq 'select(.severity == \"high\")'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			child, err := StartReader(cmd.Context())
			if err != nil {
				return err
			}
			defer child.Close()
			var rs trust.Refusals
			for _, a := range args {
				r, err := inspectOne(cmd.Context(), env, child, a)
				if err != nil {
					return fmt.Errorf("%s: %w", a, err)
				}
				for _, x := range r.Refusals {
					rs.Add(trust.Refuse(x.Code, a, "%s", x.Detail).At(x.Offset))
				}
				for _, f := range r.Findings {
					if f.Severity == confine.Block {
						rs.Add(trust.Refuse("inspection-block", a, "%s in %q (%d times)", f.Rule, f.Place, f.Count))
					}
				}
			}
			return rs.Err()
		},
	}
}

func inspectOne(ctx context.Context, env *frame.Env, child *confine.Child, path string) (*confine.Report, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(abs))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// The reader wants the size first: the tree is archived twice, once to nowhere.
	var size counting
	if err := nar.Dump(&size, root.FS(), filepath.Base(abs)); err != nil {
		return nil, err
	}
	p := env.Progress("inspecting "+path, int64(size))
	defer p.Done()
	pr, pw := io.Pipe()
	go func() {
		pw.CloseWithError(nar.Dump(io.MultiWriter(pw, progressWriter{p}), root.FS(), filepath.Base(abs)))
	}()
	r, err := child.Judge(ctx, confine.Request{Kind: confine.KindNar, Name: filepath.Base(abs), Size: int64(size)}, pr)
	pr.CloseWithError(errors.New("the reader is done"))
	if err != nil {
		return nil, err
	}
	for _, f := range r.Findings {
		err := env.Result(struct {
			Type string `json:"type"`
			Item string `json:"item"`
			confine.Finding
		}{"finding", path, f}, func(w io.Writer) { PrintFinding(w, f) })
		if err != nil {
			return nil, err
		}
	}
	return r, env.Result(map[string]any{"type": "summary", "path": path, "files": r.Files, "bytes": r.Bytes, "confinement": child.Confinement()}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s looked at\n", path, trust.Count(r.Files, "file"), frame.Bytes(r.Bytes))
	})
}

// PrintFinding prints one finding for people.
func PrintFinding(w io.Writer, f confine.Finding) {
	place := f.Place
	if place == "" {
		place = "."
	}
	fmt.Fprintf(w, "%-6s %-28s %5d  %s", f.Severity, f.Rule, f.Count, place)
	if len(f.Examples) > 0 {
		fmt.Fprintf(w, "  (%s)", f.Examples[0])
	}
	fmt.Fprintln(w)
}

type counting int64

func (c *counting) Write(p []byte) (int, error) { *c += counting(len(p)); return len(p), nil }

type progressWriter struct{ p *frame.Progress }

func (w progressWriter) Write(p []byte) (int, error) { w.p.Add(int64(len(p))); return len(p), nil }
