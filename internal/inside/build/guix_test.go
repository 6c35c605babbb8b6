package build

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// vectorsVariable names a directory with derivations, their inputs and what guix-daemon made of them: results.json, drv/*.drv, inputs/, *.nar.
const vectorsVariable = "SALLYPORT_GUIX_BUILD_VECTORS"

// guixRefusals is what has to come of the cases that the daemon refused: it prints sentences, we have codes.
var guixRefusals = map[string]string{
	"v-cycle":       CodeCycle,
	"v-fixed-bad":   CodeHash,
	"v-fixed-exec":  CodeNotFlat,
	"v-fail":        CodeExit,
	"v-noout":       CodeMissing,
	"v-disallowed":  CodeDisallowed,
	"v-allowed":     CodeNotAllowed,
	"v-topwritable": CodeSuspicious,
	"v-fifo":        CodeType,
	"v-fenv":        CodeExit,
}

type guixCase struct {
	Case    string `json:"case"`
	Drv     string `json:"drv"`
	Result  string `json:"result"`
	Outputs map[string]struct {
		Path       string   `json:"path"`
		NarSHA256  string   `json:"nar_sha256"`
		NarSize    int64    `json:"nar_size"`
		References []string `json:"references"`
	} `json:"outputs"`
}

// TestGuixDaemon builds what guix-daemon built and compares.
func TestGuixDaemon(t *testing.T) {
	vectors := os.Getenv(vectorsVariable)
	if vectors == "" {
		t.Skipf("SKIPPED: nothing was compared with guix-daemon. Set %s to a directory with results recorded from it", vectorsVariable)
	}
	var cases []guixCase
	data, err := os.ReadFile(filepath.Join(vectors, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	s := newStore(t)
	guixInputs(t, s, filepath.Join(vectors, "inputs"))

	for _, c := range cases {
		p := mustPath(t, c.Drv)
		name, _ := derivation.Name(p)
		check := strings.HasSuffix(c.Case, "--check")
		label := name
		if check {
			label += "-check"
		}
		t.Run(label, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(vectors, "drv", p.Base()))
			if err != nil {
				t.Fatal(err)
			}
			d, err := derivation.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			job := s.job(t, p, d)
			if name == "v-fenv" {
				job.Getenv = func(name string) string { return map[string]string{"LANG": "C.UTF-8"}[name] }
			}
			r, log, err := run(t, job)
			t.Logf("log:\n%s", log)
			if r != nil && r.StrayCount > 0 {
				t.Logf("strays: %q", r.Strays)
			}
			if check {
				// The daemon found that a second build differs; so do we.
				if err != nil {
					t.Fatal(err)
				}
				if first := s.dumpHash(t, r.Outputs[0].Path); first == r.Outputs[0].NarHash {
					t.Error("two builds of it are equal")
				}
				return
			}
			if strings.HasPrefix(c.Result, "failed") {
				assertCode(t, err, guixRefusals[name])
				t.Logf("guix-daemon: %s\nours: %v", c.Result, err)
				if name == "v-fenv" {
					guixFixedEnvironment(t, vectors, log)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			guixOutputs(t, s, vectors, name, c, r)
			s.addResult(t, r)
		})
	}
}

func guixInputs(t *testing.T, s *store, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		if strings.HasSuffix(file, ".export.xz") {
			xz, err := exec.LookPath("xz")
			if err != nil {
				t.Skipf("SKIPPED: %v; install xz to unpack %s", err, file)
			}
			stream, err := exec.Command(xz, "-dc", file).Output()
			if err != nil {
				t.Fatal(err)
			}
			readExport(t, bytes.NewReader(stream), s)
			continue
		}
		p, err := storepath.ParseBase(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.addText(t, p.Name(), string(text)); got != p {
			t.Fatalf("%s has the path %s", file, got)
		}
	}
}

func guixOutputs(t *testing.T, s *store, vectors, name string, c guixCase, r *Result) {
	if len(r.Outputs) != len(c.Outputs) {
		t.Errorf("%d outputs, want %d", len(r.Outputs), len(c.Outputs))
	}
	for _, o := range r.Outputs {
		want := c.Outputs[o.ID]
		if o.Path.String() != want.Path {
			t.Errorf("%s: path %s, want %s", o.ID, o.Path, want.Path)
		}
		checkCanonical(t, o.HostPath)
		refs := make([]string, len(o.References))
		for i, p := range o.References {
			refs[i] = p.String()
		}
		if name == "v-env" {
			guixEnvironment(t, vectors, o.HostPath, c)
			continue // records the machine: hash, size and, since its list of mounts names inputs, references
		}
		if !slices.Equal(refs, want.References) {
			t.Errorf("%s: references %q, want %q", o.ID, refs, want.References)
		}
		if name == "v-nondet" {
			continue
		}
		if got := hex.EncodeToString(o.NarHash[:]); got != want.NarSHA256 || o.NarSize != want.NarSize {
			t.Errorf("%s: nar %s of %d bytes, want %s of %d", o.ID, got, o.NarSize, want.NarSHA256, want.NarSize)
		}
	}
}

// guixEnvironment compares those files of v-env that do not describe the machine.
func guixEnvironment(t *testing.T, vectors, out string, c guixCase) {
	text, err := os.ReadFile(filepath.Join(vectors, "v-env.txt"))
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]string)
	for _, part := range strings.Split("\n"+string(text), "\n== ")[1:] {
		title, body, _ := strings.Cut(part, "\n")
		sections[title] = strings.TrimRight(body, "\n") + "\n"
	}
	for _, file := range []string{"env", "store", "etc", "write"} {
		got, err := os.ReadFile(filepath.Join(out, file))
		if err != nil {
			t.Fatal(err)
		}
		want := sections[file]
		if want == "\n" || want == "" {
			t.Fatalf("v-env.txt has no section %q", file)
		}
		if file == "etc" { // the recorded build user was 999
			want = strings.NewReplacer("nixbld:x:999:999:", fmt.Sprintf("nixbld:x:%d:%d:", DefaultUID, DefaultGID), "nixbld:!:999:", fmt.Sprintf("nixbld:!:%d:", DefaultGID)).Replace(want)
		}
		if string(got) != want {
			t.Errorf("%s:\n%swant:\n%s", file, got, want)
		}
	}
	for _, file := range []string{"id", "ls", "mounts"} {
		got, _ := os.ReadFile(filepath.Join(out, file))
		t.Logf("%s:\n%s", file, got)
	}
}

// guixFixedEnvironment compares the environment that the daemon gave a fixed output's builder.
func guixFixedEnvironment(t *testing.T, vectors, log string) {
	text, err := os.ReadFile(filepath.Join(vectors, "build-log.txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, want, ok := strings.Cut(string(text), "HOME=/homeless-shelter\n")
	if !ok {
		t.Fatal("build-log.txt has no environment")
	}
	for _, line := range append([]string{"HOME=/homeless-shelter"}, strings.Split(want, "\n")...) {
		if strings.Contains(line, "=") && !strings.Contains("\n"+log, "\n"+line+"\n") {
			t.Errorf("the builder did not have %s", line)
		}
	}
}

// assertCode demands that err is one Failure, or a list of refusals that all have the code.
func assertCode(t testing.TB, err error, code string) {
	t.Helper()
	var f *Failure
	if errors.As(err, &f) {
		if f.Code != code {
			t.Errorf("failed with %v, want code %s", err, code)
		}
		return
	}
	refusals, ok := trust.AsRefusals(err)
	if !ok {
		t.Errorf("ended with %v, want code %s", err, code)
		return
	}
	for _, r := range refusals {
		if r.Code != code {
			t.Errorf("refused with %v, want only code %s", r, code)
		}
	}
}
