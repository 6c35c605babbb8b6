// Package frametest runs command lines in tests, as a person at a terminal would, and looks at the code they end with and at what they say.
package frametest

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
)

// An Outcome is how a command line ended.
type Outcome struct {
	Code           int
	Stdout, Stderr string
}

// Run runs a command line of a program called sallyport that has these nouns. Verbs see env, with what it lacks: nothing to be read, and no variables.
func Run(ctx context.Context, env frame.Env, nouns func(*frame.Env) []*cobra.Command, args ...string) Outcome {
	var stdout, stderr bytes.Buffer
	env.Program, env.Stdout, env.Stderr = "sallyport", &stdout, &stderr
	if env.Stdin == nil {
		env.Stdin = strings.NewReader("")
	}
	if env.Getenv == nil {
		env.Getenv = func(string) string { return "" }
	}
	code := frame.Run(ctx, &env, frame.Root(&env, "", "", "", nouns(&env)...), args)
	return Outcome{code, stdout.String(), stderr.String()}
}

// Checker returns what fails the test unless a command line ended with the code, and said all this on whichever output.
func Checker(t *testing.T) func(what string, o Outcome, code int, said ...string) {
	return func(what string, o Outcome, code int, said ...string) {
		t.Helper()
		if o.Code != code {
			t.Errorf("%s: exit code %d, want %d\n%s%s", what, o.Code, code, o.Stdout, o.Stderr)
		}
		for _, s := range said {
			if !strings.Contains(o.Stdout+o.Stderr, s) {
				t.Errorf("%s: not said: %q\n%s%s", what, s, o.Stdout, o.Stderr)
			}
		}
	}
}
