package frame

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sallyport/internal/trust"
)

func testEnv() (*Env, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return &Env{Program: "prog", Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }}, &out, &errs
}

// runVerb runs a verb that ends with err, in a context that has ended or has not.
func runVerb(t *testing.T, verb error, interrupt bool, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	env, out, errs := testEnv()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	root := Root(env, "short", "long", "", &cobra.Command{Use: "verb", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		if interrupt {
			cancel()
		}
		return verb
	}})
	code = Run(ctx, env, root, append(args, "verb"))
	return code, out.String(), errs.String()
}

func TestExitCodes(t *testing.T) {
	one := trust.Refuse("some-code", "subject", "detail").WithHint("do this")
	clean := errors.New("blob store: unlink: input/output error")
	tests := []struct {
		name      string
		err       error
		interrupt bool
		code      int
		kind      string
		says      []string
	}{
		{"done", nil, false, 0, "", nil},
		{"failed", errors.New("disk"), false, 1, "failed", []string{"prog: disk\n"}},
		{"failed with a hint", WithHint(errors.New("disk"), "buy %s", "another"), false, 1, "failed", []string{"hint: buy another\n"}},
		{"usage", Usage("wrong"), false, 2, "usage", []string{"prog: wrong\n", "--help"}},
		{"one refusal", one, false, 3, "refused", []string{"refused, 1 reason:", "subject: some-code: detail", "hint: do this"}},
		{"a wrapped refusal", fmt.Errorf("item: %w", one), false, 3, "refused", []string{"some-code"}},
		{"refusals", trust.Refusals{one, trust.Refuse("other-code", "x", "y")}, false, 3, "refused", []string{"2 reasons", "some-code", "other-code"}},
		{"a refusal, and what could not be cleaned up", errors.Join(trust.Refusals{one}, clean), false, 3, "refused", []string{"prog: " + clean.Error() + "\n", "some-code"}},
		{"the other way round", errors.Join(clean, one), false, 3, "refused", []string{"prog: " + clean.Error() + "\n", "some-code"}},
		{"a refusal when it was cleaned up", errors.Join(one, nil), false, 3, "refused", []string{"some-code"}},
		{"waiting", &WaitingError{"one more", "ask bob"}, false, 4, "waiting", []string{"prog: one more\n", "hint: ask bob\n"}},
		{"stopped", context.Canceled, true, 130, "interrupted", []string{"prog: interrupted\n"}},
		{"stopped, in other words", errors.New("signal: killed"), true, 130, "interrupted", []string{"interrupted: signal: killed"}},
		{"stopped, and what could not be cleaned up", errors.Join(context.Canceled, clean), true, 130, "interrupted", []string{clean.Error()}},
		{"refused while it was told to stop", one, true, 3, "refused", []string{"some-code"}},
		{"done while it was told to stop", nil, true, 0, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, out, errs := runVerb(t, tt.err, tt.interrupt)
			if code != tt.code || out != "" {
				t.Errorf("exit %d, %q on standard output", code, out)
			}
			for _, s := range tt.says {
				if !strings.Contains(errs, s) {
					t.Errorf("no %q in %q", s, errs)
				}
			}
			if tt.says == nil && errs != "" {
				t.Errorf("%q", errs)
			}
			code, out, _ = runVerb(t, tt.err, tt.interrupt, "--json")
			var v struct {
				Type    string
				Reasons []struct{ Code string }
			}
			if tt.kind == "" {
				if out != "" {
					t.Errorf("%q", out)
				}
				return
			}
			if err := json.Unmarshal([]byte(out), &v); err != nil || v.Type != tt.kind || code != tt.code || (code == 3) != (len(v.Reasons) > 0) {
				t.Errorf("exit %d, %q: %v", code, out, err)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"nothing"}, {"verb", "extra"}, {"verb", "--nothing"}, {"--json"}} {
		env, _, _ := testEnv()
		noun := &cobra.Command{Use: "noun"}
		noun.AddCommand(&cobra.Command{Use: "do", RunE: func(*cobra.Command, []string) error { return nil }})
		root := Root(env, "short", "long", "", noun, &cobra.Command{Use: "verb", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }})
		want := ExitUsage
		if args[0] == "--json" {
			want = ExitDone
		}
		if code := Run(t.Context(), env, root, args); code != want {
			t.Errorf("%v: exit %d, want %d", args, code, want)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x")
	if err := WriteNew(file, []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(file, []byte("five"), 0o600); !errors.Is(err, os.ErrExist) {
		t.Error(err)
	}
	if b, err := ReadBounded(file, 4); err != nil || string(b) != "four" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := ReadBounded(file, 3); err == nil {
		t.Error("read past a bound")
	}
	if _, err := ReadBounded(dir, 100); err == nil {
		t.Error("read a directory")
	}
	if err := WriteNew(filepath.Join(dir, "no", "x"), nil, 0o600); err == nil {
		t.Error("written nowhere")
	}
}

// TestNounsOfOneName: verbs for a noun may come from several places.
func TestNounsOfOneName(t *testing.T) {
	var stdout, stderr bytes.Buffer
	env := &Env{Program: "x", Stdout: &stdout, Stderr: &stderr, Getenv: func(string) string { return "" }}
	ran := ""
	verb := func(name string) *cobra.Command {
		return &cobra.Command{Use: name, RunE: func(*cobra.Command, []string) error { ran = name; return nil }}
	}
	noun := func(verbs ...*cobra.Command) *cobra.Command {
		c := &cobra.Command{Use: "noun"}
		c.AddCommand(verbs...)
		return c
	}
	for _, name := range []string{"a", "b", "c"} {
		root := Root(env, "", "", "", noun(verb("a")), noun(verb("b"), verb("c")))
		if len(root.Commands()) != 1 {
			t.Errorf("%d nouns", len(root.Commands()))
		}
		if code := Run(context.Background(), env, root, []string{"noun", name}); code != ExitDone || ran != name {
			t.Errorf("%s: exit code %d, ran %q", name, code, ran)
		}
	}
}

// TestHelp: examples come first, and a usage error names the help of its verb.
func TestHelp(t *testing.T) {
	verb := func() *cobra.Command {
		return &cobra.Command{Use: "do [flags] THING", Short: "short", Long: "Long words.", Example: "  prog noun do this", Args: cobra.ExactArgs(1), RunE: func(*cobra.Command, []string) error { return nil }}
	}
	run := func(args ...string) (int, string, string) {
		env, out, errs := testEnv()
		noun := &cobra.Command{Use: "noun"}
		noun.AddCommand(verb())
		code := Run(t.Context(), env, Root(env, "short", "long", "", noun), args)
		return code, out.String(), errs.String()
	}
	if code, out, _ := run("noun", "do", "--help"); code != 0 || !strings.HasPrefix(out, "Examples:\n  prog noun do this\n\nLong words.\n\nUsage:\n") || strings.Count(out, "Examples:") != 1 {
		t.Errorf("%d %q", code, out)
	}
	if code, _, errs := run("noun", "do"); code != ExitUsage || !strings.Contains(errs, "received 0; usage: prog noun do [flags] THING\n") || !strings.Contains(errs, "hint: see 'prog noun do --help'") {
		t.Errorf("%d %q", code, errs)
	}
	if code, _, errs := run("noun", "do", "--nothing"); code != ExitUsage || !strings.Contains(errs, "'prog noun do --help'") {
		t.Errorf("%d %q", code, errs)
	}
	if code, _, errs := run("nothing"); code != ExitUsage || !strings.Contains(errs, "'prog --help'") {
		t.Errorf("%d %q", code, errs)
	}
}

// full is a disk on which there is no room any more after some bytes.
type full struct{ room int }

func (f *full) Write(b []byte) (int, error) {
	if f.room -= len(b); f.room < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(b), nil
}

// TestResultWritten: a result that could not be written is a failure, and is told once.
func TestResultWritten(t *testing.T) {
	for _, args := range [][]string{{"verb"}, {"verb", "--json"}} {
		env, _, errs := testEnv()
		env.Stdout = &full{room: 3}
		root := Root(env, "short", "long", "", &cobra.Command{Use: "verb", RunE: func(*cobra.Command, []string) error {
			return env.Result(map[string]string{"a": "b"}, func(w io.Writer) { fmt.Fprintln(w, "1"); fmt.Fprintln(w, "2"); fmt.Fprintln(w, "3") })
		}})
		if code := Run(t.Context(), env, root, args); code != ExitFailed || strings.Count(errs.String(), "no space left") != 1 {
			t.Errorf("%v: exit %d, %q", args, code, errs)
		}
	}
}
