package collect

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

// Bounds of a request.
const (
	MaxRequest = 1 << 20 // bytes of the file
	maxParts   = 10_000  // sources, derivations and channels
)

// A Request says what is wanted.
type Request struct {
	// Enclave is the enclave the goods are for; it must be the zone's.
	Enclave string `toml:"enclave"`
	// Source lists trees and files of this machine that become items.
	Source []Source `toml:"source"`
	// Derivation lists what is to be built from them inside.
	Derivation []Recipe `toml:"derivation"`
	// Channel lists the channels whose pins are to cross.
	Channel []Channel `toml:"channel"`

	digest trust.Digest
}

// A Source is one tree or file that becomes a store item of kind "source".
type Source struct {
	// Label is how derivations of this request refer to it: {LABEL}.
	Label string `toml:"label"`
	// Name is the store name; go-toolchain has go-VERSION as its default.
	Name string `toml:"name"`
	// From is "path" (a tree or file as it lies), "go-module" (a Go module's files under version control, with its modules vendored), or
	// "go-toolchain" (the Go that is installed here).
	From string `toml:"from"`
	// Path is relative to the request file. go-toolchain has none.
	Path string `toml:"path"`
}

// A Recipe is a derivation whose inputs are sources of the same request. In builder, args and env these stand for what is only known once
// everything is collected: {LABEL} is a source's store path, {builddir} the build's directory, {system} the system.
type Recipe struct {
	Name    string            `toml:"name"`
	System  string            `toml:"system"` // default: this machine's
	Builder string            `toml:"builder"`
	Args    []string          `toml:"args"`
	Env     map[string]string `toml:"env"`
	Outputs []string          `toml:"outputs"` // default: out
}

var labelForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// ParseRequest reads a request. Unknown keys are errors; every fault is listed.
func ParseRequest(data []byte) (*Request, error) {
	if len(data) > MaxRequest {
		return nil, fmt.Errorf("request: %d bytes, more than %d", len(data), MaxRequest)
	}
	r := &Request{digest: trust.Sum(data)}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		var strict *toml.StrictMissingError
		var at *toml.DecodeError
		switch {
		case errors.As(err, &strict):
			return nil, fmt.Errorf("request: unknown keys:\n%s", strict.String())
		case errors.As(err, &at):
			line, col := at.Position()
			return nil, fmt.Errorf("request: line %d, column %d: %s", line, col, at.Error())
		}
		return nil, fmt.Errorf("request: %w", err)
	}
	return r, r.check()
}

func (r *Request) check() error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("request: "+format, args...)) }
	if err := trust.CheckWord(r.Enclave); err != nil {
		fault("enclave: %w", err)
	}
	if n := len(r.Source) + len(r.Derivation) + len(r.Channel); n == 0 || n > maxParts {
		fault("%d sources, derivations and channels; from 1 to %d are wanted", n, maxParts)
	}
	channels := map[string]bool{}
	for i, c := range r.Channel {
		if err := trust.CheckChannel(c.Name); err != nil {
			fault("channel %d: name: %w", i+1, err)
		} else if channels[c.Name] {
			fault("channel %q stands twice", c.Name)
		}
		channels[c.Name] = true
		if c.Repository == "" {
			fault("channel %q: no repository", c.Name)
		}
	}
	labels := map[string]bool{"builddir": true, "system": true}
	for i, s := range r.Source {
		switch {
		case !labelForm.MatchString(s.Label):
			fault("source %d: label %q: want %s", i+1, s.Label, labelForm)
		case labels[s.Label]:
			fault("source %d: label %q is taken", i+1, s.Label)
		}
		labels[s.Label] = true
		switch s.From {
		case "path", "go-module":
			if s.Path == "" {
				fault("source %q: no path", s.Label)
			}
			if err := storepath.CheckName(s.Name); err != nil {
				fault("source %q: name: %w", s.Label, err)
			}
		case "go-toolchain":
			if s.Path != "" {
				fault("source %q: a toolchain is found by asking it; path is not wanted", s.Label)
			}
		default:
			fault("source %q: from = %q: want path, go-module or go-toolchain", s.Label, s.From)
		}
	}
	for _, d := range r.Derivation {
		if err := storepath.CheckName(d.Name); err != nil {
			fault("derivation %q: name: %w", d.Name, err)
		}
		all := append([]string{d.Builder}, d.Args...)
		for _, v := range d.Env {
			all = append(all, v)
		}
		for _, s := range all {
			for _, m := range placeholder.FindAllStringSubmatch(s, -1) {
				if !labels[m[1]] {
					fault("derivation %q: {%s} is no label of a source", d.Name, m[1])
				}
			}
		}
		if !strings.HasPrefix(d.Builder, "{") {
			fault("derivation %q: builder %q: want a path below a source, {LABEL}/...", d.Name, d.Builder)
		}
	}
	return errors.Join(errs...)
}

var placeholder = regexp.MustCompile(`\{([a-z][a-z0-9-]*)\}`)

// derive makes the derivation of a recipe from the store paths of the sources. Only the sources that it names become its inputs.
func (d *Recipe) derive(sources map[string]storepath.Path, system string) (*derivation.Derivation, error) {
	if d.System != "" {
		system = d.System
	}
	used := map[string]bool{}
	expand := func(s string) string {
		return placeholder.ReplaceAllStringFunc(s, func(m string) string {
			switch label := m[1 : len(m)-1]; label {
			case "builddir":
				return "/tmp/guix-build-" + d.Name + ".drv-0"
			case "system":
				return system
			default:
				used[label] = true
				return sources[label].String()
			}
		})
	}
	drv := &derivation.Derivation{System: system, Builder: expand(d.Builder)}
	for _, a := range d.Args {
		drv.Args = append(drv.Args, expand(a))
	}
	for name, value := range d.Env {
		drv.Env = append(drv.Env, derivation.Variable{Name: name, Value: expand(value)})
	}
	outputs := d.Outputs
	if len(outputs) == 0 {
		outputs = []string{"out"}
	}
	for _, id := range outputs {
		drv.Outputs = append(drv.Outputs, derivation.Output{ID: id})
		drv.Env = append(drv.Env, derivation.Variable{Name: id})
	}
	for label := range used {
		drv.Sources = append(drv.Sources, sources[label].String())
	}
	slices.Sort(drv.Sources)
	slices.SortFunc(drv.Outputs, func(a, b derivation.Output) int { return strings.Compare(a.ID, b.ID) })
	slices.SortFunc(drv.Env, func(a, b derivation.Variable) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(drv.Env); i++ {
		if drv.Env[i].Name == drv.Env[i-1].Name {
			return nil, fmt.Errorf("derivation %q: env sets %q, which is an output's name", d.Name, drv.Env[i].Name)
		}
	}
	return drv, derivation.NewHasher(nil).Fill(d.Name, drv)
}
