// Package frame is what every verb of Sallyport stands on: the world a verb may touch, the way it prints, and the one
// place where errors become exit codes.
//
// # What goes where
//
// Results go to standard output, everything else to standard error as "NAME: ...", with a "hint:" line wherever the
// remedy is known. With --json a result is one object, or one object a line with a "type" member. Progress is drawn on a
// terminal and is plain lines elsewhere. Nothing binary is ever written to a terminal.
//
// # Exit codes
//
//	0    done
//	1    failed: disk, network, a missing program
//	2    usage: the command line is wrong
//	3    refused: the input was judged and is not let in; every reason is listed
//	4    waiting for approval: nothing is wrong, but persons have to act first
//	130  interrupted
//
// Scripts treat any other code as 1.
package frame

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/internal/trust"
)

// The exit codes of every program of the house.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitWaiting     = 4
	ExitInterrupted = 130
)

// Env is the world as a verb sees it. Mains fill it in; tests hand in their own.
type Env struct {
	Program string // how the program is called in messages
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Clock   func() time.Time
	Rand    io.Reader
	Getenv  func(string) string

	JSON    bool
	ZoneDir string
	Quiet   bool
}

// Log returns the operator's log: warnings and worse, to standard error. It is never the audit record, which is the ledger.
func (e *Env) Log() *slog.Logger {
	return slog.New(slog.NewTextHandler(e.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Result prints a verb's result: v as one JSON object with --json, else whatever text writes.
func (e *Env) Result(v any, text func(w io.Writer)) error {
	if !e.JSON {
		w := &remembering{w: e.Stdout}
		text(w)
		return w.err
	}
	enc := json.NewEncoder(e.Stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// A remembering writer keeps the first failure, so that a result that was not written out is no success, and writes nothing after it.
type remembering struct {
	w   io.Writer
	err error
}

func (r *remembering) Write(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.w.Write(b)
	r.err = err
	return n, err
}

// Say prints one line of explanation to standard error.
func (e *Env) Say(format string, args ...any) {
	if !e.Quiet {
		fmt.Fprintf(e.Stderr, "%s: %s\n", e.Program, fmt.Sprintf(format, args...))
	}
}

// UsageError marks an error as the caller's: exit code 2.
type UsageError struct{ Text string }

func (e *UsageError) Error() string { return e.Text }

// Usage makes a UsageError.
func Usage(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// WaitingError says that nothing is wrong but persons have to act first: exit code 4.
type WaitingError struct{ Text, Hint string }

func (e *WaitingError) Error() string { return e.Text }

// HintError carries a remedy beside an error.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }
func (e *HintError) Unwrap() error { return e.Err }

// WithHint adds a remedy to err; nil stays nil.
func WithHint(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &HintError{err, fmt.Sprintf(format, args...)}
}

// refusals finds every refusal in err, however it is wrapped.
func refusals(err error) trust.Refusals {
	rs, _ := trust.AsRefusals(err)
	return rs
}

// rest returns what was joined to refusals and is none, such as a failure to clean up behind them; nil if there is nothing.
func rest(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if _, whole := err.(trust.Refusals); whole || !ok {
		if err == nil || len(refusals(err)) > 0 {
			return nil
		}
		return err
	}
	var others []error
	for _, e := range joined.Unwrap() {
		others = append(others, rest(e))
	}
	return errors.Join(others...)
}

// Code maps an error to its exit code.
func Code(err error) int {
	var usage *UsageError
	var waiting *WaitingError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &usage):
		return ExitUsage
	case len(refusals(err)) > 0:
		return ExitRefused
	case errors.As(err, &waiting):
		return ExitWaiting
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	return ExitFailed
}

// report prints err as text and, with --json, as one object on standard output, and returns the exit code.
func (e *Env) report(err error) int {
	code := Code(err)
	if err == nil {
		return code
	}
	kind := map[int]string{ExitUsage: "usage", ExitRefused: "refused", ExitWaiting: "waiting", ExitInterrupted: "interrupted"}[code]
	if kind == "" {
		kind = "failed"
	}
	rs := refusals(err)
	if e.JSON {
		type reason struct {
			Code    string `json:"code"`
			Subject string `json:"subject"`
			Detail  string `json:"detail"`
			Offset  int64  `json:"offset,omitempty"`
			Hint    string `json:"hint,omitempty"`
		}
		out := struct {
			Type    string   `json:"type"`
			Error   string   `json:"error"`
			Reasons []reason `json:"reasons,omitempty"`
		}{Type: kind, Error: err.Error()}
		for _, r := range rs {
			out.Reasons = append(out.Reasons, reason{r.Code, r.Subject, r.Detail, r.Offset, r.Hint})
		}
		enc := json.NewEncoder(e.Stdout)
		enc.SetEscapeHTML(false)
		if writeErr := enc.Encode(out); writeErr != nil && writeErr.Error() != err.Error() {
			fmt.Fprintf(e.Stderr, "%s: %v\n", e.Program, writeErr)
		}
	}
	if other := rest(err); len(rs) > 0 && other != nil {
		fmt.Fprintf(e.Stderr, "%s: %s\n", e.Program, other)
	}
	if len(rs) == 0 {
		fmt.Fprintf(e.Stderr, "%s: %s\n", e.Program, err)
		var h *HintError
		var w *WaitingError
		var r interface{ Remedy() string }
		switch {
		case errors.As(err, &h):
			fmt.Fprintf(e.Stderr, "hint: %s\n", h.Hint)
		case errors.As(err, &r) && r.Remedy() != "":
			fmt.Fprintf(e.Stderr, "hint: %s\n", r.Remedy())
		case errors.As(err, &w) && w.Hint != "":
			fmt.Fprintf(e.Stderr, "hint: %s\n", w.Hint)
		}
		return code
	}
	fmt.Fprintf(e.Stderr, "%s: refused, %s:\n", e.Program, trust.Count(len(rs), "reason"))
	seen := map[string]bool{}
	var hints []string
	for _, r := range rs {
		fmt.Fprintf(e.Stderr, "  %s\n", r.Error())
		if r.Hint != "" && !seen[r.Hint] {
			seen[r.Hint] = true
			hints = append(hints, r.Hint)
		}
	}
	for _, h := range hints {
		fmt.Fprintf(e.Stderr, "hint: %s\n", h)
	}
	return code
}

// Root makes the root command of a program from its verbs: nouns with their verbs below them.
func Root(env *Env, short, long, example string, nouns ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use:               env.Program,
		Short:             short,
		Long:              long,
		Example:           example,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              cobra.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetIn(env.Stdin)
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate(helpTemplate)
	flags := root.PersistentFlags()
	flags.BoolVar(&env.JSON, "json", false, "print the result as JSON")
	flags.BoolVarP(&env.Quiet, "quiet", "q", false, "no progress and no remarks on standard error")
	flags.StringVar(&env.ZoneDir, "zone", "", "directory of the zone (default $SALLYPORT_ZONE)")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &UsageError{err.Error()} })
	// Nouns of one name are one noun: both sides of the gap and each of them alone may have verbs for it. The first one's description counts.
	for _, n := range nouns {
		i := slices.IndexFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == n.Name() })
		if i < 0 {
			root.AddCommand(n)
			continue
		}
		for _, verb := range n.Commands() {
			n.RemoveCommand(verb)
			root.Commands()[i].AddCommand(verb)
		}
	}
	usageErrors(root)
	return root
}

// usageErrors makes wrong arguments, unknown nouns and unknown verbs usage errors, at every depth.
func usageErrors(cmd *cobra.Command) {
	if args := cmd.Args; args != nil {
		cmd.Args = func(c *cobra.Command, a []string) error {
			if err := args(c, a); err != nil {
				text := strings.ReplaceAll(err.Error(), "\n", " ")
				if strings.Contains(text, "arg(s)") {
					text += "; usage: " + c.UseLine()
				}
				return &UsageError{text}
			}
			return nil
		}
	}
	if cmd.HasSubCommands() && cmd.RunE == nil && cmd.Run == nil {
		cmd.RunE = func(c *cobra.Command, a []string) error {
			if len(a) > 0 {
				return Usage("unknown verb %q for %q", a[0], c.CommandPath())
			}
			return c.Help()
		}
	}
	for _, c := range cmd.Commands() {
		usageErrors(c)
	}
}

// Run runs the command line and returns the exit code. It prints every error.
func Run(ctx context.Context, env *Env, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	// A command line that could not be read to its end may still have asked for JSON.
	if flags, _, _ := strings.Cut(strings.Join(args, "\n")+"\n", "\n--\n"); strings.Contains("\n"+flags, "\n--json\n") {
		env.JSON = true
	}
	if err != nil && strings.HasPrefix(err.Error(), "unknown command") {
		err = &UsageError{strings.SplitN(err.Error(), "\n", 2)[0]}
	}
	if err != nil && ctx.Err() != nil && len(refusals(err)) == 0 {
		err = &interruptedError{err}
	}
	code := env.report(err)
	if code == ExitUsage {
		fmt.Fprintf(env.Stderr, "hint: see '%s --help'\n", cmd.CommandPath())
	}
	return code
}

// An interruptedError is whatever failed once the operator had asked to stop: most often it failed for that, but what else it says must not be lost.
type interruptedError struct{ err error }

func (e *interruptedError) Error() string {
	if errors.Is(e.err, context.Canceled) && !strings.Contains(e.err.Error(), "\n") {
		return "interrupted"
	}
	return "interrupted: " + e.err.Error()
}

func (e *interruptedError) Unwrap() error { return context.Canceled }

// System is the real world, for mains.
func System(program string) *Env {
	return &Env{
		Program: program, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Clock: func() time.Time { return time.Now().UTC().Truncate(time.Second) }, Rand: randReader, Getenv: os.Getenv,
	}
}

// helpTemplate puts examples first: people read those.
const helpTemplate = `{{if .HasExample}}Examples:
{{.Example}}

{{end}}{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}

{{end}}{{.UsageString}}`

const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]

Commands:{{range .Commands}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`
