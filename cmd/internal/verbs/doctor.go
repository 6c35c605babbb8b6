package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/confine"
)

func doctor(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Short:   "check that this machine can do what Sallyport needs, and name the remedy where it cannot",
		Example: "  sallyport doctor",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			type check struct {
				Name   string `json:"name"`
				State  string `json:"state"` // ok, missing (needed), absent (not needed by everyone)
				Detail string `json:"detail"`
				Remedy string `json:"remedy,omitempty"`
			}
			var checks []check
			ok := true
			add := func(c check) {
				ok = ok && c.State != "missing"
				checks = append(checks, c)
			}
			if detail, err := confined(cmd.Context()); err != nil {
				c := check{"confined reader", "missing", err.Error(), ""}
				var f *confine.FeatureError
				if errors.As(err, &f) {
					c.Detail, c.Remedy = f.Feature+": "+f.Detail, f.Remedy
				}
				add(c)
			} else {
				add(check{"confined reader", "ok", detail, ""})
			}
			for _, p := range []struct{ name, why string }{
				{"git", "collecting Go modules (outside), channels (both sides)"}, {"minisign", "checking a volume by hand"},
			} {
				if path, err := exec.LookPath(p.name); err == nil {
					add(check{"program " + p.name, "ok", path, ""})
				} else {
					add(check{"program " + p.name, "absent", "wanted for " + p.why, "install the package " + p.name})
				}
			}
			if err := env.Result(map[string]any{"checks": checks, "ok": ok}, func(w io.Writer) {
				for _, c := range checks {
					fmt.Fprintf(w, "%-8s %-18s %s\n", c.State, c.Name, c.Detail)
					if c.Remedy != "" {
						fmt.Fprintf(w, "%-8s %-18s remedy: %s\n", "", "", c.Remedy)
					}
				}
			}); err != nil {
				return err
			}
			if !ok {
				return errors.New("something that is needed is missing; the list above says what, and the remedy")
			}
			return nil
		},
	}
}

// confined starts the reader child and says what holds it.
func confined(ctx context.Context) (string, error) {
	child, err := StartReader(ctx)
	if err != nil {
		return "", err
	}
	defer child.Close()
	c := child.Confinement()
	return fmt.Sprintf("Landlock ABI %v, seccomp %v, namespaces %v", c["landlock"], c["seccomp"], c["namespaces"]), nil
}
