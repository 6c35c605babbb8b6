package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
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
			bad := 0
			add := func(c check) {
				if c.State == "missing" {
					bad++
				}
				checks = append(checks, c)
			}
			if detail, err := confined(cmd.Context(), env); err != nil {
				c := check{"confined reader", "missing", err.Error(), ""}
				var h interface{ Hint() string }
				if errors.As(err, &h) {
					c.Remedy = h.Hint()
				}
				add(c)
			} else {
				add(check{"confined reader", "ok", detail, ""})
			}
			if st, err := os.Stat("/proc/self/ns/user"); err != nil || st == nil {
				add(check{"namespaces", "missing", "this kernel has no user namespaces", "use a kernel with CONFIG_USER_NS"})
			} else {
				add(check{"namespaces", "ok", "present", ""})
			}
			for _, p := range []struct{ name, why string }{
				{"git", "collecting Go modules (outside)"}, {"minisign", "checking a volume by hand"},
			} {
				if path, err := exec.LookPath(p.name); err == nil {
					add(check{"program " + p.name, "ok", path, ""})
				} else {
					add(check{"program " + p.name, "absent", "wanted for " + p.why, "install the package " + p.name})
				}
			}
			if err := env.Result(map[string]any{"checks": checks, "ok": bad == 0}, func(w io.Writer) {
				for _, c := range checks {
					fmt.Fprintf(w, "%-8s %-18s %s\n", c.State, c.Name, c.Detail)
					if c.Remedy != "" {
						fmt.Fprintf(w, "%-8s %-18s remedy: %s\n", "", "", c.Remedy)
					}
				}
			}); err != nil {
				return err
			}
			if bad > 0 {
				return fmt.Errorf("%d things are missing", bad)
			}
			return nil
		},
	}
}

// confined starts the reader child and says what holds it.
func confined(ctx context.Context, env *frame.Env) (string, error) {
	child, err := StartReader(ctx, env)
	if err != nil {
		return "", err
	}
	defer child.Close()
	c := child.Confinement()
	return fmt.Sprintf("Landlock ABI %v, seccomp %v, namespaces %v", c["landlock"], c["seccomp"], c["namespaces"]), nil
}
